#include "model/field_reader.h"

#include <fmt/format.h>

#include <cmath>

namespace rooftree::model {

std::string quoted(const Json& value) {
  std::string text = value.is_string()   ? fmt::format("'{}'", value.get_ref<const std::string&>())
                     : value.is_object() ? std::string("an object")
                     : value.is_array()  ? fmt::format("a list of {}", value.size())
                                         : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr std::size_t kMax = 60;
  if (text.size() > kMax) text.replace(kMax, std::string::npos, "…");
  return text;
}

FieldReader::FieldReader(const Json* object, std::string where, std::string path)
    : object_(object), where_(std::move(where)), path_(std::move(path)) {
  if (object_ != nullptr && !object_->is_object()) {
    problem_ = fmt::format("{}: {}: {}; expected an object", where_, path_.empty() ? "the file" : path_, quoted(*object_));
    object_ = nullptr;
  }
}

std::string FieldReader::full_name(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void FieldReader::fail(std::string_view key, std::string_view found, std::string_view expected) {
  if (problem_.empty()) problem_ = fmt::format("{}: {}: {}; expected {}", where_, full_name(key), found, expected);
}

bool FieldReader::has(std::string_view key) const {
  if (object_ == nullptr) return false;
  const auto it = object_->find(key);
  return it != object_->end() && !it->is_null();
}

const Json* FieldReader::find(std::string_view key) {
  if (object_ == nullptr) return nullptr;
  seen_.emplace(key);
  const auto it = object_->find(key);
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

const Json* FieldReader::require(std::string_view key, std::string_view expected) {
  const Json* value = find(key);
  if (value == nullptr) fail(key, "missing", expected);
  return value;
}

namespace {

std::string range_text(std::string_view what, std::int64_t low, std::int64_t high) {
  return fmt::format("{} in {}..{}", what, low, high);
}

// Whole numbers only, also when written as 4096.0 or beyond the range of 64 bits.
bool as_integer(const Json& value, std::int64_t low, std::int64_t high, std::int64_t& out) {
  if (value.is_number_unsigned()) {
    const auto v = value.get<std::uint64_t>();
    if (v > static_cast<std::uint64_t>(INT64_MAX)) return false;
    out = static_cast<std::int64_t>(v);
  } else if (value.is_number_integer()) {
    out = value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const double v = value.get<double>();
    if (!(std::abs(v) < 9e15) || v != std::floor(v)) return false;
    out = static_cast<std::int64_t>(v);
  } else {
    return false;
  }
  return out >= low && out <= high;
}

}  // namespace

std::int64_t FieldReader::integer(std::string_view key, std::int64_t low, std::int64_t high) {
  std::int64_t out = low;
  const Json* value = require(key, range_text("a whole number", low, high));
  if (value != nullptr && !as_integer(*value, low, high, out)) {
    fail(key, quoted(*value), range_text("a whole number", low, high));
    return low;
  }
  return out;
}

std::int64_t FieldReader::integer_or(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high) {
  return has(key) ? integer(key, low, high) : (skip(key), fallback);
}

double FieldReader::number_or(std::string_view key, double fallback, double low, double high) {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  const double out = value->is_number() ? value->get<double>() : NAN;
  if (!(out >= low && out <= high)) {
    fail(key, quoted(*value), fmt::format("a number in {}..{}", low, high));
    return fallback;
  }
  return out;
}

bool FieldReader::flag(std::string_view key) {
  const Json* value = require(key, "true or false");
  if (value == nullptr) return false;
  if (!value->is_boolean()) {
    fail(key, quoted(*value), "true or false");
    return false;
  }
  return value->get<bool>();
}

bool FieldReader::flag_or(std::string_view key, bool fallback) { return has(key) ? flag(key) : (skip(key), fallback); }

std::string FieldReader::text(std::string_view key) {
  const Json* value = require(key, "a text");
  if (value == nullptr) return {};
  if (!value->is_string()) {
    fail(key, quoted(*value), "a text");
    return {};
  }
  return value->get<std::string>();
}

std::string FieldReader::text_or(std::string_view key, std::string_view fallback) {
  return has(key) ? text(key) : (skip(key), std::string(fallback));
}

std::vector<std::string> FieldReader::texts_or_empty(std::string_view key) {
  std::vector<std::string> out;
  const Json* value = array_or_null(key);
  if (value == nullptr) return out;
  for (const Json& item : *value) {
    if (!item.is_string()) {
      fail(key, quoted(item), "a list of texts");
      return {};
    }
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<std::int64_t> FieldReader::integers(std::string_view key, std::int64_t low, std::int64_t high,
                                                std::size_t max_count) {
  std::vector<std::int64_t> out;
  const std::string expected = fmt::format("1..{} whole numbers in {}..{}", max_count, low, high);
  const Json* value = require(key, expected);
  if (value == nullptr) return out;
  if (!value->is_array() || value->empty() || value->size() > max_count) {
    fail(key, quoted(*value), expected);
    return out;
  }
  for (const Json& item : *value) {
    std::int64_t v = 0;
    if (!as_integer(item, low, high, v)) {
      fail(key, quoted(item), expected);
      return out;
    }
    out.push_back(v);
  }
  return out;
}

std::vector<double> FieldReader::numbers_or_empty(std::string_view key, double low, double high, std::size_t max_count) {
  std::vector<double> out;
  const Json* value = array_or_null(key);
  if (value == nullptr) return out;
  for (const Json& item : *value) {
    const double v = item.is_number() ? item.get<double>() : NAN;
    if (!(v >= low && v <= high) || out.size() == max_count) {
      fail(key, quoted(item), fmt::format("at most {} numbers in {}..{}", max_count, low, high));
      return {};
    }
    out.push_back(v);
  }
  return out;
}

FieldReader FieldReader::object(std::string_view key) {
  const Json* value = require(key, "an object");
  FieldReader reader(value, where_, full_name(key));
  if (value == nullptr) reader.problem_ = problem_;
  return reader;
}

FieldReader FieldReader::object_or_empty(std::string_view key) {
  FieldReader reader(find(key), where_, full_name(key));
  return reader;
}

const Json* FieldReader::array_or_null(std::string_view key) {
  const Json* value = find(key);
  if (value != nullptr && !value->is_array()) {
    fail(key, quoted(*value), "a list");
    return nullptr;
  }
  return value;
}

Status FieldReader::status(bool all_known) const {
  if (!problem_.empty()) return Error{ErrorCode::kInvalid, problem_};
  if (all_known && object_ != nullptr) {
    for (const auto& [key, value] : object_->items()) {
      if (!seen_.contains(key)) {
        return Error{ErrorCode::kInvalid,
                     fmt::format("{}: {}: unknown field; expected one of {}", where_, full_name(key), fmt::join(seen_, ", "))};
      }
    }
  }
  return Ok{};
}

}  // namespace rooftree::model

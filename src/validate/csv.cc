#include "validate/csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

namespace rooftree::validate {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

Result<Csv> Csv::parse(std::string_view text, std::string_view where, const CsvLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} bytes; expected at most {}", where, text.size(), limits.max_bytes)};
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // byte order mark
  Csv csv;
  csv.text_.reserve(text.size());
  std::size_t line = 1;
  std::size_t line_start = 0;
  std::size_t at = 0;
  const auto fail = [&](std::size_t offset, const std::string& what) {
    return Error{ErrorCode::kParse, fmt::format("{}:{}:{}: {}", where, line, offset - line_start + 1, what)};
  };
  bool is_header = true;
  std::string header_field;
  while (at < text.size()) {
    const std::size_t row_line = line;
    std::size_t fields = 0;
    bool row_done = false;
    const bool blank_line = text[at] == '\n' || (text[at] == '\r' && at + 1 < text.size() && text[at + 1] == '\n');
    if (blank_line) {  // between rows: skipped
      at += text[at] == '\r' ? 2 : 1;
      ++line;
      line_start = at;
      continue;
    }
    while (!row_done) {
      header_field.clear();
      std::string& out = is_header ? header_field : csv.text_;
      const std::size_t field_start = out.size();
      const std::size_t field_at = at;
      const std::size_t field_line = line;
      const std::size_t field_line_start = line_start;
      if (at < text.size() && text[at] == '"') {
        ++at;
        for (;;) {
          if (at >= text.size()) {
            line = field_line;
            line_start = field_line_start;
            return fail(field_at, "quote that is never closed");
          }
          const char c = text[at];
          if (c == '"') {
            if (at + 1 < text.size() && text[at + 1] == '"') {
              out += '"';
              at += 2;
              continue;
            }
            ++at;
            break;
          }
          if (c == '\n') {
            ++line;
            line_start = at + 1;
          }
          out += c;
          ++at;
          if (out.size() - field_start > limits.max_field_bytes) {
            return fail(at, fmt::format("field longer than {} bytes", limits.max_field_bytes));
          }
        }
        if (at < text.size() && text[at] != ',' && text[at] != '\n' && text[at] != '\r') {
          return fail(at, fmt::format("'{}' after a closing quote; expected a comma or the end of the line",
                                      std::isprint(static_cast<unsigned char>(text[at])) ? std::string(1, text[at]) : "?"));
        }
      } else {
        const std::size_t end = std::min(text.find_first_of(",\n\r\"", at), text.size());
        if (end < text.size() && text[end] == '"')
          return fail(end, "quote inside an unquoted field; expected \"\" inside quotes");
        if (end - at > limits.max_field_bytes)
          return fail(at, fmt::format("field longer than {} bytes", limits.max_field_bytes));
        out += text.substr(at, end - at);
        at = end;
      }
      ++fields;
      if (fields > limits.max_columns) return fail(at, fmt::format("more than {} columns", limits.max_columns));
      if (is_header) {
        const std::string column(trimmed(header_field));
        if (std::find(csv.header_.begin(), csv.header_.end(), column) != csv.header_.end()) {
          return fail(field_at, fmt::format("column \"{}\" appears twice", column));
        }
        csv.header_.push_back(column);
      } else {
        csv.ends_.push_back(csv.text_.size());
      }
      if (at >= text.size()) {
        row_done = true;
      } else if (text[at] == ',') {
        ++at;
      } else {
        if (text[at] == '\r') {
          ++at;
          if (at >= text.size() || text[at] != '\n') return fail(at, "carriage return without a line feed");
        }
        ++at;
        row_done = true;
      }
    }
    if (is_header) {
      is_header = false;
    } else {
      if (fields != csv.header_.size()) {
        return Error{ErrorCode::kParse, fmt::format("{}:{}:1: {} fields; expected {} as in the header", where, row_line, fields,
                                                    csv.header_.size())};
      }
      csv.lines_.push_back(row_line);
      if (csv.lines_.size() > limits.max_rows) return fail(at, fmt::format("more than {} rows", limits.max_rows));
    }
    if (at > 0 && at <= text.size() && text[at - 1] == '\n') {
      ++line;
      line_start = at;
    }
  }
  if (csv.header_.empty()) return Error{ErrorCode::kParse, fmt::format("{}:1:1: empty; expected a header row", where)};
  return csv;
}

std::string_view Csv::field(std::size_t row, std::size_t column) const {
  const std::size_t i = row * header_.size() + column;
  const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
  return std::string_view(text_).substr(begin, ends_[i] - begin);
}

std::optional<std::size_t> Csv::column(std::string_view name) const {
  const auto it = std::find(header_.begin(), header_.end(), name);
  if (it == header_.end()) return std::nullopt;
  return static_cast<std::size_t>(it - header_.begin());
}

bool Row::has(std::string_view column) const { return csv_->column(column).has_value(); }

std::string_view Row::text(std::string_view column) const {
  const auto c = csv_->column(column);
  return c.has_value() ? trimmed(csv_->field(index_, *c)) : std::string_view{};
}

Result<double> Row::number(std::string_view column) const {
  const std::string_view t = text(column);
  if (t.empty()) return Error{ErrorCode::kInvalid, fmt::format("no {}", column)};
  double value = 0;
  const auto [end, ec] = std::from_chars(t.data(), t.data() + t.size(), value);
  if (ec != std::errc{} || end != t.data() + t.size() || !std::isfinite(value)) {
    return Error{ErrorCode::kInvalid, fmt::format("{} is not a number", column)};
  }
  return value;
}

Result<std::int64_t> Row::integer(std::string_view column, std::int64_t low, std::int64_t high) const {
  ROOFTREE_TRY(const double value, number(column));
  if (value != std::floor(value) || value < static_cast<double>(low) || value > static_cast<double>(high)) {
    return Error{ErrorCode::kInvalid, fmt::format("{} is not a whole number from {} to {}", column, low, high)};
  }
  return static_cast<std::int64_t>(value);
}

Result<bool> Row::boolean(std::string_view column) const {
  std::string t(text(column));
  std::transform(t.begin(), t.end(), t.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (t == "true" || t == "1" || t == "yes") return true;
  if (t == "false" || t == "0" || t == "no") return false;
  return Error{ErrorCode::kInvalid, fmt::format("{} is not true or false", column)};
}

std::size_t Row::line() const { return csv_->line(index_); }

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

}  // namespace rooftree::validate

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <span>

#include "text/jinja.h"

namespace rooftree::text::jinja {
namespace {

// Python's str.isspace: the characters that strip and split take off.
bool is_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::uint32_t decode(std::string_view text, std::size_t at, std::size_t size) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])); };
  switch (size) {
    case 2:
      return ((byte(0) & 0x1F) << 6) | (byte(1) & 0x3F);
    case 3:
      return ((byte(0) & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
    case 4:
      return ((byte(0) & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F);
    default:
      return byte(0) < 0x80 ? byte(0) : 0xFFFD;  // a stray byte is no space
  }
}

bool in_set(std::string_view character, std::string_view set) {
  for (std::size_t i = 0; i < set.size(); i += character_size(set, i)) {
    if (set.substr(i, character_size(set, i)) == character) return true;
  }
  return false;
}

// Without `set`: spaces.
std::string_view strip(std::string_view text, const std::string_view* set, bool left, bool right) {
  const auto strips = [&](std::size_t at, std::size_t size) {
    return set == nullptr ? is_space(decode(text, at, size)) : in_set(text.substr(at, size), *set);
  };
  std::size_t begin = 0, end = text.size();
  while (left && begin < end) {
    const std::size_t size = character_size(text, begin);
    if (!strips(begin, size)) break;
    begin += size;
  }
  while (right && begin < end) {
    std::size_t last = end - 1;
    while (last > begin && last + 4 > end && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    if (last + character_size(text, last) != end) last = end - 1;  // stray bytes
    if (!strips(last, end - last)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

// Two Boolean arguments would be swapped sooner or later: the case of each letter is one function.
using CaseMap = char (*)(char letter, bool after_letter);
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char up(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char down(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

Value map_case(Runtime& runtime, const Value& value, CaseMap map) {
  std::string text = runtime.to_text(value);
  bool after_letter = false;
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) {
      runtime.fail("upper and lower case of text beyond ASCII");
      return {};
    }
    const bool letter = is_letter(c);
    c = map(c, after_letter);
    after_letter = letter;
  }
  return runtime.make_text(std::move(text));
}

std::string_view text_argument(Runtime& runtime, const Value* value, std::string_view what) {
  if (value != nullptr && value->is(Kind::kString)) return value->text;
  runtime.fail(fmt::format("{} is {}; expected a string", what, value == nullptr ? "missing" : Runtime::kind_name(*value)));
  return {};
}

std::int64_t int_argument(Runtime& runtime, const Value* value, std::int64_t fallback, std::string_view what) {
  if (value == nullptr || value->is(Kind::kNone)) return fallback;
  if (value->is_integral()) return value->as_int();
  runtime.fail(fmt::format("{} is {}; expected an integer", what, Runtime::kind_name(*value)));
  return fallback;
}

Value replace(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to, std::int64_t count) {
  if (!runtime.charge(text.size() + text.size() * std::min<std::size_t>(from.size(), std::size_t{1} << 20) / 16)) return {};
  std::string out;
  std::size_t at = 0;
  for (std::int64_t done = 0; count < 0 || done < count; ++done) {
    if (from.empty()) {  // between all characters
      out += to;
      if (!runtime.charge(to.size() + 1)) return {};
      if (at >= text.size()) return runtime.make_text(std::move(out));
      const std::size_t size = character_size(text, at);
      out += text.substr(at, size);
      at += size;
      continue;
    }
    const std::size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (!runtime.charge(to.size() + 1)) return {};
  }
  out += text.substr(at);
  return runtime.make_text(std::move(out));
}

Value split(Runtime& runtime, std::string_view text, const Value* separator, std::int64_t most, bool from_right) {
  std::vector<Value> parts;
  if (!runtime.charge(2 * text.size())) return {};
  if (separator == nullptr || separator->is(Kind::kNone)) {
    if (from_right && most >= 0) {
      runtime.fail("rsplit on spaces with a limit");
      return {};
    }
    std::size_t at = 0;
    for (;;) {
      text = strip(text.substr(at), nullptr, true, false);
      at = 0;
      if (text.empty()) break;
      if (most >= 0 && static_cast<std::int64_t>(parts.size()) == most) {
        parts.push_back(Value::of_text(strip(text, nullptr, false, true)));
        break;
      }
      while (at < text.size()) {
        const std::size_t size = character_size(text, at);
        if (is_space(decode(text, at, size))) break;
        at += size;
      }
      parts.push_back(Value::of_text(text.substr(0, at)));
    }
    return runtime.make_list(std::move(parts));
  }
  const std::string_view by = text_argument(runtime, separator, "the separator of split");
  if (by.empty()) {
    runtime.fail("split by an empty separator");
    return {};
  }
  if (!runtime.charge(text.size() * std::min<std::size_t>(by.size(), std::size_t{1} << 20) / 16)) return {};
  while (most < 0 || static_cast<std::int64_t>(parts.size()) < most) {
    const std::size_t found = from_right ? text.rfind(by) : text.find(by);
    if (found == std::string_view::npos) break;
    if (from_right) {
      parts.push_back(Value::of_text(text.substr(found + by.size())));
      text = text.substr(0, found);
    } else {
      parts.push_back(Value::of_text(text.substr(0, found)));
      text = text.substr(found + by.size());
    }
  }
  parts.push_back(Value::of_text(text));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return runtime.make_list(std::move(parts));
}

Value pairs_of(Runtime& runtime, const Dict& dict) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict.items) {
    if (!runtime.charge(16)) return {};
    pairs.push_back(runtime.make_list({key, value}, true));
  }
  return runtime.make_list(std::move(pairs));
}

bool starts_or_ends(Runtime& runtime, std::string_view text, const Arguments& arguments, bool starts) {
  const Value* what = arguments.find(0, "prefix");
  std::vector<Value> options;
  if (what != nullptr && what->is(Kind::kList) && what->list->tuple) {
    options = what->list->items;
  } else if (what != nullptr) {
    options = {*what};
  }
  if (options.empty() && what == nullptr) text_argument(runtime, what, "the argument of startswith or endswith");
  return std::any_of(options.begin(), options.end(), [&](const Value& option) {
    const std::string_view part = text_argument(runtime, &option, "the argument of startswith or endswith");
    return starts ? text.starts_with(part) : text.ends_with(part);
  });
}

// ---- filters ----

Value filter_default(Runtime&, const Value& value, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default_value");
  const Value* falsy = arguments.find(1, "boolean");
  if (value.is(Kind::kUndefined) || (falsy != nullptr && Runtime::truthy(*falsy) && !Runtime::truthy(value))) {
    return fallback != nullptr ? *fallback : Value::of_text("");
  }
  return value;
}

Value filter_trim(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const std::string_view text = value.is(Kind::kString) ? value.text : runtime.make_text(runtime.to_text(value)).text;
  const Value* set = arguments.find(0, "chars");
  if (set == nullptr || set->is(Kind::kNone)) return Value::of_text(strip(text, nullptr, true, true));
  const std::string_view characters = text_argument(runtime, set, "the argument of trim");
  if (!runtime.charge(text.size() * (1 + characters.size() / 16))) return {};
  return Value::of_text(strip(text, &characters, true, true));
}

Value filter_upper(Runtime& runtime, const Value& value, const Arguments&) {
  return map_case(runtime, value, [](char c, bool) { return up(c); });
}
Value filter_lower(Runtime& runtime, const Value& value, const Arguments&) {
  return map_case(runtime, value, [](char c, bool) { return down(c); });
}
Value filter_title(Runtime& runtime, const Value& value, const Arguments&) {
  return map_case(runtime, value, [](char c, bool after_letter) { return after_letter ? down(c) : up(c); });
}
Value filter_capitalize(Runtime& runtime, const Value& value, const Arguments&) {
  Value lowered = filter_lower(runtime, value, {});
  std::string text(lowered.text);
  if (!text.empty()) text[0] = up(text[0]);
  return runtime.make_text(std::move(text));
}

Value filter_length(Runtime& runtime, const Value& value, const Arguments&) { return Value::of_int(runtime.length(value)); }

Value filter_join(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  const std::string between = separator == nullptr ? "" : runtime.to_text(*separator);
  std::string out;
  bool first = true;
  for (const Value& item : runtime.iterate(value)) {
    if (!first) out += between;
    first = false;
    const std::size_t before = out.size();
    runtime.append_text(
        out, attribute == nullptr ? item : runtime.attribute_path(item, text_argument(runtime, attribute, "attribute")));
    if (!runtime.charge(out.size() - before + between.size() + 1)) return {};
  }
  return runtime.make_text(std::move(out));
}

Value filter_replace(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const std::string_view text = value.is(Kind::kString) ? value.text : runtime.make_text(runtime.to_text(value)).text;
  const std::string_view from = text_argument(runtime, arguments.find(0, "old"), "the first argument of replace");
  const std::string_view to = text_argument(runtime, arguments.find(1, "new"), "the second argument of replace");
  if (runtime.failed()) return {};
  return replace(runtime, text, from, to, int_argument(runtime, arguments.find(2, "count"), -1, "the count of replace"));
}

Value filter_tojson(Runtime& runtime, const Value& value, const Arguments& arguments) {
  std::string out;
  runtime.append_json(out, value, arguments);
  return runtime.make_text(std::move(out));
}

Value filter_first(Runtime& runtime, const Value& value, const Arguments&) {
  const std::vector<Value> items = runtime.iterate(value);
  return items.empty() ? Value::undefined("first item of nothing") : items.front();
}
Value filter_last(Runtime& runtime, const Value& value, const Arguments&) {
  const std::vector<Value> items = runtime.iterate(value);
  return items.empty() ? Value::undefined("last item of nothing") : items.back();
}
Value filter_list(Runtime& runtime, const Value& value, const Arguments&) { return runtime.make_list(runtime.iterate(value)); }
Value filter_reverse(Runtime& runtime, const Value& value, const Arguments&) {
  std::vector<Value> items = runtime.iterate(value);
  std::reverse(items.begin(), items.end());
  if (!value.is(Kind::kString)) return runtime.make_list(std::move(items));
  std::string out;
  for (const Value& item : items) out += item.text;
  return runtime.make_text(std::move(out));
}

Value filter_items(Runtime& runtime, const Value& value, const Arguments&) {
  if (value.is(Kind::kDict)) return pairs_of(runtime, *value.dict);
  if (!value.is(Kind::kUndefined)) runtime.fail(fmt::format("items of {}; expected a mapping", Runtime::kind_name(value)));
  return runtime.make_list({});
}

Value filter_string(Runtime& runtime, const Value& value, const Arguments&) {
  return value.is(Kind::kString) ? value : runtime.make_text(runtime.to_text(value));
}
Value filter_safe(Runtime&, const Value& value, const Arguments&) { return value; }

// As Python's int(), of numbers and of decimal text; the default (0) where it is no number.
Value filter_int(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default");
  const Value otherwise = fallback == nullptr ? Value::of_int(0) : *fallback;
  if (arguments.find(1, "base") != nullptr) runtime.fail("int with a base");
  if (value.is_integral()) return Value::of_int(value.as_int());
  if (value.is(Kind::kFloat))
    return std::abs(value.real) < 0x1p63 ? Value::of_int(static_cast<std::int64_t>(value.real)) : otherwise;
  if (!value.is(Kind::kString)) return otherwise;
  std::string_view text = strip(value.text, nullptr, true, true);
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  std::int64_t integer = 0;
  if (const auto parsed = std::from_chars(text.data(), end, integer); parsed.ec == std::errc() && parsed.ptr == end)
    return Value::of_int(integer);
  double real = 0;
  const auto parsed = std::from_chars(text.data(), end, real);
  if (parsed.ec != std::errc() || parsed.ptr != end || !(std::abs(real) < 0x1p63)) return otherwise;
  return Value::of_int(static_cast<std::int64_t>(real));
}

Value filter_float(Runtime&, const Value& value, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default");
  if (value.is_number()) return Value::of_float(value.as_double());
  if (value.is(Kind::kString)) {
    const std::string_view text = strip(value.text, nullptr, true, true);
    double real = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), real);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return Value::of_float(real);
  }
  return fallback == nullptr ? Value::of_float(0) : *fallback;
}

Value filter_abs(Runtime& runtime, const Value& value, const Arguments&) {
  if (value.is(Kind::kFloat)) return Value::of_float(std::abs(value.real));
  if (value.is_integral() && value.as_int() != INT64_MIN) return Value::of_int(std::abs(value.as_int()));
  runtime.fail(fmt::format("abs of {}", Runtime::kind_name(value)));
  return {};
}

Value filter_round(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!value.is_number() || !arguments.positional.empty() || !arguments.keywords.empty()) {
    runtime.fail("round with arguments or of something that is no number");
    return {};
  }
  const double real = value.as_double(), below = std::floor(real), part = real - below;
  const bool upwards = part > 0.5 || (part == 0.5 && std::fmod(below, 2.0) != 0.0);  // Python rounds half to even
  return Value::of_float(upwards ? below + 1 : below);
}

Value filter_indent(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const std::string text = runtime.to_text(value);
  const Value* width = arguments.find(0, "width");
  const Value* first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  std::string margin;
  if (width != nullptr && width->is(Kind::kString)) {
    margin = std::string(width->text);
  } else {
    const std::int64_t spaces = int_argument(runtime, width, 4, "the width of indent");
    if (spaces < 0 || spaces > 256) {
      runtime.fail(fmt::format("indent by {}; expected 0 to 256", spaces));
      return {};
    }
    margin.assign(static_cast<std::size_t>(spaces), ' ');
  }
  std::string out;
  bool is_first = true;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    const bool indents =
        is_first ? first != nullptr && Runtime::truthy(*first) : !line.empty() || (blank != nullptr && Runtime::truthy(*blank));
    if (!is_first) out += '\n';
    if (indents) out += margin;
    out += line;
    is_first = false;
    at = end + 1;
    if (!runtime.charge(margin.size() + 1)) return {};
  }
  return runtime.make_text(std::move(out));
}

// Case-insensitive, as Jinja sorts unless told otherwise.
Value folded(Runtime& runtime, const Value& value, bool case_sensitive) {
  return value.is(Kind::kString) && !case_sensitive ? filter_lower(runtime, value, {}) : value;
}

Value sorted(Runtime& runtime, std::vector<Value> items, const Arguments& arguments, std::size_t first_argument,
             auto&& key_of) {
  const Value* case_sensitive = arguments.find(first_argument, "case_sensitive");
  const bool exact = case_sensitive != nullptr && Runtime::truthy(*case_sensitive);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items) keyed.emplace_back(folded(runtime, key_of(item), exact), item);
  // Only homogeneous keys have an order; checked before std::sort, which needs one.
  for (const auto& [key, item] : keyed) {
    const bool same = key.is_number() ? keyed[0].first.is_number() : key.kind == keyed[0].first.kind && key.is(Kind::kString);
    if (!same || (key.is(Kind::kFloat) && std::isnan(key.real))) {
      runtime.fail(fmt::format("sort of {} and {}", Runtime::kind_name(keyed[0].first), Runtime::kind_name(key)));
      return {};
    }
  }
  if (!runtime.charge(64 * items.size())) return {};
  const Value* reverse = arguments.find(first_argument == 0 ? 2 : 0, "reverse");
  if (reverse != nullptr && Runtime::truthy(*reverse)) {
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) { return runtime.less(b.first, a.first); });
  } else {
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) { return runtime.less(a.first, b.first); });
  }
  items.clear();
  for (const auto& [key, item] : keyed) items.push_back(item);
  return runtime.make_list(std::move(items));
}

Value filter_dictsort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!value.is(Kind::kDict)) {
    runtime.fail(fmt::format("dictsort of {}; expected a mapping", Runtime::kind_name(value)));
    return {};
  }
  const Value* by = arguments.find(1, "by");
  const std::size_t index = by != nullptr && by->is(Kind::kString) && by->text == "value" ? 1 : 0;
  const std::vector<Value> pairs = runtime.iterate(pairs_of(runtime, *value.dict));
  return sorted(runtime, pairs, arguments, 0, [&](const Value& pair) { return pair.list->items[index]; });
}

Value filter_sort(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* attribute = arguments.find(2, "attribute");
  return sorted(runtime, runtime.iterate(value), arguments, 1, [&](const Value& item) {
    return attribute == nullptr ? item : runtime.attribute_path(item, text_argument(runtime, attribute, "attribute"));
  });
}

Value filter_unique(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* case_sensitive = arguments.find(0, "case_sensitive");
  const bool exact = case_sensitive != nullptr && Runtime::truthy(*case_sensitive);
  std::vector<Value> seen, result;
  for (const Value& item : runtime.iterate(value)) {
    const Value key = folded(runtime, item, exact);
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return runtime.equal(key, other); })) continue;
    if (!runtime.charge(8 * seen.size() + 8)) return {};
    seen.push_back(key);
    result.push_back(item);
  }
  return runtime.make_list(std::move(result));
}

Value filter_sum(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* attribute = arguments.find(0, "attribute");
  std::int64_t total = 0;
  for (const Value& item : runtime.iterate(value)) {
    const Value number =
        attribute == nullptr ? item : runtime.attribute_path(item, text_argument(runtime, attribute, "attribute"));
    if (!number.is_integral() || __builtin_add_overflow(total, number.as_int(), &total)) {
      runtime.fail(fmt::format("sum with {}; expected integers", Runtime::kind_name(number)));
      return {};
    }
  }
  return Value::of_int(total);
}

Value extreme(Runtime& runtime, const Value& value, bool largest) {
  const std::vector<Value> items = runtime.iterate(value);
  if (items.empty()) return Value::undefined("largest or smallest of nothing");
  Value best = items[0];
  for (const Value& item : items) {
    if (largest ? runtime.less(best, item) : runtime.less(item, best)) best = item;
  }
  return best;
}
Value filter_max(Runtime& runtime, const Value& value, const Arguments&) { return extreme(runtime, value, true); }
Value filter_min(Runtime& runtime, const Value& value, const Arguments&) { return extreme(runtime, value, false); }

// map('filter', …) or map(attribute='name', default=…).
Value filter_map(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Value* attribute = arguments.find(SIZE_MAX, "attribute");
  const Value* fallback = arguments.find(SIZE_MAX, "default");
  Arguments rest;
  Filter filter = nullptr;
  if (attribute == nullptr) {
    const std::string_view name = text_argument(runtime, arguments.find(0, "filter"), "the argument of map");
    filter = find_filter(name);
    if (filter == nullptr) {
      runtime.fail(fmt::format("filter '{}' is not in the subset of Jinja that chat templates may use", name));
      return {};
    }
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    rest.keywords = arguments.keywords;
  }
  std::vector<Value> result;
  for (const Value& item : runtime.iterate(value)) {
    if (!runtime.charge(50)) return {};
    Value mapped = filter != nullptr ? filter(runtime, item, rest)
                                     : runtime.attribute_path(item, text_argument(runtime, attribute, "attribute"));
    if (mapped.is(Kind::kUndefined) && fallback != nullptr) mapped = *fallback;
    result.push_back(mapped);
  }
  return runtime.make_list(std::move(result));
}

// select, reject, selectattr, rejectattr: a test by name, or truth.
Value choose(Runtime& runtime, const Value& value, const Arguments& arguments, bool by_attribute, bool keeps) {
  const std::size_t first = by_attribute ? 1 : 0;
  const std::string_view attribute =
      by_attribute ? text_argument(runtime, arguments.find(0, "attribute"), "the attribute of selectattr or rejectattr") : "";
  Arguments rest;
  Test test = nullptr;
  if (arguments.positional.size() > first) {
    const std::string_view name = text_argument(runtime, &arguments.positional[first], "the name of a test");
    test = find_test(name);
    if (test == nullptr) {
      runtime.fail(fmt::format("test '{}' is not in the subset of Jinja that chat templates may use", name));
      return {};
    }
    rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(first) + 1, arguments.positional.end());
  }
  std::vector<Value> result;
  for (const Value& item : runtime.iterate(value)) {
    if (!runtime.charge(50)) return {};
    const Value tested = by_attribute ? runtime.attribute_path(item, attribute) : item;
    if ((test != nullptr ? test(runtime, tested, rest) : Runtime::truthy(tested)) == keeps) result.push_back(item);
  }
  return runtime.make_list(std::move(result));
}
Value filter_select(Runtime& r, const Value& v, const Arguments& a) { return choose(r, v, a, false, true); }
Value filter_reject(Runtime& r, const Value& v, const Arguments& a) { return choose(r, v, a, false, false); }
Value filter_selectattr(Runtime& r, const Value& v, const Arguments& a) { return choose(r, v, a, true, true); }
Value filter_rejectattr(Runtime& r, const Value& v, const Arguments& a) { return choose(r, v, a, true, false); }

constexpr std::pair<std::string_view, Filter> kFilters[] = {
    {"abs", filter_abs},
    {"capitalize", filter_capitalize},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"float", filter_float},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_lower},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_safe},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"sort", filter_sort},
    {"string", filter_string},
    {"sum", filter_sum},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"unique", filter_unique},
    {"upper", filter_upper},
};

// ---- tests ----

const Value& test_argument(Runtime& runtime, const Arguments& arguments) {
  static const Value kMissing;
  if (!arguments.positional.empty()) return arguments.positional[0];
  runtime.fail("a test lacks its argument");
  return kMissing;
}

bool is_iterable(const Value& value) {
  return value.is(Kind::kUndefined) || value.is(Kind::kString) || value.is(Kind::kList) || value.is(Kind::kDict);
}

std::int64_t remainder_by(Runtime& runtime, const Value& value, std::int64_t divisor) {
  if (value.is_integral() && divisor != 0) return divisor == -1 ? 0 : value.as_int() % divisor;
  runtime.fail(fmt::format("division of {} by {} in a test", Runtime::kind_name(value), divisor));
  return 1;
}

bool is_case(Runtime& runtime, const Value& value, Value (*map)(Runtime&, const Value&, const Arguments&)) {
  return value.is(Kind::kString) && std::any_of(value.text.begin(), value.text.end(), is_letter) &&
         map(runtime, value, {}).text == value.text;
}

constexpr std::pair<std::string_view, Test> kTests[] = {
    {"!=", [](Runtime& r, const Value& v, const Arguments& a) { return !r.equal(v, test_argument(r, a)); }},
    {"<", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(v, test_argument(r, a)); }},
    {"<=", [](Runtime& r, const Value& v, const Arguments& a) { return !r.less(test_argument(r, a), v); }},
    {"==", [](Runtime& r, const Value& v, const Arguments& a) { return r.equal(v, test_argument(r, a)); }},
    {">", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(test_argument(r, a), v); }},
    {">=", [](Runtime& r, const Value& v, const Arguments& a) { return !r.less(v, test_argument(r, a)); }},
    {"boolean", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kBool); }},
    {"callable", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kMacro) || v.is(Kind::kFunction) || v.is(Kind::kMethod); }},
    {"defined", [](Runtime&, const Value& v, const Arguments&) { return !v.is(Kind::kUndefined); }},
    {"divisibleby",
     [](Runtime& r, const Value& v, const Arguments& a) {
       const Value& by = test_argument(r, a);
       return remainder_by(r, v, by.is_integral() ? by.as_int() : 0) == 0;
     }},
    {"eq", [](Runtime& r, const Value& v, const Arguments& a) { return r.equal(v, test_argument(r, a)); }},
    {"equalto", [](Runtime& r, const Value& v, const Arguments& a) { return r.equal(v, test_argument(r, a)); }},
    {"even", [](Runtime& r, const Value& v, const Arguments&) { return remainder_by(r, v, 2) == 0; }},
    {"false", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kBool) && !v.boolean; }},
    {"float", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kFloat); }},
    {"ge", [](Runtime& r, const Value& v, const Arguments& a) { return !r.less(v, test_argument(r, a)); }},
    {"greaterthan", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(test_argument(r, a), v); }},
    {"gt", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(test_argument(r, a), v); }},
    {"in", [](Runtime& r, const Value& v, const Arguments& a) { return r.contains(test_argument(r, a), v); }},
    {"integer", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kInt); }},
    {"iterable", [](Runtime&, const Value& v, const Arguments&) { return is_iterable(v); }},
    {"le", [](Runtime& r, const Value& v, const Arguments& a) { return !r.less(test_argument(r, a), v); }},
    {"lessthan", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(v, test_argument(r, a)); }},
    {"lower", [](Runtime& r, const Value& v, const Arguments&) { return is_case(r, v, filter_lower); }},
    {"lt", [](Runtime& r, const Value& v, const Arguments& a) { return r.less(v, test_argument(r, a)); }},
    {"mapping", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kDict); }},
    {"ne", [](Runtime& r, const Value& v, const Arguments& a) { return !r.equal(v, test_argument(r, a)); }},
    {"none", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kNone); }},
    {"number", [](Runtime&, const Value& v, const Arguments&) { return v.is_number(); }},
    {"odd", [](Runtime& r, const Value& v, const Arguments&) { return remainder_by(r, v, 2) != 0; }},
    {"sameas",
     [](Runtime& r, const Value& v, const Arguments& a) {
       const Value& other = test_argument(r, a);
       return v.kind == other.kind && (v.is(Kind::kList) ? v.list == other.list : v.is(Kind::kDict) ? v.dict == other.dict : r.equal(v, other));
     }},
    // Whatever has a length and items, mappings and strings too.
    {"sequence", [](Runtime&, const Value& v, const Arguments&) { return is_iterable(v); }},
    {"string", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kString); }},
    {"true", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kBool) && v.boolean; }},
    {"undefined", [](Runtime&, const Value& v, const Arguments&) { return v.is(Kind::kUndefined); }},
    {"upper", [](Runtime& r, const Value& v, const Arguments&) { return is_case(r, v, filter_upper); }},
};

template <class Table>
auto find_in(const Table& table, std::string_view name) -> decltype(table[0].second) {
  for (const auto& [key, function] : table) {
    if (key == name) return function;
  }
  return nullptr;
}

// ---- methods ----

constexpr std::string_view kTextMethods[] = {
    "capitalize", "count", "endswith",   "find",       "isalnum",      "isalpha",      "isdigit", "islower", "isspace",
    "isupper",    "join",  "lower",      "lstrip",     "removeprefix", "removesuffix", "replace", "rfind",   "rsplit",
    "rstrip",     "split", "splitlines", "startswith", "strip",        "title",        "upper"};
constexpr std::string_view kDictMethods[] = {"copy", "get", "items", "keys", "values"};
constexpr std::string_view kListMethods[] = {"append", "copy", "count", "index"};
constexpr std::string_view kLoopMethods[] = {"changed", "cycle"};

std::span<const std::string_view> methods_of(const Value& receiver) {
  switch (receiver.kind) {
    case Kind::kString:
      return kTextMethods;
    case Kind::kDict:
      return kDictMethods;
    case Kind::kList:
      return kListMethods;
    case Kind::kLoop:
      return kLoopMethods;
    default:
      return {};
  }
}

bool all_characters(std::string_view text, bool (*holds)(char)) {
  return !text.empty() && std::all_of(text.begin(), text.end(), holds);
}

Value find_text(Runtime& runtime, std::string_view text, const Arguments& arguments, bool from_right) {
  const std::string_view part = text_argument(runtime, arguments.find(0, "sub"), "the argument of find");
  if (arguments.positional.size() > 1) runtime.fail("find with a start");
  if (runtime.failed() || !runtime.charge(text.size() * (1 + std::min<std::size_t>(part.size(), 1 << 20) / 16))) return {};
  const std::size_t at = from_right ? text.rfind(part) : text.find(part);
  return Value::of_int(at == std::string_view::npos ? -1 : static_cast<std::int64_t>(character_count(text.substr(0, at))));
}

Value text_method(Runtime& runtime, const Value& receiver, std::string_view name, const Arguments& arguments) {
  const std::string_view text = receiver.text;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value* set = arguments.find(0, "chars");
    const bool left = name != "rstrip", right = name != "lstrip";
    if (set == nullptr || set->is(Kind::kNone)) return Value::of_text(strip(text, nullptr, left, right));
    const std::string_view characters = text_argument(runtime, set, "the argument of strip");
    if (!runtime.charge(text.size() * (1 + characters.size() / 16))) return {};
    return Value::of_text(strip(text, &characters, left, right));
  }
  if (name == "split" || name == "rsplit") {
    return split(runtime, text, arguments.find(0, "sep"), int_argument(runtime, arguments.find(1, "maxsplit"), -1, "maxsplit"),
                 name == "rsplit");
  }
  if (name == "splitlines") {
    std::vector<Value> lines;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      lines.push_back(Value::of_text(text.substr(at, end - at)));
      at = end + 1;
    }
    return runtime.make_list(std::move(lines));
  }
  if (name == "startswith" || name == "endswith")
    return Value::of_bool(starts_or_ends(runtime, text, arguments, name == "startswith"));
  if (name == "replace") return filter_replace(runtime, receiver, arguments);
  if (name == "upper") return filter_upper(runtime, receiver, {});
  if (name == "lower") return filter_lower(runtime, receiver, {});
  if (name == "title") return filter_title(runtime, receiver, {});
  if (name == "capitalize") return filter_capitalize(runtime, receiver, {});
  if (name == "find" || name == "rfind") return find_text(runtime, text, arguments, name == "rfind");
  if (name == "join") {
    Arguments joined;
    joined.positional = {receiver};
    const Value* items = arguments.find(0, "iterable");
    return items == nullptr ? Value::of_text("") : filter_join(runtime, *items, joined);
  }
  if (name == "count") {
    const std::string_view part = text_argument(runtime, arguments.find(0, "sub"), "the argument of count");
    if (part.empty() || !runtime.charge(text.size() * (1 + std::min<std::size_t>(part.size(), 1 << 20) / 16)))
      return Value::of_int(0);
    std::int64_t count = 0;
    for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
    return Value::of_int(count);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string_view part = text_argument(runtime, arguments.find(0, "prefix"), "the argument of removeprefix");
    if (name == "removeprefix" && text.starts_with(part)) return Value::of_text(text.substr(part.size()));
    if (name == "removesuffix" && text.ends_with(part)) return Value::of_text(text.substr(0, text.size() - part.size()));
    return receiver;
  }
  if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    runtime.fail(fmt::format("{} of text beyond ASCII", name));
    return {};
  }
  if (name == "isdigit") return Value::of_bool(all_characters(text, digit));
  if (name == "isalpha") return Value::of_bool(all_characters(text, is_letter));
  if (name == "isalnum")
    return Value::of_bool(all_characters(text, [](char c) { return is_letter(c) || (c >= '0' && c <= '9'); }));
  if (name == "isspace")
    return Value::of_bool(all_characters(text, [](char c) { return is_space(static_cast<unsigned char>(c)); }));
  return Value::of_bool(is_case(runtime, receiver, name == "isupper" ? filter_upper : filter_lower));
}

}  // namespace

std::size_t character_size(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t size = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  for (std::size_t i = 1; i < size; ++i) {
    if (at + i >= text.size() || (static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
  }
  return size;
}

std::size_t character_count(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += character_size(text, at)) ++count;
  return count;
}

const Value* Arguments::find(std::size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : keywords) {
    if (key == name) return &value;
  }
  return nullptr;
}

Filter find_filter(std::string_view name) { return find_in(kFilters, name); }
Test find_test(std::string_view name) { return find_in(kTests, name); }

bool has_method(const Value& receiver, std::string_view name) {
  const auto methods = methods_of(receiver);
  return std::find(methods.begin(), methods.end(), name) != methods.end();
}

Value call_method(Runtime& runtime, const Value& receiver, std::string_view name, const Arguments& arguments) {
  if (receiver.is(Kind::kString)) return text_method(runtime, receiver, name, arguments);
  if (receiver.is(Kind::kDict)) {
    if (name == "items") return pairs_of(runtime, *receiver.dict);
    if (name == "get") {
      const Value* key = arguments.find(0, "key");
      const Value* found = key != nullptr ? runtime.find_item(*receiver.dict, *key) : nullptr;
      const Value* fallback = arguments.find(1, "default");
      return found != nullptr ? *found : fallback != nullptr ? *fallback : Value::none();
    }
    if (name == "copy") {
      Value copy = runtime.make_dict();
      if (runtime.charge(16 * receiver.dict->items.size())) copy.dict->items = receiver.dict->items;
      return copy;
    }
    std::vector<Value> result;
    for (const auto& [key, value] : receiver.dict->items) result.push_back(name == "keys" ? key : value);
    return runtime.make_list(std::move(result));
  }
  // Lists.
  const Value* item = arguments.find(0, "value");
  if (name == "copy") return runtime.make_list(receiver.list->items);
  if (item == nullptr) {
    runtime.fail(fmt::format("{} of a list lacks its argument", name));
    return {};
  }
  if (name == "append") {
    if (runtime.charge(32)) receiver.list->items.push_back(*item);
    return Value::none();
  }
  std::int64_t count = 0;
  for (std::size_t i = 0; i < receiver.list->items.size(); ++i) {
    if (!runtime.charge(8) || !runtime.equal(receiver.list->items[i], *item)) continue;
    if (name == "index") return Value::of_int(static_cast<std::int64_t>(i));
    ++count;
  }
  if (name == "index") runtime.fail("index of a list: the item is not in it");
  return Value::of_int(count);
}

}  // namespace rooftree::text::jinja

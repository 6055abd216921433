#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "text/jinja.h"

namespace rooftree::text::jinja {
namespace {

constexpr int kMaxDepth = 600;      // of nested evaluation: 37 levels of a macro that calls itself through if, for and print
constexpr int kMaxValueDepth = 64;  // of nested values that are printed or compared
constexpr std::size_t kStep = 30;   // units of the budget for one node

void append_float(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "nan";
  } else if (std::isinf(value)) {
    out += value < 0 ? "-inf" : "inf";
  } else {
    const std::string text = fmt::format("{}", value);
    out += text;
    if (text.find_first_of(".e") == std::string::npos) out += ".0";
  }
}

bool same_key(const Value& a, const Value& b) {
  if (a.is(Kind::kString) && b.is(Kind::kString)) return a.text == b.text;
  return a.is_integral() && b.is_integral() && a.as_int() == b.as_int();
}

struct SliceBounds {
  std::int64_t start = 0, count = 0, step = 1;
};

// Python's rules for a slice of `length` items; step is not 0.
SliceBounds slice_bounds(std::int64_t length, const Value& start, const Value& stop, std::int64_t step) {
  const auto clamp = [&](const Value& bound, std::int64_t fallback) {
    if (!bound.is_integral()) return fallback;
    std::int64_t at = bound.as_int();
    if (at < 0) at = at < -length ? -1 : at + length;
    if (step > 0) return std::clamp<std::int64_t>(at, 0, length);
    return std::clamp<std::int64_t>(at, -1, length - 1);
  };
  const std::int64_t first = clamp(start, step > 0 ? 0 : length - 1);
  const std::int64_t end = clamp(stop, step > 0 ? length : -1);
  const std::int64_t distance = step > 0 ? end - first : first - end;
  if (distance <= 0) return {first, 0, step};
  // The magnitude is taken unsigned: the most negative step has no positive twin.
  const std::uint64_t stride = step > 0 ? static_cast<std::uint64_t>(step) : 0 - static_cast<std::uint64_t>(step);
  return {first, static_cast<std::int64_t>((static_cast<std::uint64_t>(distance) - 1) / stride) + 1, step};
}

constexpr std::array<std::string_view, 12> kMonths = {"January", "February", "March",     "April",   "May",      "June",
                                                      "July",    "August",   "September", "October", "November", "December"};
constexpr std::array<std::string_view, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                   "Thursday", "Friday", "Saturday"};

// Day of the week, 0 = Sunday (Sakamoto's method).
int weekday(const Date& date) {
  constexpr int kOffsets[] = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
  const int year = date.year - (date.month < 3 ? 1 : 0);
  return (year + year / 4 - year / 100 + year / 400 + kOffsets[date.month - 1] + date.day) % 7;
}

}  // namespace

class Runtime::Nested {
 public:
  explicit Nested(Runtime& runtime) : runtime_(runtime) {
    if (++runtime_.depth_ > kMaxDepth) runtime_.fail(fmt::format("nested deeper than {} steps", kMaxDepth));
  }
  ~Nested() { --runtime_.depth_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Runtime& runtime_;
};

struct Runtime::JsonStyle {
  std::string item = ", ", key = ": ", indent;
  bool multiline = false, sort_keys = false, ascii = false;
};

// ---- values ----

bool Runtime::charge(std::size_t units) {
  if (failed_) return false;
  budget_ -= static_cast<std::int64_t>(std::min<std::size_t>(units, std::size_t{1} << 62));
  if (budget_ < 0) fail("the template does more work than the limit for messages of this size");
  return !failed_;
}

void Runtime::fail(std::string message) {
  if (failed_) return;
  failed_ = true;
  error_ = fmt::format("{}:{}: {}", program_.where, line_, message);
}

Value Runtime::make_text(std::string text) {
  if (!charge(text.size() + 16)) return {};
  return Value::of_text(texts_.emplace_back(std::move(text)));
}

Value Runtime::make_list(std::vector<Value> items, bool tuple) {
  if (!charge(16 * items.size() + 16)) return Value::undefined("nothing after an error");
  lists_.push_back(List{std::move(items), tuple});
  Value value;
  value.kind = Kind::kList;
  value.list = &lists_.back();
  return value;
}

Value Runtime::make_dict() {
  (void)charge(16);
  dicts_.emplace_back();
  Value value;
  value.kind = Kind::kDict;
  value.dict = &dicts_.back();
  return value;
}

void Runtime::set_item(Dict& dict, const Value& key, const Value& value) {
  if (!charge(dict.items.size() + 8)) return;
  for (auto& [name, old] : dict.items) {
    if (same_key(name, key)) {
      old = value;
      return;
    }
  }
  dict.items.emplace_back(key, value);
}

const Value* Runtime::find_item(const Dict& dict, const Value& key) {
  (void)charge(dict.items.size());
  for (const auto& [name, value] : dict.items) {
    if (same_key(name, key)) return &value;
  }
  return nullptr;
}

std::string_view Runtime::kind_name(const Value& value) {
  constexpr std::string_view kNames[] = {"undefined",  "none",     "a boolean", "an integer",  "a float",
                                         "a string",   "a list",   "a mapping", "a namespace", "a macro",
                                         "a function", "a method", "a loop"};
  return kNames[static_cast<std::size_t>(value.kind)];
}

void Runtime::append_text(std::string& out, const Value& value) {
  if (value.is(Kind::kString)) {
    if (charge(value.text.size())) out += value.text;
  } else if (!value.is(Kind::kUndefined)) {
    append_repr(out, value, 0);
  }
}

std::string Runtime::to_text(const Value& value) {
  std::string out;
  append_text(out, value);
  return out;
}

void Runtime::append_repr(std::string& out, const Value& value, int depth) {
  if (depth > kMaxValueDepth) return fail(fmt::format("a value nested deeper than {} is printed", kMaxValueDepth));
  if (!charge(8)) return;
  switch (value.kind) {
    case Kind::kUndefined:
      out += "Undefined";
      return;
    case Kind::kNone:
      out += "None";
      return;
    case Kind::kBool:
      out += value.boolean ? "True" : "False";
      return;
    case Kind::kInt:
      out += fmt::format("{}", value.integer);
      return;
    case Kind::kFloat:
      return append_float(out, value.real);
    case Kind::kString: {
      if (!charge(2 * value.text.size())) return;
      const char quote =
          value.text.find('\'') != std::string_view::npos && value.text.find('"') == std::string_view::npos ? '"' : '\'';
      out += quote;
      for (const char c : value.text) {
        if (c == quote || c == '\\') {
          out += '\\';
          out += c;
        } else if (c == '\n') {
          out += "\\n";
        } else if (c == '\r') {
          out += "\\r";
        } else if (c == '\t') {
          out += "\\t";
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
      }
      out += quote;
      return;
    }
    case Kind::kList: {
      out += value.list->tuple ? '(' : '[';
      for (std::size_t i = 0; i < value.list->items.size() && !failed_; ++i) {
        if (i > 0) out += ", ";
        append_repr(out, value.list->items[i], depth + 1);
      }
      if (value.list->tuple && value.list->items.size() == 1) out += ',';
      out += value.list->tuple ? ')' : ']';
      return;
    }
    case Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.dict->items) {
        if (failed_) return;
        if (!first) out += ", ";
        first = false;
        append_repr(out, key, depth + 1);
        out += ": ";
        append_repr(out, item, depth + 1);
      }
      out += '}';
      return;
    }
    default:
      return fail(fmt::format("{} is printed", kind_name(value)));
  }
}

namespace {

void append_json_text(std::string& out, std::string_view text, bool ascii) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const std::size_t size = character_size(text, at);
    constexpr std::string_view kSpecial = "\"\\\n\r\t\b\f", kNames = "\"\\nrtbf";
    if (const std::size_t special = kSpecial.find(c); special != std::string_view::npos) {
      out += '\\';
      out += kNames[special];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else if (ascii && size > 1) {
      std::uint32_t code = static_cast<unsigned char>(c) & (0xFFU >> (size + 1));
      for (std::size_t i = 1; i < size; ++i) code = (code << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3FU);
      if (code < 0x10000) {
        out += fmt::format("\\u{:04x}", code);
      } else {
        out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
      }
    } else {
      out += text.substr(at, size);
    }
    at += size;
  }
  out += '"';
}

}  // namespace

// transformers: json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False), nothing escaped for HTML.
void Runtime::append_json(std::string& out, const Value& value, const Arguments& options) {
  JsonStyle style;
  if (const Value* indent = options.find(1, "indent"); indent != nullptr && !indent->is(Kind::kNone)) {
    if (indent->is(Kind::kString) && indent->text.size() <= 64) {
      style.indent = std::string(indent->text);
    } else if (indent->is_integral() && indent->as_int() <= 64) {
      style.indent.assign(static_cast<std::size_t>(std::max<std::int64_t>(0, indent->as_int())), ' ');
    } else {
      return fail("the indent of tojson; expected at most 64 characters");
    }
    style.multiline = true;
    style.item = ",";
  }
  if (const Value* separators = options.find(2, "separators"); separators != nullptr && !separators->is(Kind::kNone)) {
    if (!separators->is(Kind::kList) || separators->list->items.size() != 2)
      return fail("the separators of tojson; expected two strings");
    style.item = to_text(separators->list->items[0]);
    style.key = to_text(separators->list->items[1]);
  }
  if (const Value* sort = options.find(3, "sort_keys")) style.sort_keys = truthy(*sort);
  if (const Value* ascii = options.find(0, "ensure_ascii")) style.ascii = truthy(*ascii);
  append_json(out, value, style, 0);
}

void Runtime::append_json(std::string& out, const Value& value, const JsonStyle& style, int depth) {
  if (depth > kMaxValueDepth) return fail(fmt::format("a value nested deeper than {} as JSON", kMaxValueDepth));
  if (!charge(8 + (value.is(Kind::kString) ? 6 * value.text.size() : 0))) return;
  const auto line = [&](int levels) {
    if (!style.multiline) return;
    out += '\n';
    for (int i = 0; i < levels && charge(style.indent.size() + 1); ++i) out += style.indent;
  };
  switch (value.kind) {
    case Kind::kNone:
      out += "null";
      return;
    case Kind::kBool:
      out += value.boolean ? "true" : "false";
      return;
    case Kind::kInt:
      out += fmt::format("{}", value.integer);
      return;
    case Kind::kFloat:
      if (std::isfinite(value.real)) return append_float(out, value.real);
      out += std::isnan(value.real) ? "NaN" : value.real < 0 ? "-Infinity" : "Infinity";
      return;
    case Kind::kString:
      return append_json_text(out, value.text, style.ascii);
    case Kind::kList: {
      const std::vector<Value>& items = value.list->items;
      out += '[';
      for (std::size_t i = 0; i < items.size() && !failed_; ++i) {
        if (i > 0 && charge(style.item.size())) out += style.item;
        line(depth + 1);
        append_json(out, items[i], style, depth + 1);
      }
      if (!items.empty()) line(depth);
      out += ']';
      return;
    }
    case Kind::kDict: {
      std::vector<std::pair<Value, Value>> items = value.dict->items;
      if (!charge(16 * items.size())) return;
      if (style.sort_keys) {
        if (std::any_of(items.begin(), items.end(), [&](const auto& item) { return item.first.kind != items[0].first.kind; })) {
          return fail("sort_keys of strings and integers");
        }
        std::sort(items.begin(), items.end(), [this](const auto& a, const auto& b) { return less(a.first, b.first); });
      }
      out += '{';
      for (std::size_t i = 0; i < items.size() && !failed_; ++i) {
        if (i > 0 && charge(style.item.size())) out += style.item;
        line(depth + 1);
        if (charge(6 * items[i].first.text.size() + style.key.size()))
          append_json_text(out, to_text(items[i].first), style.ascii);
        out += style.key;
        append_json(out, items[i].second, style, depth + 1);
      }
      if (!items.empty()) line(depth);
      out += '}';
      return;
    }
    default:
      return fail(
          fmt::format("tojson of {}{}", kind_name(value), value.is(Kind::kUndefined) ? fmt::format(" '{}'", value.text) : ""));
  }
}

bool Runtime::truthy(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean;
    case Kind::kInt:
      return value.integer != 0;
    case Kind::kFloat:
      return value.real != 0;
    case Kind::kString:
      return !value.text.empty();
    case Kind::kList:
      return !value.list->items.empty();
    case Kind::kDict:
      return !value.dict->items.empty();
    default:
      return true;
  }
}

bool Runtime::equal(const Value& a, const Value& b) { return equal(a, b, 0); }

bool Runtime::equal(const Value& a, const Value& b, int depth) {
  if (depth > kMaxValueDepth) {
    fail(fmt::format("values nested deeper than {} are compared", kMaxValueDepth));
    return false;
  }
  if (!charge(4)) return false;
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
    return a.as_double() == b.as_double();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kString:
      return charge(std::min(a.text.size(), b.text.size()) / 8) && a.text == b.text;
    case Kind::kList:
      if (a.list->tuple != b.list->tuple || a.list->items.size() != b.list->items.size()) return false;
      for (std::size_t i = 0; i < a.list->items.size(); ++i) {
        if (!equal(a.list->items[i], b.list->items[i], depth + 1)) return false;
      }
      return true;
    case Kind::kDict:
      if (a.dict->items.size() != b.dict->items.size()) return false;
      for (const auto& [key, value] : a.dict->items) {
        const Value* other = find_item(*b.dict, key);
        if (other == nullptr || !equal(value, *other, depth + 1)) return false;
      }
      return true;
    case Kind::kNamespace:
      return a.dict == b.dict;
    case Kind::kMacro:
      return a.macro == b.macro;
    case Kind::kFunction:
    case Kind::kMethod:
      return a.text == b.text;
    case Kind::kLoop:
      return a.loop == b.loop;
    default:
      return true;  // none and undefined
  }
}

bool Runtime::less(const Value& a, const Value& b) {
  if (!charge(4)) return false;
  if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int();
  if (a.is_number() && b.is_number()) return a.as_double() < b.as_double();
  if (a.is(Kind::kString) && b.is(Kind::kString)) return charge(std::min(a.text.size(), b.text.size()) / 8) && a.text < b.text;
  fail(fmt::format("order of {} and {}", kind_name(a), kind_name(b)));
  return false;
}

bool Runtime::contains(const Value& container, const Value& item) {
  switch (container.kind) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is(Kind::kString)) {
        fail(fmt::format("{} in a string; expected a string", kind_name(item)));
        return false;
      }
      if (!charge(container.text.size() * (1 + std::min<std::size_t>(item.text.size(), std::size_t{1} << 20) / 16)))
        return false;
      return container.text.find(item.text) != std::string_view::npos;
    case Kind::kList:
      return std::any_of(container.list->items.begin(), container.list->items.end(),
                         [&](const Value& other) { return equal(item, other); });
    case Kind::kDict:
      return find_item(*container.dict, item) != nullptr;
    default:
      fail(fmt::format("'in' {}; expected a string, list or mapping", kind_name(container)));
      return false;
  }
}

std::int64_t Runtime::length(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return charge(value.text.size()) ? static_cast<std::int64_t>(character_count(value.text)) : 0;
    case Kind::kList:
      return static_cast<std::int64_t>(value.list->items.size());
    case Kind::kDict:
      return static_cast<std::int64_t>(value.dict->items.size());
    default:
      fail(fmt::format("length of {}", kind_name(value)));
      return 0;
  }
}

std::vector<Value> Runtime::iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind) {
    case Kind::kUndefined:
      break;
    case Kind::kString:
      if (!charge(16 * value.text.size())) break;
      for (std::size_t at = 0; at < value.text.size();) {
        const std::size_t size = character_size(value.text, at);
        items.push_back(Value::of_text(value.text.substr(at, size)));
        at += size;
      }
      break;
    case Kind::kList:
      if (charge(16 * value.list->items.size())) items = value.list->items;
      break;
    case Kind::kDict:
      if (!charge(16 * value.dict->items.size())) break;
      for (const auto& [key, item] : value.dict->items) items.push_back(key);
      break;
    default:
      fail(fmt::format("{} is not iterable", kind_name(value)));
  }
  return items;
}

Value Runtime::attribute(const Value& object, std::string_view name) {
  if (object.is(Kind::kUndefined)) {
    fail(fmt::format("'{}' is undefined; '{}' of it was asked for", object.text, name));
    return {};
  }
  if (object.is(Kind::kLoop) && !has_method(object, name)) return loop_attribute(*object.loop, name);
  if (has_method(object, name)) return Value::method(name);
  if (object.is(Kind::kDict) || object.is(Kind::kNamespace)) {
    if (const Value* found = find_item(*object.dict, name)) return *found;
  }
  return Value::undefined(name);
}

Value Runtime::attribute_path(const Value& object, std::string_view path) {
  Value value = object;
  while (!failed_) {
    const std::size_t dot = path.find('.');
    value = subscript(value, Value::of_text(path.substr(0, dot)));
    if (dot == std::string_view::npos) break;
    path = path.substr(dot + 1);
  }
  return value;
}

Value Runtime::subscript(const Value& object, const Value& key) {
  if (key.is(Kind::kString)) {
    if (object.is(Kind::kDict)) {
      if (const Value* found = find_item(*object.dict, key.text)) return *found;
    }
    return attribute(object, key.text);
  }
  if (object.is(Kind::kUndefined)) {
    fail(fmt::format("'{}' is undefined; an item of it was asked for", object.text));
    return {};
  }
  if (object.is(Kind::kDict)) {
    if (const Value* found = find_item(*object.dict, key)) return *found;
  }
  if (key.is_integral() && object.is(Kind::kList)) {
    const std::int64_t size = length(object), at = key.as_int() < 0 ? key.as_int() + size : key.as_int();
    if (at >= 0 && at < size) return object.list->items[static_cast<std::size_t>(at)];
    return Value::undefined("item beyond the end of a list");
  }
  if (key.is_integral() && object.is(Kind::kString)) {
    const std::int64_t size = length(object), at = key.as_int() < 0 ? key.as_int() + size : key.as_int();
    if (at < 0 || at >= size) return Value::undefined("character beyond the end of a string");
    std::size_t byte = 0;
    for (std::int64_t i = 0; i < at; ++i) byte += character_size(object.text, byte);
    return Value::of_text(object.text.substr(byte, character_size(object.text, byte)));
  }
  return Value::undefined("item that is not there");
}

// ---- expressions ----

Value Runtime::lookup(std::string_view name) {
  for (std::size_t i = scopes_.size(); i-- > frame_begin_;) {
    if (const Value* found = find_item(*scopes_[i], name)) return *found;
  }
  if (const Value* found = find_item(*scopes_[0], name)) return *found;
  return Value::undefined(name);
}

Value Runtime::evaluate(const Expression* expression) {
  if (expression == nullptr) return {};
  const Nested nested(*this);
  if (!charge(kStep)) return {};
  const Expression& e = *expression;
  line_ = e.line;
  switch (e.kind) {
    case ExpressionKind::kLiteral:
      return e.value;
    case ExpressionKind::kName:
      return lookup(e.text);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple:
    case ExpressionKind::kDict:
      return evaluate_container(e);
    case ExpressionKind::kNot:
      return Value::of_bool(!truthy(evaluate(e.operands[0])));
    case ExpressionKind::kNegate:
    case ExpressionKind::kPositive:
    case ExpressionKind::kArithmetic:
      return evaluate_arithmetic(e);
    case ExpressionKind::kConcatenate: {
      std::string out;
      for (const Expression* part : e.operands) append_text(out, evaluate(part));
      return make_text(std::move(out));
    }
    case ExpressionKind::kCompare:
      return evaluate_compare(e);
    case ExpressionKind::kAnd: {
      const Value left = evaluate(e.operands[0]);
      return truthy(left) ? evaluate(e.operands[1]) : left;
    }
    case ExpressionKind::kOr: {
      const Value left = evaluate(e.operands[0]);
      return truthy(left) ? left : evaluate(e.operands[1]);
    }
    case ExpressionKind::kConditional:
      if (truthy(evaluate(e.operands[1]))) return evaluate(e.operands[0]);
      return e.operands[2] != nullptr ? evaluate(e.operands[2]) : Value::undefined("the missing else of a condition");
    case ExpressionKind::kFilter: {
      const Value value = e.operands[0] == nullptr ? block_value_ : evaluate(e.operands[0]);
      const Arguments arguments = evaluate_arguments(e, 1);
      if (failed_) return {};
      line_ = e.line;
      return e.filter(*this, value, arguments);
    }
    case ExpressionKind::kTest: {
      const Value value = evaluate(e.operands[0]);
      const Arguments arguments = evaluate_arguments(e, 1);
      if (failed_) return {};
      line_ = e.line;
      return Value::of_bool(e.test(*this, value, arguments));
    }
    case ExpressionKind::kAttribute:
      return attribute(evaluate(e.operands[0]), e.text);
    case ExpressionKind::kSubscript: {
      const Value object = evaluate(e.operands[0]);
      return subscript(object, evaluate(e.operands[1]));
    }
    case ExpressionKind::kSlice:
      return evaluate_slice(e);
    case ExpressionKind::kCall:
      return evaluate_call(e);
  }
  return {};
}

Value Runtime::evaluate_container(const Expression& e) {
  if (e.kind != ExpressionKind::kDict) {
    std::vector<Value> items;
    for (const Expression* item : e.operands) items.push_back(evaluate(item));
    return make_list(std::move(items), e.kind == ExpressionKind::kTuple);
  }
  Value result = make_dict();
  for (std::size_t i = 0; i + 1 < e.operands.size() && !failed_; i += 2) {
    const Value key = evaluate(e.operands[i]);
    if (!key.is(Kind::kString) && !key.is(Kind::kInt)) {
      fail(fmt::format("{} as key of a mapping; expected a string or an integer", kind_name(key)));
      break;
    }
    set_item(*result.dict, key, evaluate(e.operands[i + 1]));
  }
  return result;
}

Value Runtime::evaluate_compare(const Expression& e) {
  Value left = evaluate(e.operands[0]);
  for (std::size_t i = 0; i < e.names.size(); ++i) {
    const Value right = evaluate(e.operands[i + 1]);
    if (failed_) return {};
    const std::string& op = e.names[i];
    line_ = e.line;
    bool holds = false;
    if (op == "==") {
      holds = equal(left, right);
    } else if (op == "!=") {
      holds = !equal(left, right);
    } else if (op == "<") {
      holds = less(left, right);
    } else if (op == ">") {
      holds = less(right, left);
    } else if (op == "<=") {
      holds = less(left, right) || (!failed_ && equal(left, right));
    } else if (op == ">=") {
      holds = less(right, left) || (!failed_ && equal(left, right));
    } else {
      holds = contains(right, left) == (op == "in");
    }
    if (!holds) return Value::of_bool(false);
    left = right;
  }
  return Value::of_bool(true);
}

Value Runtime::evaluate_arithmetic(const Expression& e) {
  const Value a = evaluate(e.operands[0]);
  const bool unary = e.operands.size() == 1;
  const Value b = unary ? Value::of_int(0) : evaluate(e.operands[1]);
  if (failed_) return {};
  line_ = e.line;
  for (const Value* operand : {&a, &b}) {
    if (operand->is(Kind::kUndefined)) {
      fail(fmt::format("'{}' is undefined; it is an operand of '{}'", operand->text, unary ? "-" : e.text));
      return {};
    }
  }
  const auto mismatch = [&] {
    fail(fmt::format("'{}' of {} and {}", e.text, kind_name(a), kind_name(b)));
    return Value();
  };
  std::int64_t result = 0;
  if (unary) {
    if (!a.is_number()) {
      fail(fmt::format("sign of {}", kind_name(a)));
      return {};
    }
    if (e.kind == ExpressionKind::kPositive) return a.is(Kind::kBool) ? Value::of_int(a.as_int()) : a;
    if (a.is(Kind::kFloat)) return Value::of_float(-a.real);
    if (__builtin_sub_overflow(std::int64_t{0}, a.as_int(), &result)) fail("an integer overflows");
    return Value::of_int(result);
  }
  const char op = e.text == "//" ? 'f' : e.text == "**" ? 'p' : e.text[0];
  if (op == '%' && a.is(Kind::kString)) return format_percent(a.text, b);
  if (op == '+' && a.is(Kind::kString) && b.is(Kind::kString)) {
    if (!charge(a.text.size() + b.text.size())) return {};
    std::string out(a.text);
    out += b.text;
    return make_text(std::move(out));
  }
  if (op == '+' && a.is(Kind::kList) && b.is(Kind::kList) && a.list->tuple == b.list->tuple) {
    std::vector<Value> items = iterate(a);
    const std::vector<Value> more = iterate(b);
    items.insert(items.end(), more.begin(), more.end());
    return make_list(std::move(items), a.list->tuple);
  }
  if (op == '*' && (a.is(Kind::kString) || a.is(Kind::kList)) && b.is_integral()) {
    const auto times = static_cast<std::size_t>(std::clamp<std::int64_t>(b.as_int(), 0, std::int64_t{1} << 30));
    if (!charge(times * ((a.is(Kind::kString) ? a.text.size() : 16 * a.list->items.size()) + 1))) return {};
    std::string text;
    std::vector<Value> items;
    for (std::size_t i = 0; i < times; ++i) {
      if (a.is(Kind::kString)) {
        text += a.text;
      } else {
        items.insert(items.end(), a.list->items.begin(), a.list->items.end());
      }
    }
    return a.is(Kind::kString) ? make_text(std::move(text)) : make_list(std::move(items), a.list->tuple);
  }
  if (!a.is_number() || !b.is_number()) return mismatch();
  if (a.is_integral() && b.is_integral() && op != '/') {
    const std::int64_t x = a.as_int(), y = b.as_int();
    bool overflow = false;
    switch (op) {
      case '+':
        overflow = __builtin_add_overflow(x, y, &result);
        break;
      case '-':
        overflow = __builtin_sub_overflow(x, y, &result);
        break;
      case '*':
        overflow = __builtin_mul_overflow(x, y, &result);
        break;
      case 'p':
        if (y < 0) return mismatch();
        result = 1;
        // |x| >= 2 overflows after 63 rounds; 0, 1 and -1 depend on the parity of y alone.
        for (std::int64_t i = 0; i < (y > 64 ? 64 + (y & 1) : y) && !overflow; ++i)
          overflow = __builtin_mul_overflow(result, x, &result);
        break;
      default:  // // and %, rounding down
        if (y == 0) {
          fail("division by zero");
          return {};
        }
        if (y == -1) {
          overflow = op == 'f' && x == INT64_MIN;
          result = op == 'f' && !overflow ? -x : 0;
          break;
        }
        result = op == 'f' ? x / y : x % y;
        if (x % y != 0 && (x < 0) != (y < 0)) result += op == 'f' ? -1 : y;
    }
    if (overflow) fail("an integer overflows");
    return Value::of_int(result);
  }
  const double x = a.as_double(), y = b.as_double();
  switch (op) {
    case '+':
      return Value::of_float(x + y);
    case '-':
      return Value::of_float(x - y);
    case '*':
      return Value::of_float(x * y);
    case 'p':
      return mismatch();
    default:
      break;
  }
  if (y == 0) {
    fail("division by zero");
    return {};
  }
  if (op == '/') return Value::of_float(x / y);
  if (op == 'f') return Value::of_float(std::floor(x / y));
  const double rest = std::fmod(x, y);
  return Value::of_float(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
}

// '%s', '%d' and '%%'.
Value Runtime::format_percent(std::string_view format, const Value& value) {
  const std::vector<Value> values = value.is(Kind::kList) && value.list->tuple ? iterate(value) : std::vector<Value>{value};
  std::string out;
  std::size_t used = 0;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char kind = ++i < format.size() ? format[i] : ' ';
    if (kind == '%') {
      out += '%';
    } else if (kind != 's' && kind != 'd') {
      fail(fmt::format("'%{}' in a format; expected %s, %d or %%", kind >= ' ' && kind <= '~' ? kind : '?'));
      return {};
    } else if (used >= values.size()) {
      fail("a format has more places than values");
      return {};
    } else if (kind == 'd' && !values[used].is_integral()) {
      fail(fmt::format("%d of {}", kind_name(values[used])));
      return {};
    } else if (kind == 'd') {
      out += fmt::format("{}", values[used++].as_int());
    } else {
      append_text(out, values[used++]);
    }
  }
  if (used < values.size()) fail("a format has fewer places than values");
  return charge(format.size()) ? make_text(std::move(out)) : Value();
}

Value Runtime::evaluate_slice(const Expression& e) {
  const Value object = evaluate(e.operands[0]);
  const Value start = evaluate(e.operands[1]), stop = evaluate(e.operands[2]), step_value = evaluate(e.operands[3]);
  if (failed_) return {};
  line_ = e.line;
  for (std::size_t i = 1; i < 4; ++i) {
    const Value& bound = i == 1 ? start : i == 2 ? stop : step_value;
    if (e.operands[i] != nullptr && !bound.is_integral() && !bound.is(Kind::kNone)) {
      fail(fmt::format("{} in a slice; expected an integer", kind_name(bound)));
      return {};
    }
  }
  const std::int64_t step = step_value.is_integral() ? step_value.as_int() : 1;
  if (step == 0) {
    fail("a slice with step 0");
    return {};
  }
  if (!object.is(Kind::kList) && !object.is(Kind::kString)) {
    fail(fmt::format("slice of {}{}; expected a list or string", kind_name(object),
                     object.is(Kind::kUndefined) ? fmt::format(" '{}'", object.text) : ""));
    return {};
  }
  const std::vector<Value> items = iterate(object);
  const SliceBounds bounds = slice_bounds(static_cast<std::int64_t>(items.size()), start, stop, step);
  std::vector<Value> result;
  for (std::int64_t i = 0; i < bounds.count; ++i)
    result.push_back(items[static_cast<std::size_t>(bounds.start + i * bounds.step)]);
  if (object.is(Kind::kList)) return make_list(std::move(result), object.list->tuple);
  std::string out;
  for (const Value& item : result) out += item.text;
  return make_text(std::move(out));
}

Arguments Runtime::evaluate_arguments(const Expression& e, std::size_t first_operand) {
  Arguments arguments;
  for (std::size_t i = first_operand; i < e.operands.size(); ++i) arguments.positional.push_back(evaluate(e.operands[i]));
  for (const auto& [name, value] : e.keywords) arguments.keywords.emplace_back(name, evaluate(value));
  return arguments;
}

Value Runtime::evaluate_call(const Expression& e) {
  const Expression* callee = e.operands[0];
  if (callee != nullptr && callee->kind == ExpressionKind::kAttribute) {
    const Value object = evaluate(callee->operands[0]);
    if (has_method(object, callee->text)) {
      const Arguments arguments = evaluate_arguments(e, 1);
      if (failed_) return {};
      line_ = e.line;
      return object.is(Kind::kLoop) ? call_loop(object, callee->text, arguments)
                                    : call_method(*this, object, callee->text, arguments);
    }
    const Value member = attribute(object, callee->text);
    if (failed_) return {};
    if (!member.is(Kind::kMacro)) {
      fail(fmt::format("method '{}' of {} is not in the subset of Jinja that chat templates may use", callee->text,
                       kind_name(object)));
      return {};
    }
    return call_macro(*member.macro, evaluate_arguments(e, 1));
  }
  const Value function = evaluate(callee);
  const Arguments arguments = evaluate_arguments(e, 1);
  if (failed_) return {};
  line_ = e.line;
  if (function.is(Kind::kMacro)) return call_macro(*function.macro, arguments);
  if (function.is(Kind::kFunction)) return call_function(function.text, arguments);
  if (function.is(Kind::kUndefined)) {
    fail(fmt::format("'{}' is called, but there is no macro or function of that name", function.text));
  } else {
    fail(fmt::format("{} is called", kind_name(function)));
  }
  return {};
}

Value Runtime::call_function(std::string_view name, const Arguments& arguments) {
  const auto integer = [&](std::size_t i) {
    if (!arguments.positional[i].is_integral())
      fail(fmt::format("{} in range; expected an integer", kind_name(arguments.positional[i])));
    return arguments.positional[i].as_int();
  };
  if (name == "raise_exception") {
    fail(arguments.positional.empty() ? "raise_exception" : to_text(arguments.positional[0]));
    return {};
  }
  if (name == "namespace" || name == "dict") {
    Value result = make_dict();
    if (name == "namespace") result.kind = Kind::kNamespace;
    if (!arguments.positional.empty()) {
      if (!arguments.positional[0].is(Kind::kDict)) {
        fail(fmt::format("{} of {}; expected a mapping or names", name, kind_name(arguments.positional[0])));
        return {};
      }
      for (const auto& [key, value] : arguments.positional[0].dict->items) set_item(*result.dict, key, value);
    }
    for (const auto& [key, value] : arguments.keywords) set_item(*result.dict, key, value);
    return result;
  }
  if (name == "range") {
    const std::size_t count = arguments.positional.size();
    if (count < 1 || count > 3) {
      fail("range; expected one to three integers");
      return {};
    }
    const std::int64_t start = count > 1 ? integer(0) : 0, stop = integer(count > 1 ? 1 : 0), step = count > 2 ? integer(2) : 1;
    if (!failed_ && step == 0) fail("range with step 0");
    std::vector<Value> items;
    for (std::int64_t at = start; !failed_ && (step > 0 ? at < stop : at > stop);) {
      if (!charge(kStep)) break;
      items.push_back(Value::of_int(at));
      if (__builtin_add_overflow(at, step, &at)) break;
    }
    return make_list(std::move(items));
  }
  ROOFTREE_CHECK(name == "strftime_now", "functions are those that run() defines");
  const std::string format = arguments.positional.empty() ? "" : to_text(arguments.positional[0]);
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char kind = ++i < format.size() ? format[i] : ' ';
    const auto month = static_cast<std::size_t>(date_.month - 1);
    switch (kind) {
      case 'Y':
        out += fmt::format("{:04}", date_.year);
        break;
      case 'y':
        out += fmt::format("{:02}", date_.year % 100);
        break;
      case 'm':
        out += fmt::format("{:02}", date_.month);
        break;
      case 'd':
        out += fmt::format("{:02}", date_.day);
        break;
      case 'B':
        out += kMonths[month];
        break;
      case 'b':
        out += kMonths[month].substr(0, 3);
        break;
      case 'A':
        out += kDays[static_cast<std::size_t>(weekday(date_))];
        break;
      case 'a':
        out += kDays[static_cast<std::size_t>(weekday(date_))].substr(0, 3);
        break;
      case '%':
        out += '%';
        break;
      default:
        fail(fmt::format("strftime_now with '%{}'; a date is known, not more", kind >= ' ' && kind <= '~' ? kind : '?'));
        return {};
    }
  }
  return make_text(std::move(out));
}

Value Runtime::call_macro(const Statement& macro, const Arguments& arguments) {
  if (arguments.positional.size() > macro.names.size()) {
    fail(fmt::format("macro '{}' has {} parameters, called with {} arguments", macro.text, macro.names.size(),
                     arguments.positional.size()));
    return {};
  }
  Value variables = make_dict();
  const std::size_t frame_begin = std::exchange(frame_begin_, scopes_.size());
  scopes_.push_back(variables.dict);
  for (std::size_t i = 0; i < macro.names.size() && !failed_; ++i) {
    const Value* given = arguments.find(i, macro.names[i]);
    const Expression* fallback = macro.expressions[i];
    set_item(*variables.dict, macro.names[i],
             given != nullptr      ? *given
             : fallback != nullptr ? evaluate(fallback)
                                   : Value::undefined(macro.names[i]));
  }
  for (const auto& [name, value] : arguments.keywords) {
    if (std::find(macro.names.begin(), macro.names.end(), name) == macro.names.end()) {
      fail(fmt::format("macro '{}' has no parameter '{}'", macro.text, name));
    }
  }
  std::string out = capture(macro.body);
  scopes_.pop_back();
  frame_begin_ = frame_begin;
  return failed_ ? Value() : make_text(std::move(out));
}

Value Runtime::loop_attribute(const LoopState& loop, std::string_view name) {
  const auto index = static_cast<std::int64_t>(loop.index), size = static_cast<std::int64_t>(loop.items->items.size());
  if (name == "index") return Value::of_int(index + 1);
  if (name == "index0") return Value::of_int(index);
  if (name == "revindex") return Value::of_int(size - index);
  if (name == "revindex0") return Value::of_int(size - index - 1);
  if (name == "length") return Value::of_int(size);
  if (name == "first") return Value::of_bool(index == 0);
  if (name == "last") return Value::of_bool(index + 1 == size);
  if (name == "previtem") return index > 0 ? loop.items->items[loop.index - 1] : Value::undefined("loop.previtem");
  if (name == "nextitem") return index + 1 < size ? loop.items->items[loop.index + 1] : Value::undefined("loop.nextitem");
  fail(fmt::format("'loop.{}' is not in the subset of Jinja that chat templates may use", name));
  return {};
}

Value Runtime::call_loop(const Value& loop, std::string_view name, const Arguments& arguments) {
  if (name == "cycle") {
    if (arguments.positional.empty()) {
      fail("loop.cycle of nothing");
      return {};
    }
    return arguments.positional[loop.loop->index % arguments.positional.size()];
  }
  const Value now = make_list(arguments.positional, true);  // changed
  if (failed_) return {};
  Value before = now;
  before.list = loop.loop->last_changed;
  const bool changed = before.list == nullptr || !equal(now, before);
  loop.loop->last_changed = now.list;
  return Value::of_bool(changed);
}

// ---- statements ----

Runtime::Flow Runtime::execute(const std::vector<const Statement*>& body) {
  for (const Statement* statement : body) {
    if (failed_) break;
    if (const Flow flow = execute(*statement); flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

std::string Runtime::capture(const std::vector<const Statement*>& body) {
  std::string text;
  std::string* const outer = std::exchange(output_, &text);
  execute(body);
  output_ = outer;
  return text;
}

Runtime::Flow Runtime::execute(const Statement& s) {
  const Nested nested(*this);
  line_ = s.line;
  if (!charge(kStep)) return Flow::kNormal;
  switch (s.kind) {
    case StatementKind::kText:
      if (charge(s.text.size())) *output_ += s.text;
      break;
    case StatementKind::kPrint:
      append_text(*output_, evaluate(s.expressions[0]));
      break;
    case StatementKind::kIf:
      for (const Branch& branch : s.branches) {
        if (branch.condition == nullptr || truthy(evaluate(branch.condition)))
          return failed_ ? Flow::kNormal : execute(branch.body);
      }
      break;
    case StatementKind::kFor:
      return execute_for(s);
    case StatementKind::kSet: {
      const Value value = evaluate(s.expressions[1]);
      if (!failed_) assign(*s.expressions[0], value);
      break;
    }
    case StatementKind::kSetBlock:
    case StatementKind::kFilterBlock: {
      const bool sets = s.kind == StatementKind::kSetBlock;
      const Expression* filters = s.expressions[sets ? 1 : 0];
      Value value = make_text(capture(s.body));
      if (filters != nullptr) {
        block_value_ = value;
        value = evaluate(filters);
      }
      if (failed_) break;
      if (sets) {
        assign(*s.expressions[0], value);
      } else {
        append_text(*output_, value);
      }
      break;
    }
    case StatementKind::kMacro: {
      Value macro;
      macro.kind = Kind::kMacro;
      macro.macro = &s;
      set_item(*scopes_.back(), s.text, macro);
      break;
    }
    case StatementKind::kWith: {
      Value variables = make_dict();
      for (std::size_t i = 0; i < s.names.size(); ++i) set_item(*variables.dict, s.names[i], evaluate(s.expressions[i]));
      scopes_.push_back(variables.dict);
      const Flow flow = execute(s.body);
      scopes_.pop_back();
      return flow;
    }
    case StatementKind::kDo:
      evaluate(s.expressions[0]);
      break;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
    case StatementKind::kGroup:
      return execute(s.body);
  }
  return Flow::kNormal;
}

Runtime::Flow Runtime::execute_for(const Statement& s) {
  const Value sequence = evaluate(s.expressions[0]);
  std::vector<Value> items = iterate(sequence);
  // A condition filters before the loop begins, so that loop.length and loop.last count what is left.
  if (const Expression* condition = s.expressions[1]; condition != nullptr && !failed_) {
    std::vector<Value> kept;
    for (const Value& item : items) {
      Value variables = make_dict();
      scopes_.push_back(variables.dict);
      unpack(s.names, item);
      if (truthy(evaluate(condition))) kept.push_back(item);
      scopes_.pop_back();
      if (failed_) break;
    }
    items = std::move(kept);
  }
  if (failed_) return Flow::kNormal;
  if (items.empty()) return execute(s.otherwise);
  const Value all = make_list(std::move(items));
  if (failed_) return Flow::kNormal;
  LoopState& state = loops_.emplace_back();
  state.items = all.list;
  Value loop;
  loop.kind = Kind::kLoop;
  loop.loop = &state;
  for (state.index = 0; state.index < all.list->items.size() && !failed_; ++state.index) {
    Value variables = make_dict();
    scopes_.push_back(variables.dict);
    set_item(*variables.dict, "loop", loop);
    unpack(s.names, all.list->items[state.index]);
    const Flow flow = execute(s.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNormal;
}

void Runtime::assign(const Expression& target, const Value& value) {
  switch (target.kind) {
    case ExpressionKind::kName:
      return set_item(*scopes_.back(), target.text, value);
    case ExpressionKind::kAttribute: {
      const Value object = lookup(target.operands[0]->text);
      if (!object.is(Kind::kNamespace)) {
        return fail(fmt::format("'{}' is {}; only an attribute of a namespace can be set", target.operands[0]->text,
                                kind_name(object)));
      }
      return set_item(*object.dict, target.text, value);
    }
    default: {
      const std::vector<Value> items = iterate(value);
      if (items.size() != target.operands.size()) {
        return fail(fmt::format("{} values for {} names", items.size(), target.operands.size()));
      }
      for (std::size_t i = 0; i < items.size(); ++i) assign(*target.operands[i], items[i]);
    }
  }
}

void Runtime::unpack(const std::vector<std::string>& names, const Value& value) {
  if (names.size() == 1) return set_item(*scopes_.back(), names[0], value);
  const std::vector<Value> items = iterate(value);
  if (failed_) return;
  if (items.size() != names.size())
    return fail(fmt::format("{} values for the {} names of a loop", items.size(), names.size()));
  for (std::size_t i = 0; i < items.size(); ++i) set_item(*scopes_.back(), names[i], items[i]);
}

Result<std::string> Runtime::run(Dict* globals, const Date& date) {
  date_ = date;
  for (const std::string_view name : {"raise_exception", "namespace", "dict", "range"})
    set_item(*globals, name, Value::function(name));
  if (date.year != 0) set_item(*globals, "strftime_now", Value::function("strftime_now"));
  scopes_ = {globals};
  std::string out;
  output_ = &out;
  execute(program_.body);
  if (failed_) return Error{ErrorCode::kInvalid, error_};
  return out;
}

}  // namespace rooftree::text::jinja

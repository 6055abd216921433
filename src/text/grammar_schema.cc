// JSON, and JSON schemas (a subset of draft 2020-12), as grammars.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/json.h"
#include "text/grammar.h"
#include "text/grammar_rules.h"

namespace rooftree::text {
namespace {

constexpr std::int64_t kMaxCount = 10'000;  // of minItems, maxLength, ...
constexpr int kMaxDepth = 60;

// The parts of JSON, each one rule.
class JsonRules {
 public:
  explicit JsonRules(GrammarBuilder& builder) : b_(builder) {}

  // At most one line break with its margin, or one space: a model that only writes blanks does not satisfy a grammar for ever.
  ExpressionId space() {
    return rule("json-space", [&] {
      return b_.optional(b_.alternatives(
          {b_.literal(" "), b_.sequence({b_.literal("\n"), b_.repeat(set({{' ', ' '}, {'\t', '\t'}}), 0, 20)})}));
    });
  }
  // What may stand between the quotes for one character. `whole`: escapes of surrogates are left out, so that each is a
  // character.
  ExpressionId character(bool whole) {
    return rule(whole ? "json-whole-character" : "json-character", [&] {
      const auto hex = [&] { return set({{'0', '9'}, {'a', 'f'}, {'A', 'F'}}); };
      ExpressionId code =
          whole ? b_.alternatives(
                      {b_.sequence({set({{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}}), hex(), hex(), hex()}),
                       b_.sequence({set({{'d', 'd'}, {'D', 'D'}}), set({{'0', '7'}}), hex(), hex()})})
                : b_.repeat(hex(), 4, 4);
      return b_.alternatives(
          {b_.characters({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}, true),
           b_.sequence({b_.literal("\\"), b_.alternatives({b_.one_of({"\"", "\\", "/", "b", "f", "n", "r", "t"}),
                                                           b_.sequence({b_.literal("u"), code})})})});
    });
  }
  ExpressionId string() {
    return rule("json-string", [&] { return b_.sequence({quote(), b_.repeat(character(false), 0, -1), quote()}); });
  }
  ExpressionId digits(std::int64_t least, std::int64_t most) { return b_.repeat(set({{'0', '9'}}), least, most); }
  ExpressionId magnitude() {
    return rule("json-magnitude", [&] {
      return b_.alternatives({b_.literal("0"), b_.sequence({set({{'1', '9'}}), digits(0, -1)})});
    });
  }
  // Two digits of exponent: more would leave the range of doubles, and parsers refuse that.
  ExpressionId fraction() {
    return rule("json-fraction", [&] {
      return b_.sequence({b_.optional(b_.sequence({b_.literal("."), digits(1, -1)})),
                          b_.optional(b_.sequence({b_.one_of({"e", "E"}), b_.optional(b_.one_of({"+", "-"})), digits(1, 2)}))});
    });
  }
  ExpressionId integer(bool negative) {
    if (!negative) return magnitude();
    return b_.sequence({b_.optional(b_.literal("-")), magnitude()});
  }
  ExpressionId number(bool negative) { return b_.sequence({integer(negative), fraction()}); }
  ExpressionId boolean() { return b_.one_of({"true", "false"}); }
  ExpressionId null() { return b_.literal("null"); }

  ExpressionId value() {
    return rule("json-value", [&] { return b_.alternatives({object(), array(), string(), number(true), boolean(), null()}); });
  }
  ExpressionId object() {
    return rule("json-object", [&] { return braces(list(b_.sequence({string(), colon(), value()}), 0, -1)); });
  }
  ExpressionId array() {
    return rule("json-array", [&] { return brackets(list(value(), 0, -1)); });
  }

  ExpressionId quote() { return b_.literal("\""); }
  ExpressionId colon() { return b_.sequence({b_.literal(":"), space()}); }
  ExpressionId comma() { return b_.sequence({b_.literal(","), space()}); }
  ExpressionId braces(ExpressionId inside) { return b_.sequence({b_.literal("{"), space(), inside, b_.literal("}")}); }
  ExpressionId brackets(ExpressionId inside) { return b_.sequence({b_.literal("["), space(), inside, b_.literal("]")}); }
  // Items with commas between, a space after the last; `item` is used twice.
  ExpressionId list(ExpressionId item, std::int64_t least, std::int64_t most) {
    if (most == 0) return b_.nothing();
    const ExpressionId more =
        b_.repeat(b_.sequence({comma(), item, space()}), std::max<std::int64_t>(least - 1, 0), most < 0 ? -1 : most - 1);
    const ExpressionId some = b_.sequence({item, space(), more});
    return least == 0 ? b_.optional(some) : some;
  }
  ExpressionId set(std::vector<CharacterRange> ranges) { return b_.characters(std::move(ranges)); }

 private:
  template <class Body>
  ExpressionId rule(std::string_view name, const Body& body) {
    const RuleId id = b_.rule(name);
    if (!b_.is_defined(id) && std::find(open_.begin(), open_.end(), id) == open_.end()) {
      open_.push_back(id);
      b_.define(id, body());
      open_.pop_back();
    }
    return b_.reference(id);
  }

  GrammarBuilder& b_;
  std::vector<RuleId> open_;  // being defined: their uses inside are recursive
};

class SchemaReader {
 public:
  SchemaReader(const Json& schema, std::string_view where) : root_(schema), where_(where) {}

  Result<std::shared_ptr<const Grammar::Rules>> run() {
    const RuleId root = rule_at("#", root_, 0);
    if (failed_) return error_;
    return b_.compile(root, where_);
  }

 private:
  void fail(const std::string& path, std::string_view message) {
    if (failed_) return;
    failed_ = true;
    error_ = Error{ErrorCode::kInvalid, fmt::format("{}: {}: {}", where_, path, message)};
  }

  // One rule per place in the document, named by its JSON pointer (helpers have names that do not begin with '#'), so that
  // "$ref" can point to any and recursion is a call.
  RuleId rule_at(const std::string& path, const Json& schema, int depth) {
    const RuleId id = b_.rule(path);
    if (b_.is_defined(id) || std::find(open_.begin(), open_.end(), id) != open_.end()) return id;
    open_.push_back(id);
    const ExpressionId body = schema_expression(path, schema, depth);
    open_.pop_back();
    b_.define(id, body);
    return id;
  }
  ExpressionId at(const std::string& path, const Json& schema, int depth) {
    return b_.reference(rule_at(path, schema, depth + 1));
  }

  ExpressionId schema_expression(const std::string& path, const Json& schema, int depth) {
    if (failed_) return 0;
    if (depth > kMaxDepth) {
      fail(path, fmt::format("nested deeper than {}", kMaxDepth));
      return 0;
    }
    if (schema.is_boolean()) {
      if (schema.get<bool>()) return json_.value();
      fail(path, "the schema 'false' allows nothing");
      return 0;
    }
    if (!schema.is_object()) {
      fail(path, fmt::format("{}; expected a schema (an object or true)", schema.type_name()));
      return 0;
    }
    if (!known_keywords(path, schema)) return 0;
    if (const auto ref = schema.find("$ref"); ref != schema.end()) return reference(path, *ref, schema, depth);
    if (const auto value = schema.find("const"); value != schema.end()) return b_.literal(dump(*value));
    if (const auto values = schema.find("enum"); values != schema.end()) {
      std::vector<std::string> literals;
      if (!values->is_array() || values->empty()) {
        fail(path, "enum; expected a list with at least one value");
        return 0;
      }
      for (const Json& value : *values) literals.push_back(dump(value));
      return b_.one_of(std::move(literals));
    }
    for (const char* keyword : {"anyOf", "oneOf", "allOf"}) {
      const auto options = schema.find(keyword);
      if (options == schema.end()) continue;
      if (!options->is_array() || options->empty()) {
        fail(path, fmt::format("{}; expected a list with at least one schema", keyword));
        return 0;
      }
      if (keyword == std::string_view("allOf") && options->size() > 1) {
        fail(path, "allOf of several schemas is not supported");
        return 0;
      }
      if (schema.contains("type") || schema.contains("properties")) {
        fail(path, fmt::format("{} beside type or properties is not supported", keyword));
        return 0;
      }
      std::vector<ExpressionId> items;
      for (std::size_t i = 0; i < options->size(); ++i)
        items.push_back(at(fmt::format("{}/{}/{}", path, keyword, i), (*options)[i], depth));
      return b_.alternatives(std::move(items));
    }
    const auto type = schema.find("type");
    if (type == schema.end()) {
      if (schema.contains("properties") || schema.contains("required") || schema.contains("additionalProperties"))
        return object(path, schema, depth);
      if (schema.contains("items") || schema.contains("prefixItems")) return array(path, schema, depth);
      if (schema.contains("minLength") || schema.contains("maxLength") || schema.contains("pattern"))
        return string(path, schema);
      if (bounds_number(schema)) {
        fail(path, "bounds of a number without type are not supported");
        return 0;
      }
      return json_.value();
    }
    std::vector<ExpressionId> items;
    const Json types = type->is_array() ? *type : Json::array({*type});
    for (const Json& name : types) items.push_back(of_type(path, name, schema, depth));
    if (items.empty()) fail(path, "type; expected at least one");
    return failed_ ? 0 : b_.alternatives(std::move(items));
  }

  ExpressionId of_type(const std::string& path, const Json& name, const Json& schema, int depth) {
    const std::string type = name.is_string() ? name.get<std::string>() : name.dump();
    if (type == "object") return object(path, schema, depth);
    if (type == "array") return array(path, schema, depth);
    if (type == "string") return string(path, schema);
    if (type == "integer") return integer(path, schema);
    if (type == "number") return number(path, schema);
    if (type == "boolean") return json_.boolean();
    if (type == "null") return json_.null();
    fail(path, fmt::format("type {}; expected object, array, string, integer, number, boolean or null", type));
    return 0;
  }

  static std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

  // Every keyword is either understood, an annotation, or refused by its name.
  bool known_keywords(const std::string& path, const Json& schema) {
    static constexpr std::string_view kUnderstood[] = {"type",
                                                       "properties",
                                                       "required",
                                                       "additionalProperties",
                                                       "items",
                                                       "prefixItems",
                                                       "minItems",
                                                       "maxItems",
                                                       "enum",
                                                       "const",
                                                       "anyOf",
                                                       "oneOf",
                                                       "allOf",
                                                       "$ref",
                                                       "$defs",
                                                       "definitions",
                                                       "minLength",
                                                       "maxLength",
                                                       "pattern",
                                                       "minimum",
                                                       "maximum",
                                                       "exclusiveMinimum",
                                                       "exclusiveMaximum",
                                                       "uniqueItems"};
    // "format" is an annotation unless a vocabulary says otherwise (JSON Schema validation 2020-12, section 7.2.1).
    static constexpr std::string_view kAnnotations[] = {"title",      "description", "default",   "examples", "example",
                                                        "deprecated", "readOnly",    "writeOnly", "$schema",  "$id",
                                                        "$comment",   "$anchor",     "format"};
    for (const auto& [key, value] : schema.items()) {
      const bool known = std::find(std::begin(kUnderstood), std::end(kUnderstood), key) != std::end(kUnderstood) ||
                         std::find(std::begin(kAnnotations), std::end(kAnnotations), key) != std::end(kAnnotations);
      if (!known) {
        fail(path, fmt::format("keyword '{}' is not supported", key));
        return false;
      }
    }
    if (const auto unique = schema.find("uniqueItems"); unique != schema.end() && *unique != false) {
      fail(path, "keyword 'uniqueItems' is not supported");
      return false;
    }
    return true;
  }

  ExpressionId reference(const std::string& path, const Json& ref, const Json& schema, int depth) {
    const std::string target = ref.is_string() ? ref.get<std::string>() : ref.dump();
    for (const auto& [key, value] : schema.items()) {
      if (key != "$ref" && key != "title" && key != "description" && key != "default" && key != "$defs" &&
          key != "definitions" && key != "$schema") {
        fail(path, fmt::format("'{}' beside $ref is not supported", key));
        return 0;
      }
    }
    if (target.empty() || target[0] != '#' || (target.size() > 1 && target[1] != '/')) {
      fail(path, fmt::format("$ref {}; only places in this document are supported (#/$defs/name)", target));
      return 0;
    }
    const Json* place = &root_;
    for (std::size_t begin = 1; begin < target.size();) {
      const std::size_t end = std::min(target.find('/', begin + 1), target.size());
      std::string key;
      for (std::size_t i = begin + 1; i < end; ++i) {  // a JSON pointer: ~1 is '/', ~0 is '~'
        if (target[i] == '~' && i + 1 < end && (target[i + 1] == '0' || target[i + 1] == '1')) {
          key += target[++i] == '0' ? '~' : '/';
        } else {
          key += target[i];
        }
      }
      if (place->is_object() && place->contains(key)) {
        place = &place->at(key);
      } else {
        std::size_t index = 0;
        const auto parsed = std::from_chars(key.data(), key.data() + key.size(), index);
        if (!place->is_array() || parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || index >= place->size()) {
          fail(path, fmt::format("$ref {}: there is no '{}'", target, key));
          return 0;
        }
        place = &place->at(index);
      }
      begin = end;
    }
    return at(target, *place, depth);
  }

  std::optional<std::int64_t> count(const std::string& path, const Json& schema, const char* keyword) {
    const auto found = schema.find(keyword);
    if (found == schema.end()) return std::nullopt;
    const double value = found->is_number() ? found->get<double>() : -1;
    if (value < 0 || value > kMaxCount || value != static_cast<double>(static_cast<std::int64_t>(value))) {
      fail(path, fmt::format("{} {}; expected an integer from 0 to {}", keyword, found->dump(), kMaxCount));
      return std::nullopt;
    }
    return static_cast<std::int64_t>(value);
  }
  // {least, most}, most -1 without bound.
  std::pair<std::int64_t, std::int64_t> counts(const std::string& path, const Json& schema, const char* least_keyword,
                                               const char* most_keyword) {
    const std::int64_t least = count(path, schema, least_keyword).value_or(0);
    const std::int64_t most = count(path, schema, most_keyword).value_or(-1);
    if (most >= 0 && most < least)
      fail(path, fmt::format("{} {} is less than {} {}", most_keyword, most, least_keyword, least));
    return {least, most};
  }

  // Properties in the order of the schema, the optional ones present or not. Where further properties are allowed (by
  // additionalProperties: true or a schema; or by an object schema that lists none) they come last, with other names.
  ExpressionId object(const std::string& path, const Json& schema, int depth) {
    const Json empty = Json::object();
    const auto properties_found = schema.find("properties");
    const Json& properties = properties_found == schema.end() ? empty : *properties_found;
    if (!properties.is_object()) {
      fail(path, fmt::format("properties is {}; expected an object", properties.type_name()));
      return 0;
    }
    std::vector<std::string> required;
    if (const auto found = schema.find("required"); found != schema.end()) {
      if (!found->is_array()) {
        fail(path, "required; expected a list of names");
        return 0;
      }
      for (const Json& name : *found) {
        if (!name.is_string() || !properties.contains(name.get<std::string>())) {
          fail(path, fmt::format("required names {}, which is not in properties", name.dump()));
          return 0;
        }
        required.push_back(name.get<std::string>());
      }
    }
    const auto additional = schema.find("additionalProperties");
    const bool open = additional == schema.end() ? properties.empty() : *additional != false;

    std::vector<std::string> names;
    std::vector<bool> must;
    std::vector<RuleId> pairs;
    for (const auto& [name, value] : properties.items()) {
      const std::string place = fmt::format("{}/properties/{}", path, pointer_text(name));
      const RuleId pair = b_.rule("pair " + place);
      const ExpressionId body =
          b_.sequence({b_.literal(dump(Json(name))), json_.colon(), at(place, value, depth), json_.space()});
      if (failed_) return 0;
      if (!b_.is_defined(pair)) b_.define(pair, body);
      names.push_back(name);
      must.push_back(std::find(required.begin(), required.end(), name) != required.end());
      pairs.push_back(pair);
    }
    // The tail after property i, with or without something printed before: two rules per property.
    std::array<ExpressionId, 2> tail{};
    for (const bool printed : {false, true}) {
      if (!open) {
        tail[printed ? 1 : 0] = b_.nothing();
        continue;
      }
      const RuleId pair = b_.rule("additional pair " + path);
      if (!b_.is_defined(pair)) {
        const ExpressionId value = additional == schema.end() || *additional == true
                                       ? json_.value()
                                       : at(path + "/additionalProperties", *additional, depth);
        const ExpressionId name = names.empty() ? json_.string() : other_name(names);
        if (failed_) return 0;
        b_.define(pair, b_.sequence({name, json_.colon(), value, json_.space()}));
      }
      const ExpressionId more = b_.repeat(b_.sequence({json_.comma(), b_.reference(pair)}), 0, -1);
      tail[printed ? 1 : 0] = printed ? more : b_.optional(b_.sequence({b_.reference(pair), more}));
    }
    for (std::size_t i = names.size(); i-- > 0;) {
      std::array<ExpressionId, 2> rules{};
      for (const bool printed : {false, true}) {
        const RuleId rule = b_.rule(fmt::format("from {}{} {}", i, printed ? " after a comma" : "", path));
        rules[printed ? 1 : 0] = b_.reference(rule);
        const ExpressionId take = printed ? b_.sequence({json_.comma(), b_.reference(pairs[i]), tail[1]})
                                          : b_.sequence({b_.reference(pairs[i]), tail[1]});
        if (!b_.is_defined(rule)) b_.define(rule, must[i] ? take : b_.alternatives({take, tail[printed ? 1 : 0]}));
      }
      tail = rules;
    }
    return json_.braces(tail[0]);
  }

  static std::string pointer_text(const std::string& name) {
    std::string out;
    for (const char c : name) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    return out;
  }

  // A string that is none of `names`: letter by letter along their prefix tree, then anything. Escapes are left out as long as
  // the text is a prefix of a name, so that no other spelling of a name gets through.
  ExpressionId other_name(std::vector<std::string> names) {
    for (std::string& name : names) {
      const std::string quoted = dump(Json(name));
      name = quoted.substr(1, quoted.size() - 2);
    }
    std::sort(names.begin(), names.end());
    return b_.sequence({json_.quote(), other_tail(names, 0, names.size(), 0), json_.quote()});
  }
  // names[first, last) share `depth` bytes, which were read.
  ExpressionId other_tail(const std::vector<std::string>& names, std::size_t first, std::size_t last, std::size_t depth) {
    if (depth > 256) {
      fail("#", "a property with a name longer than 256 bytes beside additionalProperties is not supported");
      return 0;
    }
    std::vector<ExpressionId> options;
    std::vector<CharacterRange> excluded = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    const bool is_name = first < last && names[first].size() == depth;
    if (!is_name) options.push_back(b_.nothing());
    for (std::size_t i = is_name ? first + 1 : first; i < last;) {
      const std::size_t size = character_bytes(names[i], depth);
      const std::string character = names[i].substr(depth, size);
      std::size_t end = i;
      while (end < last && names[end].compare(depth, size, character) == 0) ++end;
      const std::uint32_t code = decode(character);
      // A name that JSON spells with an escape cannot be met: escapes are out here.
      if (character != "\\") {
        excluded.push_back({code, code});
        options.push_back(b_.sequence({b_.literal(character), other_tail(names, i, end, depth + size)}));
      }
      i = end;
    }
    options.push_back(b_.sequence({b_.characters(std::move(excluded), true), b_.repeat(json_.character(false), 0, -1)}));
    return b_.alternatives(std::move(options));
  }
  static std::size_t character_bytes(const std::string& text, std::size_t at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    return std::min<std::size_t>(lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4, text.size() - at);
  }
  static std::uint32_t decode(const std::string& character) {
    std::uint32_t code = static_cast<unsigned char>(character[0]);
    if (character.size() > 1) code &= 0xFFU >> (character.size() + 1);
    for (std::size_t i = 1; i < character.size(); ++i) code = (code << 6) | (static_cast<unsigned char>(character[i]) & 0x3FU);
    return code;
  }

  ExpressionId array(const std::string& path, const Json& schema, int depth) {
    const auto [least, most] = counts(path, schema, "minItems", "maxItems");
    const auto prefix = schema.find("prefixItems");
    const auto items = schema.find("items");
    if (failed_) return 0;
    if (prefix == schema.end()) {
      if (items == schema.end()) return json_.brackets(json_.list(json_.value(), least, most));
      if (*items == false) {
        if (least > 0) fail(path, "items: false beside minItems above 0 allows nothing");
        return json_.brackets(b_.nothing());
      }
      return json_.brackets(json_.list(at(path + "/items", *items, depth), least, most));
    }
    if (!prefix->is_array() || prefix->empty()) {
      fail(path, "prefixItems; expected a list with at least one schema");
      return 0;
    }
    // A tuple: all of its items, then more where `items` allows them.
    const auto size = static_cast<std::int64_t>(prefix->size());
    if (least < size && schema.contains("minItems")) {
      fail(path, fmt::format("minItems {} below the {} of prefixItems is not supported", least, size));
      return 0;
    }
    std::vector<ExpressionId> sequence;
    for (std::size_t i = 0; i < prefix->size(); ++i) {
      if (i > 0) sequence.push_back(json_.comma());
      sequence.push_back(at(fmt::format("{}/prefixItems/{}", path, i), (*prefix)[i], depth));
      sequence.push_back(json_.space());
    }
    if (most >= 0 && most < size)
      fail(path, fmt::format("maxItems {} below the {} of prefixItems is not supported", most, size));
    if (items != schema.end() && *items != false) {
      const ExpressionId item = at(path + "/items", *items, depth);
      sequence.push_back(b_.repeat(b_.sequence({json_.comma(), item, json_.space()}), std::max<std::int64_t>(0, least - size),
                                   most < 0 ? -1 : most - size));
    } else if (least > size) {
      fail(path, fmt::format("minItems {} is more than the {} of prefixItems", least, size));
    }
    return failed_ ? 0 : json_.brackets(b_.sequence(std::move(sequence)));
  }

  ExpressionId string(const std::string& path, const Json& schema) {
    const auto [least, most] = counts(path, schema, "minLength", "maxLength");
    if (const auto pattern = schema.find("pattern"); pattern != schema.end()) {
      if (schema.contains("minLength") || schema.contains("maxLength")) {
        fail(path, "pattern beside minLength or maxLength is not supported");
        return 0;
      }
      if (!pattern->is_string()) {
        fail(path, "pattern; expected a string");
        return 0;
      }
      return pattern_string(path, pattern->get<std::string>());
    }
    if (failed_) return 0;
    if (least == 0 && most < 0) return json_.string();
    return b_.sequence({json_.quote(), b_.repeat(json_.character(true), least, most), json_.quote()});
  }

  // ---- patterns: ^...$ of literals, classes, groups, alternatives and repetition ----

  ExpressionId pattern_string(const std::string& path, const std::string& pattern) {
    pattern_ = pattern;
    pattern_at_ = 1;
    pattern_path_ = path;
    if (pattern.size() < 2 || pattern.front() != '^' || pattern.back() != '$' ||
        (pattern.size() > 2 && pattern[pattern.size() - 2] == '\\')) {
      refuse_pattern("without ^ and $ around it");
      return 0;
    }
    const ExpressionId body = pattern_alternatives(0);
    if (!failed_ && pattern_at_ + 1 != pattern_.size())
      refuse_pattern(fmt::format("with '{}' at {}", pattern_[pattern_at_], pattern_at_));
    return failed_ ? 0 : b_.sequence({json_.quote(), body, json_.quote()});
  }
  void refuse_pattern(std::string_view what) {
    fail(pattern_path_, fmt::format("pattern {} {} is not supported", dump(Json(pattern_)), what));
  }
  bool pattern_ended() const { return pattern_at_ + 1 >= pattern_.size(); }  // before the '$'
  ExpressionId pattern_alternatives(int depth) {
    if (depth > kMaxDepth) refuse_pattern(fmt::format("with groups deeper than {}", kMaxDepth));
    std::vector<ExpressionId> options;
    do {
      std::vector<ExpressionId> items;
      while (!failed_ && !pattern_ended() && pattern_[pattern_at_] != '|' && pattern_[pattern_at_] != ')')
        items.push_back(pattern_item(depth));
      options.push_back(failed_ ? 0 : b_.sequence(std::move(items)));
    } while (!failed_ && !pattern_ended() && pattern_[pattern_at_] == '|' && ++pattern_at_ > 0);
    return failed_ ? 0 : b_.alternatives(std::move(options));
  }
  ExpressionId pattern_item(int depth) {
    ExpressionId item = 0;
    if (pattern_[pattern_at_] == '(') {
      ++pattern_at_;
      if (pattern_.compare(pattern_at_, 2, "?:") == 0) {
        pattern_at_ += 2;
      } else if (!pattern_ended() && pattern_[pattern_at_] == '?') {
        refuse_pattern("with (?");
        return 0;
      }
      item = pattern_alternatives(depth + 1);
      if (failed_) return 0;
      if (pattern_ended() || pattern_[pattern_at_] != ')') {
        refuse_pattern("with an open group");
        return 0;
      }
      ++pattern_at_;
    } else {
      item = json_characters(pattern_set());
    }
    if (failed_ || pattern_ended()) return item;
    std::int64_t least = 1, most = 1;
    switch (pattern_[pattern_at_]) {
      case '*':
        least = 0, most = -1;
        break;
      case '+':
        most = -1;
        break;
      case '?':
        least = 0;
        break;
      case '{': {
        const char* const end = pattern_.data() + pattern_.size();
        auto parsed = std::from_chars(pattern_.data() + pattern_at_ + 1, end, least);
        most = least;
        bool ok = parsed.ec == std::errc() && least >= 0;
        if (ok && *parsed.ptr == ',') {
          most = -1;
          if (parsed.ptr[1] != '}') {
            parsed = std::from_chars(parsed.ptr + 1, end, most);
            ok = parsed.ec == std::errc() && most >= least;
          } else {
            ++parsed.ptr;
          }
        }
        if (!ok || *parsed.ptr != '}' || least > kMaxCount || most > kMaxCount) {
          refuse_pattern(fmt::format("with the repetition at {}", pattern_at_));
          return 0;
        }
        pattern_at_ = static_cast<std::size_t>(parsed.ptr - pattern_.data());
        break;
      }
      default:
        return item;
    }
    ++pattern_at_;
    if (!pattern_ended() && std::string_view("*+?{").find(pattern_[pattern_at_]) != std::string_view::npos)
      refuse_pattern("with a repetition of a repetition");
    return failed_ ? 0 : b_.repeat(item, least, most);
  }
  struct Set {
    std::vector<CharacterRange> ranges;
    bool negated = false;
  };
  Set pattern_set() {
    const char c = pattern_[pattern_at_];
    Set set;
    if (c == '.') {
      ++pattern_at_;
      return {{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}, true};
    }
    if (c != '[') {
      if (std::string_view("*+?{}]^$").find(c) != std::string_view::npos) {
        refuse_pattern(fmt::format("with '{}' at {}", c, pattern_at_));
        return set;
      }
      pattern_character(set);
      return set;
    }
    ++pattern_at_;
    if (!pattern_ended() && pattern_[pattern_at_] == '^') {
      set.negated = true;
      ++pattern_at_;
    }
    while (!failed_ && !pattern_ended() && pattern_[pattern_at_] != ']') {
      const std::size_t before = set.ranges.size();
      pattern_character(set);
      if (failed_ || pattern_ended() || pattern_[pattern_at_] != '-' || pattern_[pattern_at_ + 1] == ']') continue;
      ++pattern_at_;
      Set last;
      pattern_character(last);
      const bool single = set.ranges.size() == before + 1 && set.ranges.back().first == set.ranges.back().last &&
                          last.ranges.size() == 1 && last.ranges[0].first == last.ranges[0].last &&
                          last.ranges[0].first >= set.ranges.back().first;
      if (!single) {
        refuse_pattern(fmt::format("with the class before {}", pattern_at_));
        return set;
      }
      set.ranges.back().last = last.ranges[0].first;
    }
    if (pattern_ended() || set.ranges.empty()) {
      refuse_pattern("with an open or empty class");
      return set;
    }
    ++pattern_at_;
    return set;
  }
  // A character or an escape, added to `set`.
  void pattern_character(Set& set) {
    if (pattern_ended()) return refuse_pattern("that ends early");
    if (pattern_[pattern_at_] != '\\') {
      const std::size_t size = character_bytes(pattern_, pattern_at_);
      const std::uint32_t code = decode(pattern_.substr(pattern_at_, size));
      pattern_at_ += size;
      set.ranges.push_back({code, code});
      return;
    }
    const char e = pattern_[pattern_at_ + 1];
    pattern_at_ += 2;
    const auto single = [&](char character) {
      set.ranges.push_back({static_cast<std::uint32_t>(character), static_cast<std::uint32_t>(character)});
    };
    switch (e) {
      case 'd':
        return set.ranges.push_back({'0', '9'});
      case 'w':
        for (const CharacterRange range : {CharacterRange{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}})
          set.ranges.push_back(range);
        return;
      case 's':
        for (const CharacterRange range : {CharacterRange{'\t', '\r'}, {' ', ' '}, {0xA0, 0xA0}, {0xFEFF, 0xFEFF}})
          set.ranges.push_back(range);
        return;
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 't':
        return single('\t');
      default:
        if (std::string_view("\\/.*+?()[]{}|^$-\"'_,:;@#%&=~<>! ").find(e) == std::string_view::npos) {
          return refuse_pattern(fmt::format("with \\{}", e >= ' ' && e <= '~' ? e : '?'));
        }
        single(e);
    }
  }
  // As JSON writes them: quotation marks, backslashes and control characters by their escapes.
  ExpressionId json_characters(Set set) {
    if (failed_) return 0;
    const auto in_set = [&](std::uint32_t code) {
      const bool listed = std::any_of(set.ranges.begin(), set.ranges.end(),
                                      [&](const CharacterRange& r) { return r.first <= code && code <= r.last; });
      return listed != set.negated;
    };
    std::vector<std::string> escapes;
    for (std::uint32_t code = 0; code < 0x80; ++code) {
      if ((code < 0x20 || code == '"' || code == '\\') && in_set(code)) {
        const std::string quoted = dump(Json(std::string(1, static_cast<char>(code))));
        escapes.push_back(quoted.substr(1, quoted.size() - 2));
      }
    }
    // What needs no escape: the set without the three kinds, by complement of (complement + kinds) or cutting of the ranges.
    std::vector<CharacterRange> plain;
    if (set.negated) {
      plain = set.ranges;
      plain.insert(plain.end(), {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
    } else {
      for (const CharacterRange& range : set.ranges) {
        for (const CharacterRange allowed : {CharacterRange{' ', '!'}, {'#', '['}, {']', 0x10FFFF}}) {
          const std::uint32_t first = std::max(range.first, allowed.first), last = std::min(range.last, allowed.last);
          if (first <= last) plain.push_back({first, last});
        }
      }
    }
    std::vector<ExpressionId> options;
    if (set.negated || !plain.empty()) options.push_back(b_.characters(plain, set.negated));
    if (!escapes.empty()) options.push_back(b_.one_of(std::move(escapes)));
    return b_.alternatives(std::move(options));
  }

  // ---- numbers ----

  static bool bounds_number(const Json& schema) {
    return schema.contains("minimum") || schema.contains("maximum") || schema.contains("exclusiveMinimum") ||
           schema.contains("exclusiveMaximum");
  }

  ExpressionId number(const std::string& path, const Json& schema) {
    if (!bounds_number(schema)) return json_.number(true);
    const auto minimum = schema.find("minimum");
    const bool not_negative = minimum != schema.end() && minimum->is_number() && minimum->get<double>() == 0;
    for (const char* keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      if (schema.contains(keyword) && !(not_negative && keyword == std::string_view("minimum"))) {
        fail(path, fmt::format("{} of a number is not supported, but for minimum 0; integers may have any bounds", keyword));
        return 0;
      }
    }
    return json_.number(false);
  }

  ExpressionId integer(const std::string& path, const Json& schema) {
    constexpr std::int64_t kLargest = 999'999'999'999'999'999;
    std::optional<std::int64_t> low, high;
    for (const char* keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      const auto found = schema.find(keyword);
      if (found == schema.end()) continue;
      const double value = found->is_number() ? found->get<double>() : 1e300;
      if (!(value > -1e18 && value < 1e18) || value != static_cast<double>(static_cast<std::int64_t>(value))) {
        fail(path, fmt::format("{} {}; expected an integer of at most 18 digits", keyword, found->dump()));
        return 0;
      }
      const std::int64_t bound = found->is_number_integer() ? found->get<std::int64_t>() : static_cast<std::int64_t>(value);
      const bool exclusive = keyword[0] == 'e';
      if (std::string_view(keyword).ends_with("inimum")) {
        low = std::max(low.value_or(-kLargest), bound + (exclusive ? 1 : 0));
      } else {
        high = std::min(high.value_or(kLargest), bound - (exclusive ? 1 : 0));
      }
    }
    if (!low && !high) return json_.integer(true);
    if (low && high && *low > *high) {
      fail(path, fmt::format("no integer from {} to {}", *low, *high));
      return 0;
    }
    std::vector<ExpressionId> options;
    if (!high || *high >= 0) options.push_back(magnitudes(std::max<std::int64_t>(low.value_or(0), 0), high));
    if (!low || *low < 0) {
      const std::int64_t from = high ? std::max<std::int64_t>(1, -*high) : 1;
      options.push_back(b_.sequence({b_.literal("-"), magnitudes(from, low ? std::optional(-*low) : std::nullopt)}));
    }
    return b_.alternatives(std::move(options));
  }
  // Decimal numbers from `low` >= 0 to `high` (or without end): per number of digits, the digits between two texts.
  ExpressionId magnitudes(std::int64_t low, std::optional<std::int64_t> high) {
    std::vector<ExpressionId> options;
    std::string from = std::to_string(low);
    const std::string to = high ? std::to_string(*high) : "";
    while (high && from.size() < to.size()) {
      options.push_back(between(from, std::string(from.size(), '9')));
      from = "1" + std::string(from.size(), '0');
    }
    if (high) {
      options.push_back(between(from, to));
    } else {
      options.push_back(between(from, std::string(from.size(), '9')));
      options.push_back(b_.sequence({json_.set({{'1', '9'}}), json_.digits(static_cast<std::int64_t>(from.size()), -1)}));
    }
    return b_.alternatives(std::move(options));
  }
  ExpressionId between(const std::string& low, const std::string& high) {  // of one length
    if (low.empty()) return b_.nothing();
    const auto digit = [&](char first, char last) {
      return json_.set({{static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last)}});
    };
    const std::string low_rest = low.substr(1), high_rest = high.substr(1);
    if (low[0] == high[0]) return b_.sequence({digit(low[0], low[0]), between(low_rest, high_rest)});
    const std::string nines(low_rest.size(), '9'), zeros(low_rest.size(), '0');
    const auto any = [&] {
      return json_.digits(static_cast<std::int64_t>(low_rest.size()), static_cast<std::int64_t>(low_rest.size()));
    };
    std::vector<ExpressionId> options;
    char first = low[0], last = high[0];
    if (low_rest != zeros) {
      options.push_back(b_.sequence({digit(first, first), between(low_rest, nines)}));
      ++first;
    }
    if (high_rest != nines) {
      options.push_back(b_.sequence({digit(last, last), between(zeros, high_rest)}));
      --last;
    }
    if (first <= last) options.push_back(b_.sequence({digit(first, last), any()}));
    return b_.alternatives(std::move(options));
  }

  const Json& root_;
  std::string_view where_;
  GrammarBuilder b_;
  JsonRules json_{b_};
  std::vector<RuleId> open_;
  bool failed_ = false;
  Error error_;
  std::string pattern_, pattern_path_;
  std::size_t pattern_at_ = 0;
};

}  // namespace

RuleId json_value_rule(GrammarBuilder& builder) {
  JsonRules(builder).value();
  return builder.rule("json-value");
}

Result<Grammar> Grammar::from_json_schema(std::string_view schema_json, std::string_view where) {
  ROOFTREE_TRY(const Json schema, parse_json(schema_json, where, {.max_bytes = std::size_t{1} << 20, .max_depth = kMaxDepth}));
  ROOFTREE_TRY(auto rules, SchemaReader(schema, where).run());
  return Grammar(std::move(rules));
}

}  // namespace rooftree::text

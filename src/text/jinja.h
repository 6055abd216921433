#pragma once

// The inside of ChatTemplate: syntax tree and values of the Jinja subset (https://jinja.palletsprojects.com, 3.1), with the
// settings under which Hugging Face transformers renders chat templates: trim_blocks, lstrip_blocks, loop controls, its own
// tojson, raise_exception and strftime_now, the `generation` tag. Differences: upper, lower, title and capitalize refuse
// non-ASCII text instead of carrying Unicode's case tables; keys of mappings are strings or integers.

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace rooftree::text::jinja {

struct Value;
struct Expression;
struct Statement;
class Runtime;

struct List {
  std::vector<Value> items;
  bool tuple = false;  // printed as (1, 2)
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion; keys are strings or integers
};

struct LoopState {
  List* items = nullptr;
  std::size_t index = 0;
  List* last_changed = nullptr;
};

enum class Kind : std::uint8_t {
  kUndefined,  // `text` is the name that was not found
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kDict,
  kNamespace,
  kMacro,
  kFunction,  // `text` is its name
  kMethod,    // `text` is its name; only a direct call runs it
  kLoop,
};

// Owns nothing: containers and text live in the Runtime (or the Program), so that cycles and deep nests are freed without
// recursion.
struct Value {
  Kind kind = Kind::kUndefined;
  union {
    bool boolean;
    std::int64_t integer = 0;
    double real;
    List* list;
    Dict* dict;  // kDict and kNamespace
    const Statement* macro;
    LoopState* loop;
  };
  std::string_view text;

  static Value undefined(std::string_view name) { return Value(Kind::kUndefined, name); }
  static Value none() { return Value(Kind::kNone, {}); }
  static Value of_text(std::string_view text) { return Value(Kind::kString, text); }
  static Value function(std::string_view name) { return Value(Kind::kFunction, name); }
  static Value method(std::string_view name) { return Value(Kind::kMethod, name); }
  static Value of_bool(bool value) {
    Value result(Kind::kBool, {});
    result.boolean = value;
    return result;
  }
  static Value of_int(std::int64_t value) {
    Value result(Kind::kInt, {});
    result.integer = value;
    return result;
  }
  static Value of_float(double value) {
    Value result(Kind::kFloat, {});
    result.real = value;
    return result;
  }

  Value() {}  // NOLINT(modernize-use-equals-default): g++ 12 deletes a defaulted one for the anonymous union
  [[nodiscard]] bool is(Kind other) const { return kind == other; }
  [[nodiscard]] bool is_number() const { return kind == Kind::kBool || kind == Kind::kInt || kind == Kind::kFloat; }
  [[nodiscard]] bool is_integral() const { return kind == Kind::kBool || kind == Kind::kInt; }
  [[nodiscard]] std::int64_t as_int() const { return kind == Kind::kBool ? (boolean ? 1 : 0) : integer; }  // if is_integral
  [[nodiscard]] double as_double() const { return kind == Kind::kFloat ? real : static_cast<double>(as_int()); }

 private:
  Value(Kind k, std::string_view t) : kind(k), text(t) {}
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> keywords;

  [[nodiscard]] const Value* find(std::size_t position, std::string_view name) const;  // null: not given
};

using Filter = Value (*)(Runtime&, const Value&, const Arguments&);
using Test = bool (*)(Runtime&, const Value&, const Arguments&);
// Null: there is none of that name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);
bool has_method(const Value& receiver, std::string_view name);
Value call_method(Runtime& runtime, const Value& receiver, std::string_view name, const Arguments& arguments);

enum class ExpressionKind : std::uint8_t {
  kLiteral,
  kName,
  kList,
  kTuple,
  kDict,  // operands: key, value, key, value, ...
  kNot,
  kNegate,
  kPositive,
  kArithmetic,  // `text` is the operator
  kConcatenate,
  kCompare,  // operands: first, then one per operator in `names`
  kAnd,
  kOr,
  kConditional,  // operands: value, condition, otherwise (may be null)
  kFilter,
  kTest,
  kAttribute,
  kSubscript,
  kSlice,  // operands: object, start, stop, step; any but the first may be null
  kCall,
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  int line = 0;
  std::string text;
  Value value;
  std::vector<const Expression*> operands;
  std::vector<std::pair<std::string, const Expression*>> keywords;
  std::vector<std::string> names;
  Filter filter = nullptr;
  Test test = nullptr;
};

enum class StatementKind : std::uint8_t {
  kText,
  kPrint,
  kIf,   // one branch per condition; the last may have none
  kFor,  // names in expressions[0]; condition in expressions[1] (may be null)
  kSet,
  kSetBlock,
  kMacro,
  kFilterBlock,
  kWith,
  kDo,
  kBreak,
  kContinue,
  kGroup,  // generation
};

struct Branch {
  const Expression* condition = nullptr;
  std::vector<const Statement*> body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;                            // the text; the macro's name
  std::vector<std::string> names;              // targets of for, parameters of a macro
  std::vector<const Expression*> expressions;  // values; defaults of parameters (null: none); targets of set
  std::vector<Branch> branches;
  std::vector<const Statement*> body, otherwise;
};

struct Program {
  std::deque<Expression> expressions;
  std::deque<Statement> statements;
  std::vector<const Statement*> body;
  std::string where;
};

// Fills `program`. kParse with where and line: malformed; kInvalid: a construct outside of the subset, by name.
Status parse(std::string_view source, std::string_view where, Program& program);

struct Date {
  int year = 0, month = 0, day = 0;  // year 0: not known
};

// Evaluates a program once. Errors stick: the first is kept, and everything after returns quickly.
class Runtime {
 public:
  Runtime(const Program& program, std::int64_t budget) : program_(program), budget_(budget) {}
  Result<std::string> run(Dict* globals, const Date& date);

  // Values. Each pays for its size out of the budget. Text of keys must outlive the runtime.
  Value make_text(std::string text);
  Value make_list(std::vector<Value> items, bool tuple = false);
  Value make_dict();
  void set_item(Dict& dict, const Value& key, const Value& value);
  void set_item(Dict& dict, std::string_view key, const Value& value) { set_item(dict, Value::of_text(key), value); }
  [[nodiscard]] const Value* find_item(const Dict& dict, const Value& key);  // null: not there
  [[nodiscard]] const Value* find_item(const Dict& dict, std::string_view key) { return find_item(dict, Value::of_text(key)); }

  // Takes units of work (about a nanosecond each) from the budget; false when it is spent.
  bool charge(std::size_t units);
  void fail(std::string message);  // "where:line: message"
  [[nodiscard]] bool failed() const { return failed_; }

  // Python's str, repr and json.dumps, bool, ==, in, len; iteration as a list.
  void append_text(std::string& out, const Value& value);
  void append_json(std::string& out, const Value& value, const Arguments& options);
  [[nodiscard]] std::string to_text(const Value& value);
  [[nodiscard]] static bool truthy(const Value& value);
  [[nodiscard]] bool equal(const Value& a, const Value& b);
  [[nodiscard]] bool less(const Value& a, const Value& b);
  [[nodiscard]] bool contains(const Value& container, const Value& item);
  [[nodiscard]] std::int64_t length(const Value& value);
  [[nodiscard]] std::vector<Value> iterate(const Value& value);
  [[nodiscard]] Value attribute(const Value& object, std::string_view name);
  [[nodiscard]] Value attribute_path(const Value& object, std::string_view path);  // "function.name", for map and selectattr
  [[nodiscard]] Value subscript(const Value& object, const Value& key);
  [[nodiscard]] static std::string_view kind_name(const Value& value);

 private:
  class Nested;
  struct JsonStyle;
  enum class Flow : std::uint8_t { kNormal, kBreak, kContinue };

  Value evaluate(const Expression* expression);
  Value evaluate_arithmetic(const Expression& expression);
  Value evaluate_compare(const Expression& expression);
  Value evaluate_call(const Expression& expression);
  Value evaluate_slice(const Expression& expression);
  Value evaluate_container(const Expression& expression);
  Value format_percent(std::string_view format, const Value& value);
  Arguments evaluate_arguments(const Expression& expression, std::size_t first_operand);
  Value call_function(std::string_view name, const Arguments& arguments);
  Value call_macro(const Statement& macro, const Arguments& arguments);
  Value call_loop(const Value& loop, std::string_view name, const Arguments& arguments);
  Value loop_attribute(const LoopState& loop, std::string_view name);

  Flow execute(const std::vector<const Statement*>& body);
  Flow execute(const Statement& statement);
  Flow execute_for(const Statement& statement);
  void assign(const Expression& target, const Value& value);
  void unpack(const std::vector<std::string>& names, const Value& value);
  std::string capture(const std::vector<const Statement*>& body);

  [[nodiscard]] Value lookup(std::string_view name);
  void append_repr(std::string& out, const Value& value, int depth);
  void append_json(std::string& out, const Value& value, const JsonStyle& style, int depth);
  bool equal(const Value& a, const Value& b, int depth);

  const Program& program_;
  std::int64_t budget_;
  bool failed_ = false;
  std::string error_;
  int line_ = 1;
  int depth_ = 0;
  Date date_;
  std::string* output_ = nullptr;
  Value block_value_;            // what the filters of a filter or set block start from
  std::vector<Dict*> scopes_;    // innermost last; [0] are the variables of the template
  std::size_t frame_begin_ = 1;  // scopes of the running macro begin here
  std::deque<std::string> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<LoopState> loops_;
};

// Bytes of the UTF-8 character at `at` (1 for a stray byte), and the number of characters.
std::size_t character_size(std::string_view text, std::size_t at);
std::size_t character_count(std::string_view text);

}  // namespace rooftree::text::jinja

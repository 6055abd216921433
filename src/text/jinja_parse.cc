#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "text/jinja.h"

namespace rooftree::text::jinja {
namespace {

constexpr std::size_t kMaxSource = std::size_t{1} << 20;
constexpr int kMaxDepth = 100;

enum class TokenKind : std::uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kPrintBegin,
  kPrintEnd,
  kName,
  kString,
  kInt,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 0;
  std::string text;
  std::int64_t integer = 0;
  double real = 0;
};

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_name(char c) { return is_name_start(c) || is_digit(c); }

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

// Splits a template into data and the tokens inside of tags, applying whitespace control as Jinja's lexer does: '-' strips
// everything on its side; without a sign, a block or comment that is first on its line loses the blanks before it
// (lstrip_blocks) and the newline after it (trim_blocks); '+' keeps both.
class Lexer {
 public:
  Lexer(std::string_view source, std::string_view where) : where_(where) {
    source_.reserve(source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {  // newlines are \n
      if (source[i] == '\r') {
        source_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        source_ += source[i];
      }
    }
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();  // keep_trailing_newline is off
  }

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = find_tag(at_);
      std::string_view data = std::string_view(source_).substr(at_, tag - at_);
      if (tag == source_.size()) {
        add_data(data);
        break;
      }
      const char kind = source_[tag + 1];
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      add_data(strip_before(data, kind, sign));
      line_ += static_cast<int>(std::count(data.begin(), data.end(), '\n'));
      at_ = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (kind == '#') {
        const std::size_t end = source_.find("#}", at_);
        if (end == std::string::npos) return error("a comment is not closed; expected '#}'");
        const char end_sign = end > at_ ? source_[end - 1] : ' ';
        count_lines(at_, end + 2);
        at_ = end + 2;
        strip_after(end_sign, true);
      } else if (kind == '%' && is_raw()) {
        ROOFTREE_TRY_VOID(raw());
      } else {
        ROOFTREE_TRY_VOID(tag_tokens(kind == '%'));
      }
    }
    tokens_.push_back({TokenKind::kEnd, line_, "end of template"});
    return std::move(tokens_);
  }

 private:
  Error error(std::string message) const { return Error{ErrorCode::kParse, fmt::format("{}:{}: {}", where_, line_, message)}; }

  std::size_t find_tag(std::size_t from) const {
    for (std::size_t i = from; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    }
    return source_.size();
  }

  void count_lines(std::size_t begin, std::size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
  }

  void add_data(std::string_view data) {
    if (!data.empty()) tokens_.push_back({TokenKind::kData, line_, std::string(data)});
  }

  std::string_view strip_before(std::string_view data, char kind, char sign) const {
    if (sign == '-') {
      while (!data.empty() && is_space(data.back())) data.remove_suffix(1);
    } else if (sign != '+' && kind != '{') {
      const std::size_t newline = data.rfind('\n');
      const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) &&
          std::all_of(data.begin() + static_cast<std::ptrdiff_t>(line_begin), data.end(), is_space)) {
        data = data.substr(0, line_begin);
      }
    }
    return data;
  }

  // at_ is behind the end of a tag.
  void strip_after(char sign, bool trims_newline) {
    const std::size_t begin = at_;
    if (sign == '-') {
      while (at_ < source_.size() && is_space(source_[at_])) ++at_;
    } else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    count_lines(begin, at_);
    line_starting_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  std::size_t skip_space(std::size_t i) const {
    while (i < source_.size() && is_space(source_[i])) ++i;
    return i;
  }

  bool is_raw() const {
    std::size_t i = skip_space(at_);
    if (source_.compare(i, 3, "raw") != 0) return false;
    i = skip_space(i + 3);
    if (i < source_.size() && source_[i] == '-') ++i;
    return source_.compare(i, 2, "%}") == 0;
  }

  Status raw() {
    const std::size_t end = source_.find("%}", at_);
    const bool strips = source_[end - 1] == '-';
    count_lines(at_, end + 2);
    at_ = end + 2;
    strip_after(strips ? '-' : ' ', false);
    for (std::size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      std::size_t i = skip_space(tag + 2 + (sign == '-' || sign == '+' ? 1 : 0));
      if (source_.compare(i, 6, "endraw") != 0) continue;
      i = skip_space(i + 6);
      const char end_sign = i < source_.size() ? source_[i] : ' ';
      if (end_sign == '-' || end_sign == '+') ++i;
      if (source_.compare(i, 2, "%}") != 0) continue;
      const std::string_view data = std::string_view(source_).substr(at_, tag - at_);
      add_data(strip_before(data, '%', sign));
      count_lines(at_, i + 2);
      at_ = i + 2;
      strip_after(end_sign, true);
      return Ok{};
    }
    return error("'raw' is not closed; expected '{% endraw %}'");
  }

  Status tag_tokens(bool block) {
    tokens_.push_back({block ? TokenKind::kBlockBegin : TokenKind::kPrintBegin, line_, block ? "{%" : "{{"});
    const std::string_view closing = block ? "%}" : "}}";
    std::string open;  // brackets: inside of them an end tag is two operators
    for (;;) {
      while (at_ < source_.size() && is_space(source_[at_])) {
        if (source_[at_] == '\n') ++line_;
        ++at_;
      }
      if (at_ >= source_.size()) return error(fmt::format("a tag is not closed; expected '{}'", closing));
      if (open.empty()) {
        const char sign = source_[at_];
        const std::size_t skip = sign == '-' || sign == '+' ? 1 : 0;
        if (source_.compare(at_ + skip, 2, closing) == 0) {
          at_ += skip + 2;
          tokens_.push_back({block ? TokenKind::kBlockEnd : TokenKind::kPrintEnd, line_, std::string(closing)});
          strip_after(skip == 1 ? sign : ' ', block);
          return Ok{};
        }
      }
      ROOFTREE_TRY_VOID(token(open));
    }
  }

  Status token(std::string& open) {
    const char c = source_[at_];
    if (c == '\'' || c == '"') return string(c);
    if (is_digit(c)) return number();
    if (is_name_start(c)) {
      std::size_t end = at_;
      while (end < source_.size() && is_name(source_[end])) ++end;
      tokens_.push_back({TokenKind::kName, line_, source_.substr(at_, end - at_)});
      at_ = end;
      return Ok{};
    }
    for (const std::string_view two : {"**", "//", "==", "!=", "<=", ">="}) {
      if (source_.compare(at_, 2, two) == 0) {
        tokens_.push_back({TokenKind::kOperator, line_, std::string(two)});
        at_ += 2;
        return Ok{};
      }
    }
    if (std::string_view("+-*/%~<>=()[]{}.,:|").find(c) == std::string_view::npos) {
      return error(
          fmt::format("character '{}' inside of a tag",
                      c >= ' ' && c <= '~' ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c))));
    }
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) return error(fmt::format("'{}' closes nothing", c));
      if (open.back() != (c == ')' ? '(' : c == ']' ? '[' : '{')) return error(fmt::format("'{}' closes '{}'", c, open.back()));
      open.pop_back();
    }
    tokens_.push_back({TokenKind::kOperator, line_, std::string(1, c)});
    ++at_;
    return Ok{};
  }

  Status number() {
    std::string digits;
    bool real = false;
    std::size_t i = at_;
    const auto take_digits = [&] {
      while (i < source_.size() &&
             (is_digit(source_[i]) || (source_[i] == '_' && i + 1 < source_.size() && is_digit(source_[i + 1])))) {
        if (source_[i] != '_') digits += source_[i];
        ++i;
      }
    };
    take_digits();
    if (i + 1 < source_.size() && source_[i] == '.' && is_digit(source_[i + 1])) {
      real = true;
      digits += source_[i++];
      take_digits();
    }
    if (i + 1 < source_.size() && (source_[i] == 'e' || source_[i] == 'E')) {
      const bool sign = source_[i + 1] == '-' || source_[i + 1] == '+';
      if (i + 1 + (sign ? 1 : 0) < source_.size() && is_digit(source_[i + 1 + (sign ? 1 : 0)])) {
        real = true;
        digits += 'e';
        if (sign) digits += source_[i + 1];
        i += sign ? 2 : 1;
        take_digits();
      }
    }
    Token token{real ? TokenKind::kFloat : TokenKind::kInt, line_, digits};
    const char* const end = digits.data() + digits.size();
    const auto parsed =
        real ? std::from_chars(digits.data(), end, token.real) : std::from_chars(digits.data(), end, token.integer);
    if (parsed.ec != std::errc() || parsed.ptr != end) return error(fmt::format("number {} is out of range", digits));
    tokens_.push_back(std::move(token));
    at_ = i;
    return Ok{};
  }

  // Python's escapes, as Jinja decodes them; an unknown one keeps its backslash.
  Status string(char quote) {
    std::string out;
    const int line = line_;
    std::size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      const char c = source_[i++];
      if (c == '\n') ++line_;
      if (c != '\\' || i >= source_.size()) {
        out += c;
        continue;
      }
      const char e = source_[i++];
      constexpr std::string_view kNames = "abfnrtv\\'\"", kBytes = "\a\b\f\n\r\t\v\\'\"";
      if (const std::size_t known = kNames.find(e); known != std::string_view::npos) {
        out += kBytes[known];
      } else if (e == '\n') {
        ++line_;
      } else if (e >= '0' && e <= '7') {
        std::uint32_t code = static_cast<std::uint32_t>(e - '0');
        for (int n = 0; n < 2 && i < source_.size() && source_[i] >= '0' && source_[i] <= '7'; ++n) {
          code = code * 8 + static_cast<std::uint32_t>(source_[i++] - '0');
        }
        append_utf8(out, code);
      } else if (e == 'x' || e == 'u' || e == 'U') {
        const std::size_t digits = e == 'x' ? 2 : e == 'u' ? 4 : 8;
        std::uint32_t code = 0;
        const char* const begin = source_.data() + i;
        const char* const end = source_.data() + std::min(source_.size(), i + digits);
        const auto parsed = std::from_chars(begin, end, code, 16);
        if (parsed.ptr != begin + digits || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
          return error(fmt::format("escape \\{} in a string; expected {} hexadecimal digits of a character", e, digits));
        }
        append_utf8(out, code);
        i += digits;
      } else {
        out += '\\';
        out += e;
      }
    }
    if (i >= source_.size()) {
      line_ = line;
      return error(fmt::format("a string is not closed; expected {}", quote));
    }
    at_ = i + 1;
    tokens_.push_back({TokenKind::kString, line, std::move(out)});
    return Ok{};
  }

  std::string source_;
  std::string_view where_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

// Recursive descent over the tokens, one function per level of precedence, lowest first, as in Jinja's own grammar. The first
// error sticks, and the functions then return quickly with null.
class Parser {
 public:
  Parser(std::vector<Token> tokens, Program& program) : tokens_(std::move(tokens)), program_(program) {}

  Status run() {
    program_.body = body({});
    if (!failed_ && token().kind != TokenKind::kEnd) fail("unexpected " + describe());
    if (failed_) return error_;
    return Ok{};
  }

 private:
  struct Nest {
    explicit Nest(Parser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth) parser.fail(fmt::format("nested deeper than {}", kMaxDepth));
    }
    ~Nest() { --parser.depth_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;
    Parser& parser;
  };

  const Token& token(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  std::string describe() const {
    switch (token().kind) {
      case TokenKind::kEnd:
        return "end of template";
      case TokenKind::kData:
        return "text";
      case TokenKind::kString:
        return "string '" + token().text + "'";
      default:
        return "'" + token().text + "'";
    }
  }
  void fail_as(ErrorCode code, const std::string& message, int line = 0) {
    if (failed_) return;
    failed_ = true;
    error_ = Error{code, fmt::format("{}:{}: {}", program_.where, line > 0 ? line : token().line, message)};
  }
  void fail(const std::string& message) { fail_as(ErrorCode::kParse, message); }
  void refuse(const std::string& what) {
    fail_as(ErrorCode::kInvalid, what + " is not in the subset of Jinja that chat templates may use");
  }

  bool is_operator(std::string_view text) const { return token().kind == TokenKind::kOperator && token().text == text; }
  bool is_word(std::string_view text) const { return token().kind == TokenKind::kName && token().text == text; }
  bool take_operator(std::string_view text) {
    if (failed_ || !is_operator(text)) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view text) {
    if (failed_ || !is_word(text)) return false;
    ++at_;
    return true;
  }
  void expect_operator(std::string_view text) {
    if (!take_operator(text)) fail(fmt::format("{}; expected '{}'", describe(), text));
  }
  void expect_word(std::string_view text) {
    if (!take_word(text)) fail(fmt::format("{}; expected '{}'", describe(), text));
  }
  void expect(TokenKind kind, std::string_view what) {
    if (token().kind != kind) {
      fail(fmt::format("{}; expected {}", describe(), what));
    } else if (!failed_) {
      ++at_;
    }
  }
  std::string expect_name() {
    if (token().kind != TokenKind::kName) {
      fail(describe() + "; expected a name");
      return {};
    }
    return tokens_[at_++].text;
  }

  Expression& make(ExpressionKind kind, std::vector<const Expression*> operands = {}, std::string text = {}) {
    Expression& node = program_.expressions.emplace_back();
    node.kind = kind;
    node.line = token().line;
    node.operands = std::move(operands);
    node.text = std::move(text);
    return node;
  }

  // --- expressions ---
  const Expression* expression(bool with_condition = true) {
    const Nest nest(*this);
    if (failed_) return nullptr;
    const Expression* value = disjunction();
    while (with_condition && take_word("if")) {
      const Expression* condition = disjunction();
      const Expression* otherwise = take_word("else") ? expression() : nullptr;
      value = &make(ExpressionKind::kConditional, {value, condition, otherwise});
    }
    return value;
  }
  // A tuple without parentheses where there are commas.
  const Expression* expression_or_tuple(bool with_condition = true) {
    const Expression* first = expression(with_condition);
    if (!is_operator(",")) return first;
    std::vector<const Expression*> items = {first};
    while (take_operator(",")) {
      if (!starts_expression()) break;
      items.push_back(expression(with_condition));
    }
    return &make(ExpressionKind::kTuple, std::move(items));
  }
  bool starts_expression() const {
    const Token& t = token();
    if (t.kind == TokenKind::kName) return t.text != "in" && t.text != "else" && t.text != "if";
    return t.kind == TokenKind::kString || t.kind == TokenKind::kInt || t.kind == TokenKind::kFloat || is_operator("(") ||
           is_operator("[") || is_operator("{") || is_operator("-") || is_operator("+");
  }
  const Expression* disjunction() {
    const Expression* left = conjunction();
    while (take_word("or")) left = &make(ExpressionKind::kOr, {left, conjunction()});
    return left;
  }
  const Expression* conjunction() {
    const Expression* left = negation();
    while (take_word("and")) left = &make(ExpressionKind::kAnd, {left, negation()});
    return left;
  }
  const Expression* negation() {
    const Nest nest(*this);
    if (failed_) return nullptr;
    if (is_word("not") && !(token(1).kind == TokenKind::kName && token(1).text == "in")) {
      ++at_;
      return &make(ExpressionKind::kNot, {negation()});
    }
    return comparison();
  }
  const Expression* comparison() {
    const Expression* left = sum();
    std::vector<const Expression*> operands = {left};
    std::vector<std::string> operators;
    while (!failed_) {
      std::string op;
      if (token().kind == TokenKind::kOperator && (token().text == "==" || token().text == "!=" || token().text == "<" ||
                                                   token().text == ">" || token().text == "<=" || token().text == ">=")) {
        op = token().text;
        ++at_;
      } else if (take_word("in")) {
        op = "in";
      } else if (is_word("not") && token(1).kind == TokenKind::kName && token(1).text == "in") {
        at_ += 2;
        op = "not in";
      } else {
        break;
      }
      operators.push_back(op);
      operands.push_back(sum());
    }
    if (operators.empty()) return left;
    Expression& node = make(ExpressionKind::kCompare, std::move(operands));
    node.names = std::move(operators);
    return &node;
  }
  const Expression* sum() {
    const Expression* left = concatenation();
    while (!failed_ && (is_operator("+") || is_operator("-"))) {
      const std::string op = tokens_[at_++].text;
      left = &make(ExpressionKind::kArithmetic, {left, concatenation()}, op);
    }
    return left;
  }
  const Expression* concatenation() {
    const Expression* first = product();
    if (!is_operator("~")) return first;
    std::vector<const Expression*> parts = {first};
    while (take_operator("~")) parts.push_back(product());
    return &make(ExpressionKind::kConcatenate, std::move(parts));
  }
  const Expression* product() {
    const Expression* left = power();
    while (!failed_ && (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%"))) {
      const std::string op = tokens_[at_++].text;
      left = &make(ExpressionKind::kArithmetic, {left, power()}, op);
    }
    return left;
  }
  const Expression* power() {
    const Expression* left = unary(true);
    while (take_operator("**")) left = &make(ExpressionKind::kArithmetic, {left, unary(true)}, "**");
    return left;
  }
  const Expression* unary(bool with_filters) {
    const Nest nest(*this);
    if (failed_) return nullptr;
    const Expression* node = nullptr;
    if (take_operator("-")) {
      node = &make(ExpressionKind::kNegate, {unary(false)});
    } else if (take_operator("+")) {
      node = &make(ExpressionKind::kPositive, {unary(false)});
    } else {
      node = postfix(primary());
    }
    return with_filters ? filters(node) : node;
  }
  const Expression* primary() {
    if (failed_) return nullptr;
    const Token t = token();
    switch (t.kind) {
      case TokenKind::kName: {
        ++at_;
        Expression& node = make(ExpressionKind::kLiteral);
        if (t.text == "true" || t.text == "True" || t.text == "false" || t.text == "False") {
          node.value = Value::of_bool(t.text == "true" || t.text == "True");
        } else if (t.text == "none" || t.text == "None") {
          node.value = Value::none();
        } else {
          if (in_macro_ > 0 && (t.text == "varargs" || t.text == "kwargs" || t.text == "caller"))
            refuse("'" + t.text + "' in a macro");
          node.kind = ExpressionKind::kName;
          node.text = t.text;
        }
        return &node;
      }
      case TokenKind::kString: {
        Expression& node = make(ExpressionKind::kLiteral);
        while (token().kind == TokenKind::kString) node.text += tokens_[at_++].text;
        node.value = Value::of_text(node.text);
        return &node;
      }
      case TokenKind::kInt:
      case TokenKind::kFloat: {
        ++at_;
        Expression& node = make(ExpressionKind::kLiteral);
        node.value = t.kind == TokenKind::kInt ? Value::of_int(t.integer) : Value::of_float(t.real);
        return &node;
      }
      default:
        break;
    }
    if (take_operator("(")) {
      if (take_operator(")")) return &make(ExpressionKind::kTuple);
      const Expression* inner = expression_or_tuple();
      expect_operator(")");
      return inner;
    }
    if (take_operator("[")) return &make(ExpressionKind::kList, items("]"));
    if (take_operator("{")) {
      std::vector<const Expression*> pairs;
      while (!failed_ && !is_operator("}")) {
        pairs.push_back(expression());
        expect_operator(":");
        pairs.push_back(expression());
        if (!take_operator(",")) break;
      }
      expect_operator("}");
      return &make(ExpressionKind::kDict, std::move(pairs));
    }
    fail(describe() + "; expected a value");
    return nullptr;
  }
  std::vector<const Expression*> items(std::string_view closing) {
    std::vector<const Expression*> result;
    while (!failed_ && !is_operator(closing)) {
      result.push_back(expression());
      if (!take_operator(",")) break;
    }
    expect_operator(closing);
    return result;
  }
  void arguments(Expression& call) {
    while (!failed_ && !is_operator(")")) {
      if (is_operator("*") || is_operator("**")) {
        refuse("'" + token().text + "' before an argument");
        return;
      }
      if (token().kind == TokenKind::kName && token(1).kind == TokenKind::kOperator && token(1).text == "=") {
        std::string name = token().text;
        at_ += 2;
        call.keywords.emplace_back(std::move(name), expression());
      } else {
        if (!call.keywords.empty()) fail("a positional argument after one with a name");
        call.operands.push_back(expression());
      }
      if (!take_operator(",")) break;
    }
    expect_operator(")");
  }
  const Expression* postfix(const Expression* node) {
    while (!failed_) {
      if (take_operator(".")) {
        if (token().kind == TokenKind::kInt) {
          Expression& index = make(ExpressionKind::kLiteral);
          index.value = Value::of_int(tokens_[at_++].integer);
          node = &make(ExpressionKind::kSubscript, {node, &index});
        } else {
          node = &make(ExpressionKind::kAttribute, {node}, expect_name());
        }
      } else if (take_operator("[")) {
        const Expression* start = is_operator(":") ? nullptr : expression_or_tuple();
        if (take_operator(":")) {
          const Expression* stop = is_operator(":") || is_operator("]") ? nullptr : expression();
          const Expression* step = take_operator(":") && !is_operator("]") ? expression() : nullptr;
          node = &make(ExpressionKind::kSlice, {node, start, stop, step});
        } else {
          node = &make(ExpressionKind::kSubscript, {node, start});
        }
        expect_operator("]");
      } else if (take_operator("(")) {
        Expression& call = make(ExpressionKind::kCall, {node});
        arguments(call);
        node = &call;
      } else {
        break;
      }
    }
    return node;
  }
  const Expression* filters(const Expression* node) {
    while (!failed_) {
      if (take_operator("|")) {
        node = filter(node);
      } else if (take_word("is")) {
        node = test(node);
      } else if (is_operator("(")) {
        node = postfix(node);
      } else {
        break;
      }
    }
    return node;
  }
  const Expression* filter(const Expression* node) {
    const int line = token().line;
    const std::string name = expect_name();
    Expression& result = make(ExpressionKind::kFilter, {node}, name);
    result.filter = find_filter(name);
    if (result.filter == nullptr && !failed_) {
      fail_as(ErrorCode::kInvalid, fmt::format("filter '{}' is not in the subset of Jinja that chat templates may use", name),
              line);
    }
    if (take_operator("(")) arguments(result);
    return &result;
  }
  const Expression* test(const Expression* node) {
    const bool negated = take_word("not");
    const int line = token().line;
    const std::string name = expect_name();
    Expression& result = make(ExpressionKind::kTest, {node}, name);
    result.test = find_test(name);
    if (result.test == nullptr && !failed_) {
      fail_as(ErrorCode::kInvalid, fmt::format("test '{}' is not in the subset of Jinja that chat templates may use", name),
              line);
    }
    if (take_operator("(")) {
      arguments(result);
    } else if (starts_expression() && !is_operator("-") && !is_operator("+") && !is_word("and") && !is_word("or") &&
               !is_word("is") && !is_word("not")) {
      result.operands.push_back(postfix(primary()));
    }
    if (!negated) return &result;
    return &make(ExpressionKind::kNot, {&result});
  }

  // --- statements ---
  Statement& make_statement(StatementKind kind, int line) {
    Statement& node = program_.statements.emplace_back();
    node.kind = kind;
    node.line = line;
    return node;
  }

  // Statements up to a block tag whose first word is one of `ends`, which is left to the caller (behind its "{%").
  std::vector<const Statement*> body(std::initializer_list<std::string_view> ends) {
    const Nest nest(*this);
    std::vector<const Statement*> result;
    while (!failed_) {
      const Token& t = token();
      if (t.kind == TokenKind::kData) {
        Statement& node = make_statement(StatementKind::kText, t.line);
        node.text = t.text;
        ++at_;
        result.push_back(&node);
      } else if (t.kind == TokenKind::kPrintBegin) {
        Statement& node = make_statement(StatementKind::kPrint, t.line);
        ++at_;
        node.expressions.push_back(expression_or_tuple());
        expect(TokenKind::kPrintEnd, "'}}'");
        result.push_back(&node);
      } else if (t.kind == TokenKind::kBlockBegin) {
        const Token& word = token(1);
        if (word.kind == TokenKind::kName && std::find(ends.begin(), ends.end(), word.text) != ends.end()) {
          ++at_;
          return result;
        }
        ++at_;
        if (const Statement* node = statement()) result.push_back(node);
      } else {
        break;
      }
    }
    if (ends.size() > 0) fail(fmt::format("{}; expected '{}'", describe(), *(ends.end() - 1)));
    return result;
  }
  void end_block() { expect(TokenKind::kBlockEnd, "'%}'"); }
  void close(std::string_view word) {
    expect_word(word);
    end_block();
  }

  const Statement* statement() {
    const int line = token().line;
    const std::string word = expect_name();
    if (failed_) return nullptr;
    if (word == "if") return if_statement(line);
    if (word == "for") return for_statement(line);
    if (word == "set") return set_statement(line);
    if (word == "macro") return macro_statement(line);
    if (word == "filter") {
      Statement& node = make_statement(StatementKind::kFilterBlock, line);
      node.expressions.push_back(filter_chain());
      end_block();
      node.body = body({"endfilter"});
      close("endfilter");
      return &node;
    }
    if (word == "generation") {
      Statement& node = make_statement(StatementKind::kGroup, line);
      end_block();
      node.body = body({"endgeneration"});
      close("endgeneration");
      return &node;
    }
    if (word == "with") {
      Statement& node = make_statement(StatementKind::kWith, line);
      while (!failed_ && token().kind != TokenKind::kBlockEnd) {
        node.names.push_back(expect_name());
        expect_operator("=");
        node.expressions.push_back(expression());
        if (!take_operator(",")) break;
      }
      end_block();
      node.body = body({"endwith"});
      close("endwith");
      return &node;
    }
    if (word == "do") {
      Statement& node = make_statement(StatementKind::kDo, line);
      node.expressions.push_back(expression());
      end_block();
      return &node;
    }
    if (word == "break" || word == "continue") {
      Statement& node = make_statement(word == "break" ? StatementKind::kBreak : StatementKind::kContinue, line);
      if (loop_depth_ == 0) fail_as(ErrorCode::kParse, "'" + word + "' outside of a loop", line);
      end_block();
      return &node;
    }
    fail_as(ErrorCode::kInvalid, fmt::format("tag '{}' is not in the subset of Jinja that chat templates may use", word), line);
    return nullptr;
  }
  // "name | name(…)" without a value before it: the value is the block (a null operand).
  const Expression* filter_chain() {
    const Expression* node = filter(nullptr);
    while (take_operator("|")) node = filter(node);
    return node;
  }
  const Statement* if_statement(int line) {
    Statement& node = make_statement(StatementKind::kIf, line);
    const Expression* condition = expression_or_tuple();
    for (bool last = false; !failed_;) {
      end_block();
      Branch branch;
      branch.condition = condition;
      branch.body = last ? body({"endif"}) : body({"elif", "else", "endif"});
      node.branches.push_back(std::move(branch));
      if (take_word("endif")) break;
      if (!last && take_word("elif")) {
        condition = expression_or_tuple();
      } else {
        expect_word("else");
        condition = nullptr;
        last = true;
      }
    }
    end_block();
    return &node;
  }
  const Statement* for_statement(int line) {
    Statement& node = make_statement(StatementKind::kFor, line);
    const bool parentheses = take_operator("(");
    do {
      node.names.push_back(expect_name());
    } while (take_operator(","));
    if (parentheses) expect_operator(")");
    expect_word("in");
    node.expressions.push_back(expression_or_tuple(false));
    node.expressions.push_back(take_word("if") ? expression() : nullptr);
    if (is_word("recursive")) refuse("'recursive'");
    end_block();
    ++loop_depth_;
    node.body = body({"else", "endfor"});
    --loop_depth_;
    if (take_word("else")) {
      end_block();
      node.otherwise = body({"endfor"});
    }
    close("endfor");
    return &node;
  }
  const Statement* set_statement(int line) {
    Statement& node = make_statement(StatementKind::kSet, line);
    std::vector<const Expression*> targets;
    do {
      std::string name = expect_name();
      const Expression* target = &make(ExpressionKind::kName, {}, std::move(name));
      if (take_operator(".")) target = &make(ExpressionKind::kAttribute, {target}, expect_name());
      targets.push_back(target);
    } while (take_operator(","));
    const Expression* target = targets.size() == 1 ? targets[0] : &make(ExpressionKind::kTuple, targets);
    node.expressions.push_back(target);
    if (take_operator("=")) {
      node.expressions.push_back(expression_or_tuple());
      end_block();
      return &node;
    }
    node.kind = StatementKind::kSetBlock;
    node.expressions.push_back(take_operator("|") ? filter_chain() : nullptr);
    end_block();
    node.body = body({"endset"});
    close("endset");
    return &node;
  }
  const Statement* macro_statement(int line) {
    Statement& node = make_statement(StatementKind::kMacro, line);
    node.text = expect_name();
    expect_operator("(");
    while (!failed_ && !is_operator(")")) {
      node.names.push_back(expect_name());
      const bool has_default = take_operator("=");
      if (!has_default && !node.expressions.empty() && node.expressions.back() != nullptr)
        fail("a parameter without a default after one that has it");
      node.expressions.push_back(has_default ? expression() : nullptr);
      if (!take_operator(",")) break;
    }
    expect_operator(")");
    end_block();
    const int loop_depth = std::exchange(loop_depth_, 0);
    ++in_macro_;
    node.body = body({"endmacro"});
    --in_macro_;
    loop_depth_ = loop_depth;
    expect_word("endmacro");
    if (token().kind == TokenKind::kName) ++at_;  // its name may be repeated
    end_block();
    return &node;
  }

  std::vector<Token> tokens_;
  Program& program_;
  std::size_t at_ = 0;
  int depth_ = 0, loop_depth_ = 0, in_macro_ = 0;
  bool failed_ = false;
  Error error_;
};

}  // namespace

Status parse(std::string_view source, std::string_view where, Program& program) {
  program.where = std::string(where);
  if (source.size() > kMaxSource) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: {} bytes; a chat template has at most {}", where, source.size(), kMaxSource)};
  }
  ROOFTREE_TRY(std::vector<Token> tokens, Lexer(source, where).run());
  return Parser(std::move(tokens), program).run();
}

}  // namespace rooftree::text::jinja

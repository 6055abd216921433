#include "text/grammar.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/json.h"
#include "text/grammar_rules.h"

namespace rooftree::text {
namespace {

// A vocabulary of given pieces; the last token ends generation, the one before is a control token without text.
class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
    pieces_.emplace_back();
    pieces_.emplace_back();
    special_.end_of_generation = {static_cast<TokenId>(pieces_.size()) - 1};
  }
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override {  // longest piece first
    std::vector<TokenId> tokens;
    while (!text.empty()) {
      TokenId best = -1;
      for (TokenId i = 0; i < vocabulary(); ++i) {
        const std::string& piece = pieces_[static_cast<std::size_t>(i)];
        if (!piece.empty() && text.starts_with(piece) &&
            (best < 0 || piece.size() > pieces_[static_cast<std::size_t>(best)].size()))
          best = i;
      }
      if (best < 0) break;
      tokens.push_back(best);
      text.remove_prefix(pieces_[static_cast<std::size_t>(best)].size());
    }
    return tokens;
  }
  std::string piece(TokenId token, bool special) const override {
    const std::string& text = pieces_[static_cast<std::size_t>(token)];
    return text.empty() && special ? "<control>" : text;
  }
  std::string decode(std::span<const TokenId> tokens, bool special) const override {
    std::string text;
    for (const TokenId token : tokens) text += piece(token, special);
    return text;
  }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(pieces_.size()); }
  const SpecialTokens& special() const override { return special_; }
  std::string_view kind() const override { return "pieces"; }
  std::string_view chat_template() const override { return ""; }
  std::uint64_t hash() const override { return 0; }

 private:
  std::vector<std::string> pieces_;
  SpecialTokens special_;
};

std::vector<std::string> all_bytes() {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  return pieces;
}

std::shared_ptr<const Tokenizer> byte_tokenizer() {
  static const auto tokenizer = std::make_shared<const PieceTokenizer>(all_bytes());
  return tokenizer;
}

// Bytes, and pieces as vocabularies have them: across the borders of strings, numbers and objects, cut inside of characters.
std::shared_ptr<const Tokenizer> json_tokenizer() {
  static const auto tokenizer = [] {
    std::vector<std::string> pieces = all_bytes();
    for (const char* piece :
         {"{\"",  "\":",  "\": \"",   "\",\"", "\", \"", "\"}",  "\"]", "},{\"",         "}}",  "]]",    "[[", "true", "false",
          "null", "12",   "0.",       "e1",    "-1",     "name", "age", " \"",           "\\n", "\\u00", "ab", "abc",  " the",
          "é",    "\xc3", "\xe2\x82", "\xac",  "😀",      "\n  ", "],",  "\"a\":1,\"b\":"}) {
      pieces.emplace_back(piece);
    }
    return std::make_shared<const PieceTokenizer>(std::move(pieces));
  }();
  return tokenizer;
}

Grammar gbnf(std::string_view text) {
  auto grammar = Grammar::parse_gbnf(text, "g");
  EXPECT_TRUE(grammar) << (grammar ? "" : grammar.error().message);
  return std::move(*grammar);
}
Grammar schema(std::string_view text) {
  auto grammar = Grammar::from_json_schema(text, "s");
  EXPECT_TRUE(grammar) << (grammar ? "" : grammar.error().message) << text;
  return std::move(*grammar);
}

enum class Outcome { kRefused, kPrefix, kComplete };
// Byte by byte.
Outcome read(const Grammar& grammar, std::string_view text) {
  GrammarState state(grammar, byte_tokenizer());
  for (const char c : text) {
    if (!state.advance(static_cast<unsigned char>(c))) return Outcome::kRefused;
  }
  return state.may_end() ? Outcome::kComplete : Outcome::kPrefix;
}
void expect_language(const Grammar& grammar, const std::vector<std::string>& in, const std::vector<std::string>& out) {
  for (const std::string& text : in) EXPECT_EQ(read(grammar, text), Outcome::kComplete) << text;
  for (const std::string& text : out) EXPECT_NE(read(grammar, text), Outcome::kComplete) << text;
}

std::vector<bool> mask_of(const GrammarState& state, std::int64_t vocabulary) {
  std::vector<float> logits(static_cast<std::size_t>(vocabulary), 1.0F);
  state.mask(logits);
  std::vector<bool> allowed;
  for (const float logit : logits) {
    EXPECT_TRUE(logit == 1.0F || logit == -std::numeric_limits<float>::infinity());
    allowed.push_back(logit == 1.0F);
  }
  return allowed;
}

// Random walk of allowed tokens; each mask is compared with `accepts` of every token. Returns the text, complete or not.
std::string walk_and_check(const Grammar& grammar, const std::shared_ptr<const Tokenizer>& tokenizer, std::mt19937_64& random,
                           int most_tokens, bool* complete = nullptr) {
  GrammarState state(grammar, tokenizer);
  const auto end = static_cast<TokenId>(tokenizer->vocabulary() - 1);
  std::string text;
  for (int i = 0; i < most_tokens; ++i) {
    const std::vector<bool> allowed = mask_of(state, tokenizer->vocabulary());
    std::vector<TokenId> options;
    for (TokenId token = 0; token < tokenizer->vocabulary(); ++token) {
      const bool accepted = state.accepts(token);
      EXPECT_EQ(allowed[static_cast<std::size_t>(token)], accepted)
          << "after '" << text << "' token '" << tokenizer->piece(token, true) << "'";
      if (accepted) options.push_back(token);
    }
    EXPECT_EQ(allowed[static_cast<std::size_t>(end)], state.may_end());
    if (testing::Test::HasFailure() || options.empty()) break;
    const TokenId token = options[random() % options.size()];
    EXPECT_TRUE(state.advance(token));
    if (token == end) {
      if (complete != nullptr) *complete = true;
      EXPECT_EQ(mask_of(state, tokenizer->vocabulary()), [&] {
        std::vector<bool> only_end(static_cast<std::size_t>(tokenizer->vocabulary()), false);
        only_end[static_cast<std::size_t>(end)] = true;
        return only_end;
      }());
      break;
    }
    text += tokenizer->piece(token, false);
  }
  return text;
}

// ---- GBNF ----

TEST(Gbnf, LiteralsSequencesAlternatives) {
  expect_language(gbnf("root ::= \"ab\" (\"c\" | \"d\" \"e\") # comment\n"), {"abc", "abde"}, {"", "ab", "abd", "abce", "x"});
  expect_language(gbnf("root ::= a | b\na ::= \"x\"\n  \"y\"\nb ::= \"\""), {"xy", ""}, {"x", "xyx"});
  EXPECT_EQ(read(gbnf("root ::= \"ab\""), "a"), Outcome::kPrefix);
  EXPECT_EQ(read(gbnf("root ::= \"ab\""), "b"), Outcome::kRefused);
}

TEST(Gbnf, Repetition) {
  expect_language(gbnf("root ::= \"a\"* \"b\"+ \"c\"?"), {"b", "aab", "bbc", "abbc"}, {"", "a", "ac", "bcc"});
  expect_language(gbnf("root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} (\"d\"{0}) \"e\"{ 1 , 2 }"), {"aabe", "aabbcee", "aabcce"},
                  {"abe", "aae", "aabccce", "aabeee", "aabde"});
  expect_language(gbnf("root ::= (\"a\"*)* \"b\""), {"b", "aab"}, {"a"});
  expect_language(gbnf("root ::= (\"a\"? \"b\"?){2,3}"), {"", "ab", "ababab", "bab"}, {"abababa", "bbbb"});
}

TEST(Gbnf, CharacterClasses) {
  expect_language(gbnf("root ::= [a-cx] [^a-c] [-z] [a-]"), {"adz-", "xx-a"}, {"dd-a", "aaza", "adxa"});
  expect_language(gbnf("root ::= [\\n\\t\\]\\\\\\x41\\u00e9]"), {"\n", "\t", "]", "\\", "A", "é"}, {"n", "B", "e"});
  expect_language(gbnf("root ::= [à-ü€😀]+"), {"é€😀", "à", "ü"}, {"a", "Ã", "ý", "\xc3"});
  expect_language(gbnf("root ::= . ."), {"ab", "é€", "😀\n"},
                  {"a", "\xff\xff", "\xed\xa0\x80x", "\xc0\x80x", "\xf4\x90\x80\x80x", "abc"});
  expect_language(gbnf("root ::= [^\\x00-\\x7F]"), {"é", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"},
                  {"a", "\xed\xa0\x80", "\xf5\x80\x80\x80"});
}

// Every code point, against its UTF-8 form, at the borders of ranges of all lengths.
TEST(Gbnf, RangesOverAllLengthsOfUtf8) {
  const auto utf8 = [](std::uint32_t c) {
    std::string s;
    if (c < 0x80) {
      s += static_cast<char>(c);
    } else if (c < 0x800) {
      s += static_cast<char>(0xC0 | c >> 6);
      s += static_cast<char>(0x80 | (c & 63));
    } else if (c < 0x10000) {
      s += static_cast<char>(0xE0 | c >> 12);
      s += static_cast<char>(0x80 | (c >> 6 & 63));
      s += static_cast<char>(0x80 | (c & 63));
    } else {
      s += static_cast<char>(0xF0 | c >> 18);
      s += static_cast<char>(0x80 | (c >> 12 & 63));
      s += static_cast<char>(0x80 | (c >> 6 & 63));
      s += static_cast<char>(0x80 | (c & 63));
    }
    return s;
  };
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    const std::uint32_t tops[] = {0x80, 0x900, 0x11000, 0x110000};
    std::uint32_t first = static_cast<std::uint32_t>(random()) % tops[random() % 4],
                  last = static_cast<std::uint32_t>(random()) % tops[random() % 4];
    if (first > last) std::swap(first, last);
    const auto valid = [](std::uint32_t c) { return c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF); };
    if (!valid(first) || !valid(last)) continue;
    const Grammar grammar = gbnf(fmt::format("root ::= [\\U{:08x}-\\U{:08x}]", first, last));
    for (const std::uint32_t c : {first, last, first + 1, last - 1, first - 1, last + 1, 0x7FU, 0x80U, 0x7FFU, 0x800U, 0xD7FFU,
                                  0xE000U, 0xFFFFU, 0x10000U, static_cast<std::uint32_t>(random() % 0x110000)}) {
      if (!valid(c)) continue;
      EXPECT_EQ(read(grammar, utf8(c)) == Outcome::kComplete, first <= c && c <= last)
          << std::hex << first << " " << last << " " << c;
    }
  }
}

TEST(Gbnf, Recursion) {
  const Grammar nested = gbnf("root ::= \"(\" root \")\" | \"x\"");
  expect_language(nested, {"x", "(x)", "(((x)))"}, {"", "(", "(x", "x)", "(x))"});
  const Grammar sum = gbnf("root ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" root \")\"");
  expect_language(sum, {"1", "1+22", "(1+(2))+3"}, {"+", "1+", "(1", "()"});
  expect_language(gbnf("root ::= \"a\" root | \"\""), {"", "aaaa"}, {"b"});  // right recursion needs no stack
  EXPECT_EQ(read(gbnf("root ::= \"a\" root | \"\""), std::string(100000, 'a')), Outcome::kComplete);
}

TEST(Gbnf, StackIsBounded) {
  GrammarState state(gbnf("root ::= \"(\" root \")\" | \"x\""), byte_tokenizer());
  int depth = 0;
  while (depth < 100000 && state.advance('(')) ++depth;
  EXPECT_GT(depth, 1000);
  EXPECT_LT(depth, 10000);
  const Status status = state.advance('(');
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("bounds"), std::string::npos) << status.error().message;
  EXPECT_TRUE(state.accepts('x'));  // the state is as before
  EXPECT_FALSE(mask_of(state, byte_tokenizer()->vocabulary())['(']);
  EXPECT_TRUE(mask_of(state, byte_tokenizer()->vocabulary())['x']);
}

TEST(Gbnf, ErrorsSayWhereAndWhat) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "g: rule 'root' is not defined"},
      {"a ::= \"x\"", "g: rule 'root' is not defined"},
      {"root ::= \"x\"\nb", "g:2: rule 'b' is not defined"},
      {"root ::= \"x\"\n::= b", "g:2: unexpected ':'"},
      {"::= \"x\"", "g:1: expected the name of a rule"},
      {"root = \"x\"", "g:1: expected '::=' after 'root'"},
      {"root ::= \"x\"\nroot ::= \"y\"", "g:2: rule 'root' is defined twice"},
      {"\nroot ::= foo", "g:2: rule 'foo' is not defined"},
      {"root ::= \"x", "g:1: a literal is not closed; expected '\"'"},
      {"root ::= [a", "g:1: a class is not closed; expected ']'"},
      {"root ::= [z-a]", "g:1: class range U+7A to U+61 runs backwards"},
      {"root ::= []", "g:1: a class without characters"},
      {"root ::= [^\\U00000000-\\U0010FFFF]", "g:1: a class without characters"},
      {"root ::= (\"a\"", "g:1: a group is not closed; expected ')'"},
      {"root ::= \"a\")", "g:1: ')' closes nothing"},
      {"root ::= \"\\q\"", "g:1: unknown escape"},
      {"root ::= \"\\xZZ\"", "g:1: expected 2 hexadecimal digits"},
      {"root ::= \"\\uD800\"", "g:1: U+D800 is not a character"},
      {"root ::= \"a\"{3,2}", "g:1: repetition {3,2}; the bounds are in the wrong order"},
      {"root ::= \"a\"{x}", "g:1: expected a number in a repetition"},
      {"root ::= \"a\"{1,2", "g:1: a repetition is not closed; expected '}'"},
      {"root ::= \"a\"{99999}", "g:1: a repetition of more than 10000"},
      {"root ::= *", "g:1: unexpected '*'"},
      {"root ::= \"\xff\"", "g:1: text that is not UTF-8"},
      {"root ::= root \"a\" | \"b\"", "g: rule 'root' is left-recursive"},
      {"root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= a", "g: rule 'a' is left-recursive"},
      {"root ::= \"a\"* root", "g: rule 'root' is left-recursive"},
      {"root ::= ([a-z]{1000}){1000}", "g: the grammar has more than 200000 states"},
      {"root ::= (\"\"{9999}){9999}", "g: the grammar has more than 200000 states"},
  };
  for (const auto& [text, message] : cases) {
    const auto grammar = Grammar::parse_gbnf(text, "g");
    ASSERT_FALSE(grammar) << text;
    EXPECT_EQ(grammar.error().message.substr(0, message.size()), message) << text;
  }
  std::string deep = "root ::= ";
  for (int i = 0; i < 10000; ++i) deep += "(";
  EXPECT_FALSE(Grammar::parse_gbnf(deep, "g"));
  std::string chain = "root ::= r0\n";  // rules that only name the next
  for (int i = 0; i < 20000; ++i) chain += fmt::format("r{} ::= r{}\n", i, i + 1);
  expect_language(gbnf(chain + "r20000 ::= \"x\""), {"x"}, {"", "y"});
  std::string wide = "root ::= ";
  for (int i = 0; i < 3000; ++i) wide += fmt::format("\"{}\" | ", i);
  const auto many = Grammar::parse_gbnf(wide + "\"x\"", "g");
  ASSERT_FALSE(many);
  EXPECT_EQ(many.error().message, "g: the grammar begins with more than 2048 alternatives");
}

// ---- masks ----

// A random grammar without left recursion, with a plain backtracking reader of its own: which ends a match can have, and
// whether the text could go on.
struct RandomGrammar {
  struct Item {
    enum Kind { kLiteral, kClass, kGroup, kRule } kind = kLiteral;
    std::string text;
    std::vector<std::vector<Item>> options;
    int least = 1, most = 1;  // -1: no bound
    int rule = 0;
  };
  std::vector<std::vector<std::vector<Item>>> rules;
  std::mt19937_64& random;

  explicit RandomGrammar(std::mt19937_64& r) : random(r) {
    for (int i = 0; i < 4; ++i) rules.push_back(options(i, 2));
  }
  int below(int n) { return static_cast<int>(random() % static_cast<std::uint64_t>(n)); }
  std::string letters(int most) {
    std::string text;
    for (int n = 1 + below(most); n > 0; --n) text += static_cast<char>('a' + below(3));
    return text;
  }
  // A rule refers to itself or to earlier ones only behind a letter; to later ones anywhere.
  std::vector<std::vector<Item>> options(int rule, int depth) {
    std::vector<std::vector<Item>> result;
    for (int n = 1 + below(3); n > 0; --n) {
      std::vector<Item> sequence;
      bool consumed = false;
      for (int m = 1 + below(3); m > 0; --m) {
        Item item;
        const int kind = below(10);
        if (kind < 4 || (kind < 6 && depth == 0)) {
          item.text = letters(2);
        } else if (kind < 6) {
          item.kind = Item::kGroup;
          item.options = options(rule, depth - 1);
        } else if (kind < 8) {
          item.kind = Item::kClass;
          item.text = letters(2);
        } else {
          item.kind = Item::kRule;
          item.rule = consumed ? below(4) : rule + 1;
          if (item.rule > 3) item = Item{Item::kLiteral, "c", {}, 1, 1, 0};
        }
        const int repeat = below(8);
        if (repeat == 0) item.least = 0;
        if (repeat == 1) item.least = 0, item.most = -1;
        if (repeat == 2) item.most = -1;
        if (repeat == 3) item.least = 2, item.most = 3;
        if (item.kind <= Item::kClass && item.least > 0) consumed = true;
        // Inside a group "consumed" starts anew, which only forbids more.
        sequence.push_back(std::move(item));
      }
      result.push_back(std::move(sequence));
    }
    return result;
  }
  static std::string print(const std::vector<std::vector<Item>>& options) {
    std::string out;
    for (std::size_t i = 0; i < options.size(); ++i) {
      if (i > 0) out += " | ";
      for (const Item& item : options[i]) {
        switch (item.kind) {
          case Item::kLiteral:
            out += "\"" + item.text + "\"";
            if (item.least != 1 || item.most != 1) out.insert(out.size() - item.text.size() - 2, "("), out += ")";
            break;
          case Item::kClass:
            out += "[" + item.text + "]";
            break;
          case Item::kGroup:
            out += "(" + print(item.options) + ")";
            break;
          default:
            out += item.rule == 0 ? "root" : fmt::format("r{}", item.rule);
        }
        out += item.most < 0 ? fmt::format("{{{},}} ", item.least) : fmt::format("{{{},{}}} ", item.least, item.most);
      }
    }
    return out;
  }
  std::string print() const {
    std::string out;
    for (std::size_t i = 0; i < rules.size(); ++i)
      out += (i == 0 ? "root" : fmt::format("r{}", i)) + " ::= " + print(rules[i]) + "\n";
    return out;
  }

  using Ends = std::set<std::size_t>;
  // Each group and rule is matched once per place of a text.
  Ends match_options(const std::vector<std::vector<Item>>& options, std::string_view text, std::size_t at, bool& open) const {
    if (const auto known = matched.find({&options, at}); known != matched.end()) return known->second;
    Ends ends;
    for (const auto& sequence : options) {
      Ends from = {at};
      for (const Item& item : sequence) {
        Ends next;
        for (const std::size_t start : from) next.merge(match_item(item, text, start, open));
        from = std::move(next);
      }
      ends.merge(from);
    }
    matched[{&options, at}] = ends;
    return ends;
  }
  mutable std::map<std::pair<const void*, std::size_t>, Ends> matched;
  Ends match_item(const Item& item, std::string_view text, std::size_t at, bool& open) const {
    Ends ends, from = {at};
    if (item.least == 0) ends.insert(at);
    for (int n = 1; !from.empty() && (item.most < 0 ? n <= static_cast<int>(text.size()) + item.least + 1 : n <= item.most);
         ++n) {
      Ends next;
      for (const std::size_t start : from) next.merge(match_once(item, text, start, open));
      if (n >= item.least) ends.insert(next.begin(), next.end());
      from = std::move(next);
    }
    return ends;
  }
  Ends match_once(const Item& item, std::string_view text, std::size_t at, bool& open) const {
    const std::string_view rest = text.substr(at);
    switch (item.kind) {
      case Item::kLiteral:
        if (rest.starts_with(item.text)) return {at + item.text.size()};
        if (item.text.starts_with(rest)) open = true;
        return {};
      case Item::kClass:
        if (rest.empty()) open = true;
        if (!rest.empty() && item.text.find(rest[0]) != std::string::npos) return {at + 1};
        return {};
      case Item::kGroup:
        return match_options(item.options, text, at, open);
      default:
        return match_options(rules[static_cast<std::size_t>(item.rule)], text, at, open);
    }
  }
  Outcome read(std::string_view text) const {
    bool open = false;
    matched.clear();
    const Ends ends = match_options(rules[0], text, 0, open);
    return ends.contains(text.size()) ? Outcome::kComplete : open ? Outcome::kPrefix : Outcome::kRefused;
  }
};

TEST(GrammarMask, RandomGrammarsAgainstABacktrackingReader) {
  std::mt19937_64 random(11);
  std::vector<std::string> pieces;
  for (const char* piece :
       {"a", "b", "c", "d", "aa", "ab", "ba", "bc", "ca", "abc", "aab", "cab", "bca", "ccc", "abab", "abcabc", "acb"})
    pieces.emplace_back(piece);
  const auto tokenizer = std::make_shared<const PieceTokenizer>(pieces);
  int grammars = 0, positions = 0;
  for (int round = 0; round < 60; ++round) {
    const RandomGrammar reference(random);
    const auto grammar = Grammar::parse_gbnf(reference.print(), "g");
    if (!grammar) {  // "consumed" in front of a group can still make it left-recursive
      ASSERT_NE(grammar.error().message.find("left-recursive"), std::string::npos) << grammar.error().message << "\n"
                                                                                   << reference.print();
      continue;
    }
    ++grammars;
    for (int walk = 0; walk < 4; ++walk) {
      GrammarState state(*grammar, tokenizer);
      std::string text;
      // Grammars with very many readings meet the bounds, from where on answers may be left out; such texts are not compared.
      const auto step_all = [&](Grammar::Rules::Configuration from, const std::string& piece) {
        for (const char c : piece) {
          const bool overflow = from.overflow;
          from = grammar->rules()->step(from, static_cast<unsigned char>(c));
          from.overflow = from.overflow || overflow;
        }
        return from;
      };
      Grammar::Rules::Configuration configuration = grammar->rules()->start(grammar->rules()->root);
      for (int i = 0; i < 6; ++i) {
        ++positions;
        const std::vector<bool> allowed = mask_of(state, tokenizer->vocabulary());
        std::vector<TokenId> options;
        for (TokenId token = 0; token + 2 < tokenizer->vocabulary(); ++token) {
          if (step_all(configuration, tokenizer->piece(token, false)).overflow) continue;
          const bool expected = reference.read(text + tokenizer->piece(token, false)) != Outcome::kRefused;
          ASSERT_EQ(allowed[static_cast<std::size_t>(token)], expected)
              << reference.print() << "after '" << text << "': '" << tokenizer->piece(token, false) << "'";
          ASSERT_EQ(state.accepts(token), expected);
          if (expected) options.push_back(token);
        }
        ASSERT_EQ(state.may_end(), reference.read(text) == Outcome::kComplete) << reference.print() << "after '" << text << "'";
        ASSERT_FALSE(allowed[static_cast<std::size_t>(tokenizer->vocabulary() - 2)]);  // a control token
        ASSERT_EQ(allowed.back(), state.may_end());
        if (options.empty()) break;
        const TokenId token = options[random() % options.size()];
        ASSERT_TRUE(state.advance(token));
        text += tokenizer->piece(token, false);
        configuration = step_all(configuration, tokenizer->piece(token, false));
      }
    }
  }
  EXPECT_GT(grammars, 25);
  EXPECT_GT(positions, 300);
}

TEST(GrammarMask, JsonTokensAcrossBorders) {
  std::mt19937_64 random(3);
  const auto grammar = Grammar::any_json();
  ASSERT_TRUE(grammar);
  for (int i = 0; i < 40; ++i) {
    bool complete = false;
    const std::string text = walk_and_check(*grammar, json_tokenizer(), random, 40, &complete);
    if (HasFailure()) return;
    EXPECT_TRUE(!complete || parse_json(text, "walk")) << text;
  }
  // Inside nested strings, where tokens close several levels at once.
  GrammarState state(*grammar, json_tokenizer());
  for (const TokenId token : json_tokenizer()->encode("{\"a\": [[{\"b\":\"x", {})) ASSERT_TRUE(state.advance(token));
  for (const char* next : {"\"}", "\"", "é", "\\n", "\xc3", "name"})
    EXPECT_TRUE(state.accepts(json_tokenizer()->encode(next, {})[0])) << next;
  for (const char* next : {"\"]", "\n  "}) EXPECT_FALSE(state.accepts(json_tokenizer()->encode(next, {})[0])) << next;
}

TEST(GrammarMask, LogitsBeyondTheVocabularyAreForbidden) {
  GrammarState state(gbnf("root ::= \"a\""), byte_tokenizer());
  std::vector<float> logits(400, 0.0F);
  state.mask(logits);
  EXPECT_EQ(std::count(logits.begin(), logits.end(), 0.0F), 1);
  EXPECT_EQ(logits['a'], 0.0F);
  std::vector<float> few(50, 0.0F);  // fewer than the vocabulary
  state.mask(few);
  EXPECT_EQ(std::count(few.begin(), few.end(), 0.0F), 0);
}

TEST(GrammarState, EndsOnlyWhereTheTextMay) {
  const auto tokenizer = byte_tokenizer();
  const auto end = static_cast<TokenId>(tokenizer->vocabulary() - 1);
  GrammarState state(gbnf("root ::= \"ab\"?"), tokenizer);
  EXPECT_TRUE(state.may_end());
  EXPECT_TRUE(state.advance('a'));
  EXPECT_FALSE(state.may_end());
  const Status early = state.advance(end);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().message, "grammar: token 257 ends the text, which is not complete");
  const Status wrong = state.advance('x');
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, "grammar: token 120 may not come next");
  EXPECT_FALSE(state.advance(-1));
  EXPECT_FALSE(state.advance(100000));
  EXPECT_FALSE(state.advance(256));  // a control token
  GrammarState copy(state);
  EXPECT_TRUE(state.advance('b'));
  EXPECT_TRUE(state.may_end());
  EXPECT_FALSE(copy.may_end());  // copies are independent
  copy = state;
  EXPECT_TRUE(copy.advance(end));
  EXPECT_FALSE(copy.accepts('a'));
  EXPECT_TRUE(copy.accepts(end));
}

// ---- JSON and schemas ----

TEST(AnyJson, AcceptsJsonAndNothingElse) {
  const auto grammar = Grammar::any_json();
  ASSERT_TRUE(grammar);
  expect_language(*grammar,
                  {"{}", "[]", "\"\"", "0", "-1.5e+10", "true", "null", "{\"a\": [1, {\"b\": null}],\"c\":\"\\u00e9\\n\"}",
                   "[\n  1,\n  2\n]", "\"é😀\"", "-0", "1E5"},
                  {"", "{", "{a:1}", "[1,]", "01", "+1", "1.", ".5", "\"\n\"", "\"\\x\"", "tru", "nul", "{\"a\"}", "[1 2]",
                   "\"\\u00g0\"", "1e", "'a'"});
}

TEST(JsonSchema, Types) {
  expect_language(schema(R"({"type":"integer"})"), {"0", "-12", "7"}, {"1.5", "01", "\"1\"", "-", "1e3"});
  expect_language(schema(R"({"type":"number"})"), {"0", "-1.5", "2e9"}, {"\"1\"", "."});
  expect_language(schema(R"({"type":"boolean"})"), {"true", "false"}, {"null", "True"});
  expect_language(schema(R"({"type":["null","string"]})"), {"null", "\"x\""}, {"1", "nul"});
  expect_language(schema(R"({})"), {"{\"a\":1}", "[1]", "2"}, {"x"});
  expect_language(schema("true"), {"1"}, {"x"});
  expect_language(schema(R"({"enum":["a\"b",1,null,{"x":[1]}]})"), {"\"a\\\"b\"", "1", "null", "{\"x\":[1]}"},
                  {"\"a\"", "2", "{}"});
  expect_language(schema(R"({"const":"only","title":"t","description":"d"})"), {"\"only\""}, {"\"on\"", "1"});
  expect_language(schema(R"({"anyOf":[{"type":"integer"},{"const":"x"}]})"), {"5", "\"x\""}, {"\"y\""});
  expect_language(schema(R"({"oneOf":[{"type":"null"},{"type":"boolean"}]})"), {"null", "true"}, {"1"});
  expect_language(schema(R"({"allOf":[{"type":"null"}]})"), {"null"}, {"1"});
}

TEST(JsonSchema, ObjectPropertiesInOrder) {
  const Grammar grammar = schema(
      R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"},"c":{"type":"null"}},"required":["b"]})");
  expect_language(
      grammar,
      {R"({"b":"x"})", R"({"a":1,"b":""})", R"({"a": 1, "b": "x", "c": null})", "{\n  \"b\": \"x\",\n  \"c\": null\n}"},
      {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"b":"x",})", R"({,"b":"x"})", R"({"b":"x","d":1})",
       R"({"a":"x","b":"x"})"});
  expect_language(schema(R"({"properties":{"a":{},"b":{}}})"), {"{}", R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
                  {R"({"b":1,"a":2})", "[]"});
  expect_language(schema(R"({"type":"object"})"), {"{}", R"({"x":[1]})"}, {"[]"});
  expect_language(schema(R"({"type":"object","additionalProperties":false})"), {"{}"}, {R"({"x":1})"});
  expect_language(schema(R"({"type":"object","additionalProperties":{"type":"integer"}})"), {"{}", R"({"x":1,"y":2})"},
                  {R"({"x":""})"});
}

TEST(JsonSchema, AdditionalPropertiesHaveOtherNames) {
  const Grammar grammar =
      schema(R"({"type":"object","properties":{"ab":{"type":"integer"},"abc":{"type":"integer"},"é":{"type":"integer"}},)"
             R"("required":["ab"],"additionalProperties":{"type":"null"}})");
  expect_language(grammar,
                  {R"({"ab":1})", R"({"ab":1,"x":null})", R"({"ab":1,"a":null,"abd":null})",
                   R"({"ab":1,"abc":2,"abcd":null,"":null})", R"({"ab":1,"è":null,"x\n":null})"},
                  {R"({"x":null})", R"({"ab":1,"x":1})", R"({"ab":1,"abc":null})", R"({"ab":1,"ab":null})",
                   R"({"ab":1,"é":null})", R"({"ab":1,"\u0061bc":null})", R"({"ab":1,"a\u0062c":null})"});
}

TEST(JsonSchema, Arrays) {
  expect_language(schema(R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})"),
                  {"[1]", "[1,2]", "[1, 2, 3]"}, {"[]", "[1,2,3,4]", "[\"a\"]"});
  expect_language(schema(R"({"type":"array","items":{"type":"null"},"minItems":2})"), {"[null,null]", "[null,null,null]"},
                  {"[]", "[null]"});
  expect_language(schema(R"({"type":"array","maxItems":1})"), {"[]", "[[1]]"}, {"[1,2]"});
  expect_language(schema(R"({"type":"array","maxItems":0})"), {"[]", "[ ]"}, {"[1]"});
  expect_language(schema(R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})"), {"[1,\"a\"]"},
                  {"[1]", "[\"a\",1]", "[1,\"a\",2]"});
  expect_language(schema(R"({"prefixItems":[{"type":"integer"}],"items":{"type":"null"}})"), {"[1]", "[1,null,null]"},
                  {"[]", "[1,2]"});
  expect_language(schema(R"({"items":{"enum":["x"]}})"), {"[]", "[\"x\"]"}, {"[1]", "{}"});
}

TEST(JsonSchema, Strings) {
  expect_language(schema(R"({"type":"string","minLength":2,"maxLength":3})"), {"\"ab\"", "\"é😀x\"", "\"\\n\\u00e9\""},
                  {"\"a\"", "\"abcd\"", "\"\\n\"", "\"\\ud83d\\ude00\""});
  expect_language(schema(R"({"type":"string","minLength":1})"), {"\"a\"", "\"abcdefgh\""}, {"\"\""});
  expect_language(schema(R"({"pattern":"^[a-z]{2,3}-\\d+$"})"), {"\"ab-1\"", "\"abc-123\""},
                  {"\"a-1\"", "\"ab-\"", "\"ab-x\""});
  expect_language(schema(R"({"pattern":"^(yes|no|\\w\\s?)$"})"), {"\"yes\"", "\"no\"", "\"a\"", "\"a \"", "\"a\\t\""},
                  {"\"maybe\"", "\"a\t\""});
  expect_language(schema(R"({"pattern":"^[^a-c]\\.[\"x]*$"})"), {"\"d.\"", "\"\\\".x\\\"\"", "\"\\n.\""},
                  {"\"a.\"", "\"dx\"", "\"\".\""});
  expect_language(schema(R"({"pattern":"^.$"})"), {"\"x\"", "\"\\\\\""}, {"\"\\n\"", "\"\"", "\"xy\""});
}

TEST(JsonSchema, IntegersWithBounds) {
  struct Bounds {
    std::int64_t low, high;
  };
  for (const auto& [low, high] : {Bounds{0, 0}, Bounds{5, 5}, Bounds{0, 9}, Bounds{7, 123}, Bounds{-3, 4}, Bounds{-120, -7},
                                  Bounds{99, 101}, Bounds{-15, 250}, Bounds{1, 1000}}) {
    const Grammar grammar = schema(fmt::format(R"({{"type":"integer","minimum":{},"maximum":{}}})", low, high));
    for (std::int64_t value = low - 130; value <= high + 1100; ++value) {
      ASSERT_EQ(read(grammar, std::to_string(value)) == Outcome::kComplete, low <= value && value <= high)
          << low << " " << high << " " << value;
    }
  }
  expect_language(schema(R"({"type":"integer","exclusiveMinimum":0})"), {"1", "10", "99999999"}, {"0", "-1", "01"});
  expect_language(schema(R"({"type":"integer","minimum":18})"), {"18", "19", "20", "99", "100", "12345"},
                  {"17", "9", "0", "-20"});
  expect_language(schema(R"({"type":"integer","maximum":-5})"), {"-5", "-6", "-10", "-500"}, {"-4", "0", "5"});
  expect_language(schema(R"({"type":"integer","exclusiveMaximum":3.0})"), {"2", "0", "-77"}, {"3", "10"});
  expect_language(schema(R"({"type":"number","minimum":0})"), {"0", "1.5"}, {"-1"});
}

TEST(JsonSchema, References) {
  const Grammar tree = schema(
      R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/node"}}},)"
      R"("required":["v"]}},"$ref":"#/$defs/node"})");
  expect_language(tree, {R"({"v":1})", R"({"v":1,"kids":[{"v":2,"kids":[]},{"v":3}]})"},
                  {R"({"kids":[]})", R"({"v":1,"kids":[1]})"});
  expect_language(schema(R"({"type":"array","items":{"$ref":"#"}})"), {"[]", "[[],[[]]]"}, {"[1]"});
  expect_language(schema(R"({"properties":{"a/b":{"$ref":"#/properties/c~0d"},"c~d":{"const":1}}})"), {R"({"a/b":1,"c~d":1})"},
                  {R"({"a/b":2})"});
  // Names of properties do not meet the names of rules.
  expect_language(schema(R"({"properties":{"a":{"properties":{"b":{"const":1}}},"a/properties/b":{"const":2}}})"),
                  {R"({"a":{"b":1},"a/properties/b":2})"}, {R"({"a":{"b":2}})", R"({"a/properties/b":1})"});
}

TEST(JsonSchema, RefusalsNameTheKeywordAndThePlace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{", "s:1"},
      {"1", "s: #: number; expected a schema"},
      {"false", "s: #: the schema 'false' allows nothing"},
      {R"({"not":{}})", "s: #: keyword 'not' is not supported"},
      {R"({"properties":{"a":{"multipleOf":2}}})", "s: #/properties/a: keyword 'multipleOf' is not supported"},
      {R"({"patternProperties":{}})", "s: #: keyword 'patternProperties' is not supported"},
      {R"({"type":"array","uniqueItems":true})", "s: #: keyword 'uniqueItems' is not supported"},
      {R"({"type":"text"})", "s: #: type text; expected object"},
      {R"({"enum":[]})", "s: #: enum; expected a list with at least one value"},
      {R"({"anyOf":{}})", "s: #: anyOf; expected a list"},
      {R"({"anyOf":[true],"type":"null"})", "s: #: anyOf beside type or properties is not supported"},
      {R"({"allOf":[true,true]})", "s: #: allOf of several schemas is not supported"},
      {R"({"$ref":"http://x"})", "s: #: $ref http://x; only places in this document"},
      {R"({"$ref":"#/$defs/x"})", "s: #: $ref #/$defs/x: there is no '$defs'"},
      {R"({"$ref":"#"})", "s: rule '#' is left-recursive"},
      {R"({"properties":[]})", "s: #: properties is array; expected an object"},
      {R"({"type":"object","required":["x"]})", "s: #: required names \"x\", which is not in properties"},
      {R"({"type":"array","minItems":-1})", "s: #: minItems -1; expected an integer from 0 to 10000"},
      {R"({"type":"array","minItems":3,"maxItems":2})", "s: #: maxItems 2 is less than minItems 3"},
      {R"({"type":"string","minLength":1.5})", "s: #: minLength 1.5; expected an integer"},
      {R"({"pattern":"abc"})", "s: #: pattern \"abc\" without ^ and $ around it is not supported"},
      {R"({"pattern":"^a(?=b)$"})", "s: #: pattern \"^a(?=b)$\" with (? is not supported"},
      {R"({"pattern":"^\\bx$"})", "s: #: pattern \"^\\\\bx$\" with \\b is not supported"},
      {R"({"pattern":"^a**$"})", "s: #: pattern \"^a**$\" with a repetition of a repetition is not supported"},
      {R"({"pattern":"^(a$"})", "s: #: pattern \"^(a$\" with an open group is not supported"},
      {R"({"pattern":"^a)$"})", "s: #: pattern \"^a)$\" with ')' at 2 is not supported"},
      {R"({"pattern":"^[a$"})", "s: #: pattern \"^[a$\" with an open or empty class is not supported"},
      {R"({"pattern":"^a{2$"})", "s: #: pattern \"^a{2$\" with the repetition at 2 is not supported"},
      {R"({"type":"number","maximum":3})", "s: #: maximum of a number is not supported"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "s: #: no integer from 5 to 4"},
      {R"({"type":"integer","minimum":0.5})", "s: #: minimum 0.5; expected an integer"},
      {R"({"minimum":1})", "s: #: bounds of a number without type are not supported"},
  };
  for (const auto& [text, message] : cases) {
    const auto grammar = Grammar::from_json_schema(text, "s");
    ASSERT_FALSE(grammar) << text;
    EXPECT_EQ(grammar.error().message.substr(0, message.size()), message) << text;
  }
}

TEST(JsonSchema, WalksGiveJsonOfTheSchema) {
  std::mt19937_64 random(9);
  const Grammar grammar = schema(
      R"({"type":"object","properties":{"name":{"type":"string","maxLength":4},"age":{"type":"integer","minimum":0,"maximum":150},)"
      R"("tags":{"type":"array","items":{"enum":["a","abc","the"]},"maxItems":2},"ok":{"type":"boolean"}},"required":["name","age"]})");
  int completed = 0;
  for (int i = 0; i < 60 && !HasFailure(); ++i) {
    bool complete = false;
    const std::string text = walk_and_check(grammar, json_tokenizer(), random, 80, &complete);
    if (!complete) continue;
    ++completed;
    const auto json = parse_json(text, "walk");
    ASSERT_TRUE(json) << text;
    EXPECT_TRUE((*json)["name"].is_string() && (*json)["age"].is_number_integer()) << text;
    EXPECT_LE((*json)["age"].get<int>(), 150) << text;
    EXPECT_TRUE(!json->contains("tags") || (*json)["tags"].size() <= 2) << text;
  }
  EXPECT_GT(completed, 20);
}

}  // namespace
}  // namespace rooftree::text

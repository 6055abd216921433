#include "text/split.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace rooftree::text {
namespace {

using Words = std::vector<std::string>;

Words cut(std::string_view family, const std::string& text) {
  const SplitFamily* const found = find_split_family(family);
  if (found == nullptr) {
    ADD_FAILURE() << "no family " << family;
    return {};
  }
  std::vector<std::string_view> words{text};
  for (const std::string_view pattern : found->patterns) {
    const auto split = RegexSplit::compile(pattern, {}, family);
    if (!split) {
      ADD_FAILURE() << split.error().message;
      return {};
    }
    std::vector<std::string_view> next;
    for (const std::string_view word : words) split->split(word, next);
    words.swap(next);
  }
  return {words.begin(), words.end()};
}

Words apply(std::string_view pattern, RegexSplit::Options options, const std::string& text) {
  const auto split = RegexSplit::compile(pattern, options, "test");
  if (!split) {
    ADD_FAILURE() << split.error().message;
    return {};
  }
  std::vector<std::string_view> words;
  split->split(text, words);
  return {words.begin(), words.end()};
}

TEST(SplitFamilies, EveryPatternCompilesAndLosesNothing) {
  const std::string text = "I've got 12345 dogs,  don't\tyou?\n\n  naïve 你好,世界! 🦙🦙 ½ x_y(z) \r\n end  ";
  ASSERT_GT(split_family_names().size(), 60U);
  for (const std::string_view name : split_family_names()) {
    std::string joined;
    for (const std::string& word : cut(name, text)) {
      EXPECT_FALSE(word.empty()) << name;
      joined += word;
    }
    EXPECT_EQ(joined, text) << name;
  }
  EXPECT_EQ(find_split_family("no-such-family"), nullptr);
}

TEST(SplitFamilies, Gpt2) {
  EXPECT_EQ(cut("gpt-2", "I've got 1234 dogs,  ok\n\n you"),
            (Words{"I", "'ve", " got", " 1234", " dogs", ",", " ", " ok", "\n\n", " you"}));
  EXPECT_EQ(cut("gpt-2", "I'VE"), (Words{"I", "'", "VE"}));  // contractions in small letters only
  EXPECT_EQ(cut("gpt-2", "   x"), (Words{"  ", " x"}));
  EXPECT_EQ(cut("gpt-2", "hi 🦙🦙! 我想apple"), (Words{"hi", " 🦙🦙!", " 我想apple"}));
  EXPECT_EQ(cut("phi-2", "x  "), (Words{"x", "  "}));
}

TEST(SplitFamilies, Llama3) {
  EXPECT_EQ(cut("llama-bpe", "I'VE 12345 ok\n\n  x"), (Words{"I", "'VE", " ", "123", "45", " ok", "\n\n", " ", " x"}));
  EXPECT_EQ(cut("llama-bpe", "(word) =>\n\tx"), (Words{"(word", ")", " =>\n", "\tx"}));
  EXPECT_EQ(cut("cl100k", "a.b\r\n1"), (Words{"a", ".b", "\r\n", "1"}));
  EXPECT_EQ(cut("dbrx", "½1/2"), (Words{"½1", "/", "2"}));
}

TEST(SplitFamilies, Qwen2) {
  EXPECT_EQ(cut("qwen2", "a12 b's"), (Words{"a", "1", "2", " b", "'s"}));
  EXPECT_EQ(cut("stablelm2", "33"), (Words{"3", "3"}));
  // A combining mark is a word's end in qwen2 and inside the word in qwen35.
  EXPECT_EQ(cut("qwen2", "e\u0301a"), (Words{"e", "\u0301a"}));
  EXPECT_EQ(cut("qwen35", "e\u0301a"), (Words{"e\u0301a"}));
}

TEST(SplitFamilies, O200k) {
  EXPECT_EQ(cut("gpt-4o", "HelloWorld's NASAok don't"), (Words{"Hello", "World's", " NASAok", " don't"}));
  EXPECT_EQ(cut("gpt-4o", "x/y !/\n12345"), (Words{"x", "/y", " !/\n", "123", "45"}));
  EXPECT_EQ(cut("o200k", "你好abc"), (Words{"你好abc"}));
}

TEST(SplitFamilies, Tekken) { EXPECT_EQ(cut("tekken", "don't 12"), (Words{"don", "'t", " ", "1", "2"})); }

TEST(SplitFamilies, DeepSeek) {
  EXPECT_EQ(cut("deepseek-llm", "Hi, there 123 你好\n"), (Words{"Hi", ",", " there", " ", "123", " ", "你好", "\n"}));
  EXPECT_EQ(cut("deepseek-coder", "x=12 y"), (Words{"x", "=", "1", "2", " y"}));
  EXPECT_EQ(cut("deepseek-v3", "1234 ab(cd) 你好!\n x"), (Words{"123", "4", " ab", "(cd", ")", " ", "你好", "!\n", " x"}));
}

TEST(SplitFamilies, Falcon) {
  EXPECT_EQ(cut("falcon", "ab, 12345 'tis"), (Words{"ab", ",", " ", "123", "45", " ", "'", "tis"}));
}

TEST(SplitFamilies, SingleDigits) {
  for (const char* name : {"starcoder", "refact", "command-r", "smollm"}) {
    EXPECT_EQ(cut(name, "a 12b"), (Words{"a", " ", "1", "2", "b"})) << name;
  }
}

TEST(SplitFamilies, Default) { EXPECT_EQ(cut("default", "x 1234!"), (Words{"x", " ", "123", "4", "!"})); }

TEST(SplitFamilies, TheRest) {
  EXPECT_EQ(cut("bloom", "Hi there, you"), (Words{"Hi", " there", ",", " you"}));
  EXPECT_EQ(cut("viking", "a12"), (Words{"a", "1", "2"}));
  EXPECT_EQ(cut("tiny_aya", "1234567"), (Words{"1", "234", "567"}));
  EXPECT_EQ(cut("superbpe", "ab1234567 c"), (Words{"ab", "1", "234", "567", " c"}));
  EXPECT_EQ(cut("bailingmoe", "don't 12"), (Words{"don", "'t", " ", "1", "2"}));
  EXPECT_EQ(cut("seed-coder", "!\nx"), (Words{"!", "\n", "x"}));
  EXPECT_EQ(cut("exaone-moe", "two words, ok"), (Words{"two words", ",", " ok"}));
  EXPECT_EQ(cut("laguna", "a\n\nb"), (Words{"a", "\n\n", "b"}));
  EXPECT_EQ(cut("minicpm5", "1234"), (Words{"123", "4"}));
  EXPECT_EQ(cut("kimi-k2", "你好abc"), (Words{"你好", "abc"}));
  EXPECT_EQ(cut("gemma4", "a b\n\nc"), (Words{"a b", "\n\n", "c"}));
}

TEST(SplitFamilies, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(cut("gpt-2", ".\u180E"), (Words{".\u180E"}));  // no white space since Unicode 6.3
  EXPECT_EQ(cut("gpt-2", ".\u00A0x"), (Words{".", "\u00A0", "x"}));
  EXPECT_EQ(cut("llama-bpe", "a\u3000\u3000b"), (Words{"a", "\u3000", "\u3000b"}));
}

TEST(RegexSplit, BrokenUtf8IsAWordOfItsOwn) {
  EXPECT_EQ(cut("gpt-2", "a\xFF\xFE b"), (Words{"a", "\xFF\xFE", " b"}));
  EXPECT_EQ(cut("llama-bpe", "\xE4\xBD"), (Words{"\xE4\xBD"}));
  EXPECT_EQ(cut("llama-bpe", "x \xC0"), (Words{"x", " ", "\xC0"}));
}

TEST(RegexSplit, Behaviors) {
  using B = SplitBehavior;
  const std::string text = "a,b,,c";
  EXPECT_EQ(apply(",", {B::kIsolated, false}, text), (Words{"a", ",", "b", ",", ",", "c"}));
  EXPECT_EQ(apply(",", {B::kIsolated, true}, text), (Words{"a", ",", "b", ",", ",", "c"}));
  EXPECT_EQ(apply(",", {B::kRemoved, false}, text), (Words{"a", "b", "c"}));
  EXPECT_EQ(apply(",", {B::kRemoved, true}, text), (Words{",", ",", ","}));
  EXPECT_EQ(apply(",", {B::kMergedWithPrevious, false}, text), (Words{"a,", "b,", ",", "c"}));
  EXPECT_EQ(apply(",", {B::kMergedWithNext, false}, text), (Words{"a", ",b", ",", ",c"}));
  EXPECT_EQ(apply(",", {B::kContiguous, false}, text), (Words{"a", ",", "b", ",,", "c"}));
  EXPECT_EQ(apply(",", {B::kRemoved, false}, ""), Words{});
  EXPECT_EQ(apply("x*", {B::kIsolated, false}, "axb"), (Words{"a", "x", "b"}));  // empty matches cut
}

TEST(RegexSplit, LiteralsAndReplacing) {
  const auto split = RegexSplit::compile_literal("a.b", {SplitBehavior::kRemoved, false}, "test");
  ASSERT_TRUE(split) << split.error().message;
  std::vector<std::string_view> words;
  split->split("xa.bya-bz", words);
  EXPECT_EQ(words, (std::vector<std::string_view>{"x", "ya-bz"}));
  const auto spaces = RegexSplit::compile(" {2,}", {}, "test");
  ASSERT_TRUE(spaces);
  EXPECT_EQ(spaces->replace("a  b   c d\xFF  ", "_"), "a_b_c d\xFF_");
  const auto single = RegexSplit::compile(" ", {}, "test");
  ASSERT_TRUE(single);
  EXPECT_EQ(single->replace("a  b", "__"), "a____b");
}

TEST(RegexSplit, TranslatesWhatDiffers) {
  EXPECT_EQ(apply(R"(\w+|[^\w\s]+)", {SplitBehavior::kRemoved, true}, "naïve e\u0301 x_1+!"),
            (Words{"naïve", "e\u0301", "x_1", "+!"}));
  EXPECT_EQ(apply(R"([]a]+)", {}, "x]a"), (Words{"x", "]a"}));  // a bracket first in a class is a member
  EXPECT_EQ(apply(R"([^]a]+)", {}, "]x"), (Words{"]", "x"}));
  EXPECT_EQ(apply(R"(\p{Han}+)", {}, "a、你"), (Words{"a、", "你"}));  // Script, not Script_Extensions
  EXPECT_EQ(apply(R"([[:digit:]]+)", {}, "a12"), (Words{"a", "12"}));
  EXPECT_EQ(apply(R"(b$)", {}, "ab\nb"), (Words{"a", "b", "\n", "b"}));  // `$` ends a line
}

TEST(RegexSplit, RefusesWhatItCannotDo) {
  for (const char* pattern : {"(",        "a{2,1}", "[a&&b]", "[[a]b]", "[\\S]",   "[\\W]",     "\\K",   "\\R", "\\h",  "\\C",
                              "(?P<n>a)", "(?R)",   "(?m:a)", "(?C)",   "(*FAIL)", "\\p{Nope}", "\\p{L", "[a",  "\xFF", "\\"}) {
    const auto split = RegexSplit::compile(pattern, {}, "here");
    ASSERT_FALSE(split) << pattern;
    EXPECT_EQ(split.error().message.rfind("here", 0), 0U) << split.error().message;
  }
  EXPECT_FALSE(RegexSplit::compile(std::string(9000, 'a'), {}, "here"));
  EXPECT_FALSE(RegexSplit::compile(std::string("a\0b", 3), {}, "here"));
  EXPECT_FALSE(RegexSplit::compile("a", {SplitBehavior::kContiguous, true}, "here"));
  EXPECT_FALSE(RegexSplit::compile_literal("", {}, "here"));
}

TEST(RegexSplit, StepsAreBounded) {
  // Backtracking without a bound would take 2^40 steps.
  const std::string text = std::string(40, 'a') + "b";
  EXPECT_EQ(apply("(a+)+$", {}, text), Words{text});
}

}  // namespace
}  // namespace rooftree::text

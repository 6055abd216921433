#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/test_folder.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"

namespace rooftree::text {
namespace {

using Ids = std::vector<TokenId>;
using Made = Result<std::shared_ptr<const Tokenizer>>;

constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};
constexpr EncodeOptions kSpecial{.add_special = false, .parse_special = true};

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

// ---- SentencePiece BPE by score, from GGUF

struct Spm {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>", "▁", "h",  "e",      "l",     "o",
                                  "he",    "ll",  "hell", "a", "aa", "<0x21>", "<0xFF>"};
  std::vector<float> scores{0, 0, 0, -20, -21, -22, -23, -24, -1, -2, -3, -25, -4, 0, 0};
  std::vector<std::int32_t> kinds{2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 6};
};

Made made_from(formats::GgufWriter& writer) {
  const test::TestFolder folder;
  const std::filesystem::path path = folder.path() / "t.gguf";
  if (const auto status = writer.open(path); !status) return status.error();
  if (const auto status = writer.finish(); !status) return status.error();
  ROOFTREE_TRY(const formats::GgufFile file, formats::GgufFile::open(path));
  return Tokenizer::from_gguf(file);
}

void set_spm(formats::GgufWriter& writer, const Spm& spm) {
  writer.set("general.architecture", std::string("llama"));
  writer.set("tokenizer.ggml.model", std::string("llama"));
  writer.set("tokenizer.ggml.tokens", spm.tokens);
  writer.set("tokenizer.ggml.scores", spm.scores);
  writer.set("tokenizer.ggml.token_type", spm.kinds);
}

TEST(SentencePiece, MergesByScore) {
  formats::GgufWriter writer;
  set_spm(writer, {});
  writer.set("tokenizer.chat_template", std::string("{{ messages }}"));
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.kind(), "spm");
  EXPECT_EQ(t.vocabulary(), 15);
  EXPECT_EQ(t.chat_template(), "{{ messages }}");
  // ▁ h e l l o: "he" (-1), then "ll" (-2), then "hell" (-3); "hello" is no token.
  EXPECT_EQ(t.encode("hello", kPlain), (Ids{3, 10, 7}));
  EXPECT_EQ(t.encode("hello", {}), (Ids{1, 3, 10, 7}));
  EXPECT_EQ(t.encode("aaa", kPlain), (Ids{3, 12, 11}));  // of equal scores the leftmost
  EXPECT_EQ(t.encode("he he", kPlain), (Ids{3, 8, 3, 8}));
  EXPECT_EQ(t.encode(" he", kPlain), (Ids{3, 3, 8}));
  EXPECT_EQ(t.encode("", {}), (Ids{1}));
  EXPECT_EQ(t.encode("", kPlain), Ids{});
  // Bytes where there are byte tokens, else the unknown token.
  EXPECT_EQ(t.encode("!", kPlain), (Ids{3, 13}));
  EXPECT_EQ(t.encode("\xFF", kPlain), (Ids{3, 14}));
  EXPECT_EQ(t.encode("z", kPlain), (Ids{3, 0}));
  EXPECT_EQ(t.decode(t.encode("hello!", {})), "hello!");
  EXPECT_EQ(t.decode(t.encode("  he  he ", {})), "  he  he ");
  EXPECT_EQ(t.piece(3), " ");
  EXPECT_EQ(t.piece(13), "!");
  EXPECT_EQ(t.piece(1), "");
  EXPECT_EQ(t.piece(1, true), "<s>");
  EXPECT_EQ(t.piece(-1), "");
  EXPECT_EQ(t.piece(15), "");
  EXPECT_EQ(t.decode(Ids{1, 3, 8, 2}, true), "<s> he</s>");
}

TEST(SentencePiece, SpecialTokensInText) {
  formats::GgufWriter writer;
  set_spm(writer, {});
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.special().bos, 1);
  EXPECT_EQ(t.special().eos, 2);
  EXPECT_EQ(t.special().end_of_generation, Ids{2});
  EXPECT_TRUE(t.special().add_bos);
  EXPECT_FALSE(t.special().add_eos);
  // As a token; the text after it starts with a space again.
  EXPECT_EQ(t.encode("he</s>he", kSpecial), (Ids{3, 8, 2, 3, 8}));
  // Not as a token: a control token cannot be written.
  EXPECT_EQ(t.encode("<s>", kPlain), (Ids{3, 0, 0, 0}));
  EXPECT_EQ(t.encode("<s", kSpecial), (Ids{3, 0, 0}));
}

TEST(SentencePiece, WithoutSpaceInFront) {
  formats::GgufWriter writer;
  set_spm(writer, {});
  writer.set("tokenizer.ggml.add_space_prefix", false);
  writer.set("tokenizer.ggml.add_bos_token", false);
  writer.set("tokenizer.ggml.add_eos_token", true);
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->encode("he he", {}), (Ids{8, 3, 8, 2}));
  EXPECT_EQ((*made)->decode(Ids{3, 8}), " he");
}

TEST(SentencePiece, TokensThatSpanWordsMergeAcrossThem) {
  Spm spm;
  spm.tokens.emplace_back("e▁h");
  spm.scores.push_back(-0.5F);
  spm.kinds.push_back(1);
  spm.tokens.emplace_back("e▁");
  spm.scores.push_back(-0.7F);
  spm.kinds.push_back(1);
  formats::GgufWriter writer;
  set_spm(writer, spm);
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  // ▁ h e ▁ h e: "e▁" (-0.7) merges first, then "e▁h" (-0.5); without it "he" twice.
  EXPECT_EQ((*made)->encode("he he", kPlain), (Ids{3, 4, 15, 5}));
}

TEST(SentencePiece, RefusesBrokenMetadata) {
  const auto refused = [](const std::function<void(formats::GgufWriter&)>& change) {
    formats::GgufWriter writer;
    set_spm(writer, {});
    change(writer);
    const Made made = made_from(writer);
    EXPECT_FALSE(made);
    return made ? std::string() : made.error().message;
  };
  using formats::GgufWriter;
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.model", std::string("magic")); }).find("magic"),
            std::string::npos);
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.model", std::uint32_t{1}); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.tokens", std::vector<std::string>{}); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.tokens", std::vector<float>{1}); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.scores", std::vector<float>{1}); }).find("15"),
            std::string::npos);
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.scores", std::vector<float>(15, NAN)); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.token_type", std::vector<std::int32_t>{1}); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.bos_token_id", std::string("one")); }), "");
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.add_sep_token", true); }), "");
  EXPECT_NE(refused([](GgufWriter& w) {
              w.set("tokenizer.ggml.model", std::string("gpt2"));
              w.set("tokenizer.ggml.pre", std::string("no-such-pre"));
            }).find("no-such-pre"),
            std::string::npos);
  EXPECT_NE(refused([](GgufWriter& w) { w.set("tokenizer.ggml.model", std::string("gpt2")); }).find("merges"),
            std::string::npos);
  for (const char* merge : {"he", "he ", " he", "h z", "he l", "h \xC2\xA0"}) {
    EXPECT_NE(refused([&](GgufWriter& w) {
                w.set("tokenizer.ggml.model", std::string("gpt2"));
                w.set("tokenizer.ggml.merges", std::vector<std::string>{merge});
              }).find("merges[0]"),
              std::string::npos)
        << merge;
  }
}

// ---- Byte pairs

TEST(BytePairs, FromGguf) {
  formats::GgufWriter writer;
  writer.set("general.architecture", std::string("qwen2"));
  writer.set("tokenizer.ggml.model", std::string("gpt2"));
  writer.set("tokenizer.ggml.pre", std::string("qwen2"));
  writer.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "Ġ", "ab", "Ġab", "Ã", "©", "é", "Ã©", "1", "11",
                                                               "<|im_end|>", "<|endoftext|>"});
  writer.set("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3});
  writer.set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "Ġ ab", "Ã ©", "1 1"});
  writer.set("tokenizer.ggml.eos_token_id", std::uint32_t{12});
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.kind(), "bpe qwen2");
  EXPECT_EQ(t.encode("ab ab", {}), (Ids{3, 4}));
  EXPECT_EQ(t.encode("é", {}), (Ids{8}));      // the bytes C3 A9 are spelled Ã©
  EXPECT_EQ(t.encode("11", {}), (Ids{9, 9}));  // qwen2 cuts between digits
  EXPECT_EQ(t.encode("\xC3", {}), (Ids{5}));
  EXPECT_EQ(t.encode("a<|im_end|>", {}), (Ids{0, 11}));
  EXPECT_EQ(t.decode(Ids{4, 8}), " ab\xC3\xA9");
  EXPECT_EQ(t.special().end_of_generation, (Ids{11, 12}));
  EXPECT_FALSE(t.special().add_bos);
}

const std::string kBytePairs = R"({
  "added_tokens": [{"id": 12, "content": "<|end|>", "special": true}, {"id": 13, "content": "<|end|>>", "special": true},
                   {"id": 14, "content": "[X]", "special": false, "lstrip": true, "rstrip": true},
                   {"id": 15, "content": "oo", "special": false, "single_word": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "model": {"type": "BPE", "vocab": {"h": 0, "e": 1, "l": 2, "o": 3, "Ġ": 4, "he": 5, "ll": 6, "hell": 7, "hello": 8,
                                     "Ġhello": 9, "Ċ": 10, "loh": 11},
            "merges": ["h e", "l l", "he ll", "hell o", "Ġ hello"]},
  "post_processor": {"type": "ByteLevel"},
  "decoder": {"type": "ByteLevel"}
})";

TEST(BytePairs, FromTokenizerJson) {
  const Made made = Tokenizer::parse_tokenizer_json(kBytePairs, "", "t.json");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.vocabulary(), 16);
  EXPECT_EQ(t.encode("hello hello", {}), (Ids{8, 9}));
  EXPECT_EQ(t.encode("hell", {}), (Ids{7}));
  EXPECT_EQ(t.encode("helo", {}), (Ids{5, 2, 3}));
  EXPECT_EQ(t.encode("lll", {}), (Ids{6, 2}));     // leftmost first
  EXPECT_EQ(t.encode("loh", {}), (Ids{2, 3, 0}));  // no merges lead there
  EXPECT_EQ(t.encode("x", {}), Ids{});             // no token, no unknown token
  EXPECT_EQ(t.encode("hello\n hello", {}), (Ids{8, 10, 9}));
  EXPECT_EQ(t.decode(Ids{8, 9, 12}), "hello hello");
  EXPECT_EQ(t.special().end_of_generation, Ids{12});
}

TEST(BytePairs, IgnoringMergesAndUnknown) {
  const Made ignoring = Tokenizer::parse_tokenizer_json(
      replaced(kBytePairs, R"("type": "BPE",)", R"("type": "BPE", "ignore_merges": true,)"), "", "t");
  ASSERT_TRUE(ignoring) << ignoring.error().message;
  EXPECT_EQ((*ignoring)->encode("loh", {}), (Ids{11}));
  const Made unknown = Tokenizer::parse_tokenizer_json(
      replaced(kBytePairs, R"("type": "BPE",)", R"("type": "BPE", "unk_token": "<|end|>",)"), "", "t");
  ASSERT_TRUE(unknown) << unknown.error().message;
  EXPECT_EQ((*unknown)->encode("hxx", {}), (Ids{0, 12, 12}));
}

TEST(AddedTokens, LongestFirstAndFlags) {
  const Made made = Tokenizer::parse_tokenizer_json(kBytePairs, "", "t.json");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.encode("h<|end|>>h", {}), (Ids{0, 13, 0}));
  EXPECT_EQ(t.encode("h<|end|> h", {}), (Ids{0, 12, 4, 0}));
  EXPECT_EQ(t.encode("h<|end|>e", kPlain), (Ids{0, 1, 1}));  // as text: h, e of "end", e; the rest has no tokens
  EXPECT_EQ(t.encode("h  [X] \n h", {}), (Ids{0, 14, 0}));   // takes the white space around it
  EXPECT_EQ(t.encode("h [X] h", kPlain), (Ids{0, 14, 0}));   // it is no special token
  EXPECT_EQ(t.encode("oo", {}), (Ids{15}));
  EXPECT_EQ(t.encode("hoo", {}), (Ids{0, 3, 3}));  // inside a word
  EXPECT_EQ(t.encode("ooh oo", {}), (Ids{3, 3, 0, 4, 15}));
}

TEST(BytePairs, SplitBeforeByteLevelAndSpelledDigits) {
  // Falcon's order: what follows ByteLevel sees its spelling.
  const std::string json = R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "ByteLevel", "add_prefix_space": true, "use_regex": false},
      {"type": "Digits", "individual_digits": true}]},
    "model": {"type": "BPE", "vocab": {"a": 0, "1": 1, "11": 2, "!": 3, "!!": 4, "Ġ": 5, "Ġ!!": 6, "Ġa": 7},
              "merges": [["1", "1"], ["!", "!"], ["Ġ", "!!"], ["Ġ", "a"]]}})";
  const Made made = Tokenizer::parse_tokenizer_json(json, "", "t");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->encode("a11!!", {}), (Ids{7, 1, 1, 6}));
}

TEST(CharacterPairs, Llama2Style) {
  const std::string json = R"({
    "added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false},
                     {"id": 1, "content": "<s>", "special": true, "normalized": false},
                     {"id": 2, "content": "</s>", "special": true, "normalized": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
                       "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
              "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0xC3>": 3, "<0xA9>": 4, "▁": 5, "a": 6, "b": 7, "ab": 8, "▁ab": 9},
              "merges": ["a b", "▁ ab"]}})";
  const Made made = Tokenizer::parse_tokenizer_json(json, R"({"eos_token": {"content": "</s>"}, "chat_template": "x"})", "t");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.encode("ab ab", {}), (Ids{1, 9, 9}));
  EXPECT_EQ(t.encode("é", {}), (Ids{1, 5, 3, 4}));
  EXPECT_EQ(t.encode("zz", {}), (Ids{1, 5, 0}));  // unknown ones fuse
  EXPECT_EQ(t.encode("z z", {}), (Ids{1, 5, 0, 5, 0}));
  EXPECT_EQ(t.encode("a</s>b", {}), (Ids{1, 5, 6, 2, 5, 7}));
  EXPECT_EQ(t.decode(Ids{1, 9, 9, 3, 4}), "ab ab\xC3\xA9");
  EXPECT_EQ(t.special().bos, 1);
  EXPECT_EQ(t.special().eos, 2);
  EXPECT_TRUE(t.special().add_bos);
  EXPECT_EQ(t.chat_template(), "x");
  const Made without = Tokenizer::parse_tokenizer_json(
      json, R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true})", "t");
  ASSERT_TRUE(without) << without.error().message;
  EXPECT_EQ((*without)->encode("ab", {}), (Ids{9, 2}));
}

TEST(AddedTokens, MarksInThemAreSpaces) {
  // Gemma's runs of spaces are added tokens, which merges lead to as well.
  const std::string json = R"({"added_tokens": [{"id": 2, "content": "▁▁", "special": false, "normalized": false}],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    "model": {"type": "BPE", "vocab": {"a": 0, "▁": 1, "▁▁": 2}, "merges": [["▁", "▁"]]}})";
  const Made made = Tokenizer::parse_tokenizer_json(json, "", "t");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->encode("a  a a", {}), (Ids{0, 2, 0, 1, 0}));
  EXPECT_EQ((*made)->decode(Ids{0, 2, 0, 1, 0}), "a  a a");
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
  const std::string json = R"({"added_tokens": [{"id": 2, "content": "AB", "normalized": true},
                                                {"id": 3, "content": "BB", "normalized": false}],
    "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})";
  const Made made = Tokenizer::parse_tokenizer_json(json, "", "t");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->encode("aBb", {}), (Ids{2, 1}));
  EXPECT_EQ((*made)->encode("BBbb", {}), (Ids{3, 1, 1}));
}

// ---- Unigram

const std::string kUnigram = R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
  "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
  "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["▁", -2], ["a", -3], ["b", -3], ["ab", -4], ["▁ab", -7.5],
            ["abab", -9], ["<0x7A>", -8]]}})";

TEST(Unigram, BestSum) {
  const Made made = Tokenizer::parse_tokenizer_json(kUnigram, "", "t");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.encode("ab", {}), (Ids{1, 4}));       // -2 - 4 > -7.5
  EXPECT_EQ(t.encode("abab", {}), (Ids{1, 4, 4}));  // -8 > -9
  EXPECT_EQ(t.encode("ba ab", {}), (Ids{1, 3, 2, 1, 4}));
  EXPECT_EQ(t.encode("azzb", {}), (Ids{1, 2, 0, 3}));
  EXPECT_EQ(t.decode(Ids{1, 4, 1, 3}), "ab b");
  const Made bytes =
      Tokenizer::parse_tokenizer_json(replaced(kUnigram, R"("unk_id": 0,)", R"("unk_id": 0, "byte_fallback": true,)"), "", "t");
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_EQ((*bytes)->encode("azzb", {}), (Ids{1, 2, 7, 7, 3}));
  EXPECT_EQ((*bytes)->encode("ay", {}), (Ids{1, 2, 0}));
  EXPECT_EQ((*bytes)->piece(7), "z");
}

TEST(Unigram, PrependFirstAndNever) {
  const auto with = [](const std::string& scheme) {
    return Tokenizer::parse_tokenizer_json(
        replaced(kUnigram, R"("prepend_scheme": "always"})", "\"prepend_scheme\": \"" + scheme + "\"}"), "", "t");
  };
  ASSERT_TRUE(with("first"));
  EXPECT_EQ((*with("first"))->encode("a b", {}), (Ids{1, 2, 1, 3}));
  EXPECT_EQ((*with("never"))->encode("a b", {}), (Ids{2, 1, 3}));
  EXPECT_FALSE(with("sometimes"));
}

// ---- WordPiece

const std::string kWordPiece = R"({"normalizer": {"type": "BertNormalizer", "lowercase": true},
  "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece", "prefix": "##"},
  "added_tokens": [{"id": 0, "content": "[UNK]", "special": true}, {"id": 1, "content": "[CLS]", "special": true},
                   {"id": 2, "content": "[SEP]", "special": true}],
  "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
  "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "##aff": 4,
            "##able": 5, "able": 6, ",": 7, "你": 8, "a": 9, "##a": 10}}})";

TEST(WordPiece, LongestFirst) {
  const Made made = Tokenizer::parse_tokenizer_json(kWordPiece, "", "t");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.encode("unaffable", {}), (Ids{1, 3, 4, 5, 2}));
  EXPECT_EQ(t.encode("UNÁffablé ,able", kPlain), (Ids{3, 4, 5, 7, 6}));
  EXPECT_EQ(t.encode("unaffx able", kPlain), (Ids{0, 6}));  // one unknown part makes the word unknown
  EXPECT_EQ(t.encode("un你able", kPlain), (Ids{3, 8, 6}));  // ideographs stand alone
  EXPECT_EQ(t.encode("a\xC2\xAD"
                     "a",
                     kPlain),
            (Ids{9, 10}));  // a soft hyphen is a control character
  EXPECT_EQ(t.encode(std::string(100, 'a'), kPlain).size(), 100U);
  EXPECT_EQ(t.encode(std::string(101, 'a'), kPlain), Ids{0});
  EXPECT_EQ(t.decode(Ids{1, 3, 4, 5, 7, 6, 2}), "unaffable , able");
  EXPECT_EQ(t.kind(), "wordpiece");
}

// ---- tiktoken

TEST(Tiktoken, MergesByRankOfTheResult) {
  // a b c bc ab ca
  const Made made = Tokenizer::parse_tiktoken("YQ== 0\nYg== 1\nYw== 2\nYmM= 3\r\nYWI= 4\nY2E= 5\n", "gpt2", "ranks");
  ASSERT_TRUE(made) << made.error().message;
  const Tokenizer& t = **made;
  EXPECT_EQ(t.encode("abc", {}), (Ids{0, 3}));  // bc is earlier than ab
  EXPECT_EQ(t.encode("abab", {}), (Ids{4, 4}));
  EXPECT_EQ(t.encode("abcab", {}), (Ids{0, 3, 4}));
  EXPECT_EQ(t.encode("caca", {}), (Ids{5, 5}));
  EXPECT_EQ(t.decode(Ids{4, 3}), "abbc");
}

TEST(Tiktoken, RefusesBrokenFiles) {
  for (const char* text : {"", "\n", "YQ==", "YQ== x", "YQ== -1", "YQ== 1 2", "Y Q== 1", "YQ= 0", "Y!== 0", "=A== 0",
                           "YQ== 0\nYg== 0", "YQ== 99999999", "YQ== 70000"}) {
    const Made made = Tokenizer::parse_tiktoken(text, "gpt2", "ranks");
    ASSERT_FALSE(made) << text;
    EXPECT_EQ(made.error().message.rfind("ranks", 0), 0U) << made.error().message;
  }
  EXPECT_FALSE(Tokenizer::parse_tiktoken("YQ== 0", "none", "ranks"));
}

// ---- llama2.c

std::string llama2c_file(const std::vector<std::pair<std::string, float>>& pieces) {
  std::string file;
  const auto word = [&](std::uint32_t value) {
    for (unsigned i = 0; i < 4; ++i) file.push_back(static_cast<char>(value >> (8 * i)));
  };
  word(16);
  for (const auto& [piece, score] : pieces) {
    word(std::bit_cast<std::uint32_t>(score));
    word(static_cast<std::uint32_t>(piece.size()));
    file += piece;
  }
  return file;
}

TEST(Llama2c, ReadsAndRefuses) {
  const std::string file =
      llama2c_file({{"<unk>", 0}, {"\n<s>\n", 0}, {"\n</s>\n", 0}, {" ", -3}, {"a", -4}, {" a", -1}, {"<0x21>", -9}});
  const auto parse = [](const std::string& bytes, std::int64_t count) {
    return Tokenizer::parse_llama2c(std::as_bytes(std::span(bytes)), count, "tokenizer.bin");
  };
  const Made made = parse(file, 7);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->encode("a a!", {}), (Ids{1, 5, 5, 6}));
  EXPECT_EQ((*made)->decode(Ids{1, 5, 5, 6, 2}), "a a!");
  EXPECT_FALSE(parse(file, 0));
  EXPECT_FALSE(parse(file, 6));  // bytes left
  EXPECT_FALSE(parse(file, 8));  // bytes missing
  EXPECT_FALSE(parse(file, std::int64_t{1} << 40));
  for (std::size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(parse(file.substr(0, size), 7)) << size;
  std::string long_piece = file;
  long_piece[8] = '\x7F';  // the first piece's length
  EXPECT_FALSE(parse(long_piece, 7));
}

// ---- Properties of all

TEST(EndOfGeneration, ByFamily) {
  const auto ends = [](const std::vector<std::string>& special, const std::string& config) -> Ids {
    std::string added;
    for (std::size_t i = 0; i < special.size(); ++i) {
      added += (i > 0 ? ", " : "") + std::string(R"({"special": true, "content": ")") + special[i] + R"(", "id": )" +
               std::to_string(i + 1) + "}";
    }
    const Made made = Tokenizer::parse_tokenizer_json(
        R"({"added_tokens": [)" + added + R"(], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})", config, "t");
    if (!made) {
      ADD_FAILURE() << made.error().message;
      return {};
    }
    return (*made)->special().end_of_generation;
  };
  EXPECT_EQ(ends({"<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>"}, ""),
            (Ids{2, 3, 4}));
  EXPECT_EQ(ends({"<|end|>", "<|user|>", "<|assistant|>", "<|endoftext|>"}, ""), (Ids{1, 4}));                 // Phi-3
  EXPECT_EQ(ends({"<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|endoftext|>"}, ""), (Ids{2, 3, 5}));  // gpt-oss
  EXPECT_EQ(ends({"<eos>", "</s>", "<end_of_turn>", "<start_of_turn>"}, ""), (Ids{1, 3}));                     // Gemma
  EXPECT_EQ(ends({"<s>", "</s>", "[INST]"}, ""), (Ids{2}));                                                    // Mistral
  EXPECT_EQ(ends({"<|endoftext|>", "<|user|>", "<|observation|>"}, ""), (Ids{1, 2, 3}));                       // GLM-4
  EXPECT_EQ(ends({"<stop>", "<go>"}, R"({"eos_token": "<stop>"})"), (Ids{1}));
  EXPECT_EQ(ends({"<go>"}, ""), Ids{});
}

TEST(Tokenizer, MegabyteWordsFinish) {
  // Each pair of equal halves merges; a word of 2^20 letters takes 2^20 steps, not 2^40.
  std::string vocab = R"("a": 0)";
  std::string merges;
  std::string piece = "a";
  for (int i = 1; i <= 10; ++i) {
    merges += (i > 1 ? ", " : "") + std::string(R"([")") + piece + R"(", ")" + piece + R"("])";
    piece += piece;
    vocab += ", \"" + piece + "\": " + std::to_string(i);
  }
  const std::string text(std::size_t{1} << 20U, 'a');
  for (const char* steps : {R"("pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},)", ""}) {
    const Made made = Tokenizer::parse_tokenizer_json(
        "{" + std::string(steps) + R"("model": {"type": "BPE", "vocab": {)" + vocab + R"(}, "merges": [)" + merges + "]}}", "",
        "t");
    ASSERT_TRUE(made) << made.error().message;
    const Ids ids = (*made)->encode(text, {});
    EXPECT_EQ(ids, Ids(1024, 10));
    EXPECT_EQ((*made)->decode(ids), text);
  }
  std::vector<std::pair<std::string, float>> pieces{{"<unk>", 0.F}, {"<s>", 0.F}, {"</s>", 0.F}, {" ", -50.F}};
  piece = "a";
  for (int i = 0; i <= 10; ++i, piece += piece) pieces.emplace_back(piece, static_cast<float>(-i));
  const std::string file = llama2c_file(pieces);
  const Made spm = Tokenizer::parse_llama2c(std::as_bytes(std::span(file)), static_cast<std::int64_t>(pieces.size()), "t");
  ASSERT_TRUE(spm) << spm.error().message;
  EXPECT_EQ((*spm)->encode(text, kPlain).size(), 1025U);
  EXPECT_EQ((*spm)->encode(std::string(std::size_t{1} << 20U, ' '), kPlain).size(), (std::size_t{1} << 20U) + 1);
  const Made unigram = Tokenizer::parse_tokenizer_json(kUnigram, "", "t");
  ASSERT_TRUE(unigram);
  EXPECT_EQ((*unigram)->encode(text, {}).size(), (std::size_t{1} << 20U) + 1);
  const Made word = Tokenizer::parse_tokenizer_json(kWordPiece, "", "t");
  ASSERT_TRUE(word);
  EXPECT_EQ((*word)->encode(text, kPlain), Ids{0});
}

TEST(Tokenizer, RepeatedWordsAndThreadsGiveTheSame) {
  const Made made = Tokenizer::parse_tokenizer_json(kBytePairs, "", "t");
  ASSERT_TRUE(made);
  const Tokenizer& t = **made;
  std::string text;
  Ids expected;
  for (int i = 0; i < 500; ++i) {
    text += i % 3 == 0 ? " hello" : i % 3 == 1 ? " hell" : "\n";
    const Ids part = t.encode(i % 3 == 0 ? " hello" : i % 3 == 1 ? " hell" : "\n", {});
    expected.insert(expected.end(), part.begin(), part.end());
  }
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = t.encode(text, {}); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, expected);
}

TEST(Tokenizer, HashIsOfTheMapping) {
  const auto hash = [](const std::string& json, const std::string& config) {
    const Made made = Tokenizer::parse_tokenizer_json(json, config, "t");
    EXPECT_TRUE(made) << made.error().message;
    return made ? (*made)->hash() : 0;
  };
  const std::uint64_t plain = hash(kBytePairs, "");
  EXPECT_EQ(plain, hash(kBytePairs, R"({"chat_template": "other"})"));
  EXPECT_NE(plain, hash(replaced(kBytePairs, "\"loh\"", "\"loe\""), ""));
  EXPECT_NE(plain, hash(replaced(kBytePairs, R"("h e", "l l")", R"("l l", "h e")"), ""));
  EXPECT_NE(plain, hash(replaced(kBytePairs, R"("use_regex": true)", R"("use_regex": false)"), ""));
  EXPECT_NE(plain, hash(replaced(kBytePairs, R"("rstrip": true)", R"("rstrip": false)"), ""));
  EXPECT_NE(plain, hash(kBytePairs, R"({"bos_token": "<|end|>", "add_bos_token": true})"));
}

TEST(TokenizerJson, NormalizersAndPreTokenizers) {
  const auto encode = [](const std::string& normalizer, const std::string& pre_tokenizer,
                         const std::string& text) -> std::string {
    // Every letter is a token; what is unknown is 0.
    const Made made = Tokenizer::parse_tokenizer_json(
        R"({"normalizer": )" + normalizer + R"(, "pre_tokenizer": )" + pre_tokenizer +
            R"(, "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "é": 3, " ": 4, "aa": 5, "ab": 6, "i": 7,
               "f": 8, "-": 9, "e": 10}, "merges": [["a", "a"], ["a", "b"]]}})",
        "", "t");
    if (!made) return made.error().message;
    std::string ids;
    for (const TokenId id : (*made)->encode(text, {})) ids += (ids.empty() ? "" : " ") + std::to_string(id);
    return ids;
  };
  EXPECT_EQ(encode(R"({"type": "NFC"})", "null", "e\u0301"), "3");
  EXPECT_EQ(encode(R"({"type": "NFD"})", "null", "é"), "10 0");
  EXPECT_EQ(encode(R"({"type": "NFKC"})", "null", "\uFB01"), "8 7");
  EXPECT_EQ(encode(R"({"type": "NFKD"})", "null", "\uFB01é"), "8 7 10 0");
  EXPECT_EQ(encode(R"({"type": "Lowercase"})", "null", "AÉB"), "1 3 2");
  EXPECT_EQ(encode(R"({"type": "Strip", "strip_left": true, "strip_right": false})", "null", "  a "), "1 4");
  EXPECT_EQ(encode(R"({"type": "Strip"})", "null", " \t a\n"), "1");
  EXPECT_EQ(encode(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})", "null", "é"), "10");
  EXPECT_EQ(encode(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "-"})", "null", "a   b"), "1 9 2");
  EXPECT_EQ(encode(R"({"type": "Prepend", "prepend": "-"})", "null", "a"), "9 1");
  EXPECT_EQ(encode("null", R"({"type": "WhitespaceSplit"})", "a ab"), "1 6");
  EXPECT_EQ(encode("null", R"({"type": "Whitespace"})", "ab-- b"), "6 9 9 2");
  EXPECT_EQ(encode("null", R"({"type": "CharDelimiterSplit", "delimiter": "-"})", "a-a"), "1 1");
  EXPECT_EQ(encode("null", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Isolated", "invert": false})", "aab"),
            "1 1 2");
  EXPECT_EQ(encode("null", R"({"type": "Split", "pattern": {"Regex": "b"}, "behavior": "Removed"})", "aba"), "1 1");
  for (const char* normalizer : {"Precompiled", "Nmt", "Unheard"}) {
    EXPECT_NE(encode(std::string(R"({"type": ")") + normalizer + "\"}", "null", "").find(normalizer), std::string::npos);
  }
  for (const char* pre_tokenizer : {"UnicodeScripts", "Unheard"}) {
    EXPECT_NE(encode("null", std::string(R"({"type": ")") + pre_tokenizer + "\"}", "").find(pre_tokenizer), std::string::npos);
  }
}

TEST(TokenizerJson, RefusesBrokenFiles) {
  const auto refused = [](const std::string& json, const std::string& config = "") {
    const Made made = Tokenizer::parse_tokenizer_json(json, config, "here");
    EXPECT_FALSE(made) << json;
    if (made) return std::string();
    EXPECT_EQ(made.error().message.rfind("here", 0), 0U) << made.error().message;
    return made.error().message;
  };
  const auto model = [](const std::string& inside) { return R"({"model": {)" + inside + "}}"; };
  refused("");
  refused("[]");
  refused("{}");
  refused("null");
  refused("{\"model\": 1}");
  refused(kBytePairs.substr(0, kBytePairs.size() / 2));
  refused(R"({"model": {"type": "BPE"}})");
  refused(model(R"("type": "WordLevel", "vocab": {"a": 0})"));
  refused(model(R"("type": "BPE", "vocab": {"a": -1}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0.5}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": "x"}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 4194304}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 4000000}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": {}}, "merges": [])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": ["a"])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": ["a a"])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [["a"]])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [1])"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1)"));
  EXPECT_NE(refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>")"))
                .find("end_of_word_suffix"),
            std::string::npos);
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "z")"));
  refused(model(R"("type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": 1)"));
  refused(model(R"("type": "Unigram", "vocab": [["a"]])"));
  refused(model(R"("type": "Unigram", "vocab": [["a", "b"]])"));
  refused(model(R"("type": "Unigram", "vocab": [["a", 1, 2]])"));
  refused(model(R"("type": "Unigram", "vocab": [["a", 1e999]])"));
  refused(model(R"("type": "Unigram", "vocab": [["a", -1]], "unk_id": 1)"));
  refused(model(R"("type": "WordPiece", "vocab": {"a": 0}, "max_input_chars_per_word": -3)"));
  refused(R"({"model": {}, "model": {}})");
  const std::string good = R"("model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})";
  EXPECT_TRUE(Tokenizer::parse_tokenizer_json("{" + good, "", "t"));
  refused(R"({"added_tokens": [{"id": 9000000, "content": "x"}], )" + good);
  refused(R"({"added_tokens": [{"id": -1, "content": "x"}], )" + good);
  refused(R"({"added_tokens": [{"id": 0, "content": "x"}], )" + good);  // token 0 is "a"
  refused(R"({"added_tokens": {}, )" + good);
  refused(R"({"normalizer": {}, )" + good);
  refused(R"({"normalizer": "NFC", )" + good);
  refused(R"({"pre_tokenizer": {"type": "Split"}, )" + good);
  refused(R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}}, )" + good);
  refused(R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "ByteLevel"}]}, )" +
          good);
  refused(R"({"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "zz"}}]}, )" + good);
  refused(R"({"post_processor": {"type": "Unheard"}, )" + good);
  refused(R"({"decoder": {"type": "CTC"}, )" + good);
  refused("{" + good, "[]");
  refused("{" + good, "{");
  refused("{" + good, R"({"bos_token": 1})");
  refused("{" + good, R"({"chat_template": 1})");
  refused("{" + good, R"({"add_bos_token": "yes"})");
  std::string deep(200, '[');
  refused(R"({"extra": )" + deep);
}

TEST(TokenizerJson, ReadsWhatLiesBesideIt) {
  const test::TestFolder folder;
  const auto write = [&](const char* name, const std::string& text) { std::ofstream(folder.path() / name) << text; };
  EXPECT_FALSE(Tokenizer::from_tokenizer_json(folder.path() / "tokenizer.json"));
  write("tokenizer.json", kBytePairs);
  write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  write("generation_config.json", R"({"eos_token_id": [12, 13, 99999]})");
  const Made made = Tokenizer::from_tokenizer_json(folder.path() / "tokenizer.json");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->chat_template(), "d");
  EXPECT_EQ((*made)->special().end_of_generation, (Ids{12, 13}));
  write("chat_template.jinja", "j");
  write("generation_config.json", R"({"eos_token_id": 13})");
  const Made again = Tokenizer::from_tokenizer_json(folder.path() / "tokenizer.json");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ((*again)->chat_template(), "j");
  write("tokenizer_config.json", "{");
  EXPECT_FALSE(Tokenizer::from_tokenizer_json(folder.path() / "tokenizer.json"));
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  // A token for each byte of "é🦙": C3 A9 F0 9F A6 99, and FF.
  const Made made = Tokenizer::parse_tiktoken("ww== 0\nqQ== 1\n8A== 2\nnw== 3\npg== 4\nmQ== 5\n/w== 6\nYQ== 7\n", "gpt2", "t");
  ASSERT_TRUE(made) << made.error().message;
  StreamDecoder stream(**made);
  EXPECT_EQ(stream.push(0), "");
  EXPECT_EQ(stream.push(1), "é");
  EXPECT_EQ(stream.push(2), "");
  EXPECT_EQ(stream.push(3), "");
  EXPECT_EQ(stream.push(4), "");
  EXPECT_EQ(stream.push(5), "🦙");
  EXPECT_EQ(stream.push(6), "\uFFFD");
  EXPECT_EQ(stream.push(0), "");
  EXPECT_EQ(stream.push(7), "\uFFFDa");  // the lead byte was none
  EXPECT_EQ(stream.push(2), "");
  EXPECT_EQ(stream.push(3), "");
  EXPECT_EQ(stream.finish(), "\uFFFD\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push(7), "a");
}

TEST(StreamDecoder, TheFirstWordsSpace) {
  formats::GgufWriter writer;
  set_spm(writer, {});
  const Made made = made_from(writer);
  ASSERT_TRUE(made) << made.error().message;
  StreamDecoder from_start(**made);
  std::string text;
  for (const TokenId id : {1, 3, 8, 3, 8}) text += from_start.push(id);
  EXPECT_EQ(text + from_start.finish(), "he he");
  StreamDecoder after(**made, {.after_text = true});
  text.clear();
  for (const TokenId id : {3, 8}) text += after.push(id);
  EXPECT_EQ(text, " he");
}

}  // namespace
}  // namespace rooftree::text

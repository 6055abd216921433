// Tokenizers against ids that another implementation computed, and against the text of a trained model. Skips without the data.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/test_folder.h"
#include "formats/gguf.h"
#include "text/tokenizer.h"

namespace rooftree::text {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(ROOFTREE_SOURCE_DIR) / "../shared/models";

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> texts_of(const fs::path& path) {
  const std::string all = contents(path);
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  std::size_t at = 0;
  for (std::size_t found = all.find(separator); found != std::string::npos; found = all.find(separator, at)) {
    texts.push_back(all.substr(at, found - at));
    at = found + separator.size();
  }
  if (at < all.size()) texts.push_back(all.substr(at));
  return texts;
}

std::vector<std::vector<TokenId>> ids_of(const fs::path& path) {
  std::istringstream lines(contents(path));
  std::vector<std::vector<TokenId>> all;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    auto& ids = all.emplace_back();
    for (TokenId id = 0; numbers >> id;) ids.push_back(id);
  }
  return all;
}

// `name`.gguf or `name`.gguf.gz, unpacked into `folder`.
Result<std::shared_ptr<const Tokenizer>> tokenizer_of(const std::string& name, const fs::path& folder) {
  fs::path file = kModels / (name + ".gguf");
  if (!fs::exists(file)) {
    file = folder / (fs::path(name).filename().string() + ".gguf");
    const std::string command = "gzip -dc '" + (kModels / (name + ".gguf.gz")).string() + "' > '" + file.string() + "'";
    if (std::system(command.c_str()) != 0) return Error{ErrorCode::kEnvironment, "gzip failed on " + name};
  }
  ROOFTREE_TRY(const formats::GgufFile gguf, formats::GgufFile::open(file));
  return Tokenizer::from_gguf(gguf);
}

struct Case {
  const char* model;  // GGUF
  const char* texts;  // .inp
  const char* ids;    // .out
  bool byte_exact;    // decoding gives the text back
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.model; }

class TokenizerVectors : public testing::TestWithParam<Case> {};

TEST_P(TokenizerVectors, EncodeAndDecode) {
  if (!fs::exists(kModels / "vocab")) GTEST_SKIP() << "no test vectors at " << kModels;
  const Case& c = GetParam();
  const test::TestFolder folder;
  const auto tokenizer = tokenizer_of(c.model, folder.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  auto texts = texts_of(kModels / "vocab" / c.texts);
  const auto ids = ids_of(kModels / "vocab" / c.ids);
  if (ids.size() == texts.size() + 1) texts.emplace_back();  // some count the empty text after the last separator
  ASSERT_EQ(texts.size(), ids.size());
  ASSERT_GT(texts.size(), 40U);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto encoded = (*tokenizer)->encode(texts[i], {.add_special = false, .parse_special = false});
    EXPECT_EQ(encoded, ids[i]) << "text " << i << ": " << texts[i];
    if (c.byte_exact) {
      EXPECT_EQ((*tokenizer)->decode(encoded), texts[i]) << "text " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerVectors,
                         testing::Values(Case{"vocab/llama-spm", "llama-spm.inp", "llama-spm.out", true},
                                         Case{"vocab/gpt-2", "gpt-2.inp", "gpt-2.out", true},
                                         Case{"vocab/bert-bge", "bert-bge.inp", "bert-bge.out", false},
                                         Case{"stories260k-f32", "small.inp", "small-stories260k.out", true},
                                         Case{"llama-q4_0", "small.inp", "small-llama.out", true},
                                         Case{"gemma2-f16", "small.inp", "small-llama.out", true},
                                         Case{"gemma3-f16", "small.inp", "small-llama.out", true},
                                         Case{"phi3-f16", "small.inp", "small-llama.out", true},
                                         Case{"mixtral-f16", "small.inp", "small-llama.out", true},
                                         Case{"llama3-f16", "small.inp", "small-llama3.out", true},
                                         Case{"qwen2-f16", "small.inp", "small-qwen2.out", true},
                                         Case{"qwen3-f16", "small.inp", "small-qwen2.out", true},
                                         Case{"gpt2-f16", "small.inp", "small-gpt2.out", true},
                                         Case{"starcoder2-f16", "small.inp", "small-starcoder2.out", true},
                                         Case{"falcon-f16", "small.inp", "small-falcon.out", true},
                                         Case{"deepseek2-f16", "small.inp", "small-deepseek2.out", true},
                                         Case{"gptoss-f16", "small.inp", "small-gptoss.out", true}),
                         [](const testing::TestParamInfo<Case>& tested) {
                           std::string name = tested.param.model;
                           for (char& letter : name)
                             letter = std::isalnum(static_cast<unsigned char>(letter)) != 0 ? letter : '_';
                           return name;
                         });

TEST(TokenizerVectors, GreedyTextOfStories) {
  const fs::path folder = kModels / "stories260k";
  if (!fs::exists(folder)) GTEST_SKIP() << "no model at " << folder;
  const auto json = parse_json(contents(folder / "greedy-200.json"), "greedy-200.json");
  ASSERT_TRUE(json) << json.error().message;
  std::vector<TokenId> ids;
  for (const auto& [key, value] : json->items()) {
    if (value.is_array() && value.size() == 201) ids = value.get<std::vector<TokenId>>();
  }
  ASSERT_EQ(ids.size(), 201U);
  const std::string text = contents(folder / "greedy-200.txt");
  const test::TestFolder unpacked;
  const auto from_gguf = tokenizer_of("stories260k-f32", unpacked.path());
  ASSERT_TRUE(from_gguf) << from_gguf.error().message;
  EXPECT_EQ((*from_gguf)->decode(ids), text);
  const std::string file = contents(folder / "tokenizer.bin");
  const auto from_bin = Tokenizer::parse_llama2c(std::as_bytes(std::span(file)), 512, "tokenizer.bin");
  ASSERT_TRUE(from_bin) << from_bin.error().message;
  EXPECT_EQ((*from_bin)->decode(ids), text);
  StreamDecoder stream(**from_bin);
  std::string streamed;
  for (const TokenId id : ids) streamed += stream.push(id);
  EXPECT_EQ(streamed + stream.finish(), text);
  // The two files hold the same vocabulary.
  for (const std::string& sample : texts_of(kModels / "vocab/small.inp")) {
    EXPECT_EQ((*from_bin)->encode(sample, {}), (*from_gguf)->encode(sample, {})) << sample;
  }
  EXPECT_EQ((*from_bin)->encode(text, {}), ids);
}

}  // namespace
}  // namespace rooftree::text

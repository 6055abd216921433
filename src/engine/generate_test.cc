#include "engine/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/test_folder.h"
#include "engine/engine.h"
#include "engine/model_files.h"

namespace rooftree::engine {
namespace {

constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128,
  "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu"})";

// Token i is the character with the code 32 + i; 95 is a control token that may end an answer.
class Characters final : public text::Tokenizer {
 public:
  explicit Characters(std::vector<TokenId> ends) { special_.end_of_generation = std::move(ends); }
  [[nodiscard]] std::vector<TokenId> encode(std::string_view text, const text::EncodeOptions&) const override {
    std::vector<TokenId> tokens;
    for (const char c : text) tokens.push_back(c - 32);
    return tokens;
  }
  [[nodiscard]] std::string piece(TokenId token, bool) const override {
    return token == 95 ? std::string() : std::string(1, static_cast<char>(32 + token));
  }
  [[nodiscard]] std::string decode(std::span<const TokenId> tokens, bool special) const override {
    std::string text;
    for (const TokenId token : tokens) text += piece(token, special);
    return text;
  }
  [[nodiscard]] std::int64_t vocabulary() const override { return 96; }
  [[nodiscard]] const text::SpecialTokens& special() const override { return special_; }
  [[nodiscard]] std::string_view kind() const override { return "characters"; }
  [[nodiscard]] std::string_view chat_template() const override { return {}; }
  [[nodiscard]] std::uint64_t hash() const override { return 1; }

 private:
  text::SpecialTokens special_;
};

EngineOptions small_options() {
  EngineOptions options;
  options.threads = 2;
  options.kv_tokens = 512;
  options.page_tokens = 16;
  options.max_rows = 64;
  return options;
}

std::unique_ptr<Engine> load(std::vector<TokenId> ends = {}) {
  const auto model = model::parse_hf_config(kConfig, "test");
  auto files = std::move(ModelFiles::synthetic(*model, DType::kQ4_0, 3)).value();
  files.tokenizer = std::make_shared<Characters>(std::move(ends));
  return std::move(Engine::load(std::move(files), small_options())).value();
}

struct Answer {
  GenerateResult result;
  std::string text;
};

Answer answer(Engine& engine, std::string_view prompt, GenerateOptions options) {
  Answer out;
  options.on_text = [&](std::string_view text) {
    EXPECT_FALSE(text.empty());
    out.text += text;
  };
  Sequence sequence(engine);
  sequence.append(engine.tokenizer()->encode(prompt, {}));
  auto result = generate(engine, sequence, options, {});
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  if (result) out.result = *result;
  return out;
}

GenerateOptions sampled(std::int64_t tokens) {
  GenerateOptions options;
  options.max_tokens = tokens;
  options.sampler.temperature = 1.0F;
  options.sampler.seed = 2;
  return options;
}

TEST(GenerateText, IsThatOfTheTokens) {
  const auto engine = load();
  const Answer plain = answer(*engine, "Hello", sampled(40));
  EXPECT_EQ(plain.text, engine->tokenizer()->decode(plain.result.tokens));
  EXPECT_EQ(plain.result.tokens.size(), 40U);
  EXPECT_EQ(plain.result.reason, StopReason::kMaxTokens);
}

TEST(GenerateText, EndsBeforeAStopText) {
  const auto engine = load();
  const std::string whole = answer(*engine, "Hello", sampled(40)).text;
  ASSERT_GE(whole.size(), 30U);
  for (const std::size_t length : {1, 2, 5}) {
    const std::string stop = whole.substr(20, length);
    const std::size_t at = whole.find(stop);
    GenerateOptions options = sampled(40);
    // A stop text that never comes, and one that begins like the text but goes on otherwise, change nothing.
    options.stop = {"\x01", whole.substr(5, 3) + "\x01", stop};
    const Answer stopped = answer(*engine, "Hello", options);
    EXPECT_EQ(stopped.text, whole.substr(0, at));
    EXPECT_EQ(stopped.result.reason, StopReason::kStopText);
    EXPECT_EQ(engine->tokenizer()->decode(stopped.result.tokens), whole.substr(0, at + length));
    options.lookup = 4;
    const Answer drafted = answer(*engine, "Hello", options);
    EXPECT_EQ(drafted.text, stopped.text);
    EXPECT_EQ(drafted.result.tokens, stopped.result.tokens);
  }
  // What was held back as the beginning of a stop text comes out at the end.
  GenerateOptions options = sampled(40);
  options.stop = {whole.substr(35) + "\x01"};
  EXPECT_EQ(answer(*engine, "Hello", options).text, whole);
}

TEST(GenerateText, EndsAtAnEndToken) {
  const std::vector<TokenId> tokens = answer(*load(), "Hello", sampled(40)).result.tokens;
  const TokenId end = tokens[12];
  const auto first = static_cast<std::size_t>(std::find(tokens.begin(), tokens.end(), end) - tokens.begin());
  const auto engine = load({end});
  const Answer ended = answer(*engine, "Hello", sampled(40));
  EXPECT_EQ(ended.result.reason, StopReason::kEnd);
  EXPECT_EQ(ended.result.tokens, std::vector<TokenId>(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(first)));
  GenerateOptions options = sampled(40);
  options.ignore_end = true;
  EXPECT_EQ(answer(*engine, "Hello", options).result.tokens, tokens);
}

TEST(GenerateText, FollowsAGrammarWithAndWithoutDrafts) {
  const auto engine = load({95});
  const auto grammar = text::Grammar::parse_gbnf("root ::= \"(\" [0-9]+ (\",\" [0-9]+)* \")\"", "test");
  ASSERT_TRUE(grammar.has_value()) << grammar.error().message;
  GenerateOptions options = sampled(200);
  options.grammar = &*grammar;
  const Answer plain = answer(*engine, "Hello (1,1,1", options);
  ASSERT_FALSE(plain.text.empty());
  EXPECT_EQ(plain.text.front(), '(');
  EXPECT_EQ(plain.text.find_first_not_of("(),0123456789"), std::string::npos) << plain.text;
  if (plain.result.reason == StopReason::kEnd) {
    EXPECT_EQ(plain.text.back(), ')');
  }
  options.lookup = 4;
  EXPECT_EQ(answer(*engine, "Hello (1,1,1", options).text, plain.text);
}

TEST(GenerateText, AGrammarThatAllowsNothingIsAnError) {
  const auto engine = load();  // no token ends an answer, and the text may not go on
  const auto grammar = text::Grammar::parse_gbnf("root ::= \"ab\"", "test");
  ASSERT_TRUE(grammar.has_value());
  GenerateOptions options = sampled(20);
  options.grammar = &*grammar;
  Sequence sequence(*engine);
  sequence.append(engine->tokenizer()->encode("x", {}));
  const auto result = generate(*engine, sequence, options, {});
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().message.find("no token may come next"), std::string::npos) << result.error().message;
}

// ---- a folder of Hugging Face files

// One safetensors file of f32 tensors.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& tensors,
                       const std::vector<std::vector<std::byte>>& data) {
  std::string header = "{";
  std::size_t offset = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    header += (i > 0 ? "," : "") + ("\"" + tensors[i].first) + "\":{\"dtype\":\"F32\",\"shape\":[";
    for (std::size_t j = 0; j < tensors[i].second.size(); ++j) {
      header += (j > 0 ? "," : "") + std::to_string(tensors[i].second[j]);
    }
    header += "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + data[i].size()) + "]}";
    offset += data[i].size();
  }
  header += "}";
  std::ofstream file(path, std::ios::binary);
  const std::uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << header;
  for (const auto& bytes : data)
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// The weights of a random model, cut up the way Hugging Face names them, give the same bits.
TEST(ModelFiles, HuggingFaceFolder) {
  const auto model = model::parse_hf_config(kConfig, "test");
  ASSERT_TRUE(model.has_value());
  auto random = std::move(ModelFiles::synthetic(*model, DType::kF32, 3)).value();
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> tensors;
  std::vector<std::vector<std::byte>> data;
  const auto add = [&](const std::string& name, const std::string& source, std::int64_t first, std::int64_t rows,
                       std::int64_t k) {
    const auto view = random.tensors->find(source);
    ASSERT_TRUE(view.has_value()) << view.error().message;
    const auto bytes = view->bytes.subspan(static_cast<std::size_t>(first * k) * 4, static_cast<std::size_t>(rows * k) * 4);
    tensors.emplace_back(name, rows == 1 ? std::vector<std::int64_t>{k} : std::vector<std::int64_t>{rows, k});
    data.emplace_back(bytes.begin(), bytes.end());
  };
  add("model.embed_tokens.weight", "embedding.weight", 0, 96, 128);
  add("model.norm.weight", "final_norm.weight", 0, 1, 128);
  for (const std::string layer : {"0", "1"}) {
    const std::string to = "model.layers." + layer + ".", from = layer + ".";
    add(to + "input_layernorm.weight", from + "input_norm.weight", 0, 1, 128);
    add(to + "post_attention_layernorm.weight", from + "feed_forward_norm.weight", 0, 1, 128);
    add(to + "self_attn.q_proj.weight", from + "attention.qkv.weight", 0, 128, 128);
    add(to + "self_attn.k_proj.weight", from + "attention.qkv.weight", 128, 64, 128);
    add(to + "self_attn.v_proj.weight", from + "attention.qkv.weight", 192, 64, 128);
    add(to + "self_attn.o_proj.weight", from + "attention.output.weight", 0, 128, 128);
    add(to + "mlp.gate_proj.weight", from + "feed_forward.gate_up.weight", 0, 256, 128);
    add(to + "mlp.up_proj.weight", from + "feed_forward.gate_up.weight", 256, 256, 128);
    add(to + "mlp.down_proj.weight", from + "feed_forward.down.weight", 0, 128, 256);
  }
  const test::TestFolder folder;
  std::ofstream(folder.path() / "config.json") << kConfig;
  write_safetensors(folder.path() / "model.safetensors", tensors, data);

  const auto logits = [](Engine& engine) {
    Sequence sequence(engine);
    const std::vector<TokenId> tokens = {1, 5, 9, 33, 70, 2, 8};
    sequence.append(tokens);
    const auto chunk = sequence.prepare(99, Logits::kAll);
    const auto step = engine.step({&*chunk, 1});
    EXPECT_TRUE(step.has_value());
    return std::vector<float>(step->logits.begin(), step->logits.end());
  };
  const auto expected = Engine::load(std::move(random), small_options());
  ASSERT_TRUE(expected.has_value()) << expected.error().message;
  for (const std::filesystem::path& spec :
       {folder.path(), folder.path() / "config.json", folder.path() / "model.safetensors"}) {
    auto files = ModelFiles::open(spec.string());
    ASSERT_TRUE(files.has_value()) << files.error().message;
    EXPECT_EQ(files->tokenizer, nullptr);
    const auto engine = Engine::load(std::move(files).value(), small_options());
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    EXPECT_EQ(logits(**engine), logits(**expected));
  }

  // What is missing is named.
  tensors.pop_back();
  data.pop_back();
  write_safetensors(folder.path() / "model.safetensors", tensors, data);
  const auto incomplete = Engine::load(std::move(ModelFiles::open(folder.path().string())).value(), small_options());
  ASSERT_FALSE(incomplete.has_value());
  EXPECT_NE(incomplete.error().message.find("model.layers.1.mlp.down_proj.weight"), std::string::npos)
      << incomplete.error().message;
  std::filesystem::remove(folder.path() / "config.json");
  EXPECT_FALSE(ModelFiles::open(folder.path().string()).has_value());
  std::ofstream(folder.path() / "notes.txt") << "x";
  EXPECT_EQ(ModelFiles::open((folder.path() / "notes.txt").string()).error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace rooftree::engine

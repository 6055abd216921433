#include "model/gguf_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/test_folder.h"
#include "formats/gguf_writer.h"

namespace rooftree::model {
namespace {

using formats::GgufScalar;

std::uint32_t u(std::uint32_t value) { return value; }

struct TestTensor {
  std::string name;
  std::vector<std::int64_t> extents;
  DType type = DType::kF32;
  float value = 1;
};

// A file as data, changed by tests and written.
struct TestFile {
  std::map<std::string, GgufScalar> keys;
  std::vector<TestTensor> tensors;

  Result<Model> parse() const {
    const test::TestFolder folder;
    const std::filesystem::path path = folder.path() / "made.gguf";
    formats::GgufWriter writer;
    for (const auto& [key, value] : keys) writer.set(key, value);
    for (const TestTensor& tensor : tensors) ROOFTREE_TRY_VOID(writer.declare(tensor.name, tensor.type, tensor.extents));
    ROOFTREE_TRY_VOID(writer.open(path));
    for (const TestTensor& tensor : tensors) {
      std::size_t count = 1;
      for (const std::int64_t extent : tensor.extents) count *= static_cast<std::size_t>(extent);
      if (tensor.type == DType::kF32) {
        const std::vector<float> values(count, tensor.value);
        ROOFTREE_TRY_VOID(writer.append(std::as_bytes(std::span(values))));
      } else {
        const std::vector<std::byte> bytes(formats::row_bytes(tensor.type, static_cast<std::int64_t>(count)));
        ROOFTREE_TRY_VOID(writer.append(bytes));
      }
    }
    ROOFTREE_TRY_VOID(writer.finish());
    ROOFTREE_TRY(const formats::GgufFile file, formats::GgufFile::open(path));
    return parse_gguf(file);
  }
  [[nodiscard]] std::string message() const {
    const auto model = parse();
    if (model) return "no error";
    const std::string& text = model.error().message;
    const std::size_t where = text.find("made.gguf: ");
    return where == std::string::npos ? text : text.substr(where + 11);
  }
  TestFile& set(const std::string& key, GgufScalar value) {
    keys[key] = std::move(value);
    return *this;
  }
  TestFile& without(const std::string& key) {
    keys.erase(key);
    return *this;
  }
};

TestFile made(const std::string& a) {
  TestFile file;
  file.keys = {{"general.architecture", a},
               {a + ".block_count", u(6)},
               {a + ".embedding_length", u(64)},
               {a + ".feed_forward_length", u(96)},
               {a + ".context_length", u(512)},
               {a + ".attention.head_count", u(4)},
               {a + ".attention.head_count_kv", u(2)},
               {a + ".attention.layer_norm_rms_epsilon", 1e-6F}};
  file.tensors = {{"token_embd.weight", {100, 64}}};
  return file;
}

TEST(ParseGguf, ReadsALlama) {
  TestFile file = made("llama");
  file.set("general.name", "Made Up").set("llama.rope.freq_base", 500'000.0F);
  const auto model = file.parse();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->id, "made");
  EXPECT_EQ(model->name, "Made Up");
  EXPECT_EQ(model->family, "llama");
  EXPECT_EQ(model->max_context, 512);
  EXPECT_EQ(model->native_weight_type, DType::kF32);
  const auto graph = model->build(Phase::decode(1, 10));
  // Tied: no output.weight in the file.
  EXPECT_EQ(parameter_count(*graph), 100 * 64 + 64 + 6.0 * (2 * 64 + 64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 96));
  const Numerics& n = **model->numerics();
  EXPECT_EQ(n.norm_epsilon, 1e-6F);
  EXPECT_EQ(n.global.rope.pairing, RopePairing::kNeighbours);
  EXPECT_DOUBLE_EQ(n.global.rope.inverse_frequencies[1], std::pow(500'000, -2.0 / 16));
  file.tensors.push_back({"output.weight", {100, 64}});
  EXPECT_EQ(parameter_count(*file.parse()->build(Phase::decode(1, 10))), parameter_count(*graph) + 6400);
}

TEST(ParseGguf, TypeOfMostValues) {
  TestFile file = made("llama");
  file.tensors.push_back({"blk.0.attn_norm.weight", {1 << 20}});  // a vector does not count
  file.tensors.push_back({"blk.0.attn_q.weight", {64, 64}, DType::kQ8_0});
  EXPECT_EQ(file.parse()->native_weight_type, DType::kF32);
  file.tensors.push_back({"blk.0.ffn_up.weight", {96, 64}, DType::kQ8_0});
  EXPECT_EQ(file.parse()->native_weight_type, DType::kQ8_0);
}

TEST(ParseGguf, BiasesAndFactorsComeFromTensors) {
  TestFile file = made("qwen2");
  EXPECT_EQ(file.parse()->build(Phase::decode(1, 1))->blocks[1].nodes[1].inputs.size(), 2U);
  file.tensors.push_back({"blk.0.attn_k.bias", {32}});
  EXPECT_EQ(file.parse()->build(Phase::decode(1, 1))->blocks[1].nodes[1].inputs.size(), 3U);
  TestFile llama3 = made("llama");
  llama3.tensors.push_back({"rope_freqs.weight", {8}, DType::kF32, 4});
  const auto model = llama3.parse();
  EXPECT_DOUBLE_EQ((*model->numerics())->global.rope.inverse_frequencies[0], 0.25);
  llama3.tensors.back().extents = {7};
  EXPECT_EQ(llama3.parse()->not_executable, "7 factors of the rotation for 8 rotated pairs");
  llama3.tensors.back() = {"rope_freqs.weight", {8}, DType::kF32, 0};
  EXPECT_EQ(llama3.message(), "rope_freqs.weight: 0; expected positive numbers");
  llama3.tensors.back() = {"rope_freqs.weight", {8}, DType::kF16};
  EXPECT_EQ(llama3.message(), "rope_freqs.weight: 16 bytes of f16; expected a short f32 tensor");
}

std::vector<std::int32_t> local_layers(const Model& model) {
  std::vector<std::int32_t> layers;
  const auto graph = model.build(Phase::decode(1, 10));
  for (const Block& block : graph->blocks) {
    if (block.local) layers.insert(layers.end(), block.layers.begin(), block.layers.end());
  }
  return layers;
}

TEST(ParseGguf, Windows) {
  TestFile gemma2 = made("gemma2");
  EXPECT_EQ(local_layers(*gemma2.parse()), (std::vector<std::int32_t>{0, 2, 4}));
  TestFile gemma3 = made("gemma3");
  gemma3.set("gemma3.attention.sliding_window", u(16));
  EXPECT_EQ(local_layers(*gemma3.parse()), (std::vector<std::int32_t>{0, 1, 2, 3, 4}));
  gemma3.set("gemma3.attention.sliding_window_pattern", u(3));
  EXPECT_EQ(local_layers(*gemma3.parse()), (std::vector<std::int32_t>{0, 1, 3, 4}));
  gemma3.set("gemma3.attention.sliding_window_pattern", std::vector<std::int32_t>{1, 0, 1, 0, 1, 0});
  EXPECT_EQ(local_layers(*gemma3.parse()), (std::vector<std::int32_t>{0, 2, 4}));
  gemma3.set("gemma3.attention.sliding_window_pattern", std::vector<std::int32_t>{1, 0, 0, 0, 1, 0});
  EXPECT_EQ(gemma3.message(),
            "gemma3.attention.sliding_window_pattern: an irregular list; expected a window in all layers but every n-th");
  gemma3.set("gemma3.attention.sliding_window_pattern", std::vector<std::int32_t>{1, 0});
  EXPECT_NE(gemma3.message(), "no error");
  const Numerics n = **made("gemma3").parse()->numerics();
  EXPECT_DOUBLE_EQ(n.local.rope.inverse_frequencies[4], std::pow(10'000, -0.5));
}

TEST(ParseGguf, YarnOfGptOss) {
  TestFile file = made("gpt-oss");
  file.set("gpt-oss.expert_count", u(8)).set("gpt-oss.expert_used_count", u(2));
  file.set("gpt-oss.rope.scaling.type", "yarn").set("gpt-oss.rope.scaling.factor", 32.0F);
  file.set("gpt-oss.rope.scaling.original_context_length", u(4096)).set("gpt-oss.rope.freq_base", 150'000.0F);
  const auto model = file.parse();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const Numerics& n = **model->numerics();
  EXPECT_FLOAT_EQ(n.local.rope.magnitude, static_cast<float>(0.1 * std::log(32.0) + 1));
  EXPECT_EQ(n.local.rope.inverse_frequencies[0], 1);
  EXPECT_DOUBLE_EQ(n.global.rope.inverse_frequencies[7], std::pow(150'000, -14.0 / 16) / 32);
  EXPECT_TRUE(n.routing.softmax_over_chosen);
  EXPECT_EQ(n.activation, Activation::kSwigluClamped);
}

TestFile made_deepseek() {
  TestFile file = made("deepseek2");
  file.set("deepseek2.attention.kv_lora_rank", u(32)).set("deepseek2.rope.dimension_count", u(8));
  file.set("deepseek2.attention.key_length", u(40)).set("deepseek2.attention.value_length", u(32));
  file.set("deepseek2.attention.key_length_mla", u(24)).set("deepseek2.attention.value_length_mla", u(12));
  file.set("deepseek2.expert_count", u(8)).set("deepseek2.expert_used_count", u(2));
  file.set("deepseek2.expert_feed_forward_length", u(48)).set("deepseek2.leading_dense_block_count", u(1));
  return file;
}

TEST(ParseGguf, DeepSeek) {
  TestFile file = made_deepseek();
  const auto softmax = file.parse();
  ASSERT_TRUE(softmax.has_value()) << softmax.error().message;
  EXPECT_EQ((*softmax->numerics())->routing.scoring, RouteScoring::kSoftmax);
  EXPECT_FLOAT_EQ((*softmax->numerics())->global.scale, 1 / std::sqrt(24.0F));
  EXPECT_EQ((*softmax->numerics())->global.rope.offset, 32);
  file.set("deepseek2.rope.scaling.type", "yarn").set("deepseek2.rope.scaling.factor", 40.0F);
  file.set("deepseek2.rope.scaling.original_context_length", u(4096));
  file.set("deepseek2.rope.scaling.yarn_log_multiplier", 0.1F);
  file.set("deepseek2.expert_gating_func", u(2)).set("deepseek2.expert_weights_scale", 2.5F);
  file.set("deepseek2.expert_weights_norm", true);
  file.set("deepseek2.expert_group_count", u(4)).set("deepseek2.expert_group_used_count", u(2));
  file.tensors.push_back({"blk.5.exp_probs_b.bias", {8}});
  const auto model = file.parse();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  const Numerics& n = **model->numerics();
  const double magnitude = 0.1 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(n.global.scale, static_cast<float>(magnitude * magnitude / std::sqrt(24.0)));
  EXPECT_EQ(n.global.rope.magnitude, 1);
  EXPECT_EQ(n.routing.scoring, RouteScoring::kSigmoid);
  EXPECT_TRUE(n.routing.selection_bias && n.routing.normalise);
  EXPECT_EQ(n.routing.weight_scale, 2.5F);
  EXPECT_EQ(n.routing.groups, 4);
  EXPECT_EQ(n.routing.chosen_groups, 2);
}

TEST(ParseGguf, RefusesByName) {
  struct Case {
    std::function<void(TestFile&)> change;
    std::string message;
  };
  const std::string known =
      "llama, qwen2, qwen2moe, qwen3, qwen3moe, gemma, gemma2, gemma3, phi2, phi3, gpt2, falcon, starcoder2, deepseek2, "
      "gpt-oss, "
      "glm4, chatglm, bert";
  const Case cases[] = {
      {[](TestFile& f) { f.set("general.architecture", "mamba"); },
       "general.architecture: 'mamba' is not known; expected one of " + known},
      {[](TestFile& f) { f.without("general.architecture"); }, "metadata 'general.architecture'"},
      {[](TestFile& f) { f.set("general.architecture", u(1)); }, "metadata 'general.architecture'"},
      {[](TestFile& f) { f.without("llama.block_count"); }, "metadata 'llama.block_count'"},
      {[](TestFile& f) { f.set("llama.block_count", "six"); }, "metadata 'llama.block_count'"},
      {[](TestFile& f) { f.set("llama.block_count", u(0)); }, "llama.block_count: 0; expected 1..100000"},
      {[](TestFile& f) { f.set("llama.attention.head_count", std::int32_t{-4}); },
       "llama.attention.head_count: -4; expected 1.."},
      {[](TestFile& f) {
         f.set("llama.attention.head_count_kv", std::vector<std::int32_t>{2, 2});
       },
       "metadata 'llama.attention.head_count_kv'"},
      {[](TestFile& f) { f.set("llama.attention.head_count_kv", u(3)); },
       "attention.kv_heads: 3; expected a divisor of attention.heads 4"},
      {[](TestFile& f) { f.without("llama.attention.layer_norm_rms_epsilon"); },
       "llama.attention.layer_norm_rms_epsilon: missing; expected the epsilon of its norms"},
      {[](TestFile& f) { f.set("llama.attention.layer_norm_rms_epsilon", std::nanf("")); },
       "llama.attention.layer_norm_rms_epsilon: nan; expected a number in 0..1"},
      {[](TestFile& f) { f.without("llama.feed_forward_length"); }, "feed_forward.width: 0; expected"},
      {[](TestFile& f) { f.tensors[0].name = "other"; }, "token_embd.weight: missing; expected this tensor"},
      {[](TestFile& f) {
         f.tensors[0].extents = {100, 8, 8};
       },
       "token_embd.weight: 3 dimensions; expected 2"},
      {[](TestFile& f) { f.set("llama.rope.scaling.type", "spiral"); },
       "llama.rope.scaling.type: 'spiral'; expected none, linear, yarn or longrope"},
      {[](TestFile& f) { f.set("llama.rope.scaling.type", "longrope"); },
       "rope_factors_short.weight: missing; expected this tensor, for the scaling longrope"},
      {[](TestFile& f) { f.set("llama.rope.dimension_count", u(20)); }, "attention.rotary_dim: 20; expected 0..16"},
      {[](TestFile& f) { f.set("llama.expert_count", u(4)); }, "metadata 'llama.expert_used_count'"},
      {[](TestFile& f) { f.set("llama.expert_count", u(4)).set("llama.expert_used_count", u(5)); },
       "moe.top_k: 5; expected 1..4"},
  };
  for (const Case& c : cases) {
    TestFile file = made("llama");
    c.change(file);
    const std::string message = file.message();
    EXPECT_EQ(message.substr(0, c.message.size()), c.message);
  }
  TestFile deepseek = made_deepseek();
  deepseek.set("deepseek2.expert_gating_func", u(3));
  EXPECT_EQ(deepseek.message(), "deepseek2.expert_gating_func: 3; expected 1 (softmax) or 2 (sigmoid)");
  deepseek = made_deepseek();
  deepseek.set("deepseek2.expert_group_count", u(3));
  EXPECT_EQ(deepseek.message(), "deepseek2.expert_group_count: 3, of which 3 are used; expected a divisor of 8 experts");
  deepseek = made_deepseek();
  deepseek.set("deepseek2.attention.key_length_mla", u(8));
  EXPECT_EQ(deepseek.message(), "attention.nope_dim: 0; expected 1..65536");
}

// The seeds of the fuzzer are models, so that it starts behind the refusals.
TEST(ParseGguf, SeedsAreModels) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(ROOFTREE_SOURCE_DIR) + "/fuzz/corpus/gguf_config")) {
    const auto file = formats::GgufFile::open(entry.path());
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto model = parse_gguf(*file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_EQ(model->numerics().has_value(), model->family != "bert") << model->not_executable;
    ++files;
  }
  EXPECT_GE(files, 9);
}

TEST(ParseGguf, Bert) {
  TestFile file = made("bert");
  file.without("bert.attention.layer_norm_rms_epsilon").set("bert.attention.layer_norm_epsilon", 1e-12F);
  file.tensors.push_back({"position_embd.weight", {512, 64}});
  file.tensors.push_back({"token_types.weight", {2, 64}});
  const auto model = file.parse();
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_EQ(model->not_executable, "models of the kind 'encoder'");
  const double layer = 4 * (64 * 64 + 64) + 2 * 64 * 96 + 96 + 64 + 4 * 64;
  EXPECT_EQ(parameter_count(*model->build(Phase::prefill(1, 10))), (100 + 512 + 2) * 64 + 2 * 64 + 6 * layer);
}

}  // namespace
}  // namespace rooftree::model

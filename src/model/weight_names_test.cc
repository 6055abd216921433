#include "model/weight_names.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "base/json.h"
#include "base/test_folder.h"
#include "model/gguf_config.h"

namespace rooftree::model {
namespace {

using Tensors = std::map<std::string, std::vector<std::int64_t>, std::less<>>;

std::int64_t count_of(const std::vector<std::int64_t>& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, std::multiplies<>());
}

Graph decode_graph(const Model& model) {
  auto graph = model.build(Phase::decode(1, 8));
  EXPECT_TRUE(graph.has_value()) << (graph ? "" : graph.error().message);
  return graph ? std::move(graph).value() : Graph{};
}

// Binds every weight that the graph's nodes read to tensors, checks that sizes fit and that no row of a tensor is used twice,
// and returns how many values of each tensor were used.
std::map<std::string, std::int64_t> bind_all(const Model& model, Naming naming, const Tensors& tensors) {
  const Graph graph = decode_graph(model);
  const auto has = [&](std::string_view name) { return tensors.contains(name); };
  std::map<std::string, std::int64_t> used;
  std::set<std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>> slices;
  const auto bind = [&](const Value& value, std::int64_t layer) {
    const std::string where = fmt::format("{} {} of layer {}", model.id, value.name, layer);
    const auto parts = weight_parts(model, naming, value, layer, has);
    ASSERT_TRUE(parts.has_value()) << where << ": " << parts.error().message;
    const std::int64_t k = weight_is_vector(value.name) ? 1 : value.shape.extents.back();
    std::int64_t rows = 0;
    for (const WeightPart& part : *parts) {
      const auto found = tensors.find(part.tensor);
      if (found == tensors.end()) {
        ASSERT_TRUE(part.optional && part.rows > 0) << where << ": no tensor " << part.tensor;
        rows += part.rows;
        continue;
      }
      using Change = WeightPart::Change;
      const bool transposed = part.change == Change::kTranspose || part.change == Change::kTransposeInterleave;
      const std::int64_t stored_k = transposed ? found->second.back() : k;
      const std::int64_t count = count_of(found->second);
      ASSERT_EQ(count % stored_k, 0) << where << ": " << part.tensor;
      ASSERT_EQ(part.row_step, 1);
      const std::int64_t stored_rows = count / stored_k;
      const std::int64_t taken = part.rows > 0 ? part.rows : stored_rows - part.first_row;
      ASSERT_LE(part.first_row + taken, stored_rows) << where << ": " << part.tensor;
      if (transposed) {
        const std::int64_t heads = std::max<std::int64_t>(part.heads, 1);
        ASSERT_EQ(taken, heads * k) << where << ": " << part.tensor;
        rows += heads * stored_k;
      } else {
        rows += taken;
      }
      if (slices.insert({part.tensor, part.first_row, taken, stored_k}).second) used[part.tensor] += taken * stored_k;
    }
    EXPECT_EQ(rows * k, static_cast<std::int64_t>(value.shape.count())) << where;
  };
  std::set<std::int32_t> layers;
  for (const Block& block : graph.blocks) {
    if (block.nodes.empty()) continue;
    std::set<std::uint32_t> weights;
    for (const Node& node : block.nodes) {
      for (const ValueId id : node.inputs) {
        if (id.valid() && graph[id].role == Role::kWeight) weights.insert(id.index);
      }
    }
    EXPECT_EQ(block.layers.empty(), block.name.substr(0, 5) != "layer");
    for (const std::uint32_t id : weights) {
      for (const std::int32_t layer : block.layers) bind(graph.values[id], layer);
      if (block.layers.empty()) bind(graph.values[id], -1);
    }
    for (const std::int32_t layer : block.layers) EXPECT_TRUE(layers.insert(layer).second);
  }
  EXPECT_EQ(layers.empty() ? -1 : *layers.rbegin(), static_cast<std::int32_t>(layers.size()) - 1);
  return used;
}

void expect_all_used(const std::map<std::string, std::int64_t>& used, const Tensors& tensors,
                     const std::set<std::string>& unused) {
  for (const auto& [name, extents] : tensors) {
    if (unused.contains(name)) continue;
    const auto found = used.find(name);
    EXPECT_EQ(found == used.end() ? 0 : found->second, count_of(extents)) << name;
  }
}

// ---------------------------------------------------------------- model files

const std::filesystem::path kModels = std::filesystem::path(ROOFTREE_SOURCE_DIR) / ".." / "shared" / "models";

// The file, unpacked where it is packed.
std::filesystem::path unpacked(const std::filesystem::path& packed, const test::TestFolder& folder) {
  if (packed.extension() != ".gz") return packed;
  const std::filesystem::path out = folder.path() / packed.stem();
  const std::string command = fmt::format("gzip -dc '{}' > '{}'", packed.string(), out.string());
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return out;
}

TEST(GgufModels, BindEveryTensor) {
  const auto index_text = read_file(kModels / "index.json", std::size_t{16} << 20);
  if (!index_text) GTEST_SKIP() << "no " << (kModels / "index.json").string();
  const auto index = parse_json(*index_text, "index.json");
  ASSERT_TRUE(index.has_value()) << index.error().message;
  const test::TestFolder folder;
  int files = 0;
  for (const Json& entry : (*index)["models"]) {
    const std::string name = entry["file"].get<std::string>();
    if (name.find(".gguf") == std::string::npos) continue;
    SCOPED_TRACE(name);
    ++files;
    const auto file = formats::GgufFile::open(unpacked(kModels / name, folder));
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto model = parse_gguf(*file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_TRUE(model->numerics().has_value()) << model->not_executable;
    EXPECT_EQ(model->family, entry["arch"].get<std::string>());
    Tensors tensors;
    std::int64_t parameters = 0;
    for (const formats::TensorView& tensor : file->tensors()) {
      tensors.emplace(tensor.name, tensor.extents);
      parameters += count_of(tensor.extents);
    }
    EXPECT_EQ(parameters, entry["parameters"].get<std::int64_t>());
    const auto used = bind_all(*model, Naming::kGguf, tensors);
    expect_all_used(used, tensors, {"rope_freqs.weight"});
    const double of_graph = parameter_count(decode_graph(*model));
    const auto factors = tensors.find("rope_freqs.weight");
    EXPECT_EQ(of_graph, static_cast<double>(parameters - (factors == tensors.end() ? 0 : count_of(factors->second))));
  }
  EXPECT_GE(files, 30);
}

// ---------------------------------------------------------------- Hugging Face files

// Tensor lists as the families' files have them; "#" stands for the layer, "@" for the expert.
struct Entry {
  std::string_view name;
  std::vector<std::int64_t> extents;
};
Tensors expand(std::initializer_list<Entry> entries, std::int64_t layers, std::int64_t experts = 0) {
  Tensors out;
  for (const Entry& entry : entries) {
    const std::size_t hash = entry.name.find('#');
    const std::size_t at = entry.name.find('@');
    const std::int64_t of_layers = hash == std::string_view::npos ? 1 : layers;
    const std::int64_t of_experts = at == std::string_view::npos ? 1 : experts;
    for (std::int64_t l = 0; l < of_layers; ++l) {
      for (std::int64_t e = 0; e < of_experts; ++e) {
        std::string name(entry.name);
        if (at != std::string::npos) name.replace(at, 1, std::to_string(e));
        if (hash != std::string::npos) name.replace(hash, 1, std::to_string(l));
        out.emplace(std::move(name), entry.extents);
      }
    }
  }
  return out;
}

// `heads` fields and sizes that all test models share: hidden 32, 4 heads of 8, 2 key-value heads, 2 layers, vocabulary 48.
std::string config(std::string_view type, std::string_view more) {
  return fmt::format(R"({{"model_type": "{}", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 48, "max_position_embeddings": 64, "intermediate_size": 40{}{}}})",
                     type, more.empty() ? "" : ", ", more);
}

void expect_bound(const std::string& text, const Tensors& tensors) {
  const auto model = parse_hf_config(text, "config.json");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  SCOPED_TRACE(model->family);
  EXPECT_TRUE(model->numerics().has_value()) << model->not_executable;
  expect_all_used(bind_all(*model, Naming::kHuggingFace, tensors), tensors, {});
}

TEST(HuggingFaceWeights, LlamaAndItsLikes) {
  Tensors llama = expand({{"model.embed_tokens.weight", {48, 32}},
                          {"model.norm.weight", {32}},
                          {"lm_head.weight", {48, 32}},
                          {"model.layers.#.input_layernorm.weight", {32}},
                          {"model.layers.#.post_attention_layernorm.weight", {32}},
                          {"model.layers.#.self_attn.q_proj.weight", {32, 32}},
                          {"model.layers.#.self_attn.k_proj.weight", {16, 32}},
                          {"model.layers.#.self_attn.v_proj.weight", {16, 32}},
                          {"model.layers.#.self_attn.o_proj.weight", {32, 32}},
                          {"model.layers.#.mlp.gate_proj.weight", {40, 32}},
                          {"model.layers.#.mlp.up_proj.weight", {40, 32}},
                          {"model.layers.#.mlp.down_proj.weight", {32, 40}}},
                         2);
  expect_bound(config("llama", ""), llama);
  expect_bound(config("mistral", ""), llama);
  Tensors tied = llama;
  tied.erase("lm_head.weight");
  expect_bound(config("llama", R"("tie_word_embeddings": true)"), tied);
  Tensors qwen2 = llama;
  qwen2.merge(expand({{"model.layers.#.self_attn.q_proj.bias", {32}},
                      {"model.layers.#.self_attn.k_proj.bias", {16}},
                      {"model.layers.#.self_attn.v_proj.bias", {16}}},
                     2));
  expect_bound(config("qwen2", ""), qwen2);
  qwen2.erase("model.layers.1.self_attn.k_proj.bias");  // absent: zeros
  expect_bound(config("qwen2", ""), qwen2);
  Tensors qwen3 = llama;
  qwen3.merge(expand({{"model.layers.#.self_attn.q_norm.weight", {8}}, {"model.layers.#.self_attn.k_norm.weight", {8}}}, 2));
  expect_bound(config("qwen3", ""), qwen3);
}

TEST(HuggingFaceWeights, FusedProjections) {
  Tensors phi3 = expand({{"model.embed_tokens.weight", {48, 32}},
                         {"model.norm.weight", {32}},
                         {"lm_head.weight", {48, 32}},
                         {"model.layers.#.input_layernorm.weight", {32}},
                         {"model.layers.#.post_attention_layernorm.weight", {32}},
                         {"model.layers.#.self_attn.qkv_proj.weight", {64, 32}},
                         {"model.layers.#.self_attn.o_proj.weight", {32, 32}},
                         {"model.layers.#.mlp.gate_up_proj.weight", {80, 32}},
                         {"model.layers.#.mlp.down_proj.weight", {32, 40}}},
                        2);
  expect_bound(config("phi3", ""), phi3);
  Tensors glm = expand({{"model.embed_tokens.weight", {48, 32}},
                        {"model.norm.weight", {32}},
                        {"lm_head.weight", {48, 32}},
                        {"model.layers.#.input_layernorm.weight", {32}},
                        {"model.layers.#.post_attention_layernorm.weight", {32}},
                        {"model.layers.#.post_self_attn_layernorm.weight", {32}},
                        {"model.layers.#.post_mlp_layernorm.weight", {32}},
                        {"model.layers.#.self_attn.q_proj.weight", {32, 32}},
                        {"model.layers.#.self_attn.k_proj.weight", {16, 32}},
                        {"model.layers.#.self_attn.v_proj.weight", {16, 32}},
                        {"model.layers.#.self_attn.o_proj.weight", {32, 32}},
                        {"model.layers.#.mlp.gate_up_proj.weight", {80, 32}},
                        {"model.layers.#.mlp.down_proj.weight", {32, 40}}},
                       2);
  expect_bound(config("glm4", R"("attention_bias": false)"), glm);
}

TEST(HuggingFaceWeights, Gemma) {
  const auto list = [](std::string_view root, bool third) {
    Tensors out = expand({{"embed_tokens.weight", {48, 32}},
                          {"norm.weight", {32}},
                          {"layers.#.input_layernorm.weight", {32}},
                          {"layers.#.post_attention_layernorm.weight", {32}},
                          {"layers.#.pre_feedforward_layernorm.weight", {32}},
                          {"layers.#.post_feedforward_layernorm.weight", {32}},
                          {"layers.#.self_attn.q_proj.weight", {32, 32}},
                          {"layers.#.self_attn.k_proj.weight", {16, 32}},
                          {"layers.#.self_attn.v_proj.weight", {16, 32}},
                          {"layers.#.self_attn.o_proj.weight", {32, 32}},
                          {"layers.#.mlp.gate_proj.weight", {40, 32}},
                          {"layers.#.mlp.up_proj.weight", {40, 32}},
                          {"layers.#.mlp.down_proj.weight", {32, 40}}},
                         2);
    if (third) {
      out.merge(expand({{"layers.#.self_attn.q_norm.weight", {8}}, {"layers.#.self_attn.k_norm.weight", {8}}}, 2));
    }
    Tensors rooted;
    for (auto& [name, extents] : out) rooted.emplace(std::string(root) + name, extents);
    return rooted;
  };
  const std::string more = R"("head_dim": 8, "sliding_window": 16)";
  expect_bound(config("gemma2", more), list("model.", false));
  expect_bound(config("gemma3_text", more), list("model.", true));
  expect_bound(config("gemma3_text", more), list("language_model.model.", true));
  const auto model = parse_hf_config(config("gemma2", more), "config.json");
  const auto parts = weight_parts(*model, Naming::kHuggingFace, {.name = "feed_forward_norm.weight"}, 1,
                                  [](std::string_view) { return false; });
  ASSERT_TRUE(parts.has_value());
  EXPECT_EQ((*parts)[0].tensor, "model.layers.1.pre_feedforward_layernorm.weight");
  EXPECT_EQ((*parts)[0].change, WeightPart::Change::kAddOne);
}

TEST(HuggingFaceWeights, Gpt2IsTransposed) {
  const auto list = [](const std::string& root) {
    Tensors out = expand({{"wte.weight", {48, 32}},
                          {"wpe.weight", {64, 32}},
                          {"ln_f.weight", {32}},
                          {"ln_f.bias", {32}},
                          {"h.#.ln_1.weight", {32}},
                          {"h.#.ln_1.bias", {32}},
                          {"h.#.ln_2.weight", {32}},
                          {"h.#.ln_2.bias", {32}},
                          {"h.#.attn.c_attn.weight", {32, 96}},
                          {"h.#.attn.c_attn.bias", {96}},
                          {"h.#.attn.c_proj.weight", {32, 32}},
                          {"h.#.attn.c_proj.bias", {32}},
                          {"h.#.mlp.c_fc.weight", {32, 128}},
                          {"h.#.mlp.c_fc.bias", {128}},
                          {"h.#.mlp.c_proj.weight", {128, 32}},
                          {"h.#.mlp.c_proj.bias", {32}}},
                         2);
    Tensors rooted;
    for (auto& [name, extents] : out) rooted.emplace(root + name, extents);
    return rooted;
  };
  const std::string text =
      R"({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 48, "n_positions": 64})";
  expect_bound(text, list(""));
  expect_bound(text, list("transformer."));
}

TEST(HuggingFaceWeights, FalconKeepsGroupsTogether) {
  const std::initializer_list<Entry> common = {{"transformer.word_embeddings.weight", {48, 32}},
                                               {"transformer.ln_f.weight", {32}},
                                               {"transformer.ln_f.bias", {32}},
                                               {"lm_head.weight", {48, 32}},
                                               {"transformer.h.#.self_attention.dense.weight", {32, 32}},
                                               {"transformer.h.#.mlp.dense_h_to_4h.weight", {128, 32}},
                                               {"transformer.h.#.mlp.dense_4h_to_h.weight", {32, 128}}};
  Tensors one = expand(common, 2);
  one.merge(expand({{"transformer.h.#.input_layernorm.weight", {32}},
                    {"transformer.h.#.input_layernorm.bias", {32}},
                    {"transformer.h.#.self_attention.query_key_value.weight", {48, 32}}},
                   2));
  expect_bound(config("falcon", R"("tie_word_embeddings": false, "multi_query": true)"), one);
  Tensors groups = expand(common, 2);
  groups.merge(expand({{"transformer.h.#.ln_attn.weight", {32}},
                       {"transformer.h.#.ln_attn.bias", {32}},
                       {"transformer.h.#.ln_mlp.weight", {32}},
                       {"transformer.h.#.ln_mlp.bias", {32}},
                       {"transformer.h.#.self_attention.query_key_value.weight", {64, 32}}},
                      2));
  const std::string text =
      config("falcon", R"("tie_word_embeddings": false, "new_decoder_architecture": true, "num_kv_heads": 2)");
  expect_bound(text, groups);
  // Group g has rows 32 g..32 g + 31: two query heads of 8, its key, its value.
  const auto model = parse_hf_config(text, "config.json");
  const auto parts =
      weight_parts(*model, Naming::kHuggingFace, {.name = "attention.qkv.weight"}, 0, [](std::string_view) { return true; });
  std::vector<std::pair<std::int64_t, std::int64_t>> slices;
  for (const WeightPart& part : *parts) slices.emplace_back(part.first_row, part.rows);
  const std::vector<std::pair<std::int64_t, std::int64_t>> expected = {{0, 16}, {32, 16}, {16, 8}, {48, 8}, {24, 8}, {56, 8}};
  EXPECT_EQ(slices, expected);
}

TEST(HuggingFaceWeights, Starcoder2) {
  Tensors list = expand({{"model.embed_tokens.weight", {48, 32}},
                         {"model.norm.weight", {32}},
                         {"model.norm.bias", {32}},
                         {"model.layers.#.input_layernorm.weight", {32}},
                         {"model.layers.#.input_layernorm.bias", {32}},
                         {"model.layers.#.post_attention_layernorm.weight", {32}},
                         {"model.layers.#.post_attention_layernorm.bias", {32}},
                         {"model.layers.#.self_attn.q_proj.weight", {32, 32}},
                         {"model.layers.#.self_attn.q_proj.bias", {32}},
                         {"model.layers.#.self_attn.k_proj.weight", {16, 32}},
                         {"model.layers.#.self_attn.k_proj.bias", {16}},
                         {"model.layers.#.self_attn.v_proj.weight", {16, 32}},
                         {"model.layers.#.self_attn.v_proj.bias", {16}},
                         {"model.layers.#.self_attn.o_proj.weight", {32, 32}},
                         {"model.layers.#.self_attn.o_proj.bias", {32}},
                         {"model.layers.#.mlp.c_fc.weight", {40, 32}},
                         {"model.layers.#.mlp.c_fc.bias", {40}},
                         {"model.layers.#.mlp.c_proj.weight", {32, 40}},
                         {"model.layers.#.mlp.c_proj.bias", {32}}},
                        2);
  expect_bound(config("starcoder2", ""), list);
}

const std::initializer_list<Entry> kSkeleton = {{"model.embed_tokens.weight", {48, 32}},
                                                {"model.norm.weight", {32}},
                                                {"lm_head.weight", {48, 32}},
                                                {"model.layers.#.input_layernorm.weight", {32}},
                                                {"model.layers.#.post_attention_layernorm.weight", {32}}};
const std::initializer_list<Entry> kAttention = {{"model.layers.#.self_attn.q_proj.weight", {32, 32}},
                                                 {"model.layers.#.self_attn.k_proj.weight", {16, 32}},
                                                 {"model.layers.#.self_attn.v_proj.weight", {16, 32}},
                                                 {"model.layers.#.self_attn.o_proj.weight", {32, 32}}};

TEST(HuggingFaceWeights, Experts) {
  Tensors mixtral = expand(kSkeleton, 2);
  mixtral.merge(expand(kAttention, 2));
  mixtral.merge(expand({{"model.layers.#.block_sparse_moe.gate.weight", {3, 32}},
                        {"model.layers.#.block_sparse_moe.experts.@.w1.weight", {40, 32}},
                        {"model.layers.#.block_sparse_moe.experts.@.w2.weight", {32, 40}},
                        {"model.layers.#.block_sparse_moe.experts.@.w3.weight", {40, 32}}},
                       2, 3));
  const std::string text = config("mixtral", R"("num_local_experts": 3, "num_experts_per_tok": 2)");
  expect_bound(text, mixtral);
  const auto model = parse_hf_config(text, "config.json");
  const auto parts = weight_parts(*model, Naming::kHuggingFace, {.name = "experts.gate_up.weight"}, 1,
                                  [&](std::string_view name) { return mixtral.contains(name); });
  std::vector<std::string> order;
  for (const WeightPart& part : *parts) order.push_back(part.tensor.substr(part.tensor.find("experts")));
  EXPECT_EQ(order, (std::vector<std::string>{"experts.0.w1.weight", "experts.0.w3.weight", "experts.1.w1.weight",
                                             "experts.1.w3.weight", "experts.2.w1.weight", "experts.2.w3.weight"}));

  Tensors qwen = expand(kSkeleton, 2);
  qwen.merge(expand(kAttention, 2));
  qwen.merge(expand({{"model.layers.#.self_attn.q_proj.bias", {32}},
                     {"model.layers.#.self_attn.k_proj.bias", {16}},
                     {"model.layers.#.self_attn.v_proj.bias", {16}},
                     {"model.layers.#.mlp.gate.weight", {3, 32}},
                     {"model.layers.#.mlp.experts.@.gate_proj.weight", {24, 32}},
                     {"model.layers.#.mlp.experts.@.up_proj.weight", {24, 32}},
                     {"model.layers.#.mlp.experts.@.down_proj.weight", {32, 24}},
                     {"model.layers.#.mlp.shared_expert.gate_proj.weight", {56, 32}},
                     {"model.layers.#.mlp.shared_expert.up_proj.weight", {56, 32}},
                     {"model.layers.#.mlp.shared_expert.down_proj.weight", {32, 56}},
                     {"model.layers.#.mlp.shared_expert_gate.weight", {1, 32}}},
                    2, 3));
  expect_bound(config("qwen2_moe", R"("num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                                      "shared_expert_intermediate_size": 56)"),
               qwen);
}

TEST(HuggingFaceWeights, DeepSeek) {
  Tensors list = expand(kSkeleton, 2);
  list.merge(expand({{"model.layers.#.self_attn.q_a_proj.weight", {20, 32}},
                     {"model.layers.#.self_attn.q_a_layernorm.weight", {20}},
                     {"model.layers.#.self_attn.q_b_proj.weight", {4 * 12, 20}},
                     {"model.layers.#.self_attn.kv_a_proj_with_mqa.weight", {16 + 4, 32}},
                     {"model.layers.#.self_attn.kv_a_layernorm.weight", {16}},
                     {"model.layers.#.self_attn.kv_b_proj.weight", {4 * (8 + 6), 16}},
                     {"model.layers.#.self_attn.o_proj.weight", {32, 4 * 6}},
                     {"model.layers.0.mlp.gate_proj.weight", {40, 32}},
                     {"model.layers.0.mlp.up_proj.weight", {40, 32}},
                     {"model.layers.0.mlp.down_proj.weight", {32, 40}},
                     {"model.layers.1.mlp.gate.weight", {4, 32}},
                     {"model.layers.1.mlp.gate.e_score_correction_bias", {4}},
                     {"model.layers.1.mlp.experts.@.gate_proj.weight", {24, 32}},
                     {"model.layers.1.mlp.experts.@.up_proj.weight", {24, 32}},
                     {"model.layers.1.mlp.experts.@.down_proj.weight", {32, 24}},
                     {"model.layers.1.mlp.shared_experts.gate_proj.weight", {48, 32}},
                     {"model.layers.1.mlp.shared_experts.up_proj.weight", {48, 32}},
                     {"model.layers.1.mlp.shared_experts.down_proj.weight", {32, 48}}},
                    2, 4));
  const std::string text = config("deepseek_v3", R"("q_lora_rank": 20, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1)");
  expect_bound(text, list);
  const auto model = parse_hf_config(text, "config.json");
  const auto parts =
      weight_parts(*model, Naming::kHuggingFace, {.name = "attention.k_b.weight"}, 0, [](std::string_view) { return true; });
  ASSERT_EQ(parts->size(), 4U);
  EXPECT_EQ((*parts)[2].first_row, 2 * 14);
  EXPECT_EQ((*parts)[2].rows, 8);
  EXPECT_EQ((*parts)[2].change, WeightPart::Change::kTranspose);
}

TEST(HuggingFaceWeights, GptOss) {
  Tensors list = expand(kSkeleton, 2);
  list.merge(expand(kAttention, 2));
  list.merge(expand({{"model.layers.#.self_attn.q_proj.bias", {32}},
                     {"model.layers.#.self_attn.k_proj.bias", {16}},
                     {"model.layers.#.self_attn.v_proj.bias", {16}},
                     {"model.layers.#.self_attn.o_proj.bias", {32}},
                     {"model.layers.#.self_attn.sinks", {4}},
                     {"model.layers.#.mlp.router.weight", {3, 32}},
                     {"model.layers.#.mlp.router.bias", {3}},
                     {"model.layers.#.mlp.experts.gate_up_proj", {3, 32, 80}},
                     {"model.layers.#.mlp.experts.gate_up_proj_bias", {3, 80}},
                     {"model.layers.#.mlp.experts.down_proj", {3, 40, 32}},
                     {"model.layers.#.mlp.experts.down_proj_bias", {3, 32}}},
                    2));
  const std::string text = config("gpt_oss", R"("head_dim": 8, "num_local_experts": 3, "num_experts_per_tok": 2)");
  expect_bound(text, list);
  // The published files keep the experts in MXFP4, blocks and scales apart.
  const auto model = parse_hf_config(text, "config.json");
  const auto parts = weight_parts(*model, Naming::kHuggingFace, {.name = "experts.down.weight"}, 0,
                                  [](std::string_view name) { return name == "model.layers.0.mlp.experts.down_proj_blocks"; });
  ASSERT_FALSE(parts.has_value());
  EXPECT_NE(parts.error().message.find("down_proj_blocks: MXFP4"), std::string::npos) << parts.error().message;
}

TEST(WeightParts, NamesWhatItDoesNotKnow) {
  const auto any = [](std::string_view) { return true; };
  const auto llama = parse_hf_config(config("llama", ""), "config.json");
  const auto unknown = weight_parts(*llama, Naming::kGguf, {.name = "mystery.weight"}, 0, any);
  ASSERT_FALSE(unknown.has_value());
  EXPECT_EQ(unknown.error().message, "llama: mystery.weight: no tensor is known for it in GGUF files of 'llama'");
  Model other = *llama;
  other.family = "mpt";
  EXPECT_FALSE(weight_parts(other, Naming::kHuggingFace, {.name = "embedding.weight"}, 0, any).has_value());
  EXPECT_TRUE(weight_parts(other, Naming::kGguf, {.name = "embedding.weight"}, 0, any).has_value());
  EXPECT_FALSE(weight_parts(Model{}, Naming::kGguf, {.name = "embedding.weight"}, 0, any).has_value());
  const auto own = weight_parts(other, Naming::kGraph, {.name = "attention.qkv.weight"}, 3, any);
  EXPECT_EQ((*own)[0].tensor, "3.attention.qkv.weight");
  EXPECT_EQ((*weight_parts(other, Naming::kGraph, {.name = "head.weight"}, -1, any))[0].tensor, "head.weight");
}

TEST(WeightParts, OlderGgufFiles) {
  const auto mixtral = parse_hf_config(config("mixtral", R"("num_local_experts": 2, "num_experts_per_tok": 1)"), "config.json");
  const auto parts = weight_parts(*mixtral, Naming::kGguf, {.name = "experts.gate_up.weight"}, 0,
                                  [](std::string_view name) { return name.find("_exps") == std::string_view::npos; });
  ASSERT_EQ(parts->size(), 4U);
  EXPECT_EQ((*parts)[0].tensor, "blk.0.ffn_gate.0.weight");
  EXPECT_EQ((*parts)[1].tensor, "blk.0.ffn_up.0.weight");
  EXPECT_EQ((*parts)[3].tensor, "blk.0.ffn_up.1.weight");
  // DeepSeek before the split of attn_kv_b.
  const auto deepseek = parse_hf_config(config("deepseek_v2", R"("kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 6)"),
                                        "config.json");
  ASSERT_TRUE(deepseek.has_value()) << deepseek.error().message;
  const auto values = weight_parts(*deepseek, Naming::kGguf, {.name = "attention.v_b.weight"}, 0,
                                   [](std::string_view name) { return name == "blk.0.attn_kv_b.weight"; });
  ASSERT_EQ(values->size(), 4U);
  EXPECT_EQ((*values)[3].first_row, 3 * 14 + 8);
  EXPECT_EQ((*values)[3].rows, 6);
  EXPECT_EQ((*values)[3].change, WeightPart::Change::kNone);
}

}  // namespace
}  // namespace rooftree::model

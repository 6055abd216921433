#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/test_folder.h"
#include "model/model.h"

namespace rooftree::model {
namespace {

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string corpus(const std::string& name) {
  return read(std::string(ROOFTREE_SOURCE_DIR) + "/fuzz/corpus/hf_config/" + name + ".json");
}

double parameters(const Model& model) {
  auto graph = model.build(Phase::prefill(1, 1));
  EXPECT_TRUE(graph.has_value()) << (graph ? "" : graph.error().message);
  return graph ? parameter_count(*graph) : 0;
}

// The same model from its config.json and from the catalogue.
TEST(HfConfig, AgreesWithTheCatalogue) {
  for (const auto& [file, id] : {std::pair{"llama", "llama-3.1-8b"},
                                 {"mistral", "mistral-7b-v0.1"},
                                 {"mixtral", "mixtral-8x7b"},
                                 {"qwen2", "qwen2.5-0.5b"},
                                 {"qwen3", "qwen3-0.6b"},
                                 {"qwen3_moe", "qwen3-30b-a3b"},
                                 {"gemma2", "gemma-2-2b"},
                                 {"phi3", "phi-3-mini-4k"},
                                 {"gpt2", "gpt2"},
                                 {"opt", "opt-125m"},
                                 {"bloom", "bloom-176b"},
                                 {"falcon", "falcon-40b"},
                                 {"llama4", "llama-4-scout"},
                                 {"mllama", "llama-3.2-11b-vision"},
                                 {"t5", "t5-base"},
                                 {"vit", "vit-b-16"},
                                 {"whisper", "whisper-large-v3"},
                                 {"grok", "grok-1"}}) {
    const auto model = parse_hf_config(corpus(file), file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    const Model known = ModelCatalog::builtin().find(id).value();
    EXPECT_EQ(parameters(*model), parameters(known)) << file;
    const auto mine = model->build(Phase::decode(2, 300));
    const auto theirs = known.build(Phase::decode(2, 300));
    ASSERT_EQ(mine.has_value(), theirs.has_value()) << file;
    if (!mine) continue;
    EXPECT_EQ(mine->footprint.kv_cache, theirs->footprint.kv_cache) << file;
    EXPECT_EQ(mine->footprint.weights_touched, theirs->footprint.weights_touched) << file;
  }
}

// Those that add what the catalogue's sources do not list.
TEST(HfConfig, AgreesWithPublishedCounts) {
  for (const auto& [file, billions] : {std::pair{"deepseek_v3", 671.0},
                                       {"kimi_k2", 1026.4},
                                       {"glm4_moe", 106.85},
                                       {"gemma3", 4.3},
                                       {"qwen2_moe", 14.3},
                                       {"gpt_neox", 20.6},
                                       {"starcoder2", 3.03},
                                       {"mpt", 6.65},
                                       {"bert", 0.1095}}) {
    const auto model = parse_hf_config(corpus(file), file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_NEAR(parameters(*model) / (billions * 1e9), 1, 0.01) << file;
  }
}

TEST(HfConfig, ReadsThePublishedType) {
  EXPECT_EQ(parse_hf_config(corpus("llama"), "c")->native_weight_type, DType::kBf16);
  EXPECT_EQ(parse_hf_config(corpus("deepseek_v3"), "c")->native_weight_type, DType::kFp8E4m3);
  EXPECT_EQ(parse_hf_config(corpus("gpt_oss"), "c")->native_weight_type, DType::kMxfp4);
}

TEST(HfConfig, WindowsFollowTheLayerTypes) {
  // 2 of 4 layers keep 128 positions: (2 1000 + 2 128) values of 2 x 8 x 64.
  const auto model = parse_hf_config(corpus("gpt_oss"), "c");
  ASSERT_TRUE(model.has_value());
  EXPECT_EQ(model->build(Phase::decode(1, 1000))->footprint.kv_cache, (2 * 1000 + 2 * 128) * 2.0 * 8 * 64);
}

// A llama config with one field replaced.
std::string with(const std::string& field, const std::string& value) {
  const std::string fields[][2] = {{"model_type", "\"llama\""},  {"hidden_size", "64"},
                                   {"intermediate_size", "128"}, {"num_attention_heads", "4"},
                                   {"num_hidden_layers", "2"},   {"num_key_value_heads", "2"},
                                   {"vocab_size", "100"},        {"max_position_embeddings", "256"}};
  std::string text = "{";
  bool replaced = false;
  for (const auto& [key, standard] : fields) {
    replaced = replaced || key == field;
    const std::string& v = key == field ? value : standard;
    if (v.empty()) continue;
    text += (text.size() > 1 ? ", \"" : "\"") + key + "\": " + v;
  }
  if (!replaced) text += ", \"" + field + "\": " + value;
  return text + "}";
}

TEST(HfConfig, NamesTheFieldThatIsWrong) {
  ASSERT_TRUE(parse_hf_config(with("unused", "1"), "c.json").has_value());
  for (const auto& [field, value, message] :
       {std::tuple{"model_type", "\"mamba\"", "c.json: model_type: 'mamba' is not known; expected one of llama, mistral"},
        {"model_type", "", "c.json: model_type: missing; expected the type of the model"},
        {"model_type", "3", "c.json: model_type: 3; expected a text"},
        {"hidden_size", "", "c.json: hidden_size: missing; expected a whole number in 1..16777216"},
        {"hidden_size", "\"64\"", "c.json: hidden_size: '64'; expected a whole number"},
        {"hidden_size", "64.5", "c.json: hidden_size: 64.5; expected a whole number"},
        {"hidden_size", "0", "c.json: hidden_size: 0; expected"},
        {"hidden_size", "-64", "c.json: hidden_size: -64; expected"},
        {"hidden_size", "1e300", "c.json: hidden_size: 1e+300; expected"},
        {"hidden_size", "18446744073709551615", "c.json: hidden_size: 18446744073709551615; expected"},
        {"hidden_size", "[64]", "c.json: hidden_size: a list of 1; expected"},
        {"num_hidden_layers", "1000000000", "c.json: num_hidden_layers: 1000000000; expected"},
        {"num_key_value_heads", "3", "c.json: attention.kv_heads: 3; expected a divisor of attention.heads 4"},
        {"num_key_value_heads", "8", "c.json: attention.kv_heads: 8; expected 1..4"},
        {"head_dim", "65536000", "c.json: head_dim: 65536000; expected"},
        {"tie_word_embeddings", "\"no\"", "c.json: tie_word_embeddings: 'no'; expected true or false"}}) {
    const auto model = parse_hf_config(with(field, value), "c.json");
    ASSERT_FALSE(model.has_value()) << field << " " << value;
    EXPECT_EQ(model.error().message.substr(0, std::string_view(message).size()), message);
  }
}

TEST(HfConfig, RefusesTextThatIsNoConfig) {
  for (const std::string text :
       {"", "[]", "3", "{", "{\"model_type\": \"llama\"", "null", "{\"model_type\": \"llama\", \"model_type\": \"opt\"}"}) {
    const auto model = parse_hf_config(text, "c.json");
    ASSERT_FALSE(model.has_value()) << text;
    EXPECT_EQ(model.error().message.substr(0, 6), "c.json") << text;
  }
}

TEST(HfConfig, RefusesWhatItWouldGetWrong) {
  const auto message = [](const std::string& text) {
    const auto model = parse_hf_config(text, "c");
    EXPECT_FALSE(model.has_value());
    return model ? std::string() : model.error().message;
  };
  std::string types = corpus("gpt_oss");
  types.replace(types.find("\"full_attention\""), 16, "\"linear_attention\"");
  EXPECT_EQ(message(types),
            "c: layer_types: 'linear_attention'; expected full_attention, sliding_attention or chunked_attention");
  std::string irregular = corpus("gpt_oss");
  irregular.replace(irregular.rfind("\"sliding_attention\""), 19, "\"full_attention\"");
  EXPECT_EQ(message(irregular), "c: layer_types: 'full_attention' at layer 2; expected full attention at every n-th layer");
  std::string opt = corpus("opt");
  opt.replace(opt.find("768,\n \"do_layer"), 3, "512");
  EXPECT_EQ(message(opt), "c: word_embed_proj_dim: 512; expected hidden_size 768");
}

TEST(HfConfig, FallsBackToTheArchitectureName) {
  std::string text = with("model_type", "");
  text.insert(1, "\"architectures\": [\"LlamaForCausalLM\"], ");
  EXPECT_TRUE(parse_hf_config(text, "c").has_value());
  text.replace(text.find("Llama"), 5, "Mamba");
  EXPECT_FALSE(parse_hf_config(text, "c").has_value());
}

TEST(Resolve, TakesFilesAndFolders) {
  namespace fs = std::filesystem;
  const test::TestFolder own_folder;
  const fs::path& folder = own_folder.path();
  fs::create_directories(folder / "model");
  fs::create_directories(folder / "empty");
  std::ofstream(folder / "model" / "config.json") << corpus("llama");
  std::ofstream(folder / "weights.gguf") << "GGUF";
  const ModelCatalog& catalog = ModelCatalog::builtin();
  const auto from_folder = catalog.resolve((folder / "model").string());
  ASSERT_TRUE(from_folder.has_value());
  EXPECT_EQ(from_folder->family, "llama");
  EXPECT_TRUE(catalog.resolve((folder / "model" / "config.json").string()).has_value());
  EXPECT_EQ(catalog.resolve((folder / "empty").string()).error().code, ErrorCode::kEnvironment);
  EXPECT_EQ(catalog.resolve((folder / "none" / "config.json").string()).error().code, ErrorCode::kEnvironment);
  EXPECT_EQ(catalog.resolve((folder / "weights.gguf").string()).error().code, ErrorCode::kParse);
  EXPECT_TRUE(catalog.resolve("llama-2-7b").has_value());
  // A file of the catalogue's own format.
  EXPECT_TRUE(catalog.resolve(std::string(ROOFTREE_SOURCE_DIR) + "/catalog/models/gpt2.json").has_value());
}

}  // namespace
}  // namespace rooftree::model

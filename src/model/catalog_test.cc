#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/test_folder.h"
#include "model/model.h"

namespace rooftree::model {
namespace {

bool is_language_model(const ModelEntry& entry) {
  return entry.kind == "decoder" || entry.kind == "moe decoder" || entry.kind == "multimodal decoder" ||
         entry.kind == "multimodal moe decoder" || entry.kind == "encoder" || entry.kind == "encoder-decoder";
}

Graph one_token(const Model& model) {
  auto graph = model.build(Phase::decode(1, 1));
  if (!graph) graph = model.build(Phase::prefill(1, 1));
  EXPECT_TRUE(graph.has_value()) << model.id;
  return std::move(graph).value();
}

TEST(Catalog, ParametersAgreeWithThePublishedCount) {
  int checked = 0;
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (!entry.published_parameters.has_value()) continue;
    const Model model = ModelCatalog::builtin().find(entry.id).value();
    const Graph graph = one_token(model);
    const double computed = parameter_count(graph);
    EXPECT_NEAR(graph.footprint.weights / computed, 1, 1e-12) << entry.id;
    if (is_language_model(entry)) ++checked;
    EXPECT_NEAR(computed / *entry.published_parameters, 1, 0.01) << entry.id << ": " << computed;
  }
  EXPECT_EQ(checked, 95);
}

TEST(Catalog, ActiveParametersAgreeWithThePublishedCount) {
  // Published counts take the input embedding in or leave it out; within 1 % of either, or of something between.
  const std::map<std::string, std::string> exceptions = {
      {"deepseek-v2-lite", "published as 2.4 B, two digits"},
      {"deepseek-v3.2", "the published count is that of V3, without the indexer"},
      {"glm-4.5", "published as 32 B, two digits"},
      {"glm-4.5-air", "published as 12 B, two digits, rounded down"},
      {"grok-1", "published figure from memory, 2.6 % above the listed dimensions"},
  };
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (!entry.published_active_parameters.has_value()) continue;
    const Model model = ModelCatalog::builtin().find(entry.id).value();
    const Graph graph = one_token(model);
    const double without = graph.footprint.weights_touched;  // one row of the embedding
    double with = without;
    for (const Value& value : graph.values) {
      if (value.name == "embedding.weight") with += value.shape.count();
    }
    const double published = *entry.published_active_parameters;
    const bool agrees = published >= 0.99 * without && published <= 1.01 * with;
    EXPECT_EQ(agrees, !exceptions.contains(entry.id)) << entry.id << ": " << without << ".." << with;
    EXPECT_NEAR(without / published, 1, 0.1) << entry.id;
  }
}

TEST(Catalog, IncompleteModelsSayWhatIsNotKnown) {
  int incomplete = 0;
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (entry.kind != "incomplete") continue;
    ++incomplete;
    const auto graph = ModelCatalog::builtin().find(entry.id)->build(Phase::decode(1, 1));
    ASSERT_FALSE(graph.has_value());
    EXPECT_NE(graph.error().message.find("its sources leave open"), std::string::npos) << graph.error().message;
  }
  EXPECT_EQ(incomplete, 9);
}

TEST(Catalog, EveryModelNamesItsSources) {
  std::set<std::string> ids;
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    const Model model = ModelCatalog::builtin().find(entry.id).value();
    EXPECT_TRUE(ids.insert(model.id).second) << model.id;
    EXPECT_EQ(model.id, entry.id);
    EXPECT_FALSE(model.sources.empty()) << entry.id;
    EXPECT_FALSE(model.describe().empty()) << entry.id;
  }
}

TEST(Catalog, SuggestsNearIds) {
  const auto message = [](std::string_view id) {
    const auto model = ModelCatalog::builtin().find(id);
    EXPECT_FALSE(model.has_value());
    EXPECT_EQ(model.error().code, ErrorCode::kNotFound);
    return model.error().message;
  };
  EXPECT_EQ(message("lama-2-7b").substr(0, 53), "model 'lama-2-7b' is unknown; did you mean llama-2-7b");
  EXPECT_NE(message("whisper").find("whisper-large-v2"), std::string::npos);
  EXPECT_EQ(message("xyzzyqwertzuiop"), "model 'xyzzyqwertzuiop' is unknown; `rooftree models` lists those known");
  EXPECT_NE(message("").find("is unknown"), std::string::npos);
  EXPECT_TRUE(ModelCatalog::builtin().find("Llama-2-7B").has_value());
  EXPECT_TRUE(ModelCatalog::builtin().find("llama_2_7b").has_value());
}

class CatalogFolder : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_ / "models"); }
  // The error of a catalogue that holds one small model with `from` replaced by `to`.
  std::string with(const std::string& from, const std::string& to) {
    std::string text = R"({
      "id": "tiny", "name": "Tiny", "family": "test", "kind": "decoder", "certainty": "read", "sources": ["a test"],
      "layers": 2, "hidden": 64, "vocabulary": 100, "tied_embeddings": true, "context": 128,
      "norm": {"kind": "rms", "epsilon": 1e-5}, "positions": {"kind": "rotary", "theta": 10000},
      "attention": {"heads": 4, "kv_heads": 2, "head_dim": 16},
      "feed_forward": {"width": 128, "activation": "silu", "gated": true}})";
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    std::ofstream(folder_ / "models" / "tiny.json") << text;
    const auto catalog = ModelCatalog::from_directory(folder_);
    return catalog ? std::string() : catalog.error().message;
  }
  const test::TestFolder own_folder_;
  const std::filesystem::path& folder_ = own_folder_.path();
};

TEST_F(CatalogFolder, ReadsItsModels) {
  EXPECT_EQ(with("Tiny", "Tiny"), "");
  const auto catalog = ModelCatalog::from_directory(folder_);
  ASSERT_TRUE(catalog.has_value());
  ASSERT_EQ(catalog->entries().size(), 1U);
  const auto model = catalog->find("tiny");
  ASSERT_TRUE(model.has_value());
  const double h = 64;
  EXPECT_EQ(parameter_count(*model->build(Phase::decode(1, 1))),
            2 * (2 * h * h + 2 * h * 32 + 3 * h * 128 + 2 * h) + 100 * h + h);
}

TEST_F(CatalogFolder, NamesFileAndFieldOfWhatIsWrong) {
  for (const auto& [from, to, expected] :
       {std::tuple{"\"layers\": 2, ", "", "layers: missing; expected a whole number in 1..100000"},
        {"\"layers\": 2", "\"layers\": \"2\"", "layers: '2'; expected a whole number in 1..100000"},
        {"\"layers\": 2", "\"layers\": 2, \"layer\": 3", "layer: unknown field; expected one of"},
        {"\"head_dim\": 16", "\"head_dim\": 16, \"windows\": 3", "attention.windows: unknown field; expected one of"},
        {"\"kv_heads\": 2", "\"kv_heads\": 3", "attention.kv_heads: 3; expected a divisor of attention.heads 4"},
        {"\"decoder\"", "\"decodre\"", "kind: decodre; expected one of incomplete, decoder"},
        {"\"rms\"", "\"batch\"", "norm.kind: batch; expected rms or layer"},
        {"\"rotary\"", "\"sine\"", "positions.kind: sine; expected rotary, learned or alibi"},
        {"[\"a test\"]", "[]", "sources: none; expected at least one source"},
        {"\"read\"", "\"guessed\"", "certainty: guessed; expected read or recalled"},
        {"\"tiny\"", "\"small\"", "id: 'small'; expected 'tiny' as the file is named"},
        {"\"hidden\": 64", "\"hidden\": 1e99", "hidden: 1e+99; expected a whole number"},
        {"{\"heads\"", "{\"bias\": [\"w\"], \"heads\"", "attention.bias: w; expected a list of q, k, v, output"},
        {"\"attention\": {", "\"attention\": 3, \"x\": {", "attention: 3; expected an object"}}) {
    const std::string found = with(from, to);
    EXPECT_NE(found.find(std::string("tiny.json: ") + expected), std::string::npos) << found;
  }
}

TEST_F(CatalogFolder, AMissingFolderIsTheEnvironment) {
  const auto catalog = ModelCatalog::from_directory(folder_ / "none");
  ASSERT_FALSE(catalog.has_value());
  EXPECT_EQ(catalog.error().code, ErrorCode::kEnvironment);
}

// The facts that the catalogue was made from.
TEST(Catalog, HoldsEveryModelOfTheSharedFacts) {
  const std::filesystem::path facts = std::filesystem::path(ROOFTREE_SOURCE_DIR) / ".." / "shared" / "catalog" / "models.json";
  if (!std::filesystem::exists(facts)) GTEST_SKIP() << facts << " is not there";
  std::ifstream in(facts);
  std::string line;
  int checked = 0;
  while (std::getline(in, line)) {
    const std::size_t key = line.find("\"id\": \"");
    if (key == std::string::npos) continue;
    const std::size_t begin = key + 7;
    const std::string id = line.substr(begin, line.find('"', begin) - begin);
    EXPECT_TRUE(ModelCatalog::builtin().find(id).has_value()) << id;
    ++checked;
  }
  EXPECT_GE(checked, 111);
}

}  // namespace
}  // namespace rooftree::model

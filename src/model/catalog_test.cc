#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

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
  EXPECT_EQ(checked, 94);
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

}  // namespace
}  // namespace rooftree::model

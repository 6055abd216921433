#include "model/summary.h"

#include "model/architecture.h"

namespace rooftree::model {

Result<Summary> summarise(const Model& model) {
  Summary summary;
  Graph graph;
  const bool decodes = model.build_into(Phase::decode(1, 1), Fusion::kStandard, graph).has_value();
  if (!decodes) ROOFTREE_TRY_VOID(model.build_into(Phase::prefill(1, 1), Fusion::kStandard, graph));
  summary.parameters = parameter_count(graph);
  summary.active_parameters = graph.footprint.weights_touched;
  for (const Block& block : graph.blocks) {
    for (const Node& node : block.nodes) summary.product_flop += static_cast<double>(block.repeat) * work(node.op).product;
  }
  // Models without tokens process as much whatever number of tokens the phase names.
  summary.per_token = model.architecture->tokens_processed(Phase::prefill(1, 2)) > 1;
  if (decodes) {
    const double one = graph.footprint.kv_cache;
    if (model.build_into(Phase::decode(1, 2), Fusion::kStandard, graph)) {
      summary.kv_values_per_token = graph.footprint.kv_cache - one;
    }
  }
  return summary;
}

}  // namespace rooftree::model

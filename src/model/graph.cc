#include "model/graph.h"

#include <array>
#include <utility>

namespace rooftree::model {

std::string_view name(Pass pass) {
  constexpr std::array<std::string_view, 4> kNames = {"forward", "recompute", "backward", "optimizer"};
  return kNames[static_cast<std::size_t>(pass)];
}

ValueId Graph::add_value(Value value) {
  values.push_back(std::move(value));
  return ValueId{static_cast<std::uint32_t>(values.size() - 1)};
}

double parameter_count(const Graph& graph) {
  double parameters = 0;
  for (const Value& value : graph.values) {
    if (value.role != Role::kWeight) continue;
    const double instances =
        value.block >= 0 ? static_cast<double>(graph.blocks[static_cast<std::size_t>(value.block)].repeat) : 1.0;
    parameters += instances * value.shape.count();
  }
  return parameters;
}

}  // namespace rooftree::model

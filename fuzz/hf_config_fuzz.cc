// Any text is either a model whose graphs can be built, or an error with a message. Also the catalogue's own format is tried.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/model.h"

using rooftree::model::Fusion;
using rooftree::model::Graph;
using rooftree::model::Phase;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto model = rooftree::model::parse_hf_config(text, "fuzz");
  if (!model) {
    if (model.error().message.empty()) std::abort();
    return 0;
  }
  Graph graph;
  for (const Phase& phase : {Phase::decode(1, 1), Phase::prefill(std::int64_t{1} << 20, std::int64_t{1} << 16),
                             Phase::train(2, 2), Phase::decode(std::int64_t{1} << 36, 1)}) {
    for (const Fusion fusion : {Fusion::kStandard, Fusion::kEager}) {
      const auto status = model->build_into(phase, fusion, graph);
      if (!status && status.error().message.empty()) std::abort();
      if (status && !(graph.footprint.weights > 0)) std::abort();
    }
  }
  if (model->describe().empty()) std::abort();
  return 0;
}

// Any GGUF file is either a model whose graphs can be built and whose weights have names, or an error with a message.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "model/gguf_config.h"
#include "model/weight_names.h"

using namespace rooftree;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = formats::GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) return 0;
  const auto model = model::parse_gguf(*file);
  if (!model) {
    if (model.error().message.empty()) std::abort();
    return 0;
  }
  model::Graph graph;
  for (const model::Phase& phase : {model::Phase::decode(1, 1), model::Phase::prefill(1, 16), model::Phase::train(2, 2)}) {
    const auto status = model->build_into(phase, model::Fusion::kStandard, graph);
    if (!status && status.error().message.empty()) std::abort();
  }
  const auto numerics = model->numerics();
  if (!numerics) {
    if (model->not_executable.empty()) std::abort();
    return 0;
  }
  for (const model::AttentionNumerics* a : {&(*numerics)->local, &(*numerics)->global}) {
    if (!(a->scale > 0) || !std::isfinite(a->rope.magnitude)) std::abort();
    for (const double frequency : a->rope.inverse_frequencies) {
      if (!(frequency > 0) || !std::isfinite(frequency)) std::abort();
    }
  }
  if (!model->build_into(model::Phase::decode(1, 1), model::Fusion::kStandard, graph)) return 0;
  for (const model::Value& value : graph.values) {
    if (value.role != model::Role::kWeight || value.shape.extents[0] > 1024) continue;
    const auto parts = model::weight_parts(*model, model::Naming::kGguf, value, 0,
                                           [&](std::string_view name) { return file->contains(name); });
    if (!parts || parts->empty()) std::abort();
  }
  return 0;
}

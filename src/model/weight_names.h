#pragma once

// Which stored tensors make up a weight of the graph. GGUF and Hugging Face name the same parameters differently, fuse
// different ones, and order rotated heads differently; this table is the only place that knows.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/graph.h"
#include "model/model.h"

namespace rooftree::model {

// kGraph: the graph's own names, "12.attention.qkv.weight" in layer 12 (models with generated weights).
enum class Naming : std::uint8_t { kGguf, kHuggingFace, kGraph };

// One piece of a weight. A weight is a matrix of rows of k values, k being its last extent; vectors (weight_is_vector: biases,
// norms, sinks, in stacks too) have k = 1. A stored tensor is seen the same way, with the weight's k, or its own last extent
// where it is transposed. Its rows [first_row, first_row + rows) become the next rows of the weight; rows = 0: all of them.
struct WeightPart {
  enum class Change : std::uint8_t {
    kNone,
    kAddOne,               // norm weights stored without their 1 (Gemma in Hugging Face files)
    kTranspose,            // the rows, each of the tensor's last extent, are a matrix to be transposed (GPT-2's Conv1D), or
                           // `heads` equal matrices one behind the other, each transposed
    kInterleave,           // gate and up rows alternate in the file (gpt-oss): even rows come first, then odd ones
    kTransposeInterleave,  // both, in this order
  };
  std::string tensor;
  std::int64_t first_row = 0, rows = 0;
  std::int64_t row_step = 1;
  Change change = Change::kNone;
  std::int64_t heads = 0;
  bool optional = false;  // absent: zeros; `rows` is given
};

// Whether the weight is a vector, or a stack of them: "….bias", "…norm.weight", "attention.sinks", "router.selection_bias".
[[nodiscard]] bool weight_is_vector(std::string_view name);

// The pieces of weight `value` in instance `layer` (number of the model's layer; ignored for values outside layers), stacked in
// order. `has_tensor` tells which names exist, since files of one architecture differ (fused or separate projections, tied or
// separate heads); where none of the known names exists, the usual one is given. kInvalid: this architecture has no names in
// that convention.
Result<std::vector<WeightPart>> weight_parts(const Model& model, Naming naming, const Value& value, std::int64_t layer,
                                             const std::function<bool(std::string_view)>& has_tensor);

}  // namespace rooftree::model

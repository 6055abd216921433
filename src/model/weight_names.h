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

enum class Naming : std::uint8_t { kGguf, kHuggingFace };

// One piece of a weight: rows [first_row, first_row + rows) of the tensor seen as (its extents' product / k, k) become the next
// rows of the weight. rows = 0: all of them.
struct WeightPart {
  enum class Change : std::uint8_t {
    kNone,
    kAddOne,      // norm weights stored without their 1 (Gemma in Hugging Face files)
    kTranspose,   // the matrix is stored (K, N) (GPT-2's Conv1D in Hugging Face files), or per head where heads > 0
    kInterleave,  // gate and up rows alternate in the file (gpt-oss): even rows first, then odd ones
    kExp,         // reserved for parameters stored as logarithms
  };
  std::string tensor;
  std::int64_t first_row = 0, rows = 0;
  std::int64_t row_step = 1;
  Change change = Change::kNone;
  std::int64_t heads = 0;
  bool optional = false;  // absent: zeros
};

// The pieces of weight `value` in instance `layer` (number of the model's layer; ignored for values outside layers), stacked in
// order. `has_tensor` tells which names exist, since files of one architecture differ (fused or separate projections, tied or
// separate heads). kInvalid: this architecture has no names in that convention.
Result<std::vector<WeightPart>> weight_parts(const Model& model, Naming naming, const Value& value, std::int64_t layer,
                                             const std::function<bool(std::string_view)>& has_tensor);

}  // namespace rooftree::model

#pragma once

// The figures of one model that hold without a machine or a plan.

#include <cstdint>
#include <optional>

#include "model/model.h"

namespace rooftree::model {

struct Summary {
  double parameters = 0;         // from the weight values of the graph
  double active_parameters = 0;  // that one token touches: the experts it is sent to, one row of an input embedding; for models
                                 // without tokens, one sample
  Flop product_flop;             // products of one token (decode at context 1, or an encoder's single position) or one sample
  bool per_token = true;         // else per sample
  std::optional<double> kv_values_per_token;  // that every further position adds to the cache, windows not yet full
};

// kInvalid for models that cannot be built.
Result<Summary> summarise(const Model& model);

}  // namespace rooftree::model

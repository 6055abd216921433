#pragma once

// What readers of model descriptions learn about execution, and the constants made of it. Private to the layer.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/architecture.h"
#include "model/model.h"
#include "model/numerics.h"
#include "model/rope.h"

namespace rooftree::model {

struct ExecutionSpec {
  double norm_epsilon = 1e-5;
  Activation activation = Activation::kSilu;
  double theta = 10'000;   // base of the rotation
  double local_theta = 0;  // of windowed layers, which then are not scaled; 0 = as the others
  RopeScaling scaling;
  RopePairing pairing = RopePairing::kHalves;
  double query_scale = 0;  // the scores' scale is its inverse square root; 0 = head_dim
  double softcap = 0, final_softcap = 0;
  Routing routing;
  std::vector<double> frequency_divisors;  // of the rotation, one per pair (Llama 3 in GGUF); empty = ones
  std::string refusal;                     // what cannot be executed, by name; empty = nothing
};

// Fills the constants of `model`, or says why it cannot be executed.
void set_execution(Model& model, const ExecutionSpec& execution);

// "silu", "gelu", "gelu_pytorch_tanh", "relu", …; unknown names give nothing.
[[nodiscard]] std::optional<Activation> activation_of(std::string_view name);

}  // namespace rooftree::model

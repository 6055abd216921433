#pragma once

// What executing a model needs beyond its shapes: constants that change no cost and therefore are not part of the operators.
// One per architecture; the engine reads them when it runs a node of the graph.

#include <cstdint>
#include <vector>

namespace rooftree::model {

enum class Activation : std::uint8_t {
  kSilu,           // x / (1 + exp(-x))
  kGelu,           // x/2 (1 + erf(x/sqrt 2))
  kGeluTanh,       // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kRelu,           // max(x, 0)
  kReluSquared,    // max(x, 0)^2
  kSwigluClamped,  // gpt-oss: g = min(gate, 7), u = clamp(up, -7, 7): g sigmoid(1.702 g) (u + 1)
};

// Which values of a head form the pair that is rotated: (0,1), (2,3), … or (0,d/2), (1,d/2+1), …
enum class RopePairing : std::uint8_t { kNeighbours, kHalves };

// Rotation of queries and keys: pair i of `dims`/2 turns by position * inverse_frequencies[i] (radians), and the rotated values
// are multiplied by `magnitude` (YaRN). Every scaling rule (linear, NTK, YaRN, Llama 3, LongRoPE) is folded into the two when
// the model is read.
struct Rope {
  std::int64_t dims = 0;    // rotated values per head; 0 = no rotation
  std::int64_t offset = 0;  // the first rotated value of a head (MLA rotates the tail)
  RopePairing pairing = RopePairing::kNeighbours;
  std::vector<double> inverse_frequencies;  // (dims / 2)
  float magnitude = 1.0F;
};

enum class RouteScoring : std::uint8_t { kSoftmax, kSigmoid };
// Expert choice: scores from the router's logits, top_k by score (+ a bias used for the choice only), weights from the scores.
// With groups, the experts stand in `groups` equal runs; only those of the chosen_groups best runs may be chosen. A run's score
// is the sum of its two best where scores are sigmoids (DeepSeek-V3), else its best (V2).
struct Routing {
  RouteScoring scoring = RouteScoring::kSoftmax;
  bool softmax_over_chosen = false;  // gpt-oss: softmax over the chosen logits alone
  bool normalise = false;            // weights divided by their sum
  bool selection_bias = false;       // DeepSeek-V3: a weight "router.selection_bias" enters the choice, not the weights
  float weight_scale = 1.0F;
  std::int64_t groups = 1, chosen_groups = 1;  // group-limited choice (DeepSeek)
};

struct AttentionNumerics {
  float scale = 0.0F;    // of the scores; what 1/sqrt(head_dim) or the model says
  float softcap = 0.0F;  // scores pass through c tanh(x/c); 0 = none
  Rope rope;
  // ALiBi: head h adds -slope[h] * (query position - key position); empty = none.
  std::vector<float> alibi_slopes;
};

struct Numerics {
  float norm_epsilon = 1e-5F;
  Activation activation = Activation::kSilu;
  float embedding_scale = 1.0F;
  float logit_softcap = 0.0F;
  float logit_scale = 1.0F;
  float residual_scale = 1.0F;
  std::int64_t max_positions = 0;   // beyond, the rotation would need other frequencies for all positions; 0 = no such bound
  AttentionNumerics local, global;  // of windowed (chunked) layers, and of the others
  Routing routing;
};

}  // namespace rooftree::model

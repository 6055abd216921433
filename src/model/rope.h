#pragma once

// Rotary position embedding (RoFormer, arXiv:2104.09864) and the rules that stretch it to longer contexts, folded into inverse
// frequencies and a magnitude. Private to the layer.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "model/architecture.h"
#include "model/field_reader.h"
#include "model/numerics.h"

namespace rooftree::model {

struct RopeScaling {
  // kNtk, kLinear: fixed. kDynamic: NTK beyond the trained context only. Formulas in rope.cc.
  enum class Kind : std::uint8_t { kNone, kLinear, kNtk, kDynamic, kYarn, kLlama3, kLongRope };
  Kind kind = Kind::kNone;
  double factor = 1;
  double original_context = 0;  // trained positions; 0 = not stated
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;                                        // YaRN: the ramp starts and ends at whole pairs
  double mscale = 0, mscale_all = 0;                           // YaRN as DeepSeek states it; 0 = not stated
  double magnitude = 0;                                        // stated; 0 = what the kind says
  double low_frequency_factor = 1, high_frequency_factor = 4;  // Llama 3
  std::vector<double> short_factors;                           // LongRoPE, one per pair
};

// 0.1 mscale ln(factor) + 1: YaRN's magnitude (arXiv:2309.00071, equation 22, with DeepSeek's mscale).
[[nodiscard]] double yarn_magnitude(double factor, double mscale);

// `dims` values per head from `offset` on, dims even; base = theta.
[[nodiscard]] Rope make_rope(std::int64_t dims, std::int64_t offset, double base, RopePairing pairing,
                             const RopeScaling& scaling);

// The scores' scale of latent attention under YaRN: DeepSeek multiplies it by the square of the magnitude.
[[nodiscard]] double latent_scale(const AttentionSpec& attention, const RopeScaling& scaling);

// Positions up to which the folded frequencies are those of the model; 0 = any.
[[nodiscard]] std::int64_t exact_positions(const RopeScaling& scaling, std::int64_t max_context);

// "rope_scaling" of a config.json, or "scaling" of a model file: type (or rope_type), factor, … Absent or null: none.
// `max_context` stands for the trained context where that is not stated.
[[nodiscard]] RopeScaling read_rope_scaling(FieldReader& r, std::int64_t max_context);

// ALiBi's slopes (arXiv:2108.12409): a geometric series for a power of two heads, and every second one of the next series for
// the rest.
[[nodiscard]] std::vector<float> alibi_slopes(std::int64_t heads);

}  // namespace rooftree::model

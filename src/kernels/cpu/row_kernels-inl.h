#pragma once

// The row operators, compiled once per instruction set. Memory-bound work: one pass where the contract's order allows it.

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vector-inl.h"

namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE {

// f(values i..i+15 of the row as the number of valid lanes and the offset) for all of [0, n), two vectors per turn so that
// sums fall on the 32 chains.
template <class Body>
ROOFTREE_LANE_INLINE void for_each_vector(std::int64_t begin, std::int64_t end, Body body) {
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(i, std::int64_t{kLanes});
  if (i < end) body(i, end - i);
}

// ---- Norm ----

// Sum over i of term(i), where term gives a vector whose lanes past the end are +0.
template <class Term>
ROOFTREE_LANE_INLINE float row_sum(std::int64_t n, Term term) {
  RowSum sum{zero(), zero()};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    sum.add_pair(term(i, std::int64_t{kLanes}), term(i + kLanes, std::int64_t{kLanes}));
  if (i < n) {
    const std::int64_t first = n - i < kLanes ? n - i : kLanes;
    sum.low = add(sum.low, term(i, first));
    if (n - i > kLanes) sum.high = add(sum.high, term(i + kLanes, n - i - kLanes));
  }
  return sum.total();
}

inline void norm(const NormArgs& args, Range rows) {
  const std::int64_t n = args.width;
  const auto count = static_cast<float>(n);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = args.x.data + row * args.x.stride;
    if (args.delta.data != nullptr) {
      const float* delta = args.delta.data + row * args.delta.stride;
      float* sum = args.sum.data + row * args.sum.stride;
      const F32 scale = set(args.delta_scale);
      for_each_vector(0, n, [&](std::int64_t i, std::int64_t lanes) {
        store_up_to(sum + i, add(load_up_to(x + i, lanes), mul(scale, load_up_to(delta + i, lanes))), lanes);
      });
      x = sum;
    }
    float mean = 0.0F;
    if (args.kind == model::NormKind::kLayer) {
      mean = row_sum(n, [&](std::int64_t i, std::int64_t lanes) { return load_up_to(x + i, lanes); }) / count;
    }
    const F32 center = set(mean);
    float squares = 0.0F;
    if (args.kind == model::NormKind::kLayer) {
      squares = row_sum(n, [&](std::int64_t i, std::int64_t lanes) {
        F32 d = sub(load_up_to(x + i, lanes), center);
        if (lanes < kLanes) {  // absent lanes hold -mean
          float kept[kLanes];
          store(kept, d);
          d = load_n(kept, lanes);
        }
        return mul(d, d);
      });
    } else {
      squares = row_sum(n, [&](std::int64_t i, std::int64_t lanes) {
        const F32 v = load_up_to(x + i, lanes);
        return mul(v, v);
      });
    }
    const F32 inverse = set(1.0F / __builtin_sqrtf(squares / count + args.epsilon));
    float* y = args.y.data + row * args.y.stride;
    const float *weight = args.weight, *bias = args.bias;
    const bool centered = args.kind == model::NormKind::kLayer;
    for_each_vector(0, n, [&](std::int64_t i, std::int64_t lanes) {
      F32 v = load_up_to(x + i, lanes);
      if (centered) v = sub(v, center);
      v = mul(v, inverse);
      if (weight != nullptr) v = mul(v, load_up_to(weight + i, lanes));
      if (bias != nullptr) v = add(v, load_up_to(bias + i, lanes));
      store_up_to(y + i, v, lanes);
    });
  }
}

// ---- Rotation ----

// Pairs are turned in pieces of at most 64, so that the tables live on the stack whatever the head's size. `cosines` and
// `sines` of a piece are computed once per position and serve all heads.
inline constexpr std::int64_t kRotationPiece = 64;

inline void rope(const RopeArgs& args, Range rows) {
  const model::Rope& rope = *args.rope;
  const std::int64_t pairs = rope.dims / 2;
  const double* frequencies = rope.inverse_frequencies.data();
  const auto magnitude = static_cast<double>(rope.magnitude);
  alignas(64) float cosines[kRotationPiece];
  alignas(64) float sines[kRotationPiece];
  alignas(64) float twice_cosines[2 * kRotationPiece];  // c0 c0 c1 c1 …
  alignas(64) float signed_sines[2 * kRotationPiece];   // -s0 s0 -s1 s1 …
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const auto position = static_cast<double>(args.positions[static_cast<std::size_t>(row)]);
    float* first = args.x.data + row * args.x.stride + rope.offset;
    for (std::int64_t begin = 0; begin < pairs; begin += kRotationPiece) {
      const std::int64_t n = pairs - begin < kRotationPiece ? pairs - begin : kRotationPiece;
      for (std::int64_t i = 0; i < n; ++i) rotation(position * frequencies[begin + i], magnitude, cosines[i], sines[i]);
      if (rope.pairing == model::RopePairing::kHalves) {
        for (std::int64_t head = 0; head < args.heads; ++head) {
          float* x0 = first + head * args.head_dim + begin;
          float* x1 = x0 + pairs;
          for_each_vector(0, n, [&](std::int64_t i, std::int64_t lanes) {
            const F32 a = load_up_to(x0 + i, lanes), b = load_up_to(x1 + i, lanes);
            const F32 c = load_up_to(cosines + i, lanes), s = load_up_to(sines + i, lanes);
            store_up_to(x0 + i, sub(mul(a, c), mul(b, s)), lanes);
            store_up_to(x1 + i, add(mul(a, s), mul(b, c)), lanes);
          });
        }
      } else {
        for (std::int64_t i = 0; i < n; ++i) {
          twice_cosines[2 * i] = twice_cosines[2 * i + 1] = cosines[i];
          signed_sines[2 * i] = -sines[i];
          signed_sines[2 * i + 1] = sines[i];
        }
        for (std::int64_t head = 0; head < args.heads; ++head) {
          float* x = first + head * args.head_dim + 2 * begin;
          for_each_vector(0, 2 * n, [&](std::int64_t i, std::int64_t lanes) {
            const F32 a = load_up_to(x + i, lanes);
            const F32 c = load_up_to(twice_cosines + i, lanes), s = load_up_to(signed_sines + i, lanes);
            store_up_to(x + i, add(mul(a, c), mul(swap_neighbours(a), s)), lanes);
          });
        }
      }
    }
  }
}

// ---- Element by element ----

template <model::Activation Kind>
ROOFTREE_LANE_INLINE F32 activate(F32 x) {
  if constexpr (Kind == model::Activation::kSilu) return silu(x);
  if constexpr (Kind == model::Activation::kGelu) return gelu(x);
  if constexpr (Kind == model::Activation::kGeluTanh) return gelu_tanh(x);
  if constexpr (Kind == model::Activation::kRelu) return max(x, zero());
  if constexpr (Kind == model::Activation::kReluSquared) {
    const F32 positive = max(x, zero());
    return mul(positive, positive);
  }
  if constexpr (Kind == model::Activation::kSwigluClamped) {
    const F32 g = min(x, set(7.0F));
    return mul(g, sigmoid(mul(set(1.702F), g)));
  }
}

template <model::Activation Kind>
void activation_rows(const ActivationArgs& args, Range rows, Range columns) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = args.x.data + row * args.x.stride;
    float* y = args.y.data + row * args.y.stride;
    if (args.up.data == nullptr) {
      for_each_vector(columns.begin, columns.end, [&](std::int64_t i, std::int64_t lanes) {
        store_up_to(y + i, activate<Kind>(load_up_to(x + i, lanes)), lanes);
      });
      continue;
    }
    const float* up = args.up.data + row * args.up.stride;
    for_each_vector(columns.begin, columns.end, [&](std::int64_t i, std::int64_t lanes) {
      F32 u = load_up_to(up + i, lanes);
      if constexpr (Kind == model::Activation::kSwigluClamped) {
        u = add(max(min(u, set(7.0F)), set(-7.0F)), set(1.0F));
      }
      store_up_to(y + i, mul(activate<Kind>(load_up_to(x + i, lanes)), u), lanes);
    });
  }
}

inline void activation(const ActivationArgs& args, Range rows, Range columns) {
  switch (args.activation) {
    case model::Activation::kSilu:
      return activation_rows<model::Activation::kSilu>(args, rows, columns);
    case model::Activation::kGelu:
      return activation_rows<model::Activation::kGelu>(args, rows, columns);
    case model::Activation::kGeluTanh:
      return activation_rows<model::Activation::kGeluTanh>(args, rows, columns);
    case model::Activation::kRelu:
      return activation_rows<model::Activation::kRelu>(args, rows, columns);
    case model::Activation::kReluSquared:
      return activation_rows<model::Activation::kReluSquared>(args, rows, columns);
    case model::Activation::kSwigluClamped:
      return activation_rows<model::Activation::kSwigluClamped>(args, rows, columns);
  }
}

inline void add_rows(const AddArgs& args, Range rows, Range columns) {
  const F32 b_scale = set(args.b_scale);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* a = args.a.data + row * args.a.stride;
    const float* b = args.b.data + row * args.b.stride;
    const float* c = args.c.data != nullptr ? args.c.data + row * args.c.stride : nullptr;
    float* y = args.y.data + row * args.y.stride;
    const F32 gate = args.gate.data != nullptr ? sigmoid(set(args.gate.data[row * args.gate.stride])) : set(1.0F);
    for_each_vector(columns.begin, columns.end, [&](std::int64_t i, std::int64_t lanes) {
      // A factor of one is exact, so the same operations serve all cases.
      F32 v = add(load_up_to(a + i, lanes), mul(mul(load_up_to(b + i, lanes), b_scale), gate));
      if (c != nullptr) v = add(v, load_up_to(c + i, lanes));
      store_up_to(y + i, v, lanes);
    });
  }
}

inline void scale_rows(const ScaleArgs& args, Range rows, Range columns) {
  const F32 scale = set(args.scale), cap = set(args.softcap);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    float* x = args.x.data + row * args.x.stride;
    for_each_vector(columns.begin, columns.end, [&](std::int64_t i, std::int64_t lanes) {
      F32 v = mul(load_up_to(x + i, lanes), scale);
      if (args.softcap > 0.0F) v = mul(cap, tanh(div(v, cap)));
      store_up_to(x + i, v, lanes);
    });
  }
}

inline void combine(const CombineArgs& args, Range rows, Range columns) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int32_t* where = args.where + row * args.top_k;
    const float* weights = args.weights + row * args.top_k;
    float* y = args.y.data + row * args.y.stride;
    for_each_vector(columns.begin, columns.end, [&](std::int64_t i, std::int64_t lanes) {
      F32 sum = zero();
      for (std::int64_t j = 0; j < args.top_k; ++j) {
        sum = add(sum, mul(set(weights[j]), load_up_to(args.x.data + where[j] * args.x.stride + i, lanes)));
      }
      store_up_to(y + i, sum, lanes);
    });
  }
}

// ---- Expert choice ----

inline constexpr std::int64_t kMaxExperts = 1024;

// y = exp(x - max x) / sum; x and y may be the same.
inline void softmax(const float* x, float* y, std::int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  const F32 top = set(largest);
  for_each_vector(0, n, [&](std::int64_t i, std::int64_t lanes) {
    store_up_to(y + i, exp_nonpositive(sub(load_up_to(x + i, lanes), top)), lanes);
  });
  const F32 sum = set(row_sum(n, [&](std::int64_t i, std::int64_t lanes) { return load_up_to(y + i, lanes); }));
  for_each_vector(0, n,
                  [&](std::int64_t i, std::int64_t lanes) { store_up_to(y + i, div(load_up_to(y + i, lanes), sum), lanes); });
}

// The index of the largest of the values that are not taken, the lowest of equal ones; always one that is not taken (NaN too).
inline std::int64_t best_of(const float* values, const bool* taken, std::int64_t n) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

inline void route(const RouteArgs& args, Range rows) {
  const model::Routing& routing = *args.routing;
  const std::int64_t n = args.experts;
  alignas(64) float scores[kMaxExperts];
  alignas(64) float choice[kMaxExperts];
  float group_scores[kMaxExperts];
  bool taken[kMaxExperts];
  bool group_taken[kMaxExperts];
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* logits = args.logits.data + row * args.logits.stride;
    std::int32_t* chosen = args.chosen + row * args.top_k;
    float* weights = args.weights + row * args.top_k;
    if (routing.softmax_over_chosen) {
      for (std::int64_t i = 0; i < n; ++i) scores[i] = logits[i];
    } else if (routing.scoring == model::RouteScoring::kSoftmax) {
      softmax(logits, scores, n);
    } else {
      for_each_vector(0, n, [&](std::int64_t i, std::int64_t lanes) {
        store_up_to(scores + i, sigmoid(load_up_to(logits + i, lanes)), lanes);
      });
    }
    for (std::int64_t i = 0; i < n; ++i) {
      choice[i] = args.selection_bias != nullptr ? scores[i] + args.selection_bias[i] : scores[i];
      taken[i] = false;
    }
    if (routing.groups > 1 && routing.chosen_groups < routing.groups) {
      // A group is worth its best score, with sigmoid scores the sum of its two best (DeepSeek-V2 and -V3).
      const std::int64_t size = n / routing.groups;
      for (std::int64_t g = 0; g < routing.groups; ++g) {
        const float* of_group = choice + g * size;
        const std::int64_t first = best_of(of_group, taken + g * size, size);
        float score = of_group[first];
        if (routing.scoring == model::RouteScoring::kSigmoid && size > 1) {
          taken[g * size + first] = true;
          score = score + of_group[best_of(of_group, taken + g * size, size)];
          taken[g * size + first] = false;
        }
        group_scores[g] = score;
        group_taken[g] = false;
      }
      for (std::int64_t i = 0; i < n; ++i) taken[i] = true;
      for (std::int64_t j = 0; j < routing.chosen_groups; ++j) {
        const std::int64_t g = best_of(group_scores, group_taken, routing.groups);
        group_taken[g] = true;
        for (std::int64_t i = 0; i < size; ++i) taken[g * size + i] = false;
      }
    }
    for (std::int64_t j = 0; j < args.top_k; ++j) {
      const std::int64_t best = best_of(choice, taken, n);
      taken[best] = true;
      chosen[j] = static_cast<std::int32_t>(best);
      weights[j] = scores[best];
    }
    if (routing.softmax_over_chosen) softmax(weights, weights, args.top_k);
    if (routing.normalise) {
      const float sum = row_sum(args.top_k, [&](std::int64_t i, std::int64_t lanes) { return load_up_to(weights + i, lanes); });
      for (std::int64_t j = 0; j < args.top_k; ++j) weights[j] = weights[j] / sum;
    }
    for (std::int64_t j = 0; j < args.top_k; ++j) weights[j] = weights[j] * routing.weight_scale;
  }
}

// ---- Tables ----

template <F32 (*Function)(F32)>
void map_function(const float* x, float* y, std::int64_t n) {
  for_each_vector(0, n,
                  [&](std::int64_t i, std::int64_t lanes) { store_up_to(y + i, Function(load_up_to(x + i, lanes)), lanes); });
}
inline void map_rotation(const double* angle, float* cosine, float* sine, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) rotation(angle[i], 1.0, cosine[i], sine[i]);
}
inline float sum_of(const float* x, std::int64_t n) {
  return row_sum(n, [&](std::int64_t i, std::int64_t lanes) { return load_up_to(x + i, lanes); });
}

constexpr RowKernels kRowKernels{norm, rope, activation, add_rows, scale_rows, route, combine};
constexpr MathFunctions kMathFunctions{
    map_function<exp>,        map_function<tanh>,      map_function<sigmoid>, map_function<erf>,
    map_function<round_bf16>, map_function<round_f16>, map_rotation,          sum_of};

}  // namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE

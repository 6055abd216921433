#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/cpu_features.h"
#include "base/philox.h"

namespace rooftree::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr double kLn2 = 0.693147180559945309417;
// ln 2 in two parts: the high one has 33 significant bits, so that its product with an exponent (11 bits) is exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 1.44269504088896340736;
// Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, which is then also in the low bits of the sum.
constexpr double kRound = 0x1.8p52;
constexpr double kSmallest = -708.0;  // exp of it is above the smallest normal double

// x = n ln 2 + r, |r| <= 0.3466: Taylor series to the 13th power (the next term is below 2^-57), scaled by 2^n.
inline double exp_nonpositive(double x) {
  const double bounded = x < kSmallest ? kSmallest : x;
  const double shifted = bounded * kLog2E + kRound;
  const double n = shifted - kRound;
  const double r = (bounded - n * kLn2High) - n * kLn2Low;
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  // The low bits of `shifted` hold n; shifting them to the exponent field multiplies by 2^n.
  const std::uint64_t exponent = std::bit_cast<std::uint64_t>(shifted) << 52;
  const double scaled = std::bit_cast<double>(std::bit_cast<std::uint64_t>(sum) + exponent);
  return x < kSmallest ? 0.0 : scaled;
}

// log p up to the normalisation; 0 for the largest, also where it is infinite.
inline double below_largest(float logit, float largest) {
  return logit == largest ? 0.0 : static_cast<double>(logit) - static_cast<double>(largest);
}

// Sum of exp((logit - largest) * inverse) in eight interleaved partial sums; the summands go to `weights` unless it is null.
// Eight lanes in each instruction set, each lane the operations of exp_nonpositive in their order: the same bits from all of
// them. 128,256 logits: 0.27 ms with AVX-512, 1.25 ms scalar.
constexpr std::size_t kLanes = 8;
using FloatLanes = float __attribute__((vector_size(32)));
using DoubleLanes = double __attribute__((vector_size(64)));
using BitLanes = std::uint64_t __attribute__((vector_size(64)));

__attribute__((always_inline)) inline double sum_lanes(const float* logits, std::size_t count, float largest, double inverse,
                                                       double* weights) {
  constexpr double kFactors[] = {1.0 / 479001600.0,
                                 1.0 / 39916800.0,
                                 1.0 / 3628800.0,
                                 1.0 / 362880.0,
                                 1.0 / 40320.0,
                                 1.0 / 5040.0,
                                 1.0 / 720.0,
                                 1.0 / 120.0,
                                 1.0 / 24.0,
                                 1.0 / 6.0,
                                 0.5,
                                 1.0,
                                 1.0};
  DoubleLanes total{};
  for (std::size_t begin = 0; begin < count; begin += kLanes) {
    FloatLanes block;
    if (count - begin >= kLanes) {
      std::memcpy(&block, logits + begin, sizeof(block));
    } else {
      for (std::size_t i = 0; i < kLanes; ++i) block[i] = begin + i < count ? logits[begin + i] : -kInfinity;
    }
    const DoubleLanes wide = __builtin_convertvector(block, DoubleLanes), top = DoubleLanes{} + static_cast<double>(largest);
    const DoubleLanes x = (wide == top ? DoubleLanes{} : wide - top) * inverse;
    const DoubleLanes smallest = DoubleLanes{} + kSmallest;
    const DoubleLanes bounded = x < smallest ? smallest : x;
    const DoubleLanes shifted = bounded * kLog2E + kRound;
    const DoubleLanes n = shifted - kRound;
    const DoubleLanes r = (bounded - n * kLn2High) - n * kLn2Low;
    DoubleLanes sum = DoubleLanes{} + 1.0 / 6227020800.0;
    for (const double factor : kFactors) sum = sum * r + factor;
    const BitLanes scaled = reinterpret_cast<BitLanes>(sum) + (reinterpret_cast<BitLanes>(shifted) << 52);
    const DoubleLanes value = x < smallest ? DoubleLanes{} : reinterpret_cast<DoubleLanes>(scaled);
    total += value;
    if (weights != nullptr) {
      const std::size_t kept = std::min(kLanes, count - begin);
      for (std::size_t i = 0; i < kept; ++i) weights[begin + i] = value[i];
    }
  }
  return ((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7]));
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512dq"))) double sum_avx512(const float* logits, std::size_t count, float largest,
                                                              double inverse, double* weights) {
  return sum_lanes(logits, count, largest, inverse, weights);
}
__attribute__((target("avx2"))) double sum_avx2(const float* logits, std::size_t count, float largest, double inverse,
                                                double* weights) {
  return sum_lanes(logits, count, largest, inverse, weights);
}
#endif

double sum_exponentials(std::span<const float> logits, float largest, double temperature, double* weights) {
  const double inverse = 1.0 / temperature;
#if defined(__x86_64__)
  static const CpuFeatures features = [] {
    const auto usable = usable_cpu_features();
    return usable ? *usable : detected_cpu_features();
  }();
  if (features.avx512f && features.avx512dq) return sum_avx512(logits.data(), logits.size(), largest, inverse, weights);
  if (features.avx2) return sum_avx2(logits.data(), logits.size(), largest, inverse, weights);
#endif
  return sum_lanes(logits.data(), logits.size(), largest, inverse, weights);
}

// The place of `uniform` in [0, 1) in the running sum of the weights; never one of weight 0.
std::size_t draw(std::span<const double> weights, double uniform) {
  double total = 0;
  for (const double weight : weights) total += weight;
  const double target = uniform * total;
  double sum = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    sum += weights[i];
    last = i;
    if (sum > target) break;
  }
  return last;
}

constexpr auto kLargerLogit = [](const auto& a, const auto& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; };
constexpr auto kSmallerKey = [](const auto& a, const auto& b) { return a.key != b.key ? a.key < b.key : kLargerLogit(a, b); };

// Puts the candidates in order, only as far as needed: `enough(candidate)` sees them in turn and says when to stop. Returns how
// many it saw. What lies behind is in no particular order.
template <class Candidates, class Less, class Enough>
std::size_t visit_in_order(Candidates& candidates, const Less& less, const Enough& enough) {
  std::size_t sorted = 0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (i == sorted) {
      // Flat distributions need most of them: from 4096 on, one sort of the rest is cheaper than selection by a heap.
      const std::size_t wanted = std::max<std::size_t>(64, 8 * sorted);
      const std::size_t next = wanted > 4096 ? candidates.size() : std::min(candidates.size(), wanted);
      const auto begin = candidates.begin();
      const auto from = begin + static_cast<std::ptrdiff_t>(sorted);
      if (next == candidates.size()) {
        std::sort(from, candidates.end(), less);
      } else {
        std::partial_sort(from, begin + static_cast<std::ptrdiff_t>(next), candidates.end(), less);
      }
      sorted = next;
    }
    if (enough(candidates[i])) return i + 1;
  }
  return candidates.size();
}

Status in_range(std::string_view name, float value, float low, float high) {
  if (value >= low && value <= high) return Ok{};  // false for NaN
  return Error{ErrorCode::kInvalid, fmt::format("sampler: {} is {}; expected {} to {}", name, value, low, high)};
}

}  // namespace

double sampler_exp(double x) { return exp_nonpositive(x); }

// x = m 2^e with m in [sqrt(1/2), sqrt(2)): log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716, eleven terms of the
// series.
double sampler_log(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 1.0 / 23.0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return exponent * kLn2 + 2.0 * s * sum;
}

Status check(const SamplerOptions& options) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  ROOFTREE_TRY_VOID(in_range("temperature", options.temperature, 0, kLargest));
  ROOFTREE_TRY_VOID(in_range("top_p", options.top_p, 0, 1));
  ROOFTREE_TRY_VOID(in_range("min_p", options.min_p, 0, 1));
  ROOFTREE_TRY_VOID(in_range("typical_p", options.typical_p, 0, 1));
  ROOFTREE_TRY_VOID(in_range("repetition_penalty", options.repetition_penalty, std::numeric_limits<float>::min(), kLargest));
  ROOFTREE_TRY_VOID(in_range("presence_penalty", options.presence_penalty, -kLargest, kLargest));
  ROOFTREE_TRY_VOID(in_range("frequency_penalty", options.frequency_penalty, -kLargest, kLargest));
  if (options.top_k < 0) {
    return Error{ErrorCode::kInvalid, fmt::format("sampler: top_k is {}; expected 0 (all) or more", options.top_k)};
  }
  if (options.penalty_window < -1) {
    return Error{ErrorCode::kInvalid, fmt::format("sampler: penalty_window is {}; expected a number of tokens, or -1 for all",
                                                  options.penalty_window)};
  }
  for (const auto& [token, bias] : options.logit_bias) {
    if (token < 0) return Error{ErrorCode::kInvalid, fmt::format("sampler: logit_bias names token {}; ids start at 0", token)};
    if (!(bias < kInfinity)) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("sampler: logit_bias of token {} is {}; expected a number or -infinity", token, bias)};
    }
  }
  return Ok{};
}

Sampler::Sampler(SamplerOptions options) : options_(std::move(options)) {
  ROOFTREE_CHECK(check(options_).has_value(), "sampler options out of range; check() names which");
}

void Sampler::penalise(std::span<float> logits, std::span<const TokenId> history) {
  const float repetition = options_.repetition_penalty;
  if (repetition == 1.0F && options_.presence_penalty == 0.0F && options_.frequency_penalty == 0.0F) return;
  const std::size_t length = options_.penalty_window < 0
                                 ? history.size()
                                 : std::min(history.size(), static_cast<std::size_t>(options_.penalty_window));
  const auto window = history.last(length);
  window_.assign(window.begin(), window.end());
  std::sort(window_.begin(), window_.end());
  for (std::size_t i = 0; i < window_.size();) {
    const TokenId token = window_[i];
    std::size_t end = i;
    while (end < window_.size() && window_[end] == token) ++end;
    const float count = static_cast<float>(end - i);
    i = end;
    if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    logit -= count * options_.frequency_penalty + options_.presence_penalty;
  }
}

void Sampler::keep_largest(std::size_t count) {
  if (count < candidates_.size()) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count), candidates_.end(),
                      kLargerLogit);
    candidates_.resize(count);
  }
}

void Sampler::keep_typical(float largest) {
  double total = 0, moment = 0;  // sums of w and w log w, w = exp(logit - largest)
  for (const Candidate& candidate : candidates_) {
    const double log_weight = below_largest(candidate.logit, largest);
    const double weight = exp_nonpositive(log_weight);
    total += weight;
    if (weight > 0) moment += weight * log_weight;
  }
  // -log p = log total - log w, and the entropy is log total - moment / total: log total cancels in the difference.
  for (Candidate& candidate : candidates_) {
    candidate.key = std::abs(moment / total - below_largest(candidate.logit, largest));
  }
  const double bound = static_cast<double>(options_.typical_p) * total;
  double sum = 0;
  candidates_.resize(visit_in_order(candidates_, kSmallerKey, [&](const Candidate& candidate) {
    sum += exp_nonpositive(below_largest(candidate.logit, largest));
    return sum > bound;
  }));
  std::sort(candidates_.begin(), candidates_.end(), kLargerLogit);
}

void Sampler::keep_top_p(float largest) {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += exp_nonpositive(below_largest(candidate.logit, largest));
  const double bound = static_cast<double>(options_.top_p) * total;
  double sum = 0;
  candidates_.resize(visit_in_order(candidates_, kLargerLogit, [&](const Candidate& candidate) {
    sum += exp_nonpositive(below_largest(candidate.logit, largest));
    return sum >= bound;
  }));
}

Choice Sampler::choose(std::span<float> logits, std::span<const TokenId> history, std::uint64_t sequence) {
  for (const auto& [token, bias] : options_.logit_bias) {
    if (static_cast<std::size_t>(token) < logits.size()) logits[static_cast<std::size_t>(token)] += bias;
  }
  penalise(logits, history);

  std::size_t best = logits.size();
  float largest = -kInfinity;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > largest)) {
      if (std::isnan(logits[i])) logits[i] = -kInfinity;
      continue;
    }
    largest = logits[i];
    best = i;
  }
  if (best == logits.size()) return Choice{kNoToken, -kInfinity};

  const bool greedy = options_.temperature == 0.0F;
  const bool filtered = options_.top_k > 0 || options_.top_p < 1.0F || options_.min_p > 0.0F || options_.typical_p < 1.0F;
  const double log_total = sampler_log(sum_exponentials(logits, largest, 1.0, nullptr));
  const auto chosen = [&](std::size_t index) {
    return Choice{static_cast<TokenId>(index), static_cast<float>(below_largest(logits[index], largest) - log_total)};
  };
  if (greedy) return chosen(best);

  const PhiloxBlock bits = Philox(options_.seed, sequence).block(history.size());
  const double uniform = uniform_from_bits(bits[0] | (std::uint64_t{bits[1]} << 32));
  const auto temperature = static_cast<double>(options_.temperature);
  if (!filtered) {
    weights_.resize(logits.size());
    sum_exponentials(logits, largest, temperature, weights_.data());
    return chosen(draw(weights_, uniform));
  }

  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInfinity) candidates_.push_back({0, logits[i], static_cast<TokenId>(i)});
  }
  if (options_.top_k > 0) keep_largest(static_cast<std::size_t>(options_.top_k));
  if (options_.typical_p < 1.0F) {
    keep_typical(largest);
    // The typical ones need not contain the most probable one; the next filters compare with the largest that is left.
    largest = candidates_.front().logit;
  }
  if (options_.top_p < 1.0F) keep_top_p(largest);
  if (options_.min_p > 0.0F) {
    const double threshold = sampler_log(static_cast<double>(options_.min_p));
    std::erase_if(candidates_, [&](const Candidate& candidate) { return below_largest(candidate.logit, largest) < threshold; });
  }
  std::sort(candidates_.begin(), candidates_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  weights_.clear();
  for (const Candidate& candidate : candidates_) {
    weights_.push_back(exp_nonpositive(below_largest(candidate.logit, largest) * (1.0 / temperature)));
  }
  return chosen(static_cast<std::size_t>(candidates_[draw(weights_, uniform)].id));
}

}  // namespace rooftree::engine

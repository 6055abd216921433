#pragma once

// From logits to the next token. The same logits, options, seed and position give the same token on every machine: the
// arithmetic is IEEE double with separate multiply and add, exp and log are polynomials of our own (relative error below 2^-50,
// tested against libm), and sums run in a fixed order.
//
// Order of the steps, that of llama.cpp's default chain (common/sampling.h there, 2025): logit bias, penalties, top-k, typical,
// top-p, min-p, temperature. Each filter sees what the one before left, with the probabilities at temperature 1 renormalised.
//   penalties   for a token that occurs c > 0 times in the window: l /= r if l > 0, else l *= r; then l -= c * frequency +
//   presence top-k       the k largest logits typical     Meister et al., "Locally typical sampling", 2022: smallest |-log p -
//   entropy| first, until their sum exceeds typical_p top-p       Holtzman et al., "The curious case of neural text
//   degeneration", 2020: largest first, until their sum reaches top_p min-p       those with p >= min_p * (largest p) draw
//   weights exp((l - largest) / temperature); inverse of their running sum in order of token id at a uniform number
//               from Philox: key = seed, counter = (position, sequence)
// Ties in every filter go to the lowest id, and at least one token is kept. A NaN logit counts as -infinity. Where a logit is
// +infinity, only such tokens have a probability.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace rooftree::engine {

using TokenId = std::int32_t;

struct SamplerOptions {
  float temperature = 0.0F;  // 0: greedy, the largest logit, ties to the lowest id
  std::int32_t top_k = 0;    // 0: all
  float top_p = 1.0F;
  float min_p = 0.0F;
  float typical_p = 1.0F;
  float repetition_penalty = 1.0F;  // divides positive, multiplies negative logits of tokens in the window
  float presence_penalty = 0.0F, frequency_penalty = 0.0F;
  std::int32_t penalty_window = 64;                   // last tokens that penalties look at; -1: all
  std::vector<std::pair<TokenId, float>> logit_bias;  // added; -infinity forbids; ids beyond the vocabulary are ignored
  std::uint64_t seed = 0;
};
// kInvalid names the option that is out of range.
Status check(const SamplerOptions& options);

inline constexpr TokenId kNoToken = -1;

struct Choice {
  // -1 (kNoToken): every logit was -infinity or NaN, for example after a grammar's mask; the caller reports it.
  TokenId token = 0;
  float log_probability = 0.0F;  // under the distribution before truncation, at temperature 1
};

class Sampler {
 public:
  explicit Sampler(SamplerOptions options);  // options that `check` accepts

  // `logits` is changed (penalties, bias, masks made by the caller before). `history`: all tokens of the sequence so far; the
  // choice is for position history.size(). `sequence` separates the random streams of several answers to one prompt.
  Choice choose(std::span<float> logits, std::span<const TokenId> history, std::uint64_t sequence = 0);

  [[nodiscard]] const SamplerOptions& options() const { return options_; }

 private:
  struct Candidate {
    double key;  // of the sort in progress
    float logit;
    TokenId id;
  };
  void penalise(std::span<float> logits, std::span<const TokenId> history);
  void keep_largest(std::size_t count);
  void keep_typical(float largest);
  void keep_top_p(float largest);

  SamplerOptions options_;
  std::vector<TokenId> window_;        // scratch from here on
  std::vector<Candidate> candidates_;  // always in an order that is a function of the input: sums run over it
  std::vector<double> weights_;
};

// The exponential and logarithm that the sampler uses, for tests. Relative error below 2^-50: exp for x in [-708, 0] (0 below),
// log for positive normal x.
[[nodiscard]] double sampler_exp(double x);
[[nodiscard]] double sampler_log(double x);

}  // namespace rooftree::engine

#pragma once

// From logits to the next token. The same logits, options, seed and position give the same token on every machine.

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
  std::int32_t penalty_window = 64;  // last tokens that penalties look at; -1: all
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::uint64_t seed = 0;
};
// kInvalid names the option that is out of range.
Status check(const SamplerOptions& options);

struct Choice {
  TokenId token = 0;
  float log_probability = 0.0F;  // under the distribution before truncation, at temperature 1
};

class Sampler {
 public:
  explicit Sampler(SamplerOptions options);

  // `logits` is changed (penalties, bias, masks made by the caller before). `history`: all tokens of the sequence so far; the
  // choice is for position history.size(). `sequence` separates the random streams of several answers to one prompt.
  Choice choose(std::span<float> logits, std::span<const TokenId> history, std::uint64_t sequence = 0);

  [[nodiscard]] const SamplerOptions& options() const { return options_; }

 private:
  SamplerOptions options_;
  std::vector<std::pair<float, TokenId>> candidates_;  // scratch
};

}  // namespace rooftree::engine

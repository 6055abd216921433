#pragma once

// What was run, in a form that two machines can compare: hashes of the weights, the tokenizer and every row of logits. Equal
// receipts mean equal answers for equal reasons; unequal ones say where they part.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"
#include "engine/engine.h"

namespace rooftree::engine {

inline constexpr int kContractVersion = 1;  // docs/design/006-numeric-contract.md

struct Receipt {
  int contract = kContractVersion;
  std::string model, weights_sha256, tokenizer_hash, kv, level;  // what decides the bits
  std::string backend, cpu;                                      // what must not
  int threads = 1;
  std::vector<TokenId> tokens;  // prompt and answer
  std::int64_t prompt_tokens = 0;
  // Position of a token, and the running SHA-256 over all rows of logits up to the one after it, as 16 digits.
  std::vector<std::pair<std::int64_t, std::string>> rows;
  std::string logits_sha256;  // over all rows
};
[[nodiscard]] std::string to_json(const Receipt& receipt);
Result<Receipt> parse_receipt(std::string_view json, std::string_view where);

class ReceiptRecorder {
 public:
  void add_row(std::int64_t position, std::span<const float> logits);
  // Fills in what the engine knows and what was recorded.
  [[nodiscard]] Receipt finish(Engine& engine, const EngineOptions& options, std::string cpu, std::vector<TokenId> tokens,
                               std::int64_t prompt_tokens) const;

 private:
  Sha256 hash_;
  std::vector<std::pair<std::int64_t, std::string>> rows_;
};

// Empty when equal in all that decides the bits; otherwise what differs first, in a sentence.
[[nodiscard]] std::string first_difference(const Receipt& a, const Receipt& b);

}  // namespace rooftree::engine

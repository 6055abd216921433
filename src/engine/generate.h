#pragma once

// One sequence after another through the engine: prompt, tokens, stop rules, speculative decoding. What `run` and `chat` use;
// a server drives Engine::step itself.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "text/grammar.h"

namespace rooftree::engine {

// A sequence's tokens and the blocks that hold their keys and values. Movable; gives its blocks back.
class Sequence {
 public:
  explicit Sequence(Engine& engine) : engine_(&engine) {}
  ~Sequence();
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&& other) noexcept;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  [[nodiscard]] const std::vector<TokenId>& tokens() const { return tokens_; }
  [[nodiscard]] std::int64_t computed() const { return computed_; }  // positions whose keys and values are in the cache
  void append(std::span<const TokenId> tokens);
  // Takes over cached blocks of a matching prefix; only before anything was computed.
  std::int64_t reuse_prefix();
  // Makes blocks for everything appended, copies shared ones, and returns the chunk of what is not computed yet (at most
  // `limit` tokens). kInvalid: the pool is full, or the context is longer than the model's.
  Result<Chunk> prepare(std::int64_t limit, Logits logits);
  void advance(std::int64_t tokens);   // after the step: they are computed; publishes full blocks
  void truncate(std::int64_t tokens);  // keeps the first `tokens` (rejected drafts go)
  // Makes `tokens` (at least one) of it and keeps what is computed of the prefix that both have; at least the last token is
  // left to compute, so that there are logits. Returns the number of tokens kept.
  std::int64_t assign(std::span<const TokenId> tokens);
  [[nodiscard]] Sequence fork() const;  // shares all blocks

 private:
  void release_from(std::size_t block);
  [[nodiscard]] std::int64_t page() const;

  Engine* engine_;
  std::vector<TokenId> tokens_;
  std::vector<serving::BlockId> blocks_;
  std::int64_t computed_ = 0;
  std::vector<serving::PrefixHash> chains_;  // of the leading full blocks that others may find
  bool tail_published_ = false;              // others may find the block that the next position lies in
};

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  SamplerOptions sampler;
  bool ignore_end = false;        // go on after an end-of-generation token
  std::vector<std::string> stop;  // ends before this text
  const text::Grammar* grammar = nullptr;
  std::int64_t lookup = 0;  // n-gram draft length; 0: none
  Engine* draft = nullptr;  // draft model with the same vocabulary; null: none
  std::int64_t draft_tokens = 4;
  std::uint64_t stream = 0;  // separates the random numbers of several answers to one prompt
  // Text as it becomes certain: whole characters, nothing of a stop text. Needs a tokenizer.
  std::function<void(std::string_view text)> on_text;
  // Logits after every position that this call computes, the prompt's included. The last generated token is then computed too,
  // and nothing is taken from cached prefixes or drafted.
  std::function<void(std::int64_t position, std::span<const float> logits)> on_logits;
};
// kInvalid names the option that is out of range or does not fit the engine.
Status check(const GenerateOptions& options, const Engine& engine);

enum class StopReason : std::uint8_t { kEnd, kStopText, kMaxTokens, kContext, kCancelled };

struct GenerateResult {
  std::vector<TokenId> tokens;  // generated ones
  StopReason reason = StopReason::kMaxTokens;
  double prompt_seconds = 0, decode_seconds = 0;
  std::int64_t prompt_tokens = 0, reused_tokens = 0;  // computed, and taken from cached prefixes
  std::int64_t steps = 0;                             // behind the prompt
  std::int64_t drafted = 0, accepted = 0;
};

// Called with each token and the logits that it was chosen from, as the model gave them; false ends the generation. May be
// empty.
using OnToken = std::function<bool(TokenId token, std::span<const float> logits)>;

// Continues the sequence. The token that ends the answer is not part of it. kInvalid: an empty prompt, a prompt longer than the
// context, or options that do not fit.
Result<GenerateResult> generate(Engine& engine, Sequence& sequence, const GenerateOptions& options, const OnToken& on_token,
                                Progress* progress = nullptr);

}  // namespace rooftree::engine

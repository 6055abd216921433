#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace rooftree::engine {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr std::int64_t kPromptChunk = 512;  // tokens between two looks at the progress
constexpr std::size_t kLongestPattern = 3;  // tokens that a look-up matches

TokenId most_likely(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// What followed the last occurrence of the sequence's last tokens, the longest pattern first.
std::vector<TokenId> look_up(std::span<const TokenId> tokens, std::size_t count) {
  for (std::size_t pattern = std::min(kLongestPattern, tokens.size() - 1); pattern > 0; --pattern) {
    const std::span<const TokenId> tail = tokens.last(pattern);
    for (std::size_t start = tokens.size() - pattern; start-- > 0;) {
      if (!std::equal(tail.begin(), tail.end(), tokens.begin() + static_cast<std::ptrdiff_t>(start))) continue;
      const std::span<const TokenId> next = tokens.subspan(start + pattern);
      return {next.begin(), next.begin() + static_cast<std::ptrdiff_t>(std::min(count, next.size()))};
    }
  }
  return {};
}

// A draft model that follows the sequence: computes what it has not seen, then goes on by itself.
class Drafter {
 public:
  explicit Drafter(Engine& engine) : engine_(engine), sequence_(engine) {}

  Result<std::vector<TokenId>> propose(std::span<const TokenId> tokens, std::int64_t count) {
    if (sequence_.assign(tokens) == 0) sequence_.reuse_prefix();
    std::vector<TokenId> draft;
    const std::int64_t context = engine_.position_limit();
    while (static_cast<std::int64_t>(draft.size()) < count) {
      const auto length = static_cast<std::int64_t>(sequence_.tokens().size());
      if (context > 0 && length >= context) break;
      std::span<const float> logits;
      while (sequence_.computed() < length) {
        auto chunk = sequence_.prepare(kPromptChunk, Logits::kLast);
        if (!chunk) return draft;  // its cache is full: no drafts any more, the answer goes on without
        const auto width = static_cast<std::int64_t>(chunk->tokens.size());
        ROOFTREE_TRY(const StepResult step, engine_.step({&*chunk, 1}));
        sequence_.advance(width);
        logits = step.logits;
      }
      draft.push_back(most_likely(logits));
      sequence_.append({&draft.back(), 1});
    }
    return draft;
  }

 private:
  Engine& engine_;
  Sequence sequence_;
};

// Text of the answer with stop texts taken out.
class TextOutput {
 public:
  TextOutput(const text::Tokenizer* tokenizer, std::span<const TokenId> prompt, const GenerateOptions& options)
      : options_(options) {
    if (tokenizer == nullptr || (!options.on_text && options.stop.empty())) return;
    const bool after_text =
        std::any_of(prompt.begin(), prompt.end(), [&](TokenId token) { return !tokenizer->piece(token).empty(); });
    decoder_.emplace(*tokenizer, text::StreamOptions{.after_text = after_text});
  }

  // True: a stop text is complete.
  bool push(TokenId token) { return decoder_.has_value() && add(decoder_->push(token)); }
  void finish() {
    if (decoder_.has_value() && !stopped_) {
      if (!add(decoder_->finish())) emit(held_.size());
    }
  }

 private:
  bool add(const std::string& text) {
    held_ += text;
    std::size_t found = std::string::npos;
    for (const std::string& stop : options_.stop) found = std::min(found, held_.find(stop));
    if (found != std::string::npos) {
      emit(found);
      stopped_ = true;
      return true;
    }
    // A tail that may become a stop text is held back.
    std::size_t keep = 0;
    for (const std::string& stop : options_.stop) {
      for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) keep = n;
      }
    }
    emit(held_.size() - keep);
    return false;
  }
  void emit(std::size_t count) {
    if (count > 0 && options_.on_text) options_.on_text(std::string_view(held_).substr(0, count));
    held_.erase(0, count);
  }

  const GenerateOptions& options_;
  std::optional<text::StreamDecoder> decoder_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace

Status check(const GenerateOptions& options, const Engine& engine) {
  ROOFTREE_TRY_VOID(check(options.sampler));
  const auto refuse = [](std::string why) { return Error{ErrorCode::kInvalid, "generate: " + std::move(why)}; };
  if (options.max_tokens < 0) return refuse(fmt::format("max_tokens: {}; expected at least 0", options.max_tokens));
  if (options.lookup < 0 || options.lookup > 64) return refuse(fmt::format("lookup: {}; expected 0 to 64", options.lookup));
  if (options.draft != nullptr) {
    if (options.draft_tokens < 1 || options.draft_tokens > 64) {
      return refuse(fmt::format("draft_tokens: {}; expected 1 to 64", options.draft_tokens));
    }
    if (options.draft->vocabulary() != engine.vocabulary()) {
      return refuse(fmt::format("the draft model has {} tokens; expected the model's {}", options.draft->vocabulary(),
                                engine.vocabulary()));
    }
    if (options.draft == &engine) return refuse("the draft model is the model itself");
    if (options.lookup > 0) return refuse("both look-up and a draft model; expected one");
  }
  const bool needs_text = !options.stop.empty() || options.on_text || options.grammar != nullptr;
  if (needs_text && engine.tokenizer() == nullptr)
    return refuse("stop texts, text and grammars need a tokenizer; there is none");
  for (const std::string& stop : options.stop) {
    if (stop.empty()) return refuse("an empty stop text");
  }
  return Ok{};
}

Result<GenerateResult> generate(Engine& engine, Sequence& sequence, const GenerateOptions& options, const OnToken& on_token,
                                Progress* progress) {
  ROOFTREE_TRY_VOID(check(options, engine));
  if (sequence.tokens().empty()) return Error{ErrorCode::kInvalid, "generate: an empty prompt; expected at least one token"};
  GenerateResult result;
  const auto cancelled = [&] { return progress != nullptr && progress->cancelled(); };
  const bool every_position = static_cast<bool>(options.on_logits);

  // The prompt, except what others have computed. There must be logits for its last token.
  Clock::time_point start = Clock::now();
  const auto prompt = static_cast<std::int64_t>(sequence.tokens().size());
  if (sequence.computed() == 0 && !every_position) result.reused_tokens = sequence.reuse_prefix();
  if (sequence.computed() == prompt) {
    const TokenId last = sequence.tokens().back();
    sequence.truncate(prompt - 1);
    sequence.append({&last, 1});
  }
  std::vector<float> next;  // logits that the next token is chosen from
  result.prompt_tokens = prompt - sequence.computed();
  const std::int64_t first = sequence.computed();
  while (sequence.computed() < prompt) {
    if (cancelled()) {
      result.reason = StopReason::kCancelled;
      result.prompt_seconds = seconds_since(start);
      return result;
    }
    const bool last = prompt - sequence.computed() <= kPromptChunk;
    ROOFTREE_TRY(const Chunk chunk, sequence.prepare(kPromptChunk, every_position ? Logits::kAll
                                                                   : last         ? Logits::kLast
                                                                                  : Logits::kNone));
    const auto width = static_cast<std::int64_t>(chunk.tokens.size());
    ROOFTREE_TRY(const StepResult step, engine.step({&chunk, 1}));
    const auto vocabulary = static_cast<std::size_t>(step.vocabulary);
    if (every_position) {
      for (std::int64_t i = 0; i < width; ++i) {
        options.on_logits(sequence.computed() + i, step.logits.subspan(static_cast<std::size_t>(i) * vocabulary, vocabulary));
      }
    }
    if (last) next.assign(step.logits.end() - static_cast<std::ptrdiff_t>(vocabulary), step.logits.end());
    sequence.advance(width);
    if (progress != nullptr) {
      progress->update(static_cast<double>(sequence.computed() - first) / static_cast<double>(prompt - first),
                       "reading the prompt");
    }
  }
  result.prompt_seconds = seconds_since(start);
  start = Clock::now();

  Sampler sampler(options.sampler);
  TextOutput output(engine.tokenizer(), sequence.tokens(), options);
  std::optional<text::GrammarState> grammar;
  if (options.grammar != nullptr) grammar.emplace(*options.grammar, engine.shared_tokenizer());
  std::optional<Drafter> drafter;
  if (options.draft != nullptr && !every_position) drafter.emplace(*options.draft);
  std::span<const TokenId> ends;
  if (engine.tokenizer() != nullptr && !options.ignore_end) ends = engine.tokenizer()->special().end_of_generation;

  // Chooses the token behind the sequence's first `length` tokens. nullopt: the generation ends (the reason is set).
  std::vector<float> scratch;
  const auto choose = [&](std::int64_t length, std::span<const float> logits) -> Result<std::optional<TokenId>> {
    if (static_cast<std::int64_t>(result.tokens.size()) >= options.max_tokens) {
      result.reason = StopReason::kMaxTokens;
      return std::optional<TokenId>{};
    }
    if (cancelled()) {
      result.reason = StopReason::kCancelled;
      return std::optional<TokenId>{};
    }
    scratch.assign(logits.begin(), logits.end());
    const std::span<const TokenId> history = std::span(sequence.tokens()).first(static_cast<std::size_t>(length));
    if (grammar.has_value()) grammar->mask(scratch);
    const TokenId token = sampler.choose(scratch, history, options.stream).token;
    if (token == kNoToken) {
      return Error{ErrorCode::kInvalid, fmt::format("generate: position {}: no token may come next", length)};
    }
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      result.reason = StopReason::kEnd;
      return std::optional<TokenId>{};
    }
    if (grammar.has_value()) ROOFTREE_TRY_VOID(grammar->advance(token));
    return std::optional<TokenId>{token};
  };
  // Makes the token part of the answer; false: it was the last (the reason is set).
  const auto accept = [&](TokenId token, std::span<const float> logits) {
    result.tokens.push_back(token);
    if (on_token && !on_token(token, logits)) {
      result.reason = StopReason::kCancelled;
      output.push(token);
      return false;
    }
    if (output.push(token)) {
      result.reason = StopReason::kStopText;
      return false;
    }
    return true;
  };

  ROOFTREE_TRY(std::optional<TokenId> token, choose(prompt, next));
  bool going = token.has_value() && (sequence.append({&*token, 1}), accept(*token, next));
  while (going) {
    const auto length = static_cast<std::int64_t>(sequence.tokens().size());
    const std::int64_t left = options.max_tokens - static_cast<std::int64_t>(result.tokens.size());
    if (left == 0 && !every_position) {
      result.reason = StopReason::kMaxTokens;
      break;
    }
    // Drafts go through the model behind the last token; each is kept only if it is what would have been chosen anyway.
    std::vector<TokenId> draft;
    std::int64_t most = std::min(left - 1, drafter.has_value() ? options.draft_tokens : options.lookup);
    if (engine.position_limit() > 0) most = std::min(most, engine.position_limit() - length);
    if (most > 0 && !every_position) {
      if (drafter.has_value()) {
        ROOFTREE_TRY(draft, drafter->propose(sequence.tokens(), most));
      } else {
        draft = look_up(sequence.tokens(), static_cast<std::size_t>(most));
      }
    }
    sequence.append(draft);
    auto chunk = sequence.prepare(INT64_MAX, Logits::kAll);
    if (!chunk && !draft.empty()) {  // the cache is nearly full: without the drafts it may do
      sequence.truncate(length);
      draft.clear();
      chunk = sequence.prepare(INT64_MAX, Logits::kAll);
    }
    if (!chunk) {
      result.reason = StopReason::kContext;
      break;
    }
    const auto width = static_cast<std::int64_t>(chunk->tokens.size());
    ROOFTREE_TRY(const StepResult step, engine.step({&*chunk, 1}));
    ++result.steps;
    result.drafted += static_cast<std::int64_t>(draft.size());
    sequence.advance(width);
    const auto vocabulary = static_cast<std::size_t>(step.vocabulary);
    const auto row = [&](std::size_t i) { return step.logits.subspan(i * vocabulary, vocabulary); };
    if (every_position) options.on_logits(length - 1, row(0));
    // The choice behind each token sees the sequence up to that token. A draft that was chosen stays with its keys and values.
    for (std::size_t i = 0; going; ++i) {
      const std::int64_t known = length + static_cast<std::int64_t>(i);
      ROOFTREE_TRY(token, choose(known, row(i)));
      const bool drafted = token.has_value() && i < draft.size() && draft[i] == *token;
      if (!drafted) sequence.truncate(known);
      if (!token.has_value()) break;
      if (drafted) {
        ++result.accepted;
      } else {
        sequence.append({&*token, 1});
      }
      if (!accept(*token, row(i))) {
        sequence.truncate(known + 1);
        going = false;
      }
      if (!drafted) break;
    }
    going = going && token.has_value();
  }
  output.finish();
  result.decode_seconds = seconds_since(start);
  return result;
}

}  // namespace rooftree::engine

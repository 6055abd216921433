// Sequence: tokens, and the blocks that hold their keys and values.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/generate.h"

namespace rooftree::engine {

std::int64_t Sequence::page() const { return engine_->blocks().block_tokens(); }

// From the end, so that the pool forgets the tails of prompts before their beginnings.
void Sequence::release_from(std::size_t block) {
  while (blocks_.size() > block) {
    engine_->blocks().release(blocks_.back());
    blocks_.pop_back();
  }
}

Sequence::~Sequence() { release_from(0); }

Sequence::Sequence(Sequence&& other) noexcept
    : engine_(other.engine_),
      tokens_(std::move(other.tokens_)),
      blocks_(std::exchange(other.blocks_, {})),
      computed_(std::exchange(other.computed_, 0)),
      chains_(std::move(other.chains_)),
      tail_published_(std::exchange(other.tail_published_, false)) {
  other.tokens_.clear();
  other.chains_.clear();
}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  release_from(0);
  engine_ = other.engine_;
  tokens_ = std::exchange(other.tokens_, {});
  blocks_ = std::exchange(other.blocks_, {});
  computed_ = std::exchange(other.computed_, 0);
  chains_ = std::exchange(other.chains_, {});
  tail_published_ = std::exchange(other.tail_published_, false);
  return *this;
}

void Sequence::append(std::span<const TokenId> tokens) { tokens_.insert(tokens_.end(), tokens.begin(), tokens.end()); }

std::int64_t Sequence::reuse_prefix() {
  ROOFTREE_CHECK(computed_ == 0 && blocks_.empty(), "reuse_prefix: something was computed already");
  blocks_ = engine_->blocks().find_prefix(tokens_);
  computed_ = static_cast<std::int64_t>(blocks_.size()) * page();
  const auto width = static_cast<std::size_t>(page());
  serving::PrefixHash chain = serving::kPrefixRoot;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    chain = serving::extend(chain, std::span(tokens_).subspan(i * width, width));
    chains_.push_back(chain);
  }
  return computed_;
}

Result<Chunk> Sequence::prepare(std::int64_t limit, Logits logits) {
  const auto total = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t count = std::min(limit, total - computed_);
  if (count < 1) return Error{ErrorCode::kInvalid, "sequence: no tokens that are not computed yet; expected at least one"};
  const std::int64_t context = engine_->position_limit();
  if (context > 0 && total > context) {
    return Error{ErrorCode::kInvalid, fmt::format("sequence: {} tokens; the model has positions for {}", total, context)};
  }
  serving::BlockPool& pool = engine_->blocks();
  const auto full = [&] {
    return Error{ErrorCode::kInvalid, fmt::format("sequence: {} tokens; the cache holds {} positions and none are free", total,
                                                  pool.capacity() * page())};
  };
  // Blocks that will be written: the shared ones are copied first, and those that others may find.
  for (auto i = static_cast<std::size_t>(computed_ / page()); i < blocks_.size(); ++i) {
    if (pool.writable(blocks_[i]) && !tail_published_) continue;
    const auto copy = pool.allocate();
    if (!copy.has_value()) return full();
    engine_->copy_block(blocks_[i], *copy);
    pool.release(blocks_[i]);
    blocks_[i] = *copy;
    tail_published_ = false;
  }
  const auto needed = static_cast<std::size_t>((total + page() - 1) / page());
  while (blocks_.size() < needed) {
    const auto block = pool.allocate();
    if (!block.has_value()) return full();
    blocks_.push_back(*block);
  }
  return Chunk{.tokens = std::span(tokens_).subspan(static_cast<std::size_t>(computed_), static_cast<std::size_t>(count)),
               .past = computed_,
               .blocks = blocks_,
               .logits = logits};
}

void Sequence::advance(std::int64_t tokens) {
  computed_ += tokens;
  ROOFTREE_CHECK(tokens >= 0 && computed_ <= static_cast<std::int64_t>(tokens_.size()), "advance: more than was prepared");
  const auto width = static_cast<std::size_t>(page());
  while (static_cast<std::int64_t>(chains_.size() + 1) * page() <= computed_) {
    const std::size_t i = chains_.size();
    const serving::PrefixHash before = chains_.empty() ? serving::kPrefixRoot : chains_.back();
    chains_.push_back(serving::extend(before, std::span(tokens_).subspan(i * width, width)));
    engine_->blocks().publish(blocks_[i], chains_.back());
  }
}

void Sequence::truncate(std::int64_t tokens) {
  ROOFTREE_CHECK(tokens >= 0 && tokens <= static_cast<std::int64_t>(tokens_.size()), "truncate: beyond the end");
  tokens_.resize(static_cast<std::size_t>(tokens));
  const bool cut = tokens < computed_;
  computed_ = std::min(computed_, tokens);
  const auto full = static_cast<std::size_t>(tokens / page());
  if (chains_.size() > full) {
    chains_.resize(full);
    tail_published_ = tokens % page() != 0;
  } else if (cut && tokens % page() == 0) {
    tail_published_ = false;
  }
  release_from(static_cast<std::size_t>((tokens + page() - 1) / page()));
}

std::int64_t Sequence::assign(std::span<const TokenId> tokens) {
  ROOFTREE_CHECK(!tokens.empty(), "assign: no tokens");
  const auto differ = std::mismatch(tokens_.begin(), tokens_.end(), tokens.begin(), tokens.end()).first;
  const std::int64_t most = std::min(computed_, static_cast<std::int64_t>(tokens.size()) - 1);
  const std::int64_t keep = std::min<std::int64_t>(differ - tokens_.begin(), most);
  truncate(keep);
  append(tokens.subspan(static_cast<std::size_t>(keep)));
  return keep;
}

Sequence Sequence::fork() const {
  Sequence other(*engine_);
  other.tokens_ = tokens_;
  other.blocks_ = blocks_;
  other.computed_ = computed_;
  other.chains_ = chains_;
  other.tail_published_ = tail_published_;
  for (const serving::BlockId block : blocks_) engine_->blocks().retain(block);
  return other;
}

}  // namespace rooftree::engine

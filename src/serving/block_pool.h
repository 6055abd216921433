#pragma once

// Blocks of KV cache by reference count: who owns which block, which are free, which hold a prefix that can be used again. No
// memory of its own (the engine and the simulator attach theirs to block numbers), no clock, no threads.

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace rooftree::serving {

using BlockId = std::int32_t;

// Identity of a full block's content: the chain of the hashes of all tokens up to its end. Two sequences with equal chains have
// equal KV content bit for bit (numeric contract), whoever computed it.
using PrefixHash = std::uint64_t;
inline constexpr PrefixHash kPrefixRoot = 0x526F6F6674726565;
[[nodiscard]] PrefixHash extend(PrefixHash chain, std::span<const std::int32_t> block_tokens);

class BlockPool {
 public:
  BlockPool(std::int64_t blocks, std::int64_t block_tokens);

  [[nodiscard]] std::int64_t block_tokens() const { return block_tokens_; }
  [[nodiscard]] std::int64_t capacity() const;
  [[nodiscard]] std::int64_t free_count() const;  // never used, released, or cached without an owner

  // A block with reference count 1 and no content: first those never used, then the cached one unused for longest (its content
  // is forgotten). nullopt: every block is owned.
  std::optional<BlockId> allocate();
  void retain(BlockId block);
  // At count 0 a block with a published prefix stays findable until it is reused.
  void release(BlockId block);
  [[nodiscard]] std::int32_t references(BlockId block) const;
  // A block may be written in place only by a single owner; others copy first.
  [[nodiscard]] bool writable(BlockId block) const { return references(block) == 1; }

  // Makes a full block findable. The first of two equal ones stays.
  void publish(BlockId block, PrefixHash chain);
  // The longest run of published blocks that covers a prefix of `tokens`, retained for the caller, in order. At most
  // floor((tokens.size() - 1) / block_tokens) blocks: the last token is always computed, so that there are logits.
  [[nodiscard]] std::vector<BlockId> find_prefix(std::span<const std::int32_t> tokens);

  // Aborts when counts, free lists and index disagree.
  void check_invariants() const;

 private:
  struct Block {
    std::int32_t references = 0;
    bool published = false;
    PrefixHash chain = 0;
    std::int32_t previous = -1, next = -1;  // in the list of unowned blocks, least recently used first
  };
  void unlink(BlockId block);
  void push_back(BlockId block);
  void push_front(BlockId block);

  std::int64_t block_tokens_;
  std::vector<Block> blocks_;
  std::int32_t head_ = -1, tail_ = -1;
  std::int64_t free_ = 0;
  std::unordered_map<PrefixHash, BlockId> published_;
};

}  // namespace rooftree::serving

#include "serving/block_pool.h"

#include <limits>

#include "base/check.h"

namespace rooftree::serving {

// FNV-1a over the tokens' bytes, from the chain's value, then a finaliser (SplitMix64, Steele et al. 2014) so that near tokens
// give far hashes.
PrefixHash extend(PrefixHash chain, std::span<const std::int32_t> block_tokens) {
  std::uint64_t h = chain ^ 0xCBF29CE484222325U;
  for (const std::int32_t token : block_tokens) {
    auto bits = static_cast<std::uint32_t>(token);
    for (int i = 0; i < 4; ++i, bits >>= 8) h = (h ^ (bits & 0xFFU)) * 0x100000001B3U;
  }
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  return h ^ (h >> 31);
}

BlockPool::BlockPool(std::int64_t blocks, std::int64_t block_tokens) : block_tokens_(block_tokens) {
  ROOFTREE_CHECK(blocks > 0 && blocks <= std::numeric_limits<BlockId>::max(), "blocks: 1 to 2^31 - 1");
  ROOFTREE_CHECK(block_tokens > 0, "block_tokens: at least 1");
  blocks_.resize(static_cast<std::size_t>(blocks));
  for (std::int64_t i = 0; i < blocks; ++i) push_back(static_cast<BlockId>(i));
}

std::int64_t BlockPool::capacity() const { return static_cast<std::int64_t>(blocks_.size()); }
std::int64_t BlockPool::free_count() const { return free_; }

std::optional<BlockId> BlockPool::allocate() {
  if (head_ < 0) return std::nullopt;
  const BlockId id = head_;
  unlink(id);
  Block& block = blocks_[static_cast<std::size_t>(id)];
  if (block.published) {
    published_.erase(block.chain);
    block.published = false;
  }
  block.references = 1;
  return id;
}

void BlockPool::retain(BlockId id) {
  Block& block = blocks_.at(static_cast<std::size_t>(id));
  if (block.references == 0) unlink(id);
  ++block.references;
}

void BlockPool::release(BlockId id) {
  Block& block = blocks_.at(static_cast<std::size_t>(id));
  ROOFTREE_CHECK(block.references > 0, "release of a block that nobody owns");
  if (--block.references > 0) return;
  // Blocks without content are reused before those that a later prompt may find.
  if (block.published) {
    push_back(id);
  } else {
    push_front(id);
  }
}

std::int32_t BlockPool::references(BlockId id) const { return blocks_.at(static_cast<std::size_t>(id)).references; }

void BlockPool::publish(BlockId id, PrefixHash chain) {
  Block& block = blocks_.at(static_cast<std::size_t>(id));
  ROOFTREE_CHECK(block.references > 0, "only an owner publishes a block");
  if (block.published || !published_.emplace(chain, id).second) return;
  block.published = true;
  block.chain = chain;
}

std::vector<BlockId> BlockPool::find_prefix(std::span<const std::int32_t> tokens) {
  std::vector<BlockId> found;
  PrefixHash chain = kPrefixRoot;
  const auto width = static_cast<std::size_t>(block_tokens_);
  for (std::size_t start = 0; start + width < tokens.size(); start += width) {
    chain = extend(chain, tokens.subspan(start, width));
    const auto it = published_.find(chain);
    if (it == published_.end()) break;
    retain(it->second);
    found.push_back(it->second);
  }
  return found;
}

void BlockPool::check_invariants() const {
  std::int64_t listed = 0;
  std::int32_t previous = -1;
  for (std::int32_t id = head_; id >= 0; id = blocks_[static_cast<std::size_t>(id)].next) {
    const Block& block = blocks_[static_cast<std::size_t>(id)];
    ROOFTREE_CHECK(block.references == 0, "an owned block is in the free list");
    ROOFTREE_CHECK(block.previous == previous, "the free list is linked wrongly");
    previous = id;
    ROOFTREE_CHECK(++listed <= capacity(), "the free list has a cycle");
  }
  ROOFTREE_CHECK(previous == tail_, "the tail of the free list is wrong");
  ROOFTREE_CHECK(listed == free_, "the number of free blocks is wrong");
  std::int64_t unowned = 0;
  std::size_t published = 0;
  for (const Block& block : blocks_) {
    unowned += block.references == 0 ? 1 : 0;
    ROOFTREE_CHECK(block.references >= 0, "a negative reference count");
    if (!block.published) continue;
    ++published;
    const auto it = published_.find(block.chain);
    ROOFTREE_CHECK(it != published_.end() && &blocks_[static_cast<std::size_t>(it->second)] == &block,
                   "a published block is not in the index");
  }
  ROOFTREE_CHECK(unowned == free_, "an unowned block is not in the free list");
  ROOFTREE_CHECK(published == published_.size(), "the index names blocks that are not published");
}

void BlockPool::unlink(BlockId id) {
  Block& block = blocks_[static_cast<std::size_t>(id)];
  (block.previous >= 0 ? blocks_[static_cast<std::size_t>(block.previous)].next : head_) = block.next;
  (block.next >= 0 ? blocks_[static_cast<std::size_t>(block.next)].previous : tail_) = block.previous;
  block.previous = block.next = -1;
  --free_;
}

void BlockPool::push_back(BlockId id) {
  Block& block = blocks_[static_cast<std::size_t>(id)];
  block.previous = tail_;
  block.next = -1;
  (tail_ >= 0 ? blocks_[static_cast<std::size_t>(tail_)].next : head_) = id;
  tail_ = id;
  ++free_;
}

void BlockPool::push_front(BlockId id) {
  Block& block = blocks_[static_cast<std::size_t>(id)];
  block.previous = -1;
  block.next = head_;
  (head_ >= 0 ? blocks_[static_cast<std::size_t>(head_)].previous : tail_) = id;
  head_ = id;
  ++free_;
}

}  // namespace rooftree::serving

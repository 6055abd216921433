#pragma once

// Look-up tables of the tokenizers: text to token, pair of tokens to merge, and a trie for longest matches. Built once, then
// read only.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace rooftree::text {

std::uint64_t hash_bytes(std::string_view bytes);

// Text to token. Keys are views: their owner must outlive the index.
class TextIndex {
 public:
  void reserve(std::size_t keys);
  bool insert(std::string_view key, TokenId token);        // false when the key is there already; the first one stays
  [[nodiscard]] TokenId find(std::string_view key) const;  // -1 when absent
  [[nodiscard]] std::size_t longest() const { return longest_; }

 private:
  struct Slot {
    const char* data = nullptr;
    std::uint32_t size = 0;
    std::uint32_t tag = 0;
    TokenId token = -1;  // -1: free
  };
  void grow(std::size_t slots);

  std::vector<Slot> slots_;
  std::size_t count_ = 0, mask_ = 0, longest_ = 0;
};

// (left, right) to what they merge into and how early.
class PairIndex {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    TokenId token = -1;  // -1: the pair does not merge
  };
  void reserve(std::size_t pairs);
  void insert(TokenId left, TokenId right, Merge merge);  // the lowest rank stays
  [[nodiscard]] Merge find(TokenId left, TokenId right) const {
    if (slots_.empty()) return {};
    const std::uint64_t key = key_of(left, right);
    for (std::size_t at = slot_of(key);; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key) return slot.merge;
      if (slot.merge.token < 0) return {};
    }
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Merge merge;
  };
  static std::uint64_t key_of(TokenId left, TokenId right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) | static_cast<std::uint32_t>(right);
  }
  // Fibonacci hashing: the high bits of the product depend on all bits of the key.
  [[nodiscard]] std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>(((key ^ (key >> 32U)) * 0x9E3779B97F4A7C15ULL) >> shift_);
  }
  void grow(std::size_t slots);

  std::vector<Slot> slots_;
  std::size_t count_ = 0, mask_ = 0;
  unsigned shift_ = 0;
};

// Byte trie; the children of a node lie side by side.
class ByteTrie {
 public:
  // Keys need not be sorted; of equal keys the first one stays; empty keys are left out.
  void build(std::vector<std::pair<std::string_view, TokenId>> keys);
  [[nodiscard]] bool empty() const { return nodes_.size() <= 1; }
  // 0 is the root and, as a result, "no such child".
  [[nodiscard]] std::uint32_t child(std::uint32_t node, char label) const;
  [[nodiscard]] TokenId value(std::uint32_t node) const { return nodes_[node].value; }
  [[nodiscard]] bool starts(char label) const { return !empty() && root_[static_cast<unsigned char>(label)] != 0; }
  // The longest key that text[at..] starts with: its token and length; -1 when there is none.
  [[nodiscard]] std::pair<TokenId, std::size_t> longest(std::string_view text, std::size_t at) const;

 private:
  struct Node {
    std::uint32_t first = 0;  // first child
    std::uint16_t count = 0;  // children
    unsigned char label = 0;  // byte that leads here
    TokenId value = -1;
  };
  std::vector<Node> nodes_;
  std::uint32_t root_[256] = {};
};

}  // namespace rooftree::text

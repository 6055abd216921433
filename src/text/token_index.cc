#include "text/token_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace rooftree::text {
namespace {

std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}

}  // namespace

std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t hash = 0x9E3779B97F4A7C15ULL ^ bytes.size();
  while (bytes.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    hash = fold(hash ^ word, 0xD6E8FEB86659FD93ULL);
    bytes.remove_prefix(8);
  }
  std::uint64_t tail = 0;
  for (const char byte : bytes) tail = (tail << 8U) | static_cast<unsigned char>(byte);
  return fold(hash ^ tail, 0xA0761D6478BD642FULL);
}

void TextIndex::reserve(std::size_t keys) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(16, keys * 2));
  if (slots > slots_.size()) grow(slots);
}

void TextIndex::grow(std::size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  mask_ = slots - 1;
  for (const Slot& slot : old) {
    if (slot.token < 0) continue;
    std::size_t at = hash_bytes({slot.data, slot.size}) & mask_;
    while (slots_[at].token >= 0) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
}

bool TextIndex::insert(std::string_view key, TokenId token) {
  ROOFTREE_CHECK(token >= 0, "a token is not negative");
  if ((count_ + 1) * 2 > slots_.size()) grow(std::max<std::size_t>(16, slots_.size() * 2));
  const std::uint64_t hash = hash_bytes(key);
  const auto tag = static_cast<std::uint32_t>(hash >> 32U);
  std::size_t at = hash & mask_;
  for (; slots_[at].token >= 0; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.tag == tag && std::string_view(slot.data, slot.size) == key) return false;
  }
  slots_[at] = {key.data(), static_cast<std::uint32_t>(key.size()), tag, token};
  ++count_;
  longest_ = std::max(longest_, key.size());
  return true;
}

TokenId TextIndex::find(std::string_view key) const {
  if (slots_.empty() || key.size() > longest_) return -1;
  const std::uint64_t hash = hash_bytes(key);
  const auto tag = static_cast<std::uint32_t>(hash >> 32U);
  for (std::size_t at = hash & mask_; slots_[at].token >= 0; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.tag == tag && std::string_view(slot.data, slot.size) == key) return slot.token;
  }
  return -1;
}

void PairIndex::reserve(std::size_t pairs) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(16, pairs * 2));
  if (slots > slots_.size()) grow(slots);
}

void PairIndex::grow(std::size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  mask_ = slots - 1;
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(slots));
  for (const Slot& slot : old) {
    if (slot.merge.token < 0) continue;
    std::size_t at = slot_of(slot.key);
    while (slots_[at].merge.token >= 0) at = (at + 1) & mask_;
    slots_[at] = slot;
  }
}

void PairIndex::insert(TokenId left, TokenId right, Merge merge) {
  ROOFTREE_CHECK(left >= 0 && right >= 0 && merge.token >= 0, "a token is not negative");
  if ((count_ + 1) * 2 > slots_.size()) grow(std::max<std::size_t>(16, slots_.size() * 2));
  const std::uint64_t key = key_of(left, right);
  std::size_t at = slot_of(key);
  for (; slots_[at].merge.token >= 0; at = (at + 1) & mask_) {
    if (slots_[at].key != key) continue;
    if (merge.rank < slots_[at].merge.rank) slots_[at].merge = merge;
    return;
  }
  slots_[at] = {key, merge};
  ++count_;
}

void ByteTrie::build(std::vector<std::pair<std::string_view, TokenId>> keys) {
  std::erase_if(keys, [](const auto& key) { return key.first.empty(); });
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  keys.erase(std::unique(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first == b.first; }),
             keys.end());
  // Breadth first, so that the children of a node get consecutive places. A range of the sorted keys shares its first `depth`
  // bytes; the key that ends there, if any, is the first of the range.
  struct Range {
    std::size_t begin, end, depth;
  };
  nodes_.assign(1, {});
  std::vector<Range> ranges{{0, keys.size(), 0}};
  for (std::size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    if (begin < end && keys[begin].first.size() == depth) nodes_[node].value = keys[begin++].second;
    nodes_[node].first = static_cast<std::uint32_t>(nodes_.size());
    while (begin < end) {
      const char label = keys[begin].first[depth];
      std::size_t stop = begin + 1;
      while (stop < end && keys[stop].first[depth] == label) ++stop;
      ++nodes_[node].count;
      Node child;
      child.label = static_cast<unsigned char>(label);
      nodes_.push_back(child);
      ranges.push_back({begin, stop, depth + 1});
      begin = stop;
    }
  }
  std::fill(std::begin(root_), std::end(root_), 0U);
  for (std::uint32_t i = 0; i < nodes_[0].count; ++i) root_[nodes_[nodes_[0].first + i].label] = nodes_[0].first + i;
}

std::uint32_t ByteTrie::child(std::uint32_t node, char label) const {
  const auto byte = static_cast<unsigned char>(label);
  if (node == 0) return root_[byte];
  const Node& parent = nodes_[node];
  const Node* const first = nodes_.data() + parent.first;
  const Node* const last = first + parent.count;
  const Node* const found =
      parent.count <= 8
          ? std::find_if(first, last, [&](const Node& n) { return n.label >= byte; })
          : std::lower_bound(first, last, byte, [](const Node& n, unsigned char value) { return n.label < value; });
  if (found == last || found->label != byte) return 0;
  return static_cast<std::uint32_t>(found - nodes_.data());
}

std::pair<TokenId, std::size_t> ByteTrie::longest(std::string_view text, std::size_t at) const {
  std::pair<TokenId, std::size_t> best{-1, 0};
  if (empty()) return best;
  std::uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    node = child(node, text[i]);
    if (node == 0) break;
    if (nodes_[node].value >= 0) best = {nodes_[node].value, i - at + 1};
  }
  return best;
}

}  // namespace rooftree::text

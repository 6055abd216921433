#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "text/grammar.h"
#include "text/grammar_rules.h"

namespace rooftree::text {
namespace {

using Rules = Grammar::Rules;
using Configuration = Rules::Configuration;

constexpr std::size_t kMaxSets = 8'192;                        // of the cached automaton: 2 KiB each
constexpr std::size_t kMaxCacheBytes = std::size_t{64} << 20;  // of cached answers per position
constexpr std::size_t kDeepStack = 1024;                       // beyond it, masks are made token by token

// The tokens of a vocabulary as a prefix tree over their bytes, in preorder: the children of node i are i + 1, and then each
// one's `skip`, as long as that is before skip of i.
struct TokenTree {
  struct Node {
    std::uint32_t skip = 0;                        // the node after this subtree
    std::uint32_t first_token = 0, end_token = 0;  // of `tokens`: those that end here
    std::uint32_t depth = 0;                       // bytes before this one
    unsigned char byte = 0;
  };
  std::vector<Node> nodes;
  std::vector<TokenId> tokens;
  std::vector<TokenId> end_of_generation;
  std::int64_t vocabulary = 0;

  explicit TokenTree(const Tokenizer& tokenizer) : vocabulary(tokenizer.vocabulary()) {
    end_of_generation = tokenizer.special().end_of_generation;
    std::vector<std::pair<std::string, TokenId>> pieces;
    for (TokenId token = 0; token < vocabulary; ++token) {
      if (std::find(end_of_generation.begin(), end_of_generation.end(), token) != end_of_generation.end()) continue;
      std::string piece = tokenizer.piece(token);
      if (!piece.empty()) pieces.emplace_back(std::move(piece), token);
    }
    std::sort(pieces.begin(), pieces.end());
    std::vector<std::uint32_t> path;  // nodes of the current token, one per byte
    std::string_view previous;
    const auto close_to = [&](std::size_t depth) {
      for (; path.size() > depth; path.pop_back()) nodes[path.back()].skip = static_cast<std::uint32_t>(nodes.size());
    };
    for (const auto& [piece, token] : pieces) {
      const auto common = static_cast<std::size_t>(
          std::mismatch(previous.begin(), previous.end(), piece.begin(), piece.end()).first - previous.begin());
      close_to(common);
      for (std::size_t i = common; i < piece.size(); ++i) {
        Node node;
        node.byte = static_cast<unsigned char>(piece[i]);
        node.depth = static_cast<std::uint32_t>(i);
        node.first_token = node.end_token = static_cast<std::uint32_t>(tokens.size());
        path.push_back(static_cast<std::uint32_t>(nodes.size()));
        nodes.push_back(node);
      }
      tokens.push_back(token);
      nodes[path.back()].end_token = static_cast<std::uint32_t>(tokens.size());
      previous = piece;
    }
    close_to(0);
  }
};

using Bits = std::vector<std::uint64_t>;

void set_bit(Bits& bits, TokenId token) { bits[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64); }

// Finds the tokens that may come next. What a rule can read before it returns does not depend on who called it: for each set of
// positions inside rules (the tops of stacks with one rest), the tokens that stay inside are found once by a walk over the tree
// and kept, together with the tree nodes where the rule may return in the middle of a token. Only from those nodes, few and
// with small subtrees, does the walk go on with the rest of the actual stack. Steps of the walk go through a cache of
// configurations (a deterministic automaton made as it is needed).
class Matcher {
 public:
  Matcher(const Rules& rules, std::shared_ptr<const TokenTree> tree) : rules_(rules), tree_(std::move(tree)) {}

  [[nodiscard]] const TokenTree& tree() const { return *tree_; }

  // Sets the bits of the tokens that can be read from `configuration`.
  void allow(const Configuration& configuration, Bits& allowed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Stacks are sorted, so those with one rest are not always neighbours: the rests are sorted first.
    std::vector<std::pair<Rules::Stack, NodeId>> by_rest;
    for (const Rules::Stack& stack : configuration.stacks)
      by_rest.emplace_back(Rules::Stack(stack.begin(), stack.end() - 1), stack.back());
    std::sort(by_rest.begin(), by_rest.end());
    for (std::size_t i = 0; i < by_rest.size();) {
      const Rules::Stack& rest = by_rest[i].first;
      std::vector<NodeId> tops;
      for (; i < by_rest.size() && by_rest[i].first == rest; ++i) tops.push_back(by_rest[i].second);
      const Inside& inside = inside_of(tops);
      for (std::size_t w = 0; w < inside.bits.size(); ++w) allowed[w] |= inside.bits[w];
      for (const TokenId token : inside.few) set_bit(allowed, token);
      if (!rest.empty()) continue_outside(inside.returns, rest, allowed);
    }
  }

 private:
  struct Set {
    Configuration configuration;
    std::array<Set*, 256> next{};  // null: not known yet; &dead_: nothing
    // Steps by which of the first 64 stacks read the byte: bytes that the same ones read lead to the same set.
    std::vector<std::pair<std::uint64_t, Set*>> by_readers;
  };
  struct Inside {
    Bits bits;  // or, where they are few, the tokens themselves
    std::vector<TokenId> few;
    std::vector<std::uint32_t> returns;  // tree nodes with children after whose byte the rule may return
  };
  struct Hash {
    std::size_t operator()(const std::vector<NodeId>& key) const {
      std::uint64_t hash = 0xcbf29ce484222325ULL;
      for (const NodeId node : key)
        hash = (hash ^ static_cast<std::uint64_t>(static_cast<std::uint32_t>(node))) * 0x100000001b3ULL;
      return static_cast<std::size_t>(hash ^ (hash >> 32));
    }
  };

  Set* intern(Configuration configuration) {
    if (!configuration.alive()) return &dead_;
    std::vector<NodeId> key = {configuration.ended ? 1 : 0};
    for (const Rules::Stack& stack : configuration.stacks) {
      key.insert(key.end(), stack.begin(), stack.end());
      key.push_back(-1);
    }
    const auto [found, is_new] = ids_.try_emplace(std::move(key), nullptr);
    if (is_new) {
      found->second = &sets_.emplace_back();
      found->second->configuration = std::move(configuration);
    }
    return found->second;
  }
  Set* find_next(Set& set, unsigned char byte) {
    const std::vector<Rules::Stack>& stacks = set.configuration.stacks;
    std::uint64_t readers = 0;
    const bool few = stacks.size() <= 64;
    for (std::size_t i = 0; few && i < stacks.size(); ++i) {
      if (rules_.reads(stacks[i].back(), byte)) readers |= std::uint64_t{1} << i;
    }
    Set* next = few && readers == 0 ? &dead_ : nullptr;
    for (const auto& [known, to] : set.by_readers) {
      if (few && known == readers) next = to;
    }
    if (next == nullptr) {
      next = intern(rules_.step(set.configuration, byte));
      if (few) set.by_readers.emplace_back(readers, next);
    }
    return set.next[byte] = next;
  }
  void forget_sets() {
    ids_.clear();
    sets_.clear();
    after_return_.clear();
  }

  // Walks the nodes [begin, end), siblings and their subtrees, from a set. `token(first, end)`: tokens that are read wholly;
  // `returned(node)`: the rule may return after this node, which has children.
  template <class Tokens, class Returned>
  void walk(Set* start, std::uint32_t begin, std::uint32_t end, const Tokens& on_tokens, const Returned& on_return) {
    if (begin >= end || start == &dead_) return;
    const std::uint32_t base = tree_->nodes[begin].depth;
    path_.assign(1, start);
    for (std::uint32_t i = begin; i < end;) {
      const TokenTree::Node& node = tree_->nodes[i];
      const std::size_t depth = node.depth - base;
      if (sets_.size() >= kMaxSets) {  // start over, keeping the sets of the path
        std::vector<Configuration> kept;
        for (std::size_t d = 0; d <= depth; ++d) kept.push_back(path_[d]->configuration);
        forget_sets();
        for (std::size_t d = 0; d <= depth; ++d) path_[d] = intern(std::move(kept[d]));
      }
      Set* next = path_[depth]->next[node.byte];
      if (next == nullptr) next = find_next(*path_[depth], node.byte);
      if (next == &dead_) {
        i = node.skip;
        continue;
      }
      if (node.first_token < node.end_token) on_tokens(node.first_token, node.end_token);
      if (next->configuration.ended && node.skip > i + 1) on_return(i);
      if (next->configuration.stacks.empty()) {
        i = node.skip;
        continue;
      }
      if (path_.size() <= depth + 1) path_.resize(depth + 2);
      path_[depth + 1] = next;
      ++i;
    }
  }

  const Inside& inside_of(const std::vector<NodeId>& tops) {
    if (const auto found = inside_.find(tops); found != inside_.end()) return found->second;
    Inside inside;
    Bits bits(static_cast<std::size_t>(tree_->vocabulary + 63) / 64);
    std::size_t count = 0;
    Configuration start;
    for (const NodeId top : tops) start.stacks.push_back({top});
    walk(
        intern(std::move(start)), 0, static_cast<std::uint32_t>(tree_->nodes.size()),
        [&](std::uint32_t first, std::uint32_t end) {
          count += end - first;
          for (; first < end; ++first) set_bit(bits, tree_->tokens[first]);
        },
        [&](std::uint32_t node) { inside.returns.push_back(node); });
    if (count >= bits.size()) {
      inside.bits = std::move(bits);
    } else {
      for (std::size_t w = 0; w < bits.size(); ++w) {
        for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
          inside.few.push_back(static_cast<TokenId>(w * 64 + static_cast<std::size_t>(__builtin_ctzll(word))));
        }
      }
    }
    cache_bytes_ += 8 * inside.bits.size() + 4 * inside.few.size() + 4 * inside.returns.size() + 256;
    if (cache_bytes_ > kMaxCacheBytes) {
      inside_.clear();
      cache_bytes_ = 0;
    }
    return inside_.emplace(tops, std::move(inside)).first->second;
  }

  void continue_outside(const std::vector<std::uint32_t>& returns, const Rules::Stack& rest, Bits& allowed) {
    std::vector<std::pair<std::uint32_t, std::size_t>> pending;
    std::unordered_set<std::uint64_t> seen;
    for (const std::uint32_t node : returns) pending.emplace_back(node, rest.size());
    while (!pending.empty()) {
      const auto [node, height] = pending.back();
      pending.pop_back();
      // A caller that may return at once hands on to the one before.
      for (std::size_t k = height; k-- > 0;) {
        Set* const start = after_return(rest[k]);
        const bool ends = start->configuration.ended;
        walk(
            start, node + 1, tree_->nodes[node].skip,
            [&](std::uint32_t first, std::uint32_t end) {
              for (; first < end; ++first) set_bit(allowed, tree_->tokens[first]);
            },
            [&](std::uint32_t next) {
              if (k > 0 && seen.insert(std::uint64_t{next} * kDeepStack * 4 + k).second) pending.emplace_back(next, k);
            });
        if (!ends) break;
      }
    }
  }
  Set* after_return(NodeId node) {
    if (sets_.size() >= kMaxSets) forget_sets();
    const auto found = after_return_.find(node);
    if (found != after_return_.end()) return found->second;
    Set* const set = intern(rules_.start(node));
    after_return_.emplace(node, set);
    return set;
  }

  const Rules& rules_;  // of the grammar that the states hold
  std::shared_ptr<const TokenTree> tree_;
  std::mutex mutex_;
  Set dead_;
  std::deque<Set> sets_;
  std::unordered_map<std::vector<NodeId>, Set*, Hash> ids_;
  std::unordered_map<NodeId, Set*> after_return_;
  std::unordered_map<std::vector<NodeId>, Inside, Hash> inside_;
  std::size_t cache_bytes_ = 0;
  std::vector<Set*> path_;  // scratch
};

// Trees live as long as their tokenizer, matchers as long as their grammar: a server that makes a state per request must not
// sort the vocabulary each time.
class Registry {
 public:
  static Registry& instance() {
    static Registry registry;
    return registry;
  }
  std::shared_ptr<Matcher> matcher(const std::shared_ptr<const Rules>& rules,
                                   const std::shared_ptr<const Tokenizer>& tokenizer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(trees_, [](const auto& entry) { return entry.tokenizer.expired(); });
    std::erase_if(matchers_, [](const auto& entry) { return entry.rules.expired() || entry.tokenizer.expired(); });
    for (const auto& entry : matchers_) {
      if (entry.rules.lock() == rules && entry.tokenizer.lock() == tokenizer) return entry.matcher;
    }
    std::shared_ptr<const TokenTree> tree;
    for (const auto& entry : trees_) {
      if (entry.tokenizer.lock() == tokenizer) tree = entry.tree;
    }
    if (tree == nullptr) {
      tree = std::make_shared<TokenTree>(*tokenizer);
      trees_.push_back({tokenizer, tree});
    }
    matchers_.push_back({rules, tokenizer, std::make_shared<Matcher>(*rules, std::move(tree))});
    return matchers_.back().matcher;
  }

 private:
  struct Tree {
    std::weak_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<const TokenTree> tree;
  };
  struct Entry {
    std::weak_ptr<const Rules> rules;
    std::weak_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<Matcher> matcher;
  };
  std::mutex mutex_;
  std::vector<Tree> trees_;
  std::vector<Entry> matchers_;
};

}  // namespace

struct GrammarState::State {
  std::shared_ptr<const Rules> rules;  // first: the matcher refers to it
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<Matcher> matcher;
  Configuration configuration;

  [[nodiscard]] bool ends_generation(TokenId token) const {
    const std::vector<TokenId>& ends = matcher->tree().end_of_generation;
    return std::find(ends.begin(), ends.end(), token) != ends.end();
  }
  // The configuration after a token that is not one that ends generation; not alive: it may not come.
  [[nodiscard]] Configuration after(TokenId token) const {
    if (token < 0 || token >= matcher->tree().vocabulary) return {};
    const std::string piece = tokenizer->piece(token);
    if (piece.empty()) return {};
    Configuration next = configuration;
    for (const char byte : piece) {
      next = rules->step(next, static_cast<unsigned char>(byte));
      if (!next.alive()) break;
    }
    return next;
  }
};

GrammarState::GrammarState(const Grammar& grammar, std::shared_ptr<const Tokenizer> tokenizer)
    : state_(std::make_unique<State>()) {
  ROOFTREE_CHECK(tokenizer != nullptr, "a grammar state needs a tokenizer");
  state_->rules = grammar.rules();
  state_->matcher = Registry::instance().matcher(grammar.rules(), tokenizer);
  state_->tokenizer = std::move(tokenizer);
  state_->configuration = state_->rules->start(state_->rules->root);
}
GrammarState::GrammarState(const GrammarState& other) : state_(std::make_unique<State>(*other.state_)) {}
GrammarState& GrammarState::operator=(const GrammarState& other) {
  *state_ = *other.state_;
  return *this;
}
GrammarState::~GrammarState() = default;

bool GrammarState::may_end() const { return state_->configuration.ended; }

bool GrammarState::accepts(TokenId token) const {
  if (state_->ends_generation(token)) return may_end();
  return state_->after(token).alive();
}

Status GrammarState::advance(TokenId token) {
  if (state_->ends_generation(token)) {
    if (!may_end())
      return Error{ErrorCode::kInvalid, fmt::format("grammar: token {} ends the text, which is not complete", token)};
    state_->configuration.stacks.clear();
    return Ok{};
  }
  Configuration next = state_->after(token);
  if (!next.alive()) {
    return Error{ErrorCode::kInvalid,
                 next.overflow
                     ? fmt::format("grammar: after token {} the text has more readings, or deeper ones, than the bounds", token)
                     : fmt::format("grammar: token {} may not come next", token)};
  }
  state_->configuration = std::move(next);
  return Ok{};
}

void GrammarState::mask(std::span<float> logits) const {
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  const std::int64_t vocabulary = state_->matcher->tree().vocabulary;
  Bits allowed(static_cast<std::size_t>(vocabulary + 63) / 64);
  const Configuration& configuration = state_->configuration;
  if (std::any_of(configuration.stacks.begin(), configuration.stacks.end(),
                  [](const auto& stack) { return stack.size() > kDeepStack; })) {
    for (TokenId token = 0; token < vocabulary; ++token) {
      if (!state_->ends_generation(token) && state_->after(token).alive()) set_bit(allowed, token);
    }
  } else {
    state_->matcher->allow(configuration, allowed);
  }
  for (const TokenId token : state_->matcher->tree().end_of_generation) {
    if (may_end() && token >= 0 && token < vocabulary) set_bit(allowed, token);
  }
  for (std::size_t begin = 0; begin < logits.size(); begin += 64) {
    const std::size_t count = std::min<std::size_t>(64, logits.size() - begin);
    const std::uint64_t word = begin / 64 < allowed.size() ? allowed[begin / 64] : 0;
    if (word == ~std::uint64_t{0}) continue;
    if (word == 0) {
      std::fill_n(logits.begin() + static_cast<std::ptrdiff_t>(begin), count, kForbidden);
      continue;
    }
    for (std::size_t i = 0; i < count; ++i) {
      if ((word >> i & 1) == 0) logits[begin + i] = kForbidden;
    }
  }
}

}  // namespace rooftree::text

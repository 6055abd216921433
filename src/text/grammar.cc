#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/check.h"
#include "text/grammar_rules.h"

namespace rooftree::text {
namespace {

constexpr std::size_t kMaxText = std::size_t{1} << 20;
constexpr std::size_t kMaxNodes = 200'000;
constexpr std::size_t kMaxExpressions = 400'000;
constexpr std::int64_t kMaxRepeat = 10'000;
// Rules up to this size are copied into their callers: the body of a string must be inside the string's rule, or every
// character would be a return to a caller, which masks handle one by one.
constexpr std::int64_t kCopiedNodes = 256;
constexpr std::size_t kMaxStacks = 2048, kMaxStackDepth = 4096;
constexpr int kMaxNesting = 100, kMaxPostfix = 8;
constexpr std::uint32_t kLastCharacter = 0x10FFFF;

void set_bytes(ByteSet& set, unsigned first, unsigned last) {
  for (unsigned byte = first; byte <= last; ++byte) set[byte / 64] |= std::uint64_t{1} << (byte % 64);
}

std::size_t encode(std::uint32_t code, unsigned char* out) {
  if (code < 0x80) {
    out[0] = static_cast<unsigned char>(code);
    return 1;
  }
  const std::size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (std::size_t i = size; i-- > 1; code >>= 6) out[i] = static_cast<unsigned char>(0x80 | (code & 0x3F));
  out[0] = static_cast<unsigned char>((0xF0U << (4 - size) & 0xFFU) | code);
  return size;
}

// Sorted, merged, without surrogates.
std::vector<CharacterRange> normalise(std::vector<CharacterRange> ranges, bool negated) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<CharacterRange> merged;
  for (const CharacterRange& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  if (negated) {
    std::vector<CharacterRange> rest;
    std::uint32_t from = 0;
    for (const CharacterRange& range : merged) {
      if (range.first > from) rest.push_back({from, range.first - 1});
      from = range.last + 1;
    }
    if (from <= kLastCharacter) rest.push_back({from, kLastCharacter});
    merged = std::move(rest);
  }
  std::vector<CharacterRange> result;
  for (const CharacterRange& range : merged) {
    if (range.first < 0xD800) result.push_back({range.first, std::min(range.last, 0xD7FFU)});
    if (range.last > 0xDFFF) result.push_back({std::max(range.first, 0xE000U), range.last});
  }
  return result;
}

}  // namespace

// ---- expressions ----

ExpressionId GrammarBuilder::add(Expression expression) {
  if (expressions_.size() >= kMaxExpressions) too_large_ = true;
  if (too_large_ && !expressions_.empty()) return 0;
  expressions_.push_back(std::move(expression));
  return static_cast<ExpressionId>(expressions_.size()) - 1;
}

ExpressionId GrammarBuilder::literal(std::string text) {
  if (text.empty()) return nothing();
  return one_of({std::move(text)});
}
ExpressionId GrammarBuilder::one_of(std::vector<std::string> literals) {
  Expression e;
  e.kind = Kind::kOneOf;
  std::sort(literals.begin(), literals.end());
  literals.erase(std::unique(literals.begin(), literals.end()), literals.end());
  e.literals = std::move(literals);
  return add(std::move(e));
}
ExpressionId GrammarBuilder::characters(std::vector<CharacterRange> ranges, bool negated) {
  Expression e;
  e.kind = Kind::kCharacters;
  e.ranges = normalise(std::move(ranges), negated);
  return add(std::move(e));
}
ExpressionId GrammarBuilder::sequence(std::vector<ExpressionId> items) {
  if (items.size() == 1) return items[0];
  Expression e;
  e.kind = Kind::kSequence;
  e.items = std::move(items);
  return add(std::move(e));
}
ExpressionId GrammarBuilder::alternatives(std::vector<ExpressionId> items) {
  if (items.size() == 1) return items[0];
  Expression e;
  e.kind = Kind::kAlternatives;
  e.items = std::move(items);
  return add(std::move(e));
}
ExpressionId GrammarBuilder::repeat(ExpressionId item, std::int64_t least, std::int64_t most) {
  Expression e;
  e.kind = Kind::kRepeat;
  e.items = {item};
  e.least = least;
  e.most = most;
  return add(std::move(e));
}
ExpressionId GrammarBuilder::reference(RuleId rule) {
  Expression e;
  e.kind = Kind::kReference;
  e.rule = rule;
  return add(std::move(e));
}

RuleId GrammarBuilder::rule(std::string_view name) {
  if (const auto found = names_.find(name); found != names_.end()) return found->second;
  const auto id = static_cast<RuleId>(rules_.size());
  rules_.push_back({std::string(name)});
  names_.emplace(std::string(name), id);
  return id;
}

bool GrammarBuilder::nullable(ExpressionId id) const {
  const Expression& e = at(id);
  switch (e.kind) {
    case Kind::kOneOf:
      return !e.literals.empty() && e.literals[0].empty();
    case Kind::kCharacters:
      return false;
    case Kind::kSequence:
      return std::all_of(e.items.begin(), e.items.end(), [this](ExpressionId item) { return nullable(item); });
    case Kind::kAlternatives:
      return std::any_of(e.items.begin(), e.items.end(), [this](ExpressionId item) { return nullable(item); });
    case Kind::kRepeat:
      return e.least == 0 || nullable(e.items[0]);
    case Kind::kReference:
      return rules_[static_cast<std::size_t>(e.rule)].nullable;
  }
  return false;
}

// Rules that may be entered before a byte is read.
void GrammarBuilder::leftmost(ExpressionId id, std::vector<RuleId>& out) const {
  const Expression& e = at(id);
  switch (e.kind) {
    case Kind::kReference:
      out.push_back(e.rule);
      break;
    case Kind::kAlternatives:
      for (const ExpressionId item : e.items) leftmost(item, out);
      break;
    case Kind::kRepeat:
      if (e.most != 0) leftmost(e.items[0], out);
      break;
    case Kind::kSequence:
      for (const ExpressionId item : e.items) {
        leftmost(item, out);
        if (!nullable(item)) break;
      }
      break;
    default:
      break;
  }
}

void GrammarBuilder::references(ExpressionId id, std::vector<RuleId>& out) const {
  const Expression& e = at(id);
  if (e.kind == Kind::kReference) out.push_back(e.rule);
  for (const ExpressionId item : e.items) references(item, out);
}

namespace {

// Rules from which a rule can be reached again. One depth-first search (Tarjan's components) without recursion.
std::vector<bool> on_cycle(const std::vector<std::vector<RuleId>>& edges) {
  const std::size_t count = edges.size();
  std::vector<int> order(count, -1), low(count, 0);
  std::vector<bool> stacked(count, false), result(count, false);
  std::vector<RuleId> stack;
  std::vector<std::pair<RuleId, std::size_t>> path;
  int next = 0;
  const auto index = [](RuleId rule) { return static_cast<std::size_t>(rule); };
  for (std::size_t root = 0; root < count; ++root) {
    if (order[root] >= 0) continue;
    path.emplace_back(static_cast<RuleId>(root), 0);
    while (!path.empty()) {
      auto& [rule, edge] = path.back();
      const std::size_t r = index(rule);
      if (edge == 0 && order[r] < 0) {
        order[r] = low[r] = next++;
        stack.push_back(rule);
        stacked[r] = true;
      }
      if (edge < edges[r].size()) {
        const std::size_t to = index(edges[r][edge++]);
        if (to == r) result[r] = true;
        if (order[to] < 0) {
          path.emplace_back(static_cast<RuleId>(to), 0);
        } else if (stacked[to]) {
          low[r] = std::min(low[r], order[to]);
        }
        continue;
      }
      if (low[r] == order[r]) {
        const bool several = stack.back() != static_cast<RuleId>(r);
        for (bool done = false; !done;) {
          const std::size_t member = index(stack.back());
          stack.pop_back();
          stacked[member] = false;
          if (several) result[member] = true;
          done = member == r;
        }
      }
      path.pop_back();
      if (!path.empty()) low[index(path.back().first)] = std::min(low[index(path.back().first)], low[r]);
    }
  }
  return result;
}

}  // namespace

// Upper bound of the nodes that `emit` makes, with what it copies.
std::int64_t GrammarBuilder::size(ExpressionId id) {
  constexpr std::int64_t kSaturated = std::int64_t{1} << 40;
  const Expression& e = at(id);
  std::int64_t total = 1;
  switch (e.kind) {
    case Kind::kOneOf:
      for (const std::string& text : e.literals) total += 2 * static_cast<std::int64_t>(text.size());
      return total;
    case Kind::kCharacters:
      return e.ranges.empty() || e.ranges.back().last < 0x80 ? 1 : 16 + 8 * static_cast<std::int64_t>(e.ranges.size());
    case Kind::kReference: {
      const Rule& rule = rules_[static_cast<std::size_t>(e.rule)];
      // One more than the rule: a chain of rules that only name the next is copied 256 deep, not without end.
      return rule.recursive || rule.size > kCopiedNodes ? 1 : rule.size + 1;
    }
    default:
      for (const ExpressionId item : e.items) total = std::min(kSaturated, total + size(item));
      if (e.kind == Kind::kRepeat) total = std::min(kSaturated, (total + 1) * std::max<std::int64_t>({e.least + 1, e.most, 1}));
      return total;
  }
}

Result<std::shared_ptr<const Grammar::Rules>> GrammarBuilder::compile(RuleId root, std::string_view where) {
  const auto too_large = [&] {
    return Error{ErrorCode::kInvalid, fmt::format("{}: the grammar has more than {} states", where, kMaxNodes)};
  };
  if (too_large_) return too_large();
  for (const Rule& rule : rules_) {
    if (rule.body < 0) {
      const std::string line = rule.line > 0 ? fmt::format(":{}", rule.line) : "";
      return Error{ErrorCode::kInvalid, fmt::format("{}{}: rule '{}' is not defined", where, line, rule.name)};
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (Rule& rule : rules_) {
      if (!rule.nullable && nullable(rule.body)) changed = rule.nullable = true;
    }
  }
  std::vector<std::vector<RuleId>> left(rules_.size()), all(rules_.size());
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    leftmost(rules_[i].body, left[i]);
    references(rules_[i].body, all[i]);
  }
  const std::vector<bool> left_recursive = on_cycle(left), recursive = on_cycle(all);
  for (std::size_t i = 0; i < rules_.size(); ++i) {
    if (left_recursive[i]) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("{}: rule '{}' is left-recursive: it can begin with itself; write the repetition with '*'",
                               where, rules_[i].name)};
    }
    rules_[i].recursive = recursive[i];
  }
  // Sizes, callees first: an acyclic order exists for everything that may be copied. A fixed number of rounds over the rules
  // would be quadratic; a stack walks each rule once.
  std::vector<char> state(rules_.size(), 0);
  std::vector<std::size_t> pending;
  for (std::size_t first = 0; first < rules_.size(); ++first) {
    pending.push_back(first);
    while (!pending.empty()) {
      const std::size_t i = pending.back();
      if (state[i] == 0) {
        state[i] = 1;
        for (const RuleId callee : all[i]) {
          if (state[static_cast<std::size_t>(callee)] == 0) pending.push_back(static_cast<std::size_t>(callee));
        }
        continue;
      }
      pending.pop_back();
      if (state[i] == 1) rules_[i].size = size(rules_[i].body);
      // Also of what makes no state: ("" {9999}){9999} would take its time.
      if (rules_[i].size > 16 * static_cast<std::int64_t>(kMaxNodes)) return too_large();
      state[i] = 2;
    }
  }
  auto rules = std::make_shared<Grammar::Rules>();
  // Only what is reachable by calls from the root is emitted, each rule when it is first called.
  starts_.assign(rules_.size(), -1);
  std::vector<RuleId> queue = {root};
  std::vector<bool> wanted(rules_.size(), false);
  wanted[static_cast<std::size_t>(root)] = true;
  for (std::size_t done = 0; done < queue.size(); ++done) {
    rules->nodes.emplace_back();  // end
    const auto end = static_cast<NodeId>(rules->nodes.size()) - 1;
    const std::size_t first = rules->nodes.size();
    starts_[static_cast<std::size_t>(queue[done])] = emit(*rules, rules_[static_cast<std::size_t>(queue[done])].body, end);
    if (too_large_) return too_large();
    for (std::size_t n = first; n < rules->nodes.size(); ++n) {
      Grammar::Rules::Node& node = rules->nodes[n];
      if (node.kind != Grammar::Rules::Kind::kCall) continue;
      node.tail = rules->nodes[static_cast<std::size_t>(node.next)].kind == Grammar::Rules::Kind::kEnd;
      if (!wanted[static_cast<std::size_t>(node.rule)]) {
        wanted[static_cast<std::size_t>(node.rule)] = true;
        queue.push_back(node.rule);
      }
    }
  }
  rules->starts = starts_;
  rules->root = starts_[static_cast<std::size_t>(root)];
  if (rules->start(rules->root).overflow) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: the grammar begins with more than {} alternatives", where, kMaxStacks)};
  }
  return std::shared_ptr<const Grammar::Rules>(std::move(rules));
}

// ---- compilation to nodes ----

namespace {

NodeId add_node(Grammar::Rules& rules, Grammar::Rules::Node node) {
  rules.nodes.push_back(std::move(node));
  return static_cast<NodeId>(rules.nodes.size()) - 1;
}

NodeId add_bytes(Grammar::Rules& rules, const ByteSet& bytes, NodeId next) {
  Grammar::Rules::Node node;
  node.kind = Grammar::Rules::Kind::kBytes;
  node.bytes = bytes;
  node.next = next;
  return add_node(rules, std::move(node));
}

NodeId add_branch(Grammar::Rules& rules, std::vector<NodeId> branches) {
  if (branches.size() == 1) return branches[0];
  Grammar::Rules::Node node;
  node.kind = Grammar::Rules::Kind::kBranch;
  node.branches = std::move(branches);
  return add_node(rules, std::move(node));
}

}  // namespace

NodeId GrammarBuilder::emit(Grammar::Rules& rules, ExpressionId id, NodeId next) {
  if (rules.nodes.size() > kMaxNodes) too_large_ = true;
  if (too_large_) return next;
  const Expression& e = at(id);
  switch (e.kind) {
    case Kind::kOneOf:
      return emit_one_of(rules, e.literals, next);
    case Kind::kCharacters:
      return emit_characters(rules, e.ranges, next);
    case Kind::kSequence:
      for (std::size_t i = e.items.size(); i-- > 0;) next = emit(rules, e.items[i], next);
      return next;
    case Kind::kAlternatives: {
      std::vector<NodeId> branches;
      for (const ExpressionId item : e.items) branches.push_back(emit(rules, item, next));
      return add_branch(rules, std::move(branches));
    }
    case Kind::kRepeat: {
      NodeId node = next;
      if (e.most < 0) {
        node = add_node(rules, {});
        const NodeId body = emit(rules, e.items[0], node);
        rules.nodes[static_cast<std::size_t>(node)].kind = Grammar::Rules::Kind::kBranch;
        rules.nodes[static_cast<std::size_t>(node)].branches = {body, next};
      }
      for (std::int64_t i = e.least; i < e.most && !too_large_; ++i)
        node = add_branch(rules, {emit(rules, e.items[0], node), next});
      for (std::int64_t i = 0; i < e.least && !too_large_; ++i) node = emit(rules, e.items[0], node);
      return node;
    }
    case Kind::kReference: {
      const Rule& rule = rules_[static_cast<std::size_t>(e.rule)];
      if (!rule.recursive && rule.size <= kCopiedNodes) return emit(rules, rule.body, next);
      Grammar::Rules::Node node;
      node.kind = Grammar::Rules::Kind::kCall;
      node.rule = e.rule;
      node.next = next;
      return add_node(rules, std::move(node));
    }
  }
  return next;
}

// A range of code points whose UTF-8 forms have one length splits into sequences of byte ranges: where first and last bytes
// differ, the first and last partial blocks are split off (the construction of Thompson's UTF-8 automata, as in RE2). First
// bytes that lead to the same rest share a node.
NodeId GrammarBuilder::emit_characters(Grammar::Rules& rules, const std::vector<CharacterRange>& ranges, NodeId next) {
  using Bytes = std::array<std::pair<unsigned char, unsigned char>, 4>;
  struct Sequence {
    Bytes bytes;
    std::size_t size;
  };
  std::vector<Sequence> sequences;
  const auto split = [&](auto&& self, std::uint32_t first, std::uint32_t last) -> void {
    constexpr std::uint32_t kLimits[] = {0x7F, 0x7FF, 0xFFFF};
    for (const std::uint32_t limit : kLimits) {
      if (first <= limit && limit < last) {
        self(self, first, limit);
        return self(self, limit + 1, last);
      }
    }
    if (first >= 0x80) {
      for (unsigned i = 1; i < (first < 0x800 ? 2U : first < 0x10000 ? 3U : 4U); ++i) {
        const std::uint32_t mask = (std::uint32_t{1} << (6 * i)) - 1;
        if ((first & ~mask) == (last & ~mask)) continue;
        if ((first & mask) != 0) {
          self(self, first, first | mask);
          return self(self, (first | mask) + 1, last);
        }
        if ((last & mask) != mask) {
          self(self, first, (last & ~mask) - 1);
          return self(self, last & ~mask, last);
        }
      }
    }
    unsigned char low[4], high[4];
    Sequence sequence{};
    sequence.size = encode(first, low);
    encode(last, high);
    for (std::size_t i = 0; i < sequence.size; ++i) sequence.bytes[i] = {low[i], high[i]};
    sequences.push_back(sequence);
  };
  for (const CharacterRange& range : ranges) split(split, range.first, range.last);
  // Rests are shared from the end; then sequences with one rest merge their first bytes.
  std::map<std::pair<std::pair<unsigned char, unsigned char>, NodeId>, NodeId> shared;
  std::map<NodeId, ByteSet> firsts;
  for (const Sequence& sequence : sequences) {
    NodeId node = next;
    for (std::size_t i = sequence.size; i-- > 1;) {
      auto [found, is_new] = shared.try_emplace({sequence.bytes[i], node}, -1);
      if (is_new) {
        ByteSet set{};
        set_bytes(set, sequence.bytes[i].first, sequence.bytes[i].second);
        found->second = add_bytes(rules, set, node);
      }
      node = found->second;
    }
    set_bytes(firsts[node], sequence.bytes[0].first, sequence.bytes[0].second);
  }
  std::vector<NodeId> branches;
  for (const auto& [node, set] : firsts) branches.push_back(add_bytes(rules, set, node));
  return add_branch(rules, std::move(branches));
}

// A prefix tree of the sorted literals, made from the longest common prefixes of neighbours, deepest first.
NodeId GrammarBuilder::emit_one_of(Grammar::Rules& rules, const std::vector<std::string>& literals, NodeId next) {
  struct Open {
    unsigned char byte;
    std::vector<NodeId> branches;  // what may follow the byte
  };
  std::vector<Open> path(1);  // path[d]: the tree node after d bytes of the current literal
  const auto close_to = [&](std::size_t depth) {
    while (path.size() > depth + 1) {
      ByteSet set{};
      set_bytes(set, path.back().byte, path.back().byte);
      const NodeId node = add_bytes(rules, set, add_branch(rules, std::move(path.back().branches)));
      path.pop_back();
      path.back().branches.push_back(node);
    }
  };
  std::string_view previous;
  for (const std::string& text : literals) {
    const std::size_t common = static_cast<std::size_t>(
        std::mismatch(previous.begin(), previous.end(), text.begin(), text.end()).first - previous.begin());
    close_to(common);
    for (std::size_t i = common; i < text.size(); ++i) path.push_back({static_cast<unsigned char>(text[i]), {}});
    path.back().branches.push_back(next);
    previous = text;
    if (rules.nodes.size() > kMaxNodes) {
      too_large_ = true;
      return next;
    }
  }
  close_to(0);
  return add_branch(rules, std::move(path[0].branches));
}

// ---- the automaton ----

// Collects the configuration that nodes reach without reading. Loops without a byte end because each (node, stack) is visited
// once.
class Grammar::Rules::Closure {
 public:
  explicit Closure(const Rules& rules) : rules_(rules) {}

  // `stack` holds the nodes to return to.
  void add(NodeId node, Stack stack) {
    pending_.emplace_back(node, std::move(stack));
    while (!pending_.empty()) {
      auto [at, frames] = std::move(pending_.back());
      pending_.pop_back();
      visit(at, std::move(frames));
    }
  }
  Configuration take() {
    std::sort(result_.stacks.begin(), result_.stacks.end());
    result_.stacks.erase(std::unique(result_.stacks.begin(), result_.stacks.end()), result_.stacks.end());
    return std::move(result_);
  }

 private:
  void visit(NodeId at, Stack frames) {
    const Node& node = rules_.nodes[static_cast<std::size_t>(at)];
    if (node.kind == Kind::kBytes) {
      if (result_.stacks.size() >= kMaxStacks || frames.size() >= kMaxStackDepth) {
        result_.overflow = true;
        return;
      }
      frames.push_back(at);
      result_.stacks.push_back(std::move(frames));
      return;
    }
    frames.push_back(at);
    const bool is_new = visited_.insert(frames).second;
    frames.pop_back();
    if (!is_new) return;
    if (visited_.size() > 4 * kMaxStacks || frames.size() >= kMaxStackDepth) {
      result_.overflow = true;
      return;
    }
    switch (node.kind) {
      case Kind::kBranch:
        for (const NodeId branch : node.branches) pending_.emplace_back(branch, frames);
        break;
      case Kind::kCall:
        if (!node.tail) frames.push_back(node.next);
        pending_.emplace_back(rules_.starts[static_cast<std::size_t>(node.rule)], std::move(frames));
        break;
      default:
        if (frames.empty()) {
          result_.ended = true;
          break;
        }
        const NodeId back = frames.back();
        frames.pop_back();
        pending_.emplace_back(back, std::move(frames));
    }
  }

  const Rules& rules_;
  Configuration result_;
  std::set<Stack> visited_;
  std::vector<std::pair<NodeId, Stack>> pending_;
};

Grammar::Rules::Configuration Grammar::Rules::start(NodeId node) const {
  Closure closure(*this);
  closure.add(node, {});
  return closure.take();
}

Grammar::Rules::Configuration Grammar::Rules::step(const Configuration& from, unsigned char byte) const {
  Closure closure(*this);
  for (const Stack& stack : from.stacks) {
    if (!reads(stack.back(), byte)) continue;
    closure.add(nodes[static_cast<std::size_t>(stack.back())].next, Stack(stack.begin(), stack.end() - 1));
  }
  return closure.take();
}

// ---- GBNF ----

namespace {

// Rules "name ::= alternatives"; alternatives "a | b"; sequences of literals, classes, '.', names and groups, each with '*',
// '+',
// '?', {m}, {m,}, {m,n}; comments from '#' to the end of the line. A rule ends where the next one begins.
class GbnfReader {
 public:
  GbnfReader(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Result<std::shared_ptr<const Grammar::Rules>> run() {
    if (text_.size() > kMaxText) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: {} bytes; a grammar has at most {}", where_, text_.size(), kMaxText)};
    }
    skip();
    while (!failed_ && at_ < text_.size()) {
      const std::string_view name = read_name();
      if (name.empty()) fail("expected the name of a rule");
      skip();
      if (!take("::=")) fail(fmt::format("expected '::=' after '{}'", name));
      if (failed_) break;
      const RuleId rule = builder_.rule(name);
      if (builder_.is_defined(rule)) fail(fmt::format("rule '{}' is defined twice", name));
      const ExpressionId body = alternatives();
      if (!failed_) builder_.define(rule, body);
    }
    if (failed_) return error_;
    const RuleId root = builder_.rule("root");
    return builder_.compile(root, where_);
  }

 private:
  void fail(std::string_view message) {
    if (failed_) return;
    failed_ = true;
    error_ = Error{ErrorCode::kParse, fmt::format("{}:{}: {}", where_, line_of(at_), message)};
  }
  // Goes on from the last place asked for: a scan per reference would be quadratic.
  int line_of(std::size_t at) {
    at = std::min(at, text_.size());
    if (at < counted_) counted_ = 0, lines_ = 1;
    lines_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(counted_),
                                          text_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    counted_ = at;
    return lines_;
  }
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  void skip() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        ++at_;
      } else {
        break;
      }
    }
  }
  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  std::string_view read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  // Is what follows the head of the next rule?
  bool at_rule() {
    const std::size_t begin = at_;
    const bool named = !read_name().empty();
    skip();
    const bool found = named && text_.substr(at_, 3) == "::=";
    at_ = begin;
    return found;
  }

  ExpressionId alternatives() {
    if (++depth_ > kMaxNesting) fail(fmt::format("groups nested deeper than {}", kMaxNesting));
    std::vector<ExpressionId> items;
    do {
      items.push_back(sequence());
    } while (!failed_ && take("|"));
    --depth_;
    return failed_ ? 0 : builder_.alternatives(std::move(items));
  }
  ExpressionId sequence() {
    std::vector<ExpressionId> items;
    for (skip(); !failed_ && at_ < text_.size() && peek() != '|' && peek() != ')' && !at_rule(); skip())
      items.push_back(postfix(primary()));
    if (failed_) return 0;
    if (peek() == ')' && depth_ <= 1) fail("')' closes nothing");
    return builder_.sequence(std::move(items));
  }
  ExpressionId primary() {
    const char c = peek();
    if (c == '"') return literal();
    if (c == '[') return character_class();
    if (c == '.') {
      ++at_;
      return builder_.characters({}, true);
    }
    if (c == '(') {
      ++at_;
      const ExpressionId inner = alternatives();
      if (!take(")")) fail("a group is not closed; expected ')'");
      return inner;
    }
    const std::size_t begin = at_;
    const std::string_view name = read_name();
    if (!name.empty()) {
      const RuleId rule = builder_.rule(name);
      if (!builder_.is_defined(rule)) {
        builder_.set_line(rule, line_of(begin));
      }
      return builder_.reference(rule);
    }
    fail(fmt::format("unexpected '{}'",
                     c >= ' ' && c <= '~' ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c))));
    return 0;
  }
  ExpressionId postfix(ExpressionId item) {
    for (int count = 0; !failed_; ++count) {
      skip();
      std::int64_t least = 0, most = -1;
      if (take("*")) {
      } else if (take("+")) {
        least = 1;
      } else if (take("?")) {
        most = 1;
      } else if (take("{")) {
        skip();
        least = read_count();
        skip();
        most = least;
        if (take(",")) {
          skip();
          most = peek() == '}' ? -1 : read_count();
          skip();
        }
        if (!take("}")) fail("a repetition is not closed; expected '}'");
        if (most >= 0 && most < least)
          fail(fmt::format("repetition {{{},{}}}; the bounds are in the wrong order", least, most));
      } else {
        break;
      }
      if (count >= kMaxPostfix) fail(fmt::format("more than {} repetitions of one item", kMaxPostfix));
      if (!failed_) item = builder_.repeat(item, least, most);
    }
    return item;
  }
  std::int64_t read_count() {
    std::int64_t value = 0;
    const std::size_t begin = at_;
    while (peek() >= '0' && peek() <= '9' && value <= kMaxRepeat) value = value * 10 + (text_[at_++] - '0');
    if (at_ == begin) fail("expected a number in a repetition");
    if (value > kMaxRepeat) fail(fmt::format("a repetition of more than {}", kMaxRepeat));
    return value;
  }
  // One character of a literal or class, its escapes resolved.
  std::uint32_t character() {
    const char c = text_[at_];
    if (c == '\\') {
      ++at_;
      const char e = peek();
      ++at_;
      switch (e) {
        case 'n':
          return '\n';
        case 'r':
          return '\r';
        case 't':
          return '\t';
        case '\\':
        case '"':
        case '[':
        case ']':
        case '^':
        case '-':
        case '/':
          return static_cast<std::uint32_t>(e);
        case 'x':
          return hexadecimal(2);
        case 'u':
          return hexadecimal(4);
        case 'U':
          return hexadecimal(8);
        default:
          at_ = std::min(at_ - 1, text_.size());
          fail("unknown escape; expected one of \\n \\r \\t \\\\ \\\" \\[ \\] \\^ \\- \\/ \\x \\u \\U");
          return 0;
      }
    }
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      ++at_;
      return byte;
    }
    const std::size_t size = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    std::uint32_t code = byte & (0xFFU >> (size + 1));
    bool valid = byte >= 0xC2 && byte <= 0xF4 && at_ + size <= text_.size();
    for (std::size_t i = 1; valid && i < size; ++i) {
      const auto tail = static_cast<unsigned char>(text_[at_ + i]);
      valid = (tail & 0xC0) == 0x80;
      code = (code << 6) | (tail & 0x3FU);
    }
    if (!valid || code > kLastCharacter || (code >= 0xD800 && code < 0xE000) || (size == 3 && code < 0x800) ||
        (size == 4 && code < 0x10000)) {
      fail("text that is not UTF-8");
      return 0;
    }
    at_ += size;
    return code;
  }
  std::uint32_t hexadecimal(std::size_t digits) {
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) {
        fail(fmt::format("expected {} hexadecimal digits", digits));
        return 0;
      }
      code = code * 16 + static_cast<std::uint32_t>(digit);
      ++at_;
    }
    if (code > kLastCharacter || (code >= 0xD800 && code < 0xE000)) {
      fail(fmt::format("U+{:X} is not a character", code));
      return 0;
    }
    return code;
  }
  ExpressionId literal() {
    ++at_;
    std::string out;
    while (!failed_ && at_ < text_.size() && peek() != '"') {
      if (peek() == '\n') break;
      unsigned char bytes[4];
      const std::size_t size = encode(character(), bytes);
      out.append(bytes, bytes + size);
    }
    if (!take("\"")) fail("a literal is not closed; expected '\"'");
    return failed_ ? 0 : builder_.literal(std::move(out));
  }
  ExpressionId character_class() {
    ++at_;
    const bool negated = take("^");
    std::vector<CharacterRange> ranges;
    while (!failed_ && at_ < text_.size() && peek() != ']') {
      if (peek() == '\n') break;
      const std::uint32_t first = character();
      std::uint32_t last = first;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        last = character();
        if (last < first) fail(fmt::format("class range U+{:X} to U+{:X} runs backwards", first, last));
      }
      ranges.push_back({first, last});
    }
    if (!take("]")) fail("a class is not closed; expected ']'");
    if (normalise(ranges, negated).empty()) fail("a class without characters");
    return failed_ ? 0 : builder_.characters(std::move(ranges), negated);
  }

  std::string_view text_, where_;
  std::size_t at_ = 0, counted_ = 0;
  int depth_ = 0, lines_ = 1;
  GrammarBuilder builder_;
  bool failed_ = false;
  Error error_;
};

}  // namespace

Grammar::Grammar(std::shared_ptr<const Rules> rules) : rules_(std::move(rules)) {}
Grammar::Grammar(Grammar&&) noexcept = default;
Grammar& Grammar::operator=(Grammar&&) noexcept = default;
Grammar::~Grammar() = default;

Result<Grammar> Grammar::parse_gbnf(std::string_view text, std::string_view where) {
  ROOFTREE_TRY(auto rules, GbnfReader(text, where).run());
  return Grammar(std::move(rules));
}

Result<Grammar> Grammar::any_json() {
  GrammarBuilder builder;
  ROOFTREE_TRY(auto rules, builder.compile(json_value_rule(builder), "JSON"));
  return Grammar(std::move(rules));
}

}  // namespace rooftree::text

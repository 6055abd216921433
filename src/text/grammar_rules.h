#pragma once

// The inside of Grammar. A grammar is written as expressions (by the GBNF reader or from a JSON schema), then compiled to a
// nondeterministic automaton over bytes with calls: characters become the byte sequences of their UTF-8 form, repetition
// becomes loops and copies, small rules that do not recurse are copied into their callers.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/grammar.h"

namespace rooftree::text {

using ExpressionId = std::int32_t;
using RuleId = std::int32_t;
using NodeId = std::int32_t;

struct CharacterRange {
  std::uint32_t first = 0, last = 0;  // code points, inclusive
};

class GrammarBuilder {
 public:
  // Code points of text that no JSON string may hold unescaped are up to the caller; surrogates never match.
  ExpressionId literal(std::string text);
  ExpressionId one_of(std::vector<std::string> literals);  // any of them, by a shared prefix tree
  ExpressionId characters(std::vector<CharacterRange> ranges, bool negated = false);
  ExpressionId sequence(std::vector<ExpressionId> items);
  ExpressionId alternatives(std::vector<ExpressionId> items);
  ExpressionId repeat(ExpressionId item, std::int64_t least, std::int64_t most);  // most -1: no bound
  ExpressionId optional(ExpressionId item) { return repeat(item, 0, 1); }
  ExpressionId reference(RuleId rule);
  ExpressionId nothing() { return sequence({}); }

  RuleId rule(std::string_view name);  // the rule of that name, made when new
  bool is_defined(RuleId rule) const { return rules_[static_cast<std::size_t>(rule)].body >= 0; }
  void define(RuleId rule, ExpressionId body) { rules_[static_cast<std::size_t>(rule)].body = body; }
  void set_line(RuleId rule, int line) { rules_[static_cast<std::size_t>(rule)].line = line; }

  // kInvalid: an undefined rule, left recursion, more nodes than the bound.
  Result<std::shared_ptr<const Grammar::Rules>> compile(RuleId root, std::string_view where);

 private:
  enum class Kind : std::uint8_t { kOneOf, kCharacters, kSequence, kAlternatives, kRepeat, kReference };
  struct Expression {
    Kind kind = Kind::kSequence;
    std::vector<std::string> literals;
    std::vector<CharacterRange> ranges;
    std::vector<ExpressionId> items;
    std::int64_t least = 0, most = 0;
    RuleId rule = -1;
  };
  struct Rule {
    std::string name;
    ExpressionId body = -1;
    int line = 0;  // of its first use, for errors; 0: none
    bool nullable = false;
    bool recursive = false;
    std::int64_t size = 0;  // nodes when everything that can be copied is; saturated
  };

  ExpressionId add(Expression expression);
  const Expression& at(ExpressionId id) const { return expressions_[static_cast<std::size_t>(id)]; }
  bool nullable(ExpressionId id) const;
  void leftmost(ExpressionId id, std::vector<RuleId>& out) const;
  void references(ExpressionId id, std::vector<RuleId>& out) const;
  std::int64_t size(ExpressionId id);
  NodeId emit(Grammar::Rules& rules, ExpressionId id, NodeId next);
  NodeId emit_characters(Grammar::Rules& rules, const std::vector<CharacterRange>& ranges, NodeId next);
  NodeId emit_one_of(Grammar::Rules& rules, const std::vector<std::string>& literals, NodeId next);

  std::vector<Expression> expressions_;
  std::vector<Rule> rules_;
  std::map<std::string, RuleId, std::less<>> names_;
  std::vector<NodeId> starts_;  // of rules, while compiling
  bool too_large_ = false;
};

using ByteSet = std::array<std::uint64_t, 4>;

struct Grammar::Rules {
  enum class Kind : std::uint8_t { kBytes, kBranch, kCall, kEnd };
  struct Node {
    Kind kind = Kind::kEnd;
    bool tail = false;  // of a call: nothing follows, so that it needs no way back
    NodeId next = -1;
    RuleId rule = -1;
    ByteSet bytes{};
    std::vector<NodeId> branches;
  };

  // A stack: the nodes to return to, outermost first, and on top a node of kind kBytes. Stacks are sorted and unique; `ended`:
  // the outermost rule may end here.
  using Stack = std::vector<NodeId>;
  struct Configuration {
    std::vector<Stack> stacks;
    bool ended = false;
    bool overflow = false;  // more stacks or deeper ones than the bounds: something was left out
    [[nodiscard]] bool alive() const { return ended || !stacks.empty(); }
  };

  // What can be read from `node` on; its rule was called from nowhere.
  [[nodiscard]] Configuration start(NodeId node) const;
  [[nodiscard]] Configuration step(const Configuration& from, unsigned char byte) const;

  [[nodiscard]] bool reads(NodeId node, unsigned char byte) const {
    return (nodes[static_cast<std::size_t>(node)].bytes[byte / 64] >> (byte % 64) & 1) != 0;
  }

  std::vector<Node> nodes;
  std::vector<NodeId> starts;  // of rules; -1 where every use was copied
  NodeId root = -1;

 private:
  class Closure;
};

// The JSON grammar into `builder`: a rule for any value.
RuleId json_value_rule(GrammarBuilder& builder);

}  // namespace rooftree::text

#pragma once

// Constrained output: a context-free grammar (GBNF subset, or made from a JSON schema) run as a pushdown automaton over bytes.
// Tells which tokens may come next. Bounded: rules, stack depth and number of parallel stacks.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/tokenizer.h"

namespace rooftree::text {

class Grammar {
 public:
  static Result<Grammar> parse_gbnf(std::string_view text, std::string_view where);
  static Result<Grammar> from_json_schema(std::string_view schema_json, std::string_view where);
  static Result<Grammar> any_json();
  Grammar(Grammar&&) noexcept;
  Grammar& operator=(Grammar&&) noexcept;
  ~Grammar();

  struct Rules;
  [[nodiscard]] const std::shared_ptr<const Rules>& rules() const { return rules_; }

 private:
  explicit Grammar(std::shared_ptr<const Rules> rules);
  std::shared_ptr<const Rules> rules_;
};

// Where one answer stands in a grammar. Copyable (speculation, forks of a sequence).
class GrammarState {
 public:
  GrammarState(const Grammar& grammar, std::shared_ptr<const Tokenizer> tokenizer);
  GrammarState(const GrammarState&);
  GrammarState& operator=(const GrammarState&);
  ~GrammarState();

  // Sets the logits of the tokens that may not come next to -infinity. Tokens that end generation stay only when the text may
  // end here.
  void mask(std::span<float> logits) const;
  [[nodiscard]] bool accepts(TokenId token) const;
  // kInvalid when the token may not come next.
  Status advance(TokenId token);
  [[nodiscard]] bool may_end() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rooftree::text

#pragma once

// Constrained output: a context-free grammar (GBNF subset, or made from a JSON schema) run as a pushdown automaton over bytes.
// Tells which tokens may come next. Bounded: rules (200,000 states), stack depth (4096) and parallel readings (2048); a token
// that would go beyond may not come.

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
  // Rules "name ::= alternatives", the one to match is "root"; literals, classes ([a-z], [^\n], escapes \n \r \t \\ \" \[ \]
  // \xHH \uHHHH \UHHHHHHHH), '.', names, groups, each with *, +, ?, {m}, {m,}, {m,n}; comments from '#'. Left recursion is
  // refused by the rule's name. A match is well-formed UTF-8.
  static Result<Grammar> parse_gbnf(std::string_view text, std::string_view where);
  // A subset of JSON Schema 2020-12; every accepted text is an instance of the schema, not every instance is accepted:
  // properties come in the schema's order, between tokens there is at most one space or one line break with its margin,
  // integers are written without exponent, and further properties come only where additionalProperties allows them by name or
  // nothing is listed. Understood: type (also a list), properties, required, additionalProperties, items, prefixItems,
  // minItems, maxItems, enum, const, anyOf and oneOf (as anyOf), allOf of one, $ref inside the document, minLength, maxLength,
  // pattern (^…$ of literals, classes, groups, alternatives, repetition), bounds of integers, minimum 0 of numbers. Annotations
  // and "format" are ignored; any other keyword is kInvalid with its name and place.
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
  // end here. Safe to call from several threads for different states. The first mask at a new place of a grammar walks the
  // vocabulary once; later ones at that place, in whatever context, take tens of microseconds.
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

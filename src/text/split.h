#pragma once

// Pre-tokenising: text is cut into words by regular expressions before a model sees it. Patterns are Perl's (PCRE2 with Unicode
// properties); those of known families have names. Immutable; safe to share between threads.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rooftree::text {

// What becomes of a match, in the words of Hugging Face's tokenizers (pre_tokenizers::split).
enum class SplitBehavior : std::uint8_t {
  kIsolated,            // a word of its own
  kRemoved,             // dropped
  kMergedWithPrevious,  // ends the word before it
  kMergedWithNext,      // begins the word after it
  kContiguous,          // matches that touch are one word
};

class RegexSplit {
 public:
  struct Options {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;  // what lies between the matches is what matches; with kIsolated and kRemoved only
  };
  // kInvalid names what the pattern asks for and PCRE2 does not have, or means differently.
  static Result<RegexSplit> compile(std::string_view pattern, Options options, std::string_view where);
  static Result<RegexSplit> compile_literal(std::string_view literal, Options options, std::string_view where);

  // Appends the words of `text`; they are views into it. Bytes that are not valid UTF-8 match nothing: a run of them is a word
  // of its own, and the text before it ends there. A pattern that needs more than a bounded number of steps for a match
  // cuts no further in that run of text.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

  // `text` with each match replaced.
  [[nodiscard]] std::string replace(std::string_view text, std::string_view replacement) const;

  [[nodiscard]] const std::string& pattern() const { return pattern_; }
  [[nodiscard]] Options options() const { return options_; }

 private:
  struct Code;
  std::shared_ptr<const Code> code_;  // shared by copies
  std::string pattern_;
  Options options_;
};

// How a family cuts text: the patterns are applied one after the other, each to the words that the one before it left.
struct SplitFamily {
  std::string_view name;  // as in tokenizer.ggml.pre
  std::vector<std::string_view> patterns;
  bool ignore_merges = false;   // a word that is a token is that token, whatever the merges say
  bool add_bos = false;         // where the file does not say
  bool spell_bytes = true;      // tokens are written in GPT-2's byte spelling; else in plain text with a mark for spaces
  bool separator_ends = false;  // where the file does not say: the separator token ends the text
};
// Null: no such family.
const SplitFamily* find_split_family(std::string_view name);
std::vector<std::string_view> split_family_names();

}  // namespace rooftree::text

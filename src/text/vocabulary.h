#pragma once

// What the readers of tokenizer files (GGUF, tokenizer.json, tiktoken, llama2.c) agree on, and what a Tokenizer is made from.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/unicode_text.h"

namespace rooftree::text {

// Bounds on what a file may ask for. The largest published vocabularies have 262,144 tokens and 514,906 merges.
constexpr std::size_t kMaxTokens = std::size_t{1} << 22U;
constexpr std::size_t kMaxMerges = std::size_t{1} << 23U;
constexpr std::size_t kMaxTokenBytes = std::size_t{1} << 16U;

enum class Algorithm : std::uint8_t {
  kMergeBytes,       // byte pairs in the order of the merges
  kMergeCharacters,  // the same over characters
  kScoreCharacters,  // SentencePiece BPE: the pair whose text is the token of the highest score merges first
  kUnigram,          // SentencePiece unigram: the segmentation of the highest summed score
  kWordPiece,        // the longest piece first, from the start of each word
};

enum class TokenKind : std::uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

// Found in the text before anything else happens to it.
struct AddedToken {
  TokenId token = 0;
  std::string content;
  bool special = false;      // only where EncodeOptions::parse_special says so
  bool strip_left = false;   // takes the white space before it along
  bool strip_right = false;  // and after it
  bool single_word = false;  // not inside a word
  bool normalized = false;   // looked for in the normalised text
};

struct NormalizerStep {
  enum class Kind : std::uint8_t { kForm, kLowerCase, kStrip, kStripMarks, kPrepend, kReplace, kReplaceRegex, kBert };
  Kind kind = Kind::kForm;
  NormalForm form = NormalForm::kNfc;
  bool left = true, right = true;                                   // kStrip
  std::string from, to;                                             // kReplace; kPrepend uses `to`
  std::shared_ptr<const RegexSplit> regex;                          // kReplaceRegex
  bool clean = true, cjk = true, lower = true, strip_marks = true;  // kBert
};

struct SplitStep {
  enum class Kind : std::uint8_t {
    kRegex,
    kPrefixSpace,  // a space before each word that starts without one
    kSpell,        // words in GPT-2's byte spelling, for the steps that follow
    kSpaceMark,    // spaces become `mark`, one put in front as `prepend` says
  };
  enum class Prepend : std::uint8_t { kNever, kFirst, kAlways };
  Kind kind = Kind::kRegex;
  std::shared_ptr<const RegexSplit> regex;
  std::string mark;
  Prepend prepend = Prepend::kNever;
  bool cut_at_mark = false;
};

struct Vocabulary {
  struct Merge {
    TokenId left = 0, right = 0, into = 0;
  };

  std::string kind;
  Algorithm algorithm = Algorithm::kMergeBytes;
  // kMergeBytes: the bytes of each token. kWordPiece: the text without the mark that says where it may stand. Else the text
  // with its marks for spaces.
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;
  std::vector<float> scores;   // kScoreCharacters, kUnigram
  std::vector<Merge> merges;   // kMergeBytes, kMergeCharacters; first is earliest. Empty: by_rank
  bool merge_by_rank = false;  // kMergeBytes: the pair whose bytes are the token of the lowest id merges first (tiktoken)
  std::vector<bool> starts;    // kWordPiece: the token begins a word; else it continues one
  std::size_t max_word_characters = 100;  // kWordPiece: longer words are unknown
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;
  bool ignore_merges = false;
  bool byte_fallback = false;       // characters without a token become <0xNN> tokens
  bool fuse_unknown = false;        // neighbouring unknown tokens are one
  std::string space_mark;           // in token texts, stands for a space; empty: none
  bool mark_spaces = false;         // spaces of the text become `space_mark` before anything else, and
  bool prefix_space = false;        // one is put at the start and after each added token
  bool strips_first_space = false;  // decode() removes the space that encoding put in front
  SpecialTokens special;
  std::vector<TokenId> prefix, suffix;  // what EncodeOptions::add_special puts around the text
  std::string chat_template;
};

// The tokens that end an answer, by the names that published models give them; ids ascending. `eos` is one of them when set.
std::vector<TokenId> end_of_generation_tokens(const Vocabulary& vocabulary);

// Checks everything that the algorithms rely on; `where` goes into errors. Byte tokens are recognised by kind and "<0xNN>".
Result<std::shared_ptr<const Tokenizer>> make_tokenizer(Vocabulary vocabulary, std::string_view where);

}  // namespace rooftree::text

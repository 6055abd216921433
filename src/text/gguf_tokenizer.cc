// Tokenizers from the metadata of a GGUF file (github.com/ggml-org/ggml, docs/gguf.md, "Tokenizer"; defaults for keys that
// files leave out as in github.com/ggml-org/llama.cpp, src/llama-vocab.cpp).

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "formats/gguf.h"
#include "text/token_index.h"
#include "text/vocabulary.h"

namespace rooftree::text {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

class GgufReader {
 public:
  explicit GgufReader(const formats::GgufFile& file) : file_(file), where_(file.where()) {}

  Result<std::shared_ptr<const Tokenizer>> read() {
    ROOFTREE_TRY(const std::string_view model, file_.text("tokenizer.ggml.model"));
    ROOFTREE_TRY_VOID(read_tokens());
    ROOFTREE_TRY(const std::string_view chat_template, file_.text_or("tokenizer.chat_template", ""));
    v_.chat_template = chat_template;
    if (model == "llama") {
      ROOFTREE_TRY_VOID(read_sentence_piece());
    } else if (model == "gpt2" || model == "gemma4") {
      ROOFTREE_TRY_VOID(read_byte_pairs(model));
    } else if (model == "bert") {
      ROOFTREE_TRY_VOID(read_word_pieces());
    } else if (model == "t5") {
      ROOFTREE_TRY_VOID(read_unigram());
    } else {
      return refuse(fmt::format("tokenizer.ggml.model is \"{}\"; supported are llama, gpt2, gemma4, bert, t5", model));
    }
    add_added_tokens();
    return make_tokenizer(std::move(v_), where_);
  }

 private:
  Error refuse(const std::string& what) const { return Error{ErrorCode::kInvalid, fmt::format("{}: {}", where_, what)}; }

  Result<const formats::GgufArray*> array(std::string_view key, bool of_text) const {
    ROOFTREE_TRY(const formats::GgufArray* const found, file_.array(key));
    if (found != nullptr && (found->kind == formats::GgufArray::Kind::kString) != of_text) {
      return refuse(
          fmt::format("{} is an array of {}; expected {}", key, of_text ? "numbers" : "text", of_text ? "text" : "numbers"));
    }
    return found;
  }

  Status read_tokens() {
    ROOFTREE_TRY(const formats::GgufArray* const tokens, array("tokenizer.ggml.tokens", true));
    if (tokens == nullptr) return refuse("tokenizer.ggml.tokens is missing");
    const std::size_t count = tokens->strings.size();
    if (count == 0 || count > kMaxTokens) {
      return refuse(fmt::format("tokenizer.ggml.tokens has {} entries; expected 1 to {}", count, kMaxTokens));
    }
    v_.tokens.assign(tokens->strings.begin(), tokens->strings.end());
    v_.kinds.assign(count, TokenKind::kNormal);
    ROOFTREE_TRY(const formats::GgufArray* const kinds, array("tokenizer.ggml.token_type", false));
    if (kinds != nullptr) {
      if (kinds->numbers.size() != count) {
        return refuse(fmt::format("tokenizer.ggml.token_type has {} entries; expected {}", kinds->numbers.size(), count));
      }
      for (std::size_t i = 0; i < count; ++i) {
        const double kind = kinds->numbers[i];
        v_.kinds[i] = kind == 2   ? TokenKind::kUnknown
                      : kind == 3 ? TokenKind::kControl
                      : kind == 4 ? TokenKind::kUserDefined
                      : kind == 5 ? TokenKind::kUnused
                      : kind == 6 ? TokenKind::kByte
                                  : TokenKind::kNormal;
      }
    }
    return Ok{};
  }

  Status read_scores() {
    ROOFTREE_TRY(const formats::GgufArray* const scores, array("tokenizer.ggml.scores", false));
    if (scores == nullptr || scores->numbers.size() != v_.tokens.size()) {
      return refuse(fmt::format("tokenizer.ggml.scores has {} entries; expected {}",
                                scores == nullptr ? 0 : scores->numbers.size(), v_.tokens.size()));
    }
    v_.scores.reserve(scores->numbers.size());
    for (const double score : scores->numbers) v_.scores.push_back(static_cast<float>(score));
    return Ok{};
  }

  // A token's number under `key`. Absent, or outside the vocabulary (files write 4294967295 for "none"): `fallback`.
  Result<std::optional<TokenId>> token(std::string_view key, std::optional<TokenId> fallback) const {
    ROOFTREE_TRY(const std::int64_t id, file_.integer_or(key, -1));
    const auto count = static_cast<std::int64_t>(v_.tokens.size());
    if (id >= 0 && id < count) return std::optional<TokenId>(static_cast<TokenId>(id));
    if (fallback && *fallback >= count) fallback.reset();
    return fallback;
  }

  // Tokens with a role, and what goes around a text.
  Status read_special(const SpecialTokens& defaults, bool add_separator) {
    SpecialTokens& s = v_.special;
    ROOFTREE_TRY(s.bos, token("tokenizer.ggml.bos_token_id", defaults.bos));
    ROOFTREE_TRY(s.eos, token("tokenizer.ggml.eos_token_id", defaults.eos));
    ROOFTREE_TRY(s.unknown, token("tokenizer.ggml.unknown_token_id", defaults.unknown));
    ROOFTREE_TRY(s.separator, token("tokenizer.ggml.separator_token_id", defaults.separator));
    ROOFTREE_TRY(s.separator, token("tokenizer.ggml.seperator_token_id", s.separator));  // as GGUF spells it
    ROOFTREE_TRY(s.padding, token("tokenizer.ggml.padding_token_id", defaults.padding));
    ROOFTREE_TRY(s.classification, token("tokenizer.ggml.cls_token_id", defaults.classification));
    ROOFTREE_TRY(s.mask, token("tokenizer.ggml.mask_token_id", defaults.mask));
    for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      ROOFTREE_TRY(const auto end, token(key, std::nullopt));
      if (end) s.end_of_generation.push_back(*end);
    }
    ROOFTREE_TRY(s.add_bos, file_.flag_or("tokenizer.ggml.add_bos_token", defaults.add_bos));
    ROOFTREE_TRY(s.add_eos, file_.flag_or("tokenizer.ggml.add_eos_token", defaults.add_eos));
    ROOFTREE_TRY(const bool separator, file_.flag_or("tokenizer.ggml.add_sep_token", add_separator));
    if (s.add_bos && !s.bos)
      return refuse("a beginning-of-text token is to be added, and tokenizer.ggml.bos_token_id is missing");
    if (s.add_eos && !s.eos) return refuse("an end-of-text token is to be added, and tokenizer.ggml.eos_token_id is missing");
    if (separator && !s.separator)
      return refuse("a separator is to be added, and tokenizer.ggml.seperator_token_id is missing");
    if (s.add_bos) v_.prefix.push_back(*s.bos);
    if (s.add_eos) v_.suffix.push_back(*s.eos);
    if (separator && !(s.add_eos && s.eos == s.separator)) v_.suffix.push_back(*s.separator);
    return Ok{};
  }

  Status read_sentence_piece() {
    v_.kind = "spm";
    v_.algorithm = Algorithm::kScoreCharacters;
    ROOFTREE_TRY_VOID(read_scores());
    ROOFTREE_TRY_VOID(read_special({.bos = 1, .eos = 2, .unknown = 0, .add_bos = true}, false));
    ROOFTREE_TRY(v_.prefix_space, file_.flag_or("tokenizer.ggml.add_space_prefix", true));
    use_space_mark();
    return Ok{};
  }

  Status read_unigram() {
    v_.kind = "unigram";
    v_.algorithm = Algorithm::kUnigram;
    if (file_.metadata("tokenizer.ggml.precompiled_charsmap") != nullptr) {
      return refuse("tokenizer.ggml.precompiled_charsmap is not supported");
    }
    ROOFTREE_TRY_VOID(read_scores());
    ROOFTREE_TRY_VOID(read_special({.eos = 1, .unknown = 2, .padding = 0, .add_eos = true}, false));
    ROOFTREE_TRY(v_.prefix_space, file_.flag_or("tokenizer.ggml.add_space_prefix", true));
    ROOFTREE_TRY(const bool merge_spaces, file_.flag_or("tokenizer.ggml.remove_extra_whitespaces", false));
    if (merge_spaces) return refuse("tokenizer.ggml.remove_extra_whitespaces is not supported");
    v_.fuse_unknown = true;
    use_space_mark();
    return Ok{};
  }

  void use_space_mark() {
    v_.space_mark = kSpaceMark;
    v_.mark_spaces = true;
    v_.strips_first_space = v_.prefix_space;
    v_.byte_fallback = std::find(v_.kinds.begin(), v_.kinds.end(), TokenKind::kByte) != v_.kinds.end();
  }

  Status read_byte_pairs(std::string_view model) {
    ROOFTREE_TRY(const std::string_view stated, file_.text_or("tokenizer.ggml.pre", "default"));
    const std::string_view name = model == "gemma4" ? std::string_view("gemma4") : stated;
    const SplitFamily* const family = find_split_family(name);
    if (family == nullptr) {
      return refuse(fmt::format("tokenizer.ggml.pre is \"{}\"; supported are {}", name, fmt::join(split_family_names(), ", ")));
    }
    v_.kind = fmt::format("bpe {}", name);
    v_.algorithm = family->spell_bytes ? Algorithm::kMergeBytes : Algorithm::kMergeCharacters;
    v_.ignore_merges = family->ignore_merges;
    for (const std::string_view pattern : family->patterns) {
      ROOFTREE_TRY(RegexSplit split, RegexSplit::compile(pattern, {}, fmt::format("pre-tokenizer {}", name)));
      SplitStep step;
      step.regex = std::make_shared<const RegexSplit>(std::move(split));
      v_.splits.push_back(std::move(step));
    }
    if (family->spell_bytes) {
      for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
        if (v_.kinds[i] != TokenKind::kNormal && v_.kinds[i] != TokenKind::kUnused) continue;
        if (auto bytes = unspell_bytes(v_.tokens[i])) v_.tokens[i] = std::move(*bytes);
      }
    } else {
      v_.space_mark = kSpaceMark;
      v_.mark_spaces = true;
      v_.byte_fallback = true;
      v_.fuse_unknown = true;
      for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
        const std::string& text = v_.tokens[i];
        if (text.size() == 6 && text.starts_with("<0x") && text.back() == '>') v_.kinds[i] = TokenKind::kByte;
      }
    }
    ROOFTREE_TRY_VOID(read_merges(family->spell_bytes));
    SpecialTokens defaults;
    defaults.add_bos = family->add_bos && file_.metadata("tokenizer.ggml.bos_token_id") != nullptr;
    return read_special(defaults, family->separator_ends && file_.metadata("tokenizer.ggml.seperator_token_id") != nullptr);
  }

  Status read_merges(bool spelled) {
    ROOFTREE_TRY(const formats::GgufArray* const merges, array("tokenizer.ggml.merges", true));
    if (merges == nullptr) return refuse("tokenizer.ggml.merges is missing");
    if (merges->strings.size() > kMaxMerges) {
      return refuse(
          fmt::format("tokenizer.ggml.merges has {} entries; expected at most {}", merges->strings.size(), kMaxMerges));
    }
    TextIndex texts;
    texts.reserve(v_.tokens.size());
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) texts.insert(v_.tokens[i], static_cast<TokenId>(i));
    v_.merges.reserve(merges->strings.size());
    for (std::size_t i = 0; i < merges->strings.size(); ++i) {
      const std::string_view merge = merges->strings[i];
      const std::size_t space = merge.find(' ', 1);
      if (merge.empty() || space == std::string_view::npos || space + 1 == merge.size()) {
        return refuse(fmt::format("tokenizer.ggml.merges[{}] is \"{}\"; expected two tokens with a space between", i, merge));
      }
      std::string left(merge.substr(0, space));
      std::string right(merge.substr(space + 1));
      if (spelled) {
        auto left_bytes = unspell_bytes(left);
        auto right_bytes = unspell_bytes(right);
        if (!left_bytes || !right_bytes) {
          return refuse(fmt::format("tokenizer.ggml.merges[{}] is \"{}\"; expected GPT-2's spelling of bytes", i, merge));
        }
        left = std::move(*left_bytes);
        right = std::move(*right_bytes);
      }
      const Vocabulary::Merge found{texts.find(left), texts.find(right), texts.find(left + right)};
      if (found.left < 0 || found.right < 0 || found.into < 0) {
        return refuse(fmt::format("tokenizer.ggml.merges[{}] is \"{}\", whose parts or result are no tokens", i, merge));
      }
      v_.merges.push_back(found);
    }
    return Ok{};
  }

  Status read_word_pieces() {
    v_.kind = "wordpiece";
    v_.algorithm = Algorithm::kWordPiece;
    v_.starts.assign(v_.tokens.size(), false);
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
      if (v_.kinds[i] != TokenKind::kNormal || !v_.tokens[i].starts_with(kSpaceMark)) continue;
      v_.tokens[i].erase(0, kSpaceMark.size());
      v_.starts[i] = true;
    }
    ROOFTREE_TRY_VOID(read_special(
        {.bos = 101, .unknown = 100, .separator = 102, .padding = 0, .classification = 101, .mask = 103, .add_bos = true},
        true));
    NormalizerStep bert;
    bert.kind = NormalizerStep::Kind::kBert;
    ROOFTREE_TRY(bert.lower, file_.flag_or("tokenizer.ggml.normalizer.lowercase", true));
    ROOFTREE_TRY(bert.strip_marks, file_.flag_or("tokenizer.ggml.normalizer.strip_accents", bert.lower));
    v_.normalizer.push_back(bert);
    for (const bool punctuation : {false, true}) {
      const RegexSplit::Options options{punctuation ? SplitBehavior::kIsolated : SplitBehavior::kRemoved, false};
      ROOFTREE_TRY(RegexSplit split,
                   RegexSplit::compile(punctuation ? R"([!-/:-@\[-`{-~\p{P}])" : R"(\s+)", options, "wordpiece"));
      SplitStep step;
      step.regex = std::make_shared<const RegexSplit>(std::move(split));
      v_.splits.push_back(std::move(step));
    }
    v_.strips_first_space = true;
    return Ok{};
  }

  // GGUF has no list of added tokens: they are the control, unknown and user-defined ones.
  void add_added_tokens() {
    const auto name = file_.text_or("general.name", "");
    std::string lower(name ? *name : std::string_view());
    for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    // Not in the metadata: Phi-3's tokenizer.json lets its markers take the white space after them along.
    const bool phi3 = lower.find("phi-3") != std::string::npos || lower.find("phi3") != std::string::npos;
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
      const TokenKind kind = v_.kinds[i];
      if (kind != TokenKind::kControl && kind != TokenKind::kUnknown && kind != TokenKind::kUserDefined) continue;
      AddedToken added;
      added.token = static_cast<TokenId>(i);
      added.content = v_.tokens[i];
      added.special = kind != TokenKind::kUserDefined;
      added.strip_right = phi3 && added.content != "<unk>" && added.content != "<s>" && added.content != "<|endoftext|>";
      v_.added.push_back(std::move(added));
    }
  }

  const formats::GgufFile& file_;
  std::string where_;
  Vocabulary v_;
};

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_gguf(const formats::GgufFile& file) { return GgufReader(file).read(); }

}  // namespace rooftree::text

#pragma once

// Text to token ids and back, byte-exact: SentencePiece-style (unigram, and BPE by score with byte fallback), byte-level BPE
// (merge ranks behind a family's pre-tokeniser), WordPiece, tiktoken ranks. Made from the metadata of a GGUF file, a Hugging
// Face tokenizer.json, a tiktoken rank file, or llama2.c's tokenizer.bin. Immutable; safe to share between threads.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rooftree::formats {
class GgufFile;
}

namespace rooftree::text {

using TokenId = std::int32_t;

struct EncodeOptions {
  bool add_special = true;    // BOS and EOS where the model wants them
  bool parse_special = true;  // "<|im_end|>" in the text becomes that token; otherwise it is ordinary text
};

struct SpecialTokens {
  std::optional<TokenId> bos, eos, unknown, separator, padding, classification, mask;
  std::vector<TokenId> end_of_generation;  // every token that ends an answer: eos, <|eot_id|>, <|im_end|>, …
  bool add_bos = false, add_eos = false;
};

class Tokenizer {
 public:
  static Result<std::shared_ptr<const Tokenizer>> from_gguf(const formats::GgufFile& file);
  // tokenizer.json, with what lies beside it: tokenizer_config.json, generation_config.json (tokens that end an answer) and
  // chat_template.jinja.
  static Result<std::shared_ptr<const Tokenizer>> from_tokenizer_json(const std::filesystem::path& path);
  static Result<std::shared_ptr<const Tokenizer>> parse_tokenizer_json(std::string_view json, std::string_view config_json,
                                                                       std::string_view where);
  // Lines of "base64 rank"; `pattern` names a pre-tokeniser ("gpt2", "cl100k", "o200k").
  static Result<std::shared_ptr<const Tokenizer>> parse_tiktoken(std::string_view ranks, std::string_view pattern,
                                                                 std::string_view where);
  static Result<std::shared_ptr<const Tokenizer>> parse_llama2c(std::span<const std::byte> bytes, std::int64_t vocabulary,
                                                                std::string_view where);
  virtual ~Tokenizer() = default;

  // Text need not be valid UTF-8: stray bytes go through byte tokens where the vocabulary has them, else the unknown token.
  [[nodiscard]] virtual std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const = 0;
  // The bytes of one token as they appear in running text (a leading-space mark as a space); control tokens give nothing
  // unless `special`.
  [[nodiscard]] virtual std::string piece(TokenId token, bool special = false) const = 0;
  // All tokens; the space that SentencePiece puts before the first word is removed.
  [[nodiscard]] virtual std::string decode(std::span<const TokenId> tokens, bool special = false) const = 0;

  [[nodiscard]] virtual std::int64_t vocabulary() const = 0;
  [[nodiscard]] virtual const SpecialTokens& special() const = 0;
  [[nodiscard]] virtual std::string_view kind() const = 0;           // "spm", "bpe gpt2", "wordpiece", …
  [[nodiscard]] virtual std::string_view chat_template() const = 0;  // the source; empty when the file has none
  [[nodiscard]] virtual std::uint64_t hash() const = 0;              // of everything that decides the mapping
};

struct StreamOptions {
  bool after_text = false;  // the tokens continue a text: the first one keeps its space
};

// Gives text as tokens arrive: always valid UTF-8, for a terminal or JSON. Holds back the bytes of an unfinished character;
// bytes that are none come out as U+FFFD (decode() and piece() give them unchanged). The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, const StreamOptions& options = {})
      : tokenizer_(tokenizer), after_text_(options.after_text), first_(!options.after_text) {}
  std::string push(TokenId token);
  std::string finish();  // what was held back; then ready for another text

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
  bool after_text_ = false, first_ = true;
};

}  // namespace rooftree::text

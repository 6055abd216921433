#pragma once

// Words to tokens: the algorithms behind the tokenizers. Immutable after construction.

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace rooftree::text {

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the tokens of one word, O(n log n) in its length.
  virtual void encode(std::string_view word, std::vector<TokenId>& out) const = 0;
  // True: text may be cut before each space mark that follows something else, without changing any result.
  [[nodiscard]] virtual bool cuts_before_mark() const { return false; }
};

// The vocabulary must outlive the model.
std::unique_ptr<WordModel> make_word_model(const Vocabulary& vocabulary);

// Byte tokens by byte; -1 where there is none.
std::array<TokenId, 256> byte_tokens(const Vocabulary& vocabulary);

}  // namespace rooftree::text

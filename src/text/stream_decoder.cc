#include "text/tokenizer.h"
#include "text/unicode_text.h"

namespace rooftree::text {
namespace {

// Bytes at the end of `text` that begin a UTF-8 character and do not finish it.
std::size_t unfinished(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;
    // Bytes that lead no character (C0, C1, F5 and above) wait for nothing.
    const std::size_t length = byte < 0xC2U || byte > 0xF4U ? 1 : byte >= 0xF0U ? 4 : byte >= 0xE0U ? 3 : 2;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string StreamDecoder::push(TokenId token) {
  const std::string piece = first_ ? tokenizer_.decode(std::span(&token, 1)) : tokenizer_.piece(token);
  // A control token gives nothing: what follows it is still the first word. A space alone is the first word's.
  if (!piece.empty() || !tokenizer_.piece(token).empty()) first_ = false;
  pending_ += piece;
  const std::size_t held = unfinished(pending_);
  const std::string_view ready = std::string_view(pending_).substr(0, pending_.size() - held);
  std::string out = replace_invalid(ready);
  pending_.erase(0, pending_.size() - held);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid(pending_);
  pending_.clear();
  first_ = !after_text_;
  return out;
}

}  // namespace rooftree::text

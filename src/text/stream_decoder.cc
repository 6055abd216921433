#include "text/tokenizer.h"

namespace rooftree::text {
namespace {

// Bytes at the end of `text` that begin a UTF-8 character and do not finish it.
std::size_t unfinished(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0U) == 0x80U) continue;
    const std::size_t length = byte >= 0xF0U ? 4 : byte >= 0xE0U ? 3 : byte >= 0xC0U ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string StreamDecoder::push(TokenId token) {
  pending_ += first_ ? tokenizer_.decode(std::span(&token, 1)) : tokenizer_.piece(token);
  first_ = false;
  const std::size_t held = unfinished(pending_);
  std::string out = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, pending_.size() - held);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  if (!pending_.empty()) out = "\xEF\xBF\xBD";
  pending_.clear();
  first_ = true;
  return out;
}

}  // namespace rooftree::text

// Any text is a tokenizer or an error with a message; a tokenizer encodes any bytes, and its ids are tokens.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/tokenizer.h"

using rooftree::text::Tokenizer;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view json(reinterpret_cast<const char*>(data), size);
  // What follows a NUL is tokenizer_config.json, then the text to encode.
  std::string_view config;
  std::string_view text = "Hello\xFF, w\xC3\xB6rld's 1234  \n\n<s>a";
  if (const auto at = json.find('\0'); at != std::string_view::npos) {
    config = json.substr(at + 1);
    json = json.substr(0, at);
    if (const auto next = config.find('\0'); next != std::string_view::npos) {
      text = config.substr(next + 1);
      config = config.substr(0, next);
    }
  }
  const auto made = Tokenizer::parse_tokenizer_json(json, config, "fuzz");
  if (!made) {
    if (made.error().message.empty()) std::abort();
    return 0;
  }
  const Tokenizer& tokenizer = **made;
  for (const bool special : {false, true}) {
    const auto ids = tokenizer.encode(text.substr(0, 256), {.add_special = special, .parse_special = special});
    for (const auto id : ids) {
      if (id < 0 || id >= tokenizer.vocabulary()) std::abort();
    }
    rooftree::text::StreamDecoder stream(tokenizer);
    for (const auto id : ids) (void)stream.push(id);
    (void)stream.finish();
    (void)tokenizer.decode(ids, special);
  }
  return 0;
}

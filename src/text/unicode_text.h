#pragma once

// The little of Unicode that tokenizers need: reading UTF-8 that may be broken, normal forms, lower case, categories, and
// GPT-2's spelling of bytes as visible characters. Tables are utf8proc's.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rooftree::text {

struct Character {
  char32_t code = 0;         // the byte itself when not valid
  std::uint32_t length = 1;  // bytes taken; 1 when not valid
  bool valid = true;
};

// The character at `at` (< text.size()). Overlong forms, surrogates and values beyond U+10FFFF are not valid (Unicode 15, D92).
Character character_at(std::string_view text, std::size_t at);
void append_utf8(std::string& out, char32_t code);
// Bytes from the start of `text` that are valid UTF-8.
std::size_t valid_prefix(std::string_view text);
// Each byte that belongs to no valid character becomes U+FFFD.
std::string replace_invalid(std::string_view text);

enum class NormalForm : std::uint8_t { kNfc, kNfd, kNfkc, kNfkd };
// Bytes that are not valid UTF-8 stay as they are and separate what is composed.
std::string normal_form(std::string_view text, NormalForm form);
// Character by character, without context (a final sigma is an ordinary sigma).
std::string lower_case(std::string_view text);
enum class Marks : std::uint8_t { kNonspacing, kAll };  // category Mn; Mn, Mc and Me
std::string without_marks(std::string_view text, Marks marks);

bool is_white_space(char32_t code);  // the White_Space property
bool is_control(char32_t code);      // Cc, Cf, Cs, Co or unassigned, without tab and line ends
bool is_punctuation(char32_t code);  // ASCII's symbols or category P
bool is_word(char32_t code);         // letters, marks, decimal digits and connectors
// The blocks that BERT's tokenizer isolates as "CJK" (google-research/bert, tokenization.py, _is_chinese_char).
bool is_cjk_ideograph(char32_t code);

// GPT-2's byte spelling (openai/gpt-2, src/encoder.py, bytes_to_unicode): visible Latin-1 bytes stand for themselves, the
// others are U+0100 upwards in byte order.
const std::array<char32_t, 256>& byte_spelling();
std::optional<std::uint8_t> spelled_byte(char32_t code);
std::string spell_bytes(std::string_view bytes);
// The bytes that `spelling` means; nullopt when a character is no byte's spelling.
std::optional<std::string> unspell_bytes(std::string_view spelling);

}  // namespace rooftree::text

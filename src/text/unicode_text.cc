#include "text/unicode_text.h"

#include <utf8proc.h>

#include <cstdlib>

#include "base/check.h"

namespace rooftree::text {
namespace {

// Calls `valid(run)` for each maximal run of valid UTF-8 and `broken(byte)` for each byte between them.
template <class Valid, class Broken>
void for_each_run(std::string_view text, const Valid& valid, const Broken& broken) {
  while (!text.empty()) {
    const std::size_t length = valid_prefix(text);
    if (length > 0) valid(text.substr(0, length));
    text.remove_prefix(length);
    if (!text.empty()) {
      broken(text.front());
      text.remove_prefix(1);
    }
  }
}

bool all_ascii(std::string_view text) {
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0x80U) != 0) return false;
  }
  return true;
}

bool continuation(std::string_view text, std::size_t at) { return (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U; }

utf8proc_category_t category(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

}  // namespace

Character character_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t left = text.size() - at;
  if (lead >= 0xC2 && lead < 0xE0 && left >= 2 && continuation(text, at + 1)) {
    return {((lead & 0x1FU) << 6U) | (byte(1) & 0x3FU), 2, true};
  }
  if (lead >= 0xE0 && lead < 0xF0 && left >= 3 && continuation(text, at + 1) && continuation(text, at + 2)) {
    const std::uint32_t code = ((lead & 0x0FU) << 12U) | ((byte(1) & 0x3FU) << 6U) | (byte(2) & 0x3FU);
    if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) return {code, 3, true};
  }
  if (lead >= 0xF0 && lead < 0xF5 && left >= 4 && continuation(text, at + 1) && continuation(text, at + 2) &&
      continuation(text, at + 3)) {
    const std::uint32_t code =
        ((lead & 0x07U) << 18U) | ((byte(1) & 0x3FU) << 12U) | ((byte(2) & 0x3FU) << 6U) | (byte(3) & 0x3FU);
    if (code >= 0x10000 && code <= 0x10FFFF) return {code, 4, true};
  }
  return {lead, 1, false};
}

void append_utf8(std::string& out, char32_t code) {
  const auto push = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xC0U | (code >> 6U));
    push(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    push(0xE0U | (code >> 12U));
    push(0x80U | ((code >> 6U) & 0x3FU));
    push(0x80U | (code & 0x3FU));
  } else {
    push(0xF0U | (code >> 18U));
    push(0x80U | ((code >> 12U) & 0x3FU));
    push(0x80U | ((code >> 6U) & 0x3FU));
    push(0x80U | (code & 0x3FU));
  }
}

std::size_t valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if ((static_cast<unsigned char>(text[at]) & 0x80U) == 0) {
      ++at;
      continue;
    }
    const Character character = character_at(text, at);
    if (!character.valid) break;
    at += character.length;
  }
  return at;
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_run(
      text, [&](std::string_view run) { out += run; }, [&](char) { out += "\xEF\xBF\xBD"; });
  return out;
}

std::string normal_form(std::string_view text, NormalForm form) {
  if (all_ascii(text)) return std::string(text);
  unsigned options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  out.reserve(text.size());
  const auto append = [&](std::string_view run) {
    utf8proc_uint8_t* mapped = nullptr;
    const auto length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(run.data()), static_cast<utf8proc_ssize_t>(run.size()), &mapped,
                     static_cast<utf8proc_option_t>(options));
    ROOFTREE_CHECK(length >= 0, "utf8proc refuses valid UTF-8");
    out.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
    std::free(mapped);
  };
  for_each_run(text, append, [&](char byte) { out.push_back(byte); });
  return out;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    if (!character.valid) {
      out.push_back(text[at]);
    } else if (character.code == 0x130) {
      out += "i\xCC\x87";  // the one character whose lower case is two
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character.code))));
    }
    at += character.length;
  }
  return out;
}

std::string without_marks(std::string_view text, Marks marks) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    const utf8proc_category_t kind = character.valid ? category(character.code) : UTF8PROC_CATEGORY_CN;
    const bool drop = kind == UTF8PROC_CATEGORY_MN ||
                      (marks == Marks::kAll && (kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_ME));
    if (!drop) out += text.substr(at, character.length);
    at += character.length;
  }
  return out;
}

bool is_white_space(char32_t code) {
  return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool is_control(char32_t code) {
  if (code == '\t' || code == '\n' || code == '\r') return false;
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
      return true;
    default:
      return false;
  }
}

bool is_punctuation(char32_t code) {
  if (code < 0x80) {
    return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) || (code >= 0x5B && code <= 0x60) ||
           (code >= 0x7B && code <= 0x7E);
  }
  const utf8proc_category_t kind = category(code);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_word(char32_t code) {
  const utf8proc_category_t kind = category(code);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC;
}

bool is_cjk_ideograph(char32_t code) {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) || (code >= 0x20000 && code <= 0x2A6DF) ||
         (code >= 0x2A700 && code <= 0x2B73F) || (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B820 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

const std::array<char32_t, 256>& byte_spelling() {
  static const std::array<char32_t, 256> table = [] {
    std::array<char32_t, 256> spelling{};
    char32_t next = 0x100;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      spelling[byte] = visible ? static_cast<char32_t>(byte) : next++;
    }
    return spelling;
  }();
  return table;
}

std::optional<std::uint8_t> spelled_byte(char32_t code) {
  static const std::array<std::int16_t, 0x144> table = [] {
    std::array<std::int16_t, 0x144> bytes{};
    bytes.fill(-1);
    for (std::size_t byte = 0; byte < 256; ++byte) bytes[byte_spelling()[byte]] = static_cast<std::int16_t>(byte);
    return bytes;
  }();
  if (code >= table.size() || table[code] < 0) return std::nullopt;
  return static_cast<std::uint8_t>(table[code]);
}

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char byte : bytes) append_utf8(out, byte_spelling()[static_cast<unsigned char>(byte)]);
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  std::string out;
  out.reserve(spelling.size());
  for (std::size_t at = 0; at < spelling.size();) {
    const Character character = character_at(spelling, at);
    const auto byte = character.valid ? spelled_byte(character.code) : std::nullopt;
    if (!byte) return std::nullopt;
    out.push_back(static_cast<char>(*byte));
    at += character.length;
  }
  return out;
}

}  // namespace rooftree::text

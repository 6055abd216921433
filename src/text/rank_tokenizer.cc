// Tokenizers from two small formats: tiktoken's lines of "base64 rank" (github.com/openai/tiktoken, tiktoken/load.py) and
// llama2.c's tokenizer.bin (github.com/karpathy/llama2.c, run.c, build_tokenizer).

#include <fmt/format.h>

#include <array>
#include <bit>
#include <charconv>
#include <cstring>

#include "text/vocabulary.h"

namespace rooftree::text {
namespace {

// The bytes of RFC 4648 base64 with padding; nullopt when it is none.
std::optional<std::string> base64_bytes(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t bits = 0;
    std::size_t padding = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const char c = text[i + k];
      std::uint32_t value = 0;
      if (c >= 'A' && c <= 'Z') {
        value = static_cast<std::uint32_t>(c - 'A');
      } else if (c >= 'a' && c <= 'z') {
        value = static_cast<std::uint32_t>(c - 'a') + 26;
      } else if (c >= '0' && c <= '9') {
        value = static_cast<std::uint32_t>(c - '0') + 52;
      } else if (c == '+') {
        value = 62;
      } else if (c == '/') {
        value = 63;
      } else if (c == '=' && i + 4 == text.size() && k >= 2) {
        ++padding;
      } else {
        return std::nullopt;
      }
      if (padding > 0 && c != '=') return std::nullopt;
      bits = (bits << 6U) | value;
    }
    for (std::size_t k = 0; k + padding < 3; ++k) out.push_back(static_cast<char>((bits >> (16 - 8 * k)) & 0xFFU));
  }
  return out;
}

struct RankSpecials {
  std::string_view pattern;
  std::vector<std::pair<std::string_view, TokenId>> tokens;
};

// The special tokens of OpenAI's encodings (tiktoken_ext/openai_public.py).
const RankSpecials* specials_of(std::string_view pattern) {
  static const std::array<RankSpecials, 3> known{{
      {"gpt2", {{"<|endoftext|>", 50256}}},
      {"cl100k",
       {{"<|endoftext|>", 100257},
        {"<|fim_prefix|>", 100258},
        {"<|fim_middle|>", 100259},
        {"<|fim_suffix|>", 100260},
        {"<|endofprompt|>", 100276}}},
      {"o200k", {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
  }};
  for (const RankSpecials& specials : known) {
    if (specials.pattern == pattern) return &specials;
  }
  return nullptr;
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::parse_tiktoken(std::string_view ranks, std::string_view pattern,
                                                                   std::string_view where) {
  const SplitFamily* const family = find_split_family(pattern);
  if (family == nullptr || !family->spell_bytes) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: no pre-tokenizer is called \"{}\"; expected gpt2, cl100k, o200k or one of {}", where, pattern,
                             fmt::join(split_family_names(), ", "))};
  }
  Vocabulary v;
  v.kind = fmt::format("bpe {}", pattern);
  v.merge_by_rank = true;
  std::size_t line_number = 0;
  while (!ranks.empty()) {
    const std::size_t end = std::min(ranks.find('\n'), ranks.size());
    std::string_view line = ranks.substr(0, end);
    ranks.remove_prefix(std::min(end + 1, ranks.size()));
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    const auto refuse = [&](std::string_view what) {
      return Error{ErrorCode::kParse, fmt::format("{}:{}: {}", where, line_number, what)};
    };
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return refuse("expected \"base64 rank\"");
    auto bytes = base64_bytes(line.substr(0, space));
    if (!bytes) return refuse("the token is not base64");
    const std::string_view number = line.substr(space + 1);
    std::size_t rank = 0;
    const auto [stop, problem] = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (problem != std::errc() || stop != number.data() + number.size()) return refuse("the rank is not a whole number");
    if (rank >= kMaxTokens) return refuse(fmt::format("rank {}; expected less than {}", rank, kMaxTokens));
    if (rank >= v.tokens.size()) {
      // Files are in order of rank with few gaps; a far rank would make room for nothing.
      if (rank > v.tokens.size() + 65536) return refuse(fmt::format("rank {} follows {} tokens", rank, v.tokens.size()));
      v.tokens.resize(rank + 1);
    }
    if (!v.tokens[rank].empty()) return refuse(fmt::format("rank {} appears twice", rank));
    v.tokens[rank] = std::move(*bytes);
  }
  if (v.tokens.empty()) return Error{ErrorCode::kParse, fmt::format("{}: no ranks", where)};
  v.kinds.assign(v.tokens.size(), TokenKind::kNormal);
  if (const RankSpecials* const specials = specials_of(pattern)) {
    // They come after the ranks; for a file with other ranks than OpenAI's they are not known.
    const auto fits = [&](TokenId id) {
      const auto at = static_cast<std::size_t>(id);
      return at >= v.tokens.size() || v.tokens[at].empty();
    };
    const auto first = static_cast<std::size_t>(specials->tokens.front().second);
    if (fits(specials->tokens.front().second) && v.tokens.size() + 2 > first) {
      for (const auto& [text, id] : specials->tokens) {
        if (!fits(id)) continue;
        const auto at = static_cast<std::size_t>(id);
        if (at >= v.tokens.size()) {
          v.tokens.resize(at + 1);
          v.kinds.resize(at + 1, TokenKind::kUnused);
        }
        v.tokens[at] = text;
        v.kinds[at] = TokenKind::kControl;
        AddedToken added;
        added.token = id;
        added.content = text;
        added.special = true;
        v.added.push_back(std::move(added));
      }
      v.special.eos = specials->tokens.front().second;
    }
  }
  for (const std::string_view text : family->patterns) {
    ROOFTREE_TRY(RegexSplit split, RegexSplit::compile(text, {}, where));
    SplitStep step;
    step.regex = std::make_shared<const RegexSplit>(std::move(split));
    v.splits.push_back(std::move(step));
  }
  return make_tokenizer(std::move(v), where);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::parse_llama2c(std::span<const std::byte> bytes, std::int64_t vocabulary,
                                                                  std::string_view where) {
  if (vocabulary < 1 || vocabulary > static_cast<std::int64_t>(kMaxTokens)) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: a vocabulary of {}; expected 1 to {}", where, vocabulary, kMaxTokens)};
  }
  std::size_t at = 0;
  const auto read_word = [&]() -> std::optional<std::uint32_t> {  // little-endian
    if (bytes.size() - at < 4) return std::nullopt;
    std::uint32_t word = 0;
    for (unsigned i = 0; i < 4; ++i) word |= std::to_integer<std::uint32_t>(bytes[at + i]) << (8 * i);
    at += 4;
    return word;
  };
  const auto refuse = [&](const std::string& what) {
    return Error{ErrorCode::kParse, fmt::format("{}: at byte {}: {}", where, at, what)};
  };
  if (!read_word()) return refuse("the file ends; expected the longest piece's length");
  Vocabulary v;
  v.kind = "spm";
  v.algorithm = Algorithm::kScoreCharacters;
  v.space_mark = "\xE2\x96\x81";
  v.mark_spaces = v.prefix_space = v.strips_first_space = v.byte_fallback = true;
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    const auto score = read_word();
    const auto length = score ? read_word() : std::nullopt;
    if (!length) return refuse(fmt::format("the file ends; expected piece {} of {}", i, vocabulary));
    if (*length > kMaxTokenBytes || *length > bytes.size() - at) {
      return refuse(fmt::format("piece {} has {} bytes, {} are left", i, *length, bytes.size() - at));
    }
    const std::string piece(reinterpret_cast<const char*>(bytes.data() + at), *length);
    at += *length;
    // The file has spaces for SentencePiece's mark.
    std::string token;
    for (const char c : piece) {
      if (c == ' ') {
        token += v.space_mark;
      } else {
        token += c;
      }
    }
    TokenKind kind = TokenKind::kNormal;
    if (i == 0) kind = TokenKind::kUnknown;
    if (i == 1 || i == 2) {
      kind = TokenKind::kControl;
      token = i == 1 ? "<s>" : "</s>";  // written with line ends around them
    }
    if (i >= 3 && i < 259 && piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>') kind = TokenKind::kByte;
    if (kind == TokenKind::kControl) {
      AddedToken added;
      added.token = static_cast<TokenId>(i);
      added.content = token;
      added.special = true;
      v.added.push_back(std::move(added));
    }
    v.tokens.push_back(std::move(token));
    v.scores.push_back(std::bit_cast<float>(*score));
    v.kinds.push_back(kind);
  }
  if (at != bytes.size()) return refuse(fmt::format("{} bytes after the last of {} pieces", bytes.size() - at, vocabulary));
  v.special.unknown = 0;
  if (vocabulary > 1) v.special.bos = 1;
  if (vocabulary > 2) v.special.eos = 2;
  v.special.add_bos = vocabulary > 1;
  if (v.special.add_bos) v.prefix.push_back(1);
  return make_tokenizer(std::move(v), where);
}

}  // namespace rooftree::text

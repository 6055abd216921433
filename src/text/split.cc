#include "text/split.h"

#include <fmt/format.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "text/unicode_text.h"

namespace rooftree::text {
namespace {

constexpr std::size_t kMaxPatternBytes = 8192;
// Steps of matching at one place. Patterns of published tokenizers need a few per character.
constexpr std::uint32_t kMaxSteps = 4'000'000;

// White_Space as members of a class. PCRE2's own \s has U+180E besides, which Unicode took out of White_Space in version 6.3.
constexpr std::string_view kSpaceMembers =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// Alphabetic, marks, decimal digits and connectors, as UTS #18 defines \w.
constexpr std::string_view kWordMembers = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{200c}\x{200d})";

constexpr std::string_view kScripts[] = {"Han",     "Hiragana", "Katakana", "Hangul",  "Latin",     "Cyrillic",  "Greek",
                                         "Arabic",  "Hebrew",   "Thai",     "Lao",     "Khmer",     "Myanmar",   "Devanagari",
                                         "Bengali", "Tamil",    "Telugu",   "Kannada", "Malayalam", "Gujarati",  "Gurmukhi",
                                         "Sinhala", "Georgian", "Armenian", "Tibetan", "Ethiopic",  "Mongolian", "Bopomofo"};

// Rewrites a pattern of Oniguruma or Rust's regex into PCRE2's words where they differ, and refuses what would silently mean
// something else.
Result<std::string> translate(std::string_view pattern, std::string_view where) {
  const auto refuse = [&](std::string_view what) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: pattern uses {}, which is not supported", where, what)};
  };
  std::string out;
  bool in_class = false;
  std::size_t class_start = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\') {
      ++i;
      if (next == 's') {
        out += in_class ? std::string(kSpaceMembers) : fmt::format("[{}]", kSpaceMembers);
      } else if (next == 'w') {
        out += in_class ? std::string(kWordMembers) : fmt::format("[{}]", kWordMembers);
      } else if (next == 'S' || next == 'W') {
        if (in_class) return refuse(fmt::format("\\{} inside a class", next));
        out += fmt::format("[^{}]", next == 'S' ? kSpaceMembers : kWordMembers);
      } else if ((next == 'p' || next == 'P') && i + 1 < pattern.size() && pattern[i + 1] == '{') {
        const std::size_t close = pattern.find('}', i);
        if (close == std::string_view::npos) return refuse("\\p without }");
        std::string_view name = pattern.substr(i + 2, close - i - 2);
        const bool negated = !name.empty() && name.front() == '^';
        if (negated) name.remove_prefix(1);
        // A bare script name means Script_Extensions to PCRE2 and Script to the others.
        const bool script = std::find(std::begin(kScripts), std::end(kScripts), name) != std::end(kScripts);
        out += fmt::format("\\{}{{{}{}{}}}", next, negated ? "^" : "", script ? "sc:" : "", name);
        i = close;
      } else if (next == 'h' || next == 'H' || next == 'X' || next == 'R' || next == 'K' || next == 'G' || next == 'C') {
        return refuse(fmt::format("\\{}", next));
      } else {
        out += c;
        if (i < pattern.size()) out += next;
      }
    } else if (in_class) {
      if (c == '&' && next == '&') return refuse("&& (class intersection)");
      if (c == '[' && next != ':') return refuse("a class inside a class");
      if (c == '[') {
        const std::size_t close = pattern.find(":]", i);
        if (close == std::string_view::npos) return refuse("a class inside a class");
        out += pattern.substr(i, close + 2 - i);
        i = close + 1;
        continue;
      }
      const bool first = i == class_start + 1 || (i == class_start + 2 && pattern[class_start + 1] == '^');
      if (c == ']' && !first) in_class = false;
      if (c == ']' && first) out += '\\';
      out += c;
    } else if (c == '[') {
      in_class = true;
      class_start = i;
      out += c;
    } else if (c == '(' && next == '?') {
      // Groups, looks and the case flag; other flags have other meanings elsewhere, callouts and recursion none.
      const std::string_view rest = pattern.substr(i + 2);
      bool known = false;
      for (const std::string_view opening : {":", "=", "!", "<=", "<!", ">", "i:", "i)", "-i:", "-i)"}) {
        known = known || rest.substr(0, opening.size()) == opening;
      }
      if (!known) return refuse(fmt::format("(?{}", rest.substr(0, std::min<std::size_t>(rest.size(), 8))));
      out += c;
    } else if (c == '(' && next == '*') {
      return refuse("(*");
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

struct RegexSplit::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  bool jit = false;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Result<RegexSplit> RegexSplit::compile(std::string_view pattern, Options options, std::string_view where) {
  if (pattern.size() > kMaxPatternBytes) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: a pattern of {} bytes; expected at most {}", where, pattern.size(), kMaxPatternBytes)};
  }
  if (valid_prefix(pattern) != pattern.size() || pattern.find('\0') != std::string_view::npos) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: the pattern is not text", where)};
  }
  if (options.invert && options.behavior != SplitBehavior::kIsolated && options.behavior != SplitBehavior::kRemoved) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: an inverted pattern that merges is not supported", where)};
  }
  ROOFTREE_TRY(const std::string translated, translate(pattern, where));
  auto code = std::make_shared<Code>();
  int problem = 0;
  PCRE2_SIZE offset = 0;
  pcre2_compile_context* const compile_context = pcre2_compile_context_create(nullptr);
  ROOFTREE_CHECK(compile_context != nullptr, "PCRE2 has no memory");
  pcre2_set_newline(compile_context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(compile_context, 64);
  // `$` ends every line, as in Oniguruma; where a family means the end of the text, no line end is left in its words.
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &problem, &offset, compile_context);
  pcre2_compile_context_free(compile_context);
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 160> text{};
    pcre2_get_error_message(problem, text.data(), text.size());
    return Error{ErrorCode::kInvalid, fmt::format("{}: pattern \"{}\" cannot be used: {}", where, pattern,
                                                  reinterpret_cast<const char*>(text.data()))};
  }
  code->context = pcre2_match_context_create(nullptr);
  ROOFTREE_CHECK(code->context != nullptr, "PCRE2 has no memory");
  pcre2_set_match_limit(code->context, kMaxSteps);
  code->jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  RegexSplit split;
  split.code_ = std::move(code);
  split.pattern_ = pattern;
  split.options_ = options;
  return split;
}

Result<RegexSplit> RegexSplit::compile_literal(std::string_view literal, Options options, std::string_view where) {
  if (literal.empty()) return Error{ErrorCode::kInvalid, fmt::format("{}: an empty text to split at", where)};
  std::string pattern;
  for (const char c : literal) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain =
        byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
    pattern += plain ? std::string(1, c) : fmt::format("\\x{{{:x}}}", byte);
  }
  return compile(pattern, options, where);
}

namespace {

class MatchData {
 public:
  MatchData() : data_(pcre2_match_data_create(1, nullptr)) { ROOFTREE_CHECK(data_ != nullptr, "PCRE2 has no memory"); }
  ~MatchData() { pcre2_match_data_free(data_); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  [[nodiscard]] pcre2_match_data* get() const { return data_; }

 private:
  pcre2_match_data* data_;
};

// Calls `found(begin, end)` for each match in valid UTF-8, from left to right; matches may be empty.
template <class Code, class Found>
void for_each_match(const Code& code, std::string_view text, const MatchData& data, const Found& found) {
  const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(data.get());
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::size_t search = 0;  // where the next match may start
  while (search <= text.size()) {
    int result = PCRE2_ERROR_JIT_STACKLIMIT;
    if (code.jit) result = pcre2_jit_match(code.code, subject, text.size(), search, 0, data.get(), code.context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result =
          pcre2_match(code.code, subject, text.size(), search, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), code.context);
    }
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) return;  // over a limit
    // \K is refused, so that a match neither starts before the search nor ends before its start.
    found(bounds[0], bounds[1]);
    search = bounds[1];
    if (bounds[0] == bounds[1]) {
      if (search >= text.size()) return;
      search += character_at(text, search).length;
    }
  }
}

// Calls `valid(run)` for the runs of valid UTF-8 and `broken(run)` for those of other bytes, in order.
template <class Valid, class Broken>
void for_each_run(std::string_view text, const Valid& valid, const Broken& broken) {
  while (!text.empty()) {
    const std::size_t length = valid_prefix(text);
    if (length > 0) valid(text.substr(0, length));
    text.remove_prefix(length);
    std::size_t stray = 0;
    while (stray < text.size() && !character_at(text, stray).valid) ++stray;
    if (stray > 0) broken(text.substr(0, stray));
    text.remove_prefix(stray);
  }
}

}  // namespace

void RegexSplit::split(std::string_view text, std::vector<std::string_view>& words) const {
  const MatchData data;
  const auto split_valid = [&](std::string_view run) {
    std::size_t done = 0;  // what lies before is in words
    const auto emit = [&](std::size_t begin, std::size_t end) {
      if (end > begin) words.push_back(run.substr(begin, end - begin));
    };
    bool touches = false;  // the last word is a match that ends at `done`
    for_each_match(*code_, run, data, [&](std::size_t begin, std::size_t end) {
      switch (options_.behavior) {
        case SplitBehavior::kIsolated:
          emit(done, begin);
          emit(begin, end);
          done = end;
          break;
        case SplitBehavior::kRemoved:
          if (options_.invert) {
            emit(begin, end);
          } else {
            emit(done, begin);
          }
          done = end;
          break;
        case SplitBehavior::kMergedWithPrevious:
          emit(done, end);
          done = end;
          break;
        case SplitBehavior::kMergedWithNext:
          emit(done, begin);
          done = begin;
          break;
        case SplitBehavior::kContiguous:
          if (touches && begin == done && end > begin) {
            words.back() = std::string_view(words.back().data(), words.back().size() + (end - begin));
          } else {
            emit(done, begin);
            emit(begin, end);
          }
          touches = end > begin;
          done = end;
          break;
      }
    });
    if (options_.behavior != SplitBehavior::kRemoved || !options_.invert) emit(done, run.size());
  };
  for_each_run(text, split_valid, [&](std::string_view run) { words.push_back(run); });
}

std::string RegexSplit::replace(std::string_view text, std::string_view replacement) const {
  const MatchData data;
  std::string out;
  const auto replace_valid = [&](std::string_view run) {
    std::size_t done = 0;
    for_each_match(*code_, run, data, [&](std::size_t begin, std::size_t end) {
      out.append(run.substr(done, begin - done)).append(replacement);
      done = end;
    });
    out += run.substr(done);
  };
  for_each_run(text, replace_valid, [&](std::string_view run) { out += run; });
  return out;
}

}  // namespace rooftree::text

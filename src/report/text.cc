#include "report/text.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace rooftree::report {
namespace {

struct Decoded {
  char32_t code = 0;
  std::size_t length = 1;
};

// One code point at the start of `text`; an invalid byte decodes as itself.
Decoded decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  const std::size_t length = lead < 0x80 ? 1 : (lead >> 5) == 0x6 ? 2 : (lead >> 4) == 0xE ? 3 : (lead >> 3) == 0x1E ? 4 : 1;
  if (length == 1 || length > text.size()) return {lead, 1};
  char32_t code = lead & (0xFFu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {lead, 1};
    code = (code << 6) | (byte(i) & 0x3Fu);
  }
  return {code, length};
}

// Ranges of Unicode 15's EastAsianWidth.txt that are wide or full-width, and the common zero-width ones; enough for names.
int code_width(char32_t c) {
  static constexpr std::array<std::pair<char32_t, char32_t>, 6> kZero{
      {{0x0300, 0x036F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}}};
  static constexpr std::array<std::pair<char32_t, char32_t>, 9> kWide{{{0x1100, 0x115F},
                                                                       {0x2E80, 0x303E},
                                                                       {0x3041, 0xA4CF},
                                                                       {0xAC00, 0xD7A3},
                                                                       {0xF900, 0xFAFF},
                                                                       {0xFE30, 0xFE6F},
                                                                       {0xFF00, 0xFF60},
                                                                       {0xFFE0, 0xFFE6},
                                                                       {0x1F300, 0x1FAFF}}};
  const auto within = [c](const auto& range) { return c >= range.first && c <= range.second; };
  if (std::any_of(kZero.begin(), kZero.end(), within)) return 0;
  return std::any_of(kWide.begin(), kWide.end(), within) || (c >= 0x20000 && c <= 0x3FFFD) ? 2 : 1;
}

// Thousands separators for the integer part.
std::string grouped(std::string digits) {
  const std::size_t start = digits.front() == '-' ? 1 : 0;
  const std::size_t point = std::min(digits.find('.'), digits.size());
  for (std::size_t i = point; i > start + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

}  // namespace

int display_width(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Decoded d = decode(text);
    width += code_width(d.code);
    text.remove_prefix(d.length);
  }
  return width;
}

std::string shorten(std::string_view text, int width) {
  if (width <= 0) return {};
  if (display_width(text) <= width) return std::string(text);
  std::string out;
  int used = 0;
  while (!text.empty()) {
    const Decoded d = decode(text);
    if (used + code_width(d.code) > width - 1) break;
    used += code_width(d.code);
    out.append(text.substr(0, d.length));
    text.remove_prefix(d.length);
  }
  return out + "…";
}

std::string pad_left(std::string_view text, int width) {
  return std::string(static_cast<std::size_t>(std::max(0, width - display_width(text))), ' ').append(text);
}

std::string pad_right(std::string_view text, int width) {
  return std::string(text).append(static_cast<std::size_t>(std::max(0, width - display_width(text))), ' ');
}

std::string wrap(std::string_view text, int width, int indent, int hanging) {
  std::string out(static_cast<std::size_t>(indent), ' ');
  int used = indent;
  bool first_word = true;
  std::size_t position = 0;
  while (position < text.size()) {
    const std::size_t end = std::min(text.find(' ', position), text.size());
    const std::string_view word = text.substr(position, end - position);
    position = end + 1;
    if (word.empty()) continue;
    const int word_width = display_width(word);
    if (!first_word && used + 1 + word_width > width) {
      out.append("\n").append(static_cast<std::size_t>(hanging), ' ');
      used = hanging;
      first_word = true;
    }
    if (!first_word) {
      out += ' ';
      ++used;
    }
    out += word;
    used += word_width;
    first_word = false;
  }
  out += '\n';
  return out;
}

std::string number(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude >= 1e15 || magnitude < 1e-5) return fmt::format("{:.{}g}", value, digits);
  // Digits after the point so that `digits` significant ones remain, counted after rounding (9.996 has its point where 10.0
  // has).
  const auto exponent = static_cast<int>(std::floor(std::log10(magnitude) + 1e-12));
  const double unit = std::pow(10.0, exponent - digits + 1);
  const double rounded = std::round(magnitude / unit) * unit;
  const auto rounded_exponent = static_cast<int>(std::floor(std::log10(rounded) + 1e-12));
  const int decimals = std::max(0, digits - 1 - rounded_exponent);
  return grouped(fmt::format("{:.{}f}", std::copysign(decimals > 0 ? magnitude : rounded, value), decimals));
}

std::string count(double value) {
  if (!std::isfinite(value) || value != std::floor(value) || std::abs(value) >= 1e15) return number(value);
  return grouped(fmt::format("{:.0f}", value));
}

std::string aligned(double value, double largest, int digits) {
  if (!std::isfinite(value)) return "-";
  if (value == 0 || !std::isfinite(largest) || largest <= 0) return number(value, digits);
  constexpr int kMostDecimals = 4;
  const int decimals =
      std::clamp(digits - 1 - static_cast<int>(std::floor(std::log10(largest) + 1e-12)), largest < 1000 ? 1 : 0, kMostDecimals);
  const double unit = std::pow(10.0, -decimals);
  if (std::abs(value) < unit / 2) return fmt::format("<{:.{}f}", unit, decimals);
  return grouped(fmt::format("{:.{}f}", value, decimals));
}

std::string percent(double share) {
  if (!std::isfinite(share)) return "-";
  const double p = share * 100;
  if (p == 0) return "0 %";
  if (std::abs(p) < 0.1) return "<0.1 %";
  return fmt::format("{:.{}f} %", p, std::abs(p) < 9.95 ? 1 : 0);
}

std::string times(double ratio) {
  if (!std::isfinite(ratio)) return "-";
  return fmt::format("{}x", number(ratio, ratio < 2 ? 3 : 2));
}

std::string dollars(double usd) {
  if (!std::isfinite(usd)) return "-";
  if (usd == 0) return "$0";
  if (std::abs(usd) < 1) return "$" + number(usd, 2);
  return fmt::format("${}", std::abs(usd) < 100 ? fmt::format("{:.2f}", usd) : number(usd, 3));
}

Scale scale_for(double largest, Dimension dimension) {
  struct Step {
    double factor;
    const char* unit;
  };
  const auto pick = [&](std::initializer_list<Step> steps) {
    Scale best{steps.begin()->factor, steps.begin()->unit};
    for (const Step& s : steps) {
      if (std::isfinite(largest) && largest >= s.factor) best = {s.factor, s.unit};
    }
    return best;
  };
  switch (dimension) {
    case Dimension::kSeconds:
      return pick({{1e-6, "µs"}, {1e-3, "ms"}, {1, "s"}});
    case Dimension::kBytes:
      return pick({{1024.0, "KiB"}, {1048576.0, "MiB"}, {1073741824.0, "GiB"}});
    case Dimension::kFlop:
      return pick({{1e6, "MFLOP"}, {1e9, "GFLOP"}, {1e12, "TFLOP"}, {1e15, "PFLOP"}});
    case Dimension::kBytesPerSecond:
      return pick({{1e9, "GB/s"}, {1e12, "TB/s"}});
    case Dimension::kFlopPerSecond:
      return pick({{1e9, "GFLOP/s"}, {1e12, "TFLOP/s"}, {1e15, "PFLOP/s"}});
    case Dimension::kJoules:
      return pick({{1e-3, "mJ"}, {1, "J"}, {1e3, "kJ"}, {1e6, "MJ"}});
  }
  return {};
}

Terminal terminal(int file_descriptor) {
  constexpr int kNarrowest = 80;
  constexpr int kWidest = 200;
  Terminal t;
  const bool is_terminal = isatty(file_descriptor) == 1;
  winsize size{};
  if (is_terminal && ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    t.width = size.ws_col;
  } else if (const char* columns = std::getenv("COLUMNS"); columns != nullptr) {
    const int value = std::atoi(columns);
    if (value > 0) t.width = value;
  }
  t.width = std::clamp(t.width, kNarrowest, kWidest);
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  t.colour = is_terminal && (no_colour == nullptr || *no_colour == '\0') && term != nullptr && std::string_view(term) != "dumb";
  return t;
}

std::string styled(std::string_view text, Style style, bool colour) {
  if (!colour || style == Style::kPlain) return std::string(text);
  const char* code = "";
  switch (style) {
    case Style::kPlain:
      break;
    case Style::kBold:
      code = "1";
      break;
    case Style::kDim:
      code = "2";
      break;
    case Style::kMemory:
      code = "34";
      break;
    case Style::kCompute:
      code = "33";
      break;
    case Style::kOverhead:
      code = "2";
      break;
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

}  // namespace rooftree::report

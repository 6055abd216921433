#pragma once

// Text for terminals: widths of UTF-8 strings, padding, wrapping, and numbers as people read them.

#include <string>
#include <string_view>
#include <vector>

namespace rooftree::report {

// Columns that UTF-8 text takes in a terminal: wide East Asian characters take two, combining marks none. Invalid bytes take
// one.
[[nodiscard]] int display_width(std::string_view text);

// Cuts to at most `width` columns, with an ellipsis where something was cut.
[[nodiscard]] std::string shorten(std::string_view text, int width);
[[nodiscard]] std::string pad_left(std::string_view text, int width);
[[nodiscard]] std::string pad_right(std::string_view text, int width);

// Breaks at spaces into lines of at most `width` columns; the first line starts after `indent` spaces, the others after
// `hanging`.
[[nodiscard]] std::string wrap(std::string_view text, int width, int indent = 0, int hanging = 0);

// `digits` significant digits without an exponent where that reads well: 0.00123, 12.3, 4,560, 1,230,000, 1.2e+15. "-" if not
// finite.
[[nodiscard]] std::string number(double value, int digits = 3);
// A count: "65,536"; three significant digits where it is not whole.
[[nodiscard]] std::string count(double value);
// One number of a column whose largest is `largest`: all share the decimals that give the largest `digits` digits, so that the
// points line up; what would read as zero becomes "<0.01".
[[nodiscard]] std::string aligned(double value, double largest, int digits = 3);
// A share as a percentage: "62 %", "0.3 %", "<0.1 %".
[[nodiscard]] std::string percent(double share);
// A ratio of at least one: "1.08x", "3.4x", "120x".
[[nodiscard]] std::string times(double ratio);
// Money with cents where they matter: "$0.0042", "$1.25", "$1,320".
[[nodiscard]] std::string dollars(double usd);

// The unit that suits the largest value of a column; values are divided by `factor`.
struct Scale {
  double factor = 1;
  std::string unit;
};
enum class Dimension { kSeconds, kBytes, kFlop, kBytesPerSecond, kFlopPerSecond, kJoules };
[[nodiscard]] Scale scale_for(double largest, Dimension dimension);

// What the output can show. Colour only on a terminal, and never when NO_COLOR is set or TERM is "dumb".
struct Terminal {
  int width = 100;  // 80..200
  bool colour = false;
};
// Width from the terminal, else COLUMNS, else 100, clamped to 80..200; colour as above.
[[nodiscard]] Terminal terminal(int file_descriptor);

// Emphasis that disappears without colour.
enum class Style { kPlain, kBold, kDim, kMemory, kCompute, kOverhead };
[[nodiscard]] std::string styled(std::string_view text, Style style, bool colour);

}  // namespace rooftree::report

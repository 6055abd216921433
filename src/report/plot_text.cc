#include "report/plot_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/unit_text.h"

namespace rooftree::report {
namespace {

constexpr int kRows = 15;
constexpr int kLeftMargin = 7;
constexpr int kRightMargin = 25;

// Character cells of 2 x 4 dots each (Unicode's Braille patterns), with text on top.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), dots_(static_cast<std::size_t>(columns * rows)), text_(dots_.size(), '\0') {}

  [[nodiscard]] int dot_columns() const { return columns_ * 2; }
  [[nodiscard]] int dot_rows() const { return rows_ * 4; }

  void dot(int x, int y) {
    if (x < 0 || y < 0 || x >= dot_columns() || y >= dot_rows()) return;
    // Bits of a Braille cell: left column 0,1,2,6 from the top, right column 3,4,5,7.
    static constexpr std::array<std::array<int, 4>, 2> kBits{{{0, 1, 2, 6}, {3, 4, 5, 7}}};
    dots_[index(x / 2, y / 4)] |= 1 << kBits[static_cast<std::size_t>(x % 2)][static_cast<std::size_t>(y % 4)];
  }
  [[nodiscard]] bool free(int column, int row, int width) const {
    if (row < 0 || row >= rows_ || column < 0 || column + width > columns_) return false;
    for (int i = 0; i < width; ++i) {
      if (dots_[index(column + i, row)] != 0 || text_[index(column + i, row)] != '\0') return false;
    }
    return true;
  }
  void write(int column, int row, std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const int at = column + static_cast<int>(i);
      if (row >= 0 && row < rows_ && at >= 0 && at < columns_) text_[index(at, row)] = text[i];
    }
  }
  [[nodiscard]] std::string line(int row) const {
    std::string out;
    for (int c = 0; c < columns_; ++c) {
      const std::size_t i = index(c, row);
      if (text_[i] != '\0') {
        out += text_[i];
      } else if (dots_[i] == 0) {
        out += ' ';
      } else {
        const int code = 0x2800 + dots_[i];  // always three bytes of UTF-8
        out += static_cast<char>(0xE0 | (code >> 12));
        out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
        out += static_cast<char>(0x80 | (code & 0x3F));
      }
    }
    return out;
  }

 private:
  [[nodiscard]] std::size_t index(int column, int row) const { return static_cast<std::size_t>(row * columns_ + column); }
  int columns_, rows_;
  std::vector<int> dots_;
  std::vector<char> text_;  // ASCII over the dots
};

std::string decade(int exponent) {
  static constexpr std::array<std::string_view, 7> kPrefixes{"", "k", "M", "G", "T", "P", "E"};
  if (exponent < 0 || exponent >= 21) return fmt::format("1e{}", exponent);
  return fmt::format("{}{}", std::lround(std::pow(10, exponent % 3)), kPrefixes[static_cast<std::size_t>(exponent / 3)]);
}

}  // namespace

std::string plot_text(const machine::Chip& chip, Arithmetic in_use, const std::vector<PlotMark>& marks,
                      const Terminal& terminal) {
  const Roofline roofs = roofline(chip, in_use);
  if (!roofs.ridge || roofs.memory.empty()) return {};
  const double bandwidth = chip.main_memory().bandwidth.value();
  const double peak = roofs.compute.front().rate.value();
  const double used = roofs.ridge->rate.value();
  const double fastest = roofs.memory.front().bandwidth.value();

  double low_x = used / fastest;
  double high_x = roofs.ridge->intensity.value();
  double low_y = used / 30;
  for (const PlotMark& mark : marks) {
    if (!(mark.intensity > 0) || !(mark.rate > 0)) continue;
    low_x = std::min(low_x, mark.intensity);
    high_x = std::max(high_x, mark.intensity);
    low_y = std::min(low_y, mark.rate);
  }
  const double x0 = std::floor(std::log10(low_x) - 0.2);
  const double x1 = std::ceil(std::log10(high_x) + 0.3);
  const double y1 = std::log10(peak) + 0.15;
  const double y0 = std::max(std::log10(low_y) - 0.3, y1 - 7);
  const int columns = terminal.width - kLeftMargin - kRightMargin;
  Canvas canvas(columns, kRows);
  const auto dot_x = [&](double intensity) {
    return static_cast<int>(std::lround((std::log10(intensity) - x0) / (x1 - x0) * (canvas.dot_columns() - 1)));
  };
  const auto dot_y = [&](double rate) {
    return static_cast<int>(std::lround((y1 - std::log10(rate)) / (y1 - y0) * (canvas.dot_rows() - 1)));
  };
  const auto intensity_at = [&](int dot) { return std::pow(10, x0 + (x1 - x0) * dot / (canvas.dot_columns() - 1)); };

  constexpr int kDotted = 4;  // every fourth dot
  for (int x = 0; x < canvas.dot_columns(); ++x) {
    const double intensity = intensity_at(x);
    canvas.dot(x, dot_y(std::min(used, intensity * bandwidth)));
    if (x % kDotted != 0) continue;
    for (const MemoryRoof& roof : roofs.memory) {
      if (!roof.main && intensity * roof.bandwidth.value() <= peak) canvas.dot(x, dot_y(intensity * roof.bandwidth.value()));
    }
    for (const ComputeRoof& roof : roofs.compute) {
      if (roof.rate.value() <= intensity * fastest) canvas.dot(x, dot_y(roof.rate.value()));
    }
  }
  for (const PlotMark& mark : marks) {
    if (mark.intensity > 0 && mark.rate > 0)
      canvas.write(dot_x(mark.intensity) / 2, dot_y(mark.rate) / 4, std::string(1, mark.letter));
  }
  // Names of the levels beside their diagonal: main memory's on the right, where nothing else runs, the others' on the left,
  // from the bottom up; a level without room stays unnamed (the table of roofs has it).
  for (const bool main : {true, false}) {
    for (const MemoryRoof& roof : roofs.memory) {
      if (roof.main != main) continue;
      const std::string text = fmt::format("{} {}", roof.name, to_text(roof.bandwidth));
      const int length = display_width(text);
      for (int row = kRows - 2; row > 0; --row) {
        // The diagonal's columns within this row of cells.
        const auto column_at = [&](double dot_row) {
          const double rate = std::pow(10, y1 - (y1 - y0) * dot_row / (canvas.dot_rows() - 1));
          return dot_x(rate / roof.bandwidth.value()) / 2;
        };
        const int column = main ? column_at(4.0 * row) + 2 : column_at(4.0 * row + 3) - length - 1;
        if (!canvas.free(column - 1, row, length + 2)) continue;
        canvas.write(column, row, text);
        break;
      }
    }
  }
  const int ridge_column = dot_x(roofs.ridge->intensity.value()) / 2;

  // Labels beside the plot: arithmetic on the right, decades on the left.
  std::vector<std::string> right(kRows);
  for (const bool strong : {true, false}) {
    for (const ComputeRoof& roof : roofs.compute) {
      if (roof.in_use != strong) continue;
      std::string& label = right[static_cast<std::size_t>(std::clamp(dot_y(roof.rate.value()) / 4, 0, kRows - 1))];
      if (label.empty()) label = shorten(fmt::format("{} {}", roof.name, to_text(roof.rate)), kRightMargin - 1);
    }
  }
  std::vector<std::string> left(kRows);
  for (int e = static_cast<int>(std::ceil(y0)); e <= static_cast<int>(y1); ++e)
    left[static_cast<std::size_t>(std::clamp(dot_y(std::pow(10, e)) / 4, 0, kRows - 1))] = decade(e);

  std::string out = styled(pad_left("FLOP/s", kLeftMargin - 1), Style::kDim, terminal.colour) + "\n";
  const auto trimmed = [](std::string line) {
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line + "\n";
  };
  for (int row = 0; row < kRows; ++row) {
    const auto r = static_cast<std::size_t>(row);
    out += trimmed(pad_left(left[r], kLeftMargin - 2) + " │" + canvas.line(row) + " " + right[r]);
  }
  std::string axis(static_cast<std::size_t>(kLeftMargin - 1), ' ');
  axis += "└";
  for (int c = 0; c < columns; ++c) axis += c == ridge_column ? "┴" : "─";
  std::string ticks(static_cast<std::size_t>(terminal.width), ' ');
  const auto put = [&](int column, const std::string& text) {
    const int at = std::max(0, kLeftMargin + column - static_cast<int>(text.size()) / 2);
    for (int i = -1; i <= static_cast<int>(text.size()); ++i) {
      if (const int c = at + i; c < 0 || c >= terminal.width || ticks[static_cast<std::size_t>(c)] != ' ') return;
    }
    ticks.replace(static_cast<std::size_t>(at), text.size(), text);
  };
  put(ridge_column, fmt::format("ridge {}", number(roofs.ridge->intensity.value())));
  for (int e = static_cast<int>(x0); e <= static_cast<int>(x1); ++e)
    put(dot_x(std::pow(10, e)) / 2, number(std::pow(10, e), 1));
  const std::string title = "FLOP per byte";
  put(columns + static_cast<int>(title.size()) / 2 + 4, title);
  out += axis + "\n" + trimmed(std::move(ticks));
  std::string legend;
  for (const PlotMark& mark : marks) legend += fmt::format("{}{} {}", legend.empty() ? "" : " · ", mark.letter, mark.meaning);
  if (!legend.empty()) out += wrap(legend, terminal.width, kLeftMargin, kLeftMargin);
  return out;
}

}  // namespace rooftree::report

#include "report/table.h"

#include <algorithm>
#include <numeric>

namespace rooftree::report {
namespace {

constexpr int kGap = 2;

std::string rstrip(std::string line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace

void Table::add_row(std::vector<std::string> cells, Style style) {
  cells.resize(columns_.size());
  rows_.push_back({std::move(cells), style, false});
}

void Table::add_heading(std::string text, std::vector<std::string> cells) {
  cells.resize(columns_.size());
  cells.front() = std::move(text);
  rows_.push_back({std::move(cells), Style::kBold, true});
}

std::string Table::render(int width, bool colour, int indent) const {
  // Natural widths: the widest cell or header. A heading's first cell may run over the empty cells beside it.
  std::vector<int> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    int w = std::max(display_width(columns_[c].header), display_width(columns_[c].unit));
    for (const Row& row : rows_) {
      if (!(row.heading && c == 0)) w = std::max(w, display_width(row.cells[c]));
    }
    widths.push_back(w);
  }
  std::vector<std::size_t> shown(columns_.size());
  std::iota(shown.begin(), shown.end(), std::size_t{0});
  const auto needed = [&] {
    int total = indent + kGap * (static_cast<int>(shown.size()) - 1);
    for (const std::size_t c : shown) total += widths[c];
    return total;
  };
  // Shorten text columns, the widest first, then drop columns, then shorten whatever is left.
  const auto shorten_columns = [&] {
    while (needed() > width) {
      std::size_t widest = columns_.size();
      for (const std::size_t c : shown) {
        const bool can = columns_[c].narrowest > 0 && widths[c] > columns_[c].narrowest;
        if (can && (widest == columns_.size() || widths[c] > widths[widest])) widest = c;
      }
      if (widest == columns_.size()) return;
      --widths[widest];
    }
  };
  const std::vector<int> natural = widths;
  shorten_columns();
  while (needed() > width) {
    auto victim = shown.end();
    for (auto it = shown.begin(); it != shown.end(); ++it) {
      if (columns_[*it].priority > 0 && (victim == shown.end() || columns_[*it].priority >= columns_[*victim].priority))
        victim = it;
    }
    if (victim == shown.end()) break;
    shown.erase(victim);
    widths = natural;
    shorten_columns();
  }

  const auto cell = [&](std::size_t c, std::string_view text) {
    const std::string fitted = shorten(text, widths[c]);
    return columns_[c].align == Align::kRight ? pad_left(fitted, widths[c]) : pad_right(fitted, widths[c]);
  };
  const std::string margin(static_cast<std::size_t>(indent), ' ');
  const std::string gap(kGap, ' ');
  std::string out;
  const auto line_of = [&](auto&& text_of) {
    std::string line = margin;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (i > 0) line += gap;
      line += cell(shown[i], text_of(shown[i]));
    }
    return rstrip(std::move(line));
  };
  const auto emit = [&](const std::string& line, Style style) { out += styled(line, style, colour) + "\n"; };
  emit(line_of([&](std::size_t c) -> std::string_view { return columns_[c].header; }), Style::kBold);
  if (std::any_of(shown.begin(), shown.end(), [&](std::size_t c) { return !columns_[c].unit.empty(); })) {
    emit(line_of([&](std::size_t c) -> std::string_view { return columns_[c].unit; }), Style::kDim);
  }
  for (const Row& row : rows_) {
    if (!row.heading) {
      emit(line_of([&](std::size_t c) -> std::string_view { return row.cells[c]; }), row.style);
      continue;
    }
    // The heading takes the room of the empty cells up to the next filled one.
    std::size_t first_filled = 1;
    while (first_filled < shown.size() && row.cells[shown[first_filled]].empty()) ++first_filled;
    int room = -kGap;
    for (std::size_t i = 0; i < first_filled; ++i) room += widths[shown[i]] + kGap;
    std::string line = margin + pad_right(shorten(row.cells[0], room), room);
    for (std::size_t i = first_filled; i < shown.size(); ++i) line += gap + cell(shown[i], row.cells[shown[i]]);
    emit(rstrip(std::move(line)), row.style);
  }
  return out;
}

}  // namespace rooftree::report

#pragma once

// Text tables that fit a width: columns have priorities; what does not fit is shortened first (text) and dropped then (the
// least important column). Numbers are right aligned, units stand in the header.

#include <string>
#include <string_view>
#include <vector>

#include "report/text.h"

namespace rooftree::report {

enum class Align { kLeft, kRight };

struct Column {
  std::string header;  // "time"; a second header line holds the unit
  std::string unit;    // "ms"; empty = none
  Align align = Align::kRight;
  int priority = 0;   // 0 = never dropped; the highest is dropped first, equal ones from the right
  int narrowest = 0;  // text may be shortened down to this; 0 = never shortened
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // `cells` in column order; missing ones are empty. A `heading` row is bold and may run over empty cells to its right.
  void add_row(std::vector<std::string> cells, Style style = Style::kPlain);
  void add_heading(std::string text, std::vector<std::string> cells = {});
  [[nodiscard]] bool empty() const { return rows_.empty(); }

  // Lines of at most `width` columns, two spaces between columns, no trailing spaces; ends with a newline.
  [[nodiscard]] std::string render(int width, bool colour = false, int indent = 0) const;

 private:
  struct Row {
    std::vector<std::string> cells;
    Style style = Style::kPlain;
    bool heading = false;
  };
  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

}  // namespace rooftree::report

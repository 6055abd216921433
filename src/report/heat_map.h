#pragma once

// Two properties of a made-up chip against each other: what `explore chip` prints and draws.

#include <string>
#include <vector>

#include "cost/explore.h"
#include "report/text.h"

namespace rooftree::report {

struct HeatAxis {
  std::string label;               // "memory.bandwidth"
  std::vector<double> values;      // increasing, in SI base units
  std::vector<std::string> texts;  // "800 GB/s", same length
};

struct HeatCell {
  double tokens_per_second = 0;
  double joules_per_token = 0;  // 0 = unknown, as below
  double dollars_per_token = 0;
  double watts = 0, area_mm2 = 0, parts_usd = 0;  // of the chip, by proxy
  std::string bound;
  bool fits = false;
  bool within_budget = true;
};

struct HeatMap {
  std::string title;   // "Llama 3.1 70B: decode, batch 1, context 2048"
  std::string budget;  // "300 W"; empty = none
  HeatAxis x, y;
  std::vector<HeatCell> cells;  // row by row: cells[iy * x.values.size() + ix]
  int best = -1;                // the fastest cell that fits and is within the budget; -1 = none
};

[[nodiscard]] HeatMap heat_map(const cost::Exploration& exploration, std::string title, std::string budget);

// A value of a chip property with its unit: "800 GB/s", "64 GiB".
[[nodiscard]] std::string property_text(cost::ChipProperty property, double value);

// Tokens/s in a coarse grid, thinned to fit the width; then the best corners in words.
[[nodiscard]] std::string heat_map_text(const HeatMap& map, const Terminal& terminal);
[[nodiscard]] std::string heat_map_json_text(const HeatMap& map);

}  // namespace rooftree::report

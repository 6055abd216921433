#pragma once

// The JSON of an analysis: every key carries its unit, numbers are finite or null, keys keep their order.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "report/analysis.h"

namespace rooftree::report {

// One object: time_s, time_interval_s, bound, regime, flop, bytes_dram, …, operators[], then model, machine, phase and plan as
// read.
[[nodiscard]] nlohmann::ordered_json estimate_json(const Analysis& analysis);

// The number, or null where it is not finite.
[[nodiscard]] nlohmann::ordered_json finite(double value);
// The same with `digits` significant digits, for pages where size matters more than the last digit.
[[nodiscard]] nlohmann::ordered_json finite(double value, int digits);

// The text of one analysis, or of several: {"estimates": […]}.
[[nodiscard]] std::string estimate_json_text(const std::vector<Analysis>& analyses);

// A sweep: {"sweep": "batch", "points": [{"batch": 1, …}, …], "ridge_crossing": {…}}. Points leave operators and sensitivities
// out.
struct SweepPoint {
  std::string value;  // as written: "8", "int8"
  Analysis analysis;
};
struct Sweep {
  std::string variable;  // "batch"
  std::vector<SweepPoint> points;
  std::optional<RidgeCrossing> crossing;  // for batch sweeps
};
[[nodiscard]] std::string sweep_json_text(const std::vector<Sweep>& sweeps);

}  // namespace rooftree::report

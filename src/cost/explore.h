#pragma once

// Exploration of chips that do not exist: two properties of a chip swept over grids against a model and a budget. Answers
// questions like "large memory, high bandwidth, little compute for a local 70B: which corner?".

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cost/estimate.h"

namespace rooftree::cost {

// What such a chip would take to build and feed: a proxy for comparing designs, not a quotation. Linear in what the chip has;
// the coefficients and the public points that they come from stand in explore.cc. Expect +-40 % in area and power and a factor
// of two in cost.
struct ChipProxy {
  double area_mm2 = 0;  // logic die(s), today's process (4 nm class)
  double power_w = 0;   // at full load, memory included
  double cost_usd = 0;  // bill of materials: dies, memory, package; not a market price
  // Parts of area_mm2: arithmetic with its cores and network, on-chip memory, memory interface, links and the rest.
  double area_compute_mm2 = 0, area_sram_mm2 = 0, area_memory_interface_mm2 = 0, area_other_mm2 = 0;
};
[[nodiscard]] ChipProxy chip_proxy(const machine::Chip& chip);

// A property of a chip in SI units.
enum class ChipProperty : std::uint8_t {
  kMemoryCapacity,   // bytes
  kMemoryBandwidth,  // bytes/s
  kCompute,          // dense 16-bit FLOP/s; the other types, the cores and the on-chip levels' bandwidth scale with it
  kOnChipCapacity,   // bytes of the last level before main memory
  kOnChipBandwidth,  // bytes/s of the same
  kHostLink,         // bytes/s per direction
};
inline constexpr int kChipPropertyCount = 6;
[[nodiscard]] std::string_view name(ChipProperty property);  // "memory.capacity", "memory.bandwidth", "compute", …
Result<ChipProperty> parse_chip_property(std::string_view text);

[[nodiscard]] double property_value(const machine::Chip& chip, ChipProperty property);
// Sets one property; kOnChip* of a chip without such a level are an error. Power follows the proxy: power_max scales with the
// ratio of the proxy's power after and before.
Status set_property(machine::Chip& chip, ChipProperty property, double value);

struct Axis {
  ChipProperty property{};
  std::vector<double> values;  // positive
};
// `count` values from low to high, each the same multiple of the one before.
[[nodiscard]] std::vector<double> geometric_grid(double low, double high, int count);

// Limits on the chip; nothing = unlimited. Power, area and cost are the proxy's.
struct Budget {
  std::optional<double> power_w, area_mm2, cost_usd;
};

struct ExplorePoint {
  double x = 0, y = 0;  // values of the axes
  ChipProxy proxy;
  bool within_budget = true;
  bool fits = true;  // in main memory
  Regime regime{};
  Bound bound{};
  Seconds time_per_token;  // per token of the step
  double tokens_per_second = 0;
  Joules energy_per_token;  // zero where the base chip states no power
  Dollars cost_per_token;   // the proxy's cost over five years of service, plus energy with the building's overhead
};

struct Exploration {
  Axis x, y;
  std::vector<ExplorePoint> points;    // y outer, x inner
  std::optional<std::size_t> fastest;  // within budget and fitting; ties: the cheaper proxy
  std::optional<std::size_t> cheapest_per_token;
  std::optional<std::size_t> most_efficient;  // least energy per token
  [[nodiscard]] const ExplorePoint& at(std::size_t ix, std::size_t iy) const { return points[iy * x.values.size() + ix]; }
};

// Errors: an empty axis, a value that is not positive, the same property twice, a model that does not build for the phase.
Result<Exploration> explore(const model::Model& model, const model::Phase& phase, const machine::Machine& base,
                            const CalibrationTable& calibration, const Plan& plan, const Axis& x, const Axis& y,
                            const Budget& budget = {});

}  // namespace rooftree::cost

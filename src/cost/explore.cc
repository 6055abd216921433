#include "cost/explore.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>

#include "cost/ownership.h"

namespace rooftree::cost {
namespace {

// Chip proxy, 4 to 5 nm class. area = compute + SRAM + memory interface + rest.
//   compute 0.55 mm2 per dense 16-bit TFLOP/s, SRAM 1.0 mm2 per MB, rest 60 mm2 (links, host interface, pads): with these the
//   public dies come out at H100 773 of 814, MTIA v2 420 of 421, Maia 100 1063 of 820, Furiosa RNGD 509 of 653 mm2 (dies and
//   rates from the catalogue). Vector-only chips count their vector rate.
//   memory interface 35 mm2 per TB/s: PHY and control take 90 mm2 for 2.04 TB/s on the A100 (44 per TB/s, HBM2e) and 124 mm2
//   for 1.64 TB/s on the MI210 (LLMCompass, ISCA 2024, die areas); HBM3 signals faster over the same edge (assumed 35).
constexpr double kAreaPerTflops = 0.55;
constexpr double kAreaPerSramMb = 1.0;
constexpr double kAreaPerTbPerS = 35;
constexpr double kAreaRest = 60;

// power = 40 W + 0.40 W per dense 16-bit TFLOP/s + 30 W per TB/s + 0.1 W per GB: median error 18 % over nineteen accelerators
// of the catalogue (H100 -22 %, MI300X -1 %, B200 +20 %, Gaudi3 -7 %, RNGD +7 %, L4 +38 %, TPU v7 +20 %).
constexpr double kPowerBase = 40;
constexpr double kPowerPerTflops = 0.40;
constexpr double kPowerPerTbPerS = 30;
constexpr double kPowerPerGb = 0.1;

// cost = 0.37 USD per mm2 + 4 USD per GB + 750 USD per TB/s + 200 USD. Per mm2: about 16,000 USD per 5 nm wafer of 70,686 mm2,
// six tenths of it sold (assumed). Per GB: commodity DRAM (assumed). Per TB/s: what is then left of the estimated bill of
// materials of one H100, 3,320 USD (catalogue, h100-bom): stacking, interposer and premium of fast memory.
constexpr double kCostPerMm2 = 0.37;
constexpr double kCostPerGb = 4;
constexpr double kCostPerTbPerS = 750;
constexpr double kCostRest = 200;

constexpr std::array<std::string_view, kChipPropertyCount> kPropertyNames = {
    "memory.capacity", "memory.bandwidth", "compute", "on_chip.capacity", "on_chip.bandwidth", "host_link"};

// The dense 16-bit product rate; of a chip without 16-bit arithmetic the best product rate that it has.
double compute_rate(const machine::Chip& chip) {
  for (const Arithmetic a : {Arithmetic::kBf16, Arithmetic::kFp16}) {
    const double rate = machine::product_rate(chip, a).value();
    if (rate > 0) return rate;
  }
  double best = 0;
  for (int i = 0; i < kArithmeticCount; ++i) {
    best = std::max(best, machine::product_rate(chip, static_cast<Arithmetic>(i)).value());
  }
  return best;
}

// The last level on the die before main memory (HBM in front of DDR is no such level); -1 = none.
std::ptrdiff_t on_chip_index(const machine::Chip& chip) {
  for (std::ptrdiff_t i = std::ssize(chip.ladder) - 2; i >= 0; --i) {
    if (!is_dram(chip.ladder[static_cast<std::size_t>(i)].name)) return i;
  }
  return -1;
}
const machine::MemoryLevel* on_chip_level(const machine::Chip& chip) {
  const std::ptrdiff_t i = on_chip_index(chip);
  return i >= 0 ? &chip.ladder[static_cast<std::size_t>(i)] : nullptr;
}
machine::MemoryLevel* on_chip_level(machine::Chip& chip) {
  const std::ptrdiff_t i = on_chip_index(chip);
  return i >= 0 ? &chip.ladder[static_cast<std::size_t>(i)] : nullptr;
}

Status check_axis(const Axis& axis, std::string_view label) {
  if (axis.values.empty()) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("axis {} ({}): no values; expected at least one", label, name(axis.property))};
  }
  for (const double v : axis.values) {
    if (!(v > 0) || !std::isfinite(v)) {
      return Error{ErrorCode::kInvalid, fmt::format("axis {} ({}): value {} is out of range; expected a positive number", label,
                                                    name(axis.property), v)};
    }
  }
  return Ok{};
}

bool within(const Budget& budget, const ChipProxy& proxy) {
  return (!budget.power_w || proxy.power_w <= *budget.power_w) && (!budget.area_mm2 || proxy.area_mm2 <= *budget.area_mm2) &&
         (!budget.cost_usd || proxy.cost_usd <= *budget.cost_usd);
}

}  // namespace

std::string_view name(ChipProperty property) { return kPropertyNames[static_cast<std::size_t>(property)]; }

Result<ChipProperty> parse_chip_property(std::string_view text) {
  for (std::size_t i = 0; i < kPropertyNames.size(); ++i) {
    if (kPropertyNames[i] == text) return static_cast<ChipProperty>(i);
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("chip property '{}' is unknown; expected one of {}", text, fmt::join(kPropertyNames, ", "))};
}

ChipProxy chip_proxy(const machine::Chip& chip) {
  ChipProxy p;
  const machine::MemoryLevel& memory = chip.main_memory();
  const bool sram_only = memory_is_on_chip(chip);
  const double tflops = compute_rate(chip) / 1e12;
  double memory_gb = sram_only ? 0 : memory.capacity.value() / 1e9;
  double memory_tb_per_s = sram_only ? 0 : memory.bandwidth.value() / 1e12;
  for (std::size_t i = 0; i + 1 < chip.ladder.size(); ++i) {
    if (!is_dram(chip.ladder[i].name)) continue;
    memory_gb += chip.ladder[i].capacity.value() / 1e9;
    memory_tb_per_s += chip.ladder[i].bandwidth.value() / 1e12;
  }
  double sram_mb = sram_only ? memory.capacity.value() / 1e6 : 0;
  if (const machine::MemoryLevel* level = on_chip_level(chip)) sram_mb += level->capacity.value() / 1e6;

  p.area_compute_mm2 = kAreaPerTflops * tflops;
  p.area_sram_mm2 = kAreaPerSramMb * sram_mb;
  p.area_memory_interface_mm2 = kAreaPerTbPerS * memory_tb_per_s;
  p.area_other_mm2 = kAreaRest;
  p.area_mm2 = p.area_compute_mm2 + p.area_sram_mm2 + p.area_memory_interface_mm2 + p.area_other_mm2;
  p.power_w = kPowerBase + kPowerPerTflops * tflops + kPowerPerTbPerS * memory_tb_per_s + kPowerPerGb * memory_gb;
  p.cost_usd = kCostPerMm2 * p.area_mm2 + kCostPerGb * memory_gb + kCostPerTbPerS * memory_tb_per_s + kCostRest;
  return p;
}

double property_value(const machine::Chip& chip, ChipProperty property) {
  const machine::MemoryLevel* level = on_chip_level(chip);
  switch (property) {
    case ChipProperty::kMemoryCapacity:
      return chip.main_memory().capacity.value();
    case ChipProperty::kMemoryBandwidth:
      return chip.main_memory().bandwidth.value();
    case ChipProperty::kCompute:
      return compute_rate(chip);
    case ChipProperty::kOnChipCapacity:
      return level != nullptr ? level->capacity.value() : 0;
    case ChipProperty::kOnChipBandwidth:
      return level != nullptr ? level->bandwidth.value() : 0;
    case ChipProperty::kHostLink:
      return chip.host_link_per_direction.value();
  }
  return 0;
}

Status set_property(machine::Chip& chip, ChipProperty property, double value) {
  if (!(value > 0) || !std::isfinite(value)) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} is out of range; expected a positive number", name(property), value)};
  }
  const double power_before = chip_proxy(chip).power_w;
  machine::MemoryLevel* level = on_chip_level(chip);
  switch (property) {
    case ChipProperty::kMemoryCapacity:
      chip.ladder.back().capacity = Bytes{value};
      break;
    case ChipProperty::kMemoryBandwidth:
      chip.ladder.back().bandwidth = BytesPerSecond{value};
      chip.ladder.back().write_bandwidth = BytesPerSecond{};
      break;
    case ChipProperty::kCompute: {
      const double before = compute_rate(chip);
      if (before <= 0) {
        return Error{ErrorCode::kInvalid, fmt::format("compute: {} states no arithmetic rate to scale", chip.id)};
      }
      const double factor = value / before;
      for (machine::ArithmeticRate& rate : chip.arithmetic) {
        rate.matrix *= factor;
        rate.vector *= factor;
      }
      chip.cores = std::max(1, static_cast<int>(std::lround(chip.cores * factor)));
      for (std::size_t i = 0; i + 1 < chip.ladder.size(); ++i) {
        chip.ladder[i].bandwidth *= factor;
        chip.ladder[i].write_bandwidth *= factor;
      }
      break;
    }
    case ChipProperty::kOnChipCapacity:
    case ChipProperty::kOnChipBandwidth:
      if (level == nullptr) {
        return Error{ErrorCode::kInvalid,
                     fmt::format("{}: {} has no memory level before its main memory", name(property), chip.id)};
      }
      if (property == ChipProperty::kOnChipCapacity) {
        level->capacity = Bytes{value};
      } else {
        level->bandwidth = BytesPerSecond{value};
        level->write_bandwidth = BytesPerSecond{};
      }
      break;
    case ChipProperty::kHostLink:
      chip.host_link_per_direction = BytesPerSecond{value};
      break;
  }
  const double scale = chip_proxy(chip).power_w / power_before;
  chip.power_max *= scale;
  chip.power_idle *= scale;
  return Ok{};
}

std::vector<double> geometric_grid(double low, double high, int count) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) {
    const double t = count > 1 ? static_cast<double>(i) / (count - 1) : 0;
    values.push_back(i == count - 1 && count > 1 ? high : low * std::pow(high / low, t));
  }
  return values;
}

Result<Exploration> explore(const model::Model& model, const model::Phase& phase, const machine::Machine& base,
                            const CalibrationTable& calibration, const Plan& plan, const Axis& x, const Axis& y,
                            const Budget& budget) {
  ROOFTREE_TRY_VOID(check_plan(plan));
  ROOFTREE_TRY_VOID(check_axis(x, "x"));
  ROOFTREE_TRY_VOID(check_axis(y, "y"));
  if (x.property == y.property) {
    return Error{ErrorCode::kInvalid, fmt::format("both axes are {}; expected two different properties", name(x.property))};
  }
  ROOFTREE_TRY_VOID(check_machine(base));
  ROOFTREE_TRY(const model::Graph graph, model.build(phase, plan.fusion));

  Exploration out{.x = x, .y = y, .points = {}, .fastest = {}, .cheapest_per_token = {}, .most_efficient = {}};
  out.points.reserve(x.values.size() * y.values.size());
  Estimate estimate;
  for (const double vy : y.values) {
    for (const double vx : x.values) {
      machine::Machine machine = base;
      ROOFTREE_TRY_VOID(set_property(machine.chip(), y.property, vy));
      ROOFTREE_TRY_VOID(set_property(machine.chip(), x.property, vx));
      Estimator(machine, calibration, plan).estimate_into(graph, estimate);
      const double tokens = std::max(1.0, estimate.tokens);
      ExplorePoint point;
      point.x = vx;
      point.y = vy;
      point.proxy = chip_proxy(machine.chip());
      point.within_budget = within(budget, point.proxy);
      point.fits = estimate.memory.fits;
      point.regime = estimate.regime;
      point.bound = estimate.bound;
      point.time_per_token = estimate.time.best / tokens;
      point.tokens_per_second = estimate.tokens_per_second;
      point.energy_per_token = estimate.energy.best / tokens;
      point.cost_per_token = Dollars{point.proxy.cost_usd} * (point.time_per_token / ownership().service) +
                             point.energy_per_token * ownership().energy;
      out.points.push_back(point);
    }
  }

  // The best of what may be built and holds the model. Within a thousandth of it counts as equal, since nobody pays for less:
  // then the cheaper chip, then the first of the grid.
  const auto best_by = [&](auto value) {
    double least = std::numeric_limits<double>::infinity();
    const auto allowed = [](const ExplorePoint& p) { return p.within_budget && p.fits; };
    for (const ExplorePoint& p : out.points) {
      if (allowed(p)) least = std::min(least, value(p));
    }
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < out.points.size(); ++i) {
      const ExplorePoint& p = out.points[i];
      if (!allowed(p) || value(p) > least * (1 + 1e-3)) continue;
      if (!best || p.proxy.cost_usd < out.points[*best].proxy.cost_usd) best = i;
    }
    return best;
  };
  out.fastest = best_by([](const ExplorePoint& p) { return p.time_per_token.value(); });
  out.cheapest_per_token = best_by([](const ExplorePoint& p) { return p.cost_per_token.value(); });
  if (base.chip().power_max > Watts{}) {
    out.most_efficient = best_by([](const ExplorePoint& p) { return p.energy_per_token.value(); });
  }
  return out;
}

}  // namespace rooftree::cost

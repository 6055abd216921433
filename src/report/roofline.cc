#include "report/roofline.h"

#include <algorithm>
#include <cmath>

namespace rooftree::report {

Roofline roofline(const machine::Chip& chip, Arithmetic in_use) {
  Roofline result;
  for (const machine::MemoryLevel& level : chip.ladder) {
    if (level.bandwidth.value() <= 0) continue;
    result.memory.push_back({level.name, level.bandwidth, level.capacity, &level == &chip.main_memory()});
  }
  std::stable_sort(result.memory.begin(), result.memory.end(),
                   [](const MemoryRoof& a, const MemoryRoof& b) { return a.bandwidth > b.bandwidth; });

  // Types whose rates agree to 1 % share a line, the one in use named first.
  const auto add = [&](Arithmetic a) {
    const FlopPerSecond rate = product_rate(chip, a);
    if (rate.value() <= 0) return;
    for (ComputeRoof& roof : result.compute) {
      if (std::abs(roof.rate.value() / rate.value() - 1) < 0.01) {
        roof.name += " · ";
        roof.name += name(a);
        return;
      }
    }
    result.compute.push_back({std::string(name(a)), rate, a == in_use});
  };
  add(in_use);
  for (int i = 0; i < kArithmeticCount; ++i) {
    if (const auto a = static_cast<Arithmetic>(i); a != in_use) add(a);
  }
  std::stable_sort(result.compute.begin(), result.compute.end(),
                   [](const ComputeRoof& a, const ComputeRoof& b) { return a.rate > b.rate; });

  const FlopPerSecond rate = product_rate(chip, in_use);
  const BytesPerSecond bandwidth = chip.main_memory().bandwidth;
  if (rate.value() > 0 && bandwidth.value() > 0) result.ridge = Ridge{rate / bandwidth, rate};
  return result;
}

std::vector<RooflinePoint> points(const Analysis& analysis) {
  std::vector<RooflinePoint> result;
  const double total = analysis.estimate.time.best.value();
  for (std::size_t i = 0; i < analysis.operators.size(); ++i) {
    const OperatorRow& row = analysis.operators[i];
    // Data that never leaves the chip is placed by its on-chip bytes.
    const bool on_chip = row.bytes_dram.value() <= 0 || row.bound == cost::Bound::kOnChip;
    const Bytes bytes = on_chip ? row.bytes_on_chip : row.bytes_dram;
    if (row.flop.value() <= 0 || bytes.value() <= 0 || row.time.value() <= 0) continue;
    result.push_back({i, row.flop / bytes / FlopPerByte{1}, row.flop / row.time / FlopPerSecond{1},
                      total > 0 ? row.time.value() / total : 0, row.bound, on_chip});
  }
  return result;
}

}  // namespace rooftree::report

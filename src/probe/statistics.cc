#include "probe/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"

namespace rooftree::probe {

double quantile(std::span<const double> sorted, double p) {
  ROOFTREE_CHECK(!sorted.empty() && p >= 0.0 && p <= 1.0, "quantile: no values, or p outside [0, 1]");
  const double position = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], position - static_cast<double>(below));
}

Statistic summarize(std::span<const double> values, Better better) {
  std::vector<double> sorted;
  sorted.reserve(values.size());
  for (const double v : values) {
    if (std::isfinite(v) && v > 0.0) sorted.push_back(v);
  }
  if (sorted.empty()) return {};
  std::sort(sorted.begin(), sorted.end());
  const double quietest = better == Better::kHigher ? sorted.back() : sorted.front();
  const auto near =
      std::count_if(sorted.begin(), sorted.end(), [&](double v) { return std::abs(v - quietest) <= 0.05 * quietest; });
  return {.samples = static_cast<int>(sorted.size()),
          .quietest = quietest,
          .near_quietest = static_cast<int>(near),
          .q1 = quantile(sorted, 0.25),
          .median = quantile(sorted, 0.5),
          .q3 = quantile(sorted, 0.75)};
}

}  // namespace rooftree::probe

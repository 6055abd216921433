#pragma once

// Robust statistics of repeated measurements on a noisy machine. The limit of the machine is what the quietest sample shows:
// interference only ever makes a sample slower. The quartiles say how noisy the rest was.

#include <span>

namespace rooftree::probe {

enum class Better { kHigher, kLower };  // rates are better high, times low

struct Statistic {
  int samples = 0;  // 0 = not measured: the other fields mean nothing
  double quietest = 0.0;
  int near_quietest = 0;                    // samples within 5 % of the quietest, itself included
  double q1 = 0.0, median = 0.0, q3 = 0.0;  // 25, 50 and 75 % quantiles by value, linear between samples

  // A limit shows itself again and again; a lone best sample may be below what a quieter machine would give.
  [[nodiscard]] bool confirmed() const { return near_quietest >= 3; }
  // Interquartile range over the median.
  [[nodiscard]] double relative_spread() const { return median > 0.0 ? (q3 - q1) / median : 0.0; }
};

// Values that are not finite and positive are failed samples and left out.
[[nodiscard]] Statistic summarize(std::span<const double> values, Better better);

// Quantile p in [0, 1] of sorted, non-empty values.
[[nodiscard]] double quantile(std::span<const double> sorted, double p);

}  // namespace rooftree::probe

#include "probe/ladder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/unit_text.h"

namespace rooftree::probe {
namespace {

constexpr double kStepsPerDoubling = 4.0;
const double kSmallestPeak = std::log(1.3);  // natural logarithm of the rise per doubling

// log(latency) at log2(size), linear between the points.
double log_latency(const std::vector<LatencyPoint>& curve, double log_size) {
  std::size_t i = 0;
  while (i + 2 < curve.size() && std::log2(curve[i + 1].size.value()) < log_size) ++i;
  const double x0 = std::log2(curve[i].size.value()), x1 = std::log2(curve[i + 1].size.value());
  const double y0 = std::log(curve[i].latency.value()), y1 = std::log(curve[i + 1].latency.value());
  return std::lerp(y0, y1, std::clamp((log_size - x0) / (x1 - x0), 0.0, 1.0));
}

}  // namespace

std::vector<Plateau> find_plateaus(const std::vector<LatencyPoint>& curve) {
  if (curve.empty()) return {};
  if (curve.size() == 1) return {{.capacity = Bytes{0.0}, .latency = curve[0].latency}};
  const double first = std::log2(curve.front().size.value()), last = std::log2(curve.back().size.value());
  // Slope across one doubling, on a regular grid of log2(size).
  std::vector<double> grid, slope;
  for (double x = first; x <= last + 1e-9; x += 1.0 / kStepsPerDoubling) {
    grid.push_back(x);
    slope.push_back(log_latency(curve, std::min(x + 0.5, last)) - log_latency(curve, std::max(x - 0.5, first)));
  }
  // Peaks, by the hysteresis that their definition asks for: up from a valley to twice its height, down to half.
  std::vector<std::size_t> edges, valleys;
  std::size_t valley = 0, peak = 0;
  bool climbing = false;  // a peak that is high enough has been seen since the last valley
  for (std::size_t i = 0; i < slope.size(); ++i) {
    if (!climbing) {
      if (slope[i] < slope[valley]) valley = i;
      if (slope[i] >= kSmallestPeak && slope[i] >= 2.0 * slope[valley]) {
        climbing = true;
        peak = i;
      }
    }
    if (climbing) {
      if (slope[i] > slope[peak]) peak = i;
      if (slope[i] <= 0.5 * slope[peak]) {
        // Middle of the flat top that a step between two points makes.
        std::size_t end = peak;
        while (end + 1 < slope.size() && slope[end + 1] > 0.95 * slope[peak]) ++end;
        edges.push_back((peak + end) / 2);
        valleys.push_back(valley);
        climbing = false;
        valley = i;
      }
    }
  }
  // A climb that has not come down belongs to main memory only if the curve ends on it: the last level is then not reached, and
  // its best witness is the last point.
  if (climbing) {
    edges.push_back(peak);
    valleys.push_back(valley);
    valley = slope.size() - 1;
  }
  valleys.push_back(valley);
  std::vector<Plateau> plateaus;
  for (std::size_t i = 0; i < valleys.size(); ++i) {
    const bool memory = i == edges.size();
    plateaus.push_back({.capacity = memory ? Bytes{0.0} : Bytes{std::exp2(grid[edges[i]])},
                        .latency = memory ? curve.back().latency : Seconds{std::exp(log_latency(curve, grid[valleys[i]]))}});
  }
  return plateaus;
}

Seconds latency_of_level(const std::vector<LatencyPoint>& curve, Bytes below, Bytes capacity) {
  if (curve.empty()) return Seconds{0.0};
  if (capacity <= Bytes{0.0}) return curve.back().latency;
  // Half of the capacity for the first level, the geometric mean of the two capacities for the others.
  const double target = below > Bytes{0.0} ? std::sqrt(below.value() * capacity.value()) : capacity.value() / 2.0;
  Seconds found{0.0};
  for (const LatencyPoint& point : curve) {
    if (point.size > below && point.size.value() <= target * 1.0001) found = point.latency;
  }
  return found;
}

std::vector<std::string> compare_with_reported(const std::vector<Plateau>& plateaus, const std::vector<CacheLevel>& reported,
                                               bool virtual_machine) {
  std::vector<std::string> notes;
  // Every plateau but main memory ends somewhere; is there one that ends near each reported capacity?
  for (const CacheLevel& level : reported) {
    const Plateau* nearest = nullptr;
    double nearest_factor = 0.0;
    for (const Plateau& plateau : plateaus) {
      if (plateau.capacity <= Bytes{0.0}) continue;
      const double edge = plateau.capacity.value();
      const double factor = std::max(edge / level.capacity.value(), level.capacity.value() / edge);
      if (nearest == nullptr || factor < nearest_factor) {
        nearest = &plateau;
        nearest_factor = factor;
      }
    }
    if (nearest == nullptr) {
      notes.push_back(
          fmt::format("{}: the system reports {}, but the latency curve shows no step", level.name, to_text(level.capacity)));
    } else if (nearest_factor >= 2.0) {
      notes.push_back(
          fmt::format("{}: the system reports {}, but the nearest step of the latency curve lies at {}{}", level.name,
                      to_text(level.capacity), to_text(nearest->capacity),
                      virtual_machine ? " (a virtual machine: sizes may be made up, or shared with neighbours)" : ""));
    }
  }
  return notes;
}

}  // namespace rooftree::probe

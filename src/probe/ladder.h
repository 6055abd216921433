#pragma once

// Memory levels read off a curve of load latency against working-set size.

#include <string>
#include <vector>

#include "base/units.h"
#include "probe/topology.h"

namespace rooftree::probe {

struct LatencyPoint {
  Bytes size;
  Seconds latency;  // quietest sample
};

// A level seen in the curve.
struct Plateau {
  Bytes capacity;   // where the curve leaves the level: the middle of the steepest stretch; zero on the last one, main memory
  Seconds latency;  // where the curve is flattest inside the level
};

// Points sorted by size. The slope of log(latency) over log2(size) is taken across one doubling; a level ends at a peak of the
// slope that rises latency by at least 30 % per doubling and is at least twice the valley on either side. Real curves rise
// inside a level too, because part of a random walk still hits the level below; only peaks tell levels apart.
[[nodiscard]] std::vector<Plateau> find_plateaus(const std::vector<LatencyPoint>& curve);

// The latency that belongs to a level: of the largest measured size that lies in the lower half of what this level adds
// (capacity below, capacity], in logarithmic scale; the last point for main memory (capacity zero). Zero if none is measured.
[[nodiscard]] Seconds latency_of_level(const std::vector<LatencyPoint>& curve, Bytes below, Bytes capacity);

// One sentence for each cache level whose reported capacity the curve does not confirm: no level ends within a factor of two.
[[nodiscard]] std::vector<std::string> compare_with_reported(const std::vector<Plateau>& plateaus,
                                                             const std::vector<CacheLevel>& reported, bool virtual_machine);

}  // namespace rooftree::probe

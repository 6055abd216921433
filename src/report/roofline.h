#pragma once

// The geometry of a roofline: every memory level a diagonal, every arithmetic type a horizontal, every operator a point.
// Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009; several memory levels as
// in Ilic, Pratas, Sousa, "Cache-aware roofline model", IEEE CAL 13(1), 2014.

#include <optional>
#include <string>
#include <vector>

#include "report/analysis.h"

namespace rooftree::report {

struct MemoryRoof {
  std::string name;
  BytesPerSecond bandwidth;
  Bytes capacity;
  bool main = false;  // the chip's main memory
};

struct ComputeRoof {
  std::string name;  // "bf16", or "bf16 · fp16" where types share a rate
  FlopPerSecond rate;
  bool in_use = false;  // the arithmetic of the plan
};

struct Ridge {
  FlopPerByte intensity;
  FlopPerSecond rate;
};

struct RooflinePoint {
  std::size_t operator_index = 0;
  double intensity = 0;  // FLOP per byte moved at the level where the operator's data lives
  double rate = 0;       // FLOP/s reached
  double share = 0;      // of the time
  cost::Bound bound{};
  bool on_chip = false;  // the bytes are on-chip ones, since main memory is not touched
};

struct Roofline {
  std::vector<MemoryRoof> memory;    // fastest first; levels without a known bandwidth are left out
  std::vector<ComputeRoof> compute;  // fastest first
  std::optional<Ridge> ridge;        // main memory against the arithmetic in use
};

// Roofs of a chip; `in_use` marks the arithmetic that is drawn strong and that the ridge belongs to.
[[nodiscard]] Roofline roofline(const machine::Chip& chip, Arithmetic in_use);

// Operators with arithmetic and traffic; the others have no place in a log-log diagram.
[[nodiscard]] std::vector<RooflinePoint> points(const Analysis& analysis);

}  // namespace rooftree::report

#pragma once

// The cost of one model on one chip under a plan: time with its bound, bytes per memory level, memory by role, energy, money.
// Closed form; a complete estimate of a decoder takes about a microsecond.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cost/calibration.h"
#include "cost/kernel_time.h"
#include "cost/plan.h"
#include "machine/machine.h"
#include "model/graph.h"

namespace rooftree::cost {

// Which resource an operator or a plan waits for.
enum class Bound : std::uint8_t { kCompute, kSpecial, kOnChip, kMemory, kHostLink, kDisk, kOverhead, kHost };
[[nodiscard]] std::string_view name(Bound bound);  // "compute", "memory", "host link", …

// Where the working set lives, and so what streams through what.
enum class Regime : std::uint8_t {
  kWeightsOnChip,         // weights stay in on-chip memory; data streams through weights
  kWeightsInMemory,       // weights stream from main memory through data, once per step
  kWeightsFromHost,       // weights do not fit: they stream from host memory over the link
  kWeightsFromDisk,       // neither fits: they stream from disk
  kDoesNotFit,            // nothing that this machine has holds it
};
[[nodiscard]] std::string_view name(Regime regime);

// Where one role lives: a share on each level, nearest first; the levels are the chip's ladder, then host memory, then disk.
struct Placement {
  model::Role role{};
  Bytes size;
  std::string_view level;       // the level that holds most of it
  double share_off_chip = 0;    // share outside main memory
};

struct OperatorEstimate {
  std::uint32_t block = 0, node = 0;  // into the graph
  double count = 1;                   // executions per step (block repeat)
  Seconds time;                       // of all executions together
  Flop flop;                          // "
  Bytes bytes_dram;                   // " main-memory traffic
  Bytes bytes_on_chip;                // " served by on-chip levels
  Bound bound{};
  double log_low = 0, log_high = 0;   // 90 % interval of the time
  Distance distance{};
};

struct MemoryByRole {
  std::array<Bytes, model::kRoleCount> by_role{};
  Bytes reserve;   // allocator, context, workspaces
  Bytes total;
  Bytes capacity;
  bool fits = true;
};

struct Estimate {
  Interval<Seconds> time;          // of one step of the phase
  Seconds host_time;               // part of it that the host adds (not hidden)
  Bound bound{};                   // of the largest share of the time
  Regime regime{};
  Flop flop;
  Bytes bytes_dram;
  Bytes bytes_host_link;
  Bytes bytes_disk;
  FlopPerByte intensity;           // flop / bytes_dram
  FlopPerByte ridge;               // of the arithmetic that dominates
  Arithmetic arithmetic{};
  double tokens = 0;               // new tokens in the step; samples for models without tokens
  double tokens_per_second = 0;
  MemoryByRole memory;
  std::array<Placement, model::kRoleCount> placement{};
  Interval<Joules> energy;
  Interval<Dollars> money;         // rental price of the chip times time; zero if no price is known
  double utilisation_compute = 0;  // flop / (time * peak)
  double utilisation_dram = 0;     // bytes_dram / (time * bandwidth)
  double utilisation_host_link = 0;
  std::vector<OperatorEstimate> operators;
};

// A chip made ready for many estimates under one plan: rates, constants and types resolved once.
class Estimator {
 public:
  Estimator(const machine::Machine& machine, const CalibrationTable& calibration, const Plan& plan);
  Estimator(const machine::Machine& machine, const ChipCalibration& calibration, const Plan& plan);

  [[nodiscard]] Estimate estimate(const model::Graph& graph) const;
  // Same, reusing the storage of `out`: does not allocate once `out` has held this graph.
  void estimate_into(const model::Graph& graph, Estimate& out) const;

 private:
  machine::Machine machine_;
  ChipCalibration calibration_;
  Plan plan_;
  Operands operands_;
};

// What one change would gain, holding everything else.
struct Sensitivity {
  enum class Kind : std::uint8_t { kHardware, kSoftware };
  Kind kind{};
  std::string knob;     // "dram.bandwidth +10 %", "weights bf16 -> int8", "batch 1 -> 8"
  double time_ratio = 1;            // new time per token / old
  double cost_ratio = 1;            // new $ per token / old
  double energy_ratio = 1;
  std::string note;                 // what else changes (memory, accuracy, latency)
};

// Hardware properties by +10 % each (so gains are comparable: an elasticity) and every software knob that applies, ranked by gain.
std::vector<Sensitivity> sensitivities(const model::Model& model, const model::Phase& phase, const machine::Machine& machine,
                                       const CalibrationTable& calibration, const Plan& plan);

}  // namespace rooftree::cost

#pragma once

// The cost of one model on one chip under a plan: time with its bound, bytes per memory level, memory by role, energy, money.
// Closed form; a complete estimate of a decoder takes about a microsecond.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unit_text.h"
#include "cost/calibration.h"
#include "cost/kernel_time.h"
#include "cost/placement.h"
#include "cost/plan.h"
#include "machine/machine.h"
#include "model/graph.h"

namespace rooftree::cost {

// Which resource an operator or a plan waits for.
enum class Bound : std::uint8_t { kCompute, kSpecial, kOnChip, kMemory, kHostLink, kDisk, kOverhead, kHost };
inline constexpr int kBoundCount = 8;
[[nodiscard]] std::string_view name(Bound bound);  // "compute", "memory", "host link", …

struct OperatorEstimate {
  std::uint32_t block = 0, node = 0;  // into the graph
  double count = 1;                   // executions per step (block repeat)
  Seconds time;                       // of all executions together
  Flop flop;                          // "
  Bytes bytes_dram;                   // " main-memory traffic
  Bytes bytes_on_chip;                // " served by on-chip levels
  Bound bound{};
  double log_low = 0, log_high = 0;  // 90 % interval of the time
  Distance distance{};
};

// What the plan needs of main memory. Gradients, optimizer state and saved activations are zero outside training.
struct MemoryByRole {
  std::array<Bytes, model::kRoleCount> by_role{};  // kOutput: logits
  Bytes reserve;                                   // allocator, context, workspaces: Plan::memory_reserve of the capacity
  Bytes total;                                     // sum over the roles, without the reserve
  Bytes capacity;                                  // main memory of the chip
  bool fits = true;                                // total + reserve <= capacity
  // By how much it fits; negative: missing memory.
  [[nodiscard]] Bytes headroom() const { return capacity - reserve - total; }
};

enum class PriceBasis : std::uint8_t { kNone, kRental, kPurchase };
[[nodiscard]] std::string_view name(PriceBasis basis);  // "none", "rental", "purchase over 5 years"

// time.best = sum of the operators' times + host_time + transfer_time.
struct Estimate {
  Interval<Seconds> time;  // of one step of the phase
  Seconds host_time;       // part of it that the host adds (not hidden)
  Seconds transfer_time;   // part of it that waits for weights, KV or states from host memory or disk (not hidden)
  Seconds roof_time;       // datasheet roofline of the same work on the levels where it lives: no prediction goes below
  std::array<Seconds, kBoundCount> time_by_bound{};  // sums to time.best
  Bound bound{};                                     // of the largest share of the time
  Regime regime{};
  Flop flop;            // executed: products after sparsity, and vector arithmetic
  Bytes bytes_dram;     // traffic of the chip's last memory level (SRAM on a chip that has nothing else)
  Bytes bytes_on_chip;  // traffic served by the levels before it
  Bytes bytes_host_link;
  Bytes bytes_disk;
  FlopPerByte intensity;  // flop / bytes_dram; zero where nothing comes from main memory
  FlopPerByte ridge;      // of the arithmetic that dominates
  Arithmetic arithmetic{};
  Distance distance{};  // of the calibration, for the operators with most of the time
  double kernels = 0;   // launched per step
  double tokens = 0;    // new tokens in the step; samples for models without tokens
  double tokens_per_second = 0;
  MemoryByRole memory;
  std::array<Placement, model::kRoleCount> placement{};
  bool has_energy = false;  // false: the chip states no power, and none is invented
  Watts power;              // average over the step
  Interval<Joules> energy;
  Interval<Dollars> money;  // price of the chip times time; zero if no price is known
  PriceBasis price_basis{};
  double utilisation_compute = 0;  // products / (time * dense peak of each product's own type)
  double utilisation_dram = 0;     // bytes_dram / (time * bandwidth)
  double utilisation_host_link = 0;
  std::vector<OperatorEstimate> operators;
};

// kInvalid where the machine lacks what an estimate cannot do without: capacity and bandwidth of main memory, an arithmetic
// rate (chips that are announced but not specified). An Estimator of such a machine takes what is missing as not limiting.
Status check_machine(const machine::Machine& machine);

// A chip made ready for many estimates under one plan: rates, constants and types resolved once.
class Estimator {
 public:
  Estimator(const machine::Machine& machine, const CalibrationTable& calibration, const Plan& plan);
  Estimator(const machine::Machine& machine, const ChipCalibration& calibration, const Plan& plan);

  [[nodiscard]] Estimate estimate(const model::Graph& graph) const;
  // Same, reusing the storage of `out`: does not allocate once `out` has held this graph.
  void estimate_into(const model::Graph& graph, Estimate& out) const;

  [[nodiscard]] const machine::Machine& machine() const { return machine_; }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] const ResolvedTypes& types() const { return types_; }
  [[nodiscard]] const ChipCalibration& calibration() const { return calibration_; }

  // Sentences for people: how the types were resolved, which regime the plan is in and what would change it ("fits on chip
  // from int4 on", "needs 61 GiB more memory"), which assumptions stand behind the numbers. `estimate` must be of `graph`.
  [[nodiscard]] std::vector<std::string> explain(const model::Graph& graph, const Estimate& estimate) const;

 private:
  struct Price {
    PriceBasis basis = PriceBasis::kNone;
    Interval<DollarsPerSecond> rate;
    DollarsPerJoule energy;  // what an owner pays for it, with the building's overhead
  };
  [[nodiscard]] static Price price_of(const machine::Machine& machine);
  [[nodiscard]] WorkingSet working_set(const model::Graph& graph, double weight_bytes_per_value) const;

  machine::Machine machine_;
  ChipCalibration calibration_;
  Plan plan_;
  ResolvedTypes types_;
  StorageLadder ladder_;
  Operands weight_operands_;  // of products with weights and of everything that is not a product
  Price price_;
};

// What one change would gain, holding everything else.
struct Sensitivity {
  enum class Kind : std::uint8_t { kHardware, kSoftware };
  Kind kind{};
  std::string knob;         // "dram.bandwidth +10 %", "weights bf16 -> int8", "batch 1 -> 8"
  double time_ratio = 1;    // new time per token / old
  double cost_ratio = 1;    // new $ per token / old; 1 where no price is known
  double energy_ratio = 1;  // new J per token / old; 1 where no power is known
  std::string note;         // what else changes (memory, accuracy, latency)
};

// Hardware properties by +10 % each (so gains are comparable: an elasticity), twice the memory where that changes the regime,
// and every software knob that applies, ranked by gain in time per token: the first answers "what should I do?". Changes that
// do nothing (less than 0.1 %) are left out. Empty if the model does not build for the phase.
std::vector<Sensitivity> sensitivities(const model::Model& model, const model::Phase& phase, const machine::Machine& machine,
                                       const CalibrationTable& calibration, const Plan& plan);

// The smallest batch from which the products with weights are bound by arithmetic rather than by memory (by time, more than
// half of them), by bisection on complete estimates up to `limit`; nothing if that is never so. Other knobs as in `phase`.
std::optional<std::int64_t> ridge_batch(const model::Model& model, const model::Phase& phase, const Estimator& estimator,
                                        std::int64_t limit = 65536);

}  // namespace rooftree::cost

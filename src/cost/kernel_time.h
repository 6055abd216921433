#pragma once

// How long one kernel takes on one chip: few physical constants per chip family and operator class, in utilisation space.
// Forms and their sources stand above each function in kernel_time.cc; the constants and the data they were fitted on are in
// catalog/calibration/. All times here are raw doubles in seconds: this is the inside of the hot loop.

#include <array>
#include <cstdint>

#include "cost/calibration.h"
#include "model/operator.h"

namespace rooftree::cost {

// How the operands of an operator are stored, fed and multiplied; made once per (plan, placement) by the estimator.
struct Operands {
  Arithmetic arithmetic = Arithmetic::kBf16;  // of the products
  bool weight_only = false;                   // weights are widened in the kernel before the product
  double weight_bytes = 2;  // moved per value of the dense tensor: scales, density and sparsity indices already included
  double activation_bytes = 2;
  double kv_bytes = 2;
  double output_bytes = 2;
  double gradient_bytes = 2;
  double optimizer_bytes = 4;
  double weight_density = 1;   // share of the products that are carried out (block sparsity); 2:4 uses product_speedup
  double product_speedup = 1;  // arithmetic gain of sparsity on this chip
  // Seconds per byte from the level where each role lives, at that level's full bandwidth (before utilisation).
  double weight_seconds_per_byte = 0;
  double activation_seconds_per_byte = 0;
  double kv_seconds_per_byte = 0;
  bool weights_on_chip = false;  // weights resident in SRAM: no pipe fill from DRAM
  // Shares found in the last on-chip level because they were touched just before (benchmarks that repeat on the same operands,
  // activations between kernels); those bytes move at the on-chip rate. See cached_share().
  double weight_cached_share = 0;
  double activation_cached_share = 0;
  double kv_cached_share = 0;
  bool activation_cast = true;  // low-precision products quantise their activations first; false: they arrive quantised
  double routing_skew = 0;      // exponent of the power law of tokens per expert; 0 = experts chosen uniformly
  double routing_shards = 1;    // ranks that share the experts; the heaviest one is what is timed (with routing_skew)
};

// What the time consists of. `compute` and `memory` are the two roofs after utilisation; `fixed` is launch, fill and
// synchronisation inside the kernel. `bytes` counts main-memory-side traffic by role group, `utilisation` what the calibration
// assumed. 90 % interval: time * exp(log_low), time * exp(log_high).
struct KernelTime {
  double time = 0;
  double compute = 0;
  double memory = 0;
  double special = 0;  // exponentials and element-wise units
  double fixed = 0;
  double eager = 0;  // s more if launched from the host and awaited, as benchmarks without graphs do; not part of `time`
  double weight_bytes = 0, activation_bytes = 0, kv_bytes = 0, state_bytes = 0;
  double log_low = 0, log_high = 0;
  std::uint8_t distance = 0;  // how far the calibration is from this chip: see Distance
};

// Share of `footprint` bytes, swept cyclically again and again, that a cache of `capacity` bytes still holds when they come
// round: all of them while they fit, none beyond, as a least-recently-used cache does (a sweep evicts each line just before its
// reuse); the edge is a few per cent wide because sets fill unevenly.
[[nodiscard]] double cached_share(double footprint, double capacity);

// Loads (token-expert pairs) of experts under a truncated power law, see kernel_time.cc; [0] is what the heaviest of `shards`
// ranks computes in rows padded to `row_tile`, [1] the experts that it touches.
[[nodiscard]] std::array<double, 2> routed_load(double tokens, double experts, double top_k, double skew, double shards,
                                                double row_tile);

// `work` must be model::work(op). Never allocates.
KernelTime kernel_time(const model::Operator& op, const model::Work& work, const Operands& operands,
                       const ChipCalibration& chip);

}  // namespace rooftree::cost

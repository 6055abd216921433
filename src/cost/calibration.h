#pragma once

// Efficiency constants: data with provenance, fitted on public measurements by tools/fit and shipped in catalog/calibration/.
// A chip without its own constants falls back to its family, its vendor's nearest generation, its kind; the result says how
// far it fell and widens its interval.

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "machine/chip.h"

namespace rooftree::cost {

// How far the constants used are from the chip in question.
enum class Distance : std::uint8_t { kOwn, kFamily, kVendor, kKind, kGeneric };
[[nodiscard]] std::string_view name(Distance distance);

// C = A B.  t = t0 + (t_tile^4 + t_mem^4)^(1/4), see kernel_time.cc.
struct GemmConstants {
  double peak_share = 0.8;      // u: reachable share of the product rate
  double memory_share = 0.8;    // em: reachable share of memory bandwidth
  double fixed = 3e-6;          // t0, s
  double fill = 0;              // Bh, s
  double tile_epilogue = 0;     // tep, s
  double l2_ratio = 4;          // l: last on-chip level's bandwidth as a multiple of DRAM's
  double activation_cast_passes = 0;  // extra passes over A to quantise it (dynamic FP8): bytes per value
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

struct AttentionPrefillConstants {
  double fixed = 12e-6, memory_share = 1.3, peak_share = 0.6, exponential_share = 0.86, extra_tokens = 350, tail = 0.5;
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

struct AttentionDecodeConstants {
  double fixed = 10e-6, cold_fixed = 28e-6, l2_multiple = 3, memory_share = 0.95, split_fixed = 2e-6, per_wave = 1e-6;
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

// Bandwidth-bound kernels: t = max(floor, bytes / (W share)).
struct StreamConstants {
  double memory_share = 0.8;
  double fixed = 3e-6;
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

// What the host adds, by software stack.
struct HostConstants {
  double per_step = 1e-3;       // s per forward pass
  double per_sequence = 4e-6;   // s per sequence of the batch
  double per_layer = 0;         // s per repeated block: floor, not sum
  double per_kernel = 0;        // s per launch on the critical path
};

enum class StreamClass : std::uint8_t { kElementwise, kActivation, kRope, kNorm, kSoftmax, kEmbedding, kOptimizer, kLoss, kCount };

// Everything kernel_time needs of a chip: rates as plain doubles, and the constants resolved for it.
struct ChipCalibration {
  std::array<double, kArithmeticCount> product_rate{};  // FLOP/s, dense
  std::array<double, kArithmeticCount> inverse_product_rate{};
  double vector_rate = 0;        // fp32 FLOP/s of the general ALUs
  double exponential_rate = 0;   // evaluations per second
  double memory_bandwidth = 0;   // main memory, bytes/s
  double last_cache_bytes = 0;   // capacity of the last on-chip level
  double cores = 1;

  std::array<GemmConstants, kArithmeticCount> gemm{};
  std::array<GemmConstants, kArithmeticCount> gemm_weight_only{};  // by the arithmetic that the weights are widened to
  std::array<GemmConstants, kArithmeticCount> grouped_gemm{};
  std::array<AttentionPrefillConstants, kArithmeticCount> attention_prefill{};
  AttentionDecodeConstants attention_decode_multi_head, attention_decode_grouped;
  std::array<StreamConstants, static_cast<std::size_t>(StreamClass::kCount)> stream{};
  std::array<HostConstants, 5> host{};  // by Stack
};

class CalibrationTable {
 public:
  static const CalibrationTable& builtin();
  static Result<CalibrationTable> from_directory(const std::filesystem::path& directory);

  // Never fails: a chip nobody has measured gets the constants of its nearest relative and a wide interval.
  [[nodiscard]] ChipCalibration resolve(const machine::Chip& chip) const;

  // The datasheet roofline: every share 1, every fixed cost 0. The baseline that `validate` prints beside ours.
  [[nodiscard]] static ChipCalibration datasheet(const machine::Chip& chip);

  struct Entry;  // one constant set with what it applies to and what it was fitted on

 private:
  std::vector<std::shared_ptr<const Entry>> entries_;
};

}  // namespace rooftree::cost

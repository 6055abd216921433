#pragma once

// Efficiency constants: data with provenance, fitted on public measurements by tools/fit and shipped in catalog/calibration/.
// A chip without its own constants falls back to its family, its vendor's nearest generation, its kind; the result says how
// far it fell and widens its interval.

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "machine/chip.h"

namespace rooftree::cost {

// How far the constants used are from the chip in question.
enum class Distance : std::uint8_t { kOwn, kFamily, kVendor, kKind, kGeneric };
[[nodiscard]] std::string_view name(Distance distance);

// Which attention kernel runs: generations differ by a factor of three on one chip. kEngine is the kernel of today's serving
// engines (its time includes rope and the cache write); kUnfused is products and a softmax over materialised scores;
// kTritonEarly is the Triton kernel of 2022-23 (MPT), bound to the matrix instruction of its time.
enum class AttentionKernel : std::uint8_t {
  kEngine,
  kUnfused,
  kFlash1,
  kTriton,
  kFlash2,
  kFlash3,
  kCudnn,
  kTritonEarly,
  kCount
};
[[nodiscard]] std::string_view name(AttentionKernel kernel);  // "engine", "flash2", …

// How low-precision operands carry their scales: one per tensor (quantised on the fly), or one per block of 128.
enum class Scaling : std::uint8_t { kTensor, kBlock };

enum class Stack : std::uint8_t;  // plan.h

// How bandwidth-bound kernels are written: vectorised loads and fused reductions (frameworks and today's engines), or one
// element per thread (vLLM's own kernels of 2023 and early 2024).
enum class StreamKernels : std::uint8_t { kVectorised, kSimple };

// Facts about the software that choose between constant sets of one chip.
struct Software {
  AttentionKernel attention = AttentionKernel::kEngine;
  Scaling scaling = Scaling::kTensor;
  std::optional<Stack> stack;  // whose product kernels run; empty = the vendor library's and the engines'
  StreamKernels streams = StreamKernels::kVectorised;
  // Products follow each other under the power limit of the chip, as in an eager layer loop: constants of their own.
  bool sustained = false;
};

// C = A B.  t = t0 + (t_tile^4 + t_mem^4)^(1/4), see kernel_time.cc.
struct GemmConstants {
  double peak_share = 0.8;           // u: reachable share of the product rate
  double memory_share = 0.8;         // em: reachable share of memory bandwidth
  double fixed = 3e-6;               // t0, s
  double fill = 0;                   // Bh, s
  double tile_epilogue = 0;          // tep, s
  double l2_ratio = 4;               // rate of the last on-chip level as a multiple of memory bandwidth
  double tile_feed = 0.014;          // l: bytes that reach the tiles per FLOP of the product rate
  double activation_cast_bytes = 0;  // bytes moved per value of A to quantise it first (a kernel of its own)
  double eager_fixed = 0;            // s more when launched one by one from the host instead of from a captured graph
  // Limits per core and clock of kernels that are not tuned for the chip; 0 = none. Applied when constants are resolved: they
  // lower memory_share and peak_share.
  double core_load_bytes = 0;  // bytes that a core can have on their way divided by the latency (Little's law)
  double core_flop = 0;        // product FLOP beside the other work of the kernel (unpacking, scaling)
  // Weights that a core widens per clock before the product; 0 = free. The time adds to that of reading them.
  double core_unpack = 0;
  double unpack_seconds = 0;  // per weight on the whole chip; follows from core_unpack
  // Up to so many rows, products read cached keys and values and experts once per row instead of once for all rows (llama.cpp:
  // 8 on CUDA, 31 on Metal); 0 = never.
  double rows_one_by_one = 0;
  // Products on general ALUs: few rows (2 and more) run as matrix-vector products at `thin_share` of the wide rate, or fill a
  // tile of `tile_rows` rows, whichever is shorter; 0 = no such tile.
  double thin_share = 1;
  double tile_rows = 0;
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

struct AttentionPrefillConstants {
  double fixed = 12e-6;             // s
  double memory_share = 1.3;        // of q, k, v, o traffic; above 1 where part of it stays on chip
  double peak_share = 0.6;          // of the product rate
  double exponential_share = 0.86;  // of the exponential units
  double extra_tokens = 350;        // masked positions computed anyway, per query (causal)
  double tail = 0.5;                // share of one 128-row query block against all keys that is exposed at the end
  double backward_flop = 2.5;       // work of the backward pass in units of the forward
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

struct AttentionDecodeConstants {
  double fixed = 10e-6;       // s
  double cold_fixed = 28e-6;  // s more once the cache is much larger than `l2_multiple` times the last on-chip level
  double l2_multiple = 3;
  double memory_share = 0.95;
  double split_fixed = 2e-6;  // s, when the context is split over cores and reduced
  double per_wave = 1e-6;     // s per (sequence x kv head) and core
  double peak_share = 0.4;    // of the product rate; matters for latent attention and speculative tokens
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

// Bandwidth-bound kernels: t = fixed + bytes / (W share), or the arithmetic units if they take longer.
struct StreamConstants {
  double memory_share = 0.8;
  double fixed = 3e-6;
  double eager_fixed = 0;  // s more when launched from the host and awaited
  double log_low = -0.3, log_high = 0.3;
  Distance distance = Distance::kGeneric;
};

// What the host adds, by software stack.
struct HostConstants {
  double per_step = 1e-3;      // s per forward pass; of serving engines: where sequences generate
  double per_sequence = 4e-6;  // s per sequence of the batch; likewise
  double per_layer = 0;        // s per repeated block: floor, not sum
  double per_kernel = 0;       // s per launch on the critical path
  double product_share = 1;    // of the calibrated product rate when kernels follow each other under the chip's power limit
};

enum class StreamClass : std::uint8_t {
  kElementwise,
  kActivation,
  kRope,
  kNorm,
  kSoftmax,
  kEmbedding,
  kOptimizer,
  kLoss,
  kCount
};

// Everything kernel_time needs of a chip: rates as plain doubles, and the constants resolved for it.
struct ChipCalibration {
  std::array<double, kArithmeticCount> product_rate{};  // FLOP/s, dense
  std::array<double, kArithmeticCount> inverse_product_rate{};
  double vector_rate = 0;         // fp32 FLOP/s of the general ALUs
  double exponential_rate = 0;    // evaluations per second
  double memory_bandwidth = 0;    // main memory, bytes/s
  double last_cache_bytes = 0;    // capacity of the last on-chip level
  double shared_cache_bytes = 0;  // of it, for data that all cores read: a partitioned cache keeps a copy per partition
  double cores = 1;
  double tile_rows = 16;  // smallest row count that the product units work on; 1 = general ALUs
  bool ideal = false;     // datasheet roofline: no tiles, waves or padding, roofs combined by max

  std::array<GemmConstants, kArithmeticCount> gemm{};
  std::array<GemmConstants, kArithmeticCount> gemm_weight_only{};  // by the arithmetic that the weights are widened to
  std::array<GemmConstants, kArithmeticCount> grouped_gemm{};
  std::array<GemmConstants, kArithmeticCount> grouped_gemm_weight_only{};
  std::array<AttentionPrefillConstants, kArithmeticCount> attention_prefill{};
  AttentionDecodeConstants attention_decode_multi_head, attention_decode_grouped;
  AttentionDecodeConstants attention_decode_multi_head_8bit, attention_decode_grouped_8bit;  // KV cache of 8 bits or fewer
  std::array<StreamConstants, static_cast<std::size_t>(StreamClass::kCount)> stream{};
  std::array<HostConstants, 6> host{};  // by Stack
};

// Classes of constant sets, as the files spell them: "gemm", "gemm_weight_only", "grouped_gemm", "attention_prefill",
// "attention_decode", "stream", "host".
enum class SetClass : std::uint8_t {
  kGemm,
  kGemmWeightOnly,
  kGroupedGemm,
  kAttentionPrefill,
  kAttentionDecode,
  kStream,
  kHost,
  kCount
};
[[nodiscard]] std::string_view name(SetClass set_class);

// The constants of a class by name, so that files, the reader and the fitting program share one list. `unit` is "1", "s",
// "bytes" or "tokens".
struct ConstantName {
  std::string_view name;
  std::string_view unit;
};
[[nodiscard]] std::span<const ConstantName> constant_names(SetClass set_class);

// One constant set as a file states it: what it applies to, the values, how good they are and what they were fitted on.
struct ConstantSet {
  SetClass set_class{};
  std::string chip, family;                   // one of them, or neither for a set that applies to anything of `kind`
  std::optional<machine::ChipKind> kind;      // empty with neither: generic
  Arithmetic arithmetic = Arithmetic::kBf16;  // gemm and attention classes (of the KV cache for attention_decode)
  std::string variant;                        // "", "block", attention kernel, stream class, stack, "multi_head", "grouped"
  std::vector<std::pair<std::string, double>> values;  // SI; a set may state only some constants: the others are inherited
  double clock_hz =
      0;  // of the chip it was fitted on: latencies carried to another chip are cycles, not seconds; 0 = do not scale
  double log_low = 0, log_high = 0;  // 5 % and 95 % quantile of log(measured / predicted); both 0 in a partial set
  double median_error = 0, p90_error = 0;
  struct FittedOn {
    std::string file, rows_where;
    int rows = 0;
  };
  std::vector<FittedOn> fitted_on;  // empty only for a set that says in `note` where else it comes from
  std::string note, date;
};

// A family of chips, and which families its kernels resemble, nearest first.
struct Family {
  std::string id, vendor;
  machine::ChipKind kind = machine::ChipKind::kGpu;
  std::vector<std::string> relatives;
  double exponentials_per_core_clock = 0;   // 0 = unknown
  double vector_flop_per_core_clock = 256;  // fp32, multiply-add as two: gives the clock where it is not stated
  // Share of the matrix rate that kernels written for the previous generation's matrix instruction reach (FlashAttention-2 and
  // older on Hopper); applies to those kernels' constants when they come from a relative.
  double legacy_product_share = 1;
  // Share of the product rate at the stated clock that the board's power allows under matrix work; applies to constants that
  // come from a relative (a family's own constants contain it).
  double power_share = 1;
  double cache_partitions = 1;  // parts of the last cache that each serve their own cores and copy what others hold
  // fp32 products on the general ALUs that a joule pays for at the power limit: small boards never reach their fp32 peak.
  // 0 = not limited.
  double fp32_flop_per_joule = 0;
  std::string source;
};

class CalibrationTable {
 public:
  static const CalibrationTable& builtin();
  static Result<CalibrationTable> from_directory(const std::filesystem::path& directory);
  static Result<CalibrationTable> parse(std::string_view json_text, std::string_view where);
  static CalibrationTable from_sets(std::vector<ConstantSet> sets, std::vector<Family> families);

  // Never fails: a chip nobody has measured gets the constants of its nearest relative and a wide interval.
  [[nodiscard]] ChipCalibration resolve(const machine::Chip& chip, const Software& software = {}) const;

  // The datasheet roofline: every share 1, every fixed cost 0. The baseline that `validate` prints beside ours.
  [[nodiscard]] static ChipCalibration datasheet(const machine::Chip& chip);

  [[nodiscard]] const std::vector<ConstantSet>& sets() const { return sets_; }
  [[nodiscard]] const std::vector<Family>& families() const { return families_; }
  void merge(CalibrationTable other);

  // The table in the format that `parse` reads.
  [[nodiscard]] std::string to_json() const;

 private:
  std::vector<ConstantSet> sets_;
  std::vector<Family> families_;
};

}  // namespace rooftree::cost

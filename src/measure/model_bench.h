#pragma once

// A model measured on this machine beside what the cost model predicts for it: per phase, batch size and operator. Works
// without weights (seeded random ones of the published shape).

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "machine/machine.h"

namespace rooftree::measure {

struct BenchOptions {
  std::vector<std::int64_t> batches{1, 8, 32};  // decode
  std::vector<std::int64_t> prompts{512};       // prefill of one sequence
  std::int64_t context = 128;                   // tokens that each sequence holds before it decodes
  int samples = 7;                              // per phase, interleaved; the median counts
  double seconds_per_sample = 0.25;             // decode steps are repeated to fill it
  engine::EngineOptions engine;
  std::uint64_t seed = 1;
};

struct Spread {
  double q1 = 0, median = 0, q3 = 0;
};

struct OperatorBench {
  std::string block, node;                 // of the graph
  double measured_s = 0, predicted_s = 0;  // per step, all layers
  double flop = 0, bytes = 0;
};

struct PhaseBench {
  std::string phase;                                // "prefill", "decode"
  std::int64_t batch = 1, tokens = 1, context = 0;  // sequences, new tokens each, tokens held before
  Spread step_s;
  double tokens_per_s = 0;                       // of the median step
  double predicted_tokens_per_s = 0;             // with the limits of this run
  double predicted_low = 0, predicted_high = 0;  // 90 % interval
  double flop = 0, bytes = 0;                    // per step: products and element-wise; weights as packed, KV cache
  double roof_s = 0;                             // max(bytes / read bandwidth, product FLOP / peak), both measured in this run
  Spread fraction_of_roof;                       // roof_s / step, sample by sample with the limits measured beside that sample
  bool memory_bound = false;                     // which of the two roofs it is
  std::vector<OperatorBench> operators;
};

struct BenchResult {
  std::string model, weights, kv, level, backend, cpu;
  int threads = 1;
  bool random_weights = false;
  engine::Footprint footprint;
  Spread read_bytes_per_s;  // DRAM, beside the samples
  Spread peak_flop_per_s;   // of `arithmetic`
  Arithmetic arithmetic = Arithmetic::kFp32;
  std::vector<PhaseBench> phases;  // decode by batch, then prefill by prompt
};

// `machine`: this machine as probed; its main memory bandwidth and product rates are replaced by those measured here before
// anything is predicted.
Result<BenchResult> bench_model(engine::ModelFiles files, const machine::Machine& machine, const BenchOptions& options,
                                Progress* progress = nullptr);

// Two models or settings in one run, sample by sample in turns: what a claim of "faster" needs on a shared machine.
struct Comparison {
  std::string phase;
  std::int64_t batch = 1, tokens = 1;
  double first_tokens_per_s = 0, second_tokens_per_s = 0;
  Spread ratio;  // speed of the first over that of the second, of neighbouring samples
};
// Phases and sampling are those of `first_options`.
Result<std::vector<Comparison>> compare_models(engine::ModelFiles first, engine::ModelFiles second,
                                               const BenchOptions& first_options, const BenchOptions& second_options,
                                               Progress* progress = nullptr);

}  // namespace rooftree::measure

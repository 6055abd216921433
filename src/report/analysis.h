#pragma once

// Everything that a reader wants to know about one model in one phase on one chip: the estimate, its operators by name, what
// would move it, and what to keep in mind. Tables, JSON, SVG and HTML all print this one struct.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cost/estimate.h"
#include "machine/machine.h"
#include "model/model.h"

namespace rooftree::report {

// One operator of the graph with its share of the estimate; all quantities are of its `count` executions together.
struct OperatorRow {
  std::string block;  // "layer"
  double repeat = 1;  // of the block
  std::string name;   // "up_gate"
  model::OperatorKind kind{};
  model::Pass pass{};
  double count = 1;
  Seconds time;
  Flop flop;
  Bytes bytes_dram, bytes_on_chip;
  cost::Bound bound{};
  cost::Distance distance{};
  std::string best_move;  // the change that helps this operator most, "int8 weights: 1.9x"; empty = not asked for, or none
};

// Where the batch stops being free: from `batch` on most products with weights wait for arithmetic instead of memory.
struct RidgeCrossing {
  std::optional<std::int64_t> batch;            // nothing = not up to `searched`
  std::int64_t searched = 0;                    // the largest batch tried
  std::optional<std::int64_t> largest_fitting;  // in main memory, up to `searched`; nothing = not even one sequence
};

// The weights of one instance of a repeated block (one decoder layer), and what loading them takes at the full bandwidth of
// each memory from the chip's main one outwards.
struct BlockWeights {
  std::string block;  // "layer"; of several repeated blocks the one that holds most
  double repeat = 0;
  double values = 0;
  Bytes bytes;
  struct From {
    std::string level;  // "HBM3", "host memory", "disk"; levels without a known bandwidth are left out
    Seconds time;
  };
  std::vector<From> from;
};

struct Analysis {
  std::string model_id, model_name;
  double parameters = 0;  // of the graph; 0 = not counted
  double weights_read =
      1;  // share of the weights that one step reads: experts not hit and table rows not looked up are left out
  bool counts_samples = false;  // the model has no tokens: rates are in samples
  machine::Machine machine;
  model::Phase phase;
  cost::Plan plan;
  cost::Estimate estimate;
  std::vector<OperatorRow> operators;            // in graph order
  std::vector<cost::Sensitivity> sensitivities;  // best gain first; empty if not asked for
  std::optional<RidgeCrossing> crossing;         // decode only
  std::optional<BlockWeights> block_weights;     // nothing where no block repeats
  std::vector<std::string> notes;
};

struct AnalyzeOptions {
  bool with_sensitivities = true;
  bool with_crossing = true;
  bool with_operator_moves = true;
};

// Builds the graph, estimates it and collects what belongs to it. Fails where the model cannot be built for the phase.
Result<Analysis> analyze(const model::Model& model, const machine::Machine& machine, const model::Phase& phase,
                         const cost::Plan& plan, const cost::CalibrationTable& calibration, const AnalyzeOptions& options = {});

// Completes an analysis from the graph of its estimate: operator rows, parameters, notes (`facts` first: what the estimator
// explains). What analyze() does after estimating.
void describe(const model::Graph& graph, std::vector<std::string> facts, Analysis& analysis);

// Fills best_move of every operator: narrower types and 10 % more of each roof are tried on complete estimates of the same
// graph. The batch is left out, since it helps every weight alike and the ranking of the whole plan has it.
void add_operator_moves(const model::Graph& graph, const cost::CalibrationTable& calibration, Analysis& analysis);

// Nothing where no block with weights repeats.
[[nodiscard]] std::optional<BlockWeights> block_weights(const model::Graph& graph, const machine::Machine& machine,
                                                        const cost::ResolvedTypes& types);

// Chips whose main memory together holds the working set, each with its reserve; nothing where a chip states no memory.
[[nodiscard]] std::optional<double> chips_to_hold(const cost::MemoryByRole& memory);

// Share of the arithmetic that the intensity allows: intensity over ridge, at most 1; nothing where nothing comes from main
// memory.
[[nodiscard]] std::optional<double> compute_allowed(const cost::Estimate& e);

// How much faster a change makes it: "2.9x faster", "8.9 % faster", "no faster", "12 % slower".
[[nodiscard]] std::string gain_text(double time_ratio);

// The sensitivities that are worth a reader's time, best first: gains of at least half a per cent, one batch size (the best),
// at most two changes of one knob.
[[nodiscard]] std::vector<cost::Sensitivity> worthwhile(const std::vector<cost::Sensitivity>& ranked);

// Per token of the phase (per sample where the model has no tokens); nothing where the estimate has none.
[[nodiscard]] std::optional<double> joules_per_token(const cost::Estimate& e);
[[nodiscard]] std::optional<double> dollars_per_token(const cost::Estimate& e);

// "NVIDIA H100 SXM5 80GB", "Apple M4 Max": vendor and name once each, without what stands in parentheses.
[[nodiscard]] std::string chip_label(const machine::Chip& chip);

// Share of the last on-chip level's bandwidth that is used; nothing if the chip states none.
[[nodiscard]] std::optional<double> utilisation_on_chip(const Analysis& a);

// The unit of progress: "token", or "sample" for models without tokens.
[[nodiscard]] std::string_view progress_unit(const Analysis& a);

// "prefill of 512 tokens, batch 1", "decode, batch 8, context 1024", "training step, batch 4 x 2048 tokens".
[[nodiscard]] std::string phase_text(const model::Phase& phase);
// The same, in samples where the model has no tokens: "inference, batch 64", "training step, batch 64".
[[nodiscard]] std::string phase_text(const Analysis& a);
// "bf16 weights, bf16 KV cache, bf16 activations, engine stack, standard fusion"
[[nodiscard]] std::string plan_text(const model::Phase& phase, const cost::Plan& plan);
[[nodiscard]] std::string sparsity_text(const cost::Sparsity& sparsity);
[[nodiscard]] std::string_view name(model::Recompute recompute);

// Finds both by bisection on complete estimates. Fails where the model does not build for the phase at batch 1.
Result<RidgeCrossing> ridge_crossing(const model::Model& model, model::Phase phase, const cost::Estimator& estimator,
                                     std::int64_t largest = 65536);

// "1,2,4..256": numbers and ranges; `a..b` doubles from a until b, b included. `where` names the flag in errors.
Result<std::vector<std::int64_t>> parse_sweep_values(std::string_view text, std::string_view where);

}  // namespace rooftree::report

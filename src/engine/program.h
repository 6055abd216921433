#pragma once

// The graph of one decode step turned once into a flat list of kernel calls with resolved buffers, weights and constants. The
// list is run by all workers together; a barrier stands only where a call needs what another worker may still be writing.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/arena.h"
#include "engine/engine.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "model/graph.h"
#include "model/numerics.h"

namespace rooftree::engine {

// Where a value lives: a column slice of a buffer. `data` and `stride` are set once buffers have addresses.
struct Operand {
  std::uint32_t reg = UINT32_MAX;  // virtual register while compiling; kLogits = the caller's logits
  std::int64_t column = 0, width = 0;
  float* data = nullptr;
  std::int64_t stride = 0;

  [[nodiscard]] bool valid() const { return reg != UINT32_MAX; }
};
inline constexpr std::uint32_t kLogitsRegister = UINT32_MAX - 1;

// One kernel call. What the operands are depends on the kind; unused ones are invalid.
struct Step {
  enum class Kind : std::uint8_t {
    kEmbed,            // y = rows of weight by ids[index]
    kNorm,             // a = x, b = pending -> y, y2 = sum
    kPack,             // a = x -> y, packed for `product`
    kMultiply,         // a = packed x -> y; part `index` of the weight
    kPackHeads,        // a = x, `rows` parts per row -> y
    kMultiplyHeads,    // a = packed x, b = x (for what passes through) -> y
    kPackExperts,      // a = x, b = sort -> y
    kMultiplyExperts,  // a = packed x, b = sort -> y; part `index`
    kRotate,           // y in place
    kCacheWrite,       // a = keys, b = values
    kAttention,        // a = q -> y
    kActivation,       // a = gate, b = up -> y
    kAdd,              // a, b, c, d = gate -> y
    kScale,            // y in place
    kRoute,            // a = logits -> y = chosen, y2 = weights
    kSort,             // a = chosen -> y
    kCombine,          // a = rows by expert, b = sort, c = weights -> y
    kHeadRows,         // a -> y, the rows whose logits are asked for
    kStream,           // the streamed layer before it goes, layer `index` comes (-1: none); barriers on both sides
  };
  Kind kind = Kind::kNorm;
  bool barrier = false;   // before it
  bool head = false;      // runs on the rows whose logits are asked for
  bool gathered = false;  // expert products whose rows are those of the step, not sorted ones
  std::int32_t node = 0, index = 0;
  std::int64_t rows = 1;  // per row of the step
  std::int64_t width = 0;
  Operand a, b, c, d, y, y2;
  const BoundMatrix* weight = nullptr;
  const float *vector = nullptr, *bias = nullptr;
  kernels::Product product = kernels::Product::kF32;
  model::NormKind norm = model::NormKind::kRms;
  model::Activation activation = model::Activation::kSilu;
  float scale = 1.0F, softcap = 0.0F;
};

// Keys and values of one attention, one per layer that has any.
struct KvLayer {
  kernels::KvCache cache;  // its memory is the engine's
  std::int64_t heads = 0, window = 0;
  float scale = 1.0F;
  const float* sinks = nullptr;
  kernels::ScoreModifier modifier;
};

struct NodeInfo {
  std::string block, name;
  std::int32_t layer = -1;
  bool head = false;
  struct Output {
    std::string name;
    Operand place;
    std::int64_t rows = 1;  // per row of the step
  };
  std::vector<Output> outputs;  // in floats, for observers
};

// The rows of one pass.
struct Pass {
  std::span<const std::int32_t> tokens, positions, zeros;  // (rows)
  std::span<const kernels::SequenceRows> sequences;
  std::span<const std::int32_t> head_rows;  // rising, of [0, rows)
  float* logits = nullptr;                  // (head_rows, vocabulary)
  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

struct ProgramOptions {
  std::int64_t max_rows = 512, page_tokens = 64;
  DType kv = DType::kBf16;
  int threads = 1;
  bool exact = false;
};

class Program {
 public:
  // Asks `weights` for every weight of the graph. kInvalid names the node or operator that cannot be executed.
  static Result<std::unique_ptr<Program>> compile(const model::Model& model, Weights& weights, const kernels::Backend& backend,
                                                  const ProgramOptions& options);

  // After the weights are loaded: layers that are streamed are waited for before their first use and let go behind their last.
  void stream(Weights& weights);

  // All workers of a region call it with the same pass. Where a streamed layer cannot be read, all of them return and failed()
  // says so; the pass is void.
  void run(const Worker& worker, const Pass& pass);
  // The same, with a barrier behind every node: worker 0 adds to seconds() and calls the observer.
  void run_watched(const Worker& worker, const Pass& pass, bool profile, const Observer& observer);

  [[nodiscard]] std::vector<KvLayer>& kv_layers() { return kv_layers_; }
  [[nodiscard]] const std::vector<Step>& steps() const { return steps_; }
  [[nodiscard]] const std::vector<NodeInfo>& nodes() const { return nodes_; }
  [[nodiscard]] std::vector<double>& seconds() { return seconds_; }  // per node
  [[nodiscard]] std::int64_t vocabulary() const { return vocabulary_; }
  [[nodiscard]] std::int64_t position_limit() const { return position_limit_; }  // of a table of positions; 0: none
  [[nodiscard]] std::uint64_t scratch_bytes() const { return scratch_.bytes(); }
  [[nodiscard]] std::uint64_t step_weight_bytes() const;
  [[nodiscard]] std::int64_t barriers() const;
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  friend class Compiler;
  Program() = default;
  void execute(const Step& step, const Worker& worker, const Pass& pass);
  void pack_experts(const Step& step, const Worker& worker, std::int64_t rows) const;
  void multiply_experts(const Step& step, const Worker& worker, std::int64_t rows);
  void sort(const Step& step, std::int64_t rows) const;

  // False: the pass ends here.
  bool change_layer(const Step& step, const Worker& worker);

  const kernels::Backend* backend_ = nullptr;
  Weights* streamed_ = nullptr;  // null: all weights are in memory
  bool holds_layer_ = false;     // of worker 0
  bool failed_ = false;          // written by worker 0 between two barriers
  std::int64_t max_rows_ = 0, vocabulary_ = 0, position_limit_ = 0;
  std::vector<Step> steps_;
  std::vector<NodeInfo> nodes_;
  std::vector<KvLayer> kv_layers_;
  std::vector<std::unique_ptr<model::Rope>> ropes_;
  std::vector<std::vector<float>> slopes_;
  model::Routing routing_;
  Arena scratch_;
  std::vector<std::vector<kernels::MultiplyArgs>> groups_;  // (threads), scratch of grouped products
  std::vector<double> seconds_;
};

}  // namespace rooftree::engine

#pragma once

// Executes a model: the operator graph that the cost model prices, bound to packed weights and a backend. One call advances any
// mixture of sequences by any number of tokens each (prefill chunks and decode steps together). Bits of a sequence's logits do
// not depend on what else is in the batch (numeric contract).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/model_files.h"
#include "kernels/backend.h"
#include "serving/block_pool.h"

namespace rooftree::engine {

using TokenId = std::int32_t;

struct EngineOptions {
  int threads = 0;                      // 0: one per physical core that this process may use
  std::optional<DType> weights;         // quantise (or widen) on load; absent: as stored
  bool exact_activations = false;       // level C for every product: f32 activations, weights widened to f32
  std::optional<kernels::Level> level;  // required level; load refuses what cannot keep it
  DType kv = DType::kBf16;
  std::int64_t kv_tokens = 4096;  // positions in the pool, over all sequences
  std::int64_t page_tokens = 64;
  std::int64_t max_rows = 512;                // rows that one pass over the weights carries
  const kernels::Backend* backend = nullptr;  // null: the CPU's best under ROOFTREE_ISA
  // Weights, cache and scratch together; 0: none. Layers of weights beyond it are read from a file of packed weights in every
  // pass: in `cache`, or without that a file that lasts as long as the engine, in the user's cache folder ($XDG_CACHE_HOME).
  std::uint64_t memory_limit_bytes = 0;
  // Folder for packed weights, which the next load maps instead of packing; empty: none are kept.
  std::filesystem::path cache;
};

enum class Logits : std::uint8_t { kNone, kLast, kAll };

// New tokens of one sequence. `blocks` covers positions [0, past + tokens) of the sequence; the caller owns the blocks.
struct Chunk {
  std::span<const TokenId> tokens;
  std::int64_t past = 0;
  std::span<const serving::BlockId> blocks;
  Logits logits = Logits::kLast;
};

struct StepResult {
  std::int64_t vocabulary = 0;
  std::span<const float> logits;            // (rows, vocabulary), chunk by chunk; valid until the next step
  std::span<const std::int64_t> first_row;  // (chunks + 1): chunk i has rows [first_row[i], first_row[i + 1]); likewise
};

// Time of one node in the last profiled step.
struct NodeTime {
  std::string_view block, node;
  std::int32_t layer = 0;  // of the model; -1 outside layers
  std::int64_t rows = 0;
  double seconds = 0;
};

// What a node wrote, for `diff` and tests; called by one thread after the node.
using Observer = std::function<void(std::int32_t layer, std::string_view node, std::string_view value,
                                    std::span<const float> data, std::int64_t rows, std::int64_t width, std::int64_t stride)>;

struct Footprint {
  std::uint64_t weights_bytes = 0;   // packed, all of them
  std::uint64_t resident_bytes = 0;  // of them in memory
  std::uint64_t streamed_bytes = 0;  // read from disk in each pass
  std::uint64_t buffer_bytes = 0;    // that the streamed ones pass through
  std::uint64_t kv_bytes = 0, scratch_bytes = 0;
  std::uint64_t step_weight_bytes = 0;  // packed weights that a dense batch-1 step reads
};

// What the reader of streamed weights has done so far.
struct StreamTimes {
  std::uint64_t bytes = 0;
  double seconds = 0;  // spent reading
};

class Engine {
 public:
  // Takes the files; packs the weights. kInvalid names what the model needs and the engine lacks.
  static Result<std::unique_ptr<Engine>> load(ModelFiles files, const EngineOptions& options, Progress* progress = nullptr);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // kInvalid: token ids, positions or blocks out of range. kEnvironment: streamed weights could not be read; nothing counts as
  // computed, and the step may be tried again. Rows beyond max_rows are done in several passes.
  Result<StepResult> step(std::span<const Chunk> chunks);

  [[nodiscard]] serving::BlockPool& blocks();
  void copy_block(serving::BlockId from, serving::BlockId to);  // copy on write

  [[nodiscard]] const model::Model& model() const;
  [[nodiscard]] const text::Tokenizer* tokenizer() const;  // null: token ids only
  [[nodiscard]] const std::shared_ptr<const text::Tokenizer>& shared_tokenizer() const;
  [[nodiscard]] std::int64_t vocabulary() const;
  [[nodiscard]] std::int64_t max_context() const;     // that the model was made for; 0: not stated. Longer is possible
  [[nodiscard]] std::int64_t position_limit() const;  // of its tables of positions: longer is refused; 0: none
  // The weakest level that any product with weights keeps; C also for f32 caches and the reference backend. (16-bit and
  // quantised caches are ordered as level B asks and weaken nothing.)
  [[nodiscard]] kernels::Level level() const;
  [[nodiscard]] const kernels::Backend& backend() const;
  [[nodiscard]] int threads() const;
  [[nodiscard]] ThreadPool& pool();
  [[nodiscard]] const Footprint& footprint() const;
  [[nodiscard]] bool weights_reused() const;  // they came packed from the cache folder
  [[nodiscard]] StreamTimes stream_times() const;
  // SHA-256 over the stored tensors in name order: name, type, extents and the SHA-256 of every MiB of the data. 64 digits.
  [[nodiscard]] const std::string& weights_sha256();

  void set_profiling(bool on);
  [[nodiscard]] std::span<const NodeTime> last_profile() const;
  void set_observer(Observer observer);  // empty: none

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rooftree::engine

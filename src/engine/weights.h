#pragma once

// The weights of a model in the layout of a backend: planned from the tensors' descriptions, then packed once on load, or taken
// from a file of packed weights that an earlier load left. What memory has no room for stays in that file and is read layer by
// layer, ahead of use, in every pass.

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "engine/arena.h"
#include "engine/model_files.h"
#include "engine/weight_file.h"
#include "kernels/backend.h"
#include "model/graph.h"

namespace rooftree::engine {

// Rows [first_row, first_row + matrix.n) of a weight. A merged weight has several where its pieces differ in type.
struct MatrixPart {
  kernels::PackedMatrix matrix;
  std::int64_t first_row = 0;
  kernels::Product product = kernels::Product::kF32;
};

// `count` matrices (N, K): one, or one per expert or head. All have the same cuts into parts of the same types.
struct BoundMatrix {
  std::int64_t count = 1, n = 0, k = 0;
  std::vector<std::vector<MatrixPart>> matrices;  // (count)(parts)
  [[nodiscard]] const std::vector<MatrixPart>& parts(std::int64_t index = 0) const {
    return matrices[static_cast<std::size_t>(index)];
  }
};

struct WeightOptions {
  std::optional<DType> type;  // quantise or widen to it
  bool exact = false;         // everything to f32
};

// What a weight is for, as far as its type depends on it.
enum class WeightUse : std::uint8_t {
  kProduct,  // follows WeightOptions::type
  kSmall,    // a router or a gate: decides much, costs little, keeps its stored type
  kLookup,   // rows are read, nothing is multiplied: keeps no level
};

// Where packed weights are kept.
struct WeightStorage {
  std::filesystem::path cache;                     // folder of files for later loads; empty: none
  std::optional<std::uint64_t> most_memory_bytes;  // for packed weights, buffers of the stream included; absent: no limit
};

class Weights {
 public:
  Weights(const ModelFiles& files, const kernels::Backend& backend, const WeightOptions& options)
      : files_(files), backend_(backend), options_(options) {}

  // The weight `value` of layer `layer` (-1 outside layers) as `count` matrices (n, k), or as `count` floats. Pointers stay
  // valid; contents come with load(). Asking again gives the same object. kInvalid, kNotFound: names, shapes or types that do
  // not fit.
  Result<const BoundMatrix*> matrix(const model::Value& value, std::int32_t layer, std::int64_t count, std::int64_t n,
                                    std::int64_t k, WeightUse use);
  Result<const float*> vector(const model::Value& value, std::int32_t layer, std::int64_t count);

  // Packs everything that was asked for, or finds it packed. kInvalid: even streamed they need more memory than allowed.
  Status load(ThreadPool& pool, const WeightStorage& storage, Progress* progress);

  [[nodiscard]] std::uint64_t packed_bytes() const { return packed_bytes_; }
  [[nodiscard]] std::uint64_t resident_bytes() const { return packed_bytes_ - streamed_bytes_; }
  [[nodiscard]] std::uint64_t streamed_bytes() const { return streamed_bytes_; }  // in every pass
  [[nodiscard]] bool reused() const { return reused_; }                           // from a file of an earlier load
  [[nodiscard]] const WeightStream* stream() const { return stream_.get(); }      // null: nothing is streamed

  // The place of a weight among the streamed layers; -1: it stays in memory.
  [[nodiscard]] std::int32_t streamed_layer(const BoundMatrix& weight) const;
  // Layers in turn, from 0 in every pass, one at a time: until release() its matrices have their data. False: reading failed,
  // stream_error() says why; the pass is void and the next begins with layer 0.
  bool acquire(std::int32_t streamed);
  void release() { stream_->release(); }
  [[nodiscard]] const Error& stream_error() const { return stream_->error(); }

  // The weakest level that a product of these weights keeps.
  [[nodiscard]] kernels::Level level() const { return level_; }
  // A weight of that level, for messages; empty: none.
  [[nodiscard]] const std::string& example_of(kernels::Level level) const { return examples_[static_cast<int>(level)]; }

 private:
  // A run of rows of one stored tensor.
  struct Piece {
    model::WeightPart part;
    DType type = DType::kF32;                    // as stored
    std::int64_t stored_rows = 0, stored_k = 0;  // of the tensor, seen as rows of stored_k
    std::int64_t slice_rows = 0;                 // of them in the piece
    std::int64_t first_row = 0, rows = 0;        // in the weight, of its K
    bool missing = false;                        // zeros
  };
  struct MatrixPlan {
    std::string name;
    std::int32_t layer = -1;
    BoundMatrix bound;
    std::vector<Piece> pieces;
  };
  struct VectorPlan {
    std::string name;
    std::vector<Piece> pieces;
    std::vector<float> values;
  };
  using Key = std::pair<std::string, std::int32_t>;  // name of the value, layer

  Result<std::vector<Piece>> find_pieces(const model::Value& value, std::int32_t layer, std::int64_t rows, std::int64_t k,
                                         const std::string& where) const;
  Result<DType> choose_type(const Piece& piece, std::int64_t k, WeightUse use, const std::string& where) const;
  void note_level(const MatrixPlan& plan);
  // Where packed matrices go: `place` gives room for one whose size is final, `keep` is called when it is packed.
  class Sink;
  class MemorySink;
  class FileSink;
  Status load_matrix(MatrixPlan& plan, ThreadPool& pool, std::vector<std::byte>& staging, Sink& sink);
  Status pack_all(ThreadPool& pool, Sink& sink, Progress* progress);

  // Plans in the order of the file: those of no layer, then layer by layer.
  struct Group {
    std::int32_t layer = -1;
    std::vector<MatrixPlan*> plans;
    std::uint64_t offset = 0, bytes = 0;  // pages of the file
  };
  [[nodiscard]] std::vector<Group> groups();
  // Offsets from the sizes of the parts; returns the file's size.
  std::uint64_t place_groups(std::vector<Group>& groups, std::uint64_t header_bytes) const;
  // How many groups from the first stay in memory under the limit, streamed ones having buffers. kInvalid: not even the first.
  Result<std::size_t> choose_resident(const std::vector<Group>& groups, std::uint64_t most) const;
  [[nodiscard]] std::string cache_key() const;
  WeightHeader describe(const std::vector<Group>& groups, std::string key) const;
  Status take_header(const WeightHeader& header, std::vector<Group>& groups);
  Result<WeightFile> pack_file(ThreadPool& pool, std::vector<Group>& groups, const std::string& key,
                               const std::filesystem::path& folder, const std::filesystem::path& path, Progress* progress);
  Status adopt(std::vector<Group> groups, const WeightStorage& storage, Progress* progress);
  Status load_vector(VectorPlan& plan);

  const ModelFiles& files_;
  const kernels::Backend& backend_;
  WeightOptions options_;
  std::map<Key, MatrixPlan*> matrix_index_;
  std::map<Key, VectorPlan*> vector_index_;
  std::deque<MatrixPlan> matrices_;
  std::deque<VectorPlan> vectors_;
  Arena arena_;
  std::vector<Arena> plain_bf16_;  // matrices that turned out not to fit in 12 bits
  WeightFile file_;
  std::vector<Group> streamed_;
  std::map<const BoundMatrix*, std::int32_t> streamed_index_;
  std::unique_ptr<WeightStream> stream_;  // reads file_: goes first
  std::uint64_t packed_bytes_ = 0;
  std::uint64_t most_packed_bytes_ = 0;  // if no matrix fits in 12 bits
  std::uint64_t streamed_bytes_ = 0;
  bool reused_ = false;
  kernels::Level level_ = kernels::Level::kA;
  std::string examples_[3];
};

}  // namespace rooftree::engine

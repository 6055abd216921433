#pragma once

// The weights of a model in the layout of a backend: planned from the tensors' descriptions, then packed once on load.

#include <cstdint>
#include <deque>
#include <map>
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

  // Packs everything that was asked for.
  Status load(ThreadPool& pool, Progress* progress);

  [[nodiscard]] std::uint64_t packed_bytes() const { return packed_bytes_; }
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
  Status load_matrix(MatrixPlan& plan, ThreadPool& pool, std::vector<std::byte>& staging);
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
  std::uint64_t packed_bytes_ = 0;
  kernels::Level level_ = kernels::Level::kA;
  std::string examples_[3];
};

}  // namespace rooftree::engine

#pragma once

// The operators, executable. A Backend computes each on rows of floats in memory; which one is chosen at run time. All work is
// split between the workers of a region (ThreadPool::run); no function here waits for another worker unless it says so: the
// caller puts a Worker::barrier() between a producer and its consumer.
//
// Backends: `reference` (kernels/reference: plain loops, sums in double, the truth) and `cpu` per instruction set (kernels/cpu:
// the numeric contract of docs/design/006-numeric-contract.md; AVX-512, AVX2, NEON and portable code give equal bits).
//
// Legend: M rows, N outputs, K inputs of a product; a `stride` counts values between the starts of rows.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/dtype.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/score_modifier.h"
#include "model/numerics.h"
#include "model/operator.h"

namespace rooftree::kernels {

// Levels of the numeric contract: A exact integer blocks, B ordered 16-bit operands, C fast with a stated tolerance.
enum class Level : std::uint8_t { kA, kB, kC };
[[nodiscard]] std::string_view name(Level level);  // "A", "B", "C"

// How a product treats its activations; decided by the type of the weights, or kF32 for all (exact activations).
enum class Product : std::uint8_t {
  kBlock32,   // int8 with one float scale per 32 values (level A)
  kBlock256,  // int8 with one float scale per 256 values (level A)
  kBf16,      // rounded to bf16 (level B)
  kF16,       // rounded to f16 (level B)
  kF32,       // as they are (level C)
};
[[nodiscard]] Product product_of(DType weights);
[[nodiscard]] Level level_of(Product product);

struct MatrixRows {
  const float* data = nullptr;
  std::int64_t stride = 0;
};
struct OutputRows {
  float* data = nullptr;
  std::int64_t stride = 0;
};

// A weight matrix (N, K) in the layout of the backend that packed it. Storage belongs to the caller, 64-byte aligned.
struct PackedMatrix {
  DType type = DType::kF32;
  std::int64_t n = 0, k = 0;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

struct PackArgs {
  DType type = DType::kF32;
  std::int64_t n = 0, k = 0;
  const std::byte* rows = nullptr;  // n rows of formats::row_bytes(type, k), any alignment
  std::byte* out = nullptr;         // packed_bytes(type, n, k), 64-byte aligned
};

// Activations of M rows prepared for a product; written by pack_activations, read by multiply. Opaque layout.
struct PackActivationsArgs {
  Product product = Product::kF32;
  MatrixRows x;
  std::int64_t rows = 0, k = 0;
  const std::int32_t* gather = nullptr;  // row i of the packed form is row gather[i] of x; null: row i
  std::byte* out = nullptr;              // activation_bytes(product, rows, k), 64-byte aligned
};

struct MultiplyArgs {
  PackedMatrix weight;
  const std::byte* x = nullptr;  // packed activations of the weight's product
  std::int64_t rows = 0;
  OutputRows y;                 // (rows, n), overwritten
  const float* bias = nullptr;  // (n), added after the product; null: none
};

struct EmbedArgs {
  PackedMatrix table;
  std::span<const std::int32_t> ids;  // each in [0, n)
  OutputRows y;                       // (ids, k)
  float scale = 1.0F;
};

struct NormArgs {
  model::NormKind kind = model::NormKind::kRms;  // kRms or kLayer
  std::int64_t rows = 0, width = 0;
  MatrixRows x;
  MatrixRows delta;                                // null data: none. Else x + delta_scale * delta is normed and stored
  float delta_scale = 1.0F;                        // in `sum`
  OutputRows sum;                                  // may be x itself
  const float *weight = nullptr, *bias = nullptr;  // (width); null: ones, zeros
  float epsilon = 0;
  OutputRows y;
};

struct RopeArgs {
  const model::Rope* rope = nullptr;
  std::int64_t rows = 0, heads = 0, head_dim = 0;
  OutputRows x;                             // (rows, heads * head_dim), in place
  std::span<const std::int32_t> positions;  // (rows)
};

struct ActivationArgs {
  model::Activation activation = model::Activation::kSilu;
  std::int64_t rows = 0, width = 0;
  MatrixRows x;   // the gate, or the only input
  MatrixRows up;  // null data: not gated, y = f(x); else y = f(x) * up
  OutputRows y;   // may be x
};

struct AddArgs {
  std::int64_t rows = 0, width = 0;
  MatrixRows a, b, c;    // c.data null: two inputs. y = (a + b) + c
  MatrixRows gate;       // (rows, 1): b is multiplied by sigmoid(gate) first; null: not
  float b_scale = 1.0F;  // b is multiplied by it first
  OutputRows y;
};

// y = scale x, or c tanh(scale x / c) when softcap c > 0.
struct ScaleArgs {
  std::int64_t rows = 0, width = 0;
  OutputRows x;
  float scale = 1.0F, softcap = 0.0F;
};

struct RouteArgs {
  const model::Routing* routing = nullptr;
  std::int64_t rows = 0, experts = 0, top_k = 0;
  MatrixRows logits;
  const float* selection_bias = nullptr;  // (experts)
  std::int32_t* chosen = nullptr;         // (rows, top_k), best first; ties to the lower expert
  float* weights = nullptr;               // (rows, top_k)
};

// y[i] = sum over j of weights[i][j] * x[where[i][j]], j rising.
struct CombineArgs {
  std::int64_t rows = 0, width = 0, top_k = 0;
  MatrixRows x;  // (rows * top_k, width) sorted by expert
  const std::int32_t* where = nullptr;
  const float* weights = nullptr;
  OutputRows y;
};

// Keys and values of one layer, in pages of `page_tokens` positions (a multiple of 16). The layout inside a page is the
// backend's: keys by 16 positions, values by position, per key-value head.
struct KvShape {
  DType type = DType::kBf16;  // f32, f16, bf16, q8_0, q4_0
  std::int64_t kv_heads = 0, head_dim = 0, value_dim = 0;
  std::int64_t page_tokens = 64;
};
struct KvCache {
  KvShape shape;
  std::byte* base = nullptr;  // page b of this layer starts at base + b * page_stride; zero before its first use
  std::size_t page_stride = 0;
};
// The consecutive new positions of one sequence: rows [first_row, first_row + rows) of the step's activations are its
// positions [past, past + rows).
struct SequenceRows {
  std::int64_t first_row = 0, rows = 0, past = 0;
  const std::int32_t* pages = nullptr;  // block table: position p is in page pages[p / page_tokens]
};

struct KvWriteArgs {
  KvCache cache;
  std::span<const SequenceRows> sequences;
  MatrixRows k, v;  // (rows, kv_heads * head_dim), (rows, kv_heads * value_dim); keys already rotated
};

struct AttentionArgs {
  KvCache cache;
  std::span<const SequenceRows> sequences;
  std::int64_t heads = 0;
  MatrixRows q;  // (rows, heads * head_dim), rotated
  OutputRows y;  // (rows, heads * value_dim)
  float scale = 1.0F;
  bool causal = true;            // false: every row sees positions [0, past + rows)
  std::int64_t window = 0;       // a row sees the last `window` positions up to its own; 0 = all
  const float* sinks = nullptr;  // (heads); null: none
  ScoreModifier modifier;        // soft cap, ALiBi, relative bias, document mask
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;  // "cpu avx512", "reference"

  // Weights. kInvalid: a type or shape that this backend does not multiply, by name.
  [[nodiscard]] virtual Result<std::size_t> packed_bytes(DType type, std::int64_t n, std::int64_t k) const = 0;
  virtual void pack(const Worker& worker, const PackArgs& args) const = 0;  // this worker's share of the rows
  // Row `row` of the matrix as floats, exactly the values that the source dequantises to (bf16 of magnitude below 2^-55: zero,
  // as the contract reads them).
  virtual void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) const = 0;

  // Products.
  [[nodiscard]] virtual std::size_t activation_bytes(Product product, std::int64_t rows, std::int64_t k) const = 0;
  virtual void pack_activations(const Worker& worker, const PackActivationsArgs& args) const = 0;
  virtual void multiply(const Worker& worker, const MultiplyArgs& args) const = 0;  // the worker's share of the outputs
  // Products of several row groups with matrices of one shape (experts), shared between the workers as one piece of work.
  virtual void multiply_grouped(const Worker& worker, std::span<const MultiplyArgs> groups) const = 0;

  virtual void embed(const Worker& worker, const EmbedArgs& args) const = 0;
  virtual void norm(const Worker& worker, const NormArgs& args) const = 0;
  virtual void rope(const Worker& worker, const RopeArgs& args) const = 0;
  virtual void activation(const Worker& worker, const ActivationArgs& args) const = 0;
  virtual void add(const Worker& worker, const AddArgs& args) const = 0;
  virtual void scale(const Worker& worker, const ScaleArgs& args) const = 0;
  virtual void route(const Worker& worker, const RouteArgs& args) const = 0;
  virtual void combine(const Worker& worker, const CombineArgs& args) const = 0;

  [[nodiscard]] virtual std::size_t kv_page_bytes(const KvShape& shape) const = 0;
  virtual void kv_write(const Worker& worker, const KvWriteArgs& args) const = 0;
  virtual void attention(const Worker& worker, const AttentionArgs& args) const = 0;
};

// Whether a matrix of bf16 rows keeps its size advantage and speed as kBf16Lossless12: at most 0.2 % of its values, and 0.5 %
// of any 64 rows, have a sign and exponent outside the 16 that these rows use most. If not, pack the matrix as kBf16 (that type
// is how the fallback is marked); packing it as kBf16Lossless12 all the same is a bug.
[[nodiscard]] bool fits_lossless12(std::int64_t n, std::int64_t k, const std::byte* bf16_rows);

[[nodiscard]] const Backend& reference_backend();
// The widest instruction set that `features` allow.
[[nodiscard]] const Backend& cpu_backend(const CpuFeatures& features);

}  // namespace rooftree::kernels

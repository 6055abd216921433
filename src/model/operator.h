#pragma once

// The operators: one small struct each, and one definition of what each computes and moves. From this definition come shapes,
// FLOPs and bytes (prediction), the reference code (truth) and the kernels (execution).
//
// Legend: M, N, K of a product C(M,N) = A(M,K) B(K,N); B = batch, T = new tokens of a sequence, S = tokens attended to.
// Counts are values, not bytes: the plan decides the type of each role. A multiply-add counts as two FLOP.

#include <array>
#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "base/units.h"

namespace rooftree::model {

// What a value is for; types, memory and traffic are accounted by role.
enum class Role : std::uint8_t { kWeight, kActivation, kKvCache, kGradient, kOptimizerState, kInput, kOutput, kCount };
inline constexpr int kRoleCount = static_cast<int>(Role::kCount);
[[nodiscard]] std::string_view name(Role role);  // "weight", "kv_cache", …

// C(M,N) = A(M,K) B(K,N), `batch` independent products. With `weight`, B is a parameter read once for all M rows (one matrix
// per product of the batch); without, B is an activation (feature interaction), or with `cached` comes from the KV cache
// (unfused attention). The weight-gradient product of the backward pass writes kGradient: dB(K,N) = A^T dC is {m: K, n: N, k:
// M}; with `bias` it also sums dC over its rows.
struct MatMul {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t batch = 1;
  bool weight = true;
  bool bias = false;
  bool writes_gradient = false;
  bool cached = false;
};

// Expert products of a mixture-of-experts layer: tokens * top_k rows spread over `experts` matrices of (K,N). The
// weight-gradient product keeps these dimensions: dB_e(K,N) = A_e^T dC_e for every expert that was hit.
struct GroupedMatMul {
  std::int64_t tokens = 0, n = 0, k = 0;
  std::int64_t experts = 1, top_k = 1;
  bool writes_gradient = false;
  bool bias = false;
};

// softmax(Q K^T) V without materialising the scores. q_tokens new positions per sequence attend to kv_tokens positions
// (past + new). With `cached` K and V come from the KV cache; latent (MLA, absorbed): one shared KV head of head_dim =
// latent + rope, whose first value_dim values serve as V and are read once.
struct Attention {
  std::int64_t batch = 1, q_tokens = 1, kv_tokens = 1;
  std::int64_t heads = 1, kv_heads = 1, head_dim = 64, value_dim = 64;
  std::int64_t window = 0;  // each position attends to the last `window` ones, itself included; 0 = unlimited
  std::int64_t chunk = 0;   // position t attends from the start of its chunk, floor(t/chunk) chunk (Llama 4); 0 = off
  bool causal = true;
  bool cached = true;
  bool latent = false;
  bool backward = false;
};

enum class NormKind : std::uint8_t { kRms, kLayer, kBatch, kGroup };
struct Norm {
  std::int64_t rows = 0, width = 0;
  NormKind kind = NormKind::kRms;
  bool residual = false;  // fused with the residual add before it: also reads and writes the residual stream
  bool backward = false;
};

enum class ElementwiseKind : std::uint8_t {
  kAdd,
  kBias,
  kActivation,
  kGatedActivation,
  kRope,
  kScale,
  kSoftcap,
  kDropout,
  kCopy,
  kRelu
};
struct Elementwise {
  std::int64_t rows = 0, width = 0;  // of the output
  ElementwiseKind kind = ElementwiseKind::kAdd;
  int inputs = 1;  // tensors of (rows, width) read
  bool backward = false;
};

// Row-wise softmax of materialised scores (unfused attention, routers).
struct Softmax {
  std::int64_t rows = 0, width = 0;
  bool backward = false;
};

// Rows of a (vocabulary, width) table.
struct Embedding {
  std::int64_t tokens = 0, width = 0, vocabulary = 0;
  bool backward = false;
};

// Sums of looked-up rows from many tables (recommenders): batch * lookups rows of `width`, pooled per table.
struct EmbeddingBag {
  std::int64_t batch = 0, tables = 0, lookups_per_table = 1, width = 0;
  std::int64_t total_rows = 0;  // over all tables
  bool backward = false;
};

struct Convolution {
  std::int64_t batch = 1, in_channels = 0, out_channels = 0;
  std::int64_t in_height = 0, in_width = 0, out_height = 0, out_width = 0;
  std::int64_t kernel_height = 1, kernel_width = 1, groups = 1;
  bool bias = false;
  bool writes_gradient = false;
  bool transposed = false;  // each input pixel is spread over a kernel of outputs: the input gradient of a convolution
};

struct Pool {
  std::int64_t batch = 1, channels = 0, in_pixels = 0, out_pixels = 0;
  bool backward = false;
};

// New keys and values written to the KV cache: `width` values per token, K and V together. With `rope_query` the kernel also
// rotates the keys and `rope_query` query values per token.
struct CacheWrite {
  std::int64_t tokens = 0, width = 0;
  std::int64_t rope_query = 0;
};

// Expert choice (softmax, top-k) and the permutation of rows to experts and back. With `gathered` the expert products fetch
// their rows themselves, and only the weighted sum of the top_k outputs moves.
struct Route {
  std::int64_t tokens = 0, width = 0, experts = 1, top_k = 1;
  bool gathered = false;
  bool backward = false;
};

struct CrossEntropy {
  std::int64_t tokens = 0, vocabulary = 0;
  bool backward = false;
};

enum class OptimizerKind : std::uint8_t { kSgd, kSgdMomentum, kAdam, kAdam8bit, kAdafactor, kShampoo, kMuon, kCount };
[[nodiscard]] std::string_view name(OptimizerKind kind);  // "sgd", "sgd-momentum", "adam", "adam-8bit", …
// One update of `parameters` parameters held as matrices of about (rows, columns); columns 1 = vectors.
struct OptimizerStep {
  double parameters = 0;
  std::int64_t rows = 0, columns = 0;
  OptimizerKind kind = OptimizerKind::kAdam;
  bool master_copy = true;  // fp32 master weights, part of the state
};

using Operator = std::variant<MatMul, GroupedMatMul, Attention, Norm, Elementwise, Softmax, Embedding, EmbeddingBag,
                              Convolution, Pool, CacheWrite, Route, CrossEntropy, OptimizerStep>;
// Same order as the variant.
enum class OperatorKind : std::uint8_t {
  kMatMul,
  kGroupedMatMul,
  kAttention,
  kNorm,
  kElementwise,
  kSoftmax,
  kEmbedding,
  kEmbeddingBag,
  kConvolution,
  kPool,
  kCacheWrite,
  kRoute,
  kCrossEntropy,
  kOptimizerStep,
  kCount,
};
[[nodiscard]] inline OperatorKind kind(const Operator& op) { return static_cast<OperatorKind>(op.index()); }
[[nodiscard]] std::string_view name(OperatorKind kind);  // "matmul", "grouped_matmul", "attention", …

// What one execution of an operator does, before any plan: arithmetic, and values touched once each.
struct Work {
  Flop product;                              // matrix products: runs at the product rate of the operands' type
  Flop vector;                               // element-wise arithmetic on the general ALUs, in fp32
  double exponentials = 0;                   // exp/tanh/… evaluations: their own units on most chips
  std::array<double, kRoleCount> read{};     // values read, by role
  std::array<double, kRoleCount> written{};  // values written, by role
};
[[nodiscard]] Work work(const Operator& op);

// The operators that compute the gradients of `op` (input gradient first, then weight gradient where it has weights). One
// operator may compute several gradients. An addition's backward adds the gradients of the two branches where its input forked.
// Cache writes, optimizer steps and operators that are themselves backward have none.
[[nodiscard]] std::vector<Operator> backward(const Operator& op);

// The same without allocating: at most two operators.
struct BackwardOperators {
  std::array<Operator, 2> operators;
  int count = 0;
};
[[nodiscard]] BackwardOperators backward_operators(const Operator& op);

// Expected number of distinct experts that `tokens` tokens touch, each choosing top_k of `experts` uniformly:
// experts * (1 - (1 - top_k/experts)^tokens).
[[nodiscard]] double expected_experts_hit(double tokens, double experts, double top_k);

// Query-key pairs that a (possibly causal, windowed, chunked) attention evaluates per head and sequence.
[[nodiscard]] double attended_pairs(const Attention& a);

// Distinct key positions that the attention reads per sequence.
[[nodiscard]] double attended_positions(const Attention& a);

// Optimizer state that persists between steps, in bytes per parameter, besides the weights themselves: fp32 master copy (if
// `master_copy`) and moments; second-order kinds depend on the matrix shape. Sources stand in operator.cc. Traffic of the state
// is counted in 4-byte values (Work), whatever the kind packs into them.
[[nodiscard]] double optimizer_state_bytes_per_parameter(const OptimizerStep& step, bool master_copy);

}  // namespace rooftree::model

#pragma once

// The operator graph of one phase: blocks of operators with a repeat count (a decoder layer is one block, never copies) over
// typed, shaped values that have a role.

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "model/operator.h"

namespace rooftree::model {

struct ValueTag {};
using ValueId = Id<ValueTag>;

// Shape of a value; extents[0] is the slowest dimension.
struct Shape {
  std::vector<std::int64_t> extents;
  [[nodiscard]] double count() const {
    double n = 1;
    for (const std::int64_t e : extents) n *= static_cast<double>(e);
    return n;
  }
};

struct Value {
  std::string name;  // "attention.q_proj.weight", "hidden", …
  Shape shape;
  Role role = Role::kActivation;
  int block = -1;      // the block whose instances each own one; -1 = one for the whole graph (embeddings, shared weights)
  bool saved = false;  // training: kept from the forward pass until its backward pass; with full recomputation a repeated
                       // block keeps its input alone, and the others are what one instance brings back
  bool table = false;  // a weight whose rows stand for vocabulary entries or positions: embeddings and the head
};

// Backward nodes list what their forward node read and the weight gradients that they write; the activation gradients mirror
// the forward activations and are not listed.
enum class Pass : std::uint8_t { kForward, kRecompute, kBackward, kOptimizer };
[[nodiscard]] std::string_view name(Pass pass);

// Inputs and outputs are positional, and absent ones are invalid or left out at the end. Rows are tokens; a value of shape
// (rows
// * c, …) or an operator with `rows` = c rows has c per token. What each operator of an executable graph reads and writes
// (constants: Model::numerics()):
//
// Embedding      {ids, table} -> {y}; ids are the graph inputs "tokens", "positions" (0, 1, … of the sequence) or "types" (0).
// Norm           {x, weight, bias} -> {y}; residual: {stream, pending, weight, bias} -> {y, stream + pending}. A pending that
//                nobody wrote (the first layer) is zero. It norms the first `width` values of every x.width / c values; what
//                lies behind them goes to y unchanged (MLA's rotated key beside the latent).
// MatMul         {x, weight (n, k), bias (n)} -> outputs are consecutive column slices of the product. With batch = b > 1: {x,
//                weight (b, n, k)} -> {y}: x and y are split into b equal parts per row; product i takes the first k values of
//                part i and writes the first n of part i; what lies behind them in x goes behind them in y (MLA's rotated
//                queries).
// GroupedMatMul  "experts_up" {x, weight (experts, n, k), bias (experts, n), chosen} -> {y}: top_k rows per token, sorted by
//                expert, then by token. "experts_down" {x sorted, weight, bias, chosen, weights} -> {y sorted, sum}: sum of a
//                token's rows, each times its weight, in the order of choice.
// Route          {logits, x, selection bias (experts)} -> {chosen (top_k), weights (top_k)}; Numerics::routing.
// Elementwise    kGatedActivation {gate, up} -> {f(gate) * up}; {gate_up} with inputs = 2: the row's two halves. kActivation,
//                kRelu {x} -> {f(x)}. kAdd {a, b} or (inputs = 3) {a, b, c} -> {a + b + c}; inputs = 2 with a third value (one
//                per row): {a + sigmoid(third) * b}. kScale {x} -> {embedding_scale * x}. kSoftcap {x} -> {x}: logit_softcap.
// CacheWrite     {q, k, v} -> {k_cache, v_cache}: rotates q and k in place where Rope::dims > 0 (q has any number of heads of
// k's
//                size: both rotate [offset, offset + dims) of each head), then appends k and v. Latent: v is absent, and its
//                cache with it.
// Attention      {q, k_cache, v_cache, sinks (heads)} -> {y}. Latent: v absent; values are the first value_dim of the one key.
// The engine runs the graph of Phase::decode(1, context) with Fusion::kStandard for any number of rows per sequence; the head
// block on those rows whose logits are asked for.
struct Node {
  Operator op;
  std::string name;  // "q_proj", "attention", "up_gate"
  Pass pass = Pass::kForward;
  std::vector<ValueId> inputs, outputs;
};

// `input` and `output` carry the residual stream: an instance takes the output of the one before it, the first instance that of
// the block before. Instances run in the order of their layers: layers of different kinds are different blocks, and their
// instances interleave. Where the residual add runs in the norm behind it, the stream travels in two parts whose sum it is:
// `stream` and a `pending` difference, which the first norm of the next instance (in the end that of the head) adds. A block
// without nodes holds the weights of a part that this phase does not run.
struct Block {
  std::string name;  // "embedding", "layer", "head"
  std::int64_t repeat = 1;
  std::vector<std::int32_t> layers;  // (repeat): which layers of the model its instances are, rising; empty outside layers
  bool local = false;                // windowed or chunked attention: Numerics::local, else Numerics::global
  std::vector<Node> nodes;
  ValueId input, output;                  // the stream, or its first part
  ValueId pending_input, pending_output;  // its second part; invalid: none
};

// Totals that memory accounting needs, in values; filled by the builder from the values of the graph.
struct Footprint {
  double weights = 0;            // all parameters, shared ones once
  double weights_touched = 0;    // parameters that one pass reads (experts not hit and unread embedding rows left out)
  double kv_cache = 0;           // at the end of the phase, all sequences, all layers
  double activations_live = 0;   // largest set alive at one instant of a forward pass; with full recomputation also what
                                 // one block brings back for its backward pass
  double activations_saved = 0;  // training: kept for the backward pass, after recomputation
  double logits = 0;
  double gradients = 0;              // training: one per parameter
  double optimizer_state_bytes = 0;  // in bytes, since the kinds mix types
};

struct Graph {
  std::string name;
  std::vector<Value> values;
  std::vector<Block> blocks;
  Footprint footprint;
  std::int64_t sequences = 1;         // batch
  std::int64_t tokens_processed = 0;  // new tokens over all sequences: what tokens/s counts; samples for models without tokens
  std::uint64_t structure =
      0;  // what the builder last wrote here: equal structure = only dimensions differ; set by the builder

  ValueId add_value(Value value);
  [[nodiscard]] const Value& operator[](ValueId id) const { return values[id.index]; }
};

// Parameters computed from the weight values of the graph (block weights times repeat).
[[nodiscard]] double parameter_count(const Graph& graph);

}  // namespace rooftree::model

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

struct Node {
  Operator op;
  std::string name;  // "q_proj", "attention", "up_gate"
  Pass pass = Pass::kForward;
  std::vector<ValueId> inputs, outputs;
};

// `input` and `output` carry the residual stream: an instance takes the output of the one before it, the first instance that of
// the block before. Where the residual add runs in the norm behind it, the stream travels in two parts whose sum it is:
// `stream` and a `pending` difference, which the first norm of the next instance adds. A block without nodes holds the weights
// of a part that this phase does not run.
struct Block {
  std::string name;  // "embedding", "layer", "head"
  std::int64_t repeat = 1;
  std::vector<std::int32_t> layers;  // (repeat): which layers of the model its instances are, rising; empty outside layers
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

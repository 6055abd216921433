#pragma once

// Pieces that transformers share: attention, feed-forward, mixture of experts, vision towers. Each writes the nodes of one
// sub-layer into the current block and returns the value that leaves it.

#include "model/architecture.h"

namespace rooftree::model {

// The rows that a sub-layer works on.
struct Rows {
  std::int64_t batch = 1, q = 1, kv = 1;  // sequences, new positions, positions attended to
  bool cached = false;                    // keys and values live in the KV cache
  bool causal = true;
  [[nodiscard]] std::int64_t count() const { return batch * q; }
};

struct FusionLevel {
  bool merged_products;   // q, k, v in one product, gate and up in one
  bool flash;             // attention without materialised scores
  bool residual_in_norm;  // the residual add runs in the norm behind it
  bool epilogues;         // element-wise work runs in products
};
FusionLevel fusion_level(Fusion fusion);

// Self-attention: x (rows, hidden) -> (rows, hidden).
ValueId write_attention(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, const Rows& rows, ValueId x, bool dropout);

// Cross-attention to `rows.kv` source positions per sequence. Without `compute_source` the keys and values are already in the
// cache.
struct CrossSource {
  ValueId states;           // (batch * kv, source_hidden); invalid when they are in the cache already
  std::int64_t hidden = 0;  // width of the source states
  bool compute = true;      // project them now
};
ValueId write_cross_attention(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, const Rows& rows, ValueId x,
                              const CrossSource& source, bool dropout);

ValueId write_feed_forward(GraphWriter& w, const FeedForwardSpec& f, std::int64_t hidden, std::int64_t rows, ValueId x);
ValueId write_moe(GraphWriter& w, const MoeSpec& m, std::int64_t hidden, std::int64_t rows, ValueId x);

// x, or with a residual to add (both valid): the norm of residual + delta. Returns the normed value and the stream behind the
// add.
struct Normed {
  ValueId out, stream;
};
Normed write_norm(GraphWriter& w, std::string_view name, NormKind kind, std::int64_t rows, std::int64_t width, ValueId stream,
                  ValueId delta);
// residual + delta as a kernel of its own, with dropout of delta when training asks for it.
ValueId write_residual(GraphWriter& w, std::string_view name, std::int64_t rows, std::int64_t width, ValueId stream,
                       ValueId delta, bool dropout);

// Whether this pass applies dropout.
bool applies_dropout(const GraphWriter& w, bool dropout);

// The tower over `images` pictures in all; inactive when this phase has none. Returns the states behind the projector.
ValueId write_vision_tower(GraphWriter& w, const VisionTower& tower, std::int64_t images, bool active);

}  // namespace rooftree::model

#include "model/transformer.h"

#include <algorithm>

namespace rooftree::model {

FusionLevel fusion_level(Fusion fusion) {
  const bool engine = fusion == Fusion::kStandard || fusion == Fusion::kIdeal || fusion == Fusion::kUnfusedAttention;
  return {.merged_products = engine,
          .flash = fusion != Fusion::kEager && fusion != Fusion::kUnfusedAttention,
          .residual_in_norm = engine,
          .epilogues = fusion == Fusion::kIdeal};
}

bool applies_dropout(const GraphWriter& w, bool dropout) { return dropout && w.training(); }

namespace {

// Positions whose keys and values a layer keeps: no more than its window or chunk.
std::int64_t kept_positions(const AttentionSpec& a, std::int64_t kv) {
  if (a.window > 0) kv = std::min(kv, a.window);
  if (a.chunk > 0) kv = std::min(kv, a.chunk);
  return kv;
}

ValueId weight_if(GraphWriter& w, bool present, Name name, std::int64_t width) {
  return present ? w.weight(name, {width}) : ValueId{};
}

struct Projected {
  ValueId q, k, v;
};

Projected write_qkv(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, std::int64_t rows, ValueId x) {
  const std::int64_t q_width = a.heads * a.head_dim;
  const std::int64_t k_width = a.kv_heads * a.head_dim;
  const std::int64_t v_width = a.kv_heads * a.value_dim;
  const Projected out{w.value("q", {rows, q_width}), w.value("k", {rows, k_width}), w.value("v", {rows, v_width})};
  if (fusion_level(w.fusion()).merged_products) {
    const bool bias = a.q_bias || a.k_bias || a.v_bias;
    const std::int64_t bias_width = (a.q_bias ? q_width : 0) + (a.k_bias ? k_width : 0) + (a.v_bias ? v_width : 0);
    const std::int64_t width = q_width + k_width + v_width;
    const ValueId weight = w.weight("attention.qkv.weight", {width, hidden});
    const ValueId b = weight_if(w, bias, "attention.qkv.bias", bias_width);
    w.node("qkv_proj", MatMul{.m = rows, .n = width, .k = hidden, .bias = bias}, {x, weight, b}, {out.q, out.k, out.v});
    return out;
  }
  const ValueId q_weight = w.weight("attention.q.weight", {q_width, hidden});
  const ValueId q_bias = weight_if(w, a.q_bias, "attention.q.bias", q_width);
  w.node("q_proj", MatMul{.m = rows, .n = q_width, .k = hidden, .bias = a.q_bias}, {x, q_weight, q_bias}, {out.q});
  const ValueId k_weight = w.weight("attention.k.weight", {k_width, hidden});
  const ValueId k_bias = weight_if(w, a.k_bias, "attention.k.bias", k_width);
  w.node("k_proj", MatMul{.m = rows, .n = k_width, .k = hidden, .bias = a.k_bias}, {x, k_weight, k_bias}, {out.k});
  const ValueId v_weight = w.weight("attention.v.weight", {v_width, hidden});
  const ValueId v_bias = weight_if(w, a.v_bias, "attention.v.bias", v_width);
  w.node("v_proj", MatMul{.m = rows, .n = v_width, .k = hidden, .bias = a.v_bias}, {x, v_weight, v_bias}, {out.v});
  return out;
}

// Scores, softmax and the sum over values as separate kernels on materialised scores; the mask is computed over, not skipped.
// A key-value head serves heads / kv_heads query heads, which form the rows of its product.
ValueId write_unfused_core(GraphWriter& w, const AttentionSpec& a, const Rows& rows, ValueId q, ValueId k, ValueId v,
                           ValueId out, bool dropout) {
  const std::int64_t shared = rows.q * (a.heads / a.kv_heads);
  const std::int64_t products = rows.batch * a.kv_heads;
  const std::int64_t score_rows = rows.batch * a.heads * rows.q;
  w.set_core(true);
  ValueId scores = w.value("scores", {score_rows, rows.kv});
  w.node("scores",
         MatMul{.m = shared, .n = rows.kv, .k = a.head_dim, .batch = products, .weight = false, .cached = rows.cached}, {q, k},
         {scores});
  if (a.softcap) {
    const ValueId capped = w.value("capped_scores", {score_rows, rows.kv});
    w.node("softcap", Elementwise{.rows = score_rows, .width = rows.kv, .kind = ElementwiseKind::kSoftcap}, {scores}, {capped});
    scores = capped;
  }
  const ValueId masked = w.value("masked_scores", {score_rows, rows.kv});
  w.node("scale_mask", Elementwise{.rows = score_rows, .width = rows.kv, .kind = ElementwiseKind::kScale}, {scores}, {masked});
  ValueId probabilities = w.value("probabilities", {score_rows, rows.kv});
  w.node("softmax", Softmax{.rows = score_rows, .width = rows.kv}, {masked}, {probabilities});
  if (applies_dropout(w, dropout)) {
    const ValueId dropped = w.value("dropped_probabilities", {score_rows, rows.kv});
    // A byte per value beside 16-bit activations: half a value.
    const ValueId mask = w.value("probability_mask", {(score_rows + 1) / 2, rows.kv});
    w.node("attention_dropout", Elementwise{.rows = score_rows, .width = rows.kv, .kind = ElementwiseKind::kDropout},
           {probabilities}, {dropped, mask});
    probabilities = dropped;
  }
  w.node("weighted_values",
         MatMul{.m = shared, .n = a.value_dim, .k = rows.kv, .batch = products, .weight = false, .cached = rows.cached},
         {probabilities, v}, {out});
  w.set_core(false);
  return out;
}

ValueId write_core(GraphWriter& w, const AttentionSpec& a, const Rows& rows, ValueId q, ValueId k, ValueId v, bool dropout) {
  const ValueId out = w.value("attended", {rows.count(), a.heads * a.value_dim});
  const ValueId sinks = weight_if(w, a.sinks, "attention.sinks", a.heads);
  if (!fusion_level(w.fusion()).flash) return write_unfused_core(w, a, rows, q, k, v, out, dropout);
  w.node("attention",
         Attention{.batch = rows.batch,
                   .q_tokens = rows.q,
                   .kv_tokens = rows.kv,
                   .heads = a.heads,
                   .kv_heads = a.kv_heads,
                   .head_dim = a.head_dim,
                   .value_dim = a.value_dim,
                   .window = a.window,
                   .chunk = a.chunk,
                   .causal = rows.causal,
                   .cached = rows.cached},
         {q, k, v, sinks}, {out});
  return out;
}

ValueId write_output(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, std::int64_t rows, ValueId attended) {
  const std::int64_t width = a.heads * a.value_dim;
  const ValueId weight = w.weight("attention.output.weight", {hidden, width});
  const ValueId bias = weight_if(w, a.o_bias, "attention.output.bias", hidden);
  const ValueId out = w.value("attention_out", {rows, hidden});
  w.node("o_proj", MatMul{.m = rows, .n = hidden, .k = width, .bias = a.o_bias}, {attended, weight, bias}, {out});
  return out;
}

void write_rope(GraphWriter& w, std::int64_t rows, std::int64_t width, std::int64_t key_width, ValueId& q, ValueId& k) {
  if (fusion_level(w.fusion()).epilogues) return;
  const std::int64_t q_width = width - key_width;
  const auto rotate = [&](Name name, std::int64_t columns, std::initializer_list<ValueId> in,
                          std::initializer_list<ValueId> out) {
    w.node(name, Elementwise{.rows = rows, .width = columns, .kind = ElementwiseKind::kRope}, in, out);
  };
  const ValueId rotated_q = w.value("rotated_q", {rows, q_width});
  const ValueId rotated_k = w.value("rotated_k", {rows, key_width});
  if (fusion_level(w.fusion()).merged_products) {
    rotate("rope", width, {q, k}, {rotated_q, rotated_k});
  } else {
    rotate("rope_q", q_width, {q}, {rotated_q});
    rotate("rope_k", key_width, {k}, {rotated_k});
  }
  q = rotated_q;
  k = rotated_k;
}

void write_cache(GraphWriter& w, std::int64_t rows, std::int64_t width, std::int64_t rope_query,
                 std::initializer_list<ValueId> in, std::initializer_list<ValueId> out) {
  w.node("cache_write", CacheWrite{.tokens = rows, .width = width, .rope_query = rope_query}, in, out);
}

// DeepSeek's multi-head latent attention (arXiv:2405.04434). The cache holds one latent vector and one rotated key per
// position. Several new positions: keys and values are expanded from the latents, of cached positions too. One new position (or
// a sparse selection): the expansion is folded into the queries and the outputs, and attention runs on the latents themselves.
ValueId write_latent_attention(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, const Rows& rows, ValueId x) {
  const FusionLevel level = fusion_level(w.fusion());
  const std::int64_t n = rows.count();
  const std::int64_t q_width = a.heads * a.head_dim;
  const std::int64_t latent_width = a.kv_rank + a.rope_dim;

  ValueId q_source = x;
  const ValueId latent = w.value("latent", {n, latent_width});
  if (a.q_rank > 0) {
    const ValueId compressed = w.value("compressed_q", {n, a.q_rank});
    if (level.merged_products) {
      const ValueId weight = w.weight("attention.qkv_a.weight", {a.q_rank + latent_width, hidden});
      w.node("qkv_a_proj", MatMul{.m = n, .n = a.q_rank + latent_width, .k = hidden}, {x, weight}, {compressed, latent});
    } else {
      const ValueId q_a = w.weight("attention.q_a.weight", {a.q_rank, hidden});
      w.node("q_a_proj", MatMul{.m = n, .n = a.q_rank, .k = hidden}, {x, q_a}, {compressed});
      const ValueId kv_a = w.weight("attention.kv_a.weight", {latent_width, hidden});
      w.node("kv_a_proj", MatMul{.m = n, .n = latent_width, .k = hidden}, {x, kv_a}, {latent});
    }
    const ValueId norm = w.weight("attention.q_a_norm.weight", {a.q_rank});
    q_source = w.value("normed_q", {n, a.q_rank});
    w.node("q_a_norm", Norm{.rows = n, .width = a.q_rank}, {compressed, norm}, {q_source});
  } else {
    const ValueId kv_a = w.weight("attention.kv_a.weight", {latent_width, hidden});
    w.node("kv_a_proj", MatMul{.m = n, .n = latent_width, .k = hidden}, {x, kv_a}, {latent});
  }
  ValueId q = w.value("q", {n, q_width});
  const std::int64_t q_in = a.q_rank > 0 ? a.q_rank : hidden;
  const ValueId q_weight = w.weight(a.q_rank > 0 ? "attention.q_b.weight" : "attention.q.weight", {q_width, q_in});
  w.node(a.q_rank > 0 ? "q_b_proj" : "q_proj", MatMul{.m = n, .n = q_width, .k = q_in}, {q_source, q_weight}, {q});
  const ValueId latent_norm = w.weight("attention.kv_a_norm.weight", {a.kv_rank});
  ValueId keys = w.value("normed_latent", {n, latent_width});
  w.node("kv_a_norm", Norm{.rows = n, .width = a.kv_rank}, {latent, latent_norm}, {keys});

  std::int64_t attended = rows.kv;
  if (a.index_top_k > 0) {
    // The indexer scores every position with small heads and keeps the best index_top_k.
    const std::int64_t index_width = a.index_heads * a.index_dim;
    const ValueId wq = w.weight("indexer.q.weight", {index_width, q_in});
    const ValueId index_q = w.value("index_q", {n, index_width});
    w.node("index_q_proj", MatMul{.m = n, .n = index_width, .k = q_in}, {q_source, wq}, {index_q});
    const ValueId wk = w.weight("indexer.k.weight", {a.index_dim + a.index_heads, hidden});
    const ValueId index_k = w.value("index_k", {n, a.index_dim + a.index_heads});
    w.node("index_k_proj", MatMul{.m = n, .n = a.index_dim + a.index_heads, .k = hidden}, {x, wk}, {index_k});
    ValueId index_keys = index_k;
    if (rows.cached) {
      index_keys = w.value("index_cache", {rows.batch, rows.kv, a.index_dim}, Role::kKvCache);
      w.node("index_cache_write", CacheWrite{.tokens = n, .width = a.index_dim}, {index_k}, {index_keys});
    }
    const ValueId scores = w.value("index_scores", {n, rows.kv});
    w.node("index_scores",
           MatMul{.m = rows.q * a.index_heads,
                  .n = rows.kv,
                  .k = a.index_dim,
                  .batch = rows.batch,
                  .weight = false,
                  .cached = rows.cached},
           {index_q, index_keys}, {scores});
    const ValueId picked = w.value("index_picked", {n, std::min(a.index_top_k, rows.kv)});
    w.node("index_top_k", Softmax{.rows = n, .width = rows.kv}, {scores}, {picked});
    attended = std::min(attended, a.index_top_k);
  }

  const std::int64_t rope_width = (a.heads + 1) * a.rope_dim;
  const bool absorbed = rows.cached && (w.phase().kind == Phase::Kind::kDecode || a.index_top_k > 0);
  ValueId queries = q;
  ValueId v_up;
  if (absorbed) {
    // The halves of the matrix that expands latents, one product per head: to queries on latents, from latents to values.
    const ValueId k_up = w.weight("attention.k_b.weight", {a.heads, a.kv_rank, a.nope_dim});
    v_up = w.weight("attention.v_b.weight", {a.heads, a.value_dim, a.kv_rank});
    queries = w.value("q_latent", {n, a.heads * latent_width});
    w.node("q_absorb", MatMul{.m = n, .n = a.kv_rank, .k = a.nope_dim, .batch = a.heads}, {q, k_up}, {queries});
  }
  ValueId cache = keys;
  if (rows.cached) {
    cache = w.value("latent_cache", {rows.batch, rows.kv, latent_width}, Role::kKvCache);
    std::int64_t in_kernel = 0;
    if (level.merged_products) {
      in_kernel = level.epilogues ? 0 : a.heads * a.rope_dim;
    } else {
      write_rope(w, n, rope_width, a.rope_dim, queries, keys);
    }
    write_cache(w, n, latent_width, in_kernel, {queries, keys}, {cache});
  } else {
    write_rope(w, n, rope_width, a.rope_dim, queries, keys);
  }

  if (!absorbed) {
    // One matrix expands latents to keys and values: (heads (nope + value), kv_rank).
    const std::int64_t expanded = a.heads * (a.nope_dim + a.value_dim);
    const ValueId kv_b = w.weight("attention.kv_b.weight", {expanded, a.kv_rank});
    const std::int64_t all = rows.batch * rows.kv;
    const ValueId k = w.value("k", {all, a.heads * a.head_dim});
    const ValueId v = w.value("v", {all, a.heads * a.value_dim});
    w.node("kv_b_proj", MatMul{.m = all, .n = expanded, .k = a.kv_rank}, {cache, kv_b}, {k, v});
    AttentionSpec plain = a;
    plain.kv_heads = a.heads;
    Rows expanded_rows = rows;
    expanded_rows.cached = false;
    const ValueId out = write_core(w, plain, expanded_rows, queries, k, v, false);
    return write_output(w, a, hidden, n, out);
  }
  const ValueId mixed = w.value("mixed_latent", {n, a.heads * a.kv_rank});
  const bool selected = attended < rows.kv;
  w.node("attention",
         Attention{.batch = rows.batch,
                   .q_tokens = rows.q,
                   .kv_tokens = selected && rows.q == 1 ? attended : rows.kv,
                   .heads = a.heads,
                   .kv_heads = 1,
                   .head_dim = latent_width,
                   .value_dim = a.kv_rank,
                   .window = selected && rows.q > 1 ? attended : 0,
                   .causal = rows.causal,
                   .cached = true,
                   .latent = true},
         {queries, cache}, {mixed});
  const ValueId out = w.value("attended", {n, a.heads * a.value_dim});
  w.node("v_absorb", MatMul{.m = n, .n = a.value_dim, .k = a.kv_rank, .batch = a.heads}, {mixed, v_up}, {out});
  return write_output(w, a, hidden, n, out);
}

}  // namespace

ValueId write_attention(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, const Rows& rows, ValueId x,
                        bool dropout) {
  if (a.latent()) return write_latent_attention(w, a, hidden, rows, x);
  const FusionLevel level = fusion_level(w.fusion());
  const std::int64_t n = rows.count();
  auto [q, k, v] = write_qkv(w, a, hidden, n, x);
  if (a.qk_norm) {
    const ValueId q_norm = w.weight("attention.q_norm.weight", {a.head_dim});
    const ValueId k_norm = w.weight("attention.k_norm.weight", {a.head_dim});
    const ValueId normed_q = w.value("normed_q", {n, a.heads * a.head_dim});
    const ValueId normed_k = w.value("normed_k", {n, a.kv_heads * a.head_dim});
    w.node("q_norm", Norm{.rows = n * a.heads, .width = a.head_dim}, {q, q_norm}, {normed_q});
    w.node("k_norm", Norm{.rows = n * a.kv_heads, .width = a.head_dim}, {k, k_norm}, {normed_k});
    q = normed_q;
    k = normed_k;
  }
  const bool rope_with_cache = rows.cached && level.merged_products;
  if (a.rotary_dim > 0 && !rope_with_cache) {
    write_rope(w, n, (a.heads + a.kv_heads) * a.rotary_dim, a.kv_heads * a.rotary_dim, q, k);
  }
  if (rows.cached) {
    const std::int64_t kept = kept_positions(a, rows.kv);
    const ValueId k_cache = w.value("k_cache", {rows.batch, kept, a.kv_heads * a.head_dim}, Role::kKvCache);
    const ValueId v_cache = w.value("v_cache", {rows.batch, kept, a.kv_heads * a.value_dim}, Role::kKvCache);
    const std::int64_t in_kernel = rope_with_cache && !level.epilogues ? a.heads * a.rotary_dim : 0;
    write_cache(w, n, a.kv_heads * (a.head_dim + a.value_dim), in_kernel, {q, k, v}, {k_cache, v_cache});
    k = k_cache;
    v = v_cache;
  }
  return write_output(w, a, hidden, n, write_core(w, a, rows, q, k, v, dropout));
}

ValueId write_cross_attention(GraphWriter& w, const AttentionSpec& a, std::int64_t hidden, const Rows& rows, ValueId x,
                              const CrossSource& source, bool dropout) {
  const std::int64_t n = rows.count();
  const std::int64_t q_width = a.heads * a.head_dim;
  const std::int64_t kv_width = a.kv_heads * (a.head_dim + a.value_dim);
  const ValueId q_weight = w.weight("attention.q.weight", {q_width, hidden});
  const ValueId q_bias = weight_if(w, a.q_bias, "attention.q.bias", q_width);
  ValueId q = w.value("q", {n, q_width});
  w.node("q_proj", MatMul{.m = n, .n = q_width, .k = hidden, .bias = a.q_bias}, {x, q_weight, q_bias}, {q});
  if (a.qk_norm) {
    const ValueId norm = w.weight("attention.q_norm.weight", {a.head_dim});
    const ValueId normed = w.value("normed_q", {n, q_width});
    w.node("q_norm", Norm{.rows = n * a.heads, .width = a.head_dim}, {q, norm}, {normed});
    q = normed;
  }
  const bool kv_bias = a.k_bias || a.v_bias;
  const std::int64_t bias_width = (a.k_bias ? a.kv_heads * a.head_dim : 0) + (a.v_bias ? a.kv_heads * a.value_dim : 0);
  const double touched = source.compute ? -1 : 0;
  const ValueId kv_weight = w.weight("attention.kv.weight", {kv_width, source.hidden}, touched);
  const ValueId kv_b = kv_bias ? w.weight("attention.kv.bias", {bias_width}, touched) : ValueId{};
  const ValueId k_norm = a.qk_norm ? w.weight("attention.k_norm.weight", {a.head_dim}, touched) : ValueId{};
  const std::int64_t source_rows = rows.batch * rows.kv;
  ValueId k, v;
  if (source.compute) {
    k = w.value("k", {source_rows, a.kv_heads * a.head_dim});
    v = w.value("v", {source_rows, a.kv_heads * a.value_dim});
    w.node("kv_proj", MatMul{.m = source_rows, .n = kv_width, .k = source.hidden, .bias = kv_bias},
           {source.states, kv_weight, kv_b}, {k, v});
    if (a.qk_norm) {
      const ValueId normed = w.value("normed_k", {source_rows, a.kv_heads * a.head_dim});
      w.node("k_norm", Norm{.rows = source_rows * a.kv_heads, .width = a.head_dim}, {k, k_norm}, {normed});
      k = normed;
    }
  }
  if (rows.cached) {
    const ValueId k_cache = w.value("k_cache", {rows.batch, rows.kv, a.kv_heads * a.head_dim}, Role::kKvCache);
    const ValueId v_cache = w.value("v_cache", {rows.batch, rows.kv, a.kv_heads * a.value_dim}, Role::kKvCache);
    if (source.compute) write_cache(w, source_rows, kv_width, 0, {k, v}, {k_cache, v_cache});
    k = k_cache;
    v = v_cache;
  }
  return write_output(w, a, hidden, n, write_core(w, a, rows, q, k, v, dropout));
}

ValueId write_feed_forward(GraphWriter& w, const FeedForwardSpec& f, std::int64_t hidden, std::int64_t rows, ValueId x) {
  const FusionLevel level = fusion_level(w.fusion());
  ValueId inner = w.value("inner", {rows, f.width});
  if (f.gated) {
    const ValueId gate = w.value("gate", {rows, f.width});
    const ValueId up = w.value("up", {rows, f.width});
    if (level.merged_products) {
      const ValueId weight = w.weight("feed_forward.gate_up.weight", {2 * f.width, hidden});
      const ValueId bias = weight_if(w, f.bias, "feed_forward.gate_up.bias", 2 * f.width);
      w.node("gate_up_proj", MatMul{.m = rows, .n = 2 * f.width, .k = hidden, .bias = f.bias}, {x, weight, bias}, {gate, up});
    } else {
      const ValueId gate_weight = w.weight("feed_forward.gate.weight", {f.width, hidden});
      const ValueId gate_bias = weight_if(w, f.bias, "feed_forward.gate.bias", f.width);
      w.node("gate_proj", MatMul{.m = rows, .n = f.width, .k = hidden, .bias = f.bias}, {x, gate_weight, gate_bias}, {gate});
      const ValueId up_weight = w.weight("feed_forward.up.weight", {f.width, hidden});
      const ValueId up_bias = weight_if(w, f.bias, "feed_forward.up.bias", f.width);
      w.node("up_proj", MatMul{.m = rows, .n = f.width, .k = hidden, .bias = f.bias}, {x, up_weight, up_bias}, {up});
    }
    if (!level.epilogues) {
      w.node("activation", Elementwise{.rows = rows, .width = f.width, .kind = ElementwiseKind::kGatedActivation, .inputs = 2},
             {gate, up}, {inner});
    }
  } else {
    const ValueId weight = w.weight("feed_forward.up.weight", {f.width, hidden});
    const ValueId bias = weight_if(w, f.bias, "feed_forward.up.bias", f.width);
    const ValueId up = w.value("up", {rows, f.width});
    w.node("up_proj", MatMul{.m = rows, .n = f.width, .k = hidden, .bias = f.bias}, {x, weight, bias}, {up});
    if (!level.epilogues) {
      w.node(
          "activation",
          Elementwise{.rows = rows, .width = f.width, .kind = f.relu ? ElementwiseKind::kRelu : ElementwiseKind::kActivation},
          {up}, {inner});
    }
  }
  const ValueId down = w.weight("feed_forward.down.weight", {hidden, f.width});
  const ValueId down_bias = weight_if(w, f.bias, "feed_forward.down.bias", hidden);
  const ValueId out = w.value("feed_forward_out", {rows, hidden});
  w.node("down_proj", MatMul{.m = rows, .n = hidden, .k = f.width, .bias = f.bias}, {inner, down, down_bias}, {out});
  return out;
}

ValueId write_moe(GraphWriter& w, const MoeSpec& m, std::int64_t hidden, std::int64_t rows, ValueId x) {
  const FusionLevel level = fusion_level(w.fusion());
  const auto hit = [&](std::int64_t values) {
    return expected_experts_hit(static_cast<double>(rows), static_cast<double>(m.experts), static_cast<double>(m.top_k)) *
           static_cast<double>(values);
  };
  const std::int64_t spread = rows * m.top_k;
  const ValueId router = w.weight("router.weight", {m.experts, hidden});
  const ValueId router_bias = weight_if(w, m.router_bias, "router.bias", m.experts);
  const ValueId selection_bias = weight_if(w, m.selection_bias, "router.selection_bias", m.experts);
  const ValueId scores = w.value("router_scores", {rows, m.experts});
  w.node("router", MatMul{.m = rows, .n = m.experts, .k = hidden, .bias = m.router_bias}, {x, router, router_bias}, {scores});
  // With gathering products the rows are not copied to their experts.
  const ValueId routed = level.merged_products ? ValueId{} : w.value("routed", {spread, hidden});
  const ValueId expert_in = routed.valid() ? routed : x;
  const ValueId chosen = w.value("chosen_experts", {rows, m.top_k});
  const ValueId weights = w.value("expert_weights", {rows, m.top_k});

  const std::int64_t in_width = m.gated ? 2 * m.width : m.width;
  const ValueId expert_out = w.value("expert_out", {spread, hidden});
  const ValueId out = w.value("moe_out", {rows, hidden});
  const ValueId inner_in = w.value("expert_gate_up", {spread, in_width});
  ValueId inner = w.value("expert_inner", {spread, m.width});
  const auto grouped = [&](std::int64_t n, std::int64_t k) {
    return GroupedMatMul{.tokens = rows, .n = n, .k = k, .experts = m.experts, .top_k = m.top_k, .bias = m.bias};
  };
  const auto expert_bias = [&](Name name, std::int64_t width) {
    return m.bias ? w.weight(name, {m.experts, width}, w.active() ? hit(width) : 0) : ValueId{};
  };
  const ValueId up = w.weight("experts.gate_up.weight", {m.experts, in_width, hidden}, hit(in_width * hidden));
  const ValueId up_bias = expert_bias("experts.gate_up.bias", in_width);
  const ValueId down = w.weight("experts.down.weight", {m.experts, hidden, m.width}, hit(hidden * m.width));
  const ValueId down_bias = expert_bias("experts.down.bias", hidden);
  w.node("route",
         Route{.tokens = rows, .width = hidden, .experts = m.experts, .top_k = m.top_k, .gathered = level.merged_products},
         {scores, x, selection_bias}, {chosen, weights, routed});
  w.node("experts_up", grouped(in_width, hidden), {expert_in, up, up_bias, chosen}, {inner_in});
  if (!level.epilogues) {
    w.node("experts_activation",
           Elementwise{.rows = spread,
                       .width = m.width,
                       .kind = m.gated  ? ElementwiseKind::kGatedActivation
                               : m.relu ? ElementwiseKind::kRelu
                                        : ElementwiseKind::kActivation,
                       .inputs = m.gated ? 2 : 1},
           {inner_in}, {inner});
  }
  w.node("experts_down", grouped(hidden, m.width), {inner, down, down_bias, chosen, weights}, {expert_out, out});
  if (m.shared_width == 0) return out;

  w.set_prefix("shared_");
  const ValueId shared = write_feed_forward(w, {.width = m.shared_width, .gated = m.gated, .relu = m.relu}, hidden, rows, x);
  w.set_prefix({});
  ValueId gate_value;
  if (m.shared_gate) {
    const ValueId gate = w.weight("shared_gate.weight", {1, hidden});
    gate_value = w.value("shared_gate", {rows, 1});
    w.node("shared_gate", MatMul{.m = rows, .n = 1, .k = hidden}, {x, gate}, {gate_value});
  }
  if (level.epilogues) return out;
  const ValueId sum = w.value("moe_sum", {rows, hidden});
  w.node("shared_add", Elementwise{.rows = rows, .width = hidden, .kind = ElementwiseKind::kAdd, .inputs = 2},
         {out, shared, gate_value}, {sum});
  return sum;
}

Normed write_norm(GraphWriter& w, std::string_view name, NormKind kind, std::int64_t rows, std::int64_t width, ValueId stream,
                  ValueId delta) {
  const ValueId weight = w.weight({name, ".weight"}, {width});
  const ValueId bias = kind == NormKind::kRms ? ValueId{} : w.weight({name, ".bias"}, {width});
  const ValueId out = w.value({name, ".out"}, {rows, width});
  const bool residual = delta.valid();
  const ValueId sum = residual ? w.value({name, ".stream"}, {rows, width}) : stream;
  const Norm op{.rows = rows, .width = width, .kind = kind, .residual = residual};
  if (residual) {
    w.node(name, op, {stream, delta, weight, bias}, {out, sum});
  } else {
    w.node(name, op, {stream, weight, bias}, {out});
  }
  return {out, sum};
}

ValueId write_residual(GraphWriter& w, std::string_view name, std::int64_t rows, std::int64_t width, ValueId stream,
                       ValueId delta, bool dropout) {
  const bool drop = applies_dropout(w, dropout);
  const bool fused = fusion_level(w.fusion()).residual_in_norm;
  ValueId mask;
  if (drop) mask = w.value({name, ".mask"}, {(rows + 1) / 2, width});
  const ValueId sum = w.value(name, {rows, width});
  if (drop && fused) {
    w.node(name, Elementwise{.rows = rows, .width = width, .kind = ElementwiseKind::kDropout, .inputs = 2}, {delta, stream},
           {sum, mask});
    return sum;
  }
  if (drop) {
    const ValueId dropped = w.value({name, ".dropped"}, {rows, width});
    w.node({name, "_dropout"}, Elementwise{.rows = rows, .width = width, .kind = ElementwiseKind::kDropout}, {delta},
           {dropped, mask});
    delta = dropped;
  }
  w.node(name, Elementwise{.rows = rows, .width = width, .kind = ElementwiseKind::kAdd, .inputs = 2}, {stream, delta}, {sum});
  return sum;
}

ValueId write_vision_tower(GraphWriter& w, const VisionTower& t, std::int64_t images, bool active) {
  const std::int64_t tiles = images * t.tiles;
  const std::int64_t tokens = t.tokens_per_tile();
  const std::int64_t rows = std::max<std::int64_t>(tiles, 1) * tokens;
  const std::int64_t side = t.image_size / t.patch_size;
  const AttentionSpec attention{.heads = t.heads,
                                .kv_heads = t.heads,
                                .head_dim = t.hidden / t.heads,
                                .value_dim = t.hidden / t.heads,
                                .q_bias = t.biases,
                                .k_bias = t.biases,
                                .v_bias = t.biases,
                                .o_bias = t.biases};
  const FeedForwardSpec feed_forward{.width = t.feed_forward, .gated = false, .bias = t.biases};

  w.begin_block("vision.patches", {.active = active});
  const ValueId pixels = w.value("pixels", {tiles, t.channels, t.image_size, t.image_size}, Role::kInput);
  const ValueId kernel = w.weight("vision.patch.weight", {t.hidden, t.channels, t.patch_size, t.patch_size});
  const ValueId positions = w.table("vision.position.weight", {tokens, t.hidden});
  if (t.extra_parameters > 0) w.weight("vision.extra", {t.extra_parameters}, 0);
  const ValueId states = w.value("vision.states", {rows, t.hidden});
  w.node("vision.patches",
         Convolution{.batch = tiles,
                     .in_channels = t.channels,
                     .out_channels = t.hidden,
                     .in_height = t.image_size,
                     .in_width = t.image_size,
                     .out_height = side,
                     .out_width = side,
                     .kernel_height = t.patch_size,
                     .kernel_width = t.patch_size},
         {pixels, kernel, positions}, {states});
  w.set_block_output(states);
  w.end_block();

  for (const bool global : {false, true}) {
    const std::int64_t layers = global ? t.global_layers : t.layers;
    if (layers == 0) continue;
    const std::int64_t sequences = global ? images : tiles;
    w.begin_block(global ? "vision.global_layer" : "vision.layer", {.repeat = layers, .active = active});
    const ValueId x = w.value("hidden", {rows, t.hidden});
    w.set_block_input(x);
    const Rows r{
        .batch = sequences, .q = global ? t.tiles * tokens : tokens, .kv = global ? t.tiles * tokens : tokens, .causal = false};
    const Normed n1 = write_norm(w, "attention_norm", NormKind::kLayer, rows, t.hidden, x, {});
    const ValueId attended = write_attention(w, attention, t.hidden, r, n1.out, false);
    const ValueId middle = write_residual(w, "attention_residual", rows, t.hidden, x, attended, false);
    const Normed n2 = write_norm(w, "feed_forward_norm", NormKind::kLayer, rows, t.hidden, middle, {});
    const ValueId inner = write_feed_forward(w, feed_forward, t.hidden, rows, n2.out);
    w.set_block_output(write_residual(w, "feed_forward_residual", rows, t.hidden, middle, inner, false));
    w.end_block();
  }

  w.begin_block("vision.projector", {.active = active});
  ValueId x = w.value("hidden", {rows, t.hidden});
  w.set_block_input(x);
  std::int64_t index = 0;
  for (const Projection& p : t.projector) {
    constexpr const char* kNames[] = {"projector_1", "projector_2", "projector_3", "projector_4"};
    const char* name = kNames[std::min<std::int64_t>(index++, 3)];
    const std::int64_t projected = std::max<std::int64_t>(images, 1) * p.rows_per_image;
    const ValueId weight = w.weight({name, ".weight"}, {p.out, p.in});
    const ValueId bias = p.bias ? w.weight({name, ".bias"}, {p.out}) : ValueId{};
    const ValueId out = w.value({name, ".out"}, {projected, p.out});
    w.node(name, MatMul{.m = projected, .n = p.out, .k = p.in, .bias = p.bias}, {x, weight, bias}, {out});
    x = out;
  }
  w.end_block();
  return x;
}

}  // namespace rooftree::model

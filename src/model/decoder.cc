#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/transformer.h"

// Decoder-only language models: dense and mixture-of-experts, grouped, latent and windowed attention, sequential and parallel
// blocks, cross-attention to images. Layers that differ are different blocks.

namespace rooftree::model {
namespace {

struct LayerGroup {
  std::string name;
  std::vector<std::int32_t> layers;
  bool global = true, moe = false, cross = false;
};

// Cross-attention layers stand at the fourth place of every period (Llama 3.2 vision: 3, 8, 13, ...).
bool is_cross(const DecoderSpec& s, std::int64_t layer, std::int64_t crosses_before) {
  if (s.cross_layers == 0 || crosses_before == s.cross_layers) return false;
  const std::int64_t period = s.layers / s.cross_layers;
  return layer % period == std::min<std::int64_t>(3, period - 1);
}

std::vector<LayerGroup> group_layers(const DecoderSpec& s) {
  const bool local_exists = s.attention.window > 0 || s.attention.chunk > 0;
  std::array<std::vector<std::int32_t>, 4> layers;  // by kind
  std::vector<std::int32_t> cross;
  bool any_global = false, any_local = false, any_moe = false, any_dense = false;
  std::int64_t i = 0;  // the patterns count the layers with self-attention
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    if (is_cross(s, layer, static_cast<std::int64_t>(cross.size()))) {
      cross.push_back(static_cast<std::int32_t>(layer));
      continue;
    }
    const bool global = !local_exists || (s.global_every > 0 && (i + 1) % s.global_every == 0);
    const bool moe = s.moe.experts > 0 && i >= s.first_dense && (i + 1) % s.moe_every == 0;
    layers[(global ? 1U : 0U) + (moe ? 2U : 0U)].push_back(static_cast<std::int32_t>(layer));
    (global ? any_global : any_local) = true;
    (moe ? any_moe : any_dense) = true;
    ++i;
  }
  std::vector<LayerGroup> groups;
  for (std::size_t kind = 0; kind < layers.size(); ++kind) {
    if (layers[kind].empty()) continue;
    LayerGroup group{.name = "layer", .layers = std::move(layers[kind]), .global = (kind & 1U) != 0, .moe = (kind & 2U) != 0};
    if (any_global && any_local) group.name += group.global ? ".global" : ".local";
    if (any_moe && any_dense) group.name += group.moe ? ".moe" : ".dense";
    groups.push_back(std::move(group));
  }
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) { return a.layers[0] < b.layers[0]; });
  if (!cross.empty()) groups.push_back({.name = "layer.cross", .layers = std::move(cross), .cross = true});
  return groups;
}

class Decoder final : public Architecture {
 public:
  explicit Decoder(DecoderSpec spec) : s_(std::move(spec)), groups_(group_layers(s_)) {
    local_ = global_ = s_.attention;
    global_.window = global_.chunk = 0;
    if (s_.global_without_rope && (local_.window > 0 || local_.chunk > 0)) global_.rotary_dim = 0;
    cross_ = global_;
    cross_.rotary_dim = 0;
    cross_.qk_norm = true;
  }

  std::string_view kind() const override {
    if (s_.vision.has_value()) return s_.moe.experts > 0 ? "multimodal moe decoder" : "multimodal decoder";
    return s_.moe.experts > 0 ? "moe decoder" : "decoder";
  }

  Status check(const Phase& phase) const override {
    if (phase.images > 0 && !s_.vision.has_value()) {
      return Error{ErrorCode::kInvalid, fmt::format("images: {}; expected 0: the model has no vision tower", phase.images)};
    }
    if (phase.images == 0) return Ok{};
    return check_rows(phase, phase.images * s_.vision->tiles * s_.vision->tokens_per_tile());
  }

  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch * phase.tokens; }
  const DecoderSpec* decoder() const override { return &s_; }
  std::int64_t position_limit() const override { return s_.learned_positions ? s_.max_positions : 0; }

  void write(GraphWriter& w) const override {
    const Phase& p = w.phase();
    ValueId image_states;
    if (s_.vision.has_value()) {
      const bool see = p.images > 0 && p.kind != Phase::Kind::kDecode;
      image_states = write_vision_tower(w, *s_.vision, p.batch * p.images, see);
    }
    const ValueId embeddings = write_embedding(w);
    for (const LayerGroup& group : groups_) write_layer(w, group, image_states);
    write_head(w, embeddings);
  }

  Description describe() const override;

 private:
  Rows rows(const Phase& p) const {
    return {.batch = p.batch, .q = p.tokens, .kv = p.past + p.tokens, .cached = p.kind != Phase::Kind::kTrain};
  }

  bool residual_in_norm(const GraphWriter& w) const {
    return fusion_level(w.fusion()).residual_in_norm && !applies_dropout(w, s_.dropout);
  }

  ValueId write_embedding(GraphWriter& w) const {
    const Rows r = rows(w.phase());
    const std::int64_t n = r.count();
    const double looked_up = static_cast<double>(std::min(n, s_.vocabulary) * s_.hidden);
    w.begin_block("embedding", {});
    const ValueId tokens = w.value("tokens", {n}, Role::kInput);
    const ValueId embedding = w.table("embedding.weight", {s_.vocabulary, s_.hidden}, s_.tied_embeddings ? -1 : looked_up);
    ValueId x = w.value("embedded", {n, s_.hidden});
    w.node("embedding", Embedding{.tokens = n, .width = s_.hidden, .vocabulary = s_.vocabulary}, {tokens, embedding}, {x});
    if (s_.embedding_scale) {
      const ValueId scaled = w.value("scaled", {n, s_.hidden});
      w.node("embedding_scale", Elementwise{.rows = n, .width = s_.hidden, .kind = ElementwiseKind::kScale}, {x}, {scaled});
      x = scaled;
    }
    if (s_.learned_positions) {
      const double read = static_cast<double>(std::min(r.q, s_.max_positions) * s_.hidden);
      const ValueId table = w.table("position.weight", {s_.max_positions, s_.hidden}, read);
      const ValueId positions = w.value("positions", {n}, Role::kInput);
      const ValueId position = w.value("position", {n, s_.hidden});
      w.node("position_embedding", Embedding{.tokens = n, .width = s_.hidden, .vocabulary = s_.max_positions},
             {positions, table}, {position});
      x = write_residual(w, "position_add", n, s_.hidden, x, position, false);
    }
    if (s_.embedding_norm) x = write_norm(w, "embedding_norm", s_.norm, n, s_.hidden, x, {}).out;
    w.set_block_output(x);
    w.end_block();
    return embedding;
  }

  void write_layer(GraphWriter& w, const LayerGroup& group, ValueId image_states) const {
    const Phase& p = w.phase();
    const bool active = !group.cross || p.images > 0;
    Rows r = rows(p);
    const std::int64_t n = r.count();
    w.begin_block(group.name, {.repeat = static_cast<std::int64_t>(group.layers.size()),
                               .active = active,
                               .layers = group.layers,
                               .local = !group.global});
    const ValueId stream = w.value("hidden", {n, s_.hidden});
    w.set_block_input(stream);
    const auto attend = [&](ValueId x) {
      if (!group.cross) return write_attention(w, group.global ? global_ : local_, s_.hidden, r, x, s_.dropout);
      const std::int64_t image_tokens = std::max<std::int64_t>(p.images, 1) * s_.vision->tiles * s_.vision->tokens_per_tile();
      Rows across = r;
      across.kv = image_tokens;
      across.causal = false;
      w.weight("cross.gates", {2});
      return write_cross_attention(w, cross_, s_.hidden, across, x,
                                   {.states = image_states, .hidden = s_.hidden, .compute = p.kind != Phase::Kind::kDecode},
                                   s_.dropout);
    };
    const auto feed_forward = [&](ValueId x) {
      return group.moe ? write_moe(w, s_.moe, s_.hidden, n, x) : write_feed_forward(w, s_.dense, s_.hidden, n, x);
    };
    if (s_.parallel) {
      write_parallel(w, n, stream, attend, feed_forward);
    } else {
      write_sequential(w, n, stream, attend, feed_forward);
    }
    w.end_block();
  }

  // x + attention(norm(x)), then x + feed_forward(norm(x)). With the residual in the norm, the sum behind the feed-forward is
  // made by the first norm of the next instance.
  template <class Attend, class FeedForward>
  void write_sequential(GraphWriter& w, std::int64_t n, ValueId stream, const Attend& attend,
                        const FeedForward& feed_forward) const {
    const bool in_norm = residual_in_norm(w);
    const ValueId carried = in_norm ? w.value("carried", {n, s_.hidden}) : ValueId{};
    const Normed first = write_norm(w, "input_norm", s_.norm, n, s_.hidden, stream, carried);
    ValueId attended = attend(first.out);
    if (s_.post_norms) attended = write_norm(w, "post_attention_norm", s_.norm, n, s_.hidden, attended, {}).out;
    Normed second;
    if (in_norm) {
      second = write_norm(w, "feed_forward_norm", s_.norm, n, s_.hidden, first.stream, attended);
    } else {
      const ValueId sum = write_residual(w, "attention_residual", n, s_.hidden, first.stream, attended, s_.dropout);
      second = write_norm(w, "feed_forward_norm", s_.norm, n, s_.hidden, sum, {});
    }
    ValueId out = feed_forward(second.out);
    if (s_.post_norms) out = write_norm(w, "post_feed_forward_norm", s_.norm, n, s_.hidden, out, {}).out;
    if (in_norm) {
      w.set_block_output(second.stream);
      w.set_block_pending(carried, out);
    } else {
      w.set_block_output(write_residual(w, "feed_forward_residual", n, s_.hidden, second.stream, out, s_.dropout));
    }
  }

  // x + attention(norm(x)) + feed_forward(norm(x))
  template <class Attend, class FeedForward>
  void write_parallel(GraphWriter& w, std::int64_t n, ValueId stream, const Attend& attend,
                      const FeedForward& feed_forward) const {
    const Normed first = write_norm(w, "input_norm", s_.norm, n, s_.hidden, stream, {});
    const ValueId second =
        s_.parallel_norms == 2 ? write_norm(w, "feed_forward_norm", s_.norm, n, s_.hidden, stream, {}).out : first.out;
    const ValueId attended = attend(first.out);
    const ValueId inner = feed_forward(second);
    if (fusion_level(w.fusion()).residual_in_norm) {
      const ValueId sum = w.value("residual", {n, s_.hidden});
      w.node("residual", Elementwise{.rows = n, .width = s_.hidden, .kind = ElementwiseKind::kAdd, .inputs = 3},
             {stream, attended, inner}, {sum});
      w.set_block_output(sum);
      return;
    }
    const ValueId both = write_residual(w, "parallel_add", n, s_.hidden, attended, inner, false);
    w.set_block_output(write_residual(w, "residual", n, s_.hidden, stream, both, false));
  }

  void write_head(GraphWriter& w, ValueId embedding) const {
    const Phase& p = w.phase();
    const Rows r = rows(p);
    const std::int64_t n = r.count();
    const bool all = p.kind == Phase::Kind::kTrain || p.all_logits || p.kind == Phase::Kind::kDecode;
    const std::int64_t scored = all ? n : p.batch;
    w.begin_block("head", {});
    const ValueId stream = w.value("hidden", {n, s_.hidden});
    w.set_block_input(stream);
    ValueId carried;
    if (!s_.parallel && residual_in_norm(w)) {
      carried = w.value("carried", {n, s_.hidden});
      w.set_block_pending(carried, {});
    }
    const ValueId normed = write_norm(w, "final_norm", s_.norm, n, s_.hidden, stream, carried).out;
    const ValueId weight = s_.tied_embeddings ? embedding : w.table("head.weight", {s_.vocabulary, s_.hidden});
    const ValueId bias = s_.head_bias ? w.weight("head.bias", {s_.vocabulary}) : ValueId{};
    ValueId logits = w.value("logits", {scored, s_.vocabulary}, Role::kOutput);
    w.node("lm_head", MatMul{.m = scored, .n = s_.vocabulary, .k = s_.hidden, .bias = s_.head_bias}, {normed, weight, bias},
           {logits});
    if (s_.final_softcap && !fusion_level(w.fusion()).epilogues) {
      w.node("logit_softcap", Elementwise{.rows = scored, .width = s_.vocabulary, .kind = ElementwiseKind::kSoftcap}, {logits},
             {logits});
    }
    if (w.training()) {
      const ValueId loss = w.value("loss", {n});
      w.node("loss", CrossEntropy{.tokens = n, .vocabulary = s_.vocabulary}, {logits}, {loss});
    }
    w.end_block();
  }

  DecoderSpec s_;
  AttentionSpec local_, global_, cross_;
  std::vector<LayerGroup> groups_;
};

Description Decoder::describe() const {
  const AttentionSpec& a = s_.attention;
  Description d;
  const auto add = [&](std::string name, std::string value) { d.emplace_back(std::move(name), std::move(value)); };
  std::string layers = fmt::format("{}", s_.layers);
  if (groups_.size() > 1) {
    std::string kinds;
    for (const LayerGroup& g : groups_) {
      if (!kinds.empty()) kinds += ", ";
      kinds += fmt::format("{} {}", g.layers.size(), g.name.substr(std::min(g.name.size(), std::size_t{6})));
    }
    layers += fmt::format(" ({})", kinds);
  }
  add("layers", layers);
  add("hidden", fmt::format("{}", s_.hidden));
  add("vocabulary", fmt::format("{}{}", s_.vocabulary, s_.tied_embeddings ? ", embeddings tied to the head" : ""));
  if (a.latent()) {
    add("attention",
        fmt::format("latent, {} heads of {} + {} (rotated), values {}; latent {}{}", a.heads, a.nope_dim, a.rope_dim,
                    a.value_dim, a.kv_rank, a.q_rank > 0 ? fmt::format(", queries through {}", a.q_rank) : ""));
    if (a.index_top_k > 0) {
      add("sparse attention",
          fmt::format("{} positions picked by {} index heads of {}", a.index_top_k, a.index_heads, a.index_dim));
    }
  } else {
    add("attention", fmt::format("{} heads, {} key-value heads of {}{}", a.heads, a.kv_heads, a.head_dim,
                                 a.qk_norm ? ", queries and keys normed" : ""));
  }
  if (a.window > 0) add("window", fmt::format("{}", a.window));
  if (a.chunk > 0) add("attention chunk", fmt::format("{}", a.chunk));
  add("positions", s_.learned_positions ? fmt::format("learned, {}", s_.max_positions)
                   : a.rope_dim > 0     ? fmt::format("rotary, {} of {} per head", a.rope_dim, a.head_dim)
                   : a.rotary_dim > 0   ? fmt::format("rotary, {} of {} per head", a.rotary_dim, a.head_dim)
                                        : std::string("linear bias or none"));
  const bool any_dense = s_.moe.experts == 0 || s_.first_dense > 0 || s_.moe_every > 1;
  if (any_dense) {
    add("feed-forward", fmt::format("{}{}{}", s_.dense.width, s_.dense.gated ? ", gated" : "", s_.dense.relu ? ", relu" : ""));
  }
  if (s_.moe.experts > 0) {
    add("experts", fmt::format("{} of {}, {} per token{}", s_.moe.experts, s_.moe.width, s_.moe.top_k,
                               s_.moe.shared_width > 0 ? fmt::format(", shared {}", s_.moe.shared_width) : ""));
  }
  add("norm", fmt::format("{}{}{}", s_.norm == NormKind::kRms ? "rms" : "layer", s_.post_norms ? ", before and after" : "",
                          s_.parallel ? ", attention and feed-forward in parallel" : ""));
  if (s_.vision.has_value()) {
    add("vision tower", fmt::format("{} layers of {}, {} px in patches of {}", s_.vision->layers + s_.vision->global_layers,
                                    s_.vision->hidden, s_.vision->image_size, s_.vision->patch_size));
  }
  return d;
}

Status check_vision(const VisionTower& v, std::int64_t hidden) {
  ROOFTREE_TRY_VOID(check_range("vision.layers", v.layers, 1, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("vision.global_layers", v.global_layers, 0, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("vision.hidden", v.hidden, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("vision.heads", v.heads, 1, std::min(kMaxHeads, v.hidden)));
  ROOFTREE_TRY_VOID(check_range("vision.feed_forward", v.feed_forward, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("vision.image_size", v.image_size, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("vision.patch_size", v.patch_size, 1, v.image_size));
  ROOFTREE_TRY_VOID(check_range("vision.tiles", v.tiles, 1, 1024));
  ROOFTREE_TRY_VOID(check_range("vision: positions per image", v.tiles * v.tokens_per_tile(), 1, 1 << 20));
  if (v.hidden % v.heads != 0) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("vision.heads: {}; expected a divisor of vision.hidden {}", v.heads, v.hidden)};
  }
  ROOFTREE_TRY_VOID(check_range("vision.extra_parameters", v.extra_parameters, 0, std::int64_t{1} << 40));
  for (const Projection& p : v.projector) {
    ROOFTREE_TRY_VOID(check_range("vision.projector.in", p.in, 1, kMaxExtent));
    ROOFTREE_TRY_VOID(check_range("vision.projector.out", p.out, 1, kMaxExtent));
    ROOFTREE_TRY_VOID(check_range("vision.projector.rows", p.rows_per_image, 1, kMaxExtent));
  }
  if (!v.projector.empty() && v.projector.back().out != hidden) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("vision.projector: ends in {}; expected the model's hidden {}", v.projector.back().out, hidden)};
  }
  return Ok{};
}

}  // namespace

Result<std::shared_ptr<const Architecture>> make_decoder_architecture(const DecoderSpec& s) {
  const AttentionSpec& a = s.attention;
  ROOFTREE_TRY_VOID(check_range("layers", s.layers, 1, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("hidden", s.hidden, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("vocabulary", s.vocabulary, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("max_positions", s.max_positions, s.learned_positions ? 1 : 0, kMaxPositions));
  ROOFTREE_TRY_VOID(check_range("attention.heads", a.heads, 1, kMaxHeads));
  ROOFTREE_TRY_VOID(check_range("attention.kv_heads", a.kv_heads, 1, a.heads));
  if (a.heads % a.kv_heads != 0) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("attention.kv_heads: {}; expected a divisor of attention.heads {}", a.kv_heads, a.heads)};
  }
  ROOFTREE_TRY_VOID(check_range("attention.head_dim", a.head_dim, 1, kMaxHeads));
  ROOFTREE_TRY_VOID(check_range("attention.value_dim", a.value_dim, 1, kMaxHeads));
  ROOFTREE_TRY_VOID(check_range("attention.heads * head_dim", a.heads * std::max(a.head_dim, a.value_dim), 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("attention.rotary_dim", a.rotary_dim, 0, a.head_dim));
  ROOFTREE_TRY_VOID(check_range("attention.window", a.window, 0, kMaxPositions));
  ROOFTREE_TRY_VOID(check_range("attention.chunk", a.chunk, 0, kMaxPositions));
  ROOFTREE_TRY_VOID(check_range("attention.global_every", s.global_every, 0, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("attention.q_rank", a.q_rank, 0, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("attention.kv_rank", a.kv_rank, 0, kMaxExtent));
  if (a.latent()) {
    ROOFTREE_TRY_VOID(check_range("attention.nope_dim", a.nope_dim, 1, kMaxHeads));
    ROOFTREE_TRY_VOID(check_range("attention.rope_dim", a.rope_dim, 1, kMaxHeads));
    ROOFTREE_TRY_VOID(check_range("attention.index_heads", a.index_heads, 0, kMaxHeads));
    ROOFTREE_TRY_VOID(check_range("attention.index_dim", a.index_dim, 0, kMaxHeads));
    ROOFTREE_TRY_VOID(check_range("attention.index_top_k", a.index_top_k, 0, kMaxPositions));
    if (a.head_dim != a.nope_dim + a.rope_dim) {
      return Error{ErrorCode::kInvalid, fmt::format("attention.head_dim: {}; expected nope_dim {} + rope_dim {}", a.head_dim,
                                                    a.nope_dim, a.rope_dim)};
    }
  }
  const bool any_dense = s.moe.experts == 0 || s.first_dense > 0 || s.moe_every > 1;
  if (any_dense) ROOFTREE_TRY_VOID(check_range("feed_forward.width", s.dense.width, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("moe.experts", s.moe.experts, 0, kMaxExperts));
  if (s.moe.experts > 0) {
    ROOFTREE_TRY_VOID(check_range("moe.top_k", s.moe.top_k, 1, s.moe.experts));
    ROOFTREE_TRY_VOID(check_range("moe.width", s.moe.width, 1, kMaxExtent));
    ROOFTREE_TRY_VOID(check_range("moe.shared_width", s.moe.shared_width, 0, kMaxExtent));
    ROOFTREE_TRY_VOID(check_range("moe.first_dense", s.first_dense, 0, s.layers));
    ROOFTREE_TRY_VOID(check_range("moe.every", s.moe_every, 1, kMaxLayers));
  }
  ROOFTREE_TRY_VOID(check_range("cross_layers", s.cross_layers, 0, s.layers - 1));
  if (s.vision.has_value()) ROOFTREE_TRY_VOID(check_vision(*s.vision, s.hidden));
  if (s.cross_layers > 0 && !s.vision.has_value()) {
    return Error{ErrorCode::kInvalid, "cross_layers: needs a vision tower, and the model has none"};
  }
  return std::shared_ptr<const Architecture>(std::make_shared<Decoder>(s));
}

}  // namespace rooftree::model

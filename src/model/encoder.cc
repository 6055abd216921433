#include <fmt/format.h>

#include <algorithm>

#include "model/transformer.h"

// Encoders: BERT (arXiv:1810.04805) and the vision transformer (arXiv:2010.11929).

namespace rooftree::model {
namespace {

Status check_encoder_phase(const Phase& phase) {
  if (phase.kind == Phase::Kind::kDecode) {
    return Error{ErrorCode::kInvalid, "an encoder has no decode phase; expected prefill or train"};
  }
  if (phase.past != 0) {
    return Error{ErrorCode::kInvalid, fmt::format("past: {}; expected 0: an encoder keeps no cache", phase.past)};
  }
  if (phase.images != 0) return Error{ErrorCode::kInvalid, fmt::format("images: {}; expected 0", phase.images)};
  return Ok{};
}

AttentionSpec full_attention(std::int64_t hidden, std::int64_t heads) {
  return {.heads = heads,
          .kv_heads = heads,
          .head_dim = hidden / heads,
          .value_dim = hidden / heads,
          .q_bias = true,
          .k_bias = true,
          .v_bias = true,
          .o_bias = true};
}

Status check_sizes(std::int64_t layers, std::int64_t hidden, std::int64_t heads, std::int64_t feed_forward) {
  ROOFTREE_TRY_VOID(check_range("layers", layers, 1, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("hidden", hidden, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("attention.heads", heads, 1, std::min(kMaxHeads, hidden)));
  ROOFTREE_TRY_VOID(check_range("feed_forward.width", feed_forward, 1, kMaxExtent));
  if (hidden % heads != 0) {
    return Error{ErrorCode::kInvalid, fmt::format("attention.heads: {}; expected a divisor of hidden {}", heads, hidden)};
  }
  return Ok{};
}

class Encoder final : public Architecture {
 public:
  explicit Encoder(const EncoderSpec& spec) : s_(spec), attention_(full_attention(spec.hidden, spec.heads)) {}

  std::string_view kind() const override { return "encoder"; }
  Status check(const Phase& phase) const override { return check_encoder_phase(phase); }
  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch * phase.tokens; }
  std::int64_t position_limit() const override { return s_.max_positions; }

  void write(GraphWriter& w) const override {
    const Phase& p = w.phase();
    const std::int64_t n = p.batch * p.tokens;
    const std::int64_t h = s_.hidden;
    w.begin_block("embedding", {});
    const ValueId tokens = w.value("tokens", {n}, Role::kInput);
    const auto look_up = [&](std::string_view name, std::int64_t rows, ValueId ids) {
      const double read = static_cast<double>(std::min(n, rows) * h);
      const bool whole = rows == s_.vocabulary && s_.masked_lm_head;
      const ValueId table = w.table({name, ".weight"}, {rows, h}, whole ? -1 : read);
      const ValueId out = w.value({name, ".out"}, {n, h});
      w.node(name, Embedding{.tokens = n, .width = h, .vocabulary = rows}, {ids, table}, {out});
      return std::pair{table, out};
    };
    const auto [embedding, words] = look_up("embedding", s_.vocabulary, tokens);
    ValueId x = words;
    const ValueId positions = w.value("positions", {n}, Role::kInput);
    x = write_residual(w, "position_add", n, h, x, look_up("position", s_.max_positions, positions).second, false);
    if (s_.token_types > 0) {
      const ValueId types = w.value("types", {n}, Role::kInput);
      x = write_residual(w, "type_add", n, h, x, look_up("type", s_.token_types, types).second, false);
    }
    w.set_block_output(write_norm(w, "embedding_norm", NormKind::kLayer, n, h, x, {}).out);
    w.end_block();

    // Norms stand behind the residual adds.
    w.begin_block("layer", {.repeat = s_.layers});
    x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const Rows rows{.batch = p.batch, .q = p.tokens, .kv = p.tokens, .causal = false};
    const ValueId attended = write_attention(w, attention_, h, rows, x, s_.dropout);
    x = add_and_norm(w, "attention", n, x, attended);
    const ValueId inner = write_feed_forward(w, {.width = s_.feed_forward, .gated = false, .bias = true}, h, n, x);
    w.set_block_output(add_and_norm(w, "feed_forward", n, x, inner));
    w.end_block();

    if (s_.pooler) write_pooler(w, p.batch, n);
    if (s_.masked_lm_head) write_masked_lm_head(w, n, embedding);
  }

  Description describe() const override {
    return {{"layers", fmt::format("{}", s_.layers)},
            {"hidden", fmt::format("{}", s_.hidden)},
            {"vocabulary", fmt::format("{}", s_.vocabulary)},
            {"attention", fmt::format("{} heads of {}, both directions", s_.heads, attention_.head_dim)},
            {"positions", fmt::format("learned, {}", s_.max_positions)},
            {"feed-forward", fmt::format("{}", s_.feed_forward)},
            {"norm", "layer, behind the residual"}};
  }

 private:
  ValueId add_and_norm(GraphWriter& w, std::string_view what, std::int64_t n, ValueId stream, ValueId delta) const {
    const bool attention = what == "attention";
    const std::string_view norm = attention ? "attention_norm" : "feed_forward_norm";
    if (fusion_level(w.fusion()).residual_in_norm && !applies_dropout(w, s_.dropout)) {
      return write_norm(w, norm, NormKind::kLayer, n, s_.hidden, stream, delta).out;
    }
    const ValueId sum =
        write_residual(w, attention ? "attention_residual" : "feed_forward_residual", n, s_.hidden, stream, delta, s_.dropout);
    return write_norm(w, norm, NormKind::kLayer, n, s_.hidden, sum, {}).out;
  }

  void write_pooler(GraphWriter& w, std::int64_t batch, std::int64_t n) const {
    const std::int64_t h = s_.hidden;
    w.begin_block("pooler", {});
    const ValueId x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const ValueId weight = w.weight("pooler.weight", {h, h});
    const ValueId bias = w.weight("pooler.bias", {h});
    const ValueId pooled = w.value("pooled", {batch, h});
    w.node("pooler", MatMul{.m = batch, .n = h, .k = h, .bias = true}, {x, weight, bias}, {pooled});
    const ValueId out = w.value("pooler_out", {batch, h});
    w.node("pooler_activation", Elementwise{.rows = batch, .width = h, .kind = ElementwiseKind::kActivation}, {pooled}, {out});
    w.end_block();
  }

  void write_masked_lm_head(GraphWriter& w, std::int64_t n, ValueId embedding) const {
    const std::int64_t h = s_.hidden;
    w.begin_block("head", {});
    const ValueId x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const ValueId weight = w.weight("transform.weight", {h, h});
    const ValueId bias = w.weight("transform.bias", {h});
    const ValueId transformed = w.value("transformed", {n, h});
    w.node("transform", MatMul{.m = n, .n = h, .k = h, .bias = true}, {x, weight, bias}, {transformed});
    const ValueId active = w.value("transform_out", {n, h});
    w.node("transform_activation", Elementwise{.rows = n, .width = h, .kind = ElementwiseKind::kActivation}, {transformed},
           {active});
    const ValueId normed = write_norm(w, "head_norm", NormKind::kLayer, n, h, active, {}).out;
    const ValueId head_bias = w.weight("head.bias", {s_.vocabulary});
    const ValueId logits = w.value("logits", {n, s_.vocabulary}, Role::kOutput);
    w.node("lm_head", MatMul{.m = n, .n = s_.vocabulary, .k = h, .bias = true}, {normed, embedding, head_bias}, {logits});
    if (w.training()) {
      const ValueId loss = w.value("loss", {n});
      w.node("loss", CrossEntropy{.tokens = n, .vocabulary = s_.vocabulary}, {logits}, {loss});
    }
    w.end_block();
  }

  EncoderSpec s_;
  AttentionSpec attention_;
};

class VisionTransformer final : public Architecture {
 public:
  explicit VisionTransformer(const VisionTransformerSpec& spec)
      : s_(spec), attention_(full_attention(spec.hidden, spec.heads)), side_(spec.image_size / spec.patch_size) {}

  std::string_view kind() const override { return "vision transformer"; }
  Status check(const Phase& phase) const override {
    ROOFTREE_TRY_VOID(check_encoder_phase(phase));
    return check_rows(phase, side_ * side_ + 1);
  }
  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch; }

  void write(GraphWriter& w) const override {
    const std::int64_t batch = w.phase().batch;
    const std::int64_t h = s_.hidden;
    const std::int64_t tokens = side_ * side_ + 1;  // patches and the class token
    const std::int64_t n = batch * tokens;
    w.begin_block("embedding", {});
    const ValueId pixels = w.value("pixels", {batch, 3, s_.image_size, s_.image_size}, Role::kInput);
    const ValueId kernel = w.weight("patch.weight", {h, 3, s_.patch_size, s_.patch_size});
    const ValueId kernel_bias = w.weight("patch.bias", {h});
    const ValueId class_token = w.weight("class_token", {h});
    const ValueId patches = w.value("patches", {n, h});
    w.node("patches",
           Convolution{.batch = batch,
                       .in_channels = 3,
                       .out_channels = h,
                       .in_height = s_.image_size,
                       .in_width = s_.image_size,
                       .out_height = side_,
                       .out_width = side_,
                       .kernel_height = s_.patch_size,
                       .kernel_width = s_.patch_size,
                       .bias = true},
           {pixels, kernel, kernel_bias, class_token}, {patches});
    const ValueId positions = w.table("position.weight", {tokens, h});
    w.set_block_output(write_residual(w, "position_add", n, h, patches, positions, false));
    w.end_block();

    w.begin_block("layer", {.repeat = s_.layers});
    const ValueId x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const bool in_norm = fusion_level(w.fusion()).residual_in_norm;
    const ValueId carried = in_norm ? w.value("carried", {n, h}) : ValueId{};
    const Normed first = write_norm(w, "attention_norm", NormKind::kLayer, n, h, x, carried);
    const Rows rows{.batch = batch, .q = tokens, .kv = tokens, .causal = false};
    const ValueId attended = write_attention(w, attention_, h, rows, first.out, false);
    const ValueId sum = in_norm ? attended : write_residual(w, "attention_residual", n, h, x, attended, false);
    const Normed second = in_norm ? write_norm(w, "feed_forward_norm", NormKind::kLayer, n, h, first.stream, sum)
                                  : write_norm(w, "feed_forward_norm", NormKind::kLayer, n, h, sum, {});
    ValueId out = write_feed_forward(w, {.width = s_.feed_forward, .gated = false, .bias = true}, h, n, second.out);
    if (!in_norm) out = write_residual(w, "feed_forward_residual", n, h, second.stream, out, false);
    w.set_block_output(out);
    w.end_block();

    w.begin_block("head", {});
    const ValueId last = w.value("hidden", {n, h});
    w.set_block_input(last);
    const ValueId normed = write_norm(w, "final_norm", NormKind::kLayer, n, h, last, {}).out;
    const ValueId weight = w.weight("head.weight", {s_.classes, h});
    const ValueId bias = w.weight("head.bias", {s_.classes});
    const ValueId logits = w.value("logits", {batch, s_.classes}, Role::kOutput);
    w.node("head", MatMul{.m = batch, .n = s_.classes, .k = h, .bias = true}, {normed, weight, bias}, {logits});
    if (w.training()) {
      const ValueId loss = w.value("loss", {batch});
      w.node("loss", CrossEntropy{.tokens = batch, .vocabulary = s_.classes}, {logits}, {loss});
    }
    w.end_block();
  }

  Description describe() const override {
    return {{"layers", fmt::format("{}", s_.layers)},
            {"hidden", fmt::format("{}", s_.hidden)},
            {"image", fmt::format("{} px in patches of {}: {} positions", s_.image_size, s_.patch_size, side_ * side_ + 1)},
            {"attention", fmt::format("{} heads of {}", s_.heads, attention_.head_dim)},
            {"feed-forward", fmt::format("{}", s_.feed_forward)},
            {"classes", fmt::format("{}", s_.classes)}};
  }

 private:
  VisionTransformerSpec s_;
  AttentionSpec attention_;
  std::int64_t side_;
};

}  // namespace

Result<std::shared_ptr<const Architecture>> make_encoder_architecture(const EncoderSpec& s) {
  ROOFTREE_TRY_VOID(check_sizes(s.layers, s.hidden, s.heads, s.feed_forward));
  ROOFTREE_TRY_VOID(check_range("vocabulary", s.vocabulary, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("context", s.max_positions, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("token_types", s.token_types, 0, kMaxExtent));
  return std::shared_ptr<const Architecture>(std::make_shared<Encoder>(s));
}

Result<std::shared_ptr<const Architecture>> make_vision_transformer_architecture(const VisionTransformerSpec& s) {
  ROOFTREE_TRY_VOID(check_sizes(s.layers, s.hidden, s.heads, s.feed_forward));
  ROOFTREE_TRY_VOID(check_range("image_size", s.image_size, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("patch_size", s.patch_size, 1, s.image_size));
  ROOFTREE_TRY_VOID(check_range("classes", s.classes, 1, kMaxExtent));
  return std::shared_ptr<const Architecture>(std::make_shared<VisionTransformer>(s));
}

}  // namespace rooftree::model

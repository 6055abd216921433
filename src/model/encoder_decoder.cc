#include <fmt/format.h>

#include <algorithm>

#include "model/transformer.h"

// Encoder-decoder transformers: T5 (arXiv:1910.10683) and Whisper (arXiv:2212.04356). Prefill runs the encoder, fills the
// cross-attention cache and starts the decoder; decode runs the decoder alone, with the encoder's weights at rest.

namespace rooftree::model {
namespace {

class EncoderDecoder final : public Architecture {
 public:
  explicit EncoderDecoder(const EncoderDecoderSpec& spec) : s_(spec) {
    const bool biases = whisper();
    self_ = {.heads = s_.heads,
             .kv_heads = s_.heads,
             .head_dim = s_.head_dim,
             .value_dim = s_.head_dim,
             .q_bias = biases,
             .v_bias = biases,
             .o_bias = biases};
    feed_forward_ = {.width = s_.feed_forward, .gated = s_.gated, .bias = biases, .relu = s_.relu};
    norm_ = whisper() ? NormKind::kLayer : NormKind::kRms;
  }

  std::string_view kind() const override { return "encoder-decoder"; }

  Status check(const Phase& phase) const override {
    if (phase.images != 0) return Error{ErrorCode::kInvalid, fmt::format("images: {}; expected 0", phase.images)};
    if (phase.past != 0 && phase.kind == Phase::Kind::kPrefill) {
      return Error{ErrorCode::kInvalid, fmt::format("past: {}; expected 0: prefill starts an encoder-decoder", phase.past)};
    }
    if (whisper()) ROOFTREE_TRY_VOID(check_range("source", phase.source, 0, s_.max_source_positions));
    return check_rows(phase, source_positions(phase));
  }

  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch * phase.tokens; }
  std::int64_t position_limit() const override { return whisper() ? s_.max_target_positions : 0; }

  void write(GraphWriter& w) const override {
    const Phase& p = w.phase();
    const bool decode = p.kind == Phase::Kind::kDecode;
    const std::int64_t source = source_positions(p);
    Rows target{.batch = p.batch, .q = p.tokens, .kv = p.past + p.tokens, .cached = p.kind != Phase::Kind::kTrain};
    if (!whisper() && p.kind == Phase::Kind::kPrefill) target.q = target.kv = 1;  // the start token
    const ValueId embedding = write_embedding(w, target.count(), p.batch * source);
    const ValueId states = write_encoder(w, p.batch, source, embedding, !decode);
    write_decoder(w, target, source, states);
    write_head(w, target.count(), embedding);
  }

  Description describe() const override {
    Description d{{"encoder layers", fmt::format("{}", s_.encoder_layers)},
                  {"decoder layers", fmt::format("{}", s_.decoder_layers)},
                  {"hidden", fmt::format("{}", s_.hidden)},
                  {"vocabulary", fmt::format("{}", s_.vocabulary)},
                  {"attention", fmt::format("{} heads of {}", s_.heads, s_.head_dim)},
                  {"feed-forward", fmt::format("{}{}", s_.feed_forward, s_.gated ? ", gated" : "")}};
    if (whisper()) {
      d.emplace_back("audio", fmt::format("{} mel bins, {} encoder positions", s_.mel_bins, s_.max_source_positions));
      d.emplace_back("positions", fmt::format("learned, {}", s_.max_target_positions));
    } else {
      d.emplace_back("positions", fmt::format("relative bias, {} buckets", s_.relative_buckets));
    }
    return d;
  }

 private:
  std::int64_t source_positions(const Phase& p) const {
    if (p.source > 0) return p.source;
    return whisper() || p.kind == Phase::Kind::kDecode ? s_.max_source_positions : p.tokens;
  }

  bool whisper() const { return s_.flavour == EncoderDecoderSpec::Kind::kWhisper; }

  // The decoder's tokens, and the table that T5 shares with its encoder.
  ValueId write_embedding(GraphWriter& w, std::int64_t n, std::int64_t source_tokens) const {
    const std::int64_t h = s_.hidden;
    w.begin_block("decoder.embedding", {});
    const ValueId tokens = w.value("tokens", {n}, Role::kInput);
    const std::int64_t looked_up = std::min(n + (whisper() ? 0 : source_tokens), s_.vocabulary);
    const ValueId table =
        w.table("embedding.weight", {s_.vocabulary, h}, s_.tied_embeddings ? -1.0 : static_cast<double>(looked_up * h));
    ValueId x = w.value("embedded", {n, h});
    w.node("embedding", Embedding{.tokens = n, .width = h, .vocabulary = s_.vocabulary}, {tokens, table}, {x});
    if (whisper()) {
      const std::int64_t positions = s_.max_target_positions;
      const ValueId position_table =
          w.table("decoder.position.weight", {positions, h}, static_cast<double>(std::min(n, positions) * h));
      const ValueId position = w.value("position", {n, h});
      w.node("position_embedding", Embedding{.tokens = n, .width = h, .vocabulary = positions}, {tokens, position_table},
             {position});
      x = write_residual(w, "position_add", n, h, x, position, false);
    } else {
      w.weight("decoder.relative_bias", {s_.relative_buckets, s_.heads});
    }
    w.set_block_output(x);
    w.end_block();
    return table;
  }

  ValueId write_encoder(GraphWriter& w, std::int64_t batch, std::int64_t source, ValueId embedding, bool active) const {
    const std::int64_t n = batch * source;
    const std::int64_t h = s_.hidden;
    w.begin_block("encoder.embedding", {.active = active});
    ValueId x;
    if (whisper()) {
      // Two convolutions over time: mel bins to the hidden width, then a stride of two.
      const std::int64_t frames = 2 * source;
      const ValueId mel = w.value("mel", {batch, s_.mel_bins, frames}, Role::kInput);
      const auto convolve = [&](std::string_view name, ValueId in, std::int64_t channels, std::int64_t in_frames,
                                std::int64_t out_frames) {
        const ValueId weight = w.weight({name, ".weight"}, {h, channels, 1, 3});
        const ValueId bias = w.weight({name, ".bias"}, {h});
        const ValueId out = w.value({name, ".out"}, {batch * out_frames, h});
        w.node(name,
               Convolution{.batch = batch,
                           .in_channels = channels,
                           .out_channels = h,
                           .in_height = 1,
                           .in_width = in_frames,
                           .out_height = 1,
                           .out_width = out_frames,
                           .kernel_width = 3,
                           .bias = true},
               {in, weight, bias}, {out});
        if (fusion_level(w.fusion()).epilogues) return out;
        const ValueId activated = w.value({name, ".activated"}, {batch * out_frames, h});
        w.node({name, "_activation"}, Elementwise{.rows = batch * out_frames, .width = h, .kind = ElementwiseKind::kActivation},
               {out}, {activated});
        return activated;
      };
      x = convolve("conv_1", mel, s_.mel_bins, frames, frames);
      x = convolve("conv_2", x, h, frames, source);
      const ValueId positions = w.table("encoder.position.weight", {s_.max_source_positions, h});
      x = write_residual(w, "position_add", n, h, x, positions, false);
    } else {
      w.weight("encoder.relative_bias", {s_.relative_buckets, s_.heads});
      const ValueId tokens = w.value("source_tokens", {n}, Role::kInput);
      x = w.value("embedded", {n, h});
      w.node("embedding", Embedding{.tokens = n, .width = h, .vocabulary = s_.vocabulary}, {tokens, embedding}, {x});
    }
    w.set_block_output(x);
    w.end_block();

    w.begin_block("encoder.layer", {.repeat = s_.encoder_layers, .active = active});
    x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const Rows rows{.batch = batch, .q = source, .kv = source, .causal = false};
    Stream stream = start(w, n, x);
    stream =
        sub_layer(w, "attention", n, stream, [&](ValueId in) { return write_attention(w, self_, h, rows, in, s_.dropout); });
    stream =
        sub_layer(w, "feed_forward", n, stream, [&](ValueId in) { return write_feed_forward(w, feed_forward_, h, n, in); });
    w.set_block_output(stream.delta.valid() ? stream.delta : stream.x);
    w.end_block();

    w.begin_block("encoder.norm", {.active = active});
    x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const ValueId states = write_norm(w, "encoder_norm", norm_, n, h, x, {}).out;
    w.end_block();
    return states;
  }

  void write_decoder(GraphWriter& w, const Rows& target, std::int64_t source, ValueId states) const {
    const std::int64_t n = target.count();
    const std::int64_t h = s_.hidden;
    const bool compute = w.phase().kind != Phase::Kind::kDecode;
    w.begin_block("decoder.layer", {.repeat = s_.decoder_layers});
    const ValueId x = w.value("hidden", {n, h});
    w.set_block_input(x);
    Rows across = target;
    across.kv = source;
    across.causal = false;
    Stream stream = start(w, n, x);
    stream =
        sub_layer(w, "attention", n, stream, [&](ValueId in) { return write_attention(w, self_, h, target, in, s_.dropout); });
    stream = sub_layer(w, "cross_attention", n, stream, [&](ValueId in) {
      w.set_prefix("cross_");
      const ValueId out =
          write_cross_attention(w, self_, h, across, in, {.states = states, .hidden = h, .compute = compute}, s_.dropout);
      w.set_prefix({});
      return out;
    });
    stream =
        sub_layer(w, "feed_forward", n, stream, [&](ValueId in) { return write_feed_forward(w, feed_forward_, h, n, in); });
    w.set_block_output(stream.delta.valid() ? stream.delta : stream.x);
    w.end_block();
  }

  void write_head(GraphWriter& w, std::int64_t n, ValueId embedding) const {
    const std::int64_t h = s_.hidden;
    w.begin_block("head", {});
    const ValueId x = w.value("hidden", {n, h});
    w.set_block_input(x);
    const ValueId normed = write_norm(w, "final_norm", norm_, n, h, x, {}).out;
    const ValueId weight = s_.tied_embeddings ? embedding : w.table("head.weight", {s_.vocabulary, h});
    const bool all = w.training() || w.phase().all_logits || w.phase().kind == Phase::Kind::kDecode;
    const std::int64_t scored = all ? n : w.phase().batch;
    const ValueId logits = w.value("logits", {scored, s_.vocabulary}, Role::kOutput);
    w.node("lm_head", MatMul{.m = scored, .n = s_.vocabulary, .k = h}, {normed, weight}, {logits});
    if (w.training()) {
      const ValueId loss = w.value("loss", {n});
      w.node("loss", CrossEntropy{.tokens = n, .vocabulary = s_.vocabulary}, {logits}, {loss});
    }
    w.end_block();
  }

  // The residual stream x, and what is still to be added to it by the next norm.
  struct Stream {
    ValueId x, delta;
  };

  bool in_norm(const GraphWriter& w) const {
    return fusion_level(w.fusion()).residual_in_norm && !applies_dropout(w, s_.dropout);
  }

  Stream start(GraphWriter& w, std::int64_t n, ValueId x) const {
    return {x, in_norm(w) ? w.value("carried", {n, s_.hidden}) : ValueId{}};
  }

  // x + f(norm(x))
  template <class Function>
  Stream sub_layer(GraphWriter& w, std::string_view what, std::int64_t n, const Stream& stream,
                   const Function& function) const {
    const std::string_view norm = what == "attention"         ? "attention_norm"
                                  : what == "cross_attention" ? "cross_attention_norm"
                                                              : "feed_forward_norm";
    const std::string_view residual = what == "attention"         ? "attention_residual"
                                      : what == "cross_attention" ? "cross_attention_residual"
                                                                  : "feed_forward_residual";
    const Normed normed = write_norm(w, norm, norm_, n, s_.hidden, stream.x, stream.delta);
    const ValueId out = function(normed.out);
    if (in_norm(w)) return {normed.stream, out};
    return {write_residual(w, residual, n, s_.hidden, normed.stream, out, s_.dropout), {}};
  }

  EncoderDecoderSpec s_;
  AttentionSpec self_;
  FeedForwardSpec feed_forward_;
  NormKind norm_ = NormKind::kRms;
};

}  // namespace

Result<std::shared_ptr<const Architecture>> make_encoder_decoder_architecture(const EncoderDecoderSpec& s) {
  ROOFTREE_TRY_VOID(check_range("encoder_layers", s.encoder_layers, 1, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("decoder_layers", s.decoder_layers, 1, kMaxLayers));
  ROOFTREE_TRY_VOID(check_range("hidden", s.hidden, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("attention.heads", s.heads, 1, kMaxHeads));
  ROOFTREE_TRY_VOID(check_range("attention.head_dim", s.head_dim, 1, kMaxHeads));
  ROOFTREE_TRY_VOID(check_range("attention.heads * head_dim", s.heads * s.head_dim, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("feed_forward.width", s.feed_forward, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("vocabulary", s.vocabulary, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("source positions", s.max_source_positions, 1, kMaxExtent));
  if (s.flavour == EncoderDecoderSpec::Kind::kWhisper) {
    ROOFTREE_TRY_VOID(check_range("audio.mel_bins", s.mel_bins, 1, kMaxExtent));
    ROOFTREE_TRY_VOID(check_range("audio.target_positions", s.max_target_positions, 1, kMaxExtent));
  } else {
    ROOFTREE_TRY_VOID(check_range("positions.buckets", s.relative_buckets, 1, kMaxExtent));
  }
  return std::shared_ptr<const Architecture>(std::make_shared<EncoderDecoder>(s));
}

}  // namespace rooftree::model

#include <fmt/format.h>

#include <array>

#include "model/transformer.h"

// Convolutional networks: ResNet (arXiv:1512.03385, stride in the 3x3 convolution) and the UNet of latent diffusion
// (arXiv:2307.01952).

namespace rooftree::model {
namespace {

// A picture of `channels` planes of side x side.
struct Planes {
  ValueId id;
  std::int64_t channels = 0, side = 0;
  [[nodiscard]] std::int64_t pixels() const { return side * side; }
};

class ConvolutionWriter {
 public:
  ConvolutionWriter(GraphWriter& writer, std::int64_t batch) : w_(writer), batch_(batch) {}

  Planes planes(Name name, std::int64_t channels, std::int64_t side) {
    return {w_.value(name, {batch_ * side * side, channels}), channels, side};
  }

  Planes convolve(std::string_view name, const Planes& in, std::int64_t out_channels, std::int64_t kernel, std::int64_t stride,
                  bool bias) {
    const Planes out = planes({name, ".out"}, out_channels, in.side / stride);
    const ValueId weight = w_.weight({name, ".weight"}, {out_channels, in.channels, kernel, kernel});
    const ValueId bias_id = bias ? w_.weight({name, ".bias"}, {out_channels}) : ValueId{};
    w_.node(name,
            Convolution{.batch = batch_,
                        .in_channels = in.channels,
                        .out_channels = out_channels,
                        .in_height = in.side,
                        .in_width = in.side,
                        .out_height = out.side,
                        .out_width = out.side,
                        .kernel_height = kernel,
                        .kernel_width = kernel,
                        .bias = bias},
            {in.id, weight, bias_id}, {out.id});
    return out;
  }

  Planes norm(std::string_view name, const Planes& in, NormKind kind) {
    return {write_norm(w_, name, kind, batch_ * in.pixels(), in.channels, in.id, {}).out, in.channels, in.side};
  }

  Planes elementwise(Name name, const Planes& in, ElementwiseKind kind) {
    const Planes out = planes(name, in.channels, in.side);
    w_.node(name, Elementwise{.rows = batch_ * in.pixels(), .width = in.channels, .kind = kind}, {in.id}, {out.id});
    return out;
  }

  Planes add(std::string_view name, const Planes& a, const Planes& b) {
    return {write_residual(w_, name, batch_ * a.pixels(), a.channels, a.id, b.id, false), a.channels, a.side};
  }

  GraphWriter& w_;
  std::int64_t batch_;
};

Status check_image_phase(const Phase& phase, std::int64_t side) {
  if (phase.kind == Phase::Kind::kDecode) {
    return Error{ErrorCode::kInvalid, "an image model has no decode phase; expected prefill or train"};
  }
  if (phase.past != 0 || phase.images != 0) return Error{ErrorCode::kInvalid, "past and images must be 0 for an image model"};
  return check_rows(phase, side * side);
}

class ResNet final : public Architecture {
 public:
  explicit ResNet(ResNetSpec spec) : s_(std::move(spec)) {}
  std::string_view kind() const override { return "convolutional"; }
  Status check(const Phase& phase) const override { return check_image_phase(phase, s_.image_size); }
  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch; }

  void write(GraphWriter& w) const override {
    const std::int64_t batch = w.phase().batch;
    ConvolutionWriter c(w, batch);
    w.begin_block("stem", {});
    const Planes pixels{w.value("pixels", {batch, 3, s_.image_size, s_.image_size}, Role::kInput), 3, s_.image_size};
    Planes x = normed_convolution(c, "stem", "stem_norm", "stem_relu", pixels, s_.stage_width[0], 7, 2, true);
    const Planes pooled = c.planes("pooled", x.channels, x.side / 2);
    w.node("max_pool", Pool{.batch = batch, .channels = x.channels, .in_pixels = x.pixels(), .out_pixels = pooled.pixels()},
           {x.id}, {pooled.id});
    x = pooled;
    w.set_block_output(x.id);
    w.end_block();
    static constexpr std::array<std::string_view, 8> kFirst = {"stage1.first", "stage2.first", "stage3.first", "stage4.first",
                                                               "stage5.first", "stage6.first", "stage7.first", "stage8.first"};
    static constexpr std::array<std::string_view, 8> kRest = {"stage1", "stage2", "stage3", "stage4",
                                                              "stage5", "stage6", "stage7", "stage8"};
    for (std::size_t stage = 0; stage < s_.stage_blocks.size(); ++stage) {
      x = write_bottleneck(c, kFirst[stage], 1, x, s_.stage_width[stage], stage == 0 ? 1 : 2, true);
      if (s_.stage_blocks[stage] > 1) {
        x = write_bottleneck(c, kRest[stage], s_.stage_blocks[stage] - 1, x, s_.stage_width[stage], 1, false);
      }
    }
    w.begin_block("head", {});
    const Planes in = c.planes("hidden", x.channels, x.side);
    w.set_block_input(in.id);
    const ValueId average = w.value("average", {batch, x.channels});
    w.node("average_pool", Pool{.batch = batch, .channels = x.channels, .in_pixels = x.pixels(), .out_pixels = 1}, {in.id},
           {average});
    const ValueId weight = w.weight("head.weight", {s_.classes, x.channels});
    const ValueId bias = w.weight("head.bias", {s_.classes});
    const ValueId logits = w.value("logits", {batch, s_.classes}, Role::kOutput);
    w.node("head", MatMul{.m = batch, .n = s_.classes, .k = x.channels, .bias = true}, {average, weight, bias}, {logits});
    if (w.training()) {
      const ValueId loss = w.value("loss", {batch});
      w.node("loss", CrossEntropy{.tokens = batch, .vocabulary = s_.classes}, {logits}, {loss});
    }
    w.end_block();
  }

  Description describe() const override {
    return {{"blocks per stage", fmt::format("{}", fmt::join(s_.stage_blocks, ", "))},
            {"width per stage", fmt::format("{} (times {})", fmt::join(s_.stage_width, ", "), s_.expansion)},
            {"image", fmt::format("{} px", s_.image_size)},
            {"classes", fmt::format("{}", s_.classes)}};
  }

 private:
  // Convolution, batch norm, ReLU. Inference engines fold the norm into the convolution and the ReLU into its epilogue.
  Planes normed_convolution(ConvolutionWriter& c, std::string_view conv, std::string_view norm, std::string_view relu,
                            const Planes& in, std::int64_t out_channels, std::int64_t kernel, std::int64_t stride,
                            bool activate) const {
    const bool folded = fusion_level(c.w_.fusion()).merged_products && !c.w_.training();
    if (folded) {
      const Planes out = c.convolve(conv, in, out_channels, kernel, stride, false);
      c.w_.weight({norm, ".weight"}, {out_channels});
      c.w_.weight({norm, ".bias"}, {out_channels});
      return out;
    }
    const Planes out = c.norm(norm, c.convolve(conv, in, out_channels, kernel, stride, false), NormKind::kBatch);
    return activate ? c.elementwise(relu, out, ElementwiseKind::kRelu) : out;
  }

  Planes write_bottleneck(ConvolutionWriter& c, std::string_view name, std::int64_t repeat, const Planes& in,
                          std::int64_t width, std::int64_t stride, bool project) const {
    GraphWriter& w = c.w_;
    w.begin_block(name, {.repeat = repeat});
    const Planes x = c.planes("hidden", in.channels, in.side);
    w.set_block_input(x.id);
    Planes y = normed_convolution(c, "conv1", "norm1", "relu1", x, width, 1, 1, true);
    y = normed_convolution(c, "conv2", "norm2", "relu2", y, width, 3, stride, true);
    y = normed_convolution(c, "conv3", "norm3", "relu3", y, width * s_.expansion, 1, 1, false);
    const Planes shortcut = project ? normed_convolution(c, "projection", "projection_norm", "projection_relu", x,
                                                         width * s_.expansion, 1, stride, false)
                                    : x;
    Planes sum = c.add("residual", shortcut, y);
    if (!fusion_level(w.fusion()).merged_products || w.training()) sum = c.elementwise("relu", sum, ElementwiseKind::kRelu);
    w.set_block_output(sum.id);
    w.end_block();
    return sum;
  }

  ResNetSpec s_;
};

class UNet final : public Architecture {
 public:
  explicit UNet(UNetSpec spec) : s_(std::move(spec)) {}
  std::string_view kind() const override { return "diffusion unet"; }
  Status check(const Phase& phase) const override { return check_image_phase(phase, s_.latent_size); }
  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch; }

  // One call of the denoiser: down through the levels, through the middle, and up with the kept states beside.
  void write(GraphWriter& w) const override {
    const std::int64_t batch = w.phase().batch;
    ConvolutionWriter c(w, batch);
    write_embeddings(w, batch);
    const std::int64_t base = s_.model_channels;
    const std::size_t levels = s_.channel_multipliers.size();

    w.begin_block("input", {});
    const Planes latent{w.value("latent", {batch, s_.in_channels, s_.latent_size, s_.latent_size}, Role::kInput),
                        s_.in_channels, s_.latent_size};
    Planes x = c.convolve("conv_in", latent, base, 3, 1, true);
    w.set_block_output(x.id);
    w.end_block();

    static thread_local std::vector<Planes> kept;  // what the way up joins to; kept between graphs for its storage
    kept.assign(1, x);
    for (std::size_t level = 0; level < levels; ++level) {
      const std::int64_t channels = base * s_.channel_multipliers[level];
      for (std::int64_t i = 0; i < s_.residual_blocks; ++i) {
        x = write_stage(c, "down", x, {}, channels, s_.transformer_depth[level]);
        kept.push_back(x);
      }
      if (level + 1 == levels) continue;
      w.begin_block("downsample", {});
      const Planes in = c.planes("hidden", x.channels, x.side);
      w.set_block_input(in.id);
      x = c.convolve("downsample", in, x.channels, 3, 2, true);
      w.set_block_output(x.id);
      w.end_block();
      kept.push_back(x);
    }
    x = write_stage(c, "middle", x, {}, x.channels, s_.transformer_depth.back());
    x = write_stage(c, "middle", x, {}, x.channels, 0);
    for (std::size_t level = levels; level-- > 0;) {
      const std::int64_t channels = base * s_.channel_multipliers[level];
      for (std::int64_t i = 0; i <= s_.residual_blocks; ++i) {
        x = write_stage(c, "up", x, kept.back(), channels, s_.transformer_depth[level]);
        kept.pop_back();
      }
      if (level == 0) continue;
      w.begin_block("upsample", {});
      const Planes in = c.planes("hidden", x.channels, x.side);
      w.set_block_input(in.id);
      const Planes large = c.planes("upsampled", x.channels, 2 * x.side);
      w.node("interpolate",
             Pool{.batch = batch, .channels = x.channels, .in_pixels = in.pixels(), .out_pixels = large.pixels()}, {in.id},
             {large.id});
      x = c.convolve("upsample", large, x.channels, 3, 1, true);
      w.set_block_output(x.id);
      w.end_block();
    }
    w.begin_block("output", {});
    const Planes in = c.planes("hidden", x.channels, x.side);
    w.set_block_input(in.id);
    Planes y = c.norm("norm_out", in, NormKind::kGroup);
    if (!fused(w)) y = c.elementwise("silu_out", y, ElementwiseKind::kActivation);
    c.convolve("conv_out", y, s_.out_channels, 3, 1, true);
    w.end_block();
  }

  Description describe() const override {
    return {{"channels per level", fmt::format("{} times {}", s_.model_channels, fmt::join(s_.channel_multipliers, ", "))},
            {"residual blocks per level", fmt::format("{}", s_.residual_blocks)},
            {"transformer depth per level", fmt::format("{}", fmt::join(s_.transformer_depth, ", "))},
            {"context", fmt::format("{} tokens of {}", s_.context_tokens, s_.context_dim)},
            {"latent", fmt::format("{} x {} x {}", s_.in_channels, s_.latent_size, s_.latent_size)}};
  }

 private:
  static bool fused(const GraphWriter& w) { return fusion_level(w.fusion()).merged_products; }
  std::int64_t time_width() const { return 4 * s_.model_channels; }

  ValueId product(GraphWriter& w, std::string_view name, std::int64_t rows, std::int64_t in_width, std::int64_t out_width,
                  ValueId in, bool bias = true) const {
    const ValueId weight = w.weight({name, ".weight"}, {out_width, in_width});
    const ValueId bias_id = bias ? w.weight({name, ".bias"}, {out_width}) : ValueId{};
    const ValueId out = w.value({name, ".out"}, {rows, out_width});
    w.node(name, MatMul{.m = rows, .n = out_width, .k = in_width, .bias = bias}, {in, weight, bias_id}, {out});
    return out;
  }

  void write_embeddings(GraphWriter& w, std::int64_t batch) const {
    const std::int64_t t = time_width();
    w.begin_block("embedding", {});
    const ValueId step = w.value("step", {batch, s_.model_channels}, Role::kInput);
    ValueId x = product(w, "time_1", batch, s_.model_channels, t, step);
    x = product(w, "time_2", batch, t, t, x);
    if (s_.vector_dim > 0) {
      const ValueId vector = w.value("vector", {batch, s_.vector_dim}, Role::kInput);
      const ValueId y = product(w, "vector_2", batch, t, t, product(w, "vector_1", batch, s_.vector_dim, t, vector));
      x = write_residual(w, "embedding_add", batch, t, x, y, false);
    }
    w.set_block_output(x);
    w.end_block();
  }

  // A residual block and the transformer behind it.
  Planes write_stage(ConvolutionWriter& c, std::string_view name, const Planes& before, const Planes& beside,
                     std::int64_t channels, std::int64_t depth) const {
    GraphWriter& w = c.w_;
    const std::int64_t in_channels = before.channels + beside.channels;
    w.begin_block(name, {});
    const Planes x = c.planes("hidden", in_channels, before.side);
    w.set_block_input(x.id);
    Planes y = c.norm("norm1", x, NormKind::kGroup);
    if (!fused(w)) y = c.elementwise("silu1", y, ElementwiseKind::kActivation);
    y = c.convolve("conv1", y, channels, 3, 1, true);
    const ValueId time = w.value("time", {c.batch_, time_width()});
    product(w, "time_proj", c.batch_, time_width(), channels, time);
    if (!fused(w)) y = c.elementwise("time_add", y, ElementwiseKind::kScale);
    y = c.norm("norm2", y, NormKind::kGroup);
    if (!fused(w)) y = c.elementwise("silu2", y, ElementwiseKind::kActivation);
    y = c.convolve("conv2", y, channels, 3, 1, true);
    const Planes shortcut = in_channels == channels ? x : c.convolve("skip", x, channels, 1, 1, true);
    Planes out = c.add("residual", shortcut, y);
    const std::int64_t rows = c.batch_ * out.pixels();
    Planes normed;
    if (depth > 0) {
      normed = c.norm("transformer_norm", out, NormKind::kGroup);
      normed.id = product(w, "transformer_in", rows, channels, channels, normed.id);
    }
    w.set_block_output(depth > 0 ? normed.id : out.id);
    w.end_block();
    if (depth == 0) return out;

    w.begin_block(name == "down" ? "down.transformer"
                  : name == "up" ? "up.transformer"
                                 : "middle.transformer",
                  {.repeat = depth});
    const ValueId stream = w.value("hidden", {rows, channels});
    w.set_block_input(stream);
    const AttentionSpec attention{.heads = channels / s_.head_channels,
                                  .kv_heads = channels / s_.head_channels,
                                  .head_dim = s_.head_channels,
                                  .value_dim = s_.head_channels,
                                  .o_bias = true};
    const Rows self{.batch = c.batch_, .q = out.pixels(), .kv = out.pixels(), .causal = false};
    Rows across = self;
    across.kv = s_.context_tokens;
    ValueId z = write_norm(w, "attention_norm", NormKind::kLayer, rows, channels, stream, {}).out;
    z = write_residual(w, "attention_residual", rows, channels, stream, write_attention(w, attention, channels, self, z, false),
                       false);
    ValueId n = write_norm(w, "cross_norm", NormKind::kLayer, rows, channels, z, {}).out;
    const ValueId context = w.value("context", {c.batch_ * s_.context_tokens, s_.context_dim}, Role::kInput);
    w.set_prefix("cross_");
    n = write_cross_attention(w, attention, channels, across, n, {.states = context, .hidden = s_.context_dim}, false);
    w.set_prefix({});
    z = write_residual(w, "cross_residual", rows, channels, z, n, false);
    n = write_norm(w, "feed_forward_norm", NormKind::kLayer, rows, channels, z, {}).out;
    n = write_feed_forward(w, {.width = 4 * channels, .gated = true, .bias = true}, channels, rows, n);
    w.set_block_output(write_residual(w, "feed_forward_residual", rows, channels, z, n, false));
    w.end_block();

    w.begin_block("transformer_out", {});
    const ValueId last = w.value("hidden", {rows, channels});
    w.set_block_input(last);
    const ValueId projected = product(w, "transformer_out", rows, channels, channels, last);
    const Planes before_transformer = c.planes("before_transformer", channels, out.side);
    out.id = write_residual(w, "transformer_residual", rows, channels, before_transformer.id, projected, false);
    w.set_block_output(out.id);
    w.end_block();
    return out;
  }

  UNetSpec s_;
};

}  // namespace

Result<std::shared_ptr<const Architecture>> make_resnet_architecture(const ResNetSpec& s) {
  ROOFTREE_TRY_VOID(check_range("stage_blocks: stages", static_cast<std::int64_t>(s.stage_blocks.size()), 1, 8));
  if (s.stage_blocks.size() != s.stage_width.size()) {
    return Error{ErrorCode::kInvalid, fmt::format("stage_width: {} stages; expected {} as in stage_blocks",
                                                  s.stage_width.size(), s.stage_blocks.size())};
  }
  for (const std::int64_t blocks : s.stage_blocks) ROOFTREE_TRY_VOID(check_range("stage_blocks", blocks, 1, 10'000));
  for (const std::int64_t width : s.stage_width) ROOFTREE_TRY_VOID(check_range("stage_width", width, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("expansion", s.expansion, 1, 64));
  // Stem, pooling and every stage but the first halve the side.
  ROOFTREE_TRY_VOID(check_range("image_size", s.image_size, std::int64_t{2} << s.stage_blocks.size(), 65'536));
  ROOFTREE_TRY_VOID(check_range("classes", s.classes, 1, kMaxExtent));
  return std::shared_ptr<const Architecture>(std::make_shared<ResNet>(s));
}

Result<std::shared_ptr<const Architecture>> make_unet_architecture(const UNetSpec& s) {
  const std::size_t levels = s.channel_multipliers.size();
  ROOFTREE_TRY_VOID(check_range("channel_multipliers: levels", static_cast<std::int64_t>(levels), 1, 8));
  if (s.transformer_depth.size() != levels) {
    return Error{ErrorCode::kInvalid, fmt::format("transformer_depth: {} levels; expected {} as in channel_multipliers",
                                                  s.transformer_depth.size(), levels)};
  }
  ROOFTREE_TRY_VOID(check_range("in_channels", s.in_channels, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("out_channels", s.out_channels, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("model_channels", s.model_channels, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("residual_blocks", s.residual_blocks, 1, 1000));
  ROOFTREE_TRY_VOID(check_range("head_channels", s.head_channels, 1, 65'536));
  ROOFTREE_TRY_VOID(check_range("context_dim", s.context_dim, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("context_tokens", s.context_tokens, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("vector_dim", s.vector_dim, 0, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("latent_size", s.latent_size, std::int64_t{1} << (levels - 1), 65'536));
  for (std::size_t level = 0; level < levels; ++level) {
    ROOFTREE_TRY_VOID(check_range("channel_multipliers", s.channel_multipliers[level], 1, 256));
    ROOFTREE_TRY_VOID(check_range("transformer_depth", s.transformer_depth[level], 0, 1000));
    const std::int64_t channels = s.model_channels * s.channel_multipliers[level];
    if (s.transformer_depth[level] > 0 && channels % s.head_channels != 0) {
      return Error{ErrorCode::kInvalid, fmt::format("head_channels: {}; expected a divisor of the {} channels of level {}",
                                                    s.head_channels, channels, level)};
    }
  }
  return std::shared_ptr<const Architecture>(std::make_shared<UNet>(s));
}

}  // namespace rooftree::model

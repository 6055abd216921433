// Best achievable products (stas00's MAMF finder, Google's TPU sweep), the FlashAttention papers' bars, and Korthikanti's
// layer.

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "validate/adapters.h"

namespace rooftree::validate {
namespace {

using cost::AttentionKernel;
using model::MatMul;

std::optional<KernelCase> product_case(const Row& row, const machine::Chip& chip, Outcome& outcome,
                                       std::string_view rate_column) {
  const auto m = row.integer("m", 1, kMaxDimension);
  const auto n = row.integer("n", 1, kMaxDimension);
  const auto k = row.integer("k", 1, kMaxDimension);
  const auto rate = row.number(rate_column);
  if (refuse_errors(outcome, m, n, k, rate)) return std::nullopt;
  const std::string_view dtype = row.text("dtype");
  Arithmetic arithmetic = Arithmetic::kBf16;
  double bytes = 2;
  if (dtype.starts_with("fp8")) {
    arithmetic = Arithmetic::kFp8;
    bytes = 1;
  } else if (dtype == "int8") {
    arithmetic = Arithmetic::kInt8;
    bytes = 1;
  } else if (dtype == "fp16") {
    arithmetic = Arithmetic::kFp16;
  } else if (dtype != "bf16") {
    outcome.refuse(fmt::format("dtype {}", dtype));
    return std::nullopt;
  }
  KernelCase c;
  c.chip = &chip;
  cost::Operands o = plain_operands(chip, arithmetic);
  o.weight_bytes = o.activation_bytes = bytes;
  o.activation_cast = false;  // the operands are made in the type of the product
  c.set = fmt::format("gemm {}", name(arithmetic));
  c.terms.push_back({MatMul{.m = *m, .n = *n, .k = *k}, o, 1});
  c.measured = 2.0 * static_cast<double>(*m) * static_cast<double>(*n) * static_cast<double>(*k) / (*rate * 1e12);
  return c;
}

class Mamf final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_named(row.text("accelerator"), context, outcome);
    if (chip == nullptr) return {};
    auto c = product_case(row, *chip, outcome, "achieved_mean_tflops");
    if (!c) return {};
    c->group = fmt::format("{} {}", row.text("accelerator"), row.text("dtype"));
    return {std::move(*c)};
  }
};

// "TPU v7x (Ironwood) per device (=1 of 2 cores?)" is half a chip: its best rate is 83 % of half the chip's peak.
class TpuGemm final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const std::string_view text = row.text("chip");
    const auto contains = [text](std::string_view part) { return text.find(part) != std::string_view::npos; };
    const bool core = contains("per device");
    const machine::Machine* machine = context.machine(contains("v7") && core ? "google-tpu-v7-core"
                                                      : contains("v7")       ? "google-tpu-v7"
                                                      : contains("v6")       ? "google-tpu-v6e"
                                                      : contains("v5p")      ? "google-tpu-v5p"
                                                      : contains("v5")       ? "google-tpu-v5e"
                                                      : contains("v4")       ? "google-tpu-v4"
                                                      : contains("v3")       ? "google-tpu-v3"
                                                                             : "");
    if (machine == nullptr) {
      outcome.refuse(fmt::format("chip {} is not in the catalogue", text));
      return {};
    }
    const machine::Chip* chip = &machine->chip();
    auto c = product_case(row, *chip, outcome, "tflops");
    if (!c) return {};
    c->group = chip->id;
    return {std::move(*c)};
  }
};

// FlashAttention benchmarks: hidden size 2048, so 2048 / head_dim heads; FLOP counted as 4 s^2 d heads (half of it if
// causal), 2.5 times that for the backward pass.
class FlashAttention final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_named(row.text("gpu"), context, outcome);
    if (chip == nullptr) return {};
    const auto sequence = row.integer("seq_len", 1, 1 << 26);
    const auto total = row.integer("total_tokens_batch_times_seq", 1, kMaxDimension);
    const auto head_dim = row.integer("head_dim", 1, 2048);
    const auto causal = row.boolean("causal");
    const auto rate = row.number("tflops");
    if (refuse_errors(outcome, sequence, total, head_dim, causal, rate)) return {};
    if (*rate <= 0) {
      outcome.refuse("measured value is not positive");
      return {};
    }
    const std::string_view pass = row.text("pass");
    const bool forward = pass.starts_with("fwd");
    const bool backward = pass.ends_with("bwd");
    if (!forward && !backward) {
      outcome.refuse(fmt::format("pass {}", pass));
      return {};
    }
    const std::string_view method = row.text("method");
    std::optional<AttentionKernel> kernel;
    if (method == "pytorch" || method == "standard") kernel = AttentionKernel::kUnfused;
    if (method == "flash1" || method == "xformers")
      kernel = AttentionKernel::kFlash1;  // both: one warp group per key block, CUTLASS 2
    if (method == "triton") kernel = AttentionKernel::kTriton;
    if (method == "flash2") kernel = AttentionKernel::kFlash2;
    if (method == "flash3" || method == "flash4") kernel = AttentionKernel::kFlash3;
    if (method == "cudnn") kernel = AttentionKernel::kCudnn;
    if (!kernel) {
      outcome.refuse(fmt::format("method {}", method));
      return {};
    }
    const std::int64_t batch = std::max<std::int64_t>(1, *total / *sequence);
    const std::int64_t heads = std::max<std::int64_t>(1, 2048 / *head_dim);
    const bool fp8 = row.text("dtype") == "fp8" || row.text("precision") == "fp8";
    const cost::Operands o = plain_operands(*chip, fp8 ? Arithmetic::kFp8 : Arithmetic::kFp16);
    KernelCase c;
    c.chip = chip;
    c.group = fmt::format("{} {} {}", row.text("gpu"), pass, method);
    c.software.attention = *kernel;
    c.set = fmt::format("attention_prefill {}", name(*kernel));
    if (*kernel == AttentionKernel::kUnfused) {
      add_unfused(c, o, batch * heads, *sequence, *head_dim, *causal, forward, backward);
      c.set = "unfused";
    } else {
      model::Attention op{.batch = batch,
                          .q_tokens = *sequence,
                          .kv_tokens = *sequence,
                          .heads = heads,
                          .kv_heads = heads,
                          .head_dim = *head_dim,
                          .value_dim = *head_dim,
                          .causal = *causal,
                          .cached = false};
      if (forward) c.terms.push_back({op, o, 1});
      op.backward = true;
      if (backward) c.terms.push_back({op, o, 1});
    }
    const auto s = static_cast<double>(*sequence);
    const double flop = 4 * static_cast<double>(batch) * static_cast<double>(heads) * s * s * static_cast<double>(*head_dim) /
                        (*causal ? 2 : 1) * ((forward ? 1.0 : 0.0) + (backward ? 2.5 : 0.0));
    c.measured = flop / (*rate * 1e12);
    return {std::move(c)};
  }

 private:
  // The reference of those benchmarks: scores, mask added where causal, softmax, dropout of rate zero left out; then the
  // gradients of each. Everything is materialised.
  static void add_unfused(KernelCase& c, const cost::Operands& o, std::int64_t products, std::int64_t s, std::int64_t d,
                          bool causal, bool forward, bool backward) {
    const MatMul scores{.m = s, .n = s, .k = d, .batch = products, .weight = false};
    const MatMul values{.m = s, .n = d, .k = s, .batch = products, .weight = false};
    const model::Elementwise mask{.rows = products * s, .width = s, .kind = model::ElementwiseKind::kAdd, .inputs = 1};
    const model::Softmax softmax{.rows = products * s, .width = s};
    if (forward) {
      c.terms.push_back({scores, o, 1});
      if (causal) c.terms.push_back({mask, o, 1});
      c.terms.push_back({softmax, o, 1});
      c.terms.push_back({values, o, 1});
    }
    if (backward) {
      model::Softmax gradient = softmax;
      gradient.backward = true;
      c.terms.push_back({values, o, 3});  // dV = P^T dO, dQ = dS K, dK = dS^T Q
      c.terms.push_back({scores, o, 1});  // dP = dO V^T
      c.terms.push_back({gradient, o, 1});
    }
  }
};

// Layers split over eight GPUs with their all-reduces inside: no reading for one chip.
class Korthikanti final : public Adapter {
 public:
  void read(const Row& row, Context&, Outcome& outcome) override {
    outcome.refuse(
        fmt::format("layer split over {} chips with its collectives", row.text("tp").empty() ? "several" : row.text("tp")));
  }
};

}  // namespace

std::unique_ptr<KernelAdapter> stas00_mamf_gemm() { return std::make_unique<Mamf>(); }
std::unique_ptr<KernelAdapter> google_tpu_gemm() { return std::make_unique<TpuGemm>(); }
std::unique_ptr<KernelAdapter> flash_attention_tflops() { return std::make_unique<FlashAttention>(); }
std::unique_ptr<Adapter> korthikanti_layer_time() { return std::make_unique<Korthikanti>(); }

}  // namespace rooftree::validate

// Operators of transformer layers one by one: Vidur's profiles (CUDA events around the layers of a running vLLM of early 2024,
// so products follow each other) and LLMCompass's measurements (each operator called from Python and awaited).

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "validate/adapters.h"

namespace rooftree::validate {
namespace {

using model::Elementwise;
using model::ElementwiseKind;
using model::MatMul;
using model::Norm;
using model::NormKind;
using model::Operator;
using model::Softmax;

class Vidur final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_named(row.text("gpu"), context, outcome);
    if (chip == nullptr) return {};
    const auto heads = row.integer("n_head", 1, 1 << 14);
    const auto kv_heads = row.integer("n_kv_head", 1, 1 << 14);
    const auto width = row.integer("n_embd", 1, 1 << 20);
    const auto ffn = row.integer("n_ffn", 1, 1 << 20);
    const auto tp = row.integer("tensor_parallel", 1, 1 << 10);
    const auto tokens = row.integer("num_tokens", 1, kMaxDimension);
    const auto gated = row.boolean("gated_mlp");
    if (refuse_errors(outcome, heads, kv_heads, width, ffn, tp, tokens, gated)) return {};
    const std::int64_t head_dim = std::max<std::int64_t>(1, *width / *heads);
    const std::int64_t q = std::max<std::int64_t>(1, *heads / *tp) * head_dim;
    const std::int64_t kv = std::max<std::int64_t>(1, *kv_heads / *tp) * head_dim;
    const std::int64_t inner = std::max<std::int64_t>(1, *ffn / *tp);
    const std::int64_t t = *tokens;
    const bool is_phi = row.text("model").find("phi") != std::string_view::npos;
    const Norm norm{.rows = t, .width = *width, .kind = is_phi ? NormKind::kLayer : NormKind::kRms};
    struct Column {
      std::string_view name, set;
      Operator op;
    };
    const std::array<Column, 10> columns = {{
        {"emb", "stream embedding simple", model::Embedding{.tokens = t, .width = *width, .vocabulary = 32000}},
        {"input_layernorm", "stream norm simple", norm},
        {"attn_pre_proj", "gemm bf16 sustained", MatMul{.m = t, .n = q + 2 * kv, .k = *width}},
        {"attn_rope", "stream rope simple", Elementwise{.rows = t, .width = q + kv, .kind = ElementwiseKind::kRope}},
        {"attn_post_proj", "gemm bf16 sustained", MatMul{.m = t, .n = *width, .k = q}},
        {"post_attention_layernorm", "stream norm simple", norm},
        {"mlp_up_proj", "gemm bf16 sustained", MatMul{.m = t, .n = *gated ? 2 * inner : inner, .k = *width}},
        {"mlp_act", "stream activation simple",
         Elementwise{.rows = t,
                     .width = inner,
                     .kind = *gated ? ElementwiseKind::kGatedActivation : ElementwiseKind::kActivation,
                     .inputs = *gated ? 2 : 1}},
        {"mlp_down_proj", "gemm bf16 sustained", MatMul{.m = t, .n = *width, .k = inner}},
        {"add", "stream elementwise simple",
         Elementwise{.rows = t, .width = *width, .kind = ElementwiseKind::kAdd, .inputs = 2}},
    }};
    std::vector<KernelCase> cases;
    for (const Column& column : columns) {
      const std::string name = fmt::format("{}_median_ms", column.name);
      if (row.text(name).empty()) continue;  // models with parallel attention have one norm
      const auto time = row.number(name);
      if (!time) {
        outcome.refuse(time.error().message);
        continue;
      }
      if (*time <= 0) continue;
      KernelCase c;
      c.what = std::string(column.name);
      c.group = fmt::format("{} {}", row.text("gpu"), column.name);
      c.set = std::string(column.set);
      c.chip = chip;
      c.software.attention = cost::AttentionKernel::kFlash2;
      c.software.streams = cost::StreamKernels::kSimple;
      c.software.sustained = true;
      c.terms.push_back({column.op, plain_operands(*chip, Arithmetic::kFp16), 1});
      c.measured = *time * 1e-3;
      cases.push_back(std::move(c));
    }
    return cases;
  }
};

// LLMCompass names its devices "A100_80GB", "MI210", "TPUv3_core" (one of the two cores of a TPU v3 chip).
class LlmCompass : public KernelAdapter {
 protected:
  const machine::Chip* device(const Row& row, Context& context, Outcome& outcome) {
    const std::string_view name = row.text("device");
    return chip_named(name == "TPUv3_core" ? "google-tpu-v3-core" : name, context, outcome);
  }

  KernelCase eager(const Row& row, const machine::Chip& chip, std::string_view what, std::string_view set, const Operator& op,
                   double us) {
    KernelCase c;
    c.what = std::string(what);
    c.group = fmt::format("{} {}", row.text("device"), what);
    c.set = std::string(set);
    c.chip = &chip;
    c.timing = Timing::kEager;
    const bool wide = row.text("dtype").starts_with("fp32");
    cost::Operands o = plain_operands(chip, wide ? Arithmetic::kFp32 : Arithmetic::kFp16);
    if (wide) o.weight_bytes = o.activation_bytes = o.output_bytes = o.kv_bytes = 4;
    c.terms.push_back({op, o, 1});
    c.measured = us * 1e-6;
    return c;
  }
};

class LlmCompassOperators final : public LlmCompass {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = device(row, context, outcome);
    if (chip == nullptr) return {};
    const std::string_view op = row.text("op");
    const auto m = row.integer("m", 1, kMaxDimension);
    const auto time = row.number("latency_us");
    if (refuse_errors(outcome, m, time)) return {};
    if (op == "gelu") {
      return {eager(row, *chip, op, "stream activation",
                    Elementwise{.rows = 1, .width = *m, .kind = ElementwiseKind::kActivation}, *time)};
    }
    const auto n = row.integer("n", 1, kMaxDimension);
    if (refuse_errors(outcome, n)) return {};
    if (op == "softmax") return {eager(row, *chip, op, "stream softmax", Softmax{.rows = *m, .width = *n}, *time)};
    if (op == "layernorm") {
      return {eager(row, *chip, op, "stream norm", Norm{.rows = *m, .width = *n, .kind = NormKind::kLayer}, *time)};
    }
    const auto k = row.integer("k", 1, kMaxDimension);
    if (op != "matmul" || !k) {
      outcome.refuse(op != "matmul" ? fmt::format("operator {}", op) : k.error().message);
      return {};
    }
    return {eager(row, *chip, op, "gemm bf16 eager", MatMul{.m = *m, .n = *n, .k = *k}, *time)};
  }
};

// One layer of GPT-3 split over several devices: every operator of one device is an ordinary, smaller operator.
class LlmCompassLayer final : public LlmCompass {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const std::string_view name = row.text("operator");
    if (name.starts_with("AllReduce")) {
      outcome.refuse("collective");
      return {};
    }
    const machine::Chip* chip = device(row, context, outcome);
    if (chip == nullptr) return {};
    const auto tp = row.integer("tensor_parallel_devices", 1, 1 << 10);
    const auto batch = row.integer("batch", 1, 1 << 20);
    const auto input = row.integer("input_len_tokens", 1, 1 << 24);
    const auto done = row.integer("output_tokens_already_in_kv", 0, 1 << 24);
    const auto width = row.integer("d_model", 1, 1 << 20);
    const auto heads = row.integer("n_heads", 1, 1 << 14);
    const auto time = row.number("latency_us");
    if (refuse_errors(outcome, tp, batch, input, done, width, heads, time)) return {};
    if (*tp > *heads) {
      outcome.refuse("more devices than heads");
      return {};
    }
    const bool decode = row.text("phase") == "decode";
    const std::int64_t queries = decode ? 1 : *input;
    const std::int64_t keys = *input + *done;
    const std::int64_t tokens = *batch * queries;
    const std::int64_t local = *width / *tp;
    const std::int64_t head_dim = std::max<std::int64_t>(1, *width / *heads);
    const std::int64_t products = *batch * (*heads / *tp);
    std::string_view set = "gemm bf16 eager";
    Operator op;
    if (name == "Q_K_V") {
      op = MatMul{.m = tokens, .n = 3 * local, .k = *width};
    } else if (name == "Q_mul_K") {
      op = MatMul{.m = queries, .n = keys, .k = head_dim, .batch = products, .weight = false};
    } else if (name == "A_mul_V") {
      op = MatMul{.m = queries, .n = head_dim, .k = keys, .batch = products, .weight = false};
    } else if (name == "Wo_proj") {
      op = MatMul{.m = tokens, .n = *width, .k = local};
    } else if (name == "W1_proj") {
      op = MatMul{.m = tokens, .n = 4 * local, .k = *width};
    } else if (name == "W2_proj") {
      op = MatMul{.m = tokens, .n = *width, .k = 4 * local};
    } else if (name == "Softmax") {
      op = Softmax{.rows = products * queries, .width = keys};
      set = "stream softmax";
    } else if (name.starts_with("LayerNorm")) {
      op = Norm{.rows = tokens, .width = *width, .kind = NormKind::kLayer};
      set = "stream norm";
    } else if (name == "GeLU") {
      op = Elementwise{.rows = tokens, .width = 4 * local, .kind = ElementwiseKind::kActivation};
      set = "stream activation";
    } else {
      outcome.refuse(fmt::format("operator {}", name));
      return {};
    }
    KernelCase c = eager(row, *chip, name, set, op, *time);
    c.group = fmt::format("{} {}", row.text("device"), row.text("phase"));
    return {std::move(c)};
  }
};

}  // namespace

std::unique_ptr<KernelAdapter> vidur_linear_ops() { return std::make_unique<Vidur>(); }
std::unique_ptr<KernelAdapter> llmcompass_operators() { return std::make_unique<LlmCompassOperators>(); }
std::unique_ptr<KernelAdapter> llmcompass_gpt3_layer() { return std::make_unique<LlmCompassLayer>(); }

}  // namespace rooftree::validate

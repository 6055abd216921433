// Kernel tables of NVIDIA's aiconfigurator: GEMM, attention and mixture-of-experts times by shape. What its collectors do
// (repository ai-dynamo/aiconfigurator, collector/{trtllm,vllm}/*.py) decides what the operands find in the caches:
//   - GEMM of TensorRT-LLM: ceil(L2 / weight bytes) copies of the weight, at most 5, are used in turn, always with the same
//     activations; of vLLM: six copies, one for block-scaled types;
//   - attention: one captured graph over one cache is replayed;
//   - all times are device times of captured graphs.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "validate/adapters.h"

namespace rooftree::validate {
namespace {

struct Precision {
  Arithmetic arithmetic = Arithmetic::kBf16;
  double weight_bytes = 2;
  double activation_bytes = 2;  // as stored before the product
  bool weight_only = false;
  cost::Scaling scaling = cost::Scaling::kTensor;
};

// Quantisation modes as aiconfigurator names them.
std::optional<Precision> parse_precision(std::string_view text) {
  if (text == "bfloat16" || text == "float16") return Precision{text == "float16" ? Arithmetic::kFp16 : Arithmetic::kBf16};
  if (text == "fp8" || text == "fp8_static" || text == "fp8_ootb")
    return Precision{.arithmetic = Arithmetic::kFp8, .weight_bytes = 1};
  if (text == "fp8_block")
    return Precision{.arithmetic = Arithmetic::kFp8, .weight_bytes = 1, .scaling = cost::Scaling::kBlock};
  if (text == "nvfp4") return Precision{.arithmetic = Arithmetic::kFp4, .weight_bytes = 0.5625};
  if (text == "int8_wo") return Precision{.weight_bytes = 1, .weight_only = true};
  if (text == "int4_wo" || text == "w4a16") return Precision{.weight_bytes = 0.5, .weight_only = true};
  if (text == "w4a16_mxfp4") return Precision{.weight_bytes = 0.53125, .weight_only = true};
  if (text == "w4a8_mxfp4_mxfp8") return Precision{.arithmetic = Arithmetic::kFp8, .weight_bytes = 0.53125};
  if (text == "w4afp8") return Precision{.arithmetic = Arithmetic::kFp8, .weight_bytes = 0.5625};
  if (text == "sq" || text == "int8") return Precision{.arithmetic = Arithmetic::kInt8, .weight_bytes = 1};
  return std::nullopt;
}

const machine::Chip* chip_of(const Row& row, Context& context, Outcome& outcome) {
  const machine::Chip* chip = chip_named(row.text("device"), context);
  return chip != nullptr ? chip : chip_named(row.text("system"), context, outcome);
}

cost::Operands operands_of(const Precision& p, const machine::Chip& chip) {
  cost::Operands o = plain_operands(chip, p.arithmetic);
  o.weight_bytes = p.weight_bytes;
  o.activation_bytes = p.activation_bytes;
  o.weight_only = p.weight_only;
  return o;
}

double last_cache_bytes(const machine::Chip& chip) {
  return chip.ladder.size() >= 2 ? chip.ladder[chip.ladder.size() - 2].capacity.value() : 0;
}

class Gemm final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_of(row, context, outcome);
    if (chip == nullptr) return {};
    const auto precision = parse_precision(row.text("dtype"));
    if (!precision) {
      outcome.refuse(fmt::format("dtype {}", row.text("dtype")));
      return {};
    }
    const auto m = row.integer("m", 1, kMaxDimension);
    const auto n = row.integer("n", 1, kMaxDimension);
    const auto k = row.integer("k", 1, kMaxDimension);
    const auto time = row.number("time_us");
    if (refuse_errors(outcome, m, n, k, time)) return {};
    KernelCase c;
    c.group = fmt::format("{} {} {}", row.text("system"), row.text("framework"), row.text("dtype"));
    c.chip = chip;
    c.software.scaling = precision->scaling;
    cost::Operands o = operands_of(*precision, *chip);
    // The harness sweeps its copies of the weight again and again, with one activation in between.
    const double weight = static_cast<double>(*n) * static_cast<double>(*k) * o.weight_bytes;
    double copies = std::clamp(std::ceil(last_cache_bytes(*chip) / weight), 1.0, 5.0);
    if (row.text("framework") == "vllm") copies = row.text("dtype") == "fp8_block" || row.text("dtype") == "nvfp4" ? 1 : 6;
    const double activation = static_cast<double>(*m) * static_cast<double>(*k) * o.activation_bytes;
    const double output = static_cast<double>(*m) * static_cast<double>(*n) * o.output_bytes;
    const double capacity = context.constants(*chip).shared_cache_bytes;
    o.weight_cached_share = cost::cached_share(copies * (weight + output) + activation, capacity);
    o.activation_cached_share = cost::cached_share(weight + output + activation, capacity);
    c.set = fmt::format("{} {}{}", precision->weight_only ? "gemm_weight_only" : "gemm", name(precision->arithmetic),
                        precision->scaling == cost::Scaling::kBlock ? " block" : "");
    c.terms.push_back({model::MatMul{.m = *m, .n = *n, .k = *k}, o, 1});
    c.measured = *time * 1e-6;
    return {std::move(c)};
  }
};

class Attention final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_of(row, context, outcome);
    if (chip == nullptr) return {};
    const auto batch = row.integer("batch", 1, kMaxDimension);
    const auto context_tokens = row.integer("context_tokens", 1, kMaxDimension);
    const auto heads = row.integer("heads", 1, 1 << 16);
    const auto kv_heads = row.integer("kv_heads", 1, 1 << 16);
    const auto head_dim = row.integer("head_dim", 1, 1 << 16);
    const auto time = row.number("time_us");
    if (refuse_errors(outcome, batch, context_tokens, heads, kv_heads, head_dim, time)) return {};
    const std::string_view kv_type = row.text("kv_cache_dtype");
    const std::string_view attention_type = row.text("attn_dtype");
    const bool kv8 = kv_type == "fp8" || kv_type == "int8";
    const bool decode = row.text("phase") == "decode" || row.text("phase") == "generation";
    if (!decode && row.text("phase") != "prefill" && row.text("phase") != "context") {
      outcome.refuse(fmt::format("phase {}", row.text("phase")));
      return {};
    }
    KernelCase c;
    c.group =
        fmt::format("{} {} {} {} kv {}", row.text("system"), row.text("framework"), row.text("phase"), attention_type, kv_type);
    c.chip = chip;
    // Prefill with an 8-bit cache runs the 8-bit kernel on Hopper and later, whatever the label says (seen in the calibrate
    // rows of the H100); the older kernels that Ampere and Ada share do not.
    const bool older = chip->family == "nvidia-ampere" || chip->family == "nvidia-ada";
    const bool fp8 = attention_type == "fp8" || (kv8 && !decode && !older);
    cost::Operands o = plain_operands(*chip, fp8 ? Arithmetic::kFp8 : Arithmetic::kBf16);
    o.kv_bytes = kv8 ? 1 : 2;
    model::Attention op{.batch = *batch,
                        .q_tokens = decode ? 1 : *context_tokens,
                        .kv_tokens = decode ? *context_tokens + 1 : *context_tokens,
                        .heads = *heads,
                        .kv_heads = *kv_heads,
                        .head_dim = *head_dim,
                        .value_dim = *head_dim};
    if (decode) {
      const double kv = 2.0 * static_cast<double>(*batch) * static_cast<double>(*context_tokens) *
                        static_cast<double>(*kv_heads) * static_cast<double>(*head_dim) * o.kv_bytes;
      o.kv_cached_share = cost::cached_share(kv, context.constants(*chip).shared_cache_bytes);
      c.set = fmt::format("attention_decode {} {}", *kv_heads < *heads ? "grouped" : "multi_head", kv8 ? "fp8" : "bf16");
    } else {
      // The replayed graph finds q, k, v, the cache and the output where it left them. The engine's kernel also makes a rotated
      // copy of q and writes the cache: (3 heads + 4 kv heads) values per token instead of the (2 heads + 2 kv heads) of the
      // operator.
      const model::Work work = model::work(op);
      double footprint = 0;
      for (std::size_t r = 0; r < work.read.size(); ++r) footprint += (work.read[r] + work.written[r]) * o.activation_bytes;
      o.activation_cached_share = o.kv_cached_share =
          cost::cached_share(1.6 * footprint, context.constants(*chip).shared_cache_bytes);
      c.set = fmt::format("attention_prefill {}", fp8 ? "fp8" : "bf16");
    }
    c.terms.push_back({op, o, 1});
    c.measured = *time * 1e-6;
    return {std::move(c)};
  }
};

// The whole expert layer of one rank: routing and permutation, gate and up, activation, down.
class Moe final : public KernelAdapter {
 public:
  std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) override {
    const machine::Chip* chip = chip_of(row, context, outcome);
    if (chip == nullptr) return {};
    const auto precision = parse_precision(row.text("dtype"));
    if (!precision) {
      outcome.refuse(fmt::format("dtype {}", row.text("dtype")));
      return {};
    }
    const auto tokens = row.integer("num_tokens", 1, kMaxDimension);
    const auto hidden = row.integer("hidden", 1, 1 << 20);
    const auto ffn = row.integer("expert_ffn", 1, 1 << 20);
    const auto top_k = row.integer("topk", 1, 1 << 10);
    const auto experts = row.integer("num_experts", 1, 1 << 14);
    const auto tp = row.integer("moe_tp", 1, 1 << 12);
    const auto ep = row.integer("moe_ep", 1, 1 << 12);
    const auto time = row.number("time_us");
    if (refuse_errors(outcome, tokens, hidden, ffn, top_k, experts, tp, ep, time)) return {};
    if (*ep > *experts || *top_k > *experts || *tp > *ffn) {
      outcome.refuse("more ranks or choices than experts");
      return {};
    }
    double skew = 0;
    const std::string_view routing = row.text("routing");
    if (routing.starts_with("power_law_")) {
      const std::string_view exponent = routing.substr(10);
      if (exponent == "1.2") {
        skew = 1.2;
      } else if (exponent == "1.01") {
        skew = 1.01;
      } else {
        outcome.refuse(fmt::format("routing {}", routing));
        return {};
      }
    } else if (routing != "balanced" && routing != "uniform") {
      outcome.refuse(fmt::format("routing {}", routing));
      return {};
    }
    KernelCase c;
    c.group = fmt::format("{} {} {} {}", row.text("system"), row.text("framework"), row.text("dtype"),
                          row.text("kernel_source").find("min_latency") != std::string_view::npos ? "min_latency" : "");
    while (c.group.ends_with(' ')) c.group.pop_back();
    c.chip = chip;
    c.software.scaling = precision->scaling;
    cost::Operands o = operands_of(*precision, *chip);
    o.routing_skew = skew;
    o.routing_shards = static_cast<double>(*ep);
    // The same tokens choose the same experts in every repetition.
    const double hit = cost::routed_load(static_cast<double>(*tokens), static_cast<double>(*experts),
                                         static_cast<double>(*top_k), skew, static_cast<double>(*ep), 1)[1];
    const double expert =
        3.0 * static_cast<double>(*hidden) * static_cast<double>(*ffn) / static_cast<double>(*tp) * o.weight_bytes;
    o.weight_cached_share = cost::cached_share(hit * expert, context.constants(*chip).shared_cache_bytes);
    c.set = fmt::format("grouped_gemm {}{}{}", name(precision->arithmetic), precision->weight_only ? " weight_only" : "",
                        precision->scaling == cost::Scaling::kBlock ? " block" : "");
    const std::int64_t inner = std::max<std::int64_t>(1, *ffn / *tp);
    c.terms.push_back(
        {model::GroupedMatMul{.tokens = *tokens, .n = 2 * inner, .k = *hidden, .experts = *experts, .top_k = *top_k}, o, 1});
    const std::int64_t rows = std::max<std::int64_t>(1, *tokens * *top_k / *ep);
    c.terms.push_back(
        {model::Elementwise{.rows = rows, .width = inner, .kind = model::ElementwiseKind::kGatedActivation, .inputs = 2}, o,
         1});
    c.terms.push_back(
        {model::GroupedMatMul{.tokens = *tokens, .n = *hidden, .k = inner, .experts = *experts, .top_k = *top_k}, o, 1});
    c.measured = *time * 1e-6;
    return {std::move(c)};
  }
};

}  // namespace

std::unique_ptr<KernelAdapter> aiconfigurator_gemm() { return std::make_unique<Gemm>(); }
std::unique_ptr<KernelAdapter> aiconfigurator_attention() { return std::make_unique<Attention>(); }
std::unique_ptr<KernelAdapter> aiconfigurator_moe() { return std::make_unique<Moe>(); }

}  // namespace rooftree::validate

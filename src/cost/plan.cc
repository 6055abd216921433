#include "cost/plan.h"

#include <fmt/format.h>

#include <span>

namespace rooftree::cost {
namespace {

constexpr std::array<std::string_view, kStackCount> kStackNames = {"engine",   "compiled", "llamacpp",
                                                                   "megatron", "eager",    "rooftree"};

// Significant width of an arithmetic type, for "the wider of two": floats rank above integers of the same bits.
constexpr int width_rank(Arithmetic a) {
  switch (a) {
    case Arithmetic::kFp64:
      return 100;
    case Arithmetic::kFp32:
      return 90;
    case Arithmetic::kTf32:
      return 80;
    case Arithmetic::kBf16:
      return 71;  // range before precision: a bf16 operand does not fit fp16
    case Arithmetic::kFp16:
      return 70;
    case Arithmetic::kFp8:
      return 50;
    case Arithmetic::kInt8:
      return 40;
    case Arithmetic::kFp6:
      return 30;
    case Arithmetic::kFp4:
      return 20;
    case Arithmetic::kInt4:
      return 10;
    case Arithmetic::kCount:
      break;
  }
  return 0;
}

constexpr bool is_integer(Arithmetic a) { return a == Arithmetic::kInt8 || a == Arithmetic::kInt4; }

// What stands in for a missing type, best first. bf16 and fp16 replace each other, as engines do on chips that have one of
// them.
std::span<const Arithmetic> fallbacks(Arithmetic wanted) {
  using enum Arithmetic;
  static constexpr std::array kFromInt4 = {kInt8, kFp8, kFp16, kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromInt8 = {kFp16, kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromFp4 = {kFp6, kFp8, kFp16, kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromFp6 = {kFp8, kFp16, kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromFp8 = {kFp16, kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromFp16 = {kBf16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromBf16 = {kFp16, kTf32, kFp32, kFp64};
  static constexpr std::array kFromTf32 = {kFp32, kFp64};
  static constexpr std::array kFromFp32 = {kFp64};
  switch (wanted) {
    case kInt4:
      return kFromInt4;
    case kInt8:
      return kFromInt8;
    case kFp4:
      return kFromFp4;
    case kFp6:
      return kFromFp6;
    case kFp8:
      return kFromFp8;
    case kFp16:
      return kFromFp16;
    case kBf16:
      return kFromBf16;
    case kTf32:
      return kFromTf32;
    case kFp32:
      return kFromFp32;
    default:
      return {};
  }
}

Arithmetic wider(Arithmetic a, Arithmetic b) { return width_rank(a) >= width_rank(b) ? a : b; }

// A wider type is used in place of a slow one from this gain on: widening takes instructions too.
constexpr double kWorthWidening = 1.5;

bool chip_has(const machine::Chip& chip, Arithmetic a) { return machine::product_rate(chip, a) > FlopPerSecond{}; }

double bytes_per_value(DType type) { return info(type).bits_per_value / 8.0; }

}  // namespace

std::string_view name(Stack stack) { return kStackNames[static_cast<std::size_t>(stack)]; }

Result<Stack> parse_stack(std::string_view text) {
  for (std::size_t i = 0; i < kStackNames.size(); ++i) {
    if (kStackNames[i] == text) return static_cast<Stack>(i);
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("software stack '{}' is unknown; expected one of {}", text, fmt::join(kStackNames, ", "))};
}

Software software_of(const Plan& plan) {
  Software software = plan.software;
  if (!software.stack.has_value()) software.stack = plan.stack;
  return software;
}

Status check_plan(const Plan& plan) {
  if (!(plan.sparsity.density > 0 && plan.sparsity.density <= 1)) {
    return Error{ErrorCode::kInvalid, fmt::format("sparsity: density {} is out of range; expected more than 0 and at most 1",
                                                  plan.sparsity.density)};
  }
  if (!(plan.memory_reserve >= 0 && plan.memory_reserve < 1)) {
    return Error{
        ErrorCode::kInvalid,
        fmt::format("memory reserve: {} is out of range; expected a share of at least 0 and below 1", plan.memory_reserve)};
  }
  return Ok{};
}

Arithmetic available_arithmetic(const machine::Chip& chip, Arithmetic wanted) {
  if (chip_has(chip, wanted)) return wanted;
  for (const Arithmetic candidate : fallbacks(wanted)) {
    if (chip_has(chip, candidate)) return candidate;
  }
  // A chip with nothing wider: the widest that it has at all.
  Arithmetic best = wanted;
  int rank = -1;
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto a = static_cast<Arithmetic>(i);
    if (chip_has(chip, a) && width_rank(a) > rank) {
      best = a;
      rank = width_rank(a);
    }
  }
  return best;
}

Arithmetic preferred_arithmetic(const machine::Chip& chip, Arithmetic wanted) {
  const Arithmetic available = available_arithmetic(chip, wanted);
  Arithmetic best = available;
  for (const Arithmetic candidate : fallbacks(wanted)) {
    const bool same_width = width_rank(candidate) / 10 == width_rank(wanted) / 10;
    if (same_width && available == wanted) continue;  // bf16 and fp16 only stand in for each other
    if (machine::product_rate(chip, candidate) > kWorthWidening * machine::product_rate(chip, best)) best = candidate;
  }
  return best;
}

double sparse_bytes_per_value(double dense_bytes, const Sparsity& sparsity) {
  switch (sparsity.kind) {
    case Sparsity::Kind::kDense:
      return dense_bytes;
    case Sparsity::Kind::k2to4:
      return 0.5 * (dense_bytes + 2.0 / 8.0);
    case Sparsity::Kind::kBlock:
      return dense_bytes * sparsity.density;
  }
  return dense_bytes;
}

ResolvedTypes resolve_types(const machine::Chip& chip, const Plan& plan) {
  ResolvedTypes out;
  const DType weight = plan.type(model::Role::kWeight);
  const DType activation = plan.type(model::Role::kActivation);
  const DType cache = plan.type(model::Role::kKvCache);
  const Arithmetic weight_native = info(weight).native;
  const Arithmetic activation_native = info(activation).native;

  for (int role = 0; role < model::kRoleCount; ++role) {
    out.bytes[static_cast<std::size_t>(role)] = bytes_per_value(plan.types[static_cast<std::size_t>(role)]);
  }
  out.weight_bytes = sparse_bytes_per_value(bytes_per_value(weight), plan.sparsity);
  out.bytes[static_cast<std::size_t>(model::Role::kWeight)] = out.weight_bytes;

  // Products with weights.
  const bool block_integer = info(weight).block > 1 && weight_native == Arithmetic::kInt8;
  Arithmetic wanted = wider(weight_native, activation_native);
  if (plan.arithmetic.has_value()) {
    wanted = *plan.arithmetic;
  } else if (chip.kind == machine::ChipKind::kCpu && block_integer && chip_has(chip, Arithmetic::kInt8)) {
    wanted = Arithmetic::kInt8;
    if (!is_integer(activation_native)) {
      out.facts.push_back(fmt::format("{} weights are multiplied as int8; {} activations are quantised on the fly",
                                      name(weight), name(activation)));
    }
  }
  out.arithmetic = plan.arithmetic.has_value() ? available_arithmetic(chip, wanted) : preferred_arithmetic(chip, wanted);
  if (out.arithmetic != wanted) {
    out.facts.push_back(fmt::format("{} {} {} products: they run in {}", chip.id,
                                    chip_has(chip, wanted) ? "is slow at" : "has no", name(wanted), name(out.arithmetic)));
  }
  const bool casts = width_rank(out.arithmetic) < width_rank(weight_native) && !block_integer;
  const bool same_width = out.arithmetic == weight_native || (block_integer && out.arithmetic == Arithmetic::kInt8) ||
                          (width_rank(out.arithmetic) / 10 == width_rank(weight_native) / 10);  // bf16 beside fp16
  if (casts && !same_width) {
    out.facts.push_back(fmt::format("{} weights are cast to {} for the products", name(weight), name(out.arithmetic)));
  }
  out.weight_only = (!same_width && !casts) || weight == DType::kBf16Lossless12;
  const DType expert = plan.expert_weights.value_or(weight);
  out.expert_weight_bytes = sparse_bytes_per_value(bytes_per_value(expert), plan.sparsity);
  out.expert_weight_only = expert == weight ? out.weight_only : info(expert).native != out.arithmetic;
  if (out.weight_only) {
    out.facts.push_back(
        fmt::format("{} weights are widened to {} inside the kernel (weight-only: traffic shrinks, arithmetic does not)",
                    name(weight), name(out.arithmetic)));
  }

  // Attention and other products without weights: engines quantise weights and activations to integers, not the scores.
  Arithmetic attention = wider(activation_native, info(cache).native);
  if (is_integer(attention) || width_rank(attention) < width_rank(Arithmetic::kFp8)) attention = Arithmetic::kBf16;
  out.attention_arithmetic = preferred_arithmetic(chip, attention);

  switch (plan.sparsity.kind) {
    case Sparsity::Kind::kDense:
      break;
    case Sparsity::Kind::k2to4: {
      const double gain = chip.rate(out.arithmetic).sparse_2to4;
      // Weight-only kernels reach the sparse units too (Sparse-Marlin, arXiv:2408.11743).
      if (gain > 1) {
        out.product_speedup = gain;
      } else {
        out.facts.push_back(fmt::format("2:4 saves weight traffic and memory only: {} has no 2:4 arithmetic in {}", chip.id,
                                        name(out.arithmetic)));
      }
      break;
    }
    case Sparsity::Kind::kBlock:
      ROOFTREE_CHECK(plan.sparsity.density > 0 && plan.sparsity.density <= 1, "block density must be in (0, 1]");
      out.product_speedup = 1.0 / plan.sparsity.density;
      break;
  }
  return out;
}

}  // namespace rooftree::cost

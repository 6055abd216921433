#pragma once

// The plan of one model on one chip: data type per role, sparsity, fusion, software stack, where tensors live. Parallel degrees
// join it when `plan/` arrives.

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "cost/calibration.h"
#include "machine/chip.h"
#include "model/model.h"

namespace rooftree::cost {

// Structured sparsity of the weights. k2to4: two of four values kept (storage 9/16 of 16-bit: half the values plus 2-bit
// indices; arithmetic doubled only where the chip says so). kBlock: a share `density` of dense blocks kept; arithmetic and
// traffic shrink with it on every chip.
struct Sparsity {
  enum class Kind : std::uint8_t { kDense, k2to4, kBlock } kind = Kind::kDense;
  double density = 1.0;
};

// What launches the kernels: host costs and kernel generations differ by an order of magnitude between stacks.
enum class Stack : std::uint8_t {
  kEngine,    // captured graphs, fused kernels: vLLM, TensorRT-LLM, SGLang, compiled loops
  kCompiled,  // torch.compile-class single-stream loop (gpt-fast)
  kLlamaCpp,  // llama.cpp and its relatives
  kMegatron,  // tuned training framework
  kEager,     // one launch per operator from Python
  kRooftree,  // our own engine (engine/, kernels/)
};
inline constexpr int kStackCount = 6;
[[nodiscard]] std::string_view name(Stack stack);  // "engine", "compiled", "llamacpp", "megatron", "eager", "rooftree"
Result<Stack> parse_stack(std::string_view text);

struct Plan {
  std::array<DType, model::kRoleCount> types = default_types();
  std::optional<DType> expert_weights;   // of mixture-of-experts matrices, where they differ from the other weights (gpt-oss)
  std::optional<Arithmetic> arithmetic;  // forced; else chosen from the weight and activation types and what the chip has
  Sparsity sparsity;
  model::Fusion fusion = model::Fusion::kStandard;
  Stack stack = Stack::kEngine;
  Software software;             // kernel generations, where they are known
  double memory_reserve = 0.05;  // share of main memory that allocator, context and workspaces take

  [[nodiscard]] DType type(model::Role role) const { return types[static_cast<std::size_t>(role)]; }
  void set_type(model::Role role, DType type) { types[static_cast<std::size_t>(role)] = type; }

  // bf16 weights, activations, KV cache and gradients; f32 optimizer state; int32 inputs.
  static constexpr std::array<DType, model::kRoleCount> default_types() {
    return {DType::kBf16, DType::kBf16, DType::kBf16, DType::kBf16, DType::kF32, DType::kInt32, DType::kBf16};
  }
};

// The plan's software with its stack filled in: what constants are resolved for.
[[nodiscard]] Software software_of(const Plan& plan);

// kInvalid where a number of the plan is out of range; the functions below expect a plan that passes.
Status check_plan(const Plan& plan);

// What a plan's types become on one chip. Rules, in this order:
//   - CPUs multiply block-quantised weights (GGUF types, mxint8) as int8 with activations quantised on the fly;
//   - otherwise the products run in the wider of the weights' and the activations' own arithmetic (a float beats an integer of
//     the same width), and weights of another type are widened in the kernel (weight-only);
//   - an arithmetic that the chip lacks falls to the next wider one that it has (bf16 and fp16 stand in for each other), and
//   one
//     that it has only for show (fp16 at 1/64 of the fp32 rate) to a wider one that is half as fast again or more.
// Every step away from the plan is recorded in `facts`.
struct ResolvedTypes {
  Arithmetic arithmetic = Arithmetic::kBf16;            // products with weights
  Arithmetic attention_arithmetic = Arithmetic::kBf16;  // products of activations with activations or the KV cache
  bool weight_only = false;
  double weight_bytes = 2;         // per value of the dense tensor: scales, sparsity indices and dropped values accounted for
  double expert_weight_bytes = 2;  // same, of the experts
  bool expert_weight_only = false;
  std::array<double, model::kRoleCount> bytes{};  // per value, by role (kWeight = weight_bytes)
  double product_speedup = 1;  // executed products are this many times fewer (block sparsity, 2:4 where the chip has it)
  std::vector<std::string> facts;
};
[[nodiscard]] ResolvedTypes resolve_types(const machine::Chip& chip, const Plan& plan);

// The narrowest arithmetic of `chip` that holds every value of `wanted` (itself if the chip has it), fp64 at worst.
[[nodiscard]] Arithmetic available_arithmetic(const machine::Chip& chip, Arithmetic wanted);

// The same, but a wider arithmetic where that is at least 1.5 times as fast: what kernels do on chips with a slow narrow type.
[[nodiscard]] Arithmetic preferred_arithmetic(const machine::Chip& chip, Arithmetic wanted);

// Bytes per value of the dense weight tensor under a sparsity: 2:4 keeps half the values and adds a 2-bit index to each kept
// one (16-bit: 9/16 of dense); block sparsity keeps `density` of the values.
[[nodiscard]] double sparse_bytes_per_value(double dense_bytes, const Sparsity& sparsity);

}  // namespace rooftree::cost

#pragma once

// The plan of one model on one chip: data type per role, sparsity, fusion, software stack, where tensors live. Parallel degrees
// join it when `plan/` arrives.

#include <array>
#include <optional>
#include <string>

#include "base/dtype.h"
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
  kEngine,     // captured graphs, fused kernels: vLLM, TensorRT-LLM, SGLang, compiled loops
  kCompiled,   // torch.compile-class single-stream loop (gpt-fast)
  kLlamaCpp,   // llama.cpp and its relatives
  kMegatron,   // tuned training framework
  kEager,      // one launch per operator from Python
};

struct Plan {
  std::array<DType, model::kRoleCount> types = default_types();
  std::optional<Arithmetic> arithmetic;  // forced; else chosen from the weight and activation types and what the chip has
  Sparsity sparsity;
  model::Fusion fusion = model::Fusion::kStandard;
  Stack stack = Stack::kEngine;
  double memory_reserve = 0.05;  // share of main memory that allocator, context and workspaces take

  [[nodiscard]] DType type(model::Role role) const { return types[static_cast<std::size_t>(role)]; }
  void set_type(model::Role role, DType type) { types[static_cast<std::size_t>(role)] = type; }

  // bf16 weights, activations, KV cache and gradients; f32 optimizer state; int32 inputs.
  static constexpr std::array<DType, model::kRoleCount> default_types() {
    return {DType::kBf16, DType::kBf16, DType::kBf16, DType::kBf16, DType::kF32, DType::kInt32, DType::kBf16};
  }
};

}  // namespace rooftree::cost

#pragma once

// The row operators per instruction set; row_kernels() of tables.h chooses. Private to the layer and its tests.

#include <cstdint>

#include "base/cpu_features.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu {

// The contract's functions over arrays, for tests of accuracy and of equal bits.
struct MathFunctions {
  void (*exp)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*tanh)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*sigmoid)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*erf)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*round_bf16)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*round_f16)(const float* x, float* y, std::int64_t n) = nullptr;
  void (*rotation)(const double* angle, float* cosine, float* sine, std::int64_t n) = nullptr;
  float (*sum)(const float* x, std::int64_t n) = nullptr;  // the contract's sum of a row
};
[[nodiscard]] const MathFunctions& math_functions(const CpuFeatures& features);

namespace portable {
extern const RowKernels kRowKernels;
extern const MathFunctions kMathFunctions;
}  // namespace portable
#if defined(__x86_64__)
namespace avx2 {
extern const RowKernels kRowKernels;
extern const MathFunctions kMathFunctions;
}  // namespace avx2
namespace avx512 {
extern const RowKernels kRowKernels;
extern const MathFunctions kMathFunctions;
}  // namespace avx512
#elif defined(__aarch64__)
namespace neon {
extern const RowKernels kRowKernels;
extern const MathFunctions kMathFunctions;
}  // namespace neon
#endif

}  // namespace rooftree::kernels::cpu

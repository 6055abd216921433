// The portable row operators and the choice between instruction sets.

#include "kernels/cpu/row_kernels.h"

#include "kernels/cpu/row_kernels-inl.h"

namespace rooftree::kernels::cpu {

// Returns the constant of the widest instruction set that the features allow.
#if defined(__x86_64__)
#define ROOFTREE_PICK(constant) \
  switch (features.isa()) {     \
    case Isa::kAvx512:          \
      return avx512::constant;  \
    case Isa::kAvx2:            \
      return avx2::constant;    \
    case Isa::kNeon:            \
    case Isa::kPortable:        \
      break;                    \
  }                             \
  return portable::constant
#elif defined(__aarch64__)
#define ROOFTREE_PICK(constant) return features.isa() == Isa::kNeon ? neon::constant : portable::constant
#else
#define ROOFTREE_PICK(constant) \
  (void)features;               \
  return portable::constant
#endif

const RowKernels& row_kernels(const CpuFeatures& features) { ROOFTREE_PICK(kRowKernels); }
const MathFunctions& math_functions(const CpuFeatures& features) { ROOFTREE_PICK(kMathFunctions); }

}  // namespace rooftree::kernels::cpu

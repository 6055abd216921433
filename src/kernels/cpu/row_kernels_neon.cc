// The row operators for NEON.

#if defined(__aarch64__)

#include <arm_neon.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/row_kernels.h"

#define ROOFTREE_ISA_NEON
#define ROOFTREE_ISA_NAMESPACE neon

#include "kernels/cpu/row_kernels-inl.h"

#endif

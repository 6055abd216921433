// Attention for NEON.

#if defined(__aarch64__)

#include <arm_neon.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/cpu/attention.h"

#define ROOFTREE_ISA_NEON
#define ROOFTREE_ISA_NAMESPACE neon

#include "kernels/cpu/attention-inl.h"

#endif

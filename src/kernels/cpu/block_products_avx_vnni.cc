// AVX2 with the four-way product of 256 bits (AVX-VNNI).

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/cpu/block_products_forms.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni,fma,f16c")
#endif

#define ROOFTREE_INLINE inline __attribute__((always_inline))
#define ROOFTREE_LAMBDA __attribute__((always_inline))
#define ROOFTREE_NOINLINE __attribute__((noinline))

namespace rooftree::kernels::cpu::block {
namespace avx_vnni {

constexpr bool kUnsignedBytes = true;  // dot_wide takes unsigned weights

ROOFTREE_INLINE __m256i dot4(__m256i sum, __m256i weights, __m256i activations) {
  return _mm256_dpbusd_avx_epi32(sum, weights, activations);
}
ROOFTREE_INLINE __m256i dot4_wide(__m256i sum, __m256i weights, __m256i activations) { return dot4(sum, weights, activations); }

// In this order.
// clang-format off
#include "kernels/cpu/block_products_avx2-inl.h"
#include "kernels/cpu/block_products-inl.h"
// clang-format on

}  // namespace avx_vnni

const Table* avx_vnni_table() {
  static constexpr Table kTable = avx_vnni::make_table(std::make_index_sequence<kBlockTypes.size()>());
  return &kTable;
}

}  // namespace rooftree::kernels::cpu::block

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

namespace rooftree::kernels::cpu::block {
const Table* avx_vnni_table() { return nullptr; }
}  // namespace rooftree::kernels::cpu::block

#endif

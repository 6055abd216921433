// AVX2 without a four-way product: pairs of unsigned and signed bytes are added in 16 bits (vpmaddubsw), which must not
// saturate. Codes of at most seven bits cannot reach it (2 * 63 * 127); eight-bit ones are used as |w| times the activation
// with w's sign: 2 * 128 * 127 = 32512.

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
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define ROOFTREE_INLINE inline __attribute__((always_inline))
#define ROOFTREE_LAMBDA __attribute__((always_inline))
#define ROOFTREE_NOINLINE __attribute__((noinline))

namespace rooftree::kernels::cpu::block {
namespace avx2 {

constexpr bool kUnsignedBytes = false;  // dot_wide takes signed weights

ROOFTREE_INLINE __m256i dot4(__m256i sum, __m256i weights, __m256i activations) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, activations), _mm256_set1_epi16(1)));
}
ROOFTREE_INLINE __m256i dot4_wide(__m256i sum, __m256i weights, __m256i activations) {
  return dot4(sum, _mm256_abs_epi8(weights), _mm256_sign_epi8(activations, weights));
}

// In this order.
// clang-format off
#include "kernels/cpu/block_products_avx2-inl.h"
#include "kernels/cpu/block_products-inl.h"
// clang-format on

}  // namespace avx2

const Table* avx2_table() {
  static constexpr Table kTable = avx2::make_table(std::make_index_sequence<kBlockTypes.size()>());
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
const Table* avx2_table() { return nullptr; }
}  // namespace rooftree::kernels::cpu::block

#endif

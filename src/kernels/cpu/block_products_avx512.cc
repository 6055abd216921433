// AVX-512 with VNNI: 16 outputs are one register.

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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#endif

#define ROOFTREE_INLINE inline __attribute__((always_inline))
#define ROOFTREE_LAMBDA __attribute__((always_inline))
#define ROOFTREE_NOINLINE __attribute__((noinline))

namespace rooftree::kernels::cpu::block {
namespace avx512 {

using I = __m512i;  // 16 x 32 bits, or 64 bytes
using F = __m512;

constexpr bool kUnsignedBytes = true;  // dot_wide takes unsigned weights
constexpr int kTileRows = 8;
constexpr int kTileUnits = 3;
constexpr int kBothTiles = 8;           // 16 integer sums, 8 of floats
constexpr std::int64_t kPairRows = 64;  // up to here tiles are two units wide
// Bytes between use and prefetch.
constexpr std::int64_t kPrefetchDistance = 4608, kNearDistance = 1152, kFarDistance = 9216;
constexpr std::int64_t kStreamBytes = std::int64_t{2} << 20;

ROOFTREE_INLINE I zero() { return _mm512_setzero_si512(); }
ROOFTREE_INLINE F zero_f() { return _mm512_setzero_ps(); }
ROOFTREE_INLINE I set1(std::int32_t v) { return _mm512_set1_epi32(v); }
ROOFTREE_INLINE F set1_f(float v) { return _mm512_set1_ps(v); }
ROOFTREE_INLINE I load(const std::byte* p) { return _mm512_load_si512(p); }
ROOFTREE_INLINE F load_f(const float* p) { return _mm512_loadu_ps(p); }
ROOFTREE_INLINE void store_f(float* p, F v) { _mm512_storeu_ps(p, v); }
ROOFTREE_INLINE void stream_f(float* p, F v) { _mm512_stream_ps(p, v); }
ROOFTREE_INLINE void store_fence() { _mm_sfence(); }
ROOFTREE_INLINE I broadcast(const std::byte* p) {
  std::int32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}
ROOFTREE_INLINE F broadcast_f(const std::byte* p) { return _mm512_castsi512_ps(broadcast(p)); }
ROOFTREE_INLINE F load_half(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}
ROOFTREE_INLINE I load_u8(const std::byte* p) {
  return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
ROOFTREE_INLINE void prefetch(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
ROOFTREE_INLINE void prefetch_far(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

ROOFTREE_INLINE I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
ROOFTREE_INLINE I bit_or(I a, I b) { return _mm512_or_si512(a, b); }
ROOFTREE_INLINE I bit_xor(I a, I b) { return _mm512_xor_si512(a, b); }
ROOFTREE_INLINE I and_or(I a, I mask, I b) { return _mm512_ternarylogic_epi32(a, mask, b, 0xEA); }  // (a & mask) | b
template <int kBits>
ROOFTREE_INLINE I shift_right(I a) {
  return _mm512_srli_epi32(a, kBits);
}
template <int kBits>
ROOFTREE_INLINE I shift_left(I a) {
  return _mm512_slli_epi32(a, kBits);
}
template <int kBits>
ROOFTREE_INLINE I shift_right_signed(I a) {
  return _mm512_srai_epi32(a, kBits);
}
ROOFTREE_INLINE I shift_right_by(I a, int bits) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
// Bits may come in from the neighbouring byte: the caller masks. Negative: to the left.
template <int kBits>
ROOFTREE_INLINE I shift_bytes(I a) {
  if constexpr (kBits > 0) return _mm512_srli_epi32(a, kBits);
  if constexpr (kBits < 0) return _mm512_slli_epi32(a, -kBits);
  return a;
}
ROOFTREE_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
ROOFTREE_INLINE I mul_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
ROOFTREE_INLINE I max_signed(I a, I b) { return _mm512_max_epi32(a, b); }
// Codes of at most seven bits, and of eight, times signed bytes, four to a lane, added.
ROOFTREE_INLINE I dot_narrow(I sum, I weights, I activations) { return _mm512_dpbusd_epi32(sum, weights, activations); }
ROOFTREE_INLINE I dot_wide(I sum, I weights, I activations) { return _mm512_dpbusd_epi32(sum, weights, activations); }
// Pairs of signed 16-bit integers.
ROOFTREE_INLINE I dot_pairs(I sum, I a, I b) { return _mm512_dpwssd_epi32(sum, a, b); }
// Entry of the 16-byte book for every byte of 0..15.
ROOFTREE_INLINE I look_up(I index, I book) { return _mm512_shuffle_epi8(book, index); }
// The books hold integer + offset.
ROOFTREE_INLINE I iq4_book() {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
}
ROOFTREE_INLINE I mxfp4_book() {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
}

ROOFTREE_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
ROOFTREE_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
ROOFTREE_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
ROOFTREE_INLINE F abs(F a) { return _mm512_abs_ps(a); }
// a > b ? a : b, and a < b ? a : b: the second where one is no number.
ROOFTREE_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
ROOFTREE_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
ROOFTREE_INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a); }
ROOFTREE_INLINE F as_float(I a) { return _mm512_castsi512_ps(a); }
ROOFTREE_INLINE I nearest(F a) { return _mm512_cvt_roundps_epi32(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
ROOFTREE_INLINE float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
ROOFTREE_INLINE std::int32_t reduce_add(I a) { return _mm512_reduce_add_epi32(a); }
ROOFTREE_INLINE void store_bytes(std::int8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}

#include "kernels/cpu/block_products-inl.h"

}  // namespace avx512

const Table* avx512_table() {
  static constexpr Table kTable = avx512::make_table(std::make_index_sequence<kBlockTypes.size()>());
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
const Table* avx512_table() { return nullptr; }
}  // namespace rooftree::kernels::cpu::block

#endif

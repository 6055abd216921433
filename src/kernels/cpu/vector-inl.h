#pragma once

// Sixteen lanes of binary32 and of int32, written once per instruction set: kernels on top of them are one source, compiled
// into the namespace of each set, and give equal bits everywhere because every function here is defined lane by lane:
// multiplication and addition round separately (the files are compiled with -ffp-contract=off), fma() rounds once, max() and
// min() return the second operand when the comparison is false (also for NaN and for zeros of either sign).
//
// A source that includes this defines ROOFTREE_ISA_NAMESPACE and one of ROOFTREE_ISA_AVX512, ROOFTREE_ISA_AVX2,
// ROOFTREE_ISA_NEON, inside a region of that target that is opened after all other includes. Without them: portable code.
// A source is compiled for one instruction set only.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(ROOFTREE_ISA_AVX512) || defined(ROOFTREE_ISA_AVX2)
#include <immintrin.h>
#elif defined(ROOFTREE_ISA_NEON)
#include <arm_neon.h>
#endif

#ifndef ROOFTREE_ISA_NAMESPACE
#define ROOFTREE_ISA_NAMESPACE portable
#endif

#define ROOFTREE_LANE_INLINE __attribute__((always_inline)) inline

namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE {

inline constexpr int kLanes = 16;

#if defined(ROOFTREE_ISA_AVX512)

struct F32 {
  __m512 v;
};
struct I32 {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

ROOFTREE_LANE_INLINE F32 set(float x) { return {_mm512_set1_ps(x)}; }
ROOFTREE_LANE_INLINE F32 zero() { return {_mm512_setzero_ps()}; }
ROOFTREE_LANE_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
ROOFTREE_LANE_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
ROOFTREE_LANE_INLINE __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1U << n) - 1U); }
ROOFTREE_LANE_INLINE F32 load_n(const float* p, std::int64_t n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
ROOFTREE_LANE_INLINE void store_n(float* p, F32 a, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
ROOFTREE_LANE_INLINE F32 add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE F32 sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE F32 mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE F32 div(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
ROOFTREE_LANE_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
ROOFTREE_LANE_INLINE Mask less(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
ROOFTREE_LANE_INLINE Mask equal(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
ROOFTREE_LANE_INLINE F32 select(Mask m, F32 yes, F32 no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
ROOFTREE_LANE_INLINE F32 swap_neighbours(F32 a) { return {_mm512_permute_ps(a.v, 0xB1)}; }

ROOFTREE_LANE_INLINE I32 set_int(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
ROOFTREE_LANE_INLINE I32 load_int(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
ROOFTREE_LANE_INLINE void store_int(std::int32_t* p, I32 a) { _mm512_storeu_si512(p, a.v); }
ROOFTREE_LANE_INLINE I32 add(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
ROOFTREE_LANE_INLINE I32 sub(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
ROOFTREE_LANE_INLINE I32 bit_and(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
ROOFTREE_LANE_INLINE I32 bit_or(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
ROOFTREE_LANE_INLINE Mask less(I32 a, I32 b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
ROOFTREE_LANE_INLINE Mask equal(I32 a, I32 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
ROOFTREE_LANE_INLINE I32 select(Mask m, I32 yes, I32 no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_left(I32 a) {
  return {_mm512_slli_epi32(a.v, Count)};
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right(I32 a) {  // zeros come in
  return {_mm512_srli_epi32(a.v, Count)};
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right_signed(I32 a) {
  return {_mm512_srai_epi32(a.v, Count)};
}
ROOFTREE_LANE_INLINE I32 bits(F32 a) { return {_mm512_castps_si512(a.v)}; }
ROOFTREE_LANE_INLINE F32 from_bits(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
ROOFTREE_LANE_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
ROOFTREE_LANE_INLINE I32 round_to_int(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }

ROOFTREE_LANE_INLINE F32 load_f16(const std::uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ROOFTREE_LANE_INLINE void store_f16(std::uint16_t* p, F32 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

// Lanes 0..7 of `a` and the like: the tree of the contract, lane j + lane j+8, then 4, 2, 1.
ROOFTREE_LANE_INLINE float sum_lanes(F32 a) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1)));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
ROOFTREE_LANE_INLINE float max_lanes(F32 a) {
  const __m256 eight =
      _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1)));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#elif defined(ROOFTREE_ISA_AVX2)

struct F32 {
  __m256 v[2];
};
struct I32 {
  __m256i v[2];
};
struct Mask {
  __m256 v[2];
};

ROOFTREE_LANE_INLINE F32 set(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
ROOFTREE_LANE_INLINE F32 zero() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
ROOFTREE_LANE_INLINE F32 load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
ROOFTREE_LANE_INLINE void store(float* p, F32 a) { _mm256_storeu_ps(p, a.v[0]), _mm256_storeu_ps(p + 8, a.v[1]); }
#define ROOFTREE_AVX2_BINARY(NAME, TYPE, INSTRUCTION) \
  ROOFTREE_LANE_INLINE TYPE NAME(TYPE a, TYPE b) { return {{INSTRUCTION(a.v[0], b.v[0]), INSTRUCTION(a.v[1], b.v[1])}}; }
ROOFTREE_AVX2_BINARY(add, F32, _mm256_add_ps)
ROOFTREE_AVX2_BINARY(sub, F32, _mm256_sub_ps)
ROOFTREE_AVX2_BINARY(mul, F32, _mm256_mul_ps)
ROOFTREE_AVX2_BINARY(div, F32, _mm256_div_ps)
ROOFTREE_AVX2_BINARY(max, F32, _mm256_max_ps)
ROOFTREE_AVX2_BINARY(min, F32, _mm256_min_ps)
ROOFTREE_AVX2_BINARY(add, I32, _mm256_add_epi32)
ROOFTREE_AVX2_BINARY(sub, I32, _mm256_sub_epi32)
ROOFTREE_AVX2_BINARY(bit_and, I32, _mm256_and_si256)
ROOFTREE_AVX2_BINARY(bit_or, I32, _mm256_or_si256)
#undef ROOFTREE_AVX2_BINARY
ROOFTREE_LANE_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1])}};
}
ROOFTREE_LANE_INLINE Mask less(F32 a, F32 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_LT_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_LT_OQ)}};
}
ROOFTREE_LANE_INLINE Mask equal(F32 a, F32 b) {
  return {{_mm256_cmp_ps(a.v[0], b.v[0], _CMP_EQ_OQ), _mm256_cmp_ps(a.v[1], b.v[1], _CMP_EQ_OQ)}};
}
ROOFTREE_LANE_INLINE F32 select(Mask m, F32 yes, F32 no) {
  return {{_mm256_blendv_ps(no.v[0], yes.v[0], m.v[0]), _mm256_blendv_ps(no.v[1], yes.v[1], m.v[1])}};
}
ROOFTREE_LANE_INLINE F32 swap_neighbours(F32 a) { return {{_mm256_permute_ps(a.v[0], 0xB1), _mm256_permute_ps(a.v[1], 0xB1)}}; }

ROOFTREE_LANE_INLINE I32 set_int(std::int32_t x) { return {{_mm256_set1_epi32(x), _mm256_set1_epi32(x)}}; }
ROOFTREE_LANE_INLINE I32 load_int(const std::int32_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {{_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)}};
}
ROOFTREE_LANE_INLINE void store_int(std::int32_t* p, I32 a) {
  auto* q = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(q, a.v[0]), _mm256_storeu_si256(q + 1, a.v[1]);
}
ROOFTREE_LANE_INLINE Mask less(I32 a, I32 b) {
  return {{_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v[0], a.v[0])), _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v[1], a.v[1]))}};
}
ROOFTREE_LANE_INLINE Mask equal(I32 a, I32 b) {
  return {{_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v[0], b.v[0])), _mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v[1], b.v[1]))}};
}
ROOFTREE_LANE_INLINE I32 select(Mask m, I32 yes, I32 no) {
  return {{_mm256_blendv_epi8(no.v[0], yes.v[0], _mm256_castps_si256(m.v[0])),
           _mm256_blendv_epi8(no.v[1], yes.v[1], _mm256_castps_si256(m.v[1]))}};
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_left(I32 a) {
  return {{_mm256_slli_epi32(a.v[0], Count), _mm256_slli_epi32(a.v[1], Count)}};
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right(I32 a) {
  return {{_mm256_srli_epi32(a.v[0], Count), _mm256_srli_epi32(a.v[1], Count)}};
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right_signed(I32 a) {
  return {{_mm256_srai_epi32(a.v[0], Count), _mm256_srai_epi32(a.v[1], Count)}};
}
ROOFTREE_LANE_INLINE I32 bits(F32 a) { return {{_mm256_castps_si256(a.v[0]), _mm256_castps_si256(a.v[1])}}; }
ROOFTREE_LANE_INLINE F32 from_bits(I32 a) { return {{_mm256_castsi256_ps(a.v[0]), _mm256_castsi256_ps(a.v[1])}}; }
ROOFTREE_LANE_INLINE F32 to_float(I32 a) { return {{_mm256_cvtepi32_ps(a.v[0]), _mm256_cvtepi32_ps(a.v[1])}}; }
ROOFTREE_LANE_INLINE I32 round_to_int(F32 a) { return {{_mm256_cvtps_epi32(a.v[0]), _mm256_cvtps_epi32(a.v[1])}}; }

ROOFTREE_LANE_INLINE F32 load_f16(const std::uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {{_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))}};
}
ROOFTREE_LANE_INLINE void store_f16(std::uint16_t* p, F32 a) {
  auto* q = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(a.v[0], _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(a.v[1], _MM_FROUND_TO_NEAREST_INT));
}

ROOFTREE_LANE_INLINE float sum_lanes(F32 a) {
  const __m256 eight = _mm256_add_ps(a.v[0], a.v[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
ROOFTREE_LANE_INLINE float max_lanes(F32 a) {
  const __m256 eight = _mm256_max_ps(a.v[0], a.v[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#elif defined(ROOFTREE_ISA_NEON)

struct F32 {
  float32x4_t v[4];
};
struct I32 {
  int32x4_t v[4];
};
struct Mask {
  uint32x4_t v[4];
};

#define ROOFTREE_NEON_EACH(TYPE, EXPRESSION)                               \
  TYPE r;                                                                  \
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) r.v[i] = EXPRESSION; \
  return r
ROOFTREE_LANE_INLINE F32 set(float x) { ROOFTREE_NEON_EACH(F32, vdupq_n_f32(x)); }
ROOFTREE_LANE_INLINE F32 zero() { return set(0.0F); }
ROOFTREE_LANE_INLINE F32 load(const float* p) { ROOFTREE_NEON_EACH(F32, vld1q_f32(p + 4 * i)); }
ROOFTREE_LANE_INLINE void store(float* p, F32 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
ROOFTREE_LANE_INLINE F32 add(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vaddq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 sub(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vsubq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 mul(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vmulq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 div(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vdivq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 fma(F32 a, F32 b, F32 c) { ROOFTREE_NEON_EACH(F32, vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
// Not vmaxq: it treats NaN and zeros differently.
ROOFTREE_LANE_INLINE F32 max(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 min(F32 a, F32 b) { ROOFTREE_NEON_EACH(F32, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE Mask less(F32 a, F32 b) { ROOFTREE_NEON_EACH(Mask, vcltq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE Mask equal(F32 a, F32 b) { ROOFTREE_NEON_EACH(Mask, vceqq_f32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE F32 select(Mask m, F32 yes, F32 no) { ROOFTREE_NEON_EACH(F32, vbslq_f32(m.v[i], yes.v[i], no.v[i])); }
ROOFTREE_LANE_INLINE F32 swap_neighbours(F32 a) { ROOFTREE_NEON_EACH(F32, vrev64q_f32(a.v[i])); }

ROOFTREE_LANE_INLINE I32 set_int(std::int32_t x) { ROOFTREE_NEON_EACH(I32, vdupq_n_s32(x)); }
ROOFTREE_LANE_INLINE I32 load_int(const std::int32_t* p) { ROOFTREE_NEON_EACH(I32, vld1q_s32(p + 4 * i)); }
ROOFTREE_LANE_INLINE void store_int(std::int32_t* p, I32 a) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, a.v[i]);
}
ROOFTREE_LANE_INLINE I32 add(I32 a, I32 b) { ROOFTREE_NEON_EACH(I32, vaddq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE I32 sub(I32 a, I32 b) { ROOFTREE_NEON_EACH(I32, vsubq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE I32 bit_and(I32 a, I32 b) { ROOFTREE_NEON_EACH(I32, vandq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE I32 bit_or(I32 a, I32 b) { ROOFTREE_NEON_EACH(I32, vorrq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE Mask less(I32 a, I32 b) { ROOFTREE_NEON_EACH(Mask, vcltq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE Mask equal(I32 a, I32 b) { ROOFTREE_NEON_EACH(Mask, vceqq_s32(a.v[i], b.v[i])); }
ROOFTREE_LANE_INLINE I32 select(Mask m, I32 yes, I32 no) { ROOFTREE_NEON_EACH(I32, vbslq_s32(m.v[i], yes.v[i], no.v[i])); }
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_left(I32 a) {
  ROOFTREE_NEON_EACH(I32, vshlq_s32(a.v[i], vdupq_n_s32(Count)));
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right(I32 a) {
  ROOFTREE_NEON_EACH(I32, vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.v[i]), vdupq_n_s32(-Count))));
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right_signed(I32 a) {
  ROOFTREE_NEON_EACH(I32, vshlq_s32(a.v[i], vdupq_n_s32(-Count)));
}
ROOFTREE_LANE_INLINE I32 bits(F32 a) { ROOFTREE_NEON_EACH(I32, vreinterpretq_s32_f32(a.v[i])); }
ROOFTREE_LANE_INLINE F32 from_bits(I32 a) { ROOFTREE_NEON_EACH(F32, vreinterpretq_f32_s32(a.v[i])); }
ROOFTREE_LANE_INLINE F32 to_float(I32 a) { ROOFTREE_NEON_EACH(F32, vcvtq_f32_s32(a.v[i])); }
ROOFTREE_LANE_INLINE I32 round_to_int(F32 a) { ROOFTREE_NEON_EACH(I32, vcvtnq_s32_f32(a.v[i])); }
ROOFTREE_LANE_INLINE F32 load_f16(const std::uint16_t* p) {
  ROOFTREE_NEON_EACH(F32, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}
ROOFTREE_LANE_INLINE void store_f16(std::uint16_t* p, F32 a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
#undef ROOFTREE_NEON_EACH

ROOFTREE_LANE_INLINE float sum_lanes(F32 a) {
  const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
ROOFTREE_LANE_INLINE float max_lanes(F32 a) {
  float lanes[kLanes];
  store(lanes, a);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  }
  return lanes[0];
}

#else  // portable

struct F32 {
  float v[kLanes];
};
struct I32 {
  std::int32_t v[kLanes];
};
struct Mask {
  bool v[kLanes];
};

#define ROOFTREE_EACH(TYPE, EXPRESSION)                 \
  TYPE r;                                               \
  for (int i = 0; i < kLanes; ++i) r.v[i] = EXPRESSION; \
  return r
ROOFTREE_LANE_INLINE F32 set(float x) { ROOFTREE_EACH(F32, x); }
ROOFTREE_LANE_INLINE F32 zero() { return set(0.0F); }
ROOFTREE_LANE_INLINE F32 load(const float* p) { ROOFTREE_EACH(F32, p[i]); }
ROOFTREE_LANE_INLINE void store(float* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = a.v[i];
}
ROOFTREE_LANE_INLINE F32 add(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] + b.v[i]); }
ROOFTREE_LANE_INLINE F32 sub(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] - b.v[i]); }
ROOFTREE_LANE_INLINE F32 mul(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] * b.v[i]); }
ROOFTREE_LANE_INLINE F32 div(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] / b.v[i]); }
// The C library's: correctly rounded by the standard, so the same everywhere.
ROOFTREE_LANE_INLINE F32 fma(F32 a, F32 b, F32 c) { ROOFTREE_EACH(F32, __builtin_fmaf(a.v[i], b.v[i], c.v[i])); }
ROOFTREE_LANE_INLINE F32 max(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
ROOFTREE_LANE_INLINE F32 min(F32 a, F32 b) { ROOFTREE_EACH(F32, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
ROOFTREE_LANE_INLINE Mask less(F32 a, F32 b) { ROOFTREE_EACH(Mask, a.v[i] < b.v[i]); }
ROOFTREE_LANE_INLINE Mask equal(F32 a, F32 b) { ROOFTREE_EACH(Mask, a.v[i] == b.v[i]); }
ROOFTREE_LANE_INLINE F32 select(Mask m, F32 yes, F32 no) { ROOFTREE_EACH(F32, m.v[i] ? yes.v[i] : no.v[i]); }
ROOFTREE_LANE_INLINE F32 swap_neighbours(F32 a) { ROOFTREE_EACH(F32, a.v[i ^ 1]); }

ROOFTREE_LANE_INLINE I32 set_int(std::int32_t x) { ROOFTREE_EACH(I32, x); }
ROOFTREE_LANE_INLINE I32 load_int(const std::int32_t* p) { ROOFTREE_EACH(I32, p[i]); }
ROOFTREE_LANE_INLINE void store_int(std::int32_t* p, I32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = a.v[i];
}
ROOFTREE_LANE_INLINE std::uint32_t as_unsigned(std::int32_t x) { return static_cast<std::uint32_t>(x); }
ROOFTREE_LANE_INLINE std::int32_t as_signed(std::uint32_t x) { return static_cast<std::int32_t>(x); }
ROOFTREE_LANE_INLINE I32 add(I32 a, I32 b) { ROOFTREE_EACH(I32, as_signed(as_unsigned(a.v[i]) + as_unsigned(b.v[i]))); }
ROOFTREE_LANE_INLINE I32 sub(I32 a, I32 b) { ROOFTREE_EACH(I32, as_signed(as_unsigned(a.v[i]) - as_unsigned(b.v[i]))); }
ROOFTREE_LANE_INLINE I32 bit_and(I32 a, I32 b) { ROOFTREE_EACH(I32, a.v[i] & b.v[i]); }
ROOFTREE_LANE_INLINE I32 bit_or(I32 a, I32 b) { ROOFTREE_EACH(I32, a.v[i] | b.v[i]); }
ROOFTREE_LANE_INLINE Mask less(I32 a, I32 b) { ROOFTREE_EACH(Mask, a.v[i] < b.v[i]); }
ROOFTREE_LANE_INLINE Mask equal(I32 a, I32 b) { ROOFTREE_EACH(Mask, a.v[i] == b.v[i]); }
ROOFTREE_LANE_INLINE I32 select(Mask m, I32 yes, I32 no) { ROOFTREE_EACH(I32, m.v[i] ? yes.v[i] : no.v[i]); }
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_left(I32 a) {
  ROOFTREE_EACH(I32, as_signed(as_unsigned(a.v[i]) << Count));
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right(I32 a) {
  ROOFTREE_EACH(I32, as_signed(as_unsigned(a.v[i]) >> Count));
}
template <int Count>
ROOFTREE_LANE_INLINE I32 shift_right_signed(I32 a) {
  ROOFTREE_EACH(I32, a.v[i] >> Count);
}
ROOFTREE_LANE_INLINE I32 bits(F32 a) { ROOFTREE_EACH(I32, std::bit_cast<std::int32_t>(a.v[i])); }
ROOFTREE_LANE_INLINE F32 from_bits(I32 a) { ROOFTREE_EACH(F32, std::bit_cast<float>(a.v[i])); }
ROOFTREE_LANE_INLINE F32 to_float(I32 a) { ROOFTREE_EACH(F32, static_cast<float>(a.v[i])); }
// Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
ROOFTREE_LANE_INLINE I32 round_to_int(F32 a) {
  ROOFTREE_EACH(I32, std::bit_cast<std::int32_t>(a.v[i] + 0x1.8p23F) - std::bit_cast<std::int32_t>(0x1.8p23F));
}

// IEEE binary16: 5 bits of exponent with bias 15. Infinities and NaN keep their class.
inline float f16_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16, magnitude = half & 0x7FFFU;
  if (magnitude >= 0x7C00U) return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13));
  // As a float of exponent bias 127 the bits are 2^112 times too small; exact also for subnormals.
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}
inline std::uint16_t float_to_f16(float x) {
  const std::uint32_t all = std::bit_cast<std::uint32_t>(x), sign = (all >> 16) & 0x8000U, magnitude = all & 0x7FFFFFFFU;
  std::uint32_t half = 0;
  if (magnitude > 0x7F800000U) {
    half = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
  } else if (magnitude >= 0x477FF000U) {  // 65520 and more round to infinity
    half = 0x7C00U;
  } else if (magnitude < 0x38800000U) {  // below 2^-14: multiples of 2^-24, rounded by the addition of 0.5
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - std::bit_cast<std::uint32_t>(0.5F);
  } else {
    half = (magnitude + 0xFFFU + ((magnitude >> 13) & 1U) - (112U << 23)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}
ROOFTREE_LANE_INLINE F32 load_f16(const std::uint16_t* p) { ROOFTREE_EACH(F32, f16_to_float(p[i])); }
ROOFTREE_LANE_INLINE void store_f16(std::uint16_t* p, F32 a) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_f16(a.v[i]);
}
#undef ROOFTREE_EACH

ROOFTREE_LANE_INLINE float sum_lanes(F32 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
  }
  return a.v[0];
}
ROOFTREE_LANE_INLINE float max_lanes(F32 a) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  }
  return a.v[0];
}

#endif

#if !defined(ROOFTREE_ISA_AVX512)
// The first n lanes; the others are +0 and are not read.
ROOFTREE_LANE_INLINE F32 load_n(const float* p, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
ROOFTREE_LANE_INLINE void store_n(float* p, F32 a, std::int64_t n) {
  float lanes[kLanes];
  store(lanes, a);
  for (std::int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
#endif

// min(n, 16) lanes: whole vectors without a mask.
ROOFTREE_LANE_INLINE F32 load_up_to(const float* p, std::int64_t n) { return n >= kLanes ? load(p) : load_n(p, n); }
ROOFTREE_LANE_INLINE void store_up_to(float* p, F32 a, std::int64_t n) {
  if (n >= kLanes) {
    store(p, a);
  } else {
    store_n(p, a, n);
  }
}

// 0, 1, … 15.
ROOFTREE_LANE_INLINE I32 lane_numbers() {
  alignas(64) static constexpr std::int32_t kNumbers[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load_int(kNumbers);
}

// The sum of a row as the contract defines it: 32 chains, value i on chain i mod 32, then halves of the chains are added.
// Starts as RowSum{zero(), zero()}: an implicit constructor would not belong to the instruction set.
struct RowSum {
  F32 low, high;  // chains 0..15, 16..31

  ROOFTREE_LANE_INLINE void add_pair(F32 a, F32 b) {
    low = add(low, a);
    high = add(high, b);
  }
  [[nodiscard]] ROOFTREE_LANE_INLINE float total() const { return sum_lanes(add(low, high)); }
};

// The nearest bf16 as a float, ties to even; magnitudes below 2^-55 become zero (level B of the contract).
ROOFTREE_LANE_INLINE I32 bf16_bits(F32 x) {  // bf16 in the upper half of each lane, zeros below
  const I32 all = bits(x);
  const I32 odd = bit_and(shift_right<16>(all), set_int(1));
  const I32 rounded = bit_and(add(all, add(odd, set_int(0x7FFF))), set_int(-0x10000));
  const Mask tiny = less(bit_and(rounded, set_int(0x7FFFFFFF)), set_int((127 - 55) << 23));
  return select(tiny, set_int(0), rounded);
}
ROOFTREE_LANE_INLINE F32 round_bf16(F32 x) { return from_bits(bf16_bits(x)); }
// The nearest f16, clamped to +-65504.
ROOFTREE_LANE_INLINE F32 clamp_f16(F32 x) { return max(min(x, set(65504.0F)), set(-65504.0F)); }
ROOFTREE_LANE_INLINE F32 round_f16(F32 x) {
  std::uint16_t half[kLanes];
  store_f16(half, clamp_f16(x));
  return load_f16(half);
}

}  // namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE

// Floating-point products for x86-64. Each instruction set has its namespace and its target region; nothing else of the program
// is compiled for it.

#include "kernels/cpu/float_products.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>
#include <cstring>

// ---- AVX2, FMA, F16C: 16 registers

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace rooftree::kernels::cpu {
namespace avx2 {
namespace {

struct V {
  using Floats = __m256;
  static constexpr int kWidth = 8;
  static constexpr int columns(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }

  ROOFTREE_INLINE static Floats zero() { return _mm256_setzero_ps(); }
  ROOFTREE_INLINE static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  ROOFTREE_INLINE static void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  ROOFTREE_INLINE static Floats broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  ROOFTREE_INLINE static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  ROOFTREE_INLINE static Floats fused(Floats acc, Floats a, Floats b) { return _mm256_fmadd_ps(a, b, acc); }
  ROOFTREE_INLINE static Floats multiply_add(Floats acc, Floats a, Floats b) { return fused(acc, a, b); }
  ROOFTREE_INLINE static Floats load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  ROOFTREE_INLINE static Floats load_bf16_high(const std::byte* p) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000U));
    return _mm256_castsi256_ps(_mm256_and_si256(mask, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  ROOFTREE_INLINE static Floats load_bf16_low(const std::byte* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16));
  }
};

#include "kernels/cpu/float_products-inl.h"

void pack_f16(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  alignas(32) float lane[kLaneDwords];
  for (std::int64_t i = 0; i < k; i += kLaneDwords, out += stride) {
    pack_f32(x + i, k - i < kLaneDwords ? k - i : kLaneDwords, kLaneDwords, reinterpret_cast<std::uint32_t*>(lane));
    for (int j = 0; j < kLaneDwords; j += 8) {
      // The limit first: the result is the second operand if one is not a number.
      __m256 v = _mm256_min_ps(_mm256_set1_ps(65504.0F), _mm256_load_ps(lane + j));
      v = _mm256_max_ps(_mm256_set1_ps(-65504.0F), v);
      _mm256_storeu_ps(reinterpret_cast<float*>(out + j),
                       _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
    }
  }
}

void unpack_coded(const Lossless12& coded, std::int64_t pairs, std::byte* out) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(coded.high_bytes)));
  const __m256i low_nibble = _mm256_set1_epi8(15);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::byte* record = coded.records + pair * static_cast<std::int64_t>(kCodedPairBytes);
    std::byte* halves = out + pair * static_cast<std::int64_t>(kBf16PairBytes);
    for (int half = 0; half < 2; ++half) {  // 32 bytes of each line
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(record + 128 + 32 * half));
      for (int line = 0; line < 2; ++line) {
        const __m256i code = _mm256_and_si256(low_nibble, line == 0 ? codes : _mm256_srli_epi16(codes, 4));
        const __m256i high = _mm256_shuffle_epi8(table, code);
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(record + 64 * line + 32 * half));
        auto* to = reinterpret_cast<__m256i*>(halves + 128 * line + 32 * half);
        _mm256_storeu_si256(to, _mm256_unpacklo_epi8(low, high));
        _mm256_storeu_si256(to + 2, _mm256_unpackhi_epi8(low, high));
      }
    }
  }
  patch_escapes(coded, out);
}

constexpr FloatKernels make_kernels() {
  FloatKernels kernels;
  fill_tiles<F32Weights>(kernels.tile[static_cast<int>(FloatStorage::kF32)]);
  fill_tiles<F16Weights>(kernels.tile[static_cast<int>(FloatStorage::kF16)]);
  fill_tiles<Bf16Weights>(kernels.tile[static_cast<int>(FloatStorage::kBf16)]);
  kernels.unpack_coded = unpack_coded;
  kernels.pack_f32 = pack_f32;
  kernels.pack_f16 = pack_f16;
  kernels.pack_bf16 = pack_bf16;
  return kernels;
}

}  // namespace
}  // namespace avx2
}  // namespace rooftree::kernels::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

// ---- AVX-512 F, BW, VL, DQ: 32 registers of 16 floats

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace rooftree::kernels::cpu {
namespace avx512 {
namespace {

struct V {
  using Floats = __m512;
  static constexpr int kWidth = 16;
  static constexpr int columns(int) { return 4; }

  ROOFTREE_INLINE static Floats zero() { return _mm512_setzero_ps(); }
  ROOFTREE_INLINE static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  ROOFTREE_INLINE static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  ROOFTREE_INLINE static Floats broadcast(const float* p) { return _mm512_set1_ps(*p); }
  ROOFTREE_INLINE static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  ROOFTREE_INLINE static Floats fused(Floats acc, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, acc); }
  ROOFTREE_INLINE static Floats multiply_add(Floats acc, Floats a, Floats b) { return fused(acc, a, b); }
  ROOFTREE_INLINE static Floats load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  ROOFTREE_INLINE static Floats load_bf16_high(const std::byte* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_set1_epi32(static_cast<int>(0xFFFF0000U)), _mm512_loadu_si512(p)));
  }
  ROOFTREE_INLINE static Floats load_bf16_low(const std::byte* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
};

#include "kernels/cpu/float_products-inl.h"

// The four lines of a bf16 record from a coded one.
struct Record {
  __m512i line[4];
};
ROOFTREE_INLINE Record decode(const std::byte* record, __m512i table) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i codes = _mm512_loadu_si512(record + 128);
  const __m512i low0 = _mm512_loadu_si512(record), low1 = _mm512_loadu_si512(record + 64);
  const __m512i high0 = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, nibble));
  const __m512i high1 = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble));
  return {{_mm512_unpacklo_epi8(low0, high0), _mm512_unpackhi_epi8(low0, high0), _mm512_unpacklo_epi8(low1, high1),
           _mm512_unpackhi_epi8(low1, high1)}};
}
ROOFTREE_INLINE void store_record(const Record& record, std::byte* records, std::int64_t pair) {
  std::byte* to = records + pair * static_cast<std::int64_t>(kBf16PairBytes);
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) _mm512_storeu_si512(to + 64 * l, record.line[l]);
}
ROOFTREE_INLINE __m512i high_byte_table(const Lossless12& coded) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(coded.high_bytes)));
}

void unpack_coded(const Lossless12& coded, std::int64_t pairs, std::byte* out) {
  const __m512i table = high_byte_table(coded);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    store_record(decode(coded.records + pair * static_cast<std::int64_t>(kCodedPairBytes), table), out, pair);
  }
  patch_escapes(coded, out);
}

constexpr FloatKernels make_kernels() {
  FloatKernels kernels;
  fill_tiles<F32Weights>(kernels.tile[static_cast<int>(FloatStorage::kF32)]);
  fill_tiles<F16Weights>(kernels.tile[static_cast<int>(FloatStorage::kF16)]);
  fill_tiles<Bf16Weights>(kernels.tile[static_cast<int>(FloatStorage::kBf16)]);
  kernels.unpack_coded = unpack_coded;
  kernels.pack_f32 = pack_f32;
  kernels.pack_f16 = avx2::pack_f16;
  kernels.pack_bf16 = pack_bf16;
  return kernels;
}

}  // namespace
}  // namespace avx512
}  // namespace rooftree::kernels::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

// ---- AVX-512 BF16: VDPBF16PS adds the product of the high halves, then that of the low ones, each rounded once, without
// subnormals in or out. The contract's operands never make any: a product is a multiple of 2^-124.

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace rooftree::kernels::cpu {
namespace avx512 {
namespace {

ROOFTREE_INLINE __m512 multiply_pairs(__m512 acc, __m512i w, __m512i x) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}

template <int kRows>
ROOFTREE_INLINE void multiply_record(__m512 (&acc)[kRows][4], const Record& w, const std::uint32_t* x) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(x[r * kLaneDwords]));
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) acc[r][c] = multiply_pairs(acc[r][c], w.line[c], pair);
  }
}

template <int kRows>
ROOFTREE_INLINE void clear(__m512 (&acc)[kRows][4]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) acc[r][c] = _mm512_setzero_ps();
  }
}

template <int kRows, bool kStream>
void tile_pairs(const TileJob& job) {
  __m512 acc[kRows][4];
  clear(acc);
  const std::byte* record = job.weights;
  const auto* x = reinterpret_cast<const std::uint32_t*>(job.activations);
  for (std::int64_t done = 0; done < job.steps; done += kLaneDwords) {
    const std::int64_t count = job.steps - done < kLaneDwords ? job.steps - done : kLaneDwords;
#pragma GCC unroll 1
    for (std::int64_t s = 0; s < count; ++s) {
      prefetch_step<kStream, kBf16PairBytes>(job, record, done + s);
      const Record w = {{_mm512_loadu_si512(record), _mm512_loadu_si512(record + 64), _mm512_loadu_si512(record + 128),
                         _mm512_loadu_si512(record + 192)}};
      multiply_record(acc, w, x);
      record += kBf16PairBytes;
      ++x;
    }
    x += (kRows - 1) * kLaneDwords;
  }
  store_sums<kRows, 4>(acc, job, 0);
}

// Replaces the halves that an escape names.
ROOFTREE_INLINE void patch(Record& record, Escape escape) {
  const unsigned half = escape_half(escape);
  const auto value = static_cast<short>(escape_value(escape));
#pragma GCC unroll 4
  for (unsigned l = 0; l < 4; ++l) {
    const __mmask32 mask = half / 32 == l ? 1U << (half % 32) : 0U;
    record.line[l] = _mm512_mask_set1_epi16(record.line[l], mask, value);
  }
}

// Decodes in registers, record by record; the loop runs undisturbed up to the record of the next escape. Where more tiles
// follow (not a stream), the bf16 records are left behind for them: the stores and the decoding hide behind the products.
template <int kRows, bool kStream>
void tile_coded(const TileJob& job) {
  __m512 acc[kRows][4];
  clear(acc);
  const __m512i table = high_byte_table(job.coded);
  const std::byte* record = job.coded.records;
  const auto* activations = reinterpret_cast<const std::uint32_t*>(job.activations);
  const auto at = [activations](std::int64_t step) {
    return activations + step / kLaneDwords * (kRows * kLaneDwords) + step % kLaneDwords;
  };
  const Escape* escape = job.coded.escapes;
  const Escape* const last_escape = escape + job.coded.escape_count;
  std::int64_t step = 0;
  while (true) {
    const std::int64_t stop = escape < last_escape ? escape_pair(*escape) : job.steps;
#pragma GCC unroll 1
    for (; step < stop; ++step, record += kCodedPairBytes) {
      prefetch_step<kStream, kCodedPairBytes>(job, record, step);
      const Record w = decode(record, table);
      if constexpr (!kStream) store_record(w, job.decoded, step);
      multiply_record(acc, w, at(step));
    }
    if (step == job.steps) break;
    Record w = decode(record, table);
    for (; escape < last_escape && escape_pair(*escape) == step; ++escape) patch(w, *escape);
    if constexpr (!kStream) store_record(w, job.decoded, step);
    multiply_record(acc, w, at(step));
    prefetch_step<kStream, kCodedPairBytes>(job, record, step);
    ++step;
    record += kCodedPairBytes;
  }
  store_sums<kRows, 4>(acc, job, 0);
}

template <int kRows = 1>
constexpr void fill_pair_tiles(FloatKernels& kernels) {
  auto& plain = kernels.tile[static_cast<int>(FloatStorage::kBf16)][kRows - 1];
  plain[0] = tile_pairs<kRows, false>;
  plain[1] = tile_pairs<kRows, true>;
  auto& coded = kernels.tile[static_cast<int>(FloatStorage::kBf16Coded)][kRows - 1];
  coded[0] = tile_coded<kRows, false>;
  coded[1] = tile_coded<kRows, true>;
  if constexpr (kRows < kMaxTileRows) fill_pair_tiles<kRows + 1>(kernels);
}
constexpr FloatKernels make_bf16_kernels() {
  FloatKernels kernels = make_kernels();
  fill_pair_tiles(kernels);
  kernels.pack_bf16 = pack_bf16_pairs;
  kernels.bf16_pairs = true;
  return kernels;
}

}  // namespace
}  // namespace avx512
}  // namespace rooftree::kernels::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace rooftree::kernels::cpu {
constexpr FloatKernels kAvx2FloatKernels = avx2::make_kernels();
constexpr FloatKernels kAvx512FloatKernels = avx512::make_kernels();
constexpr FloatKernels kAvx512Bf16FloatKernels = avx512::make_bf16_kernels();
}  // namespace rooftree::kernels::cpu

#endif

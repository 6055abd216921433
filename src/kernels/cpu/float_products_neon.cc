// Floating-point products for AArch64's 32 vectors of 4 floats. BFDOT is of no use here: it does not round after each product.

#include "kernels/cpu/float_products.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <bit>
#include <cstring>

namespace rooftree::kernels::cpu {
namespace {

struct V {
  using Floats = float32x4_t;
  static constexpr int kWidth = 4;
  static constexpr int columns(int rows) { return rows == 1 ? 16 : rows == 2 ? 8 : 4; }

  ROOFTREE_INLINE static Floats zero() { return vdupq_n_f32(0.0F); }
  ROOFTREE_INLINE static Floats load(const float* p) { return vld1q_f32(p); }
  ROOFTREE_INLINE static void store(float* p, Floats v) { vst1q_f32(p, v); }
  ROOFTREE_INLINE static Floats broadcast(const float* p) { return vld1q_dup_f32(p); }
  ROOFTREE_INLINE static Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
  ROOFTREE_INLINE static Floats fused(Floats acc, Floats a, Floats b) { return vfmaq_f32(acc, a, b); }
  ROOFTREE_INLINE static Floats multiply_add(Floats acc, Floats a, Floats b) { return fused(acc, a, b); }
  ROOFTREE_INLINE static Floats load_f16(const std::byte* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p))));
  }
  ROOFTREE_INLINE static uint32x4_t load_pairs(const std::byte* p) {
    return vld1q_u32(reinterpret_cast<const std::uint32_t*>(p));
  }
  ROOFTREE_INLINE static Floats load_bf16_high(const std::byte* p) {
    return vreinterpretq_f32_u32(vandq_u32(load_pairs(p), vdupq_n_u32(0xFFFF0000U)));
  }
  ROOFTREE_INLINE static Floats load_bf16_low(const std::byte* p) {
    return vreinterpretq_f32_u32(vshlq_n_u32(load_pairs(p), 16));
  }
};

#include "kernels/cpu/float_products-inl.h"

void pack_f16(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  float lane[kLaneDwords];
  for (std::int64_t i = 0; i < k; i += kLaneDwords, out += stride) {
    pack_f32(x + i, k - i < kLaneDwords ? k - i : kLaneDwords, kLaneDwords, reinterpret_cast<std::uint32_t*>(lane));
    for (std::int64_t j = 0; j < kLaneDwords; j += 4) {
      const float32x4_t v = vmaxq_f32(vminq_f32(vld1q_f32(lane + j), vdupq_n_f32(65504.0F)), vdupq_n_f32(-65504.0F));
      vst1q_u32(out + j, vreinterpretq_u32_f32(vcvt_f32_f16(vcvt_f16_f32(v))));
    }
  }
}

void unpack_coded(const Lossless12& coded, std::int64_t pairs, std::byte* out) {
  const uint8x16_t table = vld1q_u8(coded.high_bytes);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const auto* record =
        reinterpret_cast<const std::uint8_t*>(coded.records) + pair * static_cast<std::int64_t>(kCodedPairBytes);
    auto* halves = reinterpret_cast<std::uint8_t*>(out) + pair * static_cast<std::int64_t>(kBf16PairBytes);
    for (int lane = 0; lane < 64; lane += 16) {
      const uint8x16_t codes = vld1q_u8(record + 128 + lane);
      for (int line = 0; line < 2; ++line) {
        const uint8x16_t high = vqtbl1q_u8(table, line == 0 ? vandq_u8(codes, vdupq_n_u8(15)) : vshrq_n_u8(codes, 4));
        const uint8x16_t low = vld1q_u8(record + 64 * line + lane);
        vst1q_u8(halves + 128 * line + lane, vzip1q_u8(low, high));
        vst1q_u8(halves + 128 * line + 64 + lane, vzip2q_u8(low, high));
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

constexpr FloatKernels kNeonFloatKernels = make_kernels();

}  // namespace rooftree::kernels::cpu

#endif

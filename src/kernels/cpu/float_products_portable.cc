// Floating-point products in plain C++: multiplication and addition as the contract writes them.

#include <bit>
#include <cmath>
#include <cstring>

#include "formats/half.h"
#include "kernels/cpu/float_products.h"

namespace rooftree::kernels::cpu {
namespace {

struct V {
  static constexpr int kWidth = 16;
  struct Floats {
    float lane[kWidth];
  };
  static constexpr int columns(int) { return 1; }

  template <class F>
  ROOFTREE_INLINE static Floats each(F f) {
    Floats result;
    for (int i = 0; i < kWidth; ++i) result.lane[i] = f(i);
    return result;
  }
  ROOFTREE_INLINE static Floats zero() { return Floats{}; }
  ROOFTREE_INLINE static Floats load(const float* p) {
    Floats result;
    std::memcpy(result.lane, p, sizeof result.lane);
    return result;
  }
  ROOFTREE_INLINE static void store(float* p, const Floats& v) { std::memcpy(p, v.lane, sizeof v.lane); }
  ROOFTREE_INLINE static Floats broadcast(const float* p) {
    const float value = *p;
    return each([value](int) { return value; });
  }
  ROOFTREE_INLINE static Floats add(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  ROOFTREE_INLINE static Floats multiply_add(const Floats& acc, const Floats& a, const Floats& b) {
    return each([&](int i) { return acc.lane[i] + a.lane[i] * b.lane[i]; });
  }
  ROOFTREE_INLINE static Floats fused(const Floats& acc, const Floats& a, const Floats& b) {
    return each([&](int i) { return std::fma(a.lane[i], b.lane[i], acc.lane[i]); });
  }
  ROOFTREE_INLINE static Floats load_f16(const std::byte* p) {
    std::uint16_t bits[kWidth];
    std::memcpy(bits, p, sizeof bits);
    return each([&](int i) { return formats::float_from_f16(bits[i]); });
  }
  ROOFTREE_INLINE static Floats load_bf16_high(const std::byte* p) {
    std::uint32_t bits[kWidth];
    std::memcpy(bits, p, sizeof bits);
    return each([&](int i) { return std::bit_cast<float>(bits[i] & 0xFFFF0000U); });
  }
  ROOFTREE_INLINE static Floats load_bf16_low(const std::byte* p) {
    std::uint32_t bits[kWidth];
    std::memcpy(bits, p, sizeof bits);
    return each([&](int i) { return std::bit_cast<float>(bits[i] << 16); });
  }
};

#include "kernels/cpu/float_products-inl.h"

void pack_f16(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  constexpr float kLargest = 65504.0F;
  for (std::int64_t i = 0; i < k; i += kLaneDwords, out += stride) {
    for (std::int64_t j = 0; j < kLaneDwords; ++j) {
      const float value = i + j < k ? x[i + j] : 0.0F;
      const float clamped = value > kLargest ? kLargest : value < -kLargest ? -kLargest : value;
      out[j] = std::bit_cast<std::uint32_t>(formats::float_from_f16(formats::f16_from_float(clamped)));
    }
  }
}

void unpack_coded(const Lossless12& coded, std::int64_t pairs, std::byte* out) {
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const auto* record =
        reinterpret_cast<const std::uint8_t*>(coded.records) + pair * static_cast<std::int64_t>(kCodedPairBytes);
    std::uint16_t halves[128];
    for (int line = 0; line < 2; ++line) {
      for (int byte = 0; byte < 64; ++byte) {
        const unsigned code = line == 0 ? record[128 + byte] & 15U : record[128 + byte] >> 4U;
        halves[coded_half(line, byte)] =
            static_cast<std::uint16_t>((unsigned{coded.high_bytes[code]} << 8U) | record[64 * line + byte]);
      }
    }
    std::memcpy(out + pair * static_cast<std::int64_t>(kBf16PairBytes), halves, sizeof halves);
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

constexpr FloatKernels kPortableFloatKernels = make_kernels();

}  // namespace rooftree::kernels::cpu

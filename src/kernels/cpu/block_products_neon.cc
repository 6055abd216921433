// AArch64 with the four-way products of signed bytes (FEAT_DotProd): 16 outputs are four registers.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/cpu/block_products_forms.h"

// clang before 16 declares these intrinsics only when the whole file is compiled for them.
#if defined(__aarch64__) && (defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__) || __clang_major__ >= 16)

#include <arm_neon.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

#define ROOFTREE_INLINE inline __attribute__((always_inline))
#define ROOFTREE_LAMBDA __attribute__((always_inline))
#define ROOFTREE_NOINLINE __attribute__((noinline))

namespace rooftree::kernels::cpu::block {
namespace neon {

struct I {
  int32x4_t v[4];
};
struct F {
  float32x4_t v[4];
};

constexpr bool kUnsignedBytes = false;  // dot_wide takes signed weights
constexpr int kTileRows = 4;
constexpr int kTileUnits = 1;
constexpr int kBothTiles = 2;
constexpr std::int64_t kPairRows = 64;
// Bytes between use and prefetch.
constexpr std::int64_t kPrefetchDistance = 4608, kNearDistance = 1152, kFarDistance = 9216;
constexpr std::int64_t kStreamBytes = INT64_MAX;  // no store that goes past the caches

// Applies `body` to each of the four registers.
template <class Body>
ROOFTREE_INLINE I each_i(const Body& body) {
  return {{body(0), body(1), body(2), body(3)}};
}
template <class Body>
ROOFTREE_INLINE F each_f(const Body& body) {
  return {{body(0), body(1), body(2), body(3)}};
}
ROOFTREE_INLINE uint8x16_t bytes(int32x4_t a) { return vreinterpretq_u8_s32(a); }

ROOFTREE_INLINE I set1(std::int32_t v) {
  return each_i([&](int) ROOFTREE_LAMBDA { return vdupq_n_s32(v); });
}
ROOFTREE_INLINE F set1_f(float v) {
  return each_f([&](int) ROOFTREE_LAMBDA { return vdupq_n_f32(v); });
}
ROOFTREE_INLINE I zero() { return set1(0); }
ROOFTREE_INLINE F zero_f() { return set1_f(0.0F); }
ROOFTREE_INLINE I load(const std::byte* p) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vld1q_s32(reinterpret_cast<const std::int32_t*>(p) + 4 * i); });
}
ROOFTREE_INLINE F load_f(const float* p) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vld1q_f32(p + 4 * i); });
}
ROOFTREE_INLINE void store_f(float* p, F v) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, v.v[i]);
}
ROOFTREE_INLINE void stream_f(float* p, F v) { store_f(p, v); }
ROOFTREE_INLINE void store_fence() {}
ROOFTREE_INLINE I broadcast(const std::byte* p) {
  std::int32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  return set1(v);
}
ROOFTREE_INLINE F as_float(I a) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vreinterpretq_f32_s32(a.v[i]); });
}
ROOFTREE_INLINE F broadcast_f(const std::byte* p) { return as_float(broadcast(p)); }
ROOFTREE_INLINE F load_half(const std::byte* p) {
  return each_f([&](int i) ROOFTREE_LAMBDA {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p) + 4 * i)));
  });
}
ROOFTREE_INLINE I load_u8(const std::byte* p) {
  const uint8x16_t all = vld1q_u8(reinterpret_cast<const std::uint8_t*>(p));
  const uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_u8(vget_high_u8(all));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
}
ROOFTREE_INLINE void prefetch(const std::byte* p) { __builtin_prefetch(p); }
ROOFTREE_INLINE void prefetch_far(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

ROOFTREE_INLINE I bit_and(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vandq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I bit_or(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vorrq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I bit_xor(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return veorq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I and_or(I a, I mask, I b) { return bit_or(bit_and(a, mask), b); }
template <int kBits>
ROOFTREE_INLINE I shift_left(I a) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vshlq_n_s32(a.v[i], kBits); });
}
template <int kBits>
ROOFTREE_INLINE I shift_right(I a) {
  if constexpr (kBits == 0) {
    return a;
  } else {
    return each_i([&](int i)
                      ROOFTREE_LAMBDA { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), kBits)); });
  }
}
template <int kBits>
ROOFTREE_INLINE I shift_right_signed(I a) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vshrq_n_s32(a.v[i], kBits); });
}
ROOFTREE_INLINE I shift_right_by(I a, int bits) {
  const int32x4_t count = vdupq_n_s32(-bits);
  return each_i([&](int i) ROOFTREE_LAMBDA { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.v[i]), count)); });
}
template <int kBits>
ROOFTREE_INLINE I shift_bytes(I a) {
  if constexpr (kBits < 0) {
    return shift_left<-kBits>(a);
  } else {
    return shift_right<kBits>(a);
  }
}
ROOFTREE_INLINE I add(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vaddq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I mul_int(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vmulq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I max_signed(I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vmaxq_s32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE I dot_wide(I sum, I weights, I activations) {
  return each_i([&](int i) ROOFTREE_LAMBDA {
    return vdotq_s32(sum.v[i], vreinterpretq_s8_s32(weights.v[i]), vreinterpretq_s8_s32(activations.v[i]));
  });
}
ROOFTREE_INLINE I dot_narrow(I sum, I weights, I activations) { return dot_wide(sum, weights, activations); }
ROOFTREE_INLINE I dot_pairs(I sum, I a, I b) {
  return each_i([&](int i) ROOFTREE_LAMBDA {
    const int16x8_t x = vreinterpretq_s16_s32(a.v[i]), y = vreinterpretq_s16_s32(b.v[i]);
    return vaddq_s32(sum.v[i], vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
  });
}
ROOFTREE_INLINE I look_up(I index, I book) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vreinterpretq_s32_u8(vqtbl1q_u8(bytes(book.v[i]), bytes(index.v[i]))); });
}
ROOFTREE_INLINE I book_of(const std::int8_t* entries) {
  const int32x4_t book = vreinterpretq_s32_s8(vld1q_s8(entries));
  return {{book, book, book, book}};
}
ROOFTREE_INLINE I iq4_book() { return book_of(kIq4Book.data()); }
ROOFTREE_INLINE I mxfp4_book() {
  static constexpr std::array<std::int8_t, 16> kPlus16 = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};
  return book_of(kPlus16.data());
}

ROOFTREE_INLINE F add(F a, F b) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vaddq_f32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE F sub(F a, F b) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vsubq_f32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE F mul(F a, F b) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vmulq_f32(a.v[i], b.v[i]); });
}
ROOFTREE_INLINE F abs(F a) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vabsq_f32(a.v[i]); });
}
ROOFTREE_INLINE F max(F a, F b) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
ROOFTREE_INLINE F min(F a, F b) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
ROOFTREE_INLINE F to_float(I a) {
  return each_f([&](int i) ROOFTREE_LAMBDA { return vcvtq_f32_s32(a.v[i]); });
}
ROOFTREE_INLINE I nearest(F a) {
  return each_i([&](int i) ROOFTREE_LAMBDA { return vcvtnq_s32_f32(a.v[i]); });
}
ROOFTREE_INLINE float reduce_max(F a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }
ROOFTREE_INLINE std::int32_t reduce_add(I a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}
ROOFTREE_INLINE void store_bytes(std::int8_t* p, I a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

#include "kernels/cpu/block_products-inl.h"

}  // namespace neon

const Table* neon_table() {
  static constexpr Table kTable = neon::make_table(std::make_index_sequence<kBlockTypes.size()>());
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
const Table* neon_table() { return nullptr; }
}  // namespace rooftree::kernels::cpu::block

#endif

#pragma once

// The functions of the numeric contract, on 16 lanes: separate multiplications and additions, no libm. The coefficients are
// minimax fits (Remez exchange, relative error of the result as the weight) made for these intervals, rounded to binary32.
//
//   exp      2^n (1 + r + r^2 q(r)), n = rne(x log2 e), r in +-ln2/2; 0 below -87.33, infinity above 88.7228317
//   tanh     |x| < 0.625: x + x^3 p(x^2); else 1 - 2 / (exp(2|x|) + 1) with the sign of x
//   erf      |x| < 1: x (2/sqrt(pi) + x^2 p(x^2)); else 1 - exp(p(|x|)), p a fit of log(erfc) on [1, 4]
//   sigmoid  1 / (1 + exp(-x))
// Largest errors against libm in binary64 over 8 million values: exp 1.2 ulp, tanh 1.4, erf 2.4, sigmoid 2.4 (the test allows
// 2, 4, 4, 4).

#include <cstdint>

#include "kernels/cpu/vector-inl.h"

namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE {

// exp for x <= 0 (larger x up to 88 give the same bits as exp()).
ROOFTREE_LANE_INLINE F32 exp_nonpositive(F32 x) {
  const F32 magic = set(0x1.8p23F);  // adding it rounds to an integer, which is left in the low bits
  const F32 shifted = add(mul(x, set(0x1.715476p+0F)), magic);
  const F32 n = sub(shifted, magic);
  const F32 r = sub(sub(x, mul(n, set(0x1.62p-1F))), mul(n, set(0x1.c85fe0p-10F)));  // ln 2 in two parts: n * first is exact
  F32 q = set(0x1.6db480p-10F);
  q = add(mul(q, r), set(0x1.123b92p-7F));
  q = add(mul(q, r), set(0x1.55545ep-5F));
  q = add(mul(q, r), set(0x1.55548ep-3F));
  q = add(mul(q, r), set(0x1.0p-1F));
  const F32 y = add(add(mul(mul(r, r), q), r), set(1.0F));
  const F32 scaled = from_bits(add(bits(y), shift_left<23>(bits(shifted))));
  return select(less(x, set(-87.33F)), zero(), scaled);
}

ROOFTREE_LANE_INLINE F32 exp(F32 x) {
  F32 y = exp_nonpositive(x);
  y = select(less(set(0x1.62e42ep6F), x), from_bits(set_int(0x7F800000)), y);
  return select(equal(x, x), y, x);  // NaN stays NaN
}

ROOFTREE_LANE_INLINE F32 absolute(F32 x) { return from_bits(bit_and(bits(x), set_int(0x7FFFFFFF))); }
ROOFTREE_LANE_INLINE F32 with_sign_of(F32 magnitude, F32 x) {
  return from_bits(bit_or(bits(magnitude), bit_and(bits(x), set_int(INT32_MIN))));
}
ROOFTREE_LANE_INLINE F32 negate(F32 x) { return sub(zero(), x); }

ROOFTREE_LANE_INLINE F32 tanh(F32 x) {
  const F32 a = absolute(x);
  const F32 z = mul(x, x);
  F32 p = set(-0x1.76ac1ap-8F);
  p = add(mul(p, z), set(0x1.5256d8p-6F));
  p = add(mul(p, z), set(-0x1.b84448p-5F));
  p = add(mul(p, z), set(0x1.110768p-3F));
  p = add(mul(p, z), set(-0x1.555534p-2F));
  const F32 small = add(mul(mul(p, z), x), x);
  const F32 large = sub(set(1.0F), div(set(2.0F), add(exp(add(a, a)), set(1.0F))));
  return with_sign_of(select(less(a, set(0.625F)), small, large), x);  // x = -0 gives small = +0
}

ROOFTREE_LANE_INLINE F32 sigmoid(F32 x) { return div(set(1.0F), add(set(1.0F), exp(negate(x)))); }

ROOFTREE_LANE_INLINE F32 erf(F32 x) {
  const F32 a = absolute(x);
  const F32 z = mul(x, x);
  F32 p = set(0x1.4cbd32p-14F);
  p = add(mul(p, z), set(-0x1.a54468p-11F));
  p = add(mul(p, z), set(0x1.54376ep-8F));
  p = add(mul(p, z), set(-0x1.b80010p-6F));
  p = add(mul(p, z), set(0x1.ce2d70p-4F));
  p = add(mul(p, z), set(-0x1.812742p-2F));
  const F32 small = mul(add(mul(p, z), set(0x1.20dd76p+0F)), x);
  const F32 t = min(set(4.0F), a);  // erfc(4) is below half an ulp of 1; NaN passes
  F32 q = set(0x1.852d40p-13F);
  q = add(mul(q, t), set(-0x1.814cd4p-9F));
  q = add(mul(q, t), set(0x1.654220p-6F));
  q = add(mul(q, t), set(-0x1.a60a82p-4F));
  q = add(mul(q, t), set(-0x1.46c584p-1F));
  q = add(mul(q, t), set(-0x1.2085b2p+0F));
  q = add(mul(q, t), set(-0x1.72e71ep-12F));
  const F32 large = with_sign_of(sub(set(1.0F), exp(q)), x);
  return select(less(a, set(1.0F)), small, large);
}

ROOFTREE_LANE_INLINE F32 silu(F32 x) { return div(x, add(set(1.0F), exp(negate(x)))); }
// x/2 (1 + erf(x / sqrt 2))
ROOFTREE_LANE_INLINE F32 gelu(F32 x) { return mul(mul(x, set(0.5F)), add(set(1.0F), erf(mul(x, set(0x1.6a09e6p-1F))))); }
// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
ROOFTREE_LANE_INLINE F32 gelu_tanh(F32 x) {
  const F32 cube = mul(mul(x, x), x);
  const F32 inner = mul(set(0x1.988454p-1F), add(x, mul(set(0.044715F), cube)));
  return mul(mul(x, set(0.5F)), add(set(1.0F), tanh(inner)));
}

// cos and sin of `angle` times `magnitude`, computed in binary64 and rounded once. pi/2 is split into 30 + 30 + 53 bits, so
// that the reduction is exact to 2^-100 for |angle| < 2^23; Taylor polynomials to x^16 on +-pi/4 (error below 2^-54). No
// branch, so that a loop over angles becomes vector code.
ROOFTREE_LANE_INLINE void rotation(double angle, double magnitude, float& cosine, float& sine) {
  const double magic = 0x1.8p52;
  const double shifted = angle * 0x1.45f306dc9c883p-1 + magic;
  const double n = shifted - magic;
  const double r = ((angle - n * 0x1.921fb54000000p+0) - n * 0x1.10b4611800000p-30) - n * 0x1.313198a2e0370p-61;
  const double z = r * r;
  double s = -1.0 / 1307674368000.0;
  s = s * z + 1.0 / 6227020800.0;
  s = s * z - 1.0 / 39916800.0;
  s = s * z + 1.0 / 362880.0;
  s = s * z - 1.0 / 5040.0;
  s = s * z + 1.0 / 120.0;
  s = s * z - 1.0 / 6.0;
  s = (s * z) * r + r;
  double c = 1.0 / 20922789888000.0;
  c = c * z - 1.0 / 87178291200.0;
  c = c * z + 1.0 / 479001600.0;
  c = c * z - 1.0 / 3628800.0;
  c = c * z + 1.0 / 40320.0;
  c = c * z - 1.0 / 720.0;
  c = c * z + 1.0 / 24.0;
  c = c * z - 0.5;
  c = c * z + 1.0;
  const std::uint64_t quadrant = std::bit_cast<std::uint64_t>(shifted);
  const bool swapped = (quadrant & 1U) != 0;
  const std::uint64_t cosine_bits = std::bit_cast<std::uint64_t>(swapped ? s : c) ^ (((quadrant + 1U) & 2U) << 62);
  const std::uint64_t sine_bits = std::bit_cast<std::uint64_t>(swapped ? c : s) ^ ((quadrant & 2U) << 62);
  cosine = static_cast<float>(std::bit_cast<double>(cosine_bits) * magnitude);
  sine = static_cast<float>(std::bit_cast<double>(sine_bits) * magnitude);
}

}  // namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE

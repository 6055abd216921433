#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "formats/block_records.h"
#include "formats/half.h"

// Compiled without contraction, like block_codec.cc.

namespace rooftree::formats {
namespace {

using Byte = std::uint8_t;

void store16(Byte* p, std::uint16_t value) {
  p[0] = static_cast<Byte>(value & 0xFFU);
  p[1] = static_cast<Byte>(value >> 8);
}
void store_half(Byte* p, float value) { store16(p, f16_from_float(value)); }
// Also says what a reader will see.
float store_scale(Byte* p, float value) {
  store_half(p, value);
  return float_from_f16(f16_from_float(value));
}

float from_int(int value) { return static_cast<float>(value); }
float inverse(float value) { return value != 0.0F ? 1.0F / value : 0.0F; }

// Four values side by side (both compilers' vector extension; four floats are a register everywhere). Searches try tens of
// scales for every block; left to the compiler their loops were three to ten times slower.
using Four = float __attribute__((vector_size(16)));
template <std::size_t kValues>
using Values = std::array<Four, kValues / 4>;

template <std::size_t kValues>
Values<kValues> load(const float* x) {
  Values<kValues> out;
  std::memcpy(out.data(), x, sizeof(out));
  return out;
}
Four four(float value) { return Four{value, value, value, value}; }

// The nearest integer from `low` to `high`, ties to even; NaN gives `low`.
float rounded(float value, float low, float high) {
  const float above = value > low ? value : low;
  const float within = above < high ? above : high;
  return (within + 0x1.8p23F) - 0x1.8p23F;
}
Four rounded(Four value, Four low, Four high) {
  const Four above = value > low ? value : low;
  const Four within = above < high ? above : high;
  return (within + 0x1.8p23F) - 0x1.8p23F;
}
int nearest(float value, int low, int high) { return static_cast<int>(rounded(value, from_int(low), from_int(high))); }

// The integer part of a value in [0, most]; NaN gives 0.
int truncated(float value, int most) {
  if (!(value > 0.0F)) return 0;
  return value >= from_int(most) ? most : static_cast<int>(value);
}

// The value of largest magnitude, with its sign; the first one of several.
float extreme(const float* x, std::size_t n) {
  float found = 0.0F;
  for (std::size_t i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(found)) found = x[i];
  }
  return found;
}

// Exponent of the largest power of two not above `magnitude` (> 0 and finite); subnormals count as 2^-127.
int floor_log2(float magnitude) { return static_cast<int>(std::bit_cast<std::uint32_t>(magnitude) >> 23) - 127; }

void f32_pack(const float* x, Byte* r) { std::memcpy(r, x, 4); }
void f16_pack(const float* x, Byte* r) { store_half(r, *x); }
void bf16_pack(const float* x, Byte* r) { store16(r, bf16_from_float(*x)); }

// q8_0 to q5_1: the rounding of llama.cpp's reference writers (quantize_row_*_ref in ggml-quants.c), which llama-quantize uses.
// Half away from zero here.
void q8_0_pack(const float* x, Byte* r) {
  const float d = std::fabs(extreme(x, 32)) / 127.0F;
  const float id = inverse(d);
  store_half(r, d);
  for (int i = 0; i < 32; ++i) {
    const float scaled = x[i] * id;
    const int magnitude = truncated(std::fabs(scaled) + 0.5F, 127);
    r[2 + i] = static_cast<Byte>(scaled < 0.0F ? -magnitude : magnitude);
  }
}

void store_nibbles(const std::array<int, 32>& q, Byte* out) {
  for (std::size_t i = 0; i < 16; ++i) out[i] = static_cast<Byte>((q[i] & 15) | ((q[i + 16] & 15) << 4));
}
void store_fifth_bits(const std::array<int, 32>& q, Byte* out) {
  for (std::size_t byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (std::size_t i = 0; i < 8; ++i) bits |= ((q[8 * byte + i] >> 4) & 1) << i;
    out[byte] = static_cast<Byte>(bits);
  }
}

// The extreme value becomes -half, so that the scale has its sign turned.
std::array<int, 32> signed_codes(const float* x, int half, Byte* scale) {
  const float d = extreme(x, 32) / from_int(-half);
  const float id = inverse(d);
  store_half(scale, d);
  std::array<int, 32> q{};
  for (std::size_t i = 0; i < 32; ++i) q[i] = truncated(x[i] * id + (from_int(half) + 0.5F), 2 * half - 1);
  return q;
}
void q4_0_pack(const float* x, Byte* r) { store_nibbles(signed_codes(x, 8, r), r + 2); }
void q5_0_pack(const float* x, Byte* r) {
  const std::array<int, 32> q = signed_codes(x, 16, r);
  store_fifth_bits(q, r + 2);
  store_nibbles(q, r + 6);
}

std::array<int, 32> codes_above_minimum(const float* x, int most, Byte* scale_and_minimum) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float minimum = *low, d = (*high - *low) / from_int(most);
  const float id = inverse(d);
  store_half(scale_and_minimum, d);
  store_half(scale_and_minimum + 2, minimum);
  std::array<int, 32> q{};
  for (std::size_t i = 0; i < 32; ++i) q[i] = truncated((x[i] - minimum) * id + 0.5F, most);
  return q;
}
void q4_1_pack(const float* x, Byte* r) { store_nibbles(codes_above_minimum(x, 15, r), r + 4); }
void q5_1_pack(const float* x, Byte* r) {
  const std::array<int, 32> q = codes_above_minimum(x, 31, r);
  store_fifth_bits(q, r + 4);
  store_nibbles(q, r + 8);
}

// OCP Microscaling v1.0, section 6.3: the shared exponent is that of the largest magnitude, less that of the element type's
// largest power of two (E2M1: 4; INT8: 1). Elements saturate. MXFP4 rounds to the nearest value, ties to the smaller magnitude
// (as llama.cpp), MXINT8 ties to even.
void mxfp4_pack(const float* x, Byte* r) {
  const float largest = std::fabs(extreme(x, 32));
  const int exponent = largest > 0.0F ? std::clamp(floor_log2(largest) - 2 + 127, 0, 254) : 0;
  r[0] = static_cast<Byte>(exponent);
  const float d = power_of_two(exponent - 128);
  std::array<int, 32> q{};
  for (std::size_t code = 0; code < 7; ++code) {  // the number of middles between neighbours that the magnitude exceeds
    const float middle = d * 0.5F * from_int(kE2m1Doubled[code] + kE2m1Doubled[code + 1]);
    for (std::size_t i = 0; i < 32; ++i) q[i] += std::fabs(x[i]) > middle ? 1 : 0;
  }
  for (std::size_t i = 0; i < 32; ++i) q[i] += q[i] != 0 && x[i] < 0.0F ? 8 : 0;
  store_nibbles(q, r + 1);
}

void mxint8_pack(const float* x, Byte* r) {
  const float largest = std::fabs(extreme(x, 32));
  // Element exponents reach down to 2^-6: the inverse of the scale is finite from exponent 6 on.
  const int exponent = largest > 0.0F ? std::clamp(floor_log2(largest) + 127, 6, 254) : 6;
  r[0] = static_cast<Byte>(exponent);
  const float inverse_scale = power_of_two(133 - exponent);
  for (int i = 0; i < 32; ++i) r[1 + i] = static_cast<Byte>(nearest(x[i] * inverse_scale, -127, 127));
}

// Searches below minimise the plain squared error of the block: with activations that do not correlate this is the expected
// error of the product. Every candidate scale gives codes, the codes give their best scale by least squares.

// What a candidate's codes q say: sums over the block, in eight chains.
struct Sums {
  float q = 0.0F, qq = 0.0F, xq = 0.0F;
};
float total(Four even, Four odd) {
  const Four sum = even + odd;
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}
template <std::size_t kVectors>
Sums sums_of(const std::array<Four, kVectors>& x, const std::array<Four, kVectors>& codes) {
  std::array<Four, 2> q{}, qq{}, xq{};
  for (std::size_t i = 0; i < kVectors; ++i) {
    q[i % 2] += codes[i];
    qq[i % 2] += codes[i] * codes[i];
    xq[i % 2] += x[i] * codes[i];
  }
  return {total(q[0], q[1]), total(qq[0], qq[1]), total(xq[0], xq[1])};
}

// The best scale of the form x ~ scale * q seen so far: least squares gives scale = sum xq / sum qq, which takes
// (sum xq)^2 / sum qq off the squared error.
struct BestScale {
  float scale = 0.0F, gain = -1.0F;
  void offer(const Sums& sums) {
    if (sums.qq > 0.0F && sums.xq * sums.xq > gain * sums.qq) {
      gain = sums.xq * sums.xq / sums.qq;
      scale = sums.xq / sums.qq;
    }
  }
};

// The middles between neighbours of the code book.
float iq4_middle(std::size_t code) { return 0.5F * from_int(kIq4Values[code] + kIq4Values[code + 1]); }

// The scale of 32 values for the code book.
float fit_iq4(const float* values) {
  const float largest = extreme(values, 32);
  const Values<32> x = load<32>(values);
  BestScale best;
  Values<32> q;
  for (int step = -7; step <= 7 && largest != 0.0F; ++step) {
    const float id = from_int(step + kIq4Values[0]) / largest;
    for (std::size_t i = 0; i < q.size(); ++i) {
      const Four scaled = x[i] * id;
      q[i] = four(from_int(kIq4Values[0]));
      for (std::size_t code = 0; code < 15; ++code) {
        const Four rise = four(from_int(kIq4Values[code + 1] - kIq4Values[code]));
        q[i] += scaled > four(iq4_middle(code)) ? rise : four(0.0F);
      }
    }
    best.offer(sums_of(x, q));
  }
  return best.scale;
}

void store_iq4(const float* x, float scale, Byte* out) {
  const float id = inverse(scale);
  std::array<int, 32> q{};
  for (std::size_t i = 0; i < 32; ++i) {
    const float scaled = x[i] * id;
    for (std::size_t code = 0; code < 15; ++code) q[i] += scaled > iq4_middle(code) ? 1 : 0;
  }
  store_nibbles(q, out);
}

void iq4_nl_pack(const float* x, Byte* r) { store_iq4(x, store_scale(r, fit_iq4(x)), r + 2); }

void iq4_xs_pack(const float* x, Byte* r) {
  std::array<float, 8> scales{};
  for (std::size_t j = 0; j < 8; ++j) scales[j] = fit_iq4(x + 32 * j);
  // The extreme scale becomes -32.
  const float d = store_scale(r, extreme(scales.data(), 8) / -32.0F);
  std::fill(r + 2, r + 8, Byte{0});
  int high = 0;
  for (std::size_t j = 0; j < 8; ++j) {
    const int scale = nearest(scales[j] * inverse(d), -32, 31);
    const int code = scale + 32;
    high |= (code >> 4) << (2 * j);
    r[4 + j / 2] = static_cast<Byte>(r[4 + j / 2] | ((code & 15) << (4 * (j % 2))));
    store_iq4(x + 32 * j, d * from_int(scale), r + 8 + 16 * j);
  }
  store16(r + 2, static_cast<std::uint16_t>(high));
}

// x ~ scale * q - minimum with q from 0 to `most`, scale and minimum not negative.
struct ScaleAndMinimum {
  float scale = 0.0F, minimum = 0.0F;
};

template <std::size_t kValues>
ScaleAndMinimum fit_with_minimum(const float* values, int most) {
  const auto [low, high] = std::minmax_element(values, values + kValues);
  const float base = std::min(*low, 0.0F), range = *high - base;
  if (!(range > 0.0F)) return {0.0F, -base};
  double sum_x = 0.0;
  for (std::size_t i = 0; i < kValues; ++i) sum_x += static_cast<double>(values[i]);
  const Values<kValues> x = load<kValues>(values);
  ScaleAndMinimum best{range / from_int(most), -base};
  double best_gain = -1.0;
  Values<kValues> codes;
  for (int step = -10; step <= 10; ++step) {
    const float id = (from_int(most) + 0.1F * from_int(step)) / range;
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = rounded((x[i] - base) * id, four(0.0F), four(from_int(most)));
    const Sums sums = sums_of(x, codes);
    // Least squares of x = scale * q - minimum over the block: two equations. The squared error is sum xx - gain.
    const double n = kValues, q = sums.q, qq = sums.qq, xq = sums.xq;
    const double determinant = n * qq - q * q;
    if (!(determinant > 0.0)) continue;
    double scale = (n * xq - sum_x * q) / determinant, minimum = (q * xq - qq * sum_x) / determinant;
    if (minimum < 0.0) {
      minimum = 0.0;
      scale = xq / qq;
    }
    const double gain = scale * xq - minimum * sum_x;
    if (scale > 0.0 && gain > best_gain) {
      best_gain = gain;
      best = {static_cast<float>(scale), static_cast<float>(minimum)};
    }
  }
  return best;
}

// What Q4_K and Q5_K share: scales, and the codes of 256 values from 0 to `most`.
std::array<int, 256> codes_of_eight(const float* x, int most, Byte* r) {
  std::array<ScaleAndMinimum, 8> fit;
  float largest_scale = 0.0F, largest_minimum = 0.0F;
  for (std::size_t j = 0; j < 8; ++j) {
    fit[j] = fit_with_minimum<32>(x + 32 * j, most);
    largest_scale = std::max(largest_scale, fit[j].scale);
    largest_minimum = std::max(largest_minimum, fit[j].minimum);
  }
  const float d = store_scale(r, largest_scale / 63.0F), dmin = store_scale(r + 2, largest_minimum / 63.0F);
  ScaleMin codes;
  std::array<int, 256> q{};
  for (std::size_t j = 0; j < 8; ++j) {
    codes.scale[j] = nearest(fit[j].scale * inverse(d), 0, 63);
    codes.min[j] = nearest(fit[j].minimum * inverse(dmin), 0, 63);
    const float id = inverse(d * from_int(codes.scale[j])), minimum = dmin * from_int(codes.min[j]);
    for (std::size_t i = 32 * j; i < 32 * j + 32; ++i) q[i] = nearest((x[i] + minimum) * id, 0, most);
  }
  pack_scales(codes, r + 4);
  return q;
}

// The low nibbles of sub-blocks 2 j and 2 j + 1 share 32 bytes.
void store_nibbles_of_eight(const std::array<int, 256>& q, Byte* out) {
  for (std::size_t i = 0; i < 128; ++i) {
    const std::size_t first = 64 * (i / 32) + i % 32;
    out[i] = static_cast<Byte>((q[first] & 15) | ((q[first + 32] & 15) << 4));
  }
}

void q4_k_pack(const float* x, Byte* r) { store_nibbles_of_eight(codes_of_eight(x, 15, r), r + 16); }

void q5_k_pack(const float* x, Byte* r) {
  const std::array<int, 256> q = codes_of_eight(x, 31, r);
  std::fill(r + 16, r + 48, Byte{0});
  for (std::size_t i = 0; i < 256; ++i) r[16 + i % 32] = static_cast<Byte>(r[16 + i % 32] | ((q[i] >> 4) << (i / 32)));
  store_nibbles_of_eight(q, r + 48);
}

// Values i, i + 32, i + 64, i + 96 of a half of 128 in the bit pairs of one byte.
void store_bit_pairs(const std::array<int, 256>& q, Byte* out) {
  std::fill(out, out + 64, Byte{0});
  for (std::size_t i = 0; i < 256; ++i) {
    Byte& byte = out[32 * (i / 128) + i % 32];
    byte = static_cast<Byte>(byte | ((q[i] & 3) << (2 * (i % 128 / 32))));
  }
}

void q2_k_pack(const float* x, Byte* r) {
  std::array<ScaleAndMinimum, 16> fit;
  float largest_scale = 0.0F, largest_minimum = 0.0F;
  for (std::size_t j = 0; j < 16; ++j) {
    fit[j] = fit_with_minimum<16>(x + 16 * j, 3);
    largest_scale = std::max(largest_scale, fit[j].scale);
    largest_minimum = std::max(largest_minimum, fit[j].minimum);
  }
  const float d = store_scale(r + 80, largest_scale / 15.0F), dmin = store_scale(r + 82, largest_minimum / 15.0F);
  std::array<int, 256> q{};
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = nearest(fit[j].scale * inverse(d), 0, 15), min = nearest(fit[j].minimum * inverse(dmin), 0, 15);
    r[j] = static_cast<Byte>(scale | (min << 4));
    const float id = inverse(d * from_int(scale)), minimum = dmin * from_int(min);
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i) q[i] = nearest((x[i] + minimum) * id, 0, 3);
  }
  store_bit_pairs(q, r + 16);
}

// The signed scale of 16 values with codes from -half to half - 1.
float fit_signed(const float* values, int half) {
  const float largest = extreme(values, 16);
  const Values<16> x = load<16>(values);
  BestScale best;
  Values<16> codes;
  for (int step = -9; step <= 9 && largest != 0.0F; ++step) {
    const float id = -(from_int(half) + 0.1F * from_int(step)) / largest;
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = rounded(x[i] * id, four(from_int(-half)), four(from_int(half - 1)));
    best.offer(sums_of(x, codes));
  }
  return best.scale;
}

void q6_k_pack(const float* x, Byte* r) {
  std::array<float, 16> scales{};
  for (std::size_t j = 0; j < 16; ++j) scales[j] = fit_signed(x + 16 * j, 32);
  // The extreme scale becomes -128.
  const float d = store_scale(r + 208, extreme(scales.data(), 16) / -128.0F);
  std::fill(r, r + 192, Byte{0});
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = nearest(scales[j] * inverse(d), -128, 127);
    r[192 + j] = static_cast<Byte>(scale);
    const float id = inverse(d * from_int(scale));
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i) {
      const int q = nearest(x[i] * id, -32, 31) + 32;
      const std::size_t half = i / 128, in = i % 128;
      Byte &low = r[64 * half + in % 64], &high = r[128 + 32 * half + in % 32];
      low = static_cast<Byte>(low | ((q & 15) << (in < 64 ? 0 : 4)));
      high = static_cast<Byte>(high | ((q >> 4) << (2 * (in / 32))));
    }
  }
}

void q3_k_pack(const float* x, Byte* r) {
  std::array<float, 16> scales{};
  for (std::size_t j = 0; j < 16; ++j) scales[j] = fit_signed(x + 16 * j, 4);
  // The extreme scale becomes -32.
  const float d = store_scale(r + 108, extreme(scales.data(), 16) / -32.0F);
  std::fill(r, r + 32, Byte{0});
  std::fill(r + 96, r + 108, Byte{0});
  std::array<int, 256> q{};
  for (std::size_t j = 0; j < 16; ++j) {
    const int scale = nearest(scales[j] * inverse(d), -32, 31);
    const int code = scale + 32;
    Byte &low = r[96 + j % 8], &high = r[104 + j % 4];
    low = static_cast<Byte>(low | ((code & 15) << (j < 8 ? 0 : 4)));
    high = static_cast<Byte>(high | ((code >> 4) << (2 * (j / 4))));
    const float id = inverse(d * from_int(scale));
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i) {
      q[i] = nearest(x[i] * id, -4, 3) + 4;
      r[i % 32] = static_cast<Byte>(r[i % 32] | ((q[i] >> 2) << (i / 32)));
    }
  }
  store_bit_pairs(q, r + 32);
}

}  // namespace

BlockPacker block_packer(DType type) {
  switch (type) {
    case DType::kF32:
      return f32_pack;
    case DType::kF16:
      return f16_pack;
    case DType::kBf16:
      return bf16_pack;
    case DType::kQ8_0:
      return q8_0_pack;
    case DType::kQ4_0:
      return q4_0_pack;
    case DType::kQ4_1:
      return q4_1_pack;
    case DType::kQ5_0:
      return q5_0_pack;
    case DType::kQ5_1:
      return q5_1_pack;
    case DType::kMxfp4:
      return mxfp4_pack;
    case DType::kMxint8:
      return mxint8_pack;
    case DType::kIq4Nl:
      return iq4_nl_pack;
    case DType::kIq4Xs:
      return iq4_xs_pack;
    case DType::kQ2K:
      return q2_k_pack;
    case DType::kQ3K:
      return q3_k_pack;
    case DType::kQ4K:
      return q4_k_pack;
    case DType::kQ5K:
      return q5_k_pack;
    case DType::kQ6K:
      return q6_k_pack;
    default:
      return nullptr;
  }
}

}  // namespace rooftree::formats

#pragma once

// What reading (block_codec.cc) and writing (block_quantize.cc) of stored blocks share. Internal to formats.

#include <array>
#include <bit>
#include <cstdint>

#include "base/dtype.h"

namespace rooftree::formats {

// Code books: IQ4_NL and IQ4_XS (ggml-common.h); the E2M1 values of MXFP4, doubled so that they are integers.
inline constexpr std::array<std::int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr std::array<std::int8_t, 16> kE2m1Doubled = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// 2^exponent for exponents from -149 to 127.
[[nodiscard]] constexpr float power_of_two(int exponent) {
  return std::bit_cast<float>(exponent >= -126 ? static_cast<std::uint32_t>(exponent + 127) << 23
                                               : std::uint32_t{1} << (exponent + 149));
}

// Q4_K, Q5_K: eight scales and eight minima of 6 bits in 12 bytes. Bytes 0-3 and 4-7 hold scales and minima 0-3 in their low 6
// bits, and in their top bits the upper 2 bits of numbers 4-7, whose low nibbles are in bytes 8-11.
struct ScaleMin {
  std::array<int, 8> scale{}, min{};
};
[[nodiscard]] constexpr ScaleMin unpack_scales(const std::uint8_t* s) {
  ScaleMin out;
  for (std::size_t j = 0; j < 4; ++j) {
    out.scale[j] = s[j] & 63;
    out.min[j] = s[j + 4] & 63;
    out.scale[j + 4] = (s[j + 8] & 15) | ((s[j] >> 6) << 4);
    out.min[j + 4] = (s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4);
  }
  return out;
}
constexpr void pack_scales(const ScaleMin& in, std::uint8_t* s) {
  for (std::size_t j = 0; j < 4; ++j) {
    s[j] = static_cast<std::uint8_t>(in.scale[j] | ((in.scale[j + 4] >> 4) << 6));
    s[j + 4] = static_cast<std::uint8_t>(in.min[j] | ((in.min[j + 4] >> 4) << 6));
    s[j + 8] = static_cast<std::uint8_t>((in.scale[j + 4] & 15) | ((in.min[j + 4] & 15) << 4));
  }
}

// Values of one record to its bytes; null: a type that is not written.
using BlockPacker = void (*)(const float* values, std::uint8_t* record);
[[nodiscard]] BlockPacker block_packer(DType type);

}  // namespace rooftree::formats

#include "formats/block_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "formats/block_records.h"
#include "formats/half.h"

// Compiled without contraction (src/CMakeLists.txt): a product and a sum are two roundings here, as in the formats'
// definitions.

namespace rooftree::formats {
namespace {

// Layouts: ggml-common.h of github.com/ggml-org/llama.cpp, and its unpacking in gguf-py/gguf/quants.py; OCP Microscaling
// Formats v1.0 for the MX types. `r` is a record, `y` its values.

using Byte = std::uint8_t;

std::uint16_t load16(const Byte* p) { return static_cast<std::uint16_t>(p[0] | (p[1] << 8)); }
std::uint32_t load32(const Byte* p) { return load16(p) | (std::uint32_t{load16(p + 2)} << 16); }
float load_half(const Byte* p) { return float_from_f16(load16(p)); }

float from_int(int value) { return static_cast<float>(value); }

void q8_0_values(const Byte* r, float* y) {
  const float d = load_half(r);
  for (int i = 0; i < 32; ++i) y[i] = from_int(static_cast<std::int8_t>(r[2 + i])) * d;
}

// Nibbles of 32 values: the low ones are values 0 to 15.
void q4_0_values(const Byte* r, float* y) {
  const float d = load_half(r);
  for (int i = 0; i < 16; ++i) {
    y[i] = from_int((r[2 + i] & 15) - 8) * d;
    y[i + 16] = from_int((r[2 + i] >> 4) - 8) * d;
  }
}

void q4_1_values(const Byte* r, float* y) {
  const float d = load_half(r), m = load_half(r + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = from_int(r[4 + i] & 15) * d + m;
    y[i + 16] = from_int(r[4 + i] >> 4) * d + m;
  }
}

// The fifth bits of the 32 values are the bits of one word.
void q5_0_values(const Byte* r, float* y) {
  const float d = load_half(r);
  const std::uint32_t high = load32(r + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = from_int(((r[6 + i] & 15) | static_cast<int>(((high >> i) & 1U) << 4)) - 16) * d;
    y[i + 16] = from_int(((r[6 + i] >> 4) | static_cast<int>(((high >> (i + 16)) & 1U) << 4)) - 16) * d;
  }
}

void q5_1_values(const Byte* r, float* y) {
  const float d = load_half(r), m = load_half(r + 2);
  const std::uint32_t high = load32(r + 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = from_int((r[8 + i] & 15) | static_cast<int>(((high >> i) & 1U) << 4)) * d + m;
    y[i + 16] = from_int((r[8 + i] >> 4) | static_cast<int>(((high >> (i + 16)) & 1U) << 4)) * d + m;
  }
}

void iq4_nl_values(const Byte* r, float* y) {
  const float d = load_half(r);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * from_int(kIq4Values[r[2 + i] & 15U]);
    y[i + 16] = d * from_int(kIq4Values[r[2 + i] >> 4U]);
  }
}

void mxfp4_values(const Byte* r, float* y) {
  const float d = power_of_two(r[0] - 128);
  for (std::size_t i = 0; i < 16; ++i) {
    y[i] = d * from_int(kE2m1Doubled[r[1 + i] & 15U]);
    y[i + 16] = d * from_int(kE2m1Doubled[r[1 + i] >> 4U]);
  }
}

void mxint8_values(const Byte* r, float* y) {
  const float d = power_of_two(r[0] - 133);
  for (int i = 0; i < 32; ++i) y[i] = from_int(static_cast<std::int8_t>(r[1 + i])) * d;
}

// d, dmin, scales (12), nibbles (128): 32 bytes hold the low nibbles of one sub-block of 32 and the high ones of the next.
void q4_k_values(const Byte* r, float* y) {
  const float d = load_half(r), dmin = load_half(r + 2);
  const ScaleMin s = unpack_scales(r + 4);
  for (std::size_t j = 0; j < 8; ++j) {
    const float scale = d * from_int(s.scale[j]), min = dmin * from_int(s.min[j]);
    const Byte* q = r + 16 + 32 * (j / 2);
    const int shift = j % 2 == 0 ? 0 : 4;
    for (std::size_t i = 0; i < 32; ++i) y[32 * j + i] = scale * from_int((q[i] >> shift) & 15) - min;
  }
}

// As Q4_K, with the fifth bits in 32 bytes before the nibbles: bit j of byte i belongs to value i of sub-block j.
void q5_k_values(const Byte* r, float* y) {
  const float d = load_half(r), dmin = load_half(r + 2);
  const ScaleMin s = unpack_scales(r + 4);
  for (std::size_t j = 0; j < 8; ++j) {
    const float scale = d * from_int(s.scale[j]), min = dmin * from_int(s.min[j]);
    const Byte *high = r + 16, *q = r + 48 + 32 * (j / 2);
    const int shift = j % 2 == 0 ? 0 : 4;
    for (std::size_t i = 0; i < 32; ++i) {
      const int value = ((q[i] >> shift) & 15) | (((high[i] >> j) & 1) << 4);
      y[32 * j + i] = scale * from_int(value) - min;
    }
  }
}

// scales (16: scale low nibble, minimum high), 2-bit values (64), d, dmin. Of each half of 128 values, 32 bytes hold values
// i, i + 32, i + 64, i + 96 in their bit pairs. Sub-blocks are of 16.
void q2_k_values(const Byte* r, float* y) {
  const float d = load_half(r + 80), dmin = load_half(r + 82);
  for (std::size_t i = 0; i < 256; ++i) {
    const Byte packed = r[i / 16];
    const float scale = d * from_int(packed & 15), min = dmin * from_int(packed >> 4);
    const int q = (r[16 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    y[i] = scale * from_int(q) - min;
  }
}

// high bits (32), 2-bit values (64) as in Q2_K, scales (12), d. Sixteen scales of 6 bits, offset 32: low nibbles in bytes 0-7
// (numbers 0-7 low, 8-15 high), upper bit pairs in bytes 8-11 (number j in byte j % 4, pair j / 4). Values are 2 bits less 4
// where the high bit is not set.
void q3_k_values(const Byte* r, float* y) {
  const float d = load_half(r + 108);
  const Byte* s = r + 96;
  std::array<float, 16> scale{};
  for (std::size_t j = 0; j < 16; ++j) {
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    const int high = (s[8 + j % 4] >> (2 * (j / 4))) & 3;
    scale[j] = d * from_int((low | (high << 4)) - 32);
  }
  for (std::size_t i = 0; i < 256; ++i) {
    const int low = (r[32 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    const int high = (r[i % 32] >> (i / 32)) & 1;
    y[i] = scale[i / 16] * from_int(low - (high == 0 ? 4 : 0));
  }
}

// low nibbles (128), upper bit pairs (64), scales (16, signed), d. Of each half of 128 values, 64 bytes hold the low nibbles of
// values i and i + 64, and 32 bytes the bit pairs of i, i + 32, i + 64, i + 96. Offset 32, sub-blocks of 16.
void q6_k_values(const Byte* r, float* y) {
  const float d = load_half(r + 208);
  for (std::size_t j = 0; j < 16; ++j) {
    const float scale = d * from_int(static_cast<std::int8_t>(r[192 + j]));
    for (std::size_t i = 16 * j; i < 16 * j + 16; ++i) {
      const std::size_t half = i / 128, in = i % 128;
      const int low = (r[64 * half + in % 64] >> (in < 64 ? 0 : 4)) & 15;
      const int high = (r[128 + 32 * half + in % 32] >> (2 * (in / 32))) & 3;
      y[i] = scale * from_int((low | (high << 4)) - 32);
    }
  }
}

// d, upper bit pairs of the scales (16 bits), their low nibbles (4 bytes), nibbles (128) in groups of 32 as IQ4_NL. Offset 32.
void iq4_xs_values(const Byte* r, float* y) {
  const float d = load_half(r);
  const unsigned high = load16(r + 2);
  for (std::size_t j = 0; j < 8; ++j) {
    const int low = (r[4 + j / 2] >> (4 * (j % 2))) & 15;
    const float scale = d * from_int((low | static_cast<int>(((high >> (2 * j)) & 3U) << 4)) - 32);
    const Byte* q = r + 8 + 16 * j;
    for (std::size_t i = 0; i < 16; ++i) {
      y[32 * j + i] = scale * from_int(kIq4Values[q[i] & 15U]);
      y[32 * j + i + 16] = scale * from_int(kIq4Values[q[i] >> 4U]);
    }
  }
}

// Five ternary digits in a byte, read as a fraction: digit n is floor(3 * frac(byte / 256 * 3^n)). 32 bytes hold values i + 32
// n (n = 0 to 4), 16 bytes values 160 + i + 16 n, 4 bytes with four digits values 240 + i + 4 n; then d.
void tq1_0_values(const Byte* r, float* y) {
  constexpr std::array<unsigned, 5> kPowers = {1, 3, 9, 27, 81};
  const float d = load_half(r + 52);
  const auto unpack = [&](const Byte* q, std::size_t bytes, std::size_t digits, float* out) {
    for (std::size_t n = 0; n < digits; ++n) {
      for (std::size_t i = 0; i < bytes; ++i) {
        const unsigned fraction = (q[i] * kPowers[n]) & 0xFFU;
        out[bytes * n + i] = from_int(static_cast<int>((fraction * 3U) >> 8) - 1) * d;
      }
    }
  };
  unpack(r, 32, 5, y);
  unpack(r + 32, 16, 5, y + 160);
  unpack(r + 48, 4, 4, y + 240);
}

// 2-bit values (64): 32 bytes hold values i, i + 32, i + 64, i + 96 of a half; then d.
void tq2_0_values(const Byte* r, float* y) {
  const float d = load_half(r + 64);
  for (std::size_t i = 0; i < 256; ++i) {
    const int q = (r[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    y[i] = from_int(q - 1) * d;
  }
}

void f32_value(const Byte* r, float* y) { *y = std::bit_cast<float>(load32(r)); }
void f16_value(const Byte* r, float* y) { *y = load_half(r); }
void bf16_value(const Byte* r, float* y) { *y = float_from_bf16(load16(r)); }
void f64_value(const Byte* r, float* y) {
  *y = static_cast<float>(std::bit_cast<double>(load32(r) | (std::uint64_t{load32(r + 4)} << 32)));
}

using Unpack = void (*)(const Byte*, float*);
struct Codec {
  DType type;
  BlockForm form;
  Unpack unpack;  // null: the record has a known size and no values of its own (scales are in another tensor)
};

constexpr std::array kCodecs = {
    Codec{DType::kF32, {1, 4}, f32_value},         Codec{DType::kF16, {1, 2}, f16_value},
    Codec{DType::kBf16, {1, 2}, bf16_value},       Codec{DType::kF64, {1, 8}, f64_value},
    Codec{DType::kInt32, {1, 4}, nullptr},         Codec{DType::kInt8, {1, 1}, nullptr},
    Codec{DType::kFp8E4m3, {1, 1}, nullptr},       Codec{DType::kFp8E5m2, {1, 1}, nullptr},
    Codec{DType::kMxfp4, {32, 17}, mxfp4_values},  Codec{DType::kMxint8, {32, 33}, mxint8_values},
    Codec{DType::kQ8_0, {32, 34}, q8_0_values},    Codec{DType::kQ4_0, {32, 18}, q4_0_values},
    Codec{DType::kQ4_1, {32, 20}, q4_1_values},    Codec{DType::kQ5_0, {32, 22}, q5_0_values},
    Codec{DType::kQ5_1, {32, 24}, q5_1_values},    Codec{DType::kQ2K, {256, 84}, q2_k_values},
    Codec{DType::kQ3K, {256, 110}, q3_k_values},   Codec{DType::kQ4K, {256, 144}, q4_k_values},
    Codec{DType::kQ5K, {256, 176}, q5_k_values},   Codec{DType::kQ6K, {256, 210}, q6_k_values},
    Codec{DType::kIq4Nl, {32, 18}, iq4_nl_values}, Codec{DType::kIq4Xs, {256, 136}, iq4_xs_values},
    Codec{DType::kTq1_0, {256, 54}, tq1_0_values}, Codec{DType::kTq2_0, {256, 66}, tq2_0_values},
};

const Codec* codec(DType type) {
  const auto found = std::find_if(kCodecs.begin(), kCodecs.end(), [&](const Codec& c) { return c.type == type; });
  return found == kCodecs.end() ? nullptr : &*found;
}

// The record function is a template argument so that plain types become one loop without calls.
template <Unpack kUnpack, std::size_t kValues, std::size_t kBytes>
void unpack_all(const Byte* row, std::span<float> out) {
  for (std::size_t i = 0; i < out.size() / kValues; ++i) kUnpack(row + i * kBytes, out.data() + i * kValues);
}

}  // namespace

BlockForm block_form(DType type) {
  const Codec* c = codec(type);
  return c == nullptr ? BlockForm{} : c->form;
}

bool can_dequantize(DType type) {
  const Codec* c = codec(type);
  return c != nullptr && c->unpack != nullptr;
}

bool can_quantize(DType type) { return block_packer(type) != nullptr; }

std::size_t row_bytes(DType type, std::int64_t k) {
  const BlockForm form = block_form(type);
  if (form.values == 0 || k <= 0 || k % form.values != 0) return 0;
  return static_cast<std::size_t>(k / form.values) * static_cast<std::size_t>(form.bytes);
}

void dequantize_row(DType type, std::span<const std::byte> row, std::span<float> out) {
  const Codec* c = codec(type);
  ROOFTREE_CHECK(c != nullptr && c->unpack != nullptr, "dequantize_row of a type that can_dequantize refuses");
  ROOFTREE_CHECK(row.size() == row_bytes(type, static_cast<std::int64_t>(out.size())), "dequantize_row: row and values differ");
  const auto* bytes = reinterpret_cast<const Byte*>(row.data());
  switch (type) {
    case DType::kF32:
      std::memcpy(out.data(), bytes, row.size());
      return;
    case DType::kF16:
      return unpack_all<f16_value, 1, 2>(bytes, out);
    case DType::kBf16:
      return unpack_all<bf16_value, 1, 2>(bytes, out);
    default:
      break;
  }
  const auto values = static_cast<std::size_t>(c->form.values), size = static_cast<std::size_t>(c->form.bytes);
  for (std::size_t i = 0; i < out.size() / values; ++i) c->unpack(bytes + i * size, out.data() + i * values);
}

void quantize_row(DType type, std::span<const float> values, std::span<std::byte> out) {
  const BlockPacker pack = block_packer(type);
  ROOFTREE_CHECK(pack != nullptr, "quantize_row of a type that can_quantize refuses");
  ROOFTREE_CHECK(out.size() == row_bytes(type, static_cast<std::int64_t>(values.size())),
                 "quantize_row: row and values differ");
  auto* bytes = reinterpret_cast<Byte*>(out.data());
  const BlockForm form = block_form(type);
  const auto block = static_cast<std::size_t>(form.values), size = static_cast<std::size_t>(form.bytes);
  for (std::size_t i = 0; i < values.size() / block; ++i) pack(values.data() + i * block, bytes + i * size);
}

}  // namespace rooftree::formats

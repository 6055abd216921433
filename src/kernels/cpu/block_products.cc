#include "kernels/cpu/block_products_forms.h"

namespace rooftree::kernels::cpu {
namespace block {
namespace {

std::uint16_t half_at(const std::byte* p) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}
unsigned byte_at(const std::byte* p, std::size_t i) { return std::to_integer<unsigned>(p[i]); }
std::uint8_t narrow(unsigned value) { return static_cast<std::uint8_t>(value); }

// `half` nibbles: the low ones are values [0, half), the high ones [half, 2 half).
void decode_nibbles(const std::byte* p, std::size_t half, std::uint8_t* codes) {
  for (std::size_t i = 0; i < half; ++i) {
    codes[i] = narrow(byte_at(p, i) & 15U);
    codes[half + i] = narrow(byte_at(p, i) >> 4U);
  }
}
void decode_signed_bytes(const std::byte* p, std::size_t n, std::uint8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) codes[i] = narrow(byte_at(p, i) ^ 0x80U);
}
// Bit i of the little-endian word at p is the fifth bit of value i.
void add_fifth_bits(const std::byte* p, std::uint8_t* codes) {
  for (std::size_t i = 0; i < 32; ++i) codes[i] = narrow(codes[i] | ((byte_at(p, i / 8) >> (i % 8)) & 1U) << 4U);
}

// Twelve bytes: 6-bit scales and minima of eight sub-blocks.
void decode_six_bit_scales(const std::byte* p, Record& r) {
  for (std::size_t j = 0; j < 4; ++j) {
    r.scales[j] = static_cast<std::int8_t>(byte_at(p, j) & 63U);
    r.minima[j] = narrow(byte_at(p, j + 4) & 63U);
    r.scales[j + 4] = static_cast<std::int8_t>((byte_at(p, j + 8) & 15U) | (byte_at(p, j) >> 6U) << 4U);
    r.minima[j + 4] = narrow(byte_at(p, j + 8) >> 4U | (byte_at(p, j + 4) >> 6U) << 4U);
  }
}

void decode_q2_k(const std::byte* p, Record& r) {
  for (std::size_t j = 0; j < 16; ++j) {
    r.scales[j] = static_cast<std::int8_t>(byte_at(p, j) & 15U);
    r.minima[j] = narrow(byte_at(p, j) >> 4U);
  }
  for (std::size_t i = 0; i < 256; ++i) {
    r.codes[i] = narrow((byte_at(p, 16 + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32))) & 3U);
  }
  r.d = half_at(p + 80);
  r.dmin = half_at(p + 82);
}

void decode_q3_k(const std::byte* p, Record& r) {
  for (std::size_t i = 0; i < 256; ++i) {
    const unsigned low = (byte_at(p, 32 + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32))) & 3U;
    r.codes[i] = narrow(low | ((byte_at(p, i % 32) >> (i / 32)) & 1U) << 2U);
  }
  const std::byte* s = p + 96;
  for (std::size_t j = 0; j < 16; ++j) {
    const unsigned low = j < 8 ? byte_at(s, j) & 15U : byte_at(s, j - 8) >> 4U;
    const unsigned high = (byte_at(s, 8 + j % 4) >> (2 * (j / 4))) & 3U;
    r.scales[j] = static_cast<std::int8_t>(static_cast<int>(low | high << 4U) - 32);
  }
  r.d = half_at(p + 108);
}

void decode_q4_k(const std::byte* p, Record& r) {
  r.d = half_at(p);
  r.dmin = half_at(p + 2);
  decode_six_bit_scales(p + 4, r);
  for (std::size_t j = 0; j < 4; ++j) decode_nibbles(p + 16 + 32 * j, 32, &r.codes[64 * j]);
}

void decode_q5_k(const std::byte* p, Record& r) {
  r.d = half_at(p);
  r.dmin = half_at(p + 2);
  decode_six_bit_scales(p + 4, r);
  for (std::size_t j = 0; j < 4; ++j) decode_nibbles(p + 48 + 32 * j, 32, &r.codes[64 * j]);
  for (std::size_t j = 0; j < 8; ++j) {
    for (std::size_t i = 0; i < 32; ++i) {
      r.codes[32 * j + i] = narrow(r.codes[32 * j + i] | ((byte_at(p, 16 + i) >> j) & 1U) << 4U);
    }
  }
}

void decode_q6_k(const std::byte* p, Record& r) {
  for (std::size_t n = 0; n < 2; ++n) {
    decode_nibbles(p + 64 * n, 64, &r.codes[128 * n]);
    for (std::size_t j = 0; j < 4; ++j) {
      for (std::size_t i = 0; i < 32; ++i) {
        std::uint8_t& code = r.codes[128 * n + 32 * j + i];
        code = narrow(code | ((byte_at(p, 128 + 32 * n + i) >> (2 * j)) & 3U) << 4U);
      }
    }
  }
  std::memcpy(r.scales.data(), p + 192, 16);
  r.d = half_at(p + 208);
}

void decode_iq4_xs(const std::byte* p, Record& r) {
  r.d = half_at(p);
  const unsigned high = half_at(p + 2);
  for (std::size_t j = 0; j < 8; ++j) {
    const unsigned low = (byte_at(p, 4 + j / 2) >> (4 * (j % 2))) & 15U;
    const int scale = static_cast<int>(low | ((high >> (2 * j)) & 3U) << 4U) - 32;
    r.scales[2 * j] = r.scales[2 * j + 1] = static_cast<std::int8_t>(scale);
    decode_nibbles(p + 8 + 16 * j, 16, &r.codes[32 * j]);
  }
}

// Five base-3 digits in a byte, the first one in the highest place of byte / 256 as a fraction.
unsigned ternary_digit(unsigned byte, std::size_t place) {
  constexpr std::array<unsigned, 5> kPower = {1, 3, 9, 27, 81};
  return ((byte * kPower[place] & 0xFFU) * 3U) >> 8U;
}
void decode_tq1_0(const std::byte* p, Record& r) {
  r.scales.fill(1);
  for (std::size_t place = 0; place < 5; ++place) {
    for (std::size_t i = 0; i < 32; ++i) r.codes[32 * place + i] = narrow(ternary_digit(byte_at(p, i), place));
    for (std::size_t i = 0; i < 16; ++i) r.codes[160 + 16 * place + i] = narrow(ternary_digit(byte_at(p, 32 + i), place));
  }
  for (std::size_t place = 0; place < 4; ++place) {
    for (std::size_t i = 0; i < 4; ++i) r.codes[240 + 4 * place + i] = narrow(ternary_digit(byte_at(p, 48 + i), place));
  }
  r.d = half_at(p + 52);
}
void decode_tq2_0(const std::byte* p, Record& r) {
  r.scales.fill(1);
  for (std::size_t i = 0; i < 256; ++i) {
    r.codes[i] = narrow((byte_at(p, 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32))) & 3U);
  }
  r.d = half_at(p + 64);
}

}  // namespace

void decode(DType type, const std::byte* stored, Record& r) {
  r.dmin = 0;
  switch (type) {
    case DType::kQ4_0:
    case DType::kIq4Nl:
      r.d = half_at(stored);
      return decode_nibbles(stored + 2, 16, r.codes.data());
    case DType::kQ4_1:
      r.d = half_at(stored);
      r.dmin = half_at(stored + 2);
      return decode_nibbles(stored + 4, 16, r.codes.data());
    case DType::kQ5_0:
      r.d = half_at(stored);
      decode_nibbles(stored + 6, 16, r.codes.data());
      return add_fifth_bits(stored + 2, r.codes.data());
    case DType::kQ5_1:
      r.d = half_at(stored);
      r.dmin = half_at(stored + 2);
      decode_nibbles(stored + 8, 16, r.codes.data());
      return add_fifth_bits(stored + 4, r.codes.data());
    case DType::kQ8_0:
      r.d = half_at(stored);
      return decode_signed_bytes(stored + 2, 32, r.codes.data());
    case DType::kMxfp4:
      r.d = narrow(byte_at(stored, 0));
      return decode_nibbles(stored + 1, 16, r.codes.data());
    case DType::kMxint8:
      r.d = narrow(byte_at(stored, 0));
      return decode_signed_bytes(stored + 1, 32, r.codes.data());
    case DType::kQ2K:
      return decode_q2_k(stored, r);
    case DType::kQ3K:
      return decode_q3_k(stored, r);
    case DType::kQ4K:
      return decode_q4_k(stored, r);
    case DType::kQ5K:
      return decode_q5_k(stored, r);
    case DType::kQ6K:
      return decode_q6_k(stored, r);
    case DType::kIq4Xs:
      return decode_iq4_xs(stored, r);
    case DType::kTq1_0:
      return decode_tq1_0(stored, r);
    case DType::kTq2_0:
      return decode_tq2_0(stored, r);
    default:
      return;
  }
}

}  // namespace block

const ProductKernels* block_products(DType type, const CpuFeatures& features) {
  const block::Table* table = block::portable_table();
  const auto choose = [&](bool usable, const block::Table* candidate) {
    if (usable && candidate != nullptr) table = candidate;
  };
  choose(features.neon && features.dot, block::neon_table());
  choose(features.avx2 && features.isa() >= Isa::kAvx2, block::avx2_table());
  choose(features.avx2 && features.isa() >= Isa::kAvx2 && features.avx_vnni, block::avx_vnni_table());
  choose(features.isa() >= Isa::kAvx512 && features.avx512_vnni, block::avx512_table());
  for (std::size_t i = 0; i < block::kBlockTypes.size(); ++i) {
    if (block::kBlockTypes[i] == type) return &(*table)[i];
  }
  return nullptr;
}

}  // namespace rooftree::kernels::cpu

#pragma once

// What the block products of all instruction sets share: the forms of the weight types, the decoder from their stored records
// to integers, and how activations become integers. Private to block_products*.cc. Formats: ggml-common.h of llama.cpp
// (facts), OCP Microscaling v1.0.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "formats/half.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu::block {

// How a stored code becomes the weight's integer.
enum class Book : std::uint8_t { kNone, kIq4, kMxfp4 };
// Where the scales of a record are and what they mean.
enum class Scales : std::uint8_t {
  kHalf,      // blocks of 32: one f16 scale, and one f16 minimum if the form has minima
  kMxfp4,     // blocks of 32: one byte e, scale 2^(e-128)
  kMxint8,    // blocks of 32: one byte e, scale 2^(e-133)
  kSix32,     // 256: f16 scale and minimum, 6-bit scale and minimum per 32
  kInt8Of16,  // 256: f16 scale, signed 8-bit scale per 16
  kFour16,    // 256: f16 scale and minimum, 4-bit scale and minimum per 16
};

// The integer of a weight is code - offset, or book[code].
struct Form {
  int values = 32;      // in a stored record
  int bytes = 0;        // of a stored record
  int bits = 0;         // of a packed code: 2, 3, 4, 5, 6 or 8
  int offset_log2 = 0;  // offset = 2^offset_log2; -1: no offset
  Book book = Book::kNone;
  Scales scales = Scales::kHalf;
  bool minima = false;
};

constexpr Form form_of(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return {32, 18, 4, 3, Book::kNone, Scales::kHalf, false};
    case DType::kQ4_1:
      return {32, 20, 4, -1, Book::kNone, Scales::kHalf, true};
    case DType::kQ5_0:
      return {32, 22, 5, 4, Book::kNone, Scales::kHalf, false};
    case DType::kQ5_1:
      return {32, 24, 5, -1, Book::kNone, Scales::kHalf, true};
    case DType::kQ8_0:
      return {32, 34, 8, 7, Book::kNone, Scales::kHalf, false};
    case DType::kIq4Nl:
      return {32, 18, 4, 7, Book::kIq4, Scales::kHalf, false};
    case DType::kMxfp4:
      return {32, 17, 4, 4, Book::kMxfp4, Scales::kMxfp4, false};
    case DType::kMxint8:
      return {32, 33, 8, 7, Book::kNone, Scales::kMxint8, false};
    case DType::kQ2K:
      return {256, 84, 2, -1, Book::kNone, Scales::kFour16, true};
    case DType::kQ3K:
      return {256, 110, 3, 2, Book::kNone, Scales::kInt8Of16, false};
    case DType::kQ4K:
      return {256, 144, 4, -1, Book::kNone, Scales::kSix32, true};
    case DType::kQ5K:
      return {256, 176, 5, -1, Book::kNone, Scales::kSix32, true};
    case DType::kQ6K:
      return {256, 210, 6, 5, Book::kNone, Scales::kInt8Of16, false};
    case DType::kIq4Xs:  // its scales per 32 are packed twice, as scales per 16
      return {256, 136, 4, 7, Book::kIq4, Scales::kInt8Of16, false};
    case DType::kTq1_0:  // no scales inside a record: packed as ones
      return {256, 54, 2, 0, Book::kNone, Scales::kInt8Of16, false};
    case DType::kTq2_0:
      return {256, 66, 2, 0, Book::kNone, Scales::kInt8Of16, false};
    default:
      return {};
  }
}

inline constexpr std::array<DType, 16> kBlockTypes = {
    DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIq4Nl, DType::kMxfp4, DType::kMxint8,
    DType::kQ2K,  DType::kQ3K,  DType::kQ4K,  DType::kQ5K,  DType::kQ6K,  DType::kIq4Xs, DType::kTq1_0, DType::kTq2_0};

inline constexpr std::array<std::int8_t, 16> kIq4Book = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                         1,    13,   25,  38,  53,  69,  89,  113};
// e2m1 values, doubled.
inline constexpr std::array<std::int8_t, 16> kMxfp4Book = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

constexpr int weight_integer(const Form& form, int code) {
  if (form.book == Book::kIq4) return kIq4Book[static_cast<std::size_t>(code)];
  if (form.book == Book::kMxfp4) return kMxfp4Book[static_cast<std::size_t>(code)];
  return form.offset_log2 < 0 ? code : code - (1 << form.offset_log2);
}

// One stored record in integers. 32-value records use the first 32 codes and `d`, `dmin` (the minimum's f16) only; the types
// with a byte exponent have it in `d`.
struct Record {
  std::array<std::uint8_t, 256> codes;
  std::array<std::int8_t, 16> scales;   // per 16 (per 32: the first eight)
  std::array<std::uint8_t, 16> minima;  // the same
  std::uint16_t d, dmin;
};
void decode(DType type, const std::byte* stored, Record& record);
// The values that a record stands for, with the roundings of the format's definition.
void record_values(DType type, const Record& record, float* out);

// Scale of the types with a byte exponent; exact, down to 2^-133.
inline float exponent_scale(Scales scales, unsigned e) {
  const float doubled = std::bit_cast<float>(e >= 2 ? (e - 1) << 23 : 0x00200000U << e);  // 2^(e-128)
  return scales == Scales::kMxint8 ? doubled * 0x1p-5F : doubled;
}
inline float block_scale(Scales scales, unsigned bits) {
  return scales == Scales::kMxfp4 || scales == Scales::kMxint8 ? exponent_scale(scales, bits)
                                                               : formats::float_from_f16(static_cast<std::uint16_t>(bits));
}

// Below this a block of activations is zero.
inline constexpr float kTinyBlock = 0x1p-100F;

// The kernels of one instruction set, by position in kBlockTypes; null where the program was built for another architecture.
using Table = std::array<ProductKernels, kBlockTypes.size()>;
[[nodiscard]] const Table* portable_table();
[[nodiscard]] const Table* avx2_table();
[[nodiscard]] const Table* avx_vnni_table();
[[nodiscard]] const Table* avx512_table();
[[nodiscard]] const Table* neon_table();

}  // namespace rooftree::kernels::cpu::block

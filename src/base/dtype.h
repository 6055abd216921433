#pragma once

// Data types as they are stored (DType: true bits per value, scales included) and as they are computed with (Arithmetic: which
// of a chip's rates applies). A weight stored as q4_0 is multiplied as int8 or bf16, depending on the kernel.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace rooftree {

enum class DType : std::uint8_t {
  // One line per family.
  // clang-format off
  kF64, kF32, kTf32, kF16, kBf16, kBf16Lossless12, kInt32,
  kFp8E4m3, kFp8E5m2, kInt8, kInt4,
  kMxfp8, kMxfp6, kMxfp4, kNvfp4, kMxint8,
  kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1,
  kQ2K, kQ3K, kQ4K, kQ5K, kQ6K, kIq4Nl, kIq4Xs, kTq1_0, kTq2_0,
  kQ4KS, kQ4KM, kQ5KS, kQ5KM,  // GGUF files that mix types by tensor: average over the file
  kInt4Group32,
  // clang-format on
  kCount,
};
inline constexpr int kDTypeCount = static_cast<int>(DType::kCount);

enum class Arithmetic : std::uint8_t { kFp64, kFp32, kTf32, kBf16, kFp16, kFp8, kFp6, kFp4, kInt8, kInt4, kCount };
inline constexpr int kArithmeticCount = static_cast<int>(Arithmetic::kCount);

struct DTypeInfo {
  DType type;
  std::string_view name;  // as written on the command line and in files: "q4_0", "bf16", "bf16-12bit"
  double bits_per_value;  // stored bits, block scales included
  int block;              // values that share one record; 1 for plain types
  Arithmetic native;      // the arithmetic of the type itself, for operands that are not widened first
  std::string_view note;  // block form and source of the bits
};

[[nodiscard]] const DTypeInfo& info(DType type);
[[nodiscard]] std::span<const DTypeInfo> all_dtypes();
[[nodiscard]] std::string_view name(DType type);
[[nodiscard]] std::string_view name(Arithmetic arithmetic);

// Bytes that `count` values take, scales included (fractional for block types; not rounded to blocks).
[[nodiscard]] Bytes storage(DType type, double count);

// Unknown name: kInvalid, with the list of names.
Result<DType> parse_dtype(std::string_view text);
Result<Arithmetic> parse_arithmetic(std::string_view text);

}  // namespace rooftree

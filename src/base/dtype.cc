#include "base/dtype.h"

#include <fmt/format.h>

#include <string>

namespace rooftree {
namespace {

// Bits of the block types: payload plus scales over the block, from the public format definitions (OCP Microscaling v1.0 for
// MX types: 8-bit shared exponent per 32; NVFP4: fp8 scale per 16; GGUF: ggml block structures).
constexpr std::array<DTypeInfo, kDTypeCount> kTypes = {{
    {DType::kF64, "f64", 64, 1, Arithmetic::kFp64, ""},
    {DType::kF32, "f32", 32, 1, Arithmetic::kFp32, ""},
    {DType::kTf32, "tf32", 32, 1, Arithmetic::kTf32, "stored as f32"},
    {DType::kF16, "f16", 16, 1, Arithmetic::kFp16, ""},
    {DType::kBf16, "bf16", 16, 1, Arithmetic::kBf16, ""},
    {DType::kBf16Lossless12, "bf16-12bit", 12, 1, Arithmetic::kBf16,
     "bf16, exponent coded in 4 bits, lossless, before escapes"},
    {DType::kInt32, "int32", 32, 1, Arithmetic::kFp32, "indices and token ids"},
    {DType::kFp8E4m3, "fp8", 8, 1, Arithmetic::kFp8, "e4m3, scale per tensor"},
    {DType::kFp8E5m2, "fp8-e5m2", 8, 1, Arithmetic::kFp8, "scale per tensor"},
    {DType::kInt8, "int8", 8, 1, Arithmetic::kInt8, "scale per channel"},
    {DType::kInt4, "int4", 4.125, 128, Arithmetic::kInt4, "fp16 scale per 128"},
    {DType::kMxfp8, "mxfp8", 8.25, 32, Arithmetic::kFp8, "8-bit exponent per 32"},
    {DType::kMxfp6, "mxfp6", 6.25, 32, Arithmetic::kFp6, "8-bit exponent per 32"},
    {DType::kMxfp4, "mxfp4", 4.25, 32, Arithmetic::kFp4, "8-bit exponent per 32"},
    {DType::kNvfp4, "nvfp4", 4.5, 16, Arithmetic::kFp4, "fp8 scale per 16"},
    {DType::kMxint8, "mxint8", 8.25, 32, Arithmetic::kInt8, "8-bit exponent per 32"},
    {DType::kQ8_0, "q8_0", 8.5, 32, Arithmetic::kInt8, "fp16 scale per 32"},
    {DType::kQ4_0, "q4_0", 4.5, 32, Arithmetic::kInt8, "fp16 scale per 32"},
    {DType::kQ4_1, "q4_1", 5.0, 32, Arithmetic::kInt8, "fp16 scale and minimum per 32"},
    {DType::kQ5_0, "q5_0", 5.5, 32, Arithmetic::kInt8, "fp16 scale per 32"},
    {DType::kQ5_1, "q5_1", 6.0, 32, Arithmetic::kInt8, "fp16 scale and minimum per 32"},
    {DType::kQ2K, "q2_k", 2.625, 256, Arithmetic::kInt8, "super-block of 256"},
    {DType::kQ3K, "q3_k", 3.4375, 256, Arithmetic::kInt8, "super-block of 256"},
    {DType::kQ4K, "q4_k", 4.5, 256, Arithmetic::kInt8, "super-block of 256"},
    {DType::kQ5K, "q5_k", 5.5, 256, Arithmetic::kInt8, "super-block of 256"},
    {DType::kQ6K, "q6_k", 6.5625, 256, Arithmetic::kInt8, "super-block of 256"},
    {DType::kIq4Nl, "iq4_nl", 4.5, 32, Arithmetic::kInt8, "fp16 scale per 32, non-linear codes"},
    {DType::kIq4Xs, "iq4_xs", 4.25, 256, Arithmetic::kInt8, "super-block of 256, non-linear codes"},
    {DType::kTq1_0, "tq1_0", 1.6875, 256, Arithmetic::kInt8, "ternary, super-block of 256"},
    {DType::kTq2_0, "tq2_0", 2.0625, 256, Arithmetic::kInt8, "ternary, super-block of 256"},
    // File averages for Llama-3.1-8B: ggml-org/llama.cpp tools/quantize/README.md @311c2c9f.
    {DType::kQ4KS, "q4_k_s", 4.6672, 256, Arithmetic::kInt8, "mixed file: q4_k, some tensors q5_k and q6_k; average"},
    {DType::kQ4KM, "q4_k_m", 4.8944, 256, Arithmetic::kInt8, "mixed file: q4_k, half of v and down and the head q6_k; average"},
    {DType::kQ5KS, "q5_k_s", 5.5704, 256, Arithmetic::kInt8, "mixed file: q5_k, the head q6_k; average"},
    {DType::kQ5KM, "q5_k_m", 5.7036, 256, Arithmetic::kInt8, "mixed file: q5_k, half of v and down and the head q6_k; average"},
    {DType::kInt4Group32, "int4-g32", 5.0, 32, Arithmetic::kInt4, "bf16 scale and zero point per 32"},
}};

constexpr std::array<std::string_view, kArithmeticCount> kArithmeticNames = {"fp64", "fp32", "tf32", "bf16", "fp16",
                                                                             "fp8",  "fp6",  "fp4",  "int8", "int4"};

constexpr bool ordered_by_enum() {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (static_cast<int>(kTypes[static_cast<std::size_t>(i)].type) != i) return false;
  }
  return true;
}
static_assert(ordered_by_enum(), "kTypes must list the types in the order of the enum");

}  // namespace

const DTypeInfo& info(DType type) { return kTypes[static_cast<std::size_t>(type)]; }
std::span<const DTypeInfo> all_dtypes() { return kTypes; }
std::string_view name(DType type) { return info(type).name; }
std::string_view name(Arithmetic arithmetic) { return kArithmeticNames[static_cast<std::size_t>(arithmetic)]; }

Bytes storage(DType type, double count) { return Bytes{count * info(type).bits_per_value / 8.0}; }

Result<DType> parse_dtype(std::string_view text) {
  std::string known;
  for (const DTypeInfo& t : kTypes) {
    if (t.name == text) return t.type;
    known += known.empty() ? "" : ", ";
    known += t.name;
  }
  return Error{ErrorCode::kInvalid, fmt::format("data type '{}' is unknown; expected one of {}", text, known)};
}

Result<Arithmetic> parse_arithmetic(std::string_view text) {
  for (std::size_t i = 0; i < kArithmeticNames.size(); ++i) {
    if (kArithmeticNames[i] == text) return static_cast<Arithmetic>(i);
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("arithmetic type '{}' is unknown; expected one of {}", text, fmt::join(kArithmeticNames, ", "))};
}

}  // namespace rooftree

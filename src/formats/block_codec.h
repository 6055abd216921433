#pragma once

// Rows of stored weights to floats and back: every type of GGUF that Rooftree runs (layouts: ggml-common.h of llama.cpp,
// numeric facts only), and the OCP MX types. Plain scalar code, the definition of each format;
// dequantisation is exact to the bit everywhere: float(q) * scale in the order that the format states, without contraction.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/result.h"

namespace rooftree::formats {

// Values and bytes of one record: {32, 18} for q4_0, {256, 144} for q4_K, {1, 2} for bf16. {0, 0}: not a stored row type.
struct BlockForm {
  int values = 0;
  int bytes = 0;
};
[[nodiscard]] BlockForm block_form(DType type);
[[nodiscard]] bool can_dequantize(DType type);
[[nodiscard]] bool can_quantize(DType type);

// Bytes of a row of k values; 0 when k is not a multiple of the block.
[[nodiscard]] std::size_t row_bytes(DType type, std::int64_t k);

// row: row_bytes(type, out.size()) bytes, any alignment.
void dequantize_row(DType type, std::span<const std::byte> row, std::span<float> out);

// Rounds to the type's nearest values the way the format's usual writer does for q8_0, q4_0, q4_1, q5_0, q5_1 (the bytes of
// llama-quantize), mxint8, mxfp4, f16, bf16; the K types, iq4_nl and iq4_xs by a search of the scales for the least squared
// error. The same bytes on every machine.
void quantize_row(DType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace rooftree::formats

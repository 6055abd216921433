#pragma once

// A GGUF file with its matrices in another type. As llama-quantize --pure does: every tensor with two or more extents whose
// name ends in "weight" is converted, but for norms, routers ("ffn_gate_inp"), position tables and token types, which stay as
// they are, like every vector. Rows that do not fill blocks of 256 get a type with blocks of 32 (q2_k, q3_k, iq4_xs: iq4_nl;
// q4_k: q5_0; q5_k: q5_1; q6_k: q8_0), and rows that do not fill those f16.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "formats/gguf.h"

namespace rooftree::formats {

struct ConvertOptions {
  DType type = DType::kQ8_0;     // one that GGUF has and can_quantize
  bool requantize = false;       // allow block types as the source of block types, at the cost of both roundings
  ThreadPool* pool = nullptr;    // null: the calling thread alone
  Progress* progress = nullptr;  // null: nobody watches
};

struct ConvertReport {
  struct Share {
    DType type = DType::kF32;
    std::int64_t tensors = 0;
    std::uint64_t bytes = 0;
  };
  std::vector<Share> shares;                  // of the written tensors by type, largest first
  std::int64_t converted = 0;                 // tensors whose type changed
  std::vector<std::string> fell_back;         // names of tensors whose rows do not fill the type's blocks
  std::uint64_t bytes_in = 0, bytes_out = 0;  // of the tensors
  // Root of the sum of squared differences over the sum of squares, of the converted tensors together.
  double relative_error = 0.0;
};

// The type that a tensor of this name and shape gets.
[[nodiscard]] DType converted_type(std::string_view name, const std::vector<std::int64_t>& extents, DType stored, DType wanted);

// Writes `out` (a .gguf; replaced when complete). kInvalid: a type that cannot be written, a source of block type without
// `requantize`, values that are not finite, `out` being `in`; kEnvironment: not writable, no space, or cancelled.
Result<ConvertReport> convert_gguf(const std::filesystem::path& in, const std::filesystem::path& out,
                                   const ConvertOptions& options);

}  // namespace rooftree::formats

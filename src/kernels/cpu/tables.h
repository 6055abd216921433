#pragma once

// What each part of the CPU backend provides, per weight type and instruction set. Private to the layer.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/cpu_features.h"
#include "base/dtype.h"
#include "kernels/backend.h"

namespace rooftree::kernels::cpu {

// The kernels of one weight type. The unit of sharing is `unit` outputs: packed storage is one contiguous, 64-byte aligned
// piece per unit (N is padded up to it), and a call works on whole units.
struct ProductKernels {
  std::int64_t unit = 16;       // outputs
  std::int64_t k_multiple = 1;  // K must be a multiple of it
  std::size_t (*packed_bytes)(std::int64_t n, std::int64_t k) = nullptr;
  // Packs units [units.begin, units.end) of args.
  void (*pack)(const PackArgs& args, Range units) = nullptr;
  void (*unpack_row)(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) = nullptr;
  std::size_t (*activation_bytes)(std::int64_t rows, std::int64_t k) = nullptr;
  // Prepares activation tiles; the unit of sharing is `activation_rows(rows)` rows so that no two workers write one tile.
  std::int64_t (*activation_grain)(std::int64_t rows) = nullptr;
  void (*pack_activations)(const PackActivationsArgs& args, Range rows) = nullptr;
  // y for the outputs of units [units.begin, units.end), all rows.
  void (*multiply)(const MultiplyArgs& args, Range units) = nullptr;
};

// kBlock32 and kBlock256 types (block_products.cc), and f32, f16, bf16, bf16-12bit (float_products.cc). Null: not a type of
// this family. Activation layouts are a function of the product, not of the weight type, so that one packed form serves all
// matrices that read it.
[[nodiscard]] const ProductKernels* block_products(DType type, const CpuFeatures& features);
[[nodiscard]] const ProductKernels* float_products(DType type, const CpuFeatures& features);

// Row operators (row_kernels.cc); ranges are of rows.
struct RowKernels {
  void (*norm)(const NormArgs& args, Range rows) = nullptr;
  void (*rope)(const RopeArgs& args, Range rows) = nullptr;
  void (*activation)(const ActivationArgs& args, Range rows, Range columns) = nullptr;
  void (*add)(const AddArgs& args, Range rows, Range columns) = nullptr;
  void (*scale)(const ScaleArgs& args, Range rows, Range columns) = nullptr;
  void (*route)(const RouteArgs& args, Range rows) = nullptr;
  void (*combine)(const CombineArgs& args, Range rows, Range columns) = nullptr;
};
[[nodiscard]] const RowKernels& row_kernels(const CpuFeatures& features);

// Attention and the KV cache (attention.cc). The unit of sharing is the kernel's own.
struct AttentionKernels {
  std::size_t (*page_bytes)(const KvShape& shape) = nullptr;
  void (*write)(const Worker& worker, const KvWriteArgs& args) = nullptr;
  void (*attend)(const Worker& worker, const AttentionArgs& args) = nullptr;
};
[[nodiscard]] const AttentionKernels& attention_kernels(const CpuFeatures& features);

}  // namespace rooftree::kernels::cpu

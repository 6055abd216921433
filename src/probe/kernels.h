#pragma once

// The loops whose speed is measured. Each is written so that its result depends on every operation (nothing can be left out)
// and is known in advance (a test checks it). All instruction sets are compiled in; CpuFeatures choose.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/cpu_features.h"
#include "base/dtype.h"

namespace rooftree::probe {

// Independent chains acc += a * b (or dot products of a and b) on registers: no memory traffic.
struct ArithmeticKernel {
  Arithmetic type;
  const char* isa;          // "portable", "AVX2", "AVX-512", "AMX", "NEON"
  const char* instruction;  // what the loop repeats
  bool matrix;              // a matrix unit (AMX); otherwise the vector units
  double flop_per_iteration;
  double value_per_iteration;  // what one iteration adds to the result
  // Returns the sum of all accumulators: iterations * value_per_iteration exactly, while that is exact in the accumulator's
  // type (8 iterations always are).
  double (*run)(std::int64_t iterations);
};
[[nodiscard]] std::vector<ArithmeticKernel> arithmetic_kernels(const CpuFeatures& features);

// Streams over memory. Pointers are 64-byte aligned, n is a multiple of 64. Null: not available.
struct MemoryKernels {
  const char* isa;
  // Reads everything `passes` times; returns the XOR of all bit patterns read, so zero for an even number of passes.
  std::uint64_t (*read)(const double* p, std::size_t n, std::int64_t passes);
  void (*write)(double* p, std::size_t n, double value);                                    // ordinary stores
  void (*write_streaming)(double* p, std::size_t n, double value);                          // non-temporal stores
  void (*triad)(double* a, const double* b, const double* c, std::size_t n, double scale);  // a = b + scale * c
  void (*triad_streaming)(double* a, const double* b, const double* c, std::size_t n, double scale);
};
// The widest that the features allow.
[[nodiscard]] MemoryKernels memory_kernels(const CpuFeatures& features);

// Follows a chain of pointers: each load needs the one before it. `loads` is rounded up to a multiple of 16.
void* chase(void* start, std::int64_t loads);

// Dependent register additions, one per clock cycle on every CPU known to us; `count` is rounded up to a multiple of 64.
// Returns the number done; 0 where no such loop is written for the architecture.
std::int64_t dependent_adds(std::int64_t count);

// Per instruction-set parts of the tables, in kernels_*.cc; empty on other architectures.
namespace detail {
void append_portable(std::vector<ArithmeticKernel>& kernels);
void append_x86(const CpuFeatures& features, std::vector<ArithmeticKernel>& kernels);
void append_aarch64(const CpuFeatures& features, std::vector<ArithmeticKernel>& kernels);
[[nodiscard]] MemoryKernels portable_memory();
[[nodiscard]] MemoryKernels x86_memory(const CpuFeatures& features);      // isa null if none
[[nodiscard]] MemoryKernels aarch64_memory(const CpuFeatures& features);  // isa null if none

// Operands of the chains: small multiples of 1/8, exact in every floating type down to bf16; lanes differ, so that the
// multipliers see changing bits. Integer types use eight times the value.
[[nodiscard]] constexpr int operand_a(int lane) { return 3 + 5 * lane % 13; }                               // 3..15
[[nodiscard]] constexpr int operand_b(int lane) { return (lane % 2 == 0 ? 1 : -1) * (2 + 7 * lane % 11); }  // +-(2..12)
// Sum over lanes of a * b, times 64.
[[nodiscard]] constexpr int operand_dot(int lanes) {
  int sum = 0;
  for (int i = 0; i < lanes; ++i) sum += operand_a(i) * operand_b(i);
  return sum;
}
}  // namespace detail

}  // namespace rooftree::probe

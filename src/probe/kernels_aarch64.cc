// AArch64: NEON and its extensions, in inline assembly with explicit registers (v0..v23 accumulate, v30 and v31 are operands).

#include "probe/kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#include <cstring>

namespace rooftree::probe {
namespace {

constexpr int kChains = 24;

#define ROOFTREE_ALL_REGISTERS                                                                                               \
  "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", \
      "v19", "v20", "v21", "v22", "v23", "v30", "v31", "memory", "cc"

// OP(n) is one instruction: accumulator n, operands v30 and v31.
// clang-format off
#define ROOFTREE_REPEAT24(OP)                                                            \
  OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)              \
  OP(12) OP(13) OP(14) OP(15) OP(16) OP(17) OP(18) OP(19) OP(20) OP(21) OP(22) OP(23)
// clang-format on
#define ROOFTREE_FMLA_2D(n) "fmla v" #n ".2d, v30.2d, v31.2d\n\t"
#define ROOFTREE_FMLA_4S(n) "fmla v" #n ".4s, v30.4s, v31.4s\n\t"
// Optional extensions as machine words (Arm Architecture Reference Manual, A64 Advanced SIMD): the two compilers' assemblers do
// not agree on how to switch extensions on for one function. Rm = 31, Rn = 30.
#define ROOFTREE_WORD(n, BASE) ".inst " #BASE " + (31 << 16) + (30 << 5) + " #n "\n\t"
#define ROOFTREE_FMLA_8H(n) ROOFTREE_WORD(n, 0x4E400C00)
#define ROOFTREE_SDOT(n) ROOFTREE_WORD(n, 0x4E809400)
#define ROOFTREE_SMMLA(n) ROOFTREE_WORD(n, 0x4E80A400)
#define ROOFTREE_BFDOT(n) ROOFTREE_WORD(n, 0x6E40FC00)
#define ROOFTREE_BFMMLA(n) ROOFTREE_WORD(n, 0x6E40EC00)

#define ROOFTREE_ZERO(n) "movi v" #n ".2d, #0\n\t"
#define ROOFTREE_STORES                                                                                             \
  "stp q0, q1, [%[out]]\n\tstp q2, q3, [%[out], #32]\n\tstp q4, q5, [%[out], #64]\n\tstp q6, q7, [%[out], #96]\n\t" \
  "stp q8, q9, [%[out], #128]\n\tstp q10, q11, [%[out], #160]\n\tstp q12, q13, [%[out], #192]\n\t"                  \
  "stp q14, q15, [%[out], #224]\n\tstp q16, q17, [%[out], #256]\n\tstp q18, q19, [%[out], #288]\n\t"                \
  "stp q20, q21, [%[out], #320]\n\tstp q22, q23, [%[out], #352]\n\t"

// The loop runs `iterations` times.
#define ROOFTREE_CHAIN_KERNEL(NAME, OP, ELEMENT, FILL, ACC)                                               \
  double NAME(std::int64_t iterations) {                                                                  \
    if (iterations <= 0) return 0.0;                                                                      \
    constexpr int kLanes = 16 / static_cast<int>(sizeof(ELEMENT));                                        \
    alignas(16) ELEMENT operands[2 * kLanes];                                                             \
    for (int i = 0; i < kLanes; ++i) {                                                                    \
      operands[i] = FILL(detail::operand_a(i));                                                           \
      operands[kLanes + i] = FILL(detail::operand_b(i));                                                  \
    }                                                                                                     \
    alignas(16) ACC out[kChains * 16 / sizeof(ACC)];                                                      \
    asm volatile("ldp q30, q31, [%[in]]\n\t" ROOFTREE_REPEAT24(ROOFTREE_ZERO) "1:\n\t" ROOFTREE_REPEAT24( \
                     OP) "subs %[n], %[n], #1\n\tb.ne 1b\n\t" ROOFTREE_STORES                             \
                 : [n] "+r"(iterations)                                                                   \
                 : [in] "r"(operands), [out] "r"(out)                                                     \
                 : ROOFTREE_ALL_REGISTERS);                                                               \
    double sum = 0;                                                                                       \
    for (const ACC v : out) sum += static_cast<double>(v);                                                \
    return sum;                                                                                           \
  }

constexpr double as_double(int v) { return v / 8.0; }
constexpr float as_float(int v) { return static_cast<float>(v) / 8.0F; }
constexpr std::int8_t as_int8(int v) { return static_cast<std::int8_t>(v); }
__fp16 as_half(int v) { return static_cast<__fp16>(as_float(v)); }
std::uint16_t as_bf16(int v) {
  const float value = as_float(v);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);  // exact
}

ROOFTREE_CHAIN_KERNEL(fp64_neon, ROOFTREE_FMLA_2D, double, as_double, double)
ROOFTREE_CHAIN_KERNEL(fp32_neon, ROOFTREE_FMLA_4S, float, as_float, float)
ROOFTREE_CHAIN_KERNEL(fp16_neon, ROOFTREE_FMLA_8H, __fp16, as_half, __fp16)
ROOFTREE_CHAIN_KERNEL(int8_sdot, ROOFTREE_SDOT, std::int8_t, as_int8, std::int32_t)
ROOFTREE_CHAIN_KERNEL(bf16_bfdot, ROOFTREE_BFDOT, std::uint16_t, as_bf16, float)
// 2 x 8 by 8 x 2 products: acc[i][j] += a[i] . b[j]. Rows of the operands are their halves.
ROOFTREE_CHAIN_KERNEL(int8_smmla, ROOFTREE_SMMLA, std::int8_t, as_int8, std::int32_t)
ROOFTREE_CHAIN_KERNEL(bf16_bfmmla, ROOFTREE_BFMMLA, std::uint16_t, as_bf16, float)

// Sum of acc over a 2 x K by K x 2 product of the operands' halves: every half of a with every half of b.
constexpr int matrix_dot(int lanes) {
  int sum = 0;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 2; ++j) {
      for (int k = 0; k < lanes / 2; ++k) sum += detail::operand_a(i * lanes / 2 + k) * detail::operand_b(j * lanes / 2 + k);
    }
  }
  return sum;
}

std::uint64_t read_neon(const double* p, std::size_t n, std::int64_t passes) {
  uint64x2_t x[8];
  for (auto& v : x) v = vdupq_n_u64(0);
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    asm volatile("" : : : "memory");  // every pass reads again
    for (std::size_t i = 0; i < n; i += 16) {
      for (std::size_t j = 0; j < 8; ++j) x[j] = veorq_u64(x[j], vreinterpretq_u64_f64(vld1q_f64(p + i + 2 * j)));
    }
  }
  for (std::size_t j = 1; j < 8; ++j) x[0] = veorq_u64(x[0], x[j]);
  return vgetq_lane_u64(x[0], 0) ^ vgetq_lane_u64(x[0], 1);
}
void write_neon(double* p, std::size_t n, double value) {
  const float64x2_t v = vdupq_n_f64(value);
  for (std::size_t i = 0; i < n; i += 16) {
    for (std::size_t j = 0; j < 16; j += 2) vst1q_f64(p + i + j, v);
  }
}
void write_streaming_neon(double* p, std::size_t n, double value) {
  const float64x2_t v = vdupq_n_f64(value);
  for (std::size_t i = 0; i < n; i += 8) {
    asm volatile("stnp %q1, %q1, [%0]\n\tstnp %q1, %q1, [%0, #32]" : : "r"(p + i), "w"(v) : "memory");
  }
}
void triad_neon(double* a, const double* b, const double* c, std::size_t n, double scale) {
  const float64x2_t s = vdupq_n_f64(scale);
  for (std::size_t i = 0; i < n; i += 8) {
    for (std::size_t j = i; j < i + 8; j += 2) vst1q_f64(a + j, vfmaq_f64(vld1q_f64(b + j), s, vld1q_f64(c + j)));
  }
}
void triad_streaming_neon(double* a, const double* b, const double* c, std::size_t n, double scale) {
  const float64x2_t s = vdupq_n_f64(scale);
  for (std::size_t i = 0; i < n; i += 4) {
    const float64x2_t low = vfmaq_f64(vld1q_f64(b + i), s, vld1q_f64(c + i));
    const float64x2_t high = vfmaq_f64(vld1q_f64(b + i + 2), s, vld1q_f64(c + i + 2));
    asm volatile("stnp %q1, %q2, [%0]" : : "r"(a + i), "w"(low), "w"(high) : "memory");
  }
}

}  // namespace

namespace detail {

void append_aarch64(const CpuFeatures& f, std::vector<ArithmeticKernel>& kernels) {
  if (!f.neon) return;
  const auto value = [](int sum, double scale) { return kChains * sum / scale; };
  kernels.push_back({Arithmetic::kFp64, "NEON", "fmla 2d", false, kChains * 4, value(operand_dot(2), 64), fp64_neon});
  kernels.push_back({Arithmetic::kFp32, "NEON", "fmla 4s", false, kChains * 8, value(operand_dot(4), 64), fp32_neon});
  if (f.fp16) {
    kernels.push_back({Arithmetic::kFp16, "NEON", "fmla 8h", false, kChains * 16, value(operand_dot(8), 64), fp16_neon});
  }
  if (f.bf16) {
    kernels.push_back({Arithmetic::kBf16, "NEON", "bfdot", false, kChains * 16, value(operand_dot(8), 64), bf16_bfdot});
    kernels.push_back({Arithmetic::kBf16, "NEON", "bfmmla", false, kChains * 32, value(matrix_dot(8), 64), bf16_bfmmla});
  }
  if (f.dot) {
    kernels.push_back({Arithmetic::kInt8, "NEON", "sdot", false, kChains * 32, value(operand_dot(16), 1), int8_sdot});
  }
  if (f.i8mm) {
    kernels.push_back({Arithmetic::kInt8, "NEON", "smmla", false, kChains * 64, value(matrix_dot(16), 1), int8_smmla});
  }
}
void append_x86(const CpuFeatures&, std::vector<ArithmeticKernel>&) {}

MemoryKernels aarch64_memory(const CpuFeatures& f) {
  if (!f.neon) return {};
  return {"NEON", read_neon, write_neon, write_streaming_neon, triad_neon, triad_streaming_neon};
}
MemoryKernels x86_memory(const CpuFeatures&) { return {}; }

}  // namespace detail
}  // namespace rooftree::probe

#elif !defined(__x86_64__)

namespace rooftree::probe::detail {
void append_x86(const CpuFeatures&, std::vector<ArithmeticKernel>&) {}
void append_aarch64(const CpuFeatures&, std::vector<ArithmeticKernel>&) {}
MemoryKernels x86_memory(const CpuFeatures&) { return {}; }
MemoryKernels aarch64_memory(const CpuFeatures&) { return {}; }
}  // namespace rooftree::probe::detail

#endif

// x86-64: AVX2, AVX-512 and AMX. Every function carries its own target attribute, so that nothing else of the program is
// compiled for these instruction sets. The arithmetic is inline assembly on compiler-chosen registers: exactly the named
// instruction, never merged or moved. 512-bit chains use 24 accumulators: vdpbf16ps needs about 20 to hide its latency (12 gave
// 89 % of the peak on Zen 5); 256-bit ones use what 16 registers allow.

#include "probe/kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

namespace rooftree::probe {
namespace {

#define ROOFTREE_REPEAT8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ROOFTREE_REPEAT12(X) ROOFTREE_REPEAT8(X) X(8) X(9) X(10) X(11)
#define ROOFTREE_REPEAT24(X) ROOFTREE_REPEAT12(X) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

// Lanes of one operand, filled once.
template <class T, int Lanes>
struct alignas(64) Operand {
  T lane[Lanes];
};
template <class T, int Lanes, int (*Value)(int), int Divisor>
Operand<T, Lanes> operand() {
  Operand<T, Lanes> result;
  for (int i = 0; i < Lanes; ++i) {
    if constexpr (Divisor == 1) {
      result.lane[i] = static_cast<T>(Value(i));
    } else {
      result.lane[i] = static_cast<T>(Value(i)) / Divisor;
    }
  }
  return result;
}
// Small multiples of 1/8 are exact in bf16: the upper half of the float.
template <int (*Value)(int)>
Operand<std::uint16_t, 32> operand_bf16() {
  Operand<std::uint16_t, 32> result;
  for (int i = 0; i < 32; ++i) {
    const float value = static_cast<float>(Value(i)) / 8.0F;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    result.lane[i] = static_cast<std::uint16_t>(bits >> 16);
  }
  return result;
}
// Multiples of 1/8 below 16 as IEEE half: sign, 5 bits exponent (bias 15), 10 bits mantissa, from the float's fields.
template <int (*Value)(int)>
Operand<std::uint16_t, 32> operand_fp16() {
  Operand<std::uint16_t, 32> result;
  for (int i = 0; i < 32; ++i) {
    const float value = static_cast<float>(Value(i)) / 8.0F;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t exponent = ((bits >> 23) & 0xFF) - 127 + 15;
    result.lane[i] = static_cast<std::uint16_t>(((bits >> 16) & 0x8000) | (exponent << 10) | ((bits >> 13) & 0x3FF));
  }
  return result;
}

template <class T>
double sum_lanes(const T* values, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return sum;
}

// Defines double NAME(iterations): `chains` accumulators of VECTOR, each updated by STEP once per iteration.
#define ROOFTREE_ZERO(i) acc##i = zero;
#define ROOFTREE_DECLARE(i) Vector acc##i;
// Through the vector type (which may alias), so that no accumulator needs an address and leaves its register.
#define ROOFTREE_STORE(i) *reinterpret_cast<Vector*>(stored.lane) = acc##i, sum += sum_lanes(stored.lane, kLanes);

#define ROOFTREE_CHAIN_KERNEL(NAME, TARGET, VECTOR, ACC, LANES, REPEAT, STEP, SETUP) \
  __attribute__((target(TARGET), noinline)) double NAME(std::int64_t iterations) {   \
    using Vector = VECTOR;                                                           \
    constexpr int kLanes = LANES;                                                    \
    SETUP;                                                                           \
    Vector zero{};                                                                   \
    REPEAT(ROOFTREE_DECLARE)                                                         \
    REPEAT(ROOFTREE_ZERO)                                                            \
    for (std::int64_t it = 0; it < iterations; ++it) {                               \
      REPEAT(STEP)                                                                   \
    }                                                                                \
    Operand<ACC, kLanes> stored;                                                     \
    double sum = 0;                                                                  \
    REPEAT(ROOFTREE_STORE)                                                           \
    return sum;                                                                      \
  }

#define ROOFTREE_OPERANDS(T, LANES, DIVISOR)                            \
  const auto lanes_a = operand<T, LANES, detail::operand_a, DIVISOR>(); \
  const auto lanes_b = operand<T, LANES, detail::operand_b, DIVISOR>(); \
  const Vector a = *reinterpret_cast<const Vector*>(lanes_a.lane);      \
  const Vector b = *reinterpret_cast<const Vector*>(lanes_b.lane)
#define ROOFTREE_OPERANDS16(FILL)                                    \
  const auto lanes_a = FILL<detail::operand_a>();                    \
  const auto lanes_b = FILL<detail::operand_b>();                    \
  const __m512i a = *reinterpret_cast<const __m512i*>(lanes_a.lane); \
  const __m512i b = *reinterpret_cast<const __m512i*>(lanes_b.lane)
#define ROOFTREE_INT8_OPERANDS(BYTES)                                        \
  const auto lanes_a = operand<std::uint8_t, BYTES, detail::operand_a, 1>(); \
  const auto lanes_b = operand<std::int8_t, BYTES, detail::operand_b, 1>();  \
  const Vector a = *reinterpret_cast<const Vector*>(lanes_a.lane);           \
  const Vector b = *reinterpret_cast<const Vector*>(lanes_b.lane)

#define ROOFTREE_STEP_PS(i) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(acc##i) : "v"(a), "v"(b));
#define ROOFTREE_STEP_PD(i) asm volatile("vfmadd231pd %2, %1, %0" : "+v"(acc##i) : "v"(a), "v"(b));
#define ROOFTREE_STEP_PH(i) asm volatile("vfmadd231ph %2, %1, %0" : "+v"(acc##i) : "v"(a), "v"(b));
#define ROOFTREE_STEP_BF16(i) asm volatile("vdpbf16ps %2, %1, %0" : "+v"(acc##i) : "v"(a), "v"(b));
// AT&T order: the last operand accumulates, the middle one is unsigned, the first one signed.
#define ROOFTREE_STEP_VNNI(i) asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc##i) : "v"(a), "v"(b));
#define ROOFTREE_STEP_VEX_VNNI(i) asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc##i) : "x"(a), "x"(b));
// 16-bit pair sums (30 * 12 at most: no saturation), 32-bit pair sums, add.
#define ROOFTREE_STEP_MADDUBS(i)                                                   \
  asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0" \
               : "+x"(acc##i), "=&x"(scratch)                                      \
               : "x"(a), "x"(b), "x"(ones));

ROOFTREE_CHAIN_KERNEL(fp32_avx2, "avx2,fma", __m256, float, 8, ROOFTREE_REPEAT12, ROOFTREE_STEP_PS,
                      ROOFTREE_OPERANDS(float, 8, 8))
ROOFTREE_CHAIN_KERNEL(fp64_avx2, "avx2,fma", __m256d, double, 4, ROOFTREE_REPEAT12, ROOFTREE_STEP_PD,
                      ROOFTREE_OPERANDS(double, 4, 8))
ROOFTREE_CHAIN_KERNEL(int8_avx2, "avx2", __m256i, std::int32_t, 8, ROOFTREE_REPEAT8, ROOFTREE_STEP_MADDUBS,
                      ROOFTREE_INT8_OPERANDS(32);
                      Vector scratch; const Vector ones = _mm256_set1_epi16(1))
ROOFTREE_CHAIN_KERNEL(int8_avx_vnni, "avx2,avxvnni", __m256i, std::int32_t, 8, ROOFTREE_REPEAT12, ROOFTREE_STEP_VEX_VNNI,
                      ROOFTREE_INT8_OPERANDS(32))
ROOFTREE_CHAIN_KERNEL(fp32_avx512, "avx512f", __m512, float, 16, ROOFTREE_REPEAT24, ROOFTREE_STEP_PS,
                      ROOFTREE_OPERANDS(float, 16, 8))
ROOFTREE_CHAIN_KERNEL(fp64_avx512, "avx512f", __m512d, double, 8, ROOFTREE_REPEAT24, ROOFTREE_STEP_PD,
                      ROOFTREE_OPERANDS(double, 8, 8))
ROOFTREE_CHAIN_KERNEL(bf16_avx512, "avx512f,avx512bf16", __m512, float, 16, ROOFTREE_REPEAT24, ROOFTREE_STEP_BF16,
                      ROOFTREE_OPERANDS16(operand_bf16))
ROOFTREE_CHAIN_KERNEL(int8_avx512, "avx512f,avx512vnni", __m512i, std::int32_t, 16, ROOFTREE_REPEAT24, ROOFTREE_STEP_VNNI,
                      ROOFTREE_INT8_OPERANDS(64))

// Half precision accumulators: decoded by hand, since _Float16 needs more than the baseline of the language.
double half_to_double(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? mantissa * 0x1p-24 : (1024 + mantissa) * 0x1p-25 * static_cast<double>(1U << exponent);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}
struct Half {
  std::uint16_t bits;
  explicit operator double() const { return half_to_double(bits); }
};
ROOFTREE_CHAIN_KERNEL(fp16_avx512, "avx512f,avx512fp16", __m512i, Half, 32, ROOFTREE_REPEAT24, ROOFTREE_STEP_PH,
                      ROOFTREE_OPERANDS16(operand_fp16))

// AMX: tiles of 16 rows of 64 bytes; 0..5 accumulate (a tile product takes 16 cycles and has 52 of latency: 4 are enough),
// 6 and 7 hold the operands. Row r of A is operand_a(r) everywhere, B is -2 everywhere.
constexpr int kTileChains = 6;
constexpr double kTileRowSum = [] {
  int sum = 0;
  for (int r = 0; r < 16; ++r) sum += detail::operand_a(r);
  return static_cast<double>(sum);
}();
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

#define ROOFTREE_AMX_KERNEL(NAME, TARGET, INSTRUCTION, ACC, ELEMENT, FILL_A, FILL_B)                                          \
  __attribute__((target(TARGET), noinline)) double NAME(std::int64_t iterations) {                                            \
    const TileConfig config;                                                                                                  \
    constexpr int kPerRow = 64 / static_cast<int>(sizeof(ELEMENT));                                                           \
    alignas(64) ELEMENT a[16][kPerRow], b[16][kPerRow];                                                                       \
    alignas(64) ACC c[16][16];                                                                                                \
    for (int r = 0; r < 16; ++r) {                                                                                            \
      for (int k = 0; k < kPerRow; ++k) {                                                                                     \
        a[r][k] = FILL_A;                                                                                                     \
        b[r][k] = FILL_B;                                                                                                     \
      }                                                                                                                       \
    }                                                                                                                         \
    const std::int64_t stride = 64;                                                                                           \
    asm volatile("ldtilecfg %0" : : "m"(config));                                                                             \
    asm volatile("tileloadd (%0,%1,1), %%tmm6" : : "r"(a), "r"(stride) : "memory");                                           \
    asm volatile("tileloadd (%0,%1,1), %%tmm7" : : "r"(b), "r"(stride) : "memory");                                           \
    asm volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3\n\ttilezero %tmm4\n\ttilezero %tmm5"); \
    for (std::int64_t it = 0; it < iterations; ++it) {                                                                        \
      asm volatile(INSTRUCTION " %tmm7, %tmm6, %tmm0\n\t" INSTRUCTION " %tmm7, %tmm6, %tmm1\n\t" INSTRUCTION                  \
                               " %tmm7, %tmm6, %tmm2\n\t" INSTRUCTION " %tmm7, %tmm6, %tmm3\n\t" INSTRUCTION                  \
                               " %tmm7, %tmm6, %tmm4\n\t" INSTRUCTION " %tmm7, %tmm6, %tmm5");                                \
    }                                                                                                                         \
    double sum = 0;                                                                                                           \
    ROOFTREE_STORE_TILE("%%tmm0")                                                                                             \
    ROOFTREE_STORE_TILE("%%tmm1")                                                                                             \
    ROOFTREE_STORE_TILE("%%tmm2")                                                                                             \
    ROOFTREE_STORE_TILE("%%tmm3")                                                                                             \
    ROOFTREE_STORE_TILE("%%tmm4")                                                                                             \
    ROOFTREE_STORE_TILE("%%tmm5")                                                                                             \
    asm volatile("tilerelease");                                                                                              \
    return sum;                                                                                                               \
  }
#define ROOFTREE_STORE_TILE(TILE)                                                    \
  asm volatile("tilestored " TILE ", (%0,%1,1)" : : "r"(c), "r"(stride) : "memory"); \
  sum += sum_lanes(&c[0][0], 256);

ROOFTREE_AMX_KERNEL(int8_amx, "amx-tile,amx-int8", "tdpbssd", std::int32_t, std::int8_t,
                    static_cast<std::int8_t>(detail::operand_a(r)), static_cast<std::int8_t>(-2))
// bf16 of operand_a(r) / 8 and of -2.
ROOFTREE_AMX_KERNEL(bf16_amx, "amx-tile,amx-bf16", "tdpbf16ps", float, std::uint16_t, operand_bf16<detail::operand_a>().lane[r],
                    static_cast<std::uint16_t>(0xC000))

// ---- memory ----

__attribute__((target("avx512f"))) std::uint64_t read_avx512(const double* p, std::size_t n, std::int64_t passes) {
  __m512i x0{}, x1{}, x2{}, x3{}, x4{}, x5{}, x6{}, x7{};
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    asm volatile("" : : : "memory");  // every pass reads again
    for (std::size_t i = 0; i < n; i += 64) {
      x0 = _mm512_xor_si512(x0, _mm512_load_si512(p + i));
      x1 = _mm512_xor_si512(x1, _mm512_load_si512(p + i + 8));
      x2 = _mm512_xor_si512(x2, _mm512_load_si512(p + i + 16));
      x3 = _mm512_xor_si512(x3, _mm512_load_si512(p + i + 24));
      x4 = _mm512_xor_si512(x4, _mm512_load_si512(p + i + 32));
      x5 = _mm512_xor_si512(x5, _mm512_load_si512(p + i + 40));
      x6 = _mm512_xor_si512(x6, _mm512_load_si512(p + i + 48));
      x7 = _mm512_xor_si512(x7, _mm512_load_si512(p + i + 56));
    }
  }
  x0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_xor_si512(x0, x1), _mm512_xor_si512(x2, x3)),
                        _mm512_xor_si512(_mm512_xor_si512(x4, x5), _mm512_xor_si512(x6, x7)));
  alignas(64) std::uint64_t lanes[8];
  _mm512_store_si512(lanes, x0);
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ lanes[4] ^ lanes[5] ^ lanes[6] ^ lanes[7];
}

__attribute__((target("avx512f"))) void write_avx512(double* p, std::size_t n, double value) {
  const __m512d v = _mm512_set1_pd(value);
  for (std::size_t i = 0; i < n; i += 64) {
    for (std::size_t j = 0; j < 64; j += 8) _mm512_store_pd(p + i + j, v);
  }
}
__attribute__((target("avx512f"))) void write_streaming_avx512(double* p, std::size_t n, double value) {
  const __m512d v = _mm512_set1_pd(value);
  for (std::size_t i = 0; i < n; i += 64) {
    for (std::size_t j = 0; j < 64; j += 8) _mm512_stream_pd(p + i + j, v);
  }
  _mm_sfence();
}
__attribute__((target("avx512f"))) void triad_avx512(double* a, const double* b, const double* c, std::size_t n, double scale) {
  const __m512d s = _mm512_set1_pd(scale);
  for (std::size_t i = 0; i < n; i += 32) {
    for (std::size_t j = i; j < i + 32; j += 8) {
      _mm512_store_pd(a + j, _mm512_fmadd_pd(s, _mm512_load_pd(c + j), _mm512_load_pd(b + j)));
    }
  }
}
__attribute__((target("avx512f"))) void triad_streaming_avx512(double* a, const double* b, const double* c, std::size_t n,
                                                               double scale) {
  const __m512d s = _mm512_set1_pd(scale);
  for (std::size_t i = 0; i < n; i += 32) {
    for (std::size_t j = i; j < i + 32; j += 8) {
      _mm512_stream_pd(a + j, _mm512_fmadd_pd(s, _mm512_load_pd(c + j), _mm512_load_pd(b + j)));
    }
  }
  _mm_sfence();
}

__attribute__((target("avx2"))) std::uint64_t read_avx2(const double* p, std::size_t n, std::int64_t passes) {
  const auto* v = reinterpret_cast<const __m256i*>(p);
  __m256i x0{}, x1{}, x2{}, x3{}, x4{}, x5{}, x6{}, x7{};
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    asm volatile("" : : : "memory");  // every pass reads again
    for (std::size_t i = 0; i < n / 4; i += 8) {
      x0 = _mm256_xor_si256(x0, _mm256_load_si256(v + i));
      x1 = _mm256_xor_si256(x1, _mm256_load_si256(v + i + 1));
      x2 = _mm256_xor_si256(x2, _mm256_load_si256(v + i + 2));
      x3 = _mm256_xor_si256(x3, _mm256_load_si256(v + i + 3));
      x4 = _mm256_xor_si256(x4, _mm256_load_si256(v + i + 4));
      x5 = _mm256_xor_si256(x5, _mm256_load_si256(v + i + 5));
      x6 = _mm256_xor_si256(x6, _mm256_load_si256(v + i + 6));
      x7 = _mm256_xor_si256(x7, _mm256_load_si256(v + i + 7));
    }
  }
  x0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_xor_si256(x0, x1), _mm256_xor_si256(x2, x3)),
                        _mm256_xor_si256(_mm256_xor_si256(x4, x5), _mm256_xor_si256(x6, x7)));
  alignas(32) std::uint64_t lanes[4];
  std::memcpy(lanes, &x0, sizeof lanes);
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3];
}
__attribute__((target("avx2"))) void write_avx2(double* p, std::size_t n, double value) {
  const __m256d v = _mm256_set1_pd(value);
  for (std::size_t i = 0; i < n; i += 32) {
    for (std::size_t j = 0; j < 32; j += 4) _mm256_store_pd(p + i + j, v);
  }
}
__attribute__((target("avx2"))) void write_streaming_avx2(double* p, std::size_t n, double value) {
  const __m256d v = _mm256_set1_pd(value);
  for (std::size_t i = 0; i < n; i += 32) {
    for (std::size_t j = 0; j < 32; j += 4) _mm256_stream_pd(p + i + j, v);
  }
  _mm_sfence();
}
__attribute__((target("avx2,fma"))) void triad_avx2(double* a, const double* b, const double* c, std::size_t n, double scale) {
  const __m256d s = _mm256_set1_pd(scale);
  for (std::size_t i = 0; i < n; i += 16) {
    for (std::size_t j = i; j < i + 16; j += 4) {
      _mm256_store_pd(a + j, _mm256_fmadd_pd(s, _mm256_load_pd(c + j), _mm256_load_pd(b + j)));
    }
  }
}
__attribute__((target("avx2,fma"))) void triad_streaming_avx2(double* a, const double* b, const double* c, std::size_t n,
                                                              double scale) {
  const __m256d s = _mm256_set1_pd(scale);
  for (std::size_t i = 0; i < n; i += 16) {
    for (std::size_t j = i; j < i + 16; j += 4) {
      _mm256_stream_pd(a + j, _mm256_fmadd_pd(s, _mm256_load_pd(c + j), _mm256_load_pd(b + j)));
    }
  }
  _mm_sfence();
}

}  // namespace

namespace detail {

void append_x86(const CpuFeatures& f, std::vector<ArithmeticKernel>& kernels) {
  // FLOP: accumulators * lanes * 2, times the products per 32-bit lane of a dot instruction.
  const auto value = [](int chains, int lanes, double scale) { return chains * operand_dot(lanes) / scale; };
  constexpr double kFractions = 64.0;  // (1/8)^2
  if (f.isa() == Isa::kAvx512) {
    kernels.push_back({Arithmetic::kFp64, "AVX-512", "vfmadd231pd zmm", false, 24 * 16, value(24, 8, kFractions), fp64_avx512});
    kernels.push_back(
        {Arithmetic::kFp32, "AVX-512", "vfmadd231ps zmm", false, 24 * 32, value(24, 16, kFractions), fp32_avx512});
    if (f.avx512_bf16) {
      kernels.push_back(
          {Arithmetic::kBf16, "AVX-512", "vdpbf16ps zmm", false, 24 * 64, value(24, 32, kFractions), bf16_avx512});
    }
    if (f.avx512_fp16) {
      kernels.push_back(
          {Arithmetic::kFp16, "AVX-512", "vfmadd231ph zmm", false, 24 * 64, value(24, 32, kFractions), fp16_avx512});
    }
    if (f.avx512_vnni) {
      kernels.push_back({Arithmetic::kInt8, "AVX-512", "vpdpbusd zmm", false, 24 * 128, value(24, 64, 1.0), int8_avx512});
    }
  }
  if (f.amx_tile && f.amx_int8) {
    kernels.push_back({Arithmetic::kInt8, "AMX", "tdpbssd", true, kTileChains * 2.0 * 16 * 16 * 64,
                       kTileChains * kTileRowSum * -2.0 * 16 * 64, int8_amx});
  }
  if (f.amx_tile && f.amx_bf16) {
    kernels.push_back({Arithmetic::kBf16, "AMX", "tdpbf16ps", true, kTileChains * 2.0 * 16 * 16 * 32,
                       kTileChains * kTileRowSum / 8 * -2.0 * 16 * 32, bf16_amx});
  }
  if (f.avx2 && f.fma) {
    kernels.push_back({Arithmetic::kFp64, "AVX2", "vfmadd231pd ymm", false, 12 * 8, value(12, 4, kFractions), fp64_avx2});
    kernels.push_back({Arithmetic::kFp32, "AVX2", "vfmadd231ps ymm", false, 12 * 16, value(12, 8, kFractions), fp32_avx2});
    kernels.push_back({Arithmetic::kInt8, "AVX2", "vpmaddubsw+vpmaddwd+vpaddd", false, 8 * 64, value(8, 32, 1.0), int8_avx2});
  }
  if (f.avx_vnni) {
    kernels.push_back({Arithmetic::kInt8, "AVX-VNNI", "vpdpbusd ymm", false, 12 * 64, value(12, 32, 1.0), int8_avx_vnni});
  }
}
void append_aarch64(const CpuFeatures&, std::vector<ArithmeticKernel>&) {}

MemoryKernels x86_memory(const CpuFeatures& f) {
  switch (f.isa()) {
    case Isa::kAvx512:
      return {"AVX-512", read_avx512, write_avx512, write_streaming_avx512, triad_avx512, triad_streaming_avx512};
    case Isa::kAvx2:
      return {"AVX2", read_avx2, write_avx2, write_streaming_avx2, triad_avx2, triad_streaming_avx2};
    default:
      return {};
  }
}
MemoryKernels aarch64_memory(const CpuFeatures&) { return {}; }

}  // namespace detail
}  // namespace rooftree::probe

#endif

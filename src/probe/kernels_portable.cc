// Loops in plain C++ (and the compiler's vector types), for machines without anything better and as the baseline that a program
// compiled without instruction-set flags reaches.

#include "probe/kernels.h"

namespace rooftree::probe {
namespace {

// Eight accumulators of 16 bytes, which every vector unit has; the compiler chooses the instructions.
template <class T>
constexpr int kLanes = 16 / static_cast<int>(sizeof(T));
constexpr int kChains = 8;

template <class T>
double multiply_add_chains(std::int64_t iterations) {
  using Vector __attribute__((vector_size(16))) = T;
  Vector a, b;
  for (int i = 0; i < kLanes<T>; ++i) {
    a[i] = static_cast<T>(detail::operand_a(i)) / 8;
    b[i] = static_cast<T>(detail::operand_b(i)) / 8;
  }
  Vector c0{}, c1{}, c2{}, c3{}, c4{}, c5{}, c6{}, c7{};
  // The product may not be computed once and kept: every use of `a` must look like a new value.
#if defined(__x86_64__)
#define ROOFTREE_RENEW asm volatile("" : "+x"(a));
#elif defined(__aarch64__)
#define ROOFTREE_RENEW asm volatile("" : "+w"(a));
#else
#define ROOFTREE_RENEW asm volatile("" : "+m"(a));
#endif
#define ROOFTREE_STEP(c) \
  ROOFTREE_RENEW         \
  c += a * b;
  for (std::int64_t it = 0; it < iterations; ++it) {
    ROOFTREE_STEP(c0)
    ROOFTREE_STEP(c1)
    ROOFTREE_STEP(c2)
    ROOFTREE_STEP(c3)
    ROOFTREE_STEP(c4)
    ROOFTREE_STEP(c5)
    ROOFTREE_STEP(c6)
    ROOFTREE_STEP(c7)
  }
#undef ROOFTREE_STEP
#undef ROOFTREE_RENEW
  double sum = 0;
  for (const Vector& c : {c0, c1, c2, c3, c4, c5, c6, c7}) {
    for (int i = 0; i < kLanes<T>; ++i) sum += static_cast<double>(c[i]);
  }
  return sum;
}

constexpr int kBytes = 32;
double int8_dot(std::int64_t iterations) {
  std::int8_t a[kBytes], b[kBytes];
  std::int32_t acc[kBytes] = {};
  for (int i = 0; i < kBytes; ++i) {
    a[i] = static_cast<std::int8_t>(detail::operand_a(i));
    b[i] = static_cast<std::int8_t>(detail::operand_b(i));
  }
  for (std::int64_t it = 0; it < iterations; ++it) {
    asm volatile("" : "+m"(a), "+m"(b));
    for (int i = 0; i < kBytes; ++i) {
      // Unsigned: long runs wrap around.
      acc[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(acc[i]) + static_cast<std::uint32_t>(a[i] * b[i]));
    }
  }
  double sum = 0;
  for (const std::int32_t v : acc) sum += v;
  return sum;
}

// 16 bytes of whatever type; reads any object.
using Words __attribute__((vector_size(16), may_alias)) = std::uint64_t;

std::uint64_t read(const double* p, std::size_t n, std::int64_t passes) {
  const auto* v = reinterpret_cast<const Words*>(p);
  Words x0{}, x1{}, x2{}, x3{}, x4{}, x5{}, x6{}, x7{};
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    asm volatile("" : : : "memory");  // every pass reads again
    for (std::size_t i = 0; i < n / 2; i += 8) {
      x0 ^= v[i];
      x1 ^= v[i + 1];
      x2 ^= v[i + 2];
      x3 ^= v[i + 3];
      x4 ^= v[i + 4];
      x5 ^= v[i + 5];
      x6 ^= v[i + 6];
      x7 ^= v[i + 7];
    }
  }
  const Words x = x0 ^ x1 ^ x2 ^ x3 ^ x4 ^ x5 ^ x6 ^ x7;
  return x[0] ^ x[1];
}

void write(double* p, std::size_t n, double value) {
  for (std::size_t i = 0; i < n; ++i) p[i] = value;
}

void triad(double* __restrict a, const double* __restrict b, const double* __restrict c, std::size_t n, double scale) {
  for (std::size_t i = 0; i < n; ++i) a[i] = b[i] + scale * c[i];
}

}  // namespace

namespace detail {

void append_portable(std::vector<ArithmeticKernel>& kernels) {
  const auto append = [&kernels](Arithmetic type, int lanes, double (*run)(std::int64_t)) {
    kernels.push_back(
        {type, "portable", "a + b * c in C++", false, 2.0 * kChains * lanes, kChains * operand_dot(lanes) / 64.0, run});
  };
  append(Arithmetic::kFp64, kLanes<double>, multiply_add_chains<double>);
  append(Arithmetic::kFp32, kLanes<float>, multiply_add_chains<float>);
  kernels.push_back({Arithmetic::kInt8, "portable", "int32 += int8 * int8 in C++", false, 2.0 * kBytes,
                     static_cast<double>(operand_dot(kBytes)), int8_dot});
}

MemoryKernels portable_memory() { return {"portable", read, write, nullptr, triad, nullptr}; }

}  // namespace detail

std::vector<ArithmeticKernel> arithmetic_kernels(const CpuFeatures& features) {
  std::vector<ArithmeticKernel> kernels;
  detail::append_x86(features, kernels);
  detail::append_aarch64(features, kernels);
  detail::append_portable(kernels);
  return kernels;
}

MemoryKernels memory_kernels(const CpuFeatures& features) {
  if (const MemoryKernels k = detail::x86_memory(features); k.isa != nullptr) return k;
  if (const MemoryKernels k = detail::aarch64_memory(features); k.isa != nullptr) return k;
  return detail::portable_memory();
}

void* chase(void* start, std::int64_t loads) {
  void* p = start;
  for (std::int64_t i = 0; i < loads; i += 16) {
#define ROOFTREE_LOAD p = *static_cast<void**>(p);
    ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD
        ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD ROOFTREE_LOAD
#undef ROOFTREE_LOAD
  }
  return p;
}

std::int64_t dependent_adds(std::int64_t count) {
  std::int64_t done = 0;
#if defined(__x86_64__) || defined(__aarch64__)
  std::uint64_t x = 0;
  const std::uint64_t one = 1;
  for (; done < count; done += 64) {
    // A register operand: some CPUs fold additions of constants while renaming.
#if defined(__x86_64__)
#define ROOFTREE_ADD "add %1, %0\n\t"
#else
#define ROOFTREE_ADD "add %0, %0, %1\n\t"
#endif
#define ROOFTREE_ADD8 ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD ROOFTREE_ADD
    asm volatile(ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8 ROOFTREE_ADD8
                 : "+r"(x)
                 : "r"(one));
#undef ROOFTREE_ADD8
#undef ROOFTREE_ADD
  }
  return static_cast<std::int64_t>(x);
#else
  (void)count;
  return done;
#endif
}

}  // namespace rooftree::probe

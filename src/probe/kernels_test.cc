#include "probe/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "base/philox.h"

namespace rooftree::probe {
namespace {

std::vector<CpuFeatures> feature_levels() {
  std::vector<CpuFeatures> levels;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kNeon})
    levels.push_back(limit(detected_cpu_features(), isa));
  return levels;
}

TEST(ArithmeticKernels, ValuesAreAsComputedByHand) {
  for (const CpuFeatures& features : feature_levels()) {
    for (const ArithmeticKernel& kernel : arithmetic_kernels(features)) {
      SCOPED_TRACE(std::string(kernel.isa) + " " + kernel.instruction);
      EXPECT_NE(kernel.value_per_iteration, 0.0);
      EXPECT_GT(kernel.flop_per_iteration, 0.0);
      EXPECT_EQ(kernel.run(0), 0.0);
      for (const int iterations : {1, 2, 5, 8}) EXPECT_EQ(kernel.run(iterations), iterations * kernel.value_per_iteration);
    }
  }
}

TEST(ArithmeticKernels, LongRunsStayExactInWideAccumulators) {
  for (const ArithmeticKernel& kernel : arithmetic_kernels(detected_cpu_features())) {
    if (kernel.type == Arithmetic::kFp16) continue;  // ten bits of mantissa
    EXPECT_EQ(kernel.run(1000), 1000 * kernel.value_per_iteration) << kernel.instruction;
  }
}

TEST(ArithmeticKernels, EveryMachineHasTheBasicTypes) {
  for (const CpuFeatures& features : feature_levels()) {
    int found = 0;
    for (const ArithmeticKernel& kernel : arithmetic_kernels(features)) {
      if (std::string_view(kernel.isa) == "portable") ++found;
    }
    EXPECT_EQ(found, 3);  // fp64, fp32, int8
  }
}

TEST(ArithmeticKernels, LimitedFeaturesGiveOnlyWhatTheyAllow) {
  for (const ArithmeticKernel& kernel : arithmetic_kernels(CpuFeatures{})) EXPECT_STREQ(kernel.isa, "portable");
  for (const ArithmeticKernel& kernel : arithmetic_kernels(limit(detected_cpu_features(), Isa::kAvx2))) {
    EXPECT_STRNE(kernel.isa, "AVX-512");
    EXPECT_FALSE(kernel.matrix);
  }
}

struct Freed {
  void operator()(double* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Aligned = std::unique_ptr<double[], Freed>;
Aligned aligned(std::size_t n) { return Aligned(new (std::align_val_t{64}) double[n]); }

TEST(MemoryKernels, ResultsEqualPlainLoops) {
  Philox rng(8);
  for (const CpuFeatures& features : feature_levels()) {
    const MemoryKernels kernels = memory_kernels(features);
    SCOPED_TRACE(kernels.isa);
    for (const std::size_t n : {std::size_t{0}, std::size_t{64}, std::size_t{128}, std::size_t{4096}, std::size_t{4160}}) {
      const Aligned a = aligned(n + 64), b = aligned(n + 64), c = aligned(n + 64);
      std::uint64_t all = 0;
      for (std::size_t i = 0; i < n + 64; ++i) {
        a[i] = -1.0;
        b[i] = static_cast<double>(rng.below(1000));
        c[i] = static_cast<double>(rng.below(1000));
        if (i < n) all ^= std::bit_cast<std::uint64_t>(b[i]);
      }
      EXPECT_EQ(kernels.read(b.get(), n, 1), all);
      EXPECT_EQ(kernels.read(b.get(), n, 3), all);
      EXPECT_EQ(kernels.read(b.get(), n, 2), 0U);
      EXPECT_EQ(kernels.read(b.get(), n, 0), 0U);
      for (const auto triad : {kernels.triad, kernels.triad_streaming}) {
        if (triad == nullptr) continue;
        triad(a.get(), b.get(), c.get(), n, 3.0);
        for (std::size_t i = 0; i < n; ++i) {
          ASSERT_EQ(a[i], b[i] + 3.0 * c[i]) << i;
          a[i] = -1.0;
        }
        for (std::size_t i = n; i < n + 64; ++i) ASSERT_EQ(a[i], -1.0) << "written behind the end";
      }
      for (const auto write : {kernels.write, kernels.write_streaming}) {
        if (write == nullptr) continue;
        write(a.get(), n, 7.5);
        for (std::size_t i = 0; i < n; ++i) {
          ASSERT_EQ(a[i], 7.5);
          a[i] = -1.0;
        }
        for (std::size_t i = n; i < n + 64; ++i) ASSERT_EQ(a[i], -1.0) << "written behind the end";
      }
    }
  }
}

TEST(Chase, FollowsTheChain) {
  std::vector<void*> chain(48);
  for (std::size_t i = 0; i < 48; ++i) chain[i] = &chain[(i + 1) % 48];
  EXPECT_EQ(chase(chain.data(), 16), &chain[16]);
  EXPECT_EQ(chase(chain.data(), 17), &chain[32]);
  EXPECT_EQ(chase(chain.data(), 48), chain.data());
  EXPECT_EQ(chase(chain.data(), 0), chain.data());
}

TEST(DependentAdds, CountsWhatItDid) {
  const std::int64_t done = dependent_adds(100);
#if defined(__x86_64__) || defined(__aarch64__)
  EXPECT_EQ(done, 128);
#else
  EXPECT_EQ(done, 0);
#endif
}

}  // namespace
}  // namespace rooftree::probe

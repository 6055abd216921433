#include "measure/limits.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/cpu_features.h"
#include "probe/kernels.h"

namespace rooftree::measure {
namespace {

constexpr std::int64_t kGrain = 64;  // values; what the streaming loops need

double seconds_of(ThreadPool& pool, FunctionRef<void(const Worker&)> region) {
  const auto start = std::chrono::steady_clock::now();
  pool.run(region);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Result<LimitProbe> LimitProbe::make(ThreadPool& pool, std::size_t read_bytes) {
  ROOFTREE_TRY(const CpuFeatures features, usable_cpu_features());
  (void)features;
  const std::size_t values = read_bytes / sizeof(double) / kGrain * kGrain;
  void* memory = mmap(nullptr, values * sizeof(double), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Error{ErrorCode::kEnvironment, fmt::format("no {} bytes for the bandwidth probe", read_bytes)};
  }
  (void)madvise(memory, values * sizeof(double), MADV_HUGEPAGE);  // a hint
  auto* buffer = static_cast<double*>(memory);
  // Untouched pages would all be the one page of zeros, which lives in cache.
  pool.parallel_for(
      static_cast<std::int64_t>(values),
      [&](Range part, const Worker&) {
        for (std::int64_t i = part.begin; i < part.end; ++i) buffer[i] = static_cast<double>(i);
      },
      kGrain);
  return LimitProbe(pool, buffer, values);
}

LimitProbe::LimitProbe(ThreadPool& pool, double* buffer, std::size_t values) : pool_(pool), buffer_(buffer), values_(values) {}
LimitProbe::LimitProbe(LimitProbe&& other) noexcept
    : pool_(other.pool_), buffer_(std::exchange(other.buffer_, nullptr)), values_(std::exchange(other.values_, 0)) {}
LimitProbe::~LimitProbe() {
  if (buffer_ != nullptr) munmap(buffer_, values_ * sizeof(double));
}

double LimitProbe::read_bytes_per_second() {
  const probe::MemoryKernels kernels = probe::memory_kernels(usable_cpu_features().value());
  std::atomic<std::uint64_t> sink{0};
  const double seconds = seconds_of(pool_, [&](const Worker& worker) {
    const Range part = worker.share(static_cast<std::int64_t>(values_), kGrain);
    sink ^= kernels.read(buffer_ + part.begin, static_cast<std::size_t>(part.size()), 1);
  });
  return static_cast<double>(values_ * sizeof(double)) / seconds;
}

double LimitProbe::flop_per_second(Arithmetic type) {
  constexpr std::int64_t kIterations = 200'000;
  double best = 0;
  for (const probe::ArithmeticKernel& kernel : probe::arithmetic_kernels(usable_cpu_features().value())) {
    if (kernel.type != type) continue;
    std::atomic<double> sink{0};
    const double seconds = seconds_of(pool_, [&](const Worker&) { sink = kernel.run(kIterations); });
    best = std::max(best, kernel.flop_per_iteration * static_cast<double>(kIterations * pool_.size()) / seconds);
  }
  return best;
}

}  // namespace rooftree::measure

// What a region, a barrier and a wake-up of the thread pool cost, by number of threads. Read the minimum over repetitions on a
// shared machine: --benchmark_repetitions=9.

#include <benchmark/benchmark.h>

#include <chrono>
#include <thread>

#include "base/thread_pool.h"

namespace rooftree {
namespace {

int threads_here() {
  const Result<int> count = default_thread_count();
  return count ? *count : 1;
}

void by_threads(benchmark::internal::Benchmark* bench) {
  const int most = threads_here();
  for (int threads = 1; threads < most; threads *= 2) bench->Arg(threads);
  bench->Arg(most);
}

// Empty region, workers still spinning from the one before.
void fork_join(benchmark::State& state) {
  ThreadPool pool({.threads = static_cast<int>(state.range(0)), .pin_caller = true});
  for (auto _ : state) pool.run([](const Worker&) {});
}
BENCHMARK(fork_join)->Apply(by_threads)->UseRealTime();

// One barrier among many in a region; time per barrier.
void barrier(benchmark::State& state) {
  ThreadPool pool({.threads = static_cast<int>(state.range(0)), .pin_caller = true});
  constexpr int kBarriers = 1000;
  for (auto _ : state) {
    pool.run([](const Worker& w) {
      for (int i = 0; i < kBarriers; ++i) w.barrier();
    });
  }
  state.counters["s_per_barrier"] =
      benchmark::Counter(kBarriers, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(barrier)->Apply(by_threads)->UseRealTime();

// Empty region after a pause that is longer than the spin: the workers sleep in the kernel.
void wake_parked(benchmark::State& state) {
  ThreadPool pool({.threads = static_cast<int>(state.range(0)), .pin_caller = true, .spin = std::chrono::microseconds{20}});
  for (auto _ : state) {
    std::this_thread::sleep_for(std::chrono::microseconds{200});
    const auto start = std::chrono::steady_clock::now();
    pool.run([](const Worker&) {});
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
}
BENCHMARK(wake_parked)->Apply(by_threads)->UseManualTime()->Iterations(500);

}  // namespace
}  // namespace rooftree

BENCHMARK_MAIN();

#pragma once

// Fork-join threads for compute kernels: pinned, deterministic, no allocation per call, and awake within a few hundred
// nanoseconds while they spin (they park after `spin`). The calling thread is worker 0 of every region.
//
//   pool.run([&](const Worker& w) {
//     const Range rows = w.share(row_count);   // always the same rows on the same worker
//     w.barrier();
//     ...
//   });
//
// Exceptions must not leave a region (the process terminates). A pool does not survive fork().

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"

namespace rooftree {

// Half-open range of work items.
struct Range {
  std::int64_t begin = 0, end = 0;

  [[nodiscard]] std::int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Part `index` of [0, n) cut into `parts` contiguous ranges whose numbers of grains differ by at most one: the first
// ceil(n / grain) mod parts ranges get one grain more, and every cut is a multiple of `grain`. A pure function of its
// arguments.
[[nodiscard]] Range partition(std::int64_t n, int parts, int index, std::int64_t grain = 1);

// What this process may use of the machine.
struct CpuAllowance {
  std::vector<int> cpus;  // of the affinity mask: one hardware thread per core first, then the second threads of the cores
  int cores = 1;          // physical cores among them
  double quota = 0.0;     // CPUs' worth of time that the control group allows; 0 = no limit
};
[[nodiscard]] CpuAllowance cpu_allowance();

// "max 100000" or "150000 100000" as in cgroup v2 cpu.max; 0 when there is no limit or the text is not understood.
[[nodiscard]] double parse_cgroup_cpu_max(std::string_view text);
// "0-3,8,10-11" as in sysfs; empty when malformed.
[[nodiscard]] std::vector<int> parse_cpu_list(std::string_view text);

// One thread per physical core of the allowance, at most the quota (rounded down, at least 1). `override_text` (the value of
// ROOFTREE_THREADS) forces a number from 1 to 4096 when not empty; anything else in it is kInvalid.
Result<int> choose_thread_count(const CpuAllowance& allowance, std::string_view override_text);
// The same for this process and its environment.
Result<int> default_thread_count();

struct ThreadPoolOptions {
  int threads = 1;                      // calling thread included
  bool pin = true;                      // each worker to its own CPU; left out when there are more threads than CPUs
  bool pin_caller = false;              // also the constructing thread, until the pool is destroyed by the same thread
  std::chrono::microseconds spin{100};  // busy waiting before parking; forced to 0 when there are more threads than CPUs
};

class ThreadPool;

// One worker inside a region. In a nested region index = 0 and count = 1.
class Worker {
 public:
  int index;
  int count;

  // A team of one, for work that a caller has shared out itself.
  [[nodiscard]] static Worker alone() { return Worker(0, 1, nullptr); }

  // Returns when every worker of the region has called it. All workers must make the same sequence of barrier calls.
  void barrier() const;
  [[nodiscard]] Range share(std::int64_t n, std::int64_t grain = 1) const { return partition(n, count, index, grain); }

 private:
  friend class ThreadPool;
  Worker(int i, int c, ThreadPool* pool) : index(i), count(c), pool_(pool) {}
  ThreadPool* pool_;  // null in a nested region
};

class ThreadPool {
 public:
  explicit ThreadPool(const ThreadPoolOptions& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] bool pinned() const { return pinned_; }

  // Runs `region` once on every worker at the same time and returns when all have finished. Called inside a region (of any
  // pool) it runs inline as a team of one. Calls from several threads take turns.
  void run(FunctionRef<void(const Worker&)> region);

  // body(range, worker) once on every worker whose part of [0, n) is not empty.
  void parallel_for(std::int64_t n, FunctionRef<void(Range, const Worker&)> body, std::int64_t grain = 1);

  // A word that one thread sets to growing numbers (modulo 2^32) and others wait for.
  struct alignas(64) Event {
    std::atomic<std::uint32_t> value{0};
    std::atomic<std::uint32_t> sleepers{0};

    void set(std::uint32_t number);
    void wait_for(std::uint32_t number, std::chrono::nanoseconds spin);
  };

 private:
  friend class Worker;
  struct alignas(64) Slot {
    std::uint32_t barrier_epoch = 0;  // touched by its own worker only
  };

  void worker_main(int index);
  void execute(int index);
  void barrier(int index);

  int size_;
  bool pinned_ = false;
  std::chrono::nanoseconds spin_;
  int barrier_rounds_ = 0;  // ceil(log2(size))

  std::mutex one_region_at_a_time_;
  std::uint32_t epoch_ = 0;                                   // regions started; guarded by the mutex
  const FunctionRef<void(const Worker&)>* region_ = nullptr;  // published by start_
  std::atomic<bool> stop_{false};
  Event start_;
  std::unique_ptr<Event[]> done_;           // (size)
  std::unique_ptr<Event[]> barrier_flags_;  // (rounds, size)
  std::unique_ptr<Slot[]> slots_;           // (size)
  std::vector<std::thread> threads_;

  std::vector<int> caller_affinity_;  // to restore
  std::thread::id pinned_caller_;
};

}  // namespace rooftree

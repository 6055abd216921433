#include "base/thread_pool.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>

#include "base/check.h"

namespace rooftree {
namespace {

using Clock = std::chrono::steady_clock;

// Set while this thread runs a region of any pool.
thread_local bool t_in_region = false;

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` is a no-op on most cores; isb waits some tens of cycles
#endif
}

// The kernel compares and sleeps atomically; a wake-up may be spurious.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) {
  static_assert(sizeof(word) == sizeof(std::uint32_t) && std::atomic<std::uint32_t>::is_always_lock_free);
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void futex_wake_all(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

// value has reached number, in arithmetic modulo 2^32.
bool reached(std::uint32_t value, std::uint32_t number) { return static_cast<std::int32_t>(value - number) >= 0; }

std::vector<int> affinity_of_this_thread() {
  std::vector<int> cpus;
  // The mask may be larger than CPU_SETSIZE on big machines: grow until the kernel accepts it.
  for (int capacity = CPU_SETSIZE; capacity <= (1 << 18); capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(capacity);
    const std::size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, set);
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    if (ok) {
      for (int cpu = 0; cpu < capacity; ++cpu) {
        if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
      }
    }
    CPU_FREE(set);
    if (ok) break;
  }
  return cpus;
}

bool set_affinity_of_this_thread(const std::vector<int>& cpus) {
  const int capacity = cpus.empty() ? CPU_SETSIZE : *std::max_element(cpus.begin(), cpus.end()) + 1;
  cpu_set_t* set = CPU_ALLOC(capacity);
  const std::size_t bytes = CPU_ALLOC_SIZE(capacity);
  CPU_ZERO_S(bytes, set);
  for (const int cpu : cpus) CPU_SET_S(cpu, bytes, set);
  const bool ok = pthread_setaffinity_np(pthread_self(), bytes, set) == 0;
  CPU_FREE(set);
  return ok;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The tightest quota on the way from this process's control group to the root (v2; v1 as far as the mount is the usual one).
double cgroup_quota() {
  double tightest = 0.0;
  const auto consider = [&](double quota) {
    if (quota > 0.0 && (tightest == 0.0 || quota < tightest)) tightest = quota;
  };
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::/", 0) != 0) continue;
    for (std::string group = line.substr(3);; group.erase(group.rfind('/'))) {
      consider(parse_cgroup_cpu_max(first_line("/sys/fs/cgroup" + group + (group == "/" ? "" : "/") + "cpu.max")));
      if (group.rfind('/') == std::string::npos || group.empty() || group == "/") break;
    }
  }
  consider(parse_cgroup_cpu_max(first_line("/sys/fs/cgroup/cpu.max")));
  const std::string v1 = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  if (!v1.empty()) consider(parse_cgroup_cpu_max(v1 + " " + first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us")));
  return tightest;
}

}  // namespace

Range partition(std::int64_t n, int parts, int index, std::int64_t grain) {
  ROOFTREE_CHECK(n >= 0 && parts >= 1 && index >= 0 && index < parts && grain >= 1, "partition: arguments out of range");
  const std::int64_t grains = n / grain + (n % grain != 0 ? 1 : 0);
  const std::int64_t each = grains / parts, extra = grains % parts;
  const std::int64_t first = index * each + std::min<std::int64_t>(index, extra);
  const std::int64_t last = first + each + (index < extra ? 1 : 0);
  // A cut at or behind n / grain is n itself, so the products stay inside n.
  const auto cut = [&](std::int64_t g) { return g >= grains ? n : g * grain; };
  return {cut(first), cut(last)};
}

double parse_cgroup_cpu_max(std::string_view text) {
  double quota = 0.0, period = 0.0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, quota);
  if (error != std::errc{} || after == end || *after != ' ') return 0.0;
  const auto [last, error2] = std::from_chars(after + 1, end, period);
  if (error2 != std::errc{} || last != end || !(quota > 0.0) || !(period > 0.0)) return 0.0;
  return quota / period;
}

std::vector<int> parse_cpu_list(std::string_view text) {
  constexpr int kMaxCpu = 1 << 20;
  std::vector<int> cpus;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    int first = 0;
    auto result = std::from_chars(at, end, first);
    if (result.ec != std::errc{} || first < 0 || first >= kMaxCpu) return {};
    int last = first;
    at = result.ptr;
    if (at != end && *at == '-') {
      result = std::from_chars(at + 1, end, last);
      if (result.ec != std::errc{} || last < first || last >= kMaxCpu) return {};
      at = result.ptr;
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (at == end) break;
    if (*at != ',' || at + 1 == end) return {};
    ++at;
  }
  return cpus;
}

CpuAllowance cpu_allowance() {
  CpuAllowance allowance;
  std::vector<int> later;
  std::set<int> siblings_seen;
  for (const int cpu : affinity_of_this_thread()) {
    if (siblings_seen.contains(cpu)) {
      later.push_back(cpu);
      continue;
    }
    const std::string path = fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu);
    for (const int sibling : parse_cpu_list(first_line(path))) siblings_seen.insert(sibling);
    allowance.cpus.push_back(cpu);
  }
  allowance.cores = std::max(1, static_cast<int>(allowance.cpus.size()));
  allowance.cpus.insert(allowance.cpus.end(), later.begin(), later.end());
  if (allowance.cpus.empty()) allowance.cpus.push_back(0);
  allowance.quota = cgroup_quota();
  return allowance;
}

Result<int> choose_thread_count(const CpuAllowance& allowance, std::string_view override_text) {
  constexpr int kMaxThreads = 4096;
  if (!override_text.empty()) {
    int count = 0;
    const char* const end = override_text.data() + override_text.size();
    const auto [last, error] = std::from_chars(override_text.data(), end, count);
    if (error != std::errc{} || last != end || count < 1 || count > kMaxThreads) {
      return Error{ErrorCode::kInvalid, fmt::format("ROOFTREE_THREADS: '{}' is not a number of threads; expected 1 to {}",
                                                    override_text, kMaxThreads)};
    }
    return count;
  }
  int count = std::clamp(allowance.cores, 1, kMaxThreads);
  if (allowance.quota > 0.0) count = std::min(count, std::max(1, static_cast<int>(std::min(allowance.quota, 1e6))));
  return count;
}

Result<int> default_thread_count() {
  const char* forced = std::getenv("ROOFTREE_THREADS");
  return choose_thread_count(cpu_allowance(), forced == nullptr ? std::string_view{} : std::string_view{forced});
}

// Sequentially consistent on both sides: either the setter sees the sleeper, or the sleeper sees the new value (in the kernel).
void ThreadPool::Event::set(std::uint32_t number) {
  value.store(number, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) != 0) futex_wake_all(value);
}

void ThreadPool::Event::wait_for(std::uint32_t number, std::chrono::nanoseconds spin) {
  // A first burst without reading the clock; then until `spin` is over.
  for (int i = 0; i < 64; ++i) {
    if (reached(value.load(std::memory_order_acquire), number)) return;
    if (spin.count() > 0) cpu_relax();
  }
  if (spin.count() > 0) {
    const Clock::time_point deadline = Clock::now() + spin;
    do {
      for (int i = 0; i < 16; ++i) {
        if (reached(value.load(std::memory_order_acquire), number)) return;
        cpu_relax();
      }
    } while (Clock::now() < deadline);
  }
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  for (;;) {
    const std::uint32_t now = value.load(std::memory_order_seq_cst);
    if (reached(now, number)) break;
    futex_wait(value, now);
  }
  sleepers.fetch_sub(1, std::memory_order_relaxed);
}

void Worker::barrier() const {
  if (pool_ != nullptr) pool_->barrier(index);
}

ThreadPool::ThreadPool(const ThreadPoolOptions& options) : size_(options.threads), spin_(options.spin) {
  ROOFTREE_CHECK(size_ >= 1 && size_ <= 4096, "ThreadPool: 1 to 4096 threads");
  while ((1 << barrier_rounds_) < size_) ++barrier_rounds_;
  const auto count = static_cast<std::size_t>(size_);
  done_ = std::make_unique<Event[]>(count);
  barrier_flags_ = std::make_unique<Event[]>(count * static_cast<std::size_t>(barrier_rounds_));
  slots_ = std::make_unique<Slot[]>(count);

  const std::vector<int> cpus = cpu_allowance().cpus;
  const bool enough_cpus = cpus.size() >= count;
  // Spinning while the awaited thread needs this very CPU only delays it.
  if (!enough_cpus) spin_ = std::chrono::nanoseconds{0};
  pinned_ = options.pin && enough_cpus;
  if (pinned_ && options.pin_caller) {
    caller_affinity_ = affinity_of_this_thread();
    if (set_affinity_of_this_thread({cpus[0]})) pinned_caller_ = std::this_thread::get_id();
  }
  threads_.reserve(count - 1);
  for (int i = 1; i < size_; ++i) {
    const int cpu = pinned_ ? cpus[static_cast<std::size_t>(i)] : -1;
    threads_.emplace_back([this, i, cpu] {
      // A new thread inherits the caller's mask, which may be the one CPU that it was pinned to. Pinning can fail (the mask
      // may have changed since it was read); the thread is then merely slower to keep its caches.
      if (cpu >= 0) set_affinity_of_this_thread({cpu});
      done_[static_cast<std::size_t>(i)].set(1);
      worker_main(i);
    });
    done_[static_cast<std::size_t>(i)].wait_for(1, std::chrono::nanoseconds{0});
  }
  epoch_ = 1;
  start_.value.store(1, std::memory_order_relaxed);
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  start_.set(epoch_ + 1);
  for (std::thread& thread : threads_) thread.join();
  if (pinned_caller_ == std::this_thread::get_id()) set_affinity_of_this_thread(caller_affinity_);
}

void ThreadPool::execute(int index) {
  const Worker worker(index, size_, size_ > 1 ? this : nullptr);
  t_in_region = true;
  [&]() noexcept { (*region_)(worker); }();
  t_in_region = false;
}

void ThreadPool::worker_main(int index) {
  Event& done = done_[static_cast<std::size_t>(index)];
  for (std::uint32_t epoch = 2;; ++epoch) {
    start_.wait_for(epoch, spin_);
    if (stop_.load(std::memory_order_relaxed)) return;
    execute(index);
    done.set(epoch);
  }
}

void ThreadPool::run(FunctionRef<void(const Worker&)> region) {
  if (t_in_region) {
    [&]() noexcept { region(Worker(0, 1, nullptr)); }();
    return;
  }
  const std::lock_guard<std::mutex> lock(one_region_at_a_time_);
  region_ = &region;
  const std::uint32_t epoch = ++epoch_;
  if (size_ > 1) start_.set(epoch);
  execute(0);
  for (int i = 1; i < size_; ++i) done_[static_cast<std::size_t>(i)].wait_for(epoch, spin_);
  region_ = nullptr;
}

void ThreadPool::parallel_for(std::int64_t n, FunctionRef<void(Range, const Worker&)> body, std::int64_t grain) {
  if (n <= 0) return;
  run([&](const Worker& worker) {
    const Range range = worker.share(n, grain);
    if (range.size() > 0) body(range, worker);
  });
}

// Dissemination barrier (Hensgen, Finkel, Manber 1988): in round r worker w tells worker w + 2^r and waits for worker w - 2^r;
// after ceil(log2 n) rounds everybody has heard, directly or not, from everybody. Each flag has one writer and one reader.
void ThreadPool::barrier(int index) {
  const std::uint32_t epoch = ++slots_[static_cast<std::size_t>(index)].barrier_epoch;
  for (int round = 0; round < barrier_rounds_; ++round) {
    const int to = (index + (1 << round)) % size_;
    barrier_flags_[static_cast<std::size_t>(round * size_ + to)].set(epoch);
    barrier_flags_[static_cast<std::size_t>(round * size_ + index)].wait_for(epoch, spin_);
  }
}

}  // namespace rooftree

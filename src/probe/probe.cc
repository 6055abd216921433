#include "probe/probe.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <sstream>
#include <thread>

#include "base/philox.h"
#include "base/thread_pool.h"
#include "probe/buffer.h"
#include "probe/disk.h"
#include "probe/kernels.h"

namespace rooftree::probe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kKiB = 1024, kMiB = 1024 * kKiB, kLine = 64;
constexpr std::size_t kChunk = 64;                   // doubles: what the streaming kernels work in
constexpr double kSampleSeconds = 0.8e-3;            // short enough to fall between two time slices of somebody else
constexpr double kOvertime = 1.5;                    // times the budget, for quantities that a noisy machine hid
constexpr std::size_t kDramSampleBytes = 96 * kMiB;  // per sample with all threads, over all streams

double seconds_between(Clock::time_point a, Clock::time_point b) { return std::chrono::duration<double>(b - a).count(); }

std::size_t to_size(Bytes bytes) { return static_cast<std::size_t>(std::max(0.0, bytes.value())); }
std::size_t rounded_down(std::size_t n, std::size_t multiple) { return std::max(multiple, n / multiple * multiple); }

// CPU seconds since boot of the whole machine (waiting for the disk is not busy; time stolen by the host is), and of this
// process.
struct CpuTimes {
  double machine = 0.0, own = 0.0;
  Clock::time_point when;
};
CpuTimes cpu_times() {
  CpuTimes times;
  times.when = Clock::now();
  std::ifstream file("/proc/stat");
  std::string cpu;
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
  if (file >> cpu >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal) {
    times.machine = (user + nice + system + irq + softirq + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  times.own = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  return times;
}
double foreign_cpus(const CpuTimes& a, const CpuTimes& b) {
  const double elapsed = seconds_between(a.when, b.when);
  return elapsed > 0.0 ? std::max(0.0, ((b.machine - a.machine) - (b.own - a.own)) / elapsed) : 0.0;
}

// How often the kernel took the CPU away from this thread.
long preemptions() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[16];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d", &utc)};
}

// One quantity: takes a sample when asked, keeps them all.
struct Task {
  std::string what;
  Better better;
  std::function<double()> sample;
  std::function<void(const Statistic&)> finish;
  std::vector<double> values{};
};

// Results that the compiler must believe to be used.
struct alignas(64) PerWorker {
  std::uint64_t sink = 0;
  Clock::time_point start, end;
  bool preempted = false;
};

class Session {
 public:
  Session(const ProbeOptions& options, const CpuFeatures& features, Topology topology, int threads)
      : options_(options),
        features_(features),
        memory_(memory_kernels(features)),
        pool_({.threads = threads, .pin = true, .pin_caller = true}),
        per_worker_(static_cast<std::size_t>(threads)) {
    result_.topology = std::move(topology);
    result_.threads = threads;
    result_.date = today();
    result_.features = to_text(features);
    result_.isa = features.isa();
    result_.memory_isa = memory_.isa;
    result_.huge_pages = huge_pages_available();
  }

  Result<ProbeResult> run() {
    started_ = Clock::now();
    report(0.0, "preparing");
    prepare_topology();
    ROOFTREE_TRY_VOID(add_caches());
    ROOFTREE_TRY_VOID(add_main_memory());
    ROOFTREE_TRY_VOID(add_latency());
    add_arithmetic();
    add_threading();
    if (options_.disk) add_disk();
    ROOFTREE_TRY_VOID(take_samples());
    for (Task& task : tasks_) task.finish(summarize(task.values, task.better));
    finish_notes();
    result_.duration = Seconds{seconds_between(started_, Clock::now())};
    return std::move(result_);
  }

 private:
  void report(double fraction, std::string_view what) const {
    if (options_.progress != nullptr) options_.progress->update(fraction, what);
  }
  [[nodiscard]] bool cancelled() const { return options_.progress != nullptr && options_.progress->cancelled(); }

  // Pool of n threads, of which the first k work: seconds from the first start to the last end of `work`, which begins at once
  // on all after everybody's `prepare`.
  double timed(int k, FunctionRef<void(int)> prepare, FunctionRef<void(int)> work) {
    pool_.run([&](const Worker& w) {
      if (w.index < k) prepare(w.index);
      w.barrier();
      if (w.index >= k) return;
      PerWorker& me = per_worker_[static_cast<std::size_t>(w.index)];
      const long preempted_before = preemptions();
      me.start = Clock::now();
      work(w.index);
      me.end = Clock::now();
      me.preempted = preemptions() != preempted_before;
    });
    Clock::time_point first = per_worker_[0].start, last = per_worker_[0].end;
    for (int i = 1; i < k; ++i) {
      const PerWorker& other = per_worker_[static_cast<std::size_t>(i)];
      first = std::min(first, other.start);
      last = std::max(last, other.end);
      disturbed_ = disturbed_ || other.preempted;
    }
    return seconds_between(first, last);
  }

  // 1, 2, 4, … and n; or only 1 and n.
  [[nodiscard]] std::vector<int> thread_counts(bool between) const {
    std::vector<int> counts{1};
    for (int k = 2; between && k < pool_.size(); k *= 2) counts.push_back(k);
    if (pool_.size() > 1) counts.push_back(pool_.size());
    return counts;
  }

  void add(std::string what, Better better, std::function<double()> sample, std::function<void(const Statistic&)> finish) {
    tasks_.push_back({.what = std::move(what), .better = better, .sample = std::move(sample), .finish = std::move(finish)});
  }

  void prepare_topology() {
    if (result_.topology.caches.empty()) {
      const int cores = result_.topology.cores;
      result_.topology.caches = {{"L1", Bytes{32.0 * kKiB}, cores, 1}, {"L2", Bytes{512.0 * kKiB}, cores, 1}};
      result_.notes.emplace_back("the system does not report its caches: 32 KiB and 512 KiB per core were assumed");
    }
  }

  // What worker i of k streams over in level `index`: half of its share, so that everything else still fits.
  [[nodiscard]] std::size_t working_set(std::size_t index, int k) const {
    const std::vector<CacheLevel>& caches = result_.topology.caches;
    const double sharers = std::min(k, caches[index].cores_per_instance);
    double bytes = caches[index].capacity.value() / 2.0 / sharers;
    if (index > 0) {
      // Too near to the level below it would be served from there: go past that one (right for exclusive caches as well).
      const CacheLevel& nearer = caches[index - 1];
      const double nearer_share = nearer.capacity.value() / std::min(k, nearer.cores_per_instance);
      if (bytes < 2.0 * nearer_share) bytes += nearer_share;
    }
    return rounded_down(static_cast<std::size_t>(bytes), kChunk * sizeof(double) * 3);
  }

  Status add_caches() {
    const std::size_t levels = result_.topology.caches.size();
    cache_buffers_.resize(levels);
    for (std::size_t level = 0; level < levels; ++level) {
      std::vector<Buffer>& buffers = cache_buffers_[level];
      for (int i = 0; i < pool_.size(); ++i) {
        // Worker i takes part in samples of more than i threads; the fewer the threads, the larger the share.
        ROOFTREE_TRY(Buffer buffer, Buffer::allocate(working_set(level, i + 1) + 4 * kKiB));
        buffers.push_back(std::move(buffer));
      }
      pool_.run([&](const Worker& w) {
        const Buffer& mine = buffers[static_cast<std::size_t>(w.index)];
        memory_.write(mine.doubles(), mine.size() / sizeof(double), 1.0);
      });
      const bool last = level + 1 == levels;
      for (const Stream stream : {Stream::kRead, Stream::kWrite, Stream::kTriad}) {
        for (const int k : thread_counts(last && stream == Stream::kRead)) add_cache_task(level, stream, k);
      }
    }
    return Ok{};
  }

  // `count` passes of one stream over n doubles at p.
  void stream_passes(Stream stream, double* p, std::size_t n, std::int64_t count, PerWorker& me) const {
    const std::size_t third = rounded_down(n / 3, kChunk);
    // A store and the loads that follow it must not be equal modulo 4 KiB: CPUs take them for the same address.
    const std::size_t skew = third % 512 == 0 ? kChunk : 0;
    if (stream == Stream::kRead) {
      me.sink ^= memory_.read(p, n, count);
      return;
    }
    for (std::int64_t pass = 0; pass < count; ++pass) {
      switch (stream) {
        case Stream::kWrite:
          memory_.write(p, n, static_cast<double>(pass));
          break;
        default:
          memory_.triad(p, p + third + skew, p + 2 * (third + skew), third, 0.5);
          break;
      }
    }
  }

  void add_cache_task(std::size_t level, Stream stream, int k) {
    const std::size_t bytes = working_set(level, k);
    const std::size_t n = bytes / sizeof(double);
    const double moved = stream == Stream::kTriad ? 3.0 * static_cast<double>(rounded_down(n / 3, kChunk)) * sizeof(double)
                                                  : static_cast<double>(bytes);
    std::vector<Buffer>& buffers = cache_buffers_[level];
    add(
        fmt::format("{} {}", result_.topology.caches[level].name, name(stream)), Better::kHigher,
        [this, &buffers, stream, k, n, moved, length = SampleLength{}]() mutable {
          const auto stream_on = [&](int i, std::int64_t passes) {
            stream_passes(stream, buffers[static_cast<std::size_t>(i)].doubles(), n, passes, worker(i));
          };
          return moved * k * sample_rate(length, [&](std::int64_t passes) {
                   return timed(
                       k, [&](int i) { stream_on(i, 1); }, [&](int i) { stream_on(i, passes); });
                 });
        },
        [this, level, stream, k, bytes](const Statistic& s) {
          result_.bandwidth.push_back({result_.topology.caches[level].name, stream, k, Bytes{static_cast<double>(bytes)}, s});
        });
  }

  // How much of a task's work makes a sample of the right length. Learnt from the quickest sample seen, over the whole run: one
  // that was interrupted must not fix a length that is too short to measure anything.
  struct SampleLength {
    std::int64_t count = 1;
    double best_seconds_each = 1e9;
  };
  // measure(count) -> seconds. Returns units of work per second; 0 if no sample of the right length came about.
  static double sample_rate(SampleLength& length, FunctionRef<double(std::int64_t)> measure) {
    constexpr int kAttempts = 24;  // the length at least doubles: enough from one cycle to the length of a sample
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const double seconds = std::max(measure(length.count), 1e-9);
      const auto count = static_cast<double>(length.count);
      length.best_seconds_each = std::min(length.best_seconds_each, seconds / count);
      if (count * length.best_seconds_each >= 0.5 * kSampleSeconds) return count / seconds;
      length.count =
          static_cast<std::int64_t>(std::clamp(kSampleSeconds / length.best_seconds_each, 2.0 * count, 64.0 * count));
    }
    return 0.0;
  }

  PerWorker& worker(int i) { return per_worker_[static_cast<std::size_t>(i)]; }

  // Main memory: three arrays A; every sample works on the next window of them, so that nothing is met again before the whole
  // array went by. Worker i always works on its own part of a window, which it touched first.
  Status add_main_memory() {
    std::size_t last_cache = 0;
    for (const CacheLevel& c : result_.topology.caches) {
      last_cache = std::max(last_cache, to_size(c.capacity) * static_cast<std::size_t>(c.instances));
    }
    const auto threads = static_cast<std::size_t>(pool_.size());
    std::size_t array = to_size(options_.stream_array);
    if (array == 0) {
      array = std::max({4 * last_cache, 128 * kMiB, threads * 16 * kMiB});
      const std::size_t available = to_size(result_.topology.memory_available);
      if (available != 0 && array > available / 8) {
        array = available / 8;
        result_.notes.push_back(
            fmt::format("little free memory: arrays of {} MiB, expected {} MiB for certain misses in the caches", array / kMiB,
                        4 * last_cache / kMiB));
      }
    }
    // A triad sample moves three windows; a part is at least 64 KiB long.
    window_ = std::min(array, std::max(kDramSampleBytes / 3, threads * 2 * kMiB));
    window_ = rounded_down(window_, threads * 64 * kKiB);
    const std::size_t windows = std::max<std::size_t>(1, array / window_);
    array = windows * window_;
    for (Buffer& a : arrays_) {
      ROOFTREE_TRY(a, Buffer::allocate(array + 4 * kKiB));
    }
    pool_.run([&](const Worker& w) {
      for (std::size_t a = 0; a < arrays_.size(); ++a) {
        for (std::size_t i = 0; i < windows; ++i) {
          const Range r = w.share(static_cast<std::int64_t>(window_ / sizeof(double)), kChunk);
          memory_.write(part(a, i, r), static_cast<std::size_t>(r.size()), 1.0 + static_cast<double>(a));
        }
      }
    });
    // Wide registers are not always the fastest way to main memory: on Zen 4 a triad with 64-byte stores reached 37 GB/s in the
    // minutes in which one with 16-byte stores reached 41. Both are tried, the faster one is the limit.
    std::vector<const MemoryKernels*> kernel_sets{&memory_};
    if (features_.isa() != Isa::kPortable) kernel_sets.push_back(&portable_memory_);
    for (const MemoryKernels* kernels : kernel_sets) {
      for (const Stream stream : {Stream::kRead, Stream::kWrite, Stream::kTriad}) {
        for (const int k : thread_counts(stream == Stream::kRead)) add_main_memory_task(*kernels, stream, k, windows);
      }
    }
    if (memory_.write_streaming != nullptr) {
      for (const int k : thread_counts(false)) add_main_memory_task(memory_, Stream::kWriteStreaming, k, windows);
      for (const int k : thread_counts(true)) add_main_memory_task(memory_, Stream::kTriadStreaming, k, windows);
    }
    return Ok{};
  }

  // Part of window i of array a; the arrays are shifted against each other by 1 KiB (see stream_passes).
  double* part(std::size_t a, std::size_t i, Range r) {
    return arrays_[a].doubles() + a * 1024 / sizeof(double) + i * (window_ / sizeof(double)) +
           static_cast<std::size_t>(r.begin);
  }

  void add_main_memory_task(const MemoryKernels& kernels, Stream stream, int k, std::size_t windows) {
    const bool triad = stream == Stream::kTriad || stream == Stream::kTriadStreaming;
    const int n = pool_.size();
    // Windows per sample: three streams for reads and writes too; with fewer threads more windows, so that a sample of one
    // thread still lasts.
    const std::size_t steps = (triad ? 1 : 3) * std::max<std::size_t>(1, static_cast<std::size_t>(n / k / 2));
    const double working_set_bytes = static_cast<double>(windows * window_) * 3.0;
    add(
        fmt::format("DRAM {}", name(stream)), Better::kHigher,
        [this, &kernels, stream, triad, k, n, windows, steps, next = std::size_t{0}]() mutable {
          double bytes = 0.0;
          for (int i = 0; i < k; ++i) {
            bytes += static_cast<double>(partition(static_cast<std::int64_t>(window_ / sizeof(double)), n, i, kChunk).size());
          }
          bytes *= sizeof(double) * static_cast<double>(steps) * (triad ? 3.0 : 1.0);
          const double seconds = timed(
              k, [](int) {},
              [&](int i) {
                const Range r = partition(static_cast<std::int64_t>(window_ / sizeof(double)), n, i, kChunk);
                const auto size = static_cast<std::size_t>(r.size());
                for (std::size_t s = 0; s < steps; ++s) {
                  const std::size_t position = (next + s) % (windows * (triad ? 1 : 3));
                  double* const p = part(position / windows, position % windows, r);
                  switch (stream) {
                    case Stream::kRead:
                      worker(i).sink ^= kernels.read(p, size, 1);
                      break;
                    case Stream::kWrite:
                      kernels.write(p, size, 1.0);
                      break;
                    case Stream::kWriteStreaming:
                      kernels.write_streaming(p, size, 1.0);
                      break;
                    case Stream::kTriad:
                      kernels.triad(p, part(1, position, r), part(2, position, r), size, 0.5);
                      break;
                    case Stream::kTriadStreaming:
                      kernels.triad_streaming(p, part(1, position, r), part(2, position, r), size, 0.5);
                      break;
                  }
                }
              });
          next += steps;
          return bytes / seconds;
        },
        [this, stream, k, working_set_bytes](const Statistic& s) {
          const auto same = std::find_if(result_.bandwidth.begin(), result_.bandwidth.end(), [&](const BandwidthResult& b) {
            return b.level == "DRAM" && b.stream == stream && b.threads == k;
          });
          if (same == result_.bandwidth.end()) {
            result_.bandwidth.push_back({"DRAM", stream, k, Bytes{working_set_bytes}, s});
          } else if (s.quietest > same->bytes_per_second.quietest) {
            same->bytes_per_second = s;
          }
        });
  }

  // A random cycle through all lines of `bytes` (Sattolo's shuffle: one cycle, no short ones). Large sizes share one buffer:
  // chain number `slot` uses word `slot` of every line.
  static void* build_chain(std::byte* base, std::size_t bytes, std::size_t slot, std::uint64_t seed) {
    const auto lines = static_cast<std::uint32_t>(bytes / kLine);
    std::vector<std::uint32_t> order(lines);
    std::iota(order.begin(), order.end(), 0U);
    Philox rng(seed);
    for (std::uint32_t i = lines - 1; i > 0; --i) std::swap(order[i], order[rng.below(i)]);
    const auto word = [&](std::uint32_t line) {
      return static_cast<void**>(static_cast<void*>(base + std::size_t{line} * kLine + slot * sizeof(void*)));
    };
    for (std::uint32_t i = 0; i < lines; ++i) *word(i) = word(order[i]);
    return word(0);
  }

  Status add_latency() {
    constexpr std::size_t kOwnBufferLimit = 16 * kMiB;
    constexpr std::size_t kDenseLimit = 64 * kMiB;  // above, sizes double, so that eight chains fit into a line
    std::size_t last_cache = 0;
    for (const CacheLevel& c : result_.topology.caches) last_cache = std::max(last_cache, to_size(c.capacity));
    std::size_t largest = to_size(options_.latency_size_max);
    if (largest == 0) {
      largest = std::clamp(4 * last_cache, 128 * kMiB, 512 * kMiB);
      if (const std::size_t available = to_size(result_.topology.memory_available); available != 0) {
        largest = std::min(largest, available / 8);
      }
    }
    std::vector<std::size_t> sizes;
    for (double exponent = 12.0;; exponent += 0.5) {
      const std::size_t size = rounded_down(static_cast<std::size_t>(std::exp2(exponent)), 4 * kKiB);
      if (size > largest) break;
      if (size > kDenseLimit && exponent != std::floor(exponent)) continue;
      if (sizes.empty() || size != sizes.back()) sizes.push_back(size);
    }
    const bool shared_needed = sizes.back() > kOwnBufferLimit;
    if (shared_needed) {
      ROOFTREE_TRY(shared_chain_buffer_, Buffer::allocate(sizes.back()));
    }
    std::size_t slot = 0;
    for (const std::size_t size : sizes) {
      if (cancelled()) return interrupted();
      std::byte* base = shared_chain_buffer_.data();
      std::size_t word = 0;
      if (size > kOwnBufferLimit) {
        word = slot++;
        ROOFTREE_CHECK(word < kLine / sizeof(void*), "more large chains than words in a line");
      } else {
        ROOFTREE_TRY(Buffer own, Buffer::allocate(size));
        base = own.data();
        chain_buffers_.push_back(std::move(own));
      }
      void* const start = build_chain(base, size, word, size);
      const std::int64_t lines = static_cast<std::int64_t>(size / kLine);
      const bool may_stay_cached = size <= 2 * last_cache;
      const std::int64_t loads = lines <= 16384 ? 32768 : 8192;
      add(
          fmt::format("latency {} KiB", size / kKiB), Better::kLower,
          [this, base, size, may_stay_cached, lines, loads, at = start]() mutable {
            // Whatever can be in a cache is brought there: once in order, small ones also along the chain.
            if (may_stay_cached)
              worker(0).sink ^=
                  memory_.read(static_cast<const double*>(static_cast<const void*>(base)), size / sizeof(double), 1);
            if (lines <= 16384) at = chase(at, lines);
            const Clock::time_point begin = Clock::now();
            at = chase(at, loads);
            return seconds_between(begin, Clock::now()) / static_cast<double>(loads);
          },
          [this, size](const Statistic& s) {
            result_.latency.push_back({Bytes{static_cast<double>(size)}, s});
          });
    }
    add(
        "clock", Better::kHigher,
        [] {
          const Clock::time_point begin = Clock::now();
          const std::int64_t adds = dependent_adds(1 << 20);
          return static_cast<double>(adds) / seconds_between(begin, Clock::now());
        },
        [this](const Statistic& s) { result_.clock_hertz = s; });
    return Ok{};
  }

  void add_arithmetic() {
    for (const ArithmeticKernel& kernel : arithmetic_kernels(features_)) {
      for (const int k : thread_counts(false)) {
        add(
            fmt::format("{} {}", name(kernel.type), kernel.isa), Better::kHigher,
            [this, kernel, k, length = SampleLength{.count = 16}]() mutable {
              const auto run_on = [&](int i, std::int64_t count) { worker(i).sink ^= kernel.run(count) != 0.0 ? 1U : 0U; };
              // A short run before the clock starts: wide vector units may need to be powered up.
              return kernel.flop_per_iteration * k * sample_rate(length, [&](std::int64_t count) {
                       return timed(
                           k, [&](int i) { run_on(i, count / 8 + 1); }, [&](int i) { run_on(i, count); });
                     });
            },
            [this, kernel, k](const Statistic& s) {
              result_.arithmetic.push_back({kernel.type, kernel.isa, kernel.instruction, kernel.matrix, k, s});
            });
      }
    }
  }

  void add_threading() {
    if (pool_.size() == 1) return;
    add(
        "fork and join", Better::kLower,
        [this] {
          constexpr int kRegions = 200;
          pool_.run([](const Worker&) {});
          const Clock::time_point begin = Clock::now();
          for (int i = 0; i < kRegions; ++i) pool_.run([](const Worker&) {});
          return seconds_between(begin, Clock::now()) / kRegions;
        },
        [this](const Statistic& s) { result_.fork_join_seconds = s; });
    add(
        "barrier", Better::kLower,
        [this] {
          constexpr int kBarriers = 1000;
          double seconds = 0.0;
          pool_.run([&](const Worker& w) {
            w.barrier();
            const Clock::time_point begin = Clock::now();
            for (int i = 0; i < kBarriers; ++i) w.barrier();
            if (w.index == 0) seconds = seconds_between(begin, Clock::now());
          });
          return seconds / kBarriers;
        },
        [this](const Statistic& s) { result_.barrier_seconds = s; });
    add(
        "wake-up", Better::kLower,
        [this] {
          std::this_thread::sleep_for(std::chrono::microseconds(400));  // longer than the pool spins
          const Clock::time_point begin = Clock::now();
          pool_.run([](const Worker&) {});
          return seconds_between(begin, Clock::now());
        },
        [this](const Statistic& s) { result_.wake_seconds = s; });
  }

  // A machine without a writable cache directory is still measured; the note says what is missing.
  void add_disk() {
    const Result<std::filesystem::path> directory = cache_directory();
    if (!directory) {
      result_.notes.push_back("disk not measured: " + directory.error().message);
      return;
    }
    report(0.0, "writing a temporary file");
    Result<DiskFile> file = DiskFile::create(*directory, to_size(options_.disk_file), Seconds{2.0});
    if (!file) {
      result_.notes.push_back("disk not measured: " + file.error().message);
      return;
    }
    disk_ = std::make_unique<DiskFile>(std::move(file).value());
    result_.disk = DiskResult{.direct = disk_->direct(),
                              .file = Bytes{static_cast<double>(disk_->size())},
                              .read_bytes_per_second = {},
                              .page_cache_bytes_per_second = {},
                              .capacity = disk_->file_system_capacity(),
                              .directory = directory->string()};
    add(
        "disk", Better::kHigher, [this] { return disk_->read_device(2); },
        [this](const Statistic& s) { result_.disk->read_bytes_per_second = s; });
    add(
        "page cache", Better::kHigher, [this] { return disk_->read_page_cache(2); },
        [this](const Statistic& s) { result_.disk->page_cache_bytes_per_second = s; });
  }

  [[nodiscard]] static Error interrupted() {
    return Error{ErrorCode::kEnvironment, "probe: interrupted; the machine description kept so far is unchanged"};
  }

  // A sample that somebody interrupted is kept (the quartiles shall show it) and taken again at once, when the CPU has just
  // been given back for a while.
  void take(Task& task) {
    constexpr int kAttempts = 3;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      disturbed_ = false;
      const long before = preemptions();
      task.values.push_back(task.sample());
      if (!disturbed_ && preemptions() == before) break;
    }
  }

  Status take_samples() {
    const CpuTimes before = cpu_times();
    CpuTimes round_before = before;
    const double budget = options_.budget.value();
    double elapsed = 0.0;
    std::vector<Task*> wanted;
    for (Task& task : tasks_) wanted.push_back(&task);
    do {
      // Each round starts elsewhere, so that no task always follows the same one at the same beat.
      const std::size_t first = static_cast<std::size_t>(result_.rounds) * 7 % wanted.size();
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (cancelled()) return interrupted();
        Task& task = *wanted[(first + i) % wanted.size()];
        take(task);
        elapsed = seconds_between(started_, Clock::now());
        report(elapsed / std::max(budget, 1e-3), task.what);
      }
      ++result_.rounds;
      const CpuTimes now = cpu_times();
      result_.foreign_cpus_worst = std::max(result_.foreign_cpus_worst, foreign_cpus(round_before, now));
      round_before = now;
      // Over time, only what has not shown its limit three times yet is worth more.
      if (elapsed >= budget) {
        std::erase_if(wanted, [](const Task* t) { return summarize(t->values, t->better).confirmed(); });
      }
    } while (elapsed < budget || (!wanted.empty() && elapsed < kOvertime * budget));
    for (const Task* task : wanted) {
      if (!summarize(task->values, task->better).confirmed()) ++unconfirmed_;
    }
    result_.foreign_cpus = foreign_cpus(before, round_before);
    return Ok{};
  }

  void finish_notes() {
    std::vector<LatencyPoint> curve;
    for (const LatencyResult& point : result_.latency) curve.push_back({point.size, Seconds{point.seconds.quietest}});
    std::sort(curve.begin(), curve.end(), [](const LatencyPoint& a, const LatencyPoint& b) { return a.size < b.size; });
    result_.plateaus = find_plateaus(curve);
    for (std::string& note :
         compare_with_reported(result_.plateaus, result_.topology.caches, result_.topology.virtual_machine)) {
      result_.notes.push_back(std::move(note));
    }
    if (result_.foreign_cpus > 0.05) {
      result_.notes.push_back(
          fmt::format("others used {:.2f} CPUs on average while this was measured ({:.2f} in the worst round): the quietest "
                      "samples stand, but "
                      "trust them less than on a quiet machine",
                      result_.foreign_cpus, result_.foreign_cpus_worst));
    }
    if (unconfirmed_ > 0) {
      result_.notes.push_back(
          fmt::format("{} of {} quantities did not show their limit three times within 5 % (marked ? here, doubtful in the "
                      "machine file): run "
                      "the probe again when the machine is quieter",
                      unconfirmed_, tasks_.size()));
    }
    if (!result_.huge_pages) {
      result_.notes.emplace_back("no 2 MiB pages to be had: latencies of large sizes include address translation");
    }
    if (!pool_.pinned()) {
      result_.notes.push_back(fmt::format("{} threads on {} CPUs: not pinned, rates with all threads are not limits",
                                          pool_.size(), result_.topology.hardware_threads));
    }
    if (result_.disk && !result_.disk->direct) {
      result_.notes.emplace_back(
          "disk: the file system has no direct reads; the page cache was asked to forget the file instead");
    }
  }

  const ProbeOptions& options_;
  Clock::time_point started_;
  CpuFeatures features_;
  MemoryKernels memory_;
  MemoryKernels portable_memory_ = memory_kernels(CpuFeatures{});
  ThreadPool pool_;
  std::vector<PerWorker> per_worker_;
  std::vector<std::vector<Buffer>> cache_buffers_;  // (levels, threads)
  std::array<Buffer, 3> arrays_;
  std::size_t window_ = 0;  // bytes of one array that a sample of all threads covers
  std::vector<Buffer> chain_buffers_;
  Buffer shared_chain_buffer_;
  std::unique_ptr<DiskFile> disk_;
  std::vector<Task> tasks_;
  bool disturbed_ = false;  // some worker lost its CPU during the sample
  int unconfirmed_ = 0;
  ProbeResult result_;
};

}  // namespace

std::string_view name(Stream stream) {
  constexpr std::array<std::string_view, 5> kNames = {"read", "write", "write_streaming", "triad", "triad_streaming"};
  return kNames[static_cast<std::size_t>(stream)];
}

ProbeOptions quick_options() {
  ProbeOptions options;
  options.budget = Seconds{5.0};
  options.disk_file = Bytes{32.0 * kMiB};
  return options;
}

const BandwidthResult* ProbeResult::find(std::string_view level, Stream stream, int thread_count) const {
  for (const BandwidthResult& b : bandwidth) {
    if (b.level == level && b.stream == stream && b.threads == thread_count && b.bytes_per_second.samples > 0) return &b;
  }
  return nullptr;
}

Result<ProbeResult> run_probe(const ProbeOptions& options) {
  ROOFTREE_TRY(const CpuFeatures features, usable_cpu_features());
  int threads = options.threads;
  if (threads == 0) {
    ROOFTREE_TRY(threads, default_thread_count());
  }
  if (threads < 1 || threads > 4096) {
    return Error{ErrorCode::kInvalid, fmt::format("probe: {} threads; expected 1 to 4096", threads)};
  }
  Topology topology = read_topology();  // before the pool pins this thread
  return Session(options, features, std::move(topology), threads).run();
}

}  // namespace rooftree::probe

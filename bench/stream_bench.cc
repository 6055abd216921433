// An independent check of `rooftree probe`: a STREAM-like program with its own plain loops (copy, scale, add, triad and a sum),
// std::thread, and nothing but the compiler's vectoriser; it shares no code with src/probe. It takes turns with the probe, so
// that both see the same minutes of a shared machine, and prints the ratio of their quietest samples.
//
//   stream_bench [--rounds N] [--probe-seconds S] [--threads N] [--array-mib N]
//
// Exit code 0 if the reads and triads agree within 10 %, 1 if not (on a noisy machine: run it again).

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "probe/probe.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Freed {
  void operator()(double* p) const { std::free(p); }
};
using Array = std::unique_ptr<double[], Freed>;

enum Kernel : std::size_t { kCopy, kScale, kAdd, kTriad, kSum, kKernels };
constexpr const char* kNames[kKernels] = {"copy", "scale", "add", "triad", "sum"};
constexpr double kStreams[kKernels] = {2, 2, 3, 3, 1};

// The loops, over [begin, end).
double run_kernel(Kernel kernel, double* __restrict a, double* __restrict b, double* __restrict c, std::size_t begin,
                  std::size_t end) {
  const double scalar = 3.0;
  switch (kernel) {
    case kCopy:
      for (std::size_t i = begin; i < end; ++i) c[i] = a[i];
      return 0.0;
    case kScale:
      for (std::size_t i = begin; i < end; ++i) b[i] = scalar * c[i];
      return 0.0;
    case kAdd:
      for (std::size_t i = begin; i < end; ++i) c[i] = a[i] + b[i];
      return 0.0;
    case kTriad:
      for (std::size_t i = begin; i < end; ++i) a[i] = b[i] + scalar * c[i];
      return 0.0;
    default: {
      // Independent sums: the compiler may not reorder floating-point additions by itself.
      double s[16] = {};
      std::size_t i = begin;
      for (; i + 16 <= end; i += 16) {
        for (std::size_t j = 0; j < 16; ++j) s[j] += a[i + j];
      }
      double sum = 0.0;
      for (const double v : s) sum += v;
      for (; i < end; ++i) sum += a[i];
      return sum;
    }
  }
}

class Stream {
 public:
  Stream(std::size_t n, int threads) : n_(n), threads_(threads), a_(make(n)), b_(make(n)), c_(make(n)) {
    // First touch by the thread that will use the part.
    run_threads([&](int t) {
      const auto [begin, end] = part(t, n_);
      for (std::size_t i = begin; i < end; ++i) {
        a_[i] = 1.0;
        b_[i] = 2.0;
        c_[i] = 0.0;
      }
    });
  }

  // Every kernel over the whole arrays, `repeats` times in turn, timed segment by segment: a segment of 32 MiB per array lasts
  // a millisecond or two, so that on a shared machine some segments pass undisturbed. Keeps the rate of every segment.
  void round(int repeats) {
    const std::size_t segment = std::min(n_, std::size_t{32} << 17);
    std::vector<Times> times(static_cast<std::size_t>(threads_));
    std::atomic<int> arrived{0};
    std::atomic<double> sink{0.0};
    const auto wait_for_all = [&](int number) {
      arrived.fetch_add(1);
      while (arrived.load() < number * threads_) std::this_thread::yield();
    };
    run_threads([&](int t) {
      int mine = 0;
      for (int r = 0; r < repeats; ++r) {
        for (std::size_t k = 0; k < kKernels; ++k) {
          for (std::size_t first = 0; first + segment <= n_; first += segment) {
            const auto [begin, end] = part(t, segment);
            Times& my = times[static_cast<std::size_t>(t)];
            wait_for_all(++mine);
            my.start = Clock::now();
            const double sum = run_kernel(static_cast<Kernel>(k), a_.get(), b_.get(), c_.get(), first + begin, first + end);
            my.end = Clock::now();
            if (k == kSum) sink.store(sum, std::memory_order_relaxed);
            wait_for_all(++mine);
            if (t == 0) {
              Clock::time_point start = times[0].start, last = times[0].end;
              for (const Times& other : times) {
                start = std::min(start, other.start);
                last = std::max(last, other.end);
              }
              rates_[k].push_back(kStreams[k] * static_cast<double>(segment) * sizeof(double) /
                                  std::chrono::duration<double>(last - start).count());
            }
          }
        }
      }
    });
  }

  [[nodiscard]] double best(Kernel k) const { return *std::max_element(rates_[k].begin(), rates_[k].end()); }
  [[nodiscard]] double median(Kernel k) const {
    std::vector<double> sorted = rates_[k];
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

 private:
  static Array make(std::size_t n) {
    void* p = std::aligned_alloc(std::size_t{2} << 20, (n * sizeof(double) + (std::size_t{2} << 20) - 1) >> 21 << 21);
    if (p == nullptr) {
      fmt::print(stderr, "stream_bench: no memory for {} MiB\n", n >> 17);
      std::exit(3);
    }
    madvise(p, n * sizeof(double), MADV_HUGEPAGE);  // as the probe's arrays
    return Array(static_cast<double*>(p));
  }
  struct alignas(64) Times {
    Clock::time_point start, end;
  };
  // Thread t's share of n elements.
  [[nodiscard]] std::pair<std::size_t, std::size_t> part(int t, std::size_t n) const {
    const auto count = static_cast<std::size_t>(threads_), index = static_cast<std::size_t>(t);
    return {n * index / count, n * (index + 1) / count};
  }
  template <class F>
  void run_threads(F body) {
    std::vector<std::thread> threads;
    for (int t = 0; t < threads_; ++t) threads.emplace_back([=] { body(t); });
    for (std::thread& t : threads) t.join();
  }

  std::size_t n_;
  int threads_;
  Array a_, b_, c_;
  std::vector<double> rates_[kKernels];
};

double number_after(int argc, char** argv, const char* flag, double otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], flag) == 0) return std::atof(argv[i + 1]);
  }
  return otherwise;
}

// Best of the rounds so far, of the probe.
struct Best {
  double read = 0, triad = 0, triad_streaming = 0;
  void take(const rooftree::probe::ProbeResult& r, int threads) {
    using rooftree::probe::Stream;
    const auto rate = [&](Stream s) {
      const auto* b = r.find("DRAM", s, threads);
      return b == nullptr ? 0.0 : b->bytes_per_second.quietest;
    };
    read = std::max(read, rate(Stream::kRead));
    triad = std::max(triad, rate(Stream::kTriad));
    triad_streaming = std::max(triad_streaming, rate(Stream::kTriadStreaming));
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = static_cast<int>(number_after(argc, argv, "--rounds", 3));
  const double probe_seconds = number_after(argc, argv, "--probe-seconds", 5);
  const auto mib = static_cast<std::size_t>(number_after(argc, argv, "--array-mib", 128));
  const int threads = static_cast<int>(
      number_after(argc, argv, "--threads", static_cast<double>(std::max(1U, std::thread::hardware_concurrency()))));

  Stream stream(mib << 17, threads);
  Best probe;
  double foreign = 0.0;
  for (int r = 0; r < rounds; ++r) {
    stream.round(20);
    rooftree::probe::ProbeOptions options;
    options.threads = threads;
    options.budget = rooftree::Seconds{probe_seconds};
    options.disk = false;
    const auto result = rooftree::probe::run_probe(options);
    if (!result) {
      fmt::print(stderr, "stream_bench: {}\n", result.error().message);
      return 3;
    }
    probe.take(*result, threads);
    foreign = std::max(foreign, result->foreign_cpus);
    stream.round(20);
  }

  fmt::print("{} threads, arrays of {} MiB, {} rounds in turns; others used up to {:.2f} CPUs\n", threads, mib, rounds,
             foreign);
  fmt::print("  {:<8} {:>12} {:>12}\n", "loop", "best GB/s", "median GB/s");
  for (std::size_t k = 0; k < kKernels; ++k) {
    fmt::print("  {:<8} {:>12.1f} {:>12.1f}\n", kNames[k], stream.best(static_cast<Kernel>(k)) / 1e9,
               stream.median(static_cast<Kernel>(k)) / 1e9);
  }
  fmt::print("  {:<28} {:>8} {:>8} {:>8}\n", "probe against plain loops", "probe", "loops", "ratio");
  bool agree = true;
  const auto compare = [&](const char* what, double ours, double theirs, bool counts) {
    const double ratio = ours / theirs;
    if (counts) agree = agree && ratio > 0.9 && ratio < 1.1;
    fmt::print("  {:<28} {:>8.1f} {:>8.1f} {:>8.3f}{}\n", what, ours / 1e9, theirs / 1e9, ratio,
               counts ? "" : "  (not judged)");
  };
  compare("read against sum", probe.read, stream.best(kSum), true);
  compare("triad, ordinary stores", probe.triad, stream.best(kTriad), true);
  // Plain loops have no stores past the caches: their triad also reads what it overwrites, so four streams for three counted.
  if (probe.triad_streaming > 0) {
    compare("triad past the caches x 3/4", probe.triad_streaming * 0.75, stream.best(kTriad), false);
  }
  fmt::print("{}\n", agree ? "agree within 10 %" : "DISAGREE by more than 10 %");
  return agree ? 0 : 1;
}

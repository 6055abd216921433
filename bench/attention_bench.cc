// Attention against the limits of the machine in the same seconds: every repetition runs a read probe over the same bytes and a
// peak probe of the bf16 instruction beside the kernels; ratios are taken per repetition, because both limits drift on shared
// machines.
//
//   attention_bench [--threads N] [--repetitions N] [--mib N] [--clock wall|cpu] [--types bf16,f16,...]
//
// Decode: one token of one sequence in layers enough to fill --mib MiB of cache; the share is the time that the read probe
// takes for the keys and values read, by the kernel's time. Prefill: causal attention of a prompt, useful operations
// (4 x heads x head_dim x pairs) as a share of the bf16 peak (of fp32's where there is no bf16 instruction). Medians and
// quartiles.

#include <fmt/format.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "kernels/cpu/tables.h"
#include "probe/kernels.h"

namespace {

using namespace rooftree;
using kernels::AttentionArgs;
using kernels::KvCache;
using kernels::KvShape;
using kernels::SequenceRows;
using kernels::cpu::AttentionKernels;

// Zeroed memory in large pages where the system gives them.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_((bytes + kPage) / kPage * kPage) {
    data_ = static_cast<std::byte*>(std::aligned_alloc(kPage, bytes_));
    madvise(data_, bytes_, MADV_HUGEPAGE);
    std::memset(data_, 0, bytes_);
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  static constexpr std::size_t kPage = std::size_t{2} << 20;
  std::size_t bytes_;
  std::byte* data_;
};

// Wall clock, or with --clock cpu this thread's processor time: what one thread would take on a core of its own.
bool cpu_clock = false;
double now() {
  timespec t{};
  clock_gettime(cpu_clock ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
template <class Body>
double seconds(const Body& body) {
  const double start = now();
  body();
  return now() - start;
}

std::string shares(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) { return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)]; };
  return fmt::format("{:5.3f} ({:5.3f}-{:5.3f})", at(0.5), at(0.25), at(0.75));
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Heads {
  const char* of;
  std::int64_t heads, kv_heads, head_dim, value_dim;
};
constexpr std::array<Heads, 3> kHeads = {{{"1.1B, 32/4 heads of 64", 32, 4, 64, 64},
                                          {"8B, 32/8 heads of 128", 32, 8, 128, 128},
                                          {"MLA, 16/1 heads of 576, 512", 16, 1, 576, 512}}};
constexpr std::int64_t kPageTokens = 64;

struct Options {
  int threads = 0, repetitions = 9;
  std::int64_t mib = 160;
  std::vector<DType> types = {DType::kBf16, DType::kF16, DType::kF32, DType::kQ8_0, DType::kQ4_0};
};

class Bench {
 public:
  Bench(ThreadPool& pool, const CpuFeatures& features, const Options& options)
      : pool_(pool),
        options_(options),
        kernels_(kernels::cpu::attention_kernels(features)),
        memory_(probe::memory_kernels(features)) {
    for (const Arithmetic type : {Arithmetic::kBf16, Arithmetic::kFp32}) {
      for (const probe::ArithmeticKernel& kernel : probe::arithmetic_kernels(features)) {
        if (kernel.type == type && !kernel.matrix && kernel.flop_per_iteration > peak_.flop_per_iteration) peak_ = kernel;
      }
      if (peak_.run != nullptr) break;
    }
  }
  [[nodiscard]] const char* instruction() const { return peak_.instruction; }

  void decode(DType type, const Heads& h, std::int64_t context) {
    const KvShape shape = shape_of(type, h);
    const std::size_t page_bytes = kernels_.page_bytes(shape);
    if (page_bytes == 0) return;
    const std::int64_t pages = context / kPageTokens;
    const auto layer_bytes = static_cast<std::int64_t>(page_bytes) * pages;
    const std::int64_t layers = std::max<std::int64_t>(1, (options_.mib << 20) / layer_bytes);
    const Memory cache(static_cast<std::size_t>(layers * layer_bytes));
    const std::vector<std::int32_t> table = fill(shape, cache, layers, pages);
    const Memory q(static_cast<std::size_t>(h.heads * h.head_dim) * 4), y(static_cast<std::size_t>(h.heads * h.value_dim) * 4);
    randomize(q.floats(), h.heads * h.head_dim);

    std::vector<double> share, times;
    for (int repetition = 0; repetition <= options_.repetitions; ++repetition) {
      const double before = read(cache, layers * layer_bytes);
      const double s = seconds([&] {
        for (std::int64_t layer = 0; layer < layers; ++layer) {
          const SequenceRows rows{0, 1, context - 1, table.data()};
          pool_.run([&](const Worker& w) {
            kernels_.attend(w, arguments(shape, h, cache.data() + layer * layer_bytes, page_bytes, {&rows, 1}, q, y));
          });
        }
      });
      if (repetition == 0) continue;  // warm-up
      share.push_back((before + read(cache, layers * layer_bytes)) / 2 / s);
      times.push_back(s / static_cast<double>(layers));
    }
    fmt::print("decode   {:6} {:28} {:6}  {:8.1f} us/layer  {:5.1f} GB/s  {} of the read\n", name(type), h.of, context,
               median(times) * 1e6, static_cast<double>(layer_bytes) / median(times) * 1e-9, shares(share));
    std::fflush(stdout);
  }

  void prefill(DType type, const Heads& h, std::int64_t tokens) {
    const KvShape shape = shape_of(type, h);
    const std::size_t page_bytes = kernels_.page_bytes(shape);
    if (page_bytes == 0) return;
    const std::int64_t pages = tokens / kPageTokens;
    const Memory cache(page_bytes * static_cast<std::size_t>(pages));
    const std::vector<std::int32_t> table = fill(shape, cache, 1, pages);
    const Memory q(static_cast<std::size_t>(tokens * h.heads * h.head_dim) * 4);
    const Memory y(static_cast<std::size_t>(tokens * h.heads * h.value_dim) * 4);
    randomize(q.floats(), tokens * h.heads * h.head_dim);
    const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens + 1) / 2;
    const double flop = 2.0 * static_cast<double>(h.heads * (h.head_dim + h.value_dim)) * pairs;

    std::vector<double> share, times;
    for (int repetition = 0; repetition <= options_.repetitions; ++repetition) {
      const double before = peak();
      const SequenceRows rows{0, tokens, 0, table.data()};
      const double s = seconds([&] {
        pool_.run([&](const Worker& w) {
          kernels_.attend(w, arguments(shape, h, cache.data(), page_bytes, {&rows, 1}, q, y));
        });
      });
      if (repetition == 0) continue;
      share.push_back(flop / s / ((before + peak()) / 2));
      times.push_back(s);
    }
    fmt::print("prefill  {:6} {:28} {:6}  {:8.2f} ms/layer  {:5.0f} GFLOP/s  {} of the peak\n", name(type), h.of, tokens,
               median(times) * 1e3, flop / median(times) * 1e-9, shares(share));
    std::fflush(stdout);
  }

 private:
  static KvShape shape_of(DType type, const Heads& h) {
    return {.type = type, .kv_heads = h.kv_heads, .head_dim = h.head_dim, .value_dim = h.value_dim, .page_tokens = kPageTokens};
  }
  static void randomize(float* x, std::int64_t n) {
    Philox random(1, 0);
    for (std::int64_t i = 0; i < n; ++i) x[i] = random.uniform_float() - 0.5F;
  }
  // Pages in order; the first position's row is written everywhere.
  std::vector<std::int32_t> fill(const KvShape& shape, const Memory& cache, std::int64_t layers, std::int64_t pages) {
    const std::size_t page_bytes = kernels_.page_bytes(shape);
    std::vector<std::int32_t> table;
    for (std::int64_t i = 0; i < pages; ++i) table.push_back(static_cast<std::int32_t>(i));
    const std::int64_t k_width = shape.kv_heads * shape.head_dim, v_width = shape.kv_heads * shape.value_dim;
    std::vector<float> k(static_cast<std::size_t>(kPageTokens * k_width)), v(static_cast<std::size_t>(kPageTokens * v_width));
    randomize(k.data(), kPageTokens * k_width);
    randomize(v.data(), kPageTokens * v_width);
    const SequenceRows rows{0, kPageTokens, 0, table.data()};
    pool_.run([&](const Worker& w) {
      kernels_.write(w, {.cache = {shape, cache.data(), page_bytes},
                         .sequences = {&rows, 1},
                         .k = {k.data(), k_width},
                         .v = {v.data(), v_width}});
    });
    for (std::int64_t i = 1; i < layers * pages; ++i) {
      std::memcpy(cache.data() + static_cast<std::size_t>(i) * page_bytes, cache.data(), page_bytes);
    }
    return table;
  }
  static AttentionArgs arguments(const KvShape& shape, const Heads& h, std::byte* base, std::size_t page_bytes,
                                 std::span<const SequenceRows> rows, const Memory& q, const Memory& y) {
    return {.cache = {shape, base, page_bytes},
            .sequences = rows,
            .heads = h.heads,
            .q = {q.floats(), h.heads * h.head_dim},
            .y = {y.floats(), h.heads * h.value_dim},
            .scale = 0.125F};
  }
  // Seconds for reading the bytes once.
  double read(const Memory& memory, std::int64_t bytes) {
    return seconds([&] {
      pool_.run([&](const Worker& w) {
        const Range share = w.share(bytes / 8, 64);
        memory_.read(reinterpret_cast<const double*>(memory.data()) + share.begin, static_cast<std::size_t>(share.size()), 1);
      });
    });
  }
  // Operations per second.
  double peak() {
    constexpr std::int64_t kIterations = 300'000;
    const double s = seconds([&] { pool_.run([&](const Worker&) { peak_.run(kIterations); }); });
    return static_cast<double>(kIterations) * peak_.flop_per_iteration * pool_.size() / s;
  }

  ThreadPool& pool_;
  Options options_;
  const AttentionKernels& kernels_;
  probe::MemoryKernels memory_;
  probe::ArithmeticKernel peak_{};
};

int usage() {
  fmt::print(stderr,
             "usage: attention_bench [--threads N] [--repetitions N] [--mib N] [--clock wall|cpu] [--types bf16,...]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc) return usage();
    const std::string_view flag = argv[i], value = argv[i + 1];
    if (flag == "--threads") {
      options.threads = std::atoi(argv[i + 1]);
    } else if (flag == "--repetitions") {
      options.repetitions = std::max(1, std::atoi(argv[i + 1]));
    } else if (flag == "--mib") {
      options.mib = std::max(1, std::atoi(argv[i + 1]));
    } else if (flag == "--clock") {
      cpu_clock = value == "cpu";
    } else if (flag == "--types") {
      options.types.clear();
      for (std::size_t begin = 0; begin <= value.size();) {
        const std::size_t end = std::min(value.find(',', begin), value.size());
        const auto type = parse_dtype(value.substr(begin, end - begin));
        if (!type) return usage();
        options.types.push_back(*type);
        begin = end + 1;
      }
    } else {
      return usage();
    }
  }
  const auto features = usable_cpu_features();
  const auto threads = default_thread_count();
  if (!features || !threads) return usage();
  if (options.threads < 1) options.threads = cpu_clock ? 1 : *threads;
  ThreadPool pool({.threads = options.threads, .pin = true, .pin_caller = true});
  Bench bench(pool, *features, options);
  fmt::print("{} threads, {}, peak of {}\n", pool.size(), to_text(*features), bench.instruction());
  for (const DType type : options.types) {
    for (const Heads& heads : kHeads) {
      for (const std::int64_t context : {512, 2048, 8192, 32768}) bench.decode(type, heads, context);
      for (const std::int64_t tokens : {512, 1024, 4096}) {
        if (heads.kv_heads > 1 || tokens < 4096) bench.prefill(type, heads, tokens);
      }
    }
  }
  return 0;
}

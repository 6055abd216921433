// Products with stored weights against the limits of the machine in the same seconds: every repetition runs a read probe over
// memory and a peak probe of the multiplying instruction between the products, and ratios are taken per repetition, because
// both limits drift on shared machines.
//
//   product_bench [--threads N] [--repetitions N] [--mib N] [--k N] [--clock wall|cpu] [--types q4_0,q8_0,...]
//
// Columns: memory read rate of the probe; share of it that batch 1 reaches on weights far larger than the caches; tokens per
// second that batches 8, 16, 32 would reach in a model of 1.034 billion matrix weights if nothing else took time; batch 512 in
// GOP/s and as a share of the peak probe. Medians, with quartiles of the shares.

#include <fmt/format.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "formats/block_codec.h"
#include "formats/half.h"
#include "kernels/cpu/tables.h"
#include "probe/kernels.h"

namespace {

using namespace rooftree;
using kernels::cpu::ProductKernels;

constexpr double kModelWeights = 1.034e9;
constexpr std::array<std::int64_t, 6> kBatches = {1, 4, 8, 16, 32, 512};

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

struct Quartiles {
  double low, median, high;
};
Quartiles quartiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) { return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)]; };
  return {at(0.25), at(0.5), at(0.75)};
}

// Random values, quantised once and repeated; for types without a writer random bytes that are small numbers as f16 too.
std::vector<std::byte> some_rows(DType type, std::int64_t rows, std::int64_t k) {
  Philox random(1, 0);
  std::vector<std::byte> out(static_cast<std::size_t>(rows) * formats::row_bytes(type, k));
  if (!formats::can_quantize(type)) {
    for (std::byte& b : out) b = static_cast<std::byte>(random.next_u32() & 0x2BU);
    return out;
  }
  std::vector<float> values(static_cast<std::size_t>(rows * k));
  for (float& v : values) v = random.uniform_float() + random.uniform_float() + random.uniform_float() - 1.5F;
  formats::quantize_row(type, values, out);
  return out;
}

class Limits {
 public:
  Limits(ThreadPool& pool, const CpuFeatures& features)
      : pool_(pool), memory_(probe::memory_kernels(features)), source_(kBytes) {
    for (const probe::ArithmeticKernel& kernel : probe::arithmetic_kernels(features)) {
      // The widest: they are listed from portable upwards, AVX-VNNI's 256 bits last.
      probe::ArithmeticKernel& peak = peaks_[static_cast<std::size_t>(kernel.type)];
      if (!kernel.matrix && kernel.flop_per_iteration > peak.flop_per_iteration) peak = kernel;
    }
    // Without an instruction for it bf16 is multiplied as floats.
    probe::ArithmeticKernel& bf16 = peaks_[static_cast<std::size_t>(Arithmetic::kBf16)];
    if (bf16.run == nullptr) bf16 = peaks_[static_cast<std::size_t>(Arithmetic::kFp32)];
  }
  // Bytes per second.
  double read() {
    const double s = seconds([&] {
      pool_.run([&](const Worker& w) {
        const Range share = w.share(static_cast<std::int64_t>(kBytes / sizeof(double)), 64);
        memory_.read(reinterpret_cast<const double*>(source_.data()) + share.begin, static_cast<std::size_t>(share.size()), 1);
      });
    });
    return static_cast<double>(kBytes) / s;
  }
  // Operations per second.
  double peak(Arithmetic type) {
    constexpr std::int64_t kIterations = 1'000'000;
    const probe::ArithmeticKernel& kernel = peaks_[static_cast<std::size_t>(type)];
    const double s = seconds([&] { pool_.run([&](const Worker&) { kernel.run(kIterations); }); });
    return static_cast<double>(kIterations) * kernel.flop_per_iteration * pool_.size() / s;
  }

 private:
  static constexpr std::size_t kBytes = std::size_t{256} << 20;
  ThreadPool& pool_;
  probe::MemoryKernels memory_;
  Memory source_;
  std::array<probe::ArithmeticKernel, kArithmeticCount> peaks_{};
};

struct Options {
  int threads = 0, repetitions = 9;
  std::int64_t mib = 160, k = 4096;
  std::vector<DType> types = {DType::kQ4_0, DType::kQ8_0,           DType::kQ4K, DType::kQ6K, DType::kQ5K, DType::kIq4Nl,
                              DType::kBf16, DType::kBf16Lossless12, DType::kF16, DType::kF32};
};

void measure(ThreadPool& pool, Limits& limits, const CpuFeatures& features, DType type, const Options& options) {
  const ProductKernels* kernels = kernels::cpu::block_products(type, features);
  if (kernels == nullptr) kernels = kernels::cpu::float_products(type, features);
  if (kernels == nullptr) return;
  const kernels::Product product = kernels::product_of(type);
  const Arithmetic arithmetic = kernels::level_of(product) == kernels::Level::kA ? Arithmetic::kInt8
                                : product == kernels::Product::kBf16             ? Arithmetic::kBf16
                                                                                 : Arithmetic::kFp32;  // f16 is widened
  const DType row_type = type == DType::kBf16Lossless12 ? DType::kBf16 : type;
  const std::int64_t k = options.k;
  const std::int64_t piece = kernels->unit * 16;  // rows that are repeated
  const auto row_bytes = static_cast<std::int64_t>(formats::row_bytes(row_type, k));
  const std::int64_t n = (options.mib << 20) / row_bytes / piece * piece, units = n / kernels->unit;
  const std::size_t packed = kernels->packed_bytes(n, k);
  Memory weights(packed);
  double pack_s = 0;
  {
    const std::vector<std::byte> some = some_rows(row_type, piece, k);
    Memory rows(static_cast<std::size_t>(n * row_bytes));
    for (std::int64_t i = 0; i < n; i += piece) std::memcpy(rows.data() + i * row_bytes, some.data(), some.size());
    const kernels::PackArgs args{.type = type, .n = n, .k = k, .rows = rows.data(), .out = weights.data()};
    pack_s = seconds([&] { pool.run([&](const Worker& w) { kernels->pack(args, w.share(units)); }); });
  }
  // Room for exceptions of the 12-bit form is hardly read.
  const double bytes_read = std::min(static_cast<double>(packed), storage(type, static_cast<double>(n * k)).value());
  Philox random(2, 0);
  Memory x(static_cast<std::size_t>(512 * k) * 4), y(static_cast<std::size_t>(512 * n) * 4);
  for (std::int64_t i = 0; i < 512 * k; ++i) x.floats()[i] = random.uniform_float() - 0.5F;
  Memory activations(kernels->activation_bytes(512, k));

  std::vector<double> read, read_share, peak_share, rate512, quantize;
  std::array<std::vector<double>, kBatches.size()> times;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    const double before = limits.read();
    double first = 0;
    for (std::size_t b = 0; b < kBatches.size(); ++b) {
      const std::int64_t m = kBatches[b];
      const double pack_x = seconds([&] {
        kernels->pack_activations({.product = product, .x = {x.floats(), k}, .rows = m, .k = k, .out = activations.data()},
                                  {0, m});
      });
      const kernels::MultiplyArgs args{
          .weight = {type, n, k, weights.data(), packed}, .x = activations.data(), .rows = m, .y = {y.floats(), n}};
      const double peak = m == 512 ? limits.peak(arithmetic) : 0;
      const double s = seconds([&] { pool.run([&](const Worker& w) { kernels->multiply(args, w.share(units)); }); });
      times[b].push_back(s);
      if (m == 1) first = bytes_read / s;
      if (m == 1) {
        const double after = limits.read();
        read.push_back((before + after) / 2);
        read_share.push_back(first / ((before + after) / 2));
      }
      if (m == 512) {
        const double rate = 2.0 * static_cast<double>(m * n) * static_cast<double>(k) / s;
        rate512.push_back(rate);
        peak_share.push_back(rate / ((peak + limits.peak(arithmetic)) / 2));
        quantize.push_back(static_cast<double>(m * k) / pack_x);
      }
    }
  }
  const auto tokens = [&](std::size_t b) {
    const double s = quartiles(times[b]).median * kModelWeights / (static_cast<double>(n) * static_cast<double>(k));
    return static_cast<double>(kBatches[b]) / s;
  };
  const Quartiles share1 = quartiles(read_share), share512 = quartiles(peak_share);
  fmt::print(
      "{:10} {:6.1f}  {:5.3f} ({:5.3f}-{:5.3f})  {:6.0f} {:6.0f} {:6.0f} {:6.0f} {:6.0f}  {:6.0f}  {:5.3f} ({:5.3f}-{:5.3f})  "
      "{:5.2f} {:6.2f}\n",
      rooftree::name(type), quartiles(read).median / 1e9, share1.median, share1.low, share1.high, tokens(0), tokens(1),
      tokens(2), tokens(3), tokens(4), quartiles(rate512).median / 1e9, share512.median, share512.low, share512.high,
      quartiles(quantize).median / 1e9, static_cast<double>(n) * static_cast<double>(k) / pack_s / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    const std::string value = argv[i + 1];
    if (flag == "--threads") options.threads = std::atoi(value.c_str());
    if (flag == "--repetitions") options.repetitions = std::atoi(value.c_str());
    if (flag == "--clock") cpu_clock = value == "cpu";
    if (flag == "--mib") options.mib = std::atoll(value.c_str());
    if (flag == "--k") options.k = std::atoll(value.c_str());
    if (flag == "--types") {
      options.types.clear();
      for (std::size_t from = 0; from <= value.size();) {
        const std::size_t comma = std::min(value.find(',', from), value.size());
        const auto type = parse_dtype(value.substr(from, comma - from));
        if (!type) {
          fmt::print(stderr, "{}\n", type.error().message);
          return 2;
        }
        options.types.push_back(type.value());
        from = comma + 1;
      }
    }
  }
  const auto features = usable_cpu_features();
  if (!features) {
    fmt::print(stderr, "{}\n", features.error().message);
    return 2;
  }
  if (cpu_clock) options.threads = 1;
  if (options.threads < 1) options.threads = default_thread_count().value();
  ThreadPool pool({.threads = options.threads, .pin_caller = true, .spin = std::chrono::microseconds(100000)});
  Limits limits(pool, features.value());
  fmt::print("{}, {} threads, K = {}, {} MiB of weights, {} repetitions\n", rooftree::name(features.value().isa()),
             options.threads, options.k, options.mib, options.repetitions);
  fmt::print("{:10} {:>6}  {:>20}  {:>6} {:>6} {:>6} {:>6} {:>6}  {:>6}  {:>20}  {:>5} {:>6}\n", "", "read", "batch 1", "1",
             "4", "8", "16", "32", "512", "batch 512", "quant", "pack");
  fmt::print("{:10} {:>6}  {:>20}  {:>34}  {:>6}  {:>20}  {:>5} {:>6}\n", "", "GB/s", "share of read", "tokens/s", "GOP/s",
             "share of peak", "G/s", "G/s");
  for (const DType type : options.types) measure(pool, limits, features.value(), type, options);
  return 0;
}

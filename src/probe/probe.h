#pragma once

// Measures what this machine really reaches. Many short samples of every quantity are taken in rounds that are spread over the
// whole run, so that a noisy second costs each quantity a few samples instead of costing one quantity all of them; the quietest
// sample is the limit, quartiles show the noise.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/dtype.h"
#include "base/progress.h"
#include "base/result.h"
#include "base/units.h"
#include "machine/machine.h"
#include "probe/ladder.h"
#include "probe/statistics.h"
#include "probe/topology.h"

namespace rooftree::probe {

struct ProbeOptions {
  Seconds budget{20.0};  // set-up included; at least one round is always measured, and half as long again on a noisy machine
  int threads = 0;       // 0 = default_thread_count()
  bool disk = true;
  Bytes disk_file{128.0 * 1024 * 1024};  // size of the temporary file, in $XDG_CACHE_HOME/rooftree (default ~/.cache/rooftree)
  Bytes stream_array{0.0};      // one of the three arrays in main memory; 0 = four times the last cache, 128 MiB at least
  Bytes latency_size_max{0.0};  // 0 = four times the last cache, 128 MiB at least
  Progress* progress = nullptr;
};
// --quick: 5 s and a smaller file.
[[nodiscard]] ProbeOptions quick_options();

enum class Stream { kRead, kWrite, kWriteStreaming, kTriad, kTriadStreaming };
[[nodiscard]] std::string_view name(Stream stream);  // "read", "write", "write_streaming", "triad", "triad_streaming"

// Bandwidth in bytes per second, all threads together. Only the streams that the program names are counted: a triad moves
// three, and what a write reads first (write-allocate) is not counted.
struct BandwidthResult {
  std::string level;  // as in Topology::caches, or "DRAM"
  Stream stream;
  int threads;
  Bytes working_set;  // per thread in caches; in main memory the whole array that the samples walk through
  Statistic bytes_per_second;
};

struct LatencyResult {
  Bytes size;
  Statistic seconds;  // load to use, dependent loads in random order
};

struct ArithmeticResult {
  Arithmetic type;
  std::string isa, instruction;
  bool matrix;
  int threads;
  Statistic flop_per_second;
};

struct DiskResult {
  bool direct = false;  // O_DIRECT; otherwise the page cache was dropped by advice before reading
  Bytes file;
  Statistic read_bytes_per_second;
  Statistic page_cache_bytes_per_second;
  Bytes capacity;  // of the file system
  std::string directory;
};

struct ProbeResult {
  std::string date;  // UTC, "2026-11-24"
  std::string features;
  Isa isa = Isa::kPortable;
  std::string memory_isa;  // of the streaming loops
  Topology topology;
  int threads = 1;
  bool huge_pages = false;  // 2 MiB pages were available for the arrays
  Seconds duration;
  int rounds = 0;

  std::vector<BandwidthResult> bandwidth;
  std::vector<LatencyResult> latency;
  std::vector<Plateau> plateaus;
  std::vector<ArithmeticResult> arithmetic;
  Statistic clock_hertz;        // one core busy with dependent additions
  Statistic fork_join_seconds;  // empty region, workers spinning; samples = 0 with one thread
  Statistic barrier_seconds;
  Statistic wake_seconds;  // empty region, workers parked
  std::optional<DiskResult> disk;

  double foreign_cpus = 0.0;        // CPUs that others kept busy on average (steal included)
  double foreign_cpus_worst = 0.0;  // in the worst round
  std::vector<std::string> notes;

  // Null when not measured.
  [[nodiscard]] const BandwidthResult* find(std::string_view level, Stream stream, int thread_count) const;
};

// kInvalid for a bad ROOFTREE_THREADS or ROOFTREE_ISA, kEnvironment when memory cannot be had or when progress->cancelled().
Result<ProbeResult> run_probe(const ProbeOptions& options);

// The machine `this`: totals of the quietest samples with all threads. Matrix units (AMX) give `matrix`, everything else
// `vector`.
[[nodiscard]] machine::Machine to_machine(const ProbeResult& result);

// Writes the machine to machine::this_machine_path(), folders included; an existing file is replaced at once or not at all.
Status save_this_machine(const machine::Machine& machine);
// The same to any path.
Status write_atomically(const std::string& path, std::string_view text);

// For people, and for programs with units in the key names.
[[nodiscard]] std::string to_table(const ProbeResult& result);
[[nodiscard]] std::string to_json(const ProbeResult& result);

}  // namespace rooftree::probe

// The measured limits as a machine description.

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/check.h"
#include "probe/probe.h"

namespace rooftree::probe {
namespace {

machine::Provenance measured(const ProbeResult& result, const Statistic& s, std::string_view what) {
  return {.certainty = machine::Certainty::kMeasured,
          .source = "probe, " + result.date,
          .note = fmt::format("{}; {} samples, interquartile range {:.0f} % of the median", what, s.samples,
                              100 * s.relative_spread()),
          .doubtful = !s.confirmed()};
}

machine::Provenance reported(const ProbeResult& result, std::string_view by) {
  return {
      .certainty = machine::Certainty::kRead, .source = fmt::format("{}, {}", by, result.date), .note = {}, .doubtful = false};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

std::string vendor_of(std::string_view cpu_name) {
  for (const std::string_view vendor : {"AMD", "Intel", "Apple", "Ampere", "NVIDIA", "Qualcomm"}) {
    if (cpu_name.find(vendor) != std::string_view::npos) return std::string(vendor);
  }
  return {};
}

// The calibration families of the catalogue's CPUs.
std::string family_of(const ProbeResult& result) {
  switch (result.isa) {
    case Isa::kAvx2:
      return "cpu-x86-avx2";
    case Isa::kNeon:
      return "cpu-arm-neon";
    case Isa::kPortable:
      return "cpu-portable";
    case Isa::kAvx512:
      break;
  }
  const bool amx =
      std::any_of(result.arithmetic.begin(), result.arithmetic.end(), [](const ArithmeticResult& a) { return a.matrix; });
  return amx ? "cpu-x86-amx" : "cpu-x86-avx512";
}

// The best of the streams given, with all threads; null if none was measured.
const BandwidthResult* best(const ProbeResult& result, std::string_view level, std::initializer_list<Stream> streams) {
  const BandwidthResult* found = nullptr;
  for (const Stream stream : streams) {
    const BandwidthResult* b = result.find(level, stream, result.threads);
    if (b != nullptr && (found == nullptr || b->bytes_per_second.quietest > found->bytes_per_second.quietest)) found = b;
  }
  return found;
}

machine::MemoryLevel level_of(const ProbeResult& result, const std::string& level_name, Bytes below, Bytes capacity_each,
                              std::vector<LatencyPoint>& curve, machine::Chip& chip) {
  machine::MemoryLevel level;
  level.name = level_name;
  const std::string key = lower(level_name);
  if (const BandwidthResult* read = result.find(level_name, Stream::kRead, result.threads)) {
    level.bandwidth = BytesPerSecond{read->bytes_per_second.quietest};
    chip.provenance[key + ".bandwidth"] =
        measured(result, read->bytes_per_second, fmt::format("quietest read with {} threads", result.threads));
  }
  if (const BandwidthResult* write = best(result, level_name, {Stream::kWrite, Stream::kWriteStreaming})) {
    level.write_bandwidth = BytesPerSecond{write->bytes_per_second.quietest};
    chip.provenance[key + ".write_bandwidth"] = measured(
        result, write->bytes_per_second, fmt::format("quietest {} with {} threads", name(write->stream), result.threads));
  }
  level.latency = latency_of_level(curve, below, capacity_each);
  for (const LatencyResult& point : result.latency) {
    if (level.latency > Seconds{0.0} && Seconds{point.seconds.quietest} == level.latency) {
      chip.provenance[key + ".latency"] = measured(result, point.seconds, "dependent loads in random order");
    }
  }
  return level;
}

}  // namespace

machine::Machine to_machine(const ProbeResult& result) {
  machine::Chip chip;
  chip.id = "this";
  chip.name = result.topology.cpu_name.empty() ? "this machine" : result.topology.cpu_name;
  chip.vendor = vendor_of(chip.name);
  chip.architecture = result.features;
  chip.family = family_of(result);
  chip.kind = machine::ChipKind::kCpu;
  chip.status = "measured";
  chip.cores = std::min(result.threads, std::max(1, result.topology.cores));
  chip.core_kind = "cores";
  chip.provenance["cores"] = {
      .certainty = machine::Certainty::kMeasured,
      .source = "probe, " + result.date,
      .note = fmt::format("threads that were measured with; {} cores may be used", result.topology.cores),
      .doubtful = false};
  for (const std::string& note : result.notes) chip.notes += (chip.notes.empty() ? "" : "; ") + note;
  if (result.clock_hertz.samples > 0) {
    chip.clock = Hertz{result.clock_hertz.quietest};
    chip.provenance["clock"] = measured(result, result.clock_hertz, "dependent additions, one per cycle");
  }

  std::vector<LatencyPoint> curve;
  for (const LatencyResult& point : result.latency) curve.push_back({point.size, Seconds{point.seconds.quietest}});
  std::sort(curve.begin(), curve.end(), [](const LatencyPoint& a, const LatencyPoint& b) { return a.size < b.size; });
  Bytes below{0.0};
  for (const CacheLevel& cache : result.topology.caches) {
    machine::MemoryLevel level = level_of(result, cache.name, below, cache.capacity, curve, chip);
    // Only the instances that the used threads can reach count.
    const int cores_each = std::max(1, cache.cores_per_instance);
    level.instances = std::clamp((result.threads + cores_each - 1) / cores_each, 1, std::max(1, cache.instances));
    level.capacity = Bytes{cache.capacity.value() * level.instances};
    chip.provenance[lower(cache.name) + ".capacity"] = reported(result, "hwloc");
    chip.ladder.push_back(std::move(level));
    below = cache.capacity;
  }
  machine::MemoryLevel memory = level_of(result, "DRAM", below, Bytes{0.0}, curve, chip);
  memory.capacity = result.topology.memory;
  chip.provenance["dram.capacity"] = reported(result, "hwloc");
  chip.ladder.push_back(std::move(memory));

  for (const ArithmeticResult& a : result.arithmetic) {
    if (a.threads != result.threads || a.flop_per_second.samples == 0) continue;
    machine::ArithmeticRate& rate = chip.arithmetic[static_cast<std::size_t>(a.type)];
    FlopPerSecond& slot = a.matrix ? rate.matrix : rate.vector;
    const FlopPerSecond value{a.flop_per_second.quietest};
    if (value <= slot) continue;  // another instruction does the same faster
    slot = value;
    chip.provenance[fmt::format("{}.{}", name(a.type), a.matrix ? "matrix" : "vector")] =
        measured(result, a.flop_per_second, fmt::format("{} ({}) with {} threads", a.instruction, a.isa, a.threads));
  }

  machine::Machine machine;
  machine.id = "this";
  machine.name = chip.name;
  machine.vendor = chip.vendor;
  machine.status = chip.status;
  machine.notes = chip.notes;
  machine.root.name = "chip";
  machine.root.host.cpu = chip.name;
  if (result.disk && result.disk->read_bytes_per_second.samples > 0) {
    machine.root.host.disk_read = BytesPerSecond{result.disk->read_bytes_per_second.quietest};
    machine.root.host.disk_capacity = result.disk->capacity;
    machine.provenance["host.disk.bandwidth"] = measured(
        result, result.disk->read_bytes_per_second,
        fmt::format("sequential {} reads of 4 MiB in {}", result.disk->direct ? "direct" : "uncached", result.disk->directory));
    machine.provenance["host.disk.capacity"] = reported(result, "statvfs");
  }
  machine.root.chip = std::move(chip);
  return machine;
}

}  // namespace rooftree::probe

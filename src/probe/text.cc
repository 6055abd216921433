// A probe's result for people and for programs.

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/json.h"
#include "base/unit_text.h"
#include "probe/probe.h"

namespace rooftree::probe {
namespace {

// "231 (228)": the quietest sample and the median; "231? (228)" where too few samples confirm it.
std::string cell(const Statistic& s, double unit) {
  if (s.samples == 0) return "-";
  const auto number = [&](double v) {
    v /= unit;
    return v >= 99.95 ? fmt::format("{:.0f}", v) : v >= 9.995 ? fmt::format("{:.1f}", v) : fmt::format("{:.2f}", v);
  };
  return fmt::format("{}{} ({})", number(s.quietest), s.confirmed() ? "" : "?", number(s.median));
}

std::string spread(const Statistic& s) { return s.samples < 2 ? "-" : fmt::format("{:.0f} %", 100 * s.relative_spread()); }

// Thread counts in a list of results, ascending.
template <class Results>
std::vector<int> thread_counts(const Results& results) {
  std::vector<int> counts;
  for (const auto& r : results) counts.push_back(r.threads);
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

std::string ladder_table(const ProbeResult& result) {
  const bool streaming = std::any_of(result.bandwidth.begin(), result.bandwidth.end(),
                                     [](const BandwidthResult& b) { return b.stream == Stream::kTriadStreaming; });
  std::string text =
      "Memory, GB/s of all threads together: quietest sample (median); spread = interquartile range of the reads\n";
  text += fmt::format("  {:<6} {:>14} {:>9} {:>7} {:>13} {:>13} {:>13} {:>7}\n", "level", "capacity", "latency", "threads",
                      "read", "write", "triad", "spread");
  std::vector<LatencyPoint> curve;
  for (const LatencyResult& point : result.latency) curve.push_back({point.size, Seconds{point.seconds.quietest}});
  Bytes below{0.0};
  const auto rows = [&](const std::string& level, const std::string& capacity, Seconds latency) {
    bool first = true;
    for (const int k : thread_counts(result.bandwidth)) {
      const auto stream_cell = [&](Stream stream) {
        const BandwidthResult* b = result.find(level, stream, k);
        return b == nullptr ? std::string("-") : cell(b->bytes_per_second, 1e9);
      };
      const BandwidthResult* read = result.find(level, Stream::kRead, k);
      if (read == nullptr) continue;
      text += fmt::format("  {:<6} {:>14} {:>9} {:>7} {:>13} {:>13} {:>13} {:>7}\n", first ? level : "", first ? capacity : "",
                          first && latency > Seconds{0.0} ? fmt::format("{:.2f} ns", latency.value() * 1e9) : "", k,
                          stream_cell(Stream::kRead), stream_cell(Stream::kWrite), stream_cell(Stream::kTriad),
                          spread(read->bytes_per_second));
      if (level == "DRAM" && streaming && result.find(level, Stream::kTriadStreaming, k) != nullptr) {
        text += fmt::format("  {:<6} {:>40} {:>11} {:>13} {:>13}\n", "", "with stores past the caches:", "",
                            stream_cell(Stream::kWriteStreaming), stream_cell(Stream::kTriadStreaming));
      }
      first = false;
    }
  };
  for (const CacheLevel& cache : result.topology.caches) {
    rows(cache.name,
         fmt::format("{}{}", cache.instances > 1 ? fmt::format("{} x ", cache.instances) : "", to_text(cache.capacity)),
         latency_of_level(curve, below, cache.capacity));
    below = cache.capacity;
  }
  rows("DRAM", to_text(result.topology.memory), latency_of_level(curve, below, Bytes{0.0}));
  return text;
}

std::string latency_table(const ProbeResult& result) {
  std::string text = "Load latency by working set, ns (dependent loads in random order)\n";
  int column = 0;
  for (const LatencyResult& point : result.latency) {
    // Whole powers of two; the half steps are in the JSON.
    const auto bytes = static_cast<std::uint64_t>(point.size.value());
    if ((bytes & (bytes - 1)) != 0) continue;
    text += fmt::format("{}{:>9} {:>6.2f}", column % 5 == 0 ? "  " : "   ", to_text(point.size), point.seconds.quietest * 1e9);
    if (++column % 5 == 0) text += '\n';
  }
  if (column % 5 != 0) text += '\n';
  return text;
}

std::string arithmetic_table(const ProbeResult& result) {
  const std::vector<int> counts = thread_counts(result.arithmetic);
  const BandwidthResult* dram = result.find("DRAM", Stream::kRead, result.threads);
  std::string text =
      "Arithmetic, GFLOP/s (a multiply-add is two, integers alike): quietest sample (median); ridge at DRAM, FLOP/byte\n";
  text += fmt::format("  {:<6} {:<9} {:<27}", "type", "set", "instruction");
  for (const int k : counts) text += fmt::format(" {:>14}", k == 1 ? "1 thread" : fmt::format("{} threads", k));
  text += fmt::format(" {:>7} {:>7}\n", "spread", "ridge");
  std::vector<const ArithmeticResult*> rows;  // one per instruction, whatever its threads
  const auto same = [](const ArithmeticResult& a, const ArithmeticResult& b) {
    return a.type == b.type && a.isa == b.isa && a.instruction == b.instruction;
  };
  for (const ArithmeticResult& a : result.arithmetic) {
    if (std::none_of(rows.begin(), rows.end(), [&](const ArithmeticResult* r) { return same(*r, a); })) rows.push_back(&a);
  }
  for (const ArithmeticResult* row : rows) {
    text += fmt::format("  {:<6} {:<9} {:<27}", name(row->type), row->isa, row->instruction);
    const ArithmeticResult* last = row;
    for (const int k : counts) {
      const auto at = std::find_if(result.arithmetic.begin(), result.arithmetic.end(),
                                   [&](const ArithmeticResult& a) { return a.threads == k && same(a, *row); });
      const bool found = at != result.arithmetic.end();
      text += fmt::format(" {:>14}", found ? cell(at->flop_per_second, 1e9) : "-");
      if (found) last = &*at;
    }
    const double ridge = dram != nullptr ? last->flop_per_second.quietest / dram->bytes_per_second.quietest : 0.0;
    text += fmt::format(" {:>7} {:>7}\n", spread(last->flop_per_second), ridge > 0 ? fmt::format("{:.1f}", ridge) : "-");
  }
  return text;
}

Json statistic_json(const Statistic& s, std::string_view unit) {
  Json json;
  json["samples"] = s.samples;
  if (s.samples > 0) {
    json["near_quietest"] = s.near_quietest;
    json["confirmed"] = s.confirmed();
    json[fmt::format("quietest_{}", unit)] = s.quietest;
    json[fmt::format("q1_{}", unit)] = s.q1;
    json[fmt::format("median_{}", unit)] = s.median;
    json[fmt::format("q3_{}", unit)] = s.q3;
  }
  return json;
}

}  // namespace

std::string to_table(const ProbeResult& result) {
  const auto microseconds = [](const Statistic& s) { return cell(s, 1e-6) + " us"; };
  std::string text = fmt::format(
      "{}: {} cores, {} threads used, {} of memory{}\n  {}\n  measured {} in {} rounds over {:.1f} s; others used {:.2f} "
      "CPUs\n\n",
      result.topology.cpu_name.empty() ? "unknown CPU" : result.topology.cpu_name, result.topology.cores, result.threads,
      to_text(result.topology.memory), result.topology.virtual_machine ? ", virtual machine" : "", result.features, result.date,
      result.rounds, result.duration.value(), result.foreign_cpus);
  text += ladder_table(result) + '\n';
  text += latency_table(result) + '\n';
  text += arithmetic_table(result) + '\n';
  if (result.clock_hertz.samples > 0) text += fmt::format("Clock       {} GHz\n", cell(result.clock_hertz, 1e9));
  if (result.fork_join_seconds.samples > 0) {
    text += fmt::format("Threads     fork and join {}, barrier {}, wake-up {}\n", microseconds(result.fork_join_seconds),
                        microseconds(result.barrier_seconds), microseconds(result.wake_seconds));
  }
  if (result.disk) {
    text += fmt::format("Disk        sequential read {} GB/s{}, from the page cache {} GB/s\n",
                        cell(result.disk->read_bytes_per_second, 1e9), result.disk->direct ? " (direct)" : "",
                        cell(result.disk->page_cache_bytes_per_second, 1e9));
  }
  for (const std::string& note : result.notes) text += "Note: " + note + '\n';
  return text;
}

std::string to_json(const ProbeResult& result) {
  Json json;
  json["date"] = result.date;
  json["cpu"] = result.topology.cpu_name;
  json["isa"] = name(result.isa);
  json["features"] = result.features;
  json["memory_isa"] = result.memory_isa;
  json["threads"] = result.threads;
  json["cores"] = result.topology.cores;
  json["hardware_threads"] = result.topology.hardware_threads;
  json["numa_nodes"] = result.topology.numa_nodes;
  json["virtual_machine"] = result.topology.virtual_machine;
  json["huge_pages"] = result.huge_pages;
  json["duration_s"] = result.duration.value();
  json["rounds"] = result.rounds;
  json["foreign_cpus_mean"] = result.foreign_cpus;
  json["foreign_cpus_worst_round"] = result.foreign_cpus_worst;
  json["memory_bytes"] = result.topology.memory.value();
  json["caches"] = Json::array();
  for (const CacheLevel& c : result.topology.caches) {
    json["caches"].push_back({{"name", c.name},
                              {"capacity_bytes", c.capacity.value()},
                              {"instances", c.instances},
                              {"cores_per_instance", c.cores_per_instance}});
  }
  json["bandwidth"] = Json::array();
  for (const BandwidthResult& b : result.bandwidth) {
    Json row{
        {"level", b.level}, {"stream", name(b.stream)}, {"threads", b.threads}, {"working_set_bytes", b.working_set.value()}};
    row.update(statistic_json(b.bytes_per_second, "bytes_per_s"));
    json["bandwidth"].push_back(std::move(row));
  }
  json["latency"] = Json::array();
  for (const LatencyResult& l : result.latency) {
    Json row{{"size_bytes", l.size.value()}};
    row.update(statistic_json(l.seconds, "s"));
    json["latency"].push_back(std::move(row));
  }
  json["plateaus"] = Json::array();
  for (const Plateau& p : result.plateaus) {
    Json row{{"latency_s", p.latency.value()}};
    if (p.capacity > Bytes{0.0}) row["capacity_bytes"] = p.capacity.value();
    json["plateaus"].push_back(std::move(row));
  }
  json["arithmetic"] = Json::array();
  const BandwidthResult* dram = result.find("DRAM", Stream::kRead, result.threads);
  for (const ArithmeticResult& a : result.arithmetic) {
    Json row{
        {"type", name(a.type)}, {"isa", a.isa}, {"instruction", a.instruction}, {"matrix", a.matrix}, {"threads", a.threads}};
    row.update(statistic_json(a.flop_per_second, "flop_per_s"));
    if (dram != nullptr && a.threads == result.threads && a.flop_per_second.samples > 0) {
      row["ridge_flop_per_byte"] = a.flop_per_second.quietest / dram->bytes_per_second.quietest;
    }
    json["arithmetic"].push_back(std::move(row));
  }
  json["clock"] = statistic_json(result.clock_hertz, "hz");
  json["fork_join"] = statistic_json(result.fork_join_seconds, "s");
  json["barrier"] = statistic_json(result.barrier_seconds, "s");
  json["wake"] = statistic_json(result.wake_seconds, "s");
  if (result.disk) {
    json["disk"] = {{"direct", result.disk->direct},
                    {"directory", result.disk->directory},
                    {"file_bytes", result.disk->file.value()},
                    {"capacity_bytes", result.disk->capacity.value()},
                    {"read", statistic_json(result.disk->read_bytes_per_second, "bytes_per_s")},
                    {"page_cache_read", statistic_json(result.disk->page_cache_bytes_per_second, "bytes_per_s")}};
  }
  json["notes"] = result.notes;
  return json.dump(2) + '\n';
}

}  // namespace rooftree::probe

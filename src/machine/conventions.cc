#include "machine/conventions.h"

#include <fmt/format.h>

#include <algorithm>

#include "machine/catalog_format.h"

namespace rooftree::machine {
namespace {

// Reads facts of one file by entry and name; the first problem is kept and the rest stay zero.
class Reader {
 public:
  Reader(const std::vector<ConventionEntry>& entries, std::string file) : entries_(entries), file_(std::move(file)) {}

  template <class Q>
  Sourced<Q> get(std::string_view entry, std::string_view fact, Result<Q> (*parse)(std::string_view)) {
    const auto it = std::find_if(entries_.begin(), entries_.end(), [entry](const ConventionEntry& e) { return e.id == entry; });
    const Fact* found = it == entries_.end() ? nullptr : it->find(fact);
    if (found == nullptr) {
      fail(entry, fact, "is missing; expected a value");
      return {};
    }
    return read(*found, entry, parse);
  }

  template <class Q>
  Sourced<Q> read(const Fact& fact, std::string_view entry, Result<Q> (*parse)(std::string_view)) {
    const Result<Q> value = parse(fact.value);
    if (!value) {
      fail(entry, fact.name, value.error().message);
      return {};
    }
    return {*value, fact.provenance};
  }

  void fail(std::string_view entry, std::string_view fact, std::string_view message) {
    if (status_)
      status_ = Error{ErrorCode::kInvalid, fmt::format("conventions/{}.json: {}.{}: {}", file_, entry, fact, message)};
  }
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  const std::vector<ConventionEntry>& entries_;
  std::string file_;
  Status status_ = Ok{};
};

}  // namespace

Result<CostConventions> cost_conventions(const Catalog& catalog) {
  ROOFTREE_TRY(const std::vector<ConventionEntry> entries, catalog.conventions("cost_and_energy"));
  Reader in(entries, "cost_and_energy");
  CostConventions out;
  out.pue_average = in.get("pue-average", "value", parse_ratio);
  out.pue_hyperscale = in.get("pue-hyperscale", "value", parse_ratio);
  out.pue_planning = in.get("pue-ai-convention", "value", parse_ratio);
  out.energy_price = in.get("energy-price-convention", "price", parse_energy_price);
  out.energy_price_low = in.get("energy-price-range", "price_low", parse_energy_price).value;
  out.energy_price_high = in.get("energy-price-range", "price_high", parse_energy_price).value;
  out.average_draw = in.get("utilisation-convention", "value", parse_ratio);
  out.amortisation = in.get("amortisation", "horizon", parse_seconds);
  out.host_share = in.get("host-power-share", "factor", parse_ratio);
  if (!in.status()) return in.status().error();
  return out;
}

Result<std::vector<MemoryStandard>> memory_standards(const Catalog& catalog) {
  ROOFTREE_TRY(const std::vector<ConventionEntry> entries, catalog.conventions("memory_standards"));
  Reader in(entries, "memory_standards");
  std::vector<MemoryStandard> out;
  for (const ConventionEntry& entry : entries) {
    MemoryStandard standard;
    standard.id = entry.id;
    standard.name = entry.name;
    const auto range = [&](std::string_view fact, BytesPerSecond& low, BytesPerSecond& high) {
      const bool single = entry.find(fact) != nullptr;
      const auto lower = in.get(entry.id, single ? std::string(fact) : fmt::format("{}_low", fact), parse_bandwidth);
      low = high = lower.value;
      if (!single) high = in.get(entry.id, fmt::format("{}_high", fact), parse_bandwidth).value;
      return lower.provenance;
    };
    (void)range("pin_rate", standard.pin_rate_low, standard.pin_rate_high);
    standard.provenance = range("stack_bandwidth", standard.stack_low, standard.stack_high);
    if (const Fact* capacity = entry.find("stack_capacity_max")) {
      standard.stack_capacity_max = in.read(*capacity, entry.id, parse_bytes).value;
    }
    if (const Fact* capacities = entry.find("stack_capacities")) standard.stack_capacities = capacities->value;
    out.push_back(std::move(standard));
  }
  if (!in.status()) return in.status().error();
  return out;
}

Result<std::vector<LatencyFact>> latencies(const Catalog& catalog) {
  ROOFTREE_TRY(const std::vector<ConventionEntry> entries, catalog.conventions("latencies"));
  Reader in(entries, "latencies");
  std::vector<LatencyFact> out;
  for (const ConventionEntry& entry : entries) {
    // Others are rates, such as the propagation per metre of fibre.
    const Fact* one = entry.find("time");
    const Fact* low = one != nullptr ? one : entry.find("time_low");
    const Fact* high = one != nullptr ? one : entry.find("time_high");
    if (low == nullptr || high == nullptr) continue;
    const auto lower = in.read(*low, entry.id, parse_seconds);
    out.push_back({entry.id, entry.name, lower.value, in.read(*high, entry.id, parse_seconds).value, lower.provenance});
  }
  if (!in.status()) return in.status().error();
  return out;
}

}  // namespace rooftree::machine

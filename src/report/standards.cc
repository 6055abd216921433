#include "report/standards.h"

#include <fmt/format.h>

#include "base/json.h"
#include "report/source_list.h"
#include "report/table.h"

namespace rooftree::report {
namespace {

using machine::LatencyFact;
using machine::MemoryStandard;
using machine::Provenance;

// One convention of cost and energy as both outputs show it.
struct CostRow {
  const char* key;  // in JSON, with its unit
  const char* label;
  double value;
  std::string text;
  const Provenance& provenance;
};

std::vector<CostRow> cost_rows(const machine::CostConventions& c) {
  const auto ratio = [](double v) { return fmt::format("{:.4g} x", v); };
  const auto per_kwh = [](DollarsPerJoule v) { return v.value() * 3.6e6; };
  return {
      {"pue_average", "PUE, average of the industry", c.pue_average.value, ratio(c.pue_average.value),
       c.pue_average.provenance},
      {"pue_hyperscale", "PUE, hyperscale", c.pue_hyperscale.value, ratio(c.pue_hyperscale.value), c.pue_hyperscale.provenance},
      {"pue_planning", "PUE, new sites", c.pue_planning.value, ratio(c.pue_planning.value), c.pue_planning.provenance},
      {"energy_price_usd_per_j", "price of energy", c.energy_price.value.value(),
       fmt::format("{} ({:.4g} to {:.4g})", to_text(c.energy_price.value), per_kwh(c.energy_price_low),
                   per_kwh(c.energy_price_high)),
       c.energy_price.provenance},
      {"average_draw", "average over maximum draw", c.average_draw.value, percent(c.average_draw.value),
       c.average_draw.provenance},
      {"amortisation_s", "service life", c.amortisation.value.value(),
       fmt::format("{:.3g} years", c.amortisation.value.value() / (365 * 86400.0)), c.amortisation.provenance},
      {"server_over_chips", "server over its chips, power", c.host_share.value, ratio(c.host_share.value),
       c.host_share.provenance},
  };
}

template <class Q>
std::string range_text(Q low, Q high) {
  return low == high ? to_text(low) : fmt::format("{} to {}", to_text(low), to_text(high));
}

std::string pin_text(const MemoryStandard& m) {
  const auto gbit = [](BytesPerSecond rate) { return rate.value() * 8e-9; };
  return m.pin_rate_low == m.pin_rate_high ? fmt::format("{:.4g} Gb/s", gbit(m.pin_rate_low))
                                           : fmt::format("{:.4g} to {:.4g} Gb/s", gbit(m.pin_rate_low), gbit(m.pin_rate_high));
}

std::string capacity_text(const MemoryStandard& m) {
  if (m.stack_capacity_max > Bytes{}) return "up to " + to_text(m.stack_capacity_max);
  return m.stack_capacities.empty() ? "-" : m.stack_capacities;
}

Json provenance_json(const Provenance& provenance) {
  Json out = {{"certainty", name(provenance.certainty)}, {"source", provenance.source}};
  if (provenance.doubtful) out["doubtful"] = true;
  return out;
}

}  // namespace

Result<Standards> standards(const machine::Catalog& catalog) {
  ROOFTREE_TRY(std::vector<MemoryStandard> memory, memory_standards(catalog));
  ROOFTREE_TRY(machine::CostConventions cost, cost_conventions(catalog));
  ROOFTREE_TRY(std::vector<LatencyFact> hops, latencies(catalog));
  return Standards{std::move(memory), std::move(cost), std::move(hops)};
}

std::string standards_text(const Standards& s, const Terminal& terminal) {
  SourceList sources;
  const auto heading = [&](std::string_view text) { return styled(text, Style::kBold, terminal.colour) + "\n"; };
  Table memory({{"memory", "one stack", Align::kLeft, 0, 0},
                {"a pin", "", Align::kRight, 0, 0},
                {"bandwidth", "", Align::kRight, 0, 0},
                {"capacity", "", Align::kRight, 0, 0},
                {"certainty", "", Align::kLeft, 1, 0},
                {"source", "", Align::kRight, 1, 0}});
  for (const MemoryStandard& m : s.memory) {
    memory.add_row({m.name, pin_text(m), range_text(m.stack_low, m.stack_high), capacity_text(m), certainty_text(m.provenance),
                    sources.number_of(m.provenance.source)});
  }
  Table cost({{"convention", "", Align::kLeft, 0, 20},
              {"", "", Align::kLeft, 0, 14},
              {"certainty", "", Align::kLeft, 1, 0},
              {"source", "", Align::kRight, 1, 0}});
  for (const CostRow& row : cost_rows(s.cost)) {
    cost.add_row({row.label, row.text, certainty_text(row.provenance), sources.number_of(row.provenance.source)});
  }
  Table hops({{"what", "", Align::kLeft, 0, 20},
              {"takes", "", Align::kLeft, 0, 0},
              {"certainty", "", Align::kLeft, 1, 0},
              {"source", "", Align::kRight, 1, 0}});
  for (const LatencyFact& l : s.latencies) {
    hops.add_row({l.name, range_text(l.low, l.high), certainty_text(l.provenance), sources.number_of(l.provenance.source)});
  }
  return heading("Memory standards") + memory.render(terminal.width, terminal.colour) + "\n" + heading("Cost and energy") +
         cost.render(terminal.width, terminal.colour) +
         wrap("Owned machines pay this price of energy with the PUE of new sites, and are written off over the service life.",
              terminal.width) +
         "\n" + heading("Latencies") + hops.render(terminal.width, terminal.colour) + "\n" +
         sources.text("Sources ('?' = doubtful)", terminal);
}

std::string standards_json_text(const Standards& s) {
  Json memory = Json::array();
  for (const MemoryStandard& m : s.memory) {
    const bool limited = m.stack_capacity_max > Bytes{};
    Json entry = {{"id", m.id},
                  {"name", m.name},
                  {"pin_bits_per_s_low", m.pin_rate_low.value() * 8},
                  {"pin_bits_per_s_high", m.pin_rate_high.value() * 8},
                  {"stack_bytes_per_s_low", m.stack_low.value()},
                  {"stack_bytes_per_s_high", m.stack_high.value()},
                  {"stack_capacity_max_bytes", limited ? Json(m.stack_capacity_max.value()) : Json(nullptr)},
                  {"stack_capacities", m.stack_capacities.empty() ? Json(nullptr) : Json(m.stack_capacities)}};
    entry.update(provenance_json(m.provenance));
    memory.push_back(std::move(entry));
  }
  Json cost = Json::object();
  for (const CostRow& row : cost_rows(s.cost)) {
    Json entry = {{"value", row.value}};
    entry.update(provenance_json(row.provenance));
    cost[row.key] = std::move(entry);
  }
  Json hops = Json::array();
  for (const LatencyFact& l : s.latencies) {
    Json entry = {{"id", l.id}, {"name", l.name}, {"time_s_low", l.low.value()}, {"time_s_high", l.high.value()}};
    entry.update(provenance_json(l.provenance));
    hops.push_back(std::move(entry));
  }
  const Json out = {{"memory", std::move(memory)}, {"cost", std::move(cost)}, {"latencies", std::move(hops)}};
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace rooftree::report

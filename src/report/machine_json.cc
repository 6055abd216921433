#include "report/machine_json.h"

#include <fmt/format.h>

#include "base/json.h"
#include "machine/catalog_format.h"

namespace rooftree::report {
namespace {

using machine::Chip;
using machine::Group;
using machine::Machine;
using machine::MemoryLevel;
using machine::Price;
using machine::Property;
using machine::Provenance;

// Names come from users' files too: bytes that are not UTF-8 are replaced, never an exception.
std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json provenance_json(const Provenance& provenance) {
  Json out;
  out["certainty"] = name(provenance.certainty);
  out["source"] = provenance.source;
  if (!provenance.note.empty()) out["note"] = provenance.note;
  if (provenance.doubtful) out["doubtful"] = true;
  return out;
}

Json line_json(const MachineLine& line) {
  const Chip& chip = line.machine.chip();
  Json out;
  out["id"] = line.machine.id;
  out["name"] = line.machine.name;
  out["vendor"] = line.machine.vendor;
  out["kind"] = name(chip.kind);
  out["status"] = line.machine.status;
  if (line.machine.year > 0) out["year"] = line.machine.year;
  out["is_system"] = line.is_system;
  out["chips"] = line.chips;
  const auto add = [&out](const char* key, double value) { out[key] = value > 0 ? Json(value) : Json(nullptr); };
  add("memory_bytes", line.memory.value());
  add("bandwidth_bytes_per_s", line.bandwidth.value());
  out["headline_type"] = rooftree::name(comparison_arithmetic(chip));
  add("headline_flop_per_s", line.rate.value());
  add("ridge_flop_per_byte", line.ridge.value());
  add("power_w", line.power.value());
  if (line.power > Watts{}) {
    Json per_watt = Json::object();
    for (int i = 0; i < kArithmeticCount; ++i) {
      const auto a = static_cast<Arithmetic>(i);
      const FlopPerSecond rate = rate_of(line, a);
      if (rate > FlopPerSecond{}) per_watt[fmt::format("{}_flop_per_j", rooftree::name(a))] = (rate / line.power).value();
    }
    per_watt["bandwidth_bytes_per_j"] = (line.bandwidth / line.power).value();
    out["per_watt"] = std::move(per_watt);
  }
  return out;
}

Json machine_json(const Machine& machine) {
  Json out = line_json(machine_line(machine));
  const Chip& chip = machine.chip();
  out["chip"] = chip.id;
  out["family"] = chip.family;
  Json ridges = Json::object();
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto a = static_cast<Arithmetic>(i);
    if (!(product_rate(chip, a) > FlopPerSecond{})) continue;
    const machine::ArithmeticRate& rate = chip.rate(a);
    ridges[std::string(rooftree::name(a))] = {{"matrix_flop_per_s", rate.matrix.value()},
                                              {"vector_flop_per_s", rate.vector.value()},
                                              {"sparse_2to4_gain", rate.sparse_2to4},
                                              {"ridge_flop_per_byte", ridge(chip, a).value()}};
  }
  out["arithmetic"] = std::move(ridges);
  Json ladder = Json::array();
  for (const MemoryLevel& level : chip.ladder) {
    ladder.push_back({{"name", level.name},
                      {"capacity_bytes", level.capacity.value()},
                      {"bandwidth_bytes_per_s", level.bandwidth.value()},
                      {"instances", level.instances},
                      {"managed", level.managed}});
  }
  out["ladder"] = std::move(ladder);
  const machine::Host host = machine.host_per_chip();
  out["host_per_chip"] = {{"memory_bytes", host.memory_capacity.value()},
                          {"memory_bandwidth_bytes_per_s", host.memory_bandwidth.value()},
                          {"disk_read_bytes_per_s", host.disk_read.value()},
                          {"link_bytes_per_s", chip.host_link_per_direction.value()}};
  Json groups = Json::array();
  for (const Group* group : machine.groups()) {
    groups.push_back({{"name", group->name},
                      {"count", group->count},
                      {"fabric", group->fabric.name},
                      {"topology", name(group->fabric.topology)},
                      {"dimensions", group->fabric.dimensions},
                      {"per_direction_bytes_per_s", group->fabric.per_direction.value()},
                      {"power_w", group->power_max.value()}});
  }
  out["groups"] = std::move(groups);
  Json values = Json::array();
  for (const Property& property : properties(machine)) {
    Json value = provenance_json(property.provenance);
    Json entry;
    entry["path"] = property.path;
    entry["value"] = property.value;
    entry.update(value);
    values.push_back(std::move(entry));
  }
  out["values"] = std::move(values);
  Json prices = Json::array();
  const auto add_prices = [&prices](const std::string& what, const std::vector<Price>& list) {
    for (const Price& price : list) {
      Json entry = {{"of", what}, {"kind", price.kind}, {"date", price.date}};
      if (price.rate_high > DollarsPerSecond{}) {
        entry["usd_per_h_low"] = price.rate_low.value() * 3600;
        entry["usd_per_h_high"] = price.rate_high.value() * 3600;
      } else {
        entry["usd_low"] = price.purchase_low.value();
        entry["usd_high"] = price.purchase_high.value();
      }
      entry.update(provenance_json(price.provenance));
      prices.push_back(std::move(entry));
    }
  };
  add_prices(chip.id, chip.prices);
  for (const Group* group : machine.groups()) add_prices(group->name, group->prices);
  out["prices"] = std::move(prices);
  const auto facts_json = [](const std::vector<machine::Fact>& facts) {
    Json list = Json::array();
    for (const machine::Fact& fact : facts) {
      Json entry = {{"name", fact.name}, {"value", fact.value}};
      entry.update(provenance_json(fact.provenance));
      list.push_back(std::move(entry));
    }
    return list;
  };
  out["facts"] = facts_json(machine.facts);
  out["chip_facts"] = facts_json(chip.facts);
  out["notes"] = machine.notes;
  return out;
}

}  // namespace

std::string machine_list_json_text(const std::vector<MachineLine>& lines) {
  Json out = Json::array();
  for (const MachineLine& line : lines) out.push_back(line_json(line));
  return dump(out);
}

std::string machine_json_text(const Machine& machine) { return dump(machine_json(machine)); }

}  // namespace rooftree::report

#include "report/machine_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "machine/catalog.h"
#include "report/machine_list.h"
#include "report/source_list.h"
#include "report/table.h"

namespace rooftree::report {
namespace {

using machine::Certainty;
using machine::Chip;
using machine::Group;
using machine::Machine;
using machine::MemoryLevel;
using machine::Price;
using machine::Property;
using machine::Provenance;

// The ladder as a picture: the wider the bar, the larger the level (five columns per factor of 32); between two levels the
// bandwidth of the outer one and the intensity from which the arithmetic is the limit there.
std::string ladder_text(const Machine& machine, const Terminal& terminal) {
  const Chip& chip = machine.chip();
  const Arithmetic a = comparison_arithmetic(chip);
  const FlopPerSecond rate = product_rate(chip, a);
  const int widest = std::min(48, terminal.width - 50);
  struct Level {
    std::string label;
    double capacity;
    double bandwidth;
    std::string note;
  };
  std::vector<Level> levels;
  for (const MemoryLevel& level : chip.ladder) {
    std::string text = fmt::format("{}  {}", level.name, known(level.capacity));
    if (level.instances > 1) text += fmt::format(" in {}", level.instances);
    if (level.managed) text += ", placed by software";
    levels.push_back({std::move(text), level.capacity.value(), level.bandwidth.value(), ""});
  }
  const machine::Host host = machine.host_per_chip();
  const auto assumed = [&machine](const char* key) {
    const auto it = machine.provenance.find(key);
    return it != machine.provenance.end() && it->second.certainty == Certainty::kAssumed ? ", assumed" : "";
  };
  if (host.memory_capacity > Bytes{}) {
    const double link = chip.host_link_per_direction.value();
    const double memory = host.memory_bandwidth.value();
    levels.push_back({fmt::format("host memory  {} per chip{}", to_text(host.memory_capacity), assumed("host.memory.capacity")),
                      host.memory_capacity.value(), link > 0 && memory > 0 ? std::min(link, memory) : std::max(link, memory),
                      chip.host_link});
  }
  if (host.disk_read > BytesPerSecond{}) {
    levels.push_back(
        {fmt::format("disk{}{}", host.disk_capacity > Bytes{} ? "  " + to_text(host.disk_capacity) + " per chip" : "",
                     assumed("host.disk.bandwidth")),
         host.disk_capacity.value(), host.disk_read.value(), "per chip"});
  }
  std::string out = fmt::format("  {} {}\n", rooftree::name(a), known(rate));
  for (const Level& level : levels) {
    std::string between = "  │ ";
    if (level.bandwidth > 0) {
      between += fmt::format(
          "{:<13}{}", to_text(BytesPerSecond{level.bandwidth}),
          rate > FlopPerSecond{} ? fmt::format("ridge {:>9}", number(rate.value() / level.bandwidth) + " FLOP/B") : "");
      if (!level.note.empty()) between += "  " + level.note;
    } else {
      between += "bandwidth unknown";
    }
    out += shorten(between, terminal.width) + "\n";
    const int width = level.capacity > 0 ? std::clamp(static_cast<int>(std::log2(level.capacity) - 14), 1, widest) : 1;
    std::string bar;
    for (int i = 0; i < width; ++i) bar += "█";
    out += fmt::format("  {} {}\n", bar, level.label);
  }
  return out;
}

std::string ridges_text(const Machine& machine, const Terminal& terminal) {
  const Chip& chip = machine.chip();
  Table table({{"type", "", Align::kLeft, 0, 0},
               {"matrix", "", Align::kRight, 0, 0},
               {"vector", "", Align::kRight, 1, 0},
               {"2:4", "", Align::kRight, 2, 0},
               {"ridge", "FLOP/B", Align::kRight, 0, 0}});
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto a = static_cast<Arithmetic>(i);
    const machine::ArithmeticRate& rate = chip.rate(a);
    if (!(product_rate(chip, a) > FlopPerSecond{})) continue;
    const FlopPerByte at = ridge(chip, a);
    table.add_row({std::string(rooftree::name(a)), known(rate.matrix), known(rate.vector),
                   rate.sparse_2to4 > 1 ? fmt::format("{:.4g}x", rate.sparse_2to4) : "-",
                   at > FlopPerByte{} ? number(at.value()) : "-"});
  }
  if (table.empty()) return {};
  return fmt::format("\nRates per chip, dense, and their ridges at {}\n{}", chip.main_memory().name,
                     table.render(terminal.width, terminal.colour, 2));
}

std::string groups_text(const Machine& machine, const Terminal& terminal) {
  const std::vector<const Group*> groups = machine.groups();
  if (groups.empty()) return {};
  Table table({{"group", "", Align::kLeft, 0, 0},
               {"of", "", Align::kRight, 0, 0},
               {"chips", "", Align::kRight, 1, 0},
               {"joined by", "", Align::kLeft, 0, 10},
               {"topology", "", Align::kLeft, 0, 0},
               {"per member", "one way", Align::kRight, 0, 0},
               {"power", "", Align::kRight, 2, 0}});
  double chips = 1;
  std::string inner = machine.chip().id;
  for (const Group* group : groups) {
    chips *= group->count;
    std::string topology(name(group->fabric.topology));
    if (!group->fabric.dimensions.empty()) topology += fmt::format(" {}", fmt::join(group->fabric.dimensions, "x"));
    table.add_row({group->name, fmt::format("{} x {}", group->count, inner), fmt::format("{:.0f}", chips), group->fabric.name,
                   std::move(topology), known(group->fabric.per_direction), known(group->power_max)});
    inner = group->name;
  }
  return "\n" + table.render(terminal.width, terminal.colour, 2);
}

// Values in rows, with the sources numbered and listed once below.
class Values {
 public:
  void add(std::string path, std::string value, const Provenance& provenance) {
    const bool weak =
        provenance.doubtful || provenance.certainty == Certainty::kRecalled || provenance.certainty == Certainty::kAssumed;
    table_.add_row(
        {std::move(path), std::move(value), certainty_text(provenance), sources_.number_of(provenance.source), provenance.note},
        weak ? Style::kDim : Style::kPlain);
  }

  [[nodiscard]] std::string text(const Terminal& terminal) const {
    if (table_.empty()) return {};
    return "\n" + table_.render(terminal.width, terminal.colour) + "\n" +
           sources_.text("Sources ('?' = doubtful; link values count one direction; --set PATH=VALUE changes a value)",
                         terminal);
  }

 private:
  Table table_{{{"value of", "", Align::kLeft, 0, 18},
                {"", "", Align::kLeft, 0, 14},
                {"certainty", "", Align::kLeft, 0, 0},
                {"source", "", Align::kRight, 0, 0},
                {"note", "", Align::kLeft, 1, 16}}};
  SourceList sources_;
};

void add_prices(Values& values, const std::string& of, const std::vector<Price>& prices) {
  for (const Price& price : prices) {
    const bool rental = price.rate_high > DollarsPerSecond{};
    const std::string low = rental ? to_text(price.rate_low) : to_text(price.purchase_low);
    const std::string high = rental ? to_text(price.rate_high) : to_text(price.purchase_high);
    const std::string path = fmt::format("price of {}: {}{}{}", of, price.kind, price.date.empty() ? "" : ", ", price.date);
    values.add(path, low == high ? low : fmt::format("{} to {}", low, high), price.provenance);
  }
}

}  // namespace

std::string machine_text(const Machine& machine, const Terminal& terminal) {
  const Chip& chip = machine.chip();
  std::string out = fmt::format("{}  {}\n", styled(machine.id, Style::kBold, terminal.colour), machine.name);
  std::vector<std::string> head;
  if (!machine.vendor.empty()) head.push_back(machine.vendor);
  if (machine.root.member) head.push_back(fmt::format("{:.0f} x {}", machine.chip_count(), chip.id));
  if (!chip.architecture.empty()) head.push_back(chip.architecture);
  if (!chip.family.empty()) head.push_back("family " + chip.family);
  if (machine.year > 0) head.push_back(fmt::format("{}", machine.year));
  if (!machine.status.empty()) head.push_back(machine.status);
  out += wrap(fmt::format("{}", fmt::join(head, ", ")), terminal.width);
  if (const Status complete = check_complete(chip); !complete) {
    out += wrap("Not enough is known to analyse it: " + complete.error().message, terminal.width);
  }
  out += "\n" + ladder_text(machine, terminal) + ridges_text(machine, terminal) + groups_text(machine, terminal);

  Values values;
  for (const Property& property : properties(machine)) {
    if (property.path == "chip.price" || property.path == "chip.purchase") continue;  // each is listed below
    if (property.path.ends_with(".instances") && property.value == "1") continue;
    values.add(property.path, property.value, property.provenance);
  }
  add_prices(values, chip.id, chip.prices);
  for (const Group* group : machine.groups()) add_prices(values, group->name, group->prices);
  for (const machine::Fact& fact : machine.facts) values.add(fact.name, fact.value, fact.provenance);
  for (const machine::Fact& fact : chip.facts)
    values.add((machine.root.member ? "chip " : "") + fact.name, fact.value, fact.provenance);
  out += values.text(terminal);
  if (!machine.notes.empty()) out += "\n" + wrap(machine.notes, terminal.width);
  if (machine.root.member && !chip.notes.empty()) {
    out += fmt::format("\n{}", wrap(fmt::format("{}: {}", chip.id, chip.notes), terminal.width));
  }
  return out;
}

std::string fabric_text(const machine::FabricEntry& fabric, const Terminal& terminal) {
  std::string out = fmt::format("{}  {} ({})\n", styled(fabric.id, Style::kBold, terminal.colour), fabric.name, fabric.kind);
  Values values;
  if (fabric.per_direction > BytesPerSecond{}) {
    values.add("bandwidth, one direction", to_text(fabric.per_direction), fabric.provenance.at("bandwidth"));
  }
  if (fabric.latency > Seconds{}) values.add("latency", to_text(fabric.latency), fabric.provenance.at("latency"));
  for (const machine::Fact& fact : fabric.facts) values.add(fact.name, fact.value, fact.provenance);
  out += values.text(terminal);
  if (!fabric.notes.empty()) out += "\n" + wrap(fabric.notes, terminal.width);
  return out;
}

}  // namespace rooftree::report

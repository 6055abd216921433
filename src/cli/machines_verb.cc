// rooftree machines: lists and filters the catalogue, or shows one machine with every value, its source and its doubts.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/unit_text.h"
#include "machine/catalog.h"
#include "machine/catalog_format.h"
#include "report/table.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

using machine::Catalog;
using machine::Certainty;
using machine::Chip;
using machine::Group;
using machine::Machine;
using machine::MemoryLevel;
using machine::Price;
using machine::Property;
using machine::Provenance;
using report::Align;
using report::Style;
using report::Table;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

struct Options {
  std::string name, vendor, kind, min_memory, sort = "id", catalog;
  std::vector<std::string> sets;
  bool only_systems = false, only_chips = false, json = false;
};

// One machine of the list, with the figures that people compare by.
struct Line {
  Machine machine;
  bool is_system = false;
  double chips = 1;
  Bytes memory;              // of all chips
  BytesPerSecond bandwidth;  // of all chips
  FlopPerSecond rate;        // 16-bit products of all chips, dense
  FlopPerByte ridge;
  Watts power;  // of the whole
};

// The type in which a chip is usually compared: bf16, else fp16, else the fastest that it has.
Arithmetic headline(const Chip& chip) {
  for (const Arithmetic a : {Arithmetic::kBf16, Arithmetic::kFp16}) {
    if (product_rate(chip, a) > FlopPerSecond{}) return a;
  }
  auto best = Arithmetic::kFp32;
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto a = static_cast<Arithmetic>(i);
    if (product_rate(chip, a) > product_rate(chip, best)) best = a;
  }
  return best;
}

// What a group draws: its own figure, with overheads, else the sum of its members.
Watts power_of(const Group& group) {
  if (!group.member) return group.chip->power_max;
  return group.power_max > Watts{} ? group.power_max : group.count * power_of(*group.member);
}

Line line_of(Machine machine, bool is_system) {
  Line line;
  const Chip& chip = machine.chip();
  line.chips = machine.chip_count();
  line.memory = chip.main_memory().capacity * line.chips;
  line.bandwidth = chip.main_memory().bandwidth * line.chips;
  line.rate = product_rate(chip, headline(chip)) * line.chips;
  line.ridge = ridge(chip, headline(chip));
  line.power = power_of(machine.root);
  line.is_system = is_system;
  line.machine = std::move(machine);
  return line;
}

// "-" for what is not known.
template <class Q>
std::string shown(Q value) {
  return value > Q{} ? to_text(value) : "-";
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

Status check_choice(std::string_view flag, const std::string& value, const std::vector<std::string>& choices) {
  if (value.empty() || std::find(choices.begin(), choices.end(), value) != choices.end()) return Ok{};
  return Error{ErrorCode::kInvalid, fmt::format("{} '{}'; expected one of {}", flag, value, fmt::join(choices, ", "))};
}

Result<std::vector<Line>> select(const Catalog& catalog, const Options& options) {
  ROOFTREE_TRY_VOID(check_choice("--kind", options.kind, {"gpu", "cpu", "tpu", "dataflow", "npu"}));
  ROOFTREE_TRY_VOID(
      check_choice("--sort", options.sort, {"id", "vendor", "year", "chips", "memory", "bandwidth", "rate", "ridge", "power"}));
  Bytes least;
  if (!options.min_memory.empty()) {
    Result<Bytes> parsed = parse_bytes(options.min_memory);
    if (!parsed) return parsed.error().within("--min-memory");
    least = *parsed;
  }
  std::vector<Line> lines;
  for (const machine::CatalogEntry& entry : catalog.entries()) {
    if (options.only_systems && !entry.is_system) continue;
    if (options.only_chips && entry.is_system) continue;
    if (!options.kind.empty() && entry.kind != options.kind) continue;
    if (!options.vendor.empty() && lower(entry.vendor).find(lower(options.vendor)) == std::string::npos) continue;
    ROOFTREE_TRY(Machine found, catalog.find(entry.id));
    Line line = line_of(std::move(found), entry.is_system);
    if (line.memory < least) continue;
    lines.push_back(std::move(line));
  }
  // Names ascend, quantities descend.
  const auto key = [&](const Line& line) -> double {
    if (options.sort == "year") return line.machine.year;
    if (options.sort == "chips") return line.chips;
    if (options.sort == "memory") return line.memory.value();
    if (options.sort == "bandwidth") return line.bandwidth.value();
    if (options.sort == "rate") return line.rate.value();
    if (options.sort == "ridge") return line.ridge.value();
    if (options.sort == "power") return line.power.value();
    return 0;
  };
  std::stable_sort(lines.begin(), lines.end(), [&](const Line& a, const Line& b) {
    if (options.sort == "vendor") return lower(a.machine.vendor) < lower(b.machine.vendor);
    return key(a) > key(b);
  });
  return lines;
}

void print_list(const std::vector<Line>& lines, const report::Terminal& terminal) {
  Table table({{"machine", "", Align::kLeft, 0, 0},
               {"vendor", "", Align::kLeft, 6, 6},
               {"kind", "", Align::kLeft, 5, 0},
               {"year", "", Align::kRight, 7, 0},
               {"chips", "", Align::kRight, 3, 0},
               {"memory", "", Align::kRight, 0, 0},
               {"bandwidth", "", Align::kRight, 0, 0},
               {"16-bit", "", Align::kRight, 1, 0},
               {"ridge", "FLOP/B", Align::kRight, 2, 0},
               {"power", "", Align::kRight, 4, 0},
               {"name", "", Align::kLeft, 8, 12}});
  for (const Line& line : lines) {
    const Chip& chip = line.machine.chip();
    table.add_row({line.machine.id, line.machine.vendor, std::string(name(chip.kind)),
                   line.machine.year > 0 ? fmt::format("{}", line.machine.year) : "", fmt::format("{:.0f}", line.chips),
                   shown(line.memory), shown(line.bandwidth), shown(line.rate),
                   line.ridge > FlopPerByte{} ? report::number(line.ridge.value()) : "-", shown(line.power), line.machine.name},
                  check_complete(chip) ? Style::kPlain : Style::kDim);
  }
  fmt::print("{}", table.render(terminal.width, terminal.colour));
  fmt::print(
      "\n{} machines. 16-bit: dense bf16 (else fp16, else the fastest type) of all chips; ridge: that rate over the bandwidth "
      "of "
      "main memory.\n`rooftree machines NAME` shows one with its sources.\n",
      lines.size());
}

Json provenance_json(const Provenance& provenance) {
  Json out;
  out["certainty"] = name(provenance.certainty);
  out["source"] = provenance.source;
  if (!provenance.note.empty()) out["note"] = provenance.note;
  if (provenance.doubtful) out["doubtful"] = true;
  return out;
}

Json line_json(const Line& line) {
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
  const auto known = [&out](const char* key, double value) { out[key] = value > 0 ? Json(value) : Json(nullptr); };
  known("memory_bytes", line.memory.value());
  known("bandwidth_bytes_per_s", line.bandwidth.value());
  out["headline_type"] = rooftree::name(headline(chip));
  known("headline_flop_per_s", line.rate.value());
  known("ridge_flop_per_byte", line.ridge.value());
  known("power_w", line.power.value());
  return out;
}

Json machine_json(const Machine& machine) {
  Json out = line_json(line_of(machine, machine.root.member != nullptr));
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

// The ladder as a picture: the wider the bar, the larger the level (five columns per factor of 32); between two levels the
// bandwidth of the outer one and the intensity from which the arithmetic is the limit there.
void print_ladder(const Machine& machine, const report::Terminal& terminal) {
  const Chip& chip = machine.chip();
  const Arithmetic a = headline(chip);
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
    std::string text = fmt::format("{}  {}", level.name, shown(level.capacity));
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
  fmt::print("  {} {}\n", rooftree::name(a), shown(rate));
  for (const Level& level : levels) {
    std::string between = "  │ ";
    if (level.bandwidth > 0) {
      between += fmt::format(
          "{:<13}{}", to_text(BytesPerSecond{level.bandwidth}),
          rate > FlopPerSecond{} ? fmt::format("ridge {:>9}", report::number(rate.value() / level.bandwidth) + " FLOP/B") : "");
      if (!level.note.empty()) between += "  " + level.note;
    } else {
      between += "bandwidth unknown";
    }
    fmt::print("{}\n", report::shorten(between, terminal.width));
    const int width = level.capacity > 0 ? std::clamp(static_cast<int>(std::log2(level.capacity) - 14), 1, widest) : 1;
    std::string bar;
    for (int i = 0; i < width; ++i) bar += "█";
    fmt::print("  {} {}\n", bar, level.label);
  }
}

void print_ridges(const Machine& machine, const report::Terminal& terminal) {
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
    table.add_row({std::string(rooftree::name(a)), shown(rate.matrix), shown(rate.vector),
                   rate.sparse_2to4 > 1 ? fmt::format("{:.4g}x", rate.sparse_2to4) : "-",
                   at > FlopPerByte{} ? report::number(at.value()) : "-"});
  }
  if (!table.empty())
    fmt::print("\nRates per chip, dense, and their ridges at {}\n{}", chip.main_memory().name,
               table.render(terminal.width, terminal.colour, 2));
}

void print_groups(const Machine& machine, const report::Terminal& terminal) {
  const std::vector<const Group*> groups = machine.groups();
  if (groups.empty()) return;
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
                   std::move(topology), shown(group->fabric.per_direction), shown(group->power_max)});
    inner = group->name;
  }
  fmt::print("\n{}", table.render(terminal.width, terminal.colour, 2));
}

// Values in rows, with the sources numbered and listed once below.
class Values {
 public:
  void add(std::string path, std::string value, const Provenance& provenance) {
    std::string certainty(name(provenance.certainty));
    if (provenance.doubtful) certainty += "?";
    const bool weak =
        provenance.doubtful || provenance.certainty == Certainty::kRecalled || provenance.certainty == Certainty::kAssumed;
    table_.add_row({std::move(path), std::move(value), std::move(certainty), number_of(provenance.source), provenance.note},
                   weak ? Style::kDim : Style::kPlain);
  }

  void print(const report::Terminal& terminal) const {
    if (table_.empty()) return;
    fmt::print("\n{}", table_.render(terminal.width, terminal.colour));
    fmt::print("\nSources ('?' = doubtful; link values count one direction; --set PATH=VALUE changes a value)\n");
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      fmt::print("{}", report::wrap(fmt::format("[{}] {}", i + 1, sources_[i]), terminal.width, 2, 6));
    }
  }

 private:
  std::string number_of(const std::string& source) {
    if (source.empty()) return "";
    auto it = std::find(sources_.begin(), sources_.end(), source);
    if (it == sources_.end()) it = sources_.insert(sources_.end(), source);
    return fmt::format("[{}]", it - sources_.begin() + 1);
  }

  Table table_{{{"value of", "", Align::kLeft, 0, 18},
                {"", "", Align::kLeft, 0, 14},
                {"certainty", "", Align::kLeft, 0, 0},
                {"source", "", Align::kRight, 0, 0},
                {"note", "", Align::kLeft, 1, 16}}};
  std::vector<std::string> sources_;
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

void print_machine(const Machine& machine, const report::Terminal& terminal) {
  const Chip& chip = machine.chip();
  fmt::print("{}  {}\n", report::styled(machine.id, Style::kBold, terminal.colour), machine.name);
  std::vector<std::string> head;
  if (!machine.vendor.empty()) head.push_back(machine.vendor);
  if (machine.root.member) head.push_back(fmt::format("{:.0f} x {}", machine.chip_count(), chip.id));
  if (!chip.architecture.empty()) head.push_back(chip.architecture);
  if (!chip.family.empty()) head.push_back("family " + chip.family);
  if (machine.year > 0) head.push_back(fmt::format("{}", machine.year));
  if (!machine.status.empty()) head.push_back(machine.status);
  fmt::print("{}", report::wrap(fmt::format("{}", fmt::join(head, ", ")), terminal.width));
  if (const Status complete = check_complete(chip); !complete) {
    fmt::print("{}", report::wrap("Not enough is known to analyse it: " + complete.error().message, terminal.width));
  }
  fmt::print("\n");
  print_ladder(machine, terminal);
  print_ridges(machine, terminal);
  print_groups(machine, terminal);

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
  values.print(terminal);
  if (!machine.notes.empty()) fmt::print("\n{}", report::wrap(machine.notes, terminal.width));
  if (machine.root.member && !chip.notes.empty()) {
    fmt::print("\n{}", report::wrap(fmt::format("{}: {}", chip.id, chip.notes), terminal.width));
  }
}

void print_fabric(const machine::FabricEntry& fabric, const report::Terminal& terminal) {
  fmt::print("{}  {} ({})\n", report::styled(fabric.id, Style::kBold, terminal.colour), fabric.name, fabric.kind);
  Values values;
  if (fabric.per_direction > BytesPerSecond{}) {
    values.add("bandwidth, one direction", to_text(fabric.per_direction), fabric.provenance.at("bandwidth"));
  }
  if (fabric.latency > Seconds{}) values.add("latency", to_text(fabric.latency), fabric.provenance.at("latency"));
  for (const machine::Fact& fact : fabric.facts) values.add(fact.name, fact.value, fact.provenance);
  values.print(terminal);
  if (!fabric.notes.empty()) fmt::print("\n{}", report::wrap(fabric.notes, terminal.width));
}

Status run(const Options& options) {
  ROOFTREE_TRY(const Catalog catalog,
               options.catalog.empty() ? Catalog::from_environment() : Catalog::from_directory(options.catalog));
  const report::Terminal terminal = report::terminal(1);
  if (options.name.empty()) {
    if (!options.sets.empty()) {
      return Error{ErrorCode::kInvalid, "--set without a machine; expected `rooftree machines NAME --set PATH=VALUE`"};
    }
    ROOFTREE_TRY(const std::vector<Line> lines, select(catalog, options));
    if (options.json) {
      Json out = Json::array();
      for (const Line& line : lines) out.push_back(line_json(line));
      fmt::print("{}\n", out.dump(2));
    } else {
      print_list(lines, terminal);
    }
    return Ok{};
  }
  Result<Machine> found = catalog.resolve(options.name);
  if (!found) {
    // Links and switches stand in the catalogue too.
    const Result<machine::FabricEntry> fabric = catalog.find_fabric(options.name);
    if (found.error().code != ErrorCode::kNotFound || !fabric || options.json || !options.sets.empty()) return found.error();
    print_fabric(*fabric, terminal);
    return Ok{};
  }
  for (const std::string& set : options.sets) ROOFTREE_TRY_VOID(apply_override(*found, set));
  if (options.json) {
    fmt::print("{}\n", machine_json(*found).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    print_machine(*found, terminal);
  }
  return Ok{};
}

}  // namespace

void add_machines_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("machines", "list the machines of the catalogue, or show one with its sources");
  verb->add_option("name", options->name, "a machine: an id, '8x ID', 'this' or a JSON file; or a link such as nvlink-5");
  verb->add_option("--set", options->sets, "change a value, e.g. chip.dram.bandwidth=\"8 TB/s\" (repeatable)")
      ->allow_extra_args(false);
  verb->add_option("--vendor", options->vendor, "only this vendor (part of its name)");
  verb->add_option("--kind", options->kind, "only gpu, cpu, tpu, dataflow or npu");
  verb->add_option("--min-memory", options->min_memory, "only machines with at least this main memory, e.g. 80GB");
  CLI::Option* systems = verb->add_flag("--system", options->only_systems, "only systems of several chips");
  verb->add_flag("--chip", options->only_chips, "only single chips")->excludes(systems);
  verb->add_option("--sort", options->sort, "id, vendor, year, chips, memory, bandwidth, rate, ridge or power");
  verb->add_option("--catalog", options->catalog, "a folder to use instead of the built-in catalogue");
  verb->add_flag("--json", options->json, "print JSON");
  verb->callback([options, &exit_code] {
    if (const Status status = run(*options); !status) exit_code = report_error(status.error());
  });
}

}  // namespace rooftree::cli

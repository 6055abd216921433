#include "report/machine_list.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "report/table.h"

namespace rooftree::report {
namespace {

using machine::Chip;
using machine::Group;
using machine::Machine;

// What a group draws: its own figure, with overheads, else the sum of its members.
Watts power_of(const Group& group) {
  if (!group.member) return group.chip->power_max;
  return group.power_max > Watts{} ? group.power_max : group.count * power_of(*group.member);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

template <std::size_t N>
Status check_choice(std::string_view flag, const std::string& value, const std::array<std::string_view, N>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return Ok{};
  return Error{ErrorCode::kInvalid, fmt::format("{} '{}'; expected one of {}", flag, value, fmt::join(choices, ", "))};
}

}  // namespace

Arithmetic comparison_arithmetic(const Chip& chip) {
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

MachineLine machine_line(Machine machine) {
  MachineLine line;
  const Chip& chip = machine.chip();
  line.chips = machine.chip_count();
  line.memory = chip.main_memory().capacity * line.chips;
  line.bandwidth = chip.main_memory().bandwidth * line.chips;
  line.rate = product_rate(chip, comparison_arithmetic(chip)) * line.chips;
  line.ridge = ridge(chip, comparison_arithmetic(chip));
  line.power = power_of(machine.root);
  line.is_system = machine.root.member != nullptr;
  line.machine = std::move(machine);
  return line;
}

Result<std::vector<MachineLine>> select_machines(const machine::Catalog& catalog, const MachineFilter& filter) {
  constexpr std::array<std::string_view, 5> kKinds = {"gpu", "cpu", "tpu", "dataflow", "npu"};
  if (!filter.kind.empty()) ROOFTREE_TRY_VOID(check_choice("--kind", filter.kind, kKinds));
  const std::string vendor = lower(filter.vendor);
  std::vector<MachineLine> lines;
  for (const machine::CatalogEntry& entry : catalog.entries()) {
    if (filter.only_systems && !entry.is_system) continue;
    if (filter.only_chips && entry.is_system) continue;
    if (!filter.kind.empty() && entry.kind != filter.kind) continue;
    if (lower(entry.vendor).find(vendor) == std::string::npos) continue;
    ROOFTREE_TRY(Machine found, catalog.find(entry.id));
    MachineLine line = machine_line(std::move(found));
    if (line.memory < filter.least_memory) continue;
    lines.push_back(std::move(line));
  }
  return lines;
}

Status sort_machines(std::vector<MachineLine>& lines, const std::string& key) {
  constexpr std::array<std::string_view, 9> kKeys = {"id",        "vendor", "year",  "chips", "memory",
                                                     "bandwidth", "rate",   "ridge", "power"};
  ROOFTREE_TRY_VOID(check_choice("--sort", key, kKeys));
  const auto quantity = [&key](const MachineLine& line) -> double {
    if (key == "year") return line.machine.year;
    if (key == "chips") return line.chips;
    if (key == "memory") return line.memory.value();
    if (key == "bandwidth") return line.bandwidth.value();
    if (key == "rate") return line.rate.value();
    if (key == "ridge") return line.ridge.value();
    return line.power.value();
  };
  std::stable_sort(lines.begin(), lines.end(), [&](const MachineLine& a, const MachineLine& b) {
    if (key == "id") return a.machine.id < b.machine.id;
    if (key == "vendor") return lower(a.machine.vendor) < lower(b.machine.vendor);
    return quantity(a) > quantity(b);
  });
  return Ok{};
}

std::string machine_list_text(const std::vector<MachineLine>& lines, const Terminal& terminal) {
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
  for (const MachineLine& line : lines) {
    const Chip& chip = line.machine.chip();
    table.add_row({line.machine.id, line.machine.vendor, std::string(name(chip.kind)),
                   line.machine.year > 0 ? fmt::format("{}", line.machine.year) : "", fmt::format("{:.0f}", line.chips),
                   known(line.memory), known(line.bandwidth), known(line.rate),
                   line.ridge > FlopPerByte{} ? number(line.ridge.value()) : "-", known(line.power), line.machine.name},
                  check_complete(chip) ? Style::kPlain : Style::kDim);
  }
  std::string out = table.render(terminal.width, terminal.colour) + "\n";
  out += wrap(fmt::format("{} machines. 16-bit: dense bf16 (else fp16, else the fastest type) of all chips; ridge: that rate "
                          "over the bandwidth of main memory.",
                          lines.size()),
              terminal.width);
  out += "`rooftree machines NAME` shows one with its sources.\n";
  return out;
}

FlopPerSecond rate_of(const MachineLine& line, Arithmetic arithmetic) {
  return product_rate(line.machine.chip(), arithmetic) * line.chips;
}

std::string per_watt_text(const std::vector<MachineLine>& lines, bool against_first, const Terminal& terminal) {
  // Types worth a column, the most used ones last to be dropped.
  struct Type {
    Arithmetic arithmetic;
    int priority;
  };
  std::vector<Type> types;
  for (const Type type :
       {Type{Arithmetic::kFp64, 5}, Type{Arithmetic::kFp32, 4}, Type{Arithmetic::kBf16, 0}, Type{Arithmetic::kFp16, 3},
        Type{Arithmetic::kFp8, 1}, Type{Arithmetic::kInt8, 2}, Type{Arithmetic::kFp4, 1}}) {
    const bool used = std::any_of(lines.begin(), lines.end(),
                                  [&](const MachineLine& line) { return rate_of(line, type.arithmetic) > FlopPerSecond{}; });
    if (used) types.push_back(type);
  }
  std::vector<Column> columns{
      {"machine", "", Align::kLeft, 0, 12}, {"chips", "", Align::kRight, 6}, {"power", "", Align::kRight}};
  for (const Type& type : types) {
    columns.push_back({std::string(rooftree::name(type.arithmetic)), "GFLOP/s/W", Align::kRight, type.priority});
  }
  columns.push_back({"bandwidth", "GB/s/W", Align::kRight, 0});
  columns.push_back({"memory", "GiB/W", Align::kRight, 1});
  Table table(columns);
  const auto per_watt = [](double quantity, double unit, Watts power) {
    return quantity > 0 && power > Watts{} ? number(quantity / unit / power.value()) : std::string("-");
  };
  for (const MachineLine& line : lines) {
    std::vector<std::string> row{line.machine.id, fmt::format("{:.0f}", line.chips), known(line.power)};
    for (const Type& type : types) row.push_back(per_watt(rate_of(line, type.arithmetic).value(), 1e9, line.power));
    row.push_back(per_watt(line.bandwidth.value(), 1e9, line.power));
    row.push_back(per_watt(line.memory.value(), 1024.0 * 1024 * 1024, line.power));
    table.add_row(std::move(row));
  }
  std::string out = table.render(terminal.width, terminal.colour) + "\n";
  if (against_first && lines.size() > 1 && lines.front().power > Watts{}) {
    const MachineLine& first = lines.front();
    const auto fastest = [&types](const MachineLine& line) {
      return std::max_element(
                 types.begin(), types.end(),
                 [&line](const Type& a, const Type& b) { return rate_of(line, a.arithmetic) < rate_of(line, b.arithmetic); })
          ->arithmetic;
    };
    for (std::size_t i = 1; i < lines.size(); ++i) {
      const MachineLine& line = lines[i];
      if (!(line.power > Watts{})) continue;
      const double watts = line.power / first.power;
      std::vector<std::string> parts;
      const auto add = [&](std::string_view what, double quantity, double of_first) {
        if (quantity > 0 && of_first > 0) parts.push_back(fmt::format("{} {:.2f}x", what, quantity / of_first / watts));
      };
      for (const Type& type : types) {
        add(rooftree::name(type.arithmetic), rate_of(line, type.arithmetic).value(), rate_of(first, type.arithmetic).value());
      }
      if (types.empty()) continue;
      const Arithmetic best = fastest(line);
      const Arithmetic best_of_first = fastest(first);
      if (best != best_of_first) {
        add(fmt::format("{} over {}", rooftree::name(best), rooftree::name(best_of_first)), rate_of(line, best).value(),
            rate_of(first, best_of_first).value());
      }
      add("bandwidth", line.bandwidth.value(), first.bandwidth.value());
      add("memory", line.memory.value(), first.memory.value());
      out += wrap(fmt::format("{} against {}, per watt: {}.", line.machine.id, first.machine.id, fmt::join(parts, ", ")),
                  terminal.width, 0, 2);
    }
  }
  out += wrap(
      "Dense rates of all chips and their main memory over the power of the whole: the system's own figure with its "
      "overheads, else the sum of its chips.",
      terminal.width);
  return out;
}

}  // namespace rooftree::report

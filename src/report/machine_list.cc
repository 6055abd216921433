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

}  // namespace rooftree::report

#pragma once

// Many machines side by side: which of the catalogue, in which order, and the figures that people compare them by.

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unit_text.h"
#include "machine/catalog.h"
#include "report/text.h"

namespace rooftree::report {

// One machine of a list; quantities are of all its chips together, zero = unknown.
struct MachineLine {
  machine::Machine machine;
  bool is_system = false;
  double chips = 1;
  Bytes memory;
  BytesPerSecond bandwidth;
  FlopPerSecond rate;  // dense products in comparison_arithmetic
  FlopPerByte ridge;   // that rate over the bandwidth of main memory
  Watts power;         // of the whole, with its overheads where the system states them
};
[[nodiscard]] MachineLine machine_line(machine::Machine machine);

// The quantity as text; "-" where it is not known.
template <class Q>
[[nodiscard]] std::string known(Q value) {
  return value > Q{} ? to_text(value) : "-";
}

// The type in which a chip is usually compared: bf16, else fp16, else the fastest that it has.
[[nodiscard]] Arithmetic comparison_arithmetic(const machine::Chip& chip);

// What to list; empty = all.
struct MachineFilter {
  std::string vendor;  // part of its name, letter case ignored
  std::string kind;    // "gpu", "cpu", "tpu", "dataflow", "npu"
  Bytes least_memory;
  bool only_systems = false, only_chips = false;
};
// Fails on an unknown kind and where a machine of the catalogue cannot be read.
Result<std::vector<MachineLine>> select_machines(const machine::Catalog& catalog, const MachineFilter& filter);

// Sorts by "id", "vendor" (ascending), "year", "chips", "memory", "bandwidth", "rate", "ridge" or "power" (largest first);
// equal ones keep their order. Fails on another key.
Status sort_machines(std::vector<MachineLine>& lines, const std::string& key);

// Dense products of all chips; zero = the chip has none of this type.
[[nodiscard]] FlopPerSecond rate_of(const MachineLine& line, Arithmetic arithmetic);

[[nodiscard]] std::string machine_list_text(const std::vector<MachineLine>& lines, const Terminal& terminal);
// The same machines per watt of the whole: dense rates by type, bandwidth and capacity of main memory. With `against_first`
// each one is also set in proportion to the first, type by type and by the fastest type that each has.
[[nodiscard]] std::string per_watt_text(const std::vector<MachineLine>& lines, bool against_first, const Terminal& terminal);

}  // namespace rooftree::report

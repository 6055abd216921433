#pragma once

// Machines as JSON: every key carries its unit, what is not known is null.

#include <string>
#include <vector>

#include "report/machine_list.h"

namespace rooftree::report {

[[nodiscard]] std::string machine_list_json_text(const std::vector<MachineLine>& lines);
// One machine with its ladder, groups, values and prices, each with its source.
[[nodiscard]] std::string machine_json_text(const machine::Machine& machine);

}  // namespace rooftree::report

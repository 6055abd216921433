#pragma once

// One machine, or one link, in words and tables: its ladder as a picture, its rates and ridges, its groups, and every value
// with its source.

#include <string>

#include "machine/catalog_format.h"
#include "machine/machine.h"
#include "report/text.h"

namespace rooftree::report {

[[nodiscard]] std::string machine_text(const machine::Machine& machine, const Terminal& terminal);
[[nodiscard]] std::string fabric_text(const machine::FabricEntry& fabric, const Terminal& terminal);

}  // namespace rooftree::report

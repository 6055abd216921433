#pragma once

// What belongs to no machine: memory standards per stack, what owning and powering machines costs, what a hop takes.

#include <string>

#include "base/result.h"
#include "machine/conventions.h"
#include "report/text.h"

namespace rooftree::report {

struct Standards {
  std::vector<machine::MemoryStandard> memory;
  machine::CostConventions cost;
  std::vector<machine::LatencyFact> latencies;
};
Result<Standards> standards(const machine::Catalog& catalog);

[[nodiscard]] std::string standards_text(const Standards& standards, const Terminal& terminal);
[[nodiscard]] std::string standards_json_text(const Standards& standards);

}  // namespace rooftree::report

#pragma once

// Numbers that belong to no machine: what energy costs, what a data centre adds, how much memory standards give per stack. They
// are read from catalog/conventions, where each has its source.

#include <string>
#include <vector>

#include "base/unit_text.h"
#include "machine/catalog.h"

namespace rooftree::machine {

template <class T>
struct Sourced {
  T value{};
  Provenance provenance;
};

struct CostConventions {
  Sourced<double> pue_average;  // whole facility over machines, industry average
  Sourced<double> pue_hyperscale;
  Sourced<double> pue_planning;  // for new AI sites
  Sourced<DollarsPerJoule> energy_price;
  DollarsPerJoule energy_price_low, energy_price_high;
  Sourced<double> average_draw;  // share of TDP drawn on average
  Sourced<Seconds> amortisation;
  Sourced<double> host_share;  // power of a server over the power of its accelerators
};
Result<CostConventions> cost_conventions(const Catalog& catalog);

// One stack of high-bandwidth memory by its standard; ranges where products differ.
struct MemoryStandard {
  std::string id, name;
  BytesPerSecond pin_rate_low, pin_rate_high;
  BytesPerSecond stack_low, stack_high;
  Bytes stack_capacity_max;      // zero = not given
  std::string stack_capacities;  // of products, as written: "36 GB, 48 GB"; empty = not given
  Provenance provenance;         // of the stack's bandwidth
};
Result<std::vector<MemoryStandard>> memory_standards(const Catalog& catalog);

// What one hop, message or access takes; high = low where one figure is given.
struct LatencyFact {
  std::string id, name;
  Seconds low, high;
  Provenance provenance;
};
Result<std::vector<LatencyFact>> latencies(const Catalog& catalog);

}  // namespace rooftree::machine

#pragma once

// What owning a chip costs beside its price, by the conventions of the built-in catalogue (catalog/conventions/
// cost_and_energy.json, where each figure has its source).

#include "base/unit_text.h"
#include "base/units.h"

namespace rooftree::cost {

struct Ownership {
  Seconds service;         // over which a purchase is written off
  DollarsPerJoule energy;  // per joule that the chip draws: the price of energy times the overhead of the building (PUE)
};

// Read once, on first use.
[[nodiscard]] const Ownership& ownership();

}  // namespace rooftree::cost

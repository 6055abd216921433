#include "cost/ownership.h"

#include "base/check.h"
#include "machine/conventions.h"

namespace rooftree::cost {

const Ownership& ownership() {
  static const Ownership kOwnership = [] {
    const Result<machine::CostConventions> conventions = machine::cost_conventions(machine::Catalog::builtin());
    ROOFTREE_CHECK(conventions.has_value(), "the built-in cost conventions must be readable");
    return Ownership{conventions->amortisation.value, conventions->energy_price.value * conventions->pue_planning.value};
  }();
  return kOwnership;
}

}  // namespace rooftree::cost

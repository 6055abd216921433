#include "machine/catalog.h"
#include "probe/probe.h"

namespace rooftree::probe {

Status save_this_machine(const machine::Machine& machine) {
  return write_atomically(machine::this_machine_path().string(), machine::to_catalog_json(machine));
}

}  // namespace rooftree::probe

#pragma once

// Machines of the built-in catalogue for the tests of this layer.

#include <gtest/gtest.h>

#include <string_view>

#include "machine/catalog.h"

namespace rooftree::machine::test {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

inline Machine found(std::string_view id) {
  Result<Machine> machine = Catalog::builtin().resolve(id);
  EXPECT_TRUE(machine.has_value()) << (machine ? "" : machine.error().message);
  return machine ? *machine : Machine{};
}

}  // namespace rooftree::machine::test

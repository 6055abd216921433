#include "machine/catalog.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "base/embedded.h"
#include "machine/catalog_format.h"

namespace rooftree::machine {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

Machine found(std::string_view id) {
  Result<Machine> machine = Catalog::builtin().resolve(id);
  EXPECT_TRUE(machine.has_value()) << (machine ? "" : machine.error().message);
  return machine ? *machine : Machine{};
}

TEST(Catalog, EveryFileLoads) {
  const Result<Catalog> folder = Catalog::from_directory(std::filesystem::path(ROOFTREE_SOURCE_DIR) / "catalog");
  ASSERT_TRUE(folder.has_value()) << folder.error().message;
  EXPECT_EQ(folder->entries().size(), Catalog::builtin().entries().size());
  EXPECT_GE(folder->entries().size(), 72U);
}

TEST(Catalog, RidgeOfTheA100) {
  const Chip chip = found("nvidia-a100-sxm-80").chip();
  EXPECT_NEAR(ridge(chip, Arithmetic::kBf16).value(), 153.0, 0.1);
  EXPECT_NEAR(ridge(chip, Arithmetic::kTf32).value(), 76.5, 0.1);
  EXPECT_NEAR(ridge(chip, Arithmetic::kFp32).value(), 9.6, 0.05);
  EXPECT_EQ(chip.main_memory().capacity.value(), 80 * kGiB);
  EXPECT_NEAR(ridge(found("nvidia-a100-sxm-40").chip(), Arithmetic::kBf16).value(), 201, 0.5);
}

}  // namespace
}  // namespace rooftree::machine

#include "machine/catalog.h"

#include <gtest/gtest.h>

#include <cctype>
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

TEST(Catalog, NamesAreUniqueAndFound) {
  std::map<std::string, std::string> owner;
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    const Machine machine = found(entry.id);
    const std::vector<std::string>& aliases = entry.is_system ? machine.aliases : machine.chip().aliases;
    for (std::string alias : aliases) {
      EXPECT_EQ(found(alias).id, entry.id) << alias;
      for (char& c : alias) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      EXPECT_TRUE(owner.emplace(alias, entry.id).second) << alias << " belongs to " << owner[alias] << " and " << entry.id;
    }
  }
  EXPECT_EQ(found("nvidia a100-sxm4-80gb").id, "nvidia-a100-sxm-80");
  EXPECT_EQ(found("AMD_Instinct_MI100").id, "amd-mi100");
}

TEST(Catalog, OnlyAnnouncedChipsAreIncomplete) {
  std::string incomplete;
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    if (!entry.is_system && !check_complete(found(entry.id).chip())) incomplete += entry.id + " ";
  }
  EXPECT_EQ(incomplete, "nvidia-feynman nvidia-rubin-ultra sapeon-x330 ");
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

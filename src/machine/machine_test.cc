#include "machine/machine.h"

#include <gtest/gtest.h>

#include "machine/catalog.h"
#include "machine/catalog_format.h"
#include "machine/conventions.h"
#include "machine/test_machines.h"

namespace rooftree::machine {
namespace {

using test::found;
using test::kGiB;

TEST(Machine, DojoAgreesWithItself) {
  // 354 nodes x 512 flop x 2 GHz = 362 TFLOP/s; 354 x 1.25 MB = 442.5 MB; 25 = 11.06 GB per tile; 3000 chips = 1.33 TB.
  const Chip d1 = found("tesla-dojo-d1").chip();
  EXPECT_EQ(d1.cores, 354);
  EXPECT_NEAR(d1.cores * 512.0 * d1.clock.value(), product_rate(d1, Arithmetic::kBf16).value(), 1e12);
  EXPECT_DOUBLE_EQ(d1.main_memory().capacity.value(), 442.5e6);
  EXPECT_TRUE(d1.main_memory().managed);
  const Machine tile = found("dojo-training-tile");
  EXPECT_EQ(tile.chip_count(), 25);
  EXPECT_NEAR(tile.chip_count() * d1.main_memory().capacity.value(), 11.06e9, 0.01e9);
  EXPECT_NEAR(tile.chip_count() * product_rate(d1, Arithmetic::kBf16).value(), 9.05e15, 0.01e15);
  EXPECT_EQ(tile.root.fabric.dimensions, (std::vector<int>{5, 5}));
  // 4 edges of 144 lanes at 112 Gb/s, one direction.
  EXPECT_NEAR(tile.root.fabric.per_direction.value(), 4 * 144 * 112e9 / 8, 1e9);
  const Machine pod = found("dojo-exapod");
  EXPECT_EQ(pod.chip_count(), 3000);
  std::vector<std::string> names;
  for (const Group* group : pod.groups()) names.push_back(group->name);
  EXPECT_EQ(names, (std::vector<std::string>{"tile", "tray", "cabinet", "exapod"}));
  // 20 trays x 20 interface processors x 32 GB.
  EXPECT_NEAR(pod.host_per_chip().memory_capacity.value() * pod.chip_count(), 12.8e12, 1e9);
}

TEST(Machine, Nvl72) {
  const Machine rack = found("gb200-nvl72");
  EXPECT_EQ(rack.chip_count(), 72);
  // 72 x 186 GB = 13.4 TB as labelled; the parts are binary.
  EXPECT_NEAR(rack.chip_count() * rack.chip().main_memory().capacity.value() / kGiB, 13.4e3, 10);
  EXPECT_NEAR(rack.chip_count() * rack.chip().main_memory().bandwidth.value(), 576e12, 1e9);
  EXPECT_NEAR(rack.chip_count() * product_rate(rack.chip(), Arithmetic::kFp4).value(), 720e15, 1e12);
  // Bisection counts one direction of half the chips, not the 130 TB/s of all links in both.
  EXPECT_NEAR(rack.root.fabric.bisection.value(), 36 * rack.root.fabric.per_direction.value(), 1e9);
  // One Grace of 480 GB per two GPUs.
  EXPECT_DOUBLE_EQ(rack.host_per_chip().memory_capacity.value(), 240e9);
  EXPECT_TRUE(rack.root.fabric.in_network_reduction);
}

TEST(Machine, TorusShapesHoldTheirChips) {
  for (const char* id : {"tpu-v4-pod", "tpu-v5e-pod", "tpu-v5p-pod", "tpu-v6e-pod", "tpu-v7-pod"}) {
    const Machine pod = found(id);
    double product = 1;
    for (const int d : pod.root.fabric.dimensions) product *= d;
    EXPECT_EQ(product, pod.chip_count()) << id;
  }
  EXPECT_EQ(found("tpu-v5p-pod").root.fabric.dimensions, (std::vector<int>{16, 20, 28}));
  EXPECT_EQ(found("tpu-v5p-pod").root.fabric.topology, Topology::kTorus3d);
}

TEST(Machine, HostOfANodeIsShared) {
  const Machine dgx = found("dgx-h100");
  EXPECT_EQ(dgx.chip_count(), 8);
  EXPECT_DOUBLE_EQ(dgx.host_per_chip().memory_capacity.value(), 2e12 / 8);
  EXPECT_DOUBLE_EQ(dgx.host_per_chip().memory_bandwidth.value(), 614.4e9 / 8);
  EXPECT_DOUBLE_EQ(dgx.host_per_chip().disk_read.value(), 7e9);
  EXPECT_EQ(dgx.host_per_chip().cpu, "2x Xeon 8480C");
  EXPECT_FALSE(dgx.provenance.contains("host.memory.capacity"));  // the assumption for a bare chip is gone
}

TEST(Machine, BareChipAssumesAHostAndSaysSo) {
  const Machine chip = found("nvidia-h100-sxm");
  EXPECT_DOUBLE_EQ(chip.host_per_chip().memory_capacity.value(), 160 * kGiB);
  EXPECT_EQ(chip.provenance.at("host.memory.capacity").certainty, Certainty::kAssumed);
  // A small card still sits in a machine with memory.
  EXPECT_DOUBLE_EQ(found("nvidia-p4").host_per_chip().memory_capacity.value(), 64 * kGiB);
  // What is or shares the host's memory has none behind it.
  EXPECT_EQ(found("apple-m2-ultra").host_per_chip().memory_capacity.value(), 0);
  EXPECT_EQ(found("intel-xeon-8480p").host_per_chip().memory_capacity.value(), 0);
  EXPECT_GT(found("apple-m2-ultra").host_per_chip().disk_read.value(), 0);
}

TEST(Machine, CountsFillDomainsFirst) {
  const Machine eight = found("8x nvidia-h100-sxm");
  EXPECT_EQ(eight.chip_count(), 8);
  EXPECT_EQ(eight.id, "8x nvidia-h100-sxm");
  EXPECT_EQ(eight.root.name, "node");
  EXPECT_EQ(eight.root.fabric.topology, Topology::kSwitch);
  EXPECT_EQ(eight.root.fabric.per_direction.value(), 450e9);
  const Machine two_nodes = found("16x nvidia-h100-sxm");
  EXPECT_EQ(two_nodes.chip_count(), 16);
  ASSERT_EQ(two_nodes.groups().size(), 2U);
  EXPECT_EQ(two_nodes.root.name, "cluster");
  EXPECT_EQ(two_nodes.root.fabric.provenance.certainty, Certainty::kAssumed);
  const Machine fleet = found("2048x dgx-h100");
  EXPECT_EQ(fleet.chip_count(), 16384);
  EXPECT_EQ(fleet.root.fabric.per_direction.value(), 400e9);
  EXPECT_EQ(fleet.root.fabric.topology, Topology::kFatTree);
  // Point to point links reach one peer with their share only.
  EXPECT_EQ(found("8x amd-mi300x").root.fabric.topology, Topology::kFullyConnected);
  EXPECT_EQ(found("256x google-tpu-v5e").root.fabric.dimensions, (std::vector<int>{16, 16}));
  EXPECT_TRUE(found("64x google-tpu-v5e").root.fabric.dimensions.empty());
  // Cards without links of their own meet over the host's.
  const Machine cards = found("2 x nvidia-l40s");
  EXPECT_EQ(cards.root.fabric.per_direction.value(), 31.5e9);
  EXPECT_EQ(cards.root.fabric.provenance.certainty, Certainty::kAssumed);
  EXPECT_EQ(found("1x nvidia-l40s").chip_count(), 1);
  EXPECT_EQ(found("4x 8x nvidia-h100-sxm").chip_count(), 32);
}

TEST(Machine, CountsThatDoNotFitAreRefused) {
  const auto message = [](const char* spec) {
    const Result<Machine> machine = Catalog::builtin().resolve(spec);
    return machine ? std::string("accepted") : machine.error().message;
  };
  EXPECT_EQ(message("12x nvidia-h100-sxm"),
            "'12x nvidia-h100-sxm': NVLink 4 joins at most 8 of them; expected a count up to 8 or a multiple of it");
  EXPECT_EQ(message("0x dgx-h100"), "'0x dgx-h100': expected a count from 1 to 100000000 before the x");
  EXPECT_EQ(message("99999999999x dgx-h100"), "'99999999999x dgx-h100': expected a count from 1 to 100000000 before the x");
}

TEST(Machine, CopiesAreDeep) {
  const Machine original = found("dojo-exapod");
  Machine copy = original;
  copy.chip().cores = 1;
  copy.root.member->count = 77;
  EXPECT_EQ(original.chip().cores, 354);
  EXPECT_NE(original.root.member->count, 77);
  copy = original;
  EXPECT_EQ(copy.chip_count(), 3000);
}

TEST(Conventions, AreTyped) {
  const Result<CostConventions> cost = cost_conventions(Catalog::builtin());
  ASSERT_TRUE(cost.has_value()) << cost.error().message;
  EXPECT_EQ(cost->pue_average.value, 1.54);
  EXPECT_EQ(cost->pue_planning.value, 1.2);
  EXPECT_DOUBLE_EQ(cost->energy_price.value.value(), 0.08 / 3.6e6);
  EXPECT_LT(cost->energy_price_low, cost->energy_price_high);
  EXPECT_DOUBLE_EQ(cost->average_draw.value, 0.7);
  EXPECT_DOUBLE_EQ(cost->amortisation.value.value(), 5 * 365 * 86400.0);
  EXPECT_FALSE(cost->average_draw.provenance.source.empty());
}

TEST(Conventions, StackBandwidthIsPinsTimesWidth) {
  const auto standards = memory_standards(Catalog::builtin());
  ASSERT_TRUE(standards.has_value()) << standards.error().message;
  bool hbm4 = false;
  for (const MemoryStandard& standard : *standards) {
    EXPECT_LE(standard.stack_low, standard.stack_high);
    if (standard.id != "hbm4") continue;
    hbm4 = true;
    // JESD270-4: 2048 bits at 8 Gb/s, not the 1.6 TB/s of the draft at 6.4 Gb/s.
    EXPECT_DOUBLE_EQ(standard.stack_low.value(), 2048 * standard.pin_rate_low.value());
    EXPECT_EQ(standard.stack_capacity_max.value(), 64 * kGiB);
  }
  EXPECT_TRUE(hbm4);
  // Rubin: 22 TB/s over 8 stacks is more than the standard's first speed.
  EXPECT_DOUBLE_EQ(found("nvidia-rubin").chip().main_memory().bandwidth.value() / 8, 2.75e12);
  const auto times = latencies(Catalog::builtin());
  ASSERT_TRUE(times.has_value()) << times.error().message;
  for (const LatencyFact& fact : *times) EXPECT_LE(fact.low, fact.high) << fact.id;
}

}  // namespace
}  // namespace rooftree::machine

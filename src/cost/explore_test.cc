#include "cost/explore.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cost/test_machines.h"

namespace rooftree::cost {
namespace {

using model::Role;
using test::gpu;
using test::sram_chip;

// Llama-3-8B's published shape.
model::Model decoder_8b() {
  const Result<model::Model> m = model::make_decoder({.id = "8b",
                                                      .layers = 32,
                                                      .hidden = 4096,
                                                      .heads = 32,
                                                      .kv_heads = 8,
                                                      .feed_forward = 14336,
                                                      .vocabulary = 128256,
                                                      .max_context = 131072});
  EXPECT_TRUE(m.has_value());
  return m.value();
}
model::Model decoder_70b() {
  const Result<model::Model> m = model::make_decoder({.id = "70b",
                                                      .layers = 80,
                                                      .hidden = 8192,
                                                      .heads = 64,
                                                      .kv_heads = 8,
                                                      .feed_forward = 28672,
                                                      .vocabulary = 128256,
                                                      .max_context = 131072});
  EXPECT_TRUE(m.has_value());
  return m.value();
}

const Sensitivity* find(const std::vector<Sensitivity>& all, std::string_view start) {
  for (const Sensitivity& s : all) {
    if (std::string_view(s.knob).substr(0, start.size()) == start) return &s;
  }
  return nullptr;
}

std::vector<Sensitivity> study(const model::Model& m, const model::Phase& phase, const machine::Machine& machine,
                               const Plan& plan = {}) {
  return sensitivities(m, phase, machine, CalibrationTable::builtin(), plan);
}

TEST(Sensitivities, RankedByTimePerToken) {
  const auto all = study(decoder_8b(), model::Phase::decode(1, 1024), gpu());
  ASSERT_GT(all.size(), 8U);
  for (std::size_t i = 1; i < all.size(); ++i) EXPECT_LE(all[i - 1].time_ratio, all[i].time_ratio);
}

TEST(Sensitivities, DecodeAtBatchOneWaitsForMemoryNotArithmetic) {
  const auto all = study(decoder_8b(), model::Phase::decode(1, 1024), gpu());
  const Sensitivity* bandwidth = find(all, "HBM bandwidth +10 %");
  ASSERT_NE(bandwidth, nullptr);
  EXPECT_LT(bandwidth->time_ratio, 0.95);
  EXPECT_GE(bandwidth->time_ratio, 1 / 1.1 - 1e-9);
  EXPECT_EQ(bandwidth->kind, Sensitivity::Kind::kHardware);
  const Sensitivity* arithmetic = find(all, "bf16 arithmetic");
  EXPECT_GT(arithmetic != nullptr ? arithmetic->time_ratio : 1.0, 0.99);
  // More sequences share the weights: the first advice.
  EXPECT_EQ(all.front().knob.substr(0, 5), "batch");
  EXPECT_NE(all.front().note.find("as long"), std::string::npos);
}

TEST(Sensitivities, PrefillWaitsForArithmetic) {
  const auto all = study(decoder_8b(), model::Phase::prefill(4, 4096), gpu());
  const Sensitivity* arithmetic = find(all, "bf16 arithmetic +10 %");
  const Sensitivity* bandwidth = find(all, "HBM bandwidth +10 %");
  ASSERT_NE(arithmetic, nullptr);
  EXPECT_LT(arithmetic->time_ratio, 0.96);
  EXPECT_LT(arithmetic->time_ratio, bandwidth != nullptr ? bandwidth->time_ratio : 1.0);
}

TEST(Sensitivities, NarrowWeightsGainWithTheirBytesAndFreeMemory) {
  const auto all = study(decoder_8b(), model::Phase::decode(1, 1024), gpu());
  const Sensitivity* int8 = find(all, "weights bf16 -> int8");
  const Sensitivity* lossless = find(all, "weights bf16 -> bf16-12bit");
  ASSERT_NE(int8, nullptr);
  ASSERT_NE(lossless, nullptr);
  EXPECT_LT(int8->time_ratio, lossless->time_ratio);
  EXPECT_NE(int8->note.find("frees"), std::string::npos);
  EXPECT_NE(int8->note.find("accuracy"), std::string::npos);
  EXPECT_EQ(find(all, "weights bf16 -> bf16 "), nullptr);
}

TEST(Sensitivities, SpillingPlansAreToldToFit) {
  const auto all = study(decoder_70b(), model::Phase::decode(1, 1024), gpu());
  const Sensitivity* link = find(all, "host link +10 %");
  ASSERT_NE(link, nullptr);
  EXPECT_LT(link->time_ratio, 0.95);
  const Sensitivity* twice = find(all, "HBM capacity x2");
  ASSERT_NE(twice, nullptr);
  EXPECT_LT(twice->time_ratio, 0.2);
  EXPECT_NE(twice->note.find("then it fits"), std::string::npos);
  EXPECT_NE(twice->note.find("weights from host memory becomes weights in memory"), std::string::npos);
}

TEST(Sensitivities, WhatMakesItFitComesFirst) {
  machine::Machine m = gpu();
  m.root.host = {};
  m.chip().host_link_per_direction = {};
  const auto all = study(decoder_70b(), model::Phase::decode(1, 1024), m);
  ASSERT_FALSE(all.empty());
  EXPECT_NE(all.front().note.find("does not fit becomes"), std::string::npos) << all.front().knob;
  for (const Sensitivity& s : all) EXPECT_EQ(s.knob.find("batch"), std::string::npos) << s.knob;
}

TEST(Sensitivities, NoKnobIsOfferedThatDoesNotFit) {
  const auto all = study(decoder_8b(), model::Phase::decode(64, 4096), gpu());
  for (const Sensitivity& s : all) EXPECT_EQ(s.knob.find("batch 64 -> 2048"), std::string::npos) << s.knob;
}

TEST(Sensitivities, OfAPhaseThatDoesNotBuildAreNone) {
  EXPECT_TRUE(study(decoder_8b(), model::Phase::decode(0, 1024), gpu()).empty());
}

TEST(RidgeBatch, OneLessIsMemoryBoundAndNoneOnAChipWithoutArithmeticLimit) {
  const model::Model m = decoder_8b();
  const Estimator datasheet(gpu(), CalibrationTable::datasheet(gpu().chip()), {});
  const auto ridge = ridge_batch(m, model::Phase::decode(1, 1024), datasheet);
  ASSERT_TRUE(ridge.has_value());
  // 400 TFLOP/s over 2 TB/s: 200 FLOP per byte, and 2 FLOP per 2-byte weight and sequence: batch 200 and a little more for
  // the activations.
  EXPECT_GE(*ridge, 200);
  EXPECT_LE(*ridge, 240);
  EXPECT_FALSE(ridge_batch(m, model::Phase::decode(1, 1024), datasheet, *ridge - 1).has_value());
  EXPECT_EQ(ridge_batch(m, model::Phase::decode(1, 1024), datasheet, *ridge), ridge);
  EXPECT_FALSE(ridge_batch(m, model::Phase::decode(1, 0), datasheet, 1).has_value());
  // In calibrated constants the ridge moves, but not away.
  const auto calibrated = ridge_batch(m, model::Phase::decode(1, 1024), Estimator(gpu(), CalibrationTable::builtin(), {}));
  ASSERT_TRUE(calibrated.has_value());
  EXPECT_GT(*calibrated, 64);
  EXPECT_LT(*calibrated, 1024);
}

// ---------------------------------------------------------------------------------------------------------- exploration

TEST(ChipProxy, PartsAddUpAndKnownDiesComeOutNear) {
  machine::Machine h100 = gpu();
  test::set_rate(h100.chip(), Arithmetic::kBf16, 989e12, 134e12);
  h100.chip().ladder = {{.name = "L2", .capacity = Bytes{50 * 1048576.0}, .bandwidth = BytesPerSecond{9e12}},
                        {.name = "HBM3", .capacity = Bytes{80e9}, .bandwidth = BytesPerSecond{3.35e12}}};
  const ChipProxy p = chip_proxy(h100.chip());
  EXPECT_NEAR(p.area_compute_mm2 + p.area_sram_mm2 + p.area_memory_interface_mm2 + p.area_other_mm2, p.area_mm2, 1e-9);
  EXPECT_NEAR(p.area_mm2, 814, 0.1 * 814);
  EXPECT_NEAR(p.cost_usd, 3320, 0.1 * 3320);
  EXPECT_NEAR(p.power_w, 700, 0.3 * 700);
  // SRAM counts as area, not as bought memory.
  const ChipProxy sram = chip_proxy(sram_chip().chip());
  EXPECT_NEAR(sram.area_sram_mm2, 230, 1e-9);
  EXPECT_EQ(sram.area_memory_interface_mm2, 0);
}

TEST(SetProperty, ReadsBackAndScalesPower) {
  for (int i = 0; i < kChipPropertyCount; ++i) {
    const auto property = static_cast<ChipProperty>(i);
    machine::Machine m = gpu();
    const double value = property_value(m.chip(), property) * 3;
    ASSERT_TRUE(set_property(m.chip(), property, value).has_value()) << name(property);
    EXPECT_NEAR(property_value(m.chip(), property), value, 1e-9 * value) << name(property);
    ASSERT_TRUE(parse_chip_property(name(property)).has_value());
    EXPECT_EQ(*parse_chip_property(name(property)), property);
  }
  machine::Machine m = gpu();
  const double before = chip_proxy(m.chip()).power_w;
  ASSERT_TRUE(set_property(m.chip(), ChipProperty::kCompute, 800e12).has_value());
  EXPECT_EQ(m.chip().cores, 200);
  EXPECT_NEAR(m.chip().power_max.value(), 400 * chip_proxy(m.chip()).power_w / before, 1e-9);
  EXPECT_NEAR(m.chip().rate(Arithmetic::kInt8).matrix.value(), 1600e12, 1);
}

TEST(SetProperty, RefusesBadInput) {
  machine::Machine m = gpu();
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_FALSE(set_property(m.chip(), ChipProperty::kMemoryCapacity, bad).has_value());
  }
  machine::Machine flat = sram_chip();
  const Status status = set_property(flat.chip(), ChipProperty::kOnChipCapacity, 1e9);
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("no memory level"), std::string::npos);
  EXPECT_FALSE(parse_chip_property("memory").has_value());
}

TEST(GeometricGrid, EndsAreExactAndStepsEqual) {
  const std::vector<double> grid = geometric_grid(1e9, 64e9, 7);
  ASSERT_EQ(grid.size(), 7U);
  EXPECT_EQ(grid.front(), 1e9);
  EXPECT_EQ(grid.back(), 64e9);
  for (std::size_t i = 1; i < grid.size(); ++i) EXPECT_NEAR(grid[i] / grid[i - 1], 2, 1e-9);
  EXPECT_EQ(geometric_grid(5, 9, 1), std::vector<double>{5});
  EXPECT_TRUE(geometric_grid(1, 2, 0).empty());
}

// "Large memory, high bandwidth, little compute for a local 70B: which corner?" One user, 4-bit weights.
TEST(Explore, ALocal70BWantsMemoryAndBandwidthNotCompute) {
  Plan plan;
  plan.set_type(Role::kWeight, DType::kInt4);
  const Axis bandwidth{ChipProperty::kMemoryBandwidth, geometric_grid(0.25e12, 4e12, 5)};
  const Axis compute{ChipProperty::kCompute, geometric_grid(25e12, 800e12, 6)};
  const auto result =
      explore(decoder_70b(), model::Phase::decode(1, 4096), gpu(), CalibrationTable::builtin(), plan, bandwidth, compute);
  ASSERT_TRUE(result.has_value());
  ASSERT_EQ(result->points.size(), 30U);
  ASSERT_TRUE(result->fastest.has_value());
  EXPECT_EQ(result->points[*result->fastest].x, 4e12);
  // Sixteen times the bandwidth gains several times; thirty-two times the compute at the lowest bandwidth next to nothing.
  EXPECT_GT(result->at(0, 3).time_per_token / result->at(4, 3).time_per_token, 6);
  EXPECT_LT(result->at(0, 0).time_per_token / result->at(0, 5).time_per_token, 1.2);
  ASSERT_TRUE(result->cheapest_per_token.has_value());
  EXPECT_LE(result->points[*result->cheapest_per_token].y, 200e12);

  // Under a power budget the compute is what goes.
  const double watts = result->at(4, 2).proxy.power_w;
  const auto limited = explore(decoder_70b(), model::Phase::decode(1, 4096), gpu(), CalibrationTable::builtin(), plan,
                               bandwidth, compute, {.power_w = watts});
  ASSERT_TRUE(limited.has_value());
  ASSERT_TRUE(limited->fastest.has_value());
  EXPECT_EQ(limited->points[*limited->fastest].x, 4e12);
  EXPECT_LE(limited->points[*limited->fastest].proxy.power_w, watts);
  for (const ExplorePoint& p : limited->points) EXPECT_EQ(p.within_budget, p.proxy.power_w <= watts);
}

TEST(Explore, NothingFitsABudgetOfNothing) {
  const Axis x{ChipProperty::kMemoryBandwidth, {1e12}};
  const Axis y{ChipProperty::kMemoryCapacity, {80e9}};
  const auto result =
      explore(decoder_8b(), model::Phase::decode(1, 128), gpu(), CalibrationTable::builtin(), {}, x, y, {.cost_usd = 1.0});
  ASSERT_TRUE(result.has_value());
  EXPECT_FALSE(result->fastest.has_value());
  EXPECT_FALSE(result->points[0].within_budget);
}

TEST(Explore, CapacityDecidesWhatFits) {
  const Axis capacity{ChipProperty::kMemoryCapacity, {16e9, 160e9}};
  const Axis bandwidth{ChipProperty::kMemoryBandwidth, {1e12}};
  const auto result =
      explore(decoder_70b(), model::Phase::decode(1, 128), gpu(), CalibrationTable::builtin(), {}, capacity, bandwidth);
  ASSERT_TRUE(result.has_value());
  EXPECT_FALSE(result->at(0, 0).fits);
  EXPECT_EQ(result->at(0, 0).regime, Regime::kWeightsFromHost);
  EXPECT_TRUE(result->at(1, 0).fits);
  EXPECT_EQ(result->fastest, std::optional<std::size_t>{1});
}

TEST(Explore, RefusesBadAxes) {
  const model::Model m = decoder_8b();
  const auto run = [&](const Axis& x, const Axis& y) {
    return explore(m, model::Phase::decode(1, 128), gpu(), CalibrationTable::builtin(), {}, x, y);
  };
  const Axis good{ChipProperty::kMemoryBandwidth, {1e12}};
  EXPECT_FALSE(run({ChipProperty::kCompute, {}}, good).has_value());
  EXPECT_FALSE(run({ChipProperty::kCompute, {-1}}, good).has_value());
  EXPECT_FALSE(run({ChipProperty::kCompute, {std::nan("")}}, good).has_value());
  const auto twice = run(good, good);
  ASSERT_FALSE(twice.has_value());
  EXPECT_NE(twice.error().message.find("two different"), std::string::npos);
  EXPECT_FALSE(
      explore(m, model::Phase::decode(0, 128), gpu(), CalibrationTable::builtin(), {}, good, {ChipProperty::kCompute, {1e14}})
          .has_value());
}

}  // namespace
}  // namespace rooftree::cost

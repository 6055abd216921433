#include "probe/ladder.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.h"

namespace rooftree::probe {
namespace {

constexpr double kKiB = 1024, kMiB = 1024 * kKiB;

struct Level {
  double capacity, latency;  // bytes, ns; the last one has no end
};

// A random walk over `size` bytes: the share capacity / size of the loads still hits the level when the set has outgrown it.
double expected_latency(const std::vector<Level>& levels, double size) {
  double latency = levels.back().latency;
  for (std::size_t i = levels.size() - 1; i-- > 0;) {
    const double hit = std::min(1.0, levels[i].capacity / size);
    latency = hit * levels[i].latency + (1 - hit) * latency;
  }
  return latency;
}

std::vector<LatencyPoint> curve_of(const std::vector<Level>& levels, double noise = 0.0, double largest = 256 * kMiB) {
  std::vector<LatencyPoint> curve;
  Philox rng(12);
  for (double x = 12.0; std::exp2(x) <= largest; x += 0.5) {
    curve.push_back(
        {Bytes{std::exp2(x)}, Seconds{expected_latency(levels, std::exp2(x)) * 1e-9 * (1 + noise * rng.uniform())}});
  }
  return curve;
}

void expect_levels(const std::vector<LatencyPoint>& curve, const std::vector<Level>& levels) {
  const std::vector<Plateau> found = find_plateaus(curve);
  ASSERT_EQ(found.size(), levels.size());
  for (std::size_t i = 0; i < levels.size(); ++i) {
    if (i + 1 < levels.size()) {
      EXPECT_GT(found[i].capacity.value(), levels[i].capacity / 2) << i;
      EXPECT_LT(found[i].capacity.value(), levels[i].capacity * 2) << i;
    } else {
      EXPECT_EQ(found[i].capacity, Bytes{0.0});
    }
    EXPECT_NEAR(found[i].latency.value() * 1e9, levels[i].latency, 0.35 * levels[i].latency) << i;
  }
}

TEST(Ladder, FindsTheLevelsOfCommonMachines) {
  expect_levels(curve_of({{32 * kKiB, 1.1}, {1 * kMiB, 3.8}, {32 * kMiB, 15}, {0, 110}}),
                {{32 * kKiB, 1.1}, {1 * kMiB, 3.8}, {32 * kMiB, 15}, {0, 110}});
  expect_levels(curve_of({{48 * kKiB, 1.3}, {2 * kMiB, 4}, {0, 90}}), {{48 * kKiB, 1.3}, {2 * kMiB, 4}, {0, 90}});
  expect_levels(curve_of({{64 * kKiB, 1}, {512 * kKiB, 3}, {4 * kMiB, 10}, {32 * kMiB, 35}, {0, 140}}),
                {{64 * kKiB, 1}, {512 * kKiB, 3}, {4 * kMiB, 10}, {32 * kMiB, 35}, {0, 140}});
}

TEST(Ladder, NoiseOfTenPercentDoesNotInventLevels) {
  const std::vector<Level> levels = {{32 * kKiB, 1.1}, {1 * kMiB, 3.8}, {32 * kMiB, 15}, {0, 110}};
  expect_levels(curve_of(levels, 0.10), levels);
}

// Quietest samples of a real run (EPYC 9004 virtual machine, 32 KiB, 1 MiB and 32 MiB reported), ns at powers of two from 4
// KiB.
TEST(Ladder, MeasuredCurve) {
  const std::vector<double> ns = {1.08, 1.08,  1.08,  1.21,  3.80,  3.80,  3.80,   4.91,
                                  9.07, 11.29, 14.02, 15.69, 23.23, 52.36, 107.31, 146.99};
  std::vector<LatencyPoint> curve;
  for (std::size_t i = 0; i < ns.size(); ++i)
    curve.push_back({Bytes{std::exp2(12.0 + static_cast<double>(i))}, Seconds{ns[i] * 1e-9}});
  const std::vector<Plateau> found = find_plateaus(curve);
  ASSERT_EQ(found.size(), 4U);
  EXPECT_TRUE(compare_with_reported(found, {{"L1", Bytes{32 * kKiB}}, {"L2", Bytes{1 * kMiB}}, {"L3", Bytes{32 * kMiB}}}, true)
                  .empty());
}

TEST(Ladder, FlatCurveIsOneLevel) {
  const std::vector<Plateau> found = find_plateaus(curve_of({{0, 100}}));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].capacity, Bytes{0.0});
  EXPECT_NEAR(found[0].latency.value(), 100e-9, 1e-12);
}

TEST(Ladder, DegenerateCurves) {
  EXPECT_TRUE(find_plateaus({}).empty());
  EXPECT_EQ(find_plateaus({{Bytes{4096}, Seconds{1e-9}}}).size(), 1U);
  EXPECT_GE(find_plateaus({{Bytes{4096}, Seconds{1e-9}}, {Bytes{8192}, Seconds{50e-9}}}).size(), 1U);
}

TEST(Ladder, LatencyOfALevelIsTakenInsideIt) {
  const std::vector<LatencyPoint> curve = curve_of({{32 * kKiB, 1.0}, {1 * kMiB, 4.0}, {32 * kMiB, 15.0}, {0, 110}});
  EXPECT_NEAR(latency_of_level(curve, Bytes{0.0}, Bytes{32 * kKiB}).value(), 1.0e-9, 1e-12);
  EXPECT_NEAR(latency_of_level(curve, Bytes{32 * kKiB}, Bytes{1 * kMiB}).value(), 4e-9, 0.9e-9);
  EXPECT_NEAR(latency_of_level(curve, Bytes{1 * kMiB}, Bytes{32 * kMiB}).value(), 15e-9, 3e-9);
  EXPECT_EQ(latency_of_level(curve, Bytes{32 * kMiB}, Bytes{0.0}), curve.back().latency);
  EXPECT_EQ(latency_of_level({}, Bytes{0.0}, Bytes{1024.0}), Seconds{0.0});
  EXPECT_EQ(latency_of_level(curve, Bytes{0.0}, Bytes{1024.0}), Seconds{0.0}) << "no point that small";
}

TEST(Ladder, DisagreementIsNoted) {
  const std::vector<Plateau> found = find_plateaus(curve_of({{32 * kKiB, 1.1}, {1 * kMiB, 3.8}, {8 * kMiB, 15}, {0, 110}}));
  const std::vector<CacheLevel> reported = {{"L1", Bytes{32 * kKiB}}, {"L2", Bytes{1 * kMiB}}, {"L3", Bytes{64 * kMiB}}};
  const std::vector<std::string> notes = compare_with_reported(found, reported, true);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("L3"), std::string::npos);
  EXPECT_NE(notes[0].find("virtual machine"), std::string::npos);
  EXPECT_EQ(compare_with_reported(found, reported, false)[0].find("virtual machine"), std::string::npos);
  EXPECT_EQ(compare_with_reported(find_plateaus(curve_of({{0, 100}})), reported, false).size(), 3U) << "no step at all";
}

}  // namespace
}  // namespace rooftree::probe

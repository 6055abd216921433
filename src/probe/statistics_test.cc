#include "probe/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace rooftree::probe {
namespace {

TEST(Statistics, QuantilesInterpolate) {
  const std::vector<double> v = {1, 2, 3, 4, 5};
  EXPECT_DOUBLE_EQ(quantile(v, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile(v, 0.25), 2.0);
  EXPECT_DOUBLE_EQ(quantile(v, 0.5), 3.0);
  EXPECT_DOUBLE_EQ(quantile(v, 0.875), 4.5);
  EXPECT_DOUBLE_EQ(quantile(v, 1.0), 5.0);
  EXPECT_DOUBLE_EQ(quantile(std::vector<double>{7.0}, 0.3), 7.0);
}

TEST(Statistics, QuietestDependsOnWhatIsBetter) {
  const std::vector<double> v = {3, 1, 2, 4};
  EXPECT_EQ(summarize(v, Better::kHigher).quietest, 4.0);
  EXPECT_EQ(summarize(v, Better::kLower).quietest, 1.0);
  EXPECT_DOUBLE_EQ(summarize(v, Better::kLower).median, 2.5);
  EXPECT_DOUBLE_EQ(summarize(v, Better::kLower).q1, 1.75);
  EXPECT_DOUBLE_EQ(summarize(v, Better::kLower).q3, 3.25);
  EXPECT_DOUBLE_EQ(summarize(v, Better::kLower).relative_spread(), 0.6);
}

// Any number of interrupted samples leaves the quietest as it was.
TEST(Statistics, InterruptedSamplesDoNotMoveTheLimit) {
  std::vector<double> rates = {100.0, 99.5, 99.8};
  for (int i = 0; i < 50; ++i) rates.push_back(40.0 + 0.1 * i);
  EXPECT_EQ(summarize(rates, Better::kHigher).quietest, 100.0);
  EXPECT_LT(summarize(rates, Better::kHigher).median, 46.0);
}

TEST(Statistics, ConfirmedByThreeWithinFivePercent) {
  EXPECT_TRUE(summarize(std::vector<double>{100, 96, 95, 50}, Better::kHigher).confirmed());
  EXPECT_FALSE(summarize(std::vector<double>{100, 96, 94.9, 50}, Better::kHigher).confirmed());
  EXPECT_TRUE(summarize(std::vector<double>{100, 104, 105, 200}, Better::kLower).confirmed());
  EXPECT_FALSE(summarize(std::vector<double>{100, 104, 105.1, 200}, Better::kLower).confirmed());
  EXPECT_EQ(summarize(std::vector<double>{100}, Better::kLower).near_quietest, 1);
  EXPECT_FALSE(Statistic{}.confirmed());
}

TEST(Statistics, FailedSamplesAreLeftOut) {
  const std::vector<double> v = {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                                 5.0};
  const Statistic s = summarize(v, Better::kHigher);
  EXPECT_EQ(s.samples, 1);
  EXPECT_EQ(s.quietest, 5.0);
  EXPECT_EQ(summarize(std::vector<double>{}, Better::kLower).samples, 0);
  EXPECT_EQ(summarize(std::vector<double>{0.0}, Better::kLower).samples, 0);
  EXPECT_EQ(Statistic{}.relative_spread(), 0.0);
}

TEST(StatisticsDeathTest, QuantileOfNothing) {
  EXPECT_DEATH((void)quantile({}, 0.5), "no values");
  EXPECT_DEATH((void)quantile(std::vector<double>{1.0}, 1.5), "outside");
}

}  // namespace
}  // namespace rooftree::probe

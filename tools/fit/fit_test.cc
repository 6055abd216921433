#include "fit.h"

#include <gtest/gtest.h>

#include <cmath>

namespace rooftree::fit {
namespace {

TEST(Minimise, FindsTheBottomOfACurvedValley) {
  std::vector<double> x = {-1.2, 1};
  const double value =
      minimise([](const std::vector<double>& p) { return 100 * std::pow(p[1] - p[0] * p[0], 2) + std::pow(1 - p[0], 2); }, x,
               {-5, -5}, {5, 5}, 6000);
  EXPECT_LT(value, 1e-6);
  EXPECT_NEAR(x[0], 1, 1e-2);
  EXPECT_NEAR(x[1], 1, 1e-2);
}

TEST(Minimise, StaysInsideItsBounds) {
  std::vector<double> x = {0.5};
  minimise([](const std::vector<double>& p) { return -p[0]; }, x, {0}, {2}, 300);
  EXPECT_NEAR(x[0], 2, 1e-6);
}

TEST(SoftL1, IsQuadraticNearZeroAndLinearFarAway) {
  EXPECT_NEAR(soft_l1(0.001, 0.1), 1e-4, 1e-8);
  EXPECT_NEAR(soft_l1(100, 0.1) / 100, 2 / 0.1, 0.05);
  EXPECT_DOUBLE_EQ(soft_l1(-0.3, 0.1), soft_l1(0.3, 0.1));
}

// Times made with known constants, a tenth of them far off: the fit must return the constants.
TEST(Fit, RecoversPlantedConstantsInSpiteOfOutliers) {
  machine::Chip chip;
  chip.id = "test";
  chip.family = "test";
  chip.cores = 100;
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kBf16)].matrix = FlopPerSecond{400e12};
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp32)].vector = FlopPerSecond{20e12};
  chip.ladder = {{.name = "HBM", .capacity = Bytes{80e9}, .bandwidth = BytesPerSecond{2e12}}};
  Job job;
  job.set.set_class = cost::SetClass::kStream;
  job.set.chip = "test";
  job.set.family = "test";
  job.set.variant = "norm";
  job.free = {{"memory_share", 0.9, 0.1, 1.5}, {"fixed", 1e-6, 1e-7, 1e-4}};
  job.file = "x.csv";
  std::vector<LoadedCase> cases;
  for (int i = 0; i < 40; ++i) {
    LoadedCase c;
    c.kernel_case.chip = &chip;
    const model::Norm op{.rows = std::int64_t{16} << (i % 10), .width = 4096};
    c.kernel_case.terms.push_back({op, validate::plain_operands(chip, Arithmetic::kBf16), 1});
    c.work.push_back(model::work(op));
    const double bytes = (c.work[0].read[1] + c.work[0].written[1] + c.work[0].read[0]) * 2;
    c.kernel_case.measured = (4e-6 + bytes / (0.6 * 2e12)) * (i % 10 == 3 ? 3 : 1);
    cases.push_back(std::move(c));
  }
  std::vector<const LoadedCase*> pointers;
  for (const LoadedCase& c : cases) pointers.push_back(&c);
  const auto table = cost::CalibrationTable::from_sets({}, {{.id = "test", .vendor = "T", .source = "t"}});
  const cost::ConstantSet fitted = fit(job, pointers, table);
  ASSERT_EQ(fitted.values.size(), 2u);
  EXPECT_NEAR(fitted.values[0].second, 0.6, 0.03);
  EXPECT_NEAR(fitted.values[1].second, 4e-6, 0.3e-6);
  EXPECT_LT(fitted.median_error, 0.03);
  EXPECT_EQ(fitted.fitted_on[0].file, "calibrate/x.csv");
  EXPECT_EQ(fitted.fitted_on[0].rows, 40);
  EXPECT_GT(fitted.log_high, 0.5);  // the outliers are in the band
}

}  // namespace
}  // namespace rooftree::fit

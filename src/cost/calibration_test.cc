#include "cost/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cost/test_machines.h"

namespace rooftree::cost {
namespace {

constexpr std::size_t kBf16 = static_cast<std::size_t>(Arithmetic::kBf16);
constexpr std::size_t kFp8 = static_cast<std::size_t>(Arithmetic::kFp8);

ConstantSet gemm_set(std::string chip, std::string family, double peak_share, Arithmetic arithmetic = Arithmetic::kBf16) {
  ConstantSet s;
  s.set_class = SetClass::kGemm;
  s.chip = std::move(chip);
  s.family = std::move(family);
  s.arithmetic = arithmetic;
  s.values = {{"peak_share", peak_share}, {"fixed", 1e-6}};
  s.log_low = -0.2;
  s.log_high = 0.3;
  s.note = "test";
  s.date = "2026-01-01";
  return s;
}

std::vector<Family> families() {
  return {{.id = "old", .vendor = "V", .relatives = {"new"}, .source = "t"},
          {.id = "new", .vendor = "V", .relatives = {"old"}, .source = "t"},
          {.id = "rival", .vendor = "W", .relatives = {}, .source = "t"}};
}

machine::Chip chip(std::string id, std::string family) {
  machine::Chip c = test::gpu().chip();
  c.id = std::move(id);
  c.family = std::move(family);
  return c;
}

TEST(Resolve, OwnConstantsComeFirstAndKeepTheirBand) {
  const auto table = CalibrationTable::from_sets({gemm_set("b", "new", 0.5), gemm_set("a", "new", 0.7)}, families());
  const GemmConstants g = table.resolve(chip("a", "new")).gemm[kBf16];
  EXPECT_DOUBLE_EQ(g.peak_share, 0.7);
  EXPECT_EQ(g.distance, Distance::kOwn);
  EXPECT_DOUBLE_EQ(g.log_low, -0.2);
  EXPECT_DOUBLE_EQ(g.log_high, 0.3);
}

TEST(Resolve, TheSameFamilyWidensByAFifth) {
  const auto table = CalibrationTable::from_sets({gemm_set("a", "new", 0.7), gemm_set("z", "old", 0.9)}, families());
  const GemmConstants g = table.resolve(chip("b", "new")).gemm[kBf16];
  EXPECT_DOUBLE_EQ(g.peak_share, 0.7);
  EXPECT_EQ(g.distance, Distance::kFamily);
  EXPECT_DOUBLE_EQ(g.log_low, -0.24);
  EXPECT_DOUBLE_EQ(g.log_high, 0.36);
}

TEST(Resolve, AnotherGenerationLosesAShareAndDoublesTheBand) {
  const auto table = CalibrationTable::from_sets({gemm_set("z", "old", 0.8), gemm_set("r", "rival", 0.9)}, families());
  const GemmConstants g = table.resolve(chip("b", "new")).gemm[kBf16];
  EXPECT_DOUBLE_EQ(g.peak_share, 0.8 * 0.95);
  EXPECT_EQ(g.distance, Distance::kVendor);
  EXPECT_DOUBLE_EQ(g.log_low, -0.4);
  EXPECT_DOUBLE_EQ(g.log_high, 0.6);
}

TEST(Resolve, AnotherVendorTriplesTheBand) {
  const auto table = CalibrationTable::from_sets({gemm_set("r", "rival", 0.9)}, families());
  const GemmConstants g = table.resolve(chip("b", "new")).gemm[kBf16];
  EXPECT_EQ(g.distance, Distance::kKind);
  EXPECT_DOUBLE_EQ(g.log_low, -0.6);
  EXPECT_NEAR(g.log_high, 0.9, 1e-12);
}

TEST(Resolve, ANarrowBandIsNotTrustedOnAnotherGeneration) {
  ConstantSet s = gemm_set("z", "old", 0.8);
  s.log_low = -0.01;
  s.log_high = 0.01;
  const GemmConstants g = CalibrationTable::from_sets({s}, families()).resolve(chip("b", "new")).gemm[kBf16];
  EXPECT_DOUBLE_EQ(g.log_low, -0.25);
  EXPECT_DOUBLE_EQ(g.log_high, 0.25);
}

TEST(Resolve, AnotherTypeOnTheSameChipBeatsTheSameTypeFartherAwayAndWidens) {
  const auto table =
      CalibrationTable::from_sets({gemm_set("a", "new", 0.7), gemm_set("z", "old", 0.6, Arithmetic::kFp8)}, families());
  const GemmConstants g = table.resolve(chip("a", "new")).gemm[kFp8];
  EXPECT_DOUBLE_EQ(g.peak_share, 0.7);
  EXPECT_DOUBLE_EQ(g.log_low, -0.3);
}

TEST(Resolve, PartialSetsRefineWhatIsInherited) {
  ConstantSet partial = gemm_set("b", "new", 0.66);
  partial.values = {{"peak_share", 0.66}};
  partial.log_low = partial.log_high = 0;
  const auto table = CalibrationTable::from_sets({gemm_set("a", "new", 0.7), partial}, families());
  const GemmConstants g = table.resolve(chip("b", "new")).gemm[kBf16];
  EXPECT_DOUBLE_EQ(g.peak_share, 0.66);
  EXPECT_DOUBLE_EQ(g.fixed, 1e-6);
  EXPECT_DOUBLE_EQ(table.resolve(chip("a", "new")).gemm[kBf16].peak_share, 0.7);  // farther away than its own
}

TEST(Resolve, WithoutAnyConstantsTheIntervalIsWide) {
  const ChipCalibration c = CalibrationTable::from_sets({}, {}).resolve(chip("b", "new"));
  EXPECT_EQ(c.gemm[kBf16].distance, Distance::kGeneric);
  EXPECT_LE(c.gemm[kBf16].log_low, -1);
  EXPECT_GE(c.gemm[kBf16].log_high, 1);
}

TEST(Resolve, TypesThatTheChipLacksRunAtTheNextWiderRate) {
  const ChipCalibration c = CalibrationTable::builtin().resolve(test::gpu().chip());
  EXPECT_DOUBLE_EQ(c.product_rate[kFp8], 400e12);
  EXPECT_DOUBLE_EQ(c.product_rate[static_cast<std::size_t>(Arithmetic::kFp4)], 400e12);
  EXPECT_DOUBLE_EQ(c.product_rate[static_cast<std::size_t>(Arithmetic::kInt8)], 800e12);
}

TEST(Resolve, PartitionedCachesHoldHalfOfWhatAllCoresShare) {
  auto f = families();
  f[1].cache_partitions = 2;
  const ChipCalibration c = CalibrationTable::from_sets({}, f).resolve(chip("b", "new"));
  EXPECT_DOUBLE_EQ(c.last_cache_bytes, 40e6);
  EXPECT_DOUBLE_EQ(c.shared_cache_bytes, 20e6);
}

TEST(Datasheet, HasNoOverheads) {
  const ChipCalibration c = CalibrationTable::datasheet(test::gpu().chip());
  EXPECT_TRUE(c.ideal);
  for (const HostConstants& h : c.host) EXPECT_EQ(h.per_step + h.per_sequence + h.per_layer + h.per_kernel, 0);
}

TEST(Files, RoundTrip) {
  ConstantSet s = gemm_set("a", "new", 0.7);
  s.fitted_on = {{"calibrate/x.csv", "all", 12}};
  s.clock_hz = 1.5e9;
  s.median_error = 0.04;
  const auto table = CalibrationTable::from_sets({s}, families());
  const auto again = CalibrationTable::parse(table.to_json(), "t.json");
  ASSERT_TRUE(again) << again.error().message;
  ASSERT_EQ(again->sets().size(), 1u);
  const ConstantSet& r = again->sets()[0];
  EXPECT_EQ(r.chip, "a");
  EXPECT_EQ(r.values, s.values);
  EXPECT_EQ(r.log_high, 0.3);
  EXPECT_EQ(r.clock_hz, 1.5e9);
  EXPECT_EQ(r.fitted_on[0].rows, 12);
  EXPECT_EQ(again->families().size(), 3u);
}

std::string problem(std::string_view set) {
  const auto r = CalibrationTable::parse(std::string("{\"sets\": [") + std::string(set) + "]}", "t.json");
  return r ? "no error" : r.error().message;
}

TEST(Files, RefuseWhatTheyDoNotUnderstand) {
  EXPECT_NE(
      problem(R"({"class": "gem", "constants": {"peak_share": 1}, "note": "n", "date": "d"})").find("expected one of gemm"),
      std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {"fixed": 1}, "note": "n", "date": "d"})").find("found \"fixed\""),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {"peak_share": -1}, "note": "n", "date": "d"})").find("not negative"),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {"peak_share": 0}, "note": "n", "date": "d"})").find("share above zero"),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {}, "note": "n", "date": "d"})").find("at least one constant"),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {"peak_share": 1}, "date": "d"})").find("where they come from"),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "constants": {"peak_share": 1}, "note": "n"})").find("date"), std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "arithmetic": "fp5", "constants": {"peak_share": 1}, "note": "n", "date": "d"})")
                .find("fp5"),
            std::string::npos);
  EXPECT_NE(problem(R"({"class": "gemm", "variant": "odd", "constants": {"peak_share": 1}, "note": "n", "date": "d"})")
                .find("variant"),
            std::string::npos);
  EXPECT_NE(
      problem(
          R"({"class": "gemm", "constants": {"peak_share": 1}, "residual_log": {"p05": 1, "p95": 0}, "note": "n", "date": "d"})")
          .find("p05 below p95"),
      std::string::npos);
  EXPECT_NE(problem(R"(7)").find("expected an object"), std::string::npos);
  EXPECT_FALSE(CalibrationTable::parse("{}", "t.json"));
  EXPECT_FALSE(CalibrationTable::parse("[", "t.json"));
}

TEST(Builtin, IsFittedOnCalibrationRowsAlone) {
  const CalibrationTable& table = CalibrationTable::builtin();
  ASSERT_GT(table.sets().size(), 20u);
  for (const ConstantSet& set : table.sets()) {
    for (const ConstantSet::FittedOn& on : set.fitted_on) {
      EXPECT_EQ(on.file.find("develop"), std::string::npos) << on.file;
      EXPECT_GT(on.rows, 0) << on.file;
    }
    EXPECT_TRUE(!set.fitted_on.empty() || !set.note.empty());
  }
}

TEST(Builtin, EveryFamilySaysWhereItsFactsComeFrom) {
  for (const Family& f : CalibrationTable::builtin().families()) {
    EXPECT_FALSE(f.source.empty()) << f.id;
    EXPECT_GT(f.vector_flop_per_core_clock, 0) << f.id;
  }
}

}  // namespace
}  // namespace rooftree::cost

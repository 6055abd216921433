#include "base/unit_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace rooftree {
namespace {

TEST(UnitText, ReadsDecimalAndBinaryPrefixes) {
  EXPECT_EQ(parse_bytes("80 GB")->value(), 80e9);
  EXPECT_EQ(parse_bytes("40 MiB")->value(), 40.0 * 1024 * 1024);
  EXPECT_EQ(parse_bytes("1.25TB")->value(), 1.25e12);
  EXPECT_EQ(parse_bytes("  64  KiB ")->value(), 65536);
  EXPECT_EQ(parse_bytes("16 Gbit")->value(), 2e9);
  EXPECT_EQ(parse_bytes("0 B")->value(), 0);
}

TEST(UnitText, TellsBitsFromBytes) {
  EXPECT_EQ(parse_bandwidth("400 Gb/s")->value(), 50e9);
  EXPECT_EQ(parse_bandwidth("400 Gbit/s")->value(), 50e9);
  EXPECT_EQ(parse_bandwidth("400 GB/s")->value(), 400e9);
  EXPECT_DOUBLE_EQ(parse_bandwidth("2.039 TB/s")->value(), 2039e9);
  EXPECT_EQ(parse_bandwidth("359 GiB/s")->value(), 359.0 * 1024 * 1024 * 1024);
}

TEST(UnitText, IntegerOperationsCountAsFlop) {
  EXPECT_EQ(parse_flop_rate("312 TFLOP/s")->value(), 312e12);
  EXPECT_EQ(parse_flop_rate("624 TOP/s")->value(), 624e12);
  EXPECT_DOUBLE_EQ(parse_flop_rate("1.1 PFLOP/s")->value(), 1.1e15);
  EXPECT_EQ(parse_flop_rate("312 TFLOPS")->value(), 312e12);
}

TEST(UnitText, ReadsTimePowerFrequencyMoney) {
  EXPECT_DOUBLE_EQ(parse_seconds("150 ns")->value(), 150e-9);
  EXPECT_EQ(parse_seconds("30 days")->value(), 30.0 * 86400);
  EXPECT_EQ(parse_seconds("5 h")->value(), 18000);
  EXPECT_EQ(parse_seconds("\u00b5s").has_value(), false);
  EXPECT_DOUBLE_EQ(parse_seconds("3 \u00b5s")->value(), 3e-6);
  EXPECT_EQ(parse_watts("10.2 kW")->value(), 10200);
  EXPECT_EQ(parse_hertz("1410 MHz")->value(), 1410e6);
  EXPECT_EQ(parse_dollars("2.5 M USD")->value(), 2.5e6);
  EXPECT_EQ(parse_dollars("199000 USD")->value(), 199000);
  EXPECT_DOUBLE_EQ(parse_price_rate("3.6 USD/h")->value(), 0.001);
  EXPECT_DOUBLE_EQ(parse_energy_price("0.08 USD/kWh")->value(), 0.08 / 3.6e6);
  EXPECT_EQ(*parse_ratio("2 x"), 2);
  EXPECT_DOUBLE_EQ(*parse_ratio("70 %"), 0.7);
}

TEST(UnitText, ReadsCounts) {
  EXPECT_EQ(*parse_count("4096"), 4096);
  EXPECT_EQ(*parse_count("128k"), 128000);
  EXPECT_EQ(*parse_count("128Ki"), 131072);
  EXPECT_EQ(*parse_count("16M"), 16e6);
}

TEST(UnitText, RefusesWithFoundAndExpected) {
  const auto size = [](const char* text) { return parse_bytes(text).error().message; };
  EXPECT_EQ(size("80"), "'80' has no unit; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size(""), "'' is empty; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("GB"), "'GB' does not begin with a number; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("80 GB/s"), "'80 GB/s' has the unit 'GB/s'; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("80 gb"), "'80 gb' has the unit 'gb'; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("64 KB"),
            "'64 KB' has the unit 'KB' (write kB for 1000 or KiB for 1024); expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("-1 GB"), "'-1 GB' is negative; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("nan GB"), "'nan GB' is out of range; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("inf GB"), "'inf GB' is out of range; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("1e999 GB"), "'1e999 GB' is out of range; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(size("1e300 EB"), "'1e300 EB' is out of range; expected a size such as '80 GB' or '40 MiB'");
}

TEST(UnitText, RefusesOtherDimensions) {
  EXPECT_FALSE(parse_bandwidth("80 GB"));
  EXPECT_FALSE(parse_bandwidth("2 TFLOP/s"));
  EXPECT_FALSE(parse_flop_rate("2 TB/s"));
  EXPECT_FALSE(parse_flop_rate("2 TFLOP"));
  EXPECT_FALSE(parse_seconds("2 Hz"));
  EXPECT_FALSE(parse_watts("2 J"));
  EXPECT_FALSE(parse_hertz("2 s"));
  EXPECT_FALSE(parse_dollars("2 EUR"));
  EXPECT_FALSE(parse_price_rate("2 USD"));
  EXPECT_FALSE(parse_energy_price("2 USD/h"));
  EXPECT_FALSE(parse_ratio("2"));
  EXPECT_FALSE(parse_count("2 GB"));
  EXPECT_FALSE(parse_count("1.5.2"));
}

TEST(UnitText, PrintsTheUnitThatReadsBest) {
  EXPECT_EQ(to_text(BytesPerSecond{2039e9}), "2.039 TB/s");
  EXPECT_EQ(to_text(BytesPerSecond{31.5e9}), "31.5 GB/s");
  EXPECT_EQ(to_text(BytesPerSecond{999.96e9}), "1 TB/s");
  EXPECT_EQ(to_text(Bytes{80.0 * 1024 * 1024 * 1024}), "80 GiB");
  EXPECT_EQ(to_text(Bytes{20.25 * 1024 * 1024}), "20.25 MiB");
  EXPECT_EQ(to_text(Bytes{0.5}), "0.5 B");
  EXPECT_EQ(to_text(Bytes{}), "0 B");
  EXPECT_EQ(to_text(FlopPerSecond{312e12}), "312 TFLOP/s");
  EXPECT_EQ(to_text(FlopPerSecond{1978.9e12}), "1.979 PFLOP/s");
  EXPECT_EQ(to_text(Flop{3.8e25}), "38 YFLOP");
  EXPECT_EQ(to_text(Flop{3.8e29}), "380000 YFLOP");
  EXPECT_EQ(to_text(Seconds{1.75e-3}), "1.75 ms");
  EXPECT_EQ(to_text(Seconds{7200}), "2 h");
  EXPECT_EQ(to_text(Seconds{}), "0 s");
  EXPECT_EQ(to_text(Watts{10200}), "10.2 kW");
  EXPECT_EQ(to_text(Joules{0.25}), "250 mJ");
  EXPECT_EQ(to_text(Hertz{1410e6}), "1.41 GHz");
  EXPECT_EQ(to_text(Dollars{199000}), "199000 USD");
  EXPECT_EQ(to_text(Dollars{2.5e6}), "2.5 M USD");
  EXPECT_EQ(to_text(Dollars{0.0123}), "0.0123 USD");
  EXPECT_EQ(to_text(DollarsPerSecond{2.45 / 3600}), "2.45 USD/h");
  EXPECT_EQ(to_text(FlopPerByte{153.0}), "153 FLOP/B");
}

TEST(UnitText, ExactTextComesBackUnchanged) {
  const std::vector<double> values = {0,        1,      3,       1e3,  12345.678, 80e9, 80.0 * 1024 * 1024 * 1024,
                                      2039e9,   312e12, 1.0 / 3, 1e-9, 150e-9,    7e21, 5e-3,
                                      989.4e12, 0.1};
  for (const double v : values) {
    EXPECT_EQ(parse_bytes(exact_text(Bytes{v}))->value(), v) << exact_text(Bytes{v});
    EXPECT_EQ(parse_bandwidth(exact_text(BytesPerSecond{v}))->value(), v);
    EXPECT_EQ(parse_flop_rate(exact_text(FlopPerSecond{v}))->value(), v);
    EXPECT_EQ(parse_seconds(exact_text(Seconds{v}))->value(), v);
    EXPECT_EQ(parse_watts(exact_text(Watts{v}))->value(), v);
    EXPECT_EQ(parse_hertz(exact_text(Hertz{v}))->value(), v);
    EXPECT_EQ(parse_dollars(exact_text(Dollars{v}))->value(), v);
    EXPECT_EQ(parse_price_rate(exact_text(DollarsPerSecond{v}))->value(), v);
  }
  EXPECT_EQ(exact_text(Bytes{80.0 * 1024 * 1024 * 1024}), "80 GiB");
  EXPECT_EQ(exact_text(FlopPerSecond{989.4e12}), "989.4 TFLOP/s");
  EXPECT_EQ(exact_text(DollarsPerSecond{*parse_price_rate("2.45 USD/h")}), "2.45 USD/h");
}

}  // namespace
}  // namespace rooftree

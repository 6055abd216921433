#include "base/unit_text.h"

#include <gtest/gtest.h>

namespace rooftree {
namespace {

TEST(UnitText, ReadsPrefixesOfBothKinds) {
  EXPECT_EQ(parse_bytes("80 GB")->value(), 80e9);
  EXPECT_EQ(parse_bytes("40MiB")->value(), 40.0 * 1048576);
  EXPECT_EQ(parse_bytes(" 1.25 TB ")->value(), 1.25e12);
  EXPECT_EQ(parse_bytes("512 B")->value(), 512);
}

TEST(UnitText, TellsBitsFromBytes) {
  EXPECT_DOUBLE_EQ(parse_bandwidth("400 Gb/s")->value(), 50e9);
  EXPECT_DOUBLE_EQ(parse_bandwidth("2.039 TB/s")->value(), 2.039e12);
  EXPECT_DOUBLE_EQ(parse_bandwidth("1 GiB/s")->value(), 1073741824.0);
}

TEST(UnitText, OperationsCountAsFlop) {
  EXPECT_DOUBLE_EQ(parse_flop_rate("624 TOP/s")->value(), 624e12);
  EXPECT_DOUBLE_EQ(parse_flop_rate("312 TFLOP/s")->value(), 312e12);
  EXPECT_DOUBLE_EQ(parse_flop_rate("1.1 PFLOPS")->value(), 1.1e15);
}

TEST(UnitText, OtherDimensions) {
  EXPECT_DOUBLE_EQ(parse_seconds("3 us")->value(), 3e-6);
  EXPECT_DOUBLE_EQ(parse_seconds("30 days")->value(), 30 * 86400.0);
  EXPECT_DOUBLE_EQ(parse_watts("10.2 kW")->value(), 10200);
  EXPECT_DOUBLE_EQ(parse_hertz("1410 MHz")->value(), 1.41e9);
  EXPECT_DOUBLE_EQ(parse_dollars("2.5 M USD")->value(), 2.5e6);
  EXPECT_DOUBLE_EQ(parse_price_rate("3.6 USD/h")->value(), 1e-3);
  EXPECT_DOUBLE_EQ(*parse_count("16M"), 16e6);
  EXPECT_DOUBLE_EQ(*parse_count("4Ki"), 4096);
}

TEST(UnitText, RefusesWhatIsNotAQuantity) {
  for (const char* text : {"", "GB", "80", "80 GB/s", "-1 GB", "nan GB", "inf GB", "80 gb", "80 G B x", "1e999 GB", "80 XB"}) {
    EXPECT_FALSE(parse_bytes(text)) << text;
  }
  for (const char* text : {"8", "8 TB", "8 T/s", "8 FLOP/s", "8 tb/s"}) EXPECT_FALSE(parse_bandwidth(text)) << text;
  for (const char* text : {"3", "3 m", "3 us/s", "x"}) EXPECT_FALSE(parse_seconds(text)) << text;
  for (const char* text : {"2.5", "2.5 USD", "2.5 EUR/h", "2.5 kUSD/h"}) EXPECT_FALSE(parse_price_rate(text)) << text;
  EXPECT_FALSE(parse_count("12 apples"));
}

TEST(UnitText, ErrorsNameFoundAndExpected) {
  const auto missing = parse_bandwidth("8 TB");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("'TB'"), std::string::npos) << missing.error().message;
  EXPECT_NE(missing.error().message.find("2.039 TB/s"), std::string::npos) << missing.error().message;
}

TEST(UnitText, PrintsTheUnitThatReadsBest) {
  EXPECT_EQ(to_text(Bytes{80.0 * 1073741824}), "80 GiB");
  EXPECT_EQ(to_text(BytesPerSecond{2.039e12}), "2.039 TB/s");
  EXPECT_EQ(to_text(FlopPerSecond{312e12}), "312 TFLOP/s");
  EXPECT_EQ(to_text(Seconds{1.5e-6}), "1.5 us");
  EXPECT_EQ(to_text(Seconds{0}), "0 s");
  EXPECT_EQ(to_text(Seconds{86400.0 * 3}), "3 days");
  EXPECT_EQ(to_text(FlopPerByte{153.02}), "153 FLOP/B");
  EXPECT_EQ(to_text(BytesPerSecond{999.97e9}), "1 TB/s");
}

}  // namespace
}  // namespace rooftree

#include "formats/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rooftree::formats {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a finite half by its definition: 10 bits of mantissa, exponent biased by 15, subnormals of 2^-24.
float defined_value(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>((half & 0x8000) != 0 ? -magnitude : magnitude);
}

TEST(Half, EveryF16) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = float_from_f16(half);
    if ((half & 0x7FFF) > 0x7C00) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(value))));
      continue;
    }
    if ((half & 0x7FFF) == 0x7C00) {
      EXPECT_EQ(value, (half & 0x8000) != 0 ? -kInfinity : kInfinity);
    } else {
      ASSERT_EQ(value, defined_value(half)) << bits;
    }
    ASSERT_EQ(f16_from_float(value), half);
  }
}

// Between neighbours: the middle goes to the even one, everything else to the nearer one.
TEST(Half, RoundsF16ToNearestEven) {
  for (std::uint16_t half = 0; half < 0x7BFF; ++half) {
    const float low = float_from_f16(half), high = float_from_f16(static_cast<std::uint16_t>(half + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    ASSERT_EQ(f16_from_float(middle), half % 2 == 0 ? half : half + 1) << half;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, 0.0F)), half) << half;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, kInfinity)), half + 1) << half;
    ASSERT_EQ(f16_from_float(-middle), (half % 2 == 0 ? half : half + 1) | 0x8000) << half;
  }
  EXPECT_EQ(f16_from_float(65519.996F), 0x7BFF);
  EXPECT_EQ(f16_from_float(65520.0F), 0x7C00);
  EXPECT_EQ(f16_from_float(-1e30F), 0xFC00);
  EXPECT_EQ(f16_from_float(-0.0F), 0x8000);
}

TEST(Half, Bf16) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = float_from_bf16(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(value))));
    } else {
      ASSERT_EQ(bf16_from_float(value), bits);
    }
  }
  EXPECT_EQ(bf16_from_float(1.0F + 0x1p-8F), 0x3F80);                                            // a tie, to the even one
  EXPECT_EQ(bf16_from_float(1.0F + 0x1.8p-7F), 0x3F82);                                          // a tie, upwards
  EXPECT_EQ(bf16_from_float(1.0F + 0x1p-8F + 0x1p-23F), 0x3F81);                                 // just above
  EXPECT_EQ(bf16_from_float(std::numeric_limits<float>::max()), 0x7F80);                         // rounds to infinity
  EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(std::bit_cast<float>(0x7F800001U)))));  // stays NaN
}

}  // namespace
}  // namespace rooftree::formats

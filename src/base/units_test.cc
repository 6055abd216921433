#include "base/units.h"

#include <gtest/gtest.h>

#include <concepts>

namespace rooftree {
namespace {

using namespace literals;

template <class A, class B>
concept Addable = requires(A a, B b) {
  a + b;
};

static_assert(Addable<Bytes, Bytes>);
static_assert(!Addable<Bytes, Flop>, "bytes and FLOP must not add");
static_assert(!Addable<Bytes, double>);
static_assert(!std::convertible_to<double, Bytes>);
static_assert(std::same_as<decltype(Bytes{} / BytesPerSecond{}), Seconds>);
static_assert(std::same_as<decltype(Watts{} * Seconds{}), Joules>);
static_assert(std::same_as<decltype(FlopPerSecond{} / BytesPerSecond{}), FlopPerByte>);
static_assert(std::same_as<decltype(Seconds{} / Seconds{}), double>);
static_assert(std::same_as<decltype(1.0 / Seconds{}), Hertz>);

TEST(Units, FormulaOfAWeightStream) {
  const Bytes weights = 141.1_GB;
  const Seconds t = weights / 2039.0_GBps;
  EXPECT_NEAR(t.value(), 0.0692, 1e-4);
}

TEST(Units, MinMaxAndOrder) {
  EXPECT_LT(1_KiB, 1_MiB);
  EXPECT_EQ(max(1_KiB, 1_MiB), 1_MiB);
  EXPECT_EQ(min(1_KiB, 1_MiB), 1_KiB);
}

}  // namespace
}  // namespace rooftree

#include "base/philox.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

namespace rooftree {
namespace {

// Known answers published with the paper (Random123, kat_vectors, "philox4x32 10").
static_assert(philox4x32_10({0, 0, 0, 0}, {0, 0}) == PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
              PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
              PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

TEST(Philox, SeedStreamAndPositionAreKeyAndCounterWords) {
  const Philox rng(0x299f31d0a4093822ULL, 0x0370734413198a2eULL);
  EXPECT_EQ(rng.block(0x85a308d3243f6a88ULL), (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, SequentialDrawsAreTheBlocksInOrder) {
  Philox rng(7, 3);
  for (std::uint64_t position = 0; position < 5; ++position) {
    for (const std::uint32_t word : Philox(7, 3).block(position)) EXPECT_EQ(rng.next_u32(), word);
  }
  rng.seek(2);
  const PhiloxBlock second = rng.block(2);
  EXPECT_EQ(rng.next_u64(), second[0] | (std::uint64_t{second[1]} << 32));
}

TEST(Philox, SeekForgetsTheRestOfTheBlockAndTheSpareNormal) {
  Philox rng(1);
  const double first = rng.normal();
  rng.seek(0);
  EXPECT_EQ(rng.normal(), first);
  rng.seek(5);
  rng.next_u32();
  rng.seek(5);
  EXPECT_EQ(rng.next_u32(), rng.block(5)[0]);
}

TEST(Philox, RandomAccessEqualsSequential) {
  Philox uniforms(11, 4), normals(11, 4);
  for (std::uint64_t i = 0; i < 1001; ++i) {
    EXPECT_EQ(uniforms.uniform(), uniforms.uniform_at(i));
    EXPECT_EQ(normals.normal(), normals.normal_at(i));
  }
}

TEST(Philox, StreamsAndSeedsDiffer) {
  EXPECT_NE(Philox(1, 0).block(0), Philox(1, 1).block(0));
  EXPECT_NE(Philox(1, 0).block(0), Philox(2, 0).block(0));
  EXPECT_NE(Philox(1, 0).block(0), Philox(1, 0).block(1));
}

TEST(Philox, UniformBounds) {
  EXPECT_EQ(uniform_from_bits(0), 0.0);
  EXPECT_EQ(uniform_from_bits(UINT64_MAX), 1.0 - 0x1p-53);
  EXPECT_EQ(uniform_float_from_bits(0), 0.0F);
  EXPECT_EQ(uniform_float_from_bits(UINT32_MAX), 1.0F - 0x1p-24F);
}

// The bits, not only the values: a machine or compiler that rounds otherwise (contraction, another libm) fails here.
TEST(Philox, NormalBitsArePinned) {
  const Philox rng(2026, 11);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(rng.normal_at(0)), 0x3fa383c112fe5cffULL);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(rng.normal_at(1)), 0x3fedccdeb38cfa29ULL);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(rng.normal_at(123456789)), 0x3fec74d270a752faULL);
  std::uint64_t hash = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    hash = hash * 6364136223846793005ULL + std::bit_cast<std::uint64_t>(rng.normal_at(i));
  }
  EXPECT_EQ(hash, 0x3814cae8acc92939ULL);
}

TEST(Philox, NormalAgreesWithTheMathLibrary) {
  const Philox rng(3);
  for (std::uint64_t position = 0; position < 20000; ++position) {
    const PhiloxBlock w = rng.block(position);
    const std::uint64_t bits0 = w[0] | (std::uint64_t{w[1]} << 32), bits1 = w[2] | (std::uint64_t{w[3]} << 32);
    const auto [x, y] = normal_pair_from_bits(bits0, bits1);
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform_from_bits(bits0)));
    const double angle = 2.0 * std::acos(-1.0) * uniform_from_bits(bits1);
    EXPECT_NEAR(x, radius * std::cos(angle), 4e-15 * radius);
    EXPECT_NEAR(y, radius * std::sin(angle), 4e-15 * radius);
  }
}

TEST(Philox, NormalExtremesAreFinite) {
  for (const std::uint64_t bits0 : {std::uint64_t{0}, UINT64_MAX, std::uint64_t{1} << 63}) {
    for (const std::uint64_t bits1 : {std::uint64_t{0}, UINT64_MAX, std::uint64_t{1} << 61, std::uint64_t{3} << 62}) {
      for (const double v : normal_pair_from_bits(bits0, bits1)) {
        EXPECT_TRUE(std::isfinite(v));
        EXPECT_LE(std::abs(v), 8.6);
      }
    }
  }
}

// Moments of n = 200000 draws against their standard errors (5 sigma; fixed seed, so the test cannot flicker).
TEST(Philox, NormalMoments) {
  const int n = 200000;
  Philox rng(99);
  double sum = 0, sum2 = 0, sum4 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    sum += x;
    sum2 += x * x;
    sum4 += x * x * x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(sum2 / n, 1.0, 5.0 * std::sqrt(2.0 / n));
  EXPECT_NEAR(sum4 / n, 3.0, 5.0 * std::sqrt(96.0 / n));
}

TEST(Philox, BelowIsUniform) {
  Philox rng(5);
  for (const std::uint64_t n : {2ULL, 3ULL, 7ULL, 10ULL}) {
    const int draws = 70000;
    std::vector<int> counts(n, 0);
    for (int i = 0; i < draws; ++i) {
      const std::uint64_t v = rng.below(n);
      ASSERT_LT(v, n);
      ++counts[v];
    }
    const double expected = static_cast<double>(draws) / static_cast<double>(n);
    for (const int count : counts) EXPECT_NEAR(count, expected, 5.0 * std::sqrt(expected));
  }
}

// At n = 3 * 2^62 a multiply without rejection would give the multiples of three twice the chance of the others.
TEST(Philox, BelowHasNoBiasAtLargeRanges) {
  Philox rng(6);
  const std::uint64_t n = std::uint64_t{3} << 62;
  std::array<int, 3> residues{};
  const int draws = 30000;
  for (int i = 0; i < draws; ++i) ++residues[rng.below(n) % 3];
  for (const int count : residues) EXPECT_NEAR(count, draws / 3, 5 * std::sqrt(draws / 3.0));
}

TEST(Philox, BelowOneIsZeroAndBelowZeroIsOurBug) {
  Philox rng(1);
  EXPECT_EQ(rng.below(1), 0U);
  EXPECT_DEATH(rng.below(0), "n > 0");
}

}  // namespace
}  // namespace rooftree

#include "base/philox.h"

#include <bit>
#include <cmath>

#include "base/check.h"

namespace rooftree {
namespace {

constexpr double kLn2 = 0.693147180559945309417;
constexpr double kHalfPi = 1.57079632679489661923;

// Natural logarithm of x in (0, 1]: x = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(s), s = (m - 1)/(m + 1),
// |s| <= 0.1716, so that the series in s^2 reaches 2^-53 after eleven terms. x is never denormal here.
double portable_log(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFULL) | 0x3FF0000000000000ULL);
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 1.0 / 23.0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return exponent * kLn2 + 2.0 * s * sum;
}

struct SinCos {
  double sin, cos;
};

// Sine and cosine of 2 pi t, t in [0, 1): the nearest quarter turn is taken off exactly, Taylor series on |x| <= pi/4 for the
// rest.
SinCos portable_sincos_turns(double t) {
  const int quarter = static_cast<int>(t * 4.0 + 0.5);  // 0..4
  const double x = (t * 4.0 - quarter) * kHalfPi;
  const double x2 = x * x;
  // Factors of Horner's scheme: 1 - x2/(2k (2k+1)) (...) and 1 - x2/((2k-1) 2k) (...).
  double s = 1.0, c = 1.0;
  for (int k = 9; k >= 1; --k) {
    s = 1.0 - x2 / (2.0 * k * (2.0 * k + 1.0)) * s;
    c = 1.0 - x2 / ((2.0 * k - 1.0) * 2.0 * k) * c;
  }
  s *= x;
  switch (quarter & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

std::uint64_t word_pair(const PhiloxBlock& block, int pair) {
  const auto low = static_cast<std::size_t>(2 * pair);
  return block[low] | (std::uint64_t{block[low + 1]} << 32);
}

}  // namespace

std::array<double, 2> normal_pair_from_bits(std::uint64_t bits0, std::uint64_t bits1) {
  // 1 - uniform lies in (0, 1]: the logarithm is finite.
  const double radius = std::sqrt(-2.0 * portable_log(1.0 - uniform_from_bits(bits0)));
  const SinCos angle = portable_sincos_turns(uniform_from_bits(bits1));
  return {radius * angle.cos, radius * angle.sin};
}

double Philox::uniform_at(std::uint64_t index) const {
  return uniform_from_bits(word_pair(block(index / 2), static_cast<int>(index % 2)));
}

double Philox::normal_at(std::uint64_t index) const {
  const PhiloxBlock words = block(index / 2);
  return normal_pair_from_bits(word_pair(words, 0), word_pair(words, 1))[index % 2];
}

std::uint32_t Philox::next_u32() {
  if (used_ == 4) {
    words_ = block(next_position_++);
    used_ = 0;
  }
  return words_[static_cast<std::size_t>(used_++)];
}

std::uint64_t Philox::next_u64() {
  const std::uint64_t low = next_u32();
  return low | (std::uint64_t{next_u32()} << 32);
}

double Philox::normal() {
  if (has_spare_normal_) {
    has_spare_normal_ = false;
    return spare_normal_;
  }
  const std::uint64_t bits0 = next_u64();
  const std::array<double, 2> pair = normal_pair_from_bits(bits0, next_u64());
  spare_normal_ = pair[1];
  has_spare_normal_ = true;
  return pair[0];
}

std::uint64_t Philox::below(std::uint64_t n) {
  ROOFTREE_CHECK(n > 0, "Philox::below needs n > 0");
  __extension__ using Wide = unsigned __int128;
  Wide product = Wide{next_u64()} * n;
  if (static_cast<std::uint64_t>(product) < n) {
    const std::uint64_t threshold = (0 - n) % n;  // 2^64 mod n: low words below it would favour some results
    while (static_cast<std::uint64_t>(product) < threshold) product = Wide{next_u64()} * n;
  }
  return static_cast<std::uint64_t>(product >> 64);
}

void Philox::seek(std::uint64_t position) {
  next_position_ = position;
  used_ = 4;
  has_spare_normal_ = false;
}

}  // namespace rooftree

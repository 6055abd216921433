#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace rooftree {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2), computed: the root by
// bisection on integers, floor(cbrt(p) * 2^32) for p below 2^9 fits 36 bits.
constexpr std::array<std::uint32_t, 64> round_constants() {
  std::array<std::uint32_t, 64> k{};
  std::size_t count = 0;
  for (std::uint32_t p = 2; count < k.size(); ++p) {
    bool prime = true;
    for (std::uint32_t d = 2; d * d <= p; ++d) prime = prime && p % d != 0;
    if (!prime) continue;
    using Wide = unsigned __int128;
    std::uint64_t low = 0, high = std::uint64_t{1} << 36;  // cube below and not below p * 2^96
    while (high - low > 1) {
      const std::uint64_t middle = (low + high) / 2;
      // middle^3 <= p * 2^96, compared after dropping 2^32 on both sides without losing order: middle^2 < 2^72.
      const Wide square = static_cast<Wide>(middle) * middle;
      const Wide left = (square >> 32) * middle + (((square & 0xFFFFFFFFU) * middle) >> 32);
      (left < static_cast<Wide>(p) << 64 ? low : high) = middle;
    }
    k[count++] = static_cast<std::uint32_t>(low);
  }
  return k;
}
constexpr std::array<std::uint32_t, 64> kRound = round_constants();
static_assert(kRound[0] == 0x428a2f98 && kRound[63] == 0xc67178f2);

}  // namespace

void Sha256::compress(const std::byte* block) {
  std::array<std::uint32_t, 64> w{};
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t b = 0; b < 4; ++b) w[i] = w[i] << 8 | std::to_integer<std::uint32_t>(block[4 * i + b]);
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t t1 =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const std::uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<std::uint32_t, 8> working = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state_[i] += working[i];
}

void Sha256::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t used = length_ % 64;
    if (used == 0 && bytes.size() >= 64) {
      compress(bytes.data());
      length_ += 64;
      bytes = bytes.subspan(64);
      continue;
    }
    const std::size_t take = std::min(bytes.size(), 64 - used);
    std::memcpy(block_.data() + used, bytes.data(), take);
    length_ += take;
    bytes = bytes.subspan(take);
    if (length_ % 64 == 0) compress(block_.data());
  }
}

std::array<std::byte, 32> Sha256::digest() const {
  Sha256 last = *this;
  const std::uint64_t bits = length_ * 8;
  std::array<std::byte, 72> padding{std::byte{0x80}};
  const std::size_t zeros = (119 - length_ % 64) % 64;  // up to 8 bytes before the end of a block
  for (std::size_t i = 0; i < 8; ++i) padding[1 + zeros + i] = static_cast<std::byte>(bits >> (56 - 8 * i));
  last.update(std::span(padding).first(1 + zeros + 8));
  std::array<std::byte, 32> out{};
  for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<std::byte>(last.state_[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

std::string Sha256::hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte b : digest()) {
    text += kDigits[std::to_integer<unsigned>(b) >> 4];
    text += kDigits[std::to_integer<unsigned>(b) & 15U];
  }
  return text;
}

}  // namespace rooftree

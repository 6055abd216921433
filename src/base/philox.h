#pragma once

// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC'11). Block number `position` of stream `stream` under `seed` is a pure function of those three numbers, so that any thread
// can compute any part of a sequence, and every draw has the same bits on every machine: the conversions below use only IEEE
// operations that are correctly rounded (no libm), in a file compiled without floating-point contraction.

#include <array>
#include <cstdint>

namespace rooftree {

using PhiloxBlock = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

// One evaluation of the ten-round bijection of the paper.
[[nodiscard]] constexpr PhiloxBlock philox4x32_10(PhiloxBlock counter, PhiloxKey key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// Bits as numbers. Uniforms lie in [0, 1): 53 and 24 random bits, every value a multiple of 2^-53 (2^-24).
[[nodiscard]] constexpr double uniform_from_bits(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }
[[nodiscard]] constexpr float uniform_float_from_bits(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24F; }

// Two independent standard normals from 128 random bits (Box-Muller; |value| <= 8.6).
[[nodiscard]] std::array<double, 2> normal_pair_from_bits(std::uint64_t bits0, std::uint64_t bits1);

// A stream: seed and stream number choose it, `position` counts blocks of 128 bits. Cheap to copy.
class Philox {
 public:
  explicit constexpr Philox(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  // Random access: block `position`, whatever was drawn before.
  [[nodiscard]] constexpr PhiloxBlock block(std::uint64_t position) const {
    return philox4x32_10({static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32),
                          static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                         {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  }
  // Element `index` of the infinite sequence of uniforms (normals) of this stream; two elements share a block.
  [[nodiscard]] double uniform_at(std::uint64_t index) const;
  [[nodiscard]] double normal_at(std::uint64_t index) const;

  // Sequential draws; each takes the next unused 32 or 64 bits of the stream.
  std::uint32_t next_u32();
  std::uint64_t next_u64();  // low word first
  double uniform() { return uniform_from_bits(next_u64()); }
  float uniform_float() { return uniform_float_from_bits(next_u32()); }
  double normal();  // takes 128 bits for two values and keeps the second for the next call
  // An integer in [0, n), every one equally likely (Lemire's multiply with rejection, ACM TOMACS 29(1), 2019). n > 0.
  std::uint64_t below(std::uint64_t n);

  // Continues at the start of block `position`.
  void seek(std::uint64_t position);

 private:
  std::uint64_t seed_, stream_;
  std::uint64_t next_position_ = 0;
  PhiloxBlock words_{};
  int used_ = 4;  // words of words_ already given out
  double spare_normal_ = 0.0;
  bool has_spare_normal_ = false;
};

}  // namespace rooftree

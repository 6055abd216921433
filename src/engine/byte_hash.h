#pragma once

// 64 bits of a piece of bytes, the same on every machine. Tells apart what differs by accident, not what is forged.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace rooftree::engine {

// Four chains so that it runs at memory speed.
inline std::uint64_t hash_bytes(std::span<const std::byte> bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio, odd
  std::uint64_t lanes[4] = {1, 2, 3, 4};
  std::size_t i = 0;
  for (; i + 32 <= bytes.size(); i += 32) {
    for (std::size_t lane = 0; lane < 4; ++lane) {
      std::uint64_t word;
      std::memcpy(&word, bytes.data() + i + 8 * lane, sizeof word);
      if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
      lanes[lane] = std::rotl(lanes[lane] ^ word, 29) * kMultiplier;
    }
  }
  for (; i < bytes.size(); ++i) lanes[0] = std::rotl(lanes[0] ^ static_cast<std::uint64_t>(bytes[i]), 29) * kMultiplier;
  std::uint64_t h = bytes.size();
  for (const std::uint64_t lane : lanes) {
    h = (h ^ lane) * kMultiplier;
    h ^= h >> 32;
  }
  return h;
}

}  // namespace rooftree::engine

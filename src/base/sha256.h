#pragma once

// SHA-256 (FIPS 180-4): what two machines compare when they claim the same weights or the same answer. Our own sixty lines
// because the proof of equal bits is cross-compiled to machines for which no library is installed.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace rooftree {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  template <class T>
  void update_values(std::span<const T> values) {
    update(std::as_bytes(values));
  }
  // Of everything so far; more can follow.
  [[nodiscard]] std::array<std::byte, 32> digest() const;
  [[nodiscard]] std::string hex() const;  // 64 lower-case digits

 private:
  void compress(const std::byte* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  std::uint64_t length_ = 0;  // bytes so far; the last length_ mod 64 are in block_
};

}  // namespace rooftree

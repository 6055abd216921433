#pragma once

// For tests of the CPU kernels: the instruction sets of this machine, seeded values, comparison of bits.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/cpu_features.h"

namespace rooftree::kernels::cpu::test {

// The machine's features limited to each level that it has, widest first; AVX-512 also without its bf16 instructions.
inline std::vector<CpuFeatures> instruction_sets() {
  std::vector<CpuFeatures> sets;
  const CpuFeatures& all = detected_cpu_features();
  sets.push_back(all);
  if (all.avx512_bf16) {
    sets.push_back(all);
    sets.back().avx512_bf16 = false;
  }
  for (const Isa isa : {Isa::kAvx2, Isa::kPortable}) {
    const CpuFeatures limited = limit(all, isa);
    if (limited.isa() == isa && limited.isa() != sets.back().isa()) sets.push_back(limited);
  }
  return sets;
}
inline std::string label(const CpuFeatures& features) {
  return std::string(name(features.isa())) + (features.avx512_bf16 ? "+bf16" : "");
}

// SplitMix64 (Steele, Lea, Flood 2014): enough for test values.
class Values {
 public:
  explicit Values(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  // Uniform in [-scale, scale).
  float next(float scale = 1.0F) { return (static_cast<float>(bits() >> 40) * 0x1p-23F - 1.0F) * scale; }
  std::vector<float> row(std::int64_t n, float scale = 1.0F) {
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& v : values) v = next(scale);
    return values;
  }

 private:
  std::uint64_t state_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace rooftree::kernels::cpu::test

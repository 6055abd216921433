#include "kernels/cpu/float_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "formats/half.h"
#include "kernels/backend.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu {
namespace {

struct Free {
  void operator()(std::byte* p) const { std::free(p); }
};
using Aligned = std::unique_ptr<std::byte, Free>;
Aligned aligned(std::size_t size) {
  auto* p = static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64 + 64));
  std::memset(p, 0xA5, size);
  return Aligned(p);
}

// Small xorshift: thousands of values per case.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U + 1) {}
  std::uint32_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  // About normal: the sum of four uniforms.
  float value() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits() >> 8) * 0x1p-24F;
    return (sum - 2.0F) * 1.7F;
  }

 private:
  std::uint64_t state_;
};

enum class Values { kOrdinary, kTiny };

std::vector<float> make_values(std::int64_t count, Values kind, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) {
    v = random.value();
    const std::uint32_t choice = random.bits() % 100;
    if (kind == Values::kTiny && choice < 60) {
      // Exponents around 2^-55, where bf16 operands end, down to floats' subnormals.
      constexpr int kExponents[] = {-50, -54, -55, -56, -100, -126, -130, -149};
      v = std::ldexp(v, kExponents[choice % 8]);
    }
  }
  return values;
}

DType row_type(DType type) { return type == DType::kBf16Lossless12 ? DType::kBf16 : type; }

std::vector<std::byte> to_rows(DType type, const std::vector<float>& values) {
  const std::size_t size = row_type(type) == DType::kF32 ? 4 : 2;
  std::vector<std::byte> rows(values.size() * size);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t half =
        row_type(type) == DType::kF16 ? formats::f16_from_float(values[i]) : formats::bf16_from_float(values[i]);
    if (size == 4) {
      std::memcpy(&rows[4 * i], &values[i], 4);
    } else {
      std::memcpy(&rows[2 * i], &half, 2);
    }
  }
  return rows;
}

// What the contract says a stored value and an activation count as.
float operand(DType type, float v) {
  switch (row_type(type)) {
    case DType::kF16:
      return formats::float_from_f16(formats::f16_from_float(std::min(std::max(v, -65504.0F), 65504.0F)));
    case DType::kBf16: {
      const float rounded = formats::float_from_bf16(formats::bf16_from_float(v));
      return std::fabs(rounded) < 0x1p-55F ? std::copysign(0.0F, rounded) : rounded;
    }
    default:
      return v;
  }
}

// The contract's order, written down once more without any layout.
float contract_dot(DType type, const float* w, const float* x, std::int64_t K) {
  std::vector<float> sums;
  for (std::int64_t begin = 0; begin < K; begin += 512) {
    float acc = 0;
    for (std::int64_t k = begin; k < std::min(K, begin + 512); ++k) {
      const float a = operand(type, w[k]), b = operand(type, x[k]);
      if (type == DType::kF32) {
        acc = std::fma(a, b, acc);
      } else {
        const float product = a * b;  // exact
        acc = acc + product;
      }
    }
    sums.push_back(acc);
  }
  while (sums.size() > 1) {
    std::vector<float> next;
    for (std::size_t i = 0; i < sums.size(); i += 2) next.push_back(i + 1 < sums.size() ? sums[i] + sums[i + 1] : sums[i]);
    sums = next;
  }
  return sums[0];
}

struct Packed {
  PackedMatrix matrix;
  Aligned storage;
};
Packed pack(const ProductKernels& kernels, DType type, std::int64_t n, std::int64_t k, const std::vector<std::byte>& rows) {
  Packed packed;
  const std::size_t size = kernels.packed_bytes(n, k);
  packed.storage = aligned(size);
  // One byte off: rows may lie anywhere.
  std::vector<std::byte> shifted(rows.size() + 1);
  std::memcpy(shifted.data() + 1, rows.data(), rows.size());
  const std::int64_t units = (n + kernels.unit - 1) / kernels.unit;
  for (std::int64_t u = units; u-- > 0;) {  // in any order
    kernels.pack({.type = type, .n = n, .k = k, .rows = shifted.data() + 1, .out = packed.storage.get()}, {u, u + 1});
  }
  packed.matrix = {.type = type, .n = n, .k = k, .data = packed.storage.get(), .bytes = size};
  return packed;
}

std::vector<float> multiply(const ProductKernels& kernels, DType type, const Packed& w, const float* x, std::int64_t m,
                            const float* bias = nullptr, const std::int32_t* gather = nullptr) {
  const std::int64_t n = w.matrix.n, k = w.matrix.k;
  const Aligned packed = aligned(kernels.activation_bytes(m, k));
  const PackActivationsArgs pack_args{
      .product = product_of(type), .x = {x, k}, .rows = m, .k = k, .gather = gather, .out = packed.get()};
  const std::int64_t grain = kernels.activation_grain(m);
  for (std::int64_t i = 0; i < m; i += grain) kernels.pack_activations(pack_args, {i, std::min(m, i + grain)});
  std::vector<float> y(static_cast<std::size_t>(m * (n + 3)), -77.0F);
  const MultiplyArgs args{.weight = w.matrix, .x = packed.get(), .rows = m, .y = {y.data(), n + 3}, .bias = bias};
  const std::int64_t units = (n + kernels.unit - 1) / kernels.unit;
  kernels.multiply(args, {units / 2, units});
  kernels.multiply(args, {0, units / 2});
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t c = n; c < n + 3; ++c)
      EXPECT_EQ(y[static_cast<std::size_t>(i * (n + 3) + c)], -77.0F) << "beyond the row";
  }
  std::vector<float> result;
  for (std::int64_t i = 0; i < m; ++i)
    result.insert(result.end(), &y[static_cast<std::size_t>(i * (n + 3))], &y[static_cast<std::size_t>(i * (n + 3))] + n);
  return result;
}

std::vector<CpuFeatures> instruction_sets() {
  const CpuFeatures all = detected_cpu_features();
  std::vector<CpuFeatures> sets = {limit(all, Isa::kPortable)};
  if (all.isa() == Isa::kNeon) sets.push_back(all);
  if (all.avx2 && all.fma && all.f16c) sets.push_back(limit(all, Isa::kAvx2));
  if (all.isa() == Isa::kAvx512) {
    CpuFeatures without = all;
    without.avx512_bf16 = false;
    sets.push_back(without);
    if (all.avx512_bf16) sets.push_back(all);
  }
  return sets;
}
std::string set_name(const CpuFeatures& f) { return std::string(name(f.isa())) + (f.avx512_bf16 ? " bf16" : ""); }

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBf16, DType::kBf16Lossless12};

bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

void expect_same(const std::vector<float>& got, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(same_bits(got[i], expected[i])) << what << ", value " << i << ": " << got[i] << " instead of " << expected[i];
  }
}

TEST(FloatProducts, EveryInstructionSetAndBatchGivesTheContractsBits) {
  struct Shape {
    std::int64_t n, k;
  };
  for (const Shape shape : {Shape{1, 1}, Shape{65, 31}, Shape{64, 512}, Shape{67, 513}, Shape{130, 1043}, Shape{5, 3585}}) {
    for (const Values kind : {Values::kOrdinary, Values::kTiny}) {
      const std::vector<float> w = make_values(shape.n * shape.k, kind, 1), x = make_values(64 * shape.k, kind, 2);
      const std::vector<float> bias = make_values(shape.n, Values::kOrdinary, 3);
      for (const DType type : kTypes) {
        const std::vector<std::byte> rows = to_rows(type, w);
        if (type == DType::kBf16Lossless12 && !fits_lossless12(shape.n, shape.k, rows.data())) continue;
        std::vector<float> stored = w;
        for (float& v : stored) v = operand(type, v);
        std::vector<float> expected;
        for (std::int64_t i = 0; i < 64; ++i) {
          for (std::int64_t o = 0; o < shape.n; ++o) {
            expected.push_back(contract_dot(type, &stored[static_cast<std::size_t>(o * shape.k)],
                                            &x[static_cast<std::size_t>(i * shape.k)], shape.k) +
                               bias[static_cast<std::size_t>(o)]);
          }
        }
        for (const CpuFeatures& features : instruction_sets()) {
          const ProductKernels* kernels = float_products(type, features);
          ASSERT_NE(kernels, nullptr);
          const Packed packed = pack(*kernels, type, shape.n, shape.k, rows);
          for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33, 64}) {
            const std::vector<float> y = multiply(*kernels, type, packed, x.data(), m, bias.data());
            expect_same(y, {expected.begin(), expected.begin() + m * shape.n},
                        set_name(features) + " " + std::string(name(type)) + " M=" + std::to_string(m) +
                            " N=" + std::to_string(shape.n) + " K=" + std::to_string(shape.k));
          }
        }
      }
    }
  }
}

// A sum of K products in segments of 512 meets at most 511 roundings in a chain and one per level of the tree: the error is at
// most (511 + levels) * 2^-24 * sum |w x| to first order, and operands were rounded before.
TEST(FloatProducts, IsWithinTheBoundOfTheExactSum) {
  constexpr std::int64_t kN = 70, kK = 2600;  // 6 segments, 3 levels
  const std::vector<float> w = make_values(kN * kK, Values::kOrdinary, 4), x = make_values(kK, Values::kOrdinary, 5);
  for (const DType type : kTypes) {
    const ProductKernels& kernels = *float_products(type, detected_cpu_features());
    const std::vector<float> y = multiply(kernels, type, pack(kernels, type, kN, kK, to_rows(type, w)), x.data(), 1);
    for (std::int64_t o = 0; o < kN; ++o) {
      double exact = 0, magnitude = 0;
      for (std::int64_t k = 0; k < kK; ++k) {
        const double product = static_cast<double>(operand(type, w[static_cast<std::size_t>(o * kK + k)])) *
                               static_cast<double>(operand(type, x[static_cast<std::size_t>(k)]));
        exact += product;
        magnitude += std::fabs(product);
      }
      EXPECT_NEAR(static_cast<double>(y[static_cast<std::size_t>(o)]), exact, 515 * 0x1p-24 * magnitude) << name(type);
    }
  }
}

// Several blocks of rows and many tiles, rows gathered: each row as if alone.
TEST(FloatProducts, RowsOfLargeBatchesAreAsIfAlone) {
  constexpr std::int64_t kN = 65, kK = 1100, kM = 1031, kRows = 19;
  const std::vector<float> w = make_values(kN * kK, Values::kOrdinary, 6), x = make_values(kRows * kK, Values::kOrdinary, 7);
  std::vector<std::int32_t> gather(kM);
  for (std::int64_t i = 0; i < kM; ++i) gather[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 7 % kRows);
  for (const DType type : kTypes) {
    const ProductKernels& kernels = *float_products(type, detected_cpu_features());
    const Packed packed = pack(kernels, type, kN, kK, to_rows(type, w));
    const std::vector<float> all = multiply(kernels, type, packed, x.data(), kM, nullptr, gather.data());
    for (std::int64_t r = 0; r < kRows; ++r) {
      const std::vector<float> alone = multiply(kernels, type, packed, &x[static_cast<std::size_t>(r * kK)], 1);
      for (std::int64_t i = 0; i < kM; ++i) {
        if (gather[static_cast<std::size_t>(i)] != r) continue;
        expect_same({&all[static_cast<std::size_t>(i * kN)], &all[static_cast<std::size_t>(i * kN)] + kN}, alone,
                    "row " + std::to_string(i));
      }
    }
  }
}

TEST(FloatProducts, UnpackedRowsAreTheStoredValues) {
  for (const std::int64_t k : {1, 33, 512, 1025}) {
    constexpr std::int64_t kN = 66;
    for (const Values kind : {Values::kOrdinary, Values::kTiny}) {
      const std::vector<float> w = make_values(kN * k, kind, 8);
      for (const DType type : kTypes) {
        const std::vector<std::byte> rows = to_rows(type, w);
        if (type == DType::kBf16Lossless12 && !fits_lossless12(kN, k, rows.data())) continue;
        for (const CpuFeatures& features : instruction_sets()) {
          const ProductKernels& kernels = *float_products(type, features);
          const Packed packed = pack(kernels, type, kN, k, rows);
          std::vector<float> row(static_cast<std::size_t>(k));
          for (const std::int64_t o : {0, 1, 31, 63, 64, 65}) {
            kernels.unpack_row(packed.matrix, o, row);
            for (std::int64_t i = 0; i < k; ++i) {
              const float stored = operand(type, w[static_cast<std::size_t>(o * k + i)]);
              ASSERT_TRUE(same_bits(row[static_cast<std::size_t>(i)], stored)) << name(type) << " row " << o << " value " << i;
            }
          }
        }
      }
    }
  }
}

// 0.4 % of the values outside the 16 high bytes, in the corners of records and segments too.
TEST(FloatProducts, CodedWeightsWithManyEscapesGiveTheBitsOfBf16) {
  constexpr std::int64_t kN = 130, kK = 1541;
  std::vector<float> w = make_values(kN * kK, Values::kOrdinary, 9);
  const std::vector<float> x = make_values(8 * kK, Values::kOrdinary, 10);
  Random random(11);
  std::int64_t escapes = 0;
  for (std::int64_t i = 0; i < kN * kK; i += 250, ++escapes) {
    w[static_cast<std::size_t>(i)] =
        std::ldexp(1.0F + random.value() / 8, (escapes % 2 == 0 ? 20 : -20) - static_cast<int>(escapes % 29));
  }
  for (const std::int64_t k : {0, 1, 510, 511, 512, 1023, 1024, 1540}) {
    for (const std::int64_t o : {0, 15, 16, 63, 64, 129}) w[static_cast<std::size_t>(o * kK + k)] = 0x1.5p40F;
  }
  const std::vector<std::byte> rows = to_rows(DType::kBf16, w);
  EXPECT_FALSE(fits_lossless12(kN, kK, rows.data())) << "more than 0.2 %";
  for (const CpuFeatures& features : instruction_sets()) {
    const ProductKernels& plain = *float_products(DType::kBf16, features);
    const ProductKernels& coded = *float_products(DType::kBf16Lossless12, features);
    const Packed plain_w = pack(plain, DType::kBf16, kN, kK, rows), coded_w = pack(coded, DType::kBf16Lossless12, kN, kK, rows);
    for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8}) {
      expect_same(multiply(coded, DType::kBf16Lossless12, coded_w, x.data(), m),
                  multiply(plain, DType::kBf16, plain_w, x.data(), m), set_name(features) + " M=" + std::to_string(m));
    }
    std::vector<float> a(kK), b(kK);
    for (std::int64_t o = 0; o < kN; ++o) {
      plain.unpack_row(plain_w.matrix, o, a);
      coded.unpack_row(coded_w.matrix, o, b);
      expect_same(b, a, "row " + std::to_string(o));
    }
  }
}

TEST(FloatProducts, FitsLossless12UpToTwoInAThousand) {
  constexpr std::int64_t kN = 128, kK = 1000;
  std::vector<float> w(kN * kK);
  // The values 2^0 to 2^31 use 16 high bytes (one per two exponents), each often.
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = std::ldexp(1.0F, static_cast<int>(i % 31));
  EXPECT_TRUE(fits_lossless12(kN, kK, to_rows(DType::kBf16, w).data()));
  const auto spoil = [&](std::int64_t count, std::int64_t within) {
    std::vector<float> spoilt = w;
    for (std::int64_t i = 0; i < count; ++i) spoilt[static_cast<std::size_t>(i * (within / count))] = -1.0F;
    return fits_lossless12(kN, kK, to_rows(DType::kBf16, spoilt).data());
  };
  EXPECT_TRUE(spoil(256, kN * kK));  // exactly 0.2 %
  EXPECT_FALSE(spoil(257, kN * kK));
  EXPECT_TRUE(spoil(250, 64 * kK));  // all in the first 64 rows: 0.39 % of them
  w.assign(w.size(), 0.0F);
  for (std::int64_t i = 0; i < 64 * 5 * 16; ++i)
    w[static_cast<std::size_t>(i)] = std::ldexp(1.0F, static_cast<int>(i % 16) * 2);
  // 17 high bytes in the first unit; the rarest, 320 values, is what its capacity of 0.5 % just holds, but 0.25 % of all.
  EXPECT_FALSE(fits_lossless12(kN, kK, to_rows(DType::kBf16, w).data()));
}

TEST(FloatProducts, TinyWeightsAndZerosFitTogether) {
  // All tiny values are read as zero, so they share the high byte of zero.
  std::vector<float> w = make_values(64 * 512, Values::kOrdinary, 12);
  for (std::size_t i = 0; i < w.size(); i += 2) w[i] = std::ldexp(1.0F, -60 - static_cast<int>(i / 2 % 60));
  EXPECT_TRUE(fits_lossless12(64, 512, to_rows(DType::kBf16, w).data()));
}

TEST(FloatProducts, NotANumberAndInfinityAreNotHidden) {
  constexpr std::int64_t kN = 64, kK = 70;
  const std::vector<float> w(kN * kK, 0.5F);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBf16}) {
    for (const CpuFeatures& features : instruction_sets()) {
      const ProductKernels& kernels = *float_products(type, features);
      const Packed packed = pack(kernels, type, kN, kK, to_rows(type, w));
      std::vector<float> x(kK, 0.0F);
      x[69] = std::nanf("");
      EXPECT_TRUE(std::isnan(multiply(kernels, type, packed, x.data(), 1)[0])) << set_name(features) << name(type);
      x[69] = INFINITY;
      // f16 activations are clamped to the largest finite number.
      EXPECT_EQ(multiply(kernels, type, packed, x.data(), 1)[0], type == DType::kF16 ? 32752.0F : INFINITY);
      x[69] = -1e30F;
      EXPECT_EQ(multiply(kernels, type, packed, x.data(), 1)[0], 0.5F * operand(type, -1e30F));
    }
  }
}

TEST(FloatProducts, SizesAreTheStoredBits) {
  for (const CpuFeatures& features : instruction_sets()) {
    EXPECT_EQ(float_products(DType::kF32, features)->packed_bytes(128, 1024), 128U * 1024 * 4);
    EXPECT_EQ(float_products(DType::kF16, features)->packed_bytes(65, 1024), 128U * 1024 * 2);
    EXPECT_EQ(float_products(DType::kBf16, features)->packed_bytes(128, 1023), 128U * 1024 * 2);
    const std::size_t coded = float_products(DType::kBf16Lossless12, features)->packed_bytes(4096, 4096);
    EXPECT_GT(coded, 4096U * 4096 * 3 / 2);
    EXPECT_LT(coded, 4096U * 4096 * 3 / 2 * 102 / 100);
    for (const DType type : {DType::kQ4_0, DType::kQ4K, DType::kFp8E4m3, DType::kF64}) {
      EXPECT_EQ(float_products(type, features), nullptr) << name(type);
    }
  }
}

}  // namespace
}  // namespace rooftree::kernels::cpu

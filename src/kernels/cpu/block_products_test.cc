#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/philox.h"
#include "formats/block_codec.h"
#include "formats/half.h"
#include "kernels/cpu/block_products_forms.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu {
namespace {

using block::kBlockTypes;

// 64-byte aligned bytes.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : storage_(bytes / sizeof(Line) + 1) {}
  std::byte* data() { return storage_.front().bytes; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> storage_;
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : stream_(seed, 0) {}
  std::uint32_t bits() {
    if (used_ == 4) block_ = stream_.block(position_++), used_ = 0;
    return block_[used_++];
  }
  float uniform(float low, float high) { return low + (high - low) * uniform_float_from_bits(bits()); }

 private:
  Philox stream_;
  std::uint64_t position_ = 0;
  PhiloxBlock block_{};
  std::size_t used_ = 4;
};

// The vector tables that this machine runs, by name.
struct Set {
  std::string name;
  CpuFeatures features;
};
CpuFeatures portable() { return limit(detected_cpu_features(), Isa::kPortable); }
std::vector<Set> vector_sets() {
  std::vector<Set> sets;
  const CpuFeatures own = detected_cpu_features();
  if (own.isa() >= Isa::kAvx512 && own.avx512_vnni) sets.push_back({"avx512", own});
  if (own.avx2) {
    CpuFeatures avx2 = limit(own, Isa::kAvx2);
    if (avx2.avx_vnni) sets.push_back({"avx2 vnni", avx2});
    avx2.avx_vnni = false;
    sets.push_back({"avx2", avx2});
  }
  if (own.neon && own.dot) sets.push_back({"neon", own});
  return sets;
}

// Where a stored record has its f16 numbers.
std::vector<std::size_t> half_offsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4K:
    case DType::kQ5K:
      return {0, 2};
    case DType::kQ2K:
      return {80, 82};
    case DType::kQ3K:
      return {108};
    case DType::kQ6K:
      return {208};
    case DType::kTq1_0:
      return {52};
    case DType::kTq2_0:
      return {64};
    case DType::kMxfp4:
    case DType::kMxint8:
      return {};
    default:
      return {0};
  }
}

// Random records: every code and inner scale occurs, block scales of usual size with now and then a zero or a subnormal.
std::vector<std::byte> random_weights(DType type, std::int64_t n, std::int64_t k, Random& random) {
  const formats::BlockForm form = formats::block_form(type);
  std::vector<std::byte> out(static_cast<std::size_t>(n) * formats::row_bytes(type, k));
  for (std::byte& b : out) b = static_cast<std::byte>(random.bits() & 0xFFU);
  const auto bytes = static_cast<std::size_t>(form.bytes);
  for (std::size_t at = 0; at < out.size(); at += bytes) {
    const auto pick = random.bits() % 16;
    for (const std::size_t offset : half_offsets(type)) {
      std::uint16_t d = formats::f16_from_float(random.uniform(-0.02F, 0.02F));
      if (pick == 0) d = 0;
      if (pick == 1) d = static_cast<std::uint16_t>(random.bits() & 0x80FFU);
      std::memcpy(&out[at + offset], &d, sizeof d);
    }
    if (half_offsets(type).empty()) {
      out[at] = static_cast<std::byte>(pick < 3 ? pick * 4 + random.bits() % 4 : 100 + random.bits() % 40);
    }
    if (type == DType::kTq2_0) {  // three values, not four
      for (std::size_t i = 0; i < 64; ++i) {
        auto byte = std::to_integer<unsigned>(out[at + i]);
        byte &= ~((byte >> 1U & byte & 0x55U) << 1U);
        out[at + i] = static_cast<std::byte>(byte);
      }
    }
  }
  return out;
}

std::vector<float> random_rows(std::int64_t rows, std::int64_t k, Random& random) {
  std::vector<float> x(static_cast<std::size_t>(rows * k));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = random.uniform(-1.0F, 1.0F);
    // Blocks of different size, some tiny, some zero.
    const std::size_t b = i / 32 % 23;
    if (b == 3) x[i] *= 1e4F;
    if (b == 5) x[i] *= 0x1p-95F;
    if (b == 7) x[i] = 0;
    if (b == 11) x[i] *= 0x1p-110F;
  }
  return x;
}

// Packs in two pieces, to show that pieces are independent.
Buffer packed(const ProductKernels& kernels, DType type, std::int64_t n, std::int64_t k, const std::vector<std::byte>& rows) {
  Buffer out(kernels.packed_bytes(n, k));
  std::memset(out.data(), 0xA5, kernels.packed_bytes(n, k));
  const PackArgs args{.type = type, .n = n, .k = k, .rows = rows.data(), .out = out.data()};
  const std::int64_t units = (n + kernels.unit - 1) / kernels.unit;
  kernels.pack(args, {units / 2, units});
  kernels.pack(args, {0, units / 2});
  return out;
}

std::vector<float> product(const ProductKernels& kernels, DType type, std::int64_t n, std::int64_t k, std::byte* weights,
                           const std::vector<float>& x, std::int64_t rows, const std::vector<float>& bias = {},
                           const std::vector<std::int32_t>& gather = {}, std::int64_t padding = 3) {
  const Product kind = product_of(type);
  Buffer activations(kernels.activation_bytes(rows, k));
  std::memset(activations.data(), 0xA5, kernels.activation_bytes(rows, k));
  const PackActivationsArgs pack{.product = kind,
                                 .x = {x.data(), k},
                                 .rows = rows,
                                 .k = k,
                                 .gather = gather.empty() ? nullptr : gather.data(),
                                 .out = activations.data()};
  const std::int64_t grain = kernels.activation_grain(rows);
  for (std::int64_t first = 0; first < rows; first += grain)
    kernels.pack_activations(pack, {first, std::min(rows, first + grain)});
  const std::int64_t stride = n + padding;
  constexpr float kUntouched = 12345.0F;
  std::vector<float> y(static_cast<std::size_t>(rows * stride), kUntouched);
  const MultiplyArgs args{.weight = {type, n, k, weights, kernels.packed_bytes(n, k)},
                          .x = activations.data(),
                          .rows = rows,
                          .y = {y.data(), stride},
                          .bias = bias.empty() ? nullptr : bias.data()};
  const std::int64_t units = (n + kernels.unit - 1) / kernels.unit;
  kernels.multiply(args, {0, units / 3});
  kernels.multiply(args, {units / 3, units});
  std::vector<float> dense;
  for (std::int64_t m = 0; m < rows; ++m) {
    const float* row = &y[static_cast<std::size_t>(m * stride)];
    dense.insert(dense.end(), row, row + n);
    for (std::int64_t i = n; i < stride; ++i) EXPECT_EQ(row[i], kUntouched) << "written behind row " << m;
  }
  return dense;
}

std::string difference(const std::vector<float>& a, const std::vector<float>& b, std::int64_t n) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return "row " + std::to_string(i / static_cast<std::size_t>(n)) + " output " +
             std::to_string(i % static_cast<std::size_t>(n)) + ": " + std::to_string(a[i]) + " and " + std::to_string(b[i]);
    }
  }
  return a.size() == b.size() ? "" : "different sizes";
}

class BlockProducts : public testing::TestWithParam<DType> {
 protected:
  const DType type = GetParam();
  const std::int64_t block = formats::block_form(type).values;
};

TEST_P(BlockProducts, EveryInstructionSetGivesTheBitsOfThePortableCode) {
  const ProductKernels& plain = *block_products(type, portable());
  Random random(7);
  for (const std::int64_t blocks : {1, 2, 3, 5, 16, 17, 35}) {
    const std::int64_t k = blocks * block;
    if (block == 256 && blocks > 5) continue;
    const std::int64_t n = blocks == 3 ? 100 : blocks == 1 ? 1 : 37;
    const std::vector<std::byte> weights = random_weights(type, n, k, random);
    const std::vector<float> x = random_rows(100, k, random);
    Buffer plain_weights = packed(plain, type, n, k, weights);
    const std::vector<float> expected = product(plain, type, n, k, plain_weights.data(), x, 100);
    for (const Set& set : vector_sets()) {
      const ProductKernels& kernels = *block_products(type, set.features);
      Buffer own_weights = packed(kernels, type, n, k, weights);
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 32, 33, 64, 65, 100}) {
        const std::vector<float> y = product(kernels, type, n, k, own_weights.data(), x, rows);
        const std::vector<float> part(expected.begin(), expected.begin() + rows * n);
        ASSERT_EQ(difference(y, part, n), "") << set.name << ", " << rows << " rows, N " << n << ", K " << k;
      }
    }
  }
}

// All rows at once, with a bias and a gather, equal each row by itself plus the bias.
TEST_P(BlockProducts, ARowDoesNotDependOnTheOthers) {
  std::vector<Set> sets = vector_sets();
  sets.push_back({"portable", portable()});
  Random random(8);
  const std::int64_t n = 53, k = 3 * block, rows = 19;
  const std::vector<std::byte> weights = random_weights(type, n, k, random);
  const std::vector<float> x = random_rows(rows, k, random);
  std::vector<float> bias;
  std::vector<std::int32_t> gather;
  for (int i = 0; i < n; ++i) bias.push_back(random.uniform(-1, 1));
  for (int i = 0; i < rows; ++i) gather.push_back(static_cast<std::int32_t>(random.bits() % rows));
  for (const Set& set : sets) {
    const ProductKernels& kernels = *block_products(type, set.features);
    Buffer own = packed(kernels, type, n, k, weights);
    const std::vector<float> all = product(kernels, type, n, k, own.data(), x, rows, bias, gather);
    for (std::int64_t m = 0; m < rows; ++m) {
      std::vector<float> alone = product(kernels, type, n, k, own.data(), x, 1, {}, {gather[static_cast<std::size_t>(m)]});
      for (std::size_t i = 0; i < alone.size(); ++i) alone[i] += bias[i];
      const std::vector<float> part(all.begin() + m * n, all.begin() + (m + 1) * n);
      ASSERT_EQ(difference(part, alone, n), "") << set.name << ", row " << m;
    }
  }
}

// More rows than one walk over the weights takes, with aligned outputs large enough to go past the caches.
TEST_P(BlockProducts, ManyRowsAndStreamedOutputs) {
  const std::int64_t n = 1040, k = block, rows = 518;
  Random random(9);
  const std::vector<std::byte> weights = random_weights(type, n, k, random);
  const std::vector<float> x = random_rows(rows, k, random);
  for (const Set& set : vector_sets()) {
    const ProductKernels& kernels = *block_products(type, set.features);
    Buffer own = packed(kernels, type, n, k, weights);
    Buffer activations(kernels.activation_bytes(rows, k));
    kernels.pack_activations({.product = product_of(type), .x = {x.data(), k}, .rows = rows, .k = k, .out = activations.data()},
                             {0, rows});
    Buffer y(static_cast<std::size_t>(rows * n) * 4);
    const MultiplyArgs args{.weight = {type, n, k, own.data(), kernels.packed_bytes(n, k)},
                            .x = activations.data(),
                            .rows = rows,
                            .y = {reinterpret_cast<float*>(y.data()), n}};
    kernels.multiply(args, {0, n / kernels.unit});
    for (const std::int64_t m : {0, 1, 255, 511, 512, 517}) {
      const std::vector<float> alone = product(kernels, type, n, k, own.data(), x, 1, {}, {static_cast<std::int32_t>(m)});
      std::vector<float> row(static_cast<std::size_t>(n));
      std::memcpy(row.data(), y.data() + m * n * 4, row.size() * 4);
      ASSERT_EQ(difference(row, alone, n), "") << set.name << ", row " << m;
    }
  }
}

TEST_P(BlockProducts, UnpackedRowsAreTheFormatsValues) {
  std::vector<Set> sets = vector_sets();
  sets.push_back({"portable", portable()});
  Random random(10);
  const std::int64_t n = 21, k = 5 * block;
  const std::vector<std::byte> weights = random_weights(type, n, k, random);
  const std::size_t row_bytes = formats::row_bytes(type, k);
  for (const Set& set : sets) {
    const ProductKernels& kernels = *block_products(type, set.features);
    Buffer own = packed(kernels, type, n, k, weights);
    for (std::int64_t row = 0; row < n; ++row) {
      std::vector<float> expected(static_cast<std::size_t>(k)), got(static_cast<std::size_t>(k));
      formats::dequantize_row(type, {&weights[static_cast<std::size_t>(row) * row_bytes], row_bytes}, expected);
      kernels.unpack_row({type, n, k, own.data(), kernels.packed_bytes(n, k)}, row, got);
      ASSERT_EQ(difference(got, expected, k), "") << set.name << ", row " << row;
    }
  }
}

// The contract's result is the product of the weights' values with the rounded activations, up to the rounding of its sums.
TEST_P(BlockProducts, PortableCodeIsTheProductOfValuesAndRoundedActivations) {
  const ProductKernels& kernels = *block_products(type, portable());
  Random random(11);
  const std::int64_t n = 33, k = 7 * block, rows = 3;
  const std::vector<std::byte> weights = random_weights(type, n, k, random);
  const std::vector<float> x = random_rows(rows, k, random);
  Buffer own = packed(kernels, type, n, k, weights);
  const std::vector<float> y = product(kernels, type, n, k, own.data(), x, rows);
  const std::size_t row_bytes = formats::row_bytes(type, k);
  for (std::int64_t m = 0; m < rows; ++m) {
    std::vector<double> rounded;
    for (std::int64_t b = 0; b < k; b += block) {
      const float* from = &x[static_cast<std::size_t>(m * k + b)];
      double largest = 0;
      for (std::int64_t i = 0; i < block; ++i) largest = std::max(largest, std::abs(double{from[i]}));
      for (std::int64_t i = 0; i < block; ++i) {
        rounded.push_back(largest < 0x1p-100 ? 0.0 : std::nearbyint(from[i] / largest * 127) * largest / 127);
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      std::vector<float> w(static_cast<std::size_t>(k));
      formats::dequantize_row(type, {&weights[static_cast<std::size_t>(i) * row_bytes], row_bytes}, w);
      double sum = 0, size = 0;
      for (std::size_t j = 0; j < w.size(); ++j) {
        sum += double{w[j]} * rounded[j];
        size += std::abs(double{w[j]} * rounded[j]);
      }
      // A value in a thousand lies so near a tie that rounding x * (127 / a) in binary32 goes the other way.
      EXPECT_NEAR(y[static_cast<std::size_t>(m * n + i)], sum, 1e-5 * size + 1e-30) << "row " << m << ", output " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, BlockProducts, testing::ValuesIn(kBlockTypes),
                         [](const auto& tested) { return std::string(rooftree::name(tested.param)); });

TEST(BlockProductsTable, VectorCodeIsUsedWhereTheMachineHasIt) {
  if (detected_cpu_features().isa() < Isa::kAvx512 || !detected_cpu_features().avx512_vnni) GTEST_SKIP() << "no AVX-512 VNNI";
  EXPECT_NE(block_products(DType::kQ4_0, detected_cpu_features()), block_products(DType::kQ4_0, portable()));
}

TEST(BlockProductsTable, OnlyBlockTypes) {
  EXPECT_EQ(block_products(DType::kBf16, detected_cpu_features()), nullptr);
  EXPECT_EQ(block_products(DType::kF32, portable()), nullptr);
  EXPECT_EQ(block_products(DType::kQ4KM, portable()), nullptr);  // a mix of a file, not a type of a matrix
  EXPECT_EQ(block_products(DType::kQ4_0, portable())->k_multiple, 32);
  EXPECT_EQ(block_products(DType::kQ6K, detected_cpu_features())->k_multiple, 256);
}

// The frequent types take no more bytes than the file's rows when N and K are whole units.
TEST(BlockProductsTable, FrequentTypesKeepTheirSize) {
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIq4Nl, DType::kMxfp4,
                           DType::kMxint8, DType::kQ2K, DType::kQ4K, DType::kQ5K, DType::kQ6K}) {
    for (const CpuFeatures& features : {detected_cpu_features(), portable()}) {
      EXPECT_EQ(block_products(type, features)->packed_bytes(64, 2048), 64 * formats::row_bytes(type, 2048))
          << rooftree::name(type);
    }
  }
}

// What the weight 1 at one place reads back of a block of activations: q * d.
std::vector<float> read_back(const CpuFeatures& features, const std::vector<float>& x) {
  const ProductKernels& kernels = *block_products(DType::kQ8_0, features);
  std::vector<std::byte> weights(std::size_t{32} * 34);
  for (std::size_t i = 0; i < 32; ++i) {
    const std::uint16_t one = formats::f16_from_float(1.0F);
    std::memcpy(&weights[i * 34], &one, sizeof one);
    weights[i * 34 + 2 + i] = std::byte{1};
  }
  Buffer own = packed(kernels, DType::kQ8_0, 32, 32, weights);
  return product(kernels, DType::kQ8_0, 32, 32, own.data(), x, 1);
}

TEST(BlockActivations, RoundToNearestTiesToEvenWithinTheBlocksMaximum) {
  std::vector<Set> sets = vector_sets();
  sets.push_back({"portable", portable()});
  for (const Set& set : sets) {
    std::vector<float> x(32, 0.0F);
    // d = 1: values are their own multiples.
    const std::vector<std::pair<float, float>> cases = {{127.0F, 127.0F}, {-127.0F, -127.0F}, {0.5F, 0.0F},    {1.5F, 2.0F},
                                                        {2.5F, 2.0F},     {-0.5F, 0.0F},      {-1.5F, -2.0F},  {-2.5F, -2.0F},
                                                        {126.5F, 126.0F}, {125.5F, 126.0F},   {0.4999F, 0.0F}, {0.5001F, 1.0F}};
    for (std::size_t i = 0; i < cases.size(); ++i) x[i] = cases[i].first;
    const std::vector<float> y = read_back(set.features, x);
    for (std::size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(y[i], cases[i].second) << set.name << ": " << cases[i].first;
  }
}

TEST(BlockActivations, TinyBlocksAreZeroAndTheSmallestOthersAreNot) {
  std::vector<Set> sets = vector_sets();
  sets.push_back({"portable", portable()});
  for (const Set& set : sets) {
    std::vector<float> x(32, std::nextafter(0x1p-100F, 0.0F));
    for (const float y : read_back(set.features, x)) EXPECT_EQ(y, 0.0F) << set.name;
    x[5] = 0x1p-100F;
    const std::vector<float> y = read_back(set.features, x);
    EXPECT_EQ(y[5], 127.0F * (0x1p-100F / 127.0F)) << set.name;
    EXPECT_GT(y[6], 0.0F) << set.name;
    for (const float zero : read_back(set.features, std::vector<float>(32, 0.0F))) EXPECT_EQ(zero, 0.0F) << set.name;
  }
}

// Rows that are no numbers, or have an infinity, give equal integers everywhere: no instruction set's special cases show.
TEST(BlockActivations, NotANumberIsTheSameEverywhere) {
  std::vector<float> x(32, 1.0F);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[20] = -std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> expected = read_back(portable(), x);
  EXPECT_EQ(expected[3], -127.0F * (1.0F / 127.0F));
  for (const Set& set : vector_sets()) EXPECT_EQ(difference(read_back(set.features, x), expected, 32), "") << set.name;
}

}  // namespace
}  // namespace rooftree::kernels::cpu

#include "formats/block_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/philox.h"
#include "formats/gguf.h"
#include "formats/half.h"
#include "formats/test_models.h"

namespace rooftree::formats {
namespace {

std::vector<float> read(DType type, std::span<const std::byte> row, std::size_t k) {
  std::vector<float> out(k);
  dequantize_row(type, row, out);
  return out;
}
std::vector<std::byte> written(DType type, std::span<const float> values) {
  std::vector<std::byte> row(row_bytes(type, static_cast<std::int64_t>(values.size())));
  quantize_row(type, values, row);
  return row;
}
std::vector<float> round_trip(DType type, const std::vector<float>& values) {
  return read(type, written(type, values), values.size());
}
std::vector<float> normals(std::size_t count, std::uint64_t stream) {
  Philox philox(7, stream);
  std::vector<float> out(count);
  for (float& x : out) x = static_cast<float>(philox.normal());
  return out;
}
double relative_rms(const std::vector<float>& x, const std::vector<float>& y) {
  double difference = 0, total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    total += static_cast<double>(x[i]) * x[i];
  }
  return std::sqrt(difference / total);
}
std::byte byte(int value) { return static_cast<std::byte>(value); }
void put_half(std::vector<std::byte>& row, std::size_t at, float value) {
  const std::uint16_t bits = f16_from_float(value);
  std::memcpy(row.data() + at, &bits, 2);
}

const std::vector<DType> kWritten = {DType::kQ8_0,  DType::kQ4_0,   DType::kQ4_1,  DType::kQ5_0,  DType::kQ5_1,
                                     DType::kMxfp4, DType::kMxint8, DType::kIq4Nl, DType::kIq4Xs, DType::kQ2K,
                                     DType::kQ3K,   DType::kQ4K,    DType::kQ5K,   DType::kQ6K};

TEST(BlockCodec, FormsAgreeWithTheBitsPerValue) {
  for (const DTypeInfo& type : all_dtypes()) {
    const BlockForm form = block_form(type.type);
    if (form.values == 0) {
      EXPECT_FALSE(can_dequantize(type.type)) << type.name;
      continue;
    }
    EXPECT_EQ(8.0 * form.bytes / form.values, type.bits_per_value) << type.name;
    EXPECT_TRUE(!can_quantize(type.type) || can_dequantize(type.type)) << type.name;
    if (const GgufType* stored = gguf_type(type.type); stored != nullptr) {
      EXPECT_EQ(stored->form.values, form.values) << type.name;
      EXPECT_EQ(stored->form.bytes, form.bytes) << type.name;
    }
  }
  EXPECT_FALSE(can_dequantize(DType::kFp8E4m3));
  EXPECT_FALSE(can_quantize(DType::kTq1_0));
  EXPECT_EQ(block_form(DType::kQ4KM).values, 0);
}

TEST(BlockCodec, RowsAreWholeRecords) {
  EXPECT_EQ(row_bytes(DType::kQ4_0, 64), 36U);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 63), 0U);
  EXPECT_EQ(row_bytes(DType::kQ4_0, 0), 0U);
  EXPECT_EQ(row_bytes(DType::kQ4_0, -32), 0U);
  EXPECT_EQ(row_bytes(DType::kQ4K, 256), 144U);
  EXPECT_EQ(row_bytes(DType::kQ4K, 128), 0U);
  EXPECT_EQ(row_bytes(DType::kInt4, 128), 0U);
}

TEST(BlockCodec, PlainTypes) {
  const std::vector<float> x = {0.0F, -0.0F, 1.0F, -2.5F, 65504.0F, 0x1p-24F, 0x1p-130F};
  EXPECT_EQ(round_trip(DType::kF32, x), x);
  EXPECT_EQ(round_trip(DType::kF16, x), (std::vector<float>{0.0F, -0.0F, 1.0F, -2.5F, 65504.0F, 0x1p-24F, 0.0F}));
  EXPECT_EQ(round_trip(DType::kBf16, x), (std::vector<float>{0.0F, -0.0F, 1.0F, -2.5F, 65536.0F, 0x1p-24F, 0x1p-130F}));
  const std::vector<double> d = {0.1, -1e300, 1e-60};
  std::vector<std::byte> row(24);
  std::memcpy(row.data(), d.data(), 24);
  EXPECT_EQ(read(DType::kF64, row, 3), (std::vector<float>{0.1F, -std::numeric_limits<float>::infinity(), 0.0F}));
}

// Records made by hand from the documents' formulas, one place of every field set.
TEST(BlockCodec, HandMadeRecords) {
  {
    std::vector<std::byte> r(18);
    put_half(r, 0, 0.5F);
    r[2] = byte(0x0F);   // value 0: 15, value 16: 0
    r[17] = byte(0x90);  // value 15: 0, value 31: 9
    const auto y = read(DType::kQ4_0, r, 32);
    EXPECT_EQ(y[0], 3.5F);
    EXPECT_EQ(y[16], -4.0F);
    EXPECT_EQ(y[15], -4.0F);
    EXPECT_EQ(y[31], 0.5F);
  }
  {
    std::vector<std::byte> r(24);
    put_half(r, 0, 2.0F);
    put_half(r, 2, -3.0F);
    r[4] = byte(0x01);   // fifth bit of value 0
    r[7] = byte(0x80);   // of value 31
    r[8] = byte(0x21);   // low nibbles of values 0 and 16
    r[23] = byte(0xF0);  // of 15 and 31
    const auto y = read(DType::kQ5_1, r, 32);
    EXPECT_EQ(y[0], 2.0F * 17 - 3);
    EXPECT_EQ(y[16], 2.0F * 2 - 3);
    EXPECT_EQ(y[15], -3.0F);
    EXPECT_EQ(y[31], 2.0F * 31 - 3);
  }
  {
    // q4_k: sub-block 1 (scale 3, minimum 5) and 6 (scale 0x2A, minimum 0x15), whose upper bits are in bytes 2 and 6.
    std::vector<std::byte> r(144);
    put_half(r, 0, 1.0F);
    put_half(r, 2, 0.5F);
    r[4 + 1] = byte(3);
    r[4 + 5] = byte(5);
    r[4 + 2] = byte(0x2 << 6);
    r[4 + 6] = byte(0x1 << 6);
    r[4 + 10] = byte(0x0A | (0x5 << 4));
    r[16] = byte(0x70);            // values 0 and 32
    r[16 + 96 + 31] = byte(0x0C);  // values 192 + 31 and 224 + 31
    const auto y = read(DType::kQ4K, r, 256);
    EXPECT_EQ(y[32], 3.0F * 7 - 2.5F);
    EXPECT_EQ(y[33], -2.5F);
    EXPECT_EQ(y[223], 42.0F * 12 - 10.5F);
    EXPECT_EQ(y[255], 0.0F);
  }
  {
    std::vector<std::byte> r(210);
    put_half(r, 208, 0.25F);
    r[192 + 15] = byte(-2);
    r[64 + 63] = byte(0x50);        // low nibble of value 255: 5
    r[128 + 32 + 31] = byte(0xC0);  // its upper bits: 3
    const auto y = read(DType::kQ6K, r, 256);
    EXPECT_EQ(y[255], 0.25F * -2 * (53 - 32));
    EXPECT_EQ(y[254], 0.25F * -2 * -32);
    EXPECT_EQ(y[0], 0.0F);
  }
  {
    std::vector<std::byte> r(17);
    r[0] = byte(127 + 1);  // 2
    r[1] = byte(0xF7);     // 6 and -6
    const auto y = read(DType::kMxfp4, r, 32);
    EXPECT_EQ(y[0], 12.0F);
    EXPECT_EQ(y[16], -12.0F);
    r[0] = byte(0);  // 2^-127, whose half is subnormal
    EXPECT_EQ(read(DType::kMxfp4, r, 32)[0], 6 * 0x1p-127F);
  }
  {
    std::vector<std::byte> r(33);
    r[0] = byte(127);
    r[1] = byte(64);
    r[32] = byte(-127);
    const auto y = read(DType::kMxint8, r, 32);
    EXPECT_EQ(y[0], 1.0F);
    EXPECT_EQ(y[31], -127.0F / 64);
    r[0] = byte(0);
    EXPECT_EQ(read(DType::kMxint8, r, 32)[0], 0x1p-127F);
    r[0] = byte(254);
    EXPECT_EQ(read(DType::kMxint8, r, 32)[0], 0x1p127F);
  }
}

TEST(BlockCodec, AnyAlignment) {
  const std::vector<float> x = normals(256, 1);
  for (const DType type : kWritten) {
    const std::vector<std::byte> row = written(type, x);
    std::vector<std::byte> shifted(row.size() + 1);
    std::copy(row.begin(), row.end(), shifted.begin() + 1);
    EXPECT_EQ(read(type, std::span(shifted).subspan(1), 256), read(type, row, 256)) << name(type);
  }
}

// The error of normal values. Bounds: measured, rounded up.
TEST(BlockCodec, ErrorOfWrittenValues) {
  const std::vector<float> x = normals(256 * 64, 2);
  const auto error = [&](DType type) { return relative_rms(x, round_trip(type, x)); };
  EXPECT_LT(error(DType::kF16), 0.0003);
  EXPECT_LT(error(DType::kBf16), 0.0018);
  EXPECT_LT(error(DType::kQ8_0), 0.0056);
  EXPECT_LT(error(DType::kMxint8), 0.0084);
  EXPECT_LT(error(DType::kQ5_0), 0.045);
  EXPECT_LT(error(DType::kQ5_1), 0.039);
  EXPECT_LT(error(DType::kQ4_0), 0.09);
  EXPECT_LT(error(DType::kQ4_1), 0.081);
  EXPECT_LT(error(DType::kIq4Nl), 0.0757);
  EXPECT_LT(error(DType::kMxfp4), 0.12);
  EXPECT_LT(error(DType::kQ4K), 0.0725);
  EXPECT_LT(error(DType::kQ6K), 0.0177);
  EXPECT_LT(error(DType::kQ5K), 0.0365);
  EXPECT_LT(error(DType::kQ3K), 0.145);
  EXPECT_LT(error(DType::kQ2K), 0.27);
  EXPECT_LT(error(DType::kIq4Xs), 0.0765);
}

TEST(BlockCodec, ExactlyRepresentableBlocksSurvive) {
  const std::vector<float> zeros(256, 0.0F);
  std::vector<float> x(256);
  for (std::size_t i = 0; i < 256; ++i) x[i] = static_cast<float>(static_cast<int>(i % 16) - 8) * 0.25F;
  for (const DType type : kWritten) {
    EXPECT_EQ(round_trip(type, zeros), zeros) << name(type);
    const std::vector<float> once = round_trip(type, x);
    if (type == DType::kQ4_0 || type == DType::kQ5_0 || type == DType::kMxint8 || type == DType::kQ6K) {
      EXPECT_EQ(once, x) << name(type);
    }
    EXPECT_LT(relative_rms(x, once), 0.3) << name(type);
  }
}

TEST(BlockCodec, ExtremeValuesStayDefined) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(), kInfinity, -kInfinity,
                            std::numeric_limits<float>::quiet_NaN()}) {
    for (const DType type : kWritten) {
      std::vector<float> x = normals(256, 3);
      x[5] = value;
      (void)round_trip(type, x);  // the sanitizers watch
      (void)round_trip(type, std::vector<float>(256, value));
    }
  }
  // The shared exponents clamp.
  EXPECT_EQ(round_trip(DType::kMxint8, std::vector<float>(32, 0x1p127F))[0], 0x1p127F);
  EXPECT_EQ(round_trip(DType::kMxfp4, std::vector<float>(32, 0x1p127F))[0], 0x1p127F);
  EXPECT_EQ(round_trip(DType::kMxfp4, std::vector<float>(32, 7.0F))[0], 6.0F);  // saturates
  EXPECT_EQ(round_trip(DType::kMxfp4, {5.0F, 6.0F, 2.5F, -2.5F, -0.25F, 0.75F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                       0,    0,    0,    0,     0,      0,     0, 0, 0, 0, 0, 0, 0, 0, 0, 0}),
            (std::vector<float>{4.0F, 6.0F, 2.0F, -2.0F, 0.0F, 0.5F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                0,    0,    0,    0,     0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));  // ties to smaller
}

// Against the files that llama-quantize made.
class ReferenceFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(test::shared_models(ROOFTREE_SOURCE_DIR))) GTEST_SKIP() << "no reference models";
  }
  Result<GgufFile> open(const std::string& name) {
    return GgufFile::open(test::model_file(ROOFTREE_SOURCE_DIR, name, folder_));
  }
  // Matrices of both files whose stored type is `type`: calls body(exact values, stored bytes).
  template <class Body>
  void compare(const std::string& exact_name, const std::string& name, DType type, const Body& body) {
    auto exact = open(exact_name), stored = open(name);
    ASSERT_TRUE(exact) << exact.error().message;
    ASSERT_TRUE(stored) << stored.error().message;
    int compared = 0;
    for (const std::string_view tensor : stored->names()) {
      const auto b = stored->find(tensor), a = exact->find(tensor);
      ASSERT_TRUE(a && b);
      if (b->type != type) continue;
      std::vector<float> values(a->bytes.size() / 4);
      dequantize_row(a->type, a->bytes, values);
      body(values, b->bytes);
      ++compared;
    }
    EXPECT_GE(compared, 15);
  }
  test::TestFolder folder_;
};

TEST_F(ReferenceFiles, SameBytesAsLlamaQuantize) {
  for (const auto& [exact, file, type] :
       std::vector<std::tuple<const char*, const char*, DType>>{{"stories260k-f32.gguf", "stories260k-q8_0.gguf", DType::kQ8_0},
                                                                {"stories260k-f32.gguf", "stories260k-q4_0.gguf", DType::kQ4_0},
                                                                {"llama-f32.gguf", "llama-q8_0.gguf", DType::kQ8_0},
                                                                {"llama-f32.gguf", "llama-q4_0.gguf", DType::kQ4_0},
                                                                {"llama-f32.gguf", "llama-q4_1.gguf", DType::kQ4_1},
                                                                {"llama-f32.gguf", "llama-q5_0.gguf", DType::kQ5_0},
                                                                {"llama-f32.gguf", "llama-q5_1.gguf", DType::kQ5_1},
                                                                {"llama-f32.gguf", "llama-mxfp4.gguf", DType::kMxfp4},
                                                                {"llama-f32.gguf", "llama-bf16.gguf", DType::kBf16}}) {
    compare(exact, file, type,
            [&, name = file, kind = type](const std::vector<float>& values, std::span<const std::byte> bytes) {
              const std::vector<std::byte> ours = written(kind, values);
              ASSERT_EQ(ours.size(), bytes.size());
              std::size_t different = 0;
              for (std::size_t i = 0; i < ours.size(); ++i) different += ours[i] != bytes[i] ? 1 : 0;
              EXPECT_EQ(different, 0U) << name;
            });
  }
}

// The searched types need not have the same bytes, but not a larger error.
TEST_F(ReferenceFiles, SearchedTypesAreNoWorse) {
  for (const auto& [file, type] : std::vector<std::pair<const char*, DType>>{{"llama-q2_k.gguf", DType::kQ2K},
                                                                             {"llama-q3_k.gguf", DType::kQ3K},
                                                                             {"llama-q4_k.gguf", DType::kQ4K},
                                                                             {"llama-q5_k.gguf", DType::kQ5K},
                                                                             {"llama-q6_k.gguf", DType::kQ6K},
                                                                             {"llama-iq4_nl.gguf", DType::kIq4Nl},
                                                                             {"llama-iq4_xs.gguf", DType::kIq4Xs}}) {
    double ours = 0, theirs = 0;
    compare("llama-f32.gguf", file, type, [&, kind = type](const std::vector<float>& values, std::span<const std::byte> bytes) {
      ours += relative_rms(values, round_trip(kind, values));
      theirs += relative_rms(values, read(kind, bytes, values.size()));
    });
    EXPECT_LT(ours, theirs) << file;
  }
}

}  // namespace
}  // namespace rooftree::formats

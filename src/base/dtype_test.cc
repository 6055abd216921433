#include "base/dtype.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace rooftree {
namespace {

TEST(DType, NamesAreUniqueAndReadBack) {
  std::set<std::string_view> names;
  for (const DTypeInfo& t : all_dtypes()) {
    EXPECT_TRUE(names.insert(t.name).second) << t.name;
    const Result<DType> read = parse_dtype(t.name);
    ASSERT_TRUE(read) << t.name;
    EXPECT_EQ(*read, t.type);
    EXPECT_EQ(name(t.type), t.name);
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kDTypeCount));
}

TEST(DType, BitsFollowFromTheBlocks) {
  // Payload times block, plus scales and minima: OCP Microscaling v1.0 and the block structures of ggml.
  EXPECT_DOUBLE_EQ(info(DType::kMxfp4).bits_per_value, (32 * 4 + 8) / 32.0);
  EXPECT_DOUBLE_EQ(info(DType::kNvfp4).bits_per_value, (16 * 4 + 8) / 16.0);
  EXPECT_DOUBLE_EQ(info(DType::kInt4).bits_per_value, (128 * 4 + 16) / 128.0);
  EXPECT_DOUBLE_EQ(info(DType::kQ8_0).bits_per_value, 8 * 34 / 32.0);     // 34 bytes per 32
  EXPECT_DOUBLE_EQ(info(DType::kQ4_1).bits_per_value, 8 * 20 / 32.0);     // 20 bytes per 32
  EXPECT_DOUBLE_EQ(info(DType::kQ2K).bits_per_value, 8 * 84 / 256.0);     // 84 bytes per 256
  EXPECT_DOUBLE_EQ(info(DType::kQ4K).bits_per_value, 8 * 144 / 256.0);    // 144 bytes per 256
  EXPECT_DOUBLE_EQ(info(DType::kQ6K).bits_per_value, 8 * 210 / 256.0);    // 210 bytes per 256
  EXPECT_DOUBLE_EQ(info(DType::kIq4Xs).bits_per_value, 8 * 136 / 256.0);  // 136 bytes per 256
  EXPECT_DOUBLE_EQ(info(DType::kTq1_0).bits_per_value, 8 * 54 / 256.0);   // 54 bytes per 256
}

TEST(DType, MixedFilesLieBetweenTheTypesThatTheyMix) {
  for (const DType mixed : {DType::kQ4KS, DType::kQ4KM}) {
    EXPECT_GT(info(mixed).bits_per_value, info(DType::kQ4K).bits_per_value);
    EXPECT_LT(info(mixed).bits_per_value, info(DType::kQ6K).bits_per_value);
  }
  for (const DType mixed : {DType::kQ5KS, DType::kQ5KM}) {
    EXPECT_GT(info(mixed).bits_per_value, info(DType::kQ5K).bits_per_value);
    EXPECT_LT(info(mixed).bits_per_value, info(DType::kQ6K).bits_per_value);
  }
}

TEST(DType, StorageCountsScales) {
  EXPECT_DOUBLE_EQ(storage(DType::kBf16, 1000).value(), 2000);
  EXPECT_DOUBLE_EQ(storage(DType::kQ4_0, 32).value(), 18);
  EXPECT_DOUBLE_EQ(storage(DType::kF32, 0).value(), 0);
}

TEST(DType, UnknownNamesAreRefusedWithTheList) {
  for (const char* text : {"", "q9", "BF16", "bf16 ", "fp4"}) {
    const Result<DType> read = parse_dtype(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalid);
    EXPECT_NE(read.error().message.find("expected one of f64, f32"), std::string::npos) << read.error().message;
  }
}

TEST(Arithmetic, NamesReadBackAndOthersAreRefused) {
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto arithmetic = static_cast<Arithmetic>(i);
    ASSERT_TRUE(parse_arithmetic(name(arithmetic)));
    EXPECT_EQ(*parse_arithmetic(name(arithmetic)), arithmetic);
  }
  for (const char* text : {"", "f16", "FP16", "int9"}) EXPECT_FALSE(parse_arithmetic(text)) << text;
}

}  // namespace
}  // namespace rooftree

#include "formats/random_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "formats/block_codec.h"

namespace rooftree::formats {
namespace {

std::vector<RandomTensor> model(DType type) {
  return {{.name = "a.weight", .type = type, .extents = {64, 512}},
          {.name = "b.weight", .type = type, .extents = {3, 16, 512}, .deviation = 2.0F},
          {.name = "norm.weight", .extents = {77}, .fill = RandomTensor::Fill::kConstant, .value = 1.0F},
          {.name = "bias", .extents = {77}, .deviation = 0.5F}};
}

RandomSource source_of(DType type, std::uint64_t seed, ThreadPool* pool = nullptr) {
  auto source = RandomSource::make(model(type), {.seed = seed, .pool = pool});
  EXPECT_TRUE(source) << source.error().message;
  return std::move(source).value();
}

std::vector<std::byte> bytes_of(RandomSource& source, std::string_view name) {
  const auto view = source.find(name);
  EXPECT_TRUE(view) << view.error().message;
  return {view->bytes.begin(), view->bytes.end()};
}

double deviation_of(RandomSource& source, std::string_view name) {
  const auto view = source.find(name);
  std::vector<float> values(static_cast<std::size_t>(view->rows() * view->k()));
  dequantize_row(view->type, view->bytes, values);
  double sum = 0, squares = 0;
  for (const float x : values) {
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_LT(std::fabs(sum / n), 5 * std::sqrt(squares / n / n));  // the mean is 0 within five standard errors
  return std::sqrt(squares / n);
}

TEST(RandomSource, DrawsTheAskedDeviationInEveryType) {
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBf16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
        DType::kMxfp4, DType::kMxint8, DType::kIq4Nl, DType::kIq4Xs, DType::kQ5K, DType::kQ4K, DType::kQ6K}) {
    RandomSource source = source_of(type, 1);
    EXPECT_NEAR(deviation_of(source, "a.weight") * std::sqrt(512.0), 1.0, 0.02) << name(type);
    EXPECT_NEAR(deviation_of(source, "b.weight"), 2.0, 0.04) << name(type);
    EXPECT_EQ(source.find("a.weight")->type, type);
    EXPECT_EQ(source.find("b.weight")->extents, (std::vector<std::int64_t>{3, 16, 512}));
  }
}

TEST(RandomSource, ConstantsAndPartsOfUnits) {
  RandomSource source = source_of(DType::kQ4_0, 1);
  const auto norm = source.find("norm.weight");
  ASSERT_TRUE(norm);
  ASSERT_EQ(norm->bytes.size(), 77U * 4);
  std::vector<float> values(77);
  dequantize_row(DType::kF32, norm->bytes, values);
  EXPECT_EQ(values, std::vector<float>(77, 1.0F));
  EXPECT_NEAR(deviation_of(source, "bias"), 0.5, 0.15);
  EXPECT_EQ(source.total_bytes(), (64U + 48) * 16 * 18 + 2 * 77 * 4);
  EXPECT_EQ(source.names(), (std::vector<std::string_view>{"a.weight", "b.weight", "norm.weight", "bias"}));
}

TEST(RandomSource, BytesDependOnSeedAndNameAlone) {
  RandomSource one = source_of(DType::kQ8_0, 1), other = source_of(DType::kQ8_0, 1), second_seed = source_of(DType::kQ8_0, 2);
  const auto a = bytes_of(one, "a.weight");
  const auto b = bytes_of(one, "b.weight");
  EXPECT_EQ(bytes_of(other, "b.weight"), b);  // in another order
  EXPECT_EQ(bytes_of(other, "a.weight"), a);
  other.release("a.weight");
  EXPECT_EQ(bytes_of(other, "a.weight"), a);  // made again
  EXPECT_NE(bytes_of(second_seed, "a.weight"), a);
  auto twins = RandomSource::make({{.name = "a.weight", .type = DType::kQ8_0, .extents = {64, 512}},
                                   {.name = "c", .type = DType::kQ8_0, .extents = {64, 512}}},
                                  {.seed = 1});
  ASSERT_TRUE(twins) << twins.error().message;
  EXPECT_EQ(bytes_of(*twins, "a.weight"), a);
  EXPECT_NE(bytes_of(*twins, "c"), a);
  for (const int threads : {2, 3}) {
    ThreadPool pool({.threads = threads, .pin = false});
    RandomSource shared = source_of(DType::kQ8_0, 1, &pool);
    EXPECT_EQ(bytes_of(shared, "a.weight"), a) << threads;
    EXPECT_EQ(bytes_of(shared, "b.weight"), b) << threads;
  }
}

// The same bytes on every machine: a sum over them that was computed once.
TEST(RandomSource, FixedBytes) {
  RandomSource source = source_of(DType::kQ4_0, 42);
  std::uint64_t sum = 0;
  for (const std::byte byte : bytes_of(source, "a.weight")) sum = sum * 31 + static_cast<std::uint64_t>(byte);
  EXPECT_EQ(sum, 12500303291080204013U);
}

TEST(RandomSource, RefusesWhatCannotBeDrawn) {
  const auto refusal = [](RandomTensor tensor) {
    std::vector<RandomTensor> tensors{std::move(tensor)};
    const auto source = RandomSource::make(std::move(tensors), {});
    return source ? std::string("accepted") : source.error().message;
  };
  EXPECT_EQ(refusal({.name = "t", .type = DType::kTq1_0, .extents = {256}}),
            "random tensor 't': values of type tq1_0 cannot be drawn");
  EXPECT_EQ(refusal({.name = "t", .type = DType::kQ4_0, .extents = {2, 33}}),
            "random tensor 't': rows of 33 values; q4_0 stores 32 together");
  EXPECT_EQ(refusal({.name = "t", .extents = {2, 0}}), "random tensor 't': an extent of 0");
  EXPECT_EQ(refusal({.name = "t", .extents = {std::int64_t{1} << 47, 4}}), "random tensor 't': an extent of 4");
  EXPECT_NE(refusal({.name = "t", .extents = {2}, .deviation = -1.0F}).find("not negative"), std::string::npos);
  EXPECT_NE(refusal({.name = "t", .extents = {2}, .value = NAN}).find("finite"), std::string::npos);
  EXPECT_EQ(RandomSource::make({{.name = "t"}, {.name = "t"}}, {}).error().message, "random tensor 't': the name occurs twice");
  auto source = RandomSource::make({{.name = "t", .extents = {4}}}, {});
  EXPECT_EQ(source->find("u").error().message, "random weights: no tensor 'u' among the 1 of this model; near names are 't'");
  EXPECT_FALSE(source->contains("u"));
}

}  // namespace
}  // namespace rooftree::formats

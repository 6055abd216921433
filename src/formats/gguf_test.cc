#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>

#include "formats/half.h"
#include "formats/test_models.h"

namespace rooftree::formats {
namespace {

// Writes the file format by hand, so that wrong files can be written too.
class Bytes {
 public:
  template <class T>
  Bytes& number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& u32(std::uint32_t value) { return number(value); }
  Bytes& u64(std::uint64_t value) { return number(value); }
  Bytes& text(std::string_view value) {
    u64(value.size());
    text_ += value;
    return *this;
  }
  Bytes& header(std::uint64_t tensors, std::uint64_t metadata, std::uint32_t version = 3) {
    text_ += "GGUF";
    return u32(version).u64(tensors).u64(metadata);
  }
  Bytes& tensor(std::string_view name, std::vector<std::uint64_t> fastest_first, std::uint32_t type, std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(fastest_first.size()));
    for (const std::uint64_t extent : fastest_first) u64(extent);
    return u32(type).u64(offset);
  }
  Bytes& align(std::size_t alignment = 32) {
    text_.resize((text_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  Bytes& zeros(std::size_t count) {
    text_.resize(text_.size() + count);
    return *this;
  }
  [[nodiscard]] std::span<const std::byte> span() const { return std::as_bytes(std::span(text_)); }
  [[nodiscard]] const std::string& bytes() const { return text_; }

 private:
  std::string text_;
};

std::string refusal(const Bytes& bytes) {
  const auto file = GgufFile::parse(bytes.span(), "f.gguf");
  return file ? "accepted" : file.error().message;
}

#define EXPECT_REFUSED(bytes, part) EXPECT_NE(refusal(bytes).find(part), std::string::npos) << refusal(bytes)

TEST(Gguf, ReadsEveryMetadataType) {
  Bytes b;
  b.header(0, 15);
  b.text("u8").u32(0).number<std::uint8_t>(200);
  b.text("i8").u32(1).number<std::int8_t>(-100);
  b.text("u16").u32(2).number<std::uint16_t>(65535);
  b.text("i16").u32(3).number<std::int16_t>(-32768);
  b.text("u32").u32(4).number<std::uint32_t>(4294967295U);
  b.text("i32").u32(5).number<std::int32_t>(-7);
  b.text("f32").u32(6).number(0.5F);
  b.text("yes").u32(7).number<std::uint8_t>(1);
  b.text("s").u32(8).text("text");
  b.text("a").u32(9).u32(5).u64(3).number<std::int32_t>(1).number<std::int32_t>(-2).number<std::int32_t>(3);
  b.text("as").u32(9).u32(8).u64(2).text("x").text("");
  b.text("ab").u32(9).u32(7).u64(2).number<std::uint8_t>(0).number<std::uint8_t>(1);
  b.text("u64").u32(10).u64(UINT64_MAX);
  b.text("i64").u32(11).number<std::int64_t>(-5);
  b.text("f64").u32(12).number(0.1);
  const auto file = GgufFile::parse(b.span(), "f.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->integer("u8"), 200);
  EXPECT_EQ(*file->integer("i8"), -100);
  EXPECT_EQ(*file->integer("u16"), 65535);
  EXPECT_EQ(*file->integer("i16"), -32768);
  EXPECT_EQ(*file->integer("u32"), 4294967295);
  EXPECT_EQ(*file->integer("i32"), -7);
  EXPECT_EQ(*file->integer("i64"), -5);
  EXPECT_EQ(*file->number_or("f32", 0), 0.5);
  EXPECT_EQ(*file->number_or("f64", 0), 0.1);
  EXPECT_EQ(*file->number_or("i32", 0), -7.0);
  EXPECT_TRUE(*file->flag_or("yes", false));
  EXPECT_EQ(*file->text("s"), "text");
  const GgufArray& a = **file->array("a");
  EXPECT_EQ(a.kind, GgufArray::Kind::kSigned);
  EXPECT_EQ(a.numbers, (std::vector<double>{1, -2, 3}));
  EXPECT_EQ((*file->array("as"))->strings, (std::vector<std::string_view>{"x", ""}));
  EXPECT_EQ((*file->array("ab"))->kind, GgufArray::Kind::kBool);

  // Absent keys, wrong types, numbers that do not fit.
  EXPECT_EQ(*file->integer_or("none", 3), 3);
  EXPECT_EQ(*file->text_or("none", "z"), "z");
  EXPECT_EQ(*file->array("none"), nullptr);
  EXPECT_EQ(file->integer("none").error().message, "f.gguf: metadata 'none' is missing; expected an integer");
  EXPECT_EQ(file->integer("s").error().message, "f.gguf: metadata 's' is a string; expected an integer");
  EXPECT_EQ(file->integer_or("f32", 1).error().message, "f.gguf: metadata 'f32' is a number; expected an integer");
  EXPECT_EQ(file->flag_or("u8", true).error().message, "f.gguf: metadata 'u8' is an integer; expected a flag");
  EXPECT_EQ(file->text("a").error().message, "f.gguf: metadata 'a' is an array; expected a string");
  EXPECT_EQ(file->array("yes").error().message, "f.gguf: metadata 'yes' is a flag; expected an array");
  EXPECT_NE(file->integer("u64").error().message.find("less than 2^63"), std::string::npos);
}

TEST(Gguf, ReadsTensors) {
  Bytes b;
  b.header(2, 1, 2);
  b.text("general.alignment").u32(4).u32(64);
  b.tensor("w", {32, 3, 2}, 8, 64).tensor("norm", {2}, 0, 0).align(64);
  b.number(1.5F).number(-2.0F).align(64);
  b.zeros(6 * 34);
  auto file = GgufFile::parse(b.span(), "f.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->version(), 2U);
  EXPECT_EQ(file->alignment(), 64U);
  const auto w = file->find("w");
  ASSERT_TRUE(w) << w.error().message;
  EXPECT_EQ(w->extents, (std::vector<std::int64_t>{2, 3, 32}));
  EXPECT_EQ(w->rows(), 6);
  EXPECT_EQ(w->k(), 32);
  EXPECT_EQ(w->type, DType::kQ8_0);
  EXPECT_EQ(w->bytes.size(), 6U * 34);
  EXPECT_EQ(file->total_bytes(), 6U * 34 + 8);
  const auto norm = file->find("norm");
  ASSERT_TRUE(norm);
  std::vector<float> values(2);
  dequantize_row(norm->type, norm->bytes, values);
  EXPECT_EQ(values, (std::vector<float>{1.5F, -2.0F}));
  EXPECT_EQ(file->names(), (std::vector<std::string_view>{"w", "norm"}));
  EXPECT_TRUE(file->contains("w"));
  EXPECT_FALSE(file->contains("v"));
  EXPECT_EQ(file->find("nrom").error().message,
            "f.gguf: no tensor 'nrom' among the 2 of this model; near names are 'norm', 'w'");
  EXPECT_EQ(file->find("nrom").error().code, ErrorCode::kNotFound);
  file->release("w");  // not mapped: nothing to do
}

TEST(Gguf, TypesThatAreNotReadAreRefusedOnUse) {
  Bytes b;
  b.header(2, 0).tensor("odd", {256}, 16, 0).tensor("good", {8}, 0, 96).align().zeros(96 + 32);
  auto file = GgufFile::parse(b.span(), "f.gguf");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_TRUE(file->find("good"));
  EXPECT_EQ(file->find("odd").error().message, "f.gguf: tensor 'odd' is stored as IQ2_XXS, which Rooftree does not read");
  EXPECT_EQ(file->stored_type(0).name, "IQ2_XXS");
}

TEST(Gguf, FilesWithoutTensorsMayEndEarly) {
  Bytes b;
  b.header(0, 1).text("general.architecture").u32(8).text("llama");
  EXPECT_TRUE(GgufFile::parse(b.span(), "f.gguf"));
}

TEST(Gguf, RefusesOtherFiles) {
  EXPECT_REFUSED(Bytes(), "offset 0: the magic number needs 4 bytes, the file has 0 left");
  EXPECT_REFUSED(Bytes().u32(0x04034B50).zeros(40), "this is not a GGUF file");
  EXPECT_REFUSED(Bytes().header(0, 0, 1), "GGUF version 1; expected 2 or 3");
  EXPECT_REFUSED(Bytes().header(0, 0, 4), "GGUF version 4; expected 2 or 3");
  EXPECT_REFUSED(Bytes().header(0, 0, 0x03000000), "big-endian");
}

TEST(Gguf, RefusesCountsThatDoNotFit) {
  EXPECT_REFUSED(Bytes().header(UINT64_MAX, 0), "do not fit into the 0 bytes that follow");
  EXPECT_REFUSED(Bytes().header(0, UINT64_MAX).zeros(100), "do not fit into the 100 bytes");
  EXPECT_REFUSED(Bytes().header(0, 1).u64(UINT64_MAX).zeros(30), "a metadata key needs 18446744073709551615 bytes");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(8).u64(1000).zeros(9), "a string needs 1000 bytes, the file has 9 left");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(8).u64(1U << 30).zeros(64), "an array of 1073741824 elements");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(0).u64((1U << 24) + 1).zeros((1U << 24) + 1), "at most 16777216");
}

TEST(Gguf, RefusesWrongMetadata) {
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(13).zeros(8),
                 "f.gguf: metadata 'k': f.gguf: offset 37: metadata of type 13");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(7).number<std::uint8_t>(2), "a flag of value 2; expected 0 or 1");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(9).u64(1).zeros(20), "an array of arrays");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(99).u64(1).zeros(20), "array elements of type 99");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(7).u64(1).number<std::uint8_t>(7), "a flag of value 7 in an array");
  EXPECT_REFUSED(Bytes().header(0, 1).text("k").u32(9).u32(11).u64(1).number<std::int64_t>(-(std::int64_t{1} << 53) - 1),
                 "beyond 2^53");
  EXPECT_REFUSED(Bytes().header(0, 1).text("").u32(4).u32(1), "without a key");
  EXPECT_REFUSED(Bytes().header(0, 2).text("k\n").u32(4).u32(1).text("k\n").u32(4).u32(1), "metadata 'k\\x0a' occurs twice");
  for (const std::uint32_t alignment : {0U, 4U, 33U, 1U << 21}) {
    EXPECT_REFUSED(Bytes().header(0, 1).text("general.alignment").u32(4).u32(alignment), "expected a power of two from 8");
  }
  EXPECT_REFUSED(Bytes().header(0, 1).text("general.alignment").u32(8).text("32"), "general.alignment is a string");
}

TEST(Gguf, RefusesWrongTensors) {
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).align().zeros(32), "5 dimensions; expected at most 4");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1}, 4, 0).align().zeros(32), "type 4, which is unknown");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1}, 0xFFFFFFFF, 0).align().zeros(32), "which is unknown");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("", {1}, 0, 0).align().zeros(32), "a tensor without a name");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {8, 0}, 0, 0).align().zeros(32), "extent 0 in dimension 1");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1ULL << 32, 1ULL << 32}, 0, 0).align().zeros(32), "2^48 values in all");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {33}, 2, 0).align().zeros(64), "rows of 33 values; Q4_0 stores 32 together");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {8}, 0, 16).align().zeros(64), "expected a multiple of 32");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {9}, 0, 0).align().zeros(35),
                 "takes 36 bytes from 0 of the data section, which has 35");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1}, 0, UINT64_MAX - 31).align().zeros(64), "is the file cut off?");
  EXPECT_REFUSED(Bytes().header(1, 0).tensor("t", {1}, 0, 0), "which has 0");
  EXPECT_REFUSED(Bytes().header(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).align().zeros(64),
                 "two tensors have the name 't'");
  EXPECT_REFUSED(Bytes().header(2, 0).tensor("a", {9}, 0, 0).tensor("b", {1}, 0, 32).align().zeros(64),
                 "tensors 'a' and 'b' overlap at 32");
}

TEST(Gguf, EveryPrefixOfAFileIsRefused) {
  Bytes b;
  b.header(1, 2).text("a").u32(9).u32(8).u64(2).text("x").text("yz").text("f").u32(6).number(1.0F);
  b.tensor("w", {4, 2}, 1, 0).align().zeros(16);
  ASSERT_EQ(refusal(b), "accepted");
  for (std::size_t size = 0; size < b.bytes().size(); ++size) {
    EXPECT_FALSE(GgufFile::parse(b.span().first(size), "f")) << size;
  }
}

class SplitFiles : public ::testing::Test {
 protected:
  static Bytes part(std::uint16_t number, std::uint16_t count, std::string_view tensor, std::int32_t tensors = 2) {
    Bytes b;
    b.header(1, 3);
    b.text("split.no").u32(2).number(number).text("split.count").u32(2).number(count);
    b.text("split.tensors.count").u32(5).number(tensors);
    b.tensor(tensor, {4}, 0, 0).align().number(static_cast<float>(number)).zeros(12);
    return b;
  }
  void write(const std::string& name, const Bytes& b) const {
    std::ofstream(folder_.path() / name, std::ios::binary) << b.bytes();
  }
  std::string refusal_of(const std::string& name) const {
    const auto file = GgufFile::open(folder_.path() / name);
    return file ? "accepted" : file.error().message;
  }
  test::TestFolder folder_;
};

TEST_F(SplitFiles, AreOneSource) {
  write("m-00001-of-00002.gguf", part(0, 2, "a"));
  write("m-00002-of-00002.gguf", part(1, 2, "b"));
  auto file = GgufFile::open(folder_.path() / "m-00001-of-00002.gguf");
  ASSERT_TRUE(file) << file.error().message;
  for (const auto& [name, value] : {std::pair("a", 0.0F), std::pair("b", 1.0F)}) {
    const auto tensor = file->find(name);
    ASSERT_TRUE(tensor);
    std::vector<float> values(4);
    dequantize_row(tensor->type, tensor->bytes, values);
    EXPECT_EQ(values[0], value);
    file->release(name);
    dequantize_row(tensor->type, tensor->bytes, values);  // still there
    EXPECT_EQ(values[0], value);
  }
}

TEST_F(SplitFiles, ThatDoNotBelongTogetherAreRefused) {
  write("m-00001-of-00002.gguf", part(0, 2, "a"));
  EXPECT_NE(refusal_of("m-00001-of-00002.gguf").find("cannot open"), std::string::npos);
  write("m-00002-of-00002.gguf", part(1, 3, "b"));
  EXPECT_NE(refusal_of("m-00001-of-00002.gguf").find("says part 2 of 3; expected part 2 of 2"), std::string::npos);
  write("m-00002-of-00002.gguf", part(1, 2, "a"));
  EXPECT_NE(refusal_of("m-00001-of-00002.gguf").find("two tensors have the name 'a'"), std::string::npos);
  write("m-00002-of-00002.gguf", part(1, 2, "b"));
  EXPECT_NE(refusal_of("m-00002-of-00002.gguf").find("this is part 2 of 2; open the first one"), std::string::npos);
  write("m-00001-of-00002.gguf", part(0, 2, "a", 3));
  EXPECT_NE(refusal_of("m-00001-of-00002.gguf").find("hold 2 tensors; split.tensors.count is 3"), std::string::npos);
  write("renamed.gguf", part(0, 2, "a"));
  EXPECT_NE(refusal_of("renamed.gguf").find("expected a name that ends in '-00001-of-00002.gguf'"), std::string::npos);
}

// The reference models.
class ReferenceModels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(test::shared_models(ROOFTREE_SOURCE_DIR))) GTEST_SKIP() << "no reference models";
  }
  Result<GgufFile> open(const std::string& name) {
    return GgufFile::open(test::model_file(ROOFTREE_SOURCE_DIR, name, folder_));
  }
  test::TestFolder folder_;
};

std::vector<float> values_of(const TensorView& tensor) {
  const auto k = static_cast<std::size_t>(tensor.k());
  std::vector<float> out(static_cast<std::size_t>(tensor.rows()) * k);
  const std::size_t bytes = row_bytes(tensor.type, tensor.k());
  for (std::size_t row = 0; row < static_cast<std::size_t>(tensor.rows()); ++row) {
    dequantize_row(tensor.type, tensor.bytes.subspan(row * bytes, bytes), std::span(out).subspan(row * k, k));
  }
  return out;
}

TEST_F(ReferenceModels, AllOpen) {
  int opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::shared_models(ROOFTREE_SOURCE_DIR))) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".gz")) name.resize(name.size() - 3);
    if (!name.ends_with(".gguf")) continue;
    auto file = open(name);
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_TRUE(file->text("general.architecture"));
    for (const std::string_view tensor : file->names()) {
      const auto view = file->find(tensor);
      ASSERT_TRUE(view) << view.error().message;
      EXPECT_TRUE(can_dequantize(view->type));
      EXPECT_EQ(view->bytes.size(), row_bytes(view->type, view->k()) * static_cast<std::size_t>(view->rows()));
      for (const float value : values_of(*view)) ASSERT_TRUE(std::isfinite(value)) << name << ' ' << tensor;
    }
    ++opened;
  }
  EXPECT_GE(opened, 36);
}

// Relative RMS error of each stored type against the F32 file that llama-quantize made it of. Bounds are the measured errors,
// rounded up: a wrong layout has an error near 1 (the ternary types are poor on these normal weights; see the next test).
TEST_F(ReferenceModels, QuantisedValuesAreNear) {
  auto exact = open("llama-f32.gguf");
  ASSERT_TRUE(exact) << exact.error().message;
  struct Case {
    const char* type;
    double bound;
  };
  for (const auto& [type, bound] : std::vector<Case>{{"f16", 0},
                                                     {"bf16", 0},
                                                     {"q8_0", 0.0054},
                                                     {"q4_0", 0.086},
                                                     {"q4_1", 0.0785},
                                                     {"q5_0", 0.043},
                                                     {"q5_1", 0.038},
                                                     {"q2_k", 0.296},
                                                     {"q3_k", 0.151},
                                                     {"q4_k", 0.0715},
                                                     {"q5_k", 0.0361},
                                                     {"q6_k", 0.0178},
                                                     {"iq4_nl", 0.0765},
                                                     {"iq4_xs", 0.077},
                                                     {"mxfp4", 0.115},
                                                     {"tq1_0", 0.806},
                                                     {"tq2_0", 0.806}}) {
    auto file = open(std::string("llama-") + type + ".gguf");
    ASSERT_TRUE(file) << file.error().message;
    double difference = 0, total = 0;
    for (const std::string_view name : file->names()) {
      const auto a = exact->find(name), b = file->find(name);
      ASSERT_TRUE(a) << a.error().message;
      ASSERT_TRUE(b) << b.error().message;
      if (b->extents.size() < 2) continue;
      EXPECT_EQ(rooftree::name(b->type), type);
      const std::vector<float> x = values_of(*a), y = values_of(*b);
      ASSERT_EQ(x.size(), y.size());
      for (std::size_t i = 0; i < x.size(); ++i) {
        difference += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
        total += static_cast<double>(x[i]) * x[i];
      }
    }
    EXPECT_LE(std::sqrt(difference / total), bound) << type;
  }
}

// Both ternary types round alike, so that the two packings hold the same numbers.
TEST_F(ReferenceModels, TernaryPackingsAgree) {
  auto one = open("llama-tq1_0.gguf"), two = open("llama-tq2_0.gguf");
  ASSERT_TRUE(one) << one.error().message;
  ASSERT_TRUE(two) << two.error().message;
  for (const std::string_view name : one->names()) EXPECT_EQ(values_of(*one->find(name)), values_of(*two->find(name))) << name;
}

}  // namespace
}  // namespace rooftree::formats

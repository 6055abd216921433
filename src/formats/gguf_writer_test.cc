#include "formats/gguf_writer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "base/test_folder.h"
#include "formats/test_models.h"

namespace rooftree::formats {
namespace {

std::vector<std::byte> counted(std::size_t count, int first) {
  std::vector<std::byte> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return out;
}

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(GgufWriter, WhatIsWrittenIsRead) {
  const test::TestFolder folder;
  const std::filesystem::path path = folder.path() / "m.gguf";
  const std::vector<std::byte> a = counted(3 * 18, 1), b = counted(20, 100);
  {
    GgufWriter writer;
    writer.set("general.architecture", std::string("llama"));
    writer.set("u32", std::uint32_t{4000000000});
    writer.set("i32", std::int32_t{-4});
    writer.set("u64", std::uint64_t{1} << 60);
    writer.set("i64", std::int64_t{-5});
    writer.set("f32", 0.25F);
    writer.set("f64", 0.1);
    writer.set("flag", true);
    writer.set("ints", std::vector<std::int32_t>{1, -2});
    writer.set("floats", std::vector<float>{0.5F});
    writer.set("texts", std::vector<std::string>{"x", "", "yz"});
    writer.set("flag", false);  // replaces
    ASSERT_TRUE(writer.declare("a", DType::kQ4_0, {3, 32}));
    ASSERT_TRUE(writer.declare("b", DType::kF32, {5}));
    ASSERT_TRUE(writer.open(path));
    EXPECT_FALSE(std::filesystem::exists(path));
    for (const std::byte byte : a) ASSERT_TRUE(writer.append(std::span(&byte, 1)));
    ASSERT_TRUE(writer.append(b));
    ASSERT_TRUE(writer.finish());
    EXPECT_EQ(std::filesystem::file_size(path), writer.file_bytes());
  }
  auto file = GgufFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->all_metadata().size(), 11U);
  EXPECT_EQ(*file->text("general.architecture"), "llama");
  EXPECT_EQ(*file->integer("u32"), 4000000000);
  EXPECT_EQ(*file->integer("i32"), -4);
  EXPECT_EQ(*file->integer("u64"), std::int64_t{1} << 60);
  EXPECT_EQ(*file->integer("i64"), -5);
  EXPECT_EQ(*file->number_or("f32", 0), 0.25);
  EXPECT_EQ(*file->number_or("f64", 0), 0.1);
  EXPECT_FALSE(*file->flag_or("flag", true));
  EXPECT_EQ((*file->array("ints"))->numbers, (std::vector<double>{1, -2}));
  EXPECT_EQ((*file->array("floats"))->numbers, (std::vector<double>{0.5}));
  EXPECT_EQ((*file->array("texts"))->strings, (std::vector<std::string_view>{"x", "", "yz"}));
  const auto read_a = file->find("a"), read_b = file->find("b");
  ASSERT_TRUE(read_a && read_b);
  EXPECT_EQ(read_a->extents, (std::vector<std::int64_t>{3, 32}));
  EXPECT_TRUE(std::equal(a.begin(), a.end(), read_a->bytes.begin(), read_a->bytes.end()));
  EXPECT_TRUE(std::equal(b.begin(), b.end(), read_b->bytes.begin(), read_b->bytes.end()));
  EXPECT_EQ(files_in(folder.path()), 1U);
}

TEST(GgufWriter, NothingHalfWrittenStays) {
  const test::TestFolder folder;
  const std::filesystem::path path = folder.path() / "m.gguf";
  std::ofstream(path) << "old";
  {
    GgufWriter writer;
    ASSERT_TRUE(writer.declare("a", DType::kF32, {8}));
    ASSERT_TRUE(writer.open(path));
    ASSERT_TRUE(writer.append(counted(31, 0)));
  }
  EXPECT_EQ(files_in(folder.path()), 1U);
  EXPECT_EQ(std::filesystem::file_size(path), 3U);

  GgufWriter nowhere;
  const Status status = nowhere.open(folder.path() / "none" / "m.gguf");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kEnvironment);
  EXPECT_NE(status.error().message.find("none/m.gguf: cannot be written"), std::string::npos) << status.error().message;
}

TEST(GgufWriter, RefusesWhatGgufCannotHold) {
  GgufWriter writer;
  const auto refusal = [&](std::string_view name, DType type, const std::vector<std::int64_t>& extents) {
    const Status status = writer.declare(name, type, extents);
    return status ? std::string("accepted") : status.error().message;
  };
  EXPECT_EQ(refusal("t", DType::kMxint8, {32}), "tensor 't': GGUF has no type for mxint8");
  EXPECT_EQ(refusal("t", DType::kQ4_0, {48}), "tensor 't': rows of 48 values; Q4_0 stores 32 together");
  EXPECT_EQ(refusal("t", DType::kF32, {1, 1, 1, 1, 1}), "tensor 't': 5 dimensions; GGUF has at most 4");
  EXPECT_EQ(refusal("t", DType::kF32, {0}), "tensor 't': an extent of 0");
  EXPECT_EQ(refusal("t", DType::kF32, {std::int64_t{1} << 40, 1 << 20}), "tensor 't': an extent of 1048576");
  EXPECT_EQ(refusal("", DType::kF32, {1}), "tensor '': a tensor needs a name");
  EXPECT_EQ(refusal("t", DType::kF32, {1}), "accepted");
  EXPECT_EQ(refusal("t", DType::kF32, {1}), "tensor 't': the name occurs twice");
}

TEST(GgufWriterDeathTest, MisuseIsABug) {
  const test::TestFolder folder;
  EXPECT_DEATH(GgufWriter().set("general.alignment", std::uint32_t{64}), "may not be set");
  const auto write = [&](std::size_t bytes) {
    GgufWriter writer;
    if (!writer.declare("a", DType::kF32, {1}) || !writer.open(folder.path() / "m.gguf")) return;
    if (!writer.append(counted(bytes, 0))) return;
    (void)writer.finish();
  };
  EXPECT_DEATH(write(3), "before all tensors were written");
  EXPECT_DEATH(write(5), "more bytes than the tensors have");
}

// The reference model, copied, is the same file byte for byte.
TEST(GgufWriter, CopiesAReferenceModel) {
  const test::TestFolder folder;
  const std::filesystem::path from = test::model_file(ROOFTREE_SOURCE_DIR, "stories260k-q8_0.gguf", folder);
  if (from.empty()) GTEST_SKIP() << "no reference models";
  auto file = GgufFile::open(from);
  ASSERT_TRUE(file) << file.error().message;
  GgufWriter writer;
  writer.copy_metadata(*file);
  for (const TensorView& tensor : file->tensors()) ASSERT_TRUE(writer.declare(tensor.name, tensor.type, tensor.extents));
  const std::filesystem::path to = folder.path() / "copy.gguf";
  ASSERT_TRUE(writer.open(to));
  for (const TensorView& tensor : file->tensors()) ASSERT_TRUE(writer.append(tensor.bytes));
  ASSERT_TRUE(writer.finish());
  const auto bytes_of = [](const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  EXPECT_EQ(bytes_of(to), bytes_of(from));
}

}  // namespace
}  // namespace rooftree::formats

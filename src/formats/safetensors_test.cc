#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>

#include "base/test_folder.h"
#include "formats/block_codec.h"

namespace rooftree::formats {
namespace {

std::string file_of(std::string_view header, std::size_t data_bytes) {
  std::string out(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(out.data(), &length, 8);
  out += header;
  for (std::size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

Result<SafetensorsFiles> parsed(const std::string& bytes) {
  return SafetensorsFiles::parse(std::as_bytes(std::span(bytes)), "f.safetensors");
}

std::string refusal(const std::string& bytes) {
  const auto files = parsed(bytes);
  return files ? "accepted" : files.error().message;
}

#define EXPECT_REFUSED(header, data, part) \
  EXPECT_NE(refusal(file_of(header, data)).find(part), std::string::npos) << refusal(file_of(header, data))

TEST(Safetensors, ReadsTensorsAtAnyByte) {
  // The header's length is odd, so that nothing is aligned.
  const std::string bytes =
      file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[1,13]},)"
              R"("a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"s":{"dtype":"F32","shape":[],"data_offsets":[13,17]} })",
              17);
  auto files = parsed(bytes);
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->names(), (std::vector<std::string_view>{"a", "b", "s"}));
  EXPECT_EQ(files->total_bytes(), 17U);
  const auto b = files->find("b");
  ASSERT_TRUE(b) << b.error().message;
  EXPECT_EQ(b->name, "b");
  EXPECT_EQ(b->type, DType::kBf16);
  EXPECT_EQ(b->extents, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(b->bytes.size(), 12U);
  EXPECT_EQ(static_cast<int>(b->bytes[0]), 1);
  const auto s = files->find("s");
  ASSERT_TRUE(s);
  EXPECT_EQ(s->rows(), 1);
  EXPECT_EQ(s->k(), 1);
  EXPECT_EQ(files->find("c").error().message,
            "f.safetensors: no tensor 'c' among the 3 of this model; near names are 'a', 'b', 's'");
  files->release("b");
}

TEST(Safetensors, EveryTypeIsReadOrNamed) {
  for (const auto& [name, bytes, type] : std::vector<std::tuple<std::string, int, DType>>{{"F64", 8, DType::kF64},
                                                                                          {"F32", 4, DType::kF32},
                                                                                          {"F16", 2, DType::kF16},
                                                                                          {"BF16", 2, DType::kBf16},
                                                                                          {"I32", 4, DType::kInt32},
                                                                                          {"I8", 1, DType::kInt8},
                                                                                          {"F8_E4M3", 1, DType::kFp8E4m3},
                                                                                          {"F8_E5M2", 1, DType::kFp8E5m2}}) {
    auto files =
        parsed(file_of(R"({"t":{"dtype":")" + name + R"(","shape":[4],"data_offsets":[0,)" + std::to_string(4 * bytes) + "]}}",
                       static_cast<std::size_t>(4 * bytes)));
    ASSERT_TRUE(files) << files.error().message;
    const auto t = files->find("t");
    ASSERT_TRUE(t) << t.error().message;
    EXPECT_EQ(t->type, type);
    EXPECT_EQ(t->bytes.size(), row_bytes(type, 4));
  }
  for (const char* name : {"U8", "BOOL", "F8_E8M0", "Z9"}) {
    auto files = parsed(file_of(R"({"t":{"dtype":")" + std::string(name) + R"(","shape":[4],"data_offsets":[0,4]}})", 4));
    ASSERT_TRUE(files) << files.error().message;
    EXPECT_EQ(files->find("t").error().message,
              "f.safetensors: tensor 't' is stored as " + std::string(name) + ", which Rooftree does not read");
  }
}

TEST(Safetensors, RefusesWrongFiles) {
  EXPECT_EQ(refusal(""), "f.safetensors: 0 bytes; expected at least the 8 of the header's length");
  EXPECT_NE(refusal(std::string("GGUF\3\0\0\0 and more", 17)).find("is it a safetensors file?"), std::string::npos);
}

TEST(Safetensors, RefusesWrongHeaders) {
  EXPECT_REFUSED("[]", 0, "the header is not an object");
  EXPECT_REFUSED("{", 0, "f.safetensors");
  EXPECT_REFUSED(R"({"t":1})", 0, "tensor 't': expected an object");
  EXPECT_REFUSED(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4, "expected a string \"dtype\"");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", 4, "expected \"shape\"");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4, "at most 8 extents");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "an extent is not a whole number");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "an extent is not a whole number");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, "more than 2^48 values");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1]}})", 4, "expected \"data_offsets\"");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "expected \"data_offsets\"");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "expected \"data_offsets\"");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,5]}})", 4, "bytes 0 to 5; the file has 4 of data");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "bytes 4 to 0");
  EXPECT_REFUSED(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "2 values of F32 in 4 bytes");
  EXPECT_REFUSED(R"({"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2, "3 values of F4 in 2 bytes");
  EXPECT_REFUSED(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[3,7]}})", 8,
      "tensors 'a' and 'b' overlap at byte 3");
  EXPECT_REFUSED(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
      "appears twice");
}

TEST(Safetensors, RefusesLengthsBeyondTheFile) {
  std::string bytes = file_of("{}", 0);
  ASSERT_TRUE(parsed(bytes));
  bytes.pop_back();
  EXPECT_NE(refusal(bytes).find("a header of 2 bytes; the file has 1 after its length"), std::string::npos);
  bytes.assign(16, '\xFF');
  EXPECT_NE(refusal(bytes).find("a header of 18446744073709551615 bytes"), std::string::npos);
}

class SafetensorsFolder : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_.path() / name, std::ios::binary) << bytes;
  }
  std::string refusal_of(const std::filesystem::path& path) const {
    const auto files = SafetensorsFiles::open(path);
    return files ? "accepted" : files.error().message;
  }
  static std::string one(const std::string& name) {
    return file_of(R"({")" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  }
  test::TestFolder folder_;
};

TEST_F(SafetensorsFolder, OneFileOrShards) {
  EXPECT_NE(refusal_of(folder_.path()).find("expected model.safetensors or model.safetensors.index.json in this folder"),
            std::string::npos);
  write("model.safetensors", one("w"));
  auto single = SafetensorsFiles::open(folder_.path());
  ASSERT_TRUE(single) << single.error().message;
  EXPECT_TRUE(single->contains("w"));

  write("p1.safetensors", one("a"));
  write("p2.safetensors", one("b"));
  write("model.safetensors.index.json",
        R"({"metadata":{"total_size":8},"weight_map":{"a":"p1.safetensors","b":"p2.safetensors"}})");
  auto sharded = SafetensorsFiles::open(folder_.path());
  ASSERT_TRUE(sharded) << sharded.error().message;
  EXPECT_EQ(sharded->names(), (std::vector<std::string_view>{"a", "b"}));
  const auto before = sharded->find("b");
  sharded->release("b");
  const auto after = sharded->find("b");
  ASSERT_TRUE(before && after);
  EXPECT_EQ(std::memcmp(before->bytes.data(), after->bytes.data(), 4), 0);
}

TEST_F(SafetensorsFolder, RefusesWrongIndices) {
  write("p1.safetensors", one("a"));
  write("p2.safetensors", one("a"));
  const auto with_index = [&](const std::string& text) {
    write("model.safetensors.index.json", text);
    return refusal_of(folder_.path());
  };
  EXPECT_NE(with_index("[]").find("expected an object \"weight_map\""), std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{}})").find("expected an object \"weight_map\""), std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{"a":7}})").find("the file of tensor 'a' is 7"), std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{"a":"../p1.safetensors"}})").find("expected the name of a file beside"),
            std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{"a":"none.safetensors"}})").find("cannot open"), std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{"b":"p1.safetensors"}})").find("tensor 'b' is not in 'p1.safetensors'"),
            std::string::npos);
  EXPECT_NE(with_index(R"({"weight_map":{"a":"p1.safetensors","b":"p2.safetensors"}})").find("tensor 'a' is in two files"),
            std::string::npos);
}

}  // namespace
}  // namespace rooftree::formats

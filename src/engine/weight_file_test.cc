#include "engine/weight_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "base/test_folder.h"

namespace rooftree::engine {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
  std::vector<std::byte> out(bytes);
  for (std::size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 2654435761U + seed * 97U) >> 13);
  return out;
}

constexpr std::uint64_t kPages = 3;  // of a group

WeightHeader header_of_two() {
  WeightHeader header;
  header.key = "a model\nof two matrices";
  const std::uint64_t first = WeightHeader::bytes(header.key.size(), 2, 3);
  const std::uint64_t group = kPages * kWeightFilePage;
  header.parts = {{.type = DType::kQ4_0, .n = 7, .k = 32, .bytes = 1000, .offset = first},
                  {.type = DType::kBf16, .n = 9, .k = 64, .bytes = 12000, .offset = first + group}};
  header.vectors = {1.0F, -2.5F, 0.0F};
  header.file_bytes = first + 2 * group;
  return header;
}

// What a reader knows before it opens the file.
WeightHeader expected_of_two() {
  WeightHeader header = header_of_two();
  header.parts.assign(2, {});
  header.vectors.assign(3, 9.0F);
  header.file_bytes = 0;
  return header;
}

void write_two(const fs::path& folder, const fs::path& path) {
  auto writer = WeightFileWriter::create(folder, path);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  const WeightHeader header = header_of_two();
  for (unsigned i = 0; i < 2; ++i) {
    ASSERT_TRUE(writer->write(header.parts[i].offset, pattern(kPages * kWeightFilePage, i)).has_value());
  }
  const auto file = writer->finish(header);
  ASSERT_TRUE(file.has_value()) << file.error().message;
}

std::size_t files_in(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(WeightFile, IsReadAsItWasWritten) {
  const test::TestFolder folder;
  const fs::path path = folder.path() / "x.packed";
  write_two(folder.path(), path);
  EXPECT_EQ(files_in(folder.path()), 1U);
  WeightHeader header = expected_of_two();
  auto file = WeightFile::open(path, header);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const WeightHeader written = header_of_two();
  EXPECT_EQ(header.vectors, written.vectors);
  EXPECT_EQ(header.file_bytes, written.file_bytes);
  for (unsigned i = 0; i < 2; ++i) {
    EXPECT_EQ(header.parts[i].type, written.parts[i].type);
    EXPECT_EQ(header.parts[i].n, written.parts[i].n);
    EXPECT_EQ(header.parts[i].k, written.parts[i].k);
    EXPECT_EQ(header.parts[i].bytes, written.parts[i].bytes);
    EXPECT_EQ(header.parts[i].offset, written.parts[i].offset);
    const std::vector<std::byte> stored = pattern(kPages * kWeightFilePage, i);
    std::vector<std::byte> got(stored.size());
    ASSERT_TRUE(file->read(written.parts[i].offset, got).has_value());
    EXPECT_EQ(got, stored);
    auto arena = Arena::make(stored.size(), true);
    ASSERT_TRUE(file->read_direct(written.parts[i].offset, {arena->data(), arena->bytes()}).has_value());
    EXPECT_EQ(std::memcmp(arena->data(), stored.data(), stored.size()), 0);
    const auto base = file->map();
    ASSERT_TRUE(base.has_value());
    EXPECT_EQ(std::memcmp(*base + written.parts[i].offset, stored.data(), stored.size()), 0);
  }
  std::vector<std::byte> beyond(64);
  const Status status = file->read(written.file_bytes - 32, beyond);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kEnvironment);
}

TEST(WeightFile, EveryDamagedByteOfTheHeaderIsNoticed) {
  const test::TestFolder folder;
  const fs::path path = folder.path() / "x.packed";
  write_two(folder.path(), path);
  const WeightHeader expected = expected_of_two();
  const std::uint64_t bytes = WeightHeader::bytes(expected.key.size(), 2, 3);
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(file, 0);
  for (std::uint64_t i = 0; i < bytes; i += i < 320 ? 1 : 61) {
    char c = 0;
    ASSERT_EQ(pread(file, &c, 1, static_cast<off_t>(i)), 1);
    const char damaged = static_cast<char>(c ^ 0x10);
    ASSERT_EQ(pwrite(file, &damaged, 1, static_cast<off_t>(i)), 1);
    WeightHeader header = expected;
    EXPECT_FALSE(WeightFile::open(path, header).has_value()) << "byte " << i;
    ASSERT_EQ(pwrite(file, &c, 1, static_cast<off_t>(i)), 1);
  }
  WeightHeader header = expected;
  EXPECT_TRUE(WeightFile::open(path, header).has_value());
  close(file);
}

TEST(WeightFile, OfAnotherSizeSourceOrKindIsRefused) {
  const test::TestFolder folder;
  const fs::path path = folder.path() / "x.packed";
  write_two(folder.path(), path);
  const auto refused = [&](WeightHeader header) {
    const auto file = WeightFile::open(path, header);
    return !file.has_value();
  };
  WeightHeader header = expected_of_two();
  header.key.back() = 'X';
  EXPECT_TRUE(refused(header));
  header = expected_of_two();
  header.key += "longer";
  EXPECT_TRUE(refused(header));
  header = expected_of_two();
  header.parts.emplace_back();
  EXPECT_TRUE(refused(header));
  header = expected_of_two();
  header.vectors.pop_back();
  EXPECT_TRUE(refused(header));
  const std::uint64_t whole = header_of_two().file_bytes;
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{95}, std::uint64_t{4096}, whole - 1}) {
    fs::resize_file(path, size);
    EXPECT_TRUE(refused(expected_of_two())) << size;
    write_two(folder.path(), path);
  }
  fs::resize_file(path, whole + 1);
  EXPECT_TRUE(refused(expected_of_two()));
  fs::remove(path);
  EXPECT_TRUE(refused(expected_of_two()));
  fs::create_directory(path);
  EXPECT_TRUE(refused(expected_of_two()));
}

TEST(WeightFile, AnUnfinishedOneLeavesNothing) {
  const test::TestFolder folder;
  {
    auto writer = WeightFileWriter::create(folder.path() / "new", folder.path() / "new" / "x.packed");
    ASSERT_TRUE(writer.has_value());
    ASSERT_TRUE(writer->write(4096, pattern(100, 1)).has_value());
    EXPECT_EQ(files_in(folder.path() / "new"), 1U);
  }
  EXPECT_EQ(files_in(folder.path() / "new"), 0U);
  // Without a name it can be read for as long as it is open, and nobody else sees it.
  auto writer = WeightFileWriter::create(folder.path(), {});
  ASSERT_TRUE(writer.has_value());
  EXPECT_EQ(files_in(folder.path()), 1U);  // the folder "new"
  const WeightHeader header = header_of_two();
  const std::vector<std::byte> stored = pattern(1000, 5);
  ASSERT_TRUE(writer->write(header.parts[0].offset, stored).has_value());
  const auto file = writer->finish(header);
  ASSERT_TRUE(file.has_value());
  std::vector<std::byte> got(1000);
  ASSERT_TRUE(file->read(header.parts[0].offset, got).has_value());
  EXPECT_EQ(got, stored);
}

TEST(WeightFile, AFolderThatCannotBeIsAnError) {
  const test::TestFolder folder;
  std::ofstream(folder.path() / "file") << "x";
  const auto writer = WeightFileWriter::create(folder.path() / "file", folder.path() / "file" / "x.packed");
  ASSERT_FALSE(writer.has_value());
  EXPECT_EQ(writer.error().code, ErrorCode::kEnvironment);
}

TEST(WeightStream, BringsLayersInTurnForEver) {
  const test::TestFolder folder;
  auto writer = WeightFileWriter::create(folder.path(), {});
  ASSERT_TRUE(writer.has_value());
  WeightHeader header;
  header.key = "layers";
  std::uint64_t offset = WeightHeader::bytes(header.key.size(), 0, 0);
  std::vector<WeightStream::Layer> layers;
  for (unsigned i = 0; i < 5; ++i) {
    const std::uint64_t bytes = (1 + i % 3) * kWeightFilePage;
    ASSERT_TRUE(writer->write(offset, pattern(bytes, i)).has_value());
    layers.push_back({.offset = offset, .bytes = bytes});
    offset += bytes;
  }
  header.file_bytes = offset;
  const auto file = writer->finish(header);
  ASSERT_TRUE(file.has_value());
  for (const int buffers : {2, 3, 4}) {
    const auto stream = WeightStream::start(*file, layers, buffers);
    ASSERT_TRUE(stream.has_value());
    EXPECT_EQ((*stream)->buffer_bytes(), static_cast<std::uint64_t>(buffers) * 3 * kWeightFilePage);
    for (int pass = 0; pass < 20; ++pass) {
      for (unsigned i = 0; i < 5; ++i) {
        const std::byte* data = (*stream)->acquire(i);
        ASSERT_NE(data, nullptr);
        const std::vector<std::byte> stored = pattern(layers[i].bytes, i);
        EXPECT_EQ(std::memcmp(data, stored.data(), stored.size()), 0) << pass << " " << i;
        (*stream)->release();
      }
    }
    EXPECT_GE((*stream)->read_so_far().first, 20U * 9 * kWeightFilePage);
  }
}

TEST(WeightStream, AFileThatWasCutIsAnErrorThatMayPass) {
  const test::TestFolder folder;
  const fs::path path = folder.path() / "x.packed";
  write_two(folder.path(), path);
  WeightHeader header = expected_of_two();
  const auto file = WeightFile::open(path, header);
  ASSERT_TRUE(file.has_value());
  const std::vector<WeightStream::Layer> layers = {{.offset = header.parts[0].offset, .bytes = kPages * kWeightFilePage},
                                                   {.offset = header.parts[1].offset, .bytes = kPages * kWeightFilePage}};
  fs::resize_file(path, header.parts[1].offset);
  const auto stream = WeightStream::start(*file, layers, 2);
  ASSERT_TRUE(stream.has_value());
  for (int attempt = 0; attempt < 3; ++attempt) {
    ASSERT_NE((*stream)->acquire(0), nullptr);
    (*stream)->release();
    EXPECT_EQ((*stream)->acquire(1), nullptr);
    EXPECT_EQ((*stream)->error().code, ErrorCode::kEnvironment);
    EXPECT_NE((*stream)->error().message.find("x.packed"), std::string::npos) << (*stream)->error().message;
  }
}

}  // namespace
}  // namespace rooftree::engine

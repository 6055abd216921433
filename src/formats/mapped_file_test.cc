#include "formats/mapped_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/test_folder.h"

namespace rooftree::formats {
namespace {

TEST(MappedFile, ShowsTheBytesAndMoves) {
  const test::TestFolder folder;
  const auto path = folder.path() / "three";
  std::ofstream(path) << "abc";
  Result<MappedFile> file = MappedFile::open(path);
  ASSERT_TRUE(file);
  ASSERT_EQ(file->bytes().size(), 3U);
  MappedFile moved = std::move(file).value();
  EXPECT_EQ(moved.bytes()[2], std::byte{'c'});
  moved.will_need(moved.bytes());
  moved.done_with(moved.bytes());
  EXPECT_EQ(moved.bytes()[0], std::byte{'a'});
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const test::TestFolder folder;
  const auto path = folder.path() / "empty";
  std::ofstream{path};
  Result<MappedFile> file = MappedFile::open(path);
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, MissingFilesAndFoldersAreEnvironmentErrors) {
  const test::TestFolder folder;
  for (const auto& path : {folder.path() / "absent", folder.path()}) {
    Result<MappedFile> file = MappedFile::open(path);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().code, ErrorCode::kEnvironment);
    EXPECT_NE(file.error().message.find(path.string()), std::string::npos);
  }
}

}  // namespace
}  // namespace rooftree::formats

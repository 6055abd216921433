#include "base/json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "base/test_folder.h"

namespace rooftree {
namespace {

std::string message_of(std::string_view text, const JsonLimits& limits = {}) {
  const Result<Json> parsed = parse_json(text, "file.json", limits);
  EXPECT_FALSE(parsed) << text;
  return parsed ? std::string() : parsed.error().message;
}

TEST(ParseJson, KeepsTheOrderOfKeys) {
  const Result<Json> parsed = parse_json(R"({"z": 1, "a": [true, null, "x"]})", "file.json");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->dump(), R"({"z":1,"a":[true,null,"x"]})");
}

TEST(ParseJson, ErrorsNameLineAndColumn) {
  EXPECT_EQ(message_of("{\n  \"a\": 1,\n  b\n}").substr(0, 24), "file.json:3:3: not JSON:");
  EXPECT_EQ(message_of("").substr(0, 14), "file.json:1:1:");
  for (const char* text : {"{", "[1,]", "{\"a\":}", "nul", "1 2", "{\"a\" 1}", "\"\\ud800\"", "\"\xff\"", "01", "NaN", "]"}) {
    EXPECT_EQ(message_of(text).substr(0, 10), "file.json:") << text;
  }
}

TEST(ParseJson, NumbersThatDoNotFitAreErrors) { EXPECT_EQ(message_of("[1e999]").substr(0, 10), "file.json:"); }

TEST(ParseJson, KeysMayNotRepeatInOneObject) {
  EXPECT_NE(message_of(R"({"a": 1, "b": 2, "a": 3})").find("key \"a\" appears twice"), std::string::npos);
  EXPECT_NE(message_of(R"([{"a": {"b": 1, "b": 1}}])").find("key \"b\" appears twice"), std::string::npos);
  EXPECT_TRUE(parse_json(R"({"a": {"a": 1}, "b": {"a": 1}})", "file.json"));
}

TEST(ParseJson, DepthIsBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_TRUE(parse_json(nested(64), "file.json"));
  EXPECT_EQ(message_of(nested(65)), "file.json:1:65: nested deeper than 64 levels");
  EXPECT_EQ(message_of(nested(1'000'000)), "file.json:1:65: nested deeper than 64 levels");
  EXPECT_TRUE(parse_json("\"" + std::string(100, '[') + "\"", "file.json")) << "brackets in a text are no levels";
  EXPECT_TRUE(parse_json("\"\\\"" + std::string(100, '[') + "\"", "file.json"));
}

TEST(ParseJson, SizeIsBounded) {
  EXPECT_TRUE(parse_json("[1, 2]", "file.json", {.max_bytes = 6}));
  EXPECT_EQ(message_of("[1, 2]", {.max_bytes = 5}), "file.json: 6 bytes; expected at most 5");
}

TEST(ReadFile, WholeFilesAndTheirErrors) {
  const test::TestFolder folder;
  const std::string text = std::string(70'000, 'x') + '\0' + "end";
  std::ofstream(folder.path() / "file", std::ios::binary) << text;
  std::ofstream(folder.path() / "empty");
  EXPECT_EQ(*read_file(folder.path() / "file"), text);
  EXPECT_EQ(*read_file(folder.path() / "empty"), "");
  EXPECT_TRUE(read_file(folder.path() / "file", text.size()));
  EXPECT_EQ(read_file(folder.path() / "file", text.size() - 1).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(read_file(folder.path() / "missing").error().code, ErrorCode::kEnvironment);
  EXPECT_EQ(read_file(folder.path()).error().code, ErrorCode::kEnvironment);
}

}  // namespace
}  // namespace rooftree

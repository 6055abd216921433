#include "validate/csv.h"

#include <gtest/gtest.h>

namespace rooftree::validate {
namespace {

Csv parsed(std::string_view text) {
  auto csv = Csv::parse(text, "t.csv");
  EXPECT_TRUE(csv.has_value()) << (csv ? "" : csv.error().message);
  return csv ? std::move(csv).value() : Csv{};
}
std::string problem(std::string_view text, const CsvLimits& limits = {}) {
  const auto csv = Csv::parse(text, "t.csv", limits);
  return csv ? "no error" : csv.error().message;
}

TEST(Csv, ReadsQuotedFieldsWithCommasQuotesAndLineBreaks) {
  const Csv csv = parsed("a,b,c\n1,\"x, \"\"y\"\"\",\"two\nlines\"\n");
  ASSERT_EQ(csv.rows(), 1u);
  EXPECT_EQ(csv.field(0, 0), "1");
  EXPECT_EQ(csv.field(0, 1), "x, \"y\"");
  EXPECT_EQ(csv.field(0, 2), "two\nlines");
}

TEST(Csv, AcceptsCarriageReturnsBlankLinesAByteOrderMarkAndAMissingLastLineEnd) {
  const Csv csv = parsed(
      "\xEF\xBB\xBF"
      "a,b\r\n1,2\r\n\r\n3,4");
  ASSERT_EQ(csv.rows(), 2u);
  EXPECT_EQ(csv.header()[0], "a");
  EXPECT_EQ(csv.field(1, 1), "4");
}

TEST(Csv, KeepsEmptyFields) {
  const Csv csv = parsed("a,b,c\n,,\n1,,3\n");
  ASSERT_EQ(csv.rows(), 2u);
  EXPECT_EQ(csv.field(0, 2), "");
  EXPECT_EQ(csv.field(1, 1), "");
}

TEST(Csv, KnowsTheLineOfARowAfterAFieldWithLineBreaks) {
  const Csv csv = parsed("a\n\"x\ny\nz\"\n1\n");
  EXPECT_EQ(csv.line(0), 2u);
  EXPECT_EQ(csv.line(1), 5u);
}

TEST(Csv, RefusesMalformedTextWithItsPlace) {
  EXPECT_NE(problem("").find("t.csv:1:1: empty"), std::string::npos);
  EXPECT_NE(problem("a,b\n1\n").find("t.csv:2:1: 1 fields; expected 2"), std::string::npos);
  EXPECT_NE(problem("a,b\n1,2,3\n").find("3 fields; expected 2"), std::string::npos);
  EXPECT_NE(problem("a,b\n1,\"x\n").find("t.csv:2:3: quote that is never closed"), std::string::npos);
  EXPECT_NE(problem("a,b\n1,\"x\"y\n").find("after a closing quote"), std::string::npos);
  EXPECT_NE(problem("a,b\n1,x\"y\n").find("t.csv:2:4: quote inside an unquoted field"), std::string::npos);
  EXPECT_NE(problem("a,b,a\n").find("column \"a\" appears twice"), std::string::npos);
  EXPECT_NE(problem("a\n1\r2\n").find("carriage return without a line feed"), std::string::npos);
}

TEST(Csv, IsBounded) {
  EXPECT_NE(problem("a\n1\n", {.max_bytes = 3}).find("expected at most 3"), std::string::npos);
  EXPECT_NE(problem("a\n1\n2\n3\n", {.max_rows = 2}).find("more than 2 rows"), std::string::npos);
  EXPECT_NE(problem("a,b,c\n", {.max_columns = 2}).find("more than 2 columns"), std::string::npos);
  EXPECT_NE(problem("a\nxxxxx\n", {.max_field_bytes = 4}).find("field longer than 4 bytes"), std::string::npos);
  EXPECT_NE(problem("a\n\"xxxxx\"\n", {.max_field_bytes = 4}).find("field longer than 4 bytes"), std::string::npos);
}

TEST(Row, ReadsNumbersStrictly) {
  const Csv csv = parsed("n,e,x,t,i,f\n 1.5 ,,12abc,True,7,inf\n");
  const Row row = csv.row(0);
  EXPECT_DOUBLE_EQ(*row.number("n"), 1.5);
  EXPECT_FALSE(row.number("e"));
  EXPECT_FALSE(row.number("x"));
  EXPECT_FALSE(row.number("f"));
  EXPECT_FALSE(row.number("missing"));
  EXPECT_NE(row.number("x").error().message.find("x is not a number"), std::string::npos);
  EXPECT_TRUE(*row.boolean("t"));
  EXPECT_FALSE(row.boolean("n"));
  EXPECT_EQ(*row.integer("i", 1, 7), 7);
  EXPECT_FALSE(row.integer("i", 8, 9));
  EXPECT_FALSE(row.integer("n", 0, 9));
  EXPECT_EQ(row.text("missing"), "");
  EXPECT_FALSE(row.has("missing"));
}

TEST(CsvField, QuotesOnlyWhatHasTo) {
  EXPECT_EQ(csv_field("plain"), "plain");
  EXPECT_EQ(csv_field("a,b"), "\"a,b\"");
  EXPECT_EQ(csv_field("say \"x\""), "\"say \"\"x\"\"\"");
}

}  // namespace
}  // namespace rooftree::validate

#include "report/table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "report/text.h"

namespace rooftree::report {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  while (start < text.size()) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

TEST(Text, WidthCountsColumnsNotBytes) {
  EXPECT_EQ(display_width("abc"), 3);
  EXPECT_EQ(display_width("µs"), 2);
  EXPECT_EQ(display_width("模型"), 4);
  EXPECT_EQ(display_width("e\xCC\x81"), 1) << "a combining accent takes no column";
  EXPECT_EQ(display_width("█"), 1);
  EXPECT_EQ(display_width("\xFF\xC3"), 2) << "invalid bytes take a column each";
  EXPECT_EQ(display_width(""), 0);
}

TEST(Text, ShortenNeverExceedsTheWidth) {
  EXPECT_EQ(shorten("attention", 9), "attention");
  EXPECT_EQ(shorten("attention", 5), "atte…");
  EXPECT_EQ(shorten("模型模型", 4), "模…") << "a wide character is not cut in half";
  EXPECT_EQ(shorten("abc", 0), "");
  for (int width = 1; width < 20; ++width) EXPECT_LE(display_width(shorten("größere 模型 im Speicher", width)), width);
}

TEST(Text, WrapKeepsWordsAndWidth) {
  EXPECT_EQ(wrap("one two three", 8), "one two\nthree\n");
  EXPECT_EQ(wrap("- one two", 6, 0, 2), "- one\n  two\n");
  EXPECT_EQ(wrap("unbreakable", 4), "unbreakable\n");
}

TEST(Text, NumbersHaveThreeDigitsAndNoExponentWherePeopleRead) {
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(1.2345), "1.23");
  EXPECT_EQ(number(12.345), "12.3");
  EXPECT_EQ(number(9.996), "10.0");
  EXPECT_EQ(number(999.6), "1,000");
  EXPECT_EQ(number(1234567), "1,230,000");
  EXPECT_EQ(number(0.001234), "0.00123");
  EXPECT_EQ(number(-45.67), "-45.7");
  EXPECT_EQ(number(65536, 7), "65,536.00");
  EXPECT_EQ(number(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(number(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(Text, CountsAreWholeWhereTheyCanBe) {
  EXPECT_EQ(count(65536), "65,536");
  EXPECT_EQ(count(16), "16");
  EXPECT_EQ(count(6.4321), "6.43");
  EXPECT_EQ(count(0), "0");
}

TEST(Text, NumbersOfAColumnShareTheirDecimals) {
  EXPECT_EQ(aligned(12.345, 99), "12.3");
  EXPECT_EQ(aligned(1.2345, 99), "1.2");
  EXPECT_EQ(aligned(0.01, 99), "<0.1");
  EXPECT_EQ(aligned(0, 99), "0");
  EXPECT_EQ(aligned(1234, 5678), "1,234");
  EXPECT_EQ(aligned(0.4, 131), "0.4") << "one decimal below a thousand";
  EXPECT_EQ(aligned(0.4, 5678), "<1");
  EXPECT_EQ(aligned(0.00012, 0.00034), "0.0001") << "at most four decimals";
  EXPECT_EQ(aligned(std::numeric_limits<double>::quiet_NaN(), 1), "-");
}

TEST(Text, PercentTimesAndDollars) {
  EXPECT_EQ(percent(0.62), "62 %");
  EXPECT_EQ(percent(0.0312), "3.1 %");
  EXPECT_EQ(percent(0.0004), "<0.1 %");
  EXPECT_EQ(percent(0), "0 %");
  EXPECT_EQ(percent(1.5), "150 %");
  EXPECT_EQ(times(3.44), "3.4x");
  EXPECT_EQ(dollars(0.0042), "$0.0042");
  EXPECT_EQ(dollars(12.5), "$12.50");
  EXPECT_EQ(dollars(1320), "$1,320");
}

TEST(Text, ScalesPickTheUnitOfTheLargest) {
  EXPECT_EQ(scale_for(0.0123, Dimension::kSeconds).unit, "ms");
  EXPECT_EQ(scale_for(3e-8, Dimension::kSeconds).unit, "µs") << "below the smallest unit the smallest stays";
  EXPECT_EQ(scale_for(5.0 * 1073741824, Dimension::kBytes).unit, "GiB");
  EXPECT_EQ(scale_for(2e12, Dimension::kFlop).unit, "TFLOP");
}

Table sample() {
  Table table({{"operator", "", Align::kLeft, 0, 12},
               {"kind", "", Align::kLeft, 3},
               {"time", "ms"},
               {"share", ""},
               {"traffic", "GiB", Align::kRight, 2},
               {"a long remark on what else changes", "", Align::kLeft, 1, 10}});
  table.add_heading("layer x16", {"", "", "12.5", "80 %"});
  table.add_row({"attention over everything seen so far", "attention", "10.2", "65 %", "1.20",
                 "the cache grows with the context and the batch"});
  table.add_row({"Größe 模型", "norm", "2.3", "15 %", "0.04", "-"});
  return table;
}

TEST(Table, FitsEveryWidth) {
  for (const int width : {40, 80, 100, 120, 200}) {
    for (const std::string& line : lines_of(sample().render(width))) {
      EXPECT_LE(display_width(line), width) << line;
      EXPECT_TRUE(line.empty() || line.back() != ' ') << "trailing space";
    }
  }
}

TEST(Table, WideShowsEverythingNarrowDropsTheLeastImportant) {
  const std::string wide = sample().render(200);
  EXPECT_NE(wide.find("attention over everything seen so far"), std::string::npos);
  EXPECT_NE(wide.find("kind"), std::string::npos);
  EXPECT_NE(wide.find("traffic"), std::string::npos);
  const std::string narrow = sample().render(44);
  EXPECT_EQ(narrow.find("kind"), std::string::npos) << "priority 3 goes first";
  EXPECT_NE(narrow.find("share"), std::string::npos) << "priority 0 stays";
  EXPECT_NE(narrow.find("…"), std::string::npos) << "text columns are shortened";
}

TEST(Table, NumbersAreRightAlignedUnderTheirUnit) {
  Table table({{"name", "", Align::kLeft}, {"time", "ms"}});
  table.add_row({"a", "1.00"});
  table.add_row({"b", "123"});
  EXPECT_EQ(table.render(80),
            "name  time\n"
            "        ms\n"
            "a     1.00\n"
            "b      123\n");
}

TEST(Table, HeadingsRunOverEmptyCells) {
  Table table({{"operator", "", Align::kLeft}, {"kind", "", Align::kLeft}, {"time", ""}});
  table.add_heading("a heading of words", {"", "", "7"});
  table.add_row({"x", "matmul", "7"});
  EXPECT_EQ(lines_of(table.render(80))[1], "a heading of wo…     7") << "it may use both empty cells, not the number's";
}

TEST(Table, ColourOnlyWhenAsked) {
  EXPECT_EQ(sample().render(100, false).find('\x1b'), std::string::npos);
  EXPECT_NE(sample().render(100, true).find("\x1b[1m"), std::string::npos);
}

}  // namespace
}  // namespace rooftree::report

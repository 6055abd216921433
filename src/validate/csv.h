#pragma once

// Comma-separated values as RFC 4180 has them: quoted fields, doubled quotes, line breaks inside quotes, CRLF or LF. Bounded,
// and strict: every row has as many fields as the header. Errors name file:line:column.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rooftree::validate {

struct CsvLimits {
  std::size_t max_bytes = std::size_t{256} << 20;
  std::size_t max_rows = 10'000'000;
  std::size_t max_columns = 1024;
  std::size_t max_field_bytes = std::size_t{1} << 20;
};

class Csv;

// One row, seen through the header. Valid as long as its Csv lives.
class Row {
 public:
  Row(const Csv& csv, std::size_t index) : csv_(&csv), index_(index) {}

  [[nodiscard]] bool has(std::string_view column) const;
  // Text of a column, without surrounding blanks; empty when the column or the value is missing.
  [[nodiscard]] std::string_view text(std::string_view column) const;
  // A finite number; kInvalid names the column when it is missing, empty or something else.
  [[nodiscard]] Result<double> number(std::string_view column) const;
  // A whole number within [low, high].
  [[nodiscard]] Result<std::int64_t> integer(std::string_view column, std::int64_t low, std::int64_t high) const;
  // "True"/"False", "1"/"0", "yes"/"no", any case.
  [[nodiscard]] Result<bool> boolean(std::string_view column) const;

  [[nodiscard]] std::size_t line() const;  // of the file, 1-based, where the row begins

 private:
  const Csv* csv_;
  std::size_t index_;
};

class Csv {
 public:
  static Result<Csv> parse(std::string_view text, std::string_view where, const CsvLimits& limits = {});

  [[nodiscard]] const std::vector<std::string>& header() const { return header_; }
  [[nodiscard]] std::size_t rows() const { return lines_.size(); }
  [[nodiscard]] Row row(std::size_t index) const { return {*this, index}; }
  [[nodiscard]] std::string_view field(std::size_t row, std::size_t column) const;
  [[nodiscard]] std::optional<std::size_t> column(std::string_view name) const;
  [[nodiscard]] std::size_t line(std::size_t row) const { return lines_[row]; }

 private:
  std::vector<std::string> header_;
  std::string text_;               // all fields, one after the other
  std::vector<std::size_t> ends_;  // end of field row * columns + column in text_
  std::vector<std::size_t> lines_;
};

// A field as it is written: quoted when it has to be.
[[nodiscard]] std::string csv_field(std::string_view text);

}  // namespace rooftree::validate

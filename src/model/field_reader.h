#pragma once

// Reads the fields of one JSON object with types and bounds. The first problem is kept and everything after it returns
// defaults, so that a reader is a list of fields and one check at its end. Private to the layer.

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace rooftree::model {

class FieldReader {
 public:
  // `path`: where in the file this object is, "" at its top. A null or absent object has no fields.
  FieldReader(const Json* object, std::string where, std::string path);

  [[nodiscard]] bool has(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high);
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high);
  double number_or(std::string_view key, double fallback, double low, double high);
  bool flag(std::string_view key);
  bool flag_or(std::string_view key, bool fallback);
  std::string text(std::string_view key);
  std::string text_or(std::string_view key, std::string_view fallback);
  std::vector<std::string> texts_or_empty(std::string_view key);
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t low, std::int64_t high, std::size_t max_count);
  std::vector<double> numbers_or_empty(std::string_view key, double low, double high, std::size_t max_count);
  // An object below; its problems are those of its own reader.
  FieldReader object(std::string_view key);
  FieldReader object_or_empty(std::string_view key);
  const Json* array_or_null(std::string_view key);
  void skip(std::string_view key) { seen_.emplace(key); }

  void fail(std::string_view key, std::string_view found, std::string_view expected);
  // The first problem, or with `all_known` a field that nobody asked for.
  [[nodiscard]] Status status(bool all_known = false) const;

 private:
  const Json* find(std::string_view key);
  const Json* require(std::string_view key, std::string_view expected);
  [[nodiscard]] std::string full_name(std::string_view key) const;

  const Json* object_;
  std::string where_, path_;
  std::set<std::string, std::less<>> seen_;
  std::string problem_;
};

// A JSON value as it is quoted in an error, shortened.
std::string quoted(const Json& value);

}  // namespace rooftree::model

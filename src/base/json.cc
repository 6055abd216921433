#include "base/json.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace rooftree {
namespace {

// Line and column (1-based) of a byte offset.
std::pair<std::size_t, std::size_t> line_and_column(std::string_view text, std::size_t offset) {
  std::size_t line = 1;
  std::size_t start = 0;
  for (std::size_t i = 0; i < offset && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++line;
      start = i + 1;
    }
  }
  return {line, offset >= start ? offset - start + 1 : 1};
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} bytes; expected at most {}", where, text.size(), limits.max_bytes)};
  }
  // The callback sees every key before values are stored, so that duplicates are found while parsing.
  std::string problem;
  std::vector<std::set<std::string>> keys;
  const auto guard = [&](int, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (!problem.empty()) return false;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end && !keys.empty()) keys.pop_back();
    if (event == Event::key && !keys.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) problem = fmt::format("key \"{}\" appears twice in one object", key);
    }
    return true;
  };
  // Depth must be bounded before the recursive-free parser builds (and its destructor later walks) the tree.
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limits.max_depth) {
        const auto [line, column] = line_and_column(text, i);
        return Error{ErrorCode::kParse,
                     fmt::format("{}:{}:{}: nested deeper than {} levels", where, line, column, limits.max_depth)};
      }
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  try {
    Json parsed = Json::parse(text, guard);
    if (!problem.empty()) return Error{ErrorCode::kParse, fmt::format("{}: {}", where, problem)};
    return parsed;
  } catch (const Json::parse_error& e) {
    const auto [line, column] = line_and_column(text, e.byte > 0 ? e.byte - 1 : 0);
    std::string what = e.what();
    if (const auto colon = what.find("; "); colon != std::string::npos) what.erase(0, colon + 2);
    return Error{ErrorCode::kParse, fmt::format("{}:{}:{}: not JSON: {}", where, line, column, what)};
  } catch (const Json::exception& e) {
    return Error{ErrorCode::kParse, fmt::format("{}: not JSON: {}", where, e.what())};
  }
}

Result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    return Error{ErrorCode::kEnvironment, fmt::format("{}: is a folder; expected a file", path.string())};
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::kEnvironment, fmt::format("{}: cannot be opened", path.string())};
  std::string text;
  char buffer[65536];
  while (in.read(buffer, sizeof buffer) || in.gcount() > 0) {
    text.append(buffer, static_cast<std::size_t>(in.gcount()));
    if (text.size() > max_bytes) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: larger than {} bytes", path.string(), max_bytes)};
    }
  }
  return text;
}

}  // namespace rooftree

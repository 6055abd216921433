#pragma once

// JSON for the whole project: nlohmann::ordered_json (keys keep their order, so output is stable), read with bounds.
// Headers of other layers include only <nlohmann/json_fwd.hpp>.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace rooftree {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  int max_depth = 64;
};

// Parses text; errors name `where`, line and column. Nesting and size are bounded; duplicate keys are refused.
Result<Json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits = {});

// Reads a whole file; kEnvironment when it cannot be read, kInvalid when larger than `max_bytes`.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{64} << 20);

}  // namespace rooftree

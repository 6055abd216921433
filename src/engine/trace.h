#pragma once

// Every value of a forward pass, position by position, for finding where two machines, builds or settings part: the first
// differing token, layer, operator and element.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"

namespace rooftree::engine {

// Runs `tokens` one at a time and writes every value of every node (about 100 KB per position for a model of a billion
// parameters and layer of 2048). The file appears whole or not at all.
Status write_trace(Engine& engine, const std::vector<TokenId>& tokens, const std::filesystem::path& path,
                   Progress* progress = nullptr);

struct TraceDifference {
  bool equal = true;
  std::string structure;  // not empty: the traces are not of the same model or tokens, and why
  std::int64_t position = 0;
  std::int32_t token = 0;
  std::int32_t layer = -1;  // -1: outside layers
  std::string node, value;
  std::int64_t element = 0;
  float a = 0, b = 0;
  std::int64_t differing = 0, elements = 0;  // in that value
  double relative_rms = 0;                   // of that value: |a - b| / |a|
  double final_relative_rms = 0;             // of the logits of the last position
};
Result<TraceDifference> compare_traces(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace rooftree::engine

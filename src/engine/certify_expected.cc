#include "engine/certify_expected.h"

#include <array>
#include <utility>

namespace rooftree::engine {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 0> kExpected = {};

}  // namespace

std::string_view expected_hash(std::string_view name) {
  for (const auto& [work, hash] : kExpected) {
    if (work == name) return hash;
  }
  return {};
}

}  // namespace rooftree::engine

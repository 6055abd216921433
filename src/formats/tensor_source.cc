#include "formats/tensor_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace rooftree::formats {
namespace {

// Levenshtein distance of texts of bounded length; distances above `limit` come out as limit + 1.
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit) {
  const std::size_t difference = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (difference > limit) return limit + 1;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    std::size_t least = row[0];
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
      least = std::min(least, row[j]);
    }
    if (least > limit) return limit + 1;
  }
  return row[b.size()];
}

}  // namespace

std::int64_t TensorView::rows() const {
  std::int64_t product = 1;
  for (std::size_t i = 0; i + 1 < extents.size(); ++i) product *= extents[i];
  return product;
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 96;
  std::string out;
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > kLongest) out += fmt::format("... ({} bytes)", text.size());
  return out;
}

Error unknown_tensor(std::string_view where, std::string_view name, std::span<const std::string_view> known) {
  constexpr std::size_t kLimit = 6, kShown = 3, kLongest = 128;
  std::vector<std::pair<std::size_t, std::string_view>> near;
  if (name.size() <= kLongest) {
    for (const std::string_view candidate : known) {
      if (candidate.size() > kLongest) continue;
      const std::size_t distance = edit_distance(name, candidate, kLimit);
      if (distance <= kLimit) near.emplace_back(distance, candidate);
    }
  }
  std::sort(near.begin(), near.end());
  if (near.size() > kShown) near.resize(kShown);
  std::string hint;
  for (const auto& [distance, candidate] : near) {
    hint += fmt::format("{}'{}'", hint.empty() ? "; near names are " : ", ", printable(candidate));
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: no tensor '{}' among the {} of this model{}", where, printable(name), known.size(), hint)};
}

}  // namespace rooftree::formats

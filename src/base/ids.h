#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace rooftree {

// A typed index into a container owned by somebody else; one Tag per kind, so that kinds cannot be mixed up.
template <class Tag>
struct Id {
  std::uint32_t index = UINT32_MAX;

  [[nodiscard]] constexpr bool valid() const { return index != UINT32_MAX; }
  friend constexpr auto operator<=>(Id, Id) = default;
};

}  // namespace rooftree

template <class Tag>
struct std::hash<rooftree::Id<Tag>> {
  std::size_t operator()(rooftree::Id<Tag> id) const noexcept { return std::hash<std::uint32_t>{}(id.index); }
};

#include "engine/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>

namespace rooftree::engine {
namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

Result<Arena> Arena::make(std::size_t bytes, bool huge_pages) {
  Arena arena;
  if (bytes == 0) return arena;
  const std::size_t slack = huge_pages ? kHugePage : 0;
  void* const mapping =
      mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return Error{ErrorCode::kEnvironment, fmt::format("memory: {} bytes asked for, refused by the system", bytes)};
  }
  arena.mapping_ = mapping;
  arena.mapped_ = bytes + slack;
  auto address = reinterpret_cast<std::uintptr_t>(mapping);
  if (huge_pages) address = (address + kHugePage - 1) / kHugePage * kHugePage;
  arena.data_ = static_cast<std::byte*>(mapping) + (address - reinterpret_cast<std::uintptr_t>(mapping));
  arena.bytes_ = bytes;
#ifdef MADV_HUGEPAGE
  // A hint: where the system has no such pages, ordinary ones serve.
  if (huge_pages) madvise(arena.data_, bytes, MADV_HUGEPAGE);
#endif
  return arena;
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  if (this != &other) {
    if (mapping_ != nullptr) munmap(mapping_, mapped_);
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapped_ = std::exchange(other.mapped_, 0);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

}  // namespace rooftree::engine

#pragma once

// Anonymous memory from the system: zero until it is touched, aligned to 2 MiB pages where they are to be had.

#include <cstddef>
#include <utility>

#include "base/result.h"

namespace rooftree::engine {

class Arena {
 public:
  // kEnvironment: the system has no such memory to give. 0 bytes: an empty arena.
  static Result<Arena> make(std::size_t bytes, bool huge_pages);
  Arena() = default;
  ~Arena();
  Arena(Arena&& other) noexcept
      : mapping_(std::exchange(other.mapping_, nullptr)),
        mapped_(std::exchange(other.mapped_, 0)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)) {}
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace rooftree::engine

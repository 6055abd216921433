#pragma once

// Anonymous memory on 2 MiB pages where the system gives them.

#include <cstddef>

#include "base/result.h"

namespace rooftree::probe {

class Buffer {
 public:
  Buffer() = default;
  // Not touched yet: the thread that writes a page first decides which memory it lies in. kEnvironment when there is none.
  static Result<Buffer> allocate(std::size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] double* doubles() const { return static_cast<double*>(static_cast<void*>(data_)); }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;  // aligned to 2 MiB
  std::size_t size_ = 0;       // rounded up to 2 MiB
};

// Transparent huge pages can be had by advice.
[[nodiscard]] bool huge_pages_available();

}  // namespace rooftree::probe

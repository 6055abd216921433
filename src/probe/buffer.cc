#include "probe/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

namespace rooftree::probe {
namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

Result<Buffer> Buffer::allocate(std::size_t bytes) {
  Buffer buffer;
  const std::size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  if (size == 0) return buffer;
  // One page more, to cut an aligned piece out.
  void* raw = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("memory for measuring: {} MiB were refused: {}", size >> 20, std::strerror(errno))};
  }
  auto* const begin = static_cast<std::byte*>(raw);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before != 0) munmap(begin, before);
  munmap(begin + before + size, kHugePage - before);
  buffer.data_ = begin + before;
  buffer.size_ = size;
  madvise(buffer.data_, size, MADV_HUGEPAGE);  // advice: without it the pages are small
  return buffer;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, size_);
}
Buffer::Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

bool huge_pages_available() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  return text.find("[always]") != std::string::npos || text.find("[madvise]") != std::string::npos;
}

}  // namespace rooftree::probe

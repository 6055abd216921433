#pragma once

// A file mapped for reading. Movable; unmapped by the destructor. An empty file maps to an empty span.

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace rooftree::formats {

class MappedFile {
 public:
  // kEnvironment: missing, not a regular file, or not readable.
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // The pages of this part will be read soon, or will not be needed again and may leave memory. Hints.
  void will_need(std::span<const std::byte> part) const;
  void done_with(std::span<const std::byte> part) const;

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace rooftree::formats

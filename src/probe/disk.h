#pragma once

// Sequential reads from a temporary file of our own. The file has no name from the moment it exists, so that nothing is left
// behind however the process ends.

#include <cstddef>
#include <filesystem>

#include "base/result.h"
#include "base/units.h"
#include "probe/buffer.h"

namespace rooftree::probe {

// $XDG_CACHE_HOME/rooftree, or ~/.cache/rooftree; created if missing.
Result<std::filesystem::path> cache_directory();

class DiskFile {
 public:
  static constexpr std::size_t kBlock = std::size_t{4} << 20;  // one read request

  // Writes `bytes` (rounded up to blocks) into an unnamed file in `directory`, through to the device. Writing stops early, at
  // one block at least, when it takes longer than `limit`.
  static Result<DiskFile> create(const std::filesystem::path& directory, std::size_t bytes, Seconds limit);
  ~DiskFile();
  DiskFile(DiskFile&& other) noexcept;
  DiskFile& operator=(DiskFile&&) = delete;
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool direct() const { return direct_; }
  [[nodiscard]] Bytes file_system_capacity() const { return capacity_; }

  // Reads the next `blocks` blocks (around the end of the file) from the device / from the page cache; bytes per second, 0 when
  // a read failed. Every block's first word is checked against what was written.
  double read_device(int blocks);
  double read_page_cache(int blocks);

 private:
  DiskFile() = default;
  double read_blocks(int file, int blocks, std::size_t& position, bool drop_first);

  int buffered_ = -1;
  int direct_file_ = -1;  // the same file, opened with O_DIRECT; -1 where the file system refuses
  bool direct_ = false;
  std::size_t size_ = 0;
  Bytes capacity_;
  Buffer block_;
  std::size_t device_position_ = 0, cache_position_ = 0;
};

}  // namespace rooftree::probe

#include "probe/disk.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/philox.h"

namespace rooftree::probe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Block b starts with this word: a read that returned something else did not read the file.
std::uint64_t block_mark(std::size_t block) { return Philox(0xD15C, block).block(0)[0] | 1U; }

Error failed(const std::filesystem::path& directory, const char* what) {
  return Error{ErrorCode::kEnvironment, fmt::format("{}: {}: {}", directory.string(), what, std::strerror(errno))};
}

}  // namespace

Result<std::filesystem::path> cache_directory() {
  std::filesystem::path base;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/') {
    base = xdg;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    base = std::filesystem::path(home) / ".cache";
  } else {
    return Error{ErrorCode::kEnvironment, "cache directory: neither XDG_CACHE_HOME nor HOME is set"};
  }
  base /= "rooftree";
  std::error_code error;
  std::filesystem::create_directories(base, error);
  if (error) return Error{ErrorCode::kEnvironment, fmt::format("{}: cannot be created: {}", base.string(), error.message())};
  return base;
}

Result<DiskFile> DiskFile::create(const std::filesystem::path& directory, std::size_t bytes, Seconds limit) {
  DiskFile file;
  std::string name = (directory / "probe-XXXXXX").string();
  file.buffered_ = mkostemp(name.data(), O_CLOEXEC);
  if (file.buffered_ < 0) return failed(directory, "no temporary file");
  file.direct_file_ = open(name.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  unlink(name.c_str());

  struct statvfs fs {};
  if (fstatvfs(file.buffered_, &fs) == 0) {
    file.capacity_ = Bytes{static_cast<double>(fs.f_blocks) * static_cast<double>(fs.f_frsize)};
    // Never fill the last tenth of somebody's disk.
    const double free_bytes = static_cast<double>(fs.f_bavail) * static_cast<double>(fs.f_frsize);
    if (static_cast<double>(bytes) * 10.0 > free_bytes) {
      return Error{ErrorCode::kEnvironment,
                   fmt::format("{}: {} MiB free; expected ten times the {} MiB of the temporary file", directory.string(),
                               static_cast<long>(free_bytes / 1048576.0), bytes >> 20)};
    }
  }
  ROOFTREE_TRY(file.block_, Buffer::allocate(kBlock));
  // Random contents: some devices compress or skip zeros.
  auto* words = reinterpret_cast<std::uint64_t*>(file.block_.data());
  Philox rng(0xF11E);
  for (std::size_t i = 0; i < kBlock / 8; ++i) words[i] = rng.next_u64();
  const Clock::time_point start = Clock::now();
  for (std::size_t block = 0; block * kBlock < bytes; ++block) {
    words[0] = block_mark(block);
    for (std::size_t done = 0; done < kBlock;) {
      const ssize_t n = write(file.buffered_, file.block_.data() + done, kBlock - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return failed(directory, "writing the temporary file");
      done += static_cast<std::size_t>(n);
    }
    file.size_ += kBlock;
    // Through to the device block by block, so that the time limit means something.
    if (fdatasync(file.buffered_) != 0 && errno != EINVAL && errno != EROFS)
      return failed(directory, "syncing the temporary file");
    if (seconds_since(start) > limit.value()) break;
  }
  if (file.size_ == 0) return Error{ErrorCode::kEnvironment, "disk: no size asked for"};
  if (file.direct_file_ >= 0) {
    file.direct_ = pread(file.direct_file_, file.block_.data(), kBlock, 0) == static_cast<ssize_t>(kBlock);
  }
  return file;
}

DiskFile::~DiskFile() {
  if (buffered_ >= 0) close(buffered_);
  if (direct_file_ >= 0) close(direct_file_);
}

DiskFile::DiskFile(DiskFile&& other) noexcept
    : buffered_(std::exchange(other.buffered_, -1)),
      direct_file_(std::exchange(other.direct_file_, -1)),
      direct_(other.direct_),
      size_(other.size_),
      capacity_(other.capacity_),
      block_(std::move(other.block_)),
      device_position_(other.device_position_),
      cache_position_(other.cache_position_) {}

double DiskFile::read_blocks(int file, int blocks, std::size_t& position, bool drop_first) {
  double seconds = 0.0;
  for (int i = 0; i < blocks; ++i) {
    if (drop_first) {
      posix_fadvise(buffered_, static_cast<off_t>(position), static_cast<off_t>(kBlock), POSIX_FADV_DONTNEED);
    }
    const Clock::time_point start = Clock::now();
    for (std::size_t done = 0; done < kBlock;) {
      const ssize_t n = pread(file, block_.data() + done, kBlock - done, static_cast<off_t>(position + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return 0.0;
      done += static_cast<std::size_t>(n);
    }
    seconds += seconds_since(start);
    std::uint64_t mark = 0;
    std::memcpy(&mark, block_.data(), sizeof mark);
    if (mark != block_mark(position / kBlock)) return 0.0;
    position = (position + kBlock) % size_;
  }
  return static_cast<double>(blocks) * static_cast<double>(kBlock) / seconds;
}

double DiskFile::read_device(int blocks) {
  return direct_ ? read_blocks(direct_file_, blocks, device_position_, false)
                 : read_blocks(buffered_, blocks, device_position_, true);
}

double DiskFile::read_page_cache(int blocks) {
  // Once untimed, so that the blocks are there.
  std::size_t position = cache_position_;
  if (read_blocks(buffered_, blocks, position, false) <= 0.0) return 0.0;
  return read_blocks(buffered_, blocks, cache_position_, false);
}

}  // namespace rooftree::probe

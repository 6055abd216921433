#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace rooftree::formats {
namespace {

// The whole pages that lie inside `part`.
void advise(std::span<const std::byte> part, bool inner, int advice) {
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<std::uintptr_t>(part.data());  // NOLINT(performance-no-int-to-ptr)
  std::uintptr_t end = begin + part.size();
  begin = inner ? (begin + page - 1) / page * page : begin / page * page;
  if (inner) end = end / page * page;
  if (begin >= end) return;
  // A hint: failure changes nothing but speed.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, advice);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const auto fail = [&](const char* what) {
    return Error{ErrorCode::kEnvironment, fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno))};
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fail("cannot open");
  struct stat status {};
  if (fstat(descriptor, &status) != 0) {
    const Error error = fail("cannot stat");
    close(descriptor);
    return error;
  }
  if (!S_ISREG(status.st_mode)) {
    close(descriptor);
    return Error{ErrorCode::kEnvironment, fmt::format("{}: not a regular file", path.string())};
  }
  MappedFile file;
  file.path_ = path;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > 0) {
    void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) {
      const Error error = fail("cannot map");
      close(descriptor);
      return error;
    }
    file.bytes_ = {static_cast<const std::byte*>(address), size};
  }
  close(descriptor);
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::will_need(std::span<const std::byte> part) const { advise(part, false, MADV_WILLNEED); }
void MappedFile::done_with(std::span<const std::byte> part) const { advise(part, true, MADV_DONTNEED); }

}  // namespace rooftree::formats

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "probe/probe.h"

namespace rooftree::probe {

Status write_atomically(const std::string& path, std::string_view text) {
  const std::filesystem::path target(path);
  std::error_code error;
  if (target.has_parent_path()) std::filesystem::create_directories(target.parent_path(), error);
  if (error) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: folder cannot be created: {}", target.parent_path().string(), error.message())};
  }
  // Beside the target, so that the rename stays inside one file system.
  std::string temporary = path + ".XXXXXX";
  const int file = mkostemp(temporary.data(), O_CLOEXEC);
  const auto failed = [&](const char* what) {
    const Error result{ErrorCode::kEnvironment, fmt::format("{}: {}: {}", path, what, std::strerror(errno))};
    if (file >= 0) unlink(temporary.c_str());
    return result;
  };
  if (file < 0) return failed("cannot be written");
  bool ok = true;
  for (std::size_t done = 0; ok && done < text.size();) {
    const ssize_t n = write(file, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    ok = n > 0;
    if (ok) done += static_cast<std::size_t>(n);
  }
  ok = ok && fchmod(file, 0644) == 0 && fsync(file) == 0;
  ok = close(file) == 0 && ok;
  if (!ok) return failed("cannot be written");
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return failed("cannot be replaced");
  return Ok{};
}

}  // namespace rooftree::probe

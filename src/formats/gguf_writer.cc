#include "formats/gguf_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/check.h"

namespace rooftree::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is written as it lies in memory");

constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kBuffer = std::size_t{1} << 20;
constexpr std::size_t kMostDimensions = 4;
constexpr std::int64_t kMostValues = std::int64_t{1} << 48;

std::uint64_t aligned(std::uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
void put_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}
void put_text(std::string& out, std::string_view text) {
  put_number(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

// Type numbers of docs/gguf.md, before their values.
template <class T>
void put_typed(std::string& out, std::uint32_t type, T value) {
  put_number(out, type);
  put_number(out, value);
}
void put_value(std::string& out, std::uint32_t v) { put_typed(out, 4, v); }
void put_value(std::string& out, std::int32_t v) { put_typed(out, 5, v); }
void put_value(std::string& out, float v) { put_typed(out, 6, v); }
void put_value(std::string& out, bool v) { put_typed(out, 7, static_cast<std::uint8_t>(v ? 1 : 0)); }
void put_value(std::string& out, const std::string& v) {
  put_number(out, std::uint32_t{8});
  put_text(out, v);
}
void put_value(std::string& out, std::uint64_t v) { put_typed(out, 10, v); }
void put_value(std::string& out, std::int64_t v) { put_typed(out, 11, v); }
void put_value(std::string& out, double v) { put_typed(out, 12, v); }
template <class T>
void put_value(std::string& out, const std::vector<T>& values) {
  constexpr std::uint32_t kType = std::is_same_v<T, std::int32_t> ? 5 : std::is_same_v<T, float> ? 6 : 8;
  put_number(out, std::uint32_t{9});
  put_number(out, kType);
  put_number(out, static_cast<std::uint64_t>(values.size()));
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      put_text(out, value);
    } else {
      put_number(out, value);
    }
  }
}

}  // namespace

GgufWriter::~GgufWriter() { discard(); }

void GgufWriter::discard() {
  if (file_ >= 0) close(std::exchange(file_, -1));
  if (!temporary_.empty()) unlink(std::exchange(temporary_, {}).c_str());
}

Error GgufWriter::failed(std::string_view what) {
  const Error error{ErrorCode::kEnvironment, fmt::format("{}: {}: {}", path_.string(), what, std::strerror(errno))};
  discard();
  return error;
}

void GgufWriter::put(Entry entry) {
  const auto found = std::find_if(metadata_.begin(), metadata_.end(), [&](const Entry& e) { return e.key == entry.key; });
  if (found != metadata_.end()) {
    *found = std::move(entry);
  } else {
    metadata_.push_back(std::move(entry));
  }
}

void GgufWriter::set(std::string_view key, const GgufScalar& value) {
  ROOFTREE_CHECK(!key.empty() && key != "general.alignment", "GgufWriter::set: a key that may not be set");
  Entry entry{std::string(key), {}};
  put_text(entry.raw, key);
  std::visit([&](const auto& v) { put_value(entry.raw, v); }, value);
  put(std::move(entry));
}

void GgufWriter::copy_metadata(const GgufFile& file) {
  const auto& entries = file.all_metadata();
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::string_view key = entries[i].first;
    if (key == "general.alignment" || key.starts_with("split.")) continue;
    const std::span<const std::byte> raw = file.raw_metadata()[i];
    put({std::string(key), std::string(reinterpret_cast<const char*>(raw.data()), raw.size())});
  }
}

Status GgufWriter::declare(std::string_view name, DType type, const std::vector<std::int64_t>& extents) {
  ROOFTREE_CHECK(file_ < 0, "GgufWriter::declare after open");
  const auto invalid = [&](std::string_view what) {
    return Error{ErrorCode::kInvalid, fmt::format("tensor '{}': {}", printable(name), what)};
  };
  const GgufType* stored = gguf_type(type);
  if (stored == nullptr) return invalid(fmt::format("GGUF has no type for {}", rooftree::name(type)));
  if (name.empty()) return invalid("a tensor needs a name");
  if (extents.size() > kMostDimensions) return invalid(fmt::format("{} dimensions; GGUF has at most 4", extents.size()));
  std::int64_t values = 1;
  for (const std::int64_t extent : extents) {
    if (extent < 1 || extent > kMostValues / values) return invalid(fmt::format("an extent of {}", extent));
    values *= extent;
  }
  const std::int64_t k = extents.empty() ? 1 : extents.back();
  if (k % stored->form.values != 0) {
    return invalid(fmt::format("rows of {} values; {} stores {} together", k, stored->name, stored->form.values));
  }
  if (std::any_of(tensors_.begin(), tensors_.end(), [&](const Tensor& t) { return t.name == name; })) {
    return invalid("the name occurs twice");
  }
  Tensor tensor{std::string(name), stored->id, extents, data_bytes_, 0};
  tensor.bytes = static_cast<std::uint64_t>(values / stored->form.values) * static_cast<std::uint64_t>(stored->form.bytes);
  data_bytes_ = aligned(data_bytes_ + tensor.bytes);
  tensors_.push_back(std::move(tensor));
  return Ok{};
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  put_number(out, std::uint32_t{3});
  put_number(out, static_cast<std::uint64_t>(tensors_.size()));
  put_number(out, static_cast<std::uint64_t>(metadata_.size()));
  for (const Entry& entry : metadata_) out += entry.raw;
  for (const Tensor& tensor : tensors_) {
    put_text(out, tensor.name);
    put_number(out, static_cast<std::uint32_t>(tensor.extents.size()));
    for (auto extent = tensor.extents.rbegin(); extent != tensor.extents.rend(); ++extent) {
      put_number(out, static_cast<std::uint64_t>(*extent));
    }
    put_number(out, tensor.type);
    put_number(out, tensor.offset);
  }
  out.resize(static_cast<std::size_t>(aligned(out.size())));
  return out;
}

std::uint64_t GgufWriter::file_bytes() const { return header().size() + data_bytes_; }

Status GgufWriter::open(const std::filesystem::path& path) {
  ROOFTREE_CHECK(file_ < 0 && temporary_.empty(), "GgufWriter::open twice");
  path_ = path;
  const std::string head = header();
  std::error_code unknown;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const std::filesystem::space_info space = std::filesystem::space(folder, unknown);
  const std::uint64_t needed = head.size() + data_bytes_;
  if (!unknown && space.available < needed) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: the file needs {} bytes, the disk has {} free", path.string(), needed, space.available)};
  }
  // Beside the target, so that the rename stays inside one file system.
  std::string temporary = path.string() + ".XXXXXX";
  file_ = mkostemp(temporary.data(), O_CLOEXEC);
  if (file_ < 0) return failed("cannot be written");
  temporary_ = std::move(temporary);
  buffer_.reserve(kBuffer);
  return write(head);
}

Status GgufWriter::flush() {
  for (std::size_t done = 0; done < buffer_.size();) {
    const ssize_t n = ::write(file_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("cannot be written");
    done += static_cast<std::size_t>(n);
  }
  buffer_.clear();
  return Ok{};
}

Status GgufWriter::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t part = std::min(bytes.size(), kBuffer - buffer_.size());
    buffer_ += bytes.substr(0, part);
    bytes.remove_prefix(part);
    if (buffer_.size() == kBuffer) ROOFTREE_TRY_VOID(flush());
  }
  return Ok{};
}

Status GgufWriter::append(std::span<const std::byte> bytes) {
  ROOFTREE_CHECK(file_ >= 0, "GgufWriter::append without an open file");
  std::string_view left(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!left.empty()) {
    ROOFTREE_CHECK(tensor_ < tensors_.size(), "GgufWriter::append: more bytes than the tensors have");
    const Tensor& tensor = tensors_[tensor_];
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(left.size(), tensor.bytes - written_));
    ROOFTREE_TRY_VOID(write(left.substr(0, part)));
    left.remove_prefix(part);
    written_ += part;
    if (written_ < tensor.bytes) break;
    const std::string padding(static_cast<std::size_t>(aligned(written_) - written_), '\0');
    ROOFTREE_TRY_VOID(write(padding));
    written_ = 0;
    ++tensor_;
  }
  return Ok{};
}

Status GgufWriter::finish() {
  ROOFTREE_CHECK(file_ >= 0 && tensor_ == tensors_.size(), "GgufWriter::finish before all tensors were written");
  ROOFTREE_TRY_VOID(flush());
  // mkostemp made it private; a new file has what the umask leaves of 0666.
  const mode_t mask = umask(0);
  umask(mask);
  const bool kept = fchmod(file_, 0666 & ~mask) == 0 && fsync(file_) == 0;
  if (!kept) return failed("cannot be written");
  if (close(std::exchange(file_, -1)) != 0) return failed("cannot be written");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return failed("cannot be replaced");
  temporary_.clear();
  return Ok{};
}

}  // namespace rooftree::formats

#include "engine/weight_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/check.h"
#include "engine/byte_hash.h"

namespace rooftree::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'R', 'T', 'P', 'A', 'C', 'K', 'E', 'D'};
// Words 1 to 11 behind the magic. The version carries the byte order: another machine's reads as another number.
enum Word : std::size_t { kVersion, kPage, kHeaderBytes, kFileBytes, kKeyBytes, kParts, kVectors, kHash, kWords = 11 };
constexpr std::uint64_t kFormatVersion = 1;
constexpr std::size_t kFixedBytes = sizeof kMagic + kWords * sizeof(std::uint64_t);
constexpr std::size_t kPartBytes = 5 * sizeof(std::uint64_t);
static_assert(kFixedBytes == 96);

// As much as one call of the system reads: enough requests for the disk to be busy, and a stop is soon noticed.
constexpr std::size_t kReadPiece = std::size_t{16} << 20;

std::size_t padded_key(std::size_t bytes) { return (bytes + 7) / 8 * 8; }

Error failed(const fs::path& path, std::string_view what) {
  return Error{ErrorCode::kEnvironment,
               fmt::format("{}: {}: {}", path.string(), what, std::error_code(errno, std::generic_category()).message())};
}

Status read_all(int file, const fs::path& path, std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = pread(file, out.data(), std::min(out.size(), kReadPiece), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(path, "reading weights");
    if (got == 0) {
      return Error{ErrorCode::kEnvironment, fmt::format("{}: ends at byte {}; expected {} more: it was cut while in use",
                                                        path.string(), offset, out.size())};
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return Ok{};
}

std::uint64_t type_hash(DType type) { return hash_bytes(std::as_bytes(std::span(name(type)))); }

std::optional<DType> type_of_hash(std::uint64_t hash) {
  for (const DTypeInfo& known : all_dtypes()) {
    if (type_hash(known.type) == hash) return known.type;
  }
  return std::nullopt;
}

std::vector<std::byte> encode(const WeightHeader& header) {
  std::vector<std::byte> out(WeightHeader::bytes(header.key.size(), header.parts.size(), header.vectors.size()));
  std::uint64_t words[kWords] = {};
  words[kVersion] = kFormatVersion;
  words[kPage] = kWeightFilePage;
  words[kHeaderBytes] = out.size();
  words[kFileBytes] = header.file_bytes;
  words[kKeyBytes] = header.key.size();
  words[kParts] = header.parts.size();
  words[kVectors] = header.vectors.size();
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  std::memcpy(out.data() + sizeof kMagic, words, sizeof words);
  std::byte* at = out.data() + kFixedBytes;
  std::memcpy(at, header.key.data(), header.key.size());
  at += padded_key(header.key.size());
  for (const StoredPart& part : header.parts) {
    const std::uint64_t record[5] = {type_hash(part.type), static_cast<std::uint64_t>(part.n),
                                     static_cast<std::uint64_t>(part.k), part.bytes, part.offset};
    std::memcpy(at, record, sizeof record);
    at += sizeof record;
  }
  if (!header.vectors.empty()) std::memcpy(at, header.vectors.data(), header.vectors.size() * sizeof(float));
  words[kHash] = hash_bytes(out);
  std::memcpy(out.data() + sizeof kMagic, words, sizeof words);
  return out;
}

}  // namespace

std::uint64_t WeightHeader::bytes(std::size_t key_bytes, std::size_t parts, std::size_t vectors) {
  return page_up(kFixedBytes + padded_key(key_bytes) + parts * kPartBytes + vectors * sizeof(float));
}

// ---- reading

WeightFile::WeightFile(WeightFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      direct_(std::exchange(other.direct_, -1)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

WeightFile& WeightFile::operator=(WeightFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  std::swap(direct_, other.direct_);
  std::swap(mapping_, other.mapping_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

WeightFile::~WeightFile() {
  if (mapping_ != nullptr) munmap(mapping_, bytes_);
  if (direct_ >= 0) close(direct_);
  if (file_ >= 0) close(file_);
}

// Where the file system has no direct reads (tmpfs), ordinary ones serve.
Status WeightFile::open_direct(const fs::path& path) {
#ifdef O_DIRECT
  direct_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  struct stat a, b;
  if (direct_ >= 0 && (fstat(direct_, &a) != 0 || fstat(file_, &b) != 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)) {
    return Error{ErrorCode::kEnvironment, fmt::format("{}: was replaced while it was opened", path.string())};
  }
#endif
  return Ok{};
}

Result<WeightFile> WeightFile::open(const fs::path& path, WeightHeader& header) {
  WeightFile file;
  file.path_ = path;
  file.file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.file_ < 0) return failed(path, "opening");
  struct stat status;
  if (fstat(file.file_, &status) != 0 || !S_ISREG(status.st_mode)) return failed(path, "not a plain file");
  file.bytes_ = static_cast<std::uint64_t>(status.st_size);
  const auto other = [&](std::string_view what) {
    return Error{ErrorCode::kParse, fmt::format("{}: {}; expected the packed weights of this model", path.string(), what)};
  };
  std::byte fixed[kFixedBytes];
  if (file.bytes_ < sizeof fixed) return other("shorter than a header");
  ROOFTREE_TRY_VOID(file.read(0, fixed));
  if (std::memcmp(fixed, kMagic, sizeof kMagic) != 0) return other("begins with other bytes");
  std::uint64_t words[kWords];
  std::memcpy(words, fixed + sizeof kMagic, sizeof words);
  const std::uint64_t header_bytes = WeightHeader::bytes(header.key.size(), header.parts.size(), header.vectors.size());
  if (words[kVersion] != kFormatVersion || words[kPage] != kWeightFilePage) return other("written by another version");
  if (words[kKeyBytes] != header.key.size() || words[kParts] != header.parts.size() ||
      words[kVectors] != header.vectors.size() || words[kHeaderBytes] != header_bytes) {
    return other("of another source or other options");
  }
  if (words[kFileBytes] != file.bytes_ || file.bytes_ < header_bytes) return other("of the wrong size");
  std::vector<std::byte> all(header_bytes);
  ROOFTREE_TRY_VOID(file.read(0, all));
  std::memset(all.data() + sizeof kMagic + kHash * sizeof(std::uint64_t), 0, sizeof(std::uint64_t));
  if (hash_bytes(all) != words[kHash]) return other("its header is damaged");
  const std::byte* at = all.data() + kFixedBytes;
  if (std::memcmp(at, header.key.data(), header.key.size()) != 0) return other("of another source or other options");
  at += padded_key(header.key.size());
  for (StoredPart& part : header.parts) {
    std::uint64_t record[5];
    std::memcpy(record, at, sizeof record);
    at += sizeof record;
    const auto type = type_of_hash(record[0]);
    if (!type.has_value() || record[1] > INT64_MAX || record[2] > INT64_MAX) return other("a matrix of an unknown type");
    if (record[3] > file.bytes_ || record[4] > file.bytes_ - record[3] || record[4] < header_bytes || record[4] % 64 != 0) {
      return other("a matrix outside the file");
    }
    part = {.type = *type,
            .n = static_cast<std::int64_t>(record[1]),
            .k = static_cast<std::int64_t>(record[2]),
            .bytes = record[3],
            .offset = record[4]};
  }
  if (!header.vectors.empty()) std::memcpy(header.vectors.data(), at, header.vectors.size() * sizeof(float));
  header.file_bytes = file.bytes_;
  ROOFTREE_TRY_VOID(file.open_direct(path));
  return file;
}

Status WeightFile::read(std::uint64_t offset, std::span<std::byte> out) const { return read_all(file_, path_, offset, out); }

Status WeightFile::read_direct(std::uint64_t offset, std::span<std::byte> out) const {
  if (direct_ >= 0) {
    if (const Status status = read_all(direct_, path_, offset, out)) return status;
    // Some file systems open for direct reads and then refuse them: the ordinary read has the last word.
  }
  posix_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(out.size()), POSIX_FADV_SEQUENTIAL);
  ROOFTREE_TRY_VOID(read(offset, out));
  // Read in turn, a page has its next use when the others have pushed it out: leave the memory to those who can use it.
  posix_fadvise(file_, static_cast<off_t>(offset), static_cast<off_t>(out.size()), POSIX_FADV_DONTNEED);
  return Ok{};
}

Result<const std::byte*> WeightFile::map() {
  if (mapping_ == nullptr) {
    void* const mapping = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file_, 0);
    if (mapping == MAP_FAILED) return failed(path_, "mapping");
    mapping_ = mapping;
    // Hints: a system without them reads on demand, in small pages.
    madvise(mapping_, bytes_, MADV_WILLNEED);
#ifdef MADV_HUGEPAGE
    madvise(mapping_, bytes_, MADV_HUGEPAGE);
#endif
  }
  return static_cast<const std::byte*>(mapping_);
}

// ---- writing

WeightFileWriter::WeightFileWriter(WeightFileWriter&& other) noexcept
    : file_(std::move(other.file_)), temporary_(std::exchange(other.temporary_, {})), final_(std::exchange(other.final_, {})) {}

WeightFileWriter::~WeightFileWriter() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Result<WeightFileWriter> WeightFileWriter::create(const fs::path& folder, const fs::path& path) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: no such folder and none can be made: {}", folder.string(), error.message())};
  }
  WeightFileWriter writer;
  std::string temporary = (folder / (path.empty() ? "weights" : path.filename().string())).string() + ".XXXXXX";
  writer.file_.file_ = mkostemp(temporary.data(), O_CLOEXEC);
  if (writer.file_.file_ < 0) return failed(folder, "a file for packed weights");
  writer.temporary_ = temporary;
  writer.final_ = path;
  writer.file_.path_ = temporary;
  if (path.empty()) {
    ROOFTREE_TRY_VOID(writer.file_.open_direct(temporary));
    // Open, it lives on without a name, however this process ends.
    unlink(temporary.c_str());
    writer.temporary_.clear();
  }
  return writer;
}

Status WeightFileWriter::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = pwrite(file_.file_, bytes.data(), std::min(bytes.size(), kReadPiece), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return failed(file_.path_, "writing packed weights");
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return Ok{};
}

Result<WeightFile> WeightFileWriter::finish(const WeightHeader& header) {
  ROOFTREE_TRY_VOID(write(0, encode(header)));
  if (ftruncate(file_.file_, static_cast<off_t>(header.file_bytes)) != 0) return failed(file_.path_, "writing packed weights");
  // On the disk before it has its name; and a direct read sees only what is there.
  if (fsync(file_.file_) != 0) return failed(file_.path_, "writing packed weights");
  file_.bytes_ = header.file_bytes;
  if (!final_.empty()) {
    if (fchmod(file_.file_, 0644) != 0 || rename(temporary_.c_str(), final_.c_str()) != 0) {
      return failed(final_, "naming the packed weights");
    }
    temporary_.clear();
    file_.path_ = final_;
    ROOFTREE_TRY_VOID(file_.open_direct(final_));
  }
  return std::move(file_);
}

fs::path default_cache_folder() {
  // The variables are read at the start of a load, before there are other threads of ours.
  const char* const cache = std::getenv("XDG_CACHE_HOME");  // NOLINT(concurrency-mt-unsafe)
  if (cache != nullptr && *cache == '/') return fs::path(cache) / "rooftree";
  const char* const home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
  if (home != nullptr && *home == '/') return fs::path(home) / ".cache" / "rooftree";
  std::error_code error;
  fs::path temporary = fs::temp_directory_path(error);
  return error ? fs::path("/tmp") : temporary;
}

// ---- streaming

struct WeightStream::State {
  const WeightFile& file;
  std::vector<Layer> layers;
  Arena ring;
  std::uint64_t buffer_bytes = 0, buffers = 0;

  mutable std::mutex mutex;
  std::condition_variable readable, writable;
  bool stop = false;
  std::uint64_t read = 0, acquired = 0, released = 0;  // layers since the start, or since the last failure
  std::optional<Error> failure;
  Error last_failure;
  std::uint64_t bytes = 0;
  double seconds = 0;
  std::thread reader;

  explicit State(const WeightFile& f) : file(f) {}
  [[nodiscard]] std::byte* buffer(std::uint64_t number) const { return ring.data() + number % buffers * buffer_bytes; }
  void read_ahead();
  Status read_layer(std::uint64_t number);
};

Status WeightStream::State::read_layer(std::uint64_t number) {
  const Layer& layer = layers[number % layers.size()];
  return file.read_direct(layer.offset, {buffer(number), layer.bytes});
}

void WeightStream::State::read_ahead() {
  using Clock = std::chrono::steady_clock;
  std::unique_lock lock(mutex);
  for (;;) {
    writable.wait(lock, [&] { return stop || (!failure.has_value() && read - released < buffers); });
    if (stop) return;
    const std::uint64_t number = read;
    lock.unlock();
    const Clock::time_point start = Clock::now();
    const Status status = read_layer(number);
    const double taken = std::chrono::duration<double>(Clock::now() - start).count();
    lock.lock();
    if (status) {
      seconds += taken;
      bytes += layers[number % layers.size()].bytes;
      ++read;
    } else {
      failure = status.error();
    }
    readable.notify_one();
  }
}

WeightStream::WeightStream(std::unique_ptr<State> state) : state_(std::move(state)) {}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->writable.notify_one();
  state_->reader.join();
}

Result<std::unique_ptr<WeightStream>> WeightStream::start(const WeightFile& file, std::vector<Layer> layers, int buffers) {
  ROOFTREE_CHECK(!layers.empty() && buffers >= 2, "a stream of no layers, or of one buffer");
  auto state = std::make_unique<State>(file);
  for (const Layer& layer : layers) state->buffer_bytes = std::max(state->buffer_bytes, page_up(layer.bytes));
  state->layers = std::move(layers);
  state->buffers = static_cast<std::uint64_t>(buffers);
  ROOFTREE_TRY(state->ring, Arena::make(state->buffer_bytes * state->buffers, true));
  State& s = *state;
  s.reader = std::thread([&s] { s.read_ahead(); });
  return std::unique_ptr<WeightStream>(new WeightStream(std::move(state)));
}

const std::byte* WeightStream::acquire(std::size_t index) {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  ROOFTREE_CHECK(s.acquired % s.layers.size() == index && s.acquired == s.released,
                 "layers are streamed in turn, one at a time");
  s.readable.wait(lock, [&] { return s.read > s.acquired || s.failure.has_value(); });
  if (s.read > s.acquired) return s.buffer(s.acquired++);
  // The reader waits: start again from the first layer.
  s.last_failure = *s.failure;
  s.failure.reset();
  s.read = s.acquired = s.released = 0;
  lock.unlock();
  s.writable.notify_one();
  return nullptr;
}

void WeightStream::release() {
  State& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    ROOFTREE_CHECK(s.released < s.acquired, "a layer released that was not acquired");
    ++s.released;
  }
  s.writable.notify_one();
}

const Error& WeightStream::error() const { return state_->last_failure; }

std::uint64_t WeightStream::buffer_bytes() const { return state_->ring.bytes(); }

std::pair<std::uint64_t, double> WeightStream::read_so_far() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->bytes, state_->seconds};
}

}  // namespace rooftree::engine

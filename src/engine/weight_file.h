#pragma once

// Packed weights in a file: what the next load maps instead of packing, and where layers come from that memory has no room for.
//
// Layout, in the byte order and the matrix layout of the machine that wrote it (both are part of the key):
//   0         "RTPACKED", then 64-bit words: version, page, bytes of the header, of the file, of the key; number of parts, of
//             vector values; hash of the header with this word zero
//   96        the key, padded to 8 bytes; parts of 40 bytes {hash of the type's name, n, k, bytes, offset}; vectors as f32
//   pages     groups of parts, each group from the start of a page, each part from a multiple of 64
// A header is accepted only if every word is the one that the model at hand leads to; nothing is allocated by what it says.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "engine/arena.h"

namespace rooftree::engine {

inline constexpr std::uint64_t kWeightFilePage = 4096;  // groups start at multiples of it: direct reads need that
[[nodiscard]] constexpr std::uint64_t page_up(std::uint64_t bytes) {
  return (bytes + kWeightFilePage - 1) / kWeightFilePage * kWeightFilePage;
}

// One matrix in the file.
struct StoredPart {
  DType type = DType::kF32;
  std::int64_t n = 0, k = 0;
  std::uint64_t bytes = 0, offset = 0;
};

struct WeightHeader {
  std::string key;  // all that the packed bytes depend on
  std::vector<StoredPart> parts;
  std::vector<float> vectors;
  std::uint64_t file_bytes = 0;

  // Of the header in the file, pages.
  [[nodiscard]] static std::uint64_t bytes(std::size_t key_bytes, std::size_t parts, std::size_t vectors);
};

// A file open for reading, possibly without a name any more.
class WeightFile {
 public:
  WeightFile() = default;
  WeightFile(WeightFile&& other) noexcept;
  WeightFile& operator=(WeightFile&& other) noexcept;
  WeightFile(const WeightFile&) = delete;
  WeightFile& operator=(const WeightFile&) = delete;
  ~WeightFile();

  // The file of this key, or an error that says in what it is another or damaged. `header` brings the key, and parts and
  // vectors of the right number; their contents come from the file. What the parts mean is for the caller to check, except
  // that each lies inside the file.
  static Result<WeightFile> open(const std::filesystem::path& path, WeightHeader& header);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Fills `out` from `offset`. kEnvironment: the error of the system, or the end of the file.
  Status read(std::uint64_t offset, std::span<std::byte> out) const;
  // The same past the system's cache where the file system can: offset, address and size are multiples of the page.
  Status read_direct(std::uint64_t offset, std::span<std::byte> out) const;
  // The whole file in memory, read-only, for the life of this object.
  Result<const std::byte*> map();

 private:
  friend class WeightFileWriter;
  Status open_direct(const std::filesystem::path& path);

  std::filesystem::path path_;
  int file_ = -1, direct_ = -1;
  void* mapping_ = nullptr;
  std::uint64_t bytes_ = 0;
};

// Writes under a temporary name. Without finish(), nothing is left.
class WeightFileWriter {
 public:
  // `path` empty: a file that nobody else sees, in `folder`, gone when it is closed.
  static Result<WeightFileWriter> create(const std::filesystem::path& folder, const std::filesystem::path& path);
  WeightFileWriter(WeightFileWriter&&) noexcept;
  WeightFileWriter& operator=(WeightFileWriter&&) = delete;
  WeightFileWriter(const WeightFileWriter&) = delete;
  WeightFileWriter& operator=(const WeightFileWriter&) = delete;
  ~WeightFileWriter();

  Status write(std::uint64_t offset, std::span<const std::byte> bytes);
  // Header, size, name.
  Result<WeightFile> finish(const WeightHeader& header);

 private:
  WeightFileWriter() = default;
  WeightFile file_;
  std::filesystem::path temporary_, final_;
};

// $XDG_CACHE_HOME/rooftree, else ~/.cache/rooftree, else a folder for temporary files.
[[nodiscard]] std::filesystem::path default_cache_folder();

// Reads layers in turn, for ever, ahead of their use: a thread fills a ring of buffers.
class WeightStream {
 public:
  struct Layer {
    std::uint64_t offset = 0, bytes = 0;  // pages of the file
  };
  // `file` outlives the stream. At least one layer; 2 buffers or more, each for the largest layer.
  static Result<std::unique_ptr<WeightStream>> start(const WeightFile& file, std::vector<Layer> layers, int buffers);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // One thread: waits for layer `index`, which must be the one behind the last (the first behind the last layer). The bytes
  // stay until release(). Null: reading failed; error() says why, and the next layer asked for must be the first: it is tried
  // again.
  const std::byte* acquire(std::size_t index);
  void release();
  [[nodiscard]] const Error& error() const;

  [[nodiscard]] std::uint64_t buffer_bytes() const;
  // Since the start: bytes read, and the seconds that the reader was at it.
  [[nodiscard]] std::pair<std::uint64_t, double> read_so_far() const;

 private:
  struct State;
  explicit WeightStream(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rooftree::engine

#pragma once

// Writes GGUF version 3. Metadata and tensors are declared first, then the tensors' bytes come in that order, in pieces of any
// size, so that memory does not grow with the file. The file has a temporary name beside the target until finish() has written
// everything to the disk; a writer that goes before leaves nothing behind.
//
//   GgufWriter writer;
//   writer.set("general.architecture", "llama");
//   ROOFTREE_TRY_VOID(writer.declare("output_norm.weight", DType::kF32, {2048}));
//   ROOFTREE_TRY_VOID(writer.open(path));
//   ROOFTREE_TRY_VOID(writer.append(bytes));
//   ROOFTREE_TRY_VOID(writer.finish());

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "formats/gguf.h"

namespace rooftree::formats {

// Written as the GGUF type of the same name; vectors are arrays.
using GgufScalar = std::variant<std::uint32_t, std::int32_t, std::uint64_t, std::int64_t, float, double, bool, std::string,
                                std::vector<std::int32_t>, std::vector<float>, std::vector<std::string>>;

class GgufWriter {
 public:
  GgufWriter() = default;
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // Replaces an entry of the same key, else adds one at the end. The alignment is always the usual 32: "general.alignment" may
  // not be set, and is left out of a copy.
  void set(std::string_view key, const GgufScalar& value);
  // All entries of `file` as they are, but for those that tell how it was split.
  void copy_metadata(const GgufFile& file);
  // kInvalid: a type that GGUF does not have, more than four extents, an extent below 1, rows that are not whole blocks, a name
  // twice.
  Status declare(std::string_view name, DType type, const std::vector<std::int64_t>& extents);
  // Bytes of the whole file; known once everything is declared.
  [[nodiscard]] std::uint64_t file_bytes() const;

  // Starts the file. kEnvironment: not writable, or the disk has less free space than the file needs.
  Status open(const std::filesystem::path& path);
  // The next bytes of the tensors, in the order of their declaration; padding between tensors is the writer's.
  Status append(std::span<const std::byte> bytes);
  // All bytes must have come. Replaces the file at `path`.
  Status finish();

 private:
  struct Entry {
    std::string key;
    std::string raw;  // key, type and value as in the file
  };
  struct Tensor {
    std::string name;
    std::uint32_t type = 0;
    std::vector<std::int64_t> extents;
    std::uint64_t offset = 0, bytes = 0;
  };
  void put(Entry entry);
  [[nodiscard]] std::string header() const;
  Status write(std::string_view bytes);
  Status flush();
  Error failed(std::string_view what);
  void discard();

  std::vector<Entry> metadata_;
  std::vector<Tensor> tensors_;
  std::uint64_t data_bytes_ = 0;

  std::filesystem::path path_;
  std::string temporary_;  // empty: nothing on the disk
  int file_ = -1;
  std::string buffer_;
  std::size_t tensor_ = 0;     // the next byte belongs to this one
  std::uint64_t written_ = 0;  // of it
};

}  // namespace rooftree::formats

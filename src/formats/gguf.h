#pragma once

// GGUF versions 2 and 3 (github.com/ggml-org/ggml, docs/gguf.md): typed metadata and tensors, read from a mapping without
// copying. The file is not trusted: every count, length and offset is bounded by the file's size before it is used, names are
// unique, tensors lie inside the data section and do not overlap. Errors name the file, the offset, what was found and what
// was expected.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "formats/block_codec.h"
#include "formats/mapped_file.h"
#include "formats/tensor_source.h"

namespace rooftree::formats {

// Tensor types of GGUF by number (ggml.h): the record, and the type that Rooftree knows it as.
struct GgufType {
  std::uint32_t id = 0;
  std::string_view name;       // "Q4_K"
  BlockForm form;              // values and bytes of one record
  DType type = DType::kCount;  // kCount: Rooftree has no such type, the tensor can only be listed
};
[[nodiscard]] const GgufType* gguf_type(std::uint32_t id);  // null: unknown
[[nodiscard]] const GgufType* gguf_type(DType type);        // null: GGUF has no such type

// Views into the mapping. Numbers of any stored width are widened.
struct GgufArray {
  enum class Kind : std::uint8_t { kUnsigned, kSigned, kFloat, kBool, kString };
  Kind kind = Kind::kUnsigned;
  std::vector<std::string_view> strings;  // kString
  std::vector<double> numbers;            // the other kinds; integers beyond 2^53 and arrays in arrays are refused
};
using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

class GgufFile final : public TensorSource {
 public:
  // One file, or the first of a split set ("…-00001-of-00003.gguf"), whose other parts are found beside it.
  static Result<GgufFile> open(const std::filesystem::path& path);
  // For tests and fuzzing: the bytes must outlive the object.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string_view where);

  [[nodiscard]] std::string_view where() const { return where_; }
  [[nodiscard]] std::uint32_t version() const { return version_; }
  [[nodiscard]] const GgufValue* metadata(std::string_view key) const;  // null: absent
  [[nodiscard]] const std::vector<std::pair<std::string_view, GgufValue>>& all_metadata() const { return metadata_; }
  // The entries as they are in the file, key, type and value, in the order of all_metadata().
  [[nodiscard]] const std::vector<std::span<const std::byte>>& raw_metadata() const { return raw_metadata_; }
  // Typed access; absent keys give nullopt (or the error of the Result form), a wrong type is an error naming the key.
  Result<std::int64_t> integer(std::string_view key) const;
  Result<std::int64_t> integer_or(std::string_view key, std::int64_t fallback) const;
  Result<double> number_or(std::string_view key, double fallback) const;
  Result<bool> flag_or(std::string_view key, bool fallback) const;
  Result<std::string_view> text(std::string_view key) const;
  Result<std::string_view> text_or(std::string_view key, std::string_view fallback) const;
  Result<const GgufArray*> array(std::string_view key) const;  // null when absent

  [[nodiscard]] std::vector<std::string_view> names() const override;
  [[nodiscard]] bool contains(std::string_view name) const override;
  Result<TensorView> find(std::string_view name) override;
  void release(std::string_view name) override;
  [[nodiscard]] std::uint64_t total_bytes() const override;
  // All tensors in file order. `type` is kCount where the stored type is one that Rooftree does not know; `find` refuses those.
  [[nodiscard]] const std::vector<TensorView>& tensors() const { return tensors_; }
  [[nodiscard]] const GgufType& stored_type(std::size_t tensor) const { return *stored_types_[tensor]; }
  // Largest of the alignments of the parts.
  [[nodiscard]] std::uint64_t alignment() const { return alignment_; }

 private:
  Status parse_part(std::span<const std::byte> bytes, const std::string& where, bool first);
  Status index(const std::string& where);
  [[nodiscard]] const TensorView* tensor(std::string_view name) const;
  [[nodiscard]] Error wrong_type(std::string_view key, const GgufValue& value, std::string_view expected) const;

  std::string where_;
  std::uint32_t version_ = 0;
  std::vector<MappedFile> files_;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::vector<std::span<const std::byte>> raw_metadata_;
  std::uint64_t alignment_ = 32;
  std::vector<TensorView> tensors_;            // in file order
  std::vector<const GgufType*> stored_types_;  // of tensors_
  std::vector<std::uint32_t> by_name_;         // indices of tensors_, sorted by name
  std::vector<std::uint32_t> keys_sorted_;     // indices of metadata_, sorted by key
};

}  // namespace rooftree::formats

#pragma once

// safetensors (github.com/huggingface/safetensors): one file, a sharded set with "model.safetensors.index.json", or a folder
// holding either. Bounded and checked like GGUF; tensors may start at any byte. F64, F32, F16, BF16, I32, I8 and the two FP8
// types become DTypes; others (U8, I64, BOOL, ...) can be listed and are refused by `find`.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/mapped_file.h"
#include "formats/tensor_source.h"

namespace rooftree::formats {

class SafetensorsFiles final : public TensorSource {
 public:
  static Result<SafetensorsFiles> open(const std::filesystem::path& file_or_folder);
  static Result<SafetensorsFiles> parse(std::span<const std::byte> bytes, std::string_view where);

  [[nodiscard]] std::vector<std::string_view> names() const override;
  [[nodiscard]] bool contains(std::string_view name) const override;
  Result<TensorView> find(std::string_view name) override;
  void release(std::string_view name) override;
  [[nodiscard]] std::uint64_t total_bytes() const override;

 private:
  struct Tensor {
    std::string name;
    std::string stored_type;  // as the file says: "F8_E4M3"
    TensorView view;          // its name is set by find(); type kCount: a stored type that Rooftree does not know
    std::uint32_t file = 0;
  };
  Status parse_file(std::span<const std::byte> bytes, const std::string& where, std::uint32_t file);
  Status index();
  [[nodiscard]] const Tensor* tensor(std::string_view name) const;

  std::string where_;
  std::vector<MappedFile> files_;
  std::vector<Tensor> tensors_;  // sorted by name
};

}  // namespace rooftree::formats

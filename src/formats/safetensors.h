#pragma once

// safetensors (github.com/huggingface/safetensors): one file, a sharded set with "model.safetensors.index.json", or a folder
// holding either. Bounded and checked like GGUF; tensors may start at any byte.

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
    TensorView view;
    std::uint32_t file = 0;
  };
  std::vector<MappedFile> files_;
  std::vector<Tensor> tensors_;  // sorted by name
};

}  // namespace rooftree::formats

// Any bytes as a GGUF file: refused, or every entry can be looked up, and every tensor lies inside the file and can be read.

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "formats/block_codec.h"
#include "formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree;
  // An exact copy, so that the sanitizers see every byte that is read beyond it.
  const std::vector<std::uint8_t> copy(data, data + size);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(copy));
  auto file = formats::GgufFile::parse(bytes, "fuzz.gguf");
  if (!file) {
    ROOFTREE_CHECK(file.error().message.starts_with("fuzz.gguf"), "an error names the file");
    return 0;
  }
  for (const auto& [key, value] : file->all_metadata()) {
    ROOFTREE_CHECK(file->metadata(key) == &value, "every key is found");
    (void)file->integer(key);
    (void)file->number_or(key, 0);
    (void)file->flag_or(key, false);
    (void)file->text(key);
    (void)file->array(key);
  }
  std::uint64_t total = 0;
  for (const std::string_view name : file->names()) {
    const auto tensor = file->find(name);
    if (!tensor) continue;  // a type that is not read
    total += tensor->bytes.size();
    ROOFTREE_CHECK(tensor->bytes.data() >= bytes.data() && tensor->bytes.data() + tensor->bytes.size() <= bytes.data() + size,
                   "a tensor lies inside the file");
    const std::size_t row = formats::row_bytes(tensor->type, tensor->k());
    ROOFTREE_CHECK(row * static_cast<std::size_t>(tensor->rows()) == tensor->bytes.size(), "a tensor is whole rows");
    if (!formats::can_dequantize(tensor->type)) continue;
    std::vector<float> values(static_cast<std::size_t>(tensor->k()));
    formats::dequantize_row(tensor->type, tensor->bytes.first(row), values);
    if (formats::can_quantize(tensor->type)) {
      std::vector<std::byte> again(row);
      formats::quantize_row(tensor->type, values, again);
    }
    file->release(name);
  }
  ROOFTREE_CHECK(total <= file->total_bytes() && file->total_bytes() <= size, "the tensors fit into the file");
  ROOFTREE_CHECK(!file->find("no such tensor\x01"), "an absent tensor is not found");
  return 0;
}

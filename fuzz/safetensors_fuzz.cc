// Any bytes as a safetensors file: refused, or every tensor lies inside the file and has the size of its shape.

#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "formats/block_codec.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree;
  const std::vector<std::uint8_t> copy(data, data + size);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(copy));
  auto files = formats::SafetensorsFiles::parse(bytes, "fuzz.safetensors");
  if (!files) {
    ROOFTREE_CHECK(files.error().message.find("fuzz.safetensors") != std::string::npos, "an error names the file");
    return 0;
  }
  for (const std::string_view name : files->names()) {
    ROOFTREE_CHECK(files->contains(name), "every name is found");
    const auto tensor = files->find(name);
    if (!tensor) continue;  // a type that is not read
    ROOFTREE_CHECK(tensor->name == name, "a tensor knows its name");
    ROOFTREE_CHECK(tensor->bytes.empty() || (tensor->bytes.data() >= bytes.data() &&
                                             tensor->bytes.data() + tensor->bytes.size() <= bytes.data() + size),
                   "a tensor lies inside the file");
    if (tensor->bytes.empty()) continue;
    const std::size_t row = formats::row_bytes(tensor->type, tensor->k());
    ROOFTREE_CHECK(row * static_cast<std::size_t>(tensor->rows()) == tensor->bytes.size(), "a tensor is whole rows");
    if (!formats::can_dequantize(tensor->type)) continue;
    std::vector<float> values(static_cast<std::size_t>(tensor->k()));
    formats::dequantize_row(tensor->type, tensor->bytes.first(row), values);
    files->release(name);
  }
  ROOFTREE_CHECK(files->total_bytes() <= size, "the tensors fit into the file");
  return 0;
}

#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "base/json.h"

namespace rooftree::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are read as they lie in memory");

// github.com/huggingface/safetensors, safetensors/src/tensor.rs: the names of types and their bits.
struct StoredType {
  std::string_view name;
  int bits;
  DType type;
};
constexpr std::array kTypes = {
    StoredType{"F64", 64, DType::kF64},        StoredType{"F32", 32, DType::kF32},
    StoredType{"F16", 16, DType::kF16},        StoredType{"BF16", 16, DType::kBf16},
    StoredType{"I32", 32, DType::kInt32},      StoredType{"I8", 8, DType::kInt8},
    StoredType{"F8_E4M3", 8, DType::kFp8E4m3}, StoredType{"F8_E5M2", 8, DType::kFp8E5m2},
    StoredType{"U8", 8, DType::kCount},        StoredType{"BOOL", 8, DType::kCount},
    StoredType{"I16", 16, DType::kCount},      StoredType{"U16", 16, DType::kCount},
    StoredType{"U32", 32, DType::kCount},      StoredType{"I64", 64, DType::kCount},
    StoredType{"U64", 64, DType::kCount},      StoredType{"F8_E8M0", 8, DType::kCount},
    StoredType{"F4", 4, DType::kCount},        StoredType{"F6_E2M3", 6, DType::kCount},
    StoredType{"F6_E3M2", 6, DType::kCount},   StoredType{"C64", 64, DType::kCount},
};

constexpr std::uint64_t kLargestHeader = 100'000'000;  // the limit of the reference reader
constexpr std::size_t kMostDimensions = 8;
constexpr std::uint64_t kMostValues = std::uint64_t{1} << 48;
constexpr std::string_view kIndexName = "model.safetensors.index.json", kSingleName = "model.safetensors";

Error malformed(const std::string& where, std::string_view name, std::string_view what) {
  return Error{ErrorCode::kParse, fmt::format("{}: tensor '{}': {}", where, printable(name), what)};
}

// [begin, end) of a list of two.
Result<std::pair<std::uint64_t, std::uint64_t>> read_offsets(const Json& entry, const std::string& where,
                                                             const std::string& name) {
  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
      !(*offsets)[1].is_number_unsigned()) {
    return malformed(where, name, "expected \"data_offsets\" with two numbers");
  }
  return std::pair((*offsets)[0].get<std::uint64_t>(), (*offsets)[1].get<std::uint64_t>());
}

// Extents, and their product.
Result<std::uint64_t> read_shape(const Json& entry, const std::string& where, const std::string& name,
                                 std::vector<std::int64_t>& extents) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMostDimensions) {
    return malformed(where, name, fmt::format("expected \"shape\" with at most {} extents", kMostDimensions));
  }
  std::uint64_t values = 1;
  for (const Json& extent : *shape) {
    if (!extent.is_number_unsigned()) return malformed(where, name, "an extent is not a whole number");
    const auto n = extent.get<std::uint64_t>();
    if (n > kMostValues || (n != 0 && values > kMostValues / n)) {
      return malformed(where, name, "more than 2^48 values");
    }
    values *= n;
    extents.push_back(static_cast<std::int64_t>(n));
  }
  return values;
}

// File names of an index, sorted and each once.
Result<std::set<std::string>> read_index(const std::filesystem::path& path,
                                         std::vector<std::pair<std::string, std::string>>& map) {
  const std::string where = path.string();
  ROOFTREE_TRY(const std::string text, read_file(path));
  ROOFTREE_TRY(const Json json, parse_json(text, where));
  const auto weights = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || weights == json.end() || !weights->is_object() || weights->empty()) {
    return Error{ErrorCode::kParse, where + ": expected an object \"weight_map\" with the file of every tensor"};
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : weights->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : std::string();
    if (name.empty() || name == ".." || name.find('/') != std::string::npos || name.find('\0') != std::string::npos) {
      return Error{ErrorCode::kParse,
                   fmt::format("{}: the file of tensor '{}' is {}; expected the name of a file beside the index", where,
                               printable(tensor), printable(file.dump()))};
    }
    files.insert(name);
    map.emplace_back(tensor, name);
  }
  return files;
}

}  // namespace

Status SafetensorsFiles::parse_file(std::span<const std::byte> bytes, const std::string& where, std::uint32_t file) {
  const auto fail = [&](std::string_view what) { return Error{ErrorCode::kParse, fmt::format("{}: {}", where, what)}; };
  if (bytes.size() < 8) return fail(fmt::format("{} bytes; expected at least the 8 of the header's length", bytes.size()));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > bytes.size() - 8) {
    return fail(fmt::format("a header of {} bytes; the file has {} after its length (is it a safetensors file?)", length,
                            bytes.size() - 8));
  }
  if (length > kLargestHeader) return fail(fmt::format("a header of {} bytes; expected at most {}", length, kLargestHeader));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length));
  ROOFTREE_TRY(const Json header, parse_json(text, where, {.max_bytes = kLargestHeader, .max_depth = 8}));
  if (!header.is_object()) return fail("the header is not an object");
  const std::span<const std::byte> data = bytes.subspan(8 + static_cast<std::size_t>(length));

  struct Extent {
    std::uint64_t begin, end;
    std::size_t tensor;
  };
  std::vector<Extent> taken;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    if (!entry.is_object()) return malformed(where, name, "expected an object");
    Tensor tensor;
    tensor.name = name;
    tensor.file = file;
    tensor.view.type = DType::kCount;
    const auto dtype = entry.find("dtype");
    if (dtype == entry.end() || !dtype->is_string()) return malformed(where, name, "expected a string \"dtype\"");
    tensor.stored_type = dtype->get<std::string>();
    ROOFTREE_TRY(const std::uint64_t values, read_shape(entry, where, name, tensor.view.extents));
    ROOFTREE_TRY(const auto offsets, read_offsets(entry, where, name));
    const auto [begin, end] = offsets;
    if (begin > end || end > data.size()) {
      return malformed(where, name, fmt::format("bytes {} to {}; the file has {} of data", begin, end, data.size()));
    }
    const auto known =
        std::find_if(kTypes.begin(), kTypes.end(), [&](const StoredType& t) { return t.name == tensor.stored_type; });
    if (known != kTypes.end()) {
      const std::uint64_t bits = values * static_cast<std::uint64_t>(known->bits);
      if (bits % 8 != 0 || bits / 8 != end - begin) {
        return malformed(where, name, fmt::format("{} values of {} in {} bytes", values, tensor.stored_type, end - begin));
      }
      tensor.view.type = known->type;
    }
    tensor.view.bytes = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    if (begin != end) taken.push_back({begin, end, tensors_.size()});
    tensors_.push_back(std::move(tensor));
  }
  std::sort(taken.begin(), taken.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (std::size_t i = 1; i < taken.size(); ++i) {
    if (taken[i].begin < taken[i - 1].end) {
      return fail(fmt::format("tensors '{}' and '{}' overlap at byte {} of the data",
                              printable(tensors_[taken[i - 1].tensor].name), printable(tensors_[taken[i].tensor].name),
                              taken[i].begin));
    }
  }
  return Ok{};
}

Status SafetensorsFiles::index() {
  std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) { return a.name == b.name; });
  if (twice != tensors_.end()) {
    return Error{ErrorCode::kParse, fmt::format("{}: tensor '{}' is in two files", where_, printable(twice->name))};
  }
  return Ok{};
}

Result<SafetensorsFiles> SafetensorsFiles::parse(std::span<const std::byte> bytes, std::string_view where) {
  SafetensorsFiles files;
  files.where_ = where;
  ROOFTREE_TRY_VOID(files.parse_file(bytes, files.where_, 0));
  ROOFTREE_TRY_VOID(files.index());
  return files;
}

Result<SafetensorsFiles> SafetensorsFiles::open(const std::filesystem::path& file_or_folder) {
  SafetensorsFiles files;
  files.where_ = file_or_folder.string();
  std::filesystem::path path = file_or_folder;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const bool sharded = std::filesystem::exists(path / kIndexName, ignored);
    if (!sharded && !std::filesystem::exists(path / kSingleName, ignored)) {
      return Error{ErrorCode::kEnvironment,
                   fmt::format("{}: no weights; expected {} or {} in this folder", files.where_, kSingleName, kIndexName)};
    }
    path /= sharded ? kIndexName : kSingleName;
  }
  std::vector<std::pair<std::string, std::string>> map;
  std::set<std::string> names;
  if (path.extension() == ".json") {
    ROOFTREE_TRY(names, read_index(path, map));
  } else {
    names.insert(path.filename().string());
  }
  for (const std::string& name : names) {
    const std::filesystem::path part = path.parent_path() / name;
    ROOFTREE_TRY(auto mapped, MappedFile::open(part));
    files.files_.push_back(std::move(mapped));
    const auto number = static_cast<std::uint32_t>(files.files_.size() - 1);
    ROOFTREE_TRY_VOID(files.parse_file(files.files_.back().bytes(), part.string(), number));
  }
  ROOFTREE_TRY_VOID(files.index());
  for (const auto& [tensor, file] : map) {
    const Tensor* found = files.tensor(tensor);
    if (found == nullptr || files.files_[found->file].path().filename() != file) {
      return Error{ErrorCode::kParse, fmt::format("{}: tensor '{}' is not in '{}', where the index says it is", path.string(),
                                                  printable(tensor), file)};
    }
  }
  return files;
}

const SafetensorsFiles::Tensor* SafetensorsFiles::tensor(std::string_view name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const Tensor& t, std::string_view wanted) { return t.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

std::vector<std::string_view> SafetensorsFiles::names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const Tensor& t : tensors_) names.push_back(t.name);
  return names;
}

bool SafetensorsFiles::contains(std::string_view name) const { return tensor(name) != nullptr; }

Result<TensorView> SafetensorsFiles::find(std::string_view name) {
  const Tensor* found = tensor(name);
  if (found == nullptr) return unknown_tensor(where_, name, names());
  if (found->view.type == DType::kCount) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: tensor '{}' is stored as {}, which Rooftree does not read", where_,
                                                  printable(name), printable(found->stored_type))};
  }
  TensorView view = found->view;
  view.name = found->name;
  return view;
}

void SafetensorsFiles::release(std::string_view name) {
  const Tensor* found = tensor(name);
  if (found != nullptr && found->file < files_.size()) files_[found->file].done_with(found->view.bytes);
}

std::uint64_t SafetensorsFiles::total_bytes() const {
  std::uint64_t total = 0;
  for (const Tensor& t : tensors_) total += t.view.bytes.size();
  return total;
}

}  // namespace rooftree::formats

#include "formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

namespace rooftree::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

// ggml.h (types), ggml-common.h (records): github.com/ggml-org/llama.cpp.
constexpr std::array kTypes = {
    GgufType{0, "F32", {1, 4}, DType::kF32},           GgufType{1, "F16", {1, 2}, DType::kF16},
    GgufType{2, "Q4_0", {32, 18}, DType::kQ4_0},       GgufType{3, "Q4_1", {32, 20}, DType::kQ4_1},
    GgufType{6, "Q5_0", {32, 22}, DType::kQ5_0},       GgufType{7, "Q5_1", {32, 24}, DType::kQ5_1},
    GgufType{8, "Q8_0", {32, 34}, DType::kQ8_0},       GgufType{9, "Q8_1", {32, 36}, DType::kCount},
    GgufType{10, "Q2_K", {256, 84}, DType::kQ2K},      GgufType{11, "Q3_K", {256, 110}, DType::kQ3K},
    GgufType{12, "Q4_K", {256, 144}, DType::kQ4K},     GgufType{13, "Q5_K", {256, 176}, DType::kQ5K},
    GgufType{14, "Q6_K", {256, 210}, DType::kQ6K},     GgufType{15, "Q8_K", {256, 292}, DType::kCount},
    GgufType{16, "IQ2_XXS", {256, 66}, DType::kCount}, GgufType{17, "IQ2_XS", {256, 74}, DType::kCount},
    GgufType{18, "IQ3_XXS", {256, 98}, DType::kCount}, GgufType{19, "IQ1_S", {256, 50}, DType::kCount},
    GgufType{20, "IQ4_NL", {32, 18}, DType::kIq4Nl},   GgufType{21, "IQ3_S", {256, 110}, DType::kCount},
    GgufType{22, "IQ2_S", {256, 82}, DType::kCount},   GgufType{23, "IQ4_XS", {256, 136}, DType::kIq4Xs},
    GgufType{24, "I8", {1, 1}, DType::kInt8},          GgufType{25, "I16", {1, 2}, DType::kCount},
    GgufType{26, "I32", {1, 4}, DType::kInt32},        GgufType{27, "I64", {1, 8}, DType::kCount},
    GgufType{28, "F64", {1, 8}, DType::kF64},          GgufType{29, "IQ1_M", {256, 56}, DType::kCount},
    GgufType{30, "BF16", {1, 2}, DType::kBf16},        GgufType{34, "TQ1_0", {256, 54}, DType::kTq1_0},
    GgufType{35, "TQ2_0", {256, 66}, DType::kTq2_0},   GgufType{39, "MXFP4", {32, 17}, DType::kMxfp4},
    GgufType{40, "NVFP4", {64, 36}, DType::kCount},
};

// Metadata value types (docs/gguf.md).
enum ValueType : std::uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
constexpr std::uint32_t kValueTypes = 13;
constexpr std::array<std::size_t, kValueTypes> kValueBytes = {1, 1, 2,  2, 4, 4, 4,
                                                              1, 8, 12, 8, 8, 8};  // the least, for the last two

constexpr std::uint64_t kLongestArray = std::uint64_t{1} << 24;  // vocabularies and merges stay below 2^20
constexpr std::uint64_t kLargestAlignment = std::uint64_t{1} << 20;
constexpr std::uint32_t kMostDimensions = 4;
constexpr std::int64_t kMostParts = 9999;

class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  [[nodiscard]] std::size_t offset() const { return offset_; }
  [[nodiscard]] std::size_t left() const { return bytes_.size() - offset_; }

  [[nodiscard]] Error error(std::string_view what) const {
    return Error{ErrorCode::kParse, fmt::format("{}: offset {}: {}", where_, offset_, what)};
  }
  [[nodiscard]] Error ends(std::string_view what, std::uint64_t needed) const {
    return error(fmt::format("{} needs {} bytes, the file has {} left", what, needed, left()));
  }

  template <class T>
  Result<T> number(std::string_view what) {
    if (left() < sizeof(T)) return ends(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  Result<std::string_view> text(std::string_view what) {
    ROOFTREE_TRY(const auto length, number<std::uint64_t>(what));
    if (length > left()) return ends(what, length);
    const std::string_view view(reinterpret_cast<const char*>(bytes_.data()) + offset_, static_cast<std::size_t>(length));
    offset_ += view.size();
    return view;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t offset_ = 0;
  const std::string& where_;
};

template <class T>
Status read_numbers(Cursor& cursor, std::uint64_t count, GgufArray& array) {
  array.numbers.reserve(static_cast<std::size_t>(count));
  for (std::uint64_t i = 0; i < count; ++i) {
    ROOFTREE_TRY(const auto value, cursor.number<T>("an array element"));
    if constexpr (sizeof(T) == 8 && std::is_integral_v<T>) {
      constexpr T kExact = T{1} << 53;
      bool fits = value <= kExact;
      if constexpr (std::is_signed_v<T>) fits = fits && value >= -kExact;
      if (!fits) return cursor.error(fmt::format("array element {} is beyond 2^53", value));
    }
    array.numbers.push_back(static_cast<double>(value));
  }
  return Ok{};
}

Result<GgufArray> read_array(Cursor& cursor) {
  ROOFTREE_TRY(const auto type, cursor.number<std::uint32_t>("the type of an array"));
  if (type >= kValueTypes)
    return cursor.error(fmt::format("array elements of type {}; expected 0 to {}", type, kValueTypes - 1));
  if (type == kArray) return cursor.error("an array of arrays; expected an array of numbers, flags or strings");
  ROOFTREE_TRY(const auto count, cursor.number<std::uint64_t>("the length of an array"));
  if (count > cursor.left() / kValueBytes[type]) {
    return cursor.error(fmt::format("an array of {} elements of at least {} bytes; the file has {} bytes left", count,
                                    kValueBytes[type], cursor.left()));
  }
  if (count > kLongestArray) return cursor.error(fmt::format("an array of {} elements; at most {}", count, kLongestArray));
  GgufArray array;
  Status status = Ok{};
  switch (type) {
    case kUint8:
      status = read_numbers<std::uint8_t>(cursor, count, array);
      break;
    case kUint16:
      status = read_numbers<std::uint16_t>(cursor, count, array);
      break;
    case kUint32:
      status = read_numbers<std::uint32_t>(cursor, count, array);
      break;
    case kUint64:
      status = read_numbers<std::uint64_t>(cursor, count, array);
      break;
    case kInt8:
      status = read_numbers<std::int8_t>(cursor, count, array);
      break;
    case kInt16:
      status = read_numbers<std::int16_t>(cursor, count, array);
      break;
    case kInt32:
      status = read_numbers<std::int32_t>(cursor, count, array);
      break;
    case kInt64:
      status = read_numbers<std::int64_t>(cursor, count, array);
      break;
    case kFloat32:
      status = read_numbers<float>(cursor, count, array);
      break;
    case kFloat64:
      status = read_numbers<double>(cursor, count, array);
      break;
    case kBool:
      status = read_numbers<std::uint8_t>(cursor, count, array);
      break;
    default:
      array.strings.reserve(static_cast<std::size_t>(count));
      for (std::uint64_t i = 0; i < count; ++i) {
        ROOFTREE_TRY(const auto text, cursor.text("a string of an array"));
        array.strings.push_back(text);
      }
      break;
  }
  if (!status) return status.error();
  switch (type) {
    case kString:
      array.kind = GgufArray::Kind::kString;
      break;
    case kFloat32:
    case kFloat64:
      array.kind = GgufArray::Kind::kFloat;
      break;
    case kInt8:
    case kInt16:
    case kInt32:
    case kInt64:
      array.kind = GgufArray::Kind::kSigned;
      break;
    case kBool:
      array.kind = GgufArray::Kind::kBool;
      for (const double value : array.numbers) {
        if (value > 1) return cursor.error(fmt::format("a flag of value {} in an array; expected 0 or 1", value));
      }
      break;
    default:
      array.kind = GgufArray::Kind::kUnsigned;
      break;
  }
  return array;
}

template <class T, class Wide>
Result<GgufValue> read_scalar(Cursor& cursor) {
  ROOFTREE_TRY(const auto value, cursor.number<T>("a metadata value"));
  return GgufValue{static_cast<Wide>(value)};
}

Result<GgufValue> read_value(Cursor& cursor) {
  ROOFTREE_TRY(const auto type, cursor.number<std::uint32_t>("the type of a metadata value"));
  switch (type) {
    case kUint8:
      return read_scalar<std::uint8_t, std::uint64_t>(cursor);
    case kUint16:
      return read_scalar<std::uint16_t, std::uint64_t>(cursor);
    case kUint32:
      return read_scalar<std::uint32_t, std::uint64_t>(cursor);
    case kUint64:
      return read_scalar<std::uint64_t, std::uint64_t>(cursor);
    case kInt8:
      return read_scalar<std::int8_t, std::int64_t>(cursor);
    case kInt16:
      return read_scalar<std::int16_t, std::int64_t>(cursor);
    case kInt32:
      return read_scalar<std::int32_t, std::int64_t>(cursor);
    case kInt64:
      return read_scalar<std::int64_t, std::int64_t>(cursor);
    case kFloat32:
      return read_scalar<float, double>(cursor);
    case kFloat64:
      return read_scalar<double, double>(cursor);
    case kBool: {
      ROOFTREE_TRY(const auto value, cursor.number<std::uint8_t>("a flag"));
      if (value > 1) return cursor.error(fmt::format("a flag of value {}; expected 0 or 1", value));
      return GgufValue{value == 1};
    }
    case kString: {
      ROOFTREE_TRY(const auto value, cursor.text("a string"));
      return GgufValue{value};
    }
    case kArray: {
      ROOFTREE_TRY(auto value, read_array(cursor));
      return GgufValue{std::move(value)};
    }
    default:
      return cursor.error(fmt::format("metadata of type {}; expected 0 to {}", type, kValueTypes - 1));
  }
}

std::string_view kind_of(const GgufValue& value) {
  constexpr std::array<std::string_view, 6> kNames = {"an integer", "an integer", "a number", "a flag", "a string", "an array"};
  return kNames[value.index()];
}

// What the head of a tensor's entry says.
struct TensorEntry {
  TensorView view;
  const GgufType* type = nullptr;
  std::uint64_t offset = 0, bytes = 0;
};

Result<TensorEntry> read_tensor_entry(Cursor& cursor) {
  TensorEntry entry;
  ROOFTREE_TRY(entry.view.name, cursor.text("the name of a tensor"));
  const std::string shown = printable(entry.view.name);
  if (entry.view.name.empty()) return cursor.error("a tensor without a name");
  ROOFTREE_TRY(const auto dimensions, cursor.number<std::uint32_t>("the dimensions of a tensor"));
  if (dimensions > kMostDimensions) {
    return cursor.error(fmt::format("tensor '{}' has {} dimensions; expected at most {}", shown, dimensions, kMostDimensions));
  }
  std::array<std::uint64_t, kMostDimensions> fastest_first{};
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    ROOFTREE_TRY(fastest_first[i], cursor.number<std::uint64_t>("an extent of a tensor"));
  }
  ROOFTREE_TRY(const auto id, cursor.number<std::uint32_t>("the type of a tensor"));
  ROOFTREE_TRY(entry.offset, cursor.number<std::uint64_t>("the offset of a tensor"));
  entry.type = gguf_type(id);
  if (entry.type == nullptr) return cursor.error(fmt::format("tensor '{}' has type {}, which is unknown", shown, id));
  entry.view.type = entry.type->type;

  constexpr std::uint64_t kMostValues = std::uint64_t{1} << 48;
  std::uint64_t values = 1;
  for (std::uint32_t i = dimensions; i-- > 0;) {
    const std::uint64_t extent = fastest_first[i];
    if (extent == 0 || extent > kMostValues / values) {
      return cursor.error(
          fmt::format("tensor '{}' has extent {} in dimension {}; expected 1 to 2^48 values in all", shown, extent, i));
    }
    values *= extent;
    entry.view.extents.push_back(static_cast<std::int64_t>(extent));
  }
  const auto block = static_cast<std::uint64_t>(entry.type->form.values);
  if (static_cast<std::uint64_t>(entry.view.k()) % block != 0) {
    return cursor.error(fmt::format("tensor '{}' has rows of {} values; {} stores {} together", shown, entry.view.k(),
                                    entry.type->name, block));
  }
  entry.bytes = values / block * static_cast<std::uint64_t>(entry.type->form.bytes);
  return entry;
}

// "model-00001-of-00003.gguf" with another number.
std::filesystem::path part_path(const std::filesystem::path& first, std::int64_t part, std::int64_t count) {
  const std::string name = first.filename().string();
  const std::string prefix = name.substr(0, name.size() - std::string_view("-00001-of-00001.gguf").size());
  return first.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", prefix, part, count);
}

}  // namespace

const GgufType* gguf_type(std::uint32_t id) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufType& t) { return t.id == id; });
  return found == kTypes.end() ? nullptr : &*found;
}

const GgufType* gguf_type(DType type) {
  if (type == DType::kCount) return nullptr;
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgufType& t) { return t.type == type; });
  return found == kTypes.end() ? nullptr : &*found;
}

// One file: header, metadata (kept of the first part only), tensor entries, data section.
Status GgufFile::parse_part(std::span<const std::byte> bytes, const std::string& where, bool first) {
  Cursor cursor(bytes, where);
  ROOFTREE_TRY(const auto magic, cursor.number<std::uint32_t>("the magic number"));
  if (magic != 0x46554747) return cursor.error(fmt::format("found {:08x} instead of \"GGUF\"; this is not a GGUF file", magic));
  ROOFTREE_TRY(const auto version, cursor.number<std::uint32_t>("the version"));
  if (version == 0x02000000 || version == 0x03000000) return cursor.error("a big-endian GGUF file; expected little-endian");
  if (version != 2 && version != 3) return cursor.error(fmt::format("GGUF version {}; expected 2 or 3", version));
  version_ = first ? version : version_;

  constexpr std::uint64_t kLeastTensor = 24, kLeastMetadata = 13;  // bytes of an entry
  ROOFTREE_TRY(const auto tensor_count, cursor.number<std::uint64_t>("the number of tensors"));
  ROOFTREE_TRY(const auto metadata_count, cursor.number<std::uint64_t>("the number of metadata entries"));
  if (tensor_count > cursor.left() / kLeastTensor || metadata_count > cursor.left() / kLeastMetadata) {
    return cursor.error(fmt::format("{} tensors and {} metadata entries do not fit into the {} bytes that follow", tensor_count,
                                    metadata_count, cursor.left()));
  }

  std::uint64_t alignment = 32;
  for (std::uint64_t i = 0; i < metadata_count; ++i) {
    const std::size_t begin = cursor.offset();
    ROOFTREE_TRY(const auto key, cursor.text("a metadata key"));
    if (key.empty()) return cursor.error("a metadata entry without a key");
    auto value = read_value(cursor);
    if (!value) return value.error().within(fmt::format("{}: metadata '{}'", where, printable(key)));
    if (key == "general.alignment") {
      const auto* number = std::get_if<std::uint64_t>(&*value);
      if (number == nullptr || !std::has_single_bit(*number) || *number < 8 || *number > kLargestAlignment) {
        return cursor.error(fmt::format("general.alignment is {}; expected a power of two from 8 to {}",
                                        number == nullptr ? std::string(kind_of(*value)) : std::to_string(*number),
                                        kLargestAlignment));
      }
      alignment = *number;
    }
    if (!first) continue;
    metadata_.emplace_back(key, std::move(*value));
    raw_metadata_.push_back(bytes.subspan(begin, cursor.offset() - begin));
  }
  alignment_ = first ? alignment : std::max(alignment_, alignment);

  std::vector<TensorEntry> entries;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    ROOFTREE_TRY(auto entry, read_tensor_entry(cursor));
    entries.push_back(std::move(entry));
  }
  // The data section starts at the next multiple of the alignment; a file without tensors may end before it.
  const std::uint64_t data = (cursor.offset() + alignment - 1) / alignment * alignment;
  const std::uint64_t data_bytes = data <= bytes.size() ? bytes.size() - data : 0;
  for (const TensorEntry& entry : entries) {
    if (entry.offset % alignment != 0) {
      return cursor.error(fmt::format("tensor '{}' starts at {} of the data section; expected a multiple of {}",
                                      printable(entry.view.name), entry.offset, alignment));
    }
    if (entry.offset > data_bytes || entry.bytes > data_bytes - entry.offset) {
      return cursor.error(
          fmt::format("tensor '{}' takes {} bytes from {} of the data section, which has {} (is the file cut off?)",
                      printable(entry.view.name), entry.bytes, entry.offset, data_bytes));
    }
  }
  std::vector<std::size_t> order(entries.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return std::pair(entries[a].offset, a) < std::pair(entries[b].offset, b); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorEntry &before = entries[order[i - 1]], &after = entries[order[i]];
    if (after.offset < before.offset + before.bytes) {
      return cursor.error(fmt::format("tensors '{}' and '{}' overlap at {} of the data section", printable(before.view.name),
                                      printable(after.view.name), after.offset));
    }
  }
  for (TensorEntry& entry : entries) {
    entry.view.bytes = bytes.subspan(static_cast<std::size_t>(data + entry.offset), static_cast<std::size_t>(entry.bytes));
    tensors_.push_back(std::move(entry.view));
    stored_types_.push_back(entry.type);
  }
  return Ok{};
}

// Sorted indices; duplicates are errors.
Status GgufFile::index(const std::string& where) {
  const auto sorted = [](std::size_t count, const auto& name) {
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return name(a) < name(b); });
    return order;
  };
  const auto duplicate = [](const std::vector<std::uint32_t>& order, const auto& name) {
    const auto found =
        std::adjacent_find(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return name(a) == name(b); });
    return found == order.end() ? std::string_view() : name(*found);
  };
  const auto tensor_name = [&](std::uint32_t i) { return tensors_[i].name; };
  const auto key = [&](std::uint32_t i) { return metadata_[i].first; };
  by_name_ = sorted(tensors_.size(), tensor_name);
  keys_sorted_ = sorted(metadata_.size(), key);
  if (const auto name = duplicate(by_name_, tensor_name); !name.empty()) {
    return Error{ErrorCode::kParse, fmt::format("{}: two tensors have the name '{}'", where, printable(name))};
  }
  if (const auto name = duplicate(keys_sorted_, key); !name.empty()) {
    return Error{ErrorCode::kParse, fmt::format("{}: metadata '{}' occurs twice", where, printable(name))};
  }
  return Ok{};
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string_view where) {
  GgufFile file;
  file.where_ = where;
  ROOFTREE_TRY_VOID(file.parse_part(bytes, file.where_, true));
  ROOFTREE_TRY_VOID(file.index(file.where_));
  return file;
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  GgufFile file;
  file.where_ = path.string();
  ROOFTREE_TRY(auto first, MappedFile::open(path));
  file.files_.push_back(std::move(first));
  ROOFTREE_TRY_VOID(file.parse_part(file.files_.front().bytes(), file.where_, true));
  ROOFTREE_TRY_VOID(file.index(file.where_));

  ROOFTREE_TRY(const std::int64_t parts, file.integer_or("split.count", 1));
  if (parts == 1 || parts == 0) return file;
  const auto invalid = [&](std::string_view what) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {}", file.where_, what)};
  };
  if (parts < 0 || parts > kMostParts) return invalid(fmt::format("split.count is {}; expected 1 to {}", parts, kMostParts));
  ROOFTREE_TRY(const std::int64_t number, file.integer_or("split.no", 0));
  if (number != 0) {
    return invalid(fmt::format("this is part {} of {}; open the first one", number + 1, parts));
  }
  const std::string ending = fmt::format("-00001-of-{:05}.gguf", parts);
  if (!path.filename().string().ends_with(ending)) {
    return invalid(fmt::format("the first of {} parts; expected a name that ends in '{}', so that the others can be found",
                               parts, ending));
  }
  for (std::int64_t part = 2; part <= parts; ++part) {
    const std::filesystem::path next = part_path(path, part, parts);
    ROOFTREE_TRY(auto mapped, MappedFile::open(next));
    // Read on its own first: its numbers, its own duplicates.
    const std::string where = next.string();
    ROOFTREE_TRY(const GgufFile alone, GgufFile::parse(mapped.bytes(), where));
    ROOFTREE_TRY(const std::int64_t its_parts, alone.integer_or("split.count", 0));
    ROOFTREE_TRY(const std::int64_t its_number, alone.integer_or("split.no", -1));
    if (its_parts != parts || its_number != part - 1) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: says part {} of {}; expected part {} of {}", where, its_number + 1,
                                                    its_parts, part, parts)};
    }
    file.files_.push_back(std::move(mapped));
    ROOFTREE_TRY_VOID(file.parse_part(file.files_.back().bytes(), where, false));
  }
  ROOFTREE_TRY_VOID(file.index(file.where_));
  const auto found = static_cast<std::int64_t>(file.tensors_.size());
  ROOFTREE_TRY(const std::int64_t expected, file.integer_or("split.tensors.count", found));
  if (expected != found)
    return invalid(fmt::format("the {} parts hold {} tensors; split.tensors.count is {}", parts, found, expected));
  return file;
}

const GgufValue* GgufFile::metadata(std::string_view key) const {
  const auto found = std::lower_bound(keys_sorted_.begin(), keys_sorted_.end(), key,
                                      [&](std::uint32_t i, std::string_view wanted) { return metadata_[i].first < wanted; });
  return found != keys_sorted_.end() && metadata_[*found].first == key ? &metadata_[*found].second : nullptr;
}

Error GgufFile::wrong_type(std::string_view key, const GgufValue& value, std::string_view expected) const {
  return Error{ErrorCode::kInvalid, fmt::format("{}: metadata '{}' is {}; expected {}", where_, key, kind_of(value), expected)};
}

namespace {

Error absent(std::string_view where, std::string_view key, std::string_view expected) {
  return Error{ErrorCode::kInvalid, fmt::format("{}: metadata '{}' is missing; expected {}", where, key, expected)};
}

}  // namespace

Result<std::int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = metadata(key);
  if (value == nullptr) return absent(where_, key, "an integer");
  if (const auto* number = std::get_if<std::int64_t>(value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(value)) {
    if (*number > static_cast<std::uint64_t>(INT64_MAX)) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: metadata '{}' is {}; expected less than 2^63", where_, key, *number)};
    }
    return static_cast<std::int64_t>(*number);
  }
  return wrong_type(key, *value, "an integer");
}

Result<std::int64_t> GgufFile::integer_or(std::string_view key, std::int64_t fallback) const {
  return metadata(key) == nullptr ? Result<std::int64_t>(fallback) : integer(key);
}

Result<double> GgufFile::number_or(std::string_view key, double fallback) const {
  const GgufValue* value = metadata(key);
  if (value == nullptr) return fallback;
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::uint64_t>(value)) return static_cast<double>(*number);
  return wrong_type(key, *value, "a number");
}

Result<bool> GgufFile::flag_or(std::string_view key, bool fallback) const {
  const GgufValue* value = metadata(key);
  if (value == nullptr) return fallback;
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return wrong_type(key, *value, "a flag");
}

Result<std::string_view> GgufFile::text(std::string_view key) const {
  const GgufValue* value = metadata(key);
  if (value == nullptr) return absent(where_, key, "a string");
  if (const auto* text = std::get_if<std::string_view>(value)) return *text;
  return wrong_type(key, *value, "a string");
}

Result<std::string_view> GgufFile::text_or(std::string_view key, std::string_view fallback) const {
  return metadata(key) == nullptr ? Result<std::string_view>(fallback) : text(key);
}

Result<const GgufArray*> GgufFile::array(std::string_view key) const {
  const GgufValue* value = metadata(key);
  const GgufArray* none = nullptr;
  if (value == nullptr) return none;
  if (const auto* array = std::get_if<GgufArray>(value)) return array;
  return wrong_type(key, *value, "an array");
}

std::vector<std::string_view> GgufFile::names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const TensorView& tensor : tensors_) names.push_back(tensor.name);
  return names;
}

const TensorView* GgufFile::tensor(std::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
}

bool GgufFile::contains(std::string_view name) const { return tensor(name) != nullptr; }

Result<TensorView> GgufFile::find(std::string_view name) {
  const TensorView* found = tensor(name);
  if (found == nullptr) return unknown_tensor(where_, name, names());
  if (found->type == DType::kCount) {
    const GgufType& stored = stored_type(static_cast<std::size_t>(found - tensors_.data()));
    return Error{ErrorCode::kInvalid, fmt::format("{}: tensor '{}' is stored as {}, which Rooftree does not read", where_,
                                                  printable(name), stored.name)};
  }
  return *found;
}

void GgufFile::release(std::string_view name) {
  const TensorView* found = tensor(name);
  if (found == nullptr) return;
  for (const MappedFile& file : files_) {
    const std::span<const std::byte> all = file.bytes();
    if (std::less_equal<>()(all.data(), found->bytes.data()) && std::less<>()(found->bytes.data(), all.data() + all.size())) {
      file.done_with(found->bytes);
    }
  }
}

std::uint64_t GgufFile::total_bytes() const {
  std::uint64_t total = 0;
  for (const TensorView& tensor : tensors_) total += tensor.bytes.size();
  return total;
}

}  // namespace rooftree::formats

#include "formats/random_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/philox.h"
#include "formats/block_codec.h"

namespace rooftree::formats {
namespace {

constexpr std::size_t kNormals = std::size_t{1} << 18;
constexpr std::size_t kLeastUnit = 32;                     // values
constexpr std::uint64_t kNormalStream = 0x6E6F726D616C73;  // streams of tensors are hashes of their names
constexpr std::int64_t kMostValues = std::int64_t{1} << 48;

// FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923).
std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0xCBF29CE484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return h;
}

// Values of a unit: whole blocks.
std::size_t unit_values(DType type) { return std::max(kLeastUnit, static_cast<std::size_t>(block_form(type).values)); }

}  // namespace

struct RandomSource::Tensor {
  RandomTensor spec;
  std::int64_t values = 0;
  std::size_t bytes = 0;
  std::unique_ptr<std::byte[]> data;  // null until asked for
};

struct RandomSource::Units {
  DType type = DType::kF32;
  double deviation = 0;
  std::vector<std::byte> bytes;
};

RandomSource::RandomSource() = default;
RandomSource::RandomSource(RandomSource&&) noexcept = default;
RandomSource& RandomSource::operator=(RandomSource&&) noexcept = default;
RandomSource::~RandomSource() = default;

Result<RandomSource> RandomSource::make(std::vector<RandomTensor> tensors, const RandomSourceOptions& options) {
  RandomSource source;
  source.options_ = options;
  for (RandomTensor& spec : tensors) {
    const auto invalid = [&](std::string_view what) {
      return Error{ErrorCode::kInvalid, fmt::format("random tensor '{}': {}", printable(spec.name), what)};
    };
    if (!can_quantize(spec.type)) return invalid(fmt::format("values of type {} cannot be drawn", name(spec.type)));
    if (!(spec.deviation >= 0.0F) || std::isinf(spec.deviation) || !std::isfinite(spec.value)) {
      return invalid("deviation and value must be finite, the deviation not negative");
    }
    Tensor tensor;
    tensor.values = 1;
    for (const std::int64_t extent : spec.extents) {
      if (extent < 1 || extent > kMostValues / tensor.values) return invalid(fmt::format("an extent of {}", extent));
      tensor.values *= extent;
    }
    const std::int64_t k = spec.extents.empty() ? 1 : spec.extents.back();
    const std::size_t row = row_bytes(spec.type, k);
    if (row == 0) {
      return invalid(fmt::format("rows of {} values; {} stores {} together", k, name(spec.type), block_form(spec.type).values));
    }
    tensor.bytes = row * static_cast<std::size_t>(tensor.values / k);
    tensor.spec = std::move(spec);
    source.tensors_.push_back(std::move(tensor));
  }
  const auto name_of = [&](std::uint32_t i) -> const std::string& { return source.tensors_[i].spec.name; };
  source.by_name_.resize(source.tensors_.size());
  std::iota(source.by_name_.begin(), source.by_name_.end(), std::uint32_t{0});
  std::sort(source.by_name_.begin(), source.by_name_.end(), [&](auto a, auto b) { return name_of(a) < name_of(b); });
  const auto twice = std::adjacent_find(source.by_name_.begin(), source.by_name_.end(),
                                        [&](auto a, auto b) { return name_of(a) == name_of(b); });
  if (twice != source.by_name_.end()) {
    return Error{ErrorCode::kInvalid, fmt::format("random tensor '{}': the name occurs twice", printable(name_of(*twice)))};
  }
  return source;
}

const RandomSource::Units& RandomSource::units(DType type, double deviation) {
  for (const auto& units : units_) {
    if (units->type == type && units->deviation == deviation) return *units;
  }
  if (normals_.empty()) {
    Philox philox(options_.seed, kNormalStream);
    normals_.resize(kNormals);
    for (double& x : normals_) x = philox.normal();
  }
  auto units = std::make_unique<Units>();
  units->type = type;
  units->deviation = deviation;
  std::vector<float> scaled(kNormals);
  for (std::size_t i = 0; i < kNormals; ++i) scaled[i] = static_cast<float>(normals_[i] * deviation);
  units->bytes.resize(row_bytes(type, static_cast<std::int64_t>(kNormals)));
  quantize_row(type, scaled, units->bytes);
  units_.push_back(std::move(units));
  return *units_.back();
}

void RandomSource::fill(Tensor& tensor) {
  const RandomTensor& spec = tensor.spec;
  const std::size_t values = unit_values(spec.type), bytes = row_bytes(spec.type, static_cast<std::int64_t>(values));
  const auto count =
      static_cast<std::int64_t>((tensor.bytes + bytes - 1) / bytes);  // the last unit of a plain type may be a part
  std::byte* const data = tensor.data.get();
  const auto copy = [&](std::int64_t unit, const std::byte* from) {
    const std::size_t at = static_cast<std::size_t>(unit) * bytes;
    std::memcpy(data + at, from, std::min(bytes, tensor.bytes - at));
  };

  std::vector<std::byte> constant;
  const std::byte* drawn = nullptr;
  std::size_t choices = 1;
  if (spec.fill == RandomTensor::Fill::kConstant) {
    constant.resize(bytes);
    quantize_row(spec.type, std::vector<float>(values, spec.value), constant);
  } else {
    const double k = static_cast<double>(spec.extents.empty() ? 1 : spec.extents.back());
    drawn = units(spec.type, spec.deviation > 0.0F ? static_cast<double>(spec.deviation) : 1.0 / std::sqrt(k)).bytes.data();
    choices = kNormals / values;
  }
  const Philox philox(options_.seed, hash(spec.name));
  // Eight units for each block of random bits: 16 bits choose one of at most 8192.
  const auto make_units = [&](Range range) {
    PhiloxBlock words{};
    for (std::int64_t unit = range.begin; unit < range.end; ++unit) {
      if (drawn == nullptr) {
        copy(unit, constant.data());
        continue;
      }
      if (unit % 8 == 0 || unit == range.begin) words = philox.block(static_cast<std::uint64_t>(unit / 8));
      const std::uint32_t word = words[static_cast<std::size_t>(unit % 8 / 2)] >> (unit % 2 * 16);
      copy(unit, drawn + (word % choices) * bytes);
    }
  };
  if (options_.pool != nullptr) {
    options_.pool->parallel_for(
        count, [&](Range range, const Worker&) { make_units(range); }, 8);
  } else {
    make_units({0, count});
  }
}

std::vector<std::string_view> RandomSource::names() const {
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const Tensor& tensor : tensors_) names.push_back(tensor.spec.name);
  return names;
}

bool RandomSource::contains(std::string_view name) const { return index_of(name) < tensors_.size(); }

std::size_t RandomSource::index_of(std::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].spec.name < wanted; });
  return found != by_name_.end() && tensors_[*found].spec.name == name ? *found : tensors_.size();
}

Result<TensorView> RandomSource::find(std::string_view name) {
  const std::size_t index = index_of(name);
  if (index == tensors_.size()) return unknown_tensor("random weights", name, names());
  Tensor& tensor = tensors_[index];
  if (tensor.data == nullptr) {
    tensor.data = std::make_unique_for_overwrite<std::byte[]>(tensor.bytes);
    fill(tensor);
  }
  return TensorView{.name = tensor.spec.name,
                    .type = tensor.spec.type,
                    .extents = tensor.spec.extents,
                    .bytes = {tensor.data.get(), tensor.bytes}};
}

Result<TensorView> RandomSource::describe(std::string_view name) {
  const std::size_t index = index_of(name);
  if (index == tensors_.size()) return unknown_tensor("random weights", name, names());
  const RandomTensor& spec = tensors_[index].spec;
  return TensorView{.name = spec.name, .type = spec.type, .extents = spec.extents, .bytes = {}};
}

void RandomSource::release(std::string_view name) {
  const std::size_t index = index_of(name);
  if (index < tensors_.size()) tensors_[index].data.reset();
}

std::uint64_t RandomSource::total_bytes() const {
  std::uint64_t total = 0;
  for (const Tensor& tensor : tensors_) total += tensor.bytes;
  return total;
}

}  // namespace rooftree::formats

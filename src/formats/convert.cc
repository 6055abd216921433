#include "formats/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "formats/block_codec.h"
#include "formats/gguf_writer.h"

namespace rooftree::formats {
namespace {

constexpr std::int64_t kBatchValues = std::int64_t{1} << 22;  // 16 MiB of floats between two writes

bool has_blocks(DType type) { return block_form(type).values > 1; }

// "general.file_type" of llama.cpp (enum llama_ftype in llama.h): what most tensors are. -1: it has none.
int file_type(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ2K:
      return 10;
    case DType::kQ3K:
      return 11;
    case DType::kQ4K:
      return 14;
    case DType::kQ5K:
      return 16;
    case DType::kQ6K:
      return 18;
    case DType::kIq4Nl:
      return 25;
    case DType::kIq4Xs:
      return 30;
    case DType::kBf16:
      return 32;
    case DType::kMxfp4:
      return 38;
    default:
      return -1;
  }
}

// What llama-quantize takes for rows that do not fill blocks of 256. kCount: nothing.
DType narrower_type(DType type) {
  switch (type) {
    case DType::kQ2K:
    case DType::kQ3K:
    case DType::kIq4Xs:
      return DType::kIq4Nl;
    case DType::kQ4K:
      return DType::kQ5_0;
    case DType::kQ5K:
      return DType::kQ5_1;
    case DType::kQ6K:
      return DType::kQ8_0;
    default:
      return DType::kCount;
  }
}

// Squared sums of one row.
struct Squares {
  double difference = 0, total = 0;
  bool finite = true;
};

class Converter {
 public:
  Converter(const ConvertOptions& options, GgufWriter& writer) : options_(options), writer_(writer) {}

  // The tensor's rows in `type` to the writer.
  Status convert(const TensorView& from, DType type, const std::string& where) {
    const std::int64_t k = from.k(), rows = from.rows();
    const std::size_t in_bytes = row_bytes(from.type, k), out_bytes = row_bytes(type, k);
    const std::int64_t batch = std::clamp<std::int64_t>(kBatchValues / k, 1, rows);
    out_.resize(static_cast<std::size_t>(batch) * out_bytes);
    squares_.resize(static_cast<std::size_t>(batch));
    for (std::int64_t first = 0; first < rows; first += batch) {
      const std::int64_t count = std::min(batch, rows - first);
      const auto convert_rows = [&](Range range) {
        std::vector<float> values(static_cast<std::size_t>(k)), back(static_cast<std::size_t>(k));
        for (std::int64_t row = range.begin; row < range.end; ++row) {
          const auto i = static_cast<std::size_t>(row);
          const std::span<std::byte> out = std::span(out_).subspan(i * out_bytes, out_bytes);
          dequantize_row(from.type, from.bytes.subspan(static_cast<std::size_t>(first + row) * in_bytes, in_bytes), values);
          quantize_row(type, values, out);
          dequantize_row(type, out, back);
          squares_[i] = compare(values, back);
        }
      };
      if (options_.pool != nullptr) {
        options_.pool->parallel_for(count, [&](Range range, const Worker&) { convert_rows(range); });
      } else {
        convert_rows({0, count});
      }
      for (std::int64_t row = 0; row < count; ++row) {
        const Squares& s = squares_[static_cast<std::size_t>(row)];
        if (!s.finite) {
          return Error{ErrorCode::kInvalid, fmt::format("{}: tensor '{}' has a value in row {} that is not finite in {}", where,
                                                        printable(from.name), first + row, name(type))};
        }
        difference_ += s.difference;
        total_ += s.total;
      }
      ROOFTREE_TRY_VOID(writer_.append(std::span(out_).first(static_cast<std::size_t>(count) * out_bytes)));
      ROOFTREE_TRY_VOID(advance(static_cast<std::uint64_t>(count) * in_bytes, from.name));
    }
    return Ok{};
  }

  Status copy(const TensorView& from) {
    constexpr std::size_t kPart = std::size_t{1} << 24;
    for (std::size_t at = 0; at < from.bytes.size(); at += kPart) {
      const std::size_t part = std::min(kPart, from.bytes.size() - at);
      ROOFTREE_TRY_VOID(writer_.append(from.bytes.subspan(at, part)));
      ROOFTREE_TRY_VOID(advance(part, from.name));
    }
    return Ok{};
  }

  void expect(std::uint64_t bytes) { expected_ = bytes; }
  [[nodiscard]] double relative_error() const { return total_ > 0 ? std::sqrt(difference_ / total_) : 0.0; }

 private:
  static Squares compare(const std::vector<float>& values, const std::vector<float>& back) {
    Squares s;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double x = values[i], difference = x - static_cast<double>(back[i]);
      s.difference += difference * difference;
      s.total += x * x;
    }
    s.finite = std::isfinite(s.difference) && std::isfinite(s.total);
    return s;
  }

  Status advance(std::uint64_t bytes, std::string_view tensor) {
    done_ += bytes;
    if (options_.progress == nullptr) return Ok{};
    options_.progress->update(static_cast<double>(done_) / static_cast<double>(std::max<std::uint64_t>(expected_, 1)), tensor);
    if (options_.progress->cancelled()) return Error{ErrorCode::kEnvironment, "interrupted; nothing was written"};
    return Ok{};
  }

  const ConvertOptions& options_;
  GgufWriter& writer_;
  std::vector<std::byte> out_;
  std::vector<Squares> squares_;
  std::uint64_t done_ = 0, expected_ = 0;
  double difference_ = 0, total_ = 0;
};

}  // namespace

DType converted_type(std::string_view name, const std::vector<std::int64_t>& extents, DType stored, DType wanted) {
  constexpr std::string_view kKept[] = {"_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
                                        "position_embd.weight", "token_types.weight"};
  if (extents.size() < 2 || !name.ends_with("weight")) return stored;
  for (const std::string_view kept : kKept) {
    if (name.ends_with(kept)) return stored;
  }
  const auto fits = [&](DType type) { return row_bytes(type, extents.back()) != 0; };
  if (fits(wanted)) return wanted;
  const DType in_blocks_of_32 = narrower_type(wanted);
  return in_blocks_of_32 != DType::kCount && fits(in_blocks_of_32) ? in_blocks_of_32 : DType::kF16;
}

Result<ConvertReport> convert_gguf(const std::filesystem::path& in, const std::filesystem::path& out,
                                   const ConvertOptions& options) {
  if (!can_quantize(options.type) || gguf_type(options.type) == nullptr) {
    std::string known;
    for (const DTypeInfo& type : all_dtypes()) {
      if (can_quantize(type.type) && gguf_type(type.type) != nullptr)
        known += fmt::format("{}{}", known.empty() ? "" : ", ", type.name);
    }
    return Error{ErrorCode::kInvalid,
                 fmt::format("weights of type {} cannot be written to GGUF; expected one of {}", name(options.type), known)};
  }
  ROOFTREE_TRY(GgufFile file, GgufFile::open(in));
  const std::string where(file.where());
  std::error_code unknown;
  if (std::filesystem::equivalent(in, out, unknown)) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: the output is the input; give it another name", out.string())};
  }

  GgufWriter writer;
  writer.copy_metadata(file);
  if (const int number = file_type(options.type); number >= 0)
    writer.set("general.file_type", static_cast<std::uint32_t>(number));
  writer.set("general.quantization_version", std::uint32_t{2});

  ConvertReport report;
  std::vector<DType> types;
  for (const std::string_view name : file.names()) {
    ROOFTREE_TRY(const TensorView tensor, file.find(name));
    const DType type = converted_type(name, tensor.extents, tensor.type, options.type);
    if (type != tensor.type) {
      if (!can_dequantize(tensor.type)) {
        return Error{ErrorCode::kInvalid, fmt::format("{}: tensor '{}' is of type {}, whose values are not known", where,
                                                      printable(name), rooftree::name(tensor.type))};
      }
      if (has_blocks(tensor.type) && has_blocks(type) && !options.requantize) {
        return Error{
            ErrorCode::kInvalid,
            fmt::format("{}: tensor '{}' is already rounded to {}; converting it to {} would round twice. Start from the "
                        "original weights, or ask for it (--requantize)",
                        where, printable(name), rooftree::name(tensor.type), rooftree::name(type))};
      }
      ++report.converted;
      if (type != options.type) report.fell_back.emplace_back(name);
    }
    ROOFTREE_TRY_VOID(writer.declare(name, type, tensor.extents));
    types.push_back(type);
    const std::uint64_t bytes = row_bytes(type, tensor.k()) * static_cast<std::uint64_t>(tensor.rows());
    report.bytes_in += tensor.bytes.size();
    report.bytes_out += bytes;
    auto share = std::find_if(report.shares.begin(), report.shares.end(), [&](const auto& s) { return s.type == type; });
    if (share == report.shares.end()) share = report.shares.insert(report.shares.end(), {type, 0, 0});
    ++share->tensors;
    share->bytes += bytes;
  }
  std::sort(report.shares.begin(), report.shares.end(),
            [](const auto& a, const auto& b) { return std::pair(b.bytes, a.type) < std::pair(a.bytes, b.type); });

  ROOFTREE_TRY_VOID(writer.open(out));
  Converter converter(options, writer);
  converter.expect(report.bytes_in);
  for (std::size_t i = 0; i < types.size(); ++i) {
    const TensorView& tensor = file.tensors()[i];
    ROOFTREE_TRY_VOID(types[i] == tensor.type ? converter.copy(tensor) : converter.convert(tensor, types[i], where));
    file.release(tensor.name);
  }
  ROOFTREE_TRY_VOID(writer.finish());
  report.relative_error = converter.relative_error();
  return report;
}

}  // namespace rooftree::formats

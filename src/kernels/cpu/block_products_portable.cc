// The level-A products as the numeric contract states them (docs/design/006-numeric-contract.md), in plain code: weights stay
// as they are stored, every block is decoded to integers, summed exactly, and scaled in the contract's order. The definition
// that the vector code is tested against, and what a machine without it runs.

#include <algorithm>
#include <cmath>

#include "kernels/cpu/block_products_forms.h"

namespace rooftree::kernels::cpu::block {
namespace {

constexpr std::int64_t kUnit = 16;

std::int64_t blocks_in(std::int64_t k, int block) { return k / block; }

// Packed activations: rows of [float d per block][int8 q per value], each row padded to 64 bytes.
std::size_t row_bytes(int block, std::int64_t k) {
  const auto bytes = static_cast<std::size_t>(k + blocks_in(k, block) * 4);
  return (bytes + 63) / 64 * 64;
}
template <int kBlock>
std::size_t activation_bytes(std::int64_t rows, std::int64_t k) {
  return static_cast<std::size_t>(rows) * row_bytes(kBlock, k);
}
std::int64_t activation_grain(std::int64_t /*rows*/) { return 1; }

// To the nearest integer, ties to even, for |v| <= 127: the addition leaves no place for a fraction.
int round_to_even(float v) {
  const float shifted = v + 0x1.8p23F;
  return static_cast<int>(shifted - 0x1.8p23F);
}

template <int kBlock>
void pack_activations(const PackActivationsArgs& args, Range rows) {
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* x = args.x.data + (args.gather != nullptr ? args.gather[row] : row) * args.x.stride;
    std::byte* out = args.out + static_cast<std::size_t>(row) * row_bytes(kBlock, args.k);
    const std::int64_t blocks = blocks_in(args.k, kBlock);
    auto* q = reinterpret_cast<std::int8_t*>(out) + blocks * 4;
    for (std::int64_t b = 0; b < blocks; ++b, x += kBlock, q += kBlock) {
      float a = 0;
      for (int i = 0; i < kBlock; ++i) a = std::abs(x[i]) > a ? std::abs(x[i]) : a;
      const bool zero = a < kTinyBlock;
      const float d = zero ? 0.0F : a / 127.0F;
      const float r = zero ? 0.0F : 127.0F / a;
      for (int i = 0; i < kBlock; ++i) {
        float v = zero ? 0.0F : x[i] * r;
        v = v > -127.0F ? v : -127.0F;  // also where x is not a number
        v = v < 127.0F ? v : 127.0F;
        q[i] = static_cast<std::int8_t>(round_to_even(v));
      }
      std::memcpy(out + b * 4, &d, sizeof d);
    }
  }
}

template <DType kType>
std::size_t stored_row_bytes(std::int64_t k) {
  constexpr Form kForm = form_of(kType);
  return static_cast<std::size_t>(k / kForm.values * kForm.bytes);
}
std::size_t unit_bytes(std::size_t row) { return (row * static_cast<std::size_t>(kUnit) + 63) / 64 * 64; }

template <DType kType>
std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>((n + kUnit - 1) / kUnit) * unit_bytes(stored_row_bytes<kType>(k));
}

template <DType kType>
void pack(const PackArgs& args, Range units) {
  const std::size_t row = stored_row_bytes<kType>(args.k), unit = unit_bytes(row);
  for (std::int64_t u = units.begin; u < units.end; ++u) {
    const std::int64_t rows = std::min(kUnit, args.n - u * kUnit);
    std::byte* out = args.out + static_cast<std::size_t>(u) * unit;
    const std::size_t bytes = static_cast<std::size_t>(rows) * row;
    std::memcpy(out, args.rows + static_cast<std::size_t>(u * kUnit) * row, bytes);
    std::memset(out + bytes, 0, unit - bytes);
  }
}

template <DType kType>
const std::byte* stored_row(const PackedMatrix& matrix, std::int64_t n) {
  const std::size_t row = stored_row_bytes<kType>(matrix.k);
  return matrix.data + static_cast<std::size_t>(n / kUnit) * unit_bytes(row) + static_cast<std::size_t>(n % kUnit) * row;
}

template <DType kType>
void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) {
  constexpr Form kForm = form_of(kType);
  const std::byte* stored = stored_row<kType>(matrix, row);
  for (std::int64_t b = 0; b < matrix.k / kForm.values; ++b) {
    Record record;
    decode(kType, stored + b * kForm.bytes, record);
    record_values(kType, record, out.data() + b * kForm.values);
  }
}

int dot(const int* w, const std::int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += w[i] * q[i];
  return sum;
}
int total(const std::int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

// One record of an output's weights against the same values of a row; returns the output's new sum.
template <DType kType>
float accumulate(float acc, const Record& record, const int* w, const std::int8_t* q, float da) {
  constexpr Form kForm = form_of(kType);
  if constexpr (kForm.values == 32) {
    const float dw = block_scale(kForm.scales, record.d);
    acc = acc + static_cast<float>(dot(w, q, 32)) * (dw * da);
    if constexpr (kForm.minima) acc = acc + static_cast<float>(total(q, 32)) * (block_scale(kForm.scales, record.dmin) * da);
    return acc;
  } else {
    constexpr int kSub = kForm.scales == Scales::kSix32 ? 32 : 16;
    int sum = 0, minimum = 0;
    for (int j = 0; j < 256 / kSub; ++j) {
      sum += record.scales[static_cast<std::size_t>(j)] * dot(w + j * kSub, q + j * kSub, kSub);
      if constexpr (kForm.minima) minimum += record.minima[static_cast<std::size_t>(j)] * total(q + j * kSub, kSub);
    }
    float t = static_cast<float>(sum) * formats::float_from_f16(record.d);
    if constexpr (kForm.minima) t = t - static_cast<float>(minimum) * formats::float_from_f16(record.dmin);
    return acc + t * da;
  }
}

template <DType kType>
void multiply(const MultiplyArgs& args, Range units) {
  constexpr Form kForm = form_of(kType);
  const PackedMatrix& matrix = args.weight;
  const std::int64_t blocks = matrix.k / kForm.values;
  const std::size_t x_row = row_bytes(kForm.values, matrix.k);
  for (std::int64_t n = units.begin * kUnit; n < std::min(units.end * kUnit, matrix.n); ++n) {
    const std::byte* stored = stored_row<kType>(matrix, n);
    for (std::int64_t m = 0; m < args.rows; ++m) args.y.data[m * args.y.stride + n] = 0.0F;
    for (std::int64_t b = 0; b < blocks; ++b) {
      Record record;
      decode(kType, stored + b * kForm.bytes, record);
      std::array<int, static_cast<std::size_t>(kForm.values)> w{};
      for (std::size_t i = 0; i < w.size(); ++i) w[i] = weight_integer(kForm, record.codes[i]);
      for (std::int64_t m = 0; m < args.rows; ++m) {
        const std::byte* x = args.x + static_cast<std::size_t>(m) * x_row;
        float da = 0;
        std::memcpy(&da, x + b * 4, sizeof da);
        const auto* q = reinterpret_cast<const std::int8_t*>(x) + blocks * 4 + b * kForm.values;
        float& y = args.y.data[m * args.y.stride + n];
        y = accumulate<kType>(y, record, w.data(), q, da);
      }
    }
    if (args.bias == nullptr) continue;
    for (std::int64_t m = 0; m < args.rows; ++m) args.y.data[m * args.y.stride + n] += args.bias[n];
  }
}

template <DType kType>
constexpr ProductKernels kernels() {
  constexpr int kBlock = form_of(kType).values;
  return {.unit = kUnit,
          .k_multiple = kBlock,
          .packed_bytes = packed_bytes<kType>,
          .pack = pack<kType>,
          .unpack_row = unpack_row<kType>,
          .activation_bytes = activation_bytes<kBlock>,
          .activation_grain = activation_grain,
          .pack_activations = pack_activations<kBlock>,
          .multiply = multiply<kType>};
}
template <std::size_t... kIndex>
constexpr Table make_table(std::index_sequence<kIndex...> /*indices*/) {
  return {kernels<kBlockTypes[kIndex]>()...};
}

}  // namespace

void record_values(DType type, const Record& record, float* out) {
  const Form form = form_of(type);
  const auto weight = [&](int i) {
    return static_cast<float>(weight_integer(form, record.codes[static_cast<std::size_t>(i)]));
  };
  if (form.values == 32) {
    const float d = block_scale(form.scales, record.d);
    const float minimum = form.minima ? block_scale(form.scales, record.dmin) : 0.0F;
    for (int i = 0; i < 32; ++i) out[i] = form.minima ? weight(i) * d + minimum : weight(i) * d;
    return;
  }
  const int sub = form.scales == Scales::kSix32 ? 32 : 16;
  const float d = formats::float_from_f16(record.d), dmin = formats::float_from_f16(record.dmin);
  for (int i = 0; i < 256; ++i) {
    const auto j = static_cast<std::size_t>(i / sub);
    const float scaled = d * static_cast<float>(record.scales[j]) * weight(i);
    out[i] = form.minima ? scaled - dmin * static_cast<float>(record.minima[j]) : scaled;
  }
}

const Table* portable_table() {
  static constexpr Table kTable = make_table(std::make_index_sequence<kBlockTypes.size()>());
  return &kTable;
}

}  // namespace rooftree::kernels::cpu::block

// Layouts and loops of the floating-point products; the tiles are in float_products_*.cc. See float_products.h.
//
// Loop order of a product: unit of 64 outputs, block of rows, segment of K, tile of rows. The records of one segment (64 KiB of
// bf16) stay in the second cache level while all tiles of a block pass over them, a tile's activations in the first, its sums
// in registers. With 1 to 6 rows there is one tile and the weights are a single stream from memory. Sums of segments wait for
// their neighbours like the digits of a binary counter: after segment s (from 0) as many sums join as s + 1 has trailing zeros,
// after the last one all that wait. That is the contract's tree.

#include "kernels/cpu/float_products.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "base/check.h"
#include "formats/half.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu {
namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }
constexpr std::size_t bytes(std::int64_t count) { return static_cast<std::size_t>(count); }

// Grows and is kept: kernels allocate once per thread and size.
class Scratch {
 public:
  std::byte* reserve(std::size_t size) {
    if (size > size_) {
      size_ = (size + 4095) / 4096 * 4096;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, size_)));
      ROOFTREE_CHECK(memory_ != nullptr, "no memory for a product's scratch");
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

// ---- weights

constexpr int values_per_record(FloatStorage s) { return s == FloatStorage::kF32 || s == FloatStorage::kF16 ? 1 : 2; }
constexpr std::int64_t record_bytes(FloatStorage s) {
  return s == FloatStorage::kF16 ? 128 : s == FloatStorage::kBf16Coded ? static_cast<std::int64_t>(kCodedPairBytes) : 256;
}
constexpr std::int64_t record_count(FloatStorage s, std::int64_t k) { return ceil_div(k, values_per_record(s)); }

// Behind the records of all units, per unit: 16 high bytes, then where each segment's escapes begin, then the escapes.
struct CodedHeader {
  std::int64_t offsets_at = 16, escapes_at = 0, capacity = 0, size = 0;
  explicit CodedHeader(std::int64_t k) {
    escapes_at = offsets_at + 4 * (ceil_div(k, kSegment) + 1);
    capacity = std::max<std::int64_t>(kFloatUnit * k / 200, 16);
    size = round_up(escapes_at + 4 * capacity, 64);
  }
};

template <FloatStorage kStorage>
std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  const std::int64_t units = ceil_div(n, kFloatUnit);
  const std::int64_t records = units * record_count(kStorage, k) * record_bytes(kStorage);
  return bytes(records + (kStorage == FloatStorage::kBf16Coded ? units * CodedHeader(k).size : 0));
}

template <FloatStorage kStorage>
std::byte* unit_records(std::byte* data, std::int64_t unit, std::int64_t k) {
  return data + unit * record_count(kStorage, k) * record_bytes(kStorage);
}
std::byte* coded_header(std::byte* data, std::int64_t unit, std::int64_t n, std::int64_t k) {
  return unit_records<FloatStorage::kBf16Coded>(data, ceil_div(n, kFloatUnit), k) + unit * CodedHeader(k).size;
}
Lossless12 coded_segment(const std::byte* records, const std::byte* header, std::int64_t k, std::int64_t segment) {
  const CodedHeader form(k);
  const auto* offsets = reinterpret_cast<const std::uint32_t*>(header + form.offsets_at);
  const auto* escapes = reinterpret_cast<const Escape*>(header + form.escapes_at);
  return {.records = records + segment * (kSegment / 2) * static_cast<std::int64_t>(kCodedPairBytes),
          .high_bytes = reinterpret_cast<const std::uint8_t*>(header),
          .escapes = escapes + offsets[segment],
          .escape_count = static_cast<std::int64_t>(offsets[segment + 1] - offsets[segment])};
}

// Rows come one cache line at a time and go out as a column of dwords or halves: a line's records stay in the first cache level
// until the 64 rows have filled them.
template <class T>
void interleave(const std::byte* rows, std::int64_t valid, std::int64_t k, std::byte* out) {
  constexpr auto kLine = static_cast<std::int64_t>(64 / sizeof(T));
  T line[kLine];
  for (std::int64_t at = 0; at < k; at += kLine) {
    const std::int64_t count = std::min(kLine, k - at);
    for (std::int64_t o = 0; o < kFloatUnit; ++o) {
      if (o < valid) {
        std::memcpy(line, rows + (o * k + at) * static_cast<std::int64_t>(sizeof(T)), bytes(count) * sizeof(T));
      } else {
        std::fill_n(line, kLine, T{});
      }
      T* to = reinterpret_cast<T*>(out) + at * kFloatUnit + o;
      for (std::int64_t i = 0; i < count; ++i) to[i * kFloatUnit] = line[i];
    }
  }
}

void interleave_bf16(const std::byte* rows, std::int64_t valid, std::int64_t k, std::byte* out) {
  constexpr std::int64_t kLine = 32;
  std::uint16_t line[kLine];
  for (std::int64_t at = 0; at < k; at += kLine) {
    const std::int64_t count = std::min(kLine, k - at), pairs = ceil_div(count, 2);
    for (std::int64_t o = 0; o < kFloatUnit; ++o) {
      if (o < valid && count == kLine) {
        std::memcpy(line, rows + (o * k + at) * 2, sizeof line);
      } else {
        std::fill_n(line, kLine, std::uint16_t{0});
        if (o < valid) std::memcpy(line, rows + (o * k + at) * 2, bytes(count) * 2);
      }
      auto* to = reinterpret_cast<std::uint32_t*>(out) + at / 2 * kFloatUnit + o;
      for (std::int64_t i = 0; i < pairs; ++i) {
        to[i * kFloatUnit] = (std::uint32_t{without_tiny_bf16(line[2 * i])} << 16) | without_tiny_bf16(line[2 * i + 1]);
      }
    }
  }
}

std::uint16_t half_at(const std::byte* record, int half) {
  std::uint16_t value = 0;
  std::memcpy(&value, record + 2 * half, sizeof value);
  return value;
}
// Half h of a record is output h / 2, and its first k if h is odd.
constexpr std::int64_t output_of_half(int half) { return half / 2; }
constexpr int half_of(std::int64_t output, std::int64_t k) { return static_cast<int>(2 * output + 1 - k % 2); }

// The 16 most frequent high bytes, the lower of equals; and how many values have another one.
struct HighBytes {
  std::array<std::uint8_t, 16> table{};
  std::array<std::int16_t, 256> code{};  // -1: an escape
  std::int64_t escapes = 0;
};
HighBytes choose_high_bytes(const std::array<std::int64_t, 256>& counts) {
  std::array<int, 256> order{};
  for (int i = 0; i < 256; ++i) order[bytes(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return counts[bytes(a)] > counts[bytes(b)]; });
  HighBytes chosen;
  chosen.code.fill(-1);
  for (std::size_t i = 0; i < 16; ++i) {
    chosen.table[i] = static_cast<std::uint8_t>(order[i]);
    chosen.code[bytes(order[i])] = static_cast<std::int16_t>(i);
  }
  for (std::size_t i = 16; i < 256; ++i) chosen.escapes += counts[bytes(order[i])];
  return chosen;
}

// Bf16 records to coded ones. What is beyond the matrix may decode to anything finite: its activations are zero, its outputs
// not stored.
void code_unit(const std::byte* records, std::int64_t valid, std::int64_t k, std::byte* out, std::byte* header) {
  const CodedHeader form(k);
  const std::int64_t pairs = ceil_div(k, 2);
  const auto exists = [&](std::int64_t pair, int half) {
    return output_of_half(half) < valid && (half % 2 == 1 || 2 * pair + 1 < k);
  };
  std::array<std::int64_t, 256> counts{};
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::byte* record = records + pair * static_cast<std::int64_t>(kBf16PairBytes);
    for (int half = 0; half < 128; ++half) counts[half_at(record, half) >> 8] += exists(pair, half) ? 1 : 0;
  }
  const HighBytes chosen = choose_high_bytes(counts);
  ROOFTREE_CHECK(chosen.escapes <= form.capacity, "bf16 weights in 12 bits: fits_lossless12 was not asked");
  std::memcpy(header, chosen.table.data(), 16);
  auto* offsets = reinterpret_cast<std::uint32_t*>(header + form.offsets_at);
  auto* escapes = reinterpret_cast<Escape*>(header + form.escapes_at);
  std::uint32_t escape_count = 0;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    if (pair % (kSegment / 2) == 0) offsets[pair / (kSegment / 2)] = escape_count;
    const std::byte* record = records + pair * static_cast<std::int64_t>(kBf16PairBytes);
    std::uint8_t codes[128];
    for (int half = 0; half < 128; ++half) {
      const std::uint16_t value = half_at(record, half);
      const std::int16_t code = chosen.code[value >> 8];
      codes[half] = static_cast<std::uint8_t>(std::max<std::int16_t>(code, 0));
      if (code < 0 && exists(pair, half)) {
        escapes[escape_count++] =
            (static_cast<std::uint32_t>(pair % (kSegment / 2)) << 23) | (static_cast<std::uint32_t>(half) << 16) | value;
      }
    }
    auto* to = reinterpret_cast<std::uint8_t*>(out) + pair * static_cast<std::int64_t>(kCodedPairBytes);
    for (int byte = 0; byte < 64; ++byte) {
      const int first = coded_half(0, byte), second = coded_half(1, byte);
      to[byte] = static_cast<std::uint8_t>(half_at(record, first));
      to[64 + byte] = static_cast<std::uint8_t>(half_at(record, second));
      to[128 + byte] = static_cast<std::uint8_t>(codes[first] | (codes[second] << 4));
    }
  }
  offsets[ceil_div(k, kSegment)] = escape_count;
}

template <FloatStorage kStorage>
void pack(const PackArgs& args, Range units) {
  const std::int64_t K = args.k;
  for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
    const std::int64_t first = unit * kFloatUnit, valid = std::min(kFloatUnit, args.n - first);
    std::byte* out = unit_records<kStorage>(args.out, unit, K);
    if constexpr (kStorage == FloatStorage::kF32) {
      interleave<std::uint32_t>(args.rows + first * K * 4, valid, K, out);
    } else if constexpr (kStorage == FloatStorage::kF16) {
      interleave<std::uint16_t>(args.rows + first * K * 2, valid, K, out);
    } else if constexpr (kStorage == FloatStorage::kBf16) {
      interleave_bf16(args.rows + first * K * 2, valid, K, out);
    } else {
      thread_local Scratch scratch;
      std::byte* plain = scratch.reserve(bytes(record_count(FloatStorage::kBf16, K) * record_bytes(FloatStorage::kBf16)));
      interleave_bf16(args.rows + first * K * 2, valid, K, plain);
      code_unit(plain, valid, K, out, coded_header(args.out, unit, args.n, K));
    }
  }
}

template <FloatStorage kStorage>
void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) {
  const std::int64_t K = matrix.k, unit = row / kFloatUnit, o = row % kFloatUnit;
  auto* data = const_cast<std::byte*>(matrix.data);
  const std::byte* records = unit_records<kStorage>(data, unit, K);
  if constexpr (kStorage == FloatStorage::kF32) {
    const auto* from = reinterpret_cast<const float*>(records) + o;
    for (std::int64_t k = 0; k < K; ++k) out[bytes(k)] = from[k * kFloatUnit];
  } else if constexpr (kStorage == FloatStorage::kF16) {
    const auto* from = reinterpret_cast<const std::uint16_t*>(records) + o;
    for (std::int64_t k = 0; k < K; ++k) out[bytes(k)] = formats::float_from_f16(from[k * kFloatUnit]);
  } else if constexpr (kStorage == FloatStorage::kBf16) {
    for (std::int64_t k = 0; k < K; ++k) {
      const std::byte* record = records + k / 2 * static_cast<std::int64_t>(kBf16PairBytes);
      out[bytes(k)] = formats::float_from_bf16(half_at(record, half_of(o, k)));
    }
  } else {
    const std::byte* header = coded_header(data, unit, matrix.n, K);
    // Where this output's two halves lie in a coded record.
    std::array<int, 2> byte_of{}, line_of{};
    for (int line = 0; line < 2; ++line) {
      for (int byte = 0; byte < 64; ++byte) {
        for (int q = 0; q < 2; ++q) {
          if (coded_half(line, byte) != half_of(o, q)) continue;
          byte_of[bytes(q)] = byte;
          line_of[bytes(q)] = line;
        }
      }
    }
    for (std::int64_t segment = 0; segment * kSegment < K; ++segment) {
      const Lossless12 coded = coded_segment(records, header, K, segment);
      const std::int64_t first = segment * kSegment, end = std::min(K, first + kSegment);
      for (std::int64_t k = first; k < end; ++k) {
        const auto* record =
            reinterpret_cast<const std::uint8_t*>(coded.records) + (k - first) / 2 * static_cast<std::int64_t>(kCodedPairBytes);
        const int byte = byte_of[bytes(k % 2)], line = line_of[bytes(k % 2)];
        const unsigned code = line == 0 ? record[128 + byte] & 15U : record[128 + byte] >> 4U;
        out[bytes(k)] = formats::float_from_bf16(
            static_cast<std::uint16_t>((unsigned{coded.high_bytes[code]} << 8U) | record[64 * line + byte]));
      }
      for (std::int64_t e = 0; e < coded.escape_count; ++e) {
        const Escape escape = coded.escapes[e];
        const auto half = static_cast<int>(escape_half(escape));
        if (output_of_half(half) != o) continue;
        out[bytes(first + 2 * escape_pair(escape) + 1 - half % 2)] = formats::float_from_bf16(escape_value(escape));
      }
    }
  }
}

// ---- activations

// Rows of a block in tiles whose sizes differ by at most one, larger ones first.
struct Tiling {
  std::int64_t tiles, base, larger;  // `larger` tiles have base + 1 rows
  explicit Tiling(std::int64_t rows) : tiles(ceil_div(rows, kMaxTileRows)), base(rows / tiles), larger(rows % tiles) {}
  [[nodiscard]] std::int64_t first_row(std::int64_t tile) const { return tile * base + std::min(tile, larger); }
  [[nodiscard]] std::int64_t rows(std::int64_t tile) const { return base + (tile < larger ? 1 : 0); }
  [[nodiscard]] std::int64_t tile_of(std::int64_t row) const {
    const std::int64_t split = larger * (base + 1);
    return row < split ? row / (base + 1) : larger + (row - split) / base;
  }
};

// Dwords of one row of a segment of `k` values.
std::int64_t lane_dwords(std::int64_t k, bool pairs) { return round_up(pairs ? ceil_div(k, 2) : k, kLaneDwords); }
// Dwords of one row.
std::int64_t row_dwords(std::int64_t k, bool pairs) {
  return k / kSegment * lane_dwords(kSegment, pairs) + lane_dwords(k % kSegment, pairs);
}

using PackRow = void (*)(const float*, std::int64_t, std::int64_t, std::uint32_t*);

void pack_activation_rows(const PackActivationsArgs& args, Range rows, PackRow pack_row, bool pairs) {
  const std::int64_t K = args.k, per_row = row_dwords(K, pairs), segment_dwords = lane_dwords(kSegment, pairs);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const std::int64_t block = i / kRowBlock, block_rows = std::min(kRowBlock, args.rows - block * kRowBlock);
    const Tiling tiling(block_rows);
    const std::int64_t tile = tiling.tile_of(i % kRowBlock), first = tiling.first_row(tile), height = tiling.rows(tile);
    auto* out = reinterpret_cast<std::uint32_t*>(args.out) + block * kRowBlock * per_row;
    const float* x = args.x.data + (args.gather != nullptr ? args.gather[i] : i) * args.x.stride;
    for (std::int64_t s = 0; s * kSegment < K; ++s) {
      const std::int64_t k = std::min(kSegment, K - s * kSegment);
      std::uint32_t* to =
          out + s * segment_dwords * block_rows + first * lane_dwords(k, pairs) + (i % kRowBlock - first) * kLaneDwords;
      pack_row(x + s * kSegment, k, height * kLaneDwords, to);
    }
  }
}

// ---- the product

void multiply(const FloatKernels& kernels, FloatStorage storage, bool pairs, const MultiplyArgs& args, Range units) {
  const std::int64_t K = args.weight.k, N = args.weight.n;
  const std::int64_t segments = ceil_div(K, kSegment), per_row = row_dwords(K, pairs);
  const std::int64_t record = record_bytes(storage), per_segment = kSegment / values_per_record(storage);
  const bool coded = storage == FloatStorage::kBf16Coded;
  const bool decodes_in_registers = kernels.tile[static_cast<int>(FloatStorage::kBf16Coded)][0][0] != nullptr;
  const auto levels = static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(segments)));
  const std::int64_t most_rows = std::min(args.rows, kRowBlock), level_stride = most_rows * kFloatUnit;

  thread_local Scratch partial_scratch, panel_scratch;
  auto* partial = reinterpret_cast<float*>(partial_scratch.reserve(bytes(levels * level_stride) * sizeof(float)));
  auto* data = const_cast<std::byte*>(args.weight.data);

  for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
    const std::byte* records = data + unit * record_count(storage, K) * record;
    const std::byte* header = coded ? coded_header(data, unit, N, K) : nullptr;
    const std::int64_t columns = std::min(kFloatUnit, N - unit * kFloatUnit);
    for (std::int64_t block = 0; block < args.rows; block += kRowBlock) {
      const std::int64_t rows = std::min(kRowBlock, args.rows - block);
      const Tiling tiling(rows);
      const bool stream = tiling.tiles == 1;
      const auto* x = reinterpret_cast<const std::uint32_t*>(args.x) + block * per_row;
      for (std::int64_t s = 0; s < segments; ++s) {
        const std::int64_t k = std::min(kSegment, K - s * kSegment);
        TileJob job;
        job.steps = record_count(storage, k);
        job.weights = records + s * per_segment * record;
        job.level_stride = level_stride;
        job.depth = std::popcount(static_cast<std::uint64_t>(s));
        job.merges = s + 1 == segments ? job.depth : std::countr_zero(static_cast<std::uint64_t>(s + 1));
        FloatStorage form = storage;
        const std::byte* next = job.weights + job.steps * record;  // the next segment, of this unit or the one after
        const std::int64_t next_lines = ceil_div(per_segment * record / 64, tiling.tiles);
        if (coded) {
          job.coded = coded_segment(records, header, K, s);
          if (!stream || !decodes_in_registers) {
            job.decoded = panel_scratch.reserve(bytes(kSegment / 2) * kBf16PairBytes);
            job.weights = job.decoded;
          }
          if (!decodes_in_registers) {
            kernels.unpack_coded(job.coded, job.steps, job.decoded);
            form = FloatStorage::kBf16;
          }
        }
        const std::int64_t lanes = lane_dwords(k, pairs);
        const std::uint32_t* tile_x = x + s * lane_dwords(kSegment, pairs) * rows;
        for (std::int64_t t = 0; t < tiling.tiles; ++t) {
          const std::int64_t height = tiling.rows(t), first = tiling.first_row(t);
          if (coded && t > 0) form = FloatStorage::kBf16;  // the first tile has decoded the segment
          job.activations = reinterpret_cast<const std::byte*>(tile_x + first * lanes);
          job.ahead = next + 64 * t * next_lines;
          job.ahead_lines = next_lines;
          job.partial = partial + first * kFloatUnit;
          kernels.tile[static_cast<int>(form)][height - 1][stream && form == storage ? 1 : 0](job);
        }
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        float* y = args.y.data + (block + r) * args.y.stride + unit * kFloatUnit;
        const float* sums = partial + r * kFloatUnit;
        if (args.bias == nullptr) {
          std::memcpy(y, sums, bytes(columns) * sizeof(float));
        } else {
          for (std::int64_t c = 0; c < columns; ++c) y[c] = sums[c] + args.bias[unit * kFloatUnit + c];
        }
      }
    }
  }
}

// ---- tables

template <const FloatKernels* kKernels, FloatStorage kStorage>
struct Table {
  static constexpr bool kBf16 = kStorage == FloatStorage::kBf16 || kStorage == FloatStorage::kBf16Coded;
  static bool pairs() { return kBf16 && kKernels->bf16_pairs; }
  static std::size_t activation_bytes(std::int64_t rows, std::int64_t k) { return bytes(rows * row_dwords(k, pairs())) * 4; }
  static std::int64_t activation_grain(std::int64_t) { return 1; }  // rows of a tile have lines of their own
  static void pack_activations(const PackActivationsArgs& args, Range rows) {
    const PackRow pack_row = kStorage == FloatStorage::kF32   ? kKernels->pack_f32
                             : kStorage == FloatStorage::kF16 ? kKernels->pack_f16
                                                              : kKernels->pack_bf16;
    pack_activation_rows(args, rows, pack_row, pairs());
  }
  static void multiply_units(const MultiplyArgs& args, Range units) { multiply(*kKernels, kStorage, pairs(), args, units); }

  static constexpr ProductKernels kTable = {.unit = kFloatUnit,
                                            .k_multiple = 1,
                                            .packed_bytes = packed_bytes<kStorage>,
                                            .pack = pack<kStorage>,
                                            .unpack_row = unpack_row<kStorage>,
                                            .activation_bytes = activation_bytes,
                                            .activation_grain = activation_grain,
                                            .pack_activations = pack_activations,
                                            .multiply = multiply_units};
};

template <const FloatKernels* kKernels>
const ProductKernels* table_of(DType type) {
  switch (type) {
    case DType::kF32:
      return &Table<kKernels, FloatStorage::kF32>::kTable;
    case DType::kF16:
      return &Table<kKernels, FloatStorage::kF16>::kTable;
    case DType::kBf16:
      return &Table<kKernels, FloatStorage::kBf16>::kTable;
    case DType::kBf16Lossless12:
      return &Table<kKernels, FloatStorage::kBf16Coded>::kTable;
    default:
      return nullptr;
  }
}

}  // namespace

const ProductKernels* float_products(DType type, const CpuFeatures& features) {
#if defined(__x86_64__)
  if (features.isa() == Isa::kAvx512) {
    return features.avx512_bf16 ? table_of<&kAvx512Bf16FloatKernels>(type) : table_of<&kAvx512FloatKernels>(type);
  }
  if (features.isa() == Isa::kAvx2) return table_of<&kAvx2FloatKernels>(type);
#elif defined(__aarch64__)
  if (features.isa() == Isa::kNeon) return table_of<&kNeonFloatKernels>(type);
#endif
  static_cast<void>(features);
  return table_of<&kPortableFloatKernels>(type);
}

}  // namespace rooftree::kernels::cpu

namespace rooftree::kernels {

bool fits_lossless12(std::int64_t n, std::int64_t k, const std::byte* bf16_rows) {
  std::int64_t escapes = 0;
  for (std::int64_t first = 0; first < n; first += cpu::kFloatUnit) {
    // Four tables, so that equal neighbours do not wait for each other's count.
    std::array<std::array<std::int64_t, 256>, 4> counts{};
    const std::int64_t values = std::min(cpu::kFloatUnit, n - first) * k;
    for (std::int64_t i = 0; i < values; ++i) {
      std::uint16_t value = 0;
      std::memcpy(&value, bf16_rows + (first * k + i) * 2, sizeof value);
      ++counts[cpu::bytes(i % 4)][cpu::without_tiny_bf16(value) >> 8];
    }
    std::array<std::int64_t, 256> sum{};
    for (std::size_t b = 0; b < 256; ++b) sum[b] = counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b];
    const std::int64_t unit_escapes = cpu::choose_high_bytes(sum).escapes;
    if (unit_escapes > cpu::CodedHeader(k).capacity) return false;
    escapes += unit_escapes;
  }
  return escapes * 500 <= n * k;
}

}  // namespace rooftree::kernels

#pragma once

// Products with floating-point weights (f32, f16, bf16, bf16 in 12 bits): the parts that instruction sets provide and the
// layouts that they share. Private to float_products*.cc.
//
// Weights: units of 64 outputs; within a unit one record per step, a step being one k (f32, f16) or a pair of k (bf16):
//   f32    256 B  float  [64]
//   f16    128 B  half   [64]
//   bf16   256 B  dword  [64], k + 1 in the low half, k in the high half: VDPBF16PS adds the high halves' product first
//   12 bit 192 B  the same 128 halves without their high byte (sign and 7 exponent bits), then the codes of the high bytes;
//                 see Lossless12
// Every instruction set reads this one layout. K is cut into segments of 512 (the contract's): the segment's records of a unit
// are the panel that all row tiles pass over before the next segment.
//
// Activations: blocks of at most 512 rows; in a block by segment, then by tile of 1 to 6 rows; in a tile by 16 dwords of k:
// dword [16 of k][row][16]. A dword is a float, or a pair of bf16 like a weight's where the kernels take pairs. The last 16 of
// a segment are filled with zeros.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/backend.h"

#define ROOFTREE_INLINE __attribute__((always_inline)) inline

namespace rooftree::kernels::cpu {

inline constexpr std::int64_t kFloatUnit = 64;   // outputs
inline constexpr std::int64_t kSegment = 512;    // k
inline constexpr std::int64_t kRowBlock = 512;   // rows whose partial sums are kept at a time
inline constexpr int kMaxTileRows = 6;           // 6 x 64 sums are 24 vectors of 16: enough chains, no spills with 32 registers
inline constexpr std::int64_t kLaneDwords = 16;  // dwords of one row side by side in a tile
inline constexpr std::int64_t kStreamAhead = 4096;  // bytes that a stream is prefetched ahead of its use: 2 to 9 KiB are equal
inline constexpr std::size_t kBf16PairBytes = 256;  // record of two k
inline constexpr std::size_t kCodedPairBytes = 192;

enum class FloatStorage : std::uint8_t { kF32, kF16, kBf16, kBf16Coded };
inline constexpr int kFloatStorageCount = 4;

// Values that the contract reads as zero: bf16 of magnitude below 2^-55 (biased exponent 72).
[[nodiscard]] constexpr std::uint16_t without_tiny_bf16(std::uint16_t bits) {
  return (bits & 0x7FFFU) < (72U << 7) ? static_cast<std::uint16_t>(bits & 0x8000U) : bits;
}

// One exception of the 12-bit form: bits 23.. the k pair in the segment, 16..22 the half in the record, 0..15 its true value.
using Escape = std::uint32_t;
[[nodiscard]] constexpr std::int64_t escape_pair(Escape e) { return e >> 23; }
[[nodiscard]] constexpr unsigned escape_half(Escape e) { return (e >> 16) & 127U; }
[[nodiscard]] constexpr std::uint16_t escape_value(Escape e) { return static_cast<std::uint16_t>(e & 0xFFFFU); }

// The coded records of one segment. Record of a pair: line 0 and 1 hold low bytes, line 2 codes; byte p of line b < 2 belongs
// to half coded_half(b, p) of the 128 of the bf16 record, its code is the low (b = 0) or high (b = 1) nibble of byte p of
// line 2. The order is what interleaving bytes within 128-bit lanes (punpcklbw, zip1) turns into the bf16 record.
struct Lossless12 {
  const std::byte* records = nullptr;
  const std::uint8_t* high_bytes = nullptr;  // [16]
  const Escape* escapes = nullptr;           // rising
  std::int64_t escape_count = 0;
};
[[nodiscard]] constexpr int coded_half(int line, int byte) {
  return (2 * line + byte % 16 / 8) * 32 + byte / 16 * 8 + byte % 8;
}

inline void patch_escapes(const Lossless12& coded, std::byte* bf16_records) {
  for (std::int64_t i = 0; i < coded.escape_count; ++i) {
    const Escape e = coded.escapes[i];
    const std::uint16_t value = escape_value(e);
    std::memcpy(bf16_records + escape_pair(e) * static_cast<std::int64_t>(kBf16PairBytes) + 2 * escape_half(e), &value,
                sizeof value);
  }
}

// One tile of 1 to 6 rows times 64 outputs over one segment.
struct TileJob {
  const std::byte* weights = nullptr;      // records of the segment
  Lossless12 coded;                        // kBf16Coded instead of weights,
  std::byte* decoded = nullptr;            //   which it leaves here as bf16 records unless it is a stream
  const std::byte* activations = nullptr;  // the tile's, of the segment
  std::int64_t steps = 0;                  // records
  // What later calls will read: brought to the second cache level meanwhile. None when the weights are a stream that is read
  // once (single tile): then the kernel itself runs ahead.
  const std::byte* ahead = nullptr;
  std::int64_t ahead_lines = 0;
  // Segment sums wait in float [level][row][64] until their neighbour is there. `depth` levels are occupied; this segment's sum
  // is added to the last `merges` of them, last first, and stored at level depth - merges.
  float* partial = nullptr;
  std::int64_t level_stride = 0;
  int depth = 0, merges = 0;
};
using TileKernel = void (*)(const TileJob& job);

// What an instruction set provides.
struct FloatKernels {
  // By storage, rows - 1, and whether the weights are a stream (single tile). All of kBf16Coded may be null: unpack first.
  TileKernel tile[kFloatStorageCount][kMaxTileRows][2] = {};
  // To bf16 records.
  void (*unpack_coded)(const Lossless12& coded, std::int64_t pairs, std::byte* out) = nullptr;
  // k values to dwords as `out` of a tile holds them: 16 dwords, then the next 16 `stride` dwords on; filled with zeros to a
  // multiple of 16.
  void (*pack_f32)(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) = nullptr;
  void (*pack_f16)(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) = nullptr;
  void (*pack_bf16)(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) = nullptr;
  bool bf16_pairs = false;  // pack_bf16 writes pairs
};

extern const FloatKernels kPortableFloatKernels;
#if defined(__x86_64__)
extern const FloatKernels kAvx2FloatKernels;
extern const FloatKernels kAvx512FloatKernels;
extern const FloatKernels kAvx512Bf16FloatKernels;
#elif defined(__aarch64__)
extern const FloatKernels kNeonFloatKernels;
#endif

}  // namespace rooftree::kernels::cpu

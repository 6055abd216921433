// Tiles of floating-point products over the vectors of one instruction set. Included once per instruction set, inside its
// namespace and target region, after a struct V with:
//   Floats, kWidth; zero(), load(const float*), store(float*, Floats), broadcast(const float*), add(a, b)
//   multiply_add(acc, a, b)  acc + a * b where the product is exact: fused or not
//   fused(acc, a, b)         acc + a * b, rounded once
//   load_f16(p), load_bf16_high(p), load_bf16_low(p)   kWidth values from 2 * kWidth or 4 * kWidth bytes
//   columns(rows)            vectors of columns in a tile of that many rows: what the registers hold
// No pragma once: it is there to be included again.

// Records of `kBytes` with kPerRecord values of k for each of the 64 outputs; load<q> gives value q of kWidth outputs.
struct F32Weights {
  static constexpr int kPerRecord = 1;
  static constexpr std::int64_t kBytes = 256;
  template <int kQ>
  ROOFTREE_INLINE static V::Floats load(const std::byte* record, std::int64_t column) {
    return V::load(reinterpret_cast<const float*>(record) + column);
  }
  ROOFTREE_INLINE static V::Floats step(V::Floats acc, V::Floats w, V::Floats x) { return V::fused(acc, w, x); }
};
struct F16Weights {
  static constexpr int kPerRecord = 1;
  static constexpr std::int64_t kBytes = 128;
  template <int kQ>
  ROOFTREE_INLINE static V::Floats load(const std::byte* record, std::int64_t column) {
    return V::load_f16(record + 2 * column);
  }
  ROOFTREE_INLINE static V::Floats step(V::Floats acc, V::Floats w, V::Floats x) { return V::multiply_add(acc, w, x); }
};
struct Bf16Weights {
  static constexpr int kPerRecord = 2;
  static constexpr std::int64_t kBytes = 256;
  template <int kQ>
  ROOFTREE_INLINE static V::Floats load(const std::byte* record, std::int64_t column) {
    return kQ == 0 ? V::load_bf16_high(record + 4 * column) : V::load_bf16_low(record + 4 * column);
  }
  ROOFTREE_INLINE static V::Floats step(V::Floats acc, V::Floats w, V::Floats x) { return V::multiply_add(acc, w, x); }
};

template <int kRows, int kColumns>
ROOFTREE_INLINE void store_sums(V::Floats (&acc)[kRows][kColumns], const TileJob& job, std::int64_t column) {
  float* out = job.partial + column;
  for (int m = 1; m <= job.merges; ++m) {
    const float* older = out + (job.depth - m) * job.level_stride;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int c = 0; c < kColumns; ++c) acc[r][c] = V::add(V::load(older + r * kFloatUnit + c * V::kWidth), acc[r][c]);
    }
  }
  out += (job.depth - job.merges) * job.level_stride;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) V::store(out + r * kFloatUnit + c * V::kWidth, acc[r][c]);
  }
}

// Brings what comes next while a tile computes: lines of its own stream a few KiB on, or the tile's share of the next panel.
// Lines beyond the share repeat its last one, which costs no branch.
template <bool kStream, std::int64_t kBytes>
ROOFTREE_INLINE void prefetch_step(const TileJob& job, const std::byte* record, std::int64_t step) {
  if constexpr (kStream) {
#pragma GCC unroll 4
    for (std::int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(record + kStreamAhead + at, 0, 3);
  } else {
#pragma GCC unroll 2
    for (std::int64_t j = 0; j < 2; ++j) {
      const std::int64_t line = 2 * step + j;
      __builtin_prefetch(job.ahead + 64 * (line < job.ahead_lines ? line : job.ahead_lines), 0, 2);
    }
  }
}

template <class Weights, int kRows, int kColumns, bool kStream>
ROOFTREE_INLINE void tile_strip(const TileJob& job, std::int64_t column) {
  V::Floats acc[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) acc[r][c] = V::zero();
  }
  const std::byte* record = job.weights;
  const float* x = reinterpret_cast<const float*>(job.activations);
  constexpr std::int64_t kLaneRecords = kLaneDwords / Weights::kPerRecord;
  for (std::int64_t done = 0; done < job.steps; done += kLaneRecords) {
    const std::int64_t count = job.steps - done < kLaneRecords ? job.steps - done : kLaneRecords;
#pragma GCC unroll 1
    for (std::int64_t s = 0; s < count; ++s) {
      prefetch_step<kStream, Weights::kBytes>(job, record, done + s);
#pragma GCC unroll 2
      for (int q = 0; q < Weights::kPerRecord; ++q) {
        V::Floats w[kColumns];
#pragma GCC unroll 16
        for (int c = 0; c < kColumns; ++c) {
          w[c] = q == 0 ? Weights::template load<0>(record, column + c * V::kWidth)
                        : Weights::template load<1>(record, column + c * V::kWidth);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const V::Floats value = V::broadcast(x + r * kLaneDwords + q);
#pragma GCC unroll 16
          for (int c = 0; c < kColumns; ++c) acc[r][c] = Weights::step(acc[r][c], w[c], value);
        }
      }
      record += Weights::kBytes;
      x += Weights::kPerRecord;
    }
    x += (kRows - 1) * kLaneDwords;
  }
  store_sums<kRows, kColumns>(acc, job, column);
}

// With few rows one strip covers the unit and its records are read in order; more rows take narrower strips, one after the
// other over the panel, the first of which does the prefetching.
template <class Weights, int kRows, bool kStream>
void tile(const TileJob& job) {
  constexpr int kColumns = V::columns(kRows);
  constexpr std::int64_t kStrip = kColumns * V::kWidth;
  static_assert(kFloatUnit % kStrip == 0);
  tile_strip<Weights, kRows, kColumns, kStream>(job, 0);
  for (std::int64_t column = kStrip; column < kFloatUnit; column += kStrip) {
    tile_strip<Weights, kRows, kColumns, false>(job, column);
  }
}

template <class Weights, int kRows = 1>
constexpr void fill_tiles(TileKernel (&table)[kMaxTileRows][2]) {
  table[kRows - 1][0] = tile<Weights, kRows, false>;
  table[kRows - 1][1] = tile<Weights, kRows, true>;
  if constexpr (kRows < kMaxTileRows) fill_tiles<Weights, kRows + 1>(table);
}

// ---- activations

// Plain loops that the compiler turns into the vectors of the region.
void pack_f32(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  for (std::int64_t i = 0; i < k; i += kLaneDwords, out += stride) {
    if (i + kLaneDwords <= k) {
      std::memcpy(out, x + i, kLaneDwords * sizeof(float));
    } else {
      for (std::int64_t j = 0; j < kLaneDwords; ++j) out[j] = i + j < k ? std::bit_cast<std::uint32_t>(x[i + j]) : 0U;
    }
  }
}

// Rounded to bf16, tiny ones dropped, as the bits of a float.
ROOFTREE_INLINE std::uint32_t rounded_bf16(std::uint32_t bits) {
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  const std::uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
  const std::uint32_t number = (rounded & 0x7FFFFFFFU) < (72U << 23) ? bits & 0x80000000U : rounded;
  return magnitude > 0x7F800000U ? (bits | 0x00400000U) & 0xFFFF0000U : number;
}
void pack_bf16(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  std::uint32_t lane[kLaneDwords];
  for (std::int64_t i = 0; i < k; i += kLaneDwords, out += stride) {
    pack_f32(x + i, k - i < kLaneDwords ? k - i : kLaneDwords, kLaneDwords, lane);
    for (std::int64_t j = 0; j < kLaneDwords; ++j) out[j] = rounded_bf16(lane[j]);
  }
}
// Pairs: k + 1 in the low half.
[[maybe_unused]] void pack_bf16_pairs(const float* x, std::int64_t k, std::int64_t stride, std::uint32_t* out) {
  std::uint32_t lane[2 * kLaneDwords];
  for (std::int64_t i = 0; i < k; i += 2 * kLaneDwords, out += stride) {
    const std::int64_t count = k - i < 2 * kLaneDwords ? k - i : 2 * kLaneDwords;
    pack_f32(x + i, count, kLaneDwords, lane);
    if (count <= kLaneDwords) std::memset(lane + kLaneDwords, 0, kLaneDwords * sizeof lane[0]);
    for (std::int64_t j = 0; j < kLaneDwords; ++j) {
      out[j] = rounded_bf16(lane[2 * j]) | (rounded_bf16(lane[2 * j + 1]) >> 16);
    }
  }
}

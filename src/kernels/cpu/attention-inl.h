#pragma once

// Attention over the paged KV cache, compiled once per instruction set. One call works on tiles: up to kTileRows query rows
// (the query heads that share a key-value head count as rows, so that they share every load) against blocks of 256 positions:
//   scores   S (rows, 256) = Q K^T, micro-tiles of kRows x kGroups vectors of 16 positions
//   softmax  scale, modifier, mask, running maximum, exp, rounding, row sums
//   values   O (rows, value_dim) = O * rescale + P V, micro-tiles of kRows x kGroups vectors of 16 dimensions
// Every output is one chain in the contract's order, so tiles may be cut anywhere. Keys and values must be finite.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/vector-inl.h"

namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE {

// Accumulators of a micro-tile: 24 of the 32 registers of AVX-512; AVX2 and NEON hold a vector of 16 in 2 and 4 registers.
#if defined(ROOFTREE_ISA_AVX512)
inline constexpr int kRows = 6, kGroups = 4;
#elif defined(ROOFTREE_ISA_NEON)
inline constexpr int kRows = 3, kGroups = 2;
#elif defined(ROOFTREE_ISA_AVX2)
inline constexpr int kRows = 3, kGroups = 2;
#else
inline constexpr int kRows = 2, kGroups = 1;
#endif
inline constexpr std::int64_t kTileRows = 48;  // S and P of a tile, 48 + 24 KiB, stay in L2; a multiple of kRows
inline constexpr int kBlockGroups = static_cast<int>(kKvBlock / kKvGroup);
inline constexpr float kMasked = -std::numeric_limits<float>::infinity();

// ---- Operands ----
// How queries and probabilities are held (`A`, broadcast) and how keys and values are read (16 lanes per step). A step is
// kValues consecutive values of the chain.

// The smallest magnitude that rounds to a bf16 of at least 2^-55; smaller operands are zero by the contract.
inline constexpr float kBf16Least = 0x1.ff8p-56F;

#if defined(ROOFTREE_ISA_BF16_DOT)
struct Bf16 {
  using A = std::int32_t;  // a pair: the first of the chain in the upper half
  static constexpr int kValues = 2, kAPerStep = 1, kVectorBytes = 64;

  // Stores 16 values at value `at` of a row, rounded, and returns them.
  ROOFTREE_LANE_INLINE static F32 store_rounded(A* row, std::int64_t at, F32 x) {
    x = select(less(absolute(x), set(kBf16Least)), zero(), x);
    const __m256i half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x.v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + at / 2), _mm256_ror_epi32(half, 16));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  }
  template <int R, int G>
  ROOFTREE_LANE_INLINE static void step(F32 (&acc)[R][G], const A* a, std::int64_t a_stride, const std::byte* const* b) {
    __m512bh keys[G];
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) keys[g] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b[g]));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = reinterpret_cast<__m512bh>(_mm512_set1_epi32(a[r * a_stride]));
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) acc[r][g].v = _mm512_dpbf16_ps(acc[r][g].v, pair, keys[g]);
    }
  }
};
#else
struct Bf16 {
  using A = float;
  static constexpr int kValues = 2, kAPerStep = 2, kVectorBytes = 64;

  ROOFTREE_LANE_INLINE static F32 store_rounded(A* row, std::int64_t at, F32 x) {
    x = round_bf16(x);
    store(row + at, x);
    return x;
  }
  template <int R, int G>
  ROOFTREE_LANE_INLINE static void step(F32 (&acc)[R][G], const A* a, std::int64_t a_stride, const std::byte* const* b) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const I32 pair = load_int(reinterpret_cast<const std::int32_t*>(b[g]));
      const F32 first = from_bits(bit_and(pair, set_int(-0x10000)));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][g] = exact_multiply_add(set(a[r * a_stride]), first, acc[r][g]);
      const F32 second = from_bits(shift_left<16>(pair));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][g] = exact_multiply_add(set(a[r * a_stride + 1]), second, acc[r][g]);
    }
  }
  // The product is exact, so fused and separate agree; fused only where it is an instruction.
  ROOFTREE_LANE_INLINE static F32 exact_multiply_add(F32 a, F32 b, F32 c) {
#if defined(ROOFTREE_ISA_AVX512) || defined(ROOFTREE_ISA_AVX2) || defined(ROOFTREE_ISA_NEON)
    return fma(a, b, c);
#else
    return add(c, mul(a, b));
#endif
  }
};
#endif

struct F16 {
  using A = float;
  static constexpr int kValues = 1, kAPerStep = 1, kVectorBytes = 32;

  ROOFTREE_LANE_INLINE static F32 store_rounded(A* row, std::int64_t at, F32 x) {
    x = round_f16(x);
    store(row + at, x);
    return x;
  }
  template <int R, int G>
  ROOFTREE_LANE_INLINE static void step(F32 (&acc)[R][G], const A* a, std::int64_t a_stride, const std::byte* const* b) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const F32 v = load_f16(reinterpret_cast<const std::uint16_t*>(b[g]));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#if defined(ROOFTREE_ISA_AVX512) || defined(ROOFTREE_ISA_AVX2) || defined(ROOFTREE_ISA_NEON)
        acc[r][g] = fma(set(a[r * a_stride]), v, acc[r][g]);  // exact product: as separate
#else
        acc[r][g] = add(acc[r][g], mul(set(a[r * a_stride]), v));
#endif
      }
    }
  }
};

struct Float {
  using A = float;
  static constexpr int kValues = 1, kAPerStep = 1, kVectorBytes = 64;

  ROOFTREE_LANE_INLINE static F32 store_rounded(A* row, std::int64_t at, F32 x) {
    store(row + at, x);
    return x;
  }
  template <int R, int G>
  ROOFTREE_LANE_INLINE static void step(F32 (&acc)[R][G], const A* a, std::int64_t a_stride, const std::byte* const* b) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      const F32 v = load(reinterpret_cast<const float*>(b[g]));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) acc[r][g] = fma(set(a[r * a_stride]), v, acc[r][g]);
    }
  }
};

// ---- Micro-tiles ----

// To the second level: a core has far more outstanding misses there (Zen 4: 0.43 of the read rate against 0.29 with the first).
ROOFTREE_LANE_INLINE void prefetch(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

// S[r][16 g + lane] = chain over `steps` of q_r * keys of group g. `ahead`: lines to prefetch, one per line read.
template <class Op, int R, int G, bool kPrefetch>
__attribute__((noinline)) void score_tile(const typename Op::A* q, std::int64_t q_stride, const std::byte* const* keys,
                                          const std::byte* const* ahead, std::int64_t steps, float* scores) {
  F32 acc[R][G];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) acc[r][g] = zero();
  }
  const std::byte* at[G];
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) at[g] = keys[g];
  std::int64_t offset = 0;
#pragma GCC unroll 1
  for (std::int64_t s = 0; s < steps; ++s) {
    if constexpr (kPrefetch) {
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) prefetch(ahead[g] + offset);
      offset += Op::kVectorBytes;
    }
    Op::template step<R, G>(acc, q, q_stride, at);
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) at[g] += Op::kVectorBytes;
    q += Op::kAPerStep;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) store(scores + r * kKvBlock + g * kLanes, acc[r][g]);
  }
}

// O[r] = O[r] * rescale[r] + chain over the positions of `count` groups of p_r * values, for G vectors of 16 dimensions. A
// group is 16 / kValues steps of `step_bytes`.
template <class Op, int R, int G, bool kPrefetch>
__attribute__((noinline)) void value_tile(const typename Op::A* p, const std::byte* const* values,
                                          const std::byte* const* ahead, std::int64_t count, std::int64_t byte_offset,
                                          std::int64_t step_bytes, const float* rescale, float* out, std::int64_t out_stride) {
  constexpr std::int64_t kPStride = kKvBlock / Op::kValues * Op::kAPerStep;
  F32 acc[R][G];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) acc[r][g] = zero();
  }
#pragma GCC unroll 1
  for (std::int64_t i = 0; i < count; ++i) {
    const std::byte* row = values[i] + byte_offset;
    [[maybe_unused]] const std::byte* next = ahead[i] + byte_offset;
#pragma GCC unroll 1
    for (int s = 0; s < kKvGroup / Op::kValues; ++s) {
      const std::byte* at[G];
#pragma GCC unroll 8
      for (int g = 0; g < G; ++g) at[g] = row + g * Op::kVectorBytes;
      if constexpr (kPrefetch) {
#pragma GCC unroll 8
        for (int g = 0; g < G; ++g) prefetch(next + g * Op::kVectorBytes);
        next += step_bytes;
      }
      Op::template step<R, G>(acc, p, kPStride, at);
      row += step_bytes;
      p += Op::kAPerStep;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const F32 factor = set(rescale[r]);
#pragma GCC unroll 8
    for (int g = 0; g < G; ++g) {
      float* o = out + r * out_stride + g * kLanes;
      store(o, add(mul(load(o), factor), acc[r][g]));
    }
  }
}

// Calls Tile<R> for the rows that are left, R <= kRows.
#define ROOFTREE_BY_ROWS(rows, CALL) \
  switch (rows) {                    \
    case 1:                          \
      CALL(1);                       \
      break;                         \
    case 2:                          \
      CALL(2);                       \
      break;                         \
    case 3:                          \
      CALL(kRows < 3 ? kRows : 3);   \
      break;                         \
    case 4:                          \
      CALL(kRows < 4 ? kRows : 4);   \
      break;                         \
    case 5:                          \
      CALL(kRows < 5 ? kRows : 5);   \
      break;                         \
    default:                         \
      CALL(kRows);                   \
      break;                         \
  }

// ---- Quantised keys and values, read as bf16 ----

// Two vectors as pairs, `first` in the upper halves; not for values below 2^-55.
ROOFTREE_LANE_INLINE I32 bf16_pairs(F32 first, F32 second) {
#if defined(ROOFTREE_ISA_BF16_DOT)
  const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(first.v, second.v));  // `second` in the low half
  const __m512i interleave =
      _mm512_add_epi32(_mm512_set1_epi32(16 << 16), _mm512_mullo_epi32(lane_numbers().v, _mm512_set1_epi32(0x10001)));
  return {_mm512_permutexvar_epi16(interleave, halves)};
#else
  return bit_or(bf16_bits(first), shift_right<16>(bf16_bits(second)));
#endif
}

template <int Bits, int Index>
ROOFTREE_LANE_INLINE F32 stored_integer(I32 dwords) {
  return to_float(shift_right_signed<32 - Bits>(shift_left<32 - Bits - Bits * Index>(dwords)));
}
struct OneScale {  // of all values: a key's dwords hold dimensions of one block
  F32 scale;
  ROOFTREE_LANE_INLINE F32 operator()(int /*unused*/) const { return scale; }
};
struct ScalePerPosition {
  const float* factors;
  ROOFTREE_LANE_INLINE F32 operator()(int j) const { return set(factors[j]); }
};
// Stores the pairs of one dword vector, `stride` bytes apart; scale(i) is the factor of value i.
template <int Bits, int Pair, class Scale>
ROOFTREE_LANE_INLINE void unpack_pairs(I32 dwords, std::byte* out, std::int64_t stride, Scale scale) {
  const F32 first = mul(stored_integer<Bits, 2 * Pair>(dwords), scale(2 * Pair));
  const F32 second = mul(stored_integer<Bits, 2 * Pair + 1>(dwords), scale(2 * Pair + 1));
  store_int(reinterpret_cast<std::int32_t*>(out + Pair * stride), bf16_pairs(first, second));
  if constexpr (2 * Pair + 2 < 32 / Bits) unpack_pairs<Bits, Pair + 1>(dwords, out, stride, scale);
}

// A group of keys: from dwords of 32/Bits dimensions to bf16's layout.
template <int Bits>
inline void unpack_keys(const std::byte* group, std::int64_t scale_bytes, std::int64_t dims, std::byte* out) {
  constexpr std::int64_t kPerDword = 32 / Bits;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(group);
  const std::byte* dwords = group + scale_bytes;
  for (std::int64_t block = 0; block < dims / 32; ++block) {
    const F32 scale = load_f16(scales + block * kKvGroup);
    for (std::int64_t i = 0; i < 32 / kPerDword; ++i) {
      unpack_pairs<Bits, 0>(load_int(reinterpret_cast<const std::int32_t*>(dwords)), out, 64, OneScale{scale});
      dwords += 64;
      out += kPerDword / 2 * 64;
    }
  }
}
// A group of values: from dwords of 32/Bits positions to bf16's layout, rows of dims * 4 bytes.
template <int Bits>
inline void unpack_values(const std::byte* group, std::int64_t scale_bytes, std::int64_t dims, std::byte* out) {
  constexpr std::int64_t kPerDword = 32 / Bits;
  const auto* scales = reinterpret_cast<const std::uint16_t*>(group);
  const std::byte* dwords = group + scale_bytes;
  for (std::int64_t block = 0; block < dims / 32; ++block) {
    float factors[kKvGroup];
    store(factors, load_f16(scales + block * kKvGroup));
    for (std::int64_t i = 0; i < kKvGroup / kPerDword; ++i) {
      for (std::int64_t half = 0; half < 2; ++half) {
        const std::int64_t at = block * 128 + half * 64;
        unpack_pairs<Bits, 0>(load_int(reinterpret_cast<const std::int32_t*>(dwords + i * dims * 4 + at)),
                              out + i * (kPerDword / 2) * dims * 4 + at, dims * 4, ScalePerPosition{factors + i * kPerDword});
      }
    }
  }
}

// ---- Stored types ----

template <DType Type>
struct Stored;
template <>
struct Stored<DType::kF32> {
  using Op = Float;
  static constexpr int kBits = 0;  // of the integers; 0: read in place
};
template <>
struct Stored<DType::kF16> {
  using Op = F16;
  static constexpr int kBits = 0;
};
template <>
struct Stored<DType::kBf16> {
  using Op = Bf16;
  static constexpr int kBits = 0;
};
template <>
struct Stored<DType::kQ8_0> {
  using Op = Bf16;
  static constexpr int kBits = 8;
};
template <>
struct Stored<DType::kQ4_0> {
  using Op = Bf16;
  static constexpr int kBits = 4;
};

// ---- Score modifiers: score' of 16 keys from `key` on ----

struct ModifierRow {
  std::int64_t head = 0, query = 0, end = 0;  // end: positions that exist
  const std::int32_t* buckets = nullptr;      // by distance, of relative_buckets
};
struct NoModifier {
  explicit NoModifier(const ScoreModifier& /*unused*/) {}
  ROOFTREE_LANE_INLINE F32 operator()(F32 score, const ModifierRow& /*unused*/, std::int64_t /*unused*/) const { return score; }
};
struct Softcap {
  float cap;
  explicit Softcap(const ScoreModifier& m) : cap(m.softcap) {}
  ROOFTREE_LANE_INLINE F32 operator()(F32 score, const ModifierRow& /*unused*/, std::int64_t /*unused*/) const {
    return mul(set(cap), tanh(div(score, set(cap))));
  }
};
struct Alibi {
  const float* slopes;
  explicit Alibi(const ScoreModifier& m) : slopes(m.slopes) {}
  ROOFTREE_LANE_INLINE F32 operator()(F32 score, const ModifierRow& row, std::int64_t key) const {
    const F32 distance = to_float(sub(set_int(static_cast<std::int32_t>(row.query - key)), lane_numbers()));
    return sub(score, mul(set(slopes[row.head]), distance));
  }
};
struct RelativeBias {
  const float* bias;
  std::int64_t buckets, max_distance;
  bool bidirectional;
  explicit RelativeBias(const ScoreModifier& m)
      : bias(m.bias), buckets(m.buckets), max_distance(m.max_distance), bidirectional(m.bidirectional) {}
  ROOFTREE_LANE_INLINE F32 operator()(F32 score, const ModifierRow& row, std::int64_t key) const {
    float values[kLanes];
    for (std::int64_t i = 0; i < kLanes; ++i) {
      const std::int64_t ahead = key + i - row.query;  // positive: the key comes after the query
      std::int64_t distance = ahead < 0 ? -ahead : ahead, first = 0;
      if (bidirectional) {
        first = ahead > 0 ? buckets / 2 : 0;
      } else if (ahead > 0) {
        distance = 0;
      }
      values[i] = bias[row.head * buckets + first + row.buckets[distance < max_distance ? distance : max_distance]];
    }
    return add(score, load(values));
  }
};
struct DocumentMask {
  const std::int32_t* documents;
  explicit DocumentMask(const ScoreModifier& m) : documents(m.documents) {}
  ROOFTREE_LANE_INLINE F32 operator()(F32 score, const ModifierRow& row, std::int64_t key) const {
    std::int32_t of_keys[kLanes] = {};
    for (std::int64_t i = 0; i < kLanes && key + i < row.end; ++i) of_keys[i] = documents[key + i];
    return select(equal(load_int(of_keys), set_int(documents[row.query])), score, set(kMasked));
  }
};

// ---- One tile ----

// Lines that will be read soon, fetched while the softmax computes, which touches no memory itself.
struct Stream {
  const std::byte* at[3 * kBlockGroups];
  std::int64_t lines[3 * kBlockGroups];
  int count, segment;
  std::int64_t line, per_step;

  ROOFTREE_LANE_INLINE void add_segment(const std::byte* p, std::int64_t bytes) {
    at[count] = p;
    lines[count++] = bytes / 64;
  }
  ROOFTREE_LANE_INLINE void step() {
    for (std::int64_t i = 0; i < per_step && segment < count; ++i) {
      prefetch(at[segment] + line * 64);
      if (++line == lines[segment]) {
        ++segment;
        line = 0;
      }
    }
  }
};
// How many groups each phase fetches.
struct FetchPlan {
  int total, scores, softmax;
};
// Of `total` groups, for a block of `groups` with micro-tiles of `key_steps` and `value_steps` per group. The softmax of 16
// scores takes as long as some 40 steps. Unpacking kernels (not `in_place`) fetch in the softmax alone.
inline FetchPlan fetch_plan(int total, int groups, std::int64_t key_steps, std::int64_t value_steps, bool in_place) {
  if (!in_place) return {total, 0, total};
  constexpr std::int64_t kSoftmaxSteps = 40;
  const std::int64_t all = key_steps + kSoftmaxSteps + value_steps;
  const auto scores = static_cast<int>((total * key_steps + all / 2) / all);
  const auto values = static_cast<int>((total * value_steps + all / 2) / all);
  const int first = scores < groups ? scores : groups, last = values < groups ? values : groups;
  return {total, first, total - first - last > 0 ? total - first - last : 0};
}
inline constexpr std::int64_t kStreamRows = 16;  // tiles of more rows are limited by arithmetic

// Rows [first, first + rows) of a sequence and key-value head, counted as query row * group + query head of the group.
struct Tile {
  const SequenceRows* sequence = nullptr;
  std::int64_t kv_head = 0, first = 0, rows = 0;
};

// Positions that query row `local` of the sequence sees.
ROOFTREE_LANE_INLINE Range visible(const AttentionArgs& args, const SequenceRows& s, std::int64_t local) {
  const std::int64_t position = s.past + local;
  const std::int64_t begin = args.window > 0 && position + 1 > args.window ? position + 1 - args.window : 0;
  return {begin, args.causal ? position + 1 : s.past + s.rows};
}

template <class A>
struct TileMemory {
  float* scores;      // (kTileRows, 256)
  A* probabilities;   // (kTileRows, 256)
  A* queries;         // (kTileRows, q_stride)
  float* out;         // (kTileRows, value_padded)
  std::byte* keys;    // unpacked keys of kGroups groups
  std::byte* values;  // unpacked values of a block
  std::byte* last;    // the last group of values, cleared behind its end
  std::int32_t* buckets;
  float *m, *l, *rescale;  // (kTileRows)
  std::int64_t q_stride;
};

ROOFTREE_LANE_INLINE std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

template <class Op>
TileMemory<typename Op::A> tile_memory(const AttentionArgs& args, const PageLayout& layout, bool unpacks) {
  using A = typename Op::A;
  const KvShape& shape = args.cache.shape;
  TileMemory<A> t{};
  t.q_stride = round_up(shape.head_dim, kLanes) / Op::kValues * Op::kAPerStep;
  std::int64_t total = 0;
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t at = total;
    total += round_up(bytes, 64);
    return at;
  };
  constexpr auto kA = static_cast<std::int64_t>(sizeof(A));
  const std::int64_t scores = take(kTileRows * kKvBlock * 4);
  const std::int64_t probabilities = take(kTileRows * kKvBlock / Op::kValues * Op::kAPerStep * kA);
  const std::int64_t queries = take(kTileRows * t.q_stride * kA);
  const std::int64_t out = take(kTileRows * layout.value_padded * 4);
  const std::int64_t keys = take(unpacks ? kGroups * shape.head_dim * kKvGroup * 2 : 0);
  const std::int64_t values = take(unpacks ? kKvBlock * layout.value_padded * 2 : 0);
  const std::int64_t last = take(kKvGroup * layout.value_padded * Op::kVectorBytes / (kLanes * Op::kValues));
  const std::int64_t buckets =
      take(args.modifier.kind == ScoreModifier::Kind::kRelativeBias ? (args.modifier.max_distance + 1) * 4 : 0);
  const std::int64_t state = take(3 * kTileRows * 4);
  std::byte* base = attention_scratch(static_cast<std::size_t>(total));
  t.scores = reinterpret_cast<float*>(base + scores);
  t.probabilities = reinterpret_cast<A*>(base + probabilities);
  t.queries = reinterpret_cast<A*>(base + queries);
  t.out = reinterpret_cast<float*>(base + out);
  t.keys = base + keys;
  t.values = base + values;
  t.last = base + last;
  t.buckets = reinterpret_cast<std::int32_t*>(base + buckets);
  t.m = reinterpret_cast<float*>(base + state);
  t.l = t.m + kTileRows;
  t.rescale = t.l + kTileRows;
  return t;
}

// Scores of groups [begin, end) of a block to probabilities, running maximum, sum and rescaling factor of each row.
template <class Op, class Modifier>
__attribute__((noinline)) void softmax_rows(const AttentionArgs& args, const Tile& tile, std::int64_t block, int begin, int end,
                                            const TileMemory<typename Op::A>& t, Stream& stream) {
  const Modifier modifier(args.modifier);
  const std::int64_t group = args.heads / args.cache.shape.kv_heads;
  const F32 scale = set(args.scale);
  float tops[kTileRows];
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t local = (tile.first + r) / group;
    const Range seen = visible(args, *tile.sequence, local);
    const ModifierRow row{tile.kv_head * group + (tile.first + r) % group, tile.sequence->past + local,
                          tile.sequence->past + tile.sequence->rows, t.buckets};
    float* scores = t.scores + r * kKvBlock;
    F32 top = set(kMasked);
    for (int g = begin; g < end; ++g) {
      const std::int64_t key = block * kKvBlock + g * kKvGroup;
      F32 s = modifier(mul(load(scores + g * kLanes), scale), row, key);
      if (key < seen.begin || key + kLanes > seen.end) {
        const I32 keys = add(lane_numbers(), set_int(static_cast<std::int32_t>(key)));
        s = select(less(keys, set_int(static_cast<std::int32_t>(seen.end))), s, set(kMasked));
        s = select(less(keys, set_int(static_cast<std::int32_t>(seen.begin))), set(kMasked), s);
      }
      store(scores + g * kLanes, s);
      top = max(top, s);
      stream.step();
    }
    tops[r] = max_lanes(top);
  }
  for (std::int64_t r = tile.rows; r < round_up(tile.rows, kLanes); ++r) tops[r] = t.m[r] = kMasked;
  for (std::int64_t r = 0; r < tile.rows; r += kLanes) {
    const F32 before = load(t.m + r), top = load(tops + r);
    const F32 after = max(before, top);
    // Rows that see nothing of this block keep what they have.
    const F32 factor = select(equal(top, set(kMasked)), set(1.0F), exp_nonpositive(sub(before, after)));
    store(t.m + r, after);
    store(t.rescale + r, factor);
  }
  constexpr std::int64_t kPStride = kKvBlock / Op::kValues * Op::kAPerStep;
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const float* scores = t.scores + r * kKvBlock;
    typename Op::A* p = t.probabilities + r * kPStride;
    if (tops[r] == kMasked) {
      for (int g = begin; g < end; ++g) static_cast<void>(Op::store_rounded(p, g * kLanes, zero()));
      continue;
    }
    const F32 top = set(t.m[r]);
    F32 sums[2] = {zero(), zero()};
    for (int g = begin; g < end; ++g) {
      const F32 rounded = Op::store_rounded(p, g * kLanes, exp_nonpositive(sub(load(scores + g * kLanes), top)));
      sums[g & 1] = add(sums[g & 1], rounded);
      stream.step();
    }
    t.l[r] = t.l[r] * t.rescale[r] + sum_lanes(add(sums[0], sums[1]));
  }
}

template <class Op>
void softmax_tile(const AttentionArgs& args, const Tile& tile, std::int64_t block, int begin, int end,
                  const TileMemory<typename Op::A>& t, Stream& stream) {
  switch (args.modifier.kind) {
    case ScoreModifier::Kind::kNone:
      return softmax_rows<Op, NoModifier>(args, tile, block, begin, end, t, stream);
    case ScoreModifier::Kind::kSoftcap:
      return softmax_rows<Op, Softcap>(args, tile, block, begin, end, t, stream);
    case ScoreModifier::Kind::kAlibi:
      return softmax_rows<Op, Alibi>(args, tile, block, begin, end, t, stream);
    case ScoreModifier::Kind::kRelativeBias:
      return softmax_rows<Op, RelativeBias>(args, tile, block, begin, end, t, stream);
    case ScoreModifier::Kind::kDocumentMask:
      return softmax_rows<Op, DocumentMask>(args, tile, block, begin, end, t, stream);
  }
}

// Where a group of 16 positions begins in the page that holds it.
struct GroupPlaces {
  const KvCache* cache;
  const PageLayout* layout;
  const SequenceRows* sequence;
  std::int64_t kv_head;

  [[nodiscard]] const std::byte* page(std::int64_t position) const {
    return cache->base + static_cast<std::size_t>(sequence->pages[position / cache->shape.page_tokens]) * cache->page_stride;
  }
  [[nodiscard]] const std::byte* keys(std::int64_t position) const {
    return page(position) + layout->key_offset(kv_head, position % cache->shape.page_tokens / kKvGroup);
  }
  [[nodiscard]] const std::byte* values(std::int64_t position) const {
    return page(position) + layout->value_offset(kv_head, position % cache->shape.page_tokens / kKvGroup);
  }
};

template <DType Type>
void attend_tile(const AttentionArgs& args, const PageLayout& layout, const Tile& tile,
                 const TileMemory<typename Stored<Type>::Op::A>& t) {
  using Op = typename Stored<Type>::Op;
  constexpr int kBits = Stored<Type>::kBits;
  const KvShape& shape = args.cache.shape;
  const SequenceRows& sequence = *tile.sequence;
  const std::int64_t group = args.heads / shape.kv_heads;
  const std::int64_t steps = (shape.head_dim + Op::kValues - 1) / Op::kValues;
  const std::int64_t vectors = layout.value_padded / kLanes;
  const std::int64_t value_step_bytes = vectors * Op::kVectorBytes;
  const std::int64_t key_bytes = steps * Op::kVectorBytes, value_bytes = kKvGroup / Op::kValues * value_step_bytes;
  constexpr std::int64_t kPStride = kKvBlock / Op::kValues * Op::kAPerStep;

  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t i = tile.first + r;
    const float* q =
        args.q.data + (sequence.first_row + i / group) * args.q.stride + (tile.kv_head * group + i % group) * shape.head_dim;
    for (std::int64_t d = 0; d < shape.head_dim; d += kLanes) {
      static_cast<void>(Op::store_rounded(t.queries + r * t.q_stride, d, load_up_to(q + d, shape.head_dim - d)));
    }
    t.m[r] = kMasked;
    t.l[r] = 0.0F;
  }
  std::memset(t.out, 0, static_cast<std::size_t>(tile.rows * layout.value_padded) * sizeof(float));

  const bool streams = tile.rows <= kStreamRows;
  const GroupPlaces places{&args.cache, &layout, &sequence, tile.kv_head};
  const std::int64_t begin = visible(args, sequence, tile.first / group).begin;
  const std::int64_t end = visible(args, sequence, (tile.first + tile.rows - 1) / group).end;
  for (std::int64_t block = begin / kKvBlock; block * kKvBlock < end; ++block) {
    const std::int64_t start = block * kKvBlock;
    const int low = static_cast<int>(((begin > start ? begin : start) - start) / kKvGroup);
    const std::int64_t stop = (end < start + kKvBlock ? end : start + kKvBlock) - start;
    const int high = static_cast<int>((stop + kKvGroup - 1) / kKvGroup);

    // Behind the last group stands the last one again, so that micro-tiles need no tails.
    const std::byte* keys[kBlockGroups + kGroups] = {};
    const std::byte* values[kBlockGroups + kGroups] = {};
    for (int g = low; g < high; ++g) {
      keys[g] = places.keys(start + g * kKvGroup);
      values[g] = places.values(start + g * kKvGroup);
    }
    for (int g = high; g < high + kGroups; ++g) {
      keys[g] = keys[high - 1];
      values[g] = values[high - 1];
    }

    // What is read next, in order: this block's values, the next block's keys. The three phases fetch it in proportion to their
    // time, so that the memory never rests.
    const std::byte* soon[2 * kBlockGroups] = {};
    FetchPlan plan{};
    if (streams) {
      const std::int64_t next = start + kKvBlock;
      for (int g = low; g < high; ++g) soon[plan.total++] = values[g];
      for (std::int64_t at = next; at < end && at < next + kKvBlock; at += kKvGroup) soon[plan.total++] = places.keys(at);
      plan =
          fetch_plan(plan.total, high - low, steps, value_step_bytes / Op::kVectorBytes * (kKvGroup / Op::kValues), kBits == 0);
    }
    for (int g = low; g < high; g += kGroups) {
      const std::byte* tile_keys[kGroups];
      for (int i = 0; i < kGroups; ++i) tile_keys[i] = keys[g + i];
      if constexpr (kBits != 0) {
        for (int i = 0; i < kGroups; ++i) {
          if (g + i < high) unpack_keys<kBits>(tile_keys[i], layout.key_scale_bytes, shape.head_dim, t.keys + i * key_bytes);
          tile_keys[i] = t.keys + i * key_bytes;
        }
      }
      // Rows enough to reuse the keys: the following ones, after the last ones the first values.
      const std::byte* ahead[kGroups];
      for (int i = 0; i < kGroups; ++i) {
        ahead[i] = streams ? tile_keys[i] : g + kGroups < high ? keys[g + kGroups + i] : values[low + i];
        const int from = (g - low + i) * plan.scores / (high - low);
        if (g + i < high && (g - low + i + 1) * plan.scores / (high - low) > from) ahead[i] = soon[from];
      }
      // The micro-tile that ends a block may reach behind column 255 only if low is no multiple of kGroups.
      float* scores = t.scores + g * kLanes;
      const bool fits = g + kGroups <= kBlockGroups;
      for (std::int64_t r = 0; r < tile.rows; r += kRows) {
        const auto* q = t.queries + r * t.q_stride;
        const std::int64_t rows = tile.rows - r < kRows ? tile.rows - r : kRows;
        if (!fits) {
#define ROOFTREE_CALL(R)             \
  for (int i = 0; g + i < high; ++i) \
  score_tile<Op, R, 1, false>(q, t.q_stride, tile_keys + i, ahead, steps, scores + r * kKvBlock + i * kLanes)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        } else if (r == 0 && kBits == 0) {
#define ROOFTREE_CALL(R) score_tile<Op, R, kGroups, true>(q, t.q_stride, tile_keys, ahead, steps, scores + r * kKvBlock)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        } else {
#define ROOFTREE_CALL(R) score_tile<Op, R, kGroups, false>(q, t.q_stride, tile_keys, ahead, steps, scores + r * kKvBlock)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        }
      }
    }

    Stream stream;
    stream.count = stream.segment = 0;
    stream.line = 0;
    for (int i = plan.scores; i < plan.scores + plan.softmax; ++i) {
      const bool is_key = i >= high - low;
      stream.add_segment(soon[i], is_key ? layout.key_group_bytes : layout.value_group_bytes);
    }
    std::int64_t lines = 0;
    for (int i = 0; i < stream.count; ++i) lines += stream.lines[i];
    stream.per_step = (lines + 2 * tile.rows * (high - low) - 1) / (2 * tile.rows * (high - low));
    softmax_tile<Op>(args, tile, block, low, high, t, stream);

    const std::byte* ahead[kBlockGroups] = {};
    for (int g = low; g < high; ++g) {
      ahead[g] = values[g];
      const int rest = plan.total - plan.scores - plan.softmax, from = (g - low) * rest / (high - low);
      if ((g - low + 1) * rest / (high - low) > from) ahead[g] = soon[plan.scores + plan.softmax + from];
      if (!streams && g + 2 < high) ahead[g] = values[g + 2];
    }
    if constexpr (kBits != 0) {
      for (int g = low; g < high; ++g) {
        std::byte* unpacked = t.values + g * value_bytes;
        unpack_values<kBits>(values[g], layout.value_scale_bytes, layout.value_padded, unpacked);
        values[g] = unpacked;
      }
    }
    // Positions behind the end may hold anything that an earlier user of the page left: 0 * infinity must not appear.
    if (const std::int64_t kept = stop - (high - 1) * kKvGroup; kept < kKvGroup) {
      const std::int64_t whole = kept / Op::kValues * value_step_bytes;
      std::memcpy(t.last, values[high - 1], static_cast<std::size_t>(whole));
      std::memset(t.last + whole, 0, static_cast<std::size_t>(value_bytes - whole));
      if (kept % Op::kValues != 0) {  // the first position of a pair: the upper halves
        for (std::int64_t i = 0; i < value_step_bytes; i += 4) {
          std::uint32_t pair = 0;
          std::memcpy(&pair, values[high - 1] + whole + i, sizeof pair);
          pair &= 0xFFFF0000U;
          std::memcpy(t.last + whole + i, &pair, sizeof pair);
        }
      }
      values[high - 1] = t.last;
    }
    for (std::int64_t v = 0; v < vectors;) {
      const bool wide = v + kGroups <= vectors;
      const std::int64_t offset = v * Op::kVectorBytes;
      for (std::int64_t r = 0; r < tile.rows; r += kRows) {
        const auto* p = t.probabilities + r * kPStride + low * (kKvGroup / Op::kValues * Op::kAPerStep);
        float* out = t.out + r * layout.value_padded + v * kLanes;
        const std::int64_t rows = tile.rows - r < kRows ? tile.rows - r : kRows;
        if (!wide) {
#define ROOFTREE_CALL(R)                                                                                              \
  value_tile<Op, R, 1, false>(p, values + low, ahead + low, high - low, offset, value_step_bytes, t.rescale + r, out, \
                              layout.value_padded)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        } else if (r == 0 && kBits == 0) {
#define ROOFTREE_CALL(R)                                                                                                   \
  value_tile<Op, R, kGroups, true>(p, values + low, ahead + low, high - low, offset, value_step_bytes, t.rescale + r, out, \
                                   layout.value_padded)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        } else {
#define ROOFTREE_CALL(R)                                                                                                    \
  value_tile<Op, R, kGroups, false>(p, values + low, ahead + low, high - low, offset, value_step_bytes, t.rescale + r, out, \
                                    layout.value_padded)
          ROOFTREE_BY_ROWS(rows, ROOFTREE_CALL)
#undef ROOFTREE_CALL
        }
      }
      v += wide ? kGroups : 1;
    }
  }

  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t i = tile.first + r, head = tile.kv_head * group + i % group;
    F32 factor = set(1.0F), sum = set(t.l[r]);
    if (args.sinks != nullptr) {
      const F32 m = set(t.m[r]), sink = set(args.sinks[head]), top = max(m, sink);
      factor = exp_nonpositive(sub(m, top));
      sum = add(mul(sum, factor), exp_nonpositive(sub(sink, top)));
    }
    const float* out = t.out + r * layout.value_padded;
    float* y = args.y.data + (sequence.first_row + i / group) * args.y.stride + head * shape.value_dim;
    for (std::int64_t d = 0; d < shape.value_dim; d += kLanes) {
      store_up_to(y + d, div(mul(load(out + d), factor), sum), shape.value_dim - d);
    }
  }
}
#undef ROOFTREE_BY_ROWS

// ---- The call ----

// Calls body(tile, cost) for all tiles. Where there are few pairs of sequence and key-value head, the query heads are spread
// too.
template <class Body>
void for_each_tile(const AttentionArgs& args, int workers, Body body) {
  const std::int64_t kv_heads = args.cache.shape.kv_heads, group = args.heads / kv_heads;
  const auto pairs = static_cast<std::int64_t>(args.sequences.size()) * kv_heads;
  std::int64_t parts = 1;
  while (parts < 8 && pairs * parts % workers != 0 && pairs * parts < 4 * workers) ++parts;
  for (const SequenceRows& s : args.sequences) {
    const std::int64_t rows = s.rows * group, part = (rows + parts - 1) / parts;
    const std::int64_t tile_rows = part < kTileRows ? part : kTileRows;
    for (std::int64_t head = 0; head < kv_heads; ++head) {
      for (std::int64_t first = 0; first < rows; first += tile_rows) {
        const Tile tile{&s, head, first, rows - first < tile_rows ? rows - first : tile_rows};
        const Range seen{visible(args, s, first / group).begin, visible(args, s, (first + tile.rows - 1) / group).end};
        // Reading a position once costs about as much as eight rows' arithmetic on it.
        body(tile, seen.size() * (tile.rows + 8));
      }
    }
  }
}

template <DType Type>
void attend_type(const Worker& worker, const AttentionArgs& args) {
  using Op = typename Stored<Type>::Op;
  const PageLayout layout = page_layout(args.cache.shape);
  const auto memory = tile_memory<Op>(args, layout, Stored<Type>::kBits != 0);
  if (args.modifier.kind == ScoreModifier::Kind::kRelativeBias) {
    relative_buckets(args.modifier.bidirectional ? args.modifier.buckets / 2 : args.modifier.buckets,
                     args.modifier.max_distance, memory.buckets);
  }
  // Tiles stand on a line by cost; a worker takes those whose middle lies in its part.
  std::int64_t total = 0;
  for_each_tile(args, worker.count, [&](const Tile& /*unused*/, std::int64_t cost) { total += cost; });
  const Range mine = worker.share(total);
  std::int64_t place = 0;
  for_each_tile(args, worker.count, [&](const Tile& tile, std::int64_t cost) {
    const std::int64_t middle = place + cost / 2;
    place += cost;
    if (middle >= mine.begin && middle < mine.end) attend_tile<Type>(args, layout, tile, memory);
  });
}

inline void attend(const Worker& worker, const AttentionArgs& args) {
  switch (args.cache.shape.type) {
    case DType::kF32:
      return attend_type<DType::kF32>(worker, args);
    case DType::kF16:
      return attend_type<DType::kF16>(worker, args);
    case DType::kBf16:
      return attend_type<DType::kBf16>(worker, args);
    case DType::kQ8_0:
      return attend_type<DType::kQ8_0>(worker, args);
    case DType::kQ4_0:
      return attend_type<DType::kQ4_0>(worker, args);
    default:
      ROOFTREE_CHECK(false, "a KV cache of a type that page_bytes refuses");
  }
}

// ---- Writing ----

// Quantises 32 values: scale f16(a / 127) with a the largest magnitude, or f16(e / -8) with e the value of largest magnitude
// (the positive one of equal ones); integers rne(x / scale) within the type's range. A scale of zero gives zeros.
template <int Bits>
inline std::uint16_t quantize_32(const float* x, std::int32_t* out) {
  const F32 a = load(x), b = load(x + kLanes);
  float scale = 0.0F;
  if constexpr (Bits == 8) {
    scale = max_lanes(max(absolute(a), absolute(b))) / 127.0F;
  } else {
    const float largest = max_lanes(max(a, b)), smallest = -max_lanes(max(negate(a), negate(b)));
    scale = (largest >= -smallest ? largest : smallest) / -8.0F;
  }
  std::uint16_t halves[kLanes];
  store_f16(halves, clamp_f16(set(scale)));
  float rounded[kLanes];
  store(rounded, load_f16(halves));
  constexpr float kLow = Bits == 8 ? -127.0F : -8.0F, kHigh = Bits == 8 ? 127.0F : 7.0F;
  const F32 inverse = set(rounded[0] == 0.0F ? 0.0F : 1.0F / rounded[0]);
  store_int(out, round_to_int(max(min(mul(a, inverse), set(kHigh)), set(kLow))));
  store_int(out + kLanes, round_to_int(max(min(mul(b, inverse), set(kHigh)), set(kLow))));
  return halves[0];
}

template <int Bits>
inline void write_quantized(const float* x, std::int64_t dims, std::int64_t lane, bool is_key, std::int64_t scale_bytes,
                            std::byte* group) {
  constexpr std::int64_t kPerDword = 32 / Bits;
  constexpr std::uint32_t kMask = Bits == 8 ? 0xFFU : 0xFU;
  std::byte* dwords = group + scale_bytes;
  for (std::int64_t block = 0; block < dims / 32; ++block) {
    std::int32_t integers[32];
    const std::uint16_t scale = quantize_32<Bits>(x + block * 32, integers);
    std::memcpy(group + (block * kKvGroup + lane) * 2, &scale, sizeof scale);
    for (std::int64_t i = 0; i < 32; ++i) {
      // Keys: dword of kPerDword dimensions, one per position. Values: dword of kPerDword positions, one per dimension.
      const std::int64_t d = block * 32 + i;
      std::byte* at = is_key ? dwords + (d / kPerDword * kKvGroup + lane) * 4 : dwords + (lane / kPerDword * dims + d) * 4;
      const std::int64_t shift = (is_key ? d : lane) % kPerDword * Bits;
      std::uint32_t dword = 0;
      std::memcpy(&dword, at, sizeof dword);
      dword = (dword & ~(kMask << shift)) | ((static_cast<std::uint32_t>(integers[i]) & kMask) << shift);
      std::memcpy(at, &dword, sizeof dword);
    }
  }
}

// One position's row into lane `lane` of a group, types that are read in place.
template <DType Type>
inline void write_plain(const float* x, std::int64_t dims, std::int64_t lane, bool is_key, std::int64_t padded,
                        std::byte* group) {
  for (std::int64_t d = 0; d < dims; d += kLanes) {
    const std::int64_t n = dims - d < kLanes ? dims - d : kLanes;
    const F32 v = load_up_to(x + d, n);
    if constexpr (Type == DType::kF32) {
      auto* out = reinterpret_cast<float*>(group);
      float lanes[kLanes];
      store(lanes, v);
      for (std::int64_t i = 0; i < n; ++i) out[is_key ? (d + i) * kKvGroup + lane : lane * padded + d + i] = lanes[i];
    } else {
      auto* out = reinterpret_cast<std::uint16_t*>(group);
      std::uint16_t halves[kLanes];
      if constexpr (Type == DType::kF16) {
        store_f16(halves, clamp_f16(v));
        for (std::int64_t i = 0; i < n; ++i) out[is_key ? (d + i) * kKvGroup + lane : lane * padded + d + i] = halves[i];
      } else {
        std::int32_t wide[kLanes];
        store_int(wide, shift_right<16>(bf16_bits(v)));
        for (std::int64_t i = 0; i < n; ++i) halves[i] = static_cast<std::uint16_t>(wide[i]);
        for (std::int64_t i = 0; i < n; ++i) {
          // Halves of a dword are numbered in memory order: on little-endian machines the upper one is the second.
          constexpr std::int64_t kUpper = std::endian::native == std::endian::little ? 1 : 0;
          const std::int64_t at = is_key ? (((d + i) / 2 * kKvGroup + lane) * 2 + ((d + i) % 2 == 0 ? kUpper : 1 - kUpper))
                                         : ((lane / 2 * padded + d + i) * 2 + (lane % 2 == 0 ? kUpper : 1 - kUpper));
          out[at] = halves[i];
        }
      }
    }
  }
}

template <DType Type>
void write_type(const Worker& worker, const KvWriteArgs& args) {
  constexpr int kBits = Stored<Type>::kBits;
  const KvShape& shape = args.cache.shape;
  const PageLayout layout = page_layout(shape);
  // A piece of work is one group of positions of one head: no two workers share a line.
  const auto groups_of = [](const SequenceRows& s) {
    return s.rows == 0 ? 0 : (s.past + s.rows - 1) / kKvGroup - s.past / kKvGroup + 1;
  };
  std::int64_t total = 0;
  for (const SequenceRows& s : args.sequences) total += groups_of(s) * shape.kv_heads;
  const Range mine = worker.share(total);
  std::int64_t first = 0;
  for (const SequenceRows& s : args.sequences) {
    const std::int64_t groups = groups_of(s), count = groups * shape.kv_heads;
    const std::int64_t from = mine.begin > first ? mine.begin - first : 0;
    const std::int64_t to = mine.end - first < count ? mine.end - first : count;
    for (std::int64_t unit = from; unit < to; ++unit) {
      const std::int64_t head = unit % shape.kv_heads, base = (s.past / kKvGroup + unit / shape.kv_heads) * kKvGroup;
      std::byte* page = args.cache.base + static_cast<std::size_t>(s.pages[base / shape.page_tokens]) * args.cache.page_stride;
      const std::int64_t group = base % shape.page_tokens / kKvGroup;
      std::byte* keys = page + layout.key_offset(head, group);
      std::byte* values = page + layout.value_offset(head, group);
      const std::int64_t begin = base > s.past ? base : s.past;
      const std::int64_t end = base + kKvGroup < s.past + s.rows ? base + kKvGroup : s.past + s.rows;
      for (std::int64_t position = begin; position < end; ++position) {
        const std::int64_t row = s.first_row + position - s.past, lane = position - base;
        const float* k = args.k.data + row * args.k.stride + head * shape.head_dim;
        const float* v = args.v.data + row * args.v.stride + head * shape.value_dim;
        if constexpr (kBits != 0) {
          write_quantized<kBits>(k, shape.head_dim, lane, true, layout.key_scale_bytes, keys);
          write_quantized<kBits>(v, shape.value_dim, lane, false, layout.value_scale_bytes, values);
        } else {
          write_plain<Type>(k, shape.head_dim, lane, true, 0, keys);
          write_plain<Type>(v, shape.value_dim, lane, false, layout.value_padded, values);
        }
      }
    }
    first += count;
  }
}

inline void write(const Worker& worker, const KvWriteArgs& args) {
  switch (args.cache.shape.type) {
    case DType::kF32:
      return write_type<DType::kF32>(worker, args);
    case DType::kF16:
      return write_type<DType::kF16>(worker, args);
    case DType::kBf16:
      return write_type<DType::kBf16>(worker, args);
    case DType::kQ8_0:
      return write_type<DType::kQ8_0>(worker, args);
    case DType::kQ4_0:
      return write_type<DType::kQ4_0>(worker, args);
    default:
      ROOFTREE_CHECK(false, "a KV cache of a type that page_bytes refuses");
  }
}

constexpr AttentionKernels kAttentionKernels{page_bytes, write, attend};

}  // namespace rooftree::kernels::cpu::ROOFTREE_ISA_NAMESPACE

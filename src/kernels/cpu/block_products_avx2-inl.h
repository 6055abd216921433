// Operations of block_products-inl.h on AVX2, included by block_products_avx2.cc and block_products_avx_vnni.cc inside their
// namespaces, after kUnsignedBytes and dot_narrow's 256-bit form `dot4`. No include guard and no includes by intent.

// 16 x 32 bits, or 64 bytes, in two registers.
struct I {
  __m256i low, high;
};
struct F {
  __m256 low, high;
};

constexpr int kTileRows = 4;
constexpr int kTileUnits = 1;
constexpr int kBothTiles = 2;  // a tile of more sums would not fit 16 registers with both halves at once
constexpr std::int64_t kPairRows = 64;
// Bytes between use and prefetch.
constexpr std::int64_t kPrefetchDistance = 4608, kNearDistance = 1152, kFarDistance = 9216;
constexpr std::int64_t kStreamBytes = std::int64_t{2} << 20;

ROOFTREE_INLINE I zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
ROOFTREE_INLINE F zero_f() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ROOFTREE_INLINE I set1(std::int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
ROOFTREE_INLINE F set1_f(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
ROOFTREE_INLINE I load(const std::byte* p) {
  return {_mm256_load_si256(reinterpret_cast<const __m256i*>(p)), _mm256_load_si256(reinterpret_cast<const __m256i*>(p) + 1)};
}
ROOFTREE_INLINE F load_f(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ROOFTREE_INLINE void store_f(float* p, F v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
ROOFTREE_INLINE void stream_f(float* p, F v) {
  _mm256_stream_ps(p, v.low);
  _mm256_stream_ps(p + 8, v.high);
}
ROOFTREE_INLINE void store_fence() { _mm_sfence(); }
ROOFTREE_INLINE I broadcast(const std::byte* p) {
  std::int32_t v = 0;
  std::memcpy(&v, p, sizeof v);
  const __m256i both = _mm256_set1_epi32(v);
  return {both, both};
}
ROOFTREE_INLINE F as_float(I a) { return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)}; }
ROOFTREE_INLINE F broadcast_f(const std::byte* p) { return as_float(broadcast(p)); }
ROOFTREE_INLINE F load_half(const std::byte* p) {
  const auto* halves = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_load_si128(halves)), _mm256_cvtph_ps(_mm_load_si128(halves + 1))};
}
ROOFTREE_INLINE I load_u8(const std::byte* p) {
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
ROOFTREE_INLINE void prefetch(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
ROOFTREE_INLINE void prefetch_far(const std::byte* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

ROOFTREE_INLINE I bit_and(I a, I b) { return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)}; }
ROOFTREE_INLINE I bit_or(I a, I b) { return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)}; }
ROOFTREE_INLINE I bit_xor(I a, I b) { return {_mm256_xor_si256(a.low, b.low), _mm256_xor_si256(a.high, b.high)}; }
ROOFTREE_INLINE I and_or(I a, I mask, I b) { return bit_or(bit_and(a, mask), b); }
template <int kBits>
ROOFTREE_INLINE I shift_right(I a) {
  return {_mm256_srli_epi32(a.low, kBits), _mm256_srli_epi32(a.high, kBits)};
}
template <int kBits>
ROOFTREE_INLINE I shift_left(I a) {
  return {_mm256_slli_epi32(a.low, kBits), _mm256_slli_epi32(a.high, kBits)};
}
template <int kBits>
ROOFTREE_INLINE I shift_right_signed(I a) {
  return {_mm256_srai_epi32(a.low, kBits), _mm256_srai_epi32(a.high, kBits)};
}
ROOFTREE_INLINE I shift_right_by(I a, int bits) {
  const __m128i count = _mm_cvtsi32_si128(bits);
  return {_mm256_srl_epi32(a.low, count), _mm256_srl_epi32(a.high, count)};
}
template <int kBits>
ROOFTREE_INLINE I shift_bytes(I a) {
  if constexpr (kBits > 0) return shift_right<kBits>(a);
  if constexpr (kBits < 0) return shift_left<-kBits>(a);
  return a;
}
ROOFTREE_INLINE I add(I a, I b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
ROOFTREE_INLINE I mul_int(I a, I b) { return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)}; }
ROOFTREE_INLINE I max_signed(I a, I b) { return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }
ROOFTREE_INLINE I dot_narrow(I sum, I weights, I activations) {
  return {dot4(sum.low, weights.low, activations.low), dot4(sum.high, weights.high, activations.high)};
}
ROOFTREE_INLINE I dot_wide(I sum, I weights, I activations) {
  return {dot4_wide(sum.low, weights.low, activations.low), dot4_wide(sum.high, weights.high, activations.high)};
}
ROOFTREE_INLINE I dot_pairs(I sum, I a, I b) {
  return add(sum, I{_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high)});
}
ROOFTREE_INLINE I look_up(I index, I book) {
  return {_mm256_shuffle_epi8(book.low, index.low), _mm256_shuffle_epi8(book.high, index.high)};
}
ROOFTREE_INLINE I iq4_book() {
  __m128i book = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  if constexpr (kUnsignedBytes) book = _mm_xor_si128(book, _mm_set1_epi8(-128));
  const __m256i both = _mm256_broadcastsi128_si256(book);
  return {both, both};
}
ROOFTREE_INLINE I mxfp4_book() {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
  return {both, both};
}

ROOFTREE_INLINE F add(F a, F b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
ROOFTREE_INLINE F sub(F a, F b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
ROOFTREE_INLINE F mul(F a, F b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
ROOFTREE_INLINE F max(F a, F b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
ROOFTREE_INLINE F min(F a, F b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
ROOFTREE_INLINE F abs(F a) {
  return as_float(bit_and(I{_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}, set1(0x7FFFFFFF)));
}
ROOFTREE_INLINE F to_float(I a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
ROOFTREE_INLINE I nearest(F a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_cvtps_epi32(_mm256_round_ps(a.low, kMode)), _mm256_cvtps_epi32(_mm256_round_ps(a.high, kMode))};
}
ROOFTREE_INLINE float reduce_max(F a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
ROOFTREE_INLINE std::int32_t reduce_add(I a) {
  const __m256i eight = _mm256_add_epi32(a.low, a.high);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1)));
}
ROOFTREE_INLINE void store_bytes(std::int8_t* p, I a) {
  const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xD8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

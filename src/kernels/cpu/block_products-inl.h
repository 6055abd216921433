// Level-A products on 16 lanes, one output per lane; included once per instruction set, inside its namespace and target region,
// after the operations of that set (block_products_avx512.cc lists them). No include guard and no includes by intent.
//
// Packed weights, per unit of 16 outputs: [header][groups]. All lines are 64 bytes, lane n (4 bytes) belongs to output n.
//   Codes of 64 values (a code group; "line l of half h" holds the codes of values 32h + 4l + i, byte i, l = 0..7):
//     8 bits: 16 lines, 2l + h (integer + 128)
//     4, 5, 6 bits: 8 lines of nibbles, line l = half 0 | half 1 << 4
//     2, 3, 6 bits: 4 lines of two bits, line l/2, at bit 4 (l mod 2) + 2h
//     3, 5 bits: 2 lines of one bit, line l/4, at bit 2 (l mod 4) + h
//   in the order in which a pass over both halves at once first needs them (Packed::*_line).
//   Blocks of 32: a group is [32 f16 scales: 16 of half 0, 16 of half 1][32 f16 minima][codes]; types with byte exponents have
//   them in the header instead, 16 per block. K that is an odd number of blocks gets a block of zeros.
//   Records of 256: [f16 scales | f16 minima][scale lines][4 code groups]; types without minima have the f16 scales in the
//   header. Six-bit scales s, m of two sub-blocks, byte p of the lanes of three lines: s0 | s1[0:2]<<6, m0 | s1[2:4]<<6, m1 |
//   s1[4:6]<<6.
// So the frequent types take exactly the bytes of the source.
//
// Packed activations: [chunk of 512 values][tile of R rows][record], R a function of the number of rows.
//   Record of 64: dwords (4 int8) a[16][R], float da[2][R], int32 -sum[2][R].
//   Record of 256: a[64][R], float da[R], int32 -sum[16][R], int16 pairs of sums per 16 [8][R], per 32 [4][R].
//
// Offsets of codes cost nothing: the integer sum starts at -offset * (sum of the activations). The nibble of half 1 may be used
// as 16 times its value; its sum is shifted back exactly.

constexpr int kLanes = 16;
constexpr std::int64_t kUnit = kLanes;
constexpr std::int64_t kChunk = 512;  // values of K that a tile works on before the next tile takes the same weights
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kMaxRows = 512;  // rows that share one walk over the weights

template <int kValue>
using Int = std::integral_constant<int, kValue>;
template <int kCount, class Body>
ROOFTREE_INLINE void unrolled(const Body& body) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) ROOFTREE_LAMBDA { (body(Int<kIndex>()), ...); }
  (std::make_integer_sequence<int, kCount>());
}

// ---- forms --------------------------------------------------------------------------------------------------------------

template <DType kType>
struct Packed {
  static constexpr Form kForm = form_of(kType);
  static constexpr bool kSuper = kForm.values == 256;
  static constexpr bool kEightBit = kForm.bits == 8;
  static constexpr bool kNibbles = kForm.bits == 4 || kForm.bits == 5 || kForm.bits == 6;
  static constexpr bool kTwoBits = kForm.bits == 2 || kForm.bits == 3 || kForm.bits == 6;
  static constexpr bool kOneBit = kForm.bits == 3 || kForm.bits == 5;
  static constexpr bool kBook = kForm.book != Book::kNone;
  // Codes that need all eight bits: signed where the instruction set has no product of unsigned bytes.
  static constexpr bool kWide = kEightBit || kForm.book == Book::kIq4;
  static constexpr bool kOffset = kForm.offset_log2 >= 0 && !(kWide && !kUnsignedBytes);
  static constexpr bool kTimes16 = kForm.bits == 4 && !kBook && kUnsignedBytes;

  // Lines in the order in which a pass over both halves needs them: memory sees one rising stream.
  static constexpr int byte_line(int l, int half) { return 2 * l + half; }
  static constexpr int one_bit_line(int l) { return l / 4 * (kNibbles ? 5 : 3); }
  static constexpr int two_bit_line(int l) { return kNibbles ? l / 2 * 3 : kOneBit ? l / 4 * 3 + 1 + l % 4 / 2 : l / 2; }
  static constexpr int nibble_line(int l) { return kTwoBits ? l / 2 * 3 + 1 + l % 2 : kOneBit ? l / 4 * 5 + 1 + l % 4 : l; }

  static constexpr int kNibbleLines = kNibbles ? 8 : 0, kTwoBitLines = kTwoBits ? 4 : 0, kOneBitLines = kOneBit ? 2 : 0;
  static constexpr std::int64_t kCodeBytes = kLine * (kEightBit ? 16 : kNibbleLines + kTwoBitLines + kOneBitLines);

  static constexpr bool kExponents = kForm.scales == Scales::kMxfp4 || kForm.scales == Scales::kMxint8;
  static constexpr bool kSix = kForm.scales == Scales::kSix32;
  static constexpr int kScaleLines = !kSuper ? 0 : kSix ? 3 : 4;
  // Offsets inside a group (64 values) or a record (256).
  static constexpr std::int64_t kScalesAt = kSuper && kForm.minima ? kLine : 0;
  static constexpr std::int64_t kCodesAt = kSuper       ? kScalesAt + kScaleLines * kLine
                                           : kExponents ? 0
                                                        : (kForm.minima ? 2 : 1) * kLine;
  static constexpr std::int64_t kRecordBytes = kCodesAt + (kSuper ? 4 : 1) * kCodeBytes;
  static constexpr int kRecordValues = kSuper ? 256 : 64;
  // Bytes of the header per record.
  static constexpr std::int64_t kHeaderStep = kSuper ? (kForm.minima ? 0 : 2 * kLanes) : kExponents ? 2 * kLanes : 0;

  static std::int64_t records(std::int64_t k) { return (k + kRecordValues - 1) / kRecordValues; }
  static std::int64_t header_bytes(std::int64_t k) { return (records(k) * kHeaderStep + kLine - 1) / kLine * kLine; }
  static std::int64_t unit_bytes(std::int64_t k) { return header_bytes(k) + records(k) * kRecordBytes; }
};

template <DType kType>
std::size_t packed_bytes(std::int64_t n, std::int64_t k) {
  return static_cast<std::size_t>((n + kUnit - 1) / kUnit * Packed<kType>::unit_bytes(k));
}

// ---- packing weights ----------------------------------------------------------------------------------------------------

inline void store_word(std::byte* at, std::uint32_t word) { std::memcpy(at, &word, sizeof word); }
inline std::uint32_t load_word(const std::byte* at) {
  std::uint32_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// 64 codes of one output into its lane of a code group.
template <DType kType>
void pack_codes(const std::uint8_t* codes, std::byte* out) {
  using P = Packed<kType>;
  std::array<std::uint32_t, 16> words;
  std::memcpy(words.data(), codes, sizeof words);
  const auto word = [&](int half, int line) { return words[static_cast<std::size_t>(8 * half + line)]; };
  if constexpr (P::kEightBit) {
    for (int h = 0; h < 2; ++h) {
      for (int l = 0; l < 8; ++l) store_word(out + P::byte_line(l, h) * kLine, word(h, l));
    }
    return;
  }
  if constexpr (P::kNibbles) {
    for (int l = 0; l < 8; ++l) {
      store_word(out + P::nibble_line(l) * kLine, (word(0, l) & 0x0F0F0F0FU) | (word(1, l) & 0x0F0F0F0FU) << 4U);
    }
  }
  if constexpr (P::kTwoBits) {
    constexpr unsigned kFrom = P::kNibbles ? 4 : 0;
    for (int t = 0; t < 4; ++t) {
      std::uint32_t packed = 0;
      for (int l = 0; l < 2; ++l) {
        for (int h = 0; h < 2; ++h) packed |= (word(h, 2 * t + l) >> kFrom & 0x03030303U) << (4 * l + 2 * h);
      }
      store_word(out + P::two_bit_line(2 * t) * kLine, packed);
    }
  }
  if constexpr (P::kOneBit) {
    constexpr unsigned kFrom = P::kForm.bits - 1;
    for (int t = 0; t < 2; ++t) {
      std::uint32_t packed = 0;
      for (int l = 0; l < 4; ++l) {
        for (int h = 0; h < 2; ++h) packed |= (word(h, 4 * t + l) >> kFrom & 0x01010101U) << (2 * l + h);
      }
      store_word(out + P::one_bit_line(4 * t) * kLine, packed);
    }
  }
}

// The inverse, for one row.
template <DType kType>
void unpack_codes(const std::byte* lane, std::uint8_t* codes) {
  using P = Packed<kType>;
  for (int h = 0; h < 2; ++h) {
    for (int l = 0; l < 8; ++l) {
      std::uint32_t word = 0;
      if constexpr (P::kEightBit) word = load_word(lane + P::byte_line(l, h) * kLine);
      if constexpr (P::kNibbles) word = load_word(lane + P::nibble_line(l) * kLine) >> (4 * h) & 0x0F0F0F0FU;
      if constexpr (P::kTwoBits) {
        const std::uint32_t bits = load_word(lane + P::two_bit_line(l) * kLine) >> (4 * (l % 2) + 2 * h);
        word |= (bits & 0x03030303U) << (P::kNibbles ? 4U : 0U);
      }
      if constexpr (P::kOneBit) {
        const std::uint32_t bits = load_word(lane + P::one_bit_line(l) * kLine) >> (2 * (l % 4) + h);
        word |= (bits & 0x01010101U) << static_cast<unsigned>(P::kForm.bits - 1);
      }
      std::memcpy(codes + 32 * h + 4 * l, &word, sizeof word);
    }
  }
}

inline void pack_six_bit(const Record& r, std::byte* lines) {
  std::array<std::uint32_t, 3> words = {};
  for (std::size_t p = 0; p < 4; ++p) {
    const auto s0 = static_cast<std::uint32_t>(r.scales[2 * p]), s1 = static_cast<std::uint32_t>(r.scales[2 * p + 1]);
    words[0] |= (s0 | (s1 & 3U) << 6U) << (8 * p);
    words[1] |= (r.minima[2 * p] | (s1 >> 2U & 3U) << 6U) << (8 * p);
    words[2] |= (r.minima[2 * p + 1] | (s1 >> 4U) << 6U) << (8 * p);
  }
  for (int i = 0; i < 3; ++i) store_word(lines + i * kLine, words[static_cast<std::size_t>(i)]);
}
inline void unpack_six_bit(const std::byte* lines, Record& r) {
  for (std::size_t p = 0; p < 4; ++p) {
    std::array<std::uint32_t, 3> bytes;
    for (int i = 0; i < 3; ++i) bytes[static_cast<std::size_t>(i)] = load_word(lines + i * kLine) >> (8 * p) & 0xFFU;
    r.scales[2 * p] = static_cast<std::int8_t>(bytes[0] & 63U);
    r.scales[2 * p + 1] = static_cast<std::int8_t>(bytes[0] >> 6U | (bytes[1] >> 6U) << 2U | (bytes[2] >> 6U) << 4U);
    r.minima[2 * p] = static_cast<std::uint8_t>(bytes[1] & 63U);
    r.minima[2 * p + 1] = static_cast<std::uint8_t>(bytes[2] & 63U);
  }
}

template <DType kType>
void pack_super(const std::byte* stored, int lane, std::byte* header, std::byte* out) {
  using P = Packed<kType>;
  Record r;
  decode(kType, stored, r);
  std::memcpy((P::kForm.minima ? out : header) + lane * 2, &r.d, 2);
  if constexpr (P::kForm.minima) std::memcpy(out + 32 + lane * 2, &r.dmin, 2);
  std::byte* scales = out + P::kScalesAt + lane * 4;
  if constexpr (P::kSix) {
    pack_six_bit(r, scales);
  } else {
    for (int j = 0; j < 16; ++j) {
      const auto i = static_cast<std::size_t>(j);
      const auto byte = P::kForm.minima ? static_cast<unsigned>(r.scales[i]) | static_cast<unsigned>(r.minima[i]) << 4U
                                        : static_cast<unsigned>(r.scales[i]);
      scales[j / 4 * kLine + j % 4] = static_cast<std::byte>(byte & 0xFFU);
    }
  }
  for (int p = 0; p < 4; ++p)
    pack_codes<kType>(&r.codes[static_cast<std::size_t>(64 * p)], out + P::kCodesAt + p * P::kCodeBytes + lane * 4);
}

template <DType kType>
void pack_pair(const std::byte* stored, int blocks, int lane, std::byte* header, std::byte* out) {
  using P = Packed<kType>;
  std::array<std::uint8_t, 64> codes = {};
  for (int h = 0; h < blocks; ++h) {
    Record r;
    decode(kType, stored + h * P::kForm.bytes, r);
    std::memcpy(&codes[static_cast<std::size_t>(32 * h)], r.codes.data(), 32);
    if constexpr (P::kExponents) {
      header[h * kLanes + lane] = static_cast<std::byte>(r.d);
    } else {
      std::memcpy(out + h * 32 + lane * 2, &r.d, 2);
      if constexpr (P::kForm.minima) std::memcpy(out + kLine + h * 32 + lane * 2, &r.dmin, 2);
    }
  }
  pack_codes<kType>(codes.data(), out + P::kCodesAt + lane * 4);
}

template <DType kType>
void pack(const PackArgs& args, Range units) {
  using P = Packed<kType>;
  constexpr int kBlocks = P::kRecordValues / P::kForm.values;
  const std::int64_t blocks = args.k / P::kForm.values, records = P::records(args.k), unit = P::unit_bytes(args.k);
  for (std::int64_t u = units.begin; u < units.end; ++u) {
    std::byte* header = args.out + u * unit;
    std::byte* out = header + P::header_bytes(args.k);
    const int lanes = static_cast<int>(std::min(kUnit, args.n - u * kUnit));
    // Lanes and blocks without weights must be zeros: their scale is.
    if (lanes < kLanes || blocks % kBlocks != 0) std::memset(header, 0, static_cast<std::size_t>(unit));
    for (std::int64_t i = 0; i < records; ++i, header += P::kHeaderStep, out += P::kRecordBytes) {
      for (int lane = 0; lane < lanes; ++lane) {
        const std::byte* stored = args.rows + ((u * kUnit + lane) * blocks + i * kBlocks) * P::kForm.bytes;
        if constexpr (P::kSuper) {
          pack_super<kType>(stored, lane, header, out);
        } else {
          pack_pair<kType>(stored, static_cast<int>(std::min<std::int64_t>(kBlocks, blocks - i * kBlocks)), lane, header, out);
        }
      }
    }
  }
}

template <DType kType>
void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> values) {
  using P = Packed<kType>;
  const std::byte* header = matrix.data + row / kUnit * P::unit_bytes(matrix.k);
  const std::byte* in = header + P::header_bytes(matrix.k);
  const auto lane = static_cast<int>(row % kUnit);
  float* out = values.data();
  const float* end = out + matrix.k;
  for (; out < end; header += P::kHeaderStep, in += P::kRecordBytes) {
    Record r;
    if constexpr (P::kSuper) {
      std::memcpy(&r.d, (P::kForm.minima ? in : header) + lane * 2, 2);
      if constexpr (P::kForm.minima) std::memcpy(&r.dmin, in + 32 + lane * 2, 2);
      const std::byte* scales = in + P::kScalesAt + lane * 4;
      if constexpr (P::kSix) {
        unpack_six_bit(scales, r);
      } else {
        for (std::size_t j = 0; j < 16; ++j) {
          const auto byte = std::to_integer<unsigned>(scales[j / 4 * kLine + j % 4]);
          r.scales[j] = static_cast<std::int8_t>(P::kForm.minima ? byte & 15U : byte);
          r.minima[j] = static_cast<std::uint8_t>(byte >> 4U);
        }
      }
      for (std::size_t p = 0; p < 4; ++p) {
        unpack_codes<kType>(in + P::kCodesAt + static_cast<std::int64_t>(p) * P::kCodeBytes + lane * 4, &r.codes[64 * p]);
      }
      record_values(kType, r, out);
      out += 256;
    } else {
      std::array<std::uint8_t, 64> codes;
      unpack_codes<kType>(in + P::kCodesAt + lane * 4, codes.data());
      for (int h = 0; h < 2 && out < end; ++h, out += 32) {
        std::memcpy(r.codes.data(), &codes[static_cast<std::size_t>(32 * h)], 32);
        if constexpr (P::kExponents) {
          r.d = std::to_integer<std::uint16_t>(header[h * kLanes + lane]);
        } else {
          std::memcpy(&r.d, in + h * 32 + lane * 2, 2);
          if constexpr (P::kForm.minima) std::memcpy(&r.dmin, in + kLine + h * 32 + lane * 2, 2);
        }
        record_values(kType, r, out);
      }
    }
  }
}

// ---- activations --------------------------------------------------------------------------------------------------------

// Rows of an activation tile, from the number of rows alone, so that one packed form serves every weight type.
constexpr int tile_rows(std::int64_t rows) {
  if (rows < 2) return 1;
  if (kTileRows < 8) return kTileRows;
  if (rows > 8) return 4;
  return rows <= 2 ? 2 : rows <= 4 ? 4 : rows <= 6 ? 6 : 8;
}

template <int kBlock>
struct Activations {
  static constexpr int kValues = kBlock == 32 ? 64 : 256;  // of a record
  static constexpr int kDwords = kBlock == 32 ? 20 : 93;   // of a record and row
  static constexpr std::int64_t kChunkRecords = kChunk / kValues;
  // In dwords, to be multiplied by the rows of the tile.
  static constexpr int kScaleAt = kBlock == 32 ? 16 : 64;
  static constexpr int kSumAt = kBlock == 32 ? 18 : 65;
  static constexpr int kPair16At = 81, kPair32At = 89;

  int tile = 1;  // rows of a tile
  std::int64_t tiles = 0;
  std::int64_t records = 0;

  Activations(std::int64_t rows, std::int64_t k)
      : tile(tile_rows(rows)), tiles((rows + tile - 1) / tile), records((k + kValues - 1) / kValues) {}
  [[nodiscard]] std::int64_t record_bytes() const { return std::int64_t{kDwords} * 4 * tile; }
  [[nodiscard]] std::int64_t bytes() const { return records * tiles * record_bytes(); }
  // A tile's records of chunk c are consecutive.
  [[nodiscard]] std::int64_t offset(std::int64_t chunk, std::int64_t t) const {
    const std::int64_t first = chunk * kChunkRecords;
    return (first * tiles + t * std::min(kChunkRecords, records - first)) * record_bytes();
  }
};

template <int kBlock>
std::size_t activation_bytes(std::int64_t rows, std::int64_t k) {
  return static_cast<std::size_t>(Activations<kBlock>(rows, k).bytes());
}
inline std::int64_t activation_grain(std::int64_t rows) { return tile_rows(rows); }

// The int8 of one block, in order.
struct QuantizedBlock {
  float d = 0;
  alignas(64) std::array<std::int8_t, 256> q;
  std::array<std::int32_t, 16> sums;  // per 16
};

template <int kBlock>
ROOFTREE_INLINE void quantize(const float* x, QuantizedBlock& out) {
  F largest = zero_f();
  for (int i = 0; i < kBlock; i += kLanes) largest = max(abs(load_f(x + i)), largest);
  const float a = reduce_max(largest);
  if (a < kTinyBlock) {
    out.d = 0;
    out.q.fill(0);
    out.sums.fill(0);
    return;
  }
  out.d = a / 127.0F;
  const F r = set1_f(127.0F / a), low = set1_f(-127.0F), high = set1_f(127.0F);
  for (int i = 0; i < kBlock; i += kLanes) {
    // The order of operands makes a value that is no number -127.
    const I q = nearest(min(max(mul(load_f(x + i), r), low), high));
    store_bytes(&out.q[static_cast<std::size_t>(i)], q);
    out.sums[static_cast<std::size_t>(i / kLanes)] = reduce_add(q);
  }
}

// Places one row of a tile. `record` is the tile's record, `row` the row in it.
ROOFTREE_INLINE void place_codes(const QuantizedBlock& block, int dwords, std::byte* record, int tile, int row) {
  for (int j = 0; j < dwords; ++j) std::memcpy(record + (j * tile + row) * 4, &block.q[static_cast<std::size_t>(4 * j)], 4);
}
inline std::uint32_t pair_of(std::int32_t low, std::int32_t high) {
  return (static_cast<std::uint32_t>(low) & 0xFFFFU) | static_cast<std::uint32_t>(high) << 16U;
}

template <int kBlock>
void pack_activation_record(const float* x, int blocks, std::byte* record, int tile, int row) {
  using A = Activations<kBlock>;
  const auto at = [&](int dword) { return record + (dword * tile + row) * 4; };
  QuantizedBlock block;
  if constexpr (kBlock == 32) {
    for (int h = 0; h < 2; ++h) {
      if (h < blocks) {
        quantize<32>(x + 32 * h, block);
      } else {  // a padding block
        block = QuantizedBlock{};
        block.q.fill(0);
        block.sums.fill(0);
      }
      place_codes(block, 8, record + 8 * h * tile * 4, tile, row);
      std::memcpy(at(A::kScaleAt + h), &block.d, 4);
      const std::int32_t minus_sum = -(block.sums[0] + block.sums[1]);
      std::memcpy(at(A::kSumAt + h), &minus_sum, 4);
    }
  } else {
    quantize<256>(x, block);
    place_codes(block, 64, record, tile, row);
    std::memcpy(at(A::kScaleAt), &block.d, 4);
    const auto sum = [&](int j) { return block.sums[static_cast<std::size_t>(j)]; };
    for (int j = 0; j < 16; ++j) store_word(at(A::kSumAt + j), static_cast<std::uint32_t>(-sum(j)));
    for (int j = 0; j < 8; ++j) store_word(at(A::kPair16At + j), pair_of(sum(2 * j), sum(2 * j + 1)));
    for (int p = 0; p < 4; ++p) {
      store_word(at(A::kPair32At + p), pair_of(sum(4 * p) + sum(4 * p + 1), sum(4 * p + 2) + sum(4 * p + 3)));
    }
  }
}

template <int kBlock>
void pack_activations(const PackActivationsArgs& args, Range rows) {
  using A = Activations<kBlock>;
  const A layout(args.rows, args.k);
  const std::int64_t blocks = args.k / kBlock;
  constexpr int kBlocks = A::kValues / kBlock;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const std::int64_t t = row / layout.tile;
    const auto in_tile = static_cast<int>(row % layout.tile);
    // The worker that has a tile's first row clears the rows that it lacks: they are multiplied and not stored.
    if (in_tile == 0 && (t + 1) * layout.tile > args.rows) {
      for (std::int64_t c = 0; c * A::kChunkRecords < layout.records; ++c) {
        const std::int64_t count = std::min(A::kChunkRecords, layout.records - c * A::kChunkRecords);
        std::memset(args.out + layout.offset(c, t), 0, static_cast<std::size_t>(count * layout.record_bytes()));
      }
    }
    const float* x = args.x.data + (args.gather != nullptr ? args.gather[row] : row) * args.x.stride;
    for (std::int64_t i = 0; i < layout.records; ++i) {
      std::byte* record = args.out + layout.offset(i / A::kChunkRecords, t) + i % A::kChunkRecords * layout.record_bytes();
      const auto present = static_cast<int>(std::min<std::int64_t>(kBlocks, blocks - i * kBlocks));
      pack_activation_record<kBlock>(x + i * A::kValues, present, record, layout.tile, in_tile);
    }
  }
}

// ---- multiplying --------------------------------------------------------------------------------------------------------

// Line l of half h of a code group; times 16 for half 1 where kTimes16.
template <DType kType, int kHalf, int kL>
ROOFTREE_INLINE I code_line(const std::byte* codes) {
  using P = Packed<kType>;
  I word;
  if constexpr (P::kEightBit) {
    word = load(codes + P::byte_line(kL, kHalf) * kLine);
    if constexpr (!kUnsignedBytes) word = bit_xor(word, set1(static_cast<std::int32_t>(0x80808080U)));
    return word;
  }
  if constexpr (P::kNibbles) {
    word = load(codes + P::nibble_line(kL) * kLine);
    if constexpr (kHalf == 0) {
      word = bit_and(word, set1(0x0F0F0F0F));
    } else if constexpr (P::kTimes16) {
      word = bit_and(word, set1(static_cast<std::int32_t>(0xF0F0F0F0U)));
    } else {
      word = bit_and(shift_right<4>(word), set1(0x0F0F0F0F));
    }
    if constexpr (P::kForm.book == Book::kIq4) word = look_up(word, iq4_book());
    if constexpr (P::kForm.book == Book::kMxfp4) word = look_up(word, mxfp4_book());
  }
  if constexpr (P::kTwoBits) {
    constexpr int kShift = 4 * (kL % 2) + 2 * kHalf - (P::kNibbles ? 4 : 0);
    const I bits = shift_bytes<kShift>(load(codes + P::two_bit_line(kL) * kLine));
    if constexpr (P::kNibbles) {
      word = and_or(bits, set1(0x30303030), word);
    } else {
      word = bit_and(bits, set1(0x03030303));
    }
  }
  if constexpr (P::kOneBit) {
    constexpr int kBit = P::kForm.bits - 1;
    constexpr int kShift = 2 * (kL % 4) + kHalf - kBit;
    const I bits = shift_bytes<kShift>(load(codes + P::one_bit_line(kL) * kLine));
    word = and_or(bits, set1(0x01010101 << kBit), word);
  }
  return word;
}

template <DType kType>
ROOFTREE_INLINE I dot(I sum, I weights, I activations) {
  if constexpr (Packed<kType>::kWide) return dot_wide(sum, weights, activations);
  return dot_narrow(sum, weights, activations);
}

// The sum that a block starts from: minus the offset times the sum of the activations, times 16 for sums to be shifted back.
template <DType kType, int kHalf>
ROOFTREE_INLINE I initial_sum(I minus_sum) {
  using P = Packed<kType>;
  if constexpr (!P::kOffset) return zero();
  return shift_left<(P::kForm.offset_log2 < 0 ? 0 : P::kForm.offset_log2) + (P::kTimes16 && kHalf == 1 ? 4 : 0)>(minus_sum);
}
template <DType kType, int kHalf>
ROOFTREE_INLINE I block_sum(I sum) {
  if constexpr (Packed<kType>::kTimes16 && kHalf == 1) return shift_right_signed<4>(sum);
  return sum;
}

// Prefetches of the next chunk that a call spreads over its work: `lines` lines from `next` on at every place.
struct Prefetch {
  const std::byte* next = nullptr;
  std::int64_t lines = 0;
};

// One line of the stream ahead of `p`, which is being used. Where a line is much work, requests are wanted long before their
// use, but the first level has few places for pending ones: so to the second level early, then to the first. Zen 4, one thread,
// share of the read probe against the plain way: Q6_K 0.86 and 0.68, Q4_0 with 4 rows 0.76 and 0.57, but Q8_0 with one row 0.75
// and 0.95.
template <DType kType, int kR>
ROOFTREE_INLINE void prefetch_ahead(const std::byte* p) {
  using P = Packed<kType>;
  constexpr bool kLittleWork = kR <= 2 && (P::kEightBit || (P::kSix && P::kForm.bits == 4));
  if constexpr (kLittleWork) {
    prefetch(p + kPrefetchDistance);
  } else {
    prefetch_far(p + kFarDistance);
    prefetch(p + kNearDistance);
  }
}

// What a micro-kernel works on: C units of weights, R rows, `records` records.
struct TileArgs {
  const std::byte* weights = nullptr;  // the records of the first unit
  const std::byte* header = nullptr;   // their part of the header
  std::int64_t unit_bytes = 0;         // from a unit to the next
  const std::byte* x = nullptr;
  std::int64_t records = 0;
  bool first = true;      // sums start at zero; else from `sums`
  float* sums = nullptr;  // [R][C][16]
  Prefetch prefetch;
};

// Registers: of rows and units.
template <int kR, int kC>
struct IntTile {
  I at[kR][kC];
};
template <int kR, int kC>
struct FloatTile {
  F at[kR][kC];
};

ROOFTREE_INLINE void prefetch_lines(const std::byte*& next, std::int64_t lines) {
  for (std::int64_t i = 0; i < lines; ++i) prefetch_far(next + i * kLine);
  next += lines * kLine;
}

// acc = acc + float(sum) * (dw * da), and the minimum's term, for one half of a group of 64.
template <DType kType, int kHalf, int kR, int kC>
ROOFTREE_INLINE void add_block(const IntTile<kR, kC>& sums, const TileArgs& args, const std::byte* weights,
                               const std::byte* header, const std::byte* x, FloatTile<kR, kC>& acc) {
  using P = Packed<kType>;
  using A = Activations<32>;
  F scale[kC], minimum[kC];
  unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
    constexpr int i = c();
    if constexpr (P::kExponents) {
      // The float 2^(e-128), subnormal for e < 2.
      const I e = load_u8(header + c() * args.unit_bytes + kHalf * kLanes);
      const I normal = shift_left<23>(add(e, set1(-1)));
      scale[i] = as_float(max_signed(normal, add(shift_left<21>(e), set1(0x00200000))));
      if constexpr (P::kForm.scales == Scales::kMxint8) scale[i] = mul(scale[i], set1_f(0x1p-5F));
    } else {
      scale[i] = load_half(weights + c() * args.unit_bytes + kHalf * 32);
      if constexpr (P::kForm.minima) minimum[i] = load_half(weights + c() * args.unit_bytes + kLine + kHalf * 32);
    }
  });
  unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
    const F da = broadcast_f(x + ((A::kScaleAt + kHalf) * kR + r()) * 4);
    unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
      constexpr int i = c();
      F& to = acc.at[r()][c()];
      to = add(to, mul(to_float(block_sum<kType, kHalf>(sums.at[r()][c()])), mul(scale[i], da)));
      if constexpr (P::kForm.minima) {
        const F minus_sum = to_float(broadcast(x + ((A::kSumAt + kHalf) * kR + r()) * 4));
        to = sub(to, mul(minus_sum, mul(minimum[i], da)));
      }
    });
  });
}

// Blocks of 32. kBoth: both halves of a group in one pass over its lines, so that each line is read once (2 R C sums in
// registers).
template <DType kType, int kR, int kC, bool kBoth, bool kAhead>
ROOFTREE_NOINLINE void tile32(const TileArgs& args) {
  using P = Packed<kType>;
  using A = Activations<32>;
  FloatTile<kR, kC> acc;
  unrolled<kR * kC>(
      [&](auto i) ROOFTREE_LAMBDA { acc.at[i() / kC][i() % kC] = args.first ? zero_f() : load_f(args.sums + i() * kLanes); });
  const std::byte* weights = args.weights;
  const std::byte* header = args.header;
  const std::byte* x = args.x;
  const std::byte* next = args.prefetch.next;
  const std::int64_t unit = args.unit_bytes;
#pragma GCC unroll 1
  for (std::int64_t i = 0; i < args.records; ++i) {
    const std::byte* codes = weights + P::kCodesAt;
    if constexpr (kAhead) {
      prefetch_ahead<kType, kR>(weights);
      if constexpr (P::kForm.minima) prefetch_ahead<kType, kR>(weights + kLine);
      if constexpr (P::kHeaderStep != 0) prefetch_far(header + unit);  // of the next unit
    } else {
      prefetch_lines(next, args.prefetch.lines);
    }
    const auto start = [&](auto half, IntTile<kR, kC>& sums) ROOFTREE_LAMBDA {
      unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
        const I init = initial_sum<kType, half()>(broadcast(x + ((A::kSumAt + half()) * kR + r()) * 4));
        unrolled<kC>([&](auto c) ROOFTREE_LAMBDA { sums.at[r()][c()] = init; });
      });
    };
    const auto step = [&](auto half, auto l, IntTile<kR, kC>& sums) ROOFTREE_LAMBDA {
      I w[kC];
      unrolled<kC>([&](auto c) ROOFTREE_LAMBDA { w[c()] = code_line<kType, half(), l()>(codes + c() * unit); });
      unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
        const I a = broadcast(x + ((8 * half() + l()) * kR + r()) * 4);
        unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
          I& sum = sums.at[r()][c()];
          sum = dot<kType>(sum, w[c()], a);
        });
      });
      if constexpr (kAhead) {
        constexpr std::int64_t kLines = P::kCodeBytes / kLine;
        constexpr std::int64_t kTouched = kBoth ? l() : 8 * half() + l();
        constexpr std::int64_t kSteps = kBoth ? 8 : 16;
        constexpr std::int64_t kFrom = kTouched * kLines / kSteps, kTo = (kTouched + 1) * kLines / kSteps;
        for (std::int64_t line = kFrom; line < kTo; ++line) prefetch_ahead<kType, kR>(codes + line * kLine);
      }
    };
    if constexpr (kBoth) {
      IntTile<kR, kC> low, high;
      start(Int<0>(), low);
      start(Int<1>(), high);
      unrolled<8>([&](auto l) ROOFTREE_LAMBDA {
        step(Int<0>(), l, low);
        step(Int<1>(), l, high);
      });
      add_block<kType, 0, kR, kC>(low, args, weights, header, x, acc);
      add_block<kType, 1, kR, kC>(high, args, weights, header, x, acc);
    } else {
      unrolled<2>([&](auto half) ROOFTREE_LAMBDA {
        IntTile<kR, kC> sums;
        start(half, sums);
        unrolled<8>([&](auto l) ROOFTREE_LAMBDA { step(half, l, sums); });
        add_block<kType, half(), kR, kC>(sums, args, weights, header, x, acc);
      });
    }
    weights += P::kRecordBytes;
    header += P::kHeaderStep;
    x += A::kDwords * kR * 4;
  }
  unrolled<kR * kC>([&](auto i) ROOFTREE_LAMBDA { store_f(args.sums + i() * kLanes, acc.at[i() / kC][i() % kC]); });
}

// Scales of sub-block kSub (of 32: 0, 1; of 16: 0..3) of code group p, as 32-bit integers.
template <DType kType, int kSub>
ROOFTREE_INLINE I sub_scale(const std::byte* scales, int p) {
  using P = Packed<kType>;
  if constexpr (P::kSix) {
    const I a = shift_right_by(load(scales), 8 * p);
    if constexpr (kSub == 0) return bit_and(a, set1(63));
    const I b = shift_right_by(load(scales + kLine), 8 * p), c = shift_right_by(load(scales + 2 * kLine), 8 * p);
    const I low = bit_and(shift_right<6>(a), set1(3));
    return and_or(shift_right<2>(c), set1(0x30), and_or(shift_right<4>(b), set1(0x0C), low));
  } else if constexpr (P::kForm.minima) {
    return bit_and(shift_right<8 * kSub>(load(scales + p * kLine)), set1(15));
  } else {
    return shift_right_signed<24>(shift_left<24 - 8 * kSub>(load(scales + p * kLine)));
  }
}

// Records of 256: an exact integer sum (and one of minima) per record.
template <DType kType, int kR, int kC, bool kBoth, bool kAhead>
ROOFTREE_NOINLINE void tile256(const TileArgs& args) {
  using P = Packed<kType>;
  using A = Activations<256>;
  constexpr int kSubLines = P::kSix ? 8 : 4;  // lines of a sub-block
  constexpr int kParts = 8 / kSubLines;       // sub-blocks of a half
  const std::byte* weights = args.weights;
  const std::byte* header = args.header;
  const std::byte* x = args.x;
  const std::byte* next = args.prefetch.next;
  const std::int64_t unit = args.unit_bytes;
  if (args.first) {
    unrolled<kR * kC>([&](auto i) ROOFTREE_LAMBDA { store_f(args.sums + i() * kLanes, zero_f()); });
  }
#pragma GCC unroll 1
  for (std::int64_t i = 0; i < args.records; ++i) {
    if constexpr (kAhead) {
      if constexpr (P::kHeaderStep != 0) prefetch_far(header + unit);
      unrolled<static_cast<int>(P::kCodesAt / kLine)>(
          [&](auto l) ROOFTREE_LAMBDA { prefetch_ahead<kType, kR>(weights + l() * kLine); });
    }
    IntTile<kR, kC> total;
    unrolled<kR * kC>([&](auto j) ROOFTREE_LAMBDA { total.at[j() / kC][j() % kC] = zero(); });
    const std::byte* scales = weights + P::kScalesAt;
    const std::byte* codes = weights + P::kCodesAt;
    const std::byte* a_group = x;
    const std::byte* sums_group = x + A::kSumAt * kR * 4;
#pragma GCC unroll 1
    for (int p = 0; p < 4; ++p) {
      if constexpr (!kAhead) prefetch_lines(next, args.prefetch.lines);
      const auto start = [&](auto half, auto part, IntTile<kR, kC>& sums) ROOFTREE_LAMBDA {
        unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
          I init = zero();
          if constexpr (P::kOffset) {
            init = initial_sum<kType, half()>(broadcast(sums_group + ((half() * 2 + part()) * kR + r()) * 4));
          }
          unrolled<kC>([&](auto c) ROOFTREE_LAMBDA { sums.at[r()][c()] = init; });
        });
      };
      const auto step = [&](auto half, auto l, IntTile<kR, kC>& sums) ROOFTREE_LAMBDA {
        I w[kC];
        unrolled<kC>([&](auto c) ROOFTREE_LAMBDA { w[c()] = code_line<kType, half(), l()>(codes + c() * unit); });
        unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
          const I a = broadcast(a_group + ((8 * half() + l()) * kR + r()) * 4);
          unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
            I& sum = sums.at[r()][c()];
            sum = dot<kType>(sum, w[c()], a);
          });
        });
        if constexpr (kAhead) {
          constexpr std::int64_t kLines = P::kCodeBytes / kLine;
          constexpr std::int64_t kTouched = kBoth ? l() : 8 * half() + l();
          constexpr std::int64_t kSteps = kBoth ? 8 : 16;
          constexpr std::int64_t kFrom = kTouched * kLines / kSteps, kTo = (kTouched + 1) * kLines / kSteps;
          for (std::int64_t line = kFrom; line < kTo; ++line) prefetch_ahead<kType, kR>(codes + line * kLine);
        }
      };
      const auto finish = [&](auto half, auto part, const IntTile<kR, kC>& sums) ROOFTREE_LAMBDA {
        unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
          const I scale = sub_scale<kType, half() * kParts + part()>(scales + c() * unit, p);
          unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
            I& to = total.at[r()][c()];
            to = add(to, mul_int(block_sum<kType, half()>(sums.at[r()][c()]), scale));
          });
        });
      };
      if constexpr (kBoth) {
        unrolled<kParts>([&](auto part) ROOFTREE_LAMBDA {
          IntTile<kR, kC> low, high;
          start(Int<0>(), part, low);
          start(Int<1>(), part, high);
          unrolled<kSubLines>([&](auto l) ROOFTREE_LAMBDA {
            step(Int<0>(), Int<part() * kSubLines + l()>(), low);
            step(Int<1>(), Int<part() * kSubLines + l()>(), high);
          });
          finish(Int<0>(), part, low);
          finish(Int<1>(), part, high);
        });
      } else {
        unrolled<2 * kParts>([&](auto j) ROOFTREE_LAMBDA {
          using Half = Int<j() / kParts>;
          using Part = Int<j() % kParts>;
          IntTile<kR, kC> sums;
          start(Half(), Part(), sums);
          unrolled<kSubLines>([&](auto l) ROOFTREE_LAMBDA { step(Half(), Int<Part::value * kSubLines + l()>(), sums); });
          finish(Half(), Part(), sums);
        });
      }
      codes += P::kCodeBytes;
      a_group += 16 * kR * 4;
      sums_group += 4 * kR * 4;
    }
    IntTile<kR, kC> minima;
    if constexpr (P::kForm.minima) {
      unrolled<kR * kC>([&](auto j) ROOFTREE_LAMBDA { minima.at[j() / kC][j() % kC] = zero(); });
      const std::byte* pairs = x + (P::kSix ? A::kPair32At : A::kPair16At) * kR * 4;
#pragma GCC unroll 1
      for (int p = 0; p < 4; ++p) {
        constexpr int kPairs = P::kSix ? 1 : 2;
        unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
          const std::byte* lines = scales + c() * unit;
          I pair[kPairs];
          if constexpr (P::kSix) {
            const I low = bit_and(shift_right_by(load(lines + kLine), 8 * p), set1(63));
            const I high = bit_and(shift_right_by(load(lines + 2 * kLine), 8 * p), set1(63));
            pair[0] = bit_or(low, shift_left<16>(high));
          } else {
            const I line = load(lines + p * kLine);  // bytes: minimum in the high nibble
            pair[0] = bit_or(bit_and(shift_right<4>(line), set1(0xF)), bit_and(shift_left<4>(line), set1(0xF0000)));
            pair[1] = bit_or(bit_and(shift_right<20>(line), set1(0xF)), bit_and(shift_right<12>(line), set1(0xF0000)));
          }
          unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
            unrolled<kPairs>([&](auto j) ROOFTREE_LAMBDA {
              I& to = minima.at[r()][c()];
              to = dot_pairs(to, pair[j()], broadcast(pairs + (j() * kR + r()) * 4));
            });
          });
        });
        pairs += kPairs * kR * 4;
      }
    }
    unrolled<kC>([&](auto c) ROOFTREE_LAMBDA {
      const std::byte* halves = (P::kForm.minima ? weights : header) + c() * unit;
      const F d = load_half(halves);
      F dmin = zero_f();
      if constexpr (P::kForm.minima) dmin = load_half(halves + 32);
      unrolled<kR>([&](auto r) ROOFTREE_LAMBDA {
        F t = mul(to_float(total.at[r()][c()]), d);
        if constexpr (P::kForm.minima) t = sub(t, mul(to_float(minima.at[r()][c()]), dmin));
        float* to = args.sums + (r() * kC + c()) * kLanes;
        store_f(to, add(load_f(to), mul(t, broadcast_f(x + (A::kScaleAt * kR + r()) * 4))));
      });
    });
    weights += P::kRecordBytes;
    header += P::kHeaderStep;
    x += A::kDwords * kR * 4;
  }
}

template <DType kType, int kR, int kC, bool kAhead>
void tile(const TileArgs& args) {
  constexpr bool kBoth = kR * kC <= kBothTiles;
  if constexpr (Packed<kType>::kSuper) {
    tile256<kType, kR, kC, kBoth, kAhead>(args);
  } else {
    tile32<kType, kR, kC, kBoth, kAhead>(args);
  }
}

// The sums of one row of a tile to the outputs of `units` units from `unit`.
inline void store_row(const MultiplyArgs& args, const float* sums, std::int64_t row, std::int64_t unit, int units,
                      bool stream) {
  float* y = args.y.data + row * args.y.stride + unit * kUnit;
  const float* bias = args.bias == nullptr ? nullptr : args.bias + unit * kUnit;
  for (int c = 0; c < units; ++c) {
    const std::int64_t count = std::min<std::int64_t>(kUnit, args.weight.n - (unit + c) * kUnit);
    if (count == kUnit) {
      F v = load_f(sums + c * kLanes);
      if (bias != nullptr) v = add(v, load_f(bias + c * kLanes));
      if (stream) {
        stream_f(y + c * kLanes, v);
      } else {
        store_f(y + c * kLanes, v);
      }
      continue;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float v = sums[c * kLanes + i];
      y[c * kLanes + i] = bias == nullptr ? v : v + bias[c * kLanes + i];
    }
  }
}

// One tile of rows: the weights are one stream, read once.
template <DType kType, int kR>
void multiply_stream(const MultiplyArgs& args, Range units) {
  using P = Packed<kType>;
  const std::int64_t k = args.weight.k;
  alignas(64) std::array<float, static_cast<std::size_t>(kR * kLanes)> sums;
  TileArgs t;
  t.unit_bytes = P::unit_bytes(k);
  t.x = args.x;
  t.records = P::records(k);
  t.sums = sums.data();
  for (std::int64_t u = units.begin; u < units.end; ++u) {
    t.header = args.weight.data + u * t.unit_bytes;
    t.weights = t.header + P::header_bytes(k);
    tile<kType, kR, 1, true>(t);
    for (int r = 0; r < kR && r < args.rows; ++r) store_row(args, sums.data() + r * kLanes, r, u, 1, false);
  }
}

// kC units at a time: for each chunk of K all tiles of rows, so that the chunk's weights come from the first-level cache.
template <DType kType, int kR, int kC>
void multiply_panel(const MultiplyArgs& args, std::int64_t unit, Range tiles, float* sums, bool stream) {
  using P = Packed<kType>;
  using A = Activations<P::kForm.values>;
  const std::int64_t k = args.weight.k;
  const A layout(args.rows, k);
  constexpr std::int64_t kChunkRecords = kChunk / P::kRecordValues;
  static_assert(P::kRecordValues == A::kValues);
  constexpr std::int64_t kSteps = P::kSuper ? 4 : 1;  // places per record that prefetch
  const std::int64_t count = tiles.end - tiles.begin;
  TileArgs t;
  t.unit_bytes = P::unit_bytes(k);
  const std::byte* header = args.weight.data + unit * t.unit_bytes;
  for (std::int64_t c = 0; c * kChunkRecords < layout.records; ++c) {
    const std::int64_t first = c * kChunkRecords;
    t.records = std::min(kChunkRecords, layout.records - first);
    t.header = header + first * P::kHeaderStep;
    t.weights = header + P::header_bytes(k) + first * P::kRecordBytes;
    t.first = c == 0;
    // The next chunk of every unit, in equal shares per tile; behind the last chunk lies the next unit's first.
    const std::int64_t chunk_lines = t.records * P::kRecordBytes / kLine;
    const std::int64_t calls_per_unit = std::max<std::int64_t>(1, count / kC);
    t.prefetch.lines = (chunk_lines + calls_per_unit * t.records * kSteps - 1) / (calls_per_unit * t.records * kSteps);
    for (std::int64_t i = 0; i < count; ++i) {
      t.x = args.x + layout.offset(c, tiles.begin + i);
      t.sums = sums + i * kR * kC * kLanes;
      const std::int64_t target = i / calls_per_unit, part = i % calls_per_unit;
      const std::int64_t line = part * t.prefetch.lines * t.records * kSteps;
      t.prefetch.next = t.weights + chunk_lines * kLine + std::min<std::int64_t>(target, kC - 1) * t.unit_bytes + line * kLine;
      tile<kType, kR, kC, kC == 1>(t);
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t r = 0; r < kR; ++r) {
      const std::int64_t row = (tiles.begin + i) * kR + r;
      if (row >= args.rows) break;
      store_row(args, sums + (i * kR + r) * kC * kLanes, row, unit, kC, stream);
    }
  }
}

template <DType kType>
void multiply_tiled(const MultiplyArgs& args, Range units) {
  constexpr int kR = kTileRows < 8 ? kTileRows : 4;
  constexpr std::int64_t kTiles = kMaxRows / kR;
  alignas(64) std::array<float, static_cast<std::size_t>(kMaxRows * kTileUnits * kLanes)> sums;
  // Outputs that no cache would keep until they are read go past it.
  const bool stream = args.rows * args.weight.n * 4 >= kStreamBytes &&
                      reinterpret_cast<std::uintptr_t>(args.y.data) % 64 == 0 && args.y.stride % kLanes == 0;
  const std::int64_t tiles = (args.rows + kR - 1) / kR;
  for (std::int64_t first = 0; first < tiles; first += kTiles) {
    const Range range{first, std::min(tiles, first + kTiles)};
    std::int64_t u = units.begin;
    const auto take = [&](auto width) {
      for (; u + width() <= units.end; u += width()) multiply_panel<kType, kR, width()>(args, u, range, sums.data(), stream);
    };
    if constexpr (kTileUnits >= 3) {
      if (args.rows > kPairRows) take(Int<3>());
    }
    if constexpr (kTileUnits >= 2) take(Int<2>());
    take(Int<1>());
  }
  if (stream) store_fence();
}

template <DType kType>
void multiply(const MultiplyArgs& args, Range units) {
  if constexpr (kTileRows >= 8) {
    if (args.rows <= 8) {
      switch (tile_rows(args.rows)) {
        case 1:
          return multiply_stream<kType, 1>(args, units);
        case 2:
          return multiply_stream<kType, 2>(args, units);
        case 4:
          return multiply_stream<kType, 4>(args, units);
        case 6:
          return multiply_stream<kType, 6>(args, units);
        default:
          return multiply_stream<kType, 8>(args, units);
      }
    }
  } else if (args.rows <= kTileRows) {
    return args.rows == 1 ? multiply_stream<kType, 1>(args, units) : multiply_stream<kType, kTileRows>(args, units);
  }
  multiply_tiled<kType>(args, units);
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

#include "cost/kernel_time.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <variant>

namespace rooftree::cost {
namespace {

using model::Role;

// What an operator moves, in bytes by role group, and the seconds that its main-memory share takes at full bandwidth
// (`cold_seconds`) plus the bytes that come from the last on-chip level.
struct Traffic {
  double weight = 0, activation = 0, kv = 0, state = 0;
  double cold_seconds = 0;
  double hot_bytes = 0;
  [[nodiscard]] double total() const { return weight + activation + kv + state; }
};

double moved(const model::Work& work, Role role) {
  const auto i = static_cast<std::size_t>(role);
  return work.read[i] + work.written[i];
}

void place(Traffic& t, const Operands& o) {
  t.cold_seconds = t.weight * (1 - o.weight_cached_share) * o.weight_seconds_per_byte +
                   (t.activation * (1 - o.activation_cached_share) + t.state) * o.activation_seconds_per_byte +
                   t.kv * (1 - o.kv_cached_share) * o.kv_seconds_per_byte;
  t.hot_bytes = t.weight * o.weight_cached_share + t.activation * o.activation_cached_share + t.kv * o.kv_cached_share;
}

// Rate of the last on-chip level as a multiple of main memory's, where no constant of the kernel's own says more (A100, H100
// and L40S are measured at 2.5 to 4).
constexpr double kHotRatio = 3;

constexpr double kInputBytes = 4;  // token ids and indices are int32

Traffic traffic(const model::Work& work, const Operands& o) {
  Traffic t;
  t.weight = moved(work, Role::kWeight) * o.weight_bytes;
  t.activation = moved(work, Role::kActivation) * o.activation_bytes + moved(work, Role::kInput) * kInputBytes +
                 moved(work, Role::kOutput) * o.output_bytes;
  t.kv = moved(work, Role::kKvCache) * o.kv_bytes;
  t.state = moved(work, Role::kGradient) * o.gradient_bytes + moved(work, Role::kOptimizerState) * o.optimizer_bytes;
  place(t, o);
  return t;
}

// Bytes per value of a type as the product units take it.
double native_bytes(Arithmetic a) {
  switch (a) {
    case Arithmetic::kFp64:
      return 8;
    case Arithmetic::kFp32:
    case Arithmetic::kTf32:
      return 4;
    case Arithmetic::kBf16:
    case Arithmetic::kFp16:
      return 2;
    case Arithmetic::kFp8:
    case Arithmetic::kInt8:
      return 1;
    case Arithmetic::kFp6:
      return 0.75;
    default:
      return 0.5;
  }
}

// The two roofs of a product overlap almost fully: a p-norm of 4 is between the sum and the maximum (fits gave 3.4 to 4.7).
double norm4(double a, double b) {
  a *= a;
  b *= b;
  return std::sqrt(std::sqrt(a * a + b * b));
}

KernelTime start(const Traffic& t, double log_low, double log_high, Distance distance) {
  KernelTime r;
  r.weight_bytes = t.weight;
  r.activation_bytes = t.activation;
  r.kv_bytes = t.kv;
  r.state_bytes = t.state;
  r.log_low = log_low;
  r.log_high = log_high;
  r.distance = static_cast<std::uint8_t>(distance);
  return r;
}

// ceil(x) for 0 <= x < 2^62, without a library call on baseline x86-64. The slack absorbs the rounding of products with
// reciprocals.
double ceil_positive(double x) {
  const double whole = static_cast<double>(static_cast<std::int64_t>(x));
  return whole + (x - whole > 1e-9 ? 1.0 : 0.0);
}

struct Tile {
  std::int32_t log2_m, log2_n;
};
// Candidates by the smaller dimension of the product (the operands are swapped so that it is M).
constexpr std::array<Tile, 2> kTiles8 = {{{3, 6}, {3, 7}}};  // eight is the narrowest operand of the matrix instructions
constexpr std::array<Tile, 2> kTiles16 = {{{4, 6}, {4, 7}}};
constexpr std::array<Tile, 2> kTiles32 = {{{5, 6}, {5, 7}}};
constexpr std::array<Tile, 3> kTiles64 = {{{6, 6}, {6, 7}, {6, 8}}};
constexpr std::array<Tile, 6> kTiles128 = {{{6, 6}, {6, 7}, {7, 6}, {7, 7}, {7, 8}, {8, 7}}};

std::span<const Tile> tiles_for(double m) {
  if (m > 64) return kTiles128;
  if (m > 32) return kTiles64;
  if (m > 16) return kTiles32;
  if (m > 8) return kTiles16;
  return kTiles8;
}

constexpr double kFewCores = 16;

struct Product {
  double m, n, k;  // C(m,n) += A(m,k) B(k,n)
  double batch;
  double a_bytes, b_bytes;  // per value as they enter the tiles
};

// Rows that a product of `m` rows costs on general ALUs.
double alu_rows(double m, const GemmConstants& c) {
  const double tile = c.tile_rows > 0 ? c.tile_rows * ceil_positive(m / c.tile_rows) : m;
  return std::max(m, std::min(tile, m / c.thin_share));
}

// Time of the tiles on the cores:
//   min over tiles, splits of  w (max(2 tm tn k' / (u P / cores), (tm ea + tn eb) k' / (l P / cores)) + tep) + split cost
//   w = 0.7 ceil(T / cores) + 0.3 max(1, T / cores),  T = ceil(M/tm) ceil(N/tn) batch s,  k' = K/s rounded up to 64
//   split cost (s > 1) = 8 s M N / (L2 rate) + 0.7 us   (fp32 partial sums written and read)
// The feed l is per FLOP: generations that multiply faster are also fed faster (A100 and H100 agree within 6 %).
// Waves count 0.7 of a full ceiling because persistent kernels and uneven clocks blur them (as the public operator tables
// show).
double tile_time(Product p, double inverse_rate, double product_rate_inverse, const GemmConstants& c,
                 const ChipCalibration& chip) {
  if (chip.tile_rows <= 1) {
    // The arithmetic of matrix-vector kernels proper hides behind their reads.
    const double rows = p.m > 1 ? alu_rows(p.m, c) : p.m;
    return 2 * rows * p.n * p.k * p.batch * inverse_rate;
  }
  if (chip.cores < kFewCores) {
    // A few large systolic cores (TPU and its like): one tile fills a core and streams, so only the padding to the array is
    // lost.
    const auto padded = [](double x, double to) { return to * ceil_positive(x / to); };
    return 2 * padded(p.m, 8) * padded(p.n, 128) * padded(p.k, 128) * p.batch * inverse_rate;
  }
  if (p.n < p.m) {
    std::swap(p.m, p.n);
    std::swap(p.a_bytes, p.b_bytes);
  }
  const double inverse_cores = 1 / chip.cores;
  // The path from memory to the cores is never built narrower than the memory.
  const double inverse_feed = std::min(product_rate_inverse / c.tile_feed, 1 / chip.memory_bandwidth);
  const double core_rate = inverse_rate * chip.cores;  // s per FLOP on one core
  const double core_feed = inverse_feed * chip.cores;  // s per byte into one core
  const auto m = static_cast<std::int64_t>(p.m);
  const auto n = static_cast<std::int64_t>(p.n);
  const double partial_sums = 8 * p.m * p.n * p.batch / (c.l2_ratio * chip.memory_bandwidth);
  double best = std::numeric_limits<double>::infinity();
  for (const Tile& tile : tiles_for(p.m)) {
    const double tm = static_cast<double>(1 << tile.log2_m);
    const double tn = static_cast<double>(1 << tile.log2_n);
    const double tiles =
        static_cast<double>(((m + (1 << tile.log2_m) - 1) >> tile.log2_m) * ((n + (1 << tile.log2_n) - 1) >> tile.log2_n)) *
        p.batch;
    const double per_k =
        std::max(2 * tm * tn * core_rate, (std::min(tm, p.m) * p.a_bytes + std::min(tn, p.n) * p.b_bytes) * core_feed);
    const double occupancy = tiles * inverse_cores;
    const auto split_by = [&](double s) {
      const double k = 64 * ceil_positive(p.k / s * (1.0 / 64));
      const double waves = 0.7 * ceil_positive(occupancy * s) + 0.3 * std::max(1.0, occupancy * s);
      const double split_cost = s > 1 ? partial_sums * s + 0.7e-6 : 0.0;
      best = std::min(best, waves * (per_k * k + c.tile_epilogue) + split_cost);
    };
    split_by(1);
    // Splitting K pays only while cores are idle: the largest power of two that still fits one wave, and one step around it.
    if (occupancy < 2 && p.k >= 256) {
      double s = 1;
      while (s < 16 && occupancy * s * 2 <= 1.0 && p.k >= 128 * s * 2) s *= 2;
      if (s > 1) split_by(s);
      if (s < 16 && p.k >= 256 * s) split_by(2 * s);
    }
  }
  // Few rows also run as matrix-vector products on the general ALUs, without padding, at half of their rate.
  if (p.m <= 8) best = std::min(best, 4 * p.m * p.n * p.k * p.batch / chip.vector_rate);
  return best;
}

// t = t0 + (t_tile^4 + t_mem^4)^(1/4) + quantisation of A;  t_mem = bytes/(W em) + Bh
KernelTime product_time(Product p, Traffic t, const GemmConstants& c, const Operands& o, const ChipCalibration& chip) {
  const bool cast = o.activation_cast && c.activation_cast_bytes > 0;
  if (cast) {  // the product reads the quantised copy
    const double narrow = std::min(p.a_bytes, native_bytes(o.arithmetic));
    t.activation -= (p.a_bytes - narrow) * p.m * p.k * p.batch;
    place(t, o);
    p.a_bytes = narrow;
  }
  KernelTime r = start(t, c.log_low, c.log_high, c.distance);
  const auto type = static_cast<std::size_t>(o.arithmetic);
  const double inverse_rate = chip.inverse_product_rate[type] / (c.peak_share * o.product_speedup) * o.weight_density;
  r.compute = tile_time(p, inverse_rate, chip.inverse_product_rate[type], c, chip);
  r.memory =
      t.cold_seconds / c.memory_share + t.hot_bytes / (c.l2_ratio * chip.memory_bandwidth) + (o.weights_on_chip ? 0.0 : c.fill);
  r.fixed = c.fixed;
  r.eager = c.eager_fixed;
  if (cast) {
    r.special = c.activation_cast_bytes * p.m * p.k * p.batch * o.activation_seconds_per_byte;
  }
  r.time = r.fixed + r.special + norm4(r.compute, r.memory);
  return r;
}

const GemmConstants& gemm_constants(const Operands& o, const ChipCalibration& chip) {
  const auto type = static_cast<std::size_t>(o.arithmetic);
  return o.weight_only ? chip.gemm_weight_only[type] : chip.gemm[type];
}

// Bandwidth-bound kernels: t = fixed + max(bytes/(W em), vector work, exponentials); the units are different and overlap.
KernelTime stream_time(StreamClass stream, const model::Work& work, const Operands& o, const ChipCalibration& chip) {
  const StreamConstants& c = chip.stream[static_cast<std::size_t>(stream)];
  const Traffic t = traffic(work, o);
  KernelTime r = start(t, c.log_low, c.log_high, c.distance);
  r.memory = t.cold_seconds / c.memory_share + t.hot_bytes / (kHotRatio * chip.memory_bandwidth);
  r.special = work.vector.value() / chip.vector_rate + work.exponentials / chip.exponential_rate;
  r.fixed = c.fixed;
  r.eager = c.eager_fixed;
  r.time = r.fixed + std::max(r.memory, r.special);
  return r;
}

// The datasheet roofline: the slower of arithmetic and memory, nothing else.
KernelTime ideal_time(const model::Work& work, const Operands& o, const ChipCalibration& chip) {
  const Traffic t = traffic(work, o);
  KernelTime r = start(t, 0, 0, Distance::kGeneric);
  r.compute = work.product.value() * o.weight_density * chip.inverse_product_rate[static_cast<std::size_t>(o.arithmetic)] /
              o.product_speedup;
  r.memory = t.cold_seconds;
  r.time = std::max(r.compute, r.memory);
  return r;
}

// ---------------------------------------------------------------------------------------------------------------------

// Prefill: t = t0 + bytes/(W em) + F/(u P) + E/(ue R) + tail * (one 128-row query block against all keys on one core).
//   F = 2 b a (dk + dv) pairs', E = b a pairs', pairs' = pairs + q g/2 for causal masks: g columns of each row are computed and
//   thrown away at the diagonal. The exponentials are added, not overlapped: that one term explains head size 64 against 128,
//   16-bit against 8-bit, and generations that doubled the matrix rate but not the exponential units.
KernelTime prefill_time(const model::Attention& a, const Traffic& t, const Operands& o, const ChipCalibration& chip) {
  const auto type = static_cast<std::size_t>(o.arithmetic);
  const AttentionPrefillConstants& c = chip.attention_prefill[type];
  KernelTime r = start(t, c.log_low, c.log_high, c.distance);
  const double rows = static_cast<double>(a.batch * a.heads);
  const double queries = static_cast<double>(a.q_tokens);
  const double width = static_cast<double>(a.head_dim + a.value_dim);
  double pairs = model::attended_pairs(a);
  if (a.causal) pairs = std::min(pairs + queries * c.extra_tokens / 2, queries * static_cast<double>(a.kv_tokens));
  const double flop_factor = a.backward ? c.backward_flop : 1;
  const double inverse_rate = chip.inverse_product_rate[type] / c.peak_share;
  const double inverse_exponential = 1 / (chip.exponential_rate * c.exponential_share);
  r.compute = 2 * rows * width * pairs * flop_factor * inverse_rate;
  r.special = rows * pairs * inverse_exponential;
  r.memory = t.cold_seconds / c.memory_share + t.hot_bytes / (kHotRatio * chip.memory_bandwidth);
  const double block = std::min(queries, 128.0) * static_cast<double>(a.kv_tokens) * chip.cores;
  r.fixed = c.fixed + c.tail * block * (2 * width * flop_factor * inverse_rate + inverse_exponential);
  r.time = r.fixed + r.memory + r.compute + r.special;
  return r;
}

// Decode: t = t0 + tf B/(B + x L2) + B/(W em) + (split ? tr : 0) + cu (b kv)/cores,  B = KV bytes,
// split when b kv < cores/2 and the context is longer than 256. The second term is the last cache: small KV caches stay hot.
// Products matter for latent attention (128 heads on one KV head) and for several new tokens: combined by the 4-norm.
KernelTime decode_time(const model::Attention& a, const Traffic& t, const Operands& o, const ChipCalibration& chip) {
  const bool grouped = a.kv_heads < a.heads;
  const bool narrow = o.kv_bytes < 1.5;
  const AttentionDecodeConstants& c = grouped
                                          ? (narrow ? chip.attention_decode_grouped_8bit : chip.attention_decode_grouped)
                                          : (narrow ? chip.attention_decode_multi_head_8bit : chip.attention_decode_multi_head);
  KernelTime r = start(t, c.log_low, c.log_high, c.distance);
  const double bytes = t.kv + t.activation;
  const double groups = static_cast<double>(a.batch * a.kv_heads);
  const double context = static_cast<double>(a.kv_tokens);
  r.memory = t.cold_seconds / c.memory_share + t.hot_bytes / (kHotRatio * chip.memory_bandwidth);
  const double pairs = model::attended_pairs(a) * static_cast<double>(a.batch * a.heads);
  r.compute = 2 * pairs * static_cast<double>(a.head_dim + a.value_dim) *
              chip.inverse_product_rate[static_cast<std::size_t>(o.arithmetic)] / c.peak_share;
  r.fixed =
      c.fixed + c.cold_fixed * bytes / (bytes + c.l2_multiple * chip.last_cache_bytes + 1) + c.per_wave * groups / chip.cores;
  if (groups < chip.cores / 2 && context > 256) r.fixed += c.split_fixed;
  r.time = r.fixed + norm4(r.memory, r.compute);
  return r;
}

// Narrow weights are widened by the general ALUs on their way to the product: not hidden behind the reads in single-row
// products.
void unpack(KernelTime& r, double weights, const GemmConstants& c) {
  const double seconds = weights * c.unpack_seconds;
  r.memory += seconds;
  r.time = r.fixed + r.special + norm4(r.compute, r.memory);
}

struct TimeOf {
  const model::Work& work;
  const Operands& o;
  const ChipCalibration& chip;

  KernelTime operator()(const model::MatMul& op) const {
    Product p{static_cast<double>(op.m),     static_cast<double>(op.n), static_cast<double>(op.k),
              static_cast<double>(op.batch), o.activation_bytes,        op.weight ? o.weight_bytes : o.activation_bytes};
    const bool widened = o.weight_only && op.weight;
    const GemmConstants& c = widened ? gemm_constants(o, chip) : chip.gemm[static_cast<std::size_t>(o.arithmetic)];
    Traffic t = traffic(work, o);
    if (op.cached && p.m <= c.rows_one_by_one) {
      t.kv *= p.m;
      place(t, o);
    }
    KernelTime r = product_time(p, t, c, o, chip);
    if (op.weight && c.unpack_seconds > 0) unpack(r, static_cast<double>(op.n * op.k * op.batch), c);
    return r;
  }

  // Weight bytes of the experts that are hit, arithmetic on the rows of each expert rounded up to the row tile, activations
  // once.
  KernelTime operator()(const model::GroupedMatMul& op) const {
    const auto type = static_cast<std::size_t>(o.arithmetic);
    const GemmConstants& c = o.weight_only ? chip.grouped_gemm_weight_only[type] : chip.grouped_gemm[type];
    const auto experts = static_cast<double>(op.experts);
    const auto tokens = static_cast<double>(op.tokens);
    const auto top_k = static_cast<double>(op.top_k);
    const auto n = static_cast<double>(op.n);
    const auto k = static_cast<double>(op.k);
    const double even_load = tokens * top_k / std::max(experts, 1.0);
    double row_tile = 1;
    if (chip.tile_rows > 1) {
      row_tile = chip.tile_rows;
      while (row_tile < even_load && row_tile < 128) row_tile *= 2;
    }
    auto [rows, hit] = routed_load(tokens, experts, top_k, o.routing_skew, o.routing_shards, row_tile);
    if (tokens <= c.rows_one_by_one) hit = std::max(hit, tokens * top_k / o.routing_shards);
    if (chip.tile_rows <= 1 && hit > 0) rows = hit * alu_rows(rows / hit, c);
    const double pairs = tokens * top_k / o.routing_shards;
    Traffic t;
    if (op.writes_gradient) {
      t.activation = pairs * (n + k) * o.activation_bytes;
      t.state = experts / o.routing_shards * n * k * o.gradient_bytes;
    } else {
      t.weight = hit * n * k * o.weight_bytes;
      t.activation = pairs * (k * o.activation_bytes + n * o.output_bytes);
    }
    place(t, o);
    KernelTime r = start(t, c.log_low, c.log_high, c.distance);
    r.compute = 2 * rows * n * k * chip.inverse_product_rate[type] / (c.peak_share * o.product_speedup) * o.weight_density;
    r.memory = t.cold_seconds / c.memory_share + t.hot_bytes / (c.l2_ratio * chip.memory_bandwidth) + c.fill;
    if (o.activation_cast) r.special = c.activation_cast_bytes * pairs * k * o.activation_seconds_per_byte;
    r.fixed = c.fixed;
    r.time = r.fixed + r.special + norm4(r.compute, r.memory);
    if (!op.writes_gradient && c.unpack_seconds > 0) unpack(r, hit * n * k, c);
    return r;
  }

  KernelTime operator()(const model::Attention& op) const {
    const Traffic t = traffic(work, o);
    return op.q_tokens <= 16 && op.kv_tokens > op.q_tokens && !op.backward ? decode_time(op, t, o, chip)
                                                                           : prefill_time(op, t, o, chip);
  }

  // A convolution as the product of its patches with its filters, without materialising the patches: A is read once.
  // Depthwise ones have too little to multiply per value for the product units and are bandwidth-bound.
  KernelTime operator()(const model::Convolution& op) const {
    const double pixels = static_cast<double>(op.batch * op.out_height * op.out_width);
    const double groups = static_cast<double>(op.groups);
    const double in_per_group = static_cast<double>(op.in_channels) / groups;
    const double out_per_group = static_cast<double>(op.out_channels) / groups;
    const double taps = static_cast<double>(op.kernel_height * op.kernel_width);
    if (in_per_group < 4) return stream_time(StreamClass::kElementwise, work, o, chip);
    const Product p = op.writes_gradient
                          ? Product{in_per_group * taps, out_per_group, pixels, groups, o.activation_bytes, o.activation_bytes}
                          : Product{pixels, out_per_group, in_per_group * taps, groups, o.activation_bytes, o.weight_bytes};
    return product_time(p, traffic(work, o), gemm_constants(o, chip), o, chip);
  }

  KernelTime operator()(const model::Norm&) const { return stream_time(StreamClass::kNorm, work, o, chip); }
  KernelTime operator()(const model::Elementwise& op) const {
    using model::ElementwiseKind;
    StreamClass stream = StreamClass::kElementwise;
    if (op.kind == ElementwiseKind::kRope) stream = StreamClass::kRope;
    if (op.kind == ElementwiseKind::kActivation || op.kind == ElementwiseKind::kGatedActivation)
      stream = StreamClass::kActivation;
    return stream_time(stream, work, o, chip);
  }
  KernelTime operator()(const model::Softmax&) const { return stream_time(StreamClass::kSoftmax, work, o, chip); }
  KernelTime operator()(const model::Embedding&) const { return stream_time(StreamClass::kEmbedding, work, o, chip); }
  KernelTime operator()(const model::EmbeddingBag&) const { return stream_time(StreamClass::kEmbedding, work, o, chip); }
  KernelTime operator()(const model::Pool&) const { return stream_time(StreamClass::kElementwise, work, o, chip); }
  // The engines' attention kernels write the cache themselves, so no launch of its own: only the traffic.
  KernelTime operator()(const model::CacheWrite&) const {
    KernelTime r = stream_time(StreamClass::kElementwise, work, o, chip);
    r.time -= r.fixed;
    r.fixed = 0;
    return r;
  }
  KernelTime operator()(const model::Route&) const { return stream_time(StreamClass::kSoftmax, work, o, chip); }
  KernelTime operator()(const model::CrossEntropy&) const { return stream_time(StreamClass::kLoss, work, o, chip); }

  // Element-wise update; the matrix products of second-order kinds (Shampoo, Muon) run at the product rate beside it.
  KernelTime operator()(const model::OptimizerStep&) const {
    KernelTime r = stream_time(StreamClass::kOptimizer, work, o, chip);
    const auto type = static_cast<std::size_t>(o.arithmetic);
    r.compute = work.product.value() * chip.inverse_product_rate[type] / chip.gemm[type].peak_share;
    r.time += r.compute;
    return r;
  }
};

}  // namespace

double cached_share(double footprint, double capacity) {
  if (capacity <= 0) return 0;
  constexpr double kEdge = 0.06;
  return std::clamp((1 + kEdge - footprint / capacity) / kEdge, 0.0, 1.0);
}

std::array<double, 2> routed_load(double tokens, double experts, double top_k, double skew, double shards, double row_tile) {
  const double local = experts / shards;
  const auto padded = [row_tile](double load) { return row_tile <= 1 ? load : row_tile * ceil_positive(load / row_tile); };
  if (skew <= 0) {
    const double hit = model::expected_experts_hit(tokens, experts, top_k) / shards;
    const double per_hit = hit > 0 ? tokens * top_k / shards / hit : 0;
    return {hit * padded(per_hit), hit};
  }
  // Share of expert i: the (i + 0.5)/experts quantile of a power law with exponent `skew` between 1 and 0.8 tokens,
  // x = ((xmax^(1-g) - xmin^(1-g)) q + xmin^(1-g))^(1/(1-g)), scaled so that all loads add up to tokens * top_k, none above
  // `tokens`. Largest first they are dealt to the shards in turn; the first shard has the most.
  const double g = std::abs(skew - 1) < 1e-6 ? 1 + 1e-6 : skew;
  const double top = std::max(0.8 * tokens, 1.0);
  const double low_power = 1;  // xmin = 1
  const double high_power = std::pow(top, 1 - g);
  const auto count = static_cast<int>(experts);
  double sum = 0;
  const auto share = [&](int i) {
    const double q = (static_cast<double>(count - 1 - i) + 0.5) / experts;
    return std::pow((high_power - low_power) * q + low_power, 1 / (1 - g));
  };
  for (int i = 0; i < count; ++i) sum += share(i);
  const double scale = tokens * top_k / sum;
  double rows = 0;
  double hit = 0;
  const auto stride = std::max(1, static_cast<int>(shards));
  for (int i = 0; i < count; i += stride) {
    const double load = std::min(share(i) * scale, tokens);
    const double touched = load >= 1 ? 1 : load;  // an expert with an expected load below one is hit that often
    rows += touched * padded(std::max(load, 1.0));
    hit += touched;
  }
  return {rows, std::min(hit, local)};
}

KernelTime kernel_time(const model::Operator& op, const model::Work& work, const Operands& operands,
                       const ChipCalibration& chip) {
  if (chip.ideal) return ideal_time(work, operands, chip);
  return std::visit(TimeOf{work, operands, chip}, op);
}

}  // namespace rooftree::cost

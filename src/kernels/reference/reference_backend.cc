// The truth that the other backends are measured against: each operator as its formula reads, weights dequantised to the floats
// that they stand for, activations never rounded, sums and functions in double, keys and values kept as floats whatever type
// the cache asks for. No two outputs share a rounding, so results do not depend on batch, threads or chunking; they are not the
// bits of the numeric contract.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "formats/block_codec.h"
#include "kernels/backend.h"

namespace rooftree::kernels {
namespace {

constexpr double kMasked = -std::numeric_limits<double>::infinity();

// The type that rows come in: the lossless 12-bit form is packed from bf16 rows.
DType row_type(DType type) { return type == DType::kBf16Lossless12 ? DType::kBf16 : type; }

const float* row(const MatrixRows& m, std::int64_t i) { return m.data + i * m.stride; }
float* row(const OutputRows& m, std::int64_t i) { return m.data + i * m.stride; }

// Eight sums side by side: the same to the user, and a vectoriser can keep them in registers.
double dot(const float* a, const float* b, std::int64_t n) {
  double sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// ---- weights and products

void dequantize(const PackedMatrix& matrix, std::int64_t index, std::span<float> out) {
  const DType type = row_type(matrix.type);
  const std::size_t bytes = formats::row_bytes(type, matrix.k);
  formats::dequantize_row(type, {matrix.data + static_cast<std::size_t>(index) * bytes, bytes}, out);
}

void multiply_outputs(const MultiplyArgs& args, Range outputs) {
  const std::int64_t K = args.weight.k;
  const auto* x = reinterpret_cast<const float*>(args.x);
  std::vector<float> w(static_cast<std::size_t>(K));
  for (std::int64_t n = outputs.begin; n < outputs.end; ++n) {
    dequantize(args.weight, n, w);
    for (std::int64_t m = 0; m < args.rows; ++m) {
      double y = dot(w.data(), x + m * K, K);
      if (args.bias != nullptr) y += static_cast<double>(args.bias[n]);
      row(args.y, m)[n] = static_cast<float>(y);
    }
  }
}

// ---- rows

void norm_row(const NormArgs& args, std::int64_t index, std::vector<double>& values) {
  const std::int64_t W = args.width;
  const float* x = row(args.x, index);
  for (std::int64_t i = 0; i < W; ++i) {
    double value = static_cast<double>(x[i]);
    if (args.delta.data != nullptr) {
      value += static_cast<double>(args.delta_scale) * static_cast<double>(row(args.delta, index)[i]);
    }
    values[static_cast<std::size_t>(i)] = value;
  }
  if (args.delta.data != nullptr) {
    // What is normed is what is stored: the residual stream is rounded to float once per layer on every path.
    for (std::int64_t i = 0; i < W; ++i) {
      double& value = values[static_cast<std::size_t>(i)];
      row(args.sum, index)[i] = static_cast<float>(value);
      value = static_cast<double>(static_cast<float>(value));
    }
  }
  const auto n = static_cast<double>(W);
  if (args.kind == model::NormKind::kLayer) {
    double mean = 0;
    for (const double v : values) mean += v;
    mean /= n;
    for (double& v : values) v -= mean;
  }
  double squares = 0;
  for (const double v : values) squares += v * v;
  const double scale = 1.0 / std::sqrt(squares / n + static_cast<double>(args.epsilon));
  for (std::int64_t i = 0; i < W; ++i) {
    double y = values[static_cast<std::size_t>(i)] * scale;
    if (args.weight != nullptr) y *= static_cast<double>(args.weight[i]);
    if (args.bias != nullptr) y += static_cast<double>(args.bias[i]);
    row(args.y, index)[i] = static_cast<float>(y);
  }
}

void rotate_head(const model::Rope& rope, double position, float* head) {
  const std::int64_t half = rope.dims / 2;
  const bool neighbours = rope.pairing == model::RopePairing::kNeighbours;
  for (std::int64_t i = 0; i < half; ++i) {
    float& first = head[rope.offset + (neighbours ? 2 * i : i)];
    float& second = head[rope.offset + (neighbours ? 2 * i + 1 : i + half)];
    const double angle = position * rope.inverse_frequencies[static_cast<std::size_t>(i)];
    const double c = std::cos(angle) * static_cast<double>(rope.magnitude);
    const double s = std::sin(angle) * static_cast<double>(rope.magnitude);
    const auto x0 = static_cast<double>(first), x1 = static_cast<double>(second);
    first = static_cast<float>(x0 * c - x1 * s);
    second = static_cast<float>(x0 * s + x1 * c);
  }
}

double activate(model::Activation activation, double x) {
  switch (activation) {
    case model::Activation::kSilu:
      return x * sigmoid(x);
    case model::Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x * 0.70710678118654752440));  // 1/sqrt 2
    case model::Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));  // sqrt(2/pi)
    case model::Activation::kRelu:
      return std::max(x, 0.0);
    case model::Activation::kReluSquared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case model::Activation::kSwigluClamped: {
      const double gate = std::min(x, 7.0);
      return gate * sigmoid(1.702 * gate);
    }
  }
  ROOFTREE_CHECK(false, "activation is none of the kinds");
}

double gated(model::Activation activation, double gate, double up) {
  if (activation == model::Activation::kSwigluClamped) up = std::clamp(up, -7.0, 7.0) + 1.0;
  return activate(activation, gate) * up;
}

// Indices of the `count` largest values, largest first, ties to the lower index.
std::vector<std::int64_t> largest(std::span<const double> values, std::int64_t count) {
  std::vector<std::int64_t> order(values.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(count));
  return order;
}

void softmax(std::span<double> values) {
  const double top = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& v : values) sum += v = std::exp(v - top);
  for (double& v : values) v /= sum;
}

// Experts of all but the best groups leave the choice. A group is worth its best score, with sigmoid scores the sum of its two
// best (DeepSeek-V2 and -V3: modeling_deepseek.py, group_limited_greedy and noaux_tc).
void limit_to_groups(const model::Routing& routing, std::span<double> scores) {
  const auto size = scores.size() / static_cast<std::size_t>(routing.groups);
  std::vector<double> worth;
  for (std::size_t begin = 0; begin < scores.size(); begin += size) {
    const std::span<const double> group = scores.subspan(begin, size);
    const std::vector<std::int64_t> best = largest(group, std::min<std::int64_t>(2, static_cast<std::int64_t>(size)));
    double sum = group[static_cast<std::size_t>(best[0])];
    if (routing.scoring == model::RouteScoring::kSigmoid && best.size() > 1) sum += group[static_cast<std::size_t>(best[1])];
    worth.push_back(sum);
  }
  const std::vector<std::int64_t> chosen = largest(worth, routing.chosen_groups);
  for (std::size_t g = 0; g < worth.size(); ++g) {
    if (std::find(chosen.begin(), chosen.end(), static_cast<std::int64_t>(g)) != chosen.end()) continue;
    for (double& score : scores.subspan(g * size, size)) score = kMasked;
  }
}

void route_row(const RouteArgs& args, std::int64_t index) {
  const model::Routing& routing = *args.routing;
  const float* logits = row(args.logits, index);
  const std::vector<double> exact(logits, logits + args.experts);
  std::vector<double> scores = exact;
  if (!routing.softmax_over_chosen) {
    if (routing.scoring == model::RouteScoring::kSoftmax) {
      softmax(scores);
    } else {
      for (double& s : scores) s = sigmoid(s);
    }
  }
  std::vector<double> choice = scores;
  if (args.selection_bias != nullptr) {
    for (std::size_t e = 0; e < choice.size(); ++e) choice[e] += static_cast<double>(args.selection_bias[e]);
  }
  if (routing.groups > 1) limit_to_groups(routing, choice);
  const std::vector<std::int64_t> chosen = largest(choice, args.top_k);

  std::vector<double> weights;
  for (const std::int64_t e : chosen) weights.push_back(scores[static_cast<std::size_t>(e)]);
  if (routing.softmax_over_chosen) softmax(weights);
  if (routing.normalise) {
    double sum = 0;
    for (const double w : weights) sum += w;
    for (double& w : weights) w /= sum;
  }
  for (std::size_t j = 0; j < chosen.size(); ++j) {
    const std::int64_t at = index * args.top_k + static_cast<std::int64_t>(j);
    args.chosen[at] = static_cast<std::int32_t>(chosen[j]);
    args.weights[at] = static_cast<float>(weights[j] * static_cast<double>(routing.weight_scale));
  }
}

// ---- keys, values, attention

// A page: keys (token, kv head, head_dim), then values (token, kv head, value_dim), as floats.
float* key_at(const KvCache& cache, const SequenceRows& sequence, std::int64_t position, std::int64_t kv_head) {
  const KvShape& s = cache.shape;
  std::byte* page = cache.base + static_cast<std::size_t>(sequence.pages[position / s.page_tokens]) * cache.page_stride;
  return reinterpret_cast<float*>(page) + (position % s.page_tokens * s.kv_heads + kv_head) * s.head_dim;
}
float* value_at(const KvCache& cache, const SequenceRows& sequence, std::int64_t position, std::int64_t kv_head) {
  const KvShape& s = cache.shape;
  std::byte* page = cache.base + static_cast<std::size_t>(sequence.pages[position / s.page_tokens]) * cache.page_stride;
  return reinterpret_cast<float*>(page) + s.page_tokens * s.kv_heads * s.head_dim +
         (position % s.page_tokens * s.kv_heads + kv_head) * s.value_dim;
}

// T5's bucket of key - query: exact near by, logarithmic up to max_distance (Raffel et al. 2020, section 2.1; the rounding of
// the logarithm as in transformers, modeling_t5.py).
std::int64_t relative_bucket(const ScoreModifier& modifier, std::int64_t distance) {
  std::int64_t buckets = modifier.buckets, first = 0;
  if (modifier.bidirectional) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    distance = std::abs(distance);
  } else {
    distance = std::max<std::int64_t>(-distance, 0);
  }
  const std::int64_t exact = buckets / 2;
  if (distance < exact) return first + distance;
  const double place = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                       std::log(static_cast<double>(modifier.max_distance) / static_cast<double>(exact)) *
                       static_cast<double>(buckets - exact);
  return first + std::min(exact + static_cast<std::int64_t>(place), buckets - 1);
}

double modify(const ScoreModifier& modifier, double score, std::int64_t head, std::int64_t query, std::int64_t key) {
  switch (modifier.kind) {
    case ScoreModifier::Kind::kNone:
      return score;
    case ScoreModifier::Kind::kSoftcap:
      return static_cast<double>(modifier.softcap) * std::tanh(score / static_cast<double>(modifier.softcap));
    case ScoreModifier::Kind::kAlibi:
      return score - static_cast<double>(modifier.slopes[head]) * static_cast<double>(query - key);
    case ScoreModifier::Kind::kRelativeBias:
      return score + static_cast<double>(modifier.bias[head * modifier.buckets + relative_bucket(modifier, key - query)]);
    case ScoreModifier::Kind::kDocumentMask:
      return modifier.documents[query] == modifier.documents[key] ? score : kMasked;
  }
  ROOFTREE_CHECK(false, "score modifier is none of the kinds");
}

void attend_one(const AttentionArgs& args, const SequenceRows& sequence, std::int64_t local, std::int64_t head) {
  const KvShape& s = args.cache.shape;
  const std::int64_t query = sequence.past + local;
  const std::int64_t kv_head = head / (args.heads / s.kv_heads);
  const std::int64_t end = args.causal ? query + 1 : sequence.past + sequence.rows;
  const std::int64_t begin = args.window > 0 ? std::max<std::int64_t>(query + 1 - args.window, 0) : 0;
  const float* q = row(args.q, sequence.first_row + local) + head * s.head_dim;

  std::vector<double> scores;
  double top = args.sinks != nullptr ? static_cast<double>(args.sinks[head]) : kMasked;
  for (std::int64_t key = begin; key < end; ++key) {
    const double product = dot(q, key_at(args.cache, sequence, key, kv_head), s.head_dim) * static_cast<double>(args.scale);
    scores.push_back(modify(args.modifier, product, head, query, key));
    top = std::max(top, scores.back());
  }
  double sum = args.sinks != nullptr ? std::exp(static_cast<double>(args.sinks[head]) - top) : 0.0;
  std::vector<double> out(static_cast<std::size_t>(s.value_dim));
  for (std::int64_t key = begin; key < end; ++key) {
    const double p = std::exp(scores[static_cast<std::size_t>(key - begin)] - top);
    if (p == 0) continue;  // masked, or too small for a double
    sum += p;
    const float* v = value_at(args.cache, sequence, key, kv_head);
    for (std::int64_t d = 0; d < s.value_dim; ++d) out[static_cast<std::size_t>(d)] += p * static_cast<double>(v[d]);
  }
  float* y = row(args.y, sequence.first_row + local) + head * s.value_dim;
  for (std::int64_t d = 0; d < s.value_dim; ++d) y[d] = static_cast<float>(out[static_cast<std::size_t>(d)] / sum);
}

// Calls body(sequence, row of the sequence) for the worker's share of the rows of all sequences.
template <class Body>
void for_rows(const Worker& worker, std::span<const SequenceRows> sequences, std::int64_t units_per_row, Body body) {
  std::int64_t units = 0;
  for (const SequenceRows& s : sequences) units += s.rows * units_per_row;
  const Range share = worker.share(units);
  std::int64_t first = 0;
  for (const SequenceRows& s : sequences) {
    const std::int64_t count = s.rows * units_per_row;
    for (std::int64_t u = std::max(share.begin, first); u < std::min(share.end, first + count); ++u) {
      body(s, (u - first) / units_per_row, (u - first) % units_per_row);
    }
    first += count;
  }
}

class ReferenceBackend final : public Backend {
 public:
  [[nodiscard]] std::string_view name() const override { return "reference"; }

  [[nodiscard]] Result<std::size_t> packed_bytes(DType type, std::int64_t n, std::int64_t k) const override {
    const DType stored = row_type(type);
    const std::string where = "reference: weights of type " + std::string(rooftree::name(type)) + ": ";
    if (!formats::can_dequantize(stored)) return Error{ErrorCode::kInvalid, where + "not a type that can be dequantised"};
    const int block = formats::block_form(stored).values;
    if (n < 1 || k < 1 || k % block != 0) {
      return Error{ErrorCode::kInvalid, where + "shape " + std::to_string(n) + " x " + std::to_string(k) +
                                            "; expected positive extents and rows of whole blocks of " + std::to_string(block)};
    }
    return static_cast<std::size_t>(n) * formats::row_bytes(stored, k);
  }
  void pack(const Worker& worker, const PackArgs& args) const override {
    const std::size_t bytes = formats::row_bytes(row_type(args.type), args.k);
    const Range rows = worker.share(args.n);
    if (rows.size() == 0) return;
    const std::size_t begin = static_cast<std::size_t>(rows.begin) * bytes;
    std::memcpy(args.out + begin, args.rows + begin, static_cast<std::size_t>(rows.size()) * bytes);
  }
  void unpack_row(const PackedMatrix& matrix, std::int64_t index, std::span<float> out) const override {
    dequantize(matrix, index, out);
  }

  [[nodiscard]] std::size_t activation_bytes(Product, std::int64_t rows, std::int64_t k) const override {
    return static_cast<std::size_t>(rows * k) * sizeof(float);
  }
  void pack_activations(const Worker& worker, const PackActivationsArgs& args) const override {
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      const float* x = row(args.x, args.gather != nullptr ? args.gather[i] : i);
      std::memcpy(reinterpret_cast<float*>(args.out) + i * args.k, x, static_cast<std::size_t>(args.k) * sizeof(float));
    }
  }
  void multiply(const Worker& worker, const MultiplyArgs& args) const override {
    multiply_outputs(args, worker.share(args.weight.n));
  }
  void multiply_grouped(const Worker& worker, std::span<const MultiplyArgs> groups) const override {
    for (const MultiplyArgs& group : groups) multiply(worker, group);
  }

  void embed(const Worker& worker, const EmbedArgs& args) const override {
    const Range rows = worker.share(static_cast<std::int64_t>(args.ids.size()));
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      const std::span<float> y(row(args.y, i), static_cast<std::size_t>(args.table.k));
      dequantize(args.table, args.ids[static_cast<std::size_t>(i)], y);
      for (float& v : y) v = static_cast<float>(static_cast<double>(v) * static_cast<double>(args.scale));
    }
  }

  void norm(const Worker& worker, const NormArgs& args) const override {
    ROOFTREE_CHECK(args.kind == model::NormKind::kRms || args.kind == model::NormKind::kLayer, "norm over something but a row");
    std::vector<double> values(static_cast<std::size_t>(args.width));
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) norm_row(args, i, values);
  }

  void rope(const Worker& worker, const RopeArgs& args) const override {
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      const auto position = static_cast<double>(args.positions[static_cast<std::size_t>(i)]);
      for (std::int64_t h = 0; h < args.heads; ++h) rotate_head(*args.rope, position, row(args.x, i) + h * args.head_dim);
    }
  }

  void activation(const Worker& worker, const ActivationArgs& args) const override {
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      for (std::int64_t c = 0; c < args.width; ++c) {
        const auto x = static_cast<double>(row(args.x, i)[c]);
        const double y = args.up.data == nullptr ? activate(args.activation, x)
                                                 : gated(args.activation, x, static_cast<double>(row(args.up, i)[c]));
        row(args.y, i)[c] = static_cast<float>(y);
      }
    }
  }

  void add(const Worker& worker, const AddArgs& args) const override {
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      auto factor = static_cast<double>(args.b_scale);
      if (args.gate.data != nullptr) factor *= sigmoid(static_cast<double>(row(args.gate, i)[0]));
      for (std::int64_t c = 0; c < args.width; ++c) {
        double y = static_cast<double>(row(args.a, i)[c]) + static_cast<double>(row(args.b, i)[c]) * factor;
        if (args.c.data != nullptr) y += static_cast<double>(row(args.c, i)[c]);
        row(args.y, i)[c] = static_cast<float>(y);
      }
    }
  }

  void scale(const Worker& worker, const ScaleArgs& args) const override {
    const Range rows = worker.share(args.rows);
    const auto cap = static_cast<double>(args.softcap);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      for (std::int64_t c = 0; c < args.width; ++c) {
        float& x = row(args.x, i)[c];
        const double scaled = static_cast<double>(args.scale) * static_cast<double>(x);
        x = static_cast<float>(cap > 0 ? cap * std::tanh(scaled / cap) : scaled);
      }
    }
  }

  void route(const Worker& worker, const RouteArgs& args) const override {
    ROOFTREE_CHECK(args.top_k <= args.experts, "more experts chosen than there are");
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) route_row(args, i);
  }

  void combine(const Worker& worker, const CombineArgs& args) const override {
    const Range rows = worker.share(args.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      for (std::int64_t c = 0; c < args.width; ++c) {
        double sum = 0;
        for (std::int64_t j = i * args.top_k; j < (i + 1) * args.top_k; ++j) {
          sum += static_cast<double>(args.weights[j]) * static_cast<double>(row(args.x, args.where[j])[c]);
        }
        row(args.y, i)[c] = static_cast<float>(sum);
      }
    }
  }

  [[nodiscard]] std::size_t kv_page_bytes(const KvShape& s) const override {
    return static_cast<std::size_t>(s.page_tokens * s.kv_heads * (s.head_dim + s.value_dim)) * sizeof(float);
  }
  void kv_write(const Worker& worker, const KvWriteArgs& args) const override {
    const KvShape& s = args.cache.shape;
    for_rows(worker, args.sequences, s.kv_heads, [&](const SequenceRows& sequence, std::int64_t local, std::int64_t kv_head) {
      const std::int64_t from = sequence.first_row + local, position = sequence.past + local;
      std::copy_n(row(args.k, from) + kv_head * s.head_dim, s.head_dim, key_at(args.cache, sequence, position, kv_head));
      std::copy_n(row(args.v, from) + kv_head * s.value_dim, s.value_dim, value_at(args.cache, sequence, position, kv_head));
    });
  }
  void attention(const Worker& worker, const AttentionArgs& args) const override {
    for_rows(worker, args.sequences, args.heads, [&](const SequenceRows& sequence, std::int64_t local, std::int64_t head) {
      attend_one(args, sequence, local, head);
    });
  }
};

}  // namespace

const Backend& reference_backend() {
  static const ReferenceBackend backend;
  return backend;
}

}  // namespace rooftree::kernels

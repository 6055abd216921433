// Runs graphs as graph.h says, one token at a time, in double precision with plain loops, and compares the logits with
// reference logits: the graph, the constants and the names of the weights together say all that a model computes.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/test_folder.h"
#include "formats/block_codec.h"
#include "model/gguf_config.h"
#include "model/weight_names.h"

namespace rooftree::model {
namespace {

using Row = std::vector<double>;

std::size_t z(std::int64_t n) { return static_cast<std::size_t>(n); }

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kReluSquared:
      return std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::kSwigluClamped: {
      const double gate = std::min(x, 7.0);
      return gate / (1 + std::exp(-1.702 * gate));
    }
  }
  return x;
}

// Sizes are checked by weight_names_test.cc.
class Weights {
 public:
  Weights(const Model& model, formats::GgufFile& file) : model_(model), file_(file) {}

  const Row& get(const Value& value, std::int64_t layer) {
    Row& out = made_[{value.name, layer}];
    if (!out.empty()) return out;
    const auto parts = weight_parts(model_, Naming::kGguf, value, layer, [&](std::string_view n) { return file_.contains(n); });
    if (!parts) {
      ADD_FAILURE() << parts.error().message;
      return out;
    }
    const std::int64_t k = weight_is_vector(value.name) ? 1 : value.shape.extents.back();
    for (const WeightPart& part : *parts) {
      if (part.optional && !file_.contains(part.tensor)) {
        out.resize(out.size() + z(part.rows * k), 0.0);
        continue;
      }
      const Row& stored = tensor(part.tensor);
      const bool transposed = part.change == WeightPart::Change::kTranspose;
      EXPECT_TRUE(transposed || part.change == WeightPart::Change::kNone) << "GGUF needs no other change";
      const std::int64_t stored_k = transposed ? last_extent_.at(part.tensor) : k;
      const std::int64_t rows =
          part.rows > 0 ? part.rows : static_cast<std::int64_t>(stored.size()) / stored_k - part.first_row;
      const double* from = stored.data() + part.first_row * stored_k;
      if (!transposed) {
        out.insert(out.end(), from, from + rows * stored_k);
        continue;
      }
      for (std::int64_t column = 0; column < stored_k; ++column) {
        for (std::int64_t row = 0; row < rows; ++row) out.push_back(from[row * stored_k + column]);
      }
    }
    EXPECT_EQ(out.size(), z(static_cast<std::int64_t>(value.shape.count()))) << value.name;
    return out;
  }

 private:
  const Row& tensor(const std::string& name) {
    Row& out = tensors_[name];
    if (!out.empty()) return out;
    const auto view = file_.find(name);
    if (!view) {
      ADD_FAILURE() << view.error().message;
      return out;
    }
    std::vector<float> row(z(view->k()));
    const std::size_t bytes = formats::row_bytes(view->type, view->k());
    for (std::int64_t r = 0; r < view->rows(); ++r) {
      formats::dequantize_row(view->type, view->bytes.subspan(z(r) * bytes, bytes), row);
      out.insert(out.end(), row.begin(), row.end());
    }
    last_extent_[name] = view->k();
    return out;
  }

  const Model& model_;
  formats::GgufFile& file_;
  std::map<std::pair<std::string, std::int64_t>, Row> made_;
  std::map<std::string, Row> tensors_;
  std::map<std::string, std::int64_t> last_extent_;
};

class Interpreter {
 public:
  Interpreter(const Model& model, formats::GgufFile& file)
      : graph_(model.build(Phase::decode(1, 1)).value()), n_(**model.numerics()), weights_(model, file) {
    for (const Block& block : graph_.blocks) {
      for (const std::int32_t layer : block.layers) turns_.emplace_back(layer, &block);
    }
    std::sort(turns_.begin(), turns_.end());
  }

  // Logits behind the next token.
  Row step(std::int64_t token) {
    token_ = token;
    bool behind_layers = false;
    for (const Block& block : graph_.blocks) {
      if (!block.layers.empty() && !behind_layers) {
        for (const auto& [layer, of] : turns_) run(*of, layer);
        behind_layers = true;
      }
      if (block.layers.empty()) run(block, -1);
    }
    ++position_;
    return logits_;
  }

 private:
  struct Cache {
    std::vector<Row> keys, values;
  };

  void run(const Block& block, std::int64_t layer) {
    if (block.nodes.empty()) return;
    values_.assign(graph_.values.size(), Row{});
    if (block.input.valid()) values_[block.input.index] = stream_;
    if (block.pending_input.valid()) values_[block.pending_input.index] = pending_;
    attention_ = block.local ? &n_.local : &n_.global;
    layer_ = layer;
    for (const Node& node : block.nodes) run(node);
    stream_ = block.output.valid() ? values_[block.output.index] : Row{};
    pending_ = block.pending_output.valid() ? values_[block.pending_output.index] : Row{};
  }

  [[nodiscard]] static ValueId at(const std::vector<ValueId>& ids, std::size_t i) {
    return i < ids.size() ? ids[i] : ValueId{};
  }
  const Row& in(const Node& node, std::size_t i) const { return values_[node.inputs.at(i).index]; }
  Row& out(const Node& node, std::size_t i = 0) { return values_[node.outputs.at(i).index]; }
  const Row& weight(const Node& node, std::size_t i) { return weights_.get(graph_[node.inputs.at(i)], layer_); }
  const Row* weight_if(const Node& node, std::size_t i) { return at(node.inputs, i).valid() ? &weight(node, i) : nullptr; }
  [[nodiscard]] std::int64_t width(ValueId id) const {
    const auto& extents = graph_[id].shape.extents;
    return std::accumulate(extents.begin() + 1, extents.end(), std::int64_t{1}, std::multiplies<>());
  }

  void run(const Node& node) {
    std::visit([&](const auto& op) { apply(node, op); }, node.op);
  }
  template <class Op>
  void apply(const Node& node, const Op&) {
    ADD_FAILURE() << node.name << ": not an operator of a language model that decodes";
  }

  void apply(const Node& node, const Embedding& op) {
    const std::string& ids = graph_[node.inputs.at(0)].name;
    const std::int64_t id = ids == "tokens" ? token_ : ids == "positions" ? position_ : 0;
    const Row& table = weight(node, 1);
    out(node).assign(table.begin() + id * op.width, table.begin() + (id + 1) * op.width);
  }

  void apply(const Node& node, const Norm& op) {
    const std::size_t first = op.residual ? 2 : 1;
    Row x = in(node, 0);
    if (op.residual) {
      const Row& pending = in(node, 1);
      for (std::size_t i = 0; i < pending.size(); ++i) x[i] += pending[i];
      out(node, 1) = x;
    }
    const Row& w = weight(node, first);
    const Row* bias = weight_if(node, first + 1);
    const std::int64_t part = static_cast<std::int64_t>(x.size()) / op.rows;
    for (std::int64_t r = 0; r < op.rows; ++r) {
      double* v = x.data() + r * part;
      double mean = 0, squares = 0;
      if (op.kind == NormKind::kLayer) {
        mean = std::accumulate(v, v + op.width, 0.0) / static_cast<double>(op.width);
      }
      for (std::int64_t i = 0; i < op.width; ++i) squares += (v[i] - mean) * (v[i] - mean);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(op.width) + static_cast<double>(n_.norm_epsilon));
      for (std::int64_t i = 0; i < op.width; ++i) {
        v[i] = (v[i] - mean) * scale * w[z(i)] + (bias != nullptr ? (*bias)[z(i)] : 0);
      }
    }
    out(node) = std::move(x);
  }

  static void multiply(const double* w, std::int64_t n, std::int64_t k, const double* x, double* y) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = std::inner_product(x, x + k, w + i * k, 0.0);
  }

  void apply(const Node& node, const MatMul& op) {
    ASSERT_TRUE(op.weight);
    const Row& x = in(node, 0);
    const Row& w = weight(node, 1);
    if (op.batch > 1) {
      Row& y = out(node);
      y.assign(z(width(node.outputs[0])), 0.0);
      const std::int64_t from = static_cast<std::int64_t>(x.size()) / op.batch;
      const std::int64_t to = static_cast<std::int64_t>(y.size()) / op.batch;
      for (std::int64_t b = 0; b < op.batch; ++b) {
        multiply(w.data() + b * op.n * op.k, op.n, op.k, x.data() + b * from, y.data() + b * to);
        if (to > op.n) std::copy_n(x.data() + b * from + op.k, to - op.n, y.data() + b * to + op.n);
      }
      return;
    }
    Row y(z(op.n));
    multiply(w.data(), op.n, op.k, x.data(), y.data());
    if (const Row* bias = weight_if(node, 2)) {
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += (*bias)[i];
    }
    std::int64_t column = 0;
    for (const ValueId id : node.outputs) {
      const std::int64_t columns = width(id);
      values_[id.index].assign(y.begin() + column, y.begin() + column + columns);
      column += columns;
      if (graph_[id].role == Role::kOutput) logits_ = y;
    }
  }

  void apply(const Node& node, const Route& op) {
    const Row& logits = in(node, 0);
    const Row* bias = weight_if(node, 2);
    const Routing& r = n_.routing;
    Row scores(logits.size());
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double l : logits) sum += std::exp(l - largest);
    for (std::size_t e = 0; e < scores.size(); ++e) {
      scores[e] = r.softmax_over_chosen                 ? logits[e]
                  : r.scoring == RouteScoring::kSigmoid ? 1 / (1 + std::exp(-logits[e]))
                                                        : std::exp(logits[e] - largest) / sum;
    }
    Row choice = scores;
    if (bias != nullptr) {
      for (std::size_t e = 0; e < choice.size(); ++e) choice[e] += (*bias)[e];
    }
    ASSERT_EQ(r.groups, 1);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return choice[a] > choice[b]; });
    Row &chosen = out(node, 0), &weights = out(node, 1);
    double total = 0;
    for (std::size_t i = 0; i < z(op.top_k); ++i) {
      chosen.push_back(static_cast<double>(order[i]));
      weights.push_back(r.softmax_over_chosen ? std::exp(scores[order[i]] - scores[order[0]]) : scores[order[i]]);
      total += weights.back();
    }
    for (double& w : weights) {
      if (r.normalise || r.softmax_over_chosen) w /= total;
      w *= static_cast<double>(r.weight_scale);
    }
  }

  // One token's rows stand in the order of choice here, instead of by expert.
  void apply(const Node& node, const GroupedMatMul& op) {
    const Row &x = in(node, 0), &w = weight(node, 1), &chosen = in(node, 3);
    const Row* bias = weight_if(node, 2);
    const bool gathers = node.inputs.size() == 4;
    Row& y = out(node);
    y.assign(z(op.top_k * op.n), 0.0);
    for (std::int64_t i = 0; i < op.top_k; ++i) {
      const auto e = static_cast<std::int64_t>(chosen[z(i)]);
      double* row = y.data() + i * op.n;
      multiply(w.data() + e * op.n * op.k, op.n, op.k, x.data() + (gathers ? 0 : i * op.k), row);
      for (std::int64_t j = 0; bias != nullptr && j < op.n; ++j) row[j] += (*bias)[z(e * op.n + j)];
    }
    if (node.outputs.size() < 2) return;
    const Row& weights = in(node, 4);
    Row& sum = out(node, 1);
    sum.assign(z(op.n), 0.0);
    for (std::int64_t i = 0; i < op.top_k; ++i) {
      for (std::int64_t j = 0; j < op.n; ++j) sum[z(j)] += weights[z(i)] * y[z(i * op.n + j)];
    }
  }

  void apply(const Node& node, const Elementwise& op) {
    const Row& x = in(node, 0);
    Row y;
    switch (op.kind) {
      case ElementwiseKind::kGatedActivation: {
        const bool halves = node.inputs.size() == 1;
        const bool clamped = n_.activation == Activation::kSwigluClamped;
        for (std::int64_t r = 0; r < op.rows; ++r) {
          for (std::int64_t i = 0; i < op.width; ++i) {
            const double gate = halves ? x[z(r * 2 * op.width + i)] : x[z(r * op.width + i)];
            const double up = halves ? x[z((r * 2 + 1) * op.width + i)] : in(node, 1)[z(r * op.width + i)];
            y.push_back(activate(n_.activation, gate) * (clamped ? std::clamp(up, -7.0, 7.0) + 1 : up));
          }
        }
        break;
      }
      case ElementwiseKind::kActivation:
      case ElementwiseKind::kRelu:
        for (const double v : x) y.push_back(activate(n_.activation, v));
        break;
      case ElementwiseKind::kAdd: {
        y = x;
        const bool gated = op.inputs == 2 && node.inputs.size() == 3;
        const double scale = gated ? 1 / (1 + std::exp(-in(node, 2)[0])) : 1;
        for (std::size_t i = 0; i < y.size(); ++i) y[i] += scale * in(node, 1)[i] + (op.inputs == 3 ? in(node, 2)[i] : 0);
        break;
      }
      case ElementwiseKind::kScale:
        for (const double v : x) y.push_back(v * static_cast<double>(n_.embedding_scale));
        break;
      case ElementwiseKind::kSoftcap: {
        const auto cap = static_cast<double>(n_.logit_softcap);
        for (const double v : x) y.push_back(cap * std::tanh(v / cap));
        logits_ = y;
        break;
      }
      default:
        ADD_FAILURE() << node.name << ": not an operation of a graph that is executed";
    }
    out(node) = std::move(y);
  }

  void rotate(Row& x, std::int64_t head_dim) const {
    const Rope& r = attention_->rope;
    for (std::size_t head = 0; head < x.size(); head += z(head_dim)) {
      double* v = x.data() + head + r.offset;
      for (std::int64_t i = 0; i < r.dims / 2; ++i) {
        const bool neighbours = r.pairing == RopePairing::kNeighbours;
        double& a = v[neighbours ? 2 * i : i];
        double& b = v[neighbours ? 2 * i + 1 : i + r.dims / 2];
        const double angle = static_cast<double>(position_) * r.inverse_frequencies[z(i)];
        const double c = std::cos(angle) * static_cast<double>(r.magnitude),
                     s = std::sin(angle) * static_cast<double>(r.magnitude);
        const double turned = a * c - b * s;
        b = a * s + b * c;
        a = turned;
      }
    }
  }

  void apply(const Node& node, const CacheWrite&) {
    // Every block has one attention; its heads are those of the cache.
    std::int64_t head_dim = 0;
    for (const auto& [layer, block] : turns_) {
      if (layer != layer_) continue;
      for (const Node& other : block->nodes) {
        if (const auto* a = std::get_if<Attention>(&other.op)) head_dim = a->head_dim;
      }
    }
    Row& q = values_[node.inputs.at(0).index];
    Row& k = values_[node.inputs.at(1).index];
    if (attention_->rope.dims > 0) {
      rotate(q, head_dim);
      rotate(k, head_dim);
    }
    Cache& cache = caches_[layer_];
    cache.keys.push_back(k);
    cache.values.push_back(at(node.inputs, 2).valid() ? in(node, 2) : k);
  }

  void apply(const Node& node, const Attention& op) {
    const Cache& cache = caches_[layer_];
    const Row& q = in(node, 0);
    const Row* sinks = weight_if(node, 3);
    const AttentionNumerics& a = *attention_;
    Row& y = out(node);
    y.assign(z(op.heads * op.value_dim), 0.0);
    const auto count = static_cast<std::int64_t>(cache.keys.size());
    const std::int64_t first = op.window > 0 ? std::max<std::int64_t>(0, count - op.window) : 0;
    for (std::int64_t h = 0; h < op.heads; ++h) {
      const std::int64_t kv = h / (op.heads / op.kv_heads);
      Row scores;
      for (std::int64_t p = first; p < count; ++p) {
        const double* query = q.data() + h * op.head_dim;
        double score = std::inner_product(query, query + op.head_dim, cache.keys[z(p)].data() + kv * op.head_dim, 0.0) *
                       static_cast<double>(a.scale);
        if (a.softcap > 0) score = static_cast<double>(a.softcap) * std::tanh(score / static_cast<double>(a.softcap));
        scores.push_back(score);
      }
      double largest = *std::max_element(scores.begin(), scores.end());
      if (sinks != nullptr) largest = std::max(largest, (*sinks)[z(h)]);
      double sum = sinks != nullptr ? std::exp((*sinks)[z(h)] - largest) : 0;
      for (double& s : scores) sum += s = std::exp(s - largest);
      for (std::size_t p = 0; p < scores.size(); ++p) {
        const double* value = cache.values[z(first) + p].data() + kv * (op.latent ? op.head_dim : op.value_dim);
        for (std::int64_t i = 0; i < op.value_dim; ++i) y[z(h * op.value_dim + i)] += scores[p] / sum * value[i];
      }
    }
  }

  const Graph graph_;
  const Numerics& n_;
  Weights weights_;
  std::vector<std::pair<std::int32_t, const Block*>> turns_;
  std::map<std::int64_t, Cache> caches_;
  const AttentionNumerics* attention_ = nullptr;
  std::vector<Row> values_;
  Row stream_, pending_, logits_;
  std::int64_t token_ = 0, position_ = 0, layer_ = -1;
};

const std::filesystem::path kModels = std::filesystem::path(ROOFTREE_SOURCE_DIR) / ".." / "shared" / "models";

// NumPy's version 1 format, float32: 10 bytes, a text header, the values.
std::vector<float> read_npy(const std::filesystem::path& path) {
  const auto text = read_file(path, std::size_t{16} << 20);
  EXPECT_TRUE(text.has_value()) << path;
  if (!text || text->size() < 10) return {};
  const std::size_t header = 10 + static_cast<unsigned char>((*text)[8]) + 256U * static_cast<unsigned char>((*text)[9]);
  std::vector<float> values((text->size() - header) / sizeof(float));
  std::memcpy(values.data(), text->data() + header, values.size() * sizeof(float));
  return values;
}

TEST(ExecutableGraph, GivesTheReferenceLogits) {
  const auto index_text = read_file(kModels / "index.json", std::size_t{16} << 20);
  if (!index_text) GTEST_SKIP() << "no " << (kModels / "index.json").string();
  const auto index = parse_json(*index_text, "index.json");
  ASSERT_TRUE(index.has_value());
  const test::TestFolder folder;
  int files = 0;
  for (const Json& entry : (*index)["models"]) {
    std::filesystem::path path = kModels / entry["file"].get<std::string>();
    // One weight type per architecture is enough here: the types are tested where they are decoded.
    const std::string name = path.filename().string();
    const bool wanted = name == "stories260k-f32.gguf" || name == "llama-q4_k.gguf.gz" || name == "gptoss-mxfp4.gguf.gz" ||
                        (name.find("-f16.gguf") != std::string::npos && name.find("llama-") != 0);
    if (!wanted) continue;
    SCOPED_TRACE(name);
    ++files;
    if (path.extension() == ".gz") {
      const std::filesystem::path unpacked = folder.path() / path.stem();
      ASSERT_EQ(std::system(fmt::format("gzip -dc '{}' > '{}'", path.string(), unpacked.string()).c_str()), 0);
      path = unpacked;
    }
    auto file = formats::GgufFile::open(path);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto model = parse_gguf(*file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    const std::vector<float> expected = read_npy(kModels / entry["logits_exact"].get<std::string>());
    Interpreter interpreter(*model, *file);
    std::vector<std::int64_t> tokens = entry["prompt_ids"].get<std::vector<std::int64_t>>();
    for (const Json& id : entry["greedy_ids"]) tokens.push_back(id.get<std::int64_t>());
    std::size_t at = 0;
    double worst = 0;
    for (const std::int64_t token : tokens) {
      const Row logits = interpreter.step(token);
      ASSERT_LE(at + logits.size(), expected.size());
      double difference = 0, size = 0;
      for (const double logit : logits) {
        const auto reference = static_cast<double>(expected[at++]);
        difference += (logit - reference) * (logit - reference);
        size += reference * reference;
      }
      worst = std::max(worst, difference / size);
    }
    EXPECT_EQ(at, expected.size());
    EXPECT_LT(worst, 1e-10);
  }
  EXPECT_GE(files, 15);
}

}  // namespace
}  // namespace rooftree::model

#include <fmt/format.h>

#include <array>
#include <numeric>

#include "model/transformer.h"

// Recommenders: DLRM (arXiv:1906.00091) and its DCN v2 form (arXiv:2008.13535).

namespace rooftree::model {
namespace {

class Recommender final : public Architecture {
 public:
  explicit Recommender(RecommenderSpec spec)
      : s_(std::move(spec)), rows_(std::accumulate(s_.table_rows.begin(), s_.table_rows.end(), std::int64_t{0})) {}

  std::string_view kind() const override { return "recommender"; }
  Status check(const Phase& phase) const override {
    if (phase.kind == Phase::Kind::kDecode) {
      return Error{ErrorCode::kInvalid, "a recommender has no decode phase; expected prefill or train"};
    }
    if (phase.past != 0 || phase.images != 0) return Error{ErrorCode::kInvalid, "past and images must be 0 for a recommender"};
    return check_rows(phase, static_cast<std::int64_t>(s_.table_rows.size()) * s_.lookups);
  }
  std::int64_t tokens_processed(const Phase& phase) const override { return phase.batch; }

  void write(GraphWriter& w) const override {
    const std::int64_t batch = w.phase().batch;
    const std::int64_t d = s_.embedding_dim;
    const auto tables = static_cast<std::int64_t>(s_.table_rows.size());

    w.begin_block("embedding", {});
    const std::int64_t lookups = batch * tables * s_.lookups;
    const ValueId indices = w.value("indices", {lookups}, Role::kInput);
    const double touched = static_cast<double>(std::min(lookups, rows_)) * static_cast<double>(d);
    const ValueId table = w.table("embedding.weight", {rows_, d}, touched);
    const ValueId pooled = w.value("embedded", {batch, tables * d});
    w.node("embedding_bag",
           EmbeddingBag{.batch = batch, .tables = tables, .lookups_per_table = s_.lookups, .width = d, .total_rows = rows_},
           {indices, table}, {pooled});
    w.set_block_output(pooled);
    w.end_block();

    w.begin_block("bottom", {});
    ValueId x = w.value("dense_features", {batch, s_.bottom[0]}, Role::kInput);
    std::int64_t width = s_.bottom[0];
    for (std::size_t i = 1; i < s_.bottom.size(); ++i) x = layer(w, i, batch, width, s_.bottom[i], x, true);
    w.set_block_output(x);
    w.end_block();

    w.begin_block("interaction", {});
    const std::int64_t vectors = tables + 1;
    const ValueId all = w.value("vectors", {batch, vectors * d});
    w.set_block_input(all);
    if (s_.cross_layers > 0) {
      width = write_cross_layers(w, batch, vectors * d, all);
    } else {
      width = write_dots(w, batch, vectors, all);
    }
    w.end_block();

    w.begin_block("top", {});
    x = w.value("hidden", {batch, width});
    w.set_block_input(x);
    for (std::size_t i = 0; i < s_.top.size(); ++i) x = layer(w, i + 1, batch, width, s_.top[i], x, i + 1 < s_.top.size());
    if (w.training()) {
      const ValueId loss = w.value("loss", {batch});
      w.node("loss", CrossEntropy{.tokens = batch, .vocabulary = s_.top.back()}, {x}, {loss});
    }
    w.end_block();
  }

  Description describe() const override {
    return {{"tables", fmt::format("{} with {} rows in all, {} wide", s_.table_rows.size(), rows_, s_.embedding_dim)},
            {"bottom", fmt::format("{}", fmt::join(s_.bottom, ", "))},
            {"interaction", s_.cross_layers > 0 ? fmt::format("{} cross layers of rank {}", s_.cross_layers, s_.cross_rank)
                                                : std::string("pairwise dots")},
            {"top", fmt::format("{}", fmt::join(s_.top, ", "))}};
  }

 private:
  // Product, bias, ReLU. `width` goes from the inputs to the outputs.
  ValueId layer(GraphWriter& w, std::size_t index, std::int64_t batch, std::int64_t& width, std::int64_t out_width, ValueId x,
                bool activate) const {
    static constexpr std::array<std::string_view, 8> kNames = {"layer1", "layer2", "layer3", "layer4",
                                                               "layer5", "layer6", "layer7", "layer8"};
    const std::string_view name = kNames[std::min(index, kNames.size()) - 1];
    const ValueId weight = w.weight({name, ".weight"}, {out_width, width});
    const ValueId bias = w.weight({name, ".bias"}, {out_width});
    ValueId out = w.value({name, ".out"}, {batch, out_width});
    w.node(name, MatMul{.m = batch, .n = out_width, .k = width, .bias = true}, {x, weight, bias}, {out});
    width = out_width;
    if (activate && (w.training() || !fusion_level(w.fusion()).merged_products)) {
      const ValueId activated = w.value({name, ".activated"}, {batch, out_width});
      w.node({name, "_relu"}, Elementwise{.rows = batch, .width = out_width, .kind = ElementwiseKind::kRelu}, {out},
             {activated});
      out = activated;
    }
    return out;
  }

  // Every pair of vectors, lower triangle, beside the dense vector.
  std::int64_t write_dots(GraphWriter& w, std::int64_t batch, std::int64_t vectors, ValueId all) const {
    const std::int64_t width = s_.embedding_dim + vectors * (vectors - 1) / 2;
    const ValueId dots = w.value("dots", {batch, vectors * vectors});
    w.node("dots", MatMul{.m = vectors, .n = vectors, .k = s_.embedding_dim, .batch = batch, .weight = false}, {all, all},
           {dots});
    const ValueId joined = w.value("joined", {batch, width});
    w.node("join", Elementwise{.rows = batch, .width = width, .kind = ElementwiseKind::kCopy}, {dots, all}, {joined});
    w.set_block_output(joined);
    return width;
  }

  // x_{l+1} = x_0 * (U (V x_l) + b) + x_l
  std::int64_t write_cross_layers(GraphWriter& w, std::int64_t batch, std::int64_t width, ValueId x0) const {
    ValueId x = x0;
    for (std::int64_t i = 0; i < s_.cross_layers; ++i) {
      const ValueId v = w.weight("cross.v.weight", {s_.cross_rank, width});
      const ValueId low = w.value("cross.low", {batch, s_.cross_rank});
      w.node("cross_v", MatMul{.m = batch, .n = s_.cross_rank, .k = width}, {x, v}, {low});
      const ValueId u = w.weight("cross.u.weight", {width, s_.cross_rank});
      const ValueId bias = w.weight("cross.bias", {width});
      const ValueId high = w.value("cross.high", {batch, width});
      w.node("cross_u", MatMul{.m = batch, .n = width, .k = s_.cross_rank, .bias = true}, {low, u, bias}, {high});
      const ValueId out = w.value("cross.out", {batch, width});
      w.node("cross_multiply", Elementwise{.rows = batch, .width = width, .kind = ElementwiseKind::kAdd, .inputs = 3},
             {x0, high, x}, {out});
      x = out;
    }
    w.set_block_output(x);
    return width;
  }

  RecommenderSpec s_;
  std::int64_t rows_;
};

}  // namespace

Result<std::shared_ptr<const Architecture>> make_recommender_architecture(const RecommenderSpec& s) {
  ROOFTREE_TRY_VOID(check_range("embedding_dim", s.embedding_dim, 1, kMaxExtent));
  ROOFTREE_TRY_VOID(check_range("bottom: layers", static_cast<std::int64_t>(s.bottom.size()), 2, 9));
  ROOFTREE_TRY_VOID(check_range("top: layers", static_cast<std::int64_t>(s.top.size()), 1, 8));
  ROOFTREE_TRY_VOID(check_range("table_rows: tables", static_cast<std::int64_t>(s.table_rows.size()), 1, 10'000));
  for (const std::int64_t width : s.bottom) ROOFTREE_TRY_VOID(check_range("bottom", width, 1, kMaxExtent));
  for (const std::int64_t width : s.top) ROOFTREE_TRY_VOID(check_range("top", width, 1, kMaxExtent));
  for (const std::int64_t rows : s.table_rows) ROOFTREE_TRY_VOID(check_range("table_rows", rows, 1, std::int64_t{1} << 36));
  ROOFTREE_TRY_VOID(check_range("lookups", s.lookups, 1, 100'000));
  ROOFTREE_TRY_VOID(check_range("cross_layers", s.cross_layers, 0, 1000));
  ROOFTREE_TRY_VOID(check_range("cross_rank", s.cross_rank, s.cross_layers > 0 ? 1 : 0, kMaxExtent));
  if (s.bottom.back() != s.embedding_dim) {
    return Error{ErrorCode::kInvalid, fmt::format("bottom: ends in {}; expected embedding_dim {}, which it interacts with",
                                                  s.bottom.back(), s.embedding_dim)};
  }
  return std::shared_ptr<const Architecture>(std::make_shared<Recommender>(s));
}

}  // namespace rooftree::model

#include "engine/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/check.h"

namespace rooftree::engine {
namespace {

using kernels::MatrixRows;
using kernels::OutputRows;

constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

MatrixRows in(const Operand& o) { return {.data = o.data, .stride = o.stride}; }
OutputRows out(const Operand& o) { return {.data = o.data, .stride = o.stride}; }
std::byte* bytes(const Operand& o) { return reinterpret_cast<std::byte*>(o.data); }

// The sort's result: (experts + 1) first rows, then for every sorted place the row of the step that it takes, then for every
// choice of every row its sorted place.
struct Sorted {
  const std::int32_t* first;
  const std::int32_t* row;
  const std::int32_t* place;
};
struct MutableSorted {
  std::int32_t* first;
  std::int32_t* row;
  std::int32_t* place;
};
MutableSorted sorted(const Operand& o, std::int64_t experts, std::int64_t most) {
  auto* const base = reinterpret_cast<std::int32_t*>(o.data);
  return {base, base + experts + 1, base + experts + 1 + most};
}

// `parts` groups of a.width / parts values per row, of which the first `width` were dealt with: the rest of every group of x
// goes to the same place behind the `y_width` first of y's.
void copy_tails(const Worker& worker, std::int64_t rows, std::int64_t parts, const Operand& x, std::int64_t x_head,
                const Operand& y, std::int64_t y_head, std::int64_t tail) {
  const std::int64_t x_part = x.width / parts, y_part = y.width / parts;
  const Range share = worker.share(rows * parts);
  for (std::int64_t i = share.begin; i < share.end; ++i) {
    const std::int64_t row = i / parts, part = i % parts;
    std::memcpy(y.data + row * y.stride + part * y_part + y_head, x.data + row * x.stride + part * x_part + x_head,
                static_cast<std::size_t>(tail) * sizeof(float));
  }
}

// Norm of `rows` groups per row of the step. Groups that are not evenly spaced over the rows go row by row.
void run_norm(const kernels::Backend& backend, const Step& step, const Worker& worker, std::int64_t rows) {
  kernels::NormArgs args{.kind = step.norm,
                         .rows = rows,
                         .width = step.width,
                         .x = in(step.a),
                         .delta = in(step.b),
                         .delta_scale = step.scale,
                         .sum = out(step.y2),
                         .weight = step.vector,
                         .bias = step.bias,
                         .epsilon = step.softcap,
                         .y = out(step.y)};
  const std::int64_t parts = step.rows;
  if (parts == 1) {
    backend.norm(worker, args);
  } else {
    const std::int64_t x_part = step.a.width / parts, y_part = step.y.width / parts;
    args.x.stride = x_part;
    args.y.stride = y_part;
    if (rows == 1 || (step.a.stride == step.a.width && step.y.stride == step.y.width)) {
      args.rows = rows * parts;
      backend.norm(worker, args);
    } else {
      // Enough rows for all: each worker takes whole ones.
      const bool apart = rows >= worker.count;
      const Range share = apart ? worker.share(rows) : Range{0, rows};
      args.rows = parts;
      for (std::int64_t row = share.begin; row < share.end; ++row) {
        args.x.data = step.a.data + row * step.a.stride;
        args.y.data = step.y.data + row * step.y.stride;
        backend.norm(apart ? Worker::alone() : worker, args);
      }
    }
  }
  const std::int64_t tail = step.a.width / parts - step.width;
  if (tail > 0) copy_tails(worker, rows, parts, step.a, step.width, step.y, step.width, tail);
}

}  // namespace

// Stable counting sort by expert: within an expert, rows rise.
void Program::sort(const Step& step, std::int64_t rows) const {
  const std::int64_t experts = step.index, top_k = step.width;
  const MutableSorted s = sorted(step.y, experts, max_rows_ * top_k);
  const auto* chosen = reinterpret_cast<const std::int32_t*>(step.a.data);
  std::fill(s.first, s.first + experts + 1, 0);
  for (std::int64_t i = 0; i < rows * top_k; ++i) ++s.first[chosen[i] + 1];
  for (std::int64_t e = 0; e < experts; ++e) s.first[e + 1] += s.first[e];
  for (std::int64_t i = 0; i < rows * top_k; ++i) {
    const std::int32_t place = s.first[chosen[i]]++;
    s.row[place] = static_cast<std::int32_t>(i / top_k);
    s.place[i] = place;
  }
  for (std::int64_t e = experts; e > 0; --e) s.first[e] = s.first[e - 1];
  s.first[0] = 0;
}

// Every expert's rows form a packed piece of their own; experts are shared between the workers by the place of their first row.
// A single row that all its experts read is packed once.
void Program::pack_experts(const Step& step, const Worker& worker, std::int64_t rows) const {
  const std::int64_t experts = step.weight->count, all = rows * step.rows;
  const MutableSorted s = sorted(step.b, experts, max_rows_ * step.rows);
  kernels::PackActivationsArgs args{
      .product = step.product, .x = in(step.a), .rows = rows, .k = step.width, .out = bytes(step.y)};
  if (step.gathered && rows == 1) {
    backend_->pack_activations(worker, args);
    return;
  }
  const Range share = worker.share(all);
  std::size_t offset = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int32_t first = s.first[e], count = s.first[e + 1] - first;
    if (count == 0) continue;
    if (first >= share.begin && first < share.end) {
      args.rows = count;
      args.out = bytes(step.y) + offset;
      if (step.gathered) {
        args.gather = s.row + first;
      } else {
        args.x.data = step.a.data + first * step.a.stride;
      }
      backend_->pack_activations(Worker::alone(), args);
    }
    offset += aligned(backend_->activation_bytes(step.product, count, step.width));
  }
}

void Program::multiply_experts(const Step& step, const Worker& worker, std::int64_t rows) {
  const std::int64_t experts = step.weight->count;
  const MutableSorted s = sorted(step.b, experts, max_rows_ * step.rows);
  std::vector<kernels::MultiplyArgs>& groups = groups_[static_cast<std::size_t>(worker.index)];
  groups.clear();
  const bool one_form = step.gathered && rows == 1;
  std::size_t offset = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int32_t first = s.first[e], count = s.first[e + 1] - first;
    if (count == 0) continue;
    const MatrixPart& part = step.weight->parts(e)[static_cast<std::size_t>(step.index)];
    groups.push_back({.weight = part.matrix,
                      .x = bytes(step.a) + offset,
                      .rows = count,
                      .y = {.data = step.y.data + first * step.y.stride, .stride = step.y.stride},
                      .bias = step.bias == nullptr ? nullptr : step.bias + e * step.weight->n + part.first_row});
    if (!one_form) offset += aligned(backend_->activation_bytes(step.product, count, step.width));
  }
  backend_->multiply_grouped(worker, groups);
}

void Program::execute(const Step& step, const Worker& worker, const Pass& pass) {
  const kernels::Backend& backend = *backend_;
  const std::int64_t rows = step.head ? static_cast<std::int64_t>(pass.head_rows.size()) : pass.rows();
  const auto output = [&](const Operand& o) {
    return o.reg == kLogitsRegister ? OutputRows{.data = pass.logits + o.column, .stride = vocabulary_} : out(o);
  };
  switch (step.kind) {
    case Step::Kind::kEmbed:
      backend.embed(worker, {.table = step.weight->parts().front().matrix,
                             .ids = step.index == 0   ? pass.tokens
                                    : step.index == 1 ? pass.positions
                                                      : pass.zeros,
                             .y = output(step.y)});
      return;
    case Step::Kind::kNorm:
      run_norm(backend, step, worker, rows);
      return;
    case Step::Kind::kPack:
      backend.pack_activations(
          worker, {.product = step.product, .x = in(step.a), .rows = rows * step.rows, .k = step.width, .out = bytes(step.y)});
      return;
    case Step::Kind::kMultiply:
      backend.multiply(worker, {.weight = step.weight->parts()[static_cast<std::size_t>(step.index)].matrix,
                                .x = bytes(step.a),
                                .rows = rows * step.rows,
                                .y = output(step.y),
                                .bias = step.bias});
      return;
    case Step::Kind::kPackHeads: {
      const std::size_t region = aligned(backend.activation_bytes(step.product, rows, step.width));
      const std::int64_t part = step.a.width / step.rows;
      const Range heads = worker.share(step.rows);
      for (std::int64_t h = heads.begin; h < heads.end; ++h) {
        backend.pack_activations(Worker::alone(), {.product = step.product,
                                                   .x = {.data = step.a.data + h * part, .stride = step.a.stride},
                                                   .rows = rows,
                                                   .k = step.width,
                                                   .out = bytes(step.y) + static_cast<std::size_t>(h) * region});
      }
      return;
    }
    case Step::Kind::kMultiplyHeads: {
      const std::size_t region = aligned(backend.activation_bytes(step.product, rows, step.weight->k));
      const std::int64_t part = step.y.width / step.rows;
      std::vector<kernels::MultiplyArgs>& groups = groups_[static_cast<std::size_t>(worker.index)];
      groups.clear();
      for (std::int64_t h = 0; h < step.rows; ++h) {
        groups.push_back({.weight = step.weight->parts(h).front().matrix,
                          .x = bytes(step.a) + static_cast<std::size_t>(h) * region,
                          .rows = rows,
                          .y = {.data = step.y.data + h * part, .stride = step.y.stride}});
      }
      backend.multiply_grouped(worker, groups);
      if (step.width > 0) copy_tails(worker, rows, step.rows, step.b, step.weight->k, step.y, step.weight->n, step.width);
      return;
    }
    case Step::Kind::kPackExperts:
      pack_experts(step, worker, rows);
      return;
    case Step::Kind::kMultiplyExperts:
      multiply_experts(step, worker, rows);
      return;
    case Step::Kind::kRotate:
      backend.rope(worker, {.rope = ropes_[static_cast<std::size_t>(step.index)].get(),
                            .rows = rows,
                            .heads = step.rows,
                            .head_dim = step.width,
                            .x = output(step.y),
                            .positions = pass.positions});
      return;
    case Step::Kind::kCacheWrite:
      backend.kv_write(worker, {.cache = kv_layers_[static_cast<std::size_t>(step.index)].cache,
                                .sequences = pass.sequences,
                                .k = in(step.a),
                                .v = in(step.b)});
      return;
    case Step::Kind::kAttention: {
      const KvLayer& layer = kv_layers_[static_cast<std::size_t>(step.index)];
      backend.attention(worker, {.cache = layer.cache,
                                 .sequences = pass.sequences,
                                 .heads = layer.heads,
                                 .q = in(step.a),
                                 .y = output(step.y),
                                 .scale = layer.scale,
                                 .causal = true,
                                 .window = layer.window,
                                 .sinks = layer.sinks,
                                 .modifier = layer.modifier});
      return;
    }
    case Step::Kind::kActivation:
      backend.activation(worker, {.activation = step.activation,
                                  .rows = rows * step.rows,
                                  .width = step.width,
                                  .x = in(step.a),
                                  .up = in(step.b),
                                  .y = output(step.y)});
      return;
    case Step::Kind::kAdd:
      backend.add(worker, {.rows = rows * step.rows,
                           .width = step.width,
                           .a = in(step.a),
                           .b = in(step.b),
                           .c = in(step.c),
                           .gate = in(step.d),
                           .b_scale = step.scale,
                           .y = output(step.y)});
      return;
    case Step::Kind::kScale:
      backend.scale(
          worker,
          {.rows = rows * step.rows, .width = step.width, .x = output(step.y), .scale = step.scale, .softcap = step.softcap});
      return;
    case Step::Kind::kRoute:
      backend.route(worker, {.routing = &routing_,
                             .rows = rows,
                             .experts = step.index,
                             .top_k = step.width,
                             .logits = in(step.a),
                             .selection_bias = step.bias,
                             .chosen = reinterpret_cast<std::int32_t*>(step.y.data),
                             .weights = step.y2.data});
      return;
    case Step::Kind::kSort:
      if (worker.index == 0) sort(step, rows);
      return;
    case Step::Kind::kCombine:
      backend.combine(worker, {.rows = rows,
                               .width = step.width,
                               .top_k = step.rows,
                               .x = in(step.a),
                               .where = sorted(step.b, step.index, max_rows_ * step.rows).place,
                               .weights = step.c.data,
                               .y = output(step.y)});
      return;
    case Step::Kind::kHeadRows: {
      const Range share = worker.share(rows);
      for (std::int64_t i = share.begin; i < share.end; ++i) {
        std::memcpy(step.y.data + i * step.y.stride, step.a.data + pass.head_rows[static_cast<std::size_t>(i)] * step.a.stride,
                    static_cast<std::size_t>(step.width) * sizeof(float));
      }
      return;
    }
    case Step::Kind::kStream:
      return;  // change_layer
  }
}

void Program::stream(Weights& weights) {
  if (weights.stream() == nullptr) return;
  streamed_ = &weights;
  std::vector<Step> steps;
  std::int32_t current = -1;
  std::size_t behind = 0;  // the last use of a streamed layer
  for (const Step& step : steps_) {
    const std::int32_t layer = step.weight == nullptr ? -1 : weights.streamed_layer(*step.weight);
    if (layer >= 0 && layer != current) {
      ROOFTREE_CHECK(layer == current + 1, "the layers of a program do not come in turn");
      steps.push_back({.kind = Step::Kind::kStream, .barrier = true, .head = step.head, .node = step.node, .index = layer});
      current = layer;
    }
    steps.push_back(step);
    if (layer >= 0) behind = steps.size();
  }
  ROOFTREE_CHECK(behind > 0, "no step uses a streamed layer");
  // The head, which comes next, is long: the reader goes on meanwhile.
  const Step& last = steps[behind - 1];
  const Step end{.kind = Step::Kind::kStream, .barrier = true, .head = last.head, .node = last.node, .index = -1};
  steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(behind), end);
  steps_ = std::move(steps);
}

bool Program::change_layer(const Step& step, const Worker& worker) {
  if (worker.index == 0) {
    if (holds_layer_) streamed_->release();
    holds_layer_ = step.index >= 0 && streamed_->acquire(step.index);
    failed_ = step.index >= 0 && !holds_layer_;
  }
  worker.barrier();
  return !failed_;
}

void Program::run(const Worker& worker, const Pass& pass) {
  const bool with_head = !pass.head_rows.empty();
  for (const Step& step : steps_) {
    if (step.head && !with_head) return;  // the head is the end
    if (step.barrier) worker.barrier();
    if (step.kind == Step::Kind::kStream) {
      if (!change_layer(step, worker)) return;
      continue;
    }
    execute(step, worker, pass);
  }
}

void Program::run_watched(const Worker& worker, const Pass& pass, bool profile, const Observer& observer) {
  using Clock = std::chrono::steady_clock;
  const bool with_head = !pass.head_rows.empty();
  worker.barrier();
  Clock::time_point start = Clock::now();
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (step.head && !with_head) return;
    if (step.barrier) worker.barrier();
    if (step.kind == Step::Kind::kStream) {
      if (!change_layer(step, worker)) return;
    } else {
      execute(step, worker, pass);
    }
    if (i + 1 < steps_.size() && steps_[i + 1].node == step.node) continue;
    worker.barrier();
    if (worker.index == 0) {
      const auto id = static_cast<std::size_t>(step.node);
      if (profile) seconds_[id] += std::chrono::duration<double>(Clock::now() - start).count();
      if (observer) {
        const NodeInfo& node = nodes_[id];
        const std::int64_t rows = step.head ? static_cast<std::int64_t>(pass.head_rows.size()) : pass.rows();
        for (const NodeInfo::Output& o : node.outputs) {
          const bool logits = o.place.reg == kLogitsRegister;
          const float* data = logits ? pass.logits : o.place.data;
          const auto count = static_cast<std::size_t>((rows * o.rows - 1) * o.place.stride + o.place.width);
          observer(node.layer, node.name, o.name, {data, count}, rows * o.rows, o.place.width, o.place.stride);
        }
      }
      start = Clock::now();
    }
    if (observer) worker.barrier();
  }
}

std::uint64_t Program::step_weight_bytes() const {
  std::uint64_t total = 0;
  for (const Step& step : steps_) {
    const auto part = [&](std::int64_t matrix) {
      return step.weight->parts(matrix)[static_cast<std::size_t>(step.index)].matrix.bytes;
    };
    if (step.kind == Step::Kind::kMultiply) total += part(0);
    if (step.kind == Step::Kind::kMultiplyHeads) {
      for (std::int64_t h = 0; h < step.rows; ++h) total += step.weight->parts(h).front().matrix.bytes;
    }
    if (step.kind == Step::Kind::kMultiplyExperts) total += part(0) * static_cast<std::uint64_t>(step.rows);
  }
  return total;
}

std::int64_t Program::barriers() const {
  return std::count_if(steps_.begin(), steps_.end(), [](const Step& step) { return step.barrier; });
}

}  // namespace rooftree::engine

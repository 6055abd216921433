// Program::compile: values to buffers, nodes to steps, barriers between what depends on each other.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "base/check.h"
#include "engine/program.h"

namespace rooftree::engine {
namespace {

constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

// A buffer of the program before it has an address.
struct Register {
  std::size_t bytes = 0;                      // for max_rows rows
  std::int64_t stride = 0;                    // in floats; 0: no rows (packed activations, sorts)
  std::int32_t first = INT32_MAX, last = -1;  // steps that touch it
  std::size_t offset = 0;                     // in the scratch arena
  std::uint32_t buffer = 0;
};

class Compiler {
 public:
  Compiler(const model::Model& model, const model::Numerics& numerics, Weights& weights, const kernels::Backend& backend,
           const ProgramOptions& options)
      : model_(model), numerics_(numerics), weights_(weights), backend_(backend), options_(options) {}

  Result<std::unique_ptr<Program>> compile();

 private:
  // One instance of a block being written.
  struct Instance {
    const model::Block* block = nullptr;
    std::int32_t layer = -1;
    bool head = false;
    std::vector<Operand> values;         // by value
    std::vector<std::int32_t> last_use;  // by value: the last node of the block that reads it; INT32_MAX: leaves the block
  };

  Status write_block(const model::Block& block, std::int32_t layer, bool head);
  Status write_node(Instance& in, const model::Node& node, std::int32_t index);
  Status embedding(Instance& in, const model::Node& node, const model::Embedding& op);
  Status norm(Instance& in, const model::Node& node, const model::Norm& op, std::int32_t index);
  Status matmul(Instance& in, const model::Node& node, const model::MatMul& op);
  Status grouped(Instance& in, const model::Node& node, const model::GroupedMatMul& op);
  Status route(Instance& in, const model::Node& node, const model::Route& op);
  Status cache_write(Instance& in, const model::Node& node);
  Status attention(Instance& in, const model::Node& node, const model::Attention& op);
  Status elementwise(Instance& in, const model::Node& node, const model::Elementwise& op, std::int32_t index);

  [[nodiscard]] const model::Value& value(model::ValueId id) const { return graph_[id]; }
  [[nodiscard]] static model::ValueId input(const model::Node& node, std::size_t i) {
    return i < node.inputs.size() ? node.inputs[i] : model::ValueId{};
  }
  [[nodiscard]] static model::ValueId output(const model::Node& node, std::size_t i) {
    return i < node.outputs.size() ? node.outputs[i] : model::ValueId{};
  }
  [[nodiscard]] std::int64_t rows_of(model::ValueId id) const { return value(id).shape.extents.front(); }
  [[nodiscard]] std::int64_t width_of(model::ValueId id) const {
    const std::vector<std::int64_t>& extents = value(id).shape.extents;
    std::int64_t width = 1;
    for (std::size_t i = 1; i < extents.size(); ++i) width *= extents[i];
    return width;
  }
  Result<Operand> operand(const Instance& in, const model::Node& node, std::size_t i) const;
  Operand define(Instance& in, model::ValueId id);  // a new register for a value
  Operand new_rows(std::int64_t rows, std::int64_t width);
  Operand new_bytes(std::size_t bytes);
  Result<const float*> optional_vector(const Instance& in, model::ValueId id, std::int64_t count);
  Step& emit(const Instance& in, Step step);
  Operand packed(const Instance& in, const Operand& x, std::int64_t rows, std::int64_t k, kernels::Product product);
  [[nodiscard]] Error refuse(const Instance& in, const model::Node& node, const std::string& why) const {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} of block {}: {}", model_.id, node.name, in.block->name, why)};
  }
  [[nodiscard]] bool feeds_route(const Instance& in, model::ValueId id) const;
  std::int32_t rope_for(const model::Rope& rope);

  void place_registers();
  void place_barriers();

  const model::Model& model_;
  const model::Numerics& numerics_;
  Weights& weights_;
  const kernels::Backend& backend_;
  const ProgramOptions options_;
  model::Graph graph_;
  std::unique_ptr<Program> program_{new Program};
  std::vector<Register> registers_;
  Operand stream_, pending_;  // between blocks
  // Packed activations that are still valid, by what they were made of.
  std::map<std::tuple<std::uint32_t, std::int64_t, kernels::Product>, Operand> packed_;
  std::map<std::uint32_t, Operand> sorts_;  // by the register of the chosen experts
  std::size_t max_groups_ = 1;
};

Result<std::unique_ptr<Program>> Program::compile(const model::Model& model, Weights& weights, const kernels::Backend& backend,
                                                  const ProgramOptions& options) {
  ROOFTREE_TRY(const model::Numerics* numerics, model.numerics());
  return Compiler(model, *numerics, weights, backend, options).compile();
}

Result<std::unique_ptr<Program>> Compiler::compile() {
  // The context changes no node and no weight; any length that the model allows will do.
  ROOFTREE_TRY(graph_, model_.build(model::Phase::decode(1, 1), model::Fusion::kStandard));
  program_->backend_ = &backend_;
  program_->max_rows_ = options_.max_rows;
  program_->routing_ = numerics_.routing;
  program_->position_limit_ = numerics_.max_positions;

  struct Turn {
    std::int32_t layer;
    const model::Block* block;
  };
  std::vector<const model::Block*> before, after;
  std::vector<Turn> layers;
  for (const model::Block& block : graph_.blocks) {
    if (block.nodes.empty()) continue;
    if (block.layers.empty()) {
      (layers.empty() ? before : after).push_back(&block);
    } else {
      for (const std::int32_t layer : block.layers) layers.push_back({layer, &block});
    }
  }
  std::stable_sort(layers.begin(), layers.end(), [](const Turn& a, const Turn& b) { return a.layer < b.layer; });
  for (const model::Block* block : before) ROOFTREE_TRY_VOID(write_block(*block, -1, false));
  for (const Turn& turn : layers) ROOFTREE_TRY_VOID(write_block(*turn.block, turn.layer, false));
  // Behind the layers only the rows whose logits are asked for go on.
  if (!after.empty()) {
    Instance in;
    in.block = after.front();
    in.head = true;
    program_->nodes_.push_back({.block = after.front()->name, .name = "gather", .head = true, .outputs = {}});
    for (Operand* carried : {&stream_, &pending_}) {
      if (!carried->valid()) continue;
      const Operand gathered = new_rows(1, carried->width);
      emit(in, {.kind = Step::Kind::kHeadRows, .width = carried->width, .a = *carried, .y = gathered});
      *carried = gathered;
    }
  }
  for (const model::Block* block : after) ROOFTREE_TRY_VOID(write_block(*block, -1, true));
  if (program_->vocabulary_ == 0) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: its graph has no logits; expected a language model", model_.id)};
  }

  place_registers();
  place_barriers();
  program_->groups_.resize(static_cast<std::size_t>(options_.threads));
  for (auto& groups : program_->groups_) groups.reserve(max_groups_);
  program_->seconds_.resize(program_->nodes_.size());
  std::size_t bytes = 0;
  for (const Register& r : registers_) bytes = std::max(bytes, r.offset + aligned(r.bytes));
  ROOFTREE_TRY(program_->scratch_, Arena::make(bytes, true));
  std::byte* const scratch = program_->scratch_.data();
  const auto resolve = [&](Operand& o) {
    if (!o.valid()) return;
    if (o.reg == kLogitsRegister) {
      o.stride = program_->vocabulary_;
      return;
    }
    const Register& r = registers_[o.reg];
    o.data = reinterpret_cast<float*>(scratch + r.offset) + o.column;
    o.stride = r.stride;
  };
  for (Step& step : program_->steps_) {
    for (Operand* o : {&step.a, &step.b, &step.c, &step.d, &step.y, &step.y2}) resolve(*o);
  }
  for (NodeInfo& node : program_->nodes_) {
    for (NodeInfo::Output& out : node.outputs) resolve(out.place);
  }
  return std::move(program_);
}

Status Compiler::write_block(const model::Block& block, std::int32_t layer, bool head) {
  Instance in;
  in.block = &block;
  in.layer = layer;
  in.head = head;
  in.values.resize(graph_.values.size());
  in.last_use.assign(graph_.values.size(), -1);
  for (std::size_t i = 0; i < block.nodes.size(); ++i) {
    for (const model::ValueId id : block.nodes[i].inputs) {
      if (id.valid()) in.last_use[id.index] = static_cast<std::int32_t>(i);
    }
  }
  for (const model::ValueId id : {block.output, block.pending_output}) {
    if (id.valid()) in.last_use[id.index] = INT32_MAX;
  }
  if (block.input.valid()) in.values[block.input.index] = stream_;
  if (block.pending_input.valid()) in.values[block.pending_input.index] = pending_;
  packed_.clear();
  for (std::size_t i = 0; i < block.nodes.size(); ++i) {
    const model::Node& node = block.nodes[i];
    program_->nodes_.push_back({.block = block.name, .name = node.name, .layer = layer, .head = head, .outputs = {}});
    ROOFTREE_TRY_VOID(write_node(in, node, static_cast<std::int32_t>(i)));
    NodeInfo& info = program_->nodes_.back();
    for (const model::ValueId id : node.outputs) {
      if (!id.valid() || !in.values[id.index].valid()) continue;
      if (node.op.index() == static_cast<std::size_t>(model::OperatorKind::kRoute) && id == node.outputs.front()) continue;
      info.outputs.push_back({.name = value(id).name, .place = in.values[id.index], .rows = rows_of(id)});
    }
  }
  stream_ = block.output.valid() ? in.values[block.output.index] : Operand{};
  pending_ = block.pending_output.valid() ? in.values[block.pending_output.index] : Operand{};
  if (block.output.valid() && !stream_.valid()) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: block {}: nothing writes its output", model_.id, block.name)};
  }
  return Ok{};
}

Status Compiler::write_node(Instance& in, const model::Node& node, std::int32_t index) {
  if (const auto* op = std::get_if<model::Embedding>(&node.op)) return embedding(in, node, *op);
  if (const auto* op = std::get_if<model::Norm>(&node.op)) return norm(in, node, *op, index);
  if (const auto* op = std::get_if<model::MatMul>(&node.op)) return matmul(in, node, *op);
  if (const auto* op = std::get_if<model::GroupedMatMul>(&node.op)) return grouped(in, node, *op);
  if (const auto* op = std::get_if<model::Route>(&node.op)) return route(in, node, *op);
  if (std::holds_alternative<model::CacheWrite>(node.op)) return cache_write(in, node);
  if (const auto* op = std::get_if<model::Attention>(&node.op)) return attention(in, node, *op);
  if (const auto* op = std::get_if<model::Elementwise>(&node.op)) return elementwise(in, node, *op, index);
  return refuse(in, node, fmt::format("the engine has no {}", model::name(model::kind(node.op))));
}

// ---- values

Result<Operand> Compiler::operand(const Instance& in, const model::Node& node, std::size_t i) const {
  const model::ValueId id = input(node, i);
  if (!id.valid()) return refuse(in, node, fmt::format("input {} is absent", i));
  if (!in.values[id.index].valid()) return refuse(in, node, fmt::format("nothing wrote {} before it", value(id).name));
  return in.values[id.index];
}

Operand Compiler::new_rows(std::int64_t rows, std::int64_t width) {
  Register r;
  r.stride = width;
  r.bytes = static_cast<std::size_t>(options_.max_rows * rows * width) * sizeof(float);
  registers_.push_back(r);
  return {.reg = static_cast<std::uint32_t>(registers_.size() - 1), .column = 0, .width = width};
}

Operand Compiler::new_bytes(std::size_t bytes) {
  Register r;
  r.bytes = bytes;
  registers_.push_back(r);
  return {.reg = static_cast<std::uint32_t>(registers_.size() - 1)};
}

Operand Compiler::define(Instance& in, model::ValueId id) {
  Operand& place = in.values[id.index];
  if (value(id).role == model::Role::kOutput) {
    place = {.reg = kLogitsRegister, .column = 0, .width = width_of(id)};
  } else {
    place = new_rows(rows_of(id), width_of(id));
  }
  return place;
}

Result<const float*> Compiler::optional_vector(const Instance& in, model::ValueId id, std::int64_t count) {
  if (!id.valid()) return static_cast<const float*>(nullptr);
  return weights_.vector(value(id), in.layer, count);
}

Step& Compiler::emit(const Instance& in, Step step) {
  step.head = in.head;
  step.node = static_cast<std::int32_t>(program_->nodes_.size()) - 1;
  const auto at = static_cast<std::int32_t>(program_->steps_.size());
  for (const Operand* o : {&step.a, &step.b, &step.c, &step.d, &step.y, &step.y2}) {
    if (!o->valid() || o->reg == kLogitsRegister) continue;
    Register& r = registers_[o->reg];
    r.first = std::min(r.first, at);
    r.last = std::max(r.last, at);
  }
  // What was packed from a register that is written again is out of date.
  for (const Operand* o : {&step.y, &step.y2}) {
    if (!o->valid()) continue;
    for (auto it = packed_.begin(); it != packed_.end();) {
      it = std::get<0>(it->first) == o->reg ? packed_.erase(it) : std::next(it);
    }
  }
  program_->steps_.push_back(step);
  return program_->steps_.back();
}

// Activations in the form that a product reads, made once for all products that read the same.
Operand Compiler::packed(const Instance& in, const Operand& x, std::int64_t rows, std::int64_t k, kernels::Product product) {
  const auto key = std::tuple(x.reg, x.column, product);
  if (const auto it = packed_.find(key); it != packed_.end()) return it->second;
  const Operand out = new_bytes(backend_.activation_bytes(product, options_.max_rows * rows, k));
  emit(in, {.kind = Step::Kind::kPack, .rows = rows, .width = k, .a = x, .y = out, .product = product});
  packed_.emplace(key, out);
  return out;
}

bool Compiler::feeds_route(const Instance& in, model::ValueId id) const {
  return std::any_of(in.block->nodes.begin(), in.block->nodes.end(), [&](const model::Node& node) {
    return std::holds_alternative<model::Route>(node.op) && !node.inputs.empty() && node.inputs.front() == id;
  });
}

// ---- operators

Status Compiler::embedding(Instance& in, const model::Node& node, const model::Embedding& op) {
  const model::ValueId ids = input(node, 0);
  if (!ids.valid() || !input(node, 1).valid()) return refuse(in, node, "ids or table are absent");
  const std::string& source = value(ids).name;
  const int kind = source == "tokens" ? 0 : source == "positions" ? 1 : source == "types" ? 2 : -1;
  if (kind < 0) return refuse(in, node, fmt::format("ids come from {}; expected tokens, positions or types", source));
  ROOFTREE_TRY(const BoundMatrix* table,
               weights_.matrix(value(input(node, 1)), in.layer, 1, op.vocabulary, op.width, WeightUse::kLookup));
  if (table->parts().size() != 1) return refuse(in, node, "the table is stored in several types; expected one");
  if (kind == 1) {
    std::int64_t& limit = program_->position_limit_;
    limit = limit == 0 ? op.vocabulary : std::min(limit, op.vocabulary);
  }
  const Operand y = define(in, output(node, 0));
  emit(in, {.kind = Step::Kind::kEmbed, .index = kind, .width = op.width, .y = y, .weight = table});
  return Ok{};
}

Status Compiler::norm(Instance& in, const model::Node& node, const model::Norm& op, std::int32_t index) {
  if (op.kind != model::NormKind::kRms && op.kind != model::NormKind::kLayer) {
    return refuse(in, node, "a norm over something but a row");
  }
  const std::size_t shift = op.residual ? 1 : 0;
  ROOFTREE_TRY(const Operand x, operand(in, node, 0));
  ROOFTREE_TRY(const float* weight, optional_vector(in, input(node, 1 + shift), op.width));
  ROOFTREE_TRY(const float* bias, optional_vector(in, input(node, 2 + shift), op.width));
  Step step{.kind = Step::Kind::kNorm,
            .rows = op.rows,
            .width = op.width,
            .a = x,
            .vector = weight,
            .bias = bias,
            .norm = op.kind,
            .scale = numerics_.residual_scale,
            .softcap = numerics_.norm_epsilon};
  if (op.residual) {
    const model::ValueId stream = input(node, 0), pending = input(node, 1), sum = output(node, 1);
    if (!sum.valid()) return refuse(in, node, "the sum is absent");
    step.b = pending.valid() ? in.values[pending.index] : Operand{};
    // The sum takes the stream's place unless somebody still reads the stream. Without a pending part it is the stream.
    const bool last = in.last_use[stream.index] <= index;
    if (!step.b.valid() || last) {
      in.values[sum.index] = x;
    } else {
      define(in, sum);
    }
    if (step.b.valid()) step.y2 = in.values[sum.index];
  }
  step.y = define(in, output(node, 0));
  emit(in, step);
  return Ok{};
}

Status Compiler::matmul(Instance& in, const model::Node& node, const model::MatMul& op) {
  if (!op.weight || op.cached || !input(node, 1).valid())
    return refuse(in, node, "products of two activations are not executed");
  ROOFTREE_TRY(const Operand x, operand(in, node, 0));
  const std::int64_t rows = rows_of(input(node, 0));
  const WeightUse use = feeds_route(in, output(node, 0)) ? WeightUse::kSmall : WeightUse::kProduct;
  ROOFTREE_TRY(const BoundMatrix* weight, weights_.matrix(value(input(node, 1)), in.layer, op.batch, op.n, op.k, use));

  if (op.batch > 1) {
    if (node.outputs.size() != 1 || input(node, 2).valid() || weight->parts().size() != 1) {
      return refuse(in, node, "a product per head has one output, no bias, and weights of one type");
    }
    if (rows != 1 || x.width % op.batch != 0 || x.width / op.batch < op.k) {
      return refuse(in, node,
                    fmt::format("{} values per row in {} parts; expected at least {} in each", x.width, op.batch, op.k));
    }
    const Operand y = define(in, output(node, 0));
    const std::int64_t x_tail = x.width / op.batch - op.k, y_tail = y.width / op.batch - op.n;
    if (y.width % op.batch != 0 || y_tail < 0 || (x_tail != y_tail && y_tail != 0)) {
      return refuse(in, node, "what lies behind the product's values differs in size between input and output");
    }
    const kernels::Product product = weight->parts().front().product;
    const std::size_t region = aligned(backend_.activation_bytes(product, options_.max_rows, op.k));
    const Operand form = new_bytes(region * static_cast<std::size_t>(op.batch));
    emit(in, {.kind = Step::Kind::kPackHeads, .rows = op.batch, .width = op.k, .a = x, .y = form, .product = product});
    emit(in, {.kind = Step::Kind::kMultiplyHeads,
              .rows = op.batch,
              .width = y_tail,
              .a = form,
              .b = x,
              .y = y,
              .weight = weight,
              .product = product});
    max_groups_ = std::max(max_groups_, static_cast<std::size_t>(op.batch));
    return Ok{};
  }

  ROOFTREE_TRY(const float* bias, optional_vector(in, input(node, 2), op.n));
  Operand product;
  bool is_output = false;
  if (node.outputs.size() == 1) {
    is_output = value(node.outputs[0]).role == model::Role::kOutput;
    product = define(in, node.outputs[0]);
  } else {
    product = new_rows(rows, op.n);
    std::int64_t column = 0;
    for (const model::ValueId id : node.outputs) {
      if (!id.valid()) return refuse(in, node, "an output is absent");
      const std::int64_t width = width_of(id);
      in.values[id.index] = {.reg = product.reg, .column = column, .width = width};
      column += width;
    }
    if (column != op.n) return refuse(in, node, fmt::format("outputs of {} columns; expected {}", column, op.n));
  }
  if (product.width != op.n) return refuse(in, node, fmt::format("an output of {} columns; expected {}", product.width, op.n));
  // All forms of the activations first: the products behind them then run without a barrier between.
  for (const MatrixPart& part : weight->parts()) packed(in, x, rows, op.k, part.product);
  for (std::size_t i = 0; i < weight->parts().size(); ++i) {
    const MatrixPart& part = weight->parts()[i];
    Operand y = product;
    y.column += part.first_row;
    y.width = part.matrix.n;
    emit(in, {.kind = Step::Kind::kMultiply,
              .index = static_cast<std::int32_t>(i),
              .rows = rows,
              .width = op.k,
              .a = packed(in, x, rows, op.k, part.product),
              .y = y,
              .weight = weight,
              .bias = bias == nullptr ? nullptr : bias + part.first_row,
              .product = part.product});
  }
  if (is_output) {
    program_->vocabulary_ = op.n;
    if (numerics_.logit_scale != 1.0F || numerics_.logit_softcap > 0.0F) {
      emit(in, {.kind = Step::Kind::kScale,
                .width = op.n,
                .y = product,
                .scale = numerics_.logit_scale,
                .softcap = numerics_.logit_softcap});
    }
  }
  return Ok{};
}

Status Compiler::route(Instance& in, const model::Node& node, const model::Route& op) {
  ROOFTREE_TRY(const Operand logits, operand(in, node, 0));
  ROOFTREE_TRY(const float* bias, optional_vector(in, input(node, 2), op.experts));
  if (!output(node, 0).valid() || !output(node, 1).valid()) return refuse(in, node, "chosen experts or weights are absent");
  const Operand chosen = define(in, output(node, 0)), weights = define(in, output(node, 1));
  if (chosen.width != op.top_k || weights.width != op.top_k) return refuse(in, node, "outputs are not top_k wide");
  emit(in, {.kind = Step::Kind::kRoute,
            .index = static_cast<std::int32_t>(op.experts),
            .width = op.top_k,
            .a = logits,
            .y = chosen,
            .y2 = weights,
            .bias = bias});
  // Where each expert's rows begin, the row that each sorted place takes, and the place of each choice.
  const auto ints = static_cast<std::size_t>(op.experts + 1 + 2 * options_.max_rows * op.top_k);
  const Operand sort = new_bytes(ints * sizeof(std::int32_t));
  emit(in,
       {.kind = Step::Kind::kSort, .index = static_cast<std::int32_t>(op.experts), .width = op.top_k, .a = chosen, .y = sort});
  sorts_[chosen.reg] = sort;
  return Ok{};
}

Status Compiler::grouped(Instance& in, const model::Node& node, const model::GroupedMatMul& op) {
  ROOFTREE_TRY(const Operand x, operand(in, node, 0));
  ROOFTREE_TRY(const Operand chosen, operand(in, node, 3));
  const auto sorted = sorts_.find(chosen.reg);
  if (sorted == sorts_.end()) return refuse(in, node, "its experts were not chosen by a route");
  const Operand sort = sorted->second;
  if (!input(node, 1).valid()) return refuse(in, node, "the weight is absent");
  ROOFTREE_TRY(const BoundMatrix* weight,
               weights_.matrix(value(input(node, 1)), in.layer, op.experts, op.n, op.k, WeightUse::kProduct));
  ROOFTREE_TRY(const float* bias, optional_vector(in, input(node, 2), op.experts * op.n));
  const bool gathered = node.outputs.size() == 1;
  if (rows_of(input(node, 0)) != (gathered ? 1 : op.top_k)) return refuse(in, node, "its input has the wrong number of rows");
  if (x.width != op.k) return refuse(in, node, fmt::format("rows of {} values; expected {}", x.width, op.k));
  const Operand y = define(in, output(node, 0));
  if (y.width != op.n) return refuse(in, node, fmt::format("an output of {} columns; expected {}", y.width, op.n));

  // Every expert's rows are packed apart from the others'. Any split of the rows needs at most as much as all rows together
  // and one row more per expert, since sizes grow in steps of tiles.
  const std::int64_t all = options_.max_rows * op.top_k;
  std::map<kernels::Product, Operand> forms;
  for (const MatrixPart& part : weight->parts()) {
    if (forms.contains(part.product)) continue;
    const std::size_t one = aligned(backend_.activation_bytes(part.product, 1, op.k)) + kAlignment;
    const std::size_t bytes =
        aligned(backend_.activation_bytes(part.product, all, op.k)) + static_cast<std::size_t>(std::min(op.experts, all)) * one;
    const Operand form = new_bytes(bytes);
    emit(in, {.kind = Step::Kind::kPackExperts,
              .gathered = gathered,
              .rows = op.top_k,
              .width = op.k,
              .a = x,
              .b = sort,
              .y = form,
              .weight = weight,
              .product = part.product});
    forms.emplace(part.product, form);
  }
  for (std::size_t i = 0; i < weight->parts().size(); ++i) {
    const MatrixPart& part = weight->parts()[i];
    Operand slice = y;
    slice.column += part.first_row;
    slice.width = part.matrix.n;
    emit(in, {.kind = Step::Kind::kMultiplyExperts,
              .gathered = gathered,
              .index = static_cast<std::int32_t>(i),
              .rows = op.top_k,
              .width = op.k,
              .a = forms.at(part.product),
              .b = sort,
              .y = slice,
              .weight = weight,
              .bias = bias,
              .product = part.product});
  }
  max_groups_ = std::max(max_groups_, static_cast<std::size_t>(op.experts));
  if (node.outputs.size() > 1) {
    ROOFTREE_TRY(const Operand weights, operand(in, node, 4));
    const Operand sum = define(in, node.outputs[1]);
    emit(in, {.kind = Step::Kind::kCombine,
              .index = static_cast<std::int32_t>(op.experts),
              .rows = op.top_k,
              .width = op.n,
              .a = y,
              .b = sort,
              .c = weights,
              .y = sum});
  }
  return Ok{};
}

std::int32_t Compiler::rope_for(const model::Rope& rope) {
  for (std::size_t i = 0; i < program_->ropes_.size(); ++i) {
    const model::Rope& known = *program_->ropes_[i];
    if (known.dims == rope.dims && known.offset == rope.offset && known.pairing == rope.pairing &&
        known.magnitude == rope.magnitude && known.inverse_frequencies == rope.inverse_frequencies) {
      return static_cast<std::int32_t>(i);
    }
  }
  program_->ropes_.push_back(std::make_unique<model::Rope>(rope));
  return static_cast<std::int32_t>(program_->ropes_.size() - 1);
}

Status Compiler::cache_write(Instance& in, const model::Node& node) {
  // The attention that reads this cache says what a head is.
  const model::ValueId k_cache = output(node, 0);
  const model::Attention* reader = nullptr;
  for (const model::Node& other : in.block->nodes) {
    const auto* op = std::get_if<model::Attention>(&other.op);
    if (op != nullptr && input(other, 1) == k_cache) reader = op;
  }
  if (reader == nullptr || !k_cache.valid()) return refuse(in, node, "no attention reads this cache");
  ROOFTREE_TRY(const Operand k, operand(in, node, 1));
  const bool latent = !input(node, 2).valid();
  Operand v = k;
  if (!latent) {
    ROOFTREE_TRY(v, operand(in, node, 2));
  }
  if (k.width != reader->kv_heads * reader->head_dim || (!latent && v.width != reader->kv_heads * reader->value_dim) ||
      (latent && (reader->kv_heads != 1 || reader->value_dim > reader->head_dim))) {
    return refuse(in, node,
                  fmt::format("keys of {} and values of {} columns do not fit {} heads of {} and {}", k.width, v.width,
                              reader->kv_heads, reader->head_dim, reader->value_dim));
  }
  const model::AttentionNumerics& numerics = in.block->local ? numerics_.local : numerics_.global;
  const model::Rope& rope = numerics.rope;
  if (rope.dims > 0) {
    if (rope.offset + rope.dims > reader->head_dim || rope.dims % 2 != 0 ||
        static_cast<std::int64_t>(rope.inverse_frequencies.size()) != rope.dims / 2) {
      return refuse(in, node,
                    fmt::format("rotation of {} values from {} in heads of {}", rope.dims, rope.offset, reader->head_dim));
    }
    const std::int32_t index = rope_for(rope);
    ROOFTREE_TRY(const Operand q, operand(in, node, 0));
    for (const Operand& x : {q, k}) {
      if (x.width % reader->head_dim != 0) return refuse(in, node, "queries are not whole heads of the keys' size");
      emit(
          in,
          {.kind = Step::Kind::kRotate, .index = index, .rows = x.width / reader->head_dim, .width = reader->head_dim, .y = x});
    }
  }
  const auto index = static_cast<std::int32_t>(program_->kv_layers_.size());
  KvLayer layer;
  layer.cache.shape = {.type = options_.kv,
                       .kv_heads = reader->kv_heads,
                       .head_dim = reader->head_dim,
                       .value_dim = reader->value_dim,
                       .page_tokens = options_.page_tokens};
  if (options_.kv == DType::kQ8_0 || options_.kv == DType::kQ4_0) {
    if (reader->head_dim % 32 != 0 || reader->value_dim % 32 != 0) {
      return refuse(in, node,
                    fmt::format("heads of {} and {} values in a {} cache; expected multiples of 32", reader->head_dim,
                                reader->value_dim, name(options_.kv)));
    }
  }
  program_->kv_layers_.push_back(layer);
  // The place of a cache is its layer: what the attention looks for.
  Operand place{.reg = UINT32_MAX, .column = index};
  in.values[k_cache.index] = place;
  emit(in, {.kind = Step::Kind::kCacheWrite, .index = index, .a = k, .b = v});
  return Ok{};
}

Status Compiler::attention(Instance& in, const model::Node& node, const model::Attention& op) {
  if (!op.cached || !op.causal) return refuse(in, node, "attention over anything but the causal cache is not executed");
  if (op.chunk > 0) return refuse(in, node, "chunked attention is not executed");
  const model::ValueId cache = input(node, 1);
  if (!cache.valid() || value(cache).role != model::Role::kKvCache) return refuse(in, node, "its keys are not in a cache");
  ROOFTREE_TRY(const Operand q, operand(in, node, 0));
  if (q.width != op.heads * op.head_dim) return refuse(in, node, "queries are not heads of the keys' size");
  const std::int64_t index = in.values[cache.index].column;
  KvLayer& layer = program_->kv_layers_[static_cast<std::size_t>(index)];
  const model::AttentionNumerics& numerics = in.block->local ? numerics_.local : numerics_.global;
  layer.heads = op.heads;
  layer.window = op.window;
  layer.scale = numerics.scale;
  const model::ValueId sinks = input(node, op.latent ? 2 : 3);
  if (sinks.valid()) {
    ROOFTREE_TRY(layer.sinks, optional_vector(in, sinks, op.heads));
  }
  if (numerics.softcap > 0.0F && !numerics.alibi_slopes.empty()) return refuse(in, node, "both a soft cap and linear biases");
  if (numerics.softcap > 0.0F) layer.modifier = {.kind = kernels::ScoreModifier::Kind::kSoftcap, .softcap = numerics.softcap};
  if (!numerics.alibi_slopes.empty()) {
    if (static_cast<std::int64_t>(numerics.alibi_slopes.size()) != op.heads) return refuse(in, node, "one slope per head");
    const bool known = !program_->slopes_.empty() && program_->slopes_.back() == numerics.alibi_slopes;
    if (!known) program_->slopes_.push_back(numerics.alibi_slopes);
    layer.modifier = {.kind = kernels::ScoreModifier::Kind::kAlibi, .slopes = program_->slopes_.back().data()};
  }
  const Operand y = define(in, output(node, 0));
  if (y.width != op.heads * op.value_dim) return refuse(in, node, "its output is not heads of the values' size");
  emit(in, {.kind = Step::Kind::kAttention, .index = static_cast<std::int32_t>(index), .a = q, .y = y});
  return Ok{};
}

Status Compiler::elementwise(Instance& in, const model::Node& node, const model::Elementwise& op, std::int32_t index) {
  using Kind = model::ElementwiseKind;
  ROOFTREE_TRY(const Operand x, operand(in, node, 0));
  const model::ValueId source = input(node, 0), target = output(node, 0);
  if (!target.valid()) return refuse(in, node, "the output is absent");
  const bool last = in.last_use[source.index] <= index;
  switch (op.kind) {
    case Kind::kGatedActivation:
    case Kind::kActivation:
    case Kind::kRelu: {
      Step step{.kind = Step::Kind::kActivation,
                .rows = op.rows,
                .width = op.width,
                .a = x,
                .activation = op.kind == Kind::kRelu ? model::Activation::kRelu : numerics_.activation};
      step.a.width = op.width;
      if (op.kind == Kind::kGatedActivation) {
        if (input(node, 1).valid()) {
          ROOFTREE_TRY(step.b, operand(in, node, 1));
        } else {
          if (x.width != 2 * op.width) return refuse(in, node, "gate and up are not two halves of its input");
          step.b = x;
          step.b.column += op.width;
          step.b.width = op.width;
        }
      }
      if (last && value(source).role != model::Role::kOutput) {
        in.values[target.index] = step.a;  // in the gate's place
      } else {
        define(in, target);
      }
      step.y = in.values[target.index];
      emit(in, step);
      return Ok{};
    }
    case Kind::kAdd: {
      ROOFTREE_TRY(const Operand b, operand(in, node, 1));
      Step step{.kind = Step::Kind::kAdd, .rows = op.rows, .width = op.width, .a = x, .b = b, .scale = 1.0F};
      if (input(node, 2).valid()) {
        ROOFTREE_TRY(const Operand third, operand(in, node, 2));
        (op.inputs == 3 ? step.c : step.d) = third;
      }
      step.y = define(in, target);
      emit(in, step);
      return Ok{};
    }
    case Kind::kScale:
    case Kind::kSoftcap: {
      const bool caps = op.kind == Kind::kSoftcap;
      if (x.reg == kLogitsRegister) {  // done with the product that made the logits
        in.values[target.index] = x;
        return Ok{};
      }
      if (!last) return refuse(in, node, "what it changes in place is read again");
      in.values[target.index] = x;
      emit(in, {.kind = Step::Kind::kScale,
                .rows = op.rows,
                .width = op.width,
                .y = x,
                .scale = caps ? 1.0F : numerics_.embedding_scale,
                .softcap = caps ? numerics_.logit_softcap : 0.0F});
      return Ok{};
    }
    default:
      return refuse(in, node, "this element-wise operator is not executed");
  }
}

// ---- buffers and barriers

// Widest first, each register takes the first buffer that no register alive at the same time uses.
void Compiler::place_registers() {
  std::vector<std::uint32_t> order;
  for (std::uint32_t i = 0; i < registers_.size(); ++i) {
    if (registers_[i].last >= 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return registers_[a].bytes > registers_[b].bytes; });
  struct Buffer {
    std::size_t bytes;
    std::vector<std::pair<std::int32_t, std::int32_t>> taken;  // lifetimes, rising
  };
  std::vector<Buffer> buffers;
  for (const std::uint32_t id : order) {
    Register& r = registers_[id];
    const std::pair life(r.first, r.last);
    std::uint32_t chosen = 0;
    for (; chosen < buffers.size(); ++chosen) {
      const auto& taken = buffers[chosen].taken;
      const auto next = std::upper_bound(taken.begin(), taken.end(), life);
      const bool free =
          (next == taken.end() || next->first > r.last) && (next == taken.begin() || std::prev(next)->second < r.first);
      if (free) break;
    }
    if (chosen == buffers.size()) buffers.push_back({r.bytes, {}});
    auto& taken = buffers[chosen].taken;
    taken.insert(std::upper_bound(taken.begin(), taken.end(), life), life);
    r.buffer = chosen;
  }
  std::vector<std::size_t> offsets;
  std::size_t offset = 0;
  for (const Buffer& buffer : buffers) {
    offsets.push_back(offset);
    offset += aligned(buffer.bytes);
  }
  for (const std::uint32_t id : order) registers_[id].offset = offsets[registers_[id].buffer];
}

void Compiler::place_barriers() {
  // What was touched since the last barrier. Buffers by their columns; caches by their layer.
  struct Access {
    std::uint64_t where;
    std::uint32_t reg;
    std::int64_t begin, end;
    bool write;
  };
  std::vector<Access> open, now;
  const auto note = [&](const Operand& o, bool write) {
    if (!o.valid()) return;
    const bool logits = o.reg == kLogitsRegister;
    const std::int64_t end = o.width > 0 ? o.column + o.width : INT64_MAX;
    now.push_back({logits ? UINT64_MAX : registers_[o.reg].buffer, o.reg, o.column, end, write});
  };
  for (Step& step : program_->steps_) {
    now.clear();
    for (const Operand* o : {&step.a, &step.b, &step.c, &step.d}) note(*o, false);
    for (const Operand* o : {&step.y, &step.y2}) note(*o, true);
    if (step.kind == Step::Kind::kCacheWrite || step.kind == Step::Kind::kAttention) {
      now.push_back({(std::uint64_t{1} << 40) + static_cast<std::uint64_t>(step.index), 0, 0, INT64_MAX,
                     step.kind == Step::Kind::kCacheWrite});
    }
    for (const Access& a : now) {
      for (const Access& b : open) {
        if (a.where != b.where || !(a.write || b.write)) continue;
        if (a.reg != b.reg || (a.begin < b.end && b.begin < a.end)) step.barrier = true;
      }
    }
    if (step.barrier) open.clear();
    open.insert(open.end(), now.begin(), now.end());
  }
}

}  // namespace rooftree::engine

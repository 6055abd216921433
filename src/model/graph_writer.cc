#include "model/graph_writer.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace rooftree::model {
namespace {

// Per value while writing; kept between graphs so that nothing is allocated.
struct Scratch {
  double count = 0;
  std::int32_t first = -1, last = -1;  // nodes of its block between which it is alive; -1 = before the first
  bool core = false;
  bool counts_as_live = false;
};
thread_local std::vector<Scratch> t_values;
thread_local std::vector<double> t_alive;  // change of the live set at each node of a block

void assign_name(std::string& out, std::string_view prefix, Name name) {
  out.assign(prefix);
  out.append(name.base);
  out.append(name.suffix);
}

bool is_repeatable(const Block& block) { return block.input.valid() && block.output.valid(); }

}  // namespace

GraphWriter::GraphWriter(Graph& graph, const Phase& phase, Fusion fusion, std::uint64_t structure)
    : graph_(graph), phase_(phase), fusion_(fusion), same_(graph.structure == structure && structure != 0) {
  graph_.structure = structure;
  graph_.sequences = phase.batch;
}

void GraphWriter::begin_block(std::string_view name, const BlockOptions& options) {
  block_ = block_count_++;
  node_ = 0;
  first_value_of_block_ = value_count_;
  active_ = options.active;
  repeat_ = static_cast<double>(options.repeat);
  core_ = false;
  prefix_ = {};
  if (block_ >= graph_.blocks.size()) {
    mismatch_ = mismatch_ || same_;
    graph_.blocks.emplace_back();
  }
  Block& block = graph_.blocks[block_];
  block.repeat = options.repeat;
  if (!same_) {
    block.name.assign(name);
    block.layers.assign(options.layers.begin(), options.layers.end());
    block.local = options.local;
    block.input = block.output = block.pending_input = block.pending_output = ValueId{};
  }
  if (t_values.size() < value_count_) t_values.resize(value_count_);
}

void GraphWriter::set_block_input(ValueId id) {
  if (!id.valid()) return;
  graph_.blocks[block_].input = id;
  t_values[id.index].first = 0;  // alive from the start
  t_values[id.index].last = std::max(t_values[id.index].last, 0);
}

void GraphWriter::set_block_output(ValueId id) {
  if (!id.valid()) return;
  graph_.blocks[block_].output = id;
  t_values[id.index].last = static_cast<std::int32_t>(node_) - 1;  // alive to the end
}

void GraphWriter::set_block_pending(ValueId input, ValueId output) {
  Block& block = graph_.blocks[block_];
  block.pending_input = input;
  block.pending_output = output;
  if (output.valid()) t_values[output.index].last = static_cast<std::int32_t>(node_) - 1;
}

void GraphWriter::end_block() {
  Block& block = graph_.blocks[block_];
  if (node_ != block.nodes.size()) {
    mismatch_ = mismatch_ || same_;
    block.nodes.resize(node_);
  }
  // The largest set of activations alive at one node.
  t_alive.assign(node_ + 1, 0.0);
  for (std::uint32_t v = first_value_of_block_; v < value_count_; ++v) {
    const Scratch& s = t_values[v];
    if (!s.counts_as_live || s.last < 0) continue;
    t_alive[static_cast<std::size_t>(std::max(s.first, 0))] += s.count;
    t_alive[static_cast<std::size_t>(s.last) + 1] -= s.count;
  }
  double alive = 0;
  for (const double change : t_alive) {
    alive += change;
    footprint_.activations_live = std::max(footprint_.activations_live, alive);
  }
}

ValueId GraphWriter::add(Name name, std::initializer_list<std::int64_t> shape, Role role, double& count) {
  const std::uint32_t index = value_count_++;
  if (index >= graph_.values.size()) {
    mismatch_ = mismatch_ || same_;
    graph_.values.emplace_back();
  }
  Value& value = graph_.values[index];
  value.shape.extents.assign(shape);
  if (!same_) {
    assign_name(value.name, prefix_, name);
    value.role = role;
    value.block = static_cast<int>(block_);
    value.saved = false;
    value.table = false;
  }
  count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<double>(extent);
  if (t_values.size() <= index) t_values.resize(index + 1);
  t_values[index] = {.count = count, .core = core_};
  return ValueId{index};
}

ValueId GraphWriter::weight(Name name, std::initializer_list<std::int64_t> shape, double touched) {
  double count = 0;
  const ValueId id = add(name, shape, Role::kWeight, count);
  footprint_.weights += repeat_ * count;
  if (active_) footprint_.weights_touched += repeat_ * (touched < 0 ? count : touched);
  return id;
}

ValueId GraphWriter::table(Name name, std::initializer_list<std::int64_t> shape, double touched) {
  const ValueId id = weight(name, shape, touched);
  graph_.values[id.index].table = true;
  return id;
}

ValueId GraphWriter::value(Name name, std::initializer_list<std::int64_t> shape, Role role) {
  if (!active_) return {};
  double count = 0;
  const ValueId id = add(name, shape, role, count);
  if (role == Role::kKvCache) footprint_.kv_cache += repeat_ * count;
  if (role == Role::kOutput) footprint_.logits += repeat_ * count;
  t_values[id.index].counts_as_live = role == Role::kActivation;
  return id;
}

Node& GraphWriter::next_node(Name name, Pass pass) {
  std::vector<Node>& nodes = graph_.blocks[block_].nodes;
  if (node_ >= nodes.size()) {
    mismatch_ = mismatch_ || same_;
    nodes.emplace_back();
  }
  Node& node = nodes[node_++];
  if (!same_) {
    assign_name(node.name, prefix_, name);
    node.pass = pass;
  }
  return node;
}

void GraphWriter::touch(ValueId id) {
  if (!id.valid()) return;
  Scratch& s = t_values[id.index];
  const auto here = static_cast<std::int32_t>(node_) - 1;
  if (s.last < 0) s.first = here;
  s.last = here;
}

void GraphWriter::node(Name name, const Operator& op, std::initializer_list<ValueId> inputs,
                       std::initializer_list<ValueId> outputs) {
  if (!active_) return;
  Node& node = next_node(name, Pass::kForward);
  node.op = op;
  for (const ValueId id : inputs) {
    if (id.valid() && id.index >= first_value_of_block_) touch(id);
  }
  for (const ValueId id : outputs) touch(id);
  if (same_) return;
  const auto assign = [](std::vector<ValueId>& to, std::initializer_list<ValueId> ids) {
    to.assign(ids);
    while (!to.empty() && !to.back().valid()) to.pop_back();
  };
  assign(node.inputs, inputs);
  assign(node.outputs, outputs);
  if (training()) mark_saved(op, inputs, outputs);
}

void GraphWriter::save(ValueId id) {
  if (!id.valid()) return;
  Value& value = graph_.values[id.index];
  if (value.role != Role::kActivation && value.role != Role::kOutput) return;
  if (phase_.recompute == Recompute::kSelective && t_values[id.index].core) return;
  value.saved = value.role == Role::kActivation;  // logits have a line of their own
}

// What the backward operators of `op` read besides the output gradient.
void GraphWriter::mark_saved(const Operator& op, std::initializer_list<ValueId> inputs,
                             std::initializer_list<ValueId> outputs) {
  const auto in = [&](std::size_t i) { return i < inputs.size() ? inputs.begin()[i] : ValueId{}; };
  const auto out = [&](std::size_t i) { return i < outputs.size() ? outputs.begin()[i] : ValueId{}; };
  switch (kind(op)) {
    case OperatorKind::kMatMul:
      save(in(0));
      if (!std::get<MatMul>(op).weight) save(in(1));
      break;
    case OperatorKind::kGroupedMatMul:
    case OperatorKind::kConvolution:
    case OperatorKind::kPool:
    case OperatorKind::kRoute:
    case OperatorKind::kCrossEntropy:
      save(in(0));
      break;
    case OperatorKind::kAttention:
      for (const ValueId id : inputs) save(id);
      save(out(0));
      break;
    case OperatorKind::kNorm:
      save(std::get<Norm>(op).residual ? out(1) : in(0));
      break;
    case OperatorKind::kElementwise:
      switch (std::get<Elementwise>(op).kind) {
        case ElementwiseKind::kActivation:
        case ElementwiseKind::kGatedActivation:
        case ElementwiseKind::kRelu:
          for (const ValueId id : inputs) save(id);
          break;
        case ElementwiseKind::kSoftcap:
          save(out(0));
          break;
        case ElementwiseKind::kDropout:
          save(out(1));
          break;
        default:
          break;
      }
      break;
    case OperatorKind::kSoftmax:
      save(out(0));
      break;
    default:
      break;
  }
}

void GraphWriter::write_backward() {
  const std::uint32_t forward_blocks = block_count_;
  const std::uint32_t forward_values = value_count_;
  // One gradient per weight, right behind the forward values and in their order.
  std::uint32_t gradient = forward_values;
  for (std::uint32_t v = 0; v < forward_values; ++v) {
    if (graph_.values[v].role != Role::kWeight) continue;
    if (gradient >= graph_.values.size()) {
      mismatch_ = mismatch_ || same_;
      graph_.values.emplace_back();
    }
    Value& g = graph_.values[gradient];
    const Value& weight = graph_.values[v];
    g.shape.extents.assign(weight.shape.extents.begin(), weight.shape.extents.end());
    if (!same_) {
      assign_name(g.name, weight.name, ".gradient");
      g.role = Role::kGradient;
      g.block = weight.block;
      g.saved = g.table = false;
    }
    t_values[v].first = static_cast<std::int32_t>(gradient);  // reused: where this weight's gradient stands
    ++gradient;
  }
  value_count_ = gradient;

  for (std::uint32_t f = forward_blocks; f-- > 0;) {
    if (graph_.blocks[f].nodes.empty()) continue;
    begin_block({}, {.repeat = graph_.blocks[f].repeat});
    if (!same_) assign_name(graph_.blocks[block_].name, graph_.blocks[f].name, ".backward");
    const auto count = static_cast<std::uint32_t>(graph_.blocks[f].nodes.size());
    const bool whole = phase_.recompute == Recompute::kFull && is_repeatable(graph_.blocks[f]);
    // blocks and nodes may move while nodes are added: no references are kept across next_node.
    const auto source = [&](std::uint32_t n) -> const Node& { return graph_.blocks[f].nodes[n]; };
    for (std::uint32_t n = 0; n < count; ++n) {
      if (!whole) {
        if (phase_.recompute != Recompute::kSelective) break;
        // The whole core, as a checkpointed function runs again: also its last product, whose result was kept.
        const auto in_core = [](ValueId id) { return id.valid() && t_values[id.index].core; };
        if (std::none_of(source(n).outputs.begin(), source(n).outputs.end(), in_core) &&
            std::none_of(source(n).inputs.begin(), source(n).inputs.end(), in_core)) {
          continue;
        }
      }
      Node& copy = next_node({source(n).name, ".recompute"}, Pass::kRecompute);
      copy.op = source(n).op;
      if (!same_) {
        copy.inputs = source(n).inputs;
        copy.outputs = source(n).outputs;
      }
    }
    for (std::uint32_t n = count; n-- > 0;) {
      const BackwardOperators back = backward_operators(source(n).op);
      for (int i = 0; i < back.count; ++i) {
        const std::string_view suffix = back.count == 1 ? ".gradient" : i == 0 ? ".input_gradient" : ".weight_gradient";
        Node& node = next_node({source(n).name, suffix}, Pass::kBackward);
        node.op = back.operators[static_cast<std::size_t>(i)];
        if (same_) continue;
        node.inputs = source(n).inputs;
        node.outputs.clear();
        if (back.count == 2 && i == 0) continue;
        for (const ValueId id : source(n).inputs) {
          if (id.valid() && graph_.values[id.index].role == Role::kWeight) {
            node.outputs.push_back(ValueId{static_cast<std::uint32_t>(t_values[id.index].first)});
          }
        }
      }
    }
    if (node_ != graph_.blocks[block_].nodes.size()) {
      mismatch_ = mismatch_ || same_;
      graph_.blocks[block_].nodes.resize(node_);
    }
  }
}

void GraphWriter::optimizer_node(Name name, const OptimizerStep& step) {
  Node& node = next_node(name, Pass::kOptimizer);
  node.op = step;
  if (!same_) {
    node.inputs.clear();
    node.outputs.clear();
  }
  footprint_.optimizer_state_bytes += step.parameters * optimizer_state_bytes_per_parameter(step, phase_.master_copy);
}

// Element-wise optimizers update everything in one multi-tensor sweep. Those that look at a matrix as a whole get a node per
// shape, with the instances of a repeated block batched; they leave vectors, and Muon also tables, to an Adam-like rule.
void GraphWriter::write_optimizer() {
  begin_block("optimizer", {});
  const bool by_matrix = phase_.optimizer == OptimizerKind::kAdafactor || phase_.optimizer == OptimizerKind::kShampoo ||
                         phase_.optimizer == OptimizerKind::kMuon;
  double rest = 0;
  for (std::uint32_t v = 0; v < value_count_; ++v) {
    const Value& value = graph_.values[v];
    if (value.role != Role::kWeight) continue;
    const double repeat = static_cast<double>(graph_.blocks[static_cast<std::size_t>(value.block)].repeat);
    const double parameters = repeat * value.shape.count();
    const auto& extents = value.shape.extents;
    const bool kernels = extents.size() == 4;
    const bool matrix = kernels || (extents.size() >= 2 && extents[extents.size() - 2] > 1 && extents.back() > 1);
    if (!by_matrix || !matrix || (value.table && phase_.optimizer == OptimizerKind::kMuon)) {
      rest += parameters;
      continue;
    }
    OptimizerStep step{.parameters = parameters,
                       .rows = extents[extents.size() - 2],
                       .columns = extents.back(),
                       .kind = phase_.optimizer,
                       .master_copy = phase_.master_copy};
    if (kernels) {  // convolutions: output channels against everything else
      step.rows = extents[0];
      step.columns = extents[1] * extents[2] * extents[3];
    }
    optimizer_node(std::string_view(value.name), step);
  }
  if (rest > 0) {
    optimizer_node(by_matrix ? "vectors" : "parameters", {.parameters = rest,
                                                          .rows = static_cast<std::int64_t>(rest),
                                                          .columns = 1,
                                                          .kind = phase_.optimizer,
                                                          .master_copy = phase_.master_copy});
  }
  Block& block = graph_.blocks[block_];
  if (node_ != block.nodes.size()) {
    mismatch_ = mismatch_ || same_;
    block.nodes.resize(node_);
  }
}

void GraphWriter::count_saved() {
  double largest_block = 0;
  double block_saved = 0;
  int block = -1;
  for (std::uint32_t v = 0; v < value_count_; ++v) {
    Value& value = graph_.values[v];
    if (value.block != block) {
      largest_block = std::max(largest_block, block_saved);
      block_saved = 0;
      block = value.block;
    }
    const Block& owner = graph_.blocks[static_cast<std::size_t>(block)];
    if (!value.saved && ValueId{v} != owner.input) continue;
    const double count = value.shape.count();
    if (phase_.recompute == Recompute::kFull && is_repeatable(owner)) {
      if (value.saved) block_saved += count;  // comes back for one instance at a time
      if (ValueId{v} != owner.input) continue;
    } else if (!value.saved) {
      continue;
    }
    footprint_.activations_saved += static_cast<double>(owner.repeat) * count;
  }
  footprint_.activations_live = std::max({footprint_.activations_live, largest_block, block_saved});
}

bool GraphWriter::finish() {
  if (training()) {
    write_backward();
    write_optimizer();
    count_saved();
    footprint_.gradients = footprint_.weights;
  }
  if (value_count_ != graph_.values.size() || block_count_ != graph_.blocks.size()) {
    mismatch_ = mismatch_ || same_;
    graph_.values.resize(value_count_);
    graph_.blocks.resize(block_count_);
  }
  graph_.footprint = footprint_;
  if (mismatch_) graph_.structure = 0;
  return !mismatch_;
}

}  // namespace rooftree::model

#include "report/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "base/unit_text.h"
#include "report/text.h"

namespace rooftree::report {
namespace {

// A fact as a sentence; a name at its start keeps its case.
std::string sentence(std::string text, const std::string& chip_id) {
  const bool is_name = text.rfind(chip_id + " ", 0) == 0;
  const std::string first = text.substr(0, text.find(' '));
  const bool is_word = std::all_of(first.begin(), first.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '\''; });
  if (!text.empty() && is_word && !is_name) text.front() = static_cast<char>(text.front() - 'a' + 'A');
  if (!text.empty() && text.back() != '.') text += '.';
  return text;
}

void add_notes(std::vector<std::string> facts, Analysis& a) {
  const machine::Machine& machine = a.machine;
  const machine::Chip& chip = machine.chip();
  // The regime sentence says this already.
  const std::string streaming = fmt::format("weights stream from {} once per step", chip.main_memory().name);
  for (std::string& fact : facts) {
    if (fact != streaming) a.notes.push_back(sentence(std::move(fact), chip.id));
  }
  if (machine.chip_count() > 1) {
    a.notes.push_back(
        fmt::format("{} has {} chips; this is the cost on one of them. Splitting a model over chips is a question for `plan`.",
                    machine.id, count(machine.chip_count())));
  }
  std::string doubtful;
  int count = 0;
  for (const auto& [path, provenance] : chip.provenance) {
    const bool used = path.find("bandwidth") != std::string::npos || path.find("matrix") != std::string::npos ||
                      path == "power_max" || path.find("capacity") != std::string::npos;
    if (!provenance.doubtful || !used) continue;
    if (++count <= 3) doubtful += (doubtful.empty() ? "" : ", ") + path;
  }
  if (count > 0) {
    a.notes.push_back(fmt::format("Doubtful in the catalogue: {}{} (`rooftree machines {}` shows the sources).", doubtful,
                                  count > 3 ? fmt::format(" and {} more", count - 3) : "", chip.id));
  }
}

}  // namespace

void describe(const model::Graph& graph, std::vector<std::string> facts, Analysis& a) {
  a.operators.clear();
  a.notes.clear();
  a.parameters = parameter_count(graph);
  if (graph.footprint.weights > 0) a.weights_read = graph.footprint.weights_touched / graph.footprint.weights;
  a.counts_samples =
      a.phase.kind != model::Phase::Kind::kDecode && a.phase.tokens > 1 && graph.tokens_processed == graph.sequences;
  for (const cost::OperatorEstimate& op : a.estimate.operators) {
    ROOFTREE_CHECK(op.block < graph.blocks.size() && op.node < graph.blocks[op.block].nodes.size(),
                   "the estimate names an operator that the graph does not have");
    const model::Block& block = graph.blocks[op.block];
    const model::Node& node = block.nodes[op.node];
    a.operators.push_back({.block = block.name,
                           .repeat = static_cast<double>(block.repeat),
                           .name = node.name,
                           .kind = model::kind(node.op),
                           .pass = node.pass,
                           .count = op.count,
                           .time = op.time,
                           .flop = op.flop,
                           .bytes_dram = op.bytes_dram,
                           .bytes_on_chip = op.bytes_on_chip,
                           .bound = op.bound,
                           .distance = op.distance});
  }
  add_notes(std::move(facts), a);
}

Result<Analysis> analyze(const model::Model& model, const machine::Machine& machine, const model::Phase& phase,
                         const cost::Plan& plan, const cost::CalibrationTable& calibration, const AnalyzeOptions& options) {
  ROOFTREE_TRY_VOID(cost::check_plan(plan));
  ROOFTREE_TRY(const model::Graph graph, model.build(phase, plan.fusion));
  Analysis a;
  a.model_id = model.id;
  a.model_name = model.name;
  a.machine = machine;
  a.phase = phase;
  a.plan = plan;
  const cost::Estimator estimator(machine, calibration, plan);
  a.estimate = estimator.estimate(graph);
  describe(graph, estimator.explain(graph, a.estimate), a);
  a.block_weights = block_weights(graph, machine, estimator.types());
  if (model.max_context > 0 && phase.past + phase.tokens > model.max_context) {
    a.notes.push_back(fmt::format("{} positions are more than the {} that {} was made for.", phase.past + phase.tokens,
                                  model.max_context, model.name));
  }
  if (options.with_sensitivities) a.sensitivities = cost::sensitivities(model, phase, machine, calibration, plan);
  if (options.with_operator_moves) add_operator_moves(graph, calibration, a);
  if (options.with_crossing && phase.kind == model::Phase::Kind::kDecode) {
    ROOFTREE_TRY(a.crossing, ridge_crossing(model, phase, estimator));
  }
  return a;
}

std::optional<BlockWeights> block_weights(const model::Graph& graph, const machine::Machine& machine,
                                          const cost::ResolvedTypes& types) {
  std::vector<double> values(graph.blocks.size());
  for (const model::Value& value : graph.values) {
    if (value.role == model::Role::kWeight && value.block >= 0)
      values[static_cast<std::size_t>(value.block)] += value.shape.count();
  }
  std::optional<std::size_t> largest;
  const auto all = [&](std::size_t i) { return values[i] * static_cast<double>(graph.blocks[i].repeat); };
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (graph.blocks[i].repeat > 1 && values[i] > 0 && (!largest || all(i) > all(*largest))) largest = i;
  }
  if (!largest) return std::nullopt;
  const model::Block& block = graph.blocks[*largest];
  double experts = 0;  // of these values; they may have a type of their own
  for (const model::Node& node : block.nodes) {
    const auto* op = std::get_if<model::GroupedMatMul>(&node.op);
    if (op != nullptr && node.pass == model::Pass::kForward) experts += static_cast<double>(op->experts * op->n * op->k);
  }
  experts = std::min(experts, values[*largest]);
  BlockWeights out;
  out.block = block.name;
  out.repeat = static_cast<double>(block.repeat);
  out.values = values[*largest];
  out.bytes = Bytes{(out.values - experts) * types.weight_bytes + experts * types.expert_weight_bytes};
  const auto add = [&out](std::string level, BytesPerSecond bandwidth) {
    if (bandwidth > BytesPerSecond{}) out.from.push_back({std::move(level), out.bytes / bandwidth});
  };
  const machine::Chip& chip = machine.chip();
  const machine::Host host = machine.host_per_chip();
  add(chip.main_memory().name, chip.main_memory().bandwidth);
  // A copy from host memory crosses both; without a link the chip has no host memory behind its own.
  if (chip.host_link_per_direction > BytesPerSecond{}) {
    add("host memory", host.memory_bandwidth > BytesPerSecond{} ? std::min(chip.host_link_per_direction, host.memory_bandwidth)
                                                                : chip.host_link_per_direction);
  }
  add("disk", host.disk_read);
  return out;
}

std::optional<double> chips_to_hold(const cost::MemoryByRole& memory) {
  const Bytes usable = memory.capacity - memory.reserve;
  if (!(usable > Bytes{})) return std::nullopt;
  return std::max(1.0, std::ceil(memory.total / usable));
}

std::optional<double> compute_allowed(const cost::Estimate& e) {
  if (!(e.intensity > FlopPerByte{}) || !(e.ridge > FlopPerByte{})) return std::nullopt;
  return std::min(1.0, e.intensity / e.ridge);
}

std::string gain_text(double time_ratio) {
  if (!std::isfinite(time_ratio) || time_ratio <= 0) return "-";
  const double speedup = 1 / time_ratio;
  if (speedup >= 1.5) return times(speedup) + " faster";
  if (speedup <= 1 / 1.5) return times(time_ratio) + " slower";
  const double change = std::abs(speedup - 1);
  if (change < 0.0005) return "no faster";
  return fmt::format("{} % {}", number(change * 100, 2), speedup > 1 ? "faster" : "slower");
}

void add_operator_moves(const model::Graph& graph, const cost::CalibrationTable& calibration, Analysis& a) {
  using model::Role;
  struct Trial {
    std::string label;
    machine::Machine machine;
    cost::Plan plan;
  };
  std::vector<Trial> trials;
  const auto narrower = [](DType type) -> std::optional<DType> {
    const double bits = info(type).bits_per_value;
    if (bits > 8.5) return DType::kInt8;
    if (bits > 4.6) return DType::kQ4_0;
    return std::nullopt;
  };
  // Training in narrower types is another training run, not a change of plan.
  const bool training = a.phase.kind == model::Phase::Kind::kTrain;
  if (const auto type = narrower(a.plan.type(Role::kWeight)); type && !training) {
    Trial weights{fmt::format("{} weights", rooftree::name(*type)), a.machine, a.plan};
    weights.plan.set_type(Role::kWeight, *type);
    const Arithmetic native = info(*type).native;
    if (*type == DType::kInt8 &&
        product_rate(a.machine.chip(), native) > product_rate(a.machine.chip(), a.estimate.arithmetic)) {
      Trial both = weights;
      both.label = "W8A8";
      both.plan.set_type(Role::kActivation, *type);
      trials.push_back(std::move(weights));
      trials.push_back(std::move(both));
    } else {
      trials.push_back(std::move(weights));
    }
  }
  if (const auto type = narrower(a.plan.type(Role::kKvCache)); type && a.phase.kind == model::Phase::Kind::kDecode) {
    Trial kv{fmt::format("{} KV cache", rooftree::name(*type)), a.machine, a.plan};
    kv.plan.set_type(Role::kKvCache, *type);
    trials.push_back(std::move(kv));
  }
  constexpr double kMore = 1.1;
  Trial bandwidth{fmt::format("{} +10 %", a.machine.chip().main_memory().name), a.machine, a.plan};
  machine::MemoryLevel& memory = bandwidth.machine.chip().ladder.back();
  memory.bandwidth *= kMore;
  memory.write_bandwidth *= kMore;
  trials.push_back(std::move(bandwidth));
  Trial arithmetic{"FLOP/s +10 %", a.machine, a.plan};
  for (machine::ArithmeticRate& rate : arithmetic.machine.chip().arithmetic) {
    rate.matrix *= kMore;
    rate.vector *= kMore;
  }
  trials.push_back(std::move(arithmetic));

  constexpr double kWorthSaying = 0.99;  // less than 1 % is noise of the model
  constexpr double kClearly = 0.97;      // a later trial asks for more, so it must gain more
  std::vector<double> best(a.operators.size(), kWorthSaying);
  cost::Estimate estimate;
  for (const Trial& trial : trials) {
    cost::Estimator(trial.machine, calibration, trial.plan).estimate_into(graph, estimate);
    ROOFTREE_CHECK(estimate.operators.size() == a.operators.size(), "one graph, one list of operators");
    for (std::size_t i = 0; i < a.operators.size(); ++i) {
      if (a.operators[i].time.value() <= 0) continue;
      const double ratio = estimate.operators[i].time / a.operators[i].time;
      if (ratio >= best[i] * (a.operators[i].best_move.empty() ? 1 : kClearly)) continue;
      best[i] = ratio;
      a.operators[i].best_move = fmt::format(
          "{}: {}", trial.label, 1 / ratio >= 1.5 ? times(1 / ratio) : fmt::format("{} %", number((1 / ratio - 1) * 100, 2)));
    }
  }
}

std::vector<cost::Sensitivity> worthwhile(const std::vector<cost::Sensitivity>& ranked) {
  constexpr double kLeastGain = 0.995;
  std::vector<cost::Sensitivity> out;
  std::map<std::string, int> seen;
  for (const cost::Sensitivity& s : ranked) {
    if (!(s.time_ratio < kLeastGain)) continue;
    // "batch 1 -> 8" and "batch 1 -> 32" turn one knob; so do "weights bf16 -> int8" and "weights bf16 -> int4".
    const std::string knob = s.knob.substr(0, s.knob.find(" -> "));
    if (++seen[knob] <= (knob.rfind("batch", 0) == 0 ? 1 : 2)) out.push_back(s);
  }
  return out;
}

std::optional<double> joules_per_token(const cost::Estimate& e) {
  if (e.tokens <= 0 || !e.has_energy || e.energy.best.value() <= 0) return std::nullopt;
  return e.energy.best.value() / e.tokens;
}

std::optional<double> dollars_per_token(const cost::Estimate& e) {
  if (e.tokens <= 0 || e.money.best.value() <= 0) return std::nullopt;
  return e.money.best.value() / e.tokens;
}

std::string chip_label(const machine::Chip& chip) {
  std::string name = chip.name.empty() ? chip.id : chip.name.substr(0, chip.name.find(" ("));
  if (!chip.vendor.empty() && chip.vendor != "unknown" && name.find(chip.vendor) == std::string::npos)
    name = chip.vendor + " " + name;
  return name;
}

std::optional<double> utilisation_on_chip(const Analysis& a) {
  const auto& ladder = a.machine.chip().ladder;
  if (ladder.size() < 2 || a.estimate.time.best.value() <= 0) return std::nullopt;
  const BytesPerSecond bandwidth = ladder[ladder.size() - 2].bandwidth;
  if (bandwidth.value() <= 0) return std::nullopt;
  return a.estimate.bytes_on_chip / (a.estimate.time.best * bandwidth);
}

std::string_view progress_unit(const Analysis& a) { return a.counts_samples ? "sample" : "token"; }

std::string phase_text(const model::Phase& phase) {
  switch (phase.kind) {
    case model::Phase::Kind::kPrefill:
      return fmt::format("prefill of {} tokens{}, batch {}", phase.tokens,
                         phase.past > 0 ? fmt::format(" after {} cached", phase.past) : "", phase.batch);
    case model::Phase::Kind::kDecode:
      return fmt::format("decode, batch {}, context {}", phase.batch, phase.past + 1);
    case model::Phase::Kind::kTrain:
      return fmt::format("training step, batch {} x {} tokens", phase.batch, phase.tokens);
  }
  return {};
}

std::string phase_text(const Analysis& a) {
  if (!a.counts_samples) return phase_text(a.phase);
  return fmt::format("{}, batch {}", a.phase.kind == model::Phase::Kind::kTrain ? "training step" : "inference", a.phase.batch);
}

std::string_view name(model::Recompute recompute) {
  switch (recompute) {
    case model::Recompute::kNone:
      return "none";
    case model::Recompute::kSelective:
      return "selective";
    case model::Recompute::kFull:
      return "full";
  }
  return {};
}

std::string sparsity_text(const cost::Sparsity& sparsity) {
  switch (sparsity.kind) {
    case cost::Sparsity::Kind::kDense:
      return "dense";
    case cost::Sparsity::Kind::k2to4:
      return "2:4";
    case cost::Sparsity::Kind::kBlock:
      return fmt::format("block:{}", sparsity.density);
  }
  return {};
}

std::string plan_text(const model::Phase& phase, const cost::Plan& plan) {
  using model::Role;
  std::string text = fmt::format("{} weights", rooftree::name(plan.type(Role::kWeight)));
  if (plan.sparsity.kind != cost::Sparsity::Kind::kDense) text += fmt::format(" ({} sparse)", sparsity_text(plan.sparsity));
  if (phase.kind == model::Phase::Kind::kTrain) {
    text += fmt::format(", {} activations, {} gradients, {}, recompute {}", rooftree::name(plan.type(Role::kActivation)),
                        rooftree::name(plan.type(Role::kGradient)), model::name(phase.optimizer), name(phase.recompute));
  } else {
    text += fmt::format(", {} KV cache, {} activations", rooftree::name(plan.type(Role::kKvCache)),
                        rooftree::name(plan.type(Role::kActivation)));
  }
  return text + fmt::format(", {} stack, {} fusion", cost::name(plan.stack), model::name(plan.fusion));
}

Result<RidgeCrossing> ridge_crossing(const model::Model& model, model::Phase phase, const cost::Estimator& estimator,
                                     std::int64_t largest) {
  model::Graph graph;
  cost::Estimate estimate;
  const auto fits = [&](std::int64_t batch) -> Result<bool> {
    phase.batch = batch;
    ROOFTREE_TRY_VOID(model.build_into(phase, estimator.plan().fusion, graph));
    estimator.estimate_into(graph, estimate);
    return estimate.memory.fits;
  };
  RidgeCrossing result;
  result.searched = largest;
  result.batch = cost::ridge_batch(model, phase, estimator, largest);
  ROOFTREE_TRY(const bool one_fits, fits(1));
  if (!one_fits) return result;
  // Memory grows with the batch: doubling finds the first power of two that does not fit, bisection the last batch that does.
  std::int64_t below = 1;
  std::int64_t above = 0;
  while (above == 0) {
    if (below >= largest) {
      result.largest_fitting = largest;
      return result;
    }
    const std::int64_t next = std::min(largest, below * 2);
    ROOFTREE_TRY(const bool ok, fits(next));
    (ok ? below : above) = next;
  }
  while (above - below > 1) {
    const std::int64_t middle = below + (above - below) / 2;
    ROOFTREE_TRY(const bool ok, fits(middle));
    (ok ? below : above) = middle;
  }
  result.largest_fitting = below;
  return result;
}

Result<std::vector<std::int64_t>> parse_sweep_values(std::string_view text, std::string_view where) {
  constexpr std::size_t kMost = 64;
  constexpr std::int64_t kLargest = std::int64_t{1} << 40;
  std::vector<std::int64_t> values;
  const auto bad = [&](std::string_view found) {
    return Error{
        ErrorCode::kParse,
        fmt::format("{}: \"{}\"; expected whole numbers from 1 and ranges that double, like 1,2,4..256", where, found)};
  };
  const auto read = [&](std::string_view part) -> std::optional<std::int64_t> {
    std::int64_t value = 0;
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (code != std::errc{} || end != part.data() + part.size() || value < 1 || value > kLargest) return std::nullopt;
    return value;
  };
  std::size_t position = 0;
  while (position <= text.size()) {
    const std::size_t comma = std::min(text.find(',', position), text.size());
    const std::string_view part = text.substr(position, comma - position);
    position = comma + 1;
    const std::size_t dots = part.find("..");
    const auto first = read(part.substr(0, dots));
    if (!first) return bad(part);
    if (dots == std::string_view::npos) {
      values.push_back(*first);
      continue;
    }
    const auto last = read(part.substr(dots + 2));
    if (!last || *last < *first) return bad(part);
    for (std::int64_t v = *first; v < *last; v *= 2) values.push_back(v);
    values.push_back(*last);
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  if (values.size() > kMost) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} values; expected at most {}", where, values.size(), kMost)};
  }
  return values;
}

}  // namespace rooftree::report

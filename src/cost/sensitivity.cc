#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "cost/estimate.h"

namespace rooftree::cost {
namespace {

using model::Role;
using Kind = Sensitivity::Kind;

constexpr double kStep = 1.1;
constexpr double kNothing = 1e-3;  // smaller changes are noise to a reader
constexpr double kGib = 1073741824.0;

// What one token takes.
struct PerToken {
  double time = 0, cost = 0, energy = 0;
  double step = 0;    // s, the latency of one step
  double memory = 0;  // bytes
  bool fits = true;
  Regime regime{};
};

PerToken per_token(const Estimate& e) {
  const double tokens = std::max(e.tokens, 1.0);
  return {.time = e.time.best.value() / tokens,
          .cost = e.money.best.value() / tokens,
          .energy = e.energy.best.value() / tokens,
          .step = e.time.best.value(),
          .memory = e.memory.total.value(),
          .fits = e.memory.fits,
          .regime = e.regime};
}

double ratio(double now, double before) { return before > 0 ? now / before : 1; }

// One scenario at a time against the same base.
class Study {
 public:
  Study(const model::Model& model, const model::Phase& phase, const machine::Machine& machine, const CalibrationTable& table,
        const Plan& plan)
      : model_(model), phase_(phase), machine_(machine), table_(table), plan_(plan) {
    Result<model::Graph> graph = model_.build(phase_, plan_.fusion);
    if (!graph) return;
    graph_ = std::move(graph).value();
    calibration_ = table_.resolve(machine_.chip(), software_of(plan_));
    estimate_ = Estimator(machine_, calibration_, plan_).estimate(graph_);
    base_ = per_token(estimate_);
    valid_ = base_.time > 0;
  }

  [[nodiscard]] bool valid() const { return valid_; }
  [[nodiscard]] const Estimate& estimate() const { return estimate_; }

  // A changed machine; the calibrated shares stay those of the chip, its rates follow.
  void hardware(std::string knob, const std::string& note, const std::function<void(machine::Machine&)>& change) {
    machine::Machine changed = machine_;
    change(changed);
    const Estimate e = Estimator(changed, table_, plan_).estimate(graph_);
    add(Kind::kHardware, std::move(knob), note, e);
  }

  void calibrated(std::string knob, const std::string& note, const std::function<void(ChipCalibration&)>& change) {
    ChipCalibration changed = calibration_;
    change(changed);
    add(Kind::kHardware, std::move(knob), note, Estimator(machine_, changed, plan_).estimate(graph_));
  }

  void plan(std::string knob, const std::string& note, const std::function<void(Plan&)>& change) {
    Plan changed = plan_;
    change(changed);
    const Estimator estimator(machine_, table_, changed);
    if (changed.fusion == plan_.fusion) {
      add(Kind::kSoftware, std::move(knob), note, estimator.estimate(graph_));
      return;
    }
    const Result<model::Graph> graph = model_.build(phase_, changed.fusion);
    if (graph) add(Kind::kSoftware, std::move(knob), note, estimator.estimate(*graph));
  }

  void phase(std::string knob, const std::string& note, const model::Phase& changed) {
    const Result<model::Graph> graph = model_.build(changed, plan_.fusion);
    if (graph) {
      add(Kind::kSoftware, std::move(knob), note, Estimator(machine_, calibration_, plan_).estimate(*graph));
    }
  }

  std::vector<Sensitivity> ranked() && {
    // A plan that nothing here holds has no time to improve: first what makes it fit.
    std::stable_sort(found_.begin(), found_.end(), [](const Found& a, const Found& b) {
      return std::pair(!a.makes_it_fit, a.sensitivity.time_ratio) < std::pair(!b.makes_it_fit, b.sensitivity.time_ratio);
    });
    std::vector<Sensitivity> out;
    out.reserve(found_.size());
    for (Found& f : found_) out.push_back(std::move(f.sensitivity));
    return out;
  }

 private:
  struct Found {
    Sensitivity sensitivity;
    bool makes_it_fit = false;
  };

  void add(Kind kind, std::string knob, const std::string& note, const Estimate& e) {
    const PerToken now = per_token(e);
    // No advice: what needs more memory than there is. Times of a plan that does not fit are those of another machine.
    if (base_.fits && !now.fits) return;
    if (now.regime == Regime::kDoesNotFit && (base_.regime != Regime::kDoesNotFit || now.memory > base_.memory)) return;
    Sensitivity s{.kind = kind,
                  .knob = std::move(knob),
                  .time_ratio = ratio(now.time, base_.time),
                  .cost_ratio = ratio(now.cost, base_.cost),
                  .energy_ratio = ratio(now.energy, base_.energy),
                  .note = {}};
    const bool regime_changes = now.regime != base_.regime;
    if (std::abs(s.time_ratio - 1) < kNothing && std::abs(s.energy_ratio - 1) < kNothing &&
        std::abs(s.cost_ratio - 1) < kNothing && !regime_changes) {
      return;
    }
    const auto append = [&](const std::string& text) {
      if (text.empty()) return;
      s.note += s.note.empty() ? text : "; " + text;
    };
    append(note);
    if (std::abs(now.step / base_.step - 1) > 0.01 && std::abs(now.step / base_.step - s.time_ratio) > 0.01) {
      append(fmt::format("a step takes {:.2f}x as long", now.step / base_.step));
    }
    const double freed = (base_.memory - now.memory) / kGib;
    if (std::abs(freed) >= 0.1) append(fmt::format("{} {:.1f} GiB of memory", freed > 0 ? "frees" : "takes", std::abs(freed)));
    if (!base_.fits && now.fits) append("then it fits in memory");
    if (regime_changes) append(fmt::format("{} becomes {}", name(base_.regime), name(now.regime)));
    const bool makes_it_fit = base_.regime == Regime::kDoesNotFit && now.regime != Regime::kDoesNotFit;
    found_.push_back({.sensitivity = std::move(s), .makes_it_fit = makes_it_fit});
  }

  const model::Model& model_;
  const model::Phase& phase_;
  const machine::Machine& machine_;
  const CalibrationTable& table_;
  const Plan& plan_;
  model::Graph graph_;
  ChipCalibration calibration_;
  Estimate estimate_;
  PerToken base_;
  bool valid_ = false;
  std::vector<Found> found_;
};

void hardware_knobs(Study& study, const machine::Machine& machine, const Plan& plan) {
  const machine::Chip& chip = machine.chip();
  for (std::size_t i = 0; i < chip.ladder.size(); ++i) {
    if (chip.ladder[i].bandwidth <= BytesPerSecond{}) continue;
    study.hardware(fmt::format("{} bandwidth +10 %", chip.ladder[i].name), "", [i](machine::Machine& m) {
      m.chip().ladder[i].bandwidth *= kStep;
      m.chip().ladder[i].write_bandwidth *= kStep;
    });
  }
  const ResolvedTypes types = resolve_types(chip, plan);
  for (int i = 0; i < kArithmeticCount; ++i) {
    const auto a = static_cast<Arithmetic>(i);
    if (a != types.arithmetic && a != types.attention_arithmetic && a != Arithmetic::kFp32) continue;
    if (machine::product_rate(chip, a) <= FlopPerSecond{}) continue;
    const bool vector_only = a == Arithmetic::kFp32 && a != types.arithmetic && a != types.attention_arithmetic;
    study.hardware(vector_only ? "fp32 vector rate +10 %" : fmt::format("{} arithmetic +10 %", name(a)), "",
                   [i, vector_only](machine::Machine& m) {
                     machine::ArithmeticRate& rate = m.chip().arithmetic[static_cast<std::size_t>(i)];
                     if (!vector_only) rate.matrix *= kStep;
                     rate.vector *= kStep;
                   });
  }
  // Capacities matter in steps: where +10 % changes nothing, twice the capacity may change the regime.
  const std::size_t last = chip.ladder.size() - 1;
  const auto capacity = [&](std::size_t level, double factor) {
    study.hardware(
        fmt::format("{} capacity {}", chip.ladder[level].name, factor < 1.5 ? "+10 %" : fmt::format("x{:.0f}", factor)), "",
        [level, factor](machine::Machine& m) { m.chip().ladder[level].capacity *= factor; });
  };
  const bool spills =
      study.estimate().regime == Regime::kWeightsFromHost || study.estimate().regime == Regime::kWeightsFromDisk;
  if (spills) capacity(last, kStep);
  if (spills || study.estimate().regime == Regime::kDoesNotFit) capacity(last, 2);
  if (last > 0) {
    capacity(last - 1, 2);
    capacity(last - 1, 8);
  }
  if (chip.host_link_per_direction > BytesPerSecond{}) {
    study.hardware("host link +10 %", "", [](machine::Machine& m) { m.chip().host_link_per_direction *= kStep; });
  }
  if (machine.host_per_chip().disk_read > BytesPerSecond{}) {
    study.hardware("disk +10 %", "", [](machine::Machine& m) {
      for (machine::Group* g = &m.root; g != nullptr; g = g->member.get()) g->host.disk_read *= kStep;
    });
  }
  study.calibrated("kernel launch and fill -10 %", "", [](ChipCalibration& c) {
    for (auto* set : {&c.gemm, &c.gemm_weight_only, &c.grouped_gemm}) {
      for (GemmConstants& g : *set) {
        g.fixed *= 0.9;
        g.fill *= 0.9;
        g.eager_fixed *= 0.9;
      }
    }
    for (AttentionPrefillConstants& a : c.attention_prefill) a.fixed *= 0.9;
    for (auto* a : {&c.attention_decode_multi_head, &c.attention_decode_grouped, &c.attention_decode_multi_head_8bit,
                    &c.attention_decode_grouped_8bit}) {
      a->fixed *= 0.9;
      a->cold_fixed *= 0.9;
      a->split_fixed *= 0.9;
    }
    for (StreamConstants& s : c.stream) s.fixed *= 0.9;
  });
  study.calibrated("host time -10 %", "", [](ChipCalibration& c) {
    for (HostConstants& h : c.host) {
      h.per_step *= 0.9;
      h.per_sequence *= 0.9;
      h.per_layer *= 0.9;
      h.per_kernel *= 0.9;
    }
  });
  if (chip.power_max > Watts{}) {
    study.hardware("power -10 %", "at the same rates", [](machine::Machine& m) {
      m.chip().power_max *= 0.9;
      m.chip().power_idle *= 0.9;
    });
  }
}

// Weight types worth trying, wide to narrow, with what they cost in accuracy; `needs`: only where the chip multiplies that
// type.
struct TypeChoice {
  DType type;
  const char* caveat;
  bool needs_arithmetic = false;
};
constexpr std::array<TypeChoice, 7> kWeightChoices = {{
    {DType::kBf16Lossless12, "lossless: same values, decoded in the kernel"},
    {DType::kFp8E4m3, "accuracy: usually within noise", true},
    {DType::kInt8, "accuracy: usually within noise with scales per channel"},
    {DType::kQ4_0, "accuracy: a visible loss on small models"},
    {DType::kNvfp4, "accuracy: small loss with calibration", true},
    {DType::kMxfp4, "accuracy: small loss with calibration"},
    {DType::kInt4, "accuracy: small loss with calibration (GPTQ, AWQ)"},
}};

void type_knobs(Study& study, const machine::Chip& chip, const Plan& plan, bool has_cache, bool training) {
  const DType weight = plan.type(Role::kWeight);
  const DType activation = plan.type(Role::kActivation);
  if (!training) {
    for (const TypeChoice& choice : kWeightChoices) {
      if (info(choice.type).bits_per_value >= info(weight).bits_per_value) continue;
      if (choice.type == DType::kBf16Lossless12 && weight != DType::kBf16) continue;
      if (choice.needs_arithmetic && machine::product_rate(chip, info(choice.type).native) <= FlopPerSecond{}) continue;
      study.plan(fmt::format("weights {} -> {}", name(weight), name(choice.type)), choice.caveat,
                 [&](Plan& p) { p.set_type(Role::kWeight, choice.type); });
    }
  }
  // Weights and activations together reach the narrow arithmetic, where the chip has it.
  for (const DType type : {DType::kFp8E4m3, DType::kInt8, DType::kNvfp4}) {
    const Arithmetic native = info(type).native;
    if (machine::product_rate(chip, native) <= FlopPerSecond{}) continue;
    if (training && type != DType::kFp8E4m3) continue;
    if (info(type).bits_per_value >= info(activation).bits_per_value) continue;
    study.plan(fmt::format("weights and activations -> {}", name(type)),
               training ? "keep 16-bit master weights and scaling" : "activations are quantised too: check accuracy",
               [&](Plan& p) {
                 p.arithmetic.reset();
                 if (!training && info(type).bits_per_value < info(weight).bits_per_value) p.set_type(Role::kWeight, type);
                 if (training) p.arithmetic = native;
                 p.set_type(Role::kActivation, type);
               });
  }
  if (has_cache) {
    for (const DType type : {DType::kFp8E4m3, DType::kInt8, DType::kInt4}) {
      const DType cache = plan.type(Role::kKvCache);
      if (info(type).bits_per_value >= info(cache).bits_per_value) continue;
      study.plan(fmt::format("KV cache {} -> {}", name(cache), name(type)),
                 type == DType::kInt4 ? "accuracy: visible loss at long contexts" : "accuracy: usually within noise",
                 [&](Plan& p) { p.set_type(Role::kKvCache, type); });
    }
  }
  if (plan.sparsity.kind == Sparsity::Kind::kDense && !training) {
    const Arithmetic a = resolve_types(chip, plan).arithmetic;
    const bool arithmetic = chip.rate(a).sparse_2to4 > 1;
    study.plan("weights dense -> 2:4 sparse",
               arithmetic ? "needs a pruned model; accuracy loss without fine-tuning"
                          : "traffic and memory only on this chip; needs a pruned model",
               [](Plan& p) { p.sparsity.kind = Sparsity::Kind::k2to4; });
  }
}

void phase_knobs(Study& study, const model::Phase& phase) {
  std::int64_t power = 1;
  while (power <= phase.batch) power *= 2;
  for (int i = 0; i < 3; ++i, power *= 4) {
    model::Phase changed = phase;
    changed.batch = power;
    study.phase(fmt::format("batch {} -> {}", phase.batch, power), "", changed);
  }
  if (phase.kind == model::Phase::Kind::kDecode && phase.past > 256) {
    model::Phase changed = phase;
    changed.past = phase.past / 2;
    study.phase(fmt::format("context {} -> {}", phase.past, changed.past), "shorter prompts, a window, or eviction", changed);
  }
  if (phase.kind == model::Phase::Kind::kTrain) {
    for (const auto& [recompute, label] :
         {std::pair{model::Recompute::kNone, "none"}, std::pair{model::Recompute::kSelective, "selective"},
          std::pair{model::Recompute::kFull, "full"}}) {
      if (recompute == phase.recompute) continue;
      model::Phase changed = phase;
      changed.recompute = recompute;
      study.phase(fmt::format("recomputation -> {}", label), "", changed);
    }
    if (phase.optimizer == model::OptimizerKind::kAdam) {
      model::Phase changed = phase;
      changed.optimizer = model::OptimizerKind::kAdam8bit;
      study.phase("optimizer adam -> 8-bit adam", "moments in 8 bits", changed);
    }
  }
}

void software_knobs(Study& study, const model::Phase& phase, const machine::Machine& machine, const Plan& plan) {
  const bool training = phase.kind == model::Phase::Kind::kTrain;
  const bool has_cache = study.estimate().memory.by_role[static_cast<std::size_t>(Role::kKvCache)] > Bytes{};
  phase_knobs(study, phase);
  type_knobs(study, machine.chip(), plan, has_cache, training);
  // From the least fused to the most.
  constexpr std::array kLevels = {model::Fusion::kEager, model::Fusion::kEagerFlash, model::Fusion::kUnfusedAttention,
                                  model::Fusion::kStandard, model::Fusion::kIdeal};
  const auto* current = std::find(kLevels.begin(), kLevels.end(), plan.fusion);
  for (const auto* level = current; level != kLevels.end(); ++level) {
    if (level == current || *level == model::Fusion::kUnfusedAttention) continue;
    study.plan(fmt::format("fusion {} -> {}", name(plan.fusion), name(*level)),
               *level == model::Fusion::kIdeal ? "a bound: needs kernels written for this model" : "",
               [&](Plan& p) { p.fusion = *level; });
  }
  if (plan.stack == Stack::kEager) {
    study.plan("stack eager -> engine", "captured graphs: no launch from the host per kernel",
               [](Plan& p) { p.stack = Stack::kEngine; });
  }
}

}  // namespace

std::vector<Sensitivity> sensitivities(const model::Model& model, const model::Phase& phase, const machine::Machine& machine,
                                       const CalibrationTable& calibration, const Plan& plan) {
  Study study(model, phase, machine, calibration, plan);
  if (!study.valid()) return {};
  hardware_knobs(study, machine, plan);
  software_knobs(study, phase, machine, plan);
  return std::move(study).ranked();
}

std::optional<std::int64_t> ridge_batch(const model::Model& model, const model::Phase& phase, const Estimator& estimator,
                                        std::int64_t limit) {
  model::Graph graph;
  Estimate estimate;
  // Whether more than half of the time of products with weights goes to those bound by arithmetic. Nothing: does not build.
  const auto compute_bound = [&](std::int64_t batch) -> std::optional<bool> {
    model::Phase changed = phase;
    changed.batch = batch;
    if (!model.build_into(changed, estimator.plan().fusion, graph)) return std::nullopt;
    estimator.estimate_into(graph, estimate);
    double compute = 0;
    double all = 0;
    for (const OperatorEstimate& line : estimate.operators) {
      const model::Operator& op = graph.blocks[line.block].nodes[line.node].op;
      const auto* product = std::get_if<model::MatMul>(&op);
      const bool weighted = (product != nullptr && product->weight) || std::holds_alternative<model::GroupedMatMul>(op) ||
                            std::holds_alternative<model::Convolution>(op);
      if (!weighted) continue;
      all += line.time.value();
      if (line.bound == Bound::kCompute) compute += line.time.value();
    }
    if (all <= 0) return std::nullopt;
    return compute > 0.5 * all;
  };
  std::int64_t high = 1;
  std::int64_t low = 0;  // not compute bound (0 = nothing known below)
  for (;; high = std::min(high * 2, limit)) {
    const std::optional<bool> answer = compute_bound(high);
    if (!answer.has_value()) return std::nullopt;
    if (*answer) break;
    if (high >= limit) return std::nullopt;
    low = high;
  }
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    const std::optional<bool> answer = compute_bound(middle);
    if (!answer.has_value()) return std::nullopt;
    (*answer ? high : low) = middle;
  }
  return high;
}

}  // namespace rooftree::cost

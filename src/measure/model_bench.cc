#include "measure/model_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <utility>

#include "base/philox.h"
#include "cost/estimate.h"
#include "measure/limits.h"
#include "probe/statistics.h"

namespace rooftree::measure {
namespace {

using Clock = std::chrono::steady_clock;

// Streams at least this much for one sample of the read bandwidth: far beyond any last-level cache here, 10 ms of main memory.
constexpr std::size_t kReadBytes = std::size_t{384} << 20;

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {probe::quantile(values, 0.25), probe::quantile(values, 0.5), probe::quantile(values, 0.75)};
}

// The sequences of one phase: blocks for the context and the new tokens, filled once.
class Workload {
 public:
  static Result<Workload> make(engine::Engine& engine, std::int64_t batch, std::int64_t tokens, std::int64_t context,
                               std::uint64_t seed) {
    Workload w(engine);
    Philox random(seed);
    const auto draw = [&] {
      return static_cast<engine::TokenId>(random.below(static_cast<std::uint64_t>(engine.vocabulary())));
    };
    for (std::int64_t i = 0; i < context; ++i) w.prompt_.push_back(draw());
    for (std::int64_t i = 0; i < batch * tokens; ++i) w.tokens_.push_back(draw());
    serving::BlockPool& pool = engine.blocks();
    const std::int64_t per_sequence = (context + tokens + pool.block_tokens() - 1) / pool.block_tokens();
    for (std::int64_t s = 0; s < batch; ++s) {
      std::vector<serving::BlockId> blocks;
      for (std::int64_t b = 0; b < per_sequence; ++b) {
        const auto block = pool.allocate();
        if (!block) {
          return Error{ErrorCode::kInvalid, fmt::format("{} sequences of {} tokens do not fit the KV cache of {} blocks of {}",
                                                        batch, context + tokens, pool.capacity(), pool.block_tokens())};
        }
        blocks.push_back(*block);
        w.owned_.push_back(*block);
      }
      w.blocks_.push_back(std::move(blocks));
    }
    // The context is computed for one sequence and copied to the others: each then reads keys and values of its own.
    if (context > 0) {
      const engine::Chunk chunk{.tokens = w.prompt_, .past = 0, .blocks = w.blocks_.front(), .logits = engine::Logits::kNone};
      ROOFTREE_TRY(const engine::StepResult filled, engine.step(std::span(&chunk, 1)));
      (void)filled;
      for (std::int64_t s = 1; s < batch; ++s) {
        for (std::size_t b = 0; b < w.blocks_.front().size(); ++b) {
          engine.copy_block(w.blocks_.front()[b], w.blocks_[static_cast<std::size_t>(s)][b]);
        }
      }
    }
    for (std::int64_t s = 0; s < batch; ++s) {
      w.chunks_.push_back(
          {.tokens = std::span(w.tokens_).subspan(static_cast<std::size_t>(s * tokens), static_cast<std::size_t>(tokens)),
           .past = context,
           .blocks = w.blocks_[static_cast<std::size_t>(s)],
           .logits = engine::Logits::kLast});
    }
    return w;
  }
  Workload(Workload&& other) noexcept
      : engine_(other.engine_),
        prompt_(std::move(other.prompt_)),
        tokens_(std::move(other.tokens_)),
        blocks_(std::move(other.blocks_)),
        owned_(std::exchange(other.owned_, {})),
        chunks_(std::move(other.chunks_)) {}
  Workload& operator=(Workload&&) = delete;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;
  ~Workload() {
    for (const serving::BlockId block : owned_) engine_.blocks().release(block);
  }

  // The same step every time: the same positions are computed and written again.
  Status step() {
    ROOFTREE_TRY(const engine::StepResult result, engine_.step(chunks_));
    (void)result;
    return Ok{};
  }

 private:
  explicit Workload(engine::Engine& engine) : engine_(engine) {}

  engine::Engine& engine_;
  std::vector<engine::TokenId> prompt_, tokens_;
  std::vector<std::vector<serving::BlockId>> blocks_;
  std::vector<serving::BlockId> owned_;
  std::vector<engine::Chunk> chunks_;
};

struct Sample {
  double step_s = 0, read_bytes_per_s = 0, peak_flop_per_s = 0;
};

// Steps enough to fill the time, with the limits measured right before and after.
Result<Sample> sample(Workload& workload, LimitProbe& limits, Arithmetic arithmetic, double seconds, std::int64_t& steps) {
  const double read_before = limits.read_bytes_per_second();
  const double peak_before = limits.flop_per_second(arithmetic);
  const auto start = Clock::now();
  for (std::int64_t i = 0; i < steps; ++i) ROOFTREE_TRY_VOID(workload.step());
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  const Sample result{.step_s = elapsed / static_cast<double>(steps),
                      .read_bytes_per_s = (read_before + limits.read_bytes_per_second()) / 2,
                      .peak_flop_per_s = (peak_before + limits.flop_per_second(arithmetic)) / 2};
  steps = std::max<std::int64_t>(1, std::llround(seconds / result.step_s));
  return result;
}

// The rates of this run in place of those kept from an earlier one: what was measured on a disturbed machine would mislead.
void take_rates(machine::Machine& machine, LimitProbe& limits) {
  for (const Arithmetic type : {Arithmetic::kFp32, Arithmetic::kBf16, Arithmetic::kFp16, Arithmetic::kInt8}) {
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) best = std::max(best, limits.flop_per_second(type));
    machine::ArithmeticRate& rate = machine.chip().arithmetic[static_cast<std::size_t>(type)];
    (rate.matrix.value() > 0 ? rate.matrix : rate.vector) = FlopPerSecond{best};
  }
}

machine::Machine with_limits(machine::Machine machine, Arithmetic arithmetic, double peak, double read) {
  machine::Chip& chip = machine.chip();
  machine::ArithmeticRate& rate = chip.arithmetic[static_cast<std::size_t>(arithmetic)];
  if (peak > 0) (rate.matrix.value() > 0 ? rate.matrix : rate.vector) = FlopPerSecond{peak};
  chip.ladder.back().bandwidth = BytesPerSecond{read};
  return machine;
}

cost::Plan plan_of(DType weights, DType kv) {
  cost::Plan plan;
  plan.stack = cost::Stack::kRooftree;
  plan.set_type(model::Role::kWeight, weights);
  plan.set_type(model::Role::kKvCache, kv);
  plan.set_type(model::Role::kActivation, weights == DType::kF32 ? DType::kF32 : DType::kBf16);
  return plan;
}

struct PhaseState {
  PhaseBench bench;
  model::Phase phase;
  std::vector<Sample> samples;
  std::int64_t steps = 1;
};

// Room for the largest phase.
engine::EngineOptions engine_options_of(const BenchOptions& options) {
  engine::EngineOptions e = options.engine;
  const std::int64_t page = e.page_tokens;
  std::int64_t tokens = page;
  for (const std::int64_t batch : options.batches) {
    tokens = std::max(tokens, batch * ((options.context + 1 + page - 1) / page * page));
  }
  for (const std::int64_t prompt : options.prompts) tokens = std::max(tokens, (prompt + page - 1) / page * page);
  e.kv_tokens = tokens;
  return e;
}

std::vector<PhaseState> phases_of(const BenchOptions& options) {
  std::vector<PhaseState> phases;
  for (const std::int64_t batch : options.batches) {
    PhaseState& p = phases.emplace_back();
    p.phase = model::Phase::decode(batch, options.context + 1);
    p.bench = {.phase = "decode", .batch = batch, .tokens = 1, .context = options.context};
  }
  for (const std::int64_t prompt : options.prompts) {
    PhaseState& p = phases.emplace_back();
    p.phase = model::Phase::prefill(1, prompt);
    p.bench = {.phase = "prefill", .batch = 1, .tokens = prompt, .context = 0};
  }
  return phases;
}

std::string label(const PhaseBench& b) {
  return b.phase == "decode" ? fmt::format("decode, batch {}", b.batch) : fmt::format("prefill, {} tokens", b.tokens);
}

Status report_progress(Progress* progress, double fraction, const std::string& doing) {
  if (progress == nullptr) return Ok{};
  progress->update(fraction, doing);
  if (progress->cancelled()) return Error{ErrorCode::kEnvironment, "interrupted"};
  return Ok{};
}

// Once more with a clock between the operators: seconds per step by block and node, medians of five.
Status profile(engine::Engine& engine, Workload& workload, PhaseBench& bench) {
  engine.set_profiling(true);
  std::map<std::pair<std::string, std::string>, std::vector<double>> seconds;
  for (int repeat = 0; repeat < 5; ++repeat) {
    ROOFTREE_TRY_VOID(workload.step());
    std::map<std::pair<std::string, std::string>, double> sums;
    for (const engine::NodeTime& t : engine.last_profile()) sums[{std::string(t.block), std::string(t.node)}] += t.seconds;
    for (const auto& [key, value] : sums) seconds[key].push_back(value);
  }
  engine.set_profiling(false);
  for (auto& [key, values] : seconds) {
    bench.operators.push_back({.block = key.first, .node = key.second, .measured_s = spread_of(values).median});
  }
  return Ok{};
}

void add_predicted_operators(const model::Graph& graph, const cost::Estimate& estimate, std::vector<OperatorBench>& operators) {
  for (const cost::OperatorEstimate& o : estimate.operators) {
    const model::Block& block = graph.blocks[o.block];
    const model::Node& node = block.nodes[o.node];
    auto at = std::find_if(operators.begin(), operators.end(),
                           [&](const OperatorBench& x) { return x.block == block.name && x.node == node.name; });
    if (at == operators.end()) at = operators.insert(at, {.block = block.name, .node = node.name});
    at->predicted_s += o.time.value();
    at->flop += o.flop.value();
    at->bytes += o.bytes_dram.value();
  }
}

std::vector<double> column(const std::vector<Sample>& samples, double Sample::*member) {
  std::vector<double> values;
  for (const Sample& s : samples) values.push_back(s.*member);
  return values;
}

// Measured and predicted, with the limits that were measured beside the samples.
Status summarise(PhaseState& p, const model::Model& model, const machine::Machine& machine, const cost::Plan& plan,
                 Arithmetic arithmetic) {
  PhaseBench& b = p.bench;
  b.step_s = spread_of(column(p.samples, &Sample::step_s));
  const double work = static_cast<double>(b.batch * b.tokens);
  b.tokens_per_s = work / b.step_s.median;
  const double read = spread_of(column(p.samples, &Sample::read_bytes_per_s)).median;
  const double peak = spread_of(column(p.samples, &Sample::peak_flop_per_s)).median;
  ROOFTREE_TRY(const model::Graph graph, model.build(p.phase, plan.fusion));
  const auto predict = [&](double peak_rate, double read_rate) {
    const cost::Estimator estimator(with_limits(machine, arithmetic, peak_rate, read_rate), cost::CalibrationTable::builtin(),
                                    plan);
    return estimator.estimate(graph);
  };
  // Sample by sample with the limits beside it, as the limits drift while the samples are taken.
  std::vector<double> best, low, high;
  for (const Sample& s : p.samples) {
    const cost::Estimate e = predict(s.peak_flop_per_s, s.read_bytes_per_s);
    best.push_back(work / e.time.best.value());
    low.push_back(work / e.time.high.value());
    high.push_back(work / e.time.low.value());
  }
  b.predicted_tokens_per_s = spread_of(std::move(best)).median;
  b.predicted_low = spread_of(std::move(low)).median;
  b.predicted_high = spread_of(std::move(high)).median;
  const cost::Estimate estimate = predict(peak, read);
  b.flop = estimate.flop.value();
  b.bytes = estimate.bytes_dram.value();
  const auto roof = [&](double read_rate, double peak_rate) {
    return std::max(b.bytes / read_rate, peak_rate > 0 ? b.flop / peak_rate : 0);
  };
  std::vector<double> fractions;
  for (const Sample& s : p.samples) fractions.push_back(roof(s.read_bytes_per_s, s.peak_flop_per_s) / s.step_s);
  b.fraction_of_roof = spread_of(std::move(fractions));
  b.roof_s = roof(read, peak);
  b.memory_bound = b.bytes / read >= b.roof_s;
  add_predicted_operators(graph, estimate, b.operators);
  return Ok{};
}

}  // namespace

Result<BenchResult> bench_model(engine::ModelFiles files, const machine::Machine& probed, const BenchOptions& options,
                                Progress* progress) {
  const bool random_weights = files.random_weights;
  const DType weights = options.engine.weights.value_or(files.model.native_weight_type);
  const engine::EngineOptions engine_options = engine_options_of(options);
  ROOFTREE_TRY(const std::unique_ptr<engine::Engine> engine, engine::Engine::load(std::move(files), engine_options, progress));
  const cost::Plan plan = plan_of(weights, engine_options.kv);
  ROOFTREE_TRY(LimitProbe limits, LimitProbe::make(engine->pool(), kReadBytes));
  machine::Machine machine = probed;
  take_rates(machine, limits);
  const Arithmetic arithmetic = cost::resolve_types(machine.chip(), plan).arithmetic;

  // Rounds over all phases, so that a disturbed minute costs every phase a sample instead of costing one phase all of them.
  // The first round warms up and finds the number of steps; it is not counted.
  std::vector<PhaseState> phases = phases_of(options);
  const int rounds = options.samples + 1;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < phases.size(); ++i) {
      PhaseState& p = phases[i];
      const double done = static_cast<double>(round) + static_cast<double>(i) / static_cast<double>(phases.size());
      ROOFTREE_TRY_VOID(report_progress(progress, done / rounds, "measuring " + label(p.bench)));
      ROOFTREE_TRY(Workload workload, Workload::make(*engine, p.bench.batch, p.bench.tokens, p.bench.context, options.seed));
      ROOFTREE_TRY(const Sample s, sample(workload, limits, arithmetic, options.seconds_per_sample, p.steps));
      if (round > 0) p.samples.push_back(s);
      if (round + 1 == rounds) ROOFTREE_TRY_VOID(profile(*engine, workload, p.bench));
    }
  }

  BenchResult result{.model = engine->model().id,
                     .weights = std::string(name(weights)),
                     .kv = std::string(name(engine_options.kv)),
                     .level = std::string(kernels::name(engine->level())),
                     .backend = std::string(engine->backend().name()),
                     .cpu = machine.chip().name,
                     .threads = engine->threads(),
                     .random_weights = random_weights,
                     .footprint = engine->footprint(),
                     .arithmetic = arithmetic};
  std::vector<Sample> all;
  for (PhaseState& p : phases) {
    all.insert(all.end(), p.samples.begin(), p.samples.end());
    ROOFTREE_TRY_VOID(summarise(p, engine->model(), machine, plan, arithmetic));
    result.phases.push_back(std::move(p.bench));
  }
  result.read_bytes_per_s = spread_of(column(all, &Sample::read_bytes_per_s));
  result.peak_flop_per_s = spread_of(column(all, &Sample::peak_flop_per_s));
  return result;
}

Result<std::vector<Comparison>> compare_models(engine::ModelFiles first, engine::ModelFiles second,
                                               const BenchOptions& first_options, const BenchOptions& second_options,
                                               Progress* progress) {
  const BenchOptions* options[] = {&first_options, &second_options};
  engine::ModelFiles* files[] = {&first, &second};
  std::unique_ptr<engine::Engine> engines[2];
  std::vector<PhaseState> phases[2];
  for (int side = 0; side < 2; ++side) {
    ROOFTREE_TRY(engines[side], engine::Engine::load(std::move(*files[side]), engine_options_of(*options[side]), progress));
    phases[side] = phases_of(first_options);
  }
  const int rounds = first_options.samples + 1;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < phases[0].size(); ++i) {
      const double done = static_cast<double>(round) + static_cast<double>(i) / static_cast<double>(phases[0].size());
      ROOFTREE_TRY_VOID(report_progress(progress, done / rounds, "comparing " + label(phases[0][i].bench)));
      // The order alternates, so that a drift favours neither.
      for (int turn = 0; turn < 2; ++turn) {
        const int side = (turn + round) % 2;
        PhaseState& p = phases[side][i];
        ROOFTREE_TRY(Workload workload,
                     Workload::make(*engines[side], p.bench.batch, p.bench.tokens, p.bench.context, first_options.seed));
        const auto start = Clock::now();
        for (std::int64_t step = 0; step < p.steps; ++step) ROOFTREE_TRY_VOID(workload.step());
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(p.steps);
        p.steps = std::max<std::int64_t>(1, std::llround(first_options.seconds_per_sample / seconds));
        if (round > 0) p.samples.push_back({.step_s = seconds});
      }
    }
  }
  std::vector<Comparison> result;
  for (std::size_t i = 0; i < phases[0].size(); ++i) {
    PhaseBench& b = phases[0][i].bench;
    const double work = static_cast<double>(b.batch * b.tokens);
    std::vector<double> ratios;
    for (std::size_t s = 0; s < phases[0][i].samples.size(); ++s) {
      ratios.push_back(phases[1][i].samples[s].step_s / phases[0][i].samples[s].step_s);
    }
    result.push_back({.phase = b.phase,
                      .batch = b.batch,
                      .tokens = b.tokens,
                      .first_tokens_per_s = work / spread_of(column(phases[0][i].samples, &Sample::step_s)).median,
                      .second_tokens_per_s = work / spread_of(column(phases[1][i].samples, &Sample::step_s)).median,
                      .ratio = spread_of(std::move(ratios))});
  }
  return result;
}

}  // namespace rooftree::measure

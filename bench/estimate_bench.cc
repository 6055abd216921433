// Complete single-chip estimates per second: Llama-2-7B decode on an A100, every operator, memory, energy and money.
// Goal: 500,000 per second and core with the graph built before. `rate` counts estimates.

#include <benchmark/benchmark.h>

#include "cost/estimate.h"
#include "machine/catalog.h"
#include "model/model.h"

namespace {

using namespace rooftree;  // NOLINT(google-build-using-namespace)

struct Scenario {
  machine::Machine machine = machine::Catalog::builtin().find("nvidia-a100-sxm-80").value();
  model::Model model = model::ModelCatalog::builtin().find("llama-2-7b").value();
  cost::Estimator estimator{machine, cost::CalibrationTable::builtin(), {}};
};
const Scenario& scenario() {
  static const Scenario s;
  return s;
}

void finish(benchmark::State& state, const cost::Estimate& estimate) {
  state.counters["rate"] = benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["operators"] = static_cast<double>(estimate.operators.size());
  state.counters["predicted_ms"] = estimate.time.best.value() * 1e3;
}

// The graph stands; only its cost is asked for.
void estimate_prebuilt(benchmark::State& state) {
  const model::Graph graph = scenario().model.build(model::Phase::decode(state.range(0), 1024)).value();
  cost::Estimate estimate;
  for (auto _ : state) {
    scenario().estimator.estimate_into(graph, estimate);
    benchmark::DoNotOptimize(estimate);
  }
  finish(state, estimate);
}
BENCHMARK(estimate_prebuilt)->Arg(1)->Arg(16)->Arg(256);

// The graph of a new phase is built (into the same storage) before each estimate, as a sweep does.
void build_and_estimate(benchmark::State& state) {
  model::Graph graph;
  cost::Estimate estimate;
  std::int64_t context = 1000;
  for (auto _ : state) {
    const Status built =
        scenario().model.build_into(model::Phase::decode(state.range(0), context), model::Fusion::kStandard, graph);
    if (!built) state.SkipWithError("the graph does not build");
    scenario().estimator.estimate_into(graph, estimate);
    benchmark::DoNotOptimize(estimate);
    context = context == 1000 ? 1001 : 1000;
  }
  finish(state, estimate);
}
BENCHMARK(build_and_estimate)->Arg(1)->Arg(256);

void prefill(benchmark::State& state) {
  const model::Graph graph = scenario().model.build(model::Phase::prefill(1, state.range(0))).value();
  cost::Estimate estimate;
  for (auto _ : state) {
    scenario().estimator.estimate_into(graph, estimate);
    benchmark::DoNotOptimize(estimate);
  }
  finish(state, estimate);
}
BENCHMARK(prefill)->Arg(2048);

// Rates, constants and types resolved for a chip and a plan.
void make_estimator(benchmark::State& state) {
  for (auto _ : state) {
    cost::Estimator estimator(scenario().machine, cost::CalibrationTable::builtin(), {});
    benchmark::DoNotOptimize(estimator);
  }
}
BENCHMARK(make_estimator);

void all_sensitivities(benchmark::State& state) {
  for (auto _ : state) {
    auto all = cost::sensitivities(scenario().model, model::Phase::decode(1, 1024), scenario().machine,
                                   cost::CalibrationTable::builtin(), {});
    benchmark::DoNotOptimize(all);
  }
}
BENCHMARK(all_sensitivities)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

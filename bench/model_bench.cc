// How long graphs and models take to make. Graphs are on the path of every estimate: half a million of those per second and
// core leave about two microseconds for everything.

#include <benchmark/benchmark.h>

#include "model/model.h"

namespace rooftree::model {
namespace {

void build(benchmark::State& state, const char* id, const Phase& first, Fusion fusion) {
  const Model model = ModelCatalog::builtin().find(id).value();
  Graph graph;
  Phase phase = first;
  for (auto _ : state) {
    phase.past = (phase.past + 1) & 1023;  // another shape every time, the same structure
    const auto status = model.build_into(phase, fusion, graph);
    benchmark::DoNotOptimize(graph.footprint.weights);
    if (!status) state.SkipWithError("refused");
  }
}

BENCHMARK_CAPTURE(build, llama_2_7b_decode, "llama-2-7b", Phase::decode(1, 2048), Fusion::kStandard);
BENCHMARK_CAPTURE(build, llama_2_7b_decode_eager, "llama-2-7b", Phase::decode(1, 2048), Fusion::kEager);
BENCHMARK_CAPTURE(build, llama_3_1_70b_prefill, "llama-3.1-70b", Phase::prefill(4, 1000), Fusion::kStandard);
BENCHMARK_CAPTURE(build, llama_2_7b_train, "llama-2-7b", Phase::train(1, 2048), Fusion::kStandard);
BENCHMARK_CAPTURE(build, deepseek_v3_decode, "deepseek-v3", Phase::decode(8, 2048), Fusion::kStandard);

void build_fresh(benchmark::State& state) {
  const Model model = ModelCatalog::builtin().find("llama-2-7b").value();
  for (auto _ : state) benchmark::DoNotOptimize(model.build(Phase::decode(1, 2048)));
}
BENCHMARK(build_fresh);

void find(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ModelCatalog::builtin().find("llama-3.1-70b"));
}
BENCHMARK(find);

void list_all(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(ModelCatalog::builtin().entries());
}
BENCHMARK(list_all)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace rooftree::model

BENCHMARK_MAIN();

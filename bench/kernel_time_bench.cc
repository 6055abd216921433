// Kernel times per second: the inside of the estimator's loop. Times are of one evaluation on an H100's constants.

#include <benchmark/benchmark.h>

#include <array>

#include "cost/kernel_time.h"
#include "machine/catalog.h"

namespace rooftree {
namespace {

struct Setup {
  machine::Machine machine = machine::Catalog::builtin().find("nvidia-h100-sxm").value();
  cost::ChipCalibration chip = cost::CalibrationTable::builtin().resolve(machine.chip());
  cost::Operands operands;

  Setup() {
    const double pace = 1 / chip.memory_bandwidth;
    operands.weight_seconds_per_byte = operands.activation_seconds_per_byte = operands.kv_seconds_per_byte = pace;
  }
};

const Setup& setup() {
  static const Setup s;
  return s;
}

void evaluate(benchmark::State& state, const model::Operator& op) {
  const Setup& s = setup();
  const model::Work work = model::work(op);
  for (auto _ : state) {
    benchmark::DoNotOptimize(cost::kernel_time(op, work, s.operands, s.chip));
  }
}

void BM_Gemm(benchmark::State& state) { evaluate(state, model::MatMul{.m = state.range(0), .n = 11008, .k = 4096}); }
BENCHMARK(BM_Gemm)->Arg(1)->Arg(16)->Arg(64)->Arg(256)->Arg(4096);

void BM_AttentionPrefill(benchmark::State& state) {
  evaluate(state, model::Attention{
                      .q_tokens = 4096, .kv_tokens = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128});
}
BENCHMARK(BM_AttentionPrefill);

void BM_AttentionDecode(benchmark::State& state) {
  evaluate(state,
           model::Attention{
               .batch = 16, .q_tokens = 1, .kv_tokens = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128});
}
BENCHMARK(BM_AttentionDecode);

void BM_GroupedGemm(benchmark::State& state) {
  evaluate(state, model::GroupedMatMul{.tokens = 64, .n = 4096, .k = 2048, .experts = 128, .top_k = 8});
}
BENCHMARK(BM_GroupedGemm);

void BM_Norm(benchmark::State& state) { evaluate(state, model::Norm{.rows = 16, .width = 4096}); }
BENCHMARK(BM_Norm);

// The kernels of one Llama-2-7B decode step: eight distinct ones per layer and the head.
void BM_DecodeStepKernels(benchmark::State& state) {
  const Setup& s = setup();
  const std::array<model::Operator, 12> ops = {
      model::Embedding{.tokens = 1, .width = 4096, .vocabulary = 32000},
      model::Norm{.rows = 1, .width = 4096, .residual = true},
      model::MatMul{.m = 1, .n = 12288, .k = 4096},
      model::Elementwise{.rows = 1, .width = 8192, .kind = model::ElementwiseKind::kRope},
      model::CacheWrite{.tokens = 1, .width = 8192},
      model::Attention{.q_tokens = 1, .kv_tokens = 2048, .heads = 32, .kv_heads = 32, .head_dim = 128, .value_dim = 128},
      model::MatMul{.m = 1, .n = 4096, .k = 4096},
      model::Norm{.rows = 1, .width = 4096, .residual = true},
      model::MatMul{.m = 1, .n = 22016, .k = 4096},
      model::Elementwise{.rows = 1, .width = 11008, .kind = model::ElementwiseKind::kGatedActivation, .inputs = 2},
      model::MatMul{.m = 1, .n = 4096, .k = 11008},
      model::MatMul{.m = 1, .n = 32000, .k = 4096}};
  for (auto _ : state) {
    double sum = 0;
    for (const model::Operator& op : ops) sum += cost::kernel_time(op, model::work(op), s.operands, s.chip).time;
    benchmark::DoNotOptimize(sum);
  }
}
BENCHMARK(BM_DecodeStepKernels);

void BM_Resolve(benchmark::State& state) {
  const Setup& s = setup();
  for (auto _ : state) benchmark::DoNotOptimize(cost::CalibrationTable::builtin().resolve(s.machine.chip()));
}
BENCHMARK(BM_Resolve)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace rooftree

BENCHMARK_MAIN();

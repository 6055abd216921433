#include "validate/e2e_cases.h"

#include <gtest/gtest.h>

#include <map>

namespace rooftree::validate {
namespace {

using Row = std::map<std::string, std::string, std::less<>>;

Fields fields(const Row& row) {
  return [&row](std::string_view column) {
    const auto it = row.find(column);
    return it == row.end() ? std::string_view{} : std::string_view(it->second);
  };
}

E2eWorld world() { return {machine::Catalog::builtin(), model::ModelCatalog::builtin()}; }

E2eCase only_case(std::string_view file, const Row& row) {
  E2eWorld w = world();
  const auto cases = e2e_cases(file, fields(row), w);
  EXPECT_EQ(cases.size(), 1u);
  if (cases.empty()) return {};
  EXPECT_TRUE(cases[0]) << (cases[0] ? "" : cases[0].error().message);
  return cases[0] ? *cases[0] : E2eCase{};
}

std::string only_refusal(std::string_view file, const Row& row) {
  E2eWorld w = world();
  const auto cases = e2e_cases(file, fields(row), w);
  EXPECT_EQ(cases.size(), 1u);
  if (cases.empty()) return {};
  EXPECT_FALSE(cases[0]);
  return cases[0] ? std::string() : cases[0].error().message;
}

constexpr std::string_view kBoards = "infer_llamacpp_scoreboards.csv";
const Row kMetalRow = {{"engine_backend", "llama.cpp Metal"},
                       {"model", "LLaMA 7B (v2)"},
                       {"quant", "Q4_0"},
                       {"device", "Apple M2 Max"},
                       {"gpu_cores", "30"},
                       {"mem_bandwidth_GB_per_s", "400"},
                       {"test", "tg128"},
                       {"tokens_per_s", "60.99"}};

Row with(Row row, std::string column, std::string value) {
  row[std::move(column)] = std::move(value);
  return row;
}

TEST(E2eCases, ABoardsRowBecomesADecodeOfTheMiddleContext) {
  const E2eCase c = only_case(kBoards, kMetalRow);
  EXPECT_EQ(c.what, "decode");
  EXPECT_EQ(c.measured, 60.99);
  EXPECT_EQ(c.tokens, 128);
  ASSERT_EQ(c.stretches.size(), 1u);
  EXPECT_EQ(c.stretches[0].count, 128);
  EXPECT_EQ(c.stretches[0].phase.past, 63);  // 64 positions with the new one
  EXPECT_EQ(c.plan.stack, cost::Stack::kLlamaCpp);
  EXPECT_EQ(c.plan.type(model::Role::kWeight), DType::kQ4_0);
  EXPECT_EQ(c.plan.fusion, model::Fusion::kEager);
  EXPECT_EQ(c.machine.chip().cores, 30);
  EXPECT_EQ(c.machine.chip().main_memory().bandwidth.value(), 400e9);
}

TEST(E2eCases, PromptsAreProcessedInPieces) {
  const Row row = {{"num_gpus", "1"}, {"gpu", "4090 24GB"},   {"model_quant", "8B F16"}, {"model_family", "LLaMA 3"},
                   {"test", "pp"},    {"num_tokens", "1300"}, {"tokens_per_s", "9000"}};
  const E2eCase c = only_case("infer_llamacpp_xiongjiedai.csv", row);
  ASSERT_EQ(c.stretches.size(), 3u);
  EXPECT_EQ(c.stretches[0].phase.tokens, 512);
  EXPECT_EQ(c.stretches[1].phase.past, 512);
  EXPECT_EQ(c.stretches[2].phase.tokens, 1300 - 1024);
  EXPECT_EQ(c.stretches[2].phase.past, 1024);
  EXPECT_EQ(c.tokens, 1300);
}

TEST(E2eCases, ARowOfABatchedBenchmarkHasTwoValues) {
  const Row row = {{"device", "Apple M2 Ultra"},
                   {"model", "ggml-org/gpt-oss-20b-GGUF"},
                   {"tool", "batched-bench"},
                   {"prompt_tokens", "512"},
                   {"gen_tokens", "32"},
                   {"batch", "8"},
                   {"prompt_tokens_per_s_aggregate", "2858.3"},
                   {"gen_tokens_per_s_aggregate", "247.8"}};
  E2eWorld w = world();
  const auto cases = e2e_cases("infer_llamacpp_repo_benches.csv", fields(row), w);
  ASSERT_EQ(cases.size(), 2u);
  ASSERT_TRUE(cases[0]) << cases[0].error().message;
  ASSERT_TRUE(cases[1]);
  // Four prompts of 512 fill a piece of 2048.
  ASSERT_EQ(cases[0]->stretches.size(), 1u);
  EXPECT_EQ(cases[0]->stretches[0].phase.batch, 4);
  EXPECT_EQ(cases[0]->stretches[0].count, 2);
  EXPECT_EQ(cases[0]->tokens, 8 * 512);
  EXPECT_EQ(cases[1]->stretches[0].phase.batch, 8);
  EXPECT_EQ(cases[1]->stretches[0].phase.past, 512 + 16 - 1);
  EXPECT_EQ(cases[1]->plan.expert_weights, DType::kMxfp4);
  EXPECT_EQ(cases[1]->plan.type(model::Role::kWeight), DType::kQ8_0);
}

TEST(E2eCases, TrainingRunsTheOptimizerOncePerStep) {
  const Row row = {
      {"num_gpus", "2"},           {"tp", "1"},        {"dp", "2"},     {"pp", "1"},      {"global_batch", "16"},
      {"micro_batch", "2"},        {"hidden", "1024"}, {"heads", "16"}, {"layers", "12"}, {"seq_len_tokens", "1024"},
      {"iteration_time_ms", "200"}};
  const E2eCase c = only_case("train_vtrain_megatron_a100.csv", row);
  ASSERT_EQ(c.stretches.size(), 2u);
  EXPECT_EQ(c.stretches[0].count, 4);
  EXPECT_EQ(c.stretches[0].part, Stretch::Part::kWithoutOptimizer);
  EXPECT_EQ(c.stretches[1].count, 1);
  EXPECT_EQ(c.stretches[1].part, Stretch::Part::kOptimizerOnly);
  EXPECT_DOUBLE_EQ(c.measured, 0.2);
}

TEST(E2eCases, PyTorchSeesOneDieOfAnMi250) {
  const Row row = {{"gpu", "AMD_Instinct_MI250"}, {"model", "gpt2_large"}, {"mode", "inf"},
                   {"seq_len", "1024"},           {"batch", "4"},          {"e2e_latency_ms", "400"}};
  const E2eCase c = only_case("e2e_neusight_labels.csv", row);
  const auto card = machine::Catalog::builtin().find("amd-mi250");
  ASSERT_TRUE(card);
  EXPECT_EQ(c.machine.chip().cores, card->chip().cores / 2);
  EXPECT_DOUBLE_EQ(c.machine.chip().main_memory().bandwidth.value(), card->chip().main_memory().bandwidth.value() / 2);
  EXPECT_TRUE(c.stretches[0].phase.all_logits);
}

TEST(E2eCases, RefusalsSayWhyInFewWords) {
  EXPECT_EQ(only_refusal(kBoards, with(kMetalRow, "model", "Parrot 3B")), "model not known");
  EXPECT_EQ(only_refusal(kBoards, with(kMetalRow, "quant", "Q9")), "quantisation not known");
  EXPECT_EQ(only_refusal(kBoards, with(kMetalRow, "test", "xx1")), "test not known");
  EXPECT_EQ(only_refusal(kBoards, with(kMetalRow, "device", "abacus")), "device not known");
  EXPECT_EQ(only_refusal(kBoards, with(kMetalRow, "test", "pp512+tg128")), "prompt and generation timed together");
  EXPECT_NE(only_refusal(kBoards, with(kMetalRow, "tokens_per_s", "fast")).find("tokens_per_s"), std::string::npos);
  EXPECT_NE(only_refusal(kBoards, with(kMetalRow, "tokens_per_s", "-3")).find("positive"), std::string::npos);
  EXPECT_EQ(only_refusal("infer_mlc_llm_perf_bench.csv", {{"num_gpus", "2"}}), "needs a parallel plan");
  EXPECT_EQ(only_refusal("infer_gptfast_batch1_decode.csv", {{"model", "Llama-2-70B + 7B draft speculative"}}),
            "speculative decoding with a draft model");
  EXPECT_EQ(only_refusal("e2e_neusight_labels.csv", {{"options", "tp4"}}), "needs a parallel plan");
  EXPECT_EQ(only_refusal("nothing.csv", {}), "no model for this file");
}

TEST(E2eCases, EveryFileRefusesAnEmptyRow) {
  for (const std::string_view file : e2e_files()) {
    E2eWorld w = world();
    const Row empty;
    for (const auto& c : e2e_cases(file, fields(empty), w)) EXPECT_FALSE(c) << file;
  }
}

TEST(E2eCases, CoresScaleArithmeticAndNotMemory) {
  machine::Chip chip;
  chip.cores = 40;
  chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp32)].vector = FlopPerSecond{10e12};
  machine::MemoryLevel memory;
  memory.bandwidth = BytesPerSecond{400e9};
  chip.ladder = {memory};
  const machine::Chip fewer = with_cores(chip, 30);
  EXPECT_EQ(fewer.cores, 30);
  EXPECT_DOUBLE_EQ(fewer.rate(Arithmetic::kFp32).vector.value(), 7.5e12);
  EXPECT_EQ(fewer.main_memory().bandwidth.value(), 400e9);
  EXPECT_EQ(with_cores(chip, 0).cores, 40);
  EXPECT_EQ(with_cores(chip, -5).cores, 40);
}

// A memory-bound decode scales with the bytes of its weights, and the prediction lies between the roof and twice its time.
TEST(E2eCases, PredictionsStayNearTheRoofAndHoldTheirInterval) {
  const E2eCase c = only_case(kBoards, kMetalRow);
  const auto p = predict(c, cost::CalibrationTable::builtin());
  ASSERT_TRUE(p) << p.error().message;
  EXPECT_LT(p->value.low, p->value.best);
  EXPECT_LT(p->value.best, p->value.high);
  EXPECT_GT(p->baseline, p->value.best);
  EXPECT_LT(p->baseline, 3 * p->value.best);
  const auto narrow =
      predict(only_case(kBoards, with(kMetalRow, "mem_bandwidth_GB_per_s", "200")), cost::CalibrationTable::builtin());
  ASSERT_TRUE(narrow);
  EXPECT_LT(narrow->value.best, 0.75 * p->value.best);
}

}  // namespace
}  // namespace rooftree::validate

#include "validate/validate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/json.h"
#include "validate/adapters.h"

namespace rooftree::validate {
namespace {

Context builtin() { return {machine::Catalog::builtin(), cost::CalibrationTable::builtin()}; }

FileScore scored(const std::string& file, std::string_view text) {
  Context context = builtin();
  auto result = validate_text(text, file, context, {});
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  return result ? *result : FileScore{};
}

Case with_error(double predicted, double low, double high) {
  return Case{.measured = 1, .predicted = predicted, .low = low, .high = high, .baseline = 0.5};
}

TEST(Quantile, InterpolatesBetweenOrderStatistics) {
  EXPECT_EQ(quantile({}, 0.5), 0);
  EXPECT_DOUBLE_EQ(quantile({3}, 0.9), 3);
  EXPECT_DOUBLE_EQ(quantile({1, 2}, 0.5), 1.5);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2, 5}, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile({0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}, 0.9), 90);
  EXPECT_DOUBLE_EQ(quantile({0, 1}, 0), 0);
  EXPECT_DOUBLE_EQ(quantile({0, 1}, 1), 1);
}

TEST(Score, CountsErrorsBiasAndCoverage) {
  const std::vector<Case> cases = {with_error(0.9, 0.8, 1.1), with_error(1.2, 1.1, 1.3), with_error(1.4, 0.9, 2)};
  const Score s = score(cases);
  EXPECT_EQ(s.scored, 3u);
  EXPECT_NEAR(s.median_abs_error, 0.2, 1e-12);
  EXPECT_NEAR(s.p90_abs_error, 0.2 + 0.8 * 0.2, 1e-12);
  EXPECT_NEAR(s.bias, 0.2, 1e-12);
  EXPECT_NEAR(s.coverage_90, 2.0 / 3, 1e-12);
  EXPECT_NEAR(s.baseline_median_abs_error, 0.5, 1e-12);
  EXPECT_NEAR(s.baseline_bias, -0.5, 1e-12);
  EXPECT_EQ(score({}).scored, 0u);
}

constexpr std::string_view kGemmHeader = "system,device,framework,version,kernel_source,dtype,m,n,k,time_us,source,certainty\n";
FileScore gemm(std::string_view rows) {
  return scored("op_aiconfigurator_gemm.csv", std::string(kGemmHeader) + std::string(rows));
}

TEST(Refusals, AreCountedByReason) {
  const FileScore f = gemm(
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,4096,4096,4096,200,s,read\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,4096,4096,4096,200,s,recalled\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,4096,4096,4096,200,s,\"recalled, from memory\"\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,fp3,4096,4096,4096,200,s,read\n"
      "xyz,Some Chip,trtllm,1,k,bfloat16,4096,4096,4096,200,s,read\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,many,4096,4096,200,s,read\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,0,4096,4096,200,s,read\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,4096,4096,4096,0,s,read\n"
      "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,4096,4096,4096,,s,read\n");
  EXPECT_EQ(f.rows, 9u);
  EXPECT_EQ(f.total.scored, 1u);
  EXPECT_EQ(f.refused.at("recalled"), 2u);
  EXPECT_EQ(f.refused.at("dtype fp3"), 1u);
  EXPECT_EQ(f.refused.at("chip xyz is not in the catalogue"), 1u);
  EXPECT_EQ(f.refused.at("m is not a number"), 1u);
  EXPECT_EQ(f.refused.at("m is not a whole number from 1 to 2147483648"), 1u);
  EXPECT_EQ(f.refused.at("measured value is not positive"), 1u);
  EXPECT_EQ(f.refused.at("no time_us"), 1u);
}

TEST(Refusals, AFileWithoutItsColumnsIsRefusedRowByRow) {
  const FileScore f = scored("op_aiconfigurator_gemm.csv", "a,b\n1,2\n");
  EXPECT_EQ(f.total.scored, 0u);
  EXPECT_EQ(f.refused.size(), 1u);
}

TEST(Baseline, IsTheDatasheetRoofline) {
  Context context = builtin();
  const machine::Machine* h100 = context.machine("nvidia-h100-sxm");
  ASSERT_NE(h100, nullptr);
  double baseline = 0;
  Options options;
  options.on_case = [&](const std::string&, std::size_t line, const Case& c) {
    EXPECT_EQ(line, 2u);
    baseline = c.baseline;
  };
  const std::string text =
      std::string(kGemmHeader) + "h100_sxm,NVIDIA H100 80GB HBM3,trtllm,1,k,bfloat16,8192,8192,8192,1500,s,read\n";
  ASSERT_TRUE(validate_text(text, "op_aiconfigurator_gemm.csv", context, options));
  const double peak = machine::product_rate(h100->chip(), Arithmetic::kBf16).value();
  EXPECT_NEAR(baseline, 2 * std::pow(8192.0, 3) / peak, 1e-9);
}

TEST(Adapters, PredictNewerChipsAndTypesInsteadOfCrashing) {
  for (const std::string_view device :
       {"NVIDIA GB200", "NVIDIA B300", "NVIDIA GB300", "NVIDIA H20", "NVIDIA RTX PRO 6000", "AMD Instinct MI325X"}) {
    for (const std::string_view dtype : {"bfloat16", "fp8", "fp8_block", "nvfp4", "int8_wo", "int4_wo", "sq"}) {
      const FileScore f =
          gemm(std::string("new,") + std::string(device) + ",sglang,9,k," + std::string(dtype) + ",128,4096,4096,20,s,read\n");
      EXPECT_EQ(f.total.scored, 1u) << device << " " << dtype << " " << (f.refused.empty() ? "" : f.refused.begin()->first);
    }
  }
}

TEST(Adapters, VidurScoresEveryMeasuredColumn) {
  const FileScore f = scored("op_vidur_linear_ops.csv",
                             "gpu,model,n_head,n_kv_head,n_embd,n_ffn,gated_mlp,tensor_parallel,num_tokens,emb_median_ms,"
                             "input_layernorm_median_ms,attn_pre_proj_median_ms,add_median_ms,certainty\n"
                             "A100,meta-llama/Llama-2-7b-hf,32,32,4096,11008,True,1,1024,0.08,0.04,,0.02,read\n");
  EXPECT_EQ(f.rows, 1u);
  EXPECT_EQ(f.total.scored, 3u);
}

TEST(Adapters, CollectivesAndShardedLayersAreRefused) {
  const FileScore layer =
      scored("op_llmcompass_gpt3_layer.csv",
             "device,tensor_parallel_devices,phase,batch,input_len_tokens,output_tokens_already_in_kv,d_model,n_heads,dtype,"
             "operator,latency_us,certainty\nA100_80GB,4,prefill,8,2048,0,12288,96,fp16,AllReduce_MHA,2890,read\n"
             "A100_80GB,4,prefill,8,2048,0,12288,96,fp16,Q_K_V,13721,read\n");
  EXPECT_EQ(layer.refused.at("collective"), 1u);
  EXPECT_EQ(layer.total.scored, 1u);
  const FileScore whole = scored("op_korthikanti2022_layer_time.csv", "experiment,tp,certainty\nbaseline,8,read\n");
  EXPECT_EQ(whole.total.scored, 0u);
}

TEST(Validate, NamesMissingFoldersAndFiles) {
  const auto& catalog = machine::Catalog::builtin();
  const auto& table = cost::CalibrationTable::builtin();
  const auto folder = validate({.data = "/nonexistent"}, catalog, table);
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code, ErrorCode::kEnvironment);
  const auto file = validate({.data = ROOFTREE_SOURCE_DIR, .only = {"op_nothing"}}, catalog, table);
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("no file op_nothing.csv"), std::string::npos);
  const auto none = validate({.data = ROOFTREE_SOURCE_DIR}, catalog, table);
  EXPECT_FALSE(none);
  Context context = builtin();
  EXPECT_FALSE(validate_text("a\n1\n", "unknown.csv", context, {}));
}

TEST(Report, JsonHasTheKeysThatProgramsRead) {
  Report report;
  FileScore f;
  f.file = "x.csv";
  f.rows = 4;
  f.refused["recalled"] = 1;
  const std::vector<Case> cases = {with_error(1.1, 1, 1.2)};
  f.total = score(cases);
  report.files.push_back(f);
  report.median_over_files = 0.1;
  const auto parsed = parse_json(to_json(report, false), "report");
  ASSERT_TRUE(parsed);
  const Json& j = (*parsed)["files"][0];
  EXPECT_EQ(j["file"], "x.csv");
  EXPECT_EQ(j["rows"], 4);
  EXPECT_EQ(j["scored"], 1);
  EXPECT_EQ(j["refused"]["recalled"], 1);
  for (const char* key : {"median_abs_error", "p90_abs_error", "bias", "coverage_90", "baseline_median_abs_error"}) {
    EXPECT_TRUE(j[key].is_number()) << key;
  }
  EXPECT_TRUE((*parsed)["median_over_files"].is_number());
}

// The median errors that the project promises, on the public measurements beside the repository. The interval's goal is 85 to
// 95 % (README shows what it reaches, matrix products just miss it); 80 % is where a change would have broken it.
TEST(Validate, OperatorFilesReachTheirTargets) {
  const std::filesystem::path data = std::filesystem::path(ROOFTREE_SOURCE_DIR) / ".." / "shared" / "validation" / "develop";
  if (!std::filesystem::is_directory(data)) GTEST_SKIP() << "no " << data;
  const auto report = validate({.data = data, .only = {"op_aiconfigurator_gemm", "op_aiconfigurator_attention"}},
                               machine::Catalog::builtin(), cost::CalibrationTable::builtin());
  ASSERT_TRUE(report) << report.error().message;
  for (const FileScore& f : report->files) {
    EXPECT_LE(f.total.median_abs_error, f.file.find("gemm") != std::string::npos ? 0.10 : 0.12) << f.file;
    EXPECT_GE(f.total.coverage_90, 0.80) << f.file;
    EXPECT_GT(f.total.baseline_median_abs_error, 3 * f.total.median_abs_error) << f.file;
  }
}

}  // namespace
}  // namespace rooftree::validate

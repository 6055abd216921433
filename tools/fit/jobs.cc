#include "jobs.h"

namespace rooftree::fit {
namespace {

using cost::ConstantSet;
using cost::SetClass;
using validate::KernelCase;

constexpr const char* kGemmFile = "op_aiconfigurator_gemm.csv";
constexpr const char* kAttentionFile = "op_aiconfigurator_attention.csv";
constexpr const char* kMoeFile = "op_aiconfigurator_moe.csv";
constexpr const char* kFlashFile = "op_flash_attention_tflops.csv";
constexpr const char* kVidurFile = "op_vidur_linear_ops.csv";
constexpr const char* kCompassFile = "op_llmcompass_operators.csv";
constexpr const char* kPeakFile = "op_stas00_mamf_gemm.csv";

struct ChipName {
  const char* id;
  const char* family;
};
constexpr ChipName kA100{"nvidia-a100-sxm-80", "nvidia-ampere"};
constexpr ChipName kH100{"nvidia-h100-sxm", "nvidia-hopper"};

ConstantSet set_for(SetClass set_class, ChipName chip, Arithmetic arithmetic, std::string variant = {}) {
  ConstantSet s;
  s.set_class = set_class;
  s.chip = chip.id;
  s.family = chip.family;
  s.arithmetic = arithmetic;
  s.variant = std::move(variant);
  return s;
}

std::function<bool(const KernelCase&)> of(ChipName chip, std::string set, std::string in_group = {}) {
  return [chip, set = std::move(set), in_group = std::move(in_group)](const KernelCase& c) {
    return c.chip->id == chip.id && c.set == set && c.group.find(in_group) != std::string::npos;
  };
}

// The rate of the last cache is only seen through small weights: kept near what memory benchmarks of these chips show (3 times
// DRAM).
std::vector<Free> gemm_free() {
  return {{"peak_share", 0.8, 0.2, 1.0},    {"memory_share", 0.8, 0.2, 1.0},     {"fixed", 2e-6, 1e-7, 3e-5},
          {"fill", 1e-6, 1e-8, 6e-6},       {"tile_epilogue", 5e-7, 1e-8, 1e-5}, {"l2_ratio", 3, 2.5, 3.5},
          {"tile_feed", 0.014, 0.006, 0.05}};
}

void add_gemm(std::vector<Job>& jobs) {
  for (const ChipName chip : {kA100, kH100}) {
    Job j{set_for(SetClass::kGemm, chip, Arithmetic::kBf16),
          gemm_free(),
          false,
          kGemmFile,
          "bfloat16, TensorRT-LLM and vLLM",
          of(chip, "gemm bf16")};
    jobs.push_back(std::move(j));
  }
  jobs.push_back({set_for(SetClass::kGemm, kA100, Arithmetic::kBf16, "sustained"), gemm_free(), false, kVidurFile,
                  "products of Llama, Qwen, InternLM and Phi layers", of(kA100, "gemm bf16 sustained")});
  Job fp8{set_for(SetClass::kGemm, kH100, Arithmetic::kFp8),
          gemm_free(),
          false,
          kGemmFile,
          "fp8, TensorRT-LLM",
          of(kH100, "gemm fp8")};
  fp8.free.push_back({"activation_cast", 5, 0.5, 20});
  jobs.push_back(fp8);
  Job block{set_for(SetClass::kGemm, kH100, Arithmetic::kFp8, "block"),
            gemm_free(),
            false,
            kGemmFile,
            "fp8_block, TensorRT-LLM",
            of(kH100, "gemm fp8 block")};
  block.free.push_back({"activation_cast", 5, 0.5, 20});
  jobs.push_back(block);
  Job sq{set_for(SetClass::kGemm, kA100, Arithmetic::kInt8),
         gemm_free(),
         false,
         kGemmFile,
         "SmoothQuant int8, TensorRT-LLM",
         of(kA100, "gemm int8")};
  sq.free.push_back({"activation_cast", 1, 0.01, 20});
  jobs.push_back(sq);
  Job wo{set_for(SetClass::kGemmWeightOnly, kA100, Arithmetic::kBf16),
         gemm_free(),
         false,
         kGemmFile,
         "int8 and int4 weights, TensorRT-LLM",
         of(kA100, "gemm_weight_only bf16")};
  jobs.push_back(wo);
}

void add_attention(std::vector<Job>& jobs) {
  const std::vector<Free> prefill = {{"fixed", 12e-6, 1e-6, 1e-4},   {"memory_share", 1.3, 0.3, 20},
                                     {"peak_share", 0.7, 0.1, 1.0},  {"exponential_share", 0.86, 0.3, 3},
                                     {"extra_tokens", 350, 1, 3000}, {"tail", 0.4, 0.01, 2}};
  const std::vector<Free> decode = {{"fixed", 10e-6, 1e-6, 1e-4},      {"cold_fixed", 28e-6, 1e-7, 1e-4},
                                    {"l2_multiple", 3, 0.1, 30},       {"memory_share", 0.95, 0.3, 1.2},
                                    {"split_fixed", 2e-6, 1e-8, 3e-5}, {"per_wave", 5e-7, 1e-9, 1e-5}};
  jobs.push_back({set_for(SetClass::kAttentionPrefill, kA100, Arithmetic::kBf16, "engine"), prefill, false, kAttentionFile,
                  "prefill bfloat16, TensorRT-LLM", of(kA100, "attention_prefill bf16")});
  jobs.push_back({set_for(SetClass::kAttentionPrefill, kH100, Arithmetic::kBf16, "engine"), prefill, false, kAttentionFile,
                  "prefill bfloat16, TensorRT-LLM", of(kH100, "attention_prefill bf16")});
  jobs.push_back({set_for(SetClass::kAttentionPrefill, kH100, Arithmetic::kFp8, "engine"), prefill, false, kAttentionFile,
                  "prefill fp8, TensorRT-LLM", of(kH100, "attention_prefill fp8")});
  for (const char* kind : {"multi_head", "grouped"}) {
    jobs.push_back({set_for(SetClass::kAttentionDecode, kH100, Arithmetic::kBf16, kind), decode, false, kAttentionFile,
                    std::string("decode bfloat16, ") + kind, of(kH100, std::string("attention_decode ") + kind + " bf16")});
    jobs.push_back({set_for(SetClass::kAttentionDecode, kH100, Arithmetic::kFp8, kind), decode, false, kAttentionFile,
                    std::string("decode fp8, ") + kind, of(kH100, std::string("attention_decode ") + kind + " fp8")});
  }
  jobs.push_back({set_for(SetClass::kAttentionDecode, kA100, Arithmetic::kBf16, "multi_head"), decode, false, kAttentionFile,
                  "decode bfloat16, multi_head", of(kA100, "attention_decode multi_head bf16")});
  // All rows have the same number of tokens, so a fixed time and the traffic of a token cannot be told apart: a launch is
  // assumed.
  std::vector<Free> flash = prefill;
  flash.erase(flash.begin());
  for (const char* kind : {"flash1", "flash2"}) {
    Job j{set_for(SetClass::kAttentionPrefill, kA100, Arithmetic::kBf16, kind),
          flash,
          false,
          kFlashFile,
          std::string("forward and backward, ") + kind,
          of(kA100, std::string("attention_prefill ") + kind)};
    j.set.values = {{"fixed", 1e-5},
                    {"backward_flop", 2.9}};  // backward at 0.86 of the forward rate: FlashAttention-2 paper, 63 against 73 %
    jobs.push_back(j);
  }
}

void add_streams(std::vector<Job>& jobs) {
  for (const char* kind : {"elementwise", "activation", "rope", "norm", "embedding"}) {
    jobs.push_back({set_for(SetClass::kStream, kA100, Arithmetic::kBf16, std::string(kind) + " simple"),
                    {{"memory_share", 0.5, 0.03, 1.5}, {"fixed", 3e-6, 1e-7, 3e-5}},
                    false,
                    kVidurFile,
                    kind,
                    of(kA100, std::string("stream ") + kind + " simple")});
  }
  for (const char* kind : {"activation", "norm", "softmax"}) {
    jobs.push_back({set_for(SetClass::kStream, kA100, Arithmetic::kBf16, kind),
                    {{"memory_share", 0.8, 0.03, 1.5}, {"eager_fixed", 2e-5, 1e-6, 1e-4}},
                    false,
                    kCompassFile,
                    kind,
                    of(kA100, std::string("stream ") + kind)});
    jobs.back().set.values = {{"fixed", 2e-6}};
  }
}

void add_moe(std::vector<Job>& jobs) {
  const std::vector<Free> moe = {{"peak_share", 0.8, 0.2, 1.0}, {"memory_share", 0.8, 0.2, 1.2}, {"fixed", 13e-6, 1e-7, 1e-4}};
  const std::vector<Free> cast = {{"peak_share", 0.8, 0.2, 1.0},
                                  {"memory_share", 0.8, 0.2, 1.2},
                                  {"fixed", 13e-6, 1e-7, 1e-4},
                                  {"activation_cast", 5, 0.01, 40}};
  jobs.push_back({set_for(SetClass::kGroupedGemm, kH100, Arithmetic::kBf16), moe, false, kMoeFile, "bfloat16",
                  of(kH100, "grouped_gemm bf16")});
  jobs.push_back({set_for(SetClass::kGroupedGemm, kA100, Arithmetic::kBf16), moe, false, kMoeFile, "bfloat16",
                  of(kA100, "grouped_gemm bf16")});
  jobs.push_back({set_for(SetClass::kGroupedGemm, kH100, Arithmetic::kBf16, "weight_only"), moe, false, kMoeFile, "w4a16_mxfp4",
                  of(kH100, "grouped_gemm bf16 weight_only")});
  jobs.push_back(
      {set_for(SetClass::kGroupedGemm, kH100, Arithmetic::kFp8), cast, false, kMoeFile, "fp8", of(kH100, "grouped_gemm fp8")});
  jobs.push_back({set_for(SetClass::kGroupedGemm, kH100, Arithmetic::kFp8, "block"), cast, false, kMoeFile, "fp8_block",
                  of(kH100, "grouped_gemm fp8 block")});
}

// The best product that anybody found on a chip, as a share of its peak: all that is known of chips without kernel tables. The
// other constants are inherited. Blackwell in 8 bits is left to the constants of Hopper: its best shapes are far above ordinary
// ones.
void add_peaks(std::vector<Job>& jobs) {
  const std::vector<std::pair<ChipName, Arithmetic>> peaks = {{{"nvidia-b200-sxm", "nvidia-blackwell"}, Arithmetic::kBf16},
                                                              {{"nvidia-gb200-gpu", "nvidia-blackwell"}, Arithmetic::kBf16},
                                                              {{"nvidia-b300-sxm", "nvidia-blackwell"}, Arithmetic::kBf16},
                                                              {{"amd-mi300x", "amd-cdna3"}, Arithmetic::kBf16},
                                                              {{"amd-mi325x", "amd-cdna3"}, Arithmetic::kBf16},
                                                              {{"amd-mi355x", "amd-cdna4"}, Arithmetic::kBf16},
                                                              {{"intel-gaudi2", "intel-gaudi"}, Arithmetic::kBf16},
                                                              {{"intel-gaudi2", "intel-gaudi"}, Arithmetic::kFp8},
                                                              {{"intel-gaudi3", "intel-gaudi"}, Arithmetic::kBf16},
                                                              {{"intel-gaudi3", "intel-gaudi"}, Arithmetic::kFp8}};
  for (const auto& [chip, arithmetic] : peaks) {
    Job j{set_for(SetClass::kGemm, chip, arithmetic),
          {},
          true,
          kPeakFile,
          "best shape found",
          of(chip, std::string("gemm ") + std::string(name(arithmetic)))};
    j.set.note = "partial";
    jobs.push_back(std::move(j));
  }
}

}  // namespace

std::vector<Job> all_jobs() {
  std::vector<Job> jobs;
  add_gemm(jobs);
  add_streams(jobs);
  add_attention(jobs);
  add_moe(jobs);
  add_peaks(jobs);
  return jobs;
}

std::string job_note(const Job& job) {
  return "Best product found on this chip as a share of its peak; the other constants are inherited. " + job.where + ".";
}

}  // namespace rooftree::fit

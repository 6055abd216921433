#include <algorithm>
#include <array>

#include "validate/adapters.h"
#include "validate/e2e_cases.h"

namespace rooftree::validate {
namespace {

struct KernelFile {
  std::string_view file;
  std::unique_ptr<KernelAdapter> (*make)();
};
constexpr std::array<KernelFile, 9> kKernelFiles = {{
    {"op_aiconfigurator_gemm.csv", aiconfigurator_gemm},
    {"op_aiconfigurator_attention.csv", aiconfigurator_attention},
    {"op_aiconfigurator_moe.csv", aiconfigurator_moe},
    {"op_vidur_linear_ops.csv", vidur_linear_ops},
    {"op_llmcompass_operators.csv", llmcompass_operators},
    {"op_llmcompass_gpt3_layer.csv", llmcompass_gpt3_layer},
    {"op_flash_attention_tflops.csv", flash_attention_tflops},
    {"op_stas00_mamf_gemm.csv", stas00_mamf_gemm},
    {"op_google_tpu_gemm.csv", google_tpu_gemm},
}};

struct OtherFile {
  std::string_view file;
  std::unique_ptr<Adapter> (*make)();
};
constexpr std::array<OtherFile, 1> kOtherFiles = {{
    {"op_korthikanti2022_layer_time.csv", korthikanti_layer_time},
}};

}  // namespace

std::unique_ptr<KernelAdapter> make_kernel_adapter(std::string_view file_name) {
  for (const KernelFile& f : kKernelFiles) {
    if (f.file == file_name) return f.make();
  }
  return nullptr;
}

std::unique_ptr<Adapter> make_adapter(std::string_view file_name) {
  if (auto kernel = make_kernel_adapter(file_name)) return kernel;
  for (const OtherFile& f : kOtherFiles) {
    if (f.file == file_name) return f.make();
  }
  return whole_model(file_name);
}

std::vector<std::string_view> known_files() {
  std::vector<std::string_view> names;
  for (const KernelFile& f : kKernelFiles) names.push_back(f.file);
  for (const OtherFile& f : kOtherFiles) names.push_back(f.file);
  for (const std::string_view file : e2e_files()) names.push_back(file);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace rooftree::validate

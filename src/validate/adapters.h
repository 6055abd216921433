#pragma once

// The adapters, one factory per kind of file. registry.cc maps file names to them.

#include <memory>

#include "validate/kernel_case.h"
#include "validate/validate.h"

namespace rooftree::validate {

std::unique_ptr<KernelAdapter> aiconfigurator_gemm();
std::unique_ptr<KernelAdapter> aiconfigurator_attention();
std::unique_ptr<KernelAdapter> aiconfigurator_moe();
std::unique_ptr<KernelAdapter> vidur_linear_ops();
std::unique_ptr<KernelAdapter> llmcompass_operators();
std::unique_ptr<KernelAdapter> llmcompass_gpt3_layer();
std::unique_ptr<KernelAdapter> flash_attention_tflops();
std::unique_ptr<KernelAdapter> stas00_mamf_gemm();
std::unique_ptr<KernelAdapter> google_tpu_gemm();
std::unique_ptr<Adapter> korthikanti_layer_time();

// Whole models on one chip; null for other files.
std::unique_ptr<Adapter> whole_model(std::string_view file_name);

// The kernel adapter of a file, for tools/fit; null for other files.
std::unique_ptr<KernelAdapter> make_kernel_adapter(std::string_view file_name);

}  // namespace rooftree::validate

#include "validate/e2e_text.h"

#include <gtest/gtest.h>

#include "machine/catalog.h"

namespace rooftree::validate {
namespace {

TEST(E2eText, WordsKeepNumbersAndDropPunctuation) {
  EXPECT_EQ(words_of("NVIDIA RTX 4070 Ti SUPER"), (std::vector<std::string>{"nvidia", "rtx", "4070", "ti", "super"}));
  EXPECT_EQ(words_of("A100-SXM4_40GB"), (std::vector<std::string>{"a100", "sxm4", "40gb"}));
  EXPECT_EQ(words_of("Llama-3.1-8B."), (std::vector<std::string>{"llama", "3.1", "8b"}));
  EXPECT_EQ(words_of("M1 Max 32\xE2\x80\x91"
                     "Core GPU"),
            (std::vector<std::string>{"m1", "max", "32", "core", "gpu"}));
  EXPECT_TRUE(words_of(" ... ").empty());
}

TEST(E2eText, WeightFormats) {
  const auto type = [](std::string_view text) { return parse_weight_format(text).value().weights; };
  EXPECT_EQ(type("Q4_K_M"), DType::kQ4KM);
  EXPECT_EQ(type("8B F16"), DType::kF16);
  EXPECT_EQ(type("70B Q4_K_M"), DType::kQ4KM);
  EXPECT_EQ(type("fp16"), DType::kF16);
  EXPECT_EQ(type("bf16"), DType::kBf16);
  EXPECT_EQ(type("int8 weight-only"), DType::kInt8);
  EXPECT_EQ(type("int4 weight-only"), DType::kInt4);
  EXPECT_EQ(type("int4 weight-only G=32"), DType::kInt4Group32);
  EXPECT_EQ(type("ggml-org/Qwen2.5-Coder-7B-Q8_0-GGUF"), DType::kQ8_0);
  EXPECT_EQ(type("gemma3 4B Q4_0"), DType::kQ4_0);
  const WeightFormat mxfp4 = parse_weight_format("gpt-oss 20B MXFP4 MoE").value();
  EXPECT_EQ(mxfp4.weights, DType::kQ8_0);
  EXPECT_EQ(mxfp4.experts, DType::kMxfp4);
}

TEST(E2eText, WeightFormatsRefused) {
  EXPECT_FALSE(parse_weight_format(""));
  EXPECT_FALSE(parse_weight_format("Q9_Z"));
  EXPECT_FALSE(parse_weight_format("8B"));
  EXPECT_FALSE(parse_weight_format("F16 Q4_0"));
  EXPECT_NE(parse_weight_format("F16 Q4_0").error().message.find("both"), std::string::npos);
}

// The true bits of a mixed file: Llama-3.1-8B Q4_K_M is published as 4.58 GiB.
TEST(E2eText, MixedFileBits) {
  const double gib = storage(DType::kQ4KM, 8.030e9).value() / 1073741824.0;
  EXPECT_NEAR(gib, 4.58, 0.01);
}

TEST(E2eText, BenchTests) {
  const auto equal = [](std::string_view text, BenchTest want) {
    const auto got = parse_bench_test(text);
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(got->prompt, want.prompt);
    EXPECT_EQ(got->generated, want.generated);
    EXPECT_EQ(got->depth, want.depth);
  };
  equal("pp512", {512, 0, 0});
  equal("tg128", {0, 128, 0});
  equal("pp512+tg128", {512, 128, 0});
  equal("PP2048 @ d4096", {2048, 0, 4096});
  equal("tg 32 @ d0", {0, 32, 0});
}

TEST(E2eText, BenchTestsRefused) {
  for (const char* text :
       {"", "pp", "512", "pp-1", "pp0", "tgx", "pp512+pp512", "xx512", "pp512 @ 4096", "pp512 @ d-1", "pp512 @"}) {
    EXPECT_FALSE(parse_bench_test(text)) << text;
  }
}

TEST(E2eText, Devices) {
  const auto chip = [](std::string_view text) { return parse_device(text).value().chip; };
  EXPECT_EQ(chip("NVIDIA RTX PRO 6000 Blackwell"), "nvidia-rtx-pro-6000");
  EXPECT_EQ(chip("RTX 6000 Ada 48GB"), "nvidia-rtx-6000-ada");
  EXPECT_EQ(chip("RTX A6000 48GB"), "nvidia-rtx-a6000");
  EXPECT_EQ(chip("NVIDIA RTX 4070 Ti SUPER"), "nvidia-rtx-4070-ti-super");
  EXPECT_EQ(chip("4070 Ti 12GB"), "nvidia-rtx-4070-ti");
  EXPECT_EQ(chip("3080 10GB"), "nvidia-rtx-3080");
  EXPECT_EQ(chip("NVIDIA DGX Spark (GB10)"), "nvidia-gb10");
  EXPECT_EQ(chip("NVIDIA_A100-PCIE-40GB"), "nvidia-a100-pcie-40");
  EXPECT_EQ(chip("NVIDIA_A100_80GB_PCIe"), "nvidia-a100-pcie-80");
  EXPECT_EQ(chip("NVIDIA_A100-SXM4-40GB"), "nvidia-a100-sxm-40");
  EXPECT_EQ(chip("A100 SXM 80GB"), "nvidia-a100-sxm-80");
  EXPECT_EQ(chip("a100_40gb"), "nvidia-a100-sxm-40");
  EXPECT_EQ(chip("Tesla_V100-PCIE-32GB"), "nvidia-v100-pcie");
  EXPECT_EQ(chip("Tesla_P4"), "nvidia-p4");
  EXPECT_EQ(chip("AMD_Instinct_MI210"), "amd-mi210");
  EXPECT_EQ(chip("AMD MI-250x"), "amd-mi250x");
  EXPECT_EQ(chip("7900 XTX"), "amd-rx-7900-xtx");
  EXPECT_EQ(chip("Apple M1"), "apple-m1");
}

// Every chip that a scoreboard's name leads to is in the catalogue, and names of one chip do not catch another.
TEST(E2eText, DevicesAreInTheCatalogue) {
  for (const char* text :
       {"RTX 4090", "L40", "L40S", "A10", "A10G", "A100", "P40", "P4", "H200 NVL", "H100 NVL", "AMD Radeon RX 7900 XT",
        "Radeon 8060S", "V100-PCIE-16GB", "M5 Max", "Apple M4", "AMD Instinct MI300A", "NVIDIA_L4", "H800"}) {
    const auto device = parse_device(text);
    ASSERT_TRUE(device) << text;
    const auto machine = machine::Catalog::builtin().find(device->chip);
    EXPECT_TRUE(machine) << device->chip;
  }
  EXPECT_EQ(parse_device("L40S 48GB")->chip, "nvidia-l40s");
  EXPECT_EQ(parse_device("L40 48GB")->chip, "nvidia-l40");
  EXPECT_EQ(parse_device("A10 24GB")->chip, "nvidia-a10");
  EXPECT_EQ(parse_device("Tesla P40")->chip, "nvidia-p40");
  EXPECT_EQ(parse_device("RX 7900 XTX")->chip, "amd-rx-7900-xtx");
}

TEST(E2eText, DeviceFacts) {
  const DeviceName ultra = parse_device("M2 Ultra 76c 192GB").value();
  EXPECT_EQ(ultra.chip, "apple-m2-ultra");
  EXPECT_EQ(ultra.gpu_cores, 76);
  EXPECT_EQ(ultra.memory_gb, 192);
  const DeviceName max = parse_device(
                             "M1 Max 32\xE2\x80\x91"
                             "Core GPU 64GB")
                             .value();
  EXPECT_EQ(max.gpu_cores, 32);
  const DeviceName capped = parse_device("A100-80GB (8x, 330 W cap, hybrid cube mesh)").value();
  EXPECT_EQ(capped.chip, "nvidia-a100-sxm-80");
  EXPECT_EQ(capped.power_cap_w, 330);
  EXPECT_FALSE(capped.gpu_cores);
}

TEST(E2eText, DevicesRefused) {
  EXPECT_FALSE(parse_device(""));
  EXPECT_FALSE(parse_device("abacus 9000"));
  EXPECT_FALSE(parse_device("Ti SUPER"));
  EXPECT_EQ(parse_device("abacus").error().code, ErrorCode::kNotFound);
}

TEST(E2eText, Models) {
  EXPECT_EQ(parse_model("LLaMA 7B (v2)").value(), "llama-2-7b");
  EXPECT_EQ(parse_model("Llama 2 7B").value(), "llama-2-7b");
  EXPECT_EQ(parse_model("Llama2-70B").value(), "llama-2-70b");
  EXPECT_EQ(parse_model("Llama-3.1-8B").value(), "llama-3.1-8b");
  EXPECT_EQ(parse_model("8B Q4_K_M", "LLaMA 3 \xF0\x9F\xA6\x99:").value(), "llama-3-8b");
  EXPECT_EQ(parse_model("ggml-org/gpt-oss-120b-GGUF").value(), "gpt-oss-120b");
  EXPECT_EQ(parse_model("gpt-oss 20B MXFP4 MoE").value(), "gpt-oss-20b");
  EXPECT_EQ(parse_model("qwen3moe 30B.A3B Q8_0").value(), "qwen3-30b-a3b");
  EXPECT_EQ(parse_model("ggml-org/Qwen3-Coder-30B-A3B-Instruct-Q8_0-GGUF").value(), "qwen3-30b-a3b");
  EXPECT_EQ(parse_model("ggml-org/gemma-3-4b-it-qat-GGUF").value(), "gemma-3-4b");
  EXPECT_EQ(parse_model("CodeLlama-34B").value(), "codellama-34b");
}

TEST(E2eText, ModelsRefused) {
  EXPECT_FALSE(parse_model(""));
  EXPECT_FALSE(parse_model("8B Q4_K_M"));
  EXPECT_FALSE(parse_model("Llama-2-70B + 7B draft speculative"));
  EXPECT_FALSE(parse_model("Parrot-3B"));
}

TEST(E2eText, Numbers) {
  EXPECT_EQ(parse_number(" 12.5 ", "x").value(), 12.5);
  EXPECT_FALSE(parse_number("", "x"));
  EXPECT_FALSE(parse_number("12 GB", "x"));
  EXPECT_NE(parse_number("abc", "tokens_per_s").error().message.find("tokens_per_s"), std::string::npos);
  EXPECT_TRUE(is_blank(" \t"));
  EXPECT_FALSE(is_blank("0"));
}

}  // namespace
}  // namespace rooftree::validate

#pragma once

// The free-text columns of the whole-model measurements, read into facts: quantisation names, benchmark tests, device names and
// model names as people write them on scoreboards. Pure functions; an expression that is not understood is an error that names
// what was found and what is known, never a guess.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace rooftree::validate {

// Lower-case words of a text. Letters, digits and '.' inside numbers belong to words; everything else separates ("RTX 4070 Ti
// SUPER" -> rtx 4070 ti super; "A100-SXM4_40GB" -> a100 sxm4 40gb; "3.1-8B" -> 3.1 8b). Bytes outside ASCII separate too.
[[nodiscard]] std::vector<std::string> words_of(std::string_view text);

// How the weights of a run are stored.
struct WeightFormat {
  DType weights = DType::kBf16;
  std::optional<DType> experts;  // where expert matrices have a type of their own (gpt-oss: MXFP4 experts, the rest 8-bit)
};

// A quantisation as a GGUF file or a scoreboard names it: "Q4_K_M", "8B F16", "int8 weight-only", "int4 weight-only G=32",
// "MXFP4", "fp16". Words that are no type are ignored as long as exactly one type is named.
Result<WeightFormat> parse_weight_format(std::string_view text);

// A llama-bench test: "pp512", "tg128", "pp512+tg128" (prompt then generation), "pp2048 @ d4096" (with so much context already
// in the cache).
struct BenchTest {
  std::int64_t prompt = 0;     // tokens of the prompt; 0 = none
  std::int64_t generated = 0;  // tokens generated; 0 = none
  std::int64_t depth = 0;      // tokens in the cache before
};
Result<BenchTest> parse_bench_test(std::string_view text);

// A device as a scoreboard names it.
struct DeviceName {
  std::string chip;                   // catalogue id; that of the largest variant where core counts differ
  std::optional<int> gpu_cores;       // "76-Core GPU", "76c"
  std::optional<double> memory_gb;    // "24GB"
  std::optional<double> power_cap_w;  // "330 W cap"
};
Result<DeviceName> parse_device(std::string_view text);

// Catalogue id of a model as a scoreboard names it ("LLaMA 7B (v2)", "ggml-org/gpt-oss-20b-GGUF", "qwen3moe 30B.A3B Q8_0").
// `context` is another column that names the family ("LLaMA 3").
Result<std::string> parse_model(std::string_view text, std::string_view context = {});

// One number of a column; empty text is an error here, so ask `is_blank` first where a column may be empty.
Result<double> parse_number(std::string_view text, std::string_view column);
[[nodiscard]] bool is_blank(std::string_view text);

}  // namespace rooftree::validate

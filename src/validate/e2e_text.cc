#include "validate/e2e_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>
#include <span>

namespace rooftree::validate {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool has(std::span<const std::string> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool has_all(std::span<const std::string> words, std::string_view required) {
  std::size_t at = 0;
  while (at < required.size()) {
    const std::size_t end = std::min(required.find(' ', at), required.size());
    if (!has(words, required.substr(at, end - at))) return false;
    at = end + 1;
  }
  return true;
}

// The whole of `text` as a number; nothing if a character is left over.
std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

struct Rule {
  std::string_view required;  // words, all of which must be there
  std::string_view id;
};

// First match wins: longer names before the names that they contain.
template <std::size_t N>
std::optional<std::string_view> first_match(const std::array<Rule, N>& rules, std::span<const std::string> words) {
  for (const Rule& rule : rules) {
    if (has_all(words, rule.required)) return rule.id;
  }
  return std::nullopt;
}

template <std::size_t N>
std::string ids_of(const std::array<Rule, N>& rules) {
  std::string out;
  std::string_view last;
  for (const Rule& rule : rules) {
    if (rule.id == last) continue;
    if (!out.empty()) out += ", ";
    out += rule.id;
    last = rule.id;
  }
  return out;
}

constexpr std::array<Rule, 94> kDevices = {{
    {"rtx pro 6000", "nvidia-rtx-pro-6000"},
    {"rtx 6000 ada", "nvidia-rtx-6000-ada"},
    {"rtx 5000 ada", "nvidia-rtx-5000-ada"},
    {"rtx 4000 ada", "nvidia-rtx-4000-ada"},
    {"rtx a5000", "nvidia-rtx-a5000"},
    {"rtx a4000", "nvidia-rtx-a4000"},
    {"a6000", "nvidia-rtx-a6000"},
    {"5090", "nvidia-rtx-5090"},
    {"5080", "nvidia-rtx-5080"},
    {"5070 ti", "nvidia-rtx-5070-ti"},
    {"5070", "nvidia-rtx-5070"},
    {"5060 ti", "nvidia-rtx-5060-ti"},
    {"4090", "nvidia-rtx-4090"},
    {"4080 super", "nvidia-rtx-4080-super"},
    {"4080", "nvidia-rtx-4080"},
    {"4070 ti super", "nvidia-rtx-4070-ti-super"},
    {"4070 ti", "nvidia-rtx-4070-ti"},
    {"4060 ti", "nvidia-rtx-4060-ti"},
    {"3090 ti", "nvidia-rtx-3090-ti"},
    {"3090", "nvidia-rtx-3090"},
    {"3080 ti", "nvidia-rtx-3080-ti"},
    {"3080", "nvidia-rtx-3080"},
    {"3070", "nvidia-rtx-3070"},
    {"3060", "nvidia-rtx-3060"},
    {"2080 ti", "nvidia-rtx-2080-ti"},
    {"1080 ti", "nvidia-gtx-1080-ti"},
    {"orin", "nvidia-jetson-agx-orin"},
    {"dgx spark", "nvidia-gb10"},
    {"gb10", "nvidia-gb10"},
    {"gb300", "nvidia-gb300-gpu"},
    {"gb200", "nvidia-gb200-gpu"},
    {"gh200", "nvidia-gh200"},
    {"b300", "nvidia-b300-sxm"},
    {"b200", "nvidia-b200-sxm"},
    {"h200 nvl", "nvidia-h200-nvl"},
    {"h200", "nvidia-h200-sxm"},
    {"h800", "nvidia-h800-sxm"},
    {"h100 nvl", "nvidia-h100-nvl"},
    {"h100 pcie", "nvidia-h100-pcie"},
    {"h100", "nvidia-h100-sxm"},
    {"a100 pcie 40gb", "nvidia-a100-pcie-40"},
    {"a100 pcie", "nvidia-a100-pcie-80"},
    {"a100 40gb", "nvidia-a100-sxm-40"},
    {"a100 sxm4 40gb", "nvidia-a100-sxm-40"},
    {"a100", "nvidia-a100-sxm-80"},
    {"h20", "nvidia-h20"},
    {"a30", "nvidia-a30"},
    {"a10", "nvidia-a10"},
    {"a10g", "nvidia-a10g"},
    {"a40", "nvidia-a40"},
    {"l40s", "nvidia-l40s"},
    {"l40", "nvidia-l40"},
    {"l4", "nvidia-l4"},
    {"t4", "nvidia-t4"},
    {"v100 pcie 16gb", "nvidia-v100-pcie-16"},
    {"v100 pcie", "nvidia-v100-pcie"},
    {"v100", "nvidia-v100-sxm2"},
    {"p100 pcie", "nvidia-p100-pcie"},
    {"p100", "nvidia-p100-sxm2"},
    {"p40", "nvidia-p40"},
    {"p4", "nvidia-p4"},
    {"mi355x", "amd-mi355x"},
    {"mi350x", "amd-mi350x"},
    {"mi325x", "amd-mi325x"},
    {"mi300x", "amd-mi300x"},
    {"mi300a", "amd-mi300a"},
    {"mi250x", "amd-mi250x"},
    {"mi 250x", "amd-mi250x"},
    {"mi250", "amd-mi250"},
    {"mi210", "amd-mi210"},
    {"mi100", "amd-mi100"},
    {"7900 xtx", "amd-rx-7900-xtx"},
    {"7900 xt", "amd-rx-7900-xt"},
    {"radeon vii", "amd-radeon-vii"},
    {"ai max 395", "amd-ryzen-ai-max-395"},
    {"8060s", "amd-ryzen-ai-max-395"},
    {"m1 ultra", "apple-m1-ultra"},
    {"m1 max", "apple-m1-max"},
    {"m1 pro", "apple-m1-pro"},
    {"m1", "apple-m1"},
    {"m2 ultra", "apple-m2-ultra"},
    {"m2 max", "apple-m2-max"},
    {"m2 pro", "apple-m2-pro"},
    {"m2", "apple-m2"},
    {"m3 ultra", "apple-m3-ultra"},
    {"m3 max", "apple-m3-max"},
    {"m3 pro", "apple-m3-pro"},
    {"m3", "apple-m3"},
    {"m4 max", "apple-m4-max"},
    {"m4 pro", "apple-m4-pro"},
    {"m4", "apple-m4"},
    {"m5 max", "apple-m5-max"},
    {"m5 pro", "apple-m5-pro"},
    {"m5", "apple-m5"},
}};

constexpr std::array<Rule, 43> kModels = {{
    {"gpt oss 120b", "gpt-oss-120b"},
    {"gpt oss 20b", "gpt-oss-20b"},
    {"qwen3 coder 30b a3b", "qwen3-30b-a3b"},
    {"qwen3 30b a3b", "qwen3-30b-a3b"},
    {"qwen3moe 30b.a3b", "qwen3-30b-a3b"},
    {"qwen3 32b", "qwen3-32b"},
    {"qwen3 14b", "qwen3-14b"},
    {"qwen3 8b", "qwen3-8b"},
    {"qwen3 4b", "qwen3-4b"},
    {"qwen2.5 72b", "qwen2.5-72b"},
    {"qwen2.5 32b", "qwen2.5-32b"},
    {"qwen2.5 14b", "qwen2.5-14b"},
    {"qwen2.5 coder 7b", "qwen2.5-7b"},
    {"qwen2.5 7b", "qwen2.5-7b"},
    {"qwen2 7b", "qwen2.5-7b"},  // llama.cpp names Qwen2 and Qwen2.5 alike: one architecture, equal shapes
    {"gemma 3 27b", "gemma-3-27b"},
    {"gemma 3 12b", "gemma-3-12b"},
    {"gemma 3 4b", "gemma-3-4b"},
    {"gemma3 4b", "gemma-3-4b"},
    {"gemma 3 1b", "gemma-3-1b"},
    {"glm 4.7 flash", "glm-4.7-flash"},
    {"deepseek2 30b.a3b", "glm-4.7-flash"},  // llama.cpp's architecture name for it
    {"codellama 34b", "codellama-34b"},
    {"llama 3.1 405b", "llama-3.1-405b"},
    {"llama 3.1 70b", "llama-3.1-70b"},
    {"llama 3.1 8b", "llama-3.1-8b"},
    {"llama 3.3 70b", "llama-3.3-70b"},
    {"llama 3.2 3b", "llama-3.2-3b"},
    {"llama 3.2 1b", "llama-3.2-1b"},
    {"llama 3 70b", "llama-3-70b"},
    {"llama 3 8b", "llama-3-8b"},
    {"llama2 70b", "llama-2-70b"},
    {"llama2 13b", "llama-2-13b"},
    {"llama2 7b", "llama-2-7b"},
    {"llama 2 70b", "llama-2-70b"},
    {"llama 2 13b", "llama-2-13b"},
    {"llama 2 7b", "llama-2-7b"},
    {"llama 7b v2", "llama-2-7b"},
    {"llama 13b v2", "llama-2-13b"},
    {"llama 70b v2", "llama-2-70b"},
    {"llama 65b", "llama-65b"},
    {"llama 13b", "llama-13b"},
    {"llama 7b", "llama-7b"},
}};

std::optional<DType> weight_type(std::string_view word) {
  struct Spelling {
    std::string_view word;
    DType type;
  };
  // K-quants by their file names: the plain "q6_k" file has one type throughout, the others mix (see dtype.cc).
  static constexpr std::array<Spelling, 24> kSpellings = {{
      {"f32", DType::kF32},      {"fp32", DType::kF32},     {"f16", DType::kF16},      {"fp16", DType::kF16},
      {"bf16", DType::kBf16},    {"int8", DType::kInt8},    {"fp8", DType::kFp8E4m3},  {"int4", DType::kInt4},
      {"mxfp4", DType::kMxfp4},  {"q8_0", DType::kQ8_0},    {"q4_0", DType::kQ4_0},    {"q4_1", DType::kQ4_1},
      {"q5_0", DType::kQ5_0},    {"q5_1", DType::kQ5_1},    {"q2_k", DType::kQ2K},     {"q4_k_s", DType::kQ4KS},
      {"q4_k_m", DType::kQ4KM},  {"q5_k_s", DType::kQ5KS},  {"q5_k_m", DType::kQ5KM},  {"q6_k", DType::kQ6K},
      {"iq4_nl", DType::kIq4Nl}, {"iq4_xs", DType::kIq4Xs}, {"q4f16_1", DType::kQ4_0}, {"nvfp4", DType::kNvfp4},
  }};
  for (const Spelling& s : kSpellings) {
    if (s.word == word) return s.type;
  }
  return std::nullopt;
}

// Words that keep '_' ("q4_k_m"), lower case.
std::vector<std::string> type_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    if (is_letter(c) || is_digit(c) || c == '_' || c == '=') {
      word += lower(c);
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

}  // namespace

bool is_blank(std::string_view text) { return trimmed(text).empty(); }

Result<double> parse_number(std::string_view text, std::string_view column) {
  const std::optional<double> value = number(trimmed(text));
  if (!value) return Error{ErrorCode::kParse, fmt::format("column {}: '{}' is not a number", column, text)};
  return *value;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto flush = [&] {
    while (!word.empty() && word.back() == '.') word.pop_back();
    if (!word.empty()) words.push_back(word);
    word.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_letter(c) || is_digit(c) || (c == '.' && !word.empty())) {
      word += lower(c);
    } else {
      flush();
    }
  }
  flush();
  return words;
}

Result<WeightFormat> parse_weight_format(std::string_view text) {
  std::optional<DType> type;
  bool group_32 = false;
  for (const std::string& word : type_words(text)) {
    if (word == "g=32") group_32 = true;
    const std::optional<DType> found = weight_type(word);
    if (!found) continue;
    if (type && *type != *found) {
      return Error{ErrorCode::kParse,
                   fmt::format("quantisation '{}': names both {} and {}; one type expected", text, name(*type), name(*found))};
    }
    type = found;
  }
  if (!type) {
    return Error{
        ErrorCode::kParse,
        fmt::format("quantisation '{}': no known type; expected one such as F16, Q8_0, Q4_0, Q4_K_M, MXFP4, int8, int4", text)};
  }
  WeightFormat format;
  format.weights = *type;
  if (*type == DType::kInt4 && group_32) format.weights = DType::kInt4Group32;
  if (*type == DType::kMxfp4) {
    // The published MXFP4 files keep everything but the experts in 8 bits (GGUF) or bf16 (safetensors); scoreboards of this
    // name run the GGUF.
    format.weights = DType::kQ8_0;
    format.experts = DType::kMxfp4;
  }
  return format;
}

Result<BenchTest> parse_bench_test(std::string_view text) {
  BenchTest test;
  bool any = false;
  const auto malformed = [&] {
    return Error{ErrorCode::kParse,
                 fmt::format("test '{}': expected ppN, tgN, ppN+tgN, each optionally followed by '@ dN'", text)};
  };
  std::string_view rest = trimmed(text);
  const std::size_t at = rest.find('@');
  if (at != std::string_view::npos) {
    std::string_view depth = trimmed(rest.substr(at + 1));
    if (depth.empty() || lower(depth.front()) != 'd') return malformed();
    const auto value = whole_number(depth.substr(1));
    if (!value || *value < 0) return malformed();
    test.depth = *value;
    rest = trimmed(rest.substr(0, at));
  }
  while (!rest.empty()) {
    const std::size_t plus = rest.find('+');
    const std::string_view part = trimmed(rest.substr(0, plus));
    rest = plus == std::string_view::npos ? std::string_view{} : rest.substr(plus + 1);
    if (part.size() < 3) return malformed();
    const std::string kind{lower(part[0]), lower(part[1])};
    const auto value = whole_number(trimmed(part.substr(2)));
    if (!value || *value <= 0) return malformed();
    std::int64_t& field = kind == "pp" ? test.prompt : test.generated;
    if ((kind != "pp" && kind != "tg") || field != 0) return malformed();
    field = *value;
    any = true;
  }
  if (!any) return malformed();
  return test;
}

Result<DeviceName> parse_device(std::string_view text) {
  const std::vector<std::string> words = words_of(text);
  DeviceName device;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.size() > 2 && word.ends_with("gb")) {
      if (const auto value = number(word.substr(0, word.size() - 2))) device.memory_gb = *value;
    } else if (i > 0 && word == "gb") {
      if (const auto value = number(words[i - 1])) device.memory_gb = *value;
    } else if (i > 0 && (word == "core" || word == "cores")) {
      if (const auto value = whole_number(words[i - 1])) device.gpu_cores = static_cast<int>(*value);
    } else if (word.size() > 1 && word.back() == 'c') {
      if (const auto value = whole_number(std::string_view(word).substr(0, word.size() - 1)))
        device.gpu_cores = static_cast<int>(*value);
    } else if (i > 0 && word == "w") {
      if (const auto value = number(words[i - 1])) device.power_cap_w = *value;
    }
  }
  const std::optional<std::string_view> id = first_match(kDevices, words);
  if (!id) {
    return Error{ErrorCode::kNotFound, fmt::format("device '{}' is not known; known are {}", text, ids_of(kDevices))};
  }
  device.chip = *id;
  return device;
}

Result<std::string> parse_model(std::string_view text, std::string_view context) {
  std::vector<std::string> words = words_of(context);
  for (std::string& word : words_of(text)) words.push_back(std::move(word));
  if (has(words, "draft") || has(words, "speculative")) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("model '{}': speculative decoding with a draft model is not predicted", text)};
  }
  const std::optional<std::string_view> id = first_match(kModels, words);
  if (!id) return Error{ErrorCode::kNotFound, fmt::format("model '{}' is not known; known are {}", text, ids_of(kModels))};
  return std::string(*id);
}

}  // namespace rooftree::validate

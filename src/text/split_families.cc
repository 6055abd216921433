// The patterns of published tokenizers. Each is taken from the tokenizer.json or the tiktoken definition of the models named;
// which name of tokenizer.ggml.pre means which pattern, and what it implies where a file does not say, is GGUF's convention
// (github.com/ggml-org/llama.cpp, src/llama-vocab.cpp, read at 00ad355e).

#include <string_view>

#include "text/split.h"

namespace rooftree::text {
namespace {

// openai/gpt-2, src/encoder.py
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// meta-llama/Meta-Llama-3-8B; the same cuts as OpenAI's cl100k_base
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Qwen/Qwen2-7B
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Qwen/Qwen3.5: marks belong to words
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// OpenAI o200k_base
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// mistralai/Mistral-Nemo-Base-2407
constexpr std::string_view kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                                     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                                     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// deepseek-ai/deepseek-llm-7b-base: the cased letters (an older Unicode's, as the file lists them), then punctuation, then CJK
constexpr std::string_view kDeepseekLetters =
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5})"
    R"(\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba})"
    R"(\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d})"
    R"(\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4})"
    R"(\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec})"
    R"(\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128})"
    R"(\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184})"
    R"(\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b})"
    R"(\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17})"
    R"(\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2})"
    R"(\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+)";
constexpr std::string_view kDeepseekPunctuation =
    R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)";
constexpr std::string_view kDeepseekCjk = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
// deepseek-ai/DeepSeek-V3
constexpr std::string_view kDeepseek3Cjk = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr std::string_view kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLineEnd = R"([\r\n])";
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kUpTo3Digits = R"(\p{N}{1,3})";
constexpr std::string_view kAscii3Digits = "[0-9][0-9][0-9]";
// tiiuae/falcon-7b
constexpr std::string_view kFalconPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr std::string_view kDefaultPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
// bigscience/bloom
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
// CohereLabs/tiny-aya
constexpr std::string_view kDigitsFromTheRight = R"(\d{1,3}(?=(?:\d{3})*\b))";
constexpr std::string_view kLines = R"([^\n]+|[\n]+)";
// inclusionAI/Ling-lite
constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
// ByteDance-Seed/Seed-Coder-8B-Base
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
// LGAI-EXAONE/K-EXAONE: words joined by single spaces stay together
constexpr std::string_view kExaoneMoe =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
// moonshotai/Kimi-K2-Instruct, tokenization_kimi.py, its class intersections written as looks ahead
constexpr std::string_view kKimiK2 =
    R"(\p{Han}+|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::vector<SplitFamily>& families() {
  static const std::vector<SplitFamily> list = [] {
    std::vector<SplitFamily> all;
    const auto add = [&](std::initializer_list<std::string_view> names, std::vector<std::string_view> patterns,
                         SplitFamily rest = {}) {
      for (const std::string_view name : names) {
        SplitFamily family = rest;
        family.name = name;
        family.patterns = patterns;
        all.push_back(std::move(family));
      }
    };
    add({"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de", "jina-v2-es",
         "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4"},
        {kGpt2});
    add({"jina-v1-en", "jina-v2-code", "roberta-bpe"}, {kGpt2}, {.separator_ends = true});
    add({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"}, {kLlama3},
        {.ignore_merges = true, .add_bos = true});
    add({"dbrx", "smaug-bpe", "glm4", "chatglm-bpe", "cl100k"}, {kLlama3});
    add({"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2"}, {kQwen2});
    add({"qwen35"}, {kQwen35});
    add({"gpt-4o", "o200k", "llama4", "kanana2", "talkie", "minimax-m2"}, {kO200k});
    add({"tekken"}, {kTekken}, {.ignore_merges = true, .add_bos = true});
    add({"deepseek-llm"}, {kLineEnd, kDeepseekLetters, kDeepseekPunctuation, R"(\s+$)", kDeepseekCjk, kDigits});
    add({"deepseek-coder"}, {kLineEnd, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekCjk, kDigit});
    add({"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {kUpTo3Digits, kDeepseek3Cjk, kDeepseek3});
    add({"falcon"}, {kFalconPunctuation, kGpt2, kAscii3Digits});
    add({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"}, {kDigit, kGpt2});
    add({"default"}, {kDefaultPunctuation, kGpt2, kDigits, kAscii3Digits});
    add({"bloom", "poro-chat", "gpt3-finnish"}, {kBloom});
    add({"viking"}, {kBloom, kDigit});
    add({"tiny_aya", "cohere2moe"}, {kDigitsFromTheRight, kO200k});
    add({"superbpe"}, {kDigits, R"((?=(\d{3})+(?!\d)))"});
    add({"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing});
    add({"seed-coder"}, {kSeedCoder});
    add({"exaone-moe"}, {kExaoneMoe});
    add({"laguna"}, {kLines, kQwen2});
    add({"minicpm5"}, {kUpTo3Digits, kLlama3}, {.ignore_merges = true});
    add({"kimi-k2"}, {kKimiK2});
    add({"gemma4", "granite-embed-multi-311m"}, {kLines}, {.add_bos = true, .spell_bytes = false});
    add({"sarvam-moe"}, {kLines}, {.spell_bytes = false});
    return all;
  }();
  return list;
}

}  // namespace

const SplitFamily* find_split_family(std::string_view name) {
  for (const SplitFamily& family : families()) {
    if (family.name == name) return &family;
  }
  return nullptr;
}

std::vector<std::string_view> split_family_names() {
  std::vector<std::string_view> names;
  for (const SplitFamily& family : families()) names.push_back(family.name);
  return names;
}

}  // namespace rooftree::text

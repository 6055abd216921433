// Encoding speed. ROOFTREE_TOKENIZER names a .gguf or a tokenizer.json; without it a small byte-level vocabulary made here.

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "formats/gguf.h"
#include "text/tokenizer.h"

namespace {

using rooftree::text::Tokenizer;

// Letters, and merges of common English pairs.
constexpr const char* kSmall = R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6, "h": 7, "i": 8, "j": 9, "k": 10, "l": 11,
    "m": 12, "n": 13, "o": 14, "p": 15, "q": 16, "r": 17, "s": 18, "t": 19, "u": 20, "v": 21, "w": 22, "x": 23, "y": 24, "z": 25,
    "Ġ": 26, ".": 27, ",": 28, "Ċ": 29, "th": 30, "he": 31, "in": 32, "er": 33, "an": 34, "re": 35, "the": 36, "ing": 37, "Ġt": 38,
    "Ġa": 39, "Ġthe": 40, "ou": 41, "Ġw": 42, "on": 43, "and": 44, "Ġand": 45},
  "merges": ["t h", "h e", "i n", "e r", "a n", "r e", "th e", "in g", "Ġ t", "Ġ a", "Ġ the", "o u", "Ġ w", "o n", "an d",
    "Ġ and"]}})";

std::shared_ptr<const Tokenizer> tokenizer() {
  static const std::shared_ptr<const Tokenizer> made = []() -> std::shared_ptr<const Tokenizer> {
    const char* const path = std::getenv("ROOFTREE_TOKENIZER");
    if (path == nullptr) {
      auto small = Tokenizer::parse_tokenizer_json(kSmall, "", "small");
      return small ? *small : nullptr;
    }
    if (std::string_view(path).ends_with(".gguf")) {
      const auto file = rooftree::formats::GgufFile::open(path);
      if (!file) return nullptr;
      auto from = Tokenizer::from_gguf(*file);
      return from ? *from : nullptr;
    }
    auto from = Tokenizer::from_tokenizer_json(path);
    return from ? *from : nullptr;
  }();
  return made;
}

// English-like text: `distinct` words of 2 to 9 letters, drawn so that some are much more common than others.
std::string text_of(std::size_t bytes, std::uint32_t distinct) {
  std::string text;
  std::uint32_t state = 1;
  const auto next = [&] { return state = state * 1664525U + 1013904223U, state >> 8U; };
  while (text.size() < bytes) {
    const std::uint32_t rank = next() % (1 + next() % distinct);
    std::uint32_t letters = rank * 2654435761U + 12345U;
    const std::uint32_t length = 2 + (letters >> 8U) % 8;
    for (std::uint32_t i = 0; i < length; ++i) {
      text.push_back("etaoinshrdlucmfwypvbgkjqxz"[(letters >> 16U) % 26]);
      letters = letters * 1664525U + 1013904223U;
    }
    text += next() % 12 == 0 ? ". " : next() % 20 == 0 ? ",\n" : " ";
  }
  return text;
}

void encode_text(benchmark::State& state) {
  const auto t = tokenizer();
  if (t == nullptr) return state.SkipWithError("no tokenizer");
  const std::string text = text_of(static_cast<std::size_t>(state.range(0)), 20000);
  std::size_t tokens = 0;
  for (auto _ : state) {
    const auto ids = t->encode(text, {});
    tokens = ids.size();
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(text.size()));
  state.counters["bytes_per_token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
}
BENCHMARK(encode_text)->Arg(100)->Arg(10'000)->Arg(4'000'000);

// One word of a megabyte: the time should be that of a megabyte, not of its square.
void encode_one_word(benchmark::State& state) {
  const auto t = tokenizer();
  if (t == nullptr) return state.SkipWithError("no tokenizer");
  std::string word = text_of(static_cast<std::size_t>(state.range(0)), 20000);
  std::erase_if(word, [](char c) { return c < 'a' || c > 'z'; });
  for (auto _ : state) benchmark::DoNotOptimize(t->encode(word, {}).data());
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(word.size()));
}
BENCHMARK(encode_one_word)->Arg(100'000)->Arg(1'000'000);

void decode_text(benchmark::State& state) {
  const auto t = tokenizer();
  if (t == nullptr) return state.SkipWithError("no tokenizer");
  const std::string text = text_of(1'000'000, 20000);
  const auto ids = t->encode(text, {});
  for (auto _ : state) benchmark::DoNotOptimize(t->decode(ids).data());
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(decode_text);

}  // namespace

BENCHMARK_MAIN();

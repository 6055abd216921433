// Stands in for libFuzzer where the compiler has none: replays a corpus folder, then seeded random mutations of its files.
// usage: TARGET_fuzz RUNS CORPUS_DIRECTORY

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void mutate(std::string& text, std::mt19937_64& random, const std::vector<std::string>& corpus) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % std::max<std::size_t>(n, 1)); };
  const std::size_t edits = 1 + below(4);
  for (std::size_t i = 0; i < edits; ++i) {
    const std::size_t at = below(text.size() + 1);
    switch (below(6)) {
      case 0:
        if (!text.empty()) text[std::min(at, text.size() - 1)] = static_cast<char>(random());
        break;
      case 1:
        text.insert(at, 1, "{}[]\",:-+.eE019 \n\\/"[below(20)]);
        break;
      case 2:
        text.erase(at, below(16));
        break;
      case 3: {  // splice a piece of another input
        const std::string& other = corpus[below(corpus.size())];
        const std::size_t from = below(other.size() + 1);
        text.insert(at, other.substr(from, below(64)));
        break;
      }
      case 4: {  // repeat a piece of this input
        const std::string piece = text.substr(at, below(64));
        text.insert(at, piece);
        break;
      }
      default:
        text.resize(at);
        break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s RUNS CORPUS_DIRECTORY\n", argv[0]);
    return 2;
  }
  const long runs = std::strtol(argv[1], nullptr, 10);
  std::vector<std::string> corpus;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[2])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: the corpus is empty\n", argv[2]);
    return 2;
  }
  for (const std::string& text : corpus) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  }
  std::mt19937_64 random(1);
  for (long i = 0; i < runs; ++i) {
    std::string text = corpus[random() % corpus.size()];
    mutate(text, random, corpus);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  }
  std::printf("%zu corpus files and %ld mutations, no failure\n", corpus.size(), runs);
  return 0;
}

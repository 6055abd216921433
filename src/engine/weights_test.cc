// Packed weights in files: reuse, streaming under a limit, and what can go wrong with either.

#include "engine/weights.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/test_folder.h"
#include "engine/engine.h"
#include "engine/generate.h"

namespace rooftree::engine {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::vector<float>>;

constexpr const char* kDense = R"({{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {},
  "intermediate_size": {}, "num_hidden_layers": {}, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
  "hidden_act": "silu"}})";
constexpr const char* kExperts = R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64,
  "intermediate_size": 128, "moe_intermediate_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
  "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": true,
  "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})";
// Its first layer is dense: layers of two kinds and sizes.
constexpr const char* kLatent = R"({"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 64,
  "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2,
  "num_key_value_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
  "v_head_dim": 32, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 2,
  "moe_layer_freq": 1, "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
  "norm_topk_prob": false, "routed_scaling_factor": 1.0, "vocab_size": 96, "max_position_embeddings": 512,
  "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})";

std::string dense(int hidden = 256, int inner = 512, int layers = 7) { return fmt::format(kDense, hidden, inner, layers); }

EngineOptions small_options() {
  EngineOptions options;
  options.threads = 2;
  options.kv_tokens = 256;
  options.page_tokens = 16;
  options.max_rows = 32;
  return options;
}

Result<std::unique_ptr<Engine>> try_load(const std::string& config, DType weights, const EngineOptions& options,
                                         Progress* progress = nullptr, std::uint64_t seed = 1) {
  ROOFTREE_TRY(const model::Model model, model::parse_hf_config(config, "test"));
  ROOFTREE_TRY(ModelFiles files, ModelFiles::synthetic(model, weights, seed));
  return Engine::load(std::move(files), options, progress);
}

std::unique_ptr<Engine> load(const std::string& config, DType weights, const EngineOptions& options, std::uint64_t seed = 1) {
  auto engine = try_load(config, weights, options, nullptr, seed);
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return engine ? std::move(engine).value() : nullptr;
}

std::vector<TokenId> prompt(std::int64_t length) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<TokenId>((i * 37 + i * i) % 96));
  return tokens;
}

Result<Rows> try_logits(Engine& engine, std::int64_t width) {
  Sequence sequence(engine);
  sequence.append(prompt(50));
  Rows rows;
  while (sequence.computed() < 50) {
    ROOFTREE_TRY(const Chunk chunk, sequence.prepare(width, Logits::kAll));
    ROOFTREE_TRY(const StepResult step, engine.step({&chunk, 1}));
    const auto vocabulary = static_cast<std::size_t>(step.vocabulary);
    for (std::size_t i = 0; i < chunk.tokens.size(); ++i) {
      const auto row = step.logits.subspan(i * vocabulary, vocabulary);
      rows.emplace_back(row.begin(), row.end());
    }
    sequence.advance(static_cast<std::int64_t>(chunk.tokens.size()));
  }
  return rows;
}

Rows logits_of(Engine& engine, std::int64_t width = 50) {
  auto rows = try_logits(engine, width);
  EXPECT_TRUE(rows.has_value()) << (rows ? "" : rows.error().message);
  return rows ? std::move(rows).value() : Rows{};
}

bool same_bits(const Rows& a, const Rows& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) {
           return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
         });
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(folder, absent)) files.push_back(entry.path());
  return files;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void overwrite(const fs::path& path, const std::string& bytes) {  // in place: whoever has it open sees it
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// $XDG_CACHE_HOME in a folder of the test.
class OwnCacheHome {
 public:
  OwnCacheHome() {
    const char* const before = getenv("XDG_CACHE_HOME");
    if (before != nullptr) before_ = before;
    had_ = before != nullptr;
    setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
  }
  ~OwnCacheHome() {
    if (had_) {
      setenv("XDG_CACHE_HOME", before_.c_str(), 1);
    } else {
      unsetenv("XDG_CACHE_HOME");
    }
  }
  OwnCacheHome(const OwnCacheHome&) = delete;
  OwnCacheHome& operator=(const OwnCacheHome&) = delete;
  [[nodiscard]] fs::path files() const { return folder_.path() / "rooftree"; }

 private:
  test::TestFolder folder_;
  std::string before_;
  bool had_ = false;
};

// What is left of the limit for weights when they have `part` of what they need.
std::uint64_t limit_for(const Footprint& whole, double part) {
  return whole.kv_bytes + whole.scratch_bytes + static_cast<std::uint64_t>(static_cast<double>(whole.weights_bytes) * part);
}

TEST(StreamedWeights, GiveTheBitsOfResidentOnes) {
  const OwnCacheHome home;
  struct Case {
    std::string config;
    DType weights;
    double part;
  };
  for (const Case& c : {Case{dense(), DType::kQ4_0, 0.5}, Case{dense(), DType::kBf16, 0.8}, Case{dense(), DType::kF32, 0.45},
                        Case{kExperts, DType::kQ8_0, 0.6}, Case{kLatent, DType::kF16, 0.7}}) {
    const auto resident = load(c.config, c.weights, small_options());
    ASSERT_NE(resident, nullptr);
    const Rows expected = logits_of(*resident);
    const Footprint& whole = resident->footprint();
    EngineOptions options = small_options();
    options.memory_limit_bytes = limit_for(whole, c.part);
    for (const int threads : {1, 2, 3}) {
      options.threads = threads;
      const auto engine = load(c.config, c.weights, options);
      ASSERT_NE(engine, nullptr);
      EXPECT_TRUE(files_in(home.files()).empty());  // it has no name
      const Footprint& f = engine->footprint();
      EXPECT_EQ(f.weights_bytes, whole.weights_bytes);
      EXPECT_GT(f.streamed_bytes, 0U);
      EXPECT_GT(f.resident_bytes, 0U);
      EXPECT_EQ(f.resident_bytes + f.streamed_bytes, f.weights_bytes);
      EXPECT_LE(f.resident_bytes + f.buffer_bytes + f.kv_bytes + f.scratch_bytes, options.memory_limit_bytes);
      for (const std::int64_t width : {50, 7, 1}) {
        EXPECT_TRUE(same_bits(expected, logits_of(*engine, width))) << threads << " threads, chunks of " << width;
      }
      // Passes: two of 50 rows by 32, eight of 7, fifty of 1; and at most the ring ahead.
      const StreamTimes times = engine->stream_times();
      EXPECT_GE(times.bytes, 60 * f.streamed_bytes);
      EXPECT_GT(times.seconds, 0.0);
      engine->set_profiling(true);
      EXPECT_TRUE(same_bits(expected, logits_of(*engine)));
    }
  }
}

TEST(StreamedWeights, LimitsOnBothSides) {
  const OwnCacheHome home;
  const auto resident = load(dense(), DType::kQ8_0, small_options());
  const Footprint whole = resident->footprint();
  EngineOptions options = small_options();
  options.memory_limit_bytes = limit_for(whole, 1.0);
  EXPECT_EQ(load(dense(), DType::kQ8_0, options)->footprint().streamed_bytes, 0U);
  options.memory_limit_bytes -= 1;
  EXPECT_GT(load(dense(), DType::kQ8_0, options)->footprint().streamed_bytes, 0U);
  // Less than two layers and the embedding: the message says how much it takes.
  options.memory_limit_bytes = limit_for(whole, 0.1);
  const auto small = try_load(dense(), DType::kQ8_0, options);
  ASSERT_FALSE(small.has_value());
  EXPECT_EQ(small.error().code, ErrorCode::kInvalid);
  EXPECT_NE(small.error().message.find("two layers at a time"), std::string::npos) << small.error().message;
  options.memory_limit_bytes = whole.kv_bytes;
  const auto smaller = try_load(dense(), DType::kQ8_0, options);
  ASSERT_FALSE(smaller.has_value());
  EXPECT_NE(smaller.error().message.find("scratch"), std::string::npos) << smaller.error().message;
  EXPECT_TRUE(files_in(home.files()).empty());
}

TEST(CachedWeights, AreReusedAndGiveTheSameBits) {
  for (const DType type : {DType::kQ4_0, DType::kBf16, DType::kBf16Lossless12}) {
    const test::TestFolder cache;
    EngineOptions options = small_options();
    const auto plain = load(dense(), type, options);
    const Rows expected = logits_of(*plain);
    options.cache = cache.path() / "made" / "here";
    options.weights = type;
    for (const bool again : {false, true, true}) {
      const auto engine = load(dense(), type, options);
      ASSERT_NE(engine, nullptr);
      EXPECT_EQ(engine->weights_reused(), again);
      EXPECT_EQ(engine->footprint().streamed_bytes, 0U);
      EXPECT_TRUE(same_bits(expected, logits_of(*engine)));
      ASSERT_EQ(files_in(options.cache).size(), 1U);
    }
    // Streamed from the same file.
    options.memory_limit_bytes = limit_for(plain->footprint(), 0.5);
    const auto streamed = load(dense(), type, options);
    ASSERT_NE(streamed, nullptr);
    EXPECT_TRUE(streamed->weights_reused());
    EXPECT_GT(streamed->footprint().streamed_bytes, 0U);
    EXPECT_TRUE(same_bits(expected, logits_of(*streamed, 9)));
  }
}

TEST(CachedWeights, OfOtherSourcesOptionsAndBackendsAreNotMixedUp) {
  const test::TestFolder cache;
  EngineOptions options = small_options();
  options.cache = cache.path();
  EXPECT_FALSE(load(dense(), DType::kF32, options)->weights_reused());
  // Another seed is another content of the same source: it takes the place.
  EXPECT_FALSE(load(dense(), DType::kF32, options, 2)->weights_reused());
  EXPECT_EQ(files_in(cache.path()).size(), 1U);
  EXPECT_TRUE(load(dense(), DType::kF32, options, 2)->weights_reused());
  EXPECT_FALSE(load(dense(), DType::kF32, options, 1)->weights_reused());
  EXPECT_FALSE(load(dense(256, 768), DType::kF32, options)->weights_reused());  // another shape under the same name
  EXPECT_FALSE(load(dense(), DType::kF32, options)->weights_reused());
  options.weights = DType::kQ8_0;
  EXPECT_FALSE(load(dense(), DType::kF32, options)->weights_reused());
  EXPECT_TRUE(load(dense(), DType::kF32, options)->weights_reused());
  options.weights.reset();
  EXPECT_TRUE(load(dense(), DType::kF32, options)->weights_reused());
  options.backend = &kernels::reference_backend();
  EXPECT_FALSE(load(dense(), DType::kF32, options)->weights_reused());
  options.backend = nullptr;
  options.exact_activations = true;
  EXPECT_FALSE(load(dense(), DType::kF32, options)->weights_reused());
}

TEST(CachedWeights, DamagedOnesAreWrittenAnew) {
  const test::TestFolder cache;
  EngineOptions options = small_options();
  options.cache = cache.path();
  const Rows expected = logits_of(*load(dense(), DType::kQ4_0, options));
  const fs::path path = files_in(cache.path()).at(0);
  const std::string good = content(path);
  const auto spoil = [&](const std::string& what, const std::string& bytes) {
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << bytes;
    const auto engine = load(dense(), DType::kQ4_0, options);
    ASSERT_NE(engine, nullptr) << what;
    EXPECT_FALSE(engine->weights_reused()) << what;
    EXPECT_TRUE(same_bits(expected, logits_of(*engine))) << what;
    EXPECT_TRUE(content(path) == good) << what;
  };
  spoil("empty", "");
  spoil("cut", good.substr(0, good.size() - 1));
  spoil("cut in the header", good.substr(0, 500));
  spoil("longer", good + "x");
  spoil("text", "not a file of weights");
  for (const std::size_t at : {0U, 8U, 16U, 24U, 32U, 40U, 48U, 56U, 64U, 96U, 300U, 700U, 1500U}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    spoil("byte " + std::to_string(at), bad);
  }
  EXPECT_EQ(files_in(cache.path()).size(), 1U);
}

TEST(CachedWeights, AFolderThatCannotBeIsAnError) {
  const test::TestFolder cache;
  std::ofstream(cache.path() / "file") << "x";
  EngineOptions options = small_options();
  options.cache = cache.path() / "file" / "below";
  const auto engine = try_load(dense(), DType::kQ4_0, options);
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::kEnvironment);
}

class StopAt final : public Progress {
 public:
  explicit StopAt(double fraction) : stop_(fraction) {}
  void update(double fraction, std::string_view) override { reached_ = reached_ || fraction >= stop_; }
  [[nodiscard]] bool cancelled() const override { return reached_; }

 private:
  double stop_;
  bool reached_ = false;
};

TEST(CachedWeights, ACancelledLoadLeavesNoFile) {
  const OwnCacheHome home;
  const test::TestFolder cache;
  const Footprint whole = load(dense(), DType::kQ4_0, small_options())->footprint();
  for (const double fraction : {0.0, 0.5}) {
    for (const bool keep : {false, true}) {
      EngineOptions options = small_options();
      options.memory_limit_bytes = limit_for(whole, 0.5);
      if (keep) options.cache = cache.path();
      StopAt progress(fraction);
      const auto engine = try_load(dense(), DType::kQ4_0, options, &progress);
      ASSERT_FALSE(engine.has_value());
      EXPECT_NE(engine.error().message.find("interrupted"), std::string::npos) << engine.error().message;
      EXPECT_TRUE(files_in(cache.path()).empty());
      EXPECT_TRUE(files_in(home.files()).empty());
    }
  }
}

TEST(StreamedWeights, AReadErrorIsAnErrorOfTheStepAndMayPass) {
  const test::TestFolder cache;
  EngineOptions options = small_options();
  const auto resident = load(dense(), DType::kQ4_0, options);
  const Rows expected = logits_of(*resident);
  options.memory_limit_bytes = limit_for(resident->footprint(), 0.5);
  options.cache = cache.path();
  const auto engine = load(dense(), DType::kQ4_0, options);
  ASSERT_NE(engine, nullptr);
  EXPECT_TRUE(same_bits(expected, logits_of(*engine)));
  const fs::path path = files_in(cache.path()).at(0);
  const std::string good = content(path);
  fs::resize_file(path, 4096);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto rows = try_logits(*engine, 50);
    ASSERT_FALSE(rows.has_value());
    EXPECT_EQ(rows.error().code, ErrorCode::kEnvironment);
    EXPECT_NE(rows.error().message.find(path.filename().string()), std::string::npos) << rows.error().message;
  }
  EXPECT_EQ(engine->blocks().free_count(), engine->blocks().capacity());
  overwrite(path, good);
  // What failed while the file was short may be one more reading ahead.
  auto rows = try_logits(*engine, 50);
  if (!rows.has_value()) rows = try_logits(*engine, 50);
  ASSERT_TRUE(rows.has_value()) << rows.error().message;
  EXPECT_TRUE(same_bits(expected, *rows));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// In a child, whose peak is its own: packing, reading and running stay near the limit though the weights are three times it.
TEST(StreamedWeights, PeakMemoryStaysNearTheLimit) {
  const OwnCacheHome home;
  constexpr std::uint64_t kLimit = std::uint64_t{40} << 20;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  struct Report {
    std::uint64_t before = 0, peak = 0, weights = 0, streamed = 0;
  };
  if (child == 0) {
    Report report;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    report.before = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
    EngineOptions options = small_options();
    options.memory_limit_bytes = kLimit;
    auto engine = try_load(dense(1024, 3072, 10), DType::kQ8_0, options);
    if (engine && try_logits(**engine, 25)) {
      report.weights = (*engine)->footprint().weights_bytes;
      report.streamed = (*engine)->footprint().streamed_bytes;
      getrusage(RUSAGE_SELF, &usage);
      report.peak = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
    }
    const bool sent = write(ends[1], &report, sizeof report) == sizeof report;
    _exit(sent ? 0 : 1);
  }
  Report report;
  EXPECT_EQ(read(ends[0], &report, sizeof report), static_cast<ssize_t>(sizeof report));
  close(ends[0]);
  close(ends[1]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_GT(report.weights, 3 * kLimit);
  EXPECT_GT(report.streamed, 2 * kLimit);
  // Beside the limit: code, threads, and one tensor as it is made and packed.
  EXPECT_LT(report.peak, report.before + kLimit + (std::uint64_t{24} << 20))
      << report.before << " before, " << report.peak << " at most";
  RecordProperty("peak_bytes", std::to_string(report.peak));
}
#endif

}  // namespace
}  // namespace rooftree::engine

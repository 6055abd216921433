#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "engine/generate.h"
#include "formats/block_codec.h"
#include "formats/random_source.h"

namespace rooftree::engine {
namespace {

using Rows = std::vector<std::vector<float>>;

// Small models of different kinds, as their publishers would describe them.
constexpr const char* kDense = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128,
  "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu"})";
constexpr const char* kExperts = R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64,
  "intermediate_size": 128, "moe_intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": true,
  "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})";
constexpr const char* kLatent = R"({"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 64,
  "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
  "num_key_value_heads": 2, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
  "v_head_dim": 32, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
  "moe_layer_freq": 1, "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
  "norm_topk_prob": false, "routed_scaling_factor": 1.0, "vocab_size": 96, "max_position_embeddings": 512,
  "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})";

model::Model model_of(const char* config) {
  auto model = model::parse_hf_config(config, "test");
  EXPECT_TRUE(model.has_value()) << (model ? "" : model.error().message);
  return model ? std::move(model).value() : model::Model{};
}

EngineOptions small_options() {
  EngineOptions options;
  options.threads = 2;
  options.kv_tokens = 512;
  options.page_tokens = 16;
  options.max_rows = 64;
  return options;
}

std::unique_ptr<Engine> load(const char* config, DType weights, const EngineOptions& options = small_options(),
                             std::uint64_t seed = 1) {
  auto files = ModelFiles::synthetic(model_of(config), weights, seed);
  EXPECT_TRUE(files.has_value()) << (files ? "" : files.error().message);
  if (!files) return nullptr;
  auto engine = Engine::load(std::move(files).value(), options);
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return engine ? std::move(engine).value() : nullptr;
}

std::vector<TokenId> prompt(std::int64_t length, int which = 0) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<TokenId>((i * 37 + which * 11 + i * i) % 96));
  return tokens;
}

// Logits of every position, the tokens fed in chunks of `width`.
Rows logits_of(Engine& engine, Sequence& sequence, std::int64_t width) {
  Rows rows;
  while (sequence.computed() < static_cast<std::int64_t>(sequence.tokens().size())) {
    const auto chunk = sequence.prepare(width, Logits::kAll);
    EXPECT_TRUE(chunk.has_value()) << (chunk ? "" : chunk.error().message);
    if (!chunk) return rows;
    const auto count = static_cast<std::int64_t>(chunk->tokens.size());
    const auto step = engine.step({&*chunk, 1});
    EXPECT_TRUE(step.has_value()) << (step ? "" : step.error().message);
    if (!step) return rows;
    const auto vocabulary = static_cast<std::size_t>(step->vocabulary);
    EXPECT_EQ(step->logits.size(), static_cast<std::size_t>(count) * vocabulary);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const auto row = step->logits.subspan(i * vocabulary, vocabulary);
      rows.emplace_back(row.begin(), row.end());
    }
    sequence.advance(count);
  }
  return rows;
}

Rows logits_of(Engine& engine, const std::vector<TokenId>& tokens, std::int64_t width = 1000) {
  Sequence sequence(engine);
  sequence.append(tokens);
  return logits_of(engine, sequence, width);
}

bool same_bits(const std::vector<float>& a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
bool same_bits(const Rows& a, const Rows& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!same_bits(a[i], b[i])) return false;
  }
  return true;
}

double nmse(const Rows& exact, const Rows& other) {
  double worst = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double error = 0, size = 0;
    for (std::size_t j = 0; j < exact[i].size(); ++j) {
      const double a = static_cast<double>(exact[i][j]), b = static_cast<double>(other[i][j]);
      error += (a - b) * (a - b);
      size += a * a;
    }
    worst = std::max(worst, error / size);
  }
  return worst;
}

struct Case {
  const char* name;
  const char* config;
  DType weights;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class EngineModels : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EngineModels,
                         ::testing::Values(Case{"dense_q4_0", kDense, DType::kQ4_0}, Case{"dense_bf16", kDense, DType::kBf16},
                                           Case{"dense_f32", kDense, DType::kF32}, Case{"experts_q8_0", kExperts, DType::kQ8_0},
                                           Case{"experts_f16", kExperts, DType::kF16}, Case{"latent_f16", kLatent, DType::kF16},
                                           Case{"latent_q4_0", kLatent, DType::kQ4_0}),
                         [](const auto& test) { return std::string(test.param.name); });

// The contract: bits depend on nothing but the model, the tokens and the level.
TEST_P(EngineModels, ChunksPassesThreadsAndPagesDoNotChangeBits) {
  const std::vector<TokenId> tokens = prompt(77);
  const auto base = load(GetParam().config, GetParam().weights);
  ASSERT_NE(base, nullptr);
  const Rows expected = logits_of(*base, tokens);
  ASSERT_EQ(expected.size(), tokens.size());
  for (const std::int64_t width : {1, 3, 16, 50}) EXPECT_TRUE(same_bits(expected, logits_of(*base, tokens, width))) << width;
  for (const int threads : {1, 3}) {
    EngineOptions options = small_options();
    options.threads = threads;
    const auto engine = load(GetParam().config, GetParam().weights, options);
    EXPECT_TRUE(same_bits(expected, logits_of(*engine, tokens))) << threads << " threads";
    EXPECT_TRUE(same_bits(expected, logits_of(*engine, tokens, 5))) << threads << " threads";
  }
  for (const std::int64_t page : {32, 64, 256}) {
    EngineOptions options = small_options();
    options.page_tokens = page;
    options.max_rows = page / 3;  // several passes, cut at other places
    const auto engine = load(GetParam().config, GetParam().weights, options);
    EXPECT_TRUE(same_bits(expected, logits_of(*engine, tokens))) << "pages of " << page;
  }
}

TEST_P(EngineModels, TheRestOfTheBatchDoesNotChangeBits) {
  const auto engine = load(GetParam().config, GetParam().weights);
  ASSERT_NE(engine, nullptr);
  std::vector<std::vector<TokenId>> prompts;
  std::vector<Rows> alone;
  for (int i = 0; i < 5; ++i) {
    prompts.push_back(prompt(9 + 11 * i, i));
    alone.push_back(logits_of(*engine, prompts.back()));
  }
  // All at once: chunks of different sizes beside each other, some asking for no logits.
  std::vector<Sequence> sequences;
  for (const auto& tokens : prompts) {
    sequences.emplace_back(*engine);
    sequences.back().append(tokens);
  }
  std::vector<Rows> together(prompts.size());
  for (int round = 0;; ++round) {
    std::vector<Chunk> chunks;
    std::vector<std::size_t> owners;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      if (sequences[i].computed() == static_cast<std::int64_t>(prompts[i].size())) continue;
      const auto chunk =
          sequences[i].prepare(static_cast<std::int64_t>(1 + (i * 7 + static_cast<std::size_t>(round)) % 13), Logits::kAll);
      ASSERT_TRUE(chunk.has_value());
      chunks.push_back(*chunk);
      owners.push_back(i);
    }
    if (chunks.empty()) break;
    const auto step = engine->step(chunks);
    ASSERT_TRUE(step.has_value()) << step.error().message;
    ASSERT_EQ(step->first_row.size(), chunks.size() + 1);
    const auto vocabulary = static_cast<std::size_t>(step->vocabulary);
    for (std::size_t c = 0; c < chunks.size(); ++c) {
      for (std::int64_t r = step->first_row[c]; r < step->first_row[c + 1]; ++r) {
        const auto row = step->logits.subspan(static_cast<std::size_t>(r) * vocabulary, vocabulary);
        together[owners[c]].emplace_back(row.begin(), row.end());
      }
      sequences[owners[c]].advance(static_cast<std::int64_t>(chunks[c].tokens.size()));
    }
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) EXPECT_TRUE(same_bits(alone[i], together[i])) << "sequence " << i;
}

TEST_P(EngineModels, LastAndNoLogitsAreRowsOfAll) {
  const auto engine = load(GetParam().config, GetParam().weights);
  const Rows all = logits_of(*engine, prompt(20)), other = logits_of(*engine, prompt(7, 3));
  Sequence a(*engine), b(*engine), c(*engine);
  a.append(prompt(20));
  b.append(prompt(30, 2));
  c.append(prompt(7, 3));
  const std::vector<Chunk> chunks = {*a.prepare(99, Logits::kLast), *b.prepare(99, Logits::kNone),
                                     *c.prepare(99, Logits::kAll)};
  const auto step = engine->step(chunks);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(std::vector<std::int64_t>(step->first_row.begin(), step->first_row.end()), (std::vector<std::int64_t>{0, 1, 1, 8}));
  const auto vocabulary = static_cast<std::size_t>(step->vocabulary);
  EXPECT_TRUE(same_bits(all.back(), step->logits.first(vocabulary)));
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_TRUE(same_bits(other[i], step->logits.subspan((1 + i) * vocabulary, vocabulary)));
  }
}

TEST_P(EngineModels, ExactActivationsAgreeWithTheReferenceBackend) {
  EngineOptions exact = small_options();
  exact.exact_activations = true;
  exact.kv = DType::kF32;
  EngineOptions plain = exact;
  plain.exact_activations = false;
  plain.backend = &kernels::reference_backend();
  const auto fast = load(GetParam().config, GetParam().weights, exact);
  const auto truth = load(GetParam().config, GetParam().weights, plain);
  ASSERT_NE(fast, nullptr);
  ASSERT_NE(truth, nullptr);
  EXPECT_EQ(fast->level(), kernels::Level::kC);
  EXPECT_EQ(truth->level(), kernels::Level::kC);
  const Rows expected = logits_of(*truth, prompt(40));
  EXPECT_LT(nmse(expected, logits_of(*fast, prompt(40))), 1e-9);
  // And the declared arithmetic is near it, without being it.
  const auto declared = load(GetParam().config, GetParam().weights);
  EXPECT_LT(nmse(expected, logits_of(*declared, prompt(40))), 0.02);
}

// With steps 18 times as wide as q8_0's, q4_0 is some 300 times farther away.
TEST(Engine, EveryCacheTypeIsNearTheFloats) {
  for (const char* config : {kDense, kExperts, kLatent}) {
    EngineOptions options = small_options();
    options.backend = &kernels::reference_backend();
    const Rows expected = logits_of(*load(config, DType::kF32, options), prompt(40));
    for (const DType kv : {DType::kF32, DType::kF16, DType::kBf16, DType::kQ8_0, DType::kQ4_0}) {
      options = small_options();
      options.kv = kv;
      if (config == kLatent && (kv == DType::kQ8_0 || kv == DType::kQ4_0)) {
        // The rotated tail makes heads of 48 values: no whole blocks.
        auto files = ModelFiles::synthetic(model_of(kLatent), DType::kF32, 1);
        const auto refused = Engine::load(std::move(files).value(), options);
        ASSERT_FALSE(refused.has_value());
        EXPECT_NE(refused.error().message.find("multiples of 32"), std::string::npos) << refused.error().message;
        continue;
      }
      const auto engine = load(config, DType::kF32, options);
      const double limit = kv == DType::kF32 ? 1e-9 : kv == DType::kQ4_0 ? 0.3 : 1e-3;
      EXPECT_LT(nmse(expected, logits_of(*engine, prompt(40))), limit) << name(kv);
    }
  }
}

TEST(Engine, PrefixesAreReusedAndDoNotChangeBits) {
  const auto engine = load(kDense, DType::kQ4_0);
  std::vector<TokenId> tokens = prompt(70);
  const Rows expected = logits_of(*engine, tokens);  // publishes four full blocks of 16
  Sequence sequence(*engine);
  sequence.append(tokens);
  EXPECT_EQ(sequence.reuse_prefix(), 64);
  const Rows rest = logits_of(*engine, sequence, 100);
  ASSERT_EQ(rest.size(), 6U);
  for (std::size_t i = 0; i < rest.size(); ++i) EXPECT_TRUE(same_bits(expected[64 + i], rest[i]));
  // The last token is always computed, even if all blocks are known.
  Sequence shorter(*engine);
  shorter.append(std::span(tokens).first(64));
  EXPECT_EQ(shorter.reuse_prefix(), 48);
  // Another beginning shares nothing.
  tokens[0] ^= 1;
  Sequence other(*engine);
  other.append(tokens);
  EXPECT_EQ(other.reuse_prefix(), 0);
}

TEST(Engine, ForksShareBlocksUntilTheyWrite) {
  const auto engine = load(kDense, DType::kQ4_0);
  serving::BlockPool& pool = engine->blocks();
  const std::int64_t free = pool.free_count();
  const std::vector<TokenId> tokens = prompt(40);
  const std::vector<TokenId> left = {1, 2, 3}, right = {4, 5};
  std::vector<TokenId> with_left = tokens, with_right = tokens;
  with_left.insert(with_left.end(), left.begin(), left.end());
  with_right.insert(with_right.end(), right.begin(), right.end());
  const Rows expect_left = logits_of(*engine, with_left), expect_right = logits_of(*engine, with_right);
  {
    Sequence a(*engine);
    a.append(tokens);
    logits_of(*engine, a, 100);
    EXPECT_EQ(free - pool.free_count(), 3);
    Sequence b = a.fork();
    EXPECT_EQ(free - pool.free_count(), 3);
    a.append(left);
    b.append(right);
    const Rows of_a = logits_of(*engine, a, 100);
    EXPECT_EQ(free - pool.free_count(), 4);  // the half-full block was copied
    const Rows of_b = logits_of(*engine, b, 100);
    EXPECT_EQ(free - pool.free_count(), 4);
    EXPECT_TRUE(same_bits(Rows(expect_left.begin() + 40, expect_left.end()), of_a));
    EXPECT_TRUE(same_bits(Rows(expect_right.begin() + 40, expect_right.end()), of_b));
    Sequence moved = std::move(b);
    EXPECT_EQ(moved.computed(), 42);
    EXPECT_EQ(b.computed(), 0);  // NOLINT(bugprone-use-after-move): what is left is empty
  }
  EXPECT_EQ(pool.free_count(), free);
  pool.check_invariants();
}

TEST(Engine, TruncatedSequencesGoOnAsIfNothingHadBeen) {
  const auto engine = load(kDense, DType::kQ4_0);
  const std::vector<TokenId> tokens = prompt(60), other = prompt(60, 5);
  for (const std::int64_t keep : {0, 1, 16, 17, 31, 32, 40, 59}) {
    std::vector<TokenId> mixed(tokens.begin(), tokens.begin() + keep);
    mixed.insert(mixed.end(), other.begin(), other.begin() + 20);
    const Rows expected = logits_of(*engine, mixed);
    Sequence sequence(*engine);
    sequence.append(tokens);
    logits_of(*engine, sequence, 100);
    sequence.truncate(keep);
    EXPECT_EQ(sequence.computed(), keep);
    sequence.append(std::span(other).first(20));
    const Rows rest = logits_of(*engine, sequence, 7);
    EXPECT_TRUE(same_bits(Rows(expected.begin() + keep, expected.end()), rest)) << keep;
    // Blocks that others may find still hold what they were published for.
    Sequence again(*engine);
    again.append(tokens);
    again.reuse_prefix();
    const std::int64_t reused = again.computed();
    const Rows known = logits_of(*engine, tokens);
    const Rows tail = logits_of(*engine, again, 100);
    EXPECT_TRUE(same_bits(Rows(known.begin() + reused, known.end()), tail)) << keep;
  }
  engine->blocks().check_invariants();
}

TEST(Engine, AssignedTokensKeepTheCommonPrefix) {
  const auto engine = load(kDense, DType::kQ4_0);
  const std::int64_t free = engine->blocks().free_count();
  const std::vector<TokenId> tokens = prompt(60), other = prompt(60, 5);
  struct Change {
    std::int64_t common, more, computed, kept;
  };
  // Computed of `tokens`; then the first `common` of them and `more` others.
  for (const Change c :
       {Change{40, 20, 60, 40}, Change{16, 1, 60, 16}, Change{60, 3, 60, 60}, Change{60, 0, 60, 59}, Change{33, 0, 60, 32},
        Change{0, 20, 60, 0}, Change{1, 0, 60, 0}, Change{60, 5, 20, 20}, Change{10, 5, 20, 10}, Change{60, 0, 0, 0}}) {
    std::vector<TokenId> mixed(tokens.begin(), tokens.begin() + c.common);
    mixed.insert(mixed.end(), other.begin(), other.begin() + c.more);
    if (c.more > 0 && c.common < 60) {
      ASSERT_NE(other.front(), tokens[static_cast<std::size_t>(c.common)]);
    }
    const Rows expected = logits_of(*engine, mixed);
    Sequence sequence(*engine);
    sequence.append(std::span(tokens).first(static_cast<std::size_t>(c.computed)));
    if (c.computed > 0) logits_of(*engine, sequence, 100);
    sequence.append(std::span(tokens).subspan(static_cast<std::size_t>(c.computed)));
    EXPECT_EQ(sequence.assign(mixed), c.kept);
    EXPECT_EQ(sequence.computed(), c.kept);
    EXPECT_EQ(sequence.tokens(), mixed);
    const Rows rest = logits_of(*engine, sequence, 100);
    EXPECT_TRUE(same_bits(Rows(expected.begin() + c.kept, expected.end()), rest)) << c.common;
  }
  // What was prepared and never computed is given back.
  {
    Sequence sequence(*engine);
    sequence.append(tokens);
    ASSERT_TRUE(sequence.prepare(100, Logits::kLast).has_value());
    EXPECT_EQ(sequence.assign(tokens), 0);
    EXPECT_EQ(engine->blocks().free_count(), free);
    EXPECT_GT(sequence.reuse_prefix(), 0);
  }
  engine->blocks().check_invariants();
}

TEST(Engine, AFullCacheIsAnError) {
  EngineOptions options = small_options();
  options.kv_tokens = 48;
  const auto engine = load(kDense, DType::kQ4_0, options);
  Sequence a(*engine), b(*engine);
  a.append(prompt(33));
  ASSERT_TRUE(a.prepare(100, Logits::kLast).has_value());
  b.append(prompt(1));
  const auto full = b.prepare(100, Logits::kLast);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kInvalid);
  EXPECT_NE(full.error().message.find("48 positions"), std::string::npos) << full.error().message;
  Sequence moved = std::move(a);
  moved.truncate(16);
  EXPECT_TRUE(b.prepare(100, Logits::kLast).has_value());
  Sequence c(*engine);
  EXPECT_FALSE(c.prepare(1, Logits::kLast).has_value());  // nothing to compute
}

TEST(Engine, InvalidChunksAreRefused) {
  const auto engine = load(kDense, DType::kQ4_0);
  serving::BlockPool& pool = engine->blocks();
  const serving::BlockId mine = *pool.allocate(), second = *pool.allocate();
  std::vector<TokenId> tokens = {1, 2, 3};
  std::vector<serving::BlockId> blocks = {mine};
  const auto refused = [&](const Chunk& chunk, std::string_view word) {
    const auto step = engine->step({&chunk, 1});
    EXPECT_FALSE(step.has_value()) << word;
    if (!step) {
      EXPECT_EQ(step.error().code, ErrorCode::kInvalid);
      EXPECT_NE(step.error().message.find(word), std::string::npos) << step.error().message;
    }
  };
  refused({.tokens = {}, .past = 0, .blocks = blocks}, "no tokens");
  const std::vector<TokenId> negative = {1, -1}, large = {96};
  refused({.tokens = negative, .past = 0, .blocks = blocks}, "token -1");
  refused({.tokens = large, .past = 0, .blocks = blocks}, "token 96");
  refused({.tokens = tokens, .past = -1, .blocks = blocks}, "positions -1");
  refused({.tokens = tokens, .past = std::numeric_limits<std::int64_t>::max() - 1, .blocks = blocks}, "positions");
  refused({.tokens = tokens, .past = 14, .blocks = blocks}, "1 blocks; expected 2");
  refused({.tokens = tokens, .past = 0, .blocks = {}}, "0 blocks");
  const std::vector<serving::BlockId> outside = {static_cast<serving::BlockId>(pool.capacity())}, below = {-1};
  refused({.tokens = tokens, .past = 0, .blocks = outside}, "block 32");
  refused({.tokens = tokens, .past = 0, .blocks = below}, "block -1");
  const std::vector<serving::BlockId> unowned = {5};
  refused({.tokens = tokens, .past = 0, .blocks = unowned}, "belongs to nobody");
  pool.retain(mine);
  refused({.tokens = tokens, .past = 0, .blocks = blocks}, "2 owners");
  // A shared block may be read.
  const std::vector<serving::BlockId> both = {mine, second};
  const Chunk reads{.tokens = tokens, .past = 16, .blocks = both};
  EXPECT_TRUE(engine->step({&reads, 1}).has_value());
  const auto nothing = engine->step({});
  ASSERT_TRUE(nothing.has_value());
  EXPECT_EQ(nothing->first_row.size(), 1U);
}

TEST(Engine, OptionsThatDoNotFitAreRefused) {
  const auto refused = [](const EngineOptions& options, std::string_view word, DType weights = DType::kQ4_0) {
    auto files = ModelFiles::synthetic(model_of(kDense), weights, 1);
    const auto engine = Engine::load(std::move(files).value(), options);
    ASSERT_FALSE(engine.has_value()) << word;
    EXPECT_EQ(engine.error().code, ErrorCode::kInvalid);
    EXPECT_NE(engine.error().message.find(word), std::string::npos) << engine.error().message;
  };
  EngineOptions options = small_options();
  options.page_tokens = 24;
  refused(options, "multiple of 16");
  options = small_options();
  options.page_tokens = 8;
  refused(options, "positions per page");
  options = small_options();
  options.max_rows = 0;
  refused(options, "rows per pass");
  options = small_options();
  options.kv_tokens = 0;
  refused(options, "positions in the cache");
  options = small_options();
  options.threads = -1;
  refused(options, "threads");
  options = small_options();
  options.kv = DType::kQ4K;
  refused(options, "a cache of");
  options = small_options();
  options.memory_limit_bytes = 1000;
  refused(options, "the limit is 1000");
  options = small_options();
  options.weights = DType::kNvfp4;
  refused(options, "nvfp4");
  // Levels: what is asked for is kept or refused.
  options = small_options();
  options.level = kernels::Level::kB;
  refused(options, "level B was asked for", DType::kF32);
  options.level = kernels::Level::kA;
  refused(options, "level A was asked for", DType::kBf16);
  options.exact_activations = true;
  refused(options, "level A was asked for");
  options = small_options();
  options.level = kernels::Level::kB;
  options.kv = DType::kF32;
  refused(options, "cache");
  options = small_options();
  options.level = kernels::Level::kC;
  options.backend = &kernels::reference_backend();
  EXPECT_NE(load(kDense, DType::kQ4_0, options), nullptr);
  options.level = kernels::Level::kB;
  refused(options, "reference");

  options = small_options();
  options.level = kernels::Level::kA;
  EXPECT_EQ(load(kDense, DType::kQ4_0, options)->level(), kernels::Level::kA);
  options.level = kernels::Level::kB;
  EXPECT_EQ(load(kDense, DType::kBf16, options)->level(), kernels::Level::kB);
}

TEST(Engine, SyntheticModelsOfImpossibleTypesAreRefused) {
  EXPECT_FALSE(ModelFiles::synthetic(model_of(kDense), DType::kNvfp4, 1).has_value());
  EXPECT_FALSE(ModelFiles::open("/no/such/model.gguf").has_value());
  EXPECT_FALSE(ModelFiles::open("/no/such/folder").has_value());
}

// ---- weights

// The tensors of a dense model of one layer under the names of GGUF, each of its own type.
struct MixedTypes {
  DType embedding = DType::kQ8_0, q = DType::kQ8_0, k = DType::kQ8_0, v = DType::kQ8_0, gate = DType::kQ8_0, up = DType::kQ8_0;
};

constexpr const char* kOneLayer = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
  "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu"})";

ModelFiles mixed(const MixedTypes& types) {
  const auto matrix = [](const char* name, DType type, std::int64_t n, std::int64_t k) {
    return formats::RandomTensor{.name = name, .type = type, .extents = {n, k}};
  };
  const auto norm = [](const char* name) {
    return formats::RandomTensor{.name = name, .extents = {256}, .fill = formats::RandomTensor::Fill::kConstant, .value = 1.0F};
  };
  auto source = formats::RandomSource::make(
      {matrix("token_embd.weight", types.embedding, 96, 256), matrix("blk.0.attn_q.weight", types.q, 256, 256),
       matrix("blk.0.attn_k.weight", types.k, 128, 256), matrix("blk.0.attn_v.weight", types.v, 128, 256),
       matrix("blk.0.attn_output.weight", DType::kQ8_0, 256, 256), matrix("blk.0.ffn_gate.weight", types.gate, 512, 256),
       matrix("blk.0.ffn_up.weight", types.up, 512, 256), matrix("blk.0.ffn_down.weight", DType::kQ8_0, 256, 512),
       norm("blk.0.attn_norm.weight"), norm("blk.0.ffn_norm.weight"), norm("output_norm.weight")},
      {.seed = 4});
  EXPECT_TRUE(source.has_value()) << source.error().message;
  ModelFiles files;
  files.model = model_of(kOneLayer);
  files.naming = model::Naming::kGguf;
  files.tensors = std::make_unique<formats::RandomSource>(std::move(source).value());
  return files;
}

// Merged weights whose pieces differ in type: every piece keeps its own arithmetic.
TEST(Engine, MergedWeightsOfSeveralTypes) {
  const std::vector<MixedTypes> cases = {
      {},
      {.q = DType::kQ4_0, .k = DType::kQ5_0, .v = DType::kQ8_0},                    // one form of the activations
      {.q = DType::kQ4_0, .k = DType::kBf16, .v = DType::kF16, .up = DType::kF32},  // four forms
      {.q = DType::kQ4K, .k = DType::kQ4K, .v = DType::kQ6K, .gate = DType::kQ4K, .up = DType::kQ8_0},
      {.embedding = DType::kF16, .q = DType::kF32, .k = DType::kQ8_0, .v = DType::kF32},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EngineOptions options = small_options();
    options.kv = DType::kF32;
    const auto engine = Engine::load(mixed(cases[i]), options);
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    const Rows declared = logits_of(**engine, prompt(30));
    EXPECT_TRUE(same_bits(declared, logits_of(**engine, prompt(30), 4))) << i;
    options.backend = &kernels::reference_backend();
    const auto truth = Engine::load(mixed(cases[i]), options);
    ASSERT_TRUE(truth.has_value()) << truth.error().message;
    const Rows expected = logits_of(**truth, prompt(30));
    EXPECT_LT(nmse(expected, declared), 0.02) << i;
    options.backend = nullptr;
    options.exact_activations = true;
    const auto exact = Engine::load(mixed(cases[i]), options);
    ASSERT_TRUE(exact.has_value()) << exact.error().message;
    EXPECT_LT(nmse(expected, logits_of(**exact, prompt(30))), 1e-9) << i;
  }
}

TEST(Engine, WeightsAreConvertedOnLoad) {
  // From f32: the same bits as a file that was written in the type.
  EngineOptions options = small_options();
  options.weights = DType::kQ8_0;
  const auto converted = load(kDense, DType::kF32, options);
  EXPECT_EQ(converted->level(), kernels::Level::kA);
  const auto plain = load(kDense, DType::kF32);
  EXPECT_LT(converted->footprint().weights_bytes, plain->footprint().weights_bytes / 3);
  EXPECT_LT(nmse(logits_of(*plain, prompt(30)), logits_of(*converted, prompt(30))), 0.01);
  const auto written = load(kDense, DType::kQ8_0);
  EXPECT_TRUE(same_bits(logits_of(*converted, prompt(30)), logits_of(*written, prompt(30))));
  // Rows of 64 values are no whole blocks of 256: they become f16.
  options.weights = DType::kQ4K;
  const auto narrow = load(kExperts, DType::kF32, options);
  EXPECT_LT(nmse(logits_of(*load(kExperts, DType::kF32), prompt(30)), logits_of(*narrow, prompt(30))), 1e-3);
  // Twelve bits hold the sixteen of bf16.
  options.weights = DType::kBf16Lossless12;
  const auto twelve = load(kDense, DType::kBf16, options);
  EXPECT_TRUE(same_bits(logits_of(*load(kDense, DType::kBf16), prompt(30)), logits_of(*twelve, prompt(30))));
}

TEST(Engine, MissingAndMisshapenTensorsAreNamed) {
  auto files = mixed({});
  files.model = model_of(kDense);  // three layers of other widths
  const auto engine = Engine::load(std::move(files), small_options());
  ASSERT_FALSE(engine.has_value());
  EXPECT_NE(engine.error().message.find("token_embd.weight"), std::string::npos) << engine.error().message;
}

TEST(Engine, HashesOfWeights) {
  const auto a = load(kDense, DType::kQ4_0), b = load(kDense, DType::kQ4_0);
  const auto other = load(kDense, DType::kQ4_0, small_options(), 2), type = load(kDense, DType::kQ8_0);
  EXPECT_EQ(a->weights_sha256(), b->weights_sha256());
  EXPECT_EQ(a->weights_sha256(), a->weights_sha256());
  EXPECT_NE(a->weights_sha256(), other->weights_sha256());
  EXPECT_NE(a->weights_sha256(), type->weights_sha256());
}

class Cancelled : public Progress {
 public:
  void update(double fraction, std::string_view) override {
    EXPECT_GE(fraction, last_);
    EXPECT_LE(fraction, 1.0);
    last_ = fraction;
  }
  [[nodiscard]] bool cancelled() const override { return last_ > 0.5; }

 private:
  double last_ = 0;
};

TEST(Engine, LoadingCanBeStopped) {
  Cancelled progress;
  const auto engine =
      Engine::load(std::move(ModelFiles::synthetic(model_of(kDense), DType::kQ4_0, 1)).value(), small_options(), &progress);
  ASSERT_FALSE(engine.has_value());
  EXPECT_NE(engine.error().message.find("interrupted"), std::string::npos);
}

// ---- watching

TEST_P(EngineModels, WatchingChangesNothing) {
  const auto engine = load(GetParam().config, GetParam().weights);
  const Rows expected = logits_of(*engine, prompt(20));
  engine->set_profiling(true);
  std::int64_t calls = 0, logits_seen = 0;
  std::set<std::int32_t> layers;
  engine->set_observer([&](std::int32_t layer, std::string_view node, std::string_view value, std::span<const float> data,
                           std::int64_t rows, std::int64_t width, std::int64_t stride) {
    ++calls;
    layers.insert(layer);
    EXPECT_FALSE(node.empty());
    ASSERT_GE(stride, width);
    ASSERT_GE(data.size(), static_cast<std::size_t>((rows - 1) * stride + width));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < width; ++c) {
        ASSERT_TRUE(std::isfinite(data[static_cast<std::size_t>(r * stride + c)])) << node << " " << value;
      }
    }
    if (value == "logits") {
      ++logits_seen;
      for (std::int64_t r = 0; r < rows; ++r) {
        EXPECT_TRUE(same_bits(expected[static_cast<std::size_t>(r)],
                              data.subspan(static_cast<std::size_t>(r * stride), static_cast<std::size_t>(width))));
      }
    }
  });
  EXPECT_TRUE(same_bits(expected, logits_of(*engine, prompt(20))));
  EXPECT_GT(calls, 20);
  EXPECT_EQ(logits_seen, 1);
  EXPECT_TRUE(layers.contains(-1) && layers.contains(0) && layers.contains(1));
  const auto profile = engine->last_profile();
  ASSERT_FALSE(profile.empty());
  double total = 0;
  for (const NodeTime& node : profile) {
    EXPECT_EQ(node.rows, 20);
    EXPECT_GE(node.seconds, 0.0);
    total += node.seconds;
  }
  EXPECT_GT(total, 0.0);
}

TEST(Engine, Footprint) {
  const auto engine = load(kDense, DType::kQ8_0);
  const Footprint& footprint = engine->footprint();
  EXPECT_GT(footprint.weights_bytes, 0U);
  EXPECT_EQ(footprint.weights_bytes, footprint.resident_bytes);
  EXPECT_EQ(footprint.streamed_bytes, 0U);
  EXPECT_LE(footprint.step_weight_bytes, footprint.weights_bytes);
  // 512 positions, 3 layers, 2 heads of 32 keys and values in 2 bytes.
  EXPECT_GE(footprint.kv_bytes, 512U * 3 * 2 * 64 * 2);
  const auto experts = load(kExperts, DType::kQ8_0);
  EXPECT_LT(experts->footprint().step_weight_bytes, experts->footprint().weights_bytes);
}

// ---- generation

GenerateResult answer(Engine& engine, const std::vector<TokenId>& tokens, const GenerateOptions& options,
                      std::vector<std::vector<float>>* logits = nullptr) {
  Sequence sequence(engine);
  sequence.append(tokens);
  const auto on_token = [&](TokenId, std::span<const float> row) {
    if (logits != nullptr) logits->emplace_back(row.begin(), row.end());
    return true;
  };
  auto result = generate(engine, sequence, options, on_token);
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
  if (!result) return {};
  // The sequence is the prompt and the answer.
  std::vector<TokenId> all = tokens;
  all.insert(all.end(), result->tokens.begin(), result->tokens.end());
  EXPECT_EQ(sequence.tokens(), all);
  return *result;
}

TEST(Generate, SpeculationChangesNothing) {
  const auto engine = load(kDense, DType::kQ4_0), same = load(kDense, DType::kQ4_0),
             other = load(kDense, DType::kQ4_0, small_options(), 7);
  for (const float temperature : {0.0F, 0.8F}) {
    GenerateOptions options;
    options.max_tokens = 60;
    options.sampler.temperature = temperature;
    options.sampler.seed = 5;
    options.sampler.repetition_penalty = 1.1F;
    Rows plain_logits;
    const GenerateResult plain = answer(*engine, prompt(20), options, &plain_logits);
    EXPECT_EQ(plain.tokens.size(), 60U);
    EXPECT_EQ(plain.steps, 59);
    EXPECT_EQ(plain.reason, StopReason::kMaxTokens);
    for (Engine* draft : {same.get(), other.get(), static_cast<Engine*>(nullptr)}) {
      options.draft = draft;
      options.lookup = draft == nullptr ? 5 : 0;
      Rows logits;
      const GenerateResult drafted = answer(*engine, prompt(20), options, &logits);
      EXPECT_EQ(plain.tokens, drafted.tokens) << temperature;
      EXPECT_TRUE(same_bits(plain_logits, logits)) << temperature;
      EXPECT_LE(drafted.accepted, drafted.drafted);
      EXPECT_EQ(drafted.steps + drafted.accepted, 59) << temperature;
      if (draft == same.get() && temperature == 0.0F) {
        EXPECT_GT(drafted.accepted, 0);
      }
    }
  }
  engine->blocks().check_invariants();
  EXPECT_EQ(engine->blocks().free_count(), engine->blocks().capacity());
}

TEST(Generate, GoodDraftsSaveSteps) {
  const auto engine = load(kDense, DType::kQ4_0), same = load(kDense, DType::kQ4_0);
  GenerateOptions options;
  options.max_tokens = 41;
  options.draft = same.get();
  options.draft_tokens = 4;
  const GenerateResult result = answer(*engine, prompt(20), options);
  EXPECT_EQ(result.steps, 8);  // 40 tokens behind the first, five at a time
  EXPECT_EQ(result.accepted, 32);
}

TEST(Generate, LogitsOfEveryPosition) {
  const auto engine = load(kDense, DType::kQ4_0);
  GenerateOptions options;
  options.max_tokens = 5;
  Rows rows;
  options.on_logits = [&](std::int64_t position, std::span<const float> row) {
    EXPECT_EQ(position, static_cast<std::int64_t>(rows.size()));
    rows.emplace_back(row.begin(), row.end());
  };
  const GenerateResult result = answer(*engine, prompt(20), options);
  ASSERT_EQ(rows.size(), 25U);
  std::vector<TokenId> all = prompt(20);
  all.insert(all.end(), result.tokens.begin(), result.tokens.end());
  EXPECT_TRUE(same_bits(logits_of(*engine, all), rows));
  options.max_tokens = 0;
  rows.clear();
  answer(*engine, prompt(20), options);
  EXPECT_EQ(rows.size(), 20U);
}

TEST(Generate, ReusesPrefixesAndContinues) {
  const auto engine = load(kDense, DType::kQ4_0);
  GenerateOptions options;
  options.max_tokens = 10;
  const GenerateResult first = answer(*engine, prompt(40), options);
  EXPECT_EQ(first.reused_tokens, 0);
  EXPECT_EQ(first.prompt_tokens, 40);
  const GenerateResult second = answer(*engine, prompt(40), options);
  EXPECT_EQ(second.reused_tokens, 32);
  EXPECT_EQ(second.prompt_tokens, 8);
  EXPECT_EQ(first.tokens, second.tokens);
  // A sequence whose tokens are all computed still gives logits.
  Sequence sequence(*engine);
  sequence.append(prompt(40));
  logits_of(*engine, sequence, 100);
  const auto third = generate(*engine, sequence, options, {});
  ASSERT_TRUE(third.has_value());
  EXPECT_EQ(third->tokens, first.tokens);
  EXPECT_EQ(third->prompt_tokens, 1);
}

TEST(Generate, EndsForEveryReason) {
  EngineOptions small = small_options();
  small.kv_tokens = 32;
  const auto engine = load(kDense, DType::kQ4_0, small);
  GenerateOptions options;
  options.max_tokens = 100;
  const GenerateResult context = answer(*engine, prompt(20), options);
  EXPECT_EQ(context.reason, StopReason::kContext);
  EXPECT_EQ(context.tokens.size(), 13U);  // 32 positions are computed, and one token is chosen from the last
  options.max_tokens = 0;
  EXPECT_EQ(answer(*engine, prompt(20), options).reason, StopReason::kMaxTokens);
  options.max_tokens = 100;
  Sequence sequence(*engine);
  sequence.append(prompt(5));
  int left = 3;
  const auto stopped = generate(*engine, sequence, options, [&](TokenId, std::span<const float>) { return --left > 0; });
  ASSERT_TRUE(stopped.has_value());
  EXPECT_EQ(stopped->reason, StopReason::kCancelled);
  EXPECT_EQ(stopped->tokens.size(), 3U);
}

TEST(Generate, OptionsThatDoNotFitAreRefused) {
  const auto engine = load(kDense, DType::kQ4_0);
  const auto refused = [&](const GenerateOptions& options, std::string_view word, std::int64_t length = 5) {
    Sequence sequence(*engine);
    sequence.append(prompt(length));
    const auto result = generate(*engine, sequence, options, {});
    ASSERT_FALSE(result.has_value()) << word;
    EXPECT_NE(result.error().message.find(word), std::string::npos) << result.error().message;
  };
  GenerateOptions options;
  refused(options, "empty prompt", 0);
  options.max_tokens = -1;
  refused(options, "max_tokens");
  options = {};
  options.lookup = 65;
  refused(options, "lookup");
  options = {};
  options.draft = engine.get();
  refused(options, "itself");
  options = {};
  options.stop = {"x"};
  refused(options, "tokenizer");
  options = {};
  options.sampler.temperature = -1;
  refused(options, "temperature");
  options = {};
  refused(options, "512 positions", 600);
}

}  // namespace
}  // namespace rooftree::engine

// Attention against a plain twin that follows docs/design/006-numeric-contract.md word by word (equal bits), against attention
// in binary64 (stated bounds), and against itself: other instruction sets, threads, chunks, batches, page sizes.

#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "base/thread_pool.h"
#include "kernels/cpu/kernel_test_support.h"
#include "kernels/cpu/row_kernels.h"

namespace rooftree::kernels::cpu {
namespace {

using test::instruction_sets;
using test::label;
using test::same_bits;
using test::Values;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Problem {
  KvShape shape{.type = DType::kBf16, .kv_heads = 2, .head_dim = 64, .value_dim = 64, .page_tokens = 64};
  std::int64_t heads = 4;
  std::vector<std::int64_t> lengths{100};  // positions of each sequence
  bool causal = true;
  std::int64_t window = 0;
  float scale = 0.125F;
  std::vector<float> sinks;
  ScoreModifier modifier;
  std::uint64_t seed = 1;
  float spread = 2.0F;  // of queries and keys
  std::optional<std::vector<float>> fixed_k, fixed_v;

  [[nodiscard]] std::int64_t total() const {
    std::int64_t sum = 0;
    for (const std::int64_t n : lengths) sum += n;
    return sum;
  }
  // Inputs of all positions, sequence after sequence.
  [[nodiscard]] std::vector<float> q() const { return Values(seed).row(total() * heads * shape.head_dim, spread); }
  [[nodiscard]] std::vector<float> k() const {
    return fixed_k ? *fixed_k : Values(seed + 1).row(total() * shape.kv_heads * shape.head_dim, spread);
  }
  [[nodiscard]] std::vector<float> v() const {
    return fixed_v ? *fixed_v : Values(seed + 2).row(total() * shape.kv_heads * shape.value_dim);
  }
};

struct Way {
  CpuFeatures features = detected_cpu_features();
  int threads = 1;
  std::int64_t chunk = 1 << 20;  // positions of each sequence per step
};

// Runs all positions of all sequences, `chunk` per step, all sequences of a step in one call; returns all outputs.
std::vector<float> run(const Problem& p, const Way& way) {
  const AttentionKernels& kernels = attention_kernels(way.features);
  const std::size_t bytes = kernels.page_bytes(p.shape);
  EXPECT_GT(bytes, 0U);
  // Pages in a shuffled order, full of NaN: what nobody wrote must not matter.
  std::vector<std::vector<std::int32_t>> tables;
  std::int32_t pages = 0;
  for (const std::int64_t n : p.lengths) {
    tables.emplace_back();
    for (std::int64_t i = 0; i < (n + p.shape.page_tokens - 1) / p.shape.page_tokens; ++i) tables.back().push_back(pages++);
  }
  for (auto& table : tables) {
    for (auto& page : table) page = (page * 7 + 3) % pages;
  }
  if (pages % 7 == 0) {  // 7 would not be a permutation
    pages = 0;
    for (auto& table : tables) {
      for (auto& page : table) page = pages++;
    }
  }
  const std::size_t stride = bytes + 64;
  std::vector<std::byte> memory(stride * static_cast<std::size_t>(pages) + 64, std::byte{0xFF});
  const std::size_t shift = (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
  const KvCache cache{.shape = p.shape, .base = memory.data() + shift, .page_stride = stride};

  const std::vector<float> q = p.q(), k = p.k(), v = p.v();
  const std::int64_t q_width = p.heads * p.shape.head_dim, k_width = p.shape.kv_heads * p.shape.head_dim,
                     v_width = p.shape.kv_heads * p.shape.value_dim, y_width = p.heads * p.shape.value_dim;
  std::vector<float> y(static_cast<std::size_t>(p.total() * y_width), -7.0F);
  ThreadPool pool({.threads = way.threads, .pin = false});
  const std::int64_t longest = *std::max_element(p.lengths.begin(), p.lengths.end());
  for (std::int64_t past = 0; past < longest; past += way.chunk) {
    std::vector<SequenceRows> sequences;
    std::int64_t first = 0;
    for (std::size_t s = 0; s < p.lengths.size(); ++s) {
      // Rows are where they are in the whole: first_row need not be dense.
      if (past < p.lengths[s]) {
        sequences.push_back({first + past, std::min(way.chunk, p.lengths[s] - past), past, tables[s].data()});
      }
      first += p.lengths[s];
    }
    pool.run([&](const Worker& worker) {
      kernels.write(worker, {.cache = cache, .sequences = sequences, .k = {k.data(), k_width}, .v = {v.data(), v_width}});
      worker.barrier();
      kernels.attend(worker, {.cache = cache,
                              .sequences = sequences,
                              .heads = p.heads,
                              .q = {q.data(), q_width},
                              .y = {y.data(), y_width},
                              .scale = p.scale,
                              .causal = p.causal,
                              .window = p.window,
                              .sinks = p.sinks.empty() ? nullptr : p.sinks.data(),
                              .modifier = p.modifier});
    });
  }
  return y;
}

// ---- The contract, plainly ----

float mapped(void (*function)(const float*, float*, std::int64_t), float x) {
  float y = 0;
  function(&x, &y, 1);
  return y;
}
const MathFunctions& math() {
  static const MathFunctions& functions = math_functions(limit(detected_cpu_features(), Isa::kPortable));
  return functions;
}
std::vector<float> rounded(DType type, std::vector<float> x) {
  if (type != DType::kF32) {
    (type == DType::kF16 ? math().round_f16 : math().round_bf16)(x.data(), x.data(), static_cast<std::int64_t>(x.size()));
  }
  return x;
}
float chained(DType type, float sum, float a, float b) { return type == DType::kF32 ? std::fma(a, b, sum) : sum + a * b; }

std::int64_t t5_bucket(const ScoreModifier& m, std::int64_t distance) {
  std::int64_t buckets = m.buckets, first = 0;
  if (m.bidirectional) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    distance = std::abs(distance);
  } else {
    distance = std::max<std::int64_t>(-distance, 0);
  }
  const std::int64_t exact = buckets / 2;
  if (distance < exact) return first + distance;
  const double place = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                       std::log(static_cast<double>(m.max_distance) / static_cast<double>(exact)) *
                       static_cast<double>(buckets - exact);
  return first + std::min(exact + static_cast<std::int64_t>(place), buckets - 1);
}

float modified(const ScoreModifier& m, float score, std::int64_t head, std::int64_t query, std::int64_t key) {
  switch (m.kind) {
    case ScoreModifier::Kind::kNone:
      return score;
    case ScoreModifier::Kind::kSoftcap:
      return m.softcap * mapped(math().tanh, score / m.softcap);
    case ScoreModifier::Kind::kAlibi:
      return score - m.slopes[head] * static_cast<float>(query - key);
    case ScoreModifier::Kind::kRelativeBias:
      return score + m.bias[head * m.buckets + t5_bucket(m, key - query)];
    case ScoreModifier::Kind::kDocumentMask:
      return m.documents[query] == m.documents[key] ? score : -kInfinity;
  }
  return score;
}

bool sees(const Problem& p, std::int64_t query, std::int64_t key) {
  if (p.causal && key > query) return false;
  return p.window == 0 || key > query - p.window;
}

// y of every position, in the contract's order and roundings.
std::vector<float> twin(const Problem& p) {
  const KvShape& s = p.shape;
  const std::vector<float> q = rounded(s.type, p.q()), k = rounded(s.type, p.k()), v = rounded(s.type, p.v());
  std::vector<float> y;
  std::int64_t first = 0;
  for (const std::int64_t n : p.lengths) {
    for (std::int64_t query = 0; query < n; ++query) {
      for (std::int64_t head = 0; head < p.heads; ++head) {
        const std::int64_t kv = head / (p.heads / s.kv_heads);
        float m = -kInfinity, l = 0;
        std::vector<float> o(static_cast<std::size_t>(s.value_dim));
        for (std::int64_t block = 0; block < n; block += 256) {
          std::vector<float> score(256);
          float top = -kInfinity;
          for (std::int64_t j = 0; j < 256; ++j) {
            float sum = -kInfinity;
            if (block + j < n && sees(p, query, block + j)) {
              sum = 0;
              for (std::int64_t d = 0; d < s.head_dim; ++d) {
                const float a = q[static_cast<std::size_t>(((first + query) * p.heads + head) * s.head_dim + d)];
                const float b = k[static_cast<std::size_t>(((first + block + j) * s.kv_heads + kv) * s.head_dim + d)];
                sum = chained(s.type, sum, a, b);
              }
              sum = modified(p.modifier, sum * p.scale, head, query, block + j);
            }
            score[static_cast<std::size_t>(j)] = sum;
            top = std::max(top, sum);
          }
          if (top == -kInfinity) continue;
          const float after = std::max(m, top), a = mapped(math().exp, m - after);
          for (float& value : score) value -= after;
          math().exp(score.data(), score.data(), 256);
          const std::vector<float> prob = rounded(s.type, score);
          m = after;
          l = l * a + math().sum(prob.data(), 256);
          for (std::int64_t d = 0; d < s.value_dim; ++d) {
            float sum = 0;
            for (std::int64_t j = 0; j < 256 && block + j < n; ++j) {
              const float b = v[static_cast<std::size_t>(((first + block + j) * s.kv_heads + kv) * s.value_dim + d)];
              sum = chained(s.type, sum, prob[static_cast<std::size_t>(j)], b);
            }
            o[static_cast<std::size_t>(d)] = o[static_cast<std::size_t>(d)] * a + sum;
          }
        }
        float factor = 1;
        if (!p.sinks.empty()) {
          const float sink = p.sinks[static_cast<std::size_t>(head)], after = std::max(m, sink);
          factor = mapped(math().exp, m - after);
          l = l * factor + mapped(math().exp, sink - after);
        }
        for (const float sum : o) y.push_back(sum * factor / l);
      }
    }
    first += n;
  }
  return y;
}

// The same without them.
std::vector<double> exact(const Problem& p) {
  const KvShape& s = p.shape;
  const std::vector<float> q = p.q(), k = p.k(), v = p.v();
  std::vector<double> y;
  std::int64_t first = 0;
  for (const std::int64_t n : p.lengths) {
    for (std::int64_t query = 0; query < n; ++query) {
      for (std::int64_t head = 0; head < p.heads; ++head) {
        const std::int64_t kv = head / (p.heads / s.kv_heads);
        double l = p.sinks.empty() ? 0.0 : std::exp(static_cast<double>(p.sinks[static_cast<std::size_t>(head)]));
        std::vector<double> o(static_cast<std::size_t>(s.value_dim));
        for (std::int64_t key = 0; key < n; ++key) {
          if (!sees(p, query, key)) continue;
          double sum = 0;
          for (std::int64_t d = 0; d < s.head_dim; ++d) {
            sum += static_cast<double>(q[static_cast<std::size_t>(((first + query) * p.heads + head) * s.head_dim + d)]) *
                   static_cast<double>(k[static_cast<std::size_t>(((first + key) * s.kv_heads + kv) * s.head_dim + d)]);
          }
          const double e = std::exp(static_cast<double>(
              modified(p.modifier, static_cast<float>(sum * static_cast<double>(p.scale)), head, query, key)));
          l += e;
          for (std::int64_t d = 0; d < s.value_dim; ++d) {
            o[static_cast<std::size_t>(d)] +=
                e * static_cast<double>(v[static_cast<std::size_t>(((first + key) * s.kv_heads + kv) * s.value_dim + d)]);
          }
        }
        for (const double sum : o) y.push_back(sum / l);
      }
    }
    first += n;
  }
  return y;
}

// All instruction sets give the bits of the twin, in one piece and in pieces.
void expect_contract(const Problem& p) {
  const std::vector<float> expected = twin(p);
  for (const float value : expected) ASSERT_TRUE(std::isfinite(value));
  for (const CpuFeatures& set : instruction_sets()) {
    EXPECT_TRUE(same_bits(run(p, {.features = set}), expected)) << label(set);
    if (!p.causal) continue;  // later rows would not be there yet
    EXPECT_TRUE(same_bits(run(p, {.features = set, .threads = 2, .chunk = 13}), expected)) << label(set);
  }
}

constexpr std::array<DType, 3> kPlainTypes{DType::kF32, DType::kF16, DType::kBf16};
constexpr std::array<DType, 5> kTypes{DType::kF32, DType::kF16, DType::kBf16, DType::kQ8_0, DType::kQ4_0};

TEST(Attention, FollowsTheContract) {
  for (const DType type : kPlainTypes) {
    SCOPED_TRACE(name(type));
    Problem p;
    p.shape.type = type;
    p.lengths = {70};
    expect_contract(p);
    p.lengths = {530};  // three blocks of 256
    p.shape.kv_heads = 1;
    p.heads = 1;
    p.shape.head_dim = 16;
    p.shape.value_dim = 32;
    p.scale = 0.25F;
    expect_contract(p);
  }
}

TEST(Attention, ShapesOfHeads) {
  for (const DType type : kPlainTypes) {
    for (const auto& [head_dim, value_dim] : std::vector<std::array<std::int64_t, 2>>{
             {2, 2}, {10, 6}, {24, 20}, {80, 80}, {96, 112}, {128, 128}, {576, 512}, {6, 100}, {1024, 16}}) {
      SCOPED_TRACE(testing::Message() << name(type) << " " << head_dim << " " << value_dim);
      Problem p;
      p.shape = {.type = type, .kv_heads = 1, .head_dim = head_dim, .value_dim = value_dim, .page_tokens = 32};
      p.heads = 3;
      p.lengths = {35};
      p.scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
      expect_contract(p);
    }
  }
}

TEST(Attention, QueryHeadsPerKeyValueHead) {
  for (const std::int64_t group : {1, 2, 3, 4, 5, 7, 8, 20}) {
    SCOPED_TRACE(group);
    Problem p;
    p.shape.kv_heads = 3;
    p.shape.head_dim = p.shape.value_dim = 32;
    p.heads = 3 * group;
    p.lengths = {41};
    expect_contract(p);
  }
}

TEST(Attention, Windows) {
  for (const std::int64_t window : {1, 2, 15, 16, 17, 31, 100, 255, 256, 257, 300, 1000}) {
    SCOPED_TRACE(window);
    Problem p;
    p.shape = {.kv_heads = 1, .head_dim = 8, .value_dim = 16, .page_tokens = 48};
    p.heads = 2;
    p.lengths = {310};
    p.window = window;
    expect_contract(p);
  }
}

// A window of w: the key w - 1 behind counts, the key w behind does not, at every alignment.
TEST(Attention, WindowEdgesAreExact) {
  for (const CpuFeatures& set : instruction_sets()) {
    for (const std::int64_t window : {1, 7, 16, 33, 256}) {
      Problem p;
      p.shape = {.type = DType::kF32, .kv_heads = 1, .head_dim = 2, .value_dim = 1, .page_tokens = 64};
      p.heads = 1;
      p.lengths = {300};
      p.window = window;
      p.spread = 0.0F;  // all scores are zero: the output is the mean of the values seen
      std::vector<float> values(300);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
      p.fixed_v = values;
      const std::vector<float> y = run(p, {.features = set});
      for (std::int64_t i = 0; i < 300; ++i) {
        const std::int64_t from = std::max<std::int64_t>(0, i - window + 1);
        EXPECT_NEAR(y[static_cast<std::size_t>(i)], static_cast<float>(from + i) / 2.0F, 1e-4F)
            << label(set) << window << " " << i;
      }
    }
  }
}

TEST(Attention, NotCausal) {
  for (const std::int64_t window : {0, 20}) {
    Problem p;
    p.causal = false;
    p.window = window;
    p.lengths = {270, 33};
    p.shape.head_dim = p.shape.value_dim = 32;
    expect_contract(p);
  }
}

TEST(Attention, Sinks) {
  Problem p;
  p.lengths = {270};
  p.shape.head_dim = p.shape.value_dim = 32;
  p.sinks = {0.5F, -3.0F, 20.0F, 0.0F};
  expect_contract(p);
  p.sinks = {120.0F, 120.0F, -200.0F, -200.0F};  // far above and far below every score
  expect_contract(p);
}

TEST(Attention, ScoreModifiers) {
  Problem p;
  p.lengths = {290};
  p.shape.head_dim = p.shape.value_dim = 32;
  p.modifier = {.kind = ScoreModifier::Kind::kSoftcap, .softcap = 3.0F};
  expect_contract(p);
  const std::vector<float> slopes{0.5F, 0.25F, 0.0625F, 0.01F};
  p.modifier = {.kind = ScoreModifier::Kind::kAlibi, .slopes = slopes.data()};
  expect_contract(p);
  const std::vector<float> bias = Values(9).row(4 * 32);
  for (const bool bidirectional : {false, true}) {
    p.modifier = {.kind = ScoreModifier::Kind::kRelativeBias,
                  .bias = bias.data(),
                  .buckets = 32,
                  .max_distance = 128,
                  .bidirectional = bidirectional};
    p.causal = !bidirectional;
    expect_contract(p);
  }
  p.causal = true;
  std::vector<std::int32_t> documents(290);
  for (std::size_t i = 0; i < documents.size(); ++i) documents[i] = i < 17 ? 0 : i < 258 ? 1 : 2;
  p.modifier = {.kind = ScoreModifier::Kind::kDocumentMask, .documents = documents.data()};
  expect_contract(p);
}

TEST(Attention, RelativeBucketsOfOtherSizes) {
  for (const auto& [buckets, max_distance] :
       std::vector<std::array<std::int64_t, 2>>{{32, 128}, {16, 128}, {64, 256}, {12, 100}, {8, 20}}) {
    std::vector<std::int32_t> table(static_cast<std::size_t>(max_distance + 1));
    relative_buckets(buckets, max_distance, table.data());
    const ScoreModifier m{.buckets = buckets, .max_distance = max_distance};
    for (std::int64_t d = 0; d <= max_distance; ++d)
      EXPECT_EQ(table[static_cast<std::size_t>(d)], t5_bucket(m, -d)) << buckets << " " << d;
  }
}

// Scores that grow along the sequence: the running maximum moves in every block; and large ones, where all but one p vanish.
TEST(Attention, MovingMaximum) {
  for (const DType type : kPlainTypes) {
    Problem p;
    p.shape = {.type = type, .kv_heads = 1, .head_dim = 4, .value_dim = 16, .page_tokens = 64};
    p.heads = 2;
    p.lengths = {600};
    p.scale = 1.0F;
    std::vector<float> keys;
    for (int i = 0; i < 600; ++i) {
      for (int d = 0; d < 4; ++d) keys.push_back(static_cast<float>(i) * 0.01F * static_cast<float>(d + 1));
    }
    p.fixed_k = keys;
    expect_contract(p);
    p.spread = 60.0F;
    expect_contract(p);
  }
}

// In units of the largest value, 1: p is rounded to 8 bits (bf16) or 11 (f16), q and k to the same, which moves scores of a
// magnitude up to about 5 by 5 * 2^-8; f32 rounds only sums.
TEST(Attention, NearTheExactResult) {
  for (const DType type : kTypes) {
    SCOPED_TRACE(name(type));
    Problem p;
    p.shape.type = type;
    p.lengths = {300};
    const double bound = type == DType::kF32 ? 2e-6 : type == DType::kF16 ? 4e-3 : type == DType::kQ4_0 ? 0.35 : 3e-2;
    const std::vector<double> expected = exact(p);
    for (const CpuFeatures& set : instruction_sets()) {
      const std::vector<float> y = run(p, {.features = set});
      double worst = 0, squares = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double error = std::fabs(static_cast<double>(y[i]) - expected[i]);
        worst = std::max(worst, error);
        squares += error * error;
      }
      EXPECT_LE(worst, bound) << label(set);
      EXPECT_LE(std::sqrt(squares / static_cast<double>(y.size())), bound / 8) << label(set);
    }
  }
}

// Values that the quantised types hold exactly: the result has the bits of bf16.
TEST(Attention, QuantisedReadsAsBf16) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    Problem p;
    p.shape.head_dim = 96;
    p.shape.value_dim = 64;
    p.lengths = {290, 31};
    Values values(5);
    const auto representable = [&](std::int64_t n) {
      std::vector<float> x(static_cast<std::size_t>(n));
      for (std::size_t i = 0; i < x.size(); i += 32) {
        const float scale = std::ldexp(1.0F, -static_cast<int>(values.bits() % 4) - (type == DType::kQ8_0 ? 6 : 2));
        const int low = type == DType::kQ8_0 ? -127 : -8, count = type == DType::kQ8_0 ? 255 : 16;
        for (std::size_t j = 0; j < 32; ++j) {
          x[i + j] = scale * static_cast<float>(low + static_cast<int>(values.bits() % static_cast<std::uint64_t>(count)));
        }
        x[i + values.bits() % 32] = scale * static_cast<float>(low);
      }
      return x;
    };
    p.fixed_k = representable(p.total() * p.shape.kv_heads * p.shape.head_dim);
    p.fixed_v = representable(p.total() * p.shape.kv_heads * p.shape.value_dim);
    const std::vector<float> expected = run(p, {});
    p.shape.type = type;
    for (const CpuFeatures& set : instruction_sets()) {
      EXPECT_TRUE(same_bits(run(p, {.features = set}), expected)) << name(type) << " " << label(set);
    }
  }
}

TEST(Attention, BitsDoNotDependOnSetThreadsChunksPages) {
  for (const DType type : kTypes) {
    SCOPED_TRACE(name(type));
    Problem p;
    p.shape.type = type;
    p.lengths = {333};
    p.window = 200;
    const std::vector<float> expected = run(p, {});
    for (const CpuFeatures& set : instruction_sets()) {
      EXPECT_TRUE(same_bits(run(p, {.features = set}), expected)) << label(set);
      for (const std::int64_t chunk : {1, 7, 64, 100}) {
        EXPECT_TRUE(same_bits(run(p, {.features = set, .chunk = chunk}), expected)) << label(set) << " chunk " << chunk;
      }
      for (const int threads : {2, 3, 5}) {
        EXPECT_TRUE(same_bits(run(p, {.features = set, .threads = threads, .chunk = 50}), expected))
            << label(set) << " threads " << threads;
      }
    }
    for (const std::int64_t page : {16, 48, 128, 256, 512}) {
      p.shape.page_tokens = page;
      EXPECT_TRUE(same_bits(run(p, {.chunk = 40}), expected)) << "pages of " << page;
    }
  }
}

TEST(Attention, BitsDoNotDependOnTheBatch) {
  for (const DType type : kTypes) {
    Problem p;
    p.shape.type = type;
    p.lengths = {40, 1, 300, 17, 256};
    const std::vector<float> k = p.k(), v = p.v();
    for (const int threads : {1, 2, 3}) {
      const std::vector<float> together = run(p, {.threads = threads, .chunk = 29});
      EXPECT_TRUE(same_bits(together, run(p, {}))) << name(type) << " threads " << threads;
      // Each sequence alone. Its keys and values are a piece of the batch's; queries of zero are any sequence's, and ALiBi
      // keeps the weights uneven.
      std::size_t at_k = 0, at_v = 0, at_y = 0;
      Problem flat = p;
      flat.spread = 0.0F;
      flat.fixed_k = k;
      flat.fixed_v = v;
      const std::vector<float> slopes{0.5F, 0.25F, 0.125F, 0.0625F};
      flat.modifier = {.kind = ScoreModifier::Kind::kAlibi, .slopes = slopes.data()};
      const std::vector<float> batch = run(flat, {.threads = threads, .chunk = 29});
      for (const std::int64_t n : p.lengths) {
        Problem alone = flat;
        alone.lengths = {n};
        const auto k_size = static_cast<std::size_t>(n * p.shape.kv_heads * p.shape.head_dim);
        const auto v_size = static_cast<std::size_t>(n * p.shape.kv_heads * p.shape.value_dim);
        const auto y_size = static_cast<std::size_t>(n * p.heads * p.shape.value_dim);
        alone.fixed_k = std::vector<float>(k.begin() + static_cast<std::ptrdiff_t>(at_k),
                                           k.begin() + static_cast<std::ptrdiff_t>(at_k + k_size));
        alone.fixed_v = std::vector<float>(v.begin() + static_cast<std::ptrdiff_t>(at_v),
                                           v.begin() + static_cast<std::ptrdiff_t>(at_v + v_size));
        const std::vector<float> y = run(alone, {});
        EXPECT_TRUE(std::equal(y.begin(), y.end(), batch.begin() + static_cast<std::ptrdiff_t>(at_y)))
            << name(type) << " of " << n;
        at_k += k_size, at_v += v_size, at_y += y_size;
      }
    }
  }
}

TEST(Attention, PagesOfShapesThatAreNotKept) {
  for (const CpuFeatures& set : instruction_sets()) {
    const auto bytes = [&](KvShape shape) { return attention_kernels(set).page_bytes(shape); };
    const KvShape shape{.type = DType::kBf16, .kv_heads = 2, .head_dim = 64, .value_dim = 64, .page_tokens = 64};
    EXPECT_EQ(bytes(shape), 2U * 64 * (64 + 64) * 2);
    KvShape q8 = shape;
    q8.type = DType::kQ8_0;
    EXPECT_EQ(bytes(q8), 2U * 64 * (64 + 64) * 34 / 32);
    KvShape q4 = shape;
    q4.type = DType::kQ4_0;
    EXPECT_EQ(bytes(q4), 2U * 64 * (64 + 64) * 18 / 32);
    q8.head_dim = 80;
    EXPECT_EQ(bytes(q8), 0U);
    q4.value_dim = 16;
    EXPECT_EQ(bytes(q4), 0U);
    KvShape bad = shape;
    bad.type = DType::kQ4K;
    EXPECT_EQ(bytes(bad), 0U);
    bad = shape;
    bad.page_tokens = 40;
    EXPECT_EQ(bytes(bad), 0U);
    bad = shape;
    bad.kv_heads = 0;
    EXPECT_EQ(bytes(bad), 0U);
    bad = shape;
    bad.head_dim = 0;
    EXPECT_EQ(bytes(bad), 0U);
  }
}

}  // namespace
}  // namespace rooftree::kernels::cpu

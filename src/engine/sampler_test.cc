#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace rooftree::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Choice choose(const SamplerOptions& options, std::vector<float> logits, const std::vector<TokenId>& history = {},
              std::uint64_t sequence = 0) {
  return Sampler(options).choose(logits, history, sequence);
}

// Logits whose softmax is `probabilities` (up to rounding).
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// How often each token is chosen over `trials` positions of one sequence.
std::vector<int> count_choices(SamplerOptions options, const std::vector<float>& logits, int trials) {
  std::vector<int> counts(logits.size());
  Sampler sampler(options);
  std::vector<TokenId> history;
  std::vector<float> scratch;
  for (int i = 0; i < trials; ++i) {
    scratch = logits;
    ++counts[static_cast<std::size_t>(sampler.choose(scratch, history).token)];
    history.push_back(0);
  }
  return counts;
}

// Counts lie within five standard deviations of the binomial distribution; a probability of 0 is never drawn.
void expect_frequencies(const std::vector<int>& counts, const std::vector<double>& probabilities, int trials) {
  ASSERT_EQ(counts.size(), probabilities.size());
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double p = probabilities[i];
    EXPECT_NEAR(counts[i], trials * p, 5 * std::sqrt(trials * p * (1 - p)) + 1e-9) << "token " << i;
  }
}

// The tokens that can be chosen at all.
std::vector<TokenId> support(SamplerOptions options, const std::vector<float>& logits, int trials = 4000) {
  options.temperature = 1e6F;  // nearly uniform over what the filters leave
  const std::vector<int> counts = count_choices(options, logits, trials);
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) tokens.push_back(static_cast<TokenId>(i));
  }
  return tokens;
}

TEST(SamplerMath, ExponentialWithinTheStatedBound) {
  double worst = 0;
  for (int i = 0; i <= 200000; ++i) {
    const double x = -708.0 * i / 200000.0;
    worst = std::max(worst, std::abs(sampler_exp(x) / std::exp(x) - 1));
  }
  for (double x = -1e-300; x > -0.5; x *= 1.7) worst = std::max(worst, std::abs(sampler_exp(x) / std::exp(x) - 1));
  EXPECT_LE(worst, 0x1p-50);
  EXPECT_EQ(sampler_exp(0), 1.0);
  EXPECT_EQ(sampler_exp(-708.5), 0.0);
  EXPECT_EQ(sampler_exp(-std::numeric_limits<double>::infinity()), 0.0);
}

TEST(SamplerMath, LogarithmWithinTheStatedBound) {
  double worst = 0;
  for (double x = 1e-300; x < 1e300; x *= 1.37) worst = std::max(worst, std::abs(sampler_log(x) / std::log(x) - 1));
  for (int i = 1; i < 20000; ++i) {
    for (const double x : {1 + i / 20000.0, 1 - i / 20001.0})
      worst = std::max(worst, std::abs(sampler_log(x) / std::log(x) - 1));
  }
  EXPECT_LE(worst, 0x1p-50);
  EXPECT_EQ(sampler_log(1), 0.0);
}

TEST(Sampler, GreedyTakesTheLargestWithTiesToTheLowestId) {
  EXPECT_EQ(choose({}, {1, 3, 3, 2}).token, 1);
  EXPECT_EQ(choose({}, {-5, -4, -4.5F}).token, 1);
  EXPECT_EQ(choose({}, {0, 0, 0}).token, 0);
}

TEST(Sampler, LogProbabilityIsThatOfTheWholeDistributionAtTemperatureOne) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.125};
  EXPECT_NEAR(choose({}, logits_of(p)).log_probability, std::log(0.5), 1e-6);
  const SamplerOptions filtered{.temperature = 2.0F, .top_k = 2};
  for (int position = 0; position < 50; ++position) {
    const Choice choice = choose(filtered, logits_of(p), std::vector<TokenId>(static_cast<std::size_t>(position), 3));
    EXPECT_NEAR(choice.log_probability, std::log(p[static_cast<std::size_t>(choice.token)]), 1e-6);
  }
}

TEST(Sampler, NanIsNeverChosenAndNothingToChooseIsVisible) {
  EXPECT_EQ(choose({}, {kNan, 1, kNan}).token, 1);
  EXPECT_EQ(support({}, {kNan, 1, -kInf, 2, kNan}), (std::vector<TokenId>{1, 3}));
  for (const SamplerOptions& options : {SamplerOptions{}, SamplerOptions{.temperature = 1.0F, .top_p = 0.5F}}) {
    const Choice none = choose(options, {kNan, -kInf, -kInf});
    EXPECT_EQ(none.token, kNoToken);
    EXPECT_EQ(none.log_probability, -kInf);
    EXPECT_EQ(choose(options, {}).token, kNoToken);
  }
}

TEST(Sampler, InfiniteLogitsShareTheProbability) {
  const std::vector<float> logits = {5, kInf, 1, kInf};
  for (const SamplerOptions& options : {SamplerOptions{}, SamplerOptions{.typical_p = 0.6F}, SamplerOptions{.top_p = 0.9F}}) {
    EXPECT_EQ(support(options, logits), (std::vector<TokenId>{1, 3}));
  }
  EXPECT_EQ(choose({}, logits).token, 1);
  EXPECT_NEAR(choose({}, logits).log_probability, std::log(0.5), 1e-6);
}

TEST(Sampler, FrequenciesAreTheProbabilities) {
  constexpr int kTrials = 200000;
  const std::vector<double> p = {0.4, 0.05, 0.3, 0.15, 0.1};
  expect_frequencies(count_choices({.temperature = 1.0F, .seed = 1}, logits_of(p), kTrials), p, kTrials);

  std::vector<double> warm;  // p^(1/T), normalised
  for (const double value : p) warm.push_back(std::pow(value, 1 / 2.5));
  const double total = std::accumulate(warm.begin(), warm.end(), 0.0);
  for (double& value : warm) value /= total;
  expect_frequencies(count_choices({.temperature = 2.5F, .seed = 2}, logits_of(p), kTrials), warm, kTrials);

  // Top-k 3 leaves 0.4, 0.3, 0.15; then temperature 1.
  expect_frequencies(count_choices({.temperature = 1.0F, .top_k = 3, .seed = 3}, logits_of(p), kTrials),
                     {0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0}, kTrials);
}

TEST(Sampler, FrequenciesOverSeedsAndSequences) {
  constexpr int kTrials = 100000;
  const std::vector<double> p = {0.25, 0.125, 0.625};
  const std::vector<float> logits = logits_of(p);
  std::vector<int> by_seed(3), by_sequence(3);
  for (int i = 0; i < kTrials; ++i) {
    ++by_seed[static_cast<std::size_t>(choose({.temperature = 1.0F, .seed = static_cast<std::uint64_t>(i)}, logits).token)];
    ++by_sequence[static_cast<std::size_t>(choose({.temperature = 1.0F}, logits, {}, static_cast<std::uint64_t>(i)).token)];
  }
  expect_frequencies(by_seed, p, kTrials);
  expect_frequencies(by_sequence, p, kTrials);
}

TEST(SamplerFilter, TopKKeepsLowestIdsOfTies) {
  EXPECT_EQ(support({.top_k = 2}, {1, 2, 2, 2}), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(support({.top_k = 1}, {1, 2, 5, 2}), (std::vector<TokenId>{2}));
  EXPECT_EQ(support({.top_k = 9}, {1, 2, 2, 2}).size(), 4U);
  EXPECT_EQ(support({.top_k = 3}, {1, -kInf, 2, -kInf}), (std::vector<TokenId>{0, 2}));
}

TEST(SamplerFilter, TopPStopsWhereTheSumReachesIt) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(support({.top_p = 0.39F}, logits), (std::vector<TokenId>{1}));
  EXPECT_EQ(support({.top_p = 0.41F}, logits), (std::vector<TokenId>{1, 3}));
  EXPECT_EQ(support({.top_p = 0.69F}, logits), (std::vector<TokenId>{1, 3}));
  EXPECT_EQ(support({.top_p = 0.71F}, logits), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(support({.top_p = 0.91F}, logits).size(), 4U);
  EXPECT_EQ(support({.top_p = 0.0F}, logits), (std::vector<TokenId>{1}));
  // Four equal ones, exactly representable: the sum reaches 0.5 with the second.
  EXPECT_EQ(support({.top_p = 0.5F}, {0, 0, 0, 0}), (std::vector<TokenId>{0, 1}));
}

TEST(SamplerFilter, TopPOverManyTokensSortsAsFarAsNeeded) {
  // 1000 tokens: 600 with weight 2, 400 with weight 1; total 1600. 0.6 * 1600 = 960 = 480 heavy ones, lowest ids first.
  std::vector<float> logits(1000, 0.0F);
  for (std::size_t i = 0; i < 600; ++i) logits[i * 7 % 1000] = std::log(2.0F);  // 7 and 1000 are coprime: 600 different ones
  std::vector<TokenId> heavy;
  for (std::size_t i = 0; i < 1000; ++i) {
    if (logits[i] > 0) heavy.push_back(static_cast<TokenId>(i));
  }
  ASSERT_EQ(heavy.size(), 600U);
  heavy.resize(480);
  EXPECT_EQ(support({.top_p = 0.5999F}, logits, 10000), heavy);
}

TEST(SamplerFilter, MinPIsRelativeToTheLargest) {
  const std::vector<float> logits = logits_of({0.5, 0.26, 0.24});
  EXPECT_EQ(support({.min_p = 0.5F}, logits), (std::vector<TokenId>{0, 1}));
  EXPECT_EQ(support({.min_p = 0.53F}, logits), (std::vector<TokenId>{0}));
  EXPECT_EQ(support({.min_p = 0.47F}, logits), (std::vector<TokenId>{0, 1, 2}));
  EXPECT_EQ(support({.min_p = 1.0F}, {1, 1, 0}), (std::vector<TokenId>{0, 1}));
}

TEST(SamplerFilter, TypicalTakesTheSurpriseClosestToTheEntropy) {
  // Entropy of {0.5, 0.2, 0.2, 0.1}: 1.2206 nats; surprises 0.693, 1.609, 1.609, 2.303; distances 0.527, 0.389, 0.389, 1.082.
  const std::vector<float> logits = logits_of({0.5, 0.2, 0.2, 0.1});
  EXPECT_EQ(support({.typical_p = 0.19F}, logits), (std::vector<TokenId>{1}));
  EXPECT_EQ(support({.typical_p = 0.3F}, logits), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(support({.typical_p = 0.5F}, logits), (std::vector<TokenId>{0, 1, 2}));
  EXPECT_EQ(support({.typical_p = 0.95F}, logits).size(), 4U);
}

TEST(SamplerFilter, OrderIsTopKTypicalTopPMinP) {
  const std::vector<float> logits = logits_of({0.5, 0.2, 0.2, 0.1});
  // Top-k 2 first leaves 0.5 and 0.2, that is 0.714 and 0.286: top-p 0.7 then keeps one; before top-k it would keep two.
  EXPECT_EQ(support({.top_k = 2, .top_p = 0.7F}, logits), (std::vector<TokenId>{0}));
  EXPECT_EQ(support({.top_p = 0.7F}, logits), (std::vector<TokenId>{0, 1}));
  // Typical first leaves tokens 1 and 2 (equal); min-p is then relative to them, not to token 0.
  EXPECT_EQ(support({.min_p = 0.9F, .typical_p = 0.3F}, logits), (std::vector<TokenId>{1, 2}));
  // Top-p of what typical left: one of two equal ones reaches a half.
  EXPECT_EQ(support({.top_p = 0.45F, .typical_p = 0.3F}, logits), (std::vector<TokenId>{1}));
  // Temperature comes last: the filters above ran at temperature 1 although `support` samples at 1e6.
  EXPECT_EQ(support({.top_p = 0.45F}, logits), (std::vector<TokenId>{0}));
}

TEST(SamplerPenalty, FormulaAndWindow) {
  const std::vector<TokenId> history = {0, 1, 1, 2, 9, -1};  // ids outside the vocabulary are ignored
  std::vector<float> logits = {4, 4, -4, 1};
  Sampler sampler({.repetition_penalty = 2.0F, .presence_penalty = 0.25F, .frequency_penalty = 0.5F, .penalty_window = -1});
  const Choice choice = sampler.choose(logits, history);
  EXPECT_EQ(logits, (std::vector<float>{4 / 2.0F - 0.75F, 4 / 2.0F - 1.25F, -8 - 0.75F, 1}));
  EXPECT_EQ(choice.token, 0);

  std::vector<float> windowed = {4, 4, -4, 1};
  Sampler last({.repetition_penalty = 2.0F, .penalty_window = 3});  // sees 2, 9, -1
  last.choose(windowed, history);
  EXPECT_EQ(windowed, (std::vector<float>{4, 4, -8, 1}));

  std::vector<float> none = {4, 4, -4, 1};
  Sampler off({.repetition_penalty = 2.0F, .penalty_window = 0});
  off.choose(none, history);
  EXPECT_EQ(none, (std::vector<float>{4, 4, -4, 1}));
}

TEST(SamplerBias, AddsForbidsAndComesBeforePenalties) {
  EXPECT_EQ(choose({.logit_bias = {{2, 10.0F}, {77, 1.0F}}}, {1, 2, 0}).token, 2);
  EXPECT_EQ(choose({.logit_bias = {{1, -kInf}}}, {1, 2, 0}).token, 0);
  std::vector<float> logits = {-1, 0};
  Sampler sampler({.repetition_penalty = 2.0F, .logit_bias = {{0, 3.0F}}});
  sampler.choose(logits, std::vector<TokenId>{0});
  EXPECT_EQ(logits[0], 1.0F);  // (-1 + 3) / 2; the other order would give -2 + 3
}

TEST(Sampler, ChoiceIsAFunctionOfSeedPositionAndSequence) {
  const std::vector<float> logits(1000, 0.0F);
  const SamplerOptions options{.temperature = 1.0F, .seed = 42};
  const std::vector<TokenId> history = {5, 6, 7};
  Sampler used(options);
  std::vector<float> scratch = logits;
  used.choose(scratch, {});
  scratch = logits;
  const TokenId token = used.choose(scratch, history, 3).token;
  EXPECT_EQ(choose(options, logits, history, 3).token, token);    // no hidden state
  EXPECT_EQ(choose(options, logits, {9, 9, 9}, 3).token, token);  // only the position counts
  EXPECT_NE(choose(options, logits, history, 4).token, token);    // other streams
  EXPECT_NE(choose(options, logits, {5, 6}, 3).token, token);
  SamplerOptions other = options;
  other.seed = 43;
  EXPECT_NE(choose(other, logits, history, 3).token, token);
}

// One number for what every machine, compiler and optimisation level must give.
TEST(Sampler, DeterminismHash) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  const auto add = [&hash](std::uint64_t value) {
    for (int i = 0; i < 8; ++i) hash = (hash ^ ((value >> (8 * i)) & 0xFF)) * 0x100000001b3ULL;
  };
  std::uint64_t state = 1;
  std::vector<float> logits(3000);
  std::vector<TokenId> history;
  for (int step = 0; step < 64; ++step) {
    for (float& logit : logits) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      logit = static_cast<float>(static_cast<std::int32_t>(state >> 33) - (1 << 30)) * 0x1p-27F;
    }
    SamplerOptions options{.temperature = 0.7F + 0.01F * static_cast<float>(step), .seed = 7};
    if ((step & 1) != 0) options.top_k = 200;
    if ((step & 2) != 0) options.typical_p = 0.9F;
    if ((step & 4) != 0) options.top_p = 0.95F;
    if ((step & 8) != 0) options.min_p = 0.02F;
    if ((step & 16) != 0) options.repetition_penalty = 1.1F;
    std::vector<float> scratch = logits;
    const Choice choice = Sampler(options).choose(scratch, history);
    history.push_back(choice.token);
    add(static_cast<std::uint64_t>(choice.token));
    add(std::bit_cast<std::uint32_t>(choice.log_probability));
  }
  EXPECT_EQ(hash, 0x186A1156DF9905A8ULL);
}

TEST(SamplerOptionsCheck, RefusesWhatIsOutOfRangeByName) {
  EXPECT_TRUE(check({}));
  EXPECT_TRUE(check({.temperature = 2.0F, .top_k = 40, .top_p = 0.0F, .min_p = 1.0F, .penalty_window = -1}));
  const std::vector<std::pair<std::string, SamplerOptions>> bad = {
      {"temperature", {.temperature = -0.1F}},
      {"temperature", {.temperature = kNan}},
      {"temperature", {.temperature = kInf}},
      {"top_k", {.top_k = -1}},
      {"top_p", {.top_p = 1.01F}},
      {"top_p", {.top_p = -0.01F}},
      {"min_p", {.min_p = 1.5F}},
      {"typical_p", {.typical_p = kNan}},
      {"repetition_penalty", {.repetition_penalty = 0.0F}},
      {"repetition_penalty", {.repetition_penalty = -1.0F}},
      {"presence_penalty", {.presence_penalty = kInf}},
      {"frequency_penalty", {.frequency_penalty = kNan}},
      {"penalty_window", {.penalty_window = -2}},
      {"logit_bias", {.logit_bias = {{-1, 0.0F}}}},
      {"logit_bias", {.logit_bias = {{1, kInf}}}},
      {"logit_bias", {.logit_bias = {{1, kNan}}}},
  };
  for (const auto& [name, options] : bad) {
    const Status status = check(options);
    ASSERT_FALSE(status) << name;
    EXPECT_NE(status.error().message.find(name), std::string::npos) << status.error().message;
  }
}

}  // namespace
}  // namespace rooftree::engine

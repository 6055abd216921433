#include "model/execution.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numbers>
#include <sstream>

namespace rooftree::model {
namespace {

Model published(const std::string& name) {
  std::ifstream in(std::string(ROOFTREE_SOURCE_DIR) + "/fuzz/corpus/hf_config/" + name + ".json");
  std::ostringstream text;
  text << in.rdbuf();
  auto model = parse_hf_config(text.str(), name);
  EXPECT_TRUE(model.has_value()) << (model ? "" : model.error().message);
  return std::move(model).value();
}

Numerics numerics_of(const Model& model) {
  const auto numerics = model.numerics();
  EXPECT_TRUE(numerics.has_value()) << (numerics ? "" : numerics.error().message);
  return numerics ? **numerics : Numerics{};
}

Rope rope(const RopeScaling& scaling, std::int64_t dims = 64, double base = 10'000) {
  return make_rope(dims, 0, base, RopePairing::kHalves, scaling);
}

TEST(Rope, PlainFrequenciesAreAGeometricSeries) {
  const Rope r = rope({});
  ASSERT_EQ(r.inverse_frequencies.size(), 32U);
  EXPECT_EQ(r.inverse_frequencies[0], 1);
  EXPECT_NEAR(r.inverse_frequencies[16], 0.01, 1e-15);
  EXPECT_EQ(r.magnitude, 1);
  EXPECT_TRUE(make_rope(0, 0, 1e4, RopePairing::kHalves, {}).inverse_frequencies.empty());
}

TEST(Rope, LinearAndNtk) {
  const Rope plain = rope({});
  const Rope linear = rope({.kind = RopeScaling::Kind::kLinear, .factor = 8});
  const Rope ntk = rope({.kind = RopeScaling::Kind::kNtk, .factor = 8});
  for (std::size_t i = 0; i < 32; ++i) EXPECT_DOUBLE_EQ(linear.inverse_frequencies[i], plain.inverse_frequencies[i] / 8);
  // The fastest pair stays, the slowest is stretched by the factor.
  EXPECT_DOUBLE_EQ(ntk.inverse_frequencies[0], 1);
  EXPECT_NEAR(ntk.inverse_frequencies[31], plain.inverse_frequencies[31] / 8, 1e-15);
  EXPECT_EQ(rope({.kind = RopeScaling::Kind::kDynamic, .factor = 8}).inverse_frequencies, plain.inverse_frequencies);
}

// YaRN: pairs that turn more than beta_fast times over the trained context stay, those that turn less than beta_slow times are
// divided by the factor, and the magnitude is 0.1 ln(factor) + 1.
TEST(Rope, YarnRampsBetweenKeptAndStretched) {
  const RopeScaling scaling{.kind = RopeScaling::Kind::kYarn, .factor = 32, .original_context = 4096};
  const Rope plain = rope({}, 64, 150'000);
  const Rope yarn = rope(scaling, 64, 150'000);
  const double low = std::floor(64 * std::log(4096 / (32 * 2 * std::numbers::pi)) / (2 * std::log(150'000.0)));
  const double high = std::ceil(64 * std::log(4096 / (2 * std::numbers::pi)) / (2 * std::log(150'000.0)));
  EXPECT_EQ(low, 8);
  EXPECT_EQ(high, 18);
  for (std::size_t i = 0; i < 32; ++i) {
    const auto d = static_cast<double>(i);
    const double kept = d <= low ? 1 : d >= high ? 0 : 1 - (d - low) / (high - low);
    EXPECT_DOUBLE_EQ(yarn.inverse_frequencies[i], plain.inverse_frequencies[i] * (kept + (1 - kept) / 32)) << i;
  }
  EXPECT_FLOAT_EQ(yarn.magnitude, static_cast<float>(0.1 * std::log(32.0) + 1));
  RopeScaling other = scaling;
  other.mscale = other.mscale_all = 0.707;
  EXPECT_EQ(rope(other).magnitude, 1);
  other.magnitude = 1.25;
  EXPECT_EQ(rope(other).magnitude, 1.25F);
}

TEST(Rope, Llama3GoesByWavelength) {
  const RopeScaling scaling{.kind = RopeScaling::Kind::kLlama3,
                            .factor = 8,
                            .original_context = 8192,
                            .low_frequency_factor = 1,
                            .high_frequency_factor = 4};
  const Rope plain = rope({}, 128, 500'000);
  const Rope scaled = rope(scaling, 128, 500'000);
  int kept = 0, stretched = 0, between = 0;
  for (std::size_t i = 0; i < 64; ++i) {
    const double ratio = scaled.inverse_frequencies[i] / plain.inverse_frequencies[i];
    const double wavelength = 2 * std::numbers::pi / plain.inverse_frequencies[i];
    if (wavelength < 2048) {
      EXPECT_EQ(ratio, 1);
      ++kept;
    } else if (wavelength > 8192) {
      EXPECT_DOUBLE_EQ(ratio, 1.0 / 8);
      ++stretched;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(ratio, (1 - smooth) / 8 + smooth, 1e-15);
      ++between;
    }
  }
  EXPECT_TRUE(kept > 0 && stretched > 0 && between > 0);
}

TEST(Rope, AlibiSlopes) {
  const std::vector<float> eight = alibi_slopes(8);
  EXPECT_EQ(eight, (std::vector<float>{0.5F, 0.25F, 0.125F, 0.0625F, 0.03125F, 0.015625F, 0.0078125F, 0.00390625F}));
  const std::vector<float> six = alibi_slopes(6);  // four of four heads, then every second of eight
  EXPECT_EQ(six, (std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F, 0.5F, 0.125F}));
}

// ---------------------------------------------------------------- published config.json files

TEST(Numerics, OfLlama31) {
  const Numerics n = numerics_of(published("llama"));
  EXPECT_EQ(n.norm_epsilon, 1e-5F);
  EXPECT_EQ(n.activation, Activation::kSilu);
  EXPECT_EQ(n.embedding_scale, 1);
  EXPECT_FLOAT_EQ(n.global.scale, 1 / std::sqrt(128.0F));
  EXPECT_EQ(n.global.rope.dims, 128);
  EXPECT_EQ(n.global.rope.pairing, RopePairing::kHalves);
  EXPECT_EQ(n.global.rope.inverse_frequencies[0], 1);
  EXPECT_NEAR(n.global.rope.inverse_frequencies[63], std::pow(500'000, -126.0 / 128) / 8, 1e-18);
  EXPECT_EQ(n.max_positions, 0);
  EXPECT_TRUE(n.global.alibi_slopes.empty());
}

TEST(Numerics, OfGemma) {
  const Numerics second = numerics_of(published("gemma2"));
  EXPECT_EQ(second.activation, Activation::kGeluTanh);
  EXPECT_EQ(second.norm_epsilon, 1e-6F);
  EXPECT_FLOAT_EQ(second.embedding_scale, std::sqrt(2304.0F));
  EXPECT_EQ(second.local.softcap, 50);
  EXPECT_EQ(second.logit_softcap, 30);
  EXPECT_FLOAT_EQ(second.local.scale, 1 / 16.0F);
  const Numerics third = numerics_of(published("gemma3"));
  EXPECT_EQ(third.local.softcap, 0);
  EXPECT_EQ(third.logit_softcap, 0);
  EXPECT_EQ(third.local.rope.inverse_frequencies[0], 1);
  EXPECT_DOUBLE_EQ(third.local.rope.inverse_frequencies[64], std::pow(10'000, -0.5));
  EXPECT_DOUBLE_EQ(third.global.rope.inverse_frequencies[0], 1.0 / 8);
  EXPECT_DOUBLE_EQ(third.global.rope.inverse_frequencies[64], std::pow(1e6, -0.5) / 8);
}

TEST(Numerics, OfDeepSeekV3) {
  const Numerics n = numerics_of(published("deepseek_v3"));
  // yarn, factor 40, mscale = mscale_all_dim = 1: the scores' scale has the square of the magnitude, the rotation none.
  const double magnitude = 0.1 * std::log(40.0) + 1;
  EXPECT_FLOAT_EQ(n.global.scale, static_cast<float>(magnitude * magnitude / std::sqrt(192.0)));
  EXPECT_EQ(n.global.rope.magnitude, 1);
  EXPECT_EQ(n.global.rope.dims, 64);
  EXPECT_EQ(n.global.rope.offset, 512);
  EXPECT_EQ(n.global.rope.pairing, RopePairing::kNeighbours);
  EXPECT_EQ(n.routing.scoring, RouteScoring::kSigmoid);
  EXPECT_TRUE(n.routing.selection_bias);
  EXPECT_TRUE(n.routing.normalise);
  EXPECT_EQ(n.routing.weight_scale, 2.5F);
  EXPECT_EQ(n.routing.groups, 8);
  EXPECT_EQ(n.routing.chosen_groups, 4);
}

TEST(Numerics, OfGptOss) {
  const Numerics n = numerics_of(published("gpt_oss"));
  EXPECT_EQ(n.activation, Activation::kSwigluClamped);
  EXPECT_TRUE(n.routing.softmax_over_chosen);
  EXPECT_FALSE(n.routing.normalise);
  EXPECT_FLOAT_EQ(n.local.rope.magnitude, static_cast<float>(0.1 * std::log(32.0) + 1));
  EXPECT_EQ(n.local.rope.inverse_frequencies, n.global.rope.inverse_frequencies);
}

TEST(Numerics, OfExpertsAndOthers) {
  EXPECT_TRUE(numerics_of(published("mixtral")).routing.normalise);
  EXPECT_TRUE(numerics_of(published("qwen3_moe")).routing.normalise);
  EXPECT_FALSE(numerics_of(published("qwen2_moe")).routing.normalise);
  const Numerics gpt2 = numerics_of(published("gpt2"));
  EXPECT_EQ(gpt2.activation, Activation::kGeluTanh);
  EXPECT_EQ(gpt2.global.rope.dims, 0);
  EXPECT_TRUE(gpt2.global.alibi_slopes.empty());
  EXPECT_EQ(numerics_of(published("falcon")).activation, Activation::kGelu);
  EXPECT_EQ(numerics_of(published("starcoder2")).activation, Activation::kGeluTanh);
}

TEST(Numerics, RefusalsNameWhatIsMissing) {
  for (const auto& [file, what] : {std::pair{"gpt_neox", "the weights of GPT-NeoX"},
                                   {"bloom", "the weights of BLOOM"},
                                   {"llama4", "the weights of Llama 4"},
                                   {"mllama", "cross-attention to images"},
                                   {"whisper", "models of the kind 'encoder-decoder'"}}) {
    const Model model = published(file);
    EXPECT_EQ(model.not_executable, what) << file;
    EXPECT_FALSE(model.numerics().has_value()) << file;
  }
}

std::string llama_with(const std::string& more) {
  return R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
             "num_hidden_layers": 2, "vocab_size": 100, "max_position_embeddings": 256, )" +
         more + "}";
}

// A field that only execution needs keeps a model from being executed, not from being priced.
TEST(Numerics, UnknownScalingsAreNotExecuted) {
  for (const auto& [scaling, message] :
       {std::pair{R"({"rope_type": "spiral"})", "rope_type: 'spiral'; expected default, linear"},
        {R"({"type": "spiral"})", "type: 'spiral'; expected default, linear"},
        {R"({"type": "linear", "factor": -1})", "factor: -1; expected a number"},
        {R"({"type": "linear", "factor": "2"})", "factor: '2'; expected a number"},
        {R"({"type": "longrope", "short_factor": [1, 0]})", "short_factor: 0; expected at most"},
        {R"({"type": "longrope", "short_factor": [1, 1]})", "2 factors of the rotation for 8 rotated pairs"},
        {R"({"type": "llama3", "low_freq_factor": 4, "high_freq_factor": 1})", "high_freq_factor: 1; expected at least"}}) {
    const auto model = parse_hf_config(llama_with(fmt::format(R"("rope_scaling": {})", scaling)), "c.json");
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_NE(model->not_executable.find(message), std::string::npos) << model->not_executable;
    EXPECT_TRUE(model->build(Phase::decode(1, 10)).has_value());
  }
  const auto odd = parse_hf_config(llama_with(R"("hidden_act": "sine")"), "c.json");
  EXPECT_EQ(odd->not_executable, "the activation 'sine'");
}

TEST(Numerics, ScalingMayBeNullOrInRopeParameters) {
  const auto none = parse_hf_config(llama_with(R"("rope_scaling": null, "rope_theta": 5000)"), "c.json");
  EXPECT_DOUBLE_EQ((*none->numerics())->global.rope.inverse_frequencies[1], std::pow(5000, -2.0 / 16));
  const auto newer =
      parse_hf_config(llama_with(R"("rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 5000})"), "c.json");
  EXPECT_DOUBLE_EQ((*newer->numerics())->global.rope.inverse_frequencies[1], std::pow(5000, -2.0 / 16) / 4);
  const auto dynamic = parse_hf_config(llama_with(R"("rope_scaling": {"type": "dynamic", "factor": 4})"), "c.json");
  EXPECT_EQ((*dynamic->numerics())->max_positions, 256);
}

}  // namespace
}  // namespace rooftree::model

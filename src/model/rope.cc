#include "model/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rooftree::model {
namespace {

// The pair (as a real number) that turns `rotations` times over the trained context.
double pair_of_rotations(double dims, double base, double context, double rotations) {
  return dims * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
}

// YaRN, arXiv:2309.00071, section 3.2: slow pairs are interpolated, fast ones kept, a ramp between.
void scale_yarn(Rope& rope, double base, const RopeScaling& s) {
  const auto dims = static_cast<double>(rope.dims);
  double low = pair_of_rotations(dims, base, s.original_context, s.beta_fast);
  double high = pair_of_rotations(dims, base, s.original_context, s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  for (std::size_t i = 0; i < rope.inverse_frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / std::max(high - low, 0.001), 0.0, 1.0);
    rope.inverse_frequencies[i] *= ramp / s.factor + (1 - ramp);
  }
}

// Llama 3.1 (github.com/meta-llama/llama-models, apply_scaling): by wavelength instead of by pair.
void scale_llama3(Rope& rope, const RopeScaling& s) {
  const double longest = s.original_context / s.low_frequency_factor;
  const double shortest = s.original_context / s.high_frequency_factor;
  for (double& frequency : rope.inverse_frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < shortest) continue;
    const double ramp = std::max(s.high_frequency_factor - s.low_frequency_factor, 1e-9);
    const double smooth = (s.original_context / wavelength - s.low_frequency_factor) / ramp;
    frequency *= wavelength > longest ? 1 / s.factor : (1 - smooth) / s.factor + smooth;
  }
}

double magnitude_of(const RopeScaling& s) {
  if (s.magnitude > 0) return s.magnitude;
  switch (s.kind) {
    case RopeScaling::Kind::kYarn:
      if (s.mscale > 0 && s.mscale_all > 0) return yarn_magnitude(s.factor, s.mscale) / yarn_magnitude(s.factor, s.mscale_all);
      return yarn_magnitude(s.factor, 1);
    case RopeScaling::Kind::kLongRope:
      return s.factor <= 1 ? 1 : std::sqrt(1 + std::log(s.factor) / std::log(s.original_context));
    default:
      return 1;
  }
}

}  // namespace

double yarn_magnitude(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

Rope make_rope(std::int64_t dims, std::int64_t offset, double base, RopePairing pairing, const RopeScaling& s) {
  Rope rope{.dims = dims, .offset = offset, .pairing = pairing};
  const auto d = static_cast<double>(dims);
  // NTK-aware: the base grows so that the slowest pair is stretched by the factor and the fastest kept.
  if (s.kind == RopeScaling::Kind::kNtk && dims > 2) base *= std::pow(s.factor, d / (d - 2));
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    rope.inverse_frequencies.push_back(std::pow(base, -2.0 * static_cast<double>(i) / d));
  }
  switch (s.kind) {
    case RopeScaling::Kind::kLinear:
      for (double& frequency : rope.inverse_frequencies) frequency /= s.factor;
      break;
    case RopeScaling::Kind::kYarn:
      scale_yarn(rope, base, s);
      break;
    case RopeScaling::Kind::kLlama3:
      scale_llama3(rope, s);
      break;
    case RopeScaling::Kind::kLongRope:
      for (std::size_t i = 0; i < std::min(rope.inverse_frequencies.size(), s.short_factors.size()); ++i) {
        rope.inverse_frequencies[i] /= s.short_factors[i];
      }
      break;
    case RopeScaling::Kind::kNone:
    case RopeScaling::Kind::kNtk:
    case RopeScaling::Kind::kDynamic:
      break;
  }
  rope.magnitude = static_cast<float>(magnitude_of(s));
  return rope;
}

double latent_scale(const AttentionSpec& attention, const RopeScaling& s) {
  const double plain = 1 / std::sqrt(static_cast<double>(attention.head_dim));
  if (s.kind != RopeScaling::Kind::kYarn || s.mscale_all <= 0) return plain;
  const double magnitude = yarn_magnitude(s.factor, s.mscale_all);
  return plain * magnitude * magnitude;
}

// Beyond the trained context these two change the frequencies of positions that are already in the cache.
std::int64_t exact_positions(const RopeScaling& s, std::int64_t max_context) {
  const bool changes = s.kind == RopeScaling::Kind::kDynamic || s.kind == RopeScaling::Kind::kLongRope;
  if (!changes) return 0;
  return s.original_context > 0 ? static_cast<std::int64_t>(s.original_context) : max_context;
}

RopeScaling read_rope_scaling(FieldReader& r, std::int64_t max_context) {
  RopeScaling s;
  std::string type = r.text_or("rope_type", "");
  const std::string older = r.text_or("type", "default");
  if (type.empty()) type = older;
  struct Named {
    std::string_view name;
    RopeScaling::Kind kind;
  };
  constexpr Named kNames[] = {
      {"default", RopeScaling::Kind::kNone},      {"linear", RopeScaling::Kind::kLinear},
      {"ntk", RopeScaling::Kind::kNtk},           {"dynamic", RopeScaling::Kind::kDynamic},
      {"yarn", RopeScaling::Kind::kYarn},         {"llama3", RopeScaling::Kind::kLlama3},
      {"longrope", RopeScaling::Kind::kLongRope}, {"su", RopeScaling::Kind::kLongRope},
  };
  const auto* named = std::find_if(std::begin(kNames), std::end(kNames), [&](const Named& n) { return n.name == type; });
  if (named == std::end(kNames)) {
    r.fail(r.has("rope_type") ? "rope_type" : "type", fmt::format("'{}'", type),
           "default, linear, ntk, dynamic, yarn, llama3 or longrope");
    return s;
  }
  s.kind = named->kind;
  s.factor = r.number_or("factor", 1, 1e-3, 1e6);
  const auto trained = static_cast<double>(max_context);
  s.original_context = r.number_or("original_max_position_embeddings", trained, 1, static_cast<double>(kMaxPositions));
  s.beta_fast = r.number_or("beta_fast", 32, 1e-6, 1e6);
  s.beta_slow = r.number_or("beta_slow", 1, 1e-6, 1e6);
  s.truncate = r.flag_or("truncate", true);
  s.mscale = r.number_or("mscale", 0, 0, 1e3);
  s.mscale_all = r.number_or("mscale_all_dim", 0, 0, 1e3);
  s.magnitude = r.number_or("attention_factor", 0, 0, 1e3);
  s.low_frequency_factor = r.number_or("low_freq_factor", 1, 1e-6, 1e6);
  s.high_frequency_factor = r.number_or("high_freq_factor", 4, 1e-6, 1e6);
  s.short_factors = r.numbers_or_empty("short_factor", 1e-6, 1e9, 65'536);
  r.skip("long_factor");
  const bool needs_context = s.kind == RopeScaling::Kind::kYarn || s.kind == RopeScaling::Kind::kLlama3;
  if (needs_context && s.original_context <= 1) {
    r.fail("original_max_position_embeddings", "missing", "the trained context");
  }
  if (s.kind == RopeScaling::Kind::kLlama3 && s.high_frequency_factor < s.low_frequency_factor) {
    r.fail("high_freq_factor", fmt::format("{}", s.high_frequency_factor), "at least low_freq_factor");
  }
  return s;
}

std::vector<float> alibi_slopes(std::int64_t heads) {
  std::int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<float> slopes;
  const auto slope = [](double index, double of) { return static_cast<float>(std::exp2(-8.0 * index / of)); };
  for (std::int64_t h = 0; h < power; ++h) slopes.push_back(slope(static_cast<double>(h + 1), static_cast<double>(power)));
  for (std::int64_t h = 0; h < heads - power; ++h) {
    slopes.push_back(slope(static_cast<double>(2 * h + 1), static_cast<double>(2 * power)));
  }
  return slopes;
}

}  // namespace rooftree::model

#include "model/execution.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rooftree::model {
namespace {

AttentionNumerics attention_numerics(const DecoderSpec& s, const ExecutionSpec& e, bool local) {
  const AttentionSpec& a = s.attention;
  AttentionNumerics n;
  const double divisor = e.query_scale > 0 ? e.query_scale : static_cast<double>(a.head_dim);
  n.scale = static_cast<float>(a.latent() ? latent_scale(a, e.scaling) : 1 / std::sqrt(divisor));
  n.softcap = static_cast<float>(e.softcap);
  const bool other_base = local && e.local_theta > 0;
  const std::int64_t dims = a.latent() ? a.rope_dim : (!local && s.global_without_rope ? 0 : a.rotary_dim);
  if (dims > 0) {
    // Latent attention rotates behind the latent, in queries and keys alike.
    n.rope = make_rope(dims, a.latent() ? a.kv_rank : 0, other_base ? e.local_theta : e.theta, e.pairing,
                       other_base ? RopeScaling{} : e.scaling);
    for (std::size_t i = 0; i < std::min(n.rope.inverse_frequencies.size(), e.frequency_divisors.size()); ++i) {
      n.rope.inverse_frequencies[i] /= e.frequency_divisors[i];
    }
  }
  if (!a.latent() && a.rotary_dim == 0 && !s.learned_positions) n.alibi_slopes = alibi_slopes(a.heads);
  return n;
}

std::string refusal_of(const Architecture& architecture, const ExecutionSpec& e) {
  if (!e.refusal.empty()) return e.refusal;
  const DecoderSpec* s = architecture.decoder();
  if (s == nullptr) return fmt::format("models of the kind '{}'", architecture.kind());
  if (s->cross_layers > 0) return "cross-attention to images";
  if (s->attention.index_top_k > 0) return "sparse attention with an indexer";
  if (s->attention.chunk > 0) return "chunked attention";
  if (s->attention.rotary_dim % 2 != 0) return fmt::format("rotation of {} values, an odd number", s->attention.rotary_dim);
  const std::size_t pairs =
      static_cast<std::size_t>(s->attention.latent() ? s->attention.rope_dim : s->attention.rotary_dim) / 2;
  const auto wrong = [pairs](const std::vector<double>& of_pairs) { return !of_pairs.empty() && of_pairs.size() != pairs; };
  if (wrong(e.scaling.short_factors) || wrong(e.frequency_divisors)) {
    return fmt::format("{} factors of the rotation for {} rotated pairs",
                       std::max(e.scaling.short_factors.size(), e.frequency_divisors.size()), pairs);
  }
  return {};
}

}  // namespace

void set_execution(Model& model, const ExecutionSpec& e) {
  model.not_executable = refusal_of(*model.architecture, e);
  model.constants = nullptr;
  if (!model.not_executable.empty()) return;
  const DecoderSpec& s = *model.architecture->decoder();
  Numerics n;
  n.norm_epsilon = static_cast<float>(e.norm_epsilon);
  n.activation = e.activation;
  if (s.embedding_scale) n.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(s.hidden)));
  n.logit_softcap = static_cast<float>(e.final_softcap);
  n.local = attention_numerics(s, e, true);
  n.global = attention_numerics(s, e, false);
  n.routing = e.routing;
  n.max_positions = exact_positions(e.scaling, model.max_context);
  model.constants = std::make_shared<const Numerics>(std::move(n));
}

std::optional<Activation> activation_of(std::string_view name) {
  struct Named {
    std::string_view name;
    Activation activation;
  };
  constexpr Named kNames[] = {
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_tanh", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},
      {"relu2", Activation::kReluSquared},
      {"swiglu clipped at 7.0 (alpha 1.702)", Activation::kSwigluClamped},
  };
  for (const Named& known : kNames) {
    if (known.name == name) return known.activation;
  }
  return std::nullopt;
}

}  // namespace rooftree::model

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/architecture.h"
#include "model/execution.h"
#include "model/field_reader.h"
#include "model/model.h"

// Hugging Face config.json. Field names, and the values that stand for absent fields, follow the configuration classes of the
// transformers library (github.com/huggingface/transformers, src/transformers/models/*/configuration_*.py).

namespace rooftree::model {
namespace {

using ArchitectureResult = Result<std::shared_ptr<const Architecture>>;

// What a reader leaves for the model besides its architecture.
struct Common {
  std::int64_t max_context = 0;
  ExecutionSpec execution{};
};

Error within(const Error& error, std::string_view where) { return error.within(std::string(where)); }

template <class Spec>
ArchitectureResult finish(std::initializer_list<Status> problems, std::string_view where, const Spec& spec,
                          ArchitectureResult (*make)(const Spec&)) {
  for (const Status& status : problems) {
    if (!status) return status.error();
  }
  ArchitectureResult made = make(spec);
  if (!made) return within(made.error(), where);
  return made;
}

bool is_relu(std::string_view activation) { return activation == "relu"; }

// Something that can be priced and not executed; the first such thing is told.
void refuse(Common& common, std::string what) {
  if (common.execution.refusal.empty()) common.execution.refusal = std::move(what);
}

void read_activation(FieldReader& r, Common& common, std::string_view key, std::string_view fallback) {
  const std::string name = r.text_or(key, fallback);
  if (const auto known = activation_of(name)) {
    common.execution.activation = *known;
  } else {
    refuse(common, fmt::format("the activation '{}'", name));
  }
}

// "rope_theta" and "rope_scaling", or both in "rope_parameters" (transformers 5), there possibly once per kind of layer. A
// scaling that is not known keeps the model from being executed, not from being priced.
void read_rope(FieldReader& r, Common& common, double theta) {
  ExecutionSpec& e = common.execution;
  e.theta = r.number_or("rope_theta", theta, 1.001, 1e15);
  const auto read_scaling = [&](FieldReader scaling) {
    e.theta = scaling.number_or("rope_theta", e.theta, 1.001, 1e15);
    e.scaling = read_rope_scaling(scaling, common.max_context);
    if (const Status status = scaling.status(); !status) refuse(common, status.error().message);
  };
  if (!r.has("rope_parameters")) return read_scaling(r.object_or_empty("rope_scaling"));
  FieldReader parameters = r.object("rope_parameters");
  if (!parameters.has("full_attention")) return read_scaling(std::move(parameters));
  FieldReader local = parameters.object_or_empty("sliding_attention");
  e.local_theta = local.number_or("rope_theta", 0, 1.001, 1e15);
  read_scaling(parameters.object("full_attention"));
}

void read_rms_epsilon(FieldReader& r, Common& common, double fallback) {
  common.execution.norm_epsilon = r.number_or("rms_norm_eps", fallback, 0, 1);
}

// The shape fields that nearly all decoders share under these names.
DecoderSpec read_llama_shape(FieldReader& r, Common& common, bool tied_by_default) {
  DecoderSpec s;
  s.layers = r.integer("num_hidden_layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden_size", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.tied_embeddings = r.flag_or("tie_word_embeddings", tied_by_default);
  common.max_context = s.max_positions = r.integer_or("max_position_embeddings", 0, 1, kMaxPositions);
  AttentionSpec& a = s.attention;
  a.heads = r.integer("num_attention_heads", 1, kMaxHeads);
  a.kv_heads = r.integer_or("num_key_value_heads", a.heads, 1, kMaxHeads);
  a.head_dim = r.integer_or("head_dim", std::max<std::int64_t>(s.hidden / a.heads, 1), 1, kMaxHeads);
  a.value_dim = a.head_dim;
  a.rotary_dim = a.head_dim;
  return s;
}

void set_bias(AttentionSpec& a, bool qkv, bool output) {
  a.q_bias = a.k_bias = a.v_bias = qkv;
  a.o_bias = output;
}

void read_partial_rotary(FieldReader& r, AttentionSpec& a, double fallback, std::string_view key = "partial_rotary_factor") {
  const double factor = r.number_or(key, fallback, 0, 1);
  a.rotary_dim = static_cast<std::int64_t>(factor * static_cast<double>(a.head_dim));
}

// "layer_types", one name per layer: full attention everywhere, or at every n-th layer of sliding ones.
void read_layer_types(FieldReader& r, DecoderSpec& s, std::int64_t default_period) {
  s.global_every = s.attention.window > 0 || s.attention.chunk > 0 ? default_period : 0;
  const std::vector<std::string> types = r.texts_or_empty("layer_types");
  if (types.empty()) return;
  if (static_cast<std::int64_t>(types.size()) != s.layers) {
    r.fail("layer_types", fmt::format("{} entries", types.size()), fmt::format("{}, one per layer", s.layers));
    return;
  }
  std::int64_t period = 0;
  for (std::size_t i = 0; i < types.size(); ++i) {
    const bool full = types[i] == "full_attention";
    if (!full && types[i] != "sliding_attention" && types[i] != "chunked_attention") {
      r.fail("layer_types", fmt::format("'{}'", types[i]), "full_attention, sliding_attention or chunked_attention");
      return;
    }
    if (full && period == 0) period = static_cast<std::int64_t>(i) + 1;
  }
  for (std::size_t i = 0; i < types.size(); ++i) {
    const bool expected = period > 0 && (static_cast<std::int64_t>(i) + 1) % period == 0;
    if ((types[i] == "full_attention") != expected) {
      r.fail("layer_types", fmt::format("'{}' at layer {}", types[i], i), "full attention at every n-th layer");
      return;
    }
  }
  if (period == 1) s.attention.window = s.attention.chunk = 0;
  s.global_every = period;
}

ArchitectureResult read_llama(FieldReader& r, std::string_view where, std::string_view type, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  s.dense.width = r.integer("intermediate_size", 1, kMaxExtent);
  s.dense.relu = is_relu(r.text_or("hidden_act", "silu"));
  s.dense.bias = r.flag_or("mlp_bias", false);
  const bool bias = r.flag_or("attention_bias", false);
  set_bias(s.attention, bias, bias);
  read_activation(r, common, "hidden_act", "silu");
  read_rms_epsilon(r, common, type == "llama" || type == "mistral" ? 1e-6 : 1e-5);
  read_rope(r, common, type == "mixtral" ? 1e6 : 10'000);
  if (type == "mistral" || type == "mixtral" || type == "phi3")
    s.attention.window = r.integer_or("sliding_window", 0, 1, kMaxPositions);
  if (type == "mixtral") {
    s.moe = {.experts = r.integer("num_local_experts", 1, kMaxExperts),
             .top_k = r.integer("num_experts_per_tok", 1, kMaxExperts),
             .width = s.dense.width};
    common.execution.routing.normalise = true;
  }
  if (type == "phi3") {
    read_partial_rotary(r, s.attention, 1.0);
    RopeScaling& scaling = common.execution.scaling;
    const auto longest = static_cast<double>(std::max<std::int64_t>(common.max_context, 1));
    scaling.original_context = static_cast<double>(
        r.integer_or("original_max_position_embeddings", std::max<std::int64_t>(common.max_context, 1), 1, kMaxPositions));
    if (scaling.kind == RopeScaling::Kind::kLongRope && scaling.factor == 1)
      scaling.factor = longest / scaling.original_context;
  }
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_qwen(FieldReader& r, std::string_view where, std::string_view type, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  const bool second = type == "qwen2" || type == "qwen2_moe";
  const bool mixture = type == "qwen2_moe" || type == "qwen3_moe";
  const bool bias = second || r.flag_or("attention_bias", false);
  set_bias(s.attention, bias, bias && !second);
  s.attention.qk_norm = !second;
  if (r.flag_or("use_sliding_window", false)) s.attention.window = r.integer_or("sliding_window", 0, 1, kMaxPositions);
  read_layer_types(r, s, 0);
  read_activation(r, common, "hidden_act", "silu");
  read_rms_epsilon(r, common, 1e-6);
  read_rope(r, common, 10'000);
  if (mixture) {
    s.moe = {.experts = r.integer("num_experts", 1, kMaxExperts),
             .top_k = r.integer("num_experts_per_tok", 1, kMaxExperts),
             .width = r.integer("moe_intermediate_size", 1, kMaxExtent)};
    if (second) {
      s.moe.shared_width = r.integer("shared_expert_intermediate_size", 1, kMaxExtent);
      s.moe.shared_gate = true;
    }
    common.execution.routing.normalise = r.flag_or("norm_topk_prob", false);
    s.moe_every = r.integer_or("decoder_sparse_step", 1, 1, kMaxLayers);
    if (const Json* dense = r.array_or_null("mlp_only_layers"); dense != nullptr && !dense->empty()) {
      r.fail("mlp_only_layers", quoted(*dense), "an empty list: dense layers by index are not supported");
    }
    if (s.moe_every > 1) s.dense.width = r.integer("intermediate_size", 1, kMaxExtent);
  } else {
    s.dense.width = r.integer("intermediate_size", 1, kMaxExtent);
  }
  return finish({r.status()}, where, s, make_decoder_architecture);
}

// SigLIP and a projector of average-pooled patches.
void read_gemma_vision(FieldReader& r, FieldReader& v, DecoderSpec& s) {
  VisionTower tower;
  tower.layers = v.integer_or("num_hidden_layers", 27, 1, kMaxLayers);
  tower.hidden = v.integer_or("hidden_size", 1152, 1, kMaxExtent);
  tower.heads = v.integer_or("num_attention_heads", 16, 1, kMaxHeads);
  tower.feed_forward = v.integer_or("intermediate_size", 4304, 1, kMaxExtent);
  tower.image_size = v.integer_or("image_size", 896, 1, 65'536);
  tower.patch_size = v.integer_or("patch_size", 14, 1, 65'536);
  tower.projector = {
      {.in = tower.hidden, .out = s.hidden, .rows_per_image = r.integer_or("mm_tokens_per_image", 256, 1, kMaxExtent)}};
  s.vision = tower;
}

ArchitectureResult read_gemma(FieldReader& r, std::string_view where, std::string_view type, Common& common) {
  const bool nested = type == "gemma3" && r.has("text_config");
  FieldReader t = nested ? r.object("text_config") : r;
  DecoderSpec s;
  if (type == "gemma3" || type == "gemma3_text") {
    // Published files leave out what equals the defaults of the configuration class.
    s.layers = t.integer("num_hidden_layers", 1, kMaxLayers);
    s.hidden = t.integer("hidden_size", 1, kMaxExtent);
    s.vocabulary = t.integer_or("vocab_size", 262'208, 1, kMaxExtent);
    s.tied_embeddings = t.flag_or("tie_word_embeddings", true);
    common.max_context = s.max_positions = t.integer_or("max_position_embeddings", 131'072, 1, kMaxPositions);
    AttentionSpec& a = s.attention;
    a.heads = t.integer_or("num_attention_heads", 8, 1, kMaxHeads);
    a.kv_heads = t.integer_or("num_key_value_heads", 4, 1, kMaxHeads);
    a.head_dim = a.value_dim = a.rotary_dim = t.integer_or("head_dim", 256, 1, kMaxHeads);
  } else {
    s = read_llama_shape(t, common, true);
    s.attention.head_dim = s.attention.value_dim = s.attention.rotary_dim = t.integer_or("head_dim", 256, 1, kMaxHeads);
  }
  const bool bias = t.flag_or("attention_bias", false);
  set_bias(s.attention, bias, bias);
  s.dense.width = t.integer("intermediate_size", 1, kMaxExtent);
  s.embedding_scale = true;
  ExecutionSpec& e = common.execution;
  // "hidden_act" says gelu where the tanh form is meant; "hidden_activation" is exact.
  e.activation = Activation::kGeluTanh;
  if (t.has("hidden_activation")) read_activation(t, common, "hidden_activation", "gelu_pytorch_tanh");
  read_rms_epsilon(t, common, 1e-6);
  const bool local_base = type == "gemma3" || type == "gemma3_text";
  read_rope(t, common, local_base ? 1e6 : 10'000);
  if (local_base && e.local_theta == 0) e.local_theta = t.number_or("rope_local_base_freq", 10'000, 1.001, 1e15);
  if (type != "gemma") e.query_scale = t.number_or("query_pre_attn_scalar", 256, 1e-6, 1e9);
  if (type != "gemma") {
    s.post_norms = true;
    s.attention.window = t.integer_or("sliding_window", 4096, 1, kMaxPositions);
    const bool third = type != "gemma2";
    s.attention.qk_norm = third;
    e.softcap = t.number_or("attn_logit_softcapping", third ? 0 : 50, 0, 1e9);
    e.final_softcap = t.number_or("final_logit_softcapping", third ? 0 : 30, 0, 1e9);
    s.attention.softcap = e.softcap > 0;
    s.final_softcap = e.final_softcap > 0;
    const std::int64_t period = third ? t.integer_or("sliding_window_pattern", 6, 1, kMaxLayers) : 2;
    read_layer_types(t, s, t.integer_or("_sliding_window_pattern", period, 1, kMaxLayers));
  }
  if (nested && r.has("vision_config")) {
    FieldReader v = r.object("vision_config");
    read_gemma_vision(r, v, s);
    return finish({r.status(), t.status(), v.status()}, where, s, make_decoder_architecture);
  }
  return finish({r.status(), t.status()}, where, s, make_decoder_architecture);
}

// Layer norms, biases, no gate: the older families.
ArchitectureResult read_phi(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  s.norm = NormKind::kLayer;
  s.parallel = true;
  s.head_bias = true;
  set_bias(s.attention, true, true);
  s.attention.qk_norm = r.flag_or("qk_layernorm", false);
  read_partial_rotary(r, s.attention, 0.5);
  read_activation(r, common, "hidden_act", "gelu_new");
  common.execution.norm_epsilon = r.number_or("layer_norm_eps", 1e-5, 0, 1);
  read_rope(r, common, 10'000);
  if (s.attention.qk_norm) refuse(common, "layer norms on queries and keys");
  s.dense = {.width = r.integer_or("intermediate_size", 4 * s.hidden, 1, kMaxExtent), .gated = false, .bias = true};
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_gpt_neox(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  s.norm = NormKind::kLayer;
  s.parallel = r.flag_or("use_parallel_residual", true);
  s.parallel_norms = 2;
  const bool bias = r.flag_or("attention_bias", true);
  set_bias(s.attention, bias, bias);
  read_partial_rotary(r, s.attention, 0.25, "rotary_pct");
  refuse(common, "the weights of GPT-NeoX");
  s.dense = {.width = r.integer("intermediate_size", 1, kMaxExtent), .gated = false, .bias = true};
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_starcoder2(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, true);
  s.norm = NormKind::kLayer;
  const bool bias = r.flag_or("use_bias", true);
  set_bias(s.attention, bias, bias);
  s.attention.window = r.integer_or("sliding_window", 0, 1, kMaxPositions);
  read_activation(r, common, "hidden_act", "gelu_pytorch_tanh");
  common.execution.norm_epsilon = r.number_or("norm_epsilon", 1e-5, 0, 1);
  read_rope(r, common, 10'000);
  s.dense = {.width = r.integer("intermediate_size", 1, kMaxExtent), .gated = false, .bias = bias};
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_gpt2(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s;
  s.layers = r.integer("n_layer", 1, kMaxLayers);
  s.hidden = r.integer("n_embd", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.tied_embeddings = r.flag_or("tie_word_embeddings", true);
  s.norm = NormKind::kLayer;
  s.learned_positions = true;
  common.max_context = s.max_positions = r.integer("n_positions", 1, kMaxExtent);
  s.dropout = r.number_or("resid_pdrop", 0.1, 0, 1) > 0;
  AttentionSpec& a = s.attention;
  a.heads = a.kv_heads = r.integer("n_head", 1, kMaxHeads);
  a.head_dim = a.value_dim = std::max<std::int64_t>(s.hidden / a.heads, 1);
  set_bias(a, true, true);
  s.dense = {.width = r.integer_or("n_inner", 4 * s.hidden, 1, kMaxExtent), .gated = false, .bias = true};
  read_activation(r, common, "activation_function", "gelu_new");
  common.execution.norm_epsilon = r.number_or("layer_norm_epsilon", 1e-5, 0, 1);
  if (r.flag_or("scale_attn_by_inverse_layer_idx", false)) refuse(common, "attention scaled by the layer's number");
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_opt(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, true);
  s.norm = NormKind::kLayer;
  s.learned_positions = true;
  s.attention.rotary_dim = 0;
  s.dropout = r.number_or("dropout", 0.1, 0, 1) > 0;
  const bool bias = r.flag_or("enable_bias", true);
  set_bias(s.attention, bias, bias);
  s.dense = {.width = r.integer("ffn_dim", 1, kMaxExtent),
             .gated = false,
             .bias = bias,
             .relu = is_relu(r.text_or("activation_function", "relu"))};
  const std::int64_t projected = r.integer_or("word_embed_proj_dim", s.hidden, 1, kMaxExtent);
  if (projected != s.hidden)
    r.fail("word_embed_proj_dim", fmt::format("{}", projected), fmt::format("hidden_size {}", s.hidden));
  refuse(common, "the weights of OPT");
  if (!r.flag_or("do_layer_norm_before", true)) r.fail("do_layer_norm_before", "false", "true");
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_bloom(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s;
  s.layers = r.has("n_layer") ? r.integer("n_layer", 1, kMaxLayers) : r.integer("num_hidden_layers", 1, kMaxLayers);
  s.hidden = r.has("n_embed") ? r.integer("n_embed", 1, kMaxExtent) : r.integer("hidden_size", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.tied_embeddings = r.flag_or("tie_word_embeddings", true);
  s.norm = NormKind::kLayer;
  s.embedding_norm = true;
  common.max_context = s.max_positions = r.integer_or("seq_length", 2048, 1, kMaxPositions);
  AttentionSpec& a = s.attention;
  a.heads = a.kv_heads =
      r.has("num_attention_heads") ? r.integer("num_attention_heads", 1, kMaxHeads) : r.integer("n_head", 1, kMaxHeads);
  a.head_dim = a.value_dim = std::max<std::int64_t>(s.hidden / a.heads, 1);
  set_bias(a, true, true);
  s.dense = {.width = 4 * s.hidden, .gated = false, .bias = true};
  refuse(common, "the weights of BLOOM");
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_falcon(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, true);
  s.norm = NormKind::kLayer;
  const bool new_architecture = r.flag_or("new_decoder_architecture", false);
  s.parallel = r.flag_or("parallel_attn", true) || new_architecture;
  s.parallel_norms = static_cast<int>(r.integer_or("num_ln_in_parallel_attn", new_architecture ? 2 : 1, 1, 2));
  AttentionSpec& a = s.attention;
  if (new_architecture) {
    a.kv_heads = r.integer_or("num_kv_heads", a.heads, 1, kMaxHeads);
  } else {
    a.kv_heads = r.flag_or("multi_query", true) ? 1 : a.heads;
  }
  if (r.flag_or("alibi", false)) {
    a.rotary_dim = 0;
    refuse(common, "Falcon's scaled linear biases");
  }
  read_activation(r, common, "activation", "gelu");
  common.execution.norm_epsilon = r.number_or("layer_norm_epsilon", 1e-5, 0, 1);
  read_rope(r, common, 10'000);
  const bool bias = r.flag_or("bias", false);
  set_bias(a, bias, bias);
  s.dense = {.width = r.integer_or("ffn_hidden_size", 4 * s.hidden, 1, kMaxExtent), .gated = false, .bias = bias};
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_mpt(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s;
  s.layers = r.integer("n_layers", 1, kMaxLayers);
  s.hidden = r.integer("d_model", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.tied_embeddings = r.flag_or("tie_word_embeddings", true);
  s.norm = NormKind::kLayer;
  common.max_context = s.max_positions = r.integer("max_seq_len", 1, kMaxExtent);
  AttentionSpec& a = s.attention;
  a.heads = r.integer("n_heads", 1, kMaxHeads);
  a.head_dim = a.value_dim = std::max<std::int64_t>(s.hidden / a.heads, 1);
  FieldReader attention = r.object_or_empty("attn_config");
  a.kv_heads = attention.integer_or("kv_n_heads", a.heads, 1, kMaxHeads);
  s.learned_positions = !attention.flag_or("alibi", false) && r.flag_or("learned_pos_emb", true);
  const bool bias = !r.flag_or("no_bias", true);
  set_bias(a, bias, bias);
  refuse(common, "the weights of MPT");
  const double ratio = r.number_or("expansion_ratio", 4, 1.0 / 64, 64);
  s.dense = {.width = static_cast<std::int64_t>(ratio * static_cast<double>(s.hidden)), .gated = false, .bias = bias};
  return finish({r.status(), attention.status()}, where, s, make_decoder_architecture);
}

// Group-limited choice of experts; `fallback` of them if not stated, half of them chosen.
void read_groups(FieldReader& r, const DecoderSpec& s, bool limited, std::int64_t fallback, Common& common) {
  Routing& routing = common.execution.routing;
  const std::int64_t groups = r.integer_or("n_group", fallback, 1, kMaxExperts);
  const std::int64_t chosen = r.integer_or("topk_group", (groups + 1) / 2, 1, kMaxExperts);
  if (!limited) return;
  routing.groups = groups;
  routing.chosen_groups = chosen;
  if (s.moe.experts % groups != 0 || chosen > groups) {
    r.fail("n_group", fmt::format("{} of {} experts, {} chosen", groups, s.moe.experts, chosen), "a divisor of the experts");
  }
}

ArchitectureResult read_deepseek(FieldReader& r, std::string_view where, std::string_view type, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  AttentionSpec& a = s.attention;
  a.kv_heads = a.heads;
  a.q_rank = r.integer_or("q_lora_rank", 0, 1, kMaxExtent);
  a.kv_rank = r.integer("kv_lora_rank", 1, kMaxExtent);
  a.nope_dim = r.integer("qk_nope_head_dim", 1, kMaxHeads);
  a.rope_dim = r.integer("qk_rope_head_dim", 1, kMaxHeads);
  a.value_dim = r.integer("v_head_dim", 1, kMaxHeads);
  a.head_dim = a.nope_dim + a.rope_dim;
  a.rotary_dim = 0;
  if (type == "deepseek_v32") {
    a.index_top_k = r.integer("index_topk", 1, kMaxPositions);
    a.index_heads = r.integer("index_n_heads", 1, kMaxHeads);
    a.index_dim = r.integer("index_head_dim", 1, kMaxHeads);
  }
  s.dense.width = r.integer("intermediate_size", 1, kMaxExtent);
  read_activation(r, common, "hidden_act", "silu");
  read_rms_epsilon(r, common, 1e-6);
  read_rope(r, common, 10'000);
  common.execution.pairing = RopePairing::kNeighbours;
  if (r.flag_or("attention_bias", false)) refuse(common, "biases in latent attention");
  if (r.has("n_routed_experts")) {
    s.moe = {.experts = r.integer("n_routed_experts", 1, kMaxExperts),
             .top_k = r.integer("num_experts_per_tok", 1, kMaxExperts),
             .width = r.integer("moe_intermediate_size", 1, kMaxExtent)};
    s.moe.shared_width = s.moe.width * r.integer_or("n_shared_experts", 0, 0, 1024);
    const bool second = type == "deepseek_v2";
    const std::string method = r.text_or("topk_method", second ? "greedy" : "noaux_tc");
    s.moe.selection_bias = method == "noaux_tc";
    Routing& routing = common.execution.routing;
    routing.scoring = r.text_or("scoring_func", second ? "softmax" : "sigmoid") == "sigmoid" ? RouteScoring::kSigmoid
                                                                                             : RouteScoring::kSoftmax;
    routing.selection_bias = s.moe.selection_bias;
    routing.normalise = r.flag_or("norm_topk_prob", !second);
    routing.weight_scale = static_cast<float>(r.number_or("routed_scaling_factor", second ? 1 : 2.5, 0, 1e9));
    read_groups(r, s, method != "greedy", type == "deepseek_v3" ? 8 : 1, common);
    s.first_dense = r.integer_or("first_k_dense_replace", 0, 0, kMaxLayers);
    if (const std::int64_t every = r.integer_or("moe_layer_freq", 1, 1, kMaxLayers); every != 1) {
      r.fail("moe_layer_freq", fmt::format("{}", every), "1");
    }
  }
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_glm(FieldReader& r, std::string_view where, std::string_view type, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  set_bias(s.attention, r.flag_or("attention_bias", false), false);
  read_partial_rotary(r, s.attention, 0.5);
  s.dense.width = r.integer("intermediate_size", 1, kMaxExtent);
  read_activation(r, common, "hidden_act", "silu");
  read_rms_epsilon(r, common, 1e-5);
  read_rope(r, common, 10'000);
  if (type == "glm4") common.execution.pairing = RopePairing::kNeighbours;
  if (type == "glm4_moe") {
    s.attention.qk_norm = r.flag_or("use_qk_norm", false);
    s.moe = {.experts = r.integer("n_routed_experts", 1, kMaxExperts),
             .top_k = r.integer("num_experts_per_tok", 1, kMaxExperts),
             .width = r.integer("moe_intermediate_size", 1, kMaxExtent)};
    s.moe.shared_width = s.moe.width * r.integer_or("n_shared_experts", 1, 0, 1024);
    s.moe.selection_bias = true;
    Routing& routing = common.execution.routing;
    routing.scoring = RouteScoring::kSigmoid;
    routing.selection_bias = true;
    routing.normalise = r.flag_or("norm_topk_prob", true);
    routing.weight_scale = static_cast<float>(r.number_or("routed_scaling_factor", 1, 0, 1e9));
    read_groups(r, s, true, 1, common);
    s.first_dense = r.integer_or("first_k_dense_replace", 1, 0, kMaxLayers);
  } else {
    s.post_norms = true;
  }
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_gpt_oss(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, false);
  const bool bias = r.flag_or("attention_bias", true);
  set_bias(s.attention, bias, bias);
  s.attention.sinks = true;
  s.attention.window = r.integer_or("sliding_window", 128, 1, kMaxPositions);
  read_layer_types(r, s, 2);
  s.moe = {.experts = r.integer("num_local_experts", 1, kMaxExperts),
           .top_k = r.has("num_experts_per_tok") ? r.integer("num_experts_per_tok", 1, kMaxExperts)
                                                 : r.integer("experts_per_token", 1, kMaxExperts),
           .width = r.integer("intermediate_size", 1, kMaxExtent),
           .bias = true,
           .router_bias = true};
  read_rms_epsilon(r, common, 1e-5);
  read_rope(r, common, 150'000);
  if (!r.has("rope_scaling") && !r.has("rope_parameters")) {
    common.execution.scaling = {.kind = RopeScaling::Kind::kYarn, .factor = 32, .original_context = 4096, .truncate = false};
  }
  common.execution.activation = Activation::kSwigluClamped;
  common.execution.routing.softmax_over_chosen = true;
  if (const double limit = r.number_or("swiglu_limit", 7, 0, 1e9); limit != 7) {
    refuse(common, fmt::format("an activation clamped at {}", limit));
  }
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_grok(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  DecoderSpec s = read_llama_shape(r, common, true);
  s.post_norms = true;
  s.embedding_scale = true;
  refuse(common, "the weights of Grok");
  s.attention.softcap = r.number_or("max_attn_value", 30, 0, 1e9) > 0;
  s.moe = {.experts = r.integer("num_experts", 1, kMaxExperts),
           .top_k = r.integer("num_experts_per_tok", 1, kMaxExperts),
           .width = r.integer("intermediate_size", 1, kMaxExtent)};
  return finish({r.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_llama4(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  const bool nested = r.has("text_config");
  FieldReader t = nested ? r.object("text_config") : r;
  DecoderSpec s = read_llama_shape(t, common, false);
  // Its query-key norm has no weights; the 2 head_dim per layer counted here are 1e-7 of the model.
  s.attention.qk_norm = t.flag_or("use_qk_norm", true);
  s.attention.chunk = t.integer_or("attention_chunk_size", 8192, 1, kMaxPositions);
  refuse(common, "the weights of Llama 4");
  s.global_without_rope = true;
  read_layer_types(t, s, t.integer_or("no_rope_layer_interval", 4, 1, kMaxLayers));
  s.moe = {.experts = t.integer("num_local_experts", 1, kMaxExperts),
           .top_k = t.integer("num_experts_per_tok", 1, kMaxExperts),
           .width = t.integer("intermediate_size", 1, kMaxExtent)};
  s.moe.shared_width = s.moe.width;
  s.moe_every = t.integer_or("interleave_moe_layer_step", 1, 1, kMaxLayers);
  if (s.moe_every > 1) s.dense.width = t.integer("intermediate_size_mlp", 1, kMaxExtent);
  if (!nested || !r.has("vision_config")) return finish({r.status(), t.status()}, where, s, make_decoder_architecture);
  FieldReader v = r.object("vision_config");
  VisionTower tower;
  tower.layers = v.integer_or("num_hidden_layers", 34, 1, kMaxLayers);
  tower.hidden = v.integer_or("hidden_size", 1408, 1, kMaxExtent);
  tower.heads = v.integer_or("num_attention_heads", 16, 1, kMaxHeads);
  tower.feed_forward = v.integer_or("intermediate_size", 5632, 1, kMaxExtent);
  tower.image_size = v.integer_or("image_size", 448, 1, 65'536);
  tower.patch_size = v.integer_or("patch_size", 14, 1, 65'536);
  tower.class_token = true;
  // Four neighbouring patches become one before the projector.
  const double shuffle = v.number_or("pixel_shuffle_ratio", 0.5, 0.01, 1);
  const std::int64_t side = tower.image_size / tower.patch_size;
  const auto rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(side * side) * shuffle * shuffle));
  const std::int64_t in = v.integer_or("projector_input_dim", 4096, 1, kMaxExtent);
  const std::int64_t out = v.integer_or("projector_output_dim", 4096, 1, kMaxExtent);
  const auto shuffled = static_cast<std::int64_t>(static_cast<double>(tower.hidden) / (shuffle * shuffle));
  tower.projector = {{.in = shuffled, .out = in, .rows_per_image = rows},
                     {.in = in, .out = out, .rows_per_image = rows},
                     {.in = out, .out = s.hidden, .rows_per_image = rows}};
  s.vision = tower;
  return finish({r.status(), t.status(), v.status()}, where, s, make_decoder_architecture);
}

ArchitectureResult read_mllama(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  FieldReader t = r.object("text_config");
  FieldReader v = r.object("vision_config");
  DecoderSpec s = read_llama_shape(t, common, false);
  s.dense.width = t.integer("intermediate_size", 1, kMaxExtent);
  s.cross_layers = static_cast<std::int64_t>(t.integers("cross_attention_layers", 0, kMaxLayers, 10'000).size());
  VisionTower tower;
  tower.layers = v.integer_or("num_hidden_layers", 32, 1, kMaxLayers);
  tower.global_layers = v.integer_or("num_global_layers", 8, 0, kMaxLayers);
  tower.hidden = v.integer_or("hidden_size", 1280, 1, 65'536);
  tower.heads = v.integer_or("attention_heads", 16, 1, kMaxHeads);
  tower.feed_forward = v.integer_or("intermediate_size", 5120, 1, kMaxExtent);
  tower.image_size = v.integer_or("image_size", 448, 1, 65'536);
  tower.patch_size = v.integer_or("patch_size", 14, 1, 65'536);
  tower.tiles = v.integer_or("max_num_tiles", 4, 1, 64);
  tower.class_token = true;
  tower.biases = false;
  const Json* ratios = v.array_or_null("supported_aspect_ratios");
  const std::int64_t aspects =
      1 + (ratios != nullptr ? static_cast<std::int64_t>(std::min<std::size_t>(ratios->size(), 1024)) : 8);
  const std::int64_t patches = std::min<std::int64_t>(tower.image_size / tower.patch_size, 512);
  // A position table per aspect ratio and tile, and two tile tables.
  tower.extra_parameters = aspects * tower.tiles * tower.hidden * (patches * patches + 1 + 2);
  tower.projector = {{.in = v.integer_or("vision_output_dim", 7680, 1, kMaxExtent),
                      .out = s.hidden,
                      .rows_per_image = tower.tiles * (patches * patches + 1),
                      .bias = true}};
  s.vision = tower;
  return finish({r.status(), t.status(), v.status()}, where, s, make_decoder_architecture);
}

bool names_architecture(FieldReader& r, std::string_view part) {
  const std::vector<std::string> all = r.texts_or_empty("architectures");
  return std::any_of(all.begin(), all.end(), [&](const std::string& a) { return a.find(part) != std::string::npos; });
}

ArchitectureResult read_bert(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  EncoderSpec s;
  s.layers = r.integer("num_hidden_layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden_size", 1, kMaxExtent);
  s.heads = r.integer("num_attention_heads", 1, kMaxHeads);
  s.feed_forward = r.integer("intermediate_size", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  common.max_context = s.max_positions = r.integer("max_position_embeddings", 1, kMaxExtent);
  s.token_types = r.integer_or("type_vocab_size", 2, 0, kMaxExtent);
  s.dropout = r.number_or("hidden_dropout_prob", 0.1, 0, 1) > 0;
  s.masked_lm_head = names_architecture(r, "ForMaskedLM") || names_architecture(r, "ForPreTraining");
  s.pooler = !names_architecture(r, "ForMaskedLM");
  return finish({r.status()}, where, s, make_encoder_architecture);
}

ArchitectureResult read_vit(FieldReader& r, std::string_view where, std::string_view, Common&) {
  VisionTransformerSpec s;
  s.layers = r.integer("num_hidden_layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden_size", 1, kMaxExtent);
  s.heads = r.integer("num_attention_heads", 1, kMaxHeads);
  s.feed_forward = r.integer("intermediate_size", 1, kMaxExtent);
  s.image_size = r.integer("image_size", 1, 65'536);
  s.patch_size = r.integer("patch_size", 1, 65'536);
  s.classes = r.integer_or("num_labels", 1000, 1, kMaxExtent);
  return finish({r.status()}, where, s, make_vision_transformer_architecture);
}

ArchitectureResult read_t5(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  EncoderDecoderSpec s;
  s.encoder_layers = r.integer("num_layers", 1, kMaxLayers);
  s.decoder_layers = r.integer_or("num_decoder_layers", s.encoder_layers, 1, kMaxLayers);
  s.hidden = r.integer("d_model", 1, kMaxExtent);
  s.heads = r.integer("num_heads", 1, kMaxHeads);
  s.head_dim = r.integer("d_kv", 1, kMaxHeads);
  s.feed_forward = r.integer("d_ff", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.tied_embeddings = r.flag_or("tie_word_embeddings", true);
  const std::string projection = r.text_or("feed_forward_proj", "relu");
  s.gated = projection.substr(0, 6) == "gated-";
  s.relu = projection == "relu";
  s.dropout = r.number_or("dropout_rate", 0.1, 0, 1) > 0;
  s.relative_buckets = r.integer_or("relative_attention_num_buckets", 32, 1, kMaxExtent);
  common.max_context = s.max_source_positions = r.integer_or("n_positions", 512, 1, kMaxExtent);
  return finish({r.status()}, where, s, make_encoder_decoder_architecture);
}

ArchitectureResult read_whisper(FieldReader& r, std::string_view where, std::string_view, Common& common) {
  EncoderDecoderSpec s;
  s.flavour = EncoderDecoderSpec::Kind::kWhisper;
  s.encoder_layers = r.integer("encoder_layers", 1, kMaxLayers);
  s.decoder_layers = r.integer("decoder_layers", 1, kMaxLayers);
  s.hidden = r.integer("d_model", 1, kMaxExtent);
  s.heads = r.integer("encoder_attention_heads", 1, kMaxHeads);
  s.head_dim = std::max<std::int64_t>(s.hidden / s.heads, 1);
  s.feed_forward = r.integer("encoder_ffn_dim", 1, kMaxExtent);
  s.vocabulary = r.integer("vocab_size", 1, kMaxExtent);
  s.relu = false;
  s.mel_bins = r.integer("num_mel_bins", 1, kMaxExtent);
  s.max_source_positions = r.integer("max_source_positions", 1, kMaxExtent);
  common.max_context = s.max_target_positions = r.integer("max_target_positions", 1, kMaxExtent);
  return finish({r.status()}, where, s, make_encoder_decoder_architecture);
}

struct Reader {
  std::string_view type;
  std::string_view architecture;  // the start of its name in "architectures", for files without a model_type
  ArchitectureResult (*read)(FieldReader&, std::string_view where, std::string_view type, Common&);
};
constexpr Reader kReaders[] = {
    {"llama", "LlamaFor", read_llama},
    {"mistral", "MistralFor", read_llama},
    {"mixtral", "MixtralFor", read_llama},
    {"phi3", "Phi3For", read_llama},
    {"qwen2", "Qwen2For", read_qwen},
    {"qwen2_moe", "Qwen2MoeFor", read_qwen},
    {"qwen3", "Qwen3For", read_qwen},
    {"qwen3_moe", "Qwen3MoeFor", read_qwen},
    {"gemma", "GemmaFor", read_gemma},
    {"gemma2", "Gemma2For", read_gemma},
    {"gemma3_text", "Gemma3ForCausalLM", read_gemma},
    {"gemma3", "Gemma3ForConditionalGeneration", read_gemma},
    {"phi", "PhiFor", read_phi},
    {"gpt2", "GPT2", read_gpt2},
    {"gpt_neox", "GPTNeoXFor", read_gpt_neox},
    {"opt", "OPTFor", read_opt},
    {"bloom", "BloomFor", read_bloom},
    {"falcon", "FalconFor", read_falcon},
    {"mpt", "MPTFor", read_mpt},
    {"starcoder2", "Starcoder2For", read_starcoder2},
    {"deepseek_v2", "DeepseekV2For", read_deepseek},
    {"deepseek_v3", "DeepseekV3For", read_deepseek},
    {"deepseek_v32", "DeepseekV32For", read_deepseek},
    {"kimi_k2", "KimiK2For", read_deepseek},
    {"glm4", "Glm4For", read_glm},
    {"glm4_moe", "Glm4MoeFor", read_glm},
    {"gpt_oss", "GptOssFor", read_gpt_oss},
    {"grok-1", "Grok1", read_grok},
    {"llama4_text", "Llama4ForCausalLM", read_llama4},
    {"llama4", "Llama4ForConditionalGeneration", read_llama4},
    {"mllama", "MllamaFor", read_mllama},
    {"bert", "BertFor", read_bert},
    {"roberta", "RobertaFor", read_bert},
    {"t5", "T5For", read_t5},
    {"vit", "ViTFor", read_vit},
    {"whisper", "WhisperFor", read_whisper},
};

const Reader* reader_of(FieldReader& r) {
  if (r.has("model_type")) {
    const std::string type = r.text("model_type");
    for (const Reader& reader : kReaders) {
      if (reader.type == type) return &reader;
    }
    std::string known;
    for (const Reader& reader : kReaders) known += fmt::format("{}{}", known.empty() ? "one of " : ", ", reader.type);
    r.fail("model_type", fmt::format("'{}' is not known", type), known);
    return nullptr;
  }
  const std::vector<std::string> architectures = r.texts_or_empty("architectures");
  for (const std::string& name : architectures) {
    for (const Reader& reader : kReaders) {
      if (name.substr(0, reader.architecture.size()) == reader.architecture) return &reader;
    }
  }
  if (architectures.empty()) {
    r.fail("model_type", "missing", "the type of the model");
  } else {
    r.fail("architectures", fmt::format("'{}' is not known", architectures[0]), "a known architecture, or a model_type");
  }
  return nullptr;
}

// The type that the weights are published in.
DType read_native_type(FieldReader& r) {
  std::string type = r.text_or("torch_dtype", "");
  if (type.empty()) type = r.text_or("dtype", "");
  DType native = type == "float32" ? DType::kF32 : type == "float16" ? DType::kF16 : DType::kBf16;
  FieldReader quantization = r.object_or_empty("quantization_config");
  const std::string method = quantization.text_or("quant_method", "");
  if (method == "fp8") native = DType::kFp8E4m3;
  if (method == "mxfp4") native = DType::kMxfp4;
  if (method == "gptq" || method == "awq") {
    native = quantization.integer_or("bits", 4, 1, 16) == 8 ? DType::kInt8 : DType::kInt4;
  }
  return native;
}

}  // namespace

Result<Model> parse_hf_config(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{16} << 20, .max_depth = 64}));
  FieldReader r(&json, std::string(where), "");
  ROOFTREE_TRY_VOID(r.status());
  const Reader* reader = reader_of(r);
  if (reader == nullptr) return r.status().error();
  Model model;
  model.family = std::string(reader->type);
  model.source = std::string(where);
  model.sources = {model.source};
  std::string id = r.text_or("_name_or_path", "");
  if (id.empty()) id = std::string(reader->type);
  model.name = id;
  model.id = id.substr(id.find_last_of('/') == std::string::npos ? 0 : id.find_last_of('/') + 1);
  if (model.id.empty()) model.id = std::string(reader->type);
  model.native_weight_type = read_native_type(r);
  Common common;
  ROOFTREE_TRY(model.architecture, reader->read(r, where, reader->type, common));
  model.max_context = common.max_context;
  set_execution(model, common.execution);
  return model;
}

}  // namespace rooftree::model

#include "model/weight_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>

#include "model/architecture.h"

// Names in GGUF: llama.cpp (github.com/ggml-org/llama.cpp), gguf-py/gguf/constants.py and tensor_mapping.py. Names in Hugging
// Face files: the modules of the transformers library (github.com/huggingface/transformers, src/transformers/models).

namespace rooftree::model {
namespace {

using Change = WeightPart::Change;
using Parts = std::vector<WeightPart>;

bool starts_with(std::string_view text, std::string_view with) { return text.substr(0, with.size()) == with; }
bool ends_with(std::string_view text, std::string_view with) {
  return text.size() >= with.size() && text.substr(text.size() - with.size()) == with;
}

// A graph name in three: "shared_feed_forward.gate_up.weight" is shared, "feed_forward.gate_up", "weight".
struct GraphName {
  bool shared = false;
  std::string_view stem, kind;
};
GraphName split(std::string_view name) {
  GraphName out;
  if (starts_with(name, "shared_feed_forward")) {
    out.shared = true;
    name.remove_prefix(std::string_view("shared_").size());
  }
  const std::size_t dot = name.rfind('.');
  const std::string_view last = dot == std::string_view::npos ? std::string_view{} : name.substr(dot + 1);
  if (last == "weight" || last == "bias") {
    out.stem = name.substr(0, dot);
    out.kind = last;
  } else {
    out.stem = name;
  }
  return out;
}

bool in_layer(std::string_view stem) {
  constexpr std::string_view kOutside[] = {"embedding", "position", "type",      "embedding_norm", "final_norm",
                                           "head",      "pooler",   "transform", "head_norm"};
  return std::find(std::begin(kOutside), std::end(kOutside), stem) == std::end(kOutside);
}

// Looks names up in a file and collects parts.
class Binder {
 public:
  Binder(const DecoderSpec& spec, GraphName name, std::int64_t layer, const std::function<bool(std::string_view)>& has)
      : s(spec), a(spec.attention), name_(name), layer_(layer), has_(has) {}

  [[nodiscard]] bool has(std::string_view name) const { return has_(name); }
  // The first name that exists, else the first.
  [[nodiscard]] std::string pick(std::initializer_list<std::string> names) const {
    for (const std::string& name : names) {
      if (has(name)) return name;
    }
    return *names.begin();
  }
  [[nodiscard]] std::int64_t layer() const { return layer_; }
  [[nodiscard]] const GraphName& name() const { return name_; }
  [[nodiscard]] bool bias() const { return name_.kind == "bias"; }
  [[nodiscard]] std::int64_t q_rows() const { return a.heads * a.head_dim; }
  [[nodiscard]] std::int64_t k_rows() const { return a.kv_heads * a.head_dim; }
  [[nodiscard]] std::int64_t v_rows() const { return a.kv_heads * a.value_dim; }

  const DecoderSpec& s;
  const AttentionSpec& a;

 private:
  GraphName name_;
  std::int64_t layer_;
  const std::function<bool(std::string_view)>& has_;
};

WeightPart whole(std::string tensor, Change change = Change::kNone) { return {.tensor = std::move(tensor), .change = change}; }
WeightPart slice(std::string tensor, std::int64_t first, std::int64_t rows, Change change = Change::kNone) {
  return {.tensor = std::move(tensor), .first_row = first, .rows = rows, .change = change};
}

// Queries, keys and values of a graph that has them in one weight or apart, from a file that has them in one tensor or apart.
// A bias that exists for some of them only is zero for the others.
Parts query_key_value(const Binder& b, std::string_view stem, const std::string& fused,
                      const std::array<std::string, 3>& apart) {
  const std::array<std::int64_t, 3> rows = {b.q_rows(), b.k_rows(), b.v_rows()};
  const std::array<std::string_view, 3> stems = {"attention.q", "attention.k", "attention.v"};
  const bool one = b.has(fused);
  Parts parts;
  std::int64_t first = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    if (stem == "attention.qkv" || stem == stems[i]) {
      parts.push_back(one ? slice(fused, first, rows[i]) : slice(apart[i], 0, rows[i]));
      parts.back().optional = b.bias() && !one;
    }
    first += rows[i];
  }
  if (one && stem == "attention.qkv") return {whole(fused)};
  return parts;
}

// Gate and up of a feed-forward `width` wide.
Parts gate_up(std::string_view stem, std::int64_t width, bool fused, const std::string& both, const std::string& gate,
              const std::string& up) {
  if (stem == "feed_forward.gate_up") return fused ? Parts{whole(both)} : Parts{whole(gate), whole(up)};
  if (stem == "feed_forward.gate") return {fused ? slice(both, 0, width) : whole(gate)};
  return {fused ? slice(both, width, width) : whole(up)};
}

// Per expert: its gate rows, then its up rows.
Parts expert_rows(const Binder& b, const std::function<WeightPart(std::int64_t expert, bool up)>& part) {
  Parts parts;
  parts.reserve(static_cast<std::size_t>(2 * b.s.moe.experts));
  for (std::int64_t e = 0; e < b.s.moe.experts; ++e) {
    if (b.s.moe.gated) parts.push_back(part(e, false));
    parts.push_back(part(e, true));
  }
  return parts;
}

// The matrix that expands latents, (heads (nope + value), rank), as the two that absorption uses.
Parts absorbed_from(const Binder& b, const std::string& kv_b, bool keys) {
  Parts parts;
  const std::int64_t per_head = b.a.nope_dim + b.a.value_dim;
  for (std::int64_t h = 0; h < b.a.heads; ++h) {
    parts.push_back(keys ? slice(kv_b, h * per_head, b.a.nope_dim, Change::kTranspose)
                         : slice(kv_b, h * per_head + b.a.nope_dim, b.a.value_dim));
  }
  return parts;
}

// ---------------------------------------------------------------- GGUF

Parts gguf_parts(const Binder& b) {
  const GraphName& n = b.name();
  const std::string kind = n.kind.empty() ? std::string() : "." + std::string(n.kind);
  const auto outside = [&](std::string_view name) { return Parts{whole(fmt::format("{}{}", name, kind))}; };
  const auto inside = [&](std::string_view name) { return fmt::format("blk.{}.{}{}", b.layer(), name, kind); };
  const auto one = [&](std::string_view name) { return Parts{whole(inside(name))}; };
  const std::string_view stem = n.stem;
  if (stem == "embedding") return outside("token_embd");
  if (stem == "position") return outside("position_embd");
  if (stem == "embedding_norm") return outside("token_embd_norm");
  if (stem == "final_norm") return outside("output_norm");
  if (stem == "head") return {whole(b.bias() ? "output.bias" : b.pick({"output.weight", "token_embd.weight"}))};

  // Falcon's second norm belongs to attention.
  const bool two = b.s.parallel && b.s.parallel_norms == 2;
  if (stem == "input_norm") return one(two ? "attn_norm_2" : "attn_norm");
  if (stem == "feed_forward_norm") {
    return {whole(two ? inside("attn_norm") : b.pick({inside("ffn_norm"), inside("post_attention_norm")}))};
  }
  if (stem == "post_attention_norm") return one("post_attention_norm");
  if (stem == "post_feed_forward_norm") return one("post_ffw_norm");
  if (stem == "attention.qkv" || stem == "attention.k" || stem == "attention.v" || (stem == "attention.q" && !b.a.latent())) {
    return query_key_value(b, stem, inside("attn_qkv"), {inside("attn_q"), inside("attn_k"), inside("attn_v")});
  }
  if (stem == "attention.q") return one("attn_q");
  if (stem == "attention.output") return one("attn_output");
  if (stem == "attention.q_norm") return one("attn_q_norm");
  if (stem == "attention.k_norm") return one("attn_k_norm");
  if (stem == "attention.sinks") return {whole(fmt::format("blk.{}.attn_sinks.weight", b.layer()))};
  if (stem == "attention.qkv_a") return {whole(inside("attn_q_a")), whole(inside("attn_kv_a_mqa"))};
  if (stem == "attention.q_a") return one("attn_q_a");
  if (stem == "attention.kv_a") return one("attn_kv_a_mqa");
  if (stem == "attention.q_a_norm") return one("attn_q_a_norm");
  if (stem == "attention.kv_a_norm") return one("attn_kv_a_norm");
  if (stem == "attention.q_b") return one("attn_q_b");
  if (stem == "attention.kv_b") return one("attn_kv_b");
  if (stem == "attention.k_b" || stem == "attention.v_b") {
    const bool keys = stem == "attention.k_b";
    const std::string split = inside(keys ? "attn_k_b" : "attn_v_b");
    if (!b.has(split) && b.has(inside("attn_kv_b"))) return absorbed_from(b, inside("attn_kv_b"), keys);
    return {whole(split)};
  }
  const std::string_view shared = n.shared ? "_shexp" : "";
  const auto ffn = [&](std::string_view part) { return inside(fmt::format("ffn_{}{}", part, shared)); };
  const std::int64_t width = n.shared ? b.s.moe.shared_width : b.s.dense.width;
  const bool gated = n.shared ? b.s.moe.gated : b.s.dense.gated;
  if (stem == "feed_forward.gate_up" || stem == "feed_forward.gate" || (stem == "feed_forward.up" && gated)) {
    const bool fused = !b.has(ffn("gate")) && b.has(ffn("up"));
    return gate_up(stem, width, fused, ffn("up"), ffn("gate"), ffn("up"));
  }
  if (stem == "feed_forward.up") return {whole(ffn("up"))};
  if (stem == "feed_forward.down") return {whole(ffn("down"))};
  if (stem == "router") return one("ffn_gate_inp");
  if (stem == "router.selection_bias") {
    return {whole(b.pick({fmt::format("blk.{}.exp_probs_b.bias", b.layer()), fmt::format("blk.{}.exp_probs_b", b.layer())}))};
  }
  if (stem == "shared_gate") return one("ffn_gate_inp_shexp");
  if (stem == "experts.gate_up") {
    if (b.has(inside("ffn_gate_up_exps"))) return one("ffn_gate_up_exps");
    return expert_rows(b, [&](std::int64_t e, bool up) {
      const std::string stack = inside(up ? "ffn_up_exps" : "ffn_gate_exps");
      const std::string single = inside(fmt::format("ffn_{}.{}", up ? "up" : "gate", e));  // files before April 2024
      return !b.has(stack) && b.has(single) ? whole(single) : slice(stack, e * b.s.moe.width, b.s.moe.width);
    });
  }
  if (stem == "experts.down") {
    if (b.has(inside("ffn_down_exps")) || !b.has(inside("ffn_down.0"))) return one("ffn_down_exps");
    Parts parts;
    for (std::int64_t e = 0; e < b.s.moe.experts; ++e) parts.push_back(whole(inside(fmt::format("ffn_down.{}", e))));
    return parts;
  }
  return {};
}

// ---------------------------------------------------------------- Hugging Face

enum class Family : std::uint8_t { kLlama, kGemma, kGpt2, kFalcon, kGptOss, kGlm4 };
std::optional<Family> family_of(std::string_view model_type) {
  struct Named {
    std::string_view type;
    Family family;
  };
  constexpr Named kNames[] = {
      {"llama", Family::kLlama},      {"mistral", Family::kLlama},     {"mixtral", Family::kLlama},
      {"phi3", Family::kLlama},       {"qwen2", Family::kLlama},       {"qwen2_moe", Family::kLlama},
      {"qwen3", Family::kLlama},      {"qwen3_moe", Family::kLlama},   {"phi", Family::kLlama},
      {"starcoder2", Family::kLlama}, {"deepseek_v2", Family::kLlama}, {"deepseek_v3", Family::kLlama},
      {"kimi_k2", Family::kLlama},    {"glm4_moe", Family::kLlama},    {"gemma", Family::kGemma},
      {"gemma2", Family::kGemma},     {"gemma3_text", Family::kGemma}, {"gemma3", Family::kGemma},
      {"gpt2", Family::kGpt2},        {"falcon", Family::kFalcon},     {"gpt_oss", Family::kGptOss},
      {"glm4", Family::kGlm4},
  };
  for (const Named& named : kNames) {
    if (named.type == model_type) return named.family;
  }
  return std::nullopt;
}

// Falcon keeps the query heads of a group, its key head and its value head together.
Parts falcon_query_key_value(const Binder& b, const std::string& fused) {
  const std::int64_t group = b.a.heads / b.a.kv_heads;
  const std::int64_t d = b.a.head_dim;
  Parts parts;
  for (std::int64_t g = 0; g < b.a.kv_heads; ++g) parts.push_back(slice(fused, g * (group + 2) * d, group * d));
  for (const std::int64_t place : {group, group + 1}) {
    for (std::int64_t g = 0; g < b.a.kv_heads; ++g) parts.push_back(slice(fused, (g * (group + 2) + place) * d, d));
  }
  return parts;
}

Parts gpt2_parts(const Binder& b) {
  const GraphName& n = b.name();
  // Files made of the bare model have no "transformer." in front.
  const std::string_view root = b.has("wte.weight") ? "" : "transformer.";
  const auto outside = [&](std::string_view name) { return Parts{whole(fmt::format("{}{}.{}", root, name, n.kind))}; };
  const auto inside = [&](std::string_view name, bool matrix) {
    return Parts{whole(fmt::format("{}h.{}.{}.{}", root, b.layer(), name, n.kind),
                       matrix && !b.bias() ? Change::kTranspose : Change::kNone)};
  };
  if (n.stem == "embedding") return outside("wte");
  if (n.stem == "position") return outside("wpe");
  if (n.stem == "final_norm") return outside("ln_f");
  if (n.stem == "head") return {whole(b.pick({"lm_head.weight", fmt::format("{}wte.weight", root)}))};
  if (n.stem == "input_norm") return inside("ln_1", false);
  if (n.stem == "feed_forward_norm") return inside("ln_2", false);
  if (n.stem == "attention.qkv") return inside("attn.c_attn", true);
  if (n.stem == "attention.output") return inside("attn.c_proj", true);
  if (n.stem == "feed_forward.up") return inside("mlp.c_fc", true);
  if (n.stem == "feed_forward.down") return inside("mlp.c_proj", true);
  return {};
}

Parts falcon_parts(const Binder& b) {
  const GraphName& n = b.name();
  const auto outside = [&](std::string_view name) { return fmt::format("transformer.{}.{}", name, n.kind); };
  const auto inside = [&](std::string_view name) { return fmt::format("transformer.h.{}.{}.{}", b.layer(), name, n.kind); };
  if (n.stem == "embedding") return {whole(outside("word_embeddings"))};
  if (n.stem == "final_norm") return {whole(outside("ln_f"))};
  if (n.stem == "head") return {whole(b.pick({"lm_head.weight", outside("word_embeddings")}))};
  if (n.stem == "input_norm") return {whole(b.pick({inside("input_layernorm"), inside("ln_attn")}))};
  if (n.stem == "feed_forward_norm") return {whole(b.pick({inside("post_attention_layernorm"), inside("ln_mlp")}))};
  if (n.stem == "attention.qkv") return falcon_query_key_value(b, inside("self_attention.query_key_value"));
  if (n.stem == "attention.output") return {whole(inside("self_attention.dense"))};
  if (n.stem == "feed_forward.up") return {whole(inside("mlp.dense_h_to_4h"))};
  if (n.stem == "feed_forward.down") return {whole(inside("mlp.dense_4h_to_h"))};
  return {};
}

// gpt-oss stacks its experts, input dimension before output dimension, with gate and up columns alternating.
Result<Parts> gpt_oss_experts(const Binder& b, const std::string& experts) {
  const bool up = b.name().stem == "experts.gate_up";
  const std::string tensor = experts + (up ? "gate_up_proj" : "down_proj");
  if (b.has(tensor + "_blocks")) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}_blocks: MXFP4 in blocks and scales apart; expected bf16 experts, or a GGUF file", tensor)};
  }
  const std::int64_t in = b.s.hidden, out = 2 * b.s.moe.width;
  if (!up) {
    if (b.bias()) return Parts{whole(tensor + "_bias")};
    return Parts{{.tensor = tensor, .change = Change::kTranspose, .heads = b.s.moe.experts}};
  }
  Parts parts;
  for (std::int64_t e = 0; e < b.s.moe.experts; ++e) {
    if (b.bias()) {
      parts.push_back(slice(tensor + "_bias", e * out, out, Change::kInterleave));
    } else {
      parts.push_back(slice(tensor, e * in, in, Change::kTransposeInterleave));
    }
  }
  return parts;
}

// Llama's module names and the variations on them.
Result<Parts> llama_parts(const Binder& b, Family family) {
  const GraphName& n = b.name();
  const std::string_view stem = n.stem;
  // Multimodal files nest the language model.
  std::string root = "model.";
  for (const std::string_view nested : {"language_model.model.", "model.language_model."}) {
    if (b.has(fmt::format("{}embed_tokens.weight", nested))) root = nested;
  }
  const std::string kind = n.kind.empty() ? std::string() : "." + std::string(n.kind);
  const auto outside = [&](std::string_view name) { return fmt::format("{}{}{}", root, name, kind); };
  const auto inside = [&](std::string_view name) { return fmt::format("{}layers.{}.{}{}", root, b.layer(), name, kind); };
  const auto bare = [&](std::string_view name) { return fmt::format("{}layers.{}.{}", root, b.layer(), name); };
  const auto one = [&](std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      if (b.has(inside(name))) return Parts{whole(inside(name))};
    }
    return Parts{whole(inside(*names.begin()))};
  };
  const auto norm = [&](std::string name) {
    return Parts{whole(std::move(name), family == Family::kGemma && !b.bias() ? Change::kAddOne : Change::kNone)};
  };
  if (stem == "embedding") return Parts{whole(outside("embed_tokens"))};
  if (stem == "final_norm") return norm(b.pick({outside("norm"), outside("final_layernorm")}));
  if (stem == "head") {
    const std::string head = fmt::format("lm_head{}", kind);
    return Parts{whole(b.bias() ? head : b.pick({head, "language_model.lm_head.weight", outside("embed_tokens")}))};
  }
  const bool gemma = family == Family::kGemma && b.s.post_norms;
  const bool glm = family == Family::kGlm4;
  if (stem == "input_norm") return norm(inside("input_layernorm"));
  if (stem == "feed_forward_norm") return norm(inside(gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"));
  if (stem == "post_attention_norm") return norm(inside(glm ? "post_self_attn_layernorm" : "post_attention_layernorm"));
  if (stem == "post_feed_forward_norm") return norm(inside(glm ? "post_mlp_layernorm" : "post_feedforward_layernorm"));
  if (stem == "attention.qkv" || stem == "attention.k" || stem == "attention.v" || (stem == "attention.q" && !b.a.latent())) {
    return query_key_value(b, stem, inside("self_attn.qkv_proj"),
                           {inside("self_attn.q_proj"), inside("self_attn.k_proj"), inside("self_attn.v_proj")});
  }
  if (stem == "attention.q") return one({"self_attn.q_proj"});
  if (stem == "attention.output") return one({"self_attn.o_proj", "self_attn.dense"});
  if (stem == "attention.q_norm") return norm(inside("self_attn.q_norm"));
  if (stem == "attention.k_norm") return norm(inside("self_attn.k_norm"));
  if (stem == "attention.sinks") return Parts{whole(bare("self_attn.sinks"))};
  if (stem == "attention.qkv_a") {
    return Parts{whole(inside("self_attn.q_a_proj")), whole(inside("self_attn.kv_a_proj_with_mqa"))};
  }
  if (stem == "attention.q_a") return one({"self_attn.q_a_proj"});
  if (stem == "attention.kv_a") return one({"self_attn.kv_a_proj_with_mqa"});
  if (stem == "attention.q_a_norm") return one({"self_attn.q_a_layernorm"});
  if (stem == "attention.kv_a_norm") return one({"self_attn.kv_a_layernorm"});
  if (stem == "attention.q_b") return one({"self_attn.q_b_proj"});
  if (stem == "attention.kv_b") return one({"self_attn.kv_b_proj"});
  if (stem == "attention.k_b" || stem == "attention.v_b") {
    return absorbed_from(b, inside("self_attn.kv_b_proj"), stem == "attention.k_b");
  }

  const std::string_view shared =
      n.shared ? (b.has(bare("mlp.shared_expert.up_proj.weight")) || b.s.moe.shared_gate ? "mlp.shared_expert."
                                                                                         : "mlp.shared_experts.")
               : "mlp.";
  const auto ffn = [&](std::string_view part) { return inside(fmt::format("{}{}", shared, part)); };
  const std::int64_t width = n.shared ? b.s.moe.shared_width : b.s.dense.width;
  const bool gated = n.shared ? b.s.moe.gated : b.s.dense.gated;
  if (stem == "feed_forward.gate_up" || stem == "feed_forward.gate" || (stem == "feed_forward.up" && gated)) {
    return gate_up(stem, width, b.has(ffn("gate_up_proj")), ffn("gate_up_proj"), ffn("gate_proj"), ffn("up_proj"));
  }
  if (stem == "feed_forward.up") return Parts{whole(b.pick({ffn("up_proj"), ffn("c_fc"), ffn("fc1")}))};
  if (stem == "feed_forward.down") return Parts{whole(b.pick({ffn("down_proj"), ffn("c_proj"), ffn("fc2")}))};

  const bool mixtral = b.has(bare("block_sparse_moe.gate.weight"));
  if (stem == "router") return one({"mlp.gate", "block_sparse_moe.gate", "mlp.router"});
  if (stem == "router.selection_bias") return Parts{whole(bare("mlp.gate.e_score_correction_bias"))};
  if (stem == "shared_gate") return one({"mlp.shared_expert_gate"});
  if (family == Family::kGptOss && starts_with(stem, "experts.")) return gpt_oss_experts(b, bare("mlp.experts."));
  const auto expert = [&](std::int64_t e, std::string_view of_mixtral, std::string_view of_others) {
    return whole(mixtral ? inside(fmt::format("block_sparse_moe.experts.{}.{}", e, of_mixtral))
                         : inside(fmt::format("mlp.experts.{}.{}", e, of_others)));
  };
  if (stem == "experts.gate_up") {
    return expert_rows(b,
                       [&](std::int64_t e, bool up) { return up ? expert(e, "w3", "up_proj") : expert(e, "w1", "gate_proj"); });
  }
  if (stem == "experts.down") {
    Parts parts;
    for (std::int64_t e = 0; e < b.s.moe.experts; ++e) parts.push_back(expert(e, "w2", "down_proj"));
    return parts;
  }
  return Parts{};
}

}  // namespace

bool weight_is_vector(std::string_view name) {
  return ends_with(name, "bias") || ends_with(name, "norm.weight") || ends_with(name, ".sinks");
}

Result<std::vector<WeightPart>> weight_parts(const Model& model, Naming naming, const Value& value, std::int64_t layer,
                                             const std::function<bool(std::string_view)>& has_tensor) {
  const GraphName name = split(value.name);
  if (naming == Naming::kGraph) return Parts{whole(in_layer(name.stem) ? fmt::format("{}.{}", layer, value.name) : value.name)};
  const DecoderSpec* spec = model.architecture == nullptr ? nullptr : model.architecture->decoder();
  const auto unknown = [&] {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {}: no tensor is known for it in {} files of '{}'", model.id, value.name,
                                                  naming == Naming::kGguf ? "GGUF" : "Hugging Face", model.family)};
  };
  if (spec == nullptr) return unknown();
  const Binder binder(*spec, name, layer, has_tensor);
  Result<Parts> parts = Parts{};
  if (naming == Naming::kGguf) {
    parts = gguf_parts(binder);
  } else if (const auto family = family_of(model.family)) {
    if (*family == Family::kGpt2) {
      parts = gpt2_parts(binder);
    } else if (*family == Family::kFalcon) {
      parts = falcon_parts(binder);
    } else {
      parts = llama_parts(binder, *family);
    }
  }
  if (parts && parts->empty()) return unknown();
  return parts;
}

}  // namespace rooftree::model

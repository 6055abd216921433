#include "model/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "model/execution.h"

// Keys: docs/gguf.md of github.com/ggml-org/ggml, and llama.cpp (github.com/ggml-org/llama.cpp), gguf-py/gguf/constants.py.
// Constants that no key states follow llama.cpp, src/llama-model.cpp and src/models/, so that a file means here what it means
// there.

namespace rooftree::model {
namespace {

using formats::GgufFile;
using formats::TensorView;

// Reads keys of one architecture within bounds. The first problem is kept, as in FieldReader.
class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture) : file_(file), architecture_(std::move(architecture)) {}

  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high) {
    return bounded(key, file_.integer(full(key)), low, high);
  }
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high) {
    if (!has(key)) return fallback;
    return bounded(key, file_.integer(full(key)), low, high);
  }
  double number_or(std::string_view key, double fallback, double low, double high) {
    const Result<double> value = file_.number_or(full(key), fallback);
    if (!value) return keep(value.error()), fallback;
    if (*value >= low && *value <= high) return *value;
    fail(full(key), fmt::format("{}", *value), fmt::format("a number in {}..{}", low, high));
    return fallback;
  }
  bool flag_or(std::string_view key, bool fallback) {
    const Result<bool> value = file_.flag_or(full(key), fallback);
    if (!value) return keep(value.error()), fallback;
    return *value;
  }
  std::string text_or(std::string_view key, std::string_view fallback) {
    const auto value = file_.text_or(full(key), fallback);
    if (!value) return keep(value.error()), std::string(fallback);
    return std::string(*value);
  }
  [[nodiscard]] bool has(std::string_view key) const { return file_.metadata(full(key)) != nullptr; }
  [[nodiscard]] bool has_tensor(std::string_view name) const { return file_.contains(name); }
  [[nodiscard]] const GgufFile& file() const { return file_; }
  [[nodiscard]] std::string full(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }

  // Extents of a tensor; empty, with a problem, if it is missing or has another number of dimensions.
  std::vector<std::int64_t> extents(std::string_view name, std::size_t dimensions) {
    const TensorView* tensor = find(name);
    if (tensor == nullptr) {
      fail(name, "missing", "this tensor");
    } else if (tensor->extents.size() != dimensions) {
      fail(name, fmt::format("{} dimensions", tensor->extents.size()), fmt::format("{}", dimensions));
    } else {
      return tensor->extents;
    }
    return std::vector<std::int64_t>(dimensions, 0);
  }
  // The values of an F32 tensor; empty if it is missing.
  std::vector<double> floats(std::string_view name) {
    const TensorView* tensor = find(name);
    if (tensor == nullptr) return {};
    if (tensor->type != DType::kF32 || tensor->bytes.size() > (std::size_t{1} << 20)) {
      fail(name, fmt::format("{} bytes of {}", tensor->bytes.size(), rooftree::name(tensor->type)), "a short f32 tensor");
      return {};
    }
    std::vector<double> values(tensor->bytes.size() / sizeof(float));
    for (std::size_t i = 0; i < values.size(); ++i) {
      float value = 0;
      std::memcpy(&value, tensor->bytes.data() + i * sizeof value, sizeof value);
      if (!(value > 0) || !std::isfinite(value)) {
        fail(name, fmt::format("{}", value), "positive numbers");
        return {};
      }
      values[i] = value;
    }
    return values;
  }

  void fail(std::string_view what, std::string_view found, std::string_view expected) {
    keep(Error{ErrorCode::kInvalid, fmt::format("{}: {}: {}; expected {}", file_.where(), what, found, expected)});
  }
  [[nodiscard]] Status status() const { return problem_.message.empty() ? Status(Ok{}) : Status(problem_); }

 private:
  void keep(const Error& error) {
    if (problem_.message.empty()) problem_ = error;
  }
  std::int64_t bounded(std::string_view key, const Result<std::int64_t>& value, std::int64_t low, std::int64_t high) {
    if (!value) return keep(value.error()), low;
    if (*value >= low && *value <= high) return *value;
    fail(full(key), fmt::format("{}", *value), fmt::format("{}..{}", low, high));
    return low;
  }
  [[nodiscard]] const TensorView* find(std::string_view name) const {
    const auto& all = file_.tensors();
    const auto found = std::find_if(all.begin(), all.end(), [&](const TensorView& t) { return t.name == name; });
    return found == all.end() ? nullptr : &*found;
  }

  const GgufFile& file_;
  std::string architecture_;
  Error problem_{ErrorCode::kInvalid, {}};
};

struct Parsed {
  DecoderSpec spec;
  std::optional<EncoderSpec> encoder;  // takes the place of `spec`
  ExecutionSpec execution;
  std::int64_t max_context = 0;
};

// The keys that all decoders share, rotation included.
Parsed read_common(Keys& k, NormKind norm, RopePairing pairing) {
  Parsed p;
  DecoderSpec& s = p.spec;
  ExecutionSpec& e = p.execution;
  s.norm = norm;
  s.layers = k.integer("block_count", 1, kMaxLayers);
  s.hidden = k.integer("embedding_length", 1, kMaxExtent);
  s.vocabulary = k.extents("token_embd.weight", 2)[0];
  s.tied_embeddings = !k.has_tensor("output.weight");
  p.max_context = s.max_positions = k.integer_or("context_length", 0, 1, kMaxPositions);
  const std::string_view epsilon = norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon";
  if (!k.has(epsilon)) k.fail(k.full(epsilon), "missing", "the epsilon of its norms");
  e.norm_epsilon = k.number_or(epsilon, 0, 0, 1);
  AttentionSpec& a = s.attention;
  a.heads = k.integer("attention.head_count", 1, kMaxHeads);
  a.kv_heads = k.integer_or("attention.head_count_kv", a.heads, 1, kMaxHeads);
  a.head_dim = k.integer_or("attention.key_length", std::max<std::int64_t>(s.hidden / a.heads, 1), 1, kMaxHeads);
  a.value_dim = k.integer_or("attention.value_length", std::max<std::int64_t>(s.hidden / a.heads, 1), 1, kMaxHeads);
  a.rotary_dim = k.integer_or("rope.dimension_count", a.head_dim, 0, kMaxHeads);
  const auto biased = [&](std::string_view of) { return k.has_tensor(fmt::format("blk.0.{}.bias", of)); };
  const bool qkv = biased("attn_qkv");
  a.q_bias = a.k_bias = a.v_bias = qkv || biased("attn_q") || biased("attn_k") || biased("attn_v");
  a.o_bias = biased("attn_output");
  s.head_bias = k.has_tensor("output.bias");
  s.dense.bias = biased("ffn_up") || biased("ffn_down");
  s.dense.width = k.integer_or("feed_forward_length", 0, 1, kMaxExtent);

  e.pairing = pairing;
  e.theta = k.number_or("rope.freq_base", 10'000, 1.001, 1e15);
  e.frequency_divisors = k.floats("rope_freqs.weight");
  RopeScaling& r = e.scaling;
  const bool has_factor = k.has("rope.scaling.factor");
  const std::string type = k.text_or("rope.scaling.type", "linear");
  const std::string_view factor = has_factor ? "rope.scaling.factor" : "rope.scale_linear";
  r.factor = k.number_or(factor, 1, 0, 1e6);
  if (r.factor == 0) r.factor = 1;  // the converter's way of saying none
  if (r.factor < 1e-3) k.fail(k.full(factor), fmt::format("{}", r.factor), "0 or a number in 0.001..1e6");
  r.original_context = static_cast<double>(
      k.integer_or("rope.scaling.original_context_length", std::max<std::int64_t>(p.max_context, 1), 1, kMaxPositions));
  r.beta_fast = k.number_or("rope.scaling.yarn_beta_fast", 32, 1e-6, 1e6);
  r.beta_slow = k.number_or("rope.scaling.yarn_beta_slow", 1, 1e-6, 1e6);
  if (type == "yarn") {
    r.kind = RopeScaling::Kind::kYarn;
    const double extrapolation = k.number_or("rope.scaling.yarn_ext_factor", 1, -1, 1e6);
    if (extrapolation != 1 && extrapolation >= 0) e.refusal = fmt::format("a YaRN extrapolation factor of {}", extrapolation);
  } else if (type == "linear") {
    r.kind = r.factor == 1 ? RopeScaling::Kind::kNone : RopeScaling::Kind::kLinear;
  } else if (type == "longrope") {
    r.kind = RopeScaling::Kind::kLongRope;
    r.short_factors = k.floats("rope_factors_short.weight");
    if (r.short_factors.empty()) k.fail("rope_factors_short.weight", "missing", "this tensor, for the scaling longrope");
    r.magnitude = k.number_or("rope.scaling.attn_factor", 1, 1e-6, 1e6);
  } else if (type != "none") {
    k.fail(k.full("rope.scaling.type"), fmt::format("'{}'", formats::printable(type)), "none, linear, yarn or longrope");
  }
  return p;
}

// Windows: of all layers, or of all but every n-th.
void read_window(Keys& k, Parsed& p, std::int64_t default_window, std::int64_t default_period) {
  DecoderSpec& s = p.spec;
  s.attention.window = k.integer_or("attention.sliding_window", default_window, 0, kMaxPositions);
  if (s.attention.window == 0) return;
  s.global_every = default_period;
  const formats::GgufValue* pattern = k.file().metadata(k.full("attention.sliding_window_pattern"));
  if (pattern == nullptr) return;
  const auto* list = std::get_if<formats::GgufArray>(pattern);
  if (list == nullptr) {
    s.global_every = k.integer_or("attention.sliding_window_pattern", default_period, 1, kMaxLayers);
    return;
  }
  // One flag per layer: does it have a window?
  const auto layers = static_cast<std::size_t>(s.layers);
  const auto first = std::find(list->numbers.begin(), list->numbers.end(), 0.0);
  s.global_every = first == list->numbers.end() ? 0 : first - list->numbers.begin() + 1;
  bool regular = list->numbers.size() >= layers;
  for (std::size_t i = 0; regular && i < layers; ++i) {
    const bool global = s.global_every > 0 && (static_cast<std::int64_t>(i) + 1) % s.global_every == 0;
    regular = global == (list->numbers[i] == 0);
  }
  if (!regular) {
    k.fail(k.full("attention.sliding_window_pattern"), "an irregular list", "a window in all layers but every n-th");
  }
}

void read_experts(Keys& k, Parsed& p, std::int64_t default_width) {
  DecoderSpec& s = p.spec;
  s.moe.experts = k.integer_or("expert_count", 0, 0, kMaxExperts);
  if (s.moe.experts == 0) return;
  s.moe.top_k = k.integer("expert_used_count", 1, kMaxExperts);
  s.moe.width = k.integer_or("expert_feed_forward_length", default_width, 1, kMaxExtent);
}

Parsed read_llama(Keys& k, std::string_view) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kNeighbours);
  read_window(k, p, 0, 0);
  read_experts(k, p, p.spec.dense.width);
  p.execution.routing.normalise = true;
  return p;
}

Parsed read_qwen(Keys& k, std::string_view architecture) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kHalves);
  const bool third = architecture.substr(0, 5) == "qwen3";
  p.spec.attention.qk_norm = third;
  if (architecture == "qwen2" || architecture == "qwen3") return p;
  read_experts(k, p, 0);
  if (!third) {
    const std::int64_t fallback = p.spec.moe.width * p.spec.moe.top_k;
    p.spec.moe.shared_width = k.integer_or("expert_shared_feed_forward_length", fallback, 1, kMaxExtent);
    p.spec.moe.shared_gate = true;
  }
  p.execution.routing.normalise = third;
  return p;
}

Parsed read_gemma(Keys& k, std::string_view architecture) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kHalves);
  DecoderSpec& s = p.spec;
  ExecutionSpec& e = p.execution;
  s.embedding_scale = true;
  e.activation = Activation::kGeluTanh;
  if (architecture == "gemma") return p;
  const bool third = architecture == "gemma3";
  s.post_norms = true;
  s.attention.qk_norm = third;
  e.softcap = k.number_or("attn_logit_softcapping", third ? 0 : 50, 0, 1e9);
  e.final_softcap = k.number_or("final_logit_softcapping", third ? 0 : 30, 0, 1e9);
  s.attention.softcap = e.softcap > 0;
  s.final_softcap = e.final_softcap > 0;
  read_window(k, p, third ? 0 : 4096, third ? 6 : 2);
  if (third) e.local_theta = k.number_or("rope.freq_base_swa", 10'000, 1.001, 1e15);
  // No key has the queries' scale. Gemma 2 27B (46 layers) and Gemma 3 27B (62) divide by hidden / heads instead of the head.
  if (s.layers == (third ? 62 : 46)) {
    e.query_scale = static_cast<double>(s.hidden) / static_cast<double>(s.attention.heads);
  }
  return p;
}

Parsed read_phi(Keys& k, std::string_view architecture) {
  if (architecture == "phi3") {
    Parsed p = read_common(k, NormKind::kRms, RopePairing::kHalves);
    read_window(k, p, 0, 0);
    read_experts(k, p, p.spec.dense.width);
    if (p.spec.moe.experts > 0)
      k.fail(k.full("expert_count"), fmt::format("{}", p.spec.moe.experts), "0: Phi-3.5-MoE is not known");
    return p;
  }
  Parsed p = read_common(k, NormKind::kLayer, RopePairing::kHalves);
  p.spec.parallel = true;
  p.spec.dense.gated = false;
  p.execution.activation = Activation::kGeluTanh;
  return p;
}

// Layer norms, no gate, tanh-GELU (which llama.cpp computes for Falcon too, where the original has erf).
Parsed read_plain(Keys& k, std::string_view architecture) {
  Parsed p = read_common(k, NormKind::kLayer, RopePairing::kHalves);
  DecoderSpec& s = p.spec;
  s.dense.gated = false;
  p.execution.activation = Activation::kGeluTanh;
  if (architecture == "gpt2") {
    s.learned_positions = true;
    s.attention.rotary_dim = 0;
    s.max_positions = k.extents("position_embd.weight", 2)[0];
  } else if (architecture == "falcon") {
    s.parallel = true;
    s.parallel_norms = k.has_tensor("blk.0.attn_norm_2.weight") ? 2 : 1;
  } else {
    read_window(k, p, 0, 0);
  }
  return p;
}

Parsed read_deepseek(Keys& k, std::string_view) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kNeighbours);
  DecoderSpec& s = p.spec;
  ExecutionSpec& e = p.execution;
  AttentionSpec& a = s.attention;
  a.kv_heads = a.heads;
  a.q_rank = k.integer_or("attention.q_lora_rank", 0, 0, kMaxExtent);
  a.kv_rank = k.integer("attention.kv_lora_rank", 1, kMaxExtent);
  a.rope_dim = k.integer("rope.dimension_count", 1, kMaxHeads);
  // Files since May 2025 state heads as they are cached in the plain keys, and as the model has them in these.
  a.head_dim = k.integer_or("attention.key_length_mla", a.head_dim, 1, kMaxHeads);
  a.value_dim = k.integer_or("attention.value_length_mla", a.value_dim, 1, kMaxHeads);
  a.nope_dim = a.head_dim - a.rope_dim;
  a.rotary_dim = 0;
  // The multiplier is a tenth of the model's mscale_all_dim; mscale itself is taken as equal.
  e.scaling.mscale = e.scaling.mscale_all = k.number_or("rope.scaling.yarn_log_multiplier", 0, 0, 1e3) / 0.1;
  if (k.has_tensor("blk.0.attn_q_a.bias")) e.refusal = "biases in latent attention";

  read_experts(k, p, 0);
  if (s.moe.experts == 0) return p;
  s.first_dense = k.integer_or("leading_dense_block_count", 0, 0, kMaxLayers);
  s.moe.shared_width = s.moe.width * k.integer_or("expert_shared_count", 0, 0, 1024);
  s.moe.selection_bias = k.has_tensor(fmt::format("blk.{}.exp_probs_b.bias", s.layers - 1)) ||
                         k.has_tensor(fmt::format("blk.{}.exp_probs_b", s.layers - 1));
  Routing& routing = e.routing;
  constexpr std::int64_t kSoftmax = 1, kSigmoid = 2;
  const std::int64_t scoring = k.integer_or("expert_gating_func", kSoftmax, 0, 100);
  if (scoring > kSigmoid) k.fail(k.full("expert_gating_func"), fmt::format("{}", scoring), "1 (softmax) or 2 (sigmoid)");
  routing.scoring = scoring == kSigmoid ? RouteScoring::kSigmoid : RouteScoring::kSoftmax;
  routing.selection_bias = s.moe.selection_bias;
  routing.normalise = k.flag_or("expert_weights_norm", false);
  routing.weight_scale = static_cast<float>(k.number_or("expert_weights_scale", 1, 0, 1e9));
  if (routing.weight_scale == 0) routing.weight_scale = 1;
  routing.groups = k.integer_or("expert_group_count", 1, 1, kMaxExperts);
  routing.chosen_groups = k.integer_or("expert_group_used_count", routing.groups, 1, kMaxExperts);
  if (s.moe.experts % routing.groups != 0 || routing.chosen_groups > routing.groups) {
    k.fail(k.full("expert_group_count"), fmt::format("{}, of which {} are used", routing.groups, routing.chosen_groups),
           fmt::format("a divisor of {} experts", s.moe.experts));
  }
  return p;
}

Parsed read_gpt_oss(Keys& k, std::string_view) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kHalves);
  DecoderSpec& s = p.spec;
  s.attention.sinks = true;
  read_window(k, p, 128, 2);
  read_experts(k, p, s.dense.width);
  s.moe.bias = s.moe.router_bias = true;
  p.execution.activation = Activation::kSwigluClamped;
  p.execution.routing.softmax_over_chosen = true;
  return p;
}

Parsed read_glm(Keys& k, std::string_view architecture) {
  Parsed p = read_common(k, NormKind::kRms, RopePairing::kNeighbours);
  p.spec.post_norms = architecture == "glm4";
  if (k.has("rope.dimension_sections")) p.execution.refusal = "rotation by sections of a multimodal position";
  return p;
}

// Sentence encoders: no pooler, no head.
Parsed read_bert(Keys& k, std::string_view) {
  Parsed p;
  EncoderSpec& s = p.encoder.emplace();
  s.layers = k.integer("block_count", 1, kMaxLayers);
  s.hidden = k.integer("embedding_length", 1, kMaxExtent);
  s.heads = k.integer("attention.head_count", 1, kMaxHeads);
  s.feed_forward = k.integer("feed_forward_length", 1, kMaxExtent);
  s.vocabulary = k.extents("token_embd.weight", 2)[0];
  s.max_positions = k.extents("position_embd.weight", 2)[0];
  s.token_types = k.has_tensor("token_types.weight") ? k.extents("token_types.weight", 2)[0] : 0;
  s.pooler = false;
  p.max_context = k.integer_or("context_length", s.max_positions, 1, kMaxPositions);
  return p;
}

struct Reader {
  std::string_view architecture;
  Parsed (*read)(Keys&, std::string_view);
};
constexpr Reader kReaders[] = {
    {"llama", read_llama},      {"qwen2", read_qwen},         {"qwen2moe", read_qwen},   {"qwen3", read_qwen},
    {"qwen3moe", read_qwen},    {"gemma", read_gemma},        {"gemma2", read_gemma},    {"gemma3", read_gemma},
    {"phi2", read_phi},         {"phi3", read_phi},           {"gpt2", read_plain},      {"falcon", read_plain},
    {"starcoder2", read_plain}, {"deepseek2", read_deepseek}, {"gpt-oss", read_gpt_oss}, {"glm4", read_glm},
    {"chatglm", read_glm},      {"bert", read_bert},
};

// The type that most values of the layers' matrices have.
DType most_common_type(const GgufFile& file) {
  std::map<DType, double> counts;
  for (const TensorView& tensor : file.tensors()) {
    if (tensor.extents.size() < 2 || tensor.type == DType::kCount) continue;
    double count = 1;
    for (const std::int64_t extent : tensor.extents) count *= static_cast<double>(extent);
    counts[tensor.type] += count;
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? DType::kF32 : most->first;
}

}  // namespace

Result<Model> parse_gguf(const GgufFile& file) {
  ROOFTREE_TRY(const std::string_view architecture, file.text("general.architecture"));
  const auto* reader =
      std::find_if(std::begin(kReaders), std::end(kReaders), [&](const Reader& r) { return r.architecture == architecture; });
  if (reader == std::end(kReaders)) {
    std::string known;
    for (const Reader& r : kReaders) known += fmt::format("{}{}", known.empty() ? "" : ", ", r.architecture);
    return Error{ErrorCode::kInvalid, fmt::format("{}: general.architecture: '{}' is not known; expected one of {}",
                                                  file.where(), architecture, known)};
  }
  Keys keys(file, std::string(architecture));
  const Parsed parsed = reader->read(keys, architecture);
  ROOFTREE_TRY_VOID(keys.status());
  auto made = parsed.encoder ? make_encoder_architecture(*parsed.encoder) : make_decoder_architecture(parsed.spec);
  if (!made) return made.error().within(std::string(file.where()));
  Model model;
  model.id = std::filesystem::path(file.where()).stem().string();
  if (model.id.empty()) model.id = std::string(architecture);
  ROOFTREE_TRY(const std::string_view name, file.text_or("general.name", model.id));
  model.name = std::string(name);
  model.family = std::string(architecture);
  model.source = std::string(file.where());
  model.sources = {model.source};
  model.max_context = parsed.max_context;
  model.native_weight_type = most_common_type(file);
  model.architecture = std::move(made).value();
  set_execution(model, parsed.execution);
  return model;
}

}  // namespace rooftree::model

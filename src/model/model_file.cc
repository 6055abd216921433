#include "model/model_file.h"

#include <fmt/format.h>

#include <cmath>

#include "model/architecture.h"
#include "model/execution.h"
#include "model/field_reader.h"

namespace rooftree::model {
namespace {

using ArchitectureResult = Result<std::shared_ptr<const Architecture>>;

// A model whose sources leave open what it computes. It can be listed, not built.
class Incomplete final : public Architecture {
 public:
  Incomplete(std::string unknown, Description fields) : unknown_(std::move(unknown)), fields_(std::move(fields)) {}
  std::string_view kind() const override { return "incomplete"; }
  Status check(const Phase&) const override {
    return Error{ErrorCode::kInvalid, fmt::format("cannot be built: its sources leave open {}", unknown_)};
  }
  void write(GraphWriter&) const override { ROOFTREE_CHECK(false, "check() refuses every phase"); }
  std::int64_t tokens_processed(const Phase&) const override { return 0; }
  Description describe() const override { return fields_; }

 private:
  std::string unknown_;
  Description fields_;
};

bool is_relu(const std::string& activation) { return activation == "relu"; }

// Makes the architecture once every reader is without a problem.
template <class Spec>
ArchitectureResult finish(const std::vector<Status>& problems, std::string_view where, const Spec& spec,
                          ArchitectureResult (*make)(const Spec&)) {
  for (const Status& status : problems) {
    if (!status) return status.error();
  }
  ArchitectureResult made = make(spec);
  if (!made) return made.error().within(std::string(where));
  return made;
}

Status read_vision(FieldReader r, std::string_view where, std::optional<VisionTower>& out) {
  VisionTower v;
  r.text_or("encoder", "");
  v.layers = r.integer("layers", 1, kMaxLayers);
  v.global_layers = r.integer_or("global_layers", 0, 0, kMaxLayers);
  v.hidden = r.integer("hidden", 1, kMaxExtent);
  v.heads = r.integer("heads", 1, kMaxHeads);
  v.feed_forward = r.integer("feed_forward", 1, kMaxExtent);
  v.image_size = r.integer("image_size", 1, 65'536);
  v.patch_size = r.integer("patch_size", 1, 65'536);
  v.tiles = r.integer_or("tiles", 1, 1, 1024);
  v.class_token = r.flag_or("class_token", false);
  v.biases = r.flag_or("biases", true);
  v.extra_parameters = r.integer_or("extra_parameters", 0, 0, std::int64_t{1} << 40);
  if (const Json* projector = r.array_or_null("projector"); projector != nullptr) {
    if (projector->size() > 4) r.fail("projector", fmt::format("{} products", projector->size()), "at most 4");
    for (const Json& item : *projector) {
      FieldReader p(&item, std::string(where), "vision.projector");
      v.projector.push_back({.in = p.integer("in", 1, kMaxExtent),
                             .out = p.integer("out", 1, kMaxExtent),
                             .rows_per_image = p.integer("rows_per_image", 1, kMaxExtent),
                             .bias = p.flag_or("bias", false)});
      ROOFTREE_TRY_VOID(p.status(true));
    }
  }
  out = v;
  return r.status(true);
}

// How experts are chosen, in words: "sigmoid, group limited (8 groups, top 4), bias".
void read_routing(FieldReader& experts, const DecoderSpec& s, Routing& out) {
  const std::string text = experts.text_or("routing", "");
  const auto says = [&](std::string_view word) { return text.find(word) != std::string::npos; };
  out.scoring = says("sigmoid") ? RouteScoring::kSigmoid : RouteScoring::kSoftmax;
  out.selection_bias = s.moe.selection_bias;
  out.normalise = experts.flag_or("normalised", text.empty() || says("sigmoid"));
  out.groups = experts.integer_or("groups", 1, 1, kMaxExperts);
  out.chosen_groups = experts.integer_or("groups_per_token", 1, 1, kMaxExperts);
  out.weight_scale = static_cast<float>(experts.number_or("scale", 1, 0, 1e9));
}

ArchitectureResult read_decoder(FieldReader& r, std::string_view where, ExecutionSpec& e) {
  DecoderSpec s;
  std::vector<Status> problems;
  s.layers = r.integer("layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden", 1, kMaxExtent);
  s.vocabulary = r.integer("vocabulary", 1, kMaxExtent);
  s.tied_embeddings = r.flag("tied_embeddings");
  s.max_positions = r.integer("context", 1, kMaxPositions);
  s.embedding_scale = r.flag_or("embedding_scale", false);
  s.dropout = r.flag_or("training_dropout", false);
  e.final_softcap = r.number_or("final_softcap", 0, 0, 1e9);
  s.final_softcap = e.final_softcap > 0;
  s.head_bias = r.flag_or("head_bias", false);
  s.cross_layers = r.integer_or("cross_layers", 0, 0, kMaxLayers);
  r.integer_or("extra_prediction_layers", 0, 0, 64);  // multi-token prediction heads are no part of the model proper
  s.parallel_norms = static_cast<int>(r.integer_or("parallel_norms", 0, 1, 2));
  s.parallel = s.parallel_norms > 0;

  FieldReader norm = r.object("norm");
  const std::string norm_kind = norm.text("kind");
  if (norm_kind != "rms" && norm_kind != "layer") norm.fail("kind", norm_kind, "rms or layer");
  s.norm = norm_kind == "layer" ? NormKind::kLayer : NormKind::kRms;
  e.norm_epsilon = norm.number_or("epsilon", 1e-5, 0, 1);
  s.post_norms = norm.flag_or("after_sublayers", false);
  s.embedding_norm = norm.flag_or("embedding", false);
  problems.push_back(norm.status(true));

  FieldReader positions = r.object("positions");
  const std::string position_kind = positions.text("kind");
  if (position_kind != "rotary" && position_kind != "learned" && position_kind != "alibi") {
    positions.fail("kind", position_kind, "rotary, learned or alibi");
  }
  s.learned_positions = position_kind == "learned";
  e.theta = positions.number_or("theta", 10'000, 1.001, 1e12);
  e.local_theta = positions.number_or("local_theta", 0, 1.001, 1e12);
  FieldReader scaling = positions.object_or_empty("scaling");
  e.scaling = read_rope_scaling(scaling, s.max_positions);
  problems.push_back(scaling.status(true));
  const std::int64_t rotary_dim = positions.integer_or("dim", 0, 1, kMaxHeads);
  s.global_without_rope = !positions.flag_or("global_layers", true);
  problems.push_back(positions.status(true));

  FieldReader attention = r.object("attention");
  AttentionSpec& a = s.attention;
  a.heads = attention.integer("heads", 1, kMaxHeads);
  const std::string kind = attention.text_or("kind", "grouped");
  if (kind == "latent") {
    a.kv_heads = a.heads;
    a.q_rank = attention.integer_or("q_rank", 0, 0, kMaxExtent);
    a.kv_rank = attention.integer("kv_rank", 1, kMaxExtent);
    a.nope_dim = attention.integer("nope_dim", 1, kMaxHeads);
    a.rope_dim = attention.integer("rope_dim", 1, kMaxHeads);
    a.value_dim = attention.integer("value_dim", 1, kMaxHeads);
    a.head_dim = a.nope_dim + a.rope_dim;
    if (attention.has("indexer")) {
      FieldReader indexer = attention.object("indexer");
      a.index_top_k = indexer.integer("top_k", 1, kMaxPositions);
      a.index_heads = indexer.integer("heads", 1, kMaxHeads);
      a.index_dim = indexer.integer("head_dim", 1, kMaxHeads);
      problems.push_back(indexer.status(true));
    } else {
      attention.skip("indexer");
    }
  } else {
    if (kind != "grouped") attention.fail("kind", kind, "grouped or latent");
    a.kv_heads = attention.integer("kv_heads", 1, kMaxHeads);
    a.head_dim = a.value_dim = attention.integer("head_dim", 1, kMaxHeads);
    if (position_kind == "rotary") a.rotary_dim = rotary_dim > 0 ? rotary_dim : a.head_dim;
  }
  for (const std::string& bias : attention.texts_or_empty("bias")) {
    bool* flag = bias == "q"        ? &a.q_bias
                 : bias == "k"      ? &a.k_bias
                 : bias == "v"      ? &a.v_bias
                 : bias == "output" ? &a.o_bias
                                    : nullptr;
    if (flag == nullptr) {
      attention.fail("bias", bias, "a list of q, k, v, output");
    } else {
      *flag = true;
    }
  }
  a.qk_norm = attention.flag_or("qk_norm", false);
  a.sinks = attention.flag_or("sinks", false);
  e.softcap = attention.number_or("softcap", 0, 0, 1e9);
  a.softcap = e.softcap > 0;
  e.query_scale = attention.number_or("query_scale", 0, 0, 1e9);
  a.window = attention.integer_or("window", 0, 1, kMaxPositions);
  a.chunk = attention.integer_or("chunk", 0, 1, kMaxPositions);
  s.global_every = attention.integer_or("global_every", 0, 1, kMaxLayers);
  problems.push_back(attention.status(true));

  const bool mixture = r.has("experts");
  FieldReader experts = r.object_or_empty("experts");
  bool every_layer_has_experts = false;
  if (mixture) {
    s.moe.experts = experts.integer("count", 1, kMaxExperts);
    s.moe.top_k = experts.integer("per_token", 1, kMaxExperts);
    s.moe.width = experts.integer("width", 1, kMaxExtent);
    s.moe.shared_width = experts.integer_or("shared_width", 0, 0, kMaxExtent);
    s.moe.shared_gate = experts.flag_or("shared_gate", false);
    s.moe.bias = experts.flag_or("bias", false);
    s.moe.router_bias = experts.flag_or("router_bias", false);
    s.moe.selection_bias = experts.text_or("routing", "").find("bias") != std::string::npos;
    s.first_dense = experts.integer_or("first_dense", 0, 0, kMaxLayers);
    s.moe_every = experts.integer_or("every", 1, 1, kMaxLayers);
    read_routing(experts, s, e.routing);
    every_layer_has_experts = s.first_dense == 0 && s.moe_every == 1;
  }
  problems.push_back(experts.status(true));

  FieldReader feed_forward = r.object("feed_forward");
  if (!every_layer_has_experts) s.dense.width = feed_forward.integer("width", 1, kMaxExtent);
  s.dense.gated = s.moe.gated = feed_forward.flag("gated");
  const std::string activation = feed_forward.text("activation");
  s.dense.relu = s.moe.relu = is_relu(activation);
  if (const auto known = activation_of(activation)) {
    e.activation = *known;
  } else {
    e.refusal = fmt::format("the activation '{}'", activation);
  }
  // gpt-oss, the only one with this activation, weighs experts by a softmax over the chosen ones.
  if (e.activation == Activation::kSwigluClamped) e.routing = {.softmax_over_chosen = true};
  s.dense.bias = feed_forward.flag_or("bias", false);
  problems.push_back(feed_forward.status(true));

  if (s.attention.latent() && e.scaling.mscale_all == 0) e.scaling.mscale_all = e.scaling.mscale;
  if (r.has("vision")) problems.push_back(read_vision(r.object("vision"), where, s.vision));
  r.skip("vision");
  problems.push_back(r.status(true));
  return finish(problems, where, s, make_decoder_architecture);
}

ArchitectureResult read_encoder(FieldReader& r, std::string_view where, ExecutionSpec&) {
  EncoderSpec s;
  s.layers = r.integer("layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden", 1, kMaxExtent);
  s.vocabulary = r.integer("vocabulary", 1, kMaxExtent);
  s.max_positions = r.integer("context", 1, kMaxExtent);
  s.token_types = r.integer_or("token_types", 0, 0, 65'536);
  s.pooler = r.flag_or("pooler", false);
  s.dropout = r.flag_or("training_dropout", false);
  r.object("norm");
  r.object("positions");
  FieldReader attention = r.object("attention");
  s.heads = attention.integer("heads", 1, kMaxHeads);
  FieldReader feed_forward = r.object("feed_forward");
  s.feed_forward = feed_forward.integer("width", 1, kMaxExtent);
  return finish({attention.status(true), feed_forward.status(), r.status(true)}, where, s, make_encoder_architecture);
}

ArchitectureResult read_vision_transformer(FieldReader& r, std::string_view where, ExecutionSpec&) {
  VisionTransformerSpec s;
  s.layers = r.integer("layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden", 1, kMaxExtent);
  s.image_size = r.integer("image_size", 1, 65'536);
  s.patch_size = r.integer("patch_size", 1, 65'536);
  s.classes = r.integer("classes", 1, kMaxExtent);
  FieldReader attention = r.object("attention");
  s.heads = attention.integer("heads", 1, kMaxHeads);
  FieldReader feed_forward = r.object("feed_forward");
  s.feed_forward = feed_forward.integer("width", 1, kMaxExtent);
  return finish({attention.status(true), feed_forward.status(), r.status(true)}, where, s,
                make_vision_transformer_architecture);
}

ArchitectureResult read_encoder_decoder(FieldReader& r, std::string_view where, ExecutionSpec&) {
  EncoderDecoderSpec s;
  const std::string flavour = r.text("flavour");
  if (flavour != "t5" && flavour != "whisper") r.fail("flavour", flavour, "t5 or whisper");
  const bool whisper = flavour == "whisper";
  s.flavour = whisper ? EncoderDecoderSpec::Kind::kWhisper : EncoderDecoderSpec::Kind::kT5;
  s.encoder_layers = r.integer("encoder_layers", 1, kMaxLayers);
  s.decoder_layers = r.integer("decoder_layers", 1, kMaxLayers);
  s.hidden = r.integer("hidden", 1, kMaxExtent);
  s.vocabulary = r.integer("vocabulary", 1, kMaxExtent);
  s.tied_embeddings = r.flag("tied_embeddings");
  s.dropout = r.flag_or("training_dropout", false);
  FieldReader attention = r.object("attention");
  s.heads = attention.integer("heads", 1, kMaxHeads);
  s.head_dim = attention.integer("head_dim", 1, kMaxHeads);
  FieldReader feed_forward = r.object("feed_forward");
  s.feed_forward = feed_forward.integer("width", 1, kMaxExtent);
  s.gated = feed_forward.flag("gated");
  s.relu = is_relu(feed_forward.text("activation"));
  std::vector<Status> problems{attention.status(true), feed_forward.status(true)};
  if (whisper) {
    FieldReader audio = r.object("audio");
    s.mel_bins = audio.integer("mel_bins", 1, 65'536);
    s.max_source_positions = audio.integer("source_positions", 1, kMaxExtent);
    s.max_target_positions = audio.integer("target_positions", 1, kMaxExtent);
    problems.push_back(audio.status(true));
  } else {
    s.max_source_positions = r.integer("context", 1, kMaxExtent);
    FieldReader positions = r.object("positions");
    positions.text("kind");
    s.relative_buckets = positions.integer("buckets", 1, kMaxExtent);
    problems.push_back(positions.status(true));
  }
  problems.push_back(r.status(true));
  return finish(problems, where, s, make_encoder_decoder_architecture);
}

ArchitectureResult read_convolutional(FieldReader& r, std::string_view where, ExecutionSpec&) {
  ResNetSpec s;
  s.stage_blocks = r.integers("stage_blocks", 1, 10'000, 16);
  s.stage_width = r.integers("stage_width", 1, 65'536, 16);
  s.expansion = r.integer("expansion", 1, 64);
  s.image_size = r.integer("image_size", 32, 65'536);
  s.classes = r.integer("classes", 1, kMaxExtent);
  return finish({r.status(true)}, where, s, make_resnet_architecture);
}

ArchitectureResult read_unet(FieldReader& r, std::string_view where, ExecutionSpec&) {
  UNetSpec s;
  s.in_channels = r.integer("in_channels", 1, 65'536);
  s.out_channels = r.integer("out_channels", 1, 65'536);
  s.model_channels = r.integer("model_channels", 1, 65'536);
  s.channel_multipliers = r.integers("channel_multipliers", 1, 256, 16);
  s.residual_blocks = r.integer("residual_blocks", 1, 1000);
  s.transformer_depth = r.integers("transformer_depth", 0, 1000, 16);
  s.head_channels = r.integer("head_channels", 1, 65'536);
  s.context_dim = r.integer("context_dim", 1, kMaxExtent);
  s.context_tokens = r.integer("context_tokens", 1, kMaxExtent);
  s.vector_dim = r.integer_or("vector_dim", 0, 0, kMaxExtent);
  s.latent_size = r.integer("latent_size", 1, 65'536);
  return finish({r.status(true)}, where, s, make_unet_architecture);
}

ArchitectureResult read_recommender(FieldReader& r, std::string_view where, ExecutionSpec&) {
  RecommenderSpec s;
  s.embedding_dim = r.integer("embedding_dim", 1, kMaxExtent);
  s.bottom = r.integers("bottom", 1, kMaxExtent, 64);
  s.top = r.integers("top", 1, kMaxExtent, 64);
  s.table_rows = r.integers("table_rows", 1, std::int64_t{1} << 36, 10'000);
  s.cross_layers = r.integer_or("cross_layers", 0, 0, 1000);
  s.cross_rank = r.integer_or("cross_rank", 0, 0, kMaxExtent);
  s.lookups = r.integer_or("lookups", 1, 1, 100'000);
  return finish({r.status(true)}, where, s, make_recommender_architecture);
}

ArchitectureResult read_incomplete(FieldReader& r, const Json& file) {
  const std::string unknown = r.text("unknown");
  r.object("config");
  ROOFTREE_TRY_VOID(r.status(true));
  Description fields{{"not known", unknown}};
  for (const auto& [key, value] : file["config"].items())
    fields.emplace_back(key, value.is_object() ? value.dump() : quoted(value));
  return std::shared_ptr<const Architecture>(std::make_shared<Incomplete>(unknown, std::move(fields)));
}

std::optional<double> positive(FieldReader& r, std::string_view key) {
  const double value = r.number_or(key, 0, 1, 1e18);
  return value > 0 ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<Model> parse_model_file(std::string_view text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(text, where));
  FieldReader r(&json, std::string(where), "");
  Model model;
  model.id = r.text("id");
  model.name = r.text("name");
  model.family = r.text("family");
  const std::string kind = r.text("kind");
  const std::string certainty = r.text("certainty");
  if (certainty != "read" && certainty != "recalled") r.fail("certainty", certainty, "read or recalled");
  model.sources = r.texts_or_empty("sources");
  if (model.sources.empty()) r.fail("sources", "none", "at least one source");
  model.source = fmt::format("{}", fmt::join(model.sources, "; "));
  model.recalled = r.texts_or_empty("recalled");
  if (!model.recalled.empty()) model.source += fmt::format(" (from memory: {})", fmt::join(model.recalled, ", "));
  model.notes = r.text_or("notes", "");
  FieldReader published = r.object_or_empty("published");
  model.published_parameters = positive(published, "parameters");
  model.published_active_parameters = positive(published, "active_parameters");
  published.number_or("forward_mac", 0, 1, 1e18);
  ROOFTREE_TRY_VOID(published.status(true));
  if (r.has("native_weights")) {
    auto type = parse_dtype(r.text("native_weights"));
    if (!type) return type.error().within(fmt::format("{}: native_weights", where));
    model.native_weight_type = type.value();
  }
  r.skip("native_weights");
  model.max_context = r.integer_or("context", 0, 1, kMaxPositions);
  ROOFTREE_TRY_VOID(r.status());

  struct Reader {
    std::string_view kind;
    ArchitectureResult (*read)(FieldReader&, std::string_view, ExecutionSpec&);
  };
  constexpr Reader kReaders[] = {
      {"decoder", read_decoder},
      {"encoder", read_encoder},
      {"encoder-decoder", read_encoder_decoder},
      {"vision transformer", read_vision_transformer},
      {"convolutional", read_convolutional},
      {"diffusion unet", read_unet},
      {"recommender", read_recommender},
  };
  if (kind == "incomplete") {
    ROOFTREE_TRY(model.architecture, read_incomplete(r, json));
    model.not_executable = "what its sources leave open";
    return model;
  }
  for (const Reader& reader : kReaders) {
    if (reader.kind != kind) continue;
    ExecutionSpec execution;
    ROOFTREE_TRY(model.architecture, reader.read(r, where, execution));
    set_execution(model, execution);
    return model;
  }
  std::vector<std::string_view> known{"incomplete"};
  for (const Reader& reader : kReaders) known.push_back(reader.kind);
  r.fail("kind", kind, fmt::format("one of {}", fmt::join(known, ", ")));
  return r.status().error();
}

}  // namespace rooftree::model

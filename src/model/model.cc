#include "model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "model/architecture.h"
#include "model/execution.h"

namespace rooftree::model {

Architecture::Architecture() {
  static std::atomic<std::uint32_t> next{1};
  serial_ = next.fetch_add(1, std::memory_order_relaxed);
}

Status check_range(std::string_view name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low && value <= high) return Ok{};
  return Error{ErrorCode::kInvalid, fmt::format("{}: {}; expected {}..{}", name, value, low, high)};
}

Status check_rows(const Phase& phase, std::int64_t rows_per_item) {
  if (phase.batch <= kMaxPhaseTokens / std::max<std::int64_t>(rows_per_item, 1)) return Ok{};
  return Error{ErrorCode::kInvalid, fmt::format("batch {} of {} positions or pixels each; expected at most {} in all",
                                                phase.batch, rows_per_item, kMaxPhaseTokens)};
}

std::string_view name(Phase::Kind kind) {
  constexpr std::array<std::string_view, 3> kNames = {"prefill", "decode", "train"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view name(Fusion fusion) {
  constexpr std::array<std::string_view, 5> kNames = {"eager", "eager-flash", "standard", "ideal", "unfused-attention"};
  return kNames[static_cast<std::size_t>(fusion)];
}

Phase Phase::prefill(std::int64_t batch, std::int64_t tokens, std::int64_t past) {
  return {.kind = Kind::kPrefill, .batch = batch, .tokens = tokens, .past = past};
}

// `context` positions are in the cache when the step ends: context - 1 before it.
Phase Phase::decode(std::int64_t batch, std::int64_t context) {
  return {.kind = Kind::kDecode, .batch = batch, .tokens = 1, .past = context - 1};
}

Phase Phase::train(std::int64_t batch, std::int64_t tokens) { return {.kind = Kind::kTrain, .batch = batch, .tokens = tokens}; }

namespace {

Status check_phase(const Model& model, const Phase& phase) {
  ROOFTREE_TRY_VOID(check_range("batch", phase.batch, 1, kMaxPhaseTokens));
  ROOFTREE_TRY_VOID(check_range("tokens", phase.tokens, 1, kMaxPhaseTokens));
  ROOFTREE_TRY_VOID(check_range("past", phase.past, 0, kMaxPhaseTokens));
  ROOFTREE_TRY_VOID(check_range("images", phase.images, 0, 1 << 20));
  ROOFTREE_TRY_VOID(check_range("source", phase.source, 0, kMaxPhaseTokens));
  const std::int64_t positions = phase.past + phase.tokens;
  if (positions > kMaxPhaseTokens / phase.batch) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("batch {} of {} positions; expected at most {} in all", phase.batch, positions, kMaxPhaseTokens)};
  }
  const std::int64_t limit = model.architecture->position_limit();
  if (limit > 0 && positions > limit) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{} positions; expected at most the {} of its position table", positions, limit)};
  }
  return model.architecture->check(phase);
}

// All that decides which nodes and values a graph has.
std::uint64_t structure_of(const Architecture& architecture, const Phase& phase, Fusion fusion) {
  std::uint64_t bits = architecture.serial();
  const auto append = [&bits](std::uint64_t value, int width) { bits = bits << width | value; };
  append(static_cast<std::uint64_t>(phase.kind), 2);
  append(static_cast<std::uint64_t>(fusion), 3);
  append(phase.kind == Phase::Kind::kTrain ? static_cast<std::uint64_t>(phase.recompute) : 0, 2);
  append(phase.kind == Phase::Kind::kTrain ? static_cast<std::uint64_t>(phase.optimizer) : 0, 4);
  append(phase.images > 0 ? 1 : 0, 1);
  return bits;
}

}  // namespace

Status Model::build_into(const Phase& phase, Fusion fusion, Graph& graph) const {
  ROOFTREE_CHECK(architecture != nullptr, "a model without an architecture");
  if (auto status = check_phase(*this, phase); !status) {
    return status.error().within(fmt::format("{}: {}", id, model::name(phase.kind)));
  }
  const std::uint64_t structure = structure_of(*architecture, phase, fusion);
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (graph.structure != structure) graph.name = fmt::format("{} {}", id, model::name(phase.kind));
    GraphWriter writer(graph, phase, fusion, structure);
    architecture->write(writer);
    if (writer.finish()) break;
    ROOFTREE_CHECK(attempt == 0, "a full write cannot find another structure");
  }
  graph.tokens_processed = architecture->tokens_processed(phase);
  return Ok{};
}

Result<Graph> Model::build(const Phase& phase, Fusion fusion) const {
  Graph graph;
  ROOFTREE_TRY_VOID(build_into(phase, fusion, graph));
  return graph;
}

Result<const Numerics*> Model::numerics() const {
  if (constants != nullptr) return constants.get();
  return Error{ErrorCode::kInvalid,
               fmt::format("{}: cannot be executed: it needs {}", id, not_executable.empty() ? "constants" : not_executable)};
}

Description Model::describe() const { return architecture->describe(); }

Result<Model> make_decoder(const DecoderShape& shape) {
  DecoderSpec spec{.layers = shape.layers,
                   .hidden = shape.hidden,
                   .vocabulary = shape.vocabulary,
                   .max_positions = shape.max_context,
                   .norm = shape.norm,
                   .tied_embeddings = shape.tied_embeddings,
                   .learned_positions = shape.learned_positions,
                   .parallel = shape.parallel,
                   .dropout = shape.dropout};
  AttentionSpec& a = spec.attention;
  a.heads = shape.heads;
  a.kv_heads = shape.kv_heads > 0 ? shape.kv_heads : shape.heads;
  a.head_dim = shape.head_dim;
  if (a.head_dim == 0 && shape.heads > 0) {
    if (shape.hidden % shape.heads != 0) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: heads: {}; expected a divisor of hidden {}, or a head_dim", shape.id,
                                                    shape.heads, shape.hidden)};
    }
    a.head_dim = shape.hidden / shape.heads;
  }
  a.value_dim = a.head_dim;
  a.window = shape.window;
  a.rotary_dim = shape.learned_positions || shape.alibi ? 0 : a.head_dim;
  a.q_bias = a.k_bias = a.v_bias = a.o_bias = shape.biases;
  if (shape.experts > 0) {
    spec.moe = {.experts = shape.experts, .top_k = shape.top_k, .width = shape.feed_forward, .gated = shape.gated};
  } else {
    spec.dense = {.width = shape.feed_forward, .gated = shape.gated, .bias = shape.biases};
  }
  auto architecture = make_decoder_architecture(spec);
  if (!architecture) return architecture.error().within(shape.id);
  Model model;
  model.id = model.name = shape.id;
  model.family = "custom";
  model.max_context = shape.max_context;
  model.architecture = std::move(architecture).value();
  set_execution(model, {.activation = shape.gated ? Activation::kSilu : Activation::kGeluTanh, .routing = {.normalise = true}});
  return model;
}

}  // namespace rooftree::model

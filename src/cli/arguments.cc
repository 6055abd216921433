#include "arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>

#include "machine/catalog.h"
#include "report/analysis.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

constexpr std::int64_t kDefaultContext = 2048;
constexpr std::int64_t kDefaultPrompt = 512;
constexpr std::int64_t kDefaultTrainingTokens = 2048;

// The enumerator that is called `text`; `count` enumerators from 0 on.
template <class Enum, class Name>
Result<Enum> by_name(std::string_view text, std::string_view flag, int count, Name&& name) {
  std::string names;
  for (int i = 0; i < count; ++i) {
    const auto value = static_cast<Enum>(i);
    if (name(value) == text) return value;
    names += fmt::format("{}{}", i == 0 ? "" : ", ", name(value));
  }
  return Error{ErrorCode::kInvalid, fmt::format("{}: '{}' is unknown; expected one of {}", flag, text, names)};
}

}  // namespace

void add_workload_flags(CLI::App& verb, WorkloadFlags& flags, const char* model_flag) {
  const auto model = verb.add_option(model_flag, flags.model, "MODEL: catalogue id, a Hugging Face config.json, or its folder");
  model->required();
  const auto add = [&](const char* flag, std::string& text, const char* help) { verb.add_option(flag, text, help); };
  add("--phase", flags.phase, "prefill, decode (default) or train");
  add("--batch", flags.batch, "Sequences at once (default 1)");
  add("--context", flags.context, "decode: positions attended to (default 2048)");
  add("--tokens", flags.tokens, "prefill, train: new positions per sequence (default 512, 2048)");
  add("--past", flags.past, "prefill: positions already in the cache (default 0)");
  add("--images", flags.images, "Images per sequence, for models that see");
  add("--weights", flags.weights,
      "Type of the weights: bf16, int8, q4_0, ... (default: as published if narrower than bf16, else bf16)");
  add("--expert-weights", flags.expert_weights,
      "Type of the experts' weights, where it differs: mxfp4, ... (default: as --weights)");
  add("--kv", flags.kv, "Type of the KV cache (default bf16)");
  add("--activations", flags.activations, "Type of the activations (default bf16)");
  add("--gradients", flags.gradients, "train: type of the gradients (default bf16)");
  add("--optimizer", flags.optimizer, "train: sgd, sgd-momentum, adam (default), adam-8bit, adafactor, shampoo, muon");
  add("--recompute", flags.recompute, "train: none (default), selective, full");
  add("--sparsity", flags.sparsity, "dense (default), 2:4, or block:DENSITY such as block:0.5");
  add("--fusion", flags.fusion, "eager, eager-flash, standard (default), ideal, unfused-attention");
  add("--stack", flags.stack, "engine (default), compiled, llamacpp, megatron, eager, rooftree");
  add("--arithmetic", flags.arithmetic, "Force the arithmetic of the products: bf16, fp8, int8, ...");
}

Result<model::Model> resolve_model(const std::string& spec) { return model::ModelCatalog::builtin().resolve(spec); }

Result<machine::Machine> resolve_machine(const std::string& spec, const std::vector<std::string>& overrides) {
  ROOFTREE_TRY(const machine::Catalog catalog, machine::Catalog::from_environment());
  ROOFTREE_TRY(machine::Machine machine, catalog.resolve(spec));
  for (const std::string& assignment : overrides) {
    if (auto status = machine::apply_override(machine, assignment); !status) return status.error();
  }
  if (auto status = machine::check_complete(machine.chip()); !status) return status.error();
  return machine;
}

Result<std::int64_t> parse_whole(std::string_view text, std::string_view where, std::int64_t least) {
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value < least) {
    return Error{ErrorCode::kParse, fmt::format("{}: '{}'; expected a whole number of at least {}", where, text, least)};
  }
  return value;
}

Result<model::Phase> parse_phase(const WorkloadFlags& flags) {
  using Kind = model::Phase::Kind;
  ROOFTREE_TRY(const Kind kind, by_name<Kind>(flags.phase, "--phase", 3, [](Kind k) { return model::name(k); }));
  ROOFTREE_TRY(const std::int64_t batch, parse_whole(flags.batch, "--batch"));
  const auto or_default = [](const std::string& text, std::string_view flag, std::int64_t otherwise,
                             std::int64_t least) -> Result<std::int64_t> {
    if (text.empty()) return otherwise;
    return parse_whole(text, flag, least);
  };
  const auto unwanted = [&](const std::string& text, std::string_view flag, std::string_view instead) -> Status {
    if (text.empty()) return Ok{};
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: '{}' has no meaning in phase {}; expected {}", flag, text, flags.phase, instead)};
  };
  model::Phase phase;
  if (kind == Kind::kDecode) {
    ROOFTREE_TRY_VOID(unwanted(flags.tokens, "--tokens", "--context"));
    ROOFTREE_TRY_VOID(unwanted(flags.past, "--past", "--context"));
    ROOFTREE_TRY(const std::int64_t context, or_default(flags.context, "--context", kDefaultContext, 1));
    phase = model::Phase::decode(batch, context);
  } else if (kind == Kind::kPrefill) {
    ROOFTREE_TRY_VOID(unwanted(flags.context, "--context", "--tokens and --past"));
    ROOFTREE_TRY(const std::int64_t tokens, or_default(flags.tokens, "--tokens", kDefaultPrompt, 1));
    ROOFTREE_TRY(const std::int64_t past, or_default(flags.past, "--past", 0, 0));
    phase = model::Phase::prefill(batch, tokens, past);
  } else {
    ROOFTREE_TRY_VOID(unwanted(flags.context, "--context", "--tokens"));
    ROOFTREE_TRY_VOID(unwanted(flags.past, "--past", "--tokens"));
    ROOFTREE_TRY(const std::int64_t tokens, or_default(flags.tokens, "--tokens", kDefaultTrainingTokens, 1));
    phase = model::Phase::train(batch, tokens);
  }
  ROOFTREE_TRY(phase.images, or_default(flags.images, "--images", 0, 0));
  if (kind != Kind::kTrain) {
    ROOFTREE_TRY_VOID(unwanted(flags.optimizer, "--optimizer", "it with --phase train"));
    ROOFTREE_TRY_VOID(unwanted(flags.recompute, "--recompute", "it with --phase train"));
    ROOFTREE_TRY_VOID(unwanted(flags.gradients, "--gradients", "it with --phase train"));
  }
  if (!flags.optimizer.empty()) {
    ROOFTREE_TRY(phase.optimizer,
                 by_name<model::OptimizerKind>(flags.optimizer, "--optimizer", static_cast<int>(model::OptimizerKind::kCount),
                                               [](model::OptimizerKind k) { return model::name(k); }));
  }
  if (!flags.recompute.empty()) {
    ROOFTREE_TRY(phase.recompute, by_name<model::Recompute>(flags.recompute, "--recompute", 3,
                                                            [](model::Recompute r) { return report::name(r); }));
  }
  return phase;
}

Result<cost::Sparsity> parse_sparsity(std::string_view text) {
  using Kind = cost::Sparsity::Kind;
  if (text == "dense") return cost::Sparsity{};
  if (text == "2:4") return cost::Sparsity{Kind::k2to4, 0.5};
  constexpr std::string_view kBlock = "block:";
  if (text.substr(0, kBlock.size()) == kBlock) {
    const std::string number(text.substr(kBlock.size()));
    char* end = nullptr;
    const double density = std::strtod(number.c_str(), &end);
    if (!number.empty() && *end == '\0' && density > 0 && density <= 1) return cost::Sparsity{Kind::kBlock, density};
  }
  return Error{ErrorCode::kParse,
               fmt::format("--sparsity: '{}'; expected dense, 2:4, or block:DENSITY with a density above 0 and up to 1", text)};
}

Result<cost::Plan> parse_plan(const WorkloadFlags& flags, const model::Model& model) {
  cost::Plan plan;
  if (info(model.native_weight_type).bits_per_value < info(DType::kBf16).bits_per_value) {
    plan.set_type(model::Role::kWeight, model.native_weight_type);
  }
  const auto set = [&](const std::string& text, std::string_view flag, model::Role role) -> Status {
    if (text.empty()) return Ok{};
    auto type = parse_dtype(text);
    if (!type) return type.error().within(std::string(flag));
    plan.set_type(role, *type);
    return Ok{};
  };
  ROOFTREE_TRY_VOID(set(flags.weights, "--weights", model::Role::kWeight));
  ROOFTREE_TRY_VOID(set(flags.kv, "--kv", model::Role::kKvCache));
  ROOFTREE_TRY_VOID(set(flags.activations, "--activations", model::Role::kActivation));
  ROOFTREE_TRY_VOID(set(flags.gradients, "--gradients", model::Role::kGradient));
  if (!flags.expert_weights.empty()) {
    auto type = parse_dtype(flags.expert_weights);
    if (!type) return type.error().within("--expert-weights");
    plan.expert_weights = *type;
  }
  if (!flags.sparsity.empty()) {
    ROOFTREE_TRY(plan.sparsity, parse_sparsity(flags.sparsity));
  }
  if (!flags.fusion.empty()) {
    ROOFTREE_TRY(plan.fusion,
                 by_name<model::Fusion>(flags.fusion, "--fusion", 5, [](model::Fusion f) { return model::name(f); }));
  }
  if (!flags.stack.empty()) {
    auto stack = cost::parse_stack(flags.stack == "llama.cpp" ? "llamacpp" : flags.stack);
    if (!stack) return stack.error().within("--stack");
    plan.stack = *stack;
  }
  if (!flags.arithmetic.empty()) {
    auto arithmetic = parse_arithmetic(flags.arithmetic);
    if (!arithmetic) return arithmetic.error().within("--arithmetic");
    plan.arithmetic = *arithmetic;
  }
  ROOFTREE_TRY_VOID(cost::check_plan(plan));
  return plan;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  while (start <= text.size()) {
    const std::size_t end = std::min(text.find(separator, start), text.size());
    parts.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

Status write_file(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file)
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: cannot be written; expected a path in an existing folder with room", path)};
  return Ok{};
}

int finish(const Result<int>& result) { return result ? *result : report_error(result.error()); }

}  // namespace rooftree::cli

#include "generation_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <ctime>
#include <filesystem>

#include "arguments.h"
#include "base/json.h"
#include "base/unit_text.h"

namespace rooftree::cli {
namespace {

using engine::TokenId;

// ID=VALUE,… ; "-inf" forbids a token.
Result<std::vector<std::pair<TokenId, float>>> parse_bias(const std::string& text) {
  std::vector<std::pair<TokenId, float>> bias;
  if (text.empty()) return bias;
  for (const std::string& part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    const std::string_view value = equals == std::string::npos ? std::string_view{} : std::string_view(part).substr(equals + 1);
    float number = 0;
    const auto [end, code] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (value.empty() || code != std::errc{} || end != value.data() + value.size()) {
      return Error{ErrorCode::kParse, fmt::format("--logit-bias: '{}'; expected TOKEN=NUMBER, like 13=-1.5 or 2=-inf", part)};
    }
    ROOFTREE_TRY(const std::int64_t token, parse_whole(std::string_view(part).substr(0, equals), "--logit-bias", 0));
    bias.emplace_back(static_cast<TokenId>(std::min<std::int64_t>(token, INT32_MAX)), number);
  }
  return bias;
}

double rate(std::int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

// The first token of the answer comes from the prompt's logits.
std::int64_t decoded(const engine::GenerateResult& result) {
  return std::max<std::int64_t>(static_cast<std::int64_t>(result.tokens.size()) - 1, 0);
}

}  // namespace

void add_generation_flags(CLI::App& verb, GenerationFlags& flags, const char* context_help) {
  verb.add_option("--max-tokens", flags.generate.max_tokens, "Tokens of the answer")->capture_default_str();
  verb.add_option("--stop", flags.stop, "End before this text (may be given several times)");
  engine::SamplerOptions& sampler = flags.generate.sampler;
  verb.add_option("--temperature", sampler.temperature, "0: always the most likely token")->capture_default_str();
  verb.add_option("--top-k", sampler.top_k, "Only the K most likely tokens; 0: all")->capture_default_str();
  verb.add_option("--top-p", sampler.top_p, "Only the most likely tokens that reach probability P")->capture_default_str();
  verb.add_option("--min-p", sampler.min_p, "Only tokens with at least P times the largest probability")->capture_default_str();
  verb.add_option("--typical-p", sampler.typical_p, "Locally typical sampling")->capture_default_str();
  verb.add_option("--repetition-penalty", sampler.repetition_penalty, "Of tokens in the window")->capture_default_str();
  verb.add_option("--presence-penalty", sampler.presence_penalty, "Of tokens in the window")->capture_default_str();
  verb.add_option("--frequency-penalty", sampler.frequency_penalty, "Of tokens in the window, each time")
      ->capture_default_str();
  verb.add_option("--penalty-window", sampler.penalty_window, "Last tokens that penalties look at; -1: all")
      ->capture_default_str();
  verb.add_option("--logit-bias", flags.logit_bias, "TOKEN=NUMBER,…: added to the logits");
  verb.add_option("--seed", sampler.seed, "Of the random numbers")->capture_default_str();
  verb.add_option("--grammar", flags.grammar_file, "Only texts of the GBNF grammar in FILE");
  verb.add_option("--json-schema", flags.schema_file, "Only JSON of the schema in FILE");
  verb.add_option("--lookup", flags.generate.lookup, "Draft this many tokens from the text so far")->capture_default_str();
  verb.add_option("--draft", flags.draft, "A smaller model with the same vocabulary that drafts");
  verb.add_option("--draft-tokens", flags.generate.draft_tokens, "Tokens that it drafts at a time")->capture_default_str();
  verb.add_option("--weights", flags.weights, "Convert the weights on load: q4_0, q8_0, bf16, f32, …");
  verb.add_option("--kv", flags.kv,
                  "Type of the cache: f32, f16, bf16, q8_0, q4_0 (default: f16 with f16 weights, f32 with --exact, else bf16)");
  verb.add_option("--ctx", flags.context, context_help)->check(CLI::Range(1, 1 << 30));
  verb.add_option("--threads", flags.threads, "Threads (default: one per core; ROOFTREE_THREADS)")->check(CLI::Range(1, 4096));
  verb.add_option("--memory", flags.memory,
                  "At most this much memory for weights, cache and scratch, like 2GiB; layers beyond it stream from disk");
  verb.add_option("--cache", flags.cache, "Keep the packed weights in this FOLDER: the next run maps them instead of packing");
  verb.add_option("--level", flags.level, "Refuse to run at less than this level of the numeric contract: A, B or C");
  verb.add_flag("--exact", flags.exact, "Weights, activations and cache as float32");
  verb.add_option("--backend", flags.backend, "cpu, or reference (plain and slow: the truth)")->capture_default_str();
}

void add_template_flags(CLI::App& verb, TemplateFlags& flags) {
  verb.add_option("--template", flags.name, "Chat template: a built-in NAME or a FILE (default: the model's own)");
  verb.add_option("--date", flags.date, "For templates that print it, like \"26 Nov 2026\" (default: today)");
}

Result<Template> open_template(const TemplateFlags& flags, const text::Tokenizer& tokenizer, const std::string& model) {
  text::ChatOptions options{.date = flags.date};
  if (flags.date.empty()) {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    char day[16];
    if (localtime_r(&now, &local) != nullptr && std::strftime(day, sizeof day, "%d %b %Y", &local) > 0) options.date = day;
  }
  if (flags.name.empty()) {
    if (tokenizer.chat_template().empty()) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: has no chat template; expected --template with a file or one of {}",
                                                    model, text::ChatTemplate::names())};
    }
    ROOFTREE_TRY(text::ChatTemplate chat, text::ChatTemplate::parse(tokenizer.chat_template(), model + ": chat template"));
    return Template{std::move(chat), std::move(options)};
  }
  if (auto named = text::ChatTemplate::named(flags.name)) return Template{std::move(named).value(), std::move(options)};
  std::error_code ignored;
  if (!std::filesystem::exists(flags.name, ignored)) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("--template: '{}'; expected a file or one of {}", flags.name, text::ChatTemplate::names())};
  }
  ROOFTREE_TRY(const std::string source, read_file(flags.name));
  ROOFTREE_TRY(text::ChatTemplate chat, text::ChatTemplate::parse(source, flags.name));
  return Template{std::move(chat), std::move(options)};
}

Result<engine::EngineOptions> engine_options(const GenerationFlags& flags) {
  engine::EngineOptions options;
  options.threads = flags.threads;
  options.exact_activations = flags.exact;
  if (!flags.weights.empty()) {
    ROOFTREE_TRY(options.weights, parse_dtype(flags.weights));
  }
  if (!flags.memory.empty()) {
    const auto limit = parse_bytes(flags.memory);
    if (!limit) return limit.error().within("--memory");
    if (limit->value() < 1 || limit->value() > 0x1p62) {
      return Error{ErrorCode::kInvalid, fmt::format("--memory: '{}'; expected a size like 2GiB", flags.memory)};
    }
    options.memory_limit_bytes = static_cast<std::uint64_t>(limit->value());
  }
  options.cache = flags.cache;
  if (flags.exact) options.kv = DType::kF32;
  if (!flags.kv.empty()) {
    ROOFTREE_TRY(options.kv, parse_dtype(flags.kv));
  }
  if (!flags.level.empty()) {
    for (const kernels::Level level : {kernels::Level::kA, kernels::Level::kB, kernels::Level::kC}) {
      if (flags.level == kernels::name(level)) options.level = level;
    }
    if (!options.level.has_value()) {
      return Error{ErrorCode::kInvalid, fmt::format("--level: '{}'; expected A, B or C", flags.level)};
    }
  }
  if (flags.backend == "reference") {
    options.backend = &kernels::reference_backend();
  } else if (flags.backend != "cpu") {
    return Error{ErrorCode::kInvalid, fmt::format("--backend: '{}'; expected cpu or reference", flags.backend)};
  }
  return options;
}

void choose_cache_type(const GenerationFlags& flags, const model::Model& model, engine::EngineOptions& options) {
  if (!flags.kv.empty() || flags.exact) return;
  if (options.weights.value_or(model.native_weight_type) == DType::kF16) options.kv = DType::kF16;
}

Result<Generation> Generation::make(const GenerationFlags& flags, const engine::EngineOptions& options, Progress* progress) {
  Generation made;
  made.options = flags.generate;
  made.options.stop = flags.stop;
  ROOFTREE_TRY(made.options.sampler.logit_bias, parse_bias(flags.logit_bias));
  if (!flags.draft.empty()) {
    ROOFTREE_TRY(engine::ModelFiles files, engine::ModelFiles::open(flags.draft));
    engine::EngineOptions draft_options = options;
    draft_options.weights.reset();
    draft_options.level.reset();
    draft_options.memory_limit_bytes = 0;  // the limit is the model's
    draft_options.kv_tokens += made.options.draft_tokens;
    ROOFTREE_TRY(made.draft_, engine::Engine::load(std::move(files), draft_options, progress));
    made.options.draft = made.draft_.get();
  }
  std::optional<text::Grammar> grammar;
  if (!flags.grammar_file.empty()) {
    ROOFTREE_TRY(const std::string source, read_file(flags.grammar_file));
    ROOFTREE_TRY(grammar, text::Grammar::parse_gbnf(source, flags.grammar_file));
  } else if (!flags.schema_file.empty()) {
    ROOFTREE_TRY(const std::string source, read_file(flags.schema_file));
    ROOFTREE_TRY(grammar, text::Grammar::from_json_schema(source, flags.schema_file));
  }
  if (grammar.has_value()) {
    made.grammar_ = std::make_unique<text::Grammar>(std::move(*grammar));
    made.options.grammar = made.grammar_.get();
  }
  return made;
}

std::string_view name(engine::StopReason reason) {
  switch (reason) {
    case engine::StopReason::kEnd:
      return "end";
    case engine::StopReason::kStopText:
      return "stop text";
    case engine::StopReason::kMaxTokens:
      return "max tokens";
    case engine::StopReason::kContext:
      return "context";
    case engine::StopReason::kCancelled:
      break;
  }
  return "interrupted";
}

void add_result(Json& json, const engine::GenerateResult& result) {
  json["prompt_tokens"] = result.prompt_tokens;
  json["prompt_s"] = result.prompt_seconds;
  json["prompt_tokens_per_s"] = rate(result.prompt_tokens, result.prompt_seconds);
  json["decode_tokens"] = decoded(result);
  json["decode_s"] = result.decode_seconds;
  json["decode_tokens_per_s"] = rate(decoded(result), result.decode_seconds);
  json["steps"] = result.steps;
  json["drafted_tokens"] = result.drafted;
  json["accepted_tokens"] = result.accepted;
  json["reason"] = name(result.reason);
  json["tokens"] = result.tokens;
}

void print_speed(const engine::GenerateResult& result, const engine::Engine& engine) {
  fmt::print(stderr, "prompt: {} tokens, {:.1f} tokens/s\n", result.prompt_tokens,
             rate(result.prompt_tokens, result.prompt_seconds));
  fmt::print(stderr, "answer: {} tokens, {:.1f} tokens/s ({}; level {}, {}, {} threads)\n", result.tokens.size(),
             rate(decoded(result), result.decode_seconds), name(result.reason), kernels::name(engine.level()),
             engine.backend().name(), engine.threads());
  if (result.drafted > 0) {
    fmt::print(stderr, "drafts: {} of {} tokens accepted, {} steps\n", result.accepted, result.drafted, result.steps);
  }
  if (const engine::StreamTimes streamed = engine.stream_times(); streamed.seconds > 0) {
    const engine::Footprint& footprint = engine.footprint();
    fmt::print(stderr, "weights stream from disk: {:.3g} GB per step at {:.3g} GB/s; {} of {} stay in memory\n",
               static_cast<double>(footprint.streamed_bytes) * 1e-9,
               static_cast<double>(streamed.bytes) / streamed.seconds * 1e-9,
               to_text(Bytes{static_cast<double>(footprint.resident_bytes)}),
               to_text(Bytes{static_cast<double>(footprint.weights_bytes)}));
  }
}

}  // namespace rooftree::cli

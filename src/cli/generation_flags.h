#pragma once

// What the verbs that generate text share: their flags, what the flags mean to the engine, and how an answer is reported.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "text/chat_template.h"

namespace CLI {
class App;
}

namespace rooftree::cli {

struct GenerationFlags {
  std::string weights, kv, level, backend = "cpu", logit_bias, grammar_file, schema_file, draft, memory, cache;
  std::vector<std::string> stop;
  bool exact = false;
  int threads = 0;
  std::int64_t context = 0;  // 0: not given
  engine::GenerateOptions generate;
};
// What `flags` holds are the defaults. `context_help` says what the default of --ctx is.
void add_generation_flags(CLI::App& verb, GenerationFlags& flags, const char* context_help);

// How a conversation becomes a prompt.
struct TemplateFlags {
  std::string name, date;  // empty: the model's own; today
};
void add_template_flags(CLI::App& verb, TemplateFlags& flags);
struct Template {
  text::ChatTemplate chat;
  text::ChatOptions options;
};
// `name` is a built-in template or a file; `model` names the tokenizer's files in messages.
Result<Template> open_template(const TemplateFlags& flags, const text::Tokenizer& tokenizer, const std::string& model);

// Without the size of the cache, which depends on the verb.
Result<engine::EngineOptions> engine_options(const GenerationFlags& flags);
// Where no type of the cache is asked for: f16 for f16 weights, whose accuracy a bf16 cache would hide; bf16 otherwise.
void choose_cache_type(const GenerationFlags& flags, const model::Model& model, engine::EngineOptions& options);

// A line on the terminal until the first text comes; Ctrl-C at any time (under an InterruptGuard).
class GenerationProgress final : public Progress {
 public:
  void update(double fraction, std::string_view doing) override {
    if (line_.has_value()) line_->update(fraction, doing);
  }
  [[nodiscard]] bool cancelled() const override { return InterruptGuard::interrupted(); }
  void hide() { line_.reset(); }
  void show() { line_.emplace(stderr); }

 private:
  std::optional<ProgressLine> line_{std::in_place, stderr};
};

// The options of the flags with what they point to; a draft model is loaded with `options`.
class Generation {
 public:
  static Result<Generation> make(const GenerationFlags& flags, const engine::EngineOptions& options, Progress* progress);

  engine::GenerateOptions options;

 private:
  std::unique_ptr<engine::Engine> draft_;
  std::unique_ptr<text::Grammar> grammar_;
};

[[nodiscard]] std::string_view name(engine::StopReason reason);

// The result's numbers as fields of a JSON object: tokens, seconds, rates.
void add_result(nlohmann::ordered_json& json, const engine::GenerateResult& result);
// "answer: 12 tokens, 80.1 tokens/s (end; …)" and its like, on standard error.
void print_speed(const engine::GenerateResult& result, const engine::Engine& engine);

}  // namespace rooftree::cli

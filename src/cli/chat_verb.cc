// rooftree chat: a conversation with a model, on a terminal or line by line from standard input.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "base/json.h"
#include "generation_flags.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

constexpr std::int64_t kDefaultContext = 4096;  // positions, where the model was made for as many
constexpr char kCommands[] = "/reset, /stats or /quit";

struct Flags : GenerationFlags {
  std::string model, system;
  TemplateFlags chat;
  bool json = false;
};

double rate(std::int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

// The messages, and one sequence whose keys and values follow them.
class Conversation {
 public:
  Conversation(engine::Engine& engine, Generation generation, const Template& chat, const Flags& flags, std::int64_t context)
      : engine_(engine), generation_(std::move(generation)), chat_(chat), flags_(flags), context_(context), sequence_(engine) {
    reset();
  }

  // kInvalid: no room for the message, or the template refuses it; the conversation is as before.
  Result<engine::StopReason> answer(std::string message) {
    messages_.push_back({.role = "user", .content = std::move(message), .extra_json = ""});
    auto reason = generate();
    // Without an answer there was no message either.
    if (!reason || messages_.back().role == "user") messages_.pop_back();
    return reason;
  }

  void reset() {
    messages_.clear();
    if (!flags_.system.empty()) messages_.push_back({.role = "system", .content = flags_.system, .extra_json = ""});
    sequence_.truncate(0);
  }

  void print_stats() const {
    const engine::Footprint& memory = engine_.footprint();
    fmt::print(stderr, "conversation: {} of {} tokens, {} messages\n", sequence_.tokens().size(), context_, messages_.size());
    fmt::print(stderr, "prompts: {} tokens computed, {:.1f} tokens/s; {} reused\n", total_.prompt_tokens,
               rate(total_.prompt_tokens, total_.prompt_seconds), total_.reused_tokens);
    fmt::print(stderr, "answers: {}, {} tokens, {:.1f} tokens/s\n", answers_, answered_,
               rate(answered_ - answers_, total_.decode_seconds));
    if (total_.drafted > 0) fmt::print(stderr, "drafts: {} of {} tokens accepted\n", total_.accepted, total_.drafted);
    fmt::print(stderr, "memory: weights {:.1f} MB, cache {:.1f} MB; level {}, {}, {} threads\n",
               static_cast<double>(memory.weights_bytes) / 1e6, static_cast<double>(memory.kv_bytes) / 1e6,
               kernels::name(engine_.level()), engine_.backend().name(), engine_.threads());
  }

 private:
  Result<engine::StopReason> generate() {
    ROOFTREE_TRY(const std::vector<engine::TokenId> prompt, chat_.chat.encode(messages_, chat_.options, *engine_.tokenizer()));
    const auto length = static_cast<std::int64_t>(prompt.size());
    if (length == 0) return Error{ErrorCode::kInvalid, "the chat template printed nothing; expected the conversation"};
    if (length >= context_) {
      return Error{
          ErrorCode::kInvalid,
          fmt::format("no room for this message: the conversation would have {} tokens and an answer, the context holds "
                      "{}; /reset begins anew, --ctx makes more room",
                      length, context_)};
    }
    sequence_.assign(prompt);

    const InterruptGuard guard;  // Ctrl-C stops the answer; at the prompt it ends the program
    GenerationProgress progress;
    std::string text;
    engine::GenerateOptions& options = generation_.options;
    options.max_tokens = std::min(flags_.generate.max_tokens, context_ - length);
    options.on_text = [&](std::string_view piece) {
      progress.hide();
      text += piece;
      if (flags_.json) return;
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    };
    auto generated = engine::generate(engine_, sequence_, options, {}, &progress);
    progress.hide();
    if (!flags_.json) {
      fmt::print("\n");
      std::fflush(stdout);
    }
    if (!generated) return generated.error();
    engine::GenerateResult& result = *generated;
    if (result.reason == engine::StopReason::kMaxTokens && options.max_tokens < flags_.generate.max_tokens) {
      result.reason = engine::StopReason::kContext;
    }
    result.reused_tokens = length - result.prompt_tokens;
    add(result);
    if (!result.tokens.empty() || result.reason != engine::StopReason::kCancelled) {
      messages_.push_back({.role = "assistant", .content = text, .extra_json = ""});
    }
    if (flags_.json) {
      Json j;
      j["answer"] = answers_;
      j["conversation_tokens"] = sequence_.tokens().size();
      j["context_tokens"] = context_;
      j["reused_tokens"] = result.reused_tokens;
      add_result(j, result);
      j["text"] = text;
      fmt::print("{}\n", j.dump());
      std::fflush(stdout);
    } else if (result.reason == engine::StopReason::kContext || result.reason == engine::StopReason::kMaxTokens) {
      fmt::print(stderr, "rooftree: the answer ends here: {}\n",
                 result.reason == engine::StopReason::kContext ? "the context is full" : "--max-tokens");
    }
    return result.reason;
  }

  void add(const engine::GenerateResult& result) {
    ++answers_;
    answered_ += static_cast<std::int64_t>(result.tokens.size());
    total_.prompt_tokens += result.prompt_tokens;
    total_.reused_tokens += result.reused_tokens;
    total_.prompt_seconds += result.prompt_seconds;
    total_.decode_seconds += result.decode_seconds;
    total_.drafted += result.drafted;
    total_.accepted += result.accepted;
  }

  engine::Engine& engine_;
  Generation generation_;
  const Template& chat_;
  const Flags& flags_;
  std::int64_t context_;
  engine::Sequence sequence_;
  std::vector<text::ChatMessage> messages_;
  engine::GenerateResult total_;  // sums over the answers, for /stats
  std::int64_t answers_ = 0, answered_ = 0;
};

// A message that is refused on a terminal is told; in a script it is told and the rest goes on, and the exit code says so.
Result<int> converse(Conversation& conversation, const Flags& flags, bool terminal) {
  int exit_code = 0;
  std::string line;
  while (true) {
    if (terminal) {
      fmt::print(stderr, "> ");
      std::fflush(stderr);
    }
    if (!std::getline(std::cin, line)) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    if (line == "/quit") return exit_code;
    if (line == "/reset") {
      conversation.reset();
      continue;
    }
    if (line == "/stats") {
      conversation.print_stats();
      continue;
    }
    if (line.front() == '/') {
      Error unknown{ErrorCode::kInvalid,
                    fmt::format("'{}'; expected {}, or a space before a message that begins with /", line, kCommands)};
      if (!terminal) return unknown;
      report_error(unknown);
      continue;
    }
    const auto reason = conversation.answer(std::move(line));
    if (!reason) {
      if (!terminal && reason.error().code != ErrorCode::kInvalid) return reason.error();
      report_error(reason.error());
      if (flags.json) fmt::print("{}\n", Json{{"refused", reason.error().message}}.dump());
      exit_code = 1;
    } else if (!terminal && *reason == engine::StopReason::kCancelled) {
      return 1;
    }
    line.clear();
  }
  if (terminal) fmt::print(stderr, "\n");
  return terminal ? 0 : exit_code;
}

Result<int> chat(const Flags& flags) {
  ROOFTREE_TRY(engine::EngineOptions options, engine_options(flags));
  ROOFTREE_TRY(engine::ModelFiles files, engine::ModelFiles::open(flags.model));
  choose_cache_type(flags, files.model, options);
  if (files.tokenizer == nullptr) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: has no tokenizer; expected one, for a conversation", flags.model)};
  }
  ROOFTREE_TRY(const Template chat, open_template(flags.chat, *files.tokenizer, flags.model));
  // What the template refuses, like a system message, is known before the weights are loaded.
  std::vector<text::ChatMessage> first;
  if (!flags.system.empty()) first.push_back({.role = "system", .content = flags.system, .extra_json = ""});
  first.push_back({.role = "user", .content = "Hello", .extra_json = ""});
  ROOFTREE_TRY_VOID(chat.chat.encode(first, chat.options, *files.tokenizer));

  const std::int64_t made_for = files.model.max_context;
  std::int64_t context = flags.context;
  if (context == 0) context = made_for > 0 ? std::min(made_for, kDefaultContext) : kDefaultContext;
  // One block more: a block that other conversations may find is copied before it changes.
  options.kv_tokens = context + options.page_tokens;
  options.max_rows = std::min<std::int64_t>(context, 512);
  std::unique_ptr<engine::Engine> engine;
  Generation generation;
  {
    const InterruptGuard guard;
    GenerationProgress progress;
    ROOFTREE_TRY(generation, Generation::make(flags, options, &progress));
    ROOFTREE_TRY(engine, engine::Engine::load(std::move(files), options, &progress));
  }
  ROOFTREE_TRY_VOID(check(generation.options, *engine));
  if (engine->position_limit() > 0) context = std::min(context, engine->position_limit());
  if (made_for > 0 && context > made_for) {
    fmt::print(stderr, "rooftree: {} positions; the model was made for {}, beyond it the text degrades\n", context, made_for);
  }
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) {
    fmt::print(stderr, "{}: {} positions. {}; Ctrl-C stops an answer.\n", engine->model().id, context, kCommands);
  }
  Conversation conversation(*engine, std::move(generation), chat, flags, context);
  return converse(conversation, flags, terminal);
}

}  // namespace

void add_chat_verb(CLI::App& app, int& exit_code) {
  const auto flags = std::make_shared<Flags>();
  flags->generate.max_tokens = 1024;
  CLI::App* verb = app.add_subcommand("chat", "A conversation with a model, on a terminal or line by line from standard input");
  verb->add_option("model", flags->model, "MODEL: a .gguf, or a folder of Hugging Face files")->required();
  verb->add_option("--system", flags->system, "What the model is told before the conversation");
  add_template_flags(*verb, flags->chat);
  add_generation_flags(*verb, *flags, "Positions that a conversation may have (default: the model's, at most 4096)");
  verb->add_flag("--json", flags->json, "For programs: one object per answer and line");
  verb->callback([flags, &exit_code] { exit_code = finish(chat(*flags)); });
}

}  // namespace rooftree::cli

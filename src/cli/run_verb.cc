// rooftree run: a model's text, streamed, with the speed of each phase.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "arguments.h"
#include "base/json.h"
#include "base/progress.h"
#include "engine/engine.h"
#include "engine/generate.h"
#include "engine/model_files.h"
#include "engine/receipt.h"
#include "engine/trace.h"
#include "generation_flags.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

using engine::TokenId;

struct Flags : GenerationFlags {
  std::string model, prompt, prompt_file, tokens, logits, receipt, trace;
  TemplateFlags chat;
  bool json = false, ignore_end = false, random = false, as_chat = false;
};

// Logits as a NumPy array, float32 (rows, vocabulary), written row by row under a temporary name. The header has room for any
// number of rows and is completed at the end.
class NpyWriter {
 public:
  explicit NpyWriter(std::string path) : path_(std::move(path)), temporary_(path_ + ".part") {}
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;
  ~NpyWriter() {
    if (file_ == nullptr) return;
    std::fclose(file_);
    std::remove(temporary_.c_str());
  }
  Status open() {
    file_ = std::fopen(temporary_.c_str(), "wb");
    if (file_ == nullptr) return failed();
    return write_header();
  }
  void add(std::span<const float> row) {
    columns_ = row.size();
    ++rows_;
    static_assert(std::endian::native == std::endian::little, "the array is little-endian");
    good_ = good_ && std::fwrite(row.data(), sizeof(float), row.size(), file_) == row.size();
  }
  Status close() {
    if (!good_ || std::fseek(file_, 0, SEEK_SET) != 0) return failed();
    ROOFTREE_TRY_VOID(write_header());
    const bool closed = std::fclose(file_) == 0;
    file_ = nullptr;
    std::error_code error;
    if (closed) std::filesystem::rename(temporary_, path_, error);
    if (!closed || error) {
      std::remove(temporary_.c_str());
      return failed();
    }
    return Ok{};
  }

 private:
  // Format version 1.0 (numpy/lib/format.py): magic, version, length, then a Python dict padded to 128 bytes in all.
  Status write_header() {
    constexpr std::size_t kBytes = 128;
    std::string header("\x93NUMPY\x01\x00", 8);
    header += static_cast<char>(kBytes - 10);
    header += '\0';
    header += fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows_, columns_);
    header.resize(kBytes - 1, ' ');
    header += '\n';
    if (std::fwrite(header.data(), 1, header.size(), file_) != header.size()) return failed();
    return Ok{};
  }
  [[nodiscard]] Error failed() const {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: cannot be written; expected a path in an existing folder with room", path_)};
  }

  std::string path_, temporary_;
  std::FILE* file_ = nullptr;
  std::size_t rows_ = 0, columns_ = 0;
  bool good_ = true;
};

Result<std::vector<TokenId>> parse_tokens(const std::string& text) {
  std::vector<TokenId> tokens;
  for (const std::string& part : split(text, ',')) {
    ROOFTREE_TRY(const std::int64_t token, parse_whole(part, "--tokens", 0));
    if (token > INT32_MAX) return Error{ErrorCode::kParse, fmt::format("--tokens: {} is no token id", token)};
    tokens.push_back(static_cast<TokenId>(token));
  }
  return tokens;
}

Result<engine::ModelFiles> open_model(const std::string& spec, bool random, const std::string& weights) {
  if (!random) return engine::ModelFiles::open(spec);
  ROOFTREE_TRY(const model::Model model, resolve_model(spec));
  DType type = model.native_weight_type;
  if (!weights.empty()) {
    ROOFTREE_TRY(type, parse_dtype(weights));
  }
  return engine::ModelFiles::synthetic(model, type, 0);
}

Result<std::vector<TokenId>> prompt_tokens(const Flags& flags, const text::Tokenizer* tokenizer) {
  if (!flags.tokens.empty()) return parse_tokens(flags.tokens);
  std::string text = flags.prompt;
  if (!flags.prompt_file.empty()) {
    ROOFTREE_TRY(text, read_file(flags.prompt_file));
  }
  if (tokenizer == nullptr) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: has no tokenizer; expected the prompt as --tokens 1,5,9", flags.model)};
  }
  if (flags.as_chat) {
    ROOFTREE_TRY(const Template chat, open_template(flags.chat, *tokenizer, flags.model));
    return chat.chat.encode({{.role = "user", .content = text, .extra_json = ""}}, chat.options, *tokenizer);
  }
  std::vector<TokenId> tokens = tokenizer->encode(text, {});
  if (tokens.empty()) return Error{ErrorCode::kInvalid, "the prompt is empty; expected -p TEXT, --file FILE or --tokens IDS"};
  return tokens;
}

// What another machine can compare: the receipt, and the trace of every value.
Status write_evidence(const Flags& flags, engine::Engine& engine, const engine::EngineOptions& options,
                      const engine::ReceiptRecorder& recorder, const std::vector<TokenId>& tokens,
                      const std::vector<TokenId>& prompt, Progress* progress) {
  if (!flags.receipt.empty()) {
    const engine::Receipt receipt =
        recorder.finish(engine, options, detected_cpu_features().cpu_name, tokens, static_cast<std::int64_t>(prompt.size()));
    ROOFTREE_TRY_VOID(write_file(flags.receipt, engine::to_json(receipt)));
  }
  if (!flags.trace.empty()) ROOFTREE_TRY_VOID(engine::write_trace(engine, tokens, flags.trace, progress));
  return Ok{};
}

Result<int> run(const Flags& flags) {
  const InterruptGuard guard;
  const auto load_start = std::chrono::steady_clock::now();
  GenerationProgress progress;
  const int sources = (flags.prompt.empty() ? 0 : 1) + (flags.prompt_file.empty() ? 0 : 1) + (flags.tokens.empty() ? 0 : 1);
  if (sources > 1) return Error{ErrorCode::kInvalid, "more than one prompt; expected one of -p, --file and --tokens"};
  ROOFTREE_TRY(engine::EngineOptions options, engine_options(flags));
  ROOFTREE_TRY(engine::ModelFiles files, open_model(flags.model, flags.random, flags.weights));
  choose_cache_type(flags, files.model, options);
  ROOFTREE_TRY(const std::vector<TokenId> prompt, prompt_tokens(flags, files.tokenizer.get()));
  const auto wanted = static_cast<std::int64_t>(prompt.size()) + flags.generate.max_tokens + 1;
  options.kv_tokens = flags.context > 0 ? flags.context : std::max<std::int64_t>(wanted, 512);
  options.max_rows = std::clamp<std::int64_t>(static_cast<std::int64_t>(prompt.size()), 1, 512);
  ROOFTREE_TRY(Generation generation, Generation::make(flags, options, &progress));
  engine::GenerateOptions& generate = generation.options;
  generate.ignore_end = flags.ignore_end || !flags.logits.empty();
  ROOFTREE_TRY(const auto engine, engine::Engine::load(std::move(files), options, &progress));
  if (engine->max_context() > 0 && wanted - 1 > engine->max_context()) {
    progress.hide();
    fmt::print(stderr, "rooftree: {} positions; the model was made for {}, beyond it the text degrades\n", wanted - 1,
               engine->max_context());
  }
  std::optional<NpyWriter> logits;
  if (!flags.logits.empty()) {
    logits.emplace(flags.logits);
    ROOFTREE_TRY_VOID(logits->open());
  }
  engine::ReceiptRecorder recorder;
  if (!flags.logits.empty() || !flags.receipt.empty()) {
    generate.on_logits = [&](std::int64_t position, std::span<const float> row) {
      if (logits.has_value()) logits->add(row);
      if (!flags.receipt.empty()) recorder.add_row(position, row);
    };
  }
  const double load_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - load_start).count();

  std::string text;
  if (engine->tokenizer() != nullptr) {
    generate.on_text = [&](std::string_view piece) {
      progress.hide();
      text += piece;
      if (flags.json) return;
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    };
  }
  engine::Sequence sequence(*engine);
  sequence.append(prompt);
  const auto on_token = [&](TokenId token, std::span<const float>) {
    if (engine->tokenizer() == nullptr && !flags.json) {
      fmt::print("{} ", token);
      std::fflush(stdout);
    }
    return true;
  };
  auto result = engine::generate(*engine, sequence, generate, on_token, &progress);
  progress.hide();
  if (!result) return result.error();
  if (logits.has_value()) ROOFTREE_TRY_VOID(logits->close());
  ROOFTREE_TRY_VOID(write_evidence(flags, *engine, options, recorder, sequence.tokens(), prompt, &progress));

  if (flags.json) {
    Json j;
    j["model"] = engine->model().id;
    j["backend"] = engine->backend().name();
    j["level"] = kernels::name(engine->level());
    j["threads"] = engine->threads();
    j["load_s"] = load_s;
    j["weights_bytes"] = engine->footprint().weights_bytes;
    j["kv_bytes"] = engine->footprint().kv_bytes;
    j["scratch_bytes"] = engine->footprint().scratch_bytes;
    j["resident_bytes"] = engine->footprint().resident_bytes;
    j["streamed_bytes_per_step"] = engine->footprint().streamed_bytes;
    j["stream_buffer_bytes"] = engine->footprint().buffer_bytes;
    j["weights_reused"] = engine->weights_reused();
    if (const engine::StreamTimes streamed = engine->stream_times(); streamed.seconds > 0) {
      j["stream_bytes_per_s"] = static_cast<double>(streamed.bytes) / streamed.seconds;
    }
    add_result(j, *result);
    if (engine->tokenizer() != nullptr) j["text"] = text;
    fmt::print("{}\n", j.dump(2));
    return 0;
  }
  fmt::print("\n");
  std::fflush(stdout);
  print_speed(*result, *engine);
  return 0;
}

}  // namespace

void add_run_verb(CLI::App& app, int& exit_code) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = app.add_subcommand("run", "Run a language model on this machine");
  verb->add_option("model", flags->model, "MODEL: a .gguf, or a folder of Hugging Face files")->required();
  verb->add_option("-p,--prompt", flags->prompt, "The prompt");
  verb->add_option("--file", flags->prompt_file, "The prompt from FILE");
  verb->add_option("--tokens", flags->tokens, "The prompt as token ids, like 1,5,9");
  CLI::Option* as_chat = verb->add_flag("--chat", flags->as_chat, "The prompt is a user's message in the chat template");
  as_chat->excludes("--tokens");
  add_template_flags(*verb, flags->chat);
  for (const char* flag : {"--template", "--date"}) verb->get_option(flag)->needs(as_chat);
  add_generation_flags(*verb, *flags, "Positions in the cache (default: what the prompt and the answer need)");
  verb->add_flag("--ignore-end", flags->ignore_end, "Go on after the token that ends an answer");
  verb->add_flag("--random", flags->random, "MODEL is a catalogue id or config.json; its weights are random");
  verb->add_option("--logits", flags->logits, "Write the logits after every position to FILE.npy, float32 (rows, vocabulary)");
  verb->add_option("--receipt", flags->receipt, "Write to FILE what was run, with hashes that another machine can compare");
  verb->add_option("--trace", flags->trace, "Write every value of every operator to FILE, for `rooftree diff`");
  verb->add_flag("--json", flags->json, "For programs");
  verb->callback([flags, &exit_code] { exit_code = finish(run(*flags)); });
}

}  // namespace rooftree::cli

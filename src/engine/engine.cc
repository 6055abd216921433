#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/cpu_features.h"
#include "base/sha256.h"
#include "engine/program.h"
#include "engine/weights.h"

namespace rooftree::engine {
namespace {

constexpr std::int64_t kMostRows = 1 << 16;

Status check(const EngineOptions& options) {
  const auto range = [](const char* what, std::int64_t value, std::int64_t least, std::int64_t most) -> Status {
    if (value >= least && value <= most) return Ok{};
    return Error{ErrorCode::kInvalid, fmt::format("engine: {}: {}; expected {} to {}", what, value, least, most)};
  };
  ROOFTREE_TRY_VOID(range("threads", options.threads, 0, 4096));
  ROOFTREE_TRY_VOID(range("positions in the cache", options.kv_tokens, 1, std::int64_t{1} << 30));
  ROOFTREE_TRY_VOID(range("rows per pass", options.max_rows, 1, kMostRows));
  ROOFTREE_TRY_VOID(range("positions per page", options.page_tokens, 16, 4096));
  if (options.page_tokens % 16 != 0) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("engine: positions per page: {}; expected a multiple of 16", options.page_tokens)};
  }
  switch (options.kv) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBf16:
    case DType::kQ8_0:
    case DType::kQ4_0:
      return Ok{};
    default:
      return Error{ErrorCode::kInvalid,
                   fmt::format("engine: a cache of {}; expected f32, f16, bf16, q8_0 or q4_0", name(options.kv))};
  }
}

}  // namespace

struct Engine::State {
  ModelFiles files;
  EngineOptions options;
  const kernels::Backend* backend = nullptr;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<Program> program;
  std::unique_ptr<serving::BlockPool> blocks;
  std::vector<Arena> kv;  // one per cache
  Footprint footprint;
  kernels::Level level = kernels::Level::kC;
  std::string sha256;  // of the stored tensors; empty: not computed yet

  bool profiling = false;
  std::vector<NodeTime> profile;
  Observer observer;

  // Of the step in progress; capacity stays.
  std::vector<std::int32_t> tokens, positions, zeros, head_rows;
  std::vector<kernels::SequenceRows> sequences;
  std::vector<std::int64_t> first_row;
  std::vector<float> logits;

  Status validate(std::span<const Chunk> chunks) const;
  Status run_pass(float* logits_out);
  void report_profile(std::int64_t rows, std::int64_t head);
};

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::load(ModelFiles files, const EngineOptions& options, Progress* progress) {
  ROOFTREE_TRY_VOID(check(options));
  auto state = std::make_unique<State>();
  State& s = *state;
  s.files = std::move(files);
  s.options = options;
  s.backend = options.backend;
  if (s.backend == nullptr) {
    ROOFTREE_TRY(const CpuFeatures features, usable_cpu_features());
    s.backend = &kernels::cpu_backend(features);
  }
  int threads = options.threads;
  if (threads == 0) {
    ROOFTREE_TRY(threads, default_thread_count());
  }
  s.pool = std::make_unique<ThreadPool>(ThreadPoolOptions{.threads = threads});
  s.weights = std::make_unique<Weights>(s.files, *s.backend,
                                        WeightOptions{.type = options.weights, .exact = options.exact_activations});
  ROOFTREE_TRY(s.program, Program::compile(s.files.model, *s.weights, *s.backend,
                                           {.max_rows = options.max_rows,
                                            .page_tokens = options.page_tokens,
                                            .kv = options.kv,
                                            .threads = threads,
                                            .exact = options.exact_activations}));

  const bool reference = s.backend == &kernels::reference_backend();
  s.level = reference || options.kv == DType::kF32 ? kernels::Level::kC : s.weights->level();
  if (options.level.has_value() && s.level > *options.level) {
    std::string why = fmt::format("{} keeps level {}", s.weights->example_of(s.level), kernels::name(s.level));
    if (options.kv == DType::kF32) why = "attention over an f32 cache keeps level C";
    if (reference) why = "the reference backend keeps level C";
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: level {} was asked for; {}", s.files.model.id, kernels::name(*options.level), why)};
  }

  const std::int64_t blocks = (options.kv_tokens + options.page_tokens - 1) / options.page_tokens;
  s.blocks = std::make_unique<serving::BlockPool>(blocks, options.page_tokens);
  for (KvLayer& layer : s.program->kv_layers()) {
    layer.cache.page_stride = (s.backend->kv_page_bytes(layer.cache.shape) + 63) / 64 * 64;
    s.footprint.kv_bytes += layer.cache.page_stride * static_cast<std::uint64_t>(blocks);
  }
  s.footprint.scratch_bytes = s.program->scratch_bytes();
  WeightStorage storage{.cache = options.cache, .most_memory_bytes = {}};
  if (options.memory_limit_bytes > 0) {
    const std::uint64_t others = s.footprint.kv_bytes + s.footprint.scratch_bytes;
    if (others >= options.memory_limit_bytes) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: cache and scratch alone take {} bytes; the limit is {}",
                                                    s.files.model.id, others, options.memory_limit_bytes)};
    }
    storage.most_memory_bytes = options.memory_limit_bytes - others;
  }
  for (KvLayer& layer : s.program->kv_layers()) {
    ROOFTREE_TRY(Arena arena, Arena::make(layer.cache.page_stride * static_cast<std::size_t>(blocks), true));
    layer.cache.base = arena.data();
    s.kv.push_back(std::move(arena));
  }
  ROOFTREE_TRY_VOID(s.weights->load(*s.pool, storage, progress));
  s.program->stream(*s.weights);
  s.footprint.weights_bytes = s.weights->packed_bytes();
  s.footprint.resident_bytes = s.weights->resident_bytes();
  s.footprint.streamed_bytes = s.weights->streamed_bytes();
  if (s.weights->stream() != nullptr) s.footprint.buffer_bytes = s.weights->stream()->buffer_bytes();
  s.footprint.step_weight_bytes = s.program->step_weight_bytes();

  const auto rows = static_cast<std::size_t>(options.max_rows);
  s.tokens.reserve(rows);
  s.positions.reserve(rows);
  s.head_rows.reserve(rows);
  s.zeros.resize(rows);
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

Status Engine::State::validate(std::span<const Chunk> chunks) const {
  const std::int64_t vocabulary = program->vocabulary();
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    const Chunk& chunk = chunks[c];
    const auto refuse = [&](const std::string& why) {
      return Error{ErrorCode::kInvalid, fmt::format("step: chunk {}: {}", c, why)};
    };
    const auto count = static_cast<std::int64_t>(chunk.tokens.size());
    if (count == 0) return refuse("no tokens; expected at least one");
    for (const TokenId token : chunk.tokens) {
      if (token < 0 || token >= vocabulary) {
        return refuse(fmt::format("token {}; expected 0 to {}", token, vocabulary - 1));
      }
    }
    const std::int64_t limit = program->position_limit() > 0 ? program->position_limit() : INT32_MAX;
    if (chunk.past < 0 || chunk.past > limit - count) {
      return refuse(fmt::format("positions {} to {}; expected 0 to {}", chunk.past, chunk.past + count - 1, limit - 1));
    }
    const std::int64_t page = options.page_tokens;
    const std::int64_t needed = (chunk.past + count + page - 1) / page;
    if (static_cast<std::int64_t>(chunk.blocks.size()) < needed) {
      return refuse(fmt::format("{} blocks; expected {} for {} positions", chunk.blocks.size(), needed, chunk.past + count));
    }
    for (std::int64_t i = 0; i < needed; ++i) {
      const serving::BlockId block = chunk.blocks[static_cast<std::size_t>(i)];
      if (block < 0 || block >= blocks->capacity()) {
        return refuse(fmt::format("block {}; expected 0 to {}", block, blocks->capacity() - 1));
      }
      const std::int32_t references = blocks->references(block);
      if (references == 0) return refuse(fmt::format("block {} belongs to nobody", block));
      if (i >= chunk.past / page && references > 1) {
        return refuse(fmt::format("block {} would be written and has {} owners; expected a copy", block, references));
      }
    }
  }
  return Ok{};
}

Status Engine::State::run_pass(float* logits_out) {
  const Pass pass{.tokens = tokens,
                  .positions = positions,
                  .zeros = std::span(zeros).first(tokens.size()),
                  .sequences = sequences,
                  .head_rows = head_rows,
                  .logits = logits_out};
  if (profiling || observer) {
    pool->run([&](const Worker& worker) { program->run_watched(worker, pass, profiling, observer); });
  } else {
    pool->run([&](const Worker& worker) { program->run(worker, pass); });
  }
  if (program->failed()) return weights->stream_error();
  return Ok{};
}

void Engine::State::report_profile(std::int64_t rows, std::int64_t head) {
  profile.clear();
  const std::vector<NodeInfo>& nodes = program->nodes();
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const NodeInfo& node = nodes[i];
    profile.push_back({.block = node.block,
                       .node = node.name,
                       .layer = node.layer,
                       .rows = node.head ? head : rows,
                       .seconds = program->seconds()[i]});
  }
}

Result<StepResult> Engine::step(std::span<const Chunk> chunks) {
  State& s = *state_;
  ROOFTREE_TRY_VOID(s.validate(chunks));
  std::int64_t wanted = 0, total = 0;
  s.first_row.clear();
  for (const Chunk& chunk : chunks) {
    s.first_row.push_back(wanted);
    const auto count = static_cast<std::int64_t>(chunk.tokens.size());
    total += count;
    wanted += chunk.logits == Logits::kAll ? count : chunk.logits == Logits::kLast ? 1 : 0;
  }
  s.first_row.push_back(wanted);
  const std::int64_t vocabulary = s.program->vocabulary();
  const auto floats = static_cast<std::size_t>(wanted * vocabulary);
  if (s.logits.size() < floats) s.logits.resize(floats);
  if (s.profiling) std::fill(s.program->seconds().begin(), s.program->seconds().end(), 0.0);

  // Chunks go through in order, cut where a pass is full.
  std::int64_t logits_done = 0;
  const auto start = [&] {
    s.tokens.clear();
    s.positions.clear();
    s.head_rows.clear();
    s.sequences.clear();
  };
  const auto finish = [&]() -> Status {
    if (s.tokens.empty()) return Ok{};
    ROOFTREE_TRY_VOID(s.run_pass(s.logits.data() + logits_done * vocabulary));
    logits_done += static_cast<std::int64_t>(s.head_rows.size());
    start();
    return Ok{};
  };
  start();
  for (const Chunk& chunk : chunks) {
    const auto count = static_cast<std::int64_t>(chunk.tokens.size());
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t room = s.options.max_rows - static_cast<std::int64_t>(s.tokens.size());
      if (room == 0) {
        ROOFTREE_TRY_VOID(finish());
        continue;
      }
      const std::int64_t part = std::min(room, count - done);
      const auto first = static_cast<std::int64_t>(s.tokens.size());
      s.sequences.push_back({.first_row = first, .rows = part, .past = chunk.past + done, .pages = chunk.blocks.data()});
      for (std::int64_t i = 0; i < part; ++i) {
        s.tokens.push_back(chunk.tokens[static_cast<std::size_t>(done + i)]);
        s.positions.push_back(static_cast<std::int32_t>(chunk.past + done + i));
        const bool last = done + i + 1 == count;
        if (chunk.logits == Logits::kAll || (chunk.logits == Logits::kLast && last)) {
          s.head_rows.push_back(static_cast<std::int32_t>(first + i));
        }
      }
      done += part;
    }
  }
  ROOFTREE_TRY_VOID(finish());
  if (s.profiling) s.report_profile(total, wanted);
  return StepResult{.vocabulary = vocabulary, .logits = std::span(s.logits).first(floats), .first_row = s.first_row};
}

serving::BlockPool& Engine::blocks() { return *state_->blocks; }

void Engine::copy_block(serving::BlockId from, serving::BlockId to) {
  ROOFTREE_CHECK(from >= 0 && from < state_->blocks->capacity() && to >= 0 && to < state_->blocks->capacity(),
                 "copy_block: a block out of range");
  for (const KvLayer& layer : state_->program->kv_layers()) {
    const std::size_t stride = layer.cache.page_stride;
    std::memcpy(layer.cache.base + static_cast<std::size_t>(to) * stride,
                layer.cache.base + static_cast<std::size_t>(from) * stride, stride);
  }
}

const model::Model& Engine::model() const { return state_->files.model; }
const text::Tokenizer* Engine::tokenizer() const { return state_->files.tokenizer.get(); }
const std::shared_ptr<const text::Tokenizer>& Engine::shared_tokenizer() const { return state_->files.tokenizer; }
std::int64_t Engine::vocabulary() const { return state_->program->vocabulary(); }
std::int64_t Engine::max_context() const { return state_->files.model.max_context; }
std::int64_t Engine::position_limit() const { return state_->program->position_limit(); }
kernels::Level Engine::level() const { return state_->level; }
const kernels::Backend& Engine::backend() const { return *state_->backend; }
int Engine::threads() const { return state_->pool->size(); }
ThreadPool& Engine::pool() { return *state_->pool; }
const Footprint& Engine::footprint() const { return state_->footprint; }
bool Engine::weights_reused() const { return state_->weights->reused(); }

StreamTimes Engine::stream_times() const {
  const WeightStream* stream = state_->weights->stream();
  if (stream == nullptr) return {};
  const auto [bytes, seconds] = stream->read_so_far();
  return {.bytes = bytes, .seconds = seconds};
}

const std::string& Engine::weights_sha256() {
  State& s = *state_;
  if (!s.sha256.empty()) return s.sha256;
  std::vector<std::string_view> names = s.files.tensors->names();
  std::sort(names.begin(), names.end());
  Sha256 total;
  const auto add_text = [&](std::string_view text) {
    const std::uint64_t length = text.size();
    total.update_values(std::span(&length, 1));
    total.update_values(std::span<const char>(text));
  };
  std::vector<std::array<std::byte, 32>> pieces;
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  for (const std::string_view tensor : names) {
    const auto view = s.files.tensors->find(tensor);
    if (!view) continue;  // a type that Rooftree does not know; no weight of this model, which loaded
    pieces.resize((view->bytes.size() + kPiece - 1) / kPiece);
    s.pool->parallel_for(static_cast<std::int64_t>(pieces.size()), [&](Range range, const Worker&) {
      for (std::int64_t i = range.begin; i < range.end; ++i) {
        const std::size_t begin = static_cast<std::size_t>(i) * kPiece;
        Sha256 piece;
        piece.update(view->bytes.subspan(begin, std::min(kPiece, view->bytes.size() - begin)));
        pieces[static_cast<std::size_t>(i)] = piece.digest();
      }
    });
    add_text(tensor);
    add_text(rooftree::name(view->type));
    total.update_values(std::span<const std::int64_t>(view->extents));
    for (const auto& piece : pieces) total.update(piece);
    s.files.tensors->release(tensor);
  }
  s.sha256 = total.hex();
  return s.sha256;
}

void Engine::set_profiling(bool on) { state_->profiling = on; }
std::span<const NodeTime> Engine::last_profile() const { return state_->profile; }
void Engine::set_observer(Observer observer) { state_->observer = std::move(observer); }

}  // namespace rooftree::engine

#include "engine/certify.h"

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>

#include "base/philox.h"
#include "base/sha256.h"
#include "base/thread_pool.h"
#include "engine/certify_expected.h"
#include "engine/generate.h"
#include "formats/block_codec.h"
#include "formats/half.h"

namespace rooftree::engine {
namespace {

using kernels::Backend;
using kernels::Level;

struct Buffer {
  explicit Buffer(std::size_t bytes)
      : size(bytes), data(static_cast<std::byte*>(::operator new (bytes + 64, std::align_val_t{64}))) {
    std::memset(data.get(), 0, bytes);
  }
  struct Delete {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::size_t size;
  std::unique_ptr<std::byte, Delete> data;
};

// Values of order 1 with a tail, from bits alone: no libm, the same everywhere.
std::vector<float> values(std::uint64_t seed, std::int64_t count) {
  const Philox random(seed);
  std::vector<float> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) {
    const PhiloxBlock block = random.block(i);
    const float a = uniform_float_from_bits(block[0]) + uniform_float_from_bits(block[1]) + uniform_float_from_bits(block[2]);
    v[i] = (a - 1.5F) * ((block[3] & 63U) == 0 ? 8.0F : 1.0F);
  }
  return v;
}

std::string hash_of(std::span<const float> data) {
  Sha256 sha;
  sha.update_values(data);
  return sha.hex().substr(0, 16);
}

// What a device does to the same work under other circumstances.
struct Circumstances {
  int threads;
  std::int64_t batch;  // rows computed together
};
constexpr Circumstances kCircumstances[] = {{1, 64}, {2, 64}, {3, 64}, {2, 1}, {2, 5}, {1, 32}};
constexpr std::int64_t kRows = 64;

// Where a record of a type whose writer searches for its scales holds them, as f16; the rest of it may be any bits.
std::vector<std::size_t> scale_offsets(DType type) {
  switch (type) {
    case DType::kQ2K:
      return {80, 82};
    case DType::kQ3K:
      return {108};
    case DType::kQ4K:
    case DType::kQ5K:
      return {0, 2};
    case DType::kQ6K:
      return {208};
    case DType::kIq4Nl:
    case DType::kIq4Xs:
      return {0};
    default:
      return {};
  }
}

// Rows of a type that do not depend on how well a writer searches: values rounded where the rounding is fixed, random records
// otherwise.
std::vector<std::byte> stored_rows(DType type, std::int64_t n, std::int64_t k) {
  const std::size_t row_bytes = formats::row_bytes(type, k);
  std::vector<std::byte> rows(row_bytes * static_cast<std::size_t>(n));
  const std::vector<std::size_t> scales = scale_offsets(type);
  if (scales.empty()) {
    const std::vector<float> w = values(11, n * k);
    for (std::int64_t i = 0; i < n; ++i) {
      formats::quantize_row(type, std::span(w).subspan(static_cast<std::size_t>(i * k), static_cast<std::size_t>(k)),
                            std::span(rows).subspan(static_cast<std::size_t>(i) * row_bytes, row_bytes));
    }
    return rows;
  }
  const Philox random(13);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = static_cast<std::byte>(random.block(i / 16)[i / 4 % 4] >> (i % 4 * 8));
  const auto record = static_cast<std::size_t>(formats::block_form(type).bytes);
  for (std::size_t at = 0; at < rows.size(); at += record) {
    for (const std::size_t offset : scales) {
      const float magnitude = 0.0005F * (1.0F + uniform_float_from_bits(random.block(at)[0]));
      const std::uint16_t half = formats::f16_from_float(magnitude);
      std::memcpy(rows.data() + at + offset, &half, sizeof half);
    }
  }
  return rows;
}

std::vector<float> product(const Backend& backend, DType type, const Circumstances& how) {
  constexpr std::int64_t n = 72, k = 1280;  // a padded unit, and more than two segments
  const DType stored = type == DType::kBf16Lossless12 ? DType::kBf16 : type;
  const std::vector<std::byte> rows = stored_rows(stored, n, k);
  ThreadPool pool({.threads = how.threads, .pin = false});
  const Buffer packed(backend.packed_bytes(type, n, k).value());
  pool.run([&](const Worker& worker) {
    backend.pack(worker, {.type = type, .n = n, .k = k, .rows = rows.data(), .out = packed.data.get()});
  });
  const kernels::PackedMatrix matrix{.type = type, .n = n, .k = k, .data = packed.data.get(), .bytes = packed.size};
  const std::vector<float> x = values(12, kRows * k);
  std::vector<float> y(static_cast<std::size_t>(kRows * n));
  const kernels::Product kind = kernels::product_of(type);
  for (std::int64_t row = 0; row < kRows; row += how.batch) {
    const std::int64_t m = std::min(how.batch, kRows - row);
    const Buffer activations(backend.activation_bytes(kind, m, k));
    pool.run([&](const Worker& worker) {
      backend.pack_activations(
          worker, {.product = kind, .x = {x.data() + row * k, k}, .rows = m, .k = k, .out = activations.data.get()});
      worker.barrier();
      backend.multiply(worker, {.weight = matrix, .x = activations.data.get(), .rows = m, .y = {y.data() + row * n, n}});
    });
  }
  return y;
}

std::vector<float> attention(const Backend& backend, DType type, const Circumstances& how) {
  constexpr std::int64_t heads = 4, kv_heads = 2, dim = 64, past = 300, page = 32;
  const kernels::KvShape shape{.type = type, .kv_heads = kv_heads, .head_dim = dim, .value_dim = dim, .page_tokens = page};
  const std::size_t page_bytes = backend.kv_page_bytes(shape);
  constexpr std::int64_t total = past + kRows;
  constexpr std::int64_t pages = (total + page - 1) / page;
  const Buffer memory(page_bytes * pages);
  std::vector<std::int32_t> table;
  for (std::int32_t i = 0; i < pages; ++i) table.push_back(static_cast<std::int32_t>(pages) - 1 - i);
  const kernels::KvCache cache{.shape = shape, .base = memory.data.get(), .page_stride = page_bytes};
  const std::vector<float> q = values(21, total * heads * dim), k = values(22, total * kv_heads * dim),
                           v = values(23, total * kv_heads * dim);
  std::vector<float> y(static_cast<std::size_t>(kRows * heads * dim));
  ThreadPool pool({.threads = how.threads, .pin = false});
  const auto step = [&](std::int64_t first, std::int64_t rows, float* out) {
    const kernels::SequenceRows sequence{.first_row = 0, .rows = rows, .past = first, .pages = table.data()};
    pool.run([&](const Worker& worker) {
      backend.kv_write(worker, {.cache = cache,
                                .sequences = std::span(&sequence, 1),
                                .k = {k.data() + first * kv_heads * dim, kv_heads * dim},
                                .v = {v.data() + first * kv_heads * dim, kv_heads * dim}});
      worker.barrier();
      if (out == nullptr) return;
      backend.attention(worker, {.cache = cache,
                                 .sequences = std::span(&sequence, 1),
                                 .heads = heads,
                                 .q = {q.data() + first * heads * dim, heads * dim},
                                 .y = {out, heads * dim},
                                 .scale = 0.125F});
    });
  };
  step(0, past, nullptr);
  for (std::int64_t row = 0; row < kRows; row += how.batch) {
    step(past + row, std::min(how.batch, kRows - row), y.data() + row * heads * dim);
  }
  return y;
}

std::vector<float> row_operators(const Backend& backend, const Circumstances& how) {
  constexpr std::int64_t width = 200;
  std::vector<float> x = values(31, kRows * width);
  const std::vector<float> delta = values(32, kRows * width), weight = values(33, width);
  std::vector<float> out(static_cast<std::size_t>(kRows * width * 4));
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < kRows; ++i) positions.push_back(i * 977);
  model::Rope rope{.dims = 40, .pairing = model::RopePairing::kHalves};
  for (int i = 0; i < 20; ++i) rope.inverse_frequencies.push_back(1.0 / (1 + i * i));
  ThreadPool pool({.threads = how.threads, .pin = false});
  for (std::int64_t row = 0; row < kRows; row += how.batch) {
    const std::int64_t m = std::min(how.batch, kRows - row);
    float* const sum = x.data() + row * width;
    float* const normed = out.data() + row * width * 4;
    constexpr std::int64_t stride = width * 4;
    pool.run([&](const Worker& worker) {
      backend.norm(worker, {.rows = m,
                            .width = width,
                            .x = {sum, width},
                            .delta = {delta.data() + row * width, width},
                            .sum = {sum, width},
                            .weight = weight.data(),
                            .epsilon = 1e-5F,
                            .y = {normed, stride}});
      worker.barrier();
      backend.activation(worker,
                         {.rows = m, .width = width, .x = {normed, stride}, .up = {sum, width}, .y = {normed + width, stride}});
      backend.activation(worker, {.activation = model::Activation::kGeluTanh,
                                  .rows = m,
                                  .width = width,
                                  .x = {normed, stride},
                                  .y = {normed + 2 * width, stride}});
      worker.barrier();
      backend.add(worker, {.rows = m,
                           .width = width,
                           .a = {normed, stride},
                           .b = {sum, width},
                           .c = {normed + width, stride},
                           .y = {normed + 3 * width, stride}});
      worker.barrier();
      backend.rope(worker,
                   {.rope = &rope,
                    .rows = m,
                    .heads = 5,
                    .head_dim = 40,
                    .x = {normed + 3 * width, stride},
                    .positions = std::span(positions).subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(m))});
    });
  }
  return out;
}

// A small language model of seeded random weights, four layers, grouped queries: logits of a prompt, in pieces of how.batch.
Result<std::vector<float>> language_model(const Backend& backend, DType type, DType kv, const Circumstances& how) {
  model::DecoderShape shape;
  shape.id = "certify";
  shape.layers = 4;
  shape.hidden = 256;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.head_dim = 32;
  shape.feed_forward = 768;
  shape.vocabulary = 320;
  shape.max_context = 512;
  ROOFTREE_TRY(const model::Model model, model::make_decoder(shape));
  ROOFTREE_TRY(ModelFiles files, ModelFiles::synthetic(model, type, 5));
  EngineOptions options;
  options.threads = how.threads;
  options.kv = kv;
  options.kv_tokens = 512;
  options.page_tokens = 32;
  options.backend = &backend;
  ROOFTREE_TRY(const std::unique_ptr<Engine> engine, Engine::load(std::move(files), options));
  Sequence sequence(*engine);
  std::vector<float> logits;
  for (std::int64_t row = 0; row < kRows; row += how.batch) {
    std::vector<TokenId> tokens;
    for (std::int64_t i = row; i < std::min(row + how.batch, kRows); ++i) tokens.push_back(static_cast<TokenId>(i * 131 % 320));
    sequence.append(tokens);
    ROOFTREE_TRY(const Chunk chunk, sequence.prepare(how.batch, Logits::kAll));
    ROOFTREE_TRY(const StepResult step, engine->step(std::span(&chunk, 1)));
    logits.insert(logits.end(), step.logits.begin(), step.logits.end());
    sequence.advance(static_cast<std::int64_t>(tokens.size()));
  }
  return logits;
}

std::vector<std::pair<std::string, bool>> arithmetic_facts() {
  // volatile: computed by the machine, not by the compiler.
  volatile float tiny = std::numeric_limits<float>::min();
  volatile float half = 0.5F, one = 1.0F, ulp = std::numeric_limits<float>::epsilon(), three = 3.0F;
  const bool subnormal = tiny * half > 0.0F;
  const bool even = one + half * ulp == 1.0F && (one + ulp) + half * ulp == 1.0F + 2 * std::numeric_limits<float>::epsilon();
  volatile float x = one + ulp, y = one - ulp;
  const float separate = x * y - one;  // 1 - eps^2 rounds to 1: zero unless contracted
  volatile float third = one / three;
  return {{"subnormals are kept", subnormal},
          {"additions round to nearest, ties to even", even},
          {"multiply and add are rounded separately", separate == 0.0F},
          {"division is rounded to nearest", third == 0x1.555556p-2F}};
}

}  // namespace

Result<Certificate> certify(const CpuFeatures& features, Progress* progress) {
  const Backend& backend = kernels::cpu_backend(features);
  Certificate certificate{.backend = std::string(backend.name()), .cpu = features.cpu_name, .compiler = __VERSION__};
  certificate.facts = arithmetic_facts();
  bool arithmetic = true;
  for (const auto& [fact, holds] : certificate.facts) arithmetic = arithmetic && holds;

  struct Work {
    std::string name;
    Level level;
    std::function<Result<std::vector<float>>(const Circumstances&)> run;
  };
  std::vector<Work> works;
  const auto product_work = [&](DType type) {
    works.push_back({fmt::format("product {}", name(type)), kernels::level_of(kernels::product_of(type)),
                     [&backend, type](const Circumstances& how) { return product(backend, type, how); }});
  };
  const auto attention_work = [&](DType type) {
    works.push_back({fmt::format("attention {}", name(type)), type == DType::kF32 ? Level::kC : Level::kB,
                     [&backend, type](const Circumstances& how) { return attention(backend, type, how); }});
  };
  const auto model_work = [&](DType type, DType kv, Level level) {
    works.push_back({fmt::format("model {}, kv {}", name(type), name(kv)), level,
                     [&backend, type, kv](const Circumstances& how) { return language_model(backend, type, kv, how); }});
  };
  for (const DType type : {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIq4Nl, DType::kMxfp4,
                           DType::kMxint8, DType::kQ2K, DType::kQ3K, DType::kQ4K, DType::kQ5K, DType::kQ6K, DType::kIq4Xs,
                           DType::kBf16, DType::kBf16Lossless12, DType::kF16, DType::kF32}) {
    product_work(type);
  }
  for (const DType type : {DType::kBf16, DType::kF16, DType::kQ8_0, DType::kQ4_0, DType::kF32}) attention_work(type);
  works.push_back(
      {"norm, activations, rotation", Level::kA, [&backend](const Circumstances& how) { return row_operators(backend, how); }});
  model_work(DType::kQ4_0, DType::kBf16, Level::kA);
  model_work(DType::kQ8_0, DType::kBf16, Level::kA);
  model_work(DType::kBf16, DType::kBf16, Level::kB);
  model_work(DType::kF16, DType::kF16, Level::kB);
  model_work(DType::kF32, DType::kF32, Level::kC);

  certificate.held = {arithmetic, arithmetic, true};
  Sha256 all;
  for (std::size_t i = 0; i < works.size(); ++i) {
    const Work& work = works[i];
    if (progress != nullptr) {
      progress->update(static_cast<double>(i) / static_cast<double>(works.size()), work.name);
      if (progress->cancelled()) return Error{ErrorCode::kEnvironment, "interrupted"};
    }
    CertifyCase result{.name = work.name, .level = work.level, .expected = std::string(expected_hash(work.name)), .held = true};
    for (const Circumstances& how : kCircumstances) {
      auto outputs = work.run(how);
      if (!outputs) return outputs.error().within(work.name);
      const std::string hash = hash_of(*outputs);
      if (result.hash.empty()) result.hash = hash;
      if (hash != result.hash) {
        result.held = false;
        result.why = fmt::format("{} threads, {} rows at a time: {}", how.threads, how.batch, hash);
      }
    }
    if (result.held && result.hash != result.expected) {
      result.held = false;
      result.why = result.expected.empty() ? "no hash is recorded" : "not the hash of the contract";
    }
    all.update_values(std::span<const char>(result.hash));
    // The attention of level A's models is that of level B.
    if (!result.held) {
      certificate.held[static_cast<std::size_t>(work.level)] = false;
      if (work.level == Level::kB) certificate.held[static_cast<std::size_t>(Level::kA)] = false;
    }
    certificate.cases.push_back(std::move(result));
  }
  certificate.hash = all.hex();
  return certificate;
}

}  // namespace rooftree::engine

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/block_codec.h"
#include "kernels/backend.h"

namespace rooftree::kernels {
namespace {

const Backend& truth() { return reference_backend(); }

// Every operator runs on three workers, so that every test also checks the sharing.
template <class Body>
void run(Body body) {
  static ThreadPool pool({.threads = 3, .pin = false});
  pool.run([&](const Worker& worker) { body(worker); });
}

std::vector<std::byte> bytes_of(const std::vector<float>& values) {
  std::vector<std::byte> out(values.size() * sizeof(float));
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}

struct Packed {
  std::vector<std::byte> storage;
  PackedMatrix matrix;
};
Packed pack(DType type, std::int64_t n, std::int64_t k, const std::vector<std::byte>& rows) {
  Packed packed;
  packed.storage.resize(truth().packed_bytes(type, n, k).value());
  run([&](const Worker& w) {
    truth().pack(w, {.type = type, .n = n, .k = k, .rows = rows.data(), .out = packed.storage.data()});
  });
  packed.matrix = {.type = type, .n = n, .k = k, .data = packed.storage.data(), .bytes = packed.storage.size()};
  return packed;
}
std::vector<float> multiply(const Packed& w, const std::vector<float>& x, std::int64_t rows, const float* bias = nullptr,
                            const std::int32_t* gather = nullptr) {
  const std::int64_t k = w.matrix.k, n = w.matrix.n;
  const Product product = product_of(w.matrix.type);
  std::vector<std::byte> packed(truth().activation_bytes(product, rows, k));
  std::vector<float> y(static_cast<std::size_t>(rows * n));
  run([&](const Worker& worker) {
    truth().pack_activations(
        worker, {.product = product, .x = {x.data(), k}, .rows = rows, .k = k, .gather = gather, .out = packed.data()});
    worker.barrier();
    truth().multiply(worker, {.weight = w.matrix, .x = packed.data(), .rows = rows, .y = {y.data(), n}, .bias = bias});
  });
  return y;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, double tolerance = 1e-7) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(got[i]), expected[i], tolerance * std::max(1.0, std::fabs(expected[i]))) << "value " << i;
  }
}

TEST(ReferenceBackend, ProductsAreSumsInDouble) {
  // 2^24 + 1 - 2^24 is 1, which floats cannot hold on the way.
  const Packed w = pack(DType::kF32, 2, 3, bytes_of({16777216.0F, 1.0F, -16777216.0F, 1.0F, 2.0F, 3.0F}));
  EXPECT_EQ(multiply(w, {1, 1, 1, 0, 10, 100}, 2), (std::vector<float>{1, 6, 10 - 1677721600.0F, 320}));
  const std::vector<float> bias = {0.5F, -1.0F};
  EXPECT_EQ(multiply(w, {1, 1, 1}, 1, bias.data()), (std::vector<float>{1.5F, 5}));
  const std::vector<std::int32_t> gather = {1, 1, 0};
  EXPECT_EQ(multiply(w, {1, 1, 1, 0, 1, 0}, 3, nullptr, gather.data()), (std::vector<float>{1, 2, 1, 2, 1, 6}));
}

TEST(ReferenceBackend, EveryStoredTypeIsMultipliedAsWhatItDequantisesTo) {
  constexpr std::int64_t kN = 5, kK = 256;
  std::vector<float> values(kN * kK), x(kK);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i) * 0.37F);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::cos(static_cast<float>(i) * 0.11F) * 1.001F;
  int types = 0;
  for (const DTypeInfo& info : all_dtypes()) {
    if (info.type == DType::kBf16Lossless12 || !formats::can_quantize(info.type)) continue;
    ++types;
    const std::size_t row = formats::row_bytes(info.type, kK);
    std::vector<std::byte> rows(row * kN);
    std::vector<double> expected;
    std::vector<float> stored(kK), unpacked(kK);
    for (std::size_t o = 0; o < kN; ++o) {
      const std::span<std::byte> to(&rows[o * row], row);
      formats::quantize_row(info.type, {&values[o * kK], kK}, to);
      formats::dequantize_row(info.type, to, stored);
      double sum = 0;
      for (std::size_t k = 0; k < kK; ++k) sum += static_cast<double>(stored[k]) * static_cast<double>(x[k]);
      expected.push_back(sum);
    }
    const Packed packed = pack(info.type, kN, kK, rows);
    expect_near(multiply(packed, x, 1), expected);
    truth().unpack_row(packed.matrix, kN - 1, unpacked);
    EXPECT_EQ(unpacked, stored) << info.name;
  }
  EXPECT_GT(types, 8);
}

TEST(ReferenceBackend, LosslessBf16IsPackedFromBf16Rows) {
  const std::vector<std::uint16_t> rows = {0x3F80, 0xC000, 0x4040};  // 1, -2, 3
  std::vector<std::byte> bytes(6);
  std::memcpy(bytes.data(), rows.data(), 6);
  EXPECT_EQ(multiply(pack(DType::kBf16Lossless12, 1, 3, bytes), {1, 10, 100}, 1), (std::vector<float>{281}));
}

TEST(ReferenceBackend, RefusesWhatItCannotMultiplyByName) {
  const auto message = [](DType type, std::int64_t n, std::int64_t k) {
    const auto result = truth().packed_bytes(type, n, k);
    return result ? std::string() : result.error().message;
  };
  EXPECT_NE(message(DType::kInt4, 4, 64).find("int4"), std::string::npos);
  EXPECT_NE(message(DType::kQ4_0, 4, 40).find("4 x 40"), std::string::npos);
  EXPECT_NE(message(DType::kF32, 0, 4).find("0 x 4"), std::string::npos);
  EXPECT_NE(message(DType::kF32, 4, 0).find("4 x 0"), std::string::npos);
  EXPECT_EQ(message(DType::kF32, 4, 1), "");
}

TEST(ReferenceBackend, GroupsMultiplyTheirOwnRows) {
  const Packed a = pack(DType::kF32, 2, 1, bytes_of({1, 2})), b = pack(DType::kF32, 2, 1, bytes_of({10, 20}));
  const std::vector<float> xa = {3}, xb = {4, 5};  // the packed form of floats is floats
  std::vector<float> y(6, -1.0F);
  run([&](const Worker& w) {
    const std::vector<MultiplyArgs> groups = {
        {.weight = a.matrix, .x = reinterpret_cast<const std::byte*>(xa.data()), .rows = 1, .y = {y.data(), 2}},
        {.weight = b.matrix, .x = nullptr, .rows = 0, .y = {nullptr, 2}},
        {.weight = b.matrix, .x = reinterpret_cast<const std::byte*>(xb.data()), .rows = 2, .y = {y.data() + 2, 2}}};
    truth().multiply_grouped(w, groups);
  });
  EXPECT_EQ(y, (std::vector<float>{3, 6, 40, 80, 50, 100}));
}

TEST(ReferenceBackend, EmbedScalesTableRows) {
  const Packed table = pack(DType::kF32, 3, 2, bytes_of({1, 2, 3, 4, 5, 6}));
  const std::vector<std::int32_t> ids = {2, 0};
  std::vector<float> y(4);
  run([&](const Worker& w) { truth().embed(w, {.table = table.matrix, .ids = ids, .y = {y.data(), 2}, .scale = 0.5F}); });
  EXPECT_EQ(y, (std::vector<float>{2.5F, 3, 0.5F, 1}));
}

TEST(ReferenceBackend, Norms) {
  const std::vector<float> x = {1, 2, 3, 4, 0, 0, 0, 0}, delta = {1, 1, 1, 1, 2, 4, 6, 8}, weight = {1, 1, 2, 1},
                           bias = {0, 0, 0, 1};
  std::vector<float> y(8), sum(8);
  NormArgs args{.kind = model::NormKind::kRms,
                .rows = 2,
                .width = 4,
                .x = {x.data(), 4},
                .weight = weight.data(),
                .bias = bias.data(),
                .y = {y.data(), 4}};
  run([&](const Worker& w) { truth().norm(w, args); });
  const double rms = std::sqrt(30.0 / 4);
  EXPECT_TRUE(std::isnan(y[4])) << "0 / 0 without an epsilon";
  y.resize(4);
  expect_near(y, {1 / rms, 2 / rms, 6 / rms, 4 / rms + 1});

  y.resize(8);
  args = {.kind = model::NormKind::kLayer,
          .rows = 2,
          .width = 4,
          .x = {x.data(), 4},
          .delta = {delta.data(), 4},
          .delta_scale = 0.5F,
          .sum = {sum.data(), 4},
          .epsilon = 0.25F,
          .y = {y.data(), 4}};
  run([&](const Worker& w) { truth().norm(w, args); });
  expect_near(sum, {1.5, 2.5, 3.5, 4.5, 1, 2, 3, 4});
  const double deviation = std::sqrt(1.25 + 0.25);
  expect_near(y, {-1.5 / deviation, -0.5 / deviation, 0.5 / deviation, 1.5 / deviation, -1.5 / deviation, -0.5 / deviation,
                  0.5 / deviation, 1.5 / deviation});
}

TEST(ReferenceBackend, Rotations) {
  model::Rope rope{.dims = 4,
                   .offset = 1,
                   .pairing = model::RopePairing::kNeighbours,
                   .inverse_frequencies = {std::numbers::pi / 2, std::numbers::pi / 6},
                   .magnitude = 2.0F};
  const std::vector<std::int32_t> positions = {1, 0};
  const std::vector<float> before = {9, 1, 2, 3, 4, 8};
  const auto rotated = [&] {
    std::vector<float> x = before;
    x.insert(x.end(), before.begin(), before.end());
    run([&](const Worker& w) {
      truth().rope(w, {.rope = &rope, .rows = 2, .heads = 1, .head_dim = 6, .x = {x.data(), 6}, .positions = positions});
    });
    return x;
  };
  const double c = std::cos(std::numbers::pi / 6), s = 0.5;
  expect_near(rotated(), {9, -4, 2, 2 * (3 * c - 4 * s), 2 * (3 * s + 4 * c), 8, 9, 2, 4, 6, 8, 8});
  rope.pairing = model::RopePairing::kHalves;  // (1, 3) and (2, 4)
  expect_near(rotated(), {9, -6, 2 * (2 * c - 4 * s), 2, 2 * (2 * s + 4 * c), 8, 9, 2, 4, 6, 8, 8});
}

TEST(ReferenceBackend, Activations) {
  const auto f = [](model::Activation activation, float x, const float* up = nullptr) {
    float y = 0;
    run([&](const Worker& w) {
      truth().activation(w, {.activation = activation, .rows = 1, .width = 1, .x = {&x, 1}, .up = {up, 1}, .y = {&y, 1}});
    });
    return static_cast<double>(y);
  };
  const float three = 3.0F, hundred = 100.0F;
  EXPECT_NEAR(f(model::Activation::kSilu, 1), 0.7310585786300049, 1e-7);
  EXPECT_NEAR(f(model::Activation::kSilu, -200), 0, 1e-7);
  EXPECT_NEAR(f(model::Activation::kSilu, 1, &three), 3 * 0.7310585786300049, 1e-6);
  EXPECT_NEAR(f(model::Activation::kGelu, 1), 0.8413447460685429, 1e-7);      // the normal distribution's value
  EXPECT_NEAR(f(model::Activation::kGeluTanh, 1), 0.8411919906082768, 1e-7);  // and its approximation by tanh
  EXPECT_EQ(f(model::Activation::kRelu, -1), 0);
  EXPECT_EQ(f(model::Activation::kReluSquared, 3), 9);
  EXPECT_NEAR(f(model::Activation::kSwigluClamped, 1, &three), 4 / (1 + std::exp(-1.702)), 1e-6);
  EXPECT_NEAR(f(model::Activation::kSwigluClamped, 50, &hundred), 7 * 8 / (1 + std::exp(-1.702 * 7)), 1e-5);
}

TEST(ReferenceBackend, SumsAndScales) {
  const std::vector<float> a = {1, 2}, b = {10, 20}, c = {100, 200}, gate = {0};
  std::vector<float> y(2);
  run([&](const Worker& w) {
    truth().add(w, {.rows = 1, .width = 2, .a = {a.data(), 2}, .b = {b.data(), 2}, .y = {y.data(), 2}});
  });
  EXPECT_EQ(y, (std::vector<float>{11, 22}));
  run([&](const Worker& w) {
    truth().add(w, {.rows = 1,
                    .width = 2,
                    .a = {a.data(), 2},
                    .b = {b.data(), 2},
                    .c = {c.data(), 2},
                    .gate = {gate.data(), 1},
                    .b_scale = 3.0F,
                    .y = {y.data(), 2}});
  });
  EXPECT_EQ(y, (std::vector<float>{116, 232}));
  std::vector<float> x = {1, -1000};
  run([&](const Worker& w) { truth().scale(w, {.rows = 1, .width = 2, .x = {x.data(), 2}, .scale = 2, .softcap = 4}); });
  expect_near(x, {4 * std::tanh(0.5), -4});
  run([&](const Worker& w) { truth().scale(w, {.rows = 1, .width = 2, .x = {x.data(), 2}, .scale = 0.5F}); });
  expect_near(x, {2 * std::tanh(0.5), -2});

  const std::vector<float> experts = {1, 2, 10, 20, 100, 200, 1000, 2000}, weights = {0.5F, 1, 2, 0.25F};
  const std::vector<std::int32_t> where = {3, 0, 1, 2};
  std::vector<float> combined(4);
  run([&](const Worker& w) {
    truth().combine(w, {.rows = 2,
                        .width = 2,
                        .top_k = 2,
                        .x = {experts.data(), 2},
                        .where = where.data(),
                        .weights = weights.data(),
                        .y = {combined.data(), 2}});
  });
  EXPECT_EQ(combined, (std::vector<float>{501, 1002, 45, 90}));
}

struct Routed {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
};
Routed route(const model::Routing& routing, const std::vector<float>& logits, std::int64_t top_k, const float* bias = nullptr) {
  Routed result{std::vector<std::int32_t>(static_cast<std::size_t>(top_k)),
                std::vector<float>(static_cast<std::size_t>(top_k))};
  const auto experts = static_cast<std::int64_t>(logits.size());
  run([&](const Worker& w) {
    truth().route(w, {.routing = &routing,
                      .rows = 1,
                      .experts = experts,
                      .top_k = top_k,
                      .logits = {logits.data(), experts},
                      .selection_bias = bias,
                      .chosen = result.chosen.data(),
                      .weights = result.weights.data()});
  });
  return result;
}

TEST(ReferenceBackend, Routing) {
  const float l2 = std::log(2.0F);
  const std::vector<float> logits = {0, 2 * l2, l2, 2 * l2};  // 1 : 4 : 2 : 4
  Routed r = route({}, logits, 3);
  EXPECT_EQ(r.chosen, (std::vector<std::int32_t>{1, 3, 2})) << "the lower of equals first";
  expect_near(r.weights, {4.0 / 11, 4.0 / 11, 2.0 / 11});
  r = route({.normalise = true, .weight_scale = 5}, logits, 3);
  expect_near(r.weights, {2, 2, 1}, 1e-6);
  r = route({.softmax_over_chosen = true}, logits, 2);
  expect_near(r.weights, {0.5, 0.5});
  // The bias decides, the weights do not see it.
  const std::vector<float> bias = {3, 0, 0, 0};
  r = route({.scoring = model::RouteScoring::kSigmoid, .selection_bias = true}, logits, 2, bias.data());
  EXPECT_EQ(r.chosen, (std::vector<std::int32_t>{0, 1}));
  expect_near(r.weights, {0.5, 0.8});
  // Groups {0, 1} and {2, 3}: by the best member the second wins, by the two best of sigmoid scores the first.
  const std::vector<float> groups = {2, 2, 3, -9};
  EXPECT_EQ(route({.groups = 2, .chosen_groups = 1}, groups, 2).chosen, (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(route({.scoring = model::RouteScoring::kSigmoid, .groups = 2, .chosen_groups = 1}, groups, 2).chosen,
            (std::vector<std::int32_t>{0, 1}));
}

// ---- attention: one key-value head of one key and one value; keys are 0 unless said, so that all scores are equal.

struct Attended {
  std::vector<float> keys, values;  // by position
  std::vector<float> queries;       // of the last positions
  std::int64_t heads = 1;
  AttentionArgs args;
};
// Pages of 2 positions, the last page first in memory. Written in chunks of `chunk`, each chunk attended when it is there.
std::vector<float> attend(const Attended& a, std::int64_t chunk = 1000) {
  const auto total = static_cast<std::int64_t>(a.keys.size());
  const KvShape shape{.type = DType::kQ8_0, .kv_heads = 1, .head_dim = 1, .value_dim = 1, .page_tokens = 2};
  const std::int64_t pages = (total + 1) / 2;
  const std::size_t stride = truth().kv_page_bytes(shape) + 64;
  std::vector<std::byte> storage(stride * static_cast<std::size_t>(pages));
  std::vector<std::int32_t> table;
  for (std::int64_t p = pages; p-- > 0;) table.push_back(static_cast<std::int32_t>(p));
  const KvCache cache{shape, storage.data(), stride};
  std::vector<float> y(a.queries.size());
  const auto queries = static_cast<std::int64_t>(a.queries.size()) / a.heads, first_query = total - queries;
  for (std::int64_t begin = 0; begin < total; begin += chunk) {
    const std::int64_t rows = std::min(chunk, total - begin);
    const std::vector<SequenceRows> sequence = {{.first_row = 0, .rows = rows, .past = begin, .pages = table.data()}};
    std::vector<float> q(static_cast<std::size_t>(rows * a.heads)), out(q.size());
    for (std::int64_t i = 0; i < rows * a.heads; ++i) {
      const std::int64_t at = (begin - first_query) * a.heads + i;
      if (at >= 0) q[static_cast<std::size_t>(i)] = a.queries[static_cast<std::size_t>(at)];
    }
    run([&](const Worker& w) {
      truth().kv_write(w, {.cache = cache,
                           .sequences = sequence,
                           .k = {&a.keys[static_cast<std::size_t>(begin)], 1},
                           .v = {&a.values[static_cast<std::size_t>(begin)], 1}});
      w.barrier();
      AttentionArgs args = a.args;
      args.cache = cache;
      args.sequences = sequence;
      args.heads = a.heads;
      args.q = {q.data(), a.heads};
      args.y = {out.data(), a.heads};
      truth().attention(w, args);
    });
    for (std::int64_t i = 0; i < rows * a.heads; ++i) {
      const std::int64_t at = (begin - first_query) * a.heads + i;
      if (at >= 0) y[static_cast<std::size_t>(at)] = out[static_cast<std::size_t>(i)];
    }
  }
  return y;
}

TEST(ReferenceBackend, AttentionIsTheWeightedMeanOfWhatARowSees) {
  Attended a{.keys = {0, 0, 0, 0, 0}, .values = {1, 2, 3, 4, 5}, .queries = {1, 1, 1, 1, 1}};
  expect_near(attend(a), {1, 1.5, 2, 2.5, 3});
  a.args.window = 2;
  expect_near(attend(a), {1, 1.5, 2.5, 3.5, 4.5});
  a.args.window = 0;
  a.args.causal = false;
  expect_near(attend(a), {3, 3, 3, 3, 3});
}

TEST(ReferenceBackend, AttentionScoresAreScaledAndExponentiated) {
  const float l2 = std::log(2.0F);
  Attended a{.keys = {0, 1, 2}, .values = {7, 14, 21}, .queries = {2 * l2}};
  a.args.scale = 0.5F;  // 1 : 2 : 4
  expect_near(attend(a), {(7 + 28 + 84) / 7.0}, 1e-6);
  // Far beyond what a float's exponential holds.
  a.queries = {1000};
  expect_near(attend(a), {21});
  // Two heads share one key-value head.
  a.heads = 2;
  a.queries = {0, 1000};
  expect_near(attend(a), {14, 21});
}

TEST(ReferenceBackend, ChunksGiveTheSameBits) {
  Attended a;
  for (int i = 0; i < 23; ++i) {
    a.keys.push_back(std::sin(static_cast<float>(i)));
    a.values.push_back(std::cos(static_cast<float>(3 * i)));
    a.queries.push_back(static_cast<float>(i % 5));
  }
  const std::vector<float> whole = attend(a);
  EXPECT_EQ(attend(a, 1), whole);
  EXPECT_EQ(attend(a, 7), whole);
}

TEST(ReferenceBackend, SinksTakePartOfTheSum) {
  Attended a{.keys = {0, 0}, .values = {3, 6}, .queries = {1}};
  const float sink = 0.0F, huge = 1e4F;
  a.args.sinks = &sink;
  expect_near(attend(a), {3});
  a.args.sinks = &huge;
  expect_near(attend(a), {0});
}

TEST(ReferenceBackend, ScoreModifiers) {
  Attended a{.keys = {100, 0}, .values = {0, 1}, .queries = {1}};
  a.args.modifier = {.kind = ScoreModifier::Kind::kSoftcap, .softcap = 2};
  expect_near(attend(a), {1 / (1 + std::exp(2.0))});

  a.keys = {0, 0};
  const float slope = std::log(3.0F);
  a.args.modifier = {.kind = ScoreModifier::Kind::kAlibi, .slopes = &slope};
  expect_near(attend(a), {0.75});  // the position before weighs a third

  a = {.keys = {0, 0, 0, 0}, .values = {1, 2, 4, 8}, .queries = {1, 1, 1, 1}};
  const std::vector<std::int32_t> documents = {0, 0, 1, 1};
  a.args.modifier = {.kind = ScoreModifier::Kind::kDocumentMask, .documents = documents.data()};
  expect_near(attend(a), {1, 1.5, 4, 6});
}

// Buckets of transformers' T5 (32 buckets, 128 positions), by the bias that each key gets.
TEST(ReferenceBackend, RelativePositionBuckets) {
  std::vector<float> bias(32);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i) * 0.25F;
  const auto bucket = [&](bool bidirectional, std::int64_t query, std::int64_t key) {
    // One value stands out of values of zero; relative to the query's own weight, in bucket 0, its weight is exp(bias).
    Attended a;
    const std::int64_t total = std::max(query, key) + 1;
    a.keys.assign(static_cast<std::size_t>(total), 0.0F);
    a.values.assign(static_cast<std::size_t>(total), 0.0F);
    a.queries.assign(static_cast<std::size_t>(total), 0.0F);
    a.args.causal = false;
    a.args.modifier = {.kind = ScoreModifier::Kind::kRelativeBias,
                       .bias = bias.data(),
                       .buckets = 32,
                       .max_distance = 128,
                       .bidirectional = bidirectional};
    a.values[static_cast<std::size_t>(key)] = 1;
    const double at_key = static_cast<double>(attend(a)[static_cast<std::size_t>(query)]);
    a.values[static_cast<std::size_t>(key)] = 0;
    a.values[static_cast<std::size_t>(query)] = 1;
    const double at_query = static_cast<double>(attend(a)[static_cast<std::size_t>(query)]);
    return std::lround(std::log(at_key / at_query) / 0.25);
  };
  EXPECT_EQ(bucket(true, 5, 6), 17);
  EXPECT_EQ(bucket(true, 5, 4), 1);
  EXPECT_EQ(bucket(true, 0, 8), 24);
  EXPECT_EQ(bucket(true, 20, 0), 10);  // 8 + floor(8 log(20/8) / log 16)
  EXPECT_EQ(bucket(true, 0, 127), 31);
  EXPECT_EQ(bucket(true, 200, 0), 15);
  EXPECT_EQ(bucket(false, 5, 9), 0);
  EXPECT_EQ(bucket(false, 15, 0), 15);
  EXPECT_EQ(bucket(false, 32, 0), 21);  // 16 + floor(16 log 2 / log 8)
  EXPECT_EQ(bucket(false, 500, 0), 31);
}

}  // namespace
}  // namespace rooftree::kernels

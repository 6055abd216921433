#include "cost/estimate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

#include "cost/test_machines.h"

// allocations_test.cc: every operator new of the test program.
long allocation_count();

namespace rooftree::cost {
namespace {

using namespace literals;  // NOLINT(google-build-using-namespace)
using model::Role;
using test::gpu;
using test::set_rate;
using test::sram_chip;
constexpr std::size_t at(Role role) { return static_cast<std::size_t>(role); }

struct Shape {
  double layers = 32, hidden = 4096, kv = 1024, ffn = 14336, vocabulary = 128256;
};

// A decoder with the operators of an engine: q,k,v in one product, gate and up in one.
model::Graph decoder(const Shape& s, std::int64_t batch, std::int64_t tokens, std::int64_t past) {
  const auto i = [](double v) { return static_cast<std::int64_t>(v); };
  const std::int64_t rows = batch * tokens;
  const auto matmul = [&](double n, double k, const char* name) {
    return model::Node{.op = model::MatMul{.m = rows, .n = i(n), .k = i(k)}, .name = name};
  };
  model::Graph g;
  g.name = "decoder";
  g.sequences = batch;
  g.tokens_processed = rows;
  model::Block embedding{.name = "embedding"};
  embedding.nodes.push_back({.op = model::Embedding{.tokens = rows, .width = i(s.hidden), .vocabulary = i(s.vocabulary)}});
  model::Block layer{.name = "layer", .repeat = i(s.layers)};
  layer.nodes.push_back({.op = model::Norm{.rows = rows, .width = i(s.hidden), .residual = true}, .name = "norm"});
  layer.nodes.push_back(matmul(s.hidden + 2 * s.kv, s.hidden, "qkv"));
  layer.nodes.push_back({.op = model::CacheWrite{.tokens = rows, .width = i(2 * s.kv)}, .name = "cache_write"});
  layer.nodes.push_back({.op = model::Attention{.batch = batch,
                                                .q_tokens = tokens,
                                                .kv_tokens = past + tokens,
                                                .heads = i(s.hidden / 128),
                                                .kv_heads = i(s.kv / 128),
                                                .head_dim = 128,
                                                .value_dim = 128},
                         .name = "attention"});
  layer.nodes.push_back(matmul(s.hidden, s.hidden, "o"));
  layer.nodes.push_back({.op = model::Norm{.rows = rows, .width = i(s.hidden), .residual = true}, .name = "norm"});
  layer.nodes.push_back(matmul(2 * s.ffn, s.hidden, "gate_up"));
  layer.nodes.push_back(
      {.op = model::Elementwise{.rows = rows, .width = i(s.ffn), .kind = model::ElementwiseKind::kGatedActivation, .inputs = 2},
       .name = "silu"});
  layer.nodes.push_back(matmul(s.hidden, s.ffn, "down"));
  model::Block head{.name = "head"};
  head.nodes.push_back({.op = model::MatMul{.m = batch, .n = i(s.vocabulary), .k = i(s.hidden)}, .name = "lm_head"});
  g.blocks = {embedding, layer, head};
  const double layer_weights = s.hidden * (s.hidden + 2 * s.kv) + s.hidden * s.hidden + 3 * s.hidden * s.ffn + 2 * s.hidden;
  g.footprint.weights = 2 * s.vocabulary * s.hidden + s.layers * layer_weights;
  g.footprint.weights_touched = s.vocabulary * s.hidden + s.layers * layer_weights;
  g.footprint.kv_cache = static_cast<double>(batch * (past + tokens)) * 2 * s.kv * s.layers;
  g.footprint.activations_live = static_cast<double>(rows) * (2 * s.hidden + 3 * s.ffn);
  g.footprint.logits = static_cast<double>(batch) * s.vocabulary;
  return g;
}

// One product with a weight, nothing else.
model::Graph product(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t repeat = 1) {
  model::Graph g;
  g.blocks.push_back({.name = "layer", .repeat = repeat, .nodes = {{.op = model::MatMul{.m = m, .n = n, .k = k}}}});
  g.sequences = g.tokens_processed = m;
  g.footprint.weights = g.footprint.weights_touched = static_cast<double>(n * k * repeat);
  g.footprint.activations_live = static_cast<double>(m * (n + k));
  return g;
}

Estimate ideal(const machine::Machine& m, const model::Graph& g, const Plan& plan = {}) {
  return Estimator(m, CalibrationTable::datasheet(m.chip()), plan).estimate(g);
}
Estimate predicted(const machine::Machine& m, const model::Graph& g, const Plan& plan = {}) {
  return Estimator(m, CalibrationTable::builtin(), plan).estimate(g);
}

TEST(Estimate, BatchOneIsWeightBytesOverBandwidth) {
  const model::Graph g = product(1, 8192, 8192, 80);
  const Estimate e = ideal(gpu(), g);
  const double weights = 80.0 * 8192 * 8192 * 2;
  const double activations = 80.0 * 2 * 8192 * 2;  // at the pace of main memory in the datasheet roofline
  EXPECT_NEAR(e.time.best.value(), (weights + activations) / 2e12, 1e-12);
  EXPECT_EQ(e.bound, Bound::kMemory);
  EXPECT_EQ(e.regime, Regime::kWeightsInMemory);
  EXPECT_NEAR(e.bytes_dram.value(), weights, 1);  // activations stay in L2
  EXPECT_NEAR(e.bytes_on_chip.value(), activations, 1);
  EXPECT_NEAR(e.intensity.value(), 1.0, 1e-9);
  EXPECT_NEAR(e.ridge.value(), 200, 1e-9);
}

TEST(Estimate, LargeBatchIsFlopOverPeak) {
  const model::Graph g = product(8192, 8192, 8192, 4);
  const Estimate e = ideal(gpu(), g);
  EXPECT_NEAR(e.time.best.value(), 4 * 2.0 * 8192 * 8192 * 8192 / 400e12, 1e-12);
  EXPECT_EQ(e.bound, Bound::kCompute);
  EXPECT_NEAR(e.utilisation_compute, 1, 1e-9);
}

TEST(Estimate, CalibratedTimeLiesAboveTheRoofAndInsideItsInterval) {
  for (const std::int64_t batch : {1, 8, 64, 512}) {
    for (const std::int64_t tokens : {1, 512}) {
      const model::Graph g = decoder({}, batch, tokens, 1024);
      const Estimate e = predicted(gpu(), g);
      const Estimate roof = ideal(gpu(), g);
      EXPECT_LE(e.time.low, e.time.best);
      EXPECT_LE(e.time.best, e.time.high);
      EXPECT_GE(e.time.low, e.roof_time);
      EXPECT_GT(e.time.best, e.roof_time);
      EXPECT_LT(e.time.low, e.time.best);
      // The activations of the datasheet roofline come from main memory, those of the roof from L2 where they fit.
      EXPECT_LE(e.roof_time.value(), roof.time.best.value() * (1 + 1e-12));
      EXPECT_LE(e.utilisation_compute, 1);
      EXPECT_LE(e.utilisation_dram, 1);
    }
  }
}

TEST(Estimate, OperatorsAddUpToTotals) {
  for (const Stack stack : {Stack::kEngine, Stack::kEager, Stack::kMegatron, Stack::kLlamaCpp}) {
    Plan plan;
    plan.stack = stack;
    const Estimate e = predicted(gpu(), decoder({}, 4, 1, 2000), plan);
    double time = 0, flop = 0, dram = 0, chip = 0, bounds = 0, memory = 0;
    for (const OperatorEstimate& line : e.operators) {
      time += line.time.value();
      flop += line.flop.value();
      dram += line.bytes_dram.value();
      chip += line.bytes_on_chip.value();
    }
    for (const Seconds s : e.time_by_bound) bounds += s.value();
    for (const Bytes b : e.memory.by_role) memory += b.value();
    const double total = e.time.best.value();
    EXPECT_NEAR(time + e.host_time.value() + e.transfer_time.value(), total, 1e-9 * total);
    EXPECT_NEAR(bounds, total, 1e-9 * total);
    EXPECT_NEAR(flop, e.flop.value(), 1e-9 * flop);
    EXPECT_NEAR(dram, e.bytes_dram.value(), 1e-9 * dram);
    EXPECT_NEAR(chip, e.bytes_on_chip.value(), 1e-9 * chip);
    EXPECT_NEAR(memory, e.memory.total.value(), 1e-9 * memory);
    EXPECT_EQ(e.operators.size(), 11U);
    EXPECT_NEAR(e.kernels, 1 + 32 * 9 + 1, 1e-9);
    EXPECT_NEAR(e.tokens_per_second * total, 4, 1e-9);
  }
}

TEST(Estimate, EagerStackWaitsForItsLaunches) {
  Plan eager;
  eager.stack = Stack::kEager;
  ChipCalibration c = CalibrationTable::datasheet(gpu().chip());
  c.host[static_cast<std::size_t>(Stack::kEager)].per_kernel = 1.0;  // a second per launch hides every kernel
  const Estimate e = Estimator(gpu(), c, eager).estimate(decoder({}, 1, 1, 100));
  EXPECT_NEAR(e.time.best.value(), 1 + 32 * 9 + 1, 1e-6);
  EXPECT_EQ(e.bound, Bound::kHost);
}

TEST(Estimate, SpillToHostTakesTheLinksTime) {
  // 200 GB of weights on an 80 GB chip: the rest crosses the link every step.
  const model::Graph g = product(1, 10000, 10000, 1000);
  const machine::Machine m = gpu();
  const Estimate e = ideal(m, g);
  EXPECT_EQ(e.regime, Regime::kWeightsFromHost);
  EXPECT_FALSE(e.memory.fits);
  const double needed = 1000 * 1e8 * 2 + 20000 * 2 + 4;
  const double spilled = needed - 80e9 * 0.95;
  const double link = 50e9 * kHostLinkShare;
  // All but the first layer's transfer overlaps with computation.
  EXPECT_NEAR(e.time.best.value(), spilled / link * (1 + 1.0 / 1000), 1e-6 * spilled / link);
  EXPECT_NEAR(e.bytes_host_link.value(), spilled, 1);
  EXPECT_EQ(e.bound, Bound::kHostLink);
  EXPECT_GE(e.time.low.value(), spilled / 50e9 * (1 - 1e-9));
  EXPECT_NEAR(-e.memory.headroom().value(), spilled, 1);
}

TEST(Estimate, SpillToDiskTakesTheDisksTime) {
  machine::Machine m = gpu();
  m.root.host.memory_capacity = 1_GiB;
  const model::Graph g = product(1, 10000, 10000, 1000);
  const Estimate e = ideal(m, g);
  EXPECT_EQ(e.regime, Regime::kWeightsFromDisk);
  const double on_disk = 1000 * 1e8 * 2 + 20000 * 2 + 4 - 80e9 * 0.95 - 1073741824.0;
  EXPECT_NEAR(e.bytes_disk.value(), on_disk, 1);
  EXPECT_NEAR(e.time.best.value(), on_disk / 5e9 * (1 + 1.0 / 1000), 1e-6 * on_disk / 5e9);
  EXPECT_EQ(e.bound, Bound::kDisk);
}

TEST(Estimate, WithoutHostAndDiskItDoesNotFit) {
  machine::Machine m = gpu();
  m.root.host = {};
  m.chip().host_link_per_direction = {};
  const model::Graph g = product(1, 10000, 10000, 1000);
  const Estimator estimator(m, CalibrationTable::datasheet(m.chip()), {});
  const Estimate e = estimator.estimate(g);
  EXPECT_EQ(e.regime, Regime::kDoesNotFit);
  EXPECT_NEAR(e.time.best.value(), (1000 * 1e8 * 2 + 1000 * 20000 * 2) / 2e12, 1e-9);
  bool said = false;
  for (const std::string& line : estimator.explain(g, e)) said = said || line.find("needs 115.5 GiB more") != std::string::npos;
  EXPECT_TRUE(said);
}

TEST(Estimate, SaysHowManyChipsHoldIt) {
  // 141.8 GB of a 70B model in bf16 over 0.95 * 0.23 GB per chip.
  const machine::Machine m = sram_chip();
  const model::Graph g = decoder({80, 8192, 1024, 28672, 128256}, 1, 1, 2047);
  const Estimator estimator(m, CalibrationTable::datasheet(m.chip()), {});
  const Estimate e = estimator.estimate(g);
  const double chips = std::ceil(e.memory.total.value() / (0.23e9 * 0.95));
  EXPECT_NEAR(chips, 649, 1);
  bool said = false;
  for (const std::string& line : estimator.explain(g, e)) {
    said = said || line.find(std::to_string(static_cast<int>(chips)) + " such chips") != std::string::npos;
  }
  EXPECT_TRUE(said);
}

TEST(Estimate, UnknownHostMemoryIsTakenAsEnoughAndSaid) {
  machine::Machine m = gpu();
  m.root.host = {};
  const model::Graph g = product(1, 10000, 10000, 1000);
  const Estimator estimator(m, CalibrationTable::datasheet(m.chip()), {});
  const Estimate e = estimator.estimate(g);
  EXPECT_EQ(e.regime, Regime::kWeightsFromHost);
  bool said = false;
  for (const std::string& line : estimator.explain(g, e)) said = said || line.find("not known") != std::string::npos;
  EXPECT_TRUE(said);
}

TEST(Estimate, ActivationsDoNotSpill) {
  model::Graph g = product(1, 1000, 1000);
  g.footprint.activations_saved = 100e9;
  EXPECT_EQ(ideal(gpu(), g).regime, Regime::kDoesNotFit);
}

TEST(Estimate, WeightsOnChipStreamAtTheSramsPace) {
  const machine::Machine m = sram_chip();
  const model::Graph g = product(1, 4096, 4096, 6);  // 201 MB of weights
  const Estimate e = ideal(m, g);
  EXPECT_EQ(e.regime, Regime::kWeightsOnChip);
  EXPECT_NEAR(e.time.best.value(), 6 * (4096.0 * 4096 + 2 * 4096) * 2 / 80e12, 1e-12);
  EXPECT_TRUE(e.memory.fits);
}

TEST(Estimate, SmallModelLivesInTheCacheAndALargerOneDoesNot) {
  const machine::Machine m = gpu();
  const Estimate small = ideal(m, product(1, 1024, 1024, 14));  // 29.4 MB of 30 MB usable
  EXPECT_EQ(small.regime, Regime::kWeightsOnChip);
  EXPECT_EQ(small.placement[at(Role::kWeight)].level, "L2");
  EXPECT_NEAR(small.time.best.value(), 14 * (1024.0 * 1024 + 2 * 1024) * 2 / 8e12, 1e-12);
  EXPECT_EQ(small.bytes_dram.value(), 0);
  EXPECT_EQ(small.intensity.value(), 0);
  EXPECT_EQ(small.bound, Bound::kOnChip);
  const Estimate large = ideal(m, product(1, 1024, 1024, 15));  // 31.5 MB: a cyclic stream through a cache has no hits
  EXPECT_EQ(large.regime, Regime::kWeightsInMemory);
  EXPECT_NEAR(large.bytes_dram.value(), 15 * 1024.0 * 1024 * 2, 1);
}

TEST(Estimate, PinnedLevelsKeepAShareOfTheWeights) {
  machine::Machine m = gpu();
  m.chip().kind = machine::ChipKind::kDataflow;
  m.chip().ladder.erase(m.chip().ladder.begin());
  m.chip().ladder[0].managed = true;
  Plan plan;
  plan.memory_reserve = 0;
  const model::Graph g = product(1, 1000, 1000, 50);  // 100 MB of weights, 4 kB of activations, 40 MB of SRAM
  const Estimate e = ideal(m, g, plan);
  const Placement& weights = e.placement[at(Role::kWeight)];
  EXPECT_NEAR(weights.share_on_chip, (40e6 - 4000) / 100e6, 1e-9);
  EXPECT_EQ(weights.level, "HBM");
  EXPECT_NEAR(e.bytes_on_chip.value(), 40e6 - 4000 + 50 * 4000, 1);
}

TEST(Estimate, MemoryOfALlama70B) {
  // 70.55 billion parameters in bf16, as in the catalogue.
  const model::Graph g = decoder({80, 8192, 1024, 28672, 128256}, 1, 1, 2047);
  const Estimate e = ideal(gpu(), g);
  EXPECT_NEAR(e.memory.by_role[at(Role::kWeight)].value(), 141.1e9, 0.05e9);
  EXPECT_NEAR(e.memory.by_role[at(Role::kKvCache)].value(), 2048.0 * 2 * 1024 * 80 * 2, 1);
  EXPECT_FALSE(e.memory.fits);
  Plan int4;
  int4.set_type(Role::kWeight, DType::kInt4);
  const Estimate quantised = ideal(gpu(), g, int4);
  EXPECT_NEAR(quantised.memory.by_role[at(Role::kWeight)].value(), 70.55e9 * 4.125 / 8, 0.03e9);
  EXPECT_TRUE(quantised.memory.fits);
}

TEST(Estimate, TheCataloguesLlama70BIs141GB) {
  const Result<model::Model> m = model::ModelCatalog::builtin().find("llama-3.1-70b");
  ASSERT_TRUE(m.has_value());
  const Estimate e = ideal(gpu(), m->build(model::Phase::decode(1, 2048)).value());
  EXPECT_NEAR(e.memory.by_role[at(Role::kWeight)].value(), 141.1e9, 0.05e9);
}

// One path for everything: images and recommendations count samples, and every catalogue model has a finite time.
TEST(Estimate, EveryModelOfTheCatalogueInEveryPhase) {
  const model::ModelCatalog& catalog = model::ModelCatalog::builtin();
  int built = 0;
  for (const model::ModelEntry& entry : catalog.entries()) {
    const Result<model::Model> m = catalog.find(entry.id);
    ASSERT_TRUE(m.has_value()) << entry.id;
    for (const model::Phase& phase :
         {model::Phase::prefill(2, 128), model::Phase::decode(2, 512), model::Phase::train(2, 128)}) {
      const Result<model::Graph> g = m->build(phase);
      if (!g) continue;
      ++built;
      const Estimate e = predicted(gpu(), *g);
      SCOPED_TRACE(entry.id);
      EXPECT_TRUE(std::isfinite(e.time.best.value()));
      EXPECT_GT(e.time.best, e.roof_time);
      EXPECT_GE(e.time.low.value(), e.roof_time.value() * (1 - 1e-9));
      EXPECT_LE(e.utilisation_compute, 1);
      EXPECT_LE(e.utilisation_dram, 1);
      EXPECT_GT(e.tokens_per_second, 0);
    }
  }
  EXPECT_GT(built, 200);
  const Estimate images = predicted(gpu(), catalog.find("resnet-50").value().build(model::Phase::prefill(32, 1)).value());
  EXPECT_EQ(images.tokens, 32);
  // 4.1 G multiply-adds per image (He et al., 2016).
  EXPECT_NEAR(images.flop.value() / 32, 2 * 4.1e9, 0.1 * 8.2e9);
  // Scheduling and sampling belong to sequences that generate: images pay for the gaps between kernels only.
  const Estimate few = predicted(gpu(), catalog.find("resnet-50").value().build(model::Phase::prefill(1, 1)).value());
  EXPECT_DOUBLE_EQ(images.host_time.value(), few.host_time.value());
  const Estimate one = predicted(gpu(), catalog.find("llama-3.2-1b").value().build(model::Phase::decode(1, 128)).value());
  const Estimate many = predicted(gpu(), catalog.find("llama-3.2-1b").value().build(model::Phase::decode(101, 128)).value());
  EXPECT_GT(many.host_time, one.host_time);
}

TEST(Estimate, AdamTakes16To18BytesPerParameter) {
  model::Graph g = product(16, 4096, 4096);
  const double n = 4096.0 * 4096;
  const model::OptimizerStep step{.parameters = n, .rows = 4096, .columns = 4096};
  g.footprint.gradients = n;
  g.footprint.optimizer_state_bytes = n * model::optimizer_state_bytes_per_parameter(step, true);
  const auto state = [&](const Plan& plan) {
    const Estimate e = ideal(gpu(), g, plan);
    return (e.memory.by_role[at(Role::kWeight)] + e.memory.by_role[at(Role::kGradient)] +
            e.memory.by_role[at(Role::kOptimizerState)])
               .value() /
           n;
  };
  Plan plan;
  EXPECT_NEAR(state(plan), 16, 1e-9);
  plan.set_type(Role::kGradient, DType::kF32);
  EXPECT_NEAR(state(plan), 18, 1e-9);
}

TEST(Estimate, TwoToFourSavesTrafficEverywhereAndArithmeticOnlyWhereTheChipHasIt) {
  Plan dense, sparse;
  sparse.sparsity.kind = Sparsity::Kind::k2to4;
  machine::Machine without = gpu();
  for (machine::ArithmeticRate& rate : without.chip().arithmetic) rate.sparse_2to4 = 1;
  const model::Graph memory_bound = product(1, 8192, 8192, 10);
  const model::Graph compute_bound = product(16384, 8192, 8192, 10);
  for (const machine::Machine& m : {gpu(), without}) {
    const double ratio = ideal(m, memory_bound, sparse).time.best.value() / ideal(m, memory_bound, dense).time.best.value();
    EXPECT_NEAR(ratio, 9.0 / 16, 1e-3);
    EXPECT_NEAR(ideal(m, memory_bound, sparse).memory.by_role[at(Role::kWeight)].value(), 10 * 8192.0 * 8192 * 2 * 9 / 16, 1);
  }
  EXPECT_NEAR(ideal(gpu(), compute_bound, sparse).time.best.value() / ideal(gpu(), compute_bound, dense).time.best.value(), 0.5,
              1e-9);
  EXPECT_NEAR(ideal(without, compute_bound, sparse).time.best.value() / ideal(without, compute_bound, dense).time.best.value(),
              1.0, 1e-9);
  EXPECT_LE(ideal(gpu(), compute_bound, sparse).utilisation_compute, 1 + 1e-12);
}

TEST(Estimate, BlockSparsityScalesTrafficAndArithmetic) {
  Plan plan;
  plan.sparsity = {Sparsity::Kind::kBlock, 0.25};
  for (const model::Graph& g : {product(1, 8192, 8192, 10), product(16384, 8192, 8192, 10)}) {
    EXPECT_NEAR(ideal(gpu(), g, plan).time.best.value() / ideal(gpu(), g).time.best.value(), 0.25, 1e-3);
    EXPECT_NEAR(ideal(gpu(), g, plan).flop.value(), ideal(gpu(), g).flop.value() / 4, 1);
  }
}

TEST(Estimate, MoreBandwidthIsNeverSlower) {
  for (const std::int64_t batch : {1, 32, 1024}) {
    const model::Graph g = decoder({}, batch, 1, 500);
    double last = INFINITY;
    for (double scale = 0.25; scale < 20; scale *= 1.3) {
      machine::Machine m = gpu();
      m.chip().ladder.back().bandwidth = BytesPerSecond{2e12 * scale};
      const double time = predicted(m, g).time.best.value();
      EXPECT_LE(time, last * (1 + 1e-9)) << "batch " << batch << ", bandwidth x " << scale;
      last = time;
    }
  }
}

TEST(Estimate, MoreMemoryIsNeverSlower) {
  const model::Graph g = product(1, 10000, 10000, 1000);
  double last = INFINITY;
  for (double capacity = 20e9; capacity < 400e9; capacity *= 1.2) {
    machine::Machine m = gpu();
    m.chip().ladder.back().capacity = Bytes{capacity};
    const double time = predicted(m, g).time.best.value();
    EXPECT_LE(time, last * (1 + 1e-9)) << capacity;
    last = time;
  }
}

TEST(Estimate, EnergyIsBetweenIdleAndMaximumPower) {
  for (const std::int64_t batch : {1, 64, 8192}) {
    const Estimate e = predicted(gpu(), product(batch, 8192, 8192, 10));
    ASSERT_TRUE(e.has_energy);
    EXPECT_GE(e.power, Watts{50});
    EXPECT_LE(e.power, Watts{400});
    EXPECT_NEAR(e.energy.best.value(), (e.power * e.time.best).value(), 1e-12);
    EXPECT_LE(e.energy.low, e.energy.best);
    EXPECT_LE(e.energy.best, e.energy.high);
  }
  const Watts memory_bound = ideal(gpu(), product(1, 8192, 8192, 10)).power;
  const Watts compute_bound = ideal(gpu(), product(8192, 8192, 8192, 10)).power;
  EXPECT_LT(memory_bound, compute_bound);
}

TEST(Estimate, NoPowerDataGivesNoEnergy) {
  machine::Machine m = gpu();
  m.chip().power_max = {};
  const model::Graph g = product(1, 1024, 8192, 10);
  const Estimator estimator(m, CalibrationTable::builtin(), {});
  const Estimate e = estimator.estimate(g);
  EXPECT_FALSE(e.has_energy);
  EXPECT_EQ(e.energy.high, Joules{});
  bool said = false;
  for (const std::string& line : estimator.explain(g, e)) said = said || line.find("states no power") != std::string::npos;
  EXPECT_TRUE(said);
}

TEST(Estimate, MoneyIsTheRangeOfPricesTimesTime) {
  machine::Machine m = gpu();
  const model::Graph g = product(1, 8192, 8192, 10);
  EXPECT_EQ(ideal(m, g).price_basis, PriceBasis::kNone);
  EXPECT_EQ(ideal(m, g).money.high, Dollars{});

  m.chip().prices.push_back({.kind = "list", .purchase_low = Dollars{20000}, .purchase_high = Dollars{30000}});
  const Estimate owned = ideal(m, g);
  EXPECT_EQ(owned.price_basis, PriceBasis::kPurchase);
  const double years = 5 * 365.0 * 86400;
  EXPECT_NEAR(owned.money.low.value(), owned.time.low.value() * 20000 / years + owned.energy.low.value() * 1.2 * 0.08 / 3.6e6,
              1e-15);

  m.chip().prices.push_back(
      {.kind = "cloud", .rate_low = DollarsPerSecond{2.0 / 3600}, .rate_high = DollarsPerSecond{8.0 / 3600}});
  const Estimate rented = ideal(m, g);
  EXPECT_EQ(rented.price_basis, PriceBasis::kRental);
  EXPECT_NEAR(rented.money.low.value(), rented.time.low.value() * 2 / 3600, 1e-15);
  EXPECT_NEAR(rented.money.best.value(), rented.time.best.value() * 4 / 3600, 1e-15);
  EXPECT_NEAR(rented.money.high.value(), rented.time.high.value() * 8 / 3600, 1e-15);
}

TEST(Estimate, SameInputSameBytes) {
  const model::Graph g = decoder({}, 3, 1, 777);
  const Estimator estimator(gpu(), CalibrationTable::builtin(), {});
  const Estimate a = estimator.estimate(g);
  Estimate b = estimator.estimate(decoder({}, 100, 128, 0));  // other contents first: nothing of them may survive
  estimator.estimate_into(g, b);
  EXPECT_EQ(a.time.best, b.time.best);
  EXPECT_EQ(a.time.low, b.time.low);
  EXPECT_EQ(a.time.high, b.time.high);
  EXPECT_EQ(a.energy.best, b.energy.best);
  EXPECT_EQ(a.bytes_dram, b.bytes_dram);
  EXPECT_EQ(a.time_by_bound, b.time_by_bound);
  ASSERT_EQ(a.operators.size(), b.operators.size());
  for (std::size_t i = 0; i < a.operators.size(); ++i) EXPECT_EQ(a.operators[i].time, b.operators[i].time);
}

TEST(Estimate, SecondEstimateDoesNotAllocate) {
  const model::Graph g = decoder({}, 3, 1, 777);
  const Estimator estimator(gpu(), CalibrationTable::builtin(), {});
  Estimate e;
  estimator.estimate_into(g, e);
  const long before = allocation_count();
  estimator.estimate_into(g, e);
  EXPECT_EQ(allocation_count(), before);
}

TEST(Estimate, EmptyGraphCostsTheHostOnly) {
  const Estimate e = ideal(gpu(), model::Graph{});
  EXPECT_EQ(e.time.best, Seconds{});
  EXPECT_EQ(e.tokens_per_second, 0);
  EXPECT_TRUE(e.operators.empty());
  EXPECT_TRUE(e.memory.fits);
}

// Machines, plans and shapes drawn at random, holes in the data included: the invariants hold for all of them.
TEST(Estimate, InvariantsHoldForRandomMachinesAndPlans) {
  std::mt19937 random(7);
  const auto real = [&](double low, double high) {  // log-uniform
    return low * std::pow(high / low, static_cast<double>(random()) / 4294967296.0);
  };
  const auto one_of = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto maybe = [&](double value) { return one_of(4) == 0 ? 0.0 : value; };
  for (int trial = 0; trial < 2000; ++trial) {
    machine::Machine m = gpu();
    machine::Chip& chip = m.chip();
    chip.kind = static_cast<machine::ChipKind>(one_of(5));
    chip.cores = 1 + one_of(300);
    for (machine::ArithmeticRate& rate : chip.arithmetic) {
      rate.matrix = FlopPerSecond{maybe(real(1e11, 1e16))};
      rate.vector = FlopPerSecond{maybe(real(1e10, 1e14))};
      rate.sparse_2to4 = one_of(2) + 1;
    }
    chip.arithmetic[static_cast<std::size_t>(Arithmetic::kFp32)].vector = FlopPerSecond{real(1e10, 1e14)};
    chip.ladder.clear();
    for (int level = one_of(4); level > 0; --level) {
      chip.ladder.push_back({.name = "L" + std::to_string(level),
                             .capacity = Bytes{real(1e4, 1e9)},
                             .bandwidth = BytesPerSecond{maybe(real(1e11, 1e14))},
                             .instances = 1 + one_of(100),
                             .managed = one_of(2) == 0});
    }
    chip.ladder.push_back({.name = "HBM", .capacity = Bytes{real(1e8, 1e12)}, .bandwidth = BytesPerSecond{real(1e10, 1e14)}});
    chip.power_max = Watts{maybe(real(5, 2000))};
    chip.power_idle = Watts{maybe(1)};
    chip.host_link_per_direction = BytesPerSecond{maybe(real(1e9, 1e12))};
    m.root.host = {.memory_capacity = Bytes{maybe(real(1e9, 1e12))},
                   .memory_bandwidth = BytesPerSecond{maybe(real(1e10, 1e12))},
                   .disk_read = BytesPerSecond{maybe(real(1e8, 1e10))}};
    Plan plan;
    for (const Role role : {Role::kWeight, Role::kActivation, Role::kKvCache}) {
      plan.set_type(role, static_cast<DType>(one_of(kDTypeCount)));
    }
    plan.sparsity.kind = static_cast<Sparsity::Kind>(one_of(3));
    plan.sparsity.density = real(0.01, 1);
    plan.stack = static_cast<Stack>(one_of(kStackCount));
    const Shape shape{1.0 + one_of(100), 128.0 * (1 + one_of(64)), 128, 64.0 * (1 + one_of(300)), 1000.0 * (1 + one_of(200))};
    const model::Graph g = decoder(shape, 1 + one_of(100), 1 + one_of(500), one_of(5000));
    const Estimator estimator(m, CalibrationTable::builtin(), plan);
    const Estimate e = estimator.estimate(g);
    SCOPED_TRACE(trial);
    ASSERT_TRUE(std::isfinite(e.time.best.value()) && std::isfinite(e.time.high.value()));
    ASSERT_GT(e.time.best, Seconds{});
    ASSERT_LE(e.time.low, e.time.best);
    ASSERT_LE(e.time.best, e.time.high);
    ASSERT_GE(e.time.low.value(), e.roof_time.value() * (1 - 1e-9));
    double time = (e.host_time + e.transfer_time).value();
    for (const OperatorEstimate& line : e.operators) time += line.time.value();
    double bounds = 0;
    for (const Seconds s : e.time_by_bound) bounds += s.value();
    ASSERT_NEAR(time, e.time.best.value(), 1e-9 * time);
    ASSERT_NEAR(bounds, e.time.best.value(), 1e-9 * time);
    ASSERT_LE(e.utilisation_compute, 1 + 1e-9);
    ASSERT_LE(e.utilisation_dram, 1 + 1e-9);
    ASSERT_GE(e.energy.low, Joules{});
    ASSERT_LE(e.power.value(), std::max(chip.power_max.value(), chip.power_idle.value()) + 1e-9);
    ASSERT_EQ(e.has_energy, chip.power_max > Watts{});
    ASSERT_EQ(e.memory.fits, e.memory.headroom() >= Bytes{});
    ASSERT_FALSE(estimator.explain(g, e).empty());
  }
}

// ------------------------------------------------------------------------------------------------------------ types

Plan typed(DType weight, DType activation) {
  Plan plan;
  plan.set_type(Role::kWeight, weight);
  plan.set_type(Role::kActivation, activation);
  return plan;
}

TEST(ResolveTypes, BlockWeightsAreWidenedOnAGpuAndMultipliedAsInt8OnACpu) {
  machine::Chip chip = gpu().chip();
  const ResolvedTypes on_gpu = resolve_types(chip, typed(DType::kQ4_0, DType::kBf16));
  EXPECT_EQ(on_gpu.arithmetic, Arithmetic::kBf16);
  EXPECT_TRUE(on_gpu.weight_only);
  EXPECT_NEAR(on_gpu.weight_bytes, 4.5 / 8, 1e-12);
  chip.kind = machine::ChipKind::kCpu;
  const ResolvedTypes on_cpu = resolve_types(chip, typed(DType::kQ4_0, DType::kBf16));
  EXPECT_EQ(on_cpu.arithmetic, Arithmetic::kInt8);
  EXPECT_FALSE(on_cpu.weight_only);
  EXPECT_FALSE(on_cpu.facts.empty());
  EXPECT_EQ(on_cpu.attention_arithmetic, Arithmetic::kBf16);
}

TEST(ResolveTypes, EqualTypesUseTheirOwnArithmetic) {
  const machine::Chip chip = gpu().chip();
  EXPECT_EQ(resolve_types(chip, typed(DType::kInt8, DType::kInt8)).arithmetic, Arithmetic::kInt8);
  EXPECT_FALSE(resolve_types(chip, typed(DType::kInt8, DType::kInt8)).weight_only);
  EXPECT_EQ(resolve_types(chip, typed(DType::kInt8, DType::kInt8)).attention_arithmetic, Arithmetic::kBf16);
  EXPECT_EQ(resolve_types(chip, typed(DType::kInt8, DType::kBf16)).arithmetic, Arithmetic::kBf16);
  EXPECT_TRUE(resolve_types(chip, typed(DType::kInt8, DType::kBf16)).weight_only);
  EXPECT_FALSE(resolve_types(chip, typed(DType::kBf16, DType::kBf16)).weight_only);
  EXPECT_TRUE(resolve_types(chip, typed(DType::kBf16, DType::kBf16)).facts.empty());
}

TEST(ResolveTypes, LosslessBf16SavesTrafficOnly) {
  const ResolvedTypes t = resolve_types(gpu().chip(), typed(DType::kBf16Lossless12, DType::kBf16));
  EXPECT_EQ(t.arithmetic, Arithmetic::kBf16);
  EXPECT_TRUE(t.weight_only);
  EXPECT_NEAR(t.weight_bytes, 1.5, 1e-12);
}

TEST(ResolveTypes, MissingArithmeticFallsToTheNextWiderAndSaysSo) {
  machine::Chip chip = gpu().chip();
  const ResolvedTypes fp8 = resolve_types(chip, typed(DType::kFp8E4m3, DType::kFp8E4m3));
  EXPECT_EQ(fp8.arithmetic, Arithmetic::kFp16);
  ASSERT_FALSE(fp8.facts.empty());
  EXPECT_NE(fp8.facts[0].find("has no fp8"), std::string::npos);
  EXPECT_EQ(available_arithmetic(chip, Arithmetic::kInt4), Arithmetic::kInt8);
  EXPECT_EQ(available_arithmetic(chip, Arithmetic::kFp4), Arithmetic::kFp16);
  set_rate(chip, Arithmetic::kBf16, 0, 0);
  EXPECT_EQ(available_arithmetic(chip, Arithmetic::kBf16), Arithmetic::kFp16);
  set_rate(chip, Arithmetic::kFp16, 0, 0);
  EXPECT_EQ(available_arithmetic(chip, Arithmetic::kBf16), Arithmetic::kFp32);
  EXPECT_EQ(available_arithmetic(chip, Arithmetic::kFp64), Arithmetic::kFp32);  // nothing wider: the widest there is
}

TEST(ResolveTypes, ATypeThatIsThereOnlyForShowIsNotUsed) {
  machine::Chip chip = gpu().chip();  // like Pascal: fp16 at 1/64 of fp32
  set_rate(chip, Arithmetic::kBf16, 0, 0);
  set_rate(chip, Arithmetic::kFp16, 0, 0.3e12);
  const ResolvedTypes t = resolve_types(chip, typed(DType::kF16, DType::kF16));
  EXPECT_EQ(t.arithmetic, Arithmetic::kFp32);
  ASSERT_FALSE(t.facts.empty());
  EXPECT_NE(t.facts[0].find("is slow at fp16"), std::string::npos);
  EXPECT_EQ(preferred_arithmetic(chip, Arithmetic::kBf16), Arithmetic::kFp32);
  // fp16 twice as fast as bf16 does not make a bf16 plan run in fp16: the range is not the same.
  set_rate(chip, Arithmetic::kBf16, 92e12, 0);
  set_rate(chip, Arithmetic::kFp16, 184e12, 0);
  EXPECT_EQ(preferred_arithmetic(chip, Arithmetic::kBf16), Arithmetic::kBf16);
  Plan forced = typed(DType::kF16, DType::kF16);
  set_rate(chip, Arithmetic::kFp16, 0, 0.3e12);
  forced.arithmetic = Arithmetic::kFp16;
  EXPECT_EQ(resolve_types(chip, forced).arithmetic, Arithmetic::kFp16);
}

TEST(Estimate, ADataflowChipDoesNotPayForLaunches) {
  machine::Machine launched = sram_chip();
  launched.chip().kind = machine::ChipKind::kNpu;
  const model::Graph g = decoder({4, 1024, 256, 2048, 4000}, 1, 1, 128);
  const auto kernels = [](const Estimate& e) { return e.time.best - e.host_time; };
  const Estimate dataflow = predicted(sram_chip(), g);
  EXPECT_LT(kernels(dataflow).value(), 0.3 * kernels(predicted(launched, g)).value());
  EXPECT_GE(dataflow.time.low, dataflow.roof_time);
}

TEST(CheckMachine, NamesWhatIsMissing) {
  EXPECT_TRUE(check_machine(gpu()).has_value());
  const auto message = [](const machine::Machine& m) {
    const Status s = check_machine(m);
    return s ? std::string() : s.error().message;
  };
  machine::Machine m = gpu();
  m.chip().ladder.back().bandwidth = {};
  EXPECT_NE(message(m).find("dram.bandwidth is not known"), std::string::npos);
  // Taken as not limiting all the same, never as undefined.
  EXPECT_TRUE(std::isfinite(predicted(m, decoder({}, 1, 1, 10)).time.best.value()));
  m = gpu();
  m.chip().ladder.back().capacity = {};
  EXPECT_NE(message(m).find("dram.capacity is not known"), std::string::npos);
  m = gpu();
  for (machine::ArithmeticRate& rate : m.chip().arithmetic) rate = {};
  EXPECT_NE(message(m).find("is not known"), std::string::npos);
  EXPECT_TRUE(std::isfinite(predicted(m, decoder({}, 1, 1, 10)).time.best.value()));
}

TEST(ResolveTypes, ForcedArithmetic) {
  Plan plan = typed(DType::kInt8, DType::kBf16);
  plan.arithmetic = Arithmetic::kInt8;
  EXPECT_EQ(resolve_types(gpu().chip(), plan).arithmetic, Arithmetic::kInt8);
}

TEST(CheckPlan, RefusesNumbersOutOfRange) {
  Plan plan;
  EXPECT_TRUE(check_plan(plan).has_value());
  for (const double density : {0.0, -1.0, 1.01, std::nan("")}) {
    plan.sparsity.density = density;
    ASSERT_FALSE(check_plan(plan).has_value()) << density;
    EXPECT_NE(check_plan(plan).error().message.find("density"), std::string::npos);
  }
  plan = {};
  for (const double reserve : {-0.1, 1.0, std::nan("")}) {
    plan.memory_reserve = reserve;
    ASSERT_FALSE(check_plan(plan).has_value()) << reserve;
    EXPECT_NE(check_plan(plan).error().message.find("reserve"), std::string::npos);
  }
}

TEST(Stacks, NamesReadBack) {
  for (int i = 0; i < kStackCount; ++i) {
    const auto stack = static_cast<Stack>(i);
    ASSERT_TRUE(parse_stack(name(stack)).has_value());
    EXPECT_EQ(*parse_stack(name(stack)), stack);
  }
  EXPECT_FALSE(parse_stack("").has_value());
  EXPECT_FALSE(parse_stack("Engine").has_value());
  EXPECT_NE(parse_stack("vllm").error().message.find("megatron"), std::string::npos);
}

// -------------------------------------------------------------------------------------------------------- placement

TEST(Placement, SpillOrderIsOptimizerThenWeightsThenCache) {
  const StorageLadder ladder = storage_ladder(gpu(), 0, 4);
  WorkingSet set;
  set.bytes[at(Role::kWeight)] = 60e9;
  set.bytes[at(Role::kKvCache)] = 30e9;
  set.bytes[at(Role::kOptimizerState)] = 10e9;
  set.total = 100e9;
  PlacementResult p;
  place(set, ladder, p);
  EXPECT_NEAR(p.roles[at(Role::kOptimizerState)].share_off_chip, 1, 1e-12);
  EXPECT_NEAR(p.roles[at(Role::kWeight)].share_off_chip, 10.0 / 60, 1e-12);
  EXPECT_EQ(p.roles[at(Role::kKvCache)].share_off_chip, 0);
  EXPECT_EQ(p.roles[at(Role::kOptimizerState)].level, "host memory");
  EXPECT_EQ(p.roles[at(Role::kWeight)].level, "HBM");
}

TEST(Placement, ExactlyFullFitsAndOneByteMoreSpills) {
  const StorageLadder ladder = storage_ladder(gpu(), 0, 4);
  WorkingSet set;
  set.bytes[at(Role::kWeight)] = set.total = 80e9;
  PlacementResult p;
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsInMemory);
  set.bytes[at(Role::kWeight)] = set.total = 80e9 + 1;
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsFromHost);
}

TEST(Placement, ACpuReadsTheRestFromDisk) {
  machine::Machine m = gpu();
  m.chip().kind = machine::ChipKind::kCpu;
  const StorageLadder ladder = storage_ladder(m, 0, 4);
  EXPECT_EQ(ladder.host.capacity, 0);
  WorkingSet set;
  set.bytes[at(Role::kWeight)] = set.total = 100e9;
  PlacementResult p;
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsFromDisk);
  EXPECT_NEAR(p.roles[at(Role::kWeight)].share_disk, 0.2, 1e-12);
}

TEST(Placement, HbmBeforeDdrIsNotOnChip) {
  machine::Machine m = gpu();
  m.chip().kind = machine::ChipKind::kDataflow;
  m.chip().ladder = {{.name = "SRAM", .capacity = Bytes{0.5e9}, .bandwidth = BytesPerSecond{25e12}, .managed = true},
                     {.name = "HBM", .capacity = Bytes{64e9}, .bandwidth = BytesPerSecond{2e12}, .managed = true},
                     {.name = "DDR", .capacity = Bytes{1.5e12}, .bandwidth = BytesPerSecond{0.2e12}}};
  const StorageLadder ladder = storage_ladder(m, 0, 4);
  WorkingSet set;
  set.bytes[at(Role::kWeight)] = set.total = 20e9;
  PlacementResult p;
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsInMemory);
  EXPECT_NEAR(p.seconds_per_byte[at(Role::kWeight)], 1 / 2e12, 1e-18);
  set.bytes[at(Role::kWeight)] = set.total = 400e6;
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsOnChip);
  set.bytes[at(Role::kWeight)] = set.total = 128e9;  // half of it behind HBM
  place(set, ladder, p);
  EXPECT_EQ(p.regime, Regime::kWeightsInMemory);
  EXPECT_GT(p.seconds_per_byte[at(Role::kWeight)], 1 / 2e12);
  EXPECT_LT(p.seconds_per_byte[at(Role::kWeight)], 1 / 0.2e12);
}

TEST(Placement, SharesAreShares) {
  const StorageLadder ladder = storage_ladder(gpu(), 0.05, 4);
  for (double size = 1e6; size < 1e13; size *= 1.7) {
    WorkingSet set;
    set.bytes[at(Role::kWeight)] = size * 0.7;
    set.bytes[at(Role::kKvCache)] = size * 0.2;
    set.bytes[at(Role::kActivation)] = set.live_activations = size * 0.1;
    set.total = size;
    PlacementResult p;
    place(set, ladder, p);
    for (const Placement& role : p.roles) {
      EXPECT_GE(role.share_on_chip, 0);
      EXPECT_GE(role.share_off_chip, role.share_disk);
      EXPECT_LE(role.share_on_chip + role.share_off_chip, 1 + 1e-12);
    }
    for (const double pace : p.seconds_per_byte) EXPECT_GT(pace, 0);
  }
}

}  // namespace
}  // namespace rooftree::cost

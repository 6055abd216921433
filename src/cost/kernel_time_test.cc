#include "cost/kernel_time.h"

#include <gtest/gtest.h>

#include <cmath>

namespace rooftree::cost {
namespace {

using model::Attention;
using model::Convolution;
using model::Elementwise;
using model::GroupedMatMul;
using model::MatMul;
using model::Operator;

constexpr double kPeak = 1e15;       // FLOP/s
constexpr double kBandwidth = 3e12;  // bytes/s
constexpr std::size_t kBf16 = static_cast<std::size_t>(Arithmetic::kBf16);

// A made-up chip whose constants are round numbers.
ChipCalibration chip() {
  ChipCalibration c;
  for (std::size_t i = 0; i < c.product_rate.size(); ++i) {
    c.product_rate[i] = kPeak;
    c.inverse_product_rate[i] = 1 / kPeak;
  }
  c.vector_rate = 6e13;
  c.exponential_rate = 4e12;
  c.memory_bandwidth = kBandwidth;
  c.last_cache_bytes = 50e6;
  c.shared_cache_bytes = 25e6;
  c.cores = 132;
  c.tile_rows = 16;
  GemmConstants g;
  g.peak_share = 0.8;
  g.memory_share = 0.9;
  g.fixed = 2e-6;
  g.tile_feed = 0.05;
  c.gemm.fill(g);
  c.gemm_weight_only.fill(g);
  c.grouped_gemm.fill(g);
  c.grouped_gemm_weight_only.fill(g);
  AttentionPrefillConstants p;
  p.extra_tokens = 0;
  p.tail = 0;
  c.attention_prefill.fill(p);
  return c;
}

Operands operands() {
  Operands o;
  o.weight_seconds_per_byte = o.activation_seconds_per_byte = o.kv_seconds_per_byte = 1 / kBandwidth;
  return o;
}

KernelTime time_of(const Operator& op, const Operands& o = operands(), const ChipCalibration& c = chip()) {
  return kernel_time(op, model::work(op), o, c);
}

TEST(KernelTime, AHugeSquareProductReachesThePeakShare) {
  const double n = 16384;
  const KernelTime t = time_of(MatMul{.m = 16384, .n = 16384, .k = 16384});
  const double ideal = 2 * n * n * n / (0.8 * kPeak);
  EXPECT_GE(t.time, ideal);
  EXPECT_LT(t.time, 1.03 * ideal);
  EXPECT_GT(t.compute, 5 * t.memory);
}

TEST(KernelTime, OneRowReadsTheWeightsAtTheMemoryShare) {
  const KernelTime t = time_of(MatMul{.m = 1, .n = 16384, .k = 16384});
  const double bytes = (16384.0 * 16384 + 2 * 16384) * 2;
  EXPECT_NEAR(t.memory, bytes / (0.9 * kBandwidth), 1e-12);
  EXPECT_NEAR(t.time - t.fixed, t.memory, 0.02 * t.memory);
}

TEST(KernelTime, TheTwoRoofsCombineByThe4Norm) {
  const KernelTime t = time_of(MatMul{.m = 256, .n = 8192, .k = 8192});
  EXPECT_NEAR(t.time, t.fixed + std::pow(std::pow(t.compute, 4) + std::pow(t.memory, 4), 0.25), 1e-12);
}

TEST(KernelTime, TwiceAsMuchIsNeverFaster) {
  for (const std::int64_t m : {1, 7, 16, 33, 64, 129, 500, 1024, 4097}) {
    for (const std::int64_t n : {64, 1000, 4096, 11008}) {
      for (const std::int64_t k : {128, 4096, 16384}) {
        const double t = time_of(MatMul{.m = m, .n = n, .k = k}).time;
        EXPECT_GE(time_of(MatMul{.m = 2 * m, .n = n, .k = k}).time, 0.999 * t) << m << " " << n << " " << k;
        EXPECT_GE(time_of(MatMul{.m = m, .n = 2 * n, .k = k}).time, 0.999 * t) << m << " " << n << " " << k;
        EXPECT_GE(time_of(MatMul{.m = m, .n = n, .k = 2 * k}).time, 0.999 * t) << m << " " << n << " " << k;
      }
    }
  }
}

TEST(KernelTime, OneTileMoreThanAWaveCosts) {
  // 12 x 11 tiles of 128 x 256 fill the 132 cores exactly; one row more starts a second wave for every tile shape.
  const KernelTime full = time_of(MatMul{.m = 1536, .n = 2816, .k = 8192});
  const KernelTime over = time_of(MatMul{.m = 1537, .n = 2816, .k = 8192});
  EXPECT_GT(over.compute, 1.05 * full.compute);
}

TEST(KernelTime, SplittingKUsesIdleCores) {
  // One 64 x 64 tile with a deep K: without a split one core of 132 would do all the work.
  const KernelTime t = time_of(MatMul{.m = 64, .n = 64, .k = 65536});
  const double one_core = 2.0 * 64 * 64 * 65536 / (0.8 * kPeak / 132);
  EXPECT_LT(t.compute, 0.2 * one_core);
}

TEST(KernelTime, AFewLargeCoresOnlyPadToTheirArrays) {
  ChipCalibration c = chip();
  c.cores = 2;
  const KernelTime t = time_of(MatMul{.m = 100, .n = 200, .k = 300}, operands(), c);
  EXPECT_DOUBLE_EQ(t.compute, 2.0 * 104 * 256 * 384 / (0.8 * kPeak));
}

TEST(KernelTime, GeneralAlusHaveNoTiles) {
  ChipCalibration c = chip();
  c.tile_rows = 1;
  EXPECT_DOUBLE_EQ(time_of(MatMul{.m = 3, .n = 5, .k = 7}, operands(), c).compute, 2.0 * 3 * 5 * 7 / (0.8 * kPeak));
}

TEST(KernelTime, WeightsFromFartherAwayTakeTheirPace) {
  Operands far = operands();
  far.weight_seconds_per_byte = 1 / 50e9;
  const KernelTime t = time_of(MatMul{.m = 1, .n = 4096, .k = 4096}, far);
  EXPECT_NEAR(t.memory, 4096.0 * 4096 * 2 / 50e9 / 0.9, 1e-6);
}

TEST(KernelTime, CachedWeightsMoveAtTheOnChipRate) {
  Operands hot = operands();
  hot.weight_cached_share = hot.activation_cached_share = 1;
  const KernelTime t = time_of(MatMul{.m = 1, .n = 4096, .k = 4096}, hot);
  EXPECT_NEAR(t.memory, (4096.0 * 4096 + 2 * 4096) * 2 / (4 * kBandwidth), 1e-12);
  EXPECT_LT(t.memory, time_of(MatMul{.m = 1, .n = 4096, .k = 4096}).memory);
}

TEST(KernelTime, ResidentWeightsNeedNoPipeFill) {
  ChipCalibration c = chip();
  for (GemmConstants& g : c.gemm) g.fill = 3e-6;
  Operands resident = operands();
  resident.weights_on_chip = true;
  const Operator op = MatMul{.m = 1, .n = 4096, .k = 4096};
  EXPECT_NEAR(time_of(op, operands(), c).memory - time_of(op, resident, c).memory, 3e-6, 1e-12);
}

TEST(KernelTime, SparsityShortensTheArithmetic) {
  const Operator op = MatMul{.m = 8192, .n = 8192, .k = 8192};
  Operands structured = operands();
  structured.product_speedup = 2;
  Operands blocks = operands();
  blocks.weight_density = 0.5;
  const double dense = time_of(op).compute;
  EXPECT_NEAR(time_of(op, structured).compute, dense / 2, 1e-3 * dense);
  EXPECT_NEAR(time_of(op, blocks).compute, dense / 2, 1e-3 * dense);
}

TEST(KernelTime, QuantisingActivationsIsAKernelOfItsOwnUnlessTheyArriveQuantised) {
  ChipCalibration c = chip();
  for (GemmConstants& g : c.gemm) g.activation_cast_bytes = 3;
  Operands o = operands();
  o.arithmetic = Arithmetic::kFp8;
  o.weight_bytes = 1;
  const Operator op = MatMul{.m = 1000, .n = 4096, .k = 4096};
  EXPECT_NEAR(time_of(op, o, c).special, 3.0 * 1000 * 4096 / kBandwidth, 1e-15);
  // The product then reads one byte per activation instead of two.
  EXPECT_NEAR(time_of(op, o, c).activation_bytes, 1000.0 * 4096 + 2.0 * 1000 * 4096, 1);
  o.activation_cast = false;
  EXPECT_EQ(time_of(op, o, c).special, 0);
}

TEST(KernelTime, APointwiseConvolutionIsAProduct) {
  const Convolution conv{
      .batch = 4, .in_channels = 256, .out_channels = 512, .in_height = 32, .in_width = 32, .out_height = 32, .out_width = 32};
  EXPECT_DOUBLE_EQ(time_of(conv).compute, time_of(MatMul{.m = 4 * 32 * 32, .n = 512, .k = 256}).compute);
}

TEST(KernelTime, DepthwiseConvolutionIsBandwidthBound) {
  const Convolution conv{.batch = 8,
                         .in_channels = 256,
                         .out_channels = 256,
                         .in_height = 56,
                         .in_width = 56,
                         .out_height = 56,
                         .out_width = 56,
                         .kernel_height = 3,
                         .kernel_width = 3,
                         .groups = 256};
  const KernelTime t = time_of(conv);
  EXPECT_EQ(t.compute, 0);
  EXPECT_GT(t.memory, 0);
}

TEST(KernelTime, OneTokenReadsItsExpertsOnly) {
  const KernelTime t = time_of(GroupedMatMul{.tokens = 1, .n = 1024, .k = 2048, .experts = 8, .top_k = 2});
  EXPECT_NEAR(t.weight_bytes, 2 * 1024.0 * 2048 * 2, 1);
}

TEST(KernelTime, ManyTokensReadEveryExpertOnce) {
  const KernelTime t = time_of(GroupedMatMul{.tokens = 100000, .n = 1024, .k = 2048, .experts = 8, .top_k = 2});
  EXPECT_NEAR(t.weight_bytes, 8 * 1024.0 * 2048 * 2, 1);
  EXPECT_NEAR(t.compute, 2.0 * 200000 * 1024 * 2048 / (0.8 * kPeak), 0.02 * t.compute);
}

TEST(RoutedLoad, ConservesTheTokensWhereRoutingIsEven) {
  const auto [rows, hit] = routed_load(4096, 64, 8, 0, 1, 1);
  EXPECT_NEAR(rows, 4096.0 * 8, 1e-6);
  EXPECT_NEAR(hit, 64, 0.01);
}

TEST(RoutedLoad, SkewLoadsTheHeaviestRank) {
  const auto even = routed_load(4096, 64, 8, 0, 8, 1);
  const auto mild = routed_load(4096, 64, 8, 0.6, 8, 1);
  const auto steep = routed_load(4096, 64, 8, 1.2, 8, 1);
  EXPECT_NEAR(even[0], 4096.0 * 8 / 8, 1e-6);
  EXPECT_GT(mild[0], even[0]);
  EXPECT_GT(steep[0], mild[0]);
  EXPECT_LE(steep[0], 4096.0 * 8);  // no more than there is
  EXPECT_LE(steep[1], 8);
}

TEST(RoutedLoad, PadsRowsToTheTile) {
  const auto [rows, hit] = routed_load(64, 8, 1, 0, 1, 128);
  EXPECT_NEAR(rows, hit * 128, 1e-9);
}

TEST(CachedShare, ALeastRecentlyUsedCacheHoldsAllOrNothing) {
  EXPECT_EQ(cached_share(0, 100), 1);
  EXPECT_EQ(cached_share(100, 100), 1);
  EXPECT_EQ(cached_share(107, 100), 0);
  EXPECT_GT(cached_share(102, 100), 0);
  EXPECT_LT(cached_share(102, 100), 1);
  EXPECT_EQ(cached_share(10, 0), 0);
}

TEST(Prefill, ExponentialsAddToTheProducts) {
  const ChipCalibration c = chip();
  const Attention op{
      .batch = 2, .q_tokens = 4096, .kv_tokens = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128};
  const KernelTime t = time_of(op);
  const double pairs = 4096.0 * 4097 / 2 * 2 * 32;
  const auto& k = c.attention_prefill[kBf16];
  EXPECT_NEAR(t.special, pairs / (c.exponential_rate * k.exponential_share), 1e-9);
  EXPECT_NEAR(t.compute, pairs * 4 * 128 / (k.peak_share * kPeak), 1e-9);
  EXPECT_NEAR(t.time, t.fixed + t.memory + t.compute + t.special, 1e-12);
}

TEST(Prefill, MaskedColumnsThatAreComputedAnywayCountUpToTheFullSquare) {
  ChipCalibration c = chip();
  for (auto& k : c.attention_prefill) k.extra_tokens = 1e6;
  const Attention causal{.q_tokens = 512, .kv_tokens = 512, .heads = 8, .kv_heads = 8, .head_dim = 64, .value_dim = 64};
  Attention full = causal;
  full.causal = false;
  EXPECT_DOUBLE_EQ(time_of(causal, operands(), c).compute, time_of(full, operands(), c).compute);
}

TEST(Prefill, TheBackwardPassMultipliesMore) {
  Attention op{
      .q_tokens = 2048, .kv_tokens = 2048, .heads = 16, .kv_heads = 16, .head_dim = 128, .value_dim = 128, .cached = false};
  const double forward = time_of(op).compute;
  op.backward = true;
  EXPECT_DOUBLE_EQ(time_of(op).compute, 2.5 * forward);
}

TEST(Decode, GrowsWithTheCacheAndNothingElseOnceItIsLarge) {
  const auto at = [](std::int64_t context) {
    return time_of(Attention{
        .batch = 64, .q_tokens = 1, .kv_tokens = context, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128});
  };
  const double step = at(65536).time - at(32768).time;
  const double bytes = 64.0 * 32768 * 8 * 256 * 2;
  EXPECT_NEAR(step, bytes / (0.95 * kBandwidth), 0.01 * step);
}

TEST(Decode, ManyHeadsOnOneLatentCacheAreBoundByProducts) {
  const Attention latent{.batch = 256,
                         .q_tokens = 1,
                         .kv_tokens = 8192,
                         .heads = 128,
                         .kv_heads = 1,
                         .head_dim = 576,
                         .value_dim = 512,
                         .latent = true};
  const KernelTime t = time_of(latent);
  EXPECT_GT(t.compute, t.memory);
}

TEST(Decode, TheWidthOfTheCacheChoosesTheConstants) {
  ChipCalibration c = chip();
  c.attention_decode_grouped.fixed = 1e-5;
  c.attention_decode_grouped_8bit.fixed = 2e-5;
  c.attention_decode_multi_head.fixed = 3e-5;
  c.attention_decode_multi_head_8bit.fixed = 4e-5;
  Attention op{.batch = 1000, .q_tokens = 1, .kv_tokens = 64, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128};
  Operands narrow = operands();
  narrow.kv_bytes = 1;
  const double grouped = time_of(op, operands(), c).fixed;
  EXPECT_GT(time_of(op, narrow, c).fixed, grouped);
  op.kv_heads = 32;
  EXPECT_GT(time_of(op, operands(), c).fixed, grouped);
}

TEST(Stream, IsItsBytesAtItsShareAndAFixedPart) {
  ChipCalibration c = chip();
  c.stream[static_cast<std::size_t>(StreamClass::kElementwise)] = {.memory_share = 0.5, .fixed = 4e-6};
  const KernelTime t =
      time_of(Elementwise{.rows = 1000, .width = 1000, .kind = model::ElementwiseKind::kAdd, .inputs = 2}, operands(), c);
  EXPECT_NEAR(t.time, 4e-6 + 3e6 * 2 / (0.5 * kBandwidth), 1e-12);
}

TEST(Stream, TheCacheWriteHasNoLaunchOfItsOwn) { EXPECT_EQ(time_of(model::CacheWrite{.tokens = 10, .width = 2048}).fixed, 0); }

TEST(Datasheet, IsTheSlowerOfArithmeticAndMemory) {
  ChipCalibration c = chip();
  c.ideal = true;
  const Operator wide = MatMul{.m = 4096, .n = 4096, .k = 4096};
  EXPECT_DOUBLE_EQ(time_of(wide, operands(), c).time, 2 * std::pow(4096.0, 3) / kPeak);
  const Operator thin = MatMul{.m = 1, .n = 4096, .k = 4096};
  EXPECT_NEAR(time_of(thin, operands(), c).time, (4096.0 * 4096 + 2 * 4096) * 2 / kBandwidth, 1e-15);
}

TEST(KernelTime, CarriesTheIntervalAndTheDistanceOfItsConstants) {
  ChipCalibration c = chip();
  for (GemmConstants& g : c.gemm) {
    g.log_low = -0.2;
    g.log_high = 0.3;
    g.distance = Distance::kVendor;
  }
  const KernelTime t = time_of(MatMul{.m = 64, .n = 64, .k = 64}, operands(), c);
  EXPECT_EQ(t.log_low, -0.2);
  EXPECT_EQ(t.log_high, 0.3);
  EXPECT_EQ(static_cast<Distance>(t.distance), Distance::kVendor);
}

TEST(KernelTime, EveryOperatorTakesAFinitePositiveTime) {
  const std::vector<Operator> all = {
      MatMul{.m = 5, .n = 6, .k = 7},
      GroupedMatMul{.tokens = 5, .n = 6, .k = 7, .experts = 4, .top_k = 2},
      Attention{.q_tokens = 9, .kv_tokens = 9},
      model::Norm{.rows = 3, .width = 4},
      Elementwise{.rows = 3, .width = 4},
      model::Softmax{.rows = 3, .width = 4},
      model::Embedding{.tokens = 3, .width = 4, .vocabulary = 10},
      model::EmbeddingBag{.batch = 3, .tables = 2, .lookups_per_table = 2, .width = 8, .total_rows = 100},
      Convolution{.in_channels = 8, .out_channels = 8, .in_height = 4, .in_width = 4, .out_height = 4, .out_width = 4},
      model::Pool{.channels = 8, .in_pixels = 16, .out_pixels = 4},
      model::CacheWrite{.tokens = 3, .width = 64},
      model::Route{.tokens = 3, .width = 64, .experts = 8, .top_k = 2},
      model::CrossEntropy{.tokens = 3, .vocabulary = 100},
      model::OptimizerStep{.parameters = 1e6, .rows = 1000, .columns = 1000, .kind = model::OptimizerKind::kMuon}};
  ASSERT_EQ(all.size(), static_cast<std::size_t>(model::OperatorKind::kCount));
  for (const Operator& op : all) {
    const double t = time_of(op).time;
    EXPECT_TRUE(std::isfinite(t) && t > 0) << model::name(model::kind(op));
  }
}

}  // namespace
}  // namespace rooftree::cost

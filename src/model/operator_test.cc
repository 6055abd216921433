#include "model/operator.h"

#include <gtest/gtest.h>

#include <cmath>

namespace rooftree::model {
namespace {

double read(const Work& w, Role role) { return w.read[static_cast<std::size_t>(role)]; }
double written(const Work& w, Role role) { return w.written[static_cast<std::size_t>(role)]; }
double products(const std::vector<Operator>& ops) {
  double sum = 0;
  for (const Operator& op : ops) sum += work(op).product.value();
  return sum;
}

TEST(MatMulWork, CountsMultiplyAddAsTwoAndEveryOperandOnce) {
  const Work w = work(MatMul{.m = 3, .n = 5, .k = 7, .bias = true});
  EXPECT_EQ(w.product.value(), 2 * 3 * 5 * 7);
  EXPECT_EQ(w.vector.value(), 3 * 5);
  EXPECT_EQ(read(w, Role::kActivation), 3 * 7);
  EXPECT_EQ(read(w, Role::kWeight), 7 * 5 + 5);
  EXPECT_EQ(written(w, Role::kActivation), 3 * 5);
}

TEST(MatMulWork, OperandRoleFollowsWeightAndCached) {
  const Work free = work(MatMul{.m = 3, .n = 5, .k = 7, .batch = 2, .weight = false});
  EXPECT_EQ(read(free, Role::kActivation), 2 * (3 * 7 + 7 * 5));
  EXPECT_EQ(read(free, Role::kWeight), 0);
  const Work cached = work(MatMul{.m = 3, .n = 5, .k = 7, .batch = 2, .weight = false, .cached = true});
  EXPECT_EQ(read(cached, Role::kKvCache), 2 * 7 * 5);
  EXPECT_EQ(read(cached, Role::kActivation), 2 * 3 * 7);
}

TEST(MatMulBackward, IsTwoProductsOfTheSameSize) {
  const MatMul op{.m = 3, .n = 5, .k = 7, .bias = true};
  const auto back = backward(op);
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(products(back), 2 * work(op).product.value());
  const Work input = work(back[0]);
  EXPECT_EQ(read(input, Role::kActivation), 3 * 5);     // dC
  EXPECT_EQ(read(input, Role::kWeight), 7 * 5);         // B, without the bias
  EXPECT_EQ(written(input, Role::kActivation), 3 * 7);  // dA
  const Work weight = work(back[1]);
  EXPECT_EQ(read(weight, Role::kActivation), 3 * 7 + 3 * 5);
  EXPECT_EQ(written(weight, Role::kGradient), 7 * 5 + 5);
  EXPECT_EQ(weight.vector.value(), 3 * 5);  // column sums for the bias
  EXPECT_TRUE(backward(back[1]).empty());
}

TEST(MatMulBackward, OfActivationsWritesNoWeightGradient) {
  for (const Operator& op : backward(MatMul{.m = 3, .n = 5, .k = 7, .batch = 4, .weight = false})) {
    EXPECT_EQ(written(work(op), Role::kGradient), 0);
    EXPECT_EQ(work(op).product.value(), 2 * 4 * 3 * 5 * 7);
  }
}

TEST(GroupedMatMulWork, ReadsExpectedExperts) {
  const GroupedMatMul op{.tokens = 4, .n = 5, .k = 7, .experts = 8, .top_k = 2};
  const double hit = 8 * (1 - std::pow(1 - 2.0 / 8, 4));
  const Work w = work(op);
  EXPECT_EQ(w.product.value(), 2 * (4 * 2) * 5 * 7);
  EXPECT_NEAR(read(w, Role::kWeight), hit * 5 * 7, 1e-9);
  EXPECT_EQ(read(w, Role::kActivation), 4 * 2 * 7);
  EXPECT_EQ(written(w, Role::kActivation), 4 * 2 * 5);
  const auto back = backward(op);
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(products(back), 2 * w.product.value());
  EXPECT_EQ(written(work(back[0]), Role::kActivation), 4 * 2 * 7);
  EXPECT_NEAR(written(work(back[1]), Role::kGradient), hit * 5 * 7, 1e-9);
  EXPECT_EQ(read(work(back[1]), Role::kActivation), 4 * 2 * (5 + 7));
}

TEST(ExpectedExperts, Limits) {
  EXPECT_EQ(expected_experts_hit(0, 64, 6), 0);
  EXPECT_NEAR(expected_experts_hit(1, 64, 6), 6, 1e-12);
  EXPECT_NEAR(expected_experts_hit(1, 8, 8), 8, 1e-12);
  EXPECT_NEAR(expected_experts_hit(1e6, 64, 6), 64, 1e-9);
  EXPECT_LT(expected_experts_hit(8, 64, 6), 48);
}

// Pairs and positions by brute force.
std::pair<double, double> counted(const Attention& a) {
  double pairs = 0;
  std::vector<bool> seen(static_cast<std::size_t>(a.kv_tokens), false);
  for (std::int64_t q = a.kv_tokens - a.q_tokens; q < a.kv_tokens; ++q) {
    for (std::int64_t k = 0; k < a.kv_tokens; ++k) {
      if (a.causal && k > q) continue;
      if (a.causal && a.window > 0 && k + a.window <= q) continue;
      if (a.causal && a.chunk > 0 && k < q / a.chunk * a.chunk) continue;
      pairs += 1;
      seen[static_cast<std::size_t>(k)] = true;
    }
  }
  double positions = 0;
  for (const bool s : seen) positions += s ? 1 : 0;
  return {pairs, positions};
}

TEST(AttendedPairs, AgreeWithCounting) {
  for (const bool causal : {false, true}) {
    for (const std::int64_t kv : {1, 2, 7, 12, 16}) {
      for (std::int64_t q = 1; q <= kv; q += 3) {
        for (const std::int64_t window : {0, 1, 3, 7, 20}) {
          for (const std::int64_t chunk : {0, 1, 4, 5, 16, 40}) {
            if ((window > 0 && chunk > 0) || (!causal && (window > 0 || chunk > 0))) continue;
            const Attention a{.q_tokens = q, .kv_tokens = kv, .window = window, .chunk = chunk, .causal = causal};
            const auto [pairs, positions] = counted(a);
            EXPECT_EQ(attended_pairs(a), pairs) << q << " of " << kv << ", window " << window << ", chunk " << chunk;
            EXPECT_EQ(attended_positions(a), positions) << q << " of " << kv << ", window " << window << ", chunk " << chunk;
          }
        }
      }
    }
  }
}

TEST(AttentionWork, CausalPrefillIsHalfTheSquare) {
  // 4 b a d s^2 / 2, and the diagonal.
  const Attention a{.batch = 2, .q_tokens = 100, .kv_tokens = 100, .heads = 4, .kv_heads = 2, .head_dim = 16, .value_dim = 16};
  const Work w = work(a);
  EXPECT_EQ(w.product.value(), 4.0 * 2 * 4 * 16 * (100 * 101 / 2));
  EXPECT_EQ(w.exponentials, 2 * 4 * 100 * 101 / 2);
  EXPECT_EQ(read(w, Role::kKvCache), 2 * 100 * 2 * (16 + 16));
  EXPECT_EQ(read(w, Role::kActivation), 2 * 100 * 4 * 16);
  EXPECT_EQ(written(w, Role::kActivation), 2 * 100 * 4 * 16);
}

TEST(AttentionWork, DecodeReadsTheCacheOncePerKvHead) {
  const Attention a{
      .batch = 3, .q_tokens = 1, .kv_tokens = 1000, .heads = 32, .kv_heads = 8, .head_dim = 128, .value_dim = 128};
  const Work w = work(a);
  EXPECT_EQ(w.product.value(), 4.0 * 3 * 32 * 128 * 1000);
  EXPECT_EQ(read(w, Role::kKvCache), 3.0 * 1000 * 2 * 8 * 128);
}

TEST(AttentionWork, LatentCacheIsReadOnceForKeysAndValues) {
  const Attention a{
      .q_tokens = 1, .kv_tokens = 50, .heads = 128, .kv_heads = 1, .head_dim = 576, .value_dim = 512, .latent = true};
  const Work w = work(a);
  EXPECT_EQ(w.product.value(), 2.0 * 128 * 50 * (576 + 512));
  EXPECT_EQ(read(w, Role::kKvCache), 50 * 576);
}

TEST(AttentionBackward, RecomputesScores) {
  const Attention a{.q_tokens = 8, .kv_tokens = 8, .heads = 2, .kv_heads = 2, .head_dim = 4, .value_dim = 4, .cached = false};
  const auto back = backward(a);
  ASSERT_EQ(back.size(), 1U);
  const Work w = work(back[0]);
  EXPECT_EQ(w.product.value(), 2.5 * work(a).product.value());
  EXPECT_EQ(read(w, Role::kActivation), 8 * 2 * 4 * 3 + 8 * 2 * 8);  // Q, O, dO; K, V
  EXPECT_EQ(written(w, Role::kActivation), 8 * 2 * 4 + 8 * 2 * 8);   // dQ; dK, dV
}

TEST(NormWork, ParametersAndResidualStream) {
  const Work rms = work(Norm{.rows = 10, .width = 6});
  EXPECT_EQ(read(rms, Role::kWeight), 6);
  EXPECT_EQ(read(rms, Role::kActivation), 60);
  EXPECT_EQ(written(rms, Role::kActivation), 60);
  const Work fused = work(Norm{.rows = 10, .width = 6, .kind = NormKind::kLayer, .residual = true});
  EXPECT_EQ(read(fused, Role::kWeight), 12);
  EXPECT_EQ(read(fused, Role::kActivation), 120);
  EXPECT_EQ(written(fused, Role::kActivation), 120);
  const auto back = backward(Norm{.rows = 10, .width = 6});
  ASSERT_EQ(back.size(), 1U);
  EXPECT_EQ(read(work(back[0]), Role::kActivation), 120);
  EXPECT_EQ(written(work(back[0]), Role::kActivation), 60);
  EXPECT_EQ(written(work(back[0]), Role::kGradient), 6);
}

TEST(ElementwiseWork, ByKind) {
  const auto forward = [](ElementwiseKind kind, int inputs) {
    return work(Elementwise{.rows = 10, .width = 6, .kind = kind, .inputs = inputs});
  };
  EXPECT_EQ(forward(ElementwiseKind::kAdd, 2).vector.value(), 60);
  EXPECT_EQ(read(forward(ElementwiseKind::kAdd, 2), Role::kActivation), 120);
  EXPECT_EQ(read(forward(ElementwiseKind::kBias, 1), Role::kWeight), 6);
  EXPECT_EQ(forward(ElementwiseKind::kActivation, 1).exponentials, 60);
  EXPECT_EQ(forward(ElementwiseKind::kRelu, 1).exponentials, 0);
  EXPECT_EQ(read(forward(ElementwiseKind::kGatedActivation, 2), Role::kActivation), 120);
  EXPECT_EQ(written(forward(ElementwiseKind::kGatedActivation, 2), Role::kActivation), 60);
  EXPECT_EQ(written(forward(ElementwiseKind::kDropout, 1), Role::kActivation), 90);  // value and half-size mask
  EXPECT_EQ(forward(ElementwiseKind::kCopy, 1).vector.value(), 0);
}

TEST(ElementwiseBackward, GatedActivationWritesBothBranches) {
  const auto back = backward(Elementwise{.rows = 10, .width = 6, .kind = ElementwiseKind::kGatedActivation, .inputs = 2});
  ASSERT_EQ(back.size(), 1U);
  EXPECT_EQ(read(work(back[0]), Role::kActivation), 180);
  EXPECT_EQ(written(work(back[0]), Role::kActivation), 120);
  const auto bias = backward(Elementwise{.rows = 10, .width = 6, .kind = ElementwiseKind::kBias});
  EXPECT_EQ(written(work(bias.at(0)), Role::kGradient), 6);
}

TEST(SoftmaxWork, ReadsAndWritesScores) {
  const Work w = work(Softmax{.rows = 3, .width = 4});
  EXPECT_EQ(w.exponentials, 12);
  EXPECT_EQ(read(w, Role::kActivation), 12);
  const Work back = work(backward(Softmax{.rows = 3, .width = 4}).at(0));
  EXPECT_EQ(back.exponentials, 0);
  EXPECT_EQ(read(back, Role::kActivation), 24);
}

TEST(EmbeddingWork, ReadsOneRowPerTokenUpToTheTable) {
  EXPECT_EQ(read(work(Embedding{.tokens = 5, .width = 8, .vocabulary = 100}), Role::kWeight), 5 * 8);
  EXPECT_EQ(read(work(Embedding{.tokens = 500, .width = 8, .vocabulary = 100}), Role::kWeight), 100 * 8);
  EXPECT_EQ(written(work(Embedding{.tokens = 500, .width = 8, .vocabulary = 100}), Role::kActivation), 500 * 8);
  const Work back = work(backward(Embedding{.tokens = 5, .width = 8, .vocabulary = 100}).at(0));
  EXPECT_EQ(written(back, Role::kGradient), 100 * 8);
}

TEST(EmbeddingBagWork, PoolsRowsPerTable) {
  const EmbeddingBag op{.batch = 4, .tables = 3, .lookups_per_table = 5, .width = 2, .total_rows = 1000};
  const Work w = work(op);
  EXPECT_EQ(read(w, Role::kWeight), 4 * 3 * 5 * 2);
  EXPECT_EQ(w.vector.value(), (4 * 3 * 5 - 4 * 3) * 2);
  EXPECT_EQ(written(w, Role::kActivation), 4 * 3 * 2);
  EXPECT_EQ(written(work(backward(op).at(0)), Role::kGradient), 4 * 3 * 5 * 2);
}

TEST(ConvolutionWork, SevenBySevenStem) {
  const Convolution op{.batch = 2,
                       .in_channels = 3,
                       .out_channels = 64,
                       .in_height = 224,
                       .in_width = 224,
                       .out_height = 112,
                       .out_width = 112,
                       .kernel_height = 7,
                       .kernel_width = 7};
  const Work w = work(op);
  EXPECT_EQ(w.product.value(), 2.0 * 2 * 112 * 112 * 64 * 3 * 49);
  EXPECT_EQ(read(w, Role::kWeight), 64 * 3 * 49);
  EXPECT_EQ(read(w, Role::kActivation), 2 * 3 * 224 * 224);
  EXPECT_EQ(written(w, Role::kActivation), 2 * 64 * 112 * 112);
  const auto back = backward(op);
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(products(back), 2 * w.product.value());  // stride 2: counted over the output's pixels, not the input's
  EXPECT_EQ(written(work(back[0]), Role::kActivation), 2 * 3 * 224 * 224);
  EXPECT_EQ(written(work(back[1]), Role::kGradient), 64 * 3 * 49);
}

TEST(ConvolutionWork, GroupsDivideTheWork) {
  const Convolution op{.in_channels = 8,
                       .out_channels = 8,
                       .in_height = 4,
                       .in_width = 4,
                       .out_height = 4,
                       .out_width = 4,
                       .kernel_height = 3,
                       .kernel_width = 3,
                       .groups = 8,
                       .bias = true};
  EXPECT_EQ(work(op).product.value(), 2 * 16 * 8 * 9);
  EXPECT_EQ(read(work(op), Role::kWeight), 8 * 9 + 8);
}

TEST(PoolWork, ReadsInputWritesOutput) {
  const Pool op{.batch = 2, .channels = 3, .in_pixels = 16, .out_pixels = 4};
  EXPECT_EQ(read(work(op), Role::kActivation), 2 * 3 * 16);
  EXPECT_EQ(written(work(op), Role::kActivation), 2 * 3 * 4);
  EXPECT_EQ(written(work(backward(op).at(0)), Role::kActivation), 2 * 3 * 16);
}

TEST(CacheWriteWork, WithAndWithoutRotation) {
  const Work plain = work(CacheWrite{.tokens = 5, .width = 16});
  EXPECT_EQ(written(plain, Role::kKvCache), 80);
  EXPECT_EQ(read(plain, Role::kActivation), 80);
  EXPECT_EQ(plain.vector.value(), 0);
  const Work rotated = work(CacheWrite{.tokens = 5, .width = 16, .rope_query = 32});
  EXPECT_EQ(read(rotated, Role::kActivation), 5 * 48);
  EXPECT_EQ(written(rotated, Role::kActivation), 5 * 32);
  EXPECT_EQ(rotated.vector.value(), 3 * 5 * (32 + 8));
  EXPECT_TRUE(backward(CacheWrite{.tokens = 5, .width = 16}).empty());
}

TEST(RouteWork, PermutesUnlessGathered) {
  const Work w = work(Route{.tokens = 4, .width = 10, .experts = 8, .top_k = 2});
  EXPECT_EQ(w.exponentials, 32);
  EXPECT_EQ(read(w, Role::kActivation), 32 + 80 + 40);
  EXPECT_EQ(written(w, Role::kActivation), 2 * 8 + 40 + 80);
  const Work gathered = work(Route{.tokens = 4, .width = 10, .experts = 8, .top_k = 2, .gathered = true});
  EXPECT_EQ(read(gathered, Role::kActivation), 32 + 80);
  EXPECT_EQ(written(gathered, Role::kActivation), 2 * 8 + 40);
}

TEST(CrossEntropyWork, ReadsLogitsAndWritesTheirGradient) {
  const CrossEntropy op{.tokens = 3, .vocabulary = 50};
  EXPECT_EQ(read(work(op), Role::kActivation), 150);
  EXPECT_EQ(work(op).exponentials, 150);
  EXPECT_EQ(written(work(backward(op).at(0)), Role::kActivation), 150);
}

TEST(OptimizerState, BytesPerParameter) {
  const auto bytes = [](OptimizerKind kind, bool master) {
    return optimizer_state_bytes_per_parameter({.parameters = 1, .rows = 4096, .columns = 1024, .kind = kind}, master);
  };
  EXPECT_EQ(bytes(OptimizerKind::kSgd, false), 0);
  EXPECT_EQ(bytes(OptimizerKind::kSgd, true), 4);
  EXPECT_EQ(bytes(OptimizerKind::kSgdMomentum, false), 4);
  EXPECT_EQ(bytes(OptimizerKind::kAdam, true), 12);
  EXPECT_EQ(bytes(OptimizerKind::kAdam8bit, false), 2 * (1 + 4.0 / 2048));
  EXPECT_EQ(bytes(OptimizerKind::kAdafactor, false), 4.0 * (4096 + 1024) / (4096.0 * 1024));
  EXPECT_EQ(bytes(OptimizerKind::kShampoo, false), 8 + 8 * 2);  // square blocks: L, R and their roots, and two moments
  EXPECT_EQ(bytes(OptimizerKind::kMuon, false), 4);
  EXPECT_EQ(
      optimizer_state_bytes_per_parameter({.parameters = 1, .rows = 4096, .columns = 1, .kind = OptimizerKind::kMuon}, false),
      8);  // vectors fall back to Adam
}

TEST(OptimizerWork, AdamTouchesStateOnceEachWay) {
  const Work w = work(OptimizerStep{.parameters = 100, .rows = 10, .columns = 10});
  EXPECT_EQ(read(w, Role::kGradient), 100);
  EXPECT_EQ(read(w, Role::kOptimizerState), 300);  // master copy and two moments, in 4-byte values
  EXPECT_EQ(written(w, Role::kOptimizerState), 300);
  EXPECT_EQ(read(w, Role::kWeight), 0);
  EXPECT_EQ(written(w, Role::kWeight), 100);
  EXPECT_EQ(w.product.value(), 0);
  const Work no_master = work(OptimizerStep{.parameters = 100, .rows = 10, .columns = 10, .master_copy = false});
  EXPECT_EQ(read(no_master, Role::kWeight), 100);
  EXPECT_EQ(read(no_master, Role::kOptimizerState), 200);
}

TEST(OptimizerWork, MuonIteratesProducts) {
  // Five Newton-Schulz iterations of 4 m^2 n + 2 m^3 for one 64 x 256 matrix, whichever way it lies.
  const double expected = 5 * (4.0 * 64 * 64 * 256 + 2.0 * 64 * 64 * 64);
  for (const auto& [rows, columns] : {std::pair{64, 256}, {256, 64}}) {
    const OptimizerStep step{.parameters = 64 * 256, .rows = rows, .columns = columns, .kind = OptimizerKind::kMuon};
    EXPECT_NEAR(work(step).product.value(), expected, 1);
  }
}

TEST(OptimizerWork, ShampooPreconditionsInBlocks) {
  const OptimizerStep step{.parameters = 512 * 256, .rows = 512, .columns = 256, .kind = OptimizerKind::kShampoo};
  const double statistics_and_products = 4.0 * 512 * 512 * 256 + 4.0 * 512 * 256 * 256;
  const double roots = 11 * (std::pow(512, 3) + std::pow(256, 3)) / 100;
  EXPECT_NEAR(work(step).product.value(), statistics_and_products + roots, 1);
  EXPECT_TRUE(backward(step).empty());
}

TEST(Names, FollowTheVariant) {
  EXPECT_EQ(name(kind(Operator{MatMul{}})), "matmul");
  EXPECT_EQ(name(kind(Operator{OptimizerStep{}})), "optimizer_step");
  EXPECT_EQ(name(kind(Operator{Route{}})), "route");
  EXPECT_EQ(name(Role::kKvCache), "kv_cache");
  EXPECT_EQ(name(OptimizerKind::kMuon), "muon");
}

TEST(BackwardOperators, AgreeWithTheVector) {
  const std::vector<Operator> all = {MatMul{.m = 2, .n = 3, .k = 4},
                                     GroupedMatMul{.tokens = 2, .n = 3, .k = 4},
                                     Attention{},
                                     Norm{},
                                     Elementwise{},
                                     Softmax{},
                                     Embedding{},
                                     EmbeddingBag{},
                                     Convolution{},
                                     Pool{},
                                     CacheWrite{},
                                     Route{},
                                     CrossEntropy{},
                                     OptimizerStep{}};
  ASSERT_EQ(all.size(), std::variant_size_v<Operator>);
  for (const Operator& op : all) {
    const BackwardOperators few = backward_operators(op);
    EXPECT_EQ(static_cast<std::size_t>(few.count), backward(op).size());
    for (const Operator& back : backward(op)) EXPECT_EQ(back.index(), op.index());
  }
}

}  // namespace
}  // namespace rooftree::model

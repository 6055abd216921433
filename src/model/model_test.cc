#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace rooftree::model {
namespace {

// Llama-2-7B.
DecoderShape llama_7b() {
  return {.id = "llama",
          .layers = 32,
          .hidden = 4096,
          .heads = 32,
          .kv_heads = 32,
          .feed_forward = 11008,
          .vocabulary = 32000,
          .max_context = 4096};
}
// GPT-3 175B as in Korthikanti et al., arXiv:2205.05198.
DecoderShape gpt_175b() {
  return {.id = "gpt",
          .layers = 96,
          .hidden = 12288,
          .heads = 96,
          .feed_forward = 4 * 12288,
          .vocabulary = 51200,
          .max_context = 2048,
          .gated = false,
          .tied_embeddings = true,
          .learned_positions = true,
          .biases = true,
          .norm = NormKind::kLayer,
          .dropout = true};
}

Graph graph_of(const DecoderShape& shape, const Phase& phase, Fusion fusion = Fusion::kStandard) {
  const auto model = make_decoder(shape);
  EXPECT_TRUE(model.has_value());
  auto graph = model->build(phase, fusion);
  EXPECT_TRUE(graph.has_value());
  return std::move(graph).value();
}

// Sum over the nodes of `pass` in blocks whose name starts with `block`.
template <class Field>
double total(const Graph& graph, Field field, std::string_view block = {}, std::optional<Pass> pass = {}) {
  double sum = 0;
  for (const Block& b : graph.blocks) {
    if (b.name.substr(0, block.size()) != block) continue;
    for (const Node& node : b.nodes) {
      if (pass.has_value() && node.pass != *pass) continue;
      sum += static_cast<double>(b.repeat) * field(node.op);
    }
  }
  return sum;
}
double product(const Operator& op) { return work(op).product.value(); }
double weight_product(const Operator& op) { return kind(op) == OperatorKind::kAttention ? 0 : product(op); }

TEST(Decoder, ParametersHaveAClosedForm) {
  const double L = 32, h = 4096, f = 11008, V = 32000;
  const double expected = L * (4 * h * h + 3 * h * f + 2 * h) + 2 * V * h + h;
  for (const Fusion fusion :
       {Fusion::kEager, Fusion::kEagerFlash, Fusion::kStandard, Fusion::kIdeal, Fusion::kUnfusedAttention}) {
    for (const Phase& phase : {Phase::decode(1, 10), Phase::prefill(2, 10), Phase::train(1, 10)}) {
      const Graph graph = graph_of(llama_7b(), phase, fusion);
      EXPECT_EQ(parameter_count(graph), expected) << name(fusion) << " " << name(phase.kind);
      EXPECT_EQ(graph.footprint.weights, expected);
    }
  }
}

TEST(Decoder, DecodeIsTwoFlopPerParameterAndToken) {
  const double h = 4096, V = 32000, L = 32;
  for (const std::int64_t batch : {1, 7}) {
    const Graph graph = graph_of(llama_7b(), Phase::decode(batch, 100));
    const double matrices = parameter_count(graph) - V * h - (2 * L + 1) * h;  // neither looked-up embeddings nor norms
    EXPECT_EQ(total(graph, weight_product), 2 * matrices * static_cast<double>(batch));
    EXPECT_EQ(graph.tokens_processed, batch);
    EXPECT_EQ(graph.footprint.weights_touched, parameter_count(graph) - (V - static_cast<double>(batch)) * h);
  }
}

TEST(Decoder, PrefillAttentionIsHalfOfFourBADSSquared) {
  const double b = 2, s = 512, a = 32, d = 128, L = 32;
  const Graph graph = graph_of(llama_7b(), Phase::prefill(2, 512));
  const double attention = total(graph, product) - total(graph, weight_product);
  EXPECT_EQ(attention, L * 4 * b * a * d * s * (s + 1) / 2);
  // Unfused, the masked half is computed too.
  const Graph eager = graph_of(llama_7b(), Phase::prefill(2, 512), Fusion::kEager);
  const double scores = total(eager, [](const Operator& op) {
    const auto* p = std::get_if<MatMul>(&op);
    return p != nullptr && !p->weight ? product(op) : 0.0;
  });
  EXPECT_EQ(scores, L * 4 * b * a * d * s * s);
}

TEST(Decoder, PrefillAfterPastAttendsToBoth) {
  const Graph graph = graph_of(llama_7b(), Phase::prefill(1, 100, 900));
  const double attention = total(graph, product) - total(graph, weight_product);
  EXPECT_EQ(attention, 32.0 * 4 * 32 * 128 * (100 * 900 + 100 * 101 / 2));
  EXPECT_EQ(graph.footprint.kv_cache, 2.0 * 32 * 4096 * 1000);
}

TEST(Decoder, KvCacheIsTwoLayersHeadsWidthPerToken) {
  DecoderShape shape = llama_7b();
  shape.kv_heads = 8;
  const double per_token = 2.0 * 32 * 8 * 128;
  for (const std::int64_t context : {1, 17, 4096}) {
    const Graph graph = graph_of(shape, Phase::decode(3, context));
    EXPECT_EQ(graph.footprint.kv_cache, 3 * per_token * static_cast<double>(context));
    double read = 0, written = 0;
    for (const Block& b : graph.blocks) {
      for (const Node& node : b.nodes) {
        const Work w = work(node.op);
        read += static_cast<double>(b.repeat) * w.read[static_cast<std::size_t>(Role::kKvCache)];
        written += static_cast<double>(b.repeat) * w.written[static_cast<std::size_t>(Role::kKvCache)];
      }
    }
    EXPECT_EQ(read, graph.footprint.kv_cache);  // decode reads the cache once
    EXPECT_EQ(written, 3 * per_token);
  }
  shape.window = 100;
  EXPECT_EQ(graph_of(shape, Phase::decode(3, 4096)).footprint.kv_cache, 3 * per_token * 100);
}

TEST(Decoder, TrainingIsThreeForwardPasses) {
  for (const Fusion fusion : {Fusion::kEager, Fusion::kStandard}) {
    const Graph graph = graph_of(gpt_175b(), Phase::train(1, 2048), fusion);
    const double forward = total(graph, weight_product, {}, Pass::kForward);
    EXPECT_EQ(total(graph, weight_product, {}, Pass::kBackward), 2 * forward);
    EXPECT_EQ(total(graph, product, {}, Pass::kRecompute), 0);
    EXPECT_EQ(graph.footprint.gradients, parameter_count(graph));
    EXPECT_EQ(graph.footprint.optimizer_state_bytes, 12 * parameter_count(graph));
    EXPECT_EQ(graph.footprint.kv_cache, 0);
  }
}

TEST(Decoder, FullRecomputationRepeatsTheLayers) {
  Phase phase = Phase::train(1, 2048);
  phase.recompute = Recompute::kFull;
  const Graph graph = graph_of(gpt_175b(), phase, Fusion::kEager);
  const double forward = total(graph, product, "layer", Pass::kForward);
  EXPECT_EQ(total(graph, product, "layer", Pass::kRecompute), forward);
  EXPECT_EQ(total(graph, product, "layer"), 4 * forward);
  // 2 s b h bytes per layer: one 16-bit hidden state. Embedding and head keep theirs.
  const double s = 2048, h = 12288, L = 96;
  EXPECT_GE(graph.footprint.activations_saved, L * s * h);
  EXPECT_LE(graph.footprint.activations_saved, L * s * h + 3 * s * h);
}

TEST(Decoder, SelectiveRecomputationRepeatsTheAttentionCore) {
  Phase phase = Phase::train(1, 2048);
  phase.recompute = Recompute::kSelective;
  const double s = 2048, h = 12288, L = 96;
  const Graph graph = graph_of(gpt_175b(), phase, Fusion::kEager);
  EXPECT_EQ(total(graph, product, "layer", Pass::kRecompute), L * 4 * s * s * h);
  // 34 s b h bytes per layer.
  EXPECT_NEAR(2 * graph.footprint.activations_saved / (L * s * h), 34, 0.3);
  // Flash attention keeps no scores: nothing is left to select.
  EXPECT_EQ(total(graph_of(gpt_175b(), phase, Fusion::kEagerFlash), product, "layer", Pass::kRecompute), 0);
}

TEST(Decoder, SavedActivationsOfTheGptLayer) {
  // Korthikanti et al., equation 1: s b h (34 + 5 a s / h) bytes per layer, 16-bit activations and 1-byte masks.
  const double s = 2048, b = 2, h = 12288, a = 96, L = 96;
  const Graph graph = graph_of(gpt_175b(), Phase::train(2, 2048), Fusion::kEager);
  const double expected = s * b * h * (34 + 5 * a * s / h);
  // Within 1 %: the final norm and the head's input are not in the formula.
  EXPECT_NEAR(2 * graph.footprint.activations_saved / L / expected, 1, 0.01);
}

TEST(Decoder, OptimizersByGroup) {
  Phase phase = Phase::train(1, 128);
  phase.master_copy = false;
  const auto build = [&](OptimizerKind kind) {
    phase.optimizer = kind;
    return graph_of(llama_7b(), phase);
  };
  const double p = parameter_count(build(OptimizerKind::kSgd));
  const double V = 32000, h = 4096, vectors = (2 * 32 + 1) * h;
  EXPECT_EQ(build(OptimizerKind::kSgd).footprint.optimizer_state_bytes, 0);
  EXPECT_EQ(build(OptimizerKind::kSgdMomentum).footprint.optimizer_state_bytes, 4 * p);
  EXPECT_EQ(build(OptimizerKind::kAdam).footprint.optimizer_state_bytes, 8 * p);
  const double outside_muon = 2 * V * h + vectors;
  EXPECT_EQ(build(OptimizerKind::kMuon).footprint.optimizer_state_bytes, 4 * (p - outside_muon) + 8 * outside_muon);
  EXPECT_LT(build(OptimizerKind::kAdafactor).footprint.optimizer_state_bytes, 0.01 * p);
  for (const OptimizerKind kind :
       {OptimizerKind::kSgd, OptimizerKind::kMuon, OptimizerKind::kShampoo, OptimizerKind::kAdafactor}) {
    const Graph graph = build(kind);
    double updated = 0;
    for (const Block& b : graph.blocks) {
      for (const Node& node : b.nodes) {
        if (const auto* step = std::get_if<OptimizerStep>(&node.op))
          updated += static_cast<double>(b.repeat) * step->parameters;
      }
    }
    EXPECT_EQ(updated, p) << name(kind);
  }
}

TEST(Decoder, ExpertsAreReadAsTheyAreHit) {
  DecoderShape shape = llama_7b();
  shape.experts = 8;
  shape.top_k = 2;
  const double expert = 3.0 * 4096 * 11008, L = 32;
  const double total_experts = L * 8 * expert;
  for (const std::int64_t batch : {1, 4, 1000}) {
    const Graph graph = graph_of(shape, Phase::decode(batch, 10));
    const double untouched = L * expert * (8 - expected_experts_hit(static_cast<double>(batch), 8, 2));
    const double rows = (32000.0 - static_cast<double>(batch)) * 4096;
    EXPECT_NEAR(graph.footprint.weights_touched / (parameter_count(graph) - untouched - rows), 1, 1e-12);
    EXPECT_GT(parameter_count(graph), total_experts);
  }
}

TEST(BuildInto, ReusesTheGraphAndAgreesWithAFreshOne) {
  const auto dense = make_decoder(llama_7b());
  DecoderShape other = gpt_175b();
  const auto gpt = make_decoder(other);
  ASSERT_TRUE(dense && gpt);
  Graph reused;
  for (const Phase& phase : {Phase::decode(1, 100), Phase::decode(8, 2000), Phase::prefill(1, 50), Phase::train(2, 64),
                             Phase::train(1, 128), Phase::decode(3, 7)}) {
    for (const Model* model : {&dense.value(), &gpt.value()}) {
      for (const Fusion fusion : {Fusion::kStandard, Fusion::kEager}) {
        ASSERT_TRUE(model->build_into(phase, fusion, reused));
        ASSERT_TRUE(model->build_into(phase, fusion, reused));  // the second time only dimensions are written
        const Graph fresh = model->build(phase, fusion).value();
        ASSERT_EQ(reused.blocks.size(), fresh.blocks.size());
        ASSERT_EQ(reused.values.size(), fresh.values.size());
        for (std::size_t b = 0; b < fresh.blocks.size(); ++b) {
          EXPECT_EQ(reused.blocks[b].name, fresh.blocks[b].name);
          EXPECT_EQ(reused.blocks[b].repeat, fresh.blocks[b].repeat);
          ASSERT_EQ(reused.blocks[b].nodes.size(), fresh.blocks[b].nodes.size());
          for (std::size_t n = 0; n < fresh.blocks[b].nodes.size(); ++n) {
            const Node& x = reused.blocks[b].nodes[n];
            const Node& y = fresh.blocks[b].nodes[n];
            EXPECT_EQ(x.name, y.name);
            EXPECT_EQ(x.pass, y.pass);
            EXPECT_EQ(x.inputs, y.inputs);
            EXPECT_EQ(x.outputs, y.outputs);
            EXPECT_EQ(work(x.op).product.value(), work(y.op).product.value());
            EXPECT_EQ(work(x.op).read, work(y.op).read);
          }
        }
        for (std::size_t v = 0; v < fresh.values.size(); ++v) {
          EXPECT_EQ(reused.values[v].name, fresh.values[v].name);
          EXPECT_EQ(reused.values[v].shape.extents, fresh.values[v].shape.extents);
          EXPECT_EQ(reused.values[v].saved, fresh.values[v].saved);
        }
        EXPECT_EQ(reused.footprint.activations_live, fresh.footprint.activations_live);
        EXPECT_EQ(reused.footprint.activations_saved, fresh.footprint.activations_saved);
        EXPECT_EQ(reused.footprint.weights_touched, fresh.footprint.weights_touched);
        EXPECT_EQ(reused.name, fresh.name);
      }
    }
  }
}

TEST(BuildInto, RebuildsAGraphThatSomebodyChanged) {
  const auto model = make_decoder(llama_7b());
  Graph graph = model->build(Phase::decode(1, 100)).value();
  const double live = graph.footprint.activations_live;
  graph.blocks[1].nodes.pop_back();
  graph.values.pop_back();
  ASSERT_TRUE(model->build_into(Phase::decode(1, 100), Fusion::kStandard, graph));
  EXPECT_EQ(graph.footprint.activations_live, live);
  EXPECT_EQ(graph.blocks[1].nodes.back().name, "down_proj");
}

TEST(Build, RefusesPhasesOutOfRange) {
  const auto llama = make_decoder(llama_7b());
  const auto gpt = make_decoder(gpt_175b());
  for (const Phase& phase : {Phase::decode(0, 1), Phase::decode(1, 0), Phase::prefill(1, 0), Phase::prefill(1, 1, -1),
                             Phase::train(std::int64_t{1} << 40, 1), Phase::prefill(1 << 20, 1 << 20)}) {
    EXPECT_FALSE(llama->build(phase).has_value());
  }
  EXPECT_TRUE(gpt->build(Phase::decode(1, 2048)).has_value());
  const auto beyond = gpt->build(Phase::decode(1, 2049));
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().message, "gpt: decode: 2049 positions; expected at most the 2048 of its position table");
  Phase with_image = Phase::prefill(1, 10);
  with_image.images = 1;
  EXPECT_FALSE(llama->build(with_image).has_value());
}

TEST(MakeDecoder, RefusesShapesThatDoNotFit) {
  const auto refuse = [](auto change) {
    DecoderShape shape = llama_7b();
    change(shape);
    const auto model = make_decoder(shape);
    EXPECT_FALSE(model.has_value());
    return model ? std::string() : model.error().message;
  };
  EXPECT_EQ(refuse([](DecoderShape& s) { s.layers = 0; }), "llama: layers: 0; expected 1..100000");
  EXPECT_EQ(refuse([](DecoderShape& s) { s.heads = 31; }),
            "llama: heads: 31; expected a divisor of hidden 4096, or a head_dim");
  EXPECT_EQ(refuse([](DecoderShape& s) { s.kv_heads = 5; }),
            "llama: attention.kv_heads: 5; expected a divisor of attention.heads 32");
  refuse([](DecoderShape& s) { s.hidden = -1; });
  refuse([](DecoderShape& s) { s.heads = 0; });
  refuse([](DecoderShape& s) { s.feed_forward = 0; });
  refuse([](DecoderShape& s) { s.vocabulary = std::int64_t{1} << 40; });
  refuse([](DecoderShape& s) { s.experts = 4; });
}

}  // namespace
}  // namespace rooftree::model

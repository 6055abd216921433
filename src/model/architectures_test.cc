#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "model/model.h"
#include "model/summary.h"

namespace rooftree::model {
std::size_t allocations_so_far();  // allocation_counter_test.cc

namespace {

constexpr Fusion kFusions[] = {Fusion::kEager, Fusion::kEagerFlash, Fusion::kStandard, Fusion::kIdeal};

Model find(std::string_view id) {
  auto model = ModelCatalog::builtin().find(id);
  EXPECT_TRUE(model.has_value()) << id;
  return std::move(model).value();
}

Graph build(const Model& model, const Phase& phase, Fusion fusion = Fusion::kStandard) {
  auto graph = model.build(phase, fusion);
  EXPECT_TRUE(graph.has_value()) << (graph ? "" : graph.error().message);
  return std::move(graph).value();
}

template <class Field>
double sum(const Graph& graph, Field field, std::string_view block_prefix = {}) {
  double total = 0;
  for (const Block& b : graph.blocks) {
    if (b.name.substr(0, block_prefix.size()) != block_prefix) continue;
    for (const Node& node : b.nodes) total += static_cast<double>(b.repeat) * field(node);
  }
  return total;
}
double products(const Node& node) { return work(node.op).product.value(); }
bool is_fused_attention(const Node& node) { return kind(node.op) == OperatorKind::kAttention; }
double attention_products(const Node& node) { return is_fused_attention(node) ? products(node) : 0; }
double cache_reads(const Node& node) { return work(node.op).read[static_cast<std::size_t>(Role::kKvCache)]; }
double cache_writes(const Node& node) { return work(node.op).written[static_cast<std::size_t>(Role::kKvCache)]; }

std::int64_t repeat(const Graph& graph, std::string_view block) {
  for (const Block& b : graph.blocks) {
    if (b.name == block) return b.repeat;
  }
  return 0;
}
bool has_node(const Graph& graph, std::string_view name) {
  for (const Block& b : graph.blocks) {
    for (const Node& node : b.nodes) {
      if (node.name == name) return true;
    }
  }
  return false;
}

std::vector<Phase> phases_of(const Model& model) {
  std::vector<Phase> out;
  Phase full = Phase::train(2, 64);
  full.recompute = Recompute::kFull;
  Phase muon = Phase::train(1, 32);
  muon.optimizer = OptimizerKind::kMuon;
  muon.recompute = Recompute::kSelective;
  for (const Phase& phase :
       {Phase::decode(1, 1), Phase::decode(3, 300), Phase::prefill(2, 64), Phase::train(2, 64), full, muon}) {
    if (model.build(phase).has_value()) out.push_back(phase);
  }
  return out;
}

// What must hold of every graph, whatever the model.
TEST(EveryModel, GraphsAreConsistent) {
  int models = 0;
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (entry.kind == "incomplete") continue;
    ++models;
    const Model model = find(entry.id);
    const std::vector<Phase> phases = phases_of(model);
    ASSERT_GE(phases.size(), 4U) << entry.id;
    const double parameters = parameter_count(build(model, phases[0]));
    for (const Phase& phase : phases) {
      for (const Fusion fusion : kFusions) {
        const Graph graph = build(model, phase, fusion);
        const std::string where = entry.id + " " + std::string(name(phase.kind)) + " " + std::string(name(fusion));
        EXPECT_EQ(parameter_count(graph), parameters) << where;
        EXPECT_NEAR(graph.footprint.weights / parameters, 1, 1e-12) << where;
        EXPECT_LE(graph.footprint.weights_touched, graph.footprint.weights * (1 + 1e-12)) << where;
        EXPECT_GT(graph.footprint.activations_live, 0) << where;
        EXPECT_GT(graph.tokens_processed, 0) << where;
        double read = 0, updated = 0;
        for (const Block& b : graph.blocks) {
          std::set<std::string> names;
          for (const Node& node : b.nodes) {
            const Work w = work(node.op);
            EXPECT_TRUE(std::isfinite(w.product.value()) && w.product.value() >= 0) << where << " " << node.name;
            if (node.pass == Pass::kForward) {
              read += static_cast<double>(b.repeat) * w.read[static_cast<std::size_t>(Role::kWeight)];
              EXPECT_TRUE(names.insert(node.name).second || b.name == "interaction")
                  << where << ": two nodes are " << node.name;
            }
            if (const auto* step = std::get_if<OptimizerStep>(&node.op)) updated += step->parameters;
            for (const auto* ids : {&node.inputs, &node.outputs}) {
              for (const ValueId id : *ids) ASSERT_TRUE(!id.valid() || id.index < graph.values.size()) << where;
              EXPECT_TRUE(ids->empty() || ids->back().valid()) << where;
            }
          }
        }
        EXPECT_GT(read, 0.5 * graph.footprint.weights_touched) << where;  // folded norms and shared tables are not read twice
        const bool training = phase.kind == Phase::Kind::kTrain;
        EXPECT_NEAR(updated, training ? parameters : 0, 1e-9 * parameters) << where;
        EXPECT_EQ(graph.footprint.activations_saved > 0, training) << where;
        EXPECT_EQ(graph.footprint.gradients, training ? graph.footprint.weights : 0) << where;
        if (training) {
          EXPECT_EQ(graph.footprint.kv_cache, 0) << where;
        }
      }
    }
  }
  EXPECT_GE(models, 102);
}

TEST(EveryModel, LayersArePermuted) {
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (entry.kind.find("decoder") == std::string::npos || entry.kind.find("encoder") != std::string::npos) continue;
    const Graph graph = build(find(entry.id), Phase::decode(1, 10));
    std::set<std::int32_t> layers;
    for (const Block& block : graph.blocks) {
      const bool of_model = block.name.substr(0, 5) == "layer";
      EXPECT_EQ(block.layers.size(), of_model ? static_cast<std::size_t>(block.repeat) : 0U) << entry.id << " " << block.name;
      EXPECT_TRUE(std::is_sorted(block.layers.begin(), block.layers.end()));
      for (const std::int32_t layer : block.layers) EXPECT_TRUE(layers.insert(layer).second) << entry.id << " " << layer;
    }
    EXPECT_EQ(*layers.begin(), 0) << entry.id;
    EXPECT_EQ(*layers.rbegin(), static_cast<std::int32_t>(layers.size()) - 1) << entry.id;
  }
}

// What an engine relies on: every node reads weights, what enters the graph or the block, or what an earlier node wrote.
TEST(EveryModel, ExecutableGraphsAreClosed) {
  int executable = 0;
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    const Model model = find(entry.id);
    if (!model.numerics()) continue;
    ++executable;
    const Graph graph = build(model, Phase::decode(1, 10));
    bool carries = false;
    for (const Block& block : graph.blocks) {
      if (block.nodes.empty()) continue;
      const std::string where = entry.id + " " + block.name;
      std::set<std::uint32_t> known;
      const auto know = [&](ValueId id) {
        if (id.valid()) known.insert(id.index);
      };
      const auto knows = [&](ValueId id) {
        const Role role = graph[id].role;
        return role == Role::kWeight || role == Role::kInput || known.contains(id.index);
      };
      know(block.input);
      know(block.pending_input);
      for (const Node& node : block.nodes) {
        for (const ValueId id : node.inputs) {
          if (id.valid()) {
            EXPECT_TRUE(knows(id)) << where << ": " << node.name << " reads " << graph[id].name;
          }
        }
        if (const auto* norm = std::get_if<Norm>(&node.op)) {
          EXPECT_EQ(node.outputs.size(), norm->residual ? 2U : 1U) << where << " " << node.name;
          EXPECT_EQ(graph[node.inputs[norm->residual ? 2 : 1]].role, Role::kWeight) << where << " " << node.name;
        }
        if (std::holds_alternative<Attention>(node.op)) {
          EXPECT_EQ(graph[node.inputs.at(1)].role, Role::kKvCache) << where;
        }
        if (std::holds_alternative<GroupedMatMul>(node.op)) {
          EXPECT_EQ(graph[node.inputs.at(3)].name, "chosen_experts") << where;
        }
        for (const ValueId id : node.outputs) know(id);
      }
      if (block.name == "head") {
        EXPECT_FALSE(block.output.valid()) << where;
        EXPECT_EQ(block.pending_input.valid(), carries) << where;
        continue;
      }
      ASSERT_TRUE(block.output.valid()) << where;
      EXPECT_TRUE(knows(block.output)) << where;
      EXPECT_EQ(block.input.valid(), block.name != "embedding") << where;
      if (block.pending_output.valid()) {
        EXPECT_TRUE(knows(block.pending_output)) << where;
      }
      carries = block.pending_output.valid();
    }
    const Numerics& numerics = **model.numerics();
    for (const AttentionNumerics* a : {&numerics.local, &numerics.global}) {
      EXPECT_GT(a->scale, 0) << entry.id;
      EXPECT_EQ(static_cast<std::int64_t>(a->rope.inverse_frequencies.size()), a->rope.dims / 2) << entry.id;
      for (const double frequency : a->rope.inverse_frequencies) EXPECT_TRUE(frequency > 0 && frequency <= 1) << entry.id;
    }
  }
  EXPECT_GE(executable, 60);
}

TEST(Numerics, SaysWhatCannotBeExecuted) {
  for (const auto& [id, what] : {std::pair{"t5-base", "models of the kind 'encoder-decoder'"},
                                 {"resnet-50", "models of the kind 'convolutional'"},
                                 {"llama-3.2-11b-vision", "cross-attention to images"},
                                 {"llama-4-scout", "chunked attention"},
                                 {"phi-3-small-8k", "the activation 'gegelu'"}}) {
    const auto numerics = find(id).numerics();
    ASSERT_FALSE(numerics.has_value()) << id;
    EXPECT_EQ(numerics.error().message, std::string(id) + ": cannot be executed: it needs " + what);
  }
}

TEST(EveryModel, TrainingIsThreeForwardPassesOfProducts) {
  const auto of = [](const Graph& graph, Pass pass) {
    return sum(graph,
               [pass](const Node& node) { return node.pass == pass && !is_fused_attention(node) ? products(node) : 0.0; });
  };
  for (const ModelEntry& entry : ModelCatalog::builtin().entries()) {
    if (entry.kind == "incomplete") continue;
    const Graph graph = build(find(entry.id), Phase::train(1, 64));
    EXPECT_NEAR(of(graph, Pass::kBackward) / of(graph, Pass::kForward), 2, 1e-12) << entry.id;
  }
}

TEST(BuildInto, DoesNotAllocateOnceTheGraphHeldTheModel) {
  for (const char* id : {"llama-2-7b", "deepseek-v3", "gemma-3-4b", "gpt-oss-20b", "whisper-large-v3", "resnet-50",
                         "sdxl-base-unet", "dlrm-dcnv2-mlperf", "bert-base-uncased", "llama-3.2-11b-vision"}) {
    const Model model = find(id);
    for (Phase phase : phases_of(model)) {
      Graph graph;
      ASSERT_TRUE(model.build_into(phase, Fusion::kStandard, graph));
      phase.batch += 1;
      phase.past += phase.kind == Phase::Kind::kDecode ? 17 : 0;
      const std::size_t before = allocations_so_far();
      const bool built = model.build_into(phase, Fusion::kStandard, graph).has_value();
      const std::size_t allocations = allocations_so_far() - before;
      EXPECT_TRUE(built) << id;
      EXPECT_EQ(allocations, 0U) << id << " " << name(phase.kind);
    }
  }
}

// --- one architecture at a time ---

TEST(LatentAttention, DecodeRunsOnLatents) {
  const Model v3 = find("deepseek-v3");
  const double L = 61, heads = 128, context = 1000, batch = 3;
  const Graph graph = build(v3, Phase::decode(3, 1000));
  EXPECT_EQ(graph.footprint.kv_cache, L * batch * context * 576);  // latent 512 and rotated key 64, once for all heads
  EXPECT_EQ(sum(graph, cache_reads), graph.footprint.kv_cache);
  EXPECT_EQ(sum(graph, cache_writes), L * batch * 576);
  EXPECT_EQ(sum(graph, attention_products), L * 2 * batch * heads * context * (576 + 512));
  EXPECT_TRUE(has_node(graph, "q_absorb"));
  EXPECT_FALSE(has_node(graph, "kv_b_proj"));
}

TEST(LatentAttention, PrefillExpandsKeysAndValues) {
  const Model v3 = find("deepseek-v3");
  const double L = 61, heads = 128, s = 500, past = 100;
  const Graph graph = build(v3, Phase::prefill(1, 500, 100));
  EXPECT_EQ(sum(graph, attention_products), L * 2 * heads * (s * past + s * (s + 1) / 2) * (192 + 128));
  const double expansion = sum(graph, [](const Node& node) { return node.name == "kv_b_proj" ? products(node) : 0.0; });
  EXPECT_EQ(expansion, L * 2 * (s + past) * 512 * heads * (128 + 128));
  // Both forms use the same matrix: its products per position are equal when each is applied once.
  const Graph decode = build(v3, Phase::decode(1, 600));
  const double absorbed =
      sum(decode, [](const Node& node) { return node.name == "q_absorb" || node.name == "v_absorb" ? products(node) : 0.0; });
  EXPECT_EQ(absorbed, expansion / (s + past));
}

TEST(LatentAttention, SparseSelectionBoundsTheAttention) {
  const Model sparse = find("deepseek-v3.2");
  const auto reads = [&](std::int64_t context) {
    return sum(build(sparse, Phase::decode(1, context)),
               [](const Node& node) { return is_fused_attention(node) ? cache_reads(node) : 0; });
  };
  EXPECT_EQ(reads(1000), 61.0 * 1000 * 576);
  EXPECT_EQ(reads(2048), 61.0 * 2048 * 576);
  EXPECT_EQ(reads(100'000), 61.0 * 2048 * 576);
  // The indexer reads one small key per position.
  const double index = sum(build(sparse, Phase::decode(1, 100'000)),
                           [](const Node& node) { return node.name == "index_scores" ? cache_reads(node) : 0.0; });
  EXPECT_EQ(index, 61.0 * 100'000 * 128);
}

TEST(MixtureOfExperts, FirstLayersAreDense) {
  const Graph graph = build(find("deepseek-v3"), Phase::decode(1, 10));
  EXPECT_EQ(repeat(graph, "layer.dense"), 3);
  EXPECT_EQ(repeat(graph, "layer.moe"), 58);
  // Products of the routed experts for one token: 8 of 3 matrices of 7168 x 2048.
  const double routed =
      sum(graph, [](const Node& node) { return kind(node.op) == OperatorKind::kGroupedMatMul ? products(node) : 0.0; });
  EXPECT_EQ(routed, 58.0 * 8 * 2 * 3 * 7168 * 2048);
  EXPECT_TRUE(has_node(graph, "shared_gate_up_proj"));
}

TEST(MixtureOfExperts, InterleavedWithDenseLayersAndChunks) {
  const Graph graph = build(find("llama-4-maverick"), Phase::decode(1, 20'000));
  // Every second layer has experts, every fourth attends globally; the global ones all have experts.
  EXPECT_EQ(repeat(graph, "layer.local.dense"), 24);
  EXPECT_EQ(repeat(graph, "layer.local.moe"), 12);
  EXPECT_EQ(repeat(graph, "layer.global.moe"), 12);
  // Chunks of 8192: position 19999 reads 19999 mod 8192 + 1 positions, and up to 8192 are kept.
  const double width = 2.0 * 8 * 128;
  EXPECT_EQ(sum(graph, cache_reads), width * (36 * (19'999 % 8192 + 1) + 12 * 20'000));
  EXPECT_EQ(graph.footprint.kv_cache, width * (36 * 8192 + 12 * 20'000));
}

TEST(Windows, LocalLayersKeepTheirWindow) {
  const double width = 2.0 * 4 * 256;
  for (const std::int64_t context : {500, 1024, 1025, 100'000}) {
    const Graph graph = build(find("gemma-3-4b"), Phase::decode(1, context));
    EXPECT_EQ(repeat(graph, "layer.local"), 29);
    EXPECT_EQ(repeat(graph, "layer.global"), 5);
    const double local = std::min<double>(static_cast<double>(context), 1024);
    EXPECT_EQ(graph.footprint.kv_cache, width * (29 * local + 5 * static_cast<double>(context)));
    EXPECT_EQ(sum(graph, cache_reads), graph.footprint.kv_cache);
  }
  const Graph gemma2 = build(find("gemma-2-2b"), Phase::decode(1, 10));
  EXPECT_EQ(repeat(gemma2, "layer.local"), 13);
  EXPECT_EQ(repeat(gemma2, "layer.global"), 13);
}

TEST(ParallelBlocks, ShareANormOrHaveTwo) {
  const auto norms = [](const char* id) {
    return sum(
        build(find(id), Phase::decode(1, 10)),
        [](const Node& node) { return kind(node.op) == OperatorKind::kNorm ? 1.0 : 0.0; }, "layer");
  };
  EXPECT_EQ(norms("falcon-7b"), 32);
  EXPECT_EQ(norms("falcon-40b"), 2 * 60);
}

TEST(Sandwich, NormsBeforeAndAfter) {
  const Graph graph = build(find("gemma-2-2b"), Phase::decode(1, 10));
  EXPECT_EQ(sum(
                graph, [](const Node& node) { return kind(node.op) == OperatorKind::kNorm ? 1.0 : 0.0; }, "layer"),
            4 * 26);
  EXPECT_TRUE(has_node(graph, "logit_softcap"));
  EXPECT_TRUE(has_node(graph, "embedding_scale"));
}

TEST(Vision, TowerRunsOnlyOverImages) {
  const Model gemma = find("gemma-3-4b");
  const Graph text = build(gemma, Phase::prefill(1, 300));
  Phase phase = Phase::prefill(1, 300);
  phase.images = 2;
  const Graph seen = build(gemma, phase);
  EXPECT_EQ(parameter_count(text), parameter_count(seen));
  EXPECT_EQ(sum(text, products, "vision"), 0);
  // Two pictures of 64 x 64 patches through 27 layers of 4 h^2 + 2 h f and full attention, patches and the projector.
  const double n = 2 * 4096, h = 1152, f = 4304;
  const double layers = 27 * (2 * n * (4 * h * h + 2 * h * f) + 4 * n * 4096 * h);
  EXPECT_EQ(sum(seen, products, "vision"), layers + 2 * n * h * 3 * 14 * 14 + 2 * 512 * h * 2560);
  EXPECT_LT(text.footprint.weights_touched, 0.91 * seen.footprint.weights_touched);
}

TEST(Vision, CrossAttentionLayersNeedImages) {
  const Model llama = find("llama-3.2-11b-vision");
  const Graph text = build(llama, Phase::decode(1, 100));
  Phase with_image = Phase::decode(1, 100);
  with_image.images = 1;
  const Graph seen = build(llama, with_image);
  EXPECT_EQ(text.footprint.kv_cache, 32.0 * 100 * 2 * 8 * 128);
  EXPECT_EQ(seen.footprint.kv_cache, text.footprint.kv_cache + 8.0 * 4 * 1601 * 2 * 8 * 128);
  EXPECT_EQ(sum(text, products, "layer.cross"), 0);
  EXPECT_GT(sum(seen, products, "layer.cross"), 0);
  EXPECT_EQ(sum(seen, products, "vision"), 0);  // decode sees the cached states, not the picture
}

TEST(EncoderDecoders, DecodeLeavesTheEncoderAtRest) {
  for (const char* id : {"t5-base", "whisper-large-v3"}) {
    const Graph graph = build(find(id), Phase::decode(1, 10));
    EXPECT_EQ(sum(graph, products, "encoder"), 0) << id;
    EXPECT_LT(graph.footprint.weights_touched, 0.7 * graph.footprint.weights) << id;
  }
  // Self-attention keeps 10 positions, cross-attention 1500.
  const Graph whisper = build(find("whisper-large-v3"), Phase::decode(2, 10));
  EXPECT_EQ(whisper.footprint.kv_cache, 2.0 * 32 * 2 * 1280 * (10 + 1500));
  Phase shorter = Phase::decode(2, 10);
  shorter.source = 500;
  EXPECT_EQ(build(find("whisper-large-v3"), shorter).footprint.kv_cache, 2.0 * 32 * 2 * 1280 * (10 + 500));
}

TEST(EncoderDecoders, T5PrefillEncodesAndStarts) {
  const double n = 100, h = 768, f = 3072, L = 12;
  const Graph graph = build(find("t5-base"), Phase::prefill(1, 100));
  const double encoder = L * (2 * n * (4 * h * h + 2 * h * f) + 4 * n * n * h);
  EXPECT_EQ(sum(graph, products, "encoder.layer"), encoder);
  const double start_token = L * (2 * (6 * h * h + 2 * h * f) + 4 * h * (1 + n));
  const double cross_keys = L * 2 * n * 2 * h * h;
  EXPECT_EQ(sum(graph, products, "decoder.layer"), start_token + cross_keys);
}

TEST(Encoders, HaveNoDecode) {
  for (const char* id : {"bert-base-uncased", "vit-b-16", "resnet-50", "sdxl-base-unet", "dlrm-mlperf-v1"}) {
    const auto graph = find(id).build(Phase::decode(1, 10));
    ASSERT_FALSE(graph.has_value()) << id;
    EXPECT_NE(graph.error().message.find("no decode phase; expected prefill or train"), std::string::npos)
        << graph.error().message;
    EXPECT_FALSE(find(id).build(Phase::prefill(1, 10, 5)).has_value()) << id;
  }
  EXPECT_TRUE(find("bert-base-uncased").build(Phase::prefill(1, 512)).has_value());
  EXPECT_FALSE(find("bert-base-uncased").build(Phase::prefill(1, 513)).has_value());
}

TEST(Encoders, AttendInBothDirections) {
  const double n = 128, h = 768;
  EXPECT_EQ(sum(build(find("bert-base-uncased"), Phase::prefill(1, 128)), attention_products), 12 * 4 * n * n * h);
}

TEST(Images, ForwardMultiplyAddsAreThePublishedOnes) {
  // Published counts leave the products inside attention out, as counters of layers do.
  const auto mac = [](const char* id) {
    const Graph graph = build(find(id), Phase::prefill(1, 1));
    return (sum(graph, products) - sum(graph, attention_products)) / 2;
  };
  EXPECT_NEAR(mac("resnet-50") / 4.09e9, 1, 0.005);
  EXPECT_NEAR(mac("sdxl-base-unet") / 2.98e12, 1, 0.01);
  EXPECT_NEAR(mac("vit-b-16") / 17.6e9, 1, 0.05);
  EXPECT_NEAR(mac("vit-l-16") / 61.6e9, 1, 0.05);
  EXPECT_NEAR(mac("vit-h-14") / 167.3e9, 1, 0.05);
}

TEST(Images, ResNetFoldsItsNormsForInferenceOnly) {
  const Model resnet = find("resnet-50");
  const auto norms = [&](const Phase& phase, Fusion fusion) {
    return sum(build(resnet, phase, fusion), [](const Node& node) {
      return kind(node.op) == OperatorKind::kNorm && node.pass == Pass::kForward ? 1.0 : 0.0;
    });
  };
  EXPECT_EQ(norms(Phase::prefill(1, 1), Fusion::kStandard), 0);
  EXPECT_EQ(norms(Phase::prefill(1, 1), Fusion::kEager), 53);
  EXPECT_EQ(norms(Phase::train(1, 1), Fusion::kStandard), 53);
}

TEST(Recommenders, ReadTheRowsThatAreLookedUp) {
  const Graph graph = build(find("dlrm-mlperf-v1"), Phase::prefill(64, 1));
  const double tables = sum(graph, [](const Node& node) {
    return kind(node.op) == OperatorKind::kEmbeddingBag ? work(node.op).read[static_cast<std::size_t>(Role::kWeight)] : 0.0;
  });
  EXPECT_EQ(tables, 64.0 * 26 * 128);
  // Top: 128 and 27 choose 2 pairs. Products of both towers and the dots.
  const double bottom = 13 * 512 + 512 * 256 + 256 * 128;
  const double top = 479 * 1024 + 1024 * 1024 + 1024 * 512 + 512 * 256 + 256;
  EXPECT_EQ(sum(graph, products), 64.0 * 2 * (bottom + top + 27 * 27 * 128));
  // 104.5 GB in fp32, as its README says.
  EXPECT_NEAR(parameter_count(build(find("dlrm-dcnv2-mlperf"), Phase::prefill(1, 1))) * 4 / 1e9, 104.5, 0.2);
}

TEST(Fusion, IdealHasNoElementwiseKernelsInTheLayers) {
  const Model llama = find("llama-3.1-8b");
  const auto nodes = [&](Fusion fusion, std::string_view block) {
    return sum(
               build(llama, Phase::decode(1, 10), fusion), [](const Node&) { return 1.0; }, block) /
           32;
  };
  // qkv, rope with cache write, attention, output, gate and up, activation, down, two norms.
  EXPECT_EQ(nodes(Fusion::kStandard, "layer"), 9);
  EXPECT_EQ(nodes(Fusion::kIdeal, "layer"), 8);
  // q, k, v, two rotations, cache write, attention, output, two adds, gate, up, activation, down, two norms.
  EXPECT_EQ(nodes(Fusion::kEagerFlash, "layer"), 16);
  // Scores, scale and mask, softmax and the weighted sum instead of attention.
  EXPECT_EQ(nodes(Fusion::kEager, "layer"), 19);
  for (const Fusion fusion : kFusions) {
    const Graph graph = build(llama, Phase::decode(1, 10), fusion);
    EXPECT_EQ(sum(graph, products), sum(build(llama, Phase::decode(1, 10)), products)) << name(fusion);
  }
}

TEST(Summary, CountsPerTokenAndPerSample) {
  const auto llama = summarise(find("llama-3.1-70b"));
  ASSERT_TRUE(llama.has_value());
  EXPECT_TRUE(llama->per_token);
  EXPECT_EQ(llama->kv_values_per_token, 2.0 * 80 * 8 * 128);
  EXPECT_NEAR(llama->product_flop.value() / (2 * llama->active_parameters), 1, 0.001);
  const auto resnet = summarise(find("resnet-50"));
  ASSERT_TRUE(resnet.has_value());
  EXPECT_FALSE(resnet->per_token);
  EXPECT_FALSE(resnet->kv_values_per_token.has_value());
  EXPECT_FALSE(summarise(find("kimi-k3")).has_value());
}

}  // namespace
}  // namespace rooftree::model

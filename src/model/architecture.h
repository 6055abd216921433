#pragma once

// Shape parameters of the families of models, and their builders. Private to the layer: models are made by the catalogue, the
// config.json reader, or make_decoder.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/graph_writer.h"
#include "model/model.h"

namespace rooftree::model {

struct DecoderSpec;

class Architecture {
 public:
  Architecture();
  virtual ~Architecture() = default;
  Architecture(const Architecture&) = delete;
  Architecture& operator=(const Architecture&) = delete;

  [[nodiscard]] virtual std::string_view kind() const = 0;  // "decoder", "moe decoder", "encoder", …
  // What the phase asks for that this model cannot do; Ok otherwise.
  [[nodiscard]] virtual Status check(const Phase& phase) const = 0;
  virtual void write(GraphWriter& writer) const = 0;
  [[nodiscard]] virtual std::int64_t tokens_processed(const Phase& phase) const = 0;
  [[nodiscard]] virtual Description describe() const = 0;
  // The shape of a decoder; null for other kinds.
  [[nodiscard]] virtual const DecoderSpec* decoder() const { return nullptr; }
  // The longest sequence that its position table holds; 0 = no table.
  [[nodiscard]] virtual std::int64_t position_limit() const { return 0; }

  // Unique in the process, so that a graph knows which architecture wrote it.
  [[nodiscard]] std::uint32_t serial() const { return serial_; }

 private:
  std::uint32_t serial_;
};

// Upper bounds of shape parameters: far above any model, and small enough that products of a few of them stay exact.
inline constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxLayers = 100'000;
inline constexpr std::int64_t kMaxHeads = 65'536;
inline constexpr std::int64_t kMaxExperts = 65'536;
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;
inline constexpr std::int64_t kMaxPhaseTokens = std::int64_t{1} << 36;  // batch * (past + tokens)

struct AttentionSpec {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  std::int64_t window = 0;      // of windowed layers
  std::int64_t chunk = 0;       // of chunked layers (Llama 4)
  std::int64_t rotary_dim = 0;  // values per head that are rotated; 0 = positions enter elsewhere
  bool q_bias = false, k_bias = false, v_bias = false, o_bias = false;
  bool qk_norm = false;
  bool sinks = false;    // one learned logit per head
  bool softcap = false;  // scores pass through c tanh(x/c)
  // Multi-head latent attention (DeepSeek-V2): kv_rank > 0. head_dim = nope_dim + rope_dim.
  std::int64_t q_rank = 0, kv_rank = 0, nope_dim = 0, rope_dim = 0;
  // Sparse attention over the top_k positions that an indexer picks (DeepSeek-V3.2); 0 = none.
  std::int64_t index_heads = 0, index_dim = 0, index_top_k = 0;

  [[nodiscard]] bool latent() const { return kv_rank > 0; }
};

struct FeedForwardSpec {
  std::int64_t width = 0;
  bool gated = true, bias = false, relu = false;
};

struct MoeSpec {
  std::int64_t experts = 0, top_k = 1, width = 0;  // experts 0 = no mixture
  std::int64_t shared_width = 0;                   // of all shared experts together
  bool shared_gate = false;                        // a sigmoid of one product scales the shared expert (Qwen2-MoE)
  bool gated = true, bias = false, relu = false;
  bool router_bias = false;     // added to the router's logits
  bool selection_bias = false;  // added to the scores for the choice alone (DeepSeek-V3)
};

struct Projection {
  std::int64_t in = 0, out = 0, rows_per_image = 0;
  bool bias = false;
};

struct VisionTower {
  std::int64_t layers = 0, hidden = 0, heads = 0, feed_forward = 0;
  std::int64_t global_layers = 0;  // after the others, over all tiles (Llama 3.2)
  std::int64_t image_size = 0, patch_size = 0, channels = 3, tiles = 1;
  bool class_token = false, biases = true;
  std::int64_t extra_parameters = 0;  // tile and position embeddings beyond one table
  std::vector<Projection> projector;  // into the language model

  [[nodiscard]] std::int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  [[nodiscard]] std::int64_t tokens_per_tile() const { return patches() + (class_token ? 1 : 0); }
};

struct DecoderSpec {
  std::int64_t layers = 0, hidden = 0, vocabulary = 0, max_positions = 0;
  NormKind norm = NormKind::kRms;
  bool tied_embeddings = false, learned_positions = false;
  bool embedding_norm = false, embedding_scale = false, embedding_dropout = false, head_bias = false, final_softcap = false;
  bool post_norms = false;  // a norm after attention and after the feed-forward too (Gemma 2, Grok)
  bool parallel = false;    // attention and feed-forward side by side (Falcon, GPT-NeoX)
  int parallel_norms = 1;
  bool dropout = false;
  AttentionSpec attention{};
  std::int64_t global_every = 0;  // every n-th layer attends without window or chunk; 0 = none does
  bool global_without_rope = false;
  FeedForwardSpec dense{};
  MoeSpec moe{};
  std::int64_t first_dense = 0;   // leading layers without experts
  std::int64_t moe_every = 1;     // then every n-th has them
  std::int64_t cross_layers = 0;  // of `layers`: attend to image states instead (Llama 3.2 vision)
  std::optional<VisionTower> vision{};
};
// Checks that the parameters are in range and fit together; the message names the parameter.
Result<std::shared_ptr<const Architecture>> make_decoder_architecture(const DecoderSpec& spec);

struct EncoderSpec {  // BERT
  std::int64_t layers = 0, hidden = 0, heads = 0, feed_forward = 0, vocabulary = 0, max_positions = 0, token_types = 0;
  bool pooler = true, dropout = true;
  bool masked_lm_head = false;  // decoder product over the vocabulary, tied
};
Result<std::shared_ptr<const Architecture>> make_encoder_architecture(const EncoderSpec& spec);

struct VisionTransformerSpec {
  std::int64_t layers = 0, hidden = 0, heads = 0, feed_forward = 0, image_size = 0, patch_size = 0, classes = 0;
};
Result<std::shared_ptr<const Architecture>> make_vision_transformer_architecture(const VisionTransformerSpec& spec);

struct EncoderDecoderSpec {
  enum class Kind : std::uint8_t { kT5, kWhisper } flavour = Kind::kT5;
  std::int64_t encoder_layers = 0, decoder_layers = 0, hidden = 0, heads = 0, head_dim = 0, feed_forward = 0, vocabulary = 0;
  bool tied_embeddings = true, gated = false, relu = true, dropout = false;
  std::int64_t relative_buckets = 32;                                             // T5
  std::int64_t mel_bins = 0, max_source_positions = 0, max_target_positions = 0;  // Whisper; T5: default source length
};
Result<std::shared_ptr<const Architecture>> make_encoder_decoder_architecture(const EncoderDecoderSpec& spec);

struct ResNetSpec {
  std::vector<std::int64_t> stage_blocks, stage_width;
  std::int64_t expansion = 4, image_size = 224, classes = 1000;
};
Result<std::shared_ptr<const Architecture>> make_resnet_architecture(const ResNetSpec& spec);

struct UNetSpec {  // of a latent diffusion model
  std::int64_t in_channels = 4, out_channels = 4, model_channels = 0, residual_blocks = 0, head_channels = 64;
  std::vector<std::int64_t> channel_multipliers, transformer_depth;  // per level
  std::int64_t context_dim = 0, context_tokens = 0, vector_dim = 0, latent_size = 0;
};
Result<std::shared_ptr<const Architecture>> make_unet_architecture(const UNetSpec& spec);

struct RecommenderSpec {  // DLRM
  std::int64_t embedding_dim = 0;
  std::vector<std::int64_t> bottom, top;  // widths, inputs first; `top` without its input
  std::vector<std::int64_t> table_rows;
  std::int64_t cross_layers = 0, cross_rank = 0;  // DCN v2 interaction; 0 = pairwise dots
  std::int64_t lookups = 1;
};
Result<std::shared_ptr<const Architecture>> make_recommender_architecture(const RecommenderSpec& spec);

// Rows of a phase: batch times the rows of one sequence or picture, bounded like the tokens of a phase.
Status check_rows(const Phase& phase, std::int64_t rows_per_item);

// Range check of one parameter: "layers: 0; expected 1..100000".
Status check_range(std::string_view name, std::int64_t value, std::int64_t low, std::int64_t high);

}  // namespace rooftree::model

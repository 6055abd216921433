#pragma once

// A model: identity, shape parameters, and how to build the graph of a phase. Models come from the catalogue, or from a
// Hugging Face config.json (file or folder). A model without weights is still a model.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "model/graph.h"
#include "model/numerics.h"

namespace rooftree::model {

enum class Recompute : std::uint8_t { kNone, kSelective, kFull };

// What is computed. Prefill: `tokens` new positions per sequence after `past` cached ones. Decode: one new position per
// sequence with `past` cached ones. Train: forward, backward and optimizer over `batch` sequences of `tokens`.
// Models without sequences (vision, recommenders) read only `batch`.
struct Phase {
  enum class Kind : std::uint8_t { kPrefill, kDecode, kTrain };
  Kind kind = Kind::kDecode;
  std::int64_t batch = 1;
  std::int64_t tokens = 1;
  std::int64_t past = 0;
  Recompute recompute = Recompute::kNone;
  OptimizerKind optimizer = OptimizerKind::kAdam;
  bool master_copy = true;  // fp32 master weights beside 16-bit ones
  bool all_logits = false;  // prefill: logits of every position (scoring) instead of the last one per sequence
  std::int64_t images = 0;  // per sequence, for models with a vision tower: prefill and training run the tower over them;
                            // the positions that they fill are part of `tokens` (or of the cross-attention)
  // Encoder-decoder: encoder positions; 0 = the model's own (Whisper, decode), else `tokens`. Prefill of T5 encodes and decodes
  // one start token; Whisper's encodes and decodes a prompt of `tokens`.
  std::int64_t source = 0;

  static Phase prefill(std::int64_t batch, std::int64_t tokens, std::int64_t past = 0);
  static Phase decode(std::int64_t batch, std::int64_t context);
  static Phase train(std::int64_t batch, std::int64_t tokens);
};
[[nodiscard]] std::string_view name(Phase::Kind kind);

// Which operators run as one kernel. kEager: every operator its own kernel, attention unfused (scores materialised). kStandard:
// today's engines (q,k,v in one product, gate and up in one, flash attention, residual add with the norm, rope with the cache
// write). kIdeal: also element-wise work in the epilogue of products, no traffic of its own.
// kUnfusedAttention: as kStandard but with materialised scores (training frameworks before flash attention, compiled eager
// code).
enum class Fusion : std::uint8_t { kEager, kEagerFlash, kStandard, kIdeal, kUnfusedAttention };
[[nodiscard]] std::string_view name(Fusion fusion);

class Architecture;  // shape parameters of one family and its builder; private to the layer

using Description = std::vector<std::pair<std::string, std::string>>;

struct Model {
  std::string id;
  std::string name;
  std::string family;
  std::string source;                 // in one line
  std::vector<std::string> sources;   // one by one
  std::vector<std::string> recalled;  // fields that are from memory, not read in a source; "*" = all
  std::string notes;
  std::optional<double> published_parameters;  // what the publisher says, if it does
  std::optional<double> published_active_parameters;
  std::int64_t max_context = 0;  // 0 = not stated
  DType native_weight_type = DType::kBf16;
  std::shared_ptr<const Architecture> architecture;  // shared by copies of the model; immutable

  std::shared_ptr<const Numerics> constants;  // what execution needs besides; null where it cannot be executed
  std::string not_executable;                 // and what that is due to: "cross-attention to images"

  // The constants of execution. kInvalid names what the model has that is not executed.
  [[nodiscard]] Result<const Numerics*> numerics() const;

  // The graph of a phase. kInvalid when the phase does not apply (decode of a ResNet) or exceeds what the model can do.
  Result<Graph> build(const Phase& phase, Fusion fusion = Fusion::kStandard) const;
  // Same, reusing the storage of `graph`: no allocation once it has held this model.
  Status build_into(const Phase& phase, Fusion fusion, Graph& graph) const;

  // Lines of "name: value" with the shape parameters, for `rooftree models NAME`.
  [[nodiscard]] Description describe() const;
};

struct ModelEntry {
  std::string id, name, family, kind;  // kind: "decoder", "moe decoder", "encoder", "vision", …
  std::optional<double> published_parameters, published_active_parameters;
};

class ModelCatalog {
 public:
  static const ModelCatalog& builtin();
  static Result<ModelCatalog> from_directory(const std::filesystem::path& directory);  // models/*.json

  [[nodiscard]] std::vector<ModelEntry> entries() const;
  Result<Model> find(std::string_view id) const;
  // MODEL as written on the command line: an id, a .gguf file, a config.json, or a folder that holds one. Unknown ids get
  // suggestions.
  Result<Model> resolve(std::string_view spec) const;

 private:
  struct File {
    std::string id, owned_text;
    std::string_view builtin_text;
  };
  std::vector<File> files_;
};

// Reads a Hugging Face config.json. An architecture that is not known, or a field that is missing or out of range, is an error
// naming the field.
Result<Model> parse_hf_config(std::string_view json_text, std::string_view where);

// A decoder-only transformer stated directly, for models that exist only as shapes (validation rows, sketches).
struct DecoderShape {
  std::string id = "custom";
  std::int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;  // head_dim 0 = hidden / heads
  std::int64_t feed_forward = 0, vocabulary = 0, max_context = 0;
  bool gated = true, tied_embeddings = false, learned_positions = false, biases = false;
  NormKind norm = NormKind::kRms;
  bool dropout = false;     // training applies dropout after attention, on its scores, and after the feed-forward (GPT-2, BERT)
  bool parallel = false;    // attention and feed-forward read the same norm (Falcon)
  bool alibi = false;       // no rotation of queries and keys, no learned positions
  std::int64_t window = 0;  // sliding window of every layer; 0 = none
  std::int64_t experts = 0, top_k = 0;  // mixture of experts of width `feed_forward`; 0 = dense
};
Result<Model> make_decoder(const DecoderShape& shape);

}  // namespace rooftree::model

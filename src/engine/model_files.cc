#include "engine/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/block_codec.h"
#include "formats/gguf.h"
#include "formats/random_source.h"
#include "formats/safetensors.h"
#include "model/gguf_config.h"

namespace rooftree::engine {
namespace {

namespace fs = std::filesystem;

// "path size time" of each file that weights may come from, sorted.
void identify(ModelFiles& files, const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(path, error);
  files.source = error ? path.string() : whole.string();
  std::vector<fs::path> parts;
  if (fs::is_directory(path, error)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
      const fs::path extension = entry.path().extension();
      if (extension == ".safetensors" || extension == ".json") parts.push_back(entry.path());
    }
    std::sort(parts.begin(), parts.end());
  } else {
    parts.push_back(path);
  }
  files.stamp = files.source;
  for (const fs::path& part : parts) {
    std::error_code unknown;
    const std::uintmax_t size = fs::file_size(part, unknown);
    const auto time = fs::last_write_time(part, unknown).time_since_epoch().count();
    files.stamp += fmt::format("\n{} {} {}", part.filename().string(), size, time);
  }
}

Result<ModelFiles> open_gguf(const fs::path& path) {
  ROOFTREE_TRY(formats::GgufFile opened, formats::GgufFile::open(path));
  auto file = std::make_unique<formats::GgufFile>(std::move(opened));
  ModelFiles files;
  auto model = model::parse_gguf(*file);
  if (!model) return model.error();
  files.model = std::move(model).value();
  if (files.model.id.empty()) files.model.id = path.filename().string();
  files.naming = model::Naming::kGguf;
  // A file without a vocabulary is still a model.
  if (file->metadata("tokenizer.ggml.tokens") != nullptr) {
    ROOFTREE_TRY(files.tokenizer, text::Tokenizer::from_gguf(*file));
  }
  files.tensors = std::move(file);
  identify(files, path);
  return files;
}

Result<ModelFiles> open_folder(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / "config.json", ignored)) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: no config.json in it; expected a folder of Hugging Face files", folder.string())};
  }
  ModelFiles files;
  ROOFTREE_TRY(files.model, model::ModelCatalog::builtin().resolve(folder.string()));
  files.naming = model::Naming::kHuggingFace;
  ROOFTREE_TRY(formats::SafetensorsFiles tensors, formats::SafetensorsFiles::open(folder));
  files.tensors = std::make_unique<formats::SafetensorsFiles>(std::move(tensors));
  if (fs::exists(folder / "tokenizer.json", ignored)) {
    ROOFTREE_TRY(files.tokenizer, text::Tokenizer::from_tokenizer_json(folder / "tokenizer.json"));
  }
  identify(files, folder);
  return files;
}

// The tensors of a model as its graph sees them. Matrices are `weights`; routers, gates of one row, and rows that are no whole
// number of blocks are f16 (f32 beside f32 weights). Norm weights are 1, biases and other vectors N(0, 0.1).
Result<std::vector<formats::RandomTensor>> random_tensors(const model::Model& model, DType weights) {
  const DType stored = weights == DType::kBf16Lossless12 ? DType::kBf16 : weights;
  if (!formats::can_quantize(stored)) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: random weights cannot be made {}", model.id, name(weights))};
  }
  const DType plain = stored == DType::kF32 ? DType::kF32 : DType::kF16;
  ROOFTREE_TRY(const model::Graph graph, model.build(model::Phase::decode(1, 1), model::Fusion::kStandard));
  std::vector<formats::RandomTensor> tensors;
  std::set<std::string> known;  // a weight that several nodes read (a tied head) is one tensor
  const auto add = [&](const model::Block& block, const model::Node& node, model::ValueId id) -> Status {
    const model::Value& value = graph[id];
    formats::RandomTensor tensor{.extents = value.shape.extents};
    if (model::weight_is_vector(value.name)) {
      const auto* norm = std::get_if<model::Norm>(&node.op);
      const bool ones = norm != nullptr && id == node.inputs[norm->residual ? 2 : 1];
      tensor.fill = ones ? formats::RandomTensor::Fill::kConstant : formats::RandomTensor::Fill::kNormal;
      tensor.value = 1.0F;
      tensor.deviation = 0.1F;
    } else {
      const bool routes = std::any_of(block.nodes.begin(), block.nodes.end(), [&](const model::Node& other) {
        return std::holds_alternative<model::Route>(other.op) && other.inputs.front() == node.outputs.front();
      });
      const bool whole = tensor.extents.back() % formats::block_form(stored).values == 0;
      tensor.type = routes || tensor.extents.front() == 1 || !whole ? plain : stored;
    }
    std::vector<std::int32_t> layers = block.layers;
    if (layers.empty()) layers.push_back(0);
    for (const std::int32_t layer : layers) {
      const auto any = [](std::string_view) { return true; };
      ROOFTREE_TRY(auto parts, model::weight_parts(model, model::Naming::kGraph, value, layer, any));
      tensor.name = std::move(parts.front().tensor);
      if (known.insert(tensor.name).second) tensors.push_back(tensor);
    }
    return Ok{};
  };
  for (const model::Block& block : graph.blocks) {
    for (const model::Node& node : block.nodes) {
      for (const model::ValueId id : node.inputs) {
        if (id.valid() && graph[id].role == model::Role::kWeight) ROOFTREE_TRY_VOID(add(block, node, id));
      }
    }
  }
  return tensors;
}

}  // namespace

Result<ModelFiles> ModelFiles::open(std::string_view spec) {
  const fs::path path(spec);
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder(path);
  if (path.extension() == ".gguf") return open_gguf(path);
  if (path.filename() == "config.json" || path.extension() == ".safetensors" ||
      path.filename() == "model.safetensors.index.json") {
    return open_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
  }
  if (fs::exists(path, ignored)) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: expected a .gguf file or a folder with config.json and safetensors files", spec)};
  }
  return Error{ErrorCode::kEnvironment,
               fmt::format("{}: no such file; expected a .gguf file or a folder with config.json and safetensors files", spec)};
}

Result<ModelFiles> ModelFiles::synthetic(const model::Model& model, DType weights, std::uint64_t seed) {
  ModelFiles files;
  files.model = model;
  files.naming = model::Naming::kGraph;
  files.random_weights = true;
  files.source = fmt::format("random weights of {} in {}", model.id, name(weights));
  files.stamp = fmt::format("{}, seed {}", files.source, seed);
  ROOFTREE_TRY(std::vector<formats::RandomTensor> tensors, random_tensors(model, weights));
  ROOFTREE_TRY(formats::RandomSource source, formats::RandomSource::make(std::move(tensors), {.seed = seed}));
  files.tensors = std::make_unique<formats::RandomSource>(std::move(source));
  return files;
}

}  // namespace rooftree::engine

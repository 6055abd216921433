#pragma once

// A model that can be run: its description, its tensors and its tokenizer, from a .gguf, a folder of Hugging Face files
// (config.json, *.safetensors, tokenizer.json), or a catalogue id with seeded random weights.

#include <memory>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "base/result.h"
#include "formats/tensor_source.h"
#include "model/model.h"
#include "model/weight_names.h"
#include "text/tokenizer.h"

namespace rooftree::engine {

struct ModelFiles {
  model::Model model;
  model::Naming naming = model::Naming::kGguf;
  std::unique_ptr<formats::TensorSource> tensors;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null: token ids only
  bool random_weights = false;
  std::string source;  // where the tensors come from, and
  std::string stamp;   // what tells that they have not changed since: paths with sizes and times, or the seed

  static Result<ModelFiles> open(std::string_view spec);
  // The published shape with weights drawn from N(0, 1/sqrt(K)), stored as `weights`. The same seed gives the same bytes on
  // every machine.
  static Result<ModelFiles> synthetic(const model::Model& model, DType weights, std::uint64_t seed);
};

}  // namespace rooftree::engine

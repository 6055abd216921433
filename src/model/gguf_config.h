#pragma once

// Models described by GGUF files.

#include "base/result.h"
#include "formats/gguf.h"
#include "model/model.h"

namespace rooftree::model {

// The model of a GGUF file: llama (mistral and mixtral too), qwen2, qwen2moe, qwen3, qwen3moe, gemma, gemma2, gemma3, phi2,
// phi3, gpt2, falcon, starcoder2, deepseek2, gpt-oss, glm4, chatglm; bert, to be priced. Reads tensors where they say what no
// key does: biases, tied heads, factors of the rotation. Model::family is the file's architecture, native_weight_type the type
// of most values. kInvalid names the architecture, key or tensor.
Result<Model> parse_gguf(const formats::GgufFile& file);

}  // namespace rooftree::model

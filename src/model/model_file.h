#pragma once

// The catalogue's own format: one model per JSON file. Private to the layer.

#include <string_view>

#include "base/result.h"
#include "model/model.h"

namespace rooftree::model {

// Reads a model file. Unknown fields are refused, so that a misspelt one is not ignored.
Result<Model> parse_model_file(std::string_view text, std::string_view where);

}  // namespace rooftree::model

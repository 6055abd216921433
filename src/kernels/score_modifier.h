#pragma once

// What happens to attention scores between scaling and softmax. Each kind is a functor compiled into its own attention kernel:
//   score' = Modifier{}(score, head, query_position, key_position), -infinity = masked.

#include <cstdint>

namespace rooftree::kernels {

struct ScoreModifier {
  enum class Kind : std::uint8_t { kNone, kSoftcap, kAlibi, kRelativeBias, kDocumentMask };
  Kind kind = Kind::kNone;
  float softcap = 0.0F;           // kSoftcap: c tanh(score / c)
  const float* slopes = nullptr;  // kAlibi: (heads); score - slope (query - key)
  const float* bias = nullptr;    // kRelativeBias: (heads, buckets); T5's buckets of key - query
  std::int64_t buckets = 0, max_distance = 0;
  bool bidirectional = false;
  const std::int32_t* documents = nullptr;  // kDocumentMask: (positions); only pairs of one document see each other
};

}  // namespace rooftree::kernels

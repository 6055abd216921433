#pragma once

// Attention per instruction set; attention_kernels() of tables.h chooses. Private to the layer and its tests.
//
// A page holds, for each key-value head, the keys of its positions in groups of 16, then the values in groups of 16:
//   bf16  keys   [pair of dimensions][16 positions], dword = dimension 2i in the upper half, 2i+1 in the lower
//         values [pair of positions][dimension], dword = position 2j in the upper half, 2j+1 in the lower; so that an
//         instruction that multiplies pairs, upper half first (VDPBF16PS), adds in the contract's order
//   f16   keys [dimension][16 positions], values [position][dimension]; f32 the same
//   q8_0  an f16 scale per 32 dimensions and position, [block of 32][16 positions]; then dwords of 4 signed bytes: keys
//         [4 dimensions][16 positions], values [4 positions][dimension]
//   q4_0  as q8_0 with dwords of 8 signed nibbles, the first in the lowest bits: keys [8 dimensions][16], values [8
//   positions][..]
// Values are padded with zeros to a multiple of 16 dimensions (64-byte lines). The layout is the same on every instruction set.

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/tables.h"

namespace rooftree::kernels::cpu {

inline constexpr std::int64_t kKvGroup = 16;   // positions that are stored together
inline constexpr std::int64_t kKvBlock = 256;  // positions of one step of the softmax (the numeric contract's blocks)

struct PageLayout {
  std::int64_t groups = 0;  // per page
  std::int64_t key_group_bytes = 0, value_group_bytes = 0;
  std::int64_t key_scale_bytes = 0, value_scale_bytes = 0;  // at the start of a group; 0 = none
  std::int64_t value_padded = 0;                            // dimensions of a stored value

  [[nodiscard]] std::int64_t head_bytes() const { return groups * (key_group_bytes + value_group_bytes); }
  [[nodiscard]] std::int64_t key_offset(std::int64_t head, std::int64_t group) const {
    return head * head_bytes() + group * key_group_bytes;
  }
  [[nodiscard]] std::int64_t value_offset(std::int64_t head, std::int64_t group) const {
    return head * head_bytes() + groups * key_group_bytes + group * value_group_bytes;
  }
};
// Groups of 0 bytes: a type or shape that is not kept (q8_0 and q4_0 need head_dim and value_dim in multiples of 32).
[[nodiscard]] PageLayout page_layout(const KvShape& shape);
[[nodiscard]] std::size_t page_bytes(const KvShape& shape);

// Memory of this thread for one call at a time, 64-byte aligned, grown when needed and kept.
[[nodiscard]] std::byte* attention_scratch(std::size_t bytes);

// T5's bucket for each distance of 0 … max_distance between query and key, on one side (Raffel et al. 2020, section 2.1): the
// distance itself below buckets/2, then logarithmic steps that reach the last bucket at max_distance.
void relative_buckets(std::int64_t buckets, std::int64_t max_distance, std::int32_t* out);

namespace portable {
extern const AttentionKernels kAttentionKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512 {
extern const AttentionKernels kAttentionKernels;
}
namespace avx512_bf16 {
extern const AttentionKernels kAttentionKernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const AttentionKernels kAttentionKernels;
}
#endif

}  // namespace rooftree::kernels::cpu

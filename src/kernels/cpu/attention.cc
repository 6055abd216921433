// The portable attention, the page layout that all instruction sets share, and the choice between them.

#include "kernels/cpu/attention.h"

#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <new>

#include "base/check.h"
#include "kernels/cpu/attention-inl.h"

namespace rooftree::kernels::cpu {
namespace {

constexpr std::int64_t kLine = 64;
std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

struct AlignedDelete {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{kLine}); }
};

}  // namespace

PageLayout page_layout(const KvShape& shape) {
  PageLayout layout;
  if (shape.head_dim < 1 || shape.value_dim < 1 || shape.kv_heads < 1 || shape.page_tokens < kKvGroup ||
      shape.page_tokens % kKvGroup != 0) {
    return layout;
  }
  layout.groups = shape.page_tokens / kKvGroup;
  layout.value_padded = round_up(shape.value_dim, kKvGroup);
  const bool whole_blocks = shape.head_dim % 32 == 0 && shape.value_dim % 32 == 0;
  switch (shape.type) {
    case DType::kF32:
      layout.key_group_bytes = shape.head_dim * kKvGroup * 4;
      layout.value_group_bytes = layout.value_padded * kKvGroup * 4;
      break;
    case DType::kF16:
    case DType::kBf16:
      layout.key_group_bytes = round_up(shape.head_dim, 2) * kKvGroup * 2;
      layout.value_group_bytes = layout.value_padded * kKvGroup * 2;
      break;
    case DType::kQ8_0:
    case DType::kQ4_0:
      if (whole_blocks) {
        const std::int64_t per_byte = shape.type == DType::kQ8_0 ? 1 : 2;
        layout.key_scale_bytes = round_up(shape.head_dim, kLine);
        layout.value_scale_bytes = round_up(shape.value_dim, kLine);
        layout.key_group_bytes = layout.key_scale_bytes + shape.head_dim * kKvGroup / per_byte;
        layout.value_group_bytes = layout.value_scale_bytes + shape.value_dim * kKvGroup / per_byte;
      }
      break;
    default:
      break;
  }
  return layout;
}

std::size_t page_bytes(const KvShape& shape) {
  return static_cast<std::size_t>(page_layout(shape).head_bytes() * shape.kv_heads);
}

std::byte* attention_scratch(std::size_t bytes) {
  thread_local std::unique_ptr<std::byte, AlignedDelete> memory;
  thread_local std::size_t size = 0;
  if (bytes > size) {
    memory.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kLine})));
    size = bytes;
  }
  return memory.get();
}

void relative_buckets(std::int64_t buckets, std::int64_t max_distance, std::int32_t* out) {
  const std::int64_t exact = buckets / 2, steps = buckets - exact;
  // Bucket exact + t begins where (distance / exact)^steps >= (max_distance / exact)^t: the logarithmic rule without
  // logarithms.
  const auto power = [](double base, std::int64_t exponent) {
    double result = 1.0;
    for (std::int64_t i = 0; i < exponent; ++i) result *= base;
    return result;
  };
  const double ratio = static_cast<double>(max_distance) / static_cast<double>(exact);
  std::int64_t t = 0;
  for (std::int64_t distance = 0; distance <= max_distance; ++distance) {
    if (distance < exact) {
      out[distance] = static_cast<std::int32_t>(distance);
      continue;
    }
    const double reached = power(static_cast<double>(distance) / static_cast<double>(exact), steps);
    while (t + 1 < steps && reached >= power(ratio, t + 1)) ++t;
    out[distance] = static_cast<std::int32_t>(exact + t);
  }
}

const AttentionKernels& attention_kernels(const CpuFeatures& features) {
#if defined(__x86_64__)
  if (features.isa() == Isa::kAvx512) return features.avx512_bf16 ? avx512_bf16::kAttentionKernels : avx512::kAttentionKernels;
  if (features.isa() == Isa::kAvx2) return avx2::kAttentionKernels;
#elif defined(__aarch64__)
  if (features.isa() == Isa::kNeon) return neon::kAttentionKernels;
#endif
  (void)features;
  return portable::kAttentionKernels;
}

}  // namespace rooftree::kernels::cpu

#include "kernels/backend.h"

namespace rooftree::kernels {

std::string_view name(Level level) {
  switch (level) {
    case Level::kA:
      return "A";
    case Level::kB:
      return "B";
    case Level::kC:
      break;
  }
  return "C";
}

Product product_of(DType weights) {
  switch (weights) {
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kIq4Nl:
    case DType::kMxfp4:
    case DType::kMxint8:
      return Product::kBlock32;
    case DType::kQ2K:
    case DType::kQ3K:
    case DType::kQ4K:
    case DType::kQ5K:
    case DType::kQ6K:
    case DType::kIq4Xs:
    case DType::kTq1_0:
    case DType::kTq2_0:
      return Product::kBlock256;
    case DType::kBf16:
    case DType::kBf16Lossless12:
      return Product::kBf16;
    case DType::kF16:
      return Product::kF16;
    default:
      return Product::kF32;
  }
}

Level level_of(Product product) {
  switch (product) {
    case Product::kBlock32:
    case Product::kBlock256:
      return Level::kA;
    case Product::kBf16:
    case Product::kF16:
      return Level::kB;
    case Product::kF32:
      break;
  }
  return Level::kC;
}

}  // namespace rooftree::kernels

#pragma once

// Named tensors of a model, wherever they come from: a GGUF file, safetensors, or a seeded generator.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace rooftree::formats {

// A tensor as stored: rows of `k` values (the fastest dimension), each row a whole number of block records of `type`.
struct TensorView {
  std::string_view name;
  DType type = DType::kF32;
  std::vector<std::int64_t> extents;  // slowest first, as in model::Shape; GGUF's order reversed
  std::span<const std::byte> bytes;   // any alignment

  [[nodiscard]] std::int64_t k() const { return extents.empty() ? 1 : extents.back(); }
  [[nodiscard]] std::int64_t rows() const;  // product of all extents but the last
};

// What messages show of a name from a file: control characters as \xNN, cut to a line's length.
[[nodiscard]] std::string printable(std::string_view text);

// kNotFound: "where: no tensor 'name' among the N of this model; near names are ...".
[[nodiscard]] Error unknown_tensor(std::string_view where, std::string_view name, std::span<const std::string_view> known);

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  [[nodiscard]] virtual std::vector<std::string_view> names() const = 0;
  [[nodiscard]] virtual bool contains(std::string_view name) const = 0;
  // kNotFound with near names. The bytes live as long as the source (generators make them on demand and keep them until
  // `release`).
  virtual Result<TensorView> find(std::string_view name) = 0;
  // The same without the need of the bytes, which may be empty: what loading is planned by.
  virtual Result<TensorView> describe(std::string_view name) { return find(name); }
  // The tensor's bytes will not be read again soon; later `find`s still work.
  virtual void release(std::string_view name) = 0;
  // Size of everything as stored.
  [[nodiscard]] virtual std::uint64_t total_bytes() const = 0;
};

}  // namespace rooftree::formats

#pragma once

// Seeded random weights: tensors of given names, shapes and types, made when they are asked for. For runs whose answer is a
// time, where a catalogue entry tells the shape of a model and nobody has its weights.
//
//   RandomSource source = *RandomSource::make({{.name = "output.weight", .type = DType::kQ4_0, .extents = {32000, 2048}},
//                                              {.name = "output_norm.weight", .extents = {2048},
//                                               .fill = RandomTensor::Fill::kConstant, .value = 1.0F}},
//                                             {.seed = 1, .pool = &pool});
//
// A matrix is a sequence of units of 32 values (256 for the types with such blocks), each drawn independently from 2^18 normals
// in all, written in the tensor's type. So the bytes are those of quantised normals, made at the speed of copying. They are a
// function of seed, name, type, extents and deviation alone: not of order, threads or machine.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/tensor_source.h"

namespace rooftree::formats {

struct RandomTensor {
  enum class Fill : std::uint8_t { kNormal, kConstant };
  std::string name;
  DType type = DType::kF32;           // one that can_quantize
  std::vector<std::int64_t> extents;  // slowest first
  Fill fill = Fill::kNormal;
  float deviation = 0.0F;  // of kNormal; 0: 1/sqrt(K), which gives outputs the size of the inputs
  float value = 0.0F;      // of kConstant: norm weights 1, biases 0
};

struct RandomSourceOptions {
  std::uint64_t seed = 0;
  ThreadPool* pool = nullptr;  // shares the work of one find(); null: the calling thread alone. Must outlive the source.
};

class RandomSource final : public TensorSource {
 public:
  // kInvalid, naming the tensor: a type that is not written, rows that are not whole blocks, an extent below 1, a name twice.
  static Result<RandomSource> make(std::vector<RandomTensor> tensors, const RandomSourceOptions& options);
  RandomSource(RandomSource&&) noexcept;
  RandomSource& operator=(RandomSource&&) noexcept;
  ~RandomSource() override;

  [[nodiscard]] std::vector<std::string_view> names() const override;
  [[nodiscard]] bool contains(std::string_view name) const override;
  // The bytes live until release() or the end of the source.
  Result<TensorView> find(std::string_view name) override;
  Result<TensorView> describe(std::string_view name) override;  // makes nothing
  void release(std::string_view name) override;
  [[nodiscard]] std::uint64_t total_bytes() const override;

 private:
  struct Tensor;
  struct Units;  // the drawn units of one type and deviation
  RandomSource();
  [[nodiscard]] std::size_t index_of(std::string_view name) const;  // tensors_.size(): none
  [[nodiscard]] const Units& units(DType type, double deviation);
  void fill(Tensor& tensor);

  RandomSourceOptions options_;
  std::vector<Tensor> tensors_;  // as given
  std::vector<std::uint32_t> by_name_;
  std::vector<double> normals_;
  std::vector<std::unique_ptr<Units>> units_;
};

}  // namespace rooftree::formats

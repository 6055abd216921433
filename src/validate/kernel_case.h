#pragma once

// A measured kernel (or a few in a row) as operators on a chip: what the operator files become before they are predicted. The
// same cases are scored by `validate` and fitted by tools/fit, through the same kernel_time.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cost/calibration.h"
#include "cost/kernel_time.h"
#include "validate/validate.h"

namespace rooftree::validate {

// How the measurement was taken.
enum class Timing : std::uint8_t {
  kGraph,  // replayed from a captured graph, or long enough not to see launches: device time alone
  kEager,  // launched one by one from the host and awaited: the launch is inside
};

struct Term {
  model::Operator op;
  cost::Operands operands;
  double count = 1;
};

struct KernelCase {
  std::string what;
  std::string group;
  std::string set;  // which calibration constants it speaks about: "gemm bf16", "stream norm", … (for tools/fit)
  const machine::Chip* chip = nullptr;
  cost::Software software;
  Timing timing = Timing::kGraph;
  std::vector<Term> terms;
  double measured = 0;  // s
};

struct Prediction {
  double time = 0, low = 0, high = 0;  // s
};
// Sum over the terms; their errors are taken as fully correlated, so bounds add up.
[[nodiscard]] Prediction predict(const KernelCase& kernel_case, const cost::ChipCalibration& constants);
// Same with the work of the terms already known (the fitting loop calls it millions of times).
[[nodiscard]] Prediction predict(const KernelCase& kernel_case, const std::vector<model::Work>& work,
                                 const cost::ChipCalibration& constants);

// Adapter of a file whose rows are kernels.
class KernelAdapter : public Adapter {
 public:
  // The cases of a row; what cannot be modelled is refused in `outcome`.
  virtual std::vector<KernelCase> kernels(const Row& row, Context& context, Outcome& outcome) = 0;
  void read(const Row& row, Context& context, Outcome& outcome) final;
};

// The chip that a file names in free text ("a100_sxm", "NVIDIA H100 80GB HBM3", "A100-80GB SXM4"); null when the catalogue
// lacks it; the longer form refuses the row then.
const machine::Chip* chip_named(std::string_view text, Context& context);
const machine::Chip* chip_named(std::string_view text, Context& context, Outcome& outcome);

// What a dimension of an operator may be at most.
constexpr std::int64_t kMaxDimension = std::int64_t{1} << 31;

// True when a value of a row could not be read: the row is refused with the message of the first such value.
template <class... T>
[[nodiscard]] bool refuse_errors(Outcome& outcome, const Result<T>&... values) {
  const Error* first = nullptr;
  ((first == nullptr && !values ? void(first = &values.error()) : void()), ...);
  if (first != nullptr) outcome.refuse(first->message);
  return first != nullptr;
}

// Operands that live in main memory, 16 bits everywhere.
[[nodiscard]] cost::Operands plain_operands(const machine::Chip& chip, Arithmetic arithmetic);

}  // namespace rooftree::validate

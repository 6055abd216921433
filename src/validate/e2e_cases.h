#pragma once

// Whole-model measurements as cases of the product: each row becomes a model, a machine, a plan and the phases that were timed,
// and is predicted by the same Estimator that `analyze` uses. What a row does not say (batch of a micro-step, attention kernel,
// bits of a mixed file) is settled once per file, here, and listed in docs/design/005-whole-model-calibration.md.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cost/estimate.h"
#include "machine/catalog.h"
#include "model/model.h"

namespace rooftree::validate {

// The columns of a row; an absent column is empty text.
using Fields = std::function<std::string_view(std::string_view column)>;

// A stretch of the measurement: `count` times one phase. Training measurements often leave the optimizer out or run it once per
// several micro-steps.
struct Stretch {
  enum class Part : std::uint8_t { kAll, kWithoutOptimizer, kOptimizerOnly };
  model::Phase phase;
  double count = 1;
  Part part = Part::kAll;
};

struct E2eCase {
  std::string what;   // "decode", "prompt", "inference", "training step"
  std::string group;  // "decode nvidia-ada"
  std::shared_ptr<const model::Model> model;
  machine::Machine machine;
  cost::Plan plan;
  std::vector<Stretch> stretches;
  double tokens = 0;  // measured = tokens per second; 0: measured = seconds
  double measured = 0;
  // Data-parallel peers of one node whose gradient exchange is left out: the case is refused where that traffic, at 0.75 of the
  // link, is more than a tenth of the predicted time. 1 = none.
  double data_parallel = 1;
  double exchanged_bytes_per_parameter = 0;
};

// The world that rows speak of, with what was looked up kept.
class E2eWorld {
 public:
  E2eWorld(const machine::Catalog& machines, const model::ModelCatalog& models) : machines_(&machines), models_(&models) {}

  Result<machine::Machine> machine(std::string_view id);
  // A model of the catalogue.
  Result<std::shared_ptr<const model::Model>> model(std::string_view id);
  // A model given as a shape; kept under shape.id.
  Result<std::shared_ptr<const model::Model>> decoder(const model::DecoderShape& shape);

 private:
  const machine::Catalog* machines_;
  const model::ModelCatalog* models_;
  std::map<std::string, Result<machine::Machine>, std::less<>> known_machines_;
  std::map<std::string, Result<std::shared_ptr<const model::Model>>, std::less<>> known_models_;
};

// The cases of a row of `file` ("infer_mlc_llm_perf_bench.csv"); an error is a refusal whose message is short enough to be
// counted. Unknown file: a single error.
std::vector<Result<E2eCase>> e2e_cases(std::string_view file, const Fields& row, E2eWorld& world);
[[nodiscard]] std::vector<std::string_view> e2e_files();

struct E2ePrediction {
  Interval<double> value;  // in the unit of E2eCase::measured
  double baseline = 0;     // datasheet roofline of the fused model
};
Result<E2ePrediction> predict(const E2eCase& e2e, const cost::CalibrationTable& calibration);

// The same chip with another number of cores of the same kind (Apple sells one chip with two): arithmetic scales, memory does
// not.
[[nodiscard]] machine::Chip with_cores(machine::Chip chip, int cores);

}  // namespace rooftree::validate

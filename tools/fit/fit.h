#pragma once

// Fits constant sets to measured kernels: robust least squares on log(predicted / measured), through the same adapters and the
// same kernel_time that `validate` uses. Deterministic.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cost/calibration.h"
#include "validate/kernel_case.h"

namespace rooftree::fit {

// A constant that may move, within [low, high], in log space.
struct Free {
  std::string name;
  double start = 0, low = 0, high = 0;  // SI
};

// One constant set to fit: which cases speak about it, what moves, what is held.
struct Job {
  cost::ConstantSet set;  // class, chip, family, arithmetic, variant; `values` holds what does not move
  std::vector<Free> free;
  bool best_shape = false;                                   // peak_share is the best measured rate over the peak, not a fit
  std::string file;                                          // of the cases
  std::string where;                                         // said in words, for the provenance
  std::function<bool(const validate::KernelCase&)> selects;  // of that file
};

struct LoadedCase {
  validate::KernelCase kernel_case;
  std::vector<model::Work> work;
};

// Minimises f over the box by Nelder-Mead with restarts; x in and out.
double minimise(const std::function<double(const std::vector<double>&)>& f, std::vector<double>& x,
                const std::vector<double>& low, const std::vector<double>& high, int evaluations);

// Soft-L1 loss of a log residual: quadratic up to about `scale`, linear beyond.
double soft_l1(double residual, double scale);

// Fits `job` against `cases` with the constants of `table` for everything else; returns the set with its errors filled in.
cost::ConstantSet fit(const Job& job, const std::vector<const LoadedCase*>& cases, const cost::CalibrationTable& table);

}  // namespace rooftree::fit

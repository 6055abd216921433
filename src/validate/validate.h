#pragma once

// How good the predictions are: public measurements nobody here made, read from CSV files whose names say what they hold, each
// row predicted through the same path as `analyze`, and the errors counted per file. Rows that cannot be predicted are refused
// with a reason, never skipped in silence.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cost/calibration.h"
#include "machine/catalog.h"
#include "validate/csv.h"

namespace rooftree::validate {

// One measured value and what was predicted for it, in one unit.
struct Case {
  std::string what;   // which value of the row, where it has several: "mlp_up_proj"
  std::string group;  // for break-downs: "nvidia-h100-sxm fp8"
  double measured = 0;
  double predicted = 0;
  double low = 0, high = 0;  // stated 90 % interval of the prediction
  double baseline = 0;       // datasheet roofline: FLOP over peak or bytes over bandwidth, nothing else
};

// What a row gave: any number of cases, any number of refusals (reasons are short and shared by many rows, for they are
// counted).
struct Outcome {
  std::vector<Case> cases;
  std::vector<std::string> refusals;

  void refuse(std::string reason) { refusals.push_back(std::move(reason)); }
};

// What adapters need of the world; caches chips and their constants.
class Context {
 public:
  Context(const machine::Catalog& catalog, const cost::CalibrationTable& calibration)
      : catalog_(&catalog), calibration_(&calibration) {}

  // A machine of the catalogue by id or alias; null when it has none. Kept for the life of the context.
  const machine::Machine* machine(std::string_view name);
  // The constants of a chip under a software, and its datasheet roofline.
  const cost::ChipCalibration& constants(const machine::Chip& chip, const cost::Software& software = {});
  const cost::ChipCalibration& datasheet(const machine::Chip& chip);

  [[nodiscard]] const machine::Catalog& catalog() const { return *catalog_; }
  [[nodiscard]] const cost::CalibrationTable& calibration() const { return *calibration_; }

 private:
  const machine::Catalog* catalog_;
  const cost::CalibrationTable* calibration_;
  std::map<std::string, std::unique_ptr<machine::Machine>, std::less<>> machines_;
  std::map<std::string, std::unique_ptr<cost::ChipCalibration>, std::less<>> constants_;
};

// Reads the rows of one kind of file.
class Adapter {
 public:
  virtual ~Adapter() = default;
  virtual void read(const Row& row, Context& context, Outcome& outcome) = 0;
};

// The adapter of a file name ("op_vidur_linear_ops.csv"); null when no model covers that file.
std::unique_ptr<Adapter> make_adapter(std::string_view file_name);
// File names that have one.
std::vector<std::string_view> known_files();

// ------------------------------------------------------------------------------------------------------------------ scores

// Linear interpolation between order statistics; `values` need not be sorted. 0 <= q <= 1. Zero for no values.
[[nodiscard]] double quantile(std::vector<double> values, double q);

struct Score {
  std::size_t scored = 0;
  double median_abs_error = 0;  // of |predicted / measured - 1|
  double p90_abs_error = 0;
  double bias = 0;         // median of predicted / measured - 1
  double coverage_90 = 0;  // share of measurements inside the stated interval
  double baseline_median_abs_error = 0, baseline_p90_abs_error = 0, baseline_bias = 0;
};
[[nodiscard]] Score score(std::span<const Case> cases);

struct FileScore {
  std::string file;
  std::size_t rows = 0;
  Score total;
  std::map<std::string, std::size_t> refused;  // reason -> rows (or values of rows)
  std::map<std::string, Score> groups;
};

struct Report {
  std::vector<FileScore> files;            // sorted by name
  std::vector<std::string> without_model;  // other CSV files of the folder
  double median_over_files = 0;            // of median_abs_error, over files with scored rows
  double baseline_median_over_files = 0;
};

struct Options {
  std::filesystem::path data;     // folder with CSV files
  std::vector<std::string> only;  // file names (with or without .csv); empty = all that are known
  std::function<void(const std::string& file, std::size_t line, const Case&)> on_case;  // sees every case, may be empty
};

// kEnvironment: no such folder. kNotFound: a file of `only` is missing or has no model. kParse: a malformed file.
Result<Report> validate(const Options& options, const machine::Catalog& catalog, const cost::CalibrationTable& calibration);

// Scores the text of one file; what `validate` does for each.
Result<FileScore> validate_text(std::string_view text, const std::string& file, Context& context, const Options& options);

std::string to_text(const Report& report, bool with_groups);
std::string to_json(const Report& report, bool with_groups);

}  // namespace rooftree::validate

#include "validate/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/json.h"
#include "validate/adapters.h"

namespace rooftree::validate {
namespace {

constexpr std::string_view kRecalled = "recalled";

std::string with_extension(std::string name) {
  if (!name.ends_with(".csv")) name += ".csv";
  return name;
}

std::string percent(double share) { return fmt::format("{:.1f}", 100 * share); }

}  // namespace

const machine::Machine* Context::machine(std::string_view name) {
  if (const auto it = machines_.find(name); it != machines_.end()) return it->second.get();
  auto found = catalog_->find(name);
  auto kept = found ? std::make_unique<machine::Machine>(std::move(found).value()) : nullptr;
  return machines_.emplace(std::string(name), std::move(kept)).first->second.get();
}

const cost::ChipCalibration& Context::constants(const machine::Chip& chip, const cost::Software& software) {
  const std::string key =
      fmt::format("{} {} {} {} {}", chip.id, static_cast<int>(software.attention), static_cast<int>(software.scaling),
                  static_cast<int>(software.streams), software.sustained);
  auto& slot = constants_[key];
  if (!slot) slot = std::make_unique<cost::ChipCalibration>(calibration_->resolve(chip, software));
  return *slot;
}

const cost::ChipCalibration& Context::datasheet(const machine::Chip& chip) {
  auto& slot = constants_[chip.id + " datasheet"];
  if (!slot) slot = std::make_unique<cost::ChipCalibration>(cost::CalibrationTable::datasheet(chip));
  return *slot;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = std::clamp(q, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  if (below + 1 >= values.size()) return values.back();
  const double share = at - static_cast<double>(below);
  return values[below] * (1 - share) + values[below + 1] * share;
}

Score score(std::span<const Case> cases) {
  Score s;
  s.scored = cases.size();
  if (cases.empty()) return s;
  std::vector<double> error;
  std::vector<double> absolute;
  std::vector<double> baseline_error;
  std::vector<double> baseline_absolute;
  std::size_t inside = 0;
  for (const Case& c : cases) {
    error.push_back(c.predicted / c.measured - 1);
    absolute.push_back(std::abs(error.back()));
    baseline_error.push_back(c.baseline / c.measured - 1);
    baseline_absolute.push_back(std::abs(baseline_error.back()));
    if (c.low <= c.measured && c.measured <= c.high) ++inside;
  }
  s.median_abs_error = quantile(absolute, 0.5);
  s.p90_abs_error = quantile(absolute, 0.9);
  s.bias = quantile(error, 0.5);
  s.coverage_90 = static_cast<double>(inside) / static_cast<double>(cases.size());
  s.baseline_median_abs_error = quantile(baseline_absolute, 0.5);
  s.baseline_p90_abs_error = quantile(baseline_absolute, 0.9);
  s.baseline_bias = quantile(baseline_error, 0.5);
  return s;
}

Result<FileScore> validate_text(std::string_view text, const std::string& file, Context& context, const Options& options) {
  const std::unique_ptr<Adapter> adapter = make_adapter(file);
  if (!adapter) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("{}: no model for this file; there are models for {}", file, fmt::join(known_files(), ", "))};
  }
  ROOFTREE_TRY(const Csv csv, Csv::parse(text, file));
  FileScore result;
  result.file = file;
  result.rows = csv.rows();
  std::vector<Case> cases;
  std::map<std::string, std::vector<Case>> groups;
  Outcome outcome;
  for (std::size_t i = 0; i < csv.rows(); ++i) {
    const Row row = csv.row(i);
    outcome.cases.clear();
    outcome.refusals.clear();
    if (row.text("certainty").starts_with(kRecalled)) {
      outcome.refuse("recalled");
    } else {
      adapter->read(row, context, outcome);
      if (outcome.cases.empty() && outcome.refusals.empty()) outcome.refuse("no measured value");
    }
    for (Case& c : outcome.cases) {
      if (!(c.measured > 0) || !std::isfinite(c.measured)) {
        outcome.refuse("measured value is not positive");
        continue;
      }
      if (!(c.predicted > 0) || !std::isfinite(c.predicted) || !std::isfinite(c.baseline)) {
        outcome.refuse("prediction is not finite");
        continue;
      }
      if (options.on_case) options.on_case(file, row.line(), c);
      groups[c.group].push_back(c);
      cases.push_back(std::move(c));
    }
    for (std::string& reason : outcome.refusals) ++result.refused[std::move(reason)];
  }
  result.total = score(cases);
  for (const auto& [group, of_group] : groups) result.groups[group] = score(of_group);
  return result;
}

Result<Report> validate(const Options& options, const machine::Catalog& catalog, const cost::CalibrationTable& calibration) {
  std::error_code ec;
  if (!std::filesystem::is_directory(options.data, ec)) {
    return Error{ErrorCode::kEnvironment, fmt::format("{}: expected a folder of CSV files", options.data.string())};
  }
  std::set<std::string> present;
  for (const auto& entry : std::filesystem::directory_iterator(options.data, ec)) {
    if (entry.path().extension() == ".csv") present.insert(entry.path().filename().string());
  }
  if (ec) return Error{ErrorCode::kEnvironment, fmt::format("{}: {}", options.data.string(), ec.message())};
  const auto known = known_files();
  const auto is_known = [&](const std::string& file) { return std::find(known.begin(), known.end(), file) != known.end(); };

  Report report;
  std::vector<std::string> files;
  if (options.only.empty()) {
    for (const std::string& file : present) (is_known(file) ? files : report.without_model).push_back(file);
    if (files.empty()) {
      return Error{ErrorCode::kNotFound, fmt::format("{}: {} CSV files, none with a model; there are models for {}",
                                                     options.data.string(), present.size(), fmt::join(known, ", "))};
    }
  } else {
    std::set<std::string> wanted;
    for (const std::string& name : options.only) wanted.insert(with_extension(name));
    for (const std::string& file : wanted) {
      if (!present.contains(file)) {
        return Error{ErrorCode::kNotFound, fmt::format("{}: no file {}", options.data.string(), file)};
      }
      files.push_back(file);
    }
  }
  Context context(catalog, calibration);
  for (const std::string& file : files) {
    ROOFTREE_TRY(const std::string text, read_file(options.data / file, CsvLimits{}.max_bytes));
    ROOFTREE_TRY(FileScore file_score, validate_text(text, file, context, options));
    report.files.push_back(std::move(file_score));
  }
  std::vector<double> medians;
  std::vector<double> baselines;
  for (const FileScore& f : report.files) {
    if (f.total.scored == 0) continue;
    medians.push_back(f.total.median_abs_error);
    baselines.push_back(f.total.baseline_median_abs_error);
  }
  report.median_over_files = quantile(medians, 0.5);
  report.baseline_median_over_files = quantile(baselines, 0.5);
  return report;
}

std::string to_text(const Report& report, bool with_groups) {
  std::string out = fmt::format("{:<38} {:>6} {:>7} {:>8} {:>7} {:>7} {:>7} {:>6} | {:>9} {:>7}\n", "errors in %", "rows",
                                "scored", "refused", "median", "p90", "bias", "in 90", "datasheet", "p90");
  const auto line = [&out](const std::string& name, const std::string& rows, const Score& s, const std::string& refused) {
    if (s.scored == 0) {
      out += fmt::format("{:<38} {:>6} {:>7} {:>8}\n", name, rows, 0, refused);
      return;
    }
    out += fmt::format("{:<38} {:>6} {:>7} {:>8} {:>7} {:>7} {:>7} {:>6} | {:>9} {:>7}\n", name, rows, s.scored, refused,
                       percent(s.median_abs_error), percent(s.p90_abs_error), percent(s.bias),
                       fmt::format("{:.0f}", 100 * s.coverage_90), percent(s.baseline_median_abs_error),
                       percent(s.baseline_p90_abs_error));
  };
  for (const FileScore& f : report.files) {
    std::size_t refused = 0;
    for (const auto& [reason, count] : f.refused) refused += count;
    line(f.file, fmt::format("{}", f.rows), f.total, fmt::format("{}", refused));
    if (with_groups) {
      for (const auto& [group, s] : f.groups) line("  " + group, "", s, "");
    }
    for (const auto& [reason, count] : f.refused) out += fmt::format("    refused {:>6}  {}\n", count, reason);
  }
  out += fmt::format("\nmedian over files: {} % (datasheet roofline: {} %)\n", percent(report.median_over_files),
                     percent(report.baseline_median_over_files));
  if (!report.without_model.empty()) {
    out += fmt::format("{} other CSV files have no model yet (--json lists them)\n", report.without_model.size());
  }
  return out;
}

std::string to_json(const Report& report, bool with_groups) {
  const auto add = [](Json& j, const Score& s) {
    j["scored"] = s.scored;
    if (s.scored == 0) return;
    j["median_abs_error"] = s.median_abs_error;
    j["p90_abs_error"] = s.p90_abs_error;
    j["bias"] = s.bias;
    j["coverage_90"] = s.coverage_90;
    j["baseline_median_abs_error"] = s.baseline_median_abs_error;
    j["baseline_p90_abs_error"] = s.baseline_p90_abs_error;
    j["baseline_bias"] = s.baseline_bias;
  };
  Json out;
  out["files"] = Json::array();
  for (const FileScore& f : report.files) {
    Json j;
    j["file"] = f.file;
    j["rows"] = f.rows;
    add(j, f.total);
    j["refused"] = Json::object();
    for (const auto& [reason, count] : f.refused) j["refused"][reason] = count;
    if (with_groups) {
      j["groups"] = Json::object();
      for (const auto& [group, s] : f.groups) add(j["groups"][group], s);
    }
    out["files"].push_back(std::move(j));
  }
  out["median_over_files"] = report.median_over_files;
  out["baseline_median_over_files"] = report.baseline_median_over_files;
  out["files_without_model"] = report.without_model;
  return out.dump(2) + "\n";
}

}  // namespace rooftree::validate

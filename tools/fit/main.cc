// rooftree-fit: fits the constants in catalog/calibration/ from the calibrate folder of the public measurements.
//   rooftree-fit --data DIR --out catalog/calibration [--only CLASS | --stacks] [--dry-run]
// Refuses a folder called develop: constants that were fitted on the rows that score them mean nothing.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/json.h"
#include "fit.h"
#include "jobs.h"
#include "stacks.h"
#include "validate/adapters.h"

namespace rooftree::fit {
namespace {

struct Arguments {
  std::string data, out = "catalog/calibration", only, date;
  bool dry_run = false;
  bool stacks = false;
};

Result<std::vector<LoadedCase>> load(const std::filesystem::path& path, validate::Context& context) {
  auto adapter = validate::make_kernel_adapter(path.filename().string());
  if (!adapter) return Error{ErrorCode::kNotFound, fmt::format("{}: no adapter", path.string())};
  ROOFTREE_TRY(const std::string text, read_file(path));
  ROOFTREE_TRY(const validate::Csv csv, validate::Csv::parse(text, path.string()));
  std::vector<LoadedCase> cases;
  validate::Outcome outcome;
  // The adapter owns derived chips that cases point to, so it has to live as long as they do.
  static std::vector<std::unique_ptr<validate::KernelAdapter>> kept;
  for (std::size_t i = 0; i < csv.rows(); ++i) {
    if (csv.row(i).text("certainty").starts_with("recalled")) continue;
    for (validate::KernelCase& c : adapter->kernels(csv.row(i), context, outcome)) {
      if (!(c.measured > 0)) continue;
      LoadedCase loaded{std::move(c), {}};
      for (const validate::Term& term : loaded.kernel_case.terms) loaded.work.push_back(model::work(term.op));
      cases.push_back(std::move(loaded));
    }
  }
  kept.push_back(std::move(adapter));
  return cases;
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
}

Status run(const Arguments& a) {
  const std::filesystem::path data(a.data);
  const std::string folder = data.has_filename() ? data.filename().string() : data.parent_path().filename().string();
  if (folder == "develop") {
    return Error{ErrorCode::kInvalid, fmt::format("{}: develop rows score the constants; fit on calibrate", a.data)};
  }
  if (a.stacks) return fit_stacks(data, a.out, a.date, a.dry_run);
  // Families and hand-stated sets stay; files that this program wrote are replaced.
  cost::CalibrationTable table;
  std::vector<std::filesystem::path> paths;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(a.out, ec)) {
    const std::string file = entry.path().filename().string();
    if (entry.path().extension() == ".json" && !file.starts_with("fitted")) paths.push_back(entry.path());
  }
  if (ec) return Error{ErrorCode::kEnvironment, fmt::format("{}: {}", a.out, ec.message())};
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    ROOFTREE_TRY(const std::string text, read_file(path));
    ROOFTREE_TRY(cost::CalibrationTable part, cost::CalibrationTable::parse(text, path.string()));
    table.merge(std::move(part));
  }

  const cost::CalibrationTable stated = table;
  validate::Context context(machine::Catalog::builtin(), stated);  // knows the families' caches

  std::map<std::string, std::vector<LoadedCase>> files;
  std::map<std::string, std::vector<cost::ConstantSet>> fitted;  // by output file
  for (const Job& job : all_jobs()) {
    if (!a.only.empty() && name(job.set.set_class) != a.only) continue;
    if (!files.contains(job.file)) {
      ROOFTREE_TRY(files[job.file], load(data / job.file, context));
    }
    std::vector<const LoadedCase*> selected;
    for (const LoadedCase& c : files[job.file]) {
      if (job.selects(c.kernel_case)) selected.push_back(&c);
    }
    const std::string label = fmt::format("{} {} {} {}", job.set.chip.empty() ? job.set.family : job.set.chip,
                                          name(job.set.set_class), rooftree::name(job.set.arithmetic), job.set.variant);
    if (selected.empty()) {
      fmt::print("{:<60} no rows\n", label);
      continue;
    }
    cost::ConstantSet set = fit(job, selected, table);
    set.date = a.date;
    std::string values;
    for (const auto& [key, value] : set.values) values += fmt::format(" {}={:.4g}", key, value);
    fmt::print("{:<60} {:>5} rows  {:5.1f} / {:5.1f} %  [{:+.3f} {:+.3f}]{}\n", label, selected.size(), 100 * set.median_error,
               100 * set.p90_error, set.log_low, set.log_high, values);
    if (set.note == "partial") set.note = job_note(job);
    table.merge(cost::CalibrationTable::from_sets({set}, {}));
    fitted[job.set.note == "partial" ? "fitted-peaks.json"
                                     : fmt::format("fitted-{}.json", job.set.chip.empty() ? job.set.family : job.set.chip)]
        .push_back(std::move(set));
  }
  if (!a.dry_run) {
    for (const auto& [file, sets] : fitted) {
      write_file(std::filesystem::path(a.out) / file, cost::CalibrationTable::from_sets(sets, {}).to_json());
    }
  }
  return Ok{};
}

}  // namespace
}  // namespace rooftree::fit

int main(int argc, char** argv) {
  rooftree::fit::Arguments a;
  CLI::App app{"Fits catalog/calibration from public measurements", "rooftree-fit"};
  app.add_option("--data", a.data, "The calibrate folder")->required();
  app.add_option("--out", a.out, "Folder of calibration files")->capture_default_str();
  app.add_option("--only", a.only, "Only one class of constants");
  app.add_option("--date", a.date, "Date to write into the files, YYYY-MM-DD")->required();
  app.add_flag("--stacks", a.stacks, "The constants of software stacks, on whole models, instead of those of kernels");
  app.add_flag("--dry-run", a.dry_run, "Print, write nothing");
  CLI11_PARSE(app, argc, argv);
  const auto status = rooftree::fit::run(a);
  if (!status) {
    fmt::print(stderr, "rooftree-fit: {}\n", status.error().message);
    return status.error().code == rooftree::ErrorCode::kEnvironment ? 3 : 2;
  }
  return 0;
}

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>

#include "validate/validate.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Arguments {
  validate::Options options;
  std::string data;
  std::string rows_file;
  std::string calibration;
  bool json = false;
  bool groups = false;
};

int run(Arguments& a) {
  a.options.data = a.data;
  std::ofstream rows;
  if (!a.rows_file.empty()) {
    rows.open(a.rows_file);
    if (!rows) return report_error(Error{ErrorCode::kEnvironment, fmt::format("{}: cannot be written", a.rows_file)});
    rows << "file,line,group,what,measured,predicted,low,high,datasheet\n";
    a.options.on_case = [&rows](const std::string& file, std::size_t line, const validate::Case& c) {
      rows << fmt::format("{},{},{},{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g}\n", validate::csv_field(file), line,
                          validate::csv_field(c.group), validate::csv_field(c.what), c.measured, c.predicted, c.low, c.high,
                          c.baseline);
    };
  }
  const cost::CalibrationTable* calibration = &cost::CalibrationTable::builtin();
  std::optional<cost::CalibrationTable> own;
  if (!a.calibration.empty()) {
    auto read = cost::CalibrationTable::from_directory(a.calibration);
    if (!read) return report_error(read.error());
    own = std::move(read).value();
    calibration = &*own;
  }
  const auto report = validate::validate(a.options, machine::Catalog::builtin(), *calibration);
  if (!report) return report_error(report.error());
  if (rows.is_open() && !rows.flush()) {
    return report_error(Error{ErrorCode::kEnvironment, fmt::format("{}: cannot be written", a.rows_file)});
  }
  fmt::print("{}", a.json ? validate::to_json(*report, a.groups) : validate::to_text(*report, a.groups));
  return 0;
}

}  // namespace

void add_validate_verb(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("validate", "How far the predictions are from public measurements, per data set");
  verb->add_option("--data", a->data, "Folder of CSV files named as in docs/validation.md")->required();
  verb->add_option("--only", a->options.only, "Only these files (with or without .csv)");
  verb->add_option("--rows", a->rows_file, "Write every prediction to this CSV file");
  verb->add_option("--calibration", a->calibration, "Folder of calibration files instead of the built-in ones");
  verb->add_flag("--groups", a->groups, "Also by chip, type and software within each file");
  verb->add_flag("--json", a->json, "For programs");
  verb->callback([a, &exit_code] { exit_code = run(*a); });
}

}  // namespace rooftree::cli

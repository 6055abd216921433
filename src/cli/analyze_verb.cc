// rooftree analyze: where a model stands under the roofs of one or more chips, and what would move it.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "report/analysis_text.h"
#include "report/estimate_json.h"
#include "report/page.h"
#include "report/svg.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Options {
  WorkloadFlags workload;
  std::vector<std::string> machines, overrides, sweeps;
  std::string html, svg;
  bool json = false;
};

// Everything that one request needs, resolved.
struct Request {
  model::Model model;
  std::vector<machine::Machine> machines;
  model::Phase phase;
  cost::Plan plan;
};

Result<Request> resolve(const Options& options) {
  Request request;
  ROOFTREE_TRY(request.model, resolve_model(options.workload.model));
  for (const std::string& spec : options.machines) {
    ROOFTREE_TRY(machine::Machine machine, resolve_machine(spec, options.overrides));
    request.machines.push_back(std::move(machine));
  }
  ROOFTREE_TRY(request.phase, parse_phase(options.workload));
  ROOFTREE_TRY(request.plan, parse_plan(options.workload, request.model));
  return request;
}

Result<report::Sweep> run_sweep(const Request& request, const std::string& text) {
  const std::string where = "--sweep " + text;
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    return Error{
        ErrorCode::kParse,
        fmt::format("{}: expected VARIABLE=VALUES, like batch=1,2,4..256, context=1024..65536 or weights=bf16,int8", where)};
  }
  report::Sweep sweep;
  sweep.variable = text.substr(0, equals);
  const std::string values = text.substr(equals + 1);
  const cost::CalibrationTable& calibration = cost::CalibrationTable::builtin();
  const machine::Machine& machine = request.machines.front();
  const report::AnalyzeOptions brief{.with_sensitivities = false, .with_crossing = false};
  const auto add = [&](std::string label, const model::Phase& phase, const cost::Plan& plan) -> Status {
    auto analysis = report::analyze(request.model, machine, phase, plan, calibration, brief);
    if (!analysis) return analysis.error().within(where);
    sweep.points.push_back({std::move(label), std::move(analysis).value()});
    return Ok{};
  };
  if (sweep.variable == "weights" || sweep.variable == "kv" || sweep.variable == "activations") {
    const model::Role role = sweep.variable == "weights" ? model::Role::kWeight
                             : sweep.variable == "kv"    ? model::Role::kKvCache
                                                         : model::Role::kActivation;
    for (const std::string& type_text : split(values, ',')) {
      auto type = parse_dtype(type_text);
      if (!type) return type.error().within(where);
      cost::Plan plan = request.plan;
      plan.set_type(role, *type);
      ROOFTREE_TRY_VOID(add(type_text, request.phase, plan));
    }
    return sweep;
  }
  if (sweep.variable != "batch" && sweep.variable != "context" && sweep.variable != "tokens") {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: '{}' cannot be swept; expected batch, context, tokens, weights, kv or activations", where,
                             sweep.variable)};
  }
  const bool decode = request.phase.kind == model::Phase::Kind::kDecode;
  if ((sweep.variable == "context") != decode && sweep.variable != "batch") {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} has no {}; expected {}", where, model::name(request.phase.kind),
                                                  sweep.variable, decode ? "context" : "tokens")};
  }
  ROOFTREE_TRY(const std::vector<std::int64_t> numbers, report::parse_sweep_values(values, where));
  for (const std::int64_t n : numbers) {
    model::Phase phase = request.phase;
    if (sweep.variable == "batch") phase.batch = n;
    if (sweep.variable == "tokens") phase.tokens = n;
    if (sweep.variable == "context") phase = model::Phase::decode(phase.batch, n);
    ROOFTREE_TRY_VOID(add(fmt::format("{}", n), phase, request.plan));
  }
  if (sweep.variable == "batch") {
    const cost::Estimator estimator(machine, calibration, request.plan);
    ROOFTREE_TRY(sweep.crossing, report::ridge_crossing(request.model, request.phase, estimator));
  }
  return sweep;
}

// The page offers the neighbourhood of what was asked: both inference phases, batches around it, the usual weight types.
Result<std::string> page_of(const Request& request) {
  report::PageGrid grid;
  grid.machines = request.machines;
  grid.phases = {request.phase};
  if (request.phase.kind == model::Phase::Kind::kDecode) {
    grid.phases.push_back(model::Phase::prefill(request.phase.batch, request.phase.past + 1));
  } else if (request.phase.kind == model::Phase::Kind::kPrefill) {
    grid.phases.push_back(model::Phase::decode(request.phase.batch, request.phase.past + request.phase.tokens));
  }
  const bool training = request.phase.kind == model::Phase::Kind::kTrain;
  grid.batches = {request.phase.batch};
  for (const std::int64_t batch :
       training ? std::vector<std::int64_t>{1, 4, 16} : std::vector<std::int64_t>{1, 8, 32, 128, 512}) {
    if (batch != request.phase.batch) grid.batches.push_back(batch);
  }
  grid.weights = {request.plan.type(model::Role::kWeight)};
  if (!training) {
    for (const DType type : {DType::kBf16, DType::kFp8E4m3, DType::kInt8, DType::kQ4_0}) {
      if (type != grid.weights.front()) grid.weights.push_back(type);
    }
  }
  report::PageBuilder page(
      fmt::format("{} under the roofline", request.model.name.empty() ? request.model.id : request.model.name),
      "Predicted by rooftree from the model's operators and the machine's description, with the interval that its calibration "
      "measured. Switch phase, batch and weight type to see what moves.");
  ROOFTREE_TRY_VOID(report::add_grid(page, request.model, grid, request.plan, cost::CalibrationTable::builtin()));
  return page.html();
}

Result<int> run(const Options& options) {
  ROOFTREE_TRY(const Request request, resolve(options));
  const report::Terminal terminal = report::terminal(STDOUT_FILENO);
  const cost::CalibrationTable& calibration = cost::CalibrationTable::builtin();
  if (!options.sweeps.empty()) {
    std::vector<report::Sweep> sweeps;
    for (const std::string& text : options.sweeps) {
      ROOFTREE_TRY(report::Sweep sweep, run_sweep(request, text));
      sweeps.push_back(std::move(sweep));
    }
    if (options.json) {
      fmt::print("{}", report::sweep_json_text(sweeps));
    } else {
      for (const report::Sweep& sweep : sweeps) {
        if (sweep.points.empty()) continue;
        fmt::print("{}\n{}", report::headline(sweep.points.front().analysis), report::sweep_text(sweep, terminal));
      }
    }
  } else {
    std::vector<report::Analysis> analyses;
    for (const machine::Machine& machine : request.machines) {
      ROOFTREE_TRY(report::Analysis analysis,
                   report::analyze(request.model, machine, request.phase, request.plan, calibration));
      analyses.push_back(std::move(analysis));
    }
    if (options.json) {
      fmt::print("{}", report::estimate_json_text(analyses));
    } else if (analyses.size() == 1) {
      fmt::print("{}", report::analysis_text(analyses.front(), terminal));
    } else {
      fmt::print("{}", report::several_text(analyses, terminal));
    }
    if (!options.svg.empty()) ROOFTREE_TRY_VOID(write_file(options.svg, report::roofline_svg(analyses.front())));
    const bool runs = std::any_of(analyses.begin(), analyses.end(),
                                  [](const report::Analysis& a) { return a.estimate.regime != cost::Regime::kDoesNotFit; });
    if (!options.html.empty()) {
      ROOFTREE_TRY(const std::string html, page_of(request));
      ROOFTREE_TRY_VOID(write_file(options.html, html));
    }
    return runs ? 0 : 1;
  }
  if (!options.html.empty()) {
    ROOFTREE_TRY(const std::string html, page_of(request));
    ROOFTREE_TRY_VOID(write_file(options.html, html));
  }
  return 0;
}

}  // namespace

void add_analyze_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("analyze", "Where a model stands under a machine's roofs, and what would move it");
  add_workload_flags(*verb, options->workload);
  verb->add_option("--on", options->machines, "MACHINE: catalogue id, `this`, or a JSON file; several with commas")
      ->required()
      ->delimiter(',');
  verb->add_option("--set", options->overrides,
                   "PATH=VALUE: change a property of the machine, like chip.dram.bandwidth=\"8 TB/s\"");
  verb->add_option("--sweep", options->sweeps,
                   "batch=1,2,4..256, context=…, tokens=…, weights=…, kv=…, activations=… (`..` doubles)");
  verb->add_flag("--json", options->json, "For programs");
  verb->add_option("--html", options->html, "Also write a self-contained page to FILE");
  verb->add_option("--svg", options->svg, "Also write the roofline of the first machine to FILE");
  verb->callback([options, &exit_code] { exit_code = finish(run(*options)); });
}

}  // namespace rooftree::cli

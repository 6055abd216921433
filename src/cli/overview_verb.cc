// rooftree overview: this machine's limits, a model under them, and the same
// model on other vendors' machines.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "base/progress.h"
#include "bench_text.h"
#include "cost/estimate.h"
#include "machine/catalog.h"
#include "probe/probe.h"
#include "report/analysis_text.h"
#include "report/page.h"
#include "report/plot_text.h"
#include "report/table.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

constexpr std::int64_t kPrompt = 512;
constexpr std::int64_t kContext = 1024;
constexpr std::int64_t kServingBatch = 32;
constexpr std::int64_t kMeasuredContext = 128;

// Six vendors, six ideas of what a chip for this should be, all with public
// data on the catalogue's better pages.
constexpr const char* kOthers[] = {"nvidia-h100-sxm", "amd-mi300x",   "google-tpu-v6e",
                                   "intel-gaudi3",    "apple-m4-max", "groq-lpu-v1"};

struct Options {
  std::string model = "llama-3.2-1b", html = "report.html";
  bool fresh = false;
};

// The machine that this runs on: as kept, or measured now.
Result<machine::Machine> this_machine(bool fresh) {
  const std::filesystem::path path = machine::this_machine_path();
  std::error_code error;
  if (!fresh && std::filesystem::exists(path, error)) {
    auto kept = resolve_machine("this", {});
    if (!kept) return kept.error().within(fmt::format("{} (--fresh measures it again)", path.string()));
    fmt::print("Reusing the limits measured before ({}; --fresh measures again).\n", path.string());
    return kept;
  }
  fmt::print("Measuring this machine's limits: about 20 s.\n");
  std::fflush(stdout);
  const InterruptGuard guard;
  InterruptibleLine progress;
  probe::ProbeOptions probe_options;
  probe_options.progress = &progress;
  ROOFTREE_TRY(const probe::ProbeResult result, probe::run_probe(probe_options));
  machine::Machine machine = probe::to_machine(result);
  // A home that cannot be written to costs the next run its 20 s, not this run its answer.
  if (const Status saved = probe::save_this_machine(machine); !saved) report_error(saved.error());
  return machine;
}

// CPUs run our own engine, which the last part measures.
cost::Plan plan_for(const machine::Machine& machine) {
  cost::Plan plan;
  if (machine.chip().kind == machine::ChipKind::kCpu) plan.stack = cost::Stack::kRooftree;
  return plan;
}

// How a chip that cannot hold the model is put: how many of it could.
std::string chips_needed(const cost::MemoryByRole& memory) {
  const Bytes usable = memory.capacity - memory.reserve;
  if (memory.fits) return "yes";
  if (!(usable > Bytes{})) return "no";
  return fmt::format("no: {} chips", report::count(std::ceil(memory.total / usable)));
}

std::string elsewhere_text(const std::vector<report::Analysis>& prefill, const std::vector<report::Analysis>& decode,
                           const std::vector<report::Analysis>& serving, const report::Terminal& terminal) {
  using report::Align;
  const std::string one = "b1";
  const std::string many = fmt::format("b{}", kServingBatch);
  report::Table table({{"machine", "", Align::kLeft, 0, 21},
                       {"prefill", "ms"},
                       {"decode " + one, "tokens/s"},
                       {"bound", "", Align::kLeft, 2},
                       {"decode " + many, "tokens/s"},
                       {"energy " + many, "kJ/Mtok", Align::kRight, 1},
                       {"cost " + one, "$/Mtok", Align::kRight, 3},
                       {"cost " + many, "$/Mtok"},
                       {"fits", "", Align::kLeft}});
  bool bought = false;
  for (std::size_t i = 0; i < decode.size(); ++i) {
    const cost::Estimate& d = decode[i].estimate;
    const cost::Estimate& s = serving[i].estimate;
    const std::string name = report::chip_label(decode[i].machine.chip());
    if (!d.memory.fits) {
      table.add_row({name, "-", "-", "", "-", "-", "- ", "- ", chips_needed(d.memory)}, report::Style::kDim);
      continue;
    }
    const bool purchase = d.price_basis == cost::PriceBasis::kPurchase;
    bought = bought || purchase;
    const auto price = [&](const std::optional<double>& v) {
      return v ? report::dollars(*v * 1e6) + (purchase ? "*" : " ") : std::string("- ");
    };
    const auto joules = report::joules_per_token(s);
    table.add_row({name, report::number(prefill[i].estimate.time.best.value() * 1e3), report::number(d.tokens_per_second),
                   std::string(cost::name(d.bound)), report::number(s.tokens_per_second),
                   joules ? report::number(*joules * 1e3) : "-", price(report::dollars_per_token(d)),
                   price(report::dollars_per_token(s)), chips_needed(s.memory)});
  }
  std::string out = table.render(terminal.width, terminal.colour);
  std::string text = fmt::format(
      "Prefill of {} tokens; {}: one user, {}: {} users at once, context {}. "
      "What makes a token cheap is first of all how many users share "
      "each pass over the weights, and only then the chip. Cost is the chip's "
      "rent alone, without host and building.",
      kPrompt, one, many, kServingBatch, kContext);
  if (bought)
    text +=
        " * No rent is known: bought and written off over five years, "
        "which flatters it.";
  return out + report::wrap(text, terminal.width);
}

std::string heading(std::string_view text, const report::Terminal& terminal) {
  std::string line;
  for (int i = 0; i < report::display_width(text); ++i) line += "─";
  return fmt::format("\n{}\n{}\n", report::styled(text, report::Style::kBold, terminal.colour), line);
}

// The prediction held against the engine: the same model with random weights, here and now.
Status print_measured(const model::Model& model, const machine::Machine& here, const report::Terminal& terminal) {
  const InterruptGuard guard;
  InterruptibleLine progress;
  measure::BenchOptions options;
  options.batches = {1, 8};
  options.prompts = {kPrompt};
  options.context = kMeasuredContext;
  options.samples = 5;
  options.engine.weights = DType::kBf16;
  ROOFTREE_TRY(engine::ModelFiles files, engine::ModelFiles::synthetic(model, DType::kBf16, options.seed));
  ROOFTREE_TRY(const measure::BenchResult result, measure::bench_model(std::move(files), here, options, &progress));
  progress.update(1, "");
  fmt::print("{}", bench_text(result, terminal));
  return Ok{};
}

Result<int> run(const Options& options) {
  const report::Terminal terminal = report::terminal(STDOUT_FILENO);
  const cost::CalibrationTable& calibration = cost::CalibrationTable::builtin();
  ROOFTREE_TRY(const model::Model model, resolve_model(options.model));
  ROOFTREE_TRY(const machine::Machine here, this_machine(options.fresh));
  const std::string model_name = model.name.empty() ? model.id : model.name;
  const machine::Chip& chip = here.chip();

  const model::Phase prefill = model::Phase::prefill(1, kPrompt);
  const model::Phase decode = model::Phase::decode(1, kContext);
  ROOFTREE_TRY(report::Analysis here_prefill, report::analyze(model, here, prefill, plan_for(here), calibration));
  ROOFTREE_TRY(report::Analysis here_decode, report::analyze(model, here, decode, plan_for(here), calibration));

  // 1. The roofs.
  fmt::print("{}",
             heading(fmt::format("1  Where is the limit of this machine?  {}, {} cores", report::chip_label(chip), chip.cores),
                     terminal));
  fmt::print("{}\n", report::roofs_text(here, terminal));
  const Arithmetic arithmetic = here_decode.estimate.arithmetic;
  const auto mark = [](char letter, const report::Analysis& a) {
    const cost::Estimate& e = a.estimate;
    return report::PlotMark{letter, report::phase_text(a), e.intensity.value(), e.flop.value() / e.time.best.value()};
  };
  fmt::print("{}\n", report::plot_text(chip, arithmetic, {mark('P', here_prefill), mark('D', here_decode)}, terminal));
  const double ridge = (machine::product_rate(chip, arithmetic) / chip.main_memory().bandwidth).value();
  fmt::print(
      "{}",
      report::wrap(
          fmt::format(
              "With {} arithmetic, work of fewer than {} FLOP per byte of {} waits for memory here, work of more waits for "
              "arithmetic. Nearer levels have their ridges further left: what stays in cache needs less re-use. P and D are "
              "{}, "
              "weights in {}.",
              rooftree::name(arithmetic), report::number(ridge), chip.main_memory().name, model_name,
              rooftree::name(here_decode.plan.type(model::Role::kWeight))),
          terminal.width));

  // 2. A model under them.
  int section = 2;
  for (const report::Analysis* a : {&here_prefill, &here_decode}) {
    fmt::print("{}", heading(fmt::format("{}  {}: {}", section++, model_name, report::phase_text(*a)), terminal));
    fmt::print("{}", report::answer_text(*a, terminal));
    fmt::print("\n{}", report::operators_text(*a, terminal));
    fmt::print("\nWhat would move it\n{}", report::moves_text(*a, terminal, 3));
  }
  std::vector<report::Analysis> prefills{std::move(here_prefill)};
  std::vector<report::Analysis> decodes{std::move(here_decode)};
  std::vector<report::Analysis> servings;
  const report::AnalyzeOptions brief{.with_sensitivities = false, .with_crossing = false, .with_operator_moves = false};
  ROOFTREE_TRY(report::Analysis busy,
               report::analyze(model, here, model::Phase::decode(kServingBatch, kContext), plan_for(here), calibration, brief));
  servings.push_back(std::move(busy));

  // 3. The same elsewhere.
  std::vector<machine::Machine> machines{here};
  for (const char* id : kOthers) {
    ROOFTREE_TRY(machine::Machine other, resolve_machine(id, {}));
    for (auto& [list, phase] : {std::pair{&prefills, prefill}, std::pair{&decodes, decode},
                                std::pair{&servings, model::Phase::decode(kServingBatch, kContext)}}) {
      ROOFTREE_TRY(report::Analysis a, report::analyze(model, other, phase, plan_for(other), calibration, brief));
      list->push_back(std::move(a));
    }
    machines.push_back(std::move(other));
  }
  fmt::print("{}", heading(fmt::format("{}  The same model on one chip of six vendors", section), terminal));
  fmt::print("{}", elsewhere_text(prefills, decodes, servings, terminal));

  // 4. The model executed.
  fmt::print(
      "{}", heading(fmt::format("{}  Is that true? {} with random weights, executed here", section + 1, model_name), terminal));
  std::fflush(stdout);
  if (model.numerics()) {
    // Too little memory, or an interruption: the rest of the tour is still worth having.
    if (const Status measured = print_measured(model, here, terminal); !measured) report_error(measured.error());
  } else {
    fmt::print("{}", report::wrap(model.numerics().error().message, terminal.width));
  }

  // 5. The page.
  report::PageBuilder page(fmt::format("{} under seven roofs", model_name),
                           fmt::format("Predicted by rooftree for the machine it ran on ({}) and "
                                       "one chip of each of six "
                                       "vendors. Nothing but the limits of the "
                                       "first was measured; every rate carries the interval that "
                                       "the calibration supports.",
                                       report::chip_label(chip)));
  report::PageGrid grid;
  grid.machines = machines;
  grid.phases = {decode, prefill};
  grid.batches = {1, 8, kServingBatch, 128};
  grid.weights = {DType::kBf16, DType::kInt8, DType::kQ4_0};
  for (const machine::Machine& machine : machines) {
    report::PageGrid one = grid;
    one.machines = {machine};
    ROOFTREE_TRY_VOID(report::add_grid(page, model, one, plan_for(machine), calibration));
  }
  const std::string html = page.html();
  ROOFTREE_TRY_VOID(write_file(options.html, html));
  fmt::print("{}", heading("Next", terminal));
  fmt::print("Open {} ({} KiB, self-contained): every operator under its roof, every switch.\nThen ask, for instance:\n",
             options.html, html.size() / 1024);
  fmt::print("  rooftree analyze {} --on this --phase decode --sweep batch=1..256\n", model.id);
  fmt::print("  rooftree bench {} --weights q4_0 --operators\n", model.id);
  fmt::print("  rooftree analyze llama-3.1-70b --on nvidia-h100-sxm,amd-mi300x --weights int8\n");
  fmt::print(
      "  rooftree explore chip --model llama-3.1-8b --x memory.bandwidth=100GB/s..2TB/s \\\n"
      "                        --y memory.capacity=8GB..64GB --html chips.html\n");
  return 0;
}

}  // namespace

void add_overview_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("overview",
                                      "This machine's limits, a model under them, and six other "
                                      "machines; writes report.html");
  verb->add_option("--model", options->model, "MODEL (default llama-3.2-1b)");
  verb->add_option("--html", options->html, "FILE of the page (default report.html)");
  verb->add_flag("--fresh", options->fresh, "Measure this machine again");
  verb->callback([options, &exit_code] { exit_code = finish(run(*options)); });
}

}  // namespace rooftree::cli

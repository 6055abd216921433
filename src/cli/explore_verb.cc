// rooftree explore chip: two properties of a made-up chip against a model and a budget.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "base/unit_text.h"
#include "cost/explore.h"
#include "report/analysis.h"
#include "report/heat_map.h"
#include "report/page.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

constexpr int kDefaultSteps = 13;
constexpr int kMostSteps = 64;

struct Options {
  WorkloadFlags workload;
  std::string subject, x, y, base = "nvidia-h100-sxm", steps;
  std::vector<std::string> overrides, budgets;
  std::string html;
  bool json = false;
};

Result<double> parse_property(cost::ChipProperty property, const std::string& text) {
  using enum cost::ChipProperty;
  const auto value_of = [](auto&& quantity) -> Result<double> {
    if (!quantity) return quantity.error();
    return quantity->value();
  };
  if (property == kMemoryCapacity || property == kOnChipCapacity) return value_of(parse_bytes(text));
  if (property == kCompute) return value_of(parse_flop_rate(text));
  return value_of(parse_bandwidth(text));
}

// "memory.bandwidth=100 GB/s..8 TB/s": a geometric grid; the unit of the first end may be left to the second's if both agree.
Result<cost::Axis> parse_axis(const std::string& text, const std::string& flag, int steps) {
  const std::size_t equals = text.find('=');
  const std::size_t dots = text.find("..");
  if (equals == std::string::npos || dots == std::string::npos || dots < equals) {
    return Error{ErrorCode::kParse,
                 fmt::format("{}: '{}'; expected PROPERTY=LOW..HIGH, like memory.bandwidth=100GB/s..8TB/s", flag, text)};
  }
  std::string property_text = text.substr(0, equals);
  // The chip's own path for its main memory is accepted too.
  if (property_text.rfind("chip.", 0) == 0) property_text.erase(0, 5);
  if (property_text.rfind("dram.", 0) == 0) property_text = "memory." + property_text.substr(5);
  auto property = cost::parse_chip_property(property_text);
  if (!property) return property.error().within(flag);
  auto low = parse_property(*property, text.substr(equals + 1, dots - equals - 1));
  if (!low) return low.error().within(flag);
  auto high = parse_property(*property, text.substr(dots + 2));
  if (!high) return high.error().within(flag);
  if (!(*low > 0) || !(*high > *low)) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: '{}'; expected a low end above zero and below the high end", flag, text)};
  }
  return cost::Axis{*property, cost::geometric_grid(*low, *high, steps)};
}

// "300 W", "600 mm2", "5000 USD".
Status add_budget(const std::string& text, cost::Budget& budget) {
  constexpr std::string_view kArea = "mm2";
  if (text.size() > kArea.size() && text.compare(text.size() - kArea.size(), kArea.size(), kArea) == 0) {
    const std::string number = text.substr(0, text.size() - kArea.size());
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    while (end != nullptr && *end == ' ') ++end;
    if (end != nullptr && end != number.c_str() && *end == '\0' && std::isfinite(value) && value > 0) {
      budget.area_mm2 = value;
      return Ok{};
    }
  } else if (auto power = parse_watts(text); power && *power > Watts{}) {
    budget.power_w = power->value();
    return Ok{};
  } else if (auto money = parse_dollars(text); money && *money > Dollars{}) {
    budget.cost_usd = money->value();
    return Ok{};
  }
  return Error{
      ErrorCode::kParse,
      fmt::format("--budget: '{}'; expected a power, an area or a price, like \"300 W\", \"600 mm2\" or \"5000 USD\"", text)};
}

Result<int> run(const Options& options) {
  if (options.subject != "chip") {
    return Error{ErrorCode::kInvalid, fmt::format("explore: '{}' cannot be explored; expected chip", options.subject)};
  }
  std::int64_t steps = kDefaultSteps;
  if (!options.steps.empty()) {
    ROOFTREE_TRY(steps, parse_whole(options.steps, "--steps", 2));
    if (steps > kMostSteps)
      return Error{ErrorCode::kInvalid, fmt::format("--steps: {}; expected at most {}", steps, kMostSteps)};
  }
  ROOFTREE_TRY(const cost::Axis x, parse_axis(options.x, "--x", static_cast<int>(steps)));
  ROOFTREE_TRY(const cost::Axis y, parse_axis(options.y, "--y", static_cast<int>(steps)));
  cost::Budget budget;
  std::string budget_text;
  for (const std::string& text : options.budgets) {
    ROOFTREE_TRY_VOID(add_budget(text, budget));
    budget_text += (budget_text.empty() ? "" : ", ") + text;
  }
  ROOFTREE_TRY(const model::Model model, resolve_model(options.workload.model));
  ROOFTREE_TRY(const machine::Machine base, resolve_machine(options.base, options.overrides));
  ROOFTREE_TRY(const model::Phase phase, parse_phase(options.workload));
  ROOFTREE_TRY(const cost::Plan plan, parse_plan(options.workload, model));
  ROOFTREE_TRY(const cost::Exploration exploration,
               cost::explore(model, phase, base, cost::CalibrationTable::builtin(), plan, x, y, budget));
  const std::string name = model.name.empty() ? model.id : model.name;
  const report::HeatMap map = report::heat_map(
      exploration,
      fmt::format("{}, {} weights: {}, on chips like {}", name, rooftree::name(plan.type(model::Role::kWeight)),
                  report::phase_text(phase), report::chip_label(base.chip())),
      budget_text);
  if (options.json) {
    fmt::print("{}", report::heat_map_json_text(map));
  } else {
    fmt::print("{}", report::heat_map_text(map, report::terminal(STDOUT_FILENO)));
  }
  if (!options.html.empty()) {
    report::PageBuilder page(
        fmt::format("Which chip for {}?", name),
        fmt::format(
            "Every cell is a chip that differs from {} only in {} and {}. Power, area and parts are a proxy for comparing "
            "designs, not a quotation.",
            report::chip_label(base.chip()), map.x.label, map.y.label));
    page.set_heat_map(map);
    ROOFTREE_TRY_VOID(write_file(options.html, page.html()));
  }
  return exploration.fastest ? 0 : 1;
}

}  // namespace

void add_explore_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      app.add_subcommand("explore", "Two properties of a made-up chip against a model and a budget: which corner?");
  verb->add_option("subject", options->subject, "chip")->required();
  add_workload_flags(*verb, options->workload, "--model");
  verb->add_option("--x", options->x,
                   "PROPERTY=LOW..HIGH across: memory.bandwidth, memory.capacity, compute, on_chip.capacity, ...")
      ->required();
  verb->add_option("--y", options->y, "PROPERTY=LOW..HIGH down")->required();
  verb->add_option("--steps", options->steps, "Values per axis (default 13)");
  verb->add_option("--base", options->base, "MACHINE that the chips resemble otherwise (default nvidia-h100-sxm)");
  verb->add_option("--set", options->overrides, "PATH=VALUE: change another property of the base");
  verb->add_option("--budget", options->budgets, "A limit: \"300 W\", \"600 mm2\", \"5000 USD\"; several are possible");
  verb->add_flag("--json", options->json, "For programs");
  verb->add_option("--html", options->html, "Also write a self-contained page to FILE");
  verb->callback([options, &exit_code] { exit_code = finish(run(*options)); });
}

}  // namespace rooftree::cli

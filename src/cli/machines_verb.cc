// rooftree machines: lists and filters the catalogue, compares a few machines, or shows one with every value, its source and
// its doubts; --standards shows what belongs to no machine.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "base/unit_text.h"
#include "machine/catalog.h"
#include "machine/catalog_format.h"
#include "report/machine_json.h"
#include "report/machine_list.h"
#include "report/machine_text.h"
#include "report/standards.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

using machine::Catalog;
using machine::Machine;

struct Options {
  std::string name, min_memory, sort, catalog;
  report::MachineFilter filter;
  std::vector<std::string> sets;
  bool json = false, per_watt = false, standards = false;
};

Status print_list(std::vector<report::MachineLine> lines, const Options& options) {
  // Machines that were named keep the order in which they were.
  if (options.name.empty() || !options.sort.empty()) {
    ROOFTREE_TRY_VOID(sort_machines(lines, options.sort.empty() ? "id" : options.sort));
  }
  const report::Terminal terminal = report::terminal(1);
  fmt::print("{}", options.json       ? report::machine_list_json_text(lines)
                   : options.per_watt ? per_watt_text(lines, !options.name.empty(), terminal)
                                      : machine_list_text(lines, terminal));
  return Ok{};
}

Status list(const Catalog& catalog, Options options) {
  if (!options.sets.empty()) {
    return Error{ErrorCode::kInvalid, "--set without a machine; expected `rooftree machines NAME --set PATH=VALUE`"};
  }
  if (!options.min_memory.empty()) {
    Result<Bytes> parsed = parse_bytes(options.min_memory);
    if (!parsed) return parsed.error().within("--min-memory");
    options.filter.least_memory = *parsed;
  }
  ROOFTREE_TRY(std::vector<report::MachineLine> lines, select_machines(catalog, options.filter));
  return print_list(std::move(lines), options);
}

Status compare(const Catalog& catalog, const Options& options) {
  std::vector<report::MachineLine> lines;
  for (const std::string& name : split(options.name, ',')) {
    ROOFTREE_TRY(Machine found, catalog.resolve(name));
    for (const std::string& set : options.sets) ROOFTREE_TRY_VOID(apply_override(found, set));
    lines.push_back(report::machine_line(std::move(found)));
  }
  return print_list(std::move(lines), options);
}

Status show_standards(const Catalog& catalog, const Options& options) {
  if (!options.name.empty()) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("--standards with machine '{}'; standards belong to no machine, expected no name", options.name)};
  }
  ROOFTREE_TRY(const report::Standards standards, report::standards(catalog));
  fmt::print("{}", options.json ? standards_json_text(standards) : standards_text(standards, report::terminal(1)));
  return Ok{};
}

Status show(const Catalog& catalog, const Options& options) {
  Result<Machine> found = catalog.resolve(options.name);
  if (!found) {
    // Links and switches stand in the catalogue too.
    const Result<machine::FabricEntry> fabric = catalog.find_fabric(options.name);
    if (found.error().code != ErrorCode::kNotFound || !fabric || options.json || !options.sets.empty()) return found.error();
    fmt::print("{}", report::fabric_text(*fabric, report::terminal(1)));
    return Ok{};
  }
  for (const std::string& set : options.sets) ROOFTREE_TRY_VOID(apply_override(*found, set));
  fmt::print("{}", options.json ? report::machine_json_text(*found) : report::machine_text(*found, report::terminal(1)));
  return Ok{};
}

Status run(const Options& options) {
  ROOFTREE_TRY(const Catalog catalog,
               options.catalog.empty() ? Catalog::from_environment() : Catalog::from_directory(options.catalog));
  if (options.standards) return show_standards(catalog, options);
  if (options.name.empty()) return list(catalog, options);
  const report::MachineFilter& filter = options.filter;
  if (!filter.vendor.empty() || !filter.kind.empty() || !options.min_memory.empty() || filter.only_systems ||
      filter.only_chips) {
    return Error{
        ErrorCode::kInvalid,
        fmt::format("'{}' beside --vendor, --kind, --min-memory, --system or --chip, which choose from the whole catalogue; "
                    "expected names or filters",
                    options.name)};
  }
  if (options.per_watt || options.name.find(',') != std::string::npos) return compare(catalog, options);
  return show(catalog, options);
}

}  // namespace

void add_machines_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("machines", "list the machines of the catalogue, or show one with its sources");
  verb->add_option("name", options->name,
                   "a machine: an id, '8x ID', 'this' or a JSON file; several with commas; or a link: nvlink-5");
  verb->add_option("--set", options->sets, "change a value, e.g. chip.dram.bandwidth=\"8 TB/s\" (repeatable)")
      ->allow_extra_args(false);
  verb->add_option("--vendor", options->filter.vendor, "only this vendor (part of its name)");
  verb->add_option("--kind", options->filter.kind, "only gpu, cpu, tpu, dataflow or npu");
  verb->add_option("--min-memory", options->min_memory, "only machines with at least this main memory, e.g. 80GB");
  CLI::Option* systems = verb->add_flag("--system", options->filter.only_systems, "only systems of several chips");
  verb->add_flag("--chip", options->filter.only_chips, "only single chips")->excludes(systems);
  verb->add_option("--sort", options->sort, "id, vendor, year, chips, memory, bandwidth, rate, ridge or power");
  verb->add_flag("--per-watt", options->per_watt, "rates, bandwidth and memory per watt; named machines against the first");
  verb->add_flag("--standards", options->standards, "memory standards per stack, conventions of cost and energy, latencies");
  verb->add_option("--catalog", options->catalog, "a folder to use instead of the built-in catalogue");
  verb->add_flag("--json", options->json, "print JSON");
  verb->callback([options, &exit_code] {
    if (const Status status = run(*options); !status) exit_code = report_error(status.error());
  });
}

}  // namespace rooftree::cli

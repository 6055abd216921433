#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "arguments.h"
#include "base/progress.h"
#include "machine/catalog.h"
#include "probe/probe.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Flags {
  bool quick = false, json = false, no_save = false;
  int threads = 0;
};

Result<probe::ProbeResult> measure(const Flags& flags) {
  const InterruptGuard guard;
  InterruptibleLine line;
  probe::ProbeOptions options = flags.quick ? probe::quick_options() : probe::ProbeOptions{};
  options.threads = flags.threads;
  options.progress = &line;
  return probe::run_probe(options);
}

int run(const Flags& flags) {
  const Result<probe::ProbeResult> result = measure(flags);
  if (!result) return report_error(result.error());
  fmt::print("{}", flags.json ? probe::to_json(*result) : probe::to_table(*result));
  if (flags.no_save) return 0;
  const Status saved = probe::save_this_machine(probe::to_machine(*result));
  if (!saved) return report_error(saved.error());
  if (!flags.json) fmt::print("Kept as machine `this` in {}\n", machine::this_machine_path().string());
  return 0;
}

}  // namespace

void add_probe_verb(CLI::App& app, int& exit_code) {
  CLI::App* verb =
      app.add_subcommand("probe", "Measure this machine's real limits (about 20 s) and keep them as machine `this`");
  const auto flags = std::make_shared<Flags>();
  verb->add_flag("--quick", flags->quick, "About 5 s: fewer samples, less certain on a noisy machine");
  verb->add_flag("--json", flags->json, "Print everything as JSON");
  verb->add_flag("--no-save", flags->no_save, "Do not replace the machine `this`");
  verb->add_option("--threads", flags->threads, "Threads to measure with (default: one per core; ROOFTREE_THREADS)")
      ->check(CLI::Range(1, 4096));
  verb->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace rooftree::cli

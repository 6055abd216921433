// rooftree certify: which levels of the numeric contract this device and build hold.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "arguments.h"
#include "base/json.h"
#include "base/progress.h"
#include "engine/certify.h"
#include "engine/receipt.h"
#include "report/table.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

constexpr kernels::Level kLevels[] = {kernels::Level::kA, kernels::Level::kB, kernels::Level::kC};
constexpr std::string_view kMeaning[] = {"exact integer blocks: the same bits everywhere",
                                         "ordered 16-bit: the same bits everywhere",
                                         "fast: the same bits in every batch and with any number of threads"};

std::string to_json(const engine::Certificate& c) {
  Json j{{"contract", engine::kContractVersion},
         {"backend", c.backend},
         {"cpu", c.cpu},
         {"compiler", c.compiler},
         {"hash", c.hash}};
  for (const kernels::Level level : kLevels) {
    j["levels"][std::string(kernels::name(level))] = c.held[static_cast<std::size_t>(level)];
  }
  for (const auto& [fact, holds] : c.facts) j["facts"][fact] = holds;
  for (const engine::CertifyCase& x : c.cases) {
    Json one{{"name", x.name}, {"level", std::string(kernels::name(x.level))}, {"hash", x.hash}, {"held", x.held}};
    if (!x.why.empty()) one["why"] = x.why;
    j["cases"].push_back(std::move(one));
  }
  return j.dump(2) + "\n";
}

void print(const engine::Certificate& c) {
  using report::Align;
  const report::Terminal terminal = report::terminal(STDOUT_FILENO);
  fmt::print("Numeric contract version {}, {} on {}\n", engine::kContractVersion, c.backend, c.cpu);
  for (const auto& [fact, holds] : c.facts) fmt::print("  {} {}\n", holds ? "yes" : "NO ", fact);
  fmt::print("\n");
  report::Table table(
      {{"work", "", Align::kLeft}, {"level", "", Align::kLeft}, {"hash", "", Align::kLeft}, {"", "", Align::kLeft}});
  for (const engine::CertifyCase& x : c.cases) {
    table.add_row({x.name, std::string(kernels::name(x.level)), x.hash, x.held ? "held" : x.why},
                  x.held ? report::Style::kPlain : report::Style::kBold);
  }
  fmt::print("{}\n", table.render(terminal.width, terminal.colour));
  for (const kernels::Level level : kLevels) {
    const auto i = static_cast<std::size_t>(level);
    fmt::print("Level {}: {} ({})\n", kernels::name(level), c.held[i] ? "held" : "NOT HELD", kMeaning[i]);
  }
  fmt::print("Hash of all of it, equal on every machine that holds them: {}\n", c.hash);
}

Result<int> run(bool json) {
  ROOFTREE_TRY(const CpuFeatures features, usable_cpu_features());
  const InterruptGuard guard;
  Result<engine::Certificate> certificate = [&] {
    InterruptibleLine progress;
    return engine::certify(features, &progress);
  }();
  if (!certificate) return certificate.error();
  if (json) {
    fmt::print("{}", to_json(*certificate));
  } else {
    print(*certificate);
  }
  return certificate->held[0] && certificate->held[1] && certificate->held[2] ? 0 : 1;
}

}  // namespace

void add_certify_verb(CLI::App& app, int& exit_code) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("certify", "Test which levels of the numeric contract this device and build hold");
  verb->add_flag("--json", *json, "Print everything as JSON");
  verb->callback([json, &exit_code] { exit_code = finish(run(*json)); });
}

}  // namespace rooftree::cli

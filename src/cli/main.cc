#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "base/check.h"
#include "base/result.h"
#include "verbs.h"

namespace rooftree::cli {

int report_error(const Error& error) {
  fmt::print(stderr, "rooftree: {}\n", error.message);
  return error.code == ErrorCode::kEnvironment ? 3 : 2;
}

namespace {

constexpr int kExitInternal = 70;  // our bug (EX_SOFTWARE of sysexits.h)

void exit_on_failed_check(const char* file, int line, const char* expression, const char* message) {
  std::fprintf(stderr, "rooftree: internal error: %s:%d: check failed: %s (%s)\n", file, line, expression, message);
  std::_Exit(kExitInternal);
}

int run(int argc, char** argv) {
  CLI::App app{"Where is the limit of a machine, where does a model stand under it, and what would move it?", "rooftree"};
  app.set_version_flag("--version", "rooftree 0.1.0");
  app.require_subcommand(1);
  int exit_code = 0;
  add_models_verb(app, exit_code);
  add_probe_verb(app, exit_code);
  add_analyze_verb(app, exit_code);
  add_certify_verb(app, exit_code);
  add_diff_verb(app, exit_code);
  add_bench_verb(app, exit_code);
  add_explore_verb(app, exit_code);
  add_overview_verb(app, exit_code);
  add_machines_verb(app, exit_code);
  add_validate_verb(app, exit_code);
  add_run_verb(app, exit_code);
  add_chat_verb(app, exit_code);
  add_convert_verb(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return exit_code;
}

}  // namespace
}  // namespace rooftree::cli

int main(int argc, char** argv) {
  rooftree::set_check_handler(&rooftree::cli::exit_on_failed_check);
  try {
    return rooftree::cli::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "rooftree: internal error: {}\n", e.what());
    return rooftree::cli::kExitInternal;
  }
}

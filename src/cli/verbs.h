#pragma once

// One function per verb: adds the sub-command with its flags; its callback stores the exit code.
// Exit codes: 0 done, 1 the answer is no, 2 wrong use or bad input, 3 environment, 70 our bug.

namespace CLI {
class App;
}

namespace rooftree {
struct Error;
}

namespace rooftree::cli {

// Prints the error to standard error and returns the exit code of its kind (2 or 3).
int report_error(const Error& error);

void add_models_verb(CLI::App& app, int& exit_code);
void add_probe_verb(CLI::App& app, int& exit_code);
void add_analyze_verb(CLI::App& app, int& exit_code);
void add_certify_verb(CLI::App& app, int& exit_code);
void add_diff_verb(CLI::App& app, int& exit_code);
void add_explore_verb(CLI::App& app, int& exit_code);
void add_bench_verb(CLI::App& app, int& exit_code);
void add_overview_verb(CLI::App& app, int& exit_code);
void add_machines_verb(CLI::App& app, int& exit_code);
void add_validate_verb(CLI::App& app, int& exit_code);
void add_run_verb(CLI::App& app, int& exit_code);
void add_chat_verb(CLI::App& app, int& exit_code);
void add_convert_verb(CLI::App& app, int& exit_code);

}  // namespace rooftree::cli

#pragma once

// What several verbs read the same way: models, machines, phases, plans. Flags arrive as text, so that every bad value gets our
// own message: which flag, what was found, what was expected.

#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "cost/plan.h"
#include "machine/machine.h"
#include "model/model.h"

namespace CLI {
class App;
}

namespace rooftree::cli {

// The text of the flags that say what is computed and how; empty = not given.
struct WorkloadFlags {
  std::string model, phase = "decode", batch = "1", context, tokens, past, images;
  std::string weights, expert_weights, kv, activations, gradients, optimizer, recompute, sparsity, fusion, stack, arithmetic;
};
// `model_flag`: "model" for a positional MODEL, "--model" for a flag.
void add_workload_flags(CLI::App& verb, WorkloadFlags& flags, const char* model_flag = "model");

Result<model::Model> resolve_model(const std::string& spec);
// The machine with `--set` overrides applied.
Result<machine::Machine> resolve_machine(const std::string& spec, const std::vector<std::string>& overrides);
Result<model::Phase> parse_phase(const WorkloadFlags& flags);
// Weights default to the type that the model was published in where that is narrower than bf16, else to bf16.
Result<cost::Plan> parse_plan(const WorkloadFlags& flags, const model::Model& model);
Result<cost::Sparsity> parse_sparsity(std::string_view text);

// A whole number of at least `least`; `where` names the flag.
Result<std::int64_t> parse_whole(std::string_view text, std::string_view where, std::int64_t least = 1);

std::vector<std::string> split(std::string_view text, char separator);
Status write_file(const std::string& path, std::string_view text);

// Progress on standard error that Ctrl-C cancels; needs an InterruptGuard.
class InterruptibleLine : public ProgressLine {
 public:
  InterruptibleLine() : ProgressLine(stderr) {}
  [[nodiscard]] bool cancelled() const override { return InterruptGuard::interrupted(); }
};

// The exit code of a verb's result; prints the error if it is one.
int finish(const Result<int>& result);

}  // namespace rooftree::cli

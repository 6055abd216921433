// rooftree bench: a model measured on this machine beside what is predicted for it.

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "base/json.h"
#include "base/progress.h"
#include "bench_text.h"
#include "machine/catalog.h"
#include "measure/model_bench.h"
#include "probe/probe.h"
#include "report/estimate_json.h"
#include "report/table.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Options {
  std::string model, weights, kv, batches = "1,8,32", prompts = "512", context = "128", samples = "7", seed = "1", vs;
  int threads = 0;
  bool operators = false, json = false;
};

Result<std::vector<std::int64_t>> parse_list(const std::string& text, std::string_view flag) {
  std::vector<std::int64_t> values;
  if (text == "none") return values;
  for (const std::string& part : split(text, ',')) {
    ROOFTREE_TRY(const std::int64_t value, parse_whole(part, flag));
    values.push_back(value);
  }
  return values;
}

Result<measure::BenchOptions> bench_options(const Options& o) {
  measure::BenchOptions options;
  ROOFTREE_TRY(options.batches, parse_list(o.batches, "--batch"));
  ROOFTREE_TRY(options.prompts, parse_list(o.prompts, "--prompt"));
  if (options.batches.empty() && options.prompts.empty()) {
    return Error{ErrorCode::kInvalid, "--batch none and --prompt none: nothing to measure"};
  }
  ROOFTREE_TRY(options.context, parse_whole(o.context, "--context", 0));
  ROOFTREE_TRY(const std::int64_t samples, parse_whole(o.samples, "--samples"));
  if (samples > 1000) return Error{ErrorCode::kInvalid, fmt::format("--samples: {}; expected 1 to 1000", samples)};
  options.samples = static_cast<int>(samples);
  ROOFTREE_TRY(const std::int64_t seed, parse_whole(o.seed, "--seed", 0));
  options.seed = static_cast<std::uint64_t>(seed);
  options.engine.threads = o.threads;
  if (!o.weights.empty()) {
    auto type = parse_dtype(o.weights);
    if (!type) return type.error().within("--weights");
    options.engine.weights = *type;
  }
  if (!o.kv.empty()) {
    auto type = parse_dtype(o.kv);
    if (!type) return type.error().within("--kv");
    options.engine.kv = *type;
  }
  return options;
}

// A file or folder as it is; a catalogue id with random weights of the type asked for.
Result<engine::ModelFiles> open_model(const Options& o, const measure::BenchOptions& options) {
  std::error_code ignored;
  if (std::filesystem::exists(o.model, ignored)) return engine::ModelFiles::open(o.model);
  ROOFTREE_TRY(const model::Model model, resolve_model(o.model));
  return engine::ModelFiles::synthetic(model, options.engine.weights.value_or(model.native_weight_type), options.seed);
}

// `--vs`: settings of the second side, "threads=1", "weights=q8_0,kv=f16"; or another model.
Result<Options> other_side(const Options& o) {
  Options other = o;
  if (o.vs.find('=') == std::string::npos) {
    other.model = o.vs;
    return other;
  }
  for (const std::string& setting : split(o.vs, ',')) {
    const std::size_t equals = setting.find('=');
    const std::string key = setting.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : setting.substr(equals + 1);
    if (key == "weights") {
      other.weights = value;
    } else if (key == "kv") {
      other.kv = value;
    } else if (key == "threads") {
      ROOFTREE_TRY(const std::int64_t threads, parse_whole(value, "--vs threads"));
      other.threads = static_cast<int>(threads);
    } else if (key == "model") {
      other.model = value;
    } else {
      return Error{ErrorCode::kInvalid,
                   fmt::format("--vs: '{}'; expected weights=, kv=, threads= or model=, or a MODEL", setting)};
    }
  }
  return other;
}

Json spread_json(const measure::Spread& s) {
  return {{"q1", report::finite(s.q1)}, {"median", report::finite(s.median)}, {"q3", report::finite(s.q3)}};
}

Json phase_json(const measure::PhaseBench& p) {
  Json j{{"batch", p.batch},
         {"tokens", p.tokens},
         {"context", p.context},
         {"tokens_per_s", report::finite(p.tokens_per_s)},
         {"predicted_tokens_per_s", report::finite(p.predicted_tokens_per_s)},
         {"predicted_interval_tokens_per_s", {report::finite(p.predicted_low), report::finite(p.predicted_high)}},
         {"step_s", spread_json(p.step_s)},
         {"bytes", report::finite(p.bytes)},
         {"flop", report::finite(p.flop)},
         {"bytes_per_s", report::finite(p.bytes / p.step_s.median)},
         {"flop_per_s", report::finite(p.flop / p.step_s.median)},
         {"roof_s", report::finite(p.roof_s)},
         {"roof", p.memory_bound ? "memory" : "compute"},
         {"fraction_of_roof", report::finite(p.fraction_of_roof.median)},
         {"fraction_of_roof_spread", spread_json(p.fraction_of_roof)}};
  for (const measure::OperatorBench& o : p.operators) {
    j["operators"].push_back({{"block", o.block},
                              {"operator", o.node},
                              {"time_s", report::finite(o.measured_s)},
                              {"predicted_time_s", report::finite(o.predicted_s)},
                              {"flop", report::finite(o.flop)},
                              {"bytes_dram", report::finite(o.bytes)}});
  }
  return j;
}

std::string to_json(const measure::BenchResult& r) {
  Json j{{"model", r.model},
         {"weights", r.weights},
         {"kv", r.kv},
         {"level", r.level},
         {"backend", r.backend},
         {"cpu", r.cpu},
         {"threads", r.threads},
         {"random_weights", r.random_weights},
         {"weights_bytes", r.footprint.weights_bytes},
         {"read_bytes_per_s", spread_json(r.read_bytes_per_s)},
         {"peak_flop_per_s", spread_json(r.peak_flop_per_s)},
         {"arithmetic", std::string(name(r.arithmetic))},
         {"decode", Json::array()},
         {"prefill", Json::array()}};
  for (const measure::PhaseBench& p : r.phases) j[p.phase].push_back(phase_json(p));
  return j.dump(2) + "\n";
}

void print_operators(const measure::PhaseBench& p, const report::Terminal& terminal) {
  using report::Align;
  report::Table table({{"operator", "", Align::kLeft, 0, 16},
                       {"measured", "ms"},
                       {"predicted", "ms"},
                       {"error", "", Align::kRight, 1},
                       {"GB/s", "", Align::kRight, 2},
                       {"GFLOP/s", "", Align::kRight, 2}});
  double total = 0;
  for (const measure::OperatorBench& o : p.operators) total += o.measured_s;
  for (const measure::OperatorBench& o : p.operators) {
    if (o.measured_s < total * 0.002 && o.predicted_s < total * 0.002) continue;
    table.add_row({fmt::format("{} {}", o.block, o.node), report::number(o.measured_s * 1e3),
                   report::number(o.predicted_s * 1e3),
                   o.measured_s > 0 ? error_text(1 / o.measured_s, 1 / std::max(o.predicted_s, 1e-12)) : "-",
                   report::number(o.bytes / o.measured_s / 1e9), report::number(o.flop / o.measured_s / 1e9)});
  }
  fmt::print("{}", table.render(terminal.width, terminal.colour, 2));
}

void print_result(const measure::BenchResult& r, bool operators) {
  const report::Terminal terminal = report::terminal(STDOUT_FILENO);
  fmt::print("{}", bench_text(r, terminal));
  if (!operators) return;
  for (const measure::PhaseBench& p : r.phases) {
    fmt::print("\n{} {}\n", p.phase,
               p.phase == "decode" ? fmt::format("batch {}", p.batch) : fmt::format("{} tokens", p.tokens));
    print_operators(p, terminal);
  }
}

Result<int> compare(const Options& o) {
  ROOFTREE_TRY(const Options other, other_side(o));
  ROOFTREE_TRY(const measure::BenchOptions first_options, bench_options(o));
  ROOFTREE_TRY(const measure::BenchOptions second_options, bench_options(other));
  ROOFTREE_TRY(engine::ModelFiles first, open_model(o, first_options));
  ROOFTREE_TRY(engine::ModelFiles second, open_model(other, second_options));
  const InterruptGuard guard;
  std::vector<measure::Comparison> rows;
  {
    InterruptibleLine progress;
    ROOFTREE_TRY(rows, measure::compare_models(std::move(first), std::move(second), first_options, second_options, &progress));
  }
  if (o.json) {
    Json j{{"vs", o.vs}, {"phases", Json::array()}};
    for (const measure::Comparison& c : rows) {
      j["phases"].push_back({{"phase", c.phase},
                             {"batch", c.batch},
                             {"tokens", c.tokens},
                             {"tokens_per_s", report::finite(c.first_tokens_per_s)},
                             {"vs_tokens_per_s", report::finite(c.second_tokens_per_s)},
                             {"ratio", spread_json(c.ratio)}});
    }
    fmt::print("{}\n", j.dump(2));
    return 0;
  }
  report::Table table(
      {{"phase", "", report::Align::kLeft}, {"this", "tokens/s"}, {o.vs, "tokens/s"}, {"ratio", "median"}, {"quartiles", ""}});
  for (const measure::Comparison& c : rows) {
    table.add_row({c.phase == "decode" ? fmt::format("decode b{}", c.batch) : fmt::format("prefill {}", c.tokens),
                   report::number(c.first_tokens_per_s), report::number(c.second_tokens_per_s),
                   fmt::format("{:.3f}", c.ratio.median), fmt::format("{:.3f} to {:.3f}", c.ratio.q1, c.ratio.q3)});
  }
  const report::Terminal terminal = report::terminal(STDOUT_FILENO);
  fmt::print("{}", table.render(terminal.width, terminal.colour));
  return 0;
}

Result<int> run(const Options& o) {
  if (!o.vs.empty()) return compare(o);
  ROOFTREE_TRY(const measure::BenchOptions options, bench_options(o));
  ROOFTREE_TRY(const machine::Machine here, resolve_machine("this", {}));
  ROOFTREE_TRY(engine::ModelFiles files, open_model(o, options));
  const InterruptGuard guard;
  InterruptibleLine progress;
  auto result = measure::bench_model(std::move(files), here, options, &progress);
  if (!result) return result.error();
  progress.update(1, "");
  if (o.json) {
    fmt::print("{}", to_json(*result));
  } else {
    print_result(*result, o.operators);
  }
  return 0;
}

}  // namespace

void add_bench_verb(CLI::App& app, int& exit_code) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("bench",
                                      "Measure a model on this machine beside its prediction; an id of the catalogue "
                                      "runs with random weights, nothing is downloaded");
  verb->add_option("model", o->model, "MODEL: catalogue id, .gguf, or folder")->required();
  verb->add_option("--weights", o->weights,
                   "TYPE of the weights: q4_0, q8_0, bf16, bf16-12bit, … (default: as published or stored)");
  verb->add_option("--kv", o->kv, "TYPE of the KV cache (default bf16)");
  verb->add_option("--batch", o->batches, "Decode batches, or none (default 1,8,32)");
  verb->add_option("--prompt", o->prompts, "Prefill lengths in tokens, or none (default 512)");
  verb->add_option("--context", o->context, "Tokens that each sequence holds before it decodes (default 128)");
  verb->add_option("--samples", o->samples, "Samples per phase, interleaved (default 7)");
  verb->add_option("--threads", o->threads, "Threads (default: one per core; ROOFTREE_THREADS)")->check(CLI::Range(1, 4096));
  verb->add_option("--seed", o->seed, "Of the random weights and tokens (default 1)");
  verb->add_option("--vs", o->vs, "Compare, interleaved, with other settings (weights=q8_0,threads=1) or another MODEL");
  verb->add_flag("--operators", o->operators, "Also every operator, measured and predicted");
  verb->add_flag("--json", o->json, "Print everything as JSON");
  verb->callback([o, &exit_code] { exit_code = finish(run(*o)); });
}

}  // namespace rooftree::cli

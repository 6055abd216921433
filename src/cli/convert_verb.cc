#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "arguments.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "formats/convert.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Flags {
  std::string in, out, weights;
  bool requantize = false, json = false;
  int threads = 0;
};

Result<formats::ConvertReport> convert(const Flags& flags) {
  const Result<DType> type = parse_dtype(flags.weights);
  if (!type) return type.error().within("--weights");
  int threads = flags.threads;
  if (threads == 0) {
    ROOFTREE_TRY(threads, default_thread_count());
  }
  ThreadPool pool({.threads = threads});
  const InterruptGuard guard;
  InterruptibleLine line;
  return formats::convert_gguf(flags.in, flags.out,
                               {.type = *type, .requantize = flags.requantize, .pool = &pool, .progress = &line});
}

std::string to_json(const formats::ConvertReport& report, const Flags& flags) {
  Json types = Json::array();
  for (const auto& share : report.shares) {
    types.push_back({{"type", name(share.type)}, {"tensors", share.tensors}, {"bytes", share.bytes}});
  }
  return Json{{"file", flags.out},
              {"types", types},
              {"converted_tensors", report.converted},
              {"other_type_tensors", report.fell_back},
              {"bytes_in", report.bytes_in},
              {"bytes_out", report.bytes_out},
              {"relative_rms_error", report.relative_error}}
             .dump(2) +
         "\n";
}

std::string to_table(const formats::ConvertReport& report, const Flags& flags) {
  constexpr double kMiB = 1024.0 * 1024.0;
  std::string out = fmt::format("{}: {:.1f} MiB of tensors, {:.1f} MiB before\n", flags.out,
                                static_cast<double>(report.bytes_out) / kMiB, static_cast<double>(report.bytes_in) / kMiB);
  for (const auto& share : report.shares) {
    out += fmt::format("  {:<8} {:>5} tensors {:>10.1f} MiB\n", name(share.type), share.tensors,
                       static_cast<double>(share.bytes) / kMiB);
  }
  out +=
      fmt::format("{} tensors converted; relative RMS error of their values {:.2g}\n", report.converted, report.relative_error);
  if (!report.fell_back.empty()) {
    out += fmt::format("{} of them have rows that do not fill the blocks of {} and got another type, the first is {}\n",
                       report.fell_back.size(), flags.weights, report.fell_back.front());
  }
  return out;
}

Result<int> run(const Flags& flags) {
  ROOFTREE_TRY(const formats::ConvertReport report, convert(flags));
  fmt::print("{}", flags.json ? to_json(report, flags) : to_table(report, flags));
  return 0;
}

}  // namespace

void add_convert_verb(CLI::App& app, int& exit_code) {
  CLI::App* verb = app.add_subcommand("convert", "Write a GGUF file again with its matrices in another type");
  const auto flags = std::make_shared<Flags>();
  verb->add_option("in", flags->in, "The .gguf to read; of a split set the first part")->required();
  verb->add_option("out", flags->out, "The .gguf to write; replaced when complete")->required();
  verb->add_option("--weights", flags->weights,
                   "Type of the matrices: f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, iq4_xs, "
                   "mxfp4, q3_k, q2_k")
      ->required();
  verb->add_flag("--requantize", flags->requantize, "Allow a source that is already rounded to blocks");
  verb->add_option("--threads", flags->threads, "Threads to use (default: one per core; ROOFTREE_THREADS)")
      ->check(CLI::Range(1, 4096));
  verb->add_flag("--json", flags->json, "Print what was done as JSON");
  verb->callback([flags, &exit_code] { exit_code = finish(run(*flags)); });
}

}  // namespace rooftree::cli

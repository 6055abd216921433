#include "bench_text.h"

#include <fmt/format.h>

#include <cmath>

#include "report/table.h"

namespace rooftree::cli {

std::string error_text(double measured, double predicted) {
  const double error = predicted / measured - 1;
  return fmt::format("{}{} %", error < 0 ? "-" : "+", report::number(std::abs(error) * 100, 2));
}

std::string bench_text(const measure::BenchResult& r, const report::Terminal& terminal) {
  using report::Align;
  std::string out = fmt::format("{}, weights {}{}, KV cache {}: {} threads of {}, {}, level {}\n", r.model, r.weights,
                                r.random_weights ? " (random)" : "", r.kv, r.threads, r.cpu, r.backend, r.level);
  out += fmt::format("Measured beside every sample: memory read {} GB/s ({} to {}), {} peak {} GFLOP/s ({} to {})\n\n",
                     report::number(r.read_bytes_per_s.median / 1e9), report::number(r.read_bytes_per_s.q1 / 1e9),
                     report::number(r.read_bytes_per_s.q3 / 1e9), name(r.arithmetic),
                     report::number(r.peak_flop_per_s.median / 1e9), report::number(r.peak_flop_per_s.q1 / 1e9),
                     report::number(r.peak_flop_per_s.q3 / 1e9));
  report::Table table({{"phase", "", Align::kLeft},
                       {"measured", "tokens/s"},
                       {"predicted", "tokens/s"},
                       {"error", ""},
                       {"step", "ms"},
                       {"GB/s", "", Align::kRight, 1},
                       {"GFLOP/s", "", Align::kRight, 1},
                       {"of the roof", ""},
                       {"roof", "", Align::kLeft}});
  for (const measure::PhaseBench& p : r.phases) {
    const std::string what =
        p.phase == "decode" ? fmt::format("decode b{} at {}", p.batch, p.context) : fmt::format("prefill {}", p.tokens);
    table.add_row({what, report::number(p.tokens_per_s), report::number(p.predicted_tokens_per_s),
                   error_text(p.tokens_per_s, p.predicted_tokens_per_s), report::number(p.step_s.median * 1e3),
                   report::number(p.bytes / p.step_s.median / 1e9), report::number(p.flop / p.step_s.median / 1e9),
                   report::percent(p.fraction_of_roof.median), p.memory_bound ? "memory" : "compute"});
  }
  return out + table.render(terminal.width, terminal.colour);
}

}  // namespace rooftree::cli

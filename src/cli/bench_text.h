#pragma once

// A bench in lines for people, as `bench` and `overview` print it.

#include <string>

#include "measure/model_bench.h"
#include "report/text.h"

namespace rooftree::cli {

[[nodiscard]] std::string bench_text(const measure::BenchResult& result, const report::Terminal& terminal);
// "+3.2 %": how far a prediction of a speed is off.
[[nodiscard]] std::string error_text(double measured, double predicted);

}  // namespace rooftree::cli

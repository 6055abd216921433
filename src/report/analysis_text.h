#pragma once

// An analysis in words and tables, for people at a terminal.

#include <string>
#include <vector>

#include "report/analysis.h"
#include "report/estimate_json.h"
#include "report/text.h"

namespace rooftree::report {

// "Llama 3.2 1B on NVIDIA H100 SXM: decode, batch 1, context 1024"
[[nodiscard]] std::string headline(const Analysis& a);

// Where the weights live, what streams through what, which resource is the limit and how far the other one is from it.
[[nodiscard]] std::string regime_sentence(const Analysis& a);

// The part of a table cell or sentence about fitting: "fits, 62.1 GiB to spare", "does not fit: 61.3 GiB too much".
[[nodiscard]] std::string fit_text(const cost::MemoryByRole& memory);

// The regime, the limit, the rate with its interval, and whether it fits: the short answer.
[[nodiscard]] std::string answer_text(const Analysis& a, const Terminal& terminal);
// The best changes of the plan as a table and the elasticity of each hardware property as a line; empty without sensitivities.
[[nodiscard]] std::string moves_text(const Analysis& a, const Terminal& terminal, std::size_t most);
// Operators grouped by repeated block; those below `smallest_share` of the time are summed into one row per block.
[[nodiscard]] std::string operators_text(const Analysis& a, const Terminal& terminal, double smallest_share = 0.005);
// The whole answer to `rooftree analyze`.
[[nodiscard]] std::string analysis_text(const Analysis& a, const Terminal& terminal);

// A machine's roofs: its ladder with the ridge of each level against the arithmetic that machine learning uses here.
[[nodiscard]] std::string roofs_text(const machine::Machine& machine, const Terminal& terminal);

// One line per machine (or any other set of analyses of one model).
[[nodiscard]] std::string comparison_text(const std::vector<Analysis>& analyses, const Terminal& terminal);

// The answer for several machines: what is compared, the table, and per machine its regime and best move.
[[nodiscard]] std::string several_text(const std::vector<Analysis>& analyses, const Terminal& terminal);

[[nodiscard]] std::string sweep_text(const Sweep& sweep, const Terminal& terminal);
// What a ridge crossing says: "The arithmetic becomes the limit at batch 283; memory holds up to batch 60."
[[nodiscard]] std::string crossing_sentence(const RidgeCrossing& crossing);

}  // namespace rooftree::report

#pragma once

// A roofline in characters: Braille dots for the roofs (solid: main memory and the arithmetic in use; dotted: the others),
// letters for what stands under them.

#include <string>
#include <vector>

#include "report/roofline.h"
#include "report/text.h"

namespace rooftree::report {

struct PlotMark {
  char letter = 'x';
  std::string meaning;   // "decode, batch 1": printed below the plot
  double intensity = 0;  // FLOP per byte
  double rate = 0;       // FLOP/s
};

// Empty for a chip without a known bandwidth or rate.
[[nodiscard]] std::string plot_text(const machine::Chip& chip, Arithmetic in_use, const std::vector<PlotMark>& marks,
                                    const Terminal& terminal);

}  // namespace rooftree::report

#pragma once

// A static roofline for documents: one SVG file, readable in light and dark, without scripts.

#include <string>

#include "report/analysis.h"

namespace rooftree::report {

struct SvgOptions {
  int width = 900;
  int height = 520;
};
[[nodiscard]] std::string roofline_svg(const Analysis& analysis, const SvgOptions& options = {});

}  // namespace rooftree::report

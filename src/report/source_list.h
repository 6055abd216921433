#pragma once

// Sources of the values of a table: numbered where they are used, listed once below.

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "machine/chip.h"
#include "report/text.h"

namespace rooftree::report {

class SourceList {
 public:
  // "[3]"; empty where there is no source.
  std::string number_of(const std::string& source) {
    if (source.empty()) return "";
    auto it = std::find(sources_.begin(), sources_.end(), source);
    if (it == sources_.end()) it = sources_.insert(sources_.end(), source);
    return fmt::format("[{}]", it - sources_.begin() + 1);
  }

  [[nodiscard]] std::string text(std::string_view title, const Terminal& terminal) const {
    std::string out = wrap(title, terminal.width);
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      out += wrap(fmt::format("[{}] {}", i + 1, sources_[i]), terminal.width, 2, 6);
    }
    return out;
  }

 private:
  std::vector<std::string> sources_;
};

// "read", "recalled?": the question mark stands for doubt.
[[nodiscard]] inline std::string certainty_text(const machine::Provenance& provenance) {
  return std::string(name(provenance.certainty)) + (provenance.doubtful ? "?" : "");
}

}  // namespace rooftree::report

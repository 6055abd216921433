#pragma once

// One self-contained HTML page: no network, no fonts, no scripts but its own. The numbers are JSON inside the page; switches
// choose among analyses that were computed beforehand.

#include <memory>
#include <string>

#include "report/analysis.h"
#include "report/heat_map.h"

namespace rooftree::report {

class PageBuilder {
 public:
  // `title` heads the page; `lead` is the paragraph below it. Both are plain text.
  PageBuilder(std::string title, std::string lead);
  ~PageBuilder();
  PageBuilder(PageBuilder&&) noexcept;
  PageBuilder& operator=(PageBuilder&&) noexcept;

  // Adds one analysis under the switches machine, phase, batch and weight type, whose choices appear in the order of first use.
  // The first one added is shown first.
  void add(const Analysis& analysis);
  void set_heat_map(const HeatMap& map);

  [[nodiscard]] std::string html() const;
  // The JSON inside the page, before it is escaped for HTML.
  [[nodiscard]] std::string data() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What the switches offer.
struct PageGrid {
  std::vector<machine::Machine> machines;
  std::vector<model::Phase> phases;
  std::vector<std::int64_t> batches;
  std::vector<DType> weights;
};
// Analyses for every combination that can be built; the first of each list makes the first one. Fails only if none can be.
Status add_grid(PageBuilder& page, const model::Model& model, const PageGrid& grid, const cost::Plan& plan,
                const cost::CalibrationTable& calibration);

// Text made safe inside HTML.
[[nodiscard]] std::string escape_html(std::string_view text);
// JSON made safe inside <script>: no "<", ">", "&" and no line separators that JavaScript would end a string at.
[[nodiscard]] std::string escape_json_for_script(std::string_view json);

}  // namespace rooftree::report

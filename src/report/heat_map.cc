#include "report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "base/unit_text.h"
#include "report/estimate_json.h"
#include "report/table.h"

namespace rooftree::report {
namespace {

// Indices of at most `most` of `count` values, evenly spread, the ends included.
std::vector<std::size_t> thinned(std::size_t count, std::size_t most) {
  std::vector<std::size_t> out;
  const std::size_t shown = std::min(count, std::max<std::size_t>(most, 2));
  for (std::size_t i = 0; i < shown; ++i) {
    out.push_back(shown == 1 ? 0
                             : static_cast<std::size_t>(
                                   std::lround(static_cast<double>(i * (count - 1)) / static_cast<double>(shown - 1))));
  }
  return out;
}

}  // namespace

std::string property_text(cost::ChipProperty property, double value) {
  switch (property) {
    case cost::ChipProperty::kMemoryCapacity:
    case cost::ChipProperty::kOnChipCapacity:
      return to_text(Bytes{value});
    case cost::ChipProperty::kMemoryBandwidth:
    case cost::ChipProperty::kOnChipBandwidth:
    case cost::ChipProperty::kHostLink:
      return to_text(BytesPerSecond{value});
    case cost::ChipProperty::kCompute:
      return to_text(FlopPerSecond{value});
  }
  return {};
}

HeatMap heat_map(const cost::Exploration& exploration, std::string title, std::string budget) {
  HeatMap map;
  map.title = std::move(title);
  map.budget = std::move(budget);
  const auto axis = [](const cost::Axis& a) {
    HeatAxis out{std::string(cost::name(a.property)), a.values, {}};
    for (const double v : a.values) out.texts.push_back(property_text(a.property, v));
    return out;
  };
  map.x = axis(exploration.x);
  map.y = axis(exploration.y);
  for (const cost::ExplorePoint& p : exploration.points) {
    map.cells.push_back({.tokens_per_second = p.tokens_per_second,
                         .joules_per_token = p.energy_per_token.value(),
                         .dollars_per_token = p.cost_per_token.value(),
                         .watts = p.proxy.power_w,
                         .area_mm2 = p.proxy.area_mm2,
                         .parts_usd = p.proxy.cost_usd,
                         .bound = std::string(cost::name(p.bound)),
                         .fits = p.fits,
                         .within_budget = p.within_budget});
  }
  if (exploration.fastest) map.best = static_cast<int>(*exploration.fastest);
  return map;
}

std::string heat_map_text(const HeatMap& map, const Terminal& terminal) {
  const std::size_t nx = map.x.values.size();
  const std::size_t ny = map.y.values.size();
  std::string out = styled(map.title, Style::kBold, terminal.colour) + "\n";
  out +=
      wrap(fmt::format("Tokens per second by {} (across) and {} (down). '-' does not fit{}, '*' is the fastest.", map.x.label,
                       map.y.label, map.budget.empty() ? "" : fmt::format(", (brackets) is over the budget of {}", map.budget)),
           terminal.width);
  out += "\n";
  // The widest cell is about "(12,300)" or an axis text such as "1.02 TB/s".
  constexpr int kCellWidth = 12;
  const std::vector<std::size_t> columns = thinned(nx, static_cast<std::size_t>((terminal.width - kCellWidth) / kCellWidth));
  const std::vector<std::size_t> rows = thinned(ny, 16);
  std::vector<Column> header{{map.y.label, "", Align::kRight}};
  for (const std::size_t ix : columns) header.push_back({map.x.texts[ix], "", Align::kRight, 1});
  Table table(header);
  bool best_shown = false;
  for (auto it = rows.rbegin(); it != rows.rend(); ++it) {  // capacity grows upwards, as on the page
    std::vector<std::string> cells{map.y.texts[*it]};
    for (const std::size_t ix : columns) {
      const std::size_t index = *it * nx + ix;
      const HeatCell& cell = map.cells[index];
      const bool best = map.best >= 0 && static_cast<std::size_t>(map.best) == index;
      best_shown = best_shown || best;
      const std::string value = number(cell.tokens_per_second);
      cells.push_back(!cell.fits ? "-" : !cell.within_budget ? "(" + value + ")" : best ? "*" + value : value);
    }
    table.add_row(std::move(cells));
  }
  out += table.render(terminal.width, terminal.colour) + "\n";
  if (map.best < 0) {
    // The nearest miss tells which budget would do.
    const HeatCell* frugal = nullptr;
    for (const HeatCell& c : map.cells) {
      if (c.fits && c.watts > 0 && (frugal == nullptr || c.watts < frugal->watts)) frugal = &c;
    }
    if (frugal == nullptr) return out + wrap("No chip of this range holds the model.", terminal.width);
    return out + wrap(fmt::format("No chip of this range holds the model within the budget: the most frugal that does takes "
                                  "about {} W, {} mm2 and {} of parts "
                                  "by the proxy (within 40 %; cost within a factor of two). A base with less arithmetic "
                                  "(--base, --set) takes less.",
                                  number(frugal->watts, 2), number(frugal->area_mm2, 2), dollars(frugal->parts_usd)),
                      terminal.width);
  }
  const auto best = static_cast<std::size_t>(map.best);
  const HeatCell& cell = map.cells[best];
  std::string text = fmt::format("The fastest{}: {} of {} with {} of {}: {} tokens/s, bound by {}.",
                                 map.budget.empty() ? "" : " within the budget", map.x.texts[best % nx], map.x.label,
                                 map.y.texts[best / nx], map.y.label, number(cell.tokens_per_second), cell.bound);
  if (cell.watts > 0) {
    text += fmt::format(
        " By the proxy of chips like it about {} mm2, {} W and {} of parts (within 40 %; cost within a factor of two).",
        number(cell.area_mm2, 2), number(cell.watts, 2), dollars(cell.parts_usd));
  }
  out += wrap(text, terminal.width);
  // The smallest corner that is almost as fast answers "how little is enough?".
  constexpr double kAlmost = 0.95;
  std::size_t enough = best;
  for (std::size_t i = 0; i < map.cells.size(); ++i) {
    const HeatCell& c = map.cells[i];
    if (c.fits && c.within_budget && c.tokens_per_second >= kAlmost * cell.tokens_per_second &&
        c.parts_usd < map.cells[enough].parts_usd)
      enough = i;
  }
  if (enough != best) {
    out += wrap(fmt::format("Within 5 % of that: {} with {}, {} of parts.", map.x.texts[enough % nx], map.y.texts[enough / nx],
                            dollars(map.cells[enough].parts_usd)),
                terminal.width);
  }
  return out;
}

std::string heat_map_json_text(const HeatMap& map) {
  const auto axis = [](const HeatAxis& a) {
    Json values = Json::array();
    for (const double v : a.values) values.push_back(finite(v));
    return Json{{"property", a.label}, {"values", std::move(values)}, {"texts", a.texts}};
  };
  const auto known = [](double v) { return v > 0 ? finite(v) : Json(nullptr); };
  Json points = Json::array();
  const std::size_t nx = map.x.values.size();
  for (std::size_t i = 0; i < map.cells.size(); ++i) {
    const HeatCell& c = map.cells[i];
    points.push_back({{"x", finite(map.x.values[i % nx])},
                      {"y", finite(map.y.values[i / nx])},
                      {"tokens_per_s", c.fits ? finite(c.tokens_per_second) : Json(nullptr)},
                      {"bound", c.bound},
                      {"fits", c.fits},
                      {"within_budget", c.within_budget},
                      {"energy_j_per_token", known(c.joules_per_token)},
                      {"cost_usd_per_token", known(c.dollars_per_token)},
                      {"power_w", known(c.watts)},
                      {"area_mm2", known(c.area_mm2)},
                      {"parts_usd", known(c.parts_usd)}});
  }
  const Json out = {{"title", map.title},
                    {"budget", map.budget.empty() ? Json(nullptr) : Json(map.budget)},
                    {"x", axis(map.x)},
                    {"y", axis(map.y)},
                    {"best", map.best >= 0 ? points[static_cast<std::size_t>(map.best)] : Json(nullptr)},
                    {"points", points}};
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace rooftree::report

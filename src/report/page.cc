#include "report/page.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "base/embedded.h"
#include "base/json.h"
#include "report/analysis_text.h"
#include "report/estimate_json.h"
#include "report/roofline.h"

namespace rooftree::report {
namespace {

// Page numbers keep four digits: the interval is wider than that and the page a third of the size.
constexpr int kDigits = 4;
Json short_number(double v) { return finite(v, kDigits); }

std::string_view part(std::string_view name) {
  for (const EmbeddedFile& file : embedded_page()) {
    if (file.name() == name) return file.text();
  }
  check_failed(__FILE__, __LINE__, "embedded_page()", "a part of the page is missing from the program");
}

std::string with_replaced(std::string text, std::string_view mark, std::string_view value) {
  const std::size_t at = text.find(mark);
  ROOFTREE_CHECK(at != std::string::npos, "the page template lacks a mark");
  text.replace(at, mark.size(), value);
  return text;
}

std::string phase_label(const model::Phase& phase) {
  switch (phase.kind) {
    case model::Phase::Kind::kPrefill:
      return fmt::format("prefill {}", phase.tokens);
    case model::Phase::Kind::kDecode:
      return fmt::format("decode at {}", phase.past + 1);
    case model::Phase::Kind::kTrain:
      return fmt::format("train {}", phase.tokens);
  }
  return {};
}

Json roofs(const Analysis& a) {
  const machine::Chip& chip = a.machine.chip();
  const Roofline lines = roofline(chip, a.estimate.arithmetic);
  Json memory = Json::array();
  for (const MemoryRoof& roof : lines.memory) {
    memory.push_back({{"name", roof.name},
                      {"bytes_per_s", short_number(roof.bandwidth.value())},
                      {"bytes", short_number(roof.capacity.value())},
                      {"main", roof.main}});
  }
  Json compute = Json::array();
  for (const ComputeRoof& roof : lines.compute) {
    compute.push_back({{"name", roof.name}, {"flop_per_s", short_number(roof.rate.value())}});
  }
  return {{"id", a.machine.id},
          {"name", chip_label(chip)},
          {"vendor", chip.vendor},
          {"capacity_bytes", short_number(chip.main_memory().capacity.value())},
          {"memory_name", chip.main_memory().name},
          {"power_w", chip.power_max.value() > 0 ? short_number(chip.power_max.value()) : Json(nullptr)},
          {"memory", std::move(memory)},
          {"compute", std::move(compute)}};
}

}  // namespace

struct PageBuilder::State {
  std::string title, lead;
  Json machines = Json::array(), phases = Json::array(), batches = Json::array(), weights = Json::array();
  Json strings = Json::array();
  Json cells = Json::array();
  Json heat_map = nullptr;
  std::map<std::string, std::size_t> string_index, machine_index;
  std::map<std::string, std::size_t> phase_index, batch_index, weight_index;

  std::size_t intern(std::string_view text) {
    const auto [it, added] = string_index.try_emplace(std::string(text), strings.size());
    if (added) strings.push_back(it->first);
    return it->second;
  }
  static std::size_t choice(std::map<std::string, std::size_t>& index, Json& list, const std::string& key, const Json& label) {
    const auto [it, added] = index.try_emplace(key, list.size());
    if (added) list.push_back(label);
    return it->second;
  }
};

PageBuilder::PageBuilder(std::string title, std::string lead) : state_(std::make_unique<State>()) {
  state_->title = std::move(title);
  state_->lead = std::move(lead);
}
PageBuilder::~PageBuilder() = default;
PageBuilder::PageBuilder(PageBuilder&&) noexcept = default;
PageBuilder& PageBuilder::operator=(PageBuilder&&) noexcept = default;

void PageBuilder::add(const Analysis& a) {
  State& s = *state_;
  const cost::Estimate& e = a.estimate;
  std::string weights(rooftree::name(a.plan.type(model::Role::kWeight)));
  if (a.plan.sparsity.kind != cost::Sparsity::Kind::kDense) weights += " " + sparsity_text(a.plan.sparsity);
  const std::size_t machine = s.machine_index.contains(a.machine.id)
                                  ? s.machine_index[a.machine.id]
                                  : State::choice(s.machine_index, s.machines, a.machine.id, roofs(a));
  const std::string phase = phase_label(a.phase);
  const std::string batch = fmt::format("{}", a.phase.batch);
  Json cell = Json::object();
  cell["at"] = {machine, State::choice(s.phase_index, s.phases, phase, phase),
                State::choice(s.batch_index, s.batches, batch, batch),
                State::choice(s.weight_index, s.weights, weights, weights)};
  cell["headline"] = headline(a);
  cell["sentence"] = regime_sentence(a) + (a.crossing ? " " + crossing_sentence(*a.crossing) : std::string());
  cell["plan"] = plan_text(a.phase, a.plan);
  cell["unit"] = std::string(progress_unit(a));
  cell["time_s"] = {short_number(e.time.low.value()), short_number(e.time.best.value()), short_number(e.time.high.value())};
  cell["spare_bytes"] = short_number(e.memory.headroom().value());
  cell["host_time_s"] = short_number(e.host_time.value());
  cell["transfer_time_s"] = short_number(e.transfer_time.value());
  cell["bound"] = s.intern(cost::name(e.bound));
  cell["possible"] = e.regime != cost::Regime::kDoesNotFit;
  cell["fits"] = e.memory.fits;
  cell["flop"] = short_number(e.flop.value());
  cell["bytes_dram"] = short_number(e.bytes_dram.value());
  cell["ridge_flop_per_byte"] = short_number(e.ridge.value());
  cell["arithmetic"] = std::string(rooftree::name(e.arithmetic));
  cell["tokens"] = short_number(e.tokens);
  const auto joules = joules_per_token(e);
  const auto usd = dollars_per_token(e);
  cell["price_basis"] = s.intern(cost::name(e.price_basis));
  cell["joules_per_token"] = joules ? short_number(*joules) : Json(nullptr);
  cell["usd_per_token"] = usd ? short_number(*usd) : Json(nullptr);
  cell["used"] = {short_number(e.utilisation_compute), short_number(e.utilisation_dram)};
  Json memory = Json::array();  // [role, bytes, level]
  for (int i = 0; i < model::kRoleCount; ++i) {
    const auto role = static_cast<model::Role>(i);
    const Bytes bytes = e.memory.by_role[static_cast<std::size_t>(i)];
    if (bytes.value() <= 0) continue;
    std::string_view level;
    for (const cost::Placement& p : e.placement) {
      if (p.role == role && p.size.value() > 0) level = p.level;
    }
    memory.push_back({s.intern(model::name(role)), short_number(bytes.value()), s.intern(level)});
  }
  if (e.memory.reserve.value() > 0) {
    memory.push_back(
        {s.intern("reserve"), short_number(e.memory.reserve.value()), s.intern(a.machine.chip().main_memory().name)});
  }
  cell["memory"] = std::move(memory);
  cell["capacity_bytes"] = short_number(e.memory.capacity.value());
  Json operators =
      Json::array();  // [block, repeat, name, kind, pass, count, time, flop, bytes_dram, bytes_on_chip, bound, best move]
  for (const OperatorRow& row : a.operators) {
    operators.push_back({s.intern(row.block), short_number(row.repeat), s.intern(row.name), s.intern(model::name(row.kind)),
                         s.intern(row.pass == model::Pass::kForward ? "" : model::name(row.pass)), short_number(row.count),
                         short_number(row.time.value()), short_number(row.flop.value()), short_number(row.bytes_dram.value()),
                         short_number(row.bytes_on_chip.value()), s.intern(cost::name(row.bound)), s.intern(row.best_move)});
  }
  cell["operators"] = std::move(operators);
  constexpr std::size_t kMostMoves = 14;
  Json moves = Json::array();  // [hardware?, knob, time ratio, energy ratio, cost ratio, note]
  for (const cost::Sensitivity& move : worthwhile(a.sensitivities)) {
    if (moves.size() == kMostMoves) break;
    moves.push_back({move.kind == cost::Sensitivity::Kind::kHardware ? 1 : 0, s.intern(move.knob),
                     short_number(move.time_ratio), short_number(move.energy_ratio), short_number(move.cost_ratio),
                     s.intern(move.note)});
  }
  cell["moves"] = std::move(moves);
  Json notes = Json::array();
  for (const std::string& note : a.notes) notes.push_back(s.intern(note));
  cell["notes"] = std::move(notes);
  s.cells.push_back(std::move(cell));
}

void PageBuilder::set_heat_map(const HeatMap& map) {
  const auto axis = [](const HeatAxis& a) -> Json {
    Json values = Json::array();
    for (const double v : a.values) values.push_back(short_number(v));
    return {{"label", a.label}, {"values", std::move(values)}, {"texts", a.texts}};
  };
  Json cells = Json::array();  // [tokens/s, J/token, $/token, W, fits, within budget, bound, mm2, $ of parts]
  for (const HeatCell& c : map.cells) {
    const auto known = [](double v) { return v > 0 ? short_number(v) : Json(nullptr); };
    cells.push_back({short_number(c.tokens_per_second), known(c.joules_per_token), known(c.dollars_per_token), known(c.watts),
                     c.fits ? 1 : 0, c.within_budget ? 1 : 0, c.bound, known(c.area_mm2), known(c.parts_usd)});
  }
  state_->heat_map = {{"title", map.title}, {"budget", map.budget}, {"x", axis(map.x)},
                      {"y", axis(map.y)},   {"best", map.best},     {"cells", std::move(cells)}};
}

std::string PageBuilder::data() const {
  const State& s = *state_;
  const Json all = {{"title", s.title},
                    {"axes", {{"machine", s.machines}, {"phase", s.phases}, {"batch", s.batches}, {"weights", s.weights}}},
                    {"strings", s.strings},
                    {"cells", s.cells},
                    {"heat_map", s.heat_map}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string PageBuilder::html() const {
  // The data goes in last, so that nothing in it can be taken for a mark.
  std::string text(part("page.html"));
  text = with_replaced(std::move(text), "{{css}}", part("page.css"));
  text = with_replaced(std::move(text), "{{script}}", part("page.js"));
  text = with_replaced(std::move(text), "{{data}}", escape_json_for_script(data()));
  const std::string lead = escape_html(state_->lead);
  const std::string title = escape_html(state_->title);
  // Before the style and script, so the first occurrence is the template's own.
  text = with_replaced(std::move(text), "{{title}}", title);
  text = with_replaced(std::move(text), "{{title}}", title);
  return with_replaced(std::move(text), "{{lead}}", lead);
}

Status add_grid(PageBuilder& page, const model::Model& model, const PageGrid& grid, const cost::Plan& plan,
                const cost::CalibrationTable& calibration) {
  std::optional<Error> first_error;
  bool any = false;
  for (const machine::Machine& machine : grid.machines) {
    for (model::Phase phase : grid.phases) {
      for (const std::int64_t batch : grid.batches) {
        for (const DType weights : grid.weights) {
          phase.batch = batch;
          cost::Plan choice = plan;
          choice.set_type(model::Role::kWeight, weights);
          auto analysis = analyze(model, machine, phase, choice, calibration);
          if (analysis) {
            page.add(*analysis);
            any = true;
          } else if (!first_error) {
            first_error = analysis.error();
          }
        }
      }
    }
  }
  if (!any)
    return first_error.value_or(
        Error{ErrorCode::kInvalid, "the page: nothing to show; expected at least one machine, phase, batch and type"});
  return Ok{};
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escape_json_for_script(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (c == '<') {
      out += "\\u003c";
    } else if (c == '>') {
      out += "\\u003e";
    } else if (c == '&') {
      out += "\\u0026";
    } else if (json.substr(i, 3) == "\xE2\x80\xA8" || json.substr(i, 3) == "\xE2\x80\xA9") {
      out += json[i + 2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace rooftree::report

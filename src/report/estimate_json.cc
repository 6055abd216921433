#include "report/estimate_json.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "base/json.h"
#include "report/analysis_text.h"

namespace rooftree::report {
namespace {

// Names come from users' files too: bytes that are not UTF-8 are replaced, never an exception.
std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json crossing_json(const RidgeCrossing& c) {
  return {{"batch", c.batch ? Json(*c.batch) : Json(nullptr)},
          {"searched_to_batch", c.searched},
          {"largest_fitting_batch", c.largest_fitting ? Json(*c.largest_fitting) : Json(nullptr)}};
}

template <class T>
Json optional_number(const std::optional<T>& value) {
  return value ? finite(static_cast<double>(*value)) : Json(nullptr);
}

Json type_echo(const Analysis& a) {
  Json types = Json::object();
  for (int i = 0; i < model::kRoleCount; ++i) {
    const auto role = static_cast<model::Role>(i);
    types[std::string(model::name(role))] = std::string(rooftree::name(a.plan.type(role)));
  }
  return types;
}

Json memory_bytes(const cost::MemoryByRole& memory) {
  Json out = Json::object();
  for (int i = 0; i < model::kRoleCount; ++i) {
    out[std::string(model::name(static_cast<model::Role>(i)))] = finite(memory.by_role[static_cast<std::size_t>(i)].value());
  }
  out["reserve"] = finite(memory.reserve.value());
  out["total"] = finite(memory.total.value());
  out["capacity"] = finite(memory.capacity.value());
  return out;
}

// Everything but the lists.
Json summary(const Analysis& a) {
  const cost::Estimate& e = a.estimate;
  const bool priced = e.money.best.value() > 0;
  const auto per_million = [](const std::optional<double>& v) { return v ? finite(*v * 1e6) : Json(nullptr); };
  Json out = Json::object();
  out["model"] = a.model_id;
  out["machine"] = a.machine.id;
  out["chip"] = a.machine.chip().id;
  out["phase"] = std::string(model::name(a.phase.kind));
  out["batch"] = a.phase.batch;
  out[a.phase.kind == model::Phase::Kind::kDecode ? "context" : "tokens"] =
      a.phase.kind == model::Phase::Kind::kDecode ? a.phase.past + 1 : a.phase.tokens;
  if (a.phase.kind == model::Phase::Kind::kPrefill) out["past"] = a.phase.past;
  if (a.phase.kind == model::Phase::Kind::kTrain) {
    out["optimizer"] = std::string(model::name(a.phase.optimizer));
    out["recompute"] = std::string(name(a.phase.recompute));
  }
  out["summary"] = regime_sentence(a);
  out["time_s"] = finite(e.time.best.value());
  out["time_interval_s"] = Json::array({finite(e.time.low.value()), finite(e.time.high.value())});
  out["host_time_s"] = finite(e.host_time.value());
  out["transfer_time_s"] = finite(e.transfer_time.value());
  out["roof_time_s"] = finite(e.roof_time.value());
  out["bound"] = std::string(cost::name(e.bound));
  out["regime"] = std::string(cost::name(e.regime));
  out["flop"] = finite(e.flop.value());
  out["bytes_dram"] = finite(e.bytes_dram.value());
  out["bytes_on_chip"] = finite(e.bytes_on_chip.value());
  out["bytes_host_link"] = finite(e.bytes_host_link.value());
  out["bytes_disk"] = finite(e.bytes_disk.value());
  out["intensity_flop_per_byte"] = finite(e.intensity.value());
  out["ridge_flop_per_byte"] = finite(e.ridge.value());
  out["arithmetic"] = std::string(rooftree::name(e.arithmetic));
  out["tokens"] = finite(e.tokens);
  out["tokens_per_s"] = finite(e.tokens_per_second);
  out["tokens_per_s_interval"] = Json::array({finite(e.tokens / e.time.high.value()), finite(e.tokens / e.time.low.value())});
  out["memory_bytes"] = memory_bytes(e.memory);
  out["fits"] = e.memory.fits;
  out["chips_to_hold"] = optional_number(chips_to_hold(e.memory));
  out["memory_spare_bytes"] = finite(e.memory.headroom().value());
  out["energy_j"] = e.has_energy ? finite(e.energy.best.value()) : Json(nullptr);
  out["energy_interval_j"] =
      e.has_energy ? Json::array({finite(e.energy.low.value()), finite(e.energy.high.value())}) : Json(nullptr);
  out["power_w"] = e.has_energy ? finite(e.power.value()) : Json(nullptr);
  out["cost_usd"] = priced ? finite(e.money.best.value()) : Json(nullptr);
  out["cost_interval_usd"] = priced ? Json::array({finite(e.money.low.value()), finite(e.money.high.value())}) : Json(nullptr);
  out["price_basis"] = std::string(cost::name(e.price_basis));
  out["energy_j_per_million_tokens"] = per_million(joules_per_token(e));
  out["cost_usd_per_million_tokens"] = per_million(dollars_per_token(e));
  out["utilization"] = {{"compute", finite(e.utilisation_compute)},
                        {"compute_allowed", optional_number(compute_allowed(e))},
                        {"dram", finite(e.utilisation_dram)},
                        {"host_link", finite(e.utilisation_host_link)},
                        {"on_chip", optional_number(utilisation_on_chip(a))}};
  out["calibration"] = std::string(cost::name(e.distance));
  return out;
}

Json placement(const Analysis& a) {
  Json out = Json::array();
  for (const cost::Placement& p : a.estimate.placement) {
    if (p.size.value() <= 0) continue;
    out.push_back({{"role", std::string(model::name(p.role))},
                   {"bytes", finite(p.size.value())},
                   {"level", std::string(p.level)},
                   {"share_on_chip", finite(p.share_on_chip)},
                   {"share_off_chip", finite(p.share_off_chip)}});
  }
  return out;
}

}  // namespace

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json finite(double value, int digits) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.{}g}", value, digits).c_str(), nullptr);
}

Json estimate_json(const Analysis& a) {
  Json out = summary(a);
  Json sensitivities = Json::array();
  for (const cost::Sensitivity& s : a.sensitivities) {
    sensitivities.push_back({{"knob", s.knob},
                             {"kind", s.kind == cost::Sensitivity::Kind::kHardware ? "hardware" : "software"},
                             {"time_ratio", finite(s.time_ratio)},
                             {"energy_ratio", finite(s.energy_ratio)},
                             {"cost_ratio", finite(s.cost_ratio)},
                             {"note", s.note}});
  }
  out["sensitivities"] = std::move(sensitivities);
  out["placement"] = placement(a);
  if (a.block_weights) {
    Json times = Json::object();
    for (const BlockWeights::From& from : a.block_weights->from) times[from.level] = finite(from.time.value());
    out["block_weights"] = {{"block", a.block_weights->block},
                            {"count", finite(a.block_weights->repeat)},
                            {"parameters", finite(a.block_weights->values)},
                            {"bytes", finite(a.block_weights->bytes.value())},
                            {"load_time_s", std::move(times)}};
  }
  Json operators = Json::array();
  for (const OperatorRow& row : a.operators) {
    operators.push_back({{"name", row.name},
                         {"block", row.block},
                         {"pass", std::string(model::name(row.pass))},
                         {"kind", std::string(model::name(row.kind))},
                         {"count", finite(row.count)},
                         {"time_s", finite(row.time.value())},
                         {"flop", finite(row.flop.value())},
                         {"bytes_dram", finite(row.bytes_dram.value())},
                         {"bytes_on_chip", finite(row.bytes_on_chip.value())},
                         {"bound", std::string(cost::name(row.bound))},
                         {"best_move", row.best_move.empty() ? Json(nullptr) : Json(row.best_move)}});
  }
  out["operators"] = std::move(operators);
  out["model_name"] = a.model_name;
  out["parameters"] = a.parameters > 0 ? finite(a.parameters) : Json(nullptr);
  out["machine_name"] = a.machine.name;
  out["plan"] = {{"types", type_echo(a)},
                 {"sparsity", sparsity_text(a.plan.sparsity)},
                 {"fusion", std::string(model::name(a.plan.fusion))},
                 {"stack", std::string(cost::name(a.plan.stack))},
                 {"memory_reserve", finite(a.plan.memory_reserve)}};
  if (a.crossing) out["ridge_crossing"] = crossing_json(*a.crossing);
  out["notes"] = a.notes;
  return out;
}

std::string estimate_json_text(const std::vector<Analysis>& analyses) {
  if (analyses.size() == 1) return dump(estimate_json(analyses.front()));
  Json list = Json::array();
  for (const Analysis& a : analyses) list.push_back(estimate_json(a));
  return dump({{"estimates", std::move(list)}});
}

std::string sweep_json_text(const std::vector<Sweep>& sweeps) {
  const auto one = [](const Sweep& sweep) {
    Json points = Json::array();
    for (const SweepPoint& point : sweep.points) {
      Json entry = {{"value", point.value}};
      entry.update(summary(point.analysis));
      points.push_back(std::move(entry));
    }
    Json out = {{"sweep", sweep.variable}, {"points", std::move(points)}};
    if (sweep.crossing) out["ridge_crossing"] = crossing_json(*sweep.crossing);
    return out;
  };
  if (sweeps.size() == 1) return dump(one(sweeps.front()));
  Json list = Json::array();
  for (const Sweep& sweep : sweeps) list.push_back(one(sweep));
  return dump({{"sweeps", std::move(list)}});
}

}  // namespace rooftree::report

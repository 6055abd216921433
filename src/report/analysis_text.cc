#include "report/analysis_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/unit_text.h"
#include "report/roofline.h"
#include "report/table.h"

namespace rooftree::report {
namespace {

std::string capitalised(std::string_view text) {
  std::string out(text);
  if (!out.empty() && out.front() >= 'a' && out.front() <= 'z') out.front() = static_cast<char>(out.front() - 'a' + 'A');
  return out;
}

std::string plural(double n, std::string_view unit) { return fmt::format("{} {}{}", count(n), unit, n == 1 ? "" : "s"); }

std::string title(std::string_view text, const Terminal& terminal) {
  return "\n" + styled(text, Style::kBold, terminal.colour) + "\n";
}

Style style_of(cost::Bound bound) {
  switch (bound) {
    case cost::Bound::kMemory:
    case cost::Bound::kOnChip:
    case cost::Bound::kHostLink:
    case cost::Bound::kDisk:
      return Style::kMemory;
    case cost::Bound::kCompute:
    case cost::Bound::kSpecial:
      return Style::kCompute;
    case cost::Bound::kOverhead:
    case cost::Bound::kHost:
      return Style::kOverhead;
  }
  return Style::kPlain;
}

std::string_view display_name(model::Role role) {
  switch (role) {
    case model::Role::kWeight:
      return "weights";
    case model::Role::kActivation:
      return "activations";
    case model::Role::kKvCache:
      return "KV cache";
    case model::Role::kGradient:
      return "gradients";
    case model::Role::kOptimizerState:
      return "optimizer state";
    case model::Role::kInput:
      return "input";
    case model::Role::kOutput:
      return "output";
    case model::Role::kCount:
      break;
  }
  return "";
}

// "43 % of the weights", "5.3 % of the optimizer state and all of the KV cache": what lives outside main memory.
std::string what_spills(const Analysis& a) {
  std::string text;
  for (const cost::Placement& p : a.estimate.placement) {
    if (p.share_off_chip <= 0 || p.size <= Bytes{}) continue;
    text += fmt::format("{}{} of the {}", text.empty() ? "" : " and ",
                        p.share_off_chip > 0.9995 ? "all" : percent(p.share_off_chip), display_name(p.role));
  }
  return text.empty() ? "what is missing" : text;
}

std::string where_weights_live(const Analysis& a) {
  const cost::Estimate& e = a.estimate;
  const std::string weights = to_text(e.memory.by_role[static_cast<std::size_t>(model::Role::kWeight)]);
  const machine::Chip& chip = a.machine.chip();
  const std::string memory = chip.main_memory().name;
  switch (e.regime) {
    case cost::Regime::kWeightsOnChip:
      return fmt::format("The weights ({}) stay in on-chip memory; the data streams through them.", weights);
    case cost::Regime::kWeightsInMemory: {
      const bool one = e.tokens == 1;
      // Most models read all but a row of the embedding; experts and look-up tables are another matter.
      const std::string share = a.weights_read < 0.9 ? percent(a.weights_read) + " of " : "";
      return fmt::format("Each step streams {}the weights ({}) from {} through {}{}.", share, weights, memory,
                         a.phase.kind == model::Phase::Kind::kTrain ? "" : (one ? "a single " : ""),
                         one ? std::string(progress_unit(a)) : plural(e.tokens, progress_unit(a)));
    }
    case cost::Regime::kWeightsFromHost:
      return fmt::format("The working set ({}) does not fit into {} of {}: every step fetches {} from host memory over {}.",
                         to_text(e.memory.total), to_text(chip.main_memory().capacity), memory, what_spills(a),
                         chip.host_link.empty() ? "the host link" : chip.host_link);
    case cost::Regime::kWeightsFromDisk:
      return fmt::format(
          "The working set ({}) fits neither into {} of {} nor into the host's memory: every step reads {} from host and disk.",
          to_text(e.memory.total), to_text(chip.main_memory().capacity), memory, what_spills(a));
    case cost::Regime::kDoesNotFit:
      return fmt::format("It needs {} and nothing of this machine holds that ({} of {}).", to_text(e.memory.total),
                         to_text(chip.main_memory().capacity), memory);
  }
  return {};
}

std::string what_limits(const Analysis& a) {
  const cost::Estimate& e = a.estimate;
  const std::string against = fmt::format("{} FLOP/byte, ridge at {}", number(e.intensity.value()), number(e.ridge.value()));
  const std::string arithmetic = fmt::format("the {} arithmetic", rooftree::name(e.arithmetic));
  switch (e.bound) {
    case cost::Bound::kMemory:
      if (e.intensity > e.ridge * 0.8) {
        return fmt::format(
            "It stands at the ridge ({}): memory takes most of the time, with {} {} used and memory bandwidth {}.", against,
            arithmetic, percent(e.utilisation_compute), percent(e.utilisation_dram));
      }
      return fmt::format("Memory-bound ({}): {} is {} used, memory bandwidth {}.", against, arithmetic,
                         percent(e.utilisation_compute), percent(e.utilisation_dram));
    case cost::Bound::kCompute:
      if (e.intensity < e.ridge * 0.8) {
        return fmt::format(
            "Compute-bound although {} FLOP/byte lie left of the ridge at {}: so few rows leave most of the matrix units idle "
            "({} is {} "
            "used, memory bandwidth {}).",
            number(e.intensity.value()), number(e.ridge.value()), arithmetic, percent(e.utilisation_compute),
            percent(e.utilisation_dram));
      }
      return fmt::format("Compute-bound ({}): {} is {} used, memory bandwidth {}.", against, arithmetic,
                         percent(e.utilisation_compute), percent(e.utilisation_dram));
    case cost::Bound::kOnChip:
      return fmt::format("On-chip bandwidth is the limit: {} is {} used.", arithmetic, percent(e.utilisation_compute));
    case cost::Bound::kSpecial:
      return fmt::format("Element-wise arithmetic and exponentials are the limit: {} for products is {} used.", arithmetic,
                         percent(e.utilisation_compute));
    case cost::Bound::kHostLink:
      return fmt::format("The link to the host is the limit: {} cross it per step while memory bandwidth is {} used.",
                         to_text(e.bytes_host_link), percent(e.utilisation_dram));
    case cost::Bound::kDisk:
      return fmt::format("The disk is the limit: {} are read per step.", to_text(e.bytes_disk));
    case cost::Bound::kOverhead:
      return fmt::format("Launches and synchronisation are the limit, not the roofs: memory bandwidth is {} used, {} {}.",
                         percent(e.utilisation_dram), arithmetic, percent(e.utilisation_compute));
    case cost::Bound::kHost:
      return fmt::format("The host software is the limit: {} of {} per step.", to_text(e.host_time), to_text(e.time.best));
  }
  return {};
}

// "One layer of 80 has 855.7 M weights in 1.594 GiB; at full bandwidth they take 839 us from HBM2e, 54.3 ms from host memory."
std::string block_weights_text(const BlockWeights& b) {
  const bool billions = b.values >= 1e9;
  std::string text = fmt::format("One {} of {} has {} {} weights in {}", b.block, count(b.repeat),
                                 number(b.values / (billions ? 1e9 : 1e6), 4), billions ? "B" : "M", to_text(b.bytes));
  for (std::size_t i = 0; i < b.from.size(); ++i) {
    text +=
        fmt::format("{}{} from {}", i == 0 ? "; at full bandwidth they take " : ", ", to_text(b.from[i].time), b.from[i].level);
  }
  return text + ".";
}

// A row per role that takes memory, with its share of the total as a bar.
std::string memory_text(const Analysis& a, const Terminal& terminal) {
  const cost::MemoryByRole& memory = a.estimate.memory;
  Table table({{"memory", "", Align::kLeft},
               {"type", "", Align::kLeft, 2},
               {"size", "GiB"},
               {"lives in", "", Align::kLeft, 1, 10},
               {"share", ""},
               {"", "", Align::kLeft, 3}});
  constexpr double kGiB = 1073741824.0;
  constexpr int kBar = 30;
  const double total = memory.total.value() + memory.reserve.value();
  double largest = memory.reserve.value() / kGiB;
  for (const Bytes size : memory.by_role) largest = std::max(largest, size.value() / kGiB);
  const auto row = [&](std::string_view what, std::string type, Bytes size, std::string level) {
    const double share = total > 0 ? size.value() / total : 0;
    std::string bar;
    for (int i = 0; i < static_cast<int>(std::lround(share * kBar)); ++i) bar += "█";
    table.add_row({std::string(what), std::move(type), aligned(size.value() / kGiB, largest), std::move(level), percent(share),
                   std::move(bar)});
  };
  for (int i = 0; i < model::kRoleCount; ++i) {
    const auto role = static_cast<model::Role>(i);
    const Bytes size = memory.by_role[static_cast<std::size_t>(i)];
    if (size.value() <= 0) continue;
    std::string level;
    for (const cost::Placement& p : a.estimate.placement) {
      if (p.role != role || p.size.value() <= 0) continue;
      level = std::string(p.level);
      if (p.share_off_chip > 0 && p.share_off_chip < 1) level += fmt::format(", {} elsewhere", percent(p.share_off_chip));
    }
    // The state's bytes mix types (moments, master copy), so the type column names the optimizer.
    const bool state = role == model::Role::kOptimizerState;
    row(display_name(role), std::string(state ? model::name(a.phase.optimizer) : rooftree::name(a.plan.type(role))), size,
        level);
  }
  if (memory.reserve.value() > 0) row("reserve", "", memory.reserve, a.machine.chip().main_memory().name);
  return table.render(terminal.width, terminal.colour) +
         wrap(fmt::format("{}{} of {} {}: {}.", to_text(memory.total), memory.reserve.value() > 0 ? " and the reserve" : "",
                          to_text(memory.capacity), a.machine.chip().main_memory().name, fit_text(memory)),
              terminal.width) +
         (a.block_weights ? wrap(block_weights_text(*a.block_weights), terminal.width) : std::string());
}

std::string totals_text(const Analysis& a, const Terminal& terminal) {
  const cost::Estimate& e = a.estimate;
  const machine::Chip& chip = a.machine.chip();
  std::string out;
  Table roofs({{"roof", "", Align::kLeft, 0, 8},
               {"limit", "", Align::kRight},
               {"moved or computed per step", "", Align::kRight, 1},
               {"used", ""}});
  const FlopPerSecond peak = product_rate(chip, e.arithmetic);
  roofs.add_row({fmt::format("{} arithmetic", rooftree::name(e.arithmetic)), to_text(peak), to_text(e.flop),
                 percent(e.utilisation_compute)});
  if (const auto on_chip = utilisation_on_chip(a)) {
    const machine::MemoryLevel& level = chip.ladder[chip.ladder.size() - 2];
    roofs.add_row({level.name, to_text(level.bandwidth), to_text(e.bytes_on_chip), percent(*on_chip)});
  }
  roofs.add_row(
      {chip.main_memory().name, to_text(chip.main_memory().bandwidth), to_text(e.bytes_dram), percent(e.utilisation_dram)});
  if (e.bytes_host_link.value() > 0) {
    roofs.add_row({chip.host_link.empty() ? "host link" : chip.host_link, to_text(chip.host_link_per_direction),
                   to_text(e.bytes_host_link), percent(e.utilisation_host_link)});
  }
  out += roofs.render(terminal.width, terminal.colour);
  const std::string unit(progress_unit(a));
  std::string money = "price unknown";
  if (const auto usd = dollars_per_token(e)) {
    money = fmt::format("{} per million {}s ({} to {})", dollars(*usd * 1e6), unit,
                        dollars(e.money.low.value() / e.tokens * 1e6), dollars(e.money.high.value() / e.tokens * 1e6));
  }
  std::string energy = "power unknown";
  if (const auto joules = joules_per_token(e)) energy = fmt::format("{} per million {}s", to_text(Joules{*joules * 1e6}), unit);
  out += fmt::format("{}: {}.\n", capitalised("energy"), energy);
  out += fmt::format("Cost: {}.\n", money);
  if (e.host_time.value() > 0) {
    out += fmt::format("Host software adds {} ({} of the step).\n", to_text(e.host_time), percent(e.host_time / e.time.best));
  }
  return out;
}

std::string change_text(double ratio) {
  if (!std::isfinite(ratio) || ratio <= 0) return "-";
  const double change = ratio - 1;
  if (std::abs(change) < 0.0005) return "same";
  return fmt::format("{}{} %", change < 0 ? "-" : "+", number(std::abs(change) * 100, 2));
}

}  // namespace

std::string headline(const Analysis& a) {
  return fmt::format("{} on {}: {}", a.model_name.empty() ? a.model_id : a.model_name, chip_label(a.machine.chip()),
                     phase_text(a));
}

std::string regime_sentence(const Analysis& a) {
  if (a.estimate.regime == cost::Regime::kDoesNotFit) return where_weights_live(a);
  return where_weights_live(a) + " " + what_limits(a);
}

std::string fit_text(const cost::MemoryByRole& memory) {
  const Bytes spare = memory.headroom();
  if (memory.fits) return fmt::format("fits, {} to spare", to_text(max(spare, Bytes{})));
  return fmt::format("does not fit: {} too much", to_text(max(-spare, Bytes{})));
}

std::string moves_text(const Analysis& a, const Terminal& terminal, std::size_t most) {
  const bool energy = joules_per_token(a.estimate).has_value();
  const bool money = dollars_per_token(a.estimate).has_value();
  std::vector<Column> columns{{"", "", Align::kRight}, {"change", "", Align::kLeft, 0, 20}, {"speed", "", Align::kLeft}};
  if (energy) columns.push_back({"energy", ""});
  if (money) columns.push_back({"cost", ""});
  Table table(columns);
  std::vector<std::string> notes;
  std::string hardware;
  for (const cost::Sensitivity& s : worthwhile(a.sensitivities)) {
    if (s.kind == cost::Sensitivity::Kind::kHardware) {
      hardware += fmt::format("{}{}: {}", hardware.empty() ? "" : "; ", s.knob, gain_text(s.time_ratio));
    } else if (notes.size() < most) {
      notes.push_back(s.note);
      std::vector<std::string> cells{fmt::format("{}.", notes.size()), s.knob, gain_text(s.time_ratio)};
      if (energy) cells.push_back(change_text(s.energy_ratio));
      if (money) cells.push_back(change_text(s.cost_ratio));
      table.add_row(std::move(cells));
    }
  }
  // Each row is followed by what else it changes.
  std::string out;
  if (!notes.empty()) {
    const std::string rows = table.render(terminal.width, terminal.colour);
    std::size_t start = 0;
    for (std::size_t line = 0; start < rows.size(); ++line) {
      const std::size_t end = rows.find('\n', start) + 1;
      out += rows.substr(start, end - start);
      start = end;
      if (line > 0 && !notes[line - 1].empty())
        out += styled(wrap(notes[line - 1], terminal.width, 4, 4), Style::kDim, terminal.colour);
    }
  } else {
    out += "No change of the plan that was tried makes it faster.\n";
  }
  if (!hardware.empty()) out += wrap("Hardware: " + hardware + ".", terminal.width, 0, 2);
  return out;
}

std::string operators_text(const Analysis& a, const Terminal& terminal, double smallest_share) {
  // Shares are of the whole step, host and transfers included.
  const double total = a.estimate.time.best.value();
  double largest_rate = 0;
  double largest_time = 0;
  double largest_bytes = 0;
  double largest_flop = 0;
  struct Sum {
    double time = 0, flop = 0, bytes = 0;
  };
  std::vector<std::pair<std::string, Sum>> groups;
  std::map<std::string, std::size_t> group_of;
  const bool passes =
      std::any_of(a.operators.begin(), a.operators.end(), [](const OperatorRow& r) { return r.pass != model::Pass::kForward; });
  const auto group_name = [&](const OperatorRow& row) {
    std::string text = row.block;
    if (row.repeat > 1) text += fmt::format(" x{}", count(row.repeat));
    // "head.backward" says it already.
    if (passes && row.block.find(model::name(row.pass)) == std::string::npos)
      text += fmt::format(", {}", model::name(row.pass));
    return text;
  };
  for (const OperatorRow& row : a.operators) {
    const auto [it, added] = group_of.try_emplace(group_name(row), groups.size());
    if (added) groups.emplace_back(it->first, Sum{});
    Sum& sum = groups[it->second].second;
    sum.time += row.time.value();
    sum.flop += row.flop.value();
    sum.bytes += row.bytes_dram.value();
    if (row.time.value() > 0) largest_rate = std::max(largest_rate, row.flop.value() / row.time.value());
  }
  for (const auto& [text, sum] : groups) {
    largest_time = std::max(largest_time, sum.time);
    largest_bytes = std::max(largest_bytes, sum.bytes);
    largest_flop = std::max(largest_flop, sum.flop);
  }
  const Scale time = scale_for(largest_time, Dimension::kSeconds);
  const Scale flop = scale_for(largest_flop, Dimension::kFlop);
  const Scale bytes = scale_for(largest_bytes, Dimension::kBytes);
  const Scale rate = scale_for(largest_rate, Dimension::kFlopPerSecond);
  const auto in_time = [&](double v) { return aligned(v / time.factor, largest_time / time.factor); };
  const auto in_flop = [&](double v) { return aligned(v / flop.factor, largest_flop / flop.factor); };
  const auto in_bytes = [&](double v) { return aligned(v / bytes.factor, largest_bytes / bytes.factor); };
  Table table({{"operator", "", Align::kLeft, 0, 22},
               {"kind", "", Align::kLeft, 8},
               {"times", "", Align::kRight, 6},
               {"time", time.unit},
               {"share", ""},
               {"work", flop.unit, Align::kRight, 4},
               {"traffic", bytes.unit, Align::kRight, 5},
               {"intensity", "FLOP/byte", Align::kRight, 2},
               {"reaches", rate.unit, Align::kRight, 7},
               {"bound", "", Align::kLeft},
               {"moves most", "", Align::kLeft, 3, 19}});
  const auto intensity = [](double f, double b) { return f > 0 && b > 0 ? number(f / b) : std::string("-"); };
  const auto share = [&](double t) { return total > 0 ? percent(t / total) : std::string("-"); };
  for (const auto& group : groups) {
    // Not a structured binding: clang 14 does not let lambdas capture those.
    const std::string& text = group.first;
    const Sum& sum = group.second;
    table.add_heading(text, {"", "", "", in_time(sum.time), share(sum.time), in_flop(sum.flop), in_bytes(sum.bytes),
                             intensity(sum.flop, sum.bytes)});
    Sum rest;
    int rest_count = 0;
    const auto is_small = [&](const OperatorRow& row) { return total > 0 && row.time.value() < smallest_share * total; };
    const auto small = std::count_if(a.operators.begin(), a.operators.end(),
                                     [&](const OperatorRow& row) { return group_name(row) == text && is_small(row); });
    for (const OperatorRow& row : a.operators) {
      if (group_name(row) != text) continue;
      if (small > 1 && is_small(row)) {
        rest.time += row.time.value();
        rest.flop += row.flop.value();
        rest.bytes += row.bytes_dram.value();
        ++rest_count;
        continue;
      }
      table.add_row(
          {"  " + row.name, std::string(model::name(row.kind)), count(row.count), in_time(row.time.value()),
           share(row.time.value()), in_flop(row.flop.value()), in_bytes(row.bytes_dram.value()),
           intensity(row.flop.value(), row.bytes_dram.value()),
           row.flop.value() > 0 ? aligned(row.flop / row.time / FlopPerSecond{rate.factor}, largest_rate / rate.factor) : "-",
           std::string(cost::name(row.bound)), row.best_move},
          style_of(row.bound));
    }
    if (rest_count > 0) {
      table.add_row({fmt::format("  {} small ones", rest_count), "", "", in_time(rest.time), share(rest.time),
                     in_flop(rest.flop), in_bytes(rest.bytes), intensity(rest.flop, rest.bytes), "", ""},
                    Style::kDim);
    }
  }
  const auto add_wait = [&](const char* what, Seconds waited) {
    if (waited > Seconds{}) {
      table.add_heading(what, {"", "", "", in_time(waited.value()), share(waited.value())});
    }
  };
  add_wait("host software", a.estimate.host_time);
  add_wait("waiting for host memory or disk", a.estimate.transfer_time);
  return table.render(terminal.width, terminal.colour);
}

std::string answer_text(const Analysis& a, const Terminal& terminal) {
  const cost::Estimate& e = a.estimate;
  const std::string unit(progress_unit(a));
  std::string out = wrap(regime_sentence(a), terminal.width);
  if (a.crossing) out += wrap(crossing_sentence(*a.crossing), terminal.width);
  out += wrap(fmt::format("{} {}s/s ({} to {}, 90 %), {} per step. {}.", number(e.tokens_per_second), unit,
                          number(e.tokens / e.time.high.value()), number(e.tokens / e.time.low.value()), to_text(e.time.best),
                          capitalised(fit_text(e.memory))),
              terminal.width);
  return out;
}

std::string analysis_text(const Analysis& a, const Terminal& terminal) {
  std::string out = styled(headline(a), Style::kBold, terminal.colour) + "\n";
  out += wrap(plan_text(a.phase, a.plan), terminal.width) + "\n";
  out += answer_text(a, terminal);
  if (const std::string moves = moves_text(a, terminal, 6); !moves.empty())
    out += title("What would move it", terminal) + moves;
  out += title("The working set", terminal) + memory_text(a, terminal);
  out += title("The operators", terminal) + operators_text(a, terminal);
  out += title("The roofs", terminal) + totals_text(a, terminal);
  if (!a.notes.empty()) {
    out += title("Keep in mind", terminal);
    for (const std::string& note : a.notes) out += wrap("- " + note, terminal.width, 0, 2);
  }
  return out;
}

std::string roofs_text(const machine::Machine& machine, const Terminal& terminal) {
  const machine::Chip& chip = machine.chip();
  // The arithmetic types worth a ridge: those the chip has, widest first, at most four.
  std::vector<Arithmetic> types;
  for (const Arithmetic a :
       {Arithmetic::kFp64, Arithmetic::kFp32, Arithmetic::kBf16, Arithmetic::kFp16, Arithmetic::kFp8, Arithmetic::kInt8}) {
    if (product_rate(chip, a) > FlopPerSecond{}) types.push_back(a);
  }
  std::vector<Column> columns{{"roof", "", Align::kLeft, 0, 8},
                              {"capacity", "", Align::kRight, 1},
                              {"bandwidth", ""},
                              {"latency", "", Align::kRight, 2}};
  for (const Arithmetic a : types)
    columns.push_back({fmt::format("{} ridge", rooftree::name(a)), "FLOP/byte", Align::kRight, a == Arithmetic::kFp64 ? 4 : 3});
  Table table(columns);
  for (const machine::MemoryLevel& level : chip.ladder) {
    std::vector<std::string> row{level.name, level.capacity > Bytes{} ? to_text(level.capacity) : "-",
                                 level.bandwidth > BytesPerSecond{} ? to_text(level.bandwidth) : "-",
                                 level.latency > Seconds{} ? to_text(level.latency) : "-"};
    for (const Arithmetic a : types) {
      row.push_back(level.bandwidth > BytesPerSecond{} ? number((product_rate(chip, a) / level.bandwidth).value()) : "-");
    }
    table.add_row(std::move(row));
  }
  std::string rates;
  for (const Arithmetic a : types)
    rates += fmt::format("{}{} {}", rates.empty() ? "" : ", ", rooftree::name(a), to_text(product_rate(chip, a)));
  return wrap("Arithmetic: " + rates + ".", terminal.width, 0, 2) + "\n" + table.render(terminal.width, terminal.colour);
}

std::string comparison_text(const std::vector<Analysis>& analyses, const Terminal& terminal) {
  if (analyses.empty()) return {};
  double largest = 0;
  for (const Analysis& a : analyses) largest = std::max(largest, a.estimate.time.best.value());
  const Scale time = scale_for(largest, Dimension::kSeconds);
  const std::string unit(progress_unit(analyses.front()));
  Table table({{"machine", "", Align::kLeft, 0, 20},
               {"time", time.unit + "/step"},
               {unit + "s/s", ""},
               {"90 % interval", "", Align::kRight, 3},
               {"bound", "", Align::kLeft, 1},
               {"memory", "used", Align::kRight, 2},
               {"energy", "kJ/M" + unit.substr(0, 3), Align::kRight, 1},
               {"cost", "$/M" + unit.substr(0, 3), Align::kRight, 1},
               {"fits", "", Align::kLeft}});
  for (const Analysis& a : analyses) {
    const cost::Estimate& e = a.estimate;
    const auto joules = joules_per_token(e);
    const auto usd = dollars_per_token(e);
    const bool possible = e.regime != cost::Regime::kDoesNotFit;
    table.add_row(
        {chip_label(a.machine.chip()), possible ? number(e.time.best.value() / time.factor) : "-",
         possible ? number(e.tokens_per_second) : "-",
         possible ? fmt::format("{} - {}", number(e.tokens / e.time.high.value()), number(e.tokens / e.time.low.value())) : "-",
         possible ? std::string(cost::name(e.bound)) : "-",
         e.memory.capacity.value() > 0 ? percent(e.memory.total / e.memory.capacity) : "-",
         possible && joules ? number(*joules * 1e3) : "-", possible && usd ? dollars(*usd * 1e6) : "-",
         e.memory.fits                                ? "yes"
         : e.regime == cost::Regime::kWeightsFromHost ? "no: from host"
         : e.regime == cost::Regime::kWeightsFromDisk ? "no: from disk"
                                                      : "no"});
  }
  return table.render(terminal.width, terminal.colour);
}

std::string several_text(const std::vector<Analysis>& analyses, const Terminal& terminal) {
  if (analyses.empty()) return {};
  const Analysis& first = analyses.front();
  std::string out =
      styled(fmt::format("{}: {}", first.model_name.empty() ? first.model_id : first.model_name, phase_text(first)),
             Style::kBold, terminal.colour) +
      "\n";
  out += wrap(plan_text(first.phase, first.plan), terminal.width) + "\n" + comparison_text(analyses, terminal) + "\n";
  for (const Analysis& a : analyses) {
    std::string text = fmt::format("{}: {}", chip_label(a.machine.chip()), regime_sentence(a));
    const auto move = std::find_if(a.sensitivities.begin(), a.sensitivities.end(),
                                   [](const cost::Sensitivity& s) { return s.kind == cost::Sensitivity::Kind::kSoftware; });
    if (move != a.sensitivities.end() && move->time_ratio < 1)
      text += fmt::format(" Best move: {}, {}.", move->knob, gain_text(move->time_ratio));
    out += wrap(text, terminal.width, 0, 2);
  }
  for (const Analysis& a : analyses) {
    // A system is analysed as one of its chips; the note that says so stands last.
    if (a.machine.chip_count() > 1 && !a.notes.empty()) {
      for (const std::string& note : a.notes) {
        if (note.rfind(a.machine.id, 0) == 0) out += wrap(note, terminal.width, 0, 2);
      }
    }
  }
  return out;
}

std::string crossing_sentence(const RidgeCrossing& c) {
  const auto whole = [](std::int64_t n) { return count(static_cast<double>(n)); };
  std::string text;
  if (c.batch && *c.batch == 1) {
    text = "Even at batch 1 the weights' products wait for arithmetic.";
  } else if (c.batch) {
    text = fmt::format("The ridge is crossed at batch {}; up to there a larger batch shares the same weight traffic.",
                       whole(*c.batch));
  } else {
    text = fmt::format("Up to batch {} the weights' products never cross the ridge.", whole(c.searched));
  }
  if (!c.largest_fitting) return text + " Not even one sequence fits into memory.";
  if (*c.largest_fitting < c.batch.value_or(c.searched)) {
    text += fmt::format(" Memory is full before that, at batch {}.", whole(*c.largest_fitting));
  } else if (*c.largest_fitting < c.searched) {
    text += fmt::format(" Memory is full at batch {}.", whole(*c.largest_fitting));
  }
  return text;
}

std::string sweep_text(const Sweep& sweep, const Terminal& terminal) {
  if (sweep.points.empty()) return {};
  double largest = 0;
  for (const SweepPoint& p : sweep.points) largest = std::max(largest, p.analysis.estimate.time.best.value());
  const Scale time = scale_for(largest, Dimension::kSeconds);
  const std::string unit(progress_unit(sweep.points.front().analysis));
  Table table({{sweep.variable, ""},
               {"time", time.unit + "/step"},
               {unit + "s/s", ""},
               {"90 % interval", "", Align::kRight, 4},
               {"intensity", "FLOP/byte", Align::kRight, 2},
               {"bound", "", Align::kLeft},
               {"compute", "allowed", Align::kRight, 2},
               {"compute", "used", Align::kRight, 1},
               {"DRAM", "used", Align::kRight, 1},
               {"memory", "GiB", Align::kRight, 1},
               {"energy", "kJ/M" + unit.substr(0, 3), Align::kRight, 3},
               {"cost", "$/M" + unit.substr(0, 3), Align::kRight, 3},
               {"fits", "", Align::kLeft}});
  bool crossed = false;
  for (const SweepPoint& p : sweep.points) {
    const cost::Estimate& e = p.analysis.estimate;
    const auto joules = joules_per_token(e);
    const auto usd = dollars_per_token(e);
    const auto allowed = compute_allowed(e);
    const bool past_ridge = sweep.crossing && sweep.crossing->batch && p.analysis.phase.batch >= *sweep.crossing->batch;
    if (past_ridge && !crossed && &p != &sweep.points.front())
      table.add_heading(fmt::format("-- ridge at batch {} --", *sweep.crossing->batch));
    crossed = crossed || past_ridge;
    table.add_row({p.value, number(e.time.best.value() / time.factor), number(e.tokens_per_second),
                   fmt::format("{} - {}", number(e.tokens / e.time.high.value()), number(e.tokens / e.time.low.value())),
                   number(e.intensity.value()), std::string(cost::name(e.bound)), allowed ? percent(*allowed) : "-",
                   percent(e.utilisation_compute), percent(e.utilisation_dram), number(e.memory.total.value() / 1073741824.0),
                   joules ? number(*joules * 1e3) : "-", usd ? dollars(*usd * 1e6) : "-", e.memory.fits ? "yes" : "no"},
                  e.memory.fits ? Style::kPlain : Style::kDim);
  }
  std::string out = table.render(terminal.width, terminal.colour);
  if (sweep.crossing) out += wrap(crossing_sentence(*sweep.crossing), terminal.width);
  return out;
}

}  // namespace rooftree::report

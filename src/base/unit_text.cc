#include "base/unit_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <span>
#include <system_error>

namespace rooftree {
namespace {

struct Unit {
  std::string_view name;
  double scale;  // of one such unit, in SI base units
};

// One dimension: the units that it is read from, in the order in which an exact text tries them, and how to name it in errors.
struct Units {
  std::string_view what;      // "a size"
  std::string_view examples;  // "'80 GB' or '40 MiB'"
  std::span<const Unit> units;
};

constexpr double kKi = 1024.0;
constexpr double kMi = kKi * 1024.0;
constexpr double kGi = kMi * 1024.0;
constexpr double kTi = kGi * 1024.0;
constexpr double kPi = kTi * 1024.0;
constexpr double kHour = 3600.0;
constexpr double kDay = 24 * kHour;
constexpr double kYear = 365 * kDay;

constexpr std::array kByteUnits = {
    Unit{"B", 1},        Unit{"kB", 1e3},     Unit{"MB", 1e6},        Unit{"GB", 1e9},        Unit{"TB", 1e12},
    Unit{"PB", 1e15},    Unit{"EB", 1e18},    Unit{"KiB", kKi},       Unit{"MiB", kMi},       Unit{"GiB", kGi},
    Unit{"TiB", kTi},    Unit{"PiB", kPi},    Unit{"bit", 0.125},     Unit{"kbit", 125},      Unit{"Mbit", 125e3},
    Unit{"Gbit", 125e6}, Unit{"Tbit", 125e9}, Unit{"Kibit", kKi / 8}, Unit{"Mibit", kMi / 8}, Unit{"Gibit", kGi / 8},
};
constexpr std::array kBandwidthUnits = {
    Unit{"B/s", 1},        Unit{"kB/s", 1e3},    Unit{"MB/s", 1e6},   Unit{"GB/s", 1e9},     Unit{"TB/s", 1e12},
    Unit{"PB/s", 1e15},    Unit{"EB/s", 1e18},   Unit{"KiB/s", kKi},  Unit{"MiB/s", kMi},    Unit{"GiB/s", kGi},
    Unit{"TiB/s", kTi},    Unit{"b/s", 0.125},   Unit{"kb/s", 125},   Unit{"Mb/s", 125e3},   Unit{"Gb/s", 125e6},
    Unit{"Tb/s", 125e9},   Unit{"bit/s", 0.125}, Unit{"kbit/s", 125}, Unit{"Mbit/s", 125e3}, Unit{"Gbit/s", 125e6},
    Unit{"Tbit/s", 125e9},
};
constexpr std::array kFlopRateUnits = {
    Unit{"FLOP/s", 1},     Unit{"kFLOP/s", 1e3},  Unit{"MFLOP/s", 1e6},  Unit{"GFLOP/s", 1e9}, Unit{"TFLOP/s", 1e12},
    Unit{"PFLOP/s", 1e15}, Unit{"EFLOP/s", 1e18}, Unit{"ZFLOP/s", 1e21}, Unit{"OP/s", 1},      Unit{"kOP/s", 1e3},
    Unit{"MOP/s", 1e6},    Unit{"GOP/s", 1e9},    Unit{"TOP/s", 1e12},   Unit{"POP/s", 1e15},  Unit{"EOP/s", 1e18},
    Unit{"FLOPS", 1},      Unit{"MFLOPS", 1e6},   Unit{"GFLOPS", 1e9},   Unit{"TFLOPS", 1e12}, Unit{"PFLOPS", 1e15},
    Unit{"EFLOPS", 1e18},  Unit{"OPS", 1},        Unit{"GOPS", 1e9},     Unit{"TOPS", 1e12},   Unit{"POPS", 1e15},
};
constexpr std::array kSecondsUnits = {
    Unit{"s", 1},       Unit{"ms", 1e-3},    Unit{"us", 1e-6},     Unit{"\u00b5s", 1e-6}, Unit{"ns", 1e-9},
    Unit{"ps", 1e-12},  Unit{"min", 60},     Unit{"h", kHour},     Unit{"d", kDay},       Unit{"day", kDay},
    Unit{"days", kDay}, Unit{"year", kYear}, Unit{"years", kYear},
};
constexpr std::array kWattsUnits = {
    Unit{"W", 1}, Unit{"mW", 1e-3}, Unit{"kW", 1e3}, Unit{"MW", 1e6}, Unit{"GW", 1e9},
};
constexpr std::array kHertzUnits = {
    Unit{"Hz", 1},
    Unit{"kHz", 1e3},
    Unit{"MHz", 1e6},
    Unit{"GHz", 1e9},
};
constexpr std::array kDollarsUnits = {
    Unit{"USD", 1},
    Unit{"k USD", 1e3},
    Unit{"M USD", 1e6},
    Unit{"G USD", 1e9},
};
constexpr std::array kPriceRateUnits = {
    Unit{"USD/s", 1},
    Unit{"USD/h", 1 / kHour},
    Unit{"USD/day", 1 / kDay},
    Unit{"USD/year", 1 / kYear},
};
constexpr std::array kEnergyPriceUnits = {
    Unit{"USD/J", 1},
    Unit{"USD/kWh", 1 / 3.6e6},
    Unit{"USD/MWh", 1 / 3.6e9},
};
constexpr std::array kRatioUnits = {
    Unit{"x", 1},
    Unit{"%", 0.01},
};
constexpr std::array kCountUnits = {
    Unit{"", 1},     Unit{"k", 1e3},  Unit{"M", 1e6},  Unit{"G", 1e9},
    Unit{"T", 1e12}, Unit{"Ki", kKi}, Unit{"Mi", kMi}, Unit{"Gi", kGi},
};

constexpr Units kBytes = {"a size", "'80 GB' or '40 MiB'", kByteUnits};
constexpr Units kBandwidth = {"a bandwidth", "'2039 GB/s', '8 TB/s' or '400 Gb/s' (bits)", kBandwidthUnits};
constexpr Units kFlopRate = {"a rate of arithmetic", "'312 TFLOP/s' or '624 TOP/s'", kFlopRateUnits};
constexpr Units kSeconds = {"a time", "'150 ns', '3 us' or '5 h'", kSecondsUnits};
constexpr Units kWatts = {"a power", "'400 W' or '10.2 kW'", kWattsUnits};
constexpr Units kHertz = {"a frequency", "'1410 MHz' or '2 GHz'", kHertzUnits};
constexpr Units kDollars = {"an amount of money", "'199000 USD' or '2.5 M USD'", kDollarsUnits};
constexpr Units kPriceRate = {"a price per time", "'2.45 USD/h'", kPriceRateUnits};
constexpr Units kEnergyPrice = {"a price of energy", "'0.08 USD/kWh'", kEnergyPriceUnits};
constexpr Units kRatio = {"a ratio", "'2 x' or '70 %'", kRatioUnits};
constexpr Units kCount = {"a count", "'4096', '128k' or '16M'", kCountUnits};

constexpr std::string_view kSpace = " \t\n\r";

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Error wrong(std::string_view text, std::string_view problem, const Units& expected) {
  // Long or binary input is cut, so that the message stays a line.
  const std::string shown = text.size() > 60 ? std::string(text.substr(0, 60)) + "..." : std::string(text);
  return Error{ErrorCode::kInvalid,
               fmt::format("'{}' {}; expected {} such as {}", shown, problem, expected.what, expected.examples)};
}

Result<double> parse(std::string_view whole, const Units& expected) {
  const std::string_view text = trim(whole);
  if (text.empty()) return wrong(text, "is empty", expected);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::general);
  if (error == std::errc::invalid_argument) return wrong(text, "does not begin with a number", expected);
  if (error == std::errc::result_out_of_range || !std::isfinite(number)) return wrong(text, "is out of range", expected);
  if (std::signbit(number)) return wrong(text, "is negative", expected);
  const std::string_view unit = trim(text.substr(static_cast<std::size_t>(end - text.data())));
  const Unit* found = nullptr;
  for (const Unit& candidate : expected.units) {
    if (candidate.name == unit) found = &candidate;
  }
  if (found == nullptr && unit.empty()) return wrong(text, "has no unit", expected);
  if (found == nullptr) {
    std::string problem = fmt::format("has the unit '{}'", unit);
    if (unit.starts_with('K') && !unit.starts_with("Ki")) {
      problem += fmt::format(" (write k{0} for 1000 or Ki{0} for 1024)", unit.substr(1));
    }
    return wrong(text, problem, expected);
  }
  const double value = number * found->scale;
  if (!std::isfinite(value)) return wrong(text, "is out of range", expected);
  return value;
}

template <class Q>
Result<Q> parse_as(std::string_view text, const Units& expected) {
  ROOFTREE_TRY(const double value, parse(text, expected));
  return Q{value};
}

// `value` in the largest of `units` (ascending) that leaves at least one whole unit.
std::string scaled(double value, std::span<const Unit> units) {
  if (!std::isfinite(value) || value == 0) return fmt::format("{} {}", value, units.front().name);
  std::size_t i = units.size() - 1;
  // 4 digits round up from 0.99995: 999.96 GB is printed as 1 TB, not as 1000 GB.
  while (i > 0 && std::abs(value) < units[i].scale * 0.99995) --i;
  const double number = value / units[i].scale;
  // {:.4g} would turn 12345 of the largest unit into 1.234e+04.
  return std::abs(number) >= 9999.5 ? fmt::format("{:.0f} {}", number, units[i].name)
                                    : fmt::format("{:.4g} {}", number, units[i].name);
}

std::string exact(double value, const Units& of) {
  std::string best = fmt::format("{} {}", value, of.units.front().name);
  for (const Unit& unit : of.units) {
    // Bits and synonyms are for reading only.
    if (unit.name.find("bit") != std::string_view::npos || unit.name.find("b/s") != std::string_view::npos ||
        unit.name.ends_with("OPS") || (unit.name.ends_with("OP/s") && unit.name.find("FLOP") == std::string_view::npos) ||
        unit.name == "\u00b5s" || unit.scale == kDay || unit.scale == kYear || unit.scale == 1 / kDay ||
        unit.scale == 1 / kYear) {
      continue;
    }
    const double number = value / unit.scale;
    for (const std::string& digits :
         {fmt::format("{:.6g}", number), fmt::format("{:.12g}", number), fmt::format("{}", number)}) {
      std::string candidate = fmt::format("{} {}", digits, unit.name);
      const Result<double> back = parse(candidate, of);
      const bool shorter = candidate.size() < best.size() || (candidate.size() == best.size() && number >= 1 && number < 1000);
      if (shorter && back && *back == value) best = std::move(candidate);
    }
  }
  return best;
}

}  // namespace

Result<Bytes> parse_bytes(std::string_view text) { return parse_as<Bytes>(text, kBytes); }
Result<BytesPerSecond> parse_bandwidth(std::string_view text) { return parse_as<BytesPerSecond>(text, kBandwidth); }
Result<FlopPerSecond> parse_flop_rate(std::string_view text) { return parse_as<FlopPerSecond>(text, kFlopRate); }
Result<Seconds> parse_seconds(std::string_view text) { return parse_as<Seconds>(text, kSeconds); }
Result<Watts> parse_watts(std::string_view text) { return parse_as<Watts>(text, kWatts); }
Result<Hertz> parse_hertz(std::string_view text) { return parse_as<Hertz>(text, kHertz); }
Result<Dollars> parse_dollars(std::string_view text) { return parse_as<Dollars>(text, kDollars); }
Result<DollarsPerSecond> parse_price_rate(std::string_view text) { return parse_as<DollarsPerSecond>(text, kPriceRate); }
Result<DollarsPerJoule> parse_energy_price(std::string_view text) { return parse_as<DollarsPerJoule>(text, kEnergyPrice); }
Result<double> parse_ratio(std::string_view text) { return parse(text, kRatio); }
Result<double> parse_count(std::string_view text) { return parse(text, kCount); }

std::string to_text(Bytes v) {
  constexpr std::array kPrinted = {Unit{"B", 1},     Unit{"KiB", kKi}, Unit{"MiB", kMi},
                                   Unit{"GiB", kGi}, Unit{"TiB", kTi}, Unit{"PiB", kPi}};
  return scaled(v.value(), kPrinted);
}
std::string to_text(BytesPerSecond v) { return scaled(v.value(), std::span(kBandwidthUnits).first(7)); }
std::string to_text(FlopPerSecond v) { return scaled(v.value(), std::span(kFlopRateUnits).first(8)); }
std::string to_text(Flop v) {
  constexpr std::array kPrinted = {Unit{"FLOP", 1},     Unit{"kFLOP", 1e3},  Unit{"MFLOP", 1e6},
                                   Unit{"GFLOP", 1e9},  Unit{"TFLOP", 1e12}, Unit{"PFLOP", 1e15},
                                   Unit{"EFLOP", 1e18}, Unit{"ZFLOP", 1e21}, Unit{"YFLOP", 1e24}};
  return scaled(v.value(), kPrinted);
}
std::string to_text(Seconds v) {
  constexpr std::array kPrinted = {Unit{"ps", 1e-12}, Unit{"ns", 1e-9}, Unit{"us", 1e-6},   Unit{"ms", 1e-3},    Unit{"s", 1},
                                   Unit{"min", 60},   Unit{"h", kHour}, Unit{"days", kDay}, Unit{"years", kYear}};
  return v.value() == 0 ? "0 s" : scaled(v.value(), kPrinted);
}
std::string to_text(Watts v) {
  constexpr std::array kPrinted = {Unit{"W", 1}, Unit{"kW", 1e3}, Unit{"MW", 1e6}, Unit{"GW", 1e9}};
  return scaled(v.value(), kPrinted);
}
std::string to_text(Joules v) {
  constexpr std::array kPrinted = {Unit{"pJ", 1e-12}, Unit{"nJ", 1e-9}, Unit{"uJ", 1e-6}, Unit{"mJ", 1e-3}, Unit{"J", 1},
                                   Unit{"kJ", 1e3},   Unit{"MJ", 1e6},  Unit{"GJ", 1e9},  Unit{"TJ", 1e12}};
  return v.value() == 0 ? "0 J" : scaled(v.value(), kPrinted);
}
std::string to_text(Hertz v) { return scaled(v.value(), kHertzUnits); }
std::string to_text(Dollars v) {
  const double d = std::abs(v.value());
  if (d >= 999500) return scaled(v.value(), kDollarsUnits);
  if (d >= 1000) return fmt::format("{:.0f} USD", v.value());
  if (d >= 10) return fmt::format("{:.4g} USD", v.value());
  return fmt::format("{:.3g} USD", v.value());
}
std::string to_text(DollarsPerSecond v) { return fmt::format("{:.4g} USD/h", v.value() * kHour); }
std::string to_text(DollarsPerJoule v) { return fmt::format("{:.4g} USD/kWh", v.value() * 3.6e6); }
std::string to_text(FlopPerByte v) {
  return std::abs(v.value()) >= 9999.5 ? fmt::format("{:.0f} FLOP/B", v.value()) : fmt::format("{:.4g} FLOP/B", v.value());
}

std::string exact_text(Bytes v) { return exact(v.value(), kBytes); }
std::string exact_text(BytesPerSecond v) { return exact(v.value(), kBandwidth); }
std::string exact_text(FlopPerSecond v) { return exact(v.value(), kFlopRate); }
std::string exact_text(Seconds v) { return exact(v.value(), kSeconds); }
std::string exact_text(Watts v) { return exact(v.value(), kWatts); }
std::string exact_text(Hertz v) { return exact(v.value(), kHertz); }
std::string exact_text(Dollars v) { return exact(v.value(), kDollars); }
// USD/h may come back one rounding away, so fall back to the exact USD/s.
std::string exact_text(DollarsPerSecond v) { return exact(v.value(), kPriceRate); }

}  // namespace rooftree

#include "base/unit_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <span>
#include <utility>

namespace rooftree {
namespace {

struct Prefix {
  std::string_view text;
  double factor;
};
constexpr std::array<Prefix, 13> kPrefixes = {{{"Ki", 1024.0},
                                               {"Mi", 1048576.0},
                                               {"Gi", 1073741824.0},
                                               {"Ti", 1099511627776.0},
                                               {"Pi", 1125899906842624.0},
                                               {"k", 1e3},
                                               {"K", 1e3},
                                               {"M", 1e6},
                                               {"G", 1e9},
                                               {"T", 1e12},
                                               {"P", 1e15},
                                               {"E", 1e18},
                                               {"", 1.0}}};
// Prefixes that only make sense for times.
constexpr std::array<Prefix, 5> kTimes = {{{"ns", 1e-9}, {"us", 1e-6}, {"µs", 1e-6}, {"ms", 1e-3}, {"s", 1.0}}};
constexpr std::array<Prefix, 8> kLongTimes = {{{"min", 60.0},
                                               {"h", 3600.0},
                                               {"hours", 3600.0},
                                               {"d", 86400.0},
                                               {"day", 86400.0},
                                               {"days", 86400.0},
                                               {"year", 31536000.0},
                                               {"years", 31536000.0}}};

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Splits "2.039 TB/s" into 2.039 and "TB/s". The number must be finite and not negative: no quantity of a machine is.
Result<std::pair<double, std::string_view>> split(std::string_view text, std::string_view expected) {
  const std::string_view trimmed = trim(text);
  double number = 0;
  const auto [end, error] = std::from_chars(trimmed.data(), trimmed.data() + trimmed.size(), number);
  if (error != std::errc{} || !std::isfinite(number)) {
    return Error{ErrorCode::kParse, fmt::format("'{}' does not start with a number; expected {}", text, expected)};
  }
  if (number < 0) return Error{ErrorCode::kInvalid, fmt::format("'{}' is negative; expected {}", text, expected)};
  const auto used = static_cast<std::size_t>(end - trimmed.data());
  return std::pair{number, trim(trimmed.substr(used))};
}

// A unit with its factor to the base unit; prefixes are allowed in front where `prefixed`.
struct Unit {
  std::string_view text;
  double factor;
  bool prefixed;
};

Result<double> parse(std::string_view text, std::span<const Unit> units, std::string_view expected) {
  ROOFTREE_TRY(const auto parts, split(text, expected));
  const auto [number, unit] = parts;
  if (unit.empty()) return Error{ErrorCode::kParse, fmt::format("'{}' has no unit; expected {}", text, expected)};
  for (const Unit& candidate : units) {
    if (!unit.ends_with(candidate.text)) continue;
    const std::string_view front = unit.substr(0, unit.size() - candidate.text.size());
    if (!candidate.prefixed) {
      if (front.empty()) return number * candidate.factor;
      continue;
    }
    for (const Prefix& prefix : kPrefixes) {
      if (prefix.text == trim(front)) return number * prefix.factor * candidate.factor;
    }
  }
  return Error{ErrorCode::kParse, fmt::format("'{}': unit '{}' does not fit; expected {}", text, unit, expected)};
}

template <class Q>
Result<Q> parse_as(std::string_view text, std::span<const Unit> units, std::string_view expected) {
  ROOFTREE_TRY(const double value, parse(text, units, expected));
  return Q{value};
}

constexpr std::array<Unit, 1> kByteUnits = {{{"B", 1.0, true}}};
constexpr std::array<Unit, 2> kBandwidthUnits = {{{"B/s", 1.0, true}, {"b/s", 0.125, true}}};
constexpr std::array<Unit, 4> kRateUnits = {
    {{"FLOP/s", 1.0, true}, {"OP/s", 1.0, true}, {"FLOPS", 1.0, true}, {"OPS", 1.0, true}}};
constexpr std::array<Unit, 1> kWattUnits = {{{"W", 1.0, true}}};
constexpr std::array<Unit, 1> kHertzUnits = {{{"Hz", 1.0, true}}};
constexpr std::array<Unit, 1> kDollarUnits = {{{"USD", 1.0, true}}};
constexpr std::array<Unit, 2> kPriceRateUnits = {{{"USD/h", 1.0 / 3600.0, false}, {"USD/s", 1.0, false}}};

// Four significant digits with the largest prefix that leaves a number of at least 1.
std::string with_prefix(double value, std::span<const Prefix> prefixes, std::string_view unit) {
  const double magnitude = std::fabs(value);
  for (const Prefix& prefix : prefixes) {
    // 999.95 of a smaller prefix would print as 1000: prefer the larger one.
    if (magnitude >= prefix.factor * 0.99995) return fmt::format("{:.4g} {}{}", value / prefix.factor, prefix.text, unit);
  }
  return fmt::format("{:.4g} {}", value, unit);
}

constexpr std::array<Prefix, 7> kDecimal = {
    {{"E", 1e18}, {"P", 1e15}, {"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1.0}}};
constexpr std::array<Prefix, 6> kBinary = {
    {{"Pi", 1125899906842624.0}, {"Ti", 1099511627776.0}, {"Gi", 1073741824.0}, {"Mi", 1048576.0}, {"Ki", 1024.0}, {"", 1.0}}};
constexpr std::array<Prefix, 9> kSmall = {
    {{"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"", 1.0}, {"m", 1e-3}, {"u", 1e-6}, {"n", 1e-9}, {"p", 1e-12}, {"f", 1e-15}}};

}  // namespace

Result<Bytes> parse_bytes(std::string_view text) {
  return parse_as<Bytes>(text, kByteUnits, "a size such as \"80 GB\" or \"40 MiB\"");
}

Result<BytesPerSecond> parse_bandwidth(std::string_view text) {
  return parse_as<BytesPerSecond>(text, kBandwidthUnits, "a bandwidth such as \"2.039 TB/s\" or \"400 Gb/s\"");
}

Result<FlopPerSecond> parse_flop_rate(std::string_view text) {
  return parse_as<FlopPerSecond>(text, kRateUnits, "an arithmetic rate such as \"312 TFLOP/s\" or \"624 TOP/s\"");
}

Result<Seconds> parse_seconds(std::string_view text) {
  constexpr std::string_view kExpected = "a time such as \"150 ns\", \"3 us\", \"1 ms\" or \"2 s\"";
  ROOFTREE_TRY(const auto parts, split(text, kExpected));
  if (parts.second.empty()) return Error{ErrorCode::kParse, fmt::format("'{}' has no unit; expected {}", text, kExpected)};
  for (const Prefix& unit : kTimes) {
    if (parts.second == unit.text) return Seconds{parts.first * unit.factor};
  }
  for (const Prefix& unit : kLongTimes) {
    if (parts.second == unit.text) return Seconds{parts.first * unit.factor};
  }
  return Error{ErrorCode::kParse, fmt::format("'{}': unit '{}' does not fit; expected {}", text, parts.second, kExpected)};
}

Result<Watts> parse_watts(std::string_view text) {
  return parse_as<Watts>(text, kWattUnits, "a power such as \"400 W\" or \"10.2 kW\"");
}

Result<Hertz> parse_hertz(std::string_view text) {
  return parse_as<Hertz>(text, kHertzUnits, "a frequency such as \"1410 MHz\"");
}

Result<Dollars> parse_dollars(std::string_view text) {
  return parse_as<Dollars>(text, kDollarUnits, "an amount such as \"199000 USD\" or \"2.5 M USD\"");
}

Result<DollarsPerSecond> parse_price_rate(std::string_view text) {
  return parse_as<DollarsPerSecond>(text, kPriceRateUnits, "a price such as \"2.45 USD/h\"");
}

Result<double> parse_count(std::string_view text) {
  constexpr std::string_view kExpected = "a count such as \"4096\", \"128k\" or \"16M\"";
  ROOFTREE_TRY(const auto parts, split(text, kExpected));
  for (const Prefix& prefix : kPrefixes) {
    if (parts.second == prefix.text) return parts.first * prefix.factor;
  }
  return Error{ErrorCode::kParse, fmt::format("'{}': suffix '{}' is unknown; expected {}", text, parts.second, kExpected)};
}

std::string to_text(Bytes v) { return with_prefix(v.value(), kBinary, "B"); }
std::string to_text(BytesPerSecond v) { return with_prefix(v.value(), kDecimal, "B/s"); }
std::string to_text(FlopPerSecond v) { return with_prefix(v.value(), kDecimal, "FLOP/s"); }
std::string to_text(Flop v) { return with_prefix(v.value(), kDecimal, "FLOP"); }

std::string to_text(Seconds v) {
  const double s = std::fabs(v.value());
  if (s >= 2 * 86400.0) return fmt::format("{:.4g} days", v.value() / 86400.0);
  if (s >= 2 * 3600.0) return fmt::format("{:.4g} h", v.value() / 3600.0);
  if (s == 0) return "0 s";
  return with_prefix(v.value(), std::span(kSmall).subspan(3), "s");
}

std::string to_text(Watts v) { return with_prefix(v.value(), kDecimal, "W"); }
std::string to_text(Joules v) { return v.value() == 0 ? "0 J" : with_prefix(v.value(), kSmall, "J"); }
std::string to_text(Hertz v) { return with_prefix(v.value(), kDecimal, "Hz"); }

std::string to_text(Dollars v) {
  const double d = std::fabs(v.value());
  if (d >= 1e6) return fmt::format("{:.4g} M USD", v.value() / 1e6);
  if (d >= 1000) return fmt::format("{:.0f} USD", v.value());
  return fmt::format("{:.3g} USD", v.value());
}

std::string to_text(FlopPerByte v) { return fmt::format("{:.3g} FLOP/B", v.value()); }

}  // namespace rooftree

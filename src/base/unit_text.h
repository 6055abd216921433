#pragma once

// Quantities as text, both ways. Reading is strict: a number without a unit, or with a unit of another dimension, is an error
// that names what was found and what was expected. Decimal prefixes (k M G T P E) and binary ones (Ki Mi Gi Ti Pi) are told
// apart, and so are bytes (B) and bits (b, bit). Negative and non-finite numbers are refused: no quantity here has them.

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace rooftree {

using DollarsPerJoule = Quantity<Dimension<0, 0, 0, -1, 1>>;

// "80 GB", "40 MiB", "1.25 TB"
Result<Bytes> parse_bytes(std::string_view text);
// "2039 GB/s", "2.039 TB/s", "400 Gb/s" (bits), "359 GiB/s"
Result<BytesPerSecond> parse_bandwidth(std::string_view text);
// "312 TFLOP/s", "624 TOP/s", "1.1 PFLOP/s" (an integer operation counts as a FLOP; FLOPS and OPS are read too)
Result<FlopPerSecond> parse_flop_rate(std::string_view text);
// "150 ns", "3 us", "1 ms", "2 s", "5 min", "5 h", "30 days", "5 years" (of 365 days)
Result<Seconds> parse_seconds(std::string_view text);
// "400 W", "10.2 kW", "1.8 MW"
Result<Watts> parse_watts(std::string_view text);
// "1410 MHz", "2 GHz"
Result<Hertz> parse_hertz(std::string_view text);
// "199000 USD", "199 k USD", "2.5 M USD"
Result<Dollars> parse_dollars(std::string_view text);
// "2.45 USD/h"
Result<DollarsPerSecond> parse_price_rate(std::string_view text);
// "0.08 USD/kWh", "50 USD/MWh"
Result<DollarsPerJoule> parse_energy_price(std::string_view text);
// "2 x", "70 %"
Result<double> parse_ratio(std::string_view text);
// "4096", "16M", "128k": a plain count, k = 1000 unless written Ki
Result<double> parse_count(std::string_view text);

// For people: three or four significant digits with the unit that reads best. Capacities in GiB, rates in decimal.
std::string to_text(Bytes v);
std::string to_text(BytesPerSecond v);
std::string to_text(FlopPerSecond v);
std::string to_text(Flop v);
std::string to_text(Seconds v);
std::string to_text(Watts v);
std::string to_text(Joules v);
std::string to_text(Hertz v);
std::string to_text(Dollars v);
std::string to_text(DollarsPerSecond v);
std::string to_text(DollarsPerJoule v);
std::string to_text(FlopPerByte v);

// For files: the shortest text that the matching parse function turns into exactly the same value (finite and >= 0).
std::string exact_text(Bytes v);
std::string exact_text(BytesPerSecond v);
std::string exact_text(FlopPerSecond v);
std::string exact_text(Seconds v);
std::string exact_text(Watts v);
std::string exact_text(Hertz v);
std::string exact_text(Dollars v);
std::string exact_text(DollarsPerSecond v);

}  // namespace rooftree

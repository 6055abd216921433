#include "machine/chip.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cctype>

namespace rooftree::machine {

std::string_view name(Certainty certainty) {
  constexpr std::array<std::string_view, 6> kNames = {"measured", "read", "derived", "user", "recalled", "assumed"};
  return kNames[static_cast<std::size_t>(certainty)];
}

std::string_view name(ChipKind kind) {
  constexpr std::array<std::string_view, 5> kNames = {"gpu", "cpu", "tpu", "dataflow", "npu"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view name(Topology topology) {
  constexpr std::array<std::string_view, 9> kNames = {"none",     "switch",   "fully-connected", "ring",     "mesh-2d",
                                                      "torus-2d", "torus-3d", "fat-tree",        "dragonfly"};
  return kNames[static_cast<std::size_t>(topology)];
}

FlopPerSecond product_rate(const Chip& chip, Arithmetic a) {
  const ArithmeticRate& rate = chip.rate(a);
  return rate.matrix > FlopPerSecond{} ? rate.matrix : rate.vector;
}

FlopPerByte ridge(const Chip& chip, Arithmetic a) {
  const BytesPerSecond bandwidth = chip.main_memory().bandwidth;
  return bandwidth > BytesPerSecond{} ? product_rate(chip, a) / bandwidth : FlopPerByte{};
}

std::string level_key(const Chip& chip, std::size_t level) {
  if (level + 1 == chip.ladder.size()) return "dram";
  std::string key = chip.ladder[level].name;
  for (char& c : key) {
    if (c == ' ' || c == '/') c = '_';
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return key;
}

Status check_complete(const Chip& chip) {
  std::vector<std::string> missing;
  if (chip.ladder.empty() || chip.main_memory().capacity <= Bytes{}) missing.emplace_back("chip.dram.capacity");
  if (chip.ladder.empty() || chip.main_memory().bandwidth <= BytesPerSecond{}) missing.emplace_back("chip.dram.bandwidth");
  bool computes = false;
  for (int a = 0; a < kArithmeticCount; ++a) computes = computes || product_rate(chip, Arithmetic(a)) > FlopPerSecond{};
  if (!computes) missing.emplace_back("chip.bf16.matrix (or another rate)");
  if (missing.empty()) return Ok{};
  return Error{ErrorCode::kInvalid,
               fmt::format("{}: the catalogue has no {} (status: {}); expected a chip with known memory and "
                           "arithmetic, or values with --set",
                           chip.id, fmt::join(missing, ", no "), chip.status.empty() ? "unknown" : chip.status)};
}

}  // namespace rooftree::machine

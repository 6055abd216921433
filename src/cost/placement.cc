#include "cost/placement.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <set>
#include <string>

#include "base/check.h"

namespace rooftree::cost {
namespace {

using model::Role;
constexpr std::size_t index(Role role) { return static_cast<std::size_t>(role); }

constexpr std::array<std::string_view, 5> kRegimeNames = {"weights on chip", "weights in memory", "weights from host memory",
                                                          "weights from disk", "does not fit"};

// Level names outlive the machines that they come from, so that an Estimate can be kept.
std::string_view intern(const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string, std::less<>> names;
  const std::lock_guard lock(mutex);
  return *names.insert(text).first;
}

double inverse(BytesPerSecond bandwidth) { return bandwidth > BytesPerSecond{} ? 1.0 / bandwidth.value() : 0.0; }

}  // namespace

std::string_view name(Regime regime) { return kRegimeNames[static_cast<std::size_t>(regime)]; }

bool is_dram(std::string_view level) {
  return level.find("HBM") != std::string_view::npos || level.find("DDR") != std::string_view::npos ||
         level.find("DRAM") != std::string_view::npos;
}

bool memory_is_on_chip(const machine::Chip& chip) {
  const machine::MemoryLevel& memory = chip.main_memory();
  return !is_dram(memory.name) && (memory.managed || memory.name.find("SRAM") != std::string::npos);
}

StorageLadder storage_ladder(const machine::Machine& machine, double memory_reserve, double last_cache_ratio) {
  const machine::Chip& chip = machine.chip();
  ROOFTREE_CHECK(!chip.ladder.empty(), "a chip has at least its main memory");
  StorageLadder out;
  const machine::MemoryLevel& memory = chip.main_memory();
  out.capacity = memory.capacity.value();
  out.memory = {intern(memory.name), out.capacity * (1 - memory_reserve), inverse(memory.bandwidth), true};
  out.memory_on_chip = memory_is_on_chip(chip);

  const std::size_t before = chip.ladder.size() - 1;
  // Registers and first levels beyond kMaxLevels could not hold a working set anyway: keep the outermost.
  const std::size_t first = before > StorageLadder::kMaxLevels ? before - StorageLadder::kMaxLevels : 0;
  for (std::size_t i = first; i < before; ++i) {
    const machine::MemoryLevel& level = chip.ladder[i];
    StorageLadder::Level& slot = out.levels[static_cast<std::size_t>(out.count++)];
    slot.name = intern(level.name);
    slot.on_die = !is_dram(level.name);
    // GPUs empty their scratchpads between kernels: nothing can be pinned there across operators.
    slot.pinned =
        !slot.on_die || (level.managed && chip.kind != machine::ChipKind::kGpu && chip.kind != machine::ChipKind::kCpu);
    const double instances = std::max(1, level.instances);
    slot.capacity =
        slot.pinned ? level.capacity.value() * (1 - memory_reserve) : level.capacity.value() / instances * kUsableCacheShare;
    slot.seconds_per_byte = level.bandwidth > BytesPerSecond{} ? inverse(level.bandwidth)
                                                               : out.memory.seconds_per_byte / std::max(1.0, last_cache_ratio);
  }

  // A CPU's main memory is the host's memory; behind it stands only the disk.
  const machine::Host host = machine.host_per_chip();
  const double link = inverse(chip.host_link_per_direction) / kHostLinkShare;
  const double host_memory = inverse(host.memory_bandwidth);
  const double disk = inverse(host.disk_read);
  const bool has_link = chip.kind != machine::ChipKind::kCpu && chip.host_link_per_direction > BytesPerSecond{};
  static const std::string kHostName = "host memory";
  static const std::string kDiskName = "disk";
  if (has_link) {
    out.host_assumed = host.memory_capacity <= Bytes{};
    const double capacity = out.host_assumed ? std::numeric_limits<double>::infinity() : host.memory_capacity.value();
    out.host = {intern(kHostName), capacity, std::max(link, host_memory), true};
  }
  if (disk > 0 && (has_link || chip.kind == machine::ChipKind::kCpu)) {
    const double capacity = host.disk_capacity > Bytes{} ? host.disk_capacity.value() : std::numeric_limits<double>::infinity();
    // Everything read from disk passes through the host's memory and over the link: the slowest sets the pace.
    out.disk = {intern(kDiskName), capacity, std::max({disk, has_link ? link : 0.0, host_memory}), true};
  }
  return out;
}

void place(const WorkingSet& set, const StorageLadder& ladder, PlacementResult& out) {
  out.weights_on_chip = false;
  out.spills = false;
  const double memory_pace = ladder.memory.seconds_per_byte;
  for (int i = 0; i < model::kRoleCount; ++i) {
    const auto r = static_cast<std::size_t>(i);
    out.roles[r] = Placement{.role = static_cast<Role>(i), .size = Bytes{set.bytes[r]}, .level = ladder.memory.name};
    out.seconds_per_byte[r] = memory_pace;
  }

  // Everything in one level before main memory: nearest first.
  for (int l = 0; l < ladder.count; ++l) {
    const StorageLadder::Level& level = ladder.levels[static_cast<std::size_t>(l)];
    if (set.total > level.capacity) continue;
    for (int i = 0; i < model::kRoleCount; ++i) {
      const auto r = static_cast<std::size_t>(i);
      out.roles[r].level = level.name;
      out.roles[r].share_on_chip = 1;
      out.seconds_per_byte[r] = level.seconds_per_byte;
    }
    out.regime = level.on_die ? Regime::kWeightsOnChip : Regime::kWeightsInMemory;
    out.weights_on_chip = level.on_die;
    return;
  }

  // Pinned levels take activations, then weights. Training keeps its weights in main memory: they change every step.
  const auto pin = [&](Role role, double wanted, double& room, const StorageLadder::Level& level) {
    const std::size_t r = index(role);
    if (set.bytes[r] <= 0 || wanted <= 0 || room <= 0) return;
    const double taken = std::min(wanted, room);
    room -= taken;
    const double share = taken / set.bytes[r];
    out.roles[r].share_on_chip += share;
    out.seconds_per_byte[r] += share * (level.seconds_per_byte - memory_pace);
    if (out.roles[r].share_on_chip > 0.5 && share > 0.25) out.roles[r].level = level.name;
  };
  double activations_left = set.live_activations;
  double weights_on_die = 0;
  double weights_left = set.training ? 0 : set.bytes[index(Role::kWeight)];
  for (int l = 0; l < ladder.count; ++l) {
    const StorageLadder::Level& level = ladder.levels[static_cast<std::size_t>(l)];
    if (!level.pinned) continue;
    double room = level.capacity;
    const double before = room;
    pin(Role::kActivation, activations_left, room, level);
    activations_left -= before - room;
    const double middle = room;
    pin(Role::kWeight, weights_left, room, level);
    weights_left -= middle - room;
    if (level.on_die) weights_on_die += middle - room;
  }

  // The last cache keeps what one kernel hands to the next if the streams leave room for it.
  if (ladder.count > 0 && set.bytes[index(Role::kActivation)] > 0 && out.roles[index(Role::kActivation)].share_on_chip <= 0) {
    const StorageLadder::Level& last = ladder.levels[static_cast<std::size_t>(ladder.count - 1)];
    if (!last.pinned && set.live_activations <= 0.5 * last.capacity) {
      Placement& p = out.roles[index(Role::kActivation)];
      p.share_on_chip = set.live_activations / set.bytes[index(Role::kActivation)];
      if (p.share_on_chip > 0.5) p.level = last.name;
      // seconds_per_byte stays main memory's: the calibrated shares were measured on kernels that had the cache too.
    }
  }

  // Main memory, then host memory, then disk. Pinned weights leave main memory free only where there is no copy to keep; the
  // copy is kept here, so that capacity does not depend on the pinning.
  out.regime = ladder.memory_on_chip ? Regime::kWeightsOnChip : Regime::kWeightsInMemory;
  out.weights_on_chip = ladder.memory_on_chip;
  double excess = set.total - ladder.memory.capacity;
  if (excess <= 0) {
    if (weights_on_die > 0.5 * set.bytes[index(Role::kWeight)] && weights_on_die > 0) {
      out.regime = Regime::kWeightsOnChip;
      out.weights_on_chip = true;
    }
    return;
  }
  double host_room = ladder.host.capacity;
  double disk_room = ladder.disk.capacity;
  bool from_disk = false;
  for (const Role role : {Role::kOptimizerState, Role::kWeight, Role::kKvCache}) {
    const std::size_t r = index(role);
    if (excess <= 0 || set.bytes[r] <= 0) continue;
    const double spilled = std::min(excess, set.bytes[r]);
    const double to_host = std::min(spilled, host_room);
    const double to_disk = std::min(spilled - to_host, disk_room);
    host_room -= to_host;
    disk_room -= to_disk;
    excess -= to_host + to_disk;
    Placement& p = out.roles[r];
    p.share_off_chip = (to_host + to_disk) / set.bytes[r];
    p.share_disk = to_disk / set.bytes[r];
    p.share_on_chip = std::min(p.share_on_chip, 1 - p.share_off_chip);
    if (p.share_off_chip > 0.5) p.level = to_disk > to_host ? ladder.disk.name : ladder.host.name;
    from_disk = from_disk || to_disk > 0;
    if (to_host + to_disk < spilled) break;
  }
  if (excess > 1e-6 * set.total) {
    out.regime = Regime::kDoesNotFit;
    out.weights_on_chip = false;
    for (Placement& p : out.roles) {
      p.share_off_chip = p.share_disk = 0;
      p.level = ladder.memory.name;
    }
    return;
  }
  out.spills = true;
  out.weights_on_chip = false;
  out.regime = from_disk ? Regime::kWeightsFromDisk : Regime::kWeightsFromHost;
}

}  // namespace rooftree::cost

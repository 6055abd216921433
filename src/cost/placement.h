#pragma once

// Where the working set lives: which tensors stay in which level of the chip's ladder, in host memory, on disk.
//
// Rules. Everything fits a level before main memory: all of it lives there (weights stay, data streams through them). Otherwise
// a software-managed level of a chip that is not a GPU keeps what was pinned there: activations first, then as many weights as
// fit; a cache keeps no weights, since a stream longer than a least-recently-used cache has no hits, but the activations that
// one kernel hands to the next stay in its last cache when they take at most half of it. Main memory, minus the reserve, holds
// the rest. What does not fit there spills, optimizer state first, then weights, then the KV cache: to host memory, then to
// disk. Activations and gradients never spill (recomputation or a smaller batch is the remedy): then it does not fit.

#include <array>
#include <cstdint>
#include <string_view>

#include "machine/machine.h"
#include "model/operator.h"

namespace rooftree::cost {

// Where the working set lives, and so what streams through what.
enum class Regime : std::uint8_t {
  kWeightsOnChip,    // weights stay in on-chip memory; data streams through weights
  kWeightsInMemory,  // weights stream from main memory through data, once per step
  kWeightsFromHost,  // weights do not fit: they stream from host memory over the link
  kWeightsFromDisk,  // neither fits: they stream from disk
  kDoesNotFit,       // nothing that this machine has holds it; times are those of a machine with enough main memory
};
[[nodiscard]] std::string_view name(Regime regime);

// Where one role lives: shares of its bytes, which sum to 1.
struct Placement {
  model::Role role{};
  Bytes size;
  std::string_view level;     // the level that holds most of it ("L2", "HBM", "host memory", "disk"); lives forever
  double share_on_chip = 0;   // share in levels before main memory
  double share_off_chip = 0;  // share outside main memory: host memory and disk
  double share_disk = 0;      // part of share_off_chip that is on disk
};

// Needs of one step, in bytes by role.
struct WorkingSet {
  std::array<double, model::kRoleCount> bytes{};
  double total = 0;
  double live_activations = 0;  // of the activations, those that one kernel hands to the next (the rest is saved for backward)
  bool training = false;
};

// The memory ladder of a chip and what stands behind it, made ready for many placements.
struct StorageLadder {
  static constexpr int kMaxLevels = 8;
  struct Level {
    std::string_view name;        // lives forever
    double capacity = 0;          // bytes usable by one plan
    double seconds_per_byte = 0;  // at full bandwidth; 0 = not limiting
    bool pinned = false;          // software decides what stays
    bool on_die = true;           // false: a faster memory in front of the main one (HBM before DDR)
  };
  std::array<Level, kMaxLevels> levels{};  // before main memory, nearest first
  int count = 0;
  Level memory;                 // main memory; capacity without the reserve
  double capacity = 0;          // of main memory, with the reserve
  bool memory_on_chip = false;  // main memory is SRAM: there is nothing behind it but the host
  Level host, disk;             // capacity 0 = there is none
  bool host_assumed = false;    // the host's memory size is unknown: taken as enough
};

// Whether a level by this name is memory beside the die (HBM, DDR, GDDR, LPDDR), not on it.
[[nodiscard]] bool is_dram(std::string_view level);

// Whether the chip's main memory is on the die (Groq, Cerebras, Graphcore).
[[nodiscard]] bool memory_is_on_chip(const machine::Chip& chip);

// Capacities: a cache counts one instance (a core's copy cannot hold what all cores read) and kUsableCacheShare of it; a
// software-managed level counts whole, minus the reserve. `last_cache_ratio` stands in for the bandwidth of an on-chip level
// whose bandwidth is unknown, as a multiple of main memory's.
[[nodiscard]] StorageLadder storage_ladder(const machine::Machine& machine, double memory_reserve, double last_cache_ratio);

// Share of a cache that a working set can fill before hashing and other streams evict it.
inline constexpr double kUsableCacheShare = 0.75;
// Share of its signalling rate that a host link delivers to large copies: 55.6 of 63 GB/s on PCIe 5.0 x16
// (catalogue README, "Calibration facts", from stas00/ml-engineering).
inline constexpr double kHostLinkShare = 0.88;

struct PlacementResult {
  Regime regime{};
  std::array<Placement, model::kRoleCount> roles{};
  // From the levels of the chip where each role lives, weighted by share; off-chip shares pass through main memory.
  std::array<double, model::kRoleCount> seconds_per_byte{};
  bool weights_on_chip = false;
  bool spills = false;
};
void place(const WorkingSet& set, const StorageLadder& ladder, PlacementResult& out);

}  // namespace rooftree::cost

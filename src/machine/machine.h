#pragma once

// A machine is a tree: chips joined into groups by fabrics, groups joined into larger groups (die, package, tile, tray, node,
// rack, pod, region). One chip is the smallest machine.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "machine/chip.h"

namespace rooftree::machine {

struct Fabric {
  std::string name;  // "NVLink 4", "InfiniBand NDR", "ICI"
  Topology topology = Topology::kNone;
  std::vector<int> dimensions;   // of a mesh or torus: 16 x 20 x 28
  BytesPerSecond per_direction;  // one member's links into this fabric, one direction; zero = unknown
  BytesPerSecond bisection;      // zero = derive from the topology
  Seconds latency;               // one hop, software included; zero = unknown
  bool in_network_reduction = false;
  double oversubscription = 1.0;  // fat tree: uplink shortage factor
  Provenance provenance;
};

// What stands beside the chips of a node: the far end of the memory ladder.
struct Host {
  Bytes memory_capacity;  // zero = unknown
  BytesPerSecond memory_bandwidth;
  BytesPerSecond disk_read;  // sequential; zero = unknown
  Bytes disk_capacity;
  std::string cpu;
};

struct Group;

// Either a chip or a group of `count` equal members joined by `fabric`.
struct Group {
  std::string name;          // "node", "rack", "tile", …
  std::optional<Chip> chip;  // set for a leaf: then count = 1, no fabric, no member
  std::unique_ptr<Group> member;
  int count = 1;
  Fabric fabric;
  Host host;        // what this level adds
  Watts power_max;  // whole group with overheads; zero = sum of its members
  std::vector<Price> prices;

  Group() = default;
  Group(const Group& other);
  Group& operator=(const Group& other);
  Group(Group&&) noexcept = default;
  Group& operator=(Group&&) noexcept = default;
  ~Group() = default;
};

struct Machine {
  std::string id;  // "nvidia-h100-sxm", "dgx-h100", "8x nvidia-h100-sxm", "this"
  std::string name;
  Group root;
  std::string notes;
  std::string vendor, status;
  int year = 0;
  std::vector<std::string> aliases;
  std::vector<Fact> facts;         // of the system; a chip's own stand in the chip
  std::optional<Fabric> scaleout;  // joins several of this machine: "2048x dgx-h100"
  // Path ("host.memory.capacity", "node.count", "node.fabric.bandwidth", ...) -> where that value comes from.
  ProvenanceMap provenance;

  // The chip at the leaves (a machine is homogeneous below its root here) and how many of them.
  [[nodiscard]] const Chip& chip() const;
  [[nodiscard]] Chip& chip();
  [[nodiscard]] double chip_count() const;
  // The host memory and disk behind one chip: its node's, divided by the chips of the node.
  [[nodiscard]] Host host_per_chip() const;
  // The groups from the innermost (whose member is the chip) to the root; empty for a bare chip.
  [[nodiscard]] std::vector<const Group*> groups() const;
  [[nodiscard]] std::vector<Group*> groups();
};

// Chips at the leaves of a group.
[[nodiscard]] double chip_count(const Group& group);

// A bare chip as a machine. Where `host` says nothing, host memory and disk are assumed, and marked so in the provenance: twice
// the chip's memory (64 GiB at least) at 76.8 GB/s (two channels of DDR5-4800, or an eighth of a two-socket server), a disk of
// 7 GB/s. Chips that are or share the host's memory (CPUs, chips without a host link) get the disk only.
[[nodiscard]] Machine machine_of(Chip chip, Host host = {}, ProvenanceMap host_provenance = {});

// `count` of a machine joined by its own links. Chips fill scale-up domains; what exceeds one must be a whole number of
// domains, joined by the scale-out network (assumed at 400 Gb/s per chip where nothing is known). kInvalid if it is not.
Result<Machine> several(const Machine& machine, int count);

}  // namespace rooftree::machine

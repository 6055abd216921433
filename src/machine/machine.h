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

enum class Topology : std::uint8_t { kNone, kSwitch, kFullyConnected, kRing, kMesh2d, kTorus2d, kTorus3d, kFatTree, kDragonfly };

struct Fabric {
  std::string name;  // "NVLink 4", "InfiniBand NDR", "ICI"
  Topology topology = Topology::kNone;
  std::vector<int> dimensions;              // of a mesh or torus: 16 x 20 x 28
  BytesPerSecond per_direction;             // one member's links into this fabric, one direction
  BytesPerSecond bisection;                 // zero = derive from the topology
  Seconds latency;                          // one hop, software included; zero = unknown
  bool in_network_reduction = false;
  double oversubscription = 1.0;            // fat tree: uplink shortage factor
  Provenance provenance;
};

// What stands beside the chips of a node: the far end of the memory ladder.
struct Host {
  Bytes memory_capacity;            // zero = unknown
  BytesPerSecond memory_bandwidth;
  BytesPerSecond disk_read;         // sequential; zero = unknown
  Bytes disk_capacity;
  std::string cpu;
};

struct Group;

// Either a chip or a group of `count` equal members joined by `fabric`.
struct Group {
  std::string name;              // "node", "rack", "tile", …
  std::optional<Chip> chip;      // set for a leaf: then count = 1, no fabric, no member
  std::unique_ptr<Group> member;
  int count = 1;
  Fabric fabric;
  Host host;                     // what this level adds
  Watts power_max;               // whole group with overheads; zero = sum of its members
  std::vector<Price> prices;

  Group() = default;
  Group(const Group& other);
  Group& operator=(const Group& other);
  Group(Group&&) noexcept = default;
  Group& operator=(Group&&) noexcept = default;
  ~Group() = default;
};

struct Machine {
  std::string id;    // "nvidia-h100-sxm", "dgx-h100", "8x nvidia-h100-sxm", "this"
  std::string name;
  Group root;
  std::string notes;
  std::map<std::string, Provenance, std::less<>> provenance;

  // The chip at the leaves (a machine is homogeneous below its root here) and how many of them.
  [[nodiscard]] const Chip& chip() const;
  [[nodiscard]] Chip& chip();
  [[nodiscard]] double chip_count() const;
  // The host memory and disk behind one chip: its node's, divided by the chips of the node.
  [[nodiscard]] Host host_per_chip() const;
};

}  // namespace rooftree::machine

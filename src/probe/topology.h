#pragma once

// What the system says about caches and memory (hwloc). In a virtual machine it may say what the host chose to say: the probe
// compares with what it measures.

#include <string>
#include <vector>

#include "base/units.h"

namespace rooftree::probe {

struct CacheLevel {
  std::string name;            // "L1", "L2", "L3"
  Bytes capacity;              // of one instance
  int instances = 1;           // among the CPUs that this process may use
  int cores_per_instance = 1;  // of those CPUs' cores
};

struct Topology {
  std::string cpu_name;
  std::vector<CacheLevel> caches;  // data or unified, nearest first; empty when unknown
  Bytes memory;                    // installed, as far as visible, or the limit of this process's control group
  Bytes memory_available;          // free for new work now; zero = unknown
  int cores = 1;                   // physical, usable by this process
  int hardware_threads = 1;
  int numa_nodes = 1;
  bool virtual_machine = false;
};

// Of the calling thread's affinity mask: call before pinning it.
[[nodiscard]] Topology read_topology();

}  // namespace rooftree::probe

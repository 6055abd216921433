#include "probe/topology.h"

#include <fmt/format.h>
#include <hwloc.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/cpu_features.h"
#include "base/thread_pool.h"

namespace rooftree::probe {
namespace {

// "MemAvailable:   12345 kB" of /proc/meminfo in bytes; zero if absent.
Bytes meminfo(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) != 0) continue;
    std::istringstream rest(line.substr(key.size()));
    double kib = 0;
    if (rest >> kib) return Bytes{kib * 1024.0};
  }
  return Bytes{0.0};
}

// The tightest memory limit of the control groups (v2) of this process; zero = none.
Bytes cgroup_memory_limit() {
  Bytes tightest{0.0};
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::/", 0) != 0) continue;
    for (std::filesystem::path group = line.substr(4);; group = group.parent_path()) {
      std::ifstream limit_file(std::filesystem::path("/sys/fs/cgroup") / group / "memory.max");
      double bytes = 0;  // "max" is no number
      if (limit_file >> bytes && bytes > 0 && (tightest == Bytes{0.0} || Bytes{bytes} < tightest)) tightest = Bytes{bytes};
      if (group.empty()) break;
    }
  }
  return tightest;
}

bool runs_under_hypervisor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) == 0) return line.find(" hypervisor") != std::string::npos;
  }
  return false;
}

struct TopologyFree {
  void operator()(hwloc_topology* t) const { hwloc_topology_destroy(t); }
};

}  // namespace

namespace {

Topology read_system() {
  Topology result;
  result.cpu_name = detected_cpu_features().cpu_name;
  result.memory = meminfo("MemTotal:");
  result.memory_available = meminfo("MemAvailable:");
  result.virtual_machine = runs_under_hypervisor();
  const CpuAllowance allowance = cpu_allowance();
  result.cores = allowance.cores;
  result.hardware_threads = static_cast<int>(allowance.cpus.size());

  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return result;
  const std::unique_ptr<hwloc_topology, TopologyFree> topology(raw);
  // Without the flag hwloc shows only what this process may use, which is what is wanted.
  if (hwloc_topology_load(raw) != 0) return result;

  const int nodes = hwloc_get_nbobjs_by_type(raw, HWLOC_OBJ_NUMANODE);
  if (nodes > 0) result.numa_nodes = nodes;
  if (hwloc_obj_t root = hwloc_get_root_obj(raw); root != nullptr) {
    // Memory plugged in later may belong to no node (seen in virtual machines): the larger of the two sources.
    result.memory = max(result.memory, Bytes{static_cast<double>(root->total_memory)});
    if (result.cpu_name.empty()) {
      if (const char* model = hwloc_obj_get_info_by_name(root, "CPUModel"); model != nullptr) result.cpu_name = model;
    }
  }
  hwloc_bitmap_t usable = hwloc_bitmap_alloc();
  for (const int cpu : allowance.cpus) hwloc_bitmap_set(usable, static_cast<unsigned>(cpu));
  int level_number = 0;
  for (const hwloc_obj_type_t type :
       {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE, HWLOC_OBJ_L5CACHE}) {
    ++level_number;
    CacheLevel level{.name = fmt::format("L{}", level_number), .capacity = {}, .instances = 0, .cores_per_instance = 1};
    for (hwloc_obj_t o = hwloc_get_next_obj_by_type(raw, type, nullptr); o != nullptr;
         o = hwloc_get_next_obj_by_type(raw, type, o)) {
      if (o->attr == nullptr || o->attr->cache.size == 0 || hwloc_bitmap_intersects(o->cpuset, usable) == 0) continue;
      ++level.instances;
      // Instances may differ (hybrid CPUs): the smallest is what every core has.
      const Bytes size{static_cast<double>(o->attr->cache.size)};
      level.capacity = level.instances == 1 ? size : min(level.capacity, size);
      const int cores = hwloc_get_nbobjs_inside_cpuset_by_type(raw, o->cpuset, HWLOC_OBJ_CORE);
      level.cores_per_instance = std::max(level.cores_per_instance, cores);
    }
    if (level.instances > 0) result.caches.push_back(level);
  }
  hwloc_bitmap_free(usable);
  return result;
}

}  // namespace

Topology read_topology() {
  Topology result = read_system();
  if (const Bytes limit = cgroup_memory_limit(); limit > Bytes{0.0} && limit < result.memory) {
    result.memory = limit;
    result.memory_available = min(result.memory_available, limit);
  }
  return result;
}

}  // namespace rooftree::probe

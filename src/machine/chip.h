#pragma once

// A chip: arithmetic rates per type, a ladder of memory levels, power and price. Data, never code: a CPU, an H100, a TPU, a
// wafer and a chip that exists only in somebody's head are the same struct. The numbers are plain so that cost formulas can
// use them at millions of evaluations per second; where each comes from stands beside them in `provenance`.

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "base/units.h"

namespace rooftree::machine {

// How sure a value is, best first. `recalled` and worse are shown as doubtful.
enum class Certainty : std::uint8_t { kMeasured, kRead, kDerived, kUser, kRecalled, kAssumed };

struct Provenance {
  Certainty certainty = Certainty::kAssumed;
  std::string source;  // document, page, repository@commit, or the rule that derived it
  std::string note;    // why it is doubtful, alternatives seen
  bool doubtful = false;
};

using ProvenanceMap = std::map<std::string, Provenance, std::less<>>;

enum class ChipKind : std::uint8_t { kGpu, kCpu, kTpu, kDataflow, kNpu };

enum class Topology : std::uint8_t {
  kNone,
  kSwitch,
  kFullyConnected,
  kRing,
  kMesh2d,
  kTorus2d,
  kTorus3d,
  kFatTree,
  kDragonfly
};

// As written in files: "read", "gpu", "torus-3d".
[[nodiscard]] std::string_view name(Certainty certainty);
[[nodiscard]] std::string_view name(ChipKind kind);
[[nodiscard]] std::string_view name(Topology topology);

// Something known about a machine that no formula uses (process node, die area, marketing figures), kept as text.
struct Fact {
  std::string name;   // "process_node"
  std::string value;  // "TSMC N7"
  Provenance provenance;
};

// Dense peaks of one arithmetic type; zero = the chip does not have it. `matrix` is the tensor/systolic/AMX unit, `vector` the
// general ALUs. A chip without matrix units has matrix = 0 and runs products at the vector rate.
struct ArithmeticRate {
  FlopPerSecond matrix;
  FlopPerSecond vector;
  double sparse_2to4 = 1.0;  // factor that 2:4 structured sparsity gives on `matrix`; 1 = none
};

// One level of the ladder, nearest to the arithmetic first. Totals over the chip, not per core.
struct MemoryLevel {
  std::string name;                // "L1", "shared", "L2", "SRAM", "DRAM"; the last level is the chip's main memory
  Bytes capacity;                  // over all instances
  BytesPerSecond bandwidth;        // read, over all instances; zero = unknown (treated as not limiting)
  BytesPerSecond write_bandwidth;  // zero = as read
  Seconds latency;                 // load-to-use; zero = unknown
  int instances = 1;  // separate copies (per core, per die); a working set shared by all cores fits only capacity / instances
  bool managed = false;  // software places data (scratchpad, SRAM of a dataflow chip) instead of a cache
};

// A price seen somewhere; several disagree, so all are kept and used as a range.
struct Price {
  std::string kind;  // "cloud_on_demand", "cloud_spot", "list", "street_used", ...
  std::string date;
  DollarsPerSecond rate_low, rate_high;  // zero if this is a purchase price
  Dollars purchase_low, purchase_high;   // zero if this is a rental price
  Provenance provenance;
};

struct Chip {
  std::string id;  // "nvidia-a100-sxm-80"
  std::string name;
  std::string vendor;
  std::string architecture;
  std::string family;  // calibration family: "nvidia-ampere", "nvidia-hopper", "amd-cdna3", "cpu-avx512", ...
  ChipKind kind = ChipKind::kGpu;
  int year = 0;
  std::string status;
  std::string notes;
  std::vector<std::string> aliases;  // names that data sets and tools use: "NVIDIA A100-SXM4-80GB"

  int cores = 1;          // SMs, CUs, CPU cores, TensorCores: the unit that waves are counted in
  std::string core_kind;  // "SM"
  Hertz clock;            // the clock that the peaks assume; zero = unknown
  std::array<ArithmeticRate, kArithmeticCount> arithmetic{};
  std::vector<MemoryLevel> ladder;  // nearest first; never empty; back() is main memory

  Watts power_max;   // TDP or board power; zero = unknown
  Watts power_idle;  // zero = unknown (cost assumes a share of power_max)
  std::vector<Price> prices;

  BytesPerSecond scaleup_per_direction;    // all links of the chip to its peers, one direction; zero = none
  BytesPerSecond host_link_per_direction;  // PCIe or C2C to the host; zero = none or unknown
  std::string scaleup_link, host_link;
  BytesPerSecond scaleup_peer_per_direction;  // to one peer, one direction, where links are point to point; zero = as all links
  Topology scaleup_topology = Topology::kNone;
  std::vector<int> scaleup_dimensions;    // of a mesh or torus
  int scaleup_domain = 0;                 // chips that the scale-up links can join; zero or 1 = no such links
  BytesPerSecond scaleout_per_direction;  // the chip's share of its node's network cards, one direction; zero = unknown

  std::vector<Fact> facts;

  // Path ("dram.bandwidth", "bf16.matrix", "power_max", …) -> where that value comes from.
  ProvenanceMap provenance;

  [[nodiscard]] const ArithmeticRate& rate(Arithmetic a) const { return arithmetic[static_cast<std::size_t>(a)]; }
  [[nodiscard]] const MemoryLevel& main_memory() const { return ladder.back(); }
};

// The best dense rate for products in `a`: matrix units if present, else vector.
[[nodiscard]] FlopPerSecond product_rate(const Chip& chip, Arithmetic a);

// Roofline ridge at main memory: the arithmetic intensity above which arithmetic of type `a` is the limit.
[[nodiscard]] FlopPerByte ridge(const Chip& chip, Arithmetic a);

// The name of a ladder level in paths: lower case, blanks and slashes as '_'; "dram" for main memory, whatever its technology.
[[nodiscard]] std::string level_key(const Chip& chip, std::size_t level);

// Whether an analysis can use the chip: main memory with capacity and bandwidth, and at least one rate. Announced chips lack
// some; the error names what is missing and how to set it.
Status check_complete(const Chip& chip);

}  // namespace rooftree::machine

#include "machine/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/unit_text.h"

namespace rooftree::machine {
namespace {

const Group& leaf(const Group& group) {
  const Group* at = &group;
  while (at->member) at = at->member.get();
  return *at;
}

Provenance assumed(std::string rule) { return {Certainty::kAssumed, std::move(rule), "", false}; }

constexpr std::string_view kHostMemoryRule = "assumed: twice the chip's memory, at least 64 GiB";
constexpr std::string_view kHostBandwidthRule =
    "assumed: two channels of DDR5-4800, which is also an eighth of a server with two sockets of eight channels";
constexpr std::string_view kDiskRule = "assumed: one PCIe 4.0 x4 NVMe drive";
// A PCIe switch or root complex joins the cards of a server; 8 is the usual count.
constexpr int kCardsPerServer = 8;
constexpr double kAssumedScaleout = 50e9;

// Values of the parts of a machine that become the member of another one keep their provenance; the fabric on top is new.
Group joined(Group member, std::string group_name, int count, Fabric fabric) {
  Group group;
  group.name = std::move(group_name);
  group.member = std::make_unique<Group>(std::move(member));
  group.count = count;
  group.fabric = std::move(fabric);
  return group;
}

Fabric assumed_scaleout(double chips) {
  Fabric fabric;
  fabric.name = "network";
  fabric.topology = Topology::kFatTree;
  fabric.per_direction = BytesPerSecond{kAssumedScaleout * chips};
  fabric.provenance = assumed("assumed: 400 Gb/s of network per chip, full bisection");
  return fabric;
}

// The links that join chips of one kind directly, and how many they can join.
struct Domain {
  Fabric fabric;
  int chips = 0;
};
Domain domain_of(const Chip& chip) {
  Domain domain;
  if (chip.scaleup_per_direction > BytesPerSecond{} && chip.scaleup_domain > 1) {
    domain.fabric.name = chip.scaleup_link;
    domain.fabric.topology = chip.scaleup_topology == Topology::kNone ? Topology::kSwitch : chip.scaleup_topology;
    domain.fabric.dimensions = chip.scaleup_dimensions;
    domain.fabric.per_direction = chip.scaleup_per_direction;
    if (const auto it = chip.provenance.find("scaleup.bandwidth"); it != chip.provenance.end()) {
      domain.fabric.provenance = it->second;
    }
    domain.chips = chip.scaleup_domain;
    return domain;
  }
  domain.fabric.topology = Topology::kSwitch;
  domain.chips = kCardsPerServer;
  if (chip.host_link_per_direction > BytesPerSecond{}) {
    domain.fabric.name = chip.host_link;
    domain.fabric.per_direction = chip.host_link_per_direction;
    domain.fabric.provenance =
        assumed("assumed: no links of its own, so peers are reached over the host link, 8 cards in a server");
  } else {
    domain.fabric = assumed_scaleout(1);
  }
  return domain;
}

int product(const std::vector<int>& factors) {
  double all = 1;
  for (const int f : factors) all *= f;
  return all > 2e9 ? 0 : static_cast<int>(all);
}

}  // namespace

Group::Group(const Group& other)
    : name(other.name),
      chip(other.chip),
      member(other.member ? std::make_unique<Group>(*other.member) : nullptr),
      count(other.count),
      fabric(other.fabric),
      host(other.host),
      power_max(other.power_max),
      prices(other.prices) {}

Group& Group::operator=(const Group& other) {
  if (this != &other) *this = Group(other);
  return *this;
}

const Chip& Machine::chip() const {
  const Group& at = leaf(root);
  ROOFTREE_CHECK(at.chip.has_value(), "the leaf of a machine is a chip");
  return *at.chip;
}

Chip& Machine::chip() { return const_cast<Chip&>(std::as_const(*this).chip()); }

double chip_count(const Group& group) {
  double count = 1;
  for (const Group* at = &group; at->member; at = at->member.get()) count *= at->count;
  return count;
}

double Machine::chip_count() const { return machine::chip_count(root); }

std::vector<const Group*> Machine::groups() const {
  std::vector<const Group*> out;
  for (const Group* at = &root; at->member; at = at->member.get()) out.push_back(at);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Group*> Machine::groups() {
  std::vector<Group*> out;
  for (Group* at = &root; at->member; at = at->member.get()) out.push_back(at);
  std::reverse(out.begin(), out.end());
  return out;
}

Host Machine::host_per_chip() const {
  Host sum;
  for (const Group* at = &root; at != nullptr; at = at->member.get()) {
    const double chips = machine::chip_count(*at);
    sum.memory_capacity += at->host.memory_capacity / chips;
    sum.memory_bandwidth += at->host.memory_bandwidth / chips;
    sum.disk_read += at->host.disk_read / chips;
    sum.disk_capacity += at->host.disk_capacity / chips;
    if (sum.cpu.empty()) sum.cpu = at->host.cpu;
  }
  return sum;
}

Machine machine_of(Chip chip, Host host, ProvenanceMap host_provenance) {
  Machine machine;
  machine.id = chip.id;
  machine.name = chip.name;
  machine.vendor = chip.vendor;
  machine.status = chip.status;
  machine.year = chip.year;
  machine.notes = chip.notes;
  machine.provenance = std::move(host_provenance);
  const bool separate = chip.kind != ChipKind::kCpu && chip.host_link_per_direction > BytesPerSecond{};
  if (separate && host.memory_capacity <= Bytes{}) {
    const double twice = 2 * chip.main_memory().capacity.value();
    host.memory_capacity = max(Bytes{twice}, Bytes{64.0 * 1024 * 1024 * 1024});
    machine.provenance["host.memory.capacity"] = assumed(std::string(kHostMemoryRule));
  }
  if (separate && host.memory_bandwidth <= BytesPerSecond{}) {
    host.memory_bandwidth = BytesPerSecond{76.8e9};
    machine.provenance["host.memory.bandwidth"] = assumed(std::string(kHostBandwidthRule));
  }
  if (host.disk_read <= BytesPerSecond{}) {
    host.disk_read = BytesPerSecond{7e9};
    machine.provenance["host.disk.bandwidth"] = assumed(std::string(kDiskRule));
  }
  machine.root.name = "chip";
  machine.root.host = std::move(host);
  machine.root.chip = std::move(chip);
  return machine;
}

Result<Machine> several(const Machine& machine, int count) {
  if (count < 1) return Error{ErrorCode::kInvalid, fmt::format("'{}x {}': expected a count of at least 1", count, machine.id)};
  Machine out = machine;
  out.id = fmt::format("{}x {}", count, machine.id);
  out.name = fmt::format("{} x {}", count, machine.name);
  out.aliases.clear();
  out.facts.clear();
  if (count == 1) return out;
  if (!machine.root.chip) {
    Fabric fabric = machine.scaleout.value_or(assumed_scaleout(machine.chip_count()));
    // A name that no inner group has, so that its values can be overridden.
    std::string group_name = "cluster";
    const auto groups = machine.groups();
    while (std::any_of(groups.begin(), groups.end(), [&](const Group* g) { return g->name == group_name; })) group_name += "+";
    out.provenance[group_name + ".fabric.bandwidth"] = fabric.provenance;
    if (fabric.per_direction > BytesPerSecond{} && machine.scaleout) {
      // Copies of copies: the links of the whole grow with it.
      out.scaleout->per_direction *= count;
    }
    out.root = joined(std::move(out.root), group_name, count, std::move(fabric));
    return out;
  }
  const Chip& chip = machine.chip();
  Domain domain = domain_of(chip);
  if (count > domain.chips && count % domain.chips != 0) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("'{}': {} joins at most {} of them; expected a count up to {} or a multiple of it", out.id,
                             domain.fabric.name, domain.chips, domain.chips)};
  }
  const int inner = std::min(count, domain.chips);
  // A torus that is not filled loses its shape; what remains is a ring of chips.
  if (!domain.fabric.dimensions.empty() && product(domain.fabric.dimensions) != inner) domain.fabric.dimensions.clear();
  out.provenance["node.fabric.bandwidth"] = domain.fabric.provenance;
  out.root = joined(std::move(out.root), "node", inner, std::move(domain.fabric));
  Fabric scaleout = assumed_scaleout(inner);
  if (chip.scaleout_per_direction > BytesPerSecond{}) {
    scaleout.per_direction = chip.scaleout_per_direction * inner;
    if (const auto it = chip.provenance.find("scaleout.bandwidth"); it != chip.provenance.end())
      scaleout.provenance = it->second;
  }
  if (count > inner) {
    const int nodes = count / inner;
    out.provenance["cluster.fabric.bandwidth"] = scaleout.provenance;
    out.root = joined(std::move(out.root), "cluster", nodes, scaleout);
    scaleout.per_direction *= nodes;
  }
  out.scaleout = std::move(scaleout);
  return out;
}

}  // namespace rooftree::machine

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>
#include <utility>

#include "base/unit_text.h"
#include "machine/catalog.h"

namespace rooftree::machine {
namespace {

// One value of a machine that has a path: how it is written and read as text.
struct Binding {
  std::string path;           // "chip.dram.bandwidth"
  ProvenanceMap* provenance;  // where its provenance is kept, and under which key
  std::string key;
  std::function<std::string()> get;                  // empty = unknown
  std::function<Status(std::string_view text)> set;  // leaves the value as it was on an error
};

// Counts are kept within int; a million cores per chip and a hundred million chips are more than any machine has.
Status set_count(int& out, std::string_view text) {
  ROOFTREE_TRY(const double value, parse_count(text));
  if (value < 1 || value > 1e8 || value != static_cast<double>(static_cast<int>(value))) {
    return Error{ErrorCode::kInvalid, fmt::format("'{}'; expected a whole number from 1 to 100000000", text)};
  }
  out = static_cast<int>(value);
  return Ok{};
}

template <class Q>
std::function<std::string()> getter(const Q& q) {
  return [&q] { return q > Q{} ? to_text(q) : std::string(); };
}

// A zero means "unknown" to the formulas, so that nobody may set one.
template <class Q>
std::function<Status(std::string_view)> setter(Q& q, Result<Q> (*parse)(std::string_view)) {
  return [&q, parse](std::string_view text) -> Status {
    ROOFTREE_TRY(const Q value, parse(text));
    if (!(value > Q{})) return Error{ErrorCode::kInvalid, fmt::format("'{}' is zero; expected a value above zero", text)};
    q = value;
    return Ok{};
  };
}

class Bindings {
 public:
  explicit Bindings(Machine& machine) : machine_(machine) {
    bind_chip();
    bind_host();
    for (Group* group : machine.groups()) bind_group(*group);
    if (machine.scaleout) bind_fabric(*machine.scaleout, "scaleout");
  }

  [[nodiscard]] const std::vector<Binding>& all() const { return all_; }

 private:
  template <class Q>
  void bind(std::string path, ProvenanceMap& map, std::string key, Q& q, Result<Q> (*parse)(std::string_view)) {
    all_.push_back({std::move(path), &map, std::move(key), getter(q), setter(q, parse)});
  }

  void bind_int(std::string path, ProvenanceMap& map, std::string key, int& value) {
    all_.push_back({std::move(path), &map, std::move(key), [&value] { return fmt::format("{}", value); },
                    [&value](std::string_view text) { return set_count(value, text); }});
  }

  void bind_chip() {
    Chip& chip = machine_.chip();
    ProvenanceMap& map = chip.provenance;
    bind_int("chip.cores", map, "cores", chip.cores);
    bind("chip.clock", map, "clock", chip.clock, parse_hertz);
    for (int i = 0; i < kArithmeticCount; ++i) {
      ArithmeticRate& rate = chip.arithmetic[static_cast<std::size_t>(i)];
      const std::string type(rooftree::name(static_cast<Arithmetic>(i)));
      bind("chip." + type + ".matrix", map, type + ".matrix", rate.matrix, parse_flop_rate);
      bind("chip." + type + ".vector", map, type + ".vector", rate.vector, parse_flop_rate);
      double& sparse = rate.sparse_2to4;
      all_.push_back({"chip." + type + ".sparse_2to4", &map, type + ".sparse_2to4",
                      [&sparse] { return sparse > 1 ? fmt::format("{:.4g} x", sparse) : std::string(); },
                      [&sparse](std::string_view text) -> Status {
                        ROOFTREE_TRY(const double value, parse_ratio(text));
                        if (value < 1)
                          return Error{ErrorCode::kInvalid, fmt::format("'{}'; expected a gain of at least 1 x", text)};
                        sparse = value;
                        return Ok{};
                      }});
    }
    for (std::size_t i = 0; i < chip.ladder.size(); ++i) {
      MemoryLevel& level = chip.ladder[i];
      const std::string key = level_key(chip, i);
      const std::string path = "chip." + key;
      bind(path + ".capacity", map, key + ".capacity", level.capacity, parse_bytes);
      bind(path + ".bandwidth", map, key + ".bandwidth", level.bandwidth, parse_bandwidth);
      // A new read bandwidth leaves no meaning to the old one for writes.
      all_.back().set = [&level, set = all_.back().set](std::string_view text) -> Status {
        ROOFTREE_TRY_VOID(set(text));
        level.write_bandwidth = BytesPerSecond{};
        return Ok{};
      };
      bind(path + ".write_bandwidth", map, key + ".write_bandwidth", level.write_bandwidth, parse_bandwidth);
      bind(path + ".latency", map, key + ".latency", level.latency, parse_seconds);
      bind_int(path + ".instances", map, key + ".instances", level.instances);
    }
    bind("chip.power_max", map, "power_max", chip.power_max, parse_watts);
    bind("chip.power_idle", map, "power_idle", chip.power_idle, parse_watts);
    bind("chip.scaleup.bandwidth", map, "scaleup.bandwidth", chip.scaleup_per_direction, parse_bandwidth);
    bind("chip.scaleout.bandwidth", map, "scaleout.bandwidth", chip.scaleout_per_direction, parse_bandwidth);
    bind_price();
  }

  void bind_price() {
    Chip& chip = machine_.chip();
    const auto range = [&chip](bool rental) {
      const Price* low = nullptr;
      const Price* high = nullptr;
      const auto of = [rental](const Price& p, bool upper) {
        if (rental) return (upper ? p.rate_high : p.rate_low).value();
        return (upper ? p.purchase_high : p.purchase_low).value();
      };
      for (const Price& price : chip.prices) {
        if (of(price, true) <= 0) continue;
        if (low == nullptr || of(price, false) < of(*low, false)) low = &price;
        if (high == nullptr || of(price, true) > of(*high, true)) high = &price;
      }
      if (low == nullptr) return std::string();
      const std::string from = rental ? to_text(low->rate_low) : to_text(low->purchase_low);
      const std::string to = rental ? to_text(high->rate_high) : to_text(high->purchase_high);
      return from == to ? from : fmt::format("{} to {}", from, to);
    };
    const auto replace = [&chip](bool rental, Price price) {
      std::erase_if(chip.prices, [rental](const Price& p) { return (p.rate_high > DollarsPerSecond{}) == rental; });
      price.kind = "user";
      price.provenance = {Certainty::kUser, "--set", "", false};
      chip.prices.push_back(std::move(price));
    };
    all_.push_back({"chip.price", &chip.provenance, "price", [range] { return range(true); },
                    [replace](std::string_view text) -> Status {
                      ROOFTREE_TRY(const DollarsPerSecond rate, parse_price_rate(text));
                      Price price;
                      price.rate_low = price.rate_high = rate;
                      replace(true, std::move(price));
                      return Ok{};
                    }});
    all_.push_back({"chip.purchase", &chip.provenance, "purchase", [range] { return range(false); },
                    [replace](std::string_view text) -> Status {
                      ROOFTREE_TRY(const Dollars amount, parse_dollars(text));
                      Price price;
                      price.purchase_low = price.purchase_high = amount;
                      replace(false, std::move(price));
                      return Ok{};
                    }});
  }

  // The host is what stands nearest above the chips: the innermost group that has one, else the chip's own.
  void bind_host() {
    Chip& chip = machine_.chip();
    bind("host.link", chip.provenance, "host_link.bandwidth", chip.host_link_per_direction, parse_bandwidth);
    Group* holder = &machine_.root;
    while (holder->member) holder = holder->member.get();
    std::string prefix;
    for (Group* group : machine_.groups()) {
      const Host& own = holder->host;
      if (own.memory_capacity > Bytes{} || own.memory_bandwidth > BytesPerSecond{}) break;
      if (group->host.memory_capacity > Bytes{} || group->host.memory_bandwidth > BytesPerSecond{}) {
        holder = group;
        prefix = group->name + ".";
        break;
      }
    }
    ProvenanceMap& map = machine_.provenance;
    Host& host = holder->host;
    bind("host.memory.capacity", map, prefix + "host.memory.capacity", host.memory_capacity, parse_bytes);
    bind("host.memory.bandwidth", map, prefix + "host.memory.bandwidth", host.memory_bandwidth, parse_bandwidth);
    bind("host.disk.bandwidth", map, prefix + "host.disk.bandwidth", host.disk_read, parse_bandwidth);
    bind("host.disk.capacity", map, prefix + "host.disk.capacity", host.disk_capacity, parse_bytes);
  }

  void bind_group(Group& group) {
    bind_int(group.name + ".count", machine_.provenance, group.name + ".count", group.count);
    all_.back().set = [&group, set = all_.back().set](std::string_view text) -> Status {
      const int before = group.count;
      ROOFTREE_TRY_VOID(set(text));
      if (group.count != before) group.fabric.dimensions.clear();  // the old shape holds another number of members
      return Ok{};
    };
    bind(group.name + ".power_max", machine_.provenance, group.name + ".power_max", group.power_max, parse_watts);
    bind_fabric(group.fabric, group.name + ".fabric");
  }

  void bind_fabric(Fabric& fabric, const std::string& path) {
    ProvenanceMap& map = machine_.provenance;
    bind(path + ".bandwidth", map, path + ".bandwidth", fabric.per_direction, parse_bandwidth);
    bind(path + ".bisection", map, path + ".bisection", fabric.bisection, parse_bandwidth);
    bind(path + ".latency", map, path + ".latency", fabric.latency, parse_seconds);
  }

  Machine& machine_;
  std::vector<Binding> all_;
};

// The valid paths in few words: the ten types share one line.
std::string valid_paths(const std::vector<Binding>& all) {
  std::vector<std::string> paths;
  std::vector<std::string_view> types;
  for (int i = 0; i < kArithmeticCount; ++i) types.push_back(rooftree::name(static_cast<Arithmetic>(i)));
  for (const Binding& binding : all) {
    const std::string_view middle = std::string_view(binding.path).substr(0, binding.path.rfind('.'));
    const bool typed =
        std::any_of(types.begin(), types.end(), [&](std::string_view t) { return middle == fmt::format("chip.{}", t); });
    if (!typed) {
      paths.push_back(binding.path);
    } else if (paths.empty() || !paths.back().starts_with("chip.TYPE")) {
      paths.emplace_back("chip.TYPE.matrix, chip.TYPE.vector, chip.TYPE.sparse_2to4");
    }
  }
  return fmt::format("{} (TYPE: {})", fmt::join(paths, ", "), fmt::join(types, ", "));
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string shortened(std::string_view text) {
  return text.size() > 80 ? std::string(text.substr(0, 80)) + "..." : std::string(text);
}

}  // namespace

Status apply_override(Machine& machine, std::string_view assignment) {
  const auto equals = assignment.find('=');
  const std::string_view path = trim(assignment.substr(0, equals));
  if (equals == std::string_view::npos || path.empty()) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("--set '{}': expected PATH=VALUE such as 'chip.dram.bandwidth=8 TB/s'", shortened(assignment))};
  }
  const std::string_view value = trim(assignment.substr(equals + 1));
  Bindings bindings(machine);
  // Main memory also goes by its own name: chip.hbm3.bandwidth.
  const Chip& chip = machine.chip();
  std::string alias(path);
  std::string memory = chip.main_memory().name;
  std::transform(memory.begin(), memory.end(), memory.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
  const std::string own_name = "chip." + memory + ".";
  if (path.starts_with(own_name)) alias = "chip.dram." + std::string(path.substr(own_name.size()));
  for (const std::string& wanted : {std::string(path), alias}) {
    for (const Binding& binding : bindings.all()) {
      if (binding.path != wanted) continue;
      if (const Status status = binding.set(value); !status) return status.error().within(fmt::format("--set {}", path));
      (*binding.provenance)[binding.key] = {Certainty::kUser, "--set", "", false};
      return Ok{};
    }
  }
  return Error{ErrorCode::kInvalid, fmt::format("--set '{}': {} has no such property; expected one of {}", shortened(path),
                                                machine.id, valid_paths(bindings.all()))};
}

std::vector<Property> properties(const Machine& machine) {
  Machine copy = machine;  // bindings can also write
  const Bindings bindings(copy);
  std::vector<Property> out;
  for (const Binding& binding : bindings.all()) {
    std::string text = binding.get();
    if (text.empty()) continue;
    Property property{binding.path, std::move(text), {}};
    if (const auto it = binding.provenance->find(binding.key); it != binding.provenance->end()) {
      property.provenance = it->second;
    } else if (property.path.ends_with(".instances") || property.path.ends_with(".count") || property.path == "chip.cores") {
      // Structure, not a value: 1 unless a file says more.
      property.provenance = {Certainty::kDerived, "structure of the description", "", false};
    }
    if (property.path == "chip.price" || property.path == "chip.purchase") {
      std::set<std::string> sources;
      Certainty worst = Certainty::kMeasured;
      for (const Price& price : copy.chip().prices) {
        const bool rental = price.rate_high > DollarsPerSecond{};
        if (rental != (property.path == "chip.price")) continue;
        sources.insert(price.provenance.source);
        worst = std::max(worst, price.provenance.certainty);
      }
      property.provenance = {worst, fmt::format("{}", fmt::join(sources, "; ")), "", false};
    }
    out.push_back(std::move(property));
  }
  return out;
}

}  // namespace rooftree::machine

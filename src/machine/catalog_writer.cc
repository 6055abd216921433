#include <fmt/format.h>

#include <map>

#include "base/json.h"
#include "base/unit_text.h"
#include "machine/catalog.h"
#include "machine/catalog_format.h"

namespace rooftree::machine {
namespace {

// Objects with a "value" take one line, as in the files of the catalogue.
void print(const Json& json, int indent, std::string& out) {
  const std::string pad(static_cast<std::size_t>(indent) * 2, ' ');
  const auto flat = [](const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); };
  if (json.is_object() && !json.empty()) {
    const bool one_line = json.contains("value");
    out += '{';
    bool first = true;
    for (const auto& [key, value] : json.items()) {
      if (!first) out += one_line ? ", " : ",";
      first = false;
      if (!one_line) out += "\n  " + pad;
      out += flat(Json(key)) + ": ";
      if (one_line) {
        out += flat(value);
      } else {
        print(value, indent + 1, out);
      }
    }
    out += one_line ? "}" : "\n" + pad + "}";
    return;
  }
  if (json.is_array() && !json.empty() && json.front().is_structured()) {
    out += '[';
    bool first = true;
    for (const Json& item : json) {
      out += first ? "\n  " : ",\n  ";
      first = false;
      out += pad;
      print(item, indent + 1, out);
    }
    out += "\n" + pad + "]";
    return;
  }
  out += flat(json);
}

class Writer {
 public:
  // Values whose provenance is not known were computed by the program that writes.
  Json value(std::string text, const Provenance* provenance) {
    static const Provenance kNone{Certainty::kAssumed, "not recorded", "", false};
    const Provenance& p = provenance == nullptr ? kNone : *provenance;
    Json out;
    out["value"] = std::move(text);
    out["source"] = source(p.source.empty() ? "not recorded" : p.source);
    out["certainty"] = name(p.certainty);
    if (!p.note.empty()) out["note"] = p.note;
    if (p.doubtful) out["doubtful"] = true;
    return out;
  }

  template <class Q>
  void quantity(Json& to, const char* key, Q v, const ProvenanceMap& map, const std::string& path) {
    if (v > Q{}) to[key] = value(exact_text(v), find(map, path));
  }

  static const Provenance* find(const ProvenanceMap& map, const std::string& path) {
    const auto it = map.find(path);
    return it == map.end() ? nullptr : &it->second;
  }

  Json facts(const std::vector<Fact>& facts) {
    Json out = Json::object();
    for (const Fact& fact : facts) out[fact.name] = value(fact.value, &fact.provenance);
    return out;
  }

  Json prices(const std::vector<Price>& prices) {
    Json out = Json::array();
    for (const Price& price : prices) {
      const bool rental = price.rate_low > DollarsPerSecond{} || price.rate_high > DollarsPerSecond{};
      const std::string low = rental ? exact_text(price.rate_low) : exact_text(price.purchase_low);
      const std::string high = rental ? exact_text(price.rate_high) : exact_text(price.purchase_high);
      Json entry;
      entry["kind"] = price.kind;
      if (!price.date.empty()) entry["date"] = price.date;
      const Json rest = value(low, &price.provenance);
      entry["value"] = rest["value"];
      if (high != low) entry["high"] = high;
      for (const auto& [key, v] : rest.items()) {
        if (key != "value") entry[key] = v;
      }
      out.push_back(std::move(entry));
    }
    return out;
  }

  Json host(const Host& host, const ProvenanceMap& map, const std::string& prefix) {
    Json out = Json::object();
    if (!host.cpu.empty()) out["cpu"] = host.cpu;
    quantity(out, "memory_capacity", host.memory_capacity, map, prefix + "host.memory.capacity");
    quantity(out, "memory_bandwidth", host.memory_bandwidth, map, prefix + "host.memory.bandwidth");
    quantity(out, "disk_read", host.disk_read, map, prefix + "host.disk.bandwidth");
    quantity(out, "disk_capacity", host.disk_capacity, map, prefix + "host.disk.capacity");
    return out;
  }

  Json sources() const {
    Json out = Json::object();
    for (std::size_t i = 0; i < order_.size(); ++i) out[fmt::format("s{}", i + 1)] = order_[i];
    return out;
  }

 private:
  std::string source(const std::string& text) {
    for (std::size_t i = 0; i < order_.size(); ++i) {
      if (order_[i] == text) return fmt::format("s{}", i + 1);
    }
    order_.push_back(text);
    return fmt::format("s{}", order_.size());
  }

  std::vector<std::string> order_;
};

void head(Json& out, const std::string& id, const std::string& given_name, const std::string& vendor, std::string_view kind) {
  out["id"] = id;
  out["name"] = given_name.empty() ? id : given_name;
  if (!vendor.empty()) out["vendor"] = vendor;
  out["kind"] = kind;
}

void tail(Json& out, int year, const std::string& status, const std::vector<std::string>& aliases) {
  if (year > 0) out["year"] = year;
  if (!status.empty()) out["status"] = status;
  if (!aliases.empty()) out["aliases"] = aliases;
}

template <class T>
void set_if(Json& out, const char* key, T value) {
  if (!value.empty()) out[key] = std::move(value);
}

Json ratio_value(Writer& writer, double ratio, const Provenance* provenance) {
  return writer.value(fmt::format("{} x", ratio), provenance);
}

Json chip_json(const Chip& chip, const Host& host, const ProvenanceMap& host_provenance) {
  Writer writer;
  const ProvenanceMap& map = chip.provenance;
  Json out;
  head(out, chip.id, chip.name, chip.vendor, name(chip.kind));
  set_if(out, "architecture", chip.architecture);
  set_if(out, "family", chip.family);
  tail(out, chip.year, chip.status, chip.aliases);
  out["sources"] = nullptr;  // its place; filled when all values are known
  if (chip.cores > 1 || Writer::find(map, "cores") != nullptr) {
    out["cores"] = writer.value(fmt::format("{} {}", chip.cores, chip.core_kind.empty() ? "cores" : chip.core_kind),
                                Writer::find(map, "cores"));
  }
  writer.quantity(out, "clock", chip.clock, map, "clock");
  Json arithmetic = Json::object();
  for (int i = 0; i < kArithmeticCount; ++i) {
    const ArithmeticRate& rate = chip.arithmetic[static_cast<std::size_t>(i)];
    const std::string type(rooftree::name(static_cast<Arithmetic>(i)));
    Json rates = Json::object();
    writer.quantity(rates, "matrix", rate.matrix, map, type + ".matrix");
    writer.quantity(rates, "vector", rate.vector, map, type + ".vector");
    if (rate.sparse_2to4 > 1)
      rates["sparse_2to4"] = ratio_value(writer, rate.sparse_2to4, Writer::find(map, type + ".sparse_2to4"));
    set_if(arithmetic, type.c_str(), std::move(rates));
  }
  set_if(out, "arithmetic", std::move(arithmetic));
  Json ladder = Json::array();
  for (std::size_t i = 0; i < chip.ladder.size(); ++i) {
    const MemoryLevel& level = chip.ladder[i];
    const std::string key = level_key(chip, i);
    Json one;
    one["name"] = level.name;
    writer.quantity(one, "capacity", level.capacity, map, key + ".capacity");
    writer.quantity(one, "bandwidth", level.bandwidth, map, key + ".bandwidth");
    writer.quantity(one, "write_bandwidth", level.write_bandwidth, map, key + ".write_bandwidth");
    writer.quantity(one, "latency", level.latency, map, key + ".latency");
    if (level.instances > 1) one["instances"] = level.instances;
    if (level.managed) one["managed"] = true;
    ladder.push_back(std::move(one));
  }
  out["memory"] = std::move(ladder);
  Json power = Json::object();
  writer.quantity(power, "max", chip.power_max, map, "power_max");
  writer.quantity(power, "idle", chip.power_idle, map, "power_idle");
  set_if(out, "power", std::move(power));
  Json links = Json::object();
  if (!chip.scaleup_link.empty() || chip.scaleup_per_direction > BytesPerSecond{}) {
    Json link;
    link["name"] = chip.scaleup_link.empty() ? "links" : chip.scaleup_link;
    writer.quantity(link, "per_direction", chip.scaleup_per_direction, map, "scaleup.bandwidth");
    writer.quantity(link, "peer_per_direction", chip.scaleup_peer_per_direction, map, "scaleup.peer_bandwidth");
    if (chip.scaleup_topology != Topology::kNone) link["topology"] = name(chip.scaleup_topology);
    set_if(link, "dimensions", chip.scaleup_dimensions);
    if (chip.scaleup_domain > 0) {
      link["domain"] = writer.value(fmt::format("{} chips", chip.scaleup_domain), Writer::find(map, "scaleup.domain"));
    }
    links["scaleup"] = std::move(link);
  }
  if (!chip.host_link.empty() || chip.host_link_per_direction > BytesPerSecond{}) {
    Json link;
    link["name"] = chip.host_link.empty() ? "host link" : chip.host_link;
    writer.quantity(link, "per_direction", chip.host_link_per_direction, map, "host_link.bandwidth");
    links["host"] = std::move(link);
  }
  if (chip.scaleout_per_direction > BytesPerSecond{}) {
    Json link = Json::object();
    writer.quantity(link, "per_direction", chip.scaleout_per_direction, map, "scaleout.bandwidth");
    links["scaleout"] = std::move(link);
  }
  set_if(out, "links", std::move(links));
  set_if(out, "host", writer.host(host, host_provenance, ""));
  set_if(out, "prices", writer.prices(chip.prices));
  set_if(out, "facts", writer.facts(chip.facts));
  set_if(out, "notes", chip.notes);
  out["sources"] = writer.sources();
  return out;
}

Json fabric_json(Writer& writer, const Fabric& fabric, const ProvenanceMap& map, const std::string& prefix) {
  Json out;
  out["name"] = fabric.name.empty() ? "fabric" : fabric.name;
  out["topology"] = name(fabric.topology);
  set_if(out, "dimensions", fabric.dimensions);
  const Provenance* bandwidth = Writer::find(map, prefix + ".bandwidth");
  if (fabric.per_direction > BytesPerSecond{}) {
    out["per_direction"] =
        writer.value(exact_text(fabric.per_direction), bandwidth != nullptr ? bandwidth : &fabric.provenance);
  }
  writer.quantity(out, "bisection", fabric.bisection, map, prefix + ".bisection");
  writer.quantity(out, "latency", fabric.latency, map, prefix + ".latency");
  if (fabric.in_network_reduction) out["in_network_reduction"] = true;
  if (fabric.oversubscription > 1) {
    out["oversubscription"] = ratio_value(writer, fabric.oversubscription, Writer::find(map, prefix + ".oversubscription"));
  }
  return out;
}

}  // namespace

std::string to_catalog_json(const Machine& machine) {
  std::string text;
  const std::vector<const Group*> groups = machine.groups();
  const Group* leaf = &machine.root;
  while (leaf->member) leaf = leaf->member.get();
  const Json chip = chip_json(*leaf->chip, leaf->host, machine.provenance);
  if (groups.empty()) {
    print(chip, 0, text);
    return text + "\n";
  }
  Writer writer;
  const ProvenanceMap& map = machine.provenance;
  Json out;
  head(out, machine.id, machine.name, machine.vendor, "system");
  tail(out, machine.year, machine.status, machine.aliases);
  out["sources"] = nullptr;
  out["member"] = chip;
  Json list = Json::array();
  for (const Group* group : groups) {
    Json one;
    one["name"] = group->name;
    one["count"] = writer.value(fmt::format("{} members", group->count), Writer::find(map, group->name + ".count"));
    if (group->count > 1 || group->fabric.per_direction > BytesPerSecond{}) {
      one["fabric"] = fabric_json(writer, group->fabric, map, group->name + ".fabric");
    }
    set_if(one, "host", writer.host(group->host, map, group->name + "."));
    writer.quantity(one, "power_max", group->power_max, map, group->name + ".power_max");
    set_if(one, "prices", writer.prices(group->prices));
    list.push_back(std::move(one));
  }
  out["groups"] = std::move(list);
  if (machine.scaleout) out["scaleout"] = fabric_json(writer, *machine.scaleout, map, "scaleout");
  set_if(out, "facts", writer.facts(machine.facts));
  set_if(out, "notes", machine.notes);
  out["sources"] = writer.sources();
  print(out, 0, text);
  return text + "\n";
}

}  // namespace rooftree::machine

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "base/json.h"
#include "machine/catalog.h"
#include "machine/catalog_format.h"

namespace rooftree::machine {
namespace {

// Shared by all objects of one file: the first problem wins and stops the reading of values.
struct Context {
  std::string where;
  std::map<std::string, std::string, std::less<>> sources;
  std::optional<Error> error;

  void fail(std::string_view path, std::string_view message) {
    if (error) return;
    error = Error{ErrorCode::kInvalid,
                  path.empty() ? fmt::format("{}: {}", where, message) : fmt::format("{}: {}: {}", where, path, message)};
  }
};

std::string shown(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

constexpr std::string_view kValueForm = R"(an object {"value": "...", "source": "...", "certainty": "..."})";

template <class Enum>
std::optional<Enum> enum_from(std::string_view text, int count) {
  for (int i = 0; i < count; ++i) {
    if (name(static_cast<Enum>(i)) == text) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

template <class Enum>
std::string enum_names(int count) {
  std::vector<std::string_view> names;
  for (int i = 0; i < count; ++i) names.push_back(name(static_cast<Enum>(i)));
  return fmt::format("{}", fmt::join(names, ", "));
}

constexpr int kCertainties = 6;
constexpr int kKinds = 5;
constexpr int kTopologies = 9;

class Fields {
 public:
  Fields(Context& context, const Json& json, std::string path) : context_(context), path_(std::move(path)) {
    if (json.is_object()) {
      json_ = &json;
    } else {
      context_.fail(path_, fmt::format("found {}; expected an object", shown(json)));
    }
  }

  // Reports the keys that nothing has asked for.
  void done() {
    if (json_ == nullptr || context_.error) return;
    for (const auto& [key, value] : json_->items()) {
      if (!asked_.contains(key)) {
        context_.fail(path_, fmt::format("has the key \"{}\"; expected one of {}", key, fmt::join(asked_, ", ")));
        return;
      }
    }
  }

  [[nodiscard]] const Json* get(std::string_view key) {
    asked_.emplace(key);
    if (json_ == nullptr || context_.error) return nullptr;
    const auto it = json_->find(key);
    return it == json_->end() ? nullptr : &*it;
  }

  std::string path(std::string_view key) const { return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key); }
  void fail(std::string_view key, std::string_view message) { context_.fail(path(key), message); }
  Context& context() { return context_; }

  std::string text(std::string_view key, bool required = false) {
    const Json* json = get(key);
    if (json == nullptr) {
      if (required) fail(key, "is missing; expected a text");
      return {};
    }
    if (!json->is_string() || json->get_ref<const std::string&>().empty()) {
      fail(key, fmt::format("found {}; expected a text", shown(*json)));
      return {};
    }
    return json->get<std::string>();
  }

  std::vector<std::string> texts(std::string_view key) {
    std::vector<std::string> out;
    const Json* json = get(key);
    if (json == nullptr) return out;
    if (!json->is_array()) fail(key, fmt::format("found {}; expected a list of texts", shown(*json)));
    for (const Json& item : *json) {
      if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
        fail(key, fmt::format("found {}; expected a text", shown(item)));
        return {};
      }
      out.push_back(item.get<std::string>());
    }
    return out;
  }

  static bool integer_from(const Json& json, int low, int high, int& out) {
    if (!json.is_number_integer()) return false;
    const auto value = json.get<std::int64_t>();
    if (value < low || value > high) return false;
    out = static_cast<int>(value);
    return true;
  }

  int integer(std::string_view key, int low, int high, int otherwise) {
    int out = otherwise;
    const Json* json = get(key);
    if (json != nullptr && !integer_from(*json, low, high, out)) {
      fail(key, fmt::format("found {}; expected a whole number from {} to {}", shown(*json), low, high));
    }
    return out;
  }

  std::vector<int> integers(std::string_view key, int low, int high) {
    std::vector<int> out;
    const Json* json = get(key);
    if (json == nullptr) return out;
    if (!json->is_array() || json->size() > 8) {
      fail(key, fmt::format("found {}; expected a list of up to 8 whole numbers", shown(*json)));
      return out;
    }
    for (const Json& item : *json) {
      int value = 0;
      if (!integer_from(item, low, high, value)) {
        fail(key, fmt::format("found {}; expected a whole number from {} to {}", shown(item), low, high));
        return {};
      }
      out.push_back(value);
    }
    return out;
  }

  bool flag(std::string_view key) {
    const Json* json = get(key);
    if (json == nullptr) return false;
    if (!json->is_boolean()) {
      fail(key, fmt::format("found {}; expected true or false", shown(*json)));
      return false;
    }
    return json->get<bool>();
  }

  template <class Enum>
  Enum choice(std::string_view key, int count, Enum otherwise, bool required = false) {
    const std::string text_value = text(key, required);
    if (text_value.empty()) return otherwise;
    const auto found = enum_from<Enum>(text_value, count);
    if (!found) fail(key, fmt::format("found \"{}\"; expected one of {}", text_value, enum_names<Enum>(count)));
    return found.value_or(otherwise);
  }

  // A value object; its text, or empty if there is none. The provenance goes to `map[provenance_key]`.
  std::string value(std::string_view key, ProvenanceMap& map, std::string_view provenance_key, bool required = false) {
    const Json* json = get(key);
    if (json == nullptr) {
      if (required) fail(key, fmt::format("is missing; expected {}", kValueForm));
      return {};
    }
    Provenance provenance;
    std::string text_value = value_of(*json, path(key), provenance);
    if (!context_.error) map[std::string(provenance_key)] = std::move(provenance);
    return text_value;
  }

  template <class Q>
  Q quantity(std::string_view key, Result<Q> (*parse)(std::string_view), ProvenanceMap& map, std::string_view provenance_key,
             bool required = false) {
    const std::string text_value = value(key, map, provenance_key, required);
    if (text_value.empty() || context_.error) return Q{};
    const Result<Q> parsed = parse(text_value);
    if (!parsed) {
      fail(key, parsed.error().message);
      return Q{};
    }
    if (!(*parsed > Q{})) fail(key, fmt::format("'{}' is zero; leave it out if it is unknown", text_value));
    return *parsed;
  }

  // "108 SM": a whole number and what is counted.
  int counted(std::string_view key, ProvenanceMap& map, std::string_view provenance_key, std::string& noun, int otherwise) {
    const std::string text_value = value(key, map, provenance_key);
    if (text_value.empty() || context_.error) return otherwise;
    int count = 0;
    const auto [end, error] = std::from_chars(text_value.data(), text_value.data() + text_value.size(), count);
    std::string_view rest(end, static_cast<std::size_t>(text_value.data() + text_value.size() - end));
    if (error != std::errc{} || count < 1 || !rest.starts_with(' ') || rest.size() < 2) {
      fail(key,
           fmt::format("found '{}'; expected a whole number of at least 1 and what is counted, such as '108 SM'", text_value));
      return otherwise;
    }
    noun = rest.substr(1);
    return count;
  }

  // Reads "value", "source", "certainty", "note", "doubtful" of an object that may have more keys (`more`).
  std::string value_of(const Json& json, const std::string& at, Provenance& provenance, std::set<std::string> more = {}) {
    if (context_.error) return {};
    if (!json.is_object()) {
      context_.fail(at, fmt::format("found {}; expected {}", shown(json), kValueForm));
      return {};
    }
    Fields fields(context_, json, at);
    const std::string text_value = fields.text("value", true);
    const Json* source = fields.get("source");
    if (source == nullptr) {
      if (!context_.error) context_.fail(at, "has no \"source\"; expected the key of an entry of \"sources\"");
    } else {
      const Json list = source->is_array() ? *source : Json::array({*source});
      if (list.empty()) context_.fail(at, "has no \"source\"; expected the key of an entry of \"sources\"");
      for (const Json& item : list) {
        const auto it = item.is_string() ? context_.sources.find(item.get_ref<const std::string&>()) : context_.sources.end();
        if (it == context_.sources.end()) {
          std::vector<std::string_view> known;
          for (const auto& [source_key, unused] : context_.sources) known.push_back(source_key);
          context_.fail(
              at, fmt::format("names the source {}; expected one of \"sources\": {}", shown(item), fmt::join(known, ", ")));
          return {};
        }
        if (!provenance.source.empty()) provenance.source += "; ";
        provenance.source += it->second;
      }
    }
    provenance.certainty = fields.choice("certainty", kCertainties, Certainty::kAssumed, true);
    provenance.note = fields.text("note");
    provenance.doubtful = fields.flag("doubtful");
    for (const std::string& key : more) (void)fields.get(key);
    fields.done();
    return text_value;
  }

 private:
  Context& context_;
  const Json* json_ = nullptr;
  std::string path_;
  std::set<std::string, std::less<>> asked_;
};

void read_sources(Fields& fields) {
  Context& context = fields.context();
  const Json* json = fields.get("sources");
  if (json == nullptr) return;
  if (!json->is_object()) return context.fail("sources", fmt::format("found {}; expected an object of texts", shown(*json)));
  for (const auto& [key, value] : json->items()) {
    const Json list = value.is_array() ? value : Json::array({value});
    std::string all;
    for (const Json& item : list) {
      if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
        return context.fail("sources." + key, fmt::format("found {}; expected a text or a list of texts", shown(item)));
      }
      if (!all.empty()) all += "; ";
      all += item.get_ref<const std::string&>();
    }
    if (all.empty()) return context.fail("sources." + key, "is empty; expected a text or a list of texts");
    context.sources.emplace(key, std::move(all));
  }
}

std::vector<Fact> read_facts(Fields& fields) {
  std::vector<Fact> facts;
  const Json* json = fields.get("facts");
  if (json == nullptr) return facts;
  if (!json->is_object()) {
    fields.fail("facts", fmt::format("found {}; expected an object of values", shown(*json)));
    return facts;
  }
  for (const auto& [key, value] : json->items()) {
    Fact fact;
    fact.name = key;
    const std::string at = fmt::format("{}.{}", fields.path("facts"), key);
    fact.value = fields.value_of(value, at, fact.provenance);
    if (fields.context().error) return {};
    double number = 0;
    const auto [end, error] = std::from_chars(fact.value.data(), fact.value.data() + fact.value.size(), number);
    if (error == std::errc{} && end == fact.value.data() + fact.value.size()) {
      fields.context().fail(at, fmt::format("'{}' has no unit; expected a number with its unit, or words", fact.value));
    }
    facts.push_back(std::move(fact));
  }
  return facts;
}

std::vector<Price> read_prices(Fields& fields) {
  std::vector<Price> prices;
  const Json* json = fields.get("prices");
  if (json == nullptr) return prices;
  if (!json->is_array()) {
    fields.fail("prices", fmt::format("found {}; expected a list", shown(*json)));
    return prices;
  }
  for (std::size_t i = 0; i < json->size() && !fields.context().error; ++i) {
    const Json& item = (*json)[i];
    const std::string at = fmt::format("{}[{}]", fields.path("prices"), i);
    Price price;
    const std::string low = fields.value_of(item, at, price.provenance, {"kind", "date", "high"});
    if (fields.context().error) break;
    Fields entry(fields.context(), item, at);
    price.kind = entry.text("kind", true);
    price.date = entry.text("date");
    std::string high = entry.text("high");
    if (high.empty()) high = low;
    const Result<DollarsPerSecond> rate = parse_price_rate(low);
    if (rate) {
      const Result<DollarsPerSecond> rate_high = parse_price_rate(high);
      if (!rate_high) entry.fail("high", rate_high.error().message);
      price.rate_low = *rate;
      if (rate_high) price.rate_high = *rate_high;
      if (price.rate_high < price.rate_low) entry.fail("high", fmt::format("'{}' is below the value '{}'", high, low));
    } else {
      const Result<Dollars> amount = parse_dollars(low);
      const Result<Dollars> amount_high = parse_dollars(high);
      if (!amount) {
        entry.fail("value", fmt::format("found '{}'; expected a price such as '2.45 USD/h' or '199000 USD'", low));
      } else if (!amount_high) {
        entry.fail("high", amount_high.error().message);
      } else {
        price.purchase_low = *amount;
        price.purchase_high = *amount_high;
        if (*amount_high < *amount) entry.fail("high", fmt::format("'{}' is below the value '{}'", high, low));
      }
    }
    prices.push_back(std::move(price));
  }
  return prices;
}

void read_ladder(Fields& fields, Chip& chip) {
  const Json* json = fields.get("memory");
  if (json == nullptr || !json->is_array() || json->empty() || json->size() > 16) {
    fields.fail("memory", json == nullptr
                              ? "is missing; expected a list of levels, nearest to the arithmetic first, main memory last"
                              : fmt::format("found {}; expected a list of 1 to 16 levels", shown(*json)));
    return;
  }
  chip.ladder.resize(json->size());
  for (std::size_t i = 0; i < json->size() && !fields.context().error; ++i) {
    Fields level(fields.context(), (*json)[i], fmt::format("memory[{}]", i));
    MemoryLevel& out = chip.ladder[i];
    out.name = level.text("name", true);
    if (fields.context().error) return;
    const bool main = i + 1 == json->size();
    const std::string key = level_key(chip, i);
    for (std::size_t j = 0; j < i; ++j) {
      if (level_key(chip, j) == key)
        level.fail("name", fmt::format("'{}' is the name of another level; expected a new one", out.name));
    }
    if (!main && key == "dram") level.fail("name", "'dram' means main memory; expected another name");
    const auto at = [&key](std::string_view property) { return fmt::format("{}.{}", key, property); };
    out.capacity = level.quantity("capacity", parse_bytes, chip.provenance, at("capacity"), !main);
    out.bandwidth = level.quantity("bandwidth", parse_bandwidth, chip.provenance, at("bandwidth"));
    out.write_bandwidth = level.quantity("write_bandwidth", parse_bandwidth, chip.provenance, at("write_bandwidth"));
    out.latency = level.quantity("latency", parse_seconds, chip.provenance, at("latency"));
    out.instances = level.integer("instances", 1, 10'000'000, 1);
    out.managed = level.flag("managed");
    level.done();
  }
}

void read_arithmetic(Fields& fields, Chip& chip) {
  const Json* json = fields.get("arithmetic");
  if (json == nullptr) return;
  Fields types(fields.context(), *json, "arithmetic");
  for (int i = 0; i < kArithmeticCount; ++i) {
    const std::string_view type = rooftree::name(static_cast<Arithmetic>(i));
    const Json* rates = types.get(type);
    if (rates == nullptr) continue;
    Fields rate(fields.context(), *rates, fmt::format("arithmetic.{}", type));
    const auto at = [&type](std::string_view property) { return fmt::format("{}.{}", type, property); };
    ArithmeticRate& out = chip.arithmetic[static_cast<std::size_t>(i)];
    out.matrix = rate.quantity("matrix", parse_flop_rate, chip.provenance, at("matrix"));
    out.vector = rate.quantity("vector", parse_flop_rate, chip.provenance, at("vector"));
    const double sparse = rate.quantity("sparse_2to4", parse_ratio, chip.provenance, at("sparse_2to4"));
    if (sparse > 0) out.sparse_2to4 = sparse;
    if (sparse > 0 && sparse < 1) rate.fail("sparse_2to4", "is below 1 x; expected the gain of 2:4 sparsity");
    rate.done();
  }
  types.done();
}

void read_links(Fields& fields, Chip& chip) {
  const Json* json = fields.get("links");
  if (json == nullptr) return;
  Fields links(fields.context(), *json, "links");
  std::string noun;
  if (const Json* scaleup = links.get("scaleup")) {
    Fields link(fields.context(), *scaleup, "links.scaleup");
    chip.scaleup_link = link.text("name", true);
    chip.scaleup_per_direction = link.quantity("per_direction", parse_bandwidth, chip.provenance, "scaleup.bandwidth");
    chip.scaleup_peer_per_direction =
        link.quantity("peer_per_direction", parse_bandwidth, chip.provenance, "scaleup.peer_bandwidth");
    chip.scaleup_topology = link.choice("topology", kTopologies, Topology::kNone);
    chip.scaleup_dimensions = link.integers("dimensions", 1, 1'000'000);
    chip.scaleup_domain = link.counted("domain", chip.provenance, "scaleup.domain", noun, 0);
    link.done();
  }
  if (const Json* host = links.get("host")) {
    Fields link(fields.context(), *host, "links.host");
    chip.host_link = link.text("name", true);
    chip.host_link_per_direction = link.quantity("per_direction", parse_bandwidth, chip.provenance, "host_link.bandwidth");
    link.done();
  }
  if (const Json* scaleout = links.get("scaleout")) {
    Fields link(fields.context(), *scaleout, "links.scaleout");
    chip.scaleout_per_direction = link.quantity("per_direction", parse_bandwidth, chip.provenance, "scaleout.bandwidth", true);
    link.done();
  }
  links.done();
}

// Provenance paths carry `prefix` ("" for the chip's own host, "node." for a group's).
Host read_host(Fields& fields, ProvenanceMap& provenance, const std::string& prefix) {
  Host host;
  const Json* json = fields.get("host");
  if (json == nullptr) return host;
  Fields in(fields.context(), *json, fields.path("host"));
  host.cpu = in.text("cpu");
  host.memory_capacity = in.quantity("memory_capacity", parse_bytes, provenance, prefix + "host.memory.capacity");
  host.memory_bandwidth = in.quantity("memory_bandwidth", parse_bandwidth, provenance, prefix + "host.memory.bandwidth");
  host.disk_read = in.quantity("disk_read", parse_bandwidth, provenance, prefix + "host.disk.bandwidth");
  host.disk_capacity = in.quantity("disk_capacity", parse_bytes, provenance, prefix + "host.disk.capacity");
  in.done();
  return host;
}

FileHead read_head(Fields& fields) {
  FileHead head;
  head.id = fields.text("id", true);
  head.name = fields.text("name", true);
  head.vendor = fields.text("vendor");
  head.kind = fields.text("kind", true);
  head.status = fields.text("status");
  head.year = fields.integer("year", 1900, 2200, 0);
  head.aliases = fields.texts("aliases");
  for (const char c : head.id) {
    if (static_cast<unsigned char>(c) <= ' ') fields.fail("id", "contains a blank or control character; expected one word");
  }
  return head;
}

Result<Machine> chip_from(Context& context, const Json& json) {
  Chip chip;
  Fields fields(context, json, "");
  FileHead head = read_head(fields);
  chip.id = std::move(head.id);
  chip.name = std::move(head.name);
  chip.vendor = std::move(head.vendor);
  chip.year = head.year;
  chip.status = std::move(head.status);
  chip.aliases = std::move(head.aliases);
  chip.kind = fields.choice("kind", kKinds, ChipKind::kGpu, true);
  chip.architecture = fields.text("architecture");
  chip.family = fields.text("family");
  chip.notes = fields.text("notes");
  read_sources(fields);
  chip.cores = fields.counted("cores", chip.provenance, "cores", chip.core_kind, 1);
  chip.clock = fields.quantity("clock", parse_hertz, chip.provenance, "clock");
  read_arithmetic(fields, chip);
  read_ladder(fields, chip);
  if (const Json* power = fields.get("power")) {
    Fields in(context, *power, "power");
    chip.power_max = in.quantity("max", parse_watts, chip.provenance, "power_max");
    chip.power_idle = in.quantity("idle", parse_watts, chip.provenance, "power_idle");
    in.done();
  }
  read_links(fields, chip);
  ProvenanceMap host_provenance;
  Host host = read_host(fields, host_provenance, "");
  chip.prices = read_prices(fields);
  chip.facts = read_facts(fields);
  fields.done();
  if (context.error) return *context.error;
  return machine_of(std::move(chip), std::move(host), std::move(host_provenance));
}

Fabric read_fabric(Fields& fields, std::string_view key, const References& references, ProvenanceMap& provenance,
                   const std::string& prefix) {
  Fabric fabric;
  const Json* json = fields.get(key);
  if (json == nullptr) {
    fields.fail(key, "is missing; expected an object with name, topology and per_direction");
    return fabric;
  }
  Fields in(fields.context(), *json, fields.path(key));
  const std::string link = in.text("link");
  if (!link.empty() && references.fabric) {
    const Result<FabricEntry> entry = references.fabric(link);
    if (!entry) {
      in.fail("link", entry.error().message);
      return fabric;
    }
    fabric.name = entry->name;
  }
  if (std::string own = in.text("name", link.empty()); !own.empty()) fabric.name = std::move(own);
  fabric.topology = in.choice("topology", kTopologies, Topology::kNone, true);
  fabric.dimensions = in.integers("dimensions", 1, 1'000'000);
  fabric.per_direction = in.quantity("per_direction", parse_bandwidth, provenance, prefix + ".bandwidth");
  fabric.bisection = in.quantity("bisection", parse_bandwidth, provenance, prefix + ".bisection");
  fabric.latency = in.quantity("latency", parse_seconds, provenance, prefix + ".latency");
  fabric.in_network_reduction = in.flag("in_network_reduction");
  const double oversubscription = in.quantity("oversubscription", parse_ratio, provenance, prefix + ".oversubscription");
  if (oversubscription > 0) fabric.oversubscription = oversubscription;
  if (oversubscription > 0 && oversubscription < 1) in.fail("oversubscription", "is below 1 x; expected at least 1 x");
  in.done();
  if (const auto it = provenance.find(prefix + ".bandwidth"); it != provenance.end()) fabric.provenance = it->second;
  return fabric;
}

Result<Machine> system_from(Context& context, const Json& json, const References& references, int depth) {
  if (depth > 16) return Error{ErrorCode::kInvalid, fmt::format("{}: nested deeper than 16 machines", context.where)};
  Fields fields(context, json, "");
  FileHead head = read_head(fields);
  read_sources(fields);
  const Json* member = fields.get("member");
  if (member == nullptr) fields.fail("member", "is missing; expected the id of a chip or system, or a chip");
  if (context.error) return *context.error;
  Machine machine;
  if (member->is_string()) {
    if (!references.machine) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("{}: member: names '{}'; expected a chip here", context.where, shown(*member))};
    }
    Result<Machine> found = references.machine(member->get_ref<const std::string&>());
    if (!found) return found.error().within(fmt::format("{}: member", context.where));
    machine = std::move(found).value();
  } else if (member->is_object()) {
    Context inner{context.where + ": member", {}, {}};
    const auto kind = member->find("kind");
    const bool system = kind != member->end() && kind->is_string() && kind->get_ref<const std::string&>() == "system";
    Result<Machine> found = system ? system_from(inner, *member, references, depth + 1) : chip_from(inner, *member);
    if (!found) return found.error();
    machine = std::move(found).value();
  } else {
    fields.fail("member", fmt::format("found {}; expected the id of a chip or system, or a chip", shown(*member)));
  }
  machine.id = std::move(head.id);
  machine.name = std::move(head.name);
  machine.vendor = std::move(head.vendor);
  machine.status = std::move(head.status);
  machine.year = head.year;
  machine.aliases = std::move(head.aliases);
  machine.notes = fields.text("notes");
  machine.scaleout.reset();

  const Json* groups = fields.get("groups");
  if (groups == nullptr || !groups->is_array() || groups->empty() || groups->size() > 16) {
    fields.fail("groups", groups == nullptr ? "is missing; expected a list of groups, innermost first"
                                            : fmt::format("found {}; expected a list of 1 to 16 groups", shown(*groups)));
  }
  bool has_host = false;
  for (std::size_t i = 0; groups != nullptr && i < groups->size() && !context.error; ++i) {
    Fields in(context, (*groups)[i], fmt::format("groups[{}]", i));
    Group group;
    group.name = in.text("name", true);
    if (context.error) break;
    const auto inner = std::as_const(machine).groups();
    if (group.name == "chip" || group.name == "host" ||
        std::any_of(inner.begin(), inner.end(), [&group](const Group* g) { return g->name == group.name; })) {
      in.fail("name", fmt::format("'{}' is taken; expected a name of its own for each group", group.name));
      break;
    }
    std::string noun;
    group.count = in.counted("count", machine.provenance, group.name + ".count", noun, 1);
    if (group.count > 1 || in.get("fabric") != nullptr) {
      group.fabric = read_fabric(in, "fabric", references, machine.provenance, group.name + ".fabric");
    }
    group.host = read_host(in, machine.provenance, group.name + ".");
    has_host = has_host || group.host.memory_capacity > Bytes{};
    group.power_max = in.quantity("power_max", parse_watts, machine.provenance, group.name + ".power_max");
    group.prices = read_prices(in);
    in.done();
    double product = group.count;
    for (const int d : group.fabric.dimensions) product /= d;
    if (!group.fabric.dimensions.empty() && product != 1.0) {
      in.fail("fabric.dimensions", fmt::format("their product is not the count {}", group.count));
    }
    group.member = std::make_unique<Group>(std::move(machine.root));
    machine.root = std::move(group);
  }
  if (!context.error && fields.get("scaleout") != nullptr) {
    machine.scaleout = read_fabric(fields, "scaleout", references, machine.provenance, "scaleout");
  }
  machine.facts = read_facts(fields);
  fields.done();
  if (context.error) return *context.error;
  // What a bare chip assumes about its host does not stand beside what the node has.
  if (has_host) {
    for (const char* key : {"host.memory.capacity", "host.memory.bandwidth", "host.disk.bandwidth"}) {
      const auto it = machine.provenance.find(key);
      if (it == machine.provenance.end() || it->second.certainty != Certainty::kAssumed) continue;
      Group* leaf = &machine.root;
      while (leaf->member) leaf = leaf->member.get();
      const std::string_view path = key;
      if (path == "host.memory.capacity") leaf->host.memory_capacity = Bytes{};
      if (path == "host.memory.bandwidth") leaf->host.memory_bandwidth = BytesPerSecond{};
      if (path == "host.disk.bandwidth") leaf->host.disk_read = BytesPerSecond{};
      machine.provenance.erase(it);
    }
  }
  return machine;
}

}  // namespace

const Fact* ConventionEntry::find(std::string_view fact) const {
  const auto it = std::find_if(facts.begin(), facts.end(), [fact](const Fact& f) { return f.name == fact; });
  return it == facts.end() ? nullptr : &*it;
}

Result<Machine> parse_machine(std::string_view json_text, std::string_view where, const References& references) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{4} << 20, .max_depth = 64}));
  if (!json.is_object()) return Error{ErrorCode::kInvalid, fmt::format("{}: found {}; expected an object", where, shown(json))};
  Context context{std::string(where), {}, {}};
  const auto kind = json.find("kind");
  if (kind != json.end() && kind->is_string() && kind->get_ref<const std::string&>() == "system") {
    return system_from(context, json, references, 0);
  }
  return chip_from(context, json);
}

Result<Chip> parse_chip(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{4} << 20, .max_depth = 64}));
  Context context{std::string(where), {}, {}};
  ROOFTREE_TRY(Machine machine, chip_from(context, json));
  return std::move(machine.chip());
}

Result<FabricEntry> parse_fabric(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{4} << 20, .max_depth = 16}));
  Context context{std::string(where), {}, {}};
  Fields fields(context, json, "");
  FileHead head = read_head(fields);
  FabricEntry entry;
  entry.id = std::move(head.id);
  entry.name = std::move(head.name);
  entry.kind = std::move(head.kind);
  entry.year = head.year;
  read_sources(fields);
  entry.per_direction = fields.quantity("per_direction", parse_bandwidth, entry.provenance, "bandwidth");
  entry.latency = fields.quantity("latency", parse_seconds, entry.provenance, "latency");
  entry.notes = fields.text("notes");
  entry.facts = read_facts(fields);
  fields.done();
  if (context.error) return *context.error;
  return entry;
}

Result<std::vector<ConventionEntry>> parse_conventions(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{4} << 20, .max_depth = 16}));
  Context context{std::string(where), {}, {}};
  Fields fields(context, json, "");
  (void)fields.text("about");
  read_sources(fields);
  std::vector<ConventionEntry> out;
  if (const Json* entries = fields.get("entries"); entries != nullptr && entries->is_array()) {
    for (std::size_t i = 0; i < entries->size() && !context.error; ++i) {
      Fields in(context, (*entries)[i], fmt::format("entries[{}]", i));
      ConventionEntry entry;
      entry.id = in.text("id", true);
      entry.name = in.text("name");
      entry.notes = in.text("notes");
      entry.facts = read_facts(in);
      in.done();
      out.push_back(std::move(entry));
    }
  } else {
    fields.fail("entries", "is missing; expected a list");
  }
  fields.done();
  if (context.error) return *context.error;
  return out;
}

Result<FileHead> parse_head(std::string_view json_text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(json_text, where, {.max_bytes = std::size_t{4} << 20, .max_depth = 64}));
  Context context{std::string(where), {}, {}};
  Fields fields(context, json, "");
  FileHead head = read_head(fields);
  if (context.error) return *context.error;
  return head;
}

}  // namespace rooftree::machine

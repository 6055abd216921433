#pragma once

// Where machines come from: the catalogue built into the program (`--catalog DIR` or ROOFTREE_CATALOG replace it), a
// file of the user's, `this`, or a count of another machine; with overrides applied on top.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "machine/machine.h"

namespace rooftree::machine {

// One line of `rooftree machines`.
struct CatalogEntry {
  std::string id, name, vendor, kind, status;
  int year = 0;
  bool is_system = false;
  double chips = 1;
};

struct FabricEntry;
struct ConventionEntry;

class Catalog {
 public:
  // The files compiled into the program.
  static const Catalog& builtin();
  // The same layout from a folder: chips/*.json, systems/*.json, fabrics/*.json, conventions/*.json. Reads every file, so that
  // a bad one is reported now.
  static Result<Catalog> from_directory(const std::filesystem::path& directory);
  // The folder that ROOFTREE_CATALOG names, else the built-in files.
  static Result<Catalog> from_environment();

  [[nodiscard]] std::vector<CatalogEntry> entries() const;  // sorted by id; reads every chip and system
  // By id, else by alias, letter case ignored. Parses only the files that it needs (all of them to look for an alias).
  Result<Machine> find(std::string_view id) const;

  // MACHINE as written on the command line: an id or alias, "8x ID", "this" (what `rooftree probe` kept), or a path to a JSON
  // file. Unknown ids get suggestions.
  Result<Machine> resolve(std::string_view spec) const;

  [[nodiscard]] std::vector<std::string> fabric_ids() const;
  Result<FabricEntry> find_fabric(std::string_view id) const;
  // One conventions file: "cost_and_energy", "latencies", "memory_standards", "topologies", "scale_facts". See
  // machine/conventions.h for the values that formulas use.
  Result<std::vector<ConventionEntry>> conventions(std::string_view file) const;

 private:
  Result<Machine> find_at(std::string_view id, int depth) const;
  Result<Machine> resolve_at(std::string_view spec, int depth) const;
  struct File {
    std::string id, path;
    std::string owned_text;
    std::string_view builtin_text;
    [[nodiscard]] std::string_view text() const { return owned_text.empty() ? builtin_text : std::string_view(owned_text); }
  };
  [[nodiscard]] static const File* lookup(const std::vector<File>& files, std::string_view id);
  Result<Machine> parse_file(const File& file, int depth) const;
  [[nodiscard]] std::vector<std::string> suggestions(std::string_view id) const;

  std::vector<File> chips_, systems_, fabrics_, conventions_;
};

// One chip or machine description in the catalogue's format. `where` names the file in errors. A value without a unit, with the
// wrong unit or without a source is refused.
Result<Chip> parse_chip(std::string_view json_text, std::string_view where);

// A machine file of the user's; members that it names by id come from `catalog`.
Result<Machine> read_machine(const std::filesystem::path& path, const Catalog& catalog);

// Applies `path=value`, e.g. "chip.dram.bandwidth=8 TB/s", "chip.bf16.matrix=2 PFLOP/s", "chip.power_max=500 W",
// "chip.l2.capacity=128 MiB", "chip.price=2.5 USD/h", "host.memory.capacity=2 TB",
// "host.link=64 GB/s", "node.fabric.bandwidth=900 GB/s". `dram` is main memory, other ladder levels go by their lower-case
// names. Provenance becomes kUser. Unknown paths list the valid ones. `host.*` of a group is what its node has, not one chip's
// share.
Status apply_override(Machine& machine, std::string_view assignment);

// Every overridable property with its current value as text, for `machines NAME`, sensitivities and error messages.
struct Property {
  std::string path;   // "chip.dram.bandwidth"
  std::string value;  // "2.039 TB/s"
  Provenance provenance;
};
std::vector<Property> properties(const Machine& machine);

// Where `this` is kept: $XDG_DATA_HOME/rooftree/this.json (default ~/.local/share).
std::filesystem::path this_machine_path();

// A machine in the catalogue's own format (what probe writes and parse reads back).
std::string to_catalog_json(const Machine& machine);

}  // namespace rooftree::machine

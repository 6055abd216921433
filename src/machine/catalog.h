#pragma once

// Where machines come from: the catalogue built into the program (and `--catalog DIR` or ROOFTREE_CATALOG to replace it), a
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
};

class Catalog {
 public:
  // The files compiled into the program.
  static const Catalog& builtin();
  // The same layout from a folder: chips/*.json, systems/*.json, fabrics/*.json.
  static Result<Catalog> from_directory(const std::filesystem::path& directory);

  [[nodiscard]] std::vector<CatalogEntry> entries() const;  // sorted by id; reads every file
  Result<Machine> find(std::string_view id) const;          // parses only the files that it needs

  // MACHINE as written on the command line: an id, "8x ID", "this", or a path to a JSON file. Unknown ids get suggestions.
  Result<Machine> resolve(std::string_view spec) const;

 private:
  struct File {
    std::string id, path;
    std::string owned_text;
    std::string_view builtin_text;
    [[nodiscard]] std::string_view text() const { return owned_text.empty() ? builtin_text : std::string_view(owned_text); }
  };
  std::vector<File> chips_, systems_, fabrics_;
};

// One chip or machine description in the catalogue's format. `where` names the file in errors. A value without a unit, with the
// wrong unit or without a source is refused.
Result<Chip> parse_chip(std::string_view json_text, std::string_view where);

// Applies `path=value`, e.g. "chip.dram.bandwidth=8 TB/s", "chip.bf16.matrix=2 PFLOP/s", "chip.power_max=500 W",
// "chip.l2.capacity=128 MiB", "host.memory.capacity=2 TB". Provenance becomes kUser. Unknown paths list the valid ones.
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

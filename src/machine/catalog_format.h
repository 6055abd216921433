#pragma once

// The catalogue's file format, read and written. A value is an object
//   {"value": "2039 GB/s", "source": "datasheet", "certainty": "read", "note": "...", "doubtful": true}
// whose source names one or several entries of the file's "sources". A value without a unit, with the wrong unit, without a
// source or without a certainty is refused, and so are keys that the format does not have.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unit_text.h"
#include "machine/machine.h"

namespace rooftree::machine {

// A link or network technology, for reference and for the systems that name it.
struct FabricEntry {
  std::string id, name, kind;  // kind: "link", "nic", "switch", "network"
  int year = 0;
  BytesPerSecond per_direction;  // one port or one chip's links, one direction; zero = not given
  Seconds latency;
  std::string notes;
  ProvenanceMap provenance;
  std::vector<Fact> facts;
};

// One entry of a conventions file: facts about something that is not a machine (a memory standard, a latency, a price of
// power).
struct ConventionEntry {
  std::string id, name, notes;
  std::vector<Fact> facts;
  [[nodiscard]] const Fact* find(std::string_view fact) const;
};

// What a machine file refers to. Errors are those of the file that is referred to.
struct References {
  std::function<Result<Machine>(std::string_view id)> machine;
  std::function<Result<FabricEntry>(std::string_view id)> fabric;
};

Result<Machine> parse_machine(std::string_view json_text, std::string_view where, const References& references);
Result<FabricEntry> parse_fabric(std::string_view json_text, std::string_view where);
Result<std::vector<ConventionEntry>> parse_conventions(std::string_view json_text, std::string_view where);

// The aliases of a machine file alone, and the head for listings.
struct FileHead {
  std::string id, name, vendor, kind, status;
  int year = 0;
  std::vector<std::string> aliases;
};
Result<FileHead> parse_head(std::string_view json_text, std::string_view where);

}  // namespace rooftree::machine

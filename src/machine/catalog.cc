#include "machine/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <utility>

#include "base/embedded.h"
#include "base/json.h"
#include "machine/catalog_format.h"

namespace rooftree::machine {
namespace {

constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxFile = std::size_t{4} << 20;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Levenshtein distance, on texts that were cut to a bounded length.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row.back();
}

// A search in the text of the list, which spares parsing the files that cannot have the alias.
bool may_have_alias(std::string_view text, std::string_view alias) {
  const auto at = text.find("\"aliases\"");
  if (at == std::string_view::npos) return false;
  const std::string_view list = text.substr(at, text.find(']', at) - at);
  if (list.find('\\') != std::string_view::npos || alias.find_first_of("]\"\\") != std::string_view::npos) return true;
  const auto same = [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  };
  return std::search(list.begin(), list.end(), alias.begin(), alias.end(), same) != list.end();
}

// "8x ID", "8 x ID", "2048x ID": the count and the rest; {0, spec} if there is no count. Negative = the count is out of range.
std::pair<int, std::string_view> split_count(std::string_view spec) {
  int count = 0;
  const auto [end, error] = std::from_chars(spec.data(), spec.data() + spec.size(), count);
  std::string_view rest(end, static_cast<std::size_t>(spec.data() + spec.size() - end));
  if (error == std::errc::invalid_argument || count < 0) return {0, spec};
  const bool blank_before = rest.starts_with(' ');
  rest = trim(rest);
  if (!rest.starts_with('x') && !rest.starts_with('X')) return {0, spec};
  rest.remove_prefix(1);
  // "8x ID", "8 x ID" and "8xID" are counts; an id that begins with a digit and an x would need a blank.
  if (!rest.starts_with(' ') && blank_before) return {0, spec};
  rest = trim(rest);
  if (rest.empty()) return {0, spec};
  if (error == std::errc::result_out_of_range || count < 1 || count > 100'000'000) return {-1, rest};
  return {count, rest};
}

}  // namespace

const Catalog::File* Catalog::lookup(const std::vector<File>& files, std::string_view id) {
  const auto it =
      std::lower_bound(files.begin(), files.end(), id, [](const File& f, std::string_view key) { return f.id < key; });
  return it != files.end() && it->id == id ? &*it : nullptr;
}

const Catalog& Catalog::builtin() {
  static const Catalog catalog = [] {
    Catalog out;
    for (const EmbeddedFile& embedded : embedded_machines()) {
      const std::string_view path = embedded.name();
      const auto slash = path.find('/');
      const std::string_view folder = path.substr(0, slash);
      const std::string_view file_name = path.substr(slash + 1);
      File file{std::string(file_name.substr(0, file_name.rfind('.'))), "catalog/" + std::string(path), {}, embedded.text()};
      std::vector<File>& to = folder == "chips"     ? out.chips_
                              : folder == "systems" ? out.systems_
                              : folder == "fabrics" ? out.fabrics_
                                                    : out.conventions_;
      to.push_back(std::move(file));
    }
    for (auto* files : {&out.chips_, &out.systems_, &out.fabrics_, &out.conventions_}) {
      std::sort(files->begin(), files->end(), [](const File& a, const File& b) { return a.id < b.id; });
    }
    return out;
  }();
  return catalog;
}

Result<Catalog> Catalog::from_directory(const std::filesystem::path& directory) {
  Catalog out;
  std::error_code ec;
  if (!std::filesystem::is_directory(directory, ec)) {
    return Error{
        ErrorCode::kEnvironment,
        fmt::format("{}: is not a folder; expected a catalogue with chips/, systems/ and fabrics/", directory.string())};
  }
  const auto load = [&](const char* folder, std::vector<File>& files) -> Status {
    std::error_code missing;
    for (const auto& entry : std::filesystem::directory_iterator(directory / folder, missing)) {
      if (entry.path().extension() != ".json") continue;
      ROOFTREE_TRY(std::string text, read_file(entry.path(), kMaxFile));
      files.push_back({entry.path().stem().string(), entry.path().string(), std::move(text), {}});
    }
    std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.id < b.id; });
    return Ok{};
  };
  ROOFTREE_TRY_VOID(load("chips", out.chips_));
  ROOFTREE_TRY_VOID(load("systems", out.systems_));
  ROOFTREE_TRY_VOID(load("fabrics", out.fabrics_));
  ROOFTREE_TRY_VOID(load("conventions", out.conventions_));
  if (out.chips_.empty()) {
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: has no chips/*.json; expected at least one chip", directory.string())};
  }
  std::map<std::string, std::string> owner;
  const auto claim = [&owner](const std::string& given, const std::string& path) -> Status {
    const auto [it, fresh] = owner.emplace(lower(given), path);
    if (fresh) return Ok{};
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: the name '{}' also belongs to {}; expected names of its own", path, given, it->second)};
  };
  for (const auto* files : {&out.chips_, &out.systems_}) {
    for (const File& file : *files) {
      ROOFTREE_TRY(const FileHead head, parse_head(file.text(), file.path));
      ROOFTREE_TRY_VOID(claim(head.id, file.path));
      for (const std::string& alias : head.aliases) ROOFTREE_TRY_VOID(claim(alias, file.path));
    }
  }
  for (const auto* files : {&out.chips_, &out.systems_}) {
    for (const File& file : *files) {
      if (const Result<Machine> machine = out.parse_file(file, 0); !machine) return machine.error();
    }
  }
  for (const File& file : out.fabrics_) {
    if (const Result<FabricEntry> fabric = out.find_fabric(file.id); !fabric) return fabric.error();
  }
  for (const File& file : out.conventions_) {
    if (const Result<std::vector<ConventionEntry>> entries = out.conventions(file.id); !entries) return entries.error();
  }
  return out;
}

Result<Catalog> Catalog::from_environment() {
  const char* directory = std::getenv("ROOFTREE_CATALOG");
  if (directory == nullptr || *directory == '\0') return Catalog(builtin());
  return from_directory(directory);
}

Result<Machine> Catalog::parse_file(const File& file, int depth) const {
  const References references{[this, depth](std::string_view id) { return find_at(id, depth + 1); },
                              [this](std::string_view id) { return find_fabric(id); }};
  ROOFTREE_TRY(Machine machine, parse_machine(file.text(), file.path, references));
  if (machine.id != file.id) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: id: found '{}'; expected the file's name, '{}'", file.path, machine.id, file.id)};
  }
  return machine;
}

Result<Machine> Catalog::find_at(std::string_view id, int depth) const {
  if (depth > kMaxDepth) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("'{}': systems that are members of each other; expected an end within {}", id, kMaxDepth)};
  }
  if (const File* file = lookup(chips_, id)) return parse_file(*file, depth);
  if (const File* file = lookup(systems_, id)) return parse_file(*file, depth);
  for (const auto* files : {&chips_, &systems_}) {
    for (const File& file : *files) {
      if (equal_ignoring_case(file.id, id)) return parse_file(file, depth);
      if (!may_have_alias(file.text(), id)) continue;
      ROOFTREE_TRY(const FileHead head, parse_head(file.text(), file.path));
      for (const std::string& alias : head.aliases) {
        if (equal_ignoring_case(alias, id)) return parse_file(file, depth);
      }
    }
  }
  const std::vector<std::string> near = suggestions(id);
  const std::string shown(id.substr(0, 80));
  return Error{
      ErrorCode::kNotFound,
      fmt::format(
          "machine '{}' is not in the catalogue; {}`rooftree machines` lists it, and a path to a JSON file, 'this' or a "
          "count such as '8x nvidia-h100-sxm' are machines too",
          shown, near.empty() ? std::string() : fmt::format("did you mean {}? ", fmt::join(near, ", ")))};
}

Result<Machine> Catalog::find(std::string_view id) const { return find_at(id, 0); }

std::vector<std::string> Catalog::suggestions(std::string_view id) const {
  const std::string wanted = lower(id.substr(0, 60));
  std::vector<std::pair<std::size_t, std::string>> near;
  for (const auto* files : {&chips_, &systems_}) {
    for (const File& file : *files) {
      const bool contained = wanted.size() >= 2 && file.id.find(wanted) != std::string::npos;
      const std::size_t d = contained ? 1 : distance(wanted, file.id);
      // A third of the letters wrong, or the vendor left out.
      if (d <= std::max<std::size_t>(2, wanted.size() / 3)) near.emplace_back(d, file.id);
    }
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> out;
  for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 4); ++i) out.push_back(near[i].second);
  return out;
}

Result<Machine> Catalog::resolve(std::string_view spec) const { return resolve_at(spec, 0); }

Result<Machine> Catalog::resolve_at(std::string_view whole, int depth) const {
  const std::string_view spec = trim(whole);
  if (spec.empty()) {
    return Error{ErrorCode::kInvalid,
                 "an empty machine; expected an id such as 'nvidia-h100-sxm', '8x ID', 'this' or a JSON file"};
  }
  if (depth > 8) return Error{ErrorCode::kInvalid, fmt::format("'{}': expected at most 8 counts in front of a machine", spec)};
  if (lookup(chips_, spec) != nullptr || lookup(systems_, spec) != nullptr) return find(spec);
  if (const auto [count, rest] = split_count(spec); count != 0) {
    if (count < 0) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("'{}': expected a count from 1 to 100000000 before the x", spec.substr(0, 80))};
    }
    ROOFTREE_TRY(const Machine one, resolve_at(rest, depth + 1));
    return several(one, count);
  }
  if (spec == "this") {
    const std::filesystem::path path = this_machine_path();
    std::error_code ec;
    if (!std::filesystem::exists(path, ec)) {
      return Error{ErrorCode::kEnvironment,
                   fmt::format("{}: does not exist; run `rooftree probe` once to measure this machine", path.string())};
    }
    ROOFTREE_TRY(Machine machine, read_machine(path, *this));
    return machine;
  }
  if (spec.ends_with(".json") || spec.find('/') != std::string_view::npos) {
    std::error_code ec;
    const std::filesystem::path path{std::string(spec)};
    // Aliases may hold a slash, so a path that is not there may still be one.
    if (std::filesystem::exists(path, ec) || spec.ends_with(".json")) return read_machine(path, *this);
  }
  return find(spec);
}

Result<Machine> read_machine(const std::filesystem::path& path, const Catalog& catalog) {
  ROOFTREE_TRY(const std::string text, read_file(path, kMaxFile));
  const References references{[&catalog](std::string_view id) { return catalog.find(id); },
                              [&catalog](std::string_view id) { return catalog.find_fabric(id); }};
  return parse_machine(text, path.string(), references);
}

std::vector<CatalogEntry> Catalog::entries() const {
  std::vector<CatalogEntry> out;
  for (const auto* files : {&chips_, &systems_}) {
    for (const File& file : *files) {
      const Result<Machine> machine = parse_file(file, 0);
      // from_directory has read every file, and a test reads the built-in ones.
      ROOFTREE_CHECK(machine.has_value(), "a file of a loaded catalogue parses");
      CatalogEntry entry;
      entry.id = machine->id;
      entry.name = machine->name;
      entry.vendor = machine->vendor;
      entry.kind = name(machine->chip().kind);
      entry.status = machine->status;
      entry.year = machine->year;
      entry.is_system = files == &systems_;
      entry.chips = machine->chip_count();
      out.push_back(std::move(entry));
    }
  }
  std::sort(out.begin(), out.end(), [](const CatalogEntry& a, const CatalogEntry& b) { return a.id < b.id; });
  return out;
}

std::vector<std::string> Catalog::fabric_ids() const {
  std::vector<std::string> out;
  for (const File& file : fabrics_) out.push_back(file.id);
  return out;
}

Result<FabricEntry> Catalog::find_fabric(std::string_view id) const {
  const File* file = lookup(fabrics_, id);
  if (file == nullptr) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("fabric '{}' is not in the catalogue; expected one of {}", id, fmt::join(fabric_ids(), ", "))};
  }
  ROOFTREE_TRY(FabricEntry entry, parse_fabric(file->text(), file->path));
  if (entry.id != file->id) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: id: found '{}'; expected the file's name, '{}'", file->path, entry.id, file->id)};
  }
  return entry;
}

Result<std::vector<ConventionEntry>> Catalog::conventions(std::string_view name_of_file) const {
  const File* file = lookup(conventions_, name_of_file);
  if (file == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("conventions/{}.json is not in the catalogue", name_of_file)};
  }
  return parse_conventions(file->text(), file->path);
}

std::filesystem::path this_machine_path() {
  const char* data = std::getenv("XDG_DATA_HOME");
  if (data != nullptr && *data != '\0') return std::filesystem::path(data) / "rooftree" / "this.json";
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr && *home != '\0' ? home : ".") / ".local" / "share" / "rooftree" / "this.json";
}

}  // namespace rooftree::machine

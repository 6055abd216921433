#include "machine/catalog.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/test_folder.h"
#include "base/unit_text.h"
#include "machine/catalog_format.h"
#include "machine/test_machines.h"

namespace rooftree::machine {
namespace {

using test::found;
using test::kGiB;

TEST(Catalog, EveryFileLoads) {
  const Result<Catalog> folder = Catalog::from_directory(std::filesystem::path(ROOFTREE_SOURCE_DIR) / "catalog");
  ASSERT_TRUE(folder.has_value()) << folder.error().message;
  EXPECT_EQ(folder->entries().size(), Catalog::builtin().entries().size());
  EXPECT_GE(folder->entries().size(), 72U);
}

TEST(Catalog, NamesAreUniqueAndFound) {
  std::map<std::string, std::string> owner;
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    const Machine machine = found(entry.id);
    const std::vector<std::string>& aliases = entry.is_system ? machine.aliases : machine.chip().aliases;
    for (std::string alias : aliases) {
      EXPECT_EQ(found(alias).id, entry.id) << alias;
      for (char& c : alias) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      EXPECT_TRUE(owner.emplace(alias, entry.id).second) << alias << " belongs to " << owner[alias] << " and " << entry.id;
    }
  }
  EXPECT_EQ(found("nvidia a100-sxm4-80gb").id, "nvidia-a100-sxm-80");
  EXPECT_EQ(found("AMD_Instinct_MI100").id, "amd-mi100");
}

TEST(Catalog, OnlyAnnouncedChipsAreIncomplete) {
  std::string incomplete;
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    if (!entry.is_system && !check_complete(found(entry.id).chip())) incomplete += entry.id + " ";
  }
  EXPECT_EQ(incomplete, "nvidia-feynman nvidia-rubin-ultra sapeon-x330 ");
}

TEST(Catalog, RidgeOfTheA100) {
  const Chip chip = found("nvidia-a100-sxm-80").chip();
  EXPECT_NEAR(ridge(chip, Arithmetic::kBf16).value(), 153.0, 0.1);
  EXPECT_NEAR(ridge(chip, Arithmetic::kTf32).value(), 76.5, 0.1);
  EXPECT_NEAR(ridge(chip, Arithmetic::kFp32).value(), 9.6, 0.05);
  EXPECT_EQ(chip.main_memory().capacity.value(), 80 * kGiB);
  EXPECT_NEAR(ridge(found("nvidia-a100-sxm-40").chip(), Arithmetic::kBf16).value(), 201, 0.5);
}

// A file that is right; the tests break it in one place each.
const char* const kGood = R"({
  "id": "made-up", "name": "Made up", "kind": "gpu",
  "sources": {"sheet": "a datasheet"},
  "cores": {"value": "16 SM", "source": "sheet", "certainty": "read"},
  "arithmetic": {"bf16": {"matrix": {"value": "100 TFLOP/s", "source": "sheet", "certainty": "read"}}},
  "memory": [
    {"name": "L2", "capacity": {"value": "32 MiB", "source": "sheet", "certainty": "derived"}},
    {"name": "HBM", "capacity": {"value": "64 GB", "source": "sheet", "certainty": "read"},
     "bandwidth": {"value": "1 TB/s", "source": "sheet", "certainty": "recalled", "note": "why", "doubtful": true}}
  ],
  "power": {"max": {"value": "300 W", "source": "sheet", "certainty": "read"}},
  "prices": [{"kind": "cloud", "date": "2026", "value": "2 USD/h", "high": "3 USD/h", "source": "sheet", "certainty": "read"}],
  "facts": {"node": {"value": "5 nm", "source": "sheet", "certainty": "read"}}
})";

std::string replaced(std::string_view from, std::string_view to) {
  std::string text = kGood;
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  const Result<Chip> chip = parse_chip(text, "x.json");
  return chip ? "accepted" : chip.error().message;
}

TEST(CatalogFormat, ReadsEveryPart) {
  const Result<Chip> chip = parse_chip(kGood, "x.json");
  ASSERT_TRUE(chip.has_value()) << chip.error().message;
  EXPECT_EQ(chip->cores, 16);
  EXPECT_EQ(chip->core_kind, "SM");
  EXPECT_EQ(chip->rate(Arithmetic::kBf16).matrix.value(), 100e12);
  ASSERT_EQ(chip->ladder.size(), 2U);
  EXPECT_EQ(chip->main_memory().name, "HBM");
  EXPECT_EQ(chip->main_memory().capacity.value(), 64e9);
  const Provenance& bandwidth = chip->provenance.at("dram.bandwidth");
  EXPECT_EQ(bandwidth.certainty, Certainty::kRecalled);
  EXPECT_EQ(bandwidth.source, "a datasheet");
  EXPECT_EQ(bandwidth.note, "why");
  EXPECT_TRUE(bandwidth.doubtful);
  EXPECT_EQ(chip->provenance.at("l2.capacity").certainty, Certainty::kDerived);
  ASSERT_EQ(chip->prices.size(), 1U);
  EXPECT_DOUBLE_EQ(chip->prices[0].rate_high.value() * 3600, 3);
  EXPECT_EQ(chip->facts.at(0).value, "5 nm");
}

TEST(CatalogFormat, RefusesWithFilePathFoundAndExpected) {
  EXPECT_EQ(error_of(replaced("\"64 GB\"", "\"64\"")),
            "x.json: memory[1].capacity: '64' has no unit; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(error_of(replaced("\"64 GB\"", "\"64 GB/s\"")),
            "x.json: memory[1].capacity: '64 GB/s' has the unit 'GB/s'; expected a size such as '80 GB' or '40 MiB'");
  EXPECT_EQ(error_of(replaced("\"64 GB\"", "64")), "x.json: memory[1].capacity.value: found 64; expected a text");
  EXPECT_EQ(error_of(replaced("\"1 TB/s\"", "\"0 TB/s\"")),
            "x.json: memory[1].bandwidth: '0 TB/s' is zero; leave it out if it is unknown");
  EXPECT_EQ(
      error_of(replaced("\"100 TFLOP/s\"", "\"-100 TFLOP/s\"")),
      "x.json: arithmetic.bf16.matrix: '-100 TFLOP/s' is negative; expected a rate of arithmetic such as '312 TFLOP/s' or '624 "
      "TOP/s'");
  EXPECT_EQ(error_of(replaced("\"value\": \"300 W\", \"source\": \"sheet\"", "\"value\": \"300 W\"")),
            "x.json: power.max: has no \"source\"; expected the key of an entry of \"sources\"");
  EXPECT_EQ(error_of(replaced("\"value\": \"300 W\", \"source\": \"sheet\"", "\"value\": \"300 W\", \"source\": \"rumour\"")),
            "x.json: power.max: names the source \"rumour\"; expected one of \"sources\": sheet");
  EXPECT_EQ(error_of(replaced("\"value\": \"300 W\", \"source\": \"sheet\"", "\"value\": \"300 W\", \"source\": []")),
            "x.json: power.max: has no \"source\"; expected the key of an entry of \"sources\"");
  EXPECT_EQ(
      error_of(replaced("{\"value\": \"300 W\", \"source\": \"sheet\", \"certainty\": \"read\"}", "300")),
      "x.json: power.max: found 300; expected an object {\"value\": \"...\", \"source\": \"...\", \"certainty\": \"...\"}");
  EXPECT_EQ(
      error_of(replaced("\"certainty\": \"derived\"", "\"certainty\": \"sure\"")),
      "x.json: memory[0].capacity.certainty: found \"sure\"; expected one of measured, read, derived, user, recalled, assumed");
  EXPECT_EQ(error_of(replaced(", \"certainty\": \"derived\"", "")),
            "x.json: memory[0].capacity.certainty: is missing; expected a text");
  EXPECT_EQ(error_of(replaced("\"doubtful\": true", "\"doubtful\": \"yes\"")),
            "x.json: memory[1].bandwidth.doubtful: found \"yes\"; expected true or false");
  EXPECT_EQ(error_of(replaced("\"note\": \"why\"", "\"remark\": \"why\"")),
            "x.json: memory[1].bandwidth: has the key \"remark\"; expected one of certainty, doubtful, note, source, value");
  EXPECT_EQ(error_of(replaced("\"16 SM\"", "\"16\"")),
            "x.json: cores: found '16'; expected a whole number of at least 1 and what is counted, such as '108 SM'");
  EXPECT_EQ(error_of(replaced("\"16 SM\"", "\"0 SM\"")),
            "x.json: cores: found '0 SM'; expected a whole number of at least 1 and what is counted, such as '108 SM'");
  EXPECT_EQ(error_of(replaced("\"kind\": \"gpu\"", "\"kind\": \"toaster\"")),
            "x.json: kind: found \"toaster\"; expected one of gpu, cpu, tpu, dataflow, npu");
  EXPECT_EQ(error_of(replaced("\"id\": \"made-up\", ", "")), "x.json: id: is missing; expected a text");
  EXPECT_EQ(error_of(replaced("\"made-up\"", "\"made up\"")),
            "x.json: id: contains a blank or control character; expected one word");
  EXPECT_EQ(error_of(replaced("\"name\": \"L2\"", "\"name\": \"DRAM\"")),
            "x.json: memory[0].name: 'dram' means main memory; expected another name");
  EXPECT_EQ(
      error_of(
          replaced("\"name\": \"L2\", \"capacity\": {\"value\": \"32 MiB\", \"source\": \"sheet\", \"certainty\": \"derived\"}",
                   "\"name\": \"L2\"")),
      "x.json: memory[0].capacity: is missing; expected an object {\"value\": \"...\", \"source\": \"...\", \"certainty\": "
      "\"...\"}");
  EXPECT_EQ(error_of(replaced("\"memory\": [", "\"memory\": [], \"ladder\": [")),
            "x.json: memory: found []; expected a list of 1 to 16 levels");
  EXPECT_EQ(
      error_of(replaced("\"bf16\": {", "\"bf17\": {")),
      "x.json: arithmetic: has the key \"bf17\"; expected one of bf16, fp16, fp32, fp4, fp6, fp64, fp8, int4, int8, tf32");
  EXPECT_EQ(error_of(replaced("\"2 USD/h\"", "\"2 EUR/h\"")),
            "x.json: prices[0].value: found '2 EUR/h'; expected a price such as '2.45 USD/h' or '199000 USD'");
  EXPECT_EQ(error_of(replaced("\"3 USD/h\"", "\"1 USD/h\"")), "x.json: prices[0].high: '1 USD/h' is below the value '2 USD/h'");
  EXPECT_EQ(error_of(replaced("\"5 nm\"", "\"5\"")),
            "x.json: facts.node: '5' has no unit; expected a number with its unit, or words");
  EXPECT_EQ(error_of(replaced("\"a datasheet\"", "7")), "x.json: sources.sheet: found 7; expected a text or a list of texts");
  EXPECT_EQ(error_of("[]"), "x.json: found []; expected an object");
  EXPECT_NE(error_of("{").find("x.json:1:2: not JSON"), std::string::npos) << error_of("{");
}

TEST(CatalogFormat, RefusesWrongSystems) {
  const std::string good = R"({"id": "s", "name": "S", "kind": "system", "sources": {"d": "doc"}, "member": "nvidia-h100-sxm",
    "groups": [{"name": "node", "count": {"value": "8 chips", "source": "d", "certainty": "read"},
                "fabric": {"link": "nvlink-4", "topology": "torus-2d", "dimensions": [2, 4],
                           "per_direction": {"value": "450 GB/s", "source": "d", "certainty": "read"}}}]})";
  const References references{[](std::string_view id) { return Catalog::builtin().find(id); },
                              [](std::string_view id) { return Catalog::builtin().find_fabric(id); }};
  const auto error = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    const Result<Machine> machine = parse_machine(text, "s.json", references);
    return machine ? std::string("accepted") : machine.error().message;
  };
  EXPECT_EQ(error("\"S\"", "\"T\""), "accepted");
  EXPECT_EQ(error("[2, 4]", "[2, 3]"), "s.json: groups[0].fabric.dimensions: their product is not the count 8");
  EXPECT_EQ(error("[2, 4]", "[0, 4]"),
            "s.json: groups[0].fabric.dimensions: found 0; expected a whole number from 1 to 1000000");
  EXPECT_EQ(error("torus-2d", "donut"),
            "s.json: groups[0].fabric.topology: found \"donut\"; expected one of none, switch, fully-connected, ring, mesh-2d, "
            "torus-2d, torus-3d, fat-tree, dragonfly");
  EXPECT_EQ(error("\"node\"", "\"chip\""),
            "s.json: groups[0].name: 'chip' is taken; expected a name of its own for each group");
  EXPECT_NE(error("nvidia-h100-sxm", "nvidia-h1000").find("s.json: member: machine 'nvidia-h1000' is not in the catalogue"),
            std::string::npos);
  EXPECT_NE(error("nvlink-4", "nvlink-44").find("s.json: groups[0].fabric.link: fabric 'nvlink-44' is not in the catalogue"),
            std::string::npos);
  EXPECT_EQ(error("\"groups\"", "\"group\""), "s.json: groups: is missing; expected a list of groups, innermost first");
  EXPECT_EQ(error("\"member\": \"nvidia-h100-sxm\",", ""),
            "s.json: member: is missing; expected the id of a chip or system, or a chip");
}

void expect_equal(const ProvenanceMap& a, const ProvenanceMap& b, const std::string& where) {
  ASSERT_EQ(a.size(), b.size()) << where;
  for (const auto& [key, provenance] : a) {
    ASSERT_TRUE(b.contains(key)) << where << " " << key;
    const Provenance& other = b.at(key);
    EXPECT_EQ(provenance.certainty, other.certainty) << where << " " << key;
    EXPECT_EQ(provenance.source, other.source) << where << " " << key;
    EXPECT_EQ(provenance.note, other.note) << where << " " << key;
    EXPECT_EQ(provenance.doubtful, other.doubtful) << where << " " << key;
  }
}

TEST(CatalogFormat, WritesWhatItReads) {
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    const Machine before = found(entry.id);
    const std::string text = to_catalog_json(before);
    const Result<Machine> after = parse_machine(text, entry.id, {});
    ASSERT_TRUE(after.has_value()) << after.error().message << "\n" << text;
    EXPECT_EQ(to_catalog_json(*after), text) << entry.id;
    EXPECT_EQ(after->chip_count(), before.chip_count());
    EXPECT_EQ(after->groups().size(), before.groups().size());
    const Chip& a = before.chip();
    const Chip& b = after->chip();
    ASSERT_EQ(a.ladder.size(), b.ladder.size());
    for (std::size_t i = 0; i < a.ladder.size(); ++i) {
      EXPECT_EQ(a.ladder[i].capacity, b.ladder[i].capacity) << entry.id;
      EXPECT_EQ(a.ladder[i].bandwidth, b.ladder[i].bandwidth) << entry.id;
      EXPECT_EQ(a.ladder[i].write_bandwidth, b.ladder[i].write_bandwidth);
      EXPECT_EQ(a.ladder[i].instances, b.ladder[i].instances);
      EXPECT_EQ(a.ladder[i].managed, b.ladder[i].managed);
    }
    for (int i = 0; i < kArithmeticCount; ++i) {
      const auto type = static_cast<Arithmetic>(i);
      EXPECT_EQ(a.rate(type).matrix, b.rate(type).matrix) << entry.id;
      EXPECT_EQ(a.rate(type).vector, b.rate(type).vector) << entry.id;
      EXPECT_EQ(a.rate(type).sparse_2to4, b.rate(type).sparse_2to4) << entry.id;
    }
    EXPECT_EQ(a.prices.size(), b.prices.size());
    EXPECT_EQ(a.facts.size(), b.facts.size());
    expect_equal(a.provenance, b.provenance, entry.id);
    EXPECT_EQ(before.host_per_chip().memory_capacity, after->host_per_chip().memory_capacity) << entry.id;
    EXPECT_EQ(before.host_per_chip().disk_read, after->host_per_chip().disk_read) << entry.id;
  }
}

TEST(Catalog, EveryValueHasASourceAndLinksCountOneDirection) {
  for (const CatalogEntry& entry : Catalog::builtin().entries()) {
    const Machine machine = found(entry.id);
    for (const Property& property : properties(machine)) {
      EXPECT_FALSE(property.provenance.source.empty()) << entry.id << " " << property.path;
      EXPECT_FALSE(property.provenance.doubtful && property.provenance.note.empty()) << entry.id << " " << property.path;
    }
    const Chip& chip = machine.chip();
    for (std::size_t i = 1; i < chip.ladder.size(); ++i) {
      const MemoryLevel& inner = chip.ladder[i - 1];
      const MemoryLevel& outer = chip.ladder[i];
      if (inner.bandwidth > BytesPerSecond{} && outer.bandwidth > BytesPerSecond{} && inner.name != "LDS") {
        EXPECT_GE(inner.bandwidth, outer.bandwidth) << entry.id << " " << inner.name;
      }
    }
  }
  // 1.8 TB/s of NVLink 5 counts both directions.
  EXPECT_EQ(found("nvidia-b200-sxm").chip().scaleup_per_direction.value(), 900e9);
  // Values known to be doubtful stay marked.
  EXPECT_TRUE(found("google-tpu-v3").chip().provenance.at("bf16.matrix").doubtful);
  EXPECT_TRUE(found("nvidia-b300-sxm").chip().provenance.at("fp4.matrix").doubtful);
  // Blackwell Ultra lost its int8 rate; tables that print 4500 are wrong.
  EXPECT_DOUBLE_EQ(found("nvidia-b300-sxm").chip().rate(Arithmetic::kInt8).matrix.value(), 153.5e12);
  EXPECT_EQ(found("amd-mi210").chip().rate(Arithmetic::kInt8).matrix.value(), 181e12);
}

TEST(Catalog, ResolvesFilesAndThisMachine) {
  const rooftree::test::TestFolder own_folder;
  const std::filesystem::path& folder = own_folder.path();
  std::filesystem::create_directories(folder / "rooftree");
  setenv("XDG_DATA_HOME", folder.c_str(), 1);
  EXPECT_EQ(this_machine_path(), folder / "rooftree" / "this.json");
  const Result<Machine> missing = Catalog::builtin().resolve("this");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kEnvironment);
  EXPECT_NE(missing.error().message.find("run `rooftree probe`"), std::string::npos);
  std::ofstream(this_machine_path()) << kGood;
  EXPECT_EQ(found("this").id, "made-up");
  EXPECT_EQ(found((folder / "rooftree" / "this.json").string()).id, "made-up");
  EXPECT_EQ(found("2x this").chip_count(), 2);
  unsetenv("XDG_DATA_HOME");
  EXPECT_EQ(Catalog::builtin().resolve("no-such-file.json").error().code, ErrorCode::kEnvironment);
  EXPECT_EQ(Catalog::builtin().resolve("").error().code, ErrorCode::kInvalid);
  const Result<Machine> typo = Catalog::builtin().resolve("nvidia-h100-smx");
  ASSERT_FALSE(typo);
  EXPECT_EQ(typo.error().code, ErrorCode::kNotFound);
  EXPECT_NE(typo.error().message.find("did you mean nvidia-h100-sxm"), std::string::npos) << typo.error().message;
}

TEST(Override, SetsValuesWithUserProvenance) {
  Machine machine = found("dgx-h100");
  for (const char* set : {"chip.dram.bandwidth=8 TB/s", " chip.l2.capacity = 128 MiB ", "chip.bf16.matrix=2 PFLOP/s",
                          "chip.power_max=500 W", "chip.price=2.5 USD/h", "chip.cores=64", "host.memory.capacity=4 TB",
                          "host.link=64 GB/s", "node.fabric.bandwidth=900 GB/s", "chip.fp8.sparse_2to4=1.5 x"}) {
    const Status status = apply_override(machine, set);
    EXPECT_TRUE(status.has_value()) << (status ? "" : status.error().message);
  }
  const Chip& chip = machine.chip();
  EXPECT_EQ(chip.main_memory().bandwidth.value(), 8e12);
  EXPECT_EQ(chip.ladder[1].capacity.value(), 128.0 * 1024 * 1024);
  EXPECT_EQ(chip.rate(Arithmetic::kBf16).matrix.value(), 2e15);
  EXPECT_EQ(chip.cores, 64);
  EXPECT_EQ(chip.provenance.at("dram.bandwidth").certainty, Certainty::kUser);
  EXPECT_DOUBLE_EQ(machine.host_per_chip().memory_capacity.value(), 4e12 / 8);
  EXPECT_EQ(chip.host_link_per_direction.value(), 64e9);
  EXPECT_EQ(machine.root.fabric.per_direction.value(), 900e9);
  int rentals = 0;
  for (const Price& price : chip.prices) rentals += price.rate_high > DollarsPerSecond{} ? 1 : 0;
  EXPECT_EQ(rentals, 1);
  // Main memory also goes by its technology.
  EXPECT_TRUE(apply_override(machine, "chip.hbm3.capacity=96 GiB").has_value());
  EXPECT_EQ(chip.main_memory().capacity.value(), 96 * kGiB);
}

TEST(Override, RefusesAndLeavesTheMachineAsItWas) {
  Machine machine = found("nvidia-a100-sxm-80");
  const std::string before = to_catalog_json(machine);
  const auto error = [&](const char* set) {
    const Status status = apply_override(machine, set);
    return status ? std::string("accepted") : status.error().message;
  };
  EXPECT_EQ(
      error("chip.dram.bandwidth=8"),
      "--set chip.dram.bandwidth: '8' has no unit; expected a bandwidth such as '2039 GB/s', '8 TB/s' or '400 Gb/s' (bits)");
  EXPECT_EQ(error("chip.dram.bandwidth=8 TFLOP/s"),
            "--set chip.dram.bandwidth: '8 TFLOP/s' has the unit 'TFLOP/s'; expected a bandwidth such as '2039 GB/s', '8 TB/s' "
            "or '400 "
            "Gb/s' (bits)");
  EXPECT_EQ(error("chip.dram.bandwidth=0 TB/s"), "--set chip.dram.bandwidth: '0 TB/s' is zero; expected a value above zero");
  EXPECT_EQ(error("chip.dram.bandwidth"),
            "--set 'chip.dram.bandwidth': expected PATH=VALUE such as 'chip.dram.bandwidth=8 TB/s'");
  EXPECT_EQ(error("=8 TB/s"), "--set '=8 TB/s': expected PATH=VALUE such as 'chip.dram.bandwidth=8 TB/s'");
  EXPECT_EQ(error("chip.cores=1.5"), "--set chip.cores: '1.5'; expected a whole number from 1 to 100000000");
  EXPECT_EQ(error("chip.cores=-4"), "--set chip.cores: '-4' is negative; expected a count such as '4096', '128k' or '16M'");
  EXPECT_EQ(error("chip.bf16.sparse_2to4=0.5 x"), "--set chip.bf16.sparse_2to4: '0.5 x'; expected a gain of at least 1 x");
  const std::string unknown = error("chip.l3.capacity=1 GiB");
  EXPECT_TRUE(unknown.starts_with("--set 'chip.l3.capacity': nvidia-a100-sxm-80 has no such property; expected one of chip"))
      << unknown;
  EXPECT_NE(unknown.find("chip.l2.capacity"), std::string::npos);
  EXPECT_NE(unknown.find("chip.TYPE.matrix"), std::string::npos);
  EXPECT_EQ(unknown.find("node.count"), std::string::npos);
  EXPECT_EQ(to_catalog_json(machine), before);
}

}  // namespace
}  // namespace rooftree::machine

// Lists of machines and single machines as text and JSON: order, filters, unknown values, sources, widths.

#include <gtest/gtest.h>

#include <sstream>

#include "base/json.h"
#include "machine/catalog.h"
#include "report/hand_made.h"
#include "report/machine_json.h"
#include "report/machine_list.h"
#include "report/machine_text.h"
#include "report/standards.h"

namespace rooftree::report {
namespace {

using machine::Catalog;
using machine::Machine;

std::vector<std::string> ids(const std::vector<MachineLine>& lines) {
  std::vector<std::string> out;
  for (const MachineLine& line : lines) out.push_back(line.machine.id);
  return out;
}

Machine eight(Watts power) {
  Result<Machine> many = machine::several(machine::machine_of(hand_made_machine().chip()), 8);
  EXPECT_TRUE(many.has_value());
  many->root.power_max = power;
  return *std::move(many);
}

TEST(MachineLine, SumsTheChipsAndKeepsTheRidge) {
  const MachineLine line = machine_line(eight(Watts{}));
  EXPECT_TRUE(line.is_system);
  EXPECT_EQ(line.chips, 8);
  EXPECT_DOUBLE_EQ(line.rate.value(), 800e12);
  EXPECT_DOUBLE_EQ(line.bandwidth.value(), 8e12);
  EXPECT_DOUBLE_EQ(line.ridge.value(), 100);
  EXPECT_DOUBLE_EQ(line.power.value(), 3200) << "without a figure of its own a system draws what its chips draw";
  EXPECT_DOUBLE_EQ(machine_line(eight(Watts{5000})).power.value(), 5000) << "its own figure has the overheads";
}

TEST(MachineLine, ComparesInSixteenBitsElseInTheFastestType) {
  Machine machine = hand_made_machine();
  EXPECT_EQ(comparison_arithmetic(machine.chip()), Arithmetic::kBf16);
  machine.chip().arithmetic[static_cast<std::size_t>(Arithmetic::kBf16)] = {};
  EXPECT_EQ(comparison_arithmetic(machine.chip()), Arithmetic::kFp16);
  machine.chip().arithmetic[static_cast<std::size_t>(Arithmetic::kFp16)] = {};
  EXPECT_EQ(comparison_arithmetic(machine.chip()), Arithmetic::kInt8);
}

TEST(MachineList, FiltersByVendorKindMemoryAndSize) {
  const Catalog& catalog = Catalog::builtin();
  const auto all = select_machines(catalog, {});
  ASSERT_TRUE(all.has_value()) << all.error().message;
  const auto chips = select_machines(catalog, {.only_chips = true});
  const auto systems = select_machines(catalog, {.only_systems = true});
  ASSERT_TRUE(chips.has_value() && systems.has_value());
  EXPECT_EQ(chips->size() + systems->size(), all->size());
  for (const MachineLine& line : *chips) EXPECT_FALSE(line.is_system) << line.machine.id;
  for (const MachineLine& line : *systems) EXPECT_TRUE(line.is_system) << line.machine.id;

  const auto narrow = select_machines(catalog, {.vendor = "aMd", .kind = "gpu", .least_memory = Bytes{150e9}});
  ASSERT_TRUE(narrow.has_value());
  EXPECT_FALSE(narrow->empty());
  for (const MachineLine& line : *narrow) {
    EXPECT_EQ(line.machine.vendor, "AMD");
    EXPECT_EQ(line.machine.chip().kind, machine::ChipKind::kGpu);
    EXPECT_GE(line.memory.value(), 150e9);
  }
  EXPECT_TRUE(select_machines(catalog, {.vendor = "nobody at all"})->empty());
  const auto wrong = select_machines(catalog, {.kind = "toaster"});
  ASSERT_FALSE(wrong.has_value());
  EXPECT_NE(wrong.error().message.find("'toaster'; expected one of gpu, cpu"), std::string::npos);
}

TEST(MachineList, NamesAscendAndQuantitiesDescend) {
  std::vector<MachineLine> lines;
  for (const auto& [id, vendor, year] : {std::tuple{"b", "Y", 2020}, {"c", "x", 2024}, {"a", "y", 2024}}) {
    Machine machine = hand_made_machine();
    machine.id = id;
    machine.vendor = vendor;
    machine.year = year;
    lines.push_back(machine_line(std::move(machine)));
  }
  ASSERT_TRUE(sort_machines(lines, "year").has_value());
  EXPECT_EQ(ids(lines), (std::vector<std::string>{"c", "a", "b"})) << "equal years keep their order";
  ASSERT_TRUE(sort_machines(lines, "id").has_value());
  EXPECT_EQ(ids(lines), (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_TRUE(sort_machines(lines, "vendor").has_value());
  EXPECT_EQ(ids(lines), (std::vector<std::string>{"c", "a", "b"})) << "letter case does not count";
  const Status wrong = sort_machines(lines, "beauty");
  ASSERT_FALSE(wrong.has_value());
  EXPECT_NE(wrong.error().message.find("'beauty'; expected one of id, vendor"), std::string::npos);
}

// Every line of every machine fits every width; only an address or a path that is longer than a line runs over.
TEST(MachineText, FitsTheWidth) {
  const Catalog& catalog = Catalog::builtin();
  const auto all = select_machines(catalog, {});
  ASSERT_TRUE(all.has_value());
  for (const int width : {80, 100, 200}) {
    const auto check = [width](const std::string& what, const std::string& text) {
      std::istringstream in(text);
      for (std::string line; std::getline(in, line);) {
        const std::string words = line.substr(std::min(line.size(), line.find_first_not_of(' ')));
        if (words.find(' ') == std::string::npos && words.find('/') != std::string::npos) continue;
        EXPECT_LE(display_width(line), width) << what << ": " << line;
      }
    };
    check("list", machine_list_text(*all, Terminal{width}));
    for (const MachineLine& line : *all) check(line.machine.id, machine_text(line.machine, Terminal{width}));
    for (const std::string& id : catalog.fabric_ids()) check(id, fabric_text(*catalog.find_fabric(id), Terminal{width}));
  }
}

TEST(MachineText, ShowsLadderRatesAndSources) {
  const auto a100 = Catalog::builtin().find("nvidia-a100-sxm-80");
  ASSERT_TRUE(a100.has_value());
  const std::string text = machine_text(*a100, Terminal{});
  EXPECT_NE(text.find("│ 2.039 TB/s   ridge 153 FLOP/B\n"), std::string::npos) << text;
  EXPECT_NE(text.find("chip.power_max"), std::string::npos);
  EXPECT_NE(text.find("  [1] "), std::string::npos) << "sources are numbered";
}

TEST(MachineText, SaysWhatIsMissing) {
  Machine machine = hand_made_machine();
  machine.chip().ladder.back().bandwidth = {};
  const std::string text = machine_text(machine, Terminal{});
  EXPECT_NE(text.find("Not enough is known to analyse it"), std::string::npos) << text;
  EXPECT_NE(text.find("bandwidth unknown"), std::string::npos) << text;
}

TEST(PerWatt, SetsEachMachineInProportionToTheFirst) {
  Machine first = hand_made_machine();  // 400 W: 250 GFLOP/s, 500 Gop/s and 2.5 GB/s per watt
  first.chip().arithmetic[static_cast<std::size_t>(Arithmetic::kFp16)] = {};
  first.chip().arithmetic[static_cast<std::size_t>(Arithmetic::kFp32)] = {};
  Machine second = first;
  second.id = "other";
  second.chip().power_max = Watts{200};
  second.chip().arithmetic[static_cast<std::size_t>(Arithmetic::kFp4)].matrix = FlopPerSecond{400e12};
  second.chip().ladder.back().bandwidth = BytesPerSecond{0.25e12};
  const std::vector<MachineLine> lines{machine_line(first), machine_line(second)};
  const std::string text = per_watt_text(lines, true, Terminal{200});
  EXPECT_NE(text.find("other against hand-made, per watt: bf16 2.00x, int8 2.00x, fp4 over int8 4.00x, bandwidth 0.50x, memory "
                      "2.00x.\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("hand-made  "), std::string::npos);
  EXPECT_EQ(per_watt_text(lines, false, Terminal{200}).find("against"), std::string::npos);

  // Without a known power there is nothing to divide by.
  Machine dark = first;
  dark.chip().power_max = {};
  const std::string unknown = per_watt_text({machine_line(dark), machine_line(second)}, true, Terminal{200});
  EXPECT_EQ(unknown.find("against"), std::string::npos) << unknown;
  EXPECT_EQ(unknown.find("inf"), std::string::npos) << unknown;
  const Json list = Json::parse(machine_list_json_text({lines[0], machine_line(dark)}));
  EXPECT_EQ(list[0]["per_watt"]["bf16_flop_per_j"], 250e9);
  EXPECT_EQ(list[0]["per_watt"]["bandwidth_bytes_per_j"], 2.5e9);
  EXPECT_FALSE(list[1].contains("per_watt"));
}

TEST(Standards, ShowEveryStandardWithItsSource) {
  const Result<Standards> all = standards(Catalog::builtin());
  ASSERT_TRUE(all.has_value()) << all.error().message;
  const Json json = Json::parse(standards_json_text(*all));
  for (const char* section : {"memory", "latencies"}) {
    EXPECT_GE(json[section].size(), 5u);
    for (const Json& entry : json[section]) EXPECT_FALSE(entry["source"].get<std::string>().empty()) << entry["id"];
  }
  for (const Json& entry : json["memory"]) {
    if (entry["id"] != "hbm4") continue;
    EXPECT_EQ(entry["stack_bytes_per_s_low"], 2048e9);
    EXPECT_EQ(entry["pin_bits_per_s_high"], 8e9);
    // A stack of HBM4 has 2048 data pins.
    EXPECT_EQ(entry["stack_bytes_per_s_low"].get<double>() * 8 / entry["pin_bits_per_s_low"].get<double>(), 2048);
  }
  EXPECT_NEAR(json["cost"]["energy_price_usd_per_j"]["value"].get<double>(), 0.08 / 3.6e6, 1e-15);
  for (const int width : {80, 100, 200}) {
    std::istringstream in(standards_text(*all, Terminal{width}));
    for (std::string line; std::getline(in, line) && line.rfind("Sources", 0) != 0;)
      EXPECT_LE(display_width(line), width) << line;
  }
}

TEST(MachineJson, UnknownIsNullAndBadBytesAreReplaced) {
  Machine machine = hand_made_machine();
  machine.name = "caf\xe9";
  machine.chip().power_max = {};
  const Json list = Json::parse(machine_list_json_text({machine_line(machine)}));
  ASSERT_EQ(list.size(), 1u);
  EXPECT_TRUE(list[0]["power_w"].is_null());
  EXPECT_EQ(list[0]["headline_flop_per_s"], 100e12);
  const Json one = Json::parse(machine_json_text(machine));
  EXPECT_EQ(one["ladder"].size(), 2u);
  EXPECT_EQ(one["arithmetic"]["bf16"]["ridge_flop_per_byte"], 100.0);
  EXPECT_NE(one["name"].get<std::string>().find("caf"), std::string::npos);
}

}  // namespace
}  // namespace rooftree::report

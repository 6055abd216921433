// JSON, words, SVG and pages of one analysis made by hand.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <sstream>

#include "base/json.h"
#include "base/test_folder.h"
#include "report/analysis_text.h"
#include "report/estimate_json.h"
#include "report/hand_made.h"
#include "report/heat_map.h"
#include "report/page.h"
#include "report/plot_text.h"
#include "report/roofline.h"
#include "report/svg.h"

namespace rooftree::report {
namespace {

Json parsed(const std::string& text) {
  auto json = parse_json(text, "test");
  EXPECT_TRUE(json) << (json ? "" : json.error().message);
  return json ? std::move(json).value() : Json();
}

TEST(EstimateJson, HasTheKeysThatProgramsReadAndTheirValues) {
  const Json json = parsed(estimate_json_text({hand_made_analysis()}));
  for (const char* key : {"time_s",
                          "time_interval_s",
                          "bound",
                          "regime",
                          "flop",
                          "bytes_dram",
                          "intensity_flop_per_byte",
                          "ridge_flop_per_byte",
                          "tokens_per_s",
                          "memory_bytes",
                          "fits",
                          "energy_j",
                          "cost_usd",
                          "utilization",
                          "sensitivities",
                          "operators",
                          "model",
                          "machine",
                          "phase",
                          "plan",
                          "calibration",
                          "notes",
                          "energy_j_per_million_tokens",
                          "cost_usd_per_million_tokens"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_DOUBLE_EQ(json["time_s"].get<double>(), 0.01);
  EXPECT_EQ(json["time_interval_s"].size(), 2U);
  EXPECT_LE(json["time_interval_s"][0].get<double>(), json["time_s"].get<double>());
  EXPECT_GE(json["time_interval_s"][1].get<double>(), json["time_s"].get<double>());
  EXPECT_EQ(json["bound"], "memory");
  EXPECT_DOUBLE_EQ(json["energy_j_per_million_tokens"].get<double>(), 1.5e6);
  EXPECT_DOUBLE_EQ(json["cost_usd_per_million_tokens"].get<double>(), 2.5);
  double sum = 0;
  for (const char* role : {"weight", "kv_cache", "activation", "gradient", "optimizer_state", "input", "output"}) {
    sum += json["memory_bytes"][role].get<double>();
  }
  EXPECT_DOUBLE_EQ(json["memory_bytes"]["total"].get<double>(), sum);
  double time = 0;
  for (const Json& op : json["operators"]) {
    for (const char* key : {"name", "kind", "count", "time_s", "flop", "bytes_dram", "bound"})
      EXPECT_TRUE(op.contains(key)) << key;
    time += op["time_s"].get<double>();
  }
  EXPECT_NEAR(time, 0.01, 1e-12);
  EXPECT_EQ(json["sensitivities"][0]["knob"], "batch 2 -> 16");
  EXPECT_EQ(json["ridge_crossing"]["batch"], 120);
  EXPECT_NEAR(json["utilization"]["on_chip"].get<double>(), 7.402002e9 / 8 / (0.01 * 5e12), 1e-6);
}

TEST(EstimateJson, NeverWritesNumbersThatAreNone) {
  Analysis a = hand_made_analysis();
  a.estimate.time.high = Seconds{std::numeric_limits<double>::infinity()};
  a.estimate.intensity = FlopPerByte{std::numeric_limits<double>::quiet_NaN()};
  a.estimate.time.low = Seconds{0};
  a.sensitivities.front().time_ratio = std::numeric_limits<double>::infinity();
  const Json json = parsed(estimate_json_text({a}));
  EXPECT_TRUE(json["time_interval_s"][1].is_null());
  EXPECT_TRUE(json["intensity_flop_per_byte"].is_null());
  EXPECT_TRUE(json["tokens_per_s_interval"][1].is_null()) << "division by zero";
  EXPECT_TRUE(json["sensitivities"][0]["time_ratio"].is_null());
}

TEST(EstimateJson, UnknownPriceAndPowerAreNullNotZero) {
  Analysis a = hand_made_analysis();
  a.estimate.has_energy = false;
  a.estimate.money = {};
  const Json json = parsed(estimate_json_text({a}));
  EXPECT_TRUE(json["cost_usd"].is_null());
  EXPECT_TRUE(json["energy_j"].is_null());
  EXPECT_TRUE(json["cost_usd_per_million_tokens"].is_null());
}

TEST(EstimateJson, BytesThatAreNotTextAreReplaced) {
  Analysis a = hand_made_analysis();
  a.model_name = "bad \xFF name";
  EXPECT_TRUE(parsed(estimate_json_text({a})).contains("model_name"));
}

TEST(EstimateJson, SeveralAndSweeps) {
  EXPECT_EQ(parsed(estimate_json_text({hand_made_analysis(), hand_made_analysis()}))["estimates"].size(), 2U);
  Sweep sweep{"batch", {{"1", hand_made_analysis()}, {"128", hand_made_analysis()}}, RidgeCrossing{120, 65536, 96}};
  const Json json = parsed(sweep_json_text({sweep}));
  EXPECT_EQ(json["points"].size(), 2U);
  EXPECT_EQ(json["ridge_crossing"]["largest_fitting_batch"], 96);
}

TEST(Sweep, ValuesAndRanges) {
  const auto values = [](std::string_view text) { return parse_sweep_values(text, "--sweep batch"); };
  EXPECT_EQ(values("1,2,4..32").value(), (std::vector<std::int64_t>{1, 2, 4, 8, 16, 32}));
  EXPECT_EQ(values("3..20").value(), (std::vector<std::int64_t>{3, 6, 12, 20})) << "the end belongs to the range";
  EXPECT_EQ(values("8,8,1").value(), (std::vector<std::int64_t>{1, 8})) << "sorted, once each";
  for (const char* bad : {"", "0", "-1", "a", "1,,2", "4..2", "1..", "..4", "1.5", "1 2", "99999999999999999999", "1..2..3"}) {
    const auto result = values(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_NE(result.error().message.find("--sweep batch"), std::string::npos);
    EXPECT_NE(result.error().message.find("expected"), std::string::npos);
  }
}

TEST(Roofline, RoofsOfTheLadderAndSharedRates) {
  const Roofline roofs = roofline(hand_made_machine().chip(), Arithmetic::kBf16);
  ASSERT_EQ(roofs.memory.size(), 2U);
  EXPECT_EQ(roofs.memory[0].name, "L2");
  EXPECT_TRUE(roofs.memory[1].main);
  ASSERT_EQ(roofs.compute.size(), 3U) << "int8, bf16 with fp16, fp32";
  EXPECT_EQ(roofs.compute[1].name, "bf16 · fp16");
  EXPECT_TRUE(roofs.compute[1].in_use);
  ASSERT_TRUE(roofs.ridge);
  EXPECT_DOUBLE_EQ(roofs.ridge->intensity.value(), 100);
}

TEST(Roofline, PointsLieUnderTheirRoofAndSharesAddUp) {
  const Analysis a = hand_made_analysis();
  const std::vector<RooflinePoint> dots = points(a);
  EXPECT_EQ(dots.size(), 5U) << "the embedding has no arithmetic";
  for (const RooflinePoint& p : dots) {
    EXPECT_LE(p.rate, 100e12);
    EXPECT_LE(p.rate, p.intensity * 1e12 * 1.0001) << a.operators[p.operator_index].name;
  }
  Analysis on_chip = a;
  on_chip.operators[1].bytes_dram = Bytes{0};
  EXPECT_TRUE(points(on_chip)[0].on_chip) << "without main-memory traffic the on-chip bytes place it";
}

TEST(Plot, FitsAndShowsRoofsRidgeAndMarks) {
  const machine::Machine machine = hand_made_machine();
  for (const int width : {80, 100, 200}) {
    const std::string text = plot_text(machine.chip(), Arithmetic::kBf16,
                                       {{'P', "prefill", 300, 60e12}, {'D', "decode", 1, 0.7e12}}, Terminal{width, false});
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), width) << line;
    for (const char* part : {"bf16", "int8 200 TFLOP/s", "HBM 1 TB/s", "ridge 100", "P prefill", "D decode"}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << text;
    }
  }
  machine::Machine unknown = hand_made_machine();
  for (machine::MemoryLevel& level : unknown.chip().ladder) level.bandwidth = {};
  EXPECT_TRUE(plot_text(unknown.chip(), Arithmetic::kBf16, {}, Terminal{}).empty());
  EXPECT_FALSE(plot_text(machine.chip(), Arithmetic::kBf16, {{'x', "nothing", 0, 0}}, Terminal{}).empty())
      << "marks without a place are left out";
}

TEST(Words, RegimeSentenceNamesPlaceAndLimit) {
  Analysis a = hand_made_analysis();
  EXPECT_NE(regime_sentence(a).find("from HBM"), std::string::npos);
  EXPECT_NE(regime_sentence(a).find("Memory-bound (2.27 FLOP/byte"), std::string::npos) << regime_sentence(a);
  a.estimate.regime = cost::Regime::kWeightsFromHost;
  a.estimate.bound = cost::Bound::kHostLink;
  a.estimate.placement[static_cast<std::size_t>(model::Role::kWeight)].share_off_chip = 0.43;
  EXPECT_NE(regime_sentence(a).find("fetches 43 % of the weights from host memory"), std::string::npos) << regime_sentence(a);
  a.estimate.regime = cost::Regime::kDoesNotFit;
  EXPECT_NE(regime_sentence(a).find("nothing of this machine holds"), std::string::npos);
}

TEST(Words, ModelsWithoutTokensCountSamples) {
  Analysis a = hand_made_analysis();
  a.phase = model::Phase::prefill(64, 512);
  EXPECT_NE(headline(a).find("prefill of 512 tokens, batch 64"), std::string::npos);
  a.counts_samples = true;
  EXPECT_NE(headline(a).find("inference, batch 64"), std::string::npos);
  EXPECT_EQ(progress_unit(a), "sample");
}

TEST(Words, ChipsCarryTheirVendorOnce) {
  machine::Chip chip;
  chip.id = "x";
  EXPECT_EQ(chip_label(chip), "x");
  chip.name = "TPU v6e (Trillium)";
  chip.vendor = "Google";
  EXPECT_EQ(chip_label(chip), "Google TPU v6e");
  chip.name = "AMD EPYC 7763";
  chip.vendor = "AMD";
  EXPECT_EQ(chip_label(chip), "AMD EPYC 7763");
}

TEST(Words, Gains) {
  EXPECT_EQ(gain_text(0.2), "5.0x faster");
  EXPECT_EQ(gain_text(0.93), "7.5 % faster");
  EXPECT_EQ(gain_text(1), "no faster");
  EXPECT_EQ(gain_text(1.1), "9.1 % slower");
  EXPECT_EQ(gain_text(3), "3.0x slower");
  EXPECT_EQ(gain_text(0), "-");
  EXPECT_EQ(gain_text(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(Words, OnlyMovesWorthReading) {
  const auto move = [](const char* knob, double ratio) {
    return cost::Sensitivity{cost::Sensitivity::Kind::kSoftware, knob, ratio, 1, 1, ""};
  };
  const auto kept = worthwhile({move("batch 1 -> 32", 0.1), move("batch 1 -> 8", 0.2), move("weights bf16 -> int4", 0.4),
                                move("weights bf16 -> int8", 0.6), move("weights bf16 -> fp8", 0.61),
                                move("fusion standard -> ideal", 0.999), move("stack engine -> eager", 1.5)});
  ASSERT_EQ(kept.size(), 3U);
  EXPECT_EQ(kept[0].knob, "batch 1 -> 32");
  EXPECT_EQ(kept[2].knob, "weights bf16 -> int8");
}

TEST(Words, Crossing) {
  EXPECT_NE(crossing_sentence({120, 65536, 96}).find("Memory is full before that, at batch 96"), std::string::npos);
  EXPECT_NE(crossing_sentence({std::nullopt, 65536, 10}).find("never cross"), std::string::npos);
  EXPECT_NE(crossing_sentence({8, 65536, std::nullopt}).find("Not even one"), std::string::npos);
  EXPECT_NE(crossing_sentence({1, 65536, 65536}).find("Even at batch 1"), std::string::npos);
}

TEST(Words, EveryTextFitsItsWidth) {
  const Analysis a = hand_made_analysis();
  const Sweep sweep{"batch", {{"1", a}, {"128", a}}, a.crossing};
  for (const int width : {80, 100, 200}) {
    const Terminal terminal{width, false};
    std::istringstream text(analysis_text(a, terminal) + comparison_text({a, a}, terminal) + sweep_text(sweep, terminal));
    for (std::string line; std::getline(text, line);) EXPECT_LE(display_width(line), width) << line;
  }
}

// ROOFTREE_REWRITE_GOLDEN=1 writes what the program prints now; look at the difference before committing it.
TEST(Words, AnalysisReadsAsWritten) {
  const std::filesystem::path path = std::filesystem::path(ROOFTREE_SOURCE_DIR) / "tests" / "golden" / "analysis.txt";
  const std::string text = analysis_text(hand_made_analysis(), Terminal{100, false});
  if (std::getenv("ROOFTREE_REWRITE_GOLDEN") != nullptr) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  const auto golden = read_file(path);
  ASSERT_TRUE(golden) << golden.error().message;
  EXPECT_EQ(text, *golden);
}

HeatMap hand_made_map() {
  cost::Exploration e;
  e.x = {cost::ChipProperty::kMemoryBandwidth, {1e11, 1e12, 8e12}};
  e.y = {cost::ChipProperty::kMemoryCapacity, {16e9, 256e9}};
  for (std::size_t i = 0; i < 6; ++i) {
    cost::ExplorePoint p;
    p.tokens_per_second = 10.0 * static_cast<double>(i % 3 + 1);
    p.fits = i >= 3;
    p.within_budget = i != 5;
    p.bound = cost::Bound::kMemory;
    p.proxy.power_w = 100.0 * static_cast<double>(i + 1);
    p.proxy.area_mm2 = 500;
    p.proxy.cost_usd = 1000.0 * static_cast<double>(i + 1);
    e.points.push_back(p);
  }
  e.fastest = 4;
  return heat_map(e, "Toy: decode", "450 W");
}

TEST(HeatMapText, MarksWhatDoesNotFitWhatIsOverAndWhatIsBest) {
  const HeatMap map = hand_made_map();
  const std::string text = heat_map_text(map, Terminal{80, false});
  EXPECT_NE(text.find("*20.0"), std::string::npos) << text;
  EXPECT_NE(text.find("(30.0)"), std::string::npos) << text;
  EXPECT_NE(text.find("  -  "), std::string::npos) << text;
  EXPECT_NE(text.find("within the budget"), std::string::npos);
  HeatMap none = map;
  none.best = -1;
  EXPECT_NE(heat_map_text(none, Terminal{80, false}).find("No chip"), std::string::npos);
  const Json json = parsed(heat_map_json_text(map));
  EXPECT_EQ(json["points"].size(), 6U);
  EXPECT_TRUE(json["points"][0]["tokens_per_s"].is_null());
  EXPECT_EQ(json["best"]["tokens_per_s"], 20.0);
}

TEST(HeatMapText, ManyColumnsAreThinnedToTheWidth) {
  HeatMap map = hand_made_map();
  map.x.values.clear();
  map.x.texts.clear();
  map.cells.clear();
  for (int i = 0; i < 40; ++i) {
    map.x.values.push_back(i + 1);
    map.x.texts.push_back(std::to_string(i) + "00 GB/s");
  }
  map.cells.resize(80, HeatCell{.tokens_per_second = 12345, .bound = "memory", .fits = true});
  map.best = -1;
  std::istringstream text(heat_map_text(map, Terminal{80, false}));
  for (std::string line; std::getline(text, line);) EXPECT_LE(display_width(line), 80) << line;
}

TEST(Escape, NothingInDataEndsTheScript) {
  const std::string evil = "</script><!-- & \xE2\x80\xA8 \xE2\x80\xA9";
  const std::string safe = escape_json_for_script(Json(evil).dump());
  EXPECT_EQ(safe.find('<'), std::string::npos);
  EXPECT_EQ(safe.find('>'), std::string::npos);
  EXPECT_EQ(safe.find('&'), std::string::npos);
  EXPECT_EQ(safe.find("\xE2\x80\xA8"), std::string::npos);
  EXPECT_EQ(parsed(safe).get<std::string>(), evil) << "and it reads back as it was";
  EXPECT_EQ(escape_html("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
}

std::string data_of(const std::string& html) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const std::size_t start = html.find(open);
  if (start == std::string::npos) return {};
  return html.substr(start + open.size(), html.find("</script>", start) - start - open.size());
}

PageBuilder hand_made_page(const std::string& title) {
  PageBuilder page(title, "A lead with <tags> & {{data}} marks.");
  Analysis a = hand_made_analysis();
  a.model_name = "Toy </script><b>1B</b>";
  page.add(a);
  a.phase.batch = 8;
  page.add(a);
  a.machine.root.chip->name = "Another";
  a.machine.id = "another";
  a.estimate.money = {};
  a.estimate.has_energy = false;
  page.add(a);
  page.set_heat_map(hand_made_map());
  return page;
}

TEST(Page, DataParsesAndIndicesHold) {
  const Json data = parsed(data_of(hand_made_page("Title <script>").html()));
  EXPECT_EQ(data["axes"]["machine"].size(), 2U);
  EXPECT_EQ(data["axes"]["batch"], (Json{"2", "8"}));
  ASSERT_EQ(data["cells"].size(), 3U);
  const std::size_t strings = data["strings"].size();
  for (const Json& cell : data["cells"]) {
    EXPECT_LT(cell["at"][0].get<std::size_t>(), data["axes"]["machine"].size());
    EXPECT_LT(cell["at"][1].get<std::size_t>(), data["axes"]["phase"].size());
    EXPECT_LT(cell["at"][2].get<std::size_t>(), data["axes"]["batch"].size());
    EXPECT_LT(cell["at"][3].get<std::size_t>(), data["axes"]["weights"].size());
    for (const Json& op : cell["operators"]) {
      ASSERT_EQ(op.size(), 12U);
      for (const int i : {0, 2, 3, 4, 10, 11}) EXPECT_LT(op[static_cast<std::size_t>(i)].get<std::size_t>(), strings);
    }
    for (const Json& move : cell["moves"]) EXPECT_LT(move[1].get<std::size_t>(), strings);
  }
  EXPECT_TRUE(data["cells"][2]["usd_per_token"].is_null());
  EXPECT_EQ(data["heat_map"]["cells"].size(), data["heat_map"]["x"]["values"].size() * data["heat_map"]["y"]["values"].size());
}

TEST(Page, LoadsNothingFromElsewhere) {
  const std::string html = hand_made_page("Title").html();
  EXPECT_EQ(html.find("http://"), std::string::npos);
  EXPECT_EQ(html.find("https://"), std::string::npos);
  EXPECT_FALSE(std::regex_search(
      html, std::regex(R"((\ssrc\s*=|@import|url\(\s*['"]?(?!#)|<link\b|<iframe|\bfetch\(|XMLHttpRequest))")));
  EXPECT_EQ(html.find("{{css}}"), std::string::npos);
  EXPECT_EQ(html.find("{{title}}"), std::string::npos);
}

TEST(Page, TitleAndLeadAreTextNotMarkup) {
  const std::string html = hand_made_page("<img onerror=x>").html();
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_NE(html.find("&lt;img onerror=x&gt;"), std::string::npos);
  EXPECT_EQ(html.find("<tags>"), std::string::npos);
}

// Runs the page in headless Chromium where there is one.
TEST(Page, RendersWithoutErrors) {
  const char* chromium = "/usr/bin/chromium";
  if (!std::filesystem::exists(chromium)) GTEST_SKIP() << "no chromium on this machine";
  const test::TestFolder own_folder;
  const std::filesystem::path& folder = own_folder.path();
  std::ofstream(folder / "page.html") << hand_made_page("Rendered").html();
  const std::string command =
      std::string("timeout 60 ") + chromium +
      " --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --enable-logging=stderr" +
      " --user-data-dir=" + (folder / "profile").string() + " --virtual-time-budget=3000 --dump-dom file://" +
      (folder / "page.html").string() + " > " + (folder / "dom.html").string() + " 2> " + (folder / "log.txt").string();
  const int status = std::system(command.c_str());
  const std::string dom = read_file(folder / "dom.html").value();
  const std::string log = read_file(folder / "log.txt").value();
  if (status != 0 && dom.empty()) GTEST_SKIP() << "chromium does not start here: " << log.substr(0, 300);
  EXPECT_EQ(log.find("CONSOLE"), std::string::npos) << log;
  EXPECT_NE(dom.find("data-operator=\"1\""), std::string::npos) << "operators are drawn";
  EXPECT_NE(dom.find("batch 2 -&gt; 16"), std::string::npos) << "moves are listed";
  EXPECT_NE(dom.find("url(#hatch)"), std::string::npos) << "the heat map is drawn";
  EXPECT_EQ(dom.find("<b>1B</b>"), std::string::npos) << "names stay text";
  EXPECT_EQ(dom.find("NaN"), std::string::npos);
}

// The real estimator on the made-up chip.
TEST(Analyze, RealModelOnAMadeUpChip) {
  const auto model = model::ModelCatalog::builtin().find("llama-3.2-1b");
  ASSERT_TRUE(model) << model.error().message;
  const cost::CalibrationTable& calibration = cost::CalibrationTable::builtin();
  const auto a = analyze(*model, hand_made_machine(), model::Phase::decode(1, 1024), {}, calibration);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_NEAR(a->parameters, 1.236e9, 0.01e9);
  double time = 0;
  double flop = 0;
  for (const OperatorRow& row : a->operators) {
    time += row.time.value();
    flop += row.flop.value();
  }
  EXPECT_NEAR(time + a->estimate.host_time.value() + a->estimate.transfer_time.value(), a->estimate.time.best.value(),
              1e-6 * time);
  EXPECT_NEAR(flop, a->estimate.flop.value(), 1e-6 * flop);
  EXPECT_FALSE(a->sensitivities.empty());
  ASSERT_TRUE(a->crossing && a->crossing->largest_fitting);
  EXPECT_GT(*a->crossing->largest_fitting, 1);
  const auto by_name = [&](std::string_view name) {
    return std::find_if(a->operators.begin(), a->operators.end(), [&](const OperatorRow& row) { return row.name == name; });
  };
  ASSERT_NE(by_name("attention"), a->operators.end());
  bool weights_help = false;
  for (const OperatorRow& row : a->operators)
    weights_help = weights_help || row.best_move.find("int8 weights") == 0 || row.best_move.find("W8A8") == 0;
  EXPECT_TRUE(weights_help) << "decode streams weights, so narrower ones must help some product";
  for (const int width : {80, 100, 200}) {
    std::istringstream text(analysis_text(*a, Terminal{width, false}) + roofs_text(a->machine, Terminal{width, false}));
    for (std::string line; std::getline(text, line);) EXPECT_LE(display_width(line), width) << line;
  }
  EXPECT_TRUE(parsed(estimate_json_text({*a})).contains("operators"));
}

TEST(Analyze, WeightsOfOneLayerAndWhatLoadingThemTakes) {
  const auto model = model::ModelCatalog::builtin().find("llama-2-7b");
  ASSERT_TRUE(model.has_value());
  machine::Machine machine = machine::machine_of(hand_made_machine().chip(), {.disk_read = BytesPerSecond{5e9}});
  machine.chip().host_link_per_direction = BytesPerSecond{20e9};
  const AnalyzeOptions brief{false, false, false};
  const auto& calibration = cost::CalibrationTable::builtin();
  cost::Plan plan;
  const auto a = analyze(*model, machine, model::Phase::decode(1, 128), plan, calibration, brief);
  ASSERT_TRUE(a.has_value() && a->block_weights.has_value());
  const BlockWeights& b = *a->block_weights;
  // Four projections of 4096 x 4096, three of 4096 x 11008, two norms.
  EXPECT_EQ(b.repeat, 32);
  EXPECT_EQ(b.values, 4.0 * 4096 * 4096 + 3.0 * 4096 * 11008 + 2 * 4096);
  EXPECT_EQ(b.bytes.value(), b.values * 2);
  ASSERT_FALSE(b.from.empty());
  EXPECT_EQ(b.from.front().level, "HBM");
  EXPECT_DOUBLE_EQ(b.from.front().time.value(), b.bytes.value() / 1e12);
  EXPECT_EQ(b.from.back().level, "disk");
  EXPECT_DOUBLE_EQ(b.from.back().time.value(), b.bytes.value() / 5e9);
  EXPECT_NE(analysis_text(*a, Terminal{}).find("One layer of 32 has 202.4 M weights in 386 MiB; at full bandwidth"),
            std::string::npos);
  const Json json = estimate_json(*a);
  EXPECT_EQ(json["block_weights"]["bytes"], b.bytes.value());
  EXPECT_EQ(json["block_weights"]["load_time_s"]["HBM"], b.from.front().time.value());
  EXPECT_LE(b.values * b.repeat, a->parameters);

  plan.set_type(model::Role::kWeight, DType::kQ4_0);
  const auto narrow = analyze(*model, machine, model::Phase::decode(1, 128), plan, calibration, brief);
  ASSERT_TRUE(narrow.has_value() && narrow->block_weights.has_value());
  EXPECT_DOUBLE_EQ(narrow->block_weights->bytes.value(), b.values * 4.5 / 8);
}

TEST(Analyze, ExpertsCountInTheirOwnType) {
  const auto model = model::ModelCatalog::builtin().find("mixtral-8x7b");
  ASSERT_TRUE(model.has_value());
  cost::Plan plan;
  const AnalyzeOptions brief{false, false, false};
  const auto bytes = [&] {
    const auto a =
        analyze(*model, hand_made_machine(), model::Phase::decode(1, 128), plan, cost::CalibrationTable::builtin(), brief);
    EXPECT_TRUE(a.has_value() && a->block_weights.has_value());
    return a->block_weights->bytes.value();
  };
  const double wide = bytes();
  plan.expert_weights = DType::kInt8;
  const double experts = 8.0 * 3 * 4096 * 14336;
  // int8 carries its scales, so the difference is a little less than a byte per value.
  EXPECT_NEAR(wide - bytes(), experts * (2 - info(DType::kInt8).bits_per_value / 8), 1.0);
}

TEST(Analyze, ChipsToHoldAndWhatTheIntensityAllows) {
  cost::MemoryByRole memory;
  memory.capacity = Bytes{100};
  memory.reserve = Bytes{20};
  memory.total = Bytes{80};
  EXPECT_EQ(chips_to_hold(memory), std::optional<double>{1});
  memory.total = Bytes{81};
  EXPECT_EQ(chips_to_hold(memory), std::optional<double>{2});
  memory.total = {};
  EXPECT_EQ(chips_to_hold(memory), std::optional<double>{1});
  memory.reserve = memory.capacity;
  EXPECT_FALSE(chips_to_hold(memory).has_value());
  cost::Estimate e;
  e.intensity = FlopPerByte{50};
  e.ridge = FlopPerByte{200};
  EXPECT_EQ(compute_allowed(e), std::optional<double>{0.25});
  e.intensity = FlopPerByte{300};
  EXPECT_EQ(compute_allowed(e), std::optional<double>{1});
  e.intensity = {};
  EXPECT_FALSE(compute_allowed(e).has_value());
}

TEST(Analyze, LargestFittingBatchIsTheLastThatFits) {
  const auto model = model::ModelCatalog::builtin().find("llama-3.2-1b");
  ASSERT_TRUE(model);
  model::Phase phase = model::Phase::decode(1, 8192);
  const cost::Estimator estimator(hand_made_machine(), cost::CalibrationTable::builtin(), {});
  const auto crossing = ridge_crossing(*model, phase, estimator);
  ASSERT_TRUE(crossing);
  ASSERT_TRUE(crossing->largest_fitting);
  const auto fits = [&](std::int64_t batch) {
    phase.batch = batch;
    return estimator.estimate(model->build(phase).value()).memory.fits;
  };
  EXPECT_TRUE(fits(*crossing->largest_fitting));
  EXPECT_FALSE(fits(*crossing->largest_fitting + 1));
}

TEST(Analyze, PhasesThatDoNotApplyAreErrors) {
  const auto model = model::ModelCatalog::builtin().find("resnet-50");
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_FALSE(analyze(*model, hand_made_machine(), model::Phase::decode(1, 16), {}, cost::CalibrationTable::builtin()));
  cost::Plan bad;
  bad.sparsity.density = -1;
  const auto llama = model::ModelCatalog::builtin().find("llama-3.2-1b");
  EXPECT_FALSE(analyze(*llama, hand_made_machine(), model::Phase::decode(1, 16), bad, cost::CalibrationTable::builtin()));
}

TEST(Page, GridOffersWhatCanBeBuilt) {
  const auto model = model::ModelCatalog::builtin().find("llama-3.2-1b");
  ASSERT_TRUE(model);
  PageBuilder page("t", "l");
  const PageGrid grid{
      {hand_made_machine()}, {model::Phase::decode(1, 64), model::Phase::prefill(1, 64)}, {1, 8}, {DType::kBf16, DType::kInt8}};
  ASSERT_TRUE(add_grid(page, *model, grid, {}, cost::CalibrationTable::builtin()));
  const Json data = parsed(page.data());
  EXPECT_EQ(data["cells"].size(), 8U);
  EXPECT_EQ(data["cells"][0]["at"], (Json{0, 0, 0, 0})) << "the first combination is shown first";
  EXPECT_LT(page.html().size(), std::size_t{1} << 20);
  PageBuilder none("t", "l");
  EXPECT_FALSE(add_grid(none, *model, {}, {}, cost::CalibrationTable::builtin())) << "an empty grid is an error";
}

TEST(Svg, DrawsEveryPointInsideTheFrame) {
  const std::string svg = roofline_svg(hand_made_analysis());
  EXPECT_EQ(svg.rfind("<svg", 0), 0U);
  EXPECT_NE(svg.find("lm_head"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  const std::regex circle(R"re(class="op [a-z]+" cx="([0-9.]+)" cy="([0-9.]+)")re");
  int count = 0;
  for (auto it = std::sregex_iterator(svg.begin(), svg.end(), circle); it != std::sregex_iterator(); ++it, ++count) {
    EXPECT_GE(std::stod((*it)[1]), 60);
    EXPECT_LE(std::stod((*it)[1]), 884);
    EXPECT_GE(std::stod((*it)[2]), 44);
    EXPECT_LE(std::stod((*it)[2]), 474);
  }
  EXPECT_EQ(count, 5);
  // Text between the tags has no bare angle bracket ("<0.1 %" must arrive escaped), or no viewer opens the file.
  Analysis tiny = hand_made_analysis();
  tiny.operators[4].time = Seconds{1e-9};
  const std::string text = std::regex_replace(roofline_svg(tiny), std::regex("<[a-z/][^<>]*>"), "");
  EXPECT_NE(text.find("&lt;0.1"), std::string::npos);
  EXPECT_EQ(text.find('<'), std::string::npos) << text.substr(text.find('<'), 80);
  Analysis evil = hand_made_analysis();
  evil.model_name = "<script>alert(1)</script>";
  EXPECT_EQ(roofline_svg(evil).find("<script"), std::string::npos);
}

}  // namespace
}  // namespace rooftree::report

#include "probe/probe.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/json.h"
#include "base/test_folder.h"
#include "machine/catalog.h"
#include "probe/buffer.h"
#include "probe/disk.h"

namespace rooftree::probe {
namespace {

constexpr double kKiB = 1024, kMiB = 1024 * kKiB;

// A folder of its own, also as XDG directories and without ROOFTREE_* variables.
class InFolder : public testing::Test {
 protected:
  void SetUp() override {
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
    setenv("XDG_DATA_HOME", folder_.c_str(), 1);
    unsetenv("ROOFTREE_ISA");
    unsetenv("ROOFTREE_THREADS");
  }
  [[nodiscard]] std::size_t files() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_)) count += entry.is_regular_file() ? 1 : 0;
    return count;
  }
  const test::TestFolder own_folder_;
  const std::filesystem::path& folder_ = own_folder_.path();
};

ProbeOptions tiny(int threads) {
  ProbeOptions options;
  options.budget = Seconds{0.0};  // one round
  options.threads = threads;
  options.disk_file = Bytes{1 * kMiB};
  options.stream_array = Bytes{1 * kMiB};
  options.latency_size_max = Bytes{512 * kKiB};
  return options;
}

void expect_sane(const Statistic& s, Better better) {
  ASSERT_GT(s.samples, 0);
  EXPECT_GT(s.q1, 0.0);
  EXPECT_LE(s.q1, s.median);
  EXPECT_LE(s.median, s.q3);
  if (better == Better::kHigher) {
    EXPECT_GE(s.quietest, s.q3);
  } else {
    EXPECT_LE(s.quietest, s.q1);
  }
}

class TinyProbe : public InFolder, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, TinyProbe, testing::Values(1, 2, 3), [](const auto& p) { return std::to_string(p.param); });

TEST_P(TinyProbe, MeasuresEverythingOnce) {
  const Result<ProbeResult> result = run_probe(tiny(GetParam()));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->rounds, 1);
  EXPECT_EQ(result->threads, GetParam());
  for (const BandwidthResult& b : result->bandwidth) expect_sane(b.bytes_per_second, Better::kHigher);
  for (const LatencyResult& l : result->latency) expect_sane(l.seconds, Better::kLower);
  for (const ArithmeticResult& a : result->arithmetic) expect_sane(a.flop_per_second, Better::kHigher);
  for (const CacheLevel& c : result->topology.caches) {
    for (const Stream stream : {Stream::kRead, Stream::kWrite, Stream::kTriad}) {
      EXPECT_NE(result->find(c.name, stream, 1), nullptr);
      EXPECT_NE(result->find(c.name, stream, GetParam()), nullptr);
    }
  }
  EXPECT_NE(result->find("DRAM", Stream::kTriad, GetParam()), nullptr);
  EXPECT_EQ(result->find("DRAM", Stream::kRead, 77), nullptr);
  EXPECT_EQ(result->find("L9", Stream::kRead, 1), nullptr);
  EXPECT_FALSE(result->plateaus.empty());
  EXPECT_EQ(result->fork_join_seconds.samples > 0, GetParam() > 1);
  EXPECT_EQ(result->barrier_seconds.samples > 0, GetParam() > 1);
  ASSERT_TRUE(result->disk) << (result->notes.empty() ? "" : result->notes[0]);
  expect_sane(result->disk->read_bytes_per_second, Better::kHigher);
  expect_sane(result->disk->page_cache_bytes_per_second, Better::kHigher);
  EXPECT_EQ(files(), 0U) << "the temporary file is still there";
}

TEST_F(InFolder, IsaLimitIsObeyed) {
  setenv("ROOFTREE_ISA", "portable", 1);
  ProbeOptions options = tiny(1);
  options.disk = false;
  const Result<ProbeResult> result = run_probe(options);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(result->memory_isa, "portable");
  EXPECT_FALSE(result->disk);
  for (const ArithmeticResult& a : result->arithmetic) EXPECT_EQ(a.isa, "portable");
  unsetenv("ROOFTREE_ISA");
}

TEST_F(InFolder, BadSettingsAreRefused) {
  setenv("ROOFTREE_ISA", "quick", 1);
  Result<ProbeResult> result = run_probe(tiny(1));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  unsetenv("ROOFTREE_ISA");
  setenv("ROOFTREE_THREADS", "many", 1);
  result = run_probe(tiny(0));
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("ROOFTREE_THREADS"), std::string::npos);
  unsetenv("ROOFTREE_THREADS");
  for (const int threads : {-1, 4097}) EXPECT_FALSE(run_probe(tiny(threads)));
}

class CancelAfter : public Progress {
 public:
  explicit CancelAfter(int updates) : left_(updates) {}
  void update(double, std::string_view) override { --left_; }
  [[nodiscard]] bool cancelled() const override { return left_ <= 0; }

 private:
  int left_;
};

TEST_F(InFolder, CancellingIsAnErrorAndLeavesNothing) {
  for (const int updates : {1, 5}) {
    CancelAfter progress(updates);
    ProbeOptions options = tiny(1);
    options.progress = &progress;
    const Result<ProbeResult> result = run_probe(options);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kEnvironment);
    EXPECT_NE(result.error().message.find("interrupted"), std::string::npos);
    EXPECT_EQ(files(), 0U);
  }
}

TEST_F(InFolder, WithoutACacheFolderTheRestIsMeasured) {
  std::ofstream(folder_ / "file") << "not a folder";
  setenv("XDG_CACHE_HOME", (folder_ / "file").c_str(), 1);
  const Result<ProbeResult> result = run_probe(tiny(1));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_FALSE(result->disk);
  bool noted = false;
  for (const std::string& note : result->notes) noted = noted || note.rfind("disk not measured", 0) == 0;
  EXPECT_TRUE(noted);
}

TEST_F(InFolder, DiskReadsWhatWasWritten) {
  Result<DiskFile> file = DiskFile::create(folder_, 3 * DiskFile::kBlock, Seconds{60.0});
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->size(), 3 * DiskFile::kBlock);
  // Marks are checked inside: 0 would mean wrong data. More blocks than the file has: around the end.
  EXPECT_GT(file->read_device(4), 0.0);
  EXPECT_GT(file->read_page_cache(4), 0.0);
  EXPECT_EQ(files(), 0U) << "the file has no name";
  const Result<DiskFile> missing = DiskFile::create(folder_ / "no" / "such", 1, Seconds{1.0});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kEnvironment);
}

TEST(Buffer, AlignedAndWritable) {
  Result<Buffer> buffer = Buffer::allocate(3'000'000);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(buffer->size(), std::size_t{4} << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->data()) % (2 << 20), 0U);
  buffer->data()[buffer->size() - 1] = std::byte{7};
  Buffer moved = std::move(buffer).value();
  EXPECT_EQ(moved.data()[moved.size() - 1], std::byte{7});
  EXPECT_EQ(Buffer::allocate(0)->size(), 0U);
  const Result<Buffer> huge = Buffer::allocate(std::size_t{1} << 60);
  ASSERT_FALSE(huge);
  EXPECT_EQ(huge.error().code, ErrorCode::kEnvironment);
}

// A result with round numbers, as if measured on two cores with AMX.
ProbeResult made_up() {
  ProbeResult r;
  r.date = "2026-11-24";
  r.features = "everything";
  r.isa = Isa::kAvx512;
  r.threads = 2;
  r.topology.cpu_name = "Intel Something";
  r.topology.cores = 2;
  r.topology.hardware_threads = 2;
  r.topology.memory = Bytes{16 * 1024 * kMiB};
  r.topology.caches = {{"L1", Bytes{32 * kKiB}, 2, 1}, {"L2", Bytes{1 * kMiB}, 2, 1}, {"L3", Bytes{32 * kMiB}, 4, 8}};
  const auto stat = [](double v) {
    return Statistic{.samples = 9, .quietest = v, .near_quietest = 4, .q1 = 0.8 * v, .median = 0.9 * v, .q3 = 0.95 * v};
  };
  const double read[] = {400e9, 200e9, 100e9, 40e9};
  const char* const levels[] = {"L1", "L2", "L3", "DRAM"};
  for (std::size_t i = 0; i < 4; ++i) {
    for (const int k : {1, 2}) {
      r.bandwidth.push_back({levels[i], Stream::kRead, k, Bytes{1024.0}, stat(read[i] * k / 2)});
      r.bandwidth.push_back({levels[i], Stream::kWrite, k, Bytes{1024.0}, stat(read[i] * k / 4)});
    }
  }
  r.bandwidth.push_back({"DRAM", Stream::kWriteStreaming, 2, Bytes{1024.0}, stat(36e9)});
  for (const auto& [size, ns] : {std::pair{16 * kKiB, 1.0}, {128 * kKiB, 4.0}, {4 * kMiB, 15.0}, {128 * kMiB, 110.0}}) {
    r.latency.push_back(
        {Bytes{size},
         Statistic{
             .samples = 9, .quietest = ns * 1e-9, .near_quietest = 9, .q1 = ns * 1e-9, .median = ns * 1e-9, .q3 = ns * 1e-9}});
  }
  r.arithmetic = {{Arithmetic::kFp32, "AVX-512", "vfmadd231ps zmm", false, 1, stat(100e9)},
                  {Arithmetic::kFp32, "AVX-512", "vfmadd231ps zmm", false, 2, stat(200e9)},
                  {Arithmetic::kFp32, "AVX2", "vfmadd231ps ymm", false, 2, stat(150e9)},
                  {Arithmetic::kInt8, "AMX", "tdpbssd", true, 2, stat(4000e9)},
                  {Arithmetic::kInt8, "AVX-512", "vpdpbusd zmm", false, 2, stat(1000e9)}};
  r.clock_hertz = stat(3.7e9);
  r.disk = DiskResult{.direct = true,
                      .file = Bytes{1 * kMiB},
                      .read_bytes_per_second = stat(2e9),
                      .page_cache_bytes_per_second = stat(20e9),
                      .capacity = Bytes{1e12},
                      .directory = "/tmp"};
  r.notes = {"first", "second"};
  return r;
}

TEST(ToMachine, TotalsOfTheQuietestSamples) {
  const machine::Machine m = to_machine(made_up());
  EXPECT_EQ(m.id, "this");
  ASSERT_TRUE(m.root.chip.has_value());
  const machine::Chip& chip = *m.root.chip;
  EXPECT_EQ(chip.vendor, "Intel");
  EXPECT_EQ(chip.family, "cpu-x86-amx");
  EXPECT_EQ(chip.kind, machine::ChipKind::kCpu);
  EXPECT_EQ(chip.cores, 2);
  EXPECT_EQ(chip.clock, Hertz{3.7e9});
  EXPECT_EQ(chip.notes, "first; second");
  ASSERT_EQ(chip.ladder.size(), 4U);
  EXPECT_EQ(chip.ladder[0].bandwidth, BytesPerSecond{400e9});
  EXPECT_EQ(chip.ladder[0].capacity, Bytes{64 * kKiB});
  EXPECT_EQ(chip.ladder[0].instances, 2);
  EXPECT_EQ(chip.ladder[0].latency, Seconds{1e-9});
  EXPECT_EQ(chip.ladder[1].latency, Seconds{4e-9});
  EXPECT_EQ(chip.ladder[2].instances, 1) << "two threads sit on one of the four";
  EXPECT_EQ(chip.ladder[2].capacity, Bytes{32 * kMiB});
  EXPECT_EQ(chip.main_memory().name, "DRAM");
  EXPECT_EQ(chip.main_memory().bandwidth, BytesPerSecond{40e9});
  EXPECT_EQ(chip.main_memory().write_bandwidth, BytesPerSecond{36e9}) << "the faster way to write";
  EXPECT_EQ(chip.main_memory().latency, Seconds{110e-9});
  EXPECT_EQ(chip.main_memory().capacity, Bytes{16 * 1024 * kMiB});
  EXPECT_EQ(chip.rate(Arithmetic::kFp32).vector, FlopPerSecond{200e9}) << "all threads, fastest instruction";
  EXPECT_EQ(chip.rate(Arithmetic::kFp32).matrix, FlopPerSecond{0.0});
  EXPECT_EQ(chip.rate(Arithmetic::kInt8).matrix, FlopPerSecond{4000e9});
  EXPECT_EQ(chip.rate(Arithmetic::kInt8).vector, FlopPerSecond{1000e9});
  EXPECT_EQ(chip.rate(Arithmetic::kBf16).vector, FlopPerSecond{0.0}) << "not there, not made up";
  EXPECT_EQ(chip.power_max, Watts{0.0});
  EXPECT_EQ(m.root.host.disk_read, BytesPerSecond{2e9});
  EXPECT_EQ(m.root.host.disk_capacity, Bytes{1e12});
}

TEST(ToMachine, EveryMeasuredValueSaysSo) {
  const machine::Machine m = to_machine(made_up());
  for (const char* path : {"l1.bandwidth", "l1.latency", "dram.bandwidth", "dram.write_bandwidth", "dram.latency",
                           "fp32.vector", "int8.matrix", "clock"}) {
    const auto it = m.root.chip->provenance.find(path);
    ASSERT_NE(it, m.root.chip->provenance.end()) << path;
    EXPECT_EQ(it->second.certainty, machine::Certainty::kMeasured) << path;
    EXPECT_EQ(it->second.source, "probe, 2026-11-24") << path;
    EXPECT_NE(it->second.note.find("9 samples"), std::string::npos) << path;
  }
  EXPECT_EQ(m.root.chip->provenance.at("dram.capacity").certainty, machine::Certainty::kRead);
  EXPECT_EQ(m.provenance.at("host.disk.bandwidth").certainty, machine::Certainty::kMeasured);
}

TEST(ToMachine, UnconfirmedValuesAreDoubtful) {
  ProbeResult r = made_up();
  r.clock_hertz.near_quietest = 2;
  const machine::Machine m = to_machine(r);
  EXPECT_TRUE(m.root.chip->provenance.at("clock").doubtful);
  EXPECT_FALSE(m.root.chip->provenance.at("fp32.vector").doubtful);
  EXPECT_NE(to_table(r).find("3.70? (3.33) GHz"), std::string::npos);
}

TEST(ToMachine, WhatWasNotMeasuredStaysZero) {
  ProbeResult r = made_up();
  r.disk.reset();
  r.bandwidth.clear();
  r.latency.clear();
  r.clock_hertz = {};
  const machine::Machine m = to_machine(r);
  EXPECT_EQ(m.root.host.disk_read, BytesPerSecond{0.0});
  EXPECT_EQ(m.root.chip->main_memory().bandwidth, BytesPerSecond{0.0});
  EXPECT_EQ(m.root.chip->main_memory().latency, Seconds{0.0});
  EXPECT_EQ(m.root.chip->clock, Hertz{0.0});
  EXPECT_FALSE(m.root.chip->provenance.contains("dram.bandwidth"));
  EXPECT_FALSE(m.provenance.contains("host.disk.bandwidth"));
}

// Through the file and back: what analyses see is what was measured.
TEST_F(InFolder, SavedMachineIsResolvedAsThis) {
  const machine::Machine written = to_machine(made_up());
  const Status saved = save_this_machine(written);
  ASSERT_TRUE(saved) << saved.error().message;
  const Result<machine::Machine> read = machine::Catalog::builtin().resolve("this");
  ASSERT_TRUE(read) << read.error().message;
  const machine::Chip& a = *written.root.chip;
  const machine::Chip& b = read->chip();
  EXPECT_EQ(b.id, "this");
  EXPECT_EQ(b.name, a.name);
  EXPECT_EQ(b.family, a.family);
  EXPECT_EQ(b.cores, a.cores);
  EXPECT_EQ(b.clock, a.clock);
  ASSERT_EQ(b.ladder.size(), a.ladder.size());
  for (std::size_t i = 0; i < a.ladder.size(); ++i) {
    EXPECT_EQ(b.ladder[i].bandwidth, a.ladder[i].bandwidth) << a.ladder[i].name;
    EXPECT_EQ(b.ladder[i].write_bandwidth, a.ladder[i].write_bandwidth) << a.ladder[i].name;
    EXPECT_EQ(b.ladder[i].capacity, a.ladder[i].capacity) << a.ladder[i].name;
    EXPECT_EQ(b.ladder[i].latency, a.ladder[i].latency) << a.ladder[i].name;
  }
  for (const Arithmetic type : {Arithmetic::kFp32, Arithmetic::kInt8, Arithmetic::kBf16}) {
    EXPECT_EQ(b.rate(type).vector, a.rate(type).vector);
    EXPECT_EQ(b.rate(type).matrix, a.rate(type).matrix);
  }
  EXPECT_EQ(b.provenance.at("dram.bandwidth").certainty, machine::Certainty::kMeasured);
  EXPECT_EQ(b.provenance.at("dram.bandwidth").source, "probe, 2026-11-24");
  EXPECT_EQ(read->root.host.disk_read, written.root.host.disk_read);
}

TEST(Text, JsonHasUnitsAndEverything) {
  const Result<Json> json = parse_json(to_json(made_up()), "probe");
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ(json->at("bandwidth").size(), 17U);
  EXPECT_EQ(json->at("bandwidth")[0].at("quietest_bytes_per_s"), 200e9);
  EXPECT_EQ(json->at("latency")[0].at("median_s"), 1e-9);
  EXPECT_EQ(json->at("arithmetic")[1].at("ridge_flop_per_byte"), 5.0);
  EXPECT_FALSE(json->at("arithmetic")[0].contains("ridge_flop_per_byte")) << "one thread of two";
  EXPECT_EQ(json->at("disk").at("read").at("q1_bytes_per_s"), 0.8 * 2e9);
  EXPECT_EQ(json->at("barrier").at("samples"), 0);
  EXPECT_FALSE(json->at("barrier").contains("median_s"));
  EXPECT_EQ(json->at("notes").size(), 2U);
}

TEST(Text, TableHoldsItsWidthAndNamesTheLimits) {
  const std::string table = to_table(made_up());
  for (const char* part :
       {"L3", "DRAM", "40.0 (36.0)", "400 (360)", "tdpbssd", "4000 (3600)", "100.0", "Note: second", "110.00 ns"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  }
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 112U) << line;
}

TEST_F(InFolder, AtomicWriteReplacesOrKeeps) {
  const std::string path = (folder_ / "new" / "folder" / "this.json").string();
  ASSERT_TRUE(write_atomically(path, "first"));
  ASSERT_TRUE(write_atomically(path, "second, longer"));
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  EXPECT_EQ(text, "second, longer");
  EXPECT_EQ(files(), 1U) << "no temporary file left";
  // A folder in the way: refused, untouched, and nothing left beside it.
  std::filesystem::create_directories(folder_ / "taken" / "inside");
  const Status refused = write_atomically((folder_ / "taken").string(), "x");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kEnvironment);
  EXPECT_TRUE(std::filesystem::is_directory(folder_ / "taken" / "inside"));
  EXPECT_EQ(files(), 1U);
  EXPECT_FALSE(write_atomically(path + "/below-a-file", "x"));
}

}  // namespace
}  // namespace rooftree::probe

#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace rooftree {
namespace {

TEST(Partition, CoversOnceInOrderAndBalanced) {
  for (const std::int64_t n : {0, 1, 2, 3, 7, 8, 63, 64, 65, 1000}) {
    for (const int parts : {1, 2, 3, 4, 7, 64}) {
      for (const std::int64_t grain : {1, 2, 16, 100}) {
        std::int64_t at = 0, smallest = n + 1, largest = 0;
        for (int i = 0; i < parts; ++i) {
          const Range r = partition(n, parts, i, grain);
          ASSERT_EQ(r.begin, at);
          ASSERT_LE(r.begin, r.end);
          ASSERT_TRUE(r.end % grain == 0 || r.end == n);
          at = r.end;
          const std::int64_t grains = (r.size() + grain - 1) / grain;
          smallest = std::min(smallest, grains);
          largest = std::max(largest, grains);
        }
        ASSERT_EQ(at, n);
        ASSERT_LE(largest - smallest, 1);
      }
    }
  }
}

TEST(Partition, FirstPartsGetTheRest) {
  EXPECT_EQ(partition(10, 4, 0), (Range{0, 3}));
  EXPECT_EQ(partition(10, 4, 1), (Range{3, 6}));
  EXPECT_EQ(partition(10, 4, 2), (Range{6, 8}));
  EXPECT_EQ(partition(10, 4, 3), (Range{8, 10}));
  EXPECT_EQ(partition(100, 2, 0, 48), (Range{0, 96}));
  EXPECT_EQ(partition(100, 2, 1, 48), (Range{96, 100}));
}

TEST(Partition, HugeCountsDoNotOverflow) {
  const std::int64_t n = INT64_MAX;
  EXPECT_EQ(partition(n, 3, 2, 64).end, n);
  EXPECT_EQ(partition(n, 3, 0, 64).begin, 0);
  EXPECT_EQ(partition(n, 3, 1, 64).begin, partition(n, 3, 0, 64).end);
}

TEST(PartitionDeathTest, BadArgumentsAreOurBug) {
  EXPECT_DEATH((void)partition(-1, 1, 0), "out of range");
  EXPECT_DEATH((void)partition(1, 0, 0), "out of range");
  EXPECT_DEATH((void)partition(1, 2, 2), "out of range");
  EXPECT_DEATH((void)partition(1, 2, 0, 0), "out of range");
}

TEST(CpuAllowance, CpuListText) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11"), (std::vector<int>{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_cpu_list("5"), (std::vector<int>{5}));
  for (const char* bad : {"", "a", "3-1", "1,", ",1", "1-", "-1", "1;2", "0-99999999"}) {
    EXPECT_TRUE(parse_cpu_list(bad).empty()) << bad;
  }
}

TEST(CpuAllowance, CgroupText) {
  EXPECT_DOUBLE_EQ(parse_cgroup_cpu_max("150000 100000"), 1.5);
  EXPECT_DOUBLE_EQ(parse_cgroup_cpu_max("400000 100000"), 4.0);
  for (const char* none : {"max 100000", "", "-1 100000", "100000", "100000 0", "1 x", "100000 100000 1", "0 100000"}) {
    EXPECT_EQ(parse_cgroup_cpu_max(none), 0.0) << none;
  }
}

TEST(CpuAllowance, ThisProcess) {
  const CpuAllowance allowance = cpu_allowance();
  EXPECT_GE(allowance.cores, 1);
  EXPECT_GE(allowance.cpus.size(), static_cast<std::size_t>(allowance.cores));
  std::vector<int> sorted = allowance.cpus;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
}

TEST(ThreadCount, CoresLimitedByQuota) {
  EXPECT_EQ(*choose_thread_count({.cpus = {0, 1, 2, 3}, .cores = 2, .quota = 0.0}, ""), 2);
  EXPECT_EQ(*choose_thread_count({.cpus = {0, 1, 2, 3}, .cores = 4, .quota = 2.9}, ""), 2);
  EXPECT_EQ(*choose_thread_count({.cpus = {0, 1}, .cores = 2, .quota = 0.5}, ""), 1);
  EXPECT_EQ(*choose_thread_count({.cpus = {0, 1}, .cores = 2, .quota = 64.0}, ""), 2);
}

TEST(ThreadCount, OverrideWinsOrIsRefused) {
  const CpuAllowance two{.cpus = {0, 1}, .cores = 2, .quota = 1.0};
  EXPECT_EQ(*choose_thread_count(two, "7"), 7);
  EXPECT_EQ(*choose_thread_count(two, "4096"), 4096);
  for (const char* bad : {"0", "-1", "4097", "two", "2 ", " 2", "2.5", "99999999999"}) {
    const Result<int> count = choose_thread_count(two, bad);
    ASSERT_FALSE(count) << bad;
    EXPECT_EQ(count.error().code, ErrorCode::kInvalid);
    EXPECT_NE(count.error().message.find("ROOFTREE_THREADS"), std::string::npos);
    EXPECT_NE(count.error().message.find(bad), std::string::npos);
  }
}

// Every test below runs with one thread, with what fits, and with far more threads than CPUs.
class Pool : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, Pool, testing::Values(1, 2, 3, 8, 17), [](const auto& p) { return std::to_string(p.param); });

TEST_P(Pool, EveryWorkerRunsOnce) {
  ThreadPool pool({.threads = GetParam()});
  std::vector<int> runs(static_cast<std::size_t>(GetParam()), 0);  // one writer each: tsan sees a second one
  for (int repeat = 0; repeat < 200; ++repeat) {
    pool.run([&](const Worker& w) {
      ASSERT_EQ(w.count, GetParam());
      ++runs[static_cast<std::size_t>(w.index)];
    });
  }
  EXPECT_EQ(runs, std::vector<int>(static_cast<std::size_t>(GetParam()), 200));
}

TEST_P(Pool, SameItemSameThread) {
  ThreadPool pool({.threads = GetParam()});
  const std::int64_t n = 1000;
  std::vector<std::thread::id> owner(n);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<std::thread::id> now(n);
    pool.parallel_for(
        n,
        [&](Range r, const Worker& w) {
          EXPECT_EQ(r, partition(n, w.count, w.index, 16));
          for (std::int64_t i = r.begin; i < r.end; ++i) now[static_cast<std::size_t>(i)] = std::this_thread::get_id();
        },
        16);
    if (repeat == 0) owner = now;
    ASSERT_EQ(now, owner);
  }
  EXPECT_EQ(owner[0], std::this_thread::get_id());
}

// Each phase reads what the neighbour wrote in the phase before: wrong if anybody passes a barrier early.
TEST_P(Pool, BarrierSeparatesPhases) {
  ThreadPool pool({.threads = GetParam()});
  const auto count = static_cast<std::size_t>(GetParam());
  std::vector<std::int64_t> cells(2 * count, 0);
  const int phases = 100;
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::fill(cells.begin(), cells.end(), 0);
    pool.run([&](const Worker& w) {
      const auto me = static_cast<std::size_t>(w.index);
      const std::size_t neighbour = (me + 1) % count;
      for (std::size_t phase = 0; phase < phases; ++phase) {
        const std::size_t from = phase % 2 * count, to = count - from;
        cells[to + me] = cells[from + neighbour] + 1;
        w.barrier();
      }
    });
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(cells[i], phases);
  }
}

TEST_P(Pool, ParallelForSkipsEmptyParts) {
  ThreadPool pool({.threads = GetParam()});
  std::atomic<int> calls{0};
  std::atomic<std::int64_t> items{0};
  pool.parallel_for(2, [&](Range r, const Worker&) {
    ++calls;
    items += r.size();
  });
  EXPECT_EQ(items.load(), 2);
  EXPECT_EQ(calls.load(), std::min(2, GetParam()));
  pool.parallel_for(0, [&](Range, const Worker&) { ++calls; });
  pool.parallel_for(-5, [&](Range, const Worker&) { ++calls; });
  EXPECT_EQ(calls.load(), std::min(2, GetParam()));
}

TEST_P(Pool, NestedRegionRunsInlineAsTeamOfOne) {
  ThreadPool pool({.threads = GetParam()}), other({.threads = 2});
  std::atomic<int> inner{0};
  pool.run([&](const Worker&) {
    const std::thread::id outer = std::this_thread::get_id();
    for (ThreadPool* nested : {&pool, &other}) {
      nested->run([&](const Worker& w) {
        EXPECT_EQ(w.index, 0);
        EXPECT_EQ(w.count, 1);
        EXPECT_EQ(std::this_thread::get_id(), outer);
        w.barrier();
        ++inner;
      });
    }
  });
  EXPECT_EQ(inner.load(), 2 * GetParam());
  // The outermost level is a full team again.
  std::atomic<int> outer{0};
  pool.run([&](const Worker&) { ++outer; });
  EXPECT_EQ(outer.load(), GetParam());
}

TEST_P(Pool, WakesAfterParking) {
  ThreadPool pool({.threads = GetParam(), .spin = std::chrono::microseconds{0}});
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> runs{0};
    pool.run([&](const Worker& w) {
      if (w.index == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // the others park in the barrier
      w.barrier();
      if (w.index == w.count - 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the caller parks at the join
      ++runs;
    });
    EXPECT_EQ(runs.load(), GetParam());
  }
}

TEST_P(Pool, CallersTakeTurns) {
  ThreadPool pool({.threads = GetParam()});
  std::atomic<int> inside{0}, runs{0};
  const auto caller = [&] {
    for (int repeat = 0; repeat < 20; ++repeat) {
      pool.run([&](const Worker& w) {
        if (w.index == 0) {
          EXPECT_EQ(inside.fetch_add(1), 0);
        }
        w.barrier();
        ++runs;
        w.barrier();
        if (w.index == 0) --inside;
      });
    }
  };
  std::thread second(caller);
  caller();
  second.join();
  EXPECT_EQ(runs.load(), 40 * GetParam());
}

TEST(ThreadPool, CreatedAndDestroyedWithoutWork) {
  for (int i = 0; i < 20; ++i) ThreadPool pool({.threads = 4});
}

TEST(ThreadPool, PinningTheCallerIsUndone) {
  const std::vector<int> before = cpu_allowance().cpus;
  {
    ThreadPool pool({.threads = 1, .pin_caller = true});
    EXPECT_TRUE(pool.pinned());
    EXPECT_EQ(cpu_allowance().cpus, std::vector<int>{before[0]});
  }
  EXPECT_EQ(cpu_allowance().cpus, before);
}

TEST(ThreadPool, PinnedOnlyWhereThereAreEnoughCpus) {
  const int cpus = static_cast<int>(cpu_allowance().cpus.size());
  EXPECT_TRUE(ThreadPool({.threads = cpus}).pinned());
  EXPECT_FALSE(ThreadPool({.threads = cpus + 1}).pinned());
  EXPECT_FALSE(ThreadPool({.threads = 1, .pin = false}).pinned());
}

TEST(ThreadPoolDeathTest, ExceptionsTerminate) {
  ThreadPool pool({.threads = 1});
  EXPECT_DEATH(pool.run([](const Worker&) { throw std::runtime_error("out of a region"); }), "");
  EXPECT_DEATH(ThreadPool({.threads = 0}), "threads");
}

TEST(FunctionRef, CallsTheCallableItself) {
  int calls = 0;
  auto callable = [&calls](int x) { return calls += x; };
  const FunctionRef<int(int)> ref = callable;
  const FunctionRef<int(int)> copy = ref;
  EXPECT_EQ(ref(2), 2);
  EXPECT_EQ(copy(3), 5);
  EXPECT_EQ(calls, 5);
}

}  // namespace
}  // namespace rooftree

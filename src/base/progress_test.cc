#include "base/progress.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <string>

namespace rooftree {
namespace {

TEST(Progress, NothingIsWrittenWhereNobodyWatches) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    ProgressLine line(file);
    line.update(0.5, "measuring");
    EXPECT_FALSE(line.cancelled());
  }
  EXPECT_EQ(std::ftell(file), 0);
  std::fclose(file);
}

TEST(Progress, InterruptSetsAFlagOnce) {
  {
    const InterruptGuard guard;
    EXPECT_FALSE(InterruptGuard::interrupted());
    raise(SIGINT);
    EXPECT_TRUE(InterruptGuard::interrupted());
  }
  {
    const InterruptGuard guard;
    EXPECT_FALSE(InterruptGuard::interrupted());
    raise(SIGTERM);
    EXPECT_TRUE(InterruptGuard::interrupted());
  }
}

TEST(ProgressDeathTest, ASecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        raise(SIGINT);
        raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(ProgressDeathTest, OneGuardAtATime) {
  const InterruptGuard guard;
  EXPECT_DEATH(InterruptGuard{}, "only one");
}

}  // namespace
}  // namespace rooftree

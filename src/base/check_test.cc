#include "base/check.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace rooftree {
namespace {

TEST(Check, WhatHoldsIsSilentAndEvaluatedOnce) {
  int evaluations = 0;
  ROOFTREE_CHECK(++evaluations == 1, "once");
  EXPECT_EQ(evaluations, 1);
}

TEST(CheckDeathTest, WhatFailsNamesThePlaceAndAborts) {
  EXPECT_EXIT(ROOFTREE_CHECK(1 + 1 == 3, "sums"), testing::KilledBySignal(SIGABRT),
              "check_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3 \\(sums\\)");
}

TEST(CheckDeathTest, AHandlerMayEndTheProcess) {
  EXPECT_EXIT(
      {
        set_check_handler([](const char*, int, const char*, const char*) { std::_Exit(70); });
        ROOFTREE_CHECK(false, "");
      },
      testing::ExitedWithCode(70), "");
}

TEST(CheckDeathTest, AHandlerThatReturnsDoesNotContinue) {
  EXPECT_EXIT(
      {
        set_check_handler([](const char*, int, const char*, const char*) {});
        ROOFTREE_CHECK(false, "");
        std::_Exit(0);
      },
      testing::KilledBySignal(SIGABRT), "");
}

TEST(Check, InstallingAHandlerReturnsThePreviousOne) {
  const CheckHandler mine = [](const char*, int, const char*, const char*) {};
  const CheckHandler original = set_check_handler(mine);
  EXPECT_NE(original, nullptr);
  EXPECT_EQ(set_check_handler(nullptr), mine);
  EXPECT_EQ(set_check_handler(original), original) << "null brings the first one back";
}

}  // namespace
}  // namespace rooftree

#include "serving/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/philox.h"

namespace rooftree::serving {
namespace {

std::vector<std::int32_t> tokens(std::int32_t count, std::int32_t first = 0) {
  std::vector<std::int32_t> t(static_cast<std::size_t>(count));
  std::iota(t.begin(), t.end(), first);
  return t;
}

TEST(BlockPool, GivesEveryBlockOnceAndThenNone) {
  BlockPool pool(3, 4);
  std::vector<BlockId> got;
  for (int i = 0; i < 3; ++i) got.push_back(pool.allocate().value());
  std::sort(got.begin(), got.end());
  EXPECT_EQ(got, (std::vector<BlockId>{0, 1, 2}));
  EXPECT_FALSE(pool.allocate().has_value());
  pool.release(1);
  EXPECT_EQ(pool.allocate().value(), 1);
  pool.check_invariants();
}

TEST(BlockPool, ASharedBlockIsNotWritableUntilOneOwnerIsLeft) {
  BlockPool pool(1, 4);
  const BlockId b = pool.allocate().value();
  EXPECT_TRUE(pool.writable(b));
  pool.retain(b);
  EXPECT_FALSE(pool.writable(b));
  pool.release(b);
  EXPECT_TRUE(pool.writable(b));
  EXPECT_EQ(pool.free_count(), 0);
  pool.release(b);
  EXPECT_EQ(pool.free_count(), 1);
}

TEST(BlockPool, FindsTheLongestPublishedPrefixButNeverTheLastToken) {
  BlockPool pool(4, 4);
  const auto prompt = tokens(12);
  PrefixHash chain = kPrefixRoot;
  std::vector<BlockId> blocks;
  for (std::size_t i = 0; i < 3; ++i) {
    blocks.push_back(pool.allocate().value());
    chain = extend(chain, std::span(prompt).subspan(4 * i, 4));
    pool.publish(blocks.back(), chain);
  }
  for (const BlockId b : blocks) pool.release(b);
  EXPECT_EQ(pool.free_count(), 4);
  EXPECT_EQ(pool.find_prefix(prompt), (std::vector<BlockId>{blocks[0], blocks[1]}));  // 12 tokens: the third has the last one
  EXPECT_EQ(pool.find_prefix(tokens(13)), blocks);
  EXPECT_EQ(pool.find_prefix(tokens(13, 1)), std::vector<BlockId>{});
  EXPECT_EQ(pool.references(blocks[0]), 2);
  EXPECT_EQ(pool.references(blocks[2]), 1);
  pool.check_invariants();
}

TEST(BlockPool, ForgetsTheLeastRecentlyReleasedContentFirst) {
  BlockPool pool(2, 1);
  const auto publish = [&](std::int32_t token) {
    const BlockId b = pool.allocate().value();
    pool.publish(b, extend(kPrefixRoot, std::span(&token, 1)));
    return b;
  };
  const BlockId old = publish(10);
  const BlockId young = publish(20);
  pool.release(old);
  pool.release(young);
  EXPECT_EQ(pool.allocate().value(), old);
  const std::int32_t gone[] = {10, 0};
  const std::int32_t kept[] = {20, 0};
  EXPECT_TRUE(pool.find_prefix(gone).empty());
  EXPECT_EQ(pool.find_prefix(kept), std::vector<BlockId>{young});
}

TEST(BlockPool, StaysConsistentUnderRandomUse) {
  BlockPool pool(7, 2);
  Philox random(1);
  std::vector<BlockId> owned;
  for (int step = 0; step < 20'000; ++step) {
    switch (random.below(4)) {
      case 0:
        if (const auto b = pool.allocate()) owned.push_back(*b);
        break;
      case 1:
        if (!owned.empty()) {
          const std::size_t i = random.below(owned.size());
          pool.release(owned[i]);
          owned.erase(owned.begin() + static_cast<std::ptrdiff_t>(i));
        }
        break;
      case 2:
        if (!owned.empty()) pool.publish(owned[random.below(owned.size())], random.below(5));
        break;
      default:
        if (!owned.empty()) {
          owned.push_back(owned[random.below(owned.size())]);
          pool.retain(owned.back());
        }
        break;
    }
    if (step % 64 == 0) pool.check_invariants();
  }
  for (const BlockId b : owned) pool.release(b);
  EXPECT_EQ(pool.free_count(), 7);
  pool.check_invariants();
}

TEST(BlockPoolDeath, ReleasingWhatNobodyOwnsIsOurBug) {
  BlockPool pool(1, 1);
  EXPECT_DEATH(pool.release(0), "nobody owns");
}

}  // namespace
}  // namespace rooftree::serving

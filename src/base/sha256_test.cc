#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string_view>

namespace rooftree {
namespace {

std::string hash(std::string_view text) {
  Sha256 sha;
  sha.update_values(std::span(text.data(), text.size()));
  return sha.hex();
}

// The examples of FIPS 180-4 (NIST's "SHA256.pdf") and the empty message.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

// One million times "a", from the same examples; also every split of a message gives the same digest.
TEST(Sha256, LongMessagesAndSplits) {
  EXPECT_EQ(hash(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>('A' + i % 50);
  for (std::size_t split = 0; split <= text.size(); ++split) {
    Sha256 sha;
    sha.update_values(std::span<const char>(text.data(), split));
    sha.update_values(std::span<const char>(text.data() + split, text.size() - split));
    ASSERT_EQ(sha.hex(), hash(text)) << split;
  }
}

// Lengths around a block, against `sha256sum`.
TEST(Sha256, PaddingAtTheEdgeOfABlock) {
  EXPECT_EQ(hash(std::string(55, 'a')), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(hash(std::string(56, 'a')), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(hash(std::string(64, 'a')), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

TEST(Sha256, RunsOnAfterADigest) {
  Sha256 sha;
  sha.update_values(std::span("a", 1));
  EXPECT_EQ(sha.hex(), hash("a"));
  sha.update_values(std::span("bc", 2));
  EXPECT_EQ(sha.hex(), hash("abc"));
  const Sha256 moved = std::move(sha);
  EXPECT_EQ(moved.hex(), hash("abc"));
}

}  // namespace
}  // namespace rooftree

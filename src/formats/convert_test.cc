#include "formats/convert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>

#include "formats/gguf_writer.h"
#include "formats/test_models.h"

namespace rooftree::formats {
namespace {

TEST(ConvertedType, MatricesOnly) {
  const auto type = [](std::string_view name, const std::vector<std::int64_t>& extents, DType wanted) {
    return converted_type(name, extents, DType::kF32, wanted);
  };
  EXPECT_EQ(type("blk.0.attn_q.weight", {64, 256}, DType::kQ4_0), DType::kQ4_0);
  EXPECT_EQ(type("blk.0.ffn_up_exps.weight", {8, 64, 256}, DType::kQ4K), DType::kQ4K);
  EXPECT_EQ(type("token_embd.weight", {512, 64}, DType::kQ4_0), DType::kQ4_0);
  // Kept as they are.
  EXPECT_EQ(type("output_norm.weight", {64}, DType::kQ4_0), DType::kF32);
  EXPECT_EQ(type("blk.0.attn_q_norm.weight", {4, 64}, DType::kQ4_0), DType::kF32);
  EXPECT_EQ(type("blk.0.ffn_gate_inp.weight", {8, 64}, DType::kQ4_0), DType::kF32);
  EXPECT_EQ(type("position_embd.weight", {512, 64}, DType::kQ4_0), DType::kF32);
  EXPECT_EQ(type("blk.0.ffn_up_exps.bias", {8, 64}, DType::kQ4_0), DType::kF32);
  // Rows that do not fill the blocks.
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 172}, DType::kQ4_0), DType::kF16);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 160}, DType::kQ4K), DType::kQ5_0);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 160}, DType::kQ6K), DType::kQ8_0);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 160}, DType::kQ5K), DType::kQ5_1);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 160}, DType::kQ2K), DType::kIq4Nl);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 160}, DType::kIq4Xs), DType::kIq4Nl);
  EXPECT_EQ(type("blk.0.ffn_down.weight", {64, 172}, DType::kQ6K), DType::kF16);
}

class Convert : public ::testing::Test {
 protected:
  // A model of one matrix (4, 64) and one vector.
  std::filesystem::path small(float value, DType type = DType::kF32) {
    GgufWriter writer;
    writer.set("general.architecture", std::string("llama"));
    EXPECT_TRUE(writer.declare("w.weight", type, {4, 64}));
    EXPECT_TRUE(writer.declare("b.bias", DType::kF32, {64}));
    std::vector<float> values(256, 1.0F);
    values[200] = value;
    std::vector<std::byte> bytes(row_bytes(type, 256));
    quantize_row(type, values, bytes);
    const std::filesystem::path path = folder_.path() / "small.gguf";
    EXPECT_TRUE(writer.open(path));
    EXPECT_TRUE(writer.append(bytes));
    EXPECT_TRUE(writer.append(std::as_bytes(std::span(values).first(64))));
    EXPECT_TRUE(writer.finish());
    return path;
  }
  std::string refusal(const std::filesystem::path& in, const ConvertOptions& options) {
    const auto report = convert_gguf(in, out_, options);
    return report ? "accepted" : report.error().message;
  }
  test::TestFolder folder_;
  std::filesystem::path out_ = folder_.path() / "out.gguf";
};

TEST_F(Convert, ReportsWhatItDid) {
  const auto report = convert_gguf(small(2.0F), out_, {.type = DType::kQ8_0});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->converted, 1);
  EXPECT_TRUE(report->fell_back.empty());
  EXPECT_EQ(report->bytes_in, 256U * 4 + 256);
  EXPECT_EQ(report->bytes_out, 8U * 34 + 256);
  ASSERT_EQ(report->shares.size(), 2U);
  EXPECT_EQ(report->shares[0].type, DType::kQ8_0);
  EXPECT_EQ(report->shares[0].bytes, 8U * 34);
  EXPECT_EQ(report->shares[1].tensors, 1);
  EXPECT_GT(report->relative_error, 0.0);
  EXPECT_LT(report->relative_error, 0.004);
  auto file = GgufFile::open(out_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(*file->integer("general.file_type"), 7);
  EXPECT_EQ(*file->text("general.architecture"), "llama");
  // And back: exact.
  const auto back = convert_gguf(out_, folder_.path() / "back.gguf", {.type = DType::kF32});
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->relative_error, 0.0);
}

TEST_F(Convert, Refusals) {
  EXPECT_NE(refusal(small(2.0F), {.type = DType::kMxint8})
                .find("weights of type mxint8 cannot be written to GGUF; expected one of f32, f16"),
            std::string::npos);
  EXPECT_NE(refusal(small(2.0F), {.type = DType::kTq1_0}).find("cannot be written"), std::string::npos);
  EXPECT_NE(refusal(small(std::numeric_limits<float>::quiet_NaN()), {.type = DType::kQ4_0})
                .find("tensor 'w.weight' has a value in row 3 that is not finite"),
            std::string::npos);
  EXPECT_NE(refusal(small(1e30F), {.type = DType::kF16}).find("not finite in f16"), std::string::npos);
  EXPECT_NE(refusal(small(2.0F, DType::kQ4_0), {.type = DType::kQ8_0}).find("already rounded to q4_0"), std::string::npos);
  EXPECT_EQ(refusal(small(2.0F, DType::kQ4_0), {.type = DType::kQ8_0, .requantize = true}), "accepted");
  EXPECT_NE(refusal(folder_.path() / "none.gguf", {}).find("cannot open"), std::string::npos);
  const std::filesystem::path in = small(2.0F);
  const auto same = convert_gguf(in, in, {});
  ASSERT_FALSE(same);
  EXPECT_NE(same.error().message.find("the output is the input"), std::string::npos);
}

class Stopper : public Progress {
 public:
  void update(double fraction, std::string_view) override { fraction_ = fraction; }
  [[nodiscard]] bool cancelled() const override { return true; }
  double fraction_ = 0;
};

TEST_F(Convert, StopsWhenCancelled) {
  Stopper stopper;
  EXPECT_EQ(refusal(small(2.0F), {.progress = &stopper}), "interrupted; nothing was written");
  EXPECT_GT(stopper.fraction_, 0.0);
  EXPECT_FALSE(std::filesystem::exists(out_));
}

// Whole files as llama-quantize writes them.
TEST_F(Convert, SameTensorsAsLlamaQuantize) {
  for (const auto& [from, to, type] :
       std::vector<std::tuple<const char*, const char*, DType>>{{"stories260k-f32.gguf", "stories260k-q8_0.gguf", DType::kQ8_0},
                                                                {"stories260k-f32.gguf", "stories260k-q4_0.gguf", DType::kQ4_0},
                                                                {"stories260k-f32.gguf", "stories260k-f16.gguf", DType::kF16},
                                                                {"llama-f32.gguf", "llama-q5_1.gguf", DType::kQ5_1}}) {
    const std::filesystem::path in = test::model_file(ROOFTREE_SOURCE_DIR, from, folder_);
    if (in.empty()) GTEST_SKIP() << "no reference models";
    ThreadPool pool({.threads = 2, .pin = false});
    const auto report = convert_gguf(in, out_, {.type = type, .pool = &pool});
    ASSERT_TRUE(report) << report.error().message;
    auto ours = GgufFile::open(out_), theirs = GgufFile::open(test::model_file(ROOFTREE_SOURCE_DIR, to, folder_));
    ASSERT_TRUE(ours) << ours.error().message;
    ASSERT_TRUE(theirs) << theirs.error().message;
    EXPECT_EQ(*ours->integer("general.file_type"), *theirs->integer("general.file_type")) << to;
    ASSERT_EQ(ours->tensors().size(), theirs->tensors().size());
    for (const std::string_view name : theirs->names()) {
      const auto a = ours->find(name), b = theirs->find(name);
      ASSERT_TRUE(a && b);
      EXPECT_EQ(a->type, b->type) << to << ' ' << name;
      EXPECT_TRUE(std::equal(a->bytes.begin(), a->bytes.end(), b->bytes.begin(), b->bytes.end())) << to << ' ' << name;
    }
  }
}

}  // namespace
}  // namespace rooftree::formats

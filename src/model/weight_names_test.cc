#include "model/weight_names.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "base/json.h"
#include "base/test_folder.h"
#include "model/gguf_config.h"

namespace rooftree::model {
namespace {

using Tensors = std::map<std::string, std::vector<std::int64_t>, std::less<>>;

std::int64_t count_of(const std::vector<std::int64_t>& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::int64_t{1}, std::multiplies<>());
}

Graph decode_graph(const Model& model) {
  auto graph = model.build(Phase::decode(1, 8));
  EXPECT_TRUE(graph.has_value()) << (graph ? "" : graph.error().message);
  return graph ? std::move(graph).value() : Graph{};
}

// Binds every weight that the graph's nodes read to tensors, checks that sizes fit and that no row of a tensor is used twice,
// and returns how many values of each tensor were used.
std::map<std::string, std::int64_t> bind_all(const Model& model, Naming naming, const Tensors& tensors) {
  const Graph graph = decode_graph(model);
  const auto has = [&](std::string_view name) { return tensors.contains(name); };
  std::map<std::string, std::int64_t> used;
  std::set<std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>> slices;
  const auto bind = [&](const Value& value, std::int64_t layer) {
    const std::string where = fmt::format("{} {} of layer {}", model.id, value.name, layer);
    const auto parts = weight_parts(model, naming, value, layer, has);
    ASSERT_TRUE(parts.has_value()) << where << ": " << parts.error().message;
    const std::int64_t k = weight_is_vector(value.name) ? 1 : value.shape.extents.back();
    std::int64_t rows = 0;
    for (const WeightPart& part : *parts) {
      const auto found = tensors.find(part.tensor);
      if (found == tensors.end()) {
        ASSERT_TRUE(part.optional && part.rows > 0) << where << ": no tensor " << part.tensor;
        rows += part.rows;
        continue;
      }
      using Change = WeightPart::Change;
      const bool transposed = part.change == Change::kTranspose || part.change == Change::kTransposeInterleave;
      const std::int64_t stored_k = transposed ? found->second.back() : k;
      const std::int64_t count = count_of(found->second);
      ASSERT_EQ(count % stored_k, 0) << where << ": " << part.tensor;
      ASSERT_EQ(part.row_step, 1);
      const std::int64_t stored_rows = count / stored_k;
      const std::int64_t taken = part.rows > 0 ? part.rows : stored_rows - part.first_row;
      ASSERT_LE(part.first_row + taken, stored_rows) << where << ": " << part.tensor;
      if (transposed) {
        const std::int64_t heads = std::max<std::int64_t>(part.heads, 1);
        ASSERT_EQ(taken, heads * k) << where << ": " << part.tensor;
        rows += heads * stored_k;
      } else {
        rows += taken;
      }
      if (slices.insert({part.tensor, part.first_row, taken, stored_k}).second) used[part.tensor] += taken * stored_k;
    }
    EXPECT_EQ(rows * k, static_cast<std::int64_t>(value.shape.count())) << where;
  };
  std::set<std::int32_t> layers;
  for (const Block& block : graph.blocks) {
    if (block.nodes.empty()) continue;
    std::set<std::uint32_t> weights;
    for (const Node& node : block.nodes) {
      for (const ValueId id : node.inputs) {
        if (id.valid() && graph[id].role == Role::kWeight) weights.insert(id.index);
      }
    }
    EXPECT_EQ(block.layers.empty(), block.name.substr(0, 5) != "layer");
    for (const std::uint32_t id : weights) {
      for (const std::int32_t layer : block.layers) bind(graph.values[id], layer);
      if (block.layers.empty()) bind(graph.values[id], -1);
    }
    for (const std::int32_t layer : block.layers) EXPECT_TRUE(layers.insert(layer).second);
  }
  EXPECT_EQ(layers.empty() ? -1 : *layers.rbegin(), static_cast<std::int32_t>(layers.size()) - 1);
  return used;
}

void expect_all_used(const std::map<std::string, std::int64_t>& used, const Tensors& tensors,
                     const std::set<std::string>& unused) {
  for (const auto& [name, extents] : tensors) {
    if (unused.contains(name)) continue;
    const auto found = used.find(name);
    EXPECT_EQ(found == used.end() ? 0 : found->second, count_of(extents)) << name;
  }
}

// ---------------------------------------------------------------- model files

const std::filesystem::path kModels = std::filesystem::path(ROOFTREE_SOURCE_DIR) / ".." / "shared" / "models";

// The file, unpacked where it is packed.
std::filesystem::path unpacked(const std::filesystem::path& packed, const test::TestFolder& folder) {
  if (packed.extension() != ".gz") return packed;
  const std::filesystem::path out = folder.path() / packed.stem();
  const std::string command = fmt::format("gzip -dc '{}' > '{}'", packed.string(), out.string());
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return out;
}

TEST(GgufModels, BindEveryTensor) {
  const auto index_text = read_file(kModels / "index.json", std::size_t{16} << 20);
  if (!index_text) GTEST_SKIP() << "no " << (kModels / "index.json").string();
  const auto index = parse_json(*index_text, "index.json");
  ASSERT_TRUE(index.has_value()) << index.error().message;
  const test::TestFolder folder;
  int files = 0;
  for (const Json& entry : (*index)["models"]) {
    const std::string name = entry["file"].get<std::string>();
    if (name.find(".gguf") == std::string::npos) continue;
    SCOPED_TRACE(name);
    ++files;
    const auto file = formats::GgufFile::open(unpacked(kModels / name, folder));
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto model = parse_gguf(*file);
    ASSERT_TRUE(model.has_value()) << model.error().message;
    EXPECT_TRUE(model->numerics().has_value()) << model->not_executable;
    EXPECT_EQ(model->family, entry["arch"].get<std::string>());
    Tensors tensors;
    std::int64_t parameters = 0;
    for (const formats::TensorView& tensor : file->tensors()) {
      tensors.emplace(tensor.name, tensor.extents);
      parameters += count_of(tensor.extents);
    }
    EXPECT_EQ(parameters, entry["parameters"].get<std::int64_t>());
    const auto used = bind_all(*model, Naming::kGguf, tensors);
    expect_all_used(used, tensors, {"rope_freqs.weight"});
    const double of_graph = parameter_count(decode_graph(*model));
    const auto factors = tensors.find("rope_freqs.weight");
    EXPECT_EQ(of_graph, static_cast<double>(parameters - (factors == tensors.end() ? 0 : count_of(factors->second))));
  }
  EXPECT_GE(files, 30);
}

}  // namespace
}  // namespace rooftree::model

// Joins the tables of kernels/cpu into a Backend: chooses kernels by weight type and instruction set, and cuts the work between
// workers. Which worker computes what never changes a result: products are cut by outputs, rows by rows (by columns when there
// are fewer rows than workers).

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/cpu/tables.h"

namespace rooftree::kernels {
namespace {

using cpu::ProductKernels;

std::int64_t unit_count(const ProductKernels& kernels, std::int64_t n) { return (n + kernels.unit - 1) / kernels.unit; }

// Columns of a row operator are cut at whole cache lines.
constexpr std::int64_t kColumnGrain = 16;
// A unit of a product costs one pass over its weights and work per row; about eight rows take as long as the pass.
constexpr std::int64_t kPassInRows = 8;

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuFeatures& features)
      : features_(features),
        name_("cpu " + std::string(rooftree::name(features.isa()))),
        rows_(cpu::row_kernels(features)),
        attention_(cpu::attention_kernels(features)) {
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto type = static_cast<DType>(i);
      const ProductKernels* kernels = cpu::block_products(type, features);
      products_[static_cast<std::size_t>(i)] = kernels != nullptr ? kernels : cpu::float_products(type, features);
    }
  }

  [[nodiscard]] const CpuFeatures& features() const { return features_; }
  [[nodiscard]] std::string_view name() const override { return name_; }

  [[nodiscard]] Result<std::size_t> packed_bytes(DType type, std::int64_t n, std::int64_t k) const override {
    const auto refuse = [&](const std::string& why) {
      return Error{ErrorCode::kInvalid, name_ + ": weights of type " + std::string(rooftree::name(type)) + ": " + why};
    };
    const ProductKernels* kernels = products_[static_cast<std::size_t>(type)];
    if (kernels == nullptr) return refuse("there is no product with this type; convert it to one that has");
    if (n < 1 || k < 1 || k % kernels->k_multiple != 0) {
      return refuse("shape " + std::to_string(n) + " x " + std::to_string(k) +
                    "; expected positive extents and rows of a multiple of " + std::to_string(kernels->k_multiple));
    }
    return kernels->packed_bytes(n, k);
  }
  void pack(const Worker& worker, const PackArgs& args) const override {
    const ProductKernels& kernels = products(args.type);
    const Range units = worker.share(unit_count(kernels, args.n));
    if (units.size() > 0) kernels.pack(args, units);
  }
  void unpack_row(const PackedMatrix& matrix, std::int64_t row, std::span<float> out) const override {
    products(matrix.type).unpack_row(matrix, row, out);
  }

  [[nodiscard]] std::size_t activation_bytes(Product product, std::int64_t rows, std::int64_t k) const override {
    return products(product).activation_bytes(rows, k);
  }
  void pack_activations(const Worker& worker, const PackActivationsArgs& args) const override {
    const ProductKernels& kernels = products(args.product);
    const Range rows = worker.share(args.rows, kernels.activation_grain(args.rows));
    if (rows.size() > 0) kernels.pack_activations(args, rows);
  }
  void multiply(const Worker& worker, const MultiplyArgs& args) const override {
    const ProductKernels& kernels = products(args.weight.type);
    const Range units = worker.share(unit_count(kernels, args.weight.n));
    if (units.size() > 0 && args.rows > 0) kernels.multiply(args, units);
  }
  void multiply_grouped(const Worker& worker, std::span<const MultiplyArgs> groups) const override {
    // Units are laid out on a line by cost, and a worker takes those that begin in its part of the line.
    const auto cost = [](const MultiplyArgs& g) { return g.rows == 0 ? 0 : std::max(g.rows, kPassInRows); };
    std::int64_t total = 0;
    for (const MultiplyArgs& g : groups) total += cost(g) * unit_count(products(g.weight.type), g.weight.n);
    const Range mine = worker.share(total);
    std::int64_t start = 0;
    for (const MultiplyArgs& g : groups) {
      const std::int64_t units = unit_count(products(g.weight.type), g.weight.n), each = cost(g);
      if (each == 0) continue;
      const auto first_from = [&](std::int64_t place) {  // the first unit that begins at or after it
        return std::clamp<std::int64_t>((place - start + each - 1) / each, 0, units);
      };
      const Range range{mine.begin <= start ? 0 : first_from(mine.begin), mine.end <= start ? 0 : first_from(mine.end)};
      if (range.size() > 0) products(g.weight.type).multiply(g, range);
      start += units * each;
    }
  }

  void embed(const Worker& worker, const EmbedArgs& args) const override {
    const ProductKernels& kernels = products(args.table.type);
    const Range rows = worker.share(static_cast<std::int64_t>(args.ids.size()));
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      const std::span<float> y(args.y.data + i * args.y.stride, static_cast<std::size_t>(args.table.k));
      kernels.unpack_row(args.table, args.ids[static_cast<std::size_t>(i)], y);
      if (args.scale == 1.0F) continue;
      for (float& v : y) v *= args.scale;
    }
  }

  void norm(const Worker& worker, const NormArgs& args) const override {
    const Range rows = worker.share(args.rows);
    if (rows.size() > 0) rows_.norm(args, rows);
  }
  void rope(const Worker& worker, const RopeArgs& args) const override {
    const Range rows = worker.share(args.rows);
    if (rows.size() > 0) rows_.rope(args, rows);
  }
  void activation(const Worker& worker, const ActivationArgs& args) const override {
    by_rows_or_columns(worker, args, rows_.activation);
  }
  void add(const Worker& worker, const AddArgs& args) const override { by_rows_or_columns(worker, args, rows_.add); }
  void scale(const Worker& worker, const ScaleArgs& args) const override { by_rows_or_columns(worker, args, rows_.scale); }
  void route(const Worker& worker, const RouteArgs& args) const override {
    const Range rows = worker.share(args.rows);
    if (rows.size() > 0) rows_.route(args, rows);
  }
  void combine(const Worker& worker, const CombineArgs& args) const override {
    by_rows_or_columns(worker, args, rows_.combine);
  }

  [[nodiscard]] std::size_t kv_page_bytes(const KvShape& shape) const override { return attention_.page_bytes(shape); }
  void kv_write(const Worker& worker, const KvWriteArgs& args) const override { attention_.write(worker, args); }
  void attention(const Worker& worker, const AttentionArgs& args) const override { attention_.attend(worker, args); }

 private:
  [[nodiscard]] const ProductKernels& products(DType type) const {
    const ProductKernels* kernels = products_[static_cast<std::size_t>(type)];
    ROOFTREE_CHECK(kernels != nullptr, "a matrix of a type that packed_bytes refuses");
    return *kernels;
  }
  // Activations have one layout per product: any of its weight types knows it.
  [[nodiscard]] const ProductKernels& products(Product product) const {
    switch (product) {
      case Product::kBlock32:
        return products(DType::kQ8_0);
      case Product::kBlock256:
        return products(DType::kQ4K);
      case Product::kBf16:
        return products(DType::kBf16);
      case Product::kF16:
        return products(DType::kF16);
      case Product::kF32:
        break;
    }
    return products(DType::kF32);
  }

  template <class Args>
  static void by_rows_or_columns(const Worker& worker, const Args& args, void (*kernel)(const Args&, Range, Range)) {
    if (args.rows >= worker.count) {
      const Range rows = worker.share(args.rows);
      if (rows.size() > 0) kernel(args, rows, {0, args.width});
    } else {
      const Range columns = worker.share(args.width, kColumnGrain);
      if (columns.size() > 0) kernel(args, {0, args.rows}, columns);
    }
  }

  CpuFeatures features_;
  std::string name_;
  const cpu::RowKernels& rows_;
  const cpu::AttentionKernels& attention_;
  std::array<const ProductKernels*, kDTypeCount> products_{};
};

}  // namespace

const Backend& cpu_backend(const CpuFeatures& features) {
  // One per set of features that was ever asked for: a handful (the machine's own, and those that tests limit it to).
  static std::mutex mutex;
  static std::vector<std::unique_ptr<CpuBackend>> backends;
  const std::lock_guard lock(mutex);
  for (const auto& backend : backends) {
    if (backend->features() == features) return *backend;
  }
  return *backends.emplace_back(std::make_unique<CpuBackend>(features));
}

}  // namespace rooftree::kernels

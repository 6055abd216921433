#include "engine/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <set>

#include "base/check.h"
#include "base/philox.h"
#include "engine/byte_hash.h"
#include "formats/block_codec.h"

namespace rooftree::engine {
namespace {

using formats::TensorView;
using Change = model::WeightPart::Change;

constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The type of the rows that a backend packs into `type`.
DType row_type(DType type) { return type == DType::kBf16Lossless12 ? DType::kBf16 : type; }

std::string extents_text(const TensorView& view) {
  std::string text;
  for (const std::int64_t e : view.extents) text += fmt::format("{}{}", text.empty() ? "" : " x ", e);
  return text.empty() ? "a scalar" : text;
}

std::int64_t count_of(const TensorView& view) {
  std::int64_t count = 1;
  for (const std::int64_t e : view.extents) count *= e;
  return count;
}

bool transposes(const model::WeightPart& part) {
  return part.change == Change::kTranspose || part.change == Change::kTransposeInterleave;
}

// Row `row` of `rows` where gate and up alternate in the file and are wanted one behind the other.
std::int64_t deinterleaved(std::int64_t row, std::int64_t rows) { return row < rows / 2 ? 2 * row : 2 * (row - rows / 2) + 1; }

bool is_block_type(DType type) { return formats::block_form(type).values > 1; }

// Rows of one piece as floats or in another type.
class RowReader {
 public:
  RowReader(const model::WeightPart& part, DType type, std::int64_t stored_k, std::int64_t slice_rows,
            std::span<const std::byte> bytes)
      : part_(part), type_(type), k_(stored_k), slice_rows_(slice_rows), bytes_(bytes) {
    row_bytes_ = formats::row_bytes(type, stored_k);
  }
  // A transposed piece is read column by column: its rows are made floats first.
  void widen_slice() {
    slice_.resize(static_cast<std::size_t>(slice_rows_ * k_));
    for (std::int64_t i = 0; i < slice_rows_; ++i) {
      const std::span<float> out(slice_.data() + i * k_, static_cast<std::size_t>(k_));
      formats::dequantize_row(type_, stored(stored_row(i)), out);
    }
  }
  [[nodiscard]] bool plain() const { return part_.change == Change::kNone || part_.change == Change::kInterleave; }
  [[nodiscard]] std::span<const std::byte> raw(std::int64_t row) const { return stored(stored_row(row)); }

  void floats(std::int64_t row, std::span<float> out) const {
    if (transposes(part_)) {
      const std::int64_t heads = std::max<std::int64_t>(part_.heads, 1);
      const std::int64_t height = slice_rows_ / heads;  // = out.size()
      const std::int64_t head = row / k_;
      const bool alternate = part_.change == Change::kTransposeInterleave;
      const std::int64_t column = alternate ? deinterleaved(row % k_, k_) : row % k_;
      const float* source = slice_.data() + head * height * k_ + column;
      for (std::int64_t j = 0; j < height; ++j) out[static_cast<std::size_t>(j)] = source[j * k_];
      return;
    }
    formats::dequantize_row(type_, raw(row), out);
    if (part_.change == Change::kAddOne) {
      for (float& v : out) v += 1.0F;
    }
  }

 private:
  [[nodiscard]] std::int64_t stored_row(std::int64_t row) const {
    if (part_.change == Change::kInterleave) {
      return part_.first_row + deinterleaved(row, slice_rows_);
    }
    return part_.first_row + row * part_.row_step;
  }
  [[nodiscard]] std::span<const std::byte> stored(std::int64_t row) const {
    return bytes_.subspan(static_cast<std::size_t>(row) * row_bytes_, row_bytes_);
  }

  const model::WeightPart& part_;
  DType type_;
  std::int64_t k_, slice_rows_;
  std::span<const std::byte> bytes_;
  std::size_t row_bytes_ = 0;
  std::vector<float> slice_;
};

}  // namespace

Result<std::vector<Weights::Piece>> Weights::find_pieces(const model::Value& value, std::int32_t layer, std::int64_t rows,
                                                         std::int64_t k, const std::string& where) const {
  const auto has = [&](std::string_view name) { return files_.tensors->contains(name); };
  ROOFTREE_TRY(std::vector<model::WeightPart> parts,
               model::weight_parts(files_.model, files_.naming, value, std::max(layer, 0), has));
  std::vector<Piece> pieces;
  std::int64_t known = 0;
  Piece* unknown = nullptr;
  pieces.reserve(parts.size());
  for (model::WeightPart& part : parts) {
    Piece piece;
    piece.part = std::move(part);
    if (piece.part.optional && !files_.tensors->contains(piece.part.tensor)) {
      piece.missing = true;
      piece.rows = piece.part.rows;
      known += piece.rows;
      pieces.push_back(std::move(piece));
      if (pieces.back().rows == 0) {
        if (unknown != nullptr) return Error{ErrorCode::kInvalid, where + ": more than one absent part of unknown size"};
        unknown = &pieces.back();
      }
      continue;
    }
    auto found = files_.tensors->describe(piece.part.tensor);
    if (!found) return found.error().within(where);
    const TensorView& view = *found;
    const auto wrong = [&](const std::string& expected) {
      return Error{ErrorCode::kInvalid, fmt::format("{}: tensor {} is {} of {}; expected {}", where, piece.part.tensor,
                                                    extents_text(view), name(view.type), expected)};
    };
    if (!formats::can_dequantize(view.type)) return wrong("a type that holds weights");
    const bool transposed = transposes(piece.part);
    piece.type = view.type;
    piece.stored_k = transposed ? view.k() : k;
    if (piece.stored_k < 1 || count_of(view) % piece.stored_k != 0 ||
        (view.k() != piece.stored_k && is_block_type(view.type))) {
      return wrong(fmt::format("rows of {} values", k));
    }
    piece.stored_rows = count_of(view) / piece.stored_k;
    piece.slice_rows = piece.part.rows > 0 ? piece.part.rows : piece.stored_rows - piece.part.first_row;
    const std::int64_t last = piece.part.first_row + (piece.slice_rows - 1) * piece.part.row_step;
    if (piece.slice_rows < 1 || last >= piece.stored_rows) {
      return wrong(fmt::format("at least {} rows of {} values", last + 1, piece.stored_k));
    }
    const std::int64_t heads = std::max<std::int64_t>(piece.part.heads, 1);
    piece.rows = transposed ? heads * piece.stored_k : piece.slice_rows;
    if (transposed && (piece.slice_rows % heads != 0 || piece.slice_rows / heads != k)) {
      return wrong(fmt::format("columns of {} values", k * heads));
    }
    known += piece.rows;
    pieces.push_back(std::move(piece));
  }
  if (unknown != nullptr) unknown->rows = rows - known;
  std::int64_t first = 0;
  for (Piece& piece : pieces) {
    piece.first_row = first;
    first += piece.rows;
  }
  if (first != rows || (unknown != nullptr && unknown->rows < 1)) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{}: the stored tensors have {} rows of {} values; expected {}{}", where, first, k, rows,
                             pieces.empty() ? "" : fmt::format(" (first: {})", pieces[0].part.tensor))};
  }
  return pieces;
}

Result<DType> Weights::choose_type(const Piece& piece, std::int64_t k, WeightUse use, const std::string& where) const {
  if (options_.exact || piece.missing) return DType::kF32;
  DType stored = piece.type;
  // Blocks run along the stored rows: transposed, their values are kept as the floats that they stand for.
  if (transposes(piece.part) && is_block_type(stored)) stored = DType::kF32;
  if (!options_.type.has_value() || use == WeightUse::kSmall || *options_.type == piece.type) return stored;
  const DType wanted = *options_.type;
  if (k % std::max(formats::block_form(row_type(wanted)).values, 1) != 0) {
    // Rows that are no whole number of blocks stay 16 bits wide, as the field's quantiser leaves them.
    return stored == DType::kF32 ? DType::kF16 : stored;
  }
  if (row_type(wanted) != wanted && stored != row_type(wanted) && stored != DType::kF32 && stored != DType::kF16) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: stored as {}; {} holds bf16 without loss and nothing else", where,
                                                  name(stored), name(wanted))};
  }
  if (wanted != DType::kF32 && !formats::can_quantize(row_type(wanted))) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: weights cannot be made {} on load", where, name(wanted))};
  }
  return wanted;
}

void Weights::note_level(const MatrixPlan& plan) {
  for (const MatrixPart& part : plan.bound.matrices.front()) {
    const kernels::Level level = kernels::level_of(part.product);
    std::string& example = examples_[static_cast<int>(level)];
    if (example.empty()) example = fmt::format("{} ({})", plan.name, name(part.matrix.type));
    level_ = std::max(level_, level);
  }
}

Result<const BoundMatrix*> Weights::matrix(const model::Value& value, std::int32_t layer, std::int64_t count, std::int64_t n,
                                           std::int64_t k, WeightUse use) {
  if (value.block < 0) layer = -1;
  const Key key{value.name, layer};
  if (const auto it = matrix_index_.find(key); it != matrix_index_.end()) {
    const BoundMatrix& bound = it->second->bound;
    ROOFTREE_CHECK(bound.count == count && bound.n == n && bound.k == k, "a weight is used in two shapes");
    if (use != WeightUse::kLookup) note_level(*it->second);
    return &bound;
  }
  MatrixPlan plan;
  plan.name = layer >= 0 ? fmt::format("layer {} {}", layer, value.name) : value.name;
  plan.layer = layer;
  plan.bound.count = count;
  plan.bound.n = n;
  plan.bound.k = k;
  ROOFTREE_TRY(plan.pieces, find_pieces(value, layer, count * n, k, plan.name));
  if (use == WeightUse::kProduct && n == 1) use = WeightUse::kSmall;

  // Pieces of one type become one packed matrix, never across the border of two experts.
  plan.bound.matrices.resize(static_cast<std::size_t>(count));
  for (const Piece& piece : plan.pieces) {
    ROOFTREE_TRY(DType type, choose_type(piece, k, use, plan.name));
    if (auto packed = backend_.packed_bytes(type, n, k); !packed) {
      // A type that the backend does not multiply still runs as the floats that it stands for; the level says so.
      if (type != piece.type || type == DType::kF32) return packed.error().within(plan.name);
      type = DType::kF32;
    }
    std::int64_t row = piece.first_row;
    const std::int64_t end = piece.first_row + piece.rows;
    while (row < end) {
      const std::int64_t index = row / n;
      const std::int64_t stop = std::min(end, (index + 1) * n);
      std::vector<MatrixPart>& parts = plan.bound.matrices[static_cast<std::size_t>(index)];
      if (!parts.empty() && parts.back().matrix.type == type) {
        parts.back().matrix.n += stop - row;
      } else {
        const kernels::Product product = options_.exact ? kernels::Product::kF32 : kernels::product_of(type);
        parts.push_back({.matrix = {.type = type, .n = stop - row, .k = k}, .first_row = row - index * n, .product = product});
      }
      row = stop;
    }
  }
  for (std::vector<MatrixPart>& parts : plan.bound.matrices) {
    const std::vector<MatrixPart>& first = plan.bound.matrices.front();
    const bool same = std::equal(
        parts.begin(), parts.end(), first.begin(), first.end(),
        [](const MatrixPart& a, const MatrixPart& b) { return a.matrix.type == b.matrix.type && a.matrix.n == b.matrix.n; });
    if (!same) return Error{ErrorCode::kInvalid, plan.name + ": its matrices differ in type; expected one type for all"};
    for (MatrixPart& part : parts) {
      ROOFTREE_TRY(part.matrix.bytes, backend_.packed_bytes(part.matrix.type, part.matrix.n, k));
      packed_bytes_ += aligned(part.matrix.bytes);
      std::size_t most = part.matrix.bytes;
      if (part.matrix.type == DType::kBf16Lossless12) {
        ROOFTREE_TRY(most, backend_.packed_bytes(DType::kBf16, part.matrix.n, k));
      }
      most_packed_bytes_ += aligned(most);
    }
  }
  matrices_.push_back(std::move(plan));
  MatrixPlan& kept = matrices_.back();
  matrix_index_.emplace(key, &kept);
  if (use != WeightUse::kLookup) note_level(kept);
  return &kept.bound;
}

Result<const float*> Weights::vector(const model::Value& value, std::int32_t layer, std::int64_t count) {
  if (value.block < 0) layer = -1;
  const Key key{value.name, layer};
  if (const auto it = vector_index_.find(key); it != vector_index_.end()) return it->second->values.data();
  VectorPlan plan;
  plan.name = layer >= 0 ? fmt::format("layer {} {}", layer, value.name) : value.name;
  // A vector is a column of single values; every stored row holds one.
  ROOFTREE_TRY(plan.pieces, find_pieces(value, layer, count, 1, plan.name));
  for (const Piece& piece : plan.pieces) {
    if (!piece.missing && is_block_type(piece.type)) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("{}: tensor {} is {}; expected a plain type", plan.name, piece.part.tensor, name(piece.type))};
    }
  }
  plan.values.resize(static_cast<std::size_t>(count));
  vectors_.push_back(std::move(plan));
  vector_index_.emplace(key, &vectors_.back());
  return vectors_.back().values.data();
}

Status Weights::load_vector(VectorPlan& plan) {
  for (const Piece& piece : plan.pieces) {
    const std::span<float> out(plan.values.data() + piece.first_row, static_cast<std::size_t>(piece.rows));
    if (piece.missing) {
      std::fill(out.begin(), out.end(), 0.0F);
      continue;
    }
    auto view = files_.tensors->find(piece.part.tensor);
    if (!view) return view.error().within(plan.name);
    RowReader reader(piece.part, piece.type, piece.stored_k, piece.slice_rows, view->bytes);
    if (transposes(piece.part)) reader.widen_slice();
    for (std::int64_t i = 0; i < piece.rows; ++i) reader.floats(i, out.subspan(static_cast<std::size_t>(i), 1));
    files_.tensors->release(piece.part.tensor);
  }
  return Ok{};
}

class Weights::Sink {
 public:
  virtual ~Sink() = default;
  // `planned`: the bytes of the part before its type was final.
  virtual Result<std::byte*> place(MatrixPart& part, std::size_t planned) = 0;
  virtual Status keep(const MatrixPart& part) = 0;
  virtual void begin(const MatrixPlan&) {}
};

// Storage was planned for every part. One that turned out larger gets memory of its own.
class Weights::MemorySink final : public Sink {
 public:
  MemorySink(std::byte* arena, std::vector<Arena>& others) : arena_(arena), others_(others) {}
  Result<std::byte*> place(MatrixPart& part, std::size_t planned) override {
    std::byte* out = arena_ + offset_;
    offset_ += aligned(planned);
    if (part.matrix.bytes > planned) {
      ROOFTREE_TRY(Arena own, Arena::make(part.matrix.bytes, true));
      out = own.data();
      others_.push_back(std::move(own));
    }
    part.matrix.data = out;
    return out;
  }
  Status keep(const MatrixPart&) override { return Ok{}; }

 private:
  std::byte* arena_;
  std::size_t offset_ = 0;
  std::vector<Arena>& others_;
};

// One part after the other through one buffer into the file; each layer from the start of a page.
class Weights::FileSink final : public Sink {
 public:
  FileSink(WeightFileWriter& writer, std::uint64_t offset) : writer_(writer), offset_(offset) {}
  void begin(const MatrixPlan& plan) override {
    if (plan.layer != layer_) offset_ = page_up(offset_);
    layer_ = plan.layer;
  }
  Result<std::byte*> place(MatrixPart& part, std::size_t) override {
    if (buffer_.bytes() < part.matrix.bytes) {
      buffer_ = Arena();
      ROOFTREE_TRY(buffer_, Arena::make(part.matrix.bytes, true));
    }
    return buffer_.data();
  }
  Status keep(const MatrixPart& part) override {
    ROOFTREE_TRY_VOID(writer_.write(offset_, {buffer_.data(), part.matrix.bytes}));
    offset_ += aligned(part.matrix.bytes);
    return Ok{};
  }
  [[nodiscard]] std::uint64_t end() const { return page_up(offset_); }

 private:
  WeightFileWriter& writer_;
  std::uint64_t offset_;
  std::int32_t layer_ = -1;
  Arena buffer_;
};

Status Weights::load_matrix(MatrixPlan& plan, ThreadPool& pool, std::vector<std::byte>& staging, Sink& sink) {
  const std::int64_t K = plan.bound.k;
  std::size_t next_piece = 0;
  for (std::int64_t index = 0; index < plan.bound.count; ++index) {
    for (MatrixPart& part : plan.bound.matrices[static_cast<std::size_t>(index)]) {
      const std::int64_t begin = index * plan.bound.n + part.first_row;
      const std::int64_t end = begin + part.matrix.n;
      const DType rows_type = row_type(part.matrix.type);
      const std::size_t row_bytes = formats::row_bytes(rows_type, K);
      const std::byte* rows = nullptr;
      while (plan.pieces[next_piece].first_row + plan.pieces[next_piece].rows <= begin) ++next_piece;
      for (std::size_t p = next_piece; p < plan.pieces.size() && plan.pieces[p].first_row < end; ++p) {
        const Piece& piece = plan.pieces[p];
        const std::int64_t from = std::max(begin, piece.first_row), to = std::min(end, piece.first_row + piece.rows);
        if (!piece.missing) {
          auto view = files_.tensors->find(piece.part.tensor);
          if (!view) return view.error().within(plan.name);
          RowReader reader(piece.part, piece.type, piece.stored_k, piece.slice_rows, view->bytes);
          const bool as_stored = piece.type == rows_type && reader.plain();
          if (as_stored && piece.part.change == Change::kNone && piece.part.row_step == 1 && from == begin && to == end) {
            rows = reader.raw(from - piece.first_row).data();
            break;
          }
          if (transposes(piece.part)) reader.widen_slice();
          staging.resize(static_cast<std::size_t>(end - begin) * row_bytes);
          pool.parallel_for(to - from, [&](Range range, const Worker&) {
            std::vector<float> values(static_cast<std::size_t>(K));
            for (std::int64_t i = range.begin; i < range.end; ++i) {
              const std::int64_t row = from - piece.first_row + i;
              const std::span<std::byte> target(staging.data() + static_cast<std::size_t>(from - begin + i) * row_bytes,
                                                row_bytes);
              if (as_stored) {
                std::memcpy(target.data(), reader.raw(row).data(), row_bytes);
                continue;
              }
              reader.floats(row, values);
              if (rows_type == DType::kF32) {
                std::memcpy(target.data(), values.data(), row_bytes);
              } else {
                formats::quantize_row(rows_type, values, target);
              }
            }
          });
        } else {
          staging.resize(static_cast<std::size_t>(end - begin) * row_bytes);
          std::memset(staging.data() + static_cast<std::size_t>(from - begin) * row_bytes, 0,
                      static_cast<std::size_t>(to - from) * row_bytes);
        }
        rows = staging.data();
      }
      const std::size_t planned = part.matrix.bytes;
      if (part.matrix.type == DType::kBf16Lossless12 && !kernels::fits_lossless12(part.matrix.n, K, rows)) {
        // Its values need more than 12 bits: it stays plain bf16, which multiplies with the same bits.
        part.matrix.type = DType::kBf16;
        ROOFTREE_TRY(part.matrix.bytes, backend_.packed_bytes(DType::kBf16, part.matrix.n, K));
        packed_bytes_ += aligned(part.matrix.bytes) - aligned(planned);
      }
      ROOFTREE_TRY(std::byte* const out, sink.place(part, planned));
      const kernels::PackArgs args{.type = part.matrix.type, .n = part.matrix.n, .k = K, .rows = rows, .out = out};
      pool.run([&](const Worker& worker) { backend_.pack(worker, args); });
      ROOFTREE_TRY_VOID(sink.keep(part));
    }
  }
  for (const Piece& piece : plan.pieces) {
    if (!piece.missing) files_.tensors->release(piece.part.tensor);
  }
  return Ok{};
}

Status Weights::pack_all(ThreadPool& pool, Sink& sink, Progress* progress) {
  for (VectorPlan& plan : vectors_) ROOFTREE_TRY_VOID(load_vector(plan));
  std::vector<std::byte> staging;
  std::uint64_t done = 0;
  for (const Group& group : groups()) {
    for (MatrixPlan* plan : group.plans) {
      if (progress != nullptr) {
        progress->update(static_cast<double>(done) / static_cast<double>(packed_bytes_), "packing weights");
        if (progress->cancelled()) return Error{ErrorCode::kEnvironment, "loading: interrupted"};
      }
      sink.begin(*plan);
      ROOFTREE_TRY_VOID(load_matrix(*plan, pool, staging, sink));
      for (const std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (const MatrixPart& part : parts) done += aligned(part.matrix.bytes);
      }
    }
  }
  if (progress != nullptr) progress->update(1.0, "packing weights");
  return Ok{};
}

// ---- files of packed weights

std::vector<Weights::Group> Weights::groups() {
  std::vector<Group> all(1);
  std::vector<MatrixPlan*> plans;
  for (MatrixPlan& plan : matrices_) plans.push_back(&plan);
  std::stable_sort(plans.begin(), plans.end(), [](const MatrixPlan* a, const MatrixPlan* b) { return a->layer < b->layer; });
  for (MatrixPlan* plan : plans) {
    if (plan->layer != all.back().layer) all.push_back({.layer = plan->layer, .plans = {}});
    all.back().plans.push_back(plan);
  }
  return all;
}

std::uint64_t Weights::place_groups(std::vector<Group>& groups, std::uint64_t header_bytes) const {
  std::uint64_t offset = header_bytes;
  for (Group& group : groups) {
    group.offset = offset;
    for (const MatrixPlan* plan : group.plans) {
      for (const std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (const MatrixPart& part : parts) offset += aligned(part.matrix.bytes);
      }
    }
    offset = page_up(offset);
    group.bytes = offset - group.offset;
  }
  return offset;
}

Result<std::size_t> Weights::choose_resident(const std::vector<Group>& groups, std::uint64_t most) const {
  std::uint64_t total = 0;
  for (const Group& group : groups) total += group.bytes;
  if (total <= most) return groups.size();
  // From all but the last layer down: the first that leaves room for two buffers.
  std::uint64_t kept = total, largest = 0, needed = total;
  for (std::size_t count = groups.size(); count-- > 1;) {
    kept -= groups[count].bytes;
    largest = std::max(largest, groups[count].bytes);
    needed = std::min(needed, kept + 2 * largest);
    if (kept + 2 * largest <= most) return count;
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("{}: {} bytes are left for weights; expected {} for those outside layers and two layers at a time",
                           files_.model.id, most, needed)};
}

// The layout that a backend gives to matrices of a type, by its bytes for one of random values: a change of layout must not
// meet files of the layout before it.
std::string Weights::cache_key() const {
  std::set<DType> types;
  for (const MatrixPlan& plan : matrices_) {
    for (const MatrixPart& part : plan.bound.matrices.front()) types.insert(part.matrix.type);
  }
  if (types.contains(DType::kBf16Lossless12)) types.insert(DType::kBf16);
  std::string layouts;
  constexpr std::int64_t N = 83, K = 768;  // whole tiles and a rest; three of the largest blocks
  for (const DType type : types) {
    const DType rows_type = row_type(type);
    const std::size_t row_bytes = formats::row_bytes(rows_type, K);
    const auto bytes = backend_.packed_bytes(type, N, K);
    if (!bytes || row_bytes == 0) continue;
    std::vector<float> values(K);
    std::vector<std::byte> rows(static_cast<std::size_t>(N) * row_bytes);
    const Philox random(0x1A7007);
    for (std::int64_t n = 0; n < N; ++n) {
      for (std::int64_t k = 0; k < K; ++k) {
        values[static_cast<std::size_t>(k)] =
            static_cast<float>(random.uniform_at(static_cast<std::uint64_t>(n * K + k))) + 0.5F;
      }
      const std::span<std::byte> row(rows.data() + static_cast<std::size_t>(n) * row_bytes, row_bytes);
      if (rows_type == DType::kF32) {
        std::memcpy(row.data(), values.data(), row_bytes);
      } else if (formats::can_quantize(rows_type)) {
        formats::quantize_row(rows_type, values, row);
      }
    }
    auto arena = Arena::make(*bytes, false);  // zeros where the backend writes nothing
    if (!arena) continue;
    backend_.pack(Worker::alone(), {.type = type, .n = N, .k = K, .rows = rows.data(), .out = arena->data()});
    layouts += fmt::format(" {}:{:016x}", name(type), hash_bytes({arena->data(), *bytes}));
  }
  return fmt::format("{}\n{}\n{}{}\nlayouts{}\n{}", files_.model.id, backend_.name(),
                     options_.type.has_value() ? name(*options_.type) : "as stored", options_.exact ? ", exact" : "", layouts,
                     files_.stamp);
}

WeightHeader Weights::describe(const std::vector<Group>& groups, std::string key) const {
  WeightHeader header;
  header.key = std::move(key);
  for (const Group& group : groups) {
    std::uint64_t offset = group.offset;
    for (const MatrixPlan* plan : group.plans) {
      for (const std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (const MatrixPart& part : parts) {
          header.parts.push_back(
              {.type = part.matrix.type, .n = part.matrix.n, .k = part.matrix.k, .bytes = part.matrix.bytes, .offset = offset});
          offset += aligned(part.matrix.bytes);
        }
      }
    }
  }
  for (const VectorPlan& plan : vectors_) header.vectors.insert(header.vectors.end(), plan.values.begin(), plan.values.end());
  return header;
}

// What an accepted header says about types, sizes and places, checked against the plans, which stay as they are if it differs.
Status Weights::take_header(const WeightHeader& header, std::vector<Group>& groups) {
  const auto other = [&](const MatrixPlan& plan) {
    return Error{ErrorCode::kParse, fmt::format("{} differs from what the file holds", plan.name)};
  };
  std::uint64_t offset = WeightHeader::bytes(header.key.size(), header.parts.size(), header.vectors.size());
  std::size_t i = 0;
  for (const Group& group : groups) {
    offset = page_up(offset);
    for (const MatrixPlan* plan : group.plans) {
      for (const std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (const MatrixPart& part : parts) {
          const StoredPart& stored = header.parts[i++];
          const bool widened = part.matrix.type == DType::kBf16Lossless12 && stored.type == DType::kBf16;
          if ((stored.type != part.matrix.type && !widened) || stored.n != part.matrix.n || stored.k != part.matrix.k) {
            return other(*plan);
          }
          ROOFTREE_TRY(const std::size_t bytes, backend_.packed_bytes(stored.type, stored.n, stored.k));
          if (stored.bytes != bytes || stored.offset != offset) return other(*plan);
          offset += aligned(bytes);
        }
      }
    }
  }
  if (page_up(offset) != header.file_bytes) return Error{ErrorCode::kParse, "bytes behind the last matrix"};
  i = 0;
  packed_bytes_ = 0;
  for (const Group& group : groups) {
    for (MatrixPlan* plan : group.plans) {
      for (std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (MatrixPart& part : parts) {
          part.matrix.type = header.parts[i].type;
          part.matrix.bytes = header.parts[i++].bytes;
          packed_bytes_ += aligned(part.matrix.bytes);
        }
      }
    }
  }
  std::size_t at = 0;
  for (VectorPlan& plan : vectors_) {
    std::copy_n(header.vectors.begin() + static_cast<std::ptrdiff_t>(at), plan.values.size(), plan.values.begin());
    at += plan.values.size();
  }
  return Ok{};
}

Result<WeightFile> Weights::pack_file(ThreadPool& pool, std::vector<Group>& groups, const std::string& key,
                                      const std::filesystem::path& folder, const std::filesystem::path& path,
                                      Progress* progress) {
  ROOFTREE_TRY(WeightFileWriter writer, WeightFileWriter::create(folder, path));
  const WeightHeader planned = describe(groups, key);
  const std::uint64_t header_bytes = WeightHeader::bytes(key.size(), planned.parts.size(), planned.vectors.size());
  FileSink sink(writer, header_bytes);
  ROOFTREE_TRY_VOID(pack_all(pool, sink, progress));
  const std::uint64_t end = place_groups(groups, header_bytes);
  ROOFTREE_CHECK(end == sink.end(), "packed weights lie where the header does not say");
  WeightHeader header = describe(groups, key);
  header.file_bytes = end;
  return writer.finish(header);
}

// Addresses for everything in the file: mapped, or under a limit the first groups read and the others streamed.
Status Weights::adopt(std::vector<Group> groups, const WeightStorage& storage, Progress* progress) {
  const auto set_data = [](const Group& group, const std::byte* data) {
    for (MatrixPlan* plan : group.plans) {
      for (std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (MatrixPart& part : parts) {
          part.matrix.data = data;
          data += aligned(part.matrix.bytes);
        }
      }
    }
  };
  std::size_t resident = groups.size();
  if (storage.most_memory_bytes.has_value()) {
    ROOFTREE_TRY(resident, choose_resident(groups, *storage.most_memory_bytes));
  }
  if (resident == groups.size()) {
    ROOFTREE_TRY(const std::byte* base, file_.map());
    for (const Group& group : groups) set_data(group, base + group.offset);
    return Ok{};
  }
  std::uint64_t total = 0, done = 0;
  for (std::size_t i = 0; i < resident; ++i) total += groups[i].bytes;
  ROOFTREE_TRY(arena_, Arena::make(total, true));
  for (std::size_t i = 0; i < resident; ++i) {
    if (progress != nullptr) {
      progress->update(static_cast<double>(done) / static_cast<double>(total), "reading weights");
      if (progress->cancelled()) return Error{ErrorCode::kEnvironment, "loading: interrupted"};
    }
    ROOFTREE_TRY_VOID(file_.read(groups[i].offset, {arena_.data() + done, groups[i].bytes}));
    set_data(groups[i], arena_.data() + done);
    done += groups[i].bytes;
  }
  std::vector<WeightStream::Layer> layers;
  std::uint64_t largest = 0;
  for (std::size_t i = resident; i < groups.size(); ++i) {
    layers.push_back({.offset = groups[i].offset, .bytes = groups[i].bytes});
    largest = std::max(largest, groups[i].bytes);
    for (const MatrixPlan* plan : groups[i].plans) {
      streamed_index_.emplace(&plan->bound, static_cast<std::int32_t>(i - resident));
      for (const std::vector<MatrixPart>& parts : plan->bound.matrices) {
        for (const MatrixPart& part : parts) streamed_bytes_ += aligned(part.matrix.bytes);
      }
    }
    streamed_.push_back(std::move(groups[i]));
  }
  // Memory that layers of other sizes leave over makes the ring longer.
  const std::uint64_t buffers = (*storage.most_memory_bytes - total) / largest;
  ROOFTREE_TRY(stream_,
               WeightStream::start(file_, std::move(layers), static_cast<int>(std::clamp<std::uint64_t>(buffers, 2, 4))));
  return Ok{};
}

std::int32_t Weights::streamed_layer(const BoundMatrix& weight) const {
  const auto it = streamed_index_.find(&weight);
  return it == streamed_index_.end() ? -1 : it->second;
}

bool Weights::acquire(std::int32_t streamed) {
  const std::byte* data = stream_->acquire(static_cast<std::size_t>(streamed));
  if (data == nullptr) return false;
  for (MatrixPlan* plan : streamed_[static_cast<std::size_t>(streamed)].plans) {
    for (std::vector<MatrixPart>& parts : plan->bound.matrices) {
      for (MatrixPart& part : parts) {
        part.matrix.data = data;
        data += aligned(part.matrix.bytes);
      }
    }
  }
  return true;
}

Status Weights::load(ThreadPool& pool, const WeightStorage& storage, Progress* progress) {
  const bool fits = !storage.most_memory_bytes.has_value() || most_packed_bytes_ <= *storage.most_memory_bytes;
  if (fits && storage.cache.empty()) {
    ROOFTREE_TRY(arena_, Arena::make(packed_bytes_, true));
    MemorySink sink(arena_.data(), plain_bf16_);
    return pack_all(pool, sink, progress);
  }
  std::vector<Group> all = groups();
  const std::string key = cache_key();
  std::filesystem::path path;
  if (!storage.cache.empty()) {
    // One file per source, backend and options; of a source that changed, the new one takes the old one's place.
    std::string readable = files_.model.id;
    for (char& c : readable) c = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' ? c : '_';
    const std::string place = fmt::format("{}\n{}\n{}\n{}", files_.source, backend_.name(),
                                          options_.type.has_value() ? name(*options_.type) : "", options_.exact);
    path =
        storage.cache / fmt::format("{}-{:016x}.packed", readable.substr(0, 80), hash_bytes(std::as_bytes(std::span(place))));
    WeightHeader header = describe(all, key);
    // Stale or damaged: it is written anew.
    if (auto opened = WeightFile::open(path, header)) {
      if (take_header(header, all)) {
        file_ = std::move(opened).value();
        reused_ = true;
        place_groups(all, WeightHeader::bytes(key.size(), header.parts.size(), header.vectors.size()));
        return adopt(std::move(all), storage, progress);
      }
    }
  }
  if (!fits) {
    // Known before the work: matrices only grow.
    std::vector<Group> sizes = all;
    place_groups(sizes, 0);
    if (const auto resident = choose_resident(sizes, *storage.most_memory_bytes); !resident) return resident.error();
  }
  const std::filesystem::path folder = storage.cache.empty() ? default_cache_folder() : storage.cache;
  ROOFTREE_TRY(file_, pack_file(pool, all, key, folder, path, progress));
  return adopt(std::move(all), storage, progress);
}

}  // namespace rooftree::engine

#include "engine/trace.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>
#include <system_error>

#include "engine/generate.h"
#include "formats/mapped_file.h"

// File: kMagic, then records: u32 position, i32 token, i32 layer, u16 length and text of the node, u16 length and text of the
// value, u32 count, count floats. Little-endian.

namespace rooftree::engine {
namespace {

static_assert(std::endian::native == std::endian::little, "traces are written as they lie in memory");
constexpr std::string_view kMagic = "rooftree trace 1\n";

class Writer {
 public:
  explicit Writer(std::ostream& out) : out_(out) {}
  template <class T>
  void number(T value) {
    out_.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    number(static_cast<std::uint16_t>(value.size()));
    out_.write(value.data(), static_cast<std::streamsize>(value.size()));
  }
  void floats(std::span<const float> values) {
    out_.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
  }

 private:
  std::ostream& out_;
};

struct Record {
  std::uint32_t position = 0;
  std::int32_t token = 0, layer = -1;
  std::string_view node, value;
  std::span<const std::byte> data;  // floats, any alignment
  [[nodiscard]] std::size_t count() const { return data.size() / sizeof(float); }
  [[nodiscard]] float at(std::size_t i) const {
    float v = 0;
    std::memcpy(&v, data.data() + i * sizeof v, sizeof v);
    return v;
  }
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  Status header() {
    if (bytes_.size() < kMagic.size() || std::memcmp(bytes_.data(), kMagic.data(), kMagic.size()) != 0) {
      return Error{ErrorCode::kParse, fmt::format("{}: not a trace of rooftree", where_)};
    }
    at_ = kMagic.size();
    return Ok{};
  }
  [[nodiscard]] bool done() const { return at_ == bytes_.size(); }
  Result<Record> next() {
    Record r;
    std::uint32_t count = 0;
    const bool ok = number(r.position) && number(r.token) && number(r.layer) && text(r.node) && text(r.value) && number(count);
    if (!ok || (bytes_.size() - at_) / sizeof(float) < count) {
      return Error{ErrorCode::kParse, fmt::format("{}: byte {}: the trace ends inside a record", where_, at_)};
    }
    r.data = bytes_.subspan(at_, std::size_t{count} * sizeof(float));
    at_ += r.data.size();
    return r;
  }

 private:
  template <class T>
  bool number(T& value) {
    if (bytes_.size() - at_ < sizeof value) return false;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return true;
  }
  bool text(std::string_view& value) {
    std::uint16_t length = 0;
    if (!number(length) || bytes_.size() - at_ < length) return false;
    value = {reinterpret_cast<const char*>(bytes_.data()) + at_, length};
    at_ += length;
    return true;
  }

  std::span<const std::byte> bytes_;
  std::string where_;
  std::size_t at_ = 0;
};

double relative_rms(const Record& a, const Record& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.count(); ++i) {
    const double x = a.at(i), y = b.at(i);
    difference += (x - y) * (x - y);
    size += x * x;
  }
  return size > 0 ? std::sqrt(difference / size) : difference > 0 ? INFINITY : 0;
}

std::string_view place(const Record& r) { return r.node; }

}  // namespace

Status write_trace(Engine& engine, const std::vector<TokenId>& tokens, const std::filesystem::path& path, Progress* progress) {
  const std::filesystem::path partial = path.string() + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  if (!file) return Error{ErrorCode::kEnvironment, fmt::format("{}: cannot write", partial.string())};
  file.write(kMagic.data(), kMagic.size());
  Writer writer(file);
  std::uint32_t position = 0;
  engine.set_observer([&](std::int32_t layer, std::string_view node, std::string_view value, std::span<const float> data,
                          std::int64_t rows, std::int64_t width, std::int64_t stride) {
    writer.number(position);
    writer.number(tokens[position]);
    writer.number(layer);
    writer.text(node);
    writer.text(value);
    writer.number(static_cast<std::uint32_t>(rows * width));
    for (std::int64_t row = 0; row < rows; ++row) {
      writer.floats(data.subspan(static_cast<std::size_t>(row * stride), static_cast<std::size_t>(width)));
    }
  });
  const auto all = [&]() -> Status {
    Sequence sequence(engine);
    for (; position < tokens.size(); ++position) {
      if (progress != nullptr) {
        progress->update(static_cast<double>(position) / static_cast<double>(tokens.size()), "writing the trace");
        if (progress->cancelled()) return Error{ErrorCode::kEnvironment, "interrupted"};
      }
      sequence.append(std::span(tokens).subspan(position, 1));
      ROOFTREE_TRY(const Chunk chunk, sequence.prepare(1, Logits::kLast));
      ROOFTREE_TRY(const StepResult step, engine.step(std::span(&chunk, 1)));
      (void)step;
      sequence.advance(1);
    }
    return Ok{};
  };
  Status status = all();
  engine.set_observer({});
  file.close();
  if (status && !file) status = Error{ErrorCode::kEnvironment, fmt::format("{}: write failed", partial.string())};
  std::error_code error;
  if (status) {
    std::filesystem::rename(partial, path, error);
    if (error) status = Error{ErrorCode::kEnvironment, fmt::format("{}: {}", path.string(), error.message())};
  }
  if (!status) std::filesystem::remove(partial, error);
  return status;
}

Result<TraceDifference> compare_traces(const std::filesystem::path& a_path, const std::filesystem::path& b_path) {
  ROOFTREE_TRY(const formats::MappedFile a_file, formats::MappedFile::open(a_path));
  ROOFTREE_TRY(const formats::MappedFile b_file, formats::MappedFile::open(b_path));
  Reader a(a_file.bytes(), a_path.string()), b(b_file.bytes(), b_path.string());
  ROOFTREE_TRY_VOID(a.header());
  ROOFTREE_TRY_VOID(b.header());
  TraceDifference d;
  std::optional<std::pair<Record, Record>> last;
  while (!a.done() && !b.done()) {
    ROOFTREE_TRY(const Record x, a.next());
    ROOFTREE_TRY(const Record y, b.next());
    if (x.position != y.position || x.token != y.token || x.layer != y.layer || x.node != y.node || x.value != y.value ||
        x.count() != y.count()) {
      d.equal = false;
      d.structure = fmt::format(
          "position {}: token {}, layer {}, {} {} of {} values against position {}: token {}, layer {}, {} {} of {}",
          x.position, x.token, x.layer, place(x), x.value, x.count(), y.position, y.token, y.layer, place(y), y.value,
          y.count());
      return d;
    }
    last.emplace(x, y);
    if (!d.equal || std::memcmp(x.data.data(), y.data.data(), x.data.size()) == 0) continue;
    d.equal = false;
    d.position = x.position;
    d.token = x.token;
    d.layer = x.layer;
    d.node = x.node;
    d.value = x.value;
    d.elements = static_cast<std::int64_t>(x.count());
    d.element = -1;
    for (std::size_t i = 0; i < x.count(); ++i) {
      const float p = x.at(i), q = y.at(i);
      if (std::bit_cast<std::uint32_t>(p) == std::bit_cast<std::uint32_t>(q)) continue;
      ++d.differing;
      if (d.element >= 0) continue;
      d.element = static_cast<std::int64_t>(i);
      d.a = p;
      d.b = q;
    }
    d.relative_rms = relative_rms(x, y);
  }
  if (a.done() != b.done()) {
    if (d.equal) d.structure = fmt::format("{} has fewer positions; equal up to there", (a.done() ? a_path : b_path).string());
    d.equal = false;
  }
  if (last.has_value()) d.final_relative_rms = relative_rms(last->first, last->second);
  return d;
}

}  // namespace rooftree::engine

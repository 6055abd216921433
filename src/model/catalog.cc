#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/embedded.h"
#include "base/json.h"
#include "formats/gguf.h"
#include "model/architecture.h"
#include "model/gguf_config.h"
#include "model/model.h"
#include "model/model_file.h"

namespace rooftree::model {
namespace {

// Edit distance, insertions and deletions and replacements alike.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string normalised(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '_' || c == ' ') {
      out += '-';
    } else {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  return out;
}

std::string id_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  std::string_view base = slash == std::string_view::npos ? path : path.substr(slash + 1);
  if (base.size() > 5 && base.substr(base.size() - 5) == ".json") base.remove_suffix(5);
  return std::string(base);
}

Result<Model> parse_any(std::string_view text, std::string_view where) {
  ROOFTREE_TRY(const Json json, parse_json(text, where));
  if (json.is_object() && json.contains("id") && json.contains("kind")) return parse_model_file(text, where);
  return parse_hf_config(text, where);
}

}  // namespace

const ModelCatalog& ModelCatalog::builtin() {
  static const ModelCatalog catalog = [] {
    ModelCatalog c;
    for (const EmbeddedFile& file : embedded_models()) {
      c.files_.push_back({.id = id_of(file.name()), .owned_text = {}, .builtin_text = file.text()});
    }
    return c;
  }();
  return catalog;
}

Result<ModelCatalog> ModelCatalog::from_directory(const std::filesystem::path& directory) {
  const std::filesystem::path folder = directory / "models";
  std::error_code ec;
  std::vector<std::filesystem::path> paths;
  for (std::filesystem::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    if (it->path().extension() == ".json") paths.push_back(it->path());
  }
  if (ec) return Error{ErrorCode::kEnvironment, fmt::format("{}: {}", folder.string(), ec.message())};
  std::sort(paths.begin(), paths.end());
  ModelCatalog catalog;
  for (const std::filesystem::path& path : paths) {
    ROOFTREE_TRY(std::string text, read_file(path));
    ROOFTREE_TRY(const Model model, parse_model_file(text, path.string()));
    const std::string id = id_of(path.filename().string());
    if (model.id != id) {
      return Error{ErrorCode::kInvalid,
                   fmt::format("{}: id: '{}'; expected '{}' as the file is named", path.string(), model.id, id)};
    }
    catalog.files_.push_back({.id = id, .owned_text = std::move(text), .builtin_text = {}});
  }
  return catalog;
}

std::vector<ModelEntry> ModelCatalog::entries() const {
  std::vector<ModelEntry> out;
  out.reserve(files_.size());
  for (const File& file : files_) {
    const Result<Model> model = find(file.id);
    ROOFTREE_CHECK(model.has_value(), "a catalogue file does not parse; the tests read them all");
    out.push_back({.id = model->id,
                   .name = model->name,
                   .family = model->family,
                   .kind = std::string(model->architecture->kind()),
                   .published_parameters = model->published_parameters,
                   .published_active_parameters = model->published_active_parameters});
  }
  return out;
}

Result<Model> ModelCatalog::find(std::string_view id) const {
  const std::string wanted = normalised(id);
  for (const File& file : files_) {
    if (file.id != wanted) continue;
    const std::string_view text = file.owned_text.empty() ? file.builtin_text : std::string_view(file.owned_text);
    return parse_model_file(text, fmt::format("catalog/models/{}.json", file.id));
  }
  // The nearest ids: those that continue what was written, then those that differ by few letters.
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (const File& file : files_) {
    const bool continues = !wanted.empty() && file.id.find(wanted) != std::string::npos;
    const std::size_t d = continues ? 0 : distance(wanted, file.id);
    if (d <= std::max<std::size_t>(2, wanted.size() / 3)) near.emplace_back(d, file.id);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  if (near.size() > 4) near.resize(4);
  std::string hint;
  for (const auto& [d, known] : near) hint += fmt::format("{}{}", hint.empty() ? "did you mean " : ", ", known);
  if (hint.empty()) hint = "`rooftree models` lists those known";
  return Error{ErrorCode::kNotFound, fmt::format("model '{}' is unknown; {}", id, hint)};
}

Result<Model> ModelCatalog::resolve(std::string_view spec) const {
  const std::string wanted = normalised(spec);
  const bool known = std::any_of(files_.begin(), files_.end(), [&](const File& file) { return file.id == wanted; });
  if (known) return find(spec);
  std::filesystem::path path{spec};
  std::error_code ec;
  const bool looks_like_path =
      spec.find('/') != std::string_view::npos || path.extension() == ".json" || path.extension() == ".gguf";
  if (std::filesystem::is_directory(path, ec)) {
    const std::filesystem::path config = path / "config.json";
    if (!std::filesystem::exists(config, ec)) {
      return Error{ErrorCode::kEnvironment, fmt::format("{}: holds no config.json", path.string())};
    }
    path = config;
  } else if (!std::filesystem::exists(path, ec)) {
    if (!looks_like_path) return find(spec);
    return Error{ErrorCode::kEnvironment,
                 fmt::format("{}: does not exist; expected a model id, a .gguf file, a config.json or its folder", spec)};
  }
  if (path.extension() == ".gguf") {
    ROOFTREE_TRY(const formats::GgufFile file, formats::GgufFile::open(path));
    return parse_gguf(file);
  }
  if (path.extension() != ".json") {
    return Error{
        ErrorCode::kInvalid,
        fmt::format("{}: expected a model id, a .gguf file, a config.json or its folder; other model files are not read",
                    path.string())};
  }
  ROOFTREE_TRY(const std::string text, read_file(path, std::size_t{16} << 20));
  ROOFTREE_TRY(Model model, parse_any(text, path.string()));
  return model;
}

}  // namespace rooftree::model

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/unit_text.h"
#include "model/model.h"
#include "model/summary.h"
#include "report/table.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

using model::Model;
using model::ModelCatalog;
using model::ModelEntry;

struct Options {
  std::string name, family, kind;
  bool json = false;
};

Json optional_number(const std::optional<double>& value) { return value.has_value() ? Json(*value) : Json(nullptr); }

std::string billions(const std::optional<double>& parameters) {
  if (!parameters.has_value()) return "";
  return report::number(*parameters / 1e9, 4);
}

int list_models(const Options& options) {
  std::vector<ModelEntry> entries = ModelCatalog::builtin().entries();
  const auto differs = [](const std::string& wanted, const std::string& have) { return !wanted.empty() && wanted != have; };
  std::erase_if(entries,
                [&](const ModelEntry& e) { return differs(options.family, e.family) || differs(options.kind, e.kind); });
  if (entries.empty()) {
    std::vector<std::string> families, kinds;
    for (const ModelEntry& e : ModelCatalog::builtin().entries()) {
      families.push_back(e.family);
      kinds.push_back(e.kind);
    }
    for (auto* list : {&families, &kinds}) {
      std::sort(list->begin(), list->end());
      list->erase(std::unique(list->begin(), list->end()), list->end());
    }
    return report_error(
        {ErrorCode::kNotFound, fmt::format("no model of family '{}' and kind '{}'; families: {}; kinds: {}", options.family,
                                           options.kind, fmt::join(families, ", "), fmt::join(kinds, ", "))});
  }
  if (options.json) {
    Json models = Json::array();
    for (const ModelEntry& e : entries) {
      models.push_back({{"id", e.id},
                        {"name", e.name},
                        {"family", e.family},
                        {"kind", e.kind},
                        {"parameters_published", optional_number(e.published_parameters)},
                        {"parameters_active_published", optional_number(e.published_active_parameters)}});
    }
    fmt::print("{}\n", Json{{"models", models}}.dump(2));
    return 0;
  }
  report::Table table({{.header = "id", .align = report::Align::kLeft},
                       {.header = "name", .align = report::Align::kLeft, .priority = 2, .narrowest = 12},
                       {.header = "family", .align = report::Align::kLeft, .priority = 3},
                       {.header = "kind", .align = report::Align::kLeft, .priority = 1},
                       {.header = "parameters", .unit = "10^9"},
                       {.header = "active", .unit = "10^9", .priority = 1}});
  for (const ModelEntry& e : entries) {
    table.add_row({e.id, e.name, e.family, e.kind, billions(e.published_parameters), billions(e.published_active_parameters)});
  }
  fmt::print("{}", table.render(report::terminal(1).width));
  return 0;
}

std::string with_difference(double computed, const std::optional<double>& published) {
  std::string text = fmt::format("{} ({} x 10^9)", report::count(computed), report::number(computed / 1e9, 4));
  if (published.has_value()) {
    text +=
        fmt::format("; published {} x 10^9, {:+.2f} %", report::number(*published / 1e9, 4), 100 * (computed / *published - 1));
  }
  return text;
}

int show_model(const Options& options) {
  const auto found = ModelCatalog::builtin().resolve(options.name);
  if (!found) return report_error(found.error());
  const Model& m = *found;
  const auto summary = model::summarise(m);
  constexpr double kBytesPerValue = 2;  // bf16
  if (options.json) {
    Json shape = Json::object();
    for (const auto& [name, value] : m.describe()) shape[name] = value;
    Json out{{"id", m.id},
             {"name", m.name},
             {"family", m.family},
             {"max_context_tokens", m.max_context > 0 ? Json(m.max_context) : Json(nullptr)},
             {"native_weight_type", std::string(name(m.native_weight_type))},
             {"shape", shape},
             {"parameters_published", optional_number(m.published_parameters)},
             {"parameters_active_published", optional_number(m.published_active_parameters)},
             {"sources", m.sources},
             {"recalled_fields", m.recalled}};
    if (!m.notes.empty()) out["notes"] = m.notes;
    if (summary) {
      out["parameters"] = summary->parameters;
      out["parameters_active"] = summary->active_parameters;
      out[summary->per_token ? "flop_per_token" : "flop_per_sample"] = summary->product_flop.value();
      if (summary->kv_values_per_token) out["kv_bytes_per_token_bf16"] = *summary->kv_values_per_token * kBytesPerValue;
    } else {
      out["cannot_be_built"] = summary.error().message;
    }
    fmt::print("{}\n", out.dump(2));
    return 0;
  }
  const model::Description shape = m.describe();
  int label_width = 16;
  for (const auto& [label, text] : shape) label_width = std::max(label_width, report::display_width(label));
  const int width = report::terminal(1).width;
  const int indent = label_width + 4;
  const auto line = [&](std::string_view label, std::string_view text) {
    const std::string wrapped = report::wrap(text, width, indent, indent);
    fmt::print("  {}{}", report::pad_right(label, label_width + 2), wrapped.substr(static_cast<std::size_t>(indent)));
  };
  fmt::print("{}\n", m.name == m.id ? m.id : fmt::format("{} ({})", m.name, m.id));
  line("family", m.family);
  for (const auto& [label, text] : shape) line(label, text);
  if (m.max_context > 0) line("context", report::count(static_cast<double>(m.max_context)));
  line("published as", name(m.native_weight_type));
  if (summary) {
    line("parameters", with_difference(summary->parameters, m.published_parameters));
    if (summary->active_parameters < 0.999 * summary->parameters) {
      line(summary->per_token ? "active per token" : "active per sample",
           with_difference(summary->active_parameters, m.published_active_parameters));
    }
    line(summary->per_token ? "per token" : "per sample", fmt::format("{} in products", to_text(summary->product_flop)));
    if (summary->kv_values_per_token) {
      line("KV cache",
           fmt::format("{} bytes per token in bf16", report::count(*summary->kv_values_per_token * kBytesPerValue)));
    }
  } else {
    line("cannot be built", summary.error().message);
  }
  for (const std::string& source : m.sources) line(&source == m.sources.data() ? "sources" : "", source);
  if (!m.recalled.empty())
    line("from memory", m.recalled[0] == "*" ? "all of it" : fmt::format("{}", fmt::join(m.recalled, ", ")));
  if (!m.notes.empty()) line("notes", m.notes);
  return 0;
}

}  // namespace

void add_models_verb(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("models", "The models that are known, or one of them: shape, parameters, cache, sources");
  verb->add_option("model", options->name, "A catalogue id, a Hugging Face config.json, or the folder of one");
  verb->add_option("--family", options->family, "Only this family");
  verb->add_option("--kind", options->kind, "Only this kind: decoder, moe decoder, encoder, …");
  verb->add_flag("--json", options->json, "For programs");
  verb->callback([options, &exit_code] {
    if (!options->name.empty() && !(options->family.empty() && options->kind.empty())) {
      exit_code = report_error({ErrorCode::kInvalid, "--family and --kind filter the list; expected no model beside them"});
      return;
    }
    exit_code = options->name.empty() ? list_models(*options) : show_model(*options);
  });
}

}  // namespace rooftree::cli

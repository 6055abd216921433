// rooftree diff: where two runs part. Receipts name the first differing token; traces the layer, operator and element.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <string>

#include "arguments.h"
#include "base/json.h"
#include "engine/receipt.h"
#include "engine/trace.h"
#include "report/estimate_json.h"
#include "verbs.h"

namespace rooftree::cli {
namespace {

struct Options {
  std::string a, b;
  bool json = false;
};

bool is_receipt(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return file.get() == '{';
}

Result<engine::Receipt> receipt(const std::string& path) {
  ROOFTREE_TRY(const std::string text, read_file(path));
  return engine::parse_receipt(text, path);
}

Result<int> diff_receipts(const Options& o) {
  ROOFTREE_TRY(const engine::Receipt a, receipt(o.a));
  ROOFTREE_TRY(const engine::Receipt b, receipt(o.b));
  const std::string difference = engine::first_difference(a, b);
  if (o.json) {
    fmt::print("{}\n", Json{{"equal", difference.empty()}, {"first_difference", difference}}.dump(2));
  } else if (difference.empty()) {
    fmt::print("Equal: {} tokens, {} rows of logits, {} ({}) and {} ({}).\n", a.tokens.size(), a.rows.size(), a.backend, a.cpu,
               b.backend, b.cpu);
  } else {
    fmt::print("First difference: {}.\nTraces of both runs (`rooftree run … --trace FILE`) name layer, operator and element.\n",
               difference);
  }
  return difference.empty() ? 0 : 1;
}

Result<int> diff_traces(const Options& o) {
  ROOFTREE_TRY(const engine::TraceDifference d, engine::compare_traces(o.a, o.b));
  if (o.json) {
    Json j{{"equal", d.equal}};
    if (!d.structure.empty()) j["structure"] = d.structure;
    if (!d.equal && d.elements > 0) {
      j.update(Json{{"position", d.position},
                    {"token", d.token},
                    {"layer", d.layer},
                    {"operator", d.node},
                    {"value", d.value},
                    {"element", d.element},
                    {"a", report::finite(static_cast<double>(d.a))},
                    {"b", report::finite(static_cast<double>(d.b))},
                    {"differing", d.differing},
                    {"elements", d.elements},
                    {"relative_rms", report::finite(d.relative_rms)},
                    {"final_relative_rms", report::finite(d.final_relative_rms)}});
    }
    fmt::print("{}\n", j.dump(2));
  } else if (d.equal) {
    fmt::print("Equal, every value of every operator.\n");
  } else {
    if (!d.structure.empty()) fmt::print("Not the same work: {}.\n", d.structure);
    if (d.elements > 0) {
      const std::string where = d.layer >= 0 ? fmt::format("layer {}, ", d.layer) : std::string{};
      fmt::print("First difference: position {} (token {}), {}operator {}, value {}, element {}: {} against {}.\n", d.position,
                 d.token, where, d.node, d.value, d.element, d.a, d.b);
      fmt::print("{} of its {} elements differ, by {:.2g} of their size; the last logits differ by {:.2g}.\n", d.differing,
                 d.elements, d.relative_rms, d.final_relative_rms);
    }
  }
  return d.equal ? 0 : 1;
}

Result<int> run(const Options& o) {
  const bool a = is_receipt(o.a), b = is_receipt(o.b);
  if (a != b) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{} and {}: one is a receipt, the other is not; expected two of a kind", o.a, o.b)};
  }
  return a ? diff_receipts(o) : diff_traces(o);
}

}  // namespace

void add_diff_verb(CLI::App& app, int& exit_code) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("diff", "Where two runs part: two receipts, or two traces, of `rooftree run`");
  verb->add_option("a", o->a, "FILE")->required();
  verb->add_option("b", o->b, "FILE")->required();
  verb->add_flag("--json", o->json, "Print the answer as JSON");
  verb->callback([o, &exit_code] { exit_code = finish(run(*o)); });
}

}  // namespace rooftree::cli

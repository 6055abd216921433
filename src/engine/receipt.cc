#include "engine/receipt.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/json.h"

namespace rooftree::engine {

std::string to_json(const Receipt& r) {
  Json rows = Json::array();
  for (const auto& [position, hash] : r.rows) rows.push_back({position, hash});
  const Json j{{"receipt", r.contract},
               {"model", r.model},
               {"weights_sha256", r.weights_sha256},
               {"tokenizer_hash", r.tokenizer_hash},
               {"kv", r.kv},
               {"level", r.level},
               {"backend", r.backend},
               {"cpu", r.cpu},
               {"threads", r.threads},
               {"prompt_tokens", r.prompt_tokens},
               {"tokens", r.tokens},
               {"logits_sha256", r.logits_sha256},
               {"rows", rows}};
  return j.dump() + "\n";
}

Result<Receipt> parse_receipt(std::string_view json, std::string_view where) {
  ROOFTREE_TRY(const Json j, parse_json(json, where));
  const auto fail = [&](std::string_view field, std::string_view expected) {
    return Error{ErrorCode::kParse, fmt::format("{}: receipt: field '{}' is missing or not {}", where, field, expected)};
  };
  if (!j.is_object()) return Error{ErrorCode::kParse, fmt::format("{}: not a receipt; expected a JSON object", where)};
  Receipt r;
  const auto whole = [&](const char* name, std::int64_t low, std::int64_t high, auto& out) -> Status {
    const auto it = j.find(name);
    if (it == j.end() || !it->is_number_integer() || it->get<std::int64_t>() < low || it->get<std::int64_t>() > high) {
      return fail(name, fmt::format("a whole number from {} to {}", low, high));
    }
    out = static_cast<std::remove_reference_t<decltype(out)>>(it->get<std::int64_t>());
    return Ok{};
  };
  const auto text = [&](const char* name, std::string& out) -> Status {
    const auto it = j.find(name);
    if (it == j.end() || !it->is_string()) return fail(name, "a text");
    out = it->get<std::string>();
    return Ok{};
  };
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  ROOFTREE_TRY_VOID(whole("receipt", 1, kMost, r.contract));
  ROOFTREE_TRY_VOID(text("model", r.model));
  ROOFTREE_TRY_VOID(text("weights_sha256", r.weights_sha256));
  ROOFTREE_TRY_VOID(text("tokenizer_hash", r.tokenizer_hash));
  ROOFTREE_TRY_VOID(text("kv", r.kv));
  ROOFTREE_TRY_VOID(text("level", r.level));
  ROOFTREE_TRY_VOID(text("backend", r.backend));
  ROOFTREE_TRY_VOID(text("cpu", r.cpu));
  ROOFTREE_TRY_VOID(whole("threads", 1, kMost, r.threads));
  ROOFTREE_TRY_VOID(whole("prompt_tokens", 0, kMost, r.prompt_tokens));
  ROOFTREE_TRY_VOID(text("logits_sha256", r.logits_sha256));
  const auto tokens = j.find("tokens");
  if (tokens == j.end() || !tokens->is_array()) return fail("tokens", "a list of token ids");
  for (const Json& token : *tokens) {
    if (!token.is_number_integer() || token.get<std::int64_t>() < 0 || token.get<std::int64_t>() > kMost) {
      return fail("tokens", "a list of token ids");
    }
    r.tokens.push_back(token.get<TokenId>());
  }
  const auto rows = j.find("rows");
  if (rows == j.end() || !rows->is_array()) return fail("rows", "a list of [position, hash]");
  for (const Json& row : *rows) {
    if (!row.is_array() || row.size() != 2 || !row[0].is_number_integer() || !row[1].is_string()) {
      return fail("rows", "a list of [position, hash]");
    }
    r.rows.emplace_back(row[0].get<std::int64_t>(), row[1].get<std::string>());
  }
  return r;
}

void ReceiptRecorder::add_row(std::int64_t position, std::span<const float> logits) {
  hash_.update_values(logits);
  rows_.emplace_back(position, hash_.hex().substr(0, 16));
}

Receipt ReceiptRecorder::finish(Engine& engine, const EngineOptions& options, std::string cpu, std::vector<TokenId> tokens,
                                std::int64_t prompt_tokens) const {
  Receipt r;
  r.model = engine.model().id;
  r.weights_sha256 = engine.weights_sha256();
  r.tokenizer_hash = engine.tokenizer() != nullptr ? fmt::format("{:016x}", engine.tokenizer()->hash()) : "none";
  r.kv = std::string(name(options.kv));
  r.level = std::string(kernels::name(engine.level()));
  r.backend = std::string(engine.backend().name());
  r.cpu = std::move(cpu);
  r.threads = engine.threads();
  r.tokens = std::move(tokens);
  r.prompt_tokens = prompt_tokens;
  r.rows = rows_;
  r.logits_sha256 = hash_.hex();
  return r;
}

std::string first_difference(const Receipt& a, const Receipt& b) {
  const auto differ = [](std::string_view what, const auto& x, const auto& y) {
    return fmt::format("{}: {} against {}", what, x, y);
  };
  if (a.contract != b.contract) return differ("version of the numeric contract", a.contract, b.contract);
  if (a.weights_sha256 != b.weights_sha256) return differ("weights", a.weights_sha256, b.weights_sha256);
  if (a.tokenizer_hash != b.tokenizer_hash) return differ("tokenizer", a.tokenizer_hash, b.tokenizer_hash);
  if (a.kv != b.kv) return differ("type of the KV cache", a.kv, b.kv);
  if (a.level != b.level) return differ("level", a.level, b.level);
  for (std::size_t i = 0; i < std::max(a.tokens.size(), b.tokens.size()); ++i) {
    if (i >= a.tokens.size() || i >= b.tokens.size()) {
      return fmt::format("number of tokens: {} against {}, equal up to the shorter one", a.tokens.size(), b.tokens.size());
    }
    if (a.tokens[i] != b.tokens[i]) return differ(fmt::format("token {}", i), a.tokens[i], b.tokens[i]);
    // The logits after a token explain a later difference of tokens, so they come first.
    const auto row = [&](const Receipt& r) {
      return std::find_if(r.rows.begin(), r.rows.end(), [&](const auto& x) { return x.first == static_cast<std::int64_t>(i); });
    };
    const auto x = row(a), y = row(b);
    if (x != a.rows.end() && y != b.rows.end() && x->second != y->second) {
      return differ(fmt::format("logits after token {}", i), x->second, y->second);
    }
  }
  if (a.logits_sha256 != b.logits_sha256) return differ("logits", a.logits_sha256, b.logits_sha256);
  return {};
}

}  // namespace rooftree::engine

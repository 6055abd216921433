// A grammar or a JSON schema, whatever it holds, is refused with a message or runs: masks agree with `accepts`, and the state
// after a refused token is as before. The first byte chooses: 'g' GBNF, else a schema.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/grammar_rules.h"

namespace {

using rooftree::text::EncodeOptions;
using rooftree::text::SpecialTokens;
using rooftree::text::TokenId;

class Pieces final : public rooftree::text::Tokenizer {
 public:
  Pieces() {
    for (int byte = 0; byte < 128; byte += 3) pieces_.emplace_back(1, static_cast<char>(byte));
    for (const char* piece :
         {"{\"", "\":", "\",\"", "\"}", "}}", "]", "[", "true", "12", "ab", "a", "b", "\xc3", "\xa9", "\xe2\x82", "", ""})
      pieces_.emplace_back(piece);
    special_.end_of_generation = {static_cast<TokenId>(pieces_.size()) - 1};
  }
  std::vector<TokenId> encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::string piece(TokenId token, bool) const override { return pieces_[static_cast<std::size_t>(token)]; }
  std::string decode(std::span<const TokenId>, bool) const override { return {}; }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(pieces_.size()); }
  const SpecialTokens& special() const override { return special_; }
  std::string_view kind() const override { return "pieces"; }
  std::string_view chat_template() const override { return ""; }
  std::uint64_t hash() const override { return 0; }

 private:
  std::vector<std::string> pieces_;
  SpecialTokens special_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree::text;
  static const auto tokenizer = std::make_shared<const Pieces>();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto grammar = data[0] == 'g' ? Grammar::parse_gbnf(text, "fuzz") : Grammar::from_json_schema(text, "fuzz");
  if (!grammar) {
    ROOFTREE_CHECK(grammar.error().message.starts_with("fuzz:"), "an error says where");
    return 0;
  }
  GrammarState state(*grammar, tokenizer);
  std::vector<float> logits(static_cast<std::size_t>(tokenizer->vocabulary()));
  const auto step_all = [&](Grammar::Rules::Configuration from, TokenId token) {
    for (const char c : tokenizer->piece(token, false)) {
      const bool overflow = from.overflow;
      from = grammar->rules()->step(from, static_cast<unsigned char>(c));
      from.overflow = from.overflow || overflow;
    }
    return from;
  };
  Grammar::Rules::Configuration configuration = grammar->rules()->start(grammar->rules()->root);
  std::uint64_t choice = size;
  for (int step = 0; step < 4; ++step) {
    std::fill(logits.begin(), logits.end(), 0.0F);
    state.mask(logits);
    TokenId next = -1;
    std::uint64_t seen = 0;
    for (TokenId token = 0; token < tokenizer->vocabulary(); ++token) {
      const bool allowed = logits[static_cast<std::size_t>(token)] == 0.0F;
      GrammarState copy(state);
      const bool advanced = copy.advance(token).has_value();
      ROOFTREE_CHECK(state.accepts(token) == advanced, "accepts and advance agree");
      // Grammars with more readings than the bound lose some, each way its own.
      ROOFTREE_CHECK(allowed == advanced || step_all(configuration, token).overflow, "masks allow what is accepted");
      if (advanced && allowed && choice % ++seen == 0) next = token;
    }
    if (next < 0) break;
    ROOFTREE_CHECK(state.advance(next).has_value(), "an accepted token can be taken");
    configuration = step_all(std::move(configuration), next);
    choice = choice * 6364136223846793005ULL + 1442695040888963407ULL;
  }
  return 0;
}

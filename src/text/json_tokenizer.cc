// Tokenizers from Hugging Face's tokenizer.json (github.com/huggingface/tokenizers) and the tokenizer_config.json beside it.
// The file is a pipeline: normalizer, pre_tokenizer, model, post_processor, decoder. A step that is not known here is refused
// by its name.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/json.h"
#include "text/token_index.h"
#include "text/vocabulary.h"

namespace rooftree::text {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{256} << 20U;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxSteps = 64;

// What the file says. The vocabulary and the merges are kept apart from the tree: they are large, and an ordered object finds
// its keys by walking.
struct TokenizerFile {
  Json tree;
  std::vector<std::pair<std::string, std::int64_t>> numbered;  // BPE, WordPiece: piece and number
  std::vector<std::pair<std::string, double>> scored;          // Unigram: piece and score
  std::vector<std::pair<std::string, std::string>> merges;
};

class FileHandler final : public nlohmann::json_sax<Json> {
 public:
  FileHandler(std::string_view where, TokenizerFile& file) : where_(where), file_(file) {}
  [[nodiscard]] const std::string& problem() const { return problem_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return number(static_cast<double>(value), value, true, Json(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= (std::uint64_t{1} << 53U);
    return number(static_cast<double>(value), fits ? static_cast<std::int64_t>(value) : -1, fits, Json(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value, -1, false, Json(value)); }
  bool binary(binary_t&) override { return fail("binary data"); }

  bool string(string_t& value) override {
    switch (place()) {
      case Place::kTree:
        return add(std::move(value));
      case Place::kScoredPair:
        if (part_ != 0) return fail("model.vocab: expected [piece, score]");
        if (value.size() > kMaxTokenBytes) return fail("model.vocab: a piece is too long");
        piece_ = std::move(value);
        ++part_;
        return true;
      case Place::kMerges: {
        const std::size_t space = value.find(' ');
        if (space == std::string::npos || space == 0 || space + 1 == value.size() ||
            value.find(' ', space + 1) != std::string::npos) {
          return fail(fmt::format("model.merges: \"{}\"; expected two pieces with one space between", value));
        }
        return add_merge(value.substr(0, space), value.substr(space + 1));
      }
      case Place::kMergePair:
        if (part_ > 1) return fail("model.merges: expected two pieces");
        if (part_ == 1) return ++part_, add_merge(std::move(piece_), std::move(value));
        piece_ = std::move(value);
        ++part_;
        return true;
      case Place::kNumbered:
      case Place::kScored:
        return fail("model.vocab: a text where a number was expected");
    }
    return fail("unexpected text");
  }

  bool start_object(std::size_t) override {
    if (places_.size() >= kMaxDepth) return fail("nested too deeply");
    if (place() != Place::kTree) return fail("an object inside the vocabulary or the merges");
    if (at_model_key("vocab")) {
      places_.push_back(Place::kNumbered);
      return true;
    }
    return open(Json::object());
  }
  bool start_array(std::size_t) override {
    if (places_.size() >= kMaxDepth) return fail("nested too deeply");
    switch (place()) {
      case Place::kTree:
        if (at_model_key("vocab")) {
          places_.push_back(Place::kScored);
          return true;
        }
        if (at_model_key("merges")) {
          places_.push_back(Place::kMerges);
          return true;
        }
        return open(Json::array());
      case Place::kScored:
        part_ = 0;
        places_.push_back(Place::kScoredPair);
        return true;
      case Place::kMerges:
        part_ = 0;
        places_.push_back(Place::kMergePair);
        return true;
      default:
        return fail("an array inside the vocabulary or the merges");
    }
  }
  bool end_object() override { return close(); }
  bool end_array() override {
    if ((place() == Place::kScoredPair || place() == Place::kMergePair) && part_ != 2) {
      return fail("a pair with a part missing in the vocabulary or the merges");
    }
    return close();
  }
  bool key(string_t& name) override {
    if (place() == Place::kNumbered && name.size() > kMaxTokenBytes) return fail("model.vocab: a piece is too long");
    if (place() == Place::kTree && open_.back()->contains(name))
      return fail(fmt::format("key \"{}\" appears twice in one object", name));
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    std::string what = error.what();
    if (const auto colon = what.find("; "); colon != std::string::npos) what.erase(0, colon + 2);
    return fail(fmt::format("at byte {}: not JSON: {}", position, what));
  }

 private:
  enum class Place : std::uint8_t { kTree, kNumbered, kScored, kScoredPair, kMerges, kMergePair };

  [[nodiscard]] Place place() const { return places_.empty() ? Place::kTree : places_.back(); }
  bool fail(std::string_view what) {
    if (problem_.empty()) problem_ = fmt::format("{}: {}", where_, what);
    return false;
  }
  // The value that comes is root.model.`name`.
  [[nodiscard]] bool at_model_key(std::string_view name) const {
    return open_.size() == 2 && open_.back()->is_object() && model_ == open_.back() && key_ == name;
  }
  // Puts a value where the parser is; null when there is no room for one.
  Json* put(Json&& value) {
    if (open_.empty()) {
      file_.tree = std::move(value);
      return &file_.tree;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  bool add(Json value) {
    if (place() != Place::kTree) return fail("a value that is neither piece nor number in the vocabulary or the merges");
    put(std::move(value));
    return true;
  }
  bool open(Json&& container) {
    const bool is_model = open_.size() == 1 && open_.back()->is_object() && key_ == "model" && container.is_object();
    Json* const slot = put(std::move(container));
    open_.push_back(slot);
    places_.push_back(Place::kTree);
    if (is_model) model_ = slot;
    return true;
  }
  bool close() {
    if (place() == Place::kTree) {
      if (open_.back() == model_) model_ = nullptr;
      open_.pop_back();
    }
    places_.pop_back();
    return true;
  }
  bool number(double value, std::int64_t whole, bool is_whole, Json&& json) {
    switch (place()) {
      case Place::kNumbered:
        if (!is_whole || whole < 0 || whole >= static_cast<std::int64_t>(kMaxTokens)) {
          return fail(
              fmt::format("model.vocab: \"{}\" has the number {}; expected a whole number below {}", key_, value, kMaxTokens));
        }
        if (file_.numbered.size() >= kMaxTokens) return fail("model.vocab: too many pieces");
        file_.numbered.emplace_back(key_, whole);
        return true;
      case Place::kScoredPair:
        if (part_ != 1) return fail("model.vocab: expected [piece, score]");
        if (file_.scored.size() >= kMaxTokens) return fail("model.vocab: too many pieces");
        file_.scored.emplace_back(std::move(piece_), value);
        ++part_;
        return true;
      default:
        return add(std::move(json));
    }
  }
  bool add_merge(std::string left, std::string right) {
    if (file_.merges.size() >= kMaxMerges) return fail("model.merges: too many");
    if (left.empty() || right.empty() || left.size() + right.size() > kMaxTokenBytes)
      return fail("model.merges: an empty or too long piece");
    file_.merges.emplace_back(std::move(left), std::move(right));
    return true;
  }

  std::string where_, problem_;
  TokenizerFile& file_;
  std::vector<Json*>
      open_;  // containers of the tree, outermost first. Only the innermost grows, so that the others stay in place
  std::vector<Place> places_;
  const Json* model_ = nullptr;
  std::string key_, piece_;
  int part_ = 0;  // of a pair
};

// Reading members of objects; a member of another type than expected is an error.
const Json* member(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

class JsonReader {
 public:
  JsonReader(std::string_view where, TokenizerFile file) : where_(where), file_(std::move(file)) {}

  Result<std::shared_ptr<const Tokenizer>> read(std::string_view config_json, std::string_view generation_json,
                                                std::string_view chat_template) {
    const Json& tree = file_.tree;
    if (!tree.is_object()) return refuse("is no object");
    const Json* const model = member(tree, "model");
    if (model == nullptr || !model->is_object()) return refuse("model is missing");
    if (const Json* const truncation = member(tree, "truncation"); truncation != nullptr && !truncation->is_object()) {
      return refuse("truncation: expected an object");
    }
    ROOFTREE_TRY_VOID(read_normalizer(member(tree, "normalizer"), "normalizer", 0));
    ROOFTREE_TRY_VOID(read_pre_tokenizer(member(tree, "pre_tokenizer"), "pre_tokenizer", 0, true));
    ROOFTREE_TRY_VOID(read_decoder(member(tree, "decoder"), "decoder", 0));
    ROOFTREE_TRY_VOID(read_model(*model));
    ROOFTREE_TRY_VOID(read_added_tokens(member(tree, "added_tokens")));
    ROOFTREE_TRY_VOID(finish_pieces());
    ROOFTREE_TRY_VOID(read_post_processor(member(tree, "post_processor"), "post_processor", 0));
    ROOFTREE_TRY_VOID(read_config(config_json));
    ROOFTREE_TRY_VOID(read_generation_config(generation_json));
    if (!chat_template.empty()) v_.chat_template = chat_template;
    return make_tokenizer(std::move(v_), where_);
  }

 private:
  [[nodiscard]] Error refuse(const std::string& what) const {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {}", where_, what)};
  }
  Result<bool> flag(const Json& object, const char* name, bool fallback, const std::string& at) const {
    const Json* const found = member(object, name);
    if (found == nullptr) return fallback;
    if (!found->is_boolean()) return refuse(fmt::format("{}.{}: expected true or false", at, name));
    return found->get<bool>();
  }
  Result<std::string> text(const Json& object, const char* name, const std::string& fallback, const std::string& at) const {
    const Json* const found = member(object, name);
    if (found == nullptr) return fallback;
    if (!found->is_string()) return refuse(fmt::format("{}.{}: expected a text", at, name));
    if (found->get_ref<const std::string&>().size() > kMaxTokenBytes) return refuse(fmt::format("{}.{}: too long", at, name));
    return found->get<std::string>();
  }
  Result<std::string> type_of(const Json& object, const std::string& at) const {
    if (!object.is_object()) return refuse(fmt::format("{}: expected an object with a type", at));
    ROOFTREE_TRY(std::string type, text(object, "type", "", at));
    if (type.empty()) return refuse(fmt::format("{}: has no type", at));
    return type;
  }
  // Calls `read(step, where, last)` for each entry of an array.
  template <class Read>
  Status each(const Json& object, const char* name, const std::string& at, const Read& read) const {
    const Json* const list = member(object, name);
    if (list == nullptr || !list->is_array()) return refuse(fmt::format("{}.{}: expected an array", at, name));
    if (list->size() > kMaxSteps)
      return refuse(fmt::format("{}.{}: {} steps; expected at most {}", at, name, list->size(), kMaxSteps));
    for (std::size_t i = 0; i < list->size(); ++i) {
      ROOFTREE_TRY_VOID(read((*list)[i], fmt::format("{}.{}[{}]", at, name, i), i + 1 == list->size()));
    }
    return Ok{};
  }
  // {"String": "…"} or {"Regex": "…"}
  Result<std::pair<std::string, bool>> pattern_of(const Json& object, const std::string& at) const {
    const Json* const pattern = member(object, "pattern");
    if (pattern == nullptr) return refuse(fmt::format("{}.pattern is missing", at));
    const bool is_regex = member(*pattern, "Regex") != nullptr;
    ROOFTREE_TRY(std::string value, text(*pattern, is_regex ? "Regex" : "String", "", at + ".pattern"));
    if (value.empty()) return refuse(fmt::format("{}.pattern: expected {{\"String\": …}} or {{\"Regex\": …}}", at));
    return std::pair{std::move(value), is_regex};
  }

  Status read_normalizer(const Json* json, const std::string& at, std::size_t depth) {
    using Kind = NormalizerStep::Kind;
    if (json == nullptr) return Ok{};
    ROOFTREE_TRY(const std::string type, type_of(*json, at));
    if (type == "Sequence") {
      if (depth > 4) return refuse(fmt::format("{}: sequences inside sequences", at));
      return each(*json, "normalizers", at,
                  [&](const Json& step, const std::string& where, bool) { return read_normalizer(&step, where, depth + 1); });
    }
    if (v_.normalizer.size() >= kMaxSteps) return refuse(fmt::format("{}: more than {} steps", at, kMaxSteps));
    NormalizerStep step;
    if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
      step.kind = Kind::kForm;
      step.form = type == "NFC"    ? NormalForm::kNfc
                  : type == "NFD"  ? NormalForm::kNfd
                  : type == "NFKC" ? NormalForm::kNfkc
                                   : NormalForm::kNfkd;
    } else if (type == "Lowercase") {
      step.kind = Kind::kLowerCase;
    } else if (type == "StripAccents") {
      step.kind = Kind::kStripMarks;
    } else if (type == "Strip") {
      step.kind = Kind::kStrip;
      ROOFTREE_TRY(step.left, flag(*json, "strip_left", true, at));
      ROOFTREE_TRY(step.right, flag(*json, "strip_right", true, at));
    } else if (type == "Prepend") {
      step.kind = Kind::kPrepend;
      ROOFTREE_TRY(step.to, text(*json, "prepend", "", at));
    } else if (type == "Replace") {
      ROOFTREE_TRY(auto pattern, pattern_of(*json, at));
      ROOFTREE_TRY(step.to, text(*json, "content", "", at));
      step.kind = pattern.second ? Kind::kReplaceRegex : Kind::kReplace;
      if (pattern.second) {
        ROOFTREE_TRY(RegexSplit regex, RegexSplit::compile(pattern.first, {}, where_ + ": " + at));
        step.regex = std::make_shared<const RegexSplit>(std::move(regex));
      } else {
        step.from = std::move(pattern.first);
      }
    } else if (type == "BertNormalizer") {
      step.kind = Kind::kBert;
      ROOFTREE_TRY(step.clean, flag(*json, "clean_text", true, at));
      ROOFTREE_TRY(step.cjk, flag(*json, "handle_chinese_chars", true, at));
      ROOFTREE_TRY(step.lower, flag(*json, "lowercase", true, at));
      ROOFTREE_TRY(step.strip_marks, flag(*json, "strip_accents", step.lower, at));
    } else {
      return refuse(fmt::format("{}: the normalizer {} is not supported", at, type));
    }
    v_.normalizer.push_back(std::move(step));
    return Ok{};
  }

  Result<SplitBehavior> behavior_of(const Json& json, const std::string& at) const {
    ROOFTREE_TRY(const std::string name, text(json, "behavior", "Isolated", at));
    if (name == "Isolated") return SplitBehavior::kIsolated;
    if (name == "Removed") return SplitBehavior::kRemoved;
    if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
    if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
    if (name == "Contiguous") return SplitBehavior::kContiguous;
    return refuse(fmt::format("{}.behavior is \"{}\", which is not supported", at, name));
  }
  Status add_split(std::string_view pattern, bool is_regex, RegexSplit::Options options, const std::string& at) {
    const std::string place = where_ + ": " + at;
    ROOFTREE_TRY(RegexSplit split, is_regex ? RegexSplit::compile(pattern, options, place)
                                            : RegexSplit::compile_literal(pattern, options, place));
    SplitStep step;
    step.regex = std::make_shared<const RegexSplit>(std::move(split));
    v_.splits.push_back(std::move(step));
    return Ok{};
  }

  Status read_pre_tokenizer(const Json* json, const std::string& at, std::size_t depth, bool last) {
    constexpr std::string_view punctuation = R"([!-/:-@\[-`{-~\p{P}])";
    if (json == nullptr) return Ok{};
    ROOFTREE_TRY(const std::string type, type_of(*json, at));
    if (v_.splits.size() >= kMaxSteps) return refuse(fmt::format("{}: more than {} steps", at, kMaxSteps));
    if (type == "Sequence") {
      if (depth > 4) return refuse(fmt::format("{}: sequences inside sequences", at));
      return each(*json, "pretokenizers", at, [&](const Json& step, const std::string& where, bool last_step) {
        return read_pre_tokenizer(&step, where, depth + 1, last && last_step);
      });
    }
    if (type == "Split") {
      ROOFTREE_TRY(const auto pattern, pattern_of(*json, at));
      RegexSplit::Options options;
      ROOFTREE_TRY(options.behavior, behavior_of(*json, at));
      ROOFTREE_TRY(options.invert, flag(*json, "invert", false, at));
      return add_split(pattern.first, pattern.second, options, at);
    }
    if (type == "ByteLevel") {
      if (byte_level_) return refuse(fmt::format("{}: a second ByteLevel", at));
      byte_level_ = true;
      ROOFTREE_TRY(const bool prefix, flag(*json, "add_prefix_space", true, at));
      ROOFTREE_TRY(const bool regex, flag(*json, "use_regex", true, at));
      if (prefix) {
        SplitStep step;
        step.kind = SplitStep::Kind::kPrefixSpace;
        v_.splits.push_back(step);
      }
      if (regex) {
        ROOFTREE_TRY_VOID(add_split(find_split_family("gpt-2")->patterns.front(), true, {}, at));
      }
      if (!last) {
        SplitStep step;
        step.kind = SplitStep::Kind::kSpell;
        v_.splits.push_back(step);
      }
      return Ok{};
    }
    if (type == "Metaspace") {
      SplitStep step;
      step.kind = SplitStep::Kind::kSpaceMark;
      ROOFTREE_TRY(step.mark, text(*json, "replacement", "\xE2\x96\x81", at));
      if (step.mark.empty()) return refuse(fmt::format("{}.replacement is empty", at));
      ROOFTREE_TRY(const bool prefix, flag(*json, "add_prefix_space", true, at));
      ROOFTREE_TRY(const std::string scheme, text(*json, "prepend_scheme", prefix ? "always" : "never", at));
      if (scheme != "always" && scheme != "first" && scheme != "never") {
        return refuse(fmt::format("{}.prepend_scheme is \"{}\"; expected always, first or never", at, scheme));
      }
      step.prepend = scheme == "always"  ? SplitStep::Prepend::kAlways
                     : scheme == "first" ? SplitStep::Prepend::kFirst
                                         : SplitStep::Prepend::kNever;
      ROOFTREE_TRY(step.cut_at_mark, flag(*json, "split", true, at));
      v_.splits.push_back(std::move(step));
      return Ok{};
    }
    if (type == "Digits") {
      ROOFTREE_TRY(const bool individual, flag(*json, "individual_digits", false, at));
      return add_split(individual ? R"(\p{N})" : R"(\p{N}+)", true, {}, at);
    }
    if (type == "Punctuation") {
      RegexSplit::Options options;
      ROOFTREE_TRY(options.behavior, behavior_of(*json, at));
      return add_split(punctuation, true, options, at);
    }
    if (type == "Whitespace") {
      return add_split(R"(\w+|[^\w\s]+)", true, {.behavior = SplitBehavior::kRemoved, .invert = true}, at);
    }
    if (type == "WhitespaceSplit" || type == "BertPreTokenizer") {
      ROOFTREE_TRY_VOID(add_split(R"(\s+)", true, {.behavior = SplitBehavior::kRemoved}, at));
      if (type == "WhitespaceSplit") return Ok{};
      return add_split(punctuation, true, {}, at);
    }
    if (type == "CharDelimiterSplit") {
      ROOFTREE_TRY(const std::string delimiter, text(*json, "delimiter", "", at));
      return add_split(delimiter, false, {.behavior = SplitBehavior::kRemoved}, at);
    }
    return refuse(fmt::format("{}: the pre-tokenizer {} is not supported", at, type));
  }

  Status read_decoder(const Json* json, const std::string& at, std::size_t depth) {
    if (json == nullptr) return Ok{};
    ROOFTREE_TRY(const std::string type, type_of(*json, at));
    if (type == "Sequence") {
      if (depth > 4) return refuse(fmt::format("{}: sequences inside sequences", at));
      return each(*json, "decoders", at,
                  [&](const Json& step, const std::string& where, bool) { return read_decoder(&step, where, depth + 1); });
    }
    if (type == "Metaspace") {
      ROOFTREE_TRY(v_.space_mark, text(*json, "replacement", "\xE2\x96\x81", at));
      ROOFTREE_TRY(const bool prefix, flag(*json, "add_prefix_space", true, at));
      ROOFTREE_TRY(const std::string scheme, text(*json, "prepend_scheme", prefix ? "always" : "never", at));
      v_.strips_first_space = scheme != "never";
    } else if (type == "Replace") {
      ROOFTREE_TRY(const auto pattern, pattern_of(*json, at));
      ROOFTREE_TRY(const std::string content, text(*json, "content", "", at));
      if (pattern.second || content != " ") return refuse(fmt::format("{}: only a mark that becomes a space is supported", at));
      v_.space_mark = pattern.first;
    } else if (type == "Strip") {
      ROOFTREE_TRY(const std::string content, text(*json, "content", " ", at));
      if (content != " ") return refuse(fmt::format("{}: only a space can be stripped", at));
      const Json* const start = member(*json, "start");
      v_.strips_first_space = start != nullptr && start->is_number() && start->get<double>() > 0;
    } else if (type == "WordPiece") {
      v_.strips_first_space = true;
    } else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse") {
      return refuse(fmt::format("{}: the decoder {} is not supported", at, type));
    }
    return Ok{};
  }

  Status read_model(const Json& model) {
    ROOFTREE_TRY(std::string type, text(model, "type", "", "model"));
    if (type.empty()) {  // files before 2020 leave it out
      type = !file_.scored.empty()                       ? "Unigram"
             : !file_.merges.empty()                     ? "BPE"
             : member(model, "max_input_chars_per_word") ? "WordPiece"
                                                         : "";
    }
    ROOFTREE_TRY(v_.byte_fallback, flag(model, "byte_fallback", false, "model"));
    ROOFTREE_TRY(unknown_, text(model, "unk_token", "", "model"));
    if (type == "Unigram") {
      if (byte_level_) return refuse("model: Unigram over ByteLevel is not supported");
      v_.kind = "unigram";
      v_.algorithm = Algorithm::kUnigram;
      v_.fuse_unknown = true;
      if (file_.scored.empty()) return refuse("model.vocab: expected pairs of piece and score");
      for (auto& [piece, score] : file_.scored) {
        file_.numbered.emplace_back(std::move(piece), static_cast<std::int64_t>(file_.numbered.size()));
        v_.scores.push_back(static_cast<float>(score));
      }
      const Json* const unknown = member(model, "unk_id");
      if (unknown != nullptr) {
        if (!unknown->is_number_unsigned() || unknown->get<std::uint64_t>() >= file_.numbered.size()) {
          return refuse(fmt::format("model.unk_id: expected a whole number below {}", file_.numbered.size()));
        }
        unknown_ = file_.numbered[unknown->get<std::size_t>()].first;
      }
    } else if (type == "BPE") {
      v_.algorithm = byte_level_ ? Algorithm::kMergeBytes : Algorithm::kMergeCharacters;
      v_.kind = byte_level_ ? "bpe tokenizer.json" : "bpe characters";
      ROOFTREE_TRY(v_.fuse_unknown, flag(model, "fuse_unk", false, "model"));
      ROOFTREE_TRY(v_.ignore_merges, flag(model, "ignore_merges", false, "model"));
      for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        ROOFTREE_TRY(const std::string affix, text(model, name, "", "model"));
        if (!affix.empty()) return refuse(fmt::format("model.{} is \"{}\", which is not supported", name, affix));
      }
      if (const Json* const dropout = member(model, "dropout");
          dropout != nullptr && !(dropout->is_number() && *dropout == 0)) {
        return refuse("model.dropout is not supported");
      }
    } else if (type == "WordPiece") {
      v_.kind = "wordpiece";
      v_.algorithm = Algorithm::kWordPiece;
      ROOFTREE_TRY(continuing_, text(model, "continuing_subword_prefix", "##", "model"));
      const Json* const longest = member(model, "max_input_chars_per_word");
      if (longest != nullptr) {
        if (!longest->is_number_unsigned() || longest->get<std::uint64_t>() > kMaxTokenBytes) {
          return refuse("model.max_input_chars_per_word: expected a whole number");
        }
        v_.max_word_characters = longest->get<std::size_t>();
      }
    } else {
      return refuse(fmt::format("model: the type \"{}\" is not supported; expected BPE, Unigram or WordPiece", type));
    }
    if (file_.numbered.empty()) return refuse("model.vocab is missing or empty");
    return Ok{};
  }

  // Makes room for token `id` and gives it a text.
  Status place_token(std::int64_t id, std::string content, TokenKind kind, const std::string& at) {
    // Numbers are dense but for a few holes; a far number would make room for nothing.
    if (id < 0 || static_cast<std::size_t>(id) > 2 * file_.numbered.size() + 65536 ||
        static_cast<std::size_t>(id) >= kMaxTokens) {
      return refuse(fmt::format("{}: token number {} in a vocabulary of {}", at, id, file_.numbered.size()));
    }
    const auto index = static_cast<std::size_t>(id);
    if (index >= v_.tokens.size()) {
      v_.tokens.resize(index + 1);
      v_.kinds.resize(index + 1, TokenKind::kUnused);
      given_.resize(index + 1, false);
    }
    if (given_[index] && v_.tokens[index] != content) {
      return refuse(fmt::format("{}: token {} is \"{}\" and \"{}\"", at, id, v_.tokens[index], content));
    }
    given_[index] = true;
    v_.tokens[index] = std::move(content);
    v_.kinds[index] = kind;
    return Ok{};
  }

  Status read_added_tokens(const Json* json) {
    for (const auto& [piece, id] : file_.numbered) {
      const bool byte = v_.byte_fallback && piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>';
      ROOFTREE_TRY_VOID(place_token(id, piece, byte ? TokenKind::kByte : TokenKind::kNormal, "model.vocab"));
    }
    if (json == nullptr) return Ok{};
    if (!json->is_array()) return refuse("added_tokens: expected an array");
    for (std::size_t i = 0; i < json->size(); ++i) {
      const Json& entry = (*json)[i];
      const std::string at = fmt::format("added_tokens[{}]", i);
      const Json* const id = member(entry, "id");
      if (id == nullptr || !id->is_number_unsigned() || id->get<std::uint64_t>() >= kMaxTokens) {
        return refuse(fmt::format("{}.id: expected a whole number below {}", at, kMaxTokens));
      }
      AddedToken token;
      token.token = static_cast<TokenId>(id->get<std::uint64_t>());
      ROOFTREE_TRY(token.content, text(entry, "content", "", at));
      ROOFTREE_TRY(token.special, flag(entry, "special", false, at));
      ROOFTREE_TRY(token.single_word, flag(entry, "single_word", false, at));
      ROOFTREE_TRY(token.strip_left, flag(entry, "lstrip", false, at));
      ROOFTREE_TRY(token.strip_right, flag(entry, "rstrip", false, at));
      ROOFTREE_TRY(token.normalized, flag(entry, "normalized", !token.special, at));
      if (token.content.empty()) continue;
      ROOFTREE_TRY_VOID(
          place_token(token.token, token.content, token.special ? TokenKind::kControl : TokenKind::kUserDefined, at));
      v_.added.push_back(std::move(token));
    }
    return Ok{};
  }

  std::optional<TokenId> find(const std::string& content) const {
    const TokenId token = texts_.find(content);
    return token < 0 ? std::nullopt : std::optional<TokenId>(token);
  }

  // From the texts of the file to what the algorithms work on.
  Status finish_pieces() {
    // `spelled_` keeps the texts that the file speaks of.
    spelled_ = v_.tokens;
    texts_.reserve(spelled_.size());
    for (std::size_t i = 0; i < spelled_.size(); ++i) {
      if (!given_[i] || spelled_[i].empty()) continue;
      if (!texts_.insert(spelled_[i], static_cast<TokenId>(i)) && v_.kinds[i] == TokenKind::kNormal) {
        return refuse(fmt::format("\"{}\" is token {} and {}", spelled_[i], texts_.find(spelled_[i]), i));
      }
    }
    if (v_.algorithm == Algorithm::kUnigram) v_.scores.resize(v_.tokens.size(), 0.0F);
    v_.special.unknown = unknown_.empty() ? std::nullopt : find(unknown_);
    if (!unknown_.empty() && !v_.special.unknown) return refuse(fmt::format("model.unk_token \"{}\" is no token", unknown_));
    if (v_.special.unknown) v_.kinds[static_cast<std::size_t>(*v_.special.unknown)] = TokenKind::kUnknown;
    v_.merges.reserve(file_.merges.size());
    for (std::size_t i = 0; i < file_.merges.size(); ++i) {
      const auto& [left, right] = file_.merges[i];
      const Vocabulary::Merge merge{texts_.find(left), texts_.find(right), texts_.find(left + right)};
      if (merge.left < 0 || merge.right < 0 || merge.into < 0) {
        return refuse(fmt::format("model.merges[{}] is \"{} {}\", whose parts or result are no tokens", i, left, right));
      }
      v_.merges.push_back(merge);
    }
    if (v_.algorithm == Algorithm::kMergeBytes) {
      for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
        if (v_.kinds[i] != TokenKind::kNormal) continue;
        if (auto bytes = unspell_bytes(v_.tokens[i])) v_.tokens[i] = std::move(*bytes);
      }
    }
    if (v_.algorithm == Algorithm::kWordPiece) {
      v_.starts.assign(v_.tokens.size(), true);
      for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
        if (v_.kinds[i] != TokenKind::kNormal || continuing_.empty() || !v_.tokens[i].starts_with(continuing_)) continue;
        v_.tokens[i].erase(0, continuing_.size());
        v_.starts[i] = false;
      }
    }
    return Ok{};
  }

  Result<TokenId> named(const std::string& content, const std::string& at) const {
    const auto token = find(content);
    if (!token) return refuse(fmt::format("{}: \"{}\" is no token", at, content));
    return *token;
  }
  // ["[SEP]", 102]
  Result<TokenId> pair_token(const Json& json, const char* name, const std::string& at) const {
    const Json* const pair = member(json, name);
    if (pair == nullptr || !pair->is_array() || pair->empty() || !(*pair)[0].is_string()) {
      return refuse(fmt::format("{}.{}: expected a text and a number", at, name));
    }
    return named((*pair)[0].get<std::string>(), at + "." + name);
  }

  Status read_post_processor(const Json* json, const std::string& at, std::size_t depth) {
    if (json == nullptr) return Ok{};
    ROOFTREE_TRY(const std::string type, type_of(*json, at));
    if (type == "Sequence") {
      if (depth > 4) return refuse(fmt::format("{}: sequences inside sequences", at));
      return each(*json, "processors", at, [&](const Json& step, const std::string& where, bool) {
        return read_post_processor(&step, where, depth + 1);
      });
    }
    if (type == "ByteLevel") return Ok{};  // moves offsets only
    if (type == "BertProcessing" || type == "RobertaProcessing") {
      ROOFTREE_TRY(const TokenId start, pair_token(*json, "cls", at));
      ROOFTREE_TRY(const TokenId end, pair_token(*json, "sep", at));
      v_.prefix.push_back(start);
      v_.suffix.push_back(end);
      return Ok{};
    }
    if (type != "TemplateProcessing") return refuse(fmt::format("{}: the post-processor {} is not supported", at, type));
    bool before = true;
    return each(*json, "single", at, [&](const Json& step, const std::string& where, bool) -> Status {
      if (member(step, "Sequence") != nullptr) {
        before = false;
        return Ok{};
      }
      const Json* const special = member(step, "SpecialToken");
      if (special == nullptr) return refuse(fmt::format("{}: expected a Sequence or a SpecialToken", where));
      ROOFTREE_TRY(const std::string name, text(*special, "id", "", where));
      // The template names an entry of special_tokens, which may stand for several tokens.
      const Json* const all = member(*json, "special_tokens");
      const Json* const entry = all == nullptr ? nullptr : member(*all, name.c_str());
      const Json* const tokens = entry == nullptr ? nullptr : member(*entry, "tokens");
      if (tokens == nullptr || !tokens->is_array()) {
        ROOFTREE_TRY(const TokenId token, named(name, where));
        (before ? v_.prefix : v_.suffix).push_back(token);
        return Ok{};
      }
      if (tokens->size() > kMaxSteps) return refuse(fmt::format("{}: special_tokens.{}.tokens is too long", at, name));
      for (const Json& token : *tokens) {
        if (!token.is_string()) return refuse(fmt::format("{}: special_tokens.{}.tokens: expected texts", at, name));
        ROOFTREE_TRY(const TokenId id, named(token.get<std::string>(), where));
        (before ? v_.prefix : v_.suffix).push_back(id);
      }
      return Ok{};
    });
  }

  // A special token of tokenizer_config.json: its text, or an object with it.
  Result<std::optional<TokenId>> config_token(const Json& config, const char* name, const std::string& at) const {
    const Json* found = member(config, name);
    if (found != nullptr && found->is_object()) found = member(*found, "content");
    if (found == nullptr) return std::optional<TokenId>();
    if (!found->is_string()) return refuse(fmt::format("{}: {}: expected a text", at, name));
    return find(found->get<std::string>());  // not every name is in the vocabulary
  }

  Status read_config(std::string_view config_json) {
    SpecialTokens& s = v_.special;
    Json config = Json::object();
    const std::string at = "tokenizer_config.json";
    if (!config_json.empty()) {
      ROOFTREE_TRY(config, parse_json(config_json, where_ + ": " + at));
      if (!config.is_object()) return refuse(at + ": expected an object");
    }
    ROOFTREE_TRY(s.bos, config_token(config, "bos_token", at));
    ROOFTREE_TRY(s.eos, config_token(config, "eos_token", at));
    ROOFTREE_TRY(s.separator, config_token(config, "sep_token", at));
    ROOFTREE_TRY(s.padding, config_token(config, "pad_token", at));
    ROOFTREE_TRY(s.classification, config_token(config, "cls_token", at));
    ROOFTREE_TRY(s.mask, config_token(config, "mask_token", at));
    if (!s.unknown) {
      ROOFTREE_TRY(s.unknown, config_token(config, "unk_token", at));
    }
    if (!s.bos && v_.prefix.size() == 1) s.bos = v_.prefix.front();
    if (!s.eos && v_.suffix.size() == 1) s.eos = v_.suffix.front();
    // What the configuration says wins over the template of tokenizer.json, as in transformers' classes for these families.
    const auto is_at_front = [&] { return s.bos && !v_.prefix.empty() && v_.prefix.front() == *s.bos; };
    const auto is_at_back = [&] { return s.eos && !v_.suffix.empty() && v_.suffix.back() == *s.eos; };
    ROOFTREE_TRY(const bool add_bos, flag(config, "add_bos_token", is_at_front(), at));
    ROOFTREE_TRY(const bool add_eos, flag(config, "add_eos_token", is_at_back(), at));
    if (s.bos && add_bos != is_at_front()) {
      if (add_bos) {
        v_.prefix.insert(v_.prefix.begin(), *s.bos);
      } else {
        v_.prefix.erase(v_.prefix.begin());
      }
    }
    if (s.eos && add_eos != is_at_back()) {
      if (add_eos) {
        v_.suffix.push_back(*s.eos);
      } else {
        v_.suffix.pop_back();
      }
    }
    s.add_bos = is_at_front();
    s.add_eos = is_at_back();
    const Json* const chat = member(config, "chat_template");
    if (chat != nullptr && chat->is_string()) {
      v_.chat_template = chat->get<std::string>();
    } else if (chat != nullptr && chat->is_array()) {  // several by name
      for (const Json& entry : *chat) {
        const Json* const name = member(entry, "name");
        const Json* const source = member(entry, "template");
        if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
          return refuse(at + ": chat_template: expected entries with name and template");
        }
        if (v_.chat_template.empty() || *name == "default") v_.chat_template = source->get<std::string>();
      }
    } else if (chat != nullptr) {
      return refuse(at + ": chat_template: expected a text or an array");
    }
    return Ok{};
  }

  Status read_generation_config(std::string_view json) {
    if (json.empty()) return Ok{};
    ROOFTREE_TRY(const Json config, parse_json(json, where_ + ": generation_config.json"));
    const Json* const ends = member(config, "eos_token_id");
    if (ends == nullptr) return Ok{};
    const auto add = [&](const Json& id) {
      // Some files number tokens of a larger model than the one beside them.
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= v_.tokens.size()) return;
      v_.special.end_of_generation.push_back(static_cast<TokenId>(id.get<std::uint64_t>()));
    };
    if (ends->is_array()) {
      for (const Json& id : *ends) add(id);
    } else {
      add(*ends);
    }
    return Ok{};
  }

  std::string where_;
  TokenizerFile file_;
  Vocabulary v_;
  bool byte_level_ = false;
  std::string unknown_, continuing_;
  std::vector<bool> given_;
  std::vector<std::string> spelled_;
  TextIndex texts_;  // views of spelled_
};

Result<std::shared_ptr<const Tokenizer>> parse_files(std::string_view json, std::string_view config_json,
                                                     std::string_view generation_json, std::string_view chat_template,
                                                     std::string_view where) {
  if (json.size() > kMaxFileBytes) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {} bytes; expected at most {}", where, json.size(), kMaxFileBytes)};
  }
  TokenizerFile file;
  FileHandler handler(where, file);
  if (!Json::sax_parse(json, &handler)) {
    return Error{ErrorCode::kParse, handler.problem().empty() ? fmt::format("{}: not JSON", where) : handler.problem()};
  }
  return JsonReader(where, std::move(file)).read(config_json, generation_json, chat_template);
}

}  // namespace

Result<std::shared_ptr<const Tokenizer>> Tokenizer::parse_tokenizer_json(std::string_view json, std::string_view config_json,
                                                                         std::string_view where) {
  return parse_files(json, config_json, {}, {}, where);
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_tokenizer_json(const std::filesystem::path& path) {
  ROOFTREE_TRY(const std::string json, read_file(path, kMaxFileBytes));
  const auto beside = [&](const char* name) -> Result<std::string> {
    const std::filesystem::path file = path.parent_path() / name;
    std::error_code missing;
    if (!std::filesystem::exists(file, missing)) return std::string();
    return read_file(file);
  };
  ROOFTREE_TRY(const std::string config, beside("tokenizer_config.json"));
  ROOFTREE_TRY(const std::string generation, beside("generation_config.json"));
  ROOFTREE_TRY(const std::string chat_template, beside("chat_template.jinja"));
  return parse_files(json, config, generation, chat_template, path.string());
}

}  // namespace rooftree::text

#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <set>
#include <utility>

#include "base/check.h"
#include "text/token_index.h"
#include "text/vocabulary.h"
#include "text/word_models.h"

namespace rooftree::text {
namespace {

constexpr std::size_t kLongestWord = std::size_t{1} << 30U;  // positions inside a word are 32 bits wide

// FNV-1a (Fowler, Noll, Vo), 64 bits: the same on every machine.
class Fingerprint {
 public:
  void add(std::string_view bytes) {
    add(static_cast<std::uint64_t>(bytes.size()));
    for (const char byte : bytes) step(static_cast<unsigned char>(byte));
  }
  void add(std::uint64_t value) {
    for (unsigned shift = 0; shift < 64; shift += 8) step(static_cast<unsigned char>(value >> shift));
  }
  [[nodiscard]] std::uint64_t value() const { return state_; }

 private:
  void step(unsigned char byte) { state_ = (state_ ^ byte) * 0x100000001B3ULL; }
  std::uint64_t state_ = 0xCBF29CE484222325ULL;
};

// Words seen before in the same text, with their tokens. One place per hash: a newer word takes it over.
class WordCache {
 public:
  explicit WordCache(std::size_t text_bytes) {
    if (text_bytes >= 512) slots_.resize(std::bit_ceil(std::clamp<std::size_t>(text_bytes / 16, 64, std::size_t{1} << 16U)));
  }
  template <class Encode>
  void append(std::string_view word, std::vector<TokenId>& out, const Encode& encode) {
    if (slots_.empty() || word.size() > kLongest) {
      encode(word);
      return;
    }
    const std::uint64_t hash = hash_bytes(word);
    Slot& slot = slots_[static_cast<std::size_t>(hash) & (slots_.size() - 1)];
    if (slot.size == word.size() && slot.hash == hash && std::string_view(slot.word, slot.size) == word) {
      const std::size_t first = out.size();
      out.resize(first + slot.count);
      std::copy_n(tokens_.data() + slot.first, slot.count, out.data() + first);
      return;
    }
    const std::size_t first = out.size();
    encode(word);
    slot = {hash, word.data(), static_cast<std::uint32_t>(word.size()), static_cast<std::uint32_t>(out.size() - first),
            tokens_.size()};
    tokens_.insert(tokens_.end(), out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
  }

 private:
  static constexpr std::size_t kLongest = 256;
  struct Slot {
    std::uint64_t hash = 0;
    const char* word = nullptr;
    std::uint32_t size = 0, count = 0;
    std::size_t first = 0;
  };
  std::vector<Slot> slots_;
  std::vector<TokenId> tokens_;
};

// Part of a text: an added token, or (token -1) text.
struct Segment {
  std::string_view text;
  TokenId token = -1;
};

// Added tokens by their text; finds them from left to right, the longest first where several start.
class AddedIndex {
 public:
  void build(std::vector<std::pair<std::string, AddedToken>> tokens) {
    tokens_ = std::move(tokens);
    std::vector<std::pair<std::string_view, TokenId>> always;
    std::vector<std::pair<std::string_view, TokenId>> all;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const auto index = static_cast<TokenId>(i);
      all.emplace_back(tokens_[i].first, index);
      if (!tokens_[i].second.special) always.emplace_back(tokens_[i].first, index);
    }
    always_.build(std::move(always));
    all_.build(std::move(all));
  }
  void split(std::string_view text, bool parse_special, std::vector<Segment>& segments) const {
    const ByteTrie& trie = parse_special ? all_ : always_;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size() && !trie.empty();) {
      if (!trie.starts(text[at])) {
        ++at;
        continue;
      }
      const auto [index, length] = trie.longest(text, at);
      if (index < 0) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<std::size_t>(index)].second;
      std::size_t begin = at;
      std::size_t end = at + length;
      if (token.single_word && (word_before(text, begin) || word_at(text, end))) {
        ++at;
        continue;
      }
      while (token.strip_left && begin > done && space_before(text, begin)) begin = character_before(text, begin);
      while (token.strip_right && end < text.size() && space_at(text, end)) end += character_at(text, end).length;
      if (begin > done) segments.push_back({text.substr(done, begin - done), -1});
      segments.push_back({text.substr(begin, end - begin), token.token});
      done = at = end;
    }
    if (done < text.size()) segments.push_back({text.substr(done), -1});
  }

 private:
  static std::size_t character_before(std::string_view text, std::size_t at) {
    std::size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80U) --begin;
    return character_at(text, begin).length == at - begin ? begin : at - 1;
  }
  static bool test_at(std::string_view text, std::size_t at, bool (*property)(char32_t)) {
    if (at >= text.size()) return false;
    const Character character = character_at(text, at);
    return character.valid && property(character.code);
  }
  static bool space_at(std::string_view text, std::size_t at) { return test_at(text, at, is_white_space); }
  static bool word_at(std::string_view text, std::size_t at) { return test_at(text, at, is_word); }
  static bool space_before(std::string_view text, std::size_t at) {
    return at > 0 && space_at(text, character_before(text, at));
  }
  static bool word_before(std::string_view text, std::size_t at) { return at > 0 && word_at(text, character_before(text, at)); }

  std::vector<std::pair<std::string, AddedToken>> tokens_;
  ByteTrie always_, all_;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty() || text.find(from) == std::string::npos) return;
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  std::size_t done = 0;
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  out.append(text, done);
  text = std::move(out);
}

// BERT's clean-up (google-research/bert, tokenization.py, BasicTokenizer).
std::string bert_normalized(std::string_view text, const NormalizerStep& step) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (std::size_t at = 0; at < text.size();) {
    const Character character = character_at(text, at);
    const std::string_view bytes = text.substr(at, character.length);
    at += character.length;
    if (!character.valid) {
      if (!step.clean) out += bytes;
    } else if (step.clean && (character.code == 0 || character.code == 0xFFFD || is_control(character.code))) {
      continue;
    } else if (step.clean && is_white_space(character.code)) {
      out += ' ';
    } else if (step.cjk && is_cjk_ideograph(character.code)) {
      out.append(" ").append(bytes).append(" ");
    } else {
      out += bytes;
    }
  }
  if (step.strip_marks) out = without_marks(normal_form(out, NormalForm::kNfd), Marks::kNonspacing);
  if (step.lower) out = lower_case(out);
  return out;
}

void normalize(std::string& text, const std::vector<NormalizerStep>& steps) {
  using Kind = NormalizerStep::Kind;
  for (const NormalizerStep& step : steps) {
    switch (step.kind) {
      case Kind::kForm:
        text = normal_form(text, step.form);
        break;
      case Kind::kLowerCase:
        text = lower_case(text);
        break;
      case Kind::kStripMarks:
        text = without_marks(text, Marks::kAll);
        break;
      case Kind::kStrip: {
        std::size_t begin = 0;
        std::size_t last = 0;  // end of the last character that is no white space
        bool leading = true;
        for (std::size_t at = 0; at < text.size();) {
          const Character character = character_at(text, at);
          const bool space = character.valid && is_white_space(character.code);
          at += character.length;
          if (!space) {
            last = at;
            leading = false;
          } else if (leading) {
            begin = at;
          }
        }
        if (!step.left) begin = 0;
        if (!step.right) last = text.size();
        text = begin < last ? text.substr(begin, last - begin) : std::string();
        break;
      }
      case Kind::kPrepend:
        if (!text.empty()) text.insert(0, step.to);
        break;
      case Kind::kReplace:
        replace_all(text, step.from, step.to);
        break;
      case Kind::kReplaceRegex:
        text = step.regex->replace(text, step.to);
        break;
      case Kind::kBert:
        text = bert_normalized(text, step);
        break;
    }
  }
}

class VocabularyTokenizer final : public Tokenizer {
 public:
  explicit VocabularyTokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
    model_ = make_word_model(vocabulary_);
    std::vector<std::pair<std::string, AddedToken>> raw;
    std::vector<std::pair<std::string, AddedToken>> normalized;
    for (const AddedToken& token : vocabulary_.added) {
      if (token.content.empty()) continue;
      if (!token.normalized || vocabulary_.normalizer.empty()) {
        raw.emplace_back(token.content, token);
        continue;
      }
      std::string content = token.content;
      normalize(content, vocabulary_.normalizer);
      if (!content.empty()) normalized.emplace_back(std::move(content), token);
    }
    raw_added_.build(std::move(raw));
    any_normalized_ = !normalized.empty();
    normalized_added_.build(std::move(normalized));
    make_pieces();
    hash_ = fingerprint();
  }

  [[nodiscard]] std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<TokenId> out;
    if (options.add_special) out = vocabulary_.prefix;
    out.reserve(out.size() + text.size() / 3 + 4);
    Run run(text.size(), out);
    std::vector<Segment> segments;
    raw_added_.split(text, options.parse_special, segments);
    bool after_token = true;  // nothing before, or an added token
    for (const Segment& segment : segments) {
      if (segment.token >= 0) {
        out.push_back(segment.token);
        after_token = true;
        continue;
      }
      encode_text(segment.text, after_token, segment.text.data() == text.data(), options, run);
      after_token = false;
    }
    if (options.add_special) out.insert(out.end(), vocabulary_.suffix.begin(), vocabulary_.suffix.end());
    return out;
  }

  [[nodiscard]] std::string piece(TokenId token, bool special) const override {
    const std::string_view text = piece_view(token, special);
    return std::string(text);
  }

  [[nodiscard]] std::string decode(std::span<const TokenId> tokens, bool special) const override {
    std::string out;
    bool first = vocabulary_.strips_first_space;
    for (const TokenId token : tokens) {
      std::string_view text = piece_view(token, special);
      if (first && !text.empty()) {
        first = false;
        const TokenKind kind = vocabulary_.kinds[static_cast<std::size_t>(token)];
        if (text.front() == ' ' && kind == TokenKind::kNormal) text.remove_prefix(1);
      }
      out += text;
    }
    return out;
  }

  [[nodiscard]] std::int64_t vocabulary() const override { return static_cast<std::int64_t>(vocabulary_.tokens.size()); }
  [[nodiscard]] const SpecialTokens& special() const override { return vocabulary_.special; }
  [[nodiscard]] std::string_view kind() const override { return vocabulary_.kind; }
  [[nodiscard]] std::string_view chat_template() const override { return vocabulary_.chat_template; }
  [[nodiscard]] std::uint64_t hash() const override { return hash_; }

 private:
  // What one call of encode() carries along.
  struct Run {
    Run(std::size_t text_bytes, std::vector<TokenId>& tokens) : cache(text_bytes), out(tokens) {}
    WordCache cache;
    std::deque<std::string> texts;  // what words are views of, when not of the caller's text
    std::vector<std::string_view> words, more_words;
    std::vector<TokenId>& out;
  };

  void encode_text(std::string_view text, bool after_token, bool at_start, const EncodeOptions& options, Run& run) const {
    const bool prefix = vocabulary_.prefix_space && after_token;
    if (vocabulary_.mark_spaces || prefix || !vocabulary_.normalizer.empty()) {
      std::string& changed = run.texts.emplace_back();
      if (prefix) changed = " ";
      changed += text;
      normalize(changed, vocabulary_.normalizer);
      if (vocabulary_.mark_spaces) replace_all(changed, " ", vocabulary_.space_mark);
      text = changed;
    }
    if (!any_normalized_) {
      encode_segment(text, at_start, run);
      return;
    }
    std::vector<Segment> segments;
    normalized_added_.split(text, options.parse_special, segments);
    for (const Segment& segment : segments) {
      if (segment.token >= 0) {
        run.out.push_back(segment.token);
      } else {
        encode_segment(segment.text, at_start && segment.text.data() == text.data(), run);
      }
    }
  }

  void encode_segment(std::string_view text, bool at_start, Run& run) const {
    if (text.empty()) return;
    run.words.assign(1, text);
    bool spelled = false;
    for (std::size_t i = 0; i < vocabulary_.splits.size(); ++i) {
      const SplitStep& step = vocabulary_.splits[i];
      run.more_words.clear();
      switch (step.kind) {
        case SplitStep::Kind::kRegex:
          for (const std::string_view word : run.words) step.regex->split(word, run.more_words);
          break;
        case SplitStep::Kind::kPrefixSpace:
          for (const std::string_view word : run.words) {
            run.more_words.push_back(word.front() == ' ' ? word : std::string_view(run.texts.emplace_back(" ").append(word)));
          }
          break;
        case SplitStep::Kind::kSpell:
          for (const std::string_view word : run.words) run.more_words.push_back(run.texts.emplace_back(spell_bytes(word)));
          spelled = true;
          break;
        case SplitStep::Kind::kSpaceMark:
          for (const std::string_view word : run.words) mark_spaces(word, step, at_start && word.data() == text.data(), run);
          break;
      }
      run.words.swap(run.more_words);
    }
    if (model_->cuts_before_mark()) {
      run.more_words.clear();
      for (const std::string_view word : run.words) cut_before_marks(word, run.more_words);
      run.words.swap(run.more_words);
    }
    for (std::string_view word : run.words) {
      if (spelled) {
        // Splits are between characters, each of which is a byte.
        auto bytes = unspell_bytes(word);
        ROOFTREE_CHECK(bytes.has_value(), "a word that was spelled in bytes is not");
        word = run.texts.emplace_back(std::move(*bytes));
      }
      while (word.size() > kLongestWord) {
        model_->encode(word.substr(0, kLongestWord), run.out);
        word.remove_prefix(kLongestWord);
      }
      run.cache.append(word, run.out, [&](std::string_view w) { model_->encode(w, run.out); });
    }
  }

  void cut_before_marks(std::string_view text, std::vector<std::string_view>& words) const {
    const std::string_view mark = vocabulary_.space_mark;
    std::size_t begin = 0;
    std::size_t after = 0;  // end of the last mark
    for (std::size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, at + mark.size())) {
      if (at > begin && at != after) {
        words.push_back(text.substr(begin, at - begin));
        begin = at;
      }
      after = at + mark.size();
    }
    words.push_back(text.substr(begin));
  }

  static void mark_spaces(std::string_view word, const SplitStep& step, bool at_start, Run& run) {
    std::string marked(word);
    replace_all(marked, " ", step.mark);
    const bool wanted = step.prepend == SplitStep::Prepend::kAlways || (step.prepend == SplitStep::Prepend::kFirst && at_start);
    if (wanted && !marked.starts_with(step.mark)) marked.insert(0, step.mark);
    const std::string_view text = run.texts.emplace_back(std::move(marked));
    if (!step.cut_at_mark) {
      run.more_words.push_back(text);
      return;
    }
    std::size_t begin = 0;
    for (std::size_t at = text.find(step.mark, 0); at != std::string_view::npos;
         at = text.find(step.mark, at + step.mark.size())) {
      if (at > begin) run.more_words.push_back(text.substr(begin, at - begin));
      begin = at;
    }
    if (begin < text.size()) run.more_words.push_back(text.substr(begin));
  }

  // The bytes of every token in running text, one after the other.
  void make_pieces() {
    const auto bytes = byte_tokens(vocabulary_);
    std::vector<int> byte_of(vocabulary_.tokens.size(), -1);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (bytes[byte] >= 0) byte_of[static_cast<std::size_t>(bytes[byte])] = static_cast<int>(byte);
    }
    std::size_t total = 0;
    for (const std::string& token : vocabulary_.tokens) total += token.size() + 1;
    pieces_.reserve(total);
    piece_ends_.reserve(vocabulary_.tokens.size() + 1);
    piece_ends_.push_back(0);
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      const std::string& token = vocabulary_.tokens[i];
      const TokenKind kind = vocabulary_.kinds[i];
      if (byte_of[i] >= 0) {
        pieces_.push_back(static_cast<char>(byte_of[i]));
      } else if (kind == TokenKind::kNormal && vocabulary_.algorithm == Algorithm::kWordPiece) {
        if (vocabulary_.starts[i]) pieces_.push_back(' ');
        pieces_ += token;
      } else if ((kind == TokenKind::kNormal || kind == TokenKind::kUserDefined) && !vocabulary_.space_mark.empty()) {
        std::string text = token;
        replace_all(text, vocabulary_.space_mark, " ");
        pieces_ += text;
      } else {
        pieces_ += token;
      }
      piece_ends_.push_back(pieces_.size());
    }
  }

  [[nodiscard]] std::string_view piece_view(TokenId token, bool special) const {
    if (token < 0 || static_cast<std::size_t>(token) >= vocabulary_.tokens.size()) return {};
    const auto i = static_cast<std::size_t>(token);
    const TokenKind kind = vocabulary_.kinds[i];
    if (!special && (kind == TokenKind::kControl || kind == TokenKind::kUnknown)) return {};
    return std::string_view(pieces_).substr(piece_ends_[i], piece_ends_[i + 1] - piece_ends_[i]);
  }

  [[nodiscard]] std::uint64_t fingerprint() const {
    const Vocabulary& v = vocabulary_;
    Fingerprint print;
    print.add(v.kind);
    print.add(static_cast<std::uint64_t>(v.algorithm));
    print.add(v.tokens.size());
    for (std::size_t i = 0; i < v.tokens.size(); ++i) {
      print.add(v.tokens[i]);
      print.add(static_cast<std::uint64_t>(v.kinds[i]));
    }
    for (const float score : v.scores) print.add(std::bit_cast<std::uint32_t>(score));
    for (const bool starts : v.starts) print.add(static_cast<std::uint64_t>(starts));
    for (const Vocabulary::Merge& merge : v.merges) {
      print.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(merge.left)) << 32U |
                static_cast<std::uint32_t>(merge.right));
    }
    for (const AddedToken& token : v.added) {
      print.add(token.content);
      print.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(token.token)));
      print.add(static_cast<std::uint64_t>(token.special) | static_cast<std::uint64_t>(token.strip_left) << 1U |
                static_cast<std::uint64_t>(token.strip_right) << 2U | static_cast<std::uint64_t>(token.single_word) << 3U |
                static_cast<std::uint64_t>(token.normalized) << 4U);
    }
    for (const NormalizerStep& step : v.normalizer) {
      print.add(static_cast<std::uint64_t>(step.kind));
      print.add(static_cast<std::uint64_t>(step.form));
      print.add(static_cast<std::uint64_t>(step.left) | static_cast<std::uint64_t>(step.right) << 1U |
                static_cast<std::uint64_t>(step.clean) << 2U | static_cast<std::uint64_t>(step.cjk) << 3U |
                static_cast<std::uint64_t>(step.lower) << 4U | static_cast<std::uint64_t>(step.strip_marks) << 5U);
      print.add(step.from);
      print.add(step.to);
      if (step.regex) print.add(step.regex->pattern());
    }
    for (const SplitStep& step : v.splits) {
      print.add(static_cast<std::uint64_t>(step.kind) | static_cast<std::uint64_t>(step.prepend) << 8U |
                static_cast<std::uint64_t>(step.cut_at_mark) << 16U);
      print.add(step.mark);
      if (step.regex) {
        print.add(step.regex->pattern());
        print.add(static_cast<std::uint64_t>(step.regex->options().behavior) << 1U |
                  static_cast<std::uint64_t>(step.regex->options().invert));
      }
    }
    print.add(v.space_mark);
    print.add(v.max_word_characters);
    print.add(static_cast<std::uint64_t>(v.merge_by_rank) | static_cast<std::uint64_t>(v.ignore_merges) << 1U |
              static_cast<std::uint64_t>(v.byte_fallback) << 2U | static_cast<std::uint64_t>(v.fuse_unknown) << 3U |
              static_cast<std::uint64_t>(v.mark_spaces) << 4U | static_cast<std::uint64_t>(v.prefix_space) << 5U);
    print.add(static_cast<std::uint64_t>(static_cast<std::int64_t>(v.special.unknown.value_or(-1))));
    for (const auto* ids : {&v.prefix, &v.suffix}) {
      print.add(ids->size());
      for (const TokenId id : *ids) print.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(id)));
    }
    return print.value();
  }

  Vocabulary vocabulary_;
  std::unique_ptr<WordModel> model_;
  AddedIndex raw_added_, normalized_added_;
  bool any_normalized_ = false;
  std::string pieces_;
  std::vector<std::size_t> piece_ends_;
  std::uint64_t hash_ = 0;
};

}  // namespace

std::vector<TokenId> end_of_generation_tokens(const Vocabulary& vocabulary) {
  static const std::set<std::string_view, std::less<>> names = {
      "<|eot_id|>",  // Llama 3: end of a turn
      "<|eom_id|>",  // Llama 3: end of a message that calls a tool
      "<|eot|>",
      "<|eom|>",          // Llama 4: the same
      "<|end_of_text|>",  // Llama 3, Granite
      "<|im_end|>",       // ChatML: Qwen, SmolLM, Yi
      "<|endoftext|>",    // GPT-2, Qwen, Falcon, StarCoder, Phi
      "<|end|>",          // Phi-3
      "<|return|>",
      "<|call|>",  // harmony (gpt-oss): the answer is complete; it is a call of a tool
      "<|calls|>",
      "<|flush|>",  // Solar: the same
      "<end_of_turn>",
      "<turn|>",                // Gemma 2 and 3; Gemma 4
      "<|tool_response>",       // Gemma 4: waits for a tool
      "<｜end▁of▁sentence｜>",  // DeepSeek
      "<|EOT|>",                // DeepSeek-Coder
      "<|end_of_turn|>",        // OpenChat
      "<|END_OF_TURN_TOKEN|>",  // Command-R
      "<end_of_utterance>",     // SmolVLM
      "[EOT]",
      "[EOS]",  // Kimi-K2
      "[e~[",   // MiniMax-M2
      "<EOT>",
      "_<EOT>",  // CodeLlama's infilling
      "<eos>",
      "</s>",  // Gemma; Llama 2, Mistral and most SentencePiece vocabularies
      "<|user|>",
      "<|observation|>",  // GLM-4: hands over to the user, or waits for a tool
      "<|fim_pad|>",
      "<|repo_name|>",
      "<|file_sep|>",  // Qwen2.5-Coder: what comes after a completed file
  };
  std::vector<std::pair<std::string_view, TokenId>> found;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& token = vocabulary.tokens[i];
    if (token.empty() || (token[0] != '<' && token[0] != '[' && token[0] != '_')) continue;
    const auto name = names.find(token);
    if (name == names.end()) continue;
    // Ordinary text can look like "</s>", hardly like "<|im_end|>" (which some files forget to mark).
    const bool unmistakable = token.starts_with("<|") || token.starts_with("<｜");
    if (vocabulary.kinds[i] == TokenKind::kNormal && !unmistakable) continue;
    found.emplace_back(*name, static_cast<TokenId>(i));
  }
  const auto has = [&](std::string_view name) {
    return std::any_of(found.begin(), found.end(), [&](const auto& entry) { return entry.first == name; });
  };
  const auto drop = [&](std::string_view name) {
    std::erase_if(found, [&](const auto& entry) { return entry.first == name; });
  };
  // In harmony "<|end|>" ends one message (the reasoning, say) and the answer goes on with the next.
  if ((has("<|return|>") && has("<|call|>")) || (has("<|flush|>") && has("<|calls|>"))) drop("<|end|>");
  // Gemma's vocabulary has "</s>" as the HTML tag; its end is "<eos>".
  if (has("<eos>")) drop("</s>");
  // Phi-3 has "<|user|>" too, as a role inside its format.
  if (!has("<|user|>") || !has("<|observation|>")) {
    drop("<|user|>");
    drop("<|observation|>");
  }
  std::set<TokenId> ids;
  for (const auto& [name, token] : found) ids.insert(token);
  if (vocabulary.special.eos) ids.insert(*vocabulary.special.eos);
  for (const TokenId token : vocabulary.special.end_of_generation) ids.insert(token);
  return {ids.begin(), ids.end()};
}

Result<std::shared_ptr<const Tokenizer>> make_tokenizer(Vocabulary vocabulary, std::string_view where) {
  const auto refuse = [&](const std::string& what) { return Error{ErrorCode::kInvalid, fmt::format("{}: {}", where, what)}; };
  const std::size_t count = vocabulary.tokens.size();
  const auto known = [&](TokenId token) { return token >= 0 && static_cast<std::size_t>(token) < count; };
  if (count == 0 || count > kMaxTokens) {
    return refuse(fmt::format("a vocabulary of {} tokens; expected 1 to {}", count, kMaxTokens));
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (vocabulary.tokens[i].size() > kMaxTokenBytes) {
      return refuse(fmt::format("token {} has {} bytes; expected at most {}", i, vocabulary.tokens[i].size(), kMaxTokenBytes));
    }
  }
  ROOFTREE_CHECK(vocabulary.kinds.size() == count, "every token has a kind");
  const bool scored = vocabulary.algorithm == Algorithm::kScoreCharacters || vocabulary.algorithm == Algorithm::kUnigram;
  ROOFTREE_CHECK(!scored || vocabulary.scores.size() == count, "every token has a score");
  ROOFTREE_CHECK(vocabulary.algorithm != Algorithm::kWordPiece || vocabulary.starts.size() == count, "every piece has a place");
  for (std::size_t i = 0; scored && i < count; ++i) {
    if (!std::isfinite(vocabulary.scores[i])) return refuse(fmt::format("the score of token {} is not a finite number", i));
  }
  if (vocabulary.merges.size() > kMaxMerges) {
    return refuse(fmt::format("{} merges; expected at most {}", vocabulary.merges.size(), kMaxMerges));
  }
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const Vocabulary::Merge& merge = vocabulary.merges[i];
    if (!known(merge.left) || !known(merge.right) || !known(merge.into)) {
      return refuse(fmt::format("merge {} names a token outside the vocabulary of {}", i, count));
    }
  }
  for (const AddedToken& token : vocabulary.added) {
    if (!known(token.token)) {
      return refuse(fmt::format("added token \"{}\" is number {} in a vocabulary of {}", token.content, token.token, count));
    }
  }
  SpecialTokens& special = vocabulary.special;
  const std::pair<const char*, std::optional<TokenId>> named[] = {{"beginning-of-text", special.bos},
                                                                  {"end-of-text", special.eos},
                                                                  {"unknown", special.unknown},
                                                                  {"separator", special.separator},
                                                                  {"padding", special.padding},
                                                                  {"classification", special.classification},
                                                                  {"mask", special.mask}};
  for (const auto& [name, token] : named) {
    if (token && !known(*token)) return refuse(fmt::format("the {} token is {} in a vocabulary of {}", name, *token, count));
  }
  for (const auto* ids : {&vocabulary.prefix, &vocabulary.suffix, &special.end_of_generation}) {
    for (const TokenId token : *ids) {
      if (!known(token)) return refuse(fmt::format("special token {} in a vocabulary of {}", token, count));
    }
  }
  special.end_of_generation = end_of_generation_tokens(vocabulary);
  return std::shared_ptr<const Tokenizer>(std::make_shared<const VocabularyTokenizer>(std::move(vocabulary)));
}

}  // namespace rooftree::text

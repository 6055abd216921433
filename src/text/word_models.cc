#include "text/word_models.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <queue>

#include "base/check.h"
#include "text/token_index.h"

namespace rooftree::text {
namespace {

using Merge = PairIndex::Merge;

// A run of text that is one token (or, with token -1, one character that has none) for now.
struct Symbol {
  std::uint32_t begin = 0, size = 0;
  TokenId token = -1;
  std::int32_t previous = -1, next = -1;
};

constexpr std::size_t kFewSymbols = 32;

// Merges neighbours, the lowest rank first and of equal ranks the leftmost, until nothing merges. `find(left, right)` gives the
// merge of two neighbouring symbols. On return `symbols` holds what is left, in order.
template <class Find>
void merge_few(std::vector<Symbol>& symbols, const Find& find) {
  std::array<Merge, kFewSymbols> merges;  // of symbols i and i + 1
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = count;
    for (std::size_t i = 0; i + 1 < count; ++i) {
      if (merges[i].token >= 0 && (best == count || merges[i].rank < merges[best].rank)) best = i;
    }
    if (best == count) break;
    symbols[best].size += symbols[best + 1].size;
    symbols[best].token = merges[best].token;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (std::size_t i = best + 1; i + 1 < count; ++i) merges[i] = merges[i + 1];
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

template <class Find>
void merge_many(std::vector<Symbol>& symbols, const Find& find) {
  struct Candidate {
    std::uint32_t rank = 0;
    std::int32_t left = 0, right = 0;
    std::uint32_t size = 0;  // of both; tells whether they are still what they were
    TokenId token = -1;
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> queue(later, std::move(storage));
  const auto at = [&](std::int32_t index) -> Symbol& { return symbols[static_cast<std::size_t>(index)]; };
  const auto propose = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    const Merge merge = find(at(left), at(right));
    if (merge.token >= 0) queue.push({merge.rank, left, right, at(left).size + at(right).size, merge.token});
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    at(i).previous = i - 1;
    at(i).next = i + 1 < count ? i + 1 : -1;
  }
  for (std::int32_t i = 0; i + 1 < count; ++i) propose(i, i + 1);
  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    Symbol& left = at(candidate.left);
    Symbol& right = at(candidate.right);
    // A symbol that was merged into its left neighbour has size 0; one that grew makes another sum.
    if (left.size == 0 || right.size == 0 || left.size + right.size != candidate.size) continue;
    left.size = candidate.size;
    left.token = candidate.token;
    left.next = right.next;
    right.size = 0;
    if (left.next >= 0) at(left.next).previous = candidate.left;
    propose(left.previous, candidate.left);
    propose(candidate.left, left.next);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.size == 0; });
}

template <class Find>
void merge_symbols(std::vector<Symbol>& symbols, const Find& find) {
  if (symbols.size() <= kFewSymbols) {
    merge_few(symbols, find);
  } else {
    merge_many(symbols, find);
  }
}

// Kept per thread, so that encoding a short word allocates nothing.
std::vector<Symbol>& symbol_buffer() {
  thread_local std::vector<Symbol> buffer;
  buffer.clear();
  if (buffer.capacity() > (std::size_t{1} << 16U)) buffer.shrink_to_fit();
  return buffer;
}

// A higher score is a lower rank. The order of the floats is that of their bits, mirrored where negative.
std::uint32_t rank_of_score(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score == 0 ? 0.0F : score);
  const std::uint32_t ascending = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return ~ascending;
}

bool plain(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined || kind == TokenKind::kUnused;
}

// Characters without a token: byte tokens, else the unknown token, else nothing.
class Fallback {
 public:
  explicit Fallback(const Vocabulary& vocabulary)
      : unknown_(vocabulary.special.unknown.value_or(-1)),
        fuse_(vocabulary.fuse_unknown),
        use_bytes_(vocabulary.byte_fallback) {
    if (use_bytes_) bytes_ = byte_tokens(vocabulary);
  }
  // `first` is where the tokens of this word start in `out`.
  void append(std::string_view text, std::size_t first, std::vector<TokenId>& out) const {
    if (use_bytes_) {
      bool all = true;
      for (const char c : text) all = all && bytes_[static_cast<unsigned char>(c)] >= 0;
      if (all) {
        for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
        return;
      }
    }
    if (unknown_ < 0 || (fuse_ && out.size() > first && out.back() == unknown_)) return;
    out.push_back(unknown_);
  }

 private:
  std::array<TokenId, 256> bytes_{};
  TokenId unknown_ = -1;
  bool fuse_ = false, use_bytes_ = false;
};

// Byte pair encoding by the merges of a file, over bytes or characters.
class MergeModel final : public WordModel {
 public:
  explicit MergeModel(const Vocabulary& vocabulary)
      : bytes_(vocabulary.algorithm == Algorithm::kMergeBytes),
        ignore_merges_(vocabulary.ignore_merges),
        fallback_(vocabulary) {
    single_.fill(-1);
    texts_.reserve(vocabulary.tokens.size());
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
      const std::string& text = vocabulary.tokens[i];
      if (text.empty() || !plain(vocabulary.kinds[i])) continue;
      const auto token = static_cast<TokenId>(i);
      if (texts_.insert(text, token) && text.size() == 1) single_[static_cast<unsigned char>(text[0])] = token;
    }
    const std::string& mark = vocabulary.space_mark;
    // The mark must be a token: then no word starts with an unknown token, which could fuse with one before the cut.
    cuts_ = !mark.empty() && !bytes_ && texts_.find(mark) >= 0;
    if (vocabulary.merge_by_rank) {
      // Each way to part a token into two tokens is a merge at the token's rank.
      pairs_.reserve(vocabulary.tokens.size() * 2);
      for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        const std::string_view text = vocabulary.tokens[i];
        if (texts_.find(text) != static_cast<TokenId>(i)) continue;
        for (std::size_t cut = 1; cut < text.size(); ++cut) {
          const TokenId left = texts_.find(text.substr(0, cut));
          const TokenId right = left < 0 ? -1 : texts_.find(text.substr(cut));
          if (right >= 0) pairs_.insert(left, right, {static_cast<std::uint32_t>(i), static_cast<TokenId>(i)});
        }
      }
    } else {
      pairs_.reserve(vocabulary.merges.size());
      for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
        const Vocabulary::Merge& merge = vocabulary.merges[i];
        pairs_.insert(merge.left, merge.right, {static_cast<std::uint32_t>(i), merge.into});
        if (cuts_) {
          const std::string_view left = vocabulary.tokens[static_cast<std::size_t>(merge.left)];
          const std::string_view right = vocabulary.tokens[static_cast<std::size_t>(merge.right)];
          cuts_ = !right.starts_with(mark) || left.ends_with(mark);
        }
      }
      // A word that is a token needs no merges when those are ignored; such tokens must not span a cut either.
      for (std::size_t i = 0; cuts_ && ignore_merges_ && i < vocabulary.tokens.size(); ++i) {
        cuts_ = vocabulary.tokens[i].find(mark, 1) == std::string::npos;
      }
    }
  }

  void encode(std::string_view word, std::vector<TokenId>& out) const override {
    if (ignore_merges_ || word.size() == 1) {
      const TokenId token = texts_.find(word);
      if (token >= 0) {
        out.push_back(token);
        return;
      }
    }
    std::vector<Symbol>& symbols = symbol_buffer();
    for (std::size_t at = 0; at < word.size();) {
      const std::uint32_t size = bytes_ ? 1 : character_at(word, at).length;
      const TokenId token = size == 1 ? single_[static_cast<unsigned char>(word[at])] : texts_.find(word.substr(at, size));
      symbols.push_back({static_cast<std::uint32_t>(at), size, token});
      at += size;
    }
    merge_symbols(symbols, [&](const Symbol& left, const Symbol& right) {
      return left.token < 0 || right.token < 0 ? Merge{} : pairs_.find(left.token, right.token);
    });
    const std::size_t first = out.size();
    for (const Symbol& symbol : symbols) {
      if (symbol.token >= 0) {
        out.push_back(symbol.token);
      } else {
        fallback_.append(word.substr(symbol.begin, symbol.size), first, out);
      }
    }
  }

  [[nodiscard]] bool cuts_before_mark() const override { return cuts_; }

 private:
  bool bytes_ = true, ignore_merges_ = false, cuts_ = false;
  Fallback fallback_;
  std::array<TokenId, 256> single_{};
  TextIndex texts_;
  PairIndex pairs_;
};

// SentencePiece's BPE: which neighbours merge, and when, follows from the text that they make and its score.
class ScoreModel final : public WordModel {
 public:
  explicit ScoreModel(const Vocabulary& vocabulary) : fallback_(vocabulary) {
    texts_.reserve(vocabulary.tokens.size());
    ranks_.resize(vocabulary.tokens.size());
    const std::string& mark = vocabulary.space_mark;
    cuts_ = !mark.empty();
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
      const std::string& text = vocabulary.tokens[i];
      ranks_[i] = rank_of_score(vocabulary.scores[i]);
      // Control and byte tokens cannot be written as text.
      if (text.empty() || !plain(vocabulary.kinds[i])) continue;
      texts_.insert(text, static_cast<TokenId>(i));
      // A mark after something else inside a token: merges may cross there.
      for (std::size_t at = text.find(mark, 1); cuts_ && at != std::string::npos; at = text.find(mark, at + 1)) {
        cuts_ = at >= mark.size() && text.compare(at - mark.size(), mark.size(), mark) == 0;
      }
    }
    cuts_ = cuts_ && texts_.find(mark) >= 0;
  }

  void encode(std::string_view word, std::vector<TokenId>& out) const override {
    std::vector<Symbol>& symbols = symbol_buffer();
    for (std::size_t at = 0; at < word.size();) {
      const std::uint32_t size = character_at(word, at).length;
      symbols.push_back({static_cast<std::uint32_t>(at), size, texts_.find(word.substr(at, size))});
      at += size;
    }
    merge_symbols(symbols, [&](const Symbol& left, const Symbol& right) {
      const TokenId token = texts_.find(word.substr(left.begin, left.size + right.size));
      return token < 0 ? Merge{} : Merge{ranks_[static_cast<std::size_t>(token)], token};
    });
    const std::size_t first = out.size();
    for (const Symbol& symbol : symbols) {
      if (symbol.token >= 0) {
        out.push_back(symbol.token);
      } else {
        fallback_.append(word.substr(symbol.begin, symbol.size), first, out);
      }
    }
  }

  [[nodiscard]] bool cuts_before_mark() const override { return cuts_; }

 private:
  Fallback fallback_;
  TextIndex texts_;
  std::vector<std::uint32_t> ranks_;
  bool cuts_ = false;
};

// SentencePiece's unigram model (Kudo 2018, arXiv 1804.10959): Viterbi over all tokens that start at each character. A
// character that is no token costs 10 below the lowest score, as in SentencePiece (unigram_model.cc, kUnkPenalty).
class UnigramModel final : public WordModel {
 public:
  explicit UnigramModel(const Vocabulary& vocabulary) : fallback_(vocabulary), scores_(vocabulary.scores) {
    std::vector<std::pair<std::string_view, TokenId>> keys;
    double lowest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
      if (vocabulary.kinds[i] == TokenKind::kNormal) lowest = std::min(lowest, static_cast<double>(scores_[i]));
      if (vocabulary.kinds[i] == TokenKind::kUserDefined) scores_[i] = 0;
      if (plain(vocabulary.kinds[i])) keys.emplace_back(vocabulary.tokens[i], static_cast<TokenId>(i));
    }
    unknown_score_ = (std::isfinite(lowest) ? lowest : 0.0) - 10.0;
    trie_.build(std::move(keys));
  }

  void encode(std::string_view word, std::vector<TokenId>& out) const override {
    struct Step {
      double score = -std::numeric_limits<double>::infinity();
      std::uint32_t from = 0;
      TokenId token = -1;
    };
    std::vector<Step> best(word.size() + 1);
    best[0].score = 0;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t length = character_at(word, at).length;
      bool whole = false;  // a token that is just this character
      std::uint32_t node = 0;
      for (std::size_t i = at; i < word.size() && !trie_.empty(); ++i) {
        node = trie_.child(node, word[i]);
        if (node == 0) break;
        const TokenId token = trie_.value(node);
        if (token < 0) continue;
        const std::size_t end = i + 1;
        whole = whole || end - at == length;
        const double score = best[at].score + static_cast<double>(scores_[static_cast<std::size_t>(token)]);
        if (score > best[end].score) best[end] = {score, static_cast<std::uint32_t>(at), token};
      }
      if (!whole) {
        const double score = best[at].score + unknown_score_;
        if (score > best[at + length].score) best[at + length] = {score, static_cast<std::uint32_t>(at), -1};
      }
      at += length;
    }
    std::vector<std::size_t> ends;
    for (std::size_t end = word.size(); end > 0; end = best[end].from) ends.push_back(end);
    const std::size_t first = out.size();
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const Step& step = best[*end];
      if (step.token >= 0) {
        out.push_back(step.token);
      } else {
        fallback_.append(word.substr(step.from, *end - step.from), first, out);
      }
    }
  }

 private:
  Fallback fallback_;
  std::vector<float> scores_;
  ByteTrie trie_;
  double unknown_score_ = 0;
};

class WordPieceModel final : public WordModel {
 public:
  explicit WordPieceModel(const Vocabulary& vocabulary)
      : unknown_(vocabulary.special.unknown.value_or(-1)), max_characters_(vocabulary.max_word_characters) {
    std::vector<std::pair<std::string_view, TokenId>> starting;
    std::vector<std::pair<std::string_view, TokenId>> continuing;
    for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
      if (plain(vocabulary.kinds[i])) {
        (vocabulary.starts[i] ? starting : continuing).emplace_back(vocabulary.tokens[i], static_cast<TokenId>(i));
      }
    }
    starting_.build(std::move(starting));
    continuing_.build(std::move(continuing));
  }

  void encode(std::string_view word, std::vector<TokenId>& out) const override {
    const std::size_t first = out.size();
    std::size_t characters = 0;
    for (std::size_t at = 0; at < word.size() && characters <= max_characters_; ++characters)
      at += character_at(word, at).length;
    std::size_t at = 0;
    while (at < word.size() && characters <= max_characters_) {
      const auto [token, length] = (at == 0 ? starting_ : continuing_).longest(word, at);
      if (token < 0) break;
      out.push_back(token);
      at += length;
    }
    if (at == word.size()) return;
    out.resize(first);
    if (unknown_ >= 0) out.push_back(unknown_);
  }

 private:
  TokenId unknown_ = -1;
  std::size_t max_characters_ = 0;
  ByteTrie starting_, continuing_;
};

}  // namespace

std::array<TokenId, 256> byte_tokens(const Vocabulary& vocabulary) {
  std::array<TokenId, 256> tokens{};
  tokens.fill(-1);
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& text = vocabulary.tokens[i];
    if (vocabulary.kinds[i] != TokenKind::kByte || text.size() != 6 || text.compare(0, 3, "<0x") != 0 || text[5] != '>')
      continue;
    const int high = digit(text[3]);
    const int low = digit(text[4]);
    if (high >= 0 && low >= 0) tokens[static_cast<std::size_t>(high * 16 + low)] = static_cast<TokenId>(i);
  }
  return tokens;
}

std::unique_ptr<WordModel> make_word_model(const Vocabulary& vocabulary) {
  switch (vocabulary.algorithm) {
    case Algorithm::kMergeBytes:
    case Algorithm::kMergeCharacters:
      return std::make_unique<MergeModel>(vocabulary);
    case Algorithm::kScoreCharacters:
      return std::make_unique<ScoreModel>(vocabulary);
    case Algorithm::kUnigram:
      return std::make_unique<UnigramModel>(vocabulary);
    case Algorithm::kWordPiece:
      return std::make_unique<WordPieceModel>(vocabulary);
  }
  ROOFTREE_CHECK(false, "an algorithm without a model");
}

}  // namespace rooftree::text

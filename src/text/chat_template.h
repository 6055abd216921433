#pragma once

// Chat templates: the subset of Jinja that the templates of published models use, parsed once, evaluated with bounds on steps,
// depth and output. A template that needs more is refused by the name of what is missing, with its line. Rendered as Hugging
// Face transformers does (docs "Chat templates": trim_blocks and lstrip_blocks on, `tools` and `documents` none where not
// given).

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace rooftree::text {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
  std::string
      extra_json;  // a JSON object of further fields ("tool_calls", "name", "reasoning_content", "content": null), or empty
};

struct ChatOptions {
  bool add_generation_prompt = true;
  std::string bos_token, eos_token;  // the text of the tokens, as templates print them
  std::string tools_json;            // a JSON array of tool definitions, or empty
  std::string extra_json;            // a JSON object of further variables ("enable_thinking": false), or empty
  std::string date;                  // "26 Nov 2026" for strftime_now; empty: strftime_now is not defined
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> parse(std::string_view source, std::string_view where);
  // A built-in template by name ("chatml", "llama2", "llama3", "gemma", "phi3", "mistral", …), for files without one.
  static Result<ChatTemplate> named(std::string_view name);
  [[nodiscard]] static std::string names();  // of the built-in ones, for messages: "chatml, command-r, …"
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // The template's own raise_exception is kInvalid with its message.
  Result<std::string> render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const;
  // The rendered conversation as tokens. The texts of BOS and EOS come from the tokenizer; special tokens in the text become
  // tokens; BOS comes first where the model wants it and the template does not print it.
  Result<std::vector<TokenId>> encode(const std::vector<ChatMessage>& messages, ChatOptions options,
                                      const Tokenizer& tokenizer) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace rooftree::text

// A chat template, whatever it holds, is refused with a message or renders a fixed conversation within its bounds.

#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rooftree::text;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = ChatTemplate::parse(source, "fuzz");
  if (!parsed) {
    ROOFTREE_CHECK(parsed.error().message.starts_with("fuzz:"), "an error says where");
    return 0;
  }
  static const std::vector<ChatMessage> messages = {
      {"system", "Be brief.", ""},
      {"user", "Héllo <b> \xff\xf0\x9f\x98", ""},
      {"assistant", "<think>\nhm\n</think>\n\nHi", ""},
      {"user", " again\n", ""},
      {"assistant", "", R"({"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"x":[1,2.5,null]}}}],"content":null})"},
      {"tool", "22", R"({"name":"f"})"},
  };
  static const ChatOptions options{
      .bos_token = "<s>",
      .eos_token = "</s>",
      .tools_json = R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object",)"
                    R"("properties":{"x":{"type":"array","items":{"type":"number"}}},"required":["x"]}}}])",
      .extra_json = R"({"enable_thinking":false})",
      .date = "26 Nov 2026",
  };
  const auto text = parsed->render(messages, options);
  if (!text) {
    ROOFTREE_CHECK(text.error().message.starts_with("fuzz:"), "an error says where");
  } else {
    const auto again = parsed->render(messages, options);
    ROOFTREE_CHECK(again && *again == *text, "rendering has no memory");
  }
  return 0;
}

#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace rooftree::text {
namespace {

std::string render(std::string_view source, const std::vector<ChatMessage>& messages = {}, const ChatOptions& options = {}) {
  const auto parsed = ChatTemplate::parse(source, "t");
  if (!parsed) return "parse: " + parsed.error().message;
  const auto text = parsed->render(messages, options);
  return text ? *text : "render: " + text.error().message;
}

// The conversation of llama.cpp's tests/test-chat-template.cpp, where the outputs of the families below were checked against
// transformers; the expectations follow from the templates.
const std::vector<ChatMessage> kConversation = {{"system", "You are a helpful assistant", ""},
                                                {"user", "Hello", ""},
                                                {"assistant", "Hi there", ""},
                                                {"user", "Who are you", ""},
                                                {"assistant", "   I am an assistant   ", ""},
                                                {"user", "Another question", ""}};
const std::vector<ChatMessage> kWithoutSystem(kConversation.begin() + 1, kConversation.end());
const ChatOptions kSentencePiece{.bos_token = "<s>", .eos_token = "</s>"};

constexpr char kTools[] =
    R"([{"type":"function","function":{"name":"weather","description":"Tells \"it\"","parameters":{"type":"object",)"
    R"("properties":{"city":{"type":"string"}},"required":["city"]}}}])";
const ChatMessage kCall{
    "assistant", "",
    R"({"tool_calls":[{"type":"function","function":{"name":"weather","arguments":{"city":"Zürich","n":3}}}]})"};

// ---- families: the published `chat_template` of the named repository's tokenizer_config.json ----

TEST(ChatTemplateFamily, ChatMl) {  // teknium/OpenHermes-2.5-Mistral-7B, Qwen1.5 and many others
  constexpr std::string_view kSource =
      R"J({% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})J";
  constexpr std::string_view kExpected =
      "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
      "Hi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n   I am an assistant   <|im_end|>\n"
      "<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(render(kSource, kConversation), kExpected);
  EXPECT_EQ(*ChatTemplate::named("chatml")->render(kConversation, {}), kExpected);
}

TEST(ChatTemplateFamily, SmolLm2) {  // HuggingFaceTB/SmolLM2-1.7B-Instruct
  constexpr std::string_view kSource =
      R"J({% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %})J";
  EXPECT_EQ(render(kSource, {{"user", "Hi", ""}}),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplateFamily, Llama2) {  // meta-llama/Llama-2-7b-chat-hf
  constexpr std::string_view kSource =
      R"J({% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %})J";
  constexpr std::string_view kExpected =
      "<s>[INST] <<SYS>>\nYou are a helpful assistant\n<</SYS>>\n\nHello [/INST] Hi there </s><s>[INST] Who are you [/INST] "
      "I am an assistant </s><s>[INST] Another question [/INST]";
  EXPECT_EQ(render(kSource, kConversation, kSentencePiece), kExpected);
  EXPECT_EQ(*ChatTemplate::named("llama2")->render(kConversation, kSentencePiece), kExpected);
  EXPECT_EQ(render(kSource, {{"user", "a", ""}, {"user", "b", ""}}, kSentencePiece),
            "render: t:1: Conversation roles must alternate user/assistant/user/assistant/...");
}

TEST(ChatTemplateFamily, Llama3) {  // meta-llama/Meta-Llama-3-8B-Instruct
  constexpr std::string_view kSource =
      R"J({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %})J";
  constexpr std::string_view kExpected =
      "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant<|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi "
      "there<|eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
      "I am an assistant<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\n";
  const ChatOptions options{.bos_token = "<|begin_of_text|>"};
  EXPECT_EQ(render(kSource, kConversation, options), kExpected);
  EXPECT_EQ(*ChatTemplate::named("llama3")->render(kConversation, options), kExpected);
}

// meta-llama/Llama-3.2-3B-Instruct, without the branch that puts tools into the system message.
constexpr std::string_view kLlama32 = R"J({{- bos_token }}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{#- Custom tools are passed in a user message with some extra guidance #}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Do not use variables.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)J";

TEST(ChatTemplateFamily, Llama32) {
  EXPECT_EQ(render(kLlama32, {{"user", " Hi ", ""}}, {.bos_token = "<b>"}),
            "<b><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
            "2024\n\n<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(render(kLlama32, {{"system", "S", ""}, {"user", "Q", ""}, kCall, {"tool", "22 °C", ""}},
                   {.tools_json = kTools, .date = "6 Nov 2026"}),
            R"J(<|start_header_id|>system<|end_header_id|>

Environment: ipython
Cutting Knowledge Date: December 2023
Today Date: 06 Nov 2026

S<|eot_id|><|start_header_id|>user<|end_header_id|>

Do not use variables.

{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells \"it\"",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string"
                }
            },
            "required": [
                "city"
            ]
        }
    }
}

Q<|eot_id|><|start_header_id|>assistant<|end_header_id|>

{"name": "weather", "parameters": {"city": "Zürich", "n": 3}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

"22 °C"<|eot_id|><|start_header_id|>assistant<|end_header_id|>

)J");
  EXPECT_EQ(render(kLlama32, {{"system", "S", ""}}, {.tools_json = kTools}),
            "render: t:40: Cannot put tools in the first user message when there's no first user message!");
}

// Qwen/Qwen3-0.6B, without the descriptions of the tool protocol.
TEST(ChatTemplateFamily, Qwen3) {
  constexpr std::string_view kSource = R"J({%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %})J";
  EXPECT_EQ(render(kSource,
                   {{"system", "S", ""}, {"user", "A", ""}, {"assistant", "<think>\nhm\n</think>\n\nB", ""}, {"user", "C", ""}},
                   {.extra_json = R"({"enable_thinking": false})"}),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
            "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
  EXPECT_EQ(
      render(kSource,
             {{"user", "A", ""}, kCall, {"tool", "1", ""}, {"tool", "2", ""}, {"assistant", "<think>\nhm\n</think>\n\nB", ""}},
             {.add_generation_prompt = false}),
      "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
      "{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\", \"n\": 3}}\n</tool_call><|im_end|>\n"
      "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
      "<|im_start|>assistant\n<think>\nhm\n</think>\n\nB<|im_end|>\n");
}

TEST(ChatTemplateFamily, MistralV7) {  // mistralai/Mistral-Large-Instruct-2411
  constexpr std::string_view kSource =
      R"J({{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT] ' + message['content'] + '[/SYSTEM_PROMPT]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user, system and assistant roles are supported!') }}{% endif %}{% endfor %})J";
  EXPECT_EQ(
      render(kSource, kConversation, kSentencePiece),
      "<s>[SYSTEM_PROMPT] You are a helpful assistant[/SYSTEM_PROMPT][INST] Hello[/INST] Hi there</s>[INST] Who are you[/INST]"
      "    I am an assistant   </s>[INST] Another question[/INST]");
  EXPECT_EQ(render(kSource, {{"tool", "x", ""}}), "render: t:1: Only user, system and assistant roles are supported!");
}

// mistralai/Mistral-Nemo-Instruct-2407, without tool calls: selectattr, a namespace that counts, the last user message.
TEST(ChatTemplateFamily, MistralV3Tekken) {
  constexpr std::string_view kSource = R"J({%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- This block checks for alternating user/assistant messages, skipping tool calling messages #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
)J";
  EXPECT_EQ(render(kSource, kConversation, kSentencePiece),
            "<s>[INST]Hello[/INST]Hi there</s>[INST]Who are you[/INST]   I am an assistant   </s>"
            "[INST]You are a helpful assistant\n\nAnother question[/INST]");
  EXPECT_EQ(
      render(kSource, {{"user", "Hi", ""}}, {.tools_json = R"([{"function":{"name":"f","return":1,"parameters":{"a":[]}}}])"}),
      R"J([AVAILABLE_TOOLS][{"type": "function", "function": {"name": "f", "parameters": {"a": []}}}][/AVAILABLE_TOOLS][INST]Hi[/INST])J");
}

TEST(ChatTemplateFamily, Gemma2) {  // google/gemma-2-2b-it
  constexpr std::string_view kSource =
      R"J({{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %})J";
  constexpr std::string_view kExpected =
      "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi there<end_of_turn>\n<start_of_turn>user\n"
      "Who are you<end_of_turn>\n<start_of_turn>model\nI am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question"
      "<end_of_turn>\n<start_of_turn>model\n";
  EXPECT_EQ(render(kSource, kWithoutSystem, {.bos_token = "<bos>"}), kExpected);
  EXPECT_EQ(*ChatTemplate::named("gemma")->render(kWithoutSystem, {.bos_token = "<bos>"}), kExpected);
  EXPECT_EQ(render(kSource, kConversation), "render: t:1: System role not supported");
}

TEST(ChatTemplateFamily, Gemma3) {  // google/gemma-3-1b-it: a system message before the first turn, content in parts
  constexpr std::string_view kSource = R"J({{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
)J";
  EXPECT_EQ(render(kSource, {{"system", "S", ""}, {"user", " Hi ", ""}}, {.bos_token = "<bos>"}),
            "<bos><start_of_turn>user\nS\n\nHi<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(render(kSource, {{"user", "", R"({"content":[{"type":"image"},{"type":"text","text":"what? "}]})"}}),
            "<start_of_turn>user\n<start_of_image>what?<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(render(kSource, {{"user", "", R"({"content":null})"}}), "render: t:39: Invalid content type");
}

TEST(ChatTemplateFamily, Phi35) {  // microsoft/Phi-3.5-mini-instruct
  constexpr std::string_view kSource =
      R"J({% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %})J";
  constexpr std::string_view kExpected =
      "<|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there<|end|>\n<|user|>\nWho "
      "are you"
      "<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n<|user|>\nAnother question<|end|>\n<|assistant|>\n";
  EXPECT_EQ(render(kSource, kConversation), kExpected);
  EXPECT_EQ(*ChatTemplate::named("phi3")->render(kConversation, {}), kExpected);
  EXPECT_EQ(render(kSource, {{"user", "a", ""}}, {.add_generation_prompt = false, .eos_token = "<|endoftext|>"}),
            "<|user|>\na<|end|>\n<|endoftext|>");
}

TEST(ChatTemplateFamily, Phi4) {  // microsoft/phi-4
  constexpr std::string_view kSource =
      R"J({% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|><|im_start|>assistant<|im_sep|>'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|im_end|>'}}{% endif %}{% endfor %})J";
  constexpr std::string_view kExpected =
      "<|im_start|>system<|im_sep|>You are a helpful "
      "assistant<|im_end|><|im_start|>user<|im_sep|>Hello<|im_end|><|im_start|>assistant"
      "<|im_sep|>Hi there<|im_end|><|im_start|>user<|im_sep|>Who are you<|im_end|><|im_start|>assistant<|im_sep|>   I am an "
      "assistant   "
      "<|im_end|><|im_start|>user<|im_sep|>Another question<|im_end|><|im_start|>assistant<|im_sep|>";
  EXPECT_EQ(render(kSource, kConversation), kExpected);
  EXPECT_EQ(*ChatTemplate::named("phi4")->render(kConversation, {}), kExpected);
}

TEST(ChatTemplateFamily, DeepSeekV2) {  // deepseek-ai/DeepSeek-V2-Lite-Chat
  constexpr std::string_view kSource =
      R"J({% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '

' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '

' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %})J";
  EXPECT_EQ(render(kSource, kConversation, {.bos_token = "<｜begin▁of▁sentence｜>", .eos_token = "<｜end▁of▁sentence｜>"}),
            "<｜begin▁of▁sentence｜>You are a helpful assistant\n\nUser: Hello\n\nAssistant: Hi "
            "there<｜end▁of▁sentence｜>User: Who are you\n\n"
            "Assistant:    I am an assistant   <｜end▁of▁sentence｜>User: Another question\n\nAssistant:");
}

TEST(ChatTemplateFamily, DeepSeekR1) {  // deepseek-ai/DeepSeek-R1-Distill-Qwen-32B, without tools
  constexpr std::string_view kSource =
      R"J({% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\n'}}{% endif %})J";
  EXPECT_EQ(
      render(kSource, {{"system", "S", ""}, {"user", "Hi", ""}, {"assistant", "<think>x</think>Yes", ""}, {"user", "More", ""}},
             {.bos_token = "<b>"}),
      "<b>S<｜User｜>Hi<｜Assistant｜>Yes<｜end▁of▁sentence｜><｜User｜>More<｜Assistant｜><think>\n");
}

TEST(ChatTemplateFamily, DeepSeekV3Named) {
  EXPECT_EQ(*ChatTemplate::named("deepseek3")->render(kConversation, {.bos_token = "<b>"}),
            "<b>You are a helpful assistant<｜User｜>Hello<｜Assistant｜>Hi there<｜end▁of▁sentence｜><｜User｜>Who are "
            "you<｜Assistant｜>"
            "   I am an assistant   <｜end▁of▁sentence｜><｜User｜>Another question<｜Assistant｜>");
}

TEST(ChatTemplateFamily, CommandR) {  // CohereForAI/c4ai-command-r-plus
  constexpr std::string_view kSource =
      R"J({{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are Command-R' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %})J";
  constexpr std::string_view kExpected =
      "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>You are a helpful "
      "assistant<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello"
      "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hi "
      "there<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>"
      "Who are you<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>I am an assistant<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Another question<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>";
  EXPECT_EQ(render(kSource, kConversation), kExpected);
  EXPECT_EQ(*ChatTemplate::named("command-r")->render(kConversation, {}), kExpected);
}

TEST(ChatTemplateFamily, Glm4) {  // THUDM/glm-4-9b-chat, with its system text shortened
  constexpr std::string_view kSource = R"J([gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>
# 可用工具{% set tools = item['tools'] %}{% for tool in tools %}{% if tool['type'] == 'function' %}

## {{ tool['function']['name'] }}

{{ tool['function'] | tojson(indent=4) }}
......{% endif %}{% endfor %}{% endif %}{% if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}
{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %})J";
  constexpr std::string_view kExpected =
      "[gMASK]<sop><|system|>\nYou are a helpful assistant<|user|>\nHello<|assistant|>\nHi there<|user|>\nWho are "
      "you<|assistant|>\n"
      "   I am an assistant   <|user|>\nAnother question<|assistant|>";
  EXPECT_EQ(render(kSource, kConversation), kExpected);
  EXPECT_EQ(*ChatTemplate::named("glm4")->render(kConversation, {}), kExpected);
  EXPECT_EQ(render(kSource, {{"system", "", R"({"tools":[{"type":"function","function":{"name":"f"}}]})"}}),
            "[gMASK]<sop><|system|>\n# 可用工具\n## f\n\n{\n    \"name\": \"f\"\n}\n......<|assistant|>");
}

TEST(ChatTemplateFamily, Zephyr) {  // HuggingFaceH4/zephyr-7b-beta
  constexpr std::string_view kSource = R"J({% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %})J";
  EXPECT_EQ(render(kSource, {{"system", "S", ""}, {"user", "U", ""}}, kSentencePiece),
            "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\n");
  EXPECT_EQ(*ChatTemplate::named("zephyr")->render({{"system", "S", ""}, {"user", "U", ""}}, kSentencePiece),
            "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\n");
}

TEST(ChatTemplateFamily, Granite3) {  // ibm-granite/granite-3.0-8b-instruct
  constexpr std::string_view kSource = R"J({%- if tools %}
    {{- '<|start_of_role|>available_tools<|end_of_role|>
' }}
    {%- for tool in tools %}
    {{- tool | tojson(indent=4) }}
    {%- if not loop.last %}
        {{- '

' }}
    {%- endif %}
    {%- endfor %}
    {{- '<|end_of_text|>
' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>
' }}
    {%- if loop.last and add_generation_prompt %}
    {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %})J";
  constexpr std::string_view kExpected =
      "<|start_of_role|>system<|end_of_role|>S<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>U<|end_of_text|>\n"
      "<|start_of_role|>assistant<|end_of_role|>";
  EXPECT_EQ(render(kSource, {{"system", "S", ""}, {"user", "U", ""}}), kExpected);
  EXPECT_EQ(*ChatTemplate::named("granite")->render({{"system", "S", ""}, {"user", "U", ""}}, {}), kExpected);
  EXPECT_EQ(render(kSource, {}, {.add_generation_prompt = false, .tools_json = "[{\"a\":1},{\"b\":{}}]"}),
            "<|start_of_role|>available_tools<|end_of_role|>\n{\n    \"a\": 1\n}\n\n{\n    \"b\": {}\n}<|end_of_text|>\n");
}

// openai/gpt-oss-20b: the macros that write tools as TypeScript, shortened to strings and arrays.
TEST(ChatTemplateFamily, GptOss) {
  constexpr std::string_view kSource = R"J({%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}
            {%- set inner_type = render_typescript_type(param_spec['items'], required_params) -%}
            {{- inner_type + "[]" }}
        {%- else -%}
            {{- "any[]" }}
        {%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping and param_spec.type[0] is defined -%}
        {{- param_spec.type | join(" | ") }}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}
            {{- '"' + param_spec.enum|join('" | "') + '"' -}}
        {%- else -%}
            {{- "string" }}
        {%- endif -%}
    {%- elif param_spec.type == "object" -%}
        {{- "{\n" }}
        {%- for prop_name, prop_spec in param_spec.properties.items() -%}
            {{- prop_name -}}
            {%- if prop_name not in (param_spec.required or []) -%}
                {{- "?" }}
            {%- endif -%}
            {{- ": " }}
            {{ render_typescript_type(prop_spec, param_spec.required or []) }}
            {%- if not loop.last -%}
                {{-", " }}
            {%- endif -%}
        {%- endfor -%}
        {{- "}" }}
    {%- else -%}
        {{- "any" }}
    {%- endif -%}
{%- endmacro -%}
{%- macro build_system_message() -%}
    {%- if model_identity is not defined %}
        {%- set model_identity = "You are ChatGPT, a large language model trained by OpenAI." %}
    {%- endif %}
    {{- model_identity + "\n" }}
    {{- "Current date: " + strftime_now("%Y-%m-%d") + "\n\n" }}
    {%- if tools -%}
        {{- "Calls to these tools must go to the commentary channel: 'functions'." }}
    {%- endif -%}
{%- endmacro -%}
{{- "<|start|>system<|message|>" }}
{{- build_system_message() }}
{{- "<|end|>" }}
{%- for tool in tools or [] -%}
    {{- render_typescript_type(tool, []) }}
{%- endfor -%}
)J";
  EXPECT_EQ(render(kSource, {},
                   {.tools_json =
                        R"([{"type":"object","required":["a"],"properties":{"a":{"type":"array","items":{"type":"string"}},)"
                        R"("b":{"type":"string","enum":["x","y"]},"c":{"type":["string","null"]}}}])",
                    .date = "1 Mar 2025"}),
            "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nCurrent date: 2025-03-01\n\n"
            "Calls to these tools must go to the commentary channel: 'functions'.<|end|>"
            // As published: the type of a property is printed without '-', so its line break and margin stay.
            "{\na: \n            string[], b?: \n            \"x\" | \"y\", c?: \n            string | null}");
  EXPECT_EQ(render(kSource), "render: t:40: 'strftime_now' is called, but there is no macro or function of that name");
  EXPECT_EQ(*ChatTemplate::named("gpt-oss")->render({{"user", "Hi", ""}},
                                                    {.extra_json = R"({"reasoning_effort":"low"})", .date = "2 Jan 2026"}),
            "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
            "Current date: 2026-01-02\n\nReasoning: low\n\n# Valid channels: analysis, commentary, final. Channel must be "
            "included for "
            "every message.<|end|><|start|>user<|message|>Hi<|end|><|start|>assistant");
}

TEST(ChatTemplateFamily, Vicuna) {
  EXPECT_EQ(*ChatTemplate::named("vicuna")->render(kConversation, {}),
            "You are a helpful assistant\n\nUSER: Hello\nASSISTANT: Hi there</s>\nUSER: Who are you\nASSISTANT:    I am an "
            "assistant   </s>\n"
            "USER: Another question\nASSISTANT:");
}

TEST(ChatTemplateNamed, UnknownNameListsTheKnown) {
  const auto result = ChatTemplate::named("nonesuch");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kNotFound);
  EXPECT_NE(result.error().message.find("chatml"), std::string::npos);
}

// ---- constructs ----

struct Case {
  std::string_view source, expected;
};
void expect_cases(std::initializer_list<Case> cases) {
  for (const Case& c : cases) EXPECT_EQ(render(c.source), c.expected) << c.source;
}

// ---- to tokens ----

TEST(ChatTemplateEncode, SpecialTokensAndTheBeginning) {
  constexpr std::string_view kTokenizer = R"({
  "added_tokens": [{"id": 3, "content": "<s>", "special": true}, {"id": 4, "content": "</s>", "special": true},
                   {"id": 5, "content": "<|user|>", "special": true}],
  "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
  "model": {"type": "BPE", "vocab": {"h": 0, "i": 1, "hi": 2}, "merges": ["h i"]},
  "post_processor": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}
})";
  const auto tokenizer = [&](std::string_view config) { return *Tokenizer::parse_tokenizer_json(kTokenizer, config, "t"); };
  const auto with_bos = tokenizer(R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true})");
  const auto without = tokenizer(R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false})");
  const auto encode = [](std::string_view source, const Tokenizer& t) {
    const auto tokens = ChatTemplate::parse(source, "t")->encode({{"user", "hi", ""}}, {.bos_token = "ignored"}, t);
    return tokens ? *tokens : std::vector<TokenId>{-1};
  };
  using Ids = std::vector<TokenId>;
  ASSERT_TRUE(with_bos->special().add_bos);
  ASSERT_FALSE(without->special().add_bos);
  constexpr std::string_view kPlain = "<|user|>{{ messages[0].content }}{{ eos_token }}";
  constexpr std::string_view kPrints = "{{ bos_token }}<|user|>{{ messages[0].content }}";
  EXPECT_EQ(encode(kPlain, *with_bos), (Ids{3, 5, 2, 4}));
  EXPECT_EQ(encode(kPrints, *with_bos), (Ids{3, 5, 2}));  // once
  EXPECT_EQ(encode(kPlain, *without), (Ids{5, 2, 4}));
  EXPECT_EQ(encode(kPrints, *without), (Ids{3, 5, 2}));  // the template has it its way
  EXPECT_EQ(encode("", *with_bos), (Ids{3}));
  EXPECT_EQ(encode("", *without), (Ids{}));
  EXPECT_EQ(encode("{{ raise_exception('no') }}", *with_bos), (Ids{-1}));
}

TEST(ChatTemplateNamed, EveryNameIsThere) {
  const std::string names = ChatTemplate::names();
  std::size_t count = 0;
  for (std::size_t at = 0; at < names.size(); ++count) {
    const std::size_t end = std::min(names.find(", ", at), names.size());
    EXPECT_TRUE(ChatTemplate::named(names.substr(at, end - at))) << names.substr(at, end - at);
    at = end + 2;
  }
  EXPECT_GE(count, 10U);
}

TEST(Jinja, WhitespaceControl) {
  expect_cases({
      {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},  // lstrip_blocks, trim_blocks, no trailing newline
      {"a {% if true %} b {% endif %} c", "a  b  c"},                // not alone on their line
      {"a \n {%- if true -%} \n b \n {%- endif -%} \n c", "abc"},
      {"a\n  {%+ if true %}\nb{% endif +%}\nc", "a\n  b\nc"},
      {"a\n  {{ 1 }}\nb", "a\n  1\nb"},  // not for printing
      {"a \n {{- 1 -}} \n b", "a1b"},
      {"a\n  {# x #}\nb", "a\nb"},
      {"a  {#- x -#}  b", "ab"},
      {"{% if true %}\n  {% if true %}\nx\n  {% endif %}\n{% endif %}\n", "x\n"},
      {"a\r\nb\rc\r\n", "a\nb\nc"},
      {"{% raw %}{{ x }}{% y {% endraw %}z", "{{ x }}{% y z"},
      {"a\n  {%- raw -%} {{ }} {%- endraw -%} b", "a{{ }}b"},
      {"\n\n", "\n"},
  });
}

TEST(Jinja, LiteralsAndOperators) {
  expect_cases({
      {R"({{ 'a\n\'\x41\u00e9\q' "b" }})", "a\n'A\xc3\xa9\\qb"},
      {"{{ 1_000 + 2 * 3 - 7 // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 7 / 2 }}|{{ 2 ** 10 }}", "1003|-4|2|3.5|1024"},
      {"{{ 1.0 }}|{{ 1e20 }}|{{ 0.1 + 0.2 }}|{{ 1 / 4 }}", "1.0|1e+20|0.30000000000000004|0.25"},
      {"{{ 1 ~ 'a' ~ none ~ true ~ x }}", "1aNoneTrue"},
      {"{{ 'a' * 3 }}{{ [1] * 2 }}{{ [1] + ['b'] }}{{ (1,) + (2, 3) }}", "aaa[1, 1][1, 'b'](1, 2, 3)"},
      {"{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' < 'b' }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' != none }}",
       "TrueFalseTrueTrueTrueTrue"},
      {"{{ 1 in [1] }}{{ 'b' in 'abc' }}{{ 'k' in {'k': 1} }}{{ 2 not in [1] }}{{ 1 in x }}", "TrueTrueTrueTrueFalse"},
      {"{{ not true or true and false }}{{ '' or 'd' }}{{ 0 and 1 }}", "Falsed0"},
      {"{{ 'y' if 1 else 'n' }}{{ 'y' if 0 }}{{ 'a' if 0 else 'b' if 0 else 'c' }}", "yc"},
      {"{{ '%s has %d%%' % ('x', 3) }}{{ '<%s>' % 1 }}", "x has 3%<1>"},
      {"{{ {'a': {'b': [1, none, 'it\\'s', \"q\"]}} }}", "{'a': {'b': [1, None, \"it's\", 'q']}}"},
      {"{{ (1, 2) }}{{ (1,) }}{{ () }}{{ 1, 2 }}", "(1, 2)(1,)()(1, 2)"},
      {"{{ {1: 'x', 'b': 2}[1] }}{{ {1: 2} }}{{ {5: 1, 3: 2}|dictsort }}", "x{1: 2}[(3, 2), (5, 1)]"},
      {"{{ -1 | abs }}{{ (-3)|abs }}{{ - 2 + 3 }}{{ +4 }}", "1314"},
      {"{{ 1 + 2 | string | length }}", "2"},  // a filter binds closest
  });
}

TEST(Jinja, SubscriptsAndSlices) {
  expect_cases({
      {"{% set l = [0, 1, 2, 3, 4] %}{{ l[1:] }}{{ l[:-1] }}{{ l[::-1] }}{{ l[1:4:2] }}{{ l[-2:] }}{{ l[4:1:-2] }}{{ l[9:] }}",
       "[1, 2, 3, 4][0, 1, 2, 3][4, 3, 2, 1, 0][1, 3][3, 4][4, 2][]"},
      {"{{ 'aéz'[::-1] }}{{ 'aéz'[1] }}{{ 'aéz'[-1] }}{{ 'aéz'[:2] }}{{ 'abc'[9] }}", "zéaézaé"},
      {"{{ [1, 2].0 }}{{ [1, 2][-1] }}{{ [1][5] }}{{ {'a': 1}.a }}{{ {'a': 1}['b'] }}", "121"},
      {"{{ {'items': 5}['items'] }}{{ {'x': 1}.get('y') }}{{ {'x': 1}.get('x') }}{{ {'x': 1}.get('y', 'd') }}", "5None1d"},
      {"{% set n = -9223372036854775807 - 1 %}{{ [1, 2][::n] }}{{ [1, 2][n:] }}", "[2][1, 2]"},
  });
}

TEST(Jinja, SetScopesAndNamespaces) {
  expect_cases({
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
      {"{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "2"},
      {"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6"},
      {"{% set a, b = 1, 'z' %}{{ a }}{{ b }}", "1z"},
      {"{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x|length }}", "a12"},
      {"{% set x | trim | upper %}  ab {% endset %}[{{ x }}]", "[AB]"},
      {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "3"},
      {"{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB"},
      {"{% set l = [] %}{% do l.append(1) %}{% set _ = l.append('b') %}{{ l }}", "[1, 'b']"},
      {"{% generation %}x{{ 1 }}{% endgeneration %}", "x1"},
  });
}

TEST(Jinja, Loops) {
  expect_cases({
      {"{% for x in 'ab' %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex "
       "}} {% endfor %}",
       "10TrueFalse22 21FalseTrue21 "},
      {"{% for x in [1, 2, 3] %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}", "<1>2 1<2>3 2<3> "},
      {"{% for x in [] %}a{% else %}none{% endfor %}{% for x in y %}a{% else %}undefined{% endfor %}", "noneundefined"},
      {"{% for x in range(10) if x % 2 %}{{ x }}{% if loop.last %}.{% endif %}{% endfor %}", "13579."},
      {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'z': 1} %}{{ k }}{% endfor %}",
       "a=1;b=2;z"},
      {"{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor "
       "%}",
       "0134"},
      {"{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }}{% endfor %}", "TrueaFalsebTruea"},
      {"{% for x in range(5, 0, -2) %}{{ x }}{% endfor %}", "531"},
      {"{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }}{% endfor %}", "37"},
      {"{% for i in [1, 2] %}{% for j in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "121122"},
  });
}

TEST(Jinja, Macros) {
  expect_cases({
      {"{% macro f(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}{{ f() }}", "1x1243x"},
      {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "543210"},
      {"{% set g = 1 %}{% macro f() %}{{ g }}{{ h }}{% endmacro %}{% for h in [1] %}{{ f() }}{% endfor %}",
       "1"},  // not the caller's scope
      {"{% macro f() -%} x {%- endmacro f %}[{{ f()|length }}]", "[1]"},
      {"{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}{{ f(1) }}", "FalseTrue"},
  });
}

TEST(Jinja, Filters) {
  expect_cases({
      {"{{ ' a '|trim }}|{{ 'xax'|trim('x') }}|{{ '\\u3000b\\n'|trim }}", "a|a|b"},
      {"{{ 'aB'|upper }}{{ 'aB'|lower }}{{ 'ab cd'|title }}{{ 'aB'|capitalize }}", "ABabAb CdAb"},
      {"{{ 'aé'|length }}{{ [1, 2]|count }}{{ x|length }}{{ {'a': 1}|length }}", "2201"},
      {"{{ [1, 'b', none]|join('-') }}{{ 'abc'|join('.') }}{{ [{'n': 1}, {'n': 2}]|join(',', attribute='n') }}",
       "1-b-Nonea.b.c1,2"},
      {"{{ 'aaa'|replace('a', 'b', 2) }}{{ 'ab'|replace('', '-') }}", "bba-a-b-"},
      {"{{ x|default('d') }}{{ ''|default('d') }}{{ ''|default('d', true) }}{{ none|d('e') }}{{ none|default('f', "
       "boolean=true) }}",
       "ddNonef"},
      {"{{ [3, 1, 2]|first }}{{ [3, 1, 2]|last }}{{ 'ab'|list }}{{ []|first is defined }}", "32['a', 'b']False"},
      {"{{ [1, 2, 3]|map('string')|list }}{{ [{'a': {'b': 1}}]|map(attribute='a.b')|list }}{{ [{}]|map(attribute='a', "
       "default=0)|list }}",
       "['1', '2', '3'][1][0]"},
      {"{{ [0, 1, '', 'a']|select|list }}{{ [1, 2, 3]|select('odd')|list }}{{ [1, 'a']|reject('string')|list }}",
       "[1, 'a'][1, 3][1]"},
      {"{% set l = [{'r': 'a', 'n': 1}, {'r': 'b'}] %}{{ l|selectattr('n', 'defined')|list|length }}{{ (l|selectattr('r', "
       "'eq', 'b')|first).r }}"
       "{{ l|rejectattr('n')|list|length }}",
       "1b1"},
      {"{{ {'b': 1, 'A': 2}|dictsort }}{{ {'b': 1, 'a': 2}|items|list }}", "[('A', 2), ('b', 1)][('b', 1), ('a', 2)]"},
      {"{{ [3, 1, 2]|sort }}{{ ['b', 'A']|sort }}{{ [1, 2]|sort(reverse=true) }}{{ [{'n': 2}, {'n': "
       "1}]|sort(attribute='n')|map(attribute='n')|list }}",
       "[1, 2, 3]['A', 'b'][2, 1][1, 2]"},
      {"{{ '12'|int }}{{ ' -7 '|int }}{{ 'x'|int }}{{ 'x'|int(5) }}{{ 3.9|int }}{{ '2.5'|int }}{{ '1.5'|float }}",
       "12-705321.5"},
      {"{{ 'a\\nb\\n\\nc'|indent(2) }}|{{ 'a\\nb'|indent(1, true) }}", "a\n  b\n\n  c| a\n b"},
      {"{{ [1, 2, 1]|unique|list }}{{ [1, 2]|sum }}{{ [1, 3, 2]|max }}{{ [2, 1]|min }}{{ [1, 2]|reverse|list }}{{ 'ab'|reverse "
       "}}",
       "[1, 2]331[2, 1]ba"},
      {"{{ 2.5|round }}{{ 3.5|round }}{{ '<&>'|safe }}{{ 5|string ~ 'x' }}", "2.04.0<&>5x"},
  });
}

TEST(Jinja, ToJson) {
  expect_cases({
      {"{{ {'a': [1, 2.5, none, true, 'é\"\\n<']}|tojson }}", R"({"a": [1, 2.5, null, true, "é\"\n<"]})"},
      {"{{ [1, {'a': []}]|tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": []\n  }\n]"},
      {"{{ {'b': 1, 'a': 'é😀'}|tojson(sort_keys=true, ensure_ascii=true) }}", R"({"a": "\u00e9\ud83d\ude00", "b": 1})"},
      {"{{ [1, {'a': 2}]|tojson(separators=(',', ':')) }}", R"([1,{"a":2}])"},
      {"{{ '\\x01'|tojson }}{{ {1: 2}|tojson }}", R"("\u0001"{"1": 2})"},
  });
}

TEST(Jinja, Tests) {
  expect_cases({
      {"{{ x is defined }}{{ x is undefined }}{{ x is not defined }}{{ not x is defined }}", "FalseTrueTrueTrue"},
      {"{{ none is none }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is mapping }}{{ [] is sequence }}{{ {} is sequence }}{{ "
       "1 is iterable }}",
       "TrueTrueTrueFalseTrueTrueFalse"},
      {"{{ 1 is number }}{{ true is number }}{{ true is boolean }}{{ 1 is boolean }}{{ true is integer }}{{ 1.5 is float }}",
       "TrueTrueTrueFalseFalseTrue"},
      {"{{ false is false }}{{ 0 is false }}{{ true is true }}{{ 1 is equalto 1 }}{{ 1 is eq(2) }}{{ 3 is ge 3 }}",
       "TrueFalseTrueTrueFalseTrue"},
      {"{{ 'a' is in ['a'] }}{{ 'a' is not in 'b' }}{{ 4 is divisibleby 2 }}{{ 3 is odd }}{{ 3 is even }}",
       "TrueTrueTrueTrueFalse"},
      {"{{ 'ab' is lower }}{{ 'aB' is upper }}{{ range is callable }}{{ x is string or 1 is number }}", "TrueFalseTrueTrue"},
  });
}

TEST(Jinja, TextMethods) {
  expect_cases({
      {"{{ ' a '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xyaxy'.strip('yx') }}", "a|a | a|a"},
      {"{{ 'a,b,c'.split(',') }}{{ 'a,b,c'.split(',', 1) }}{{ ' a  b '.split() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ''.split(',') "
       "}}",
       "['a', 'b', 'c']['a', 'b,c']['a', 'b']['a,b', 'c']['']"},
      {"{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'aéb'.find('b') }}{{ 'a'.find('z') }}{{ "
       "'abab'.rfind('b') }}",
       "TrueTrue2-13"},
      {"{{ 'user name'.title() }}{{ 'A'.lower() }}{{ 'a'.upper() }}{{ 'aa'.replace('a', 'b') }}{{ 'abab'.count('ab') }}",
       "User NameaAbb2"},
      {"{{ ','.join(['a', 'b']) }}{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'a\\nb'.splitlines() }}{{ '12'.isdigit() }}",
       "a,bx['a', 'b']True"},
      {"{{ {'a': 1}.keys()|list }}{{ {'a': 1}.values()|list }}{{ [1, 2].index(2) }}", "['a'][1]1"},
  });
}

TEST(Jinja, StrftimeNow) {
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y|%Y-%m-%d|%A %a %B %y') }}", {}, {.date = "26 Nov 2026"}),
            "26 Nov 2026|2026-11-26|Thursday Thu November 26");
  EXPECT_EQ(render("{{ strftime_now('%H') }}", {}, {.date = "26 Nov 2026"}),
            "render: t:1: strftime_now with '%H'; a date is known, not more");
  for (const char* date : {"2026-11-26", "26 Nov", "0 Nov 2026", "32 Nov 2026", "1 November 2026", "x Nov 2026", "1 Nov 0"}) {
    EXPECT_EQ(render("x", {}, {.date = date}),
              std::string("render: chat: date '") + date + "'; expected a form like '26 Nov 2026'");
  }
}

TEST(Jinja, VariablesFromOptions) {
  EXPECT_EQ(render("{{ a.b[1] }}{{ tools is none }}{{ big }}", {},
                   {.extra_json = R"({"a":{"b":[1,"x"]},"big":18446744073709551615})"}),
            "xTrue1.8446744073709552e+19");
  EXPECT_EQ(
      render("{{ messages[0].name }}{{ messages[0].content is none }}", {{"tool", "x", R"({"name":"f","content":null})"}}),
      "fTrue");
  EXPECT_EQ(render("{{ tools is none }}", {}, {.tools_json = "[]"}), "True");
  EXPECT_EQ(render("", {}, {.tools_json = "{}"}), "render: chat: tools: object; expected an array");
  EXPECT_EQ(render("", {}, {.extra_json = "[]"}), "render: chat: variables: array; expected an object");
  EXPECT_EQ(render("", {{"user", "", "1"}}), "render: chat: message 0: number; expected an object");
  EXPECT_EQ(render("", {}, {.extra_json = "{"}).substr(0, 25), "render: chat: variables:1");
}

// ---- refusals: where, what, what was expected ----

TEST(JinjaError, Syntax) {
  expect_cases({
      {"a\n{{ x ", "parse: t:2: a tag is not closed; expected '}}'"},
      {"{# x", "parse: t:1: a comment is not closed; expected '#}'"},
      {"{% raw %}x", "parse: t:1: 'raw' is not closed; expected '{% endraw %}'"},
      {"{{ 'x }}", "parse: t:1: a string is not closed; expected '"},
      {"{{ }}", "parse: t:1: '}}'; expected a value"},
      {"{{ 1 + }}", "parse: t:1: '}}'; expected a value"},
      {"{{ (1 }}", "parse: t:1: '}' closes '('"},
      {"{{ ) }}", "parse: t:1: ')' closes nothing"},
      {"{{ a ? b }}", "parse: t:1: character '?' inside of a tag"},
      {"{% if x %}", "parse: t:1: end of template; expected 'endif'"},
      {"{% if x %}{% endfor %}", "parse: t:1: tag 'endfor' is not in the subset of Jinja that chat templates may use"},
      {"{% for x of y %}", "parse: t:1: 'of'; expected 'in'"},
      {"{% for in y %}", "parse: t:1: 'y'; expected 'in'"},
      {"{% set 1 = 2 %}", "parse: t:1: '1'; expected a name"},
      {"{% break %}", "parse: t:1: 'break' outside of a loop"},
      {"{% macro f(a=1, b) %}{% endmacro %}", "parse: t:1: a parameter without a default after one that has it"},
      {"{{ f(a=1, 2) }}", "parse: t:1: a positional argument after one with a name"},
      {"{{ '\\xzz' }}", "parse: t:1: escape \\x in a string; expected 2 hexadecimal digits of a character"},
      {"{{ 99999999999999999999 }}", "parse: t:1: number 99999999999999999999 is out of range"},
      {"{{ x y }}", "parse: t:1: 'y'; expected '}}'"},
  });
}

TEST(JinjaError, UnknownConstructsAreNamedWithTheirLine) {
  expect_cases({
      {"\n{% include 'x' %}", "parse: t:2: tag 'include' is not in the subset of Jinja that chat templates may use"},
      {"{% call f() %}{% endcall %}", "parse: t:1: tag 'call' is not in the subset of Jinja that chat templates may use"},
      {"\n\n{{ x | urlize }}", "parse: t:3: filter 'urlize' is not in the subset of Jinja that chat templates may use"},
      {"{{ x is filter }}", "parse: t:1: test 'filter' is not in the subset of Jinja that chat templates may use"},
      {"{{ f(*a) }}", "parse: t:1: '*' before an argument is not in the subset of Jinja that chat templates may use"},
      {"{% for x in y recursive %}{% endfor %}",
       "parse: t:1: 'recursive' is not in the subset of Jinja that chat templates may use"},
      {"{% macro f() %}{{ varargs }}{% endmacro %}",
       "parse: t:1: 'varargs' in a macro is not in the subset of Jinja that chat templates may use"},
      {"{{ [1].sort() }}", "render: t:1: method 'sort' of a list is not in the subset of Jinja that chat templates may use"},
      {"{{ 'a'.encode() }}",
       "render: t:1: method 'encode' of a string is not in the subset of Jinja that chat templates may use"},
      {"{{ [1]|map('nope')|list }}", "render: t:1: filter 'nope' is not in the subset of Jinja that chat templates may use"},
      {"{{ [1]|select('nope')|list }}", "render: t:1: test 'nope' is not in the subset of Jinja that chat templates may use"},
      {"{% for x in [1] %}{{ loop.depth }}{% endfor %}",
       "render: t:1: 'loop.depth' is not in the subset of Jinja that chat templates may use"},
      {"\n{{ joiner() }}", "render: t:2: 'joiner' is called, but there is no macro or function of that name"},
      {"{{ 'É'|lower }}", "render: t:1: upper and lower case of text beyond ASCII"},
  });
}

TEST(JinjaError, Evaluation) {
  expect_cases({
      {"{{ x.y }}", "render: t:1: 'x' is undefined; 'y' of it was asked for"},
      {"{{ x[0] }}", "render: t:1: 'x' is undefined; an item of it was asked for"},
      {"\n{{ 'a' + x }}", "render: t:2: 'x' is undefined; it is an operand of '+'"},
      {"{{ 'a' + 1 }}", "render: t:1: '+' of a string and an integer"},
      {"{{ 1 // 0 }}", "render: t:1: division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "render: t:1: an integer overflows"},
      {"{{ 3 ** 50 }}", "render: t:1: an integer overflows"},
      {"{{ 1 < 'a' }}", "render: t:1: order of an integer and a string"},
      {"{{ 1 in 2 }}", "render: t:1: 'in' an integer; expected a string, list or mapping"},
      {"{{ 1|length }}", "render: t:1: length of an integer"},
      {"{% for x in 1 %}{% endfor %}", "render: t:1: an integer is not iterable"},
      {"{% for a, b in [1] %}{% endfor %}", "render: t:1: an integer is not iterable"},
      {"{% for a, b in [[1]] %}{% endfor %}", "render: t:1: 1 values for the 2 names of a loop"},
      {"{{ x|tojson }}", "render: t:1: tojson of undefined 'x'"},
      {"{{ 1() }}", "render: t:1: an integer is called"},
      {"{% set x.y = 1 %}", "render: t:1: 'x' is undefined; only an attribute of a namespace can be set"},
      {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "render: t:1: macro 'f' has 1 parameters, called with 2 arguments"},
      {"{% macro f(a) %}{% endmacro %}{{ f(b=2) }}", "render: t:1: macro 'f' has no parameter 'b'"},
      {"{{ [1, 'a']|sort }}", "render: t:1: sort of an integer and a string"},
      {"{{ {none: 1} }}", "render: t:1: none as key of a mapping; expected a string or an integer"},
      {"{{ 'a'[1:'b'] }}", "render: t:1: a string in a slice; expected an integer"},
      {"{{ [1][::0] }}", "render: t:1: a slice with step 0"},
      {"{{ '%d' % 'a' }}", "render: t:1: %d of a string"},
      {"{{ '%s %s' % 'a' }}", "render: t:1: a format has more places than values"},
      {"{{ 'a'.split('') }}", "render: t:1: split by an empty separator"},
      {"{{ range(0, 5, 0) }}", "render: t:1: range with step 0"},
      {"{{ raise_exception('no ' ~ 1) }}", "render: t:1: no 1"},
  });
}

TEST(JinjaError, Bounds) {
  const std::string work = "render: t:1: the template does more work than the limit for messages of this size";
  EXPECT_EQ(render("{% for i in range(1000000000) %}{% endfor %}"), work);
  EXPECT_EQ(render("{{ 'a' * 100000000000 }}"), work);
  EXPECT_EQ(render("{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"), work);
  EXPECT_EQ(render("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}"), work);
  EXPECT_EQ(render("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"), work);
  EXPECT_EQ(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "render: t:1: nested deeper than 600 steps");
  EXPECT_EQ(render("{% set l = [] %}{% do l.append(l) %}{{ l }}"), "render: t:1: a value nested deeper than 64 is printed");
  EXPECT_EQ(render("{% set l = [] %}{% do l.append(l) %}{{ l|tojson }}"), "render: t:1: a value nested deeper than 64 as JSON");
  EXPECT_EQ(render("{% set l = [] %}{% do l.append(l) %}{% set m = [] %}{% do m.append(m) %}{{ l == m }}"),
            "render: t:1: values nested deeper than 64 are compared");
  EXPECT_EQ(render(std::string(std::size_t{2} << 20, 'x')), "parse: t: 2097152 bytes; a chat template has at most 1048576");
  const auto repeat = [](std::string_view part, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += part;
    return out;
  };
  for (const std::string_view open : {"not ", "- ", "[", "("}) {
    const std::string close = repeat(open == "[" ? "]" : open == "(" ? ")" : "", 5000);
    EXPECT_EQ(render("{{ " + repeat(open, 5000) + "1" + close + " }}"), "parse: t:1: nested deeper than 100") << open;
  }
  EXPECT_EQ(render(repeat("{% if 1 %}", 5000)), "parse: t:1: nested deeper than 100");
  EXPECT_EQ(render("{{ 1" + repeat("+1", 20000) + " }}"), "render: t:1: nested deeper than 600 steps");
}

}  // namespace
}  // namespace rooftree::text

#include "text/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <charconv>

#include "base/json.h"
#include "text/jinja.h"

namespace rooftree::text {

struct ChatTemplate::Program {
  jinja::Program jinja;
};

namespace {

using jinja::Value;

// What a template may do: a constant, and this much per byte of its input (a template that looks at every message from every
// message is quadratic, and real ones do).
constexpr std::int64_t kBaseBudget = 64'000'000, kBudgetPerByte = 64;

Value from_json(jinja::Runtime& runtime, const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::of_bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::of_int(json.get<std::int64_t>());
    case Json::value_t::number_unsigned: {
      const auto value = json.get<std::uint64_t>();
      if (value > static_cast<std::uint64_t>(INT64_MAX)) return Value::of_float(static_cast<double>(value));
      return Value::of_int(static_cast<std::int64_t>(value));
    }
    case Json::value_t::number_float:
      return Value::of_float(json.get<double>());
    case Json::value_t::string:
      return runtime.make_text(json.get<std::string>());
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(runtime, item));
      return runtime.make_list(std::move(items));
    }
    case Json::value_t::object: {
      Value dict = runtime.make_dict();
      // parse_json refused duplicate keys: no search for an older one.
      for (const auto& [key, value] : json.items()) {
        dict.dict->items.emplace_back(runtime.make_text(key), from_json(runtime, value));
      }
      return dict;
    }
    default:
      return Value::none();
  }
}

Result<Json> parse_as(const std::string& text, Json::value_t type, std::string_view where) {
  ROOFTREE_TRY(Json json, parse_json(text, where, {.max_bytes = std::size_t{16} << 20, .max_depth = 60}));
  if (json.type() != type) {
    return Error{ErrorCode::kInvalid, fmt::format("{}: {}; expected an {}", where, json.type_name(), Json(type).type_name())};
  }
  return json;
}

// "26 Nov 2026".
Result<jinja::Date> parse_date(std::string_view text) {
  constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  jinja::Date date;
  const auto number = [](std::string_view digits, int& out) {
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  };
  const std::size_t first = text.find(' '), last = text.rfind(' ');
  bool ok = first != std::string_view::npos && last > first && number(text.substr(0, first), date.day) &&
            number(text.substr(last + 1), date.year);
  if (ok) {
    const std::string_view month = text.substr(first + 1, last - first - 1);
    for (std::size_t i = 0; i < kMonths.size(); ++i) {
      if (kMonths[i] == month) date.month = static_cast<int>(i) + 1;
    }
    ok = date.month > 0 && date.day >= 1 && date.day <= 31 && date.year >= 1 && date.year <= 9999;
  }
  if (!ok) return Error{ErrorCode::kInvalid, fmt::format("chat: date '{}'; expected a form like '26 Nov 2026'", text)};
  return date;
}

// Templates of our own that print what the families' published ones print for plain conversations.
struct Named {
  std::string_view name, source;
};
constexpr Named kNamed[] = {
    {"chatml",
     "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"command-r",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m.role == 'system' %}{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' ~ m.content ~ '<|END_OF_TURN_TOKEN|>' }}"
     "{% elif m.role == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' ~ m.content|trim ~ '<|END_OF_TURN_TOKEN|>' }}"
     "{% elif m.role == 'assistant' %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' ~ m.content|trim ~ '<|END_OF_TURN_TOKEN|>' "
     "}}"
     "{% else %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"},
    {"deepseek3",
     "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% if not loop.last %}{{ '\n\n' }}{% endif "
     "%}{% endfor %}"
     "{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' ~ m.content }}"
     "{% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' ~ m.content.split('</think>')[-1] ~ '<｜end▁of▁sentence｜>' }}"
     "{% elif m.role != 'system' %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"},
    {"gemma",
     "{{ bos_token }}{% set ns = namespace(prefix='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.prefix = m.content|trim ~ '\n\n' %}{% else %}"
     "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\n' ~ ns.prefix ~ m.content|trim ~ "
     "'<end_of_turn>\n' }}"
     "{% set ns.prefix = '' %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"},
    {"glm4",
     "[gMASK]<sop>{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content }}{% endfor %}"
     "{% if add_generation_prompt %}<|assistant|>{% endif %}"},
    {"gpt-oss",
     "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
     "{% if strftime_now is defined %}Current date: {{ strftime_now('%Y-%m-%d') ~ '\n' }}{% endif %}"
     "{{ '\nReasoning: ' ~ reasoning_effort|default('medium') ~ '\n\n' }}"
     "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
     "{% for m in messages %}{% if m.role in ['system', 'developer'] %}"
     "{{ '<|start|>developer<|message|># Instructions\n\n' ~ m.content ~ '\n\n<|end|>' }}"
     "{% elif m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' ~ m.content ~ '<|end|>' }}"
     "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' ~ m.content ~ '<|end|>' }}"
     "{% else %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}<|start|>assistant{% endif %}"},
    {"granite",
     "{% for m in messages %}{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ m.content ~ '<|end_of_text|>\n' }}{% endfor "
     "%}"
     "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"},
    {"llama2",
     "{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}"
     "{% elif m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ (ns.system ~ m.content)|trim ~ ' [/INST]' }}{% set ns.system = '' "
     "%}"
     "{% elif m.role == 'assistant' %}{{ ' ' ~ m.content|trim ~ ' ' ~ eos_token }}"
     "{% else %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}"
     "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content|trim ~ '<|eot_id|>' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"},
    {"mistral",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content ~ '\n\n' %}"
     "{% elif m.role == 'user' %}{{ '[INST] ' ~ ns.system ~ m.content ~ '[/INST]' }}{% set ns.system = '' %}"
     "{% elif m.role == 'assistant' %}{{ ' ' ~ m.content ~ eos_token }}"
     "{% else %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}"},
    {"phi3",
     "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ '<|end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"phi4",
     "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '<|im_sep|>' ~ m.content ~ '<|im_end|>' }}{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"},
    {"vicuna",
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content ~ '\n\n' }}{% elif m.role == 'user' %}{{ 'USER: ' ~ "
     "m.content ~ '\n' }}"
     "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' ~ m.content ~ '</s>\n' }}"
     "{% else %}{{ raise_exception('role ' ~ m.role) }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif "
     "%}"},
    {"zephyr",
     "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ eos_token ~ '\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
};

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::string_view where) {
  auto program = std::make_unique<Program>();
  ROOFTREE_TRY_VOID(jinja::parse(source, where, program->jinja));
  return ChatTemplate(std::move(program));
}

Result<ChatTemplate> ChatTemplate::named(std::string_view name) {
  for (const Named& known : kNamed) {
    if (known.name == name) return parse(known.source, name);
  }
  return Error{ErrorCode::kNotFound, fmt::format("chat template '{}' is not built in; there are {}", name, names())};
}

std::string ChatTemplate::names() {
  std::string names;
  for (const Named& known : kNamed) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

Result<std::vector<TokenId>> ChatTemplate::encode(const std::vector<ChatMessage>& messages, ChatOptions options,
                                                  const Tokenizer& tokenizer) const {
  const SpecialTokens& special = tokenizer.special();
  if (special.bos.has_value()) options.bos_token = tokenizer.piece(*special.bos, true);
  if (special.eos.has_value()) options.eos_token = tokenizer.piece(*special.eos, true);
  ROOFTREE_TRY(const std::string text, render(messages, options));
  std::vector<TokenId> tokens = tokenizer.encode(text, {.add_special = false, .parse_special = true});
  const bool first = !tokens.empty() && tokens.front() == special.bos;
  if (special.add_bos && special.bos.has_value() && !first) tokens.insert(tokens.begin(), *special.bos);
  return tokens;
}

Result<std::string> ChatTemplate::render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const {
  std::size_t bytes = options.tools_json.size() + options.extra_json.size();
  for (const ChatMessage& message : messages) bytes += message.role.size() + message.content.size() + message.extra_json.size();
  jinja::Runtime runtime(program_->jinja, kBaseBudget + kBudgetPerByte * static_cast<std::int64_t>(bytes));

  // Names and text of the caller outlive the runtime; what is parsed here is copied into it.
  const auto add_fields = [&runtime](jinja::Dict& dict, const Json& json) {
    for (const auto& [key, value] : json.items()) {
      runtime.set_item(dict, runtime.make_text(key), from_json(runtime, value));
    }
  };
  std::vector<Value> list;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    Value dict = runtime.make_dict();
    runtime.set_item(*dict.dict, "role", Value::of_text(message.role));
    runtime.set_item(*dict.dict, "content", Value::of_text(message.content));
    if (!message.extra_json.empty()) {
      ROOFTREE_TRY(const Json extra, parse_as(message.extra_json, Json::value_t::object, fmt::format("chat: message {}", i)));
      add_fields(*dict.dict, extra);
    }
    list.push_back(dict);
  }
  jinja::Dict globals;
  runtime.set_item(globals, "messages", runtime.make_list(std::move(list)));
  runtime.set_item(globals, "add_generation_prompt", Value::of_bool(options.add_generation_prompt));
  runtime.set_item(globals, "bos_token", Value::of_text(options.bos_token));
  runtime.set_item(globals, "eos_token", Value::of_text(options.eos_token));
  runtime.set_item(globals, "tools", Value::none());  // as transformers passes them: defined, and none
  runtime.set_item(globals, "documents", Value::none());
  if (!options.tools_json.empty()) {
    ROOFTREE_TRY(const Json tools, parse_as(options.tools_json, Json::value_t::array, "chat: tools"));
    if (!tools.empty()) runtime.set_item(globals, "tools", from_json(runtime, tools));
  }
  if (!options.extra_json.empty()) {
    ROOFTREE_TRY(const Json extra, parse_as(options.extra_json, Json::value_t::object, "chat: variables"));
    add_fields(globals, extra);
  }
  jinja::Date date;
  if (!options.date.empty()) {
    ROOFTREE_TRY(date, parse_date(options.date));
  }
  return runtime.run(&globals, date);
}

}  // namespace rooftree::text

#include "validate/e2e_cases.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "validate/e2e_text.h"

namespace rooftree::validate {
namespace {

using cost::Plan;
using cost::Stack;
using model::Phase;
using model::Role;

using Cases = std::vector<Result<E2eCase>>;

constexpr std::string_view kParallel = "needs a parallel plan";

Error refusal(std::string_view reason) { return Error{ErrorCode::kInvalid, std::string(reason)}; }

// Reasons are counted, so they do not repeat what the row says.
template <class T>
Result<T> known(Result<T> result, std::string_view reason) {
  if (!result) return refusal(reason);
  return result;
}

Cases refused(std::string_view reason) {
  Cases cases;
  cases.emplace_back(refusal(reason));
  return cases;
}

Result<std::int64_t> whole(const Fields& row, std::string_view column) {
  ROOFTREE_TRY(const double value, parse_number(row(column), column));
  if (value != std::floor(value) || value < 0 || value > 1e12) {
    return Error{ErrorCode::kParse, fmt::format("column {}: expected a whole number", column)};
  }
  return static_cast<std::int64_t>(value);
}

Result<double> positive(const Fields& row, std::string_view column) {
  ROOFTREE_TRY(const double value, parse_number(row(column), column));
  if (!(value > 0)) return Error{ErrorCode::kParse, fmt::format("column {}: expected a positive number", column)};
  return value;
}

E2eCase make_case(std::string_view what, const machine::Machine& machine, std::shared_ptr<const model::Model> model,
                  Plan plan) {
  E2eCase c;
  c.what = what;
  c.group = fmt::format("{} {}", what, machine.chip().family);
  c.machine = machine;
  c.model = std::move(model);
  c.plan = std::move(plan);
  c.plan.memory_reserve = 0;  // what was measured did fit
  return c;
}

// --------------------------------------------------------------------------------------------------------------- llama.cpp

// llama.cpp multiplies quantised weights as 8-bit integers where the chip has such products, and in fp16 otherwise. Every
// operator is a kernel of its own; without flash attention the scores are materialised.
Plan llama_cpp_plan(const WeightFormat& format, const machine::Chip& chip, bool flash_attention) {
  Plan plan;
  plan.stack = Stack::kLlamaCpp;
  plan.set_type(Role::kWeight, format.weights);
  plan.expert_weights = format.experts;
  plan.set_type(Role::kActivation, DType::kF16);
  plan.set_type(Role::kKvCache, DType::kF16);
  plan.set_type(Role::kOutput, DType::kF32);
  const bool quantised = info(format.weights).block > 1;
  const bool integer = chip.vendor != "Apple" && machine::product_rate(chip, Arithmetic::kInt8) > FlopPerSecond{};
  plan.arithmetic = quantised && integer ? Arithmetic::kInt8 : Arithmetic::kFp16;
  plan.fusion = flash_attention ? model::Fusion::kEagerFlash : model::Fusion::kEager;
  return plan;
}

// A prompt of `tokens` per sequence, `batch` sequences, processed in pieces of at most `piece` tokens after `past` cached ones.
std::vector<Stretch> prompt_stretches(std::int64_t batch, std::int64_t tokens, std::int64_t past, std::int64_t piece) {
  std::vector<Stretch> out;
  if (tokens <= piece) {
    const std::int64_t together = std::max<std::int64_t>(1, std::min(batch, piece / tokens));
    const std::int64_t full = batch / together;
    out.push_back({Phase::prefill(together, tokens, past), static_cast<double>(full)});
    if (batch % together != 0) out.push_back({Phase::prefill(batch % together, tokens, past), 1});
    return out;
  }
  for (std::int64_t done = 0; done < tokens; done += piece) {
    out.push_back({Phase::prefill(1, std::min(piece, tokens - done), past + done), static_cast<double>(batch)});
  }
  return out;
}

E2eCase prompt_case(const machine::Machine& machine, std::shared_ptr<const model::Model> model, const Plan& plan,
                    std::int64_t batch, std::int64_t tokens, std::int64_t past, std::int64_t piece) {
  E2eCase c = make_case("prompt", machine, std::move(model), plan);
  c.stretches = prompt_stretches(batch, tokens, past, piece);
  c.tokens = static_cast<double>(batch * tokens);
  return c;
}

// `tokens` generated one after the other by each of `batch` sequences, from `past` cached ones on. The time of a step is close
// to linear in the context, so the middle one stands for all.
E2eCase decode_case(const machine::Machine& machine, std::shared_ptr<const model::Model> model, const Plan& plan,
                    std::int64_t batch, std::int64_t tokens, std::int64_t past) {
  E2eCase c = make_case("decode", machine, std::move(model), plan);
  c.stretches = {{Phase::decode(batch, past + tokens / 2), static_cast<double>(tokens)}};
  c.tokens = static_cast<double>(batch * tokens);
  return c;
}

// The machine of a row, with the variant of the chip that the row states.
Result<machine::Machine> row_machine(const Fields& row, std::string_view column, E2eWorld& world) {
  const Result<DeviceName> device = parse_device(row(column));
  // A name that scoreboards do not decorate may still be an alias of the catalogue.
  auto found = world.machine(device ? device->chip : std::string(row(column)));
  if (!found) return device ? found.error() : refusal("device not known");
  machine::Machine machine = std::move(found).value();
  machine::Chip& chip = machine.chip();
  std::optional<int> cores;
  if (device) cores = device->gpu_cores;
  if (const auto stated = parse_number(row("gpu_cores"), "gpu_cores"); stated && *stated >= 1)
    cores = static_cast<int>(*stated);
  if (cores) chip = with_cores(std::move(chip), *cores);
  // Apple boards of one name differ in memory bandwidth; elsewhere the column repeats the datasheet.
  if (const auto stated = parse_number(row("mem_bandwidth_GB_per_s"), "mem_bandwidth_GB_per_s"); stated && *stated > 0) {
    chip.ladder.back().bandwidth = BytesPerSecond{*stated * 1e9};
  }
  if (device && device->power_cap_w) chip.power_max = Watts{*device->power_cap_w};
  return machine;
}

// MI250 and MI250X cards are two devices to PyTorch; one of them is timed.
machine::Chip one_die_of_two(machine::Chip chip) {
  chip = with_cores(std::move(chip), chip.cores / 2);
  for (machine::MemoryLevel& level : chip.ladder) {
    level.capacity *= 0.5;
    level.bandwidth *= 0.5;
  }
  chip.power_max *= 0.5;
  return chip;
}

// The device of a PyTorch program.
Result<machine::Machine> torch_machine(const Fields& row, std::string_view column, E2eWorld& world) {
  ROOFTREE_TRY(machine::Machine machine, row_machine(row, column, world));
  if (machine.id.starts_with("amd-mi250")) machine.chip() = one_die_of_two(std::move(machine.chip()));
  return machine;
}

template <class Build>
Cases one(Build build) {
  Cases cases;
  cases.emplace_back(build());
  return cases;
}

Cases llamacpp_scoreboards(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    ROOFTREE_TRY(const std::string id, known(parse_model(row("model")), "model not known"));
    ROOFTREE_TRY(const auto model, world.model(id));
    ROOFTREE_TRY(const WeightFormat format, known(parse_weight_format(row("quant")), "quantisation not known"));
    ROOFTREE_TRY(const machine::Machine machine, row_machine(row, "device", world));
    ROOFTREE_TRY(const BenchTest test, known(parse_bench_test(row("test")), "test not known"));
    ROOFTREE_TRY(const double measured, positive(row, "tokens_per_s"));
    if (test.prompt > 0 && test.generated > 0) return refusal("prompt and generation timed together");
    // The gpt-oss board runs with flash attention and batches of 2048 throughout; the older ones with the defaults of their
    // time.
    const bool modern_board = id.starts_with("gpt-oss");
    const std::string_view flash = row("flash_attention");
    const bool flash_attention = is_blank(flash) ? modern_board : flash.starts_with("on");
    const Plan plan = llama_cpp_plan(format, machine.chip(), flash_attention);
    E2eCase c = test.prompt > 0 ? prompt_case(machine, model, plan, 1, test.prompt, test.depth, modern_board ? 2048 : 512)
                                : decode_case(machine, model, plan, 1, test.generated, test.depth);
    c.measured = measured;
    return c;
  });
}

Cases llamacpp_xiongjiedai(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    ROOFTREE_TRY(const std::int64_t gpus, whole(row, "num_gpus"));
    if (gpus != 1) return refusal(kParallel);
    ROOFTREE_TRY(const std::string id, known(parse_model(row("model_quant"), row("model_family")), "model not known"));
    ROOFTREE_TRY(const auto model, world.model(id));
    ROOFTREE_TRY(const WeightFormat format, known(parse_weight_format(row("model_quant")), "quantisation not known"));
    ROOFTREE_TRY(const machine::Machine machine, row_machine(row, "gpu", world));
    ROOFTREE_TRY(const std::int64_t tokens, whole(row, "num_tokens"));
    ROOFTREE_TRY(const double measured, positive(row, "tokens_per_s"));
    if (tokens < 1) return refusal("no tokens");
    // May 2024: no flash attention by default, batches of 512, and prompts on weights widened to fp16: the products of
    // quantised weights moved to the integer matrix units in the summer of that year.
    Plan plan = llama_cpp_plan(format, machine.chip(), false);
    const bool prompt = row("test") == "pp";
    if (prompt) plan.arithmetic = Arithmetic::kFp16;
    E2eCase c = prompt ? prompt_case(machine, model, plan, 1, tokens, 0, 512) : decode_case(machine, model, plan, 1, tokens, 0);
    c.measured = measured;
    return c;
  });
}

Cases llamacpp_repo_benches(const Fields& row, E2eWorld& world) {
  Cases cases;
  const auto add = [&](bool prompt) {
    const std::string_view column = prompt ? "prompt_tokens_per_s_aggregate" : "gen_tokens_per_s_aggregate";
    if (is_blank(row(column))) return;
    cases.push_back([&]() -> Result<E2eCase> {
      ROOFTREE_TRY(const std::string id, known(parse_model(row("model")), "model not known"));
      ROOFTREE_TRY(const auto model, world.model(id));
      // Two repositories name no quantisation: gpt-oss ships MXFP4, Gemma's quantisation-aware files are Q4_0. The GLM file of
      // the same tables is Q8_0 by its llama-bench rows.
      WeightFormat format;
      if (auto named = parse_weight_format(row("model"))) {
        format = *named;
      } else if (id.starts_with("gpt-oss")) {
        format = parse_weight_format("MXFP4").value();
      } else {
        format.weights = id.starts_with("gemma") ? DType::kQ4_0 : DType::kQ8_0;
      }
      ROOFTREE_TRY(const machine::Machine machine, row_machine(row, "device", world));
      ROOFTREE_TRY(const std::int64_t batch, whole(row, "batch"));
      if (batch < 1) return refusal("no sequences");
      ROOFTREE_TRY(const double measured, positive(row, column));
      std::int64_t depth = 0;
      if (!is_blank(row("context_depth_tokens"))) {
        ROOFTREE_TRY(depth, whole(row, "context_depth_tokens"));
      }
      std::int64_t prompt_tokens = 0;
      if (!is_blank(row("prompt_tokens"))) {
        ROOFTREE_TRY(prompt_tokens, whole(row, "prompt_tokens"));
      }
      // Benchmarks of the repository run with flash attention and batches of 2048.
      const Plan plan = llama_cpp_plan(format, machine.chip(), true);
      E2eCase c;
      if (prompt) {
        if (prompt_tokens < 1) return refusal("no tokens");
        c = prompt_case(machine, model, plan, batch, prompt_tokens, depth, 2048);
      } else {
        ROOFTREE_TRY(const std::int64_t generated, whole(row, "gen_tokens"));
        if (generated < 1) return refusal("no tokens");
        const bool batched = row("tool") == "batched-bench";
        c = decode_case(machine, model, plan, batch, generated, depth + (batched ? prompt_tokens : 0));
      }
      c.measured = measured;
      return c;
    }());
  };
  add(true);
  add(false);
  return cases;
}

// ------------------------------------------------------------------------------------------------------- other decode loops

Cases gptfast(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    const std::string_view model_name = row("model");
    if (model_name.find("draft") != std::string_view::npos) return refusal("speculative decoding with a draft model");
    ROOFTREE_TRY(const std::int64_t gpus, whole(row, "num_gpus"));
    if (gpus != 1) return refusal(kParallel);
    ROOFTREE_TRY(const std::string id, known(parse_model(model_name), "model not known"));
    ROOFTREE_TRY(const auto model, world.model(id));
    ROOFTREE_TRY(const WeightFormat format, known(parse_weight_format(row("weight_precision")), "quantisation not known"));
    ROOFTREE_TRY(const machine::Machine machine, torch_machine(row, "gpu", world));
    ROOFTREE_TRY(const std::int64_t batch, whole(row, "batch_size"));
    ROOFTREE_TRY(const std::int64_t prompt, whole(row, "prompt_tokens"));
    ROOFTREE_TRY(const double measured, positive(row, "decode_tokens_per_s"));
    if (batch < 1) return refusal("no sequences");
    Plan plan;
    plan.stack = Stack::kCompiled;
    plan.set_type(Role::kWeight, format.weights);
    // The default of the program: 200 new tokens.
    E2eCase c = decode_case(machine, model, plan, batch, 200, prompt);
    c.measured = measured;
    return c;
  });
}

Cases mlc(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    ROOFTREE_TRY(const std::int64_t gpus, whole(row, "num_gpus"));
    if (gpus != 1) return refusal(kParallel);
    ROOFTREE_TRY(const std::string id, known(parse_model(row("model")), "model not known"));
    ROOFTREE_TRY(const auto model, world.model(id));
    ROOFTREE_TRY(WeightFormat format, known(parse_weight_format(row("weight_precision")), "quantisation not known"));
    ROOFTREE_TRY(const machine::Machine machine, row_machine(row, "gpu", world));
    ROOFTREE_TRY(const std::int64_t batch, whole(row, "batch_size"));
    ROOFTREE_TRY(const std::int64_t output, whole(row, "output_tokens"));
    ROOFTREE_TRY(const double measured, positive(row, "decode_tokens_per_s"));
    if (batch < 1 || output < 1) return refusal("no tokens");
    const std::string_view engine = row("engine");
    const bool int4 = format.weights == DType::kInt4;
    Plan plan;
    if (engine == "Llama.cpp") {
      if (int4) format.weights = DType::kQ4KM;  // the files that the benchmark's instructions fetch
      plan = llama_cpp_plan(format, machine.chip(), false);
    } else {
      // MLC: q4f16_1, an fp16 scale per 32 values, which is q4_0's size; ExLlama and vLLM: groups of 128.
      if (int4 && engine == "MLC-LLM") format.weights = DType::kQ4_0;
      plan.stack = Stack::kCompiled;
      plan.set_type(Role::kWeight, format.weights);
      plan.set_type(Role::kActivation, DType::kF16);
      plan.set_type(Role::kKvCache, DType::kF16);
    }
    constexpr std::int64_t kPromptTokens = 8;  // "What is the meaning of life?"
    E2eCase c = decode_case(machine, model, plan, batch, output, kPromptTokens);
    c.measured = measured;
    return c;
  });
}

// ------------------------------------------------------------------------------------------------------------------ training

// Shapes of the NeuSight evaluation (sitar-lab/NeuSight, scripts/asplos/data/DLmodel_configs @6945927d): GPT-2 style decoders
// with four times the width in the feed-forward, and OPT.
model::DecoderShape gpt_shape(std::string id, std::int64_t layers, std::int64_t hidden, std::int64_t heads,
                              std::int64_t vocabulary, std::int64_t context) {
  model::DecoderShape shape;
  shape.id = std::move(id);
  shape.layers = layers;
  shape.hidden = hidden;
  shape.heads = heads;
  shape.kv_heads = heads;
  shape.feed_forward = 4 * hidden;
  shape.vocabulary = vocabulary;
  shape.max_context = context;
  shape.gated = false;
  shape.tied_embeddings = true;
  shape.learned_positions = true;
  shape.biases = true;
  shape.norm = model::NormKind::kLayer;
  return shape;
}

struct NamedShape {
  std::string_view name;
  std::int64_t layers, hidden, heads, vocabulary;
};
constexpr std::array<NamedShape, 9> kNeusightShapes = {{
    {"gpt2_med", 24, 1024, 16, 50257},
    {"gpt2_large", 36, 1280, 20, 50257},
    {"gpt2_xl", 48, 1600, 25, 50257},
    {"gpt3_xl", 24, 3072, 24, 50257},
    {"gpt3_27", 32, 2560, 32, 50257},
    {"gpt3_67", 32, 4096, 32, 50257},
    {"gpt3_13", 40, 5120, 40, 50257},
    {"opt_13", 24, 2048, 32, 50272},
    {"opt", 1, 512, 8, 50272},
}};

// MPT (mosaicml/llm-foundry, scripts/train/yamls/pretrain @8c8dd48f): no biases, no learned positions beyond ALiBi.
constexpr std::array<NamedShape, 9> kMptShapes = {{
    {"125m", 12, 768, 12, 50368},
    {"350m", 24, 1024, 16, 50368},
    {"760m", 24, 1536, 12, 50368},
    {"1b", 24, 2048, 16, 50368},
    {"3b", 32, 2560, 20, 50368},
    {"7b", 32, 4096, 32, 50368},
    {"13b", 40, 5120, 40, 50368},
    {"30b", 48, 7168, 56, 50368},
    {"70b", 80, 8192, 64, 50368},
}};

template <std::size_t N>
const NamedShape* find_shape(const std::array<NamedShape, N>& shapes, std::string_view name) {
  for (const NamedShape& s : shapes) {
    if (s.name == name) return &s;
  }
  return nullptr;
}

void set_float_types(Plan& plan, DType type) {
  for (const Role role : {Role::kWeight, Role::kActivation, Role::kKvCache, Role::kGradient, Role::kOutput})
    plan.set_type(role, type);
}

Cases neusight(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    const std::string_view name = row("model");
    const std::string_view options = row("options");
    if (!is_blank(options) && options != "fusion") return refusal(kParallel);
    if (name.starts_with("switch")) return refusal("shape not fully stated (Switch: feed-forward width, expert capacity)");
    ROOFTREE_TRY(const machine::Machine machine, torch_machine(row, "gpu", world));
    ROOFTREE_TRY(const std::int64_t tokens, whole(row, "seq_len"));
    ROOFTREE_TRY(const std::int64_t batch, whole(row, "batch"));
    ROOFTREE_TRY(const double measured_ms, positive(row, "e2e_latency_ms"));
    if (tokens < 1 || batch < 1) return refusal("no tokens");
    const bool training = row("mode") == "train";
    std::shared_ptr<const model::Model> model;
    if (name == "bert" || name == "bert_large") {
      ROOFTREE_TRY(model, world.model(name == "bert" ? "bert-base-uncased" : "bert-large-uncased"));
    } else if (const NamedShape* s = find_shape(kNeusightShapes, name)) {
      ROOFTREE_TRY(model, world.decoder(gpt_shape(fmt::format("neusight-{}", name), s->layers, s->hidden, s->heads,
                                                  s->vocabulary, 16384)));
    } else {
      return refusal("model not known");
    }
    Plan plan;
    plan.stack = Stack::kEager;
    // Eager PyTorch; "fusion" is torch.compile, which fuses element-wise work but keeps this eager attention.
    plan.fusion = options == "fusion" ? model::Fusion::kUnfusedAttention : model::Fusion::kEager;
    set_float_types(plan, DType::kF32);
    plan.arithmetic = Arithmetic::kFp32;  // TF32 was switched off
    E2eCase c = make_case(training ? "training" : "inference", machine, model, plan);
    c.plan.software.attention = cost::AttentionKernel::kUnfused;
    if (training) {
      // Timed: forward and backward pass. No optimizer.
      c.stretches = {{Phase::train(batch, tokens), 1, Stretch::Part::kWithoutOptimizer}};
    } else {
      Phase phase = Phase::prefill(batch, tokens);
      phase.all_logits = true;
      c.stretches = {{phase, 1}};
    }
    c.measured = measured_ms * 1e-3;
    return c;
  });
}

Cases mosaic(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    ROOFTREE_TRY(const std::int64_t gpus, whole(row, "num_gpus"));
    if (gpus > 8) return refusal(kParallel);
    const NamedShape* s = find_shape(kMptShapes, row("model"));
    if (s == nullptr) return refusal("model not known");
    ROOFTREE_TRY(machine::Machine machine, row_machine(row, "gpu", world));
    ROOFTREE_TRY(const std::int64_t tokens, whole(row, "seq_len_tokens"));
    ROOFTREE_TRY(const std::int64_t micro, whole(row, "microbatch_size_seqs"));
    ROOFTREE_TRY(const std::int64_t steps, whole(row, "grad_accum"));
    ROOFTREE_TRY(const double measured, positive(row, "throughput_tokens_per_s_per_gpu"));
    if (gpus < 1 || tokens < 1 || micro < 1 || steps < 1) return refusal("no tokens");
    // Parameters and their states are sharded over the node, so the peers' memory holds them too.
    machine.chip().ladder.back().capacity *= static_cast<double>(gpus);
    if (row("activation_cpu_offload") == "True") return refusal("activations offloaded to the host");
    model::DecoderShape shape =
        gpt_shape(fmt::format("mpt-{}", s->name), s->layers, s->hidden, s->heads, s->vocabulary, 131072);
    shape.biases = false;
    shape.learned_positions = false;
    ROOFTREE_TRY(const auto model, world.decoder(shape));
    Plan plan;
    plan.stack = Stack::kEager;
    plan.fusion = model::Fusion::kEagerFlash;
    set_float_types(plan, DType::kBf16);
    if (row("precision") == "amp_fp8") plan.arithmetic = Arithmetic::kFp8;
    E2eCase c = make_case("training", machine, model, plan);
    c.plan.software.attention = cost::AttentionKernel::kTritonEarly;
    Phase phase = Phase::train(micro, tokens);
    if (row("activation_checkpointing") == "True") phase.recompute = model::Recompute::kFull;
    c.stretches = {{phase, static_cast<double>(steps), Stretch::Part::kWithoutOptimizer}};
    // Each of the peers updates its share of the parameters.
    c.stretches.push_back({phase, 1 / static_cast<double>(gpus), Stretch::Part::kOptimizerOnly});
    c.tokens = static_cast<double>(micro * tokens * steps);
    c.measured = measured;
    c.data_parallel = static_cast<double>(gpus);
    // Sharded parameters: gathered for the forward and the backward pass, gradients scattered, per micro-step, 16 bits each.
    c.exchanged_bytes_per_parameter = gpus > 1 ? 6.0 * static_cast<double>(steps) : 0;
    return c;
  });
}

Cases vtrain(const Fields& row, E2eWorld& world) {
  return one([&]() -> Result<E2eCase> {
    ROOFTREE_TRY(const std::int64_t gpus, whole(row, "num_gpus"));
    ROOFTREE_TRY(const std::int64_t tp, whole(row, "tp"));
    ROOFTREE_TRY(const std::int64_t pp, whole(row, "pp"));
    ROOFTREE_TRY(const std::int64_t dp, whole(row, "dp"));
    if (tp != 1 || pp != 1 || gpus > 8) return refusal(kParallel);
    ROOFTREE_TRY(const std::int64_t global, whole(row, "global_batch"));
    ROOFTREE_TRY(const std::int64_t micro, whole(row, "micro_batch"));
    ROOFTREE_TRY(const std::int64_t hidden, whole(row, "hidden"));
    ROOFTREE_TRY(const std::int64_t heads, whole(row, "heads"));
    ROOFTREE_TRY(const std::int64_t layers, whole(row, "layers"));
    ROOFTREE_TRY(const std::int64_t tokens, whole(row, "seq_len_tokens"));
    ROOFTREE_TRY(const double measured_ms, positive(row, "iteration_time_ms"));
    if (dp < 1 || micro < 1 || hidden < 1 || heads < 1 || layers < 1 || tokens < 1 || global < dp * micro ||
        global % (dp * micro) != 0) {
      return refusal("batch does not divide");
    }
    ROOFTREE_TRY(const machine::Machine machine, world.machine("nvidia-a100-sxm-80"));
    constexpr std::int64_t kVocabulary = 51200;  // GPT-2's, padded as Megatron-LM does
    ROOFTREE_TRY(const auto model, world.decoder(gpt_shape(fmt::format("megatron-{}x{}x{}", layers, hidden, heads), layers,
                                                           hidden, heads, kVocabulary, tokens)));
    Plan plan;
    plan.stack = Stack::kMegatron;
    plan.fusion = model::Fusion::kUnfusedAttention;
    set_float_types(plan, DType::kF16);
    E2eCase c = make_case("training", machine, model, plan);
    c.plan.software.attention = cost::AttentionKernel::kUnfused;
    const Phase phase = Phase::train(micro, tokens);
    c.stretches = {{phase, static_cast<double>(global / (dp * micro)), Stretch::Part::kWithoutOptimizer},
                   {phase, 1, Stretch::Part::kOptimizerOnly}};
    c.measured = measured_ms * 1e-3;
    c.data_parallel = static_cast<double>(dp);
    c.exchanged_bytes_per_parameter = dp > 1 ? 4 : 0;  // 16-bit gradients, reduced and spread once per iteration
    return c;
  });
}

struct FileCases {
  std::string_view file;
  Cases (*build)(const Fields&, E2eWorld&);
};
constexpr std::array<FileCases, 8> kFiles = {{
    {"e2e_neusight_labels.csv", neusight},
    {"infer_gptfast_batch1_decode.csv", gptfast},
    {"infer_llamacpp_repo_benches.csv", llamacpp_repo_benches},
    {"infer_llamacpp_scoreboards.csv", llamacpp_scoreboards},
    {"infer_llamacpp_xiongjiedai.csv", llamacpp_xiongjiedai},
    {"infer_mlc_llm_perf_bench.csv", mlc},
    {"train_mosaic_llmfoundry_mpt.csv", mosaic},
    {"train_vtrain_megatron_a100.csv", vtrain},
}};

// The nodes of a graph that a stretch times.
void keep_part(model::Graph& graph, Stretch::Part part) {
  if (part == Stretch::Part::kAll) return;
  const bool optimizer = part == Stretch::Part::kOptimizerOnly;
  for (model::Block& block : graph.blocks) {
    std::erase_if(block.nodes, [&](const model::Node& node) { return (node.pass == model::Pass::kOptimizer) != optimizer; });
  }
  std::erase_if(graph.blocks, [](const model::Block& block) { return block.nodes.empty(); });
}

// Time of all stretches under one plan and one set of constants.
Result<Interval<double>> time_of(const E2eCase& e2e, const cost::Estimator& estimator, model::Fusion fusion) {
  Interval<double> total;
  for (const Stretch& stretch : e2e.stretches) {
    ROOFTREE_TRY(model::Graph graph, e2e.model->build(stretch.phase, fusion));
    keep_part(graph, stretch.part);
    if (graph.blocks.empty()) continue;
    const cost::Estimate estimate = estimator.estimate(graph);
    if (!estimate.memory.fits && e2e.data_parallel <= 1) return refusal("does not fit in the chip's memory");
    total.low += stretch.count * estimate.time.low.value();
    total.best += stretch.count * estimate.time.best.value();
    total.high += stretch.count * estimate.time.high.value();
  }
  return total;
}

}  // namespace

machine::Chip with_cores(machine::Chip chip, int cores) {
  if (cores < 1 || chip.cores < 1 || cores == chip.cores) return chip;
  const double factor = static_cast<double>(cores) / chip.cores;
  for (machine::ArithmeticRate& rate : chip.arithmetic) {
    rate.matrix *= factor;
    rate.vector *= factor;
  }
  chip.cores = cores;
  return chip;
}

Result<machine::Machine> E2eWorld::machine(std::string_view id) {
  if (const auto it = known_machines_.find(id); it != known_machines_.end()) return it->second;
  Result<machine::Machine> found = machines_->find(id);
  if (!found) found = refusal(fmt::format("no machine {}", id));
  return known_machines_.emplace(std::string(id), std::move(found)).first->second;
}

Result<std::shared_ptr<const model::Model>> E2eWorld::model(std::string_view id) {
  if (const auto it = known_models_.find(id); it != known_models_.end()) return it->second;
  auto found = models_->find(id);
  Result<std::shared_ptr<const model::Model>> kept = refusal(fmt::format("no model {}", id));
  if (found) kept = std::make_shared<const model::Model>(std::move(found).value());
  return known_models_.emplace(std::string(id), std::move(kept)).first->second;
}

Result<std::shared_ptr<const model::Model>> E2eWorld::decoder(const model::DecoderShape& shape) {
  if (const auto it = known_models_.find(shape.id); it != known_models_.end()) return it->second;
  auto made = model::make_decoder(shape);
  Result<std::shared_ptr<const model::Model>> kept = refusal("shape not possible");
  if (made) kept = std::make_shared<const model::Model>(std::move(made).value());
  return known_models_.emplace(shape.id, std::move(kept)).first->second;
}

std::vector<std::string_view> e2e_files() {
  std::vector<std::string_view> files;
  for (const FileCases& f : kFiles) files.push_back(f.file);
  return files;
}

std::vector<Result<E2eCase>> e2e_cases(std::string_view file, const Fields& row, E2eWorld& world) {
  for (const FileCases& f : kFiles) {
    if (f.file == file) return f.build(row, world);
  }
  return refused("no model for this file");
}

Result<E2ePrediction> predict(const E2eCase& e2e, const cost::CalibrationTable& calibration) {
  const machine::Chip& chip = e2e.machine.chip();
  const cost::Estimator ours(e2e.machine, calibration, e2e.plan);
  ROOFTREE_TRY(const Interval<double> time, time_of(e2e, ours, e2e.plan.fusion));
  const cost::Estimator datasheet(e2e.machine, cost::CalibrationTable::datasheet(chip), e2e.plan);
  ROOFTREE_TRY(const Interval<double> roof, time_of(e2e, datasheet, model::Fusion::kStandard));
  if (!(time.best > 0) || !(roof.best > 0)) return refusal("nothing to time");

  if (e2e.exchanged_bytes_per_parameter > 0) {
    ROOFTREE_TRY(const model::Graph graph, e2e.model->build(e2e.stretches.front().phase, model::Fusion::kStandard));
    const double link = 0.75 * chip.scaleup_per_direction.value();
    const double share = (e2e.data_parallel - 1) / e2e.data_parallel;
    const double bytes = e2e.exchanged_bytes_per_parameter * model::parameter_count(graph) * share;
    if (link <= 0 || bytes / link > 0.1 * time.best)
      return refusal("exchange between chips is not small: needs a parallel plan");
  }

  E2ePrediction out;
  if (e2e.tokens > 0) {
    out.value = {e2e.tokens / time.high, e2e.tokens / time.best, e2e.tokens / time.low};
    out.baseline = e2e.tokens / roof.best;
  } else {
    out.value = time;
    out.baseline = roof.best;
  }
  return out;
}

}  // namespace rooftree::validate

#pragma once

// Writes the graph of a phase, reusing the storage of the graph that it is given: where the structure is the one that the graph
// already holds, only dimensions are written, and nothing is allocated. Private to the layer.

#include <initializer_list>
#include <span>
#include <string_view>

#include "model/graph.h"
#include "model/model.h"

namespace rooftree::model {

// A name in two parts, joined only where it is stored.
struct Name {
  std::string_view base, suffix;
  constexpr Name(const char* whole) : base(whole) {}       // NOLINT(google-explicit-constructor)
  constexpr Name(std::string_view whole) : base(whole) {}  // NOLINT(google-explicit-constructor)
  constexpr Name(std::string_view b, std::string_view s) : base(b), suffix(s) {}
};

class GraphWriter {
 public:
  // `structure` identifies (architecture, kind of phase, fusion, …): all that decides which nodes and values there are.
  GraphWriter(Graph& graph, const Phase& phase, Fusion fusion, std::uint64_t structure);

  struct BlockOptions {
    std::int64_t repeat = 1;
    bool active = true;                      // inactive: weights only, this phase does not run it
    std::span<const std::int32_t> layers{};  // which layers the instances are
    bool local = false;                      // its attention is windowed or chunked
  };
  void begin_block(std::string_view name, const BlockOptions& options);
  void end_block();

  // Put before the names of nodes and values until changed.
  void set_prefix(std::string_view prefix) { prefix_ = prefix; }
  // Nodes until the next call are the attention core, which selective recomputation repeats.
  void set_core(bool core) { core_ = core; }

  // `touched`: how many of the values one pass reads; negative = all, if the block is active.
  ValueId weight(Name name, std::initializer_list<std::int64_t> shape, double touched = -1);
  // A weight with a row per vocabulary entry or position.
  ValueId table(Name name, std::initializer_list<std::int64_t> shape, double touched = -1);
  ValueId value(Name name, std::initializer_list<std::int64_t> shape, Role role = Role::kActivation);
  // Positions of inputs and outputs have a meaning (graph.h); what is absent is an invalid id, left out at the end.
  void node(Name name, const Operator& op, std::initializer_list<ValueId> inputs, std::initializer_list<ValueId> outputs);

  // The residual stream enters and leaves the block. A block with both is repeatable: full recomputation keeps only its input.
  void set_block_input(ValueId id);
  void set_block_output(ValueId id);
  // Its second part, where the residual add runs in a norm.
  void set_block_pending(ValueId input, ValueId output);

  // Adds the backward pass and the optimizer when training, and fills the footprint. False: the graph did not have the
  // structure that it claimed (somebody changed it); write again.
  [[nodiscard]] bool finish();

  [[nodiscard]] const Phase& phase() const { return phase_; }
  [[nodiscard]] Fusion fusion() const { return fusion_; }
  [[nodiscard]] bool training() const { return phase_.kind == Phase::Kind::kTrain; }
  [[nodiscard]] bool active() const { return active_; }

 private:
  ValueId add(Name name, std::initializer_list<std::int64_t> shape, Role role, double& count);
  Node& next_node(Name name, Pass pass);
  void mark_saved(const Operator& op, std::initializer_list<ValueId> inputs, std::initializer_list<ValueId> outputs);
  void save(ValueId id);
  void touch(ValueId id);
  void write_backward();
  void write_optimizer();
  void optimizer_node(Name name, const OptimizerStep& step);
  void count_saved();

  Graph& graph_;
  const Phase phase_;
  const Fusion fusion_;
  const bool same_;  // only dimensions are written
  bool mismatch_ = false;
  std::string_view prefix_;
  bool core_ = false;
  bool active_ = true;
  std::uint32_t block_ = UINT32_MAX;
  std::uint32_t node_ = 0;
  std::uint32_t block_count_ = 0;
  std::uint32_t value_count_ = 0;
  std::uint32_t first_value_of_block_ = 0;
  double repeat_ = 1;
  Footprint footprint_;
};

}  // namespace rooftree::model

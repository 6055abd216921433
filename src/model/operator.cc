#include "model/operator.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace rooftree::model {
namespace {

double d(std::int64_t v) { return static_cast<double>(v); }
constexpr std::size_t at(Role role) { return static_cast<std::size_t>(role); }

// Vector FLOP per element. Normalisations: RMS squares, adds, scales, applies the gain; layer norm and its relatives also
// subtract the mean and add the bias. Softmax: maximum, subtraction, sum, division. Backward passes read two tensors and do
// about twice the arithmetic of their forward pass.
constexpr double kRmsNormFlop = 4, kLayerNormFlop = 7, kSoftmaxFlop = 4;
// Per update of one parameter: two moments (3 + 4), bias corrections (2), root, division, epsilon, weight decay (2), step (2).
constexpr double kAdamFlop = 16;

// Distributed Shampoo (arXiv:2309.06497) splits large dimensions into blocks of at most this many rows or columns.
constexpr double kShampooBlock = 1024;
// It recomputes the inverse roots every so many steps.
constexpr double kShampooRootEvery = 100;
// Symmetric eigendecomposition with vectors, 9 n^3 (Golub and Van Loan, Matrix Computations, 8.3), and V f(D) V^T, 2 n^3.
constexpr double kInverseRootFlop = 11;
// Newton-Schulz iterations of Muon (K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024).
constexpr double kMuonIterations = 5;
// 8-bit Adam (arXiv:2110.02861): two moments of one byte, each with an fp32 scale per block of 2048.
constexpr double kAdam8bitBytes = 2 * (1 + 4.0 / 2048);

Work work_of(const MatMul& op) {
  Work w;
  const double mn = d(op.batch) * d(op.m) * d(op.n);
  const double mk = d(op.batch) * d(op.m) * d(op.k);
  const double kn = d(op.batch) * d(op.k) * d(op.n);
  w.product = Flop{2 * mn * d(op.k)};
  w.read[at(Role::kActivation)] = mk;
  if (op.writes_gradient) {
    // A is the transposed input (K,M), B the output gradient (M,N); m, n, k are those of this product.
    w.read[at(Role::kActivation)] += kn;
    w.written[at(Role::kGradient)] = mn;
    if (op.bias) {
      w.written[at(Role::kGradient)] += d(op.batch) * d(op.n);
      w.vector = Flop{kn};
    }
    return w;
  }
  w.read[at(op.weight ? Role::kWeight : op.cached ? Role::kKvCache : Role::kActivation)] += kn;
  if (op.bias) {
    w.read[at(Role::kWeight)] += d(op.batch) * d(op.n);
    w.vector = Flop{mn};
  }
  w.written[at(Role::kActivation)] = mn;
  return w;
}

Work work_of(const GroupedMatMul& op) {
  Work w;
  const double rows = d(op.tokens) * d(op.top_k);
  const double hit = expected_experts_hit(d(op.tokens), d(op.experts), d(op.top_k));
  const double matrices = hit * d(op.n) * d(op.k) + (op.bias ? hit * d(op.n) : 0);
  w.product = Flop{2 * rows * d(op.n) * d(op.k)};
  if (op.bias) w.vector = Flop{rows * d(op.n)};
  w.read[at(Role::kActivation)] = rows * d(op.k);
  if (op.writes_gradient) {
    w.read[at(Role::kActivation)] += rows * d(op.n);
    w.written[at(Role::kGradient)] = matrices;
  } else {
    w.read[at(Role::kWeight)] = matrices;
    w.written[at(Role::kActivation)] = rows * d(op.n);
  }
  return w;
}

Work work_of(const Attention& op) {
  Work w;
  const double scores = d(op.batch) * d(op.heads) * attended_pairs(op);
  const double queries = d(op.batch) * d(op.q_tokens) * d(op.heads);
  const double positions = d(op.batch) * attended_positions(op) * d(op.kv_heads);
  const double kv = positions * (op.latent ? d(op.head_dim) : d(op.head_dim) + d(op.value_dim));
  const Role kv_role = op.cached ? Role::kKvCache : Role::kActivation;
  w.exponentials = scores;
  if (!op.backward) {
    w.product = Flop{2 * scores * (d(op.head_dim) + d(op.value_dim))};
    w.vector = Flop{kSoftmaxFlop * scores};
    w.read[at(Role::kActivation)] = queries * d(op.head_dim);
    w.read[at(kv_role)] += kv;
    w.written[at(Role::kActivation)] = queries * d(op.value_dim);
    return w;
  }
  // Scores again (QK^T), then dP = dO V^T, dV = P^T dO, dQ = dS K, dK = dS^T Q: 2.5 times the forward products at equal sizes.
  w.product = Flop{2 * scores * (3 * d(op.head_dim) + 2 * d(op.value_dim))};
  w.vector = Flop{2 * kSoftmaxFlop * scores};
  w.read[at(Role::kActivation)] = queries * (d(op.head_dim) + 2 * d(op.value_dim));  // Q, O, dO
  w.read[at(kv_role)] += kv;
  w.written[at(Role::kActivation)] = queries * d(op.head_dim) + kv;  // dQ; dK, dV
  return w;
}

Work work_of(const Norm& op) {
  Work w;
  const double values = d(op.rows) * d(op.width);
  const double parameters = op.kind == NormKind::kRms ? d(op.width) : 2 * d(op.width);
  const double flop = (op.kind == NormKind::kRms ? kRmsNormFlop : kLayerNormFlop) + (op.residual ? 1 : 0);
  w.vector = Flop{(op.backward ? 2 : 1) * flop * values};
  w.read[at(Role::kWeight)] = parameters;
  w.read[at(Role::kActivation)] = (op.residual ? 2 : 1) * values;
  w.written[at(Role::kActivation)] = (op.residual ? 2 : 1) * values;
  if (op.backward) {
    // Input and output gradient, with a residual also the gradient that bypassed the norm; writes one input gradient.
    w.read[at(Role::kActivation)] = (op.residual ? 3 : 2) * values;
    w.written[at(Role::kActivation)] = values;
    w.written[at(Role::kGradient)] = parameters;
  }
  return w;
}

struct ElementwiseCost {
  double flop, exponentials, backward_read, backward_written, backward_flop, backward_exponentials;
};
// Backward reads are of tensors of (rows, width): the output gradient, and what the derivative needs.
ElementwiseCost elementwise_cost(const Elementwise& op) {
  switch (op.kind) {
    case ElementwiseKind::kAdd:
      return {d(op.inputs) - 1, 0, d(op.inputs), 1, d(op.inputs) - 1, 0};
    case ElementwiseKind::kBias:
      return {1, 0, 1, 0, 1, 0};  // backward: column sums
    // SiLU x/(1+exp(-x)) or GELU: one exponential (or tanh, erf), a division, a few products.
    case ElementwiseKind::kActivation:
      return {4, 1, 2, 1, 8, 1};
    case ElementwiseKind::kGatedActivation:
      return {5, 1, 3, 2, 11, 1};
    case ElementwiseKind::kRope:
      return {3, 0, 1, 1, 3, 0};  // a cos - b sin, both from a table
    case ElementwiseKind::kScale:
      return {1, 0, 1, 1, 1, 0};
    case ElementwiseKind::kSoftcap:
      return {2, 1, 2, 1, 3, 0};  // c tanh(x/c); derivative 1 - (y/c)^2
    case ElementwiseKind::kDropout:
      return {2, 0, 1.5, 1, 2, 0};  // the mask takes one byte per value: half a 16-bit value
    case ElementwiseKind::kCopy:
      return {0, 0, 1, 1, 0, 0};
    case ElementwiseKind::kRelu:
      return {1, 0, 2, 1, 1, 0};
  }
  return {};
}

Work work_of(const Elementwise& op) {
  Work w;
  const double values = d(op.rows) * d(op.width);
  const ElementwiseCost cost = elementwise_cost(op);
  if (op.backward) {
    w.vector = Flop{cost.backward_flop * values};
    w.exponentials = cost.backward_exponentials * values;
    w.read[at(Role::kActivation)] = cost.backward_read * values;
    w.written[at(Role::kActivation)] = cost.backward_written * values;
    if (op.kind == ElementwiseKind::kBias) w.written[at(Role::kGradient)] = d(op.width);
    return w;
  }
  w.vector = Flop{cost.flop * values};
  w.exponentials = cost.exponentials * values;
  w.read[at(Role::kActivation)] = d(op.inputs) * values;
  w.written[at(Role::kActivation)] = (op.kind == ElementwiseKind::kDropout ? 1.5 : 1) * values;
  if (op.kind == ElementwiseKind::kBias) w.read[at(Role::kWeight)] = d(op.width);
  return w;
}

Work work_of(const Softmax& op) {
  Work w;
  const double values = d(op.rows) * d(op.width);
  w.vector = Flop{kSoftmaxFlop * values};
  w.exponentials = op.backward ? 0 : values;  // backward: y (dy - sum(y dy))
  w.read[at(Role::kActivation)] = (op.backward ? 2 : 1) * values;
  w.written[at(Role::kActivation)] = values;
  return w;
}

Work work_of(const Embedding& op) {
  Work w;
  w.read[at(Role::kInput)] = d(op.tokens);
  if (op.backward) {
    // Dense gradient of the whole table, as frameworks keep it for tied or optimizer-owned embeddings.
    w.read[at(Role::kActivation)] = d(op.tokens) * d(op.width);
    w.written[at(Role::kGradient)] = d(op.vocabulary) * d(op.width);
    w.vector = Flop{d(op.tokens) * d(op.width)};
  } else {
    w.read[at(Role::kWeight)] = std::min(d(op.tokens), d(op.vocabulary)) * d(op.width);
    w.written[at(Role::kActivation)] = d(op.tokens) * d(op.width);
  }
  return w;
}

Work work_of(const EmbeddingBag& op) {
  Work w;
  const double lookups = d(op.batch) * d(op.tables) * d(op.lookups_per_table);
  const double rows = std::min(lookups, d(op.total_rows));
  const double pooled = d(op.batch) * d(op.tables) * d(op.width);
  w.read[at(Role::kInput)] = lookups;
  if (op.backward) {
    w.read[at(Role::kActivation)] = pooled;
    w.written[at(Role::kGradient)] = rows * d(op.width);  // only rows that were looked up
    w.vector = Flop{lookups * d(op.width)};
  } else {
    w.read[at(Role::kWeight)] = rows * d(op.width);
    w.written[at(Role::kActivation)] = pooled;
    w.vector = Flop{(lookups - d(op.batch) * d(op.tables)) * d(op.width)};
  }
  return w;
}

Work work_of(const Convolution& op) {
  Work w;
  const double kernel = d(op.kernel_height) * d(op.kernel_width) * d(op.in_channels) * d(op.out_channels) / d(op.groups);
  const double in = d(op.batch) * d(op.in_channels) * d(op.in_height) * d(op.in_width);
  const double out = d(op.batch) * d(op.out_channels) * d(op.out_height) * d(op.out_width);
  const double pixels = d(op.batch) * (op.transposed ? d(op.in_height) * d(op.in_width) : d(op.out_height) * d(op.out_width));
  const double bias = op.bias ? d(op.out_channels) : 0;
  w.product = Flop{2 * pixels * kernel};
  if (op.bias) w.vector = Flop{out};
  w.read[at(Role::kActivation)] = in;
  if (op.writes_gradient) {
    w.read[at(Role::kActivation)] += out;
    w.written[at(Role::kGradient)] = kernel + bias;
  } else {
    w.read[at(Role::kWeight)] = kernel + bias;
    w.written[at(Role::kActivation)] = out;
  }
  return w;
}

Work work_of(const Pool& op) {
  Work w;
  const double in = d(op.batch) * d(op.channels) * d(op.in_pixels);
  const double out = d(op.batch) * d(op.channels) * d(op.out_pixels);
  w.vector = Flop{in};
  w.read[at(Role::kActivation)] = op.backward ? out : in;
  w.written[at(Role::kActivation)] = op.backward ? in : out;
  return w;
}

Work work_of(const CacheWrite& op) {
  Work w;
  w.read[at(Role::kActivation)] = d(op.tokens) * (d(op.width) + d(op.rope_query));
  w.written[at(Role::kKvCache)] = d(op.tokens) * d(op.width);
  if (op.rope_query > 0) {
    w.written[at(Role::kActivation)] = d(op.tokens) * d(op.rope_query);
    // Keys are half of what is written.
    w.vector = Flop{3 * d(op.tokens) * (d(op.rope_query) + d(op.width) / 2)};
  }
  return w;
}

Work work_of(const Route& op) {
  Work w;
  const double choices = d(op.tokens) * d(op.experts);
  const double row = d(op.tokens) * d(op.width);
  const double spread = row * d(op.top_k);
  // Combining: top_k weighted rows to one. Permuting (unless gathered): one row to top_k places. The backward pass does the
  // same in the other direction.
  w.exponentials = op.backward ? 0 : choices;
  w.vector = Flop{kSoftmaxFlop * choices + 2 * spread};
  w.read[at(Role::kActivation)] = choices + spread + (op.gathered ? 0 : row);
  w.written[at(Role::kActivation)] = 2 * d(op.tokens) * d(op.top_k) + row + (op.gathered ? 0 : spread);
  if (op.backward) w.written[at(Role::kActivation)] += choices;
  return w;
}

Work work_of(const CrossEntropy& op) {
  Work w;
  const double logits = d(op.tokens) * d(op.vocabulary);
  w.read[at(Role::kActivation)] = logits;
  w.read[at(Role::kInput)] = d(op.tokens);
  w.exponentials = logits;
  w.vector = Flop{(op.backward ? 2 : 3) * logits};
  // Forward: loss and log-sum-exp per token. Backward: softmax(x) - onehot.
  w.written[at(Role::kActivation)] = op.backward ? logits : 2 * d(op.tokens);
  return w;
}

double shampoo_block(std::int64_t extent) { return std::max(1.0, std::min(d(extent), kShampooBlock)); }

bool is_matrix(const OptimizerStep& op) { return op.rows > 1 && op.columns > 1; }

Work work_of(const OptimizerStep& op) {
  Work w;
  const double p = op.parameters;
  double flop = kAdamFlop;
  double product = 0;  // per parameter
  switch (op.kind) {
    case OptimizerKind::kSgd:
      flop = 4;
      break;  // weight decay, step
    case OptimizerKind::kSgdMomentum:
      flop = 6;
      break;  // and the momentum
    case OptimizerKind::kAdam:
      break;
    case OptimizerKind::kAdam8bit:
      flop = kAdamFlop + 8;
      break;  // dequantise, quantise, block maxima
    case OptimizerKind::kAdafactor:
      flop = 14;
      break;  // squares, row and column means, their product, root, clipping, step
    case OptimizerKind::kShampoo:
      if (is_matrix(op)) {
        const double r = shampoo_block(op.rows);
        const double c = shampoo_block(op.columns);
        // Per block of r x c: L += G G^T and R += G^T G, then L^(-1/4) G R^(-1/4): 4 r^2 c + 4 r c^2; roots now and then.
        product = 4 * (r + c) + kInverseRootFlop * (r * r / c + c * c / r) / kShampooRootEvery;
        flop = kAdamFlop + 4;  // grafting to Adam's step length
      }
      break;
    case OptimizerKind::kMuon:
      if (is_matrix(op)) {
        const double m = d(std::min(op.rows, op.columns));
        const double n = d(std::max(op.rows, op.columns));
        // Per iteration A = X X^T, B = b A + c A A, X = a X + B X: 4 m^2 n + 2 m^3 for an m x n matrix.
        product = kMuonIterations * (4 * m + 2 * m * m / n);
        flop = 10;
      }
      break;
    case OptimizerKind::kCount:
      ROOFTREE_CHECK(false, "not an optimizer");
      break;
  }
  w.product = Flop{product * p};
  w.vector = Flop{flop * p};
  const bool rooted = op.kind != OptimizerKind::kSgd && op.kind != OptimizerKind::kSgdMomentum && product == 0;
  w.exponentials = rooted ? p : 0;  // square roots share the special-function units
  w.read[at(Role::kGradient)] = p;
  if (!op.master_copy) w.read[at(Role::kWeight)] = p;
  w.written[at(Role::kWeight)] = p;
  const double state = optimizer_state_bytes_per_parameter(op, op.master_copy) / 4 * p;
  w.read[at(Role::kOptimizerState)] = state;
  w.written[at(Role::kOptimizerState)] = state;
  return w;
}

}  // namespace

std::string_view name(Role role) {
  constexpr std::array<std::string_view, kRoleCount> kNames = {"weight",          "activation", "kv_cache", "gradient",
                                                               "optimizer_state", "input",      "output"};
  return kNames[at(role)];
}

std::string_view name(OperatorKind kind) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(OperatorKind::kCount)> kNames = {
      "matmul",        "grouped_matmul", "attention", "norm",        "elementwise", "softmax",       "embedding",
      "embedding_bag", "convolution",    "pool",      "cache_write", "route",       "cross_entropy", "optimizer_step"};
  static_assert(kNames.size() == std::variant_size_v<Operator>);
  return kNames[static_cast<std::size_t>(kind)];
}

std::string_view name(OptimizerKind kind) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(OptimizerKind::kCount)> kNames = {
      "sgd", "sgd-momentum", "adam", "adam-8bit", "adafactor", "shampoo", "muon"};
  return kNames[static_cast<std::size_t>(kind)];
}

Work work(const Operator& op) {
  return std::visit([](const auto& o) { return work_of(o); }, op);
}

double expected_experts_hit(double tokens, double experts, double top_k) {
  if (top_k >= experts) return tokens > 0 ? experts : 0;
  if (tokens == 1) return top_k;
  // experts (1 - (1 - top_k/experts)^tokens), without cancellation for few tokens.
  return -experts * std::expm1(tokens * std::log1p(-top_k / experts));
}

double attended_pairs(const Attention& a) {
  const double q = d(a.q_tokens);
  const double kv = d(a.kv_tokens);
  const double past = kv - q;
  if (!a.causal) return q * (a.window > 0 ? std::min(kv, d(a.window)) : kv);
  if (a.chunk > 0 && kv > d(a.chunk)) {
    // Position t attends to t mod c + 1 keys; F(n) sums them over t < n.
    const std::int64_t c = a.chunk;
    const auto prefix = [c](std::int64_t n) {
      const double whole = d(n / c);
      const double rest = d(n % c);
      return whole * d(c) * (d(c) + 1) / 2 + rest * (rest + 1) / 2;
    };
    return prefix(a.kv_tokens) - prefix(a.kv_tokens - a.q_tokens);
  }
  const double w = a.window > 0 ? d(a.window) : kv;
  // Query i = 1..q attends to min(w, past + i) keys; `ramp` of them to fewer than w.
  const double ramp = std::clamp(w - past, 0.0, q);
  return ramp * past + ramp * (ramp + 1) / 2 + (q - ramp) * w;
}

double attended_positions(const Attention& a) {
  const double kv = d(a.kv_tokens);
  if (a.chunk > 0) {
    const std::int64_t first_query = a.kv_tokens - a.q_tokens;
    return kv - d(first_query / a.chunk * a.chunk);
  }
  if (a.window > 0 && a.causal) return std::min(kv, d(a.q_tokens) + d(a.window) - 1);
  return kv;
}

double optimizer_state_bytes_per_parameter(const OptimizerStep& step, bool master_copy) {
  const double master = master_copy ? 4 : 0;
  const double r = d(step.rows);
  const double c = d(step.columns);
  switch (step.kind) {
    case OptimizerKind::kSgd:
      return master;
    case OptimizerKind::kSgdMomentum:
      return master + 4;
    case OptimizerKind::kAdam:
      return master + 8;  // two fp32 moments, arXiv:1412.6980
    case OptimizerKind::kAdam8bit:
      return master + kAdam8bitBytes;
    case OptimizerKind::kAdafactor:
      // arXiv:1804.04235: row and column means of squares instead of a second moment, no momentum; vectors keep theirs whole.
      return master + (is_matrix(step) ? 4 * (r + c) / (r * c) : 4);
    case OptimizerKind::kShampoo:
      // arXiv:1802.09568 with arXiv:2309.06497: two statistics and their inverse roots per block, plus the grafted Adam
      // moments.
      if (is_matrix(step)) {
        const double br = shampoo_block(step.rows);
        const double bc = shampoo_block(step.columns);
        return master + 8 + 8 * (br * br + bc * bc) / (br * bc);
      }
      return master + 8;
    case OptimizerKind::kMuon:
      return master + (is_matrix(step) ? 4 : 8);  // one momentum; vectors are left to Adam
    case OptimizerKind::kCount:
      break;
  }
  ROOFTREE_CHECK(false, "not an optimizer");
  return 0;
}

namespace {

void push(BackwardOperators& out, const Operator& op) {
  out.operators[static_cast<std::size_t>(out.count)] = op;
  ++out.count;
}

struct BackwardVisitor {
  BackwardOperators out;

  void operator()(const MatMul& op) {
    if (op.writes_gradient) return;
    MatMul input = op;  // dA = dC B^T
    input.n = op.k;
    input.k = op.n;
    input.bias = false;
    push(out, input);
    MatMul other = op;  // dB = A^T dC
    other.m = op.k;
    other.n = op.n;
    other.k = op.m;
    other.weight = false;
    other.cached = false;
    other.writes_gradient = op.weight;
    push(out, other);
  }
  void operator()(const GroupedMatMul& op) {
    if (op.writes_gradient) return;
    GroupedMatMul input = op;
    input.n = op.k;
    input.k = op.n;
    input.bias = false;
    push(out, input);
    GroupedMatMul weight = op;
    weight.writes_gradient = true;
    push(out, weight);
  }
  void operator()(const Convolution& op) {
    if (op.writes_gradient) return;
    Convolution input = op;
    input.in_channels = op.out_channels;
    input.out_channels = op.in_channels;
    input.in_height = op.out_height;
    input.in_width = op.out_width;
    input.out_height = op.in_height;
    input.out_width = op.in_width;
    input.bias = false;
    input.transposed = !op.transposed;
    push(out, input);
    Convolution weight = op;
    weight.writes_gradient = true;
    push(out, weight);
  }
  void operator()(const Attention& op) { push_backward(op); }
  void operator()(const Norm& op) { push_backward(op); }
  void operator()(const Elementwise& op) { push_backward(op); }
  void operator()(const Softmax& op) { push_backward(op); }
  void operator()(const Embedding& op) { push_backward(op); }
  void operator()(const EmbeddingBag& op) { push_backward(op); }
  void operator()(const Pool& op) { push_backward(op); }
  void operator()(const Route& op) { push_backward(op); }
  void operator()(const CrossEntropy& op) { push_backward(op); }
  void operator()(const CacheWrite&) {}
  void operator()(const OptimizerStep&) {}

 private:
  template <class Op>
  void push_backward(Op op) {
    if (op.backward) return;
    op.backward = true;
    push(out, op);
  }
};

}  // namespace

BackwardOperators backward_operators(const Operator& op) {
  BackwardVisitor visitor;
  std::visit(visitor, op);
  return visitor.out;
}

std::vector<Operator> backward(const Operator& op) {
  const BackwardOperators all = backward_operators(op);
  return {all.operators.begin(), all.operators.begin() + all.count};
}

}  // namespace rooftree::model

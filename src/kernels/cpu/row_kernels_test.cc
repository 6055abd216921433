// Accuracy of the contract's functions against libm in binary64, row operators against the reference backend, and equal bits on
// every instruction set of the machine.

#include "kernels/cpu/row_kernels.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/kernel_test_support.h"

namespace rooftree::kernels::cpu {
namespace {

using test::instruction_sets;
using test::label;
using test::same_bits;
using test::Values;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double ulps(float y, double exact) {
  const auto rounded = static_cast<float>(exact);
  const double ulp =
      static_cast<double>(std::nextafter(std::fabs(rounded), kInfinity)) - std::fabs(static_cast<double>(rounded));
  return std::fabs(static_cast<double>(y) - exact) / ulp;
}

using Function = void (*)(const float*, float*, std::int64_t);

std::vector<float> mapped(Function function, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  function(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  return y;
}

// All binades of interest, both signs, and values around the borders of the pieces.
std::vector<float> sweep(float low, float high, int n) {
  std::vector<float> x;
  for (int i = 0; i <= n; ++i) x.push_back(low + (high - low) * static_cast<float>(i) / static_cast<float>(n));
  for (int exponent = -40; exponent <= 3; ++exponent) {
    for (const float m : {1.0F, 1.37F, 1.99F}) {
      const float v = std::ldexp(m, exponent);
      if (v <= high) x.push_back(v);
      if (-v >= low) x.push_back(-v);
    }
  }
  return x;
}

double largest_error(Function function, double (*exact)(double), const std::vector<float>& x) {
  const std::vector<float> y = mapped(function, x);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, ulps(y[i], exact(static_cast<double>(x[i]))));
  return worst;
}

TEST(ContractMath, AccuracyAgainstLibm) {
  const MathFunctions& math = math_functions(detected_cpu_features());
  EXPECT_LE(largest_error(
                math.exp, [](double x) { return std::exp(x); }, sweep(-87.3F, 88.7F, 400'000)),
            2.0);
  EXPECT_LE(largest_error(
                math.exp, [](double x) { return std::exp(x); }, sweep(-1.0F, 1.0F, 400'000)),
            2.0);
  EXPECT_LE(largest_error(
                math.tanh, [](double x) { return std::tanh(x); }, sweep(-10.0F, 10.0F, 400'000)),
            4.0);
  EXPECT_LE(largest_error(
                math.erf, [](double x) { return std::erf(x); }, sweep(-5.0F, 5.0F, 400'000)),
            4.0);
  EXPECT_LE(largest_error(
                math.sigmoid, [](double x) { return 1.0 / (1.0 + std::exp(-x)); }, sweep(-80.0F, 80.0F, 400'000)),
            4.0);
}

TEST(ContractMath, EdgeCases) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x{0.0F,   -0.0F,    kInfinity, -kInfinity, nan,      1e30F,
                             -1e30F, 88.7228F, 88.73F,    -87.33F,    -87.331F, 1e-40F};
  for (const CpuFeatures& set : instruction_sets()) {
    SCOPED_TRACE(label(set));
    const MathFunctions& math = math_functions(set);
    const std::vector<float> e = mapped(math.exp, x);
    EXPECT_EQ(e[0], 1.0F);
    EXPECT_EQ(e[1], 1.0F);
    EXPECT_EQ(e[2], kInfinity);
    EXPECT_EQ(e[3], 0.0F);
    EXPECT_TRUE(std::isnan(e[4]));
    EXPECT_EQ(e[5], kInfinity);
    EXPECT_EQ(e[6], 0.0F);
    EXPECT_LT(e[7], kInfinity);
    EXPECT_EQ(e[8], kInfinity);
    EXPECT_GT(e[9], 0.0F);
    EXPECT_EQ(e[10], 0.0F);
    EXPECT_EQ(e[11], 1.0F);
    const std::vector<float> t = mapped(math.tanh, x);
    EXPECT_EQ(t[0], 0.0F);
    EXPECT_TRUE(std::signbit(t[1]));
    EXPECT_EQ(t[2], 1.0F);
    EXPECT_EQ(t[3], -1.0F);
    EXPECT_TRUE(std::isnan(t[4]));
    EXPECT_EQ(t[5], 1.0F);
    const std::vector<float> f = mapped(math.erf, x);
    EXPECT_EQ(f[0], 0.0F);
    EXPECT_TRUE(std::signbit(f[1]));
    EXPECT_EQ(f[2], 1.0F);
    EXPECT_EQ(f[3], -1.0F);
    EXPECT_TRUE(std::isnan(f[4]));
    const std::vector<float> s = mapped(math.sigmoid, x);
    EXPECT_EQ(s[0], 0.5F);
    EXPECT_EQ(s[2], 1.0F);
    EXPECT_EQ(s[3], 0.0F);
    EXPECT_TRUE(std::isnan(s[4]));
    const std::vector<float> b =
        mapped(math.round_bf16, {1.0F, 0x1.01p0F, 0x1.03p0F, 0x1.0101p0F, 0x1p-55F, 0x1.fep-56F, -0x1.ffp-56F, 0.0F});
    EXPECT_EQ(b, (std::vector<float>{1.0F, 1.0F, 0x1.04p0F, 0x1.02p0F, 0x1p-55F, 0.0F, -0x1p-55F, 0.0F}));
    const std::vector<float> h = mapped(
        math.round_f16, {1.0F, 0x1.002p0F, 0x1.006p0F, 70000.0F, -kInfinity, 0x1p-24F, 0x1p-25F, 0x1.8p-24F, 0x1.ffep-15F});
    EXPECT_EQ(h, (std::vector<float>{1.0F, 1.0F, 0x1.008p0F, 65504.0F, -65504.0F, 0x1p-24F, 0.0F, 0x1p-23F, 0x1p-14F}));
  }
}

TEST(ContractMath, RotationAgainstLibm) {
  Values values(7);
  std::vector<double> angles{0.0, 0.5, 1.0, 0.78539816339744828, 1.5707963267948966, 3.1415926535897931, -2.0};
  for (int i = 0; i < 20'000; ++i) angles.push_back(static_cast<double>(values.next()) * std::ldexp(1.0, i % 24));
  const auto n = static_cast<std::int64_t>(angles.size());
  std::vector<float> expected_c, expected_s;
  for (const CpuFeatures& set : instruction_sets()) {
    SCOPED_TRACE(label(set));
    std::vector<float> c(angles.size()), s(angles.size());
    math_functions(set).rotation(angles.data(), c.data(), s.data(), n);
    for (std::size_t i = 0; i < angles.size(); ++i) {
      // Half an ulp from rounding once; 1e-12 is what a reduction to 2^-40 could lose near a zero.
      ASSERT_NEAR(static_cast<double>(c[i]), std::cos(angles[i]), std::fabs(std::cos(angles[i])) * 0x1.01p-24 + 1e-12)
          << angles[i];
      ASSERT_NEAR(static_cast<double>(s[i]), std::sin(angles[i]), std::fabs(std::sin(angles[i])) * 0x1.01p-24 + 1e-12)
          << angles[i];
    }
    if (expected_c.empty()) expected_c = c, expected_s = s;
    EXPECT_TRUE(same_bits(c, expected_c) && same_bits(s, expected_s));
  }
}

TEST(ContractMath, FunctionsHaveEqualBitsEverywhere) {
  Values values(11);
  std::vector<float> x;
  for (int i = 0; i < 100'003; ++i) {  // random bit patterns without NaN: payloads are nobody's contract
    const auto v = std::bit_cast<float>(static_cast<std::uint32_t>(values.bits()));
    x.push_back(std::isnan(v) ? 0.5F : v);
    x.push_back(values.next(100.0F));
  }
  const MathFunctions& first = math_functions(instruction_sets().front());
  for (const CpuFeatures& set : instruction_sets()) {
    SCOPED_TRACE(label(set));
    const MathFunctions& math = math_functions(set);
    EXPECT_TRUE(same_bits(mapped(math.exp, x), mapped(first.exp, x)));
    EXPECT_TRUE(same_bits(mapped(math.tanh, x), mapped(first.tanh, x)));
    EXPECT_TRUE(same_bits(mapped(math.sigmoid, x), mapped(first.sigmoid, x)));
    EXPECT_TRUE(same_bits(mapped(math.erf, x), mapped(first.erf, x)));
    EXPECT_TRUE(same_bits(mapped(math.round_bf16, x), mapped(first.round_bf16, x)));
    EXPECT_TRUE(same_bits(mapped(math.round_f16, x), mapped(first.round_f16, x)));
  }
}

// The order of a row's sum, written as the contract says it.
TEST(ContractMath, SumIsOfThirtyTwoChains) {
  Values values(3);
  for (const std::int64_t n : {0, 1, 15, 16, 17, 31, 32, 33, 48, 63, 100, 2048, 2049}) {
    const std::vector<float> x = values.row(n, 3.0F);
    std::array<float, 32> chains{};
    for (std::int64_t i = 0; i < n; ++i) chains[static_cast<std::size_t>(i % 32)] += x[static_cast<std::size_t>(i)];
    for (std::size_t half = 16; half > 0; half /= 2) {
      for (std::size_t j = 0; j < half; ++j) chains[j] += chains[j + half];
    }
    for (const CpuFeatures& set : instruction_sets())
      EXPECT_EQ(math_functions(set).sum(x.data(), n), chains[0]) << label(set) << n;
  }
}

// Runs `kernel` with the row kernels of every set, checks equal bits, and returns the result.
std::vector<float> on_all_sets(const std::function<std::vector<float>(const RowKernels&)>& run) {
  const std::vector<float> first = run(row_kernels(instruction_sets().front()));
  for (const CpuFeatures& set : instruction_sets()) EXPECT_TRUE(same_bits(run(row_kernels(set)), first)) << label(set);
  return first;
}

void on_reference(const std::function<void(const Backend&, const Worker&)>& body) {
  ThreadPool pool({.threads = 1, .pin = false});
  pool.run([&](const Worker& worker) { body(reference_backend(), worker); });
}

void expect_close(const std::vector<float>& y, const std::vector<float>& exact, double relative, double absolute) {
  ASSERT_EQ(y.size(), exact.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(y[i]), static_cast<double>(exact[i]),
                std::fabs(static_cast<double>(exact[i])) * relative + absolute)
        << "at " << i;
  }
}

constexpr std::array<std::int64_t, 9> kWidths{1, 7, 16, 17, 31, 32, 48, 65, 2048};

TEST(RowKernels, NormAgainstReference) {
  Values values(21);
  for (const model::NormKind kind : {model::NormKind::kRms, model::NormKind::kLayer}) {
    for (const std::int64_t width : kWidths) {
      for (const bool residual : {false, true}) {
        for (const bool parameters : {false, true}) {
          SCOPED_TRACE(testing::Message() << static_cast<int>(kind) << " width " << width << " residual " << residual);
          const std::int64_t rows = 3, stride = width + 5;
          std::vector<float> x = values.row(rows * stride, 2.0F), delta = values.row(rows * stride);
          for (float& v : x) v += 0.75F;
          const std::vector<float> weight = values.row(width), bias = values.row(width);
          const auto arguments = [&](std::vector<float>& sum, std::vector<float>& y) {
            NormArgs args{
                .kind = kind, .rows = rows, .width = width, .x = {x.data(), stride}, .epsilon = 1e-5F, .y = {y.data(), width}};
            if (residual) args.delta = {delta.data(), stride}, args.delta_scale = 0.5F, args.sum = {sum.data(), width};
            if (parameters) args.weight = weight.data(), args.bias = bias.data();
            return args;
          };
          const auto size = static_cast<std::size_t>(rows * width);
          const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
            std::vector<float> sum(size), y(size);
            kernels.norm(arguments(sum, y), {0, 1});
            kernels.norm(arguments(sum, y), {1, rows});
            y.insert(y.end(), sum.begin(), sum.end());
            return y;
          });
          std::vector<float> sum(size), y(size);
          on_reference([&](const Backend& backend, const Worker& worker) { backend.norm(worker, arguments(sum, y)); });
          y.insert(y.end(), sum.begin(), sum.end());
          // A width of one divides rounding noise by the root of epsilon in a layer norm.
          expect_close(got, y, 1e-5, kind == model::NormKind::kLayer ? 3e-5 : 1e-6);
        }
      }
    }
  }
}

TEST(RowKernels, NormMayOverwriteItsInput) {
  Values values(22);
  const std::vector<float> start = values.row(70), delta = values.row(70);
  on_all_sets([&](const RowKernels& kernels) {
    std::vector<float> apart(70), y(70), x = start, y2(70);
    kernels.norm({.rows = 1,
                  .width = 70,
                  .x = {start.data(), 70},
                  .delta = {delta.data(), 70},
                  .sum = {apart.data(), 70},
                  .epsilon = 1e-6F,
                  .y = {y.data(), 70}},
                 {0, 1});
    kernels.norm({.rows = 1,
                  .width = 70,
                  .x = {x.data(), 70},
                  .delta = {delta.data(), 70},
                  .sum = {x.data(), 70},
                  .epsilon = 1e-6F,
                  .y = {y2.data(), 70}},
                 {0, 1});
    EXPECT_EQ(x, apart);
    EXPECT_EQ(y, y2);
    return y;
  });
}

TEST(RowKernels, RopeAgainstReference) {
  Values values(31);
  for (const model::RopePairing pairing : {model::RopePairing::kNeighbours, model::RopePairing::kHalves}) {
    for (const std::array<std::int64_t, 3>& head : std::vector<std::array<std::int64_t, 3>>{
             {64, 64, 0}, {128, 128, 0}, {96, 32, 0}, {192, 64, 128}, {20, 20, 0}, {10, 6, 2}, {256, 256, 0}, {8, 0, 0}}) {
      const std::int64_t head_dim = head[0], dims = head[1], offset = head[2];
      SCOPED_TRACE(testing::Message() << "dims " << dims << " of " << head_dim);
      model::Rope rope{.dims = dims, .offset = offset, .pairing = pairing, .magnitude = 1.25F};
      for (std::int64_t i = 0; i < dims / 2; ++i) {
        rope.inverse_frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dims)));
      }
      const std::int64_t rows = 4, heads = 3, stride = heads * head_dim + 3;
      const std::vector<std::int32_t> positions{0, 1, 4095, 1'000'003};
      const std::vector<float> start = values.row(rows * stride);
      const auto arguments = [&](std::vector<float>& x) {
        return RopeArgs{
            .rope = &rope, .rows = rows, .heads = heads, .head_dim = head_dim, .x = {x.data(), stride}, .positions = positions};
      };
      const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
        std::vector<float> x = start;
        kernels.rope(arguments(x), {0, 2});
        kernels.rope(arguments(x), {2, 4});
        return x;
      });
      std::vector<float> x = start;
      on_reference([&](const Backend& backend, const Worker& worker) { backend.rope(worker, arguments(x)); });
      expect_close(got, x, 1e-6, 5e-7);
    }
  }
}

TEST(RowKernels, ActivationsAgainstReference) {
  Values values(41);
  using model::Activation;
  for (const Activation kind : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu,
                                Activation::kReluSquared, Activation::kSwigluClamped}) {
    for (const bool gated : {false, true}) {
      for (const std::int64_t width : kWidths) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(kind) << " gated " << gated << " width " << width);
        const std::vector<float> x = values.row(2 * width, 12.0F), up = values.row(2 * width, 9.0F);
        const auto arguments = [&](std::vector<float>& y) {
          ActivationArgs args{.activation = kind, .rows = 2, .width = width, .x = {x.data(), width}, .y = {y.data(), width}};
          if (gated) args.up = {up.data(), width};
          return args;
        };
        const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
          std::vector<float> y(x.size());
          const std::int64_t cut = width / 2;  // columns may be shared between workers anywhere
          kernels.activation(arguments(y), {0, 2}, {0, cut});
          kernels.activation(arguments(y), {0, 2}, {cut, width});
          return y;
        });
        std::vector<float> y(x.size());
        on_reference([&](const Backend& backend, const Worker& worker) { backend.activation(worker, arguments(y)); });
        expect_close(got, y, 4e-6, 2e-5);  // 1 + erf and 1 + tanh cancel on the left: 12 * 9 * 2^-23
      }
    }
  }
}

TEST(RowKernels, AddScaleCombineAgainstReference) {
  Values values(51);
  for (const std::int64_t width : kWidths) {
    const std::vector<float> a = values.row(3 * width), b = values.row(3 * width), c = values.row(3 * width),
                             gate = values.row(3);
    for (const int form : {0, 1, 2}) {
      const auto arguments = [&](std::vector<float>& y) {
        AddArgs args{
            .rows = 3, .width = width, .a = {a.data(), width}, .b = {b.data(), width}, .b_scale = 0.3F, .y = {y.data(), width}};
        if (form > 0) args.c = {c.data(), width};
        if (form > 1) args.gate = {gate.data(), 1};
        return args;
      };
      const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
        std::vector<float> y(a.size());
        kernels.add(arguments(y), {0, 3}, {0, width});
        return y;
      });
      std::vector<float> y(a.size());
      on_reference([&](const Backend& backend, const Worker& worker) { backend.add(worker, arguments(y)); });
      expect_close(got, y, 1e-6, 1e-6);
    }
    for (const float cap : {0.0F, 3.0F}) {
      const auto arguments = [&](std::vector<float>& x) {
        return ScaleArgs{.rows = 3, .width = width, .x = {x.data(), width}, .scale = 5.0F, .softcap = cap};
      };
      const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
        std::vector<float> x = a;
        kernels.scale(arguments(x), {0, 3}, {0, width});
        return x;
      });
      std::vector<float> x = a;
      on_reference([&](const Backend& backend, const Worker& worker) { backend.scale(worker, arguments(x)); });
      expect_close(got, x, 1e-6, 1e-6);
    }
    const std::vector<std::int32_t> where{3, 0, 5, 1, 4, 2};
    const std::vector<float> x = values.row(6 * width), weights = values.row(6);
    const auto arguments = [&](std::vector<float>& y) {
      return CombineArgs{.rows = 3,
                         .width = width,
                         .top_k = 2,
                         .x = {x.data(), width},
                         .where = where.data(),
                         .weights = weights.data(),
                         .y = {y.data(), width}};
    };
    const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
      std::vector<float> y(a.size());
      kernels.combine(arguments(y), {0, 3}, {0, width});
      return y;
    });
    std::vector<float> y(a.size());
    on_reference([&](const Backend& backend, const Worker& worker) { backend.combine(worker, arguments(y)); });
    expect_close(got, y, 1e-6, 1e-6);
  }
}

TEST(RowKernels, RoutingAgainstReference) {
  Values values(61);
  const std::vector<model::Routing> kinds{
      {},
      {.normalise = true},
      {.scoring = model::RouteScoring::kSigmoid,
       .normalise = true,
       .selection_bias = true,
       .weight_scale = 2.5F,
       .groups = 8,
       .chosen_groups = 4},
      {.softmax_over_chosen = true},
      {.weight_scale = 16.0F, .groups = 4, .chosen_groups = 2},
  };
  for (const model::Routing& routing : kinds) {
    for (const std::array<std::int64_t, 2>& size_of :
         std::vector<std::array<std::int64_t, 2>>{{64, 8}, {8, 2}, {256, 8}, {16, 4}}) {
      const std::int64_t experts = size_of[0], top_k = size_of[1];
      const std::int64_t rows = 9;
      const std::vector<float> logits = values.row(rows * experts, 4.0F), bias = values.row(experts, 0.2F);
      const auto size = static_cast<std::size_t>(rows * top_k);
      const auto arguments = [&](std::vector<std::int32_t>& chosen, std::vector<float>& weights) {
        return RouteArgs{.routing = &routing,
                         .rows = rows,
                         .experts = experts,
                         .top_k = top_k,
                         .logits = {logits.data(), experts},
                         .selection_bias = routing.selection_bias ? bias.data() : nullptr,
                         .chosen = chosen.data(),
                         .weights = weights.data()};
      };
      std::vector<std::int32_t> chosen(size);
      const std::vector<float> got = on_all_sets([&](const RowKernels& kernels) {
        std::vector<float> weights(size);
        kernels.route(arguments(chosen, weights), {0, rows});
        return weights;
      });
      std::vector<std::int32_t> expected(size);
      std::vector<float> weights(size);
      on_reference([&](const Backend& backend, const Worker& worker) { backend.route(worker, arguments(expected, weights)); });
      EXPECT_EQ(chosen, expected);
      expect_close(got, weights, 2e-6, 1e-9);
    }
  }
}

TEST(RowKernels, RoutingTiesGoToTheLowerExpert) {
  const model::Routing routing{.normalise = true};
  const std::vector<float> logits{1, 3, 2, 3, 3, 1, 2, 0};
  std::vector<std::int32_t> chosen(4);
  std::vector<float> weights(4);
  for (const CpuFeatures& set : instruction_sets()) {
    row_kernels(set).route({.routing = &routing,
                            .rows = 1,
                            .experts = 8,
                            .top_k = 4,
                            .logits = {logits.data(), 8},
                            .chosen = chosen.data(),
                            .weights = weights.data()},
                           {0, 1});
    EXPECT_EQ(chosen, (std::vector<std::int32_t>{1, 3, 4, 2}));
    EXPECT_EQ(weights[0], weights[2]);
  }
}

TEST(RowKernels, RoutingOfNanStaysInRange) {
  const model::Routing routing;
  const std::vector<float> logits(8, std::numeric_limits<float>::quiet_NaN());
  std::vector<std::int32_t> chosen(3, -1);
  std::vector<float> weights(3);
  for (const CpuFeatures& set : instruction_sets()) {
    row_kernels(set).route({.routing = &routing,
                            .rows = 1,
                            .experts = 8,
                            .top_k = 3,
                            .logits = {logits.data(), 8},
                            .chosen = chosen.data(),
                            .weights = weights.data()},
                           {0, 1});
    EXPECT_EQ(chosen, (std::vector<std::int32_t>{0, 1, 2}));
  }
}

}  // namespace
}  // namespace rooftree::kernels::cpu

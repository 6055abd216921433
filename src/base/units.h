#pragma once

// Physical quantities as types. A Quantity is a double in SI base units (bytes, FLOP, seconds, joules, US dollars) whose
// dimension is part of its type, so that `bytes + flop` does not compile and `bytes / bandwidth` is a time.
// FLOP counts a multiply-add as two; integer operations are counted the same way.

#include <cmath>
#include <compare>

namespace rooftree {

// Exponents of the base units: B bytes, F flop, S seconds, J joules, D dollars.
template <int B, int F, int S, int J, int D>
struct Dimension {};

template <class Dim>
class Quantity;

namespace units_detail {
template <class A, class B, int Sign>
struct Combine;
template <int B1, int F1, int S1, int J1, int D1, int B2, int F2, int S2, int J2, int D2, int Sign>
struct Combine<Dimension<B1, F1, S1, J1, D1>, Dimension<B2, F2, S2, J2, D2>, Sign> {
  using type = Dimension<B1 + Sign * B2, F1 + Sign * F2, S1 + Sign * S2, J1 + Sign * J2, D1 + Sign * D2>;
};
using None = Dimension<0, 0, 0, 0, 0>;

// A dimensionless result is a plain double.
template <class Dim>
struct Lift {
  using type = Quantity<Dim>;
  static constexpr type make(double v) { return type{v}; }
};
template <>
struct Lift<None> {
  using type = double;
  static constexpr double make(double v) { return v; }
};
}  // namespace units_detail

template <class Dim>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(double value) : value_(value) {}

  // The raw number in SI base units; for printing and for the inside of hot loops only.
  [[nodiscard]] constexpr double value() const { return value_; }

  constexpr Quantity& operator+=(Quantity o) {
    value_ += o.value_;
    return *this;
  }
  constexpr Quantity& operator-=(Quantity o) {
    value_ -= o.value_;
    return *this;
  }
  constexpr Quantity& operator*=(double f) {
    value_ *= f;
    return *this;
  }
  constexpr Quantity& operator/=(double f) {
    value_ /= f;
    return *this;
  }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return Quantity{a.value_ + b.value_}; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return Quantity{a.value_ - b.value_}; }
  friend constexpr Quantity operator-(Quantity a) { return Quantity{-a.value_}; }
  friend constexpr Quantity operator*(Quantity a, double f) { return Quantity{a.value_ * f}; }
  friend constexpr Quantity operator*(double f, Quantity a) { return Quantity{a.value_ * f}; }
  friend constexpr Quantity operator/(Quantity a, double f) { return Quantity{a.value_ / f}; }
  friend constexpr auto operator<=>(Quantity a, Quantity b) = default;

 private:
  double value_ = 0.0;
};

template <class A, class B>
constexpr auto operator*(Quantity<A> a, Quantity<B> b) {
  return units_detail::Lift<typename units_detail::Combine<A, B, 1>::type>::make(a.value() * b.value());
}
template <class A, class B>
constexpr auto operator/(Quantity<A> a, Quantity<B> b) {
  return units_detail::Lift<typename units_detail::Combine<A, B, -1>::type>::make(a.value() / b.value());
}
template <class A>
constexpr auto operator/(double f, Quantity<A> a) {
  return units_detail::Lift<typename units_detail::Combine<units_detail::None, A, -1>::type>::make(f / a.value());
}

template <class Dim>
constexpr Quantity<Dim> max(Quantity<Dim> a, Quantity<Dim> b) {
  return a < b ? b : a;
}
template <class Dim>
constexpr Quantity<Dim> min(Quantity<Dim> a, Quantity<Dim> b) {
  return b < a ? b : a;
}

using Bytes = Quantity<Dimension<1, 0, 0, 0, 0>>;
using Flop = Quantity<Dimension<0, 1, 0, 0, 0>>;
using Seconds = Quantity<Dimension<0, 0, 1, 0, 0>>;
using Joules = Quantity<Dimension<0, 0, 0, 1, 0>>;
using Dollars = Quantity<Dimension<0, 0, 0, 0, 1>>;
using Hertz = Quantity<Dimension<0, 0, -1, 0, 0>>;
using BytesPerSecond = Quantity<Dimension<1, 0, -1, 0, 0>>;
using FlopPerSecond = Quantity<Dimension<0, 1, -1, 0, 0>>;
using FlopPerByte = Quantity<Dimension<-1, 1, 0, 0, 0>>;
using Watts = Quantity<Dimension<0, 0, -1, 1, 0>>;
using DollarsPerSecond = Quantity<Dimension<0, 0, -1, 0, 1>>;
using JoulesPerByte = Quantity<Dimension<-1, 0, 0, 1, 0>>;
using JoulesPerFlop = Quantity<Dimension<0, -1, 0, 1, 0>>;

// An uncertain quantity: the best estimate and the bounds of its 90 % interval, low <= best <= high.
template <class Q>
struct Interval {
  Q low{};
  Q best{};
  Q high{};
};

namespace literals {
constexpr Bytes operator""_B(unsigned long long v) { return Bytes{static_cast<double>(v)}; }
constexpr Bytes operator""_KiB(unsigned long long v) { return Bytes{static_cast<double>(v) * 1024.0}; }
constexpr Bytes operator""_MiB(unsigned long long v) { return Bytes{static_cast<double>(v) * 1048576.0}; }
constexpr Bytes operator""_GiB(unsigned long long v) { return Bytes{static_cast<double>(v) * 1073741824.0}; }
constexpr Bytes operator""_GB(long double v) { return Bytes{static_cast<double>(v) * 1e9}; }
constexpr BytesPerSecond operator""_GBps(long double v) { return BytesPerSecond{static_cast<double>(v) * 1e9}; }
constexpr FlopPerSecond operator""_TFLOPs(long double v) { return FlopPerSecond{static_cast<double>(v) * 1e12}; }
constexpr Seconds operator""_s(long double v) { return Seconds{static_cast<double>(v)}; }
constexpr Seconds operator""_us(long double v) { return Seconds{static_cast<double>(v) * 1e-6}; }
}  // namespace literals

}  // namespace rooftree

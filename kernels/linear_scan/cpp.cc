// `linear_scan` on CPUs: h_t = a_t h_{t-1} + x_t, forward and backward; called through XLA's FFI.
//
// Token by token over all channels, so that memory is read and written once from one end to the other. The states are
// the outputs, and the one before a token is still in the first-level cache. Outputs may be written where inputs lie.
//
// Work is divided into units, a part of the channels of one row each. Units share no sum, so the result does not depend
// on threads.
//
// Arrays: x, y "b t n"; a the same, or "n" for a decay that all tokens share; h "b n"; reset "b t", or nothing; the
// gradient of a decay that tokens share is "b n". Complex ones are pairs, of real and imaginary parts; the second of a
// real one is empty.

#include "lanes.h"

namespace {

using namespace lanes;

// Where the parts of an array of complex or real numbers are.
template <typename Float>
struct Parts {
  Float *re, *im;

  Parts at(int64_t place) const { return {re + place, im + place}; }
};

using Given = Parts<const float>;
using Made = Parts<float>;

Given given(const In& re, const In& im) { return {re.typed_data(), im.typed_data()}; }
Made made(Out& re, Out& im) { return {re->typed_data(), im->typed_data()}; }

// A vector of numbers.
template <bool COMPLEX>
struct Number {
  Vector re;

  static Number read(Given from, int64_t have) { return {load(from.re, have)}; }
  void write(Made to, int64_t have) const { store(to.re, have, re); }
  Number operator*(Number z) const { return {re * z.re}; }
  Number operator+(Number z) const { return {re + z.re}; }
};

template <>
struct Number<true> {
  Vector re, im;

  static Number read(Given from, int64_t have) { return {load(from.re, have), load(from.im, have)}; }
  void write(Made to, int64_t have) const { store(to.re, have, re), store(to.im, have, im); }
  Number operator*(Number z) const { return {re * z.re - im * z.im, re * z.im + im * z.re}; }
  Number operator+(Number z) const { return {re + z.re, im + z.im}; }
};

struct Sizes {
  int64_t b, t, n, parts;
  bool each;  // a decay for each token

  Sizes(const In& a, const In& x, int64_t parts)
      : b(x.dimensions()[0]), t(x.dimensions()[1]), n(x.dimensions()[2]), parts(parts), each(a.dimensions().size() == 3) {}
};

struct Inputs {
  Sizes s;
  Given a, h;
  const bool* reset;

  int64_t place(int64_t row, int64_t i) const { return (row * s.t + i) * s.n; }
  bool cleared(int64_t row, int64_t i) const { return reset && reset[row * s.t + i]; }
  Given decay(int64_t row, int64_t i) const { return s.each ? a.at(place(row, i)) : a; }
};

// Calls run(channel, how many lanes are there) for all channels of a unit.
template <typename Run>
static inline void channels(const Unit& u, Run run) {
  int64_t c = u.first;
  for (; c + LANES <= u.end; c += LANES) run(c, LANES);
  if (c < u.end) run(c, u.end - c);
}

template <bool COMPLEX>
void forward(const Inputs& in, const Unit& u, const Floats& zeros, Given x, Made y) {
  using Z = Number<COMPLEX>;
  const Given none{zeros.data(), zeros.data()};
  for (int64_t i = 0; i < in.s.t; ++i) {
    int64_t at = in.place(u.row, i);
    Given before = i ? Given{y.re + at - in.s.n, y.im + at - in.s.n} : in.h.at(u.row * in.s.n);
    if (in.cleared(u.row, i)) before = none;
    Given decay = in.decay(u.row, i), now = x.at(at);
    Made to = y.at(at);
    channels(u, [=](int64_t c, int64_t have) {
      (Z::read(decay.at(c), have) * Z::read(before.at(c), have) + Z::read(now.at(c), have)).write(to.at(c), have);
    });
  }
}

struct Bars {
  Made a, x, h;
};

// x_bar_t = y_bar_t + a_{t+1} x_bar_{t+1}, and a_bar_t = x_bar_t h_{t-1}.
template <bool COMPLEX>
void backward(const Inputs& in, const Unit& u, const Floats& zeros, Given y, Given y_bar, Given last_bar,
              const Bars& bars) {
  using Z = Number<COMPLEX>;
  const Given none{zeros.data(), zeros.data()};
  const int64_t row = u.row * in.s.n;
  if (!in.s.each) channels(u, [&](int64_t c, int64_t have) { Z{}.write(bars.a.at(row + c), have); });
  for (int64_t i = in.s.t - 1; i >= 0; --i) {
    int64_t at = in.place(u.row, i);
    bool cleared = in.cleared(u.row, i), each = in.s.each;
    Given before = cleared ? none : i ? y.at(at - in.s.n) : in.h.at(row);
    Given decay = in.decay(u.row, i), now = y_bar.at(at);
    Made x_bar = bars.x.at(at), a_bar = bars.a.at(each ? at : row), back = bars.h.at(row);
    // what comes back through the state is kept where its gradient belongs in the end
    Given later = i == in.s.t - 1 ? last_bar.at(row) : Given{back.re, back.im};
    channels(u, [=](int64_t c, int64_t have) {
      Z bar = Z::read(now.at(c), have) + Z::read(later.at(c), have), by_decay = bar * Z::read(before.at(c), have);
      bar.write(x_bar.at(c), have);
      if (!each) by_decay = by_decay + Z::read({a_bar.re + c, a_bar.im + c}, have);
      by_decay.write(a_bar.at(c), have);
      (cleared ? Z{} : bar * Z::read(decay.at(c), have)).write(back.at(c), have);
    });
  }
}

ffi::Error Forward(ffi::ThreadPool pool, int64_t parts, In a_re, In a_im, In x_re, In x_im, In h_re, In h_im, Mask reset,
                   Out y_re, Out y_im) {
  Sizes s(a_re, x_re, parts);
  Inputs in{s, given(a_re, a_im), given(h_re, h_im), reset.element_count() ? reset.typed_data() : nullptr};
  Given x = given(x_re, x_im);
  Made y = made(y_re, y_im);
  const Floats zeros(s.n);
  share(pool, s.b * parts, [&](int64_t number) {
    Unit u(number, s.n, 1, parts);
    x_im.element_count() ? forward<true>(in, u, zeros, x, y) : forward<false>(in, u, zeros, x, y);
  });
  return ffi::Error::Success();
}

ffi::Error Backward(ffi::ThreadPool pool, int64_t parts, In a_re, In a_im, In h_re, In h_im, Mask reset, In y_re, In y_im,
                    In y_bar_re, In y_bar_im, In last_bar_re, In last_bar_im, Out a_bar_re, Out a_bar_im, Out x_bar_re,
                    Out x_bar_im, Out h_bar_re, Out h_bar_im) {
  Sizes s(a_re, y_re, parts);
  Inputs in{s, given(a_re, a_im), given(h_re, h_im), reset.element_count() ? reset.typed_data() : nullptr};
  Given y = given(y_re, y_im), y_bar = given(y_bar_re, y_bar_im), last_bar = given(last_bar_re, last_bar_im);
  Bars bars{made(a_bar_re, a_bar_im), made(x_bar_re, x_bar_im), made(h_bar_re, h_bar_im)};
  const Floats zeros(s.n);
  share(pool, s.b * parts, [&](int64_t number) {
    Unit u(number, s.n, 1, parts);
    y_im.element_count() ? backward<true>(in, u, zeros, y, y_bar, last_bar, bars)
                         : backward<false>(in, u, zeros, y, y_bar, last_bar, bars);
  });
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(linear_scan_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(linear_scan_backward, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

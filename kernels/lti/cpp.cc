// `lti` with a diagonal A on CPUs: x = A x + B u, y = Re(C x) before the token + D u; called through XLA's FFI.
//
// A vector holds LANES channels. A chunk of tokens of such a vector stays in the first-level cache while the states go
// through it one after the other, each in registers: so inputs and outputs are read and written once a chunk, and no
// states but those between chunks are ever written down. A unit of work is one row of LANES channels; units share no
// sum, so the result does not depend on threads.
//
// After each whole chunk of c tokens the state is multiplied by P / A^c, where P is A^c of an A that was not rounded: a
// number next to 1 that makes good what c products with a rounded A have lost. Without it the phase of a state that
// does not fade is off by l / 2^24 after l tokens, as A has 24 bits.
//
// Arrays: u, y "b t e"; A, B, C, P "n e" and states "b n e", each as its real and its imaginary part; D "e"; reset, valid
// "b t", or nothing; entries "b chunks 2 n e"; gradients of A, B, C "b n e", of D "b e".

#include <complex>

#include "lanes.h"

namespace {

using namespace lanes;

struct Pair {
  Vector re, im;
};

static inline Pair times(Pair a, Pair b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
static inline Pair conjugate(Pair a) { return {a.re, -a.im}; }

struct Sizes {
  int64_t b, t, e, n, c, chunks, blocks;

  Sizes(const In& u, const In& A, int64_t c)
      : b(u.dimensions()[0]), t(u.dimensions()[1]), e(u.dimensions()[2]), n(A.dimensions()[0]), c(c),
        chunks((t + c - 1) / c), blocks((e + LANES - 1) / LANES) {}
};

// P / A^c, computed in double precision; 1 where A^c is too small to matter.
Pair correction(Pair A, Pair P, int64_t c, int64_t lanes) {
  Pair made = {Vector{} + 1.0f, Vector{}};
  for (int64_t i = 0; i < std::min<int64_t>(lanes, LANES); ++i) {
    std::complex<double> a(A.re[i], A.im[i]), power = 1, factor(P.re[i], P.im[i]);
    for (int64_t k = c; k; k /= 2, a *= a) power = k % 2 ? power * a : power;
    if (std::norm(power) < 1e-30) continue;
    factor /= power;
    made.re[i] = factor.real(), made.im[i] = factor.imag();
  }
  return made;
}

// Where the real and the imaginary parts of an array are.
struct Parts {
  float *re, *im;

  Parts(const In& re, const In& im) : re(re.typed_data()), im(im.typed_data()) {}
  Parts(Out& re, Out& im) : re(re->typed_data()), im(im->typed_data()) {}
  Parts(float* re, float* im) : re(re), im(im) {}
  Parts at(int64_t place) const { return {re + place, im + place}; }
};

struct Inputs {
  Sizes s;
  const float *u, *D;
  Parts A, B, C, P;
  const bool *reset, *valid;

  Inputs(const Sizes& s, const In& u, Parts A, Parts B, Parts C, const In& D, Parts P, const Mask& reset,
         const Mask& valid)
      : s(s), u(u.typed_data()), D(D.typed_data()), A(A), B(B), C(C), P(P),
        reset(reset.element_count() ? reset.typed_data() : nullptr),
        valid(valid.element_count() ? valid.typed_data() : nullptr) {}

  int64_t tokens(int64_t row) const {
    int64_t many = 0;
    while (many < s.t && (!valid || valid[row * s.t + many])) ++many;
    return many;
  }
};

// The constants and the state of LANES channels of one row, and a chunk of their tokens.
struct Block {
  const Inputs& in;
  const Sizes& s;
  int64_t row, channel, lanes, end;
  std::vector<Pair> A, B, C, corrections, state;
  Vector D;
  std::vector<int64_t> starts;  // of the chunk: where runs of tokens without a document's start begin, and its end

  Block(const Inputs& in, int64_t unit)
      : in(in), s(in.s), row(unit / s.blocks), channel(unit % s.blocks * LANES), lanes(s.e - channel),
        end(in.tokens(row)), A(s.n), B(s.n), C(s.n), corrections(s.n), state(s.n), D(load(in.D + channel, lanes)) {
    std::vector<Pair> P(s.n);
    read(in.A, A), read(in.B, B), read(in.C, C), read(in.P, P);
    for (int64_t k = 0; k < s.n; ++k) corrections[k] = correction(A[k], P[k], s.c, lanes);
  }

  int64_t place(int64_t token) const { return (row * s.t + token) * s.e + channel; }
  Parts mine(Parts states) const { return states.at(row * s.n * s.e); }
  Parts entry(float* entries, int64_t chunk) const {
    float* from = entries + (row * s.chunks + chunk) * 2 * s.n * s.e;
    return {from, from + s.n * s.e};
  }

  void read(Parts from, std::vector<Pair>& to) const {
    for (int64_t k = 0; k < s.n; ++k) {
      int64_t place = k * s.e + channel;
      to[k] = {load(from.re + place, lanes), load(from.im + place, lanes)};
    }
  }

  void write(Parts to, const std::vector<Pair>& from) const {
    for (int64_t k = 0; k < s.n; ++k) {
      int64_t place = k * s.e + channel;
      store(to.re + place, lanes, from[k].re), store(to.im + place, lanes, from[k].im);
    }
  }

  // Finds the runs of a chunk; the first is the one that goes on from before, if not empty.
  void runs(int64_t from, int64_t to) {
    starts.assign(1, from);
    for (int64_t i = from; in.reset && i < to; ++i) {
      if (in.reset[row * s.t + i]) starts.push_back(i);
    }
    starts.push_back(to);
  }
};

// Takes two states through the tokens of a chunk, and adds what they contribute to the outputs.
static inline void advance(const Block& block, int64_t from, int64_t k, Pair* x, const Vector* u, Vector* y) {
  const Pair A0 = block.A[k], B0 = block.B[k], C0 = block.C[k], A1 = block.A[k + 1], B1 = block.B[k + 1],
             C1 = block.C[k + 1];
  Pair x0 = x[0], x1 = x[1];
  for (size_t run = 0; run + 1 < block.starts.size(); ++run) {
    if (run) x0 = x1 = Pair{};
    for (int64_t i = block.starts[run] - from; i < block.starts[run + 1] - from; ++i) {
      Vector in = u[i];
      y[i] = y[i] + C0.re * x0.re - C0.im * x0.im + C1.re * x1.re - C1.im * x1.im;
      Vector re0 = A0.re * x0.re + (B0.re * in - A0.im * x0.im), re1 = A1.re * x1.re + (B1.re * in - A1.im * x1.im);
      x0.im = A0.re * x0.im + (A0.im * x0.re + B0.im * in), x1.im = A1.re * x1.im + (A1.im * x1.re + B1.im * in);
      x0.re = re0, x1.re = re1;
    }
  }
  x[0] = x0, x[1] = x1;
}

void forward(const Inputs& in, int64_t unit, Parts first, float* y, Parts last, float* entries) {
  Block block(in, unit);
  const Sizes& s = in.s;
  // an even number of states: one more that stays 0
  int64_t even = s.n + s.n % 2;
  for (std::vector<Pair>* z : {&block.A, &block.B, &block.C, &block.corrections, &block.state}) z->resize(even, Pair{});
  block.read(block.mine(first), block.state);
  std::vector<Vector> u(s.c), out(s.c);
  for (int64_t chunk = 0; chunk < s.chunks; ++chunk) {
    int64_t from = chunk * s.c, to = std::min(from + s.c, block.end);
    if (entries) block.write(block.entry(entries, chunk), block.state);
    block.runs(from, to);
    for (int64_t i = from; i < to; ++i) {
      u[i - from] = load(in.u + block.place(i), block.lanes);
      out[i - from] = block.D * u[i - from];
    }
    for (int64_t k = 0; k < even; k += 2) advance(block, from, k, &block.state[k], u.data(), out.data());
    for (int64_t k = 0; to - from == s.c && k < s.n; ++k) block.state[k] = times(block.corrections[k], block.state[k]);
    for (int64_t i = from; i < std::min(from + s.c, s.t); ++i) {
      store(y + block.place(i), block.lanes, i < to ? out[i - from] : Vector{});
    }
  }
  block.write(block.mine(last), block.state);
}

struct Bars {
  float *u, *D;
  Parts A, B, C, x;
};

struct Gradient {
  Pair A = {}, B = {}, C = {};
};

// Makes the state before each token of a chunk again, then goes back through it: g is the gradient of the state after
// it, and becomes that of the state before it.
static inline void leave(const Block& block, int64_t from, int64_t k, Pair x, Pair& g, const Vector* u,
                         const Vector* y_bar, Vector* u_bar, Pair* before, Gradient& sums) {
  const Pair A = block.A[k], B = block.B[k], C = block.C[k];
  const std::vector<int64_t>& starts = block.starts;
  for (size_t run = 0; run + 1 < starts.size(); ++run) {
    if (run) x = Pair{};
    for (int64_t i = starts[run] - from; i < starts[run + 1] - from; ++i) {
      before[i] = x;
      Vector re = A.re * x.re + (B.re * u[i] - A.im * x.im);
      x.im = A.re * x.im + (A.im * x.re + B.im * u[i]), x.re = re;
    }
  }
  Gradient total = sums;
  for (size_t run = starts.size() - 1; run-- > 0;) {
    for (int64_t i = starts[run + 1] - from - 1; i >= starts[run] - from; --i) {
      Vector in = u[i], out = y_bar[i];
      Pair h = before[i];
      // summed up from the left, so that each product is fused with a sum
      u_bar[i] = u_bar[i] + B.re * g.re + B.im * g.im;
      total.B.re += g.re * in, total.B.im += g.im * in;
      total.A.re = total.A.re + g.re * h.re + g.im * h.im, total.A.im = total.A.im + g.im * h.re - g.re * h.im;
      total.C.re += out * h.re, total.C.im -= out * h.im;
      Vector re = A.re * g.re + (A.im * g.im + C.re * out);
      g.im = A.re * g.im - (A.im * g.re + C.im * out), g.re = re;
    }
    if (run) g = Pair{};
  }
  sums = total;
}

void backward(const Inputs& in, int64_t unit, float* entries, const float* y_bar, Parts last_bar, const Bars& bars) {
  Block block(in, unit);
  const Sizes& s = in.s;
  std::vector<Pair> g(s.n), before(s.c), A(s.n), B(s.n), C(s.n);
  std::vector<Gradient> sums(s.n);
  std::vector<Vector> u(s.c), out(s.c), u_bar(s.c);
  Vector D = {};
  block.read(block.mine(last_bar), g);
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    int64_t from = chunk * s.c, to = std::min(from + s.c, block.end);
    block.runs(from, to);
    for (int64_t i = from; i < to; ++i) {
      u[i - from] = load(in.u + block.place(i), block.lanes), out[i - from] = load(y_bar + block.place(i), block.lanes);
      u_bar[i - from] = block.D * out[i - from], D += out[i - from] * u[i - from];
    }
    if (from < to) block.read(block.entry(entries, chunk), block.state);
    for (int64_t k = 0; from < to && k < s.n; ++k) {
      if (to - from == s.c) g[k] = times(conjugate(block.corrections[k]), g[k]);
      leave(block, from, k, block.state[k], g[k], u.data(), out.data(), u_bar.data(), before.data(), sums[k]);
    }
    for (int64_t i = from; i < std::min(from + s.c, s.t); ++i) {
      store(bars.u + block.place(i), block.lanes, i < to ? u_bar[i - from] : Vector{});
    }
  }
  for (int64_t k = 0; k < s.n; ++k) A[k] = sums[k].A, B[k] = sums[k].B, C[k] = sums[k].C;
  block.write(block.mine(bars.A), A);
  block.write(block.mine(bars.B), B);
  block.write(block.mine(bars.C), C);
  block.write(block.mine(bars.x), g);
  store(bars.D + block.row * s.e + block.channel, block.lanes, D);
}

ffi::Error Forward(ffi::ThreadPool pool, int64_t chunk, In u, In A_re, In A_im, In B_re, In B_im, In C_re,
                   In C_im, In D, In P_re, In P_im, In x_re, In x_im, Mask reset, Mask valid, Out y, Out last_re,
                   Out last_im, Out entries) {
  Sizes s(u, A_re, chunk);
  Inputs in(s, u, {A_re, A_im}, {B_re, B_im}, {C_re, C_im}, D, {P_re, P_im}, reset, valid);
  Parts first(x_re, x_im), last(last_re, last_im);
  float* saved = entries->element_count() ? entries->typed_data() : nullptr;
  share(pool, s.b * s.blocks, [=, y = y->typed_data()](int64_t unit) { forward(in, unit, first, y, last, saved); });
  return ffi::Error::Success();
}

ffi::Error Backward(ffi::ThreadPool pool, int64_t chunk, In u, In A_re, In A_im, In B_re, In B_im,
                    In C_re, In C_im, In D, In P_re, In P_im, Mask reset, Mask valid, In entries, In y_bar,
                    In last_re_bar, In last_im_bar, Out u_bar, Out A_re_bar, Out A_im_bar, Out B_re_bar, Out B_im_bar,
                    Out C_re_bar, Out C_im_bar, Out D_bar, Out x_re_bar, Out x_im_bar) {
  Sizes s(u, A_re, chunk);
  Inputs in(s, u, {A_re, A_im}, {B_re, B_im}, {C_re, C_im}, D, {P_re, P_im}, reset, valid);
  Parts last_bar(last_re_bar, last_im_bar);
  Bars bars{u_bar->typed_data(),    D_bar->typed_data(),    {A_re_bar, A_im_bar},
            {B_re_bar, B_im_bar}, {C_re_bar, C_im_bar}, {x_re_bar, x_im_bar}};
  share(pool, s.b * s.blocks, [=, saved = entries.typed_data(), out = y_bar.typed_data()](int64_t unit) {
    backward(in, unit, saved, out, last_bar, bars);
  });
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lti_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("chunk")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>().Arg<Mask>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(lti_backward, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("chunk")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>().Arg<Mask>()
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

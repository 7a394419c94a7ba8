// `selective_scan` on CPUs: h = exp(dt A) h + dt x B, y = (C . h + D x) SiLU(z), where dt may be a softplus, forward and
// backward; called through XLA's FFI.
//
// A vector holds LANES channels, and the n numbers of a channel's state are n vectors, so nothing is summed across a
// vector but the gradients of B and C, once a chunk. Work is divided into units, a part of the channels of one group of
// one row each, which threads take one after the other. Units share no sum, so the result does not depend on threads.
//
// Backward goes through chunks of CHUNK tokens from the last: the states and decays of a chunk are made again from the
// state that forward found at its start, and stay in the second-level cache until they are used, token by token back.
//
// Arrays: x, dt, y "b t e"; A "n e"; B, C "b t g n"; D "e", or nothing; z "b t e", or nothing; states "b n e"; reset
// "b t", or nothing; entries "b chunks n e"; the gradient of D "b e".

#include "lanes.h"

namespace {

using namespace lanes;

constexpr int64_t CHUNK = 32;

struct Sizes {
  int64_t b, t, e, g, n, parts, chunks;

  Sizes(const In& x, const In& B, int64_t parts)
      : b(x.dimensions()[0]), t(x.dimensions()[1]), e(x.dimensions()[2]), g(B.dimensions()[2]),
        n(B.dimensions()[3]), parts(parts), chunks((t + CHUNK - 1) / CHUNK) {}

  int64_t units() const { return b * g * parts; }
  Unit unit(int64_t number) const { return Unit(number, e, g, parts); }
};

static inline Vector sigmoid(Vector z) { return 1.0f / (1.0f + exp2(z * -LOG2_E)); }

// What both passes read of a unit, and the constants of a block of channels.
struct Inputs {
  Sizes s;
  bool soft;  // steps are softplus(dt)
  const float *x, *dt, *A, *B, *C, *D, *z;
  const bool* reset;

  Inputs(const Sizes& s, bool soft, const In& x, const In& dt, const In& A, const In& B, const In& C, const In& D,
         const In& z, const Mask& reset)
      : s(s), soft(soft), x(x.typed_data()), dt(dt.typed_data()), A(A.typed_data()), B(B.typed_data()),
        C(C.typed_data()), D(D.element_count() ? D.typed_data() : nullptr),
        z(z.element_count() ? z.typed_data() : nullptr),
        reset(reset.element_count() ? reset.typed_data() : nullptr) {}

  int64_t token(const Unit& u, int64_t i) const { return u.row * s.t + i; }
  int64_t column(const Unit& u, int64_t i) const { return (token(u, i) * s.g + u.group) * s.n; }
  bool cleared(const Unit& u, int64_t i) const { return reset && reset[token(u, i)]; }

  Vector step(int64_t place, int64_t lanes) const {
    Vector given = load(dt + place, lanes);
    return soft ? softplus(given) : given;
  }
  Vector skip(int64_t channel, int64_t lanes) const { return D ? load(D + channel, lanes) : Vector{}; }

  void constants(int64_t channel, int64_t lanes, Vector* scaled) const {
    for (int64_t k = 0; k < s.n; ++k) scaled[k] = load(A + k * s.e + channel, lanes) * LOG2_E;
  }
};

void read(const float* states, int64_t n, int64_t e, int64_t lanes, Vector* h) {
  for (int64_t k = 0; k < n; ++k) h[k] = load(states + k * e, lanes);
}

void write(float* states, int64_t n, int64_t e, int64_t lanes, const Vector* h) {
  for (int64_t k = 0; k < n; ++k) store(states + k * e, lanes, h[k]);
}

void forward(const Inputs& in, const Unit& u, const float* first, float* y, float* last, float* entries) {
  const Sizes& s = in.s;
  std::vector<Vector> A(s.n), h(s.n);
  for (int64_t c = u.first; c < u.end; c += LANES) {
    int64_t lanes = u.end - c, states = u.row * s.n * s.e + c;
    const Vector D = in.skip(c, lanes);
    in.constants(c, lanes, A.data());
    read(first + states, s.n, s.e, lanes, h.data());
    for (int64_t i = 0; i < s.t; ++i) {
      if (entries && i % CHUNK == 0) {
        write(entries + (u.row * s.chunks + i / CHUNK) * s.n * s.e + c, s.n, s.e, lanes, h.data());
      }
      if (in.cleared(u, i)) std::fill(h.begin(), h.end(), Vector{});
      int64_t place = in.token(u, i) * s.e + c, column = in.column(u, i);
      Vector dt = in.step(place, lanes), x = load(in.x + place, lanes), inflow = dt * x, out = D * x;
      for (int64_t k = 0; k < s.n; ++k) {
        h[k] = exp2(dt * A[k]) * h[k] + inflow * in.B[column + k];
        out += h[k] * in.C[column + k];
      }
      if (in.z) {
        Vector z = load(in.z + place, lanes);
        out *= z * sigmoid(z);
      }
      store(y + place, lanes, out);
    }
    write(last + states, s.n, s.e, lanes, h.data());
  }
}

struct Bars {
  float *x, *dt, *A, *B, *C, *D, *z, *h;
};

// The vectors of one chunk: of each token and number of a state.
struct Scratch {
  std::vector<Vector> decay, before, B_bar, C_bar;

  explicit Scratch(int64_t n) : decay(CHUNK * n), before(CHUNK * n), B_bar(CHUNK * n), C_bar(CHUNK * n) {}
};

// Makes the decays of a chunk, and the state before each of its tokens, again.
void enter(const Inputs& in, const Unit& u, int64_t c, int64_t lanes, int64_t from, int64_t to, const Vector* A,
           Vector* h, Scratch& scratch) {
  const Sizes& s = in.s;
  for (int64_t i = from; i < to; ++i) {
    if (in.cleared(u, i)) std::fill(h, h + s.n, Vector{});
    int64_t place = in.token(u, i) * s.e + c, column = in.column(u, i), at = (i - from) * s.n;
    Vector dt = in.step(place, lanes), inflow = dt * load(in.x + place, lanes);
    for (int64_t k = 0; k < s.n; ++k) {
      scratch.before[at + k] = h[k];
      Vector decay = exp2(dt * A[k]);
      scratch.decay[at + k] = decay;
      h[k] = decay * h[k] + inflow * in.B[column + k];
    }
  }
}

// Goes back through a chunk: h_bar is the gradient of the state after it, and becomes that of the state before it.
void leave(const Inputs& in, const Unit& u, int64_t c, int64_t lanes, int64_t from, int64_t to, const Vector* A,
           const float* y_bar, Vector* h_bar, Vector* A_bar, Vector& D_bar, Scratch& scratch, const Bars& bars) {
  const Sizes& s = in.s;
  const Vector D = in.skip(c, lanes);
  for (int64_t i = to - 1; i >= from; --i) {
    int64_t place = in.token(u, i) * s.e + c, column = in.column(u, i), at = (i - from) * s.n;
    Vector x = load(in.x + place, lanes), dt = in.step(place, lanes), given = load(y_bar + place, lanes);
    Vector z = in.z ? load(in.z + place, lanes) : Vector{}, open = in.z ? sigmoid(z) : Vector{};
    Vector out = in.z ? given * z * open : given;
    Vector inflow = dt * x, inflow_bar = {}, dt_bar = {}, read = D * x;
    for (int64_t k = 0; k < s.n; ++k) {
      float B = in.B[column + k], C = in.C[column + k];
      Vector decay = scratch.decay[at + k], before = scratch.before[at + k], after = decay * before + inflow * B;
      Vector here = h_bar[k] + out * C, back = here * decay, exponent = back * before;
      read += after * C;
      scratch.C_bar[at + k] += after * out;
      scratch.B_bar[at + k] += here * inflow;
      inflow_bar += here * B;
      dt_bar += exponent * A[k];
      A_bar[k] += exponent * dt;
      h_bar[k] = back;
    }
    D_bar += out * x;
    dt_bar = dt_bar * (1 / LOG2_E) + inflow_bar * x;
    if (in.soft) dt_bar *= sigmoid(load(in.dt + place, lanes));
    if (in.z) store(bars.z + place, lanes, given * read * open * (1.0f + z * (1.0f - open)));
    store(bars.x + place, lanes, inflow_bar * dt + out * D);
    store(bars.dt + place, lanes, dt_bar);
    if (in.cleared(u, i)) std::fill(h_bar, h_bar + s.n, Vector{});
  }
}

void backward(const Inputs& in, const Unit& u, const float* entries, const float* y_bar, const Bars& bars) {
  const Sizes& s = in.s;
  int64_t blocks = (u.end - u.first + LANES - 1) / LANES;
  std::vector<Vector> A(blocks * s.n), A_bar(blocks * s.n), D_bar(blocks), h_bar(blocks * s.n), h(s.n);
  Scratch scratch(s.n);
  for (int64_t j = 0; j < blocks; ++j) {
    int64_t c = u.first + j * LANES, states = u.row * s.n * s.e + c;
    in.constants(c, u.end - c, &A[j * s.n]);
    // where forward's caller left the gradient of the last state
    read(bars.h + states, s.n, s.e, u.end - c, &h_bar[j * s.n]);
  }
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    int64_t from = chunk * CHUNK, to = std::min(from + CHUNK, s.t);
    std::fill(scratch.B_bar.begin(), scratch.B_bar.end(), Vector{});
    std::fill(scratch.C_bar.begin(), scratch.C_bar.end(), Vector{});
    for (int64_t j = 0; j < blocks; ++j) {
      int64_t c = u.first + j * LANES, lanes = u.end - c, at = j * s.n;
      read(entries + (u.row * s.chunks + chunk) * s.n * s.e + c, s.n, s.e, lanes, h.data());
      enter(in, u, c, lanes, from, to, &A[at], h.data(), scratch);
      leave(in, u, c, lanes, from, to, &A[at], y_bar, &h_bar[at], &A_bar[at], D_bar[j], scratch, bars);
    }
    for (int64_t i = from; i < to; ++i) {
      int64_t column = u.part * s.b * s.t * s.g * s.n + in.column(u, i), at = (i - from) * s.n;
      for (int64_t k = 0; k < s.n; ++k) {
        bars.B[column + k] = sum(scratch.B_bar[at + k]);
        bars.C[column + k] = sum(scratch.C_bar[at + k]);
      }
    }
  }
  for (int64_t j = 0; j < blocks; ++j) {
    int64_t c = u.first + j * LANES, states = u.row * s.n * s.e + c;
    write(bars.h + states, s.n, s.e, u.end - c, &h_bar[j * s.n]);
    write(bars.A + states, s.n, s.e, u.end - c, &A_bar[j * s.n]);
    store(bars.D + u.row * s.e + c, u.end - c, D_bar[j]);
  }
}

ffi::Error Forward(ffi::ThreadPool pool, int64_t parts, bool softplus, In x, In dt, In A, In B, In C, In D, In z,
                   Mask reset, In h, Out y, Out last, Out entries) {
  Sizes s(x, B, parts);
  Inputs in(s, softplus, x, dt, A, B, C, D, z, reset);
  float* saved = entries->element_count() ? entries->typed_data() : nullptr;
  share(pool, s.units(), [=, first = h.typed_data(), y = y->typed_data(), last = last->typed_data()](int64_t unit) {
    forward(in, in.s.unit(unit), first, y, last, saved);
  });
  return ffi::Error::Success();
}

ffi::Error Backward(ffi::ThreadPool pool, int64_t parts, bool softplus, In x, In dt, In A, In B, In C, In D, In z,
                    Mask reset, In entries, In y_bar, In last_bar, Out x_bar, Out dt_bar, Out A_bar, Out B_bar, Out C_bar,
                    Out D_bar, Out z_bar, Out h_bar) {
  Sizes s(x, B, parts);
  Inputs in(s, softplus, x, dt, A, B, C, D, z, reset);
  std::memcpy(h_bar->typed_data(), last_bar.typed_data(), last_bar.size_bytes());
  Bars bars{x_bar->typed_data(), dt_bar->typed_data(), A_bar->typed_data(), B_bar->typed_data(),
            C_bar->typed_data(), D_bar->typed_data(),  z_bar->typed_data(), h_bar->typed_data()};
  share(pool, s.units(), [=, saved = entries.typed_data(), out = y_bar.typed_data()](int64_t unit) {
    backward(in, in.s.unit(unit), saved, out, bars);
  });
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

auto Signature() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Attr<int64_t>("parts").Attr<bool>("softplus")
      .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
      .Arg<Mask>()
      .Arg<In>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_scan_forward, Forward, Signature().Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_scan_backward, Backward,
                              Signature()
                                  .Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

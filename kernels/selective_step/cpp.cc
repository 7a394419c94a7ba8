// `selective_step` on CPUs: h = exp(dt A) h + dt x B, y = (C . h + D x) SiLU(z), where dt may be a softplus; called
// through XLA's FFI.
//
// The n numbers of a channel's state follow each other, so a vector holds LANES of them; what LANES channels read from
// their states is summed across their vectors at once (`sums`). The state may be written where it is read.
//
// A processor looks some hundred instructions ahead, fewer than a block of LANES channels has with its softplus, sums and
// gate. So these are loops of their own over a run of channels, of which each does not wait for the one before it.
//
// Arrays: x, dt, y "b e"; A "e n"; B, C "b g n"; D "e", or nothing; z "b e", or nothing; states "b e n".

#include "lanes.h"

namespace {

using namespace lanes;

constexpr int64_t RUN = 512;  // channels at a time

struct Arrays {
  int64_t e, g, n;
  bool softplus;
  const float *x, *dt, *A, *B, *C, *D, *z, *h;
  float *y, *last;
};

// Computes the channels first … end, at most RUN, of one group of one row.
void channels(const Arrays& a, int64_t row, int64_t group, int64_t first, int64_t end) {
  int64_t place = row * a.e, column = (row * a.g + group) * a.n;
  Vector exponents[RUN / LANES], inflows[RUN / LANES];
  for (int64_t c = first, j = 0; c < end; c += LANES, ++j) {
    Vector dt = load(a.dt + place + c, end - c);
    if (a.softplus) dt = softplus(dt);
    exponents[j] = dt * LOG2_E;
    inflows[j] = dt * load(a.x + place + c, end - c);
  }
  for (int64_t c = first, j = 0; c < end; c += LANES, ++j) {
    int64_t many = std::min<int64_t>(end - c, LANES);
    Vector read[LANES] = {};
    for (int64_t k = 0; k < a.n; k += LANES) {
      int64_t numbers = a.n - k, at = (place + c) * a.n + k;
      Vector B = load(a.B + column + k, numbers), C = load(a.C + column + k, numbers);
      const float *A = a.A + c * a.n + k, *h = a.h + at;
      float* last = a.last + at;
      auto advance = [&](int64_t many, int64_t numbers) __attribute__((always_inline)) {
        _Pragma("GCC unroll 16") for (int64_t i = 0; i < many; ++i) {
          Vector decay = exp2(exponents[j][i] * load(A + i * a.n, numbers));
          Vector state = decay * load(h + i * a.n, numbers) + inflows[j][i] * B;
          store(last + i * a.n, numbers, state);
          read[i] += state * C;
        }
      };
      if (many == LANES && numbers >= LANES) {
        advance(LANES, LANES);
      } else {
        advance(many, numbers);
      }
    }
    store(a.y + place + c, many, sums(read));
  }
  for (int64_t c = first; c < end; c += LANES) {
    Vector y = load(a.y + place + c, end - c);
    if (a.D) y += load(a.D + c, end - c) * load(a.x + place + c, end - c);
    if (a.z) {
      Vector z = load(a.z + place + c, end - c);
      y *= z / (1.0f + exp2(z * -LOG2_E));
    }
    store(a.y + place + c, end - c, y);
  }
}

ffi::Error Forward(ffi::ThreadPool pool, int64_t parts, bool softplus, In x, In dt, In A, In B, In C, In D, In z, In h,
                   Out y, Out last) {
  int64_t b = x.dimensions()[0], e = x.dimensions()[1], g = B.dimensions()[1], n = B.dimensions()[2];
  auto given = [](In m) { return m.element_count() ? m.typed_data() : nullptr; };
  int64_t width = e / g, runs = (width + RUN - 1) / RUN, all = b * g * runs;
  Arrays a{e, g, n, softplus, x.typed_data(), dt.typed_data(), A.typed_data(), B.typed_data(), C.typed_data(), given(D),
           given(z), h.typed_data(), y->typed_data(), last->typed_data()};
  share_state(pool, all, b * e * n, [=](int64_t unit) {
    int64_t group = unit / runs % g, from = unit % runs * RUN;
    channels(a, unit / runs / g, group, group * width + from, group * width + std::min(width, from + RUN));
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(selective_step_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Attr<bool>("softplus")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());

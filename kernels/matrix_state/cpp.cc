// Heads whose state is a matrix, on CPUs, token by token, forward and backward; called through XLA's FFI:
//
//   S_t = diag(a_t) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T;  y_t = S_t^T q_t.
//
// The k rows of a state are cut into panels of W vectors, so a panel is "k W LANES" and lies in the first-level cache.
// Columns do not depend on each other: what is read from a state is a sum over rows, without one across a vector. The
// gradients of what belongs to rows (q, k, w, u, a) are sums across vectors, of 16 rows at once (`sums`).
//
// Work is divided into units, a part of the heads of one group of one row each, which threads take one after the other.
// Units share no sum, so the result does not depend on threads.
//
// Backward goes through chunks of tokens from the last: the states of a chunk are made again from the one that forward
// saved at its start, and stay in the second-level cache until they are used, token by token back.
//
// Arrays: q, k "b t g k"; v, y "b t h p"; a "b t h d", d = k (ROWS) or 1; w, u "b t h k" with g = h (FIX), or nothing;
// states "b h k p"; reset "b t", or nothing; entries "b chunks h k p"; gradients of q and k "parts b t g k".

#include <utility>

#include "lanes.h"

namespace {

using namespace lanes;

struct Sizes {
  int64_t b, t, h, g, k, p, d, parts, chunk, chunks;

  Sizes(const In& q, const In& v, const In& a, int64_t parts, int64_t chunk)
      : b(v.dimensions()[0]), t(v.dimensions()[1]), h(v.dimensions()[2]), g(q.dimensions()[2]), k(q.dimensions()[3]),
        p(v.dimensions()[3]), d(a.dimensions()[3]), parts(parts), chunk(chunk), chunks((t + chunk - 1) / chunk) {}

  int64_t units() const { return b * g * parts; }
};

// The heads first … end of group `group` of a row.
struct Unit {
  int64_t row, group, part, first, end;

  Unit(const Sizes& s, int64_t number)
      : row(number / (s.g * s.parts)), group(number / s.parts % s.g), part(number % s.parts) {
    int64_t heads = s.h / s.g;
    first = group * heads + heads * part / s.parts;
    end = group * heads + heads * (part + 1) / s.parts;
  }
};

// What both passes read.
struct Inputs {
  Sizes s;
  const float *q, *k, *v, *a, *w, *u;
  const bool* reset;

  int64_t token(int64_t row, int64_t i) const { return row * s.t + i; }
  int64_t of_group(const Unit& z, int64_t i) const { return (token(z.row, i) * s.g + z.group) * s.k; }
  int64_t of_head(int64_t row, int64_t head, int64_t i, int64_t size) const {
    return (token(row, i) * s.h + head) * size;
  }
  bool cleared(int64_t row, int64_t i) const { return reset && reset[token(row, i)]; }
};

// What one token brings to one head: rows from pointers, columns of the panel in vectors.
template <int W>
struct Token {
  const float *q, *k, *a, *w, *u;
  Vector v[W];

  Token(const Inputs& in, const Unit& z, int64_t head, int64_t i, int64_t column)
      : q(in.q + in.of_group(z, i)), k(in.k + in.of_group(z, i)), a(in.a + in.of_head(z.row, head, i, in.s.d)),
        w(in.w ? in.w + in.of_head(z.row, head, i, in.s.k) : nullptr),
        u(in.u ? in.u + in.of_head(z.row, head, i, in.s.k) : nullptr) {
    columns(in.v + in.of_head(z.row, head, i, in.s.p) + column, in.s.p - column, v);
  }

  // Loads the panel's part of an array of columns, of which `have` are there.
  static void columns(const float* from, int64_t have, Vector* to) {
    for (int j = 0; j < W; ++j) to[j] = have > j * LANES ? load(from + j * LANES, have - j * LANES) : Vector{};
  }

  static void write(float* to, int64_t have, const Vector* from) {
    for (int j = 0; j < W && have > j * LANES; ++j) store(to + j * LANES, have - j * LANES, from[j]);
  }
};

template <int W>
void read_panel(const float* state, const Sizes& s, int64_t column, Vector* panel) {
  for (int64_t n = 0; n < s.k; ++n) Token<W>::columns(state + n * s.p + column, s.p - column, panel + n * W);
}

template <int W>
void write_panel(float* state, const Sizes& s, int64_t column, const Vector* panel) {
  for (int64_t n = 0; n < s.k; ++n) Token<W>::write(state + n * s.p + column, s.p - column, panel + n * W);
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLED(x, y, ...) __builtin_shuffle(x, y, (Bits){__VA_ARGS__})
#endif

Vector pairs(Vector x, Vector y) {
  return SHUFFLED(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         SHUFFLED(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// Returns the sums of 16 vectors, in order; the vectors are lost.
Vector sums(Vector* v) {
  for (int many = LANES / 2; many; many /= 2) {
    for (int i = 0; i < many; ++i) v[i] = pairs(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}

// Adds to the `rows` numbers from `to` on the sums of as many vectors.
void add(float* to, int64_t rows, Vector* v) {
  store(to, rows, load(to, rows) + sums(v));
}

// Reads what w finds in a state.
template <int W>
void find(const Token<W>& z, const Vector* S, int64_t rows, Vector* found) {
  for (int j = 0; j < W; ++j) found[j] = Vector{};
  for (int64_t n = 0; n < rows; ++n) {
    for (int j = 0; j < W; ++j) found[j] += S[n * W + j] * z.w[n];
  }
}

// Returns vector j of row n of the state after a token.
template <int W, bool ROWS, bool FIX>
inline Vector next(const Token<W>& z, const Vector* S, const Vector* found, int64_t n, int j) {
  Vector after = S[n * W + j] * z.a[ROWS ? n : 0] + z.v[j] * z.k[n];
  return FIX ? after + found[j] * z.u[n] : after;
}

template <int W, bool ROWS, bool FIX>
void forward_panel(const Inputs& in, const Unit& z, int64_t head, int64_t column, const float* first, float* y,
                   float* last, float* entries, Vector* S) {
  const Sizes& s = in.s;
  int64_t state = (z.row * s.h + head) * s.k * s.p;
  Vector found[W];
  read_panel<W>(first + state, s, column, S);
  for (int64_t i = 0; i < s.t; ++i) {
    if (entries && i % s.chunk == 0) {
      write_panel<W>(entries + ((z.row * s.chunks + i / s.chunk) * s.h + head) * s.k * s.p, s, column, S);
    }
    if (in.cleared(z.row, i)) std::fill(S, S + s.k * W, Vector{});
    Token<W> token(in, z, head, i, column);
    if (FIX) find(token, S, s.k, found);
    Vector out[W] = {};
    for (int64_t n = 0; n < s.k; ++n) {
      for (int j = 0; j < W; ++j) {
        Vector after = next<W, ROWS, FIX>(token, S, found, n, j);
        out[j] += after * token.q[n];
        S[n * W + j] = after;
      }
    }
    Token<W>::write(y + in.of_head(z.row, head, i, s.p) + column, s.p - column, out);
  }
  write_panel<W>(last + state, s, column, S);
}

struct Bars {
  float *q, *k, *v, *a, *w, *u, *S;
};

// The states before each token of a chunk, and after the last; and what each w found there.
struct Scratch {
  std::vector<Vector> states, found, bar;

  Scratch(const Sizes& s, int W) : states((s.chunk + 1) * s.k * W), found(s.chunk * W), bar(s.k * W) {}
};

// Makes the states of a chunk again from the first, and adds to the gradient of q.
template <int W, bool ROWS, bool FIX>
void enter(const Inputs& in, const Unit& z, int64_t head, int64_t column, int64_t from, int64_t to, const float* y_bar,
           float* q_bar, Scratch& scratch) {
  const Sizes& s = in.s;
  for (int64_t i = from; i < to; ++i) {
    Vector *S = &scratch.states[(i - from) * s.k * W], *after = S + s.k * W, *found = &scratch.found[(i - from) * W];
    if (in.cleared(z.row, i)) std::fill(S, after, Vector{});
    Token<W> token(in, z, head, i, column);
    Vector out[W];
    Token<W>::columns(y_bar + in.of_head(z.row, head, i, s.p) + column, s.p - column, out);
    if (FIX) find(token, S, s.k, found);
    for (int64_t n = 0; n < s.k; n += LANES) {
      int64_t rows = std::min<int64_t>(LANES, s.k - n);
      Vector read[LANES] = {};
      for (int64_t m = 0; m < rows; ++m) {
        for (int j = 0; j < W; ++j) {
          Vector made = next<W, ROWS, FIX>(token, S, found, n + m, j);
          after[(n + m) * W + j] = made;
          read[m] += made * out[j];
        }
      }
      add(q_bar + in.of_group(z, i) + n, rows, read);
    }
  }
}

// Goes back over one token: G is the gradient of the state after it, and becomes that of the state before it.
template <int W, bool ROWS, bool FIX>
void back(const Sizes& s, const Token<W>& token, const Vector* S, const Vector* found, const Vector* out, Vector* G,
          float* k_bar, float* a_bar, float* w_bar, float* u_bar, Vector* v_bar) {
  Vector found_bar[W] = {}, decay = {};
  for (int64_t n = 0; n < s.k; n += LANES) {
    int64_t rows = std::min<int64_t>(LANES, s.k - n);
    Vector by_k[LANES] = {}, by_a[LANES] = {}, by_u[LANES] = {};
    for (int64_t m = 0; m < rows; ++m) {
      float q = token.q[n + m], k = token.k[n + m], a = token.a[ROWS ? n + m : 0];
      for (int j = 0; j < W; ++j) {
        int64_t at = (n + m) * W + j;
        Vector here = G[at] + out[j] * q;
        by_k[m] += here * token.v[j];
        v_bar[j] += here * k;
        if (ROWS) by_a[m] += here * S[at]; else decay += here * S[at];
        if (FIX) {
          by_u[m] += here * found[j];
          found_bar[j] += here * token.u[n + m];
        }
        G[at] = here * a;
      }
    }
    add(k_bar + n, rows, by_k);
    if (ROWS) add(a_bar + n, rows, by_a);
    if (FIX) add(u_bar + n, rows, by_u);
  }
  if (!ROWS) *a_bar += sum(decay);
  for (int64_t n = 0; FIX && n < s.k; n += LANES) {
    int64_t rows = std::min<int64_t>(LANES, s.k - n);
    Vector by_w[LANES] = {};
    for (int64_t m = 0; m < rows; ++m) {
      for (int j = 0; j < W; ++j) {
        int64_t at = (n + m) * W + j;
        by_w[m] += S[at] * found_bar[j];
        G[at] += found_bar[j] * token.w[n + m];
      }
    }
    add(w_bar + n, rows, by_w);
  }
}

template <int W, bool ROWS, bool FIX>
void backward_panel(const Inputs& in, const Unit& z, int64_t head, int64_t column, const float* entries,
                    const float* y_bar, const Bars& bars, Scratch& scratch) {
  const Sizes& s = in.s;
  int64_t state = (z.row * s.h + head) * s.k * s.p, part = z.part * s.b * s.t * s.g * s.k;
  Vector* G = scratch.bar.data();
  // where forward's caller left the gradient of the last state
  read_panel<W>(bars.S + state, s, column, G);
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    int64_t from = chunk * s.chunk, to = std::min(from + s.chunk, s.t);
    read_panel<W>(entries + ((z.row * s.chunks + chunk) * s.h + head) * s.k * s.p, s, column, scratch.states.data());
    enter<W, ROWS, FIX>(in, z, head, column, from, to, y_bar, bars.q + part, scratch);
    for (int64_t i = to - 1; i >= from; --i) {
      Token<W> token(in, z, head, i, column);
      Vector out[W], v_bar[W] = {};
      int64_t columns = in.of_head(z.row, head, i, s.p) + column, rows = in.of_head(z.row, head, i, s.k);
      Token<W>::columns(y_bar + columns, s.p - column, out);
      back<W, ROWS, FIX>(s, token, &scratch.states[(i - from) * s.k * W], &scratch.found[(i - from) * W], out,
                                 G, bars.k + part + in.of_group(z, i), bars.a + in.of_head(z.row, head, i, s.d),
                                 bars.w + rows, bars.u + rows, v_bar);
      Token<W>::write(bars.v + columns, s.p - column, v_bar);
      if (in.cleared(z.row, i)) std::fill(G, G + s.k * W, Vector{});
    }
  }
  write_panel<W>(bars.S + state, s, column, G);
}

// Sets the gradients to 0 to which a unit adds.
void clear(const Inputs& in, const Unit& z, const Bars& bars) {
  const Sizes& s = in.s;
  int64_t part = z.part * s.b * s.t * s.g * s.k, heads = z.end - z.first;
  for (int64_t i = 0; i < s.t; ++i) {
    int64_t row = part + in.of_group(z, i), first = in.of_head(z.row, z.first, i, s.k);
    std::fill_n(bars.q + row, s.k, 0.0f);
    std::fill_n(bars.k + row, s.k, 0.0f);
    std::fill_n(bars.a + in.of_head(z.row, z.first, i, s.d), heads * s.d, 0.0f);
    if (in.w) {
      std::fill_n(bars.w + first, heads * s.k, 0.0f);
      std::fill_n(bars.u + first, heads * s.k, 0.0f);
    }
  }
}

// Calls run(W) for each head and panel of a unit, as wide as its columns need.
template <typename Run>
void panels(const Sizes& s, const Unit& z, int W, Run run) {
  for (int64_t head = z.first; head < z.end; ++head) {
    for (int64_t column = 0; column < s.p; column += W * LANES) run(head, column);
  }
}

template <int W, bool ROWS, bool FIX>
void forward(ffi::ThreadPool& pool, const Inputs& in, const float* first, float* y, float* last, float* entries) {
  share(pool, in.s.units(), [=](int64_t number) {
    Unit z(in.s, number);
    std::vector<Vector> S(in.s.k * W);
    panels(in.s, z, W, [&](int64_t head, int64_t column) {
      forward_panel<W, ROWS, FIX>(in, z, head, column, first, y, last, entries, S.data());
    });
  });
}

template <int W, bool ROWS, bool FIX>
void backward(ffi::ThreadPool& pool, const Inputs& in, const float* entries, const float* y_bar, const Bars& bars) {
  share(pool, in.s.units(), [=](int64_t number) {
    Unit z(in.s, number);
    Scratch scratch(in.s, W);
    clear(in, z, bars);
    panels(in.s, z, W, [&](int64_t head, int64_t column) {
      backward_panel<W, ROWS, FIX>(in, z, head, column, entries, y_bar, bars, scratch);
    });
  });
}

using Forward = void (*)(ffi::ThreadPool&, const Inputs&, const float*, float*, float*, float*);
using Backward = void (*)(ffi::ThreadPool&, const Inputs&, const float*, const float*, const Bars&);

// Returns the passes for panels as wide as the columns of a head, at most 4 vectors.
template <int W>
std::pair<Forward, Backward> passes(const Inputs& in) {
  if (in.w) {
    if (in.s.d == 1) return {forward<W, false, true>, backward<W, false, true>};
    return {forward<W, true, true>, backward<W, true, true>};
  }
  if (in.s.d == 1) return {forward<W, false, false>, backward<W, false, false>};
  return {forward<W, true, false>, backward<W, true, false>};
}

std::pair<Forward, Backward> passes(const Inputs& in) {
  return in.s.p > 2 * LANES ? passes<4>(in) : in.s.p > LANES ? passes<2>(in) : passes<1>(in);
}

const float* data(const In& z) { return z.element_count() ? z.typed_data() : nullptr; }

ffi::Error RunForward(ffi::ThreadPool pool, int64_t parts, int64_t chunk, In q, In k, In v, In a, In w, In u, In S,
                      Mask reset, Out y, Out last, Out entries) {
  Inputs in{Sizes(q, v, a, parts, chunk), data(q), data(k), data(v), data(a), data(w), data(u),
            reset.element_count() ? reset.typed_data() : nullptr};
  float* saved = entries->element_count() ? entries->typed_data() : nullptr;
  passes(in).first(pool, in, S.typed_data(), y->typed_data(), last->typed_data(), saved);
  return ffi::Error::Success();
}

ffi::Error RunBackward(ffi::ThreadPool pool, int64_t parts, int64_t chunk, In q, In k, In v, In a, In w, In u,
                       Mask reset, In entries, In y_bar, In last_bar, Out q_bar, Out k_bar, Out v_bar, Out a_bar,
                       Out w_bar, Out u_bar, Out S_bar) {
  Inputs in{Sizes(q, v, a, parts, chunk), data(q), data(k), data(v), data(a), data(w), data(u),
            reset.element_count() ? reset.typed_data() : nullptr};
  std::memcpy(S_bar->typed_data(), last_bar.typed_data(), last_bar.size_bytes());
  Bars bars{q_bar->typed_data(), k_bar->typed_data(), v_bar->typed_data(), a_bar->typed_data(),
            w_bar->typed_data(), u_bar->typed_data(), S_bar->typed_data()};
  passes(in).second(pool, in, entries.typed_data(), y_bar.typed_data(), bars);
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(matrix_state_forward, RunForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Attr<int64_t>("chunk")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(matrix_state_backward, RunBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Attr<int64_t>("chunk")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

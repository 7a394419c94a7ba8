// Heads whose state is a matrix, on CPUs, token by token, forward and backward; called through XLA's FFI:
//
//   S_t = diag(a_t) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T;  y_t = S_t^T q_t.
//
// A single token's panels are read and written where they lie, and the state after it may take the place of that before.
//
// The k rows of a state are cut into panels of W vectors, so a panel is "k W LANES" and lies in the first-level cache.
// Columns do not depend on each other: what is read from a state is a sum over rows, without one across a vector. The
// gradients of what belongs to rows (q, k, w, u, a) are sums across vectors, of LANES rows at once (`sums`).
//
// Work is divided into units, a part of the heads of one group of one row each, which threads take one after the other.
// Units share no sum, so the result does not depend on threads.
//
// Backward goes through chunks of tokens from the last: the states of a chunk are made again from the one that forward
// saved at its start, and used token by token back.
//
// Arrays: q, k "b t g k"; v, y "b t h p"; a "b t h d", d = k (ROWS) or 1; w, u "b t h k" with g = h (FIX), or nothing;
// states "b h k p"; reset "b t", or nothing; entries "b chunks h k p"; gradients of q and k "parts b t g k".

#include <utility>

#include "lanes.h"

namespace {

using namespace lanes;

constexpr int64_t CHUNK = 64;

struct Sizes {
  int64_t b, t, h, g, k, p, d, parts, chunks;

  Sizes(const In& q, const In& v, const In& a, int64_t parts)
      : b(v.dimensions()[0]), t(v.dimensions()[1]), h(v.dimensions()[2]), g(q.dimensions()[2]), k(q.dimensions()[3]),
        p(v.dimensions()[3]), d(a.dimensions()[3]), parts(parts), chunks((t + CHUNK - 1) / CHUNK) {}

  int64_t units() const { return b * g * parts; }
  Unit unit(int64_t number) const { return Unit(number, h, g, parts); }
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

// As many vectors as a panel is wide, 1, 2 or 4. Without arrays in it, compilers keep it in registers.
template <int W>
struct Row {
  Row<W / 2> low, high;

  // Adds the product of another row with a number.
  void add(const Row& z, float factor) {
    low.add(z.low, factor);
    high.add(z.high, factor);
  }
  // Sums up the products with another row, but for the last step across the vector.
  Vector dot(const Row& z) const { return low.dot(z.low) + high.dot(z.high); }
  // Reads or writes part of an array, of which `have` columns are there.
  void read(const float* from, int64_t have) {
    low.read(from, have);
    high.read(from + W / 2 * LANES, have - W / 2 * LANES);
  }
  void write(float* to, int64_t have) const {
    low.write(to, have);
    high.write(to + W / 2 * LANES, have - W / 2 * LANES);
  }
};

template <>
struct Row<1> {
  Vector v = {};

  void add(const Row& z, float factor) { v += z.v * factor; }
  Vector dot(const Row& z) const { return v * z.v; }
  void read(const float* from, int64_t have) { v = have > 0 ? load(from, have) : Vector{}; }
  void write(float* to, int64_t have) const {
    if (have > 0) store(to, have, v);
  }
};

template <int W>
Row<W> read_row(const float* from, int64_t have) {
  Row<W> row;
  row.read(from, have);
  return row;
}

// What one token brings to one head: rows from pointers, columns of the panel in vectors.
template <int W>
struct Token {
  const float *q, *k, *a, *w, *u;
  float decay;
  Row<W> v;

  Token(const Inputs& in, const Unit& z, int64_t head, int64_t i, int64_t column)
      : q(in.q + in.of_group(z, i)), k(in.k + in.of_group(z, i)), a(in.a + in.of_head(z.row, head, i, in.s.d)),
        w(in.w ? in.w + in.of_head(z.row, head, i, in.s.k) : nullptr),
        u(in.u ? in.u + in.of_head(z.row, head, i, in.s.k) : nullptr), decay(*a),
        v(read_row<W>(in.v + in.of_head(z.row, head, i, in.s.p) + column, in.s.p - column)) {}

  // Returns row n of the state after the token from that before it.
  template <bool ROWS, bool FIX>
  Row<W> next(const Row<W>& before, const Row<W>& found, int64_t n) const {
    Row<W> after;
    after.add(before, ROWS ? a[n] : decay);
    after.add(v, k[n]);
    if (FIX) after.add(found, u[n]);
    return after;
  }

  // Returns what w finds in a state.
  Row<W> find(const Row<W>* S, int64_t rows) const {
    Row<W> found;
    for (int64_t n = 0; n < rows; ++n) found.add(S[n], w[n]);
    return found;
  }
};

template <int W>
void read_panel(const float* state, const Sizes& s, int64_t column, Row<W>* panel) {
  for (int64_t n = 0; n < s.k; ++n) panel[n] = read_row<W>(state + n * s.p + column, s.p - column);
}

template <int W>
void write_panel(float* state, const Sizes& s, int64_t column, const Row<W>* panel) {
  for (int64_t n = 0; n < s.k; ++n) panel[n].write(state + n * s.p + column, s.p - column);
}

// Adds to the `rows` numbers from `to` on the sums of as many vectors.
void add(float* to, int64_t rows, Vector* v) {
  store(to, rows, load(to, rows) + sums(v));
}

template <int W, bool ROWS, bool FIX>
void forward_panel(const Inputs& in, const Unit& z, int64_t head, int64_t column, const float* first, float* y,
                   float* last, float* entries, Row<W>* S) {
  const Sizes& s = in.s;
  int64_t state = (z.row * s.h + head) * s.k * s.p;
  read_panel<W>(first + state, s, column, S);
  for (int64_t i = 0; i < s.t; ++i) {
    if (entries && i % CHUNK == 0) {
      write_panel<W>(entries + ((z.row * s.chunks + i / CHUNK) * s.h + head) * s.k * s.p, s, column, S);
    }
    if (in.cleared(z.row, i)) std::fill(S, S + s.k, Row<W>{});
    const Token<W> token(in, z, head, i, column);
    Row<W> found, out;
    if (FIX) found = token.find(S, s.k);
    for (int64_t n = 0; n < s.k; ++n) {
      Row<W> after = token.template next<ROWS, FIX>(S[n], found, n);
      out.add(after, token.q[n]);
      S[n] = after;
    }
    out.write(y + in.of_head(z.row, head, i, s.p) + column, s.p - column);
  }
  write_panel<W>(last + state, s, column, S);
}

// The same for one token: the state is read and written row by row, without a copy.
template <int W, bool ROWS, bool FIX>
void step_panel(const Inputs& in, const Unit& z, int64_t head, int64_t column, const float* first, float* y,
                float* last) {
  const Sizes& s = in.s;
  int64_t state = (z.row * s.h + head) * s.k * s.p + column, have = s.p - column;
  bool cleared = in.cleared(z.row, 0);
  auto before = [&](int64_t n) { return cleared ? Row<W>{} : read_row<W>(first + state + n * s.p, have); };
  const Token<W> token(in, z, head, 0, column);
  Row<W> found, out;
  for (int64_t n = 0; FIX && n < s.k; ++n) found.add(before(n), token.w[n]);
  for (int64_t n = 0; n < s.k; ++n) {
    Row<W> after = token.template next<ROWS, FIX>(before(n), found, n);
    out.add(after, token.q[n]);
    after.write(last + state + n * s.p, have);
  }
  out.write(y + in.of_head(z.row, head, 0, s.p) + column, have);
}

struct Bars {
  float *q, *k, *v, *a, *w, *u, *S;
};

// The states before each token of a chunk, and after the last; what each w found there; the gradient of a state.
template <int W>
struct Scratch {
  std::vector<Row<W>> states, found, bar;

  explicit Scratch(const Sizes& s) : states((std::min(CHUNK, s.t) + 1) * s.k), found(std::min(CHUNK, s.t)), bar(s.k) {}
};

// Makes the states of a chunk again from the first, and adds to the gradient of q.
template <int W, bool ROWS, bool FIX>
void enter(const Inputs& in, const Unit& z, int64_t head, int64_t column, int64_t from, int64_t to, const float* y_bar,
           float* q_bar, Scratch<W>& scratch) {
  const Sizes& s = in.s;
  for (int64_t i = from; i < to; ++i) {
    Row<W> *S = &scratch.states[(i - from) * s.k], *after = S + s.k;
    if (in.cleared(z.row, i)) std::fill(S, after, Row<W>{});
    const Token<W> token(in, z, head, i, column);
    const Row<W> out = read_row<W>(y_bar + in.of_head(z.row, head, i, s.p) + column, s.p - column);
    Row<W> found;
    if (FIX) scratch.found[i - from] = found = token.find(S, s.k);
    for (int64_t n = 0; n < s.k; n += LANES) {
      int64_t rows = std::min<int64_t>(LANES, s.k - n);
      Vector read[LANES] = {};
      for (int64_t m = 0; m < rows; ++m) {
        Row<W> made = token.template next<ROWS, FIX>(S[n + m], found, n + m);
        read[m] = made.dot(out);
        after[n + m] = made;
      }
      add(q_bar + in.of_group(z, i) + n, rows, read);
    }
  }
}

// Where the gradients of one token's rows are.
struct RowBars {
  float *k, *a, *w, *u;
};

// Goes back over one token: G is the gradient of the state after it, and becomes that of the state before it. Returns
// the gradient of v.
template <int W, bool ROWS, bool FIX>
Row<W> back(const Token<W>& token, int64_t size, const Row<W>* S, const Row<W>& found, const Row<W>& out, Row<W>* G,
            const RowBars& bars) {
  Row<W> v_bar, found_bar;
  Vector decay = {};
  for (int64_t n = 0; n < size; n += LANES) {
    int64_t rows = std::min<int64_t>(LANES, size - n);
    Vector by_k[LANES] = {}, by_a[LANES] = {}, by_u[LANES] = {};
    for (int64_t m = 0; m < rows; ++m) {
      Row<W> here = G[n + m], before;
      here.add(out, token.q[n + m]);
      by_k[m] = here.dot(token.v);
      v_bar.add(here, token.k[n + m]);
      Vector decayed = here.dot(S[n + m]);
      if (ROWS) by_a[m] = decayed; else decay += decayed;
      if (FIX) {
        by_u[m] = here.dot(found);
        found_bar.add(here, token.u[n + m]);
      }
      before.add(here, ROWS ? token.a[n + m] : token.decay);
      G[n + m] = before;
    }
    add(bars.k + n, rows, by_k);
    if (ROWS) add(bars.a + n, rows, by_a);
    if (FIX) add(bars.u + n, rows, by_u);
  }
  if (!ROWS) *bars.a += sum(decay);
  for (int64_t n = 0; FIX && n < size; n += LANES) {
    int64_t rows = std::min<int64_t>(LANES, size - n);
    Vector by_w[LANES] = {};
    for (int64_t m = 0; m < rows; ++m) {
      by_w[m] = found_bar.dot(S[n + m]);
      G[n + m].add(found_bar, token.w[n + m]);
    }
    add(bars.w + n, rows, by_w);
  }
  return v_bar;
}

template <int W, bool ROWS, bool FIX>
void backward_panel(const Inputs& in, const Unit& z, int64_t head, int64_t column, const float* entries,
                    const float* y_bar, const Bars& bars, Scratch<W>& scratch) {
  const Sizes& s = in.s;
  int64_t state = (z.row * s.h + head) * s.k * s.p, part = z.part * s.b * s.t * s.g * s.k;
  Row<W>* G = scratch.bar.data();
  // where forward's caller left the gradient of the last state
  read_panel<W>(bars.S + state, s, column, G);
  for (int64_t chunk = s.chunks - 1; chunk >= 0; --chunk) {
    int64_t from = chunk * CHUNK, to = std::min(from + CHUNK, s.t);
    read_panel<W>(entries + ((z.row * s.chunks + chunk) * s.h + head) * s.k * s.p, s, column, scratch.states.data());
    enter<W, ROWS, FIX>(in, z, head, column, from, to, y_bar, bars.q + part, scratch);
    for (int64_t i = to - 1; i >= from; --i) {
      int64_t columns = in.of_head(z.row, head, i, s.p) + column, row = in.of_head(z.row, head, i, s.k);
      RowBars rows{bars.k + part + in.of_group(z, i), bars.a + in.of_head(z.row, head, i, s.d), bars.w + row,
                   bars.u + row};
      Row<W> out = read_row<W>(y_bar + columns, s.p - column);
      Row<W> v_bar = back<W, ROWS, FIX>(Token<W>(in, z, head, i, column), s.k, &scratch.states[(i - from) * s.k],
                                        scratch.found[i - from], out, G, rows);
      v_bar.write(bars.v + columns, s.p - column);
      if (in.cleared(z.row, i)) std::fill(G, G + s.k, Row<W>{});
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
  if (in.s.t == 1 && !entries) {
    return share_state(pool, in.s.units(), in.s.b * in.s.h * in.s.k * in.s.p, [=](int64_t number) {
      Unit z = in.s.unit(number);
      panels(in.s, z, W, [&](int64_t head, int64_t column) {
        step_panel<W, ROWS, FIX>(in, z, head, column, first, y, last);
      });
    });
  }
  share(pool, in.s.units(), [=](int64_t number) {
    Unit z = in.s.unit(number);
    std::vector<Row<W>> S(in.s.k);
    panels(in.s, z, W, [&](int64_t head, int64_t column) {
      forward_panel<W, ROWS, FIX>(in, z, head, column, first, y, last, entries, S.data());
    });
  });
}

template <int W, bool ROWS, bool FIX>
void backward(ffi::ThreadPool& pool, const Inputs& in, const float* entries, const float* y_bar, const Bars& bars) {
  share(pool, in.s.units(), [=](int64_t number) {
    Unit z = in.s.unit(number);
    Scratch<W> scratch(in.s);
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

ffi::Error RunForward(ffi::ThreadPool pool, int64_t parts, In q, In k, In v, In a, In w, In u, In S,
                      Mask reset, Out y, Out last, Out entries) {
  Inputs in{Sizes(q, v, a, parts), data(q), data(k), data(v), data(a), data(w), data(u),
            reset.element_count() ? reset.typed_data() : nullptr};
  float* saved = entries->element_count() ? entries->typed_data() : nullptr;
  passes(in).first(pool, in, S.typed_data(), y->typed_data(), last->typed_data(), saved);
  return ffi::Error::Success();
}

ffi::Error RunBackward(ffi::ThreadPool pool, int64_t parts, In q, In k, In v, In a, In w, In u,
                       Mask reset, In entries, In y_bar, In last_bar, Out q_bar, Out k_bar, Out v_bar, Out a_bar,
                       Out w_bar, Out u_bar, Out S_bar) {
  Inputs in{Sizes(q, v, a, parts), data(q), data(k), data(v), data(a), data(w), data(u),
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
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(matrix_state_backward, RunBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>()
                                  .Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

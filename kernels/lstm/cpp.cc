// `lstm` on CPUs, token after token, forward and backward; called through XLA's FFI.
//
// A thread takes some rows of the batch through all tokens. R is copied into panels: for LANES channels and each entry of
// h, one vector of each of the four gates, so that a product gives all that these channels need, and R is read from the
// second-level cache from one end to the other once a token. Units share no sum, so results do not depend on threads.
//
// Arrays: entered, gates and their gradients "b t 4 d", gates in the order i, f, g, o; R "d 4 d"; y, cells "b t d";
// h, c "b d"; reset, valid "b t", or nothing.

#include <utility>

#include "tiles.h"

namespace {

using namespace lanes;

constexpr int64_t GATES = 4;
constexpr int64_t PANEL = 4 * LANES;

struct Sizes {
  int64_t b, t, d, parts, width;  // channels, and as many filled up to whole vectors

  Sizes(int64_t b, int64_t t, int64_t d, int64_t parts)
      : b(b), t(t), d(d), parts(parts), width((d + LANES - 1) / LANES * LANES) {}
};

struct Masks {
  const bool *reset, *valid;

  Masks(const Mask& reset, const Mask& valid)
      : reset(reset.element_count() ? reset.typed_data() : nullptr),
        valid(valid.element_count() ? valid.typed_data() : nullptr) {}
  bool cleared(int64_t token) const { return reset && reset[token]; }
  bool there(int64_t token) const { return !valid || valid[token]; }
};

// R as "width / LANES panels, d, GATES, LANES".
Floats panels(const float* R, const Sizes& s) {
  Floats to(s.width * s.d * GATES);
  for (int64_t k = 0; k < s.d; ++k) {
    for (int64_t gate = 0; gate < GATES; ++gate) {
      for (int64_t j = 0; j < s.d; j += LANES) {
        Vector v = load(R + (k * GATES + gate) * s.d + j, s.d - j);
        store(to.data() + ((j / LANES * s.d + k) * GATES + gate) * LANES, LANES, v);
      }
    }
  }
  return to;
}

// The transpose of R as "width / PANEL panels, GATES width, PANEL".
Floats transposed(const float* R, const Sizes& s) {
  int64_t depth = GATES * s.width;
  Floats to((s.width + PANEL - 1) / PANEL * PANEL * depth);
  for (int64_t k = 0; k < s.d; ++k) {
    float* column = to.data() + k / PANEL * PANEL * depth + k % PANEL;
    for (int64_t gate = 0; gate < GATES; ++gate) {
      for (int64_t j = 0; j < s.d; ++j) column[(gate * s.width + j) * PANEL] = R[(k * GATES + gate) * s.d + j];
    }
  }
  return to;
}

// The states "rows width" of some rows, read from or written to arrays "b d".
struct Rows {
  int64_t first, many;

  void read(const float* from, const Sizes& s, float* to) const {
    for (int64_t r = 0; r < many; ++r) std::copy_n(from + (first + r) * s.d, s.d, to + r * s.width);
  }
  void write(const float* from, const Sizes& s, float* to) const {
    for (int64_t r = 0; r < many; ++r) std::copy_n(from + r * s.width, s.d, to + (first + r) * s.d);
  }
};

// Makes the gates of their arguments. Divisions are dear, so one does for two, of numbers whose product is finite.
void gates(Vector* z) {
  const float sign[GATES] = {-1.0f, -1.0f, 2.0f, -1.0f};
  for (int64_t gate = 0; gate < GATES; ++gate) {
    z[gate] = 1.0f + exp2(min(Vector{} + 60.0f, z[gate] * (sign[gate] * LOG2_E)));
  }
  for (int64_t gate = 0; gate < GATES; gate += 2) {
    Vector both = 1.0f / (z[gate] * z[gate + 1]), first = z[gate + 1] * both;
    z[gate + 1] = z[gate] * both;
    z[gate] = first;
  }
  // tanh z = 1 - 2 / (1 + exp 2 z)
  z[2] = 1.0f - 2.0f * z[2];
}

struct Kept {
  float *gates, *cells;
};

// Goes on by one token in one row and panel; `products` is h R.
void step(const Sizes& s, int64_t token, int64_t j, const float* entered, const float* products, const Kept& kept,
          float* h, float* c, float* y) {
  int64_t have = s.d - j;
  Vector z[GATES];
  for (int64_t gate = 0; gate < GATES; ++gate) {
    z[gate] = load(entered + (token * GATES + gate) * s.d + j, have) + load(products + gate * LANES, LANES);
  }
  gates(z);
  Vector cell = z[1] * load(c, LANES) + z[0] * z[2], out = z[3] * tanh(cell);
  store(c, LANES, cell);
  store(h, LANES, out);
  store(y + token * s.d + j, have, out);
  if (!kept.gates) return;
  for (int64_t gate = 0; gate < GATES; ++gate) {
    store(kept.gates + (token * GATES + gate) * s.d + j, have, z[gate]);
  }
  store(kept.cells + token * s.d + j, have, cell);
}

void forward(const Sizes& s, const Rows& rows, const Masks& masks, const float* entered, const float* R,
             const float* first_h, const float* first_c, float* y, float* last_h, float* last_c, const Kept& kept) {
  int64_t many = rows.many, w = s.width;
  Floats h(many * w), next(many * w), c(many * w), products(many * GATES * LANES);
  rows.read(first_h, s, h.data());
  rows.read(first_c, s, c.data());
  for (int64_t i = 0; i < s.t; ++i) {
    for (int64_t r = 0; r < many; ++r) {
      if (!masks.cleared((rows.first + r) * s.t + i)) continue;
      std::fill_n(h.data() + r * w, w, 0.0f);
      std::fill_n(c.data() + r * w, w, 0.0f);
    }
    for (int64_t j = 0; j < w; j += LANES) {
      // what the gates are added to comes from memory while the product is made
      for (int64_t r = 0; r < many * GATES; ++r) {
        int64_t token = (rows.first + r / GATES) * s.t + i;
        __builtin_prefetch(entered + (token * GATES + r % GATES) * s.d + j);
      }
      multiply<false>({s.d, h.data(), w, 1, R + j * s.d * GATES, GATES * LANES, products.data(), GATES * LANES}, many,
                      GATES);
      for (int64_t r = 0; r < many; ++r) {
        int64_t token = (rows.first + r) * s.t + i;
        if (masks.there(token)) {
          step(s, token, j, entered, products.data() + r * GATES * LANES, kept, next.data() + r * w + j,
               c.data() + r * w + j, y);
        } else {
          store(next.data() + r * w + j, LANES, load(h.data() + r * w + j, LANES));
          store(y + token * s.d + j, s.d - j, Vector{});
        }
      }
    }
    std::swap(h, next);
  }
  rows.write(h.data(), s, last_h);
  rows.write(c.data(), s, last_c);
}

// Goes back over one token in one row and panel; `h` and `c` are the gradients of the state after it, and that of c
// becomes the one before it. The gradients of the gates' arguments go to an array and to `rows`.
void back(const Sizes& s, int64_t token, int64_t j, const Kept& kept, Vector before, const float* y_bar,
          const float* h, float* c, float* entered_bar, float* rows) {
  int64_t have = s.d - j;
  Vector z[GATES], bars[GATES];
  for (int64_t gate = 0; gate < GATES; ++gate) z[gate] = load(kept.gates + (token * GATES + gate) * s.d + j, have);
  Vector bent = tanh(load(kept.cells + token * s.d + j, have));
  Vector out = load(h, LANES) + load(y_bar + token * s.d + j, have);
  Vector cell = load(c, LANES) + out * z[3] * (1.0f - bent * bent);
  bars[0] = cell * z[2] * z[0] * (1.0f - z[0]);
  bars[1] = cell * before * z[1] * (1.0f - z[1]);
  bars[2] = cell * z[0] * (1.0f - z[2] * z[2]);
  bars[3] = out * bent * z[3] * (1.0f - z[3]);
  store(c, LANES, cell * z[1]);
  for (int64_t gate = 0; gate < GATES; ++gate) {
    store(entered_bar + (token * GATES + gate) * s.d + j, have, bars[gate]);
    store(rows + gate * s.width + j, LANES, bars[gate]);
  }
}

void backward(const Sizes& s, const Rows& rows, const Masks& masks, const float* R, const float* first_c,
              const Kept& kept, const float* y_bar, const float* last_h_bar, const float* last_c_bar,
              float* entered_bar, float* h_bar, float* c_bar) {
  int64_t many = rows.many, w = s.width;
  Floats h(many * w), next(many * w), c(many * w), bars(many * GATES * w);
  rows.read(last_h_bar, s, h.data());
  rows.read(last_c_bar, s, c.data());
  for (int64_t i = s.t - 1; i >= 0; --i) {
    for (int64_t r = 0; r < many; ++r) {
      int64_t token = (rows.first + r) * s.t + i;
      float* to = bars.data() + r * GATES * w;
      if (!masks.there(token)) {
        std::fill_n(to, GATES * w, 0.0f);
        std::fill_n(entered_bar + token * GATES * s.d, GATES * s.d, 0.0f);
        continue;
      }
      const float* before = i ? kept.cells + (token - 1) * s.d : first_c + (rows.first + r) * s.d;
      for (int64_t j = 0; j < w; j += LANES) {
        Vector cell = masks.cleared(token) ? Vector{} : load(before + j, s.d - j);
        back(s, token, j, kept, cell, y_bar, h.data() + r * w + j, c.data() + r * w + j, entered_bar, to);
      }
    }
    for (int64_t j = 0; j < w; j += PANEL) {
      Product z{GATES * w, bars.data(), GATES * w, 1, R + j * GATES * w, PANEL, next.data() + j, w};
      multiply<false>(z, many, std::min(PANEL, w - j) / LANES);
    }
    for (int64_t r = 0; r < many; ++r) {
      int64_t token = (rows.first + r) * s.t + i;
      if (!masks.there(token)) std::copy_n(h.data() + r * w, w, next.data() + r * w);
      if (!masks.cleared(token)) continue;
      std::fill_n(next.data() + r * w, w, 0.0f);
      std::fill_n(c.data() + r * w, w, 0.0f);
    }
    std::swap(h, next);
  }
  rows.write(h.data(), s, h_bar);
  rows.write(c.data(), s, c_bar);
}

// Calls run(rows) for all parts of the batch.
template <typename Run>
void by_rows(ffi::ThreadPool& pool, const Sizes& s, Run run) {
  share(pool, s.parts, [&](int64_t part) {
    int64_t first = s.b * part / s.parts, end = s.b * (part + 1) / s.parts;
    run(Rows{first, end - first});
  });
}

ffi::Error RunForward(ffi::ThreadPool pool, int64_t parts, In entered, In R, In h, In c, Mask reset, Mask valid, Out y,
                      Out last_h, Out last_c, Out gates, Out cells) {
  Sizes s(h.dimensions()[0], entered.dimensions()[1], h.dimensions()[1], parts);
  Masks masks(reset, valid);
  const Floats order = panels(R.typed_data(), s);
  Kept kept{gates->element_count() ? gates->typed_data() : nullptr, cells->typed_data()};
  by_rows(pool, s, [&](const Rows& rows) {
    forward(s, rows, masks, entered.typed_data(), order.data(), h.typed_data(), c.typed_data(), y->typed_data(),
            last_h->typed_data(), last_c->typed_data(), kept);
  });
  return ffi::Error::Success();
}

ffi::Error RunBackward(ffi::ThreadPool pool, int64_t parts, In R, In c, Mask reset, Mask valid, In gates, In cells,
                       In y_bar, In last_h_bar, In last_c_bar, Out entered_bar, Out h_bar, Out c_bar) {
  Sizes s(c.dimensions()[0], cells.dimensions()[1], c.dimensions()[1], parts);
  Masks masks(reset, valid);
  const Floats order = transposed(R.typed_data(), s);
  Kept kept{const_cast<float*>(gates.typed_data()), const_cast<float*>(cells.typed_data())};
  by_rows(pool, s, [&](const Rows& rows) {
    backward(s, rows, masks, order.data(), c.typed_data(), kept, y_bar.typed_data(), last_h_bar.typed_data(),
             last_c_bar.typed_data(), entered_bar->typed_data(), h_bar->typed_data(), c_bar->typed_data());
  });
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_forward, RunForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Arg<Mask>().Arg<Mask>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_backward, RunBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("parts")
                                  .Arg<In>().Arg<In>()
                                  .Arg<Mask>().Arg<Mask>()
                                  .Arg<In>().Arg<In>().Arg<In>().Arg<In>().Arg<In>()
                                  .Ret<F32>().Ret<F32>().Ret<F32>());

// `attention` on CPUs, block by block (FlashAttention), forward and backward; called through XLA's FFI.
//
// Lanes are queries: the scores of a block are "keys queries", so that maxima and sums over keys never cross a vector,
// and only queries and results are transposed, once a block. All products read one number of a key or value at a time.
// Exponentials are powers of 2, and scores are in those units.
//
// A thread takes TOGETHER blocks of queries of one head forward. Backward it takes the heads that share keys, and of
// those every `parts`-th so many blocks: it adds up the gradients of all keys by itself. So no result depends on
// threads.
//
// A token that is not finite is read as zeros. Queries that are such a token or see one have y and level NaN, and no
// gradient.
//
// Arrays: q "b t h k"; y "b t h p"; k "b s g k"; v "b s g p"; positions, segments (or nothing) and whether tokens are
// finite, "b t" and "b s"; slopes "h", or nothing; levels, the logarithms of sums of exponentials, "b h t"; gradients
// of k and v "parts b s g k" and "parts b s g p".

#include "blocks.h"

namespace {

// One block of queries of a head.
struct Queries {
  int64_t row, head, first, many;
  Floats rows, columns;  // "queries k"; "k BLOCK", multiplied by the rules' factor
  Bits position[VECTORS], segment[VECTORS], spoilt[VECTORS];

  Queries(const Inputs& in, int64_t row, int64_t head, int64_t block)
      : row(row), head(head), first(block * BLOCK), many(std::min(BLOCK, in.s.t - first)),
        rows(BLOCK * padded(in.s.k)), columns(BLOCK * padded(in.s.k)) {
    int64_t place = row * in.s.t + first;
    copy(in.query(row, first, head), in.s.h * in.s.k, many, in.s.k, in.at.finite + place, rows.data());
    transpose(rows.data(), padded(in.s.k), BLOCK, padded(in.s.k), columns.data(), BLOCK);
    for (int64_t i = 0; i < BLOCK * padded(in.s.k); ++i) columns.data()[i] *= in.rules.factor();
    for (int64_t j = 0; j < VECTORS; ++j) {
      int64_t have = many - j * LANES;
      position[j] = ints(in.at.position + place + j * LANES, have);
      segment[j] = ints(in.at.segment ? in.at.segment + place + j * LANES : nullptr, have);
      for (int64_t lane = 0; lane < LANES; ++lane) {
        spoilt[j][lane] = lane < have && !in.at.finite[place + j * LANES + lane] ? -1 : 0;
      }
    }
  }
  // Vectors of queries that are there.
  int64_t vectors() const { return (many + LANES - 1) / LANES; }

  // Which of the queries of vector j see a key.
  Bits see(const Inputs& in, int64_t place, int64_t j) const {
    if (in.of.segment && in.of.segment[place] == EVERYONE) return ~Bits{};
    Bits back = position[j] - in.of.position[place], see = ~Bits{};
    if (in.rules.causal) see &= back >= 0;
    if (in.rules.window && in.rules.window < EVERYONE) see &= back < (int32_t)in.rules.window;
    if (in.of.segment) see &= (segment[j] == in.of.segment[place]) & (segment[j] >= 0);
    return see;
  }

  // Marks the queries that see a key which is not finite.
  void spoil(const Inputs& in, int64_t block) {
    for (int64_t i = block * BLOCK; i < std::min((block + 1) * BLOCK, in.s.s); ++i) {
      int64_t place = row * in.s.s + i;
      for (int64_t j = 0; j < vectors() && !in.of.finite[place]; ++j) spoilt[j] |= see(in, place, j);
    }
  }
};

// The keys and values of one block.
struct Keys {
  int64_t first, many;
  Floats k, v;  // "keys k", "keys p"

  explicit Keys(const Sizes& s) : k(BLOCK * padded(s.k)), v(BLOCK * padded(s.p)) {}

  void read(const Inputs& in, int64_t row, int64_t group, int64_t block) {
    first = block * BLOCK;
    many = std::min(BLOCK, in.s.s - first);
    const bool* finite = in.of.finite + row * in.s.s + first;
    copy(in.key(row, first, group), in.s.g * in.s.k, many, in.s.k, finite, k.data());
    copy(in.value(row, first, group), in.s.g * in.s.p, many, in.s.p, finite, v.data());
  }
};

// Turns products into scores, those of keys that a query does not see into -inf; `rise` becomes the derivative of each
// score by q . k, times ln 2, where there is a soft cap.
void bend(const Inputs& in, const Queries& q, const Keys& keys, Seen seen, float* scores, float* rise) {
  float cap = in.rules.softcap, slope = in.slopes ? in.slopes[q.head] * LOG2_E : 0.0f;
  if (!cap && !in.slopes && seen == Seen::ALL) return;
  for (int64_t i = 0; i < keys.many; ++i) {
    int64_t place = q.row * in.s.s + keys.first + i;
    for (int64_t j = 0; j < q.vectors(); ++j) {
      int64_t at = i * BLOCK + j * LANES;
      Vector score = load(scores + at, LANES);
      if (cap) {
        Vector bent = tanh(score);
        score = bent * (cap * LOG2_E);
        if (rise) store(rise + at, LANES, in.rules.scale * (1.0f - bent * bent));
      }
      if (in.slopes) {
        Bits back = q.position[j] - in.of.position[place];
        score -= slope * __builtin_convertvector(back < 0 ? -back : back, Vector);
      }
      if (seen == Seen::SOME) score = q.see(in, place, j) ? score : Vector{} - INF;
      store(scores + at, LANES, score);
    }
  }
}

// The running softmax of a block of queries.
struct Softmax {
  Vector top[VECTORS], total[VECTORS];

  Softmax() {
    std::fill(top, top + VECTORS, Vector{} - INF);
    std::fill(total, total + VECTORS, Vector{});
  }

  // Turns scores into weights under the largest score so far, and makes what was summed before smaller accordingly.
  void weigh(int64_t keys, float* scores, int64_t rows, float* sums) {
    Vector higher[VECTORS], base[VECTORS], sum[VECTORS] = {};
    std::copy(top, top + VECTORS, higher);
    for (int64_t i = 0; i < keys; ++i) {
      for (int j = 0; j < VECTORS; ++j) higher[j] = max(load(scores + i * BLOCK + j * LANES, LANES), higher[j]);
    }
    // a query that has seen nothing yet stays at -inf, which is never subtracted
    for (int j = 0; j < VECTORS; ++j) base[j] = higher[j] == -INF ? Vector{} : higher[j];
    for (int64_t i = 0; i < keys; ++i) {
      for (int j = 0; j < VECTORS; ++j) {
        float* at = scores + i * BLOCK + j * LANES;
        Vector weight = small_exp2(load(at, LANES) - base[j]);
        store(at, LANES, weight);
        sum[j] += weight;
      }
    }
    for (int j = 0; j < VECTORS; ++j) {
      Vector shrink = small_exp2(top[j] - base[j]);
      total[j] = total[j] * shrink + sum[j];
      if (any(higher[j] != top[j])) {
        for (int64_t n = 0; n < rows; ++n) {
          float* at = sums + n * BLOCK + j * LANES;
          store(at, LANES, load(at, LANES) * shrink);
        }
      }
      top[j] = higher[j];
    }
  }
};

// Divides what was summed by the sums of weights, and returns the levels.
void finish(const Queries& q, const Softmax& softmax, int64_t rows, float* sums, Vector* levels) {
  const Vector nan = Vector{} + std::numeric_limits<float>::quiet_NaN();
  for (int j = 0; j < VECTORS; ++j) {
    Bits saw = softmax.top[j] != -INF;
    Vector factor = q.spoilt[j] ? nan : saw ? 1.0f / softmax.total[j] : Vector{};
    for (int64_t n = 0; n < rows; ++n) {
      float* at = sums + n * BLOCK + j * LANES;
      store(at, LANES, load(at, LANES) * factor);
    }
    Vector level;
    for (int i = 0; i < LANES; ++i) level[i] = std::log2(softmax.total[j][i]);
    // under a level of inf all weights are 0
    levels[j] = q.spoilt[j] ? nan : saw ? softmax.top[j] + level : Vector{} + INF;
  }
}

// A block of queries on its way forward.
struct Reader {
  Queries q;
  Softmax softmax;
  Floats sums;

  Reader(const Inputs& in, int64_t row, int64_t head, int64_t block)
      : q(in, row, head, block), sums(padded(in.s.p) * BLOCK) {}

  void read(const Inputs& in, const Keys& keys, Seen seen, float* scores) {
    const Sizes& s = in.s;
    const int64_t k = padded(s.k), p = padded(s.p), vectors = q.vectors();
    multiply<false>({s.k, keys.k.data(), k, 1, q.columns.data(), BLOCK, scores, BLOCK}, keys.many, vectors);
    bend(in, q, keys, seen, scores, nullptr);
    softmax.weigh(keys.many, scores, s.p, sums.data());
    multiply<true>({keys.many, keys.v.data(), 1, p, scores, BLOCK, sums.data(), BLOCK}, s.p, vectors);
  }

  void write(const Inputs& in, float* y, float* levels) {
    const Sizes& s = in.s;
    Vector level[VECTORS];
    finish(q, softmax, s.p, sums.data(), level);
    spread(sums.data(), q.many, s.p, y + in.result(q.row, q.first, q.head), s.h * s.p);
    for (int64_t j = 0; j < q.vectors(); ++j) {
      store(levels + (q.row * s.h + q.head) * s.t + q.first + j * LANES, q.many - j * LANES, level[j]);
    }
  }
};

void forward(const Inputs& in, int64_t row, int64_t head, int64_t first, float* y, float* levels) {
  std::vector<Reader> readers;
  for (int64_t i = first; i < std::min(first + TOGETHER, blocks(in.s.t)); ++i) readers.emplace_back(in, row, head, i);
  Keys keys(in.s);
  Floats scores(BLOCK * BLOCK);
  for (int64_t j = 0; j < blocks(in.s.s); ++j) {
    const Range& range = in.of.range(row, j);
    bool ready = false;
    for (Reader& reader : readers) {
      Seen seen = in.seen(in.at.range(row, reader.q.first / BLOCK), range);
      if (seen == Seen::NONE) continue;
      if (!ready) keys.read(in, row, head / (in.s.h / in.s.g), j);
      ready = true;
      if (!range.finite) reader.q.spoil(in, j);
      reader.read(in, keys, seen, scores.data());
    }
  }
  for (Reader& reader : readers) reader.write(in, y, levels);
}

// A block of queries on its way back: the gradient of its y, and what y and the levels tell of it.
struct Cotangents {
  Queries q;
  Floats rows, columns, q_bar;  // of y "queries p" and "p BLOCK"; "k BLOCK"
  Vector level[VECTORS], through[VECTORS];

  Cotangents(const Inputs& in, Queries&& queries, const float* y, const float* y_bar, const float* levels)
      : q(std::move(queries)), rows(BLOCK * padded(in.s.p)), columns(BLOCK * padded(in.s.p)),
        q_bar(BLOCK * padded(in.s.k)) {
    const Sizes& s = in.s;
    int64_t from = in.result(q.row, q.first, q.head), width = padded(s.p);
    levels += (q.row * s.h + q.head) * s.t + q.first;
    bool there[BLOCK];
    for (int64_t i = 0; i < q.many; ++i) there[i] = !std::isnan(levels[i]);
    copy(y_bar + from, s.h * s.p, q.many, s.p, there, rows.data());
    transpose(rows.data(), width, BLOCK, width, columns.data(), BLOCK);
    for (int64_t j = 0; j < VECTORS; ++j) {
      Vector products[LANES] = {};
      level[j] = Vector{} + INF;
      for (int64_t i = 0; i < std::min<int64_t>(LANES, q.many - j * LANES); ++i) {
        int64_t at = j * LANES + i;
        if (!there[at]) continue;
        level[j][i] = levels[at];
        for (int64_t n = 0; n < s.p; n += LANES) {
          products[i] += load(rows.data() + at * width + n, LANES) * load(y + from + at * s.h * s.p + n, s.p - n);
        }
      }
      through[j] = lanes::sums(products);
    }
  }
};

// Turns scores into weights, and the gradients of weights into those of products.
void weigh_back(const Rules& rules, int64_t keys, const Cotangents& bars, float* scores, float* d, const float* rise) {
  for (int64_t i = 0; i < keys; ++i) {
    for (int j = 0; j < VECTORS; ++j) {
      int64_t at = i * BLOCK + j * LANES;
      Vector weight = small_exp2(load(scores + at, LANES) - bars.level[j]);
      Vector slope = rules.softcap ? load(rise + at, LANES) : Vector{} + rules.scale;
      store(scores + at, LANES, weight);
      store(d + at, LANES, weight * slope * (load(d + at, LANES) - bars.through[j]));
    }
  }
}

struct Bars {
  float *q, *k, *v;
};

// The gradients of all keys and values of a group, filled up to whole vectors, and of one pair of blocks.
struct Sums {
  Floats k, v, scores, d, rise;

  explicit Sums(const Sizes& s)
      : k(s.s * padded(s.k)), v(s.s * padded(s.p)), scores(BLOCK * BLOCK), d(BLOCK * BLOCK), rise(BLOCK * BLOCK) {}
};

// Adds the gradients by way of one pair of blocks.
void back(const Inputs& in, const Keys& keys, Seen seen, Cotangents& bars, Sums& sums) {
  const Sizes& s = in.s;
  const Queries& q = bars.q;
  const int64_t k = padded(s.k), p = padded(s.p), vectors = q.vectors();
  float *scores = sums.scores.data(), *d = sums.d.data();
  float *k_bar = sums.k.data() + keys.first * k, *v_bar = sums.v.data() + keys.first * p;
  multiply<false>({s.k, keys.k.data(), k, 1, q.columns.data(), BLOCK, scores, BLOCK}, keys.many, vectors);
  multiply<false>({s.p, keys.v.data(), p, 1, bars.columns.data(), BLOCK, d, BLOCK}, keys.many, vectors);
  bend(in, q, keys, seen, scores, sums.rise.data());
  weigh_back(in.rules, keys.many, bars, scores, d, sums.rise.data());
  multiply<true>({q.many, scores, BLOCK, 1, bars.rows.data(), p, v_bar, p}, keys.many, p / LANES);
  multiply<true>({q.many, d, BLOCK, 1, q.rows.data(), k, k_bar, k}, keys.many, k / LANES);
  multiply<true>({keys.many, keys.k.data(), 1, k, d, BLOCK, bars.q_bar.data(), BLOCK}, s.k, vectors);
}

void back_from(const Inputs& in, std::vector<Cotangents>& all, Keys& keys, Sums& sums, float* q_bar) {
  const Sizes& s = in.s;
  const Queries& one = all[0].q;
  for (int64_t j = 0; j < blocks(s.s); ++j) {
    bool ready = false;
    for (Cotangents& bars : all) {
      Seen seen = in.seen(in.at.range(one.row, bars.q.first / BLOCK), in.of.range(one.row, j));
      if (seen == Seen::NONE) continue;
      if (!ready) keys.read(in, one.row, one.head / (s.h / s.g), j);
      ready = true;
      back(in, keys, seen, bars, sums);
    }
  }
  for (Cotangents& bars : all) {
    int64_t place = in.query(one.row, bars.q.first, one.head) - in.q;
    spread(bars.q_bar.data(), bars.q.many, s.k, q_bar + place, s.h * s.k);
  }
}

void backward(const Inputs& in, const Unit& z, const float* y, const float* y_bar, const float* levels,
              const Bars& bars) {
  const Sizes& s = in.s;
  Sums sums(s);
  Keys keys(s);
  int64_t heads = s.h / s.g;
  for (int64_t head = z.group * heads; head < (z.group + 1) * heads; ++head) {
    for (int64_t first = z.part * TOGETHER; first < blocks(s.t); first += s.parts * TOGETHER) {
      std::vector<Cotangents> all;
      for (int64_t i = first; i < std::min(first + TOGETHER, blocks(s.t)); ++i) {
        all.emplace_back(in, Queries(in, z.row, head, i), y, y_bar, levels);
      }
      back_from(in, all, keys, sums, bars.q);
    }
  }
  for (int64_t i = 0; i < s.s; ++i) {
    int64_t place = ((z.part * s.b + z.row) * s.s + i) * s.g + z.group;
    std::copy_n(sums.k.data() + i * padded(s.k), s.k, bars.k + place * s.k);
    std::copy_n(sums.v.data() + i * padded(s.p), s.p, bars.v + place * s.p);
  }
}

Inputs inputs(int64_t parts, const Rules& rules, In q, In k, In v, Ints at, Ints of, Ints segments, Ints key_segments,
              Mask finite, Mask keys_finite, In slopes) {
  return {Sizes(q, k, v, parts), rules, Places(at, segments, finite), Places(of, key_segments, keys_finite),
          q.typed_data(), k.typed_data(), v.typed_data(), slopes.element_count() ? slopes.typed_data() : nullptr};
}

ffi::Error RunForward(ffi::ThreadPool pool, int64_t parts, bool causal, int64_t window, float scale, float softcap,
                      In q, In k, In v, Ints at, Ints of, Ints segments, Ints key_segments, Mask finite,
                      Mask keys_finite, In slopes, Out y, Out levels) {
  Inputs in = inputs(parts, {causal, window, scale, softcap}, q, k, v, at, of, segments, key_segments, finite,
                     keys_finite, slopes);
  int64_t h = in.s.h, many = (blocks(in.s.t) + TOGETHER - 1) / TOGETHER;
  // the last blocks, which see the most keys if causal, come first
  share(pool, in.s.b * h * many, [&](int64_t unit) {
    int64_t first = (many - 1 - unit % many) * TOGETHER;
    forward(in, unit / many / h, unit / many % h, first, y->typed_data(), levels->typed_data());
  });
  return ffi::Error::Success();
}

ffi::Error RunBackward(ffi::ThreadPool pool, int64_t parts, bool causal, int64_t window, float scale, float softcap,
                       In q, In k, In v, Ints at, Ints of, Ints segments, Ints key_segments, Mask finite,
                       Mask keys_finite, In slopes, In y, In levels, In y_bar, Out q_bar, Out k_bar, Out v_bar) {
  Inputs in = inputs(parts, {causal, window, scale, softcap}, q, k, v, at, of, segments, key_segments, finite,
                     keys_finite, slopes);
  Bars bars{q_bar->typed_data(), k_bar->typed_data(), v_bar->typed_data()};
  share(pool, in.s.b * in.s.g * parts, [&](int64_t unit) {
    backward(in, Unit(unit, in.s.h, in.s.g, parts), y.typed_data(), y_bar.typed_data(), levels.typed_data(), bars);
  });
  return ffi::Error::Success();
}

using F32 = ffi::Buffer<ffi::F32>;

auto Signature() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Attr<int64_t>("parts").Attr<bool>("causal").Attr<int64_t>("window").Attr<float>("scale").Attr<float>("softcap")
      .Arg<In>().Arg<In>().Arg<In>()
      .Arg<Ints>().Arg<Ints>().Arg<Ints>().Arg<Ints>()
      .Arg<Mask>().Arg<Mask>().Arg<In>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, RunForward, Signature().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, RunBackward,
                              Signature().Arg<In>().Arg<In>().Arg<In>().Ret<F32>().Ret<F32>().Ret<F32>());

// `attention` on CPUs, block by block (FlashAttention), forward and backward; called through XLA's FFI.
//
// Lanes are queries: the scores of a block are "keys queries", so that maxima and sums over keys never cross a vector,
// and only queries and results are transposed, once a block. All products read one number of a key or value at a time.
// Exponentials are powers of 2, and scores are in those units.
//
// A thread takes one block of queries of one head forward. Backward it takes the heads that share keys, and of those
// every `parts`-th block of queries: it adds up the gradients of all keys by itself. So no result depends on threads.
//
// Arrays: q, y "b t h k"; k "b s g k"; v "b s g p"; positions and segments "b t" and "b s", or no segments; finite
// "b s"; slopes "h", or nothing; spoilt "b t"; levels "b h t"; gradients of k and v "parts b s g k".

#include <cmath>
#include <limits>

#include "tiles.h"

namespace {

using namespace lanes;

using Ints = ffi::Buffer<ffi::S32>;

constexpr int64_t BLOCK = 64;               // queries, and keys
constexpr int64_t VECTORS = BLOCK / LANES;  // of queries
constexpr int32_t EVERYONE = std::numeric_limits<int32_t>::max();
constexpr float INF = std::numeric_limits<float>::infinity();

int64_t blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK; }
int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

struct Sizes {
  int64_t b, t, h, k, s, g, p, parts;

  Sizes(const In& q, const In& k_, const In& v, int64_t parts)
      : b(q.dimensions()[0]), t(q.dimensions()[1]), h(q.dimensions()[2]), k(q.dimensions()[3]), s(k_.dimensions()[1]),
        g(k_.dimensions()[2]), p(v.dimensions()[3]), parts(parts) {}
};

// What decides who sees whom.
struct Rules {
  bool causal;
  int64_t window;  // 0: none
  float scale, softcap;  // 0: none

  // Products of queries multiplied by this are scores, or what the soft cap bends.
  float factor() const { return softcap ? scale / softcap : scale * LOG2_E; }
};

// Where the tokens of a block are: the ends of positions and segments of those that are any.
struct Range {
  int64_t low = 0, high = 0, first = 0, last = 0;
  bool any = false, whole = true, everyone = false, finite = true;

  void add(int32_t position, int32_t segment, bool is_finite) {
    finite &= is_finite;
    if (segment < 0) {
      whole = false;
      return;
    }
    low = any ? std::min<int64_t>(low, position) : position;
    high = any ? std::max<int64_t>(high, position) : position;
    first = any ? std::min<int64_t>(first, segment) : segment;
    last = any ? std::max<int64_t>(last, segment) : segment;
    any = true;
    everyone |= segment == EVERYONE;
  }
};

// Tokens of all rows: where they are, and the ranges of their blocks.
struct Places {
  int64_t size;
  const int32_t *position, *segment;
  const bool* finite;
  std::vector<Range> ranges;

  Places(const Ints& positions, const Ints& segments, const bool* finite)
      : size(positions.dimensions()[1]), position(positions.typed_data()),
        segment(segments.element_count() ? segments.typed_data() : nullptr), finite(finite),
        ranges(positions.dimensions()[0] * blocks(size)) {
    for (int64_t i = 0; i < (int64_t)positions.element_count(); ++i) {
      Range& range = ranges[i / size * blocks(size) + i % size / BLOCK];
      range.add(position[i], segment ? segment[i] : 0, !finite || finite[i]);
    }
  }
  const Range& range(int64_t row, int64_t block) const { return ranges[row * blocks(size) + block]; }
};

enum class Seen { NONE, SOME, ALL };

struct Inputs {
  Sizes s;
  Rules rules;
  Places at, of;
  const float *q, *k, *v, *slopes;

  const float* query(int64_t row, int64_t i, int64_t head) const { return q + ((row * s.t + i) * s.h + head) * s.k; }
  int64_t result(int64_t row, int64_t i, int64_t head) const { return ((row * s.t + i) * s.h + head) * s.p; }
  const float* key(int64_t row, int64_t i, int64_t group) const { return k + ((row * s.s + i) * s.g + group) * s.k; }
  const float* value(int64_t row, int64_t i, int64_t group) const { return v + ((row * s.s + i) * s.g + group) * s.p; }

  // How many keys of a block the queries of another one see, by the ranges of both.
  Seen seen(const Range& q, const Range& k) const {
    if (!q.any || !k.any) return Seen::NONE;
    if (k.everyone) return Seen::SOME;
    if (rules.causal && q.high < k.low) return Seen::NONE;
    if (rules.window && q.low - k.high >= rules.window) return Seen::NONE;
    if (q.first > k.last || q.last < k.first) return Seen::NONE;
    bool all = q.whole && k.whole && q.first == q.last && k.first == k.last;
    all &= !rules.causal || q.low >= k.high;
    all &= !rules.window || q.high - k.low < rules.window;
    return all ? Seen::ALL : Seen::SOME;
  }
};

Bits ints(const int32_t* from, int64_t have) {
  Bits z = {};
  if (from && have > 0) std::memcpy(&z, from, std::min<int64_t>(have, LANES) * sizeof(int32_t));
  return z;
}

// One block of queries of a head, as columns.
struct Queries {
  int64_t row, head, first, many;
  std::vector<float> columns;  // "k BLOCK", multiplied by the rules' factor
  Bits position[VECTORS], segment[VECTORS];

  Queries(const Inputs& in, int64_t row, int64_t head, int64_t block)
      : row(row), head(head), first(block * BLOCK), many(std::min(BLOCK, in.s.t - first)), columns(in.s.k * BLOCK) {
    for (int64_t i = 0; i < many; ++i) {
      const float* q = in.query(row, first + i, head);
      for (int64_t n = 0; n < in.s.k; ++n) columns[n * BLOCK + i] = q[n] * in.rules.factor();
    }
    for (int64_t j = 0; j < VECTORS; ++j) {
      int64_t place = row * in.s.t + first + j * LANES, have = many - j * LANES;
      position[j] = ints(in.at.position + place, have);
      segment[j] = ints(in.at.segment ? in.at.segment + place : nullptr, have);
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
};

// Rows of `size` numbers, next to each other and filled up with zeros to rows of `width`.
void copy(const float* from, int64_t apart, int64_t rows, int64_t size, int64_t width, float* to) {
  for (int64_t i = 0; i < rows; ++i, from += apart, to += width) {
    std::copy(from, from + size, to);
    std::fill(to + size, to + width, 0.0f);
  }
}

// The keys and values of one block.
struct Keys {
  int64_t first, many;
  std::vector<float> k, v;  // "keys k", "keys p"

  explicit Keys(const Sizes& s) : k(BLOCK * s.k), v(BLOCK * s.p) {}

  void read(const Inputs& in, int64_t row, int64_t group, int64_t block) {
    first = block * BLOCK;
    many = std::min(BLOCK, in.s.s - first);
    copy(in.key(row, first, group), in.s.g * in.s.k, many, in.s.k, in.s.k, k.data());
    copy(in.value(row, first, group), in.s.g * in.s.p, many, in.s.p, in.s.p, v.data());
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

// Marks the queries that see a key which is not finite.
void spoil(const Inputs& in, const Queries& q, int64_t block, float* spoilt) {
  int64_t end = std::min((block + 1) * BLOCK, in.s.s);
  for (int64_t i = block * BLOCK; i < end; ++i) {
    if (in.of.finite[q.row * in.s.s + i]) continue;
    for (int64_t j = 0; j < q.vectors(); ++j) {
      Bits see = q.see(in, q.row * in.s.s + i, j);
      for (int64_t lane = 0; lane < std::min<int64_t>(LANES, q.many - j * LANES); ++lane) {
        if (see[lane]) spoilt[q.row * in.s.t + q.first + j * LANES + lane] = 1.0f;
      }
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
  void weigh(int64_t keys, int64_t vectors, float* scores, int64_t rows, float* sums) {
    for (int64_t j = 0; j < vectors; ++j) {
      float* column = scores + j * LANES;
      Vector higher = top[j], sum = {};
      for (int64_t i = 0; i < keys; ++i) higher = max(load(column + i * BLOCK, LANES), higher);
      // a query that has seen nothing yet stays at -inf, which is never subtracted
      Vector base = higher == -INF ? Vector{} : higher, shrink = exp2(top[j] - base);
      for (int64_t i = 0; i < keys; ++i) {
        Vector weight = exp2(load(column + i * BLOCK, LANES) - base);
        store(column + i * BLOCK, LANES, weight);
        sum += weight;
      }
      for (int64_t n = 0; n < rows; ++n) {
        float* at = sums + n * BLOCK + j * LANES;
        store(at, LANES, load(at, LANES) * shrink);
      }
      total[j] = total[j] * shrink + sum;
      top[j] = higher;
    }
  }
};

void forward(const Inputs& in, int64_t row, int64_t head, int64_t block, float* y, float* spoilt, float* levels) {
  const Sizes& s = in.s;
  Queries q(in, row, head, block);
  Keys keys(s);
  Softmax softmax;
  std::vector<float> scores(BLOCK * BLOCK), sums(s.p * BLOCK);
  for (int64_t j = 0; j < blocks(s.s); ++j) {
    const Range& range = in.of.range(row, j);
    Seen seen = in.seen(in.at.range(row, block), range);
    if (seen == Seen::NONE) continue;
    if (head == 0 && !range.finite) spoil(in, q, j, spoilt);
    keys.read(in, row, head / (s.h / s.g), j);
    multiply<false>({s.k, keys.k.data(), s.k, 1, q.columns.data(), BLOCK, scores.data(), BLOCK}, keys.many, q.vectors());
    bend(in, q, keys, seen, scores.data(), nullptr);
    softmax.weigh(keys.many, q.vectors(), scores.data(), s.p, sums.data());
    multiply<true>({keys.many, keys.v.data(), 1, s.p, scores.data(), BLOCK, sums.data(), BLOCK}, s.p, q.vectors());
  }
  for (int64_t i = 0; i < q.many; ++i) {
    float total = softmax.total[i / LANES][i % LANES], top = softmax.top[i / LANES][i % LANES];
    float* to = y + in.result(row, q.first + i, head);
    bool saw = top != -INF;
    for (int64_t n = 0; n < s.p; ++n) to[n] = saw ? sums[n * BLOCK + i] / total : 0.0f;
    // under a level of inf all weights are 0
    levels[(row * s.h + head) * s.t + q.first + i] = saw ? top + std::log2(total) : INF;
  }
}

// What backward knows of one block of queries beside them.
struct Cotangents {
  std::vector<float> columns, rows, q_rows;  // of y "p BLOCK" and "queries p"; the queries themselves, "queries k"
  Vector level[VECTORS], through[VECTORS];

  Cotangents(const Inputs& in, const Queries& q, const float* y, const float* y_bar, const float* levels)
      : columns(in.s.p * BLOCK), rows(BLOCK * padded(in.s.p)), q_rows(BLOCK * padded(in.s.k)) {
    const Sizes& s = in.s;
    int64_t from = in.result(q.row, q.first, q.head);
    copy(y_bar + from, s.h * s.p, q.many, s.p, padded(s.p), rows.data());
    copy(in.query(q.row, q.first, q.head), s.h * s.k, q.many, s.k, padded(s.k), q_rows.data());
    std::fill(level, level + VECTORS, Vector{} + INF);
    std::fill(through, through + VECTORS, Vector{});
    for (int64_t i = 0; i < q.many; ++i) {
      float sum = 0;
      for (int64_t n = 0; n < s.p; ++n) {
        float bar = y_bar[from + i * s.h * s.p + n];
        columns[n * BLOCK + i] = bar;
        sum += bar * y[from + i * s.h * s.p + n];
      }
      through[i / LANES][i % LANES] = sum;
      level[i / LANES][i % LANES] = levels[(q.row * s.h + q.head) * s.t + q.first + i];
    }
  }
};

// Turns scores into weights, and the gradients of weights into those of products.
void weigh_back(const Rules& rules, int64_t keys, int64_t vectors, const Cotangents& bars, float* scores, float* d,
                const float* rise) {
  for (int64_t i = 0; i < keys; ++i) {
    for (int64_t j = 0; j < vectors; ++j) {
      int64_t at = i * BLOCK + j * LANES;
      Vector weight = exp2(load(scores + at, LANES) - bars.level[j]);
      Vector slope = rules.softcap ? load(rise + at, LANES) : Vector{} + rules.scale;
      store(scores + at, LANES, weight);
      store(d + at, LANES, weight * (load(d + at, LANES) - bars.through[j]) * slope);
    }
  }
}

struct Bars {
  float *q, *k, *v;
};

// The gradients of all keys and values of a group, filled up to whole vectors, and of one block of queries.
struct Sums {
  std::vector<float> k, v, q, scores, d, rise;

  explicit Sums(const Sizes& s)
      : k(s.s * padded(s.k)), v(s.s * padded(s.p)), q(s.k * BLOCK), scores(BLOCK * BLOCK), d(BLOCK * BLOCK),
        rise(BLOCK * BLOCK) {}
};

void backward_block(const Inputs& in, const Queries& q, const Cotangents& bars, int64_t block, Keys& keys, Sums& sums,
                    float* q_bar) {
  const Sizes& s = in.s;
  int64_t vectors = q.vectors();
  float *scores = sums.scores.data(), *d = sums.d.data();
  std::fill(sums.q.begin(), sums.q.end(), 0.0f);
  for (int64_t j = 0; j < blocks(s.s); ++j) {
    Seen seen = in.seen(in.at.range(q.row, block), in.of.range(q.row, j));
    if (seen == Seen::NONE) continue;
    keys.read(in, q.row, q.head / (s.h / s.g), j);
    float *k_bar = &sums.k[keys.first * padded(s.k)], *v_bar = &sums.v[keys.first * padded(s.p)];
    multiply<false>({s.k, keys.k.data(), s.k, 1, q.columns.data(), BLOCK, scores, BLOCK}, keys.many, vectors);
    multiply<false>({s.p, keys.v.data(), s.p, 1, bars.columns.data(), BLOCK, d, BLOCK}, keys.many, vectors);
    bend(in, q, keys, seen, scores, sums.rise.data());
    weigh_back(in.rules, keys.many, vectors, bars, scores, d, sums.rise.data());
    multiply<true>({q.many, scores, BLOCK, 1, bars.rows.data(), padded(s.p), v_bar, padded(s.p)}, keys.many,
                   padded(s.p) / LANES);
    multiply<true>({q.many, d, BLOCK, 1, bars.q_rows.data(), padded(s.k), k_bar, padded(s.k)}, keys.many,
                   padded(s.k) / LANES);
    multiply<true>({keys.many, keys.k.data(), 1, s.k, d, BLOCK, sums.q.data(), BLOCK}, s.k, vectors);
  }
  for (int64_t i = 0; i < q.many; ++i) {
    float* to = q_bar + (in.query(q.row, q.first + i, q.head) - in.q);
    for (int64_t n = 0; n < s.k; ++n) to[n] = sums.q[n * BLOCK + i];
  }
}

void backward(const Inputs& in, const Unit& z, const float* y, const float* y_bar, const float* levels,
              const Bars& bars) {
  const Sizes& s = in.s;
  Sums sums(s);
  Keys keys(s);
  int64_t heads = s.h / s.g;
  for (int64_t head = z.group * heads; head < (z.group + 1) * heads; ++head) {
    for (int64_t block = z.part; block < blocks(s.t); block += s.parts) {
      Queries q(in, z.row, head, block);
      backward_block(in, q, Cotangents(in, q, y, y_bar, levels), block, keys, sums, bars.q);
    }
  }
  for (int64_t i = 0; i < s.s; ++i) {
    int64_t place = ((z.part * s.b + z.row) * s.s + i) * s.g + z.group;
    std::copy_n(&sums.k[i * padded(s.k)], s.k, bars.k + place * s.k);
    std::copy_n(&sums.v[i * padded(s.p)], s.p, bars.v + place * s.p);
  }
}

ffi::Error RunForward(ffi::ThreadPool pool, int64_t parts, bool causal, int64_t window, float scale, float softcap,
                      In q, In k, In v, Ints at, Ints of, Ints segments, Ints key_segments, Mask finite, In slopes,
                      Out y, Out spoilt, Out levels) {
  Sizes s(q, k, v, parts);
  Inputs in{s, {causal, window, scale, softcap}, Places(at, segments, nullptr),
            Places(of, key_segments, finite.typed_data()), q.typed_data(), k.typed_data(), v.typed_data(),
            slopes.element_count() ? slopes.typed_data() : nullptr};
  std::fill_n(spoilt->typed_data(), spoilt->element_count(), 0.0f);
  int64_t many = blocks(s.t);
  // the last blocks, which see the most keys if causal, come first
  share(pool, s.b * s.h * many, [&](int64_t unit) {
    forward(in, unit / many / s.h, unit / many % s.h, many - 1 - unit % many, y->typed_data(), spoilt->typed_data(),
            levels->typed_data());
  });
  return ffi::Error::Success();
}

ffi::Error RunBackward(ffi::ThreadPool pool, int64_t parts, bool causal, int64_t window, float scale, float softcap,
                       In q, In k, In v, Ints at, Ints of, Ints segments, Ints key_segments, Mask finite, In slopes,
                       In y, In levels, In y_bar, Out q_bar, Out k_bar, Out v_bar) {
  Sizes s(q, k, v, parts);
  Inputs in{s, {causal, window, scale, softcap}, Places(at, segments, nullptr),
            Places(of, key_segments, finite.typed_data()), q.typed_data(), k.typed_data(), v.typed_data(),
            slopes.element_count() ? slopes.typed_data() : nullptr};
  Bars bars{q_bar->typed_data(), k_bar->typed_data(), v_bar->typed_data()};
  share(pool, s.b * s.g * parts, [&](int64_t unit) {
    backward(in, Unit(unit, s.h, s.g, parts), y.typed_data(), y_bar.typed_data(), levels.typed_data(), bars);
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
      .Arg<Mask>().Arg<In>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_forward, RunForward, Signature().Ret<F32>().Ret<F32>().Ret<F32>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention_backward, RunBackward,
                              Signature().Arg<In>().Arg<In>().Arg<In>().Ret<F32>().Ret<F32>().Ret<F32>());

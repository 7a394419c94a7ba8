// Who sees whom among blocks of queries and keys on CPUs, and how their rows are read and written.

#pragma once

#include <cmath>
#include <limits>

#include "tiles.h"

namespace {

using namespace lanes;

using Ints = ffi::Buffer<ffi::S32>;

constexpr int64_t BLOCK = 64;               // queries, and keys
constexpr int64_t VECTORS = BLOCK / LANES;  // of queries
constexpr int64_t TOGETHER = 4;             // blocks of queries that read a block of keys together
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

  Places(const Ints& positions, const Ints& segments, const Mask& finite)
      : size(positions.dimensions()[1]), position(positions.typed_data()),
        segment(segments.element_count() ? segments.typed_data() : nullptr), finite(finite.typed_data()),
        ranges(positions.dimensions()[0] * blocks(size)) {
    for (int64_t i = 0; i < (int64_t)positions.element_count(); ++i) {
      Range& range = ranges[i / size * blocks(size) + i % size / BLOCK];
      range.add(position[i], segment ? segment[i] : 0, this->finite[i]);
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

// Copies rows of `size` numbers to rows of whole vectors, which end with zeros, as do rows that are not finite.
void copy(const float* from, int64_t apart, int64_t rows, int64_t size, const bool* finite, float* to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t n = 0; n < size; n += LANES, to += LANES) {
      store(to, LANES, finite[i] ? load(from + i * apart + n, size - n) : Vector{});
    }
  }
}

// Writes the first `size` rows of columns as rows that are `apart`.
void spread(const float* columns, int64_t many, int64_t size, float* to, int64_t apart) {
  float rows[LANES * BLOCK];
  for (int64_t n = 0; n < size; n += LANES) {
    transpose(columns + n * BLOCK, BLOCK, LANES, BLOCK, rows, LANES);
    for (int64_t i = 0; i < many; ++i) store(to + i * apart + n, size - n, load(rows + i * LANES, LANES));
  }
}

}  // namespace

// Products of small matrices for kernels on CPUs: a tile of the result stays in registers until it is complete.

#pragma once

#include "lanes.h"

namespace lanes {

// C = X Y or C += X Y for `rows` rows and `vectors` vectors of columns, where X "rows depth" has any strides (xi, xm),
// and Y "depth columns" and C "rows columns" have rows of whole vectors, y and c numbers apart.
struct Product {
  int64_t depth;
  const float* X;
  int64_t xi, xm;
  const float* Y;
  int64_t y;
  float* C;
  int64_t c;
};

#define UNROLLED _Pragma("GCC unroll 16")

template <int ROWS, int VECTORS, bool ADD>
static inline void tile(const Product& z, int64_t row, int64_t column) {
  Vector sums[ROWS][VECTORS];
  float* C = z.C + row * z.c + column;
  const float *X = z.X + row * z.xi, *Y = z.Y + column;
  UNROLLED for (int i = 0; i < ROWS; ++i) {
    UNROLLED for (int j = 0; j < VECTORS; ++j) sums[i][j] = ADD ? load(C + i * z.c + j * LANES, LANES) : Vector{};
  }
  for (int64_t m = 0; m < z.depth; ++m) {
    Vector line[VECTORS];
    UNROLLED for (int j = 0; j < VECTORS; ++j) line[j] = load(Y + m * z.y + j * LANES, LANES);
    UNROLLED for (int i = 0; i < ROWS; ++i) {
      float x = X[i * z.xi + m * z.xm];
      UNROLLED for (int j = 0; j < VECTORS; ++j) sums[i][j] += line[j] * x;
    }
  }
  UNROLLED for (int i = 0; i < ROWS; ++i) {
    UNROLLED for (int j = 0; j < VECTORS; ++j) store(C + i * z.c + j * LANES, LANES, sums[i][j]);
  }
}

#undef UNROLLED

// Six rows of four vectors are the most that 32 registers hold beside a row of Y, six of two what 16 do.
constexpr int MOST = REGISTERS * 3 / 4;

// The same for tiles that registers may not hold at once.
template <int ROWS, int VECTORS, bool ADD>
static inline void tiles(const Product& z, int64_t row, int64_t column) {
  if constexpr (ROWS * VECTORS <= MOST) {
    tile<ROWS, VECTORS, ADD>(z, row, column);
  } else {
    tile<ROWS, VECTORS / 2, ADD>(z, row, column);
    tile<ROWS, VECTORS - VECTORS / 2, ADD>(z, row, column + VECTORS / 2 * LANES);
  }
}

template <int VECTORS, bool ADD>
static void columns(const Product& z, int64_t rows, int64_t column) {
  int64_t i = 0;
  for (; i + 6 <= rows; i += 6) tiles<6, VECTORS, ADD>(z, i, column);
  for (; i + 4 <= rows; i += 4) tiles<4, VECTORS, ADD>(z, i, column);
  for (; i + 2 <= rows; i += 2) tiles<2, VECTORS, ADD>(z, i, column);
  for (; i < rows; ++i) tiles<1, VECTORS, ADD>(z, i, column);
}

template <bool ADD>
static void multiply(const Product& z, int64_t rows, int64_t vectors) {
  int64_t j = 0;
  for (; j + 4 <= vectors; j += 4) columns<4, ADD>(z, rows, j * LANES);
  switch (vectors - j) {
    case 3: return columns<3, ADD>(z, rows, j * LANES);
    case 2: return columns<2, ADD>(z, rows, j * LANES);
    case 1: return columns<1, ADD>(z, rows, j * LANES);
  }
}

// Exchanges, of each two vectors S apart, the lanes that have S in the first with those that have not in the second.
template <int S, int... L>
static inline void exchange(Vector* v, std::integer_sequence<int, L...> lanes) {
  for (int i = 0; i < LANES; ++i) {
    if (i & S) continue;
    Vector x = v[i], y = v[i + S];
    v[i] = SHUFFLED(x, y, (L & S ? LANES + L - S : L)...);
    v[i + S] = SHUFFLED(x, y, (L & S ? LANES + L : L + S)...);
  }
  if constexpr (2 * S < LANES) exchange<2 * S>(v, lanes);
}

// Writes the transpose of a matrix of whole vectors both ways, whose rows are `from_row` and become `to_row` apart.
static void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  for (int64_t i = 0; i < rows; i += LANES) {
    for (int64_t j = 0; j < columns; j += LANES) {
      Vector v[LANES];
      for (int n = 0; n < LANES; ++n) v[n] = load(from + (i + n) * from_row + j, LANES);
      exchange<1>(v, Numbers{});
      for (int n = 0; n < LANES; ++n) store(to + (j + n) * to_row + i, LANES, v[n]);
    }
  }
}

}  // namespace lanes

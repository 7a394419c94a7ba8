// What the kernels for CPUs share: vectors of LANES numbers, and units of work for all threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace lanes {

namespace ffi = xla::ffi;

// A vector is one register: compilers take wider ones apart in memory, which makes kernels five to twenty times slower.
#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Registers that there are for vectors.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Bits __attribute__((vector_size(LANES * sizeof(int32_t))));

// Numbers of a thread's own, that start as 0; vectors of them lie within lines of the cache.
class Floats {
 public:
  explicit Floats(int64_t size) : vectors_((size + LANES - 1) / LANES) {}
  float* data() { return (float*)vectors_.data(); }
  const float* data() const { return (const float*)vectors_.data(); }
  void clear() { std::fill(vectors_.begin(), vectors_.end(), Vector{}); }

 private:
  std::vector<Vector> vectors_;
};

using In = ffi::Buffer<ffi::F32>;
using Mask = ffi::Buffer<ffi::PRED>;
using Out = ffi::ResultBuffer<ffi::F32>;

// Numbers from `p` on, of which the first `lanes` are there; the others are 0, and never written.
static inline Vector load(const float* p, int64_t lanes) {
  Vector v = {};
  if (lanes >= LANES) {
    std::memcpy(&v, p, sizeof v);
  } else {
    std::memcpy(&v, p, lanes * sizeof(float));
  }
  return v;
}

static inline void store(float* p, int64_t lanes, Vector v) {
  if (lanes >= LANES) {
    std::memcpy(p, &v, sizeof v);
  } else {
    std::memcpy(p, &v, lanes * sizeof(float));
  }
}

static inline float sum(Vector v) {
  for (int half = LANES / 2; half; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}

static inline bool any(Bits z) {
  int32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= z[i];
  return bits;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLED(x, y, ...) __builtin_shuffle(x, y, (Bits){__VA_ARGS__})
#endif

using Numbers = std::make_integer_sequence<int, LANES>;

// Returns the sums of each two neighbours, those of x before those of y.
template <int... L>
static inline Vector pairs(Vector x, Vector y, std::integer_sequence<int, L...>) {
  return SHUFFLED(x, y, (2 * L)...) + SHUFFLED(x, y, (2 * L + 1)...);
}

// Returns the sums of LANES vectors, in order.
template <int MANY = LANES>
static inline Vector sums(const Vector* v) {
  if constexpr (MANY == 1) return v[0];
  else return pairs(sums<MANY / 2>(v), sums<MANY / 2>(v + MANY / 2), Numbers{});
}

// The larger and the smaller number of each lane, the second one if one of them is not a number.
#if defined(__AVX512F__)
// one instruction, where compilers make a comparison and a choice of it
static inline Vector max(Vector x, Vector y) { return (Vector)_mm512_max_ps((__m512)x, (__m512)y); }
static inline Vector min(Vector x, Vector y) { return (Vector)_mm512_min_ps((__m512)x, (__m512)y); }
#elif defined(__AVX__)
static inline Vector max(Vector x, Vector y) { return (Vector)_mm256_max_ps((__m256)x, (__m256)y); }
static inline Vector min(Vector x, Vector y) { return (Vector)_mm256_min_ps((__m256)x, (__m256)y); }
#else
static inline Vector max(Vector x, Vector y) { return x > y ? x : y; }
static inline Vector min(Vector x, Vector y) { return x < y ? x : y; }
#endif

// 2^z to 2 units in the last place, for z up to 127; below -126 it is 0 or next to it, from -127 on 0. NaN stays NaN.
//
// The whole part of z goes to the exponent by integer addition: added to 1.5 * 2^23, z is rounded, and the last bits of
// the sum are that integer. The rest, at most 1/2, goes through the Taylor series of 2^r.
static inline Vector small_exp2(Vector z) {
  const float shift = 12582912.0f;
  // the second one if it is NaN
  z = max(Vector{} - 127.0f, z);
  Vector moved = z + shift, r = z - (moved - shift);
  Vector p = 1.5403530e-4f * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  p = p * r + 1.0f;
  return (Vector)((Bits)p + ((Bits)moved << 23));
}

// The same, 2^127 for larger z.
static inline Vector exp2(Vector z) { return small_exp2(min(Vector{} + 127.0f, z)); }

constexpr float LOG2_E = 1.44269504f;

// tanh to 2 units in the last place or 2^-23, whichever is more. NaN stays NaN.
static inline Vector tanh(Vector z) {
  Vector e = exp2(z * (2 * LOG2_E));
  return 1.0f - 2.0f / (e + 1.0f);
}

// log(1 + e^z), as exact as exp2. NaN stays NaN.
//
// With e = e^-|z|, which is at most 1, log(1 + e) is 2 artanh(s) for s = e / (2 + e), by its Taylor series.
static inline Vector softplus(Vector z) {
  Vector e = exp2(max(z, -z) * -LOG2_E), s = e / (2.0f + e), t = s * s;
  Vector p = (1 / 13.0f) * t + 1 / 11.0f;
  p = p * t + 1 / 9.0f;
  p = p * t + 1 / 7.0f;
  p = p * t + 1 / 5.0f;
  p = p * t + 1 / 3.0f;
  p = p * t + 1.0f;
  return max(z, Vector{}) + 2.0f * s * p;
}

// A part of the heads or channels, first … end, of group `group` of a row: what one thread computes at a time.
struct Unit {
  int64_t row, group, part, first, end;

  // Unit `number` of all rows, where `all` heads or channels are in `groups` groups of `parts` parts.
  Unit(int64_t number, int64_t all, int64_t groups, int64_t parts)
      : row(number / (groups * parts)), group(number / parts % groups), part(number % parts) {
    int64_t width = all / groups;
    first = group * width + width * part / parts;
    end = group * width + width * (part + 1) / parts;
  }
};

// Tiny numbers become 0, as in XLA's own code: states that fade would take a hundred times as long.
class NoDenormals {
#if defined(__SSE__)
 public:
  NoDenormals() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040); }
  ~NoDenormals() { __builtin_ia32_ldmxcsr(before_); }

 private:
  unsigned before_;
#endif
};

// Runs run(unit) for every unit in this thread and in those of XLA's pool that are free.
//
// This thread waits for units that another one has begun and for nothing else: the pool may be busy with callers that
// wait like this one.
template <typename Run>
static void share(ffi::ThreadPool& pool, int64_t units, Run run) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all;
  };
  auto state = std::make_shared<State>();
  auto work = [state, units, run] {
    NoDenormals guard;
    int64_t mine = 0;
    for (int64_t unit; (unit = state->next++) < units; ++mine) run(unit);
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += mine;
    if (state->done == units) state->all.notify_all();
  };
  int64_t helpers = std::min(units, pool.num_threads()) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([work] { work(); });
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done == units; });
}

constexpr int64_t ALONE = 262144;

// The same for units of a state of `numbers` in all, through which every token goes once. So many as ALONE, which lie in
// a second-level cache, stay in one thread: to wake another one takes ten microseconds and more, and what it has taken
// the next token has to fetch from its cache.
template <typename Run>
static void share_state(ffi::ThreadPool& pool, int64_t units, int64_t numbers, Run run) {
  int64_t chunks = std::max<int64_t>(1, (numbers + ALONE - 1) / ALONE), each = (units + chunks - 1) / chunks;
  share(pool, chunks, [=](int64_t chunk) {
    for (int64_t unit = chunk * each; unit < std::min(units, (chunk + 1) * each); ++unit) run(unit);
  });
}

}  // namespace lanes

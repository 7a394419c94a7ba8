// What the kernels for CPUs share: vectors of LANES numbers, and units of work for all threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace lanes {

namespace ffi = xla::ffi;

constexpr int LANES = 16;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Bits __attribute__((vector_size(LANES * sizeof(int32_t))));

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

}  // namespace lanes

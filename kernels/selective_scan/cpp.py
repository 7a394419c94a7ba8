"""`selective_scan` on CPUs in C++ (cpp.cc), built when first used: values and gradients in float32, for real A.

For the gradient, forward keeps the state before each CHUNK of tokens; backward makes those of a chunk again.
"""

import os
from pathlib import Path

from kernels import cpp, dispatch, kept_states
from kernels.discretize import not_real_euler

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
CHUNK = 32  # as in the source
CHANNELS = 64  # at least, of a thread


def why_not(h, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `cpp.why_not`."""
  return not_real_euler(h, disc) or cpp.why_not(SOURCE, h)


def selective_scan(x, dt, A, B, C, h, reset, disc):
  """Computes `reference.selective_scan`."""
  axes = ("b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e n"))(x, dt, A, B, C, h, reset)


def _run(x, dt, A, B, C, h, reset, *, save):
  """Returns all y, the last state, and if `save` the states before each chunk, else none."""
  (b, t, e), n = x.shape, A.shape[1]
  shapes = (x.shape, (b, n, e), (b, -(-t // CHUNK) if save else 0, n, e))
  y, last, entries = cpp.call(FORWARD, shapes, _parts(B, e))(x, dt, A.T, B, C, h.swapaxes(1, 2), cpp.mask(reset))
  return y, last.swapaxes(1, 2), entries


def _backward(x, dt, A, B, C, reset, entries, y_bar, last_bar):
  (b, _, e), n = x.shape, A.shape[1]
  columns = (_parts(B, e), *B.shape)
  call = cpp.call(BACKWARD, (x.shape, x.shape, (b, n, e), columns, columns, (b, n, e)), _parts(B, e))
  bars = call(x, dt, A.T, B, C, cpp.mask(reset), entries, y_bar, last_bar.swapaxes(1, 2))
  x_bar, dt_bar, A_bar, B_bar, C_bar, h_bar = bars
  return x_bar, dt_bar, A_bar.sum(0).T, B_bar.sum(0), C_bar.sum(0), h_bar.swapaxes(1, 2), None


_scan = kept_states.differentiable(_run, _backward, state=5)


def _parts(B, e):
  """Returns into how many parts the channels of a group are cut, so that every core has one."""
  b, _, g, _ = B.shape
  cores = os.cpu_count() or 1
  return max(1, min(-(-cores // max(1, b * g)), e // g // CHANNELS))

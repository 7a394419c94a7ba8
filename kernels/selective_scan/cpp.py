"""`selective_scan` on CPUs in C++ (cpp.cc), built when first used: values and gradients in float32, for real A.

Softplus, skip and gate are computed on the way. For the gradient, forward keeps the state before each CHUNK of tokens;
backward makes those of a chunk again.
"""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from kernels import cpp, dispatch, kept_states
from kernels.discretize import not_real_euler

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
CHUNK = 32  # as in the source
CHANNELS = 64  # at least, of a thread


def why_not(x, dt, A, B, C, h, D, z, reset, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `cpp.why_not`."""
  return not_real_euler(h, disc) or cpp.why_not(SOURCE, h)


def selective_scan(x, dt, A, B, C, h, D, z, reset, softplus, disc):
  """Computes `reference.selective_scan` with what stands around it."""
  axes = ("b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "e", "b t e", "b t")
  return dispatch.shard(_scans[softplus], axes, ("b t e", "b e n"))(x, dt, A, B, C, h, D, z, reset)


def _given(x, dt, A, B, C, D, z, reset):
  """Returns the arguments as handlers take them: in float32, and empty where they are None."""
  wide = (jnp.zeros((0,), jnp.float32) if m is None else m.astype(jnp.float32) for m in (x, dt, A.T, B, C, D, z))
  return *wide, cpp.mask(reset)


def _run(x, dt, A, B, C, h, D, z, reset, *, save, softplus):
  """Returns all y, the last state, and if `save` the states before each chunk, else none."""
  (b, t, e), n = x.shape, A.shape[1]
  shapes = (x.shape, (b, n, e), (b, -(-t // CHUNK) if save else 0, n, e))
  call = cpp.call(FORWARD, shapes, _parts(B, e), softplus=np.bool_(softplus))
  y, last, entries = call(*_given(x, dt, A, B, C, D, z, reset), h.swapaxes(1, 2))
  return y, last.swapaxes(1, 2), entries


def _backward(x, dt, A, B, C, D, z, reset, entries, y_bar, last_bar, *, softplus):
  (b, _, e), n = x.shape, A.shape[1]
  columns, none = (_parts(B, e), *B.shape), (0,)
  shapes = (x.shape, x.shape, (b, n, e), columns, columns, (b, e), none if z is None else z.shape, (b, n, e))
  call = cpp.call(BACKWARD, shapes, _parts(B, e), softplus=np.bool_(softplus))
  bars = call(*_given(x, dt, A, B, C, D, z, reset), entries, y_bar, last_bar.swapaxes(1, 2))
  x_bar, dt_bar, A_bar, B_bar, C_bar, D_bar, z_bar, h_bar = bars
  D_bar, z_bar = None if D is None else D_bar.sum(0), None if z is None else z_bar.astype(z.dtype)
  maps = A_bar.sum(0).T, B_bar.sum(0), C_bar.sum(0), h_bar.swapaxes(1, 2)
  return x_bar.astype(x.dtype), dt_bar.astype(dt.dtype), *maps, D_bar, z_bar, None


_scans = {
  softplus: kept_states.differentiable(
    functools.partial(_run, softplus=softplus), functools.partial(_backward, softplus=softplus), state=5
  )
  for softplus in (False, True)
}


def _parts(B, e):
  """Returns into how many parts the channels of a group are cut."""
  b, _, g, _ = B.shape
  return cpp.parts(b * g, e // g // CHANNELS)

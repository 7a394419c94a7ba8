"""Arguments of the ops for one token, for their tests and scripts/device_day.py."""

import jax.numpy as jnp
import numpy as np


def draw(rng, shape):
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def between(rng, least, most, shape):
  return jnp.asarray(rng.uniform(least, most, shape), jnp.float32)


def conv_arrays(b, e, w):
  rng = np.random.default_rng(e)
  return tuple(draw(rng, shape) for shape in ((b, e), (b, w - 1, e), (w, e), (e,)))


def selective_arrays(b, e, g, n):
  rng = np.random.default_rng(e)
  x, B, C, D, z, h = (draw(rng, shape) for shape in ((b, e), (b, g, n), (b, g, n), (e,), (b, e), (b, e, n)))
  dt, A = between(rng, 0.01, 0.5, x.shape), -between(rng, 0.5, 4, (e, n))
  return x, dt, A, B, C, D, z, h


def ssd_arrays(b, h, p, g, k, norm, norm_groups, *, w=4, D_per="head"):
  """Returns what differs by token, and what belongs to the layer."""
  rng = np.random.default_rng(h)
  e, m = h * p, h * p + 2 * g * k
  shapes = (b, m), (b, e), (b, w - 1, m), (b, h, k, p), (w, m), (m,), (h, 1 if D_per == "head" else p), (e,)
  x, z, taps, S, kernel, bias, D, scale = (draw(rng, shape) for shape in shapes)
  dt, A = between(rng, 0.01, 0.5, (b, h)), -between(rng, 0.5, 4, (h,))
  layer = dict(kernel=kernel, bias=bias, A=A, D=D, scale=None if norm == "none" else scale)
  return (x, z, dt, taps, S), {**layer, "norm": norm, "norm_groups": norm_groups}

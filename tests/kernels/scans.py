"""Arguments for the tests of scans in kernels for GPUs and TPUs."""

import jax.numpy as jnp
import numpy as np

from tests.kernels.compare import draw


def linear(b, t, n, constant, dtype):
  rng = np.random.default_rng(t)
  a = rng.uniform(0.5, 1, n if constant else (b, t, n))
  a = a * np.exp(1j * rng.uniform(-3, 3, a.shape)) if dtype == "complex64" else a
  return a.astype(dtype), draw(rng, (b, t, n), dtype), draw(rng, (b, n), dtype)


def gated(t, e, dtype="float32"):
  """Arguments of `rg_lru`, with decays from almost 0 to almost 1."""
  rng = np.random.default_rng(t)
  u, r, i = draw(rng, (3, 2, t, e), "float32")
  a_param, h = rng.uniform(-9, 1, e).astype("float32"), draw(rng, (2, e), "float32")
  return *(np.asarray(z, jnp.dtype(dtype)) for z in (u, 4 * r, i)), a_param, h


def selective(t, e, g, n):
  rng = np.random.default_rng(t)
  x, B, C, h = (draw(rng, shape, "float32") for shape in ((2, t, e), (2, t, g, n), (2, t, g, n), (2, e, n)))
  dt, A = rng.uniform(0.01, 0.5, x.shape).astype("float32"), -rng.uniform(0.5, 4, (e, n)).astype("float32")
  return x, dt, A, B, C, h


def around(given, narrow, what):
  """Returns `given` with what stands around the recurrence, and whether there is a softplus.

  Args:
    narrow: names of those of x, dt and z that are bfloat16.
    what: of "softplus", "D" and "z".
  """
  x, dt, *rest = given
  softplus, rng = "softplus" in what, np.random.default_rng(0)
  dt = np.log(np.expm1(dt)) if softplus else dt
  D, z = draw(rng, x.shape[2:], "float32"), draw(rng, x.shape, "float32")
  x, dt, z = (
    m.astype(jnp.bfloat16 if name in narrow.split() else m.dtype) for name, m in zip(("x", "dt", "z"), (x, dt, z))
  )
  return (x, dt, *rest, D if "D" in what else None, z if "z" in what else None), softplus

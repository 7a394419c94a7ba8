"""Arguments for the tests of `selective_scan` in kernels."""

import jax.numpy as jnp
import numpy as np

from tests.kernels.compare import draw


def arrays(t, e, g, n):
  rng = np.random.default_rng(t)
  x, B, C, h = (draw(rng, shape, "float32") for shape in ((2, t, e), (2, t, g, n), (2, t, g, n), (2, e, n)))
  dt, A = rng.uniform(0.01, 0.5, x.shape).astype("float32"), -rng.uniform(0.5, 4, (e, n)).astype("float32")
  return x, dt, A, B, C, h


def around(given, narrow, what):
  """`given` with what stands around the recurrence, and whether there is a softplus.

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

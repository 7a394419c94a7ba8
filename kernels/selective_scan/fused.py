"""The common parts of the `selective_scan` kernels with softplus, skip and gate inside: x, dt and z stay as stored."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32

from kernels.discretize import not_real_euler

# of x, dt, A, B, C, h, D, z and the mask
AXES = "b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "e", "b t e", "b t"


def not_known(x, dt, h, z, disc) -> str | None:
  """Returns why the kernels cannot run these arguments on any device, or None."""
  if reason := not_real_euler(h, disc):
    return reason
  dtypes = {m.dtype for m in (x, dt, z) if m is not None} - {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}
  return f"it reads float32 and bfloat16, not {sorted(map(str, dtypes))}" if dtypes else None


def softplus(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
  """max(x, 0) + log(1 + u), u = exp(-|x|); GPUs lack log1p in Pallas, so log(1 + u) = 2 artanh(u / (2 + u)), a series.

  What is left out of it is below 2e-8 of the sum, as u / (2 + u) is at most 1/3.
  """
  u = jnp.exp(-jnp.abs(x))
  s = u / (2 + u)
  square = s * s
  total = square * (1 / 13) + 1 / 11
  for odd in (9, 7, 5, 3, 1):
    total = total * square + 1 / odd
  return jnp.maximum(x, 0.0) + 2 * s * total


def silu(z: Float32[Array, "..."]) -> Float32[Array, "..."]:
  return z * lax.logistic(z)


def silu_and_slope(z: Float32[Array, "..."]) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
  """SiLU(z) = z s(z) for the logistic function s, and its derivative s(z) (1 + z (1 - s(z)))."""
  s = lax.logistic(z)
  return z * s, s * (1 + z * (1 - s))

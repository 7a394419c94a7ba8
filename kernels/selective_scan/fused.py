"""What the forms of `selective_scan` with softplus, skip and gate inside share: they read x, dt and z as they lie."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Inexact

from kernels.selective_scan.discretize import not_real_euler

# of x, dt, A, B, C, h, D, z and the mask
AXES = "b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "e", "b t e", "b t"


def not_known(
  x: Float[Array, "b t e"],
  dt: Float[Array, "b t e"],
  h: Inexact[Array, "b e n"],
  z: Float[Array, "b t e"] | None,
  disc: str,
) -> str | None:
  """What keeps the kernels from these arguments on any device."""
  if reason := not_real_euler(h, disc):
    return reason
  dtypes = {m.dtype for m in (x, dt, z) if m is not None} - {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}
  return f"it reads float32 and bfloat16, not {sorted(map(str, dtypes))}" if dtypes else None


def silu(z: Float32[Array, "..."]) -> Float32[Array, "..."]:
  return z * lax.logistic(z)


def silu_and_slope(z: Float32[Array, "..."]) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
  """SiLU(z) = z s(z) for the logistic function s, and its derivative s(z) (1 + z (1 - s(z)))."""
  s = lax.logistic(z)
  return z * s, s * (1 + z * (1 - s))

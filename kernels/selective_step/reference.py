"""The definition of `selective_step`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels.discretize import discretize


def selective_step(
  x: Float[Array, "b e"],
  dt: Float[Array, "b e"],
  A: Inexact[Array, "e n"],
  B: Inexact[Array, "b g n"],
  C: Inexact[Array, "b g n"],
  D: Float[Array, "e"] | None,
  z: Float[Array, "b e"] | None,
  h: Inexact[Array, "b e n"],
  disc: str,
) -> tuple[Float[Array, "b e"], Inexact[Array, "b e n"]]:
  """h <- exp(dt A) h + dt x B;  y = (Re(C . h) + D x) SiLU(z)."""
  B, C = (jnp.repeat(m, x.shape[1] // m.shape[1], axis=1) for m in (B, C))
  decay, step_size = discretize(dt, A, disc)
  h = decay * h + step_size * x[..., None] * B
  y = jnp.sum(C * h, axis=-1).real
  y = y if D is None else y + D * x
  return y if z is None else y * jax.nn.silu(z), h

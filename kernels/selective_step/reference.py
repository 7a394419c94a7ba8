"""The definition of `selective_step`."""

import jax
import jax.numpy as jnp

from kernels.discretize import discretize


def selective_step(x, dt, A, B, C, D, z, h, softplus, disc):
  """h <- exp(dt A) h + dt x B;  y = (Re(C . h) + D x) SiLU(z)."""
  dt = jax.nn.softplus(dt) if softplus else dt
  B, C = (jnp.repeat(m, x.shape[1] // m.shape[1], axis=1) for m in (B, C))
  decay, step_size = discretize(dt, A, disc)
  h = decay * h + step_size * x[..., None] * B
  y = jnp.sum(C * h, axis=-1).real
  y = y if D is None else y + D * x
  return y if z is None else y * jax.nn.silu(z), h

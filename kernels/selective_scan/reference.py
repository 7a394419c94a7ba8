"""The definition of `selective_scan`."""

import jax.numpy as jnp

from kernels import op
from kernels.discretize import discretize


def selective_scan(x, dt, A, B, C, h, reset, disc):
  """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t, with h_{t-1} = 0 where `reset` is True; y_t = Re(C_t . h_t)."""
  B, C = (jnp.repeat(z, x.shape[-1] // z.shape[2], axis=2) for z in (B, C))

  def token(h, inputs):
    x, dt, B, C, reset = inputs
    decay, step_size = discretize(dt, A, disc)
    h = decay * op.cleared(reset, h) + step_size * x[..., None] * B
    return h, (C * h).sum(-1).real

  return op.loop(token, h, (x, dt, B, C, reset))

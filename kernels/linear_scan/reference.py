"""The definition of `linear_scan`."""

import jax.numpy as jnp

from kernels import op


def linear_scan(a, x, h, reset):
  """h_t = a_t * h_{t-1} + x_t, with h_{t-1} = 0 where `reset` is True."""
  a = jnp.broadcast_to(a, x.shape)

  def token(h, inputs):
    a, x, reset = inputs
    h = a * op.cleared(reset, h) + x
    return h, h

  return op.loop(token, h, (a, x, reset))

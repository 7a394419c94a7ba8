"""The definition of `max_scan`."""

import jax.numpy as jnp

from kernels import op


def max_scan(log_a, x, m):
  """m_t = max(log_a_t + m_{t-1}, x_t)."""

  def token(m, inputs):
    log_a, x = inputs
    m = jnp.maximum(log_a + m, x)
    return m, m

  return op.loop(token, m, (log_a, x))[0]

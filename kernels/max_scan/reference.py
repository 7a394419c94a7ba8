"""The definition of `max_scan`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels import op


def max_scan(log_a: Float[Array, "b t n"], x: Float[Array, "b t n"], m: Float[Array, "b n"]) -> Float[Array, "b t n"]:
  """m_t = max(log_a_t + m_{t-1}, x_t)."""

  def token(m, inputs):
    log_a, x = inputs
    m = jnp.maximum(log_a + m, x)
    return m, m

  return op.loop(token, m, (log_a, x))[0]

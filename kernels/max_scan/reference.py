"""The definition of `max_scan`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def max_scan(log_a: Float[Array, "b t n"], x: Float[Array, "b t n"], m: Float[Array, "b n"]) -> Float[Array, "b t n"]:
  """m_t = max(log_a_t + m_{t-1}, x_t)."""

  def step(m, token):
    log_a, x = token
    m = jnp.maximum(log_a + m, x)
    return m, m

  return jax.lax.scan(step, m, (log_a.swapaxes(0, 1), x.swapaxes(0, 1)))[1].swapaxes(0, 1)

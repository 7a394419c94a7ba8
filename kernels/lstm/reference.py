"""The definition of `lstm`."""

import jax
import jax.numpy as jnp

from kernels import op


def lstm(entered, R, h, c, reset, valid):
  """Runs token after token; at padding the state stands still."""

  def cell(state, entered):
    h, c = state
    i, f, g, o = jnp.split(entered + h @ R, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    y = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (y, c), y

  return op.recur(cell, (h, c), entered, reset, valid)

"""The definition of `lstm`."""

import functools

import jax
import jax.numpy as jnp

from kernels import inputs, op


def lstm(entered, R, h, c, reset, valid):
  """Runs token after token; at padding the state stands still."""

  def token(state, now):
    entered, reset, valid = now
    h, c = state = jax.tree.map(functools.partial(op.cleared, reset), state)
    i, f, g, o = jnp.split(entered + h @ R, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    after = y, _ = jax.nn.sigmoid(o) * jnp.tanh(c), c
    return after if valid is None else jax.tree.map(functools.partial(inputs.where, valid), after, state), y

  y, state = op.loop(token, (h, c), (entered, reset, valid))
  return y, state

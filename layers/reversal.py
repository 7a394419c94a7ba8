"""Sequences read from their ends: each row turned around within its length, each document within itself."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def order(b: int, t: int, lengths: Int[Array, "b"] | None) -> Int[Array, "b t"]:
  """Indices that turn each row around within its length and leave the rest where it is; its own inverse."""
  time = jnp.broadcast_to(jnp.arange(t), (b, t))
  if lengths is None:
    return time[:, ::-1]
  return jnp.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)


def at(x: Shaped[Array, "b t ..."], order: Int[Array, "b t"]) -> Shaped[Array, "b t ..."]:
  """The tokens of x in that order."""
  return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)


def last_of_document(reset: Bool[Array, "b t"]) -> Bool[Array, "b t"]:
  """True where the next token starts a document. A row's own end needs no mark: the reversed row begins there."""
  return jnp.concatenate([reset[:, 1:], jnp.ones_like(reset[:, :1])], axis=1)

"""Sequences read backwards: each row reversed within its length, each packed document within itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from kernels.inputs import Lengths, Reset
from layers.lengths import blank_past


def order(b: int, t: int, lengths: Lengths) -> Int[Array, "b t"]:
  """Returns the indices that reverse each row within its length and leave its padding; they are their own inverse."""
  time = jnp.broadcast_to(jnp.arange(t), (b, t))
  if lengths is None:
    return time[:, ::-1]
  return jnp.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)


def at(x: Shaped[Array, "b t ..."], order: Int[Array, "b t"]) -> Shaped[Array, "b t ..."]:
  """Returns the tokens of x in that order."""
  return jnp.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)


def turned(
  x: Float[Array, "b t d"], reset: Reset, lengths: Lengths
) -> tuple[Int[Array, "b t"], Bool[Array, "b t"] | None]:
  """Returns the tokens in the order in which a backward mixer reads them, and where documents start in that order."""
  back = order(x.shape[0], x.shape[1], lengths)
  return back, None if reset is None else at(last_of_document(reset), back)


def last_of_document(reset: Bool[Array, "b t"]) -> Bool[Array, "b t"]:
  """Marks the last token of each document and of each row, where the document begins when it is read backwards."""
  return jnp.concatenate([reset[:, 1:], jnp.ones_like(reset[:, :1])], axis=1)


def gaps(
  dt: Float[Array, "b t"], order: Int[Array, "b t"], *, reset: Reset = None, lengths: Lengths = None
) -> Float[Array, "b t"]:
  """Returns the time between each token and the one read before it, for tokens that are read in another order.

  Samples at times 0, 10 and 10.1 that are read backwards come 0.1 and 10 after one another. The gap before a document's
  first token, which lies outside of it, is put before whichever of its tokens is read first.

  Args:
    dt: the gap before each token, in the tokens' own order.
    order: the tokens as they are read, the documents one after the other.
    reset: True where a document starts, in the tokens' own order.
  """
  dt = blank_past(dt, lengths)
  time = jnp.broadcast_to(jnp.arange(dt.shape[1]), dt.shape)
  start = jnp.zeros_like(time) if reset is None else jax.lax.cummax(jnp.where(reset, time, 0), axis=1)
  before = jnp.concatenate([order[:, :1], order[:, :-1]], axis=1)
  low, high, elapsed = jnp.minimum(order, before), jnp.maximum(order, before), jnp.cumsum(dt, axis=1)
  # between neighbours the gap itself, since a difference of times rounds
  between = jnp.where(high - low == 1, at(dt, high), at(elapsed, high) - at(elapsed, low))
  first = (time == 0) | (at(start, order) != at(start, before))
  return jnp.where(first, at(dt, at(start, order)), between)

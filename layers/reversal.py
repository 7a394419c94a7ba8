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
  dt: Float[Array, "b t"],
  order: Int[Array, "b t"],
  *,
  reset: Reset = None,
  lengths: Lengths = None,
  furthest: int | None = None,
) -> Float[Array, "b t"]:
  """Returns the time between each token and the one read before it, for tokens that are read in another order.

  Samples at times 0, 10 and 10.1 that are read backwards come 0.1 and 10 after one another. The gap before a document's
  first token, which lies outside of it, is put before whichever of its tokens is read first.

  Args:
    dt: the gap before each token, in the tokens' own order.
    order: the tokens as they are read, the documents one after the other.
    reset: True where a document starts, in the tokens' own order.
    furthest: the largest distance between tokens of a document that are read one after the other; t - 1 by default.
  """
  dtype, dt = dt.dtype, blank_past(dt, lengths).astype(jnp.promote_types(dt.dtype, jnp.float32))
  time = jnp.broadcast_to(jnp.arange(dt.shape[1]), dt.shape)
  start = jnp.zeros_like(time) if reset is None else jax.lax.cummax(jnp.where(reset, time, 0), axis=1)
  before = jnp.concatenate([order[:, :1], order[:, :-1]], axis=1)
  between = _elapsed(dt, jnp.minimum(order, before), jnp.maximum(order, before), furthest or dt.shape[1] - 1)
  first = (time == 0) | (at(start, order) != at(start, before))
  return jnp.where(first, at(dt, at(start, order)), between).astype(dtype)


def _elapsed(
  dt: Float[Array, "b t"], low: Int[Array, "b t"], high: Int[Array, "b t"], furthest: int
) -> Float[Array, "b t"]:
  """Returns the sums of dt from after `low` to `high`, for distances up to `furthest`.

  They are added up from sums over 1, 2, 4 … tokens: a difference of two times rounds as the later of them does.
  """
  total, sums, place, distance = jnp.zeros_like(dt), dt, high, high - low
  for bit in range(max(furthest, 1).bit_length()):
    here = distance >> bit & 1 == 1
    total = total + jnp.where(here, at(sums, place), 0)
    place = jnp.where(here, jnp.maximum(place - (1 << bit), 0), place)
    sums = sums + jnp.pad(sums, ((0, 0), (1 << bit, 0)))[:, : dt.shape[1]]
  return total

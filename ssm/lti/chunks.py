"""Mega's chunks of tokens, which count from the start of their document, and a cache of the current chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import inputs
from kernels.documents import positions
from kernels.scatter import written


class Places(NamedTuple):
  """The index of each token in its chunk, and the chunk's number: 0 is the chunk in the cache, -1 is padding."""

  slot: Int[Array, "b t"]
  segment: Int[Array, "b t"]


def places(
  length: Int[Array, "b"], t: int, chunk: int | None, *, reset: inputs.Reset = None, lengths: inputs.Lengths = None
) -> tuple[Places, Int[Array, "b"]]:
  """Returns the places of t tokens after `length` of a document, and its next length; chunk=None: all of it."""
  position, length = positions(length, t, reset=reset, lengths=lengths)
  slot = position if chunk is None else position % chunk
  segment = jnp.cumsum(slot == 0, axis=1, dtype=jnp.int32)
  if lengths is not None:
    segment = jnp.where(inputs.valid(lengths, t), segment, -1)
  return Places(slot, segment), length


def cached(length: Int[Array, "b"], slots: int, chunk: int | None) -> Places:
  """Returns the places of the tokens in a cache after `length` tokens of a document."""
  filled = length if chunk is None else length % chunk
  segment = jnp.where(jnp.arange(slots) < filled[:, None], 0, -1).astype(jnp.int32)
  return Places(*jnp.broadcast_arrays(jnp.arange(slots, dtype=jnp.int32), segment))


def sizes(places: Places) -> Int[Array, "b t"]:
  """Returns the number of tokens in each token's chunk, where `at` begins with a whole chunk."""
  time = jnp.arange(places.slot.shape[1])
  ends = jnp.pad(places.segment[:, 1:] != places.segment[:, :-1], ((0, 0), (0, 1)), constant_values=True)
  end = jax.lax.cummin(jnp.where(ends, time, time.size), axis=1, reverse=True)
  return places.slot + 1 + end - time


def append(old: Array, new: Array) -> Array:
  """Returns the tokens of a cache and those that follow them."""
  return jnp.concatenate([old, new.astype(old.dtype)], axis=1)


def write(old: Float[Array, "b s k"], new: Float[Array, "b t k"], places: Places) -> Float[Array, "b s k"]:
  """Returns the cache after these tokens: it holds the tokens of the last chunk alone."""
  last = jnp.max(places.segment, axis=1, initial=0, keepdims=True)
  slot = jnp.where(places.segment == last, places.slot, old.shape[1])
  rest = jnp.where((last > 0)[..., None], 0, old)
  return written(rest, new.astype(old.dtype), slot)

"""The cache of attention: slots for the tokens of a document, filled in order or as a ring, in a dtype of choice.

Cached vectors are "b g s k": groups before slots, so that a step multiplies each group's matrix as it is stored.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.attention.step import Packed
from kernels.documents import positions
from kernels.inputs import Lengths, Reset, valid
from kernels.scatter import written

DTYPES = ("float32", "bfloat16", "int8")

Kept = dict[str, Any]  # name -> "b g s k", or Packed


class Cache(NamedTuple):
  """The vectors of the tokens of the current document: token i in slot i, or in slot i modulo the slots of a ring.

  The other slots may hold tokens of earlier documents. Of a token with a value that is not finite, "k" is NaN and all
  others are 0: scores are masked, so that no later document sees it, where weights of 0 are multiplied.
  """

  kept: Kept
  segment: Int[Array, "b s"]  # the document, named by the index of its first token; -1 in empty slots
  position: Int[Array, "b s"]  # index of the token in the row
  consumed: Int[Array, "b"]  # tokens so far
  start: Int[Array, "b"]  # index of the current document's first token


class Tokens(NamedTuple):
  """Tokens as a cache holds them: its first three fields."""

  kept: Kept
  segment: Int[Array, "b s"]
  position: Int[Array, "b s"]


class Places(NamedTuple):
  """Where new tokens stand, and the last two fields of the cache after them."""

  segment: Int[Array, "b t"]  # -1 past the lengths
  position: Int[Array, "b t"]
  offset: Int[Array, "b t"]  # counted from the start of the document
  consumed: Int[Array, "b"]
  start: Int[Array, "b"]


def empty(batch: int, slots: int, shapes: Mapping[str, tuple[int, int]], dtype: str) -> Cache:
  """Returns a cache without tokens.

  Args:
    shapes: for each name the number of groups and the size of a vector.
    dtype: "float32" is JAX's default, as for other states, so float64 where that is enabled; "bfloat16"; or "int8":
      integers of eight bits with a unit in float32.
  """

  def room(groups: int, size: int) -> Any:
    shape = (batch, groups, slots, size)
    if dtype == "int8":
      return Packed(jnp.zeros(shape, jnp.int8), jnp.zeros(shape[:-1], jnp.float32))
    return jnp.zeros(shape, None if dtype == "float32" else dtype)

  none, zero = jnp.full((batch, slots), -1, jnp.int32), jnp.zeros((batch,), jnp.int32)
  return Cache({name: room(*shape) for name, shape in shapes.items()}, none, none, consumed=zero, start=zero)


def locate(
  x: Float[Array, "b t d"], before: Cache | None = None, *, reset: Reset = None, lengths: Lengths = None
) -> Places:
  """Returns the positions of the tokens of x, which come after those of a cache, or first.

  Args:
    lengths: tokens of each row, 0 to t.
  """
  batch, t, _ = x.shape
  zero = jnp.zeros((batch,), jnp.int32)
  consumed, start = (zero, zero) if before is None else (before.consumed, before.start)
  offset, length = positions(consumed - start, t, reset=reset, lengths=lengths)
  position = consumed[:, None] + jnp.arange(t, dtype=jnp.int32)
  consumed += t if lengths is None else lengths
  segment = position - offset
  if lengths is not None:
    segment = jnp.where(valid(lengths, t), segment, -1)
  return Places(segment, position, offset, consumed=consumed, start=consumed - length)


def locations(places: Places, slots: Tokens | Cache) -> dict[str, Any]:
  """Returns where new tokens and those in slots stand, as `kernels.attention` takes it."""
  return dict(q_position=places.position, k_position=slots.position, q_segment=places.segment, k_segment=slots.segment)


def locations_of_one(places: Places, slots: Cache) -> dict[str, Any]:
  """Returns the same for one new token of each row, as `kernels.attention.step` takes it."""
  where = locations(places, slots)
  return where | dict(q_position=places.position[:, 0], q_segment=places.segment[:, 0])


def extend(
  cache: Cache, new: Mapping[str, Float[Array, "b t g k"]], places: Places, *, ring: bool, packed: bool
) -> tuple[Tokens, Cache]:
  """Returns the tokens that the new ones may see, their vectors as floats "b s g k", and the cache with the new tokens.

  Args:
    new: the vectors of each new token.
    ring: whether a token may take the slot of one that stands further back than there are slots.
    packed: whether a document may start among the new tokens.
  """
  tokens, before = _tokens(cache, new, places), Tokens(*cache[:3])
  after = _write(before, tokens, places.start, ring)
  # Several tokens may overwrite what the first of them still sees: a window's oldest, or an earlier document.
  overwrites = places.position.shape[1] > 1 and (ring or packed)
  append = lambda old, new: jnp.concatenate([old, new], axis=_slots_axis(old))
  visible = jax.tree.map(append, before, tokens) if overwrites else after
  cache = Cache(*after, consumed=places.consumed, start=places.start)
  return visible._replace(kept={name: z.swapaxes(1, 2) for name, z in read(visible).items()}), cache


def append(cache: Cache, new: Mapping[str, Float[Array, "b 1 g k"]], places: Places, *, ring: bool) -> Cache:
  """Writes one more token for each row, in place where the old cache is used no more, and returns the cache."""
  after = _write(Tokens(*cache[:3]), _tokens(cache, new, places), places.start, ring)
  return Cache(*after, consumed=places.consumed, start=places.start)


def read(tokens: Tokens) -> dict[str, Float[Array, "b g s k"]]:
  """Returns the vectors as floats."""
  unpack = lambda z: z.integers * z.unit[..., None] if isinstance(z, Packed) else z
  return {name: unpack(z) for name, z in tokens.kept.items()}


def nan_where_full(y: Float[Array, "b t d"], places: Places, cache: Cache) -> Float[Array, "b t d"]:
  """Returns NaN for each token for which the cache, which is no ring, has no slot, however the tokens were cut."""
  return jnp.where((places.offset >= cache.segment.shape[1])[..., None], jnp.nan, y)


def _tokens(cache: Cache, new: Mapping[str, Float[Array, "b t g k"]], places: Places) -> Tokens:
  others = (z for name, z in new.items() if name != "k")
  finite = functools.reduce(jnp.logical_and, (jnp.isfinite(z).all(axis=-1, keepdims=True) for z in others))
  vectors = {name: jnp.where(finite, z, jnp.nan if name == "k" else 0) for name, z in new.items()}
  vectors = {name: _pack(z.swapaxes(1, 2), cache.kept[name]) for name, z in vectors.items()}
  return Tokens(vectors, places.segment, places.position)


def _write(cache: Tokens, tokens: Tokens, start: Int[Array, "b"], ring: bool) -> Tokens:
  """Returns the cache with the new tokens of the last document, or as many of them as a ring holds."""
  slots = cache.segment.shape[1]
  slot = tokens.position - start[:, None]
  current = tokens.segment == start[:, None]
  if ring:
    current &= slot >= jnp.max(slot, axis=1, keepdims=True, where=current, initial=0) + 1 - slots
    slot = slot % slots
  slot = jnp.where(current, slot, slots)
  # XLA makes a slice of a scatter of one update, and then copies the whole cache for everyone who reads it (on CPUs, in
  # JAX 0.10). So one token comes with a second one, which has no slot.
  lonely = slot.size == 1
  if lonely:
    slot = jnp.concatenate([slot, jnp.full_like(slot, slots)], axis=1)

  def write(old: Array, new: Array) -> Array:
    axis = _slots_axis(old)
    return written(old, jnp.concatenate([new, new], axis=axis) if lonely else new, slot, axis=axis)

  return jax.tree.map(write, cache, tokens)


def _slots_axis(z: Array) -> int:
  """Returns the axis of the slots: after the groups in "b g s k" and "b g s", else the second."""
  return min(z.ndim - 1, 2)


def _pack(z: Float[Array, "b g t k"], cached: Any) -> Any:
  """Vectors in the dtype of the cached ones."""
  if not isinstance(cached, Packed):
    return z.astype(cached.dtype)
  unit = jnp.max(jnp.abs(z), axis=-1).astype(cached.unit.dtype) / 127
  integers = jnp.round(z / jnp.where(unit == 0, 1, unit)[..., None]).astype(jnp.int8)
  return Packed(integers, unit)

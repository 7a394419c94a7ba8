"""What attention remembers of the tokens of a document: slots, filled in order or as a ring, in a dtype of choice."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.documents import positions
from kernels.inputs import valid

DTYPES = ("float32", "bfloat16", "int8")

Kept = dict[str, Any]  # name -> "b s ...", or Packed


class Packed(NamedTuple):
  """Vectors in eight bits an entry: integers times the vector's own unit, to 1/254 of its largest entry."""

  integers: Int[Array, "b s ... k"]
  unit: Float[Array, "b s ..."]


class Cache(NamedTuple):
  """What tokens of the current document left, token i in slot i, or in slot i modulo the slots of a ring.

  Other slots may hold tokens of earlier documents.
  """

  kept: Kept
  segment: Int[Array, "b s"]  # the document, named by the index of its first token; -1 in empty slots
  position: Int[Array, "b s"]  # index of the token in the row
  consumed: Int[Array, "b"]  # tokens so far
  start: Int[Array, "b"]  # index of the current document's first token


class Tokens(NamedTuple):
  """Of each token: the first three fields of a cache."""

  kept: Kept
  segment: Int[Array, "b s"]
  position: Int[Array, "b s"]


class Places(NamedTuple):
  """Where new tokens stand; and the last fields of the cache that will have them."""

  segment: Int[Array, "b t"]  # -1 past the lengths
  position: Int[Array, "b t"]
  offset: Int[Array, "b t"]  # counted from the start of the document
  consumed: Int[Array, "b"]
  start: Int[Array, "b"]


def empty(batch: int, slots: int, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> Cache:
  """Slots without tokens, for vectors of these shapes.

  Args:
    dtype: "float32" is JAX's default, as for other states, so float64 where that is enabled; "bfloat16"; or "int8":
      integers of eight bits with a unit in float32.
  """

  def room(shape: tuple[int, ...]) -> Any:
    if dtype == "int8":
      return Packed(jnp.zeros((batch, slots, *shape), jnp.int8), jnp.zeros((batch, slots, *shape[:-1]), jnp.float32))
    return jnp.zeros((batch, slots, *shape), None if dtype == "float32" else dtype)

  none, zero = jnp.full((batch, slots), -1, jnp.int32), jnp.zeros((batch,), jnp.int32)
  return Cache({name: room(shape) for name, shape in shapes.items()}, none, none, consumed=zero, start=zero)


def place(
  x: Float[Array, "b t d"],
  before: Cache | None = None,
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
) -> Places:
  """Where the tokens of x stand, which come after those of a cache, or after none."""
  batch, t, _ = x.shape
  zero = jnp.zeros((batch,), jnp.int32)
  consumed, start = (zero, zero) if before is None else (before.consumed, before.start)
  offset, length = positions(consumed - start, t, reset=reset, lengths=lengths)
  position = consumed[:, None] + jnp.arange(t, dtype=jnp.int32)
  consumed += t if lengths is None else jnp.clip(lengths, 0, t).astype(jnp.int32)
  segment = position - offset
  if lengths is not None:
    segment = jnp.where(valid(lengths, t), segment, -1)
  return Places(segment, position, offset, consumed=consumed, start=consumed - length)


def extend(cache: Cache, kept: Mapping[str, Array], at: Places, *, ring: bool, packed: bool) -> tuple[Tokens, Cache]:
  """What the new tokens may look at, in the numbers of the cache, and the cache that has them.

  Args:
    kept: what each new token leaves.
    ring: whether a token may take the slot of one that stands further back than there are slots.
    packed: whether a document may start among the new tokens.
  """
  tokens = Tokens(_as_in(cache.kept, kept), at.segment, at.position)
  before = Tokens(*cache[:3])
  after = _write(before, tokens, at.start, ring)
  # Several tokens may overwrite what the first of them still sees: a window's oldest, or an earlier document.
  overwrites = at.position.shape[1] > 1 and (ring or packed)
  append = lambda old, new: jnp.concatenate([old, new], axis=1)
  seen = jax.tree.map(append, before, tokens) if overwrites else after
  return seen._replace(kept=_read(seen.kept)), Cache(*after, consumed=at.consumed, start=at.start)


def nan_where_full(y: Float[Array, "b t d"], at: Places, cache: Cache) -> Float[Array, "b t d"]:
  """NaN for each token for which the cache, which is no ring, has no slot, however the tokens were cut."""
  return jnp.where((at.offset >= cache.segment.shape[1])[..., None], jnp.nan, y)


def _write(cache: Tokens, tokens: Tokens, start: Int[Array, "b"], ring: bool) -> Tokens:
  """The cache with the new tokens of the last document, or as many of them as a ring holds."""
  slots = cache.segment.shape[1]
  slot = tokens.position - start[:, None]
  keep = tokens.segment == start[:, None]
  if ring:
    keep &= slot >= jnp.max(slot, axis=1, keepdims=True, where=keep, initial=0) + 1 - slots
    slot = slot % slots
  slot = jnp.where(keep, slot, slots)
  rows = jnp.arange(slot.shape[0])[:, None]
  return jax.tree.map(lambda old, new: old.at[rows, slot].set(new, mode="drop"), cache, tokens)


def _as_in(kept: Kept, new: Mapping[str, Array]) -> Kept:
  return {name: _pack(z, kept[name]) for name, z in new.items()}


def _pack(z: Array, like: Any) -> Any:
  if not isinstance(like, Packed):
    return z.astype(like.dtype)
  unit = jnp.max(jnp.abs(z), axis=-1).astype(like.unit.dtype) / 127
  integers = jnp.round(z / jnp.where(unit == 0, 1, unit)[..., None]).astype(jnp.int8)
  return Packed(integers, unit)


def _read(kept: Kept) -> Kept:
  unpack = lambda z: z.integers * z.unit[..., None] if isinstance(z, Packed) else z
  return {name: unpack(z) for name, z in kept.items()}

"""`attention` of one query for each row to a cache, for decoding: the cache is read once, in the layout that it has."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import dispatch
from kernels.attention.visible import visible
from kernels.inputs import compute_dtype, product

# A cache of at least SLOTS slots is read up to a FRACTION of them if the rest is empty. A part is copied before it is
# read, which costs as much as reading three times as many slots.
SLOTS, FRACTIONS = 1024, (16, 4)
# Slots of a cache of integers that a CPU makes floats of at a time. A cache of bfloat16 that is written and read in one
# program is widened as a whole by XLA on CPUs, whatever the program says (JAX 0.10.2).
BLOCK = 128


class Packed(NamedTuple):
  """Vectors in eight bits an entry: integers times the vector's own unit, exact to 1/254 of its largest entry."""

  integers: Int[Array, "b g s k"]
  unit: Float[Array, "b g s"]


Cached = Float[Array, "b g s _"] | Packed


def attention_step(
  q: tuple[Float[Array, "b h _"], ...],
  k: tuple[Cached, ...],
  v: Cached,
  *,
  q_position: Int[Array, "b"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b"],
  k_segment: Int[Array, "b s"],
  scale: float,
  window: int | None = None,
  softcap: float | None = None,
  slopes: tuple[float, ...] | None = None,
) -> Float[Array, "b h p"]:
  """y = sum_s softmax_s(cap(scale q . k_s) - slope |distance|) v_s over the keys that the query sees.

  Head i uses the keys and values of group i // (h / g). A row that sees no key is 0. Computed in at least float32; y
  has the dtype of the queries.

  Args:
    q, k: parts of queries and of keys; the score is the sum of the parts' products.
    k, v: integers are read as they are, without a copy of the cache in floats.
    v: finite in every slot, also in those that the query does not see; keys need not be.
    q_position, k_position, q_segment, k_segment, window, softcap, slopes: see `attention`.
    scale: the factor of the scores.
  """
  see = visible(q_position[:, None], k_position, q_segment[:, None], k_segment, mask="causal", window=window)[:, 0]
  distance = jnp.abs(q_position[:, None] - k_position)
  read = lambda k, v, see, distance: _read(q, k, v, see, distance, scale=scale, softcap=softcap, slopes=slopes)
  slots = see.shape[1]
  if slots < SLOTS:
    return read(k, v, see, distance)
  sizes = [slots // fraction for fraction in FRACTIONS]

  def first(size: int):
    cut = lambda z: jax.lax.slice_in_dim(z, 0, size, axis=min(z.ndim - 1, 2))
    return lambda *cache: read(*jax.tree.map(cut, cache))

  used = jnp.max(jnp.where(see, jnp.arange(1, slots + 1), 0))
  branch = sum((used > size).astype(jnp.int32) for size in sizes)
  return jax.lax.switch(branch, [*map(first, sizes), read], k, v, see, distance)


def _read(q, k, v, see, distance, *, scale, softcap, slopes):
  (b, h, _), g = q[0].shape, jax.tree.leaves(v)[0].shape[1]
  dtype = compute_dtype(*q, *(z.unit if isinstance(z, Packed) else z for z in (*k, v)))
  by_group = lambda z: z.reshape(b, g, h // g, -1)
  scores = scale * sum(_score(by_group(x), y, dtype) for x, y in zip(q, k, strict=True))
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if slopes is not None:
    scores -= by_group(jnp.asarray(slopes, dtype)[:, None] * distance[:, None].astype(dtype))
  scores = jnp.where(see[:, None, None], scores, -jnp.inf)
  top = scores.max(axis=-1, keepdims=True)
  weights = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0, top))
  total = weights.sum(axis=-1, keepdims=True)
  y = _sum(weights, v, q[0].dtype, dtype) / jnp.where(total == 0, 1, total)
  return y.reshape(b, h, -1).astype(q[0].dtype)


def _score(q: Float[Array, "b g r k"], k: Cached, dtype: jnp.dtype) -> Float[Array, "b g r s"]:
  """Returns q . k for every slot."""
  if not isinstance(k, Packed):
    return product("bgrk,bgsk->bgrs", q, k, dtype)
  one = lambda integers: product("bgrk,bgsk->bgrs", q, integers.astype(q.dtype), dtype)
  count, block, rest = _in_blocks(k.integers)
  scores = one(rest)
  if count:
    first = jnp.moveaxis(jax.lax.map(lambda i: one(block(i)), jnp.arange(count)), 0, 3)
    scores = jnp.concatenate([first.reshape(*q.shape[:3], -1), scores], axis=3)
  return scores * k.unit[:, :, None].astype(dtype)


def _sum(weights: Float[Array, "b g r s"], v: Cached, factors: jnp.dtype, dtype: jnp.dtype) -> Float[Array, "b g r p"]:
  """Returns the sum over slots of weight times value; weights are rounded to the dtype of v, or `factors` if packed."""
  if not isinstance(v, Packed):
    return product("bgrs,bgsp->bgrp", weights.astype(v.dtype), v, dtype)
  weights = (weights * v.unit[:, :, None].astype(dtype)).astype(factors)
  one = lambda weights, integers: product("bgrs,bgsp->bgrp", weights, integers.astype(factors), dtype)
  count, block, rest = _in_blocks(v.integers)
  y = one(weights[..., count * BLOCK :], rest)
  add = lambda y, i: (y + one(jax.lax.dynamic_slice_in_dim(weights, i * BLOCK, BLOCK, axis=3), block(i)), None)
  return jax.lax.scan(add, y, jnp.arange(count))[0] if count else y


def _in_blocks(z: Int[Array, "b g s k"]) -> tuple[int, Callable[[Array], Array], Int[Array, "b g r k"]]:
  """Returns how many blocks of slots are read one after the other, a function that reads one, and the slots left."""
  count = 0 if dispatch.multiplies_bfloat16() or z.shape[2] < 2 * BLOCK else z.shape[2] // BLOCK
  return count, lambda i: jax.lax.dynamic_slice_in_dim(z, i * BLOCK, BLOCK, axis=2), z[:, :, count * BLOCK :]

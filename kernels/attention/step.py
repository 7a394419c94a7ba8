"""`attention` of one query for each row to a cache, for decoding: the cache is read once, in the layout that it has."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.attention.visible import visible
from kernels.inputs import compute_dtype, product

# A cache of at least SLOTS slots is read up to a FRACTION of them if the rest is empty. A part is copied before it is
# read, which costs as much as reading three times as many slots.
SLOTS, FRACTIONS = 1024, (16, 4)


def attention_step(
  q: tuple[Float[Array, "b h _"], ...],
  k: tuple[Float[Array, "b g s _"], ...],
  v: Float[Array, "b g s p"],
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
    k, v: they are finite in every slot, also in those that hold nothing.
    q_position, k_position, q_segment, k_segment, window, softcap, slopes: see `attention`.
    scale: the factor of the scores.
  """
  see = visible(q_position[:, None], k_position, q_segment[:, None], k_segment, mask="causal", window=window)[:, 0]
  distance = jnp.abs(q_position[:, None] - k_position)
  read = lambda k, v, see, distance: _read(q, k, v, see, distance, scale=scale, softcap=softcap, slopes=slopes)
  slots = v.shape[2]
  if slots < SLOTS:
    return read(k, v, see, distance)
  sizes = [slots // fraction for fraction in FRACTIONS]

  def first(size: int):
    cut = lambda z: jax.lax.slice_in_dim(z, 0, size, axis=2 if z.ndim == 4 else 1)
    return lambda *given: read(*jax.tree.map(cut, given))

  used = jnp.max(jnp.where(see, jnp.arange(1, slots + 1), 0))
  branch = sum((used > size).astype(jnp.int32) for size in sizes)
  return jax.lax.switch(branch, [*map(first, sizes), read], k, v, see, distance)


def _read(
  q: tuple[Float[Array, "b h _"], ...],
  k: tuple[Float[Array, "b g s _"], ...],
  v: Float[Array, "b g s p"],
  see: Bool[Array, "b s"],
  distance: Int[Array, "b s"],
  *,
  scale: float,
  softcap: float | None,
  slopes: tuple[float, ...] | None,
) -> Float[Array, "b h p"]:
  (b, h, _), g = q[0].shape, v.shape[1]
  dtype = compute_dtype(*q, *k, v)
  by_group = lambda z: z.reshape(b, g, h // g, -1)
  scores = scale * sum(product("bgrk,bgsk->bgrs", by_group(x), y, dtype) for x, y in zip(q, k, strict=True))
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if slopes is not None:
    scores -= by_group(jnp.asarray(slopes, dtype)[:, None] * distance[:, None].astype(dtype))
  scores = jnp.where(see[:, None, None], scores, -jnp.inf)
  top = scores.max(axis=-1, keepdims=True)
  weights = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0, top))
  total = weights.sum(axis=-1, keepdims=True)
  y = product("bgrs,bgsp->bgrp", weights.astype(v.dtype), v, dtype) / jnp.where(total == 0, 1, total)
  return y.reshape(b, h, -1).astype(q[0].dtype)

"""Attention to the best pools of tokens: an indexer with few numbers a token says which pools each query attends to.

DeepSeek-AI 2025, arXiv:2512.02556, sec. 2.1, with pools in the place of tokens as in `models/glm5_next` and
`models/qwen4_exp` of transformers. A pool is P tokens of a document, counted from its start; its key is made of what
they keep, as the model says. Choosing has no gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import inputs
from kernels.attention import attention
from kernels.attention.visible import visible

ROWS = 64  # queries whose scores are in memory at once


class Index(NamedTuple):
  """Holds what chooses pools.

  q, weights: the queries of each head of the indexer, and what the head counts. kept: arrays of each token, of which
  `key` makes that of a pool, given them for its `pool` tokens and the place of the first of these in the document.
  """

  q: Float[Array, "b t i k"]
  weights: Float[Array, "b t i"]
  kept: tuple[Float[Array, "b s _"], ...]
  pool: int
  key: Callable[[Sequence[Float[Array, "b c w _"]], Int[Array, "b c"]], Float[Array, "b c k"]]


class Pools(NamedTuple):
  """Keys of pools, where their last tokens stand, and the pool of each token; segment -1 marks what is no pool."""

  k: Float[Array, "b c k"]
  position: Int[Array, "b c"]
  segment: Int[Array, "b c"]
  of_token: Int[Array, "b s"]


def indexed_attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b s g k"],
  v: Float[Array, "b s g p"],
  index: Index,
  *,
  q_position: Int[Array, "b t"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b t"],
  k_segment: Int[Array, "b s"],
  scale: float,
  chosen: int,
  packed: bool,
) -> Float[Array, "b t h p"]:
  """y_t = sum_s softmax_s(scale q_t . k_s) v_s over the tokens s of the best `chosen` / P pools, and of t's own one.

  A pool's score is sum_i weights_ti relu(q_ti . key), and it can be chosen once t sees all of it. The tokens after the
  last such pool are always seen. Where no document has more than `chosen` tokens, this is `attention`. Pools are chosen
  in float32 at least.

  Args:
    q_position, k_position, q_segment, k_segment: as for `attention`; a segment is the position of its first token.
    packed: whether tokens of a document may stand anywhere; else token i of the last document of a row is entry i.
  """
  wide = lambda z: jax.lax.stop_gradient(z).astype(jnp.promote_types(z.dtype, jnp.float32))
  size, index_q, index_weights, kept = index.pool, wide(index.q), wide(index.weights), [wide(z) for z in index.kept]
  if k.shape[1] <= chosen:
    where: dict[str, Any] = dict(q_position=q_position, k_position=k_position, q_segment=q_segment, k_segment=k_segment)
    return attention(q, k, v, scale=scale, **where)
  if packed:
    tokens = k, v, k_position, k_segment, *kept
    k, v, k_position, k_segment, *kept = _in_order(jnp.where(k_segment >= 0, k_position, -1), tokens)
  finite = inputs.finite(k, v)
  k, v = inputs.blank(finite & (k_segment >= 0), k, v)
  pools = _pools(index._replace(kept=tuple(kept)), k_position, k_segment, stride=1 if packed else size)
  (b, t, h, _), g = q.shape, k.shape[2]
  dtype = inputs.compute_dtype(q, k, v)

  @jax.checkpoint
  def block(at):
    q, index_q, weights, q_position, q_segment = at
    see = visible(q_position, k_position, q_segment, k_segment, mask="causal", window=None)
    can = visible(q_position, pools.position, q_segment, pools.segment, mask="causal", window=None)
    scores = inputs.product("brik,bck->bric", index_q, pools.k, dtype)
    scores = jnp.sum(jax.nn.relu(scores) * weights[..., None], axis=2)
    best = jax.lax.top_k(jnp.where(can, scores, -jnp.inf), min(chosen // size, can.shape[2]))[1]
    picked = can & jnp.put_along_axis(jnp.zeros(can.shape, bool), best, True, axis=2, inplace=False)
    see &= _of_tokens(picked, pools) | _tail(q_position - q_segment, k_position - k_segment, size)
    scores = scale * inputs.product("brghk,bsgk->bghrs", q, k, dtype)
    scores = jnp.where(see[:, None, None], scores, jnp.finfo(dtype).min)
    weights = jnp.where(see[:, None, None], jax.nn.softmax(scores, axis=-1), 0)
    y = inputs.product("bghrs,bsgp->brghp", weights, v, dtype)
    return inputs.where((see & ~finite[:, None]).any(axis=2), jnp.nan, y)

  rows = min(ROWS, t)
  fill = lambda z, value: jnp.pad(z, ((0, 0), (0, -t % rows), *((0, 0),) * (z.ndim - 2)), constant_values=value)
  cut = lambda z, value=0: fill(z, value).reshape(b, -1, rows, *z.shape[2:]).swapaxes(0, 1)
  by_group = q.reshape(b, t, g, h // g, -1)
  y = jax.lax.map(block, (cut(by_group), cut(index_q), cut(index_weights), cut(q_position), cut(q_segment, -1)))
  return y.swapaxes(0, 1).reshape(b, -1, h, v.shape[3])[:, :t].astype(q.dtype)


def _in_order(position: Int[Array, "b s"], tokens: Sequence[Array]) -> list[Array]:
  """Returns arrays "b s ..." with their tokens in the order of the positions."""
  order = jnp.argsort(position, axis=1, stable=True)
  return [jnp.take_along_axis(z, jax.lax.expand_dims(order, range(2, z.ndim)), axis=1) for z in tokens]


def _pools(index: Index, position: Int[Array, "b s"], segment: Int[Array, "b s"], *, stride: int) -> Pools:
  """Returns the pools whose last tokens are every `stride`-th entry; the tokens of a pool stand one after the other."""
  s, size = position.shape[1], index.pool
  offset = position - segment
  last = jnp.arange(size - 1, s, stride)
  members = last[:, None] + jnp.arange(1 - size, 1)
  complete = (offset[:, last] % size == size - 1) & (segment[:, last] >= 0)
  of_token = (jnp.arange(s) - offset % size) // stride
  return Pools(
    k=jax.lax.stop_gradient(index.key([z[:, members] for z in index.kept], offset[:, last] - (size - 1))),
    position=position[:, last],
    segment=jnp.where(complete, segment[:, last], -1),
    of_token=of_token,
  )


def _of_tokens(picked: Bool[Array, "b r c"], pools: Pools) -> Bool[Array, "b r s"]:
  """Returns whether the pool of each token is picked; it is not while it is not complete."""
  of_token, count = pools.of_token, picked.shape[2]
  if not count:
    return jnp.zeros((*picked.shape[:2], of_token.shape[1]), bool)
  entry = jnp.broadcast_to(jnp.clip(of_token, 0, count - 1)[:, None], (*picked.shape[:2], of_token.shape[1]))
  return jnp.take_along_axis(picked, entry, axis=2) & (of_token < count)[:, None]


def _tail(q_offset: Int[Array, "b r"], k_offset: Int[Array, "b s"], size: int) -> Bool[Array, "b r s"]:
  """Returns whether a token stands after the last pool that a query has seen to its end."""
  return (k_offset // size)[:, None] == ((q_offset + 1) // size)[:, :, None]

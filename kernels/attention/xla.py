"""`attention` block by block (FlashAttention): scores are never in memory for more than a block of queries and keys.

Dao et al. 2022, arXiv:2205.14135. Pairs of blocks none of whose queries sees any of the keys are skipped: half of them
if causal, most of them in a window or in a cache that is mostly empty. Inside, a head's keys are read by the h/g heads
that share them as so many more rows of queries, and are not repeated.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import inputs
from kernels.attention.visible import visible

# Queries and keys in a block. A CPU wants the scores in its cache, an accelerator wants few steps.
BLOCKS = {"cpu": (128, 256)}
ACCELERATOR_BLOCKS = (1024, 2048)


class Rules(NamedTuple):
  """What is fixed when a call is compiled."""

  mask: str
  window: int | None
  scale: float
  softcap: float | None


class Places(NamedTuple):
  """Where tokens stand, in blocks."""

  position: Int[Array, "blocks b c"]
  segment: Int[Array, "blocks b c"] | None


def attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b s g k"],
  v: Float[Array, "b s g p"],
  q_position: Int[Array, "b t"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b t"] | None,
  k_segment: Int[Array, "b s"] | None,
  *,
  mask: str,
  window: int | None,
  scale: float,
  softcap: float | None,
) -> Float[Array, "b t h p"]:
  """Cuts queries and keys into blocks, and puts the answers together again."""
  b, t, h, _ = q.shape
  s, g = k.shape[1:3]
  if 0 in (t, s):
    return jnp.zeros((b, t, h, v.shape[3]), inputs.compute_dtype(q, k, v))
  rows, columns = (min(most, size) for most, size in zip(BLOCKS.get(jax.default_backend(), ACCELERATOR_BLOCKS), (t, s)))
  if q_segment is None and s % columns:
    # keys that fill up the last block are told by their segment
    q_segment, k_segment = jnp.zeros_like(q_position), jnp.zeros_like(k_position)
  places = lambda position, segment, c: Places(
    _blocks(position, c), None if segment is None else _blocks(segment, c, fill=-1)
  )
  dtype = jnp.result_type(q, k, v)
  q = q.reshape(b, t, g, h // g, -1)
  y = blockwise(
    Rules(mask, window, scale, softcap),
    _blocks(q, rows).transpose(0, 1, 3, 4, 2, 5).astype(dtype),
    *(_blocks(z, columns).transpose(0, 1, 3, 2, 4).astype(dtype) for z in (k, v)),
    places(q_position, q_segment, rows),
    places(k_position, k_segment, columns),
  )
  y = y.transpose(1, 0, 4, 2, 3, 5).reshape(b, -1, h, v.shape[3])
  return y[:, :t]


def _blocks(z: Array, size: int, fill: int = 0) -> Array:
  """ "b t ..." to "blocks b c ...", the last block filled up."""
  extra = -z.shape[1] % size
  z = jnp.pad(z, ((0, 0), (0, extra), *[(0, 0)] * (z.ndim - 2)), constant_values=fill)
  return z.reshape(z.shape[0], -1, size, *z.shape[2:]).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def blockwise(
  rules: Rules,
  q: Float[Array, "x b g r c k"],
  k: Float[Array, "z b g s k"],
  v: Float[Array, "z b g s p"],
  at: Places,
  of: Places,
) -> Float[Array, "x b g r c p"]:
  """Each block of queries meets the blocks of keys in turn."""
  return _forward(rules, q, k, v, at, of)[0]


def _forward(rules, q, k, v, at, of):
  """The answers, and the logarithms of the sums of exponentials that the gradient needs."""
  dtype = inputs.compute_dtype(q, k, v)

  def queries(_, block):
    q, at, needed = block
    shape = q.shape[:-1]

    def keys(carry, block):
      k, v, of, needed = block

      def meet(carry):
        top, total, y = carry
        scores, see = _scores(rules, q, k, at, of)[0], _see(rules, at, of)
        higher = jnp.maximum(top, jnp.max(scores, axis=-1, initial=-jnp.inf, where=see))
        # a row that has seen nothing yet stays at -inf, which is never subtracted
        base = jnp.where(jnp.isneginf(higher), 0, higher)[..., None]
        weights = jnp.where(see, jnp.exp(scores - base), 0)
        shrink = jnp.exp(top - base[..., 0])
        y = y * shrink[..., None] + _dot("bgrcs,bgsp->bgrcp", weights.astype(v.dtype), v)
        return higher, total * shrink + weights.sum(axis=-1), y

      return jax.lax.cond(needed, meet, lambda carry: carry, carry), None

    start = (jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype), jnp.zeros((*shape, v.shape[-1]), dtype))
    (top, total, y), _ = jax.lax.scan(keys, start, (k, v, of, needed))
    seen = total > 0
    total = jnp.where(seen, total, 1)
    return None, (y / total[..., None], jnp.where(seen, top, 0) + jnp.log(total))

  return jax.lax.scan(queries, None, (q, at, _needed(rules, at, of)))[1]


def _blockwise_fwd(rules, q, k, v, at, of):
  y, level = _forward(rules, q, k, v, at, of)
  return y, (q, k, v, at, of, y, level)


def _blockwise_bwd(rules, residuals, d_y):
  q, k, v, at, of, y, level = residuals

  def queries(carry, block):
    q, at, level, d_y, through, needed = block

    def keys(carry, block):
      j, k, v, of, needed = block

      def meet(carry):
        d_q, d_k, d_v = carry
        scores, slope = _scores(rules, q, k, at, of)
        weights = jnp.where(_see(rules, at, of), jnp.exp(scores - level[..., None]), 0)
        d_scores = weights * (_dot("bgrcp,bgsp->bgrcs", d_y, v) - through[..., None]) * slope
        d_scores, weights = d_scores.astype(k.dtype), weights.astype(v.dtype)
        d_k = d_k.at[j].add(_dot("bgrcs,bgrck->bgsk", d_scores, q))
        d_v = d_v.at[j].add(_dot("bgrcs,bgrcp->bgsp", weights, d_y))
        return d_q + _dot("bgrcs,bgsk->bgrck", d_scores, k), d_k, d_v

      return jax.lax.cond(needed, meet, lambda carry: carry, carry), None

    start = jnp.zeros(q.shape, level.dtype)
    (d_q, *carry), _ = jax.lax.scan(keys, (start, *carry), (jnp.arange(k.shape[0]), k, v, of, needed))
    return tuple(carry), d_q

  through = jnp.sum(y * d_y, axis=-1)
  zero = tuple(jnp.zeros(z.shape, level.dtype) for z in (k, v))
  blocks = (q, at, level, d_y.astype(q.dtype), through, _needed(rules, at, of))
  (d_k, d_v), d_q = jax.lax.scan(queries, zero, blocks)
  return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), None, None


blockwise.defvjp(_blockwise_fwd, _blockwise_bwd)


def _scores(rules: Rules, q, k, at: Places, of: Places) -> tuple[Float[Array, "b g r c s"], Float[Array, "..."]]:
  """The scores of one pair of blocks, and their derivatives by q . k."""
  scores = rules.scale * _dot("bgrck,bgsk->bgrcs", q, k)
  if rules.softcap is None:
    return scores, jnp.asarray(rules.scale, scores.dtype)
  bent = jnp.tanh(scores / rules.softcap)
  return rules.softcap * bent, rules.scale * (1 - bent**2)


def _see(rules: Rules, at: Places, of: Places) -> Bool[Array, "b 1 1 c s"]:
  see = visible(at.position, of.position, at.segment, of.segment, mask=rules.mask, window=rules.window)
  return see[:, None, None]


def _needed(rules: Rules, at: Places, of: Places) -> Bool[Array, "x z"]:
  """Whether any token of a block of queries may see any of a block of keys."""

  def pair(at, of):
    return jnp.any(visible(at.position, of.position, at.segment, of.segment, mask=rules.mask, window=rules.window))

  return jax.lax.map(lambda at: jax.lax.map(lambda of: pair(at, of), of), at)


def _dot(spec: str, x: Array, y: Array) -> Array:
  """Products of the operands' dtype, sums in float32 at least."""
  return jnp.einsum(spec, x, y, preferred_element_type=inputs.compute_dtype(x, y))

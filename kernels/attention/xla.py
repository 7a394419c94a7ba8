"""`attention` block by block (FlashAttention): scores are never in memory for more than a block of queries and keys.

Dao et al. 2022, arXiv:2205.14135. Pairs of blocks none of whose queries sees any of the keys are skipped: half of them
if causal, most of them in a window or in a cache that is mostly empty. Inside, a head's keys are read by the h/g heads
that share them as so many more rows of queries, and are not repeated.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import dispatch, inputs
from kernels.attention.visible import EVERYONE, places, visible
from kernels.attention.weights import POINTWISE
from kernels.kept_states import named

# Queries and keys in a block. A CPU wants the scores in its cache, an accelerator wants few steps.
BLOCKS = dict(cpu=(256, 256), accelerator=(1024, 2048))
# Blocks are at most half of a window, which wastes most of large ones, but not smaller than this for that reason.
LEAST_BLOCK = 128
# the axes of "b c g k" as "b g c k" and as "b g k c": a product is fastest of rows by columns
ROWS, COLUMNS = (0, 2, 1, 3), (0, 2, 3, 1)
# of "b g r c k" as "b g k r c"
QUERY_COLUMNS = (0, 1, 4, 2, 3)


class Rules(NamedTuple):
  """The settings that are fixed when a call is compiled."""

  mask: str
  window: int | None
  scale: float
  softcap: float | None
  weights: str = "softmax"
  slopes: tuple[float, ...] | None = None
  decays: tuple[float, ...] | None = None


class Places(NamedTuple):
  """Where tokens stand, in blocks."""

  position: Int[Array, "blocks b c"]
  segment: Int[Array, "blocks b c"] | None
  finite: Bool[Array, "blocks b c"] | None = None  # whether keys and values are; None for queries


def attention(
  q, k, v, q_position, k_position, q_segment, k_segment, *, mask, window, scale, softcap, weights, slopes, decays
):
  """Cuts queries into blocks, and puts their answers together again; keys and values are read where they are."""
  b, t, h, _ = q.shape
  s, g = k.shape[1:3]
  if s == 0:
    return jnp.zeros((b, t, h, v.shape[3]), inputs.compute_dtype(q, k, v))
  q_position, k_position = places(q, k, q_position, k_position)
  # A weight of 0 times a value that is not finite would be NaN, as would be a gradient.
  q_finite, finite = inputs.finite(q), inputs.finite(k, v)
  (q,), (k, v) = inputs.blank(q_finite, q), inputs.blank(finite, k, v)
  most = dispatch.tuned(**BLOCKS)
  limit = max(most) if window is None else max(LEAST_BLOCK, window // 2)
  rows, columns = min(most[0], limit, t), _block_size(s, min(most[1], limit))
  if s % columns:
    # what fills up the last block is told by its segment
    if q_segment is None or k_segment is None:
      q_segment, k_segment = jnp.zeros_like(q_position), jnp.zeros_like(k_position)
    k, v, k_position, finite = (_filled(z, columns) for z in (k, v, k_position, finite))
    k_segment = _filled(k_segment, columns, -1)
  cut = lambda c, *arrays: Places(*jax.tree.map(lambda z: _blocks(z, c), arrays))
  y, spoilt = blockwise(
    Rules(mask, window, scale, softcap, weights, slopes, decays),
    _blocks(_filled(q.reshape(b, t, g, h // g, -1), rows), rows).transpose(0, 1, 3, 4, 2, 5),
    k,
    v,
    cut(
      rows, _filled(q_position, rows, q_position[:, -1:]), None if q_segment is None else _filled(q_segment, rows, -1)
    ),
    cut(columns, k_position, k_segment, finite),
  )
  y = y.transpose(1, 0, 4, 2, 3, 5).reshape(b, -1, h, v.shape[3])[:, :t]
  return inputs.where(~q_finite | spoilt.swapaxes(0, 1).reshape(b, -1)[:, :t], jnp.nan, y)


def _block_size(s: int, most: int) -> int:
  """Returns the largest divisor of s up to `most`, which saves filling up; or `most`, if that is below half of it."""
  best = max(size for size in range(1, min(s, most) + 1) if s % size == 0)
  return best if 2 * best > most or best == s else most


def _filled(z: Array, size: int, fill: int | Array = 0) -> Array:
  """ "b t ..." with t made a multiple of `size`."""
  more = (z.shape[0], -z.shape[1] % size, *z.shape[2:])
  return jnp.concatenate([z, jnp.broadcast_to(jnp.asarray(fill, z.dtype), more)], axis=1)


def _blocks(z: Array, size: int) -> Array:
  """ "b t ..." to "blocks b c ..."."""
  return z.reshape(z.shape[0], -1, size, *z.shape[2:]).swapaxes(0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def blockwise(
  rules: Rules,
  q: Float[Array, "x b g r c k"],
  k: Float[Array, "b s g k"],
  v: Float[Array, "b s g p"],
  at: Places,
  of: Places,
) -> tuple[Float[Array, "x b g r c p"], Bool[Array, "x b c"]]:
  """Lets each block of queries meet the blocks of keys in turn, and says which queries see a key that is not finite."""
  y, spoilt, _ = _forward(rules, q, k, v, at, of)
  return y, spoilt


def _forward(rules, q, k, v, at, of):
  """Computes what `blockwise` returns, and the logarithms of the sums of exponentials that the gradient needs."""
  dtype = inputs.compute_dtype(q, k, v)
  k_columns, v_rows = _reader(k, of, q.shape[0], COLUMNS), _reader(v, of, q.shape[0], ROWS)

  def queries(_, block):
    q, at, needed = block
    shape = q.shape[:-1]

    def keys(carry, block):
      j, of, needed = block

      def meet(carry):
        top, total, y, spoilt = carry
        v = v_rows(j)
        scores, see = _scores(rules, q, k_columns(j), at, of)[0], _see(rules, at, of)
        spoilt |= (see[:, 0, 0] & ~of.finite[:, None]).any(axis=-1)
        if rules.weights in POINTWISE:
          weights = jnp.where(see, POINTWISE[rules.weights](scores)[0], 0)
          return top, total, y + _dot("bgrcs,bgsp->bgrcp", weights.astype(v.dtype), v), spoilt
        scores = jnp.where(see, scores, -jnp.inf)
        higher = jnp.maximum(top, scores.max(axis=-1))
        # a row that has seen nothing yet stays at -inf, which is never subtracted
        base = jnp.where(jnp.isneginf(higher), 0, higher)[..., None]
        weights = jnp.exp(scores - base)
        shrink = jnp.exp(top - base[..., 0])
        y = y * shrink[..., None] + _dot("bgrcs,bgsp->bgrcp", weights.astype(v.dtype), v)
        return higher, total * shrink + weights.sum(axis=-1), y, spoilt

      return jax.lax.cond(needed, meet, lambda carry: carry, carry), None

    start = (jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype), jnp.zeros((*shape, v.shape[-1]), dtype))
    (top, total, y, spoilt), _ = jax.lax.scan(
      keys, (*start, jnp.zeros_like(at.position, bool)), (jnp.arange(needed.size), of, needed)
    )
    seen = total > 0
    total = jnp.where(seen, total, 1)
    return None, (y / total[..., None], spoilt, jnp.where(seen, top, 0) + jnp.log(total))

  return jax.lax.scan(queries, None, (q, at, _needed(rules, at, of)))[1]


def _blockwise_fwd(rules, q, k, v, at, of):
  y, spoilt, level = named(_forward(rules, q, k, v, at, of))
  return (y, spoilt), (q, k, v, at, of, y, level)


def _blockwise_bwd(rules, residuals, gradients):
  d_y, _ = gradients
  q, k, v, at, of, y, level = residuals
  k_rows, k_columns, v_columns = (_reader(z, of, q.shape[0], a) for z, a in ((k, ROWS), (k, COLUMNS), (v, COLUMNS)))

  def queries(carry, block):
    q, at, level, d_y, through, needed = block
    d_y_columns = d_y.transpose(QUERY_COLUMNS)

    def keys(carry, block):
      j, of, needed = block

      def meet(carry):
        d_q, d_k, d_v = carry
        scores, slope = _scores(rules, q, k_columns(j), at, of)
        see, d_weights = _see(rules, at, of), _dot("bgrcp,bgps->bgrcs", d_y, v_columns(j))
        if rules.weights in POINTWISE:
          weights, rise = (jnp.where(see, z, 0) for z in POINTWISE[rules.weights](scores))
          d_scores = rise * d_weights * slope
        else:
          weights = jnp.exp(jnp.where(see, scores - level[..., None], -jnp.inf))
          d_scores = weights * (d_weights - through[..., None]) * slope
        d_scores, weights = d_scores.astype(k.dtype), weights.astype(v.dtype)
        left, rest = _left(rules, at, of, level.dtype)
        d_k = _add(d_k, j, rest * _dot("bgkrc,bgrcs->bgks", _times(q, left).transpose(QUERY_COLUMNS), d_scores))
        d_v = _add(d_v, j, _dot("bgprc,bgrcs->bgps", d_y_columns, weights))
        rows = _times(k_rows(j), rest if rules.decays is None else rest.swapaxes(2, 3))
        return d_q + left * _dot("bgrcs,bgsk->bgrck", d_scores, rows), d_k, d_v

      return jax.lax.cond(needed, meet, lambda carry: carry, carry), None

    start = jnp.zeros(q.shape, level.dtype)
    (d_q, *carry), _ = jax.lax.scan(keys, (start, *carry), (jnp.arange(needed.size), of, needed))
    return tuple(carry), d_q

  through = jnp.sum(y * d_y, axis=-1)
  (z, b, c), g = of.position.shape, k.shape[2]
  zero = tuple(jnp.zeros((z, b, g, size, c), level.dtype) for size in (k.shape[3], v.shape[3]))
  blocks = (q, at, level, d_y.astype(jnp.result_type(q, k, v)), through, _needed(rules, at, of))
  (d_k, d_v), d_q = jax.lax.scan(queries, zero, blocks)
  d_k, d_v = (d.transpose(1, 0, 4, 2, 3).reshape(z.shape).astype(z.dtype) for d, z in zip((d_k, d_v), (k, v)))
  return d_q.astype(q.dtype), d_k, d_v, None, None


blockwise.defvjp(_blockwise_fwd, _blockwise_bwd)


def _reader(z: Float[Array, "b s g k"], of: Places, readers: int, axes: tuple[int, ...]) -> Callable[..., Array]:
  """Reads block j of keys or values in the order ROWS or COLUMNS.

  What several blocks of queries read is put into that order once. A cache that is read once is left where it is.
  """
  size = of.position.shape[2]
  if readers > 1:
    blocks = _blocks(z, size).transpose(0, *(1 + axis for axis in axes))
    return lambda j: jax.lax.dynamic_index_in_dim(blocks, j, keepdims=False)
  return lambda j: jax.lax.dynamic_slice_in_dim(z, j * size, size, axis=1).transpose(axes)


def _add(total: Float[Array, "z b g k c"], j: Int[Array, ""], part: Float[Array, "b g k c"]) -> Array:
  """Adds to block j."""
  return jax.lax.dynamic_update_index_in_dim(total, jax.lax.dynamic_index_in_dim(total, j, keepdims=False) + part, j, 0)


def _scores(rules: Rules, q, k, at: Places, of: Places) -> tuple[Float[Array, "b g r c s"], Float[Array, "..."]]:
  """Returns the scores of one pair of blocks, and their derivatives by q . k."""
  left, rest = _left(rules, at, of, inputs.compute_dtype(q, k))
  scores = rules.scale * _dot("bgrck,bgks->bgrcs", _times(q, left), _times(k, rest))
  slope = jnp.asarray(rules.scale, scores.dtype)
  if rules.softcap is not None:
    bent = jnp.tanh(scores / rules.softcap)
    scores, slope = rules.softcap * bent, rules.scale * (1 - bent**2)
  if rules.slopes is not None:
    distance = jnp.abs(at.position[:, :, None] - of.position[:, None]).astype(scores.dtype)
    scores -= jnp.asarray(rules.slopes, scores.dtype).reshape(*q.shape[1:3], 1, 1) * distance[:, None, None]
  return scores, slope


def _left(rules: Rules, at: Places, of: Places, dtype) -> tuple[Array | int, Array | int]:
  """Returns the decays of queries "b 1 1 c k" and of keys "b 1 k s", whose product is the decay between the two.

  Counted from the block's first query, so that only keys within the block have more than 1, and none overflows.
  """
  if rules.decays is None:
    return 1, 1
  first, last = (z[0, :, None] for z in _range(at.position[None], None if at.segment is None else at.segment[None]))
  after = jnp.maximum(at.position - first, 0)
  # whoever sees a key stands no earlier than it
  before = jnp.maximum(first - of.position, first - last)
  decays = jnp.asarray(rules.decays, dtype)
  left, rest = (jnp.exp(decays * z[..., None].astype(dtype)) for z in (after, before))
  return left[:, None, None], rest[:, None].swapaxes(2, 3)


def _times(z: Array, factor: Array | int) -> Array:
  return (z * factor).astype(z.dtype)


def _see(rules: Rules, at: Places, of: Places) -> Bool[Array, "b 1 1 c s"]:
  see = visible(at.position, of.position, at.segment, of.segment, mask=rules.mask, window=rules.window)
  return see[:, None, None]


def _needed(rules: Rules, at: Places, of: Places) -> Bool[Array, "x z"]:
  """Returns whether a block of queries may see a key of a block, by the ranges of their positions and segments."""
  (q_first, q_last), (k_first, k_last) = (_range(z.position, z.segment) for z in (at, of))
  pairs = lambda x, z: x[:, None] - z[None]
  may = pairs(q_last, k_first) >= 0 if rules.mask == "causal" else jnp.ones(pairs(q_last, k_first).shape, bool)
  if rules.window is not None:
    may &= pairs(q_first, k_last) < rules.window
  if at.segment is not None and of.segment is not None:
    (q_low, q_high), (k_low, k_high) = (_range(z, z) for z in (at.segment, of.segment))
    may &= (pairs(q_low, k_high) <= 0) & (pairs(q_high, k_low) >= 0) & (q_high[:, None] >= 0) & (k_high[None] >= 0)
    may |= (q_high[:, None] >= 0) & (of.segment == EVERYONE).any(axis=2)[None]
  return may.any(axis=2)


def _range(z: Int[Array, "x b c"], segment: Int[Array, "x b c"] | None) -> tuple[Int[Array, "x b"], Int[Array, "x b"]]:
  """Returns the smallest and the largest of each block's tokens; -1 and -1 in blocks without tokens."""
  valid = jnp.ones(z.shape, bool) if segment is None else segment >= 0
  low = jnp.min(z, axis=2, where=valid, initial=jnp.iinfo(z.dtype).max)
  high = jnp.max(z, axis=2, where=valid, initial=-1)
  return jnp.where(valid.any(axis=2), low, -1), high


def _dot(spec: str, x: Array, y: Array) -> Array:
  """Multiplies in the operands' dtype and adds up in float32 at least, which it is on accelerators, too."""
  dtype = inputs.compute_dtype(x, y)
  if jnp.result_type(x, y) == dtype:
    return jnp.einsum(spec, x, y, precision=jax.lax.Precision.HIGHEST)
  return inputs.product(spec, x, y, dtype)

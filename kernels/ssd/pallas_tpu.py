"""`ssd` on TPUs: chunks as matrix products, the states in VMEM. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some heads of one group of one row, and finds their states where the one
before left them: in the block of the last states, which stays in VMEM. The products of q and k are made once for all of
its heads. The algorithm, and what is kept for the gradient, are those of `xla.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Float32

from kernels import chunks, decays, dispatch, tpu

TOKENS = tpu.LANES  # of a chunk, at most
HEADS = 4  # of a program, at most, if their channels fill lanes


def why_not(q, k, v, log_a, S, keep) -> str | None:
  del keep
  return tpu.why_not(q, k, v, log_a, S)


def ssd(
  q: Float32[Array, "b t g k"],
  k: Float32[Array, "b t g k"],
  v: Float32[Array, "b t h p"],
  log_a: Float32[Array, "b t h"],
  S: Float32[Array, "b h k p"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float32[Array, "b t h p"], Float32[Array, "b h k p"]]:
  """See `reference.ssd`."""
  log_a = decays.clear(log_a[..., None], keep)[..., 0]
  axes = ("b t g k", "b t g k", "b t h p", "b t h", "b h k p")
  return dispatch.shard(_ssd, axes, ("b t h p", "b h k p"))(q, k, v, log_a, S)


class _Blocks:
  """How the arrays lie, and the blocks of one program. A row here is one group of a row of the batch."""

  def __init__(self, k, v, *, back):
    self.b, self.t, self.g, self.k = k.shape
    self.heads_of_group, self.p = v.shape[2] // self.g, v.shape[3]
    fitting = [n for n in range(1, HEADS + 1) if self.heads_of_group % n == 0 and n * self.p % tpu.LANES == 0]
    self.heads = max(fitting, default=self.heads_of_group)
    self.tokens = min(TOKENS, chunks.up(self.t, tpu.ROWS))
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b * self.g, self.heads_of_group // self.heads, self.chunks
    self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)

  def fold(self, z):
    """Groups to rows, and the heads of a group beside each other: "b t (g r) p" -> "(b g) t (r p)"."""
    z = z.reshape(self.b, self.t, self.g, -1).swapaxes(1, 2)
    return z.reshape(-1, *z.shape[2:])

  def unfold(self, z, like):
    """The inverse of `fold`."""
    return z.reshape(self.b, self.g, self.t, -1).swapaxes(1, 2).reshape(like.shape)

  def fold_decays(self, z):
    """Tokens last, by chunk and by the heads of a program: "b t h" -> "(b g) blocks m heads c"."""
    z = jnp.pad(z, ((0, 0), (0, self.chunks * self.tokens - self.t), (0, 0)))
    z = z.reshape(self.b, self.chunks, self.tokens, self.g, -1, self.heads).transpose(0, 3, 4, 1, 5, 2)
    return z.reshape(-1, *z.shape[2:])

  def unfold_decays(self, z):
    """The inverse of `fold_decays`."""
    z = z.reshape(self.b, self.g, *z.shape[1:]).transpose(0, 3, 5, 1, 2, 4)
    return z.reshape(self.b, self.chunks * self.tokens, -1)[:, : self.t]

  def fold_states(self, z):
    return z.reshape(self.b * self.g, self.heads_of_group, self.k, self.p)

  def by_token(self):
    return pl.BlockSpec((None, self.tokens, self.k), lambda r, e, c: (r, self.chunk(c), 0))

  def by_token_and_head(self):
    return pl.BlockSpec((None, self.tokens, self.heads * self.p), lambda r, e, c: (r, self.chunk(c), e))

  def partial_by_token(self):
    return pl.BlockSpec((None, None, self.tokens, self.k), lambda r, e, c: (r, e, self.chunk(c), 0))

  def decay(self, rows):
    return pl.BlockSpec((None, None, None, rows, self.tokens), lambda r, e, c: (r, e, self.chunk(c), 0, 0))

  def by_row(self):
    return pl.BlockSpec((None, self.heads, self.k, self.p), lambda r, e, c: (r, e, 0, 0))

  def by_chunk(self):
    return pl.BlockSpec((None, None, self.heads, self.k, self.p), lambda r, e, c: (r, self.chunk(c), e, 0, 0))

  def like(self, *shape):
    return jax.ShapeDtypeStruct((self.b * self.g, *shape), jnp.float32)

  def read(self, refs):
    """Their values. What lies past the end of the arrays is anything, and becomes 0."""
    if self.t % self.tokens == 0:
      return [z[...] for z in refs]
    first = self.chunk(pl.program_id(2)) * self.tokens
    there = lambda z: first + lax.broadcasted_iota(jnp.int32, z.shape, 0) < self.t
    return [jnp.where(there(z), z[...], 0) for z in refs]


class _Decays(NamedTuple):
  """Products of the decays of one head in a chunk."""

  inside: Float[Array, "c c"]  # after token j, up to and with token i, for j <= i
  enter: Float[Array, "c 1"]  # from the state before the chunk to each token
  leave: Float[Array, "c 1"]  # from each token to the state after the chunk
  across: Float[Array, "1 1"]  # from state to state


@jax.custom_vjp
def _ssd(q, k, v, log_a, S):
  return _run(q, k, v, log_a, S, save=False)[:2]


def _forward(q, k, v, log_a, S):
  y, last, entries = _run(q, k, v, log_a, S, save=True)
  return (y, last), (q, k, v, log_a, entries)


def _run(q, k, v, log_a, S, *, save):
  """All y, the last states, and if `save` those entering the chunks."""
  blocks = _Blocks(k, v, back=False)
  states = blocks.heads_of_group, blocks.k, blocks.p
  out = [
    (blocks.by_token_and_head(), blocks.like(blocks.t, blocks.heads_of_group * blocks.p)),
    (blocks.by_row(), blocks.like(*states)),
  ]
  if save:
    out.append((blocks.by_chunk(), blocks.like(blocks.chunks, *states)))
  out_specs, out_shape = zip(*out)
  y, last, *entries = pl.pallas_call(
    functools.partial(_forward_kernel, blocks),
    grid=blocks.grid,
    in_specs=[
      *(blocks.by_token(), blocks.by_token(), blocks.by_token_and_head()),
      *(blocks.decay(2 * blocks.heads), blocks.by_row()),
    ],
    out_specs=out_specs,
    out_shape=out_shape,
    compiler_params=tpu.IN_ORDER,
    name="ssd",
  )(*_arrays(blocks, q, k, v, log_a), blocks.fold_states(S))
  return blocks.unfold(y, v), last.reshape(S.shape), *entries


def _arrays(blocks, q, k, v, log_a):
  # In two parts, see `decays.running_sums`: a strong decay takes no digits from those after it.
  sums = jnp.concatenate(decays.running_sums(blocks.fold_decays(log_a), axis=4), axis=3)
  return blocks.fold(q), blocks.fold(k), blocks.fold(v), sums


def _forward_kernel(blocks, q, k, v, sums, S, y, last, *entries):
  @pl.when(pl.program_id(2) == 0)
  def _():
    last[...] = S[...]

  for entry in entries:
    entry[...] = last[...]
  q, k, v = blocks.read((q, k, v))
  scores = tpu.product(q, k, 1, 1)
  for i in range(blocks.heads):
    decay, v_i, entry = _decays(sums, i), _head(v, i, blocks), last[i]
    y[:, _part(i, blocks)] = tpu.product(decay.inside * scores, v_i) + decay.enter * tpu.product(q, entry)
    last[i] = decay.across * entry + tpu.product(k, decay.leave * v_i, 0, 0)


def _backward(saved, cotangents):
  q, k, v, log_a, entries = saved
  y_bar, last_bar = cotangents
  blocks = _Blocks(k, v, back=True)
  tokens, values, partial = blocks.by_token(), blocks.by_token_and_head(), blocks.partial_by_token()
  like_k = blocks.like(blocks.grid[1], blocks.t, blocks.k)
  q_bar, k_bar, v_bar, log_a_bar, S_bar = pl.pallas_call(
    functools.partial(_backward_kernel, blocks),
    grid=blocks.grid,
    in_specs=[
      *(tokens, tokens, values, blocks.decay(2 * blocks.heads)),
      *(blocks.by_chunk(), values, blocks.by_row()),
    ],
    out_specs=[partial, partial, values, blocks.decay(blocks.heads), blocks.by_row()],
    out_shape=[
      *(like_k, like_k, blocks.like(blocks.t, blocks.heads_of_group * blocks.p)),
      blocks.like(*blocks.grid[1:], blocks.heads, blocks.tokens),
      blocks.like(blocks.heads_of_group, blocks.k, blocks.p),
    ],
    compiler_params=tpu.IN_ORDER,
    name="ssd_backward",
  )(*_arrays(blocks, q, k, v, log_a), entries, blocks.fold(y_bar), blocks.fold_states(last_bar))
  q_bar, k_bar = (blocks.unfold(z.sum(1), k) for z in (q_bar, k_bar))
  return q_bar, k_bar, blocks.unfold(v_bar, v), blocks.unfold_decays(log_a_bar), S_bar.reshape(last_bar.shape)


def _backward_kernel(blocks, q, k, v, sums, entry, y_bar, last_bar, q_bar, k_bar, v_bar, log_a_bar, S_bar):
  @pl.when(pl.program_id(2) == 0)
  def _():
    S_bar[...] = last_bar[...]

  q, k, v, y_bar = blocks.read((q, k, v, y_bar))
  scores = tpu.product(q, k, 1, 1)
  scores_bar, q_sum, k_sum = jnp.zeros_like(scores), jnp.zeros_like(q), jnp.zeros_like(k)
  for i in range(blocks.heads):
    decay, v_i, y_i = _decays(sums, i), _head(v, i, blocks), _head(y_bar, i, blocks)
    S, after_bar = entry[i], S_bar[i]
    read_bar, stored = decay.enter * y_i, decay.leave * v_i
    read, stored_bar = tpu.product(q, S), tpu.product(k, after_bar)
    weights, weights_bar = decay.inside * scores, tpu.product(y_i, v_i, 1, 1)
    scores_bar += decay.inside * weights_bar
    q_sum += tpu.product(read_bar, S, 1, 1)
    k_sum += tpu.product(stored, after_bar, 1, 1)
    v_bar[:, _part(i, blocks)] = tpu.product(weights, y_i, 0, 0) + decay.leave * stored_bar
    log_a_bar[i : i + 1] = _log_decay_bar(
      _Decays(
        inside=weights * weights_bar,
        enter=(read * read_bar).sum(1, keepdims=True),
        leave=(stored * stored_bar).sum(1, keepdims=True),
        across=decay.across * (S * after_bar).sum(0, keepdims=True).sum(1, keepdims=True),
      )
    )
    S_bar[i] = decay.across * after_bar + tpu.product(q, read_bar, 0, 0)
  q_bar[...] = q_sum + tpu.product(scores_bar, k)
  k_bar[...] = k_sum + tpu.product(scores_bar, q, 0, 0)


_ssd.defvjp(_forward, _backward)


def _part(i, blocks):
  return slice(i * blocks.p, (i + 1) * blocks.p)


def _head(z, i, blocks):
  return z[:, _part(i, blocks)]


def _decays(sums, i) -> _Decays:
  """Of head i, from the running sums of its log decays: the heads' rounded ones, then what rounding took from them."""
  high, low = sums[i : i + 1], sums[sums.shape[0] // 2 + i : sums.shape[0] // 2 + i + 1]
  high_end, low_end = high[:, -1:], low[:, -1:]
  high_i, low_i = tpu.turn(high), tpu.turn(low)
  inside = (high_i - high) + (low_i - low)
  return _Decays(
    inside=jnp.exp(jnp.where(_index(0, inside) >= _index(1, inside), inside, -jnp.inf)),
    enter=jnp.exp(high_i + low_i),
    leave=jnp.exp((high_end - high_i) + (low_end - low_i)),
    across=jnp.exp(high_end + low_end),
  )


def _log_decay_bar(bar: _Decays) -> Float[Array, "1 c"]:
  """From the cotangents of log decays to those of one token's: each is part of every segment that contains it.

  Added up without differences of sums, which would leave rounding errors of the largest cotangents in the smallest.
  """
  row, column = _index(0, bar.inside), _index(1, bar.inside)
  before = jnp.where(row < column, 1.0, 0.0)  # [j, n]: segments from j contain n
  ends = tpu.product(bar.inside, before) + bar.enter
  # from row to row of a column: tokens that segments end at, and the earlier ones, from which they lead on
  through = jnp.where(row >= column, ends, bar.leave)
  return through.sum(0, keepdims=True) + bar.across


def _index(axis, like):
  return lax.broadcasted_iota(jnp.int32, like.shape, axis)

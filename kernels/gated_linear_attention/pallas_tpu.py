"""`gated_linear_attention` on TPUs: blocks of tokens, the states in VMEM. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some heads of one row, and finds their states where the one before left
them: in the block of the last states, which stays in VMEM. It goes through the chunk block by block, as `xla.py` does:
what the tokens of a block do to each other is written out pair by pair, the rest are products with the state. Decays
are products of their own tokens' alone, so no exponent is above 0 and none is a difference.

States are turned, "p k": what decays is their columns, with channels in lanes as in all that is read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from kernels import decays, dispatch, kept_states, tpu

ROWS = 16  # tokens of a block; each costs as many exponentials a channel
BLOCKS = 8  # of a chunk, at most
HEADS = 4  # of a program, at most, if their channels fill lanes
STATES = 2**20  # numbers of the states that a chunk may have in VMEM, one for each of its blocks


def why_not(q, k, v, log_a, u, S, reset) -> str | None:
  return tpu.why_not(q, k, v, log_a, S, *(() if u is None else (u,)))


def gated_linear_attention(q, k, v, log_a, u, S, reset):
  """Computes `reference.gated_linear_attention`."""
  axes = ("b t h k", "b t h k", "b t h p", "b t h k", "h k", "b h k p", "b t")
  return dispatch.shard(_attend, axes, ("b t h p", "b h k p"))(q, k, v, log_a, u, S, reset)


class _Blocks:
  """How the arrays lie, and the blocks of one program: heads side by side in lanes, "b t (h k)"."""

  def __init__(self, k, v, u, reset, *, back):
    (self.b, self.t, self.h, self.k), self.p = k.shape, v.shape[3]
    self.bonus, self.reset = u is not None, reset
    fits = lambda n: self.h % n == 0 and n * self.k % tpu.LANES == 0 and n * self.p % tpu.LANES == 0
    self.heads = min((n for n in range(1, HEADS + 1) if fits(n)), default=self.h)
    self.blocks = max(1, min(BLOCKS, pl.cdiv(self.t, ROWS), STATES // (self.heads * self.k * self.p)))
    self.tokens = self.blocks * ROWS
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b, self.h // self.heads, self.chunks
    chunk = self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)
    by_token = lambda width: pl.BlockSpec((None, self.tokens, self.heads * width), lambda b, e, c: (b, chunk(c), e))
    self.keys, self.values = by_token(self.k), by_token(self.p)
    states = self.heads, self.p, self.k
    self.by_row = pl.BlockSpec((None, *states), lambda b, e, c: (b, e, 0, 0))
    self.by_chunk = pl.BlockSpec((None, None, *states), lambda b, e, c: (b, chunk(c), e, 0, 0))

  def fold(self, z):
    return z.reshape(self.b, self.t, -1)

  def bonuses(self, u):
    """Returns the bonus, and its block."""
    if u is None:
      return (), ()
    return (u.reshape(1, -1),), (pl.BlockSpec((1, self.heads * self.k), lambda b, e, c: (0, e)),)

  def bonus_sums(self):
    """Returns the gradient of the bonus in each row, and its block."""
    if not self.bonus:
      return (), ()
    spec = pl.BlockSpec((None, 1, self.heads * self.k), lambda b, e, c: (b, 0, e))
    return (self.like(1, self.h * self.k),), (spec,)

  def words(self):
    """Returns the mask, and its block, in scalar memory."""
    if self.reset is None:
      return (), ()
    shape = None, None, 1, self.blocks
    spec = pl.BlockSpec(shape, lambda b, e, c: (b, self.chunk(c), 0, 0), memory_space=pltpu.SMEM)
    return (tpu.words(self.reset, self.tokens, ROWS),), (spec,)

  def like(self, *shape):
    return jax.ShapeDtypeStruct((self.b, *shape), jnp.float32)

  def head(self, n, width):
    return slice(n * width, (n + 1) * width)

  def first(self):
    """Returns the token this chunk starts with."""
    return self.chunk(pl.program_id(2)) * self.tokens

  def at(self, n):
    """Returns the rows of block n."""
    return pl.ds(pl.multiple_of(n * ROWS, ROWS), ROWS)

  def read(self, ref, first, n, head, width):
    """Reads a head's entries of block n; those past the end of the arrays are undefined in memory, and become 0."""
    z = ref[self.at(n), self.head(head, width)]
    if self.t % self.tokens == 0:
      return z
    return jnp.where(first + n * ROWS + _row(z) < self.t, z, 0.0)

  def resets(self, words, n):
    """Returns which tokens of block n start a document; None if none does."""
    row = lax.broadcasted_iota(jnp.int32, (ROWS, self.k), 0)
    return tpu.unpack(words[0][0, n], row) if words else None


class _Decays(NamedTuple):
  """Products of the decays of one head in a block."""

  pairs: list[Float[Array, "c k"]]  # for each token, from the others to where it reads; 0 from those it does not see
  enter: Float[Array, "c k"]  # from the state before the block to where the tokens read
  leave: Float[Array, "c k"]  # from after a token to the end
  across: Float[Array, "1 k"]  # through all


def _run(q, k, v, log_a, u, S, reset, *, save):
  """Returns all y, the last states, and if `save` the states before each chunk, transposed."""
  blocks = _Blocks(k, v, u, reset, back=False)
  states = blocks.h, blocks.p, blocks.k
  y, last, *entries = tpu.in_order(
    _forward_kernel,
    blocks,
    "gated_linear_attention",
    [*_arrays(blocks, q, k, v, log_a, u), (S.swapaxes(2, 3), blocks.by_row)],
    [
      (blocks.like(blocks.t, blocks.h * blocks.p), blocks.values),
      *((blocks.like(*states), blocks.by_row), *[(blocks.like(blocks.chunks, *states), blocks.by_chunk)] * save),
    ],
  )
  return y.reshape(v.shape), last.swapaxes(2, 3), *entries


def _arrays(blocks, q, k, v, log_a, u):
  """Returns pairs of arrays and their blocks."""
  keys = blocks.keys
  return blocks.words(), blocks.bonuses(u), *zip(map(blocks.fold, (q, k, v, log_a)), (keys, keys, blocks.values, keys))


def _forward_kernel(blocks, words, bonus, q, k, v, log_a, S, y, last, *entries):
  @pl.when(pl.program_id(2) == 0)
  def _():
    last[...] = S[...]

  for entry in entries:
    entry[...] = last[...]
  first = blocks.first()

  def block(n, _):
    reset = blocks.resets(words, n)
    for head in range(blocks.heads):
      read = lambda ref, width, head=head: blocks.read(ref, first, n, head, width)
      q_n, k_n, log_a_n = (read(z, blocks.k) for z in (q, k, log_a))
      v_n, S_n = read(v, blocks.p), last[head]
      decay, old = _decays(log_a_n, reset, blocks.bonus), _old(q_n, reset, blocks.bonus)
      y_n = tpu.product(_scores(decay, old, k_n), v_n, 0, 0) + tpu.product(decay.enter * old, S_n, 1, 1)
      if blocks.bonus:
        u = bonus[0][:, blocks.head(head, blocks.k)]
        y_n += (q_n * u * k_n).sum(1, keepdims=True) * v_n
      y[blocks.at(n), blocks.head(head, blocks.p)] = y_n
      last[head] = decay.across * S_n + tpu.product(v_n, decay.leave * k_n, 0, 0)

  lax.fori_loop(0, blocks.blocks, block, None)


def _backward(q, k, v, log_a, u, reset, entries, y_bar, last_bar):
  blocks = _Blocks(k, v, u, reset, back=True)
  states = blocks.blocks, blocks.heads, blocks.p, blocks.k
  keys_bar = blocks.like(blocks.t, blocks.h * blocks.k), blocks.keys
  values_bar = blocks.like(blocks.t, blocks.h * blocks.p), blocks.values
  q_bar, k_bar, v_bar, log_a_bar, S_bar, u_bar = tpu.in_order(
    _backward_kernel,
    blocks,
    "gated_linear_attention_backward",
    [
      *(*_arrays(blocks, q, k, v, log_a, u), (entries, blocks.by_chunk)),
      *((blocks.fold(y_bar), blocks.values), (last_bar.swapaxes(2, 3), blocks.by_row)),
    ],
    [
      *(keys_bar, keys_bar, values_bar, keys_bar),
      *((blocks.like(blocks.h, blocks.p, blocks.k), blocks.by_row), blocks.bonus_sums()),
    ],
    [pltpu.VMEM(states, jnp.float32)],
  )
  bars = (z.reshape(argument.shape) for z, argument in ((q_bar, q), (k_bar, k), (v_bar, v), (log_a_bar, log_a)))
  u_bar = u_bar[0].sum((0, 1)).reshape(u.shape) if u_bar else None
  return *bars, u_bar, S_bar.swapaxes(2, 3), None


def _backward_kernel(
  blocks, words, bonus, q, k, v, log_a, entry, y_bar, last_bar, q_bar, k_bar, v_bar, log_a_bar, S_bar, u_bar, starts
):
  @pl.when(pl.program_id(2) == 0)
  def _():
    S_bar[...] = last_bar[...]
    for z in u_bar:
      z[...] = jnp.zeros_like(z)

  first = blocks.first()
  heads = [(head, blocks.head(head, blocks.k), blocks.head(head, blocks.p)) for head in range(blocks.heads)]
  starts[0] = entry[...]

  def again(n, _):
    reset = blocks.resets(words, n)
    for head, _, _ in heads:
      log_a_n, k_n = (blocks.read(z, first, n, head, blocks.k) for z in (log_a, k))
      decay, v_n = _decays(log_a_n, reset, blocks.bonus), blocks.read(v, first, n, head, blocks.p)
      starts[n + 1, head] = decay.across * starts[n, head] + tpu.product(v_n, decay.leave * k_n, 0, 0)

  lax.fori_loop(0, blocks.blocks - 1, again, None)

  def block(j, _):
    n = blocks.blocks - 1 - j
    reset, rows = blocks.resets(words, n), blocks.at(n)
    for head, keys, values in heads:
      read = lambda ref, width, head=head: blocks.read(ref, first, n, head, width)
      q_n, k_n, log_a_n = (read(z, blocks.k) for z in (q, k, log_a))
      v_n, y_n = read(v, blocks.p), read(y_bar, blocks.p)
      decay, old = _decays(log_a_n, reset, blocks.bonus), _old(q_n, reset, blocks.bonus)
      S, after_bar = starts[n, head], S_bar[head]
      entering, leaving = decay.enter * old, decay.leave * k_n
      entering_bar, leaving_bar = tpu.product(y_n, S), tpu.product(v_n, after_bar)
      logs = entering_bar * entering, leaving_bar * leaving, decay.across * (S * after_bar).sum(0, keepdims=True)
      old_bar, own_bar, decay_bar = _pairs_bar(decay, old, k_n, tpu.product(v_n, y_n, 1, 1), logs, blocks.bonus)
      old_bar += decay.enter * entering_bar
      own_bar += decay.leave * leaving_bar
      value_bar = tpu.product(_scores(decay, old, k_n), y_n) + tpu.product(leaving, after_bar, 1, 1)
      S_bar[head] = decay.across * after_bar + tpu.product(y_n, entering, 0, 0)
      if reset is not None:
        decay_bar = jnp.where(reset, 0.0, decay_bar)
      if blocks.bonus:
        old_bar = old_bar if reset is None else jnp.where(reset, 0.0, old_bar)
        u, own = bonus[0][:, keys], (y_n * v_n).sum(1, keepdims=True)
        old_bar += own * u * k_n
        own_bar += own * u * q_n
        value_bar += (q_n * u * k_n).sum(1, keepdims=True) * y_n
        u_bar[0][:, keys] += (own * q_n * k_n).sum(0, keepdims=True)
      q_bar[rows, keys], k_bar[rows, keys], log_a_bar[rows, keys] = old_bar, own_bar, decay_bar
      v_bar[rows, values] = value_bar

  lax.fori_loop(0, blocks.blocks, block, None)


_attend = kept_states.differentiable(_run, _backward, state=5)


def _row(z):
  return lax.broadcasted_iota(jnp.int32, z.shape, 0)


def _old(q, reset, bonus):
  """Returns the queries that read the state before the token, with a bonus; 0 at the first token of a document."""
  return jnp.where(reset, 0.0, q) if bonus and reset is not None else q


def _decays(log_a, reset, bonus) -> _Decays:
  """Returns the products of decays; with a bonus a token reads before its own decay."""
  if reset is not None:
    log_a = jnp.where(reset, decays.least(log_a.dtype), log_a)
  row, since = _row(log_a), jnp.zeros_like(log_a)
  start, pairs = jnp.zeros_like(log_a), []
  for i in range(ROWS):
    since = jnp.where(row < i, since + log_a[i : i + 1], 0.0)
    start += jnp.where(row > i if bonus else row >= i, log_a[i : i + 1], 0.0)
    pairs.append(jnp.where(row <= i, jnp.exp(since), 0.0))
  leave, across = pairs[-1], jnp.exp(log_a.sum(0, keepdims=True))
  return _Decays([jnp.zeros_like(leave), *pairs[:-1]] if bonus else pairs, jnp.exp(start), leave, across)


def _scores(decay, reads, writes) -> Float[Array, "c c"]:
  """Returns how much of token j reaches token i, at [j, i]."""
  scores = jnp.zeros((ROWS, ROWS), jnp.float32)
  column = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  for i, pairs in enumerate(decay.pairs):
    scores = jnp.where(column == i, (reads[i : i + 1] * pairs * writes).sum(1, keepdims=True), scores)
  return scores


def _pairs_bar(decay, reads, writes, scores_bar, logs, bonus):
  """Returns cotangents of `reads` and `writes` through the scores, and of the log decays through everything.

  `logs` are cotangents of the logarithms of `enter`, `leave` and `across`. A token's decay is part of all segments that
  contain it, which are added up without differences: those that end at it or later and begin before it.
  """
  enter, leave, across = logs
  row = _row(reads)
  reads_bar, writes_bar, log_a_bar, later = (jnp.zeros_like(reads) for _ in range(4))
  for i in reversed(range(ROWS)):
    flow = decay.pairs[i] * scores_bar[:, i : i + 1]
    reads_bar = jnp.where(row == i, (flow * writes).sum(0, keepdims=True), reads_bar)
    writes_bar += flow * reads[i : i + 1]
    ending = later + flow * reads[i : i + 1] * writes
    # with a bonus, what token i reads has not yet its decay
    counted, entered = (later, jnp.where(row > i, enter, 0.0)) if bonus else (ending, enter)
    through = jnp.where(row < i, counted + leave, entered).sum(0, keepdims=True)
    log_a_bar = jnp.where(row == i, through + across, log_a_bar)
    later = ending
  return reads_bar, writes_bar, log_a_bar

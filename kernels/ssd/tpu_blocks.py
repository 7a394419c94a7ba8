"""How kernels for TPUs divide arrays of heads, "b t g k" and "b t h p", and what one decay a head does in a chunk."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from kernels import chunks, tpu


class Blocks:
  """How the arrays lie, and the blocks of one program. A row here is one group of a row of the batch.

  Args:
    most: tokens of a chunk and heads of a program, at most; of several heads the channels fill lanes.
  """

  def __init__(self, k, v, *, most, back):
    tokens, heads = most
    self.b, self.t, self.g, self.k = k.shape
    self.heads_of_group, self.p = v.shape[2] // self.g, v.shape[3]
    fitting = [n for n in range(1, heads + 1) if self.heads_of_group % n == 0 and n * self.p % tpu.LANES == 0]
    self.heads = max(fitting, default=self.heads_of_group)
    self.tokens = min(tokens, chunks.up(self.t, tpu.ROWS))
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b * self.g, self.heads_of_group // self.heads, self.chunks
    chunk = self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)
    states = self.heads, self.k, self.p
    self.by_token = pl.BlockSpec((None, self.tokens, self.k), lambda r, e, c: (r, chunk(c), 0))
    self.by_token_and_head = pl.BlockSpec((None, self.tokens, self.heads * self.p), lambda r, e, c: (r, chunk(c), e))
    self.partial_by_token = pl.BlockSpec((None, None, self.tokens, self.k), lambda r, e, c: (r, e, chunk(c), 0))
    self.by_row = pl.BlockSpec((None, *states), lambda r, e, c: (r, e, 0, 0))
    self.by_chunk = pl.BlockSpec((None, None, *states), lambda r, e, c: (r, chunk(c), e, 0, 0))

  def fold(self, z):
    """Moves groups to rows, and the heads of a group beside each other: "b t (g r) p" -> "(b g) t (r p)"."""
    z = z.reshape(self.b, self.t, self.g, -1).swapaxes(1, 2)
    return z.reshape(-1, *z.shape[2:])

  def unfold(self, z, like):
    """Returns the inverse of `fold`."""
    return z.reshape(self.b, self.g, self.t, -1).swapaxes(1, 2).reshape(like.shape)

  def fold_decays(self, z):
    """Moves tokens last, by chunk and by the heads of a program: "b t h" -> "(b g) blocks m heads c"."""
    z = jnp.pad(z, ((0, 0), (0, self.chunks * self.tokens - self.t), (0, 0)))
    z = z.reshape(self.b, self.chunks, self.tokens, self.g, -1, self.heads).transpose(0, 3, 4, 1, 5, 2)
    return z.reshape(-1, *z.shape[2:])

  def unfold_decays(self, z):
    """Returns the inverse of `fold_decays`."""
    z = z.reshape(self.b, self.g, *z.shape[1:]).transpose(0, 3, 5, 1, 2, 4)
    return z.reshape(self.b, self.chunks * self.tokens, -1)[:, : self.t]

  def fold_states(self, z):
    return z.reshape(self.b * self.g, self.heads_of_group, self.k, self.p)

  def decay(self, rows):
    return pl.BlockSpec((None, None, None, rows, self.tokens), lambda r, e, c: (r, e, self.chunk(c), 0, 0))

  def like(self, *shape):
    return jax.ShapeDtypeStruct((self.b * self.g, *shape), jnp.float32)

  def read(self, refs):
    """Reads a block; past the end of the arrays, where memory is undefined, it is 0."""
    if self.t % self.tokens == 0:
      return [z[...] for z in refs]
    first = self.chunk(pl.program_id(2)) * self.tokens
    valid = lambda z: first + lax.broadcasted_iota(jnp.int32, z.shape, 0) < self.t
    return [jnp.where(valid(z), z[...], 0) for z in refs]


class Decays(NamedTuple):
  """Products of the decays of one head in a chunk."""

  inside: Float[Array, "c c"]  # after token j, up to and with token i, for j <= i
  enter: Float[Array, "c 1"]  # from the state before the chunk to each token
  leave: Float[Array, "c 1"]  # from each token to the state after the chunk
  across: Float[Array, "1 1"]  # from state to state


def decays_of(high: Float[Array, "1 c"], low: Float[Array, "1 c"]) -> Decays:
  """Makes decays of the running sums of log decays, see `decays.running_sums`."""
  high_end, low_end = high[:, -1:], low[:, -1:]
  high_i, low_i = tpu.turn(high), tpu.turn(low)
  inside = (high_i - high) + (low_i - low)
  return Decays(
    inside=jnp.exp(jnp.where(index(0, inside) >= index(1, inside), inside, -jnp.inf)),
    enter=jnp.exp(high_i + low_i),
    leave=jnp.exp((high_end - high_i) + (low_end - low_i)),
    across=jnp.exp(high_end + low_end),
  )


def log_decay_bar(bar: Decays) -> Float[Array, "1 c"]:
  """Sums the cotangents of a token's log decay, which is part of every segment that contains the token.

  Added up without differences of sums, which would leave rounding errors of the largest cotangents in the smallest.
  """
  row, column = index(0, bar.inside), index(1, bar.inside)
  before = jnp.where(row < column, 1.0, 0.0)  # [j, n]: segments from j contain n
  ends = tpu.product(bar.inside, before) + bar.enter
  # from row to row of a column: tokens that segments end at, and the earlier ones, from which they lead on
  through = jnp.where(row >= column, ends, bar.leave)
  return through.sum(0, keepdims=True) + bar.across


def index(axis, like):
  return lax.broadcasted_iota(jnp.int32, like.shape, axis)

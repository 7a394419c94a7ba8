"""How kernels for TPUs divide arrays "b t n" that a recurrence runs through, and the states of a tile of tokens.

A program of the grid has a chunk of time of some channels of one row, and goes through it tile by tile, whose rows are
tokens. Doublings give every token of a tile the product of decays and the sum of inputs from the tile's start; the
state before the tile is added once. Numbers come in parts, see `pairs`. A decay of 0 would not keep documents apart,
since 0 times NaN is NaN: no product is taken across the start of one.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import tpu
from kernels.linear_scan.pairs import add, clear, product


class Blocks:
  """The blocks of one program, by what they belong to.

  Args:
    most: tokens and channels of a block, at most.
    rows: tokens of a tile.
  """

  def __init__(self, shape, reset, *, most, rows=tpu.ROWS, back):
    (self.b, self.t, self.n), self.reset, self.rows = shape, reset, rows
    self.tokens = tpu.even(self.t, most[0], rows)
    self.channels = tpu.even(self.n, most[1], tpu.LANES)
    self.tiles = self.tokens // rows
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b, pl.cdiv(self.n, self.channels), self.chunks
    chunk = self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)
    self.by_token = pl.BlockSpec((None, self.tokens, self.channels), lambda b, e, c: (b, chunk(c), e))
    # the last tokens of the chunk before; of the first chunk, its own
    before = lambda b, e, c: (b, jnp.maximum(chunk(c) * self.tiles - 1, 0), e)
    self.tile_before = pl.BlockSpec((None, rows, self.channels), before)
    self.by_channel = pl.BlockSpec((1, self.channels), lambda b, e, c: (0, e))

  def by_row(self, rows=1):
    return pl.BlockSpec((None, rows, self.channels), lambda b, e, c: (b, 0, e))

  def words(self):
    """Returns the mask, and its block, in scalar memory."""
    if self.reset is None:
      return (), ()
    spec = pl.BlockSpec((None, None, 1, self.tiles), lambda b, e, c: (b, self.chunk(c), 0, 0), memory_space=pltpu.SMEM)
    return (tpu.words(self.reset, self.tokens, self.rows),), (spec,)

  def first(self):
    """Returns the token this chunk starts with."""
    return self.chunk(pl.program_id(2)) * self.tokens

  def at(self, i):
    """Returns the rows of tile i."""
    return pl.ds(pl.multiple_of(i * self.rows, self.rows), self.rows)

  def resets(self, words, i):
    """Returns which tokens of tile i start a document; None if none does."""
    return tpu.unpack(words[0][0, i], self._row()) if words else None

  def valid(self, first, i):
    """Returns which tokens of tile i of a chunk that starts with token `first` are not past the end."""
    return first + i * self.rows + self._row() < self.t

  def _row(self):
    return lax.broadcasted_iota(jnp.int32, (self.rows, self.channels), 0)


def states(decay, inflow, h, reset, *, back):
  """Returns all h_t = decay_t h_{t-1} + inflow_t of a tile, after the row h; `back`, from its last token to its first.

  At a token of `reset` h_t = inflow_t; None: nowhere.
  """
  zero, one = (tuple(jnp.full_like(z, v if i == 0 else 0.0) for i, z in enumerate(decay)) for v in (0.0, 1.0))
  starts = () if reset is None else (reset.astype(jnp.float32),)
  passed = lambda z: clear(starts[0] > 0 if starts else None, z)
  distance = 1
  while distance < decay[0].shape[0]:
    before = functools.partial(shift, back=back, distance=distance)
    inflow = add(inflow, passed(product(decay, before(inflow, zero))))
    decay = product(decay, before(decay, one))
    starts = tuple(jnp.maximum(z, *before((z,), (0.0,))) for z in starts)
    distance *= 2
  return add(inflow, passed(product(decay, h)))


def shift(tile, edge, *, back, distance=1):
  """Gives every token the value of the one `distance` before it, or after it; those that have none get `edge`."""
  rows = tile[0].shape[0]
  row = lax.broadcasted_iota(jnp.int32, tile[0].shape, 0)
  has = row < rows - distance if back else row >= distance
  amount = rows - distance if back else distance
  return tuple(jnp.where(has, pltpu.roll(z, amount, 0), e) for z, e in zip(tile, edge))


def row(tile, i):
  return tuple(z[i : i + 1] for z in tile)

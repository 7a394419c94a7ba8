"""`selective_scan` on TPUs: states exist in registers and VMEM only. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some channels of one group of one row, channels in lanes and the numbers of
a channel's state below each other, and finds the state where the one before left it: in the block of the last state,
which stays in VMEM. For the gradient the states entering the chunks are kept; those of a chunk are made again in VMEM.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float32

from kernels import chunks, dispatch, tpu
from kernels.selective_scan.discretize import not_real_euler

TOKENS = tpu.LANES  # of a chunk: those of B and C lie in lanes
CHANNELS = 512  # at most, of a block
STATES = 2**20  # numbers, in VMEM, of all states of a chunk


def why_not(h, disc) -> str | None:
  """What it does not know, before what `tpu.why_not` says."""
  return not_real_euler(h, disc) or tpu.why_not(h)


def selective_scan(
  x: Float32[Array, "b t e"],
  dt: Float32[Array, "b t e"],
  A: Float32[Array, "e n"],
  B: Float32[Array, "b t g n"],
  C: Float32[Array, "b t g n"],
  h: Float32[Array, "b e n"],
  keep: Bool[Array, "b t"] | None,
  disc: str,
) -> tuple[Float32[Array, "b t e"], Float32[Array, "b e n"]]:
  """See `reference.selective_scan`."""
  del disc
  axes = ("b t e", "b t e", "e n", "b t g n", "b t g n", "b e n", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e n"))(x, dt, A, B, C, h, keep)


class _Blocks:
  """How the arrays lie, and the blocks of one program. A row here is one group of a row of the batch."""

  def __init__(self, x, B, keep, *, back):
    (self.b, self.t, self.g, self.n), self.keep = B.shape, keep
    self.channels_of_group = x.shape[2] // self.g
    self.width = chunks.up(self.channels_of_group, tpu.LANES)
    most = min(CHANNELS, STATES // (TOKENS * chunks.up(self.n, tpu.ROWS)))
    self.channels = tpu.divisor(self.width, max(most, tpu.LANES), tpu.LANES)
    self.tokens = min(TOKENS, chunks.up(self.t, tpu.ROWS))
    self.tiles = self.tokens // tpu.ROWS
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b * self.g, self.width // self.channels, self.chunks
    self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)

  def fold(self, z):
    """Groups to rows: "b s (g d)" -> "(b g) s d", with empty channels to fill the lanes."""
    z = z.reshape(*z.shape[:2], self.g, -1).swapaxes(1, 2)
    return jnp.pad(z.reshape(-1, *z.shape[2:]), ((0, 0), (0, 0), (0, self.width - self.channels_of_group)))

  def unfold(self, z):
    """The inverse of `fold`."""
    z = z[..., : self.channels_of_group].reshape(-1, self.g, z.shape[1], self.channels_of_group).swapaxes(1, 2)
    return z.reshape(*z.shape[:2], -1)

  def fold_columns(self, z):
    """Groups to rows and tokens last: "b t g n" -> "(b g) n t", with empty tokens to fill the last chunk."""
    z = z.transpose(0, 2, 3, 1).reshape(-1, self.n, self.t)
    return jnp.pad(z, ((0, 0), (0, 0), (0, self.chunks * TOKENS - self.t)))

  def unfold_columns(self, z):
    """The sum of what the blocks of channels have, as "b t g n"."""
    return z.sum(1)[..., : self.t].reshape(self.b, self.g, self.n, self.t).transpose(0, 3, 1, 2)

  def by_token(self):
    return pl.BlockSpec((None, self.tokens, self.channels), lambda r, e, c: (r, self.chunk(c), e))

  def by_row(self):
    return pl.BlockSpec((None, self.n, self.channels), lambda r, e, c: (r, 0, e))

  def by_group(self):
    return pl.BlockSpec((None, self.n, self.channels), lambda r, e, c: (lax.rem(r, self.g), 0, e))

  def by_chunk(self):
    return pl.BlockSpec((None, None, self.n, self.channels), lambda r, e, c: (r, self.chunk(c), 0, e))

  def columns(self):
    return pl.BlockSpec((None, self.n, TOKENS), lambda r, e, c: (r, 0, self.chunk(c)))

  def columns_bar(self):
    return pl.BlockSpec((None, None, self.n, TOKENS), lambda r, e, c: (r, e, 0, self.chunk(c)))

  def words(self):
    """The mask, and its block, in scalar memory."""
    if self.keep is None:
      return (), ()
    place = lambda r, e, c: (lax.div(r, self.g), self.chunk(c), 0, 0)
    spec = pl.BlockSpec((None, None, 1, self.tiles), place, memory_space=pltpu.SMEM)
    return (tpu.words(self.keep, self.tokens),), (spec,)

  def like(self, *shape):
    return jax.ShapeDtypeStruct((self.b * self.g, *shape), jnp.float32)


@jax.custom_vjp
def _scan(x, dt, A, B, C, h, keep):
  return _run(x, dt, A, B, C, h, keep, save=False)[:2]


def _forward(x, dt, A, B, C, h, keep):
  y, last, entries = _run(x, dt, A, B, C, h, keep, save=True)
  return (y, last), (x, dt, A, B, C, keep, entries)


def _run(x, dt, A, B, C, h, keep, *, save):
  """All y, the last state, and if `save` those entering the chunks."""
  blocks = _Blocks(x, B, keep, back=False)
  words, words_spec = blocks.words()
  out = [
    (blocks.by_token(), blocks.like(blocks.t, blocks.width)),
    (blocks.by_row(), blocks.like(blocks.n, blocks.width)),
  ]
  if save:
    out.append((blocks.by_chunk(), blocks.like(blocks.chunks, blocks.n, blocks.width)))
  out_specs, out_shape = zip(*out)
  y, last, *entries = pl.pallas_call(
    functools.partial(_forward_kernel, blocks),
    grid=blocks.grid,
    in_specs=[
      *(words_spec, blocks.by_token(), blocks.by_token(), blocks.by_group()),
      *(blocks.columns(), blocks.columns(), blocks.by_row()),
    ],
    out_specs=out_specs,
    out_shape=out_shape,
    compiler_params=tpu.IN_ORDER,
    name="selective_scan",
  )(words, *_arrays(blocks, x, dt, A, B, C), blocks.fold(h.swapaxes(1, 2)))
  return blocks.unfold(y), blocks.unfold(last).swapaxes(1, 2), *entries


def _arrays(blocks, x, dt, A, B, C):
  columns = blocks.fold_columns
  return blocks.fold(x), blocks.fold(dt), blocks.fold(A.T[None]), columns(B), columns(C)


def _forward_kernel(blocks, words, x, dt, A, B, C, h, y, last, *entries):
  step = pl.program_id(2)

  @pl.when(step == 0)
  def _():
    last[...] = h[...]

  for entry in entries:
    entry[...] = last[...]
  A = A[...]

  def tile(i, h):
    out = jnp.zeros((tpu.ROWS, blocks.channels), jnp.float32)
    for j, keep, (x_t, dt_t), (B_t, C_t) in _tokens(blocks, step, i, words, (x, dt), (B, C)):
      h = _advance(A, _kept(h, keep), x_t, dt_t, B_t)
      out = _at_row(j, out, (C_t * h).sum(0, keepdims=True))
    y[_rows(i)] = out
    return h

  last[...] = lax.fori_loop(0, blocks.tiles, tile, last[...])


def _backward(saved, cotangents):
  x, dt, A, B, C, keep, entries = saved
  y_bar, last_bar = cotangents
  blocks = _Blocks(x, B, keep, back=True)
  words, words_spec = blocks.words()
  tokens, row, columns_bar = blocks.by_token(), blocks.by_row(), blocks.columns_bar()
  like_x, like_h = blocks.like(blocks.t, blocks.width), blocks.like(blocks.n, blocks.width)
  like_B = blocks.like(blocks.grid[1], blocks.n, blocks.chunks * TOKENS)
  x_bar, dt_bar, A_bar, B_bar, C_bar, h_bar = pl.pallas_call(
    functools.partial(_backward_kernel, blocks),
    grid=blocks.grid,
    in_specs=[
      *(words_spec, tokens, tokens, blocks.by_group(), blocks.columns(), blocks.columns()),
      *(blocks.by_chunk(), tokens, row),
    ],
    out_specs=[tokens, tokens, row, columns_bar, columns_bar, row],
    out_shape=[like_x, like_x, like_h, like_B, like_B, like_h],
    scratch_shapes=[pltpu.VMEM((blocks.tokens, blocks.n, blocks.channels), jnp.float32)],
    compiler_params=tpu.IN_ORDER,
    name="selective_scan_backward",
  )(words, *_arrays(blocks, x, dt, A, B, C), entries, blocks.fold(y_bar), blocks.fold(last_bar.swapaxes(1, 2)))
  A_bar, h_bar = (blocks.unfold(z).swapaxes(1, 2) for z in (A_bar, h_bar))
  B_bar, C_bar = blocks.unfold_columns(B_bar), blocks.unfold_columns(C_bar)
  return blocks.unfold(x_bar), blocks.unfold(dt_bar), A_bar.sum(0), B_bar, C_bar, h_bar, None


def _backward_kernel(blocks, words, x, dt, A, B, C, entry, y_bar, last_bar, *out_and_states):
  x_bar, dt_bar, A_bar, B_bar, C_bar, h_bar, states = out_and_states
  step = pl.program_id(2)

  @pl.when(step == 0)
  def _():
    h_bar[...] = last_bar[...]
    A_bar[...] = jnp.zeros_like(A_bar)

  A = A[...]

  def enter(i, h):
    """Writes down what each token finds."""
    for j, keep, (x_t, dt_t), (B_t,) in _tokens(blocks, step, i, words, (x, dt), (B,)):
      h = _kept(h, keep)
      states[i * tpu.ROWS + j] = h
      h = _advance(A, h, x_t, dt_t, B_t)
    return h

  lax.fori_loop(0, blocks.tiles, enter, entry[...])

  def leave(k, carry):
    h_bar, *bars = carry
    i = blocks.tiles - 1 - k
    x_out = dt_out = jnp.zeros((tpu.ROWS, blocks.channels), jnp.float32)
    for j, keep, rows, columns in reversed(list(_tokens(blocks, step, i, words, (x, dt, y_bar), (B, C)))):
      place = i * tpu.ROWS + j
      h_bar, x_t, dt_t, bars = _adjoint(A, h_bar, bars, rows, columns, states[place], place)
      h_bar, x_out, dt_out = _kept(h_bar, keep), _at_row(j, x_out, x_t), _at_row(j, dt_out, dt_t)
    x_bar[_rows(i)], dt_bar[_rows(i)] = x_out, dt_out
    return h_bar, *bars

  empty = jnp.zeros((blocks.n, TOKENS), jnp.float32)
  carry = lax.fori_loop(0, blocks.tiles, leave, (h_bar[...], A_bar[...], empty, empty))
  h_bar[...], A_bar[...], B_bar[...], C_bar[...] = carry


_scan.defvjp(_forward, _backward)


def _advance(A, h, x, dt, B):
  return jnp.exp(dt * A) * h + (dt * x) * B


def _adjoint(A, h_bar, bars, rows, columns, entering, place):
  """One token back: what flows to the state before it, the cotangents of its x and dt, `bars` with those of A, B, C.

  Those of A are added up, those of B and C go to lane `place`.
  """
  (x, dt, y_bar), (B, C), (A_bar, B_bar, C_bar) = rows, columns, bars
  decay, inflow = jnp.exp(dt * A), dt * x
  h_bar = h_bar + y_bar * C
  before_bar = decay * h_bar
  exponent_bar = before_bar * entering
  inflow_bar = (h_bar * B).sum(0, keepdims=True)
  here = lax.broadcasted_iota(jnp.int32, B_bar.shape, 1) == place
  B_bar = jnp.where(here, (h_bar * inflow).sum(1, keepdims=True), B_bar)
  C_bar = jnp.where(here, ((decay * entering + inflow * B) * y_bar).sum(1, keepdims=True), C_bar)
  dt_bar = (exponent_bar * A).sum(0, keepdims=True) + inflow_bar * x
  return before_bar, inflow_bar * dt, dt_bar, (A_bar + exponent_bar * dt, B_bar, C_bar)


def _tokens(blocks, step, i, words, by_row, by_column):
  """The tokens of tile i: number, whether it keeps the state before it, its rows and its columns of the arrays.

  What lies past the end of the arrays is anything, and becomes a token with dt = 0, which leaves the state alone.
  """
  rows = [z[_rows(i)] for z in by_row]
  if blocks.t % blocks.tokens:
    first = blocks.chunk(step) * blocks.tokens + i * tpu.ROWS
    there = first + lax.broadcasted_iota(jnp.int32, rows[0].shape, 0) < blocks.t
    rows = [jnp.where(there, z, 0) for z in rows]
  # Lanes are taken at places known when compiled: the tile is turned to the front.
  turn = lax.rem(TOKENS - i * tpu.ROWS, TOKENS)
  columns = [pltpu.roll(z[...], turn, 1) for z in by_column]
  word = words[0][0, i] if words else None
  for j in range(tpu.ROWS):
    keep = None if word is None else jnp.bitwise_and(word, 1 << j) != 0
    yield j, keep, [z[j : j + 1] for z in rows], [z[:, j : j + 1] for z in columns]


def _rows(i):
  return pl.ds(pl.multiple_of(i * tpu.ROWS, tpu.ROWS), tpu.ROWS)


def _at_row(j, tile, row):
  return jnp.where(lax.broadcasted_iota(jnp.int32, tile.shape, 0) == j, row, tile)


def _kept(h, keep):
  return h if keep is None else jnp.where(keep, h, 0)

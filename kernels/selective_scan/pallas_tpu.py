"""`selective_scan` on TPUs: states exist in registers and VMEM only. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some channels of one group of one row, channels in lanes and the numbers of
a channel's state below each other, and finds the state where the one before left it: in the block of the last state,
which stays in VMEM. For the gradient the states entering the chunks are kept; those of a chunk are made again in VMEM.
Softplus, skip and gate are made of whole chunks, before and after the loop over their tokens.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import chunks, dispatch, kept_states, tpu
from kernels.selective_scan import fused

TOKENS = tpu.LANES  # of a chunk: those of B and C lie in lanes
CHANNELS = 512  # at most, of a block
STATES = 2**20  # numbers, in VMEM, of all states of a chunk


def why_not(x, dt, A, B, C, h, D, z, reset, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, after the reasons of `tpu.why_not`."""
  return tpu.why_not(h) or fused.not_known(x, dt, h, z, disc)


def selective_scan(x, dt, A, B, C, h, D, z, reset, softplus, disc):
  """Computes `around.around`; y has the dtype of x."""
  run, backward = (functools.partial(form, softplus) for form in (_run, _backward))
  scan = kept_states.differentiable(run, backward, state=5)
  return dispatch.shard(scan, fused.AXES, ("b t e", "b e n"))(x, dt, A, B, C, h, D, z, reset)


class _Blocks:
  """How the arrays lie, and the blocks of one program. A row here is one group of a row of the batch."""

  def __init__(self, x, B, reset, softplus, *, back):
    (self.b, self.t, self.g, self.n), self.reset, self.softplus = B.shape, reset, softplus
    self.channels_of_group = x.shape[2] // self.g
    self.width = chunks.up(self.channels_of_group, tpu.LANES)
    most = min(CHANNELS, STATES // (TOKENS * chunks.up(self.n, tpu.ROWS)))
    self.channels = tpu.divisor(self.width, max(most, tpu.LANES), tpu.LANES)
    # a register has twice as many rows of bfloat16
    self.tokens = min(TOKENS, chunks.up(self.t, 2 * tpu.ROWS))
    self.tiles = self.tokens // tpu.ROWS
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b * self.g, self.width // self.channels, self.chunks
    chunk = self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)
    self.by_token = pl.BlockSpec((None, self.tokens, self.channels), lambda r, e, c: (r, chunk(c), e))
    self.by_chunk = pl.BlockSpec((None, None, self.n, self.channels), lambda r, e, c: (r, chunk(c), 0, e))
    self.columns = pl.BlockSpec((None, self.n, TOKENS), lambda r, e, c: (r, 0, chunk(c)))
    self.columns_bar = pl.BlockSpec((None, None, self.n, TOKENS), lambda r, e, c: (r, e, 0, chunk(c)))

  def fold(self, z):
    """Moves groups to rows: "b s (g d)" -> "(b g) s d", with empty channels to fill the lanes."""
    z = z.reshape(*z.shape[:2], self.g, -1).swapaxes(1, 2)
    return jnp.pad(z.reshape(-1, *z.shape[2:]), ((0, 0), (0, 0), (0, self.width - self.channels_of_group)))

  def unfold(self, z):
    """Returns the inverse of `fold`."""
    z = z[..., : self.channels_of_group].reshape(-1, self.g, z.shape[1], self.channels_of_group).swapaxes(1, 2)
    return z.reshape(*z.shape[:2], -1)

  def fold_columns(self, z):
    """Moves groups to rows and tokens last: "b t g n" -> "(b g) n t"; empty tokens fill the last chunk."""
    z = z.transpose(0, 2, 3, 1).reshape(-1, self.n, self.t)
    return jnp.pad(z, ((0, 0), (0, 0), (0, self.chunks * TOKENS - self.t)))

  def unfold_columns(self, z):
    """Returns the sum of what the blocks of channels have, as "b t g n"."""
    return z.sum(1)[..., : self.t].reshape(self.b, self.g, self.n, self.t).transpose(0, 3, 1, 2)

  def by_row(self, rows):
    return pl.BlockSpec((None, rows, self.channels), lambda r, e, c: (r, 0, e))

  def by_group(self, rows):
    return pl.BlockSpec((None, rows, self.channels), lambda r, e, c: (lax.rem(r, self.g), 0, e))

  def words(self):
    """Returns the mask, and its block, in scalar memory."""
    if self.reset is None:
      return (), ()
    index = lambda r, e, c: (lax.div(r, self.g), self.chunk(c), 0, 0)
    spec = pl.BlockSpec((None, None, 1, self.tiles), index, memory_space=pltpu.SMEM)
    return (tpu.words(self.reset, self.tokens),), (spec,)

  def like(self, *shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((self.b * self.g, *shape), dtype)

  def like_tokens(self, z):
    """Returns the shape of an array by token in the dtype of z."""
    return self.like(self.t, self.width, dtype=z.dtype)

  def wide(self, count):
    """Returns a chunk in 32 bits, for so many arrays."""
    return [pltpu.VMEM((self.tokens, self.channels), jnp.float32)] * count

  def valid(self, z, step):
    """Sets a chunk to 0 past the end of the arrays, where memory is undefined."""
    if self.t % self.tokens == 0:
      return z
    token = self.chunk(step) * self.tokens + lax.broadcasted_iota(jnp.int32, z.shape, 0)
    return jnp.where(token < self.t, z, 0)


def _run(softplus, x, dt, A, B, C, h, D, z, reset, *, save):
  """Returns all y, the last state, and if `save` the states before each chunk."""
  blocks = _Blocks(x, B, reset, softplus, back=False)
  row, states = blocks.by_row(blocks.n), (blocks.n, blocks.width)
  saved = (blocks.like(blocks.chunks, *states), blocks.by_chunk)
  y, last, *entries = tpu.in_order(
    _forward_kernel,
    blocks,
    "selective_scan",
    [*_arrays(blocks, x, dt, A, B, C, D, z), (blocks.fold(h.swapaxes(1, 2)), row)],
    [(blocks.like_tokens(x), blocks.by_token), (blocks.like(*states), row), *[saved] * save],
    blocks.wide(3),
  )
  return blocks.unfold(y), blocks.unfold(last).swapaxes(1, 2), *entries


def _arrays(blocks, x, dt, A, B, C, D, z):
  """Returns pairs of arrays and their blocks; D and z in tuples, which are empty without them."""
  skip, gate = (() if m is None else (m,) for m in (D, z))
  return (
    blocks.words(),
    *((blocks.fold(m), blocks.by_token) for m in (x, dt)),
    (blocks.fold(A.T[None]), blocks.by_group(blocks.n)),
    *((blocks.fold_columns(m), blocks.columns) for m in (B, C)),
    (tuple(blocks.fold(m[None, None]) for m in skip), (blocks.by_group(1),) * len(skip)),
    (tuple(map(blocks.fold, gate)), (blocks.by_token,) * len(gate)),
  )


def _read(blocks, step, x, dt, x_in, dt_in):
  """Reads x and dt in float32; past the end dt is 0, which leaves the state alone."""
  wide = dt[...].astype(jnp.float32)
  x_in[...] = blocks.valid(x[...].astype(jnp.float32), step)
  dt_in[...] = blocks.valid(fused.softplus(wide) if blocks.softplus else wide, step)


def _forward_kernel(blocks, words, x, dt, A, B, C, D, z, h, y, last, *entries_and_scratch):
  *entries, x_in, dt_in, y_out = entries_and_scratch
  step = pl.program_id(2)

  @pl.when(step == 0)
  def _():
    last[...] = h[...]

  for entry in entries:
    entry[...] = last[...]
  A = A[...]
  _read(blocks, step, x, dt, x_in, dt_in)

  def tile(i, h):
    out = jnp.zeros((tpu.ROWS, blocks.channels), jnp.float32)
    for j, reset, (x_t, dt_t), (B_t, C_t) in _tokens(i, words, (x_in, dt_in), (B, C)):
      h = _advance(A, _cleared(h, reset), x_t, dt_t, B_t)
      out = _at_row(j, out, (C_t * h).sum(0, keepdims=True))
    y_out[_rows(i)] = out
    return h

  last[...] = lax.fori_loop(0, blocks.tiles, tile, last[...])
  out = y_out[...]
  for ref in D:
    out += ref[...] * x_in[...]
  for ref in z:
    out *= fused.silu(ref[...].astype(jnp.float32))
  y[...] = out.astype(y.dtype)


def _backward(softplus, x, dt, A, B, C, D, z, reset, entries, y_bar, last_bar):
  blocks = _Blocks(x, B, reset, softplus, back=True)
  tokens, row = blocks.by_token, blocks.by_row(blocks.n)
  states_bar = blocks.like(blocks.n, blocks.width), row
  columns_bar = blocks.like(blocks.grid[1], blocks.n, blocks.chunks * TOKENS), blocks.columns_bar
  skip, gate = (() if m is None else (m,) for m in (D, z))
  x_bar, dt_bar, A_bar, B_bar, C_bar, h_bar, D_bar, z_bar = tpu.in_order(
    _backward_kernel,
    blocks,
    "selective_scan_backward",
    [
      *(*_arrays(blocks, x, dt, A, B, C, D, z), (entries, blocks.by_chunk)),
      *((blocks.fold(y_bar), tokens), (blocks.fold(last_bar.swapaxes(1, 2)), row)),
    ],
    [
      *((blocks.like_tokens(x), tokens), (blocks.like_tokens(dt), tokens)),
      *(states_bar, columns_bar, columns_bar, states_bar),
      ((blocks.like(1, blocks.width),) * len(skip), (blocks.by_row(1),) * len(skip)),
      (tuple(map(blocks.like_tokens, gate)), (tokens,) * len(gate)),
    ],
    [pltpu.VMEM((blocks.tokens, blocks.n, blocks.channels), jnp.float32), *blocks.wide(5 + len(gate))],
  )
  A_bar, h_bar = (blocks.unfold(m).swapaxes(1, 2) for m in (A_bar, h_bar))
  B_bar, C_bar = blocks.unfold_columns(B_bar), blocks.unfold_columns(C_bar)
  D_bar = blocks.unfold(D_bar[0]).sum((0, 1)) if D_bar else None
  z_bar = blocks.unfold(z_bar[0]) if z_bar else None
  return blocks.unfold(x_bar), blocks.unfold(dt_bar), A_bar.sum(0), B_bar, C_bar, h_bar, D_bar, z_bar, None


def _backward_kernel(blocks, words, x, dt, A, B, C, D, z, entry, y_bar, last_bar, *out_and_scratch):
  x_bar, dt_bar, A_bar, B_bar, C_bar, h_bar, D_bar, z_bar, states, *wide = out_and_scratch
  x_in, dt_in, read_bar, *out = wide
  step = pl.program_id(2)

  @pl.when(step == 0)
  def _():
    h_bar[...] = last_bar[...]
    for total in (A_bar, *D_bar):
      total[...] = jnp.zeros_like(total)

  A = A[...]
  _read(blocks, step, x, dt, x_in, dt_in)
  y_bar = y_bar[...].astype(jnp.float32)
  gates = [fused.silu_and_slope(ref[...].astype(jnp.float32)) for ref in z]
  read_bar[...] = blocks.valid(y_bar * gates[0][0] if gates else y_bar, step)

  def enter(i, h):
    """Writes down what each token finds."""
    for j, reset, (x_t, dt_t), (B_t,) in _tokens(i, words, (x_in, dt_in), (B,)):
      h = _cleared(h, reset)
      states[i * tpu.ROWS + j] = h
      h = _advance(A, h, x_t, dt_t, B_t)
    return h

  lax.fori_loop(0, blocks.tiles, enter, entry[...])

  def leave(k, carry):
    h_bar, *bars = carry
    i = blocks.tiles - 1 - k
    tiles = [jnp.zeros((tpu.ROWS, blocks.channels), jnp.float32)] * len(out)
    for j, reset, rows, columns in reversed(list(_tokens(i, words, (x_in, dt_in, read_bar), (B, C)))):
      lane = i * tpu.ROWS + j
      h_bar, made, bars = _adjoint(A, h_bar, bars, rows, columns, states[lane], lane)
      h_bar, tiles = _cleared(h_bar, reset), [_at_row(j, m, row) for m, row in zip(tiles, made)]
    for ref, m in zip(out, tiles):
      ref[_rows(i)] = m
    return h_bar, *bars

  empty = jnp.zeros((blocks.n, TOKENS), jnp.float32)
  carry = lax.fori_loop(0, blocks.tiles, leave, (h_bar[...], A_bar[...], empty, empty))
  h_bar[...], A_bar[...], B_bar[...], C_bar[...] = carry
  x_out, dt_out, *y_out = (ref[...] for ref in out)
  x, dt, read_bar = x_in[...], dt[...].astype(jnp.float32), read_bar[...]
  for total, ref in zip(D_bar, D):
    total[...] += (read_bar * x).sum(0, keepdims=True)
    x_out += ref[...] * read_bar
    y_out = [m + ref[...] * x for m in y_out]
  x_bar[...] = x_out.astype(x_bar.dtype)
  dt_bar[...] = (dt_out * lax.logistic(dt) if blocks.softplus else dt_out).astype(dt_bar.dtype)
  for ref, m, (_, slope) in zip(z_bar, y_out, gates):
    ref[...] = (y_bar * m * slope).astype(ref.dtype)


def _advance(A, h, x, dt, B):
  return jnp.exp(dt * A) * h + (dt * x) * B


def _adjoint(A, h_bar, bars, rows, columns, entering, number):
  """Goes one token back: what flows to the state before it; cotangents of x and dt, and its y; `bars` with those of
  A, B, C.

  Those of A are added up, those of B and C go to lane `place`.
  """
  (x, dt, y_bar), (B, C), (A_bar, B_bar, C_bar) = rows, columns, bars
  decay, inflow = jnp.exp(dt * A), dt * x
  after = decay * entering + inflow * B
  h_bar = h_bar + y_bar * C
  before_bar = decay * h_bar
  exponent_bar = before_bar * entering
  inflow_bar = (h_bar * B).sum(0, keepdims=True)
  lane = lax.broadcasted_iota(jnp.int32, B_bar.shape, 1) == number
  B_bar = jnp.where(lane, (h_bar * inflow).sum(1, keepdims=True), B_bar)
  C_bar = jnp.where(lane, (after * y_bar).sum(1, keepdims=True), C_bar)
  dt_bar = (exponent_bar * A).sum(0, keepdims=True) + inflow_bar * x
  y = (after * C).sum(0, keepdims=True)
  return before_bar, (inflow_bar * dt, dt_bar, y), (A_bar + exponent_bar * dt, B_bar, C_bar)


def _tokens(i, words, by_row, by_column):
  """Yields for each token of tile i its number, whether it starts a document, its rows and columns of the arrays."""
  rows = [z[_rows(i)] for z in by_row]
  # Lanes are taken at places known when compiled: the tile is turned to the front.
  turn = lax.rem(TOKENS - i * tpu.ROWS, TOKENS)
  columns = [pltpu.roll(z[...], turn, 1) for z in by_column]
  word = words[0][0, i] if words else None
  for j in range(tpu.ROWS):
    reset = None if word is None else jnp.bitwise_and(word, 1 << j) != 0
    yield j, reset, [z[j : j + 1] for z in rows], [z[:, j : j + 1] for z in columns]


def _rows(i):
  return pl.ds(pl.multiple_of(i * tpu.ROWS, tpu.ROWS), tpu.ROWS)


def _at_row(j, tile, row):
  return jnp.where(lax.broadcasted_iota(jnp.int32, tile.shape, 0) == j, row, tile)


def _cleared(h, reset):
  return h if reset is None else jnp.where(reset, 0.0, h)

"""`linear_scan` on TPUs: one pass over memory, the state in VMEM. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some channels of one row, and finds the state where the one before left it.
It goes through the chunk in tiles of eight tokens, which fill registers: three doublings make their states. Complex
numbers are pairs of real arrays. What lies past the end of the arrays is read as anything and never written.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Complex64, Float32

from kernels import dispatch, tpu
from kernels.linear_scan import adjoint
from kernels.linear_scan.pairs import add, parts, product, where, whole

TOKENS, CHANNELS = 256, 512  # at most, of a block; half as many complex channels


def why_not(a, x, h, keep) -> str | None:
  del keep
  return tpu.why_not(a, x, h)


def linear_scan(
  a: Float32[Array, "b t n"] | Float32[Array, "n"] | Complex64[Array, "b t n"] | Complex64[Array, "n"],
  x: Float32[Array, "b t n"] | Complex64[Array, "b t n"],
  h: Float32[Array, "b n"] | Complex64[Array, "b n"],
  keep: Bool[Array, "b t"] | None,
) -> tuple[Float32[Array, "b t n"] | Complex64[Array, "b t n"], Float32[Array, "b n"] | Complex64[Array, "b n"]]:
  """See `reference.linear_scan`."""
  axes = ("b t e" if a.ndim == 3 else "e", "b t e", "b e", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e"))(a, x, h, keep)


class _Blocks:
  """The blocks of one program, by what they belong to."""

  def __init__(self, x, keep, *, back):
    self.pairs = len(parts(x))
    (self.b, self.t, self.n), self.keep = x.shape, keep
    self.tokens = tpu.even(self.t, TOKENS, tpu.ROWS)
    self.channels = tpu.even(self.n, CHANNELS // self.pairs, tpu.LANES)
    self.chunks = pl.cdiv(self.t, self.tokens)
    self.grid = self.b, pl.cdiv(self.n, self.channels), self.chunks
    self.chunk = (lambda c: self.chunks - 1 - c) if back else (lambda c: c)

  def each(self, spec):
    return (spec,) * self.pairs

  def by_token(self):
    return self.each(pl.BlockSpec((None, self.tokens, self.channels), lambda b, e, c: (b, self.chunk(c), e)))

  def tile_before(self):
    """The last tokens of the chunk before; of the first chunk, its own."""
    tiles = self.tokens // tpu.ROWS
    where = lambda b, e, c: (b, jnp.maximum(self.chunk(c) * tiles - 1, 0), e)
    return self.each(pl.BlockSpec((None, tpu.ROWS, self.channels), where))

  def by_row(self, rows=1):
    return self.each(pl.BlockSpec((None, rows, self.channels), lambda b, e, c: (b, 0, e)))

  def decay(self, a):
    return self.by_token() if a.ndim == 3 else self.each(pl.BlockSpec((1, self.channels), lambda b, e, c: (0, e)))

  def words(self):
    """The mask, and its block, in scalar memory."""
    if self.keep is None:
      return (), ()
    tiles = self.tokens // tpu.ROWS
    spec = pl.BlockSpec((None, None, 1, tiles), lambda b, e, c: (b, self.chunk(c), 0, 0), memory_space=pltpu.SMEM)
    return (tpu.words(self.keep, self.tokens),), (spec,)

  def like(self, *shape):
    return (jax.ShapeDtypeStruct((self.b, *shape, self.n), jnp.float32),) * self.pairs

  def scratch(self):
    return self.each(pltpu.VMEM((1, self.channels), jnp.float32))


def _forward(a, x, h, keep):
  blocks = _Blocks(x, keep, back=False)
  words, words_spec = blocks.words()
  (y,) = pl.pallas_call(
    functools.partial(_forward_kernel, blocks),
    grid=blocks.grid,
    in_specs=[words_spec, blocks.decay(a), blocks.by_token(), blocks.by_row()],
    out_specs=[blocks.by_token()],
    out_shape=[blocks.like(blocks.t)],
    scratch_shapes=[blocks.scratch()],
    compiler_params=tpu.IN_ORDER,
    name="linear_scan",
  )(words, parts(jnp.atleast_2d(a)), parts(x), parts(h[:, None]))
  y = whole(y)
  return y, y[:, -1]


def _forward_kernel(blocks, words, a, x, h, y, state):
  @pl.when(pl.program_id(2) == 0)
  def _():
    _write(state, slice(None), _read(h, slice(None)))

  def tile(i, h):
    rows = pl.ds(pl.multiple_of(i * tpu.ROWS, tpu.ROWS), tpu.ROWS)
    decay = where(_kept(words, i, blocks), _decay(a, rows, blocks))
    states = _states(decay, _read(x, rows), h, back=False)
    _write(y, rows, states)
    return _row(states, tpu.ROWS - 1)

  _write(state, slice(None), lax.fori_loop(0, blocks.tokens // tpu.ROWS, tile, _read(state, slice(None))))


def _backward(a, h, y, keep, y_bar, last_bar):
  """See `adjoint`."""
  blocks = _Blocks(y, keep, back=True)
  words, words_spec = blocks.words()
  constant = a.ndim == 1
  a_bar_spec = blocks.by_row(tpu.ROWS) if constant else blocks.by_token()
  a_bar, x_bar, h_bar = pl.pallas_call(
    functools.partial(_backward_kernel, blocks, constant),
    grid=blocks.grid,
    in_specs=[
      *(words_spec, blocks.decay(a), blocks.by_row(), blocks.tile_before()),
      *(blocks.by_token(), blocks.by_token(), blocks.by_row()),
    ],
    out_specs=[a_bar_spec, blocks.by_token(), blocks.by_row()],
    out_shape=[blocks.like(tpu.ROWS if constant else blocks.t), blocks.like(blocks.t), blocks.like(1)],
    scratch_shapes=[blocks.scratch()],
    compiler_params=tpu.IN_ORDER,
    name="linear_scan_backward",
  )(words, parts(jnp.atleast_2d(a)), parts(h[:, None]), parts(y), parts(y), parts(y_bar), parts(last_bar[:, None]))
  a_bar = whole(a_bar)
  return a_bar.sum((0, 1)) if constant else a_bar, whole(x_bar), whole(h_bar)[:, 0]


def _backward_kernel(blocks, constant, words, a, h, y_before, y, y_bar, last_bar, a_bar, x_bar, h_bar, state):
  step = pl.program_id(2)
  first = blocks.chunk(step) * blocks.tokens  # token of this chunk

  @pl.when(step == 0)
  def _():
    _write(state, slice(None), _read(last_bar, slice(None)))
    if constant:
      _write(a_bar, slice(None), tuple(jnp.zeros(z.shape, z.dtype) for z in a_bar))

  # The state before this chunk.
  start = where(first == 0, _read(h, slice(None)))
  start = add(start, where(first > 0, _row(_read(y_before, slice(None)), tpu.ROWS - 1)))

  def tile(j, s):
    i = blocks.tokens // tpu.ROWS - 1 - j
    rows = pl.ds(pl.multiple_of(i * tpu.ROWS, tpu.ROWS), tpu.ROWS)
    rows_before = pl.ds(pl.multiple_of(jnp.maximum(i - 1, 0) * tpu.ROWS, tpu.ROWS), tpu.ROWS)
    kept, here = _kept(words, i, blocks), first + i * tpu.ROWS + _index(blocks) < blocks.t

    # What is not there has decay 1 and no cotangent, so that the one of the last state gets to the last token.
    decay = where(here, where(kept, _decay(a, rows, blocks)), 1.0)
    bar = where(here, _read(y_bar, rows))
    into = _states(decay, product(decay, bar), s, back=True)
    bar = add(bar, _shift(into, s, back=True))
    _write(x_bar, rows, bar)

    entry = _row(_read(y, rows_before), tpu.ROWS - 1)
    entry = tuple(jnp.where(i == 0, p, q) for p, q in zip(start, entry))
    before = where(here, where(kept, _shift(_read(y, rows), entry, back=False)))
    flow = product(bar, before)
    if constant:
      _write(a_bar, slice(None), add(_read(a_bar, slice(None)), flow))
    else:
      _write(a_bar, rows, flow)
    return _row(into, 0)

  s = lax.fori_loop(0, blocks.tokens // tpu.ROWS, tile, _read(state, slice(None)))
  _write(state, slice(None), s)
  _write(h_bar, slice(None), s)


_scan = adjoint.differentiable(_forward, _backward)


def _states(decay, inflow, h, *, back):
  """All h_t = decay_t h_{t-1} + inflow_t of a tile, after the row h; `back`, from its last token to its first."""
  zero, one = (tuple(jnp.full_like(z, v if i == 0 else 0.0) for i, z in enumerate(decay)) for v in (0.0, 1.0))
  for distance in (1, 2, 4):
    inflow = add(inflow, product(decay, _shift(inflow, zero, back=back, distance=distance)))
    decay = product(decay, _shift(decay, one, back=back, distance=distance))
  return add(inflow, product(decay, h))


def _shift(tile, edge, *, back, distance=1):
  """Every token gets what belongs to the one `distance` before it, or after it; those that have none get `edge`."""
  row = lax.broadcasted_iota(jnp.int32, tile[0].shape, 0)
  has = row < tpu.ROWS - distance if back else row >= distance
  amount = tpu.ROWS - distance if back else distance
  return tuple(jnp.where(has, pltpu.roll(z, amount, 0), e) for z, e in zip(tile, edge))


def _decay(a, rows, blocks):
  shape = tpu.ROWS, blocks.channels
  return tuple(z[rows] if z.shape[0] > 1 else jnp.broadcast_to(z[...], shape) for z in a)


def _kept(words, i, blocks):
  """Which tokens of tile i keep the state before them."""
  return tpu.unpack(words[0][0, i], _index(blocks)) if words else None


def _index(blocks):
  return lax.broadcasted_iota(jnp.int32, (tpu.ROWS, blocks.channels), 0)


def _read(refs, rows):
  return tuple(ref[rows] for ref in refs)


def _write(refs, rows, values):
  for ref, z in zip(refs, values):
    ref[rows] = z


def _row(tile, i):
  return tuple(z[i : i + 1] for z in tile)

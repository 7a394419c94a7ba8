"""`linear_scan` on TPUs: one pass over memory, the state in VMEM. Never run on a TPU; its speed is unmeasured.

A program of the grid has a chunk of time of some channels of one row, and finds the state where the one before left it.
It goes through the chunk in tiles of eight tokens, which fill registers: three doublings make their states, see
`tpu_tiling`. Complex numbers are pairs of real arrays. What lies past the end of the arrays is read as anything and
never written.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import dispatch, tpu
from kernels.linear_scan import adjoint, tpu_tiling
from kernels.linear_scan.pairs import add, clear, parts, product, where, whole
from kernels.linear_scan.tpu_tiling import row, shift

TOKENS, CHANNELS = 256, 512  # at most, of a block; half as many complex channels


def why_not(a, x, h, reset) -> str | None:
  return tpu.why_not(a, x, h)


def linear_scan(a, x, h, reset):
  """Computes `reference.linear_scan`."""
  axes = ("b t e" if a.ndim == 3 else "e", "b t e", "b e", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e"))(a, x, h, reset)


class _Blocks(tpu_tiling.Blocks):
  """The blocks of a linear scan, whose arrays are pairs of real arrays where the numbers are complex."""

  def __init__(self, x, reset, *, back):
    self.pairs = len(parts(x))
    super().__init__(x.shape, reset, most=(TOKENS, CHANNELS // self.pairs), back=back)

  def numbers(self, z, spec):
    """Returns the parts of an array, and their blocks."""
    return parts(z), (spec,) * self.pairs

  def decay(self, a):
    return self.numbers(jnp.atleast_2d(a), self.by_token if a.ndim == 3 else self.by_channel)

  def result(self, rows, spec):
    return (jax.ShapeDtypeStruct((self.b, rows, self.n), jnp.float32),) * self.pairs, (spec,) * self.pairs

  def scratch(self):
    return (pltpu.VMEM((1, self.channels), jnp.float32),) * self.pairs


def _forward(a, x, h, reset):
  blocks = _Blocks(x, reset, back=False)
  (y,) = tpu.in_order(
    _forward_kernel,
    blocks,
    "linear_scan",
    [
      *(blocks.words(), blocks.decay(a), blocks.numbers(x, blocks.by_token)),
      blocks.numbers(h[:, None], blocks.by_row()),
    ],
    [blocks.result(blocks.t, blocks.by_token)],
    [blocks.scratch()],
  )
  y = whole(y)
  return y, y[:, -1]


def _forward_kernel(blocks, words, a, x, h, y, state):
  @pl.when(pl.program_id(2) == 0)
  def _():
    _write(state, slice(None), _read(h, slice(None)))

  def tile(i, h):
    rows = blocks.at(i)
    states = tpu_tiling.states(_decay(a, rows, blocks), _read(x, rows), h, blocks.resets(words, i), back=False)
    _write(y, rows, states)
    return row(states, blocks.rows - 1)

  _write(state, slice(None), lax.fori_loop(0, blocks.tiles, tile, _read(state, slice(None))))


def _backward(a, h, y, reset, y_bar, last_bar):
  """Returns the cotangents of the inputs, by a scan from the last token to the first; see `adjoint`."""
  blocks = _Blocks(y, reset, back=True)
  constant, tokens, row = a.ndim == 1, blocks.by_token, blocks.by_row()
  a_bar, x_bar, h_bar = tpu.in_order(
    functools.partial(_backward_kernel, constant),
    blocks,
    "linear_scan_backward",
    [
      *(blocks.words(), blocks.decay(a), blocks.numbers(h[:, None], row)),
      *(blocks.numbers(z, spec) for z, spec in ((y, blocks.tile_before), (y, tokens), (y_bar, tokens))),
      blocks.numbers(last_bar[:, None], row),
    ],
    [
      blocks.result(blocks.rows, blocks.by_row(blocks.rows)) if constant else blocks.result(blocks.t, tokens),
      *(blocks.result(blocks.t, tokens), blocks.result(1, row)),
    ],
    [blocks.scratch()],
  )
  a_bar = whole(a_bar)
  return a_bar.sum((0, 1)) if constant else a_bar, whole(x_bar), whole(h_bar)[:, 0]


def _backward_kernel(constant, blocks, words, a, h, y_before, y, y_bar, last_bar, a_bar, x_bar, h_bar, state):
  first = blocks.first()

  @pl.when(pl.program_id(2) == 0)
  def _():
    _write(state, slice(None), _read(last_bar, slice(None)))
    if constant:
      _write(a_bar, slice(None), tuple(jnp.zeros(z.shape, z.dtype) for z in a_bar))

  # The state before this chunk.
  start = where(first == 0, _read(h, slice(None)))
  start = add(start, where(first > 0, row(_read(y_before, slice(None)), blocks.rows - 1)))

  def tile(j, s):
    i = blocks.tiles - 1 - j
    rows, rows_before = blocks.at(i), blocks.at(jnp.maximum(i - 1, 0))
    reset, valid = blocks.resets(words, i), blocks.valid(first, i)

    # Tokens past the end have decay 1 and no cotangent, so that that of the last state reaches the last token.
    decay = where(valid, _decay(a, rows, blocks), 1.0)
    bar = where(valid, _read(y_bar, rows))
    into = tpu_tiling.states(decay, clear(reset, product(decay, bar)), s, reset, back=True)
    bar = add(bar, shift(into, s, back=True))
    _write(x_bar, rows, bar)

    entry = row(_read(y, rows_before), blocks.rows - 1)
    entry = tuple(jnp.where(i == 0, p, q) for p, q in zip(start, entry))
    before = where(valid, clear(reset, shift(_read(y, rows), entry, back=False)))
    flow = product(bar, before)
    if constant:
      _write(a_bar, slice(None), add(_read(a_bar, slice(None)), flow))
    else:
      _write(a_bar, rows, flow)
    return row(into, 0)

  s = lax.fori_loop(0, blocks.tiles, tile, _read(state, slice(None)))
  _write(state, slice(None), s)
  _write(h_bar, slice(None), s)


_scan = adjoint.differentiable(_forward, _backward)


def _decay(a, rows, blocks):
  shape = blocks.rows, blocks.channels
  return tuple(z[rows] if z.shape[0] > 1 else jnp.broadcast_to(z[...], shape) for z in a)


def _read(refs, rows):
  return tuple(ref[rows] for ref in refs)


def _write(refs, rows, values):
  for ref, z in zip(refs, values):
    ref[rows] = z

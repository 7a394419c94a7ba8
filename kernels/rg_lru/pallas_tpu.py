"""`rg_lru` on TPUs: one pass over memory, gates and state in VMEM. Never run on a TPU; its speed is unmeasured.

The blocks and the order of tokens are those of `linear_scan`, in tiles of sixteen tokens, of which one register of
bfloat16 holds as many. Numbers are float32 from where they are read to where they are written.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels import tpu
from kernels.linear_scan import tpu_tiling
from kernels.linear_scan.tpu_tiling import shift, states
from kernels.rg_lru import adjoint
from kernels.rg_lru.fused import opened, pull, select

TOKENS, CHANNELS = 512, 256  # at most, of a block
ROWS = 2 * tpu.ROWS


def why_not(*args) -> str | None:
  return tpu.why_not(*adjoint.others(*args))


class _Blocks(tpu_tiling.Blocks):
  def __init__(self, u, reset, *, back):
    super().__init__(u.shape, reset, most=(TOKENS, CHANNELS), rows=ROWS, back=back)

  def per_row(self, rows=1):
    return jax.ShapeDtypeStruct((self.b, rows, self.n), jnp.float32)


def _forward(u, r, i, rate, h, reset):
  blocks = _Blocks(u, reset, back=False)
  token, row = blocks.by_token, blocks.by_row()
  y, last = tpu.in_order(
    _forward_kernel,
    blocks,
    "rg_lru",
    [blocks.words(), (u, token), (r, token), (i, token), (rate[None], blocks.by_channel), (h[:, None], row)],
    [(jax.ShapeDtypeStruct(u.shape, u.dtype), token), (blocks.per_row(), row)],
  )
  return y, last[:, 0]


def _forward_kernel(blocks, words, u, r, i, rate, h, y, last):
  first = blocks.first()

  @pl.when(pl.program_id(2) == 0)
  def _():
    last[...] = h[...]

  def tile(n, h):
    rows, valid = blocks.at(n), blocks.valid(first, n)
    reset = blocks.resets(words, n)
    gates = opened(_read(r, rows), _read(i, rows), rate[...], reset)
    # Tokens past the end leave the last state alone.
    decay = jnp.where(valid, gates.decay, 1.0)
    inflow = jnp.where(valid, gates.factor * gates.i * _read(u, rows), 0.0)
    (tile,) = states((decay,), (inflow,), (h,), reset, back=False)
    y[rows] = tile.astype(y.dtype)
    return tile[ROWS - 1 :]

  last[...] = lax.fori_loop(0, blocks.tiles, tile, last[...])


def _backward(u, r, i, rate, h, y, reset, y_bar, last_bar):
  blocks = _Blocks(u, reset, back=True)
  token, row = blocks.by_token, blocks.by_row()
  *bars, rate_bar, h_bar = tpu.in_order(
    _backward_kernel,
    blocks,
    "rg_lru_backward",
    [
      *(blocks.words(), (u, token), (r, token), (i, token), (rate[None], blocks.by_channel), (h[:, None], row)),
      *((y, blocks.tile_before), (y, token), (y_bar, token), (last_bar[:, None], row)),
    ],
    [
      *((jax.ShapeDtypeStruct(z.shape, z.dtype), token) for z in (u, r, i)),
      *((blocks.per_row(ROWS), blocks.by_row(ROWS)), (blocks.per_row(), row)),
    ],
  )
  return *bars, rate_bar.sum((0, 1)), h_bar[:, 0]


def _backward_kernel(
  blocks, words, u, r, i, rate, h, y_before, y, y_bar, last_bar, u_bar, r_bar, i_bar, rate_bar, h_bar
):
  first = blocks.first()

  @pl.when(pl.program_id(2) == 0)
  def _():
    h_bar[...] = last_bar[...]
    rate_bar[...] = jnp.zeros_like(rate_bar)

  # The state before this chunk.
  start = jnp.where(first == 0, h[...], _read(y_before, slice(None))[ROWS - 1 :])

  def tile(j, s):
    n = blocks.tiles - 1 - j
    rows, rows_before = blocks.at(n), blocks.at(jnp.maximum(n - 1, 0))
    reset, valid = blocks.resets(words, n), blocks.valid(first, n)
    x, r_n, i_n, bar = (jnp.where(valid, _read(z, rows), 0.0) for z in (u, r, i, y_bar))

    # Tokens past the end have decay 1 and no cotangent, so that that of the last state reaches the last token.
    gates = opened(r_n, i_n, rate[...], reset)
    decay = jnp.where(valid, gates.decay, 1.0)
    (into,) = states((decay,), (select(reset, decay * bar, 0.0),), (s,), reset, back=True)
    bar += shift((into,), (s,), back=True)[0]

    entry = jnp.where(n == 0, start, _read(y, rows_before)[ROWS - 1 :])
    (before,) = shift((_read(y, rows),), (entry,), back=False)
    before = jnp.where(valid, select(reset, before, 0.0), 0.0)
    for ref, z in zip((u_bar, r_bar, i_bar, rate_bar), pull(gates, x, rate[...], bar, before)):
      if ref is rate_bar:
        ref[...] += z
      else:
        ref[rows] = z.astype(ref.dtype)
    return into[:1]

  h_bar[...] = lax.fori_loop(0, blocks.tiles, tile, h_bar[...])


rg_lru = adjoint.differentiable(_forward, _backward)


def _read(ref, rows):
  return ref[rows].astype(jnp.float32)

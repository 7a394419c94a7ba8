"""`ssd_step` on GPUs: one pass over the states, where they lie. Never run on a GPU; its speed is unmeasured.

A block has 128 channels of one row. Most have those of as many heads of a group as fill them, one a thread, which goes
down its column of the state: convolution of its channel, and with the other threads of B and C; state, skip and gate.
Of the norm it adds up the squares of its heads; the factor that they give is applied to the outputs outside, as the
heads of a row may lie on several devices.

As all blocks of a group read the taps of B and C, the new taps are an array of their own.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import chunks, gpu
from kernels.ssd_step import over_heads

ENTRIES = 16  # of a column of the state, read together

# Arrays "h k p" of heads of 32 or 64 channels, together 128, of which a thread has a column. JAX 0.10.2 cannot read
# one head of 128 so.
STATES = {
  32: plgpu.Layout.TILED(plgpu.Tiling(((4, 1, 32), (1,))), warp_dims=(-4,), lane_dims=(-2,), vector_dim=-1),
  64: plgpu.Layout.TILED(plgpu.Tiling(((2, 1, 64), (32,), (1,))), warp_dims=(-5, -3), lane_dims=(-2,), vector_dim=-1),
}


def why_not(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `gpu.why_not`."""
  if S.shape[3] > max(STATES):
    return f"heads have {S.shape[3]} channels; it knows {max(STATES)} at most"
  return over_heads.why_not(S, taps, norm, norm_groups) or gpu.why_not(x, z, dt, taps, S, kernel, A, D)


def ssd_step(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
  """Computes `reference.ssd_step`."""
  return over_heads.divided(_step, x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps)


class _Blocks:
  """How the channels are divided. Widths, heads and entries are filled up, by copies, where they are not whole blocks.

  Channels of the convolution are rows of the width of a head: those of heads, of all B and of all C, as whole blocks.
  """

  def __init__(self, x, S):
    self.b, self.h, self.k, self.p = S.shape
    self.g = (x.shape[1] - self.h * self.p) // (2 * self.k)
    self.width = min(width for width in STATES if self.p <= width)
    self.heads = gpu.LANES // self.width  # of a block
    self.of_group = chunks.up(self.h // self.g, self.heads)
    self.entries = chunks.up(self.k, ENTRIES)
    self.of_column = pl.cdiv(self.k, gpu.LANES)  # blocks that have B, or C, of one group
    self.of_heads = self.g * self.of_group // self.heads
    self.all = self.of_heads + 2 * self.g * self.of_column

  def mixed(self, z):
    """Lays out channels of the convolution: "... m" -> "... rows width"."""
    u, B, C = over_heads.cut(z, self.h, k=self.k, p=self.p)
    u = self.by_head(u, axis=u.ndim - 2)
    B, C = (gpu.widen(m, gpu.LANES) for m in (B, C))
    return over_heads.join(u, B, C).reshape(*z.shape[:-1], -1, self.width)

  def unmixed(self, z):
    """Returns the inverse of `mixed`."""
    z = z.reshape(*z.shape[:-2], -1)
    u, B, C = over_heads.cut(z, self.g * self.of_group, k=self.of_column * gpu.LANES, p=self.width)
    return over_heads.join(self.from_head(u, axis=u.ndim - 2), B[..., : self.k], C[..., : self.k])

  def by_head(self, z, axis):
    """Fills up heads group by group, in "h", "h p" and "h k p"."""
    z = z.reshape(*z.shape[:axis], self.g, -1, *z.shape[axis + 1 :])
    sizes = self.of_group, *{0: (), 1: (self.width,), 2: (self.entries, self.width)}[z.ndim - axis - 2]
    z = jnp.pad(z, [(0, 0)] * (axis + 1) + [(0, to - size) for to, size in zip(sizes, z.shape[axis + 1 :])])
    return z.reshape(*z.shape[:axis], -1, *sizes[1:])

  def from_head(self, z, axis):
    """Returns the inverse of `by_head`."""
    sizes = (self.h // self.g, *{0: (), 1: (self.p,), 2: (self.k, self.p)}[z.ndim - axis - 1])
    z = z.reshape(*z.shape[:axis], self.g, -1, *z.shape[axis + 1 :])
    z = z[(slice(None),) * (axis + 1) + tuple(map(slice, sizes))]
    return z.reshape(*z.shape[:axis], -1, *sizes[1:])


def _step(x, z, dt, A, D, taps, S, kernel, bias, norm):
  """Computes `over_heads.divided`."""
  blocks = _Blocks(x, S)
  taps = blocks.mixed(taps)
  z, dt, S, A = blocks.by_head(z, 1), blocks.by_head(dt, 1), blocks.by_head(S, 1), blocks.by_head(A, 0)
  D = blocks.by_head(jnp.broadcast_to(D, (blocks.h, blocks.p)), 0)
  run = gpu.kernel_in_place(
    functools.partial(_kernel, blocks, norm),
    tuple(jax.ShapeDtypeStruct(m, jnp.float32) for m in (z.shape, dt.shape, taps.shape)),
    {"e": blocks.all, "b": blocks.b},
    "ssd_step",
    plgpu.SMEM((2 * blocks.of_column * blocks.heads, blocks.width), jnp.float32),
  )
  args = blocks.mixed(x), z, dt, taps, blocks.mixed(kernel), blocks.mixed(bias), A, D
  (y, squares, taps), S = run(S, *args)
  return blocks.from_head(y, 1), blocks.from_head(squares, 1), blocks.unmixed(taps), blocks.from_head(S, 1)


def _kernel(blocks, norm, S, x, z, dt, taps, kernel, bias, A, D, y, squares, taps_out, columns):
  layout = STATES[blocks.width]
  row, block = lax.axis_index("b"), lax.axis_index("e")
  channels = lambda ref, block, *at: gpu.load(ref.at[*at, _rows(blocks, block)], layout.reduce(1))

  def window(block):
    return [*(channels(taps, block, row, i) for i in range(taps.shape[1])), channels(x, block, row)]

  def mixed(block):
    weighted = (channels(kernel, block, i) * m for i, m in enumerate(window(block)))
    return jax.nn.silu(sum(weighted, channels(bias, block)))

  for i, m in enumerate(window(block)[1:]):
    taps_out[row, i, _rows(blocks, block)] = m

  @pl.when(block < blocks.of_heads)
  def _():
    group = lax.div(block, blocks.of_group // blocks.heads)
    for i in range(2 * blocks.of_column):
      kind, part = divmod(i, blocks.of_column)
      columns[_rows(blocks, i)] = mixed(blocks.of_heads + (kind * blocks.g + group) * blocks.of_column + part)
    # All have written what all read.
    plgpu.commit_smem()
    heads, u = _rows(blocks, block), mixed(block)
    by_head = lambda ref, *at: gpu.load(ref.at[*at, heads], layout.reduce((1, 2)))
    decay = _spread(jnp.exp(by_head(dt, row) * by_head(A)), (0,), layout, blocks)
    inflow = _spread(by_head(dt, row), (0,), layout, blocks) * _spread(u, (0, 2), layout, blocks)

    def part(i, read):
      entries = pl.ds(i * ENTRIES, ENTRIES)
      B, C = (_column(columns, kind, i, layout, blocks) for kind in range(2))
      state = decay * gpu.load(S.at[row, heads, entries], layout) + inflow * B
      S[row, heads, entries] = state
      return read + (state * C).sum(1)

    read = lax.fori_loop(0, blocks.entries // ENTRIES, part, channels(D, block) * u)
    gated = read * jax.nn.silu(channels(z, block, row))
    y[row, heads] = gated
    gpu.store(squares.at[row, heads], jnp.square(read if norm == "norm_first" else gated).sum(1))


def _rows(blocks, block):
  """Returns where the channels of a block are among all; those of heads, which heads."""
  return pl.ds(block * blocks.heads, blocks.heads)


def _spread(z, axes, layout, blocks):
  """Repeats z along the axes of heads, entries and channels that it lacks."""
  shape = blocks.heads, ENTRIES, blocks.width
  return plgpu.layout_cast(lax.broadcast_in_dim(z, shape, axes), layout)


def _column(columns, kind, i, layout, blocks):
  """Returns the i-th entries of B or C, for all channels."""
  first = kind * blocks.of_column * gpu.LANES + i * ENTRIES
  indices = lax.div(first, blocks.width), pl.ds(lax.rem(first, blocks.width), ENTRIES)
  return _spread(gpu.load(columns.at[*indices], layout.reduce((0, 2))), (1,), layout, blocks)

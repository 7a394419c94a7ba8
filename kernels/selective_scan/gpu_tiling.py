"""How `selective_scan` on GPUs divides its arrays: rows are groups of rows of the batch, states are matrices."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import chunks, gpu
from kernels.selective_scan import fused

TOKENS = 16  # of a tile, and between the states that are kept for the gradient
ENTRIES = 16  # of a state that are one matrix; backward, those of one block
ROWS = 64  # of the matrix that is summed over channels: its layout wants them


class Tiling(gpu.Tiling):
  """A row here is one group of a row of the batch. Entries are filled up to matrices of equal size.

  Forward, a block has all matrices of its channels' states; `back`, one.
  """

  def __init__(self, x, B, reset, *, softplus, gated, back):
    self.rows, t, self.g, self.entries = B.shape
    self.softplus = softplus
    # With a gate, three slots of all that backward reads are more than shared memory holds.
    self.stages = 2 if back and gated else gpu.STAGES
    self.d = x.shape[2] // self.g
    self.n = next((n for n in (4, 8) if self.entries <= n), chunks.up(self.entries, ENTRIES))
    self.part = min(self.n, ENTRIES)
    self.parts = self.n // self.part
    self.held = 1 if back else self.parts
    self.summed = ROWS // (2 * self.part)  # tokens of which B and C fill the rows
    reset = None if reset is None else jnp.repeat(reset, self.g, axis=0)
    programs = self.parts if back else 1
    super().__init__((self.rows * self.g, t, self.d), TOKENS, reset, back=back, programs=programs)
    self.filled = self.segments * self.each * self.tokens > t

  def grid(self):
    return {**super().grid(), "n": self.parts // self.held}

  def by_token(self, z):
    """Returns the shape of results of each block of the same channels, of which several are added up."""
    blocks, dtype = self.parts // self.held, self.dtype_like(z)
    return jax.ShapeDtypeStruct((blocks * self.rows, self.t, self.g, chunks.up(self.d, _align(dtype))), dtype)

  def dtype_like(self, z):
    return z.dtype if self.parts == self.held else jnp.dtype(jnp.float32)

  def by_part(self):
    """Returns a vector of channels for each part of each segment."""
    return self.by_segment(self.parts // self.held)

  def by_tile(self):
    """Returns a state for each tile of each row."""
    shape = self.b, self.segments * self.each, self.n, self.blocks * gpu.LANES
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  def sums(self):
    """Returns the shape that has for each block and part the rows of B and C of tokens that are summed at once."""
    count = self.segments * self.each * self.tokens // self.summed
    return jax.ShapeDtypeStruct((self.b, self.blocks, self.parts, count, ROWS), jnp.float32)

  def slots(self, z):
    """Returns memory for tiles of arrays like z."""
    return plgpu.SMEM((self.stages, self.tokens, gpu.LANES), z.dtype)

  def leaving(self, z):
    """Returns memory for tiles of the results of `by_token`."""
    return plgpu.SMEM((2, self.tokens, gpu.LANES), self.dtype_like(z))

  def columns(self):
    return plgpu.SMEM((self.stages, self.tokens, self.held * self.part), jnp.float32)

  def tokens_of(self, z):
    """Lays out channels by group, up to rows that are whole 16 bytes, which the copy engine wants."""
    return gpu.widen(z.reshape(*z.shape[:2], self.g, self.d), _align(z.dtype))

  def channels_of(self, D):
    """Lays out channels by group, up to whole blocks."""
    return gpu.widen(D.reshape(self.g, self.d), gpu.LANES)

  def columns_of(self, z):
    return jnp.pad(z, [(0, 0)] * 3 + [(0, self.n - self.entries)])

  def states_of(self, z):
    """Lays out channels last, up to whole blocks: "b (g d) n" -> "(b g) n e"."""
    z = z.reshape(-1, self.d, self.entries).swapaxes(1, 2)
    return gpu.widen(jnp.pad(z, ((0, 0), (0, self.n - self.entries), (0, 0))), gpu.LANES)

  def decays_of(self, A):
    """Scales A for powers of 2, which GPUs compute."""
    return self.states_of(A / math.log(2))

  def tokens_from(self, z, like):
    z = z.reshape(-1, self.rows, *z.shape[1:]).sum(0)
    return z[..., : self.d].reshape(self.rows, self.t, -1).astype(like.dtype)

  def channels_from(self, z):
    """Sums over blocks; the first part has all."""
    return z[:, :, 0, : self.d].sum(1).reshape(self.rows, -1).sum(0)

  def states_from(self, z):
    return z[:, : self.entries, : self.d].swapaxes(1, 2).reshape(-1, self.g * self.d, self.entries)

  def columns_from(self, z):
    """Takes the cotangents of B and of C from the sums of the blocks."""
    z = z.sum(1).reshape(self.rows, self.g, self.parts, -1, self.summed, 2, self.part)
    z = z.transpose(5, 0, 3, 4, 1, 2, 6).reshape(2, self.rows, -1, self.g, self.n)
    return z[:, :, : self.t, :, : self.entries]


def _align(dtype):
  return 16 // jnp.dtype(dtype).itemsize


class Block(gpu.Block):
  """A block of the grid whose states are lists of matrices."""

  def __init__(self, tiling, words):
    super().__init__(tiling, words)
    self.group = lax.rem(self.row, tiling.g)
    self.part = lax.axis_index("n")
    self.held = range(tiling.held)

  def at(self, i):
    row = lax.div(self.row, self.tiling.g)
    return row, pl.ds(self.first(i), self.tiling.tokens), self.group, self.cols

  def to(self, i):
    row, *indices = self.at(i)
    return self.part * self.tiling.rows + row, *indices

  def fetch_columns(self, i, slot, barrier, *arrays):
    row, tokens, group, _ = self.at(i)
    entries = pl.ds(self.part * self.tiling.part, self.tiling.held * self.tiling.part)
    for ref, slots in arrays:
      plgpu.copy_gmem_to_smem(ref.at[row, tokens, group, entries], slots.at[slot], barrier)

  def entries(self, p):
    """Returns the slice of the p-th matrix among all entries."""
    return pl.ds((self.part + p) * self.tiling.part, self.tiling.part)

  def states(self, ref, *at):
    return [gpu.load(ref.at[*at, self.entries(p), self.cols], gpu.COLUMNS) for p in self.held]

  def write(self, ref, at, states):
    for p, z in zip(self.held, states):
      ref[*at, self.entries(p), self.cols] = z

  def vector(self, slots, slot, k):
    """Returns a vector of channels, in 32 bits."""
    return gpu.load(slots.at[slot, k], gpu.CHANNELS).astype(jnp.float32)

  def step(self, slots, slot, i, k):
    """Returns the steps of token k of the i-th tile; past the end 0, which leaves the state alone."""
    dt = self.vector(slots, slot, k)
    if not self.tiling.softplus:
      return dt  # the copy engine reads zeros there
    dt = fused.softplus(dt)
    return self.clear(self.first(i) + k >= self.tiling.t, dt) if self.tiling.filled else dt

  def skip(self, D):
    """Returns D in the block of the first part, which adds it for all, else 0."""
    D = gpu.load(D.at[self.group, self.cols], gpu.CHANNELS)
    return D if self.tiling.parts == self.tiling.held else self.clear(self.part > 0, D)

  def column(self, slots, slot, k, p):
    """Returns the p-th part of what all channels share."""
    return gpu.tall(gpu.load(slots.at[slot, k, pl.ds(p * self.tiling.part, self.tiling.part)], gpu.ENTRIES))

  def wide(self, z):
    return gpu.wide(z, self.tiling.part)

  def zeros(self):
    empty = jnp.zeros((self.tiling.part, gpu.LANES), jnp.float32)
    return [plgpu.layout_cast(empty, gpu.COLUMNS) for _ in self.held]

  def start(self, maps, h):
    """Returns the state before the segment."""
    h = self.states(h, self.row)
    if not maps:
      return h

    def one(s, h):
      decays, inflows = (self.states(z, self.row, s) for z in maps)
      return [decay * z + inflow for decay, z, inflow in zip(decays, h, inflows)]

    return lax.fori_loop(0, self.segment, one, h)

  def reset(self, word, k):
    """Returns whether token k of a tile starts a document; None if no token does."""
    return (lax.shift_right_logical(word, k) & 1) == 1 if self.words else None

  def clear(self, reset, z):
    """Sets z of any shape to 0 where `reset` is True; None: nowhere."""
    return z if reset is None else jnp.where(jnp.broadcast_to(reset, z.shape), 0.0, z)

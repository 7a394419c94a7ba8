"""How `ssd` on GPUs divides its arrays, and the products of matrices that its kernels are made of."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from kernels import _compat, chunks, decays, gpu

EIGHT = 8  # rows that the copy engine takes together
SIDE = 64  # of all square matrices: tokens of a chunk, channels of a block, entries of a part of the state

# Matrices of SIDE rows as tensor cores give them; vectors of rows, and of columns.
MATRIX = plgpu.Layout.WGMMA
ROWS, COLUMNS = MATRIX.reduce(1), MATRIX.reduce(0)


class Tiling:
  """A block has SIDE channels of one head of one row; entries and channels are filled up to multiples of SIDE."""

  def __init__(self, k, v):
    self.b, self.t, self.g, self.entries = k.shape
    self.h, self.channels = v.shape[2:]
    self.k, self.p = (chunks.up(size, SIDE) for size in (self.entries, self.channels))
    self.rows = chunks.up(self.t, EIGHT)
    self.blocks = self.p // SIDE  # of a head
    self.parts = range(self.k // SIDE)
    needed = pl.cdiv(self.t, SIDE)
    self.segments = gpu.segments(self.b * self.h * self.blocks, needed)
    self.each = pl.cdiv(needed, self.segments)
    self.chunks = self.segments * self.each  # those past the end are empty

  def grid(self):
    return {"e": self.h * self.blocks, "s": self.segments, "b": self.b}

  def by_segment(self):
    return self.wide(self.segments, self.h, self.k, self.p)

  def narrow(self, *shape):
    return jax.ShapeDtypeStruct((self.b, *shape), jnp.bfloat16)

  def wide(self, *shape):
    return jax.ShapeDtypeStruct((self.b, *shape), jnp.float32)

  def sums(self, count):
    return plgpu.SMEM((count, 2, SIDE), jnp.float32)

  def tokens_of(self, z):
    """Lays out tokens for tensor cores, whose number is filled up as well."""
    z = jnp.pad(z.astype(jnp.bfloat16), [(0, 0), (0, self.rows - self.t), (0, 0), (0, 0)])
    return gpu.widen(z, SIDE)

  def tokens_from(self, z, size):
    return z[:, : self.t, :, :size]

  def states_of(self, S):
    fill = [(0, to - size) for to, size in zip((self.k, self.p), S.shape[2:])]
    return jnp.pad(S, [(0, 0), (0, 0), *fill])

  def states_from(self, S):
    return S[:, :, : self.entries, : self.channels]

  def sums_of(self, log_a: Float[Array, "b t h"]) -> Float[Array, "b h chunks 2 c"]:
    """Returns running sums of a chunk's log decays, as `decays.running_sums` has them; the filling has the decay 1."""
    log_a = jnp.pad(log_a, ((0, 0), (0, self.chunks * SIDE - self.t), (0, 0)))
    log_a = log_a.reshape(self.b, self.chunks, SIDE, self.h).transpose(0, 3, 1, 2)
    return jnp.stack(decays.running_sums(log_a, axis=3), axis=3)

  def entering(self, S, inflows, sums, *, back):
    """Returns the states before all segments, in the scan's order, from the first and the others' maps S -> P S + E.

    Args:
      S: "b h k p".
      inflows: E of all segments but the last; none if there is one alone.
    """
    S = self.states_of(S)
    if self.segments == 1:
      return S[:, None]
    passed = sums[..., -1].sum(3).reshape(self.b, self.h, self.segments, self.each).sum(3)
    passed = jnp.exp(passed[..., ::-1] if back else passed)[..., :-1, None, None]
    maps = jnp.moveaxis(passed, 2, 0), inflows.swapaxes(0, 1)

    def fold(S, one):
      P, E = one
      after = P * S + E
      return after, after

    return jnp.concatenate([S[None], lax.scan(fold, S, maps)[1]]).swapaxes(0, 1)

  def sums_from(self, log_a_bar):
    """Sums the blocks' parts of the cotangents of log decays: "b (h blocks) chunks tokens" -> "b t h"."""
    z = log_a_bar.reshape(self.b, self.h, self.blocks, -1).sum(2)
    return z[..., : self.t].swapaxes(1, 2)

  def add_up(self, z):
    """Sums the cotangents that the blocks have for q or k over each group: "b rows (g n) k" -> "b t g k"."""
    z = z[:, : self.t].reshape(self.b, self.t, self.g, -1, self.k)
    return z.sum(3, dtype=jnp.float32).astype(z.dtype)[..., : self.entries]


class Block:
  """One block of the grid: its row, its head and the group of that, its channels; `back`, from the last chunk."""

  def __init__(self, tiling: Tiling, *, back: bool):
    self.tiling, self.back = tiling, back
    self.row, self.segment, self.number = (lax.axis_index(axis) for axis in "bse")
    self.head = lax.div(self.number, tiling.blocks)
    self.group = lax.div(self.head, tiling.h // tiling.g)
    self.channels = part(lax.rem(self.number, tiling.blocks))

  def chunk(self, i):
    i = self.segment * self.tiling.each + i
    return self.tiling.chunks - 1 - i if self.back else i

  def by_token(self, i):
    """Returns the index of the block's i-th chunk in q and k."""
    return self.row, part(self.chunk(i)), self.group

  def by_head(self, i):
    """Returns the index of the block's i-th chunk in v and y."""
    return self.row, part(self.chunk(i)), self.head, self.channels

  def by_block(self, i):
    """Returns the index of the block's i-th chunk in the cotangents of q and k, of which each block has its own."""
    return self.row, part(self.chunk(i)), self.number

  def by_chunk(self, i):
    """Returns the index of the block's i-th chunk in the states."""
    return self.row, self.head, self.chunk(i), slice(None), self.channels

  def fetch(self, i, slot, barrier, tokens, heads, sums):
    """Starts copies of the i-th chunk: pairs of a ref and its slots, and where the sums go twice."""
    for ref, slots in tokens:
      plgpu.copy_gmem_to_smem(ref.at[self.by_token(i)], slots.at[slot], barrier)
    for ref, slots in heads:
      plgpu.copy_gmem_to_smem(ref.at[self.by_head(i)], slots.at[slot], barrier)
    ref, *copies = sums
    for slots in copies:
      plgpu.copy_gmem_to_smem(ref.at[self.row, self.head, self.chunk(i)], slots.at[slot], barrier)

  def states(self, ref):
    return [gpu.load(ref.at[*self._state(n)], MATRIX) for n in self.tiling.parts]

  def write(self, ref, S):
    for n, z in enumerate(S):
      ref[self._state(n)] = z

  def _state(self, n):
    """Returns where the n-th part is of the state that a segment begins or ends with."""
    return self.row, self.segment, self.head, part(n), self.channels


class Decays:
  """Products of the decays of one chunk, in all columns of a matrix, from its sums."""

  def __init__(self, sums):
    self.high, self.low = (gpu.load(sums.at[n], ROWS) for n in range(2))
    self.ends = [jnp.broadcast_to(sums[n, SIDE - 1], (SIDE,)) for n in range(2)]

  def enter(self):
    """Returns the decays from the state before the chunk to each token."""
    return spread(jnp.exp(self.high + self.low), 0)

  def leave(self):
    """Returns the decays from each token to the state after the chunk."""
    return spread(jnp.exp((self.ends[0] - self.high) + (self.ends[1] - self.low)), 0)

  def across(self):
    """Returns the decay of the whole chunk, from the state before it to the state after it."""
    return spread(jnp.exp(self.ends[0] + self.ends[1]), 0)

  def inside(self, sums):
    """After token j, up to and with token i, for j <= i; from a copy, as a memory is read in one layout alone."""
    high, low = (gpu.load(sums.at[n], COLUMNS) for n in range(2))
    between = (spread(self.high, 0) - spread(high, 1)) + (spread(self.low, 0) - spread(low, 1))
    return jnp.where(past(), jnp.exp(between), 0.0)


def part(n):
  return pl.ds(n * SIDE, SIDE)


def index(axis):
  return plgpu.layout_cast(lax.broadcasted_iota(jnp.int32, (SIDE, SIDE), axis), MATRIX)


def past():
  """Returns whether a column is a token that the row has seen."""
  return index(0) >= index(1)


def spread(z, axis):
  """Returns a vector along an axis of a matrix, the same in all places of the other."""
  return plgpu.layout_cast(lax.broadcast_in_dim(z, (SIDE, SIDE), (axis,)), MATRIX)


def shared(*shape):
  """Returns shared memory for matrices that tensor cores read: rows of 128 bytes, in the order that they want."""
  transforms = plgpu.TilingTransform((EIGHT, SIDE)), plgpu.SwizzleTransform(2 * SIDE)
  return plgpu.SMEM(shape, jnp.bfloat16, transforms=transforms)


def turned(ref):
  return _compat.transposed(ref)


def product(x, y):
  """Multiplies two refs of shared memory with sums in float32; all threads hold the result when it returns."""

  def run(total):
    plgpu.wgmma(total, x, y)
    return total[...]

  return pl.run_scoped(run, plgpu.ACC((x.shape[0], y.shape[1]), jnp.float32))


def narrow(z):
  return z.astype(jnp.bfloat16)


def zeros():
  return plgpu.layout_cast(jnp.zeros((SIDE, SIDE), jnp.float32), MATRIX)


def load(ref):
  """Returns a matrix of shared memory, in float32."""
  return gpu.load(ref, MATRIX).astype(jnp.float32)

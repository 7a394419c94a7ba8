"""The common parts of the Pallas kernels for GPUs: when they can run, and how they read a sequence tile after tile.

A block of theirs is one warpgroup, of which every thread has one channel: a vector of `LANES` channels is one register
of each. The copy engine (TMA) moves tiles of tokens between memories; what it reads past the end of an array is zero,
and what it would write there is dropped. None was ever run on a GPU.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Inexact, Int

from kernels import _compat, chunks, dispatch

LANES = 128  # threads of a warpgroup: channels of a block
STAGES = 3  # tiles that are on their way, or being read
MULTIPROCESSORS = 132  # of an H100 or H200
WORD = 32  # tokens whose bits are one number
TOGETHER = 4  # tokens whose instructions can be mixed

# Arrays "n e" of which every thread has the column of its channel, n registers, n being even; vectors of channels, one
# register each; and vectors "n" that every thread has the whole of.
COLUMNS = plgpu.Layout.TILED(
  plgpu.Tiling(((2, LANES), (2, 32), (2, 1))), warp_dims=(-5,), lane_dims=(-3,), vector_dim=-1
)
CHANNELS, ENTRIES = COLUMNS.reduce(0), COLUMNS.reduce(1)

# The barriers that Pallas would set around each access to shared memory are not needed: `stream` has those that its
# copies want, two a tile, and a kernel whose threads read what others wrote has its own.
_PARAMS = plgpu.CompilerParams(
  lowering_semantics=plgpu.LoweringSemantics.Warpgroup, unsafe_no_auto_barriers=True, approx_math=False
)


def why_not(*arrays: Inexact[Array, "..."]) -> str | None:
  """Returns why our kernels for GPUs cannot run these arrays, or None."""
  if reason := dispatch.elsewhere("gpu"):
    return reason
  if (capability := compute_capability()) < 9:
    return f"it needs a GPU with a copy engine, of compute capability 9 or more; this one has {capability}"
  dtypes = {z.dtype for z in arrays} - {jnp.dtype(jnp.float32), jnp.dtype(jnp.complex64)}
  return f"it computes in 32 bits, not in {sorted(map(str, dtypes))}" if dtypes else None


def compute_capability() -> float:
  return float(jax.local_devices()[0].compute_capability)


def widen(z: Inexact[Array, "..."], multiple: int) -> Inexact[Array, "..."]:
  """Returns zeros after the last axis up to a multiple."""
  return jnp.pad(z, [(0, 0)] * (z.ndim - 1) + [(0, chunks.up(z.shape[-1], multiple) - z.shape[-1])])


def segments(programs: int, tiles: int) -> int:
  """Returns into how many parts to cut the time axis, so that there is a block for each multiprocessor.

  Every part but the first is read twice, so at least two must fit. More parts than 32 would wait for each other's
  summaries longer than they run, parts of less than four tiles would have nothing on its way.
  """
  most = max(1, min(MULTIPROCESSORS // programs, 32, tiles // 4))
  return pl.cdiv(tiles, pl.cdiv(tiles, most))


def words(reset: Bool[Array, "b t"], tokens: int, tiles: int) -> Int[Array, "b tiles"]:
  """Packs a mask into bits, the tokens of a tile in a word; tokens past the end start no document."""
  assert tokens <= WORD, f"a word has {WORD} bits, a tile {tokens} tokens"
  return chunks.words(reset, tokens, tiles * tokens)


def kernel(body, out, scratch, grid, name):
  """Calls `plgpu.kernel` with what is the same for all our kernels; `grid` maps names to sizes."""
  return plgpu.kernel(
    body,
    out_type=out,
    scratch_types=scratch,
    grid=tuple(grid.values()),
    grid_names=tuple(grid),
    compiler_params=_PARAMS,
    kernel_name=name,
  )


def kernel_in_place(body, out, grid, name, *scratch):
  """Does the same as `kernel`, but the first argument is a state, which comes back beside the results.

  `body` writes it where it read it. Who still needs the old one gets a copy made before, by XLA.
  """
  mesh = plgpu.Mesh(grid=tuple(grid.values()), grid_names=tuple(grid), kernel_name=name)
  scoped = lambda *refs: pl.run_scoped(functools.partial(body, *refs), *scratch)

  def run(state, *args):
    # `plgpu.kernel` refuses mutable arrays in JAX 0.10.2, what it is made of does not.
    ref = jax.new_ref(state)
    results = pl.kernel(scoped, out, mesh=mesh, compiler_params=_PARAMS, name=name)(ref, *args)
    return results, jax.freeze(ref)

  return run


def lanes(z):
  """Returns a vector of channels, one a thread."""
  return plgpu.layout_cast(z, plgpu.Layout.WG_STRIDED((LANES,), vec_size=1))


def load(ref, layout):
  return _compat.load(ref, layout)


def store(ref, z):
  _compat.store(ref, z)


def wide(z, n: int):
  """Returns a vector of channels in each of n rows."""
  return plgpu.layout_cast(lax.broadcast_in_dim(z, (n, LANES), (1,)), COLUMNS)


def tall(z):
  """Returns a vector of entries in the columns of all channels."""
  return plgpu.layout_cast(lax.broadcast_in_dim(z, (*z.shape, LANES), (0,)), COLUMNS)


def full(value: float):
  return lanes(jnp.full((LANES,), value, jnp.float32))


def mask(condition):
  """Returns a boolean for all channels alike."""
  return jnp.broadcast_to(condition, (LANES,))


def barriers(copies: int, stages: int = STAGES):
  """Returns a barrier for each slot of `stream`, into which `copies` arrays are read."""
  return plgpu.Barrier(num_arrivals=copies, num_barriers=stages)


def stream(tiles: int, ready, fetch, tile, put, carry, stages: int = STAGES):
  """carry = tile(i, slot, out, carry) for i = 0 … tiles - 1, with reading ahead and writing behind.

  Args:
    ready: the refs of `barriers`.
    fetch: fetch(i, slot, barrier) starts the copies of what tile i reads into shared memory.
    tile: reads the slot, writes to one of two places `out` for what leaves.
    put: put(i, out) starts the copies from there, as one group; None if nothing leaves.
    stages: slots there are.
  """
  for i in range(min(stages, tiles)):
    fetch(i, i, ready.at[i])

  def step(i, carry):
    slot, out = lax.rem(i, stages), lax.rem(i, 2)
    plgpu.barrier_wait(ready.at[slot])
    if put is not None:
      plgpu.wait_smem_to_gmem(1, wait_read_only=True)
    carry = tile(i, slot, out, carry)
    # After this all threads have read the slot, and the copy engine sees what they wrote.
    plgpu.commit_smem()
    if put is not None:
      put(i, out)

    @pl.when(i + stages < tiles)
    def _():
      fetch(i + stages, slot, ready.at[slot])

    return carry

  carry = lax.fori_loop(0, tiles, step, carry)
  if put is not None:
    plgpu.wait_smem_to_gmem(0)
  return carry


class Tiling:
  """How the blocks of a kernel divide rows, channels and time; `back`, from the last token to the first.

  Args:
    programs: blocks of the grid for the same rows, channels and tokens.
  """

  stages = STAGES

  def __init__(self, shape, tokens: int, reset, *, back: bool, programs: int = 1):
    (self.b, self.t, self.width), self.tokens, self.back = shape, tokens, back
    self.tiles = pl.cdiv(self.t, tokens)
    self.blocks = pl.cdiv(self.width, LANES)
    self.segments = segments(self.b * self.blocks * programs, self.tiles)
    self.each = pl.cdiv(self.tiles, self.segments)  # tiles of a segment
    self.words = () if reset is None else (words(reset, tokens, self.segments * self.each),)

  def grid(self):
    return {"e": self.blocks, "s": self.segments, "b": self.b}

  def maps(self, body, name, out, scratch, *args):
    """Returns the maps P and E of each segment but the last to be scanned, both of type `out`; none of a single one."""
    if self.segments == 1:
      return ()
    grid = {**self.grid(), "s": self.segments - 1}
    return kernel(functools.partial(body, self), (out, out), scratch, grid, name)(self.words, *args)

  def by_token(self):
    return jax.ShapeDtypeStruct((self.b, self.t, self.width), jnp.float32)

  def by_segment(self, *axes):
    """Returns a vector of channels for each segment of each row."""
    return jax.ShapeDtypeStruct((self.b, self.segments, *axes, self.blocks * LANES), jnp.float32)


class Block:
  """One block of the grid: its row, its segment in the order of the scan, its channels."""

  def __init__(self, tiling: Tiling, words):
    self.tiling, self.words = tiling, words
    self.row, self.segment = lax.axis_index("b"), lax.axis_index("s")
    self.cols = pl.ds(lax.axis_index("e") * LANES, LANES)

  def index(self, i):
    """Returns the i-th tile of the segment, counted from the start of the row; it may lie past the end."""
    i = self.segment * self.tiling.each + i
    return self.tiling.segments * self.tiling.each - 1 - i if self.tiling.back else i

  def first(self, i):
    return self.index(i) * self.tiling.tokens

  def at(self, i):
    """Returns where the i-th tile lies in an array by token."""
    return self.row, pl.ds(self.first(i), self.tiling.tokens), self.cols

  def to(self, i):
    """Returns where it lies in what leaves."""
    return self.at(i)

  def fetch(self, i, slot, barrier, *arrays):
    """Starts copies of the i-th tile: `arrays` are pairs of a ref and its slots."""
    for ref, slots in arrays:
      plgpu.copy_gmem_to_smem(ref.at[self.at(i)], slots.at[slot], barrier)

  def put(self, i, out, *arrays):
    """Starts copies to the i-th tile, as one group: `arrays` are pairs of slots and the ref they go to."""
    for n, (slots, ref) in enumerate(arrays):
      plgpu.copy_smem_to_gmem(slots.at[out], ref.at[self.to(i)], commit_group=n == len(arrays) - 1)

  def word(self, i):
    """Returns the bits of the i-th tile, which say where documents start."""
    last = self.tiling.segments * self.tiling.each - 1
    return self.words[0][self.row, jnp.clip(self.index(i), 0, last)] if self.words else jnp.int32(0)

  def masks(self, word, i, k):
    """Returns whether token k of a tile starts a document, None: none does; `back`, whether it is not past the end."""
    reset = mask((lax.shift_right_logical(word, k) & 1) == 1) if self.words else None
    return reset, mask(self.first(i) + k < self.tiling.t) if self.tiling.back else None

  def order(self, k):
    """Returns the k-th token of a tile to be scanned."""
    return self.tiling.tokens - 1 - k if self.tiling.back else k

  def tiles(self, ready, fetch, tile, put, carry):
    """carry = tile(i, slot, out, word, carry) for the tiles of the segment; see `stream`."""

    def with_word(i, slot, out, carry):
      # A word is read a tile ahead, to be there in time.
      *carry, word = carry
      ahead = self.word(i + 1)
      return *tile(i, slot, out, word, tuple(carry)), ahead

    carry = *carry, self.word(0)
    return stream(self.tiling.each, ready, fetch, with_word, put, carry, self.tiling.stages)[:-1]

  def scan(self, ready, fetch, token, put, carry):
    """carry = token(slot, out, k, masks, carry) for the tokens k of all tiles, in the order of the scan."""

    def tile(i, slot, out, word, carry):
      def group(j, carry):
        for k in range(TOGETHER):
          k = self.order(j * TOGETHER + k)
          carry = token(slot, out, k, self.masks(word, i, k), carry)
        return carry

      return lax.fori_loop(0, self.tiling.tokens // TOGETHER, group, carry)

    return self.tiles(ready, fetch, tile, put, carry)


def choose(condition, value, other):
  """Returns `value` where the condition holds, else `other`; None: it holds everywhere."""
  return value if condition is None else jnp.where(condition, value, other)

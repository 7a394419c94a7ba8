"""`selective_scan` on GPUs: the states in registers, one pass over memory. Never run on a GPU; its speed is unmeasured.

A block has 128 channels of one group of one row, one a thread, and goes through time in tiles that the copy engine
brings ahead. A state is a matrix with channels in columns, so the sum over its entries stays within a thread. Where
rows and channels make too few blocks, time is cut into segments, whose maps h -> P h + E a first kernel finds. For the
gradient the states entering the tiles are kept; those of a tile are made again, a few tokens at a time, in registers.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float32

from kernels import dispatch, gpu
from kernels.selective_scan import gpu_tiling
from kernels.selective_scan.discretize import not_real_euler
from kernels.selective_scan.gpu_tiling import Block, Tiling

MOST = 64  # entries of a state in registers


def why_not(h, disc) -> str | None:
  """What it does not know, before what `gpu.why_not` says."""
  if reason := not_real_euler(h, disc):
    return reason
  if h.shape[2] > MOST:
    return f"a state has {h.shape[2]} entries, and registers hold {MOST} at most"
  return gpu.why_not(h)


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


class _Token(NamedTuple):
  """Of one token, made again: vectors of channels, and matrices."""

  x: Float32[Array, "e"]
  dt: Float32[Array, "e"]
  B: Float32[Array, "n e"]
  kept: Bool[Array, ""] | None
  decay: Float32[Array, "n e"]
  before: Float32[Array, "n e"]  # the state that it finds
  after: Float32[Array, "n e"]


def _maps(tiling, A, dt, inflow, column):
  """P and E of each segment but the last to be scanned; what flows in is `column` times x dt, or `back` times y_bar."""
  if tiling.segments == 1:
    return ()
  out = tiling.by_segment(tiling.n)
  kernel = gpu.kernel(
    functools.partial(_map_kernel, tiling),
    (out, out),
    (tiling.slots(), tiling.slots(), tiling.columns(), gpu.barriers(3)),
    {**tiling.grid(), "s": tiling.segments - 1},
    "selective_scan_maps",
  )
  return kernel(tiling.words, A, dt, inflow, column)


def _map_kernel(tiling, words, A, dt, x, B, decays, inflows, dt_in, x_in, B_in, ready):
  block = Block(tiling, words)
  A = block.states(A, block.group)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (dt, dt_in), (x, x_in))
    block.fetch_columns(i, slot, barrier, (B, B_in))

  def tile(i, slot, out, word, carry):
    del i, out

    def token(k, carry):
      k = block.order(k)
      (h, passed, time), kept = carry, block.kept(word, k)
      dt_t, x_t = block.vector(dt_in, slot, k), block.vector(x_in, slot, k)
      inflow = block.wide(x_t if tiling.back else dt_t * x_t)
      after = []
      for p in block.held:
        decay, flow = jnp.exp2(block.wide(dt_t) * A[p]), inflow * block.column(B_in, slot, k, p)
        after.append(
          block.clear(kept, decay * (h[p] + flow)) if tiling.back else decay * block.clear(kept, h[p]) + flow
        )
      return after, block.clear(kept, passed), time + dt_t

    return lax.fori_loop(0, tiling.tokens, token, carry)

  vector = lambda value: plgpu.layout_cast(jnp.full((gpu.LANES,), value, jnp.float32), gpu.CHANNELS)
  h, passed, time = block.tiles(ready, fetch, tile, None, (block.zeros(), vector(1.0), vector(0.0)))
  at = block.row, block.segment
  block.write(inflows, at, h)
  passed = [jnp.where(block.wide(passed) > 0, jnp.exp2(block.wide(time) * A[p]), 0.0) for p in block.held]
  block.write(decays, at, passed)


@jax.custom_vjp
def _scan(x, dt, A, B, C, h, keep):
  return _run(x, dt, A, B, C, h, keep, save=False)[:2]


def _forward(x, dt, A, B, C, h, keep):
  y, last, entering = _run(x, dt, A, B, C, h, keep, save=True)
  return (y, last), (x, dt, A, B, C, keep, entering)


def _run(x, dt, A, B, C, h, keep, *, save):
  """All y, the last state, and if `save` those entering the tiles."""
  tiling = Tiling(x, B, keep, back=False)
  x, dt, B, C = tiling.tokens_of(x), tiling.tokens_of(dt), tiling.columns_of(B), tiling.columns_of(C)
  A = tiling.decays_of(A)
  y, last, *entering = gpu.kernel(
    functools.partial(_forward_kernel, tiling),
    (tiling.by_token(), tiling.by_segment(tiling.n), *((tiling.by_tile(),) if save else ())),
    (tiling.slots(), tiling.slots(), tiling.columns(), tiling.columns(), tiling.slots(2), gpu.barriers(4)),
    tiling.grid(),
    "selective_scan",
  )(tiling.words, _maps(tiling, A, dt, x, B), A, x, dt, B, C, tiling.states_of(h))
  return tiling.tokens_from(y), tiling.states_from(last[:, -1]), *entering


def _forward_kernel(tiling, words, maps, A, x, dt, B, C, h, y, last, *entering_and_scratch):
  *entering, x_in, dt_in, B_in, C_in, y_out, ready = entering_and_scratch
  block = Block(tiling, words)
  A = block.states(A, block.group)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (x, x_in), (dt, dt_in))
    block.fetch_columns(i, slot, barrier, (B, B_in), (C, C_in))

  def tile(i, slot, out, word, carry):
    (h,) = carry
    for ref in entering:
      block.write(ref, (block.row, block.index(i)), h)

    def token(k, h):
      kept, dt_t = block.kept(word, k), block.vector(dt_in, slot, k)
      inflow, after, y_t = block.wide(dt_t * block.vector(x_in, slot, k)), [], None
      for p in block.held:
        decay = jnp.exp2(block.wide(dt_t) * A[p])
        after.append(decay * block.clear(kept, h[p]) + inflow * block.column(B_in, slot, k, p))
        read = (after[p] * block.column(C_in, slot, k, p)).sum(0)
        y_t = read if y_t is None else y_t + read
      y_out[out, k] = y_t
      return after

    group = lambda j, h: functools.reduce(lambda h, k: token(j * gpu.TOGETHER + k, h), range(gpu.TOGETHER), h)
    return (lax.fori_loop(0, tiling.tokens // gpu.TOGETHER, group, h),)

  (h,) = block.tiles(ready, fetch, tile, lambda i, out: block.put(i, out, (y_out, y)), (block.start(maps, h),))
  block.write(last, (block.row, block.segment), h)


def _backward(saved, cotangents):
  x, dt, A, B, C, keep, entering = saved
  y_bar, last_bar = cotangents
  tiling = Tiling(x, B, keep, back=True)
  x, dt, y_bar = (tiling.tokens_of(z) for z in (x, dt, y_bar))
  B, C = tiling.columns_of(B), tiling.columns_of(C)
  A = tiling.decays_of(A)
  states, slots = plgpu.SMEM((gpu.STAGES, tiling.part, gpu.LANES), jnp.float32), tiling.slots()
  x_bar, dt_bar, A_bar, sums, h_bar = gpu.kernel(
    functools.partial(_backward_kernel, tiling),
    (tiling.by_token(), tiling.by_token(), tiling.by_segment(tiling.n), tiling.sums(), tiling.by_segment(tiling.n)),
    (
      *(slots, slots, slots, tiling.columns(), tiling.columns(), states),
      *(plgpu.SMEM((tiling.tokens // (2 * tiling.summed), tiling.part, gpu.LANES), jnp.float32),),
      *(plgpu.SMEM((gpu_tiling.ROWS, gpu.LANES), jnp.float32), tiling.slots(2), tiling.slots(2), gpu.barriers(6)),
    ),
    tiling.grid(),
    "selective_scan_backward",
  )(tiling.words, _maps(tiling, A, dt, y_bar, C), A, x, dt, B, C, entering, y_bar, tiling.states_of(last_bar))
  B_bar, C_bar = tiling.columns_from(sums)
  # of one group of the batch after the other
  A_bar = tiling.states_from(A_bar.sum(1)).sum(0)
  return *map(tiling.tokens_from, (x_bar, dt_bar)), A_bar, B_bar, C_bar, tiling.states_from(h_bar[:, -1]), None


def _backward_kernel(tiling, words, maps, A, x, dt, B, C, entering, y_bar, last_bar, *out_and_scratch):
  x_bar, dt_bar, A_bar, sums, h_bar, *by_token, states_in, marks, rows, x_out, dt_out, ready = out_and_scratch
  x_in, dt_in, y_bar_in, B_in, C_in = by_token
  block, again = Block(tiling, words), 2 * tiling.summed
  (A,) = block.states(A, block.group)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (x, x_in), (dt, dt_in), (y_bar, y_bar_in))
    block.fetch_columns(i, slot, barrier, (B, B_in), (C, C_in))
    index = jnp.minimum(block.index(i), tiling.tiles - 1)
    plgpu.copy_gmem_to_smem(entering.at[block.row, index, block.entries(0), block.cols], states_in.at[slot], barrier)

  def tile(i, slot, out, word, carry):
    def make(k, h):
      """The token after the state h."""
      x_t, dt_t, B_t, kept = (
        block.vector(x_in, slot, k),
        block.vector(dt_in, slot, k),
        block.column(B_in, slot, k, 0),
        block.kept(word, k),
      )
      before, decay = block.clear(kept, h), jnp.exp2(block.wide(dt_t) * A)
      return _Token(x_t, dt_t, B_t, kept, decay, before, decay * before + block.wide(dt_t * x_t) * B_t)

    def mark(j, h):
      # No barrier before it is read: a thread reads the columns that it wrote.
      marks[j] = h
      for k in range(again):
        h = make(j * again + k, h).after
      return h

    def leave(j, carry):
      j, made = tiling.tokens // again - 1 - j, []
      h = gpu.load(marks.at[j], gpu.COLUMNS)
      for k in range(again):
        made.append(make(j * again + k, h))
        h = made[-1].after
      for k in reversed(range(again)):
        place = j * again + k
        read = block.vector(y_bar_in, slot, place), block.column(C_in, slot, place, 0)
        carry, bars, columns = _adjoint(block, A, made[k], *read, carry)
        x_out[out, place], dt_out[out, place] = bars
        for n, z in enumerate(columns):
          rows[pl.ds((2 * (k % tiling.summed) + n) * tiling.part, tiling.part)] = z
        if k % tiling.summed == 0:
          # All have written before one reads what others wrote, and read before one writes again.
          plgpu.commit_smem()
          index = lax.div(block.first(i) + place, tiling.summed)
          sums[block.row, lax.axis_index("e"), block.part, index] = gpu.load(rows, plgpu.Layout.WGMMA).sum(1)
          plgpu.commit_smem()
      return carry

    lax.fori_loop(0, tiling.tokens // again, mark, gpu.load(states_in.at[slot], gpu.COLUMNS))
    return lax.fori_loop(0, tiling.tokens // again, leave, carry)

  put = lambda i, out: block.put(i, out, (x_out, x_bar), (dt_out, dt_bar))
  (start,) = block.start(maps, last_bar)
  s, total = block.tiles(ready, fetch, tile, put, (start, *block.zeros()))
  block.write(h_bar, (block.row, block.segment), [s])
  block.write(A_bar, (block.row, block.segment), [total])


def _adjoint(block, A, token, y_bar, C, carry):
  """One token back: what flows to the state before it, those of x and dt, and by channel those of B and C."""
  s, A_bar = carry
  h_bar = s + block.wide(y_bar) * C
  before_bar = token.decay * h_bar
  exponent_bar = before_bar * token.before
  inflow_bar = (h_bar * token.B).sum(0)
  dt_bar = (exponent_bar * A).sum(0) * math.log(2) + inflow_bar * token.x
  columns = h_bar * block.wide(token.dt * token.x), token.after * block.wide(y_bar)
  carry = block.clear(token.kept, before_bar), A_bar + exponent_bar * block.wide(token.dt)
  return carry, (inflow_bar * token.dt, dt_bar), columns


_scan.defvjp(_forward, _backward)

"""`selective_scan` on GPUs: the states in registers, one pass over memory. Never run on a GPU; its speed is unmeasured.

A block has 128 channels of one group of one row, one a thread, and goes through time in tiles that the copy engine
brings ahead. A state is a matrix with channels in columns, so the sum over its entries stays within a thread. Where
rows and channels make too few blocks, time is cut into segments, whose maps h -> P h + E a first kernel finds. For the
gradient the states entering the tiles are kept; those of a tile are made again, a few tokens at a time, in registers.
Tokens are cast to 32 bits as they are read from a tile; softplus, skip and gate are made of their vectors.
"""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float32, Int

from kernels import dispatch, gpu, kept_states
from kernels.selective_scan import fused, gpu_tiling
from kernels.selective_scan.gpu_tiling import Block, Tiling

MOST = 64  # entries of a state in registers


def why_not(x, dt, A, B, C, h, D, z, reset, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, after the reasons of `gpu.why_not`."""
  if reason := gpu.why_not(h) or fused.not_known(x, dt, h, z, disc):
    return reason
  return f"a state has {h.shape[2]} entries, and registers hold {MOST} at most" if h.shape[2] > MOST else None


def selective_scan(x, dt, A, B, C, h, D, z, reset, softplus, disc):
  """Computes `around.around`; y has the dtype of x."""
  run, backward = (functools.partial(form, softplus) for form in (_run, _backward))
  scan = kept_states.differentiable(run, backward, state=5)
  return dispatch.shard(scan, fused.AXES, ("b t e", "b e n"))(x, dt, A, B, C, h, D, z, reset)


class _Token(NamedTuple):
  """The vectors and matrices of one token, computed again in the backward pass."""

  x: Float32[Array, "e"]
  dt: Float32[Array, "e"]
  B: Float32[Array, "n e"]
  reset: Bool[Array, ""] | None
  decay: Float32[Array, "n e"]
  before: Float32[Array, "n e"]  # the state that it finds
  after: Float32[Array, "n e"]


class _Tile(NamedTuple):
  """A tile whose states backward makes again."""

  block: Block
  A: Float32[Array, "n e"]
  slots: tuple[Any, ...]  # of x, dt, y_bar, B, C, and z if there is one
  i: Int[Array, ""]
  slot: Int[Array, ""]
  word: Int[Array, ""]

  def vector(self, slots, k):
    return self.block.vector(slots, self.slot, k)

  def token(self, k, h) -> _Token:
    """Returns the token after the state h."""
    x, dt, _, B, *_ = self.slots
    x_t, dt_t, reset = self.vector(x, k), self.block.step(dt, self.slot, self.i, k), self.block.reset(self.word, k)
    B_t, wide = self.block.column(B, self.slot, k, 0), self.block.wide
    before, decay = self.block.clear(reset, h), jnp.exp2(wide(dt_t) * self.A)
    return _Token(x_t, dt_t, B_t, reset, decay, before, decay * before + wide(dt_t * x_t) * B_t)


def _maps(tiling, A, dt, inflow, column, gate=()):
  """Returns the maps of all segments but the last; what flows in is `column` times x dt, or `back` times y_bar.

  Args:
    gate: of z, by whose SiLU y_bar is multiplied.
  """
  scratch = (
    *(tiling.slots(dt), tiling.slots(inflow), tiling.columns(), gpu.barriers(3 + len(gate), tiling.stages)),
    *map(tiling.slots, gate),
  )
  out = tiling.by_segment(tiling.n)
  return tiling.maps(_map_kernel, "selective_scan_maps", out, scratch, A, dt, inflow, column, gate)


def _map_kernel(tiling, words, A, dt, x, B, z, decays, inflows, dt_in, x_in, B_in, ready, *z_in):
  block = Block(tiling, words)
  A = block.states(A, block.group)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (dt, dt_in), (x, x_in), *zip(z, z_in))
    block.fetch_columns(i, slot, barrier, (B, B_in))

  def tile(i, slot, out, word, carry):

    def token(k, carry):
      k = block.order(k)
      (h, passed, time), reset = carry, block.reset(word, k)
      dt_t, x_t = block.step(dt_in, slot, i, k), block.vector(x_in, slot, k)
      for ref in z_in:
        x_t *= fused.silu(block.vector(ref, slot, k))
      inflow = block.wide(x_t if tiling.back else dt_t * x_t)
      after = []
      for p in block.held:
        decay, flow = jnp.exp2(block.wide(dt_t) * A[p]), inflow * block.column(B_in, slot, k, p)
        after.append(
          block.clear(reset, decay * (h[p] + flow)) if tiling.back else decay * block.clear(reset, h[p]) + flow
        )
      return after, block.clear(reset, passed), time + dt_t

    return lax.fori_loop(0, tiling.tokens, token, carry)

  vector = lambda value: plgpu.layout_cast(jnp.full((gpu.LANES,), value, jnp.float32), gpu.CHANNELS)
  h, passed, time = block.tiles(ready, fetch, tile, None, (block.zeros(), vector(1.0), vector(0.0)))
  at = block.row, block.segment
  block.write(inflows, at, h)
  passed = [jnp.where(block.wide(passed) > 0, jnp.exp2(block.wide(time) * A[p]), 0.0) for p in block.held]
  block.write(decays, at, passed)


def _laid_out(tiling, x, dt, A, B, C, D, z):
  """Lays out all arrays; D and z in tuples, which are empty without them."""
  skip, gate = (() if m is None else (m,) for m in (D, z))
  return (
    *(tiling.tokens_of(x), tiling.tokens_of(dt), tiling.decays_of(A), tiling.columns_of(B), tiling.columns_of(C)),
    *(tuple(map(tiling.channels_of, skip)), tuple(map(tiling.tokens_of, gate))),
  )


def _run(softplus, x, dt, A, B, C, h, D, z, reset, *, save):
  """Returns all y, the last state, and if `save` the states before each tile."""
  tiling = Tiling(x, B, reset, softplus=softplus, gated=z is not None, back=False)
  x, dt, A, B, C, D, z = _laid_out(tiling, x, dt, A, B, C, D, z)
  y, last, *entering = gpu.kernel(
    functools.partial(_forward_kernel, tiling),
    (tiling.by_token(x), tiling.by_segment(tiling.n), *((tiling.by_tile(),) if save else ())),
    (
      *(tiling.slots(x), tiling.slots(dt), tiling.columns(), tiling.columns(), tiling.leaving(x)),
      *(gpu.barriers(4 + len(z)), *map(tiling.slots, z)),
    ),
    tiling.grid(),
    "selective_scan",
  )(tiling.words, _maps(tiling, A, dt, x, B), A, x, dt, B, C, D, z, tiling.states_of(h))
  return tiling.tokens_from(y, x), tiling.states_from(last[:, -1]), *entering


def _forward_kernel(tiling, words, maps, A, x, dt, B, C, D, z, h, y, last, *entering_and_scratch):
  entering, scratch = entering_and_scratch[: -6 - len(z)], entering_and_scratch[-6 - len(z) :]
  x_in, dt_in, B_in, C_in, y_out, ready, *z_in = scratch
  block = Block(tiling, words)
  A, D = block.states(A, block.group), [block.skip(ref) for ref in D]

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (x, x_in), (dt, dt_in), *zip(z, z_in))
    block.fetch_columns(i, slot, barrier, (B, B_in), (C, C_in))

  def tile(i, slot, out, word, carry):
    (h,) = carry
    for ref in entering:
      block.write(ref, (block.row, block.index(i)), h)

    def token(k, h):
      reset, x_t, dt_t = block.reset(word, k), block.vector(x_in, slot, k), block.step(dt_in, slot, i, k)
      inflow, after, y_t = block.wide(dt_t * x_t), [], None
      for p in block.held:
        decay = jnp.exp2(block.wide(dt_t) * A[p])
        after.append(decay * block.clear(reset, h[p]) + inflow * block.column(B_in, slot, k, p))
        read = (after[p] * block.column(C_in, slot, k, p)).sum(0)
        y_t = read if y_t is None else y_t + read
      for skip in D:
        y_t += skip * x_t
      for ref in z_in:
        y_t *= fused.silu(block.vector(ref, slot, k))
      y_out[out, k] = y_t.astype(y_out.dtype)
      return after

    group = lambda j, h: functools.reduce(lambda h, k: token(j * gpu.TOGETHER + k, h), range(gpu.TOGETHER), h)
    return (lax.fori_loop(0, tiling.tokens // gpu.TOGETHER, group, h),)

  (h,) = block.tiles(ready, fetch, tile, lambda i, out: block.put(i, out, (y_out, y)), (block.start(maps, h),))
  block.write(last, (block.row, block.segment), h)


def _backward(softplus, x, dt, A, B, C, D, z, reset, entering, y_bar, last_bar):
  inputs = x, dt, A, B, C, D, z
  tiling = Tiling(x, B, reset, softplus=softplus, gated=z is not None, back=True)
  y_bar = tiling.tokens_of(y_bar)
  x, dt, A, B, C, D, z = _laid_out(tiling, *inputs)
  states = plgpu.SMEM((tiling.stages, tiling.part, gpu.LANES), jnp.float32)
  x_bar, dt_bar, A_bar, sums, h_bar, *rest = gpu.kernel(
    functools.partial(_backward_kernel, tiling),
    (
      *(tiling.by_token(x), tiling.by_token(dt), tiling.by_segment(tiling.n), tiling.sums()),
      *(tiling.by_segment(tiling.n), *(tiling.by_part() for _ in D), *map(tiling.by_token, z)),
    ),
    (
      *(tiling.slots(x), tiling.slots(dt), tiling.slots(y_bar), tiling.columns(), tiling.columns(), states),
      *(plgpu.SMEM((tiling.tokens // (2 * tiling.summed), tiling.part, gpu.LANES), jnp.float32),),
      *(plgpu.SMEM((gpu_tiling.ROWS, gpu.LANES), jnp.float32), tiling.leaving(x), tiling.leaving(dt)),
      *(gpu.barriers(6 + len(z), tiling.stages), *map(tiling.slots, z), *map(tiling.leaving, z)),
    ),
    tiling.grid(),
    "selective_scan_backward",
  )(tiling.words, _maps(tiling, A, dt, y_bar, C, z), A, x, dt, B, C, D, z, entering, y_bar, tiling.states_of(last_bar))
  D_bar, z_bar = rest[: len(D)], rest[len(D) :]
  B_bar, C_bar = tiling.columns_from(sums)
  # of one group of the batch after the other
  A_bar = tiling.states_from(A_bar.sum(1)).sum(0)
  return (
    *(tiling.tokens_from(x_bar, x), tiling.tokens_from(dt_bar, dt), A_bar, B_bar, C_bar),
    *(tiling.states_from(h_bar[:, -1]), tiling.channels_from(D_bar[0]) if D else None),
    *(tiling.tokens_from(z_bar[0], z[0]) if z else None, None),
  )


def _backward_kernel(tiling, words, maps, A, x, dt, B, C, D, z, entering, y_bar, last_bar, *out_and_scratch):
  x_bar, dt_bar, A_bar, sums, h_bar, *rest = out_and_scratch
  D_bar, z_bar, rest = rest[: len(D)], rest[len(D) : len(D) + len(z)], rest[len(D) + len(z) :]
  x_in, dt_in, y_bar_in, B_in, C_in, states_in, marks, rows, x_out, dt_out, ready, *gate = rest
  z_in, z_out = gate[: len(z)], gate[len(z) :]
  block, again = Block(tiling, words), 2 * tiling.summed
  (A,), D = block.states(A, block.group), [block.skip(ref) for ref in D]

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, (x, x_in), (dt, dt_in), (y_bar, y_bar_in), *zip(z, z_in))
    block.fetch_columns(i, slot, barrier, (B, B_in), (C, C_in))
    index = jnp.minimum(block.index(i), tiling.tiles - 1)
    plgpu.copy_gmem_to_smem(entering.at[block.row, index, block.entries(0), block.cols], states_in.at[slot], barrier)

  def tile(i, slot, out, word, carry):
    tile = _Tile(block, A, (x_in, dt_in, y_bar_in, B_in, C_in, *z_in), i, slot, word)

    def mark(j, h):
      # No barrier before it is read: a thread reads the columns that it wrote.
      marks[j] = h
      for k in range(again):
        h = tile.token(j * again + k, h).after
      return h

    def leave(j, carry):
      j = tiling.tokens // again - 1 - j
      states = [gpu.load(marks.at[j], gpu.COLUMNS)]
      for k in range(again - 1):
        states.append(tile.token(j * again + k, states[-1]).after)
      for k in reversed(range(again)):
        token = j * again + k
        # Made once more: registers hold the states of these tokens, but not their decays, too.
        carry, leaving, columns = _leave(tile, D, token, tile.token(token, states[k]), carry)
        for slots, m in zip((x_out, dt_out, *z_out), leaving):
          slots[out, token] = m.astype(slots.dtype)
        for n, m in enumerate(columns):
          rows[pl.ds((2 * (k % tiling.summed) + n) * tiling.part, tiling.part)] = m
        if k % tiling.summed == 0:
          # All have written before one reads what others wrote, and read before one writes again.
          plgpu.commit_smem()
          index = lax.div(block.first(i) + token, tiling.summed)
          sums[block.row, lax.axis_index("e"), block.part, index] = gpu.load(rows, plgpu.Layout.WGMMA).sum(1)
          plgpu.commit_smem()
      return carry

    lax.fori_loop(0, tiling.tokens // again, mark, gpu.load(states_in.at[slot], gpu.COLUMNS))
    return lax.fori_loop(0, tiling.tokens // again, leave, carry)

  put = lambda i, out: block.put(i, out, (x_out, x_bar), (dt_out, dt_bar), *zip(z_out, z_bar))
  (start,) = block.start(maps, last_bar)
  empty = [plgpu.layout_cast(jnp.zeros((gpu.LANES,), jnp.float32), gpu.CHANNELS) for _ in D]
  s, total, *D_total = block.tiles(ready, fetch, tile, put, (start, *block.zeros(), *empty))
  block.write(h_bar, (block.row, block.segment), [s])
  block.write(A_bar, (block.row, block.segment), [total])
  for ref, total in zip(D_bar, D_total):
    ref[block.row, block.segment, block.part, block.cols] = total


def _leave(tile, D, k, token, carry):
  """Token k back: `carry` with what it adds to it; what leaves by token; by channel the cotangents of B and C."""
  s, A_bar, *D_bar = carry
  _, dt, y_bar, _, C, *z = tile.slots
  y_bar, C = tile.vector(y_bar, k), tile.block.column(C, tile.slot, k, 0)
  z_bar = []
  for slots in z:
    silu, slope = fused.silu_and_slope(tile.vector(slots, k))
    y = (token.after * C).sum(0)
    for skip in D:
      y += skip * token.x
    z_bar.append(y_bar * y * slope)
    y_bar *= silu
  (s, A_bar), (x_bar, dt_bar), columns = _adjoint(tile.block, tile.A, token, y_bar, C, (s, A_bar))
  for skip in D:
    x_bar += skip * y_bar
  if tile.block.tiling.softplus:
    dt_bar *= lax.logistic(tile.vector(dt, k))
  return (s, A_bar, *(total + y_bar * token.x for total in D_bar)), (x_bar, dt_bar, *z_bar), columns


def _adjoint(block, A, token, y_bar, C, carry):
  """Goes one token back: what flows to the state before it, those of x and dt, and by channel those of B and C."""
  s, A_bar = carry
  h_bar = s + block.wide(y_bar) * C
  before_bar = token.decay * h_bar
  exponent_bar = before_bar * token.before
  inflow_bar = (h_bar * token.B).sum(0)
  dt_bar = (exponent_bar * A).sum(0) * math.log(2) + inflow_bar * token.x
  columns = h_bar * block.wide(token.dt * token.x), token.after * block.wide(y_bar)
  carry = block.clear(token.reset, before_bar), A_bar + exponent_bar * block.wide(token.dt)
  return carry, (inflow_bar * token.dt, dt_bar), columns

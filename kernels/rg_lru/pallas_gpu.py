"""`rg_lru` on GPUs: one pass over memory, gates and state in registers. Never run on a GPU; its speed is unmeasured.

As `linear_scan`: a block has 128 channels of one row, and goes through time in tiles that the copy engine brings ahead;
where blocks are too few, time is cut into segments, whose maps h -> P h + E a first kernel finds. Numbers are float32
from where they are read to where they are written.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import gpu
from kernels.rg_lru import adjoint
from kernels.rg_lru.fused import opened, pull, select

BYTES = 32  # of a channel in a tile: 16 tokens of bfloat16, 8 if any array is float32


def why_not(*args) -> str | None:
  return gpu.why_not(*adjoint.others(*args))


class _Tiling(gpu.Tiling):
  def __init__(self, by_token, reset, *, back):
    size = max(z.dtype.itemsize for z in by_token)
    super().__init__(by_token[0].shape, BYTES // size, reset, back=back)

  def slots(self, *like, count=gpu.STAGES, more=0):
    """Returns shared memory for a tile of each array, and `more` tokens, in each slot."""
    return tuple(plgpu.SMEM((count, self.tokens + more, gpu.LANES), z.dtype) for z in like)


class _Block(gpu.Block):
  def masks(self, word, i, k):
    """Does not pass over tokens past the end in the forward pass either: the last state is a result."""
    reset, _ = super().masks(word, i, k)
    return reset, gpu.mask(self.first(i) + k < self.tiling.t)

  def start(self, maps, h):
    """Returns the state before the segment."""
    h = gpu.lanes(h[self.row, self.cols])
    if not maps:
      return h
    along, inflow = maps
    at = lambda ref, s: gpu.lanes(ref[self.row, s, self.cols])
    return lax.fori_loop(0, self.segment, lambda s, h: at(along, s) * h + at(inflow, s), h)

  def end(self, ref, value):
    """Writes one vector for the segment."""
    ref[self.row, self.segment, self.cols] = value

  def rate(self, ref):
    return gpu.lanes(ref[self.cols])


def _read(slots, slot, k):
  return gpu.lanes(slots[slot, k]).astype(jnp.float32)


def _maps(tiling, rate, arrays):
  """Returns the maps of all segments but the last; `arrays` are u, r, i, or `back` r, i, y_bar."""
  scratch = tiling.slots(*arrays), gpu.barriers(len(arrays))
  return tiling.maps(_map_kernel, "rg_lru_maps", tiling.by_segment(), scratch, rate, arrays)


def _map_kernel(tiling, words, rate, arrays, decays, inflows, slots, ready):
  block = _Block(tiling, words)
  rate = block.rate(rate)

  def token(slot, out, k, masks, carry):
    (reset, valid), (along, inflow) = masks, carry
    if tiling.back:
      r, i, bar = (_read(z, slot, k) for z in slots)
      decay = opened(r, i, rate, reset).decay
      flow = decay * (bar + inflow)
    else:
      u, r, i = (_read(z, slot, k) for z in slots)
      gates = opened(r, i, rate, reset)
      decay = gates.decay
      flow = decay * inflow + gates.factor * gates.i * u
    return gpu.choose(valid, decay * along, along), gpu.choose(valid, flow, inflow)

  fetch = lambda i, slot, barrier: block.fetch(i, slot, barrier, *zip(arrays, slots))
  along, inflow = block.scan(ready, fetch, token, None, (gpu.full(1.0), gpu.full(0.0)))
  block.end(decays, along)
  block.end(inflows, inflow)


def _laid_out(*by_token):
  """Channels up to a multiple of eight: the copy engine wants rows that are whole 16 bytes."""
  return tuple(gpu.widen(z, 8) for z in by_token)


def _forward(u, r, i, rate, h, reset):
  arrays, rate = _laid_out(u, r, i), gpu.widen(rate, gpu.LANES)
  tiling = _Tiling(arrays, reset, back=False)
  y, last = gpu.kernel(
    functools.partial(_forward_kernel, tiling),
    (jax.ShapeDtypeStruct(arrays[0].shape, u.dtype), tiling.by_segment()),
    (tiling.slots(*arrays), *tiling.slots(u, count=2), gpu.barriers(3)),
    tiling.grid(),
    "rg_lru",
  )(tiling.words, _maps(tiling, rate, arrays), rate, gpu.widen(h, gpu.LANES), arrays)
  n = u.shape[2]
  return y[..., :n], last[:, -1, :n]


def _forward_kernel(tiling, words, maps, rate, h, arrays, y, last, slots, y_slots, ready):
  block = _Block(tiling, words)
  rate = block.rate(rate)

  def token(slot, out, k, masks, carry):
    (reset, valid), (h,) = masks, carry
    u, r, i = (_read(z, slot, k) for z in slots)
    gates = opened(r, i, rate, reset)
    h = gpu.choose(valid, gates.decay * h + gates.factor * gates.i * u, h)
    y_slots[out, k] = h.astype(y_slots.dtype)
    return (h,)

  fetch = lambda i, slot, barrier: block.fetch(i, slot, barrier, *zip(arrays, slots))
  (h,) = block.scan(ready, fetch, token, lambda i, out: block.put(i, out, (y_slots, y)), (block.start(maps, h),))
  block.end(last, h)


def _backward(u, r, i, rate, h, y, reset, y_bar, last_bar):
  n = u.shape[2]
  u, r, i, y, y_bar = _laid_out(u, r, i, y, y_bar)
  rate, last_bar = (gpu.widen(z, gpu.LANES) for z in (rate, last_bar))
  tiling = _Tiling((u, r, i), reset, back=True)
  *bars, rate_bar, h_bar = gpu.kernel(
    functools.partial(_backward_kernel, tiling),
    (*(jax.ShapeDtypeStruct(z.shape, z.dtype) for z in (u, r, i)), tiling.by_segment(), tiling.by_segment()),
    (tiling.slots(u, r, i, y_bar), *tiling.slots(y, more=1), tiling.slots(u, r, i, count=2), gpu.barriers(6)),
    tiling.grid(),
    "rg_lru_backward",
    # The initial state goes where states are, so in their dtype.
  )(
    *(tiling.words, _maps(tiling, rate, (r, i, y_bar)), rate, last_bar),
    *((u, r, i, y_bar), gpu.widen(h[:, None], gpu.LANES).astype(y.dtype), y),
  )
  return *(z[..., :n] for z in bars), rate_bar.sum((0, 1))[:n], h_bar[:, -1, :n]


def _backward_kernel(
  tiling, words, maps, rate, last_bar, arrays, h, y, u_bar, r_bar, i_bar, rate_bar, h_bar, slots, before, outs, ready
):
  block = _Block(tiling, words)
  rate = block.rate(rate)

  def fetch(i, slot, barrier):
    # Each state beside the token that finds it: first the one before the tile.
    block.fetch(i, slot, barrier, *zip(arrays, slots), (y, before.at[:, 1:]))
    first = block.first(i)

    def edge(ref, token):
      plgpu.copy_gmem_to_smem(ref.at[block.row, pl.ds(token, 1), block.cols], before.at[slot, :1], barrier)

    pl.when(first == 0)(lambda: edge(h, 0))
    pl.when(first > 0)(lambda: edge(y, first - 1))

  def token(slot, out, k, masks, carry):
    (reset, valid), (s, total) = masks, carry
    u, r, i, bar = (_read(z, slot, k) for z in slots)
    gates = opened(r, i, rate, reset)
    bar = bar + s
    *bars, along = pull(gates, u, rate, bar, select(reset, _read(before, slot, k), 0.0))
    for z, value in zip(outs, bars):
      z[out, k] = value.astype(z.dtype)
    return gpu.choose(valid, gates.decay * bar, s), total + gpu.choose(valid, along, 0.0)

  put = lambda i, out: block.put(i, out, *zip(outs, (u_bar, r_bar, i_bar)))
  s, total = block.scan(ready, fetch, token, put, (block.start(maps, last_bar), gpu.full(0.0)))
  block.end(h_bar, s)
  block.end(rate_bar, total)


rg_lru = adjoint.differentiable(_forward, _backward)

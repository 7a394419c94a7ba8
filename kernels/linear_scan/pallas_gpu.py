"""`linear_scan` on GPUs: one pass over memory, the state in registers. Never run on a GPU; its speed is unmeasured.

A block has 128 channels of one row, one a thread, and goes through time in tiles that the copy engine brings ahead.
Where rows and channels make too few blocks, time is cut into segments: a first kernel finds the map h -> P h + E of
each segment, and in the second every segment starts from what the maps before it make of the initial state. Complex
numbers are pairs of real arrays.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import dispatch, gpu
from kernels.linear_scan import adjoint
from kernels.linear_scan.pairs import add, clear, parts, product, where, whole

TOKENS = 16  # of a tile; half as many complex ones


def why_not(a, x, h, reset) -> str | None:
  return gpu.why_not(a, x, h)


def linear_scan(a, x, h, reset):
  """Computes `reference.linear_scan`."""
  axes = ("b t e" if a.ndim == 3 else "e", "b t e", "b e", "b t")
  return dispatch.shard(_scan, axes, ("b t e", "b e"))(a, x, h, reset)


class _Tiling(gpu.Tiling):
  """The tiling of a linear scan, whose arrays are pairs of real arrays where the numbers are complex."""

  def __init__(self, a, x, reset, *, back):
    self.pairs, self.constant = len(parts(x)), a.ndim == 1
    super().__init__(x.shape, TOKENS // self.pairs, reset, back=back)

  def slots(self, count=gpu.STAGES, tokens=None):
    """Returns shared memory for a tile in each slot."""
    return (plgpu.SMEM((count, tokens or self.tokens, gpu.LANES), jnp.float32),) * self.pairs

  def decay_slots(self):
    return () if self.constant else self.slots()

  def ready(self, by_token):
    """Returns barriers for the copies of the decay and of `by_token` more arrays."""
    return gpu.barriers(self.pairs * (by_token + (not self.constant)))

  def each_token(self):
    return (self.by_token(),) * self.pairs

  def each_segment(self):
    return (self.by_segment(),) * self.pairs


class _Block(gpu.Block):
  def vectors(self, value=0.0):
    """Returns a number in each channel."""
    return tuple(gpu.full(value if i == 0 else 0.0) for i in range(self.tiling.pairs))

  def vector(self, refs, *at):
    """Loads one vector of channels from each ref."""
    return tuple(gpu.lanes(ref[*at, self.cols]) for ref in refs)

  def start(self, maps, h):
    """Returns the state before the segment."""
    h = self.vector(h, self.row)
    if not maps:
      return h
    one = lambda s, h: add(product(self.vector(maps[0], self.row, s), h), self.vector(maps[1], self.row, s))
    return lax.fori_loop(0, self.segment, one, h)

  def end(self, refs, values):
    """Writes one vector for the segment."""
    for ref, z in zip(refs, values):
      ref[self.row, self.segment, self.cols] = z

  def decay(self, a, slots):
    """Returns the decay as a function of slot and token: by token in shared memory, or one for all in registers."""
    if self.tiling.constant:
      everywhere = self.vector(a, 0)
      return lambda slot, k: everywhere
    return functools.partial(_read, slots)


def _read(slots, slot, k):
  return tuple(gpu.lanes(z[slot, k]) for z in slots)


def _write(slots, out, k, values):
  for z, value in zip(slots, values):
    z[out, k] = value


def _maps(tiling, a, x):
  scratch = tiling.decay_slots(), tiling.slots(), tiling.ready(1)
  return tiling.maps(_map_kernel, "linear_scan_maps", tiling.each_segment(), scratch, a, x)


def _map_kernel(tiling, words, a, x, decays, inflows, a_slots, x_slots, ready):
  block = _Block(tiling, words)
  decay = block.decay(a, a_slots)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, *zip(a, a_slots), *zip(x, x_slots))

  def token(slot, out, k, masks, carry):
    (reset, valid), (along, inflow) = masks, carry
    d, u = decay(slot, k), _read(x_slots, slot, k)
    if tiling.back:
      inflow = _choose(valid, clear(reset, product(d, add(u, inflow))), inflow)
    else:
      inflow = add(product(d, clear(reset, inflow)), u)
    return _choose(valid, clear(reset, product(d, along)), along), inflow

  along, inflow = block.scan(ready, fetch, token, None, (block.vectors(1.0), block.vectors()))
  block.end(decays, along)
  block.end(inflows, inflow)


def _laid_out(a, *by_token):
  """Returns arrays in parts, channels up to a multiple of four: the copy engine wants rows that are whole 16 bytes."""
  a = parts(gpu.widen(a, 4)) if a.ndim == 3 else _vector(a[None])
  return a, *(parts(gpu.widen(z, 4)) for z in by_token)


def _vector(z):
  """Returns the parts of one vector of channels a row, filled up to whole blocks."""
  return parts(gpu.widen(z, gpu.LANES))


def _forward(a, x, h, reset):
  decay, inflow = _laid_out(a, x)
  tiling = _Tiling(a, gpu.widen(x, 4), reset, back=False)
  (y,) = gpu.kernel(
    functools.partial(_forward_kernel, tiling),
    (tiling.each_token(),),
    (tiling.decay_slots(), tiling.slots(), tiling.slots(2), tiling.ready(1)),
    tiling.grid(),
    "linear_scan",
  )(tiling.words, _maps(tiling, decay, inflow), decay, inflow, _vector(h))
  y = whole(y)[..., : x.shape[-1]]
  return y, y[:, -1]


def _forward_kernel(tiling, words, maps, a, x, h, y, a_slots, x_slots, y_slots, ready):
  block = _Block(tiling, words)
  decay = block.decay(a, a_slots)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, *zip(a, a_slots), *zip(x, x_slots))

  def token(slot, out, k, masks, h):
    h = add(product(decay(slot, k), clear(masks[0], h)), _read(x_slots, slot, k))
    _write(y_slots, out, k, h)
    return h

  block.scan(ready, fetch, token, lambda i, out: block.put(i, out, *zip(y_slots, y)), block.start(maps, h))


def _backward(a, h, y, reset, y_bar, last_bar):
  """Returns the cotangents of the inputs, by a scan from the last token to the first; see `adjoint`."""
  n = y.shape[-1]
  decay, states, bars = _laid_out(a, y, y_bar)
  tiling = _Tiling(a, gpu.widen(y, 4), reset, back=True)
  a_bar, x_bar, h_bar = gpu.kernel(
    functools.partial(_backward_kernel, tiling),
    (tiling.each_segment() if tiling.constant else tiling.each_token(), tiling.each_token(), tiling.each_segment()),
    (
      *(tiling.decay_slots(), tiling.slots(tokens=tiling.tokens + 1), tiling.slots()),
      *(() if tiling.constant else tiling.slots(2), tiling.slots(2), tiling.ready(3)),
    ),
    tiling.grid(),
    "linear_scan_backward",
  )(tiling.words, _maps(tiling, decay, bars), decay, _vector(h[:, None]), states, bars, _vector(last_bar))
  a_bar, x_bar, h_bar = (whole(z)[..., :n] for z in (a_bar, x_bar, h_bar))
  return a_bar.sum((0, 1)) if tiling.constant else a_bar, x_bar, h_bar[:, -1]


def _backward_kernel(
  tiling, words, maps, a, h, y, y_bar, last_bar, a_bar, x_bar, h_bar, a_in, before, y_bar_in, a_out, x_out, ready
):
  block = _Block(tiling, words)
  decay = block.decay(a, a_in)

  def fetch(i, slot, barrier):
    block.fetch(i, slot, barrier, *zip(a, a_in), *zip(y_bar, y_bar_in))
    # Each state beside the token that finds it: first the one before the tile.
    block.fetch(i, slot, barrier, *((ref, z.at[:, 1:]) for ref, z in zip(y, before)))
    first = block.first(i)

    def edge(refs, token):
      for ref, z in zip(refs, before):
        plgpu.copy_gmem_to_smem(ref.at[block.row, pl.ds(token, 1), block.cols], z.at[slot, :1], barrier)

    pl.when(first == 0)(lambda: edge(h, 0))
    pl.when(first > 0)(lambda: edge(y, first - 1))

  def token(slot, out, k, masks, carry):
    (reset, valid), (s, total) = masks, carry
    x_bar = add(_read(y_bar_in, slot, k), s)
    flow = product(x_bar, clear(reset, _read(before, slot, k)))
    _write(x_out, out, k, x_bar)
    if tiling.constant:
      total = add(total, where(valid, flow))
    else:
      _write(a_out, out, k, flow)
    return _choose(valid, clear(reset, product(decay(slot, k), x_bar)), s), total

  def put(i, out):
    block.put(i, out, *zip(a_out, a_bar), *zip(x_out, x_bar))

  total = block.vectors() if tiling.constant else ()
  s, total = block.scan(ready, fetch, token, put, (block.start(maps, last_bar), total))
  block.end(h_bar, s)
  if tiling.constant:
    block.end(a_bar, total)


def _choose(condition, values, others):
  return tuple(gpu.choose(condition, z, other) for z, other in zip(values, others))


_scan = adjoint.differentiable(_forward, _backward)

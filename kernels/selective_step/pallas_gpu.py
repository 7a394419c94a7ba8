"""`selective_step` on GPUs: one pass over the state, where it lies. Never run on a GPU; its speed is unmeasured.

A block has 128 channels of one group of one row. The entries of a channel's state follow each other in memory: four
threads have 16 of them, four each, so that what a warp reads at once are whole rows.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import chunks, dispatch, gpu
from kernels.discretize import not_real_euler

ENTRIES = 16  # of a state, read together

# Arrays "e n" of ENTRIES columns; vectors of channels, and those of entries.
ROWS = plgpu.Layout.TILED(
  plgpu.Tiling(((32, ENTRIES), (8, ENTRIES), (4,))), warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1
)
CHANNELS, COLUMNS = ROWS.reduce(1), ROWS.reduce(0)


def why_not(x, dt, A, B, C, D, z, h, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `gpu.why_not`."""
  if D is None or z is None:
    return "it has a skip and a gate, which need D and z"
  return not_real_euler(h, disc) or gpu.why_not(x, dt, A, B, C, D, z, h)


def selective_step(x, dt, A, B, C, D, z, h, softplus, disc):
  """Computes `reference.selective_step`."""
  dt = jax.nn.softplus(dt) if softplus else dt
  axes = "b e", "b e", "e n", "b g n", "b g n", "e", "b e", "b e n"
  return dispatch.shard(_step, axes, ("b e", "b e n"))(x, dt, A, B, C, D, z, h)


def _step(x, dt, A, B, C, D, z, h):
  (b, e, n), g = h.shape, B.shape[1]
  d = e // g
  vectors = lambda m: gpu.widen(m.reshape(-1, g, d), gpu.LANES)
  columns = lambda m: gpu.widen(m, ENTRIES)
  fill = (0, 0), (0, 0), (0, chunks.up(d, gpu.LANES) - d), (0, 0)
  states = lambda m: columns(jnp.pad(m.reshape(-1, g, d, n), fill))
  x = vectors(x)
  run = gpu.kernel_in_place(
    _kernel,
    jax.ShapeDtypeStruct(x.shape, jnp.float32),
    {"e": x.shape[2] // gpu.LANES, "g": g, "b": b},
    "selective_step",
  )
  y, h = run(states(h), x, vectors(dt), states(A), columns(B), columns(C), vectors(D), vectors(z))
  return y[..., :d].reshape(b, e), h[:, :, :d, :n].reshape(b, e, n)


def _kernel(h, x, dt, A, B, C, D, z, y):
  row, group = lax.axis_index("b"), lax.axis_index("g")
  channels = pl.ds(lax.axis_index("e") * gpu.LANES, gpu.LANES)
  vector = lambda ref, row: gpu.load(ref.at[row, group, channels], CHANNELS)
  x_t, dt_t = vector(x, row), vector(dt, row)

  def part(i, read):
    entries = pl.ds(i * ENTRIES, ENTRIES)
    matrix = lambda ref, row: gpu.load(ref.at[row, group, channels, entries], ROWS)
    column = lambda ref: _spread(gpu.load(ref.at[row, group, entries], COLUMNS), 1)
    state = jnp.exp(_spread(dt_t, 0) * matrix(A, 0)) * matrix(h, row) + _spread(dt_t * x_t, 0) * column(B)
    gpu.store(h.at[row, group, channels, entries], state)
    return read + (state * column(C)).sum(1)

  read = lax.fori_loop(0, h.shape[3] // ENTRIES, part, vector(D, 0) * x_t)
  y[row, group, channels] = read * jax.nn.silu(vector(z, row))


def _spread(z, axis):
  """Returns a vector along an axis of a matrix, the same in all places of the other."""
  return plgpu.layout_cast(lax.broadcast_in_dim(z, (gpu.LANES, ENTRIES), (axis,)), ROWS)

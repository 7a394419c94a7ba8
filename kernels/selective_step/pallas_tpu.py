"""`selective_step` on TPUs: one pass over the state, where it lies. Never run on a TPU; its speed is unmeasured.

A program has some channels of one group of one row, channels in lanes and the numbers of a channel's state below each
other. So the state is turned before and after; where it is carried from step to step, the compiler may keep it turned.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import chunks, dispatch, tpu
from kernels.discretize import not_real_euler

NUMBERS = 2**17  # of a state, at most, in a block


def why_not(x, dt, A, B, C, D, z, h, softplus, disc) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `tpu.why_not`."""
  if D is None or z is None:
    return "it has a skip and a gate, which need D and z"
  groups, channels = B.shape[1], x.shape[1] // B.shape[1]
  if groups > 1 and channels % tpu.LANES:
    return f"{groups} groups of {channels} channels; of several it wants multiples of {tpu.LANES}"
  return not_real_euler(h, disc) or tpu.why_not(x, dt, A, B, C, D, z, h)


def selective_step(x, dt, A, B, C, D, z, h, softplus, disc):
  """Computes `reference.selective_step`."""
  dt = jax.nn.softplus(dt) if softplus else dt
  axes = "b e", "b e", "e n", "b g n", "b g n", "e", "b e", "b e n"
  return dispatch.shard(_step, axes, ("b e", "b e n"))(x, dt, A, B, C, D, z, h)


def _step(x, dt, A, B, C, D, z, h):
  (b, e, n), groups = h.shape, B.shape[1]
  channels = tpu.divisor(e // groups, NUMBERS // chunks.up(n, tpu.ROWS), tpu.LANES)
  blocks = e // groups // channels  # of each group
  row = pl.BlockSpec((None, 1, channels), lambda b, g, e: (b, 0, g * blocks + e))
  state = pl.BlockSpec((None, n, channels), lambda b, g, e: (b, 0, g * blocks + e))
  by_channel = lambda rows: pl.BlockSpec((rows, channels), lambda b, g, e: (0, g * blocks + e))
  column = pl.BlockSpec((None, None, n, 1), lambda b, g, e: (b, g, 0, 0))
  y, h = pl.pallas_call(
    _kernel,
    grid=(b, groups, blocks),
    in_specs=[row, row, by_channel(n), column, column, by_channel(1), row, state],
    out_specs=[row, state],
    out_shape=[jax.ShapeDtypeStruct((b, 1, e), jnp.float32), jax.ShapeDtypeStruct((b, n, e), jnp.float32)],
    input_output_aliases={7: 1},
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
    name="selective_step",
  )(x[:, None], dt[:, None], A.T, B[..., None], C[..., None], D[None], z[:, None], h.swapaxes(1, 2))
  return y[:, 0], h.swapaxes(1, 2)


def _kernel(x, dt, A, B, C, D, z, h, y, h_out):
  x, dt = x[...], dt[...]
  state = jnp.exp(dt * A[...]) * h[...] + (dt * x) * B[...]
  h_out[...] = state
  y[...] = ((C[...] * state).sum(0, keepdims=True) + D[...] * x) * jax.nn.silu(z[...])

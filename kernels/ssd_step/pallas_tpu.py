"""`ssd_step` on TPUs: one pass over the states, where they lie. Never run on a TPU; its speed is unmeasured.

A program has some heads of one row. The first of a row makes the convolution of all its channels, which the others find
in VMEM. The entries of a state that B and C belong to are in lanes (Mamba-2 has 128, and 64 channels a head), so the
states are turned before and after; where they are carried from step to step, the compiler may keep them turned.

Of the norm a program adds up the squares of its heads. The factor that they give is applied to the outputs outside, as
the heads of a row may lie on several devices.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import tpu
from kernels.conv_step.pallas_tpu import advance
from kernels.ssd_step import over_heads

HEADS = 16  # of a program, at most, if their channels fill lanes


def why_not(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps) -> str | None:
  """Returns why this kernel cannot run these arguments, before the reasons of `tpu.why_not`."""
  return over_heads.why_not(S, taps, norm, norm_groups) or tpu.why_not(x, z, dt, taps, S, kernel, A, D)


def ssd_step(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
  """Computes `reference.ssd_step`."""
  return over_heads.divided(_step, x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps)


class _Blocks:
  """How the arrays lie, and the blocks of one program."""

  def __init__(self, taps, S):
    self.b, self.h, self.k, self.p = S.shape
    self.taps, self.channels = taps.shape[1:]
    self.groups = (self.channels - self.h * self.p) // (2 * self.k)
    fitting = [n for n in range(1, HEADS + 1) if self.h % n == 0 and n * self.p % tpu.LANES == 0]
    self.heads = max(fitting, default=self.h)
    self.width = self.heads * self.p
    self.grid = self.b, self.h // self.heads
    self.by_channel = pl.BlockSpec((None, 1, self.width), lambda b, e: (b, 0, e))
    self.by_head = pl.BlockSpec((None, None, 1, self.heads), lambda b, e: (b, e, 0, 0))
    self.of_channels = pl.BlockSpec((1, self.width), lambda b, e: (0, e))
    self.of_heads = pl.BlockSpec((None, 1, self.heads), lambda b, e: (e, 0, 0))
    self.states = pl.BlockSpec((None, self.heads, self.p, self.k), lambda b, e: (b, e, 0, 0))

  def by_row(self, rows=1):
    """Returns all channels of a row of the batch, to which all its programs come back."""
    return pl.BlockSpec((None, rows, self.channels), lambda b, e: (b, 0, 0))

  def weights(self, rows):
    return pl.BlockSpec((rows, self.channels), lambda b, e: (0, 0))


def _step(x, z, dt, A, D, taps, S, kernel, bias, norm):
  """Computes `over_heads.divided`."""
  blocks = _Blocks(taps, S)
  b, h, k, p = S.shape
  by_head = b, blocks.grid[1], 1, blocks.heads
  y, squares, taps, S = pl.pallas_call(
    functools.partial(_kernel, blocks, norm),
    grid=blocks.grid,
    in_specs=[
      *(blocks.by_row(), blocks.by_channel, blocks.by_head, blocks.by_row(blocks.taps), blocks.states),
      *(blocks.weights(blocks.taps + 1), blocks.weights(1), blocks.of_heads, blocks.of_channels),
    ],
    out_specs=[blocks.by_channel, blocks.by_head, blocks.by_row(blocks.taps), blocks.states],
    out_shape=[jax.ShapeDtypeStruct(m, jnp.float32) for m in ((b, 1, h * p), by_head, taps.shape, (b, h, p, k))],
    input_output_aliases={3: 2, 4: 3},
    scratch_shapes=[
      pltpu.VMEM((blocks.grid[1], blocks.width), jnp.float32),
      pltpu.VMEM((2 * blocks.groups, k), jnp.float32),
    ],
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
    name="ssd_step",
  )(
    *(x[:, None], z.reshape(b, 1, -1), dt.reshape(by_head), taps, S.swapaxes(2, 3)),
    *(kernel, bias[None], A.reshape(by_head[1:]), jnp.broadcast_to(D, (h, p)).reshape(1, -1)),
  )
  return y.reshape(z.shape), squares.reshape(b, h), taps, S.swapaxes(2, 3)


def _kernel(blocks, norm, x, z, dt, taps, S, kernel, bias, A, D, y, squares, taps_out, S_out, u_blocks, BC):
  block = pl.program_id(1)

  @pl.when(block == 0)
  def _():
    mixed = advance(x[...], taps, (kernel, bias), taps_out, "silu")
    for i in range(blocks.grid[1]):
      u_blocks[i : i + 1] = mixed[:, i * blocks.width : (i + 1) * blocks.width]
    for i in range(2 * blocks.groups):
      first = blocks.h * blocks.p + i * blocks.k
      BC[i : i + 1] = mixed[:, first : first + blocks.k]

  u, dt, gate = u_blocks[pl.ds(block, 1)], dt[...], jax.nn.silu(z[...])
  decay = jnp.exp(dt * A[...])
  for i in range(blocks.heads):
    part = slice(i * blocks.p, (i + 1) * blocks.p)
    head = slice(i, i + 1)
    group = lax.div(block * blocks.heads + i, blocks.h // blocks.groups)
    B, C = BC[pl.ds(group, 1)], BC[pl.ds(blocks.groups + group, 1)]
    state = decay[:, head] * S[i] + tpu.turn(dt[:, head] * u[:, part]) * B
    S_out[i] = state
    read = tpu.turn((state * C).sum(1, keepdims=True)) + D[:, part] * u[:, part]
    gated = read * gate[:, part]
    y[:, part] = gated
    squares[:, head] = jnp.square(read if norm == "norm_first" else gated).sum(1, keepdims=True)

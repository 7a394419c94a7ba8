"""`conv_step` on TPUs: one pass over the taps, where they lie. Never run on a TPU; its speed is unmeasured."""

import functools

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import dispatch, tpu

ROWS, CHANNELS = 8, 2048  # of the batch, at most, in a block


def why_not(x, taps, kernel, bias, activation) -> str | None:
  return tpu.why_not(x, taps, kernel) if taps.shape[1] else "a kernel of one tap carries none"


def conv_step(x, taps, kernel, bias, activation):
  """Computes `reference.conv_step`."""
  step = functools.partial(_step, activation=activation)
  axes = "b e", "b v e", "w e", "e"
  return dispatch.shard(step, axes, ("b e", "b v e"))(x, taps, kernel, bias)


def _step(x, taps, kernel, bias, *, activation):
  b, v, e = taps.shape
  rows, channels = tpu.divisor(b, ROWS, 1), tpu.divisor(e, CHANNELS, tpu.LANES)
  tokens = pl.BlockSpec((rows, 1, channels), lambda b, e: (b, 0, e))
  windows = pl.BlockSpec((rows, v, channels), lambda b, e: (b, 0, e))
  by_channel = lambda z: pl.BlockSpec((len(z), channels), lambda b, e: (0, e))
  weights = (kernel,) if bias is None else (kernel, bias[None])
  y, taps = pl.pallas_call(
    functools.partial(_kernel, activation),
    grid=(b // rows, e // channels),
    in_specs=[tokens, windows, tuple(map(by_channel, weights))],
    out_specs=[tokens, windows],
    out_shape=[jax.ShapeDtypeStruct((b, 1, e), x.dtype), jax.ShapeDtypeStruct(taps.shape, taps.dtype)],
    input_output_aliases={1: 1},
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    name="conv_step",
  )(x[:, None], taps, weights)
  return y[:, 0], taps


def _kernel(activation, x, taps, weights, y, taps_out):
  for row in range(x.shape[0]):
    y[row] = advance(x[row], taps.at[row], weights, taps_out.at[row], activation)


def advance(x, taps, weights, taps_out, activation):
  """Returns the convolution of one row of the batch, a row of channels; moves its taps on."""
  kernel, *bias = weights
  v = taps.shape[0]
  y = (kernel[:v] * taps[...]).sum(0, keepdims=True) + kernel[v:] * x
  for z in bias:
    y = y + z[...]
  if v > 1:
    taps_out[: v - 1] = taps[1:]
  taps_out[v - 1 :] = x
  return jax.nn.silu(y) if activation == "silu" else y

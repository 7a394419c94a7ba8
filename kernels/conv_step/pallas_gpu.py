"""`conv_step` on GPUs: one pass over the taps, where they lie. Never run on a GPU; its speed is unmeasured."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from kernels import dispatch, gpu


def why_not(x, taps, kernel, bias, activation) -> str | None:
  return gpu.why_not(x, taps, kernel) if taps.shape[1] else "a kernel of one tap carries none"


def conv_step(x, taps, kernel, bias, activation):
  """Computes `reference.conv_step`."""
  step = functools.partial(_step, activation=activation)
  axes = "b e", "b v e", "w e", "e"
  return dispatch.shard(step, axes, ("b e", "b v e"))(x, taps, kernel, bias)


def _step(x, taps, kernel, bias, *, activation):
  e = x.shape[1]
  bias = jnp.zeros_like(kernel[0]) if bias is None else bias
  x, taps, kernel, bias = (gpu.widen(z, gpu.LANES) for z in (x, taps, kernel, bias))
  run = gpu.kernel_in_place(
    functools.partial(_kernel, activation),
    jax.ShapeDtypeStruct(x.shape, jnp.float32),
    {"e": x.shape[1] // gpu.LANES, "b": len(x)},
    "conv_step",
  )
  y, taps = run(taps, x, kernel, bias)
  return y[:, :e], taps[..., :e]


def _kernel(activation, taps, x, kernel, bias, y):
  row, channels = lax.axis_index("b"), pl.ds(lax.axis_index("e") * gpu.LANES, gpu.LANES)
  vector = lambda ref, *at: gpu.load(ref.at[*at, channels], gpu.CHANNELS)
  window = [*(vector(taps, row, i) for i in range(taps.shape[1])), vector(x, row)]
  mixed = sum((vector(kernel, i) * z for i, z in enumerate(window)), vector(bias))
  for i, z in enumerate(window[1:]):
    taps[row, i, channels] = z
  y[row, channels] = jax.nn.silu(mixed) if activation == "silu" else mixed

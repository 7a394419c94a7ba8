"""Pools events over time: each window of consecutive events becomes one event with the sum of their gaps.

Schoene et al. 2024, arXiv:2404.18508.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.inputs import Lengths
from layers.lengths import blank_past
from mistake import Mistake

MODES = ("first", "last", "mean", "time")


def event_pool(
  x: Float[Array, "b t d"], dt: Float[Array, "b t"], *, stride: int, mode: str = "mean", lengths: Lengths = None
) -> tuple[Float[Array, "b s d"], Float[Array, "b s"], Int[Array, "b"] | None]:
  """Returns windows of `stride` events, their summed gaps, and each row's number of windows; a rest is dropped.

  The authors' layer pools what goes past its mixer by `mode`, and of what the mixer puts out takes the "first".

  Args:
    dt: the gap before each event.
    mode: what stands for a window: its "first" event (which the authors' code calls last), its "last", the "mean", or
      the mean weighted by "time", see `time_weights`.

  Raises:
    ValueError: `stride` is below 1 or `mode` is unknown.
  """
  if stride < 1:
    raise Mistake(f"event_pool: stride={stride}; it must be at least 1")
  if mode not in MODES:
    raise Mistake(f"event_pool: mode={mode!r}; choose from {list(MODES)}")
  b, t, d = x.shape
  windows = t // stride
  x = blank_past(x, lengths)[:, : windows * stride].reshape(b, windows, stride, d)
  dt = blank_past(dt, lengths)[:, : windows * stride].reshape(b, windows, stride)
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if mode in ("first", "last"):
    pooled = wide[:, :, 0 if mode == "first" else -1]
  else:
    weights = time_weights(dt).astype(wide.dtype) if mode == "time" else jnp.ones(dt.shape, wide.dtype)
    pooled = jnp.einsum("bswd,bsw->bsd", wide, weights / jnp.sum(weights, axis=-1, keepdims=True))
  lengths = None if lengths is None else jnp.minimum(lengths, t) // stride
  return blank_past(pooled.astype(x.dtype), lengths), blank_past(jnp.sum(dt, axis=-1), lengths), lengths


def time_weights(dt: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """Returns the weights of events in a mean over time: dt + 1e-6, so that simultaneous events have a mean, too."""
  return dt.astype(jnp.promote_types(dt.dtype, jnp.float32)) + 1e-6

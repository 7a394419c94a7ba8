"""Convolutions over images whose pixels come as a sequence, row by row, with their parameters."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from layers import images
from layers.dense import Dense
from layers.initializers import uniform_fan_in
from layers.param import param


class DepthwiseImageConv(nn.Module):
  """y_p = bias + sum_q kernel_q x_{p+q}, over a square of pixels around each, one kernel per channel.

  Attributes:
    taps: the side of the square, odd.
  """

  features: int
  taps: int = 3
  use_bias: bool = True
  axis: str | None = "inner"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t e"],
    columns: int,
    *,
    reset: Reset = None,
    lengths: Lengths = None,
  ) -> Float[Array, "b t e"]:
    """Returns all pixels; with `reset` each document is an image of its own. x is 0 in the padding."""
    uniform, taps = uniform_fan_in(self.taps**2), self.taps
    kernel = param(self, "kernel", uniform, (taps, taps, self.features), (None, "taps", self.axis), decay=False)
    kernel = kernel.astype(x.dtype)
    if reset is None:
      parts = images.neighbours(x.reshape(x.shape[0], -1, columns, x.shape[-1]), taps)
      y = sum(part * k for part, k in zip(parts, kernel.reshape(taps**2, -1))).reshape(x.shape)
    else:
      lags, origin = jnp.moveaxis(jnp.flip(kernel, (0, 1)), -1, 0), (taps // 2,) * 2
      # an image's taps reach no further than it has pixels
      spare = max(0, taps // 2 + 1 - columns)
      lags, origin = lags[..., spare : taps - spare], (origin[0], origin[1] - spare)
      y = images.convolve(x, lags, origin=origin, inner=(columns,), reset=reset, lengths=lengths)
    if self.use_bias:
      y = y + param(self, "bias", uniform, (self.features,), (self.axis,)).astype(x.dtype)
    return y


class HalvingConv(nn.Module):
  """A convolution with squares of 3 by 3 pixels around every second one along each side: a quarter of the pixels.

  Attributes:
    features: channels of what comes out.
  """

  features: int

  @nn.compact
  def __call__(self, x: Float[Array, "b r c d"]) -> Float[Array, "b i j e"]:
    """Returns the smaller image; `proj` is a map of the nine pixels' channels, pixel by pixel, row by row."""
    parts = images.neighbours(x, 3, stride=2)
    return Dense(self.features, use_bias=True, axes=("inner", "embed"), name="proj")(jnp.concatenate(parts, axis=-1))

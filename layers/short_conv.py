"""The short depthwise convolution in front of many recurrences, with its parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.conv_step import conv_step
from kernels.inputs import Lengths, Reset
from kernels.short_conv import short_conv
from layers.initializers import Initializer, uniform_fan_in
from layers.param import param
from mistake import Mistake


class ShortConv(nn.Module):
  """y_t = bias + sum_i kernel_i x_{t-(w-1-i)δ}, one kernel per channel; see `kernels.short_conv`.

  Attributes:
    taps: w, how many tokens each output reads, the current one included.
    dilation: δ, how many tokens one tap is from the next.
    axis: logical name of the channel axis.
    kernel_init, bias_init: U(-w^-1/2, w^-1/2) if not given.
  Raises:
    ValueError: `taps` or `dilation` is below 1.
  """

  features: int
  taps: int = 4
  use_bias: bool = True
  axis: str | None = "inner"
  kernel_init: Initializer | None = None
  bias_init: Initializer | None = None
  dilation: int = 1

  def setup(self):
    for name in ("taps", "dilation"):
      if getattr(self, name) < 1:
        raise Mistake(f"ShortConv: {name}={getattr(self, name)}; it needs at least 1")
    uniform = uniform_fan_in(self.taps)
    self.kernel = param(self, "kernel", self.kernel_init or uniform, (self.taps, self.features), ("taps", self.axis))
    if self.use_bias:
      self.bias = param(self, "bias", self.bias_init or uniform, (self.features,), (self.axis,))

  @nn.nowrap
  def init_taps(self, batch: int) -> Float[Array, "b w e"]:
    """Returns the inputs before the first token, which are 0."""
    return jnp.zeros((batch, (self.taps - 1) * self.dilation, self.features))

  def __call__(
    self, x: Float[Array, "b t e"], taps: Float[Array, "b w e"], *, reset: Reset = None, lengths: Lengths = None
  ) -> tuple[Float[Array, "b t e"], Float[Array, "b w e"]]:
    """Returns all outputs, and the last inputs, which the next call takes as `taps`."""
    return short_conv(x, self._spread(), taps, bias=self._bias(), reset=reset, lengths=lengths)

  def step(
    self, x: Float[Array, "b e"], taps: Float[Array, "b w e"], *, activation: str = "none"
  ) -> tuple[Float[Array, "b e"], Float[Array, "b w e"]]:
    """Does __call__ on one token without packed documents or padding, and an activation ("silu") after it."""
    return conv_step(x, taps, self._spread(), bias=self._bias(), activation=activation)

  def _spread(self) -> Float[Array, "v e"]:
    """Returns the kernel with zeros for the tokens between its taps."""
    if self.dilation == 1:
      return self.kernel
    width = (self.taps - 1) * self.dilation + 1
    return jnp.zeros((width, self.features), self.kernel.dtype).at[:: self.dilation].set(self.kernel)

  def _bias(self) -> jax.Array | None:
    return self.bias if self.use_bias else None

"""The gated perceptron of LLaMA, Griffin and most models since; its state is fixed, and empty."""

import flax.linen as nn
from jaxtyping import Array, Float

from kernels.experts.reference import gated
from layers import Dense
from layers.activations import some
from layers.choices import one_of
from layers.initializers import uniform_fan_in
from layers.mixer import PerToken
from layers.sizes import above_zero, at_least_one

ACTIVATIONS = some("silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "none")


class GatedMLP(PerToken):
  """y = W_2 (f(W_g x) * W_1 x)     Shazeer 2020, arXiv:2002.05202, sec. 2.

  f picks the variant: silu is SwiGLU, gelu or gelu_tanh GEGLU, relu ReGLU, sigmoid GLU, none Bilinear.
  Departs: W_2 starts 1 / sqrt(depth) smaller, as in GPT-2.

  Attributes:
    limit: if given, W_g x is at most this, and W_1 x at most this in size (GLM-5 Next: 10).
    inner: channels between the maps; None is 8/3 of `width` rounded up to a multiple of 8, which makes the three
      matrices together about as large as the two of an MLP four times as wide inside.
    depth: number of residual branches of the model; the stack sets it.
  Raises:
    ValueError: `inner` is below 1, or `activation` is unknown.
  """

  width: int
  inner: int | None = None
  activation: str = "silu"
  bias: bool = False
  limit: float | None = None
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    one_of(self, activation=ACTIVATIONS)
    at_least_one(self, "width", "inner")
    above_zero(self, "limit")

  def setup(self):
    inner = -(-self.width // 3) * 8 if self.inner is None else self.inner
    init = uniform_fan_in()
    self.gate_proj = Dense(inner, use_bias=self.bias, kernel_init=init, axes=("embed", "mlp"))
    self.in_proj = Dense(inner, use_bias=self.bias, kernel_init=init, axes=("embed", "mlp"))
    small = uniform_fan_in(gain=self.depth**-0.5)
    self.out_proj = Dense(self.width, use_bias=self.bias, kernel_init=small, axes=("mlp", "embed"))

  def mix_channels(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.out_proj(gated(ACTIVATIONS[self.activation], self.limit, self.in_proj(x), self.gate_proj(x)))

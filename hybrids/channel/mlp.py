"""The two-layer perceptron of a Transformer block; its state is fixed, and empty."""

import flax.linen as nn
from jaxtyping import Array, Float

from layers import Dense
from layers.activations import some
from layers.choices import one_of
from layers.initializers import uniform_fan_in
from layers.mixer import PerToken
from layers.sizes import at_least_one, scaled
from mistake import Mistake

ACTIVATIONS = some("gelu", "gelu_tanh", "relu", "relu2", "silu")


class MLP(PerToken):
  """y = W_2 f(W_1 x)     Vaswani et al. 2017, arXiv:1706.03762, eq. (2).

  Departs: f defaults to GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415; tanh form), no biases unless `bias`, and W_2
  starts 1 / sqrt(depth) smaller, as in GPT-2.

  Attributes:
    expand: inner width as a multiple of `width`.
    inner: the inner width itself, in place of `expand`.
    depth: number of residual branches of the model; the stack sets it.
  Raises:
    ValueError: `inner`, or `expand` times `width`, is below 1, or `activation` is unknown.
  """

  width: int
  expand: float = 4
  inner: int | None = None
  activation: str = "gelu_tanh"
  bias: bool = False
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    one_of(self, activation=ACTIVATIONS)
    at_least_one(self, "width", "inner")
    if self.inner is None and scaled(self.expand, self.width) < 1:
      raise Mistake(f"MLP: expand={self.expand} times width={self.width} leaves no inner channels")

  def setup(self):
    inner = scaled(self.expand, self.width) if self.inner is None else self.inner
    self.in_proj = Dense(inner, use_bias=self.bias, kernel_init=uniform_fan_in(), axes=("embed", "mlp"))
    small = uniform_fan_in(gain=self.depth**-0.5)
    self.out_proj = Dense(self.width, use_bias=self.bias, kernel_init=small, axes=("mlp", "embed"))

  def mix_channels(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.out_proj(ACTIVATIONS[self.activation](self.in_proj(x)))

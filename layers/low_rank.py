"""A linear map of low rank, with an activation inside."""

import flax.linen as nn
from jaxtyping import Array, Float

from layers.activations import some
from layers.dense import Dense
from layers.initializers import Initializer, uniform_fan_in

ACTIVATIONS = some("none", "tanh", "sigmoid")


class LowRank(nn.Module):
  """y = f(x W_1) W_2 + bias.

  Attributes:
    rank: the size of x W_1.
    activation: f, "none", "tanh" or "sigmoid".
    bias_init: the initialiser of the bias; without it there is no bias.
  """

  features: int
  rank: int
  activation: str = "none"
  down_init: Initializer = uniform_fan_in()
  up_init: Initializer = uniform_fan_in()
  bias_init: Initializer | None = None
  axis: str | None = "heads"

  def setup(self):
    self.down = Dense(self.rank, kernel_init=self.down_init, axes=("embed", None))
    bias = {} if self.bias_init is None else dict(use_bias=True, bias_init=self.bias_init)
    self.up = Dense(self.features, kernel_init=self.up_init, axes=(None, self.axis), **bias)

  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """f(x W_1) W_2 + bias."""
    return self.up(ACTIVATIONS[self.activation](self.down(x)))

"""RNN: the plain recurrent network. State: fixed.

Elman 1990, Cognitive Science 14(2). Theirs: context units -> h.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import param
from layers.activations import some
from layers.choices import one_of
from ssm.rnn.loop import Recurrent

ACTIVATIONS = some("tanh", "relu")


class State(NamedTuple):
  h: Float[Array, "b d"]  # float32


class RNN(Recurrent):
  """h_t = tanh(W x_t + R h_{t-1} + bias),  y_t = h_t. Departs: nothing; R starts orthogonal.

  Attributes:
    activation: "tanh" or "relu".
  """

  width: int
  activation: str = "tanh"

  @nn.nowrap
  def check(self) -> None:
    one_of(self, activation=ACTIVATIONS)

  def setup(self):
    d = self.width
    self.W = param(self, "W", nn.initializers.lecun_normal(), (d, d), ("embed", "inner"))
    self.R = param(self, "R", nn.initializers.orthogonal(), (d, d), ("hidden", "inner"))
    self.bias = param(self, "bias", nn.initializers.zeros, (d,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width)))

  @property
  def recurrent(self) -> tuple[Float[Array, "d d"], ...]:
    """Returns the parameters that the cell reads."""
    return (self.R,)

  def cell(
    self, state: State, entered: Float[Array, "b g"], R: Float[Array, "d d"]
  ) -> tuple[State, Float[Array, "b d"]]:
    """Returns the next state and the output of one token."""
    h = ACTIVATIONS[self.activation](entered + state.h @ R)
    return State(h=h), h

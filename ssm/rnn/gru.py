"""GRU: one state between an update and a reset gate. State: fixed.

Cho et al. 2014, arXiv:1406.1078, sec. 2.3. Theirs: U -> R, h tilde -> n.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import param
from layers.choices import one_of
from ssm.rnn.loop import Recurrent, side_by_side

RESET_GATES = ("before", "after")


class State(NamedTuple):
  h: Float[Array, "b d"]  # float32


class GRU(Recurrent):
  """y_t = h_t = z_t h_{t-1} + (1 - z_t) n_t,  n_t = tanh(W x_t + R (r_t h_{t-1}) + bias)     eqs. (5)-(8)

  with gates r, z = sigmoid(W x_t + R h_{t-1} + bias), stored in the order r, z, n. Departs: there are biases, which the
  paper leaves out of its equations; each R starts orthogonal.

  Attributes:
    reset_gate: r stands "before" R, as in the paper, or "after" it, n_t = tanh(W x_t + r_t (R h_{t-1} + b) + bias), as
      in cuDNN, PyTorch and Flax.
  """

  width: int
  reset_gate: str = "before"

  @nn.nowrap
  def check(self) -> None:
    one_of(self, reset_gate=RESET_GATES)

  def setup(self):
    d = self.width
    self.W = param(self, "W", nn.initializers.lecun_normal(), (d, 3 * d), ("embed", "inner"))
    self.R = param(self, "R", side_by_side(nn.initializers.orthogonal(), 3), (d, 3 * d), ("hidden", "inner"))
    self.bias = param(self, "bias", nn.initializers.zeros, (3 * d,), ("inner",))
    if self.reset_gate == "after":
      self.b = param(self, "b", nn.initializers.zeros, (d,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width)))

  @property
  def recurrent(self) -> tuple[Float[Array, "..."], ...]:
    """Returns the parameters that the cell reads."""
    return (self.R,) if self.reset_gate == "before" else (self.R, self.b)

  def cell(
    self, state: State, entered: Float[Array, "b g"], R: Float[Array, "d g"], *b: Float[Array, " d"]
  ) -> tuple[State, Float[Array, "b d"]]:
    """Returns the next state and the output of one token."""
    h, d = state.h, self.width
    gates, new = jnp.split(entered, [2 * d], axis=-1)
    r, z = jnp.split(jax.nn.sigmoid(gates + h @ R[:, : 2 * d]), 2, axis=-1)
    past = (r * h) @ R[:, 2 * d :] if self.reset_gate == "before" else r * (h @ R[:, 2 * d :] + b[0])
    h = z * h + (1 - z) * jnp.tanh(new + past)
    return State(h=h), h

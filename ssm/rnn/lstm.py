"""LSTM: a memory cell between three gates. State: fixed.

Hochreiter & Schmidhuber 1997, Neural Computation 9(8); forget gate: Gers, Schmidhuber & Cummins 2000, ibid. 12(10).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import param
from layers.initializers import constant
from ssm.rnn.loop import Recurrent, side_by_side


class State(NamedTuple):
  h: Float[Array, "b d"]  # float32, the last output
  c: Float[Array, "b d"]  # float32, the memory


class LSTM(Recurrent):
  """c_t = f_t c_{t-1} + i_t g_t,  y_t = h_t = o_t tanh(c_t)

  with gates i, f, o = sigmoid(W x_t + R h_{t-1} + bias) and g = tanh(W x_t + R h_{t-1} + bias), stored in the order
  i, f, g, o. Departs: there are no peephole connections; each R starts orthogonal.

  Attributes:
    forget_bias: initial bias of f; 1 lets a new layer remember (Jozefowicz, Zaremba & Sutskever 2015).
  """

  width: int
  forget_bias: float = 1.0

  def setup(self):
    d = self.width
    self.W = param(self, "W", nn.initializers.lecun_normal(), (d, 4 * d), ("embed", "inner"))
    self.R = param(self, "R", side_by_side(nn.initializers.orthogonal(), 4), (d, 4 * d), (None, "inner"))
    bias = jnp.zeros((4, d)).at[1].set(self.forget_bias).reshape(4 * d)
    self.bias = param(self, "bias", constant(bias), (4 * d,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width)), c=jnp.zeros((batch, self.width)))

  def cell(self, state: State, entered: Float[Array, "b g"]) -> tuple[State, Float[Array, "b d"]]:
    """Returns the next state and the output of one token."""
    i, f, g, o = jnp.split(entered + state.h @ self.R, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return State(h=h, c=c), h

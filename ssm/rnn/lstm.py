"""LSTM: a memory cell between three gates. State: fixed.

Hochreiter & Schmidhuber 1997, Neural Computation 9(8); forget gate: Gers, Schmidhuber & Cummins 2000, ibid. 12(10).
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.lstm import lstm
from layers import param
from layers.initializers import constant
from layers.mixer import Where
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
    self.R = param(self, "R", side_by_side(nn.initializers.orthogonal(), 4), (d, 4 * d), ("hidden", "inner"))
    bias = jnp.zeros((4, d)).at[1].set(self.forget_bias).reshape(4 * d)
    self.bias = param(self, "bias", constant(bias), (4 * d,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width)), c=jnp.zeros((batch, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, (h, c) = lstm(self.enter(x), self.R, state.h, state.c, **where.masks)
    return y.astype(x.dtype), State(h=h, c=c)

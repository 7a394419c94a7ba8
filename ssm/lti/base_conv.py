"""BaseConv of Zoology and Based: a few taps per channel, then one gate. State: fixed.

Arora et al. 2024, arXiv:2402.18668, and the authors' code, HazyResearch/based. Theirs: expand_proj -> 2 expand.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import Dense, ShortConv
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one


class State(NamedTuple):
  taps: Float[Array, "b w e"]  # float32, the last inputs of the convolution


class BaseConv(Mixer):
  """y = W_out (SiLU(conv(u)) g) with [u, g] = W_in x, products by channel. Departs: nothing.

  Attributes:
    expand: inner channels / d.
    taps: width of the convolution, the current token included.
    bias, conv_bias: whether W_in and W_out, and the convolution, have biases.
  """

  width: int
  expand: int = 2
  taps: int = 3
  bias: bool = True
  conv_bias: bool = True

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "expand", "taps")

  def setup(self):
    inner = self.expand * self.width
    self.in_proj = Dense(2 * inner, use_bias=self.bias, axes=("embed", "inner"))
    self.out_proj = Dense(self.width, use_bias=self.bias, axes=("inner", "embed"))
    self.conv = ShortConv(inner, taps=self.taps, use_bias=self.conv_bias)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(taps=jnp.zeros((batch, self.taps - 1, self.expand * self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, g = jnp.split(self.in_proj(x), 2, axis=-1)
    u, taps = self.conv(u, state.taps, **where.masks)
    return self.out_proj(jax.nn.silu(u) * g), State(taps=taps)

"""Gated short convolution of LFM2: a few taps per channel between two gates. State: fixed.

Liquid AI 2025, LFM2 technical report, arXiv:2511.23404, and the model's code in transformers. Theirs: L_cache -> taps.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import Dense, ShortConv
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one


class State(NamedTuple):
  taps: Float[Array, "b w d"]  # float32, the last inputs of the convolution


class GatedConv(Mixer):
  """y = W_out (C conv(B v)) with [B, C, v] = W_in x, products by channel. Departs: nothing.

  Attributes:
    taps: width of the convolution, the current token included.
  """

  width: int
  taps: int = 3
  bias: bool = False

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "taps")

  def setup(self):
    self.in_proj = Dense(3 * self.width, use_bias=self.bias, axes=("embed", "inner"))
    self.out_proj = Dense(self.width, use_bias=self.bias, axes=("inner", "embed"))
    self.conv = ShortConv(self.width, taps=self.taps, use_bias=self.bias)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(taps=jnp.zeros((batch, self.taps - 1, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    B, C, v = jnp.split(self.in_proj(x), 3, axis=-1)
    y, taps = self.conv(B * v, state.taps, **where.masks)
    return self.out_proj(C * y), State(taps=taps)

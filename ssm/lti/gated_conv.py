"""Gated short convolution of LFM2: a few taps per channel between two gates. State: fixed.

Liquid AI 2025, LFM2 technical report, arXiv:2511.23404, and the model's code in transformers. Theirs: L_cache -> taps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from layers import Dense, ShortConv
from layers.lengths import blank_past
from mistake import Mistake


class State(NamedTuple):
  """What one layer remembers."""

  taps: Float[Array, "b w d"]  # float32, the last inputs of the convolution


class GatedConv(nn.Module):
  """y = W_out (C conv(B v)) with [B, C, v] = W_in x, products by channel. Departs: nothing.

  Attributes:
    taps: width of the convolution, the current token included.
    bias: whether W_in, W_out and the convolution have biases.
  Raises:
    ValueError: `taps` is below 1.
  """

  width: int
  taps: int = 3
  bias: bool = False

  STATE = "fixed"
  SLOW = ()
  SIDE = ()

  def __post_init__(self):
    if self.taps < 1:
      raise Mistake(f"GatedConv: taps={self.taps}; it must be at least 1")
    super().__post_init__()

  def setup(self):
    self.in_proj = Dense(3 * self.width, use_bias=self.bias, axes=("embed", "inner"))
    self.out_proj = Dense(self.width, use_bias=self.bias, axes=("inner", "embed"))
    self.conv = ShortConv(self.width, taps=self.taps, use_bias=self.bias)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    return State(taps=jnp.zeros((batch, self.taps - 1, self.width)))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state."""
    return self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths)[0]

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens from `state`."""
    B, C, v = jnp.split(self.in_proj(blank_past(x, lengths)), 3, axis=-1)
    y, taps = self.conv(B * v, state.taps, reset=reset, lengths=lengths)
    return blank_past(self.out_proj(C * y), lengths), State(taps=taps)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    B, C, v = jnp.split(self.in_proj(x), 3, axis=-1)
    y, taps = self.conv.step(B * v, state.taps)
    return self.out_proj(C * y), State(taps=taps)

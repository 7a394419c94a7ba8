"""SGConv: a convolution as long as the sequence, a few parameters for every scale of it. State: whole input.

Li, Cai, Zhang, Chen & Dey 2022, arXiv:2210.09298. Theirs: H -> d, L -> max_len, N -> scales, d -> taps.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.long_conv import long_conv
from layers import history, param
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake

JOINS = ("cat", "sum")
INTERPOLATIONS = ("linear", "nearest")
DECAYS = ("geometric", "learned")


class State(NamedTuple):
  past: history.History


class SGConv(Mixer):
  """y = K * x + D x,  K = [a^{S-1} up(w_0), a^{S-2} up(w_1), .., up(w_{S-1})] / Z for each channel     sec. 3

  followed by GELU and a linear map to 2d with a gated linear unit. Each w_i has `taps` parameters, `up` stretches it by
  2^max(0, i-1), and a is the channel's decay by scale. Z is the norm of the initial kernel: it is no parameter, and it
  is kept in the collection "buffers". Departs: Z is taken when the parameters are made, not in the first call.
  The convolution is one FFT: a token u moves the outputs before it by up to 1e-6 |u| |K| in float32, and by nothing in
  the form "causal", see `kernels.long_conv`.

  Attributes:
    taps: parameters per channel and scale.
    max_len: where kernels end; there are 1 + log2(max_len/taps) scales, rounded up.
    join: "cat", or "sum": all scales begin at lag 0, stretched by 2^i.
    interpolation: how `up` fills in: "linear" or "nearest".
    decay: "geometric" in the scale, or "learned": a = 1 and tap l is multiplied by (l+1)^-a, with a parameter a for
      each channel.
    decay_min, decay_max: range of a over the channels, evenly spaced; uniform if learned.
    activation: what follows the convolution: "glu" (GELU and gated linear map), "gelu" or "none".
  Raises:
    ValueError: a sequence or a state goes beyond `max_len`.
  """

  width: int
  taps: int = 64
  max_len: int = 4096
  join: str = "cat"
  interpolation: str = "linear"
  decay: str = "geometric"
  decay_min: float = 2.0
  decay_max: float = 2.0
  activation: str = "glu"

  STATE = "whole input"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "taps", "max_len")
    one_of(self, join=JOINS, interpolation=INTERPOLATIONS, decay=DECAYS, activation=ACTIVATIONS)
    if not 0 < self.decay_min <= self.decay_max:
      raise Mistake(f"SGConv: decay_min={self.decay_min}, decay_max={self.decay_max}; 0 < decay_min <= decay_max")

  def setup(self):
    shape = (self._scales, self.width, self.taps)
    self.scales = param(self, "scales", nn.initializers.normal(1.0), shape, (None, "inner", "taps"), slow=True)
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    if self.decay == "learned":
      uniform = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, self.decay_min, self.decay_max)
      self.decay_rate = param(self, "decay_rate", uniform, (self.width,), ("inner",), slow=True)
    whole = self.taps * 2 ** (self._scales - 1)
    self.norm = self.variable("buffers", "norm", lambda: jnp.linalg.norm(self._unnormalised(whole), axis=1))
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    history.require("SGConv", max_len, self.max_len)
    return State(past=history.empty(batch, max_len, self.width))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    y = long_conv(x, self._kernel(x.shape[1]), **where.masks)
    return activate(y, self.activation, self.out_proj)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, past = history.resume(x, self._kernel(state.past.u.shape[1]), state.past, **where.masks)
    return activate(y, self.activation, self.out_proj), State(past=past)

  @property
  def _scales(self) -> int:
    return 1 + max(0, math.ceil(math.log2(self.max_len / self.taps)))

  def _kernel(self, l: int) -> Float[Array, "d l"]:
    """Returns the first l taps, with D added to the tap of lag 0."""
    history.require("SGConv", l, self.max_len)
    K = self._unnormalised(l) / self.norm.value[:, None]
    return K + jnp.where(jnp.arange(l) == 0, self.D[:, None], 0)

  def _unnormalised(self, l: int) -> Float[Array, "d l"]:
    """Returns the first l taps of the kernel before it is divided by Z."""
    scales = self.scales
    if self.decay == "geometric":
      rate = jnp.linspace(self.decay_min, self.decay_max, self.width)
      scales = scales * rate[:, None] ** jnp.arange(self._scales)[::-1, None, None]
    K, start = jnp.zeros((self.width, l), scales.dtype), 0
    for i, w in enumerate(scales):
      stretch = 2**i if self.join == "sum" else 2 ** max(0, i - 1)
      lags = np.arange(min(l - start, stretch * self.taps))
      K = K.at[:, start : start + lags.size].add(_stretched(w, lags, stretch, self.interpolation))
      if self.join == "cat":
        start += lags.size
    return K * (1.0 + jnp.arange(l)) ** -self.decay_rate[:, None] if self.decay == "learned" else K


def _stretched(w: Float[Array, "d w"], lags: np.ndarray, stretch: int, interpolation: str) -> Float[Array, "d l"]:
  """Returns w stretched to `stretch` times its length, at these lags; a tap's value belongs to its middle."""
  if interpolation == "nearest":
    return w[:, lags // stretch]
  position = np.clip((lags + 0.5) / stretch - 0.5, 0, w.shape[1] - 1)
  left = position.astype(int)
  right = np.minimum(left + 1, w.shape[1] - 1)
  return w[:, left] + (position - left).astype(w.dtype) * (w[:, right] - w[:, left])

"""Hyena: long convolutions, whose filters are functions of the lag, and gates by turns. State: whole input.

Poli et al. 2023, arXiv:2302.10866; on DNA: Nguyen et al. 2023, arXiv:2306.15794. Theirs: D -> d, L -> t, N -> order.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.long_conv import long_conv
from layers import ShortConv, history, param, torch_dense
from layers.initializers import constant
from layers.mixer import Mixer, Where
from mistake import Mistake


class State(NamedTuple):
  past: tuple[history.History, ...]  # the inputs of each long convolution
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class Hyena(Mixer):
  """z_1 = v,  z_{i+1} = (h_i + b_i) * (x_i z_i),  y = W_out (x_N z_N)  with  v, x_1 .. x_N from x     def. 3.1

  by W_in and a short convolution. h_i(t) = window(t) (W sin(w W' .. sin(w W''' features(t)))), with features 1, cos and
  sin of multiples of the lag, and exp(-t |delta|) as the window of each channel, t = lag / (max_len - 1) (sec. 3.3).
  With several heads, each has the same filters, one for each of its channels.
  Departs: nothing, with remarks on the authors' code. A gate stands on both sides of each filter, so an operator of
  order N has N gates and N - 1 filters; all sines of the filter share their frequencies w, unless `share_frequency` is
  false. What lies beyond `max_len` is refused, not cut off. Heads, which are not in the paper, are sliced by the
  model's width there, so that more than one cannot run; here a head's slice is d / heads wide.
  Each convolution is one FFT: an input u of it moves the outputs before it by up to 1e-6 |u| |h| in float32, and by
  nothing in the form "causal", see `kernels.long_conv`.

  Attributes:
    order: N, the number of gates.
    heads: equal slices of the channels that share their filters; W_in has v and all gates of a head next to each other.
    outer_mixing: every channel of a head is gated by the sum of the head's gates, which is what summing up the outer
      product of gate and z amounts to; the last gate is elementwise always.
    max_len: where filters end, and the unit of their time; shorter sequences see the beginning of the same filters.
    filter_width, filter_depth: sizes of the map from features to filters: how wide, and how many inner layers.
    features: of the lag, the lag itself and (features - 1)/2 pairs of cosine and sine.
    frequency: initial w.
    taps: width of the short convolution.
    fast_decay, slow_decay: share of max_len after which the windows of the first-forgetting and of the last-forgetting
      channel are down to `floor`.
    shift: added to the windows.
  Raises:
    ValueError: a sequence or a state goes beyond `max_len`.
  """

  width: int
  order: int = 2
  heads: int = 1
  outer_mixing: bool = False
  max_len: int = 4096
  filter_width: int = 64
  filter_depth: int = 2
  features: int = 3
  frequency: float = 1.0
  share_frequency: bool = True
  taps: int = 3
  fast_decay: float = 0.3
  slow_decay: float = 1.5
  floor: float = 1e-2
  shift: float = 0.0

  STATE = "whole input"

  def setup(self):
    inner = (self.order + 1) * self.width
    self.in_proj = torch_dense(inner, ("embed", "inner"), fan_in=self.width, use_bias=True)
    self.out_proj = torch_dense(self.width, ("inner", "embed"), fan_in=self.width, use_bias=True)
    self.conv = ShortConv(inner, taps=self.taps)
    fan_in = [self.features, *[self.filter_width] * self.filter_depth]
    dense = functools.partial(torch_dense, self.filter_width, (None, None), use_bias=True)
    self.filter_layers = [dense(fan_in=n) for n in fan_in]
    channels = self.width // self.heads
    self.filter_out = torch_dense((self.order - 1) * channels, (None, "inner"))
    sines = 1 if self.share_frequency else 1 + self.filter_depth
    self.w = param(self, "w", constant(self.frequency), (sines, self.filter_width), (None, None), decay=False)
    b_shape = (self.order - 1, channels)
    self.b = param(self, "b", nn.initializers.normal(1.0), b_shape, (None, "inner"), decay=False)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    history.require("Hyena", max_len, self.max_len)
    past = tuple(history.empty(batch, max_len, self.width) for _ in range(self.order - 1))
    return State(past=past, taps=jnp.zeros((batch, self.taps - 1, (self.order + 1) * self.width)))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    z, gates, _ = self._split(x, self.conv.init_taps(x.shape[0]), where)
    for gate, h in zip(gates, self._filters(x.shape[1])):
      z = long_conv(self._gated(gate, z), h, **where.masks)
    return self.out_proj(gates[-1] * z)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    z, gates, taps = self._split(x, state.taps, where)
    filters = self._filters(state.past[0].u.shape[1])
    past = []
    for gate, h, before in zip(gates, filters, state.past):
      z, after = history.resume(self._gated(gate, z), h, before, **where.masks)
      past.append(after)
    return self.out_proj(gates[-1] * z), State(past=tuple(past), taps=taps)

  def _split(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w e"], where: Where
  ) -> tuple[Float[Array, "b t d"], list[Float[Array, "b t d"]], Float[Array, "b w e"]]:
    """Returns v, the gates in the order in which they are used, and the short convolution's next taps."""
    inner, taps = self.conv(self.in_proj(x), taps, **where.masks)
    by_head = inner.reshape(*inner.shape[:-1], self.heads, self.order + 1, self.width // self.heads)
    *gates, v = [by_head[..., i, :].reshape(x.shape) for i in range(self.order + 1)]
    return v, gates, taps

  def _gated(self, gate: Float[Array, "*b d"], z: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Returns the input of a filter."""
    if not self.outer_mixing:
      return gate * z
    by_head = lambda x: x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)
    return (jnp.sum(by_head(gate), axis=-1, keepdims=True) * by_head(z)).reshape(z.shape)

  def _filters(self, l: int) -> Float[Array, "o d l"]:
    """Returns the first l taps of each filter, with b added at lag 0; its windows span the whole range of decays."""
    history.require("Hyena", l, self.max_len)
    lag = jnp.arange(l, dtype=self.w.dtype)[:, None]
    time = lag / max(1, self.max_len - 1)
    angles = 2 * math.pi / self.max_len * lag * jnp.linspace(1e-4, self._bands - 1, self._bands)
    h = jnp.concatenate([time, jnp.cos(angles), -jnp.sin(angles)], axis=1)
    for layer, w in zip(self.filter_layers, jnp.broadcast_to(self.w, (1 + self.filter_depth, self.filter_width))):
      h = jnp.sin(w * layer(h))
    fall = -math.log(self.floor)
    channels = self.width // self.heads
    decay = jnp.linspace(fall / self.slow_decay, fall / self.fast_decay, (self.order - 1) * channels)
    h = self.filter_out(h) * (jnp.exp(-time * decay) + self.shift)
    h = h.T.reshape(channels, self.order - 1, l).swapaxes(0, 1)
    return jnp.tile(h + jnp.where(jnp.arange(l) == 0, self.b[..., None], 0), (1, self.heads, 1))

  @property
  def _bands(self) -> int:
    return (self.features - 1) // 2

  @nn.nowrap
  def check(self) -> None:
    least = {"width": 1, "order": 2, "max_len": 1, "filter_width": 1, "filter_depth": 0, "features": 3, "taps": 1}
    for field, size in least.items():
      if getattr(self, field) < size:
        raise Mistake(f"Hyena: {field}={getattr(self, field)}; it must be at least {size}")
    if self.heads < 1 or self.width % self.heads:
      raise Mistake(f"Hyena: heads={self.heads} does not divide width={self.width}")
    if self.features % 2 == 0:
      raise Mistake(f"Hyena: features={self.features}; the lag and pairs of cosine and sine make an odd number")
    if not 0 < self.fast_decay <= self.slow_decay:
      raise Mistake(f"Hyena: fast_decay={self.fast_decay}, slow_decay={self.slow_decay}; 0 < fast_decay <= slow_decay")
    if not 0 < self.floor <= 1:
      raise Mistake(f"Hyena: floor={self.floor}; a window falls from 1 to that, so it must be above 0 and at most 1")

"""Mamba: a selective state space between linear maps, after a short convolution and with a gate. State: fixed.

Gu & Dao 2023, arXiv:2312.00752. Theirs: D -> d, E D -> e, N -> state, L -> t, Delta -> dt.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from layers import Dense, ShortConv, torch_dense
from layers.mixer import Where
from layers.sizes import at_least_one
from ssm.selective.s6 import S6


class State(NamedTuple):
  h: Inexact[Array, "b e n"]  # float32, or complex64 with half as many
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class Mamba(S6):
  """y = W_out (S6(u) SiLU(z))  with [u, z] = W_in x, u after a short convolution and SiLU     fig. 3

  S6 is the selective state space h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t, y_t = C_t . h_t + D u_t, with dt, B and C
  computed from u: see `ssm.selective.s6.S6` for it and for its fields, which are Mamba's, too.

  Attributes:
    expand, inner: e, the channels of u, is `inner`, or `expand` d if that is not given.
    taps: width of the short convolution.
    bias, conv_bias: whether W_in and W_out, and the short convolution, have biases.
    depth: layers of the model; W_out starts smaller by its square root.
  """

  expand: int = 2
  inner: int | None = None
  taps: int = 4
  bias: bool = False
  conv_bias: bool = True
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "expand", "inner", "taps", "depth")
    super().check()

  def setup(self):
    self.in_proj, self.out_proj = in_and_out(self)
    self.conv = ShortConv(self._inner, taps=self.taps, use_bias=self.conv_bias)
    super().setup()

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=self._empty(batch), taps=jnp.zeros((batch, self.taps - 1, self._inner)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, z = jnp.split(self.in_proj(x), 2, axis=-1)
    u, taps = self.conv(u, state.taps, **where.masks)
    y, h = self._scan(jax.nn.silu(u), state.h, where, z)
    return self.out_proj(y), State(h=h, taps=taps)

  def mix_token(self, x, state: State, side):
    u, z = jnp.split(self.in_proj(x), 2, axis=-1)
    u, taps = self.conv.step(u, state.taps, activation="silu")
    y, h = self._advance(u, state.h, z)
    return self.out_proj(y), State(h=h, taps=taps)

  @property
  def _inner(self) -> int:
    return inner_of(self)


def inner_of(mixer: nn.Module) -> int:
  """Returns the inner width of a mixer with Mamba's fields."""
  return mixer.inner or mixer.expand * mixer.width


def in_and_out(mixer: nn.Module, gates: int = 1) -> tuple[Dense, Dense]:
  """Returns W_in, with `gates` more outputs for each channel, and W_out of a mixer with Mamba's fields."""
  inner, dense = inner_of(mixer), functools.partial(torch_dense, use_bias=mixer.bias)
  into = dense((1 + gates) * inner, ("embed", "inner"), fan_in=mixer.width)
  return into, dense(mixer.width, ("inner", "embed"), fan_in=inner, gain=mixer.depth**-0.5)


def s6_within(mixer: nn.Module, **fields) -> S6:
  """Returns the selective state space inside a mixer with Mamba's fields, over its inner channels."""
  same = {name: getattr(mixer, name) for name in ("state", "dt_min", "dt_max", "dt_floor")}
  rank = mixer.dt_rank or math.ceil(mixer.width / 16)
  return S6(**{"width": inner_of(mixer), "dt_rank": rank, **same, **fields})

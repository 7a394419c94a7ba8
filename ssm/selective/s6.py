"""S6, the selective state space by itself: step, input and output maps are computed from each token. State: fixed.

Gu & Dao 2023, arXiv:2312.00752. Theirs: D -> d, N -> state, L -> t, Delta -> dt.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels.selective_scan import RULES, selective_scan
from kernels.selective_step import selective_step
from layers import BlockDense, Dense, RMSNorm, param, torch_dense
from layers.choices import one_of
from layers.initializers import constant, softplus_step, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake


class State(NamedTuple):
  h: Inexact[Array, "b e n"]  # float32, or complex64 with half as many


class S6(Mixer):
  """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t,  y_t = C_t . h_t + D x_t     alg. 2

  with [delta, B, C] = W_x x and dt = softplus(W_dt delta + b), on the channels as they come: Mamba is this between two
  linear maps, after a short convolution and with a gate, and hybrids.shells has other blocks for it (tab. 1). A =
  -exp(A_log) is real and starts at -1 .. -N for every channel. Complex (sec. 3.6), A = -exp(A_log) + i A_im starts at
  -1/2 + i n for n = 0 .. N/2 - 1, B and C are pairs of real numbers, and y_t = 2 Re(C_t . h_t) + D x_t, as conjugate
  pairs are stored once.
  Departs: the input is discretised as dt B, as in the authors' code; `disc="zoh"` is what the text says.

  Attributes:
    state: N, real numbers per channel.
    spectrum: of A, "real" or "complex".
    disc: "euler", dt B, or "zoh", (exp(dt A) - 1) / A B.
    groups: how many B and C there are; each is shared by width / groups neighbouring channels.
    heads: equal slices of the channels; each has maps W_x and W_dt of its own, and groups / heads of the groups, as in
      Zamba (Glorioso et al. 2024, arXiv:2405.16712).
    norms: of delta, B and C before they are used: "none", "learned" RMS norms (Lieber et al. 2024, Jamba,
      arXiv:2403.19887, sec. 6.4) or "weightless" ones (Zuo et al. 2024, Falcon Mamba, arXiv:2410.05355). Over all
      groups of B of a head together, and of C; heads share the scales.
    norm_eps: the epsilon of these norms.
    dt_rank: size of a head's delta; d/16, rounded up, if not given.
    dt_min, dt_max, dt_floor: softplus(b) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
  """

  width: int
  state: int = 16
  spectrum: str = "real"
  disc: str = "euler"
  groups: int = 1
  heads: int = 1
  norms: str = "none"
  norm_eps: float = 1e-6
  dt_rank: int | None = None
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4

  @nn.nowrap
  def check(self) -> None:
    name = type(self).__name__
    at_least_one(self, "width", "state", "groups", "heads", "dt_rank")
    one_of(self, spectrum=("real", "complex"), disc=RULES, norms=("none", "learned", "weightless"))
    if self.spectrum == "complex" and self.state % 2:
      raise Mistake(f"{name}: state={self.state}; conjugate pairs are stored once, so it must be even")
    if self._inner % self.groups:
      raise Mistake(f"{name}: groups={self.groups} does not divide the inner width {self._inner}")
    if self.groups % self.heads:
      raise Mistake(f"{name}: heads={self.heads} does not divide groups={self.groups}; each head has groups of its own")
    softplus_step(self.dt_min, self.dt_max)  # raises

  def setup(self):
    inner, selected = self._inner, self.heads * self._rank + 2 * self.groups * self.state
    uniform = uniform_fan_in()
    step = dict(use_bias=True, kernel_init=uniform, bias_init=softplus_step(self.dt_min, self.dt_max, self.dt_floor))
    if self.heads == 1:
      self.x_proj = torch_dense(selected, ("inner", None))
      self.dt_proj = Dense(inner, axes=("hidden", "inner"), **step)
    else:
      self.x_proj = BlockDense(self.heads, selected, kernel_init=uniform)
      self.dt_proj = BlockDense(self.heads, inner, **step)
    n, complex_A = self._states, self.spectrum == "complex"
    A_log = constant(jnp.log(jnp.full(n, 0.5) if complex_A else jnp.arange(1, n + 1)))
    self.A_log = param(self, "A_log", A_log, (inner, n), ("inner", "state"), slow=True)
    if complex_A:
      self.A_im = param(self, "A_im", constant(jnp.arange(n)), (inner, n), ("inner", "state"), slow=True)
    if self.norms != "none":
      norm = lambda: RMSNorm(eps=self.norm_eps, axis=None, use_scale=self.norms == "learned")
      self.dt_norm, self.B_norm, self.C_norm = norm(), norm(), norm()
    self.D = param(self, "D", nn.initializers.ones, (inner,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=self._empty(batch))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, h = self._scan(x, state.h, where)
    return y, State(h=h)

  def mix_token(self, x, state: State, side):
    y, h = self._advance(x, state.h)
    return y, State(h=h)

  @property
  def _inner(self) -> int:
    """Returns the number of channels that the state space reads."""
    return self.width

  @property
  def _rank(self) -> int:
    return self.dt_rank or math.ceil(self.width / 16)

  @nn.nowrap
  def _empty(self, batch: int) -> Inexact[Array, "b e n"]:
    return jnp.zeros((batch, self._inner, self._states), complex if self.spectrum == "complex" else float)

  def _scan(
    self, u: Float[Array, "b t e"], h: Inexact[Array, "b e n"], where: Where, z: Float[Array, "b t e"] | None = None
  ) -> tuple[Float[Array, "b t e"], Inexact[Array, "b e n"]]:
    """Returns y of all tokens, with the factor SiLU(z) if there is a z, and the last state."""
    dt, B, C = self._select(u)
    args = u, dt, self._A(), B, C, h, self.D, z
    return selective_scan(*args, softplus=True, disc=self.disc, **where.masks)

  def _advance(
    self, u: Float[Array, "b e"], h: Inexact[Array, "b e n"], z: Float[Array, "b e"] | None = None
  ) -> tuple[Float[Array, "b e"], Inexact[Array, "b e n"]]:
    """Returns y of one token, and the next state."""
    dt, B, C = self._select(u)
    return selective_step(u, dt, self._A(), B, C, self.D, z, h, softplus=True, disc=self.disc)

  @property
  def _states(self) -> int:
    """Returns how many numbers a channel stores."""
    return self.state // 2 if self.spectrum == "complex" else self.state

  def _A(self) -> Inexact[Array, "e n"]:
    A = -jnp.exp(self.A_log)
    return jax.lax.complex(A, self.A_im) if self.spectrum == "complex" else A

  def _select(
    self, u: Float[Array, "*b e"]
  ) -> tuple[Float[Array, "*b e"], Inexact[Array, "*b g n"], Inexact[Array, "*b g n"]]:
    """Returns dt before softplus, B and C; dt is in at least float32, as it decides how long the state remembers."""
    selected = self.x_proj(u)
    if self.heads > 1:
      selected = selected.reshape(*u.shape[:-1], self.heads, -1)
    size = self.groups // self.heads * self.state
    delta, B, C = jnp.split(selected, [self._rank, self._rank + size], axis=-1)
    if self.norms != "none":
      delta, B, C = self.dt_norm(delta), self.B_norm(B), self.C_norm(C)
    delta = delta.reshape(*u.shape[:-1], self.heads * self._rank)
    dt = self.dt_proj(delta.astype(jnp.promote_types(delta.dtype, jnp.float32)))
    grouped = lambda z: self._numbers(z.reshape(*u.shape[:-1], self.groups, self.state))
    return dt, grouped(B), grouped(C) * (2 if self.spectrum == "complex" else 1)

  def _numbers(self, B: Float[Array, "*b g m"]) -> Inexact[Array, "*b g n"]:
    """Returns the numbers of each group; of complex ones the real parts come first."""
    if self.spectrum == "real":
      return B
    re, im = jnp.split(B.astype(jnp.promote_types(B.dtype, jnp.float32)), 2, axis=-1)
    return jax.lax.complex(re, im)

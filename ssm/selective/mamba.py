"""Mamba (S6): a diagonal state space whose step, input and output maps are computed from each token. State: fixed.

Gu & Dao 2023, arXiv:2312.00752. Theirs: D -> d, E D -> e, N -> state, L -> t, Delta -> dt.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.selective_scan import selective_scan
from layers import Dense, ShortConv, param
from layers.initializers import constant, softplus_step, uniform_fan_in
from layers.lengths import blank_past


class State(NamedTuple):
  """What one layer remembers."""

  h: Float[Array, "b e n"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class Mamba(nn.Module):
  """h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t,  y_t = C_t . h_t + D u_t     alg. 2

  with [u, z] = W_in x, u after a short convolution and SiLU, [delta, B, C] = W_x u, dt = softplus(W_dt delta + b), and
  W_out (y SiLU(z)) as the result (fig. 3). A = -exp(A_log) is real and starts at -1 .. -N for every channel.
  Departs: the input is discretised as dt B, as in the authors' code; the text says zero-order hold.

  Attributes:
    expand: e / d.
    state: N, numbers per inner channel.
    taps: width of the short convolution.
    dt_rank: size of delta; d/16, rounded up, if not given.
    dt_min, dt_max, dt_floor: softplus(b) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
    bias, conv_bias: whether W_in and W_out, and the short convolution, have biases.
    depth: layers of the model; W_out starts smaller by its square root.
  Raises:
    ValueError: a size is below 1, or not 0 < dt_min <= dt_max.
  """

  width: int
  state: int = 16
  expand: int = 2
  taps: int = 4
  dt_rank: int | None = None
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  bias: bool = False
  conv_bias: bool = True
  depth: int = 1

  STATE = "fixed"
  SLOW = ("A_log",)
  SIDE = ()

  def __post_init__(self):
    for field in ("width", "state", "expand", "taps", "dt_rank", "depth"):
      if getattr(self, field) is not None and getattr(self, field) < 1:
        raise ValueError(f"Mamba: {field}={getattr(self, field)}; it must be at least 1")
    softplus_step(self.dt_min, self.dt_max)  # raises
    super().__post_init__()

  def setup(self):
    inner, rank = self.expand * self.width, self._rank
    dense = lambda features, fan_in, axes, gain=1.0: Dense(
      features,
      use_bias=self.bias,
      kernel_init=uniform_fan_in(fan_in, gain),
      bias_init=uniform_fan_in(fan_in),
      axes=axes,
    )
    self.in_proj = dense(2 * inner, self.width, ("embed", "inner"))
    self.out_proj = dense(self.width, inner, ("inner", "embed"), gain=self.depth**-0.5)
    self.conv = ShortConv(inner, taps=self.taps, use_bias=self.conv_bias)
    self.x_proj = Dense(rank + 2 * self.state, kernel_init=uniform_fan_in(), axes=("inner", None))
    self.dt_proj = Dense(
      inner,
      use_bias=True,
      kernel_init=uniform_fan_in(),
      bias_init=softplus_step(self.dt_min, self.dt_max, self.dt_floor),
      axes=(None, "inner"),
    )
    A_log = constant(jnp.log(jnp.arange(1, self.state + 1)))
    self.A_log = param(self, "A_log", A_log, (inner, self.state), ("inner", "state"))
    self.D = param(self, "D", nn.initializers.ones, (inner,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    inner = self.expand * self.width
    return State(h=jnp.zeros((batch, inner, self.state)), taps=jnp.zeros((batch, self.taps - 1, inner)))

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
    u, z = jnp.split(self.in_proj(blank_past(x, lengths)), 2, axis=-1)
    u, taps = self.conv(u, state.taps, reset=reset, lengths=lengths)
    u = jax.nn.silu(u)
    dt, B, C = self._select(u)
    A = -jnp.exp(self.A_log)
    y, h = selective_scan(u, dt, A, B[:, :, None], C[:, :, None], state.h, reset=reset, lengths=lengths)
    return blank_past(self._gate(y, u, z), lengths), State(h=h, taps=taps)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    u, z = jnp.split(self.in_proj(x), 2, axis=-1)
    u, taps = self.conv.step(u, state.taps)
    u = jax.nn.silu(u)
    dt, B, C = self._select(u)
    A = -jnp.exp(self.A_log)
    h = jnp.exp(dt[..., None] * A) * state.h + (dt * u)[..., None] * B[:, None]
    y = jnp.einsum("ben,bn->be", h, C.astype(h.dtype))
    return self._gate(y.astype(u.dtype), u, z), State(h=h, taps=taps)

  @property
  def _rank(self) -> int:
    return self.dt_rank or math.ceil(self.width / 16)

  def _select(self, u: Float[Array, "*b e"]) -> tuple[Float[Array, "*b e"], Float[Array, "*b n"], Float[Array, "*b n"]]:
    """dt, B and C, which choose what is kept; dt in at least float32, as its exponential decides how long."""
    delta, B, C = jnp.split(self.x_proj(u), [self._rank, self._rank + self.state], axis=-1)
    return jax.nn.softplus(self.dt_proj(delta.astype(jnp.promote_types(delta.dtype, jnp.float32)))), B, C

  def _gate(self, y: Float[Array, "*b e"], u: Float[Array, "*b e"], z: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    return self.out_proj((y + self.D.astype(u.dtype) * u) * jax.nn.silu(z))

"""Mamba-2 (SSD): a state space per head with one decay for all its states, computed from each token. State: fixed.

Dao & Gu 2024, arXiv:2405.21060. Theirs: D -> d, N -> state, P -> head_size, H -> h, G -> groups, T -> t, Delta -> dt.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.ssd import ssd
from kernels.ssd_step import NORMS, ssd_step
from layers import GatedRMSNorm, ShortConv, param, torch_dense
from layers.choices import one_of
from layers.initializers import log_uniform, softplus_step
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, largest_divisor
from mistake import Mistake


class State(NamedTuple):
  S: Float[Array, "b h k p"]  # float32
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class Mamba2(Mixer):
  """S_t = exp(dt_t A) S_{t-1} + B_t (dt_t u_t)^T,  y_t = S_t^T C_t + D u_t  for each head     eq. (6), sec. 7

  with [z, u, B, C, dt] = W_in x, [u, B, C] after a short convolution and SiLU, dt = softplus(dt + dt_bias), and
  W_out norm(y SiLU(z)) as the result. A = -exp(A_log) is a number per head; B and C are shared by the heads of a group.
  If `ssm_width` is below the inner width, the rest of it is a gated MLP beside all that: W_in begins with its z_0
  and u_0, and W_out takes [SiLU(z_0) u_0, norm(..)].
  Departs: nothing; as in the authors' code, the input is discretised as dt B.

  Attributes:
    state: N, rows of S.
    expand, inner: the inner width is `inner`, or `expand` d if that is not given (Falcon-H1 and Nemotron-H give it).
    ssm_width: the part of the inner width that goes through the state space; all of it, if not given.
    head_size: P, columns of S; the largest divisor of `ssm_width` not above 64, if not given.
    groups: G; heads in a row share B and C.
    taps: width of the short convolution.
    norm: "gate_first" norm(y SiLU(z)), "norm_first" norm(y) SiLU(z), or "none" y SiLU(z).
    norm_groups: equal parts of y that are normalised apart; `groups`, as in the authors' code, if not given.
    D_per: one D for each "head" or each "channel".
    A_min, A_max: -A starts uniform in [A_min, A_max].
    dt_min, dt_max, dt_floor: softplus(dt_bias) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
    dt_least, dt_most: the bounds to which dt is clipped.
    bias, conv_bias: whether W_in and W_out, and the short convolution, have biases.
    depth: layers of the model; W_out starts smaller by its square root.
  """

  width: int
  state: int = 128
  expand: int = 2
  inner: int | None = None
  ssm_width: int | None = None
  head_size: int | None = None
  groups: int = 1
  taps: int = 4
  norm: str = "gate_first"
  norm_groups: int | None = None
  norm_eps: float = 1e-5
  D_per: str = "head"
  A_min: float = 1.0
  A_max: float = 16.0
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  dt_least: float = 0.0
  dt_most: float = math.inf
  bias: bool = False
  conv_bias: bool = True
  depth: int = 1

  def setup(self):
    inner, heads, _ = self._sizes
    mixed = inner + 2 * self.groups * self.state
    dense = functools.partial(torch_dense, use_bias=self.bias)
    self.in_proj = dense(2 * self._beside + inner + mixed + heads, ("embed", "inner"), fan_in=self.width)
    self.out_proj = dense(self.width, ("inner", "embed"), fan_in=self._beside + inner, gain=self.depth**-0.5)
    self.conv = ShortConv(mixed, taps=self.taps, use_bias=self.conv_bias)
    dt_bias = softplus_step(self.dt_min, self.dt_max, self.dt_floor)
    self.dt_bias = param(self, "dt_bias", dt_bias, (heads,), ("heads",), slow=True)
    self.A_log = param(self, "A_log", log_uniform(self.A_min, self.A_max), (heads,), ("heads",), slow=True)
    shape, axes = ((heads,), ("heads",)) if self.D_per == "head" else ((inner,), ("inner",))
    self.D = param(self, "D", nn.initializers.ones, shape, axes)
    if self.norm != "none":
      self.gated_norm = GatedRMSNorm(self.norm, groups=self.norm_groups or self.groups, eps=self.norm_eps)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    inner, heads, size = self._sizes
    taps = jnp.zeros((batch, self.taps - 1, inner + 2 * self.groups * self.state))
    return State(S=jnp.zeros((batch, heads, self.state, size)), taps=taps)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    beside, z, mixed, dt = self._project(x)
    mixed, taps = self.conv(mixed, state.taps, **where.masks)
    u, B, C = self._split(jax.nn.silu(mixed))
    log_a = -dt * jnp.exp(self.A_log)
    y, S = ssd(C, B, dt[..., None] * u, log_a, state.S, **where.masks)
    y = (y.astype(u.dtype) + self._D().astype(u.dtype) * u).reshape(z.shape)
    y = y * jax.nn.silu(z) if self.norm == "none" else self.gated_norm(y, z)
    return self._leave(beside, y), State(S=S, taps=taps)

  def mix_token(self, x, state: State, side):
    beside, z, mixed, dt = self._project(x)
    y, taps, S = ssd_step(
      *(mixed, z, dt, state.taps, state.S),
      kernel=self.conv.kernel,
      bias=self.conv.bias if self.conv_bias else None,
      A=-jnp.exp(self.A_log),
      D=self._D(),
      scale=None if self.norm == "none" else self.gated_norm.scale(z.shape[-1]),
      norm=self.norm,
      norm_groups=self.norm_groups or self.groups,
      eps=self.norm_eps,
    )
    return self._leave(beside, y), State(S=S, taps=taps)

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Returns the width of the state space, the number of heads, and the size of one."""
    inner = self.ssm_width or self._inner
    size = self.head_size or largest_divisor(inner, 64)
    return inner, inner // size, size

  @property
  def _beside(self) -> int:
    """Returns the width of the gated MLP."""
    return self._inner - self._sizes[0]

  @property
  def _inner(self) -> int:
    return self.inner or self.expand * self.width

  def _project(
    self, x: Float[Array, "*b d"]
  ) -> tuple[Float[Array, "*b f"], Float[Array, "*b e"], Float[Array, "*b m"], Float[Array, "*b h"]]:
    """Returns the MLP's SiLU(z_0) u_0, z, the input of the convolution, and dt.

    dt is in at least float32, as it decides how long the state remembers.
    """
    inner, heads, _ = self._sizes
    projected = self.in_proj(x)
    ends = [self._beside, 2 * self._beside, 2 * self._beside + inner, projected.shape[-1] - heads]
    z_0, u_0, z, mixed, dt = jnp.split(projected, ends, axis=-1)
    dt = jax.nn.softplus(dt.astype(jnp.promote_types(dt.dtype, jnp.float32)) + self.dt_bias)
    return jax.nn.silu(z_0) * u_0, z, mixed, jnp.clip(dt, self.dt_least, self.dt_most)

  def _split(
    self, mixed: Float[Array, "*b m"]
  ) -> tuple[Float[Array, "*b h p"], Float[Array, "*b g k"], Float[Array, "*b g k"]]:
    """Returns u by heads, B and C by groups."""
    inner, heads, size = self._sizes
    u, B, C = jnp.split(mixed, [inner, inner + self.groups * self.state], axis=-1)
    B, C = (value.reshape(*value.shape[:-1], self.groups, self.state) for value in (B, C))
    return u.reshape(*u.shape[:-1], heads, size), B, C

  def _D(self) -> Float[Array, "h q"]:
    return self.D.reshape(self._sizes[1], -1)

  def _leave(self, beside: Float[Array, "*b f"], y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    return self.out_proj(jnp.concatenate([beside, y], axis=-1) if self._beside else y)

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "expand", "inner", "ssm_width", "head_size", "groups")
    at_least_one(self, "taps", "norm_groups", "depth")
    inner, heads, size = self._sizes
    norm_groups = self.norm_groups or self.groups
    if self._beside < 0:
      raise Mistake(f"Mamba2: ssm_width={inner} is more than the inner width {self._inner}")
    of_ssm = "inner width" if self.ssm_width is None else "ssm_width"
    for field, value, of, parts in (
      ("head_size", size, of_ssm, inner),
      ("groups", self.groups, "number of heads", heads),
      ("norm_groups", norm_groups, of_ssm, inner),
    ):
      if parts % value:
        raise Mistake(f"Mamba2: {field}={value} does not divide the {of} {parts}")
    one_of(self, norm=NORMS, D_per=("head", "channel"))
    if not 0 <= self.dt_least < self.dt_most:
      raise Mistake(f"Mamba2: dt_least={self.dt_least}, dt_most={self.dt_most}; it needs 0 <= dt_least < dt_most")
    softplus_step(self.dt_min, self.dt_max)  # raises
    log_uniform(self.A_min, self.A_max)  # raises

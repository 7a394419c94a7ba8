"""LSSL: the linear state-space layer, with a dense matrix A. State: fixed.

Gu, Johnson, Goel, Saab, Dao, Rudra & Re 2021, arXiv:2110.13985. Theirs: H -> d, N -> state, L -> t, Delta t -> dt.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from kernels.long_conv import long_conv
from kernels.lti import lti, plan
from layers import Dense, param
from layers.choices import one_of
from layers.initializers import constant, log_step, uniform_fan_in
from layers.lengths import blank_past
from mistake import Mistake
from ssm.lti import dense, hippo

LEARN = ("all", "output")


class State(NamedTuple):
  """What one layer remembers."""

  h: Float[Array, "b e n"]  # float32


class LSSL(nn.Module):
  """h_t = Abar h_{t-1} + Bbar x_t,  y_t = C . h_t + D x_t for each channel     eqs. (1) to (3)

  by the generalised bilinear transform, Abar = (1 - a dt A)^{-1} (1 + (1-a) dt A), Bbar = dt (1 - a dt A)^{-1} B;
  followed by GELU and a linear map. In parallel the layer is a convolution with the Krylov product C Abar^l Bbar, which
  takes O(N^3 log t + N t) per channel: this is the layer that S4 was made from, for small N and for comparison.
  Departs: a learned A is any matrix, where the paper keeps it quasiseparable; a state space has one output (M = 1).

  Attributes:
    state: N, numbers per channel.
    A_init: the HiPPO matrix from which A and B start: "legs", "legt", "lagt" or "fout".
    learn: "all", or "output": A, B and dt stay as they are, the steps evenly spaced in their logarithm ("LSSL-f").
    alpha: a; 1/2 is Tustin's rule, 1 backward Euler; below 1/2 fast states may grow.
    dt_min, dt_max: range of the initial time step; log-uniform, one per channel.
    copies: how many independent A and B there are, shared in turn by the channels.
  Raises:
    ValueError: `state` is below 1, or odd with "fout"; `copies` does not divide `width`; a name is unknown; `alpha` is
      not in [0, 1]; not 0 < dt_min <= dt_max.
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  learn: str = "all"
  alpha: float = 0.5
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  copies: int = 1

  STATE = "fixed"
  SIDE = ()

  @property
  def SLOW(self) -> tuple[str, ...]:
    """What makes Abar and Bbar, where it is learned."""
    return ("A", "B", "log_dt") if self.learn == "all" else ()

  def __post_init__(self):
    _check(self)
    super().__post_init__()

  def setup(self):
    n = self.state
    A, B = hippo.MEASURES[self.A_init](n)
    if self.learn == "all":
      share = "inner" if self.copies == self.width else None
      self.A = param(self, "A", constant(A), (self.copies, n, n), (share, "state", None))
      self.B = param(self, "B", constant(B), (self.copies, n), (share, "state"))
      self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",))
    else:
      self.A, self.B = jnp.asarray(A[None], float), jnp.asarray(B[None], float)
      self.log_dt = jnp.linspace(np.log(self.dt_min), np.log(self.dt_max), self.width)
    normal = nn.initializers.normal(1.0)
    self.C = param(self, "C", normal, (self.width, n), ("inner", "state"))
    self.D = param(self, "D", normal, (self.width,), ("inner",))
    torch_like = uniform_fan_in(self.width)
    self.out_proj = Dense(
      self.width, use_bias=True, kernel_init=torch_like, bias_init=torch_like, axes=("inner", "embed")
    )

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    return State(h=jnp.zeros((batch, self.width, self.state)))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state: one convolution where `lti` would use one, as no state is wanted."""
    l, _ = plan(x.shape[1], packed=reset is not None)
    if l < x.shape[1]:
      return self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths)[0]
    y = long_conv(
      blank_past(x, lengths), dense.taps(*self._discrete(), self.C, self.D, l), reset=reset, lengths=lengths
    )
    return blank_past(self._read(y), lengths)

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
    _, c = plan(x.shape[1], packed=reset is not None)
    system = dense.system(*self._discrete(), self.C, self.D, c)
    y, h = lti(blank_past(x, lengths), system, state.h, reset=reset, lengths=lengths)
    return blank_past(self._read(y), lengths), State(h=h)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    E, B = self._discrete()
    h = state.h + jnp.einsum("eij,bej->bei", E, state.h, precision=dense.HIGHEST) + B * x[..., None]
    y = jnp.sum(self.C * h, axis=-1) + self.D * x
    return self._read(y.astype(x.dtype)), State(h=h)

  def _discrete(self) -> tuple[Float[Array, "e n n"], Float[Array, "e n"]]:
    """Abar - 1 = (1 - a dt A)^{-1} dt A, and Bbar, of every channel."""
    times = self.width // self.A.shape[0]
    dt = jnp.exp(self.log_dt)[:, None, None]
    A, B = jnp.tile(self.A, (times, 1, 1)), jnp.tile(self.B, (times, 1))[..., None]
    found = jnp.linalg.solve(jnp.eye(self.state) - self.alpha * dt * A, dt * jnp.concatenate([A, B], axis=-1))
    return found[..., :-1], found[..., -1]

  def _read(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.out_proj(jax.nn.gelu(y, approximate=False))


def _check(module: LSSL) -> None:
  one_of(module, A_init=hippo.MEASURES, learn=LEARN)
  if module.state < 1 or (module.A_init == "fout" and module.state % 2):
    raise Mistake(f"LSSL: state={module.state}; it must be at least 1, and even for A_init='fout'")
  if module.copies < 1 or module.width % module.copies:
    raise Mistake(f"LSSL: copies={module.copies} does not divide width={module.width}")
  if not 0 <= module.alpha <= 1:
    raise Mistake(f"LSSL: alpha={module.alpha}; it must be in [0, 1]")
  log_step(module.dt_min, module.dt_max)  # raises

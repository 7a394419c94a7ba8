"""LRU: one diagonal complex recurrence, parametrised in discrete time, from all channels to all channels. State: fixed.

Orvieto et al. 2023, arXiv:2303.06349. Theirs: H -> d, N -> state, L -> t, Lambda -> lam.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from kernels.linear_scan import linear_scan
from layers import Dense, param
from layers.choices import one_of
from layers.initializers import ring
from layers.lengths import blank_past
from mistake import Mistake
from ssm.lti import dense_io


class State(NamedTuple):
  """What one layer remembers."""

  h: Complex[Array, "b n"]  # complex64


class LRU(nn.Module):
  """h_t = lam h_{t-1} + exp(gamma_log) B x_t,  y_t = Re(C h_t) + D x_t;  lam = exp(-exp(nu_log) + i exp(theta_log))

  (secs. 3.3, 3.4 and app. A), then GELU and a gated linear map, so that |lam| < 1 whatever is learned. Departs:
  nothing; as in the paper, no conjugate pairs are meant (hence no factor 2), and gamma, which starts at
  sqrt(1 - |lam|^2), is trained by itself.

  Attributes:
    state: N, complex numbers.
    r_min, r_max: lam starts uniform over the area of this ring (lemma 3.2) ...
    max_phase: ... with phases in [0, max_phase], in radians; long sequences want a narrow slice (sec. 3.4).
    activation: what follows: see `dense_io.activate`.
  Raises:
    ValueError: `state` is below 1, not 0 <= r_min < r_max <= 1, not 0 < max_phase <= 2 pi, or a name is unknown.
  """

  width: int
  state: int = 128
  r_min: float = 0.0
  r_max: float = 1.0
  max_phase: float = 2 * math.pi
  activation: str = "full_glu"

  STATE = "fixed"
  SLOW = ("nu_log", "theta_log", "gamma_log", "B_re", "B_im")
  SIDE = ()

  def __post_init__(self):
    if self.state < 1:
      raise Mistake(f"LRU: state={self.state}; it must be at least 1")
    if not 0 < self.max_phase <= 2 * math.pi:
      raise Mistake(f"LRU: max_phase={self.max_phase}; phases need 0 < max_phase <= 2 pi")
    one_of(self, activation=dense_io.ACTIVATIONS)
    ring(self.r_min, self.r_max)  # raises
    super().__post_init__()

  def setup(self):
    d, n = self.width, self.state
    nu = ring(self.r_min, self.r_max)
    self.nu_log = param(self, "nu_log", lambda *args: jnp.log(nu(*args)), (n,), ("state",))
    self.theta_log = param(self, "theta_log", self._initial_theta_log, (n,), ("state",))
    self.gamma_log = param(self, "gamma_log", lambda *_: 0.5 * jnp.log(self._lost()), (n,), ("state",))
    B_init, C_init = nn.initializers.normal((2 * d) ** -0.5), nn.initializers.normal(n**-0.5)
    self.B_re = param(self, "B_re", B_init, (n, d), ("state", "embed"))
    self.B_im = param(self, "B_im", B_init, (n, d), ("state", "embed"))
    self.C_re = param(self, "C_re", C_init, (d, n), ("embed", "state"))
    self.C_im = param(self, "C_im", C_init, (d, n), ("embed", "state"))
    self.D = param(self, "D", nn.initializers.normal(1.0), (d,), ("embed",))
    dense = lambda: Dense(d, use_bias=True, axes=("embed", "inner"))
    self.gate = None if self.activation in ("gelu", "none") else dense()
    self.out_proj = dense() if self.activation == "full_glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    return State(h=jnp.zeros((batch, self.state), complex))

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
    x = blank_past(x, lengths)
    h, last = linear_scan(self._lam(), self._enter(x), state.h, reset=reset, lengths=lengths)
    return blank_past(self._read(h, x), lengths), State(h=last)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    h = self._lam() * state.h + self._enter(x)
    return self._read(h, x), State(h=h)

  def _lam(self) -> Complex[Array, "n"]:
    return jnp.exp(jax.lax.complex(-jnp.exp(self.nu_log), jnp.exp(self.theta_log)))

  def _lost(self) -> Float[Array, "n"]:
    """1 - |lam|^2, which does not cancel."""
    return -jnp.expm1(-2 * jnp.exp(self.nu_log))

  def _enter(self, x: Float[Array, "*b d"]) -> Complex[Array, "*b n"]:
    # times B rather than B x, which is larger by the tokens
    gamma = jnp.exp(self.gamma_log)[:, None]
    return dense_io.into_state(x, gamma * self.B_re, gamma * self.B_im)

  def _read(self, h: Complex[Array, "*b n"], x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    y = dense_io.read_out(h, self.C_re, self.C_im, x.dtype) + self.D * x
    return dense_io.activate(self.activation, y.astype(x.dtype), self.gate, self.out_proj)

  @nn.nowrap
  def _initial_theta_log(self, key, shape, dtype) -> Float[Array, "n"]:
    """log of U(0, max_phase), without 0."""
    return jnp.log(self.max_phase * jax.random.uniform(key, shape, dtype, jnp.finfo(dtype).eps))

"""LRU: one diagonal complex recurrence, parametrised in discrete time, from all channels to all channels. State: fixed.

Orvieto et al. 2023, arXiv:2303.06349. Theirs: H -> d, N -> state, L -> t, Lambda -> lam.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels.linear_scan import linear_scan
from layers import Dense, param
from layers.choices import one_of
from layers.initializers import ring
from layers.mixer import Mixer, Where
from mistake import Mistake
from ssm.lti import dense_io


class State(NamedTuple):
  h: Complex[Array, "b n"]  # complex64


class LRU(Mixer):
  """h_t = lam h_{t-1} + exp(gamma_log) B x_t,  y_t = Re(C h_t) + D x_t;  lam = exp(-exp(nu_log) + i exp(theta_log))

  (secs. 3.3, 3.4 and app. A), then GELU and a gated linear map, so that |lam| < 1 whatever is learned. Departs:
  nothing; as in the paper, no conjugate pairs are meant (hence no factor 2), and gamma, which starts at
  sqrt(1 - |lam|^2), is trained by itself.

  Attributes:
    state: N, complex numbers.
    r_min, r_max: lam starts uniform over the area of this ring (lemma 3.2) ...
    max_phase: ... with phases in [0, max_phase], in radians; long sequences want a narrow slice (sec. 3.4).
    activation: what follows: see `dense_io.activate`.
  """

  width: int
  state: int = 128
  r_min: float = 0.0
  r_max: float = 1.0
  max_phase: float = 2 * math.pi
  activation: str = "full_glu"

  @nn.nowrap
  def check(self) -> None:
    if self.state < 1:
      raise Mistake(f"LRU: state={self.state}; it must be at least 1")
    if not 0 < self.max_phase <= 2 * math.pi:
      raise Mistake(f"LRU: max_phase={self.max_phase}; phases need 0 < max_phase <= 2 pi")
    one_of(self, activation=dense_io.ACTIVATIONS)
    ring(self.r_min, self.r_max)  # raises

  def setup(self):
    d, n = self.width, self.state
    nu = ring(self.r_min, self.r_max)
    self.nu_log = param(self, "nu_log", lambda *args: jnp.log(nu(*args)), (n,), ("state",), slow=True)
    self.theta_log = param(self, "theta_log", self._initial_theta_log, (n,), ("state",), slow=True)
    self.gamma_log = param(self, "gamma_log", self._initial_gamma_log, (n,), ("state",), slow=True)
    B_init, C_init = nn.initializers.normal((2 * d) ** -0.5), nn.initializers.normal(n**-0.5)
    self.B_re = param(self, "B_re", B_init, (n, d), ("state", "embed"), slow=True)
    self.B_im = param(self, "B_im", B_init, (n, d), ("state", "embed"), slow=True)
    self.C_re = param(self, "C_re", C_init, (d, n), ("embed", "state"))
    self.C_im = param(self, "C_im", C_init, (d, n), ("embed", "state"))
    self.D = param(self, "D", nn.initializers.normal(1.0), (d,), ("embed",))
    dense = lambda: Dense(d, use_bias=True, axes=("embed", "inner"))
    self.gate = None if self.activation in dense_io.UNGATED else dense()
    self.out_proj = dense() if self.activation == "full_glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.state), complex))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    # multiplying B costs less than multiplying B x, which has a row for every token
    gamma = jnp.exp(self.gamma_log)[:, None]
    Bx = dense_io.into_state(x, gamma * self.B_re, gamma * self.B_im)
    lam = jnp.exp(jax.lax.complex(-jnp.exp(self.nu_log), jnp.exp(self.theta_log)))
    h, last = linear_scan(lam, Bx, state.h, **where.masks)
    y = dense_io.read_out(h, self.C_re, self.C_im, x.dtype) + self.D * x
    return dense_io.activate(self.activation, y.astype(x.dtype), self.gate, self.out_proj), State(h=last)

  @nn.nowrap
  def _initial_theta_log(self, key, shape, dtype) -> Float[Array, "n"]:
    """Returns the logarithms of phases drawn from U(0, max_phase), without 0."""
    return jnp.log(self.max_phase * jax.random.uniform(key, shape, dtype, jnp.finfo(dtype).eps))

  @nn.nowrap
  def _initial_gamma_log(self, key, shape, dtype) -> Float[Array, "n"]:
    """Returns log sqrt(1 - |lam|^2), in a form that does not cancel for |lam| near 1."""
    return 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(self.nu_log)))

"""DSS: a diagonal state space per channel, all with one spectrum. State: fixed.

Gupta, Gu & Berant 2022, arXiv:2203.14343. Theirs: H -> d, N -> state, L -> t, Delta -> dt, W -> C.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from layers import param
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.lengths import blank_past
from ssm.lti import diagonal, discretization, hippo


class State(NamedTuple):
  """What one layer remembers."""

  h: Complex[Array, "b e n"]  # complex64


class DSS(nn.Module):
  """y = K * x + D x,  K_l = Re sum_n C_n (e^{z_n} - 1)/lam_n e^{z_n l}  for each channel     prop. 1(a), "DSS-exp"

  followed by GELU and a linear map to 2d with a gated linear unit. lam = -exp(lam_log) + i lam_im is shared by all
  channels, and z = dt lam. Conjugates are not implied: `state` complex numbers stand alone, and the real part is taken
  without the factor 2, as in the authors' code. So is the second time step: z has dt of its own for real and imaginary
  parts. Departs: "DSS-softmax" (prop. 1(b)), which depends on the longest length, is not offered.

  Attributes:
    state: N, complex numbers per channel; lam starts as the eigenvalues of HiPPO-LegS's normal part of size 2N with
      positive imaginary parts.
    dt_min, dt_max: range of the initial time steps; log-uniform, two per channel.
    activation: what follows the state space: "glu" (GELU and gated linear map), "gelu" or "none".
  Raises:
    ValueError: `state` is below 1, `activation` is unknown, or not 0 < dt_min <= dt_max.
  """

  width: int
  state: int = 64
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  activation: str = "glu"

  STATE = "fixed"
  SLOW = ("lam_log", "lam_im", "C_re", "C_im", "log_dt")
  SIDE = ()

  def __post_init__(self):
    if self.state < 1:
      raise ValueError(f"DSS: state={self.state}; it must be at least 1")
    if self.activation not in ACTIVATIONS:
      raise ValueError(f"DSS: activation={self.activation!r}; choose from {list(ACTIVATIONS)}")
    log_step(self.dt_min, self.dt_max)  # raises
    super().__post_init__()

  def setup(self):
    lam = hippo.legs_normal(2 * self.state).lam[::-1][: self.state]
    self.lam_log = param(self, "lam_log", constant(np.log(-lam.real)), (self.state,), ("state",))
    self.lam_im = param(self, "lam_im", constant(lam.imag), (self.state,), ("state",))
    normal = nn.initializers.normal(1.0)
    self.C_re = param(self, "C_re", normal, (self.width, self.state), ("inner", "state"))
    self.C_im = param(self, "C_im", normal, (self.width, self.state), ("inner", "state"))
    self.D = param(self, "D", normal, (self.width,), ("inner",))
    self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width, 2), ("inner", None))
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    return State(h=jnp.zeros((batch, self.width, self.state), complex))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state."""
    y = diagonal.outputs(blank_past(x, lengths), self._recurrence(), reset=reset, lengths=lengths)
    return blank_past(activate(y, self.activation, self.out_proj), lengths)

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
    y, h = diagonal.resume(blank_past(x, lengths), self._recurrence(), state.h, reset=reset, lengths=lengths)
    return blank_past(activate(y, self.activation, self.out_proj), lengths), State(h=h)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    y, h = diagonal.step(x, self._recurrence(), state.h)
    return activate(y, self.activation, self.out_proj), State(h=h)

  def _recurrence(self) -> diagonal.Recurrence:
    """(e^z - 1)/lam as the input's factor."""
    dt_re, dt_im = jnp.split(jnp.exp(self.log_dt), 2, axis=1)
    lam_re = -jnp.exp(self.lam_log)
    z = jax.lax.complex(dt_re * lam_re, dt_im * self.lam_im)
    B = discretization.phi1(z) * (z / jax.lax.complex(lam_re, self.lam_im))
    return diagonal.Recurrence(z, B, jax.lax.complex(self.C_re, self.C_im), self.D)

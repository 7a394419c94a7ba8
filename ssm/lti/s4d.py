"""S4D: one diagonal state space per channel. State: fixed.

Gu, Gupta, Goel & Re 2022, arXiv:2206.11893. Theirs: H -> d, N -> state, L -> t, Delta -> dt.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from layers import param
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from layers.sizes import above_zero
from mistake import Mistake
from ssm.lti import diagonal, discretization, hippo


class State(NamedTuple):
  h: Complex[Array, "b e n"]  # complex64


class S4D(Mixer):
  """h_t = Abar h_{t-1} + Bbar x_t,  y_t = 2 Re(C . h_t) + D x_t for each channel     sec. 3

  followed by GELU and a linear map to 2d with a gated linear unit (app. B). A = -exp(A_log) + i A_im. Conjugate pairs
  are stored once, hence the 2. In parallel the layer is a convolution with K_l = 2 Re(sum_n C_n Bbar_n Abar_n^l).
  Departs: nothing. B is trained beside C; for `legs` the imaginary part of B is clipped to [-2, 2] and B is not halved,
  as in the authors' code.
  On a CPU a convolution without a state may be one FFT, of more than 128 states or without a compiler, whose rounding
  reaches earlier outputs: see `ssm.lti.diagonal.outputs` and `kernels.long_conv`.

  Attributes:
    state: N, real numbers per channel: twice the conjugate pairs.
    A_init: spectrum of A, pair n having real part -1/2 and imaginary part pi n ("lin"), N/pi (N/(2n+1) - 1) ("inv") or
      that of HiPPO-LegS ("legs"); or the real numbers -(n+1) ("real")     sec. 4
    B_scale: factor on the initial B; 1/2 with `legs` is the theorem's (sec. 4.2).
    disc: "zoh" or "bilinear".
    dt_min, dt_max: range of the initial time step; log-uniform, one per channel.
    step_rescale: factor on all time steps, for data sampled more coarsely than the training data (`rate` of the
      authors' kernels).
    copies: how many independent A and B there are, shared in turn by the channels; the width if not given.
    activation: what follows the state space: "glu" (GELU and gated linear map), "gelu" or "none".
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  B_scale: float = 1.0
  disc: str = "zoh"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  step_rescale: float = 1.0
  copies: int | None = None
  activation: str = "glu"

  @nn.nowrap
  def check(self) -> None:
    if self.state < 2 or self.state % 2:
      raise Mistake(f"S4D: state={self.state}; conjugate pairs are stored once, so it must be even")
    if self.copies is not None and (self.copies < 1 or self.width % self.copies):
      raise Mistake(f"S4D: copies={self.copies} does not divide width={self.width}")
    one_of(self, A_init=INITS, disc=discretization.RULES, activation=ACTIVATIONS)
    above_zero(self, "step_rescale")
    log_step(self.dt_min, self.dt_max)  # raises

  def setup(self):
    copies, n = self.copies or self.width, self.state // 2
    A, B = INITS[self.A_init](n)
    B = self.B_scale * B
    share = ("inner" if copies == self.width else None, "state")
    self.A_log = param(self, "A_log", constant(np.log(-A.real)), (copies, n), share, slow=True)
    self.A_im = param(self, "A_im", constant(A.imag), (copies, n), share, slow=True)
    self.B_re = param(self, "B_re", constant(B.real), (copies, n), share, slow=True)
    self.B_im = param(self, "B_im", constant(B.imag), (copies, n), share, slow=True)
    # E|C|^2 = 1
    half_normal = nn.initializers.normal(0.5**0.5)
    self.C_re = param(self, "C_re", half_normal, (self.width, n), ("inner", "state"))
    self.C_im = param(self, "C_im", half_normal, (self.width, n), ("inner", "state"))
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",), slow=True)
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width, self.state // 2), complex))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    y = diagonal.outputs(x, self.recurrence(), **where.masks)
    return activate(y, self.activation, self.out_proj)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, h = diagonal.resume(x, self.recurrence(), state.h, **where.masks)
    return activate(y, self.activation, self.out_proj), State(h=h)

  def recurrence(self) -> diagonal.Recurrence:
    """Returns Abar, Bbar, 2 C and D of every channel."""
    times = self.width // self.A_log.shape[0]
    A_re, A_im, B_re, B_im = (jnp.tile(z, (times, 1)) for z in (-jnp.exp(self.A_log), self.A_im, self.B_re, self.B_im))
    dt = self.step_rescale * jnp.exp(self.log_dt)[:, None]
    log_A, scale = discretization.RULES[self.disc](dt, jax.lax.complex(A_re, A_im))
    B, C = scale * jax.lax.complex(B_re, B_im), 2 * jax.lax.complex(self.C_re, self.C_im)
    return diagonal.Recurrence(log_A, B, C, self.D, diagonal.turns(dt, A_im) if self.disc == "zoh" else None)


def within(mixer: nn.Module, width: int, **kwargs) -> S4D:
  """Returns the state space inside a mixer whose fields have S4D's names, without an activation."""
  fields = ("state", "A_init", "disc", "dt_min", "dt_max", "copies")
  return S4D(width=width, activation="none", **{field: getattr(mixer, field) for field in fields}, **kwargs)


def _lin(n: int) -> tuple[np.ndarray, np.ndarray]:
  return -0.5 + 1j * np.pi * np.arange(n), np.ones(n, complex)


def _inv(n: int) -> tuple[np.ndarray, np.ndarray]:
  N = 2 * n
  return -0.5 + 1j * (N / np.pi) * (N / (2 * np.arange(n) + 1) - 1), np.ones(n, complex)


def _real(n: int) -> tuple[np.ndarray, np.ndarray]:
  return -(np.arange(n) + 1.0) + 0j, np.ones(n, complex)


def _legs(n: int) -> tuple[np.ndarray, np.ndarray]:
  lam, _, B = hippo.dplr("legs", 2 * n)
  return lam, B.real + 1j * np.clip(B.imag, -2, 2)


INITS = {"lin": _lin, "inv": _inv, "legs": _legs, "real": _real}

"""DSS: a diagonal state space per channel, all with one spectrum. State: fixed (whole input with the softmax kernel).

Gupta, Gu & Berant 2022, arXiv:2203.14343. Theirs: H -> d, N -> state, L -> max_len, Delta -> dt, W -> C.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from kernels.long_conv import long_conv
from kernels.phi import phi1
from layers import history, param
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from ssm.lti import diagonal, hippo

KERNELS = ("exp", "softmax")
# added to a squared size before something is divided by it     sec. 3.3
SOFTMAX_EPS = 1e-7


class State(NamedTuple):
  """The state of one layer with the kernel "exp"."""

  h: Complex[Array, "b e n"]  # complex64


class SoftmaxState(NamedTuple):
  """The state of one layer with the kernel "softmax"."""

  past: history.History


class DSS(Mixer):
  """y = K * x + D x,  K_l = Re sum_n C_n (e^{z_n} - 1)/lam_n e^{z_n l}  for each channel     prop. 1(a), "DSS-exp"

  or K_l = Re sum_n C_n / lam_n softmax_l(z_n l), over L lags (prop. 1(b), "DSS-softmax"), followed by GELU and a linear
  map to 2d with a gated linear unit. lam is shared by all channels, and z = dt lam. With "exp" Re(lam) = -exp(lam_log);
  with "softmax" it has either sign, and where it is positive a mode gives the oldest of L inputs the most weight.
  Conjugates are not implied: `state` complex numbers stand alone, and the real part is taken without the factor 2, as
  in the authors' code. So is the second time step: z has dt of its own for real and imaginary parts.
  Departs: the softmax's L is `max_len` and not the length of the call, by which the same inputs would have other
  outputs in a longer batch; at t = max_len the two are one.
  On a CPU a convolution without a state may be one FFT, of more than 128 states or without a compiler, whose rounding
  reaches earlier outputs: see `ssm.lti.diagonal.outputs` and `kernels.long_conv`.

  Attributes:
    state: N, complex numbers per channel; lam starts as the eigenvalues of HiPPO-LegS's normal part of size 2N with
      positive imaginary parts.
    kernel: "exp" or "softmax".
    max_len: L, where the kernel "softmax" ends; "exp" has no end.
    dt_min, dt_max: range of the initial time steps; log-uniform, two per channel.
    activation: what follows the state space: "glu" (GELU and gated linear map), "gelu" or "none".
  Raises:
    ValueError: with "softmax", a sequence or a state goes beyond `max_len`.
  """

  width: int
  state: int = 64
  kernel: str = "exp"
  max_len: int = 4096
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  activation: str = "glu"

  @property
  def STATE(self) -> str:
    """Is fixed; with the kernel "softmax" the whole input."""
    return "whole input" if self.kernel == "softmax" else "fixed"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "max_len")
    one_of(self, kernel=KERNELS, activation=ACTIVATIONS)
    log_step(self.dt_min, self.dt_max)  # raises

  def setup(self):
    lam = hippo.legs_normal(2 * self.state).lam[::-1][: self.state]
    if self.kernel == "softmax":
      self.lam_re = param(self, "lam_re", constant(lam.real), (self.state,), ("state",), slow=True)
    else:
      self.lam_log = param(self, "lam_log", constant(np.log(-lam.real)), (self.state,), ("state",), slow=True)
    self.lam_im = param(self, "lam_im", constant(lam.imag), (self.state,), ("state",), slow=True)
    normal = nn.initializers.normal(1.0)
    self.C_re = param(self, "C_re", normal, (self.width, self.state), ("inner", "state"), slow=True)
    self.C_im = param(self, "C_im", normal, (self.width, self.state), ("inner", "state"), slow=True)
    self.D = param(self, "D", normal, (self.width,), ("inner",))
    self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width, 2), ("inner", None), slow=True)
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State | SoftmaxState:
    if self.kernel == "softmax":
      history.require("DSS", max_len, self.max_len)
      return SoftmaxState(past=history.empty(batch, max_len, self.width))
    return State(h=jnp.zeros((batch, self.width, self.state), complex))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    if self.kernel == "softmax":
      y = long_conv(x, self._taps(x.shape[1]), **where.masks)
    else:
      y = diagonal.outputs(x, self._recurrence(), **where.masks)
    return activate(y, self.activation, self.out_proj)

  def mix(
    self, x: Float[Array, "b t d"], state: State | SoftmaxState, where: Where
  ) -> tuple[Float[Array, "b t d"], State | SoftmaxState]:
    if isinstance(state, SoftmaxState):
      y, past = history.resume(x, self._taps(state.past.u.shape[1]), state.past, **where.masks)
      state = SoftmaxState(past=past)
    else:
      y, h = diagonal.resume(x, self._recurrence(), state.h, **where.masks)
      state = State(h=h)
    return activate(y, self.activation, self.out_proj), state

  def _modes(self) -> tuple[Complex[Array, "n"], Complex[Array, "e n"], Complex[Array, "e n"]]:
    """Returns lam, z and C."""
    dt_re, dt_im = jnp.split(jnp.exp(self.log_dt), 2, axis=1)
    lam_re = self.lam_re if self.kernel == "softmax" else -jnp.exp(self.lam_log)
    z = jax.lax.complex(dt_re * lam_re, dt_im * self.lam_im)
    return jax.lax.complex(lam_re, self.lam_im), z, jax.lax.complex(self.C_re, self.C_im)

  def _recurrence(self) -> diagonal.Recurrence:
    """Returns the kernel "exp" as a recurrence, in which (e^z - 1)/lam is the input's factor."""
    lam, z, C = self._modes()
    turns = diagonal.turns(jnp.exp(self.log_dt[:, 1:]), self.lam_im)
    return diagonal.Recurrence(z, phi1(z) * (z / lam), C, self.D, turns)

  def _taps(self, l: int) -> Float[Array, "d l"]:
    """Returns the first l taps of the kernel "softmax", with D added to the tap of lag 0.

    A mode that grows, e^{z l} with Re(z) > 0, is one that decays by e^{-z l}, read from the last lag back: the taps of
    both kinds are those of decaying modes, whose sum over L lags is (e^{zL} - 1)/(e^z - 1).
    """
    history.require("DSS", l, self.max_len)
    lam, z, C = self._modes()
    grows = z.real > 0
    z = jnp.where(grows, -z, z)
    far = diagonal.powers(z, jnp.array([self.max_len - l, self.max_len]))
    total = (far[..., 1] - 1) * lam
    scale = C * z * phi1(z) * total.conj() / (jnp.square(total.real) + jnp.square(total.imag) + SOFTMAX_EPS)
    decaying = diagonal.taps(z, jnp.where(grows, 0, scale), self.D, l)
    growing = diagonal.taps(z, jnp.where(grows, scale * far[..., 0], 0), jnp.zeros_like(self.D), l)
    return decaying + growing[:, ::-1]

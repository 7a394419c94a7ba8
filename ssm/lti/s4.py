"""S4: one state space per channel, its matrix diagonal plus low rank. State: fixed.

Gu, Goel & Re 2021, arXiv:2111.00396; "fout": Gu, Johnson, Timalsina, Rudra & Re 2022, arXiv:2206.12037. Theirs:
H -> d, N -> state, L -> t, Delta -> dt.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.long_conv import long_conv
from kernels.lti import plan
from layers import param
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from layers.sizes import above_zero
from mistake import Mistake
from ssm.lti import dense, dplr, hippo

MEASURES = ("legs", "fout")


class State(NamedTuple):
  h: Float[Array, "b e n"]  # float32; real parts, then imaginary parts


class S4(Mixer):
  """h_t = Abar h_{t-1} + Bbar x_t,  y_t = 2 Re(C . h_t) + D x_t for each channel     eq. (3), by Tustin's rule

  followed by GELU and a gated linear map (as in S4D). A = diag(-exp(A_log) + i A_im) - P P* (thm. 1). Conjugate pairs
  are stored once, hence the 2. In parallel the layer is a convolution whose taps come from their spectrum, a Cauchy
  sum and Woodbury's formula (alg. 1); a step takes O(N) by the same formula; what continues a state goes through `lti`
  with A as a dense matrix.
  Departs: the parameter is C. The authors' code trains C (I - Abar^L) for one length L and changes it for others; that
  becomes ours by `dplr.uncut`. As there, B is trained and its imaginary part starts clipped to [-2, 2], and -Re(lam)
  starts at 1e-4 or more.
  On a CPU a convolution without a state is one FFT, whose rounding reaches earlier outputs: see `kernels.long_conv`.

  Attributes:
    state: N, real numbers per channel: twice the conjugate pairs.
    A_init: "legs" (HiPPO-LegS) or "fout" (Fourier coefficients of a window of 2/dt tokens).
    dt_min, dt_max: range of the initial time step; log-uniform, one per channel.
    step_rescale: factor on all time steps, for data sampled more coarsely than the training data (`rate` of the
      authors' kernels).
    copies: how many independent A, P and B there are, shared in turn by the channels; the width if not given.
    activation: what follows the state space: "glu" (GELU and gated linear map), "gelu" or "none".
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  step_rescale: float = 1.0
  copies: int | None = None
  activation: str = "glu"

  @nn.nowrap
  def check(self) -> None:
    if self.state < 2 or self.state % 2:
      raise Mistake(f"S4: state={self.state}; conjugate pairs are stored once, so it must be even")
    if self.copies is not None and (self.copies < 1 or self.width % self.copies):
      raise Mistake(f"S4: copies={self.copies} does not divide width={self.width}")
    one_of(self, A_init=MEASURES, activation=ACTIVATIONS)
    above_zero(self, "step_rescale")
    log_step(self.dt_min, self.dt_max)  # raises

  def setup(self):
    copies, n = self.copies or self.width, self.state // 2
    lam, P, B = hippo.dplr(self.A_init, self.state)
    share = ("inner" if copies == self.width else None, "state")
    shared = lambda name, value: param(self, name, constant(value), (copies, n), share, slow=True)
    self.A_log = shared("A_log", np.log(np.maximum(-lam.real, 1e-4)))
    self.A_im = shared("A_im", lam.imag)
    self.P_re, self.P_im = shared("P_re", P[0].real), shared("P_im", P[0].imag)
    self.B_re, self.B_im = shared("B_re", B.real), shared("B_im", np.clip(B.imag, -2, 2))
    # E|C|^2 = 1
    half_normal = nn.initializers.normal(0.5**0.5)
    self.C_re = param(self, "C_re", half_normal, (self.width, n), ("inner", "state"))
    self.C_im = param(self, "C_im", half_normal, (self.width, n), ("inner", "state"))
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",), slow=True)
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width, self.state)))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    l, _ = plan(x.shape[1], packed=where.reset is not None)
    if l < x.shape[1]:
      return super().mix_parallel(x, where)
    K = dplr.taps(*self._continuous(), l)
    y = long_conv(x, K.at[:, 0].add(self.D), **where.masks)
    return activate(y, self.activation, self.out_proj)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    dt, lam, P, B, C = self._continuous()
    gain = dplr.as_state(dplr.change(dt, lam, P, jnp.zeros_like(B), B))
    recurrence = dense.Recurrence(dplr.transition(dt, lam, P), gain, dplr.as_row(C), self.D)
    y, h = dense.resume(x, recurrence, state.h, **where.masks)
    return activate(y, self.activation, self.out_proj), State(h=h)

  def mix_token(self, x, state: State, side):
    """Mixes one token in O(N), without the dense matrix."""
    dt, lam, P, B, C = self._continuous()
    h = jax.lax.complex(*jnp.split(state.h, 2, axis=-1))
    h = dplr.as_state(h + dplr.change(dt, lam, P, h, B * x[..., None]))
    y = jnp.sum(dplr.as_row(C) * h, axis=-1) + self.D * x
    return activate(y.astype(x.dtype), self.activation, self.out_proj), State(h=h)

  def _continuous(self) -> dplr.Continuous:
    """Returns the systems of all channels, before their discretisation."""
    times = self.width // self.A_log.shape[0]
    each = lambda re, im: jax.lax.complex(jnp.tile(re, (times, 1)), jnp.tile(im, (times, 1)))
    lam, P, B = each(-jnp.exp(self.A_log), self.A_im), each(self.P_re, self.P_im), each(self.B_re, self.B_im)
    return dplr.Continuous(self.step_rescale * jnp.exp(self.log_dt), lam, P, B, jax.lax.complex(self.C_re, self.C_im))

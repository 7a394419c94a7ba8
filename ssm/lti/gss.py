"""GSS: a gated unit around a narrow diagonal state space. State: fixed.

Mehta, Gupta, Cutkosky & Neyshabur 2022, arXiv:2206.13947. Theirs: E -> d, F -> outer, H -> e, N -> state, L -> t.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels.phi import phi1
from layers import Dense, param
from layers.activations import gelu_tanh
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from ssm.lti import diagonal


class State(NamedTuple):
  h: Complex[Array, "b e n"]  # complex64


class GSS(Mixer):
  """o = W_o (W_y y * GELU(W_v x)),  y = K * u + D u,  u = GELU(W_u x)     fig. 1

  with K_l = Re sum_n C_n (e^{lam_n} - 1)/lam_n e^{lam_n l}: the DSS of that paper, simplified: without a time step,
  lam = -exp(lam_log) + i exp(lam_im_log) shared by all channels and drawn from normal numbers (sec. 3.2).
  Departs: the norm before and the residual around it are the block's.
  On a CPU a convolution without a state may be one FFT, of more than 128 states or without a compiler, whose rounding
  reaches earlier outputs: see `ssm.lti.diagonal.outputs` and `kernels.long_conv`.

  Attributes:
    inner: e, channels of the state space; d/4 if not given.
    outer: width of the gate; 4d if not given.
    state: N, complex numbers per channel.
  """

  width: int
  inner: int | None = None
  outer: int | None = None
  state: int = 512

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "inner", "outer", "state")

  def setup(self):
    e, outer = self._inner, self.outer or 4 * self.width
    self.v_proj = Dense(outer, axes=("embed", "mlp"))
    self.u_proj = Dense(e, axes=("embed", "inner"))
    self.y_proj = Dense(outer, axes=("inner", "mlp"))
    self.out_proj = Dense(self.width, axes=("mlp", "embed"))
    normal = nn.initializers.normal
    self.lam_log = param(self, "lam_log", normal(1.0), (self.state,), ("state",), slow=True)
    self.lam_im_log = param(self, "lam_im_log", normal(1.0), (self.state,), ("state",), slow=True)
    self.C_re = param(self, "C_re", normal(self.state**-0.5), (e, self.state), ("inner", "state"), slow=True)
    self.C_im = param(self, "C_im", normal(self.state**-0.5), (e, self.state), ("inner", "state"), slow=True)
    self.D = param(self, "D", normal(1.0), (e,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self._inner, self.state), complex))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    y = diagonal.outputs(gelu_tanh(self.u_proj(x)), self._recurrence(), **where.masks)
    return self._gate(y, x)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, h = diagonal.resume(gelu_tanh(self.u_proj(x)), self._recurrence(), state.h, **where.masks)
    return self._gate(y, x), State(h=h)

  @property
  def _inner(self) -> int:
    return self.inner or max(1, self.width // 4)

  def _recurrence(self) -> diagonal.Recurrence:
    lam = jax.lax.complex(-jnp.exp(self.lam_log), jnp.exp(self.lam_im_log))
    lam = jnp.broadcast_to(lam, self.C_re.shape)
    return diagonal.Recurrence(lam, phi1(lam), jax.lax.complex(self.C_re, self.C_im), self.D)

  def _gate(self, y: Float[Array, "*b e"], x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return self.out_proj(self.y_proj(y) * gelu_tanh(self.v_proj(x)))

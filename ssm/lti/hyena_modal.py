"""Hyena with modal filters, which are recurrences too: the operator of StripedHyena and Evo. State: fixed.

Massaroli et al. 2023, arXiv:2310.18780 (Laughing Hyena); Poli et al. 2024, arXiv:2403.17844; togethercomputer/
stripedhyena, stripedhyena/model.py. Theirs: D -> d, d (order) -> state, L -> t.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from layers import ShortConv, param, torch_dense
from layers.initializers import constant
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake
from ssm.lti import diagonal


class State(NamedTuple):
  """The state of one layer."""

  h: Complex[Array, "b d n"]  # complex64
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class HyenaModal(Mixer):
  """y = W_out (x_2 z),  z_t = Re(sum_n R_n h_tn) + D u_t,  h_tn = p_n h_{t-1,n} + u_t,  u = x_1 v

  with x_2, x_1 and v by W_in and a short convolution: Hyena of order 2 whose filter is sum_n Re(R_n p_n^l), with the
  poles p_n and the residues R_n of each channel as parameters.
  Departs: a pole is kept as log p = -exp(decay_log) + i angle, so that |p| < 1 in training; the authors' code keeps the
  real and the imaginary part of p, which are as many numbers. The initial filters of released models are not
  published; here the poles are those of S4D-Lin (Gu et al. 2022, arXiv:2206.11893, sec. 4), and the channels' time
  steps are log-uniform.
  On a CPU a convolution without a state may be one FFT, of more than 128 states or without a compiler, whose rounding
  reaches earlier outputs: see `ssm.lti.diagonal.outputs` and `kernels.long_conv`.

  Attributes:
    state: poles of a channel; complex numbers, not in conjugate pairs.
    taps: width of the short convolution.
    bias, out_bias, conv_bias: whether W_in, W_out and the short convolution have biases.
    dt_min, dt_max: range of the initial time steps, in samples.
  """

  width: int
  state: int = 8
  taps: int = 3
  bias: bool = True
  out_bias: bool = True
  conv_bias: bool = True
  dt_min: float = 1e-3
  dt_max: float = 1e-1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "taps")
    if not 0 < self.dt_min <= self.dt_max:
      raise Mistake(f"HyenaModal: dt_min={self.dt_min}, dt_max={self.dt_max}; 0 < dt_min <= dt_max")

  def setup(self):
    d = self.width
    self.in_proj = torch_dense(3 * d, ("embed", "inner"), fan_in=d, use_bias=self.bias)
    self.out_proj = torch_dense(d, ("inner", "embed"), fan_in=d, use_bias=self.out_bias)
    self.conv = ShortConv(3 * d, taps=self.taps, use_bias=self.conv_bias)
    dt = np.exp(np.linspace(math.log(self.dt_min), math.log(self.dt_max), d))[:, None]
    shape, axes = (d, self.state), ("inner", "state")
    decay, angle = np.log(dt / 2) + np.zeros(shape), dt * np.pi * np.arange(self.state)
    self.decay_log = param(self, "decay_log", constant(decay), shape, axes, slow=True)
    self.angle = param(self, "angle", constant(angle), shape, axes, slow=True)
    half_normal = nn.initializers.normal((0.5 / self.state) ** 0.5)
    self.R_re = param(self, "R_re", half_normal, shape, axes)
    self.R_im = param(self, "R_im", half_normal, shape, axes)
    self.D = param(self, "D", nn.initializers.zeros, (d,), ("inner",))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    taps = jnp.zeros((batch, self.taps - 1, 3 * self.width))
    return State(h=jnp.zeros((batch, self.width, self.state), complex), taps=taps)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    gate, u, _ = self._split(x, self.conv.init_taps(x.shape[0]), where)
    return self.out_proj(gate * diagonal.outputs(u, self._recurrence(), **where.masks))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    gate, u, taps = self._split(x, state.taps, where)
    z, h = diagonal.resume(u, self._recurrence(), state.h, **where.masks)
    return self.out_proj(gate * z), State(h=h, taps=taps)

  def _split(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w e"], where: Where
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b t d"], Float[Array, "b w e"]]:
    """Returns x_2, u = x_1 v and the short convolution's next taps."""
    inner, taps = self.conv(self.in_proj(x), taps, **where.masks)
    gate, k, v = jnp.split(inner, 3, axis=-1)
    return gate, k * v, taps

  def _recurrence(self) -> diagonal.Recurrence:
    log_p = jax.lax.complex(-jnp.exp(self.decay_log), self.angle)
    return diagonal.Recurrence(log_p, jnp.ones_like(log_p), jax.lax.complex(self.R_re, self.R_im), self.D)

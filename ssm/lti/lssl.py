"""LSSL: the linear state-space layer, with a dense matrix A. State: fixed.

Gu, Johnson, Goel, Saab, Dao, Rudra & Re 2021, arXiv:2110.13985. Theirs: H -> d, N -> state, L -> t, Delta t -> dt.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from kernels.long_conv import long_conv
from kernels.lti import plan
from layers import param, torch_dense
from layers.activations import some
from layers.choices import one_of
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from mistake import Mistake
from ssm.lti import dense, hippo

LEARN = ("all", "output")
ACTIVATIONS = some("gelu", "gelu_tanh")


def random(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """Draws A and B of independent normal numbers, always the same ones.

  A has variance 1/n, less a multiple of the identity, so that its slowest state decays like HiPPO's, by exp(-t/2).
  """
  rng = np.random.default_rng(0)
  A = rng.standard_normal((n, n)) / n**0.5
  return A - (np.linalg.eigvals(A).real.max() + 0.5) * np.eye(n), rng.standard_normal(n)


INITS = {**hippo.MEASURES, "random": random}


class State(NamedTuple):
  h: Float[Array, "b e n"]  # float32


class LSSL(Mixer):
  """h_t = Abar h_{t-1} + Bbar x_t,  y_t = C . h_t + D x_t for each channel     eqs. (1) to (3)

  by the generalised bilinear transform, Abar = (1 - a dt A)^{-1} (1 + (1-a) dt A), Bbar = dt (1 - a dt A)^{-1} B;
  followed by GELU and a linear map. In parallel the layer is a convolution with the Krylov product C Abar^l Bbar, which
  takes O(N^3 log t + N t) per channel: this is the layer that S4 was made from, for small N and for comparison.
  Departs: a learned A is any matrix, where the paper keeps it quasiseparable; a state space has one output (M = 1).
  On a CPU a convolution without a state is one FFT, whose rounding reaches earlier outputs: see `kernels.long_conv`.

  Attributes:
    state: N, numbers per channel.
    A_init: the HiPPO matrix from which A and B start: "legs", "legt", "lagt" or "fout"; or "random" numbers, the
      comparison of Gu, Goel & Re 2021 (arXiv:2111.00396, sec. 2.2).
    learn: "all", or "output": A, B and dt stay as they are, the steps evenly spaced in their logarithm ("LSSL-f").
    alpha: a; 1/2 is Tustin's rule, 1 backward Euler; below 1/2 fast states may grow.
    dt_min, dt_max: range of the initial time step; log-uniform, one per channel.
    copies: how many independent A and B there are, shared in turn by the channels.
    activation: "gelu", by erf, or "gelu_tanh".
    gated: whether a second linear map of the same, through a sigmoid, multiplies the first one (annotated S4).
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  learn: str = "all"
  alpha: float = 0.5
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  copies: int = 1
  activation: str = "gelu"
  gated: bool = False

  def setup(self):
    n = self.state
    A, B = INITS[self.A_init](n)
    if self.learn == "all":
      share = "inner" if self.copies == self.width else None
      self.A = param(self, "A", constant(A), (self.copies, n, n), (share, "state", None), slow=True)
      self.B = param(self, "B", constant(B), (self.copies, n), (share, "state"), slow=True)
      self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",), slow=True)
    else:
      self.A, self.B = jnp.asarray(A[None], float), jnp.asarray(B[None], float)
      self.log_dt = jnp.linspace(np.log(self.dt_min), np.log(self.dt_max), self.width)
    normal = nn.initializers.normal(1.0)
    self.C = param(self, "C", normal, (self.width, n), ("inner", "state"))
    self.D = param(self, "D", normal, (self.width,), ("inner",))
    features = 2 * self.width if self.gated else self.width
    self.out_proj = torch_dense(features, ("inner", "embed"), fan_in=self.width, use_bias=True)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.width, self.state)))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    l, _ = plan(x.shape[1], packed=where.reset is not None)
    if l < x.shape[1]:
      return super().mix_parallel(x, where)
    return self._read(long_conv(x, dense.taps(self._recurrence(), l), **where.masks))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    y, h = dense.resume(x, self._recurrence(), state.h, **where.masks)
    return self._read(y), State(h=h)

  def _recurrence(self) -> dense.Recurrence:
    """Returns Abar - I = (1 - a dt A)^{-1} dt A, and Bbar, of every channel."""
    times = self.width // self.A.shape[0]
    dt = jnp.exp(self.log_dt)[:, None, None]
    A, B = jnp.tile(self.A, (times, 1, 1)), jnp.tile(self.B, (times, 1))[..., None]
    EB = jnp.linalg.solve(jnp.eye(self.state) - self.alpha * dt * A, dt * jnp.concatenate([A, B], axis=-1))
    return dense.Recurrence(EB[..., :-1], EB[..., -1], self.C, self.D)

  def _read(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    z = self.out_proj(ACTIVATIONS[self.activation](y))
    return jax.nn.glu(z) if self.gated else z

  @nn.nowrap
  def check(self) -> None:
    one_of(self, A_init=INITS, learn=LEARN, activation=ACTIVATIONS)
    if self.state < 1 or (self.A_init == "fout" and self.state % 2):
      raise Mistake(f"LSSL: state={self.state}; it must be at least 1, and even for A_init='fout'")
    if self.copies < 1 or self.width % self.copies:
      raise Mistake(f"LSSL: copies={self.copies} does not divide width={self.width}")
    if not 0 <= self.alpha <= 1:
      raise Mistake(f"LSSL: alpha={self.alpha}; it must be in [0, 1]")
    log_step(self.dt_min, self.dt_max)  # raises

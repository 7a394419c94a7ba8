"""LinOSS: forced harmonic oscillators, from all channels to all channels. State: fixed.

Rusch & Rus 2025, arXiv:2410.03943; damped: Boyer, Rusch & Rus 2025, arXiv:2505.12171. Theirs: H -> d, m -> state,
N -> t, u -> x, Delta t -> dt, and the positions, y in the first paper and x in the second, -> q.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import param, torch_dense
from layers.choices import one_of
from layers.initializers import ring, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake
from ssm.lti import dense, dense_io

DISCS = ("im", "imex", "damped")
RING = ("r_min", "r_max", "max_phase")


class State(NamedTuple):
  h: Float[Array, "b e 2"]  # float32; z and q of the real parts of all oscillators, then of the imaginary ones


class LinOSS(Mixer):
  """z_t = z_{t-1} + dt (B x_t - A q* - G z_t),  q_t = q_{t-1} + dt z_t,  y_t = Re(C q_t) + D x_t

  for oscillators q'' = -A q - G q' + B x, followed by GELU and a gated linear map; A = relu(.), dt = sigmoid(.), one of
  each per oscillator, B and C complex. `disc` says which position q* pulls, and so how fast the two eigenvalues, lam,
  of a step let an oscillation die away:

    "im"      q* = q_t, G = 0: |lam|^2 = 1/(1 + dt^2 A), for any A and dt;
    "imex"    q* = q_{t-1}, G = 0: |lam| = 1, which conserves energy, up to dt^2 A = 4; beyond it, as A is not bounded,
              an oscillation grows;
    "damped"  q* = q_{t-1}, G = relu(.): |lam|^2 = 1/(1 + dt G), with A clipped to where lam are a conjugate pair,
              1/|lam| - 1 <= dt sqrt(A) <= 1/|lam| + 1 ("D-LinOSS").

  Departs: nothing; initial values are those of the authors' code.

  Attributes:
    state: oscillators, each with complex z and q.
    disc: "im", "imex" or "damped". The first two start with A uniform in [0, 1) and dt in sigmoid([0, 1)); "damped"
      with dt = sigmoid(n), n normal of deviation 1/2, and A and G that make ...
    r_min, r_max: lam uniform over the area of this ring ...
    max_phase: ... with phases in [0, max_phase], in radians, and their conjugates; these three are for "damped" alone.
    activation: what follows: see `dense_io.activate`.
  """

  width: int
  state: int = 64
  disc: str = "im"
  r_min: float = 0.9
  r_max: float = 1.0
  max_phase: float = math.pi
  activation: str = "full_glu"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "state")
    one_of(self, disc=DISCS, activation=dense_io.ACTIVATIONS)
    ring(self.r_min, self.r_max)  # raises
    if not 0 < self.max_phase <= math.pi:
      raise Mistake(f"LinOSS: max_phase={self.max_phase}; phases of pairs need 0 < max_phase <= pi")
    for field in RING if self.disc != "damped" else ():
      if getattr(self, field) != getattr(LinOSS, field):
        raise Mistake(f"LinOSS: {field}={getattr(self, field)}, disc={self.disc!r}; only 'damped' starts on a ring")

  def setup(self):
    d, n, damped = self.width, self.state, self.disc == "damped"
    between = nn.initializers.uniform(1.0)
    vector = lambda name, init: param(self, name, init, (n,), ("state",), slow=True)
    self.logit_dt = vector("logit_dt", nn.initializers.normal(0.5) if damped else between)
    self.G = vector("G", self._initial_G) if damped else None
    self.A = vector("A", self._initial_A if damped else between)
    self.B_re, self.B_im = (
      param(self, name, uniform_fan_in(d), (n, d), ("state", "embed")) for name in ("B_re", "B_im")
    )
    self.C_re, self.C_im = (
      param(self, name, uniform_fan_in(n), (d, n), ("embed", "state")) for name in ("C_re", "C_im")
    )
    self.D = param(self, "D", nn.initializers.normal(1.0), (d,), ("embed",))
    linear = lambda: torch_dense(d, ("embed", "inner"), fan_in=d, use_bias=True)
    self.gate = None if self.activation in dense_io.UNGATED else linear()
    self.out_proj = linear() if self.activation == "full_glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, 2 * self.state, 2)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    driven = dense_io.into_parts(x, self.B_re, self.B_im)
    # in chunks and never by an FFT, whose rounding an oscillation that does not die away brings to all earlier outputs
    q, h = dense.resume(driven, self._recurrence(), state.h, **where.masks)
    y = dense_io.read_parts(q, self.C_re, self.C_im, x.dtype) + self.D * x
    return dense_io.activate(self.activation, y.astype(x.dtype), self.gate, self.out_proj), State(h=h)

  def _recurrence(self) -> dense.Recurrence:
    """Returns the step of (z, q), less the identity, whose output is q, of real and of imaginary parts alike.

    A step is solved for z_t, which its implicit terms multiply by 1 + `drag`.
    """
    dt, A, G = self._constants()
    drag = {"im": dt**2 * A, "imex": jnp.zeros_like(A), "damped": dt * G}[self.disc]
    rows = [[-drag, -dt * A], [dt, -(dt**2) * A]]
    E = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2) / (1 + drag)[:, None, None]
    B = jnp.stack([dt, dt**2], axis=-1) / (1 + drag)[:, None]
    C = jnp.broadcast_to(jnp.array([0, 1], B.dtype), B.shape)
    return dense.Recurrence(*(jnp.concatenate([z, z]) for z in (E, B, C, jnp.zeros_like(A))))

  def _constants(self) -> tuple[Float[Array, "n"], Float[Array, "n"], Float[Array, "n"] | float]:
    """Returns dt, A and G."""
    dt, A = jax.nn.sigmoid(self.logit_dt), self.A
    if self.G is None:
      return dt, jax.nn.relu(A), 0.0
    G = jax.nn.relu(self.G)
    root = jnp.sqrt(1 + dt * G)
    # (root - 1)/dt, which would cancel, and (root + 1)/dt, which would overflow for the shortest dt
    least, most = G / (root + 1), (root + 1) / jnp.maximum(dt, 1e-3)
    return dt, jnp.clip(A, least**2, most**2), G

  @nn.nowrap
  def _initial_G(self, key, shape, dtype) -> Float[Array, "n"]:
    """Returns G with 1 + dt G = |lam|^-2, for lam drawn over the ring."""
    return jnp.expm1(2 * ring(self.r_min, self.r_max)(key, shape, dtype)) / jax.nn.sigmoid(self.logit_dt)

  @nn.nowrap
  def _initial_A(self, key, shape, dtype) -> Float[Array, "n"]:
    """Returns A with dt^2 A = |1 - exp(i theta)/|lam||^2, for theta drawn from U(0, max_phase)."""
    theta = jax.random.uniform(key, shape, dtype, 0.0, self.max_phase)
    dt = jax.nn.sigmoid(self.logit_dt)
    root = jnp.sqrt(1 + dt * self.G)
    return (self.G / (root + 1)) ** 2 + root * (2 * jnp.sin(theta / 2) / dt) ** 2

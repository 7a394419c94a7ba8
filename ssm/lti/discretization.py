"""From x' = A x + B u to x_t = Abar x_{t-1} + Bbar u_t, for diagonal A and one step, or gap, at a time.

All rules return log(Abar), of which mixers take the powers they need (`diagonal.powers`), and Bbar / B. Those for
events also take the gap since the event before, in steps dt. All hold, in value and gradient, at A = 0 and at dt = 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels.phi import phi1


def zoh(dt: Float[Array, "..."], A: Complex[Array, "..."]) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
  """Abar = exp(dt A), Bbar = (exp(dt A) - 1)/A B: exact for an input that is constant over each step."""
  z = _scale(dt, A)
  return z, _scale(dt, phi1(z))


def bilinear(dt: Float[Array, "..."], A: Complex[Array, "..."]) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
  """Abar = (1 + dt A/2)/(1 - dt A/2), Bbar = dt/(1 - dt A/2) B: Tustin's rule, the trapezoid."""
  w = _scale(dt / 2, A)
  below = 1 - w
  size_above = jnp.square(1 + w.real) + jnp.square(w.imag)
  size_below = jnp.square(below.real) + jnp.square(below.imag)
  # |1+w|^2 - |1-w|^2 = 4 Re w does not cancel for small steps; for large ones it does.
  small = 4 * w.real > -0.5 * size_below
  gone = size_above < jnp.finfo(size_above.dtype).tiny  # Abar = 0, at w = -1, has no logarithm
  large = jnp.where(small | gone, jnp.finfo(size_above.dtype).tiny, size_above / size_below)
  log_square = jnp.where(small, jnp.log1p(jnp.where(small, 4 * w.real / size_below, 0)), jnp.log(large))
  angle = jnp.arctan2(w.imag, jnp.where(gone, 1, 1 + w.real)) + jnp.arctan2(w.imag, below.real)
  return jax.lax.complex(0.5 * log_square, angle), dt / below


RULES = {"zoh": zoh, "bilinear": bilinear}


def dirac(
  dt: Float[Array, "..."], A: Complex[Array, "..."], gap: Float[Array, "..."]
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
  """Abar = exp(gap dt A), Bbar = B: every event is an impulse of weight 1."""
  z = _scale(gap * dt, A)
  return z, jnp.ones_like(z)


def asynchronous(
  dt: Float[Array, "..."], A: Complex[Array, "..."], gap: Float[Array, "..."]
) -> tuple[Complex[Array, "..."], Complex[Array, "..."]]:
  """Abar = exp(gap dt A), Bbar = (exp(dt A) - 1)/A B: an event weighs the same after any gap."""
  return _scale(gap * dt, A), zoh(dt, A)[1]


EVENT_RULES = {
  "zoh": lambda dt, A, gap: zoh(gap * dt, A),
  "bilinear": lambda dt, A, gap: bilinear(gap * dt, A),
  "dirac": dirac,
  "async": asynchronous,
}


def _scale(dt: Float[Array, "..."], A: Complex[Array, "..."]) -> Complex[Array, "..."]:
  return jax.lax.complex(dt * A.real, dt * A.imag)

"""From x' = A x + B u to x_t = Abar x_{t-1} + Bbar u_t, for diagonal A and u held or drawn straight over a step dt.

Both rules return log(Abar), of which mixers take the powers they need (`diagonal.powers`), and Bbar / B.
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


def _scale(dt: Float[Array, "..."], A: Complex[Array, "..."]) -> Complex[Array, "..."]:
  return jax.lax.complex(dt * A.real, dt * A.imag)

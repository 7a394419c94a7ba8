"""The function in every zero-order hold."""

import jax.numpy as jnp
from jaxtyping import Array, Inexact


def phi1(z: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
  """(e^z - 1)/z, with values and gradients that hold at and near 0."""
  size = jnp.square(z.real) + jnp.square(z.imag) if jnp.iscomplexobj(z) else jnp.square(z)
  small = size < 1e-3
  near = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6))))
  away = jnp.where(small, 1, z)
  return jnp.where(small, near, _expm1(away) / away)


def _expm1(z: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
  """e^z - 1; of complex numbers by parts, none of which cancels."""
  if not jnp.iscomplexobj(z):
    return jnp.expm1(z)
  real = jnp.expm1(z.real) * jnp.cos(z.imag) - 2 * jnp.square(jnp.sin(z.imag / 2))
  return real + 1j * (jnp.exp(z.real) * jnp.sin(z.imag))

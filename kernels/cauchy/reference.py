"""The definition of `cauchy`."""

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float


def cauchy(
  v: Complex[Array, "e k n"], a: Complex[Array, "e n"], p: Float[Array, "m"], q: Float[Array, "m"]
) -> Complex[Array, "e k m"]:
  """Computes all terms at once, then their sum."""
  v, a = v[..., None], a[:, None, :, None]
  return jnp.sum(v / (1j * p - q * a) + v.conj() / (1j * p - q * a.conj()), axis=2)

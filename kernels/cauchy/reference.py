"""The definition of `cauchy`."""

import jax.numpy as jnp


def cauchy(v, a, p, q):
  """Computes all terms at once, then their sum."""
  v, a = v[..., None], a[:, None, :, None]
  return jnp.sum(v / (1j * p - q * a) + v.conj() / (1j * p - q * a.conj()), axis=2)

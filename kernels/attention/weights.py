"""Weights that depend on one score alone, where softmax compares all of a query's.

Ma et al. 2022, arXiv:2209.10655, for Mega; the first is So et al. 2021's, arXiv:2109.08668.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Weighed = tuple[Float[Array, "..."], Float[Array, "..."]]


def relu2(s: Float[Array, "..."]) -> Weighed:
  """max(s, 0)^2, and its derivative."""
  positive = jnp.maximum(s, 0)
  return jnp.square(positive), 2 * positive


def laplace(s: Float[Array, "..."]) -> Weighed:
  """(1 + erf((s - mu) / (sigma sqrt(2)))) / 2, mu = sqrt(1/2), sigma = sqrt(1/(4 pi)): near relu2, but bounded."""
  z = s - math.sqrt(0.5)
  return 0.5 * (1 + jax.lax.erf(math.sqrt(2 * math.pi) * z)), math.sqrt(2) * jnp.exp(-2 * math.pi * jnp.square(z))


POINTWISE = {"relu2": relu2, "laplace": laplace}

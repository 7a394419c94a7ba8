"""Sums of weighted values and of the weights themselves, kept as one matrix: every value ends in a 1."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import compute_dtype


def beside_one(v: Float[Array, "*b p"]) -> Float[Array, "*b q"]:
  """[v, 1] in at least float32: the last column of sum k [v, 1]^T adds up the keys."""
  v = v.astype(compute_dtype(v))
  return jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)

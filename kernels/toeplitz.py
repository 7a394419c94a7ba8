"""Convolutions within chunks as matrix products."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.products import multiply


def within_chunks(chunks: Float[Array, "b m c e"], K: Float[Array, "e l"]) -> Float[Array, "b m c e"]:
  """Convolves each chunk with the first taps of K: per channel, the product with the triangular matrix of K_{i-j}."""
  c = chunks.shape[2]
  K = K[:, :c]
  # Rows that are one entry too short move it to the right from row to row; its gradient is a sum, not a scatter.
  rows = jnp.tile(jnp.pad(K, ((0, 0), (0, 2 * c - K.shape[1]))), c)[:, :-c].reshape(len(K), c, 2 * c - 1)
  return multiply("bmje,eji->bmie", chunks, rows[:, :, :c], chunks.dtype)

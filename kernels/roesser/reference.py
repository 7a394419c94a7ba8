"""The definition of `roesser`."""

import jax.numpy as jnp
from jaxtyping import Array


def roesser(A, B, C, rows, columns, inside):
  """Goes from place to place."""
  zero = jnp.zeros_like(B[0])
  h: dict[tuple[int, int], Array] = {}
  v: dict[tuple[int, int], Array] = {}
  for i in range(rows):
    for j in range(columns):
      weight = inside if i and j else 1.0
      first = 1.0 if i == j == 0 else 0.0
      h[i, j] = weight * (A[0] * h.get((i, j - 1), zero) + A[1] * v.get((i, j - 1), zero)) + first * B[0]
      v[i, j] = weight * (A[2] * h.get((i - 1, j), zero) + A[3] * v.get((i - 1, j), zero)) + first * B[1]
  tap = lambda i, j: jnp.sum((C[0] * h[i, j] + C[1] * v[i, j]).real, axis=-1)
  return jnp.stack([jnp.stack([tap(i, j) for j in range(columns)], axis=-1) for i in range(rows)], axis=1)

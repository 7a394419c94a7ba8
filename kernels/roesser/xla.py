"""`roesser` row by row: what moves down is known from the row above, what moves along is a `linear_scan`."""

import jax
import jax.numpy as jnp

from kernels.linear_scan import linear_scan


def roesser(A, B, C, rows, columns, inside):
  """Loops over rows, so that only the states of one row are in memory."""
  along = jnp.ones((columns, 1, 1), A.dtype).at[1:].set(inside)

  def row(v, first, weight):
    x = (weight * A[1] * v)[:-1]
    x = jnp.concatenate([first[None], x]).reshape(1, columns, -1)
    h, _ = linear_scan((weight * A[0]).reshape(-1), x, jnp.zeros_like(x[:, 0]))
    h = h.reshape(v.shape)
    return h, jnp.sum((C[0] * h + C[1] * v).real, axis=-1)

  # what a row needs is made again in the backward pass from the states above it
  @jax.checkpoint
  def below(above, _):
    h, v = above
    v = along * (A[2] * h + A[3] * v)
    h, K = row(v, jnp.zeros_like(B[0]), inside)
    return (h, v), K

  v = jnp.zeros((columns, *B.shape[1:]), B.dtype).at[0].set(B[1])
  h, K = row(v, B[0], 1.0)
  _, rest = jax.lax.scan(below, (h, v), length=rows - 1)
  return jnp.concatenate([K[None], rest]).transpose(2, 0, 1)

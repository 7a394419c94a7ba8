"""The dual of `ssd`: the same map as attention with a decay mask in place of the softmax."""

import jax.numpy as jnp


def quadratic(q, k, v, log_a, S, reset):
  """y = (L * (q k^T)) v with L_ij = a_{j+1} .. a_i for j <= i of one document; the state before is a token -1.

  Dao & Gu 2024, arXiv:2405.21060, eq. (16). Every segment is added up by itself, t^2 numbers a head.
  """
  t = v.shape[1]
  q, k = (jnp.repeat(z, v.shape[2] // z.shape[2], axis=2) for z in (q, k))
  document = jnp.zeros(v.shape[:2], int) if reset is None else jnp.cumsum(reset, axis=1)
  past, later = jnp.tri(t, dtype=bool), jnp.tri(t, k=-1, dtype=bool)[..., None]
  segments = jnp.cumsum(jnp.where(later, log_a[:, :, None], 0), axis=1)  # "b i j h"
  seen = (past & (document[:, :, None] == document[:, None]))[..., None]
  L = jnp.where(seen, jnp.exp(jnp.where(seen, segments, 0)), 0)
  enter = jnp.where((document == 0)[..., None], jnp.exp(jnp.cumsum(log_a, axis=1)), 0)
  y = jnp.einsum("bijh,bihk,bjhk,bjhp->bihp", L, q, k, v) + jnp.einsum("bih,bihk,bhkp->bihp", enter, q, S)
  last = jnp.einsum("bjh,bjhk,bjhp->bhkp", L[:, -1], k, v) + enter[:, -1, :, None, None] * S
  return y, last

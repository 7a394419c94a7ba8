"""The definition of `ssd`, and its dual: the same map as attention with a decay mask in place of the softmax."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels import op


def ssd(
  q: Float[Array, "b t g k"],
  k: Float[Array, "b t g k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h"],
  S: Float[Array, "b h k p"],
  reset: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """S_t = exp(log_a_t) S_{t-1} + k_t v_t^T, with S_{t-1} = 0 where `reset` is True; y_t = S_t^T q_t."""
  q, k = (jnp.repeat(z, v.shape[2] // z.shape[2], axis=2) for z in (q, k))

  def token(S, inputs):
    q, k, v, log_a, reset = inputs
    S = jnp.exp(log_a)[..., None, None] * op.cleared(reset, S) + k[..., None] * v[..., None, :]
    return S, op.read(S, q)

  return op.loop(token, S, (q, k, v, log_a, reset))


def quadratic(
  q: Float[Array, "b t g k"],
  k: Float[Array, "b t g k"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h"],
  S: Float[Array, "b h k p"],
  reset: Bool[Array, "b t"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
  """y = (L * (q k^T)) v with L_ij = a_{j+1} .. a_i for j <= i of one document; the state before is a token -1.

  Dao & Gu 2024, arXiv:2405.21060, eq. (16). Not for use: every segment is added up by itself, t^2 numbers a head.
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

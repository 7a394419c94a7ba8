"""The definition of `gated_linear_attention`: one token after the other."""

import jax.numpy as jnp

from kernels import op


def gated_linear_attention(q, k, v, log_a, u, S, reset):
  """S_t = diag(a_t) S_{t-1} + k_t v_t^T, with S_{t-1} = 0 where `reset` is True; y_t = S_t^T q_t, or with u."""

  def token(S, inputs):
    q, k, v, log_a, reset = inputs
    S = op.cleared(reset, S)
    new = k[..., None] * v[..., None, :]
    after = jnp.exp(log_a)[..., None] * S + new
    read = after if u is None else S + u[..., None] * new
    return after, op.read(read, q)

  return op.loop(token, S, (q, k, v, log_a, reset))

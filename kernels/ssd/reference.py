"""The definition of `ssd`: one token after the other."""

import jax.numpy as jnp

from kernels import op


def ssd(q, k, v, log_a, S, reset):
  """S_t = exp(log_a_t) S_{t-1} + k_t v_t^T, with S_{t-1} = 0 where `reset` is True; y_t = S_t^T q_t."""
  q, k = (jnp.repeat(z, v.shape[2] // z.shape[2], axis=2) for z in (q, k))

  def token(S, inputs):
    q, k, v, log_a, reset = inputs
    S = jnp.exp(log_a)[..., None, None] * op.cleared(reset, S) + k[..., None] * v[..., None, :]
    return S, op.read(S, q)

  return op.loop(token, S, (q, k, v, log_a, reset))

"""The definition of `delta_rule`: one token after the other."""

import jax.numpy as jnp

from kernels import op


def delta_rule(q, k, v, w, u, log_a, S, reset):
  """S_t = diag(a_t) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T, with S_{t-1} = 0 where `reset` is True.

  u is -k where it is None, and log_a is 0.
  """
  u = -k if u is None else u
  log_a = jnp.zeros((*v.shape[:3], 1), v.dtype) if log_a is None else log_a

  def token(S, inputs):
    q, k, v, w, u, log_a, reset = inputs
    S = op.cleared(reset, S)
    retrieved = op.read(S, w)
    S = jnp.exp(log_a)[..., None] * S + u[..., None] * retrieved[..., None, :] + k[..., None] * v[..., None, :]
    return S, op.read(S, q)

  return op.loop(token, S, (q, k, v, w, u, log_a, reset))

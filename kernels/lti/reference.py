"""The definition of `lti`."""

import jax.numpy as jnp

from kernels import inputs, op


def lti(u, system, x, reset, lengths):
  """y_t = Re(C A x_{t-1}) + C B u_t;  x_t = A x_{t-1} + B u_t, cleared where `reset` is True, still past `lengths`."""
  valid = None if lengths is None else inputs.valid(lengths, u.shape[1])
  CA, CB, B = system.O[:, 0], system.K[:, 0], system.I[..., -1]

  def token(x, inputs):
    u, reset, valid = inputs
    before = op.cleared(reset, x)
    y = (CA * before).real.sum(-1) + CB * u
    after = (
      before * system.A if system.A.ndim == 2 else jnp.einsum("eij,bej->bei", system.A, before, precision="highest")
    )
    after += B * u[..., None]
    return after if valid is None else jnp.where(valid[:, None, None], after, x), y

  return op.loop(token, x, (u, reset, valid))

"""Adds softplus, skip and gate to the forms of `selective_scan` that compute the recurrence alone."""

from collections.abc import Callable

import jax

from kernels import dispatch


def around(scan: Callable, why_not: Callable = dispatch.always) -> tuple[Callable, dispatch.Rule]:
  """Adds softplus before `scan`, skip and gate after it, and returns that with the rule that belongs to it.

  Args:
    scan: see `reference.selective_scan`.
    why_not: what keeps `scan` from states h, which have the dtype of the computation, and from a discretisation.
  """

  def selective_scan(x, dt, A, B, C, h, D, z, reset, softplus, disc):
    wide, dt = (m.astype(h.real.dtype) for m in (x, dt))
    y, last = scan(wide, jax.nn.softplus(dt) if softplus else dt, A, B, C, h, reset, disc)
    # Of narrow inputs the gradient keeps what came in, and makes again what it was cast to.
    return (_finish if x.dtype == y.dtype else jax.checkpoint(_finish))(y, x, D, z), last

  def rule(x, dt, A, B, C, h, D, z, reset, softplus, disc):
    return why_not(h, disc)

  return selective_scan, rule


def _finish(y, x, D, z):
  y = y if D is None else y + D * x.astype(y.dtype)
  return y if z is None else y * jax.nn.silu(z.astype(y.dtype))

"""`ssd_step` on CPUs: the definition, but that one kernel in C++ updates the state where it lies and reads it."""

import jax

from kernels.conv_step.reference import conv_step
from kernels.gated_norm import gated_rms_norm
from kernels.matrix_state import cpp


def why_not(x, z, dt, taps, S, *_) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  return cpp.why_not(S, None)


def ssd_step(x, z, dt, taps, S, kernel, bias, A, D, scale, norm, norm_groups, eps):
  """Computes `reference.ssd_step`."""
  b, h, k, p = S.shape
  x, taps = conv_step(x, taps, kernel, bias, "silu")
  u, BC = x[:, : h * p].reshape(b, h, p), x[:, h * p :].reshape(b, 1, 2, -1, k)
  y, S = cpp.ssd(BC[:, :, 1], BC[:, :, 0], (dt[..., None] * u)[:, None], (dt * A)[:, None], S, None)
  y, gate = (y[:, 0] + D * u).reshape(b, -1), jax.nn.silu(z)
  if scale is None:
    return y * gate, taps, S
  return gated_rms_norm(y, gate, scale, order=norm, groups=norm_groups, eps=eps), taps, S

"""`ssd_step` on CPUs: the definition, but that one kernel in C++ updates the state where it lies and reads it."""

from kernels.matrix_state import cpp
from kernels.ssd_step.reference import around


def why_not(x, z, dt, taps, S, *_) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  return cpp.why_not(S, None)


def _advance(u, dt, A, B, C, S):
  y, S = cpp.ssd(C[:, None], B[:, None], (dt[..., None] * u)[:, None], (dt * A)[:, None], S, None)
  return y[:, 0], S


ssd_step = around(_advance)

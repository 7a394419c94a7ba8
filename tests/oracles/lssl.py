"""LSSL, arXiv:2110.13985, eqs. (1) to (3): the generalised bilinear transform by an inverse, then token by token."""

import numpy as np

from tests.oracles.parts import dense, gelu


def run(p, x, *, alpha=0.5, A=None, B=None, dt=None):
  """A, B and dt are told where they are no parameters."""
  A, B = (p["A"], p["B"]) if A is None else (A[None], B[None])
  dt = np.exp(p["log_dt"]) if dt is None else dt
  width, n = p["C"].shape
  one = np.eye(n)
  h, y = np.zeros((width, n)), []
  for u in x:
    out = np.zeros(width)
    for i in range(width):
      copy = i % len(A)
      below = np.linalg.inv(one - alpha * dt[i] * A[copy])
      h[i] = below @ ((one + (1 - alpha) * dt[i] * A[copy]) @ h[i] + dt[i] * B[copy] * u[i])
      out[i] = p["C"][i] @ h[i] + p["D"][i] * u[i]
    y.append(dense(p, "out_proj", gelu(out)))
  return y

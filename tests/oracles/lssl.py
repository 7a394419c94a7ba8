"""LSSL, arXiv:2110.13985, eqs. (1) to (3): the generalised bilinear transform by an inverse, then token by token."""

import numpy as np

from tests.oracles.parts import dense, gelu, tokens


def run(p, x, *, reset=None, lengths=None, alpha=0.5, A=None, B=None, dt=None):
  """A, B and dt are told where they are no parameters."""
  A, B = (p["A"], p["B"]) if A is None else (A[None], B[None])
  dt = np.exp(p["log_dt"]) if dt is None else dt
  width, n = p["C"].shape
  one = np.eye(n)
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h = np.zeros((width, n))
    out = np.zeros(width)
    for i in range(width):
      copy = i % len(A)
      below = np.linalg.inv(one - alpha * dt[i] * A[copy])
      h[i] = below @ ((one + (1 - alpha) * dt[i] * A[copy]) @ h[i] + dt[i] * B[copy] * x[row, time, i])
      out[i] = p["C"][i] @ h[i] + p["D"][i] * x[row, time, i]
    y[row, time] = dense(p, "out_proj", gelu(out))
  return y

"""GSS, arXiv:2206.13947, fig. 1 and sec. 3.2: the simplified DSS by its kernel, within a gated unit."""

import numpy as np

from tests.oracles.parts import dense, gelu_tanh, tokens


def run(p, x, *, reset=None, lengths=None):
  lam = -np.exp(p["lam_log"]) + 1j * np.exp(p["lam_im_log"])
  weights = (p["C_re"] + 1j * p["C_im"]) * (np.exp(lam) - 1) / lam
  u = gelu_tanh(dense(p, "u_proj", x))
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      first = time
    out = p["D"] * u[row, time]
    for other in range(first, time + 1):
      out = out + np.sum(weights * np.exp(lam * (time - other)), axis=1).real * u[row, other]
    gate = gelu_tanh(dense(p, "v_proj", x[row, time]))
    y[row, time] = dense(p, "out_proj", dense(p, "y_proj", out) * gate)
  return y

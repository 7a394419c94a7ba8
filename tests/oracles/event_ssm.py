"""Event-SSM, arXiv:2404.18508: S5's recurrence with a decay by the gap before each event."""

import numpy as np

from tests.oracles.parts import gated, tokens


def run(p, x, *, dt, reset=None, lengths=None, disc="async", activation="half_glu2"):
  lam = p["lam_re"] + 1j * p["lam_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  step = np.exp(p["log_dt"])
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h = np.zeros(lam.shape, complex)
    u, gap = x[row, time], dt[row, time]
    if disc == "dirac":
      gain = 1.0
    else:
      gain = (np.exp(lam * step * (1.0 if disc == "async" else gap)) - 1) / lam
    h = np.exp(lam * step * gap) * h + gain * (B @ u)
    y[row, time] = gated(p, 2 * (C @ h).real + p["D"] * u, activation)
  return y

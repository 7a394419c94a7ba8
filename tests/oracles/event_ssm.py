"""Event-SSM, arXiv:2404.18508: S5's recurrence with a decay by the gap before each event."""

import numpy as np

from tests.oracles.parts import gated


def run(p, x, *, dt, disc="async", activation="half_glu2"):
  lam = p["lam_re"] + 1j * p["lam_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  step = np.exp(p["log_dt"])
  h, y = np.zeros(lam.shape, complex), []
  for u, gap in zip(x, dt):
    if disc == "dirac":
      gain = 1.0
    else:
      gain = (np.exp(lam * step * (1.0 if disc == "async" else gap)) - 1) / lam
    h = np.exp(lam * step * gap) * h + gain * (B @ u)
    y.append(gated(p, 2 * (C @ h).real + p["D"] * u, activation))
  return y

"""LRU, arXiv:2303.06349, sec. 3 and app. A: a diagonal complex recurrence, then GELU and a gated linear map."""

import numpy as np

from tests.oracles.parts import gated


def run(p, x, *, activation="full_glu"):
  lam = np.exp(-np.exp(p["nu_log"])) * np.exp(1j * np.exp(p["theta_log"]))
  gamma = np.exp(p["gamma_log"])
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  h, y = np.zeros(lam.shape, complex), []
  for u in x:
    h = lam * h + gamma * (B @ u)
    y.append(gated(p, (C @ h).real + p["D"] * u, activation))
  return y

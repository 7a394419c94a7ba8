"""LRU, arXiv:2303.06349, sec. 3 and app. A: a diagonal complex recurrence, then GELU and a gated linear map."""

import numpy as np

from tests.oracles.parts import gated, tokens


def run(p, x, *, reset=None, lengths=None, activation="full_glu"):
  lam = np.exp(-np.exp(p["nu_log"])) * np.exp(1j * np.exp(p["theta_log"]))
  gamma = np.exp(p["gamma_log"])
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h = np.zeros(lam.shape, complex)
    u = x[row, time]
    h = lam * h + gamma * (B @ u)
    y[row, time] = gated(p, (C @ h).real + p["D"] * u, activation)
  return y

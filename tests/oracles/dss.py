"""DSS, arXiv:2203.14343, prop. 1(a): the kernel's sum, and the convolution with it by its definition."""

import numpy as np

from tests.oracles.parts import tokens
from tests.oracles.s4 import readout


def run(p, x, *, reset=None, lengths=None, activation="glu"):
  lam = -np.exp(p["lam_log"]) + 1j * p["lam_im"]
  dt = np.exp(p["log_dt"])
  z = dt[:, :1] * lam.real + 1j * dt[:, 1:] * lam.imag
  weights = (p["C_re"] + 1j * p["C_im"]) * (np.exp(z) - 1) / lam
  K = [np.sum(weights * np.exp(z * lag), axis=1).real for lag in range(x.shape[1])]
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      first = time
    out = p["D"] * x[row, time]
    for other in range(first, time + 1):
      out = out + K[time - other] * x[row, other]
    y[row, time] = readout(p, out, activation)
  return y

"""Liquid-S4, arXiv:2209.12951, sec. 3, "PB": S4D's recurrence, and products of neighbouring inputs weighed by C B^p."""

import numpy as np

from tests.oracles.parts import discretize, tokens
from tests.oracles.s4 import readout


def run(p, x, *, reset=None, lengths=None, degree, disc="bilinear", activation="glu"):
  A = -np.exp(p["ssm/A_log"]) + 1j * p["ssm/A_im"]
  B, C = (p[f"ssm/{name}_re"] + 1j * p[f"ssm/{name}_im"] for name in "BC")
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h, first = np.zeros(C.shape, complex), time
    out = np.zeros(x.shape[-1])
    for i in range(x.shape[-1]):
      decay, gain = discretize(disc, np.exp(p["ssm/log_dt"][i]), A[i])
      h[i] = decay * h[i] + gain * B[i] * x[row, time, i]
      out[i] = 2 * np.sum(C[i] * h[i]).real + p["ssm/D"][i] * x[row, time, i]
      for order in range(2, degree + 1):
        if time - order + 1 >= first:
          weight = 2 * np.sum(C[i] * (gain * B[i]) ** order).real
          out[i] += weight * np.prod(x[row, time - order + 1 : time + 1, i])
    y[row, time] = readout(p, out, activation)
  return y

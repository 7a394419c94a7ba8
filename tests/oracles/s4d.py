"""S4D, arXiv:2206.11893, sec. 3: a diagonal recurrence for every channel, then GELU and a gated linear map."""

import numpy as np

from tests.oracles.parts import discretize
from tests.oracles.s4 import readout


def run(p, x, *, disc="zoh", step_rescale=1.0, activation="glu"):
  width = x.shape[1]
  A = -np.exp(p["A_log"]) + 1j * p["A_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  dt = step_rescale * np.exp(p["log_dt"])
  h, y = np.zeros(C.shape, complex), []
  for u in x:
    out = np.zeros(width)
    for i in range(width):
      copy = i % len(A)
      decay, gain = discretize(disc, dt[i], A[copy])
      h[i] = decay * h[i] + gain * B[copy] * u[i]
      # each stored state stands for itself and its conjugate
      out[i] = np.sum(C[i] * h[i] + np.conj(C[i] * h[i])).real + p["D"][i] * u[i]
    y.append(readout(p, out, activation))
  return y

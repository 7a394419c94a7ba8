"""S4D, arXiv:2206.11893, sec. 3: a diagonal recurrence for every channel, then GELU and a gated linear map."""

import numpy as np

from tests.oracles.parts import dense, discretize, gelu, sigmoid, tokens


def run(p, x, *, reset=None, lengths=None, disc="zoh", activation="glu"):
  width = x.shape[-1]
  A = -np.exp(p["A_log"]) + 1j * p["A_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  dt = np.exp(p["log_dt"])
  y = np.zeros_like(x)
  h = np.zeros(C.shape, complex)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h = np.zeros(C.shape, complex)
    out = np.zeros(width)
    for i in range(width):
      copy = i % len(A)
      decay, gain = discretize(disc, dt[i], A[copy])
      h[i] = decay * h[i] + gain * B[copy] * x[row, time, i]
      # each stored state stands for itself and its conjugate
      out[i] = np.sum(C[i] * h[i] + np.conj(C[i] * h[i])).real + p["D"][i] * x[row, time, i]
    if activation != "none":
      out = gelu(out)
    if activation == "glu":
      value, gate = np.split(dense(p, "out_proj", out), 2)
      out = value * sigmoid(gate)
    y[row, time] = out
  return y

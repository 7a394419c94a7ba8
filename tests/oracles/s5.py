"""S5, arXiv:2208.04933, sec. 3: one diagonal recurrence with matrices in and out, then GELU and a gate."""

import numpy as np

from tests.oracles.parts import discretize, gated, tokens


def run(
  p, x, *, reset=None, lengths=None, dt=None, conj_sym=True, disc="zoh", step_rescale=1.0, activation="half_glu1"
):
  lam = p["lam_re"] + 1j * p["lam_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h = np.zeros(lam.shape, complex)
    u = x[row, time]
    step = step_rescale * np.exp(p["log_dt"]) * (1.0 if dt is None else dt[row, time])
    decay, gain = discretize(disc, step, lam)
    h = decay * h + gain * (B @ u)
    out = (2 if conj_sym else 1) * (C @ h).real + p["D"] * u
    y[row, time] = gated(p, out, activation)
  return y

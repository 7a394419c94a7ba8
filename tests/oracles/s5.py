"""S5, arXiv:2208.04933, sec. 3: one diagonal recurrence with matrices in and out, then GELU and a gate."""

import numpy as np

from tests.oracles.parts import discretize, documents, gated


def run(
  p,
  x,
  *,
  reset=None,
  lengths=None,
  dt=None,
  conj_sym=True,
  disc="zoh",
  step_rescale=1.0,
  activation="half_glu1",
  bidirectional=False,
):
  lam = p["lam_re"] + 1j * p["lam_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  y = np.zeros_like(x)
  for row, first, end in documents(x, reset, lengths):
    ways = [range(first, end), range(end - 1, first - 1, -1)] if bidirectional else [range(first, end)]
    states = {time: [] for time in range(first, end)}
    for way in ways:
      h = np.zeros(lam.shape, complex)
      for before, time in zip([None, *way], way):
        # The backward scan reads the gap after each token, and at the last token the gap before the document.
        gap = 1.0 if dt is None else dt[row, first if before is None else max(before, time)]
        step = step_rescale * np.exp(p["log_dt"]) * gap
        decay, gain = discretize(disc, step, lam)
        h = decay * h + gain * (B @ x[row, time])
        states[time].append(h)
    for time in range(first, end):
      out = (2 if conj_sym else 1) * (C @ np.concatenate(states[time])).real + p["D"] * x[row, time]
      y[row, time] = gated(p, out, activation)
  return y

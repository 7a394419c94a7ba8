"""S5, arXiv:2208.04933, sec. 3: one diagonal recurrence with matrices in and out, then GELU and a gate."""

import numpy as np

from tests.oracles.parts import discretize, gated


def run(p, x, *, dt=None, conj_sym=True, disc="zoh", step_rescale=1.0, activation="half_glu1", bidirectional=False):
  lam = p["lam_re"] + 1j * p["lam_im"]
  B = p["B_re"] + 1j * p["B_im"]
  C = p["C_re"] + 1j * p["C_im"]
  states = [[] for _ in x]
  for backward in range(1 + bidirectional):
    h = np.zeros(lam.shape, complex)
    for i in range(len(x)):
      time = len(x) - 1 - i if backward else i
      # The backward scan reads the gap after each token, and at the last token the gap before the document.
      gap = 1.0 if dt is None else dt[(time + backward) % len(x)]
      decay, gain = discretize(disc, step_rescale * np.exp(p["log_dt"]) * gap, lam)
      h = decay * h + gain * (B @ x[time])
      states[time].append(h)
  outputs = [(2 if conj_sym else 1) * (C @ np.concatenate(both)).real for both in states]
  return [gated(p, out + p["D"] * u, activation) for out, u in zip(outputs, x)]

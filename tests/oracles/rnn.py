"""The plain recurrent network, Elman 1990."""

import numpy as np


def run(p, x, *, activation="tanh"):
  h, y = np.zeros(x.shape[1]), []
  for u in x:
    v = p["W"].T @ u + p["R"].T @ h + p["bias"]
    h = np.tanh(v) if activation == "tanh" else np.maximum(v, 0)
    y.append(h)
  return y

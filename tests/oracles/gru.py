"""GRU, arXiv:1406.1078, eqs. (5)-(8), and its form with the reset gate behind the matrix."""

import numpy as np

from tests.oracles.parts import sigmoid


def run(p, x, *, reset_gate="before"):
  W_r, W_z, W_n = np.split(p["W"], 3, axis=1)
  R_r, R_z, R_n = np.split(p["R"], 3, axis=1)
  b_r, b_z, b_n = np.split(p["bias"], 3)
  h, y = np.zeros(x.shape[1]), []
  for u in x:
    r = sigmoid(u @ W_r + h @ R_r + b_r)
    z = sigmoid(u @ W_z + h @ R_z + b_z)
    past = (r * h) @ R_n if reset_gate == "before" else r * (h @ R_n + p["b"])
    h = z * h + (1 - z) * np.tanh(u @ W_n + past + b_n)
    y.append(h)
  return y

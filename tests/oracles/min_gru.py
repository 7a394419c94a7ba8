"""minGRU, arXiv:2410.01201, sec. 3.1, and g of app. B."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, tokens


def run(p, x, *, reset=None, lengths=None, candidate="linear"):
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    z = sigmoid(dense(p, "z_proj", x[row, time]))
    new = dense(p, "n_proj", x[row, time])
    if candidate == "positive":
      new = np.array([v + 0.5 if v >= 0 else sigmoid(v) for v in new])
    if starts:
      h = np.zeros_like(z)
    h = (1 - z) * h + z * new
    y[row, time] = dense(p, "out_proj", h) if "out_proj/kernel" in p else h
  return y

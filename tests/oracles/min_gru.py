"""minGRU, arXiv:2410.01201, sec. 3.1, and g of app. B."""

import numpy as np

from tests.oracles.parts import dense, sigmoid


def run(p, x, *, candidate="linear"):
  h, y = 0.0, []
  for u in x:
    z = sigmoid(dense(p, "z_proj", u))
    new = dense(p, "n_proj", u)
    if candidate == "positive":
      new = np.array([v + 0.5 if v >= 0 else sigmoid(v) for v in new])
    h = (1 - z) * h + z * new
    y.append(dense(p, "out_proj", h) if "out_proj/kernel" in p else h)
  return y

"""S6, arXiv:2312.00752, alg. 2: the selective state space on the channels as they come."""

import numpy as np

from tests.oracles.parts import dense, softplus


def run(p, x, *, disc="euler"):
  A = -np.exp(p["A_log"])
  n, rank = A.shape[1], p["dt_proj/kernel"].shape[0]
  h, y = np.zeros(A.shape), []
  for u in x:
    delta, B, C = np.split(dense(p, "x_proj", u), [rank, rank + n])
    dt = softplus(dense(p, "dt_proj", delta))[:, None]
    held = dt if disc == "euler" else (np.exp(dt * A) - 1) / A
    h = np.exp(dt * A) * h + held * B * u[:, None]
    y.append(h @ C + p["D"] * u)
  return y

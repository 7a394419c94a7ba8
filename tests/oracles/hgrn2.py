"""HGRN2, arXiv:2404.07904, sec. 3, with a lower bound for each channel of one layer."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid, silu, tokens


def run(p, x, *, reset=None, lengths=None, heads):
  low = sigmoid(p["bound"])
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    q, f, v = (dense(p, name, x[row, time]) for name in ("q_proj", "f_proj", "i_proj"))
    q, a, v = (z.reshape(heads, -1) for z in (silu(q), low + (1 - low) * sigmoid(f), v))
    if starts:
      S = np.zeros((heads, q.shape[1], v.shape[1]))
    for i in range(heads):
      S[i] = a[i][:, None] * S[i] + np.outer(1 - a[i], v[i])
    y[row, time] = dense(p, "out_proj", rms(np.concatenate([q[i] @ S[i] for i in range(heads)]), p["norm/scale"]))
  return y

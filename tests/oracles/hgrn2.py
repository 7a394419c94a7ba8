"""HGRN2, arXiv:2404.07904, sec. 3, with a lower bound for each channel of one layer."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, *, heads):
  low = sigmoid(p["bound"])
  S, y = [0.0] * heads, []
  for u in x:
    q, f, v = (dense(p, name, u) for name in ("q_proj", "f_proj", "i_proj"))
    q, a, v = (z.reshape(heads, -1) for z in (silu(q), low + (1 - low) * sigmoid(f), v))
    for i in range(heads):
      S[i] = a[i][:, None] * S[i] + np.outer(1 - a[i], v[i])
    y.append(dense(p, "out_proj", rms(np.concatenate([q[i] @ S[i] for i in range(heads)]), p["norm/scale"])))
  return y

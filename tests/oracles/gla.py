"""GLA, arXiv:2312.06635, sec. 4.1 and 4.4, with an RMS norm in each head."""

import numpy as np

from tests.oracles.matrix_state import low_rank, rms
from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, *, heads, tau=16.0):
  S, y = [0.0] * heads, []
  for u in x:
    q, k, v, g = (dense(p, name, u).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj", "g_proj"))
    a = (sigmoid(low_rank(p, "a_proj", u)) ** (1 / tau)).reshape(heads, -1)
    out = []
    for i in range(heads):
      S[i] = a[i][:, None] * S[i] + np.outer(k[i], v[i])
      out.append(rms(q[i] @ S[i] / np.sqrt(len(q[i])), p["gated_norm/scale"]) * silu(g[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y

"""Lightning attention as in MiniMax-01, arXiv:2501.08313, sec. 2.2.1, in the first layer of many."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, *, heads, left):
  """`left`: what the layer's place leaves of the rates."""
  S, y = [0.0] * heads, []
  for u in x:
    q, k, v = (silu(dense(p, name, u)).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj"))
    out = []
    for i in range(heads):
      # rates are no parameters, and are kept in float32
      rate = np.float64(np.float32(left / 2 ** (8 * (i + 1) / heads)))
      S[i] = np.exp(-rate) * S[i] + np.outer(k[i], v[i])
      out.append(q[i] @ S[i])
    y.append(dense(p, "out_proj", sigmoid(dense(p, "g_proj", u)) * rms(np.concatenate(out), p["norm/scale"], 1e-6)))
  return y

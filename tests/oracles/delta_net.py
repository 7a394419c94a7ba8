"""DeltaNet, arXiv:2406.06484, sec. 2.2, and with beta up to 2, arXiv:2411.12537."""

import numpy as np

from tests.oracles.matrix_state import convolved, no_inputs, rms
from tests.oracles.parts import dense, sigmoid


def run(p, x, *, heads, beta_most=1):
  seen, S = no_inputs(p), None
  y = []
  for u in x:
    q, k, v = convolved(p, u, seen, heads, heads)
    beta = beta_most * sigmoid(dense(p, "b_proj", u))
    S = np.zeros((heads, len(k[0]), v.shape[1])) if S is None else S
    out = []
    for i in range(heads):
      S[i] = S[i] - beta[i] * np.outer(k[i], k[i] @ S[i]) + beta[i] * np.outer(k[i], v[i])
      out.append(rms(q[i] @ S[i] / np.sqrt(len(q[i])), p["norm/scale"]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y

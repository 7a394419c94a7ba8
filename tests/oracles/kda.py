"""Kimi delta attention, arXiv:2510.26692, eq. (1)."""

import numpy as np

from tests.oracles.matrix_state import convolved, low_rank, no_inputs, rms
from tests.oracles.parts import dense, sigmoid, softplus


def run(p, x, *, beta_most=1, lower_bound=None):
  heads = len(p["A_log"])
  seen, S = no_inputs(p), None
  y = []
  for u in x:
    q, k, v = convolved(p, u, seen, heads, heads)
    beta = beta_most * sigmoid(dense(p, "b_proj", u))
    through = dense if "a_proj/kernel" in p else low_rank
    f = (through(p, "a_proj", u) + p["dt_bias"]).reshape(heads, -1)
    g = through(p, "g_proj", u).reshape(heads, -1)
    S = np.zeros((heads, len(k[0]), v.shape[1])) if S is None else S
    out = []
    for i in range(heads):
      rate = np.exp(p["A_log"][i])
      a = np.exp(-rate * softplus(f[i]) if lower_bound is None else lower_bound * sigmoid(rate * f[i]))
      S[i] = (np.eye(len(a)) - beta[i] * np.outer(k[i], k[i])) @ np.diag(a) @ S[i] + beta[i] * np.outer(k[i], v[i])
      out.append(rms(q[i] @ S[i] / np.sqrt(len(q[i])), p["gated_norm/scale"]) * sigmoid(g[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y

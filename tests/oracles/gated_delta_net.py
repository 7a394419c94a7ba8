"""Gated DeltaNet, arXiv:2412.06464, eq. (10)."""

import numpy as np

from tests.oracles.matrix_state import convolved, no_inputs, rms
from tests.oracles.parts import dense, sigmoid, silu, softplus


def run(p, x, *, key_heads, beta_most=1, gate="silu"):
  heads = len(p["A_log"])
  seen, S = no_inputs(p), None
  y = []
  for u in x:
    q, k, v = convolved(p, u, seen, key_heads, heads)
    beta = beta_most * sigmoid(dense(p, "b_proj", u))
    a = np.exp(-np.exp(p["A_log"]) * softplus(dense(p, "a_proj", u) + p["dt_bias"]))
    g = dense(p, "g_proj", u).reshape(heads, -1)
    S = np.zeros((heads, len(k[0]), v.shape[1])) if S is None else S
    out = []
    for i in range(heads):
      transition = a[i] * (np.eye(len(k[i])) - beta[i] * np.outer(k[i], k[i]))
      S[i] = transition @ S[i] + beta[i] * np.outer(k[i], v[i])
      out.append(
        rms(q[i] @ S[i] / np.sqrt(len(q[i])), p["gated_norm/scale"]) * {"silu": silu, "sigmoid": sigmoid}[gate](g[i])
      )
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y

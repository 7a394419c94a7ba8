"""Gated DeltaNet-2, arXiv:2605.22791: erase and write gates by channel."""

import numpy as np

from tests.oracles.matrix_state import convolved, low_rank, no_inputs, rms
from tests.oracles.parts import dense, sigmoid, softplus


def run(p, x, *, erase_most=1):
  heads, seen, S, y = len(p["A_log"]), no_inputs(p), None, []
  for u in x:
    q, k, v = convolved(p, u, seen, heads, heads)
    size = len(k[0])
    erase = erase_most * sigmoid(dense(p, "b_proj", u)).reshape(heads, size)
    write = sigmoid(dense(p, "w_proj", u)).reshape(heads, -1)
    f = (low_rank(p, "a_proj", u) + p["dt_bias"]).reshape(heads, size)
    a = np.exp(-np.exp(p["A_log"])[:, None] * softplus(f))
    g = low_rank(p, "g_proj", u).reshape(heads, -1)
    S = np.zeros((heads, size, v.shape[1])) if S is None else S
    out = []
    for i in range(heads):
      S[i] = (np.eye(size) - np.outer(k[i], erase[i] * k[i])) @ np.diag(a[i]) @ S[i] + np.outer(k[i], write[i] * v[i])
      out.append(rms(q[i] @ S[i] / np.sqrt(size), p["gated_norm/scale"]) * sigmoid(g[i]))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y

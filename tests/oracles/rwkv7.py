"""RWKV-7's time mixing, arXiv:2503.14456, sec. 4.1, with the state as values by keys."""

import numpy as np

from tests.oracles.matrix_state import group_norm, low_rank
from tests.oracles.parts import dense, sigmoid


def run(p, x, *, heads, v_first=None):
  width = x.shape[1]
  S, before = np.zeros((heads, width // heads, width // heads)), np.zeros(width)
  y = []
  for t, u in enumerate(x):
    xr, xw, xk, xv, xa, xg = ((1 - mu) * u + mu * before for mu in p["mu"])
    before = u
    r, k, v = dense(p, "r_proj", xr), dense(p, "k_proj", xk), dense(p, "v_proj", xv)
    w = np.exp(-sigmoid(low_rank(p, "w_lora", xw, np.tanh)) / np.sqrt(np.e))
    rate = sigmoid(low_rank(p, "a_lora", xa))
    g = low_rank(p, "g_lora", xg, sigmoid)
    if v_first is not None:
      v = v + (v_first[t] - v) * sigmoid(low_rank(p, "v_lora", xv))
    kappa = (k * p["k_k"]).reshape(heads, -1)
    kappa = (kappa / np.linalg.norm(kappa, axis=1, keepdims=True)).ravel()
    k = k * (1 + (rate - 1) * p["k_a"])
    out, bonus = [], []
    for i, part in enumerate(np.split(np.arange(width), heads)):
      removed = np.outer(kappa[part], rate[part] * kappa[part])
      S[i] = S[i] @ (np.diag(w[part]) - removed) + np.outer(v[part], k[part])
      out.append(S[i] @ r[part])
      bonus.append(np.sum(r[part] * p["r_k"][part] * k[part]) * v[part])
    normal = group_norm(np.concatenate(out), heads, p["norm/scale"], p["norm/bias"], 64e-5)
    y.append(dense(p, "out_proj", (normal + np.concatenate(bonus)) * g))
  return y

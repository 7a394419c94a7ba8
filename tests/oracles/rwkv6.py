"""RWKV-6's time mixing, arXiv:2404.05892, sec. 4."""

import numpy as np

from tests.oracles.matrix_state import group_norm, low_rank
from tests.oracles.parts import dense, silu


def run(p, x, *, heads):
  width = x.shape[1]
  rank = p["mix_up"].shape[1]
  S, before = np.zeros((heads, width // heads, width // heads)), np.zeros(width)
  y = []
  for u in x:
    lerp = lambda mu, u=u, before=before: u + (before - u) * mu
    low = np.tanh(dense(p, "mix_down", lerp(p["mu"][0]))).reshape(5, rank)
    xw, xk, xv, xr, xg = (lerp(p["mu"][1 + i] + low[i] @ p["mix_up"][i]) for i in range(5))
    before = u
    w = np.exp(-np.exp(low_rank(p, "w_lora", xw, np.tanh)))
    r, k, v, w = (
      z.reshape(heads, -1) for z in (dense(p, "r_proj", xr), dense(p, "k_proj", xk), dense(p, "v_proj", xv), w)
    )
    out = []
    for i in range(heads):
      new = np.outer(k[i], v[i])
      out.append(r[i] @ (S[i] + np.diag(p["u"][i]) @ new))
      S[i] = np.diag(w[i]) @ S[i] + new
    normal = group_norm(np.concatenate(out), heads, p["norm/scale"], p["norm/bias"], 64e-5)
    y.append(dense(p, "out_proj", normal * silu(dense(p, "g_proj", xg))))
  return y

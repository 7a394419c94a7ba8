"""RWKV-4's time mixing, arXiv:2305.13048, sec. 3, with the sums over all tokens written out."""

import numpy as np

from tests.oracles.parts import dense, sigmoid


def run(p, x):
  w, k, v, y = np.exp(p["log_w"]), [], [], []
  for n, u in enumerate(x):
    before = x[n - 1] if n else 0
    xk, xv, xr = ((1 - mu) * u + mu * before for mu in p["mu"])
    k.append(dense(p, "k_proj", xk))
    v.append(dense(p, "v_proj", xv))
    weights = [np.exp(-(n - 1 - i) * w + k[i]) for i in range(n)] + [np.exp(p["u"] + k[n])]
    wkv = sum(weight * value for weight, value in zip(weights, v)) / sum(weights)
    y.append(dense(p, "out_proj", sigmoid(dense(p, "r_proj", xr)) * wkv))
  return y

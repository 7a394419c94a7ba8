"""RWKV-4's time mixing, arXiv:2305.13048, sec. 3, with the sums over all tokens written out."""

import numpy as np

from tests.oracles.parts import dense, documents, sigmoid


def run(p, x, *, reset=None, lengths=None):
  y = np.zeros_like(x)
  w = np.exp(p["log_w"])
  for row, first, end in documents(x, reset, lengths):
    k, v = [], []
    for t in range(first, end):
      u, before = x[row, t], x[row, t - 1] if t > first else 0
      xk, xv, xr = ((1 - mu) * u + mu * before for mu in p["mu"])
      k.append(dense(p, "k_proj", xk))
      v.append(dense(p, "v_proj", xv))
      n = t - first
      weights = [np.exp(-(n - 1 - i) * w + k[i]) for i in range(n)] + [np.exp(p["u"] + k[n])]
      wkv = sum(weight * value for weight, value in zip(weights, v)) / sum(weights)
      y[row, t] = dense(p, "out_proj", sigmoid(dense(p, "r_proj", xr)) * wkv)
  return y

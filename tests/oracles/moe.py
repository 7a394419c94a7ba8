"""A mixture of experts, each token by itself: Fedus et al. 2022, arXiv:2101.03961, sec. 2.1."""

import numpy as np

from tests.oracles.parts import silu, tokens


def run(p, x, *, reset=None, lengths=None, top_k=2, renormalize=False):
  y = np.zeros_like(x)
  for row, time, _ in tokens(x, reset, lengths):
    u = x[row, time]
    scores = np.exp(u @ p["router"])
    scores = scores / scores.sum()
    chosen = np.argsort(-scores)[:top_k]
    weights = scores[chosen] / (scores[chosen].sum() if renormalize else 1)
    for expert, weight in zip(chosen, weights):
      inner = silu(u @ p["gate_proj"][expert]) * (u @ p["in_proj"][expert])
      y[row, time] += weight * (inner @ p["out_proj"][expert])
  return y

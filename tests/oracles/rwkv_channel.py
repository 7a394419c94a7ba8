"""RWKV's channel mixing, arXiv:2305.13048, sec. 3, and arXiv:2503.14456, sec. 4."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, tokens


def run(p, x, *, reset=None, lengths=None, receptance=False):
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    u, before = x[row, time], np.zeros(x.shape[-1]) if starts else x[row, time - 1]
    mixed = [mu * before + (1 - mu) * u for mu in p["mu"]]
    y[row, time] = dense(p, "v_proj", np.maximum(dense(p, "k_proj", mixed[0]), 0) ** 2)
    if receptance:
      y[row, time] *= sigmoid(dense(p, "r_proj", mixed[1]))
  return y

"""RWKV's channel mixing, arXiv:2305.13048, sec. 3, and arXiv:2503.14456, sec. 4."""

import numpy as np

from tests.oracles.parts import dense, sigmoid


def run(p, x, *, receptance=False):
  before = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])
  mixed = [mu * before + (1 - mu) * x for mu in p["mu"]]
  y = dense(p, "v_proj", np.maximum(dense(p, "k_proj", mixed[0]), 0) ** 2)
  return y * sigmoid(dense(p, "r_proj", mixed[1])) if receptance else y

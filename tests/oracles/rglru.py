"""RG-LRU, arXiv:2402.19427, sec. 2.4, in the recurrent block of fig. 2; the first token of a document enters whole."""

import numpy as np

from tests.oracles.parts import block_dense, dense, gelu_tanh, sigmoid


def run(p, x):
  taps, inner = p["conv/kernel"].shape
  h, seen = np.zeros(inner), [np.zeros(inner)] * taps
  y = []
  for t, token in enumerate(x):
    seen = [*seen[1:], dense(p, "x_proj", token)]
    u = sum(k * v for k, v in zip(p["conv/kernel"], seen)) + p["conv/bias"]
    r = sigmoid(block_dense(p, "a_gate", u))
    i = sigmoid(block_dense(p, "input_gate", u))
    # theirs is a = sigmoid(Lambda) and a_t = a^(c r_t), with Lambda = -a_param
    a = sigmoid(-p["a_param"]) ** (8 * r)
    h = a * h + np.sqrt(1 - a**2) * (i * u) if t else i * u
    y.append(dense(p, "out_proj", h * gelu_tanh(dense(p, "y_proj", token))))
  return y

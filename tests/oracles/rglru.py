"""RG-LRU, arXiv:2402.19427, sec. 2.4, in the recurrent block of fig. 2; the first token of a document enters whole."""

import numpy as np

from tests.oracles.parts import block_dense, dense, gelu_tanh, sigmoid, tokens


def run(p, x, *, reset=None, lengths=None):
  taps, inner = p["conv/kernel"].shape
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h, seen = np.zeros(inner), [np.zeros(inner)] * taps
    seen = [*seen[1:], dense(p, "x_proj", x[row, time])]
    u = sum(k * v for k, v in zip(p["conv/kernel"], seen)) + p["conv/bias"]
    r = sigmoid(block_dense(p, "a_gate", u))
    i = sigmoid(block_dense(p, "input_gate", u))
    # theirs is a = sigmoid(Lambda) and a_t = a^(c r_t), with Lambda = -a_param
    a = sigmoid(-p["a_param"]) ** (8 * r)
    h = i * u if starts else a * h + np.sqrt(1 - a**2) * (i * u)
    y[row, time] = dense(p, "out_proj", h * gelu_tanh(dense(p, "y_proj", x[row, time])))
  return y

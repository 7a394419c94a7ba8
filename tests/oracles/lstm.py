"""LSTM with a forget gate, Gers et al. 2000, without peepholes: gates i, f, g, o one by one."""

import numpy as np

from tests.oracles.parts import sigmoid, tokens


def run(p, x, *, reset=None, lengths=None):
  d = x.shape[-1]
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    if starts:
      h, c = np.zeros(d), np.zeros(d)

    def gate(index):
      columns = slice(index * d, (index + 1) * d)
      return x[row, time] @ p["W"][:, columns] + h @ p["R"][:, columns] + p["bias"][columns]  # noqa: B023

    c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * np.tanh(gate(2))
    h = sigmoid(gate(3)) * np.tanh(c)
    y[row, time] = h
  return y

"""LSTM with a forget gate, Gers et al. 2000, without peepholes: gates i, f, g, o one by one."""

import numpy as np

from tests.oracles.parts import sigmoid


def run(p, x):
  d = x.shape[1]
  h, c = np.zeros(d), np.zeros(d)
  y = []
  for u in x:

    def gate(index):
      columns = slice(index * d, (index + 1) * d)
      return u @ p["W"][:, columns] + h @ p["R"][:, columns] + p["bias"][columns]  # noqa: B023

    c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * np.tanh(gate(2))
    h = sigmoid(gate(3)) * np.tanh(c)
    y.append(h)
  return y

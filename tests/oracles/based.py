"""Based's linear attention, arXiv:2402.18668, sec. 4.1, with a feature for every ordered pair of channels."""

import numpy as np

from tests.oracles.parts import dense, tokens


def run(p, x, *, reset=None, lengths=None, heads):
  y = np.zeros_like(x)
  for row, time, starts in tokens(x, reset, lengths):
    q, k, v = (dense(p, name, x[row, time]).reshape(heads, -1) for name in ("q_proj", "k_proj", "v_proj"))
    if starts:
      numerator, divisor = [0.0] * heads, [0.0] * heads
    out = []
    for i in range(heads):
      numerator[i] = numerator[i] + np.outer(phi(k[i]), v[i])
      divisor[i] = divisor[i] + phi(k[i])
      out.append(phi(q[i]) @ numerator[i] / (phi(q[i]) @ divisor[i]))
    y[row, time] = dense(p, "out_proj", np.concatenate(out))
  return y


def phi(x):
  d = len(x)
  return np.concatenate([[1], x / d**0.25, np.outer(x, x).ravel() / np.sqrt(2 * d)])
